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
use super::{RevocationOrder, Store, StoreError, signed};
use crate::clock::Host;
use crate::credential::new_id;

/// The most that one pass publishes.
const PASS_MAX: i64 = 1000;

/// How long it is known that a wish was published, in seconds.
const PUBLISHED_SECONDS: u64 = 7 * 86_400;

/// Whether a wish is in the same database as the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Home {
    Here,
    Elsewhere,
}

/// A revocation that goes with a change of a user's rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish<'w> {
    pub(super) dimension: Dimension,
    pub(super) value: &'w str,
    pub(super) reach: Reach,
    pub(super) reason: &'w str,
    pub(super) actor: &'w str,
}

/// Writes down, with the change itself, that it is to be published.
pub(super) async fn wish(
    write: &mut Tx,
    wish: Wish<'_>,
    now: UnixSeconds,
    host: &dyn Host,
) -> Result<(), StoreError> {
    let Wish { dimension, value, reach, reason, actor } = wish;
    sqlx::query(
        "INSERT INTO outbox (id, dimension, value, ends_sessions, reason, actor, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(new_id("o_", host)?)
    .bind(dimension.name())
    .bind(value)
    .bind(i64::from(reach == Reach::Sessions))
    .bind(reason)
    .bind(actor)
    .bind(signed(now.0))
    .execute(&mut **write)
    .await?;
    Ok(())
}

impl Store {
    /// Publishes what waits for it, in every database that can be reached, and tells the position that the last of it has.
    ///
    /// # Errors
    /// [`StoreError`] of the first database that could not be reached; what was not published waits for the next time.
    pub async fn publish_outbox(&self, host: &dyn Host) -> Result<Option<Position>, StoreError> {
        let (mut last, mut failed) = (None, None);
        for (number, database) in self.shards.all().iter().enumerate() {
            let home = if number == 0 { Home::Here } else { Home::Elsewhere };
            match self.publish_outbox_of(database, home, host).await {
                Ok(position) => last = last.max(position),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(last), Err)
    }

    async fn publish_outbox_of(
        &self,
        database: &Database,
        home: Home,
        host: &dyn Host,
    ) -> Result<Option<Position>, StoreError> {
        let rows = database
            .run(move || async move {
                let rows = sqlx::query(
                    "SELECT id, dimension, value, ends_sessions, reason, actor FROM outbox ORDER BY created_at LIMIT $1",
                )
                .bind(PASS_MAX)
                .fetch_all(database.readers())
                .await?;
                Ok(rows)
            })
            .await?;
        let mut last = None;
        for row in rows {
            let id: String = row.try_get("id")?;
            last = last.max(Some(self.publish(&id, &row, home, host).await?));
            host.reached("outbox.published");
            if home == Home::Elsewhere {
                let id = id.as_str();
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
        }
        Ok(last)
    }

    /// Publishes one wish, unless somebody has. Tells a position at which the log has it.
    async fn publish(
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
        let latest = self.latest_token(&order).await?;
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
