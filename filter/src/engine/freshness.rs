//! Decides how old the edge's state is, from what a signed message says of its own time.
//!
//! A message is as old as its `as_of`, so one that is sent again proves nothing new. The issuer's clock is estimated
//! from the latest `as_of` and how long ago that arrived on the monotonic clock: neither a jump of the wall clock nor a
//! replayed message makes state look younger.

use tollgate_shared::revocation::CLOCK_ERROR_SECONDS;
use tollgate_shared::time::{Monotonic, Now, UnixMillis};

/// How usable state is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freshness {
    /// Younger than the soft limit.
    Fresh,
    /// Older than the soft limit.
    Stale,
    /// Older than the hard limit, or there is none.
    Expired,
}

/// An estimate of the issuer's clock: its time `issuer` when ours was `local`.
#[derive(Debug, Clone, Copy)]
pub(super) struct IssuerClock {
    issuer: UnixMillis,
    local: Monotonic,
    latest: UnixMillis,
}

impl IssuerClock {
    /// The first estimate. A first message that is much older than the wall clock says is an old one, whatever else.
    pub(super) fn first(as_of: UnixMillis, now: Now) -> Self {
        let floor = UnixMillis(now.wall.0.saturating_sub(CLOCK_ERROR_SECONDS * 1000));
        Self { issuer: as_of.max(floor), local: now.monotonic, latest: as_of }
    }

    /// Goes on from a reading that was made on the same clock, with a state that is as late as `latest`.
    pub(super) fn resume((issuer, local): (UnixMillis, Monotonic), latest: UnixMillis) -> Self {
        Self { issuer, local, latest }
    }

    /// Takes in a later message. The estimate only ever runs ahead of what it would be without the message.
    pub(super) fn advance(&mut self, as_of: UnixMillis, now: Monotonic) {
        self.latest = self.latest.max(as_of);
        self.learn((as_of, now), now);
    }

    /// What the issuer's clock showed at an instant of ours, for another that has the same clock.
    pub(super) fn reading(&self) -> (UnixMillis, Monotonic) {
        (self.issuer, self.local)
    }

    /// Takes in a reading that another made. The estimate only ever runs ahead of what it would be without it. One that says
    /// nothing new leaves the other as it was: else each would round the estimate down, however many there are.
    pub(super) fn learn(&mut self, reading: (UnixMillis, Monotonic), now: Monotonic) {
        if Self::resume(reading, self.latest).estimate(now) > self.estimate(now) {
            (self.issuer, self.local) = reading;
        }
    }

    /// What the issuer's clock shows now, or a little less: running one part in a thousand slow lets the estimate settle
    /// when the two clocks drift, and costs a staleness limit as much precision.
    pub(super) fn estimate(&self, now: Monotonic) -> UnixMillis {
        let elapsed = now.since(self.local);
        UnixMillis(self.issuer.0.saturating_add(elapsed - elapsed.div_ceil(1000)))
    }

    /// The age of the state, in milliseconds.
    pub(super) fn age_millis(&self, now: Monotonic) -> u64 {
        self.estimate(now).0.saturating_sub(self.latest.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(wall_seconds: u64, monotonic_seconds: u64) -> Now {
        Now { wall: UnixMillis(wall_seconds * 1000), monotonic: Monotonic(monotonic_seconds * 1000) }
    }

    #[test]
    fn age_counts_from_what_the_message_says_of_itself() {
        let clock = IssuerClock::first(UnixMillis(1_000_000), at(1000, 50));
        assert_eq!(clock.age_millis(Monotonic(50_000)), 0);
        assert_eq!(clock.age_millis(Monotonic(60_000)), 9_990);
    }

    #[test]
    fn a_message_sent_again_does_not_make_state_younger() {
        let mut clock = IssuerClock::first(UnixMillis(1_000_000), at(1000, 0));
        clock.advance(UnixMillis(1_000_000), Monotonic(400_000));
        assert_eq!(clock.age_millis(Monotonic(400_000)), 399_600);
    }

    #[test]
    fn however_often_an_old_message_is_sent_again_the_estimate_is_slow_by_one_part_in_a_thousand_only() {
        let mut clock = IssuerClock::first(UnixMillis(1_000_000), at(1000, 0));
        for millis in (0..400_000).step_by(3) {
            clock.advance(UnixMillis(1_000_000), Monotonic(millis));
            clock.learn((UnixMillis(1_000_000), Monotonic(0)), Monotonic(millis));
        }
        assert_eq!(clock.age_millis(Monotonic(400_000)), 399_600);
    }

    #[test]
    fn a_wall_clock_far_ahead_of_a_first_message_shows_it_is_old() {
        let clock = IssuerClock::first(UnixMillis(1_000_000), at(1000 + CLOCK_ERROR_SECONDS + 500, 0));
        assert_eq!(clock.age_millis(Monotonic(0)), 500_000);
    }

    #[test]
    fn clocks_that_differ_by_ten_minutes_are_tolerated() {
        for wall in [400, 1600] {
            assert_eq!(IssuerClock::first(UnixMillis(1_000_000), at(wall, 0)).age_millis(Monotonic(0)), 0);
        }
    }

    #[test]
    fn a_slower_issuer_does_not_make_state_stale_over_days() {
        let mut clock = IssuerClock::first(UnixMillis(0), at(0, 0));
        // Ten days of one message a second, on an issuer clock that loses 100 parts in a million.
        for second in 1..=864_000u64 {
            let local = second * 1000;
            clock.advance(UnixMillis(local - local / 10_000), Monotonic(local));
        }
        assert!(clock.age_millis(Monotonic(864_000_000)) < 10);
    }
}
