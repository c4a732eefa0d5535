//! Decides how long a revocation took until every edge enforced it, pure: commits and reports come in, durations go out.
//!
//! *What comes in:* the positions that were committed, and what each running instance of an edge says that all its workers
//! enforce. *What goes out:* one duration for each position, when the last live instance enforces it, never too short: an instance
//! that reports a later position enforced an earlier one by then at the latest. *What it costs if this is wrong:* an operator
//! believes a revocation to be everywhere that is not.

use std::collections::{BTreeMap, BTreeSet};

use tollgate_shared::revocation::Position;
use tollgate_shared::time::UnixMillis;

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

/// A report of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// What it enforces.
    pub enforced: Enforced,
    /// Since when.
    pub since: UnixMillis,
    /// When it was heard of.
    pub seen_at: UnixMillis,
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
    committed_at: UnixMillis,
    origin: Origin,
    /// When the last of those enforced it that do already.
    enforced_at: Option<UnixMillis>,
}

/// What is waited for, and for whom.
#[derive(Debug, Default)]
pub struct Propagation {
    highest: Option<Position>,
    waiting: BTreeMap<Position, Waiting>,
    instances: BTreeMap<InstanceKey, Report>,
}

impl Propagation {
    /// Learns that a position was committed. Without a live instance nobody is waited for. One that is not beyond all before it
    /// is an old one that is told again, or part of a burst that the later one stands for.
    pub fn committed(&mut self, position: Position, origin: Origin, now: UnixMillis) -> Vec<Everywhere> {
        let done = self.settle(now);
        if let Some(known) = self.waiting.get_mut(&position)
            && origin == Origin::Here
        {
            // It was noticed in the database before this process was told that its own commit succeeded.
            known.origin = origin;
        }
        if self.highest >= Some(position) {
            return done;
        }
        self.highest = Some(position);
        // Who enforces it already did so before this was told: when, nobody knows.
        if self.instances.is_empty() || self.held_below() >= Some(position) {
            return done;
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
        done
    }

    /// Learns what an instance says of itself. Of two reports the one that was heard later counts.
    pub fn heard(&mut self, who: &InstanceKey, report: Report, now: UnixMillis) -> Vec<Everywhere> {
        let known = self.instances.get(who);
        if known.is_some_and(|known| known.seen_at > report.seen_at) || is_dead(&report, now) {
            return self.settle(now);
        }
        if let Enforced::UpTo(position) = report.enforced {
            let before = known.and_then(|known| match known.enforced {
                Enforced::UpTo(position) => Some(position),
                Enforced::AdmitsNobody | Enforced::Unknown => None,
            });
            for (_, waiting) in self.waiting.range_mut(..=position).filter(|(at, _)| Some(**at) > before) {
                waiting.enforced_at = waiting.enforced_at.max(Some(report.since));
            }
        }
        self.instances.insert(who.clone(), report);
        if let Some(oldest) = surplus(&self.instances, &who.edge, |report| report.seen_at) {
            self.instances.remove(&oldest);
        }
        self.settle(now)
    }

    /// Forgets the dead, and gives what is enforced by all who are left. When none is left, nothing is known of what waits.
    pub fn settle(&mut self, now: UnixMillis) -> Vec<Everywhere> {
        self.instances.retain(|_, report| !is_dead(report, now));
        if self.instances.is_empty() {
            self.waiting.clear();
            return Vec::new();
        }
        let Some(lowest) = self.held_below() else { return Vec::new() };
        let mut done = Vec::new();
        while let Some(first) = self.waiting.first_entry().filter(|first| *first.key() <= lowest) {
            let (position, Waiting { committed_at, origin, enforced_at }) = first.remove_entry();
            let enforced_at = enforced_at.unwrap_or(committed_at);
            if origin == Origin::Here {
                done.push(Everywhere { position, millis: enforced_at.0.saturating_sub(committed_at.0) });
            }
        }
        done
    }

    /// How things stand.
    pub fn outlook(&self, now: UnixMillis) -> Outlook {
        let live = || self.instances.iter().filter(|(_, report)| !is_dead(report, now));
        let edges: BTreeSet<&str> = live().map(|(who, _)| who.edge.as_str()).collect();
        let up_to = |report: &Report| match report.enforced {
            Enforced::UpTo(position) => Some(position),
            Enforced::AdmitsNobody | Enforced::Unknown => None,
        };
        // `None` is less than every position.
        let lowest = live().map(|(_, report)| up_to(report)).min().flatten();
        let oldest = self.waiting.values().map(|waiting| now.0.saturating_sub(waiting.committed_at.0)).max();
        let oldest_waits_millis = oldest.unwrap_or_default();
        Outlook { edges: edges.len(), instances: live().count(), lowest, oldest_waits_millis }
    }

    /// Up to where nobody holds anything up; `None` when somebody holds up everything.
    fn held_below(&self) -> Option<Position> {
        let up_to = |report: &Report| match report.enforced {
            Enforced::AdmitsNobody => Some(Position(u64::MAX)),
            Enforced::Unknown => None,
            Enforced::UpTo(position) => Some(position),
        };
        self.instances.values().map(up_to).min().flatten()
    }
}

/// Which instance has to go when an edge has one more than there may be: the one heard of longest ago.
pub(crate) fn surplus<T>(
    instances: &BTreeMap<InstanceKey, T>,
    edge: &str,
    seen_at: impl Fn(&T) -> UnixMillis,
) -> Option<InstanceKey> {
    let of_edge = || instances.iter().filter(|(who, _)| who.edge == edge);
    if of_edge().count() <= INSTANCES_MAX {
        return None;
    }
    of_edge().min_by_key(|(_, kept)| seen_at(kept)).map(|(who, _)| who.clone())
}

fn is_dead(report: &Report, now: UnixMillis) -> bool {
    now.0.saturating_sub(report.seen_at.0) >= TTL_MILLIS
}

#[cfg(test)]
mod tests;
