//! Decides when a signing key is made, begins to sign, stops, and is forgotten.
//!
//! One key signs. Another is always published beside it, so that the change to it surprises nobody, not even when the first
//! has to be withdrawn. What was decided is a list of [`Step`]s that follows from the records and the time alone: whoever
//! lost some of them plans again and goes on from what there is.
//!
//! Time is measured between dates that the caller stamps. Where the clock went back, no time has passed: nothing becomes due
//! until it has caught up, and nothing that is published goes.

use tollgate_shared::id::KeyId;
use tollgate_shared::time::UnixSeconds;
use tollgate_shared::token::Algorithm;

use super::private::NewKey;
use super::record::KeyRecord;
use crate::config::SLACK_SECONDS;

/// The most keys that are published at once. When there are as many, no further one is made: the active key signs on, longer
/// than the settings say, until one that retires is gone. Verifiers take up to 64; the rest is room for emergencies.
pub const PUBLISHED_KEYS_MAX: usize = 48;
/// How long the service has to run before it starts to sign with another key, at most, in seconds. Edges that lost it come
/// back within 10 seconds, and have to hear of the key first.
pub const RECONNECT_SECONDS: u64 = 20;
/// The longest that a key set may be cached, in seconds.
const JWKS_MAX_AGE_SECONDS: u64 = 300;
/// The longest that it may be used beyond that while it is fetched anew.
const JWKS_STALE_SECONDS: u64 = 60;

/// The rules by which keys follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// What is made.
    pub new_key: NewKey,
    /// How long a key signs; for ever when `None`.
    pub rotate_every_seconds: Option<u64>,
    /// How long it is published before it may sign.
    pub prepublish_seconds: u64,
    /// The longest life that a token is given.
    pub token_seconds: u64,
}

/// The time, and since when this process can have told anybody anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The date. The feed's clock is the one to use, as it does not go back.
    pub now: UnixSeconds,
    /// When this process began to answer edges, by the same clock.
    pub serving_since: UnixSeconds,
}

/// What is to be done. Each is one transaction, or all of them are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make a key and publish it.
    Generate(NewKey),
    /// This key signs from now on, and the one that did retires: both at once.
    Activate(KeyId),
    /// Tokens that this key signs live longer than those it signed before: note it before it signs one.
    Lengthen(KeyId),
    /// This key signs no more.
    Retire(KeyId),
    /// This key is published no more.
    Remove(KeyId),
}

impl Schedule {
    /// How long a key that signed tokens of this life stays published after it stopped, in seconds. The slack covers clocks
    /// that differ, and replicas that have not heard yet that it stopped.
    #[must_use]
    pub fn retire_seconds(token_seconds: u64) -> u64 {
        token_seconds.saturating_add(SLACK_SECONDS)
    }

    /// How many keys are published at once when all goes as planned: the active one, the next, and those that retire.
    #[must_use]
    pub fn published_at_once(&self) -> u64 {
        let retire = Self::retire_seconds(self.token_seconds);
        // A key cannot change before the next was published for long enough.
        let period = self.rotate_every_seconds.map(|period| period.max(self.prepublish_seconds).max(1));
        period.map_or(2, |period| retire.div_ceil(period).saturating_add(2))
    }

    /// What the key set's `Cache-Control` says. A cache that holds it for as long as it may has fetched it anew before a key
    /// signs that it did not have: the two spans together are three quarters of `prepublish_seconds` at most.
    #[must_use]
    pub fn jwks_cache_control(&self) -> String {
        let max_age = JWKS_MAX_AGE_SECONDS.min(self.prepublish_seconds / 2);
        let stale = JWKS_STALE_SECONDS.min(self.prepublish_seconds / 4);
        format!("public, max-age={max_age}, stale-while-revalidate={stale}")
    }

    /// Whether a key that is published since then is known to every verifier.
    fn is_known(&self, published: UnixSeconds, moment: Moment) -> bool {
        let served = elapsed(moment.serving_since, moment.now);
        elapsed(published, moment.now) >= self.prepublish_seconds
            && served >= self.prepublish_seconds.min(RECONNECT_SECONDS)
    }
}

