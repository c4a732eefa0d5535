//! API keys: who gets one, what it is good for, and when it is none any more.

use base64ct::{Base64UrlUnpadded, Encoding as _};
use tollgate_shared::revocation::Dimension;

use super::settings::command;
use super::*;
use crate::api_key::{API_KEYS_MAX, LIFE_SECONDS_MAX, PresentedApiKey};

const KEYS: &str = "/v1/admin/api-keys";

impl Bench {
    /// Makes a key, and gives back its public id and its text.
    async fn api_key(&self, body: Value) -> (String, String) {
        let made = self.make(KEYS, body).await;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (text(&made["api_key"]["id"]), text(&made["key"]))
    }

    /// What an edge is told of a key that somebody presented there.
    async fn resolved(&self, edge: &str, key: &str) -> Answer {
        let PresentedApiKey { id, digest } = PresentedApiKey::parse(key).unwrap();
        let digest = Base64UrlUnpadded::encode_string(digest.as_bytes());
        let answer =
            self.post("/v1/edge/keys/resolve", Some(edge), &json!({ "id": id, "digest": digest })).await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.json());
        assert_eq!(answer.header(header::CACHE_CONTROL), "no-store");
        answer
    }

    async fn patch(&self, path: &str, body: Value) {
        let answer = self.change(Method::PATCH, path, &body).await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.json());
    }
}

#[tokio::test]
async fn a_key_speaks_for_its_owner_and_has_what_both_have() {
    let bench = Bench::new().await;
    let edge = bench.edge("eu-1").await;
    bench.make("/v1/admin/tenants", json!({ "id": "acme" })).await;
    let alice = bench.user("alice").await;
    bench.patch(&format!("/v1/admin/users/{alice}"), json!({ "tenant": "acme", "plan": "premium" })).await;
    let expires_at = START.0 / 1000 + 60;
    let body =
        json!({ "name": "deploy", "user": alice, "scopes": ["write", "read"], "expires_at": expires_at });
    let (id, key) = bench.api_key(body).await;
    assert_eq!(
        bench.resolved(&edge, &key).await.json(),
        json!({
            "active": true, "subject": alice, "client": null, "tenant": "acme", "plan": "premium",
            "scope": "read write", "roles": ["member"], "expires_at": expires_at,
        })
    );
    // A right that is taken from the owner is taken from the key, and comes back with it.
    bench.patch(&format!("/v1/admin/users/{alice}"), json!({ "scopes": ["read"] })).await;
    assert_eq!(bench.resolved(&edge, &key).await.json()["scope"], "read");
    let shown = bench.get(&format!("{KEYS}/{id}"), Some(&bench.operator)).await.json();
    assert_eq!(shown["scopes"], json!(["read", "write"]));
    assert_eq!((&shown["user"], &shown["client"]), (&json!(alice), &Value::Null));
    assert!(shown.get("digest").is_none());

    // What a role permits is the owner's too, also a client's.
    bench.make("/v1/admin/roles", json!({ "name": "deployer", "permissions": ["deploy"] })).await;
    let client = json!({
        "id": "batch", "name": "batch", "auth": "client_secret", "grants": ["client_credentials"],
        "roles": ["deployer"],
    });
    bench.make("/v1/admin/clients", client).await;
    let (_, key) = bench.api_key(json!({ "name": "nightly", "client": "batch", "scopes": ["deploy"] })).await;
    assert_eq!(
        bench.resolved(&edge, &key).await.json(),
        json!({
            "active": true, "subject": "batch", "client": "batch", "tenant": null, "plan": "free",
            "scope": "deploy", "roles": ["deployer"], "expires_at": null,
        })
    );
}

