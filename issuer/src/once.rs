//! Decides that a request with an idempotency key is carried out once, however often it is sent.
//!
//! *What comes in:* `Idempotency-Key` and a body, from an operator who may do what is asked. *What goes out:* the answer that
//! the first such request got. *What an attacker gains if this is wrong:* a second client or user by sending a request
//! again, or a secret out of an answer that was kept.
//!
//! The key is reserved before anything is done; who comes meanwhile with the same request waits for the answer. Answers are
//! kept for a day and sealed, because some hold a secret that is shown once: who lost the first answer gets it again, and who
//! has the database alone gets nothing. Failures of ours are not kept, so the request can be tried again.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};

use crate::access::Operator;
use crate::app::App;
use crate::body::{BODY_BYTES_MAX, read, wipe};
use crate::error::{Refusal, defect};
use crate::store::{KeptAnswer, KnownKey};

/// The header with the key.
pub(crate) const KEY_HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// The header that tells an answer was given before.
pub(crate) const REPLAYED_HEADER: HeaderName = HeaderName::from_static("idempotent-replayed");
/// The longest key, in bytes.
pub(crate) const KEY_BYTES_MAX: usize = 255;
/// How often is looked whether the same request has been answered, and how long is waited in between.
const LOOKS_MAX: u32 = 100;
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// The headers that are kept with an answer.
const KEPT_HEADERS: [HeaderName; 4] =
    [header::CONTENT_TYPE, header::CACHE_CONTROL, header::ETAG, header::LOCATION];

/// Carries out a request, or answers as it was answered before.
pub(crate) async fn once(
    State(app): State<Arc<App>>,
    Extension(Operator { name: operator, .. }): Extension<Operator>,
    request: Request,
    next: Next,
) -> Response {
    let key = match read_key(request.headers()) {
        Ok(Some(key)) => key,
        Ok(None) => return next.run(request).await,
        Err(refusal) => return refusal.into_response(),
    };
    answer(&app, &operator, &key, request, next).await.unwrap_or_else(IntoResponse::into_response)
}

/// The key of a request, if it carries one.
fn read_key(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let mut values = headers.get_all(&KEY_HEADER).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let visible = value.as_bytes().iter().all(u8::is_ascii_graphic);
    let fits = (1..=KEY_BYTES_MAX).contains(&value.len()) && visible && values.next().is_none();
    match value.to_str() {
        Ok(key) if fits => Ok(Some(key.to_owned())),
        Ok(_) | Err(_) => Err(Refusal::Invalid(format!(
            "Idempotency-Key: must be there once, with 1 to {KEY_BYTES_MAX} visible ASCII characters"
        ))),
    }
}

async fn answer(
    app: &App,
    operator: &str,
    key: &str,
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let body = read(body, BODY_BYTES_MAX).await?;
    let kind = parts.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let target = parts.uri.path_and_query().map(|target| target.as_str()).unwrap_or_default();
    let asked = [parts.method.as_str().as_bytes(), target.as_bytes(), kind, &body];
    let digest = app.keys.request_digest(&asked);
    let mut looks = 0;
    loop {
        match app.store.reserve_key(operator, key, digest, app.host.seconds()).await? {
            KnownKey::Reserved => break,
            KnownKey::Other => return Err(Refusal::OtherRequest),
            KnownKey::InProgress if looks < LOOKS_MAX => {
                looks += 1;
                tokio::time::sleep(LOOK_PAUSE).await;
            }
            KnownKey::InProgress => return Err(Refusal::InProgress),
            KnownKey::Answered(kept) => {
                wipe(body);
                return replayed(app, &sealed_as(operator, key), kept);
            }
        }
    }
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    keep(app, operator, key, response).await
}

fn sealed_as(operator: &str, key: &str) -> String {
    // A key has no line end.
    format!("{key}\n{operator}")
}

async fn keep(app: &App, operator: &str, key: &str, response: Response) -> Result<Response, Refusal> {
    let status = response.status();
    if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT {
        app.store.release_key(operator, key).await?;
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.map_err(|error| defect(&error))?;
    let mut headers = Map::new();
    for name in KEPT_HEADERS {
        if let Some(value) = parts.headers.get(&name).and_then(|value| value.to_str().ok()) {
            headers.insert(name.as_str().to_owned(), value.into());
        }
    }
    let sealed = app.keys.seal_answer(&sealed_as(operator, key), &body, &*app.host);
    let answer = KeptAnswer {
        status: status.as_u16(),
        headers: Value::Object(headers).to_string(),
        body: sealed.map_err(|error| defect(&error))?,
    };
    app.store.keep_answer(operator, key, &answer).await?;
    Ok(Response::from_parts(parts, Body::from(body)))
}

fn replayed(app: &App, sealed_as: &str, kept: KeptAnswer) -> Result<Response, Refusal> {
    let KeptAnswer { status, headers, body } = kept;
    let body = app.keys.open_answer(sealed_as, &body).map_err(|error| defect(&error))?;
    let status = StatusCode::from_u16(status).map_err(|error| defect(&error))?;
    let mut response = (status, body.to_vec()).into_response();
    let known: Map<String, Value> = serde_json::from_str(&headers).map_err(|error| defect(&error))?;
    let sent = response.headers_mut();
    sent.remove(header::CONTENT_TYPE);
    for name in KEPT_HEADERS {
        let value = known.get(name.as_str()).and_then(Value::as_str);
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
            sent.insert(name, value);
        }
    }
    sent.insert(REPLAYED_HEADER, HeaderValue::from_static("true"));
    Ok(response)
}
