//! Killed while a user is added, given another password, or deleted.

use serde_json::json;

use super::bench::{Backend, Bench, PASSWORD};
use super::rotation::OUTBOX_STEPS;

pub(super) const CREATION_STEPS: &[&str] =
    &["user.name_before_commit", "user.name_taken", "user.before_commit", "user.committed"];
pub(super) const PASSWORD_STEPS: &[&str] = &[
    "user.rights_written",
    "user.password_written",
    "revoke.ended",
    "user.change_before_commit",
    "user.changed",
];
pub(super) const DELETION_STEPS: &[&str] = &[
    "revoke.ended",
    "user.deletion_before_commit",
    "user.deleted",
    "user.name_free_before_commit",
    "user.name_free",
];
const OTHER_PASSWORD: &str = "another horse battery";
/// So long after it was taken that a name without a user is free.
const TWO_MINUTES: (&str, &str) = ("TOLLGATE_CLOCK_AHEAD", "120");

impl Bench {
    /// Adds a user with the other password; `false` when there is one of this name.
    async fn add_with_other_password(&self, name: &str) -> bool {
        let user = json!({ "username": name, "password": OTHER_PASSWORD });
        let answer = self.issuer.operator("POST", "/v1/admin/users").json(&user).send().await.unwrap();
        assert!(matches!(answer.status, 201 | 409), "{answer}");
        answer.status == 201
    }

    /// Which of the two passwords are right.
    async fn right_passwords(&self, name: &str) -> (bool, bool) {
        let first = self.try_login(name, PASSWORD).await.is_some();
        (first, self.try_login(name, OTHER_PASSWORD).await.is_some())
    }
}

/// There is a user or there is none; if there is none, the name is free after a minute at the latest.
async fn a_user_is_added_or_not(backend: Backend) {
    let mut bench = Bench::new(backend, 0).await;
    let mut absent = Vec::new();
    for step in CREATION_STEPS {
        let user = json!({ "username": step, "password": PASSWORD });
        bench.kill_at_operator(step, "/v1/admin/users", &user).await;
        let there = bench.try_login(step, PASSWORD).await.is_some();
        assert_eq!(there, *step == "user.committed", "{step}");
        if there || !bench.add_with_other_password(step).await {
            assert_eq!(bench.right_passwords(step).await, (there, false), "{step}");
            absent.extend((!there).then_some(*step));
        } else {
            assert_eq!(bench.right_passwords(step).await, (false, true), "{step}");
        }
    }
    bench.issuer.restart_with(&[TWO_MINUTES]).await.unwrap();
    assert!(!absent.is_empty(), "a name is held for a minute: its user may be on the way");
    for step in absent {
        assert!(bench.add_with_other_password(step).await, "{step}: the name is free");
        assert_eq!(bench.right_passwords(step).await, (false, true), "{step}");
    }
    assert!(!bench.add_with_other_password("user.committed").await, "that one has a user");
}

/// One password is right, the old or the new; with the new one, what was got by the old one is worth nothing.
async fn a_password_is_changed_or_not(backend: Backend) {
    let mut bench = Bench::new(backend, 0).await;
    for step in [PASSWORD_STEPS, OUTBOX_STEPS].concat() {
        bench.add_user(step).await;
        let session = bench.login(step).await;
        bench.kill_at_order(step, &["set-password", step, OTHER_PASSWORD]).await;
        let changed = PASSWORD_STEPS.last() == Some(&step) || OUTBOX_STEPS.contains(&step);
        assert_eq!(bench.right_passwords(step).await, (!changed, changed), "{step}");
        bench.poll().await;
        assert_eq!(bench.edge_refuses(&session.access), changed, "{step}");
        assert_eq!(bench.refresh(&session.refresh).await.is_none(), changed, "{step}");
        bench.act(&["set-password", step, OTHER_PASSWORD]).await;
        assert_eq!(bench.right_passwords(step).await, (false, true), "{step}");
        bench.poll().await;
        assert!(bench.edge_refuses(&session.access), "{step}");
    }
    bench.check_feed(&[]).await;
}

/// The user is there with everything, or gone with everything; once gone, the name can be given to somebody else.
async fn a_user_is_deleted_or_not(backend: Backend) {
    let mut bench = Bench::new(backend, 0).await;
    let mut held = Vec::new();
    for step in [DELETION_STEPS, OUTBOX_STEPS].concat() {
        bench.add_user(step).await;
        let session = bench.login(step).await;
        bench.kill_at_order(step, &["delete", &session.user]).await;
        let deleted = !matches!(step, "revoke.ended" | "user.deletion_before_commit");
        let user = format!("SELECT COUNT(*) FROM users WHERE id = '{}'", session.user);
        assert_eq!(bench.numbers(&user).await, [i64::from(!deleted)], "{step}");
        assert_eq!(bench.try_login(step, PASSWORD).await.is_none(), deleted, "{step}");
        bench.poll().await;
        assert_eq!(bench.edge_refuses(&session.access), deleted, "{step}");
        assert_eq!(bench.refresh(&session.refresh).await.is_none(), deleted, "{step}");
        if !deleted {
            bench.act(&["delete", &session.user]).await;
            bench.poll().await;
            assert!(bench.edge_refuses(&session.access), "{step}");
        }
        if !bench.add_with_other_password(step).await {
            held.push(step);
        }
    }
    assert_eq!(held, ["user.deleted", "user.name_free_before_commit"], "the name goes after the user");
    bench.issuer.restart_with(&[TWO_MINUTES]).await.unwrap();
    for step in held {
        assert!(bench.add_with_other_password(step).await, "{step}: the name is free");
        assert_eq!(bench.right_passwords(step).await, (false, true), "{step}");
    }
    bench.check_feed(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_added_or_not_on_sqlite() {
    a_user_is_added_or_not(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_added_or_not_on_postgres() {
    a_user_is_added_or_not(Backend::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_changed_or_not_on_sqlite() {
    a_password_is_changed_or_not(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_changed_or_not_on_postgres() {
    a_password_is_changed_or_not(Backend::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_deleted_or_not_on_sqlite() {
    a_user_is_deleted_or_not(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_deleted_or_not_on_postgres() {
    a_user_is_deleted_or_not(Backend::Postgres).await;
}
