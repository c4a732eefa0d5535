//! `/v1/admin/…`: what operators order.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::{NO_STORE, json};
use crate::access::Operator;
use crate::admin::{OrderError, UserOrder};
use crate::app::App;
use crate::body::Json;
use crate::credential::CredentialKind;
use crate::error::{Refusal, defect};
use crate::password::{Password, TypedPassword};
use crate::store::EdgeRecord;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UserBody {
    username: String,
    password: TypedPassword,
    plan: Option<String>,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    scopes: Vec<String>,
    tenant: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EdgeBody {
    id: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RevocationBody {
    dimension: String,
    value: String,
    reason: Option<String>,
    issuer: Option<String>,
}

/// `POST /v1/admin/users`
pub(crate) async fn add_user(
    State(app): State<Arc<App>>,
    Json(body): Json<UserBody>,
) -> Result<Response, Refusal> {
    let UserBody { username, password, plan, roles, scopes, tenant } = body;
    let password = Password::new(password.0)?;
    let user = app.add_user(UserOrder { username, password, plan, roles, scopes, tenant }).await?;
    let body = json!({
        "id": user.id,
        "username": user.username,
        "plan": user.plan,
        "roles": user.roles,
        "scopes": user.scopes,
        "tenant": user.tenant,
    });
    Ok(json(StatusCode::CREATED, &body))
}

/// `POST /v1/admin/edges`
pub(crate) async fn add_edge(
    State(app): State<Arc<App>>,
    Json(EdgeBody { id }): Json<EdgeBody>,
) -> Result<Response, Refusal> {
    let credential = app.add_edge(&id).await?;
    let body = json!({
        "edge_id": id,
        "credential": credential.reveal(),
        "trust_anchor": app.keys.trust_anchor(),
    });
    Ok(json(StatusCode::CREATED, &body))
}

/// `GET /v1/admin/edges`
pub(crate) async fn list_edges(State(app): State<Arc<App>>) -> Result<Response, Refusal> {
    let recent = app.edges_seen.lock().map(|edges| edges.clone()).unwrap_or_else(|_| BTreeMap::new());
    let edges: Vec<_> = app
        .store
        .edges()
        .await?
        .into_iter()
        .map(|EdgeRecord { id, created_at, seen }| {
            let seen = recent.get(&id).copied().or(seen);
            json!({
                "id": id,
                "created_at": created_at.0,
                "seen_at": seen.map(|seen| seen.at.0),
                "position": seen.map(|seen| seen.position.0),
            })
        })
        .collect();
    Ok(json(StatusCode::OK, &json!({ "edges": edges })))
}

/// `DELETE /v1/admin/edges/{id}`
pub(crate) async fn remove_edge(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    app.store.withdraw_credential(CredentialKind::Edge, &id, app.host.seconds()).await?;
    if let Ok(mut edges) = app.edges_seen.lock() {
        edges.remove(&id);
    }
    Ok((StatusCode::NO_CONTENT, [NO_STORE]).into_response())
}

/// `POST /v1/admin/revocations`
pub(crate) async fn revoke(
    State(app): State<Arc<App>>,
    Extension(Operator(name)): Extension<Operator>,
    Json(body): Json<RevocationBody>,
) -> Result<Response, Refusal> {
    let RevocationBody { dimension, value, reason, issuer } = body;
    let order = app.revocation_order(&dimension, &value, issuer.as_deref(), reason.as_deref())?;
    let position = app.feed.revoke(&order, reason.as_deref(), &format!("operator {name}")).await?;
    let body = json!({ "position": position.0, "epoch": app.feed.epoch.to_hex() });
    Ok(json(StatusCode::CREATED, &body))
}

impl From<OrderError> for Refusal {
    fn from(error: OrderError) -> Self {
        match error {
            OrderError::Name(_)
            | OrderError::TooMany(_)
            | OrderError::Plan
            | OrderError::Dimension
            | OrderError::Refused(_) => Self::Invalid(error.to_string()),
            OrderError::Password(error) => error.into(),
            OrderError::Store(error) => error.into(),
            OrderError::Entropy(_) => defect(&error),
        }
    }
}
