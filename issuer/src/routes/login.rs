//! `POST /v1/login`

use std::net::IpAddr;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zeroize::Zeroizing;

use super::{bounded, written};
use crate::access::LOGIN_PATH;
use crate::app::App;
use crate::body::Json;
use crate::client::FIRST_PARTY;
use crate::error::{Refusal, defect};
use crate::login::{Login, LoginError, LoginRequest};
use crate::metrics::LoginOutcome;
use crate::network::Peer;
use crate::oauth::error::OAuthError;
use crate::oauth::form::Form;
use crate::oauth::token_response::TokenResponse;
use crate::password::{Password, TypedPassword};
use crate::sessions::{DEVICE_PREFIX, SessionError};

/// The longest `scope`, in bytes.
const SCOPE_BYTES_MAX: usize = 4096;

/// Who logs in.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Login)]
pub(crate) struct LoginBody {
    /// At most 255 bytes.
    #[schema(min_length = 1, max_length = 255, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    username: String,
    /// At most 1024 bytes.
    #[schema(value_type = String, format = Password, min_length = 8, max_length = 1024)]
    password: TypedPassword,
    /// `first-party` when missing.
    #[schema(min_length = 1, max_length = 255, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    client_id: Option<String>,
    /// With `client_assertion` only, and then `urn:ietf:params:oauth:client-assertion-type:jwt-bearer` (RFC 7523 section 2.2).
    client_assertion_type: Option<String>,
    /// The proof of a client that authenticates with keys. One that has a secret sends that in the `Authorization` header.
    #[schema(value_type = Option<String>)]
    client_assertion: Option<TypedPassword>,
    /// Everything that the user may ask for when missing.
    #[schema(max_length = 4096)]
    scope: Option<String>,
    /// What the client calls its device; the user finds the session by it.
    #[schema(min_length = 1, max_length = 255, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    device: Option<String>,
    /// What an earlier login from this device gave as `device_token`: others' failures then do not lock it out.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 255, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    device_token: Option<TypedPassword>,
}

/// Tokens of a person.
#[derive(Serialize, ToSchema)]
#[schema(as = Tokens)]
pub(crate) struct LoginAnswer<'a> {
    access_token: &'a str,
    /// `Bearer`
    token_type: &'static str,
    /// For how long `access_token` is good, in seconds.
    expires_in: u64,
    /// Not there when the token is good for nothing in particular.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    scope: Option<String>,
    /// What the next tokens are had for, where the client may have them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    refresh_token: Option<&'a str>,
    /// What the device is known by from now on.
    device_token: &'a str,
    #[schema(inline)]
    user: LoginUser<'a>,
}

/// Whose tokens they are.
#[derive(Serialize, ToSchema)]
#[schema(as = TokenUser)]
pub(crate) struct LoginUser<'a> {
    id: &'a str,
    username: &'a str,
    plan: &'a str,
}

pub(crate) async fn login(
    State(app): State<Arc<App>>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    body: Result<Json<LoginBody>, Refusal>,
) -> Response {
    let started = app.host.now().monotonic;
    let peer = peer.map_or(Peer::NONE, |Extension(peer)| peer);
    let address = app.settings.trusted_proxies.client(peer, &headers);
    let result = answer(&app, address, &headers, body).await;
    let outcome = match &result {
        Ok(_) => LoginOutcome::Admitted,
        Err(Refusal::Login) => LoginOutcome::Refused,
        Err(Refusal::Busy | Refusal::TooMany { .. }) => LoginOutcome::Busy,
        Err(Refusal::Unavailable | Refusal::Internal) => LoginOutcome::Failed,
        Err(
            Refusal::Invalid(_)
            | Refusal::Scope
            | Refusal::Credential
            | Refusal::CredentialKind
            | Refusal::Permission
            | Refusal::OtherEdge
            | Refusal::NotFound
            | Refusal::Method
            | Refusal::NotAcceptable
            | Refusal::NotImplemented
            | Refusal::MediaType
            | Refusal::TooLarge
            | Refusal::BodyTimeout
            | Refusal::Exists
            | Refusal::Changed
            | Refusal::ConditionNeeded
            | Refusal::OtherRequest
            | Refusal::InProgress
            | Refusal::StaleSequence,
        ) => LoginOutcome::Malformed,
    };
    app.metrics.login(outcome, app.host.now().monotonic.since(started));
    result.into_response()
}

