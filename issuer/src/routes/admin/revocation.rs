//! `/v1/admin/revocations`

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tollgate_shared::revocation::{Dimension, Position};
use tollgate_shared::time::UnixSeconds;
use utoipa::ToSchema;

use super::{Parameters, listed, written};
use crate::access::Operator;
use crate::admin::{OrderError, RevocationWords};
use crate::app::App;
use crate::body::Json;
use crate::error::Refusal;
use crate::store::{RevocationPage, RevocationQuery, RevocationRecord, RevokedValue};

/// What is to be revoked: everything with a value in a dimension.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewRevocation)]
pub(crate) struct RevocationBody {
    /// `token`, `session`, `subject`, `client`, `tenant`, `key` or `issuer`.
    #[schema(pattern = "^(token|session|subject|client|tenant|key|issuer)$")]
    dimension: String,
    /// Which one: at most 255 bytes. A token goes by its id (`jti`); what looks like a token, key or secret itself is refused.
    #[schema(min_length = 1, max_length = 255, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    value: String,
    /// For the record: at most 1000 bytes.
    #[schema(max_length = 1000, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    reason: Option<String>,
    /// Whose tokens; ours when missing.
    #[schema(min_length = 1, max_length = 255, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    issuer: Option<String>,
    /// Only what was issued before this second since 1970, which must not lie ahead: of a subject, client, tenant or issuer.
    issued_before: Option<u64>,
}

/// Where the feed has it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Revocation)]
pub(crate) struct RevocationAnswer {
    position: u64,
    epoch: String,
}

/// What was revoked.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LoggedRevocation)]
pub(crate) struct RevocationRecordAnswer {
    /// Where the feed has it.
    position: u64,
    dimension: &'static str,
    /// Which one; of a token with a status index its list and its place there, with a slash between.
    value: String,
    /// The number of the status list, if it is a token with an index.
    #[schema(required)]
    list: Option<u32>,
    /// The token's place there.
    #[schema(required)]
    idx: Option<u32>,
    /// Whose tokens; ours when `null`.
    #[schema(required)]
    issuer: Option<String>,
    /// Only what was issued before this; all of it when `null`.
    #[schema(required)]
    issued_before: Option<u64>,
    /// After this it concerns no token.
    until: u64,
    /// Whether that is still to come.
    in_force: bool,
    #[schema(required)]
    reason: Option<String>,
    actor: String,
    created_at: u64,
}

/// A page of what was revoked, oldest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LoggedRevocations)]
pub(crate) struct RevocationsAnswer {
    #[schema(max_items = 200)]
    revocations: Vec<RevocationRecordAnswer>,
    /// What the next page comes `after`; `null` on the last. A page with less than was asked for, or with nothing, may have a next
    /// one: so many entries of the log are looked through for one page and no more.
    #[schema(required)]
    next: Option<String>,
}

/// It as operators see it.
pub(crate) fn answer(record: RevocationRecord, now: UnixSeconds) -> RevocationRecordAnswer {
    let RevocationRecord {
        position,
        dimension,
        value,
        issuer,
        issued_before,
        until,
        reason,
        actor,
        created_at,
    } = record;
    let (value, place) = match value {
        RevokedValue::Index(index) => {
            let (list, idx) = index.list_and_bit();
            (format!("{list}/{idx}"), Some((list, idx)))
        }
        RevokedValue::Value(value) => (value, None),
    };
    RevocationRecordAnswer {
        position: position.0,
        dimension: dimension.name(),
        value,
        list: place.map(|(list, _)| list),
        idx: place.map(|(_, idx)| idx),
        issuer,
        issued_before: issued_before.map(|date| date.0),
        until: until.0,
        in_force: now <= until,
        reason,
        actor,
        created_at: created_at.0,
    }
}

/// `GET /v1/admin/revocations`
pub(crate) async fn list(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, Refusal> {
    let parameters = Parameters::read(&uri)?;
    let page = parameters.page()?;
    let text = |name| parameters.name(name).map(|value| value.map(str::to_owned));
    let date = |name| parameters.number(name).map(|value| value.map(UnixSeconds));
    let dimension =
        parameters.value("dimension").map(|name| Dimension::of(name).ok_or(OrderError::Dimension));
    let query = RevocationQuery {
        dimension: dimension.transpose()?,
        value: text("value")?,
        actor: text("actor")?,
        since: date("since")?,
        until: date("until")?,
        after: parameters.number("after")?.map(Position),
    };
    let RevocationPage { revocations, next } = app.store.revocation_page(&query, page.limit).await?;
    let next = next.map(|position| position.0.to_string());
    let now = app.host.seconds();
    let revocations = revocations.into_iter().map(|record| answer(record, now)).collect();
    let body = RevocationsAnswer { revocations, next };
    listed(&uri, &body, body.next.as_deref())
}

/// `POST /v1/admin/revocations`
pub(crate) async fn add(
    State(app): State<Arc<App>>,
    Extension(operator): Extension<Operator>,
    Json(body): Json<RevocationBody>,
) -> Result<Response, Refusal> {
    let RevocationBody { dimension, value, reason, issuer, issued_before } = body;
    let words = RevocationWords {
        dimension: &dimension,
        value: &value,
        issuer: issuer.as_deref(),
        reason: reason.as_deref(),
        issued_before: issued_before.map(UnixSeconds),
    };
    let position = app.revoke(words, &operator.actor()).await?;
    let body = RevocationAnswer { position: position.0, epoch: app.feed.epoch().to_hex() };
    written(StatusCode::CREATED, &body)
}
