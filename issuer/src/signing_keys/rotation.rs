//! Does what the schedule says: from the records there are to the records there should be.
//!
//! The caller reads the records, has them rotated and writes what changed in one transaction that no other process can come
//! between, and in the same transaction tells the feed. Then a key is on its way to the edges from the instant it is stamped
//! with, and two replicas never both act on one plan.

use tollgate_shared::id::KeyId;

use super::private::NewKey;
use super::record::KeyRecord;
use super::schedule::{Moment, Schedule, Step, plan};

/// How often is planned and done in turn. A first start takes three rounds: a key, its activation, a second key.
const ROUNDS_MAX: usize = 8;

/// The records after a rotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    /// All of them.
    pub records: Vec<KeyRecord>,
    /// Those that are new or changed, to be written.
    pub changed: Vec<KeyId>,
}

impl Rotation {
    /// Does everything that is due now. `make` gives a record that is published from now on.
    ///
    /// An RSA key takes long to make. Who does not want to hold a transaction open meanwhile rotates a copy of the records
    /// first, keeps the keys that were made, and gives those out inside of the transaction.
    ///
    /// # Errors
    /// Those of `make`. Nothing has changed then.
    pub fn due<E>(
        records: Vec<KeyRecord>,
        schedule: &Schedule,
        moment: Moment,
        mut make: impl FnMut(NewKey) -> Result<KeyRecord, E>,
    ) -> Result<Self, E> {
        let mut rotation = Self { records, changed: Vec::new() };
        for _ in 0..ROUNDS_MAX {
            let steps = plan(&rotation.records, schedule, moment);
            if steps.is_empty() {
                break;
            }
            for step in steps {
                rotation.apply(&step, schedule, moment, &mut make)?;
            }
        }
        Ok(rotation)
    }

    /// Withdraws a published key, and has the next one sign if it was the active one. `None` when there is no such key.
    ///
    /// Edges are to be told with a cut-off of dimension `key` in the same transaction: elsewhere a cached key set may hold
    /// the key for a while yet.
    ///
    /// # Errors
    /// Those of `make`. Nothing has changed then.
    pub fn without<E>(
        mut records: Vec<KeyRecord>,
        key: &KeyId,
        schedule: &Schedule,
        moment: Moment,
        make: impl FnMut(NewKey) -> Result<KeyRecord, E>,
    ) -> Result<Option<Self>, E> {
        let record = records.iter_mut().find(|record| record.id == *key && record.is_published());
        let Some(record) = record else { return Ok(None) };
        record.withdraw(moment.now);
        let mut rotation = Self::due(records, schedule, moment, make)?;
        rotation.note(key);
        Ok(Some(rotation))
    }

    /// The records to be written.
    pub fn changes(&self) -> impl Iterator<Item = &KeyRecord> {
        self.records.iter().filter(|record| self.changed.contains(&record.id))
    }

    pub(super) fn apply<E>(
        &mut self,
        step: &Step,
        schedule: &Schedule,
        moment: Moment,
        make: &mut impl FnMut(NewKey) -> Result<KeyRecord, E>,
    ) -> Result<(), E> {
        let now = moment.now;
        match step {
            Step::Generate(kind) => {
                let record = make(*kind)?;
                self.note(&record.id);
                self.records.push(record);
            }
            Step::Activate(id) if self.waits(id) => self.change(|record| {
                if record.id == *id {
                    record.activate(now, schedule.token_seconds)
                } else {
                    record.retire(now)
                }
            }),
            // Whoever does not wait cannot follow, and the one that signs must not go without a successor.
            Step::Activate(_) => {}
            Step::Lengthen(id) => self.change(|record| {
                if record.id == *id {
                    record.token_seconds = record.token_seconds.max(schedule.token_seconds);
                }
            }),
            Step::Retire(id) => self.change(|record| {
                if record.id == *id {
                    record.retire(now);
                }
            }),
            Step::Remove(id) => self.change(|record| {
                if record.id == *id {
                    record.remove(now);
                }
            }),
        }
        Ok(())
    }

    fn waits(&self, id: &KeyId) -> bool {
        self.records.iter().any(|record| record.id == *id && record.state.waiting_since().is_some())
    }

    /// Has `change` see every record, and notes those that it changes.
    fn change(&mut self, change: impl Fn(&mut KeyRecord)) {
        for record in &mut self.records {
            let before = (record.state, record.token_seconds);
            change(record);
            if before != (record.state, record.token_seconds) && !self.changed.contains(&record.id) {
                self.changed.push(record.id.clone());
            }
        }
    }

    fn note(&mut self, id: &KeyId) {
        if !self.changed.contains(id) {
            self.changed.push(id.clone());
        }
    }
}
