//! Moves of users between databases: while they log in and are changed, and taken up after a crash at any step.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tollgate_issuer::store::{EndReason, SlotMove, Store, StoreError, slot_of};

use super::people::{add_user, change, child, start, wishes};
use crate::stores::backend::{Backend, Kind, LIMITS, TestHost};

/// That every user is in the one database that owns the user's slot, and that the map says so.
async fn everybody_is_in_one_place(backend: &Backend, users: i64) {
    assert_eq!(backend.sum("SELECT COUNT(*) FROM users").await, users);
    assert_eq!(backend.sum("SELECT COUNT(*) FROM owned_slots").await, 256);
    assert_eq!(backend.number(0, "SELECT COUNT(*) FROM slots WHERE moving_to IS NOT NULL").await, 0);
    for shard in 0..backend.shards() {
        let elsewhere = "SELECT COUNT(*) FROM users WHERE slot NOT IN (SELECT slot FROM owned_slots)";
        assert_eq!(backend.number(shard, elsewhere).await, 0);
        let homeless = "SELECT (SELECT COUNT(*) FROM sessions WHERE user_id NOT IN (SELECT id FROM users)) + \
                        (SELECT COUNT(*) FROM refresh_tokens WHERE session_id NOT IN (SELECT id FROM sessions))";
        assert_eq!(backend.number(shard, homeless).await, 0);
        let owned = backend.number(shard, "SELECT COUNT(*) FROM owned_slots").await;
        let mapped = backend.number(0, &format!("SELECT COUNT(*) FROM slots WHERE shard = {shard}")).await;
        assert_eq!(owned, mapped);
    }
}

/// What one task did to its users.
struct Done {
    user_id: String,
    name: String,
    changes: u64,
    sessions: usize,
}

