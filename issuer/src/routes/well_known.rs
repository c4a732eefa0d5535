//! `/.well-known/…`: what anybody needs to check our tokens.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::app::App;

const CACHE: &str = "public, max-age=300, stale-while-revalidate=60";

/// `GET /.well-known/jwks.json`
pub(crate) async fn jwks(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let etag = app.keys.jwks_etag.as_str();
    let cache = app.settings.keys.schedule(app.settings.token).jwks_cache_control();
    let caching = [(header::ETAG, etag), (header::CACHE_CONTROL, cache.as_str())];
    if known(&headers, etag) {
        return (StatusCode::NOT_MODIFIED, caching).into_response();
    }
    (caching, [(header::CONTENT_TYPE, "application/jwk-set+json")], app.keys.jwks.clone()).into_response()
}

/// `GET /.well-known/oauth-authorization-server` (RFC 8414)
pub(crate) async fn authorization_server(State(app): State<Arc<App>>) -> Response {
    metadata(&facts(&app))
}

/// `GET /.well-known/openid-configuration`: the same facts for those who look for them here, with the members that
/// OpenID Connect Discovery requires.
pub(crate) async fn openid_configuration(State(app): State<Arc<App>>) -> Response {
    let mut facts = facts(&app);
    if let Some(members) = facts.as_object_mut() {
        members.insert("subject_types_supported".to_owned(), json!(["public"]));
        members.insert("id_token_signing_alg_values_supported".to_owned(), json!(["EdDSA"]));
    }
    metadata(&facts)
}

fn facts(app: &App) -> Value {
    let issuer = app.settings.issuer.as_str();
    json!({
        "issuer": issuer,
        "jwks_uri": format!("{issuer}/.well-known/jwks.json"),
        "response_types_supported": [],
        "grant_types_supported": [],
        "revocation_endpoint": format!("{issuer}/oauth2/revoke"),
        "revocation_endpoint_auth_methods_supported": ["none"],
    })
}

fn metadata(facts: &Value) -> Response {
    let headers = [(header::CACHE_CONTROL, CACHE), (header::CONTENT_TYPE, "application/json")];
    (headers, facts.to_string()).into_response()
}

/// Whether the client has this entity already (RFC 9110 section 13.1.2, weak comparison).
fn known(headers: &HeaderMap, etag: &str) -> bool {
    let sent = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    sent.flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}
