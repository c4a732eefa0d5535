//! Replicas share what they count, whatever kind of Redis it is.

use tollgate_issuer::throttle::Outcome;
use tollgate_tests::evidence::Evidence;
use tollgate_tests::redis_server::{RedisCluster, RedisOptions, RedisSentinel, RedisServer};

use super::{Replica, cluster, sentinel, single};

/// Five failures in all lock an account for both replicas, an unlocking holds for both, and nothing was counted elsewhere.
async fn share(redis: &[(&str, String)]) {
    let (one, other) = (Replica::new(redis), Replica::new(redis));
    for user in 0..10 {
        let name = format!("user{user}");
        for replica in [&one, &other, &one, &other, &one] {
            assert!(replica.fails(&name).await);
        }
        assert!(!other.fails(&name).await && !one.fails(&name).await);
        one.throttle.unlock(&name).await.unwrap();
        assert!(other.attempt(&name, Outcome::Succeeded).await);
        assert_eq!(one.guesses(&name).await, 5);
    }
    assert_eq!((one.fallbacks(), other.fallbacks()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_a_single_server() {
    let evidence = Evidence::of_this_test().unwrap();
    let options = RedisOptions { password: Some("word".to_owned()), ..RedisOptions::default() };
    let server = RedisServer::start(options, &evidence).await.unwrap();
    share(&single(&server.url())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_a_cluster() {
    let evidence = Evidence::of_this_test().unwrap();
    let servers = RedisCluster::start(3, &evidence).await.unwrap();
    share(&cluster(&servers.urls())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_the_primary_that_a_sentinel_names() {
    let evidence = Evidence::of_this_test().unwrap();
    let servers = RedisSentinel::start(&evidence).await.unwrap();
    share(&sentinel(&servers.sentinel().url())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_attempts_at_once_on_two_replicas_are_five_guesses() {
    let evidence = Evidence::of_this_test().unwrap();
    let server = RedisServer::start(RedisOptions::default(), &evidence).await.unwrap();
    let redis = single(&server.url());
    let replicas = std::sync::Arc::new([Replica::new(&redis), Replica::new(&redis)]);
    let mut attempts = tokio::task::JoinSet::new();
    for n in 0..50 {
        let replicas = replicas.clone();
        attempts.spawn(async move { replicas[n % 2].fails("alice").await });
    }
    let guesses = attempts.join_all().await.into_iter().filter(|looked_at| *looked_at).count();
    assert_eq!(guesses, 5);
}
