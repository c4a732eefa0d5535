//! Keeps users and their sessions.

use sqlx::Row as _;
use tollgate_shared::revocation::{RETENTION_SECONDS, StatusIndex};
use tollgate_shared::time::UnixSeconds;

use super::{Store, StoreError, exists, signed, unsigned};
use crate::clock::Host;

/// A token may be dated this many seconds ahead, to lie after a cut-off of the same second.
const AHEAD_SECONDS_MAX: u64 = 2;

/// A user, as logins and quotas need them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// `sub` of the tokens.
    pub id: String,
    /// By what the user logs in.
    pub username: String,
    /// Which limit applies.
    pub plan: String,
    /// What the user is.
    pub roles: Vec<String>,
    /// What the user may ask for.
    pub scopes: Vec<String>,
    /// The customer the user belongs to.
    pub tenant: Option<String>,
    /// Whether logins are refused.
    pub disabled: bool,
}

/// A user that is to be.
#[derive(Clone)]
pub struct NewUser {
    /// Who.
    pub user: User,
    /// The password's hash, as a PHC string.
    pub password_hash: String,
}

impl std::fmt::Debug for NewUser {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("NewUser").field("user", &self.user.id).finish_non_exhaustive()
    }
}

/// A session that is to be, and the token that comes with it.
#[derive(Debug, Clone)]
pub struct NewSession<'s> {
    /// Its id.
    pub id: &'s str,
    /// Whose it is.
    pub user: &'s User,
    /// To which client the token goes.
    pub client: &'s str,
    /// What the client calls its device.
    pub device: Option<&'s str>,
    /// What the token is good for.
    pub scope: &'s str,
    /// `iss` of the token.
    pub issuer: &'s str,
    /// The token's index.
    pub index: StatusIndex,
    /// How long the token lives, in seconds.
    pub lifetime_seconds: u64,
    /// When the block of its index ends, beyond which the token must not live.
    pub expires_at_max: UnixSeconds,
}

/// The dates of a session's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartedSession {
    /// `iat`
    pub issued_at: UnixSeconds,
    /// `exp`
    pub expires_at: UnixSeconds,
}

impl Store {
    /// Adds a user.
    ///
    /// # Errors
    /// [`StoreError::Exists`] when there is one of this name.
    pub async fn add_user(&self, new: &NewUser, now: UnixSeconds) -> Result<(), StoreError> {
        let NewUser { user, password_hash } = new;
        let User { id, username, plan, roles, scopes, tenant, disabled } = user;
        let mut write = self.write().await?;
        sqlx::query(
            "INSERT INTO users (id, username, password_hash, plan, roles, scopes, tenant, disabled, created_at) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(id)
        .bind(username)
        .bind(password_hash)
        .bind(plan)
        .bind(list_to_json(roles))
        .bind(list_to_json(scopes))
        .bind(tenant)
        .bind(*disabled)
        .bind(signed(now.0))
        .execute(&mut *write)
        .await
        .map_err(exists)?;
        write.commit().await?;
        Ok(())
    }

    /// The user of this name, and the hash of the password.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn user_named(&self, username: &str) -> Result<Option<NewUser>, StoreError> {
        let row = sqlx::query(
            "SELECT id, username, password_hash, plan, roles, scopes, tenant, disabled FROM users WHERE username = ?",
        )
        .bind(username)
        .fetch_optional(&self.readers)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let user = User {
            id: row.try_get("id")?,
            username: row.try_get("username")?,
            plan: row.try_get("plan")?,
            roles: list_from_json(row.try_get("roles")?)?,
            scopes: list_from_json(row.try_get("scopes")?)?,
            tenant: row.try_get("tenant")?,
            disabled: row.try_get("disabled")?,
        };
        Ok(Some(NewUser { user, password_hash: row.try_get("password_hash")? }))
    }

    /// Removes the sessions whose token expired long ago.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn prune_sessions(&self, now: UnixSeconds) -> Result<u64, StoreError> {
        let mut write = self.write().await?;
        let removed = sqlx::query("DELETE FROM sessions WHERE expires_at < ?")
            .bind(signed(now.minus(2 * RETENTION_SECONDS).0))
            .execute(&mut *write)
            .await?;
        write.commit().await?;
        Ok(removed.rows_affected())
    }

    /// Starts a session and dates its token: after every cut-off that would cover it, if that is near. `None` when the
    /// user was disabled or removed in the meantime.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn start_session(
        &self,
        session: &NewSession<'_>,
        host: &dyn Host,
    ) -> Result<Option<StartedSession>, StoreError> {
        let NewSession { id, user, client, device, scope, issuer, index, lifetime_seconds, expires_at_max } =
            session;
        let mut write = self.write().await?;
        let enabled: Option<i64> = sqlx::query_scalar("SELECT 1 FROM users WHERE id = ? AND disabled = 0")
            .bind(&user.id)
            .fetch_optional(&mut *write)
            .await?;
        if enabled.is_none() {
            return Ok(None);
        }
        // Cut-offs are written under the same lock, so every one that is committed is seen here, and one that is not
        // yet will be dated after this token.
        let now = host.seconds();
        let cut_off: Option<i64> = sqlx::query_scalar(
            "SELECT MAX(issued_before) FROM feed_log WHERE kind = 'cutoff' AND issuer IS NULL AND \
             ((dimension = 'subject' AND value = ?) OR (dimension = 'client' AND value = ?) OR \
             (dimension = 'tenant' AND value = ?) OR (dimension = 'issuer' AND value = ?))",
        )
        .bind(&user.id)
        .bind(client)
        .bind(&user.tenant)
        .bind(issuer)
        .fetch_one(&mut *write)
        .await?;
        let after = cut_off.map_or(now, |date| UnixSeconds(unsigned(date)));
        let issued_at = if after <= now.plus(AHEAD_SECONDS_MAX) { now.max(after) } else { now };
        let expires_at = issued_at.plus(*lifetime_seconds).min(*expires_at_max);
        sqlx::query(
            "INSERT INTO sessions (id, user_id, client_id, device, scope, status_index, created_at, expires_at) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(id)
        .bind(&user.id)
        .bind(client)
        .bind(device)
        .bind(scope)
        .bind(i64::from(index.0))
        .bind(signed(issued_at.0))
        .bind(signed(expires_at.0))
        .execute(&mut *write)
        .await?;
        write.commit().await?;
        Ok(Some(StartedSession { issued_at, expires_at }))
    }
}

fn list_to_json(list: &[String]) -> String {
    serde_json::Value::from(list).to_string()
}

fn list_from_json(text: &str) -> Result<Vec<String>, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::Corrupt("users.roles or users.scopes"))
}
