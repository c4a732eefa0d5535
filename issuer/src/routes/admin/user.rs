//! `/v1/admin/users…`

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Id, Ids, IfMatch, Parameters, created, listed, no_content, present, versioned, written};
use crate::access::Operator;
use crate::admin::{OrderError, UserOrder, UserPatch};
use crate::app::App;
use crate::body::Json;
use crate::error::Refusal;
use crate::password::{Password, TypedPassword};
use crate::store::{SessionRecord, StoreError, UserRecord};

/// A user that is wanted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewUser)]
pub(crate) struct NewUserBody {
    /// By what the user logs in: at most 255 bytes.
    #[schema(min_length = 1, max_length = 255, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    username: String,
    /// At least 8 characters, at most 1024 bytes, none of the most common, and without the username.
    #[schema(value_type = String, format = Password, min_length = 8, max_length = 1024)]
    password: TypedPassword,
    /// Which limit applies; the default one when missing.
    #[schema(min_length = 1, max_length = 255)]
    plan: Option<String>,
    /// The names of roles there are.
    #[serde(default)]
    #[schema(max_items = 64)]
    roles: Vec<String>,
    /// What the user may ask for, apart from what the roles permit.
    #[serde(default)]
    #[schema(max_items = 64)]
    scopes: Vec<String>,
    /// The id of a tenant there is.
    #[schema(min_length = 1, max_length = 255)]
    tenant: Option<String>,
}

/// What shall be other than it is (RFC 7396); what is missing stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = UserPatch)]
pub(crate) struct UserPatchBody {
    /// Which limit applies.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = String, min_length = 1, max_length = 255)]
    plan: Option<String>,
    /// The names of roles there are, in the place of those before.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Vec<String>, max_items = 64)]
    roles: Option<Vec<String>>,
    /// What the user may ask for, in the place of that before.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Vec<String>, max_items = 64)]
    scopes: Option<Vec<String>>,
    /// The id of a tenant there is; `null` for none.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 255)]
    tenant: Option<Option<String>>,
    /// Whether logins are refused.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = bool)]
    disabled: Option<bool>,
}

/// A new password.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewPassword)]
pub(crate) struct PasswordBody {
    /// At least 8 characters, at most 1024 bytes, none of the most common, and without the username.
    #[schema(value_type = String, format = Password, min_length = 8, max_length = 1024)]
    password: TypedPassword,
}

/// A user.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = User)]
pub(crate) struct UserAnswer {
    id: String,
    username: String,
    plan: String,
    roles: Vec<String>,
    scopes: Vec<String>,
    #[schema(required)]
    tenant: Option<String>,
    disabled: bool,
    version: u64,
    created_at: u64,
    updated_at: u64,
    password_changed_at: u64,
}

/// A page of users, by name.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Users)]
pub(crate) struct UsersAnswer {
    #[schema(max_items = 200)]
    users: Vec<UserAnswer>,
    /// What the next page comes `after`; `null` on the last.
    #[schema(required)]
    next: Option<String>,
}

/// A session of a user.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UserSession)]
pub(crate) struct SessionAnswer {
    id: String,
    client_id: String,
    #[schema(required)]
    device: Option<String>,
    scope: String,
    began_at: u64,
    last_used_at: u64,
    idle_until: u64,
    expires_at: u64,
}

/// The sessions of a user that are not over, the one that began last first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UserSessions)]
pub(crate) struct SessionsAnswer {
    sessions: Vec<SessionAnswer>,
}

impl From<UserRecord> for UserAnswer {
    fn from(record: UserRecord) -> Self {
        let UserRecord { user, password_hash: _, password_changed_at, version, created_at, updated_at } =
            record;
        Self {
            id: user.id,
            username: user.username,
            plan: user.plan,
            roles: user.roles,
            scopes: user.scopes,
            tenant: user.tenant,
            disabled: user.disabled,
            version,
            created_at: created_at.0,
            updated_at: updated_at.0,
            password_changed_at: password_changed_at.0,
        }
    }
}

impl From<SessionRecord> for SessionAnswer {
    fn from(record: SessionRecord) -> Self {
        Self {
            id: record.id,
            client_id: record.client,
            device: record.device,
            scope: record.scope,
            began_at: record.began_at.0,
            last_used_at: record.last_used_at.0,
            idle_until: record.idle_until.0,
            expires_at: record.expires_at.0,
        }
    }
}

