//! Runs Redis: one server, a cluster of three, or a primary with a replica and a sentinel.

mod cluster;
mod sentinel;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Error, Result, ensure};
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue};

pub use cluster::RedisCluster;
pub use sentinel::{PRIMARY_NAME, RedisSentinel};

use crate::eventually::eventually;
use crate::evidence::Evidence;
use crate::process::Process;
use crate::tools::{installed, unused_port};

/// How a server is started.
#[derive(Clone, Debug, Default)]
pub struct RedisOptions {
    /// Settings as they stand in `redis.conf`: `["maxmemory", "2mb"]`.
    pub settings: Vec<(String, String)>,
    /// What clients must say.
    pub password: Option<String>,
}

impl RedisOptions {
    /// These and one more setting.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A running server that keeps nothing over a restart. Dropping it kills it.
#[derive(Debug)]
pub struct RedisServer {
    process: Process,
    name: String,
    port: u16,
    options: RedisOptions,
    evidence: Arc<Evidence>,
}

impl RedisServer {
    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// When it is not installed, with the command that installs it, or does not answer in time.
    pub async fn start(options: RedisOptions, evidence: &Arc<Evidence>) -> Result<Self> {
        Self::start_named("redis", options, evidence).await
    }

    /// The same under another name, for a test that runs several on one folder of evidence.
    ///
    /// # Errors
    /// Those of [`start`](Self::start).
    pub async fn start_named(name: &str, options: RedisOptions, evidence: &Arc<Evidence>) -> Result<Self> {
        let started = Self::start_on_unused_port(name, &options, Mode::Data, evidence).await;
        started.inspect_err(|_| evidence.keep())
    }

    async fn start_on_unused_port(
        name: &str,
        options: &RedisOptions,
        mode: Mode,
        evidence: &Arc<Evidence>,
    ) -> Result<Self> {
        let mut port = unused_port()?;
        for _ in 1..PORTS_TRIED {
            match Self::launch(name, port, options, mode, evidence).await {
                Err(error) if format!("{error:#}").contains(PORT_IS_TAKEN) => port = unused_port()?,
                other => return other,
            }
        }
        Self::launch(name, port, options, mode, evidence).await
    }

    async fn launch(
        name: &str,
        port: u16,
        options: &RedisOptions,
        mode: Mode,
        evidence: &Arc<Evidence>,
    ) -> Result<Self> {
        let program = installed("redis-server", &["/usr/bin".into()], "redis-server")?;
        let folder = evidence.file(&format!("{name}-data"));
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        // A file, because a sentinel writes what it learns into its own.
        let file = folder.join("redis.conf");
        fs::write(&file, configuration(port, options, &folder))
            .with_context(|| format!("writing {}", file.display()))?;
        let mut arguments = vec![file.into_os_string()];
        if mode == Mode::Sentinel {
            arguments.push("--sentinel".into());
        }
        let process = Process::spawn(name, &program, arguments, &[], evidence.folder())?;
        let (name, options) = (name.to_owned(), options.clone());
        let server = Self { process, name, port, options, evidence: Arc::clone(evidence) };
        server.answers().await?;
        Ok(server)
    }

