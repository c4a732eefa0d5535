//! `/v1/admin/signing-keys…`

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Id, no_content, written};
use crate::access::Operator;
use crate::app::App;
use crate::body::Json;
use crate::error::Refusal;
use crate::signing_keys::KeyRow;

/// Why a key is withdrawn.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = KeyWithdrawal)]
pub(crate) struct WithdrawalBody {
    /// For the record.
    #[schema(min_length = 1, max_length = 255, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    reason: String,
}

/// A signing key, without its private half.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SigningKey)]
pub(crate) struct KeyAnswer {
    kid: String,
    alg: String,
    /// `prepublished`, `active`, `retiring`, `removed` or `withdrawn`.
    state: String,
    created_at: u64,
    published_at: u64,
    #[schema(required)]
    active_at: Option<u64>,
    #[schema(required)]
    retiring_at: Option<u64>,
    #[schema(required)]
    ended_at: Option<u64>,
}

/// The signing keys there are.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SigningKeys)]
pub(crate) struct KeysAnswer {
    signing_keys: Vec<KeyAnswer>,
}

impl From<KeyRow> for KeyAnswer {
    fn from(row: KeyRow) -> Self {
        let KeyRow { kid, alg, state, created_at, published_at, active_at, retiring_at, ended_at, .. } = row;
        Self { kid, alg, state, created_at, published_at, active_at, retiring_at, ended_at }
    }
}

async fn answer(app: &App) -> Result<Response, Refusal> {
    let rows = app.store.signing_keys().await?.into_iter();
    let signing_keys = rows.map(KeyAnswer::from).collect();
    written(StatusCode::OK, &KeysAnswer { signing_keys })
}

/// `GET /v1/admin/signing-keys`
pub(crate) async fn list(State(app): State<Arc<App>>) -> Result<Response, Refusal> {
    answer(&app).await
}

/// `POST /v1/admin/signing-keys/rotate`: what is due, and nothing before its time
pub(crate) async fn rotate(
    State(app): State<Arc<App>>,
    Extension(operator): Extension<Operator>,
) -> Result<Response, Refusal> {
    app.rotate_signing_keys(&operator.actor()).await?;
    answer(&app).await
}

/// `POST /v1/admin/signing-keys/{kid}/withdraw`
pub(crate) async fn withdraw(
    State(app): State<Arc<App>>,
    Extension(operator): Extension<Operator>,
    Id(kid): Id,
    Json(WithdrawalBody { reason }): Json<WithdrawalBody>,
) -> Result<Response, Refusal> {
    app.withdraw_signing_key(&kid, &reason, &operator.actor()).await?;
    Ok(no_content())
}
