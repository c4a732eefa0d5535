//! `/v1/admin/…`: what operators order, and what all of it has in common: ids in paths, pages, versions.
//!
//! *What comes in:* paths, queries and headers of an operator. *What goes out:* values in bounds, without control characters,
//! or a refusal. *What an attacker gains if this is wrong:* a query that no database understands, or a change lost.

pub(crate) mod api_key;
pub(crate) mod audit;
pub(crate) mod client;
pub(crate) mod edge;
pub(crate) mod key;
pub(crate) mod operator;
pub(crate) mod revocation;
pub(crate) mod role;
pub(crate) mod shard;
pub(crate) mod tenant;
pub(crate) mod user;

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Deserializer, Serialize};
use tollgate_shared::id::ID_BYTES_MAX;

use super::{NO_STORE, written};
use crate::admin::{Condition, OrderError};
use crate::app::App;
use crate::client::ClientFault;
use crate::config::IfMatchRule;
use crate::error::{Refusal, defect};
use crate::keyring::KeyringError;

/// The most entries of a page.
pub(crate) const LIMIT_MAX: u32 = 200;
/// The entries of a page when nothing is said.
pub(crate) const LIMIT_DEFAULT: u32 = 50;

/// An id in a path. One that nothing can have names nothing.
#[derive(Debug)]
pub(crate) struct Id(pub(crate) String);

/// Two ids in a path.
#[derive(Debug)]
pub(crate) struct Ids(pub(crate) String, pub(crate) String);

fn can_be_an_id(text: &str) -> bool {
    (1..=ID_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}

impl FromRequestParts<Arc<App>> for Id {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        match Path::<String>::from_request_parts(parts, app).await {
            Ok(Path(id)) if can_be_an_id(&id) => Ok(Self(id)),
            Ok(_) | Err(_) => Err(Refusal::NotFound),
        }
    }
}

impl FromRequestParts<Arc<App>> for Ids {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        match Path::<(String, String)>::from_request_parts(parts, app).await {
            Ok(Path((one, other))) if can_be_an_id(&one) && can_be_an_id(&other) => Ok(Self(one, other)),
            Ok(_) | Err(_) => Err(Refusal::NotFound),
        }
    }
}

/// The parameters of a query, each there at most once.
#[derive(Debug)]
pub(crate) struct Parameters(Vec<(String, String)>);

impl Parameters {
    pub(crate) fn read(uri: &Uri) -> Result<Self, Refusal> {
        let malformed = || Refusal::Invalid("query: is malformed or repeats a parameter".to_owned());
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(|_| malformed())?;
        let repeated = |name: &str| pairs.iter().filter(|(other, _)| other == name).count() > 1;
        if pairs.iter().any(|(name, _)| repeated(name)) { Err(malformed()) } else { Ok(Self(pairs)) }
    }

    /// The value of this parameter, which has to be in the bounds of names.
    pub(crate) fn name(&self, name: &'static str) -> Result<Option<&str>, Refusal> {
        match self.value(name) {
            Some(value) if !can_be_an_id(value) => Err(Refusal::Invalid(format!(
                "{name}: must be 1 to {ID_BYTES_MAX} bytes long, without control characters"
            ))),
            value => Ok(value),
        }
    }

    pub(crate) fn number(&self, name: &'static str) -> Result<Option<u64>, Refusal> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
        match value.parse() {
            Ok(number) if digits => Ok(Some(number)),
            Ok(_) | Err(_) => Err(Refusal::Invalid(format!("{name}: must be a whole number"))),
        }
    }

    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Which page is wanted: after what, and how long.
    pub(crate) fn page(&self) -> Result<Page, Refusal> {
        let limit = self.number("limit")?.unwrap_or_else(|| u64::from(LIMIT_DEFAULT));
        let limit = u32::try_from(limit).ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
        let limit = limit.ok_or_else(|| Refusal::Invalid(format!("limit: must be 1 to {LIMIT_MAX}")))?;
        Ok(Page { after: self.name("after")?.unwrap_or_default().to_owned(), limit })
    }
}

/// Which part of a list is wanted.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) after: String,
    pub(crate) limit: u32,
}

impl Page {
    /// One more than is wanted, to know whether there are more.
    pub(crate) fn and_one(&self) -> u32 {
        self.limit.saturating_add(1)
    }

    /// Takes the one more away, and tells what the next page comes after.
    pub(crate) fn cut<T>(&self, list: &mut Vec<T>, key: impl Fn(&T) -> &str) -> Option<String> {
        self.cut_by(list, |last| key(last).to_owned())
    }

    /// The same where the key is no text.
    pub(crate) fn cut_by<T>(&self, list: &mut Vec<T>, key: impl Fn(&T) -> String) -> Option<String> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let more = list.len() > limit;
        list.truncate(limit);
        list.last().filter(|_| more).map(key)
    }
}

