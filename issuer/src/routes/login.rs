//! `POST /v1/login`

use std::net::IpAddr;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{bounded, written};
use crate::app::App;
use crate::body::Json;
use crate::client::FIRST_PARTY;
use crate::error::{Refusal, defect};
use crate::login::{Login, LoginError, LoginRequest};
use crate::metrics::LoginOutcome;
use crate::network::Peer;
use crate::password::{Password, TypedPassword};
use crate::sessions::{SessionError, SessionTokens};

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
    scope: &'a str,
    /// What the next tokens are had for.
    refresh_token: &'a str,
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
    let result = answer(&app, address, body).await;
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
    body: Result<Json<LoginBody>, Refusal>,
) -> Result<Response, Refusal> {
    let Json(LoginBody { username, password, client_id, scope, device, device_token }) = body?;
    let client = client_id.unwrap_or_else(|| FIRST_PARTY.to_owned());
    bounded("username", &username)?;
    bounded("client_id", &client)?;
    if let Some(device) = &device {
        bounded("device", device)?;
    }
    if let Some(token) = &device_token {
        bounded("device_token", &token.0)?;
    }
    let device_token = device_token.map(|token| token.0);
    if scope.as_ref().is_some_and(|scope| scope.len() > SCOPE_BYTES_MAX) {
        return Err(Refusal::Invalid(format!("scope: must be at most {SCOPE_BYTES_MAX} bytes long")));
    }
    let password = Password::new(password.0)?;
    let Login { tokens, device_token, user } =
        app.log_in(LoginRequest { address, username, password, client, scope, device, device_token }).await?;
    let SessionTokens { access_token, expires_in, scope, refresh_token } = tokens;
    written(
        StatusCode::OK,
        &LoginAnswer {
            access_token: &access_token,
            token_type: "Bearer",
            expires_in,
            scope: &scope,
            refresh_token: &refresh_token,
            device_token: &device_token,
            user: LoginUser { id: &user.id, username: &user.username, plan: &user.plan },
        },
    )
}

impl From<LoginError> for Refusal {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::Refused => Self::Login,
            LoginError::TooMany(refused) => {
                Self::TooMany { retry_after_seconds: refused.retry_after_seconds }
            }
            LoginError::Client => {
                Self::Invalid("client_id: is unknown, disabled, or has no logins".to_owned())
            }
            LoginError::Scope(_) => Self::Scope,
            LoginError::Password(error) => error.into(),
            LoginError::Store(error) => error.into(),
            LoginError::Session(SessionError::Store(error)) => error.into(),
            LoginError::Session(_) | LoginError::Entropy(_) => defect(&error),
        }
    }
}
