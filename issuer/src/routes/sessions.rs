//! `/v1/logout`, `/v1/logout-all`, `/v1/sessions`: what people do with their own sessions.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::{NO_STORE, written};
use crate::access::Person;
use crate::app::App;
use crate::error::Refusal;
use crate::store::{EndReason, SessionRecord};

/// A session of the caller.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OwnSession)]
pub(crate) struct OwnSessionAnswer {
    id: String,
    client_id: String,
    /// What the client called its device.
    #[schema(required)]
    device: Option<String>,
    scope: String,
    created_at: u64,
    last_used_at: u64,
    expires_at: u64,
    /// Whether it is the one that the request came in.
    current: bool,
}

/// The caller's sessions that are not over, the one that began last first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OwnSessions)]
pub(crate) struct OwnSessionsAnswer {
    sessions: Vec<OwnSessionAnswer>,
}

impl OwnSessionAnswer {
    fn of(session: SessionRecord, current: &str) -> Self {
        Self {
            current: session.id == current,
            id: session.id,
            client_id: session.client,
            device: session.device,
            scope: session.scope,
            created_at: session.began_at.0,
            last_used_at: session.last_used_at.0,
            expires_at: session.idle_until.min(session.expires_at).0,
        }
    }
}

/// `POST /v1/logout`: ends the session that the token is of.
pub(crate) async fn logout(
    State(app): State<Arc<App>>,
    Extension(person): Extension<Person>,
) -> Result<Response, Refusal> {
    app.end_session(&person.id, &person.session, EndReason::Logout, &person.actor()).await?;
    Ok(done())
}

/// `POST /v1/logout-all`: ends every session of the person.
pub(crate) async fn logout_all(
    State(app): State<Arc<App>>,
    Extension(person): Extension<Person>,
) -> Result<Response, Refusal> {
    app.end_sessions(&person.id, EndReason::Logout, &person.actor()).await?;
    Ok(done())
}

/// `GET /v1/sessions`: the person's sessions, the one that began last first.
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Extension(Person { id, session: current, .. }): Extension<Person>,
) -> Result<Response, Refusal> {
    let sessions = app.store.sessions_of(&id, app.host.seconds()).await?;
    let sessions = sessions.into_iter().map(|session| OwnSessionAnswer::of(session, &current)).collect();
    written(StatusCode::OK, &OwnSessionsAnswer { sessions })
}

/// `DELETE /v1/sessions/{id}`: ends one of the person's sessions.
pub(crate) async fn end(
    State(app): State<Arc<App>>,
    Extension(person): Extension<Person>,
    Path(session): Path<String>,
) -> Result<Response, Refusal> {
    // No database takes it, and no session is called so.
    if session.contains('\0') {
        return Err(Refusal::NotFound);
    }
    app.end_session(&person.id, &session, EndReason::Ended, &person.actor()).await?;
    Ok(done())
}

fn done() -> Response {
    (StatusCode::NO_CONTENT, [NO_STORE]).into_response()
}
