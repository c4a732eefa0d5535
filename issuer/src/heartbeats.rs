//! Keeps what running edges say of themselves: in memory at once, in the database about once a second, so that every replica
//! sees all of them; and has it measured how soon they enforce what was revoked.
//!
//! *What comes in:* reports of processes that have an edge's credential. *What goes out:* what operators are shown. Nothing is
//! decided by it: an edge that lies about itself is shown wrongly, and admits nobody more.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tollgate_shared::revocation::{Epoch, Position};
use tollgate_shared::time::{Monotonic, Now, UnixMillis, UnixSeconds};

use crate::app::App;
use crate::breaker::BreakerState;
use crate::metrics::Metrics;
use crate::propagation::{
    Enforced, Everywhere, INSTANCES_MAX, InstanceKey, Origin, Propagation, Report, TTL_MILLIS, of_edge,
    surplus,
};
use crate::store::{EdgeRecord, EdgeSeen, StoreError};

/// How often an instance is to report, in seconds.
pub const INTERVAL_SECONDS: u64 = 10;
/// An instance that was not heard of for so long is shown as dead, in seconds.
pub const TTL_SECONDS: u64 = TTL_MILLIS / 1000;
/// For how long a dead one is shown, in seconds.
pub const SHOWN_SECONDS: u64 = 86_400;
/// So many that were read are told at once: meanwhile whoever revokes waits.
const TOLD_AT_ONCE: usize = 256;

/// What an instance said of itself, by the clock of the replica that heard it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// What it runs in.
    pub host: String,
    /// Which release it is.
    pub version: String,
    /// How many workers it has.
    pub workers: u32,
    /// The history that it has.
    pub epoch: Option<Epoch>,
    /// Up to where the one that polls has it.
    pub position: Option<Position>,
    /// Up to where every worker enforces it.
    pub enforced: Option<Position>,
    /// Since when.
    pub enforced_at: UnixMillis,
    /// As of when its state is.
    pub state_as_of: Option<UnixMillis>,
    /// The state of its circuit breaker for calls to us.
    pub issuer_state: BreakerState,
    /// When it was heard of.
    pub seen_at: UnixMillis,
}

impl Heartbeat {
    /// Whether it counts as running.
    #[must_use]
    pub fn is_live(&self, now: UnixMillis) -> bool {
        now.0.saturating_sub(self.seen_at.0) < TTL_MILLIS
    }

    fn enforces(&self, ours: Epoch) -> Enforced {
        match (self.position, self.enforced) {
            (None, None) => Enforced::AdmitsNobody,
            (_, Some(position)) if self.epoch == Some(ours) => Enforced::UpTo(position),
            (_, _) => Enforced::Unknown,
        }
    }

    /// What it says to this process, now.
    fn heard(&self, ours: Epoch, now: Monotonic) -> Report {
        // Both dates were read off one clock at once.
        let ago = self.seen_at.0.saturating_sub(self.enforced_at.0);
        Report { enforced: self.enforces(ours), since: before(now, ago), seen_at: now, dated: self.seen_at }
    }

    /// What it said to some process, as it is read now. Their clocks are not compared but for how long ago that was.
    fn read(&self, ours: Epoch, now: Now) -> Report {
        let age = now.wall.0.saturating_sub(self.seen_at.0);
        let seen_at = before(now.monotonic, age);
        Report { enforced: self.enforces(ours), since: now.monotonic, seen_at, dated: self.seen_at }
    }
}

fn before(now: Monotonic, millis: u64) -> Monotonic {
    Monotonic(now.0.saturating_sub(millis))
}

/// What running edges say of themselves.
pub struct Heartbeats {
    metrics: Arc<Metrics>,
    unwritten: Mutex<Unwritten>,
    /// Apart from the others: whoever revokes waits for it.
    propagation: Mutex<Propagation>,
}

/// Those that are not written yet.
#[derive(Debug, Default)]
struct Unwritten(BTreeMap<InstanceKey, Heartbeat>);

impl Unwritten {
    /// Keeps one to be written; of too many of an edge the one heard of longest ago goes.
    fn keep(&mut self, who: InstanceKey, beat: Heartbeat) {
        let edge = who.edge.clone();
        if self.0.insert(who, beat).is_none()
            && let Some(oldest) = surplus(&self.0, &edge, |beat| beat.seen_at)
        {
            self.0.remove(&oldest);
        }
    }
}

impl fmt::Debug for Heartbeats {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Heartbeats").finish_non_exhaustive()
    }
}

