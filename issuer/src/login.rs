//! Decides what a login is worth: a token for who knows the password, and the same answer for everybody else.

use base64ct::{Base64UrlUnpadded, Encoding};
use tollgate_shared::revocation::list_uri;
use tollgate_shared::token::{AccessToken, IssueError, IssuedStatus};

use crate::app::App;
use crate::clock::{EntropyError, random, random_below};
use crate::credential::new_id;
use crate::password::{Password, PasswordError};
use crate::status::TakenIndex;
use crate::store::{NewSession, StartedSession, StoreError, User};

/// What a login asks for, checked for length.
#[derive(Debug)]
pub struct LoginRequest {
    /// Who.
    pub username: String,
    /// The proof.
    pub password: Password,
    /// To which client the token goes.
    pub client: String,
    /// What the token shall be good for; everything the user may when `None`.
    pub scope: Option<String>,
    /// What the client calls its device.
    pub device: Option<String>,
}

/// A token and whom it is for.
pub struct Login {
    /// The token.
    pub access_token: String,
    /// How long it lives, in seconds.
    pub expires_in: u64,
    /// What it is good for.
    pub scope: String,
    /// Whom it speaks for.
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
    /// The user is unknown or disabled, or the password is wrong.
    #[error("username or password is wrong")]
    Refused,
    /// The user may not have one of the scopes.
    #[error("scope is not the user's")]
    Scope,
    /// The password could not be checked.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No random bytes.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// The token could not be written.
    #[error(transparent)]
    Issue(#[from] IssueError),
}

impl App {
    /// Logs a user in: checks the password, starts a session and issues a token.
    ///
    /// # Errors
    /// See [`LoginError`].
    pub async fn log_in(&self, request: LoginRequest) -> Result<Login, LoginError> {
        let LoginRequest { username, password, client, scope, device } = request;
        let (user, stored) = match self.store.user_named(&username).await? {
            Some(found) => (Some(found.user), Some(found.password_hash)),
            None => (None, None),
        };
        let right = self.passwords.verify(password, stored).await?;
        // Only now, after the same work for everybody.
        let user = user.filter(|user| right && !user.disabled).ok_or(LoginError::Refused)?;
        let scope = granted_scope(scope.as_deref(), &user.scopes)?;
        let id = new_id("s_", &*self.host)?;
        let TakenIndex { index, expires_at_max } = self.indices.next().await?;
        let session = NewSession {
            id: &id,
            user: &user,
            client: &client,
            device: device.as_deref(),
            scope: &scope,
            issuer: self.settings.issuer.as_str(),
            index,
            lifetime_seconds: self.lifetime_seconds()?,
            expires_at_max,
        };
        let started = self.store.start_session(&session, &*self.host).await?;
        let dates = started.ok_or(LoginError::Refused)?;
        let access_token = self.issue(&session, dates)?;
        let StartedSession { issued_at, expires_at } = dates;
        Ok(Login { access_token, expires_in: expires_at.0.saturating_sub(issued_at.0), scope, user })
    }

    fn issue(&self, session: &NewSession<'_>, dates: StartedSession) -> Result<String, LoginError> {
        let StartedSession { issued_at, expires_at } = dates;
        let (list, bit) = session.index.list_and_bit();
        let uri = list_uri(session.issuer, list);
        let token_id = Base64UrlUnpadded::encode_string(&random::<16>(&*self.host)?);
        let token = AccessToken {
            issuer: session.issuer,
            subject: &session.user.id,
            audience: &self.settings.audience,
            client: session.client,
            token_id: &token_id,
            issued_at,
            expires_at,
            scope: session.scope,
            roles: &session.user.roles,
            tenant: session.user.tenant.as_deref(),
            plan: &session.user.plan,
            session: Some(session.id),
            status: IssuedStatus::new(bit, &uri),
        };
        Ok(self.keys.signing.issue(token)?)
    }

    /// A life, shortened at random so that tokens of one moment do not all end in one.
    fn lifetime_seconds(&self) -> Result<u64, EntropyError> {
        let whole = self.settings.token.lifetime_seconds;
        let jitter = whole * self.settings.token.jitter_percent / 100;
        Ok(whole - random_below(&*self.host, jitter + 1)?)
    }
}

/// The scopes that are asked for, if the user has them all.
fn granted_scope(asked: Option<&str>, scopes: &[String]) -> Result<String, LoginError> {
    let Some(asked) = asked else { return Ok(scopes.join(" ")) };
    let mut granted: Vec<&str> = Vec::new();
    for scope in asked.split(' ').filter(|scope| !scope.is_empty()) {
        if !scopes.iter().any(|known| known == scope) {
            return Err(LoginError::Scope);
        }
        if !granted.contains(&scope) {
            granted.push(scope);
        }
    }
    Ok(granted.join(" "))
}
