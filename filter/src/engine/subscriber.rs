//! Each VM's own part: takes from the board what the leader put there, checks it as if it came from the network, and keeps the
//! state that decisions are made by.
//!
//! *What comes in:* the board. *What goes out:* a [`FeedState`] that is whole, under the issuer's signature, and never
//! older than the one before. *What an attacker gains if this is wrong:* the use of a revoked token at one worker.
//!
//! A step is bounded: one piece of a snapshot, or a few deltas. A new state is built aside until it has come to the end of
//! the board, and the issuer was heard to have no more: a VM that was replaced decides nothing by a snapshot that the process
//! had already gone beyond, nor a process that starts by one that was made a while ago.

use tollgate_shared::revocation::{ApplyError, Cutoffs, FeedMessage, FeedState, PieceMark, Staging};
use tollgate_shared::time::{Monotonic, Now, UnixSeconds};
use tollgate_shared::wire::feed::{FeedDecodeError, open_piece};

use super::board::{Board, Head, SnapshotRecord, Want};
use super::call::AnswerFault;
use super::freshness::IssuerClock;
use super::metrics::{Counter, Metrics};
use super::opening::Opening;
use super::shared_data::{SharedData, Version};

/// The most deltas of one step, and the bytes after which it ends.
const DELTAS_MAX: usize = 8;
const DELTA_BYTES_MAX: usize = 4 * 1024;
/// So many indices are brought into the bitmap in one step, and nothing new is taken in before all are.
const SETTLED_MAX: usize = 256;
/// The most values of cut-offs that are given back in one step, of a state that was replaced.
const DISCARDED_MAX: usize = 512;
/// Who wants a snapshot and gets none of use asks again after this, in milliseconds, and after twice as long each time up to
/// thirty-two times.
const ASK_AGAIN_MILLIS: u64 = 1_000;
/// For so long nothing is tried after something on the board could not be used, in milliseconds.
const PAUSE_MILLIS: u64 = 250;

/// What one VM knows from the feed.
#[derive(Debug, Default)]
pub(super) struct Subscriber {
    live: Option<Live>,
    /// Whether the board's next delta follows on the live state.
    in_step: bool,
    building: Option<Building>,
    /// The head that was last looked at.
    seen: Option<Version>,
    /// Before this it does not ask for a snapshot, and how often it has.
    ask_at: Monotonic,
    asks: u32,
    /// Before this it does not try to build a state.
    build_at: Monotonic,
    /// What was given up or replaced, and is given back in steps.
    retired: Vec<Cutoffs>,
}

/// The state that decisions are made by.
#[derive(Debug)]
struct Live {
    state: FeedState,
    clock: IssuerClock,
    /// The number of the delta that comes next.
    next: u64,
    /// When it came to this position.
    since: Monotonic,
}

impl Live {
    fn is_unsettled(&self) -> bool {
        !self.state.revoked.indices.is_settled()
    }
}

/// A state that is not whole yet.
#[derive(Debug)]
enum Building {
    /// Some pieces are there.
    Pieces { staging: Box<Staging>, record: SnapshotRecord },
    /// It has to come to the end of the board, or waits there until that is all there is.
    CatchingUp { state: Box<FeedState>, next: u64, waits: bool },
}

impl Subscriber {
    pub(super) fn state(&self) -> Option<&FeedState> {
        self.live.as_ref().map(|live| &live.state)
    }

    pub(super) fn clock(&self) -> Option<&IssuerClock> {
        self.live.as_ref().map(|live| &live.clock)
    }

    /// Since when this VM enforces what it enforces.
    pub(super) fn since(&self) -> Monotonic {
        self.live.as_ref().map(|live| live.since).unwrap_or_default()
    }

    /// Whether there is more to take in than one step allowed.
    pub(super) fn is_busy(&self) -> bool {
        let is_building = match &self.building {
            Some(Building::Pieces { .. } | Building::CatchingUp { waits: false, .. }) => true,
            Some(Building::CatchingUp { waits: true, .. }) | None => false,
        };
        is_building || !self.retired.is_empty() || self.live.as_ref().is_some_and(Live::is_unsettled)
    }

