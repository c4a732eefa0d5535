//! `/v1/admin/roles…`

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Id, IfMatch, Parameters, created, listed, no_content, versioned};
use crate::access::Operator;
use crate::app::App;
use crate::body::Json;
use crate::error::Refusal;
use crate::store::{Revision, Role};

/// A role that is wanted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewRole)]
pub(crate) struct NewRoleBody {
    /// As it stands in tokens: the characters that scopes may have.
    #[schema(min_length = 1, max_length = 255, pattern = r"^[\x21\x23-\x5b\x5d-\x7e]+$")]
    name: String,
    /// The scopes that who has the role may ask for.
    #[serde(default)]
    #[schema(max_items = 64)]
    permissions: Vec<String>,
    /// What it is for.
    #[serde(default)]
    #[schema(max_length = 1000, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    description: String,
}

/// What a role shall be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RoleChange)]
pub(crate) struct RoleBody {
    /// The scopes that who has the role may ask for.
    #[schema(max_items = 64)]
    permissions: Vec<String>,
    /// What it is for.
    #[serde(default)]
    #[schema(max_length = 1000, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    description: String,
}

/// A role.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Role)]
pub(crate) struct RoleAnswer {
    name: String,
    permissions: Vec<String>,
    description: String,
    version: u64,
    created_at: u64,
    updated_at: u64,
}

/// A page of roles, by name.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Roles)]
pub(crate) struct RolesAnswer {
    #[schema(max_items = 200)]
    roles: Vec<RoleAnswer>,
    /// What the next page comes `after`; `null` on the last.
    #[schema(required)]
    next: Option<String>,
}

/// It as operators see it.
pub(crate) fn answer((role, revision): (Role, Revision)) -> RoleAnswer {
    let Role { name, permissions, description } = role;
    let Revision { version, created_at, updated_at } = revision;
    RoleAnswer { name, permissions, description, version, created_at: created_at.0, updated_at: updated_at.0 }
}

/// `POST /v1/admin/roles`
pub(crate) async fn add(
    State(app): State<Arc<App>>,
    Extension(operator): Extension<Operator>,
    Json(NewRoleBody { name, permissions, description }): Json<NewRoleBody>,
) -> Result<Response, Refusal> {
    let role = Role { name, permissions, description };
    let revision = app.add_role(&role, &operator.actor()).await?;
    let role = answer((role, revision));
    created(&["roles", &role.name], role.version, &role)
}

/// `GET /v1/admin/roles`
pub(crate) async fn list(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, Refusal> {
    let page = Parameters::read(&uri)?.page()?;
    let mut roles = app.store.roles(&page.after, page.and_one()).await?;
    let next = page.cut(&mut roles, |(role, _)| &role.name);
    let body = RolesAnswer { roles: roles.into_iter().map(answer).collect(), next };
    listed(&uri, &body, body.next.as_deref())
}

/// `GET /v1/admin/roles/{name}`
pub(crate) async fn show(State(app): State<Arc<App>>, Id(name): Id) -> Result<Response, Refusal> {
    let role = answer(app.role(&name).await?);
    versioned(StatusCode::OK, role.version, &role)
}

/// `PUT /v1/admin/roles/{name}`
pub(crate) async fn change(
    State(app): State<Arc<App>>,
    Extension(operator): Extension<Operator>,
    Id(name): Id,
    IfMatch(condition): IfMatch,
    Json(RoleBody { permissions, description }): Json<RoleBody>,
) -> Result<Response, Refusal> {
    let role = Role { name, permissions, description };
    let revision = app.change_role(&role, &condition, &operator.actor()).await?;
    let role = answer((role, revision));
    versioned(StatusCode::OK, role.version, &role)
}

/// `DELETE /v1/admin/roles/{name}`
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    Extension(operator): Extension<Operator>,
    Id(name): Id,
    IfMatch(condition): IfMatch,
) -> Result<Response, Refusal> {
    app.delete_role(&name, &condition, &operator.actor()).await?;
    Ok(no_content())
}
