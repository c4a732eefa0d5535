//! Decides what a failure looks like on `/oauth2/…`: the one table from [`OAuthError`] to status, code and headers
//! (RFC 6749 section 5.2, RFC 7009 section 2.2.1).

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::error::{BUSY_RETRY_SECONDS, Refusal, UNAVAILABLE_RETRY_SECONDS};

/// How a client tried to say who it is. The answer to a failure depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Attempt {
    /// Not at all.
    Nothing,
    /// With the `Authorization` header, as clients do or should have done: with a Basic credential.
    Basic,
    /// With a bearer credential in that header, as operators do.
    Bearer,
    /// With parameters of the form.
    Form,
}

/// What is wrong with a request, in words that say which parameter it is and never repeat its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum RequestFault {
    /// Not of a form's media type.
    #[error("content-type: must be application/x-www-form-urlencoded")]
    MediaType,
    /// Not a form of UTF-8 text.
    #[error("body: is not a form")]
    NotForm,
    /// More parameters than are read.
    #[error("body: has too many parameters")]
    TooManyParameters,
    /// A parameter twice (RFC 6749 section 3.2).
    #[error("a parameter is repeated")]
    Repeated,
    /// A parameter that is required.
    #[error("{0}: is missing")]
    Missing(&'static str),
    /// A parameter that cannot be what it is.
    #[error("{0}: has a wrong value")]
    Malformed(&'static str),
    /// Two ways to authenticate at once (RFC 6749 section 2.3).
    #[error("more than one client authentication method is used")]
    SeveralMethods,
    /// Two `Authorization` headers.
    #[error("authorization: is repeated")]
    SeveralHeaders,
    /// The form names another client than the proof.
    #[error("client_id: is not the client that authenticates")]
    OtherClient,
    /// Something else in the request.
    #[error("a value is missing or wrong")]
    Value,
}

/// Why a request to `/oauth2/…` is not answered as it wished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OAuthError {
    /// The request makes no sense.
    InvalidRequest(RequestFault),
    /// The body is too long.
    TooLarge,
    /// The body did not arrive in time.
    TooSlow,
    /// The client is unknown or disabled, or did not prove who it is: nobody is told which.
    InvalidClient(Attempt),
    /// The refresh token is unknown, over, revoked, or another client's: nobody is told which.
    InvalidGrant,
    /// The client may not do this.
    UnauthorizedClient,
    /// There is no such grant here.
    UnsupportedGrantType,
    /// A scope that cannot be had, or is no scope.
    InvalidScope,
    /// Too many requests of this client or address.
    TooManyRequests {
        /// When to come back.
        retry_after_seconds: u64,
    },
    /// What we need does not answer, or there is too much to do.
    TemporarilyUnavailable {
        /// When to come back.
        retry_after_seconds: u64,
    },
    /// A defect of ours.
    ServerError,
}

struct Row {
    status: StatusCode,
    code: &'static str,
    challenge: Option<&'static str>,
    retry_after_seconds: Option<u64>,
}

const BASIC: &str = "Basic realm=\"tollgate\", charset=\"UTF-8\"";
const BEARER: &str = "Bearer realm=\"tollgate\"";

impl OAuthError {
    fn row(self) -> Row {
        let row = |status, code| Row { status, code, challenge: None, retry_after_seconds: None };
        match self {
            Self::InvalidRequest(_) => row(StatusCode::BAD_REQUEST, "invalid_request"),
            Self::TooLarge => row(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request"),
            Self::TooSlow => row(StatusCode::REQUEST_TIMEOUT, "invalid_request"),
            Self::InvalidClient(attempt) => {
                let challenge = match attempt {
                    Attempt::Nothing | Attempt::Basic => Some(BASIC),
                    Attempt::Bearer => Some(BEARER),
                    // RFC 6749 asks for the challenge only where the header was used. Here it would have browsers ask a
                    // person for a password, and clients look at it instead of the error code.
                    Attempt::Form => None,
                };
                Row { challenge, ..row(StatusCode::UNAUTHORIZED, "invalid_client") }
            }
            Self::InvalidGrant => row(StatusCode::BAD_REQUEST, "invalid_grant"),
            Self::UnauthorizedClient => row(StatusCode::BAD_REQUEST, "unauthorized_client"),
            Self::UnsupportedGrantType => row(StatusCode::BAD_REQUEST, "unsupported_grant_type"),
            Self::InvalidScope => row(StatusCode::BAD_REQUEST, "invalid_scope"),
            Self::TooManyRequests { retry_after_seconds } => Row {
                retry_after_seconds: Some(retry_after_seconds),
                ..row(StatusCode::TOO_MANY_REQUESTS, "temporarily_unavailable")
            },
            Self::TemporarilyUnavailable { retry_after_seconds } => Row {
                retry_after_seconds: Some(retry_after_seconds),
                ..row(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable")
            },
            Self::ServerError => row(StatusCode::INTERNAL_SERVER_ERROR, "server_error"),
        }
    }

    /// Its code, by which it can be counted: one of a closed set.
    #[must_use]
    pub fn code(self) -> &'static str {
        self.row().code
    }
}

impl IntoResponse for OAuthError {
    fn into_response(self) -> Response {
        let Row { status, code, challenge, retry_after_seconds } = self.row();
        let mut body = json!({ "error": code });
        if let (Self::InvalidRequest(fault), Some(members)) = (self, body.as_object_mut()) {
            members.insert("error_description".to_owned(), fault.to_string().into());
        }
        let mut response = (status, body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
        if let Some(challenge) = challenge {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if let Some(seconds) = retry_after_seconds {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl From<RequestFault> for OAuthError {
    fn from(fault: RequestFault) -> Self {
        Self::InvalidRequest(fault)
    }
}

/// What the parts that OAuth shares with the rest say, in its words.
impl From<Refusal> for OAuthError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Login | Refusal::Credential => Self::InvalidClient(Attempt::Bearer),
            Refusal::Scope => Self::InvalidScope,
            Refusal::CredentialKind | Refusal::Permission | Refusal::OtherEdge => Self::UnauthorizedClient,
            Refusal::MediaType => Self::InvalidRequest(RequestFault::MediaType),
            Refusal::TooLarge => Self::TooLarge,
            Refusal::BodyTimeout => Self::TooSlow,
            Refusal::Invalid(_)
            | Refusal::NotFound
            | Refusal::Method
            | Refusal::NotAcceptable
            | Refusal::NotImplemented
            | Refusal::Exists
            | Refusal::Changed
            | Refusal::ConditionNeeded
            | Refusal::OtherRequest
            | Refusal::InProgress
            | Refusal::StaleSequence => Self::InvalidRequest(RequestFault::Value),
            Refusal::TooMany { retry_after_seconds } => Self::TooManyRequests { retry_after_seconds },
            Refusal::Busy => Self::TemporarilyUnavailable { retry_after_seconds: BUSY_RETRY_SECONDS },
            Refusal::Unavailable => {
                Self::TemporarilyUnavailable { retry_after_seconds: UNAVAILABLE_RETRY_SECONDS }
            }
            Refusal::Internal => Self::ServerError,
        }
    }
}

#[cfg(test)]
mod tests;
