//! Guards what must survive: every write is one transaction that is on disk before anybody is told of it.
//!
//! There is one writer at a time, in this process and in all others on the same file: each write begins with
//! `BEGIN IMMEDIATE`. Feed positions are assigned inside such a transaction, so their order is the order of commits and
//! nobody who has seen a position can miss a lower one.

mod blocks;
mod credentials;
mod feed_log;
mod feed_read;
mod meta;
mod quota;
pub mod redis;
mod users;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Sqlite, SqlitePool, Transaction};

pub use blocks::TakenBlock;
pub use credentials::{EdgeRecord, EdgeSeen, StoredCredential};
pub use feed_log::{LogEntry, Logged, RevocationOrder};
pub use feed_read::{FeedRead, LogPart};
pub use quota::AppliedBatch;
pub use users::{NewSession, NewUser, StartedSession, User};

const DATABASE_FILE: &str = "tollgate.sqlite3";
/// How long a transaction waits for another process to finish its own.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
const READERS_MAX: u32 = 8;

/// The database.
#[derive(Debug, Clone)]
pub struct Store {
    /// One connection: writers of this process queue here, in order, and not in SQLite's busy loop.
    writer: SqlitePool,
    readers: SqlitePool,
}

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened.
    #[error("{}: {error}", path.display())]
    Open {
        /// Which file.
        path: PathBuf,
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
    /// A row holds what we never write.
    #[error("database: {0} is not what was written there")]
    Corrupt(&'static str),
    /// Something of this name exists already.
    #[error("exists already")]
    Exists,
    /// There is nothing of this name.
    #[error("does not exist")]
    Missing,
    /// All blocks of status indices are in use.
    #[error("no status indices left")]
    NoBlocks,
    /// A random value could not be drawn.
    #[error(transparent)]
    Entropy(#[from] crate::clock::EntropyError),
    /// A credential could not be written to its file.
    #[error(transparent)]
    File(#[from] crate::keys::KeyError),
}

impl Store {
    /// The database in this folder, with the schema of this version.
    ///
    /// # Errors
    /// [`StoreError::Open`] and [`StoreError::Schema`].
    pub async fn open(data_dir: &Path) -> Result<Self, StoreError> {
        let path = data_dir.join(DATABASE_FILE);
        // SQLite would make it, and the log beside it, readable by all; there are password hashes in it.
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| StoreError::Open { path: path.clone(), error: error.into() })?;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT)
            .foreign_keys(true);
        let opened = |error| StoreError::Open { path: path.clone(), error };
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options.clone())
            .await
            .map_err(opened)?;
        sqlx::migrate!("./migrations").run(&writer).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS_MAX)
            .connect_with(options)
            .await
            .map_err(opened)?;
        Ok(Self { writer, readers })
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// [`StoreError::Database`] when it does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1 FROM meta LIMIT 1").fetch_optional(&self.readers).await?;
        Ok(())
    }

    /// Closes the database, so that the last process leaves no write-ahead log behind.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    async fn write(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// A transaction that sees the database as of its first statement.
    async fn read(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        Ok(self.readers.begin().await?)
    }
}

/// SQLite's integers are signed. Counts saturate there, as they do in memory.
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
