//! Every way in which a token, a session or a right ends: the feed has it when the call is acknowledged.

use std::collections::BTreeSet;

use tollgate_shared::revocation::{Dimension, RevokedBy};

use super::held::Held;
use super::*;
use crate::routes;
use crate::store::SESSIONS_MAX;

/// Each way, and the call that it is. One that is not here, and not below, fails.
const ENDINGS: [(&str, &str); 38] = [
    ("a client revokes an access token", "POST /oauth2/revoke"),
    ("a client revokes a refresh token", "POST /oauth2/revoke"),
    ("a refresh token comes back", "POST /oauth2/token"),
    ("a person logs out", "POST /v1/logout"),
    ("a person logs out everywhere", "POST /v1/logout-all"),
    ("a person ends another session", "DELETE /v1/sessions/{id}"),
    ("a login takes the place of the session used least lately", "POST /v1/login"),
    ("an operator ends a session", "DELETE /v1/admin/users/{id}/sessions/{sid}"),
    ("an operator ends all sessions", "DELETE /v1/admin/users/{id}/sessions"),
    ("a password is changed", "PUT /v1/admin/users/{id}/password"),
    ("a user is disabled", "PATCH /v1/admin/users/{id}"),
    ("a role is taken from a user", "PATCH /v1/admin/users/{id}"),
    ("a scope is taken from a user", "PATCH /v1/admin/users/{id}"),
    ("a user gets another plan", "PATCH /v1/admin/users/{id}"),
    ("a user leaves a tenant", "PATCH /v1/admin/users/{id}"),
    ("a user moves to another tenant", "PATCH /v1/admin/users/{id}"),
    ("a user is deleted", "DELETE /v1/admin/users/{id}"),
    ("a client is disabled", "PATCH /v1/admin/clients/{id}"),
    ("a scope is taken from a client", "PATCH /v1/admin/clients/{id}"),
    ("a role is taken from a client", "PATCH /v1/admin/clients/{id}"),
    ("a grant is taken from a client", "PATCH /v1/admin/clients/{id}"),
    ("a client gets another plan", "PATCH /v1/admin/clients/{id}"),
    ("a client leaves a tenant", "PATCH /v1/admin/clients/{id}"),
    ("a client moves to another tenant", "PATCH /v1/admin/clients/{id}"),
    ("a client is deleted", "DELETE /v1/admin/clients/{id}"),
    ("a tenant is disabled", "PATCH /v1/admin/tenants/{id}"),
    ("a role permits less", "PUT /v1/admin/roles/{name}"),
    ("a role is deleted", "DELETE /v1/admin/roles/{name}"),
    ("a signing key is withdrawn", "POST /v1/admin/signing-keys/{kid}/withdraw"),
    ("an API key is revoked", "DELETE /v1/admin/api-keys/{id}"),
    ("an operator revokes what was issued before a date", "POST /v1/admin/revocations"),
    ("an operator revokes a token", "POST /v1/admin/revocations"),
    ("an operator revokes a session", "POST /v1/admin/revocations"),
    ("an operator revokes a subject", "POST /v1/admin/revocations"),
    ("an operator revokes a client", "POST /v1/admin/revocations"),
    ("an operator revokes a tenant", "POST /v1/admin/revocations"),
    ("an operator revokes a key", "POST /v1/admin/revocations"),
    ("an operator revokes an issuer", "POST /v1/admin/revocations"),
];

const MAKES: &str = "it makes something, and takes nothing from anybody";
/// The calls that change something and end nothing that an edge knows of, each with the reason.
const ENDS_NOTHING: [(&str, &str); 15] = [
    ("POST /oauth2/introspect", "it only asks"),
    ("POST /v1/edge/heartbeat", "it only reports"),
    ("POST /v1/edge/quota", "units come and go, and rights do not"),
    ("POST /v1/edge/keys/resolve", "it only asks"),
    ("POST /v1/admin/users", MAKES),
    ("POST /v1/admin/users/{id}/unlock", "it lets somebody log in again"),
    ("POST /v1/admin/roles", MAKES),
    ("POST /v1/admin/tenants", MAKES),
    ("POST /v1/admin/clients", MAKES),
    ("POST /v1/admin/clients/{id}/secrets", MAKES),
    (
        "DELETE /v1/admin/clients/{id}/secrets/{secret}",
        "who had it gets nothing more; what was had with it is the client's, to be revoked as such",
    ),
    ("POST /v1/admin/api-keys", MAKES),
    ("POST /v1/admin/signing-keys/rotate", "a key that stops signing is believed until its tokens are over"),
    ("POST /v1/admin/edges", MAKES),
    ("POST /v1/admin/operators", MAKES),
];
/// The same of what takes a credential away that is no token.
const ENDS_A_CREDENTIAL: [(&str, &str); 2] = [
    (
        "DELETE /v1/admin/edges/{id}",
        "the credential is no token, and the issuer alone judges it: by what it saw in the database a second ago at most",
    ),
    (
        "DELETE /v1/admin/operators/{name}",
        "the credential is asked for in the database at each call, and is no token",
    ),
];

