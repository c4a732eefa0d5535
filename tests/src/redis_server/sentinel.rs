//! A primary, its replica, and a sentinel that puts the one in the place of the other.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Error, Result, ensure};

use super::{Mode, RedisOptions, RedisServer, until_it_says};
use crate::eventually::eventually;
use crate::evidence::Evidence;

/// What the sentinel calls the primary.
pub const PRIMARY_NAME: &str = "tollgate";

/// A primary with one replica and one sentinel, which decides alone. Dropping it kills them.
#[derive(Debug)]
pub struct RedisSentinel {
    primary: RedisServer,
    replica: RedisServer,
    sentinel: RedisServer,
}

impl RedisSentinel {
    /// Starts the three and waits until the replica has everything and the sentinel knows both.
    ///
    /// # Errors
    /// When one does not start, or they do not find each other in time.
    pub async fn start(evidence: &Arc<Evidence>) -> Result<Self> {
        let started = Self::launch(evidence).await;
        started.inspect_err(|_| evidence.keep())
    }

    async fn launch(evidence: &Arc<Evidence>) -> Result<Self> {
        // A new replica gets everything at once and not after the usual wait for others.
        let options = RedisOptions::default().with("repl-diskless-sync-delay", "0");
        let primary = RedisServer::start_named("redis-primary", options.clone(), evidence).await?;
        let port = primary.addr().port().to_string();
        let options = options.with("replicaof", &format!("127.0.0.1 {port}"));
        let replica = RedisServer::start_named("redis-replica", options, evidence).await?;
        let options = RedisOptions::default()
            .with("sentinel", &format!("monitor {PRIMARY_NAME} 127.0.0.1 {port} 1"))
            .with("sentinel", &format!("down-after-milliseconds {PRIMARY_NAME} 500"))
            .with("sentinel", &format!("failover-timeout {PRIMARY_NAME} 3000"));
        let sentinel =
            RedisServer::start_on_unused_port("redis-sentinel", &options, Mode::Sentinel, evidence).await?;
        let started = Self { primary, replica, sentinel };
        started.find_each_other().await?;
        Ok(started)
    }

    async fn find_each_other(&self) -> Result<()> {
        until_it_says(&self.primary, redis::cmd("INFO").arg("replication"), DEADLINE, |info| {
            info.contains("state=online")
        })
        .await?;
        until_it_says(&self.sentinel, redis::cmd("INFO").arg("sentinel"), DEADLINE, |info| {
            info.contains("status=ok") && info.contains("slaves=1")
        })
        .await
    }

    /// The server that was the primary at the start.
    pub fn primary(&self) -> &RedisServer {
        &self.primary
    }

    /// The server that was the replica at the start.
    pub fn replica(&self) -> &RedisServer {
        &self.replica
    }

    /// The sentinel.
    pub fn sentinel(&self) -> &RedisServer {
        &self.sentinel
    }

    /// Waits until the sentinel names the replica as the primary, and the replica takes writes.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn failed_over(&self) -> Result<()> {
        let mut ask = redis::cmd("SENTINEL");
        ask.arg("GET-MASTER-ADDR-BY-NAME").arg(PRIMARY_NAME);
        eventually("the replica to be the primary", DEADLINE, async || {
            let (host, port): (String, u16) = self.sentinel.command(&ask).await?;
            let named: SocketAddr = format!("{host}:{port}").parse().context("an address")?;
            ensure!(named == self.replica.addr(), "{named}");
            let role: String = self.replica.command(redis::cmd("INFO").arg("replication")).await?;
            ensure!(role.contains("role:master"), "{role}");
            Ok::<_, Error>(())
        })
        .await
    }
}

const DEADLINE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn replica_takes_over_when_the_primary_is_killed() {
        let evidence = Evidence::of_this_test().unwrap();
        let redis = RedisSentinel::start(&evidence).await.unwrap();
        redis.primary().command::<()>(redis::cmd("SET").arg("key").arg("value")).await.unwrap();
        let get = redis::cmd("GET").arg("key").to_owned();
        eventually("the replica to have the key", DEADLINE, async || {
            let value: Option<String> = redis.replica().command(&get).await?;
            ensure!(value.as_deref() == Some("value"), "{value:?}");
            Ok::<_, Error>(())
        })
        .await
        .unwrap();
        redis.primary().kill();
        redis.failed_over().await.unwrap();
        redis.replica().command::<()>(redis::cmd("SET").arg("key").arg("other")).await.unwrap();
    }
}
