//! The databases that the store's rules are tried on, empty and for one rule alone.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use sqlx::AnyPool;
use sqlx::any::AnyPoolOptions;
use tempfile::TempDir;
use tollgate_issuer::clock::{EntropyError, Host, SystemHost};
use tollgate_issuer::config::SecretUrl;
use tollgate_issuer::store::{DatabaseLimits, Store, StorePlace};
use tollgate_shared::time::{Now, UnixMillis, UnixSeconds};
use tollgate_tests::evidence::Evidence;
use tollgate_tests::postgres_server::{PostgresOptions, PostgresServer};

/// What the store is kept in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A file.
    Sqlite,
    /// One Postgres database.
    Postgres,
    /// Three, with the users spread over all of them.
    Sharded,
}

/// A step to stop at, how to tell that it was reached, and how to be told to go on.
type Halt = (&'static str, SyncSender<()>, Receiver<()>);

/// A date that only a test moves, with the machine's other clock and its random bytes.
#[derive(Debug)]
pub(crate) struct TestHost {
    wall: AtomicU64,
    system: SystemHost,
    stop_at: Mutex<Option<&'static str>>,
    wait_at: Mutex<Option<Halt>>,
}

impl TestHost {
    pub(crate) fn new() -> Arc<Self> {
        let (wall, stop_at, wait_at) =
            (AtomicU64::new(1_800_000_000_000), Mutex::default(), Mutex::default());
        Arc::new(Self { wall, system: SystemHost::new(), stop_at, wait_at })
    }

    pub(crate) fn advance(&self, seconds: u64) {
        self.wall.fetch_add(seconds * 1000, Ordering::SeqCst);
    }

    pub(crate) fn set_back(&self, seconds: u64) {
        self.wall.fetch_sub(seconds * 1000, Ordering::SeqCst);
    }

    /// Whoever reaches this step next ends there.
    pub(crate) fn stop_at(&self, step: &'static str) {
        *self.stop_at.lock().unwrap() = Some(step);
    }
}

impl TestHost {
    /// Whoever reaches this step next says so to the one that is given back, and waits there for a word from the other.
    pub(crate) fn wait_at(&self, step: &'static str) -> (Receiver<()>, SyncSender<()>) {
        let ((say, said), (allow, allowed)) = (sync_channel(1), sync_channel(1));
        *self.wait_at.lock().unwrap() = Some((step, say, allowed));
        (said, allow)
    }
}

impl Host for TestHost {
    fn now(&self) -> Now {
        let wall = UnixMillis(self.wall.load(Ordering::SeqCst));
        Now { wall, monotonic: self.system.now().monotonic }
    }

    fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError> {
        self.system.fill(bytes)
    }

    fn reached(&self, step: &'static str) {
        let stops = {
            let mut stop_at = self.stop_at.lock().unwrap_or_else(PoisonError::into_inner);
            stop_at.take_if(|stop| *stop == step).is_some()
        };
        assert!(!stops, "stopped at {step}");
        let waits = self.wait_at.lock().unwrap().take_if(|(stop, ..)| *stop == step);
        if let Some((_, say, allowed)) = waits {
            say.send(()).unwrap();
            tokio::task::block_in_place(|| allowed.recv().unwrap());
        }
    }
}

/// Databases of one rule.
pub(crate) struct Backend {
    pub(crate) kind: Kind,
    pub(crate) host: Arc<TestHost>,
    pub(crate) place: StorePlace,
    urls: Vec<String>,
    /// Names of the databases, on a server.
    pub(crate) names: Vec<String>,
    pub(crate) server: Option<Arc<PostgresServer>>,
    _folder: TempDir,
}

pub(crate) const LIMITS: DatabaseLimits =
    DatabaseLimits { connections_max: 12, timeout: Duration::from_secs(20) };

impl Backend {
    /// Empty databases.
    pub(crate) async fn empty(kind: Kind) -> Self {
        let folder = TempDir::new().unwrap();
        if kind == Kind::Sqlite {
            let urls = vec![format!("sqlite://{}", folder.path().join("tollgate.sqlite3").display())];
            let (host, place) = (TestHost::new(), StorePlace::Folder(folder.path().to_owned()));
            return Self { kind, host, place, urls, names: Vec::new(), server: None, _folder: folder };
        }
        let backend = Self::named(kind, server().await, &unused_name(), folder);
        for name in &backend.names {
            backend.sql("postgres", &format!("CREATE DATABASE {name}"));
        }
        backend
    }

    /// Databases with this version's schema, the users' slots spread over them.
    pub(crate) async fn new(kind: Kind) -> Self {
        if kind == Kind::Sqlite {
            return Self::empty(kind).await;
        }
        // Made once on each server and copied from then on: the schema takes longer than most rules.
        static MAKING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        let making = MAKING.lock().await;
        let server = server().await;
        let model = format!("model_{kind:?}").to_lowercase();
        let model = Self::named(kind, server.clone(), &model, TempDir::new().unwrap());
        let known = format!("SELECT COUNT(*) FROM pg_database WHERE datname = '{}'", model.names[0]);
        if server.sql("postgres", &known).unwrap() == "0" {
            model.spread().await;
        }
        let backend = Self::named(kind, server, &unused_name(), TempDir::new().unwrap());
        for (name, model) in backend.names.iter().zip(&model.names) {
            backend.sql("postgres", &format!("CREATE DATABASE {name} TEMPLATE {model}"));
        }
        drop(making);
        backend
    }

    fn named(kind: Kind, server: Arc<PostgresServer>, name: &str, folder: TempDir) -> Self {
        let count = if kind == Kind::Sharded { 3 } else { 1 };
        let names: Vec<String> = (0..count).map(|shard| format!("{name}_{shard}")).collect();
        let urls: Vec<String> = names.iter().map(|name| server.url(name)).collect();
        let mut secret = urls.iter().map(|url| SecretUrl::new(url.clone()));
        let place = StorePlace::Postgres { home: secret.next().unwrap(), shards: secret.collect() };
        Self { kind, host: TestHost::new(), place, urls, names, server: Some(server), _folder: folder }
    }

    /// Makes the databases and gives each its share of the slots, as if each had been moved; moves have rules of their own.
    async fn spread(&self) {
        for name in &self.names {
            self.sql("postgres", &format!("CREATE DATABASE {name}"));
        }
        self.replica().await.close().await;
        let shards = self.names.len();
        for (shard, name) in self.names.iter().enumerate() {
            let share = format!("slot % {shards} = {shard}");
            let slots = "SELECT slot FROM (SELECT generate_series(0, 255) AS slot) AS slots";
            self.sql(
                name,
                &format!("DELETE FROM owned_slots; INSERT INTO owned_slots {slots} WHERE {share}"),
            );
            self.sql(&self.names[0], &format!("UPDATE slots SET shard = {shard} WHERE {share}"));
        }
    }

    fn sql(&self, database: &str, statements: &str) -> String {
        self.server.as_ref().unwrap().sql(database, statements).unwrap()
    }

    /// One more process on the same databases.
    pub(crate) async fn replica(&self) -> Store {
        self.replica_within(LIMITS).await
    }

    pub(crate) async fn replica_within(&self, limits: DatabaseLimits) -> Store {
        Store::open(&self.place, limits, self.host.clone()).await.unwrap()
    }

    pub(crate) async fn replicas<const N: usize>(&self) -> [Store; N] {
        let mut stores = Vec::new();
        for _ in 0..N {
            stores.push(self.replica().await);
        }
        stores.try_into().unwrap()
    }

    pub(crate) fn now(&self) -> UnixSeconds {
        self.host.seconds()
    }

    pub(crate) fn shards(&self) -> usize {
        self.urls.len()
    }

    async fn pool(&self, shard: usize) -> AnyPool {
        sqlx::any::install_default_drivers();
        AnyPoolOptions::new().max_connections(1).connect(&self.urls[shard]).await.unwrap()
    }

    /// Runs a statement in one database.
    pub(crate) async fn execute(&self, shard: usize, statement: &str) -> Result<u64, sqlx::Error> {
        let pool = self.pool(shard).await;
        let done = sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned())).execute(&pool).await;
        pool.close().await;
        done.map(|done| done.rows_affected())
    }

    /// A number for each database, added up.
    pub(crate) async fn sum(&self, query: &str) -> i64 {
        let mut sum = 0;
        for shard in 0..self.urls.len() {
            sum += self.number(shard, query).await;
        }
        sum
    }

    /// A number from one database.
    pub(crate) async fn number(&self, shard: usize, query: &str) -> i64 {
        let pool = self.pool(shard).await;
        let number: i64 =
            sqlx::query_scalar(sqlx::AssertSqlSafe(query.to_owned())).fetch_one(&pool).await.unwrap();
        pool.close().await;
        number
    }
}

fn unused_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("t{}", NEXT.fetch_add(1, Ordering::SeqCst))
}

/// The server that all tests of this process share for as long as one of them runs.
async fn server() -> Arc<PostgresServer> {
    static SERVER: tokio::sync::Mutex<Weak<PostgresServer>> = tokio::sync::Mutex::const_new(Weak::new());
    let mut shared = SERVER.lock().await;
    if let Some(server) = shared.upgrade() {
        return server;
    }
    let evidence = Evidence::named("stores").unwrap();
    let server = Arc::new(PostgresServer::start(PostgresOptions::default(), &evidence).await.unwrap());
    *shared = Arc::downgrade(&server);
    server
}

/// Starts so many tasks at once and gives back what each came to, in their order.
pub(crate) async fn at_once<T: Send + 'static, F>(count: usize, task: impl Fn(usize) -> F) -> Vec<T>
where
    F: Future<Output = T> + Send + 'static,
{
    let start = Arc::new(tokio::sync::Barrier::new(count));
    let tasks: Vec<_> = (0..count)
        .map(|number| {
            let (start, task) = (start.clone(), task(number));
            tokio::spawn(async move {
                start.wait().await;
                task.await
            })
        })
        .collect();
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.unwrap());
    }
    results
}
