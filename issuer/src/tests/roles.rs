//! Whose tokens are cut off when a role permits less.

use std::sync::mpsc;

use tollgate_shared::revocation::Dimension;

use super::*;
use crate::store::{NewUser, RevocationQuery, RevocationRecord, RevokedValue, Role, User};

impl Bench {
    /// Adds a user with this role, who has no password.
    async fn has_role(&self, name: &str, role: &str) {
        let (id, username) = (format!("u_{name}"), name.to_owned());
        let roles = vec!["reader".to_owned(), role.to_owned()];
        let (plan, scopes) = ("free".to_owned(), Vec::new());
        let user = User { id, username, plan, roles, scopes, tenant: None, disabled: false };
        let new = NewUser { user, password_hash: "$argon2id$none".to_owned() };
        self.app.store.add_user(&new, self.host.seconds()).await.unwrap();
    }

    /// What was revoked so far, oldest first.
    async fn cut_off(&self) -> Vec<(Dimension, RevokedValue, Option<String>)> {
        let found = self.app.store.revocations(&RevocationQuery::default(), 1_000).await.unwrap();
        let what = |found: RevocationRecord| (found.dimension, found.value, found.reason);
        found.into_iter().map(what).collect()
    }
}

#[tokio::test]
async fn of_a_role_that_too_many_have_all_tokens_are_cut_off_and_no_session_ends() {
    let bench = Bench::new().await;
    let edge = bench.edge("eu-1").await;
    for role in ["Crowd_1", "crowdx1"] {
        bench.make("/v1/admin/roles", json!({ "name": role, "permissions": ["file"] })).await;
    }
    for number in 0..3 {
        bench.has_role(&format!("one-{number}"), "Crowd_1").await;
        bench.has_role(&format!("other-{number}"), "crowdx1").await;
    }
    let path = "/v1/admin/roles/Crowd_1";
    // Who is permitted more, or the same in other words, loses nothing.
    bench.change(Method::PUT, path, &json!({ "permissions": ["list", "file"], "description": "Many" })).await;
    assert_eq!(bench.cut_off().await, []);
    let reason = Some("role permits less".to_owned());
    bench.change(Method::PUT, path, &json!({ "permissions": ["list"] })).await;
    let named = |number| RevokedValue::Value(format!("u_one-{number}"));
    let each = |number| (Dimension::Subject, named(number), reason.clone());
    assert_eq!(bench.cut_off().await, [each(0), each(1), each(2)], "none whose role is only like it");
    for number in 3..257 {
        bench.has_role(&format!("one-{number}"), "Crowd_1").await;
    }
    bench.user("alice").await;
    let (token, refresh) = bench.holds("alice").await;
    let gone = bench.change(Method::DELETE, path, &json!({})).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    let issuer = RevokedValue::Value(bench.app.settings.issuer.to_string());
    assert_eq!(bench.cut_off().await.split_off(3), [(Dimension::Issuer, issuer, reason)]);
    assert!(token.is_revoked(&bench.told(&edge).await));
    let next = bench.refresh(&refresh).await;
    assert_eq!(next.status, StatusCode::OK);
    let next = bench.held(next.json()["access_token"].as_str().unwrap());
    assert!(!next.is_revoked(&bench.told(&edge).await));
}

#[tokio::test]
async fn whose_role_differs_in_great_and_small_letters_only_hides_nobody_and_loses_nothing() {
    let bench = Bench::new().await;
    for role in ["Editor", "editor"] {
        bench.make("/v1/admin/roles", json!({ "name": role, "permissions": ["file"] })).await;
    }
    for number in 0..300 {
        bench.has_role(&format!("look-alike-{number}"), "Editor").await;
    }
    for number in 0..5 {
        bench.has_role(&format!("one-{number}"), "editor").await;
    }
    bench
        .spoil(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300) \
             INSERT INTO clients (id, name, auth, grants, scopes, roles, plan, may_introspect, disabled, created_at, \
             updated_at) SELECT 'robot-' || i, 'R', '{}', '[]', '[]', '[\"Editor\"]', 'free', 0, 0, 0, 0 FROM n",
        )
        .await;
    bench.change(Method::PUT, "/v1/admin/roles/editor", &json!({ "permissions": [] })).await;
    let each = |number| {
        let value = RevokedValue::Value(format!("u_one-{number}"));
        (Dimension::Subject, value, Some("role permits less".to_owned()))
    };
    assert_eq!(bench.cut_off().await, (0..5).map(each).collect::<Vec<_>>());
}

/// A host that waits at one step until it may go on.
#[derive(Debug)]
struct Halting {
    host: Arc<TestHost>,
    step: &'static str,
    halted: mpsc::Sender<()>,
    goes_on: std::sync::Mutex<mpsc::Receiver<()>>,
}

impl Host for Halting {
    fn now(&self) -> Now {
        self.host.now()
    }

    fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError> {
        self.host.fill(bytes)
    }

    fn reached(&self, step: &'static str) {
        if step == self.step {
            self.halted.send(()).unwrap();
            self.goes_on.lock().unwrap().recv().unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_gets_a_role_while_it_is_changed_is_cut_off_before_that_is_acknowledged() {
    let bench = Bench::new().await;
    bench.make("/v1/admin/roles", json!({ "name": "clerk", "permissions": ["file"] })).await;
    bench.has_role("before", "clerk").await;
    let (halted, is_halted) = mpsc::channel();
    let (go_on, goes_on) = mpsc::channel();
    let step = "role.holders_read";
    let host = Halting { host: Arc::clone(&bench.host), step, halted, goes_on: goes_on.into() };
    let store = bench.app.store.clone();
    let changing = tokio::spawn(async move {
        let role = Role { name: "clerk".to_owned(), permissions: Vec::new(), description: String::new() };
        let by = ("operator", "https://issuer.test");
        store.change_role(&role, None, by, &host).await.unwrap().1
    });
    tokio::task::block_in_place(|| is_halted.recv().unwrap());
    bench.has_role("late", "clerk").await;
    go_on.send(()).unwrap();
    let wished = changing.await.unwrap();
    bench.app.feed.publish(&wished).await.unwrap();
    let each = |name: &str| {
        let value = RevokedValue::Value(format!("u_{name}"));
        (Dimension::Subject, value, Some("role permits less".to_owned()))
    };
    assert_eq!(bench.cut_off().await, [each("before"), each("late")]);
}