#[tokio::test]
async fn a_key_that_is_not_in_force_is_answered_like_one_that_never_was() {
    let bench = Bench::new().await;
    let edge = bench.edge("eu-1").await;
    bench.make("/v1/admin/tenants", json!({ "id": "acme" })).await;
    let alice = bench.user("alice").await;
    let user = format!("/v1/admin/users/{alice}");
    let batch =
        json!({ "id": "batch", "name": "batch", "auth": "client_secret", "grants": ["client_credentials"] });
    bench.make("/v1/admin/clients", batch.clone()).await;
    bench.patch(&user, json!({ "tenant": "acme" })).await;
    let inactive = br#"{"active":false}"#;
    let is_in_force = async |key: &str| {
        let answer = bench.resolved(&edge, key).await;
        let is_inactive = answer.body == inactive;
        assert!(is_inactive || answer.json()["active"] == true, "{:?}", answer.json());
        !is_inactive
    };
    let (id, key) = bench.api_key(json!({ "name": "a", "user": alice, "scopes": ["read"] })).await;
    let (_, other) = bench.api_key(json!({ "name": "b", "user": alice })).await;
    let (_, of_client) = bench.api_key(json!({ "name": "c", "client": "batch" })).await;
    assert!(is_in_force(&key).await && is_in_force(&other).await && is_in_force(&of_client).await);

    // Unknown, and the secret of another.
    let digest = |key: &str| {
        let presented = PresentedApiKey::parse(key).unwrap();
        Base64UrlUnpadded::encode_string(presented.digest.as_bytes())
    };
    for (id, digest) in
        [("AbCd0123", digest(&key)), (&id, digest(&other)), ("nothing that an id can be", digest(&key))]
    {
        let answer =
            bench.post("/v1/edge/keys/resolve", Some(&edge), &json!({ "id": id, "digest": digest })).await;
        assert_eq!((answer.status, answer.body.as_slice()), (StatusCode::OK, inactive.as_slice()), "{id}");
    }

    // Owners that are not in force, each of them for a while.
    for (path, off, on) in [
        (&*user, json!({ "disabled": true }), json!({ "disabled": false })),
        ("/v1/admin/tenants/acme", json!({ "disabled": true }), json!({ "disabled": false })),
    ] {
        bench.patch(path, off).await;
        assert!(!is_in_force(&key).await, "{path}");
        assert!(is_in_force(&of_client).await, "{path}");
        bench.patch(path, on).await;
        assert!(is_in_force(&key).await, "{path}");
    }
    bench.patch("/v1/admin/clients/batch", json!({ "disabled": true })).await;
    assert!(!is_in_force(&of_client).await);
    bench.patch("/v1/admin/clients/batch", json!({ "disabled": false, "tenant": "acme" })).await;
    assert!(is_in_force(&of_client).await);
    bench.patch("/v1/admin/tenants/acme", json!({ "disabled": true })).await;
    assert!(!is_in_force(&of_client).await);
    bench.patch("/v1/admin/tenants/acme", json!({ "disabled": false })).await;

    // Deleted, and made anew under the same id.
    let delete = async |path: &str| {
        let answer = bench.send(Method::DELETE, path, Some(&bench.operator), "", String::new()).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{path}");
    };
    delete("/v1/admin/clients/batch").await;
    assert!(!is_in_force(&of_client).await);
    bench.make("/v1/admin/clients", batch).await;
    assert!(!is_in_force(&of_client).await);

    // Revoked, for good and however often; edges are told.
    let mut state = None;
    let known = bench.poll(&edge, &mut state, 0).await.to;
    delete(&format!("{KEYS}/{id}")).await;
    assert!(!is_in_force(&key).await && is_in_force(&other).await);
    let message = bench.poll(&edge, &mut state, 0).await;
    assert!(message.to > known);
    let cutoff = delta(message).cutoffs.pop().unwrap();
    assert_eq!((cutoff.dimension, cutoff.value.as_str()), (Dimension::Token, id.as_str()));
    bench.host.advance(5_000);
    delete(&format!("{KEYS}/{id}")).await;
    let shown = bench.get(&format!("{KEYS}/{id}"), Some(&bench.operator)).await.json();
    assert_eq!(shown["revoked_at"], START.0 / 1000);

    // Expired.
    let now = START.0 / 1000 + 5;
    let (_, short) = bench.api_key(json!({ "name": "d", "user": alice, "expires_at": now + 60 })).await;
    bench.host.advance(59_000);
    assert!(is_in_force(&short).await);
    bench.host.advance(1_000);
    assert!(!is_in_force(&short).await);

    delete(&user).await;
    assert!(!is_in_force(&other).await);
}

