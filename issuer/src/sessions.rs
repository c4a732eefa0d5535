//! Decides what a session gives: an access token for a while, and a refresh token to ask for the next one.

use base64ct::{Base64UrlUnpadded, Encoding};
use sha2::{Digest, Sha256};
use tollgate_shared::revocation::list_uri;
use tollgate_shared::time::UnixSeconds;
use tollgate_shared::token::{AccessToken, IssueError, IssuedStatus};
use zeroize::Zeroizing;

use crate::admin::Actor;
use crate::app::App;
use crate::audit::{Action, AuditEvent, AuditOutcome};
use crate::client::{Client, Grant};
use crate::clock::{EntropyError, random, random_below};
use crate::credential::new_id;
use crate::oauth::scope::{ScopeError, Scopes};
use crate::oauth::token_response::TokenResponse;
use crate::refresh::RefreshToken;
use crate::session::{Attempt, RefreshRefusal, Verdict, judge};
use crate::status::TakenIndex;
use crate::store::{
    CutOff, CutOffKeys, EndReason, Exchange, KnownRefresh, NewSession, Presented, Rotation, StartedSession,
    StoreError, TokenLife, User, UserRecord, slot_of,
};

/// How often a token is made again because the user was changed meanwhile.
pub(crate) const TRIES_MAX: usize = 4;
/// The start of what a device is known by.
pub(crate) const DEVICE_PREFIX: &str = "tgd_";

/// A session that is wanted, of a user who proved to be one.
#[derive(Debug)]
pub struct SessionStart<'s> {
    /// Who.
    pub user: &'s User,
    /// When the password was changed last, as of when it was checked.
    pub password_changed_at: UnixSeconds,
    /// The version of the user that the scope is of.
    pub version: u64,
    /// To which client the tokens go.
    pub client: &'s Client,
    /// What the client calls its device.
    pub device: Option<&'s str>,
    /// What the device is known by, if it is known; it gets something to be known by otherwise.
    pub device_token: Option<Zeroizing<String>>,
    /// What the tokens shall be good for.
    pub scope: Scopes,
    /// From where the user logged in.
    pub address: Option<std::net::IpAddr>,
    /// What is cut off for it.
    pub reading: CutOffReading,
    /// What the audit log says of it.
    pub event: Option<AuditEvent>,
}

/// What was cut off, and an instant before that was read: a token that is dated so is covered by what is cut off later.
#[derive(Debug, Clone, Copy)]
pub struct CutOffReading {
    /// The instant.
    pub asked_at: UnixSeconds,
    /// What was cut off.
    pub cut_off: CutOff,
}

/// Why there are no tokens.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The refresh token is worth nothing.
    #[error("refresh token refused")]
    Refused(RefreshRefusal),
    /// The refresh token had been used; its session is over.
    #[error("refresh token was used before")]
    Reused {
        /// Whose it was.
        user_id: String,
        /// The session that was ended.
        session: String,
    },
    /// The client or its tenant was disabled in the meantime.
    #[error("client or tenant is disabled")]
    Disabled,
    /// The scope cannot be had, or is none.
    #[error(transparent)]
    Scope(#[from] ScopeError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No random bytes.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// The token could not be written.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// The child of a refresh token could not be derived.
    #[error("refresh token could not be derived")]
    Derive,
}

/// What an access token says, apart from its dates.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TokenFacts<'t> {
    pub(crate) subject: &'t str,
    pub(crate) client: &'t str,
    pub(crate) scope: &'t str,
    pub(crate) roles: &'t [String],
    pub(crate) tenant: Option<&'t str>,
    pub(crate) plan: &'t str,
    pub(crate) session: Option<&'t str>,
}