#[test]
fn every_call_that_changes_something_ends_something_or_is_said_not_to() {
    let changing: BTreeSet<String> = routes()
        .into_iter()
        .filter(|(method, ..)| method != Method::GET)
        .map(|(method, path, _)| format!("{method} {path}"))
        .collect();
    let ending: BTreeSet<String> = ENDINGS.iter().map(|(_, call)| (*call).to_owned()).collect();
    let others = ENDS_NOTHING.iter().chain(&ENDS_A_CREDENTIAL).map(|(call, _)| (*call).to_owned());
    let others: BTreeSet<String> = others.collect();
    assert!(ending.is_disjoint(&others));
    assert_eq!(ending.union(&others).cloned().collect::<BTreeSet<_>>(), changing);
}

/// Alice of Acme, a clerk with a session of the client `app`, and the robot of Acme, a clerk too; and Zoe, who has nothing to do
/// with them.
struct Scene {
    bench: Bench,
    edge: String,
    alice: Held,
    refresh: String,
    robot: Held,
    zoe: Held,
}

/// What is called, how it is answered, and whose token is revoked by it in which way.
struct Call {
    credential: Option<String>,
    path: String,
    kind: &'static str,
    body: String,
    answered: StatusCode,
    victims: Vec<(Held, RevokedBy)>,
}

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

impl Scene {
    async fn new() -> Self {
        let bench = Bench::new().await;
        let edge = bench.edge("eu-1").await;
        for tenant in ["acme", "zenith"] {
            bench.make("/v1/admin/tenants", json!({ "id": tenant })).await;
        }
        for (role, permissions) in [("clerk", ["file", "list"]), ("clerks", ["file", "list"])] {
            bench.make("/v1/admin/roles", json!({ "name": role, "permissions": permissions })).await;
        }
        let app = json!({ "id": "app", "name": "App", "grants": ["login", "refresh_token"], "scopes": ["read", "write"] });
        bench.make("/v1/admin/clients", app).await;
        let robot = json!({
            "id": "robot", "name": "Robot", "auth": "client_secret", "grants": ["client_credentials"],
            "scopes": ["read", "write"], "roles": ["clerk"], "tenant": "acme",
        });
        let made = bench.make("/v1/admin/clients", robot).await;
        let pair = format!("robot:{}", made["client_secret"].as_str().unwrap());
        let basic = format!("Basic {}", base64ct::Base64::encode_string(pair.as_bytes()));
        for (name, role, tenant) in [("alice", "clerk", Some("acme")), ("zoe", "clerks", None)] {
            let user = json!({
                "username": name, "password": PASSWORD, "scopes": ["read", "write"], "roles": [role], "tenant": tenant,
            });
            bench.make("/v1/admin/users", user).await;
        }
        let (alice, refresh) = bench.holds_through("app", "alice").await;
        let (robot, zoe) = (bench.client_holds(&basic).await, bench.holds("zoe").await.0);
        assert!(alice.claims.scopes.contains(&"file".to_owned()), "{:?}", alice.claims.scopes);
        Self { bench, edge, alice, refresh, robot, zoe }
    }

    fn operators(&self, path: String, body: &Value, victims: Vec<(Held, RevokedBy)>) -> Call {
        let (credential, body) = (Some(self.bench.operator.clone()), body.to_string());
        Call { credential, path, kind: JSON, body, answered: StatusCode::OK, victims }
    }

    fn alice_by(&self, dimension: Dimension) -> Vec<(Held, RevokedBy)> {
        vec![(self.alice.clone(), RevokedBy::Cutoff(dimension))]
    }

    fn both_by(&self, dimension: Dimension) -> Vec<(Held, RevokedBy)> {
        let by = RevokedBy::Cutoff(dimension);
        vec![(self.alice.clone(), by), (self.robot.clone(), by)]
    }

    /// A change of Alice by an operator.
    fn of_alice(&self, rest: &str, body: &Value) -> Call {
        let path = format!("/v1/admin/users/{}{rest}", self.alice.claims.subject);
        self.operators(path, body, self.alice_by(Dimension::Subject))
    }

    fn of_app(&self, body: &Value) -> Call {
        self.operators("/v1/admin/clients/app".to_owned(), body, self.alice_by(Dimension::Client))
    }

    fn of_robot(&self, body: &Value) -> Call {
        let victims = vec![(self.robot.clone(), RevokedBy::Cutoff(Dimension::Client))];
        self.operators("/v1/admin/clients/robot".to_owned(), body, victims)
    }

