//! `/v1/admin/clients…`

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{Id, Ids, IfMatch, Parameters, created, listed, no_content, present, versioned};
use crate::access::Operator;
use crate::admin::ClientPatch;
use crate::app::App;
use crate::body::Json;
use crate::client::{AuthenticationOrder, Client, ClientAuthentication, ClientOrder};
use crate::error::Refusal;
use crate::once::NewId;
use crate::openapi::schemas::ClientGrantSchema;
use crate::store::Revision;

/// How a client proves who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ClientAuthentication)]
pub(crate) enum AuthBody {
    /// Not at all.
    #[default]
    None,
    /// With a secret that is made for it.
    ClientSecret,
    /// With the keys in `jwks`.
    PrivateKeyJwt,
}

/// A client that is wanted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewClient)]
pub(crate) struct NewClientBody {
    /// By what it shall be known; something new when missing.
    #[schema(min_length = 1, max_length = 255, pattern = "^(?!u_)[A-Za-z0-9._~-]+$")]
    id: Option<String>,
    /// What people call it: at most 255 bytes.
    #[schema(min_length = 1, max_length = 255, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    name: String,
    /// How it proves who it is.
    #[serde(default)]
    #[schema(inline)]
    auth: AuthBody,
    /// A JWK Set, if and only if it authenticates with keys.
    #[schema(value_type = Option<Object>)]
    jwks: Option<Value>,
    /// One or more of `login`, `refresh_token` and `client_credentials`.
    #[schema(value_type = Vec<ClientGrantSchema>, min_items = 1, max_items = 3)]
    grants: Vec<String>,
    /// What its own tokens may be good for.
    #[serde(default)]
    #[schema(max_items = 64)]
    scopes: Vec<String>,
    /// What it is, in those tokens: the names of roles there are.
    #[serde(default)]
    #[schema(max_items = 64)]
    roles: Vec<String>,
    /// Which limit applies to those tokens; the default one when missing.
    #[schema(min_length = 1, max_length = 255)]
    plan: Option<String>,
    /// The id of a tenant there is.
    #[schema(min_length = 1, max_length = 255)]
    tenant: Option<String>,
    /// Whether it may ask about tokens that are not its own.
    #[serde(default)]
    may_introspect: bool,
}

/// What shall be other than it is (RFC 7396); what is missing stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ClientPatch)]
pub(crate) struct ClientPatchBody {
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = String, min_length = 1, max_length = 255, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    name: Option<String>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Vec<ClientGrantSchema>, min_items = 1, max_items = 3)]
    grants: Option<Vec<String>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Vec<String>, max_items = 64)]
    scopes: Option<Vec<String>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Vec<String>, max_items = 64)]
    roles: Option<Vec<String>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = String, min_length = 1, max_length = 255)]
    plan: Option<String>,
    /// `null` for none.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 255)]
    tenant: Option<Option<String>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = bool)]
    may_introspect: Option<bool>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = bool)]
    disabled: Option<bool>,
    /// Its keys from now on, if it authenticates with keys.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Object)]
    jwks: Option<Value>,
}

/// A client.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Client)]
pub(crate) struct ClientAnswer {
    id: String,
    name: String,
    /// `none`, `client_secret` or `private_key_jwt`.
    auth: &'static str,
    /// The ids of its secrets, by which they are withdrawn.
    secrets: Vec<String>,
    /// Its keys, if it authenticates with such.
    #[schema(required, value_type = Option<Object>)]
    jwks: Option<Value>,
    #[schema(value_type = Vec<ClientGrantSchema>)]
    grants: Vec<&'static str>,
    scopes: Vec<String>,
    roles: Vec<String>,
    plan: String,
    #[schema(required)]
    tenant: Option<String>,
    may_introspect: bool,
    disabled: bool,
    version: u64,
    created_at: u64,
    updated_at: u64,
}

/// A client that was just made.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CreatedClient)]
pub(crate) struct CreatedClientAnswer {
    client: ClientAnswer,
    /// Its secret, if it has one: shown here and nowhere else.
    #[schema(required)]
    client_secret: Option<String>,
}

/// A secret that was just made.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CreatedSecret)]
pub(crate) struct SecretAnswer {
    /// By what it is withdrawn.
    id: String,
    /// Shown here and nowhere else.
    client_secret: String,
}

/// A page of clients, by id.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Clients)]
pub(crate) struct ClientsAnswer {
    #[schema(max_items = 200)]
    clients: Vec<ClientAnswer>,
    /// What the next page comes `after`; `null` on the last.
    #[schema(required)]
    next: Option<String>,
}

