//! Reads from the feed's history what an edge lacks, all of it as of one instant.

use std::collections::BTreeSet;

use sqlx::Row as _;
use sqlx::any::AnyRow;
use tollgate_shared::revocation::{BlockExpiry, Cutoff, Dimension, Position, RETENTION_SECONDS, StatusIndex};
use tollgate_shared::time::UnixSeconds;

use super::database::Tx;
use super::feed_log::last_body;
use super::{Store, StoreError, signed, unsigned};

/// What an edge lacks.
#[derive(Debug, Clone, PartialEq)]
pub struct FeedRead {
    /// The position it leads to.
    pub to: Position,
    /// Whether that is everything or only what is new.
    pub part: LogPart,
    /// Revoked indices, ascending.
    pub indices: Vec<StatusIndex>,
    /// The expiries of their blocks.
    pub blocks: Vec<BlockExpiry>,
    /// Cut-offs.
    pub cutoffs: Vec<Cutoff>,
    /// The JWK Set; in a delta only if it changed.
    pub keys: Option<String>,
    /// The plans as JSON; in a delta only if they changed.
    pub plans: Option<String>,
}

/// Whether a reading is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogPart {
    /// What came after this position.
    After(Position),
    /// Everything in force.
    Whole,
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

    /// What came after `after`; everything still in force at `now` when `after` is `None`, further back than `delta_max`,
    /// ahead of the log, or before numbers were used again.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn read_feed(
        &self,
        after: Option<Position>,
        delta_max: u64,
        now: UnixSeconds,
    ) -> Result<FeedRead, StoreError> {
        let read = self.read_feed_beyond(None, after, delta_max, now).await?;
        read.ok_or(StoreError::Corrupt("feed_log"))
    }

    /// The same for who keeps a whole reading of position `kept`: `None` when that is the one that would be read.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn read_feed_beyond(
        &self,
        kept: Option<Position>,
        after: Option<Position>,
        delta_max: u64,
        now: UnixSeconds,
    ) -> Result<Option<FeedRead>, StoreError> {
        self.home
            .run(move || async move {
                let mut read = self.home.read().await?;
                let row = sqlx::query(
                    "SELECT COALESCE((SELECT MAX(position) FROM feed_log), 0) AS last, \
                     COALESCE((SELECT MAX(position) FROM feed_log WHERE kind = 'reuse'), 0) AS reused",
                )
                .fetch_one(&mut *read)
                .await?;
                let to = Position(unsigned(row.try_get("last")?));
                let reused = Position(unsigned(row.try_get("reused")?));
                let near = |after: &Position| *after <= to && *after >= reused && to.0 - after.0 <= delta_max;
                let found = match after.filter(near) {
                    Some(after) if after == to => Some(FeedRead::empty(to, LogPart::After(after))),
                    Some(after) => Some(delta(&mut read, after, to).await?),
                    None if kept == Some(to) => None,
                    None => Some(snapshot(&mut read, to, now).await?),
                };
                read.commit().await?;
                Ok(found)
            })
            .await
    }
}

async fn delta(read: &mut Tx, after: Position, to: Position) -> Result<FeedRead, StoreError> {
    let rows = sqlx::query(
        "SELECT kind, status_index, dimension, issuer, value, issued_before, until, body FROM feed_log \
         WHERE position > $1 ORDER BY position",
    )
    .bind(signed(after.0))
    .fetch_all(&mut **read)
    .await?;
    let mut found = FeedRead::empty(to, LogPart::After(after));
    for row in &rows {
        found.take(row)?;
    }
    found.finish(read).await
}

async fn snapshot(read: &mut Tx, to: Position, now: UnixSeconds) -> Result<FeedRead, StoreError> {
    let rows = sqlx::query(
        "SELECT kind, status_index, dimension, issuer, value, issued_before, until, body FROM feed_log \
         WHERE kind IN ('index', 'cutoff') AND until >= $1 ORDER BY position",
    )
    .bind(signed(now.minus(RETENTION_SECONDS).0))
    .fetch_all(&mut **read)
    .await?;
    let mut found = FeedRead::empty(to, LogPart::Whole);
    for row in &rows {
        found.take(row)?;
    }
    found.keys = last_body(read, "keys").await?;
    found.plans = last_body(read, "plans").await?;
    found.finish(read).await
}

impl FeedRead {
    fn empty(to: Position, part: LogPart) -> Self {
        Self {
            to,
            part,
            indices: Vec::new(),
            blocks: Vec::new(),
            cutoffs: Vec::new(),
            keys: None,
            plans: None,
        }
    }

    fn take(&mut self, row: &AnyRow) -> Result<(), StoreError> {
        let kind: &str = row.try_get("kind")?;
        match kind {
            "index" => {
                let index: i64 = row.try_get("status_index")?;
                let index = u32::try_from(index).map_err(|_| StoreError::Corrupt("feed_log.status_index"))?;
                self.indices.push(StatusIndex(index));
            }
            "cutoff" => self.cutoffs.push(cutoff(row)?),
            "keys" => self.keys = row.try_get("body")?,
            "plans" => self.plans = row.try_get("body")?,
            "reuse" => {}
            _ => return Err(StoreError::Corrupt("feed_log.kind")),
        }
        Ok(())
    }

    /// Sorts the indices and adds the expiries of the blocks they lie in.
    async fn finish(mut self, read: &mut Tx) -> Result<Self, StoreError> {
        self.indices.sort_unstable();
        let wanted: BTreeSet<u16> = self.indices.iter().map(|index| index.block()).collect();
        let (Some(first), Some(last)) = (wanted.first(), wanted.last()) else { return Ok(self) };
        // Numbers are handed out in order, so that few between the first and the last are not wanted.
        let rows = sqlx::query(
            "SELECT block, expires_at FROM status_blocks WHERE block BETWEEN $1 AND $2 ORDER BY block",
        )
        .bind(i64::from(*first))
        .bind(i64::from(*last))
        .fetch_all(&mut **read)
        .await?;
        for row in rows {
            let block: i64 = row.try_get("block")?;
            let block = u16::try_from(block).map_err(|_| StoreError::Corrupt("status_blocks.block"))?;
            if wanted.contains(&block) {
                let expires_at = UnixSeconds(unsigned(row.try_get("expires_at")?));
                self.blocks.push(BlockExpiry { block, expires_at });
            }
        }
        if self.blocks.len() != wanted.len() {
            return Err(StoreError::Corrupt("status_blocks"));
        }
        Ok(self)
    }
}

fn cutoff(row: &AnyRow) -> Result<Cutoff, StoreError> {
    let dimension: &str = row.try_get("dimension")?;
    let issued_before: Option<i64> = row.try_get("issued_before")?;
    let until: i64 = row.try_get("until")?;
    Ok(Cutoff {
        dimension: Dimension::of(dimension).ok_or(StoreError::Corrupt("feed_log.dimension"))?,
        issuer: row.try_get("issuer")?,
        value: row.try_get("value")?,
        issued_before: issued_before.map(|date| UnixSeconds(unsigned(date))),
        until: UnixSeconds(unsigned(until)),
    })
}
