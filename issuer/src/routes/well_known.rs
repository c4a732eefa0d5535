//! `/.well-known/…`: what anybody needs to check our tokens and to find our endpoints.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};

use crate::app::App;
use crate::error::Refusal;
use crate::published::{self, Published};

/// `GET /.well-known/jwks.json`
pub(crate) async fn jwks(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let view = app.keys.signing.view();
    let cache = app.settings.keys.schedule(app.settings.token).jwks_cache_control();
    let body = || view.jwks.clone().into();
    published::answer(&headers, &cache, "application/jwk-set+json", &view.jwks_etag, body)
}

/// `GET /openapi.json`
pub(crate) async fn openapi(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    app.openapi.answer(&headers)
}

/// `GET /.well-known/oauth-authorization-server` (RFC 8414), also with the issuer's path at its end
pub(crate) async fn authorization_server(
    State(app): State<Arc<App>>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let document = &app.metadata.authorization_server;
    answer(&app, &uri, "/.well-known/oauth-authorization-server", document, &headers)
}

/// `GET /.well-known/openid-configuration`: the same facts for those who look for them here, with the members that
/// OpenID Connect Discovery requires
pub(crate) async fn openid_configuration(
    State(app): State<Arc<App>>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let document = &app.metadata.openid_configuration;
    answer(&app, &uri, "/.well-known/openid-configuration", document, &headers)
}

/// `GET /.well-known/oauth-protected-resource` (RFC 9728), also with the issuer's path at its end
pub(crate) async fn protected_resource(
    State(app): State<Arc<App>>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let document = &app.metadata.protected_resource;
    answer(&app, &uri, "/.well-known/oauth-protected-resource", document, &headers)
}

fn answer(app: &App, uri: &Uri, well_known: &str, document: &Published, headers: &HeaderMap) -> Response {
    if app.metadata.is_asked_for(uri, well_known) {
        document.answer(headers)
    } else {
        Refusal::NotFound.into_response()
    }
}
