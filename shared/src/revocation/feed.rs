//! Decides which feed message may replace which state: in sequence, whole or not at all, never backwards.

use super::cutoffs::{CUTOFFS_MAX, Cutoff};
use super::index_set::{BlockExpiry, REVOKED_MAX, StatusIndex};
use super::staging::PieceMark;
use super::{RETENTION_SECONDS, RevocationSet};
use crate::id::hex;
use crate::quota::Plan;
use crate::time::{UnixMillis, UnixSeconds};
use crate::token::{IgnoredKey, KeySet, KeySetError};

/// Names one history of the feed. It changes when history restarts, and positions of different epochs do not compare; that
/// epochs do is of use to maps only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub [u8; 16]);

impl Epoch {
    /// 32 hexadecimal digits.
    #[must_use]
    pub fn to_hex(self) -> String {
        hex(&self.0)
    }

    /// What [`Self::to_hex`] wrote.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        u128::from_str_radix(text, 16).ok().map(|number| Self(number.to_be_bytes()))
    }
}

/// A place in the history of one epoch: the number of changes so far, in the order in which they were committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(pub u64);

/// A delta has at most so many positions, and ends at the latest at a multiple of it: who is far behind takes equal segments
/// of the history, which never change and which a cache may keep.
pub const SEGMENT_POSITIONS: u64 = 1024;

/// One message of the feed.
#[derive(Debug, Clone, PartialEq)]
pub struct FeedMessage {
    /// The history it belongs to.
    pub epoch: Epoch,
    /// The position it leads to.
    pub to: Position,
    /// The end of the history when it was made, for who wants to know how much is left to ask for.
    pub head: Position,
    /// The issuer's time: what the message leads to holds everything up to `to` that was committed until then, and all
    /// there is if `to` is `head`. It never goes back.
    pub as_of: UnixMillis,
    /// What it changes.
    pub change: FeedChange,
    /// The issuer's JWK Set as JSON, when it changed; always in a snapshot.
    pub keys: Option<String>,
    /// Plans, when they changed; always in a snapshot.
    pub plans: Option<Vec<Plan>>,
}

/// How a message relates to what an edge already has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FeedChange {
    /// Adds to the state at exactly one position.
    Delta(Delta),
    /// Replaces the state, by what its pieces hold together: see [`super::Staging`].
    Snapshot {
        /// The pieces, in order.
        pieces: Vec<PieceMark>,
    },
}

/// What is new since a position.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Delta {
    /// That position.
    pub from: Position,
    /// Indices revoked since.
    pub revoked: Vec<StatusIndex>,
    /// Expiries of the blocks those indices lie in.
    pub blocks: Vec<BlockExpiry>,
    /// Cut-offs made since.
    pub cutoffs: Vec<Cutoff>,
}

/// A position of a history, and how late it was when it was reached: by this it is decided what may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Which history.
    pub epoch: Epoch,
    /// Where in it.
    pub position: Position,
    /// The issuer's time then.
    pub as_of: UnixMillis,
}

impl FeedMessage {
    /// Where it leads.
    #[must_use]
    pub fn place(&self) -> Place {
        Place { epoch: self.epoch, position: self.to, as_of: self.as_of }
    }

    /// What its pieces are; none of a delta.
    #[must_use]
    pub fn pieces(&self) -> &[PieceMark] {
        match &self.change {
            FeedChange::Delta(_) => &[],
            FeedChange::Snapshot { pieces } => pieces,
        }
    }

    /// How long its pieces are together, in bytes.
    #[must_use]
    pub fn piece_bytes(&self) -> u64 {
        self.pieces().iter().map(|mark| u64::from(mark.size)).sum()
    }
}

impl Place {
    /// Decides whether `message` may follow on, or replace, what is at `current`.
    ///
    /// # Errors
    /// See [`ApplyError`].
    pub fn may_become(current: Option<Self>, message: &FeedMessage) -> Result<(), ApplyError> {
        match (&message.change, current) {
            (FeedChange::Delta(_), None) => Err(ApplyError::Gap),
            (FeedChange::Delta(delta), Some(current)) => current.may_add(delta, message),
            (FeedChange::Snapshot { .. }, None) => Ok(()),
            (FeedChange::Snapshot { .. }, Some(current)) => {
                // Within a history the position orders, however long ago the snapshot was made; histories are ordered by
                // time alone.
                let is_rollback = if current.epoch == message.epoch {
                    message.to < current.position
                } else {
                    message.as_of < current.as_of
                };
                if is_rollback { Err(ApplyError::Rollback) } else { Ok(()) }
            }
        }
    }