    fn of_clerks(&self, body: &Value) -> Call {
        self.operators("/v1/admin/roles/clerk".to_owned(), body, self.both_by(Dimension::Subject))
    }

    fn revokes(&self, dimension: Dimension, value: &str, victim: Held) -> Call {
        let body = json!({ "dimension": dimension.name(), "value": value, "reason": "lost" });
        let victims = vec![(victim, RevokedBy::Cutoff(dimension))];
        let call = self.operators("/v1/admin/revocations".to_owned(), &body, victims);
        Call { answered: StatusCode::CREATED, ..call }
    }

    /// A call of Alice herself.
    fn alices(&self, path: String, victims: Vec<(Held, RevokedBy)>) -> Call {
        let credential = Some(self.alice.text.clone());
        let (body, answered) = (String::new(), StatusCode::NO_CONTENT);
        Call { credential, path, kind: "", body, answered, victims }
    }

    fn form(&self, path: &str, body: String, victims: Vec<(Held, RevokedBy)>) -> Call {
        let (path, answered) = (path.to_owned(), StatusCode::OK);
        Call { credential: None, path, kind: FORM, body, answered, victims }
    }

    /// How something ends by what people and clients do.
    async fn call(&self, way: &str) -> Call {
        let session = self.alice.claims.session.as_ref().unwrap().to_string();
        match way {
            "a client revokes an access token" => {
                let form = format!("client_id=app&token={}", self.alice.text);
                self.form("/oauth2/revoke", form, vec![(self.alice.clone(), RevokedBy::Index)])
            }
            "a client revokes a refresh token" => {
                let form = format!("client_id=app&token={}", self.refresh);
                self.form("/oauth2/revoke", form, self.alice_by(Dimension::Session))
            }
            "a refresh token comes back" => {
                let form = format!("grant_type=refresh_token&client_id=app&refresh_token={}", self.refresh);
                let child = self.bench.form("/oauth2/token", None, &form).await.json();
                let child = self.bench.held(child["access_token"].as_str().unwrap());
                self.bench.host.advance(31_000);
                let mut victims = self.alice_by(Dimension::Session);
                victims.push((child, RevokedBy::Cutoff(Dimension::Session)));
                Call { answered: StatusCode::BAD_REQUEST, ..self.form("/oauth2/token", form, victims) }
            }
            "a person logs out" => self.alices("/v1/logout".to_owned(), self.alice_by(Dimension::Session)),
            "a person logs out everywhere" => {
                let mut victims = self.alice_by(Dimension::Subject);
                let other = self.bench.holds("alice").await.0;
                victims.push((other, RevokedBy::Cutoff(Dimension::Subject)));
                self.alices("/v1/logout-all".to_owned(), victims)
            }
            "a person ends another session" => {
                let other = self.bench.holds("alice").await.0;
                let path = format!("/v1/sessions/{}", other.claims.session.as_ref().unwrap());
                self.alices(path, vec![(other, RevokedBy::Cutoff(Dimension::Session))])
            }
            "a login takes the place of the session used least lately" => {
                for _ in 1..SESSIONS_MAX {
                    self.bench.host.advance(1_000);
                    self.bench.login("alice").await;
                }
                self.bench.host.advance(1_000);
                let body = json!({ "username": "alice", "password": PASSWORD });
                let call = self.operators("/v1/login".to_owned(), &body, self.alice_by(Dimension::Session));
                Call { credential: None, ..call }
            }
            "an operator ends a session" => {
                let call = self.of_alice(&format!("/sessions/{session}"), &json!({}));
                let victims = self.alice_by(Dimension::Session);
                Call { answered: StatusCode::NO_CONTENT, victims, ..call }
            }
            _ => self.change(way).await,
        }
    }

