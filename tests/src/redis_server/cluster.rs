//! Three primaries that share the slots.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{Mode, RedisOptions, RedisServer, until_it_says};
use crate::evidence::Evidence;
use crate::tools::unused_port;

/// A cluster without replicas. Dropping it kills it.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts `nodes` primaries, gives each its share of the slots, and waits until all of them agree.
    ///
    /// # Errors
    /// When one does not start, or they do not agree in time.
    pub async fn start(nodes: u16, evidence: &Arc<Evidence>) -> Result<Self> {
        let started = Self::launch(nodes, evidence).await;
        started.inspect_err(|_| evidence.keep())
    }

    async fn launch(count: u16, evidence: &Arc<Evidence>) -> Result<Self> {
        let mut nodes = Vec::new();
        for number in 0..count {
            let options = RedisOptions::default()
                .with("cluster-enabled", "yes")
                .with("cluster-port", &unused_port()?.to_string())
                .with("cluster-node-timeout", "2000");
            let name = format!("redis-node-{number}");
            nodes.push(RedisServer::start_on_unused_port(&name, &options, Mode::Data, evidence).await?);
        }
        let cluster = Self { nodes };
        cluster.join(count).await?;
        Ok(cluster)
    }

    async fn join(&self, count: u16) -> Result<()> {
        let first = self.nodes.first().context("a cluster has nodes")?;
        let share = |number: u16| u32::from(number) * SLOTS / u32::from(count);
        for (number, node) in (0..).zip(&self.nodes) {
            let mut slots = redis::cmd("CLUSTER");
            slots.arg("ADDSLOTSRANGE").arg(share(number)).arg(share(number + 1) - 1);
            node.command::<()>(&slots).await?;
            // Nodes that were never told apart would quarrel about it first.
            node.command::<()>(redis::cmd("CLUSTER").arg("SET-CONFIG-EPOCH").arg(number + 1)).await?;
        }
        let (_, bus) =
            first.options.settings.iter().find(|(name, _)| name == "cluster-port").context("a bus port")?;
        for node in self.nodes.iter().skip(1) {
            let mut meet = redis::cmd("CLUSTER");
            meet.arg("MEET").arg("127.0.0.1").arg(first.addr().port()).arg(bus);
            node.command::<()>(&meet).await?;
        }
        let known = format!("cluster_known_nodes:{count}");
        for node in &self.nodes {
            until_it_says(node, redis::cmd("CLUSTER").arg("INFO"), AGREE_DEADLINE, |info| {
                info.contains("cluster_state:ok")
                    && info.contains("cluster_slots_ok:16384")
                    && info.contains(&known)
            })
            .await?;
        }
        Ok(())
    }

    /// The URLs of its nodes.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(RedisServer::url).collect()
    }

    /// Its nodes.
    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }
}

const SLOTS: u32 = 16_384;
const AGREE_DEADLINE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_node_has_some_of_the_keys() {
        let evidence = Evidence::of_this_test().unwrap();
        let cluster = RedisCluster::start(3, &evidence).await.unwrap();
        let client = redis::cluster::ClusterClient::new(cluster.urls()).unwrap();
        let mut connection = client.get_async_connection().await.unwrap();
        for key in 0..100 {
            redis::cmd("SET").arg(key).arg(1).exec_async(&mut connection).await.unwrap();
        }
        for node in cluster.nodes() {
            let size: u64 = node.command(&redis::cmd("DBSIZE")).await.unwrap();
            assert!((10..60).contains(&size), "{size}");
        }
    }
}