    fn may_add(self, delta: &Delta, message: &FeedMessage) -> Result<(), ApplyError> {
        if message.epoch != self.epoch {
            return Err(ApplyError::EpochChanged);
        }
        if message.to < delta.from {
            return Err(ApplyError::Incomplete);
        }
        // What goes on from here may be of any time, as a segment that was written long ago is: it makes nothing younger.
        let is_repeated = message.to == self.position && is_older(message.as_of, self.as_of);
        if message.to < self.position || is_repeated {
            return Err(ApplyError::Rollback);
        }
        if delta.from != self.position {
            return Err(ApplyError::Gap);
        }
        Ok(())
    }

    /// The place that `message` leads to from here. The later of two times stays, so that an old message makes nothing
    /// younger.
    #[must_use]
    pub fn after(current: Option<Self>, message: &FeedMessage) -> Self {
        let place = message.place();
        Self { as_of: current.map_or(place.as_of, |current| current.as_of.max(place.as_of)), ..place }
    }
}

/// Why a message was not applied. The state is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ApplyError {
    /// A delta, but there is no state to add it to, or its start is not our position. Ask for a snapshot.
    #[error("delta does not start where we are")]
    Gap,
    /// A delta of another epoch. Ask for a snapshot.
    #[error("epoch changed")]
    EpochChanged,
    /// It would lead to a lower position, or is older than what we have.
    #[error("older than the state in force")]
    Rollback,
    /// A snapshot without keys, plans or all of its pieces, or a delta whose positions run backwards.
    #[error("message is incomplete")]
    Incomplete,
    /// Its key set cannot be used.
    #[error("{0}")]
    Keys(#[from] KeySetError),
    /// More revocations than there may be.
    #[error("more revocations than an edge can hold")]
    TooLarge,
}

/// The clocks of two replicas of an issuer may differ by this many milliseconds.
const REPLICA_SKEW_MILLIS: u64 = 5_000;

/// What an edge knows from the feed, at one position.
#[derive(Debug, Clone)]
pub struct FeedState {
    /// The history it is of.
    pub epoch: Epoch,
    /// How far it goes.
    pub position: Position,
    /// The issuer's time at which it was complete.
    pub as_of: UnixMillis,
    /// What is revoked.
    pub revoked: RevocationSet,
    /// The issuer's keys.
    pub keys: KeySet,
    /// Keys that were published but cannot be used.
    pub ignored_keys: Vec<IgnoredKey>,
    /// What each plan allows.
    pub plans: Vec<Plan>,
}

/// Whether a message is of an earlier time than the state, by more than the clocks of two replicas may differ. Between that
/// the position orders, which replicas share; and the later time stays, so that an old message makes nothing younger.
fn is_older(message: UnixMillis, state: UnixMillis) -> bool {
    message.0.saturating_add(REPLICA_SKEW_MILLIS) < state.0
}

/// For so many values each message has a look whether they are over.
const SWEPT_VALUES_MAX: usize = 1024;

impl FeedState {
    /// Where it is.
    #[must_use]
    pub fn place(&self) -> Place {
        Place { epoch: self.epoch, position: self.position, as_of: self.as_of }
    }

    /// Adds a delta. An error leaves the state as it was. What expired by the issuer's clock *and* by ours, which shows
    /// `today`, is forgotten: a jump of one brings nothing back.
    ///
    /// # Errors
    /// See [`ApplyError`]; a snapshot is [`ApplyError::Incomplete`] here.
    pub fn add(&mut self, message: FeedMessage, today: UnixSeconds) -> Result<(), ApplyError> {
        // Everything that can fail is done before anything changes.
        Place::may_become(Some(self.place()), &message)?;
        let place = Place::after(Some(self.place()), &message);
        let FeedMessage { change: FeedChange::Delta(delta), keys, plans, .. } = message else {
            return Err(ApplyError::Incomplete);
        };
        let total = self.revoked.indices.len().saturating_add(delta.revoked.len() as u64);
        if total > u64::from(REVOKED_MAX) || self.revoked.cutoffs.len() + delta.cutoffs.len() > CUTOFFS_MAX {
            return Err(ApplyError::TooLarge);
        }
        let keys = keys.as_deref().map(|jwks| KeySet::from_jwks(jwks.as_bytes())).transpose()?;
        (self.position, self.as_of) = (place.position, place.as_of);
        self.revoked.indices.add(delta.revoked);
        self.revoked.indices.learn_expiries(delta.blocks);
        for cutoff in delta.cutoffs {
            self.revoked.cutoffs.insert(cutoff);
        }
        if let Some((keys, ignored)) = keys {
            self.keys = keys;
            self.ignored_keys = ignored;
        }
        if let Some(plans) = plans {
            self.plans = plans;
        }
        let horizon = self.as_of.seconds().min(today).minus(RETENTION_SECONDS);
        self.revoked.indices.drop_expired(horizon);
        self.revoked.cutoffs.drop_expired(horizon, SWEPT_VALUES_MAX);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
