//! `POST /v1/login`

use std::net::IpAddr;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::{bounded, json};
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

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoginBody {
    username: String,
    password: TypedPassword,
    client_id: Option<String>,
    scope: Option<String>,
    device: Option<String>,
    device_token: Option<TypedPassword>,
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
    let body = json!({
        "access_token": access_token,
        "token_type": "Bearer",
        "expires_in": expires_in,
        "scope": scope,
        "refresh_token": refresh_token.as_str(),
        "device_token": device_token.as_str(),
        "user": { "id": user.id, "username": user.username, "plan": user.plan },
    });
    Ok(json(StatusCode::OK, &body))
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
