//! Keeps what was signed, so that it is signed once however many ask for it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use tollgate_shared::revocation::{Epoch, FeedMessage, Position};
use tollgate_shared::time::UnixMillis;

use crate::metrics::FeedKind;

/// What is kept takes at most so many bytes, and is at most so many answers.
const KEPT_BYTES_MAX: usize = 32 * 1024 * 1024;
const KEPT_ANSWERS_MAX: usize = 4096;
/// An answer that goes to the head is given again until a look that was made so many milliseconds later.
const AT_HEAD_MILLIS: u64 = 20;
/// One that does not says of the instant only where the head was.
const SHORT_OF_HEAD_MILLIS: u64 = 1_000;

/// An answer to a poll.
#[derive(Debug, Clone)]
pub struct FeedAnswer {
    /// The message, encoded and signed.
    pub message: Bytes,
    /// The position that the edge has after it; `None` when it has to ask for pieces first.
    pub to: Option<Position>,
    pub(super) kind: FeedKind,
}

/// Which message it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Told {
    /// From the first position to the second.
    Delta(Epoch, Position, Position),
    /// From this position on.
    Segment(Epoch, Position),
}

/// What was signed, by what it tells.
#[derive(Debug, Default)]
pub struct Answers(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    made: BTreeMap<Told, Made>,
    /// The oldest first.
    order: VecDeque<Told>,
    bytes: usize,
}

#[derive(Debug)]
struct Made {
    message: Bytes,
    /// Until which look it is given again; for good when `None`.
    until: Option<UnixMillis>,
}

impl Answers {
    /// The bytes of what is told, of which the history was looked at `looked_at`: those that are kept, or else those that `make`
    /// gives. Who asks meanwhile waits, for a fraction of a millisecond.
    ///
    /// # Errors
    /// That of `make`.
    pub fn one<E>(
        &self,
        told: Told,
        looked_at: UnixMillis,
        make: impl FnOnce() -> Result<(FeedMessage, Bytes), E>,
    ) -> Result<Bytes, E> {
        let mut kept = self.kept();
        let is_good = |made: &&Made| made.until.is_none_or(|until| looked_at <= until);
        if let Some(made) = kept.made.get(&told).filter(is_good) {
            return Ok(made.message.clone());
        }
        let (FeedMessage { to, head, .. }, message) = make()?;
        let millis = if to == head { AT_HEAD_MILLIS } else { SHORT_OF_HEAD_MILLIS };
        let until = match told {
            Told::Delta(..) => Some(UnixMillis(looked_at.0.saturating_add(millis))),
            Told::Segment(..) => None,
        };
        kept.keep(told, Made { message: message.clone(), until });
        Ok(message)
    }

    /// Forgets all: it was of another history.
    pub(super) fn clear(&self) {
        *self.kept() = Kept::default();
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Each change of it leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn keep(&mut self, told: Told, made: Made) {
        self.bytes += made.message.len();
        match self.made.insert(told, made) {
            Some(before) => self.bytes -= before.message.len(),
            None => self.order.push_back(told),
        }
        while self.bytes > KEPT_BYTES_MAX || self.order.len() > KEPT_ANSWERS_MAX {
            let Some(oldest) = self.order.pop_front() else { break };
            if let Some(made) = self.made.remove(&oldest) {
                self.bytes -= made.message.len();
            }
        }
    }
}
