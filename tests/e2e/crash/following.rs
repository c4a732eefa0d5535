//! Edges that follow while a hundred revoke at once, each commit at a pace of its own, and while the issuer is killed: they end
//! with exactly what the database has.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tollgate_shared::revocation::Position;
use tollgate_tests::client::Client;
use tollgate_tests::issuer::{Issuer, SHARED_ENCRYPTION_KEY};

use super::bench::{Backend, Bench, Edge, values};

const ROUNDS: usize = 5;
const REVOKERS: usize = 100;
const KILLS: usize = 8;
const SOON: Duration = Duration::from_secs(60);

/// Revokes a session of this name; the position, if that was acknowledged.
async fn revoke(client: &Client, url: &str, operator: &str, name: &str) -> Option<u64> {
    let order = json!({ "dimension": "session", "value": name });
    let request = client.post(&format!("{url}/v1/admin/revocations")).bearer(operator).json(&order);
    let answer = request.send().await.ok().filter(|answer| (200..300).contains(&answer.status))?;
    answer.json_at("/position").unwrap().as_u64()
}

/// The sessions that an edge refuses.
fn refused(edge: &Edge) -> BTreeSet<String> {
    edge.state.as_ref().unwrap().revoked.cutoffs.iter().map(|cutoff| cutoff.value).collect()
}

/// Follows until it is told up to where; polls wait for what is new.
async fn follow(mut edge: Edge, mut until: watch::Receiver<Option<u64>>) -> Edge {
    loop {
        let end = *until.borrow_and_update();
        let at = edge.state.as_ref().map(|state| state.position);
        if end.is_some_and(|end| at >= Some(Position(end))) {
            return edge;
        }
        tokio::select! {
            polled = edge.poll(20) => polled.unwrap(),
            // It may have been told while the poll was held.
            _ = until.changed() => {}
        }
    }
}

/// Everything that anybody revokes is in the set of an edge that was there throughout, and nothing else is.
async fn who_follows_throughout_has_the_set_of_the_database(backend: Backend) {
    let further = [
        ("TOLLGATE_DELAY_AT", "feed.before_commit:8"),
        ("TOLLGATE_KEYS__ENCRYPTION_KEY", SHARED_ENCRYPTION_KEY),
    ];
    let bench = Bench::with(backend, 0, &further).await;
    // A file is one process's to serve.
    let other: Option<Issuer> = match backend {
        Backend::Sqlite => None,
        Backend::Postgres => Some(bench.issuer.start_replica("other").await.unwrap()),
    };
    let urls = [Some(bench.issuer.base_url()), other.as_ref().map(Issuer::base_url)];
    let urls: Vec<String> = urls.into_iter().flatten().collect();
    let client = Arc::new(Client::new());
    for round in 0..ROUNDS {
        let (told, until) = watch::channel(None);
        let mut followers = JoinSet::new();
        for number in 0..3 {
            let edge = bench.edge(&format!("edge-{round}-{number}")).await;
            followers.spawn(follow(edge, until.clone()));
        }
        let mut revokers = JoinSet::new();
        for number in 0..REVOKERS {
            let (client, url) = (Arc::clone(&client), urls[number % urls.len()].clone());
            let operator = bench.issuer.operator_token().to_owned();
            let name = format!("s_{round}_{number}");
            revokers
                .spawn(async move { revoke(&client, &url, &operator, &name).await.expect("acknowledged") });
        }
        let last = revokers.join_all().await.into_iter().max();
        told.send_replace(last);
        let followed =
            tokio::time::timeout(SOON, followers.join_all()).await.expect("followers come to the end");
        let log = "SELECT value FROM feed_log WHERE kind = 'cutoff'";
        let kept: BTreeSet<String> = values(bench.database(), log).await.into_iter().collect();
        assert_eq!(kept.len(), (round + 1) * REVOKERS);
        for edge in &followed {
            assert_eq!(refused(edge), kept, "round {round}");
        }
    }
}

/// Killed while many revoke, at no step in particular: what was acknowledged is there, and an edge that was there before is
/// told of it.
async fn what_was_acknowledged_outlives_any_kill(backend: Backend) {
    let mut bench = Bench::with(backend, 0, &[("TOLLGATE_DELAY_AT", "feed.before_commit:8")]).await;
    let mut edge = bench.edge("follower").await;
    edge.poll(0).await.unwrap();
    let mut acknowledged = BTreeSet::new();
    for kill in 0..KILLS {
        let mut revokers = JoinSet::new();
        let (done, mut count) = watch::channel(0);
        for revoker in 0..10 {
            let (url, operator) = (bench.issuer.base_url(), bench.issuer.operator_token().to_owned());
            let done = done.clone();
            revokers.spawn(async move {
                let client = Client::fresh_connections();
                let mut acknowledged = Vec::new();
                for number in 0.. {
                    let name = format!("s_{kill}_{revoker}_{number}");
                    if revoke(&client, &url, &operator, &name).await.is_none() {
                        break;
                    }
                    acknowledged.push(name);
                    done.send_modify(|done| *done += 1);
                }
                acknowledged
            });
        }
        // Right after one of them was acknowledged, another one each time.
        count.wait_for(|done| *done > 3 * kill).await.unwrap();
        bench.issuer.kill();
        acknowledged.extend(revokers.join_all().await.into_iter().flatten());
        bench.issuer.restart().await.unwrap();
        edge.poll(0).await.unwrap();
        let kept: Vec<String> =
            values(bench.database(), "SELECT value FROM feed_log WHERE kind = 'cutoff'").await;
        let kept: BTreeSet<String> = kept.into_iter().collect();
        assert_eq!(refused(&edge), kept, "kill {kill}");
        assert!(acknowledged.is_subset(&kept), "kill {kill}");
        bench.poll().await;
    }
    bench.check_feed(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_throughout_has_the_set_of_the_database_on_sqlite() {
    who_follows_throughout_has_the_set_of_the_database(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_throughout_has_the_set_of_the_database_on_postgres() {
    who_follows_throughout_has_the_set_of_the_database(Backend::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_outlives_any_kill_on_sqlite() {
    what_was_acknowledged_outlives_any_kill(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_outlives_any_kill_on_postgres() {
    what_was_acknowledged_outlives_any_kill(Backend::Postgres).await;
}