    /// Takes a step: whether it changed what decisions are made by.
    ///
    /// # Errors
    /// [`AnswerFault`] of what was on the board and could not be used. The state is as it was.
    pub(super) fn step<S: SharedData>(
        &mut self,
        board: &Board<S>,
        opening: &mut Opening,
        metrics: &mut Metrics,
        now: Now,
    ) -> Result<bool, AnswerFault> {
        if let Some(oldest) = self.retired.first_mut()
            && !oldest.discard(DISCARDED_MAX)
        {
            self.retired.remove(0);
        }
        if let Some(live) = self.live.as_mut().filter(|live| live.is_unsettled()) {
            live.state.revoked.indices.settle(SETTLED_MAX);
            return Ok(false);
        }
        let Some((head, version)) = board.head() else {
            return Ok(false);
        };
        let today = now.wall.seconds();
        let mut budget = Budget { deltas: DELTAS_MAX, bytes: DELTA_BYTES_MAX };
        if self.in_step && self.seen == Some(version) && self.building.is_none() {
            return Ok(false);
        }
        self.seen = Some(version);
        if let Some(live) = &mut self.live {
            // Whether or not what is new can be followed: how late it is at the issuer is known.
            live.clock.learn(head.clock, now.monotonic);
        }
        let (mut moved, mut fault) = (false, None);
        if self.in_step {
            match self.follow(board, opening, &head, today, &mut budget, now) {
                Ok(news) => moved = news,
                Err(error) => {
                    self.in_step = false;
                    // A board that was begun anew is no fault of anybody.
                    let anew = AnswerFault::Apply(ApplyError::Gap);
                    fault = Some(error).filter(|error| *error != anew);
                }
            }
        }
        if !self.in_step && now.monotonic >= self.build_at {
            match self.build(board, opening, &head, &mut budget, now) {
                Ok(news) => moved |= news,
                Err(error) => {
                    self.build_at = now.monotonic.plus(PAUSE_MILLIS);
                    fault = Some(error);
                    // The one on the board may be damaged, and stay so.
                    self.ask(board, now.monotonic);
                }
            }
        }
        match fault {
            Some(fault) => {
                metrics.count(Counter::FeedRefused);
                Err(fault)
            }
            None => Ok(moved),
        }
    }

    /// Adds to the live state what is new on the board.
    fn follow<S: SharedData>(
        &mut self,
        board: &Board<S>,
        opening: &mut Opening,
        head: &Head,
        today: UnixSeconds,
        budget: &mut Budget,
        now: Now,
    ) -> Result<bool, AnswerFault> {
        let Some(live) = &mut self.live else { return Ok(false) };
        let before = live.state.position;
        let followed = follow_on(live, (board, head), opening, today, budget);
        // Also if what came last could not be used: what was added before it counts from now on.
        live.clock.advance(live.state.as_of, now.monotonic);
        let moved = live.state.position != before;
        if moved {
            live.since = now.monotonic;
        }
        if !followed? {
            // What is left is looked at in the next step.
            self.seen = None;
        }
        Ok(moved)
    }

    /// Builds a state from the snapshot on the board.
    fn build<S: SharedData>(
        &mut self,
        board: &Board<S>,
        opening: &mut Opening,
        head: &Head,
        budget: &mut Budget,
        now: Now,
    ) -> Result<bool, AnswerFault> {
        // What is given up here is given back in steps, too.
        match self.building.take() {
            None => {
                self.begin(board, opening, head, now)?;
                Ok(false)
            }
            // Another snapshot has taken the place of this one.
            Some(Building::Pieces { record, staging }) if head.snapshot != Some(record) => {
                self.retired.push(staging.give_up());
                Ok(false)
            }
            Some(Building::Pieces { mut staging, record }) => {
                if let Some((number, mark)) = staging.next_piece() {
                    let taken = take_piece(&mut staging, board.piece(number), mark);
                    if taken.is_err() {
                        self.retired.push(staging.give_up());
                    } else {
                        self.building = Some(Building::Pieces { staging, record });
                    }
                    taken?;
                } else {
                    let state = staging.finish(now.wall.seconds()).map_err(AnswerFault::Apply)?;
                    let (state, next) = (Box::new(state), record.deltas);
                    self.building = Some(Building::CatchingUp { state, next, waits: false });
                }
                Ok(false)
            }
            Some(Building::CatchingUp { mut state, next, .. }) if !state.revoked.indices.is_settled() => {
                state.revoked.indices.settle(SETTLED_MAX);
                self.building = Some(Building::CatchingUp { state, next, waits: false });
                Ok(false)
            }
            Some(Building::CatchingUp { mut state, mut next, .. }) => {
                let source = (board, head);
                let advanced = advance(&mut state, &mut next, source, opening, now.wall.seconds(), budget);
                let is_at_the_end = match advanced {
                    Ok(is_at_the_end) => is_at_the_end,
                    Err(fault) => {
                        self.retired.push(state.revoked.cutoffs);
                        return Err(fault);
                    }
                };
                if is_at_the_end && (head.is_proven || self.live.is_some()) {
                    return Ok(self.go_live(*state, next, head, now));
                }
                self.building = Some(Building::CatchingUp { state, next, waits: is_at_the_end });
                Ok(false)
            }
        }
    }

