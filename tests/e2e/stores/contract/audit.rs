//! The audit log: added to, read, removed when its time is over, and never changed.

use tollgate_issuer::audit::{Action, AuditEvent, AuditQuery};
use tollgate_issuer::store::Store;

use super::on_every_backend;
use crate::stores::backend::{Backend, Kind, TestHost, at_once};

on_every_backend!(
    an_event_is_never_changed,
    events_are_found_by_what_they_say,
    who_follows_the_log_misses_no_event,
    what_is_past_its_time_is_dropped_part_by_part,
    more_events_than_are_removed_at_once_are_removed,
    parts_can_be_prepared_while_events_come,
);

const PART_SECONDS: u64 = 30 * 86_400;

fn event(actor: &str, action: Action, target: &str) -> AuditEvent {
    AuditEvent::done(actor, action, target)
}

async fn count(store: &Store) -> usize {
    store.audit(&AuditQuery::default(), 100_000).await.unwrap().len()
}

async fn an_event_is_never_changed(backend: &Backend) {
    let store = backend.replica().await;
    store.add_audit(&[event("operator a", Action::ALL[0], "alice")], &*backend.host).await.unwrap();
    let refused = backend.execute(0, "UPDATE audit SET actor = 'nobody'").await.unwrap_err();
    assert!(refused.to_string().contains("append-only"), "{refused}");
    store.prepare_parts(backend.now()).await.unwrap();
    backend.execute(0, "UPDATE audit SET actor = 'nobody'").await.unwrap_err();
    assert_eq!(store.audit(&AuditQuery::default(), 10).await.unwrap()[0].actor, "operator a");
}

async fn events_are_found_by_what_they_say(backend: &Backend) {
    let store = backend.replica().await;
    let began = backend.now();
    for number in 0..20 {
        let actor = format!("operator {}", number % 2);
        let target = format!("user {}", number % 5);
        store.add_audit(&[event(&actor, Action::ALL[number % 4], &target)], &*backend.host).await.unwrap();
        backend.host.advance(1);
    }
    let all = store.audit(&AuditQuery::default(), 100).await.unwrap();
    assert!(all.is_sorted_by(|one, next| one.id < next.id && one.at < next.at));
    let find = async |query: AuditQuery| store.audit(&query, 100).await.unwrap().len();
    let any = AuditQuery::default;
    assert_eq!(find(AuditQuery { actor: Some("operator 1".to_owned()), ..any() }).await, 10);
    assert_eq!(find(AuditQuery { action: Some(Action::ALL[2].name().to_owned()), ..any() }).await, 5);
    assert_eq!(find(AuditQuery { target: Some("user 4".to_owned()), ..any() }).await, 4);
    assert_eq!(find(AuditQuery { since: Some(began.plus(5)), until: Some(began.plus(9)), ..any() }).await, 5);
    assert_eq!(find(AuditQuery { actor: Some("' OR 1 = 1 --".to_owned()), ..any() }).await, 0);
    let mut paged = Vec::new();
    loop {
        let after = paged.last().map(|record: &tollgate_issuer::audit::AuditRecord| record.id.clone());
        let page = store.audit(&AuditQuery { after, ..any() }, 6).await.unwrap();
        if page.is_empty() {
            break;
        }
        paged.extend(page);
    }
    assert_eq!(paged, all);
}

async fn who_follows_the_log_misses_no_event(backend: &Backend) {
    let stores = backend.replicas::<3>().await;
    let (writers, hosts) = (stores.clone(), [TestHost::new(), TestHost::new(), TestHost::new()]);
    // Their clocks differ.
    hosts[1].advance(3600);
    hosts[2].set_back(3600);
    let adding = tokio::spawn(async move {
        at_once(60, |number| {
            let (store, host) = (writers[number % 3].clone(), hosts[number % 3].clone());
            let event = event("operator a", Action::Login, &format!("user {number}"));
            async move { store.add_audit(&[event], &*host).await.unwrap() }
        })
        .await
    });
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let ended = adding.is_finished();
        let page = stores[0].audit(&AuditQuery { after: after.clone(), ..AuditQuery::default() }, 7).await;
        let page = page.unwrap();
        if page.is_empty() && ended {
            break;
        }
        after = page.last().map(|event| event.id.clone()).or(after);
        seen.extend(page);
    }
    adding.await.unwrap();
    assert_eq!(seen.len(), 60);
}

