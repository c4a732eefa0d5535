//! Decides what may be spent without asking: the edge's side of a quota. It spends from leases, asks for more before
//! they run out, gives back what it did not need, and reports every unit exactly once.
//!
//! *What comes in:* requests to spend, and the issuer's answers. *What goes out:* a verdict, and one batch at a time.
//! *What is lost if this is wrong:* the limit, or the bill.

use std::collections::BTreeMap;

use super::{Bucket, Window};
use crate::id::EdgeId;
use crate::time::{Monotonic, UnixSeconds};
use crate::wire::quota::{
    BATCH_ENTRIES_MAX, QuotaAnswer, QuotaBatch, WireGrant, WireRefusal, WireReturn, WireUsage, WireWant,
};

/// The most buckets an edge keeps at once; a request that needs one more is refused.
pub const BUCKETS_MAX: usize = 100_000;
/// The time between batches when nobody waits, in milliseconds.
const BATCH_INTERVAL_MILLIS: u64 = 1_000;
/// A lease is asked for that lasts about this long at the current rate, in batch intervals.
const LEASE_INTERVALS: u64 = 10;
/// A bucket that was not touched for this long, holds nothing and owes no report, is forgotten. In milliseconds.
const FORGET_AFTER_MILLIS: u64 = 60_000;
/// The time between searches for buckets to forget, in milliseconds.
const SWEEP_INTERVAL_MILLIS: u64 = 5_000;

/// Units wanted from one bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// Which bucket.
    pub bucket: Bucket,
    /// How many units.
    pub cost: u64,
}

/// Where a bucket stands, for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The limit of the window, in units.
    pub limit: u64,
    /// The length of the window, in seconds.
    pub window_seconds: u64,
    /// Units that may still be had, as far as this edge knows.
    pub remaining: u64,
    /// Milliseconds until the window ends.
    pub resets_in: u64,
}

/// The verdict on a request to spend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spend {
    /// Spent, from every bucket; where each stands, in the order of the charges.
    Granted(Vec<Standing>),
    /// Nothing was spent: the charge at this place exceeds the limit.
    Exhausted {
        /// Index among the charges.
        place: usize,
        /// Where that bucket stands.
        standing: Standing,
    },
    /// Nothing was spent: a lease is needed, and will be asked for with the next batch.
    NeedsLease,
    /// Nothing was spent: a lease is needed and the issuer does not answer.
    Unavailable,
    /// Nothing was spent: there are too many buckets.
    Full,
}

/// Everything this edge has been lent and owes.
#[derive(Debug)]
pub struct Ledger {
    edge: EdgeId,
    epoch: String,
    sequence: u64,
    tabs: BTreeMap<Bucket, Tab>,
    in_flight: Option<InFlight>,
    /// Whether the last exchange failed: then nobody is asked to wait for the next.
    failing: bool,
    /// Whether a request waits for a lease that the batch in flight does not ask for.
    urgent: bool,
    next_batch_at: Monotonic,
    /// Where the last batch stopped, when not everything fitted in: the next goes on from there.
    resume_at: Option<Bucket>,
    next_sweep_at: Monotonic,
}

#[derive(Debug)]
struct InFlight {
    batch: QuotaBatch,
    asked_at: Monotonic,
    /// Not sent, or sent and failed: to be sent (again) unchanged.
    unsent: bool,
}

#[derive(Debug, Default)]
struct Tab {
    lease: Option<Lease>,
    refused: Option<Refused>,
    usage: BTreeMap<Window, Usage>,
    returns: Vec<(Window, u64)>,
    /// Units that requests asked for in vain since the last batch.
    demand: u64,
    /// The smallest of those requests.
    least: u64,
    /// Units spent since the last batch, and in the batch before.
    spent: u64,
    rate: u64,
    touched_at: Monotonic,
}

#[derive(Debug, Clone, Copy)]
struct Lease {
    window: Window,
    units: u64,
    ends_at: Monotonic,
    terms: Terms,
}

