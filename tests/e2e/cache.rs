//! What two replicas keep of the database, with a real Redis between them that may be gone.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use tempfile::TempDir;
use tollgate_issuer::App;
use tollgate_issuer::client::{Client, client_id};
use tollgate_issuer::clock::SystemHost;
use tollgate_issuer::config::{Flags, Settings};
use tollgate_tests::eventually::eventually;
use tollgate_tests::evidence::Evidence;
use tollgate_tests::redis_server::{RedisOptions, RedisServer};

const DEADLINE: Duration = Duration::from_secs(20);

/// A replica that keeps entries for so long that only news or Redis itself can tell it of a change.
async fn replica(folder: &Path, redis: &str, more: &[(&str, &str)]) -> Arc<App> {
    let mut environment: BTreeMap<String, String> = [
        ("REDIS__URL", redis),
        ("REDIS__OPEN_FOR_MS", "100"),
        ("CACHE__MEMORY_SECONDS", "300"),
        ("CACHE__SHARED_SECONDS", "3600"),
    ]
    .iter()
    .chain(more)
    .map(|(name, value)| (format!("TOLLGATE_{name}"), (*value).to_owned()))
    .collect();
    environment.insert("TOLLGATE_DATA_DIR".to_owned(), folder.display().to_string());
    let settings = Settings::load(None, &environment, &Flags::default()).unwrap();
    App::open(settings, Arc::new(SystemHost::new())).await.unwrap()
}

fn client(name: &str) -> Client {
    let id = client_id("app").unwrap();
    Client { id, name: name.to_owned(), ..Client::first_party("free").unwrap() }
}

async fn rename(app: &App, name: &str) {
    app.store.change_client(&client(name), None, "operator", &*app.host).await.unwrap();
}

async fn is_called(app: &App, name: &str) -> Result<()> {
    let found = app.cached_client("app").await?;
    let found = found.map(|client| client.name.clone());
    ensure!(found.as_deref() == Some(name), "{found:?}");
    Ok(())
}

async fn comes_to_be_called(app: &App, name: &str) {
    eventually(name, DEADLINE, async || is_called(app, name).await).await.unwrap();
}

fn reads(app: &App, level: &str, outcome: &str) -> u64 {
    let start = format!(
        "tollgate_issuer_cache_reads_total{{kind=\"client\",level=\"{level}\",outcome=\"{outcome}\"}} "
    );
    let text = app.metrics.text().unwrap();
    text.lines().find_map(|line| line.strip_prefix(&start)?.parse().ok()).unwrap_or_default()
}

