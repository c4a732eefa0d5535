//! Users: one of a name, changed by one at a time, and what is taken from them is published.

use tollgate_issuer::store::{EndReason, StoreError};
use tollgate_shared::revocation::Dimension;

use super::feed::told_after;
use super::on_every_backend;
use super::people::{
    add_user, change, child, cut_off, is_refused, is_reuse, new_user, start, start_with, wishes,
};
use crate::stores::backend::{Backend, at_once};

on_every_backend!(
    of_twenty_who_want_a_name_one_gets_it,
    a_name_whose_user_never_came_is_free_after_a_minute,
    a_change_is_of_the_version_that_was_read,
    what_ends_sessions_ends_them_and_says_so,
    a_right_that_is_taken_cuts_off_tokens_and_no_session,
    a_right_that_is_given_cuts_off_nothing,
    a_login_that_was_overtaken_starts_no_session,
    a_password_is_hashed_again_by_one,
    users_are_listed_by_name_page_by_page,
);

async fn of_twenty_who_want_a_name_one_gets_it(backend: &Backend) {
    let stores = backend.replicas::<3>().await;
    let results = at_once(20, |number| {
        let (store, new, now) = (stores[number % 3].clone(), new_user(backend, "alice"), backend.now());
        async move { (store.add_user(&new, now).await, new.user.id) }
    })
    .await;
    let mut winners = Vec::new();
    for (result, id) in results {
        match result {
            Ok(()) => winners.push(id),
            Err(StoreError::Exists) => assert!(stores[0].user(&id).await.unwrap().is_none()),
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(stores[1].user_named("alice").await.unwrap().unwrap().user.id, winners[0]);
    assert_eq!(backend.sum("SELECT COUNT(*) FROM users").await, 1);
    backend.host.advance(3_600);
    let late = stores[0].add_user(&new_user(backend, "alice"), backend.now()).await;
    assert!(matches!(late, Err(StoreError::Exists)), "a name in use is never free: {late:?}");
}

async fn a_name_whose_user_never_came_is_free_after_a_minute(backend: &Backend) {
    let store = backend.replica().await;
    backend.host.stop_at("user.name_taken");
    let (crashing, new, now) = (store.clone(), new_user(backend, "alice"), backend.now());
    tokio::spawn(async move { crashing.add_user(&new, now).await }).await.unwrap_err();
    assert!(store.user_named("alice").await.unwrap().is_none());
    backend.host.advance(60);
    let early = store.add_user(&new_user(backend, "alice"), backend.now()).await;
    assert!(matches!(early, Err(StoreError::Exists)), "{early:?}");
    backend.host.advance(1);
    let results = at_once(8, |_| {
        let (store, new, now) = (store.clone(), new_user(backend, "alice"), backend.now());
        async move { store.add_user(&new, now).await.is_ok() }
    })
    .await;
    assert_eq!(results.iter().filter(|won| **won).count(), 1);
    assert!(store.user_named("alice").await.unwrap().is_some());
}

async fn a_change_is_of_the_version_that_was_read(backend: &Backend) {
    let stores = backend.replicas::<2>().await;
    let user = add_user(backend, &stores[0], "alice").await;
    let results = at_once(20, |number| {
        let (store, host, mut user) = (stores[number % 2].clone(), backend.host.clone(), user.clone());
        user.plan = format!("plan-{number}");
        async move {
            let mut change = change(&user);
            change.if_version = Some(1);
            store.change_user(&change, &*host).await.map(|(changed, _)| changed)
        }
    })
    .await;
    let mut changed = Vec::new();
    for result in results {
        match result {
            Ok(record) => changed.push(record),
            Err(StoreError::Changed) => {}
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(changed.len(), 1);
    assert_eq!(changed[0].version, 2);
    assert_eq!(stores[1].user(&user.id).await.unwrap().unwrap(), changed[0]);
    let early = stores[0].delete_user(&user.id, Some(1), "operator test", &*backend.host).await;
    assert!(matches!(early, Err(StoreError::Changed)), "{early:?}");
    let nobody = stores[0].delete_user("u_missing", None, "operator test", &*backend.host).await;
    assert!(matches!(nobody, Err(StoreError::Missing)), "{nobody:?}");
}

async fn what_ends_sessions_ends_them_and_says_so(backend: &Backend) {
    let store = backend.replica().await;
    let host = &*backend.host;
    for way in ["password", "disabled", "deleted", "logout everywhere"] {
        let mut user = add_user(backend, &store, way).await;
        let (first, second) =
            (start(backend, &store, &user.id).await, start(backend, &store, &user.id).await);
        let position = store.position().await.unwrap();
        match way {
            "password" => {
                let mut change = change(&user);
                change.password_hash = Some("$argon2id$second");
                store.change_user(&change, host).await.unwrap();
            }
            "disabled" => {
                user.disabled = true;
                store.change_user(&change(&user), host).await.unwrap();
            }
            "deleted" => drop(store.delete_user(&user.id, None, "operator test", host).await.unwrap()),
            _ => drop(store.end_sessions(&user.id, EndReason::Logout, "user", host).await.unwrap()),
        }
        for session in [&first, &second] {
            assert!(is_refused(backend, &store, &session.token).await, "{way}");
        }
        assert!(store.sessions_of(&user.id, backend.now()).await.unwrap().is_empty(), "{way}");
        assert_eq!(wishes(backend).await, 1, "{way}");
        let told = store.publish_outbox(host).await.unwrap().unwrap();
        assert_eq!(wishes(backend).await, 0, "{way}");
        let read = told_after(&store, position).await;
        assert_eq!((read.to, read.cutoffs.len()), (told, 1), "{way}");
        let cutoff = &read.cutoffs[0];
        assert_eq!(
            (cutoff.dimension, cutoff.value.as_str()),
            (Dimension::Subject, user.id.as_str()),
            "{way}"
        );
        assert!(cutoff.issued_before.unwrap() > first.issued_at.max(second.issued_at), "{way}");
        if way == "deleted" {
            assert!(store.user_named(way).await.unwrap().is_none());
            add_user(backend, &store, way).await;
        }
    }
}

async fn a_right_that_is_taken_cuts_off_tokens_and_no_session(backend: &Backend) {
    let store = backend.replica().await;
    let mut user = add_user(backend, &store, "alice").await;
    let session = start(backend, &store, &user.id).await;
    user.roles.pop();
    store.change_user(&change(&user), &*backend.host).await.unwrap();
    store.publish_outbox(&*backend.host).await.unwrap().unwrap();
    let cut = cut_off(&store, &user.id).await;
    assert!(cut.issued_before.unwrap() > session.issued_at);
    assert_eq!(cut.began_before, None);
    child(backend, &store, &session.token).await;
}

async fn a_right_that_is_given_cuts_off_nothing(backend: &Backend) {
    let store = backend.replica().await;
    let mut user = add_user(backend, &store, "alice").await;
    user.roles.push("admin".to_owned());
    user.scopes.push("write".to_owned());
    store.change_user(&change(&user), &*backend.host).await.unwrap();
    assert_eq!(wishes(backend).await, 0);
}

async fn a_login_that_was_overtaken_starts_no_session(backend: &Backend) {
    let store = backend.replica().await;
    let mut user = add_user(backend, &store, "alice").await;
    let checked = store.user(&user.id).await.unwrap().unwrap().password_changed_at;
    let mut new_password = change(&user);
    new_password.password_hash = Some("$argon2id$second");
    store.change_user(&new_password, &*backend.host).await.unwrap();
    assert!(start_with(backend, &store, &user.id, checked, None).await.is_none(), "the password is another");
    let checked = store.user(&user.id).await.unwrap().unwrap().password_changed_at;
    user.disabled = true;
    store.change_user(&change(&user), &*backend.host).await.unwrap();
    assert!(start_with(backend, &store, &user.id, checked, None).await.is_none(), "the user is disabled");
}

async fn a_password_is_hashed_again_by_one(backend: &Backend) {
    let stores = backend.replicas::<3>().await;
    let user = add_user(backend, &stores[0], "alice").await;
    for _ in 0..2 {
        let claims = at_once(20, |number| {
            let (store, id, now) = (stores[number % 3].clone(), user.id.clone(), backend.now());
            async move { store.claim_rehash(&id, "$argon2id$first", now).await.unwrap() }
        })
        .await;
        assert_eq!(claims.iter().filter(|claimed| **claimed).count(), 1);
        // Who claimed it may have crashed.
        backend.host.advance(61);
    }
    let session = start(backend, &stores[0], &user.id).await;
    assert!(stores[0].rehash(&user.id, "$argon2id$first", "$argon2id$better").await.unwrap());
    assert!(!stores[0].rehash(&user.id, "$argon2id$first", "$argon2id$best").await.unwrap());
    assert!(!stores[0].claim_rehash(&user.id, "$argon2id$first", backend.now()).await.unwrap());
    let next = child(backend, &stores[0], &session.token).await;
    assert!(!is_reuse(backend, &stores[0], &next).await, "the same password, hashed better, ends no session");
}

async fn users_are_listed_by_name_page_by_page(backend: &Backend) {
    let store = backend.replica().await;
    let mut names: Vec<String> = (0..25).map(|number| format!("user-{:02}", (number * 7) % 25)).collect();
    for name in &names {
        add_user(backend, &store, name).await;
    }
    names.sort();
    let mut listed: Vec<String> = Vec::new();
    loop {
        let after = listed.last().cloned().unwrap_or_default();
        let (page, _) = store.users(&after, 10).await.unwrap();
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= 10);
        listed.extend(page.into_iter().map(|record| record.user.username));
    }
    assert_eq!(listed, names);
    if backend.shards() > 1 {
        for shard in 0..backend.shards() {
            assert!(
                backend.number(shard, "SELECT COUNT(*) FROM users").await > 0,
                "all databases have users"
            );
        }
    }
}
