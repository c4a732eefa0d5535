//! Takes the pieces of a large snapshot from the issuer in parts, each small enough that copying it to the board holds up nobody.
//!
//! *What comes in:* bytes that claim to be pieces. They are written down as they come; whoever takes one from the board compares it
//! with the digest that the signed head has of it. Nobody uses any before all are there.

use tollgate_shared::revocation::{ApplyError, FeedMessage, Position};
use tollgate_shared::time::Now;
use tollgate_shared::wire::feed::{FeedDecodeError, PART_BYTES, SnapshotId};

use super::publish::{Arrival, Heard};
use super::{Asked, PARTS_FAILED_MAX, Published, Publisher, Scene};
use crate::engine::board::{Head, SnapshotDraft};
use crate::engine::call::{AnswerFault, Body, CallFailure, Reader};
use crate::engine::shared_data::{SharedData, Version};

/// A longer part is refused, in bytes: a part ends with the piece that brings it to its size.
const BYTES_MAX: usize = 2 * PART_BYTES;

/// A part is asked for so many times more when the issuer does not have it: each replica has its own snapshots, and one call may
/// reach another than the one before.
const MISSES_MAX: u32 = 24;

/// A snapshot of which the head is there, and some of the pieces.
#[derive(Debug)]
pub(super) struct Parts {
    message: FeedMessage,
    id: SnapshotId,
    heard_at: Now,
    draft: SnapshotDraft,
    /// The piece that comes next.
    next: usize,
    /// How often in a row the issuer did not have that.
    misses: u32,
    /// How many deltas the board had when it came to where this leads.
    met: Option<u64>,
}

impl Parts {
    /// Where the part is that comes next.
    pub(super) fn path(&self) -> String {
        format!("/v1/edge/snapshot/{}/{}", self.id.to_hex(), self.next)
    }

    /// Where what is new must end at, so that the board comes to exactly where this leads; `None` when it has.
    pub(super) fn until(&self) -> Option<Position> {
        self.met.is_none().then_some(self.message.to)
    }

    /// The board has come to here.
    pub(super) fn note(&mut self, head: &Head) {
        if (head.epoch, head.position) == (self.message.epoch, self.message.to) {
            self.met = self.met.or(Some(head.deltas));
        }
    }

    /// Writes down the pieces of a part.
    fn take_in(
        &mut self,
        body: Body<'_>,
        mut write: impl FnMut(&mut SnapshotDraft, &[u8]),
    ) -> Result<(), AnswerFault> {
        let other = AnswerFault::Decode(FeedDecodeError::Pieces);
        let mut left = body.size();
        if left == 0 || left > BYTES_MAX {
            return Err(other);
        }
        let mut reader = Reader::new(body, 0);
        while left > 0 {
            let size = self.message.pieces().get(self.next).ok_or(other)?.size as usize;
            left = left.checked_sub(size).ok_or(other)?;
            let piece = reader.next(size).ok_or(AnswerFault::Call(CallFailure::NoAnswer))?;
            write(&mut self.draft, piece);
            self.next += 1;
        }
        self.misses = 0;
        Ok(())
    }
}

impl Publisher {
    /// Begins with the head of a snapshot, which came alone.
    pub(super) fn begin_parts<S: SharedData>(
        &mut self,
        Heard { message, envelope, .. }: Heard<'_>,
        known: Option<(Head, Version)>,
        scene: &Scene<'_, S>,
    ) -> Published {
        let (mut head, version) = known.unzip();
        let draft = scene.board.begin_snapshot(head.as_mut(), envelope);
        // Nobody begins with the one before, whose place is taken.
        if let Some(head) = &head
            && scene.board.write_head(head, version).is_err()
        {
            return Published::Overtaken;
        }
        let id = SnapshotId::of(envelope);
        let mut parts = Parts { message, id, heard_at: scene.now, draft, next: 0, misses: 0, met: None };
        if let Some(head) = &head {
            parts.note(head);
        }
        self.parts = Some(parts);
        Published::News
    }

    /// The issuer does not have the part that comes next. In the end the snapshot is given up, and one is asked for whole.
    pub(super) fn miss_part(&mut self) {
        let Some(parts) = &mut self.parts else { return };
        parts.misses += 1;
        if parts.misses > MISSES_MAX {
            self.parts = None;
            self.parts_failed = PARTS_FAILED_MAX;
        }
    }

    /// Takes in a part; the last one brings the snapshot into use.
    ///
    /// # Errors
    /// [`AnswerFault`]: the snapshot is given up.
    pub(super) fn publish_part<S: SharedData>(
        &mut self,
        asked: Asked,
        body: Body<'_>,
        scene: &mut Scene<'_, S>,
    ) -> Result<Published, AnswerFault> {
        let Some(mut parts) = self.parts.take() else { return Ok(Published::Nothing) };
        let known = scene.board.head();
        let place = known.as_ref().map(|(head, _)| (head.epoch, head.position));
        if asked.at != place {
            // Another VM that took itself for the leader was quicker.
            return Ok(Published::Nothing);
        }
        parts.take_in(body, |draft, piece| scene.board.write_piece(draft, piece))?;
        if parts.next < parts.message.pieces().len() {
            self.parts = Some(parts);
            return Ok(Published::News);
        }
        let Parts { message, draft, heard_at, met, .. } = parts;
        let has_passed = |head: &Head| head.epoch == message.epoch && head.position > message.to;
        if met.is_none() && known.as_ref().is_some_and(|(head, _)| has_passed(head)) {
            // It is not known which delta follows on it, and the board does not go back.
            return Err(AnswerFault::Apply(ApplyError::Rollback));
        }
        Ok(self.publish_snapshot(&message, draft, known, Arrival { heard_at, met }, scene))
    }
}
