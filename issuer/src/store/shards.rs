//! Decides which database has a user: the slot follows from the user's id, and the map of slots tells whose it is.
//!
//! The map is in the home database and a copy of it in every process. A copy may be old while a slot is moved, so what
//! counts is that a database itself says, inside the transaction, that it has the slot. One that does not is left, the map
//! is read again, and the operation starts over.

use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use sha2::{Digest, Sha256};
use sqlx::Row as _;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::database::{Database, Lock, Tx};
use super::{StoreError, unsigned};

/// The number of slots.
pub(super) const SLOTS: usize = 256;
/// The part of a database's connections that one slot may have.
const SLOT_SHARE: usize = 4;
/// How often a user in a slot that is being moved is looked for, and how long is waited in between.
const LOOKS_MAX: u32 = 40;
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// Where a slot is, as far as is known.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    shard: usize,
    /// Where it is on its way to; it may be there already.
    moving_to: Option<usize>,
}

/// The databases, and which of them has which slot.
#[derive(Debug)]
pub(super) struct Shards {
    /// Home is the first.
    databases: Vec<Database>,
    map: RwLock<[Place; SLOTS]>,
    /// How long one waits for a turn.
    patience: Duration,
    /// For each slot, how many operations in it may have a connection at once: or who sends a hundred requests for one user,
    /// which wait for each other, would have all connections wait.
    turns: Vec<Semaphore>,
}

/// The slot of a user.
#[must_use]
pub fn slot_of(user_id: &str) -> u8 {
    Sha256::digest(user_id).first().copied().unwrap_or_default()
}

impl Shards {
    /// The databases, and the map there is; a new home database gives all slots to itself.
    pub(super) async fn open(home: Database, others: Vec<Database>) -> Result<Self, StoreError> {
        let mut write = home.write(&[Lock::Meta]).await?;
        let known: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM slots").fetch_one(&mut *write).await?;
        if known == 0 {
            for slot in 0..=u8::MAX {
                let slot = i64::from(slot);
                for insert in [
                    "INSERT INTO slots (slot, shard) VALUES ($1, 0)",
                    "INSERT INTO owned_slots (slot) VALUES ($1)",
                ] {
                    sqlx::query(insert).bind(slot).execute(&mut *write).await?;
                }
            }
        }
        fill_in_slots(&mut write).await?;
        write.commit().await?;
        let turns = (home.connections_max() / SLOT_SHARE).max(1);
        let patience = home.timeout();
        let mut databases = vec![home];
        databases.extend(others);
        let turns = (0..SLOTS).map(|_| Semaphore::new(turns)).collect();
        let map = RwLock::new([Place::default(); SLOTS]);
        let shards = Self { databases, map, patience, turns };
        shards.read_map().await?;
        Ok(shards)
    }

    pub(super) fn all(&self) -> &[Database] {
        &self.databases
    }

    pub(super) fn home(&self) -> Result<&Database, StoreError> {
        self.databases.first().ok_or(StoreError::Corrupt("slots"))
    }

    pub(super) fn at(&self, shard: usize) -> Result<&Database, StoreError> {
        self.databases
            .get(shard)
            .ok_or(StoreError::Corrupt("slots.shard: there is no database of this number"))
    }

    /// Reads the map again.
    pub(super) async fn read_map(&self) -> Result<(), StoreError> {
        let home = self.home()?;
        let rows = home
            .run(move || async move {
                let rows = sqlx::query("SELECT slot, shard, moving_to FROM slots").fetch_all(home.readers());
                Ok(rows.await?)
            })
            .await?;
        let mut map = [Place::default(); SLOTS];
        for row in rows {
            let slot = usize::try_from(unsigned(row.try_get("slot")?)).unwrap_or(usize::MAX);
            let shard = usize::try_from(unsigned(row.try_get("shard")?)).unwrap_or(usize::MAX);
            let moving_to: Option<i64> = row.try_get("moving_to")?;
            let moving_to = moving_to.map(|shard| usize::try_from(unsigned(shard)).unwrap_or(usize::MAX));
            for shard in [Some(shard), moving_to].into_iter().flatten() {
                self.at(shard)?;
            }
            if let Some(place) = map.get_mut(slot) {
                *place = Place { shard, moving_to };
            }
        }
        *self.map.write().unwrap_or_else(PoisonError::into_inner) = map;
        Ok(())
    }

    /// Where to look for a slot: where it is noted, and every other time where it is on its way to.
    fn database(&self, slot: u8, looks: u32) -> Result<&Database, StoreError> {
        let Place { shard, moving_to } = {
            let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
            map.get(usize::from(slot)).copied().unwrap_or_default()
        };
        self.at(if looks % 2 == 1 { moving_to.unwrap_or(shard) } else { shard })
    }

    /// A turn with the connections of a slot.
    async fn turn(&self, slot: u8) -> Result<SemaphorePermit<'_>, StoreError> {
        let turns = self.turns.get(usize::from(slot)).ok_or(StoreError::Corrupt("slots"))?;
        let turn = tokio::time::timeout(self.patience, turns.acquire()).await;
        // They are never closed.
        turn.map_err(|_| StoreError::Timeout)?.map_err(|_| StoreError::Corrupt("slots"))
    }

    /// Does one operation on the database that has `slot`; once more when the slot turns out to be elsewhere.
    pub(super) async fn on_slot<T, F>(
        &self,
        slot: u8,
        operation: impl Fn(Database) -> F + Send + Sync,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        let mut looks = 0;
        loop {
            let database = self.database(slot, looks)?;
            let turn = self.turn(slot).await?;
            let result = database.run(|| operation(database.clone())).await;
            drop(turn);
            match result {
                Err(StoreError::Moving) if looks < LOOKS_MAX => {
                    looks += 1;
                    if looks > 1 {
                        tokio::time::sleep(LOOK_PAUSE).await;
                    }
                    self.read_map().await?;
                }
                result => return result,
            }
        }
    }
}

impl Database {
    /// A transaction that writes what a user has. [`StoreError::Moving`] when the slot is not here.
    pub(super) async fn write_user(&self, user_id: &str) -> Result<Tx, StoreError> {
        let slot = slot_of(user_id);
        let mut write = self.write(&[Lock::SlotUse(slot), Lock::User(user_id)]).await?;
        self.must_own(&mut write, slot).await?;
        Ok(write)
    }

    /// A transaction that reads what is in a slot. [`StoreError::Moving`] when the slot is not here.
    pub(super) async fn read_slot(&self, slot: u8) -> Result<Tx, StoreError> {
        let mut read = self.read().await?;
        self.must_own(&mut read, slot).await?;
        Ok(read)
    }

    async fn must_own(&self, transaction: &mut Tx, slot: u8) -> Result<(), StoreError> {
        let owned: Option<i64> = sqlx::query_scalar("SELECT slot FROM owned_slots WHERE slot = $1")
            .bind(i64::from(slot))
            .fetch_optional(&mut **transaction)
            .await?;
        if owned.is_some() { Ok(()) } else { Err(StoreError::Moving) }
    }
}

/// Gives a slot to users of a version that had none.
async fn fill_in_slots(write: &mut Tx) -> Result<(), StoreError> {
    let ids: Vec<String> =
        sqlx::query_scalar("SELECT id FROM users WHERE slot = -1").fetch_all(&mut **write).await?;
    for id in ids {
        sqlx::query("UPDATE users SET slot = $1 WHERE id = $2")
            .bind(i64::from(slot_of(&id)))
            .bind(&id)
            .execute(&mut **write)
            .await?;
    }
    Ok(())
}