impl Heartbeats {
    /// Nobody was heard of yet.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, unwritten: Mutex::default(), propagation: Mutex::default() }
    }

    /// Learns that a position was committed.
    pub(crate) fn committed(&self, position: Position, origin: Origin, now: Monotonic) {
        self.propagation().committed(position, origin, now);
    }

    /// Takes a report.
    pub(crate) fn heard(&self, who: InstanceKey, beat: Heartbeat, ours: Epoch, now: Monotonic) {
        let done = self.propagation().heard(&who, beat.heard(ours, now), now);
        self.observe(done);
        self.unwritten().keep(who, beat);
    }

    /// Forgets those that were written and have not changed since.
    fn written(&self, beats: &[(InstanceKey, Heartbeat)]) {
        let mut unwritten = self.unwritten();
        for (who, beat) in beats {
            if unwritten.0.get(who) == Some(beat) {
                unwritten.0.remove(who);
            }
        }
    }

    /// Takes what was read of all replicas.
    fn told(&self, beats: &[(InstanceKey, Heartbeat)], ours: Epoch, now: Now) {
        for some in beats.chunks(TOLD_AT_ONCE) {
            let mut propagation = self.propagation();
            for (who, beat) in some {
                propagation.told(who, beat.read(ours, now), now.monotonic);
            }
        }
        let done = self.propagation().settle(now.monotonic);
        self.observe(done);
    }

    /// Brings what is measured up to date.
    pub(crate) fn show(&self, now: Monotonic) {
        let mut propagation = self.propagation();
        let done = propagation.settle(now);
        let outlook = propagation.outlook(now);
        drop(propagation);
        self.observe(done);
        self.metrics.enforcement.show(outlook);
    }

    fn observe(&self, done: Vec<Everywhere>) {
        for Everywhere { position: _, millis } in done {
            self.metrics.enforcement.observe(millis);
        }
    }

    fn unwritten(&self) -> MutexGuard<'_, Unwritten> {
        // Nothing that holds the lock can panic, and each entry is whole.
        self.unwritten.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn propagation(&self) -> MutexGuard<'_, Propagation> {
        // As above.
        self.propagation.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An edge and its instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgeSummary {
    /// Its id.
    pub id: String,
    /// Since when.
    pub created_at: UnixSeconds,
    /// When it was last heard of.
    pub seen: Option<EdgeSeen>,
    /// Its instances by name, with what each said last.
    pub instances: Vec<(String, Heartbeat)>,
}

impl App {
    /// Writes down what was heard since the last time, and reads what other replicas heard.
    ///
    /// # Errors
    /// [`StoreError`]; what was not written is written the next time.
    pub async fn keep_heartbeats(&self) -> Result<(), StoreError> {
        let beats: Vec<_> = self.heartbeats.unwritten().0.clone().into_iter().collect();
        self.store.keep_heartbeats(&beats, INSTANCES_MAX).await?;
        self.heartbeats.written(&beats);
        let since = UnixMillis(self.host.now().wall.0.saturating_sub(TTL_MILLIS));
        let live = self.store.heartbeats(since).await?;
        // After the reading: whatever it found was so by then.
        self.heartbeats.told(&live, self.feed.epoch(), self.host.now());
        Ok(())
    }

    /// All edges by name, as whoever heard of them last did.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn edges(&self) -> Result<Vec<EdgeSummary>, StoreError> {
        let now = self.host.now().wall;
        let shown = UnixMillis(now.0.saturating_sub(SHOWN_SECONDS * 1000));
        let mut instances: BTreeMap<InstanceKey, Heartbeat> =
            self.store.heartbeats(shown).await?.into_iter().collect();
        for (who, beat) in self.heartbeats.unwritten().0.clone() {
            // Another replica may have heard of it later than this one, and written that down.
            if instances.get(&who).is_none_or(|written| written.seen_at <= beat.seen_at) {
                instances.insert(who, beat);
            }
        }
        let recent = self.edges_seen.lock().map(|edges| edges.clone()).unwrap_or_default();
        let edges = self.store.edges().await?.into_iter().map(|EdgeRecord { id, created_at, seen }| {
            let seen = seen.into_iter().chain(recent.get(&id).copied()).max_by_key(|seen| seen.at);
            let own = of_edge(&instances, &id);
            let instances = own.map(|(who, beat)| (who.instance.clone(), beat.clone())).collect();
            EdgeSummary { id, created_at, seen, instances }
        });
        Ok(edges.collect())
    }
}

/// The edges that these are of.
pub(crate) fn edges_of(beats: &[(InstanceKey, Heartbeat)]) -> BTreeSet<&str> {
    beats.iter().map(|(who, _)| who.edge.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat(seen_at: u64) -> Heartbeat {
        Heartbeat {
            host: "envoy".to_owned(),
            version: "1".to_owned(),
            workers: 1,
            epoch: Some(Epoch([1; 16])),
            position: Some(Position(5)),
            enforced: Some(Position(4)),
            enforced_at: UnixMillis(0),
            state_as_of: None,
            issuer_state: BreakerState::Closed,
            seen_at: UnixMillis(seen_at),
        }
    }

    #[test]
    fn of_too_many_instances_the_one_heard_of_longest_ago_goes() {
        let key = |edge: &str, number: u64| InstanceKey {
            edge: edge.to_owned(),
            instance: format!("{number:032x}"),
        };
        let mut unwritten = Unwritten::default();
        unwritten.keep(key("other", 0), beat(0));
        for number in 0..70 {
            unwritten.keep(key("eu-1", number), beat(1_000 - number));
        }
        assert_eq!(unwritten.0.len(), INSTANCES_MAX + 1);
        assert!(unwritten.0.contains_key(&key("eu-1", 0)) && !unwritten.0.contains_key(&key("eu-1", 68)));
        assert!(unwritten.0.contains_key(&key("other", 0)));
    }

    #[test]
    fn what_an_instance_enforces_is_known_of_our_history_only() {
        let ours = Epoch([1; 16]);
        let enforced = |beat: &Heartbeat| beat.enforces(ours);
        assert_eq!(enforced(&beat(0)), Enforced::UpTo(Position(4)));
        assert_eq!(enforced(&Heartbeat { epoch: Some(Epoch([2; 16])), ..beat(0) }), Enforced::Unknown);
        assert_eq!(enforced(&Heartbeat { epoch: None, ..beat(0) }), Enforced::Unknown);
        assert_eq!(enforced(&Heartbeat { enforced: None, ..beat(0) }), Enforced::Unknown);
        let none = Heartbeat { enforced: None, position: None, epoch: None, ..beat(0) };
        assert_eq!(enforced(&none), Enforced::AdmitsNobody);
    }
}
