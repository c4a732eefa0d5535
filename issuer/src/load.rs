//! Decides what Envoy is told of this replica's load, in the words of ORCA, so that it can weight the replicas.
//!
//! *What comes in:* how busy the password workers are, and how requests were answered. *What goes out:* one response
//! header, `endpoint-load-metrics`, in its text form, as Envoy's load balancing policy `client_side_weighted_round_robin`
//! reads it: the weight of a replica is its requests per second over its utilisation. *What an attacker gains if this is
//! wrong:* more than the coarse load: what a single request of somebody else did. So utilisation is told in steps of a
//! twentieth, and rates of whole past intervals in whole requests per second, coarser as they grow.

use axum::http::{HeaderName, HeaderValue};
use tollgate_shared::time::Monotonic;

use crate::password::PoolLoad;

/// The header's name.
pub const LOAD_HEADER: HeaderName = HeaderName::from_static("endpoint-load-metrics");

/// Rates are those of the last whole interval of this length, in milliseconds.
const INTERVAL_MILLIS: u64 = 5_000;
/// Utilisation is told in steps of one over this.
const STEPS: usize = 20;
/// The most steps that are told: ten times what the workers can do.
const STEPS_MAX: usize = 10 * STEPS;
/// Rates below this are told exactly, those above in this many steps for each doubling.
const EXACT_BELOW: u64 = 16;

/// How a request was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With anything but a server error.
    Answered,
    /// With a status of 500 or more.
    Failed,
}

impl Outcome {
    /// The outcome that a status stands for.
    #[must_use]
    pub fn of_status(status: u16) -> Self {
        if status >= 500 { Self::Failed } else { Self::Answered }
    }
}

/// Requests per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rates {
    /// All of them.
    pub requests: u64,
    /// Those that ended in a server error.
    pub errors: u64,
}

/// Counts requests by intervals. It has no clock of its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct LoadReport {
    started: Monotonic,
    current: Counts,
    last: Counts,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    requests: u64,
    errors: u64,
}

impl LoadReport {
    /// A report whose first interval starts now.
    #[must_use]
    pub fn new(now: Monotonic) -> Self {
        Self { started: now, ..Self::default() }
    }

    /// Counts a request that was answered now.
    pub fn observe(&mut self, now: Monotonic, outcome: Outcome) {
        *self = self.at(now);
        let Counts { requests, errors } = &mut self.current;
        *requests = requests.saturating_add(1);
        match outcome {
            Outcome::Answered => {}
            Outcome::Failed => *errors = errors.saturating_add(1),
        }
    }

    /// The rates of the last whole interval, nothing before there was one.
    #[must_use]
    pub fn rates(&self, now: Monotonic) -> Rates {
        let Counts { requests, errors } = self.at(now).last;
        let per_second = |count: u64| count.saturating_mul(1000) / INTERVAL_MILLIS;
        Rates { requests: per_second(requests), errors: per_second(errors) }
    }

    /// The same report, with the intervals that are over put behind it.
    fn at(&self, now: Monotonic) -> Self {
        let over = now.since(self.started) / INTERVAL_MILLIS;
        let started = Monotonic(self.started.0.saturating_add(over.saturating_mul(INTERVAL_MILLIS)));
        match over {
            0 => *self,
            1 => Self { started, current: Counts::default(), last: self.current },
            // Nothing came for a whole interval.
            _ => Self { started, ..Self::default() },
        }
    }
}

/// The header's value. Nothing in it is ever zero but the errors: Envoy takes a zero for a missing value and leaves such a
/// report out.
#[must_use]
pub fn header_value(pool: PoolLoad, rates: Rates) -> Option<HeaderValue> {
    let PoolLoad { workers, busy, waiting } = pool;
    // What is asked of the workers, and what of them is in use; they are as many as the cores.
    let application = hundredths(busy.saturating_add(waiting), workers);
    let cpu = hundredths(busy.min(workers), workers);
    let (requests, errors) = (coarse(rates.requests).max(1), coarse(rates.errors));
    let text = format!(
        "TEXT application_utilization={}.{:02},cpu_utilization={}.{:02},rps_fractional={requests},eps={errors}",
        application / 100,
        application % 100,
        cpu / 100,
        cpu % 100,
    );
    HeaderValue::from_str(&text).ok()
}

/// A share in hundredths, rounded to a step and at least one.
fn hundredths(part: usize, whole: usize) -> usize {
    let whole = whole.max(1);
    let steps = part.saturating_mul(STEPS).saturating_add(whole / 2) / whole;
    steps.clamp(1, STEPS_MAX) * 100 / STEPS
}

/// A rate, rounded down to its first four binary digits.
fn coarse(rate: u64) -> u64 {
    let mut shift = 0;
    while (rate >> shift) >= EXACT_BELOW {
        shift += 1;
    }
    (rate >> shift) << shift
}

#[cfg(test)]
mod tests;
