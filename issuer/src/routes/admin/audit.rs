//! `/v1/admin/audit`: a page of events as JSON, or all of them as lines of JSON, read a page at a time.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Uri, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Serialize;
use tollgate_shared::time::UnixSeconds;
use utoipa::ToSchema;

use super::{NO_STORE, Parameters, listed};
use crate::app::App;
use crate::audit::{AuditQuery, AuditRecord};
use crate::error::Refusal;
use crate::published::media_ranges;
use crate::store::StoreError;

/// Lines of JSON.
pub(crate) const NDJSON: &str = "application/x-ndjson";
/// How many events are read at once for an export.
pub(crate) const EXPORT_PAGE: u32 = 500;

/// An event.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditEvent)]
pub(crate) struct AuditAnswer {
    /// Later events have greater ids.
    id: String,
    at: u64,
    actor: String,
    action: String,
    target: String,
    /// `done`, `refused` or `failed`.
    outcome: String,
    #[schema(required)]
    address: Option<String>,
    detail: String,
}

/// A page of events, oldest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditEvents)]
pub(crate) struct AuditPageAnswer {
    #[schema(max_items = 200)]
    events: Vec<AuditAnswer>,
    /// What the next page comes `after`; `null` on the last.
    #[schema(required)]
    next: Option<String>,
}

impl From<AuditRecord> for AuditAnswer {
    fn from(record: AuditRecord) -> Self {
        let AuditRecord { id, at, actor, action, target, outcome, address, detail } = record;
        Self { id, at: at.0, actor, action, target, outcome, address, detail }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Page,
    Lines,
}

/// `GET /v1/admin/audit`
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let parameters = Parameters::read(&uri)?;
    let page = parameters.page()?;
    let text = |name| parameters.name(name).map(|value| value.map(str::to_owned));
    let date = |name| parameters.number(name).map(|value| value.map(UnixSeconds));
    let query = AuditQuery {
        actor: text("actor")?,
        action: text("action")?,
        target: text("target")?,
        since: date("since")?,
        until: date("until")?,
        after: text("after")?,
    };
    let format = match parameters.value("format") {
        None if prefers_lines(&headers) => Format::Lines,
        None | Some("json") => Format::Page,
        Some("ndjson") => Format::Lines,
        Some(_) => return Err(Refusal::Invalid("format: must be json or ndjson".to_owned())),
    };
    if format == Format::Lines {
        return lines(app, query).await;
    }
    let mut events = app.store.audit(&query, page.and_one()).await?;
    let next = page.cut(&mut events, |event| &event.id);
    let body = AuditPageAnswer { events: events.into_iter().map(AuditAnswer::from).collect(), next };
    listed(&uri, &body, body.next.as_deref())
}

/// Whether lines are wanted rather than a page (RFC 9110 section 12.5.1): by name, and no less than JSON.
fn prefers_lines(headers: &HeaderMap) -> bool {
    let (mut lines, mut json) = (None, None);
    for (kind, weight) in media_ranges(headers) {
        match kind.as_str() {
            NDJSON => lines = Some(weight),
            "application/json" => json = Some(weight),
            _ => {}
        }
    }
    lines.is_some_and(|lines| lines > 0.0 && json.is_none_or(|json| lines > json))
}

/// All events that are wanted, a line each. What goes wrong before the first one is a problem; later it ends the answer
/// without its proper end, so that nobody takes a part for the whole.
async fn lines(app: Arc<App>, query: AuditQuery) -> Result<Response, Refusal> {
    let first = app.store.audit(&query, EXPORT_PAGE).await?;
    let state = Some((app, query, Some(first)));
    let pages = stream::try_unfold(state, |state| async move {
        let Some((app, query, first)) = state else { return Ok(None) };
        let events = match first {
            Some(events) => events,
            None => app.store.audit(&query, EXPORT_PAGE).await?,
        };
        let Some(last) = events.last() else { return Ok(None) };
        let query = AuditQuery { after: Some(last.id.clone()), ..query };
        let next = is_full(&events).then_some((app, query, None));
        Ok::<_, StoreError>(Some((Bytes::from(written_lines(events)), next)))
    });
    Ok(([NO_STORE, (header::CONTENT_TYPE, NDJSON)], Body::from_stream(pages)).into_response())
}

/// Whether there may be more events after these. A page that is not full is the last one, although events are added while an
/// export is read: or it might not end.
pub(crate) fn is_full(page: &[AuditRecord]) -> bool {
    page.len() >= EXPORT_PAGE as usize
}

/// These events, a line each.
pub(crate) fn written_lines(events: Vec<AuditRecord>) -> String {
    let mut text = String::new();
    for event in events {
        // Strings and numbers can always be written.
        text.push_str(&serde_json::to_string(&AuditAnswer::from(event)).unwrap_or_default());
        text.push('\n');
    }
    text
}