async fn live(backend: Arc<Backend>, stores: [Store; 2], task: usize, over: Arc<AtomicBool>) -> Vec<Done> {
    let mut all = Vec::new();
    let mut round = 0;
    while !over.load(Ordering::SeqCst) || round < 3 {
        let store = &stores[round % 2];
        let mut user = add_user(&backend, store, &format!("user-{task}-{round}")).await;
        let mut token = start(&backend, store, &user.id).await.token;
        let mut changes = 0;
        for number in 0..4 {
            let store = &stores[number % 2];
            user.plan = format!("plan-{number}");
            let mut change = change(&user);
            change.if_version = Some(changes + 1);
            store.change_user(&change, &*backend.host).await.unwrap();
            changes += 1;
            token = child(&backend, store, &token).await;
        }
        start(&backend, store, &user.id).await;
        all.push(Done { user_id: user.id, name: user.username, changes, sessions: 2 });
        round += 1;
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn users_log_in_and_change_while_they_are_moved_to_three_databases() {
    let backend = Arc::new(Backend::empty(Kind::Sharded).await);
    let [mover, one, other] = backend.replicas::<3>().await;
    let over = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..8)
        .map(|task| tokio::spawn(live(backend.clone(), [one.clone(), other.clone()], task, over.clone())))
        .collect();
    let moves = mover.planned_moves().await.unwrap();
    assert_eq!(moves.len(), 170);
    for planned in &moves {
        mover.move_slot(*planned).await.unwrap();
    }
    over.store(true, Ordering::SeqCst);
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    assert!(mover.planned_moves().await.unwrap().is_empty());
    println!("{} users while {} slots were moved", all.len(), moves.len());
    let fresh = backend.replica().await;
    for done in &all {
        for store in [&mover, &one, &other, &fresh] {
            let known = store.user(&done.user_id).await.unwrap().unwrap();
            assert_eq!(known.version, 1 + done.changes, "no change was lost");
            assert_eq!(store.user_named(&done.name).await.unwrap().unwrap(), known);
        }
        assert_eq!(fresh.sessions_of(&done.user_id, backend.now()).await.unwrap().len(), done.sessions);
    }
    everybody_is_in_one_place(&backend, i64::try_from(all.len()).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_move_that_a_crash_cut_short_is_taken_up() {
    let steps = [
        "move.noted",
        "move.disowned",
        "move.copied",
        "move.owned",
        "move.history_copied",
        "move.history_brought",
        "move.tidied",
        "move.settled",
    ];
    let backend = Backend::empty(Kind::Sharded).await;
    let [store, other] = backend.replicas::<2>().await;
    let mut users = 0;
    for step in steps {
        let user = add_user(&backend, &store, step).await;
        let session = start(&backend, &store, &user.id).await;
        store.end_sessions(&user.id, EndReason::Logout, "user", &*backend.host).await.unwrap();
        let session_after = start(&backend, &store, &user.id).await;
        users += 1;
        let planned = SlotMove { slot: slot_of(&user.id), from: 0, to: 1 };
        backend.host.stop_at(step);
        let crashing = store.clone();
        tokio::spawn(async move { crashing.move_slot(planned).await }).await.unwrap_err();
        // Whoever comes now is served or told to wait, and nothing is done twice.
        let meanwhile = other.user(&user.id).await;
        let moved = matches!(step, "move.settled");
        let nowhere = matches!(step, "move.disowned" | "move.copied");
        match meanwhile {
            Ok(known) => assert_eq!((known.unwrap().user.id, nowhere), (user.id.clone(), false), "{step}"),
            Err(error) => assert!(nowhere && matches!(error, StoreError::Moving), "{step}: {error}"),
        }
        match other.planned_moves().await.unwrap().first() {
            Some(begun) if !moved => {
                assert_eq!(*begun, planned, "{step}: what was begun comes first");
                other.move_slot(planned).await.unwrap();
            }
            _ => assert!(moved, "{step}"),
        }
        for store in [&store, &other] {
            assert_eq!(store.user_named(step).await.unwrap().unwrap().user.id, user.id, "{step}");
            assert!(store.move_slot(planned).await.is_err(), "{step}: it is over");
        }
        child(&backend, &other, &session_after.token).await;
        let reused = super::people::is_refused(&backend, &store, &session.token).await;
        assert!(reused, "{step}: what was ended before the move is ended after it");
        everybody_is_in_one_place(&backend, users).await;
    }
    assert_eq!(backend.sum("SELECT COUNT(*) FROM login_events").await, 2 * users, "each login once");
    assert_eq!(wishes(&backend).await, users);
    store.publish_outbox(&*backend.host).await.unwrap().unwrap();
    assert_eq!(wishes(&backend).await, 0, "wishes stay where they were made, and are found there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_move_that_fails_gives_the_slot_back_and_nobody_copies_over_it() {
    let backend = Backend::empty(Kind::Sharded).await;
    let store = backend.replica().await;
    let user = add_user(&backend, &store, "alice").await;
    let mut token = start(&backend, &store, &user.id).await.token;
    let planned = SlotMove { slot: slot_of(&user.id), from: 0, to: 1 };
    // Another mover sleeps between giving the slot up and copying it.
    let sleepy_host = TestHost::new();
    let sleepy = Store::open(&backend.place, LIMITS, sleepy_host.clone()).await.unwrap();
    let (asleep, wake) = sleepy_host.wait_at("move.disowned");
    let late = tokio::spawn(async move { sleepy.move_slot(planned).await });
    tokio::task::block_in_place(|| asleep.recv().unwrap());
    backend.execute(1, "ALTER TABLE devices RENAME TO devices_away").await.unwrap();
    store.move_slot(planned).await.unwrap_err();
    assert_eq!(backend.number(0, "SELECT COUNT(*) FROM owned_slots").await, 256, "it is given back");
    token = child(&backend, &store, &token).await;
    backend.execute(1, "ALTER TABLE devices_away RENAME TO devices").await.unwrap();
    // It would copy what is written to meanwhile, and there would be two owners.
    wake.send(()).unwrap();
    let late = late.await.unwrap();
    assert!(matches!(late, Err(StoreError::Changed)), "{late:?}");
    token = child(&backend, &store, &token).await;
    store.move_slot(planned).await.unwrap();
    child(&backend, &store, &token).await;
    everybody_is_in_one_place(&backend, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn users_are_served_while_their_history_follows_them() {
    let backend = Backend::empty(Kind::Sharded).await;
    let store = backend.replica().await;
    let user = add_user(&backend, &store, "alice").await;
    let token = start(&backend, &store, &user.id).await.token;
    let there = SlotMove { slot: slot_of(&user.id), from: 0, to: 1 };
    let mover_host = TestHost::new();
    let mover = Store::open(&backend.place, LIMITS, mover_host.clone()).await.unwrap();
    let (copied, go_on) = mover_host.wait_at("move.history_brought");
    let moving = tokio::spawn(async move { mover.move_slot(there).await });
    tokio::task::block_in_place(|| copied.recv().unwrap());
    assert!(store.user(&user.id).await.unwrap().is_some());
    let token = child(&backend, &store, &token).await;
    start(&backend, &store, &user.id).await;
    go_on.send(()).unwrap();
    moving.await.unwrap().unwrap();
    child(&backend, &store, &token).await;
    everybody_is_in_one_place(&backend, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn users_with_more_rows_than_are_copied_at_once_are_moved_whole() {
    let backend = Backend::empty(Kind::Sharded).await;
    let store = backend.replica().await;
    let user = add_user(&backend, &store, "alice").await;
    let token = start(&backend, &store, &user.id).await.token;
    let many = format!(
        "INSERT INTO login_events SELECT 'l_' || n, n, '{id}', 'done', NULL, NULL FROM generate_series(1, 2500) AS n; \
         INSERT INTO devices SELECT sha256(n::text::bytea), '{id}', n, n FROM generate_series(1, 2500) AS n",
        id = user.id
    );
    backend.execute(0, &many).await.unwrap();
    store.move_slot(SlotMove { slot: slot_of(&user.id), from: 0, to: 2 }).await.unwrap();
    for (table, rows) in [("login_events", 2501), ("devices", 2500)] {
        let rows_of = format!("SELECT COUNT(*) FROM {table} WHERE user_id = '{}'", user.id);
        let (left, moved) = (backend.number(0, &rows_of).await, backend.number(2, &rows_of).await);
        assert_eq!((left, moved), (0, rows), "{table}");
    }
    child(&backend, &store, &token).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_programs_that_move_the_same_slots_lose_nobody() {
    let backend = Backend::empty(Kind::Sharded).await;
    let stores = backend.replicas::<3>().await;
    let mut users = Vec::new();
    for number in 0..40 {
        let user = add_user(&backend, &stores[0], &format!("user-{number}")).await;
        start(&backend, &stores[0], &user.id).await;
        users.push(user);
    }
    let slots: std::collections::BTreeSet<u8> = users.iter().map(|user| slot_of(&user.id)).collect();
    for (from, to) in [(0, 1), (1, 2), (2, 0), (0, 2)] {
        let slots = slots.clone();
        crate::stores::backend::at_once(3, |number| {
            let (store, slots) = (stores[number].clone(), slots.clone());
            async move {
                for slot in slots {
                    match store.move_slot(SlotMove { slot, from, to }).await {
                        Ok(()) | Err(StoreError::Changed | StoreError::Moving) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
            }
        })
        .await;
        for user in &users {
            assert!(stores[1].user(&user.id).await.unwrap().is_some());
            assert_eq!(stores[2].sessions_of(&user.id, backend.now()).await.unwrap().len(), 1);
        }
        everybody_is_in_one_place(&backend, 40).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_move_that_slept_while_others_moved_on_does_nothing_more() {
    let backend = Backend::empty(Kind::Sharded).await;
    let store = backend.replica().await;
    for step in ["move.noted", "move.disowned", "move.owned", "move.tidied"] {
        let user = add_user(&backend, &store, step).await;
        let token = start(&backend, &store, &user.id).await.token;
        let there = SlotMove { slot: slot_of(&user.id), from: 0, to: 1 };
        let sleepy_host = TestHost::new();
        let sleepy = Store::open(&backend.place, LIMITS, sleepy_host.clone()).await.unwrap();
        let (asleep, wake) = sleepy_host.wait_at(step);
        let late = tokio::spawn(async move { sleepy.move_slot(there).await });
        tokio::task::block_in_place(|| asleep.recv().unwrap());
        store.move_slot(there).await.unwrap();
        store.move_slot(SlotMove { slot: there.slot, from: 1, to: 0 }).await.unwrap();
        wake.send(()).unwrap();
        let late = late.await.unwrap();
        assert!(matches!(late, Err(StoreError::Changed)), "{step}: {late:?}");
        child(&backend, &store, &token).await;
        let users = backend.sum("SELECT COUNT(*) FROM user_names").await;
        everybody_is_in_one_place(&backend, users).await;
    }
}
