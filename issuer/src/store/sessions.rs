//! Keeps sessions: one for each login, until it is ended, idle for too long, or over.

use sqlx::Row as _;
use sqlx::any::AnyRow;
use tollgate_shared::time::UnixSeconds;

use super::audit::add_in;
use super::cutoffs::CutOff;
use super::database::{Database, Lock};
use super::outbox::Wished;
use super::session_writes::{
    DEVICES_MAX, SESSIONS_MAX, displace, end, end_all, forget_devices, insert, note_login, remember_device,
    room,
};
use super::shards::slot_of;
use super::{Store, StoreError, signed, unsigned};
use crate::audit::AuditEvent;
use crate::clock::Host;
use crate::session::Family;

/// A token may be dated this many seconds ahead, to lie after a cut-off of the same second.
pub(super) const AHEAD_SECONDS_MAX: u64 = 20;
/// How long a session that is over is kept for the record, in seconds.
const KEPT_SECONDS: u64 = 86_400;
/// How many sessions are removed in one transaction.
const PRUNED_AT_ONCE: i64 = 500;

/// A session that is to be, and the tokens that come with it.
#[derive(Debug, Clone)]
pub struct NewSession<'s> {
    /// Its id.
    pub id: &'s str,
    /// Whose it is.
    pub user_id: &'s str,
    /// When the user's password was changed last, as of when it was checked.
    pub password_changed_at: UnixSeconds,
    /// The user's version that the rights are of; any when `None`.
    pub version: Option<u64>,
    /// The user's customer.
    pub tenant: Option<&'s str>,
    /// To which client the tokens go.
    pub client: &'s str,
    /// What the client calls its device.
    pub device: Option<&'s str>,
    /// What the tokens are good for.
    pub scope: &'s str,
    /// `iss` of the access token.
    pub issuer: &'s str,
    /// How long the access token lives.
    pub life: TokenLife,
    /// How long the session lasts without being used, in seconds.
    pub idle_seconds: u64,
    /// How long it lasts at most, in seconds.
    pub lasts_seconds: u64,
    /// The digest and the nonce of the first refresh token.
    pub refresh: Option<([u8; 32], [u8; 16])>,
    /// From where the user logged in.
    pub address: Option<&'s str>,
    /// The digest of what the device is known by, from now on or already.
    pub remember_device: Option<[u8; 32]>,
    /// What is cut off for it.
    pub cut_off: CutOff,
    /// An instant before that was read. The access token is dated so: what is cut off after that instant covers it.
    pub asked_at: UnixSeconds,
    /// What the audit log says of it.
    pub event: Option<&'s AuditEvent>,
}

/// How long an access token lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenLife {
    /// In seconds.
    pub seconds: u64,
    /// When the block of its index ends, beyond which the token must not live.
    pub expires_at_max: UnixSeconds,
}

/// The dates of an access token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartedSession {
    /// `iat`
    pub issued_at: UnixSeconds,
    /// `exp`
    pub expires_at: UnixSeconds,
}

impl StartedSession {
    /// The dates of a token that is issued now: after every cut-off that would cover it, if that is near.
    #[must_use]
    pub fn dated(now: UnixSeconds, issued_before: Option<UnixSeconds>, life: TokenLife) -> Self {
        let after = issued_before.unwrap_or_default();
        let issued_at = if after <= now.plus(AHEAD_SECONDS_MAX) { now.max(after) } else { now };
        Self { issued_at, expires_at: issued_at.plus(life.seconds).min(life.expires_at_max) }
    }
}

/// A session as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub user_id: String,
    /// The client it is bound to.
    pub client: String,
    /// What the client calls its device.
    pub device: Option<String>,
    /// What it is good for.
    pub scope: String,
    /// When the password was given.
    pub began_at: UnixSeconds,
    /// When it was used last.
    pub last_used_at: UnixSeconds,
    /// Until when it has to be used again.
    pub idle_until: UnixSeconds,
    /// Its absolute end.
    pub expires_at: UnixSeconds,
    /// The generation of its refresh token.
    pub generation: u64,
    /// When it was ended.
    pub ended_at: Option<UnixSeconds>,
}

/// Why a session ends before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// The user logged out.
    Logout,
    /// The user or an operator ended it.
    Ended,
    /// A refresh token came back that had been used.
    Reuse,
    /// The user's password was changed.
    Password,
    /// The user was disabled.
    Disabled,
    /// The user was deleted.
    Deleted,
    /// The user has too many.
    Displaced,
}

impl EndReason {
    /// Its name in the database and in the audit log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Logout => "logout",
            Self::Ended => "ended",
            Self::Reuse => "refresh token reuse",
            Self::Password => "password changed",
            Self::Disabled => "user disabled",
            Self::Deleted => "user deleted",
            Self::Displaced => "too many sessions",
        }
    }
}

