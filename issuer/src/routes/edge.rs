//! `/v1/edge/…`: what edges ask for.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Query, State};
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tollgate_shared::revocation::{Epoch, Position};
use tollgate_shared::wire::feed::MEDIA_TYPE;
use tollgate_shared::wire::quota::{BATCH_BYTES_MAX, QuotaBatch};

use super::NO_STORE;
use crate::access::Edge;
use crate::app::App;
use crate::body::Json;
use crate::error::Refusal;
use crate::feed::{FeedAnswer, FeedRequest};
use crate::quota::Batch;
use crate::store::{AppliedBatch, EdgeSeen};

#[derive(Debug, Deserialize)]
struct FeedQuery {
    epoch: Option<String>,
    after: Option<String>,
    wait: Option<String>,
}

/// `GET /v1/edge/feed`
pub(crate) async fn feed(
    State(app): State<Arc<App>>,
    Extension(Edge(edge)): Extension<Edge>,
    uri: Uri,
) -> Result<Response, Refusal> {
    let request = read_query(&uri)?;
    let FeedAnswer { message, to, .. } = app.feed.answer(request, &app.keys.feed).await?;
    app.edge_seen(&edge, EdgeSeen { at: app.host.seconds(), position: to });
    Ok(([NO_STORE, (header::CONTENT_TYPE, MEDIA_TYPE)], message).into_response())
}

fn read_query(uri: &Uri) -> Result<FeedRequest, Refusal> {
    let query = Query::<FeedQuery>::try_from_uri(uri);
    let Query(FeedQuery { epoch, after, wait }) =
        query.map_err(|_| Refusal::Invalid("query: is malformed or repeats a parameter".to_owned()))?;
    let number = |name: &str, text: Option<String>| match text {
        None => Ok(None),
        Some(text) => match text.parse::<u64>() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(Refusal::Invalid(format!("{name}: must be a whole number"))),
        },
    };
    let after = number("after", after)?.map(Position);
    let wait = number("wait", wait)?.unwrap_or_default();
    let epoch = match epoch {
        None => None,
        Some(text) => Some(
            Epoch::from_hex(&text)
                .ok_or_else(|| Refusal::Invalid("epoch: must be 32 hex digits".to_owned()))?,
        ),
    };
    // With only one of the two, nothing is known of what the edge has.
    Ok(FeedRequest { has: epoch.zip(after), wait: Duration::from_secs(wait) })
}

/// `POST /v1/edge/quota`
pub(crate) async fn quota(
    State(app): State<Arc<App>>,
    Extension(Edge(edge)): Extension<Edge>,
    Json(wire): Json<QuotaBatch, BATCH_BYTES_MAX>,
) -> Result<Response, Refusal> {
    // The feed's clock, because it never goes back: a window that ended does not open again.
    let now = app.feed.now();
    let batch = Batch::read(wire, now.seconds())?;
    if batch.edge != edge {
        return Err(Refusal::OtherEdge);
    }
    let answer = match app.store.apply_batch(&batch, &app.plans, now).await? {
        AppliedBatch::New(answer, counts) => {
            app.metrics.quota(counts);
            answer
        }
        AppliedBatch::Repeated(answer) => answer,
        AppliedBatch::Stale => return Err(Refusal::StaleSequence),
    };
    Ok(([NO_STORE, (header::CONTENT_TYPE, "application/json")], answer).into_response())
}
