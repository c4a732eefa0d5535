//! Decides who may use a route: the check that every route gets from its [`Access`].
//!
//! *What comes in:* the `Authorization` header, chosen by anyone. *What goes out:* the caller, in the request's
//! extensions, or a refusal. *What an attacker gains if this is wrong:* whatever the route does.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tollgate_shared::id::EdgeId;

use crate::app::App;
use crate::credential::{CredentialKind, Presented};
use crate::error::Refusal;
use crate::oauth::error::{Attempt, OAuthError};
use crate::oauth::form::Form;
use crate::store::EdgeSeen;

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// Anybody.
    Public,
    /// Who has an operator's credential.
    Operator,
    /// Who has an edge's credential.
    Edge,
    /// Who has an operator's credential, or holds the token that the form is about and names its client.
    TokenHolder,
}

/// The operator who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator(pub String);

/// The edge that calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge(pub EdgeId);

/// Who wants a token revoked, and the form that says which.
#[derive(Debug, Clone)]
pub struct TokenForm {
    /// On whose behalf.
    pub holder: Holder,
    /// The form.
    pub form: Form,
}

/// On whose behalf a token is revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// An operator: any token.
    Operator(String),
    /// A public client: a token of its own.
    Client(String),
}

/// What the check of a route needs.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    pub(crate) app: Arc<App>,
    pub(crate) access: Access,
}

/// Lets a request through to its route, with the caller in its extensions, or refuses it.
pub(crate) async fn check(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    let Gate { app, access } = gate;
    match access {
        Access::Public => {}
        Access::Operator => match app.caller(request.headers(), CredentialKind::Operator).await {
            Ok(name) => {
                request.extensions_mut().insert(Operator(name));
            }
            Err(refusal) => return refusal.into_response(),
        },
        Access::Edge => match app.caller(request.headers(), CredentialKind::Edge).await {
            Ok(name) => match EdgeId::new(&name) {
                Some(edge) => {
                    request.extensions_mut().insert(Edge(edge));
                }
                None => return Refusal::Internal.into_response(),
            },
            Err(refusal) => return refusal.into_response(),
        },
        Access::TokenHolder => match token_holder(&app, request).await {
            Ok(checked) => request = checked,
            Err(error) => return error.into_response(),
        },
    }
    next.run(request).await
}

async fn token_holder(app: &App, request: Request) -> Result<Request, OAuthError> {
    // A header that is there must be right: falling back to the form would hide a mistake.
    let operator = if request.headers().contains_key(header::AUTHORIZATION) {
        Some(app.caller(request.headers(), CredentialKind::Operator).await?)
    } else {
        None
    };
    let (parts, body) = request.into_parts();
    let form = Form::read(&parts.headers, body).await?;
    let holder = match (operator, form.value("client_id")) {
        (Some(name), _) => Holder::Operator(name),
        (None, Some(client)) => Holder::Client(client.to_owned()),
        (None, None) => return Err(OAuthError::InvalidClient(Attempt::Nothing)),
    };
    let mut request = Request::from_parts(parts, axum::body::Body::empty());
    request.extensions_mut().insert(TokenForm { holder, form });
    Ok(request)
}

impl App {
    /// The name of whoever presents a credential of this kind.
    async fn caller(&self, headers: &HeaderMap, kind: CredentialKind) -> Result<String, Refusal> {
        let presented = bearer(headers).and_then(Presented::parse).ok_or(Refusal::Credential)?;
        let stored = self.store.credential(presented.kind, &presented.id).await?;
        let in_force =
            stored.filter(|stored| stored.digest.matches(&presented.digest)).ok_or(Refusal::Credential)?;
        // Only who has a credential learns that it is the wrong one.
        if presented.kind == kind { Ok(in_force.name) } else { Err(Refusal::CredentialKind) }
    }

    /// Remembers that an edge was here, and what it had.
    pub(crate) fn edge_seen(&self, edge: &EdgeId, seen: EdgeSeen) {
        if let Ok(mut edges) = self.edges_seen.lock() {
            edges.insert(edge.as_str().to_owned(), seen);
        }
    }
}

/// The one bearer credential of a request (RFC 6750 section 2.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    let (scheme, credential) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(credential)
}
