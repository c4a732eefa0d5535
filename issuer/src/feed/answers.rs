//! Has what many edges ask at once read and signed once for all of them.
//!
//! An answer holds everything that was committed when its reading began. So one is given to those only who had asked by
//! then: who comes while a reading is under way waits for the next, together with everybody else who does.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use tollgate_shared::revocation::Position;

use super::FeedError;
use crate::metrics::FeedKind;
use crate::store::StoreError;

/// An answer to a poll.
#[derive(Debug, Clone)]
pub struct FeedAnswer {
    /// The message, encoded and signed.
    pub message: Bytes,
    /// The position that the edge has after it.
    pub to: Position,
    pub(super) kind: FeedKind,
}

/// The answers that are being made, by what the edges have that ask for them. There are no more than polls under way.
#[derive(Debug, Default)]
pub(super) struct Answers(Mutex<BTreeMap<Option<Position>, Arc<Gate>>>);

/// Lets in one at a time of those who have the same.
#[derive(Debug, Default)]
struct Gate {
    came: AtomicU64,
    last: tokio::sync::Mutex<Option<Made>>,
}

/// The last answer, and how many had come when its reading began; `None` when it failed.
#[derive(Debug)]
struct Made {
    came: u64,
    answer: Option<FeedAnswer>,
}

impl Answers {
    /// The answer to who has the feed up to `after`: one that somebody else has made since the call, or else of `make`.
    pub(super) async fn one<F>(
        &self,
        after: Option<Position>,
        make: impl FnOnce() -> F,
    ) -> Result<FeedAnswer, FeedError>
    where
        F: Future<Output = Result<FeedAnswer, FeedError>>,
    {
        let place = Place::take(self, after);
        let number = place.gate.came.fetch_add(1, Ordering::SeqCst) + 1;
        let mut last = place.gate.last.lock().await;
        if let Some(made) = last.as_ref().filter(|made| made.came >= number) {
            // Not asked again for each who waits, when it did not answer the first of them.
            return made.answer.clone().ok_or(FeedError::Store(StoreError::Unreachable));
        }
        let came = place.gate.came.load(Ordering::SeqCst);
        let made = make().await;
        *last = Some(Made { came, answer: made.as_ref().ok().cloned() });
        made
    }
}

/// A place at a gate. The last to leave closes it.
struct Place<'a> {
    answers: &'a Answers,
    after: Option<Position>,
    gate: Arc<Gate>,
}

impl<'a> Place<'a> {
    fn take(answers: &'a Answers, after: Option<Position>) -> Self {
        let mut gates = answers.0.lock().unwrap_or_else(PoisonError::into_inner);
        let gate = Arc::clone(gates.entry(after).or_default());
        Self { answers, after, gate }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut gates = self.answers.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Ours goes while nobody else can count: or two who leave at once would each take the other for one who stays.
        drop(std::mem::take(&mut self.gate));
        if gates.get(&self.after).is_some_and(|gate| Arc::strong_count(gate) == 1) {
            gates.remove(&self.after);
        }
    }
}
