//! Clients, roles and tenants: changed by one at a time, and what disabling one takes away is published.

use tollgate_issuer::client::{Client, client_id};
use tollgate_issuer::store::{RevocationOrder, Role, StoreError, Tenant};
use tollgate_shared::revocation::Dimension;

use super::feed::told;
use super::on_every_backend;
use super::people::wishes;
use crate::stores::backend::{Backend, at_once};

on_every_backend!(
    roles_are_added_changed_and_removed_by_version,
    a_disabled_tenant_is_published,
    a_disabled_client_is_published,
    a_second_cut_off_covers_what_a_client_was_given_right_after_the_first,
    of_twenty_changes_of_one_version_one_is_made,
);

fn role(name: &str, permissions: &[&str]) -> Role {
    let permissions = permissions.iter().map(|text| (*text).to_owned()).collect();
    Role { name: name.to_owned(), permissions, description: String::new() }
}

/// Who orders it, and whose tokens these are.
const BY: (&str, &str) = ("operator test", "https://issuer.test");

fn client(id: &str) -> Client {
    Client { id: client_id(id).unwrap(), ..Client::first_party("free").unwrap() }
}

async fn roles_are_added_changed_and_removed_by_version(backend: &Backend) {
    let store = backend.replica().await;
    let (now, host) = (backend.now(), &*backend.host);
    for name in ["writer", "reader"] {
        store.add_role(&role(name, &["read"]), now).await.unwrap();
    }
    assert!(matches!(store.add_role(&role("reader", &[]), now).await, Err(StoreError::Exists)));
    store.change_role(&role("writer", &["read", "write"]), Some(1), BY, host).await.unwrap();
    let stale = store.change_role(&role("writer", &[]), Some(1), BY, host).await;
    assert!(matches!(stale, Err(StoreError::Changed)), "{stale:?}");
    let (kept, revision) = store.role("writer").await.unwrap().unwrap();
    assert_eq!((kept, revision.version), (role("writer", &["read", "write"]), 2));
    let listed = store.roles("", 10).await.unwrap().into_iter().map(|(role, _)| role.name);
    assert_eq!(listed.collect::<Vec<_>>(), ["reader", "writer"]);
    assert!(matches!(store.delete_role("writer", Some(1), BY, host).await, Err(StoreError::Changed)));
    store.delete_role("writer", Some(2), BY, host).await.unwrap();
    assert!(matches!(store.delete_role("writer", None, BY, host).await, Err(StoreError::Missing)));
}

async fn a_disabled_tenant_is_published(backend: &Backend) {
    let store = backend.replica().await;
    let mut tenant = Tenant { id: "acme".to_owned(), name: "Acme".to_owned(), disabled: false };
    store.add_tenant(&tenant, backend.now()).await.unwrap();
    assert!(matches!(store.add_tenant(&tenant, backend.now()).await, Err(StoreError::Exists)));
    tenant.name = "Acme Ltd".to_owned();
    store.change_tenant(&tenant, Some(1), "operator test", &*backend.host).await.unwrap();
    assert_eq!(wishes(backend).await, 0);
    tenant.disabled = true;
    for _ in 0..2 {
        store.change_tenant(&tenant, None, "operator test", &*backend.host).await.unwrap();
        assert_eq!(wishes(backend).await, 1, "disabled once");
    }
    store.publish_outbox(&*backend.host).await.unwrap().unwrap();
    let read = told(&store).await;
    assert_eq!((read.cutoffs[0].dimension, read.cutoffs[0].value.as_str()), (Dimension::Tenant, "acme"));
    assert!(read.cutoffs[0].issued_before.unwrap() > backend.now());
    assert_eq!(store.tenant("acme").await.unwrap().unwrap().0, tenant);
}

async fn a_disabled_client_is_published(backend: &Backend) {
    let store = backend.replica().await;
    let host = &*backend.host;
    let mut known = client("batch");
    store.add_client(&known, backend.now()).await.unwrap();
    assert!(matches!(store.add_client(&known, backend.now()).await, Err(StoreError::Exists)));
    store.ensure_client(&known, backend.now()).await.unwrap();
    known.disabled = true;
    let (revision, _) = store.change_client(&known, Some(1), "operator test", host).await.unwrap();
    assert_eq!((revision.version, wishes(backend).await), (2, 1));
    store.publish_outbox(host).await.unwrap().unwrap();
    let first = told(&store).await.cutoffs[0].clone();
    assert_eq!((first.dimension, first.value.as_str()), (Dimension::Client, "batch"));
    store.delete_client("batch", Some(2), "operator test", host).await.unwrap();
    store.publish_outbox(host).await.unwrap().unwrap();
    let last = told(&store).await.cutoffs[1].clone();
    assert!(last.issued_before > first.issued_before, "tokens of its own were dated right after the first");
    assert!(store.client("batch").await.unwrap().is_none());
}

async fn a_second_cut_off_covers_what_a_client_was_given_right_after_the_first(backend: &Backend) {
    let store = backend.replica().await;
    store.add_client(&client("batch"), backend.now()).await.unwrap();
    for (dimension, value, later) in [
        (Dimension::Client, "batch", true),
        (Dimension::Subject, "batch", true),
        (Dimension::Tenant, "acme", true),
        (Dimension::Issuer, "https://issuer.test", true),
        // A user's tokens are in sessions, which tell how they are dated.
        (Dimension::Subject, "u_alice", false),
    ] {
        let order = RevocationOrder::Value { dimension, issuer: None, value: value.to_owned() };
        let mut dates = Vec::new();
        for _ in 0..2 {
            store.revoke(&order, None, "operator test", &*backend.host).await.unwrap();
            dates.push(told(&store).await.cutoffs.pop().unwrap());
        }
        let (first, second) = (dates[0].issued_before.unwrap(), dates[1].issued_before.unwrap());
        assert_eq!(second > first, later, "{dimension:?} {value}: a token may be dated {first:?}");
    }
}

async fn of_twenty_changes_of_one_version_one_is_made(backend: &Backend) {
    let stores = backend.replicas::<2>().await;
    stores[0].add_client(&client("batch"), backend.now()).await.unwrap();
    stores[0].add_role(&role("reader", &[]), backend.now()).await.unwrap();
    let results = at_once(20, |number| {
        let (store, host) = (stores[number % 2].clone(), backend.host.clone());
        async move {
            let mut changed = client("batch");
            changed.name = format!("name {number}");
            let client = store.change_client(&changed, Some(1), "operator test", &*host).await;
            let role = store.change_role(&role("reader", &["read"]), Some(1), BY, &*host).await;
            (client.is_ok(), role.is_ok())
        }
    })
    .await;
    assert_eq!(results.iter().filter(|(client, _)| *client).count(), 1);
    assert_eq!(results.iter().filter(|(_, role)| *role).count(), 1);
}
