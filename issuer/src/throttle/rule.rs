//! Decides what a counter says: three rules, each a step from one record to the next at a time that is given.
//!
//! The scripts in `store/redis/` are the same three rules on the server. A test runs both on the same random steps and
//! compares every answer, so a change here is a change there.

use std::collections::{BTreeMap, BTreeSet};

/// So many events in a period, by the generic cell rate algorithm: `burst` at once, then one each `period / limit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    limit: u64,
    period_ms: u64,
    burst: u64,
}

/// Whether an event is counted or only asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// It happens now.
    One,
    /// Would it be let through? Nothing changes.
    Nothing,
}

/// What a rate says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// The event is let through.
    Now,
    /// It is not; after so many milliseconds it would be.
    In(u64),
}

impl Rate {
    /// `limit` events in `period_ms`, up to `burst` of them at once. None of them is below 1.
    #[must_use]
    pub fn new(limit: u64, period_ms: u64, burst: u64) -> Self {
        Self { limit: limit.max(1), period_ms: period_ms.max(1), burst: burst.max(1) }
    }

    /// The same with every limit divided, at least one event left.
    #[must_use]
    pub fn stricter(self, divisor: u64) -> Self {
        Self::new(
            self.limit.checked_div(divisor).unwrap_or(1),
            self.period_ms,
            self.burst.checked_div(divisor).unwrap_or(1),
        )
    }

    /// One event takes so long to be forgotten, in microseconds: milliseconds are too coarse for a thousand a second.
    #[must_use]
    pub fn interval_us(self) -> u64 {
        self.period_ms.saturating_mul(1000).checked_div(self.limit).unwrap_or(1).max(1)
    }

    /// So far ahead of the clock the events may run, in microseconds.
    #[must_use]
    pub fn tolerance_us(self) -> u64 {
        self.interval_us().saturating_mul(self.burst)
    }

    /// `arrival_us` is when the events so far would be forgotten; gives back the answer and the new one.
    pub(super) fn step(self, arrival_us: u64, count: Count, now_ms: u64) -> (Turn, u64) {
        let now_us = now_ms.saturating_mul(1000);
        let latest = now_us.saturating_add(self.tolerance_us());
        // Above `latest` it can only be after a clock was set back, which must not shut anybody out for longer.
        let arrival_us = arrival_us.clamp(now_us, latest);
        let next = arrival_us.saturating_add(self.interval_us());
        if next > latest {
            (Turn::In((next - latest).div_ceil(1000)), arrival_us)
        } else if count == Count::One {
            (Turn::Now, next)
        } else {
            (Turn::Now, arrival_us)
        }
    }
}

/// Failures in a row, and the delay that grows with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ladder {
    /// From this many failures on there is a delay; at least 1.
    pub free: u64,
    /// The first delay, in milliseconds; each further failure doubles it.
    pub first_ms: u64,
    /// The longest delay.
    pub max_ms: u64,
    /// So many failures lock.
    pub failures_max: u64,
    /// For so long.
    pub lock_ms: u64,
    /// So long after the last failure all are forgotten.
    pub memory_ms: u64,
}

/// What is done on a ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// An attempt begins. It counts as a failure until it is known to be none, so that a hundred attempts at once are
    /// not a hundred guesses. While there is a delay it is refused, and not counted.
    Attempt,
    /// Something failed, whether there is a delay or not.
    Strike,
    /// Is there a delay? Nothing changes.
    Look,
    /// An attempt that was counted came to nothing: it is taken back. The figure is the one it was given.
    Refund(u64),
}

/// Where on a ladder somebody stands after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rung {
    /// There was no delay. After what was counted there is one, until then; it identifies the attempt.
    Free(u64),
    /// There is one, of so many milliseconds.
    Delayed(u64),
}

/// What is kept of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failures {
    failures: u64,
    pub(super) until_ms: u64,
    pub(super) expires_ms: u64,
}

impl Ladder {
    /// The same with both numbers of failures divided, at least one failure left.
    #[must_use]
    pub fn stricter(self, divisor: u64) -> Self {
        let divided = |limit: u64| limit.checked_div(divisor).unwrap_or(1).max(1);
        Self { free: divided(self.free), failures_max: divided(self.failures_max), ..self }
    }

    /// The longest that anybody can be delayed.
    #[must_use]
    pub fn longest_ms(self) -> u64 {
        self.max_ms.max(self.lock_ms)
    }

    fn delay_ms(self, failures: u64) -> u64 {
        if failures >= self.failures_max {
            return self.lock_ms;
        }
        let Some(doublings) = failures.checked_sub(self.free) else { return 0 };
        let factor = u32::try_from(doublings).ok().and_then(|doublings| 1_u64.checked_shl(doublings));
        factor.map_or(self.max_ms, |factor| self.first_ms.saturating_mul(factor).min(self.max_ms))
    }

