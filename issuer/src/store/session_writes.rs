//! Writes what belongs to a session, within a transaction that has the user's lock.

use sqlx::Row as _;
use tollgate_shared::revocation::Dimension;
use tollgate_shared::time::UnixSeconds;

use super::cutoffs::Reach;
use super::database::Tx;
use super::outbox::{Wish, WishId, wish};
use super::sessions::{EndReason, NewSession, StartedSession};
use super::shards::slot_of;
use super::{StoreError, signed, unsigned};
use crate::audit::new_audit_id;
use crate::clock::Host;

/// The most sessions of a user at once; the one that was used least lately gives way.
pub const SESSIONS_MAX: i64 = 100;
/// The most devices that are remembered of a user; the one that was seen least lately is forgotten.
pub(super) const DEVICES_MAX: i64 = 20;

/// A refresh token that is to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct NewLeaf {
    pub(super) generation: i64,
    pub(super) digest: [u8; 32],
    pub(super) nonce: [u8; 16],
}

pub(super) async fn insert(
    write: &mut Tx,
    session: &NewSession<'_>,
    dates: StartedSession,
) -> Result<(), StoreError> {
    let now = dates.issued_at;
    sqlx::query(
        "INSERT INTO sessions (id, user_id, client_id, device, scope, tenant, created_at, last_used_at, last_issued_at, \
         token_until, idle_until, expires_at, generation) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $7, $8, $9, $10, 0)",
    )
    .bind(session.id)
    .bind(session.user_id)
    .bind(session.client)
    .bind(session.device)
    .bind(session.scope)
    .bind(session.tenant)
    .bind(signed(now.0))
    .bind(signed(dates.expires_at.0))
    .bind(signed(now.plus(session.idle_seconds).0))
    .bind(signed(now.plus(session.lasts_seconds).0))
    .execute(&mut **write)
    .await?;
    if let Some((digest, nonce)) = session.refresh {
        insert_leaf(write, session.id, NewLeaf { generation: 0, digest, nonce }, now).await?;
    }
    Ok(())
}