/// A page of a list, with a link to the next one (RFC 8288) if there is one.
fn listed(uri: &Uri, body: &impl Serialize, next: Option<&str>) -> Result<Response, Refusal> {
    let mut response = written(StatusCode::OK, body)?;
    if let Some(next) = next {
        let query = uri.query().unwrap_or_default();
        let kept = query.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("after="));
        let mut parameters: Vec<String> = kept.map(str::to_owned).collect();
        parameters.push(format!("after={}", encoded(next)));
        let link = format!("<{}?{}>; rel=\"next\"", uri.path(), parameters.join("&"));
        if let Ok(link) = HeaderValue::from_str(&link) {
            response.headers_mut().insert(header::LINK, link);
        }
    }
    Ok(response)
}

/// A text as it can stand in a path or a query.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// An answer of this type with the version as entity tag.
fn versioned(status: StatusCode, version: u64, body: &impl Serialize) -> Result<Response, Refusal> {
    let mut response = written(status, body)?;
    insert(&mut response, header::ETAG, &format!("\"{version}\""));
    Ok(response)
}

/// The same for something new, with the path at which it is found.
fn created(path: &[&str], version: u64, body: &impl Serialize) -> Result<Response, Refusal> {
    let mut response = versioned(StatusCode::CREATED, version, body)?;
    let path: Vec<String> = path.iter().map(|part| encoded(part)).collect();
    insert(&mut response, header::LOCATION, &format!("/v1/admin/{}", path.join("/")));
    Ok(response)
}

fn insert(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

fn no_content() -> Response {
    (StatusCode::NO_CONTENT, [NO_STORE]).into_response()
}

/// Which version a change is for (RFC 9110 section 13.1.1).
#[derive(Debug)]
pub(crate) struct IfMatch(pub(crate) Condition);

impl FromRequestParts<Arc<App>> for IfMatch {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        match condition(&parts.headers)? {
            Some(condition) => Ok(Self(condition)),
            None => match app.settings.admin.if_match {
                IfMatchRule::Optional => Ok(Self(Condition::Any)),
                IfMatchRule::Required => Err(Refusal::ConditionNeeded),
            },
        }
    }
}

/// What `If-Match` says, if it is there.
fn condition(headers: &HeaderMap) -> Result<Option<Condition>, Refusal> {
    let malformed = || Refusal::Invalid("If-Match: must be * or a list of entity tags".to_owned());
    let mut tags: Vec<&str> = Vec::new();
    for value in headers.get_all(header::IF_MATCH) {
        let value = value.to_str().map_err(|_| malformed())?;
        tags.extend(value.split(',').map(|tag| tag.trim_matches([' ', '\t'])));
    }
    match tags.as_slice() {
        [] => return Ok(None),
        ["*"] => return Ok(Some(Condition::Any)),
        _ => {}
    }
    let mut versions = Vec::new();
    for tag in tags {
        let (strong, quoted) = match tag.strip_prefix("W/") {
            Some(rest) => (None, rest),
            None => (Some(()), tag),
        };
        let inner = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let inner = inner.filter(|inner| !inner.contains('"')).ok_or_else(malformed)?;
        // A weak tag matches nothing here, and neither does one that is no version.
        let digits = inner.bytes().all(|byte| byte.is_ascii_digit());
        versions.extend(inner.parse::<u64>().ok().filter(|_| digits && strong.is_some()));
    }
    Ok(Some(Condition::Versions(versions)))
}

/// A member that may be missing, but not be `null`.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl From<OrderError> for Refusal {
    fn from(error: OrderError) -> Self {
        match error {
            OrderError::Name(_)
            | OrderError::TooMany(_)
            | OrderError::Unknown(_)
            | OrderError::Permission
            | OrderError::Plan
            | OrderError::Dimension
            | OrderError::IssuedBefore
            | OrderError::OwnKey
            | OrderError::Secret
            | OrderError::NotHeld
            | OrderError::ApiKeyEnd
            | OrderError::ApiKeys
            | OrderError::Refused(_) => Self::Invalid(error.to_string()),
            OrderError::MoreThanOwn => Self::Permission,
            OrderError::Client(ClientFault::UnknownSecret) | OrderError::Keys(KeyringError::Missing) => {
                Self::NotFound
            }
            OrderError::Client(ClientFault::Entropy(_)) | OrderError::Entropy(_) => defect(&error),
            OrderError::Client(fault) => Self::Invalid(fault.to_string()),
            OrderError::Keys(KeyringError::Store(error)) | OrderError::Store(error) => error.into(),
            OrderError::Keys(_) => defect(&error),
            OrderError::Counters(error) => {
                tracing::error!(%error, "counters failed");
                Self::Unavailable
            }
            OrderError::Password(error) => error.into(),
        }
    }
}