impl App {
    /// Everything the user may ask for: the own scopes and what the roles permit.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn scopes_of(&self, user: &User) -> Result<Vec<String>, StoreError> {
        self.held_scopes(&user.scopes, &user.roles).await
    }

    /// What somebody with these scopes and roles may ask for: each of the scopes, and what the roles permit besides.
    pub(crate) async fn held_scopes(
        &self,
        scopes: &[String],
        roles: &[String],
    ) -> Result<Vec<String>, StoreError> {
        let mut held = scopes.to_vec();
        let permitted = self.role_permissions(roles).await?;
        held.extend(permitted.into_iter().filter(|scope| !scopes.contains(scope)));
        Ok(held)
    }

    /// Starts a session; `None` when the user, tenant or client was disabled or removed, or the password changed, in the
    /// meantime. The second text is what the device is known by from now on. A client that may not refresh gets nothing to
    /// refresh with.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub async fn start_session(
        &self,
        start: SessionStart<'_>,
    ) -> Result<Option<(TokenResponse, Zeroizing<String>)>, SessionError> {
        let SessionStart { user, password_changed_at, version, client, device, device_token, scope, .. } =
            start;
        let (CutOffReading { asked_at, cut_off }, address) = (start.reading, start.address);
        let address = address.map(|address| address.to_string());
        let id = new_id("s_", &*self.host)?;
        let refresh = RefreshToken::generate(slot_of(&user.id), &*self.host)?;
        let refresh = client.grants.has(Grant::RefreshToken).then_some(refresh);
        let nonce = random::<16>(&*self.host)?;
        let device_token = match device_token {
            Some(known) => known,
            None => new_device_token(self)?,
        };
        let (client, granted) = (client.id.as_str(), scope.to_string());
        let TakenIndex { index, expires_at_max } = self.indices.next().await?;
        let session = NewSession {
            id: &id,
            user_id: &user.id,
            password_changed_at,
            version: Some(version),
            tenant: user.tenant.as_deref(),
            client,
            device,
            scope: &granted,
            issuer: self.settings.issuer.as_str(),
            life: TokenLife { seconds: self.lifetime_seconds()?, expires_at_max },
            idle_seconds: self.settings.session.idle_seconds,
            lasts_seconds: self.settings.session.lasts_seconds,
            refresh: refresh.as_ref().map(|refresh| (refresh.digest(), nonce)),
            address: address.as_deref(),
            remember_device: Some(device_digest(&device_token)),
            cut_off,
            asked_at,
            event: start.event.as_ref(),
        };
        let started = self.store.start_session(&session, &*self.host).await?;
        let Some((dates, wished)) = started else { return Ok(None) };
        if let Err(error) = self.feed.publish(&wished).await {
            // The login stands, and ended what gave way: that waits in the outbox.
            tracing::warn!(%error, "a session that gave way is published later");
        }
        let facts = TokenFacts {
            subject: &user.id,
            client,
            scope: &granted,
            roles: &user.roles,
            tenant: user.tenant.as_deref(),
            plan: &user.plan,
            session: Some(&id),
        };
        let access_token = self.access_token(facts, dates, TakenIndex { index, expires_at_max })?;
        let refresh_token = refresh.as_ref().map(RefreshToken::reveal);
        let tokens = TokenResponse { access_token, expires_in: lives_for(dates), scope, refresh_token };
        Ok(Some((tokens, device_token)))
    }

    /// Exchanges a refresh token, for the client that was authenticated, which is the actor. `scope` narrows what the access
    /// token is good for.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub async fn refresh(
        &self,
        token: &RefreshToken,
        client: &str,
        scope: Option<&str>,
        actor: &Actor,
    ) -> Result<TokenResponse, SessionError> {
        // A right that is given or taken at this very moment has the token made again.
        for _ in 0..TRIES_MAX {
            match self.refresh_once(token, client, scope, actor).await {
                Err(SessionError::Store(StoreError::Changed)) => {}
                result => return result,
            }
        }
        Err(SessionError::Store(StoreError::Contended))
    }

    async fn refresh_once(
        &self,
        token: &RefreshToken,
        client: &str,
        scope: Option<&str>,
        actor: &Actor,
    ) -> Result<TokenResponse, SessionError> {
        let unknown = SessionError::Refused(RefreshRefusal::Unknown);
        // What can be refused without a change is refused first: it costs no index and no lock.
        let KnownRefresh { session, leaf, user } =
            self.store.refresh_token(token.slot(), token.digest()).await?.ok_or(unknown)?;
        if session.client != client {
            return Err(SessionError::Refused(RefreshRefusal::OtherClient));
        }
        let UserRecord { user, version, .. } = user.ok_or(SessionError::Refused(RefreshRefusal::User))?;
        let keys = CutOffKeys {
            subject: &user.id,
            client,
            tenant: user.tenant.as_deref(),
            issuer: self.settings.issuer.as_str(),
            session: Some(&session.id),
        };
        let CutOffReading { asked_at, cut_off } = self.read_cut_off(keys).await?;
        if cut_off.is_disabled {
            return Err(SessionError::Refused(RefreshRefusal::User));
        }
        // After the cut-offs: a role that permits less from now on comes with a cut-off that covers this token.
        let scope = self.narrowed(scope, &session.scope, &user).await?;
        let grace_ms = self.settings.session.grace_seconds * 1000;
        let (began_before, now) = (cut_off.began_before, self.host.now().wall);
        let attempt = Attempt { client, began_before, grace_ms, now };
        if let Verdict::Refuse(refusal) = judge(&session.family(), leaf, attempt) {
            return Err(SessionError::Refused(refusal));
        }
        let taken = self.indices.next().await?;
        let exchange = Exchange {
            grace_ms,
            idle_seconds: self.settings.session.idle_seconds,
            life: TokenLife { seconds: self.lifetime_seconds()?, expires_at_max: taken.expires_at_max },
            cut_off,
            asked_at,
            version: Some(version),
            nonce: random::<16>(&*self.host)?,
        };
        let presented = Presented { user_id: &user.id, digest: token.digest(), client };
        let key = self.keys.refresh_key();
        let derive =
            |nonce: &[u8; 16]| token.child(key, nonce).map(|child| child.digest()).unwrap_or_default();
        match self.store.rotate(presented, exchange, derive, &*self.host).await? {
            Rotation::Child { session, nonce, dates } => {
                let child = token.child(key, &nonce).ok_or(SessionError::Derive)?;
                let facts = TokenFacts {
                    subject: &user.id,
                    client,
                    scope: &scope.to_string(),
                    roles: &user.roles,
                    tenant: user.tenant.as_deref(),
                    plan: &user.plan,
                    session: Some(&session.id),
                };
                let access_token = self.access_token(facts, dates, taken)?;
                let refresh_token = Some(child.reveal());
                Ok(TokenResponse { access_token, expires_in: lives_for(dates), scope, refresh_token })
            }
            Rotation::Reused { session, wished } => {
                self.feed.publish(&wished).await?;
                let event = actor.event(Action::RefreshReuse, &session.user_id);
                self.audit(event.ended(AuditOutcome::Refused).saying(&session.id)).await?;
                Err(SessionError::Reused { user_id: session.user_id, session: session.id })
            }
            Rotation::Refused(refusal) => Err(SessionError::Refused(refusal)),
        }
    }

    /// What an access token of a session is good for: what is asked, of what the session has and the user still may.
    async fn narrowed(
        &self,
        asked: Option<&str>,
        session_scope: &str,
        user: &User,
    ) -> Result<Scopes, SessionError> {
        let asked = Scopes::parse(session_scope)?.narrowed(asked)?;
        Ok(asked.still_held(&self.scopes_of(user).await?))
    }

    /// A refresh token that would be exchanged now, with its session.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn live_refresh(&self, token: &RefreshToken) -> Result<Option<KnownRefresh>, StoreError> {
        let Some(known) = self.store.refresh_token(token.slot(), token.digest()).await? else {
            return Ok(None);
        };
        let KnownRefresh { session, leaf, user } = &known;
        let keys = CutOffKeys {
            subject: &session.user_id,
            client: &session.client,
            tenant: user.as_ref().and_then(|user| user.user.tenant.as_deref()),
            issuer: self.settings.issuer.as_str(),
            session: Some(&session.id),
        };
        let CutOff { began_before, is_disabled, .. } = self.store.cut_off(keys).await?;
        let now = self.host.now().wall;
        let attempt = Attempt { client: &session.client, began_before, grace_ms: 0, now };
        // One that was exchanged is over, also while its grace lasts.
        let live = !is_disabled
            && leaf.rotated_at.is_none()
            && judge(&session.family(), *leaf, attempt) == Verdict::Rotate;
        Ok(live.then_some(known))
    }

    /// Ends a session of a user; when this returns, that is published.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the user has no such session.
    pub async fn end_session(
        &self,
        user_id: &str,
        session: &str,
        reason: EndReason,
        actor: &Actor,
    ) -> Result<(), StoreError> {
        let (who, host) = (actor.as_str(), &*self.host);
        let wished = self.store.end_session(user_id, session, reason, who, host).await?;
        self.feed.publish(&wished).await?;
        let action = if reason == EndReason::Logout { Action::Logout } else { Action::SessionEnd };
        self.audit(actor.event(action, user_id).saying(session)).await
    }

    /// Ends every session of a user; when this returns, that is published.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn end_sessions(
        &self,
        user_id: &str,
        reason: EndReason,
        actor: &Actor,
    ) -> Result<(), StoreError> {
        let wished = self.store.end_sessions(user_id, reason, actor.as_str(), &*self.host).await?;
        self.feed.publish(&wished).await?;
        let action = if reason == EndReason::Logout { Action::Logout } else { Action::SessionEnd };
        self.audit(actor.event(action, user_id).saying("all")).await
    }

    /// What is cut off for whoever these are.
    pub(crate) async fn read_cut_off(&self, keys: CutOffKeys<'_>) -> Result<CutOffReading, StoreError> {
        let asked_at = self.host.seconds();
        Ok(CutOffReading { asked_at, cut_off: self.store.cut_off(keys).await? })
    }

    /// Writes to the audit log.
    ///
    /// # Errors
    /// [`StoreError`]; what was to be recorded must not be acknowledged then.
    pub async fn audit(&self, event: AuditEvent) -> Result<(), StoreError> {
        self.store.add_audit(&[event], &*self.host).await
    }

    pub(crate) fn access_token(
        &self,
        facts: TokenFacts<'_>,
        dates: StartedSession,
        taken: TakenIndex,
    ) -> Result<String, SessionError> {
        let StartedSession { issued_at, expires_at } = dates;
        let issuer = self.settings.issuer.as_str();
        let (list, bit) = taken.index.list_and_bit();
        let uri = list_uri(issuer, list);
        let token_id = Base64UrlUnpadded::encode_string(&random::<16>(&*self.host)?);
        let TokenFacts { subject, client, scope, roles, tenant, plan, session } = facts;
        let token = AccessToken {
            issuer,
            subject,
            audience: &self.settings.audience,
            client,
            token_id: &token_id,
            issued_at,
            expires_at,
            scope,
            roles,
            tenant,
            plan,
            session,
            status: IssuedStatus::new(bit, &uri),
        };
        Ok(self.keys.signing.sign(&token)?)
    }

    /// A life, shortened at random so that tokens of one moment do not all end in one.
    pub(crate) fn lifetime_seconds(&self) -> Result<u64, EntropyError> {
        let whole = self.settings.token.lifetime_seconds;
        let jitter = whole * self.settings.token.jitter_percent / 100;
        Ok(whole - random_below(&*self.host, jitter + 1)?)
    }
}

/// How long a token lives, in seconds.
pub(crate) fn lives_for(dates: StartedSession) -> u64 {
    dates.expires_at.0.saturating_sub(dates.issued_at.0)
}

fn new_device_token(app: &App) -> Result<Zeroizing<String>, EntropyError> {
    let secret = Zeroizing::new(random::<32>(&*app.host)?);
    let secret = Zeroizing::new(Base64UrlUnpadded::encode_string(secret.as_slice()));
    Ok(Zeroizing::new([DEVICE_PREFIX, secret.as_str()].concat()))
}

/// What is kept of what a device is known by.
pub(crate) fn device_digest(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}
