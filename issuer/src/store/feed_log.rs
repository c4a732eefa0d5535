//! Keeps the feed's history: appends to it in commit order.

use sqlx::{Sqlite, Transaction};
use tollgate_shared::revocation::{Dimension, Position, RETENTION_SECONDS, StatusIndex};
use tollgate_shared::time::UnixSeconds;

use super::{Store, StoreError, signed, unsigned};
use crate::clock::Host;
use crate::config::{LIFETIME_SECONDS_MAX, SLACK_SECONDS};

/// How long a revoked key stays revoked: longer than anybody keeps it published.
const KEY_UNTIL_SECONDS: u64 = 10 * 365 * 86_400;

/// What is to be revoked. Dates are set when it is written, under the lock that orders it among logins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RevocationOrder {
    /// One token of ours.
    Index(StatusIndex),
    /// Everything with this value in this dimension.
    Value {
        /// What it goes by.
        dimension: Dimension,
        /// Of which issuer; ours when `None`.
        issuer: Option<String>,
        /// Which one.
        value: String,
    },
}

impl RevocationOrder {
    /// What it goes by.
    #[must_use]
    pub fn dimension(&self) -> Dimension {
        match self {
            Self::Index(_) => Dimension::Token,
            Self::Value { dimension, .. } => *dimension,
        }
    }
}

/// Where an entry stands in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Logged {
    /// Its position.
    pub position: Position,
    /// Whether it is new; otherwise the same was there already.
    pub new: bool,
}

/// An entry that replaces the one before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogEntry {
    /// The JWK Set.
    Keys(String),
    /// The plans, as JSON.
    Plans(String),
}

impl Store {
    /// Revokes, and tells where in the feed. What is revoked already keeps its place.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the index is of no block that was ever handed out.
    pub async fn revoke(
        &self,
        order: &RevocationOrder,
        reason: Option<&str>,
        actor: &str,
        host: &dyn Host,
    ) -> Result<Logged, StoreError> {
        let mut write = self.write().await?;
        // Only now: a login that came before us in the queue has its date, one that comes after will have a later one.
        let now = host.seconds();
        let latest = latest_token(&mut write, order).await?;
        let row = match order {
            RevocationOrder::Index(index) => {
                let known: Option<i64> = sqlx::query_scalar(
                    "SELECT position FROM feed_log WHERE kind = 'index' AND status_index = ?",
                )
                .bind(i64::from(index.0))
                .fetch_optional(&mut *write)
                .await?;
                if let Some(position) = known {
                    return Ok(Logged { position: Position(unsigned(position)), new: false });
                }
                let expires_at: i64 =
                    sqlx::query_scalar("SELECT expires_at FROM status_blocks WHERE block = ?")
                        .bind(i64::from(index.block()))
                        .fetch_optional(&mut *write)
                        .await?
                        .ok_or(StoreError::Missing)?;
                Row {
                    status_index: Some(*index),
                    ..Row::new("index", UnixSeconds(unsigned(expires_at)), now)
                }
            }
            RevocationOrder::Value { dimension, issuer, value } => Row {
                dimension: Some(*dimension),
                issuer: issuer.clone(),
                value: Some(value.clone()),
                issued_before: issued_before(*dimension, latest.max(now)),
                ..Row::new("cutoff", until(*dimension, issuer.as_deref(), now), now)
            },
        };
        let row = Row { reason: reason.map(str::to_owned), actor: actor.to_owned(), ..row };
        let position = append(&mut write, row).await?;
        write.commit().await?;
        Ok(Logged { position, new: true })
    }

    /// Appends this entry, unless the last of its kind says the same.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn log_if_changed(
        &self,
        entry: &LogEntry,
        now: UnixSeconds,
    ) -> Result<Option<Position>, StoreError> {
        let (kind, body) = match entry {
            LogEntry::Keys(body) => ("keys", body),
            LogEntry::Plans(body) => ("plans", body),
        };
        let mut write = self.write().await?;
        if last_body(&mut write, kind).await?.as_ref() == Some(body) {
            return Ok(None);
        }
        let row =
            Row { body: Some(body.clone()), ..Row::new(kind, UnixSeconds(i64::MAX.unsigned_abs()), now) };
        let position = append(&mut write, row).await?;
        write.commit().await?;
        Ok(Some(position))
    }

    /// The highest position.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn position(&self) -> Result<Position, StoreError> {
        let position: i64 = sqlx::query_scalar("SELECT COALESCE(MAX(position), 0) FROM feed_log")
            .fetch_one(&self.readers)
            .await?;
        Ok(Position(unsigned(position)))
    }

    /// Removes entries that have concerned no token for so long that no edge holds them. The last entry stays whatever it
    /// is: the next position follows from it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn prune_feed_log(&self, now: UnixSeconds) -> Result<u64, StoreError> {
        let mut write = self.write().await?;
        let removed = sqlx::query(
            "DELETE FROM feed_log WHERE kind IN ('index', 'cutoff') AND until < ? \
             AND position < (SELECT MAX(position) FROM feed_log)",
        )
        .bind(signed(now.minus(2 * RETENTION_SECONDS).0))
        .execute(&mut *write)
        .await?;
        write.commit().await?;
        Ok(removed.rows_affected())
    }
}

