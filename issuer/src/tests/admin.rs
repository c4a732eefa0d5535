//! What operators may do, what is written down of it, and what is refused.

use std::collections::BTreeSet;

use super::*;
use crate::access::Access;
use crate::audit::{AuditQuery, AuditRecord};
use crate::permission::Permission;
use crate::routes;

impl Bench {
    pub(super) async fn audit(&self, query: AuditQuery) -> Vec<AuditRecord> {
        self.app.store.audit(&query, 10_000).await.unwrap()
    }

    pub(super) async fn change(&self, method: Method, path: &str, body: &Value) -> Answer {
        self.send(method, path, Some(&self.operator), "application/json", body.to_string()).await
    }
}

fn admin_routes() -> Vec<(Method, &'static str, Permission)> {
    let of_operators = |(method, path, access)| match access {
        Access::Operator(permission) => Some((method, path, permission)),
        Access::Public | Access::Edge | Access::OAuthClient | Access::User => None,
    };
    routes().into_iter().filter_map(of_operators).collect()
}

#[tokio::test]
async fn each_route_takes_its_own_permission_and_no_other() {
    let bench = Bench::new().await;
    for (method, path, permission) in admin_routes() {
        let others: Vec<_> =
            Permission::ALL.iter().filter(|one| **one != permission).map(|one| one.name()).collect();
        let (with, without) =
            (bench.operator_who_may(&[permission.name()]).await, bench.operator_who_may(&others).await);
        let case = bench.case(&method, path).await.unwrap();
        let send =
            |credential| bench.send(method.clone(), &case.uri, credential, case.kind, case.body.clone());
        let before =
            bench.audit(AuditQuery { action: Some("access".to_owned()), ..AuditQuery::default() }).await;
        let refused = send(Some(&without)).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{method} {path}");
        assert_eq!(refused.json()["title"], "insufficient permission");
        let after =
            bench.audit(AuditQuery { action: Some("access".to_owned()), ..AuditQuery::default() }).await;
        assert_eq!(after.len(), before.len() + 1, "{method} {path}");
        let event = after.iter().find(|event| !before.contains(event)).unwrap();
        assert_eq!(event.target, format!("{method} {path}"));
        assert_eq!(
            (event.outcome.as_str(), event.detail.as_str()),
            ("refused", &*format!("lacks {}", permission.name()))
        );
        assert!(send(Some(&with)).await.status.is_success(), "{method} {path}");
    }
}

#[tokio::test]
async fn every_change_is_in_the_audit_log_when_it_is_acknowledged() {
    let bench = Bench::new().await;
    for (method, path, _) in admin_routes() {
        if method == Method::GET {
            continue;
        }
        let case = bench.case(&method, path).await.unwrap();
        let action = case.action.unwrap_or_else(|| panic!("{method} {path}: what is it called?"));
        let query = || AuditQuery { action: Some(action.to_owned()), ..AuditQuery::default() };
        let before = bench.audit(query()).await.len();
        let answer = bench.send(method.clone(), &case.uri, Some(&bench.operator), case.kind, case.body).await;
        assert!(answer.status.is_success(), "{method} {path}: {}", answer.status);
        let events = bench.audit(query()).await;
        assert_eq!(events.len(), before + 1, "{method} {path}");
        assert!(events.iter().any(|event| event.actor == "operator first" && event.outcome == "done"));
    }
}

#[tokio::test]
async fn a_change_that_is_refused_is_in_the_audit_log_too() {
    let bench = Bench::new().await;
    let id = bench.user("alice").await;
    let patch = json!({ "roles": ["nobody"] });
    let answer = bench.change(Method::PATCH, &format!("/v1/admin/users/{id}"), &patch).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let events = bench.audit(AuditQuery { target: Some(id), ..AuditQuery::default() }).await;
    let last = events.iter().find(|event| event.action == "user.change").unwrap();
    assert_eq!(
        (last.outcome.as_str(), last.detail.as_str()),
        ("refused", "roles: there is none of this name")
    );
}

