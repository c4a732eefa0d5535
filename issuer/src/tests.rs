//! The issuer from outside: requests against the router, on a folder of their own and a clock that stands still.

mod access;
mod admin;
mod admin_changes;
mod admin_import;
mod api_keys;
mod cases;
mod command_line;
mod endings;
mod feed;
mod heartbeats;
mod held;
mod login;
mod oauth;
mod quota;
mod revocations;
mod roles;
mod sessions;
mod settings;
mod status_lists;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use base64ct::Encoding as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tollgate_shared::revocation::{Delta, FeedChange, FeedMessage, FeedState};
use tollgate_shared::time::{Monotonic, Now, UnixMillis};
use tollgate_shared::wire::feed::{SnapshotId, TrustAnchor, apply_body};
use tower::ServiceExt;

use crate::admin::Actor;
use crate::app::{App, router};
use crate::client::{AuthenticationOrder, ClientOrder};
use crate::clock::{EntropyError, Host, SystemHost};
use crate::config::{Flags, PasswordSettings, Settings, ThrottleSettings};
use crate::feed::FeedRequest;
use crate::throttle::Rate;

const PASSWORD: &str = "correct horse";
const START: UnixMillis = UnixMillis(1_800_000_000_000);

#[derive(Debug)]
struct TestHost {
    wall: AtomicU64,
    monotonic: AtomicU64,
}

impl TestHost {
    fn new() -> Arc<Self> {
        Arc::new(Self { wall: AtomicU64::new(START.0), monotonic: AtomicU64::new(0) })
    }

    fn advance(&self, millis: u64) {
        self.wall.fetch_add(millis, Ordering::SeqCst);
        self.monotonic.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Host for TestHost {
    fn now(&self) -> Now {
        let wall = UnixMillis(self.wall.load(Ordering::SeqCst));
        Now { wall, monotonic: Monotonic(self.monotonic.load(Ordering::SeqCst)) }
    }

    fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError> {
        SystemHost::new().fill(bytes)
    }
}

/// What is new in this message, which is no snapshot.
fn delta(message: FeedMessage) -> Delta {
    let FeedChange::Delta(delta) = message.change else { panic!("{message:?}") };
    delta
}

struct Bench {
    folder: TempDir,
    host: Arc<TestHost>,
    app: Arc<App>,
    operator: String,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{}: {:?}", self.status, self.body))
    }

    fn header(&self, name: header::HeaderName) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }
}

fn settings(folder: &Path) -> Settings {
    let flags = Flags { data_dir: Some(folder.to_owned()), ..Flags::default() };
    let settings = Settings::load(None, &BTreeMap::new(), &flags).unwrap();
    let password = PasswordSettings {
        memory_kib: 8,
        iterations: 1,
        parallelism: 1,
        queue_max: 8,
        workers: 2,
        memory_max_mib: 1,
    };
    // Every request of a test is of one address.
    let address = Rate::new(10_000, 1_000, 10_000);
    let throttle = ThrottleSettings { address, network: address, ..settings.throttle };
    Settings { password, throttle, ..settings }
}

impl Bench {
    async fn new() -> Self {
        Self::with(|settings| settings).await
    }

    async fn with(change: impl FnOnce(Settings) -> Settings) -> Self {
        let folder = TempDir::new().unwrap();
        let host = TestHost::new();
        let app = App::open(change(settings(folder.path())), host.clone()).await.unwrap();
        app.publish().await.unwrap();
        let operator =
            std::fs::read_to_string(folder.path().join("operator.token")).unwrap().trim().to_owned();
        Self { folder, host, app, operator }
    }

    /// A second process on the same data.
    async fn another(&self) -> Arc<App> {
        App::open(settings(self.folder.path()), self.host.clone()).await.unwrap()
    }

