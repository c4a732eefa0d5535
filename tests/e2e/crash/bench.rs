//! An issuer that can be killed at a step, the database under it, and an edge that follows its feed.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding};
use serde_json::{Value, json};
use sqlx::{AnyConnection, Connection as _};
use tokio::process::Command;
use tollgate_issuer::clock::{Host as _, SystemHost};
use tollgate_shared::id::IssuerId;
use tollgate_shared::revocation::{FeedState, StatusIndex, TokenFacts};
use tollgate_shared::time::UnixSeconds;
use tollgate_shared::token::{Algorithm, Claims, KeySet, RustCrypto, TokenRules, UntrustedToken};
use tollgate_shared::wire::feed::{TrustAnchor, apply_body};
use tollgate_tests::client::{Client, Response};
use tollgate_tests::evidence::Evidence;
use tollgate_tests::issuer::{Issuer, IssuerOptions, Program, binary_of};
use tollgate_tests::postgres_server::{PostgresOptions, PostgresServer};

pub(super) const PASSWORD: &str = "correct horse battery";
pub(super) const ISSUER: &str = "http://issuer.test";
const SOON: Duration = Duration::from_secs(60);
const SIGKILL: i32 = 9;

/// Under what the issuer keeps its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backend {
    Sqlite,
    Postgres,
}

pub(super) struct Bench {
    pub(super) issuer: Issuer,
    variables: Vec<(String, String)>,
    database: String,
    edge: Edge,
    _postgres: Option<PostgresServer>,
}

