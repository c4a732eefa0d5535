//! All routes on one screen, each with who may use it, and what they share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter, on};
use tokio::sync::watch;

use crate::access::{Access, Gate, LOGIN_PATH, TOKEN_PATH, check};
use crate::cache::Cache;
use crate::clock::Host;
use crate::config::Settings;
use crate::edge_credentials::EdgeCredentials;
use crate::error::Refusal;
use crate::feed::Feed;
use crate::heartbeats::Heartbeats;
use crate::keyring::Keyring;
use crate::load::{LOAD_HEADER, LoadReport, Outcome, header_value};
use crate::metrics::Metrics;
use crate::oauth::metadata::Metadata;
use crate::once::once;
use crate::password::PasswordPool;
use crate::permission::Permission;
use crate::published::Published;
use crate::quota::PlanBook;
use crate::routes::{admin, edge, login, oauth, ops, sessions, status, well_known};
use crate::status::StatusIndices;
use crate::status_lists::StatusLists;
use crate::store::redis::Redis;
use crate::store::{EdgeSeen, Store};
use crate::throttle::Throttle;

/// Everything that routes share.
#[derive(Debug)]
pub struct App {
    /// What the issuer is to do.
    pub settings: Settings,
    /// The machine's clocks and random bytes.
    pub host: Arc<dyn Host>,
    /// What must survive.
    pub store: Store,
    /// What is kept of it, for what is read often.
    pub cache: Cache,
    /// What signs.
    pub keys: Keyring,
    /// What hashes.
    pub passwords: PasswordPool,
    /// What tokens are numbered by.
    pub indices: StatusIndices,
    /// What anybody is told of them.
    pub status_lists: StatusLists,
    /// What edges are told.
    pub feed: Feed,
    /// What each plan allows.
    pub plans: PlanBook,
    /// What is published of the issuer.
    pub metadata: Metadata,
    /// The description of all routes.
    pub openapi: Published,
    /// What keeps guesses few.
    pub throttle: Throttle,
    /// Where replicas share what may be lost, if anywhere.
    pub redis: Option<Redis>,
    /// How busy this replica is.
    pub(crate) load: Mutex<LoadReport>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// When each edge was last heard of, since this was last written to the store. Its keys are edges with a credential,
    /// so their number is bounded by what operators made.
    pub(crate) edges_seen: Mutex<BTreeMap<String, EdgeSeen>>,
    /// What running edges say of themselves.
    pub heartbeats: Arc<Heartbeats>,
    /// The credentials of edges that are known to be in force.
    pub(crate) edge_credentials: EdgeCredentials,
    /// Becomes true when the service closes.
    pub(crate) closing: watch::Sender<bool>,
}

/// One route. There is no way to make one without saying who may use it.
struct Route {
    method: Method,
    path: &'static str,
    access: Access,
    handler: MethodRouter<Arc<App>>,
    repeated: Repeated,
}

/// What becomes of a request that is sent again with the same idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeated {
    /// The header says nothing here.
    Again,
    /// It gets the answer that it got.
    Once,
}

impl Route {
    /// Makes something new, but once for each idempotency key.
    fn once(self) -> Self {
        Self { repeated: Repeated::Once, ..self }
    }
}

