//! Decides what the issuer's settings are: flags over environment over file over defaults, each checked where it stands.
//!
//! *What comes in:* a TOML file, the environment and flags. *What goes out:* [`Settings`] whose every value is in range.
//! *What is lost if this is wrong:* a misspelt key that silently leaves a default in force.

mod admin;
mod cache;
mod database;
mod document;
mod keys;
mod layers;
mod redis;
mod session;
mod throttle;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tollgate_shared::id::{IssuerId, PlanName};
use tollgate_shared::quota::Plan;

use crate::network::TrustedProxies;
use crate::signing_keys::{ENCRYPTION_KEY_VARIABLE, EncryptionKeys};

pub use admin::{AdminSettings, IfMatchRule};
pub use cache::CacheSettings;
pub use database::{DatabaseSettings, SecretUrl};
pub use document::Document;
pub use keys::KeySettings;
pub use redis::{RedisDocument, RedisServers, RedisSettings};
pub use session::SessionSettings;
pub use throttle::{ThrottleDocument, ThrottleSettings};

/// The longest life a token can be given, in seconds. Cut-offs of which the last token is not known last for this long,
/// whatever the setting is now, because another process on the same data may issue under another.
pub const LIFETIME_SECONDS_MAX: u64 = 86_400;
/// The longest a session can be allowed to last, in seconds: a year. Cut-offs of sessions last for this long.
pub const SESSION_SECONDS_MAX: u64 = 366 * 86_400;
/// Added to every expiry that is computed ahead of its token: clocks that differ, a commit that had to wait.
pub const SLACK_SECONDS: u64 = 120;

/// The environment variables that are settings start with this.
pub const ENVIRONMENT_PREFIX: &str = "TOLLGATE_";
/// Variables of that prefix that are other programs': the edge's credential, and the folder of the test tools.
pub const FOREIGN_VARIABLES: [&str; 2] = ["TOLLGATE_CREDENTIAL", "TOLLGATE_CACHE"];
/// Variables of that prefix that are secrets: they are read into [`Settings`] and never into a document that can be printed.
pub const SECRET_VARIABLES: [&str; 1] = [ENCRYPTION_KEY_VARIABLE];

/// What the issuer is to do. Every value was checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// `iss` of the tokens, and the base of the URLs in the metadata.
    pub issuer: IssuerId,
    /// `aud` of the tokens.
    pub audience: String,
    /// Where the database and the keys are.
    pub data_dir: PathBuf,
    /// Whether `/metrics` asks for no credential.
    pub metrics_public: bool,
    /// Proxies that are believed when they say for whom they ask.
    pub trusted_proxies: TrustedProxies,
    /// Connections at once; more wait in the kernel's queue.
    pub connections_max: usize,
    /// Connections from one address at once, unless it is a trusted proxy's.
    pub connections_per_address_max: usize,
    /// Of tokens.
    pub token: TokenSettings,
    /// Of the keys that sign them.
    pub keys: KeySettings,
    /// Of passwords.
    pub password: PasswordSettings,
    /// Of the feed.
    pub feed: FeedSettings,
    /// What each plan allows.
    pub plans: Vec<Plan>,
    /// The plan of those that have none.
    pub default_plan: PlanName,
    /// Of the log.
    pub log: LogSettings,
    /// How many days the audit log is kept; for ever when `None`.
    pub audit_keep_days: Option<u64>,
    /// Of the databases.
    pub database: DatabaseSettings,
    /// Of what is kept of the databases' contents.
    pub cache: CacheSettings,
    /// Of sessions.
    pub session: SessionSettings,
    /// Where counters are shared; in this process when `None`.
    pub redis: Option<RedisSettings>,
    /// Of login attempts.
    pub throttle: ThrottleSettings,
    /// Of the admin API.
    pub admin: AdminSettings,
    /// Where to write the addresses once the service is ready.
    pub ready_file: Option<PathBuf>,
}

/// How long tokens live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenSettings {
    /// At most, in seconds.
    pub lifetime_seconds: u64,
    /// By how much of it a life is shortened at random, in percent, so that refreshes spread.
    pub jitter_percent: u64,
}

