//! Decides which feed message may replace which state: in sequence, whole or not at all, never backwards.

use super::cutoffs::{CUTOFFS_MAX, Cutoff};
use super::index_set::{BlockExpiry, REVOKED_MAX, StatusIndex};
use super::{RETENTION_SECONDS, RevocationSet};
use crate::quota::Plan;
use crate::time::{UnixMillis, UnixSeconds};
use crate::token::{IgnoredKey, KeySet, KeySetError};

/// Names one history of the feed. It changes when history restarts, and positions of different epochs do not compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(pub [u8; 16]);

impl Epoch {
    /// 32 hexadecimal digits.
    #[must_use]
    pub fn to_hex(self) -> String {
        use std::fmt::Write as _;
        self.0.iter().fold(String::with_capacity(32), |mut text, byte| {
            // Writing into a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
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

/// One message of the feed.
#[derive(Debug, Clone, PartialEq)]
pub struct FeedMessage {
    /// The history it belongs to.
    pub epoch: Epoch,
    /// The position it leads to.
    pub to: Position,
    /// The issuer's time: the message holds everything committed until then. It never goes back.
    pub as_of: UnixMillis,
    /// Revoked indices.
    pub change: FeedChange,
    /// Expiries of the blocks those indices lie in.
    pub blocks: Vec<BlockExpiry>,
    /// Cut-offs: those new since `from` in a delta, all in a snapshot.
    pub cutoffs: Vec<Cutoff>,
    /// The issuer's JWK Set as JSON, when it changed; always in a snapshot.
    pub keys: Option<String>,
    /// Plans, when they changed; always in a snapshot.
    pub plans: Option<Vec<Plan>>,
}

/// How a message relates to what an edge already has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FeedChange {
    /// Adds to the state at exactly this position.
    Delta {
        /// That position.
        from: Position,
        /// Indices revoked since.
        revoked: Vec<StatusIndex>,
    },
    /// Replaces the state.
    Snapshot {
        /// All revoked indices, ascending.
        revoked: Vec<StatusIndex>,
    },
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
    /// A snapshot without keys or plans, or a delta whose positions run backwards.
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

impl FeedState {
    /// The state after `message`; the first of all when `state` is `None`. An error leaves `state` as it was. What
    /// expired by the issuer's clock *and* by ours, which shows `today`, is forgotten: a jump of one brings nothing back.
    ///
    /// # Errors
    /// See [`ApplyError`].
    pub fn apply(
        state: &mut Option<Self>,
        message: FeedMessage,
        today: UnixSeconds,
    ) -> Result<(), ApplyError> {
        match message.change {
            FeedChange::Delta { from, .. } => state.as_mut().ok_or(ApplyError::Gap)?.add(from, message)?,
            FeedChange::Snapshot { .. } => *state = Some(Self::replace(state.as_ref(), message)?),
        }
        if let Some(state) = state {
            let horizon = state.as_of.seconds().min(today).minus(RETENTION_SECONDS);
            state.revoked.indices.drop_expired(horizon);
            state.revoked.cutoffs.drop_expired(horizon);
        }
        Ok(())
    }

    /// Applies a delta. Everything that can fail is done before anything changes.
    fn add(&mut self, from: Position, message: FeedMessage) -> Result<(), ApplyError> {
        let (FeedChange::Delta { revoked, .. } | FeedChange::Snapshot { revoked }) = message.change;
        if message.epoch != self.epoch {
            return Err(ApplyError::EpochChanged);
        }
        if message.to < from {
            return Err(ApplyError::Incomplete);
        }
        if message.to < self.position || is_older(message.as_of, self.as_of) {
            return Err(ApplyError::Rollback);
        }
        if from != self.position {
            return Err(ApplyError::Gap);
        }
        let total = self.revoked.indices.len().saturating_add(revoked.len() as u64);
        if total > u64::from(REVOKED_MAX) || self.revoked.cutoffs.len() + message.cutoffs.len() > CUTOFFS_MAX
        {
            return Err(ApplyError::TooLarge);
        }
        let keys = message.keys.as_deref().map(|jwks| KeySet::from_jwks(jwks.as_bytes())).transpose()?;
        self.position = message.to;
        self.as_of = self.as_of.max(message.as_of);
        self.revoked.indices.extend(revoked);
        self.learn(message.blocks, message.cutoffs);
        if let Some((keys, ignored)) = keys {
            self.keys = keys;
            self.ignored_keys = ignored;
        }
        if let Some(plans) = message.plans {
            self.plans = plans;
        }
        Ok(())
    }

    fn replace(current: Option<&Self>, message: FeedMessage) -> Result<Self, ApplyError> {
        let FeedMessage { epoch, to, as_of, change, blocks, cutoffs, keys, plans } = message;
        let (FeedChange::Delta { revoked, .. } | FeedChange::Snapshot { revoked }) = change;
        // Time alone orders snapshots of different epochs; within one, the position does too.
        let is_rollback = |state: &Self| match state.epoch == epoch {
            true => to < state.position || is_older(as_of, state.as_of),
            false => as_of < state.as_of,
        };
        if current.is_some_and(is_rollback) {
            return Err(ApplyError::Rollback);
        }
        let as_of = current.map_or(as_of, |state| state.as_of.max(as_of));
        if revoked.len() as u64 > u64::from(REVOKED_MAX) || cutoffs.len() > CUTOFFS_MAX {
            return Err(ApplyError::TooLarge);
        }
        let (Some(keys), Some(plans)) = (keys, plans) else {
            return Err(ApplyError::Incomplete);
        };
        let (keys, ignored_keys) = KeySet::from_jwks(keys.as_bytes())?;
        let mut set = RevocationSet::default();
        set.indices.extend(revoked);
        let mut state = Self { epoch, position: to, as_of, revoked: set, keys, ignored_keys, plans };
        state.learn(blocks, cutoffs);
        Ok(state)
    }

    fn learn(&mut self, blocks: Vec<BlockExpiry>, cutoffs: Vec<Cutoff>) {
        self.revoked.indices.learn_expiries(blocks);
        for cutoff in cutoffs {
            self.revoked.cutoffs.insert(cutoff);
        }
    }
}

#[cfg(test)]
mod tests;
