//! Sessions from outside: refresh, logout, revocation, introspection, and what a login may learn.

use super::*;
use crate::audit::AuditQuery;
use crate::client::{Client, Grant, Grants};
use crate::oauth::scope::Scopes;
use crate::sessions::SessionStart;
use crate::store::{UserChange, UserRecord};

const FORM: &str = "application/x-www-form-urlencoded";

impl Bench {
    pub(super) async fn token(&self, authorization: Option<&str>, form: &str) -> Answer {
        self.authorized(Method::POST, "/oauth2/token", authorization, FORM, form.to_owned()).await
    }

    pub(super) async fn refresh(&self, token: &str) -> Answer {
        self.token(None, &format!("grant_type=refresh_token&client_id=first-party&refresh_token={token}"))
            .await
    }

    /// Whether the token of this answer is in force, as an operator is told.
    async fn is_active(&self, token: &str) -> bool {
        let form = format!("token={token}");
        let answer = self.form("/oauth2/introspect", Some(&self.operator), &form).await;
        assert_eq!(answer.status, StatusCode::OK);
        answer.json()["active"].as_bool().unwrap()
    }

    async fn alter(&self, name: &str, change: impl FnOnce(&mut crate::store::User)) {
        let mut user = self.app.store.user_named(name).await.unwrap().unwrap().user;
        change(&mut user);
        let change = UserChange { user: &user, password_hash: None, if_version: None, actor: "test" };
        self.app.store.change_user(&change, &*self.host).await.unwrap();
        self.app.feed.publish_outbox().await.unwrap();
    }
}

fn text<'a>(body: &'a Value, member: &str) -> &'a str {
    body[member].as_str().unwrap_or_else(|| panic!("{member} of {body}"))
}

#[tokio::test]
async fn a_refresh_token_is_exchanged_once_and_its_child_lives_on() {
    let bench = Bench::new().await;
    bench.user("alice").await;
    let first = bench.login("alice").await;
    bench.host.advance(60_000);
    let second = bench.refresh(text(&first, "refresh_token")).await;
    assert_eq!(second.status, StatusCode::OK, "{:?}", second.json());
    assert_eq!(second.header(header::CACHE_CONTROL), "no-store");
    let second = second.json();
    assert_ne!(text(&second, "refresh_token"), text(&first, "refresh_token"));
    assert_ne!(text(&second, "access_token"), text(&first, "access_token"));
    assert_eq!((text(&second, "token_type"), text(&second, "scope")), ("Bearer", "read write"));
    assert!(bench.is_active(text(&second, "access_token")).await);
    let third = bench.refresh(text(&second, "refresh_token")).await.json();
    assert_ne!(text(&third, "refresh_token"), text(&second, "refresh_token"));
}

#[tokio::test]
async fn a_client_that_lost_the_answer_gets_the_same_child_again() {
    let bench = Bench::new().await;
    bench.user("alice").await;
    let first = bench.login("alice").await;
    let lost = bench.refresh(text(&first, "refresh_token")).await.json();
    bench.host.advance(29_000);
    let again = bench.refresh(text(&first, "refresh_token")).await;
    assert_eq!(again.status, StatusCode::OK);
    assert_eq!(text(&again.json(), "refresh_token"), text(&lost, "refresh_token"));
    let next = bench.refresh(text(&lost, "refresh_token")).await;
    assert_eq!(next.status, StatusCode::OK);
}

