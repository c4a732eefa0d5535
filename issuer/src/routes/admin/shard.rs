//! `/v1/admin/shards`

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::written;
use crate::admin::ShardSummary;
use crate::app::App;
use crate::error::Refusal;

/// What a database has.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Shard)]
pub(crate) struct ShardAnswer {
    /// Its number; home is 0.
    shard: usize,
    /// How many of the 256 slots of users it has.
    slots: usize,
    /// How many of them are on their way to another.
    leaving: usize,
}

/// The databases that have slots, or get some.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Shards)]
pub(crate) struct ShardsAnswer {
    shards: Vec<ShardAnswer>,
}

impl From<ShardSummary> for ShardAnswer {
    fn from(summary: ShardSummary) -> Self {
        let ShardSummary { shard, slots, leaving } = summary;
        Self { shard, slots, leaving }
    }
}

/// `GET /v1/admin/shards`
pub(crate) async fn list(State(app): State<Arc<App>>) -> Result<Response, Refusal> {
    let shards = app.shards().await?.into_iter().map(ShardAnswer::from).collect();
    written(StatusCode::OK, &ShardsAnswer { shards })
}
