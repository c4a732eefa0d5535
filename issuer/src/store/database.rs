//! Guards one database, SQLite or Postgres: its connections, its locks, how long it may take, and when it is left alone.
//!
//! The SQL of this program is written once. What differs between the two is here: how a transaction gets the lock that
//! orders it among others, and how the schema is brought up to date.

mod postgres;

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::migrate::Migrator;
use sqlx::{Any, AnyPool, Executor as _, Transaction};

use super::StoreError;
use crate::breaker::{BreakerState, SharedBreaker};
use crate::clock::Host;

const READERS_MAX: u32 = 8;
/// How often an operation that lost against a concurrent one is tried again.
const CONFLICTS_MAX: u32 = 8;
/// SQLSTATE of a transaction that could not be put in an order with others, of one that was the victim of a deadlock, and
/// of one whose row was on its way to the rest of a parted table when the part was added that it belongs to.
const CONFLICTS: [&str; 3] = ["40001", "40P01", "23514"];
/// The beginnings of the SQLSTATEs of a server that cannot be worked with: the connection is broken, the server stops or
/// starts, it has no connection to give.
const UNUSABLE: [&str; 3] = ["08", "57P", "53300"];

static SQLITE: Migrator = sqlx::migrate!("./migrations/sqlite");

/// A transaction.
pub(super) type Tx = Transaction<'static, Any>;

/// Which database it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// One file, one writer at a time.
    Sqlite,
    /// A server.
    Postgres,
}

/// What a transaction is alone with until it ends. In SQLite every write is alone anyway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lock<'n> {
    /// The feed's log, whose positions are in the order of commits.
    Feed,
    /// The accounts of quotas.
    Quota,
    /// The facts there is one of, and what is made once.
    Meta,
    /// The signing keys.
    Keys,
    /// The audit log, whose ids are in the order of commits.
    Audit,
    /// What a user has: password, sessions, refresh tokens.
    User(&'n str),
    /// A slot of users, shared with others that use it.
    SlotUse(u8),
    /// A slot of users, to move it.
    SlotMove(u8),
    /// A name, to give it to somebody once.
    Name(&'n str),
}

impl Lock<'_> {
    /// The function of Postgres that waits for it, until the transaction ends.
    fn function(self) -> &'static str {
        match self {
            Self::SlotUse(_) => "pg_advisory_xact_lock_shared",
            Self::Feed
            | Self::Quota
            | Self::Meta
            | Self::Keys
            | Self::Audit
            | Self::User(_)
            | Self::SlotMove(_)
            | Self::Name(_) => "pg_advisory_xact_lock",
        }
    }

    /// The number that stands for it among Postgres's advisory locks.
    fn key(self) -> i64 {
        let (space, name): (&[u8], &[u8]) = match &self {
            Self::Feed => (b"feed", b""),
            Self::Quota => (b"quota", b""),
            Self::Meta => (b"meta", b""),
            Self::Keys => (b"keys", b""),
            Self::Audit => (b"audit", b""),
            Self::User(id) => (b"user", id.as_bytes()),
            Self::SlotUse(slot) | Self::SlotMove(slot) => (b"slot", std::slice::from_ref(slot)),
            Self::Name(name) => (b"name", name.as_bytes()),
        };
        let digest = Sha256::new().chain_update(space).chain_update([0]).chain_update(name).finalize();
        digest.iter().take(8).fold(0, |key, byte| (key << 8) | i64::from(*byte))
    }
}

/// How a database is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatabaseLimits {
    /// Connections to one Postgres at once.
    pub connections_max: u32,
    /// How long one operation may take, waiting for a connection included.
    pub timeout: Duration,
}

/// One database.
#[derive(Debug, Clone)]
pub(super) struct Database {
    /// Its place among the databases; home is 0.
    shard: usize,
    flavour: Flavour,
    /// Whether the schema is known to be of this version; nothing is asked of it before.
    ready: Arc<OnceLock<()>>,
    /// SQLite: one connection. Writers of this process queue here, in order, and not in SQLite's busy loop.
    writer: AnyPool,
    readers: AnyPool,
    limits: DatabaseLimits,
    host: Arc<dyn Host>,
    /// A file in our own folder has none: there is nobody to be left alone.
    breaker: Option<SharedBreaker>,
    /// The id of the last event that this process added to the audit log.
    last_audit_id: Arc<Mutex<Option<String>>>,
}