impl SessionRecord {
    /// What a refresh depends on.
    #[must_use]
    pub fn family(&self) -> Family {
        Family {
            client: self.client.clone(),
            generation: self.generation,
            began_at: self.began_at,
            idle_until: self.idle_until,
            expires_at: self.expires_at,
            ended: self.ended_at.is_some(),
        }
    }

    pub(super) fn from_row(row: &AnyRow) -> Result<Self, StoreError> {
        let date = |name: &str| row.try_get::<i64, _>(name).map(|date| UnixSeconds(unsigned(date)));
        let ended_at: Option<i64> = row.try_get("ended_at")?;
        Ok(Self {
            id: row.try_get("id")?,
            user_id: row.try_get("user_id")?,
            client: row.try_get("client_id")?,
            device: row.try_get("device")?,
            scope: row.try_get("scope")?,
            began_at: date("created_at")?,
            last_used_at: date("last_used_at")?,
            idle_until: date("idle_until")?,
            expires_at: date("expires_at")?,
            generation: unsigned(row.try_get("generation")?),
            ended_at: ended_at.map(|date| UnixSeconds(unsigned(date))),
        })
    }
}

impl Store {
    /// Starts a session and dates its access token; those that give way are cut off, which is published when [`Store::publish`]
    /// returns. `None` when the user, tenant or client was disabled or removed, or the
    /// password changed, in the meantime. The audit log has it when this returns: in the same transaction if the user is in
    /// the home database, where the log is.
    ///
    /// # Errors
    /// [`StoreError::Changed`] when the rights are of another version than the user's.
    pub async fn start_session(
        &self,
        session: &NewSession<'_>,
        host: &dyn Host,
    ) -> Result<Option<(StartedSession, Wished)>, StoreError> {
        let (asked_at, cut_off, slot) = (session.asked_at, session.cut_off, slot_of(session.user_id));
        if cut_off.is_disabled {
            return Ok(None);
        }
        let operation = move |database: Database| async move {
            // Whether the slot is here is asked with the user.
            let mut write = database.write(&[Lock::SlotUse(slot), Lock::User(session.user_id)]).await?;
            let room = room(&mut write, session, asked_at).await?;
            let Some(version) = room.version else { return Ok(None) };
            if session.version.is_some_and(|expected| signed(expected) != version) {
                return Err(StoreError::Changed);
            }
            let expires_at_max = session.life.expires_at_max.min(asked_at.plus(session.lasts_seconds));
            let life = TokenLife { expires_at_max, ..session.life };
            let dates = StartedSession::dated(asked_at, cut_off.issued_before, life);
            let mut wishes = Vec::new();
            if room.sessions >= SESSIONS_MAX {
                wishes = displace(&mut write, session.user_id, dates.issued_at, host).await?;
            }
            insert(&mut write, session, dates).await?;
            host.reached("login.session_written");
            if let Some(digest) = session.remember_device {
                remember_device(&mut write, session.user_id, digest, dates.issued_at).await?;
                if room.devices >= DEVICES_MAX {
                    forget_devices(&mut write, session.user_id).await?;
                }
            }
            note_login(&mut write, session, dates, host).await?;
            if database.is_home() {
                add_in(&database, &mut write, session.event, host).await?;
            }
            host.reached("login.before_commit");
            write.commit().await?;
            host.reached("login.committed");
            Ok(Some(((dates, Wished::at(&database, wishes)), database.is_home())))
        };
        let Some((started, is_home)) = self.shards.on_slot(slot, operation).await? else { return Ok(None) };
        if !is_home && let Some(event) = session.event {
            self.add_audit(std::slice::from_ref(event), host).await?;
        }
        Ok(Some(started))
    }

