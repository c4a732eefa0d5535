//! Decides for one kind where an answer comes from: this process, Redis, the database, or what is left when that is silent.
//!
//! *What comes in:* an id, which may be anybody's invention. *What goes out:* what the database says of it, or said a named
//! time ago. *What an attacker gains if this is wrong:* memory filled with ids that do not exist, or a right that was taken
//! away for longer than the settings say.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quick_cache::sync::Cache;
use tokio::sync::OnceCell;
use tollgate_shared::time::Monotonic;

use super::fact::{Fact, Known};
use super::fence::{Fence, Ticket, Verdict};
use super::hot::HotList;
use super::shared::{Found, Lease, Shared};
use crate::breaker::{BreakerSettings, SharedBreaker};
use crate::clock::Host;
use crate::config::CacheSettings;
use crate::metrics::{CacheLevel, CacheOutcome, Metrics};
use crate::store::{Revision, StoreError};

/// The most ids that are known not to exist, and for how long that is believed. Short, because whoever makes one expects it
/// to be there; and beside what exists, so that inventions push nothing out.
const ABSENT_MAX: usize = 1024;
const ABSENT_MS: u64 = 1000;

/// After the database failed to answer, old entries are given out without asking it again for so long.
const DATABASE_BREAKER: BreakerSettings =
    BreakerSettings { failures_to_open: 1, open_for_ms: 1000, probes: 1 };

/// What is kept of one kind.
pub(super) struct Shelf<T> {
    present: Cache<String, Entry<T>>,
    /// Until when each is believed not to exist.
    absent: Cache<String, Monotonic>,
    /// Entries are put in and taken out under this lock, so that no change comes in between.
    gate: Mutex<Fence<Answer<T>>>,
    /// Entries that were put in under a lower number are not trusted while the database answers.
    trusted: AtomicU64,
    hot: Mutex<HotList>,
    shared: Option<Arc<Shared>>,
    database: SharedBreaker,
    settings: CacheSettings,
    host: Arc<dyn Host>,
    metrics: Arc<Metrics>,
}

/// What those who wait for the same thing share.
type Answer<T> = Arc<OnceCell<Landed<T>>>;

#[derive(Debug)]
enum Landed<T> {
    Is(Option<Known<T>>),
    /// It could not be read. Who read knows why.
    Failed,
}

#[derive(Debug)]
struct Entry<T> {
    known: Known<T>,
    fresh_until: Monotonic,
    trusted: u64,
}

impl<T> Clone for Entry<T> {
    fn clone(&self) -> Self {
        let Self { known, fresh_until, trusted } = self;
        Self { known: known.clone(), fresh_until: *fresh_until, trusted: *trusted }
    }
}

impl<T> std::fmt::Debug for Shelf<T> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Shelf").field("entries", &self.present.len()).finish_non_exhaustive()
    }
}

/// What one reading came to.
struct Read<T> {
    landed: Landed<T>,
    keep: Keep,
    lease: Option<Lease>,
    fault: Option<StoreError>,
}

/// What becomes of what was read.
enum Keep {
    Until(Monotonic),
    Not,
}

