//! Decides what of the issuer's answer goes on the board, and what the board says after it.
//!
//! *What comes in:* bytes that claim to be the issuer's. *What goes out:* whole messages under the issuer's signature that follow
//! on what the board has, or take its place.

use tollgate_shared::revocation::{ApplyError, FeedChange, FeedMessage, Place, Staging};
use tollgate_shared::time::{Monotonic, Now, UnixMillis};
use tollgate_shared::token::KeySet;
use tollgate_shared::wire::feed::FeedDecodeError;

use super::{Asked, Published, Publisher, Request, Scene, Task};
use crate::engine::board::{Head, SnapshotDraft, SnapshotRecord, Want};
use crate::engine::call::{AnswerFault, Body, CallFailure, Reader};
use crate::engine::freshness::IssuerClock;
use crate::engine::metrics::Counter;
use crate::engine::shared_data::{SharedData, Version};

/// The start of a body that is read at once, in bytes: most envelopes fit in. So much is read of one that does not.
const ENVELOPE_BYTES: usize = 64 * 1024;
const ENVELOPE_BYTES_MAX: usize = 1024 * 1024;

/// What the issuer said.
pub(super) struct Heard<'b> {
    pub(super) message: FeedMessage,
    pub(super) envelope: &'b [u8],
    pub(super) body: Body<'b>,
}

/// How a snapshot came.
pub(super) struct Arrival {
    /// When its head did.
    pub(super) heard_at: Now,
    /// How many deltas the board had when it came to where the snapshot leads, if it did while the pieces came.
    pub(super) met: Option<u64>,
}

impl Publisher {
    /// Publishes what an answer says.
    ///
    /// # Errors
    /// [`AnswerFault`]: the board is as it was.
    pub(super) fn publish<S: SharedData>(
        &mut self,
        asked: Asked,
        body: Body<'_>,
        scene: &mut Scene<'_, S>,
    ) -> Result<Published, AnswerFault> {
        let read = |size| body.part(0, size).ok_or(AnswerFault::Call(CallFailure::NoAnswer));
        let mut start = read(ENVELOPE_BYTES)?;
        if body.size() > ENVELOPE_BYTES
            && scene.opening.open_start(&start, body.size()) == Err(FeedDecodeError::Envelope)
        {
            start = read(ENVELOPE_BYTES_MAX)?;
        }
        let (message, envelope) =
            scene.opening.open_start(&start, body.size()).map_err(AnswerFault::Decode)?;
        let opened = Heard { message, envelope, body };
        let known = scene.board.head();
        let place = known.as_ref().map(|(head, _)| head.place());
        if asked.at != place.map(|place| (place.epoch, place.position)) {
            // Another VM that took itself for the leader was quicker. What was asked for is of no use now, and no fault.
            self.parts = None;
            return Ok(Published::Nothing);
        }
        match (&opened.message.change, asked.request) {
            (FeedChange::Snapshot { .. }, Request::Segment | Request::Part) => {
                Err(AnswerFault::Apply(ApplyError::Incomplete))
            }
            // One that was asked for news and says what it had said is a cache, or worse.
            (FeedChange::Snapshot { .. }, Request::Delta)
                if place.is_some_and(|place| {
                    place.epoch == opened.message.epoch && place.position == opened.message.to
                }) =>
            {
                Err(AnswerFault::Apply(ApplyError::Rollback))
            }
            // Asked for more, the issuer may say that it must begin anew.
            (FeedChange::Snapshot { .. }, Request::Snapshot | Request::Delta) => {
                // Begun and left: whether its keys can be used is known then.
                Staging::begin(place, opened.message.clone()).map_err(AnswerFault::Apply)?;
                let other_history = place.is_some_and(|place| place.epoch != opened.message.epoch);
                if asked.request == Request::Delta || other_history {
                    // What the board has cannot be followed on: nobody is polled for beside it.
                    self.task = Task::Restart;
                }
                let comes_alone = body.size() == opened.envelope.len() && opened.message.piece_bytes() > 0;
                match (comes_alone, asked.request) {
                    (false, _) => Ok(self.publish_whole(&opened, known, scene)),
                    (true, _) if self.takes_parts() => Ok(self.begin_parts(opened, known, scene)),
                    // It is asked for whole, with the time that this needs.
                    (true, Request::Delta) => Ok(Published::Nothing),
                    (true, _) => Err(AnswerFault::Decode(FeedDecodeError::Pieces)),
                }
            }
            (FeedChange::Delta(_), _) => {
                Place::may_become(place, &opened.message).map_err(AnswerFault::Apply)?;
                check_keys(&opened.message).map_err(AnswerFault::Apply)?;
                let published = self.publish_delta(asked.request, &opened, known, scene);
                // What this VM published it takes from the board next.
                scene.opening.remember(opened.envelope, opened.message);
                Ok(published)
            }
        }
    }

