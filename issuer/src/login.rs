//! Decides what a login is worth: a session for who knows the password, and the same answer for everybody else.
//!
//! *What comes in:* a name and a password chosen by anyone, from an address. *What goes out:* tokens, or one refusal. *What an
//! attacker gains if this is wrong:* accounts, a list of who has one, or the means to lock others out.
//!
//! Unknown, wrong, locked and disabled take the same steps: the same look-ups, one hash, the same counters, one line in the
//! audit log. Whether a right password would be of any use is decided before it is hashed, so that whoever guesses at a
//! locked or disabled account learns nothing from a right guess. Only who is let in sees anything else.

use std::net::IpAddr;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::app::App;
use crate::audit::{Action, AuditEvent, AuditOutcome};
use crate::client::Client;
use crate::clock::EntropyError;
use crate::oauth::scope::{ScopeError, Scopes};
use crate::oauth::token_response::TokenResponse;
use crate::password::{Password, PasswordError, Rehash, Standing, StoredHash, Verdict};
use crate::sessions::{CutOffReading, SessionError, SessionStart, TRIES_MAX, device_digest};
use crate::store::{CutOffKeys, StoreError, User, UserRecord, decoy_id};
use crate::throttle::{Admission, Alarm, Outcome, TooMany};

/// What a login asks for, checked for length.
#[derive(Debug)]
pub struct LoginRequest<'r> {
    /// From where.
    pub address: IpAddr,
    /// Who.
    pub username: String,
    /// The proof.
    pub password: Password,
    /// To which client the token goes. It has proved who it is, if it can.
    pub client: &'r Client,
    /// What the token shall be good for; everything the user may when `None`.
    pub scope: Option<String>,
    /// What the client calls its device.
    pub device: Option<String>,
    /// What the device was told at an earlier login.
    pub device_token: Option<Zeroizing<String>>,
}

