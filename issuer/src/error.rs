//! Decides what a failure looks like from outside: the one table from [`Refusal`] to status, problem type and title.
//!
//! Answers are RFC 9457 problems; those of `/oauth2/…` are in [`crate::oauth::error`]. Three kinds of fault never mix: what the client did
//! (4xx), what we cannot do now (503), and what is our defect (500), whose cause goes to the log and nowhere else.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::feed::FeedError;
use crate::password::{PasswordError, PasswordLength};
use crate::quota::BatchFault;
use crate::status_lists::StatusListError;
use crate::store::StoreError;

/// How long a client is asked to wait when the password queue is full, in seconds.
pub(crate) const BUSY_RETRY_SECONDS: u64 = 2;
/// How long a client is asked to wait when the store does not answer, in seconds.
pub(crate) const UNAVAILABLE_RETRY_SECONDS: u64 = 5;

/// Why a request is not answered as it wished.
#[derive(Debug)]
pub enum Refusal {
    /// A value in the request is missing or wrong; the text names it and never repeats it.
    Invalid(String),
    /// Username or password is wrong, or the user is disabled: nobody is told which.
    Login,
    /// A scope was asked for that the user does not have.
    Scope,
    /// There is no credential, or it is not in force.
    Credential,
    /// The credential is in force, but for something else.
    CredentialKind,
    /// The operator may not do this.
    Permission,
    /// The batch names another edge than the credential.
    OtherEdge,
    /// There is no such route or thing.
    NotFound,
    /// The route exists, but not with this method.
    Method,
    /// The answer is of no media type that the client takes.
    NotAcceptable,
    /// What the request asks for in addition is not there.
    NotImplemented,
    /// The body is not of the media type that is read here.
    MediaType,
    /// The body is too long.
    TooLarge,
    /// The body did not arrive in time.
    BodyTimeout,
    /// Something of this name exists.
    Exists,
    /// It was changed since the client read it.
    Changed,
    /// It may only be changed by who says which version is meant.
    ConditionNeeded,
    /// The idempotency key was that of another request.
    OtherRequest,
    /// The same request is being carried out at this moment.
    InProgress,
    /// A later batch of this spender was applied already.
    StaleSequence,
    /// Too many attempts from there, or in all.
    TooMany {
        /// When to come back.
        retry_after_seconds: u64,
    },
    /// Too many logins at once.
    Busy,
    /// The store does not answer, the service is closing, or too many wait for a status list.
    Unavailable,
    /// A defect of ours.
    Internal,
}

struct Row {
    status: StatusCode,
    kind: &'static str,
    title: &'static str,
}

const BLANK: &str = "about:blank";
const REDUCED_CAPACITY: &str = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity";

impl Refusal {
    fn row(&self) -> Row {
        let row = |status, kind, title| Row { status, kind, title };
        match self {
            Self::Invalid(_) => row(StatusCode::BAD_REQUEST, BLANK, "Bad Request"),
            Self::Login => row(StatusCode::UNAUTHORIZED, BLANK, "Username or password is wrong"),
            Self::Scope => {
                row(StatusCode::BAD_REQUEST, "urn:tollgate:problem#invalid_scope", "invalid_scope")
            }
            Self::Credential => row(StatusCode::UNAUTHORIZED, BLANK, "Unauthorized"),
            Self::CredentialKind => row(StatusCode::FORBIDDEN, BLANK, "Credential is for something else"),
            Self::Permission => row(StatusCode::FORBIDDEN, BLANK, "insufficient permission"),
            Self::OtherEdge => row(StatusCode::FORBIDDEN, BLANK, "Credential is another edge's"),
            Self::NotFound => row(StatusCode::NOT_FOUND, BLANK, "Not Found"),
            Self::Method => row(StatusCode::METHOD_NOT_ALLOWED, BLANK, "Method Not Allowed"),
            Self::NotAcceptable => row(StatusCode::NOT_ACCEPTABLE, BLANK, "Not Acceptable"),
            Self::NotImplemented => row(StatusCode::NOT_IMPLEMENTED, BLANK, "Not Implemented"),
            Self::MediaType => row(StatusCode::UNSUPPORTED_MEDIA_TYPE, BLANK, "Unsupported Media Type"),
            Self::TooLarge => row(StatusCode::PAYLOAD_TOO_LARGE, BLANK, "Content Too Large"),
            Self::BodyTimeout => row(StatusCode::REQUEST_TIMEOUT, BLANK, "Request Timeout"),
            Self::Exists => row(StatusCode::CONFLICT, BLANK, "Exists already"),
            Self::Changed => row(StatusCode::PRECONDITION_FAILED, BLANK, "Was changed in the meantime"),
            Self::ConditionNeeded => row(StatusCode::PRECONDITION_REQUIRED, BLANK, "If-Match is required"),
            Self::OtherRequest => {
                row(StatusCode::UNPROCESSABLE_ENTITY, BLANK, "Idempotency key was used for another request")
            }
            Self::InProgress => row(StatusCode::CONFLICT, BLANK, "The same request is being carried out"),
            Self::StaleSequence => row(
                StatusCode::CONFLICT,
                "urn:tollgate:problem#stale-sequence",
                "A later batch was applied already",
            ),
            Self::TooMany { .. } => row(StatusCode::TOO_MANY_REQUESTS, BLANK, "Too Many Requests"),
            Self::Busy => row(StatusCode::SERVICE_UNAVAILABLE, REDUCED_CAPACITY, "Too many logins at once"),
            Self::Unavailable => row(StatusCode::SERVICE_UNAVAILABLE, BLANK, "Service Unavailable"),
            Self::Internal => row(StatusCode::INTERNAL_SERVER_ERROR, BLANK, "Internal Server Error"),
        }
    }

