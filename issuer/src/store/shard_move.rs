//! Moves slots of users from one Postgres database to another while the service runs.
//!
//! A slot is given up where it was, then copied and owned where it goes, then its history is brought after it, then it is
//! deleted where it was, then known to be where it went. Between the first two nobody has it, and who needs one of its users
//! waits: for as long as copying them takes, and no longer than [`HANDOVER_MAX`]. When that fails, the slot is given back. A
//! move that was cut short by a crash is taken up where it stopped. At no moment do two databases own a slot: the second
//! gets it only while the first has not got it, and what a transaction writes it writes where the slot is owned until the
//! transaction ends.
//!
//! Two programs may move the same slot at once, one of them from a plan that is long over. So each step looks again, under
//! the slot's lock in the database it changes, whether the move is still on. To have the slot change hands, either way, a
//! program has its lock where it goes: while one copies, no other gives it back.

use std::time::Duration;

use sqlx::Row as _;

use super::database::{Database, Flavour, Lock, Tx};
use super::shards::SLOTS;
use super::{Store, StoreError, list_to_json};

/// The tables that a user needs, each with what picks a slot's rows. A row is copied before those that follow from it.
const TABLES: [(&str, &str); 4] = [
    ("users", "slot = $1"),
    ("devices", "user_id IN (SELECT id FROM users WHERE slot = $1)"),
    ("sessions", "user_id IN (SELECT id FROM users WHERE slot = $1)"),
    (
        "refresh_tokens",
        "session_id IN (SELECT id FROM sessions WHERE user_id IN (SELECT id FROM users WHERE slot = $1))",
    ),
];
/// What picks a slot's rows of the history, which nobody waits for.
const HISTORY: &str = "user_id IN (SELECT id FROM users WHERE slot = $1)";
/// How many rows are copied at once.
const ROWS_MAX: i64 = 1_000;

/// How long the users of a slot wait for it at most.
const HANDOVER_MAX: Duration = Duration::from_secs(30);

/// How far a spread has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotMove {
    /// Which slot.
    pub slot: u8,
    /// Where it was.
    pub from: usize,
    /// Where it is.
    pub to: usize,
}

