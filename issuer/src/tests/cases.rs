//! A request for each route that is answered well when the caller is allowed, made with things of its own.

use super::*;
use crate::credential::new_id;

pub(super) struct Case {
    pub(super) uri: String,
    pub(super) kind: &'static str,
    pub(super) body: String,
    /// What the audit log calls it, if it is an operator's change.
    pub(super) action: Option<&'static str>,
}

const JSON: &str = "application/json";

fn case(uri: String, body: Option<Value>, action: Option<&'static str>) -> Case {
    let kind = if body.is_some() { JSON } else { "" };
    Case { uri, kind, body: body.map(|body| body.to_string()).unwrap_or_default(), action }
}

fn form(path: &str, body: &str) -> Case {
    let kind = "application/x-www-form-urlencoded";
    Case { uri: path.to_owned(), kind, body: body.to_owned(), action: None }
}

impl Bench {
    pub(super) fn name(&self) -> String {
        new_id("n-", &*self.host).unwrap()
    }

    pub(super) async fn operator_who_may(&self, permissions: &[&str]) -> String {
        let permissions: Vec<String> = permissions.iter().map(|name| (*name).to_owned()).collect();
        let actor = Actor::command_line();
        self.app.add_operator(&self.name(), &permissions, &actor).await.unwrap().reveal().to_owned()
    }

