//! `POST /oauth2/revoke` (RFC 7009)

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use tollgate_shared::revocation::{RETENTION_SECONDS, StatusIndex};
use tollgate_shared::token::{Algorithm, Claims, RustCrypto, TokenRules, UntrustedToken};

use super::NO_STORE;
use crate::access::{Holder, TokenForm};
use crate::app::App;
use crate::error::Refusal;
use crate::oauth::error::OAuthError;
use crate::store::RevocationOrder;

/// A token that ended this many seconds ago is still revoked: an edge whose clock is behind would still admit it.
const LATE_SECONDS: u64 = RETENTION_SECONDS;

pub(crate) async fn revoke(
    State(app): State<Arc<App>>,
    Extension(TokenForm { holder, form }): Extension<TokenForm>,
) -> Result<Response, OAuthError> {
    let token = form.required("token")?;
    // RFC 7009 section 2.2: a token that is not valid, or not ours, needs no revoking, and nobody learns which.
    let Some((claims, index)) = own_token(&app, token) else { return Ok(done()) };
    let actor = match holder {
        Holder::Operator(name) => format!("operator {name}"),
        Holder::Client(client) if claims.client.as_ref().is_some_and(|id| id.as_str() == client) => {
            "client".to_owned()
        }
        Holder::Client(_) => return Err(OAuthError::InvalidGrant),
    };
    app.feed.revoke(&RevocationOrder::Index(index), None, &actor).await.map_err(Refusal::from)?;
    Ok(done())
}

fn done() -> Response {
    (StatusCode::OK, [NO_STORE, (header::PRAGMA, "no-cache")]).into_response()
}

/// What a token of ours says and where its status is; `None` for everything else.
fn own_token(app: &App, token: &str) -> Option<(Claims, StatusIndex)> {
    let rules = TokenRules {
        issuer: app.settings.issuer.clone(),
        audiences: vec![app.settings.audience.clone()],
        accept_access_token: true,
        accept_plain: false,
        require_status: true,
        clock_skew_seconds: LATE_SECONDS,
    };
    let untrusted = UntrustedToken::parse(token.as_bytes()).ok()?;
    let signed = untrusted.verify(&app.keys.verifying, &[Algorithm::EdDsa], &RustCrypto).ok()?;
    let claims = signed.live(&rules, app.host.seconds()).ok()?.claims;
    let status = claims.status.as_ref()?;
    let index = StatusIndex::from_reference(app.settings.issuer.as_str(), &status.uri, status.index)?;
    Some((claims, index))
}
