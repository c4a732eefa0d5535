//! Reads the feed's log, in the order of commits.

use futures_util::TryStreamExt as _;
use sqlx::Row as _;
use sqlx::any::AnyRow;
use tollgate_shared::quota::Plan;
use tollgate_shared::revocation::{Cutoff, Dimension, Position, StatusIndex};
use tollgate_shared::time::UnixSeconds;

use super::{Store, StoreError, signed, unsigned};
use crate::quota::plans_from_json;

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedEntry {
    /// Its place.
    pub position: Position,
    /// When it was written, under the lock that orders it: what was committed before then stands before it.
    pub created_at: UnixSeconds,
    /// What it says.
    pub change: FeedEntryChange,
}

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FeedEntryChange {
    /// One token is revoked.
    Index {
        /// Which.
        index: StatusIndex,
        /// When the last token of its block expires.
        expires_at: UnixSeconds,
    },
    /// Many are.
    Cutoff(Cutoff),
    /// The JWK Set is this from here on.
    Keys(String),
    /// The plans are these.
    Plans(Vec<Plan>),
    /// The number of a block that expired is in use again.
    Reuse,
}

impl Store {
    /// Whether the token of ours with this index and this `jti` is revoked by either.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn is_revoked(&self, index: StatusIndex, token_id: &str) -> Result<bool, StoreError> {
        self.home
            .run(move || async move {
                let position: Option<i64> = sqlx::query_scalar(
                    "SELECT position FROM feed_log WHERE (kind = 'index' AND status_index = $1) OR \
                     (kind = 'cutoff' AND dimension = 'token' AND value = $2 AND issuer IS NULL) LIMIT 1",
                )
                .bind(i64::from(index.0))
                .bind(token_id)
                .fetch_optional(self.home.readers())
                .await?;
                Ok(position.is_some())
            })
            .await
    }

    /// The entries from this position on, at most `entries_max` of them: fewer only if there are no more. Positions are in
    /// the order of commits, so nothing is ever added before what is read here; what concerns no token any more may be gone.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn read_log(&self, from: Position, entries_max: usize) -> Result<Vec<FeedEntry>, StoreError> {
        self.home
            .run(move || async move {
                let mut rows = sqlx::query(
                    "SELECT position, kind, status_index, dimension, issuer, value, issued_before, until, body, \
                     created_at FROM feed_log WHERE position >= $1 ORDER BY position LIMIT $2",
                )
                .bind(signed(from.0))
                .bind(i64::try_from(entries_max).unwrap_or(i64::MAX))
                .fetch(self.home.readers());
                let mut entries = Vec::new();
                while let Some(row) = rows.try_next().await? {
                    entries.push(entry(&row)?);
                }
                Ok(entries)
            })
            .await
    }
}

fn entry(row: &AnyRow) -> Result<FeedEntry, StoreError> {
    let kind: &str = row.try_get("kind")?;
    let until = |row: &AnyRow| Ok::<_, StoreError>(UnixSeconds(unsigned(row.try_get("until")?)));
    let change = match kind {
        "index" => {
            let index: i64 = row.try_get("status_index")?;
            let index = u32::try_from(index).map_err(|_| StoreError::Corrupt("feed_log.status_index"))?;
            FeedEntryChange::Index { index: StatusIndex(index), expires_at: until(row)? }
        }
        "cutoff" => {
            let dimension: &str = row.try_get("dimension")?;
            let issued_before: Option<i64> = row.try_get("issued_before")?;
            FeedEntryChange::Cutoff(Cutoff {
                dimension: Dimension::of(dimension).ok_or(StoreError::Corrupt("feed_log.dimension"))?,
                issuer: row.try_get("issuer")?,
                value: row.try_get("value")?,
                issued_before: issued_before.map(|date| UnixSeconds(unsigned(date))),
                until: until(row)?,
            })
        }
        "keys" => FeedEntryChange::Keys(row.try_get("body")?),
        "plans" => {
            let plans = plans_from_json(row.try_get("body")?);
            FeedEntryChange::Plans(plans.ok_or(StoreError::Corrupt("feed_log.body"))?)
        }
        "reuse" => FeedEntryChange::Reuse,
        _ => return Err(StoreError::Corrupt("feed_log.kind")),
    };
    Ok(FeedEntry {
        position: Position(unsigned(row.try_get("position")?)),
        created_at: UnixSeconds(unsigned(row.try_get("created_at")?)),
        change,
    })
}
