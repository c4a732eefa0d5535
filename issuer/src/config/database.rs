//! The settings of the databases.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::document::{OutOfRange, fault, within};
use crate::store::DatabaseLimits;

/// A URL that may hold a password. Shown without it.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretUrl(Zeroizing<String>);

impl SecretUrl {
    /// The URL.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The whole of it, for whoever connects.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SecretUrl {
    /// Scheme, host and path; who logs in there and how is left out, and parameters too, for they may say the same.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.split(['?', '#']).next().unwrap_or_default();
        match shown.split_once("://") {
            Some((scheme, rest)) => {
                let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
                let host = authority.rsplit('@').next().unwrap_or_default();
                write!(formatter, "{scheme}://{host}/{path}")
            }
            None => formatter.write_str(if shown.is_empty() { "" } else { "…" }),
        }
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self}")
    }
}

impl Serialize for SecretUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SecretUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

/// `[database]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatabaseDocument {
    pub url: SecretUrl,
    pub shard_urls: Vec<SecretUrl>,
    pub connections_max: u32,
    pub timeout_ms: u64,
}

impl Default for DatabaseDocument {
    fn default() -> Self {
        let url = SecretUrl::new(String::new());
        Self { url, shard_urls: Vec::new(), connections_max: 16, timeout_ms: 5_000 }
    }
}

/// Where the databases are and how they are used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseSettings {
    /// The home database, when it is not SQLite in the data folder, and the shards beyond it.
    pub postgres: Option<(SecretUrl, Vec<SecretUrl>)>,
    /// How each is used.
    pub limits: DatabaseLimits,
}

/// The most databases.
const SHARDS_MAX: usize = 256;

impl DatabaseDocument {
    pub(super) fn checked(&self) -> Result<DatabaseSettings, OutOfRange> {
        let Self { url, shard_urls, connections_max, timeout_ms } = self;
        let postgres = |url: &SecretUrl| {
            url.expose().starts_with("postgres://") || url.expose().starts_with("postgresql://")
        };
        within((1..=10_000).contains(connections_max), "database.connections_max", "1 to 10000")?;
        within((100..=60_000).contains(timeout_ms), "database.timeout_ms", "100 to 60000")?;
        let limits =
            DatabaseLimits { connections_max: *connections_max, timeout: Duration::from_millis(*timeout_ms) };
        if url.expose().is_empty() {
            return if shard_urls.is_empty() {
                Ok(DatabaseSettings { postgres: None, limits })
            } else {
                Err(fault("database.shard_urls", "empty unless database.url is given").relating())
            };
        }
        within(postgres(url), "database.url", "empty, for SQLite in data_dir, or postgres://…")?;
        let shards = shard_urls.len() < SHARDS_MAX && shard_urls.iter().all(postgres);
        within(shards, "database.shard_urls", "at most 255 of postgres://…")?;
        Ok(DatabaseSettings { postgres: Some((url.clone(), shard_urls.clone())), limits })
    }
}
