//! What becomes of the store, and of the issuer that uses it, when Postgres stops, hangs, starts again or drops connections.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tollgate_issuer::breaker::BreakerState;
use tollgate_issuer::clock::Host as _;
use tollgate_issuer::config::SecretUrl;
use tollgate_issuer::store::{DatabaseLimits, SlotMove, Store, StoreError, StorePlace};
use tollgate_tests::client::Client;
use tollgate_tests::eventually::eventually;
use tollgate_tests::evidence::Evidence;
use tollgate_tests::issuer::{Issuer, IssuerOptions};
use tollgate_tests::postgres_server::{PostgresOptions, PostgresServer};

use super::backend::{Backend, Kind, TestHost, at_once};

const LIMITS: DatabaseLimits = DatabaseLimits { connections_max: 4, timeout: Duration::from_millis(1_000) };
/// What an answer may take beyond the limit, on a machine that is busy.
const MARGIN: Duration = Duration::from_millis(1_500);
const BACK_AGAIN: Duration = Duration::from_secs(20);

fn observed(fault: &str, observed: &str) {
    println!("| {fault} | {observed} |");
}

async fn server(settings: &[(&str, &str)], evidence: &Arc<Evidence>) -> (PostgresServer, StorePlace) {
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let server = PostgresServer::start(PostgresOptions { settings }, evidence).await.unwrap();
    let home = SecretUrl::new(server.create_database("tollgate").unwrap());
    (server, StorePlace::Postgres { home, shards: Vec::new() })
}

/// Does so many operations at once, one after the other in each task, and gives back the longest and how many failed.
async fn operations(store: &Store, tasks: usize, each: usize) -> (Duration, usize) {
    let results = at_once(tasks, |_| {
        let store = store.clone();
        async move {
            let (mut longest, mut failed) = (Duration::ZERO, 0);
            for _ in 0..each {
                let began = Instant::now();
                failed += usize::from(store.user_named("alice").await.is_err());
                longest = longest.max(began.elapsed());
            }
            (longest, failed)
        }
    })
    .await;
    let longest = results.iter().map(|(longest, _)| *longest).max().unwrap();
    (longest, results.iter().map(|(_, failed)| failed).sum())
}

