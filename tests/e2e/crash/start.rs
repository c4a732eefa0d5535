//! Killed while it starts for the first time, or brings the schema of an older release up to date.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha384};
use sqlx::{AnyConnection, Connection as _};
use tokio::process::{Child, Command};
use tokio::time::Instant;
use tollgate_tests::eventually::eventually;
use tollgate_tests::evidence::Evidence;
use tollgate_tests::issuer::{Program, binary_of};
use tollgate_tests::postgres_server::{PostgresOptions, PostgresServer};
use tollgate_tests::workspace_root;

use super::bench::{Backend, Bench, ISSUER, numbers, sqlite_url, variables};

/// Steps of a first start; the others are the beginnings of its transactions.
pub(super) const STEPS: &[&str] = &[
    "secret.before_commit:1",
    "secret.committed:1",
    "secret.before_commit:2",
    "secret.committed:2",
    "operator.file_written",
    "keys.before_commit",
    "keys.committed",
];
/// More than a first start has transactions.
const TRANSACTIONS_MAX: usize = 60;
const SOON: Duration = Duration::from_secs(60);
const MOMENTS: u32 = 20;
const OLD_USERS: i64 = 200;

/// Where first starts leave what they make: a new place for each.
struct Places {
    evidence: Arc<Evidence>,
    postgres: Option<PostgresServer>,
    used: usize,
}

struct Place {
    data: PathBuf,
    variables: Vec<(String, String)>,
    database: String,
}

impl Places {
    async fn new(backend: Backend) -> Self {
        let evidence = Evidence::of_this_test().unwrap();
        let postgres = match backend {
            Backend::Sqlite => None,
            Backend::Postgres => {
                Some(PostgresServer::start(PostgresOptions::default(), &evidence).await.unwrap())
            }
        };
        Self { evidence, postgres, used: 0 }
    }

    fn next(&mut self) -> Place {
        self.used += 1;
        let name = format!("place{}", self.used);
        let data = self.evidence.file(&name);
        let mut variables = variables();
        let database = match &self.postgres {
            None => sqlite_url(&data),
            Some(server) => server.create_database(&name).unwrap(),
        };
        if self.postgres.is_some() {
            variables.push(("TOLLGATE_DATABASE__URL".to_owned(), database.clone()));
        }
        Place { data, variables, database }
    }
}

impl Place {
    fn serve(&self, crash_at: Option<&str>) -> Child {
        let mut command = Command::new(binary_of(&Program::Crashing).unwrap());
        command.args(["serve", "--listen", "127.0.0.1:0", "--issuer", ISSUER, "--data-dir"]).arg(&self.data);
        command.arg("--ready-file").arg(self.ready_file());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.envs(crash_at.map(|step| ("TOLLGATE_CRASH_AT", step)));
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.kill_on_drop(true).spawn().unwrap()
    }

    fn ready_file(&self) -> PathBuf {
        self.data.with_extension("ready.json")
    }

    /// Starts it for the first time, to be killed at this step; `false` when it became ready before.
    async fn is_killed_at(&self, step: &str) -> bool {
        let mut child = self.serve(Some(step));
        let killed = eventually("its end, or that it is ready", SOON, async || {
            match (child.try_wait().unwrap(), self.ready_file().exists()) {
                (Some(_), ready) => Ok(!ready),
                (None, true) => Ok(false),
                (None, false) => Err("it starts"),
            }
        });
        let killed = killed.await.unwrap();
        child.kill().await.unwrap();
        killed
    }

    /// Starts it and kills it at this moment of the time that a start takes.
    async fn kill_after(&self, moment: Duration) {
        let mut child = self.serve(None);
        tokio::time::sleep(moment).await;
        child.kill().await.unwrap();
    }

    async fn time_to_be_ready(&self) -> Duration {
        let started = Instant::now();
        let mut child = self.serve(None);
        eventually("it to be ready", SOON, async || match self.ready_file().exists() {
            true => Ok(()),
            false => Err("it starts"),
        })
        .await
        .unwrap();
        child.kill().await.unwrap();
        started.elapsed()
    }

