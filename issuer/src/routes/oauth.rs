//! `POST /oauth2/revoke` (RFC 7009)

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::NO_STORE;
use crate::access::{Holder, TokenForm};
use crate::app::App;
use crate::error::Refusal;
use crate::oauth::error::OAuthError;
use crate::store::RevocationOrder;
use crate::tokens::OwnToken;

pub(crate) async fn revoke(
    State(app): State<Arc<App>>,
    Extension(TokenForm { holder, form }): Extension<TokenForm>,
) -> Result<Response, OAuthError> {
    let token = form.required("token")?;
    // RFC 7009 section 2.2: a token that is not valid, or not ours, needs no revoking, and nobody learns which.
    let Some(OwnToken { claims, index }) = app.own_token(token) else { return Ok(done()) };
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
