//! Tells which database has how many slots of users, and spreads them.

use std::collections::BTreeMap;

use super::{Actor, Entry, OrderError};
use crate::app::App;
use crate::audit::Action;
use crate::store::SlotMove;

/// What a database has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ShardSummary {
    /// Its number; home is 0.
    pub shard: usize,
    /// How many slots it has.
    pub slots: usize,
    /// How many of them are on their way to another.
    pub leaving: usize,
}

impl App {
    /// The databases that have slots, or get some, by number.
    ///
    /// # Errors
    /// See [`OrderError`].
    pub async fn shards(&self) -> Result<Vec<ShardSummary>, OrderError> {
        let mut shards: BTreeMap<usize, ShardSummary> = BTreeMap::new();
        for (_, shard, moving_to) in self.store.slot_map().await? {
            let here = shards.entry(shard).or_default();
            here.slots += 1;
            if let Some(to) = moving_to {
                here.leaving += 1;
                shards.entry(to).or_default();
            }
        }
        Ok(shards.into_iter().map(|(shard, summary)| ShardSummary { shard, ..summary }).collect())
    }

    /// Moves one slot to another database.
    ///
    /// # Errors
    /// See [`OrderError`]; the move can be taken up again.
    pub async fn move_slot(&self, planned: SlotMove, actor: &Actor) -> Result<(), OrderError> {
        let SlotMove { slot, from, to } = planned;
        let (target, detail) = (format!("slot {slot}"), format!("from {from} to {to}"));
        let entry = Entry { actor, action: Action::ShardMove, target: &target, detail };
        self.recorded(entry, async { Ok(self.store.move_slot(planned).await?) }).await
    }
}