    /// Starts it as if nothing had happened: it has keys, an operator, and serves.
    async fn check(&self, evidence: &Arc<Evidence>) -> Bench {
        let (variables, database) = (self.variables.clone(), self.database.clone());
        let mut bench = Bench::open(evidence, variables, database, Some(self.data.clone())).await;
        let token = {
            bench.add_user("somebody").await;
            bench.login("somebody").await.access
        };
        let keys = bench.published_keys().await;
        assert!(super::bench::verified(&token, &keys).is_some());
        bench.check_feed(&[token]).await;
        bench
    }
}

async fn a_first_start_is_taken_up_anywhere(backend: Backend) {
    let mut places = Places::new(backend).await;
    let mut transactions = 0;
    for turn in 1..=TRANSACTIONS_MAX {
        let place = places.next();
        if !place.is_killed_at(&format!("write.begun:{turn}")).await {
            break;
        }
        transactions = turn;
        place.check(&places.evidence).await;
    }
    assert!((5..TRANSACTIONS_MAX).contains(&transactions), "{transactions} transactions of a first start");
    for step in STEPS {
        let place = places.next();
        assert!(place.is_killed_at(step).await, "{step} was not reached");
        place.check(&places.evidence).await;
    }
}

/// The schema is made, or brought up to date, in transactions: a kill at any moment leaves the one before or the one after.
async fn a_schema_is_made_at_any_moment(backend: Backend) {
    let mut places = Places::new(backend).await;
    let old = match backend {
        Backend::Sqlite => Some(old_database(&mut places).await),
        Backend::Postgres => None,
    };
    let place = |places: &mut Places| {
        let place = places.next();
        if let Some(old) = &old {
            fs::create_dir_all(&place.data).unwrap();
            fs::copy(old, place.data.join("tollgate.sqlite3")).unwrap();
        }
        place
    };
    let whole = place(&mut places).time_to_be_ready().await;
    for moment in 0..MOMENTS {
        let place = place(&mut places);
        place.kill_after(whole * moment / MOMENTS).await;
        let bench = place.check(&places.evidence).await;
        if old.is_some() {
            for table in ["users", "user_names"] {
                let known = numbers(&place.database, &format!("SELECT COUNT(*) FROM {table}")).await;
                assert_eq!(known, [OLD_USERS + 1], "{table}, killed at {moment} of {MOMENTS}");
            }
            assert_eq!(numbers(&place.database, "SELECT COUNT(*) FROM users WHERE slot = -1").await, [0]);
            bench.login("old7").await;
        }
    }
}

/// A database of the first release with users in it.
async fn old_database(places: &mut Places) -> PathBuf {
    let scratch = places.next();
    let bench = scratch.check(&places.evidence).await;
    bench.add_user("model").await;
    drop(bench);
    let path = places.evidence.file("old.sqlite3");
    let schema = fs::read_to_string(workspace_root().join("issuer/migrations/sqlite/0001_init.sql")).unwrap();
    let checksum: String = Sha384::digest(&schema).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut old = connect(&format!("sqlite://{}?mode=rwc", path.display())).await;
    let statements = format!(
        "{schema};
         CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL,
             installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, success BOOLEAN NOT NULL,
             checksum BLOB NOT NULL, execution_time BIGINT NOT NULL);
         INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES (1, 'init', TRUE, x'{checksum}', 1);
         ATTACH '{}' AS scratch;
         WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {OLD_USERS})
         INSERT INTO users (id, username, password_hash, plan, roles, scopes, created_at)
             SELECT 'u_old' || n, 'old' || n, (SELECT password_hash FROM scratch.users WHERE username = 'model'),
                    'free', '[]', '[\"read\"]', 1 FROM numbers",
        scratch.data.join("tollgate.sqlite3").display()
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(statements)).execute(&mut old).await.unwrap();
    old.close().await.unwrap();
    path
}

async fn connect(url: &str) -> AnyConnection {
    sqlx::any::install_default_drivers();
    AnyConnection::connect(url).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_is_taken_up_anywhere_on_sqlite() {
    a_first_start_is_taken_up_anywhere(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_is_taken_up_anywhere_on_postgres() {
    a_first_start_is_taken_up_anywhere(Backend::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_is_made_at_any_moment_on_sqlite() {
    a_schema_is_made_at_any_moment(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_is_made_at_any_moment_on_postgres() {
    a_schema_is_made_at_any_moment(Backend::Postgres).await;
}
