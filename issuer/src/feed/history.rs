//! Decides what can be told of the feed's history, and how new each telling is: everything in force at its end, and the
//! last changes one by one.
//!
//! *What comes in:* entries of the log in sequence, each look at the log with the instant before it began. *What goes out:*
//! messages to be signed. *What is lost if this is wrong:* a revocation that an edge passes over, or an edge that takes
//! itself for fresh and is not.

use std::collections::VecDeque;
use std::sync::Arc;

use tollgate_shared::quota::Plan;
use tollgate_shared::revocation::{
    BlockExpiry, Delta, Epoch, FeedChange, FeedMessage, Place, Position, RETENTION_SECONDS, RevocationSet,
    SEGMENT_POSITIONS, StatusIndex,
};
use tollgate_shared::time::{UnixMillis, UnixSeconds};

use crate::store::{FeedEntry, FeedEntryChange};

/// Of so many values each look sees whether they are over.
const SWEPT_VALUES_MAX: usize = 1024;

/// What the log says, as far as it was read.
#[derive(Debug, Clone)]
pub struct History {
    epoch: Epoch,
    head: Position,
    in_force: Arc<RevocationSet>,
    keys: Option<Arc<str>>,
    plans: Option<Arc<[Plan]>>,
    /// The last entries, without a gap up to the head.
    entries: VecDeque<FeedEntry>,
    entries_max: usize,
    /// Who is before this must begin anew: there, the number of a block came into use again.
    reused: Position,
    /// Where the log ended at looks, oldest first, each with the latest instant before a look that found it so.
    looks: VecDeque<(Position, UnixMillis)>,
}

/// Everything in force at the head.
#[derive(Debug, Clone)]
pub struct Whole {
    /// The head.
    pub place: Place,
    /// What is revoked.
    pub revoked: Arc<RevocationSet>,
    /// The JWK Set as JSON.
    pub keys: Arc<str>,
    /// The plans.
    pub plans: Arc<[Plan]>,
}

impl History {
    /// A history of which nothing was read yet, and that will keep the last `entries_max` entries one by one.
    #[must_use]
    pub fn new(epoch: Epoch, entries_max: u64) -> Self {
        Self {
            epoch,
            head: Position(0),
            in_force: Arc::default(),
            keys: None,
            plans: None,
            entries: VecDeque::new(),
            entries_max: usize::try_from(entries_max).unwrap_or(usize::MAX).max(1),
            reused: Position(0),
            looks: VecDeque::new(),
        }
    }

    /// Which history it is.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// How far it was read.
    #[must_use]
    pub fn head(&self) -> Position {
        self.head
    }

    /// The instant before the last look that went to the end of the log.
    #[must_use]
    pub fn looked_at(&self) -> UnixMillis {
        self.looks.back().map(|(_, at)| *at).unwrap_or_default()
    }

    /// Whether a reading from the head on, whose first entry this is, is of the log that all before it was of. The last entry
    /// is never removed, so a log without it is another: one that was set back to an earlier state.
    #[must_use]
    pub fn is_continued_by(&self, first: Option<&FeedEntry>) -> bool {
        match (self.entries.back(), first) {
            (Some(ours), Some(first)) => first.position > ours.position || first == ours,
            (Some(_), None) => false,
            (None, _) => true,
        }
    }

