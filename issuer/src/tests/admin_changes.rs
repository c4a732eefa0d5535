//! Changes that meet each other, requests that are sent again, and what changes publish.

use axum::http::HeaderName;
use futures_util::future::join_all;
use tollgate_shared::revocation::Dimension;

use super::*;
use crate::config::{AdminSettings, IfMatchRule};

impl Bench {
    async fn with_header(
        &self,
        method: Method,
        path: &str,
        (name, value): (HeaderName, &str),
        body: &Value,
    ) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.operator))
            .header(header::CONTENT_TYPE, "application/json")
            .header(name, value);
        self.request(request.body(Body::from(body.to_string())).unwrap()).await
    }

    async fn once(&self, path: &str, key: &str, body: &Value) -> Answer {
        let key = (HeaderName::from_static("idempotency-key"), key);
        self.with_header(Method::POST, path, key, body).await
    }
}

fn is_replayed(answer: &Answer) -> bool {
    answer.header(HeaderName::from_static("idempotent-replayed")) == "true"
}

#[tokio::test]
async fn of_two_changes_of_one_version_only_one_is_made() {
    let bench = Bench::new().await;
    let id = bench.user("alice").await;
    let role = bench.make("/v1/admin/roles", json!({ "name": "auditor" })).await;
    assert_eq!(role["version"], 1);
    bench.make("/v1/admin/tenants", json!({ "id": "acme" })).await;
    bench.make("/v1/admin/clients", json!({ "id": "web", "name": "Web", "grants": ["login"] })).await;
    for (method, path, body) in [
        (Method::PATCH, format!("/v1/admin/users/{id}"), json!({ "scopes": ["read"] })),
        (Method::PUT, format!("/v1/admin/users/{id}/password"), json!({ "password": "a much better one" })),
        (Method::PUT, "/v1/admin/roles/auditor".to_owned(), json!({ "permissions": ["read"] })),
        (Method::PATCH, "/v1/admin/tenants/acme".to_owned(), json!({ "name": "Acme" })),
        (Method::PATCH, "/v1/admin/clients/web".to_owned(), json!({ "name": "Website" })),
    ] {
        let shown = path.strip_suffix("/password").unwrap_or(&path);
        let tag = bench.get(shown, Some(&bench.operator)).await.header(header::ETAG).to_owned();
        assert!(tag.starts_with('"'), "{path}");
        let change = || bench.with_header(method.clone(), &path, (header::IF_MATCH, &tag), &body);
        let (one, other) = tokio::join!(change(), change());
        let mut statuses = [one.status.as_u16(), other.status.as_u16()];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 412], "{path}");
        let made = if one.status == StatusCode::OK { one } else { other };
        let now = bench.get(shown, Some(&bench.operator)).await;
        assert_eq!(now.header(header::ETAG), made.header(header::ETAG));
        assert_ne!(now.header(header::ETAG), tag);
    }
    let path = format!("/v1/admin/users/{id}");
    let stale = bench.with_header(Method::DELETE, &path, (header::IF_MATCH, "\"1\""), &json!({})).await;
    assert_eq!(stale.status, StatusCode::PRECONDITION_FAILED);
}

#[tokio::test]
async fn changes_that_name_no_version_are_all_made() {
    let bench = Bench::new().await;
    let id = bench.user("alice").await;
    let path = format!("/v1/admin/users/{id}");
    let (scopes, plan) = (json!({ "scopes": ["other"] }), json!({ "disabled": true }));
    let (one, other) =
        tokio::join!(bench.change(Method::PATCH, &path, &scopes), bench.change(Method::PATCH, &path, &plan));
    assert_eq!((one.status, other.status), (StatusCode::OK, StatusCode::OK));
    let now = bench.get(&path, Some(&bench.operator)).await.json();
    assert_eq!(
        (&now["scopes"], &now["disabled"], &now["version"]),
        (&json!(["other"]), &json!(true), &json!(3))
    );
}

#[tokio::test]
async fn a_condition_is_understood_or_refused() {
    let bench = Bench::new().await;
    let path = format!("/v1/admin/users/{}", bench.user("alice").await);
    for (tag, status) in [
        ("*", 200),
        ("\"1\"", 412),
        ("\"7\", \"2\"", 200),
        ("W/\"3\"", 412),
        ("\"abc\"", 412),
        ("\"+3\"", 412),
        ("\"\"", 412),
        ("3", 400),
        ("\"3", 400),
        ("\"3\"\"", 400),
        ("*, \"3\"", 400),
        ("", 400),
    ] {
        let answer = bench.with_header(Method::PATCH, &path, (header::IF_MATCH, tag), &json!({})).await;
        assert_eq!(answer.status.as_u16(), status, "{tag}");
        bench.is_declared(&Method::PATCH, "/v1/admin/users/{id}", answer.status);
    }
    let strict = Bench::with(|settings| Settings {
        admin: AdminSettings { if_match: IfMatchRule::Required },
        ..settings
    })
    .await;
    let path = format!("/v1/admin/users/{}", strict.user("alice").await);
    let answer = strict.change(Method::PATCH, &path, &json!({})).await;
    assert_eq!(answer.status, StatusCode::PRECONDITION_REQUIRED);
    let answer = strict.with_header(Method::PATCH, &path, (header::IF_MATCH, "\"1\""), &json!({})).await;
    assert_eq!(answer.status, StatusCode::OK);
}

