//! Decides which request bodies are read: of the right media type, of bounded size, whole within a bounded time.

use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Form, FromRequest, Request};
use axum::http::request::Parts;
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

/// The pairs of a form body, none of them twice.
#[derive(Clone)]
pub struct FormPairs(Vec<(String, String)>);

// A form may hold a token.
impl std::fmt::Debug for FormPairs {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("FormPairs(…)")
    }
}

impl FormPairs {
    /// Reads the form.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] when it is no form or a parameter is repeated (RFC 6749 section 3.2).
    pub async fn read(parts: &Parts, body: Body) -> Result<Self, Refusal> {
        if !has_media_type(&parts.headers, "application/x-www-form-urlencoded") {
            return Err(Refusal::Invalid(
                "content-type: must be application/x-www-form-urlencoded".to_owned(),
            ));
        }
        let bytes = read(body, BODY_BYTES_MAX).await?;
        let request = Request::from_parts(parts.clone(), Body::from(bytes));
        let Form(pairs) = Form::<Vec<(String, String)>>::from_request(request, &())
            .await
            .map_err(|_| Refusal::Invalid("body: is not a form".to_owned()))?;
        let mut names: Vec<&str> = pairs.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        if names.iter().zip(names.iter().skip(1)).any(|(one, next)| one == next) {
            return Err(Refusal::Invalid("a parameter is repeated".to_owned()));
        }
        Ok(Self(pairs))
    }

    /// The value called `name`; one that is empty counts as absent (RFC 6749 section 3.2).
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }
}

fn has_media_type(headers: &HeaderMap, expected: &str) -> bool {
    let sent = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = sent.and_then(|sent| sent.split(';').next()).map(str::trim);
    essence.is_some_and(|essence| essence.eq_ignore_ascii_case(expected))
}

async fn read(body: Body, bytes_max: usize) -> Result<Bytes, Refusal> {
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
fn wipe(bytes: Bytes) {
    if let Ok(mut bytes) = bytes.try_into_mut() {
        bytes.as_mut().zeroize();
    }
}
