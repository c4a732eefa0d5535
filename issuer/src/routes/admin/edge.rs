//! `/v1/admin/edges…`

use std::collections::BTreeMap;
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
use crate::store::EdgeRecord;

/// An edge that is wanted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewEdge)]
pub(crate) struct EdgeBody {
    #[schema(min_length = 1, max_length = 255, pattern = "^[A-Za-z0-9._-]+$")]
    id: String,
}

/// An edge that was just made.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CreatedEdge)]
pub(crate) struct CreatedEdgeAnswer {
    edge_id: String,
    /// Shown here and nowhere else.
    credential: String,
    /// The public half of the key that signs the feed.
    trust_anchor: String,
}

/// An edge.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Edge)]
pub(crate) struct EdgeAnswer {
    id: String,
    created_at: u64,
    /// When it was last heard of.
    #[schema(required)]
    seen_at: Option<u64>,
    /// Up to where it had the feed.
    #[schema(required)]
    position: Option<u64>,
}

/// All edges, by name.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Edges)]
pub(crate) struct EdgesAnswer {
    edges: Vec<EdgeAnswer>,
}

/// `POST /v1/admin/edges`
pub(crate) async fn add(
    State(app): State<Arc<App>>,
    Extension(operator): Extension<Operator>,
    Json(EdgeBody { id }): Json<EdgeBody>,
) -> Result<Response, Refusal> {
    let credential = app.add_edge(&id, &operator.actor()).await?.reveal().to_owned();
    let body = CreatedEdgeAnswer { edge_id: id, credential, trust_anchor: app.keys.trust_anchor() };
    written(StatusCode::CREATED, &body)
}

/// `GET /v1/admin/edges`
pub(crate) async fn list(State(app): State<Arc<App>>) -> Result<Response, Refusal> {
    let recent = app.edges_seen.lock().map(|edges| edges.clone()).unwrap_or_else(|_| BTreeMap::new());
    let edges = app.store.edges().await?.into_iter();
    let edges = edges
        .map(|EdgeRecord { id, created_at, seen }| {
            // Another replica may have heard of it later than this one, and written that down.
            let seen = seen.into_iter().chain(recent.get(&id).copied()).max_by_key(|seen| seen.at);
            EdgeAnswer {
                id,
                created_at: created_at.0,
                seen_at: seen.map(|seen| seen.at.0),
                position: seen.map(|seen| seen.position.0),
            }
        })
        .collect();
    written(StatusCode::OK, &EdgesAnswer { edges })
}

/// `DELETE /v1/admin/edges/{id}`
pub(crate) async fn remove(
    State(app): State<Arc<App>>,
    Extension(operator): Extension<Operator>,
    Id(id): Id,
) -> Result<Response, Refusal> {
    app.remove_edge(&id, &operator.actor()).await?;
    Ok(no_content())
}
