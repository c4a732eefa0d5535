//! Keeps the audit log: rows are added and, when their time is over, removed; never changed.

use sqlx::Row as _;
use sqlx::any::AnyRow;
use tollgate_shared::time::UnixSeconds;

use super::database::{Database, Flavour, Lock, Tx};
use super::{Store, StoreError, signed, unsigned};
use crate::audit::{AuditEvent, AuditQuery, AuditRecord, new_audit_id};
use crate::clock::Host;

/// The tables that Postgres keeps in one part for each span.
/// A login writes to them in this order, and whoever takes both in another one would wait for it in a circle.
const PARTED: [&str; 2] = ["login_events", "audit"];
/// How long the span of a part is, in seconds: thirty days.
const PART_SECONDS: u64 = 30 * 86_400;
/// How many events are removed in one transaction.
const PRUNED_AT_ONCE: u64 = 5_000;
/// How many parts there are ahead of time.
const PARTS_AHEAD: u64 = 2;

impl Store {
    /// Adds these events, in one transaction. Their ids are in the order of commits, whichever replica adds them: who reads
    /// on after an event misses none that was added earlier.
    ///
    /// # Errors
    /// [`StoreError`]; none was added then.
    pub async fn add_audit(&self, events: &[AuditEvent], host: &dyn Host) -> Result<(), StoreError> {
        self.home
            .run(move || async move {
                let mut write = self.home.write(&[]).await?;
                add_in(&self.home, &mut write, events, host).await?;
                write.commit().await?;
                Ok(())
            })
            .await
    }

    /// The events that are wanted, oldest first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn audit(&self, query: &AuditQuery, limit: u32) -> Result<Vec<AuditRecord>, StoreError> {
        let AuditQuery { actor, action, target, since, until, after } = query;
        self.home
            .run(move || async move {
                let rows = sqlx::query(
                    "SELECT id, at, actor, action, target, outcome, address, detail FROM audit WHERE id > $1 \
                     AND at >= $2 AND at <= $3 AND (CAST($4 AS TEXT) IS NULL OR actor = $4) \
                     AND (CAST($5 AS TEXT) IS NULL OR action = $5) AND (CAST($6 AS TEXT) IS NULL OR target = $6) \
                     ORDER BY id LIMIT $7",
                )
                .bind(after.as_deref().unwrap_or_default())
                .bind(signed(since.unwrap_or_default().0))
                .bind(signed(until.map_or(u64::MAX, |until| until.0)))
                .bind(actor.as_deref())
                .bind(action.as_deref())
                .bind(target.as_deref())
                .bind(i64::from(limit))
                .fetch_all(self.home.readers())
                .await?;
                rows.iter().map(record_from_row).collect()
            })
            .await
    }

    /// Removes events and logins from before a date, in every database that can be reached. Postgres drops parts that are
    /// over as a whole first.
    ///
    /// # Errors
    /// [`StoreError`] of the first that could not.
    pub async fn prune_audit(&self, before: UnixSeconds) -> Result<u64, StoreError> {
        let (mut removed, mut failed) = (0, None);
        for database in self.shards.all() {
            match prune(database, before).await {
                Ok(count) => removed += count,
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(removed), Err)
    }

    /// Makes the parts that the next events will go to, in every database that can be reached.
    ///
    /// # Errors
    /// [`StoreError`] of the first that could not.
    pub async fn prepare_parts(&self, now: UnixSeconds) -> Result<(), StoreError> {
        let mut prepared = Ok(());
        for database in self.shards.all() {
            if database.flavour() == Flavour::Postgres {
                let added = database.run(move || async move { add_parts(database, now).await }).await;
                prepared = prepared.and(added);
            }
        }
        prepared
    }
}

/// Adds these events at the end of a transaction of the home database. The log's lock comes after all others that the
/// transaction takes.
pub(super) async fn add_in(
    home: &Database,
    write: &mut Tx,
    events: impl IntoIterator<Item = &AuditEvent>,
    host: &dyn Host,
) -> Result<(), StoreError> {
    let mut events = events.into_iter().peekable();
    if events.peek().is_none() {
        return Ok(());
    }
    home.lock(write, &[Lock::Audit]).await?;
    let mut last = home.last_audit_id();
    for event in events {
        let mut id = new_audit_id(last.as_deref(), host)?;
        // Most often the last event is one of this process. Another's may have a later id, also of a clock that is ahead.
        while !add(write, &id, event, host).await? {
            let others = sqlx::query_scalar("SELECT MAX(id) FROM audit").fetch_one(&mut **write).await?;
            let others: Option<String> = others;
            id = new_audit_id(others.as_deref(), host)?;
        }
        last = Some(id);
    }
    // Should the transaction come to nothing, the next id is only later than it had to be.
    home.set_last_audit_id(last);
    Ok(())
}

