//! Counters of attempts: no step is lost between replicas, whether they count in Redis or in a cluster of it.

use std::sync::Arc;
use std::time::Duration;

use redis::IntoConnectionInfo as _;
use tollgate_issuer::breaker::BreakerSettings;
use tollgate_issuer::config::{RedisServers, RedisSettings};
use tollgate_issuer::metrics::Metrics;
use tollgate_issuer::store::redis::{CounterClock, Redis, RedisCounters};
use tollgate_issuer::throttle::{
    Count, Counters, Crowd, Distinct, Excess, Key, Kind, MemoryCounters, Rate, Turn,
};
use tollgate_tests::evidence::Evidence;
use tollgate_tests::redis_server::{RedisCluster, RedisOptions, RedisServer};

use crate::stores::backend::{TestHost, at_once};

fn key(kind: Kind, number: u8) -> Key {
    Key { kind, digest: [number; 16] }
}

async fn no_attempt_is_lost<C: Counters + 'static>(replicas: Vec<Arc<C>>) {
    let rate = Rate::new(10, 3_600_000, 10);
    for account in 0..3 {
        let allowed = at_once(40, |number| {
            let counters = replicas[number % replicas.len()].clone();
            async move {
                let turn = counters.rate(&key(Kind::AddressRate, account), rate, Count::One).await.unwrap();
                matches!(turn, Turn::Now)
            }
        })
        .await;
        assert_eq!(
            allowed.iter().filter(|allowed| **allowed).count(),
            10,
            "ten of forty, by all replicas together"
        );
    }
    let distinct = Distinct { limit: 5, window_ms: 3_600_000, excess: Excess::Stays };
    let crowds = at_once(20, |number| {
        let counters = replicas[number % replicas.len()].clone();
        let member = [u8::try_from(number % 5).unwrap(); 16];
        async move { counters.distinct(&key(Kind::AddressSeen, 9), distinct, &member).await.unwrap() }
    })
    .await;
    assert!(crowds.iter().all(|crowd| matches!(crowd, Crowd::Few)), "five are five, however often they come");
}

fn counters(servers: RedisServers) -> Vec<Arc<RedisCounters>> {
    let breaker = BreakerSettings { failures_to_open: 5, open_for_ms: 1_000, probes: 1 };
    let settings = RedisSettings { servers, timeout: Duration::from_secs(5), breaker };
    let replica = || {
        let redis = Redis::new(settings.clone(), TestHost::new(), Arc::new(Metrics::default()));
        Arc::new(RedisCounters::new(redis, CounterClock::Server))
    };
    vec![replica(), replica(), replica()]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_attempt_is_lost_in_memory() {
    no_attempt_is_lost(vec![Arc::new(MemoryCounters::new(1_000, TestHost::new()))]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_attempt_is_lost_in_redis() {
    let evidence = Evidence::of_this_test().unwrap();
    let server = RedisServer::start(RedisOptions::default(), &evidence).await.unwrap();
    let info = server.url().into_connection_info().unwrap();
    no_attempt_is_lost(counters(RedisServers::Single(info))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_attempt_is_lost_in_a_redis_cluster() {
    let evidence = Evidence::of_this_test().unwrap();
    let cluster = RedisCluster::start(3, &evidence).await.unwrap();
    let nodes = cluster.urls().into_iter().map(|url| url.into_connection_info().unwrap()).collect();
    no_attempt_is_lost(counters(RedisServers::Cluster(nodes))).await;
}
