//! Guards the counters of one process: a bounded number of records. Before its time none goes but, when there is no room, a
//! count of failures that delays nobody yet: or names that are made up would fill the room, and nobody could log in.
//!
//! *What comes in:* keys that any client can make new ones of. *What goes out:* what the rules say, or that there is no room.
//! *What an attacker gains if this is wrong:* the machine's memory, or a lock that is forgotten because others came.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use super::counters::{CounterError, Counters, Place, Reservation, Standing};
use super::key::{Digest, Key, Kind};
use super::rule::{Count, Crowd, Distinct, Failures, Ladder, Rate, Rung, Seen, Step, Turn};
use crate::clock::Host;

/// So many records are looked at to find one that may go.
const LOOKS_MAX: usize = 64;

/// Counters of this process alone, on its monotonic clock.
#[derive(Debug)]
pub struct MemoryCounters {
    state: Mutex<State>,
    host: Arc<dyn Host>,
}

impl MemoryCounters {
    /// No counters yet, and never more than `entries_max` of each kind.
    #[must_use]
    pub fn new(entries_max: usize, host: Arc<dyn Host>) -> Self {
        Self { state: Mutex::new(State::new(entries_max)), host }
    }

    fn with<T>(&self, work: impl FnOnce(&mut State, u64) -> T) -> T {
        // The clock is read under the lock, so that the rules see time go one way.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut state, self.host.now().monotonic.0)
    }
}

impl Counters for MemoryCounters {
    async fn rate(&self, key: &Key, rate: Rate, count: Count) -> Result<Turn, CounterError> {
        self.with(|state, now| state.rate(key, rate, count, now))
    }

    async fn ladder(&self, key: &Key, ladder: Ladder, step: Step) -> Result<Standing, CounterError> {
        let rung = self.with(|state, now| state.ladder(key, ladder, step, now))?;
        Ok(match rung {
            Rung::Free(until) => Standing::Free(Reservation { until, place: Place::Memory }),
            Rung::Delayed(millis) => Standing::Delayed(millis),
        })
    }

    async fn distinct(&self, key: &Key, distinct: Distinct, member: &Digest) -> Result<Crowd, CounterError> {
        self.with(|state, now| state.distinct(key, distinct, member, now))
    }

    async fn clear(&self, key: &Key) -> Result<(), CounterError> {
        self.with(|state, _| state.clear(key));
        Ok(())
    }
}

/// The records, without a lock or a clock.
#[derive(Debug)]
struct State {
    entries_max: usize,
    tables: BTreeMap<Kind, Table>,
}

/// The records of one kind. Each kind has its own room, so that filling one does not crowd another out.
#[derive(Debug, Default)]
struct Table {
    records: HashMap<Digest, Record>,
    /// When each is over; the first is the next to go.
    expiries: BTreeSet<(u64, Digest)>,
    /// What the records hold in all: one for each, or one for each member.
    weight: usize,
}

#[derive(Debug)]
enum Record {
    Rate { arrival_us: u64 },
    Ladder(Failures),
    Distinct { seen: Seen, expires_ms: u64 },
}

impl Record {
    fn expires_ms(&self) -> u64 {
        match self {
            Self::Rate { arrival_us } => arrival_us.div_ceil(1000),
            Self::Ladder(failures) => failures.expires_ms,
            Self::Distinct { expires_ms, .. } => *expires_ms,
        }
    }

    fn weight(&self) -> usize {
        match self {
            Self::Rate { .. } | Self::Ladder(_) => 1,
            Self::Distinct { seen, .. } => usize::try_from(seen.len()).unwrap_or(usize::MAX),
        }
    }
}

impl State {
    fn new(entries_max: usize) -> Self {
        Self { entries_max, tables: BTreeMap::new() }
    }

