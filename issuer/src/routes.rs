//! The handlers: each reads one request, has the domain decide, and writes one answer.

pub(crate) mod admin;
pub(crate) mod edge;
pub(crate) mod login;
pub(crate) mod oauth;
pub(crate) mod ops;
pub(crate) mod sessions;
pub(crate) mod status;
pub(crate) mod well_known;

use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tollgate_shared::id::ID_BYTES_MAX;

use crate::error::{Refusal, defect};

const NO_STORE: (HeaderName, &str) = (header::CACHE_CONTROL, "no-store");

/// A JSON answer of this type, which nobody may keep.
fn written(status: StatusCode, body: &impl Serialize) -> Result<Response, Refusal> {
    let body = serde_json::to_string(body).map_err(|error| defect(&error))?;
    Ok((status, [NO_STORE, (header::CONTENT_TYPE, "application/json")], body).into_response())
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
