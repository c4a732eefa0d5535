//! Decides whether a dependency that failed is asked again: a circuit breaker, closed, open or half-open.
//!
//! *What comes in:* how calls ended, and the time. *What goes out:* a [`Permit`] for one call, or a refusal with the time
//! to come back. *What an attacker gains if this is wrong:* a dependency that hangs holds every login for the length of a
//! timeout, or one that has recovered is never used again.

use std::sync::{Arc, Mutex, PoisonError};

use tollgate_shared::time::Monotonic;

/// When a breaker opens, and how it closes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerSettings {
    /// So many failures in a row open it; at least 1 is meant.
    pub failures_to_open: u32,
    /// For so long it refuses, in milliseconds.
    pub open_for_ms: u64,
    /// Half-open, it lets so many calls through at once, and closes when so many succeeded; at least 1 is meant.
    pub probes: u32,
}

/// What a breaker does with the next call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Calls pass.
    Closed,
    /// Calls are refused.
    Open,
    /// A few calls pass, to see.
    HalfOpen,
}

impl BreakerState {
    /// Its name in metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }

    /// The state of this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        [Self::Closed, Self::Open, Self::HalfOpen].into_iter().find(|state| state.name() == name)
    }
}

/// One call may be made. Its end is to be told to the breaker that gave it.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a call that is permitted is to be told of when it ends"]
pub struct Permit {
    /// What was decided in an earlier phase says nothing of the present one.
    phase: u64,
}

/// The call may not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("refused by an open circuit breaker")]
pub struct Refused {
    /// After so long another try makes sense, in milliseconds.
    pub retry_after_ms: u64,
}

/// The rule, without a lock or a clock.
#[derive(Debug, Clone)]
pub struct Breaker {
    settings: BreakerSettings,
    condition: Condition,
    phase: u64,
}

#[derive(Debug, Clone, Copy)]
enum Condition {
    Closed { failures: u32 },
    Open { until: Monotonic },
    HalfOpen { under_way: u32, succeeded: u32 },
}

impl Breaker {
    /// A closed breaker.
    #[must_use]
    pub fn new(settings: BreakerSettings) -> Self {
        Self { settings, condition: Condition::Closed { failures: 0 }, phase: 0 }
    }

    /// What it does with the next call.
    #[must_use]
    pub fn state(&self, now: Monotonic) -> BreakerState {
        match self.condition {
            Condition::Closed { .. } => BreakerState::Closed,
            Condition::Open { until } if now < until => BreakerState::Open,
            Condition::Open { .. } | Condition::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// A permit for one call.
    ///
    /// # Errors
    /// [`Refused`] while it is open, and while as many probes are under way as may be.
    pub fn permit(&mut self, now: Monotonic) -> Result<Permit, Refused> {
        if let Condition::Open { until } = self.condition {
            let retry_after_ms = until.since(now);
            if retry_after_ms > 0 {
                return Err(Refused { retry_after_ms });
            }
            self.turn(Condition::HalfOpen { under_way: 0, succeeded: 0 });
        }
        if let Condition::HalfOpen { under_way, succeeded } = &mut self.condition {
            if under_way.saturating_add(*succeeded) >= self.settings.probes.max(1) {
                return Err(Refused { retry_after_ms: PROBE_RETRY_MS });
            }
            *under_way += 1;
        }
        Ok(Permit { phase: self.phase })
    }

    /// The call ended well.
    pub fn succeeded(&mut self, permit: Permit) {
        if permit.phase != self.phase {
            return;
        }
        match &mut self.condition {
            Condition::Closed { failures } => *failures = 0,
            Condition::HalfOpen { under_way, succeeded } => {
                *under_way = under_way.saturating_sub(1);
                *succeeded = succeeded.saturating_add(1);
                if *succeeded >= self.settings.probes.max(1) {
                    self.turn(Condition::Closed { failures: 0 });
                }
            }
            Condition::Open { .. } => {}
        }
    }

    /// The call failed, or had no answer in time.
    pub fn failed(&mut self, permit: Permit, now: Monotonic) {
        if permit.phase != self.phase {
            return;
        }
        let opens = match &mut self.condition {
            Condition::Closed { failures } => {
                *failures = failures.saturating_add(1);
                *failures >= self.settings.failures_to_open
            }
            Condition::HalfOpen { .. } => true,
            Condition::Open { .. } => false,
        };
        if opens {
            self.turn(Condition::Open { until: now.plus(self.settings.open_for_ms) });
        }
    }

    /// Nobody waited for the call's end, so that it says nothing. Its place is free again.
    pub fn abandoned(&mut self, permit: Permit) {
        if permit.phase != self.phase {
            return;
        }
        if let Condition::HalfOpen { under_way, .. } = &mut self.condition {
            *under_way = under_way.saturating_sub(1);
        }
    }

    fn turn(&mut self, condition: Condition) {
        self.condition = condition;
        self.phase = self.phase.wrapping_add(1);
    }
}

/// A breaker that many tasks share.
#[derive(Debug, Clone)]
pub struct SharedBreaker(Arc<Mutex<Breaker>>);

impl SharedBreaker {
    /// A closed breaker.
    #[must_use]
    pub fn new(settings: BreakerSettings) -> Self {
        Self(Arc::new(Mutex::new(Breaker::new(settings))))
    }

    /// What it does with the next call.
    #[must_use]
    pub fn state(&self, now: Monotonic) -> BreakerState {
        self.with(|breaker| breaker.state(now))
    }

    /// A permit for one call. A call that is dropped unfinished gives its place back by itself.
    ///
    /// # Errors
    /// Those of [`Breaker::permit`].
    pub fn permit(&self, now: Monotonic) -> Result<Call, Refused> {
        let permit = self.with(|breaker| breaker.permit(now))?;
        Ok(Call { breaker: self.clone(), permit: Some(permit) })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Breaker) -> T) -> T {
        // No step of the rule can end half-way, so a lock that somebody panicked with is as good as any.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A call that a [`SharedBreaker`] permitted.
#[derive(Debug)]
#[must_use = "a call that is permitted is to be told of when it ends"]
pub struct Call {
    breaker: SharedBreaker,
    permit: Option<Permit>,
}

impl Call {
    /// It ended well.
    pub fn succeeded(mut self) {
        if let Some(permit) = self.permit.take() {
            self.breaker.with(|breaker| breaker.succeeded(permit));
        }
    }

    /// It failed, or had no answer in time.
    pub fn failed(mut self, now: Monotonic) {
        if let Some(permit) = self.permit.take() {
            self.breaker.with(|breaker| breaker.failed(permit, now));
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.breaker.with(|breaker| breaker.abandoned(permit));
        }
    }
}

/// When others are probing: their call ends within a timeout, which is not known here.
const PROBE_RETRY_MS: u64 = 100;

#[cfg(test)]
mod tests;
