//! Decides who may have a status list made now, who waits for that, and who is sent away: anybody may ask for any list.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedMutexGuard, Semaphore, SemaphorePermit};

/// The most that wait for lists, or have one made, in this process.
pub(crate) const WAITERS_MAX: usize = 256;
/// So many lists are read and compressed at once: each is a reading of the database and milliseconds of a processor.
const MAKERS_MAX: usize = 2;

/// Who waits for lists.
#[derive(Debug)]
pub(crate) struct Turns {
    places: Semaphore,
    makers: Semaphore,
    /// One for each list that there is and that was asked for: a crowd that wants the same has it made once.
    by_list: Mutex<BTreeMap<u32, Arc<tokio::sync::Mutex<()>>>>,
}

/// The right to have a list made, alone with it, until this is dropped.
#[derive(Debug)]
#[must_use = "others have their turn when this is dropped"]
pub(crate) struct Turn<'t> {
    _alone: OwnedMutexGuard<()>,
    _place: SemaphorePermit<'t>,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            places: Semaphore::new(WAITERS_MAX),
            makers: Semaphore::new(MAKERS_MAX),
            by_list: Mutex::default(),
        }
    }
}

impl Turns {
    /// The turn of who wants this list, one after the other; `None` when too many wait already.
    pub(crate) async fn of(&self, list: u32) -> Option<Turn<'_>> {
        let place = self.places.try_acquire().ok()?;
        let alone =
            Arc::clone(self.by_list.lock().unwrap_or_else(PoisonError::into_inner).entry(list).or_default());
        Some(Turn { _alone: alone.lock_owned().await, _place: place })
    }

    /// Waits until one may be read and compressed.
    pub(crate) async fn maker(&self) -> Option<SemaphorePermit<'_>> {
        // Nobody closes it.
        self.makers.acquire().await.ok()
    }

    /// How many more may wait.
    #[cfg(test)]
    pub(crate) fn free_places(&self) -> usize {
        self.places.available_permits()
    }
}
