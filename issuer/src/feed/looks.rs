//! Decides how new the history is that a poll is answered from, and has the log looked at once for all who need that.
//!
//! A look reads what is beyond the head, under no lock: positions are in the order of commits, so nothing comes in before
//! what was read.

use std::sync::{Mutex, PoisonError};

use tollgate_shared::revocation::Position;
use tollgate_shared::time::{Monotonic, UnixMillis, UnixSeconds};

use super::Feed;
use super::history::History;
use crate::metrics::FeedKind;
use crate::propagation::Origin;
use crate::store::{FeedEntry, StoreError};

/// A look is new enough for who asks up to so many milliseconds after it began, …
const FRESH_MILLIS: u64 = 50;
/// … and when looks fail, up to so many; then there is no answer.
const BLIND_MILLIS_MAX: u64 = 2_000;
/// After a look that failed there is none for so many milliseconds, however many ask.
const FAILED_PAUSE_MILLIS: u64 = 50;
/// So many entries are read at once.
const PAGE_ENTRIES: usize = 4_096;

/// When the log was looked at.
#[derive(Debug, Default)]
pub(super) struct Looks {
    last: Mutex<Last>,
    /// Had by who looks.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Last {
    /// When the last one that went to the end of the log began.
    began: Option<Monotonic>,
    /// When the last one failed, if it did.
    failed: Option<Monotonic>,
}

/// What a poll asks of a look: to have begun at this instant or later, and to have come to this position.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    since: Monotonic,
    position: Position,
}

impl Looks {
    /// When the last look that went to the end of the log began.
    pub(super) fn last_began(&self) -> Monotonic {
        self.last().began.unwrap_or_default()
    }

    fn last(&self) -> Last {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, last: Last) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = last;
    }
}

impl Feed {
    /// Notices what was committed, and whether another history was begun.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn look(&self) -> Result<(), StoreError> {
        let called_at = self.host.now().monotonic;
        let _turn = self.looks.turn.lock().await;
        // Not when somebody else has looked since this was called.
        if self.looks.last().began <= Some(called_at) {
            self.look_now().await?;
        }
        match self.store.known_epoch().await? {
            Some(epoch) if epoch != self.epoch() => {
                tracing::warn!(epoch = epoch.to_hex(), "another history of the feed was begun");
                self.read_on(Some(History::new(epoch, self.settings.delta_max))).await.map(drop)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Has the history be as new as an answer to who asks now must be: at least as new as all that this process acknowledged.
    /// When the log cannot be looked at, what is known is told on for a while; its date says how old it is.
    pub(super) async fn refresh(&self) -> Result<(), StoreError> {
        let asked_at = self.host.now().monotonic;
        let since = Monotonic(asked_at.0.saturating_sub(FRESH_MILLIS));
        let wanted = Wanted { since, position: *self.position.borrow() };
        if self.has(wanted) {
            return Ok(());
        }
        let looked = {
            let _turn = self.looks.turn.lock().await;
            if self.has(wanted) {
                return Ok(());
            }
            let failed = self.looks.last().failed;
            let pause = |failed: Monotonic| self.host.now().monotonic.since(failed) <= FAILED_PAUSE_MILLIS;
            if failed.is_some_and(pause) { Err(StoreError::Unreachable) } else { self.look_now().await }
        };
        let is_known = |began: Monotonic| self.host.now().monotonic.since(began) <= BLIND_MILLIS_MAX;
        match looked {
            Err(error) if !self.looks.last().began.is_some_and(is_known) => Err(error),
            Err(_) | Ok(()) => Ok(()),
        }
    }

    fn has(&self, wanted: Wanted) -> bool {
        let is_late_enough = self.looks.last().began.is_some_and(|began| began >= wanted.since);
        is_late_enough && self.history().head() >= wanted.position
    }

    /// Reads on from where the history ends. Only ever called by who has the turn.
    async fn look_now(&self) -> Result<(), StoreError> {
        let began = self.read_on(None).await.inspect_err(|_| {
            let failed = Some(self.host.now().monotonic);
            self.looks.note(Last { failed, ..self.looks.last() });
        })?;
        self.looks.note(Last { began: Some(began), failed: None });
        let head = self.history().head();
        if self.move_to(head) {
            self.heartbeats.committed(head, Origin::Elsewhere, self.host.now().monotonic);
        }
        Ok(())
    }

    /// Reads to the end of the log; tells when the reading began that found it. Another history is built beside the one in force
    /// when that is of a log that is no more.
    async fn read_on(&self, mut anew: Option<History>) -> Result<Monotonic, StoreError> {
        loop {
            let now = self.host.now();
            // Before the reading begins: everything that was committed by this instant is in it.
            let as_of = self.clock.read(now);
            let from = anew.as_ref().map_or_else(|| self.history().head(), History::head);
            let page = self.store.read_log(from, PAGE_ENTRIES).await?;
            let is_last = page.len() < PAGE_ENTRIES;
            let is_news = page.last().is_some_and(|entry| entry.position > from);
            self.metrics.feed_read(if is_news { FeedKind::Delta } else { FeedKind::Empty });
            // Only what is over by both clocks is dropped: the feed's may be ahead of the date.
            let over_at = as_of.min(now.wall).seconds();
            match self.take_in(page, &mut anew, (is_last, as_of, over_at)) {
                Taken::All => return Ok(now.monotonic),
                Taken::Page => {}
                Taken::OfAnother => {
                    tracing::error!(
                        position = from.0,
                        "the log was set back; another history of the feed begins"
                    );
                    // Positions of the earlier one are given again: who has some of them must not take them for these.
                    let epoch = self.store.renew_epoch(&*self.host).await?;
                    anew = Some(History::new(epoch, self.settings.delta_max));
                }
            }
        }
    }

    fn take_in(
        &self,
        page: Vec<FeedEntry>,
        anew: &mut Option<History>,
        (is_last, as_of, over_at): (bool, UnixMillis, UnixSeconds),
    ) -> Taken {
        let mut history = self.history();
        let target = anew.as_mut().unwrap_or(&mut history);
        if !target.is_continued_by(page.first()) {
            return Taken::OfAnother;
        }
        target.append(page, over_at);
        if !is_last {
            return Taken::Page;
        }
        target.looked(as_of);
        if let Some(anew) = anew.take() {
            let head = anew.head();
            *history = anew;
            // Not under this lock: whoever makes an answer takes it second.
            drop(history);
            self.answers.clear();
            self.snapshots.forget();
            // Polls go by what there is.
            self.position.send_replace(head);
        }
        Taken::All
    }
}

/// What became of a page of the log.
enum Taken {
    /// It was the last one.
    All,
    /// There may be more.
    Page,
    /// It is not of the log that what is known was of.
    OfAnother,
}
