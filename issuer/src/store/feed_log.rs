//! Keeps the feed's history: appends to it in commit order.

use tollgate_shared::revocation::{Dimension, Position, RETENTION_SECONDS, StatusIndex};
use tollgate_shared::time::UnixSeconds;

use super::cutoffs::{self, Reach};
use super::database::{Lock, Tx};
use super::latest_token::LatestToken;
use super::{RevocationOrder, Store, StoreError, signed, unsigned};
use crate::clock::Host;
use crate::config::{LIFETIME_SECONDS_MAX, SESSION_SECONDS_MAX, SLACK_SECONDS};

/// How long a revoked key stays revoked: longer than anybody keeps it published.
const KEY_UNTIL_SECONDS: u64 = 10 * 365 * 86_400;

/// For so long a cut-off of a user is told at least: edges that know an API key of that user ask again for it then, also if the
/// user has no token in force.
const OWNER_SECONDS: u64 = 3_600;

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
        // Before the lock: a token that is issued from now on is dated by a clock that the cut-off's date is read from too.
        let LatestToken { issued_at, .. } = self.latest_token(order, host).await?;
        // An operator's order has nobody's lock: a token may be issued at this moment that lives as long as any.
        let latest = LatestToken { issued_at, until: None };
        self.home
            .run(move || async move {
                let mut write = self.home.write(&[Lock::Feed]).await?;
                let entry = Entry { order, reach: Reach::Sessions, reason, actor };
                let logged = revoke_in(&mut write, &entry, latest, host.seconds()).await?;
                host.reached("feed.before_commit");
                write.commit().await?;
                host.reached("feed.committed");
                Ok(logged)
            })
            .await
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
        self.home
            .run(move || async move {
                let mut write = self.home.write(&[Lock::Feed]).await?;
                let position = log_if_changed_in(&mut write, entry, now).await?;
                write.commit().await?;
                Ok(position)
            })
            .await
    }

    /// The highest position.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn position(&self) -> Result<Position, StoreError> {
        self.home.run(move || async move { last_position(&mut self.home.read().await?).await }).await
    }

    /// Removes entries that have concerned no token for so long that no edge holds them. The last entry stays whatever it
    /// is: the next position follows from it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn prune_feed_log(&self, now: UnixSeconds) -> Result<u64, StoreError> {
        self.home
            .run(move || async move {
                let mut write = self.home.write(&[Lock::Feed]).await?;
                let removed = sqlx::query(
                    "DELETE FROM feed_log WHERE kind IN ('index', 'cutoff') AND until < $1 \
             AND position < (SELECT MAX(position) FROM feed_log)",
                )
                .bind(signed(now.minus(2 * RETENTION_SECONDS).0))
                .execute(&mut *write)
                .await?;
                write.commit().await?;
                Ok(removed.rows_affected())
            })
            .await
    }
}

/// Appends this entry, unless the last of its kind says the same, in a transaction that has the feed's lock.
pub(super) async fn log_if_changed_in(
    write: &mut Tx,
    entry: &LogEntry,
    now: UnixSeconds,
) -> Result<Option<Position>, StoreError> {
    let (kind, body) = match entry {
        LogEntry::Keys(body) => ("keys", body),
        LogEntry::Plans(body) => ("plans", body),
    };
    if last_body(write, kind).await?.as_ref() == Some(body) {
        return Ok(None);
    }
    let row = Row { body: Some(body.clone()), ..Row::new(kind, UnixSeconds(i64::MAX.unsigned_abs()), now) };
    append(write, row).await.map(Some)
}

/// What is to be written to the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'e> {
    pub(super) order: &'e RevocationOrder,
    pub(super) reach: Reach,
    pub(super) reason: Option<&'e str>,
    pub(super) actor: &'e str,
}