/// The parts of the audit log besides the one for what has none, by the catalogue.
async fn parts(backend: &Backend) -> i64 {
    let query = "SELECT COUNT(*) FROM pg_inherits JOIN pg_class ON oid = inhrelid \
                 WHERE inhparent = 'audit'::regclass AND relname <> 'audit_rest'";
    backend.number(0, query).await
}

async fn what_is_past_its_time_is_dropped_part_by_part(backend: &Backend) {
    let store = backend.replica().await;
    let parted = backend.kind != Kind::Sqlite;
    store.add_audit(&[event("early", Action::ALL[0], "alice")], &*backend.host).await.unwrap();
    if parted {
        assert_eq!(backend.number(0, "SELECT COUNT(*) FROM audit_rest").await, 1, "there was no part for it");
    }
    for round in 0..4 {
        store.prepare_parts(backend.now()).await.unwrap();
        if parted {
            assert_eq!(parts(backend).await, 3 + round, "this one and two ahead");
            assert_eq!(backend.number(0, "SELECT COUNT(*) FROM audit_rest").await, 0);
        }
        store.add_audit(&[event("then", Action::ALL[0], "alice")], &*backend.host).await.unwrap();
        if parted {
            assert_eq!(backend.number(0, "SELECT COUNT(*) FROM audit_rest").await, 0, "the part was there");
        }
        backend.host.advance(PART_SECONDS);
    }
    assert_eq!(count(&store).await, 5);
    // Two parts are over, and the third by half: its events go one by one.
    let start = (backend.now().0 / PART_SECONDS - 4) * PART_SECONDS;
    let before = tollgate_shared::time::UnixSeconds(start + 2 * PART_SECONDS + 10);
    store.prune_audit(before).await.unwrap();
    if parted {
        assert_eq!(parts(backend).await, 4);
    }
    assert_eq!(count(&store).await, 2);
    let left = store.audit(&AuditQuery::default(), 10).await.unwrap();
    assert!(left.iter().all(|record| record.at >= before));
}

async fn more_events_than_are_removed_at_once_are_removed(backend: &Backend) {
    let store = backend.replica().await;
    store.add_audit(&[event("late", Action::ALL[0], "alice")], &*backend.host).await.unwrap();
    let numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 11000)";
    let audit = format!(
        "INSERT INTO audit (id, at, actor, action, target, outcome, detail) {numbers} \
         SELECT 'e_' || i, i, 'early', 'login', 'alice', 'done', '' FROM n"
    );
    let logins = format!(
        "INSERT INTO login_events (id, at, user_id, outcome) {numbers} SELECT 'l_' || i, i, 'u_gone', 'done' FROM n"
    );
    for statement in [audit, logins] {
        backend.execute(backend.shards() - 1, &statement).await.unwrap();
    }
    assert_eq!(store.prune_audit(backend.now()).await.unwrap(), 22_000);
    assert_eq!(store.prune_audit(backend.now()).await.unwrap(), 0);
    assert_eq!(count(&store).await, 1);
}

async fn parts_can_be_prepared_while_events_come(backend: &Backend) {
    let stores = backend.replicas::<3>().await;
    at_once(9, |number| {
        let (store, host, now) = (stores[number % 3].clone(), backend.host.clone(), backend.now());
        async move {
            if number < 3 {
                store.prepare_parts(now).await.unwrap();
            } else {
                for _ in 0..20 {
                    store.add_audit(&[event("busy", Action::ALL[0], "alice")], &*host).await.unwrap();
                }
            }
        }
    })
    .await;
    assert_eq!(count(&stores[0]).await, 120);
}