    /// How something ends by what operators change.
    async fn change(&self, way: &str) -> Call {
        let gone = |call: Call| Call { answered: StatusCode::NO_CONTENT, ..call };
        match way {
            "an operator ends all sessions" => gone(self.of_alice("/sessions", &json!({}))),
            "a password is changed" => {
                self.of_alice("/password", &json!({ "password": "a much better one" }))
            }
            "a user is disabled" => self.of_alice("", &json!({ "disabled": true })),
            "a role is taken from a user" => self.of_alice("", &json!({ "roles": [] })),
            "a scope is taken from a user" => self.of_alice("", &json!({ "scopes": ["read"] })),
            "a user gets another plan" => self.of_alice("", &json!({ "plan": "premium" })),
            "a user moves to another tenant" => self.of_alice("", &json!({ "tenant": "zenith" })),
            "a user leaves a tenant" => self.of_alice("", &json!({ "tenant": null })),
            "a user is deleted" => gone(self.of_alice("", &json!({}))),
            "a client is disabled" => self.of_app(&json!({ "disabled": true })),
            "a scope is taken from a client" => self.of_app(&json!({ "scopes": ["read"] })),
            "a role is taken from a client" => self.of_robot(&json!({ "roles": [] })),
            "a grant is taken from a client" => self.of_app(&json!({ "grants": ["login"] })),
            "a client gets another plan" => self.of_robot(&json!({ "plan": "premium" })),
            "a client leaves a tenant" => self.of_robot(&json!({ "tenant": null })),
            "a client moves to another tenant" => self.of_robot(&json!({ "tenant": "zenith" })),
            "a client is deleted" => gone(self.of_app(&json!({}))),
            "a tenant is disabled" => {
                let victims = self.both_by(Dimension::Tenant);
                self.operators("/v1/admin/tenants/acme".to_owned(), &json!({ "disabled": true }), victims)
            }
            "a role permits less" => self.of_clerks(&json!({ "permissions": ["list"] })),
            "a role is deleted" => gone(self.of_clerks(&json!({}))),
            "a signing key is withdrawn" => {
                let key = self.bench.app.keys.signing.view().active().to_string();
                let path = format!("/v1/admin/signing-keys/{key}/withdraw");
                gone(self.operators(path, &json!({ "reason": "lost" }), self.both_by(Dimension::Key)))
            }
            "an API key is revoked" => {
                let made = self.bench.made_api_key().await;
                let id = made["api_key"]["id"].as_str().unwrap();
                let key = self.alice.clone().of_token(id);
                let victims = vec![(key, RevokedBy::Cutoff(Dimension::Token))];
                gone(self.operators(format!("/v1/admin/api-keys/{id}"), &json!({}), victims))
            }
            _ => self.revocation(way),
        }
    }

    /// How something ends by an order to revoke.
    fn revocation(&self, way: &str) -> Call {
        const OTHER: &str = "https://other.example";
        let (alice, claims) = (self.alice.clone(), &self.alice.claims);
        match way {
            "an operator revokes what was issued before a date" => {
                self.bench.host.advance(1_000);
                let call = self.revokes(Dimension::Tenant, "acme", alice);
                let mut body: Value = serde_json::from_str(&call.body).unwrap();
                body["issued_before"] = self.bench.host.seconds().0.into();
                Call { body: body.to_string(), ..call }
            }
            "an operator revokes a token" => self.revokes(Dimension::Token, claims.token_id.as_str(), alice),
            "an operator revokes a session" => {
                let session = claims.session.as_ref().unwrap().to_string();
                self.revokes(Dimension::Session, &session, alice)
            }
            "an operator revokes a subject" => {
                self.revokes(Dimension::Subject, claims.subject.as_str(), alice)
            }
            "an operator revokes a client" => self.revokes(Dimension::Client, "app", alice),
            "an operator revokes a tenant" => self.revokes(Dimension::Tenant, "acme", alice),
            // A key of our own is withdrawn.
            "an operator revokes a key" => self.revokes(Dimension::Key, "k_lost", alice.signed_by("k_lost")),
            "an operator revokes an issuer" => self.revokes(Dimension::Issuer, OTHER, alice.of_issuer(OTHER)),
            way => panic!("{way} is not tried"),
        }
    }
}

#[tokio::test]
async fn whatever_ends_is_in_the_feed_when_the_call_is_acknowledged_and_nothing_else_is() {
    for (way, route) in ENDINGS {
        let scene = Scene::new().await;
        let Call { credential, path, kind, body, answered, victims } = scene.call(way).await;
        let before = scene.bench.told(&scene.edge).await;
        for (victim, _) in &victims {
            assert!(!victim.is_revoked(&before), "{way}");
        }
        let (method, template) = route.split_once(' ').unwrap();
        assert!(path.starts_with(template.split('{').next().unwrap()), "{way} is no {route}");
        let method: Method = method.parse().unwrap();
        let answer = scene.bench.send(method, &path, credential.as_deref(), kind, body).await;
        assert_eq!(answer.status, answered, "{way}: {:?}", String::from_utf8_lossy(&answer.body));
        // One poll, and nothing that publishes meanwhile: neither of who starts nor of who goes on.
        let state = scene.bench.told(&scene.edge).await;
        let mut went_on = Some(before);
        scene.bench.poll(&scene.edge, &mut went_on, 0).await;
        for (victim, by) in &victims {
            assert_eq!(victim.revoked_by(&state), Some(*by), "{way}");
            assert_eq!(victim.revoked_by(went_on.as_ref().unwrap()), Some(*by), "{way}");
        }
        // The key that Zoe's token is signed by is that of all.
        let zoe = if way.contains("signing key") { scene.zoe.signed_by("another") } else { scene.zoe };
        assert_eq!(zoe.revoked_by(&state), None, "{way}");
    }
}