/// The date of the latest token that a cut-off is to cover. It may be ahead of the clock: a login right after an earlier
/// cut-off dates its token after that, and a clock may have been set back since.
async fn latest_token(
    write: &mut Transaction<'_, Sqlite>,
    order: &RevocationOrder,
) -> Result<UnixSeconds, StoreError> {
    let RevocationOrder::Value { dimension, issuer: None, value } = order else {
        return Ok(UnixSeconds::default());
    };
    let query = match dimension {
        Dimension::Subject => "SELECT MAX(created_at) FROM sessions WHERE user_id = ?",
        Dimension::Client => "SELECT MAX(created_at) FROM sessions WHERE client_id = ?",
        Dimension::Tenant => {
            "SELECT MAX(sessions.created_at) FROM sessions JOIN users ON users.id = user_id WHERE tenant = ?"
        }
        Dimension::Issuer => "SELECT MAX(created_at) FROM sessions WHERE ? IS NOT NULL",
        Dimension::Token | Dimension::Session | Dimension::Key => return Ok(UnixSeconds::default()),
    };
    let latest: Option<i64> = sqlx::query_scalar(query).bind(value).fetch_one(&mut **write).await?;
    Ok(latest.map(|date| UnixSeconds(unsigned(date))).unwrap_or_default())
}

/// A cut-off of everybody's tokens spares those that are issued after it; a session, token or key does not come back.
fn issued_before(dimension: Dimension, now: UnixSeconds) -> Option<UnixSeconds> {
    match dimension {
        // One second on, because `iat` is whole seconds and a token of this very second is meant too. Logins know of
        // this and date their tokens after it.
        Dimension::Subject | Dimension::Client | Dimension::Tenant | Dimension::Issuer => Some(now.plus(1)),
        Dimension::Token | Dimension::Session | Dimension::Key => None,
    }
}

/// How long a cut-off is kept: for our own tokens as long as one can live, for those of other issuers, whose lives are not
/// ours to bound, as long as for a key.
fn until(dimension: Dimension, issuer: Option<&str>, now: UnixSeconds) -> UnixSeconds {
    if issuer.is_some() {
        return now.plus(KEY_UNTIL_SECONDS);
    }
    match dimension {
        Dimension::Key => now.plus(KEY_UNTIL_SECONDS),
        Dimension::Token
        | Dimension::Session
        | Dimension::Subject
        | Dimension::Client
        | Dimension::Tenant
        | Dimension::Issuer => now.plus(LIFETIME_SECONDS_MAX + SLACK_SECONDS),
    }
}

/// One row of the log before it has its position.
#[derive(Debug, Clone)]
pub(super) struct Row {
    kind: &'static str,
    status_index: Option<StatusIndex>,
    dimension: Option<Dimension>,
    issuer: Option<String>,
    value: Option<String>,
    issued_before: Option<UnixSeconds>,
    until: UnixSeconds,
    body: Option<String>,
    reason: Option<String>,
    actor: String,
    created_at: UnixSeconds,
}

impl Row {
    fn new(kind: &'static str, until: UnixSeconds, created_at: UnixSeconds) -> Self {
        Self {
            kind,
            status_index: None,
            dimension: None,
            issuer: None,
            value: None,
            issued_before: None,
            until,
            body: None,
            reason: None,
            actor: "issuer".to_owned(),
            created_at,
        }
    }

    /// Notes that the number of an expired block is in use again.
    pub(super) fn reuse(until: UnixSeconds, now: UnixSeconds) -> Self {
        Self::new("reuse", until, now)
    }
}

/// Appends a row at the next position. Only ever called inside a write transaction, of which there is one at a time.
pub(super) async fn append(
    write: &mut Transaction<'static, Sqlite>,
    row: Row,
) -> Result<Position, StoreError> {
    let Row {
        kind,
        status_index,
        dimension,
        issuer,
        value,
        issued_before,
        until,
        body,
        reason,
        actor,
        created_at,
    } = row;
    let position: i64 = sqlx::query_scalar(
        "INSERT INTO feed_log (position, kind, status_index, dimension, issuer, value, issued_before, until, body, \
         reason, actor, created_at) SELECT COALESCE(MAX(position), 0) + 1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ? FROM feed_log \
         RETURNING position",
    )
    .bind(kind)
    .bind(status_index.map(|index| i64::from(index.0)))
    .bind(dimension.map(Dimension::name))
    .bind(issuer)
    .bind(value)
    .bind(issued_before.map(|date| signed(date.0)))
    .bind(signed(until.0))
    .bind(body)
    .bind(reason)
    .bind(actor)
    .bind(signed(created_at.0))
    .fetch_one(&mut **write)
    .await?;
    Ok(Position(unsigned(position)))
}

/// The body of the last entry of this kind.
pub(super) async fn last_body(
    read: &mut Transaction<'static, Sqlite>,
    kind: &str,
) -> Result<Option<String>, StoreError> {
    let body = sqlx::query_scalar("SELECT body FROM feed_log WHERE kind = ? ORDER BY position DESC LIMIT 1");
    Ok(body.bind(kind).fetch_optional(&mut **read).await?)
}
