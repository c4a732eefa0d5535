//! Keeps what running edges said of themselves last, one row for each process.

use std::collections::BTreeSet;

use sqlx::Row as _;
use sqlx::any::AnyRow;
use tollgate_shared::revocation::{Epoch, Position};
use tollgate_shared::time::{UnixMillis, UnixSeconds};

use super::database::Tx;
use super::{Store, StoreError, signed, unsigned};
use crate::breaker::BreakerState;
use crate::heartbeats::{Heartbeat, SHOWN_SECONDS, edges_of};
use crate::propagation::InstanceKey;

/// So many are written at once.
const ROWS_AT_ONCE: usize = 256;
/// The columns of a row.
const COLUMNS: usize = 12;

impl Store {
    /// Keeps these, of which no two are of one instance, some hundred in a transaction. Of each edge the `instances_max` that were
    /// heard of last stay.
    ///
    /// # Errors
    /// [`StoreError`]; some may have been kept.
    pub async fn keep_heartbeats(
        &self,
        beats: &[(InstanceKey, Heartbeat)],
        instances_max: usize,
    ) -> Result<(), StoreError> {
        let instances_max = i64::try_from(instances_max).unwrap_or(i64::MAX);
        for some in beats.chunks(ROWS_AT_ONCE) {
            self.keep_some_heartbeats(some, instances_max).await?;
        }
        Ok(())
    }

    async fn keep_some_heartbeats(
        &self,
        beats: &[(InstanceKey, Heartbeat)],
        instances_max: i64,
    ) -> Result<(), StoreError> {
        let row = |number: usize| format!("({})", parameters(number * COLUMNS + 1, COLUMNS));
        let rows: Vec<String> = (0..beats.len()).map(row).collect();
        let statement = &format!(
            "INSERT INTO edge_instances (edge, instance, host, version, workers, epoch, position, enforced, \
             enforced_at_ms, state_as_of_ms, issuer_state, seen_at_ms) VALUES {} \
             ON CONFLICT (edge, instance) DO UPDATE SET host = excluded.host, version = excluded.version, \
             workers = excluded.workers, epoch = excluded.epoch, position = excluded.position, \
             enforced = excluded.enforced, enforced_at_ms = excluded.enforced_at_ms, \
             state_as_of_ms = excluded.state_as_of_ms, issuer_state = excluded.issuer_state, \
             seen_at_ms = excluded.seen_at_ms WHERE excluded.seen_at_ms >= edge_instances.seen_at_ms",
            rows.join(", ")
        );
        self.home
            .run(move || async move {
                let mut write = self.home.write(&[]).await?;
                let mut query = sqlx::query(sqlx::AssertSqlSafe(statement.clone()));
                for (InstanceKey { edge, instance }, beat) in beats {
                    let date = |date: UnixMillis| signed(date.0);
                    query = query
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
                        .bind(date(beat.seen_at));
                }
                query.execute(&mut *write).await?;
                thin_out(&mut write, &edges_of(beats), instances_max).await?;
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

/// Removes from those of these edges that have too many instances the ones heard of longest ago.
async fn thin_out(write: &mut Tx, edges: &BTreeSet<&str>, instances_max: i64) -> Result<(), StoreError> {
    let statement = format!(
        "SELECT edge FROM edge_instances WHERE edge IN ({}) GROUP BY edge HAVING COUNT(*) > $1",
        parameters(2, edges.len())
    );
    let mut query = sqlx::query_scalar(sqlx::AssertSqlSafe(statement)).bind(instances_max);
    for edge in edges {
        query = query.bind(*edge);
    }
    let crowded: Vec<String> = query.fetch_all(&mut **write).await?;
    for edge in crowded {
        sqlx::query(
            "DELETE FROM edge_instances WHERE edge = $1 AND instance NOT IN (SELECT instance \
             FROM edge_instances WHERE edge = $1 ORDER BY seen_at_ms DESC, instance LIMIT $2)",
        )
        .bind(edge)
        .bind(instances_max)
        .execute(&mut **write)
        .await?;
    }
    Ok(())
}

/// So many parameters of a statement, from this one on.
fn parameters(first: usize, count: usize) -> String {
    let all: Vec<String> = (first..first + count).map(|number| format!("${number}")).collect();
    all.join(", ")
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
