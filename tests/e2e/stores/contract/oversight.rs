//! What others than edges see of revocations, and what edges say of themselves.

use tollgate_issuer::breaker::BreakerState;
use tollgate_issuer::heartbeats::Heartbeat;
use tollgate_issuer::propagation::InstanceKey;
use tollgate_issuer::store::{RevocationOrder, RevocationQuery, RevokedValue, Role, StoreError};
use tollgate_shared::revocation::{Dimension, Epoch, Position, RETENTION_SECONDS, StatusIndex};
use tollgate_shared::time::{UnixMillis, UnixSeconds};

use super::feed::told;
use super::on_every_backend;
use super::people::{add_user, change, cut_off};
use crate::stores::backend::Backend;

on_every_backend!(
    a_list_has_what_was_revoked_in_it,
    revocations_are_listed_and_searched,
    a_cut_off_by_a_past_date_weakens_none,
    of_two_heartbeats_the_later_is_kept,
    who_has_a_role_that_permits_less_is_cut_off,
);

async fn a_list_has_what_was_revoked_in_it(backend: &Backend) {
    let store = backend.replica().await;
    assert_eq!(store.revoked_in_list(0).await.unwrap(), None);
    assert_eq!(store.status_list_count().await.unwrap(), 0);
    let end = backend.now().plus(3_600);
    for number in 0..17 {
        assert_eq!(store.take_block(backend.now(), end).await.unwrap().number, number);
    }
    for (list, place) in [(0, 70_000), (1, 9), (0, 3)] {
        let order = RevocationOrder::Index(StatusIndex::in_list(list, place).unwrap());
        store.revoke(&order, None, "client app", &*backend.host).await.unwrap();
    }
    assert_eq!(store.revoked_in_list(0).await.unwrap(), Some(vec![3, 70_000]));
    assert_eq!(store.revoked_in_list(1).await.unwrap(), Some(vec![9]));
    assert_eq!(store.revoked_in_list(2).await.unwrap(), None);
    assert_eq!(store.revoked_in_list(u32::MAX).await.unwrap(), None);
    assert_eq!(store.status_list_count().await.unwrap(), 2);
    assert_eq!(store.status_lists(backend.now()).await.unwrap(), [0, 1]);
    assert!(store.status_lists(end.plus(RETENTION_SECONDS + 1)).await.unwrap().is_empty());
}

async fn revocations_are_listed_and_searched(backend: &Backend) {
    let store = backend.replica().await;
    store.take_block(backend.now(), backend.now().plus(3_600)).await.unwrap();
    let value = |dimension, issuer: Option<&str>, value: &str| RevocationOrder::Value {
        dimension,
        issuer: issuer.map(str::to_owned),
        value: value.to_owned(),
    };
    for (order, actor) in [
        (value(Dimension::Session, None, "s_1"), "operator one"),
        (RevocationOrder::Index(StatusIndex(5)), "client app"),
        (value(Dimension::Token, Some("https://other.test"), "0/5"), "operator one"),
        (value(Dimension::Key, None, "k_1"), "operator two"),
    ] {
        store.revoke(&order, Some("why"), actor, &*backend.host).await.unwrap();
        backend.host.advance(10);
    }
    let found = async |query: RevocationQuery| {
        let found = store.revocations(&query, 10).await.unwrap();
        found.into_iter().map(|found| found.position.0).collect::<Vec<_>>()
    };
    let none = RevocationQuery::default;
    let text = |text: &str| Some(text.to_owned());
    let now = backend.now();
    assert_eq!(found(none()).await, [1, 2, 3, 4]);
    assert_eq!(found(RevocationQuery { dimension: Some(Dimension::Token), ..none() }).await, [2, 3]);
    assert_eq!(found(RevocationQuery { value: text("s_1"), ..none() }).await, [1]);
    assert_eq!(found(RevocationQuery { value: text("0/5"), ..none() }).await, [2, 3]);
    assert_eq!(found(RevocationQuery { value: text("0/6"), ..none() }).await, Vec::<u64>::new());
    assert_eq!(found(RevocationQuery { actor: text("operator one"), ..none() }).await, [1, 3]);
    let (since, until) = (Some(now.minus(30)), Some(now.minus(20)));
    assert_eq!(found(RevocationQuery { since, until, ..none() }).await, [2, 3]);
    assert_eq!(found(RevocationQuery { after: Some(Position(2)), ..none() }).await, [3, 4]);
    let record = store.revocations(&none(), 2).await.unwrap().pop().unwrap();
    assert_eq!((record.dimension, record.value), (Dimension::Token, RevokedValue::Index(StatusIndex(5))));
    assert_eq!((record.reason.as_deref(), record.actor.as_str()), (Some("why"), "client app"));
}