/// What there is.
#[rustfmt::skip]
fn table(metrics: Access) -> Vec<Route> {
    use Access::{Edge, OAuthClient, Operator, Public, User};
    use Permission::{
        ApiKeysRead, ApiKeysWrite, AuditRead, ClientsRead, ClientsWrite, EdgesRead, EdgesWrite, KeysRead, KeysWrite, OperatorsRead, OperatorsWrite, RevocationsRead, RevocationsWrite,
        RolesRead, RolesWrite, ShardsRead, TenantsRead, TenantsWrite, UsersRead, UsersWrite,
    };
    vec![
        route(Method::POST,   LOGIN_PATH,                               Public,      login::login),
        route(Method::POST,   "/v1/logout",                             User,        sessions::logout),
        route(Method::POST,   "/v1/logout-all",                         User,        sessions::logout_all),
        route(Method::GET,    "/v1/sessions",                           User,        sessions::list),
        route(Method::DELETE, "/v1/sessions/{id}",                      User,        sessions::end),
        route(Method::POST,   TOKEN_PATH,                               OAuthClient, oauth::token),
        route(Method::POST,   "/oauth2/revoke",                         OAuthClient, oauth::revoke),
        route(Method::POST,   "/oauth2/introspect",                     OAuthClient, oauth::introspect),
        route(Method::GET,    "/.well-known/jwks.json",                 Public,      well_known::jwks),
        route(Method::GET,    "/.well-known/oauth-authorization-server", Public,     well_known::authorization_server),
        route(Method::GET,    "/.well-known/oauth-authorization-server/{*path}", Public, well_known::authorization_server),
        route(Method::GET,    "/.well-known/openid-configuration",      Public,      well_known::openid_configuration),
        route(Method::GET,    "/.well-known/openid-configuration/{*path}", Public,   well_known::openid_configuration),
        route(Method::GET,    "/.well-known/oauth-protected-resource",  Public,      well_known::protected_resource),
        route(Method::GET,    "/.well-known/oauth-protected-resource/{*path}", Public, well_known::protected_resource),
        route(Method::GET,    "/v1/status",                             Public,      status::all),
        route(Method::GET,    "/v1/status/{list}",                      Public,      status::list),
        route(Method::GET,    "/v1/edge/feed",                          Edge,        edge::feed),
        route(Method::GET,    "/v1/edge/history/{epoch}/{from}",        Edge,        edge::history),
        route(Method::GET,    "/v1/edge/snapshot/{id}/{piece}",         Edge,        edge::snapshot_part),
        route(Method::POST,   "/v1/edge/heartbeat",                     Edge,        edge::heartbeat::heartbeat),
        route(Method::POST,   "/v1/edge/quota",                         Edge,        edge::quota),
        route(Method::POST,   "/v1/edge/keys/resolve",                  Edge,        edge::resolve_key),
        route(Method::POST,   "/v1/admin/users",                                Operator(UsersWrite), admin::user::add).once(),
        route(Method::GET,    "/v1/admin/users",                                Operator(UsersRead), admin::user::list),
        route(Method::GET,    "/v1/admin/users/{id}",                           Operator(UsersRead), admin::user::show),
        route(Method::PATCH,  "/v1/admin/users/{id}",                           Operator(UsersWrite), admin::user::change),
        route(Method::DELETE, "/v1/admin/users/{id}",                           Operator(UsersWrite), admin::user::delete),
        route(Method::PUT,    "/v1/admin/users/{id}/password",                  Operator(UsersWrite), admin::user::set_password),
        route(Method::POST,   "/v1/admin/users/{id}/unlock",                    Operator(UsersWrite), admin::user::unlock),
        route(Method::GET,    "/v1/admin/users/{id}/sessions",                  Operator(UsersRead), admin::user::sessions),
        route(Method::DELETE, "/v1/admin/users/{id}/sessions",                  Operator(UsersWrite), admin::user::end_sessions),
        route(Method::DELETE, "/v1/admin/users/{id}/sessions/{sid}",            Operator(UsersWrite), admin::user::end_session),
        route(Method::POST,   "/v1/admin/roles",                                Operator(RolesWrite), admin::role::add).once(),
        route(Method::GET,    "/v1/admin/roles",                                Operator(RolesRead), admin::role::list),
        route(Method::GET,    "/v1/admin/roles/{name}",                         Operator(RolesRead), admin::role::show),
        route(Method::PUT,    "/v1/admin/roles/{name}",                         Operator(RolesWrite), admin::role::change),
        route(Method::DELETE, "/v1/admin/roles/{name}",                         Operator(RolesWrite), admin::role::delete),
        route(Method::POST,   "/v1/admin/tenants",                              Operator(TenantsWrite), admin::tenant::add).once(),
        route(Method::GET,    "/v1/admin/tenants",                              Operator(TenantsRead), admin::tenant::list),
        route(Method::GET,    "/v1/admin/tenants/{id}",                         Operator(TenantsRead), admin::tenant::show),
        route(Method::PATCH,  "/v1/admin/tenants/{id}",                         Operator(TenantsWrite), admin::tenant::change),
        route(Method::POST,   "/v1/admin/clients",                              Operator(ClientsWrite), admin::client::add).once(),
        route(Method::GET,    "/v1/admin/clients",                              Operator(ClientsRead), admin::client::list),
        route(Method::GET,    "/v1/admin/clients/{id}",                         Operator(ClientsRead), admin::client::show),
        route(Method::PATCH,  "/v1/admin/clients/{id}",                         Operator(ClientsWrite), admin::client::change),
        route(Method::DELETE, "/v1/admin/clients/{id}",                         Operator(ClientsWrite), admin::client::delete),
        route(Method::POST,   "/v1/admin/clients/{id}/secrets",                 Operator(ClientsWrite), admin::client::add_secret).once(),
        route(Method::DELETE, "/v1/admin/clients/{id}/secrets/{secret}",        Operator(ClientsWrite), admin::client::withdraw_secret),
        route(Method::POST,   "/v1/admin/api-keys",                             Operator(ApiKeysWrite), admin::api_key::add).once(),
        route(Method::GET,    "/v1/admin/api-keys",                             Operator(ApiKeysRead), admin::api_key::list),
        route(Method::GET,    "/v1/admin/api-keys/{id}",                        Operator(ApiKeysRead), admin::api_key::show),
        route(Method::DELETE, "/v1/admin/api-keys/{id}",                        Operator(ApiKeysWrite), admin::api_key::revoke),
        route(Method::GET,    "/v1/admin/signing-keys",                         Operator(KeysRead), admin::key::list),
        route(Method::POST,   "/v1/admin/signing-keys/rotate",                  Operator(KeysWrite), admin::key::rotate),
        route(Method::POST,   "/v1/admin/signing-keys/{kid}/withdraw",          Operator(KeysWrite), admin::key::withdraw),
        route(Method::GET,    "/v1/admin/edges",                                Operator(EdgesRead), admin::edge::list),
        route(Method::POST,   "/v1/admin/edges",                                Operator(EdgesWrite), admin::edge::add).once(),
        route(Method::DELETE, "/v1/admin/edges/{id}",                           Operator(EdgesWrite), admin::edge::remove),
        route(Method::GET,    "/v1/admin/operators",                            Operator(OperatorsRead), admin::operator::list),
        route(Method::POST,   "/v1/admin/operators",                            Operator(OperatorsWrite), admin::operator::add).once(),
        route(Method::DELETE, "/v1/admin/operators/{name}",                     Operator(OperatorsWrite), admin::operator::remove),
        route(Method::POST,   "/v1/admin/revocations",                          Operator(RevocationsWrite), admin::revocation::add).once(),
        route(Method::GET,    "/v1/admin/revocations",                          Operator(RevocationsRead), admin::revocation::list),
        route(Method::GET,    "/v1/admin/audit",                                Operator(AuditRead), admin::audit::list),
        route(Method::GET,    "/v1/admin/shards",                               Operator(ShardsRead), admin::shard::list),
        route(Method::GET,    "/openapi.json",                          Public,      well_known::openapi),
        route(Method::GET,    "/livez",                                 Public,      ops::livez),
        route(Method::GET,    "/readyz",                                Public,      ops::readyz),
        route(Method::GET,    "/metrics",                               metrics,     ops::metrics),
    ]
}