/// Adds one event, within a transaction that has the log's lock, unless there is one with a later id. Tells whether it did.
async fn add(write: &mut Tx, id: &str, event: &AuditEvent, host: &dyn Host) -> Result<bool, StoreError> {
    let AuditEvent { actor, action, target, outcome, address, detail } = event;
    let added = sqlx::query(
        "INSERT INTO audit (id, at, actor, action, target, outcome, address, detail) \
         SELECT $1, $2, $3, $4, $5, $6, $7, $8 WHERE NOT EXISTS (SELECT 1 FROM audit WHERE id >= $1)",
    )
    .bind(id)
    .bind(signed(host.seconds().0))
    .bind(actor)
    .bind(action.name())
    .bind(target)
    .bind(outcome.name())
    .bind(address.as_deref())
    .bind(detail)
    .execute(&mut **write)
    .await?;
    Ok(added.rows_affected() == 1)
}

async fn prune(database: &Database, before: UnixSeconds) -> Result<u64, StoreError> {
    if database.flavour() == Flavour::Postgres {
        database.run(move || async move { drop_parts(database, before).await }).await?;
    }
    let mut removed = 0;
    for table in PARTED {
        loop {
            let some = database.run(move || async move { prune_some(database, table, before).await }).await?;
            removed += some;
            if some < PRUNED_AT_ONCE {
                break;
            }
        }
    }
    Ok(removed)
}

async fn drop_parts(database: &Database, before: UnixSeconds) -> Result<(), StoreError> {
    let mut write = database.write(&[Lock::Meta]).await?;
    for table in PARTED {
        for part in parts(&mut write, table).await? {
            if part.saturating_add(1) * PART_SECONDS <= before.0 {
                let statement = format!("DROP TABLE {table}_{part}");
                sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut *write).await?;
            }
        }
    }
    write.commit().await?;
    Ok(())
}

async fn prune_some(database: &Database, table: &str, before: UnixSeconds) -> Result<u64, StoreError> {
    let mut write = database.write(&[]).await?;
    let statement = format!(
        "DELETE FROM {table} WHERE at < $1 AND id IN (SELECT id FROM {table} WHERE at < $1 ORDER BY at LIMIT $2)"
    );
    let removed =
        sqlx::query(sqlx::AssertSqlSafe(statement)).bind(signed(before.0)).bind(signed(PRUNED_AT_ONCE));
    let removed = removed.execute(&mut *write).await?.rows_affected();
    write.commit().await?;
    Ok(removed)
}

/// The numbers of the parts that a table has.
async fn parts(write: &mut Tx, table: &str) -> Result<Vec<u64>, StoreError> {
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT CAST(child.relname AS TEXT) FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid \
         WHERE inhparent = to_regclass($1)",
    )
    .bind(table)
    .fetch_all(&mut **write)
    .await?;
    let number = |name: &String| name.strip_prefix(table)?.strip_prefix('_')?.parse().ok();
    Ok(names.iter().filter_map(number).collect())
}

async fn add_parts(database: &Database, now: UnixSeconds) -> Result<(), StoreError> {
    let first = now.0 / PART_SECONDS;
    let mut write = database.write(&[Lock::Meta]).await?;
    for table in PARTED {
        let known = parts(&mut write, table).await?;
        for part in first..=first + PARTS_AHEAD {
            if known.contains(&part) {
                continue;
            }
            let (from, to) = (part * PART_SECONDS, (part + 1) * PART_SECONDS);
            // What went to the rest in the meantime has to be where it belongs before the part can be added, and nothing may
            // go there while it is brought.
            let statements = [
                format!("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE"),
                format!("CREATE TABLE {table}_{part} (LIKE {table} INCLUDING ALL)"),
                format!(
                    "WITH moved AS (DELETE FROM {table}_rest WHERE at >= {from} AND at < {to} RETURNING *) \
                     INSERT INTO {table}_{part} SELECT * FROM moved"
                ),
                format!(
                    "ALTER TABLE {table} ATTACH PARTITION {table}_{part} FOR VALUES FROM ({from}) TO ({to})"
                ),
            ];
            for statement in statements {
                sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut *write).await?;
            }
        }
    }
    write.commit().await?;
    Ok(())
}

fn record_from_row(row: &AnyRow) -> Result<AuditRecord, StoreError> {
    let at: i64 = row.try_get("at")?;
    Ok(AuditRecord {
        id: row.try_get("id")?,
        at: UnixSeconds(unsigned(at)),
        actor: row.try_get("actor")?,
        action: row.try_get("action")?,
        target: row.try_get("target")?,
        outcome: row.try_get("outcome")?,
        address: row.try_get("address")?,
        detail: row.try_get("detail")?,
    })
}
