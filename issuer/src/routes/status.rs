//! `/v1/status…`: the lists by which anybody can see whether a token of ours was revoked.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;

use super::admin::{Id, Parameters};
use crate::app::App;
use crate::error::Refusal;
use crate::published::{self, is_acceptable};
use crate::status_lists::TTL_SECONDS;

/// The media type of a list.
pub(crate) const STATUS_LIST: &str = "application/statuslist+jwt";

/// `GET /v1/status`
pub(crate) async fn all(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Refusal> {
    Ok(app.all_status_lists().await?.answer(&headers))
}

/// `GET /v1/status/{list}`
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Id(list): Id,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    // Lists of the past are not kept.
    if Parameters::read(&uri)?.value("time").is_some() {
        return Err(Refusal::NotImplemented);
    }
    if !is_acceptable(&headers, STATUS_LIST) {
        return Err(Refusal::NotAcceptable);
    }
    // Only one spelling: no sign, no leading zeros.
    let number: Option<u32> = list.parse().ok().filter(|number: &u32| number.to_string() == list);
    let number = number.ok_or(Refusal::NotFound)?;
    let document = app.status_list(number).await?;
    let document = document.ok_or(Refusal::NotFound)?;
    let cache = format!("public, max-age={TTL_SECONDS}");
    Ok(published::answer(&headers, &cache, STATUS_LIST, &document.etag, || document.token.clone().into()))
}