    fn extra_header(&self) -> Option<(HeaderName, HeaderValue)> {
        match self {
            Self::Login | Self::Credential => {
                Some((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"tollgate\"")))
            }
            Self::TooMany { retry_after_seconds } => {
                Some((header::RETRY_AFTER, (*retry_after_seconds).into()))
            }
            Self::InProgress | Self::Busy => Some((header::RETRY_AFTER, BUSY_RETRY_SECONDS.into())),
            Self::Unavailable => Some((header::RETRY_AFTER, UNAVAILABLE_RETRY_SECONDS.into())),
            Self::Invalid(_)
            | Self::Scope
            | Self::CredentialKind
            | Self::Permission
            | Self::OtherEdge
            | Self::NotFound
            | Self::Method
            | Self::NotAcceptable
            | Self::NotImplemented
            | Self::MediaType
            | Self::TooLarge
            | Self::BodyTimeout
            | Self::Exists
            | Self::Changed
            | Self::ConditionNeeded
            | Self::OtherRequest
            | Self::StaleSequence
            | Self::Internal => None,
        }
    }

    fn respond(&self, media_type: &'static str, body: &serde_json::Value) -> Response {
        let mut response = (self.row().status, body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some((name, value)) = self.extra_header() {
            headers.insert(name, value);
        }
        response
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Row { status, kind, title } = self.row();
        let mut body = json!({ "type": kind, "title": title, "status": status.as_u16() });
        if let (Self::Invalid(detail), Some(members)) = (&self, body.as_object_mut()) {
            members.insert("detail".to_owned(), detail.as_str().into());
        }
        self.respond("application/problem+json", &body)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Exists => Self::Exists,
            StoreError::Missing => Self::NotFound,
            StoreError::Changed => Self::Changed,
            StoreError::Database(_)
            | StoreError::Timeout
            | StoreError::Unreachable
            | StoreError::Moving
            | StoreError::Contended
            | StoreError::NoBlocks => {
                tracing::error!(%error, "store failed");
                Self::Unavailable
            }
            StoreError::Open { .. }
            | StoreError::Schema(_)
            | StoreError::Corrupt(_)
            | StoreError::Entropy(_)
            | StoreError::File(_) => defect(&error),
        }
    }
}

impl From<PasswordError> for Refusal {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Busy => Self::Busy,
            PasswordError::Hash | PasswordError::Entropy(_) | PasswordError::Thread(_) => defect(&error),
        }
    }
}

impl From<FeedError> for Refusal {
    fn from(error: FeedError) -> Self {
        match error {
            FeedError::Store(error) => error.into(),
            FeedError::Encode => defect(&error),
        }
    }
}

impl From<StatusListError> for Refusal {
    fn from(error: StatusListError) -> Self {
        match error {
            StatusListError::Store(error) => error.into(),
            StatusListError::Busy => Self::Unavailable,
            StatusListError::Issue(_) | StatusListError::Compress(_) | StatusListError::Task => {
                defect(&error)
            }
        }
    }
}

impl From<PasswordLength> for Refusal {
    fn from(fault: PasswordLength) -> Self {
        Self::Invalid(fault.to_string())
    }
}

impl From<BatchFault> for Refusal {
    fn from(fault: BatchFault) -> Self {
        Self::Invalid(fault.to_string())
    }
}

/// Writes a defect of ours to the log, and to nobody else.
pub(crate) fn defect(error: &dyn std::error::Error) -> Refusal {
    tracing::error!(%error, "defect");
    Refusal::Internal
}