async fn a_cut_off_by_a_past_date_weakens_none(backend: &Backend) {
    let store = backend.replica().await;
    let earlier = |issued_before: UnixSeconds| RevocationOrder::Earlier {
        dimension: Dimension::Subject,
        issuer: None,
        value: "u_1".to_owned(),
        issued_before,
    };
    let whole =
        RevocationOrder::Value { dimension: Dimension::Subject, issuer: None, value: "u_1".to_owned() };
    let (now, host) = (backend.now(), &*backend.host);
    store.revoke(&earlier(now.minus(100)), None, "operator test", host).await.unwrap();
    let cut = cut_off(&store, "u_1").await;
    assert_eq!((cut.issued_before, cut.began_before), (Some(now.minus(100)), Some(now.minus(100))));
    store.revoke(&whole, None, "operator test", host).await.unwrap();
    let cut = cut_off(&store, "u_1").await;
    assert!(cut.issued_before > Some(now));
    store.revoke(&earlier(now.minus(50)), None, "operator test", host).await.unwrap();
    assert_eq!(cut_off(&store, "u_1").await, cut);
    let told = told(&store).await.cutoffs;
    let dates: Vec<_> = told.iter().map(|cutoff| cutoff.issued_before.unwrap()).collect();
    assert_eq!((dates.len(), dates[0], dates[2]), (3, now.minus(100), now.minus(50)));
}

async fn of_two_heartbeats_the_later_is_kept(backend: &Backend) {
    let stores = backend.replicas::<2>().await;
    let who = |instance: &str| InstanceKey { edge: "eu-1".to_owned(), instance: instance.to_owned() };
    let beat = |seen_at: u64, enforced: Option<u64>| Heartbeat {
        host: "envoy".to_owned(),
        version: "0.1.0".to_owned(),
        workers: 2,
        epoch: enforced.map(|_| Epoch([7; 16])),
        position: enforced.map(Position),
        enforced: enforced.map(Position),
        enforced_at: UnixMillis(seen_at - 1),
        state_as_of: enforced.map(UnixMillis),
        issuer_state: BreakerState::HalfOpen,
        seen_at: UnixMillis(seen_at),
    };
    stores[0]
        .keep_heartbeats(&[(who("a"), beat(2_000, Some(5))), (who("b"), beat(1_000, None))], 2)
        .await
        .unwrap();
    stores[1].keep_heartbeats(&[(who("a"), beat(1_500, Some(4)))], 2).await.unwrap();
    let mut kept = stores[1].heartbeats(UnixMillis(0)).await.unwrap();
    kept.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(kept, [(who("a"), beat(2_000, Some(5))), (who("b"), beat(1_000, None))]);
    stores[1].keep_heartbeats(&[(who("c"), beat(3_000, None))], 2).await.unwrap();
    let mut kept: Vec<_> =
        stores[0].heartbeats(UnixMillis(0)).await.unwrap().into_iter().map(|(who, _)| who).collect();
    kept.sort();
    assert_eq!(kept, [who("a"), who("c")], "the one heard of longest ago went");
    assert_eq!(stores[0].heartbeats(UnixMillis(2_000)).await.unwrap().len(), 1);
    assert_eq!(stores[0].prune_heartbeats(UnixSeconds(86_403)).await.unwrap(), 1);
}

async fn who_has_a_role_that_permits_less_is_cut_off(backend: &Backend) {
    let store = backend.replica().await;
    let (host, by) = (&*backend.host, ("operator test", "https://issuer.test"));
    let role = |permissions: &[&str]| Role {
        name: "writer".to_owned(),
        permissions: permissions.iter().map(|name| (*name).to_owned()).collect(),
        description: String::new(),
    };
    store.add_role(&role(&["read", "write"]), backend.now()).await.unwrap();
    // In all databases there are.
    let mut holders = Vec::new();
    for number in 0..12 {
        let mut user = add_user(backend, &store, &format!("user-{number}")).await;
        if number % 2 == 0 {
            holders.push(user.id);
        } else {
            user.roles = vec!["Writer".to_owned(), "writers".to_owned()];
            store.change_user(&change(&user), host).await.unwrap();
        }
    }
    store.publish_outbox(host).await.unwrap();
    let before = store.position().await.unwrap();
    let (_, wished) = store.change_role(&role(&["read", "write", "list"]), None, by, host).await.unwrap();
    assert_eq!(store.publish(&wished, host).await.unwrap(), None);
    let (_, wished) = store.change_role(&role(&["read"]), None, by, host).await.unwrap();
    store.publish(&wished, host).await.unwrap();
    let query = RevocationQuery { after: Some(before), ..RevocationQuery::default() };
    let found = store.revocations(&query, 100).await.unwrap().into_iter();
    let mut found: Vec<_> = found
        .map(|found| match found.value {
            RevokedValue::Value(value) => value,
            RevokedValue::Index(index) => panic!("{index:?}"),
        })
        .collect();
    found.sort();
    holders.sort();
    assert_eq!(found, holders);
    let before = store.position().await.unwrap();
    let wished = store.delete_role("writer", None, by, host).await.unwrap();
    store.publish(&wished, host).await.unwrap();
    assert_eq!(store.position().await.unwrap(), Position(before.0 + 6));
    let again = store.delete_role("writer", None, by, host).await;
    assert!(matches!(again, Err(StoreError::Missing)), "{again:?}");
}
