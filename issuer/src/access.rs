//! Decides who may use a route: the check that every route gets from its [`Access`].
//!
//! *What comes in:* the `Authorization` header, chosen by anyone. *What goes out:* the caller, in the request's
//! extensions, or a refusal. *What an attacker gains if this is wrong:* whatever the route does.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tollgate_shared::id::EdgeId;
use tollgate_shared::token::RustCrypto;

use crate::admin::Actor;
use crate::app::App;
use crate::audit::{Action, AuditOutcome};
use crate::client::Client;
use crate::credential::{CredentialKind, Presented};
use crate::error::{Refusal, defect};
use crate::network::Peer;
use crate::oauth::assertion::UsedAssertion;
use crate::oauth::client_auth::{AssertionUse, PresentedClient, VerifiedClient};
use crate::oauth::error::OAuthError;
use crate::oauth::form::Form;
use crate::permission::{Permission, Permissions};
use crate::store::{EdgeSeen, StoreError, StoredCredential};
use crate::tokens::OwnToken;

/// Where people log in.
pub(crate) const LOGIN_PATH: &str = "/v1/login";
/// Where tokens are issued to clients.
pub(crate) const TOKEN_PATH: &str = "/oauth2/token";
/// Where tokens are asked about.
const INTROSPECTION_PATH: &str = "/oauth2/introspect";

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// Anybody.
    Public,
    /// Who has the credential of an operator who may do this.
    Operator(Permission),
    /// Who has an edge's credential.
    Edge,
    /// An OAuth client that authenticates in the way it is registered with, or who has an operator's credential.
    OAuthClient,
    /// A person, with an access token that is in force.
    User,
}

/// The operator who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    /// Who.
    pub name: String,
    /// From where.
    pub address: IpAddr,
    /// What the operator may do.
    pub permissions: Permissions,
}

impl Operator {
    /// As who acts.
    #[must_use]
    pub fn actor(&self) -> Actor {
        Actor::operator(&self.name, self.permissions.clone()).at(self.address)
    }
}

/// The edge that calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge(pub EdgeId);

/// The person who calls.
#[derive(Debug, Clone)]
pub struct Person {
    /// `sub`
    pub id: String,
    /// `sid`
    pub session: String,
    /// From where.
    pub address: IpAddr,
}

impl Person {
    /// As who acts.
    #[must_use]
    pub fn actor(&self) -> Actor {
        Actor::user(&self.id).at(self.address)
    }
}

/// Who calls an OAuth endpoint, and the form that came along.
#[derive(Debug, Clone)]
pub struct OAuthCall {
    /// Who.
    pub caller: Caller,
    /// As who acts.
    pub actor: Actor,
    /// The form.
    pub form: Form,
}

/// Who calls an OAuth endpoint.
#[derive(Debug, Clone)]
pub enum Caller {
    /// An operator: may do with any token what its holder may.
    Operator,
    /// A client that proved who it is, or that has nothing to prove.
    Client(Arc<Client>),
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
        Access::Operator(permission) => match operator(&app, Asked::of(&app, &request), permission).await {
            Ok(operator) => {
                request.extensions_mut().insert(operator);
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
        Access::OAuthClient => match oauth_client(&app, request).await {
            Ok(checked) => request = checked,
            Err(error) => return error.into_response(),
        },
        Access::User => match app.person(&Asked::of(&app, &request)).await {
            Ok(person) => {
                request.extensions_mut().insert(person);
            }
            Err(refusal) => return refusal.into_response(),
        },
    }
    to_the_end(request, next).await
}

/// What is asked for, from where, and with which headers.
struct Asked {
    headers: HeaderMap,
    route: String,
    address: IpAddr,
}

impl Asked {
    fn of(app: &App, request: &Request) -> Self {
        let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str).unwrap_or_default();
        let peer = request.extensions().get::<Peer>().copied().unwrap_or(Peer::NONE);
        let address = app.settings.trusted_proxies.client(peer, request.headers());
        Self { headers: request.headers().clone(), route: format!("{} {path}", request.method()), address }
    }
}

/// The operator who calls, if that operator may. That somebody may not is written down first.
async fn operator(app: &App, asked: Asked, permission: Permission) -> Result<Operator, Refusal> {
    let presented = app.presented(&asked.headers).await?;
    let (kind, StoredCredential { name, digest: _, permissions }) = presented;
    let address = asked.address;
    let (actor, refusal) = match kind {
        CredentialKind::Operator if permissions.allow(permission) => {
            return Ok(Operator { name, address, permissions });
        }
        CredentialKind::Operator => (Actor::operator(&name, permissions), Refusal::Permission),
        CredentialKind::Edge => (Actor::edge(&name), Refusal::CredentialKind),
    };
    let event = actor.at(address).event(Action::Access, &asked.route).ended(AuditOutcome::Refused);
    app.store.add_audit(&[event.saying(&format!("lacks {}", permission.name()))], &*app.host).await?;
    Err(refusal)
}

/// The answer. What changes something is carried out once it has begun, and written down, also when who asked for it is gone:
/// or whoever hangs up at the right moment would leave no trace.
async fn to_the_end(request: Request, next: Next) -> Response {
    if request.method() == Method::GET {
        return next.run(request).await;
    }
    match tokio::spawn(next.run(request)).await {
        Ok(response) => response,
        Err(error) => defect(&error).into_response(),
    }
}

