//! `POST /v1/login`

use std::net::IpAddr;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use super::{bounded, json};
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
use crate::password::{Password, TypedPassword};
use crate::sessions::SessionError;

/// The longest `scope`, in bytes.
const SCOPE_BYTES_MAX: usize = 4096;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoginBody {
    username: String,
    password: TypedPassword,
    client_id: Option<String>,
    client_assertion_type: Option<String>,
    client_assertion: Option<TypedPassword>,
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
    let mut members = tokens.to_json();
    members.insert("device_token".to_owned(), json!(device_token.as_str()));
    let user = json!({ "id": user.id, "username": user.username, "plan": user.plan });
    members.insert("user".to_owned(), user);
    Ok(json(StatusCode::OK, &members.into()))
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