    /// Writes a snapshot down that came with all of its pieces.
    fn publish_whole<S: SharedData>(
        &mut self,
        opened: &Heard<'_>,
        mut known: Option<(Head, Version)>,
        scene: &mut Scene<'_, S>,
    ) -> Published {
        let Heard { message, envelope, body } = opened;
        // It takes the place of whatever was on its way.
        self.parts = None;
        let mut draft = scene.board.begin_snapshot(known.as_mut().map(|(head, _)| head), envelope);
        let mut reader = Reader::new(*body, envelope.len());
        for mark in message.pieces() {
            let piece = reader.next(mark.size as usize).unwrap_or_default();
            scene.board.write_piece(&mut draft, piece);
        }
        self.publish_snapshot(message, draft, known, Arrival { heard_at: scene.now, met: None }, scene)
    }

    /// Begins to use a snapshot that is written down.
    pub(super) fn publish_snapshot<S: SharedData>(
        &mut self,
        message: &FeedMessage,
        draft: SnapshotDraft,
        known: Option<(Head, Version)>,
        Arrival { heard_at, met }: Arrival,
        scene: &mut Scene<'_, S>,
    ) -> Published {
        let (known, version) = known.unzip();
        let clock = clock_after(known.as_ref(), message, heard_at);
        let place = Place::after(known.as_ref().map(Head::place), message);
        let same_history = known.as_ref().is_some_and(|head| head.epoch == message.epoch);
        let mut head = match known {
            Some(known) => Head { clock, ..known },
            None => Head::new(place, message.head, clock),
        };
        let record = scene.board.end_snapshot(draft, &mut head, message.to);
        self.parts_failed = 0;
        // Whoever asked for one until now is answered with this.
        scene.board.take_want(Want::Snapshot);
        scene.metrics.count(Counter::FeedSnapshot);
        self.is_unproven = true;
        self.task = match self.task {
            // While it came the board went past where it leads to: it goes on from there.
            Task::Fetch if let Some(deltas) = met => {
                head.snapshot = Some(SnapshotRecord { deltas, ..record });
                Task::Follow
            }
            // The VMs that have state go on from where they are, and so must the board.
            Task::Fetch if same_history && message.to > head.position => Task::Meet(record),
            Task::Follow | Task::Restart | Task::Fetch | Task::Meet(_) => {
                if (head.epoch, head.position) != (place.epoch, place.position) {
                    head.is_proven = false;
                }
                (head.epoch, head.position, head.as_of) = (place.epoch, place.position, place.as_of);
                head.snapshot = Some(record);
                head.fresh.clear();
                Task::Follow
            }
        };
        head.known_end = if same_history { head.known_end.max(message.head) } else { message.head };
        match scene.board.write_head(&head, version) {
            Ok(()) => Published::News,
            Err(_) => Published::Overtaken,
        }
    }

    fn publish_delta<S: SharedData>(
        &mut self,
        request: Request,
        opened: &Heard<'_>,
        known: Option<(Head, Version)>,
        scene: &mut Scene<'_, S>,
    ) -> Published {
        let Heard { message, envelope, .. } = opened;
        // A delta follows on something, so there is a head.
        let Some((known, version)) = known else { return Published::Overtaken };
        let place = Place::after(Some(known.place()), message);
        let news = message.to > known.position;
        let clock = clock_after(Some(&known), message, scene.now);
        // A segment was written when there was no more; a poll tells what there is, also if that is less than there was.
        let known_end = match request {
            Request::Segment => known.known_end.max(message.head),
            Request::Delta | Request::Snapshot | Request::Part => message.head,
        };
        let mut head = Head { clock, as_of: place.as_of, known_end, ..known };
        if news {
            scene.board.push_delta(&mut head, message, envelope);
        } else {
            head.fresh = envelope.to_vec();
        }
        head.is_proven |= head.position >= head.known_end;
        if let Some(parts) = &mut self.parts {
            parts.note(&head);
        }
        if let Task::Meet(record) = self.task {
            if head.position == record.position {
                head.snapshot = Some(SnapshotRecord { deltas: head.deltas, ..record });
                self.task = Task::Follow;
                self.fetch_failures = 0;
                // Whoever asked for one until now is answered with this.
                scene.board.take_want(Want::Snapshot);
            } else if head.position > record.position {
                self.task = Task::Fetch;
            }
        }
        scene.metrics.count(Counter::FeedDelta);
        self.is_unproven = false;
        match scene.board.write_head(&head, Some(version)) {
            Ok(()) if news => Published::News,
            Ok(()) => Published::Proof,
            Err(_) => Published::Overtaken,
        }
    }
}

fn check_keys(message: &FeedMessage) -> Result<(), ApplyError> {
    message.keys.as_deref().map(|jwks| KeySet::from_jwks(jwks.as_bytes())).transpose()?;
    Ok(())
}

/// What the process knows of the issuer's clock after this message.
fn clock_after(head: Option<&Head>, message: &FeedMessage, now: Now) -> (UnixMillis, Monotonic) {
    let clock = match head {
        Some(head) => {
            let mut clock = IssuerClock::resume(head.clock, head.as_of);
            clock.advance(message.as_of, now.monotonic);
            clock
        }
        None => IssuerClock::first(message.as_of, now),
    };
    clock.reading()
}
