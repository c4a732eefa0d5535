//! Counts what passes the proxy.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Shared;

/// What was seen of some requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many came.
    pub requests: u64,
    /// How many were answered, by status. Those that were cut off or hang have none.
    pub statuses: BTreeMap<u16, u64>,
    /// How many answers were spoiled.
    pub spoiled: u64,
    /// How many were given as they were.
    pub passed: u64,
    /// How long the latest body was before it was spoiled, in bytes.
    pub latest_length: u64,
    /// How many wait for the end of their answer now.
    pub in_flight: u64,
    /// How many did at most, at once.
    pub in_flight_most: u64,
    /// How many bytes of bodies were given.
    pub bytes: u64,
}

impl Tally {
    /// Of all of these together; but the most at once is that of the place that had the most, and the latest length that
    /// of one of them.
    pub(super) fn sum<'t>(tallies: impl Iterator<Item = (&'t String, &'t Self)>) -> Self {
        tallies.fold(Self::default(), |mut sum, (_, tally)| {
            let Self { requests, statuses, spoiled, passed, latest_length, in_flight, in_flight_most, bytes } = tally;
            sum.requests += requests;
            for (status, count) in statuses {
                *sum.statuses.entry(*status).or_default() += count;
            }
            sum.spoiled += spoiled;
            sum.passed += passed;
            sum.latest_length = *latest_length;
            sum.in_flight += in_flight;
            sum.in_flight_most = sum.in_flight_most.max(*in_flight_most);
            sum.bytes += bytes;
            sum
        })
    }
}

/// One request that is under way, for as long as this lives.
#[derive(Debug)]
pub(super) struct Visit {
    shared: Arc<Shared>,
    place: String,
}

impl Visit {
    pub(super) fn begin(shared: &Arc<Shared>, place: &str) -> Self {
        let visit = Self { shared: Arc::clone(shared), place: place.to_owned() };
        visit.count(|tally| {
            tally.requests += 1;
            tally.in_flight += 1;
            tally.in_flight_most = tally.in_flight_most.max(tally.in_flight);
        });
        visit
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut Tally)) {
        change(self.shared.memory().tallies.entry(self.place.clone()).or_default());
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.count(|tally| tally.in_flight -= 1);
    }
}
