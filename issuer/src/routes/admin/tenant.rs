//! `/v1/admin/tenants…`

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Id, IfMatch, Parameters, created, listed, present, versioned};
use crate::access::Operator;
use crate::admin::TenantPatch;
use crate::app::App;
use crate::body::Json;
use crate::error::Refusal;
use crate::store::{Revision, Tenant};

/// A tenant that is wanted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewTenant)]
pub(crate) struct NewTenantBody {
    /// As it stands in tokens: at most 255 bytes.
    #[schema(min_length = 1, max_length = 255, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    id: String,
    /// What people call it; the id when missing.
    #[schema(min_length = 1, max_length = 255, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    name: Option<String>,
}

/// What shall be other than it is (RFC 7396); what is missing stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TenantPatch)]
pub(crate) struct TenantPatchBody {
    /// What people call it.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = String, min_length = 1, max_length = 255, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    name: Option<String>,
    /// Whether its users and clients are refused.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = bool)]
    disabled: Option<bool>,
}

/// A tenant.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Tenant)]
pub(crate) struct TenantAnswer {
    id: String,
    name: String,
    disabled: bool,
    version: u64,
    created_at: u64,
    updated_at: u64,
}

/// A page of tenants, by id.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Tenants)]
pub(crate) struct TenantsAnswer {
    #[schema(max_items = 200)]
    tenants: Vec<TenantAnswer>,
    /// What the next page comes `after`; `null` on the last.
    #[schema(required)]
    next: Option<String>,
}

/// It as operators see it.
pub(crate) fn answer((tenant, revision): (Tenant, Revision)) -> TenantAnswer {
    let Tenant { id, name, disabled } = tenant;
    let Revision { version, created_at, updated_at } = revision;
    TenantAnswer { id, name, disabled, version, created_at: created_at.0, updated_at: updated_at.0 }
}

/// `POST /v1/admin/tenants`
pub(crate) async fn add(
    State(app): State<Arc<App>>,
    Extension(operator): Extension<Operator>,
    Json(NewTenantBody { id, name }): Json<NewTenantBody>,
) -> Result<Response, Refusal> {
    let name = name.unwrap_or_else(|| id.clone());
    let tenant = Tenant { id, name, disabled: false };
    let revision = app.add_tenant(&tenant, &operator.actor()).await?;
    let tenant = answer((tenant, revision));
    created(&["tenants", &tenant.id], tenant.version, &tenant)
}

/// `GET /v1/admin/tenants`
pub(crate) async fn list(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, Refusal> {
    let page = Parameters::read(&uri)?.page()?;
    let mut tenants = app.store.tenants(&page.after, page.and_one()).await?;
    let next = page.cut(&mut tenants, |(tenant, _)| &tenant.id);
    let body = TenantsAnswer { tenants: tenants.into_iter().map(answer).collect(), next };
    listed(&uri, &body, body.next.as_deref())
}

/// `GET /v1/admin/tenants/{id}`
pub(crate) async fn show(State(app): State<Arc<App>>, Id(id): Id) -> Result<Response, Refusal> {
    let tenant = answer(app.tenant(&id).await?);
    versioned(StatusCode::OK, tenant.version, &tenant)
}

/// `PATCH /v1/admin/tenants/{id}`
pub(crate) async fn change(
    State(app): State<Arc<App>>,
    Extension(operator): Extension<Operator>,
    Id(id): Id,
    IfMatch(condition): IfMatch,
    Json(TenantPatchBody { name, disabled }): Json<TenantPatchBody>,
) -> Result<Response, Refusal> {
    let patch = TenantPatch { name, disabled };
    let tenant = answer(app.change_tenant(&id, &patch, &condition, &operator.actor()).await?);
    versioned(StatusCode::OK, tenant.version, &tenant)
}