    /// Runs a statement behind the issuer's back.
    async fn spoil(&self, statement: &str) {
        let url = format!("sqlite://{}", self.folder.path().join("tollgate.sqlite3").display());
        let pool = sqlx::AnyPool::connect(&url).await.unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned())).execute(&pool).await.unwrap();
        pool.close().await;
    }

    async fn edge(&self, id: &str) -> String {
        self.app.add_edge(id, &Actor::command_line()).await.unwrap().reveal().to_owned()
    }

    async fn user(&self, name: &str) -> String {
        let body = json!({ "username": name, "password": PASSWORD, "scopes": ["read", "write"], "roles": ["member"] });
        let answer = self.post("/v1/admin/users", Some(&self.operator), &body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{:?}", answer.json());
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    async fn login(&self, name: &str) -> Value {
        let answer = self.post("/v1/login", None, &json!({ "username": name, "password": PASSWORD })).await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.json());
        answer.json()
    }

    /// A client that has a secret and every right there is, and the `Authorization` that it sends.
    async fn confidential(&self, id: &str) -> String {
        let order = ClientOrder {
            id: Some(id.to_owned()),
            name: id.to_owned(),
            auth: AuthenticationOrder::Secret,
            grants: ["login", "refresh_token", "client_credentials"].map(str::to_owned).to_vec(),
            scopes: vec!["read".to_owned(), "write".to_owned()],
            may_introspect: true,
            ..ClientOrder::default()
        };
        let new = order.checked(&self.app.plans, &*self.host).unwrap();
        self.app.store.add_client(&new.client, self.host.seconds()).await.unwrap();
        let pair = format!("{id}:{}", new.secret.unwrap().reveal());
        format!("Basic {}", base64ct::Base64::encode_string(pair.as_bytes()))
    }

    /// The ids of the sessions of a user that are not over.
    async fn sessions(&self, name: &str) -> Vec<String> {
        let user = self.app.store.user_named(name).await.unwrap().unwrap().user;
        let sessions = self.app.store.sessions_of(&user.id, self.host.seconds()).await.unwrap();
        sessions.into_iter().map(|session| session.id).collect()
    }

    async fn post(&self, path: &str, credential: Option<&str>, body: &Value) -> Answer {
        self.send(Method::POST, path, credential, "application/json", body.to_string()).await
    }

    async fn form(&self, path: &str, credential: Option<&str>, body: &str) -> Answer {
        self.send(Method::POST, path, credential, "application/x-www-form-urlencoded", body.to_owned()).await
    }

    async fn get(&self, path: &str, credential: Option<&str>) -> Answer {
        self.send(Method::GET, path, credential, "", String::new()).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        credential: Option<&str>,
        kind: &str,
        body: String,
    ) -> Answer {
        let authorization = credential.map(|credential| format!("Bearer {credential}"));
        self.authorized(method, path, authorization.as_deref(), kind, body).await
    }

    async fn authorized(
        &self,
        method: Method,
        path: &str,
        authorization: Option<&str>,
        kind: &str,
        body: String,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if !kind.is_empty() {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        self.request(request.body(Body::from(body)).unwrap()).await
    }

    async fn request(&self, request: Request<Body>) -> Answer {
        let response = router(Arc::clone(&self.app)).oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap().to_vec();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    fn open_message(&self, bytes: &[u8]) -> FeedMessage {
        self.anchor().open(bytes).unwrap().message
    }

    fn anchor(&self) -> TrustAnchor {
        TrustAnchor::new(&self.app.keys.feed.public_bytes()).unwrap()
    }

    /// Has as many revocations in the log, written behind the issuer's back, as make up a segment.
    async fn fill_a_segment(&self) {
        self.cut_off_sessions(1024, "s_").await;
    }

    /// Writes so many cut-offs of sessions, named after this, behind the issuer's back.
    async fn cut_off_sessions(&self, count: usize, name: &str) {
        self.spoil(&format!(
            "INSERT INTO feed_log (position, kind, dimension, value, until, actor, created_at) \
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) \
             SELECT (SELECT MAX(position) FROM feed_log) + i, 'cutoff', 'session', '{name}' || i, 1900000000, 'test', 1800000000 FROM n",
        ))
        .await;
        self.app.feed.look().await.unwrap();
    }

    /// What the snapshot is named by that somebody gets who begins now.
    async fn snapshot_id(&self) -> String {
        let request = FeedRequest { has: None, wait: Duration::ZERO, until: None, least: None, apart: false };
        let answer = self.app.feed.answer(request, &self.app.keys.feed).await.unwrap();
        SnapshotId::of(self.anchor().open(&answer.message).unwrap().envelope).to_hex()
    }

    /// What an edge has that starts now: the last snapshot, and what came since.
    async fn start_edge(&self, edge: &str) -> FeedState {
        let mut state = None;
        self.poll(edge, &mut state, 0).await;
        self.poll(edge, &mut state, 0).await;
        state.unwrap()
    }

    /// One poll of an edge, applied to what it has.
    async fn poll(&self, edge: &str, state: &mut Option<FeedState>, wait: u64) -> FeedMessage {
        let path = match state {
            Some(state) => {
                format!("/v1/edge/feed?epoch={}&after={}&wait={wait}", state.epoch.to_hex(), state.position.0)
            }
            None => "/v1/edge/feed".to_owned(),
        };
        let answer = self.get(&path, Some(edge)).await;
        assert_eq!(answer.status, StatusCode::OK);
        apply_body(&self.anchor(), &answer.body, state, self.host.seconds()).unwrap()
    }
}
