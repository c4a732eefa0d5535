//! Sessions: a refresh token is exchanged once, and what comes back that was used ends its session.

use std::collections::BTreeSet;

use tollgate_issuer::refresh::RefreshToken;
use tollgate_issuer::session::RefreshRefusal;
use tollgate_issuer::store::{
    EndReason, GENERATIONS_MAX, RevocationOrder, Rotation, SESSIONS_MAX, StoreError, slot_of,
};
use tollgate_shared::revocation::Dimension;
use tollgate_shared::time::UnixSeconds;

use super::feed::told;
use super::on_every_backend;
use super::people::{
    GRACE_SECONDS, IDLE_SECONDS, LASTS_SECONDS, add_user, child, child_digest, cut_off, is_refused, is_reuse,
    rotate, rotate_as, start, start_with, wishes,
};
use crate::stores::backend::{Backend, Kind, at_once};

on_every_backend!(
    of_fifty_exchanges_at_once_there_is_one_child,
    one_users_requests_leave_connections_for_others,
    a_parent_that_comes_back_after_its_grace_ends_the_session,
    reuse_is_written_with_its_wish_or_not_at_all,
    an_exchange_that_a_crash_cut_short_can_be_made_again,
    another_clients_attempt_does_nothing,
    a_session_ends_when_it_is_idle_and_when_it_is_over,
    a_cut_off_ends_the_sessions_before_it_and_none_after,
    a_token_dated_ahead_of_the_clock_is_covered,
    the_session_used_least_lately_gives_way,
    twenty_devices_are_remembered,
    a_session_is_ended_by_its_own_user,
    sessions_that_were_over_for_a_day_are_forgotten,
    more_sessions_than_are_removed_at_once_are_forgotten_with_their_tokens,
    of_the_tokens_of_a_session_the_last_hundred_are_known,
);

async fn of_fifty_exchanges_at_once_there_is_one_child(backend: &Backend) {
    let stores = backend.replicas::<3>().await;
    let user = add_user(backend, &stores[0], "alice").await;
    let session = start(backend, &stores[0], &user.id).await;
    let text = session.token.reveal();
    let children: BTreeSet<[u8; 32]> = at_once(50, |number| {
        let (store, token) = (stores[number % 3].clone(), RefreshToken::parse(&text).unwrap());
        let exchange = Exchanging { backend_host: backend.host.clone(), store, token };
        async move { exchange.child().await }
    })
    .await
    .into_iter()
    .collect();
    assert_eq!(children.len(), 1, "everybody has the same child");
    assert_eq!(backend.sum("SELECT COUNT(*) FROM refresh_tokens").await, 2, "the parent and one child");
    assert_eq!(backend.sum("SELECT CAST(COALESCE(SUM(generation), 0) AS BIGINT) FROM sessions").await, 1);
    let the_child = child(backend, &stores[1], &session.token).await;
    assert!(children.contains(&the_child.digest()));
    let grandchild = child(backend, &stores[2], &the_child).await;
    assert!(
        is_reuse(backend, &stores[0], &session.token).await,
        "the child was used: no grace for the parent"
    );
    assert!(is_refused(backend, &stores[1], &grandchild).await, "the session is over");
}

async fn one_users_requests_leave_connections_for_others(backend: &Backend) {
    let store = backend.replica().await;
    let alice = add_user(backend, &store, "alice").await;
    let mut bob = add_user(backend, &store, "bob").await;
    while slot_of(&bob.id) == slot_of(&alice.id) {
        store.delete_user(&bob.id, None, "operator test", &*backend.host).await.unwrap();
        bob = add_user(backend, &store, "bob").await;
    }
    let text = start(backend, &store, &alice.id).await.token.reveal();
    // The first exchange has the user's lock; more of them wait for it than there are connections.
    let (asleep, wake) = backend.host.wait_at("rotate.before_commit");
    let exchange = |_| {
        let (store, token) = (store.clone(), RefreshToken::parse(&text).unwrap());
        tokio::spawn(Exchanging { backend_host: backend.host.clone(), store, token }.child())
    };
    let exchanges: Vec<_> = (0..40).map(exchange).collect();
    tokio::task::block_in_place(|| asleep.recv().unwrap());
    // Each of them is where it has to wait by the time that this was answered as often as they are.
    for _ in 0..40 {
        assert!(store.user(&bob.id).await.unwrap().is_some());
        tokio::task::yield_now().await;
    }
    wake.send(()).unwrap();
    let mut children = BTreeSet::new();
    for exchange in exchanges {
        children.insert(exchange.await.unwrap());
    }
    assert_eq!(children.len(), 1);
}

