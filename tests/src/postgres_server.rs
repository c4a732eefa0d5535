//! Runs PostgreSQL on a database folder of its own.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Error, Result};
use tempfile::TempDir;

use crate::eventually::eventually;
use crate::evidence::Evidence;
use crate::process::Process;
use crate::tools::{installed, run, unused_port};

/// How a server is started.
#[derive(Clone, Debug, Default)]
pub struct PostgresOptions {
    /// Settings as they stand in `postgresql.conf`: `["statement_timeout", "5s"]`.
    pub settings: Vec<(String, String)>,
}

/// A running server. It trusts whoever comes from this machine. Dropping it ends it and removes its folder.
#[derive(Debug)]
pub struct PostgresServer {
    process: Process,
    programs: Programs,
    data: TempDir,
    port: u16,
    name: String,
    options: PostgresOptions,
    evidence: Arc<Evidence>,
}

impl PostgresServer {
    /// Makes a database folder, starts the server on it, and waits until it answers.
    ///
    /// # Errors
    /// When PostgreSQL is not installed, with the command that installs it, or does not answer in time.
    pub async fn start(options: PostgresOptions, evidence: &Arc<Evidence>) -> Result<Self> {
        Self::start_named("postgres", options, evidence).await
    }

    /// The same under another name, for a test that runs several on one folder of evidence.
    ///
    /// # Errors
    /// Those of [`start`](Self::start).
    pub async fn start_named(name: &str, options: PostgresOptions, evidence: &Arc<Evidence>) -> Result<Self> {
        let started = Self::start_on_unused_port(name, options, evidence).await;
        started.inspect_err(|_| evidence.keep())
    }

    async fn start_on_unused_port(
        name: &str,
        options: PostgresOptions,
        evidence: &Arc<Evidence>,
    ) -> Result<Self> {
        let programs = Programs::installed()?;
        // Not in `target`: the server's user may not be allowed to go there.
        let data = TempDir::with_prefix("tollgate-postgres-").context("making a database folder")?;
        let making = (programs.clone(), data.path().to_owned());
        tokio::task::spawn_blocking(move || making.0.make_folder(&making.1)).await??;
        let mut port = unused_port()?;
        let mut process = launch(&programs, data.path(), port, name, &options, evidence).await;
        for _ in 1..PORTS_TRIED {
            match &process {
                Err(error) if format!("{error:#}").contains(PORT_IS_TAKEN) => port = unused_port()?,
                Ok(_) | Err(_) => break,
            }
            process = launch(&programs, data.path(), port, name, &options, evidence).await;
        }
        let (process, name, evidence) = (process?, name.to_owned(), Arc::clone(evidence));
        Ok(Self { process, programs, data, port, name, options, evidence })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// The URL of one of its databases.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@{}/{database}", self.addr())
    }

    /// The process, for logs.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Makes an empty database and gives back its URL.
    ///
    /// # Errors
    /// When there is one of this name.
    pub fn create_database(&self, name: &str) -> Result<String> {
        self.sql("postgres", &format!("CREATE DATABASE \"{name}\""))?;
        Ok(self.url(name))
    }

    /// Runs statements and gives back the rows, one a line, columns with `|` between them.
    ///
    /// # Errors
    /// When one fails.
    pub fn sql(&self, database: &str, statements: &str) -> Result<String> {
        self.programs.sql(&self.url(database), statements)
    }

    /// Stops all its processes in the middle of whatever they do: connections stay open and nothing is said on them.
    ///
    /// # Errors
    /// When it has ended.
    pub fn pause(&self) -> Result<()> {
        // First the one that would start others.
        self.process.signal("STOP")?;
        self.signal_backends("STOP");
        Ok(())
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// When it has ended.
    pub fn resume(&self) -> Result<()> {
        self.signal_backends("CONT");
        self.process.signal("CONT")
    }

    /// Ends it as `pg_ctl stop -m immediate` does: nothing is put in order, the next start has to recover.
    ///
    /// # Errors
    /// When it has ended before, or does not end in time.
    pub async fn stop_immediately(&self) -> Result<()> {
        self.process.signal("QUIT")?;
        self.process.wait_exit(EXIT_DEADLINE).await?;
        Ok(())
    }

    /// Kills all its processes without a warning.
    pub fn kill(&self) {
        let backends = self.backends();
        self.process.kill();
        signal(&backends, "KILL");
    }

    /// Starts it again on the same data and the same port; one that still runs is stopped first.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub async fn restart(&mut self) -> Result<()> {
        if self.process.is_running() {
            self.stop_immediately().await?;
        }
        let (data, name) = (self.data.path(), &self.name);
        let started = launch(&self.programs, data, self.port, name, &self.options, &self.evidence).await;
        self.process = started.inspect_err(|_| self.evidence.keep())?;
        Ok(())
    }

    /// The processes that it started: each is a group of its own, so that none gets a signal through its parent.
    fn backends(&self) -> Vec<String> {
        let id = self.process.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        children.split_whitespace().map(str::to_owned).collect()
    }

    fn signal_backends(&self, name: &str) {
        signal(&self.backends(), name);
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // An orderly end, so that no shared memory is left behind; it cannot hear of it while it is stopped.
        if self.process.is_running() && self.resume().is_ok() {
            self.process.end("QUIT");
        }
    }
}

/// What is gone by now needs no signal.
fn signal(processes: &[String], name: &str) {
    if !processes.is_empty() {
        let mut kill = Command::new("kill");
        kill.arg(format!("-{name}")).args(processes).stderr(Stdio::null()).status().ok();
    }
}

