//! Keeps revocations that were decided with a user's rows until they are in the feed's log.
//!
//! The rows of a user and the log may be in different databases, which share no transaction. So the decision and the wish
//! to publish it are written in one transaction where the user is, and the wish goes when the log has it. What was
//! published is noted with the entry in the log: a wish is published once, by whichever replica and after whatever crash. A
//! second time would be a later cut-off, and end the sessions that began after the first.

use sqlx::Row as _;
use sqlx::any::AnyRow;
use tollgate_shared::revocation::{Dimension, Position};
use tollgate_shared::time::UnixSeconds;

use super::cutoffs::Reach;
use super::database::{Database, Lock, Tx};
use super::feed_log::{Entry, last_position, revoke_in};
use super::latest_token::LatestToken;
use super::{RevocationOrder, Store, StoreError, signed, unsigned};
use crate::clock::Host;
use crate::credential::new_id;

/// How many wishes are read at once.
const PAGE_MAX: i64 = 1000;

/// The ids of wishes that are published later, unless they are withdrawn, begin so.
const LATER: &str = "later_";

/// How long it is known that a wish was published, in seconds.
const PUBLISHED_SECONDS: u64 = 7 * 86_400;

/// Whether a wish is in the same database as the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Home {
    Here,
    Elsewhere,
}

/// A revocation that goes with a change.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish<'w> {
    pub(super) dimension: Dimension,
    pub(super) value: &'w str,
    pub(super) reach: Reach,
    pub(super) reason: &'w str,
    pub(super) actor: &'w str,
    /// `exp` of the last token that it covers, when that is known.
    pub(super) token_until: Option<UnixSeconds>,
}

/// By what a wish is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WishId(String);

/// The revocations that a change wished for, and where they wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wished {
    shard: usize,
    wishes: Vec<WishId>,
}

impl Wished {
    /// These, in that database.
    pub(super) fn at(database: &Database, wishes: Vec<WishId>) -> Self {
        Self { shard: database.shard(), wishes }
    }
}

/// Writes down, with the change itself, that it is to be published.
pub(super) async fn wish(
    write: &mut Tx,
    wish: Wish<'_>,
    now: UnixSeconds,
    host: &dyn Host,
) -> Result<WishId, StoreError> {
    insert(write, "o_", wish, now, host).await
}

/// The same for a revocation that is needed only if the rest of a change does not follow in time: it is published at `due`, unless
/// it is withdrawn before.
pub(super) async fn wish_unless_withdrawn(
    write: &mut Tx,
    wish: Wish<'_>,
    due: UnixSeconds,
    host: &dyn Host,
) -> Result<WishId, StoreError> {
    insert(write, LATER, wish, due, host).await
}

/// What such a wish was for has been done.
pub(super) async fn withdraw(write: &mut Tx, WishId(id): &WishId) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM outbox WHERE id = $1").bind(id).execute(&mut **write).await?;
    Ok(())
}