async fn answer(
    app: &App,
    address: IpAddr,
    headers: &HeaderMap,
    body: Result<Json<LoginBody>, Refusal>,
) -> Result<Response, Refusal> {
    let Json(body) = body?;
    let LoginBody { username, password, client_id, scope, device, device_token, .. } = body;
    let (assertion_type, assertion) = (body.client_assertion_type, body.client_assertion);
    bounded("username", &username)?;
    if let Some(device) = &device {
        bounded("device", device)?;
        // It would be kept, and shown, as a name.
        if device.starts_with(DEVICE_PREFIX) {
            return Err(Refusal::Invalid("device: is what goes into device_token".to_owned()));
        }
    }
    if let Some(token) = &device_token {
        bounded("device_token", &token.0)?;
    }
    let device_token = device_token.map(|token| token.0);
    if scope.as_ref().is_some_and(|scope| scope.len() > SCOPE_BYTES_MAX) {
        return Err(Refusal::Invalid(format!("scope: must be at most {SCOPE_BYTES_MAX} bytes long")));
    }
    let password = Password::new(password.0)?;
    let proof = client_proof(client_id, assertion_type, assertion);
    let client = app.oauth_client(&basic_only(headers), &proof, LOGIN_PATH).await.map_err(client_refusal)?;
    let client = &*client;
    let request = LoginRequest { address, username, password, client, scope, device, device_token };
    let Login { tokens, device_token, user } = app.log_in(request).await?;
    let TokenResponse { access_token, expires_in, scope, refresh_token } = &tokens;
    let answer = LoginAnswer {
        access_token,
        token_type: "Bearer",
        expires_in: *expires_in,
        // The grammar of `scope` has no empty text (RFC 6749 section 3.3).
        scope: (!scope.is_empty()).then(|| scope.to_string()),
        refresh_token: refresh_token.as_ref().map(|token| token.as_str()),
        device_token: &device_token,
        user: LoginUser { id: &user.id, username: &user.username, plan: &user.plan },
    };
    written(StatusCode::OK, &answer)
}

/// What the client says to be, and proves that with, as it would in a form of `/oauth2/…`. Without a name it is the first
/// party's.
fn client_proof(
    client_id: Option<String>,
    assertion_type: Option<String>,
    assertion: Option<TypedPassword>,
) -> Form {
    let id = match (client_id, &assertion) {
        (None, None) => Some(FIRST_PARTY.to_owned()),
        (id, _) => id,
    };
    let parameters = [
        ("client_id", id.map(Zeroizing::new)),
        ("client_assertion_type", assertion_type.map(Zeroizing::new)),
        ("client_assertion", assertion.map(|assertion| assertion.0)),
    ];
    let given = |(name, value): (&str, Option<_>)| value.map(|value| (name.to_owned(), value));
    Form::of(parameters.into_iter().filter_map(given).collect())
}

/// The header by which a client can prove itself. Another is of nobody who matters here: an access token that is over, say.
fn basic_only(headers: &HeaderMap) -> HeaderMap {
    let is_basic = |value: &&HeaderValue| {
        value.as_bytes().get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"basic "))
    };
    let values = headers.get_all(header::AUTHORIZATION).iter().filter(is_basic);
    values.map(|value| (header::AUTHORIZATION, value.clone())).collect()
}

fn client_refusal(error: OAuthError) -> Refusal {
    match error {
        OAuthError::TemporarilyUnavailable { .. } => Refusal::Unavailable,
        OAuthError::ServerError => Refusal::Internal,
        OAuthError::InvalidRequest(_)
        | OAuthError::TooLarge
        | OAuthError::TooSlow
        | OAuthError::InvalidClient(_)
        | OAuthError::InvalidGrant
        | OAuthError::UnauthorizedClient
        | OAuthError::UnsupportedGrantType
        | OAuthError::InvalidScope
        | OAuthError::TooManyRequests { .. } => LoginError::Client.into(),
    }
}

impl From<LoginError> for Refusal {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::Refused => Self::Login,
            LoginError::TooMany(refused) => {
                Self::TooMany { retry_after_seconds: refused.retry_after_seconds }
            }
            LoginError::Client => {
                let fault = "client_id: is unknown or disabled, has no logins, or does not prove who it is";
                Self::Invalid(fault.to_owned())
            }
            LoginError::Scope(_) => Self::Scope,
            LoginError::Password(error) => error.into(),
            LoginError::Store(error) => error.into(),
            LoginError::Session(SessionError::Store(error)) => error.into(),
            LoginError::Session(_) | LoginError::Entropy(_) => defect(&error),
        }
    }
}