#[tokio::test]
async fn a_token_that_comes_back_ends_the_session_at_every_edge() {
    for late in [false, true] {
        let bench = Bench::new().await;
        bench.user("alice").await;
        let edge = bench.edge("eu-1").await;
        let first = bench.login("alice").await;
        let second = bench.refresh(text(&first, "refresh_token")).await.json();
        let last = if late {
            bench.host.advance(31_000);
            second
        } else {
            // The child was used, so nobody lost it.
            bench.refresh(text(&second, "refresh_token")).await.json()
        };
        let session = bench.sessions("alice").await.remove(0);
        let stolen = bench.refresh(text(&first, "refresh_token")).await;
        assert_eq!(
            (stolen.status, stolen.json()),
            (StatusCode::BAD_REQUEST, json!({ "error": "invalid_grant" }))
        );
        let answer = bench.refresh(text(&last, "refresh_token")).await;
        assert_eq!(answer.json(), json!({ "error": "invalid_grant" }));
        assert!(!bench.is_active(text(&last, "access_token")).await);
        let cutoffs = bench.start_edge(&edge).await.revoked.cutoffs;
        assert!(cutoffs.iter().any(|cutoff| cutoff.value == session), "{cutoffs:?}");
        let query = AuditQuery { action: Some("refresh.reuse".to_owned()), ..AuditQuery::default() };
        assert_eq!(bench.app.store.audit(&query, 10).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_refresh_token_is_of_one_client_and_its_scope_only_narrows() {
    let bench = Bench::new().await;
    bench.user("alice").await;
    let service = bench.confidential("service").await;
    let first = bench.login("alice").await;
    let token = text(&first, "refresh_token");
    let other = bench.token(Some(&service), &format!("grant_type=refresh_token&refresh_token={token}")).await;
    assert_eq!(other.json(), json!({ "error": "invalid_grant" }));
    let wide =
        format!("grant_type=refresh_token&client_id=first-party&refresh_token={token}&scope=read+admin");
    assert_eq!(bench.token(None, &wide).await.json()["error"], "invalid_scope");
    let narrow = format!("grant_type=refresh_token&client_id=first-party&refresh_token={token}&scope=read");
    let second = bench.token(None, &narrow).await.json();
    assert_eq!(text(&second, "scope"), "read");
    // The session has what it had.
    let third = bench.refresh(text(&second, "refresh_token")).await.json();
    assert_eq!(text(&third, "scope"), "read write");
    // A right that was taken away is not in the next token.
    bench.alter("alice", |user| user.scopes = vec!["read".to_owned()]).await;
    assert!(!bench.is_active(text(&third, "access_token")).await);
    let fourth = bench.refresh(text(&third, "refresh_token")).await.json();
    assert_eq!(text(&fourth, "scope"), "read");
    assert!(bench.is_active(text(&fourth, "access_token")).await);
}

#[tokio::test]
async fn a_session_ends_when_it_is_idle_old_or_its_user_is_disabled() {
    let bench = Bench::with(|settings| {
        let session =
            crate::config::SessionSettings { idle_seconds: 3600, lasts_seconds: 7200, grace_seconds: 0 };
        Settings { session, ..settings }
    })
    .await;
    for name in ["idle", "old", "disabled", "kept"] {
        bench.user(name).await;
    }
    let mut kept = bench.login("kept").await;
    let (idle, disabled) = (bench.login("idle").await, bench.login("disabled").await);
    bench.alter("disabled", |user| user.disabled = true).await;
    assert_eq!(bench.refresh(text(&disabled, "refresh_token")).await.json()["error"], "invalid_grant");
    for _ in 0..3 {
        bench.host.advance(2_300_000);
        let answer = bench.refresh(text(&kept, "refresh_token")).await;
        assert_eq!(answer.status, StatusCode::OK);
        kept = answer.json();
    }
    assert_eq!(bench.refresh(text(&idle, "refresh_token")).await.json()["error"], "invalid_grant");
    bench.host.advance(300_000);
    assert_eq!(bench.refresh(text(&kept, "refresh_token")).await.json()["error"], "invalid_grant");
}

#[tokio::test]
async fn people_see_and_end_their_own_sessions_only() {
    let bench = Bench::new().await;
    bench.user("alice").await;
    bench.user("bob").await;
    let (one, two, bobs) = (bench.login("alice").await, bench.login("alice").await, bench.login("bob").await);
    let list = bench.get("/v1/sessions", Some(text(&one, "access_token"))).await.json();
    let sessions = list["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), 2);
    assert_eq!(sessions.iter().filter(|session| session["current"] == true).count(), 1);
    let of_two = sessions.iter().find(|session| session["current"] == false).unwrap()["id"].clone();
    let path = format!("/v1/sessions/{}", of_two.as_str().unwrap());
    let end = async |path: &str, token: &str| {
        bench.send(Method::DELETE, path, Some(token), "", String::new()).await.status
    };
    assert_eq!(end(&path, text(&bobs, "access_token")).await, StatusCode::NOT_FOUND);
    assert!(bench.is_active(text(&two, "access_token")).await);
    assert_eq!(end(&path, text(&one, "access_token")).await, StatusCode::NO_CONTENT);
    assert!(!bench.is_active(text(&two, "access_token")).await);
    assert_eq!(
        bench.get("/v1/sessions", Some(text(&two, "access_token"))).await.status,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(end("/v1/sessions/s_%00", text(&one, "access_token")).await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn logout_ends_one_session_and_logout_all_every_one() {
    let bench = Bench::new().await;
    bench.user("alice").await;
    let (one, two, three) =
        (bench.login("alice").await, bench.login("alice").await, bench.login("alice").await);
    let post = async |path: &str, body: &Value| {
        bench.send(Method::POST, path, Some(text(body, "access_token")), "", String::new()).await.status
    };
    assert_eq!(post("/v1/logout", &one).await, StatusCode::NO_CONTENT);
    assert_eq!(bench.refresh(text(&one, "refresh_token")).await.json()["error"], "invalid_grant");
    assert!(bench.is_active(text(&two, "access_token")).await);
    assert_eq!(post("/v1/logout-all", &two).await, StatusCode::NO_CONTENT);
    for body in [&two, &three] {
        assert!(!bench.is_active(text(body, "access_token")).await);
        assert_eq!(bench.refresh(text(body, "refresh_token")).await.json()["error"], "invalid_grant");
    }
    // And the next login is good, in the same second.
    let next = bench.login("alice").await;
    assert!(bench.is_active(text(&next, "access_token")).await);
}

#[tokio::test]
async fn revoking_a_refresh_token_ends_what_it_gave() {
    let bench = Bench::new().await;
    bench.user("alice").await;
    let service = bench.confidential("service").await;
    let body = bench.login("alice").await;
    let revoke = async |authorization: Option<&str>, client: &str| {
        let form = format!("token={}{client}", text(&body, "refresh_token"));
        bench.authorized(Method::POST, "/oauth2/revoke", authorization, FORM, form).await
    };
    assert_eq!(revoke(Some(&service), "").await.json()["error"], "invalid_grant");
    assert!(bench.is_active(text(&body, "refresh_token")).await);
    assert_eq!(revoke(None, "&client_id=first-party").await.status, StatusCode::OK);
    assert!(!bench.is_active(text(&body, "refresh_token")).await);
    assert!(!bench.is_active(text(&body, "access_token")).await);
    // Once more, and for a token that nobody has: nobody learns which it is.
    assert_eq!(revoke(None, "&client_id=first-party").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_client_gets_tokens_of_its_own_and_is_told_of_others_if_it_may() {
    let bench = Bench::new().await;
    bench.user("alice").await;
    let service = bench.confidential("service").await;
    let answer = bench.token(Some(&service), "grant_type=client_credentials&scope=read").await;
    assert_eq!(answer.status, StatusCode::OK);
    let own = answer.json();
    assert!(own.get("refresh_token").is_none());
    let introspect = async |authorization: &str, token: &str| {
        let form = format!("token={token}");
        bench.authorized(Method::POST, "/oauth2/introspect", Some(authorization), FORM, form).await.json()
    };
    let told = introspect(&service, text(&own, "access_token")).await;
    assert_eq!(
        (&told["sub"], &told["client_id"], &told["scope"]),
        (&json!("service"), &json!("service"), &json!("read"))
    );
    assert!(told.get("sid").is_none() && told.get("username").is_none());
    let alices = bench.login("alice").await;
    assert_eq!(introspect(&service, text(&alices, "access_token")).await["username"], "alice");
    let (mut client, _) = bench.app.store.client("service").await.unwrap().unwrap();
    client.may_introspect = false;
    bench.app.store.change_client(&client, None, "test", &*bench.host).await.unwrap();
    assert_eq!(introspect(&service, text(&alices, "access_token")).await, json!({ "active": false }));
    assert_eq!(introspect(&service, text(&own, "access_token")).await["active"], true);
    // A person's routes are none of a client's.
    let sessions = bench.get("/v1/sessions", Some(text(&own, "access_token"))).await;
    assert_eq!(sessions.status, StatusCode::FORBIDDEN);
    client.disabled = true;
    bench.app.store.change_client(&client, None, "test", &*bench.host).await.unwrap();
    bench.app.feed.publish_outbox().await.unwrap();
    assert_eq!(
        bench.token(Some(&service), "grant_type=client_credentials").await.status,
        StatusCode::UNAUTHORIZED
    );
    assert!(!bench.is_active(text(&own, "access_token")).await);
}

#[tokio::test]
async fn a_disabled_tenant_has_no_logins_and_no_tokens() {
    let bench = Bench::new().await;
    let tenant = crate::store::Tenant { id: "acme".to_owned(), name: "Acme".to_owned(), disabled: false };
    bench.app.store.add_tenant(&tenant, bench.host.seconds()).await.unwrap();
    bench.user("alice").await;
    bench.alter("alice", |user| user.tenant = Some("acme".to_owned())).await;
    let body = bench.login("alice").await;
    assert!(bench.is_active(text(&body, "access_token")).await);
    let disabled = crate::store::Tenant { disabled: true, ..tenant };
    bench.app.store.change_tenant(&disabled, None, "test", &*bench.host).await.unwrap();
    bench.app.feed.publish_outbox().await.unwrap();
    assert!(!bench.is_active(text(&body, "access_token")).await);
    assert_eq!(bench.refresh(text(&body, "refresh_token")).await.json()["error"], "invalid_grant");
    let login = json!({ "username": "alice", "password": PASSWORD });
    assert_eq!(bench.post("/v1/login", None, &login).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn failures_lock_the_account_but_not_a_device_that_it_knows() {
    let bench = Bench::new().await;
    bench.user("alice").await;
    let known = bench.login("alice").await;
    let wrong = json!({ "username": "alice", "password": "wrong password" });
    let mut refused = Vec::new();
    for _ in 0..6 {
        let answer = bench.post("/v1/login", None, &wrong).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        refused.push(answer.body);
    }
    // Right, but locked: the same answer.
    let right = json!({ "username": "alice", "password": PASSWORD });
    let locked = bench.post("/v1/login", None, &right).await;
    assert_eq!(locked.status, StatusCode::UNAUTHORIZED);
    assert!(refused.iter().all(|body| *body == locked.body));
    let device = json!({ "username": "alice", "password": PASSWORD, "device_token": known["device_token"] });
    assert_eq!(bench.post("/v1/login", None, &device).await.status, StatusCode::OK);
    // That proved who it is, so the others' failures are forgotten.
    assert_eq!(bench.post("/v1/login", None, &right).await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_address_with_too_many_attempts_is_told_when_to_come_back() {
    let bench = Bench::with(|settings| {
        let minute = Rate::new(10, 60_000, 10);
        let throttle = ThrottleSettings { address: minute, ..settings.throttle };
        Settings { throttle, ..settings }
    })
    .await;
    let body = json!({ "username": "nobody", "password": PASSWORD });
    let mut last = StatusCode::OK;
    for _ in 0..11 {
        let answer = bench.post("/v1/login", None, &body).await;
        last = answer.status;
        if last == StatusCode::TOO_MANY_REQUESTS {
            assert!(answer.header(header::RETRY_AFTER).parse::<u64>().unwrap() >= 1);
        }
    }
    assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn every_login_is_in_the_audit_log_and_no_password_is() {
    let bench = Bench::new().await;
    bench.user("alice").await;
    bench.login("alice").await;
    bench.host.advance(1);
    bench.post("/v1/login", None, &json!({ "username": "alice", "password": "wrong password" })).await;
    bench.host.advance(1);
    bench.post("/v1/login", None, &json!({ "username": "nobody", "password": PASSWORD })).await;
    let query = AuditQuery { action: Some("login".to_owned()), ..AuditQuery::default() };
    let log = bench.app.store.audit(&query, 10).await.unwrap();
    let seen: Vec<_> = log.iter().map(|event| (event.target.as_str(), event.outcome.as_str())).collect();
    assert_eq!(seen, [("alice", "done"), ("alice", "refused"), ("", "refused")]);
    assert!(!format!("{log:?}").contains(PASSWORD));
    assert!(
        !format!("{log:?}").contains("nobody"),
        "it may be a password that was typed one field too early"
    );
}

#[tokio::test]
async fn rights_that_changed_since_they_were_read_are_in_no_token() {
    let bench = Bench::new().await;
    bench.user("alice").await;
    let before = bench.app.store.user_named("alice").await.unwrap().unwrap();
    bench.alter("alice", |user| user.scopes = vec!["read".to_owned()]).await;
    let client = bench.app.confirmed_client("first-party").await.unwrap().unwrap();
    let refused = bench.app.start_session(start_of(&bench, &before, &client).await).await;
    let changed = crate::sessions::SessionError::Store(crate::store::StoreError::Changed);
    assert_eq!(refused.unwrap_err().to_string(), changed.to_string());
    let now = SessionStart { version: before.version + 1, ..start_of(&bench, &before, &client).await };
    assert!(bench.app.start_session(now).await.unwrap().is_some());
}

async fn start_of<'s>(bench: &Bench, known: &'s UserRecord, client: &'s Client) -> SessionStart<'s> {
    let keys = crate::store::CutOffKeys {
        subject: &known.user.id,
        client: client.id.as_str(),
        tenant: known.user.tenant.as_deref(),
        issuer: bench.app.settings.issuer.as_str(),
        session: None,
    };
    let reading = bench.app.read_cut_off(keys).await.unwrap();
    SessionStart {
        user: &known.user,
        password_changed_at: known.password_changed_at,
        version: known.version,
        client,
        device: None,
        device_token: None,
        scope: Scopes::parse("read write").unwrap(),
        address: None,
        reading,
        event: None,
    }
}

#[tokio::test]
async fn a_login_that_was_under_way_when_its_tenant_or_client_was_disabled_comes_to_nothing() {
    let bench = Bench::new().await;
    bench.user("alice").await;
    let tenant = crate::store::Tenant { id: "t1".to_owned(), name: "T".to_owned(), disabled: false };
    bench.app.store.add_tenant(&tenant, bench.host.seconds()).await.unwrap();
    bench.alter("alice", |user| user.tenant = Some("t1".to_owned())).await;
    bench.confidential("backend").await;
    let known = bench.app.store.user_named("alice").await.unwrap().unwrap();
    let client = bench.app.confirmed_client("backend").await.unwrap().unwrap();
    assert!(bench.app.start_session(start_of(&bench, &known, &client).await).await.unwrap().is_some());
    let disabled = Client { disabled: true, ..(*client).clone() };
    bench.app.store.change_client(&disabled, None, "test", &*bench.host).await.unwrap();
    bench.app.feed.publish_outbox().await.unwrap();
    assert!(bench.app.start_session(start_of(&bench, &known, &client).await).await.unwrap().is_none());
    let own = bench.app.client_token(&client, None).await;
    assert!(matches!(own, Err(crate::sessions::SessionError::Disabled)));
    let client = bench.app.confirmed_client("first-party").await.unwrap().unwrap();
    let order = json!({ "id": "theirs", "name": "Theirs", "grants": ["login"], "tenant": "t1" });
    bench.post("/v1/admin/clients", Some(&bench.operator), &order).await;
    let theirs = bench.app.confirmed_client("theirs").await.unwrap().unwrap();
    bench.user("bob").await;
    let bob = bench.app.store.user_named("bob").await.unwrap().unwrap();
    assert!(bench.app.start_session(start_of(&bench, &bob, &theirs).await).await.unwrap().is_some());
    let disabled = crate::store::Tenant { disabled: true, ..tenant };
    bench.app.store.change_tenant(&disabled, None, "test", &*bench.host).await.unwrap();
    bench.app.feed.publish_outbox().await.unwrap();
    assert!(bench.app.start_session(start_of(&bench, &known, &client).await).await.unwrap().is_none());
    let of_the_client = bench.app.start_session(start_of(&bench, &bob, &theirs).await).await.unwrap();
    assert!(of_the_client.is_none(), "the user is of no tenant, the client is");
}

#[tokio::test]
async fn a_user_who_comes_to_a_disabled_tenant_refreshes_no_more() {
    let bench = Bench::new().await;
    bench.user("alice").await;
    let tenant = crate::store::Tenant { id: "t1".to_owned(), name: "T".to_owned(), disabled: true };
    bench.app.store.add_tenant(&tenant, bench.host.seconds()).await.unwrap();
    let body = bench.login("alice").await;
    bench.alter("alice", |user| user.tenant = Some("t1".to_owned())).await;
    assert_eq!(bench.refresh(text(&body, "refresh_token")).await.json()["error"], "invalid_grant");
}

#[tokio::test]
async fn no_token_lives_longer_than_its_session() {
    let bench = Bench::new().await;
    bench.user("alice").await;
    let mut body = bench.login("alice").await;
    let began = bench.host.seconds();
    let end = began.plus(bench.app.settings.session.lasts_seconds);
    let step = bench.app.settings.session.idle_seconds - 60;
    while bench.host.seconds().plus(step) < end.minus(10) {
        bench.host.advance(step * 1000);
        body = bench.refresh(text(&body, "refresh_token")).await.json();
    }
    bench.host.advance((end.0 - bench.host.seconds().0 - 10) * 1000);
    body = bench.refresh(text(&body, "refresh_token")).await.json();
    assert_eq!(body["expires_in"], 10, "{body}");
}

#[tokio::test]
async fn a_device_stays_known_however_often_another_logs_in() {
    let bench = Bench::new().await;
    let id = bench.user("alice").await;
    let log_in = async |token: &Value| {
        let login = json!({ "username": "alice", "password": PASSWORD, "device_token": token });
        let answer = bench.post("/v1/login", None, &login).await;
        assert_eq!(answer.status, StatusCode::OK);
        answer.json()["device_token"].clone()
    };
    let phone = bench.login("alice").await["device_token"].clone();
    let laptop = bench.login("alice").await["device_token"].clone();
    assert_ne!(phone, laptop);
    for _ in 0..25 {
        bench.host.advance(1000);
        assert_eq!(log_in(&laptop).await, laptop, "what it is known by");
    }
    let knows = async |token: &Value| {
        let digest = crate::sessions::device_digest(token.as_str().unwrap());
        bench.app.store.knows_device(&id, digest).await.unwrap()
    };
    assert!(knows(&phone).await && knows(&laptop).await);
    let mistaken = json!({ "username": "alice", "password": PASSWORD, "device": phone });
    assert_eq!(bench.post("/v1/login", None, &mistaken).await.status, StatusCode::BAD_REQUEST);
    // Another's token, or one that is made up, makes no device known.
    assert_ne!(log_in(&json!("tgd_made-up")).await, json!("tgd_made-up"));
    bench.user("bob").await;
    let bobs = bench.login("bob").await["device_token"].clone();
    assert_ne!(log_in(&bobs).await, bobs);
    let known = bench.app.store.user_named("alice").await.unwrap().unwrap();
    let new = Some(known.password_hash.as_str());
    let change = UserChange { user: &known.user, password_hash: new, if_version: None, actor: "test" };
    bench.app.store.change_user(&change, &*bench.host).await.unwrap();
    assert!(!knows(&phone).await && !knows(&laptop).await, "with a new password all of them are new");
}

#[tokio::test]
async fn a_client_that_can_prove_who_it_is_has_to_before_anybody_logs_in_to_it() {
    let bench = Bench::new().await;
    bench.user("alice").await;
    let proof = bench.confidential("backend").await;
    let body = json!({ "username": "alice", "password": PASSWORD, "client_id": "backend" }).to_string();
    let log_in = async |authorization: Option<&str>| {
        let kind = "application/json";
        bench.authorized(Method::POST, "/v1/login", authorization, kind, body.clone()).await.status
    };
    assert_eq!(log_in(None).await, StatusCode::BAD_REQUEST);
    assert_eq!(log_in(Some("Bearer something")).await, StatusCode::BAD_REQUEST);
    assert_eq!(log_in(Some("Basic YmFja2VuZDp3cm9uZw==")).await, StatusCode::BAD_REQUEST);
    assert_eq!(log_in(Some(&proof)).await, StatusCode::OK);
    // Who logs in to the first party's client may send whatever credential is left over.
    let plain = json!({ "username": "alice", "password": PASSWORD });
    assert_eq!(bench.post("/v1/login", Some("left-over"), &plain).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_public_client_that_changed_a_moment_ago_is_as_the_database_has_it() {
    let bench = Bench::new().await;
    let other = bench.another().await;
    bench.user("alice").await;
    let order = json!({ "id": "app", "name": "App", "grants": ["login", "refresh_token"] });
    bench.post("/v1/admin/clients", Some(&bench.operator), &order).await;
    let body = json!({ "username": "alice", "password": PASSWORD, "client_id": "app" });
    let log_in = async || bench.post("/v1/login", None, &body).await;
    assert_eq!(log_in().await.status, StatusCode::OK);
    // Another process changes it; this one is not told.
    let client = bench.app.store.client("app").await.unwrap().unwrap().0;
    let change = async |client: &Client| {
        other.store.change_client(client, None, "test", &*bench.host).await.unwrap();
    };
    change(&Client { grants: Grants::of(&[Grant::Login]), ..client.clone() }).await;
    assert!(log_in().await.json().get("refresh_token").is_none(), "by what the client may now");
    change(&Client { grants: Grants::of(&[Grant::ClientCredentials]), ..client.clone() }).await;
    assert_eq!(log_in().await.status, StatusCode::BAD_REQUEST);
    change(&client).await;
    assert_eq!(log_in().await.status, StatusCode::OK);
    change(&Client { disabled: true, ..client }).await;
    assert_eq!(log_in().await.status, StatusCode::BAD_REQUEST);
    assert_eq!(
        log_in().await.json()["detail"].as_str().map(|detail| detail.starts_with("client_id")),
        Some(true)
    );
}

#[tokio::test]
async fn a_client_that_may_not_refresh_gets_nothing_to_refresh_with() {
    let bench = Bench::new().await;
    bench.user("alice").await;
    let client = json!({ "id": "kiosk", "name": "Kiosk", "grants": ["login"], "auth": "none" });
    let added = bench.post("/v1/admin/clients", Some(&bench.operator), &client).await;
    assert_eq!(added.status, StatusCode::CREATED, "{:?}", added.json());
    let login = json!({ "username": "alice", "password": PASSWORD, "client_id": "kiosk" });
    let body = bench.post("/v1/login", None, &login).await.json();
    assert!(body["access_token"].is_string() && body.get("refresh_token").is_none(), "{body}");
}

#[tokio::test]
async fn who_holds_more_scopes_than_a_token_may_have_asks_for_some_and_can_refresh() {
    let bench = Bench::new().await;
    bench.user("alice").await;
    for role in ["one", "two"] {
        let permissions: Vec<_> = (0..40).map(|number| format!("{role}:{number}")).collect();
        let role = json!({ "name": role, "permissions": permissions });
        let added = bench.post("/v1/admin/roles", Some(&bench.operator), &role).await;
        assert_eq!(added.status, StatusCode::CREATED);
    }
    bench.alter("alice", |user| user.roles = vec!["one".to_owned(), "two".to_owned()]).await;
    let login = json!({ "username": "alice", "password": PASSWORD });
    assert_eq!(bench.post("/v1/login", None, &login).await.status, StatusCode::BAD_REQUEST);
    let login = json!({ "username": "alice", "password": PASSWORD, "scope": "one:1 two:39" });
    let body = bench.post("/v1/login", None, &login).await.json();
    let next = bench.refresh(text(&body, "refresh_token")).await;
    assert_eq!(text(&next.json(), "scope"), "one:1 two:39");
}

#[tokio::test]
async fn the_audit_log_has_from_where_somebody_acted() {
    let bench = Bench::new().await;
    bench.user("alice").await;
    let body = bench.login("alice").await;
    bench.post("/v1/logout", Some(text(&body, "access_token")), &json!({})).await;
    let query = AuditQuery::default();
    let log = bench.app.store.audit(&query, 100).await.unwrap();
    for action in ["user.create", "login", "logout"] {
        let event = log.iter().find(|event| event.action == action).unwrap();
        assert_eq!(event.address.as_deref(), Some("0.0.0.0"), "{event:?}");
    }
}
