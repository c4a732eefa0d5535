//! Takes the pieces of a large snapshot from the issuer in parts, each small enough that copying it to the board holds up nobody.
//!
//! *What comes in:* bytes that claim to be pieces. They are written down as they come; whoever takes one from the board compares it
//! with the digest that the signed head has of it. Nobody uses any before all are there.

use tollgate_shared::revocation::FeedMessage;
use tollgate_shared::time::Now;
use tollgate_shared::wire::feed::{FeedDecodeError, PART_BYTES, SnapshotId};

use super::publish::Heard;
use super::{Asked, Published, Publisher, Scene};
use crate::engine::board::{Head, SnapshotDraft};
use crate::engine::call::{AnswerFault, Body, CallFailure, Reader};
use crate::engine::shared_data::{SharedData, Version};

/// A longer part is refused, in bytes: a part ends with the piece that brings it to its size.
const BYTES_MAX: usize = 2 * PART_BYTES;

/// A snapshot of which the head is there, and some of the pieces.
#[derive(Debug)]
pub(super) struct Parts {
    message: FeedMessage,
    id: SnapshotId,
    heard_at: Now,
    draft: SnapshotDraft,
    /// The piece that comes next.
    next: usize,
}

impl Parts {
    /// Where the part is that comes next.
    pub(super) fn path(&self) -> String {
        format!("/v1/edge/snapshot/{}/{}", self.id.to_hex(), self.next)
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
        self.parts = Some(Parts { message, id, heard_at: scene.now, draft, next: 0 });
        Published::News
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
        let Parts { message, draft, heard_at, .. } = parts;
        Ok(self.publish_snapshot(&message, draft, known, heard_at, scene))
    }
}