/// Revokes within a transaction that has the feed's lock. Tokens dated up to `latest` are covered.
pub(super) async fn revoke_in(
    write: &mut Tx,
    entry: &Entry<'_>,
    latest: LatestToken,
    now: UnixSeconds,
) -> Result<Logged, StoreError> {
    let Entry { order, reach, reason, actor } = *entry;
    let row = match order {
        RevocationOrder::Index(index) => {
            let known: Option<i64> = sqlx::query_scalar(
                "SELECT position FROM feed_log WHERE kind = 'index' AND status_index = $1",
            )
            .bind(i64::from(index.0))
            .fetch_optional(&mut **write)
            .await?;
            if let Some(position) = known {
                return Ok(Logged { position: Position(unsigned(position)), new: false });
            }
            let expires_at: i64 = sqlx::query_scalar("SELECT expires_at FROM status_blocks WHERE block = $1")
                .bind(i64::from(index.block()))
                .fetch_optional(&mut **write)
                .await?
                .ok_or(StoreError::Missing)?;
            Row { status_index: Some(*index), ..Row::new("index", UnixSeconds(unsigned(expires_at)), now) }
        }
        RevocationOrder::Value { dimension, issuer, value } => {
            let mut before = latest.issued_at.max(now).plus(1);
            if issuer.is_none() && outlives_tokens(*dimension) {
                // What is cut off already stays so. A client's own tokens are in no session: one may be dated right after
                // the cut-off before this one, and only a later date covers it.
                let known = cutoffs::issued_before(write, *dimension, value).await?.unwrap_or_default();
                let past =
                    if covers_clients_own(write, *dimension, value).await? { known.plus(1) } else { known };
                before = before.max(past);
                let until = now.plus(SESSION_SECONDS_MAX + SLACK_SECONDS);
                cutoffs::cut_off(write, *dimension, value, before, reach, until).await?;
            }
            // After the last token that it covers, which may be dated ahead of the clock.
            let longest = until(*dimension, issuer.as_deref(), now.max(latest.issued_at));
            let until = latest.until.map_or(longest, |last| longest.min(last.plus(SLACK_SECONDS)));
            let until =
                if *dimension == Dimension::Subject { until.max(now.plus(OWNER_SECONDS)) } else { until };
            if until.plus(RETENTION_SECONDS) < now {
                // No edge would keep it: each of these tokens is over everywhere.
                return Ok(Logged { position: last_position(write).await?, new: false });
            }
            let before = issued_before(*dimension, before);
            Row::cutoff(*dimension, (issuer.as_deref(), value), before, (until, now))
        }
        RevocationOrder::Earlier { dimension, issuer, value, issued_before } => {
            if issuer.is_none() {
                let until = now.plus(SESSION_SECONDS_MAX + SLACK_SECONDS);
                cutoffs::cut_off(write, *dimension, value, *issued_before, reach, until).await?;
            }
            let issuer = issuer.as_deref();
            // The last of our tokens that it covers was issued by then; others' lives are not ours to bound.
            let until = until(*dimension, issuer, if issuer.is_some() { now } else { *issued_before });
            if until.plus(RETENTION_SECONDS) < now {
                return Ok(Logged { position: last_position(write).await?, new: false });
            }
            Row::cutoff(*dimension, (issuer, value), Some(*issued_before), (until, now))
        }
    };
    let row = Row { reason: reason.map(str::to_owned), actor: actor.to_owned(), ..row };
    Ok(Logged { position: append(write, row).await?, new: true })
}

/// Whether it covers tokens that clients have for themselves, of whose dates nothing is kept.
async fn covers_clients_own(write: &mut Tx, dimension: Dimension, value: &str) -> Result<bool, StoreError> {
    match dimension {
        Dimension::Client | Dimension::Tenant | Dimension::Issuer => Ok(true),
        // The subject of a client's own token is the client.
        Dimension::Subject => {
            let known = sqlx::query_scalar::<_, String>("SELECT id FROM clients WHERE id = $1").bind(value);
            Ok(known.fetch_optional(&mut **write).await?.is_some())
        }
        Dimension::Token | Dimension::Session | Dimension::Key => Ok(false),
    }
}

/// Whether sessions and the dates of later tokens depend on it.
fn outlives_tokens(dimension: Dimension) -> bool {
    match dimension {
        Dimension::Subject
        | Dimension::Client
        | Dimension::Tenant
        | Dimension::Issuer
        | Dimension::Session => true,
        Dimension::Token | Dimension::Key => false,
    }
}

/// A cut-off of everybody's tokens spares those that are issued after it; a session, token or key does not come back.
fn issued_before(dimension: Dimension, before: UnixSeconds) -> Option<UnixSeconds> {
    match dimension {
        // One second on from now, because `iat` is whole seconds and a token of this very second is meant too. Logins know
        // of this and date their tokens after it.
        Dimension::Subject | Dimension::Client | Dimension::Tenant | Dimension::Issuer => Some(before),
        Dimension::Token | Dimension::Session | Dimension::Key => None,
    }
}

/// How long a cut-off is kept at most: for our own tokens as long as one can live, for those of other issuers, whose lives
/// are not ours to bound, as long as for a key.
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

    fn cutoff(
        dimension: Dimension,
        (issuer, value): (Option<&str>, &str),
        issued_before: Option<UnixSeconds>,
        (until, now): (UnixSeconds, UnixSeconds),
    ) -> Self {
        Self {
            dimension: Some(dimension),
            issuer: issuer.map(str::to_owned),
            value: Some(value.to_owned()),
            issued_before,
            ..Self::new("cutoff", until, now)
        }
    }

    /// Notes that the number of an expired block is in use again.
    pub(super) fn reuse(until: UnixSeconds, now: UnixSeconds) -> Self {
        Self::new("reuse", until, now)
    }
}

/// Appends a row at the next position. Only ever called inside a write transaction, of which there is one at a time.
pub(super) async fn append(write: &mut Tx, row: Row) -> Result<Position, StoreError> {
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
         reason, actor, created_at) SELECT COALESCE(MAX(position), 0) + 1, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11 FROM feed_log \
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

/// The highest position.
pub(super) async fn last_position(transaction: &mut Tx) -> Result<Position, StoreError> {
    let position: i64 = sqlx::query_scalar("SELECT COALESCE(MAX(position), 0) FROM feed_log")
        .fetch_one(&mut **transaction)
        .await?;
    Ok(Position(unsigned(position)))
}

/// The body of the last entry of this kind.
pub(super) async fn last_body(read: &mut Tx, kind: &str) -> Result<Option<String>, StoreError> {
    let body = sqlx::query_scalar("SELECT body FROM feed_log WHERE kind = $1 ORDER BY position DESC LIMIT 1");
    Ok(body.bind(kind).fetch_optional(&mut **read).await?)
}