/// Every route, with who may use it when the settings open nothing.
#[must_use]
pub fn routes() -> Vec<(Method, &'static str, Access)> {
    table(Access::Operator(Permission::MetricsRead))
        .into_iter()
        .map(|route| (route.method, route.path, route.access))
        .collect()
}

/// The routes whose repetition an idempotency key prevents.
pub(crate) fn once_routes() -> Vec<(Method, &'static str)> {
    let all = table(Access::Public).into_iter();
    all.filter(|route| route.repeated == Repeated::Once).map(|route| (route.method, route.path)).collect()
}

fn route<H, T>(method: Method, path: &'static str, access: Access, handler: H) -> Route
where
    H: Handler<T, Arc<App>>,
    T: 'static,
{
    // The methods above all have a filter; another would answer to none rather than to any.
    let handler = match MethodFilter::try_from(method.clone()) {
        Ok(filter) => on(filter, handler),
        Err(_) => MethodRouter::new(),
    };
    Route { method, path, access, handler, repeated: Repeated::Again }
}

/// The service, ready to answer.
pub fn router(app: Arc<App>) -> Router {
    let metrics =
        if app.settings.metrics_public { Access::Public } else { Access::Operator(Permission::MetricsRead) };
    let mut router = Router::new();
    for Route { method: _, path, access, handler, repeated } in table(metrics) {
        let handler = match repeated {
            Repeated::Again => handler,
            Repeated::Once => handler.route_layer(from_fn_with_state(Arc::clone(&app), once)),
        };
        let gate = Gate { app: Arc::clone(&app), access };
        router = router.route(path, handler.route_layer(from_fn_with_state(gate, check)));
    }
    router
        .fallback(async || Refusal::NotFound)
        .method_not_allowed_fallback(async || Refusal::Method)
        .layer(from_fn_with_state(Arc::clone(&app), observe))
        .with_state(app)
}

/// Counts and logs a request: its method, its route and how it was answered. Never a path, query, header or body, any of
/// which may hold a secret.
async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let route = route.unwrap_or_else(|| "unmatched".to_owned());
    let started = app.host.now().monotonic;
    let mut response = next.run(request).await;
    let status = response.status().as_u16();
    let ended = app.host.now().monotonic;
    let millis = ended.since(started);
    let rates = {
        let mut load = app.load.lock().unwrap_or_else(PoisonError::into_inner);
        load.observe(ended, Outcome::of_status(status));
        load.rates(ended)
    };
    if let Some(value) = header_value(app.passwords.load(), rates) {
        response.headers_mut().insert(LOAD_HEADER, value);
    }
    app.metrics.request(&route, status);
    tracing::info!(target: "tollgate_issuer::access", %method, route, status, millis, "request");
    response
}
