//! One bucket at the edge: its lease, and what it owes and wants.

use std::collections::BTreeMap;

use super::{BATCH_INTERVAL_MILLIS, Standing};
use crate::quota::Window;
use crate::time::{Monotonic, UnixSeconds};
use crate::wire::quota::{WireGrant, WireRefusal};

/// A lease is asked for that lasts about this long at the current rate, in batch intervals.
const LEASE_INTERVALS: u64 = 10;

#[derive(Debug, Default)]
pub(super) struct Tab {
    pub(super) lease: Option<Lease>,
    pub(super) refused: Option<Refused>,
    pub(super) usage: BTreeMap<Window, Usage>,
    pub(super) returns: Vec<(Window, u64)>,
    /// Units that requests asked for in vain since the last batch.
    pub(super) demand: u64,
    /// The smallest of those requests.
    pub(super) least: u64,
    /// The fewest units that the batch under way asks for.
    pub(super) asked_least: u64,
    /// Units spent since the last batch, and in the batch before.
    pub(super) spent: u64,
    pub(super) rate: u64,
    pub(super) touched_at: Monotonic,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Lease {
    pub(super) window: Window,
    pub(super) units: u64,
    pub(super) ends_at: Monotonic,
    pub(super) terms: Terms,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Refused {
    pub(super) window: Window,
    pub(super) ask_again_at: Monotonic,
    /// The fewest units that were asked for in vain; fewer may still be had.
    pub(super) least: u64,
    pub(super) terms: Terms,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub(super) limit: u64,
    pub(super) window_seconds: u64,
    pub(super) remaining: u64,
    pub(super) resets_at: Monotonic,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Usage {
    pub(super) allowed: u64,
    pub(super) denied: u64,
}

pub(super) enum Cover {
    Lease,
    Exhausted(Standing),
    Nothing,
}

impl Tab {
    pub(super) fn cover(&self, cost: u64, now: Monotonic) -> Cover {
        let held = self.live_lease(now).map_or(0, |lease| lease.units);
        if self.live_lease(now).is_some() && held >= cost {
            return Cover::Lease;
        }
        let in_vain =
            |refused: &Refused| now < refused.terms.resets_at && cost.saturating_sub(held) >= refused.least;
        match self.refused.filter(in_vain) {
            Some(refused) => Cover::Exhausted(refused.terms.standing(held, now)),
            None => Cover::Nothing,
        }
    }

    pub(super) fn live_lease(&self, now: Monotonic) -> Option<&Lease> {
        self.lease.as_ref().filter(|lease| now < lease.ends_at)
    }

    pub(super) fn want(&mut self, cost: u64, now: Monotonic) {
        let held = self.live_lease(now).map_or(0, |lease| lease.units);
        if cost > held {
            self.least = if self.demand == 0 { cost } else { self.least.min(cost) };
            self.demand = self.demand.saturating_add(cost);
        }
    }

    pub(super) fn deny(&mut self, cost: u64) {
        let Some(refused) = self.refused else { return };
        let usage = self.usage.entry(refused.window).or_default();
        usage.denied = usage.denied.saturating_add(cost);
        // A client that keeps trying is worth asking for again, once that may help.
        self.least = if self.demand == 0 { cost } else { self.least.min(cost) };
        self.demand = self.demand.max(cost);
    }

    /// Ends a lease whose time is over: what is unspent goes back.
    pub(super) fn settle(&mut self, now: Monotonic) {
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
    pub(super) fn next_want(&mut self, now: Monotonic) -> Option<(u64, u64, u64)> {
        let held = self.live_lease(now).map_or(0, |lease| lease.units);
        let in_vain = |refused: Refused| self.demand == 0 || self.least.saturating_sub(held) >= refused.least;
        if self.refused.is_some_and(|refused| now < refused.ask_again_at && in_vain(refused)) {
            return None;
        }
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
        self.asked_least = least;
        Some((units, held, least))
    }

    pub(super) fn granted(&mut self, grant: &WireGrant, asked_at: Monotonic) {
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

    pub(super) fn refused(&mut self, refusal: &WireRefusal, asked_at: Monotonic) {
        let terms = Terms {
            limit: refusal.limit,
            window_seconds: refusal.window_seconds,
            remaining: 0,
            resets_at: asked_at.plus(refusal.resets_in),
        };
        let window = Window(UnixSeconds(refusal.window));
        let ask_again_at = asked_at.plus(refusal.ask_again_in);
        self.refused = Some(Refused { window, ask_again_at, least: self.asked_least, terms });
    }
}

impl Terms {
    pub(super) fn standing(&self, held: u64, now: Monotonic) -> Standing {
        Standing {
            limit: self.limit,
            window_seconds: self.window_seconds,
            remaining: self.remaining.saturating_add(held),
            resets_in: self.resets_at.since(now),
        }
    }
}
