//! Hands out status indices: one for each token, out of a block that is this process's alone.

use std::sync::Arc;

use tokio::sync::Mutex;
use tollgate_shared::revocation::{BLOCK_INDICES, StatusIndex};
use tollgate_shared::time::{Monotonic, UnixSeconds};

use crate::clock::Host;
use crate::config::SLACK_SECONDS;
use crate::store::{Store, StoreError, TakenBlock};

/// How long indices are taken from one block. All its tokens then expire within this and their own life, and edges drop
/// them together.
const BLOCK_LIFE_SECONDS: u64 = 3600;

/// The indices of this process.
#[derive(Debug)]
pub struct StatusIndices {
    store: Store,
    host: Arc<dyn Host>,
    lifetime_seconds: u64,
    /// Held while a new block is taken, so that logins wait for one block and do not take one each.
    open: Mutex<Option<OpenBlock>>,
}

#[derive(Debug, Clone, Copy)]
struct OpenBlock {
    block: TakenBlock,
    used: u32,
    closes_at: Monotonic,
    /// The date on which it closes even if the monotonic clock disagrees: expiries are dates.
    closes_on: UnixSeconds,
}

/// An index that nobody else has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TakenIndex {
    /// The index.
    pub index: StatusIndex,
    /// Its token must not live beyond this.
    pub expires_at_max: UnixSeconds,
}

impl StatusIndices {
    /// No block yet; the first index takes one.
    #[must_use]
    pub fn new(store: Store, host: Arc<dyn Host>, lifetime_seconds: u64) -> Self {
        Self { store, host, lifetime_seconds, open: Mutex::new(None) }
    }

    /// The next index.
    ///
    /// # Errors
    /// [`StoreError`] when a new block is needed and cannot be had.
    pub async fn next(&self) -> Result<TakenIndex, StoreError> {
        let mut open = self.open.lock().await;
        let now = self.host.now();
        let usable = |block: &OpenBlock| {
            block.used < BLOCK_INDICES
                && now.monotonic < block.closes_at
                && now.wall.seconds() < block.closes_on
        };
        let mut current = match open.take().filter(usable) {
            Some(block) => block,
            None => self.take_block().await?,
        };
        let index = StatusIndex(u32::from(current.block.number) * BLOCK_INDICES + current.used);
        current.used += 1;
        *open = Some(current);
        Ok(TakenIndex { index, expires_at_max: current.block.expires_at })
    }

    async fn take_block(&self) -> Result<OpenBlock, StoreError> {
        let now = self.host.now();
        let closes_on = now.wall.seconds().plus(BLOCK_LIFE_SECONDS);
        let expires_at = closes_on.plus(self.lifetime_seconds + SLACK_SECONDS);
        let block = self.store.take_block(now.wall.seconds(), expires_at).await?;
        Ok(OpenBlock { block, used: 0, closes_at: now.monotonic.plus(BLOCK_LIFE_SECONDS * 1000), closes_on })
    }
}