async fn oauth_client(app: &App, request: Request) -> Result<Request, OAuthError> {
    let permission = match request.uri().path() {
        INTROSPECTION_PATH => Permission::UsersRead,
        _ => Permission::RevocationsWrite,
    };
    let asked = Asked::of(app, &request);
    let address = asked.address;
    let (parts, body) = request.into_parts();
    // A header that is there must be right: falling back to the form would hide a mistake.
    let operator = match bearer(&parts.headers) {
        Some(_) => Some(operator(app, asked, permission).await?),
        None => None,
    };
    let form = Form::read(&parts.headers, body).await?;
    let (caller, actor) = match operator {
        Some(operator) => (Caller::Operator, operator.actor()),
        None => {
            let client = app.oauth_client(&parts.headers, &form, parts.uri.path()).await?;
            let actor = Actor::client(client.id.as_str()).at(address);
            (Caller::Client(client), actor)
        }
    };
    let mut request = Request::from_parts(parts, axum::body::Body::empty());
    request.extensions_mut().insert(OAuthCall { caller, actor, form });
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
        let stored = match presented.kind {
            CredentialKind::Operator => self.store.credential(presented.kind, &presented.id).await?,
            CredentialKind::Edge => self.edge_credential(&presented.id).await?,
        };
        let in_force =
            stored.filter(|stored| stored.digest.matches(&presented.digest)).ok_or(Refusal::Credential)?;
        Ok((presented.kind, in_force))
    }

    async fn edge_credential(&self, id: &str) -> Result<Option<StoredCredential>, StoreError> {
        let (known, round) = self.edge_credentials.find(id, self.host.now().monotonic);
        if known.is_some() {
            return Ok(known);
        }
        let stored = self.store.credential(CredentialKind::Edge, id).await?;
        if let Some(stored) = &stored {
            self.edge_credentials.keep(id, stored, round);
        }
        Ok(stored)
    }

    /// Notices which edges' credentials other processes withdrew.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn look_at_credentials(&self) -> Result<(), StoreError> {
        let asked_at = self.host.now().monotonic;
        self.edge_credentials.seen(self.store.last_withdrawn().await?, asked_at);
        Ok(())
    }

    /// The client that a request to this path is of, once it proved that.
    pub(crate) async fn oauth_client(
        &self,
        headers: &HeaderMap,
        form: &Form,
        path: &str,
    ) -> Result<Arc<Client>, OAuthError> {
        let presented = PresentedClient::read(headers, form)?;
        let known = self.client_at(path, &presented).await.map_err(Refusal::from)?;
        let endpoint = format!("{}{path}", self.settings.issuer.as_str());
        let audiences = self.metadata.assertion_audiences(&endpoint);
        let verified = presented.verify(known.as_deref(), self.host.seconds(), &audiences, &RustCrypto);
        let client = match verified.inspect_err(|error| tracing::info!(fault = ?error.fault, "client"))? {
            VerifiedClient::Now(client) => client,
            VerifiedClient::OnceRecorded(unrecorded) => {
                let UsedAssertion { digest, until } = unrecorded.used();
                let first = self.store.use_assertion(digest, until).await.map_err(Refusal::from)?;
                unrecorded.recorded(if first { AssertionUse::First } else { AssertionUse::Repeated })?
            }
        };
        let client = client.client();
        // May be old by as much as a cache is: who issues something asks the database, with the cut-offs.
        if let Some(tenant) = &client.tenant
            && self.cached_tenant(tenant).await.map_err(Refusal::from)?.is_some_and(|tenant| tenant.disabled)
        {
            return Err(OAuthError::InvalidClient(presented.attempt()));
        }
        Ok(Arc::new(client.clone()))
    }

    /// What is known of a client that asks for something at this path. What is issued outlives a cache, so there the database
    /// is asked; only a client that has nothing to prove, and may have logins, is compared with it by the login itself.
    async fn client_at(
        &self,
        path: &str,
        presented: &PresentedClient,
    ) -> Result<Option<Arc<Client>>, StoreError> {
        let id = presented.id().as_str();
        match path {
            TOKEN_PATH => self.confirmed_client(id).await,
            LOGIN_PATH => {
                let is_enough = |client: &Arc<Client>| !client.auth.is_confidential() && client.has_logins();
                match self.cached_client(id).await?.filter(is_enough) {
                    Some(known) => Ok(Some(known)),
                    None => self.confirmed_client(id).await,
                }
            }
            _ => self.cached_client(id).await,
        }
    }

    /// The person whose access token a request carries.
    async fn person(&self, asked: &Asked) -> Result<Person, Refusal> {
        let token = bearer(&asked.headers).ok_or(Refusal::Credential)?;
        let OwnToken { claims, .. } = self.live_token(token).await?.ok_or(Refusal::Credential)?;
        // A client's own token is of nobody who could have sessions.
        let session = claims.session.as_ref().ok_or(Refusal::CredentialKind)?.to_string();
        Ok(Person { id: claims.subject.to_string(), session, address: asked.address })
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