#[derive(Debug, Clone, Copy)]
struct Refused {
    window: Window,
    ask_again_at: Monotonic,
    terms: Terms,
}

#[derive(Debug, Clone, Copy)]
struct Terms {
    limit: u64,
    window_seconds: u64,
    remaining: u64,
    resets_at: Monotonic,
}

#[derive(Debug, Clone, Copy, Default)]
struct Usage {
    allowed: u64,
    denied: u64,
}

enum Cover {
    Lease,
    Exhausted(Standing),
    Nothing,
}

impl Ledger {
    /// An empty ledger. `epoch` must be drawn at random for each start, so that a restarted edge is another spender.
    #[must_use]
    pub fn new(edge: EdgeId, epoch: String) -> Self {
        Self {
            edge,
            epoch,
            sequence: 1,
            tabs: BTreeMap::new(),
            in_flight: None,
            failing: false,
            urgent: false,
            next_batch_at: Monotonic::default(),
            resume_at: None,
            next_sweep_at: Monotonic::default(),
        }
    }

    /// Spends every charge, or none.
    pub fn spend(&mut self, charges: &[Charge], now: Monotonic) -> Spend {
        let new = charges.iter().filter(|charge| !self.tabs.contains_key(&charge.bucket)).count();
        if self.tabs.len() + new > BUCKETS_MAX {
            self.forget(now);
            if self.tabs.len() + new > BUCKETS_MAX {
                return Spend::Full;
            }
        }
        let mut covered = true;
        for (place, charge) in charges.iter().enumerate() {
            let tab = self.tabs.entry(charge.bucket.clone()).or_default();
            tab.touched_at = now;
            match tab.cover(charge.cost, now) {
                Cover::Lease => {}
                Cover::Exhausted(standing) => {
                    tab.deny(charge.cost);
                    return Spend::Exhausted { place, standing };
                }
                Cover::Nothing => covered = false,
            }
        }
        if covered {
            return Spend::Granted(charges.iter().filter_map(|charge| self.take(charge, now)).collect());
        }
        for charge in charges {
            if let Some(tab) = self.tabs.get_mut(&charge.bucket) {
                tab.want(charge.cost, now);
            }
        }
        if self.failing {
            return Spend::Unavailable;
        }
        self.urgent = true;
        Spend::NeedsLease
    }

    /// The batch to send now, if one is due. Call [`Self::answered`], [`Self::failed`] or [`Self::rejected`] with what
    /// became of it; until then there is no other.
    pub fn due(&mut self, now: Monotonic) -> Option<&QuotaBatch> {
        let waiting = self.urgent && !self.failing;
        if let Some(in_flight) = &mut self.in_flight {
            if !in_flight.unsent || now < self.next_batch_at {
                return None;
            }
            in_flight.unsent = false;
            // The lease it may bring is counted from the first time it was asked for.
            return self.in_flight.as_ref().map(|in_flight| &in_flight.batch);
        }
        if now < self.next_batch_at && !waiting {
            return None;
        }
        self.urgent = false;
        self.next_batch_at = now.plus(BATCH_INTERVAL_MILLIS);
        let batch = self.build(now)?;
        self.in_flight = Some(InFlight { batch, asked_at: now, unsent: false });
        self.in_flight.as_ref().map(|in_flight| &in_flight.batch)
    }

    /// The issuer applied the batch and answered.
    pub fn answered(&mut self, answer: QuotaAnswer) {
        let Some(InFlight { batch, asked_at, .. }) = self.in_flight.take() else { return };
        self.sequence = self.sequence.saturating_add(1);
        self.failing = false;
        let asked = |bucket: &Bucket| batch.wants.iter().any(|want| want.bucket == *bucket.entries());
        for grant in answer.grants {
            if let Some(bucket) = Bucket::new(grant.bucket.clone()).filter(asked) {
                self.tabs.entry(bucket).or_default().granted(&grant, asked_at);
            }
        }
        for refusal in answer.refusals {
            if let Some(bucket) = Bucket::new(refusal.bucket.clone()).filter(asked) {
                self.tabs.entry(bucket).or_default().refused(&refusal, asked_at);
            }
        }
    }

