//! Decides what an edge is told: what it lacks, signed, and the instant until which that is everything.

mod answers;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tollgate_shared::revocation::{Epoch, FeedChange, FeedMessage, Position};
use tollgate_shared::time::{Monotonic, Now, UnixMillis};
use tollgate_shared::token::SigningKey;
use tollgate_shared::wire;

pub use answers::FeedAnswer;

use crate::clock::Host;
use crate::config::FeedSettings;
use crate::heartbeats::Heartbeats;
use crate::metrics::{FeedKind, Metrics};
use crate::propagation::Origin;
use crate::quota::plans_from_json;
use crate::store::{FeedRead, LogPart, Logged, RevocationOrder, Store, StoreError, Wished};
use answers::Answers;

/// A clock that shows the date but never goes back, not even over a restart: edges refuse a message that is older than
/// what they have, and a date set back would make every message so.
///
/// After the date jumped forward and was set right it stays ahead and goes on at its own pace: were it to stop, edges would
/// take every message for an old one.
#[derive(Debug)]
pub struct FeedClock(Mutex<Shown>);

/// What it showed last, and when that was.
#[derive(Debug, Clone, Copy)]
struct Shown {
    date: UnixMillis,
    at: Monotonic,
}

impl FeedClock {
    /// A clock that starts at `floor` or now, whichever is later.
    #[must_use]
    pub fn new(floor: UnixMillis, now: Now) -> Self {
        Self(Mutex::new(Shown { date: floor.max(now.wall), at: now.monotonic }))
    }

    /// The instant it is.
    pub fn read(&self, now: Now) -> UnixMillis {
        // Nothing that holds the lock can panic; a date is whole whatever happened to its last holder.
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let steady = shown.date.0.saturating_add(now.monotonic.since(shown.at));
        let at = shown.at.max(now.monotonic);
        *shown = Shown { date: now.wall.max(UnixMillis(steady)), at };
        shown.date
    }
}

/// The feed of this issuer.
#[derive(Debug)]
pub struct Feed {
    /// The history there is.
    pub epoch: Epoch,
    /// Its clock.
    pub clock: FeedClock,
    store: Store,
    host: Arc<dyn Host>,
    settings: FeedSettings,
    position: watch::Sender<Position>,
    closing: watch::Receiver<bool>,
    metrics: Arc<Metrics>,
    heartbeats: Arc<Heartbeats>,
    answers: Answers,
    /// The last reading of everything.
    whole: Mutex<Option<Arc<FeedRead>>>,
}

/// What an edge asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedRequest {
    /// What it has, if anything.
    pub has: Option<(Epoch, Position)>,
    /// How long it is content to wait for something new.
    pub wait: Duration,
}

/// Why there is no message.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The message could not be written or signed.
    #[error("feed message could not be encoded")]
    Encode,
}

