//! What one replica announces the others hear, also after the server was away.

use std::time::Duration;

use tokio::sync::watch;
use tollgate_shared::revocation::Position;
use tollgate_tests::eventually::eventually;
use tollgate_tests::evidence::Evidence;
use tollgate_tests::redis_server::{RedisCluster, RedisOptions, RedisServer};

use super::{Replica, cluster, single};

/// Announces a position until it is heard: who is not connected yet hears nothing.
async fn hears(teller: &Replica, positions: &mut watch::Receiver<Position>, position: u64) {
    eventually("the position to be heard", Duration::from_secs(20), async || {
        // It may be left alone for a while after a fault.
        let told = teller.redis.announce(Position(position)).await;
        let heard =
            tokio::time::timeout(Duration::from_millis(50), positions.wait_for(|heard| heard.0 == position));
        match heard.await {
            Ok(heard) => heard.map(|_| ()).map_err(|error| error.to_string()),
            Err(_) => Err(format!("silence; it was told: {told:?}")),
        }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_are_heard_before_and_after_the_server_was_away() {
    let evidence = Evidence::of_this_test().unwrap();
    let mut server = RedisServer::start(RedisOptions::default(), &evidence).await.unwrap();
    let (teller, listener) = (Replica::new(&single(&server.url())), Replica::new(&single(&server.url())));
    let news = listener.redis.listen();
    let mut positions = news.positions();
    hears(&teller, &mut positions, 41).await;
    hears(&teller, &mut positions, 42).await;
    server.restart().await.unwrap();
    // A new connection counts as news, because something may have been missed.
    tokio::time::timeout(Duration::from_secs(20), positions.changed()).await.unwrap().unwrap();
    assert_eq!(*positions.borrow_and_update(), Position(42));
    hears(&teller, &mut positions, 43).await;
    drop(news);
    positions.changed().await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hung_is_heard_again() {
    let evidence = Evidence::of_this_test().unwrap();
    let server = RedisServer::start(RedisOptions::default(), &evidence).await.unwrap();
    let (teller, listener) = (Replica::new(&single(&server.url())), Replica::new(&single(&server.url())));
    let news = listener.redis.listen();
    let mut positions = news.positions();
    hears(&teller, &mut positions, 1).await;
    server.pause().unwrap();
    teller.redis.announce(Position(2)).await.unwrap_err();
    server.resume().unwrap();
    hears(&teller, &mut positions, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_of_a_cluster_tells_what_any_was_told() {
    let evidence = Evidence::of_this_test().unwrap();
    let servers = RedisCluster::start(3, &evidence).await.unwrap();
    let teller = Replica::new(&cluster(&servers.urls()));
    for node in servers.nodes() {
        let listener = Replica::new(&cluster(&[node.url()]));
        let news = listener.redis.listen();
        hears(&teller, &mut news.positions(), 7).await;
    }
}
