//! Keeps what running edges said of themselves last, one row for each process.

use sqlx::Row as _;
use sqlx::any::AnyRow;
use tollgate_shared::revocation::{Epoch, Position};
use tollgate_shared::time::{UnixMillis, UnixSeconds};

use super::{Store, StoreError, signed, unsigned};
use crate::breaker::BreakerState;
use crate::heartbeats::{Heartbeat, SHOWN_SECONDS, edges_of};
use crate::propagation::InstanceKey;

impl Store {
    /// Keeps these, in one transaction. Of each edge the `instances_max` that were heard of last stay.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn keep_heartbeats(
        &self,
        beats: &[(InstanceKey, Heartbeat)],
        instances_max: usize,
    ) -> Result<(), StoreError> {
        if beats.is_empty() {
            return Ok(());
        }
        let instances_max = i64::try_from(instances_max).unwrap_or(i64::MAX);
        self.home
            .run(move || async move {
                let mut write = self.home.write(&[]).await?;
                for (InstanceKey { edge, instance }, beat) in beats {
                    let date = |date: UnixMillis| signed(date.0);
                    sqlx::query(
                        "INSERT INTO edge_instances (edge, instance, host, version, workers, epoch, position, enforced, \
                         enforced_at_ms, state_as_of_ms, issuer_state, seen_at_ms) \
                         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) \
                         ON CONFLICT (edge, instance) DO UPDATE SET host = excluded.host, version = excluded.version, \
                         workers = excluded.workers, epoch = excluded.epoch, position = excluded.position, \
                         enforced = excluded.enforced, enforced_at_ms = excluded.enforced_at_ms, \
                         state_as_of_ms = excluded.state_as_of_ms, issuer_state = excluded.issuer_state, \
                         seen_at_ms = excluded.seen_at_ms WHERE excluded.seen_at_ms >= edge_instances.seen_at_ms",
                    )
                    .bind(edge)
                    .bind(instance)
                    .bind(&beat.host)
                    .bind(&beat.version)
                    .bind(i64::from(beat.workers))
                    .bind(beat.epoch.map(Epoch::to_hex))
                    .bind(beat.position.map(|position| signed(position.0)))
                    .bind(beat.enforced.map(|position| signed(position.0)))
                    .bind(date(beat.enforced_at))
                    .bind(beat.state_as_of.map(date))
                    .bind(beat.issuer_state.name())
                    .bind(date(beat.seen_at))
                    .execute(&mut *write)
                    .await?;
                }
                for edge in edges_of(beats) {
                    sqlx::query(
                        "DELETE FROM edge_instances WHERE edge = $1 AND instance NOT IN (SELECT instance \
                         FROM edge_instances WHERE edge = $1 ORDER BY seen_at_ms DESC, instance LIMIT $2)",
                    )
                    .bind(edge)
                    .bind(instances_max)
                    .execute(&mut *write)
                    .await?;
                }
                write.commit().await?;
                Ok(())
            })
            .await
    }

    /// What instances said that were heard of after `since`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn heartbeats(&self, since: UnixMillis) -> Result<Vec<(InstanceKey, Heartbeat)>, StoreError> {
        self.home
            .run(move || async move {
                let rows = sqlx::query(
                    "SELECT edge, instance, host, version, workers, epoch, position, enforced, enforced_at_ms, \
                     state_as_of_ms, issuer_state, seen_at_ms FROM edge_instances WHERE seen_at_ms > $1",
                )
                .bind(signed(since.0))
                .fetch_all(self.home.readers())
                .await?;
                rows.iter().map(heartbeat).collect()
            })
            .await
    }

    /// Removes the instances that nobody has heard of for a day.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn prune_heartbeats(&self, now: UnixSeconds) -> Result<u64, StoreError> {
        self.home
            .run(move || async move {
                let mut write = self.home.write(&[]).await?;
                let removed = sqlx::query("DELETE FROM edge_instances WHERE seen_at_ms < $1")
                    .bind(signed(now.minus(SHOWN_SECONDS).0.saturating_mul(1000)))
                    .execute(&mut *write)
                    .await?;
                write.commit().await?;
                Ok(removed.rows_affected())
            })
            .await
    }
}

fn heartbeat(row: &AnyRow) -> Result<(InstanceKey, Heartbeat), StoreError> {
    let position = |number: Option<i64>| number.map(|number| Position(unsigned(number)));
    let date = |number: i64| UnixMillis(unsigned(number));
    let workers: i64 = row.try_get("workers")?;
    let epoch: Option<&str> = row.try_get("epoch")?;
    let epoch = epoch.map(|text| Epoch::from_hex(text).ok_or(StoreError::Corrupt("edge_instances.epoch")));
    let state = BreakerState::of(row.try_get("issuer_state")?);
    let state_as_of: Option<i64> = row.try_get("state_as_of_ms")?;
    let who = InstanceKey { edge: row.try_get("edge")?, instance: row.try_get("instance")? };
    let beat = Heartbeat {
        host: row.try_get("host")?,
        version: row.try_get("version")?,
        workers: u32::try_from(workers).map_err(|_| StoreError::Corrupt("edge_instances.workers"))?,
        epoch: epoch.transpose()?,
        position: position(row.try_get("position")?),
        enforced: position(row.try_get("enforced")?),
        enforced_at: date(row.try_get("enforced_at_ms")?),
        state_as_of: state_as_of.map(date),
        issuer_state: state.ok_or(StoreError::Corrupt("edge_instances.issuer_state"))?,
        seen_at: date(row.try_get("seen_at_ms")?),
    };
    Ok((who, beat))
}