    /// Takes in what a reading found, from the head on or from after it. What no token can be of any more at `now` is left
    /// out of what is in force, and what became so is dropped, a step at a time.
    ///
    /// Entries that are missing concerned nothing any more when they were removed. Who is before such a gap must begin anew:
    /// or what is told of it would differ with when a replica started.
    pub fn append(&mut self, found: Vec<FeedEntry>, now: UnixSeconds) {
        let horizon = now.minus(RETENTION_SECONDS);
        let found: Vec<FeedEntry> = found.into_iter().filter(|entry| entry.position > self.head).collect();
        if found.is_empty() {
            // Nobody copies everything for this: it is dropped the next time.
            if let Some(in_force) = Arc::get_mut(&mut self.in_force) {
                shed(in_force, horizon);
            }
            return;
        }
        let in_force = Arc::make_mut(&mut self.in_force);
        for entry in found {
            if entry.position.0 != self.head.0 + 1 {
                self.entries.clear();
            }
            match &entry.change {
                FeedEntryChange::Index { index, expires_at } => {
                    if *expires_at >= horizon {
                        let (block, expires_at) = (index.block(), *expires_at);
                        in_force.indices.extend([*index]);
                        in_force.indices.learn_expiries([BlockExpiry { block, expires_at }]);
                    }
                }
                FeedEntryChange::Cutoff(cutoff) => {
                    if cutoff.until >= horizon {
                        in_force.cutoffs.insert(cutoff.clone());
                    }
                }
                FeedEntryChange::Keys(keys) => self.keys = Some(keys.as_str().into()),
                FeedEntryChange::Plans(plans) => self.plans = Some(plans.as_slice().into()),
                FeedEntryChange::Reuse => {
                    // What the block held must be gone before it holds anything else.
                    in_force.indices.drop_expired(entry.created_at.minus(RETENTION_SECONDS));
                    self.reused = entry.position;
                }
            }
            self.head = entry.position;
            self.entries.push_back(entry);
            if self.entries.len() > self.entries_max {
                self.entries.pop_front();
            }
        }
        shed(in_force, horizon);
    }

    /// Notes that a look that began at `began_at` found nothing beyond the head.
    pub fn looked(&mut self, began_at: UnixMillis) {
        match self.looks.back_mut() {
            Some((head, at)) if *head == self.head => *at = began_at.max(*at),
            Some(_) | None => self.looks.push_back((self.head, began_at)),
        }
        // Of those before the first entry one is enough: it is the instant of who is right before that.
        let before = self.before_entries();
        while self.looks.get(1).is_some_and(|(head, _)| *head <= before) {
            self.looks.pop_front();
        }
    }

    /// What came after `after`, up to the next boundary of segments, to `until`, or to the head: so who is far behind takes
    /// whole segments after the first message. `None` when only everything can be told.
    #[must_use]
    pub fn delta(&self, after: Position, until: Option<Position>) -> Option<FeedMessage> {
        let to = self.end_of_delta(after, until)?;
        Some(self.message(after, to, self.head, self.as_of(to)))
    }

    /// Up to where [`Self::delta`] goes.
    #[must_use]
    pub fn end_of_delta(&self, after: Position, until: Option<Position>) -> Option<Position> {
        if after > self.head || !self.is_told_from(after) {
            return None;
        }
        let boundary = Position((after.0 / SEGMENT_POSITIONS + 1).saturating_mul(SEGMENT_POSITIONS));
        let until = until.unwrap_or(self.head).max(after);
        Some(boundary.min(until).min(self.head))
    }

    /// The segment that begins after `from`, a boundary. It follows from the rows alone: every replica tells it the same, and
    /// for good. `None` when it is not whole yet, or not told any more.
    #[must_use]
    pub fn segment(&self, from: Position) -> Option<FeedMessage> {
        let to = Position(from.0.checked_add(SEGMENT_POSITIONS)?);
        if !from.0.is_multiple_of(SEGMENT_POSITIONS) || to > self.head || !self.is_told_from(from) {
            return None;
        }
        Some(self.message(from, to, to, self.written_at(to)))
    }

    /// Everything. `None` before keys and plans were told.
    #[must_use]
    pub fn whole(&self) -> Option<Whole> {
        let Self { epoch, head: position, .. } = *self;
        let place = Place { epoch, position, as_of: self.as_of(position) };
        let revoked = Arc::clone(&self.in_force);
        Some(Whole { place, revoked, keys: self.keys.clone()?, plans: self.plans.clone()? })
    }