pub(super) async fn insert_leaf(
    write: &mut Tx,
    session_id: &str,
    leaf: NewLeaf,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    let NewLeaf { generation, digest, nonce } = leaf;
    sqlx::query(
        "INSERT INTO refresh_tokens (digest, session_id, generation, nonce, created_at) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(digest.as_slice())
    .bind(session_id)
    .bind(generation)
    .bind(nonce.as_slice())
    .bind(signed(now.0))
    .execute(&mut **write)
    .await?;
    Ok(())
}

/// How it is with a user who logs in.
pub(super) struct Room {
    /// The user's version; `None` when the user is disabled or gone, or has another password.
    pub(super) version: Option<i64>,
    /// How many sessions are not over.
    pub(super) sessions: i64,
    /// How many devices are known.
    pub(super) devices: i64,
}

/// Asks for all of it at once. [`StoreError::Moving`] when the slot is not here.
pub(super) async fn room(
    write: &mut Tx,
    session: &NewSession<'_>,
    now: UnixSeconds,
) -> Result<Room, StoreError> {
    let row = sqlx::query(
        "SELECT users.version AS version, (SELECT COUNT(*) FROM sessions WHERE user_id = $1 AND ended_at IS NULL \
         AND idle_until > $4 AND expires_at > $4) AS live, (SELECT COUNT(*) FROM devices WHERE user_id = $1) AS known \
         FROM owned_slots LEFT JOIN users ON users.id = $1 AND disabled = 0 AND password_changed_at = $2 \
         WHERE owned_slots.slot = $3",
    )
    .bind(session.user_id)
    .bind(signed(session.password_changed_at.0))
    .bind(i64::from(slot_of(session.user_id)))
    .bind(signed(now.0))
    .fetch_optional(&mut **write)
    .await?
    .ok_or(StoreError::Moving)?;
    let (sessions, devices) = (row.try_get("live")?, row.try_get("known")?);
    Ok(Room { version: row.try_get("version")?, sessions, devices })
}

/// Makes room for one more session, and gives the wishes to cut off those that give way.
pub(super) async fn displace(
    write: &mut Tx,
    user_id: &str,
    now: UnixSeconds,
    host: &dyn Host,
) -> Result<Vec<WishId>, StoreError> {
    let rows = sqlx::query(
        "SELECT id FROM sessions WHERE user_id = $1 AND ended_at IS NULL AND idle_until > $2 AND expires_at > $2 \
         ORDER BY last_used_at DESC, id LIMIT 1000 OFFSET $3",
    )
    .bind(user_id)
    .bind(signed(now.0))
    .bind(SESSIONS_MAX - 1)
    .fetch_all(&mut **write)
    .await?;
    let mut wishes = Vec::new();
    for row in rows {
        let id: String = row.try_get("id")?;
        wishes.extend(end(write, &id, EndReason::Displaced, "issuer", host).await?);
    }
    Ok(wishes)
}

/// Ends a session and wishes it published. What was ended before stays as it was. Gives the wish, if there is one.
pub(super) async fn end(
    write: &mut Tx,
    id: &str,
    reason: EndReason,
    actor: &str,
    host: &dyn Host,
) -> Result<Option<WishId>, StoreError> {
    let now = host.seconds();
    let token_until: Option<i64> = sqlx::query_scalar(
        "UPDATE sessions SET ended_at = $1, end_reason = $2 WHERE id = $3 AND ended_at IS NULL RETURNING token_until",
    )
    .bind(signed(now.0))
    .bind(reason.name())
    .bind(id)
    .fetch_optional(&mut **write)
    .await?;
    let Some(token_until) = token_until else { return Ok(None) };
    host.reached("revoke.ended");
    let order = Wish {
        dimension: Dimension::Session,
        value: id,
        reach: Reach::Sessions,
        reason: reason.name(),
        actor,
        // No later one can come: who issues one has the user's lock, and finds the session ended.
        token_until: Some(UnixSeconds(unsigned(token_until))),
    };
    wish(write, order, now, host).await.map(Some)
}

/// Ends every session of a user and wishes every token cut off.
pub(super) async fn end_all(
    write: &mut Tx,
    user_id: &str,
    reason: EndReason,
    actor: &str,
    host: &dyn Host,
) -> Result<WishId, StoreError> {
    let now = host.seconds();
    sqlx::query("UPDATE sessions SET ended_at = $1, end_reason = $2 WHERE user_id = $3 AND ended_at IS NULL")
        .bind(signed(now.0))
        .bind(reason.name())
        .bind(user_id)
        .execute(&mut **write)
        .await?;
    host.reached("revoke.ended");
    cut_off_tokens(write, user_id, (Reach::Sessions, reason.name()), actor, host).await
}

/// Wishes every token of a user cut off, and what `reach` says beyond that.
pub(super) async fn cut_off_tokens(
    write: &mut Tx,
    user_id: &str,
    (reach, reason): (Reach, &str),
    actor: &str,
    host: &dyn Host,
) -> Result<WishId, StoreError> {
    let token_until: Option<i64> =
        sqlx::query_scalar("SELECT MAX(token_until) FROM sessions WHERE user_id = $1")
            .bind(user_id)
            .fetch_one(&mut **write)
            .await?;
    // A token that is issued later is of what the user may after this: who issues it has the user's lock.
    let token_until = Some(token_until.map(|date| UnixSeconds(unsigned(date))).unwrap_or_default());
    let order = Wish { dimension: Dimension::Subject, value: user_id, reach, reason, actor, token_until };
    wish(write, order, host.seconds(), host).await
}

/// Writes down that a user logged in. Who failed to is in the audit log only: for a user who does not exist there is no row
/// to go with.
pub(super) async fn note_login(
    write: &mut Tx,
    session: &NewSession<'_>,
    dates: StartedSession,
    host: &dyn Host,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO login_events (id, at, user_id, outcome, address, device) VALUES ($1, $2, $3, 'done', $4, $5)",
    )
    .bind(new_audit_id(None, host)?)
    .bind(signed(dates.issued_at.0))
    .bind(session.user_id)
    .bind(session.address)
    .bind(session.device)
    .execute(&mut **write)
    .await?;
    Ok(())
}

/// Remembers a device, as the one that was seen last.
pub(super) async fn remember_device(
    write: &mut Tx,
    user_id: &str,
    digest: [u8; 32],
    now: UnixSeconds,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO devices (digest, user_id, created_at, seen_at) VALUES ($1, $2, $3, $3) \
         ON CONFLICT (digest) DO UPDATE SET seen_at = excluded.seen_at WHERE devices.user_id = excluded.user_id",
    )
    .bind(digest.as_slice())
    .bind(user_id)
    .bind(signed(now.0))
    .execute(&mut **write)
    .await?;
    Ok(())
}

/// Forgets the devices beyond those that may be known.
pub(super) async fn forget_devices(write: &mut Tx, user_id: &str) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM devices WHERE user_id = $1 AND digest NOT IN \
         (SELECT digest FROM devices WHERE user_id = $1 ORDER BY seen_at DESC, digest LIMIT $2)",
    )
    .bind(user_id)
    .bind(DEVICES_MAX)
    .execute(&mut **write)
    .await?;
    Ok(())
}