    /// Whether a user has this session and it is not over.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn has_session(&self, user_id: &str, id: &str, now: UnixSeconds) -> Result<bool, StoreError> {
        let operation = move |database: Database| async move {
            let mut read = database.read_slot(slot_of(user_id)).await?;
            let found: Option<i64> = sqlx::query_scalar(
                "SELECT generation FROM sessions WHERE id = $1 AND user_id = $2 AND ended_at IS NULL \
                 AND idle_until > $3 AND expires_at > $3",
            )
            .bind(id)
            .bind(user_id)
            .bind(signed(now.0))
            .fetch_optional(&mut *read)
            .await?;
            Ok(found.is_some())
        };
        self.shards.on_slot(slot_of(user_id), operation).await
    }

    /// The sessions of a user that are not over, the one that began last first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn sessions_of(
        &self,
        user_id: &str,
        now: UnixSeconds,
    ) -> Result<Vec<SessionRecord>, StoreError> {
        let operation = move |database: Database| async move {
            let mut read = database.read_slot(slot_of(user_id)).await?;
            let rows = sqlx::query(
                "SELECT id, user_id, client_id, device, scope, created_at, last_used_at, idle_until, expires_at, \
                 generation, ended_at FROM sessions WHERE user_id = $1 AND ended_at IS NULL AND idle_until > $2 \
                 AND expires_at > $2 ORDER BY created_at DESC, id",
            )
            .bind(user_id)
            .bind(signed(now.0))
            .fetch_all(&mut *read)
            .await?;
            rows.iter().map(SessionRecord::from_row).collect()
        };
        self.shards.on_slot(slot_of(user_id), operation).await
    }

    /// Ends a session of a user. It is published when [`Store::publish`] returns.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the user has no such session.
    pub async fn end_session(
        &self,
        user_id: &str,
        id: &str,
        reason: EndReason,
        actor: &str,
        host: &dyn Host,
    ) -> Result<Wished, StoreError> {
        let operation = move |database: Database| async move {
            let mut write = database.write_user(user_id).await?;
            let known: Option<i64> =
                sqlx::query_scalar("SELECT generation FROM sessions WHERE id = $1 AND user_id = $2")
                    .bind(id)
                    .bind(user_id)
                    .fetch_optional(&mut *write)
                    .await?;
            known.ok_or(StoreError::Missing)?;
            let wish = end(&mut write, id, reason, actor, host).await?;
            host.reached("revoke.before_commit");
            write.commit().await?;
            host.reached("revoke.committed");
            Ok(Wished::at(&database, wish.into_iter().collect()))
        };
        self.shards.on_slot(slot_of(user_id), operation).await
    }

    /// Ends every session of a user, and cuts off every token. It is published when [`Store::publish`] returns.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn end_sessions(
        &self,
        user_id: &str,
        reason: EndReason,
        actor: &str,
        host: &dyn Host,
    ) -> Result<Wished, StoreError> {
        let operation = move |database: Database| async move {
            let mut write = database.write_user(user_id).await?;
            let wish = end_all(&mut write, user_id, reason, actor, host).await?;
            host.reached("revoke.before_commit");
            write.commit().await?;
            host.reached("revoke.committed");
            Ok(Wished::at(&database, vec![wish]))
        };
        self.shards.on_slot(slot_of(user_id), operation).await
    }

    /// Whether a device of this user is known by this digest.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn knows_device(&self, user_id: &str, digest: [u8; 32]) -> Result<bool, StoreError> {
        let operation = move |database: Database| async move {
            let mut read = database.read_slot(slot_of(user_id)).await?;
            let known: Option<i64> =
                sqlx::query_scalar("SELECT seen_at FROM devices WHERE digest = $1 AND user_id = $2")
                    .bind(digest.as_slice())
                    .bind(user_id)
                    .fetch_optional(&mut *read)
                    .await?;
            Ok(known.is_some())
        };
        self.shards.on_slot(slot_of(user_id), operation).await
    }

    /// Removes sessions that have been over for a day, with their refresh tokens, in every database that can be reached.
    ///
    /// # Errors
    /// [`StoreError`] of the first that could not.
    pub async fn prune_sessions(&self, now: UnixSeconds) -> Result<u64, StoreError> {
        let before = signed(now.minus(KEPT_SECONDS).0);
        let (mut removed, mut failed) = (0, None);
        for database in self.shards.all() {
            // Each way to be over has an index of its own.
            for over in ["ended_at", "idle_until", "expires_at"] {
                loop {
                    match database.run(move || async move { prune(database, over, before).await }).await {
                        Ok(count) => {
                            removed += unsigned(count);
                            if count < PRUNED_AT_ONCE {
                                break;
                            }
                        }
                        Err(error) => {
                            failed = failed.or(Some(error));
                            break;
                        }
                    }
                }
            }
        }
        failed.map_or(Ok(removed), Err)
    }
}

/// Removes some of the sessions that were over by one of their dates before `before`; tells how many.
async fn prune(database: &Database, over: &str, before: i64) -> Result<i64, StoreError> {
    let mut write = database.write(&[]).await?;
    // Not before its last access token is over as well: cut-offs are dated by what is here.
    let sessions = format!(
        "DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE {over} < $1 AND token_until < $1 \
         ORDER BY {over} LIMIT $2) RETURNING id"
    );
    let sessions = sqlx::query_scalar(sqlx::AssertSqlSafe(sessions)).bind(before).bind(PRUNED_AT_ONCE);
    let ids: Vec<String> = sessions.fetch_all(&mut *write).await?;
    if !ids.is_empty() {
        let places: Vec<String> = (1..=ids.len()).map(|number| format!("${number}")).collect();
        let tokens = format!("DELETE FROM refresh_tokens WHERE session_id IN ({})", places.join(", "));
        // As many statements as there are numbers of sessions: not worth keeping.
        let mut tokens = sqlx::query(sqlx::AssertSqlSafe(tokens)).persistent(false);
        for id in &ids {
            tokens = tokens.bind(id);
        }
        tokens.execute(&mut *write).await?;
    }
    write.commit().await?;
    Ok(i64::try_from(ids.len()).unwrap_or(i64::MAX))
}
