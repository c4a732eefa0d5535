//! The feed: positions in the order of commits, each once, and nothing that a reader can miss.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tollgate_issuer::clock::random_below;
use tollgate_issuer::config::SLACK_SECONDS;
use tollgate_issuer::feed::History;
use tollgate_issuer::store::{EndReason, FeedEntryChange, LogEntry, RevocationOrder, Store};
use tollgate_shared::revocation::{
    BLOCK_INDICES, Cutoff, Dimension, Epoch, Position, RETENTION_SECONDS, StatusIndex,
};
use tollgate_shared::time::UnixSeconds;

use super::on_every_backend;
use super::people::{LIFE, add_user, child, start, wishes};
use crate::stores::backend::{Backend, TestHost, at_once};

on_every_backend!(
    of_a_hundred_revocations_none_is_passed_over,
    the_deltas_add_up_to_the_snapshot,
    what_is_revoked_keeps_its_place,
    a_wish_is_published_once_whatever_crashes,
    a_wish_is_published_once_by_many,
    a_wish_that_cannot_be_published_holds_up_no_other,
    a_cut_off_is_told_for_as_long_as_a_token_of_it_lives,
    an_ended_session_stays_ended_for_those_that_follow,
    a_block_of_indices_is_handed_out_once,
    an_entry_that_says_nothing_new_is_not_written,
    the_epoch_is_the_same_for_everybody,
    the_clock_never_goes_back,
    what_concerns_no_token_is_removed_and_positions_go_on,
);

fn session_order(id: &str) -> RevocationOrder {
    RevocationOrder::Value { dimension: Dimension::Session, issuer: None, value: id.to_owned() }
}

/// What the log says, entry by entry.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) to: Position,
    pub(super) indices: Vec<StatusIndex>,
    pub(super) cutoffs: Vec<Cutoff>,
    pub(super) keys: Option<String>,
}

/// Everything that it says.
pub(super) async fn told(store: &Store) -> Told {
    told_after(store, Position(0)).await
}

/// What it says after this position, read in pages of three.
pub(super) async fn told_after(store: &Store, after: Position) -> Told {
    let mut told = Told { to: after, ..Told::default() };
    loop {
        let page = store.read_log(Position(told.to.0 + 1), 3).await.unwrap();
        let is_last = page.len() < 3;
        for entry in page {
            assert!(entry.position > told.to, "in order");
            told.to = entry.position;
            match entry.change {
                FeedEntryChange::Index { index, .. } => told.indices.push(index),
                FeedEntryChange::Cutoff(cutoff) => told.cutoffs.push(cutoff),
                FeedEntryChange::Keys(keys) => told.keys = Some(keys),
                FeedEntryChange::Plans(_) | FeedEntryChange::Reuse => {}
            }
        }
        if is_last {
            return told;
        }
    }
}

/// What a reader has who adds up what it is told.
#[derive(Debug, Default, PartialEq)]
struct Held {
    to: Position,
    cutoffs: BTreeMap<String, Option<UnixSeconds>>,
    indices: BTreeSet<StatusIndex>,
    keys: Option<String>,
}

impl Held {
    async fn poll(&mut self, store: &Store) {
        let Told { to, indices, cutoffs, keys } = told_after(store, self.to).await;
        self.to = to;
        self.cutoffs.extend(cutoffs.into_iter().map(|cutoff| (cutoff.value, cutoff.issued_before)));
        self.indices.extend(indices);
        self.keys = keys.or_else(|| self.keys.take());
    }
}