    fn rate(&mut self, key: &Key, rate: Rate, count: Count, now: u64) -> Result<Turn, CounterError> {
        let (table, room) = self.table(key, now);
        let arrival_us = match table.records.get(&key.digest) {
            Some(Record::Rate { arrival_us }) => Some(*arrival_us),
            Some(Record::Ladder(_) | Record::Distinct { .. }) | None => None,
        };
        let (turn, next) = rate.step(arrival_us.unwrap_or_default(), count, now);
        if count == Count::One && turn == Turn::Now {
            if arrival_us.is_none() && !room {
                return Err(CounterError::Full);
            }
            table.put(key.digest, Record::Rate { arrival_us: next });
        }
        Ok(turn)
    }

    fn ladder(&mut self, key: &Key, ladder: Ladder, step: Step, now: u64) -> Result<Rung, CounterError> {
        let (table, room) = self.table(key, now);
        let record = match table.records.get(&key.digest) {
            Some(Record::Ladder(failures)) => Some(*failures),
            Some(Record::Rate { .. } | Record::Distinct { .. }) | None => None,
        };
        let (rung, next) = ladder.step(record, step, now);
        match next {
            Some(_) if record.is_none() && !room && !table.forget_undelayed(now) => {
                return Err(CounterError::Full);
            }
            Some(next) => table.put(key.digest, Record::Ladder(next)),
            None => {
                table.take(&key.digest);
            }
        }
        Ok(rung)
    }

    fn distinct(
        &mut self,
        key: &Key,
        distinct: Distinct,
        member: &Digest,
        now: u64,
    ) -> Result<Crowd, CounterError> {
        let (table, room) = self.table(key, now);
        let record = table.records.get(&key.digest);
        let known = matches!(record, Some(Record::Distinct { seen, .. }) if seen.holds(member));
        if !known && !room {
            return Err(CounterError::Full);
        }
        let mut seen = match table.take(&key.digest) {
            Some(Record::Distinct { seen, .. }) => seen,
            Some(Record::Rate { .. } | Record::Ladder(_)) | None => Seen::default(),
        };
        let crowd = distinct.step(&mut seen, *member, now);
        if let Some(latest) = seen.latest_ms() {
            let expires_ms = latest.saturating_add(distinct.window_ms);
            table.put(key.digest, Record::Distinct { seen, expires_ms });
        }
        Ok(crowd)
    }

    fn clear(&mut self, key: &Key) {
        if let Some(table) = self.tables.get_mut(&key.kind) {
            table.take(&key.digest);
        }
    }

    /// The table of a key, without what is over, and whether there is room for one more in it.
    fn table(&mut self, key: &Key, now: u64) -> (&mut Table, bool) {
        let table = self.tables.entry(key.kind).or_default();
        table.sweep(now);
        let room = table.weight < self.entries_max;
        (table, room)
    }
}

impl Table {
    /// Each record is removed once and was put once, so this costs no more than putting.
    fn sweep(&mut self, now: u64) {
        while let Some((expires, digest)) = self.expiries.first().copied() {
            if expires > now {
                return;
            }
            self.take(&digest);
        }
    }

    /// Drops the failures that would be over first of those that delay nobody. What an attacker gains by it is a few more
    /// guesses at one account, for as many attempts as fill the table.
    fn forget_undelayed(&mut self, now: u64) -> bool {
        let is_undelayed = |record: &Record| match record {
            Record::Ladder(failures) => failures.until_ms <= now,
            Record::Rate { .. } | Record::Distinct { .. } => false,
        };
        let mut first = self.expiries.iter().take(LOOKS_MAX).map(|(_, digest)| *digest);
        let found = first.find(|digest| self.records.get(digest).is_some_and(is_undelayed));
        found.is_some_and(|digest| self.take(&digest).is_some())
    }

    fn put(&mut self, digest: Digest, record: Record) {
        self.take(&digest);
        self.expiries.insert((record.expires_ms(), digest));
        self.weight = self.weight.saturating_add(record.weight());
        self.records.insert(digest, record);
    }

    fn take(&mut self, digest: &Digest) -> Option<Record> {
        let record = self.records.remove(digest)?;
        self.expiries.remove(&(record.expires_ms(), *digest));
        self.weight = self.weight.saturating_sub(record.weight());
        Some(record)
    }
}

#[cfg(test)]
mod tests;
