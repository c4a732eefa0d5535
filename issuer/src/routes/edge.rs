//! `/v1/edge/…`: what edges ask for.

pub(crate) mod heartbeat;

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Uri, header};
use axum::response::{IntoResponse, Response};
use base64ct::{Base64UrlUnpadded, Encoding};
use serde::{Deserialize, Serialize};
use tollgate_shared::revocation::{Epoch, Position};
use tollgate_shared::wire::feed::{MEDIA_TYPE, PIECES_MEDIA_TYPE};
use tollgate_shared::wire::quota::{BATCH_BYTES_MAX, QuotaBatch};
use utoipa::ToSchema;

use super::{NO_STORE, bounded};
use crate::access::Edge;
use crate::app::App;
use crate::body::Json;
use crate::credential::SecretDigest;
use crate::error::{Refusal, defect};
use crate::feed::{FeedAnswer, FeedRequest};
use crate::principal::Principal;
use crate::published::{self, entity_tag};
use crate::quota::Batch;
use crate::store::{AppliedBatch, EdgeSeen};

#[derive(Debug, Deserialize)]
struct FeedQuery {
    epoch: Option<String>,
    after: Option<String>,
    wait: Option<String>,
    until: Option<String>,
    least: Option<String>,
    pieces: Option<String>,
}

/// A segment never changes.
const FOR_GOOD: &str = "public, max-age=31536000, immutable";

/// `GET /v1/edge/feed`
pub(crate) async fn feed(
    State(app): State<Arc<App>>,
    Extension(Edge(edge)): Extension<Edge>,
    uri: Uri,
) -> Result<Response, Refusal> {
    let request = read_query(&uri)?;
    let FeedAnswer { message, to, .. } = app.feed.answer(request, &app.keys.feed).await?;
    if let Some(position) = to {
        app.edge_seen(&edge, EdgeSeen { at: app.host.seconds(), position });
    }
    Ok(([NO_STORE, (header::CONTENT_TYPE, MEDIA_TYPE)], message).into_response())
}

fn read_query(uri: &Uri) -> Result<FeedRequest, Refusal> {
    let query = Query::<FeedQuery>::try_from_uri(uri);
    let Query(FeedQuery { epoch, after, wait, until, least, pieces }) =
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
    let until = number("until", until)?.map(Position);
    let least = number("least", least)?.map(Position);
    let epoch = match epoch {
        None => None,
        Some(text) => Some(
            Epoch::from_hex(&text)
                .ok_or_else(|| Refusal::Invalid("epoch: must be 32 hex digits".to_owned()))?,
        ),
    };
    let apart = match pieces.as_deref() {
        None => false,
        Some("apart") => true,
        Some(_) => return Err(Refusal::Invalid("pieces: must be `apart`".to_owned())),
    };
    // With only one of the two, nothing is known of what the edge has.
    Ok(FeedRequest { has: epoch.zip(after), wait: Duration::from_secs(wait), until, least, apart })
}

/// `GET /v1/edge/history/{epoch}/{from}`
pub(crate) async fn history(
    State(app): State<Arc<App>>,
    Path((epoch, from)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    // One spelling of each: a cache would keep the others beside it.
    let epoch = Epoch::from_hex(&epoch).filter(|known| known.to_hex() == epoch);
    let from = from.parse::<u64>().ok().filter(|known| known.to_string() == from);
    let (Some(epoch), Some(from)) = (epoch, from) else { return Err(Refusal::NotFound) };
    let segment = app.feed.segment(epoch, Position(from), &app.keys.feed).await?;
    let segment = segment.ok_or(Refusal::NotFound)?;
    let etag = entity_tag(&segment);
    Ok(published::answer(&headers, FOR_GOOD, MEDIA_TYPE, &etag, || segment.into()))
}

/// A part of a snapshot never changes either, but is asked for soon after the head or not at all.
const FOR_A_WHILE: &str = "public, max-age=600, immutable";

/// `GET /v1/edge/snapshot/{id}/{piece}`
pub(crate) async fn snapshot_part(
    State(app): State<Arc<App>>,
    Path((id, piece)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let first = piece.parse::<usize>().ok().filter(|known| known.to_string() == piece);
    let part = app.feed.snapshot_part(&id, first.ok_or(Refusal::NotFound)?).ok_or(Refusal::NotFound)?;
    let etag = format!("\"{id}-{piece}\"");
    Ok(published::answer(&headers, FOR_A_WHILE, PIECES_MEDIA_TYPE, &etag, || part.into()))
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

/// A key that somebody presented.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PresentedKey)]
pub(crate) struct KeyBody {
    /// Its public id.
    #[schema(min_length = 1, max_length = 255, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    id: String,
    /// The SHA-256 of its secret, in base64url without padding.
    #[schema(min_length = 43, max_length = 43, pattern = "^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$")]
    digest: String,
}

/// For whom a key speaks; nothing but `active` when it is for nobody.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = Principal)]
pub(crate) enum PrincipalAnswer {
    /// It is in force.
    #[schema(title = "ActivePrincipal")]
    Active {
        active: bool,
        /// The user, or the client itself.
        subject: String,
        /// The client, if it is a client's key.
        #[schema(required)]
        client: Option<String>,
        #[schema(required)]
        tenant: Option<String>,
        plan: String,
        /// What it is good for, separated by spaces.
        scope: String,
        roles: Vec<String>,
        /// From when on it is no key any more.
        #[schema(required)]
        expires_at: Option<u64>,
    },
    /// It is unknown, wrong or over, or its owner is not in force: nobody is told which.
    #[schema(title = "NoPrincipal")]
    Inactive { active: bool },
}

/// It as edges see it.
fn principal_answer(principal: Option<Principal>) -> PrincipalAnswer {
    let Some(principal) = principal else { return PrincipalAnswer::Inactive { active: false } };
    let Principal { subject, client, tenant, plan, scopes, roles, expires_at } = principal;
    PrincipalAnswer::Active {
        active: true,
        subject,
        client,
        tenant,
        plan,
        scope: scopes.join(" "),
        roles,
        expires_at: expires_at.map(|end| end.0),
    }
}

/// `POST /v1/edge/keys/resolve`
pub(crate) async fn resolve_key(
    State(app): State<Arc<App>>,
    Json(KeyBody { id, digest }): Json<KeyBody>,
) -> Result<Response, Refusal> {
    bounded("id", &id)?;
    let bytes = Base64UrlUnpadded::decode_vec(&digest).ok();
    let digest = bytes.and_then(|bytes| SecretDigest::from_bytes(&bytes));
    let digest =
        digest.ok_or_else(|| Refusal::Invalid("digest: must be a SHA-256 in base64url".to_owned()))?;
    let answer = principal_answer(app.principal(&id, &digest).await?);
    let body = serde_json::to_string(&answer).map_err(|error| defect(&error))?;
    Ok(([NO_STORE, (header::CONTENT_TYPE, "application/json")], body).into_response())
}
