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

use crate::access::{Access, Gate, TOKEN_PATH, check};
use crate::cache::Cache;
use crate::clock::Host;
use crate::config::Settings;
use crate::error::Refusal;
use crate::feed::Feed;
use crate::keyring::Keyring;
use crate::load::{LOAD_HEADER, LoadReport, Outcome, header_value};
use crate::metrics::Metrics;
use crate::oauth::metadata::Metadata;
use crate::password::PasswordPool;
use crate::quota::PlanBook;
use crate::routes::{admin, edge, login, oauth, ops, sessions, well_known};
use crate::status::StatusIndices;
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
    /// What edges are told.
    pub feed: Feed,
    /// What each plan allows.
    pub plans: PlanBook,
    /// What is published of the issuer.
    pub metadata: Metadata,
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
    /// Becomes true when the service closes.
    pub(crate) closing: watch::Sender<bool>,
}

/// One route. There is no way to make one without saying who may use it.
struct Route {
    method: Method,
    path: &'static str,
    access: Access,
    handler: MethodRouter<Arc<App>>,
}

/// What there is.
#[rustfmt::skip]
fn table(metrics: Access) -> Vec<Route> {
    use Access::{Edge, OAuthClient, Operator, Public, User};
    vec![
        route(Method::POST,   "/v1/login",                              Public,      login::login),
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
        route(Method::GET,    "/v1/edge/feed",                          Edge,        edge::feed),
        route(Method::POST,   "/v1/edge/quota",                         Edge,        edge::quota),
        route(Method::POST,   "/v1/admin/users",                        Operator,    admin::add_user),
        route(Method::GET,    "/v1/admin/edges",                        Operator,    admin::list_edges),
        route(Method::POST,   "/v1/admin/edges",                        Operator,    admin::add_edge),
        route(Method::DELETE, "/v1/admin/edges/{id}",                   Operator,    admin::remove_edge),
        route(Method::POST,   "/v1/admin/revocations",                  Operator,    admin::revoke),
        route(Method::GET,    "/livez",                                 Public,      ops::livez),
        route(Method::GET,    "/readyz",                                Public,      ops::readyz),
        route(Method::GET,    "/metrics",                               metrics,     ops::metrics),
    ]
}

/// Every route, with who may use it when the settings open nothing.
#[must_use]
pub fn routes() -> Vec<(Method, &'static str, Access)> {
    table(Access::Operator).into_iter().map(|route| (route.method, route.path, route.access)).collect()
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
    Route { method, path, access, handler }
}

/// The service, ready to answer.
pub fn router(app: Arc<App>) -> Router {
    let metrics = if app.settings.metrics_public { Access::Public } else { Access::Operator };
    let mut router = Router::new();
    for Route { method: _, path, access, handler } in table(metrics) {
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