    async fn answers(&self) -> Result<()> {
        // The inner result ends the wait at once when the process has ended.
        eventually("Redis to answer", READY_DEADLINE, async || {
            if let Err(ended) = self.process.ensure_running() {
                return Ok(Err(ended));
            }
            let answer: String = self.command(&redis::cmd("PING")).await?;
            ensure!(answer == "PONG", "{answer}");
            Ok::<_, Error>(Ok(()))
        })
        .await?
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// Its URL, with its password.
    pub fn url(&self) -> String {
        match &self.options.password {
            Some(password) => format!("redis://:{password}@{}", self.addr()),
            None => format!("redis://{}", self.addr()),
        }
    }

    /// The process, for signals and logs.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Runs a command on a connection of its own.
    ///
    /// # Errors
    /// When it fails or has no answer within two seconds.
    pub async fn command<T: FromRedisValue>(&self, command: &Cmd) -> Result<T> {
        let limit = Some(COMMAND_DEADLINE);
        let config = AsyncConnectionConfig::new().set_connection_timeout(limit).set_response_timeout(limit);
        let client = Client::open(self.url())?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        Ok(command.query_async(&mut connection).await?)
    }

    /// Changes a setting while it runs.
    ///
    /// # Errors
    /// Those of [`command`](Self::command).
    pub async fn config_set(&self, name: &str, value: &str) -> Result<()> {
        self.command(redis::cmd("CONFIG").arg("SET").arg(name).arg(value)).await
    }

    /// Makes it a replica of another server, which nobody may write to; of none when `None`.
    ///
    /// # Errors
    /// Those of [`command`](Self::command).
    pub async fn replica_of(&self, primary: Option<SocketAddr>) -> Result<()> {
        let mut command = redis::cmd("REPLICAOF");
        match primary {
            Some(primary) => command.arg(primary.ip().to_string()).arg(primary.port()),
            None => command.arg("NO").arg("ONE"),
        };
        self.command(&command).await
    }

    /// Stops it in the middle of whatever it does: it accepts connections and says nothing.
    ///
    /// # Errors
    /// When it has ended.
    pub fn pause(&self) -> Result<()> {
        self.process.signal("STOP")
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When it has ended.
    pub fn resume(&self) -> Result<()> {
        self.process.signal("CONT")
    }

    /// Kills it without a warning.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Starts it again, empty, on the same port; one that still runs is killed first.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub async fn restart(&mut self) -> Result<()> {
        self.process.kill();
        let started = Self::launch(&self.name, self.port, &self.options, Mode::Data, &self.evidence).await;
        *self = started.inspect_err(|_| self.evidence.keep())?;
        Ok(())
    }
}

/// What a server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Data,
    Sentinel,
}

fn configuration(port: u16, options: &RedisOptions, folder: &std::path::Path) -> String {
    let mut lines = vec![
        "bind 127.0.0.1".to_owned(),
        format!("port {port}"),
        format!("dir {:?}", folder.display().to_string()),
        "save \"\"".to_owned(),
        "appendonly no".to_owned(),
        "daemonize no".to_owned(),
    ];
    if let Some(password) = &options.password {
        lines.push(format!("requirepass {password}"));
        lines.push(format!("masterauth {password}"));
    }
    lines.extend(options.settings.iter().map(|(name, value)| format!("{name} {value}")));
    lines.join("\n") + "\n"
}

const READY_DEADLINE: Duration = Duration::from_secs(20);
const COMMAND_DEADLINE: Duration = Duration::from_secs(2);
const PORTS_TRIED: usize = 5;
const PORT_IS_TAKEN: &str = "Address already in use";

/// Waits until a text that a server gives holds what is looked for.
async fn until_it_says(
    server: &RedisServer,
    command: &Cmd,
    deadline: Duration,
    holds: impl Fn(&str) -> bool,
) -> Result<()> {
    eventually(&format!("{} to be ready", server.name), deadline, async || {
        let text: String = server.command(command).await?;
        ensure!(holds(&text), "{text}");
        Ok::<_, Error>(())
    })
    .await
}

/// The folder of a server's files, for what a test wants to look at.
impl RedisServer {
    /// Where it keeps its files.
    pub fn folder(&self) -> PathBuf {
        self.evidence.file(&format!("{}-data", self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn server_can_be_paused_filled_demoted_killed_and_started_again() {
        let evidence = Evidence::of_this_test().unwrap();
        let options = RedisOptions { password: Some("word".to_owned()), ..RedisOptions::default() };
        let mut server = RedisServer::start(options, &evidence).await.unwrap();
        let set = |value: &str| redis::cmd("SET").arg("key").arg(value).to_owned();
        server.command::<()>(&set("a")).await.unwrap();

        server.pause().unwrap();
        server.command::<()>(&set("b")).await.unwrap_err();
        server.resume().unwrap();
        server.command::<()>(&set("c")).await.unwrap();

        server.config_set("maxmemory", "1").await.unwrap();
        let full = format!("{:#}", server.command::<()>(&set("d")).await.unwrap_err());
        assert!(full.contains("OOM") || full.contains("maxmemory"), "{full}");
        server.config_set("maxmemory", "0").await.unwrap();

        server.replica_of(Some(([127, 0, 0, 1], 1).into())).await.unwrap();
        let read_only = format!("{:#}", server.command::<()>(&set("e")).await.unwrap_err());
        assert!(read_only.to_lowercase().contains("readonly"), "{read_only}");
        server.replica_of(None).await.unwrap();
        server.command::<()>(&set("f")).await.unwrap();

        let address = server.addr();
        server.kill();
        server.command::<()>(&set("g")).await.unwrap_err();
        server.restart().await.unwrap();
        assert_eq!(server.addr(), address);
        assert_eq!(server.command::<Option<String>>(redis::cmd("GET").arg("key")).await.unwrap(), None);
    }
}