#[tokio::test]
async fn secrets_are_never_in_the_audit_log() {
    let bench = Bench::new().await;
    let id = bench.user("alice").await;
    let canary = "canary-of-the-mine-7f3a";
    let tokens = bench.login("alice").await;
    let password = json!({ "password": canary });
    let set = bench.change(Method::PUT, &format!("/v1/admin/users/{id}/password"), &password).await;
    assert_eq!(set.status, StatusCode::OK);
    let made = bench
        .make(
            "/v1/admin/clients",
            json!({ "name": "robot", "auth": "client_secret", "grants": ["client_credentials"] }),
        )
        .await;
    let client = made["client"]["id"].as_str().unwrap();
    let second = bench.make(&format!("/v1/admin/clients/{client}/secrets"), json!({})).await;
    let edge = bench.make("/v1/admin/edges", json!({ "id": "eu-1" })).await;
    let api_key = bench.made_api_key().await;
    let key = api_key["key"].as_str().unwrap();
    // Somebody mistakes one thing for another.
    let path = format!("/v1/admin/api-keys/{key}");
    assert_eq!(
        bench.send(Method::DELETE, &path, Some(&bench.operator), "", String::new()).await.status,
        StatusCode::NOT_FOUND
    );
    let secret = made["client_secret"].as_str().unwrap();
    let path = format!("/v1/admin/clients/{client}/secrets/{secret}");
    assert_eq!(
        bench.send(Method::DELETE, &path, Some(&bench.operator), "", String::new()).await.status,
        StatusCode::NOT_FOUND
    );
    let token = tokens["access_token"].as_str().unwrap();
    bench
        .change(
            Method::POST,
            "/v1/admin/revocations",
            &json!({ "dimension": "token", "value": &token[..200] }),
        )
        .await;
    let log = format!("{:?}", bench.audit(AuditQuery::default()).await);
    for hidden in [
        canary,
        PASSWORD,
        secret,
        second["client_secret"].as_str().unwrap(),
        edge["credential"].as_str().unwrap(),
        key,
        key.split('_').nth(2).unwrap(),
        &bench.operator,
        &token[..200],
        tokens["refresh_token"].as_str().unwrap(),
    ] {
        assert!(!log.contains(hidden), "{hidden}");
    }
    assert!(log.contains(client));
}

