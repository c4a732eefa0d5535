//! Decides what an edge is told: what it lacks, signed, and the instant until which that is everything.

mod answers;
mod clock;
mod history;
mod looks;
mod snapshots;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use tokio::sync::watch;
use tollgate_shared::revocation::{Epoch, FeedMessage, Position};
use tollgate_shared::time::UnixMillis;
use tollgate_shared::token::SigningKey;
use tollgate_shared::wire;

pub use answers::{Answers, FeedAnswer, Told};
pub use clock::FeedClock;
pub use history::{History, Whole};
pub use snapshots::{Snapshot, Snapshots};

use crate::clock::Host;
use crate::config::FeedSettings;
use crate::heartbeats::Heartbeats;
use crate::metrics::{FeedKind, Metrics};
use crate::propagation::Origin;
use crate::store::{Logged, RevocationOrder, Store, StoreError, Wished};
use looks::Looks;

/// By so much the place of an edge may be beyond what this replica has read: another replica may have told it.
const BEYOND_POSITIONS: u64 = 64;

/// The feed of this issuer.
#[derive(Debug)]
pub struct Feed {
    /// Its clock.
    pub clock: FeedClock,
    store: Store,
    host: Arc<dyn Host>,
    settings: FeedSettings,
    /// The highest position that is known of: read, or committed by this process.
    position: watch::Sender<Position>,
    closing: watch::Receiver<bool>,
    metrics: Arc<Metrics>,
    history: Mutex<History>,
    looks: Looks,
    heartbeats: Arc<Heartbeats>,
    answers: Answers,
    snapshots: Snapshots,
}

