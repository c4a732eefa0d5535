//! The issuer answers as its OpenAPI document says, whatever it is asked, and each operation does what it is for at least once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base64ct::{Base64, Base64UrlUnpadded, Encoding as _};
use serde_json::{Value, json};
use sqlx::{AnyConnection, Connection as _};
use tollgate_shared::wire::feed::{SnapshotId, TrustAnchor};
use tollgate_tests::client::{Client, Response};
use tollgate_tests::evidence::Evidence;
use tollgate_tests::issuer::{Issuer, IssuerOptions};
use tollgate_tests::schemathesis::Examination;

const PASSWORD: &str = "correct horse battery";
const SEED: u32 = 20_261;
const EXAMPLES: u32 = 12;
const CHECKS: [&str; 4] = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
];
/// Where the document is.
const DOCUMENT: &str = "/openapi.json";
/// What people do with their own token, but for what ends the session that everything else needs.
const OF_USERS: &str = "^/v1/sessions";
/// What edges do with their credential.
const OF_EDGES: &str = "^/v1/edge/";
/// What makes and removes operators.
const OF_OPERATORS: &str = "^/v1/admin/operators";
/// What OAuth clients do with theirs.
const OF_CLIENTS: &str = "^/oauth2/";
/// The issuer of which metadata are found at a path of their own.
const ISSUER_WITH_PATH: &str = "http://issuer.test/tenant";

const SAME_KEY: &str =
    "most random requests repeat an idempotency key, and what is left may name what there is not";
const WITH_PATH: &str = "there is something only for an issuer with a path";
const AN_OWNER: &str = "a key has an owner there is, who holds its scopes";
/// What random requests may not bring off, each with the reason. The test does it once by hand.
const BY_HAND: [(&str, &str); 20] = [
    ("DELETE /v1/admin/api-keys/{id}", AN_OWNER),
    ("DELETE /v1/admin/clients/{id}/secrets/{secret}", "the secret has to be one of that client"),
    ("DELETE /v1/admin/users/{id}/sessions/{sid}", "the session has to be one of that user"),
    (
        "DELETE /v1/sessions/{id}",
        "the session has to be one of the caller, and not the one everything else needs",
    ),
    ("GET /.well-known/oauth-authorization-server/{path}", WITH_PATH),
    ("GET /.well-known/oauth-protected-resource/{path}", WITH_PATH),
    ("GET /.well-known/openid-configuration/{path}", WITH_PATH),
    ("GET /v1/admin/api-keys/{id}", AN_OWNER),
    ("GET /v1/edge/history/{epoch}/{from}", "a segment has to be whole"),
    ("GET /v1/edge/snapshot/{id}/{piece}", "a snapshot is named by its digest"),
    ("PATCH /v1/admin/clients/{id}", "keys go only with a client that has such"),
    (
        "POST /oauth2/token",
        "a refresh token is good once, and one proof of who the client is excludes the others",
    ),
    ("POST /v1/admin/api-keys", AN_OWNER),
    ("POST /v1/admin/clients", SAME_KEY),
    ("POST /v1/admin/clients/{id}/secrets", SAME_KEY),
    ("POST /v1/admin/edges", SAME_KEY),
    ("POST /v1/admin/operators", SAME_KEY),
    ("POST /v1/admin/roles", SAME_KEY),
    ("POST /v1/admin/tenants", SAME_KEY),
    ("POST /v1/admin/users", SAME_KEY),
];