async fn of_a_hundred_revocations_none_is_passed_over(backend: &Backend) {
    let stores = backend.replicas::<3>().await;
    let done = Arc::new(AtomicBool::new(false));
    let (store, over) = (backend.replica().await, done.clone());
    let poller = tokio::spawn(async move {
        let (mut held, mut polls) = (Held::default(), 0);
        while !over.load(Ordering::SeqCst) {
            held.poll(&store).await;
            polls += 1;
        }
        held.poll(&store).await;
        (held, polls)
    });
    let mut positions: Vec<u64> = at_once(100, |number| {
        let (store, host) = (stores[number % 3].clone(), backend.host.clone());
        async move {
            for _ in 0..random_below(&*host, 20).unwrap() {
                tokio::task::yield_now().await;
            }
            let order = session_order(&format!("s_{number}"));
            store.revoke(&order, None, "operator test", &*host).await.unwrap().position.0
        }
    })
    .await;
    done.store(true, Ordering::SeqCst);
    let (held, polls) = poller.await.unwrap();
    positions.sort_unstable();
    assert_eq!(positions, (1..=100).collect::<Vec<u64>>());
    assert_eq!(held.to, Position(100));
    let wanted: BTreeSet<String> = (0..100).map(|number| format!("s_{number}")).collect();
    assert_eq!(held.cutoffs.into_keys().collect::<BTreeSet<_>>(), wanted, "after {polls} polls");
}

async fn the_deltas_add_up_to_the_snapshot(backend: &Backend) {
    let store = backend.replica().await;
    let host = &*backend.host;
    let block = store.take_block(backend.now(), backend.now().plus(3_600)).await.unwrap();
    let mut held = Held::default();
    for number in 0..30_u32 {
        let index = StatusIndex(u32::from(block.number) * BLOCK_INDICES + number);
        if number % 3 == 2 {
            let keys = LogEntry::Keys(format!("keys {number}"));
            store.log_if_changed(&keys, backend.now()).await.unwrap();
        } else {
            let session = session_order(&number.to_string());
            let order = if number % 3 == 0 { RevocationOrder::Index(index) } else { session };
            store.revoke(&order, None, "operator test", host).await.unwrap();
        }
        if number % 4 == 0 {
            held.poll(&store).await;
        }
    }
    held.poll(&store).await;
    let mut whole = Held::default();
    whole.poll(&store).await;
    assert_eq!(held, whole);
    assert_eq!((whole.cutoffs.len(), whole.indices.len(), whole.keys.as_deref()), (10, 10, Some("keys 29")));
    store.log_if_changed(&LogEntry::Plans("[]".to_owned()), backend.now()).await.unwrap();
    // What a history of it has in force is the same, and when its block expires.
    let mut history = History::new(Epoch([1; 16]), 4);
    history.append(store.read_log(Position(0), 100).await.unwrap(), backend.now());
    let revoked = history.whole().unwrap().revoked;
    assert_eq!(revoked.indices.iter().collect::<BTreeSet<_>>(), held.indices);
    assert_eq!(revoked.cutoffs.len(), 10);
    let expiry = revoked.indices.expiry(block.number).unwrap();
    assert_eq!(expiry.expires_at, block.expires_at);
    for far in [Position(32), Position(i64::MAX as u64), Position(u64::MAX)] {
        assert!(store.read_log(far, 1_000).await.unwrap().is_empty());
    }
}

async fn what_is_revoked_keeps_its_place(backend: &Backend) {
    let stores = backend.replicas::<2>().await;
    let block = stores[0].take_block(backend.now(), backend.now().plus(3_600)).await.unwrap();
    let order = RevocationOrder::Index(StatusIndex(u32::from(block.number) * BLOCK_INDICES + 5));
    let logged = at_once(10, |number| {
        let (store, host, order) = (stores[number % 2].clone(), backend.host.clone(), order.clone());
        async move { store.revoke(&order, None, "operator test", &*host).await.unwrap() }
    })
    .await;
    assert_eq!(logged.iter().filter(|logged| logged.new).count(), 1);
    assert!(logged.iter().all(|logged| logged.position == Position(1)));
    let unknown = RevocationOrder::Index(StatusIndex(60_000 * BLOCK_INDICES));
    stores[0].revoke(&unknown, None, "operator test", &*backend.host).await.unwrap_err();
}

async fn a_wish_is_published_once_whatever_crashes(backend: &Backend) {
    let store = backend.replica().await;
    let host = &*backend.host;
    for number in 0..6 {
        let user = add_user(backend, &store, &format!("user-{number}")).await;
        start(backend, &store, &user.id).await;
        store.end_sessions(&user.id, EndReason::Logout, "user", host).await.unwrap();
    }
    backend.host.stop_at("outbox.published");
    let (crashing, its_host) = (store.clone(), backend.host.clone());
    tokio::spawn(async move { crashing.publish_outbox(&*its_host).await }).await.unwrap_err();
    backend.host.advance(600);
    let told = store.publish_outbox(host).await.unwrap();
    assert_eq!(told, Some(Position(6)), "one entry each");
    assert_eq!(store.position().await.unwrap(), Position(6));
    assert_eq!(wishes(backend).await, 0);
    assert_eq!(store.publish_outbox(host).await.unwrap(), None);
}