/// One exchange that a task of its own makes.
struct Exchanging {
    backend_host: std::sync::Arc<crate::stores::backend::TestHost>,
    store: tollgate_issuer::store::Store,
    token: RefreshToken,
}

impl Exchanging {
    async fn child(self) -> [u8; 32] {
        use tollgate_issuer::clock::random;
        use tollgate_issuer::store::{CutOff, Exchange, Presented};
        let Self { backend_host: host, store, token } = self;
        let exchange = Exchange {
            grace_ms: GRACE_SECONDS * 1000,
            idle_seconds: IDLE_SECONDS,
            life: super::people::LIFE,
            cut_off: CutOff::default(),
            asked_at: tollgate_issuer::clock::Host::seconds(&*host),
            version: None,
            nonce: random::<16>(&*host).unwrap(),
        };
        let known = store.refresh_token(token.slot(), token.digest()).await.unwrap().unwrap();
        let user_id = known.session.user_id.as_str();
        let presented = Presented { user_id, digest: token.digest(), client: "first-party" };
        let derive = |nonce: &[u8; 16]| child_digest(&token, nonce);
        match store.rotate(presented, exchange, derive, &*host).await.unwrap() {
            Rotation::Child { nonce, .. } => child_digest(&token, &nonce),
            other @ (Rotation::Reused { .. } | Rotation::Refused(_)) => panic!("no child: {other:?}"),
        }
    }
}

async fn a_parent_that_comes_back_after_its_grace_ends_the_session(backend: &Backend) {
    let store = backend.replica().await;
    let user = add_user(backend, &store, "alice").await;
    let session = start(backend, &store, &user.id).await;
    let first = child(backend, &store, &session.token).await;
    backend.host.advance(GRACE_SECONDS);
    assert_eq!(child(backend, &store, &session.token).await.digest(), first.digest(), "in its grace, still");
    backend.host.advance(1);
    assert_eq!(wishes(backend).await, 0);
    assert!(is_reuse(backend, &store, &session.token).await);
    assert_eq!(wishes(backend).await, 1);
    assert!(is_refused(backend, &store, &first).await);
    assert!(is_refused(backend, &store, &session.token).await, "said once");
    assert_eq!(wishes(backend).await, 1);
    store.publish_outbox(&*backend.host).await.unwrap().unwrap();
    let read = told(&store).await;
    assert_eq!(read.cutoffs.len(), 1);
    assert_eq!((read.cutoffs[0].dimension, &read.cutoffs[0].value), (Dimension::Session, &session.id));
    assert_eq!(read.cutoffs[0].issued_before, None);
}

async fn reuse_is_written_with_its_wish_or_not_at_all(backend: &Backend) {
    let store = backend.replica().await;
    let user = add_user(backend, &store, "alice").await;
    let session = start(backend, &store, &user.id).await;
    let next = child(backend, &store, &session.token).await;
    let last = child(backend, &store, &next).await;
    for (step, wished) in [("reuse.before_commit", 0), ("reuse.committed", 1)] {
        backend.host.stop_at(step);
        let exchange = Exchanging {
            backend_host: backend.host.clone(),
            store: store.clone(),
            token: RefreshToken::parse(&session.token.reveal()).unwrap(),
        };
        tokio::spawn(exchange.child()).await.unwrap_err();
        assert_eq!(wishes(backend).await, wished, "{step}");
        assert_eq!(
            backend.sum("SELECT COUNT(*) FROM sessions WHERE ended_at IS NOT NULL").await,
            wished,
            "{step}"
        );
    }
    assert!(is_refused(backend, &store, &last).await);
}

async fn an_exchange_that_a_crash_cut_short_can_be_made_again(backend: &Backend) {
    let store = backend.replica().await;
    let user = add_user(backend, &store, "alice").await;
    let mut token = start(backend, &store, &user.id).await.token;
    for step in ["rotate.parent_marked", "rotate.before_commit", "rotate.committed"] {
        backend.host.stop_at(step);
        let again = RefreshToken::parse(&token.reveal()).unwrap();
        let exchange = Exchanging { backend_host: backend.host.clone(), store: store.clone(), token: again };
        tokio::spawn(exchange.child()).await.unwrap_err();
        token = child(backend, &store, &token).await;
        token = child(backend, &store, &token).await;
    }
    assert_eq!(backend.sum("SELECT COUNT(*) FROM sessions WHERE ended_at IS NULL").await, 1);
}