/// Nothing is left out. The requests use what earlier answers named: as an operator, keys are withdrawn, edges removed, users and
/// clients deleted. So operators come last, after everybody whose standing that takes away, and the calls that remove operators come
/// after all others.
#[tokio::test(flavor = "multi_thread")]
async fn every_operation_answers_as_the_document_says() {
    let evidence = Evidence::of_this_test().unwrap();
    let options = IssuerOptions::default()
        // A poll that is held is no answer that is worth waiting for.
        .with("FEED__LONG_POLL_MAX_SECONDS", "1")
        // What is tested is not how soon a source of guesses is refused.
        .with("THROTTLE__SPRAYING_ADDRESS_ACCOUNTS", "90000")
        .with("THROTTLE__SPRAYING_NETWORK_ACCOUNTS", "90000")
        .with("THROTTLE__SPRAYING_TOTAL_ACCOUNTS", "90000");
    let issuer = Issuer::start(options, &evidence).await.unwrap();
    let document = Client::new().get(&format!("{}{DOCUMENT}", issuer.base_url())).send_ok().await.unwrap();
    let document = document.json().unwrap();
    let expected = operations(&document);
    let mut run = Run { issuer, evidence, document, answers: BTreeMap::new() };
    let users = run.users().await;

    println!("seed {SEED}");
    run.by_hand(&users).await;
    let token = run.token().await;
    run.random("user", &token, OF_USERS, None, &[]).await;
    let edge = format!("Bearer {}", run.issuer.add_edge("edge").await.unwrap());
    let own: &[&str] = &["edge"];
    let known = [("POST /v1/edge/quota", "body.edge", own), ("POST /v1/edge/heartbeat", "body.edge", own)];
    run.random("edge", &edge, OF_EDGES, None, &known).await;
    let service = run.service().await;
    let refresh = run.issuer.login("alice", PASSWORD).await.unwrap().refresh_token;
    let tokens: &[&str] = &[&refresh];
    let known =
        [("POST /oauth2/introspect", "body.token", tokens), ("POST /oauth2/token", "body.scope", &["read"])];
    run.random("client", &service, OF_CLIENTS, None, &known).await;
    // Each ends the session it comes in, so the first request is the one that does something.
    for (name, path) in [("leaver", "^/v1/logout$"), ("leaver-of-all", "^/v1/logout-all$")] {
        let token = run.token().await;
        run.random(name, &token, path, None, &[]).await;
    }
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    let known: [(&str, &str, &[&str]); 7] = [
        ("POST /v1/login", "body.username", &["alice"]),
        ("POST /v1/login", "body.password", &[PASSWORD]),
        ("POST /v1/login", "body.client_id", &["first-party"]),
        ("POST /v1/login", "body.scope", &["read"]),
        ("POST /v1/admin/clients/{id}/secrets", "path.id", &["service"]),
        ("DELETE /v1/admin/users/{id}/sessions", "path.id", &users),
        ("GET /v1/status/{list}", "path.list", &["0"]),
    ];
    let others = format!("{OF_USERS}|{OF_EDGES}|{OF_OPERATORS}|^/v1/logout|^{DOCUMENT}$");
    let operator = format!("Bearer {}", run.issuer.operator_token());
    run.random("operator", &operator, "^/", Some(&others), &known).await;
    run.issuer.operator("GET", "/v1/admin/edges").send_ok().await.unwrap();
    // Who removes everybody is removed too.
    run.random("operators", &operator, OF_OPERATORS, None, &[]).await;

    let asked: BTreeSet<_> = run.answers.keys().cloned().collect();
    assert_eq!(asked, expected, "an operation was left out, or is not in the document");
    let done = |operation: &&String| run.answers[*operation].iter().any(|status| (200..300).contains(status));
    let never: Vec<_> = expected.iter().filter(|operation| !done(operation)).collect();
    assert!(never.is_empty(), "never brought off: {never:?}");
    run.issuer.process().ensure_running().unwrap();
}

/// What was asked, and how it was answered.
struct Run {
    issuer: Issuer,
    evidence: Arc<Evidence>,
    document: Value,
    /// With which statuses each operation was answered.
    answers: BTreeMap<String, BTreeSet<u16>>,
}