/// What a password hash costs, and how many may be computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PasswordSettings {
    /// Memory for one hash, in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub iterations: u32,
    /// Lanes.
    pub parallelism: u32,
    /// Logins that may wait for a worker; more are told to come back.
    pub queue_max: usize,
    /// Hashes computed at once, if there are as many cores and enough memory.
    pub workers: usize,
    /// What the workers may take together, in MiB.
    pub memory_max_mib: u32,
}

/// How the feed answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedSettings {
    /// The longest a poll is held.
    pub long_poll_max: Duration,
    /// An edge that is further behind gets a snapshot.
    pub delta_max: u64,
}

/// How the log is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// One line of text or of JSON for each event.
    pub format: LogFormat,
    /// The least level that is written, or a filter such as `info,tollgate_issuer=debug`.
    pub level: String,
}

/// The two ways to write the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The configuration file.
    File(PathBuf),
    /// This environment variable.
    Environment(String),
    /// This flag.
    Flag(&'static str),
    /// The defaults and everything else together: each value is right, but not with the others.
    Combined,
}

impl std::fmt::Display for Source {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(formatter, "file {}", path.display()),
            Self::Environment(name) => write!(formatter, "environment variable {name}"),
            Self::Flag(name) => write!(formatter, "flag {name}"),
            Self::Combined => formatter.write_str("settings"),
        }
    }
}

/// Why the settings are refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {error}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        error: std::io::Error,
    },
    /// The file is not TOML. The line itself is not repeated: it may hold a password.
    #[error("{}:{line}: not valid TOML: {problem}", path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1 on.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// There is no such setting.
    #[error("{source_of}: `{key}` is not a setting")]
    Unknown {
        /// What was written.
        key: String,
        /// Where.
        source_of: Source,
    },
    /// The value is not of the setting's type.
    #[error("{source_of}: `{key}`: {problem}")]
    Type {
        /// The setting.
        key: String,
        /// What was expected.
        problem: String,
        /// Where it was written.
        source_of: Source,
    },
    /// The value is of the right type but cannot be.
    #[error("{source_of}: `{key}` must be {expected}")]
    Range {
        /// The setting.
        key: &'static str,
        /// What it may be.
        expected: &'static str,
        /// Where it was written.
        source_of: Source,
    },
}

/// Values given as flags; they override everything else.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--listen`
    pub listen: Option<String>,
    /// `--issuer`
    pub issuer: Option<String>,
    /// `--data-dir`
    pub data_dir: Option<PathBuf>,
}

impl Settings {
    /// The settings from `file`, the whole `environment` (of which only `TOLLGATE_…` is looked at) and `flags`.
    ///
    /// # Errors
    /// [`ConfigError`] names the key and where it came from.
    pub fn load(
        file: Option<&std::path::Path>,
        environment: &BTreeMap<String, String>,
        flags: &Flags,
    ) -> Result<Self, ConfigError> {
        let document = Self::document(file, environment, flags)?;
        let mut settings = document.checked().map_err(|fault| fault.at(Source::Combined))?;
        if let Some(text) = environment.get(ENCRYPTION_KEY_VARIABLE) {
            let keys = EncryptionKeys::parse(text).map_err(|fault| ConfigError::Type {
                key: "keys.encryption_key".to_owned(),
                problem: fault.to_string(),
                source_of: Source::Environment(ENCRYPTION_KEY_VARIABLE.to_owned()),
            })?;
            settings.keys.encryption_keys = Some(keys);
        }
        Ok(settings)
    }

    /// The same as [`Settings::load`], as a document that can be printed. There is no secret in it.
    ///
    /// # Errors
    /// [`ConfigError`] names the key and where it came from.
    pub fn document(
        file: Option<&std::path::Path>,
        environment: &BTreeMap<String, String>,
        flags: &Flags,
    ) -> Result<Document, ConfigError> {
        let document = layers::combined(file, environment, flags)?;
        document.checked().map_err(|fault| fault.at(Source::Combined))?;
        Ok(document)
    }
}