async fn a_wish_is_published_once_by_many(backend: &Backend) {
    let stores = backend.replicas::<4>().await;
    let host = &*backend.host;
    for number in 0..20 {
        let user = add_user(backend, &stores[0], &format!("user-{number}")).await;
        start(backend, &stores[0], &user.id).await;
        stores[0].end_sessions(&user.id, EndReason::Logout, "user", host).await.unwrap();
    }
    at_once(4, |number| {
        let (store, host) = (stores[number].clone(), backend.host.clone());
        async move { store.publish_outbox(&*host).await.unwrap() }
    })
    .await;
    assert_eq!(stores[0].position().await.unwrap(), Position(20));
    assert_eq!(wishes(backend).await, 0);
    stores[0].prune_outbox(backend.now().plus(8 * 86_400)).await.unwrap();
    assert_eq!(backend.sum("SELECT COUNT(*) FROM outbox_published").await, 0);
}

async fn a_wish_that_cannot_be_published_holds_up_no_other(backend: &Backend) {
    let store = backend.replica().await;
    let host = &*backend.host;
    // More of them than are read at once, and older than all others.
    let spoilt = "INSERT INTO outbox (id, dimension, value, ends_sessions, actor, created_at) \
                  WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1100) \
                  SELECT 'o_' || i, 'nothing', 'x', 0, 'test', 1 FROM n";
    for shard in 0..backend.shards() {
        backend.execute(shard, spoilt).await.unwrap();
    }
    let user = add_user(backend, &store, "alice").await;
    let session = start(backend, &store, &user.id).await;
    let wished = store.end_session(&user.id, &session.id, EndReason::Logout, "user", host).await.unwrap();
    assert_eq!(store.publish(&wished, host).await.unwrap(), Some(Position(1)), "its own, and nobody else's");
    assert_eq!(store.publish(&wished, host).await.unwrap(), Some(Position(1)), "once");
    start(backend, &store, &user.id).await;
    store.end_sessions(&user.id, EndReason::Logout, "user", host).await.unwrap();
    store.publish_outbox(host).await.unwrap_err();
    assert_eq!(store.position().await.unwrap(), Position(2), "what can be published is");
    assert_eq!(backend.sum("SELECT COUNT(*) FROM outbox WHERE dimension <> 'nothing'").await, 0);
}

async fn a_cut_off_is_told_for_as_long_as_a_token_of_it_lives(backend: &Backend) {
    let store = backend.replica().await;
    let host = &*backend.host;
    let user = add_user(backend, &store, "alice").await;
    let first = start(backend, &store, &user.id).await;
    backend.host.advance(100);
    let (second, third) =
        (start(backend, &store, &user.id).await, start(backend, &store, &user.id).await.token);
    let ends = |issued_at: UnixSeconds| issued_at.plus(LIFE.seconds + SLACK_SECONDS);
    let last = async || told(&store).await.cutoffs.pop().unwrap();
    let wished = store.end_session(&user.id, &first.id, EndReason::Logout, "user", host).await.unwrap();
    store.publish(&wished, host).await.unwrap();
    assert_eq!((last().await.value, last().await.until), (first.id, ends(first.issued_at)));
    backend.host.advance(200);
    child(backend, &store, &third).await;
    let refreshed_at = backend.now();
    backend.host.advance(100);
    let wished = store.end_sessions(&user.id, EndReason::Logout, "user", host).await.unwrap();
    // Started before the wish is published, it is dated before what that cuts off.
    let between = start(backend, &store, &user.id).await;
    store.publish(&wished, host).await.unwrap();
    assert!(ends(between.issued_at) > ends(refreshed_at) && refreshed_at > second.issued_at);
    // For an hour at least, because of the user's API keys.
    let until = ends(between.issued_at).max(backend.now().plus(3600));
    assert_eq!((last().await.value, last().await.until), (user.id.clone(), until));
    // What ends when nothing of it is in force any more is told to nobody, and over all the same.
    let idle = start(backend, &store, &user.id).await;
    backend.host.advance(LIFE.seconds + SLACK_SECONDS + RETENTION_SECONDS + 60);
    let position = store.position().await.unwrap();
    let wished = store.end_session(&user.id, &idle.id, EndReason::Logout, "user", host).await.unwrap();
    store.publish(&wished, host).await.unwrap();
    assert_eq!((store.position().await.unwrap(), wishes(backend).await), (position, 0));
    let cut = format!("SELECT COUNT(*) FROM cutoffs WHERE dimension = 'session' AND value = '{}'", idle.id);
    assert_eq!(backend.number(0, &cut).await, 1);
}