async fn launch(
    programs: &Programs,
    data: &Path,
    port: u16,
    name: &str,
    options: &PostgresOptions,
    evidence: &Evidence,
) -> Result<Process> {
    let port = port.to_string();
    let fixed = [
        ("listen_addresses", "127.0.0.1"),
        ("port", port.as_str()),
        ("unix_socket_directories", ""),
        ("fsync", "on"),
        ("max_connections", "200"),
    ];
    let asked = options.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let settings = fixed.into_iter().chain(asked);
    let settings = settings.flat_map(|(name, value)| ["-c".to_owned(), format!("{name}={value}")]);
    let mut words = vec!["-D".to_owned(), data.display().to_string()];
    words.extend(settings);
    let (program, arguments) = programs.as_server_user(data, "postgres", &words);
    let process = Process::spawn(name, &program, arguments, &[], evidence.folder())?;
    let url = format!("postgres://{USER}@127.0.0.1:{port}/postgres");
    // The inner result ends the wait at once when the process has ended.
    eventually("PostgreSQL to answer", READY_DEADLINE, async || {
        if let Err(ended) = process.ensure_running() {
            return Ok(Err(ended));
        }
        programs.sql(&url, "SELECT 1")?;
        Ok::<_, Error>(Ok(()))
    })
    .await??;
    Ok(process)
}

/// Where PostgreSQL's programs are, and as whom they run.
#[derive(Clone, Debug)]
struct Programs {
    folder: PathBuf,
    /// PostgreSQL refuses to run as root; its package has made this user.
    change_user: Option<PathBuf>,
}

impl Programs {
    fn installed() -> Result<Self> {
        let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let mut folders: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
        folders.sort();
        folders.reverse();
        let server = installed("postgres", &folders, "postgresql")?;
        let folder = server.parent().context("a program is in a folder")?.to_owned();
        let we_are_root = fs::metadata("/proc/self").context("looking at ourselves")?.uid() == 0;
        let change_user = if we_are_root { Some(installed("setpriv", &[], "util-linux")?) } else { None };
        Ok(Self { folder, change_user })
    }

    fn make_folder(&self, data: &Path) -> Result<()> {
        if self.change_user.is_some() {
            run(Command::new("chown").arg(format!("{USER}:")).arg(data))
                .context("the user postgres comes with the package: sudo apt-get install --yes postgresql")?;
        }
        let fixed =
            ["--username", USER, "--auth", "trust", "--encoding", "UTF8", "--locale", "C", "--no-sync"];
        let mut words = vec!["-D".to_owned(), data.display().to_string()];
        words.extend(fixed.map(str::to_owned));
        let (program, arguments) = self.as_server_user(data, "initdb", &words);
        run(Command::new(program).args(arguments)).context("making a database folder")?;
        Ok(())
    }

    fn sql(&self, url: &str, statements: &str) -> Result<String> {
        let mut psql = Command::new(self.folder.join("psql"));
        psql.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set", "ON_ERROR_STOP=1"]);
        psql.args(["--dbname", url, "--command", statements]).env("PGCONNECT_TIMEOUT", "2");
        let output = run(&mut psql)?;
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    /// A command that runs one of the programs, in a folder that its user may look into. Each word of it replaces itself
    /// with the next, so that the process we start is the program in the end.
    fn as_server_user(&self, folder: &Path, program: &str, words: &[String]) -> (PathBuf, Vec<String>) {
        let mut command = vec![format!("--chdir={}", folder.display())];
        if let Some(change_user) = &self.change_user {
            command.push(change_user.display().to_string());
            command.extend(["--reuid", USER, "--regid", USER, "--init-groups", "--"].map(str::to_owned));
        }
        command.push(self.folder.join(program).display().to_string());
        command.extend_from_slice(words);
        (PathBuf::from("/usr/bin/env"), command)
    }
}

const USER: &str = "postgres";
const READY_DEADLINE: Duration = Duration::from_secs(60);
const EXIT_DEADLINE: Duration = Duration::from_secs(30);
const PORTS_TRIED: usize = 5;
const PORT_IS_TAKEN: &str = "Address already in use";

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_committed_survives_a_stop_a_kill_and_a_pause() {
        let evidence = Evidence::of_this_test().unwrap();
        let mut server = PostgresServer::start(PostgresOptions::default(), &evidence).await.unwrap();
        server.create_database("tollgate").unwrap();
        server.sql("tollgate", "CREATE TABLE t (n integer)").unwrap();
        let insert = |server: &PostgresServer, n: u8| {
            server.sql("tollgate", &format!("INSERT INTO t VALUES ({n})")).unwrap();
        };
        insert(&server, 1);
        server.stop_immediately().await.unwrap();
        server.sql("tollgate", "SELECT 1").unwrap_err();
        server.restart().await.unwrap();
        insert(&server, 2);
        server.kill();
        server.restart().await.unwrap();
        insert(&server, 3);
        server.pause().unwrap();
        let hung = format!("{:#}", server.sql("tollgate", "SELECT 1").unwrap_err());
        assert!(hung.contains("timeout"), "{hung}");
        server.resume().unwrap();
        assert_eq!(server.sql("tollgate", "SELECT n FROM t ORDER BY n").unwrap(), "1\n2\n3");
        assert_eq!(server.sql("tollgate", "SHOW fsync").unwrap(), "on");
        let data = server.data.path().to_owned();
        drop(server);
        assert!(!data.exists());
    }
}