impl Run {
    /// Alice, whose password is known, and others with sessions; gives the ids of those.
    async fn users(&self) -> Vec<String> {
        let mut ids = Vec::new();
        for name in ["alice", "bob", "carol", "dave"] {
            self.issuer.add_user(name, PASSWORD, "free", &[], &["read"]).await.unwrap();
            ids.push(self.issuer.login(name, PASSWORD).await.unwrap().user_id);
        }
        ids.split_off(1)
    }

    /// The authorization of a new session of Alice.
    async fn token(&self) -> String {
        format!("Bearer {}", self.issuer.login("alice", PASSWORD).await.unwrap().access_token)
    }

    /// A confidential client, as it proves who it is.
    async fn service(&self) -> String {
        let client = json!({
            "id": "service", "name": "service", "auth": "client_secret", "scopes": ["read"], "may_introspect": true,
            "grants": ["client_credentials"],
        });
        let added = self.issuer.operator("POST", "/v1/admin/clients").json(&client).send_ok().await.unwrap();
        let secret = added.json_at("/client_secret").unwrap();
        let pair = format!("service:{}", secret.as_str().unwrap());
        format!("Basic {}", Base64::encode_string(pair.as_bytes()))
    }

    /// Asks all operations of these paths at random.
    async fn random(
        &mut self,
        name: &str,
        authorization: &str,
        paths: &str,
        but: Option<&str>,
        known: &[(&str, &str, &[&str])],
    ) {
        let base_url = self.issuer.base_url();
        let examination = Examination {
            name,
            base_url: &base_url,
            authorization,
            paths,
            but,
            known,
            checks: &CHECKS,
            examples: EXAMPLES,
            seed: SEED,
        };
        let (examined, wrote) =
            tokio::task::block_in_place(|| examination.run(self.evidence.folder())).unwrap();
        assert!(examined.failures.is_empty() && examined.errors.is_empty(), "{wrote}");
        let found = examined.operations;
        assert_eq!((found.tested, found.errored, found.skipped), (found.selected, 0, 0), "{wrote}");
        println!("{} requests to {} operations", examined.test_cases.generated, found.tested);
        for (operation, statuses) in examined.answers {
            println!("  {operation}: {statuses:?}");
            self.answers.entry(operation).or_default().extend(statuses);
        }
    }