#[tokio::test]
async fn twenty_equal_requests_at_once_make_one_thing() {
    let bench = Bench::new().await;
    let body = json!({ "username": "alice", "password": PASSWORD });
    let answers = join_all((0..20).map(|_| bench.once("/v1/admin/users", "key-1", &body))).await;
    for answer in &answers {
        assert_eq!(answer.status, StatusCode::CREATED);
        assert_eq!(answer.body, answers[0].body);
        assert_eq!(answer.header(header::LOCATION), answers[0].header(header::LOCATION));
        assert_eq!(answer.header(header::ETAG), "\"1\"");
    }
    assert_eq!(answers.iter().filter(|answer| is_replayed(answer)).count(), 19);
    let users = bench.get("/v1/admin/users", Some(&bench.operator)).await.json();
    assert_eq!(users["users"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn every_route_that_makes_something_heeds_the_key() {
    let bench = Bench::new().await;
    let once = crate::app::once_routes();
    assert_eq!(once.len(), 9);
    for (method, path) in once {
        let case = bench.case(&method, path).await.unwrap();
        let body = serde_json::from_str(&case.body).unwrap_or_else(|_| json!({}));
        let first = bench.once(&case.uri, path, &body).await;
        let again = bench.once(&case.uri, path, &body).await;
        assert_eq!((first.status, again.status), (StatusCode::CREATED, StatusCode::CREATED), "{path}");
        assert_eq!(first.body, again.body, "{path}");
        assert!(!is_replayed(&first) && is_replayed(&again), "{path}");
        let other = bench.once(&case.uri, path, &json!({ "something": "else" })).await;
        assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY, "{path}");
        bench.is_declared(&method, path, other.status);
        for key in ["", "two words", &"x".repeat(256), "schlüssel"] {
            assert_eq!(bench.once(&case.uri, key, &body).await.status, StatusCode::BAD_REQUEST, "{key}");
        }
    }
}

#[tokio::test]
async fn a_key_is_its_operators_own() {
    let bench = Bench::new().await;
    let body = json!({ "id": "acme" });
    assert_eq!(bench.once("/v1/admin/tenants", "key", &body).await.status, StatusCode::CREATED);
    let other = Bench { operator: bench.operator_who_may(&["tenants:write"]).await, ..bench };
    // The other operator's request is carried out, and finds the name taken; that answer is kept like any.
    let first = other.once("/v1/admin/tenants", "key", &body).await;
    assert_eq!((first.status, is_replayed(&first)), (StatusCode::CONFLICT, false));
    let again = other.once("/v1/admin/tenants", "key", &body).await;
    assert_eq!((again.status, is_replayed(&again)), (StatusCode::CONFLICT, true));
}

#[tokio::test]
async fn an_answer_that_is_kept_does_not_show_its_secret() {
    let bench = Bench::new().await;
    let body = json!({ "name": "robot", "auth": "client_secret", "grants": ["client_credentials"] });
    let first = bench.once("/v1/admin/clients", "key", &body).await.json();
    let again = bench.once("/v1/admin/clients", "key", &body).await.json();
    assert_eq!(first, again);
    let secret = first["client_secret"].as_str().unwrap();
    assert!(secret.starts_with("tgc_"));
    for file in ["tollgate.sqlite3", "tollgate.sqlite3-wal"] {
        let stored = std::fs::read(bench.folder.path().join(file)).unwrap_or_default();
        assert!(!stored.windows(secret.len()).any(|window| window == secret.as_bytes()), "{file}");
    }
}

#[tokio::test]
async fn a_reservation_that_a_crash_left_passes_to_the_next_after_a_minute() {
    let bench = Bench::new().await;
    let store = &bench.app.store;
    let reserve = |digest| store.reserve_key("first", "key", digest, bench.host.seconds());
    use crate::store::KnownKey;
    assert_eq!(reserve([1; 32]).await.unwrap(), KnownKey::Reserved);
    assert_eq!(reserve([1; 32]).await.unwrap(), KnownKey::InProgress);
    assert_eq!(reserve([2; 32]).await.unwrap(), KnownKey::Other);
    bench.host.advance(61_000);
    assert_eq!(reserve([2; 32]).await.unwrap(), KnownKey::Other);
    assert_eq!(reserve([1; 32]).await.unwrap(), KnownKey::Reserved);
    assert_eq!(reserve([1; 32]).await.unwrap(), KnownKey::InProgress);
    store.release_key("first", "key").await.unwrap();
    assert_eq!(reserve([2; 32]).await.unwrap(), KnownKey::Reserved);
}

#[tokio::test]
async fn what_takes_something_away_is_published_when_it_is_acknowledged() {
    let bench = Bench::new().await;
    let edge = bench.edge("eu-1").await;
    let mut state = None;
    bench.poll(&edge, &mut state, 0).await;
    bench.make("/v1/admin/tenants", json!({ "id": "acme" })).await;
    bench.make("/v1/admin/clients", json!({ "id": "web", "name": "Web", "grants": ["login"] })).await;
    bench.make("/v1/admin/clients", json!({ "id": "app", "name": "App", "grants": ["login"] })).await;
    let mut ids = Vec::new();
    for name in ["alice", "bob", "carol", "dave", "erin"] {
        ids.push(bench.user(name).await);
    }
    let user = |number: usize| format!("/v1/admin/users/{}", ids[number]);
    // Who has no token has none that could be cut off.
    for name in ["alice", "bob", "carol", "dave", "erin"] {
        bench.login(name).await;
    }
    for (method, path, body, dimension, value) in [
        (Method::PATCH, user(0), json!({ "disabled": true }), Dimension::Subject, &*ids[0]),
        (Method::PATCH, user(1), json!({ "roles": [] }), Dimension::Subject, &*ids[1]),
        (Method::DELETE, user(2), json!({}), Dimension::Subject, &*ids[2]),
        (
            Method::PUT,
            format!("{}/password", user(3)),
            json!({ "password": "a much better one" }),
            Dimension::Subject,
            &*ids[3],
        ),
        (Method::DELETE, format!("{}/sessions", user(4)), json!({}), Dimension::Subject, &*ids[4]),
        (
            Method::PATCH,
            "/v1/admin/tenants/acme".to_owned(),
            json!({ "disabled": true }),
            Dimension::Tenant,
            "acme",
        ),
        (
            Method::PATCH,
            "/v1/admin/clients/web".to_owned(),
            json!({ "disabled": true }),
            Dimension::Client,
            "web",
        ),
        (Method::DELETE, "/v1/admin/clients/app".to_owned(), json!({}), Dimension::Client, "app"),
    ] {
        let answer = bench.change(method.clone(), &path, &body).await;
        assert!(answer.status.is_success(), "{method} {path}");
        let cutoffs = delta(bench.poll(&edge, &mut state, 0).await).cutoffs;
        let told = cutoffs.iter().any(|cutoff| cutoff.dimension == dimension && cutoff.value == value);
        assert!(told, "{method} {path}: {cutoffs:?}");
    }
}

#[tokio::test]
async fn members_that_are_not_named_stay_and_null_takes_the_tenant_away() {
    let bench = Bench::new().await;
    bench.make("/v1/admin/tenants", json!({ "id": "acme" })).await;
    let path = format!("/v1/admin/users/{}", bench.user("alice").await);
    let change = async |body: Value| bench.change(Method::PATCH, &path, &body).await.json();
    let changed = change(json!({ "tenant": "acme" })).await;
    assert_eq!((&changed["tenant"], &changed["roles"]), (&json!("acme"), &json!(["member"])));
    assert_eq!(change(json!({ "scopes": ["read"] })).await["tenant"], "acme");
    let changed = change(json!({ "tenant": null })).await;
    assert_eq!((&changed["tenant"], &changed["scopes"]), (&Value::Null, &json!(["read"])));
}

#[tokio::test]
async fn a_role_that_was_deleted_does_not_come_back() {
    let bench = Bench::new().await;
    for role in ["admin", "member"] {
        assert_eq!(
            bench.get(&format!("/v1/admin/roles/{role}"), Some(&bench.operator)).await.status,
            StatusCode::OK
        );
    }
    bench.send(Method::DELETE, "/v1/admin/roles/member", Some(&bench.operator), "", String::new()).await;
    let another = bench.another().await;
    assert!(another.store.role("member").await.unwrap().is_none());
    assert!(another.store.role("admin").await.unwrap().is_some());
}

#[tokio::test]
async fn keys_are_shown_without_what_signs_and_a_withdrawn_one_signs_no_more() {
    let bench = Bench::new().await;
    let shown = bench.get("/v1/admin/signing-keys", Some(&bench.operator)).await;
    let text = String::from_utf8(shown.body.clone()).unwrap();
    assert!(!text.contains("sealed") && !text.contains("\"d\""));
    let active = bench.app.keys.signing.view().active().as_str().to_owned();
    let path = format!("/v1/admin/signing-keys/{active}/withdraw");
    let answer = bench.change(Method::POST, &path, &json!({ "reason": "lost" })).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert_ne!(bench.app.keys.signing.view().active().as_str(), active);
    let again = bench.change(Method::POST, &path, &json!({ "reason": "lost" })).await;
    assert_eq!(again.status, StatusCode::NOT_FOUND);
}