impl Database {
    /// The database in this file, which is made if it is not there, with the schema of this version.
    pub(super) async fn open_sqlite(
        path: &Path,
        limits: DatabaseLimits,
        host: Arc<dyn Host>,
    ) -> Result<Self, StoreError> {
        let opened = |error| StoreError::Open { place: path.display().to_string(), error };
        // SQLite would make it, and the log beside it, readable by all; there are password hashes in it. One that is there
        // is not opened here: closing it again would drop the locks that this process has on it.
        match OpenOptions::new().create_new(true).append(true).mode(0o600).open(path) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(opened(error.into())),
        }
        let options = sqlite_options(path).map_err(opened)?;
        // Another process that writes is waited for, but not for longer than anybody waits for this one.
        let busy_millis = limits.timeout.as_millis();
        let pool = |connections| {
            // There is no server that could have gone away.
            let options = AnyPoolOptions::new().max_connections(connections).test_before_acquire(false);
            options.after_connect(move |connection, _| {
                Box::pin(async move {
                    let pragmas = format!(
                        "PRAGMA busy_timeout = {busy_millis}; PRAGMA journal_mode = WAL; \
                         PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON"
                    );
                    connection.execute(sqlx::AssertSqlSafe(pragmas)).await.map(|_| ())
                })
            })
        };
        let writer = pool(1).connect_with(options.clone()).await.map_err(opened)?;
        let alone = alone_with(path).await.map_err(|error| opened(error.into()))?;
        SQLITE.run(&writer).await?;
        drop(alone);
        let readers = pool(READERS_MAX).connect_with(options).await.map_err(opened)?;
        let (flavour, ready) = (Flavour::Sqlite, Arc::new(OnceLock::from(())));
        let last_audit_id = Arc::default();
        Ok(Self { shard: 0, flavour, ready, writer, readers, limits, host, breaker: None, last_audit_id })
    }

    /// Does one operation, within the time it may take. One that lost against a concurrent one is done again.
    pub(super) async fn run<T, F>(&self, operation: impl Fn() -> F + Send) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        self.must_be_ready()?;
        let call = match &self.breaker {
            Some(breaker) => {
                Some(breaker.permit(self.host.now().monotonic).map_err(|_| StoreError::Unreachable)?)
            }
            None => None,
        };
        let result = match tokio::time::timeout(self.limits.timeout, tried(operation)).await {
            Ok(result) => result,
            Err(_) => Err(StoreError::Timeout),
        };
        match (call, &result) {
            (Some(call), Err(error)) if is_unusable(error) => call.failed(self.host.now().monotonic),
            (Some(call), _) => call.succeeded(),
            (None, _) => {}
        }
        result
    }

    /// What the breaker does with the next operation. It counts as open before the database is.
    pub(super) fn breaker(&self) -> Option<BreakerState> {
        let breaker = self.breaker.as_ref()?;
        let state = self.must_be_ready().map(|()| breaker.state(self.host.now().monotonic));
        Some(state.unwrap_or(BreakerState::Open))
    }

    fn must_be_ready(&self) -> Result<(), StoreError> {
        self.ready.get().copied().ok_or(StoreError::Unreachable)
    }

    pub(super) fn shard(&self) -> usize {
        self.shard
    }

    /// The id of the last event that this process added to the audit log.
    pub(super) fn last_audit_id(&self) -> Option<String> {
        self.last_audit_id.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_last_audit_id(&self, id: Option<String>) {
        *self.last_audit_id.lock().unwrap_or_else(PoisonError::into_inner) = id;
    }

    /// Whether it is the home database.
    pub(super) fn is_home(&self) -> bool {
        self.shard == 0
    }

    /// A transaction that writes, alone with these until it ends.
    pub(super) async fn write(&self, locks: &[Lock<'_>]) -> Result<Tx, StoreError> {
        self.must_be_ready()?;
        let write = match self.flavour {
            Flavour::Sqlite => self.writer.begin_with("BEGIN IMMEDIATE").await?,
            Flavour::Postgres => {
                let mut write = self.writer.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
                lock_all(&mut write, locks).await?;
                write
            }
        };
        self.host.reached("write.begun");
        Ok(write)
    }

    /// Waits, within a transaction, until it is alone with these.
    pub(super) async fn lock(&self, write: &mut Tx, locks: &[Lock<'_>]) -> Result<(), StoreError> {
        match self.flavour {
            Flavour::Sqlite => Ok(()),
            Flavour::Postgres => lock_all(write, locks).await,
        }
    }

    /// A transaction that sees the database as of its first statement.
    pub(super) async fn read(&self) -> Result<Tx, StoreError> {
        self.must_be_ready()?;
        Ok(match self.flavour {
            Flavour::Sqlite => self.readers.begin().await?,
            Flavour::Postgres => {
                self.readers.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?
            }
        })
    }

    /// For single statements that only read.
    pub(super) fn readers(&self) -> &AnyPool {
        &self.readers
    }

    /// How long one operation may take.
    pub(super) fn timeout(&self) -> Duration {
        self.limits.timeout
    }

    /// How many connections there may be at once.
    pub(super) fn connections_max(&self) -> usize {
        let connections = match self.flavour {
            Flavour::Sqlite => READERS_MAX,
            Flavour::Postgres => self.limits.connections_max,
        };
        usize::try_from(connections).unwrap_or(usize::MAX)
    }

    pub(super) fn flavour(&self) -> Flavour {
        self.flavour
    }

    pub(super) fn host(&self) -> &dyn Host {
        &*self.host
    }

    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        self.run(move || async move {
            sqlx::query("SELECT 1 FROM meta LIMIT 1").fetch_optional(&self.readers).await?;
            Ok(())
        })
        .await
    }

    pub(super) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// Waits until no other process changes the schema of this database: in SQLite nothing else keeps two from doing so.
async fn alone_with(path: &Path) -> io::Result<File> {
    let path = path.with_extension("lock");
    let locked = tokio::task::spawn_blocking(move || {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        file.lock().map(|()| file)
    });
    locked.await.map_err(io::Error::other)?
}

fn sqlite_options(path: &Path) -> Result<AnyConnectOptions, sqlx::Error> {
    sqlx::any::install_default_drivers();
    // As a URL, in which `?`, `#` and `%` of a path would mean something else.
    let absolute = std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
    let mut url = String::from("sqlite://");
    for byte in absolute.as_os_str().as_encoded_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.~".contains(byte) {
            url.push(char::from(*byte));
        } else {
            url.push_str(&format!("%{byte:02X}"));
        }
    }
    url.parse()
}