impl Store {
    /// The moves that spread the slots evenly over all databases, those that were begun first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn planned_moves(&self) -> Result<Vec<SlotMove>, StoreError> {
        let map = self.slot_map().await?;
        let shards = self.shards.all().len();
        let mut counts = vec![0usize; shards];
        for (_, shard, _) in &map {
            if let Some(count) = counts.get_mut(*shard) {
                *count += 1;
            }
        }
        let mut moves = Vec::new();
        let mut plan = |slot, from: usize, to: usize, counts: &mut Vec<usize>| {
            moves.push(SlotMove { slot, from, to });
            if let Some(count) = counts.get_mut(from) {
                *count -= 1;
            }
            if let Some(count) = counts.get_mut(to) {
                *count += 1;
            }
        };
        for (slot, shard, moving_to) in &map {
            if let Some(to) = moving_to {
                plan(*slot, *shard, *to, &mut counts);
            }
        }
        for (slot, shard, _) in map.into_iter().filter(|(_, _, moving_to)| moving_to.is_none()) {
            let Some(to) = (0..shards).min_by_key(|shard| counts.get(*shard).copied()) else { continue };
            let (here, there) = (counts.get(shard).copied(), counts.get(to).copied());
            if here > Some(SLOTS.div_ceil(shards)) && there.is_some_and(|there| there < SLOTS / shards) {
                plan(slot, shard, to, &mut counts);
            }
        }
        Ok(moves)
    }

    /// Which slot is in which database, and where it is being moved to.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn slot_map(&self) -> Result<Vec<(u8, usize, Option<usize>)>, StoreError> {
        self.home
            .run(move || async move {
                let rows = sqlx::query("SELECT slot, shard, moving_to FROM slots ORDER BY slot")
                    .fetch_all(self.home.readers())
                    .await?;
                rows.iter()
                    .map(|row| {
                        let corrupt = |_| StoreError::Corrupt("slots");
                        let (slot, shard): (i64, i64) = (row.try_get("slot")?, row.try_get("shard")?);
                        let moving_to: Option<i64> = row.try_get("moving_to")?;
                        let slot = u8::try_from(slot).map_err(corrupt)?;
                        let shard = usize::try_from(shard).map_err(corrupt)?;
                        let moving_to = moving_to.map(usize::try_from).transpose().map_err(corrupt)?;
                        Ok((slot, shard, moving_to))
                    })
                    .collect()
            })
            .await
    }

    /// Moves one slot, or takes up the move of it that was cut short.
    ///
    /// # Errors
    /// [`StoreError`]; the slot is where it was or where it goes, and the move can be taken up again. [`StoreError::Changed`]
    /// when somebody else has finished it, or moves the slot somewhere else.
    pub async fn move_slot(&self, planned: SlotMove) -> Result<(), StoreError> {
        let SlotMove { from, to, .. } = planned;
        let (source, target) = (self.shards.at(from)?, self.shards.at(to)?);
        if source.flavour() == Flavour::Sqlite || from == to {
            return Ok(());
        }
        let host = self.home.host();
        // Before anybody has to wait for one that is away.
        source.ping().await?;
        target.ping().await?;
        self.note_move(planned).await?;
        host.reached("move.noted");
        let handed_over = match tokio::time::timeout(HANDOVER_MAX, self.hand_over(planned)).await {
            Ok(handed_over) => handed_over,
            Err(_) => Err(StoreError::Timeout),
        };
        if let Err(error) = handed_over {
            // Whether it has to be is looked up there: of a commit that was not answered nobody knows.
            if let Err(kept) = self.give_back(planned).await {
                tracing::warn!(slot = planned.slot, error = %kept, "slot not given back");
            }
            return Err(error);
        }
        while self.bring_history(planned).await? {}
        // Before the map says that the move is over, or a crash in between would leave these rows here for good.
        let mut write = source.write(&[Lock::SlotMove(planned.slot)]).await?;
        self.must_be_on(planned).await?;
        // What the target has not got is nowhere else.
        drop(target.read_slot(planned.slot).await?);
        delete_rows(&mut write, planned.slot).await?;
        host.reached("move.before_tidied");
        write.commit().await?;
        host.reached("move.tidied");
        self.settle_move(planned).await?;
        host.reached("move.settled");
        self.shards.read_map().await
    }

    /// Has the target own the slot in the place of the source, with everything that its users need.
    async fn hand_over(&self, planned: SlotMove) -> Result<(), StoreError> {
        let SlotMove { slot, from, to } = planned;
        let (source, target) = (self.shards.at(from)?, self.shards.at(to)?);
        let host = self.home.host();
        let mut write = source.write(&[Lock::SlotMove(slot)]).await?;
        self.must_be_on(planned).await?;
        // From here on nobody writes there: who had begun to has ended, and who comes sees that the slot is gone.
        disown(&mut write, slot).await?;
        host.reached("move.before_disowned");
        write.commit().await?;
        host.reached("move.disowned");
        let mut copy = target.write(&[Lock::SlotMove(slot)]).await?;
        self.must_be_on(planned).await?;
        // If it is there already, an earlier try got that far, and what was written since must not be copied over.
        if !owns(&mut copy, slot).await? {
            delete_rows(&mut copy, slot).await?;
            host.reached("move.cleared");
            copy_rows(source, &mut copy, slot).await?;
            own(&mut copy, slot).await?;
        }
        host.reached("move.copied");
        copy.commit().await?;
        host.reached("move.owned");
        Ok(())
    }

    /// Has the source own the slot again, unless the target does.
    async fn give_back(&self, planned: SlotMove) -> Result<(), StoreError> {
        let SlotMove { slot, from, to } = planned;
        // The target's lock first, as for a hand-over: one that is not over yet, or whose end is not known, is waited for.
        let mut kept = self.shards.at(to)?.write(&[Lock::SlotMove(slot)]).await?;
        self.must_be_on(planned).await?;
        if !owns(&mut kept, slot).await? {
            let mut write = self.shards.at(from)?.write(&[Lock::SlotMove(slot)]).await?;
            own(&mut write, slot).await?;
            // Once more, because the lock is gone if the server ended that transaction while this one waited.
            if !owns(&mut kept, slot).await? {
                write.commit().await?;
            }
        }
        drop(kept);
        Ok(())
    }

    /// Brings some of the slot's history from where its users were to where they are; tells whether there was any. Written
    /// there before it is removed here, each row once, it is never nowhere.
    async fn bring_history(&self, planned: SlotMove) -> Result<bool, StoreError> {
        let SlotMove { slot, from, to } = planned;
        let (source, target) = (self.shards.at(from)?, self.shards.at(to)?);
        // The locks of both in the order in which a slot is given back.
        let mut copy = target.write(&[Lock::SlotUse(slot)]).await?;
        if !owns(&mut copy, slot).await? {
            return Err(StoreError::Changed);
        }
        let mut write = source.write(&[Lock::SlotMove(slot)]).await?;
        self.must_be_on(planned).await?;
        let select = format!(
            "SELECT id, row_to_json(t)::text AS row FROM login_events t WHERE {HISTORY} LIMIT {ROWS_MAX}"
        );
        let select = sqlx::query(sqlx::AssertSqlSafe(select)).bind(i64::from(slot));
        let rows = select.fetch_all(&mut *write).await?;
        if rows.is_empty() {
            return Ok(false);
        }
        let (mut ids, mut records): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
        for row in &rows {
            ids.push(row.try_get("id")?);
            records.push(row.try_get("row")?);
        }
        insert_records(&mut copy, "login_events", &records).await?;
        copy.commit().await?;
        self.home.host().reached("move.history_copied");
        sqlx::query("DELETE FROM login_events WHERE id IN (SELECT json_array_elements_text($1::text::json))")
            .bind(list_to_json(&ids))
            .execute(&mut *write)
            .await?;
        write.commit().await?;
        self.home.host().reached("move.history_brought");
        Ok(true)
    }

    /// Writes down that a slot is being moved.
    async fn note_move(&self, planned: SlotMove) -> Result<(), StoreError> {
        let SlotMove { slot, from, to } = planned;
        let mut write = self.home.write(&[Lock::Meta]).await?;
        let noted = sqlx::query(
            "UPDATE slots SET moving_to = $1 WHERE slot = $2 AND shard = $3 \
             AND (moving_to IS NULL OR moving_to = $1)",
        )
        .bind(number(to))
        .bind(i64::from(slot))
        .bind(number(from))
        .execute(&mut *write)
        .await?;
        write.commit().await?;
        if noted.rows_affected() == 1 { Ok(()) } else { Err(StoreError::Changed) }
    }

    /// [`StoreError::Changed`] when the move was settled by somebody else.
    async fn must_be_on(&self, planned: SlotMove) -> Result<(), StoreError> {
        let SlotMove { slot, from, to } = planned;
        let map = self.slot_map().await?;
        if map.contains(&(slot, from, Some(to))) { Ok(()) } else { Err(StoreError::Changed) }
    }

    async fn settle_move(&self, planned: SlotMove) -> Result<(), StoreError> {
        let SlotMove { slot, from, to } = planned;
        let mut write = self.home.write(&[Lock::Meta]).await?;
        let settled = sqlx::query(
            "UPDATE slots SET shard = $1, moving_to = NULL WHERE slot = $2 AND shard = $3 AND moving_to = $1",
        )
        .bind(number(to))
        .bind(i64::from(slot))
        .bind(number(from))
        .execute(&mut *write)
        .await?;
        write.commit().await?;
        if settled.rows_affected() == 1 { Ok(()) } else { Err(StoreError::Changed) }
    }
}

