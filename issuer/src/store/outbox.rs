//! Keeps revocations that were decided with a user's rows until they are in the feed's log.
//!
//! The rows of a user and the log may be in different databases, which share no transaction. So the decision and the wish
//! to publish it are written in one transaction where the user is, and the wish goes when the log has it. A crash in
//! between is made good by the next pass; publishing twice adds nothing but a second entry for the same.

use sqlx::Row as _;
use tollgate_shared::revocation::{Dimension, Position};
use tollgate_shared::time::UnixSeconds;

use super::cutoffs::Reach;
use super::database::{Database, Lock, Tx};
use super::feed_log::{Entry, revoke_in};
use super::{RevocationOrder, Store, StoreError, signed};
use crate::clock::Host;
use crate::credential::new_id;

/// The most that one pass publishes.
const PASS_MAX: i64 = 1000;

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
    /// Publishes what waits for it, and tells the position that the last of it has.
    ///
    /// # Errors
    /// [`StoreError`]; what was not published waits for the next time.
    pub async fn publish_outbox(&self, host: &dyn Host) -> Result<Option<Position>, StoreError> {
        let mut last = None;
        for database in self.shards.all() {
            last = last.max(self.publish_outbox_of(database, host).await?);
        }
        Ok(last)
    }

    async fn publish_outbox_of(
        &self,
        database: &Database,
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
            let dimension: String = row.try_get("dimension")?;
            let dimension = Dimension::of(&dimension).ok_or(StoreError::Corrupt("outbox.dimension"))?;
            let order = RevocationOrder::Value { dimension, issuer: None, value: row.try_get("value")? };
            let ends_sessions: i64 = row.try_get("ends_sessions")?;
            let reach = if ends_sessions == 0 { Reach::Tokens } else { Reach::Sessions };
            let (reason, actor): (Option<String>, String) = (row.try_get("reason")?, row.try_get("actor")?);
            let latest = self.latest_token(&order).await?;
            let entry = Entry { order: &order, reach, reason: reason.as_deref(), actor: &actor };
            let logged = self
                .home
                .run(move || async move {
                    let mut write = self.home.write(&[Lock::Feed]).await?;
                    let logged = revoke_in(&mut write, &entry, latest, host.seconds()).await?;
                    host.reached("outbox.before_publish");
                    write.commit().await?;
                    Ok(logged)
                })
                .await?;
            host.reached("outbox.published");
            let id = id.as_str();
            last = last.max(Some(logged.position));
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
        Ok(last)
    }
}
