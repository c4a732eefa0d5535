//! Decides how long a revocation took until every edge enforced it, pure: commits and reports come in, durations go out.
//!
//! *What comes in:* the positions that were committed, and what each running instance of an edge says that all its workers
//! enforce. *What goes out:* one duration for each position, when the last live instance enforces it, never too short: all instants
//! are of this process's monotonic clock, what another process heard counts from when this one read it, and an instance that
//! reports a later position enforced an earlier one by then at the latest. *What it costs if this is wrong:* an operator believes
//! a revocation to be everywhere that is not.
//!
//! A report and a commit cost no more with ten thousand instances than with ten: the dead are only looked for by [`Propagation::settle`].

use std::collections::BTreeMap;
use std::ops::Bound;

use tollgate_shared::revocation::Position;
use tollgate_shared::time::{Monotonic, UnixMillis};

/// An instance that was not heard of for so long is taken for dead, in milliseconds.
pub const TTL_MILLIS: u64 = 30_000;
/// The most instances that are kept of an edge. The one heard of longest ago goes.
pub const INSTANCES_MAX: usize = 64;
/// The most positions that are waited for. Of a burst beyond that the last ones count as one, from the first of them on.
pub const WAITING_MAX: usize = 1024;

/// One process of an edge.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct InstanceKey {
    /// The edge whose credential it has.
    pub edge: String,
    /// What the process calls itself.
    pub instance: String,
}

/// Who committed a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// This process, so that it knows when.
    Here,
    /// Another one. That one measures how long it takes.
    Elsewhere,
}

/// What an instance enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enforced {
    /// It has no state and admits nobody: there is nothing for it to catch up with.
    AdmitsNobody,
    /// A worker of it has no state, or that of another history.
    Unknown,
    /// Everything up to this position, in every worker.
    UpTo(Position),
}

impl Enforced {
    /// The position that is known to be enforced.
    fn position(self) -> Option<Position> {
        match self {
            Self::AdmitsNobody | Self::Unknown => None,
            Self::UpTo(position) => Some(position),
        }
    }

    /// Up to where it holds nothing up; `None` when it holds up everything.
    fn holds_beyond(self) -> Option<Position> {
        match self {
            Self::AdmitsNobody => Some(Position(u64::MAX)),
            Self::Unknown => None,
            Self::UpTo(position) => Some(position),
        }
    }
}

/// A report of an instance, by this process's monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// What it enforces.
    pub enforced: Enforced,
    /// Since when, at the latest.
    pub since: Monotonic,
    /// When it was heard of.
    pub seen_at: Monotonic,
    /// Which date it was by the clock of the process that heard it: by that it is known again when it is read.
    pub dated: UnixMillis,
}

/// A position that is enforced everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Everywhere {
    /// Which.
    pub position: Position,
    /// How long that took, in milliseconds.
    pub millis: u64,
}

/// How things stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outlook {
    /// Edges with a live instance.
    pub edges: usize,
    /// Live instances.
    pub instances: usize,
    /// What each of them enforces at least; `None` without any, or when it is not known of one.
    pub lowest: Option<Position>,
    /// For how long the oldest position has waited that is not enforced everywhere, in milliseconds.
    pub oldest_waits_millis: u64,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    committed_at: Monotonic,
    origin: Origin,
    /// When the last of those enforced it that do already.
    enforced_at: Option<Monotonic>,
}

/// Up to where instances hold nothing up, and how many each: the lowest is at hand.
#[derive(Debug, Default)]
struct Holds(BTreeMap<Option<Position>, usize>);

impl Holds {
    fn add(&mut self, enforced: Enforced) {
        *self.0.entry(enforced.holds_beyond()).or_default() += 1;
    }

    fn remove(&mut self, enforced: Enforced) {
        let beyond = enforced.holds_beyond();
        if let Some(count) = self.0.get_mut(&beyond) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.0.remove(&beyond);
            }
        }
    }

    /// `None` without anybody, and when somebody holds up everything.
    fn lowest(&self) -> Option<Position> {
        self.0.first_key_value().and_then(|(beyond, _)| *beyond)
    }
}

/// What is waited for, and for whom.
#[derive(Debug, Default)]
pub struct Propagation {
    highest: Option<Position>,
    waiting: BTreeMap<Position, Waiting>,
    instances: BTreeMap<InstanceKey, Report>,
    /// Of all instances.
    holds: Holds,
}

impl Propagation {
    /// Learns that a position was committed. Without a live instance nobody is waited for. One that is not beyond all before it
    /// is an old one that is told again, or part of a burst that the later one stands for.
    pub fn committed(&mut self, position: Position, origin: Origin, now: Monotonic) {
        if let Some(known) = self.waiting.get_mut(&position)
            && origin == Origin::Here
        {
            // It was noticed in the database before this process was told that its own commit succeeded.
            known.origin = origin;
        }
        if self.highest >= Some(position) {
            return;
        }
        self.highest = Some(position);
        // Who enforces it already did so before this was told: when, nobody knows.
        if self.instances.is_empty() || self.holds.lowest() >= Some(position) {
            return;
        }
        let mut waiting = Waiting { committed_at: now, origin, enforced_at: None };
        if self.waiting.len() >= WAITING_MAX
            && let Some((_, last)) = self.waiting.pop_last()
        {
            waiting.committed_at = last.committed_at;
            if last.origin == Origin::Here {
                waiting.origin = Origin::Here;
            }
        }
        self.waiting.insert(position, waiting);
    }

