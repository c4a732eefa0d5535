//! The settings as they are written in a file, and the check that makes [`Settings`] of them.

use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tollgate_shared::id::{IssuerId, PlanName};
use tollgate_shared::quota::{PLANS_MAX, Plan};

use super::admin::AdminDocument;
use super::cache::CacheDocument;
use super::database::DatabaseDocument;
use super::keys::KeysDocument;
use super::redis::RedisDocument;
use super::session::SessionDocument;
use super::throttle::ThrottleDocument;
use super::{
    ConfigError, FeedSettings, LIFETIME_SECONDS_MAX, LogFormat, LogSettings, PasswordSettings, Settings,
    Source, TokenSettings,
};
use crate::network::TrustedProxies;

/// All settings, as TOML has them.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "each is described where it is used: in `Settings`")]
pub struct Document {
    pub listen: String,
    pub issuer: String,
    pub audience: String,
    pub data_dir: PathBuf,
    pub metrics_public: bool,
    pub trusted_proxies: Vec<String>,
    pub connections_max: usize,
    pub connections_per_address_max: usize,
    pub default_plan: String,
    pub token: TokenDocument,
    pub keys: KeysDocument,
    pub password: PasswordDocument,
    pub feed: FeedDocument,
    pub log: LogDocument,
    pub audit: AuditDocument,
    pub database: DatabaseDocument,
    pub cache: CacheDocument,
    pub session: SessionDocument,
    pub redis: RedisDocument,
    pub throttle: ThrottleDocument,
    pub admin: AdminDocument,
    pub plans: Vec<PlanDocument>,
}

/// `[token]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenDocument {
    pub lifetime_seconds: u64,
    pub jitter_percent: u64,
}

/// `[password]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PasswordDocument {
    pub memory_kib: u32,
    pub iterations: u32,
    pub parallelism: u32,
    pub queue_max: usize,
    pub workers: usize,
    pub memory_max_mib: u32,
}

/// `[feed]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FeedDocument {
    pub long_poll_max_seconds: u64,
    pub delta_max: u64,
}

/// `[log]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogDocument {
    pub format: String,
    pub level: String,
}

/// `[audit]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuditDocument {
    pub keep_days: u64,
}

/// One of `[[plans]]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanDocument {
    pub name: String,
    pub limit: u64,
    pub window_seconds: u64,
}

impl Default for Document {
    fn default() -> Self {
        let plan = |plan: Plan| {
            let Plan { name, limit, window_seconds } = plan;
            PlanDocument { name: name.as_str().to_owned(), limit, window_seconds }
        };
        Self {
            listen: "127.0.0.1:8700".to_owned(),
            issuer: "http://127.0.0.1:8700".to_owned(),
            audience: "api".to_owned(),
            data_dir: PathBuf::from("tollgate-data"),
            metrics_public: false,
            trusted_proxies: Vec::new(),
            connections_max: 10_000,
            connections_per_address_max: 1_000,
            default_plan: "free".to_owned(),
            token: TokenDocument::default(),
            keys: KeysDocument::default(),
            password: PasswordDocument::default(),
            feed: FeedDocument::default(),
            log: LogDocument::default(),
            audit: AuditDocument::default(),
            database: DatabaseDocument::default(),
            cache: CacheDocument::default(),
            session: SessionDocument::default(),
            redis: RedisDocument::default(),
            throttle: ThrottleDocument::default(),
            admin: AdminDocument::default(),
            plans: Plan::defaults().into_iter().map(plan).collect(),
        }
    }
}

impl Default for TokenDocument {
    fn default() -> Self {
        Self { lifetime_seconds: 900, jitter_percent: 5 }
    }
}

impl Default for PasswordDocument {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self {
            memory_kib: 19_456,
            iterations: 2,
            parallelism: 1,
            queue_max: 64,
            workers: cores.min(WORKERS_MAX),
            memory_max_mib: 256,
        }
    }
}

impl Default for FeedDocument {
    fn default() -> Self {
        Self { long_poll_max_seconds: 30, delta_max: 65_536 }
    }
}

impl Default for AuditDocument {
    fn default() -> Self {
        Self { keep_days: 400 }
    }
}

impl Default for LogDocument {
    fn default() -> Self {
        Self { format: "text".to_owned(), level: "info".to_owned() }
    }
}

