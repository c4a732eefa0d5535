//! Decides who gets how many units: the issuer's side of a quota. Pure arithmetic over two rows that the store keeps in
//! one transaction with the answer.

use crate::time::UnixMillis;

/// How long a lease lasts at most, in milliseconds. Units that an edge does not spend come back after this.
pub const LEASE_MILLIS: u64 = 10_000;
/// How soon an edge may ask again when others hold units that may come back, in milliseconds.
const ASK_AGAIN_SOON_MILLIS: u64 = 1_000;
/// How soon an edge may ask again when nothing can come back: a plan may have been raised. In milliseconds.
const ASK_AGAIN_LATER_MILLIS: u64 = 10_000;

/// One bucket in one window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Account {
    /// Units ever given out.
    pub granted: u64,
    /// Of those, units that came back unspent.
    pub returned: u64,
    /// Units reported as admitted.
    pub allowed: u64,
    /// Units reported as refused.
    pub denied: u64,
    /// When the last lease that was given ends.
    pub lease_until: UnixMillis,
}

/// The share of one spender (an edge in one epoch) in an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Holding {
    /// Units given to it.
    pub granted: u64,
    /// Units it reported as admitted.
    pub spent: u64,
    /// Units it gave back.
    pub returned: u64,
}

/// What a spender asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// Units.
    pub units: u64,
    /// Fewer than this are of no use to it.
    pub least: u64,
}

/// The terms of the window that is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Units for the whole window.
    pub limit: u64,
    /// The issuer's time.
    pub now: UnixMillis,
    /// When the window ends.
    pub ends_at: UnixMillis,
}

/// The answer to a [`Want`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allotment {
    /// A lease.
    Lease {
        /// Units.
        units: u64,
        /// For how many milliseconds.
        expires_in: u64,
        /// Units of the limit that nobody has.
        remaining: u64,
    },
    /// Nothing.
    Refused {
        /// Milliseconds after which asking again may help.
        ask_again_in: u64,
    },
}

impl Account {
    /// Units of `limit` that nobody has.
    #[must_use]
    pub fn left(&self, limit: u64) -> u64 {
        limit.saturating_sub(self.granted.saturating_sub(self.returned))
    }

    /// Books a usage report. It moves no units: they were taken from the limit when they were leased.
    pub fn report(&mut self, holding: &mut Holding, allowed: u64, denied: u64) {
        self.allowed = self.allowed.saturating_add(allowed);
        self.denied = self.denied.saturating_add(denied);
        holding.spent = holding.spent.saturating_add(allowed);
    }

    /// Takes units back, at most those that the spender can still have; tells how many.
    pub fn take_back(&mut self, holding: &mut Holding, units: u64) -> u64 {
        let held = holding.granted.saturating_sub(holding.spent).saturating_sub(holding.returned);
        let accepted = units.min(held);
        holding.returned += accepted;
        self.returned = self.returned.saturating_add(accepted);
        accepted
    }

    /// Answers a want. A lease is at most a quarter of what is left, so that one edge does not starve the others as the
    /// limit nears, but never less than what is of use.
    pub fn lease(&mut self, holding: &mut Holding, want: Want, terms: Terms) -> Allotment {
        let left = self.left(terms.limit);
        let until_end = terms.ends_at.0.saturating_sub(terms.now.0);
        let least = want.least.max(1);
        if left < least || until_end == 0 {
            let others_hold = terms.now < self.lease_until;
            let wait = if others_hold { ASK_AGAIN_SOON_MILLIS } else { ASK_AGAIN_LATER_MILLIS };
            return Allotment::Refused { ask_again_in: wait.min(until_end) };
        }
        let units = want.units.max(least).min(least.max(left / 4));
        let expires_in = LEASE_MILLIS.min(until_end);
        self.granted = self.granted.saturating_add(units);
        holding.granted = holding.granted.saturating_add(units);
        self.lease_until = self.lease_until.max(UnixMillis(terms.now.0.saturating_add(expires_in)));
        Allotment::Lease { units, expires_in, remaining: left - units }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leased(units: u64) -> (Account, Holding) {
        let (mut account, mut holding) = (Account::default(), Holding::default());
        let terms = Terms { limit: 100, now: UnixMillis(0), ends_at: UnixMillis(60_000) };
        let Allotment::Lease { units: given, .. } =
            account.lease(&mut holding, Want { units, least: units }, terms)
        else {
            panic!("there are 100");
        };
        assert_eq!(given, units);
        (account, holding)
    }

    #[test]
    fn no_more_comes_back_than_a_spender_can_still_have() {
        let (mut account, mut holding) = leased(10);
        account.report(&mut holding, 4, 0);
        assert_eq!(account.take_back(&mut holding, 5), 5);
        assert_eq!(account.take_back(&mut holding, 5), 1, "4 of 10 are spent and 5 came back already");
        assert_eq!(account.take_back(&mut holding, 5), 0);
        assert_eq!(account.left(100), 96);
    }

    #[test]
    fn one_spender_does_not_give_back_what_another_has() {
        let (mut account, _) = leased(10);
        assert_eq!(account.take_back(&mut Holding::default(), 10), 0);
        assert_eq!(account.left(100), 90);
    }
}