    fn begin<S: SharedData>(
        &mut self,
        board: &Board<S>,
        opening: &mut Opening,
        head: &Head,
        now: Now,
    ) -> Result<(), AnswerFault> {
        let Some(record) = head.usable_snapshot() else {
            self.ask(board, now.monotonic);
            return Ok(());
        };
        let current = self.live.as_ref().map(|live| live.state.place());
        let missing = AnswerFault::Decode(FeedDecodeError::Pieces);
        let envelope = board.snapshot().ok_or(missing)?;
        let message: FeedMessage = opening.open(&envelope).map_err(AnswerFault::Decode)?;
        match Staging::begin(current, message) {
            Ok(staging) => {
                self.building = Some(Building::Pieces { staging: Box::new(staging), record });
                Ok(())
            }
            Err(error) => {
                self.ask(board, now.monotonic);
                Err(AnswerFault::Apply(error))
            }
        }
    }

    fn ask<S: SharedData>(&mut self, board: &Board<S>, now: Monotonic) {
        if now >= self.ask_at {
            self.ask_at = now.plus(ASK_AGAIN_MILLIS << self.asks.min(5));
            self.asks += 1;
            board.want(Want::Snapshot);
        }
    }

    /// Puts a state that is whole in the place of the one before, unless that had come further.
    fn go_live(&mut self, mut state: FeedState, next: u64, head: &Head, now: Now) -> bool {
        let mut clock = match self.live.take() {
            Some(Live { state: before, clock, next: followed, since }) => {
                if before.epoch == state.epoch && before.position > state.position {
                    self.live = Some(Live { state: before, clock, next: followed, since });
                    return false;
                }
                state.as_of = state.as_of.max(before.as_of);
                self.retired.push(before.revoked.cutoffs);
                clock
            }
            None => IssuerClock::first(state.as_of, now),
        };
        clock.advance(state.as_of, now.monotonic);
        clock.learn(head.clock, now.monotonic);
        self.live = Some(Live { state, clock, next, since: now.monotonic });
        (self.in_step, self.seen) = (true, None);
        (self.asks, self.ask_at) = (0, Monotonic::default());
        true
    }
}

fn take_piece(staging: &mut Staging, bytes: Option<Vec<u8>>, mark: PieceMark) -> Result<(), AnswerFault> {
    let bytes = bytes.ok_or(AnswerFault::Decode(FeedDecodeError::Pieces))?;
    let piece = open_piece(&mark, &bytes).map_err(AnswerFault::Decode)?;
    staging.take_in(piece).map_err(AnswerFault::Apply)
}

/// Adds what is new on the board, and then the proof that there is no more; tells whether that was all.
fn follow_on<S: SharedData>(
    live: &mut Live,
    (board, head): (&Board<S>, &Head),
    opening: &mut Opening,
    today: UnixSeconds,
    budget: &mut Budget,
) -> Result<bool, AnswerFault> {
    if !advance(&mut live.state, &mut live.next, (board, head), opening, today, budget)? {
        return Ok(false);
    }
    if !head.fresh.is_empty() {
        let message = opening.open(&head.fresh).map_err(AnswerFault::Decode)?;
        match live.state.add(message, today) {
            // Of before the last delta.
            Ok(()) | Err(ApplyError::Rollback | ApplyError::Gap) => {}
            Err(error) => return Err(AnswerFault::Apply(error)),
        }
    }
    Ok(true)
}

/// How much a step may still do.
struct Budget {
    deltas: usize,
    bytes: usize,
}

/// Adds deltas from the board to a state until there are no more, and tells so, or until the budget is used.
fn advance<S: SharedData>(
    state: &mut FeedState,
    next: &mut u64,
    (board, head): (&Board<S>, &Head),
    opening: &mut Opening,
    today: UnixSeconds,
    budget: &mut Budget,
) -> Result<bool, AnswerFault> {
    if *next > head.deltas {
        // The board has begun anew.
        return Err(AnswerFault::Apply(ApplyError::Gap));
    }
    while *next < head.deltas {
        if budget.deltas == 0 || budget.bytes == 0 {
            return Ok(false);
        }
        let envelope = board.delta(*next).ok_or(AnswerFault::Apply(ApplyError::Gap))?;
        budget.deltas -= 1;
        budget.bytes = budget.bytes.saturating_sub(envelope.len());
        let message = opening.open(&envelope).map_err(AnswerFault::Decode)?;
        let is_known = message.epoch == state.epoch && message.to <= state.position;
        if !is_known {
            state.add(message, today).map_err(AnswerFault::Apply)?;
        }
        *next += 1;
    }
    // Another board may have as many deltas as the one that was followed.
    if state.epoch == head.epoch && state.position >= head.position {
        Ok(true)
    } else {
        Err(AnswerFault::Apply(ApplyError::Gap))
    }
}
