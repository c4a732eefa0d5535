//! What the engine counts. Names are Prometheus's; a host adds its own prefix.

use std::collections::BTreeMap;

use super::denial::Denial;

/// Counts and gauges at one moment. Counts only grow.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    requests: BTreeMap<(&'static str, &'static str), u64>,
    counters: BTreeMap<Counter, u64>,
    gauges: BTreeMap<Gauge, u64>,
}

/// Things that happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the name of each metric says what its documentation would")]
pub enum Counter {
    CacheHit,
    CacheMiss,
    Waited,
    FeedDelta,
    FeedSnapshot,
    FeedFailed,
    FeedRefused,
    QuotaBatch,
    QuotaBatchFailed,
    QuotaUnitsUnreported,
    HeartbeatFailed,
    LeaderTerm,
    KeysFetched,
    KeysFailed,
    KeysRefetched,
}

/// Things that stand at a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the name of each metric says what its documentation would")]
pub enum Gauge {
    StateAgeMilliseconds,
    FeedPosition,
    RevokedTokens,
    RevokedCutoffs,
    CachedTokens,
    QuotaBuckets,
    Ready,
    IssuerState,
    KeysAgeMilliseconds,
    KeysIgnored,
}

impl Counter {
    /// The metric's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CacheHit => "tollgate_token_cache_hits_total",
            Self::CacheMiss => "tollgate_token_cache_misses_total",
            Self::Waited => "tollgate_requests_waited_total",
            Self::FeedDelta => "tollgate_feed_deltas_total",
            Self::FeedSnapshot => "tollgate_feed_snapshots_total",
            Self::FeedFailed => "tollgate_feed_failures_total",
            Self::FeedRefused => "tollgate_feed_messages_refused_total",
            Self::QuotaBatch => "tollgate_quota_batches_total",
            Self::QuotaBatchFailed => "tollgate_quota_batch_failures_total",
            Self::QuotaUnitsUnreported => "tollgate_quota_units_unreported_total",
            Self::HeartbeatFailed => "tollgate_heartbeat_failures_total",
            Self::LeaderTerm => "tollgate_leader_terms_total",
            Self::KeysFetched => "tollgate_remote_keys_fetched_total",
            Self::KeysFailed => "tollgate_remote_keys_failures_total",
            Self::KeysRefetched => "tollgate_unknown_key_refetches_total",
        }
    }
}

impl Gauge {
    /// The metric's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::StateAgeMilliseconds => "tollgate_state_age_milliseconds",
            Self::FeedPosition => "tollgate_feed_position",
            Self::RevokedTokens => "tollgate_revoked_tokens",
            Self::RevokedCutoffs => "tollgate_revoked_cutoffs",
            Self::CachedTokens => "tollgate_cached_tokens",
            Self::QuotaBuckets => "tollgate_quota_buckets",
            Self::Ready => "tollgate_ready",
            Self::IssuerState => "tollgate_issuer_state",
            Self::KeysAgeMilliseconds => "tollgate_remote_keys_age_milliseconds",
            Self::KeysIgnored => "tollgate_keys_ignored",
        }
    }
}

impl Metrics {
    pub(super) fn admitted(&mut self) {
        *self.requests.entry(("admitted", "token")).or_default() += 1;
    }

    pub(super) fn admitted_anonymous(&mut self) {
        *self.requests.entry(("admitted", "anonymous")).or_default() += 1;
    }

    pub(super) fn refused(&mut self, denial: &Denial) {
        *self.requests.entry(("refused", denial.reason())).or_default() += 1;
    }

    pub(super) fn count(&mut self, counter: Counter) {
        self.add(counter, 1);
    }

    pub(super) fn add(&mut self, counter: Counter, amount: u64) {
        *self.counters.entry(counter).or_default() += amount;
    }

    pub(super) fn set(&mut self, gauge: Gauge, value: u64) {
        self.gauges.insert(gauge, value);
    }

    /// Requests by `(outcome, reason)`: `tollgate_requests_total`.
    pub fn requests(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> + '_ {
        self.requests.iter().map(|((outcome, reason), count)| (*outcome, *reason, *count))
    }

    /// All counters that are not zero.
    pub fn counters(&self) -> impl Iterator<Item = (Counter, u64)> + '_ {
        self.counters.iter().map(|(counter, count)| (*counter, *count))
    }

    /// All gauges that are known.
    pub fn gauges(&self) -> impl Iterator<Item = (Gauge, u64)> + '_ {
        self.gauges.iter().map(|(gauge, value)| (*gauge, *value))
    }
}
