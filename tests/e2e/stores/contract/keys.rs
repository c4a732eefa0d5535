//! Signing keys and sealed secrets: one for all replicas, told with the change.

use std::collections::BTreeSet;

use tollgate_issuer::clock::random;
use tollgate_issuer::credential::{CredentialKind, new_id};
use tollgate_issuer::permission::Permissions;
use tollgate_issuer::signing_keys::KeyRow;
use tollgate_issuer::store::{KeyChange, StoreError};
use tollgate_shared::revocation::{Dimension, Position};

use super::feed::told;
use super::on_every_backend;
use crate::stores::backend::{Backend, at_once};

on_every_backend!(
    of_eight_that_rotate_one_makes_the_key,
    a_withdrawn_key_is_told_with_the_change,
    a_sealed_secret_is_the_same_for_everybody,
    there_is_one_first_operator,
    a_name_has_one_credential_in_force,
);

fn row(kid: &str, now: u64) -> KeyRow {
    KeyRow {
        kid: kid.to_owned(),
        alg: "EdDSA".to_owned(),
        state: "active".to_owned(),
        created_at: now,
        published_at: now,
        active_at: Some(now),
        retiring_at: None,
        ended_at: None,
        token_seconds: 600,
        sealed: Some(vec![1, 2, 3]),
        public_jwk: "{}".to_owned(),
    }
}

async fn of_eight_that_rotate_one_makes_the_key(backend: &Backend) {
    let stores = backend.replicas::<8>().await;
    let positions = at_once(8, |number| {
        let (store, host, now) = (stores[number].clone(), backend.host.clone(), backend.now());
        async move {
            let change = |known: Vec<KeyRow>| {
                let kid = new_id("k_", &*host).map_err(StoreError::from)?;
                let rows = if known.is_empty() { vec![row(&kid, now.0)] } else { Vec::new() };
                let all = known.iter().chain(&rows).map(|row| row.kid.as_str());
                Ok(KeyChange { jwks: all.collect(), rows, withdrawn: None })
            };
            store.change_signing_keys(now, change).await.unwrap()
        }
    })
    .await;
    assert_eq!(positions.into_iter().flatten().collect::<Vec<_>>(), [Position(1)]);
    let keys = stores[3].signing_keys().await.unwrap();
    assert_eq!(keys.len(), 1);
    let read = told(&stores[5]).await;
    assert_eq!(read.keys.as_ref(), Some(&keys[0].kid));
}

async fn a_withdrawn_key_is_told_with_the_change(backend: &Backend) {
    let store = backend.replica().await;
    let now = backend.now();
    let change = |_| Ok(KeyChange { rows: vec![row("k_1", now.0)], jwks: "one".to_owned(), withdrawn: None });
    store.change_signing_keys(now, change).await.unwrap();
    for step in ["keys.before_commit", "nothing"] {
        backend.host.stop_at(step);
        let withdrawing = store.clone();
        let task = tokio::spawn(async move {
            let change = |_: Vec<KeyRow>| {
                let ended = KeyRow {
                    state: "ended".to_owned(),
                    ended_at: Some(now.0),
                    sealed: None,
                    ..row("k_1", now.0)
                };
                let withdrawn = Some(("k_1".to_owned(), "stolen".to_owned(), "operator test".to_owned()));
                Ok(KeyChange { rows: vec![ended], jwks: "none".to_owned(), withdrawn })
            };
            withdrawing.change_signing_keys(now, change).await.unwrap()
        });
        let crashed = task.await.is_err();
        assert_eq!(crashed, step == "keys.before_commit");
        let read = told(&store).await;
        assert_eq!(store.signing_keys().await.unwrap().len(), usize::from(crashed));
        assert_eq!(read.keys.as_deref(), Some(if crashed { "one" } else { "none" }));
        assert_eq!(read.cutoffs.len(), usize::from(!crashed));
        if let Some(cutoff) = read.cutoffs.first() {
            assert_eq!((cutoff.dimension, cutoff.value.as_str()), (Dimension::Key, "k_1"));
        }
    }
}

async fn a_sealed_secret_is_the_same_for_everybody(backend: &Backend) {
    let stores = backend.replicas::<8>().await;
    for name in ["feed", "refresh", "audit", "throttle", "one", "two", "three", "four"] {
        let secrets = at_once(8, |number| {
            let (store, host) = (stores[number].clone(), backend.host.clone());
            async move { store.sealed_secret(name, || Ok(random::<32>(&*host)?.to_vec())).await.unwrap() }
        })
        .await;
        assert_eq!(secrets.iter().collect::<BTreeSet<_>>().len(), 1, "{name}");
    }
    stores[0].reseal_secret("feed", &[9; 8]).await.unwrap();
    assert_eq!(stores[1].sealed_secret("feed", || Err(StoreError::Missing)).await.unwrap(), vec![9; 8]);
}

async fn there_is_one_first_operator(backend: &Backend) {
    let stores = backend.replicas::<8>().await;
    let kept = at_once(8, |number| {
        let (store, host) = (stores[number].clone(), backend.host.clone());
        async move {
            let kept = std::sync::atomic::AtomicUsize::new(0);
            let keep = |_: &_| {
                kept.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                Ok(())
            };
            store.add_first_operator(&*host, keep).await.unwrap();
            kept.into_inner()
        }
    })
    .await;
    assert_eq!(kept.into_iter().sum::<usize>(), 1);
    assert_eq!(backend.number(0, "SELECT COUNT(*) FROM credentials").await, 1);
}

async fn a_name_has_one_credential_in_force(backend: &Backend) {
    let stores = backend.replicas::<3>().await;
    let made = at_once(12, |number| {
        let (store, host) = (stores[number % 3].clone(), backend.host.clone());
        async move {
            store.add_credential(CredentialKind::Edge, "edge", &Permissions::Everything, &*host).await.ok()
        }
    })
    .await;
    let made: Vec<_> = made.into_iter().flatten().collect();
    assert_eq!(made.len(), 1);
    assert!(stores[0].credential(CredentialKind::Edge, &made[0].id).await.unwrap().is_some());
    assert!(stores[0].credential(CredentialKind::Operator, &made[0].id).await.unwrap().is_none());
    stores[0].withdraw_credential(CredentialKind::Edge, "edge", backend.now()).await.unwrap();
    assert!(stores[1].credential(CredentialKind::Edge, &made[0].id).await.unwrap().is_none());
    stores[2]
        .add_credential(CredentialKind::Edge, "edge", &Permissions::Everything, &*backend.host)
        .await
        .unwrap();
}
