//! `/oauth2/…`: tokens for refresh tokens and for clients (RFC 6749), revocation (RFC 7009), introspection (RFC 7662).

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use tollgate_shared::time::UnixSeconds;

use super::NO_STORE;
use crate::access::{Caller, OAuthCall};
use crate::admin::Actor;
use crate::app::App;
use crate::audit::Action;
use crate::client::{Client, Grant};
use crate::error::{Refusal, defect};
use crate::oauth::error::OAuthError;
use crate::oauth::form::Form;
use crate::oauth::introspection::{ActiveToken, Introspection, TokenKind};
use crate::oauth::requested_grant;
use crate::oauth::token_response::TokenResponse;
use crate::refresh::RefreshToken;
use crate::sessions::SessionError;
use crate::store::{EndReason, KnownRefresh, RevocationOrder};
use crate::tokens::OwnToken;

/// `POST /oauth2/token`
pub(crate) async fn token(
    State(app): State<Arc<App>>,
    Extension(OAuthCall { caller, actor, form }): Extension<OAuthCall>,
) -> Result<TokenResponse, OAuthError> {
    // An operator's credential is none of a client.
    let Caller::Client(client) = caller else { return Err(OAuthError::UnauthorizedClient) };
    let grant = requested_grant(&form)?;
    if !client.grants.has(grant) {
        return Err(OAuthError::UnauthorizedClient);
    }
    match grant {
        Grant::RefreshToken => refresh(&app, &client, &form, &actor).await,
        Grant::ClientCredentials => Ok(app.client_token(&client, form.value("scope")).await?),
        Grant::Login => Err(OAuthError::UnsupportedGrantType),
    }
}

async fn refresh(
    app: &App,
    client: &Client,
    form: &Form,
    actor: &Actor,
) -> Result<TokenResponse, OAuthError> {
    let token = RefreshToken::parse(form.required("refresh_token")?).ok_or(OAuthError::InvalidGrant)?;
    Ok(app.refresh(&token, client.id.as_str(), form.value("scope"), actor).await?)
}

/// `POST /oauth2/revoke`
pub(crate) async fn revoke(
    State(app): State<Arc<App>>,
    Extension(OAuthCall { caller, actor, form }): Extension<OAuthCall>,
) -> Result<Response, OAuthError> {
    let token = form.required("token")?;
    // RFC 7009 section 2.2: a token that is not valid, or not ours, needs no revoking, and nobody learns which.
    if let Some(refresh) = RefreshToken::parse(token) {
        revoke_refresh(&app, &caller, &refresh, &actor).await?;
    } else if let Some(OwnToken { claims, index }) = app.own_token(token) {
        if !may_revoke(&caller, claims.client.as_ref().map_or("", |id| id.as_str())) {
            return Err(OAuthError::InvalidGrant);
        }
        let order = RevocationOrder::Index(index);
        app.feed.revoke(&order, None, actor.as_str()).await.map_err(Refusal::from)?;
        let event = actor.event(Action::Revocation, claims.subject.as_str()).saying("token");
        app.audit(event).await.map_err(Refusal::from)?;
    }
    Ok((StatusCode::OK, [NO_STORE, (header::PRAGMA, "no-cache")]).into_response())
}

/// Revokes a refresh token: its session ends, and what was issued in it is cut off (RFC 7009 section 2.1).
async fn revoke_refresh(
    app: &App,
    caller: &Caller,
    token: &RefreshToken,
    actor: &Actor,
) -> Result<(), OAuthError> {
    let known = app.store.refresh_token(token.slot(), token.digest()).await.map_err(Refusal::from)?;
    let Some(KnownRefresh { session, .. }) = known else { return Ok(()) };
    if !may_revoke(caller, &session.client) {
        return Err(OAuthError::InvalidGrant);
    }
    let ended = app.end_session(&session.user_id, &session.id, EndReason::Logout, actor).await;
    Ok(ended.map_err(Refusal::from)?)
}

fn may_revoke(caller: &Caller, client: &str) -> bool {
    match caller {
        Caller::Operator => true,
        Caller::Client(caller) => caller.id.as_str() == client,
    }
}

/// `POST /oauth2/introspect`
pub(crate) async fn introspect(
    State(app): State<Arc<App>>,
    Extension(OAuthCall { caller, form, .. }): Extension<OAuthCall>,
) -> Result<Introspection, OAuthError> {
    // RFC 7662 section 2.1: who asks has to prove who it is, or anybody could try tokens here.
    if let Caller::Client(client) = &caller
        && !client.auth.is_confidential()
    {
        return Err(OAuthError::UnauthorizedClient);
    }
    let token = form.required("token")?;
    let found = match RefreshToken::parse(token) {
        Some(refresh) => active_refresh(&app, &refresh).await?,
        None => active_access(&app, token).await?,
    };
    // Whoever may not know is told what is told of a token that there is not (RFC 7662 section 2.2).
    let may_know = |token: &ActiveToken| match &caller {
        Caller::Operator => true,
        Caller::Client(client) => {
            client.may_introspect || token.client.as_deref() == Some(client.id.as_str())
        }
    };
    Ok(match found.filter(may_know) {
        Some(token) => Introspection::Active(Box::new(token)),
        None => Introspection::Inactive,
    })
}

async fn active_access(app: &App, token: &str) -> Result<Option<ActiveToken>, OAuthError> {
    let Some(OwnToken { claims, .. }) = app.live_token(token).await.map_err(Refusal::from)? else {
        return Ok(None);
    };
    let user = match claims.session {
        Some(_) => app.store.user(claims.subject.as_str()).await.map_err(Refusal::from)?,
        None => None,
    };
    Ok(Some(ActiveToken::of_claims(&claims, user.map(|user| user.user.username))))
}

async fn active_refresh(app: &App, token: &RefreshToken) -> Result<Option<ActiveToken>, OAuthError> {
    let Some(live) = app.live_refresh(token).await.map_err(Refusal::from)? else { return Ok(None) };
    let KnownRefresh { session, user, .. } = live;
    let Some(user) = user.filter(|user| !user.user.disabled) else { return Ok(None) };
    Ok(Some(ActiveToken {
        kind: TokenKind::Refresh,
        scope: session.scope,
        client: Some(session.client),
        username: Some(user.user.username),
        subject: user.user.id,
        audiences: Vec::new(),
        issuer: app.settings.issuer.as_str().to_owned(),
        token_id: None,
        issued_at: Some(UnixSeconds(session.last_used_at.0)),
        not_before: None,
        expires_at: session.idle_until.min(session.expires_at),
        session: Some(session.id),
        tenant: user.user.tenant,
        plan: Some(user.user.plan),
        roles: user.user.roles,
    }))
}

impl From<SessionError> for OAuthError {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Refused(_) | SessionError::Reused { .. } => Self::InvalidGrant,
            SessionError::Disabled => Self::UnauthorizedClient,
            SessionError::Scope(error) => error.into(),
            SessionError::Store(error) => Refusal::from(error).into(),
            SessionError::Entropy(_) | SessionError::Issue(_) | SessionError::Derive => defect(&error).into(),
        }
    }
}
