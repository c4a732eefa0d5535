//! Counts what the issuer does, in the words of OpenMetrics. Labels come from closed sets, never from a request.

mod enforcement;

use std::fmt;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use tollgate_shared::revocation::{Dimension, Position};

use crate::breaker::BreakerState;
use crate::quota::UnitCounts;
use crate::store::FactKind;
use enforcement::EnforcementMetrics;

/// How a login ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginOutcome {
    /// With a token.
    Admitted,
    /// Unknown user, wrong password, or disabled.
    Refused,
    /// The request made no sense.
    Malformed,
    /// Too many at once.
    Busy,
    /// Our fault.
    Failed,
}

/// What a poll was answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedKind {
    /// Everything.
    Snapshot,
    /// What was new.
    Delta,
    /// A part that never changes.
    Segment,
    /// That nothing was.
    Empty,
}

impl FeedKind {
    fn name(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Delta => "delta",
            Self::Segment => "segment",
            Self::Empty => "empty",
        }
    }
}

/// Where something was looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheLevel {
    /// In this process.
    Memory,
    /// In Redis.
    Shared,
    /// In the database.
    Database,
}

/// What was found there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheOutcome {
    /// An answer.
    Hit,
    /// None.
    Miss,
    /// One that is too old, given out because the database does not answer.
    Stale,
    /// The level did not answer.
    Failed,
}

/// One label whose values are ours.
type OneLabel = [(&'static str, &'static str); 1];

