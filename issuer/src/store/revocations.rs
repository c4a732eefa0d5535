//! Lists what was revoked, from the feed's history: for operators, oldest first.

use sqlx::Row as _;
use sqlx::any::AnyRow;
use tollgate_shared::revocation::{Dimension, Position, StatusIndex};
use tollgate_shared::time::UnixSeconds;

use super::{Store, StoreError, signed, unsigned};

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
        let RevocationQuery { dimension, value, actor, since, until, after } = query;
        // Each value has its own two look-ups; without one the log is read in its order.
        let which = match value {
            Some(_) => {
                "((kind = 'cutoff' AND dimension IN ('token', 'session', 'subject', 'client', 'tenant', 'key', 'issuer') \
                 AND value = $7) OR (kind = 'index' AND status_index = $8))"
            }
            None => "kind IN ('index', 'cutoff')",
        };
        let statement = format!(
            "SELECT position, kind, status_index, dimension, issuer, value, issued_before, until, reason, actor, \
             created_at FROM feed_log WHERE {which} AND position > $1 AND created_at >= $2 AND created_at <= $3 \
             AND (CAST($4 AS TEXT) IS NULL OR actor = $4) \
             AND (CAST($5 AS TEXT) IS NULL OR COALESCE(dimension, 'token') = $5) ORDER BY position LIMIT $6"
        );
        let statement = &statement;
        self.home
            .run(move || async move {
                let mut wanted = sqlx::query(sqlx::AssertSqlSafe(statement.clone()))
                    .bind(signed(after.unwrap_or_default().0))
                    .bind(signed(since.unwrap_or_default().0))
                    .bind(signed(until.map_or(u64::MAX, |until| until.0)))
                    .bind(actor.as_deref())
                    .bind(dimension.map(Dimension::name))
                    .bind(i64::from(limit));
                if let Some(value) = value {
                    // No token has the place -1.
                    wanted = wanted.bind(value).bind(place(value).map_or(-1, |index| i64::from(index.0)));
                }
                let rows = wanted.fetch_all(self.home.readers()).await?;
                rows.iter().map(record).collect()
            })
            .await
    }
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