/// It as operators see it.
pub(crate) fn answer((client, revision): (Client, Revision)) -> ClientAnswer {
    let Revision { version, created_at, updated_at } = revision;
    let secrets = match &client.auth {
        ClientAuthentication::Secret(secrets) => secrets.iter().map(|secret| secret.id.clone()).collect(),
        ClientAuthentication::None | ClientAuthentication::PrivateKeyJwt(_) => Vec::new(),
    };
    let jwks = match &client.auth {
        ClientAuthentication::PrivateKeyJwt(keys) => serde_json::from_str(keys.text()).ok(),
        ClientAuthentication::None | ClientAuthentication::Secret(_) => None,
    };
    ClientAnswer {
        id: client.id.as_str().to_owned(),
        name: client.name,
        auth: client.auth.name(),
        secrets,
        jwks,
        grants: client.grants.iter().map(crate::client::Grant::name).collect(),
        scopes: client.scopes,
        roles: client.roles,
        plan: client.plan,
        tenant: client.tenant,
        may_introspect: client.may_introspect,
        disabled: client.disabled,
        version,
        created_at: created_at.0,
        updated_at: updated_at.0,
    }
}

/// `POST /v1/admin/clients`
pub(crate) async fn add(
    State(app): State<Arc<App>>,
    Extension(operator): Extension<Operator>,
    new_id: Option<Extension<NewId>>,
    Json(body): Json<NewClientBody>,
) -> Result<Response, Refusal> {
    let NewClientBody { id, name, auth, jwks, grants, scopes, roles, plan, tenant, may_introspect } = body;
    let auth = match (auth, jwks) {
        (AuthBody::None, None) => AuthenticationOrder::None,
        (AuthBody::ClientSecret, None) => AuthenticationOrder::Secret,
        (AuthBody::PrivateKeyJwt, Some(jwks)) => AuthenticationOrder::PrivateKeyJwt(jwks.to_string()),
        (AuthBody::PrivateKeyJwt, None) => return Err(Refusal::Invalid("jwks: is missing".to_owned())),
        (AuthBody::None | AuthBody::ClientSecret, Some(_)) => {
            return Err(Refusal::Invalid("jwks: goes with private_key_jwt only".to_owned()));
        }
    };
    let id = id.or_else(|| new_id.map(|Extension(id)| id.with("c_")));
    let order = ClientOrder { id, name, auth, grants, scopes, roles, plan, tenant, may_introspect };
    let (new, revision) = app.add_client(order, &operator.actor()).await?;
    let client_secret = new.secret.map(|secret| secret.reveal().to_owned());
    let body = CreatedClientAnswer { client: answer((new.client, revision)), client_secret };
    created(&["clients", &body.client.id], body.client.version, &body)
}

/// `GET /v1/admin/clients`
pub(crate) async fn list(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, Refusal> {
    let page = Parameters::read(&uri)?.page()?;
    let mut clients = app.store.clients(&page.after, page.and_one()).await?;
    let next = page.cut(&mut clients, |(client, _)| client.id.as_str());
    let body = ClientsAnswer { clients: clients.into_iter().map(answer).collect(), next };
    listed(&uri, &body, body.next.as_deref())
}

/// `GET /v1/admin/clients/{id}`
pub(crate) async fn show(State(app): State<Arc<App>>, Id(id): Id) -> Result<Response, Refusal> {
    let client = answer(app.client(&id).await?);
    versioned(StatusCode::OK, client.version, &client)
}

/// `PATCH /v1/admin/clients/{id}`
pub(crate) async fn change(
    State(app): State<Arc<App>>,
    Extension(operator): Extension<Operator>,
    Id(id): Id,
    IfMatch(condition): IfMatch,
    Json(body): Json<ClientPatchBody>,
) -> Result<Response, Refusal> {
    let ClientPatchBody { name, grants, scopes, roles, plan, tenant, may_introspect, disabled, jwks } = body;
    let jwks = jwks.map(|jwks| jwks.to_string());
    let patch = ClientPatch { name, grants, scopes, roles, plan, tenant, may_introspect, disabled, jwks };
    let client = answer(app.change_client(&id, &patch, &condition, &operator.actor()).await?);
    versioned(StatusCode::OK, client.version, &client)
}

/// `DELETE /v1/admin/clients/{id}`
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    Extension(operator): Extension<Operator>,
    Id(id): Id,
    IfMatch(condition): IfMatch,
) -> Result<Response, Refusal> {
    app.delete_client(&id, &condition, &operator.actor()).await?;
    Ok(no_content())
}

/// `POST /v1/admin/clients/{id}/secrets`
pub(crate) async fn add_secret(
    State(app): State<Arc<App>>,
    Extension(operator): Extension<Operator>,
    Id(id): Id,
) -> Result<Response, Refusal> {
    // Whatever else was changed: adding a secret takes nothing from anybody.
    let any = crate::admin::Condition::Any;
    let (secret, revision) = app.add_client_secret(&id, &any, &operator.actor()).await?;
    let body = SecretAnswer { id: secret.kept.id.clone(), client_secret: secret.reveal().to_owned() };
    // A secret cannot be asked for, so the place to look is that of its client, whose version this is.
    created(&["clients", &id], revision.version, &body)
}

/// `DELETE /v1/admin/clients/{id}/secrets/{secret}`
pub(crate) async fn withdraw_secret(
    State(app): State<Arc<App>>,
    Extension(operator): Extension<Operator>,
    Ids(id, secret): Ids,
    IfMatch(condition): IfMatch,
) -> Result<Response, Refusal> {
    app.withdraw_client_secret(&id, &secret, &condition, &operator.actor()).await?;
    Ok(no_content())
}