async fn works_again(store: &Store) -> Duration {
    let began = Instant::now();
    eventually("the store to work again", BACK_AGAIN, async || store.ping().await).await.unwrap();
    eventually("the breaker to close", BACK_AGAIN, async || {
        store.ping().await.map_err(|error| error.to_string())?;
        let states = store.breakers();
        let closed = states.iter().all(|(_, state)| *state == BreakerState::Closed);
        if closed { Ok(()) } else { Err(format!("{states:?}")) }
    })
    .await
    .unwrap();
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_hangs_fails_in_time_and_the_pool_recovers() {
    let evidence = Evidence::of_this_test().unwrap();
    let (server, place) = server(&[], &evidence).await;
    let store = Store::open(&place, LIMITS, TestHost::new()).await.unwrap();
    assert_eq!(operations(&store, 8, 10).await.1, 0);
    server.pause().unwrap();
    let (longest, failed) = operations(&store, 8, 3).await;
    assert_eq!(failed, 24);
    assert!(longest < LIMITS.timeout + MARGIN, "{longest:?}");
    assert!(store.breakers().iter().all(|(name, state)| name == "home" && *state != BreakerState::Closed));
    let began = Instant::now();
    let mut unreachable = false;
    while began.elapsed() < LIMITS.timeout * 2 {
        unreachable |= matches!(store.ping().await, Err(StoreError::Unreachable));
    }
    assert!(unreachable, "most are refused at once");
    server.resume().unwrap();
    let after = works_again(&store).await;
    assert_eq!(operations(&store, 8, 10).await.1, 0, "all connections are good");
    observed(
        "hung (SIGSTOP)",
        &format!("each of 24 operations failed within {longest:?}; good again after {after:?}"),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_stops_or_drops_connections_is_found_again() {
    let evidence = Evidence::of_this_test().unwrap();
    let (mut server, place) = server(&[], &evidence).await;
    let store = Store::open(&place, LIMITS, TestHost::new()).await.unwrap();
    operations(&store, 8, 10).await;
    let terminate = "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid() \
                     AND datname = 'tollgate'";
    let killed = server.sql("tollgate", terminate).unwrap();
    let failed = operations(&store, 8, 5).await.1;
    assert_eq!(failed, 0, "idle connections are tried before they are used");
    observed("killed backends", &format!("{killed} idle ones killed: none of 40 operations after it failed"));
    server.stop_immediately().await.unwrap();
    let (longest, failed) = operations(&store, 8, 3).await;
    assert_eq!(failed, 24);
    assert!(longest < LIMITS.timeout + MARGIN, "{longest:?}");
    assert!(store.breakers().iter().all(|(_, state)| *state != BreakerState::Closed));
    server.restart().await.unwrap();
    let after = works_again(&store).await;
    assert_eq!(operations(&store, 8, 10).await.1, 0);
    observed(
        "stopped (immediate), restarted",
        &format!("24 failed within {longest:?}; good again {after:?} after the start"),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_shard_that_is_away_is_nothing_to_those_who_are_elsewhere() {
    let evidence = Evidence::of_this_test().unwrap();
    let (_home_server, place) = server(&[], &evidence).await;
    let (mut server, shard) = server(&[], &evidence).await;
    let (StorePlace::Postgres { home, .. }, StorePlace::Postgres { home: shard, .. }) = (place, shard) else {
        panic!("both are servers")
    };
    server.stop_immediately().await.unwrap();
    let place = StorePlace::Postgres { home, shards: vec![shard] };
    let host = TestHost::new();
    let store = Store::open(&place, LIMITS, host.clone()).await.unwrap();
    let state = |shard: usize| store.breakers()[shard].1;
    store.ping().await.unwrap();
    assert_eq!((state(0), state(1)), (BreakerState::Closed, BreakerState::Open));
    server.restart().await.unwrap();
    eventually("the shard to be opened", BACK_AGAIN, async || match state(1) {
        BreakerState::Closed => Ok(()),
        other @ (BreakerState::Open | BreakerState::HalfOpen) => Err(format!("{other:?}")),
    })
    .await
    .unwrap();
    store.move_slot(SlotMove { slot: 0, from: 0, to: 1 }).await.unwrap();
    server.stop_immediately().await.unwrap();
    let client = tollgate_issuer::client::Client::first_party("free").unwrap();
    store.ensure_client(&client, host.seconds()).await.unwrap();
    let wished = store.delete_client(client.id.as_str(), None, "test", &*host).await.unwrap();
    assert!(
        store.publish(&wished, &*host).await.unwrap().is_some(),
        "a revocation waits for no other database"
    );
    store.ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn contention_under_serializable_isolation_is_tried_again_until_all_succeed() {
    let evidence = Evidence::of_this_test().unwrap();
    let (_server, place) = server(&[("default_transaction_isolation", "serializable")], &evidence).await;
    let limits = DatabaseLimits { connections_max: 8, timeout: Duration::from_secs(20) };
    let host = TestHost::new();
    let store = Store::open(&place, limits, host.clone()).await.unwrap();
    let now = tollgate_issuer::clock::Host::seconds(&*host);
    let taken = at_once(40, |_| {
        let store = store.clone();
        async move { store.take_block(now, now.plus(60)).await.unwrap().number }
    })
    .await;
    let different: std::collections::BTreeSet<u16> = taken.into_iter().collect();
    assert_eq!(different.len(), 40);
    observed("serializable by default", "40 writers at once: all succeeded, each once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_operation_that_nobody_waits_for_leaves_no_transaction_behind() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let backend = Backend::new(kind).await;
        let limits = DatabaseLimits { connections_max: 4, timeout: Duration::from_secs(20) };
        let store = backend.replica_within(limits).await;
        for polls in 0..60_u32 {
            let now = backend.now();
            let mut operation = Box::pin(store.take_block(now, now.plus(60)));
            // So many steps, and no further.
            for _ in 0..polls % 20 {
                let waited =
                    tokio::time::timeout(Duration::from_micros(u64::from(polls) * 40), &mut operation).await;
                if waited.is_ok() {
                    operation = Box::pin(store.take_block(now, now.plus(60)));
                }
            }
            drop(operation);
        }
        assert_eq!(operations(&store, 8, 5).await.1, 0, "{kind:?}");
        store.take_block(backend.now(), backend.now().plus(60)).await.unwrap();
        if let Some(server) = &backend.server {
            let open = format!(
                "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = '{}' AND state LIKE 'idle in transaction%'",
                backend.names[0]
            );
            eventually("no transaction to be open", BACK_AGAIN, async || {
                let open = server.sql("postgres", &open).unwrap();
                if open == "0" { Ok(()) } else { Err(open) }
            })
            .await
            .unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_decided_is_no_fault_of_the_database() {
    let backend = Backend::new(Kind::Postgres).await;
    let store = backend.replica().await;
    let new = super::contract::new_user(&backend, "alice");
    store.add_user(&new, backend.now()).await.unwrap();
    for _ in 0..20 {
        assert!(matches!(store.add_user(&new, backend.now()).await, Err(StoreError::Exists)));
    }
    assert_eq!(store.breakers(), [("home".to_owned(), BreakerState::Closed)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_login_that_was_answered_is_in_the_database_and_the_issuer_recovers_by_itself() {
    let evidence = Evidence::of_this_test().unwrap();
    let (mut server, _) = server(&[], &evidence).await;
    let options = IssuerOptions::default()
        .with("DATABASE__URL", &server.url("tollgate"))
        .with("DATABASE__TIMEOUT_MS", "1000");
    let issuer = Issuer::start(options, &evidence).await.unwrap();
    issuer.add_user("alice", "correct horse battery", "free", &[], &["read"]).await.unwrap();
    let client = Client::fresh_connections();
    let login = async || {
        let url = format!("{}/v1/login", issuer.base_url());
        let body = serde_json::json!({ "username": "alice", "password": "correct horse battery" });
        let began = Instant::now();
        let answer = client.post(&url).json(&body).send().await.unwrap();
        (answer.status, answer.header("retry-after").is_some(), began.elapsed())
    };
    let mut admitted = 0;
    for fault in ["stopped (immediate)", "hung (SIGSTOP)", "killed backends"] {
        for _ in 0..3 {
            assert_eq!(login().await.0, 200, "before: {fault}");
            admitted += 1;
        }
        match fault {
            "stopped (immediate)" => server.stop_immediately().await.unwrap(),
            "hung (SIGSTOP)" => server.pause().unwrap(),
            _ => {
                let all = "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid() \
                           AND datname = 'tollgate'";
                server.sql("tollgate", all).unwrap();
            }
        }
        let mut longest = Duration::ZERO;
        let mut failed = 0;
        for _ in 0..4 {
            let (status, retry_after, took) = login().await;
            longest = longest.max(took);
            match status {
                200 => admitted += 1,
                503 => failed += 1,
                other => panic!("{fault}: {other}"),
            }
            assert_eq!(retry_after, status == 503, "{fault}");
            let alive = client.get(&format!("{}/livez", issuer.base_url())).send().await.unwrap();
            assert_eq!(alive.status, 200, "{fault}");
        }
        // A login asks the database more than once, each time within the limit.
        assert!(longest < LIMITS.timeout * 3 + MARGIN, "{fault}: {longest:?}");
        match fault {
            "stopped (immediate)" => server.restart().await.unwrap(),
            "hung (SIGSTOP)" => server.resume().unwrap(),
            _ => assert_eq!(failed, 0, "idle connections are tried before they are used"),
        }
        let began = Instant::now();
        eventually("logins", BACK_AGAIN, async || {
            let (status, ..) = login().await;
            if status == 200 { Ok(()) } else { Err(status) }
        })
        .await
        .unwrap();
        admitted += 1;
        let kept: usize = server.sql("tollgate", "SELECT COUNT(*) FROM sessions").unwrap().parse().unwrap();
        assert!(kept >= admitted, "{fault}: {admitted} logins were answered and {kept} sessions are there");
        let after = began.elapsed();
        observed(
            &format!("issuer, {fault}"),
            &format!(
                "{failed} of 4 logins 503 with Retry-After, the longest {longest:?}; /livez 200; good after {after:?}; every 200 has its session"
            ),
        );
    }
    let metrics = issuer.operator("GET", "/metrics").send_ok().await.unwrap();
    assert!(metrics.text().contains("store=\"home\""), "the breaker is in the metrics");
}