/// `POST /v1/admin/users`
pub(crate) async fn add(
    State(app): State<Arc<App>>,
    Extension(operator): Extension<Operator>,
    Json(body): Json<NewUserBody>,
) -> Result<Response, Refusal> {
    let NewUserBody { username, password, plan, roles, scopes, tenant } = body;
    let password = Password::new(password.0)?;
    let order = UserOrder { username, password, plan, roles, scopes, tenant };
    let user = UserAnswer::from(app.add_user(order, &operator.actor()).await?);
    created(&["users", &user.id], user.version, &user)
}

/// `GET /v1/admin/users`
pub(crate) async fn list(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, Refusal> {
    let parameters = Parameters::read(&uri)?;
    let page = parameters.page()?;
    let (users, next) = match parameters.name("username")? {
        Some(username) => match app.user_named(username).await {
            Ok(user) => (vec![user], None),
            Err(OrderError::Store(StoreError::Missing)) => (Vec::new(), None),
            Err(error) => return Err(error.into()),
        },
        None => app.store.users(&page.after, page.limit).await?,
    };
    let users = users.into_iter().map(UserAnswer::from).collect();
    let body = UsersAnswer { users, next };
    listed(&uri, &body, body.next.as_deref())
}

/// `GET /v1/admin/users/{id}`
pub(crate) async fn show(State(app): State<Arc<App>>, Id(id): Id) -> Result<Response, Refusal> {
    let user = UserAnswer::from(app.user(&id).await?);
    versioned(StatusCode::OK, user.version, &user)
}

/// `PATCH /v1/admin/users/{id}`
pub(crate) async fn change(
    State(app): State<Arc<App>>,
    Extension(operator): Extension<Operator>,
    Id(id): Id,
    IfMatch(condition): IfMatch,
    Json(body): Json<UserPatchBody>,
) -> Result<Response, Refusal> {
    let UserPatchBody { plan, roles, scopes, tenant, disabled } = body;
    let patch = UserPatch { plan, roles, scopes, tenant, disabled };
    let user = UserAnswer::from(app.change_user(&id, &patch, &condition, &operator.actor()).await?);
    versioned(StatusCode::OK, user.version, &user)
}

/// `DELETE /v1/admin/users/{id}`
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    Extension(operator): Extension<Operator>,
    Id(id): Id,
    IfMatch(condition): IfMatch,
) -> Result<Response, Refusal> {
    app.delete_user(&id, &condition, &operator.actor()).await?;
    Ok(no_content())
}

/// `PUT /v1/admin/users/{id}/password`
pub(crate) async fn set_password(
    State(app): State<Arc<App>>,
    Extension(operator): Extension<Operator>,
    Id(id): Id,
    IfMatch(condition): IfMatch,
    Json(PasswordBody { password }): Json<PasswordBody>,
) -> Result<Response, Refusal> {
    let password = Password::new(password.0)?;
    let user = UserAnswer::from(app.set_password(&id, password, &condition, &operator.actor()).await?);
    versioned(StatusCode::OK, user.version, &user)
}

/// `POST /v1/admin/users/{id}/unlock`
pub(crate) async fn unlock(
    State(app): State<Arc<App>>,
    Extension(operator): Extension<Operator>,
    Id(id): Id,
) -> Result<Response, Refusal> {
    app.unlock_user(&id, &operator.actor()).await?;
    Ok(no_content())
}

/// `GET /v1/admin/users/{id}/sessions`
pub(crate) async fn sessions(State(app): State<Arc<App>>, Id(id): Id) -> Result<Response, Refusal> {
    let sessions = app.sessions_of_user(&id).await?.into_iter().map(SessionAnswer::from).collect();
    written(StatusCode::OK, &SessionsAnswer { sessions })
}

/// `DELETE /v1/admin/users/{id}/sessions`
pub(crate) async fn end_sessions(
    State(app): State<Arc<App>>,
    Extension(operator): Extension<Operator>,
    Id(id): Id,
) -> Result<Response, Refusal> {
    app.end_user_sessions(&id, &operator.actor()).await?;
    Ok(no_content())
}

/// `DELETE /v1/admin/users/{id}/sessions/{sid}`
pub(crate) async fn end_session(
    State(app): State<Arc<App>>,
    Extension(operator): Extension<Operator>,
    Ids(id, session): Ids,
) -> Result<Response, Refusal> {
    app.end_user_session(&id, &session, &operator.actor()).await?;
    Ok(no_content())
}
