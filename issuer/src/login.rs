//! Decides what a login is worth: a token for who knows the password, and the same answer for everybody else.

use zeroize::Zeroizing;

use crate::app::App;
use crate::clock::EntropyError;
use crate::oauth::scope::{ScopeError, Scopes};
use crate::password::{Password, PasswordError, Rehash, StoredHash, Verdict};
use crate::sessions::{SessionError, SessionStart, SessionTokens};
use crate::store::{StoreError, User, UserRecord};

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

/// The tokens of a session that just began, and whom they are for.
pub struct Login {
    /// The tokens.
    pub tokens: SessionTokens,
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
    /// The user is unknown or disabled, or the password is wrong.
    #[error("username or password is wrong")]
    Refused,
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
    pub async fn log_in(&self, request: LoginRequest) -> Result<Login, LoginError> {
        let LoginRequest { username, password, client, scope, device } = request;
        let found = self.store.user_named(&username).await?;
        let stored = found.as_ref().and_then(|found| {
            let parsed = StoredHash::parse(&found.password_hash);
            // Whoever's it is gets the answer of a user that does not exist, after the same work.
            parsed.inspect_err(|error| tracing::error!(%error, "a stored password hash")).ok()
        });
        let verified = self.passwords.verify(&password, stored).await?;
        let right = verified.right == Verdict::Right;
        // Only now, after the same work for everybody.
        let found = found.filter(|found| right && !found.user.disabled).ok_or(LoginError::Refused)?;
        if verified.needs_rehash == Rehash::Needed {
            self.rehash(&found, &password).await?;
        }
        let UserRecord { user, password_changed_at, .. } = found;
        let scope = Scopes::granted(scope.as_deref(), &self.scopes_of(&user).await?)?.to_string();
        let start = SessionStart {
            user: &user,
            password_changed_at,
            client: &client,
            device: device.as_deref(),
            scope,
        };
        let (tokens, device_token) = self.start_session(start).await?.ok_or(LoginError::Refused)?;
        Ok(Login { tokens, device_token, user })
    }

    /// Hashes a password again that was right, by the parameters of now. One of all replicas does, once; for the others
    /// the old hash is as good for now.
    async fn rehash(&self, found: &UserRecord, password: &Password) -> Result<(), LoginError> {
        let UserRecord { user, password_hash, .. } = found;
        if self.store.claim_rehash(&user.id, password_hash, self.host.seconds()).await? {
            let better = self.passwords.rehash(password).await?;
            self.store.rehash(&user.id, password_hash, &better).await?;
        }
        Ok(())
    }
}
