//! Decides which request bodies are read: of the right media type, of bounded size, whole within a bounded time.

use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use serde::de::DeserializeOwned;
use zeroize::Zeroize;

use crate::error::Refusal;

/// The longest body, in bytes, where nothing else is said.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// How long a whole body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(15);

/// A JSON body of at most `MAX` bytes.
#[derive(Debug)]
pub struct Json<T, const MAX: usize = BODY_BYTES_MAX>(pub T);

impl<S: Sync, T: DeserializeOwned, const MAX: usize> FromRequest<S> for Json<T, MAX> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        if !has_media_type(request.headers(), "application/json") {
            return Err(Refusal::MediaType);
        }
        let bytes = read(request.into_body(), MAX).await?;
        let value = parse(&bytes);
        wipe(bytes);
        value.map(Self)
    }
}

/// Whether the body is said to be of this media type, whatever its parameters.
pub(crate) fn has_media_type(headers: &HeaderMap, expected: &str) -> bool {
    let sent = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = sent.and_then(|sent| sent.split(';').next()).map(str::trim);
    essence.is_some_and(|essence| essence.eq_ignore_ascii_case(expected))
}

/// The whole body, if it is of at most `bytes_max` bytes.
pub(crate) async fn read(body: Body, bytes_max: usize) -> Result<Bytes, Refusal> {
    // Said in advance, it need not be waited for.
    if HttpBody::size_hint(&body).lower() > u64::try_from(bytes_max).unwrap_or(u64::MAX) {
        return Err(Refusal::TooLarge);
    }
    match tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, bytes_max)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        // Either it is too long or the connection broke, and then nobody reads the answer.
        Ok(Err(_)) => Err(Refusal::TooLarge),
        Err(_) => Err(Refusal::BodyTimeout),
    }
}

/// Parses JSON. The refusal names the member that is wrong and does not repeat its value: it may be a secret.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let error = error.into_inner();
        if !error.is_data() {
            return Refusal::Invalid("body: is not valid JSON".to_owned());
        }
        let problem = error.to_string();
        let named = |prefix: &str| problem.strip_prefix(prefix).and_then(|rest| rest.split('`').nth(1));
        let member = |name: &str| match path.as_str() {
            "." => name.to_owned(),
            path if path == name || path.ends_with(&format!(".{name}")) => path.to_owned(),
            path => format!("{path}.{name}"),
        };
        Refusal::Invalid(match (named("unknown field "), named("missing field ")) {
            (Some(name), _) => format!("{}: is not known", member(name)),
            (None, Some(name)) => format!("{}: is missing", member(name)),
            (None, None) if path == "." => "body: has the wrong type".to_owned(),
            (None, None) => format!("{path}: has the wrong type or value"),
        })
    })?;
    json.end().map_err(|_| Refusal::Invalid("body: is not valid JSON".to_owned()))?;
    Ok(value)
}

/// Overwrites a body that may have held a password, as far as it is ours alone.
pub(crate) fn wipe(bytes: Bytes) {
    if let Ok(mut bytes) = bytes.try_into_mut() {
        bytes.as_mut().zeroize();
    }
}