    /// Learns what an instance says of itself to this process. Of two reports the one that was heard later counts.
    pub fn heard(&mut self, who: &InstanceKey, report: Report, now: Monotonic) -> Vec<Everywhere> {
        let known = self.instances.get(who);
        if known.is_some_and(|known| known.seen_at > report.seen_at) || is_dead(&report, now) {
            return Vec::new();
        }
        self.take(who, report);
        self.done()
    }

    /// Learns what an instance said of itself to a process, as it was read from the database. What this changes is given by
    /// [`Propagation::settle`], when all that was read is told.
    pub fn told(&mut self, who: &InstanceKey, report: Report, now: Monotonic) {
        match self.instances.get(who) {
            Some(known) if known.dated >= report.dated => {}
            // It spoke since the last reading, whatever its date says.
            Some(_) => self.take(who, Report { seen_at: now, ..report }),
            None if is_dead(&report, now) => {}
            None => self.take(who, report),
        }
    }

    fn take(&mut self, who: &InstanceKey, mut report: Report) {
        let known = self.instances.get(who).copied();
        if let Some(position) = report.enforced.position() {
            let before = known.and_then(|known| known.enforced.position());
            if before < Some(position) {
                // When it was last heard of it did not say so yet.
                let since = known.map(|known| known.seen_at).max(Some(report.since));
                let newly = (before.map_or(Bound::Unbounded, Bound::Excluded), Bound::Included(position));
                for (_, waiting) in self.waiting.range_mut(newly) {
                    waiting.enforced_at = waiting.enforced_at.max(since);
                }
            }
        }
        self.holds.add(report.enforced);
        if let Some(known) = known {
            self.holds.remove(known.enforced);
            report.dated = report.dated.max(known.dated);
        }
        self.instances.insert(who.clone(), report);
        if known.is_none()
            && let Some(oldest) = surplus(&self.instances, &who.edge, |report| report.seen_at)
            && let Some(gone) = self.instances.remove(&oldest)
        {
            self.holds.remove(gone.enforced);
        }
    }

    /// Forgets the dead, and gives what is enforced by all who are left. When none is left, nothing is known of what waits.
    pub fn settle(&mut self, now: Monotonic) -> Vec<Everywhere> {
        let holds = &mut self.holds;
        self.instances.retain(|_, report| {
            let dead = is_dead(report, now);
            if dead {
                holds.remove(report.enforced);
            }
            !dead
        });
        if self.instances.is_empty() {
            self.waiting.clear();
        }
        self.done()
    }

    /// Takes out what everybody enforces.
    fn done(&mut self) -> Vec<Everywhere> {
        let Some(lowest) = self.holds.lowest() else { return Vec::new() };
        let mut done = Vec::new();
        while let Some(first) = self.waiting.first_entry().filter(|first| *first.key() <= lowest) {
            let (position, Waiting { committed_at, origin, enforced_at }) = first.remove_entry();
            if origin == Origin::Here {
                let millis = enforced_at.unwrap_or(committed_at).since(committed_at);
                done.push(Everywhere { position, millis });
            }
        }
        done
    }

    /// How things stand.
    pub fn outlook(&self, now: Monotonic) -> Outlook {
        let mut outlook = Outlook::default();
        let (mut edge, mut lowest) = (None, None::<Option<Position>>);
        for (who, report) in self.instances.iter().filter(|(_, report)| !is_dead(report, now)) {
            // Those of an edge stand together.
            if edge.replace(&who.edge) != Some(&who.edge) {
                outlook.edges += 1;
            }
            outlook.instances += 1;
            // Of one that is not known is less than every position.
            let enforced = report.enforced.position();
            lowest = Some(lowest.map_or(enforced, |lowest| lowest.min(enforced)));
        }
        outlook.lowest = lowest.flatten();
        let waits = self.waiting.values().map(|waiting| now.since(waiting.committed_at));
        outlook.oldest_waits_millis = waits.max().unwrap_or_default();
        outlook
    }
}

/// The instances of one edge.
pub(crate) fn of_edge<'m, T>(
    instances: &'m BTreeMap<InstanceKey, T>,
    edge: &'m str,
) -> impl Iterator<Item = (&'m InstanceKey, &'m T)> {
    let first = InstanceKey { edge: edge.to_owned(), instance: String::new() };
    instances.range(first..).take_while(move |(who, _)| who.edge == edge)
}

/// Which instance has to go when an edge has one more than there may be: the one heard of longest ago.
pub(crate) fn surplus<T, D: Ord>(
    instances: &BTreeMap<InstanceKey, T>,
    edge: &str,
    seen_at: impl Fn(&T) -> D,
) -> Option<InstanceKey> {
    if of_edge(instances, edge).count() <= INSTANCES_MAX {
        return None;
    }
    of_edge(instances, edge).min_by_key(|(_, kept)| seen_at(kept)).map(|(who, _)| who.clone())
}

fn is_dead(report: &Report, now: Monotonic) -> bool {
    now.since(report.seen_at) >= TTL_MILLIS
}

#[cfg(test)]
mod tests;
