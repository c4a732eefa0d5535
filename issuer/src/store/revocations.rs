//! Lists what was revoked, from the feed's history: for operators, oldest first.

use sqlx::Row as _;
use sqlx::any::AnyRow;
use tollgate_shared::revocation::{Dimension, Position, StatusIndex};
use tollgate_shared::time::UnixSeconds;

use super::database::Tx;
use super::{Store, StoreError, signed, unsigned};

/// The most entries of the log that one page looks through for what it wants.
const SCANNED_MAX: i64 = 10_000;

/// Which revocations are wanted: those of which all is true.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RevocationQuery {
    /// In this dimension.
    pub dimension: Option<Dimension>,
    /// Of this value; a status list and a place in it are written with a slash between.
    pub value: Option<String>,
    /// By this actor.
    pub actor: Option<String>,
    /// Not before this.
    pub since: Option<UnixSeconds>,
    /// Not after this.
    pub until: Option<UnixSeconds>,
    /// After this position.
    pub after: Option<Position>,
}

/// What was revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RevokedValue {
    /// One token of ours, by its index.
    Index(StatusIndex),
    /// Everything with this value.
    Value(String),
}

/// A revocation in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationRecord {
    /// Where it stands.
    pub position: Position,
    /// What it goes by.
    pub dimension: Dimension,
    /// Which one.
    pub value: RevokedValue,
    /// Of which issuer; ours when `None`.
    pub issuer: Option<String>,
    /// Only what was issued before this; all of it when `None`.
    pub issued_before: Option<UnixSeconds>,
    /// After this it concerns no token.
    pub until: UnixSeconds,
    /// Why.
    pub reason: Option<String>,
    /// Who ordered it.
    pub actor: String,
    /// When.
    pub created_at: UnixSeconds,
}

/// Some of the revocations that are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationPage {
    /// Oldest first.
    pub revocations: Vec<RevocationRecord>,
    /// After which position the search goes on; `None` when there are no more.
    pub next: Option<Position>,
}

impl Store {
    /// The revocations that are wanted, oldest first, at most `limit`. Those that have concerned no token for long are gone.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn revocations(
        &self,
        query: &RevocationQuery,
        limit: u32,
    ) -> Result<Vec<RevocationRecord>, StoreError> {
        let (mut query, mut found, mut left) = (query.clone(), Vec::new(), limit);
        loop {
            let RevocationPage { revocations, next } = self.revocation_page(&query, left).await?;
            left = left.saturating_sub(u32::try_from(revocations.len()).unwrap_or(u32::MAX));
            found.extend(revocations);
            if next.is_none() || left == 0 {
                return Ok(found);
            }
            query.after = next;
        }
    }

    /// The first of them, at most `limit`: none may be among them when many others come first, and there still be a next page.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn revocation_page(
        &self,
        query: &RevocationQuery,
        limit: u32,
    ) -> Result<RevocationPage, StoreError> {
        self.home
            .run(move || async move {
                let mut read = self.home.read().await?;
                // Each value has its own two look-ups; without one the log is read in its order, piece by piece.
                let end = match query.value {
                    Some(_) => None,
                    None => end_of_piece(&mut read, query.after.unwrap_or_default()).await?,
                };
                let mut revocations = wanted(&mut read, query, end, limit).await?;
                read.commit().await?;
                let limit = usize::try_from(limit).unwrap_or(usize::MAX);
                let more = revocations.len() > limit;
                revocations.truncate(limit);
                let last = revocations.last().filter(|_| more).map(|last| last.position);
                Ok(RevocationPage { next: last.or(end), revocations })
            })
            .await
    }
}

/// The last position that is looked through, if the log may go on beyond it.
async fn end_of_piece(read: &mut Tx, after: Position) -> Result<Option<Position>, StoreError> {
    let end: Option<i64> = sqlx::query_scalar(
        "SELECT position FROM feed_log WHERE position > $1 ORDER BY position LIMIT 1 OFFSET $2",
    )
    .bind(signed(after.0))
    .bind(SCANNED_MAX - 1)
    .fetch_optional(&mut **read)
    .await?;
    Ok(end.map(|end| Position(unsigned(end))))
}

/// The revocations that are wanted up to `end`, one more than `limit` if there are more.
async fn wanted(
    read: &mut Tx,
    query: &RevocationQuery,
    end: Option<Position>,
    limit: u32,
) -> Result<Vec<RevocationRecord>, StoreError> {
    let RevocationQuery { dimension, value, actor, since, until, after } = query;
    let which = match value {
        Some(_) => {
            "((kind = 'cutoff' AND dimension IN ('token', 'session', 'subject', 'client', 'tenant', 'key', 'issuer') \
             AND value = $8) OR (kind = 'index' AND status_index = $9))"
        }
        None => "kind IN ('index', 'cutoff')",
    };
    let statement = format!(
        "SELECT position, kind, status_index, dimension, issuer, value, issued_before, until, reason, actor, \
         created_at FROM feed_log WHERE {which} AND position > $1 AND position <= $7 AND created_at >= $2 \
         AND created_at <= $3 AND (CAST($4 AS TEXT) IS NULL OR actor = $4) \
         AND (CAST($5 AS TEXT) IS NULL OR COALESCE(dimension, 'token') = $5) ORDER BY position LIMIT $6"
    );
    let mut wanted = sqlx::query(sqlx::AssertSqlSafe(statement))
        .bind(signed(after.unwrap_or_default().0))
        .bind(signed(since.unwrap_or_default().0))
        .bind(signed(until.map_or(u64::MAX, |until| until.0)))
        .bind(actor.as_deref())
        .bind(dimension.map(Dimension::name))
        .bind(i64::from(limit).saturating_add(1))
        .bind(signed(end.map_or(u64::MAX, |end| end.0)));
    if let Some(value) = value {
        // No token has the place -1.
        wanted = wanted.bind(value).bind(place(value).map_or(-1, |index| i64::from(index.0)));
    }
    let rows = wanted.fetch_all(&mut **read).await?;
    rows.iter().map(record).collect()
}

/// The index that a list and a place in it stand for.
fn place(value: &str) -> Option<StatusIndex> {
    let (list, place) = value.split_once('/')?;
    StatusIndex::in_list(list.parse().ok()?, place.parse().ok()?)
}

fn record(row: &AnyRow) -> Result<RevocationRecord, StoreError> {
    let date = |date: Option<i64>| date.map(|date| UnixSeconds(unsigned(date)));
    let (position, until, created_at) =
        (row.try_get("position")?, row.try_get("until")?, row.try_get("created_at")?);
    let index: Option<i64> = row.try_get("status_index")?;
    let (dimension, value) = match index {
        Some(index) => {
            let index = u32::try_from(index).map_err(|_| StoreError::Corrupt("feed_log.status_index"))?;
            (Dimension::Token, RevokedValue::Index(StatusIndex(index)))
        }
        None => {
            let name: &str = row.try_get("dimension")?;
            let dimension = Dimension::of(name).ok_or(StoreError::Corrupt("feed_log.dimension"))?;
            (dimension, RevokedValue::Value(row.try_get("value")?))
        }
    };
    Ok(RevocationRecord {
        position: Position(unsigned(position)),
        dimension,
        value,
        issuer: row.try_get("issuer")?,
        issued_before: date(row.try_get("issued_before")?),
        until: UnixSeconds(unsigned(until)),
        reason: row.try_get("reason")?,
        actor: row.try_get("actor")?,
        created_at: UnixSeconds(unsigned(created_at)),
    })
}