    /// Nothing is known of the batch: it will be sent again, unchanged, not before `retry_at`.
    pub fn failed(&mut self, retry_at: Monotonic) {
        self.failing = true;
        self.next_batch_at = retry_at;
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.unsent = true;
        }
    }

    /// The issuer will never apply this batch. It is dropped; tells how many admitted units went unreported with it.
    pub fn rejected(&mut self) -> u64 {
        self.failing = true;
        let dropped = self.in_flight.take();
        self.sequence = self.sequence.saturating_add(1);
        dropped.map_or(0, |in_flight| in_flight.batch.usage.iter().map(|usage| usage.allowed).sum())
    }

    /// Whether the last exchange with the issuer failed.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.failing
    }

    /// How many buckets there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tabs.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tabs.is_empty()
    }

    fn take(&mut self, charge: &Charge, now: Monotonic) -> Option<Standing> {
        let tab = self.tabs.get_mut(&charge.bucket)?;
        let lease = tab.lease.as_mut()?;
        lease.units = lease.units.saturating_sub(charge.cost);
        tab.spent = tab.spent.saturating_add(charge.cost);
        let usage = tab.usage.entry(lease.window).or_default();
        usage.allowed = usage.allowed.saturating_add(charge.cost);
        Some(lease.terms.standing(lease.units, now))
    }

    fn build(&mut self, now: Monotonic) -> Option<QuotaBatch> {
        let (mut usage, mut wants, mut returns) = (Vec::new(), Vec::new(), Vec::new());
        let mut tabs = match self.resume_at.take() {
            Some(bucket) => self.tabs.range_mut(bucket..),
            None => self.tabs.range_mut::<Bucket, _>(..),
        };
        for (bucket, tab) in &mut tabs {
            if usage.len().max(wants.len()).max(returns.len()) + 2 > BATCH_ENTRIES_MAX {
                self.resume_at = Some(bucket.clone());
                break;
            }
            tab.settle(now);
            usage.extend(std::mem::take(&mut tab.usage).into_iter().map(|(window, usage)| WireUsage {
                bucket: bucket.entries().clone(),
                window: window.0.0,
                allowed: usage.allowed,
                denied: usage.denied,
            }));
            returns.extend(std::mem::take(&mut tab.returns).into_iter().map(|(window, units)| WireReturn {
                bucket: bucket.entries().clone(),
                window: window.0.0,
                units,
            }));
            if let Some((units, held, least)) = tab.next_want(now) {
                wants.push(WireWant { bucket: bucket.entries().clone(), units, held, least });
            }
        }
        self.forget(now);
        if usage.is_empty() && wants.is_empty() && returns.is_empty() {
            return None;
        }
        let edge = self.edge.as_str().to_owned();
        Some(QuotaBatch { edge, epoch: self.epoch.clone(), sequence: self.sequence, usage, wants, returns })
    }

    /// Forgets what is idle and owes nothing; looks for it now and then only, as the look is at every bucket.
    fn forget(&mut self, now: Monotonic) {
        if now < self.next_sweep_at {
            return;
        }
        self.next_sweep_at = now.plus(SWEEP_INTERVAL_MILLIS);
        self.tabs.retain(|_, tab| {
            let idle = now.since(tab.touched_at) >= FORGET_AFTER_MILLIS;
            !(idle && tab.lease.is_none() && tab.usage.is_empty() && tab.returns.is_empty())
        });
    }
}

impl Tab {
    fn cover(&self, cost: u64, now: Monotonic) -> Cover {
        if self.live_lease(now).is_some_and(|lease| lease.units >= cost) {
            return Cover::Lease;
        }
        let Some(refused) = self.refused.filter(|refused| now < refused.terms.resets_at) else {
            return Cover::Nothing;
        };
        let held = self.live_lease(now).map_or(0, |lease| lease.units);
        Cover::Exhausted(refused.terms.standing(held, now))
    }