/// What is due. Planning and doing in turn comes to an end, with one active key and, unless there are too many, one that is
/// published to follow it.
#[must_use]
pub fn plan(records: &[KeyRecord], schedule: &Schedule, moment: Moment) -> Vec<Step> {
    let mut steps = Vec::new();
    match newest_active(records) {
        None => steps.push(match successor_in_need(records, schedule, moment) {
            Some(id) => Step::Activate(id),
            None => Step::Generate(schedule.new_key),
        }),
        Some((active, since)) => {
            // Never of our making, but a database can be restored or edited.
            let others = records.iter().filter(|record| record.id != active.id);
            let others = others.filter(|record| record.state.active_since().is_some());
            steps.extend(others.map(|record| Step::Retire(record.id.clone())));
            if active.token_seconds < schedule.token_seconds {
                steps.push(Step::Lengthen(active.id.clone()));
            }
            steps.extend(succession(records, active, since, schedule, moment));
        }
    }
    let over = records.iter().filter(|record| {
        let retire_seconds = Schedule::retire_seconds(record.token_seconds);
        record.state.retiring_since().is_some_and(|since| elapsed(since, moment.now) >= retire_seconds)
    });
    steps.extend(over.map(|record| Step::Remove(record.id.clone())));
    steps
}

/// What is to be done about who follows the active key.
fn succession(
    records: &[KeyRecord],
    active: &KeyRecord,
    since: UnixSeconds,
    schedule: &Schedule,
    moment: Moment,
) -> Vec<Step> {
    let wanted = schedule.new_key.algorithm();
    let known = |standby: &Standby<'_>| schedule.is_known(standby.since, moment);
    let (right, wrong): (Vec<_>, Vec<_>) =
        standbys(records).into_iter().partition(|standby| standby.record.algorithm == wanted);
    let period_is_over =
        schedule.rotate_every_seconds.is_some_and(|period| elapsed(since, moment.now) >= period);
    let due = period_is_over || active.algorithm != wanted;
    match right.iter().find(|standby| known(standby)) {
        Some(next) if due => vec![Step::Activate(next.record.id.clone())],
        // One of another algorithm has signed nothing. It was good for an emergency until there was a better one.
        Some(_) if active.algorithm == wanted => {
            let unused = wrong.iter().filter(|standby| known(standby));
            unused.map(|standby| Step::Remove(standby.record.id.clone())).collect()
        }
        Some(_) => Vec::new(),
        None if right.is_empty() && published(records) < PUBLISHED_KEYS_MAX => {
            vec![Step::Generate(schedule.new_key)]
        }
        None => Vec::new(),
    }
}

/// The key that has to sign when none does: one that verifiers know if there is any, even of another algorithm.
fn successor_in_need(records: &[KeyRecord], schedule: &Schedule, moment: Moment) -> Option<KeyId> {
    let wanted: Algorithm = schedule.new_key.algorithm();
    let best = standbys(records).into_iter().min_by_key(|standby| {
        let unknown = !schedule.is_known(standby.since, moment);
        (unknown, standby.record.algorithm != wanted)
    })?;
    Some(best.record.id.clone())
}

/// A key that waits for its turn.
struct Standby<'r> {
    record: &'r KeyRecord,
    since: UnixSeconds,
}

/// Those that wait, the longest waiting first.
fn standbys(records: &[KeyRecord]) -> Vec<Standby<'_>> {
    let waiting =
        records.iter().filter_map(|record| Some(Standby { record, since: record.state.waiting_since()? }));
    let mut standbys: Vec<_> = waiting.collect();
    standbys.sort_by(|one, other| (one.since, &one.record.id).cmp(&(other.since, &other.record.id)));
    standbys
}

fn newest_active(records: &[KeyRecord]) -> Option<(&KeyRecord, UnixSeconds)> {
    let active = records.iter().filter_map(|record| Some((record, record.state.active_since()?)));
    active.max_by(|(one, since), (other, later)| (since, &one.id).cmp(&(later, &other.id)))
}

fn published(records: &[KeyRecord]) -> usize {
    records.iter().filter(|record| record.is_published()).count()
}

fn elapsed(since: UnixSeconds, now: UnixSeconds) -> u64 {
    now.0.saturating_sub(since.0)
}

#[cfg(test)]
mod tests;
