//! Whose tokens are cut off when a role permits less.

use std::sync::mpsc;

use tollgate_shared::revocation::Dimension;

use super::*;
use crate::store::{
    NewUser, RevocationQuery, RevocationRecord, RevokedValue, Role, SECOND_LOOK_SECONDS, User, Wished,
};

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

/// A host that waits at some steps until it may go on.
#[derive(Debug)]
struct Halting {
    host: Arc<TestHost>,
    steps: &'static [&'static str],
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
        if self.steps.contains(&step) {
            self.halted.send(()).unwrap();
            self.goes_on.lock().unwrap().recv().unwrap();
        }
    }
}

/// A change of the role `clerk`, which takes its one permission away, halted while it looks for who has it; meanwhile somebody
/// gets it.
struct Halted {
    bench: Bench,
    changing: tokio::task::JoinHandle<Wished>,
    is_halted: mpsc::Receiver<()>,
    go_on: mpsc::Sender<()>,
}

impl Halted {
    async fn new(steps: &'static [&'static str]) -> Self {
        let bench = Bench::new().await;
        bench.make("/v1/admin/roles", json!({ "name": "clerk", "permissions": ["file"] })).await;
        bench.has_role("before", "clerk").await;
        let (halted, is_halted) = mpsc::channel();
        let (go_on, goes_on) = mpsc::channel();
        let host = Halting { host: Arc::clone(&bench.host), steps, halted, goes_on: goes_on.into() };
        let store = bench.app.store.clone();
        let changing = tokio::spawn(async move {
            let role = Role { name: "clerk".to_owned(), permissions: Vec::new(), description: String::new() };
            let by = ("operator", "https://issuer.test");
            store.change_role(&role, None, by, &host).await.unwrap().1
        });
        let halted = Self { bench, changing, is_halted, go_on };
        halted.wait();
        halted.bench.has_role("late", "clerk").await;
        halted
    }

    /// Waits until it has halted.
    fn wait(&self) {
        tokio::task::block_in_place(|| self.is_halted.recv().unwrap());
    }
}

fn of_subject(name: &str) -> (Dimension, RevokedValue, Option<String>) {
    let value = RevokedValue::Value(format!("u_{name}"));
    (Dimension::Subject, value, Some("role permits less".to_owned()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_gets_a_role_while_it_is_changed_is_cut_off_before_that_is_acknowledged() {
    let Halted { bench, changing, go_on, .. } = Halted::new(&["role.holders_read"]).await;
    go_on.send(()).unwrap();
    let wished = changing.await.unwrap();
    bench.app.feed.publish(&wished).await.unwrap();
    let both = [of_subject("before"), of_subject("late")];
    assert_eq!(bench.cut_off().await, both);
    bench.host.advance(2_000 * SECOND_LOOK_SECONDS);
    bench.app.feed.publish_outbox().await.unwrap();
    assert_eq!(bench.cut_off().await, both, "nobody else");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_second_look_for_holders_of_a_role_never_ends_all_tokens_are_cut_off() {
    let halted = Halted::new(&["role.holders_read", "role.committed"]).await;
    halted.go_on.send(()).unwrap();
    halted.wait();
    // As if the process was killed here.
    halted.changing.abort();
    halted.go_on.send(()).unwrap();
    assert!(halted.changing.await.unwrap_err().is_cancelled());
    let bench = halted.bench;
    bench.app.feed.publish_outbox().await.unwrap();
    assert_eq!(bench.cut_off().await, [of_subject("before")], "it may still come");
    bench.host.advance(1_000 * SECOND_LOOK_SECONDS);
    bench.app.feed.publish_outbox().await.unwrap();
    let issuer = RevokedValue::Value("https://issuer.test".to_owned());
    let all = (Dimension::Issuer, issuer, Some("role permits less".to_owned()));
    assert_eq!(bench.cut_off().await, [of_subject("before"), all]);
}