/// All metrics.
pub struct Metrics {
    registry: Registry,
    logins: Family<OneLabel, Counter>,
    login_seconds: Histogram,
    password_waiting: Gauge,
    password_wait_seconds: Histogram,
    password_hashes: Counter,
    password_running: Gauge,
    password_workers: Gauge,
    revocations: Family<OneLabel, Counter>,
    feed_answers: Family<OneLabel, Counter>,
    feed_reads: Family<OneLabel, Counter>,
    polls_open: Gauge,
    position: Gauge,
    quota_units: Family<OneLabel, Counter>,
    requests: Family<[(&'static str, String); 2], Counter>,
    throttle_decisions: Family<OneLabel, Counter>,
    throttle_fallbacks: Counter,
    throttle_unkept: Counter,
    under_attack: Gauge,
    breakers: Family<[(&'static str, String); 2], Gauge>,
    cache_reads: Family<[(&'static str, &'static str); 3], Counter>,
    cache_entries: Family<OneLabel, Gauge>,
    cache_untold: Counter,
    pub(crate) enforcement: EnforcementMetrics,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Metrics")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.001, 2.0, 14));
        let mut metrics = Self {
            registry: Registry::with_prefix("tollgate_issuer"),
            logins: Family::default(),
            login_seconds: seconds(),
            password_waiting: Gauge::default(),
            password_wait_seconds: seconds(),
            password_hashes: Counter::default(),
            password_running: Gauge::default(),
            password_workers: Gauge::default(),
            revocations: Family::default(),
            feed_answers: Family::default(),
            feed_reads: Family::default(),
            polls_open: Gauge::default(),
            position: Gauge::default(),
            quota_units: Family::default(),
            requests: Family::default(),
            throttle_decisions: Family::default(),
            throttle_fallbacks: Counter::default(),
            throttle_unkept: Counter::default(),
            under_attack: Gauge::default(),
            breakers: Family::default(),
            cache_reads: Family::default(),
            cache_entries: Family::default(),
            cache_untold: Counter::default(),
            enforcement: EnforcementMetrics::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let Self { registry, .. } = self;
        registry.register("logins", "Logins, by outcome", self.logins.clone());
        registry.register_with_unit(
            "login_duration",
            "Time from a login's request to its answer",
            Unit::Seconds,
            self.login_seconds.clone(),
        );
        registry.register(
            "password_queue_depth",
            "Logins that wait for a worker",
            self.password_waiting.clone(),
        );
        registry.register_with_unit(
            "password_queue_wait",
            "Time that logins waited for a worker",
            Unit::Seconds,
            self.password_wait_seconds.clone(),
        );
        registry.register(
            "password_hashes",
            "Password hashes that a worker has begun",
            self.password_hashes.clone(),
        );
        registry.register(
            "password_hashes_running",
            "Password hashes that are being computed",
            self.password_running.clone(),
        );
        registry.register(
            "password_workers",
            "Password hashes that can be computed at once",
            self.password_workers.clone(),
        );
        registry.register("revocations", "Revocations, by dimension", self.revocations.clone());
        registry.register("feed_answers", "Answers to polls of the feed, by kind", self.feed_answers.clone());
        registry.register(
            "feed_reads",
            "Looks at the feed's log, by what they found, and snapshots made",
            self.feed_reads.clone(),
        );
        registry.register("feed_polls_open", "Polls that are held", self.polls_open.clone());
        registry.register("feed_position", "The feed's position", self.position.clone());
        registry.register("quota_units", "Units granted, allowed and denied", self.quota_units.clone());
        registry.register("http_requests", "Requests, by route and status", self.requests.clone());
        self.enforcement.register(registry);
        self.register_throttle();
        self.register_cache();
    }

    fn register_cache(&mut self) {
        let Self { registry, .. } = self;
        registry.register(
            "cache_reads",
            "Looks at each level of the cache, by kind and by what was found",
            self.cache_reads.clone(),
        );
        registry.register("cache_entries", "Entries in memory, by kind", self.cache_entries.clone());
        registry.register(
            "cache_changes_untold",
            "Changes that other replicas were not told of; what they keep ends by its age",
            self.cache_untold.clone(),
        );
    }

    fn register_throttle(&mut self) {
        let Self { registry, .. } = self;
        registry.register(
            "throttle_decisions",
            "Login attempts, by what the throttle decided",
            self.throttle_decisions.clone(),
        );
        registry.register(
            "throttle_fallbacks",
            "Steps of counters that were made in memory because Redis did not make them",
            self.throttle_fallbacks.clone(),
        );
        registry.register(
            "throttle_unkept",
            "Outcomes of logins that no counter took",
            self.throttle_unkept.clone(),
        );
        registry.register(
            "throttle_under_attack",
            "Whether so many accounts fail that all are guarded more strictly",
            self.under_attack.clone(),
        );
        registry.register(
            "breaker",
            "Circuit breakers, by store and state: 1 for the state it is in",
            self.breakers.clone(),
        );
    }

    /// The metrics as text.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        let mut text = String::new();
        encode(&mut text, &self.registry).ok().map(|()| text)
    }

    pub(crate) fn login(&self, outcome: LoginOutcome, millis: u64) {
        let outcome = match outcome {
            LoginOutcome::Admitted => "admitted",
            LoginOutcome::Refused => "refused",
            LoginOutcome::Malformed => "malformed",
            LoginOutcome::Busy => "busy",
            LoginOutcome::Failed => "failed",
        };
        self.logins.get_or_create(&[("outcome", outcome)]).inc();
        self.login_seconds.observe(seconds(millis));
    }

    pub(crate) fn password_queue(&self, change: i64) {
        self.password_waiting.inc_by(change);
    }

    pub(crate) fn password_waited(&self, millis: u64) {
        self.password_wait_seconds.observe(seconds(millis));
    }

    /// Counts a hash as being computed until the guard is dropped.
    pub(crate) fn password_hash_started(&self) -> RunningHash {
        self.password_hashes.inc();
        self.password_running.inc();
        RunningHash(self.password_running.clone())
    }

    pub(crate) fn password_workers(&self, workers: usize) {
        self.password_workers.set(i64::try_from(workers).unwrap_or(i64::MAX));
    }

    pub(crate) fn revoked(&self, dimension: Dimension) {
        self.revocations.get_or_create(&[("dimension", dimension.name())]).inc();
    }

    pub(crate) fn feed_answered(&self, kind: FeedKind) {
        self.feed_answers.get_or_create(&[("kind", kind.name())]).inc();
    }

    /// Counts a reading of the feed's log that found something new or nothing, or the making of a snapshot.
    pub(crate) fn feed_read(&self, kind: FeedKind) {
        self.feed_reads.get_or_create(&[("kind", kind.name())]).inc();
    }

    /// Counts a held poll until the guard is dropped.
    pub(crate) fn poll_opened(&self) -> OpenPoll {
        self.polls_open.inc();
        OpenPoll(self.polls_open.clone())
    }

    pub(crate) fn position(&self, position: Position) {
        self.position.set(i64::try_from(position.0).unwrap_or(i64::MAX));
    }

    pub(crate) fn quota(&self, counts: UnitCounts) {
        let UnitCounts { granted, allowed, denied } = counts;
        for (what, units) in [("granted", granted), ("allowed", allowed), ("denied", denied)] {
            self.quota_units.get_or_create(&[("what", what)]).inc_by(units);
        }
    }

    pub(crate) fn request(&self, route: &str, status: u16) {
        let labels = [("route", route.to_owned()), ("status", status.to_string())];
        self.requests.get_or_create(&labels).inc();
    }
}

/// A password hash that is being computed.
#[derive(Debug)]
pub(crate) struct RunningHash(Gauge);

impl Drop for RunningHash {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Of throttles and breakers.
impl Metrics {
    pub(crate) fn throttled(&self, decision: &'static str) {
        self.throttle_decisions.get_or_create(&[("decision", decision)]).inc();
    }

    pub(crate) fn throttle_fell_back(&self) {
        self.throttle_fallbacks.inc();
    }

    pub(crate) fn throttle_outcome_lost(&self) {
        self.throttle_unkept.inc();
    }

    pub(crate) fn under_attack(&self, attacked: bool) {
        self.under_attack.set(i64::from(attacked));
    }

    pub(crate) fn breaker(&self, store: &str, state: BreakerState) {
        for each in [BreakerState::Closed, BreakerState::Open, BreakerState::HalfOpen] {
            let labels = [("store", store.to_owned()), ("state", each.name().to_owned())];
            self.breakers.get_or_create(&labels).set(i64::from(each == state));
        }
    }
}

/// Of caches.
impl Metrics {
    pub(crate) fn cache_read(&self, kind: FactKind, level: CacheLevel, outcome: CacheOutcome) {
        let level = match level {
            CacheLevel::Memory => "memory",
            CacheLevel::Shared => "shared",
            CacheLevel::Database => "database",
        };
        let outcome = match outcome {
            CacheOutcome::Hit => "hit",
            CacheOutcome::Miss => "miss",
            CacheOutcome::Stale => "stale",
            CacheOutcome::Failed => "failed",
        };
        let labels = [("kind", kind.name()), ("level", level), ("outcome", outcome)];
        self.cache_reads.get_or_create(&labels).inc();
    }

    pub(crate) fn cache_entries(&self, kind: FactKind, entries: usize) {
        let entries = i64::try_from(entries).unwrap_or(i64::MAX);
        self.cache_entries.get_or_create(&[("kind", kind.name())]).set(entries);
    }

    pub(crate) fn cache_change_untold(&self) {
        self.cache_untold.inc();
    }
}

/// A poll that is held.
#[derive(Debug)]
pub(crate) struct OpenPoll(Gauge);

impl Drop for OpenPoll {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[expect(clippy::cast_precision_loss, reason = "a duration in milliseconds is far below 2^52")]
fn seconds(millis: u64) -> f64 {
    millis as f64 / 1000.0
}