/// A setting that is out of range, before it is known where it came from.
#[derive(Debug, Clone, Copy)]
pub(super) struct OutOfRange {
    key: &'static str,
    expected: &'static str,
    /// Whether it can be wrong only together with another setting.
    relation: bool,
}

impl OutOfRange {
    pub(super) fn at(self, source_of: Source) -> ConfigError {
        let Self { key, expected, relation: _ } = self;
        ConfigError::Range { key, expected, source_of }
    }

    /// It is wrong only together with another setting.
    pub(super) fn relating(self) -> Self {
        Self { relation: true, ..self }
    }

    pub(super) fn is_relation(self) -> bool {
        self.relation
    }
}

const WORKERS_MAX: usize = 256;

impl Document {
    /// The settings, if every value is in range.
    pub(super) fn checked(&self) -> Result<Settings, OutOfRange> {
        let Self {
            listen,
            issuer,
            audience,
            data_dir,
            metrics_public,
            trusted_proxies,
            connections_max,
            connections_per_address_max,
            default_plan,
            token,
            keys,
            password,
            feed,
            log,
            audit,
            database,
            cache,
            session,
            redis,
            throttle,
            admin,
            plans,
        } = self;
        within(!audience.is_empty() && audience.len() <= 255, "audience", "1 to 255 bytes long")?;
        within(!data_dir.as_os_str().is_empty(), "data_dir", "a folder")?;
        let connections = 1..=1_000_000;
        within(connections.contains(connections_max), "connections_max", "1 to 1000000")?;
        within(
            connections.contains(connections_per_address_max),
            "connections_per_address_max",
            "1 to 1000000",
        )?;
        let plans = checked_plans(plans)?;
        let settings = Settings {
            listen: listen
                .parse()
                .map_err(|_| fault("listen", "an address and port, such as 127.0.0.1:8700"))?,
            issuer: checked_issuer(issuer)?,
            audience: audience.clone(),
            data_dir: data_dir.clone(),
            metrics_public: *metrics_public,
            trusted_proxies: TrustedProxies::parse(trusted_proxies)
                .ok_or_else(|| fault("trusted_proxies", "addresses or networks such as 10.0.0.0/8"))?,
            connections_max: *connections_max,
            connections_per_address_max: *connections_per_address_max,
            token: token.checked()?,
            keys: keys.checked()?,
            password: password.checked()?,
            feed: feed.checked()?,
            default_plan: PlanName::new(default_plan)
                .ok_or_else(|| fault("default_plan", "1 to 255 bytes long"))?,
            plans,
            log: log.checked()?,
            audit_keep_days: audit.checked()?,
            database: database.checked()?,
            cache: cache.checked()?,
            session: session.checked()?,
            redis: redis.checked()?,
            throttle: throttle.checked()?,
            admin: admin.checked(),
            ready_file: None,
        };
        // Last, so that a relation is reported only when every value is right by itself.
        let PasswordSettings { memory_kib, memory_max_mib, .. } = settings.password;
        if u64::from(memory_kib) > u64::from(memory_max_mib) * 1024 {
            let (key, expected) = ("password.memory_max_mib", "enough for one hash of password.memory_kib");
            return Err(OutOfRange { key, expected, relation: true });
        }
        settings.keys.fits(settings.token)?;
        if settings.plans.iter().any(|plan| plan.name == settings.default_plan) {
            Ok(settings)
        } else {
            Err(relation("default_plan", "the name of one of `plans`"))
        }
    }
}

impl TokenDocument {
    fn checked(&self) -> Result<TokenSettings, OutOfRange> {
        let Self { lifetime_seconds, jitter_percent } = *self;
        within(
            (60..=LIFETIME_SECONDS_MAX).contains(&lifetime_seconds),
            "token.lifetime_seconds",
            "60 to 86400",
        )?;
        within(jitter_percent <= 50, "token.jitter_percent", "0 to 50")?;
        Ok(TokenSettings { lifetime_seconds, jitter_percent })
    }
}