/// What a request says.
#[derive(Clone, Copy, Debug)]
pub(super) enum Body<'b> {
    Json(&'b Value),
    /// JSON that takes the place of what is there, by `PUT`.
    Change(&'b Value),
    Form(&'b [(&'b str, &'b str)]),
    Empty,
}

/// What a login gave to a client.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) user: String,
    pub(super) id: String,
    pub(super) access: String,
    pub(super) refresh: String,
}

/// An edge that polls and keeps what it is told.
pub(super) struct Edge {
    url: String,
    credential: String,
    anchor: TrustAnchor,
    pub(super) state: Option<FeedState>,
}

impl Edge {
    /// Asks for what is new, or waits for it so many seconds.
    pub(super) async fn poll(&mut self, wait: u64) -> Result<(), String> {
        let path = match &self.state {
            Some(state) => format!("?epoch={}&after={}&wait={wait}", state.epoch.to_hex(), state.position.0),
            None => String::new(),
        };
        let client = Client::fresh_connections();
        let request = client.get(&format!("{}/v1/edge/feed{path}", self.url)).bearer(&self.credential);
        let answer = request.send_ok().await.map_err(|error| format!("{error:#}"))?;
        let applied = apply_body(&self.anchor, &answer.body, &mut self.state, now());
        applied.map(drop).map_err(|error| error.to_string())
    }
}

impl Bench {
    /// A new issuer, with `shards` databases beyond the home one.
    pub(super) async fn new(backend: Backend, shards: usize) -> Self {
        Self::with(backend, shards, &[]).await
    }

    /// The same with further variables.
    pub(super) async fn with(backend: Backend, shards: usize, further: &[(&str, &str)]) -> Self {
        let evidence = Evidence::of_this_test().unwrap();
        let mut variables = variables();
        variables.extend(further.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let (postgres, database) = match backend {
            Backend::Sqlite => (None, sqlite_url(&evidence.file("issuer-data"))),
            Backend::Postgres => {
                let server = PostgresServer::start(PostgresOptions::default(), &evidence).await.unwrap();
                let home = server.create_database("home").unwrap();
                let others: Vec<_> = (0..shards)
                    .map(|shard| server.create_database(&format!("shard{shard}")).unwrap())
                    .collect();
                variables.push(("TOLLGATE_DATABASE__URL".to_owned(), home.clone()));
                variables.push(("TOLLGATE_DATABASE__SHARD_URLS".to_owned(), json!(others).to_string()));
                (Some(server), home)
            }
        };
        let mut bench = Self::open(&evidence, variables, database, None).await;
        bench._postgres = postgres;
        bench
    }

    /// An issuer on a data folder and a database that may have something in them.
    pub(super) async fn open(
        evidence: &Arc<Evidence>,
        variables: Vec<(String, String)>,
        database: String,
        data: Option<PathBuf>,
    ) -> Self {
        let program = Program::Crashing;
        let options =
            IssuerOptions { program, variables: variables.clone(), data, ..IssuerOptions::default() };
        let issuer = Issuer::start(options, evidence).await.unwrap();
        let edge = edge(&issuer, "edge").await;
        let mut bench = Self { issuer, variables, database, edge, _postgres: None };
        bench.poll().await;
        bench
    }

    /// Adds a user of this name, and gives back the id.
    pub(super) async fn add_user(&self, name: &str) -> String {
        let user = self.issuer.add_user(name, PASSWORD, "free", &[], &["read"]).await.unwrap();
        user["id"].as_str().unwrap().to_owned()
    }

    /// Logs in with this password; `None` when that is refused.
    pub(super) async fn try_login(&self, name: &str, password: &str) -> Option<Session> {
        let login = json!({ "username": name, "password": password });
        let answer = self.post("/v1/login", None, Body::Json(&login)).await;
        let answer = answer.unwrap_or_else(|error| panic!("{error}"));
        match answer.status {
            200 => Some(Session::read(&answer.json().unwrap())),
            401 => None,
            _ => panic!("{answer}"),
        }
    }

    pub(super) async fn login(&self, name: &str) -> Session {
        self.try_login(name, PASSWORD).await.expect("the password is right")
    }

    async fn post(&self, path: &str, token: Option<&str>, body: Body<'_>) -> Result<Response, String> {
        let client = Client::fresh_connections();
        let method = if matches!(body, Body::Change(_)) { "PUT" } else { "POST" };
        let request = client.request(method, &format!("{}{path}", self.issuer.base_url()));
        let request = match body {
            Body::Json(value) | Body::Change(value) => request.json(value),
            Body::Form(fields) => request.form(fields),
            Body::Empty => request,
        };
        let request = match token {
            Some(token) => request.bearer(token),
            None => request,
        };
        request.send().await.map_err(|error| format!("{error:#}"))
    }

    /// Sends a request to an issuer that is killed at this step of it. The client gets no answer.
    pub(super) async fn kill_at_request(
        &mut self,
        step: &str,
        path: &str,
        token: Option<&str>,
        body: Body<'_>,
    ) {
        self.issuer.restart_once_with(&[("TOLLGATE_CRASH_AT", step)]).await.unwrap();
        let answer = self.post(path, token, body).await;
        assert!(answer.is_err(), "{step} was not reached: {}", answer.unwrap());
        let ended = self.issuer.process().wait_exit(SOON).await.unwrap();
        assert_eq!(ended.signal(), Some(SIGKILL), "{step}: {ended}");
        self.issuer.restart().await.unwrap();
    }

    /// Carries out an order in a process that is killed at this step of it, while the issuer is down as well, and starts the
    /// issuer again.
    pub(super) async fn kill_at_order(&mut self, step: &str, order: &[&str]) {
        self.issuer.kill();
        let (ended, said) = self.order(order, Some(step)).await;
        assert_eq!(ended.signal(), Some(SIGKILL), "{step} was not reached: {ended}, {said}");
        self.issuer.restart().await.unwrap();
    }

    /// Sends an order of the operator to an issuer that is killed at this step of it.
    pub(super) async fn kill_at_operator(&mut self, step: &str, path: &str, body: &Value) {
        let operator = self.issuer.operator_token().to_owned();
        self.kill_at_request(step, path, Some(&operator), Body::Json(body)).await;
    }

    /// Has the operator change something by an issuer that is killed at this step of it.
    pub(super) async fn kill_at_change(&mut self, step: &str, path: &str, body: &Value) {
        let operator = self.issuer.operator_token().to_owned();
        self.kill_at_request(step, path, Some(&operator), Body::Change(body)).await;
    }

    /// Has a refresh token exchanged by an issuer that is killed at this step of it.
    pub(super) async fn kill_at_refresh(&mut self, step: &str, token: &str) {
        self.kill_at_request(step, "/oauth2/token", None, Body::Form(&refreshing(token))).await;
    }

    /// Carries out an order.
    pub(super) async fn act(&self, order: &[&str]) {
        let (ended, said) = self.order(order, None).await;
        assert!(ended.success(), "{order:?}: {ended}, {said}");
    }

    async fn order(&self, order: &[&str], crash_at: Option<&str>) -> (ExitStatus, String) {
        let mut command = Command::new(binary_of(&Program::Crashing).unwrap());
        command.arg("act").args(order).envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.env("TOLLGATE_DATA_DIR", self.issuer.data()).env("TOLLGATE_ISSUER", ISSUER);
        command.envs(crash_at.map(|step| ("TOLLGATE_CRASH_AT", step)));
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
        let output = tokio::time::timeout(SOON, output).await.expect("an end").unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status, String::from_utf8(said).unwrap())
    }

    /// Exchanges a refresh token for an access token and the next one; `None` when it is refused.
    pub(super) async fn refresh(&self, token: &str) -> Option<(String, String)> {
        let answer = self.post("/oauth2/token", None, Body::Form(&refreshing(token))).await;
        let answer = answer.unwrap_or_else(|error| panic!("{error}"));
        let text = |pointer: &str| answer.json_at(pointer).unwrap().as_str().unwrap().to_owned();
        match answer.status {
            200 => Some((text("/access_token"), text("/refresh_token"))),
            400 => {
                assert_eq!(text("/error"), "invalid_grant");
                None
            }
            _ => panic!("{answer}"),
        }
    }

    /// Logs out of one session or of all, which succeeds.
    pub(super) async fn log_out(&self, path: &str, token: &str) {
        let answer = self.post(path, Some(token), Body::Empty).await.unwrap();
        assert!((200..300).contains(&answer.status), "{answer}");
    }

    /// The URL of the home database.
    pub(super) fn database(&self) -> &str {
        &self.database
    }

    /// The numbers that a query gives.
    pub(super) async fn numbers(&self, query: &str) -> Vec<i64> {
        numbers(&self.database, query).await
    }

    /// Polls as an edge that has nothing, and as the one that has followed all along; both must know the same.
    pub(super) async fn poll(&mut self) {
        let mut followed = self.edge.state.take();
        self.poll_once().await;
        // Somebody may publish between the two polls; the feed comes to rest.
        while followed.is_some() {
            std::mem::swap(&mut followed, &mut self.edge.state);
            self.poll_once().await;
            let (one, other) = (followed.as_ref().unwrap(), self.edge.state.as_ref().unwrap());
            if one.position == other.position {
                assert_eq!(one.revoked, other.revoked, "an edge that followed knows what a new one does");
                break;
            }
        }
    }

    async fn poll_once(&mut self) {
        self.edge.poll(0).await.unwrap();
    }

    /// One more edge.
    pub(super) async fn edge(&self, name: &str) -> Edge {
        edge(&self.issuer, name).await
    }

    /// Whether the edge, as of its last poll, refuses this token.
    pub(super) fn edge_refuses(&self, token: &str) -> bool {
        let state = self.edge.state.as_ref().unwrap();
        let untrusted = UntrustedToken::parse(token.as_bytes()).unwrap();
        let key = untrusted.header().key_id.as_str().to_owned();
        let claims = verified(token, &state.keys).expect("the edge has the key");
        let status = claims.status.as_ref().unwrap();
        let index = StatusIndex::from_reference(ISSUER, &status.uri, status.index);
        state.revoked.revokes(TokenFacts { index, key: &key, claims: &claims, home: true }).is_some()
    }

    /// The key set that is published, which must be the one that edges have.
    pub(super) async fn published_keys(&mut self) -> KeySet {
        self.poll().await;
        let url = format!("{}/.well-known/jwks.json", self.issuer.base_url());
        let answer = Client::fresh_connections().get(&url).send_ok().await.unwrap();
        let (keys, _) = KeySet::from_jwks(&answer.body).unwrap();
        let of_edge = &self.edge.state.as_ref().unwrap().keys;
        assert_eq!(of_edge.len(), keys.len());
        for key in answer.json_at("/keys").unwrap().as_array().unwrap() {
            let id = tollgate_shared::id::KeyId::new(key["kid"].as_str().unwrap()).unwrap();
            let fingerprint = keys.find(&id).unwrap().fingerprint();
            assert!(of_edge.holds(fingerprint), "the feed has the key {id:?} of the JWK Set");
        }
        let active = self.numbers("SELECT COUNT(*) FROM signing_keys WHERE state = 'active'").await;
        assert_eq!(active, [1], "exactly one key signs");
        keys
    }

    /// The feed's positions follow each other, and no status index was given to two of these tokens.
    pub(super) async fn check_feed(&self, tokens: &[String]) {
        let counts =
            self.numbers("SELECT COUNT(*) - (MAX(position) - MIN(position) + 1) FROM feed_log").await;
        assert_eq!(counts, [0], "positions without a gap");
        let indices: BTreeSet<_> = tokens.iter().map(|token| claims(token)["status"].to_string()).collect();
        assert_eq!(indices.len(), tokens.len(), "no index twice");
    }
}

async fn edge(issuer: &Issuer, name: &str) -> Edge {
    let anchor = Base64UrlUnpadded::decode_vec(issuer.trust_anchor()).unwrap();
    let anchor = TrustAnchor::new(&anchor.try_into().unwrap()).unwrap();
    let (url, credential) = (issuer.base_url(), issuer.add_edge(name).await.unwrap());
    Edge { url, credential, anchor, state: None }
}

impl Session {
    fn read(answer: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let access = text(&answer["access_token"]);
        Self {
            user: text(&answer["user"]["id"]),
            id: text(&claims(&access)["sid"]),
            refresh: text(&answer["refresh_token"]),
            access,
        }
    }
}

fn refreshing(token: &str) -> [(&str, &str); 3] {
    [("grant_type", "refresh_token"), ("client_id", "first-party"), ("refresh_token", token)]
}

/// What a token says, unverified.
pub(super) fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&Base64UrlUnpadded::decode_vec(payload).unwrap()).unwrap()
}