#[tokio::test]
async fn what_cannot_be_is_refused_and_the_member_is_named() {
    let bench = Bench::new().await;
    let id = bench.user("alice").await;
    let user = format!("/v1/admin/users/{id}");
    let long = "x".repeat(256);
    let add_user = |more: Value| {
        let mut body = json!({ "username": "bob", "password": PASSWORD });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        (Method::POST, "/v1/admin/users".to_owned(), "/v1/admin/users", body)
    };
    let patch = |body: Value| (Method::PATCH, user.clone(), "/v1/admin/users/{id}", body);
    let client = |body: Value| (Method::POST, "/v1/admin/clients".to_owned(), "/v1/admin/clients", body);
    for ((method, path, template, body), detail) in [
        (add_user(json!({ "roles": ["nobody"] })), "roles: there is none of this name"),
        (add_user(json!({ "tenant": "nowhere" })), "tenant: there is none of this name"),
        (add_user(json!({ "plan": "golden" })), "plan: there is none of this name"),
        (add_user(json!({ "username": "a\u{0}b" })), "username: is empty"),
        (add_user(json!({ "username": long })), "username: is empty"),
        (add_user(json!({ "scopes": ["a b"] })), "scopes: is empty"),
        (add_user(json!({ "password": "short" })), "password: must be"),
        (add_user(json!({ "admin": true })), "admin: is not known"),
        (patch(json!({ "tenant": "nowhere" })), "tenant: there is none of this name"),
        (patch(json!({ "roles": ["member", "nobody"] })), "roles: there is none of this name"),
        (patch(json!({ "plan": null })), "plan: has the wrong type"),
        (patch(json!({ "username": "bob" })), "username: is not known"),
        (client(json!({ "name": "x", "grants": ["password"] })), "grants: must be one or more"),
        (client(json!({ "name": "x", "grants": ["login"], "roles": ["nobody"] })), "roles: there is none"),
        (client(json!({ "name": "x", "grants": ["login"], "tenant": "nowhere" })), "tenant: there is none"),
        (client(json!({ "name": "x", "grants": ["login"], "jwks": {} })), "jwks: goes with"),
        (client(json!({ "name": "x\u{0}", "grants": ["login"] })), "name: must be"),
        (
            (Method::POST, "/v1/admin/roles".to_owned(), "/v1/admin/roles", json!({ "name": "a b" })),
            "name: is empty",
        ),
        (
            (Method::POST, "/v1/admin/tenants".to_owned(), "/v1/admin/tenants", json!({ "id": "a\nb" })),
            "id: is empty",
        ),
        (
            (
                Method::POST,
                "/v1/admin/revocations".to_owned(),
                "/v1/admin/revocations",
                json!({ "dimension": "subject", "value": "u", "reason": "a\u{0}b" }),
            ),
            "reason: is empty",
        ),
    ] {
        let answer = bench.change(method.clone(), &path, &body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}");
        bench.is_declared(&method, template, answer.status);
        let said = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(said.starts_with(detail), "{body}: {said}");
    }
    let twice = json!({ "username": "alice", "password": PASSWORD });
    assert_eq!(bench.change(Method::POST, "/v1/admin/users", &twice).await.status, StatusCode::CONFLICT);
    let text = bench
        .send(Method::POST, "/v1/admin/users", Some(&bench.operator), "text/plain", "{}".to_owned())
        .await;
    assert_eq!(text.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn ids_that_nothing_can_have_name_nothing() {
    let bench = Bench::new().await;
    for id in
        ["%00", "a%0Ab", "%FF%FE", &"x".repeat(300), "%E2%82%AC", "%2F..%2F", "u_nobody", "'%20OR%201=1"]
    {
        for (method, path, _) in admin_routes() {
            if !path.contains('{') {
                continue;
            }
            let uri: String = path
                .split('/')
                .map(|segment| if segment.starts_with('{') { id } else { segment })
                .collect::<Vec<_>>()
                .join("/");
            let body = match path.rsplit('/').next() {
                Some("password") => json!({ "password": "a much better one" }),
                Some("withdraw") => json!({ "reason": "x" }),
                _ if method == Method::PUT => json!({ "permissions": [] }),
                _ => json!({}),
            };
            let answer = bench.change(method.clone(), &uri, &body).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{method} {uri}");
            bench.is_declared(&method, path, answer.status);
        }
    }
}

#[tokio::test]
async fn queries_are_understood_or_refused() {
    let bench = Bench::new().await;
    for (query, status) in [
        ("users?limit=0", 400),
        ("users?limit=201", 400),
        ("users?limit=x", 400),
        ("users?limit=-1", 400),
        ("users?after=%00", 400),
        ("users?limit=1&limit=2", 400),
        (&*format!("users?username={}", "x".repeat(5000)), 400),
        ("users?username=nobody", 200),
        ("users?limit=200&after=%FF", 200),
        ("roles?after=a%00", 400),
        ("tenants?limit=99999999999999999999999", 400),
        ("clients?after=", 400),
        ("audit?actor=%00", 400),
        ("audit?since=tomorrow", 400),
        ("audit?since=18446744073709551615", 200),
        ("audit?format=xml", 400),
        ("api-keys?user=u_nobody", 200),
        ("api-keys?user=u&client=c", 400),
        ("api-keys?client=%00", 400),
    ] {
        let answer = bench.get(&format!("/v1/admin/{query}"), Some(&bench.operator)).await;
        assert_eq!(answer.status.as_u16(), status, "{query}");
        let path = format!("/v1/admin/{}", query.split('?').next().unwrap());
        bench.is_declared(&Method::GET, &path, answer.status);
    }
}

#[tokio::test]
async fn lists_come_in_pages_that_lead_to_each_other() {
    let bench = Bench::new().await;
    for number in 0..6 {
        bench.make("/v1/admin/api-keys", json!({ "name": "x", "client": "first-party" })).await;
        bench.user(&format!("user {number}")).await;
        bench.make("/v1/admin/roles", json!({ "name": format!("role{number}") })).await;
        bench.make("/v1/admin/tenants", json!({ "id": format!("tenant/{number}") })).await;
        bench
            .make(
                "/v1/admin/clients",
                json!({ "id": format!("c{number}"), "name": "x", "grants": ["login"] }),
            )
            .await;
    }
    // Two roles and one client are there from the start.
    for (list, member, id, total) in [
        ("users", "users", "username", 6),
        ("roles", "roles", "name", 8),
        ("tenants", "tenants", "id", 6),
        ("clients", "clients", "id", 7),
        ("api-keys", "api_keys", "id", 6),
    ] {
        let mut path = format!("/v1/admin/{list}?limit=3");
        let (mut seen, mut pages) = (Vec::new(), 0);
        loop {
            let answer = bench.get(&path, Some(&bench.operator)).await;
            let body = answer.json();
            let entries = body[member].as_array().unwrap();
            seen.extend(entries.iter().map(|entry| entry[id].as_str().unwrap().to_owned()));
            pages += 1;
            let link = answer.header(header::LINK).to_owned();
            assert_eq!(body["next"].is_null(), link.is_empty(), "{list}");
            let Some(next) = link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\""))
            else {
                break;
            };
            assert_eq!(entries.len(), 3);
            path = next.to_owned();
        }
        assert_eq!(pages, usize::div_ceil(total, 3), "{list}");
        let unique: BTreeSet<_> = seen.iter().cloned().collect();
        assert_eq!((unique.len(), seen.len()), (total, total), "{list}");
        assert_eq!(seen, unique.into_iter().collect::<Vec<_>>(), "{list} is not in order");
    }
    let found = bench.get("/v1/admin/users?username=user%203", Some(&bench.operator)).await.json();
    assert_eq!(found["users"].as_array().unwrap().len(), 1);
    assert_eq!(found["users"][0]["username"], "user 3");
}

