//! `/v1/edge/heartbeat`: what a process of an edge says of itself.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tollgate_shared::revocation::{Epoch, Position};
use tollgate_shared::time::UnixMillis;
use utoipa::ToSchema;

use crate::access::Edge;
use crate::app::App;
use crate::body::Json;
use crate::breaker::BreakerState;
use crate::error::Refusal;
use crate::heartbeats::{Heartbeat, INTERVAL_SECONDS, TTL_SECONDS};
use crate::propagation::InstanceKey;
use crate::routes::{bounded, written};

/// The longest name of a host or a release, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// What a process says of itself.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Heartbeat)]
pub(crate) struct HeartbeatBody {
    /// The edge whose credential it has.
    #[schema(min_length = 1, max_length = 255, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    edge: String,
    /// Random, of the process: 32 hex digits in small letters.
    #[schema(min_length = 32, max_length = 32, pattern = "^[0-9a-f]{32}$")]
    instance: String,
    /// What it runs in.
    #[schema(min_length = 1, max_length = 64, pattern = "^[!-~]+$")]
    host: String,
    #[schema(min_length = 1, max_length = 64, pattern = "^[!-~]+$")]
    version: String,
    workers: u32,
    /// The history that it has.
    #[schema(min_length = 32, max_length = 32, pattern = "^[0-9a-f]{32}$")]
    epoch: Option<String>,
    /// Up to where the one that polls has the feed.
    position: Option<u64>,
    /// Up to where every worker enforces it.
    enforced: Option<u64>,
    /// For how long they have; nothing without `enforced`.
    enforced_ago_ms: Option<u64>,
    /// How old its state is.
    state_age_ms: Option<u64>,
    /// What it does with calls to the issuer: `closed` (it makes them), `open`, `half_open`.
    #[schema(pattern = "^(closed|open|half_open)$")]
    issuer_state: String,
}

/// When to report again.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HeartbeatTaken)]
pub(crate) struct HeartbeatAnswer {
    /// After so long, or when something changed.
    interval_seconds: u64,
    /// Without a report for so long it is taken for dead.
    ttl_seconds: u64,
}

/// `POST /v1/edge/heartbeat`
pub(crate) async fn heartbeat(
    State(app): State<Arc<App>>,
    Extension(Edge(edge)): Extension<Edge>,
    Json(body): Json<HeartbeatBody>,
) -> Result<Response, Refusal> {
    let now = app.host.now();
    let (who, beat) = read(body, now.wall)?;
    if who.edge != edge.as_str() {
        return Err(Refusal::OtherEdge);
    }
    app.heartbeats.heard(who, beat, app.feed.epoch(), now.monotonic);
    let body = HeartbeatAnswer { interval_seconds: INTERVAL_SECONDS, ttl_seconds: TTL_SECONDS };
    written(StatusCode::OK, &body)
}

fn read(body: HeartbeatBody, now: UnixMillis) -> Result<(InstanceKey, Heartbeat), Refusal> {
    let HeartbeatBody {
        edge,
        instance,
        host,
        version,
        workers,
        epoch,
        position,
        enforced,
        enforced_ago_ms,
        state_age_ms,
        issuer_state,
    } = body;
    bounded("edge", &edge)?;
    let invalid = |text: String| Refusal::Invalid(text);
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if instance.len() != 32 || !instance.bytes().all(is_hex) {
        return Err(invalid("instance: must be 32 hex digits in small letters".to_owned()));
    }
    for (name, value) in [("host", &host), ("version", &version)] {
        let fits =
            (1..=NAME_BYTES_MAX).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_graphic());
        if !fits {
            return Err(invalid(format!("{name}: must be 1 to {NAME_BYTES_MAX} visible ASCII characters")));
        }
    }
    let epoch = match epoch {
        Some(text) => {
            let epoch = Epoch::from_hex(&text);
            Some(epoch.ok_or_else(|| invalid("epoch: must be 32 hex digits".to_owned()))?)
        }
        None => None,
    };
    let issuer_state = BreakerState::of(&issuer_state)
        .ok_or_else(|| invalid("issuer_state: must be closed, open or half_open".to_owned()))?;
    let ago = |millis: u64| UnixMillis(now.0.saturating_sub(millis));
    let beat = Heartbeat {
        host,
        version,
        workers,
        epoch,
        position: position.map(Position),
        enforced: enforced.map(Position),
        enforced_at: ago(enforced_ago_ms.unwrap_or_default()),
        state_as_of: state_age_ms.map(ago),
        issuer_state,
        seen_at: now,
    };
    Ok((InstanceKey { edge, instance }, beat))
}
