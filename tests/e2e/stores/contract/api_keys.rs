//! API keys: an owner has so many and no more, and one that is over stays so.

use tollgate_issuer::api_key::{API_KEYS_MAX, ApiKeyOwner, NewApiKey};
use tollgate_issuer::client::{Client, client_id};
use tollgate_issuer::store::{AddedApiKey, ApiKeyRecord, Store, StoreError};
use tollgate_shared::revocation::Dimension;
use tollgate_shared::time::UnixSeconds;

use super::feed::told;
use super::on_every_backend;
use super::people::{add_user, wishes};
use crate::stores::backend::{Backend, at_once};

on_every_backend!(
    an_api_key_is_kept_until_it_is_revoked_once,
    an_owner_has_no_more_api_keys_than_there_may_be,
    the_api_keys_of_a_deleted_owner_are_over,
    an_api_key_that_has_been_over_for_long_is_forgotten,
);

fn key_of(backend: &Backend, owner: ApiKeyOwner) -> ApiKeyRecord {
    let new = NewApiKey::generate(&*backend.host).unwrap();
    ApiKeyRecord {
        id: new.id.clone(),
        digest: new.digest,
        owner,
        name: "deploy".to_owned(),
        scopes: vec!["read".to_owned(), "write".to_owned()],
        created_at: backend.now(),
        expires_at: None,
        revoked_at: None,
    }
}

async fn add(backend: &Backend, store: &Store, key: &ApiKeyRecord) -> AddedApiKey {
    store.add_api_key(key, backend.now()).await.unwrap()
}

async fn add_client(backend: &Backend, store: &Store, id: &str) -> ApiKeyOwner {
    let client = Client { id: client_id(id).unwrap(), ..Client::first_party("free").unwrap() };
    store.add_client(&client, backend.now()).await.unwrap();
    ApiKeyOwner::Client(id.to_owned())
}

async fn an_api_key_is_kept_until_it_is_revoked_once(backend: &Backend) {
    let stores = backend.replicas::<2>().await;
    let user = add_user(backend, &stores[0], "alice").await;
    let expires_at = Some(backend.now().plus(60));
    let key = ApiKeyRecord { expires_at, ..key_of(backend, ApiKeyOwner::User(user.id.clone())) };
    assert_eq!(add(backend, &stores[0], &key).await, AddedApiKey::Added);
    assert!(matches!(stores[1].add_api_key(&key, backend.now()).await, Err(StoreError::Exists)));
    let kept = stores[1].api_key(&key.id).await.unwrap().unwrap();
    assert!(kept.digest.matches(&key.digest));
    assert_eq!(format!("{kept:?}"), format!("{key:?}"));
    assert!(kept.is_in_force(backend.now().plus(59)) && !kept.is_in_force(backend.now().plus(60)));
    let revoked_at = backend.now();
    for store in &stores {
        let (revoked, _) = store.revoke_api_key(&key.id, "operator test", &*backend.host).await.unwrap();
        assert_eq!(revoked.revoked_at, Some(revoked_at));
        assert!(!revoked.is_in_force(revoked_at));
        backend.host.advance(1);
    }
    assert_eq!(wishes(backend).await, 1, "revoked once");
    stores[0].publish_outbox(&*backend.host).await.unwrap().unwrap();
    let read = told(&stores[1]).await;
    assert_eq!((read.cutoffs[0].dimension, &read.cutoffs[0].value), (Dimension::Token, &key.id));
    let missing = stores[0].revoke_api_key("AbCd0123", "operator test", &*backend.host).await;
    assert!(matches!(missing, Err(StoreError::Missing)), "{missing:?}");
    assert!(stores[0].api_key("AbCd0123").await.unwrap().is_none());
}