    /// Does what random requests may not bring off.
    async fn by_hand(&mut self, users: &[String]) {
        let operator = format!("Bearer {}", self.issuer.operator_token());
        let mut done = BTreeSet::new();
        let mut made = Value::Null;
        let key = json!({ "name": "x", "user": users[0], "scopes": ["read"] });
        let key = self.ask("POST /v1/admin/api-keys", "/v1/admin/api-keys", &operator, Some(&key)).await;
        let key = format!("/v1/admin/api-keys/{}", key["api_key"]["id"].as_str().unwrap());
        done.insert("POST /v1/admin/api-keys");
        for operation in ["GET /v1/admin/api-keys/{id}", "DELETE /v1/admin/api-keys/{id}"] {
            self.ask(operation, &key, &operator, None).await;
            done.insert(operation);
        }
        let client = json!({ "id": "by-hand", "name": "x", "auth": "client_secret", "grants": ["client_credentials"] });
        for (operation, path, body) in [
            ("POST /v1/admin/tenants", "/v1/admin/tenants", json!({ "id": "by-hand", "name": "x" })),
            ("POST /v1/admin/roles", "/v1/admin/roles", json!({ "name": "by-hand" })),
            (
                "POST /v1/admin/operators",
                "/v1/admin/operators",
                json!({ "name": "by-hand", "permissions": ["audit:read"] }),
            ),
            (
                "POST /v1/admin/users",
                "/v1/admin/users",
                json!({ "username": "by-hand", "password": PASSWORD }),
            ),
            ("POST /v1/admin/clients", "/v1/admin/clients", client),
            ("POST /v1/admin/clients/{id}/secrets", "/v1/admin/clients/by-hand/secrets", Value::Null),
            ("PATCH /v1/admin/clients/{id}", "/v1/admin/clients/by-hand", json!({ "name": "other" })),
        ] {
            made = self.ask(operation, path, &operator, Some(&body)).await;
            done.insert(operation);
        }
        let secret = made["secrets"][0].as_str().unwrap().to_owned();
        let sessions = format!("/v1/admin/users/{}/sessions", users[0]);
        let session = self.ask("GET /v1/admin/users/{id}/sessions", &sessions, &operator, None).await;
        let session = session["sessions"][0]["id"].as_str().unwrap().to_owned();
        let token = self.token().await;
        let own = self.ask("GET /v1/sessions", "/v1/sessions", &token, None).await;
        let own =
            own["sessions"].as_array().unwrap().iter().find(|session| session["current"] == true).unwrap();
        let own = own["id"].as_str().unwrap();
        for (operation, path, authorization) in [
            (
                "DELETE /v1/admin/clients/{id}/secrets/{secret}",
                format!("/v1/admin/clients/by-hand/secrets/{secret}"),
                &operator,
            ),
            ("DELETE /v1/admin/users/{id}/sessions/{sid}", format!("{sessions}/{session}"), &operator),
            ("DELETE /v1/sessions/{id}", format!("/v1/sessions/{own}"), &token),
        ] {
            self.ask(operation, &path, authorization, None).await;
            done.insert(operation);
        }
        let refresh = self.issuer.login("alice", PASSWORD).await.unwrap().refresh_token;
        let url = format!("{}/oauth2/token", self.issuer.base_url());
        let form = [
            ("grant_type", "refresh_token"),
            ("client_id", "first-party"),
            ("refresh_token", refresh.as_str()),
        ];
        let answer = Client::new().post(&url).form(&form).send_ok().await.unwrap();
        self.check("POST /oauth2/token", &answer);
        done.insert("POST /oauth2/token");
        self.read_segment_and_part(&operator).await;
        done.extend([
            "POST /v1/admin/edges",
            "GET /v1/edge/history/{epoch}/{from}",
            "GET /v1/edge/snapshot/{id}/{piece}",
        ]);
        let options = IssuerOptions { issuer: ISSUER_WITH_PATH.to_owned(), ..IssuerOptions::default() };
        let with_path = Issuer::start_named("issuer-with-path", options, &self.evidence).await.unwrap();
        for name in ["oauth-authorization-server", "oauth-protected-resource", "openid-configuration"] {
            let url = format!("{}/.well-known/{name}/tenant", with_path.base_url());
            let answer = Client::new().get(&url).send_ok().await.unwrap();
            let (operation, _) =
                BY_HAND.iter().find(|(operation, _)| operation.contains(&format!("/{name}/"))).unwrap();
            self.check(operation, &answer);
            done.insert(operation);
        }
        assert_eq!(done, BY_HAND.iter().map(|(operation, _)| *operation).collect());
    }