async fn another_clients_attempt_does_nothing(backend: &Backend) {
    let store = backend.replica().await;
    let user = add_user(backend, &store, "alice").await;
    let session = start(backend, &store, &user.id).await;
    let next = child(backend, &store, &session.token).await;
    backend.host.advance(GRACE_SECONDS + 1);
    for token in [&session.token, &next] {
        let theirs = rotate_as(backend, &store, token, "other", Default::default()).await;
        assert!(matches!(theirs, Rotation::Refused(RefreshRefusal::OtherClient)), "{theirs:?}");
    }
    assert_eq!(wishes(backend).await, 0);
    child(backend, &store, &next).await;
}

async fn a_session_ends_when_it_is_idle_and_when_it_is_over(backend: &Backend) {
    let store = backend.replica().await;
    let user = add_user(backend, &store, "alice").await;
    let idle = start(backend, &store, &user.id).await;
    let mut used = start(backend, &store, &user.id).await.token;
    for _ in 0..LASTS_SECONDS / (IDLE_SECONDS - 1) {
        backend.host.advance(IDLE_SECONDS - 1);
        used = child(backend, &store, &used).await;
    }
    let refused = rotate(backend, &store, &idle.token).await;
    assert!(matches!(refused, Rotation::Refused(RefreshRefusal::Expired)), "{refused:?}");
    assert_eq!(store.sessions_of(&user.id, backend.now()).await.unwrap().len(), 1);
    backend.host.advance(IDLE_SECONDS - 1);
    let refused = rotate(backend, &store, &used).await;
    assert!(matches!(refused, Rotation::Refused(RefreshRefusal::Expired)), "{refused:?}");
}

async fn a_cut_off_ends_the_sessions_before_it_and_none_after(backend: &Backend) {
    let store = backend.replica().await;
    let host = &*backend.host;
    let user = add_user(backend, &store, "alice").await;
    let before = start(backend, &store, &user.id).await;
    let order =
        RevocationOrder::Value { dimension: Dimension::Subject, issuer: None, value: user.id.clone() };
    store.revoke(&order, Some("stolen"), "operator test", host).await.unwrap();
    let after = start(backend, &store, &user.id).await;
    let cut = cut_off(&store, &user.id).await;
    assert!(before.issued_at < cut.issued_before.unwrap());
    assert!(after.issued_at >= cut.issued_before.unwrap(), "a login in the same second is dated after it");
    let refused = rotate_as(backend, &store, &before.token, "first-party", cut).await;
    assert!(matches!(refused, Rotation::Refused(RefreshRefusal::Ended)), "{refused:?}");
    let kept = rotate_as(backend, &store, &after.token, "first-party", cut).await;
    assert!(matches!(kept, Rotation::Child { .. }), "{kept:?}");
}

async fn a_token_dated_ahead_of_the_clock_is_covered(backend: &Backend) {
    let store = backend.replica().await;
    let host = &*backend.host;
    let user = add_user(backend, &store, "alice").await;
    let session = start(backend, &store, &user.id).await;
    host.set_back(300);
    child(backend, &store, &session.token).await;
    let order =
        RevocationOrder::Value { dimension: Dimension::Subject, issuer: None, value: user.id.clone() };
    store.revoke(&order, None, "operator test", host).await.unwrap();
    let read = told(&store).await;
    assert!(read.cutoffs[0].issued_before.unwrap() > session.issued_at, "the clock was set back meanwhile");
    assert!(read.cutoffs[0].until >= session.issued_at.plus(super::people::LIFE.seconds));
}

async fn the_session_used_least_lately_gives_way(backend: &Backend) {
    let store = backend.replica().await;
    let user = add_user(backend, &store, "alice").await;
    let most = usize::try_from(SESSIONS_MAX).unwrap();
    let first = start(backend, &store, &user.id).await;
    backend.host.advance(1);
    let second = start(backend, &store, &user.id).await;
    backend.host.advance(1);
    for _ in 2..most {
        start(backend, &store, &user.id).await;
    }
    assert_eq!(wishes(backend).await, 0);
    backend.host.advance(1);
    let used = child(backend, &store, &first.token).await;
    start(backend, &store, &user.id).await;
    assert_eq!(store.sessions_of(&user.id, backend.now()).await.unwrap().len(), most);
    assert!(is_refused(backend, &store, &second.token).await);
    child(backend, &store, &used).await;
    assert_eq!(wishes(backend).await, 1);
}

async fn twenty_devices_are_remembered(backend: &Backend) {
    let store = backend.replica().await;
    let user = add_user(backend, &store, "alice").await;
    let other = add_user(backend, &store, "bob").await;
    let checked = store.user(&user.id).await.unwrap().unwrap().password_changed_at;
    for device in 0..22 {
        backend.host.advance(1);
        start_with(backend, &store, &user.id, checked, Some([device; 32])).await.unwrap();
    }
    for device in 0..22 {
        assert_eq!(store.knows_device(&user.id, [device; 32]).await.unwrap(), device >= 2, "{device}");
        assert!(!store.knows_device(&other.id, [device; 32]).await.unwrap());
    }
}