/// What a token says, if a key of this set signed it and it is in force.
pub(super) fn verified(token: &str, keys: &KeySet) -> Option<Claims> {
    let rules = TokenRules {
        issuer: IssuerId::new(ISSUER).unwrap(),
        audiences: vec!["api".to_owned()],
        accept_access_token: true,
        accept_plain: false,
        require_status: true,
        clock_skew_seconds: 60,
    };
    let untrusted = UntrustedToken::parse(token.as_bytes()).unwrap();
    let signed = untrusted.verify(keys, &[Algorithm::EdDsa], &RustCrypto).ok()?;
    Some(signed.live(&rules, now()).unwrap().claims)
}

/// The settings of all of these tests: cheap hashes, and all the time there is to ask again.
pub(super) fn variables() -> Vec<(String, String)> {
    vec![
        ("TOLLGATE_SESSION__GRACE_SECONDS".to_owned(), "300".to_owned()),
        ("TOLLGATE_PASSWORD__MEMORY_KIB".to_owned(), "8192".to_owned()),
        // Patience with a busy machine: what is tested is not how soon it gives up.
        ("TOLLGATE_DATABASE__TIMEOUT_MS".to_owned(), "60000".to_owned()),
    ]
}

pub(super) fn now() -> UnixSeconds {
    SystemHost::new().seconds()
}

pub(super) fn sqlite_url(data: &Path) -> String {
    format!("sqlite://{}/tollgate.sqlite3", data.display())
}

pub(super) async fn numbers(database: &str, query: &str) -> Vec<i64> {
    values(database, query).await
}

/// The only column that a query gives.
pub(super) async fn values<T>(database: &str, query: &str) -> Vec<T>
where
    T: for<'r> sqlx::Decode<'r, sqlx::Any> + sqlx::Type<sqlx::Any> + Send + Unpin,
{
    sqlx::any::install_default_drivers();
    let mut connection = AnyConnection::connect(database).await.unwrap();
    let query = sqlx::AssertSqlSafe(query.to_owned());
    let rows = sqlx::query_scalar(query).fetch_all(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    rows
}