fn number(shard: usize) -> i64 {
    i64::try_from(shard).unwrap_or(i64::MAX)
}

async fn owns(transaction: &mut Tx, slot: u8) -> Result<bool, StoreError> {
    let owned: Option<i64> = sqlx::query_scalar("SELECT slot FROM owned_slots WHERE slot = $1")
        .bind(i64::from(slot))
        .fetch_optional(&mut **transaction)
        .await?;
    Ok(owned.is_some())
}

async fn own(write: &mut Tx, slot: u8) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO owned_slots (slot) VALUES ($1) ON CONFLICT (slot) DO NOTHING")
        .bind(i64::from(slot))
        .execute(&mut **write)
        .await?;
    Ok(())
}

async fn disown(write: &mut Tx, slot: u8) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM owned_slots WHERE slot = $1")
        .bind(i64::from(slot))
        .execute(&mut **write)
        .await?;
    Ok(())
}

async fn delete_rows(write: &mut Tx, slot: u8) -> Result<(), StoreError> {
    for (table, rows) in TABLES.iter().rev() {
        sqlx::query(sqlx::AssertSqlSafe(format!("DELETE FROM {table} WHERE {rows}")))
            .bind(i64::from(slot))
            .execute(&mut **write)
            .await?;
    }
    Ok(())
}

/// Copies a slot's rows as Postgres writes and reads them itself, so that no column can be forgotten here. Each table is
/// gone through once, as it lies.
async fn copy_rows(source: &Database, copy: &mut Tx, slot: u8) -> Result<(), StoreError> {
    let mut read = source.read().await?;
    // Somebody gave it back since it was given up, and it may have been written to.
    if owns(&mut read, slot).await? {
        return Err(StoreError::Changed);
    }
    for (table, rows) in TABLES {
        // A cursor takes no parameters; a slot is a number.
        let rows = rows.replace("$1", &slot.to_string());
        let cursor = format!(
            "DECLARE moved_{table} NO SCROLL CURSOR FOR SELECT row_to_json(t)::text AS row FROM {table} t WHERE {rows}"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(cursor)).execute(&mut *read).await?;
        loop {
            let fetch = format!("FETCH {ROWS_MAX} FROM moved_{table}");
            let fetch = sqlx::query_scalar(sqlx::AssertSqlSafe(fetch)).persistent(false);
            let records: Vec<String> = fetch.fetch_all(&mut *read).await?;
            insert_records(copy, table, &records).await?;
            if i64::try_from(records.len()).unwrap_or_default() < ROWS_MAX {
                break;
            }
        }
    }
    read.commit().await?;
    Ok(())
}

/// Inserts rows as `row_to_json` wrote them, but for those that are there.
async fn insert_records(copy: &mut Tx, table: &str, records: &[String]) -> Result<(), StoreError> {
    let insert = format!(
        "INSERT INTO {table} SELECT * FROM json_populate_recordset(NULL::{table}, $1::text::json) ON CONFLICT DO NOTHING"
    );
    let records = format!("[{}]", records.join(","));
    sqlx::query(sqlx::AssertSqlSafe(insert)).bind(records).execute(&mut **copy).await?;
    Ok(())
}
