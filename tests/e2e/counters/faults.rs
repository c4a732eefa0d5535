//! A Redis that is hung, gone, read-only or full makes logins stricter, never free and never slow; then it is used again.

use std::time::{Duration, Instant};

use tollgate_issuer::breaker::BreakerState;
use tollgate_tests::eventually::eventually;
use tollgate_tests::evidence::Evidence;
use tollgate_tests::redis_server::{RedisOptions, RedisSentinel, RedisServer};

use super::{Replica, sentinel, single};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Hung,
    Killed,
    ReadOnly,
    Full,
}

impl Fault {
    async fn begin(self, server: &RedisServer) {
        match self {
            Self::Hung => server.pause().unwrap(),
            Self::Killed => server.kill(),
            // Of a primary that nobody can reach, so that it keeps what it has.
            Self::ReadOnly => server.replica_of(Some(([127, 0, 0, 1], 1).into())).await.unwrap(),
            Self::Full => {
                server.config_set("maxmemory-policy", "noeviction").await.unwrap();
                server.config_set("maxmemory", "1").await.unwrap();
            }
        }
    }

    async fn end(self, server: &mut RedisServer) {
        match self {
            Self::Hung => server.resume().unwrap(),
            Self::Killed => server.restart().await.unwrap(),
            Self::ReadOnly => server.replica_of(None).await.unwrap(),
            Self::Full => server.config_set("maxmemory", "0").await.unwrap(),
        }
    }
}

/// Logs in as somebody new until Redis answers again.
async fn recovered(replica: &Replica) {
    let mut user = 0;
    eventually("Redis to be used again", Duration::from_secs(20), async || {
        user += 1;
        let before = replica.fallbacks();
        replica.fails(&format!("passer-by{user}")).await;
        let (state, fallbacks) = (replica.redis.state(), replica.fallbacks() - before);
        if (state, fallbacks) == (BreakerState::Closed, 0) {
            Ok(())
        } else {
            Err(format!("{state:?}, {fallbacks} steps made in memory"))
        }
    })
    .await
    .unwrap();
}

#[expect(clippy::disallowed_methods, reason = "how long logins take is what is measured")]
async fn survive(fault: Fault) {
    let evidence = Evidence::of_this_test().unwrap();
    let mut server = RedisServer::start(RedisOptions::default(), &evidence).await.unwrap();
    let replica = Replica::new(&single(&server.url()));
    assert_eq!(replica.guesses("alice").await, 5);
    assert_eq!(replica.fallbacks(), 0);

    fault.begin(&server).await;
    let began = Instant::now();
    for user in 0..50 {
        // A quarter of five is one.
        assert_eq!(replica.guesses(&format!("user{user}")).await, 1, "{fault:?}");
    }
    // A hundred attempts of seven commands and more: were each to wait for its second, this would take minutes.
    let took = began.elapsed();
    assert!(took < Duration::from_secs(20), "{fault:?}: {took:?}");
    println!("{fault:?}: 100 attempts took {took:?}, {} steps were made in memory", replica.fallbacks());
    assert!(replica.fallbacks() > 0, "{fault:?}");
    assert!(replica.metrics.text().unwrap().contains("breaker{store=\"redis\",state=\"open\"}"));

    fault.end(&mut server).await;
    recovered(&replica).await;
    let before = replica.fallbacks();
    // What was counted there before is counted still, unless the server has lost it.
    let expected = if fault == Fault::Killed { 5 } else { 0 };
    assert_eq!(replica.guesses("alice").await, expected, "{fault:?}");
    assert_eq!(replica.guesses("bob").await, 5, "{fault:?}");
    assert_eq!(replica.fallbacks(), before, "{fault:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_redis_makes_logins_stricter_and_not_slow() {
    survive(Fault::Hung).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_redis_makes_logins_stricter_and_not_slow() {
    survive(Fault::Killed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_redis_makes_logins_stricter_and_not_slow() {
    survive(Fault::ReadOnly).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_redis_makes_logins_stricter_and_not_slow() {
    survive(Fault::Full).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_was_never_there_makes_logins_stricter_until_it_comes() {
    let evidence = Evidence::of_this_test().unwrap();
    let mut server = RedisServer::start(RedisOptions::default(), &evidence).await.unwrap();
    server.kill();
    let replica = Replica::new(&single(&server.url()));
    assert_eq!(replica.guesses("alice").await, 1);
    server.restart().await.unwrap();
    recovered(&replica).await;
    assert_eq!(replica.guesses("bob").await, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_loses_no_more_than_it_must_and_the_new_primary_is_found() {
    let evidence = Evidence::of_this_test().unwrap();
    let servers = RedisSentinel::start(&evidence).await.unwrap();
    let replica = Replica::new(&sentinel(&servers.sentinel().url()));
    assert_eq!(replica.guesses("alice").await, 5);
    let written: u64 = servers.primary().command(&redis::cmd("DBSIZE")).await.unwrap();
    eventually("the replica to have all keys", Duration::from_secs(20), async || {
        match servers.replica().command::<u64>(&redis::cmd("DBSIZE")).await {
            Ok(size) if size == written => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
    // What the replica has not seen is lost, as in any failover.
    servers.replica().pause().unwrap();
    assert_eq!(replica.guesses("bob").await, 5);
    servers.primary().kill();
    servers.replica().resume().unwrap();
    assert_eq!(replica.guesses("carol").await, 1, "while there is no primary");
    servers.failed_over().await.unwrap();
    recovered(&replica).await;
    assert!(!replica.fails("alice").await, "a lock that was replicated holds");
    assert!(
        replica.guesses("bob").await <= 5,
        "a lock that was not gives one more round, with its own limit"
    );
    assert_eq!(replica.guesses("dave").await, 5);
}
