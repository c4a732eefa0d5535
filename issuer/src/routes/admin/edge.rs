//! `/v1/admin/edges…`

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
use crate::heartbeats::{EdgeSummary, Heartbeat};

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
    /// Its processes that were heard of within a day.
    #[schema(max_items = 64)]
    instances: Vec<InstanceAnswer>,
}

/// A process of an edge, by what it said of itself last.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EdgeInstance)]
pub(crate) struct InstanceAnswer {
    /// Random, of the process.
    instance: String,
    host: String,
    version: String,
    workers: u32,
    /// Up to where the one that polls has the feed.
    #[schema(required)]
    position: Option<u64>,
    /// Up to where every worker enforces it.
    #[schema(required)]
    enforced: Option<u64>,
    /// By how many positions that is behind this issuer; `null` when it is not known, or of another history.
    #[schema(required)]
    lag: Option<u64>,
    /// How old its state is by now.
    #[schema(required)]
    state_age_ms: Option<u64>,
    /// What it does with calls to the issuer: `closed` (it makes them), `open`, `half_open`.
    issuer_state: &'static str,
    /// When it was last heard of.
    seen_at: u64,
    /// Whether that is not too long ago.
    live: bool,
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

/// An edge as operators see it, as of now.
pub(crate) fn answer(app: &App, edge: EdgeSummary) -> EdgeAnswer {
    let EdgeSummary { id, created_at, seen, instances } = edge;
    EdgeAnswer {
        id,
        created_at: created_at.0,
        seen_at: seen.map(|seen| seen.at.0),
        position: seen.map(|seen| seen.position.0),
        instances: instances
            .into_iter()
            .map(|(instance, beat)| instance_answer(app, instance, beat))
            .collect(),
    }
}

fn instance_answer(app: &App, instance: String, beat: Heartbeat) -> InstanceAnswer {
    let now = app.host.now().wall;
    let live = beat.is_live(now);
    let of_ours = beat.enforced.filter(|_| beat.epoch == Some(app.feed.epoch()));
    let Heartbeat { host, version, workers, position, enforced, state_as_of, issuer_state, seen_at, .. } =
        beat;
    InstanceAnswer {
        instance,
        host,
        version,
        workers,
        position: position.map(|position| position.0),
        enforced: enforced.map(|position| position.0),
        lag: of_ours.map(|enforced| app.feed.position().0.saturating_sub(enforced.0)),
        state_age_ms: state_as_of.map(|date| now.0.saturating_sub(date.0)),
        issuer_state: issuer_state.name(),
        seen_at: seen_at.seconds().0,
        live,
    }
}

/// `GET /v1/admin/edges`
pub(crate) async fn list(State(app): State<Arc<App>>) -> Result<Response, Refusal> {
    let edges = app.edges().await?.into_iter().map(|edge| answer(&app, edge)).collect();
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
