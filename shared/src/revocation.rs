//! Decides whether a live token has been revoked, and keeps what that is decided by in step with the issuer.
//!
//! *What comes in:* feed messages whose signature was checked. *What goes out:* [`RevocationSet::revokes`], exact: no
//! token that was never revoked is refused. *What an attacker gains if this is wrong:* the use of a stolen token.

mod cutoffs;
mod feed;
mod index_set;
mod staging;

pub use cutoffs::{CUTOFFS_MAX, Cutoff, Cutoffs, Dimension};
pub use feed::{
    ApplyError, Delta, Epoch, FeedChange, FeedMessage, FeedState, Place, Position, SEGMENT_POSITIONS,
};
pub use index_set::{BLOCK_INDICES, BlockExpiry, IndexSet, LIST_INDICES, REVOKED_MAX, StatusIndex, list_uri};
pub use staging::{
    PIECE_BLOCKS_MAX, PIECE_CUTOFFS_MAX, PIECE_INDICES_MAX, Piece, PieceMark, Staging, pieces,
};

use crate::token::Claims;

/// The most by which the clocks of issuer and edge may differ, in seconds. Within it neither's jump brings a revoked token
/// back or makes a good one expire.
pub const CLOCK_ERROR_SECONDS: u64 = 15 * 60;
/// The most that a token may be late or early at an edge, in seconds; no configuration allows more.
pub const CLOCK_SKEW_SECONDS_MAX: u64 = 5 * 60;
/// How long a revocation is kept after the last token it can concern has expired, in seconds.
pub const RETENTION_SECONDS: u64 = CLOCK_ERROR_SECONDS + CLOCK_SKEW_SECONDS_MAX;

/// Everything that is revoked, as of one position of the feed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RevocationSet {
    /// Single tokens, by the index of their status.
    pub indices: IndexSet,
    /// Everything else.
    pub cutoffs: Cutoffs,
}

/// What about a token decides whether it is revoked.
#[derive(Debug, Clone, Copy)]
pub struct TokenFacts<'t> {
    /// Its place in the issuer's status lists, if it has one.
    pub index: Option<StatusIndex>,
    /// The `kid` of the key that signed it.
    pub key: &'t str,
    /// Its claims.
    pub claims: &'t Claims,
    /// Whether it was made by the issuer whose feed this is.
    pub home: bool,
}

/// Which revocation a token falls under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RevokedBy {
    /// Its own status index.
    Index,
    /// A cut-off in this dimension.
    Cutoff(Dimension),
}

impl RevocationSet {
    /// The revocation that covers this token, if there is one.
    #[must_use]
    pub fn revokes(&self, token: TokenFacts<'_>) -> Option<RevokedBy> {
        if token.index.is_some_and(|index| self.indices.contains(index)) {
            return Some(RevokedBy::Index);
        }
        self.cutoffs.covering(token.key, token.claims, token.home).map(RevokedBy::Cutoff)
    }
}