    fn live_lease(&self, now: Monotonic) -> Option<&Lease> {
        self.lease.as_ref().filter(|lease| now < lease.ends_at)
    }

    fn want(&mut self, cost: u64, now: Monotonic) {
        let held = self.live_lease(now).map_or(0, |lease| lease.units);
        if cost > held {
            self.least = if self.demand == 0 { cost } else { self.least.min(cost) };
            self.demand = self.demand.saturating_add(cost);
        }
    }

    fn deny(&mut self, cost: u64) {
        let Some(refused) = self.refused else { return };
        let usage = self.usage.entry(refused.window).or_default();
        usage.denied = usage.denied.saturating_add(cost);
        // A client that keeps trying is worth asking for again, once that may help.
        self.least = if self.demand == 0 { cost } else { self.least.min(cost) };
        self.demand = self.demand.max(cost);
    }

    /// Ends a lease whose time is over: what is unspent goes back.
    fn settle(&mut self, now: Monotonic) {
        self.rate = self.spent;
        self.spent = 0;
        if let Some(lease) = self.lease.filter(|lease| now >= lease.ends_at) {
            self.lease = None;
            if lease.units > 0 && now < lease.terms.resets_at {
                self.returns.push((lease.window, lease.units));
            }
        }
        if self.refused.is_some_and(|refused| now >= refused.terms.resets_at) {
            self.refused = None;
        }
    }

    /// What to ask for now: `(units, held, least)`.
    fn next_want(&mut self, now: Monotonic) -> Option<(u64, u64, u64)> {
        if self.refused.is_some_and(|refused| now < refused.ask_again_at) {
            return None;
        }
        let held = self.live_lease(now).map_or(0, |lease| lease.units);
        let ends_soon = self.lease.is_some_and(|lease| lease.ends_at.since(now) < 2 * BATCH_INTERVAL_MILLIS);
        let runs_low = self.rate > 0 && (held < 2 * self.rate || ends_soon);
        if self.demand == 0 && !runs_low {
            return None;
        }
        let demand = std::mem::take(&mut self.demand);
        let units =
            demand.max(self.rate * LEASE_INTERVALS).saturating_sub(if ends_soon { 0 } else { held }).max(1);
        // What is held counts towards the cheapest request that waits.
        let least = if demand == 0 { 1 } else { self.least.saturating_sub(held).max(1) };
        Some((units, held, least))
    }

    fn granted(&mut self, grant: &WireGrant, asked_at: Monotonic) {
        let window = Window(UnixSeconds(grant.window));
        let carried = self.lease.filter(|lease| lease.window == window).map_or(0, |lease| lease.units);
        let terms = Terms {
            limit: grant.limit,
            window_seconds: grant.window_seconds,
            remaining: grant.remaining,
            resets_at: asked_at.plus(grant.resets_in),
        };
        let units = carried.saturating_add(grant.units);
        self.lease = Some(Lease { window, units, ends_at: asked_at.plus(grant.expires_in), terms });
        self.refused = None;
    }

    fn refused(&mut self, refusal: &WireRefusal, asked_at: Monotonic) {
        let terms = Terms {
            limit: refusal.limit,
            window_seconds: refusal.window_seconds,
            remaining: 0,
            resets_at: asked_at.plus(refusal.resets_in),
        };
        let window = Window(UnixSeconds(refusal.window));
        self.refused = Some(Refused { window, ask_again_at: asked_at.plus(refusal.ask_again_in), terms });
    }
}

impl Terms {
    fn standing(&self, held: u64, now: Monotonic) -> Standing {
        Standing {
            limit: self.limit,
            window_seconds: self.window_seconds,
            remaining: self.remaining.saturating_add(held),
            resets_in: self.resets_at.since(now),
        }
    }
}

#[cfg(test)]
mod tests;
