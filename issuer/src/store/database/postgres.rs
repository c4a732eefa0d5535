//! Opens a database on a Postgres server: the home one at once, another when its server is there.

use std::sync::Arc;
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{AnyConnection, Connection as _, Executor as _};

use super::super::StoreError;
use super::{Database, DatabaseLimits, Flavour, is_down};
use crate::breaker::{BreakerSettings, SharedBreaker};
use crate::clock::Host;
use crate::config::SecretUrl;

/// When a Postgres is left alone, and how it is tried again.
const BREAKER: BreakerSettings = BreakerSettings { failures_to_open: 5, open_for_ms: 1_000, probes: 2 };
/// How long is waited before a database that was away is tried again.
const OPEN_PAUSE: Duration = Duration::from_secs(1);

static POSTGRES: Migrator = sqlx::migrate!("./migrations/postgres");

impl Database {
    /// The home database at this URL, with the schema of this version.
    pub(in crate::store) async fn open_postgres(
        url: &SecretUrl,
        limits: DatabaseLimits,
        host: Arc<dyn Host>,
    ) -> Result<Self, StoreError> {
        let server = Server::at(url, limits)?;
        server.bring_up_to_date().await?;
        let database = server.database(0, host);
        let _ = database.ready.set(());
        Ok(database)
    }

    /// A database beside the home one. If its server is away, that is no reason not to serve everybody else: it is opened
    /// when it comes back, and until then nothing is asked of it.
    pub(in crate::store) async fn open_shard(
        url: &SecretUrl,
        shard: usize,
        limits: DatabaseLimits,
        host: Arc<dyn Host>,
    ) -> Result<Self, StoreError> {
        let server = Server::at(url, limits)?;
        let database = server.database(shard, host);
        match server.bring_up_to_date().await {
            Ok(()) => {
                let _ = database.ready.set(());
            }
            Err(error) if is_away(&error) => {
                tracing::warn!(shard, %error, "database is away: its users are not served until it is back");
                tokio::spawn(database.clone().opened_later(server));
            }
            Err(error) => return Err(error),
        }
        Ok(database)
    }

    async fn opened_later(self, server: Server) {
        while !self.writer.is_closed() {
            tokio::time::sleep(OPEN_PAUSE).await;
            match server.bring_up_to_date().await {
                Ok(()) => {
                    let _ = self.ready.set(());
                    tracing::info!(shard = self.shard, "database is back");
                    return;
                }
                Err(error) if is_away(&error) => {}
                Err(error) => tracing::error!(shard = self.shard, %error, "database not opened"),
            }
        }
    }
}

/// A Postgres server's database, as it is opened.
struct Server {
    options: AnyConnectOptions,
    /// Its URL without the password.
    place: String,
    limits: DatabaseLimits,
}

impl Server {
    fn at(url: &SecretUrl, limits: DatabaseLimits) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let place = url.to_string();
        match url.expose().parse() {
            Ok(options) => Ok(Self { options, place, limits }),
            Err(error) => Err(StoreError::Open { place, error }),
        }
    }

    /// Makes the schema that of this version: over a connection of its own, on which nothing ends what takes long once, a
    /// change of the schema or the wait for another process that makes it.
    async fn bring_up_to_date(&self) -> Result<(), StoreError> {
        let once = AnyPoolOptions::new().max_connections(1).acquire_timeout(self.limits.timeout);
        let once = once.connect_with(self.options.clone()).await;
        let once = once.map_err(|error| StoreError::Open { place: self.place.clone(), error })?;
        let made = POSTGRES.run(&once).await;
        once.close().await;
        Ok(made?)
    }

    /// The database, not connected to yet.
    fn database(&self, shard: usize, host: Arc<dyn Host>) -> Database {
        let limits = self.limits;
        let millis = limits.timeout.as_millis();
        let pool = AnyPoolOptions::new()
            .max_connections(limits.connections_max)
            .acquire_timeout(limits.timeout)
            // One that comes back in the middle of something is put in order first, and closed if that is not possible in
            // time: or a server that hangs would keep all of them.
            .after_release(move |connection, _| Box::pin(put_in_order(connection, limits.timeout)))
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    // What is acknowledged is on disk, whatever the server's defaults; and nothing waits there for longer
                    // than we wait here.
                    let session = format!(
                        "SET synchronous_commit = on; SET statement_timeout = {millis}; SET lock_timeout = {millis}; \
                         SET idle_in_transaction_session_timeout = {millis}; \
                         SET default_transaction_isolation = 'read committed'"
                    );
                    connection.execute(sqlx::AssertSqlSafe(session)).await.map(|_| ())
                })
            })
            .connect_lazy_with(self.options.clone());
        Database {
            shard,
            flavour: Flavour::Postgres,
            ready: Arc::default(),
            writer: pool.clone(),
            readers: pool,
            limits,
            host,
            breaker: Some(SharedBreaker::new(BREAKER)),
            last_audit_id: Arc::default(),
        }
    }
}

/// Has a connection that is given back end what was left unfinished on it.
async fn put_in_order(connection: &mut AnyConnection, timeout: Duration) -> Result<bool, sqlx::Error> {
    match tokio::time::timeout(timeout, connection.ping()).await {
        Ok(result) => result.map(|()| true),
        Err(_) => Err(sqlx::Error::PoolTimedOut),
    }
}

/// Whether a database that cannot be opened may be there another time.
fn is_away(error: &StoreError) -> bool {
    let (StoreError::Open { error, .. }
    | StoreError::Schema(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _))) = error
    else {
        return false;
    };
    is_down(error)
}
