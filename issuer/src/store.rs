//! Guards what must survive: every write is one transaction that is on disk before anybody is told of it.
//!
//! The *home* database has what there is one of: the feed's log, clients, rights, keys, API keys, quota, audit, the directory of
//! names. *Shards* have what belongs to users. With SQLite, and with one Postgres, home is also the one shard.
//!
//! Feed positions are assigned under a lock that is held until the commit, so their order is the order of commits and
//! nobody who has seen a position can miss a lower one.

mod api_keys;
mod audit;
mod blocks;
mod changes;
mod clients;
mod credentials;
mod cutoffs;
mod database;
mod feed_log;
mod feed_read;
mod heartbeats;
mod hot;
mod latest_token;
mod meta;
mod once;
mod outbox;
mod quota;
pub mod redis;
mod refresh;
mod revocation_order;
mod revocations;
mod rights;
mod role_changes;
mod session_writes;
mod sessions;
mod shard_move;
mod shards;
mod signing_keys;
mod status_lists;
mod user_changes;
mod users;

use std::path::PathBuf;
use std::sync::Arc;

pub use api_keys::{AddedApiKey, ApiKeyRecord};
pub use blocks::TakenBlock;
pub use changes::{FactKind, Observer};
pub use clients::ClientAuthText;
pub use credentials::{EdgeRecord, EdgeSeen, StoredCredential};
pub use cutoffs::{CutOff, CutOffKeys, Reach};
pub use database::{DatabaseLimits, Flavour};
pub use feed_log::{LogEntry, Logged};
pub use feed_read::{FeedEntry, FeedEntryChange};
pub use once::{KeptAnswer, KnownKey};
pub use outbox::Wished;
pub use quota::AppliedBatch;
pub use refresh::{Exchange, GENERATIONS_MAX, KnownRefresh, Presented, Rotation};
pub use revocation_order::RevocationOrder;
pub use revocations::{RevocationPage, RevocationQuery, RevocationRecord, RevokedValue};
pub use rights::{Revision, Role, Tenant};
#[cfg(test)]
pub(crate) use role_changes::SECOND_LOOK_SECONDS;
pub use session_writes::SESSIONS_MAX;
pub use sessions::{EndReason, NewSession, SessionRecord, StartedSession, TokenLife};
pub use shard_move::SlotMove;
pub use shards::slot_of;
pub use signing_keys::KeyChange;
pub use status_lists::STATUS_LISTS_MAX;
pub use users::{NewUser, User, UserChange, UserRecord, decoy_id};

use crate::breaker::BreakerState;
use crate::clock::Host;
use changes::Observed;
use database::Database;
use shards::Shards;

const DATABASE_FILE: &str = "tollgate.sqlite3";

/// Where the databases are.
#[derive(Debug, Clone)]
pub enum StorePlace {
    /// In this folder.
    Folder(PathBuf),
    /// At these URLs: home, and the shards when there are others. A shard keeps its place in the list for good.
    Postgres {
        /// The home database.
        home: crate::config::SecretUrl,
        /// The shards beyond home, which is shard 0.
        shards: Vec<crate::config::SecretUrl>,
    },
}

/// The databases.
#[derive(Debug, Clone)]
pub struct Store {
    home: Database,
    shards: Arc<Shards>,
    observed: Observed,
}

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A database cannot be opened.
    #[error("{place}: {error}")]
    Open {
        /// Which one, without its password.
        place: String,
        /// Why.
        #[source]
        error: sqlx::Error,
    },
    /// The schema cannot be brought up to date.
    #[error("schema: {0}")]
    Schema(#[from] sqlx::migrate::MigrateError),
    /// A statement failed.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    /// An operation took longer than it may. Whether it was done is not known.
    #[error("database: no answer in time")]
    Timeout,
    /// A database failed so often in a row that it is left alone for a moment. Nothing was done.
    #[error("database: not asked, for it did not answer before")]
    Unreachable,
    /// A row holds what we never write.
    #[error("database: {0} is not what was written there")]
    Corrupt(&'static str),
    /// Something of this name exists already.
    #[error("exists already")]
    Exists,
    /// There is nothing of this name.
    #[error("does not exist")]
    Missing,
    /// It was changed since it was read.
    #[error("was changed in the meantime")]
    Changed,
    /// Others changed it each time that it was tried.
    #[error("was changed by others each time it was tried")]
    Contended,
    /// All blocks of status indices are in use.
    #[error("no status indices left")]
    NoBlocks,
    /// The user's slot is being moved to another database.
    #[error("the user is being moved to another database")]
    Moving,
    /// A random value could not be drawn.
    #[error(transparent)]
    Entropy(#[from] crate::clock::EntropyError),
    /// A credential could not be written to its file.
    #[error(transparent)]
    File(#[from] crate::keys::KeyError),
}

impl Store {
    /// Opens the databases, with the schema of this version. One beside home that is away is opened when it is back.
    ///
    /// # Errors
    /// [`StoreError::Open`] and [`StoreError::Schema`].
    pub async fn open(
        place: &StorePlace,
        limits: DatabaseLimits,
        host: Arc<dyn Host>,
    ) -> Result<Self, StoreError> {
        let (home, others) = match place {
            StorePlace::Folder(folder) => {
                (Database::open_sqlite(&folder.join(DATABASE_FILE), limits, host).await?, Vec::new())
            }
            StorePlace::Postgres { home, shards } => {
                let first = Database::open_postgres(home, limits, Arc::clone(&host)).await?;
                let mut others = Vec::with_capacity(shards.len());
                for (url, shard) in shards.iter().zip(1..) {
                    others.push(Database::open_shard(url, shard, limits, Arc::clone(&host)).await?);
                }
                (first, others)
            }
        };
        let shards = Shards::open(home.clone(), others).await?;
        Ok(Self { home, shards: Arc::new(shards), observed: Observed::default() })
    }

    /// Whether the home database answers. Without another one this process serves all users but those there; how each of
    /// them does is told by [`Store::breakers`].
    ///
    /// # Errors
    /// [`StoreError`], if it does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.home.ping().await
    }

    /// What each database's circuit breaker does with the next operation, by the name of the database.
    #[must_use]
    pub fn breakers(&self) -> Vec<(String, BreakerState)> {
        let named = |(shard, database): (usize, &Database)| {
            let name = if shard == 0 { "home".to_owned() } else { format!("shard-{shard}") };
            database.breaker().map(|state| (name, state))
        };
        self.shards.all().iter().enumerate().filter_map(named).collect()
    }

    /// Closes the databases, so that the last process leaves no write-ahead log behind.
    pub async fn close(&self) {
        for database in self.shards.all() {
            database.close().await;
        }
    }

    /// Which database the home one is.
    #[must_use]
    pub fn flavour(&self) -> Flavour {
        self.home.flavour()
    }
}

/// The databases' integers are signed. Counts saturate there, as they do in memory.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

/// Turns the violation of a unique constraint into what it means.
fn exists(error: sqlx::Error) -> StoreError {
    let taken = error.as_database_error().is_some_and(|cause| cause.is_unique_violation());
    if taken { StoreError::Exists } else { StoreError::Database(error) }
}

/// Whether a change takes one of these roles or scopes away.
fn lost(before: &[String], after: &[String]) -> bool {
    before.iter().any(|name| !after.contains(name))
}

/// A list as it is kept: a JSON array of strings.
fn list_to_json(list: &[String]) -> String {
    serde_json::Value::from(list).to_string()
}

fn list_from_json(text: &str, column: &'static str) -> Result<Vec<String>, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::Corrupt(column))
}