async fn a_session_is_ended_by_its_own_user(backend: &Backend) {
    let store = backend.replica().await;
    let host = &*backend.host;
    let (user, other) = (add_user(backend, &store, "alice").await, add_user(backend, &store, "bob").await);
    let session = start(backend, &store, &user.id).await;
    let theirs = store.end_session(&other.id, &session.id, EndReason::Logout, "user", host).await;
    assert!(matches!(theirs, Err(StoreError::Missing)), "{theirs:?}");
    let next = child(backend, &store, &session.token).await;
    for _ in 0..2 {
        store.end_session(&user.id, &session.id, EndReason::Logout, "user", host).await.unwrap();
        assert_eq!(wishes(backend).await, 1, "ended once");
    }
    assert!(is_refused(backend, &store, &next).await);
}

async fn sessions_that_were_over_for_a_day_are_forgotten(backend: &Backend) {
    let store = backend.replica().await;
    let user = add_user(backend, &store, "alice").await;
    start(backend, &store, &user.id).await;
    backend.host.advance(IDLE_SECONDS + 86_400);
    let session = start(backend, &store, &user.id).await;
    assert_eq!(store.prune_sessions(backend.now()).await.unwrap(), 0);
    assert_eq!(store.prune_sessions(UnixSeconds(backend.now().0 + 1)).await.unwrap(), 1);
    assert_eq!(backend.sum("SELECT COUNT(*) FROM refresh_tokens").await, 1);
    child(backend, &store, &session.token).await;
}

async fn more_sessions_than_are_removed_at_once_are_forgotten_with_their_tokens(backend: &Backend) {
    let store = backend.replica().await;
    let user = add_user(backend, &store, "alice").await;
    let live = start(backend, &store, &user.id).await;
    let now = backend.now().0;
    let (over, before) = (now - 86_401, now - 200_000);
    let mut rows = Vec::new();
    // Ended, idle, and over: each way to be over is looked for.
    for (way, (ended, idle, expires)) in
        [(over.to_string(), now, now), ("NULL".to_owned(), over, now), ("NULL".to_owned(), now, over)]
            .into_iter()
            .enumerate()
    {
        rows.push(format!(
            "INSERT INTO sessions (id, user_id, client_id, scope, created_at, last_used_at, last_issued_at, token_until, \
             idle_until, expires_at, generation, ended_at) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 \
             FROM n WHERE i < 700) SELECT 's_{way}_' || i, 'u_gone', 'c', '', {before}, {before}, {before}, {before}, \
             {idle}, {expires}, 0, CAST({ended} AS BIGINT) FROM n"
        ));
    }
    for statement in rows {
        backend.execute(0, &statement).await.unwrap();
    }
    let digest = if backend.kind == Kind::Sqlite { "randomblob(32)" } else { "sha256(id::bytea)" };
    let nonce = if backend.kind == Kind::Sqlite { "zeroblob(16)" } else { "substr(sha256(''), 1, 16)" };
    let tokens = format!(
        "INSERT INTO refresh_tokens (digest, session_id, generation, nonce, created_at) \
         SELECT {digest}, id, 0, {nonce}, {before} FROM sessions WHERE user_id = 'u_gone'"
    );
    assert_eq!(backend.execute(0, &tokens).await.unwrap(), 2_100);
    assert_eq!(store.prune_sessions(backend.now()).await.unwrap(), 2_100);
    assert_eq!(backend.sum("SELECT COUNT(*) FROM refresh_tokens").await, 1);
    child(backend, &store, &live.token).await;
}

async fn of_the_tokens_of_a_session_the_last_hundred_are_known(backend: &Backend) {
    let store = backend.replica().await;
    let user = add_user(backend, &store, "alice").await;
    let mut line = vec![start(backend, &store, &user.id).await.token];
    for _ in 0..GENERATIONS_MAX {
        line.push(child(backend, &store, line.last().unwrap()).await);
    }
    assert_eq!(backend.sum("SELECT COUNT(*) FROM refresh_tokens").await, GENERATIONS_MAX);
    assert!(is_refused(backend, &store, &line[0]).await, "not known any more");
    line.push(child(backend, &store, line.last().unwrap()).await);
    assert!(is_reuse(backend, &store, &line[2]).await, "the oldest that is known");
}