impl<T: Fact> Shelf<T> {
    pub(super) fn new(
        settings: CacheSettings,
        shared: Option<Arc<Shared>>,
        host: Arc<dyn Host>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            present: Cache::new(settings.memory_entries_max),
            absent: Cache::new(ABSENT_MAX),
            gate: Mutex::default(),
            trusted: AtomicU64::new(0),
            hot: Mutex::default(),
            shared,
            database: SharedBreaker::new(DATABASE_BREAKER),
            settings,
            host,
            metrics,
        }
    }

    /// What there is of this id. `database` reads it there.
    ///
    /// # Errors
    /// What `database` failed with, when nothing that may stand in for it is left.
    pub(super) async fn read<F>(
        &self,
        id: &str,
        database: impl FnOnce() -> F + Send,
    ) -> Result<Option<Known<T>>, StoreError>
    where
        F: Future<Output = Result<Option<(T, Revision)>, StoreError>> + Send,
    {
        if let Some(held) = self.held(id) {
            self.count(CacheLevel::Memory, CacheOutcome::Hit);
            self.used(id, held.as_ref());
            return Ok(held);
        }
        self.count(CacheLevel::Memory, CacheOutcome::Miss);
        let rider = Rider::board(self, id);
        let mut fault = None;
        let landed = rider.answer.get_or_init(async || {
            let read = self.fly(id, database).await;
            fault = read.fault;
            let verdict = self.land(id, rider.ticket, &read.landed, &read.keep);
            if let (Verdict::Keep, Some(shared), Some(lease), Landed::Is(Some(known))) =
                (verdict, &self.shared, read.lease, &read.landed)
                && let Some(fact) = known.value.to_wire(known.revision)
            {
                shared.leave(T::KIND, id, lease, &fact).await;
            }
            read.landed
        });
        match landed.await {
            Landed::Is(found) => {
                self.used(id, found.as_ref());
                Ok(found.clone())
            }
            Landed::Failed => Err(fault.unwrap_or(StoreError::Timeout)),
        }
    }

    /// This has changed, or may have.
    pub(super) fn changed(&self, id: &str) {
        let mut gate = self.gate();
        gate.changed(id);
        self.present.remove(id);
        self.absent.remove(id);
        drop(gate);
        self.measure();
    }

    /// Changes may have been missed: what is kept is read again before it is given out, if it can be.
    pub(super) fn distrust(&self) {
        let mut gate = self.gate();
        gate.all_changed();
        self.trusted.fetch_add(1, Ordering::Release);
        self.absent.clear();
    }

    /// What was used most since this was asked last.
    pub(super) fn take_hot(&self) -> Vec<(String, u64)> {
        self.hot.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What memory has and is fresh. `Some(None)`: there is no such thing.
    fn held(&self, id: &str) -> Option<Option<Known<T>>> {
        let now = self.host.now().monotonic;
        if let Some(entry) = self.present.get(id) {
            let fresh = now < entry.fresh_until && entry.trusted == self.trusted.load(Ordering::Acquire);
            return fresh.then_some(Some(entry.known));
        }
        self.absent.get(id).filter(|until| now < *until).map(|_| None)
    }

    /// What memory has that is fresh no more, but not too old to stand in for a database that does not answer.
    fn stale(&self, id: &str) -> Option<Known<T>> {
        let now = self.host.now().monotonic;
        let end = |entry: &Entry<T>| entry.fresh_until.plus(self.settings.stale_seconds.saturating_mul(1000));
        self.present.peek(id).filter(|entry| now < end(entry)).map(|entry| entry.known)
    }

    /// Asks the levels below, one after the other.
    async fn fly<F>(&self, id: &str, database: impl FnOnce() -> F + Send) -> Read<T>
    where
        F: Future<Output = Result<Option<(T, Revision)>, StoreError>> + Send,
    {
        // Another flight may have landed just before this one began.
        if let Some(held) = self.held(id) {
            return Read { landed: Landed::Is(held), keep: Keep::Not, lease: None, fault: None };
        }
        // Before anything is read: an entry is as old as the moment its reading began.
        let begun = self.host.now().monotonic;
        let fresh_until = begun.plus(self.settings.memory_seconds.saturating_mul(1000));
        let lease = match self.ask_shared(id).await {
            Ok((known, left)) => {
                let keep = Keep::Until(fresh_until.min(begun.plus(left.saturating_mul(1000))));
                return Read { landed: Landed::Is(Some(known)), keep, lease: None, fault: None };
            }
            Err(lease) => lease,
        };
        let stale = self.stale(id);
        let call = match self.database.permit(self.host.now().monotonic) {
            Ok(call) => Some(call),
            Err(_) if stale.is_some() => return self.stand_in(stale, None),
            Err(_) => None,
        };
        let result = database().await;
        let silent = result.as_ref().err().is_some_and(is_silence);
        match (call, silent) {
            (Some(call), true) => call.failed(self.host.now().monotonic),
            (Some(call), false) => call.succeeded(),
            (None, _) => {}
        }
        match result {
            Ok(found) => {
                self.count(CacheLevel::Database, CacheOutcome::Hit);
                let known = found.map(|(value, revision)| Known { value: Arc::new(value), revision });
                Read { landed: Landed::Is(known), keep: Keep::Until(fresh_until), lease, fault: None }
            }
            Err(error) => {
                self.count(CacheLevel::Database, CacheOutcome::Failed);
                self.stand_in(if silent { stale } else { None }, Some(error))
            }
        }
    }

    /// What Redis has and for how many seconds more, or what may be left there.
    async fn ask_shared(&self, id: &str) -> Result<(Known<T>, u64), Option<Lease>> {
        let Some(shared) = &self.shared else { return Err(None) };
        let (outcome, result) = match shared.take(T::KIND, id).await {
            Found::Fact(fact, left) => match T::from_wire(&fact) {
                Some((value, revision)) => {
                    (CacheOutcome::Hit, Ok((Known { value: Arc::new(value), revision }, left)))
                }
                None => (CacheOutcome::Miss, Err(None)),
            },
            Found::Nothing(lease) => (CacheOutcome::Miss, Err(Some(lease))),
            Found::Barred => (CacheOutcome::Miss, Err(None)),
            Found::Failed => (CacheOutcome::Failed, Err(None)),
        };
        self.count(CacheLevel::Shared, outcome);
        result
    }

    fn stand_in(&self, stale: Option<Known<T>>, fault: Option<StoreError>) -> Read<T> {
        let landed = match stale {
            Some(known) => {
                self.count(CacheLevel::Memory, CacheOutcome::Stale);
                Landed::Is(Some(known))
            }
            None => Landed::Failed,
        };
        Read { landed, keep: Keep::Not, lease: None, fault }
    }

    fn land(&self, id: &str, ticket: Ticket, landed: &Landed<T>, keep: &Keep) -> Verdict {
        let mut gate = self.gate();
        let verdict = gate.land(id, ticket);
        if let (Verdict::Keep, Keep::Until(fresh_until), Landed::Is(found)) = (verdict, keep, landed) {
            match found {
                Some(known) => {
                    self.absent.remove(id);
                    let trusted = self.trusted.load(Ordering::Acquire);
                    let entry = Entry { known: known.clone(), fresh_until: *fresh_until, trusted };
                    self.present.insert(id.to_owned(), entry);
                }
                None => {
                    self.present.remove(id);
                    let until = self.host.now().monotonic.plus(ABSENT_MS).min(*fresh_until);
                    self.absent.insert(id.to_owned(), until);
                }
            }
        }
        drop(gate);
        self.measure();
        verdict
    }

    fn gate(&self) -> MutexGuard<'_, Fence<Answer<T>>> {
        // No step ends half-way, so a lock that somebody panicked with is as good as any.
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn used(&self, id: &str, found: Option<&Known<T>>) {
        if found.is_some() {
            self.hot.lock().unwrap_or_else(PoisonError::into_inner).used(id);
        }
    }

    fn count(&self, level: CacheLevel, outcome: CacheOutcome) {
        self.metrics.cache_read(T::KIND, level, outcome);
    }

    fn measure(&self) {
        self.metrics.cache_entries(T::KIND, self.present.len());
    }
}

/// Whether the database may simply be away.
fn is_silence(error: &StoreError) -> bool {
    matches!(error, StoreError::Timeout | StoreError::Database(_))
}

/// Somebody who waits for an answer, and may stop waiting at any time.
struct Rider<'r, T: Fact> {
    shelf: &'r Shelf<T>,
    id: &'r str,
    ticket: Ticket,
    answer: Answer<T>,
}

impl<'r, T: Fact> Rider<'r, T> {
    fn board(shelf: &'r Shelf<T>, id: &'r str) -> Self {
        let (ticket, answer) = shelf.gate().board(id);
        Self { shelf, id, ticket, answer }
    }
}

impl<T: Fact> Drop for Rider<'_, T> {
    fn drop(&mut self) {
        self.shelf.gate().leave(self.id, self.ticket);
    }
}
