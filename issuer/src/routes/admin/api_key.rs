//! `/v1/admin/api-keys…`

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tollgate_shared::time::UnixSeconds;
use utoipa::ToSchema;

use super::{Id, Parameters, listed, no_content, written};
use crate::access::Operator;
use crate::admin::ApiKeyOrder;
use crate::api_key::ApiKeyOwner;
use crate::app::App;
use crate::body::Json;
use crate::error::Refusal;
use crate::store::ApiKeyRecord;

/// An API key that is wanted, of a user or of a client.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewApiKey)]
pub(crate) struct NewApiKeyBody {
    /// What people call it: at most 255 bytes.
    #[schema(min_length = 1, max_length = 255, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    name: String,
    /// The id of the user whose it is to be.
    #[schema(min_length = 1, max_length = 255)]
    user: Option<String>,
    /// The id of the client whose it is to be.
    #[schema(min_length = 1, max_length = 255)]
    client: Option<String>,
    /// What it is to be good for: at most what its owner may.
    #[serde(default)]
    #[schema(max_items = 64)]
    scopes: Vec<String>,
    /// From when on it is no key any more, in seconds since 1970; never when missing.
    expires_at: Option<u64>,
}

/// An API key.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ApiKey)]
pub(crate) struct ApiKeyAnswer {
    /// Its public part, by which it is revoked.
    id: String,
    name: String,
    /// The id of the user whose it is.
    #[schema(required)]
    user: Option<String>,
    /// The id of the client whose it is.
    #[schema(required)]
    client: Option<String>,
    scopes: Vec<String>,
    created_at: u64,
    #[schema(required)]
    expires_at: Option<u64>,
    #[schema(required)]
    revoked_at: Option<u64>,
}

/// An API key that was just made.
#[derive(Serialize, ToSchema)]
#[schema(as = CreatedApiKey)]
pub(crate) struct CreatedApiKeyAnswer {
    api_key: ApiKeyAnswer,
    /// The key itself: shown here and nowhere else.
    key: String,
}

/// A page of API keys, by id.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ApiKeys)]
pub(crate) struct ApiKeysAnswer {
    #[schema(max_items = 200)]
    api_keys: Vec<ApiKeyAnswer>,
    /// What the next page comes `after`; `null` on the last.
    #[schema(required)]
    next: Option<String>,
}

/// It as operators see it.
pub(crate) fn answer(key: ApiKeyRecord) -> ApiKeyAnswer {
    let ApiKeyRecord { id, digest: _, owner, name, scopes, created_at, expires_at, revoked_at } = key;
    let (user, client) = match owner {
        ApiKeyOwner::User(id) => (Some(id), None),
        ApiKeyOwner::Client(id) => (None, Some(id)),
    };
    let (expires_at, revoked_at) = (expires_at.map(|date| date.0), revoked_at.map(|date| date.0));
    ApiKeyAnswer { id, name, user, client, scopes, created_at: created_at.0, expires_at, revoked_at }
}

/// `POST /v1/admin/api-keys`
pub(crate) async fn add(
    State(app): State<Arc<App>>,
    Extension(operator): Extension<Operator>,
    Json(NewApiKeyBody { name, user, client, scopes, expires_at }): Json<NewApiKeyBody>,
) -> Result<Response, Refusal> {
    let owner = match (user, client) {
        (Some(id), None) => ApiKeyOwner::User(id),
        (None, Some(id)) => ApiKeyOwner::Client(id),
        (None, None) | (Some(_), Some(_)) => {
            return Err(Refusal::Invalid("user: either this or client must be there".to_owned()));
        }
    };
    let order = ApiKeyOrder { name, owner, scopes, expires_at: expires_at.map(UnixSeconds) };
    let (new, kept) = app.add_api_key(order, &operator.actor()).await?;
    let body = CreatedApiKeyAnswer { api_key: answer(kept), key: new.reveal().to_owned() };
    written(StatusCode::CREATED, &body)
}

/// `GET /v1/admin/api-keys`
pub(crate) async fn list(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, Refusal> {
    let parameters = Parameters::read(&uri)?;
    let page = parameters.page()?;
    let owner = match (parameters.name("user")?, parameters.name("client")?) {
        (None, None) => None,
        (Some(id), None) => Some(ApiKeyOwner::User(id.to_owned())),
        (None, Some(id)) => Some(ApiKeyOwner::Client(id.to_owned())),
        (Some(_), Some(_)) => {
            return Err(Refusal::Invalid("user: goes without client only".to_owned()));
        }
    };
    let mut keys = app.store.api_keys(owner.as_ref(), &page.after, page.and_one()).await?;
    let next = page.cut(&mut keys, |key| &key.id);
    let body = ApiKeysAnswer { api_keys: keys.into_iter().map(answer).collect(), next };
    listed(&uri, &body, body.next.as_deref())
}

/// `GET /v1/admin/api-keys/{id}`
pub(crate) async fn show(State(app): State<Arc<App>>, Id(id): Id) -> Result<Response, Refusal> {
    written(StatusCode::OK, &answer(app.api_key(&id).await?))
}

/// `DELETE /v1/admin/api-keys/{id}`
pub(crate) async fn revoke(
    State(app): State<Arc<App>>,
    Extension(operator): Extension<Operator>,
    Id(id): Id,
) -> Result<Response, Refusal> {
    app.revoke_api_key(&id, &operator.actor()).await?;
    Ok(no_content())
}