#[tokio::test]
async fn no_key_is_made_that_may_what_its_owner_may_not() {
    let bench = Bench::new().await;
    let alice = bench.user("alice").await;
    let now = START.0 / 1000;
    let many: Vec<String> = (0..65).map(|number| format!("s{number}")).collect();
    for (body, detail) in [
        (json!({ "name": "x", "user": alice, "scopes": ["admin"] }), "scopes: one of them is none"),
        (json!({ "name": "x", "user": alice, "scopes": ["a b"] }), "scopes: is empty"),
        (json!({ "name": "x", "user": alice, "scopes": many }), "scopes: more than 64"),
        (json!({ "name": "x", "client": "first-party", "scopes": ["read"] }), "scopes: one of them is none"),
        (json!({ "name": "", "user": alice }), "name: is empty"),
        (json!({ "name": "x" }), "user: either"),
        (json!({ "name": "x", "user": alice, "client": "first-party" }), "user: either"),
        (json!({ "name": "x", "user": "alice" }), "user: there is none"),
        (json!({ "name": "x", "user": "a\u{0}" }), "user: is empty"),
        (json!({ "name": "x", "client": "nobody" }), "client: there is none"),
        (json!({ "name": "x", "user": alice, "expires_at": now }), "expires_at: must lie ahead"),
        (
            json!({ "name": "x", "user": alice, "expires_at": now + LIFE_SECONDS_MAX + 1 }),
            "expires_at: must lie ahead",
        ),
        (json!({ "name": "x", "user": alice, "expires_at": u64::MAX }), "expires_at: must lie ahead"),
        (json!({ "name": "x", "user": alice, "key": "mine" }), "key: is not known"),
    ] {
        let answer = bench.change(Method::POST, KEYS, &body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}");
        bench.is_declared(&Method::POST, KEYS, answer.status);
        let said = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(said.starts_with(detail), "{body}: {said}");
    }
    let edge = bench.edge("eu-1").await;
    for body in [json!({ "id": "AbCd0123" }), json!({ "id": "AbCd0123", "digest": "A".repeat(44) })] {
        let answer = bench.post("/v1/edge/keys/resolve", Some(&edge), &body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}");
    }
    let longest = json!({ "name": "x", "user": alice, "expires_at": now + LIFE_SECONDS_MAX });
    bench.make(KEYS, longest).await;
    for _ in 1..API_KEYS_MAX {
        bench.make(KEYS, json!({ "name": "x", "user": alice })).await;
    }
    let more = bench.change(Method::POST, KEYS, &json!({ "name": "x", "user": alice })).await;
    assert_eq!(more.status, StatusCode::BAD_REQUEST);
    assert_eq!(more.json()["detail"], format!("api keys: the owner has {API_KEYS_MAX} already"));
    bench.make(KEYS, json!({ "name": "x", "client": "first-party" })).await;
    let of_alice = bench.get(&format!("{KEYS}?user={alice}&limit=200"), Some(&bench.operator)).await.json();
    assert_eq!(of_alice["api_keys"].as_array().unwrap().len(), usize::try_from(API_KEYS_MAX).unwrap());
    let of_client = bench.get(&format!("{KEYS}?client=first-party"), Some(&bench.operator)).await.json();
    assert_eq!(of_client["api_keys"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn keys_are_made_and_revoked_on_the_command_line() {
    let bench = Bench::new().await;
    let edge = bench.edge("eu-1").await;
    let data = bench.folder.path().to_str().unwrap();
    let alice = bench.user("alice").await;
    let order = async |arguments: &[&str]| {
        let arguments: Vec<&str> = ["--data-dir", data, "api-key"].iter().chain(arguments).copied().collect();
        command(&arguments, "").await
    };
    let made = order(&["add", "deploy", "--user", "alice", "--scope", "read"]).await.unwrap();
    let (json, key) = made.trim().split_once('\n').unwrap();
    let json: Value = serde_json::from_str(json).unwrap();
    let id = json["id"].as_str().unwrap();
    assert_eq!(bench.resolved(&edge, key).await.json()["subject"], alice.as_str());
    let end = SystemHost::new().seconds().plus(3600).0.to_string();
    order(&["add", "nightly", "--client", "first-party", "--expires-at", &end]).await.unwrap();
    assert_eq!(order(&["list"]).await.unwrap().lines().count(), 2);
    assert_eq!(order(&["list", "--user", "alice"]).await.unwrap().lines().count(), 1);
    assert_eq!(order(&["list", "--client", "first-party"]).await.unwrap().lines().count(), 1);
    assert_eq!(serde_json::from_str::<Value>(&order(&["show", id]).await.unwrap()).unwrap(), json);
    assert_eq!(order(&["revoke", id]).await.unwrap(), "revoked\n");
    assert_eq!(bench.resolved(&edge, key).await.json(), json!({ "active": false }));
    assert_eq!(order(&["revoke", "AbCd0123"]).await.unwrap_err(), "does not exist");
    let refused = order(&["add", "x", "--user", "alice", "--scope", "admin"]).await.unwrap_err();
    assert_eq!(refused, "scopes: one of them is none of the owner's");
}
