//! Quotas: a batch counts once, and nobody together gets more than the limit.

use std::collections::BTreeMap;

use tollgate_issuer::quota::{Batch, PlanBook, Usage, Wanted};
use tollgate_issuer::store::{AppliedBatch, Store};
use tollgate_shared::id::{EdgeId, IssuerId, PlanName};
use tollgate_shared::quota::allocator::Want;
use tollgate_shared::quota::{Bucket, Plan, Window};
use tollgate_shared::time::UnixMillis;
use tollgate_shared::wire::quota::QuotaAnswer;

use super::on_every_backend;
use super::people::{add_user, new_user};
use crate::stores::backend::{Backend, at_once};

on_every_backend!(
    a_batch_that_comes_ten_times_counts_once,
    leases_of_many_edges_stay_below_the_limit,
    the_plan_is_that_of_the_user_wherever_the_user_is,
);

const ISSUER: &str = "https://issuer.test";

fn plans() -> PlanBook {
    let plan = |name: &str, limit| Plan { name: PlanName::new(name).unwrap(), limit, window_seconds: 60 };
    let plans = vec![plan("free", 100), plan("gold", 10_000)];
    PlanBook::new(IssuerId::new(ISSUER).unwrap(), plans, PlanName::new("free").unwrap())
}

fn bucket(subject: &str) -> Bucket {
    let entries =
        [("issuer", ISSUER), ("subject", subject)].map(|(name, value)| (name.to_owned(), value.to_owned()));
    Bucket::new(BTreeMap::from(entries)).unwrap()
}

fn batch(edge: &str, sequence: u64) -> Batch {
    let edge = EdgeId::new(edge).unwrap();
    Batch {
        edge,
        epoch: "e1".to_owned(),
        sequence,
        usage: Vec::new(),
        returns: Vec::new(),
        wants: Vec::new(),
    }
}

fn wanted(subject: &str, units: u64) -> Wanted {
    Wanted { bucket: bucket(subject), want: Want { units, least: 1 } }
}

async fn apply(store: &Store, batch: &Batch, now: UnixMillis) -> AppliedBatch {
    store.apply_batch(batch, &plans(), now).await.unwrap()
}

async fn a_batch_that_comes_ten_times_counts_once(backend: &Backend) {
    let stores = backend.replicas::<3>().await;
    let now = UnixMillis(backend.now().0 * 1000);
    let user = add_user(backend, &stores[0], "alice").await;
    let window = Window::containing(backend.now(), 60);
    let usage = Usage { bucket: bucket(&user.id), window, allowed: 7, denied: 2 };
    let first = Batch { usage: vec![usage], wants: vec![wanted(&user.id, 10)], ..batch("edge", 1) };
    let applied = at_once(10, |number| {
        let (store, batch) = (stores[number % 3].clone(), first.clone());
        async move { apply(&store, &batch, now).await }
    })
    .await;
    let mut answers = Vec::new();
    let mut new = 0;
    for applied in applied {
        match applied {
            AppliedBatch::New(bytes, _) => {
                new += 1;
                answers.push(bytes);
            }
            AppliedBatch::Repeated(bytes) => answers.push(bytes),
            AppliedBatch::Stale => panic!("it is the last one"),
        }
    }
    assert_eq!(new, 1);
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    assert_eq!(backend.number(0, "SELECT CAST(SUM(allowed) AS BIGINT) FROM quota_accounts").await, 7);
    apply(&stores[0], &batch("edge", 2), now).await;
    assert_eq!(apply(&stores[1], &first, now).await, AppliedBatch::Stale);
}

async fn leases_of_many_edges_stay_below_the_limit(backend: &Backend) {
    let stores = backend.replicas::<3>().await;
    let now = UnixMillis(backend.now().0 * 1000);
    let user = add_user(backend, &stores[0], "alice").await;
    at_once(15, |number| {
        let (store, subject) = (stores[number % 3].clone(), user.id.clone());
        async move {
            for sequence in 1..=6 {
                let wants = vec![wanted(&subject, 30)];
                apply(&store, &Batch { wants, ..batch(&format!("edge-{number}"), sequence) }, now).await;
            }
        }
    })
    .await;
    let granted = backend.number(0, "SELECT CAST(SUM(granted) AS BIGINT) FROM quota_holdings").await;
    assert_eq!(granted, 100, "all of the limit was lent and no unit twice");
    assert_eq!(backend.number(0, "SELECT granted FROM quota_accounts").await, 100);
}

async fn the_plan_is_that_of_the_user_wherever_the_user_is(backend: &Backend) {
    let store = backend.replica().await;
    for number in 0..9 {
        let mut new = new_user(backend, &format!("user-{number}"));
        new.user.plan = "gold".to_owned();
        store.add_user(&new, backend.now()).await.unwrap();
        let wants = vec![wanted(&new.user.id, 10), wanted("u_unknown", 10)];
        let batch = Batch { wants, ..batch("edge", number + 1) };
        let AppliedBatch::New(answer, _) = apply(&store, &batch, UnixMillis(backend.now().0 * 1000)).await
        else {
            panic!("it is new");
        };
        let answer: QuotaAnswer = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer.grants[0].limit, 10_000);
        assert_eq!(answer.grants[1].limit, 100, "who is unknown has the default");
    }
}
