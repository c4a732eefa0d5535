//! Decides what may be spent without asking: the edge's side of a quota. It spends from leases, asks for more before
//! they run out, gives back what it did not need, and reports every unit exactly once.
//!
//! *What comes in:* requests to spend, and the issuer's answers. *What goes out:* a verdict, and one batch at a time.
//! *What is lost if this is wrong:* the limit, or the bill.

mod tab;

use std::collections::BTreeMap;

use super::Bucket;
use crate::id::EdgeId;
use crate::time::Monotonic;
use crate::wire::quota::{BATCH_ENTRIES_MAX, QuotaAnswer, QuotaBatch, WireReturn, WireUsage, WireWant};
use tab::{Cover, Tab};

/// The most buckets an edge keeps at once; a request that needs one more is refused.
pub const BUCKETS_MAX: usize = 100_000;
/// The time between batches when nobody waits, in milliseconds.
const BATCH_INTERVAL_MILLIS: u64 = 1_000;
/// A bucket that was not touched for this long, holds nothing and owes no report, is forgotten. In milliseconds.
const FORGET_AFTER_MILLIS: u64 = 60_000;
/// The most entries of one list that one bucket adds to a batch: windows of a lease, of a refusal and of what follows.
const TAB_ENTRIES_MAX: usize = 4;
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
            if usage.len().max(wants.len()).max(returns.len()) + TAB_ENTRIES_MAX > BATCH_ENTRIES_MAX {
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

#[cfg(test)]
mod tests;
