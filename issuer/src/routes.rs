//! The handlers: each reads one request, has the domain decide, and writes one answer.

pub(crate) mod admin;
pub(crate) mod edge;
pub(crate) mod login;
pub(crate) mod oauth;
pub(crate) mod ops;
pub(crate) mod sessions;
pub(crate) mod well_known;

use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tollgate_shared::id::ID_BYTES_MAX;

use crate::error::Refusal;

const NO_STORE: (HeaderName, &str) = (header::CACHE_CONTROL, "no-store");

/// A JSON answer that nobody may keep.
fn json(status: StatusCode, body: &serde_json::Value) -> Response {
    (status, [NO_STORE, (header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

/// Checks the length of a member of a request.
fn bounded(name: &str, value: &str) -> Result<(), Refusal> {
    if (1..=ID_BYTES_MAX).contains(&value.len()) && !value.chars().any(char::is_control) {
        Ok(())
    } else {
        Err(Refusal::Invalid(format!(
            "{name}: must be 1 to {ID_BYTES_MAX} bytes long, without control characters"
        )))
    }
}