    pub(super) fn step(self, record: Option<Failures>, step: Step, now_ms: u64) -> (Rung, Option<Failures>) {
        let record = record.filter(|record| now_ms < record.expires_ms);
        // As above: only a clock that was set back puts it further ahead.
        let latest = now_ms.saturating_add(self.longest_ms());
        let present = record.map(|record| Failures { until_ms: record.until_ms.min(latest), ..record });
        let delay = present.map_or(0, |present| present.until_ms.saturating_sub(now_ms));
        let counted = match step {
            Step::Look => None,
            Step::Attempt if delay > 0 => None,
            Step::Attempt | Step::Strike => Some(self.counted(present, now_ms)),
            Step::Refund(given) => {
                return (Rung::Free(0), present.and_then(|present| present.refunded(given)));
            }
        };
        let rung = if delay > 0 {
            Rung::Delayed(delay)
        } else {
            Rung::Free(counted.map_or(0, |counted| counted.until_ms))
        };
        (rung, counted.or(record))
    }

    fn counted(self, record: Option<Failures>, now_ms: u64) -> Failures {
        let (failures, before_ms) = record.map_or((0, 0), |record| (record.failures, record.until_ms));
        let failures = failures.saturating_add(1);
        let until_ms = now_ms.saturating_add(self.delay_ms(failures)).max(before_ms);
        // Whoever was locked starts anew when the lock ends.
        let forgotten_ms = now_ms.saturating_add(self.memory_ms);
        let expires_ms = if failures >= self.failures_max { until_ms } else { until_ms.max(forgotten_ms) };
        Failures { failures, until_ms, expires_ms }
    }
}

impl Failures {
    fn refunded(self, given: u64) -> Option<Self> {
        let failures = self.failures.checked_sub(1).filter(|left| *left > 0)?;
        // The attempt was let through, so there was no delay before it. Another one may have set its own since.
        let until_ms = if self.until_ms == given { 0 } else { self.until_ms };
        Some(Self { failures, until_ms, ..self })
    }
}

/// So many different members in a window that slides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Distinct {
    /// More than this is many.
    pub limit: u64,
    /// A member is forgotten so long after it was last seen.
    pub window_ms: u64,
    /// What becomes of the members when there are many.
    pub excess: Excess,
}

/// What becomes of the members when there are many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    /// All are forgotten: it takes as many again to be many once more.
    Restarts,
    /// The latest are kept: it stays many for as long as they come.
    Stays,
}

/// How many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crowd {
    /// Not more than the limit.
    Few,
    /// More.
    Many,
}

/// What a member is known by.
pub(super) type Member = [u8; 16];

/// The members that were seen. At most one more than the limit is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seen {
    last: BTreeMap<Member, u64>,
    order: BTreeSet<(u64, Member)>,
}

impl Distinct {
    /// The same with the limit divided, at least one member left.
    #[must_use]
    pub fn stricter(self, divisor: u64) -> Self {
        Self { limit: self.limit.checked_div(divisor).unwrap_or(1).max(1), ..self }
    }

    pub(super) fn step(self, seen: &mut Seen, member: Member, now_ms: u64) -> Crowd {
        while let Some((last, oldest)) = seen.order.first().copied() {
            if last.saturating_add(self.window_ms) > now_ms {
                break;
            }
            seen.forget(last, oldest);
        }
        let last = seen.last.get(&member).copied();
        if last.is_none_or(|last| last < now_ms) {
            if let Some(last) = last {
                seen.forget(last, member);
            }
            seen.last.insert(member, now_ms);
            seen.order.insert((now_ms, member));
        }
        if seen.len() <= self.limit {
            return Crowd::Few;
        }
        match self.excess {
            Excess::Restarts => *seen = Seen::default(),
            Excess::Stays => {
                while seen.len() > self.limit.saturating_add(1)
                    && let Some((last, oldest)) = seen.order.first().copied()
                {
                    seen.forget(last, oldest);
                }
            }
        }
        Crowd::Many
    }
}

impl Seen {
    pub(super) fn len(&self) -> u64 {
        self.order.len() as u64
    }

    pub(super) fn holds(&self, member: &Member) -> bool {
        self.last.contains_key(member)
    }

    /// When the last member was seen.
    pub(super) fn latest_ms(&self) -> Option<u64> {
        self.order.last().map(|(last, _)| *last)
    }

    fn forget(&mut self, last: u64, member: Member) {
        self.order.remove(&(last, member));
        self.last.remove(&member);
    }
}

#[cfg(test)]
mod tests;