/// Until it hears what others tell: its first connection has it read again what it read before.
async fn listens(server: &RedisServer, replicas: usize) {
    eventually("the replicas to listen", DEADLINE, async || {
        let mut command = redis::cmd("PUBSUB");
        command.arg("NUMSUB").arg("tollgate:changes");
        let (_, listening): (String, usize) = server.command(&command).await?;
        ensure!(listening == replicas, "{listening}");
        Ok::<_, anyhow::Error>(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_change_in_one_replica_is_seen_by_the_other_and_read_from_the_database_by_one() {
    let evidence = Evidence::of_this_test().unwrap();
    let server = RedisServer::start(RedisOptions::default(), &evidence).await.unwrap();
    let folder = TempDir::new().unwrap();
    let (one, other) =
        (replica(folder.path(), &server.url(), &[]).await, replica(folder.path(), &server.url(), &[]).await);
    listens(&server, 2).await;
    one.store.add_client(&client("first"), one.host.seconds()).await.unwrap();
    comes_to_be_called(&one, "first").await;
    comes_to_be_called(&other, "first").await;
    for name in ["second", "third", "fourth"] {
        rename(&one, name).await;
        is_called(&one, name).await.unwrap();
        comes_to_be_called(&other, name).await;
    }

    // Whoever is third finds in Redis what the others left.
    eventually("something to be left in Redis", DEADLINE, async || {
        let third = replica(folder.path(), &server.url(), &[]).await;
        is_called(&third, "fourth").await?;
        ensure!(reads(&third, "shared", "hit") == 1 && reads(&third, "database", "hit") == 0);
        Ok::<_, anyhow::Error>(())
    })
    .await
    .unwrap();
    // And nothing of it can be read there.
    let keys: Vec<String> = server.command(redis::cmd("KEYS").arg("tollgate:cache:*")).await.unwrap();
    assert_eq!(keys.len(), 1, "{keys:?}");
    let blob: Vec<u8> = server.command(redis::cmd("GET").arg(&keys[0])).await.unwrap();
    assert!(!blob.windows(6).any(|part| part == b"fourth"));
    let life: i64 = server.command(redis::cmd("PTTL").arg(&keys[0])).await.unwrap();
    assert!((1..=3_600_000).contains(&life), "{life}");
}

#[tokio::test]
async fn what_somebody_else_writes_into_redis_is_not_believed() {
    let evidence = Evidence::of_this_test().unwrap();
    let server = RedisServer::start(RedisOptions::default(), &evidence).await.unwrap();
    let folder = TempDir::new().unwrap();
    let one = replica(folder.path(), &server.url(), &[]).await;
    listens(&server, 1).await;
    one.store.add_client(&client("first"), one.host.seconds()).await.unwrap();
    let key = eventually("an entry", DEADLINE, async || {
        let third = replica(folder.path(), &server.url(), &[]).await;
        is_called(&third, "first").await?;
        let keys: Vec<String> = server.command(redis::cmd("KEYS").arg("tollgate:cache:*")).await?;
        ensure!(keys.len() == 1, "{keys:?}");
        let blob: Vec<u8> = server.command(redis::cmd("GET").arg(&keys[0])).await?;
        ensure!(blob.first() == Some(&1), "a lease");
        Ok::<_, anyhow::Error>(keys[0].clone())
    })
    .await
    .unwrap();
    for forged in [&b""[..], b"{}", b"\x01", &[1; 100]] {
        server.command::<()>(redis::cmd("SET").arg(&key).arg(forged)).await.unwrap();
        let third = replica(folder.path(), &server.url(), &[]).await;
        is_called(&third, "first").await.unwrap();
        assert_eq!((reads(&third, "shared", "hit"), reads(&third, "database", "hit")), (0, 1));
    }
}

#[tokio::test]
async fn without_redis_the_database_answers_and_afterwards_replicas_hear_each_other_again() {
    let evidence = Evidence::of_this_test().unwrap();
    let mut server = RedisServer::start(RedisOptions::default(), &evidence).await.unwrap();
    let folder = TempDir::new().unwrap();
    let (one, other) =
        (replica(folder.path(), &server.url(), &[]).await, replica(folder.path(), &server.url(), &[]).await);
    listens(&server, 2).await;
    one.store.add_client(&client("first"), one.host.seconds()).await.unwrap();
    comes_to_be_called(&one, "first").await;
    comes_to_be_called(&other, "first").await;

    // It hangs: who has nothing in memory waits for one time limit at most, and the database answers.
    server.pause().unwrap();
    rename(&one, "second").await;
    let answered = tokio::time::timeout(Duration::from_secs(5), is_called(&one, "second")).await;
    answered.expect("no answer while Redis hangs").unwrap();
    server.resume().unwrap();
    // The change is told as soon as it can be.
    comes_to_be_called(&other, "second").await;

    // It is gone, and comes back empty: what was told meanwhile was not heard, so everything is read again.
    server.kill();
    rename(&one, "third").await;
    is_called(&one, "third").await.unwrap();
    server.restart().await.unwrap();
    listens(&server, 2).await;
    comes_to_be_called(&other, "third").await;
    rename(&other, "fourth").await;
    comes_to_be_called(&one, "fourth").await;
}

#[tokio::test]
async fn a_full_redis_costs_nothing_but_the_second_level() {
    let evidence = Evidence::of_this_test().unwrap();
    let server = RedisServer::start(RedisOptions::default(), &evidence).await.unwrap();
    server.config_set("maxmemory", "1").await.unwrap();
    let folder = TempDir::new().unwrap();
    let one = replica(folder.path(), &server.url(), &[]).await;
    one.store.add_client(&client("first"), one.host.seconds()).await.unwrap();
    is_called(&one, "first").await.unwrap();
    rename(&one, "second").await;
    is_called(&one, "second").await.unwrap();
}
