//! Decides who may use a route: the check that every route gets from its [`Access`].
//!
//! *What comes in:* the `Authorization` header, chosen by anyone. *What goes out:* the caller, in the request's
//! extensions, or a refusal. *What an attacker gains if this is wrong:* whatever the route does.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tollgate_shared::id::EdgeId;

use crate::admin::Actor;
use crate::app::App;
use crate::audit::{Action, AuditEvent, AuditOutcome};
use crate::credential::{CredentialKind, Presented};
use crate::error::{Refusal, defect};
use crate::oauth::error::{Attempt, OAuthError};
use crate::oauth::form::Form;
use crate::permission::Permission;
use crate::store::{EdgeSeen, StoredCredential};

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// Anybody.
    Public,
    /// Who has the credential of an operator who may do this.
    Operator(Permission),
    /// Who has an edge's credential.
    Edge,
    /// Who has an operator's credential, or holds the token that the form is about and names its client.
    TokenHolder,
}

/// The operator who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator(pub String);

impl Operator {
    /// As who acts.
    #[must_use]
    pub fn actor(&self) -> Actor {
        Actor::operator(&self.0)
    }
}

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
        Access::Operator(permission) => match operator(&app, Asked::of(&request), permission).await {
            Ok(operator) => {
                request.extensions_mut().insert(operator);
                return to_the_end(request, next).await;
            }
            Err(refusal) => return refusal.into_response(),
        },
        Access::Edge => match app.caller(request.headers(), CredentialKind::Edge).await {
            Ok(edge) => match EdgeId::new(&edge.name) {
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

/// What is asked for, and with which headers.
struct Asked {
    headers: HeaderMap,
    route: String,
}

impl Asked {
    fn of(request: &Request) -> Self {
        let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str).unwrap_or_default();
        Self { headers: request.headers().clone(), route: format!("{} {path}", request.method()) }
    }
}

/// The operator who calls, if that operator may. That somebody may not is written down first.
async fn operator(app: &App, asked: Asked, permission: Permission) -> Result<Operator, Refusal> {
    let presented = app.presented(&asked.headers).await?;
    let (kind, StoredCredential { name, digest: _, permissions }) = presented;
    let (actor, refusal) = match kind {
        CredentialKind::Operator if permissions.allow(permission) => return Ok(Operator(name)),
        CredentialKind::Operator => (format!("operator {name}"), Refusal::Permission),
        CredentialKind::Edge => (format!("edge {name}"), Refusal::CredentialKind),
    };
    let event = AuditEvent::done(&actor, Action::Access, &asked.route).ended(AuditOutcome::Refused);
    app.store.add_audit(&[event.saying(&format!("lacks {}", permission.name()))], &*app.host).await?;
    Err(refusal)
}

/// The answer to what an operator orders. Once begun it is carried out, and written down, also when the operator is gone.
async fn to_the_end(request: Request, next: Next) -> Response {
    if request.method() == Method::GET {
        return next.run(request).await;
    }
    match tokio::spawn(next.run(request)).await {
        Ok(response) => response,
        Err(error) => defect(&error).into_response(),
    }
}

async fn token_holder(app: &App, request: Request) -> Result<Request, OAuthError> {
    // A header that is there must be right: falling back to the form would hide a mistake.
    let operator = if request.headers().contains_key(header::AUTHORIZATION) {
        Some(operator(app, Asked::of(&request), Permission::RevocationsWrite).await?.0)
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
    /// The credential of whoever presents a credential of this kind.
    async fn caller(&self, headers: &HeaderMap, kind: CredentialKind) -> Result<StoredCredential, Refusal> {
        let (presented, stored) = self.presented(headers).await?;
        // Only who has a credential learns that it is the wrong one.
        if presented == kind { Ok(stored) } else { Err(Refusal::CredentialKind) }
    }

    /// The credential in force that a request carries.
    async fn presented(&self, headers: &HeaderMap) -> Result<(CredentialKind, StoredCredential), Refusal> {
        let presented = bearer(headers).and_then(Presented::parse).ok_or(Refusal::Credential)?;
        let stored = self.store.credential(presented.kind, &presented.id).await?;
        let in_force =
            stored.filter(|stored| stored.digest.matches(&presented.digest)).ok_or(Refusal::Credential)?;
        Ok((presented.kind, in_force))
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