    /// Makes something and gives back what the issuer says of it.
    pub(super) async fn make(&self, path: &str, body: Value) -> Value {
        let answer = self.post(path, Some(&self.operator), &body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{path}: {:?}", answer.json());
        answer.json()
    }

    async fn made_user(&self) -> String {
        self.user(&self.name()).await
    }

    async fn made_role(&self) -> String {
        let name = self.name();
        self.make("/v1/admin/roles", json!({ "name": name, "permissions": ["read"] })).await;
        name
    }

    async fn made_tenant(&self) -> String {
        let id = self.name();
        self.make("/v1/admin/tenants", json!({ "id": id })).await;
        id
    }

    /// The id of a client with two secrets, and that of one of them.
    async fn made_client(&self) -> (String, String) {
        let body = json!({ "name": "robot", "auth": "client_secret", "grants": ["client_credentials"] });
        let made = self.make("/v1/admin/clients", body).await;
        let id = made["client"]["id"].as_str().unwrap().to_owned();
        let secret = self.make(&format!("/v1/admin/clients/{id}/secrets"), json!({})).await;
        (id, secret["id"].as_str().unwrap().to_owned())
    }

    /// What the issuer says of a new API key of a new user.
    pub(super) async fn made_api_key(&self) -> Value {
        let user = self.made_user().await;
        self.make("/v1/admin/api-keys", json!({ "name": "deploy", "user": user, "scopes": ["read"] })).await
    }

    async fn active_key(&self) -> String {
        let keys = self.get("/v1/admin/signing-keys", Some(&self.operator)).await.json();
        let keys = keys["signing_keys"].as_array().unwrap().clone();
        let active = keys.iter().find(|key| key["state"] == "active").unwrap();
        active["kid"].as_str().unwrap().to_owned()
    }

    /// A route without a case here fails the tests that go through all of them.
    pub(super) async fn case(&self, method: &Method, path: &str) -> Option<Case> {
        Some(match (method.as_str(), path) {
            ("POST", "/oauth2/revoke" | "/oauth2/introspect") => form(path, "token=x"),
            ("POST", "/oauth2/token") => form(path, "grant_type=client_credentials"),
            ("POST", "/v1/logout" | "/v1/logout-all") | ("GET", "/v1/sessions") => {
                case(path.to_owned(), None, None)
            }
            // The person who calls has just logged in.
            ("DELETE", "/v1/sessions/{id}") => {
                case(path.replace("{id}", self.sessions("alice").await.first()?), None, None)
            }
            ("GET", "/v1/edge/feed" | "/metrics") => case(path.to_owned(), None, None),
            ("GET", "/v1/edge/history/{epoch}/{from}") => {
                self.fill_a_segment().await;
                case(format!("/v1/edge/history/{}/0", self.app.feed.epoch().to_hex()), None, None)
            }
            ("GET", "/v1/edge/snapshot/{id}/{piece}") => {
                case(format!("/v1/edge/snapshot/{}/0", self.snapshot_id().await), None, None)
            }
            ("POST", "/v1/edge/heartbeat") => {
                case(path.to_owned(), Some(heartbeats::beat("eu-1", "00")), None)
            }
            ("POST", "/v1/edge/quota") => {
                case(path.to_owned(), Some(json!({ "edge": "eu-1", "epoch": "e", "sequence": 1 })), None)
            }
            ("POST", "/v1/edge/keys/resolve") => {
                case(path.to_owned(), Some(json!({ "id": "AbCd0123", "digest": "A".repeat(43) })), None)
            }
            _ => return self.admin_case(method, path).await,
        })
    }

    async fn admin_case(&self, method: &Method, path: &str) -> Option<Case> {
        let at = |id: &str| path.replace("{id}", id).replace("{name}", id).replace("{kid}", id);
        let plain = path.to_owned();
        let name = self.name();
        Some(match (method.as_str(), path.strip_prefix("/v1/admin/")?) {
            ("POST", "users") => {
                let body = json!({ "username": name, "password": PASSWORD });
                case(plain, Some(body), Some("user.create"))
            }
            ("GET", "users/{id}" | "users/{id}/sessions") => case(at(&self.made_user().await), None, None),
            ("PATCH", "users/{id}") => {
                case(at(&self.made_user().await), Some(json!({ "disabled": true })), Some("user.change"))
            }
            ("DELETE", "users/{id}") => case(at(&self.made_user().await), None, Some("user.delete")),
            ("PUT", "users/{id}/password") => {
                let body = json!({ "password": "a much better one" });
                case(at(&self.made_user().await), Some(body), Some("password.change"))
            }
            ("POST", "users/{id}/unlock") => case(at(&self.made_user().await), None, Some("user.unlock")),
            ("DELETE", "users/{id}/sessions") => case(at(&self.made_user().await), None, Some("session.end")),
            ("DELETE", "users/{id}/sessions/{sid}") => {
                let id = self.user(&name).await;
                self.login(&name).await;
                let sessions = self.app.sessions_of_user(&id).await.unwrap();
                case(at(&id).replace("{sid}", &sessions[0].id), None, Some("session.end"))
            }
            ("POST", "roles") => case(plain, Some(json!({ "name": name })), Some("role.create")),
            ("GET", "roles/{name}") => case(at(&self.made_role().await), None, None),
            ("PUT", "roles/{name}") => {
                case(at(&self.made_role().await), Some(json!({ "permissions": [] })), Some("role.change"))
            }
            ("DELETE", "roles/{name}") => case(at(&self.made_role().await), None, Some("role.delete")),
            ("POST", "tenants") => case(plain, Some(json!({ "id": name })), Some("tenant.create")),
            ("GET", "tenants/{id}") => case(at(&self.made_tenant().await), None, None),
            ("PATCH", "tenants/{id}") => {
                case(at(&self.made_tenant().await), Some(json!({ "name": "Acme" })), Some("tenant.change"))
            }
            ("POST", "clients") => {
                let body = json!({ "name": name, "grants": ["login"] });
                case(plain, Some(body), Some("client.create"))
            }
            ("GET", "clients/{id}") => case(at(&self.made_client().await.0), None, None),
            ("PATCH", "clients/{id}") => {
                case(at(&self.made_client().await.0), Some(json!({ "name": "new" })), Some("client.change"))
            }
            ("DELETE", "clients/{id}") => case(at(&self.made_client().await.0), None, Some("client.delete")),
            ("POST", "clients/{id}/secrets") => {
                case(at(&self.made_client().await.0), None, Some("client.secret"))
            }
            ("DELETE", "clients/{id}/secrets/{secret}") => {
                let (id, secret) = self.made_client().await;
                case(at(&id).replace("{secret}", &secret), None, Some("client.secret"))
            }
            ("POST", "api-keys") => {
                let body = json!({ "name": name, "user": self.made_user().await, "scopes": ["write"] });
                case(plain, Some(body), Some("api-key.create"))
            }
            ("GET", "api-keys/{id}") => {
                case(at(self.made_api_key().await["api_key"]["id"].as_str()?), None, None)
            }
            ("DELETE", "api-keys/{id}") => {
                let made = self.made_api_key().await;
                case(at(made["api_key"]["id"].as_str()?), None, Some("api-key.revoke"))
            }
            ("POST", "signing-keys/rotate") => case(plain, None, Some("key.activate")),
            ("POST", "signing-keys/{kid}/withdraw") => {
                let body = json!({ "reason": "lost" });
                case(at(&self.active_key().await), Some(body), Some("key.withdraw"))
            }
            ("POST", "edges") => case(plain, Some(json!({ "id": name })), Some("edge.create")),
            ("DELETE", "edges/{id}") => {
                self.edge(&name).await;
                case(at(&name), None, Some("edge.remove"))
            }
            ("POST", "operators") => {
                // What whoever may do this has in any case.
                let body = json!({ "name": name, "permissions": ["operators:write"] });
                case(plain, Some(body), Some("operator.create"))
            }
            ("DELETE", "operators/{name}") => {
                let permissions = ["operators:write".to_owned()];
                self.app.add_operator(&name, &permissions, &Actor::command_line()).await.unwrap();
                case(at(&name), None, Some("operator.remove"))
            }
            ("POST", "revocations") => {
                let body = json!({ "dimension": "subject", "value": "u_1" });
                case(plain, Some(body), Some("revocation"))
            }
            ("GET", rest) if !rest.contains('{') => case(plain, None, None),
            _ => return None,
        })
    }

    /// Fails unless the document says that this route may answer so.
    pub(super) fn is_declared(&self, method: &Method, path: &str, status: StatusCode) {
        let document: Value = serde_json::from_str(self.app.openapi.body()).unwrap();
        let verb = method.as_str().to_lowercase();
        let answers = &document["paths"][path.replace("{*", "{")][verb]["responses"];
        assert!(answers.get(status.as_str()).is_some(), "{method} {path}: {status} is not declared");
    }
}
