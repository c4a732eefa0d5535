//! Killed while something is revoked, a session ended, or one begun.

use serde_json::json;

use super::bench::{Backend, Bench, Body, PASSWORD};
use super::rotation::OUTBOX_STEPS;

pub(super) const REVOKE_STEPS: &[&str] = &["feed.before_commit", "feed.committed"];
pub(super) const END_STEPS: &[&str] = &["revoke.ended", "revoke.before_commit", "revoke.committed"];
pub(super) const LOGIN_STEPS: &[&str] = &[
    "block.before_commit",
    "block.committed",
    "login.session_written",
    "login.before_commit",
    "login.committed",
];

/// What was acknowledged is told to edges afterwards; what was not may have happened, and is whole if it has.
async fn a_revocation_that_was_acknowledged_is_served(backend: Backend) {
    let mut bench = Bench::new(backend, 0).await;
    let mut acknowledged = Vec::new();
    for (number, step) in REVOKE_STEPS.iter().enumerate() {
        let name = format!("user{number}");
        let user = bench.add_user(&name).await;
        let before = bench.login(&name).await;
        bench.issuer.revoke_subject(&user).await.unwrap();
        acknowledged.push(before.access);
        let after = bench.login(&name).await;
        let order = json!({ "dimension": "subject", "value": user });
        bench.kill_at_operator(step, "/v1/admin/revocations", &order).await;
        bench.poll().await;
        for token in &acknowledged {
            assert!(bench.edge_refuses(token), "{step}");
        }
        let logged = format!("SELECT COUNT(*) FROM feed_log WHERE kind = 'cutoff' AND value = '{user}'");
        let logged = bench.numbers(&logged).await;
        assert_eq!(logged, [if *step == "feed.committed" { 2 } else { 1 }], "{step}");
        assert_eq!(bench.edge_refuses(&after.access), logged == [2], "{step}");
        assert_eq!(
            bench.refresh(&after.refresh).await.is_none(),
            logged == [2],
            "{step}: sessions go with tokens"
        );
        bench.issuer.revoke_subject(&user).await.unwrap();
        bench.poll().await;
        assert!(bench.edge_refuses(&after.access), "{step}");
        let new = bench.login(&name).await;
        assert!(!bench.edge_refuses(&new.access), "{step}");
    }
    bench.check_feed(&acknowledged).await;
}

/// An ended session is refused by the issuer and by edges, or by neither.
async fn a_session_is_ended_or_not(backend: Backend) {
    let mut bench = Bench::new(backend, 0).await;
    bench.add_user("alice").await;
    for step in [END_STEPS, OUTBOX_STEPS].concat() {
        let committed = !matches!(step, "revoke.ended" | "revoke.before_commit");
        let (one, two) = (bench.login("alice").await, bench.login("alice").await);
        bench.kill_at_request(step, "/v1/logout", Some(&one.access), Body::Empty).await;
        bench.poll().await;
        assert_eq!(bench.edge_refuses(&one.access), committed, "{step}");
        assert_eq!(bench.refresh(&one.refresh).await.is_none(), committed, "{step}");
        assert!(!bench.edge_refuses(&two.access), "{step}: only that session is ended");
        let (access, refresh) = bench.refresh(&two.refresh).await.expect(step);
        bench.kill_at_request(step, "/v1/logout-all", Some(&access), Body::Empty).await;
        bench.poll().await;
        assert_eq!(bench.edge_refuses(&access), committed, "{step}");
        assert_eq!(bench.refresh(&refresh).await.is_none(), committed, "{step}");
        if !committed {
            bench.log_out("/v1/logout", &one.access).await;
            bench.log_out("/v1/logout-all", &access).await;
        }
        bench.poll().await;
        assert!(bench.edge_refuses(&one.access) && bench.edge_refuses(&access), "{step}");
        assert_eq!(bench.numbers("SELECT COUNT(*) FROM outbox").await, [0], "{step}");
        let new = bench.login("alice").await;
        assert!(!bench.edge_refuses(&new.access), "{step}");
    }
    bench.check_feed(&[]).await;
}

/// Sessions that were acknowledged last; of one that was not nobody has a token, and no index is given twice.
async fn a_login_that_was_acknowledged_lasts(backend: Backend) {
    let mut bench = Bench::new(backend, 0).await;
    let user = bench.add_user("alice").await;
    let count = format!("SELECT COUNT(*) FROM sessions WHERE user_id = '{user}'");
    let mut tokens = Vec::new();
    for step in LOGIN_STEPS {
        let before = bench.login("alice").await;
        let known = bench.numbers(&count).await[0];
        let login = json!({ "username": "alice", "password": PASSWORD });
        bench.kill_at_request(step, "/v1/login", None, Body::Json(&login)).await;
        let left = bench.numbers(&count).await[0] - known;
        assert_eq!(left, i64::from(*step == "login.committed"), "{step}");
        let leaves = "SELECT COUNT(*) FROM sessions WHERE (SELECT COUNT(*) FROM refresh_tokens \
                      WHERE session_id = sessions.id AND rotated_at_ms IS NULL) <> 1";
        assert_eq!(bench.numbers(leaves).await, [0], "{step}: no session is half there");
        bench.poll().await;
        assert!(!bench.edge_refuses(&before.access), "{step}");
        let (access, _) = bench.refresh(&before.refresh).await.expect(step);
        let after = bench.login("alice").await;
        tokens.extend([before.access, access, after.access]);
    }
    bench.check_feed(&tokens).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_that_was_acknowledged_is_served_on_sqlite() {
    a_revocation_that_was_acknowledged_is_served(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_that_was_acknowledged_is_served_on_postgres() {
    a_revocation_that_was_acknowledged_is_served(Backend::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_ended_or_not_on_sqlite() {
    a_session_is_ended_or_not(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_ended_or_not_on_postgres() {
    a_session_is_ended_or_not(Backend::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_was_acknowledged_lasts_on_sqlite() {
    a_login_that_was_acknowledged_lasts(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_was_acknowledged_lasts_on_postgres() {
    a_login_that_was_acknowledged_lasts(Backend::Postgres).await;
}
