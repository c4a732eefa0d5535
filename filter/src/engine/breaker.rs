//! Decides when a server that failed is called again: exponential backoff with full jitter, and a circuit breaker.
//!
//! Closed, each kind of call has its own backoff. After [`FAILURES_TO_OPEN`] failures in a row, whatever kind they were of,
//! it is open: nothing is called, and no request waits for a lease, until a time that is drawn at random; then one call
//! decides.

use tollgate_shared::time::Monotonic;

/// The first and the longest wait after failures, in milliseconds; each failure doubles it, and the wait is drawn at
/// random below that (full jitter).
const BACKOFF_FIRST_MILLIS: u64 = 250;
const BACKOFF_MAX_MILLIS: u64 = 10_000;
/// So many failures in a row open the breaker.
pub(super) const FAILURES_TO_OPEN: u32 = 5;

/// How long to wait after so many failures in a row, in milliseconds.
pub(super) fn backoff(failures: u32, random: u64) -> u64 {
    let doublings = failures.saturating_sub(1).min(16);
    let ceiling = BACKOFF_MAX_MILLIS.min(BACKOFF_FIRST_MILLIS << doublings);
    random % (ceiling + 1)
}

/// What a breaker does with the next call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BreakerState {
    Closed,
    Open,
    HalfOpen,
}

impl BreakerState {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }

    /// Its value as a gauge.
    pub(super) fn number(self) -> u64 {
        match self {
            Self::Closed => 0,
            Self::Open => 1,
            Self::HalfOpen => 2,
        }
    }
}

/// The breaker before the issuer.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
    retry_at: Monotonic,
    probing: bool,
}

impl Breaker {
    pub(super) fn state(&self, now: Monotonic) -> BreakerState {
        if self.failures < FAILURES_TO_OPEN {
            BreakerState::Closed
        } else if self.probing || now >= self.retry_at {
            BreakerState::HalfOpen
        } else {
            BreakerState::Open
        }
    }

    /// Whether a call may be made. Half-open, only while no other is under way.
    pub(super) fn permits(&self, now: Monotonic) -> bool {
        match self.state(now) {
            BreakerState::Closed => true,
            BreakerState::Open => false,
            BreakerState::HalfOpen => !self.probing,
        }
    }

    /// When it lets a call through again, if it is open.
    pub(super) fn retry_at(&self) -> Monotonic {
        self.retry_at
    }

    /// A call was begun.
    pub(super) fn began(&mut self) {
        self.probing = self.failures >= FAILURES_TO_OPEN;
    }

    /// A call ended well: the server answers.
    pub(super) fn succeeded(&mut self) {
        (self.failures, self.probing) = (0, false);
    }

    /// A call failed by the server's fault.
    pub(super) fn failed(&mut self, now: Monotonic, random: u64) {
        self.failures = self.failures.saturating_add(1);
        self.probing = false;
        self.retry_at = now.plus(backoff(self.failures, random));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_failures_in_a_row_and_one_call_decides() {
        let mut breaker = Breaker::default();
        let now = Monotonic(1_000);
        for _ in 1..FAILURES_TO_OPEN {
            breaker.failed(now, u64::MAX);
        }
        assert_eq!(breaker.state(now), BreakerState::Closed);
        breaker.succeeded();
        for _ in 0..FAILURES_TO_OPEN {
            assert!(breaker.permits(now));
            breaker.failed(now, 3_000);
        }
        assert_eq!(breaker.state(now), BreakerState::Open);
        assert!(!breaker.permits(now) && !breaker.permits(Monotonic(3_999)));
        let later = Monotonic(4_000);
        assert_eq!(breaker.state(later), BreakerState::HalfOpen);
        assert!(breaker.permits(later));
        breaker.began();
        assert!(!breaker.permits(later), "one probe at a time");
        breaker.failed(later, 500);
        assert_eq!(breaker.state(later), BreakerState::Open);
        breaker.began();
        breaker.succeeded();
        assert_eq!(breaker.state(later), BreakerState::Closed);
    }

    #[test]
    fn the_wait_is_drawn_below_a_ceiling_that_doubles_to_ten_seconds() {
        for (failures, ceiling) in
            [(1, 250), (2, 500), (3, 1_000), (6, 8_000), (7, 10_000), (u32::MAX, 10_000)]
        {
            assert_eq!(backoff(failures, ceiling), ceiling);
            assert_eq!(backoff(failures, ceiling + 1), 0);
        }
    }
}