    /// Whether changes can be told one by one to who has everything up to `after`.
    #[must_use]
    pub fn is_told_from(&self, after: Position) -> bool {
        after >= self.before_entries() && after >= self.reused
    }

    /// Whether nothing after `since` is of a token of this status list; `false` also when that cannot be told any more.
    #[must_use]
    pub fn leaves_list(&self, list: u32, since: Position) -> bool {
        self.is_told_from(since)
            && self.entries(since, self.head).all(|entry| match &entry.change {
                FeedEntryChange::Index { index, .. } => index.list_and_bit().0 != list,
                FeedEntryChange::Reuse => false,
                FeedEntryChange::Cutoff(_) | FeedEntryChange::Keys(_) | FeedEntryChange::Plans(_) => true,
            })
    }

    /// The position before the first entry that is kept.
    fn before_entries(&self) -> Position {
        Position(self.head.0.saturating_sub(self.entries.len() as u64))
    }

    /// The entries after `after`, up to and with `to`.
    fn entries(&self, after: Position, to: Position) -> impl Iterator<Item = &FeedEntry> {
        let place = |position: Position| position.0.saturating_sub(self.before_entries().0) as usize;
        let end = place(to).min(self.entries.len());
        self.entries.range(place(after).min(end)..end)
    }

    /// When the entry at `to` was written: what was committed before then stands before it.
    fn written_at(&self, to: Position) -> UnixMillis {
        let entry = self.entries(Position(to.0.saturating_sub(1)), to).next();
        entry.map(|entry| UnixMillis(entry.created_at.0.saturating_mul(1000))).unwrap_or_default()
    }

    /// The instant until which all that was committed stands at or before `to`: before the last look that found nothing beyond
    /// it, or when its entry was written, whichever is later; never later than the last look at all.
    fn as_of(&self, to: Position) -> UnixMillis {
        let seen = self.looks.partition_point(|(head, _)| *head <= to);
        let look = seen.checked_sub(1).and_then(|last| self.looks.get(last));
        let looked_at = look.map(|(_, at)| *at).unwrap_or_default();
        looked_at.max(self.written_at(to)).min(self.looked_at())
    }

    fn message(&self, from: Position, to: Position, head: Position, as_of: UnixMillis) -> FeedMessage {
        let mut delta = Delta { from, ..Delta::default() };
        let (mut keys, mut plans) = (None, None);
        let mut indices: Vec<(StatusIndex, UnixSeconds)> = Vec::new();
        for entry in self.entries(from, to) {
            match &entry.change {
                FeedEntryChange::Index { index, expires_at } => indices.push((*index, *expires_at)),
                FeedEntryChange::Cutoff(cutoff) => delta.cutoffs.push(cutoff.clone()),
                FeedEntryChange::Keys(told) => keys = Some(told.clone()),
                FeedEntryChange::Plans(told) => plans = Some(told.clone()),
                FeedEntryChange::Reuse => {}
            }
        }
        indices.sort_unstable();
        indices.dedup_by_key(|(index, _)| *index);
        for of_block in indices.chunk_by(|(one, _), (next, _)| one.block() == next.block()) {
            let (Some((index, _)), Some(expires_at)) =
                (of_block.first(), of_block.iter().map(|one| one.1).max())
            else {
                continue;
            };
            delta.blocks.push(BlockExpiry { block: index.block(), expires_at });
        }
        delta.revoked = indices.into_iter().map(|(index, _)| index).collect();
        FeedMessage { epoch: self.epoch, to, head, as_of, change: FeedChange::Delta(delta), keys, plans }
    }
}

fn shed(in_force: &mut RevocationSet, horizon: UnixSeconds) {
    in_force.indices.drop_expired(horizon);
    in_force.cutoffs.drop_expired(horizon, SWEPT_VALUES_MAX);
}

#[cfg(test)]
mod tests;