async fn an_ended_session_stays_ended_for_those_that_follow(backend: &Backend) {
    let store = backend.replica().await;
    let user = add_user(backend, &store, "alice").await;
    for _ in 0..3 {
        let session = start(backend, &store, &user.id).await;
        let order =
            RevocationOrder::Value { dimension: Dimension::Subject, issuer: None, value: user.id.clone() };
        store.revoke(&order, None, "operator test", &*backend.host).await.unwrap();
        let cut = super::people::cut_off(&store, &user.id).await;
        assert!(cut.issued_before.unwrap() > session.issued_at, "each is dated after the one before");
        assert!(cut.began_before.unwrap() > session.issued_at);
    }
}

async fn a_block_of_indices_is_handed_out_once(backend: &Backend) {
    let stores = backend.replicas::<8>().await;
    let taken = at_once(40, |number| {
        let (store, now) = (stores[number % 8].clone(), backend.now());
        async move { store.take_block(now, now.plus(3_600)).await.unwrap().number }
    })
    .await;
    assert_eq!(taken.into_iter().collect::<BTreeSet<u16>>(), (0..40).collect());
}

async fn an_entry_that_says_nothing_new_is_not_written(backend: &Backend) {
    let stores = backend.replicas::<8>().await;
    for (round, body) in ["one", "two"].into_iter().enumerate() {
        let logged = at_once(16, |number| {
            let (store, now) = (stores[number % 8].clone(), backend.now());
            async move { store.log_if_changed(&LogEntry::Plans(body.to_owned()), now).await.unwrap() }
        })
        .await;
        let logged: Vec<Position> = logged.into_iter().flatten().collect();
        assert_eq!(logged, [Position(round as u64 + 1)]);
    }
}

async fn the_epoch_is_the_same_for_everybody(backend: &Backend) {
    let stores = backend.replicas::<8>().await;
    let epochs = at_once(8, |number| {
        let (store, host): (Store, Arc<TestHost>) = (stores[number].clone(), backend.host.clone());
        async move { store.epoch(&*host).await.unwrap().to_hex() }
    })
    .await;
    assert_eq!(epochs.into_iter().collect::<BTreeSet<_>>().len(), 1);
}

async fn the_clock_never_goes_back(backend: &Backend) {
    use tollgate_shared::time::UnixMillis;
    let stores = backend.replicas::<2>().await;
    at_once(20, |number| {
        let store = stores[number % 2].clone();
        async move { store.raise_clock_floor(UnixMillis(1_000 + number as u64)).await.unwrap() }
    })
    .await;
    assert_eq!(stores[0].raise_clock_floor(UnixMillis(5)).await.unwrap(), UnixMillis(1_019));
}

async fn what_concerns_no_token_is_removed_and_positions_go_on(backend: &Backend) {
    let store = backend.replica().await;
    for number in 0..5 {
        store
            .revoke(&session_order(&number.to_string()), None, "operator test", &*backend.host)
            .await
            .unwrap();
    }
    backend.host.advance(100 * 86_400);
    assert_eq!(store.prune_feed_log(backend.now()).await.unwrap(), 4, "the last one stays");
    let next = store.revoke(&session_order("next"), None, "operator test", &*backend.host).await.unwrap();
    assert_eq!(next.position, Position(6));
}