/// What an edge asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedRequest {
    /// What it has, if anything.
    pub has: Option<(Epoch, Position)>,
    /// How long it is content to wait for something new.
    pub wait: Duration,
    /// Where a delta is to end at the latest.
    pub until: Option<Position>,
    /// Before which position a snapshot is of no use.
    pub least: Option<Position>,
    /// Whether the pieces of a large snapshot are asked for apart.
    pub apart: bool,
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
    /// The feed in `store`. The log is read when something is asked that needs it.
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
        metrics.position(*position.borrow());
        heartbeats.committed(*position.borrow(), Origin::Elsewhere, now.monotonic);
        Ok(Self {
            clock: FeedClock::new(floor, now),
            store,
            host,
            settings,
            position,
            closing,
            metrics,
            heartbeats,
            history: Mutex::new(History::new(epoch, settings.delta_max)),
            looks: Looks::default(),
            answers: Answers::default(),
            snapshots: Snapshots::default(),
        })
    }

    /// The history there is.
    pub fn epoch(&self) -> Epoch {
        self.history().epoch()
    }

    /// What the feed's clock shows.
    pub fn now(&self) -> UnixMillis {
        self.clock.read(self.host.now())
    }

    /// Wakes the polls that wait for this position, which this process committed.
    pub fn reached(&self, position: Position) {
        self.heartbeats.committed(position, Origin::Here, self.host.now().monotonic);
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

    /// The answer to a poll, signed by `key`. Polls that have the same get the same bytes.
    ///
    /// # Errors
    /// [`FeedError`].
    pub async fn answer(&self, request: FeedRequest, key: &Arc<SigningKey>) -> Result<FeedAnswer, FeedError> {
        let FeedRequest { has, wait, until, least, apart } = request;
        let of_ours = || has.filter(|(epoch, _)| *epoch == self.epoch()).map(|(_, position)| position);
        if let Some(after) = of_ours().filter(|after| until.is_none_or(|until| until > *after)) {
            self.wait_beyond(after, wait.min(self.settings.long_poll_max)).await;
        }
        self.refresh().await?;
        if has.is_some() && of_ours().is_none() {
            // Another replica may have begun another history: what this one tells of the earlier must not follow on that.
            self.look().await?;
        }
        // Another history may have begun meanwhile.
        let after = of_ours();
        self.warn_of_a_place_beyond(after);
        let delta = match after {
            Some(after) => self.delta(after, until, key)?,
            None => None,
        };
        let answer = match delta {
            Some(delta) => delta,
            // What an edge has it must have afterwards, too.
            None => {
                let made = self.snapshot(self.least(has, least.max(after)), key).await?;
                let message = if apart { made.head() } else { made.body.clone() };
                let is_whole = message.len() == made.body.len();
                FeedAnswer { message, to: is_whole.then_some(made.to), kind: FeedKind::Snapshot }
            }
        };
        self.metrics.feed_answered(answer.kind);
        Ok(answer)
    }

    /// The signed segment of this history that begins after `from`, which never changes; `None` when there is none.
    ///
    /// # Errors
    /// [`FeedError`].
    pub async fn segment(
        &self,
        epoch: Epoch,
        from: Position,
        key: &SigningKey,
    ) -> Result<Option<Bytes>, FeedError> {
        self.refresh().await?;
        if epoch != self.epoch() {
            return Ok(None);
        }
        let looked_at = {
            let history = self.history();
            if history.segment(from).is_none() {
                return Ok(None);
            }
            history.looked_at()
        };
        let made = || sealed(self.history().segment(from), key);
        let answer = self.answers.one(Told::Segment(epoch, from), looked_at, made)?;
        self.metrics.feed_answered(FeedKind::Segment);
        Ok(Some(answer))
    }

    /// Up to where nothing after `since` is of a token of this status list, if that is as far as is known of; `None` when something
    /// is, or that cannot be told.
    pub async fn untouched_until(&self, list: u32, since: Position) -> Option<Position> {
        let known = self.position();
        self.refresh().await.ok()?;
        let history = self.history();
        let head = history.head();
        (head >= known && history.leaves_list(list, since)).then_some(head)
    }

    fn delta(
        &self,
        after: Position,
        until: Option<Position>,
        key: &SigningKey,
    ) -> Result<Option<FeedAnswer>, FeedError> {
        let (epoch, end, looked_at) = {
            let history = self.history();
            (history.epoch(), history.end_of_delta(after, until), history.looked_at())
        };
        let Some(to) = end else { return Ok(None) };
        let made = || sealed(self.history().delta(after, Some(to)), key);
        let message = self.answers.one(Told::Delta(epoch, after, to), looked_at, made)?;
        let kind = if after == to { FeedKind::Empty } else { FeedKind::Delta };
        Ok(Some(FeedAnswer { message, to: Some(to), kind }))
    }

    /// Where a snapshot has to lead at least. Who has another history is given one of this moment: histories are ordered by time
    /// alone.
    fn least(&self, has: Option<(Epoch, Position)>, wanted: Option<Position>) -> Position {
        let history = self.history();
        let is_of_another = has.is_some_and(|(epoch, _)| epoch != history.epoch());
        if is_of_another { history.head() } else { wanted.unwrap_or_default() }
    }

    /// An edge that has more than there is has it of another log under the same name: this database is an earlier one, as a
    /// restored backup is. What edges have beyond its end may be wrong from then on; see `feed renew`.
    fn warn_of_a_place_beyond(&self, after: Option<Position>) {
        let head = self.history().head();
        if let Some(after) = after.filter(|after| after.0 > head.0.saturating_add(BEYOND_POSITIONS)) {
            let (after, head) = (after.0, head.0);
            tracing::error!(
                after,
                head,
                "an edge has more of the feed than there is; was the database set back? order `feed renew`"
            );
        }
    }

    /// Everything, to somebody who has everything up to `least`.
    async fn snapshot(&self, least: Position, key: &Arc<SigningKey>) -> Result<Snapshot, FeedError> {
        if let Some(kept) = self.kept_snapshot(least) {
            return Ok(kept);
        }
        let _turn = self.snapshots.turn.lock().await;
        match self.kept_snapshot(least) {
            Some(kept) => Ok(kept),
            None => self.make_snapshot(key).await,
        }
    }

    /// The part of the snapshot of this name that begins with this piece; `None` when this process has no such snapshot, or none
    /// any more.
    pub fn snapshot_part(&self, id: &str, first: usize) -> Option<Bytes> {
        self.snapshots.named(id)?.part(first)
    }

    fn kept_snapshot(&self, least: Position) -> Option<Snapshot> {
        let history = self.history();
        // Who is ahead of the head, as no edge of this history is, is given what there is.
        self.snapshots.kept(least.min(history.head()), &history, self.host.now().monotonic)
    }

    async fn make_snapshot(&self, key: &Arc<SigningKey>) -> Result<Snapshot, FeedError> {
        let (log, read_at) = (self.snapshots.log(), self.looks.last_began());
        let whole = self.history().whole().ok_or(StoreError::Corrupt("feed_log"))?;
        let (to, key) = (whole.place.position, Arc::clone(key));
        let made = tokio::task::spawn_blocking(move || {
            let Whole { place, revoked, keys, plans } = &whole;
            let snapshot = wire::feed::Snapshot { place: *place, head: place.position, revoked, keys, plans };
            wire::feed::seal_snapshot(snapshot, &key)
        });
        let sealed = made.await.ok().flatten().ok_or(FeedError::Encode)?;
        self.metrics.feed_read(FeedKind::Snapshot);
        let made = Snapshot::new(sealed, to, read_at);
        self.snapshots.keep(made.clone(), log);
        Ok(made)
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

    fn history(&self) -> MutexGuard<'_, History> {
        // A reading that ends half-way through leaves a history that is shorter, and whole.
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sealed(message: Option<FeedMessage>, key: &SigningKey) -> Result<(FeedMessage, Bytes), FeedError> {
    let message = message.ok_or(FeedError::Encode)?;
    let bytes = wire::feed::seal(&message, key).ok_or(FeedError::Encode)?;
    Ok((message, bytes.into()))
}