/// The tokens of a session that just began, and whom they are for.
pub struct Login {
    /// The tokens.
    pub tokens: TokenResponse,
    /// What the device is known by from now on.
    pub device_token: Zeroizing<String>,
    /// Whom the tokens speak for.
    pub user: User,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Login").field("user", &self.user.id).finish_non_exhaustive()
    }
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The user is unknown, disabled or locked, or the password is wrong.
    #[error("username or password is wrong")]
    Refused,
    /// There were too many attempts from there, or in all.
    #[error("too many attempts")]
    TooMany(TooMany),
    /// People cannot log in to this client.
    #[error("client has no logins")]
    Client,
    /// The user may not have one of the scopes.
    #[error(transparent)]
    Scope(#[from] ScopeError),
    /// The password could not be checked.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No random bytes.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// The session could not be started.
    #[error(transparent)]
    Session(#[from] SessionError),
}

impl App {
    /// Logs a user in: checks the password, starts a session and issues its tokens.
    ///
    /// # Errors
    /// See [`LoginError`].
    pub async fn log_in(&self, request: LoginRequest<'_>) -> Result<Login, LoginError> {
        if !request.client.has_logins() {
            return Err(LoginError::Client);
        }
        let approach = self.throttle.approach(request.address, &request.username).await;
        let approach = approach.map_err(LoginError::TooMany)?;
        let found = self.store.user_named(&request.username).await?;
        let id = found.as_ref().map_or_else(|| decoy_id(&request.username), |found| found.user.id.clone());
        let mut request = request;
        let mut device = None;
        if let Some(token) = request.device_token.take() {
            let digest = device_digest(&token);
            if self.store.knows_device(&id, digest).await? {
                request.device_token = Some(token);
                device = Some(digest);
            }
        }
        let (pass, standing) =
            match self.throttle.admit(approach, device.as_ref().map(<[u8; 32]>::as_slice)).await {
                Admission::Proceed(pass) => (pass, Standing::Open),
                Admission::Locked(pass) => (pass, Standing::Refused),
                Admission::TooMany(refused) => return Err(LoginError::TooMany(refused)),
            };
        // A name that nobody has may be a password that was typed one field too early, and the audit log forgets nothing.
        let target = found.as_ref().map(|found| found.user.username.clone());
        let address = request.address;
        let result = self.checked(request, found, standing).await;
        let outcome = match &result {
            // The password was right, whatever else was asked for wrongly.
            Ok(_) | Err(LoginError::Scope(_)) => Outcome::Succeeded,
            Err(LoginError::Refused) => Outcome::Failed,
            Err(
                LoginError::TooMany(_)
                | LoginError::Client
                | LoginError::Password(_)
                | LoginError::Store(_)
                | LoginError::Entropy(_)
                | LoginError::Session(_),
            ) => Outcome::Abandoned,
        };
        let alarms = self.throttle.note(pass, outcome).await;
        self.record(target.as_deref(), address, &result, &alarms).await?;
        result
    }

    /// Everything from the password on.
    async fn checked(
        &self,
        request: LoginRequest<'_>,
        found: Option<UserRecord>,
        standing: Standing,
    ) -> Result<Login, LoginError> {
        let LoginRequest { username, password, client, scope, device, device_token, address } = request;
        // Read for whoever it is, and before the hash, so that the time tells nothing of either.
        let mut reading = self.cut_off_of(found.as_ref(), &username, client).await?;
        let fresh = self.fresher(client, reading.cut_off.client_version).await?;
        let client = fresh.as_deref().unwrap_or(client);
        let user_disabled = found.as_ref().is_none_or(|found| found.user.disabled);
        let refused = reading.cut_off.is_disabled || user_disabled;
        let standing = if refused { Standing::Refused } else { standing };
        let stored = found.as_ref().and_then(|found| {
            let parsed = StoredHash::parse(&found.password_hash);
            // Whoever's it is gets the answer of a user that does not exist, after the same work.
            parsed.inspect_err(|error| tracing::error!(%error, "a stored password hash")).ok()
        });
        let verified = self.passwords.verify(&password, stored, standing).await?;
        let found = found.filter(|_| verified.right == Verdict::Right).ok_or(LoginError::Refused)?;
        if verified.needs_rehash == Rehash::Needed {
            self.rehash(&found, &password).await?;
        }
        let password_changed_at = found.password_changed_at;
        let mut known = found;
        for _ in 0..TRIES_MAX {
            let UserRecord { user, version, .. } = known;
            let scope = Scopes::granted(scope.as_deref(), &self.scopes_of(&user).await?)?;
            let start = SessionStart {
                user: &user,
                password_changed_at,
                version,
                client,
                device: device.as_deref(),
                device_token: device_token.clone(),
                scope,
                address: Some(address),
                reading,
                event: Some(event_of(Some(&user.username), Some(&user.id), address)),
            };
            match self.start_session(start).await {
                // A right that is given or taken at this very moment has the tokens made again.
                Err(SessionError::Store(StoreError::Changed)) => {}
                started => {
                    let (tokens, device_token) = started?.ok_or(LoginError::Refused)?;
                    return Ok(Login { tokens, device_token, user });
                }
            }
            known = self.store.user(&user.id).await?.ok_or(LoginError::Refused)?;
            reading = self.cut_off_of(Some(&known), &username, client).await?;
        }
        Err(LoginError::Store(StoreError::Contended))
    }

    /// The client as the database has it, of this version, if what is known of it is older than that: it came from a cache
    /// when it had nothing to prove.
    async fn fresher(&self, known: &Client, version: Option<u64>) -> Result<Option<Arc<Client>>, LoginError> {
        if version == Some(known.version) {
            return Ok(None);
        }
        let fresh = self.confirmed_client(known.id.as_str()).await?;
        let is_as_proven = |client: &Arc<Client>| {
            client.auth.is_confidential() == known.auth.is_confidential() && client.has_logins()
        };
        fresh.filter(is_as_proven).map(Some).ok_or(LoginError::Client)
    }

    /// What is cut off for a user, or for nobody.
    async fn cut_off_of(
        &self,
        found: Option<&UserRecord>,
        username: &str,
        client: &Client,
    ) -> Result<CutOffReading, StoreError> {
        let decoy = decoy_id(username);
        let keys = CutOffKeys {
            subject: found.map_or(&decoy, |found| &found.user.id),
            client: client.id.as_str(),
            tenant: found.and_then(|found| found.user.tenant.as_deref()),
            issuer: self.settings.issuer.as_str(),
            session: None,
        };
        self.read_cut_off(keys).await
    }

    /// Hashes a password again that was right, by the parameters of now. One of all replicas does, once; for the others,
    /// and while there is more to hash than can be, the old hash is as good for now.
    async fn rehash(&self, found: &UserRecord, password: &Password) -> Result<(), LoginError> {
        let UserRecord { user, password_hash, .. } = found;
        if self.store.claim_rehash(&user.id, password_hash, self.host.seconds()).await? {
            let better = match self.passwords.rehash(password).await {
                Err(PasswordError::Busy) => return Ok(()),
                better => better?,
            };
            self.store.rehash(&user.id, password_hash, &better).await?;
            let event = AuditEvent::done("issuer", Action::PasswordRehash, &user.id);
            self.audit(event).await?;
        }
        Ok(())
    }

    /// Writes a login that was refused to the audit log, and what it brought to light. One that was not is there already,
    /// with its session.
    async fn record(
        &self,
        username: Option<&str>,
        address: IpAddr,
        result: &Result<Login, LoginError>,
        alarms: &[Alarm],
    ) -> Result<(), StoreError> {
        let mut events = match result {
            Ok(_) => Vec::new(),
            Err(LoginError::Refused | LoginError::Scope(_)) => {
                vec![event_of(username, None, address).ended(AuditOutcome::Refused)]
            }
            // Nobody was refused, and the store may be the reason.
            Err(_) => return Ok(()),
        };
        for alarm in alarms {
            let what = match alarm {
                Alarm::AddressSprays => "address",
                Alarm::NetworkSprays => "network",
                Alarm::UnderAttack => "everywhere",
            };
            let event = AuditEvent::done("issuer", Action::Spraying, what).from_address(Some(address));
            events.push(event);
        }
        if events.is_empty() { Ok(()) } else { self.store.add_audit(&events, &*self.host).await }
    }
}

/// What the audit log says of a login: as whom, by whom if that is known, from where.
fn event_of(username: Option<&str>, user_id: Option<&str>, address: IpAddr) -> AuditEvent {
    let actor = user_id.map_or_else(|| "anybody".to_owned(), |id| format!("user {id}"));
    let event = match username {
        Some(username) => AuditEvent::done(&actor, Action::Login, username),
        None => AuditEvent::done(&actor, Action::Login, "").saying("there is no such user"),
    };
    event.from_address(Some(address))
}
