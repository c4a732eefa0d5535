//! Keeps one connection to each server in use, and opens another after a failure.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use redis::aio::{ConnectionLike, MultiplexedConnection, PubSub};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType};
use redis::{AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, TlsMode, Value};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::{RedisError, lacks_script};
use crate::config::RedisServers;

/// The part of the time limit after which a server that was not reached is given up.
const CONNECT_SHARE: f64 = 0.9;

/// The way to the servers.
pub(super) struct Link {
    servers: RedisServers,
    limit: Duration,
    open: Mutex<Open>,
    /// Which of several servers is asked first; the next one after each failure.
    first: AtomicUsize,
}

#[derive(Default)]
struct Open {
    connection: Option<Connection>,
    /// Counts connections, so that one that failed is not taken for its successor.
    number: u64,
}

#[derive(Clone)]
enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl fmt::Debug for Link {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Link({})", self.servers.mode())
    }
}

impl Link {
    pub(super) fn new(servers: RedisServers, limit: Duration) -> Self {
        // Which cryptography TLS uses is one choice for a process; whoever made it before has made it.
        rustls::crypto::aws_lc_rs::default_provider().install_default().unwrap_or_default();
        Self { servers, limit, open: Mutex::default(), first: AtomicUsize::new(0) }
    }

    /// Sends a command and waits for its answer, each for the time limit at most.
    pub(super) async fn ask(&self, command: &Cmd) -> Result<Value, RedisError> {
        let (mut connection, number) =
            timeout(self.limit, self.connection()).await.map_err(|_| RedisError::Timeout)??;
        let asked = match &mut connection {
            Connection::One(one) => timeout(self.limit, one.req_packed_command(command)).await,
            Connection::Cluster(cluster) => timeout(self.limit, cluster.req_packed_command(command)).await,
        };
        let result = match asked {
            // A refusal comes as a value, too.
            Ok(answer) => answer.and_then(Value::extract_error).map_err(RedisError::Server),
            Err(_) => Err(RedisError::Timeout),
        };
        match &result {
            Ok(_) => {}
            Err(RedisError::Server(error)) if lacks_script(error) => {}
            // Also when it only refused: a primary that became a replica says so, and is to be looked for again.
            Err(_) => self.forget(number).await,
        }
        result
    }

    async fn connection(&self) -> Result<(Connection, u64), RedisError> {
        // Whoever is first connects, and the others wait for that.
        let mut open = self.open.lock().await;
        if let Some(connection) = &open.connection {
            return Ok((connection.clone(), open.number));
        }
        // In a box: connecting is rare, and its type too large for what waits for it to carry. And not for the whole of the
        // caller's time: whoever gives up on a server that hangs has the next one asked.
        let connecting: BoxFuture<'_, _> = Box::pin(self.connect());
        let connected = timeout(self.limit.mul_f64(CONNECT_SHARE), connecting).await;
        let connected = connected.unwrap_or(Err(RedisError::Timeout));
        let connection = connected.inspect_err(|_| self.next_server())?;
        open.number = open.number.wrapping_add(1);
        open.connection = Some(connection.clone());
        Ok((connection, open.number))
    }

    async fn forget(&self, number: u64) {
        let mut open = self.open.lock().await;
        if open.number == number {
            open.connection = None;
            self.next_server();
        }
    }

    fn next_server(&self) {
        self.first.fetch_add(1, Ordering::Relaxed);
    }

    async fn connect(&self) -> Result<Connection, RedisError> {
        let nodes = match &self.servers {
            RedisServers::Cluster(nodes) => nodes,
            RedisServers::Single(_) | RedisServers::Sentinel { .. } => {
                let client = self.primary().await?;
                let config = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(self.limit))
                    .set_response_timeout(Some(self.limit));
                let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
                return Ok(Connection::One(connection));
            }
        };
        // A redirection counts as a retry; a failure is the breaker's, not to be tried again here.
        let client = ClusterClientBuilder::new(self.in_turn(nodes))
            .retries(CLUSTER_REDIRECTIONS)
            .min_retry_wait(1)
            .max_retry_wait(CLUSTER_WAIT_MS)
            .connection_timeout(self.limit)
            .response_timeout(self.limit)
            .build()?;
        Ok(Connection::Cluster(client.get_async_connection().await?))
    }

    /// A connection that hears what is published. In a cluster every node tells all.
    pub(super) async fn subscriber(&self) -> Result<PubSub, RedisError> {
        let connected = async {
            let client = match &self.servers {
                RedisServers::Single(_) | RedisServers::Sentinel { .. } => self.primary().await?,
                RedisServers::Cluster(nodes) => {
                    let node = self.in_turn(nodes).into_iter().next();
                    Client::open(node.ok_or(RedisError::Answer)?)?
                }
            };
            Ok(client.get_async_pubsub().await?)
        };
        let result = timeout(self.limit, connected).await.unwrap_or(Err(RedisError::Timeout));
        result.inspect_err(|_| self.next_server())
    }

    async fn primary(&self) -> Result<Client, RedisError> {
        match &self.servers {
            RedisServers::Single(server) => Ok(Client::open(server.clone())?),
            RedisServers::Sentinel { sentinels, service, primary } => {
                let mut info = SentinelNodeConnectionInfo::default()
                    .set_redis_connection_info(primary.redis_settings().clone());
                if matches!(primary.addr(), ConnectionAddr::TcpTls { .. }) {
                    info = info.set_tls_mode(TlsMode::Secure);
                }
                let kind = SentinelServerType::Master;
                let mut client = SentinelClient::build(self.in_turn(sentinels), service, Some(info), kind)?;
                Ok(client.async_get_client().await?)
            }
            RedisServers::Cluster(_) => Err(RedisError::Answer),
        }
    }

    /// The servers, another one first after each failure.
    fn in_turn(&self, servers: &[ConnectionInfo]) -> Vec<ConnectionInfo> {
        let first = self.first.load(Ordering::Relaxed).checked_rem(servers.len()).unwrap_or_default();
        let (before, after) = servers.split_at_checked(first).unwrap_or((&[], servers));
        after.iter().chain(before).cloned().collect()
    }

    pub(super) fn limit(&self) -> Duration {
        self.limit
    }
}

const CLUSTER_REDIRECTIONS: u32 = 3;
const CLUSTER_WAIT_MS: u64 = 20;
