//! `/v1/admin/revocations`

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::written;
use crate::access::Operator;
use crate::app::App;
use crate::body::Json;
use crate::error::Refusal;

/// What is to be revoked: everything with a value in a dimension.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewRevocation)]
pub(crate) struct RevocationBody {
    /// `token`, `session`, `subject`, `client`, `tenant`, `key` or `issuer`.
    #[schema(pattern = "^(token|session|subject|client|tenant|key|issuer)$")]
    dimension: String,
    /// Which one: at most 255 bytes.
    #[schema(min_length = 1, max_length = 255, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    value: String,
    /// For the record: at most 1000 bytes.
    #[schema(max_length = 1000, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    reason: Option<String>,
    /// Whose tokens; ours when missing.
    #[schema(min_length = 1, max_length = 255, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    issuer: Option<String>,
}

/// Where the feed has it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Revocation)]
pub(crate) struct RevocationAnswer {
    position: u64,
    epoch: String,
}

/// `POST /v1/admin/revocations`
pub(crate) async fn add(
    State(app): State<Arc<App>>,
    Extension(operator): Extension<Operator>,
    Json(body): Json<RevocationBody>,
) -> Result<Response, Refusal> {
    let RevocationBody { dimension, value, reason, issuer } = body;
    let (issuer, reason) = (issuer.as_deref(), reason.as_deref());
    let position = app.revoke(&dimension, &value, issuer, reason, &operator.actor()).await?;
    let body = RevocationAnswer { position: position.0, epoch: app.feed.epoch.to_hex() };
    written(StatusCode::CREATED, &body)
}