async fn an_owner_has_no_more_api_keys_than_there_may_be(backend: &Backend) {
    let stores = backend.replicas::<2>().await;
    let user = add_user(backend, &stores[0], "alice").await;
    let owner = ApiKeyOwner::User(user.id);
    let most = usize::try_from(API_KEYS_MAX).unwrap();
    for number in 2..most {
        let expires_at = (number == 2).then(|| backend.now().plus(60));
        let key = ApiKeyRecord { expires_at, ..key_of(backend, owner.clone()) };
        assert_eq!(add(backend, &stores[number % 2], &key).await, AddedApiKey::Added);
    }
    // There is room for two.
    let added = at_once(8, |number| {
        let (store, key, now) = (stores[number % 2].clone(), key_of(backend, owner.clone()), backend.now());
        async move { store.add_api_key(&key, now).await.unwrap() }
    })
    .await;
    assert_eq!(added.iter().filter(|added| **added == AddedApiKey::Added).count(), 2);
    assert!(added.iter().all(|added| *added != AddedApiKey::NoOwner));
    // One that is over makes room; another owner has room of its own.
    let listed = stores[0].api_keys(Some(&owner), "", 1000).await.unwrap();
    assert_eq!(listed.len(), most);
    assert!(listed.is_sorted_by(|one, other| one.id < other.id));
    let rest = stores[0].api_keys(Some(&owner), &listed[9].id, 5).await.unwrap();
    assert_eq!(rest.iter().map(|key| &key.id).collect::<Vec<_>>(), ids(&listed[10..15]));
    let endless = listed.iter().find(|key| key.expires_at.is_none()).unwrap();
    stores[0].revoke_api_key(&endless.id, "operator test", &*backend.host).await.unwrap();
    let key = key_of(backend, owner.clone());
    assert_eq!(add(backend, &stores[1], &key).await, AddedApiKey::Added);
    assert_eq!(add(backend, &stores[1], &key_of(backend, owner.clone())).await, AddedApiKey::TooMany);
    backend.host.advance(60);
    assert_eq!(add(backend, &stores[1], &key_of(backend, owner.clone())).await, AddedApiKey::Added);
    let client = add_client(backend, &stores[0], "batch").await;
    assert_eq!(add(backend, &stores[1], &key_of(backend, client)).await, AddedApiKey::Added);
    assert_eq!(stores[0].api_keys(None, "", 1000).await.unwrap().len(), most + 3);
}

fn ids(keys: &[ApiKeyRecord]) -> Vec<&String> {
    keys.iter().map(|key| &key.id).collect()
}

async fn the_api_keys_of_a_deleted_owner_are_over(backend: &Backend) {
    let store = backend.replica().await;
    let host = &*backend.host;
    let user = add_user(backend, &store, "alice").await;
    let client = add_client(backend, &store, "batch").await;
    let other = add_client(backend, &store, "other").await;
    let of_user = key_of(backend, ApiKeyOwner::User(user.id.clone()));
    let of_client = key_of(backend, client.clone());
    let of_other = key_of(backend, other);
    for key in [&of_user, &of_client, &of_other] {
        assert_eq!(add(backend, &store, key).await, AddedApiKey::Added);
    }
    store.delete_user(&user.id, None, "operator test", host).await.unwrap();
    store.delete_client("batch", None, "operator test", host).await.unwrap();
    assert_eq!(add(backend, &store, &key_of(backend, client)).await, AddedApiKey::NoOwner);
    add_client(backend, &store, "batch").await;
    for key in [of_user, of_client] {
        let kept = store.api_key(&key.id).await.unwrap().unwrap();
        assert_eq!(kept.revoked_at, Some(backend.now()), "{:?}", kept.owner);
    }
    assert!(store.api_key(&of_other.id).await.unwrap().unwrap().is_in_force(UnixSeconds(u64::MAX)));
}

async fn an_api_key_that_has_been_over_for_long_is_forgotten(backend: &Backend) {
    let store = backend.replica().await;
    let owner = add_client(backend, &store, "batch").await;
    let expires_at = Some(backend.now().plus(60));
    let short = ApiKeyRecord { expires_at, ..key_of(backend, owner.clone()) };
    let (revoked, endless) = (key_of(backend, owner.clone()), key_of(backend, owner));
    for key in [&short, &revoked, &endless] {
        assert_eq!(add(backend, &store, key).await, AddedApiKey::Added);
    }
    store.revoke_api_key(&revoked.id, "operator test", &*backend.host).await.unwrap();
    let days = |days: u64| backend.now().plus(days * 86_400);
    assert_eq!(store.prune_api_keys(days(89)).await.unwrap(), 0);
    assert_eq!(store.prune_api_keys(days(91)).await.unwrap(), 2);
    assert_eq!(store.prune_api_keys(days(10_000)).await.unwrap(), 0);
    assert!(store.api_key(&endless.id).await.unwrap().is_some());
}