    /// Reads a segment as an edge, once there is one, and a part of a snapshot.
    async fn read_segment_and_part(&mut self, operator: &str) {
        sqlx::any::install_default_drivers();
        let database = format!("sqlite://{}/tollgate.sqlite3", self.issuer.data().display());
        let mut connection = AnyConnection::connect(&database).await.unwrap();
        let fill = "PRAGMA busy_timeout = 10000; \
                    INSERT INTO feed_log (position, kind, dimension, value, until, actor, created_at) \
                    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1024) \
                    SELECT (SELECT MAX(position) FROM feed_log) + i, 'cutoff', 'session', 's_' || i, \
                    unixepoch() + 900, 'test', unixepoch() FROM n";
        sqlx::raw_sql(fill).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        // What this acknowledges comes after all of them, so polls see them.
        let order = json!({ "dimension": "session", "value": "s_last" });
        let revoked =
            self.ask("POST /v1/admin/revocations", "/v1/admin/revocations", operator, Some(&order)).await;
        let segment = format!("/v1/edge/history/{}/0", revoked["epoch"].as_str().unwrap());
        let edge = json!({ "id": "by-hand" });
        let edge = self.ask("POST /v1/admin/edges", "/v1/admin/edges", operator, Some(&edge)).await;
        let edge = format!("Bearer {}", edge["credential"].as_str().unwrap());
        self.ask("GET /v1/edge/history/{epoch}/{from}", &segment, &edge, None).await;
        let snapshot = format!("{}/v1/edge/feed", self.issuer.base_url());
        let snapshot =
            Client::new().get(&snapshot).header("authorization", &edge).send_ok().await.unwrap().body;
        let anchor = Base64UrlUnpadded::decode_vec(self.issuer.trust_anchor()).unwrap();
        let anchor = TrustAnchor::new(&anchor.try_into().unwrap()).unwrap();
        let id = SnapshotId::of(anchor.open(&snapshot).unwrap().envelope).to_hex();
        let part = format!("/v1/edge/snapshot/{id}/0");
        self.ask("GET /v1/edge/snapshot/{id}/{piece}", &part, &edge, None).await;
    }

    /// Asks for something that is to be granted, and compares the answer with the document.
    async fn ask(&mut self, operation: &str, path: &str, authorization: &str, body: Option<&Value>) -> Value {
        let client = Client::new();
        let method = operation.split(' ').next().unwrap();
        let request = client.request(method, &format!("{}{path}", self.issuer.base_url()));
        let request = request.header("authorization", authorization).header("if-match", "*");
        let request = match body {
            Some(body) if !body.is_null() => request.json(body),
            Some(_) | None => request,
        };
        let answer = request.send_ok().await.unwrap();
        self.check(operation, &answer);
        answer.json().unwrap_or_default()
    }

    /// Compares an answer with what the document says of this operation.
    fn check(&mut self, operation: &str, answer: &Response) {
        let (method, path) = operation.split_once(' ').unwrap();
        let described =
            &self.document["paths"][path][method.to_lowercase()]["responses"][answer.status.to_string()];
        assert!(described.is_object(), "{operation}: {answer}");
        match described["content"].as_object() {
            None => assert_eq!(answer.text(), "", "{operation}"),
            Some(content) => {
                let media = answer.header("content-type").unwrap();
                let schema = &content.get(media).unwrap_or_else(|| panic!("{operation}: {media}"))["schema"];
                if media.ends_with("json") {
                    self.assert_fits(operation, schema, &answer.json().unwrap());
                }
            }
        }
        self.answers.entry(operation.to_owned()).or_default().insert(answer.status);
    }

    /// Compares the members of a value, and theirs, with those of its schema.
    fn assert_fits(&self, what: &str, schema: &Value, value: &Value) {
        if let Some(reference) = schema["$ref"].as_str() {
            let schema = self.document.pointer(reference.strip_prefix('#').unwrap());
            return self.assert_fits(what, schema.unwrap(), value);
        }
        let (Some(properties), Some(members)) = (schema["properties"].as_object(), value.as_object()) else {
            return;
        };
        for (name, value) in members {
            let schema = properties.get(name).unwrap_or_else(|| panic!("{what}: {name} is not described"));
            self.assert_fits(what, schema, value);
        }
        for name in schema["required"].as_array().into_iter().flatten() {
            assert!(members.contains_key(name.as_str().unwrap()), "{what}: {name} is missing");
        }
    }
}

/// What the document has, beside itself.
fn operations(document: &Value) -> BTreeSet<String> {
    const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];
    let mut found = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let methods = METHODS.iter().filter(|method| path != DOCUMENT && item.get(*method).is_some());
        found.extend(methods.map(|method| format!("{} {path}", method.to_uppercase())));
    }
    assert!(found.len() >= 50, "{found:?}");
    found
}
