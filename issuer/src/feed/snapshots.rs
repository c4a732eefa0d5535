//! Has everything written and signed for who begins anew: one at a time, on a thread of its own, and again only when the
//! last is too old.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use tollgate_shared::revocation::{Position, SEGMENT_POSITIONS};
use tollgate_shared::time::Monotonic;
use tollgate_shared::wire::feed::{PART_BYTES, SnapshotId, SnapshotLayout, WHOLE_BYTES};

use super::history::History;

/// A snapshot is given again while it is within so many positions of the head, …
const BEHIND_POSITIONS_MAX: u64 = SEGMENT_POSITIONS;
/// … and for so long, in milliseconds; …
const KEPT_MILLIS: u64 = 60_000;
/// … to who has everything up to its very position, for so long: an older one is older than what they have by more than the
/// clocks of replicas may differ.
const SAME_POSITION_MILLIS: u64 = 3_000;

/// Who takes a snapshot in parts may go on while so many later ones were made.
const LATER_MAX: usize = 2;

/// The last snapshots.
#[derive(Debug, Default)]
pub struct Snapshots {
    kept: Mutex<Kept>,
    /// Had by who makes one.
    pub(super) turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Kept {
    /// The latest first.
    snapshots: VecDeque<Snapshot>,
    /// Changes whenever the log turns out to be another.
    log: LogNumber,
}

/// Which of the logs that this process has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogNumber(u64);

/// A snapshot that was signed.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// What it is named by.
    pub id: SnapshotId,
    /// All of it.
    pub body: Bytes,
    /// Where in it what is.
    pub layout: SnapshotLayout,
    /// Where it leads.
    pub to: Position,
    /// The instant before the reading that it was made of.
    pub read_at: Monotonic,
}

impl Snapshot {
    /// The one with this body, as [`tollgate_shared::wire::feed::seal_snapshot`] made it.
    #[must_use]
    pub fn new((body, layout): (Vec<u8>, SnapshotLayout), to: Position, read_at: Monotonic) -> Self {
        let body = Bytes::from(body);
        let id = SnapshotId::of(&body.slice(layout.envelope()));
        Self { id, body, layout, to, read_at }
    }

    /// The head alone, of one that is so large that its pieces are better asked for apart; else all of it.
    #[must_use]
    pub fn head(&self) -> Bytes {
        self.body.slice(self.layout.first(WHOLE_BYTES))
    }

    /// The part that begins with this piece, if there is one.
    #[must_use]
    pub fn part(&self, first: usize) -> Option<Bytes> {
        self.layout.part(first, PART_BYTES).map(|part| self.body.slice(part))
    }
}

impl Snapshots {
    /// The last one, if it is good for who has everything up to `least`.
    #[must_use]
    pub fn kept(&self, least: Position, history: &History, now: Monotonic) -> Option<Snapshot> {
        let kept = self.state().snapshots.front().cloned()?;
        let age = now.since(kept.read_at);
        let is_late_enough = kept.to > least || (kept.to == least && age <= SAME_POSITION_MILLIS);
        // Or who takes it would have to take another right away.
        let leads_on = history.is_told_from(kept.to) && kept.to <= history.head();
        let behind = history.head().0.saturating_sub(kept.to.0);
        (is_late_enough && leads_on && behind <= BEHIND_POSITIONS_MAX && age <= KEPT_MILLIS).then_some(kept)
    }

    /// Which log is read now.
    #[must_use]
    pub fn log(&self) -> LogNumber {
        self.state().log
    }

    /// Keeps what was made of this log, unless it has turned out to be another since.
    pub fn keep(&self, made: Snapshot, log: LogNumber) {
        let mut kept = self.state();
        if kept.log == log {
            kept.snapshots.push_front(made);
            kept.snapshots.truncate(1 + LATER_MAX);
        }
    }

    /// The one of this name, if it was made here lately.
    #[must_use]
    pub fn named(&self, id: &str) -> Option<Snapshot> {
        self.state().snapshots.iter().find(|known| known.id.to_hex() == id).cloned()
    }

    /// Forgets them: they were of another log.
    pub(super) fn forget(&self) {
        let mut kept = self.state();
        *kept = Kept { snapshots: VecDeque::new(), log: LogNumber(kept.log.0.wrapping_add(1)) };
    }

    fn state(&self) -> MutexGuard<'_, Kept> {
        // Each change of it leaves it whole.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