impl PasswordDocument {
    fn checked(&self) -> Result<PasswordSettings, OutOfRange> {
        let Self { memory_kib, iterations, parallelism, queue_max, workers, memory_max_mib } = *self;
        within((8..=1_048_576).contains(&memory_kib), "password.memory_kib", "8 to 1048576")?;
        within((1..=64).contains(&iterations), "password.iterations", "1 to 64")?;
        let lanes = (1..=16).contains(&parallelism) && memory_kib / 8 >= parallelism;
        within(lanes, "password.parallelism", "1 to 16, and at most an eighth of password.memory_kib")?;
        within(queue_max <= 100_000, "password.queue_max", "0 to 100000")?;
        within((1..=WORKERS_MAX).contains(&workers), "password.workers", "1 to 256")?;
        within((1..=1_048_576).contains(&memory_max_mib), "password.memory_max_mib", "1 to 1048576")?;
        Ok(PasswordSettings { memory_kib, iterations, parallelism, queue_max, workers, memory_max_mib })
    }
}

impl FeedDocument {
    fn checked(&self) -> Result<FeedSettings, OutOfRange> {
        let Self { long_poll_max_seconds, delta_max } = *self;
        within(long_poll_max_seconds <= 300, "feed.long_poll_max_seconds", "0 to 300")?;
        within((1..=1_000_000).contains(&delta_max), "feed.delta_max", "1 to 1000000")?;
        Ok(FeedSettings { long_poll_max: Duration::from_secs(long_poll_max_seconds), delta_max })
    }
}

impl AuditDocument {
    fn checked(&self) -> Result<Option<u64>, OutOfRange> {
        let Self { keep_days } = *self;
        within(keep_days <= 36_500, "audit.keep_days", "0, for ever, to 36500")?;
        Ok((keep_days > 0).then_some(keep_days))
    }
}

impl LogDocument {
    fn checked(&self) -> Result<LogSettings, OutOfRange> {
        let format = match self.format.as_str() {
            "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            _ => return Err(fault("log.format", "\"text\" or \"json\"")),
        };
        let level = tracing_subscriber::EnvFilter::try_new(&self.level);
        within(level.is_ok(), "log.level", "a level (error, warn, info, debug, trace) or a filter of them")?;
        Ok(LogSettings { format, level: self.level.clone() })
    }
}

/// The issuer's URL (RFC 8414 section 2): http or https, a host, no query, no fragment, and no slash at its end, so that
/// paths can be put after it.
fn checked_issuer(text: &str) -> Result<IssuerId, OutOfRange> {
    const EXPECTED: &str = "a URL of http or https without query, fragment or final slash";
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let plain = |rest: &str| {
        !rest.is_empty()
            && !rest.starts_with('/')
            && !rest.ends_with('/')
            && rest.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\"<>\\".contains(&byte))
    };
    // Room is left for the paths that are put after it.
    within(rest.is_some_and(plain) && text.len() <= 200, "issuer", EXPECTED)?;
    IssuerId::new(text).ok_or_else(|| fault("issuer", EXPECTED))
}

fn checked_plans(plans: &[PlanDocument]) -> Result<Vec<Plan>, OutOfRange> {
    const EXPECTED: &str = "1 to 256 plans of different names, with a window_seconds of 1 to 2678400";
    within((1..=PLANS_MAX).contains(&plans.len()), "plans", EXPECTED)?;
    let mut checked: Vec<Plan> = Vec::with_capacity(plans.len());
    for PlanDocument { name, limit, window_seconds } in plans {
        let plan = PlanName::new(name).and_then(|name| Plan::new(name, *limit, *window_seconds));
        let plan = plan.filter(|plan| checked.iter().all(|known| known.name != plan.name));
        checked.push(plan.ok_or_else(|| fault("plans", EXPECTED))?);
    }
    Ok(checked)
}

pub(super) fn within(holds: bool, key: &'static str, expected: &'static str) -> Result<(), OutOfRange> {
    if holds { Ok(()) } else { Err(fault(key, expected)) }
}

pub(super) fn fault(key: &'static str, expected: &'static str) -> OutOfRange {
    OutOfRange { key, expected, relation: false }
}

/// A value that is right by itself, but not with the others.
pub(super) fn relation(key: &'static str, expected: &'static str) -> OutOfRange {
    OutOfRange { key, expected, relation: true }
}

/// Like [`within`], for what can be wrong only together with another setting.
pub(super) fn related(holds: bool, key: &'static str, expected: &'static str) -> Result<(), OutOfRange> {
    if holds { Ok(()) } else { Err(OutOfRange { key, expected, relation: true }) }
}