impl Feed {
    /// The feed in `store`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open(
        store: Store,
        host: Arc<dyn Host>,
        settings: FeedSettings,
        closing: watch::Receiver<bool>,
        metrics: Arc<Metrics>,
        heartbeats: Arc<Heartbeats>,
    ) -> Result<Self, StoreError> {
        let epoch = store.epoch(&*host).await?;
        let now = host.now();
        let floor = store.raise_clock_floor(now.wall).await?;
        let (position, _) = watch::channel(store.position().await?);
        let clock = FeedClock::new(floor, now);
        let (answers, whole) = (Answers::default(), Mutex::default());
        let feed = Self {
            epoch,
            clock,
            store,
            host,
            settings,
            position,
            closing,
            metrics,
            heartbeats,
            answers,
            whole,
        };
        feed.metrics.position(feed.position());
        feed.heartbeats.committed(feed.position(), Origin::Elsewhere, now.wall);
        Ok(feed)
    }

    /// What the feed's clock shows.
    pub fn now(&self) -> UnixMillis {
        self.clock.read(self.host.now())
    }

    /// Wakes the polls that wait for this position, which this process committed.
    pub fn reached(&self, position: Position) {
        self.heartbeats.committed(position, Origin::Here, self.host.now().wall);
        self.move_to(position);
    }

    fn move_to(&self, position: Position) -> bool {
        let moved = self.position.send_if_modified(|known| {
            let ahead = position > *known;
            *known = position.max(*known);
            ahead
        });
        if moved {
            self.metrics.position(position);
        }
        moved
    }

    /// How far it has come, as far as this process knows.
    pub fn position(&self) -> Position {
        *self.position.borrow()
    }

    /// The position, whenever it changes.
    #[must_use]
    pub fn positions(&self) -> watch::Receiver<Position> {
        self.position.subscribe()
    }

    /// Notices what other processes committed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn look(&self) -> Result<(), StoreError> {
        let position = self.store.position().await?;
        if self.move_to(position) {
            self.heartbeats.committed(position, Origin::Elsewhere, self.host.now().wall);
        }
        Ok(())
    }

    /// Revokes. When this returns, it is on disk.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn revoke(
        &self,
        order: &RevocationOrder,
        reason: Option<&str>,
        actor: &str,
    ) -> Result<Position, StoreError> {
        let Logged { position, new } = self.store.revoke(order, reason, actor, &*self.host).await?;
        if new {
            self.metrics.revoked(order.dimension());
        }
        self.reached(position);
        Ok(position)
    }

    /// Publishes the revocations that were decided with a change. When this returns, they are on disk in the log.
    ///
    /// # Errors
    /// [`StoreError`]; what was not published is published later.
    pub async fn publish(&self, wished: &Wished) -> Result<(), StoreError> {
        if let Some(position) = self.store.publish(wished, &*self.host).await? {
            self.reached(position);
        }
        Ok(())
    }

    /// Publishes every revocation that waits for it.
    ///
    /// # Errors
    /// [`StoreError`] of the first that was not published; it is published later.
    pub async fn publish_outbox(&self) -> Result<(), StoreError> {
        if let Some(position) = self.store.publish_outbox(&*self.host).await? {
            self.reached(position);
        }
        Ok(())
    }

    /// The answer to a poll, signed by `key`. Polls at once that have the same get the same.
    ///
    /// # Errors
    /// [`FeedError`].
    pub async fn answer(&self, request: FeedRequest, key: &SigningKey) -> Result<FeedAnswer, FeedError> {
        let after = request.has.filter(|(epoch, _)| *epoch == self.epoch).map(|(_, position)| position);
        if let Some(after) = after {
            self.wait_beyond(after, request.wait.min(self.settings.long_poll_max)).await;
        }
        let answer = self.answers.one(after, || self.make(after, key)).await?;
        self.metrics.feed_answered(answer.kind);
        Ok(answer)
    }

    async fn make(&self, after: Option<Position>, key: &SigningKey) -> Result<FeedAnswer, FeedError> {
        // Before the reading begins: everything that was committed by this instant is in it.
        let as_of = self.now();
        let read = self.read(after, as_of).await?;
        let (to, kind) = (read.to, kind_of(&read));
        let message = self.message(&read, as_of)?;
        let message = wire::feed::seal(&message, key).ok_or(FeedError::Encode)?.into();
        Ok(FeedAnswer { message, to, kind })
    }

    /// Reads what came after `after`. Everything is read once for each position: what is kept of it is of use to each edge
    /// until the next entry, and what ended meanwhile each edge leaves out.
    async fn read(&self, after: Option<Position>, as_of: UnixMillis) -> Result<Arc<FeedRead>, StoreError> {
        let kept = self.whole.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let position = kept.as_ref().map(|kept| kept.to);
        let delta_max = self.settings.delta_max;
        let read = self.store.read_feed_beyond(position, after, delta_max, as_of.seconds()).await?;
        let Some(read) = read.map(Arc::new) else {
            self.metrics.feed_read(FeedKind::Empty);
            return kept.ok_or(StoreError::Corrupt("feed_log"));
        };
        self.metrics.feed_read(kind_of(&read));
        if read.part == LogPart::Whole {
            *self.whole.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&read));
        }
        Ok(read)
    }

    /// Waits until the position is beyond `after`, or other than it, or the time is up, or the service closes.
    async fn wait_beyond(&self, after: Position, wait: Duration) {
        let mut position = self.position.subscribe();
        if wait.is_zero() || *position.borrow_and_update() != after {
            return;
        }
        let _open = self.metrics.poll_opened();
        let mut closing = self.closing.clone();
        tokio::select! {
            // An error means that the sender is gone, which ends the wait as well.
            _ = position.wait_for(|position| *position != after) => {}
            _ = closing.wait_for(|closing| *closing) => {}
            () = tokio::time::sleep(wait) => {}
        }
    }

    fn message(&self, read: &FeedRead, as_of: UnixMillis) -> Result<FeedMessage, FeedError> {
        let FeedRead { to, part, indices, blocks, cutoffs, keys, plans } = read.clone();
        let plans = match plans {
            Some(text) => Some(plans_from_json(&text).ok_or(StoreError::Corrupt("feed_log.body"))?),
            None => None,
        };
        let change = match part {
            LogPart::After(from) => FeedChange::Delta { from, revoked: indices },
            LogPart::Whole => FeedChange::Snapshot { revoked: indices },
        };
        Ok(FeedMessage { epoch: self.epoch, to, as_of, change, blocks, cutoffs, keys, plans })
    }
}

fn kind_of(read: &FeedRead) -> FeedKind {
    match read.part {
        LogPart::Whole => FeedKind::Snapshot,
        LogPart::After(from) if from == read.to => FeedKind::Empty,
        LogPart::After(_) => FeedKind::Delta,
    }
}
