//! Decides what the feed's clock shows: an edge holds every message against the date of the one before it.

use std::sync::{Mutex, PoisonError};

use tollgate_shared::time::{Monotonic, Now, UnixMillis};

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