/// Does an operation until it does not lose against a concurrent one, or has lost too often.
async fn tried<T, F>(operation: impl Fn() -> F + Send) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>> + Send,
{
    let mut tries = 0;
    loop {
        match operation().await {
            Err(StoreError::Database(error)) if tries < CONFLICTS_MAX && is_conflict(&error) => tries += 1,
            result => return result,
        }
    }
}

/// Waits, within a transaction on Postgres, until it is alone with these: one after another, in one round trip.
async fn lock_all(write: &mut Tx, locks: &[Lock<'_>]) -> Result<(), StoreError> {
    if locks.is_empty() {
        return Ok(());
    }
    let call = |(number, lock): (usize, &Lock<'_>)| format!("{}(${})", lock.function(), number + 1);
    let calls: Vec<String> = locks.iter().enumerate().map(call).collect();
    // The functions give nothing that could be read, so it is a query around them that is.
    let statement = format!("SELECT 1 FROM (SELECT {}) AS locked", calls.join(", "));
    let mut query = sqlx::query(sqlx::AssertSqlSafe(statement));
    for lock in locks {
        query = query.bind(lock.key());
    }
    query.execute(&mut **write).await?;
    Ok(())
}

fn is_conflict(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|cause| cause.code());
    code.is_some_and(|code| CONFLICTS.contains(&&*code))
}

/// Whether the database, and not what was asked of it, is at fault.
fn is_unusable(error: &StoreError) -> bool {
    let StoreError::Database(error) = error else { return matches!(error, StoreError::Timeout) };
    is_down(error)
}

fn is_down(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|cause| cause.code());
    let broken = matches!(error, sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::PoolTimedOut);
    broken || code.is_some_and(|code| UNUSABLE.iter().any(|unusable| code.starts_with(unusable)))
}
