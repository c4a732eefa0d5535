//! Killed while a refresh token is exchanged, or while its reuse is punished.

use super::bench::{Backend, Bench};

pub(super) const ROTATION_STEPS: &[&str] = &[
    "block.before_commit",
    "block.committed",
    "rotate.parent_marked",
    "rotate.child_written",
    "rotate.before_commit",
    "rotate.committed",
];
pub(super) const REUSE_STEPS: &[&str] = &["revoke.ended", "reuse.before_commit", "reuse.committed"];
/// What follows on every change that cuts somebody off.
pub(super) const OUTBOX_STEPS: &[&str] = &["outbox.before_publish", "outbox.published"];
/// Reached only for users in a database other than the home one. That a wish is published once although its removal was
/// lost is a rule of the store, tried on several databases in `stores::contract::feed`.
pub(super) const ELSEWHERE_STEPS: &[&str] = &["outbox.before_removal", "outbox.removed"];

/// What a client does that got no answer is ask again. It gets a child, the same one each time, and goes on with it.
async fn a_rotation_is_done_or_not(backend: Backend) {
    let mut bench = Bench::new(backend, 0).await;
    bench.add_user("alice").await;
    for step in ROTATION_STEPS {
        let session = bench.login("alice").await;
        bench.kill_at_refresh(step, &session.refresh).await;
        let id = &session.id;
        let leaves = format!(
            "SELECT COUNT(*) FROM refresh_tokens WHERE session_id = '{id}' AND rotated_at_ms IS NULL"
        );
        assert_eq!(bench.numbers(&leaves).await, [1], "{step}: one token is current, the old or its child");
        let (access, child) = bench.refresh(&session.refresh).await.expect(step);
        let (_, again) = bench.refresh(&session.refresh).await.expect(step);
        assert_eq!(child, again, "{step}: there is one line of tokens");
        let generations = format!("SELECT MAX(generation) FROM refresh_tokens WHERE session_id = '{id}'");
        assert_eq!(bench.numbers(&generations).await, [1], "{step}");
        let mut newest = (access, child);
        for _ in 0..3 {
            newest = bench.refresh(&newest.1).await.expect(step);
        }
        bench.poll().await;
        assert!(!bench.edge_refuses(&newest.0), "{step}: our own retry revoked nothing");
        assert!(bench.refresh(&session.refresh).await.is_none(), "{step}: the old one is used up");
        assert!(bench.refresh(&newest.1).await.is_none(), "{step}: its reuse ends the family");
    }
    bench.check_feed(&[]).await;
}

/// The family is over once that was committed, and edges know as soon as the issuer serves again. If it was not, nobody
/// was told that it is, and the next attempt ends it.
async fn a_reuse_ends_the_family(backend: Backend) {
    let mut bench = Bench::new(backend, 0).await;
    bench.add_user("alice").await;
    for step in [REUSE_STEPS, OUTBOX_STEPS].concat() {
        let session = bench.login("alice").await;
        let (_, first) = bench.refresh(&session.refresh).await.unwrap();
        let (access, newest) = bench.refresh(&first).await.unwrap();
        bench.kill_at_refresh(step, &session.refresh).await;
        let committed = !matches!(step, "revoke.ended" | "reuse.before_commit");
        bench.poll().await;
        assert_eq!(bench.edge_refuses(&access), committed, "{step}: what is committed is in the first poll");
        if !committed {
            assert!(bench.refresh(&session.refresh).await.is_none(), "{step}");
            bench.poll().await;
        }
        for token in [&session.refresh, &first, &newest] {
            assert!(bench.refresh(token).await.is_none(), "{step}");
        }
        assert!(bench.edge_refuses(&access) && bench.edge_refuses(&session.access), "{step}");
        assert_eq!(bench.numbers("SELECT COUNT(*) FROM outbox").await, [0], "{step}");
    }
    bench.check_feed(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_is_done_or_not_on_sqlite() {
    a_rotation_is_done_or_not(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_is_done_or_not_on_postgres() {
    a_rotation_is_done_or_not(Backend::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reuse_ends_the_family_on_sqlite() {
    a_reuse_ends_the_family(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reuse_ends_the_family_on_postgres() {
    a_reuse_ends_the_family(Backend::Postgres).await;
}
