//! `/v1/admin/operators…`

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
use crate::permission::Permissions;

/// An operator who is wanted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewOperator)]
pub(crate) struct OperatorBody {
    #[schema(min_length = 1, max_length = 255, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    name: String,
    /// What the operator may do, such as `users:read`; `*` for everything. None that the caller does not have.
    #[schema(min_items = 1)]
    permissions: Vec<String>,
}

/// An operator.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Operator)]
pub(crate) struct OperatorAnswer {
    name: String,
    permissions: Vec<String>,
}

impl From<(String, Permissions)> for OperatorAnswer {
    fn from((name, permissions): (String, Permissions)) -> Self {
        Self { name, permissions: permissions.names() }
    }
}

/// An operator who was just made.
#[derive(Serialize, ToSchema)]
#[schema(as = CreatedOperator)]
pub(crate) struct CreatedOperatorAnswer {
    name: String,
    /// Shown here and nowhere else.
    credential: String,
}

/// All operators, by name.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Operators)]
pub(crate) struct OperatorsAnswer {
    operators: Vec<OperatorAnswer>,
}

/// `POST /v1/admin/operators`
pub(crate) async fn add(
    State(app): State<Arc<App>>,
    Extension(operator): Extension<Operator>,
    Json(OperatorBody { name, permissions }): Json<OperatorBody>,
) -> Result<Response, Refusal> {
    // Nothing named is everything on the command line; here it is more likely a mistake.
    if permissions.is_empty() {
        return Err(Refusal::Invalid("permissions: must name at least one".to_owned()));
    }
    let credential = app.add_operator(&name, &permissions, &operator.actor()).await?.reveal().to_owned();
    written(StatusCode::CREATED, &CreatedOperatorAnswer { name, credential })
}

/// `GET /v1/admin/operators`
pub(crate) async fn list(State(app): State<Arc<App>>) -> Result<Response, Refusal> {
    let operators = app.store.operators().await?.into_iter().map(OperatorAnswer::from).collect();
    written(StatusCode::OK, &OperatorsAnswer { operators })
}

/// `DELETE /v1/admin/operators/{name}`
pub(crate) async fn remove(
    State(app): State<Arc<App>>,
    Extension(operator): Extension<Operator>,
    Id(name): Id,
) -> Result<Response, Refusal> {
    app.remove_operator(&name, &operator.actor()).await?;
    Ok(no_content())
}
