//! Guards a snapshot while it is taken in, piece by piece: nobody sees it before it is whole.
//!
//! *What comes in:* the signed head of a snapshot, then pieces whose digests the head names. *What goes out:* a
//! [`FeedState`] that has all of it, and nothing before that. *What an attacker gains if this is wrong:* a revocation that
//! is left out.

use super::cutoffs::{CUTOFFS_MAX, Cutoff, Cutoffs};
use super::feed::{ApplyError, FeedChange, FeedMessage, FeedState, Place};
use super::index_set::{BlockExpiry, REVOKED_MAX, StatusIndex};
use super::{RETENTION_SECONDS, RevocationSet};
use crate::quota::Plan;
use crate::time::UnixSeconds;
use crate::token::{IgnoredKey, KeySet};

/// What the head of a snapshot says of one of its pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PieceMark {
    /// How long it is, in bytes.
    pub size: u32,
    /// The SHA-256 of its bytes.
    pub digest: [u8; 32],
}

/// A part of a snapshot, small enough that taking it in holds up nobody: see [`PIECE_INDICES_MAX`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Revoked indices, ascending.
    Indices {
        /// The indices.
        revoked: Vec<StatusIndex>,
        /// The expiries of the blocks they lie in.
        blocks: Vec<BlockExpiry>,
    },
    /// Cut-offs.
    Cutoffs(Vec<Cutoff>),
}

/// A piece ends with the block that brings it to so many indices, at most twice this less one.
pub const PIECE_INDICES_MAX: usize = 1 << 14;
/// A piece has at most so many blocks.
pub const PIECE_BLOCKS_MAX: usize = 512;
/// A piece has at most so many cut-offs.
pub const PIECE_CUTOFFS_MAX: usize = 256;

/// The pieces that a set is sent as: as many blocks or cut-offs in each as there may be.
pub fn pieces(set: &RevocationSet) -> impl Iterator<Item = Piece> + '_ {
    IndexPieces { set, indices: set.indices.iter().peekable() }.chain(CutoffPieces(set.cutoffs.iter()))
}

struct IndexPieces<'s, I: Iterator<Item = StatusIndex>> {
    set: &'s RevocationSet,
    indices: std::iter::Peekable<I>,
}

impl<I: Iterator<Item = StatusIndex>> Iterator for IndexPieces<'_, I> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        let (mut revoked, mut blocks, mut count) = (Vec::new(), Vec::new(), 0);
        while let Some(block) = self.indices.peek().map(|index| index.block()) {
            if count >= PIECE_BLOCKS_MAX || revoked.len() >= PIECE_INDICES_MAX {
                break;
            }
            count += 1;
            blocks.extend(self.set.indices.expiry(block));
            while let Some(index) = self.indices.next_if(|index| index.block() == block) {
                revoked.push(index);
            }
        }
        (count > 0).then_some(Piece::Indices { revoked, blocks })
    }
}

struct CutoffPieces<I>(I);

impl<I: Iterator<Item = Cutoff>> Iterator for CutoffPieces<I> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        let cutoffs: Vec<Cutoff> = self.0.by_ref().take(PIECE_CUTOFFS_MAX).collect();
        (!cutoffs.is_empty()).then_some(Piece::Cutoffs(cutoffs))
    }
}

/// A snapshot of which some pieces are there.
#[derive(Debug)]
pub struct Staging {
    place: Place,
    keys: KeySet,
    ignored_keys: Vec<IgnoredKey>,
    plans: Vec<Plan>,
    marks: Vec<PieceMark>,
    taken: usize,
    set: RevocationSet,
}

impl Staging {
    /// Begins with the head of a snapshot, which must be able to replace what is at `current`.
    ///
    /// # Errors
    /// See [`ApplyError`].
    pub fn begin(current: Option<Place>, message: FeedMessage) -> Result<Self, ApplyError> {
        Place::may_become(current, &message)?;
        let place = message.place();
        let FeedMessage { change: FeedChange::Snapshot { pieces: marks }, keys, plans, .. } = message else {
            return Err(ApplyError::Incomplete);
        };
        let (Some(keys), Some(plans)) = (keys, plans) else {
            return Err(ApplyError::Incomplete);
        };
        let (keys, ignored_keys) = KeySet::from_jwks(keys.as_bytes())?;
        Ok(Self { place, keys, ignored_keys, plans, marks, taken: 0, set: RevocationSet::default() })
    }

    /// Where it will lead.
    #[must_use]
    pub fn place(&self) -> Place {
        self.place
    }

    /// The number of the piece that comes next, and what it must be; `None` when all are there.
    #[must_use]
    pub fn next_piece(&self) -> Option<(usize, PieceMark)> {
        self.marks.get(self.taken).map(|mark| (self.taken, *mark))
    }

    /// Takes in the next piece, which was compared with its mark.
    ///
    /// # Errors
    /// [`ApplyError::TooLarge`].
    pub fn take_in(&mut self, piece: Piece) -> Result<(), ApplyError> {
        match piece {
            Piece::Indices { revoked, blocks } => {
                let total = self.set.indices.len().saturating_add(revoked.len() as u64);
                if total > u64::from(REVOKED_MAX) {
                    return Err(ApplyError::TooLarge);
                }
                self.set.indices.extend_ascending(&revoked);
                self.set.indices.learn_expiries(blocks);
            }
            Piece::Cutoffs(cutoffs) => {
                if self.set.cutoffs.len() + cutoffs.len() > CUTOFFS_MAX {
                    return Err(ApplyError::TooLarge);
                }
                for cutoff in cutoffs {
                    self.set.cutoffs.insert(cutoff);
                }
            }
        }
        self.taken += 1;
        Ok(())
    }

    /// Gives it up. What it had of cut-offs, of which there may be many, is given back by whoever has it.
    #[must_use]
    pub fn give_up(self) -> Cutoffs {
        self.set.cutoffs
    }

    /// The whole of it. What expired by the issuer's clock *and* by ours, which shows `today`, is left out.
    ///
    /// # Errors
    /// [`ApplyError::Incomplete`] when pieces are missing.
    pub fn finish(self, today: UnixSeconds) -> Result<FeedState, ApplyError> {
        if self.next_piece().is_some() {
            return Err(ApplyError::Incomplete);
        }
        let Self { place, keys, ignored_keys, plans, mut set, .. } = self;
        set.indices.drop_expired(place.as_of.seconds().min(today).minus(RETENTION_SECONDS));
        let Place { epoch, position, as_of } = place;
        Ok(FeedState { epoch, position, as_of, revoked: set, keys, ignored_keys, plans })
    }
}

#[cfg(test)]
mod tests;