#[tokio::test]
async fn the_audit_log_is_read_in_pages_or_as_a_whole() {
    let bench = Bench::new().await;
    for number in 0..7 {
        bench.user(&format!("user{number}")).await;
    }
    let path = "/v1/admin/audit?action=user.create&limit=3";
    let first = bench.get(path, Some(&bench.operator)).await.json();
    assert_eq!(first["events"].as_array().unwrap().len(), 3);
    let next = format!("{path}&after={}", first["next"].as_str().unwrap());
    let second = bench.get(&next, Some(&bench.operator)).await.json();
    assert_eq!(second["events"].as_array().unwrap().len(), 3);
    let lines = |answer: &Answer| {
        assert_eq!(answer.header(header::CONTENT_TYPE), "application/x-ndjson");
        let text = String::from_utf8(answer.body.clone()).unwrap();
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>()
    };
    let all = bench.get(&format!("{path}&format=ndjson"), Some(&bench.operator)).await;
    assert_eq!(lines(&all).len(), 7);
    assert!(lines(&all).iter().all(|event| event["action"] == "user.create"));
    for (accept, kind) in [
        ("application/x-ndjson", "application/x-ndjson"),
        ("application/json;q=0.5, application/x-ndjson", "application/x-ndjson"),
        ("application/x-ndjson;q=0.5, application/json", "application/json"),
        ("application/x-ndjson;q=0", "application/json"),
        ("*/*", "application/json"),
    ] {
        let request = Request::builder().uri(path).header(header::ACCEPT, accept);
        let request = request.header(header::AUTHORIZATION, format!("Bearer {}", bench.operator));
        let answer = bench.request(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.header(header::CONTENT_TYPE), kind, "{accept}");
    }
}