async fn insert(
    write: &mut Tx,
    prefix: &str,
    wish: Wish<'_>,
    at: UnixSeconds,
    host: &dyn Host,
) -> Result<WishId, StoreError> {
    let id = WishId(new_id(prefix, host)?);
    let Wish { dimension, value, reach, reason, actor, token_until } = wish;
    sqlx::query(
        "INSERT INTO outbox (id, dimension, value, ends_sessions, reason, actor, created_at, token_until) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(&id.0)
    .bind(dimension.name())
    .bind(value)
    .bind(i64::from(reach == Reach::Sessions))
    .bind(reason)
    .bind(actor)
    .bind(signed(at.0))
    .bind(token_until.map(|date| signed(date.0)))
    .execute(&mut **write)
    .await?;
    Ok(id)
}

/// What is read of a wish.
const SELECT: &str =
    "SELECT id, dimension, value, ends_sessions, reason, actor, created_at, token_until FROM outbox";

impl Store {
    /// Publishes what one change wished for, and tells the position that the last of it has. What becomes of others' wishes
    /// is nothing to it.
    ///
    /// # Errors
    /// [`StoreError`]; what was not published waits for the next pass.
    pub async fn publish(&self, wished: &Wished, host: &dyn Host) -> Result<Option<Position>, StoreError> {
        let database = self.shards.at(wished.shard)?;
        let (mut last, mut failed) = (None, None);
        for WishId(id) in &wished.wishes {
            let row = database.run(move || async move {
                let select = sqlx::AssertSqlSafe(format!("{SELECT} WHERE id = $1"));
                Ok(sqlx::query(select).bind(id).fetch_optional(database.readers()).await?)
            });
            let published = match row.await {
                Ok(Some(row)) => self.publish_row(database, &row, host).await,
                // A pass was faster.
                Ok(None) => self.position().await,
                Err(error) => Err(error),
            };
            match published {
                Ok(position) => last = last.max(Some(position)),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(last), Err)
    }

    /// Publishes everything that waits for it, in every database that can be reached, and tells the position that the last
    /// of it has.
    ///
    /// # Errors
    /// [`StoreError`] of the first that was not published; it waits for the next time, and holds up no other.
    pub async fn publish_outbox(&self, host: &dyn Host) -> Result<Option<Position>, StoreError> {
        let (mut last, mut failed) = (None, None);
        for database in self.shards.all() {
            // After the page before, whatever became of it.
            let mut after = (0, String::new());
            loop {
                let rows = match waiting(database, &after).await {
                    Ok(rows) => rows,
                    Err(error) => {
                        failed = failed.or(Some(error));
                        break;
                    }
                };
                let Some(end) = rows.last() else { break };
                after = (end.try_get("created_at")?, end.try_get("id")?);
                for row in &rows {
                    if !is_due(row, host.seconds())? {
                        continue;
                    }
                    match self.publish_row(database, row, host).await {
                        Ok(position) => last = last.max(Some(position)),
                        Err(error) => failed = failed.or(Some(error)),
                    }
                }
            }
        }
        failed.map_or(Ok(last), Err)
    }

    /// Publishes a wish and removes it.
    async fn publish_row(
        &self,
        database: &Database,
        row: &AnyRow,
        host: &dyn Host,
    ) -> Result<Position, StoreError> {
        let id: &str = row.try_get("id")?;
        let home = if database.shard() == 0 { Home::Here } else { Home::Elsewhere };
        let position = self.log_wish(id, row, home, host).await?;
        host.reached("outbox.published");
        if home == Home::Elsewhere {
            database
                .run(move || async move {
                    let mut write = database.write(&[]).await?;
                    sqlx::query("DELETE FROM outbox WHERE id = $1").bind(id).execute(&mut *write).await?;
                    host.reached("outbox.before_removal");
                    write.commit().await?;
                    host.reached("outbox.removed");
                    Ok(())
                })
                .await?;
        }
        Ok(position)
    }

    /// Has the log take one wish, unless it has it. Tells a position at which it does.
    async fn log_wish(
        &self,
        id: &str,
        row: &AnyRow,
        home: Home,
        host: &dyn Host,
    ) -> Result<Position, StoreError> {
        let dimension: String = row.try_get("dimension")?;
        let dimension = Dimension::of(&dimension).ok_or(StoreError::Corrupt("outbox.dimension"))?;
        let order = RevocationOrder::Value { dimension, issuer: None, value: row.try_get("value")? };
        let ends_sessions: i64 = row.try_get("ends_sessions")?;
        let reach = if ends_sessions == 0 { Reach::Tokens } else { Reach::Sessions };
        let (reason, actor): (Option<String>, String) = (row.try_get("reason")?, row.try_get("actor")?);
        let token_until: Option<i64> = row.try_get("token_until")?;
        let token_until = token_until.map(|date| UnixSeconds(unsigned(date)));
        // One that was issued since is covered by its date, so that it counts as well.
        let latest = self.latest_token(&order, host).await?;
        let latest =
            LatestToken { until: token_until.map(|date| latest.until.unwrap_or(date).max(date)), ..latest };
        let entry = Entry { order: &order, reach, reason: reason.as_deref(), actor: &actor };
        self.home
            .run(move || async move {
                let mut write = self.home.write(&[Lock::Feed]).await?;
                let now = host.seconds();
                let is_first = match home {
                    Home::Here => sqlx::query("DELETE FROM outbox WHERE id = $1").bind(id),
                    Home::Elsewhere => sqlx::query(
                        "INSERT INTO outbox_published (id, at) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING",
                    )
                    .bind(id)
                    .bind(signed(now.0)),
                };
                let is_first = is_first.execute(&mut *write).await?.rows_affected() == 1;
                let position = if is_first {
                    revoke_in(&mut write, &entry, latest, now).await?.position
                } else {
                    last_position(&mut write).await?
                };
                host.reached("outbox.before_publish");
                write.commit().await?;
                Ok(position)
            })
            .await
    }

    /// Forgets what was published so long ago that nobody can be about to publish it again.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn prune_outbox(&self, now: UnixSeconds) -> Result<u64, StoreError> {
        let before = signed(now.minus(PUBLISHED_SECONDS).0);
        self.home
            .run(move || async move {
                let mut write = self.home.write(&[]).await?;
                let removed = sqlx::query("DELETE FROM outbox_published WHERE at < $1").bind(before);
                let removed = removed.execute(&mut *write).await?.rows_affected();
                write.commit().await?;
                Ok(removed)
            })
            .await
    }
}

/// Whether a wish is to be published now.
fn is_due(row: &AnyRow, now: UnixSeconds) -> Result<bool, StoreError> {
    let (id, at): (&str, i64) = (row.try_get("id")?, row.try_get("created_at")?);
    Ok(!id.starts_with(LATER) || unsigned(at) <= now.0)
}

/// The wishes that wait in a database, the oldest first, from beyond the date and id of one of them.
async fn waiting(database: &Database, after: &(i64, String)) -> Result<Vec<AnyRow>, StoreError> {
    let (created_at, id) = after;
    database
        .run(move || async move {
            let page = format!("{SELECT} WHERE (created_at, id) > ($1, $2) ORDER BY created_at, id LIMIT $3");
            let page = sqlx::query(sqlx::AssertSqlSafe(page)).bind(created_at).bind(id).bind(PAGE_MAX);
            Ok(page.fetch_all(database.readers()).await?)
        })
        .await
}
