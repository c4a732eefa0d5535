//! What must hold at every instant of a simulation, and what must be so again soon after the trouble is over.

use std::collections::BTreeMap;

use tollgate_filter::engine::{Decision, Denial, TokenFault};
use tollgate_issuer::store::FeedEntryChange;
use tollgate_shared::revocation::{Cutoff, Dimension, RevocationSet, StatusIndex};
use tollgate_shared::time::UnixSeconds;

use crate::process::{HARD_SECONDS, Process, STALE_SECONDS};
use crate::world::World;

/// After the trouble is over, every VM enforces everything and admits every good token within so many milliseconds: a call for a
/// snapshot that went into silence is given up, the next waits for the longest backoff, another VM is elected, and who got
/// snapshots of no use asks again.
pub(crate) const CALM_MILLIS: u64 = 60_000 + 10_000 + 1_000 + 32_000 + 3_000;
/// So many milliseconds after that there is no call left of before.
const SETTLED_MILLIS: u64 = 12_000;
/// A set with more entries than this is compared with the log only now and then.
const SMALL_LOG: u64 = 1_200;

/// What was seen in one case.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) requests: u64,
    pub(crate) admitted: u64,
    pub(crate) revoked: u64,
    pub(crate) unavailable: u64,
    /// Admitted although the revocation was acknowledged, within what is allowed; and the longest time for which that was so.
    pub(crate) admitted_late: u64,
    pub(crate) latest: u64,
    /// The greatest slack that counted, in milliseconds.
    pub(crate) slack: u64,
    pub(crate) sets_compared: u64,
    pub(crate) calm: u64,
}

/// What a request with a token comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Admitted,
    Revoked,
    Unavailable,
    Otherwise,
}

impl From<&Decision> for Verdict {
    fn from(decision: &Decision) -> Self {
        let Decision::Refuse(refusal) = decision else {
            return if matches!(decision, Decision::Admit(_)) { Self::Admitted } else { Self::Otherwise };
        };
        if matches!(refusal.denial, Denial::InvalidToken(TokenFault::Revoked(_))) {
            Self::Revoked
        } else if refusal.status == 503 {
            Self::Unavailable
        } else {
            Self::Otherwise
        }
    }
}

impl Seen {
    pub(crate) fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.admitted += other.admitted;
        self.revoked += other.revoked;
        self.unavailable += other.unavailable;
        self.admitted_late += other.admitted_late;
        self.latest = self.latest.max(other.latest);
        self.slack = self.slack.max(other.slack);
        self.sets_compared += other.sets_compared;
        self.calm = self.calm.max(other.calm);
    }
}

impl World {
    /// Shows a token to a VM, and holds the verdict against what is true.
    pub(crate) fn ask(&mut self, process: usize, vm: usize, path: &str, token: usize) -> Decision {
        let now = self.now;
        let decision = self.processes[process].check(vm, path, &self.tokens.all[token].header, now);
        self.seen.requests += 1;
        match Verdict::from(&decision) {
            Verdict::Admitted => self.hold_against_the_limit((process, vm), path, token),
            Verdict::Revoked => {
                self.seen.revoked += 1;
                let token = &self.tokens.all[token];
                if !token.is_touched {
                    let standing = self.standing(process);
                    let text = format!("VM {vm} of {process}: {:?}, {decision:?} {standing}", token.values);
                    self.fail("no token that was never revoked is refused as revoked", &text);
                }
            }
            Verdict::Unavailable => self.seen.unavailable += 1,
            Verdict::Otherwise => {}
        }
        decision
    }

    /// A VM has admitted this token: it must not have been acknowledged for longer than the limit that its state was revoked.
    fn hold_against_the_limit(&mut self, (process, vm): (usize, usize), path: &str, token: usize) {
        self.seen.admitted += 1;
        let Some(heard) = self.processes[process].vms[vm].heard else {
            self.fail("nothing is admitted without state", &format!("VM {vm} of {process}"))
        };
        let token = &self.tokens.all[token];
        let Some(acknowledged) = token.acknowledged else { return };
        let seconds = if path.starts_with("/strict") { STALE_SECONDS } else { HARD_SECONDS };
        let (slack, late) = (heard.slack(self.now), self.now - acknowledged);
        self.seen.admitted_late += 1;
        self.seen.latest = self.seen.latest.max(late);
        self.seen.slack = self.seen.slack.max(slack);
        if late > seconds * 1000 + slack {
            let text = format!(
                "VM {vm} of {process} admits at {path}, {late} ms after the revocation was acknowledged \
                 ({slack} ms of slack): {:?} {}",
                token.values,
                self.standing(process)
            );
            self.fail("acknowledged at t: nothing is admitted after t and the limit", &text);
        }
    }

    /// Where the VMs of a process stand.
    fn standing(&self, process: usize) -> String {
        let Process { vms, .. } = &self.processes[process];
        let now = self.processes[process].now(self.now);
        let vms: Vec<String> = vms
            .iter()
            .map(|vm| {
                format!(
                    "{:?} {:?} {:?}",
                    vm.engine.position(),
                    vm.heard,
                    vm.engine.metrics(now).gauges().next()
                )
            })
            .collect();
        format!("{vms:?}, the log ends at {:?}", self.database.position())
    }

    /// Shows some tokens to some VMs: those that were revoked lately more often.
    pub(crate) fn ask_some(&mut self) {
        if self.tokens.all.is_empty() {
            return;
        }
        let is_time_for_all = self.random.chance(5_000);
        let recent = self.tokens.all.len().saturating_sub(120);
        for process in 0..self.processes.len() {
            if !self.processes[process].is_up() {
                continue;
            }
            let vms = self.processes[process].vms.len();
            if is_time_for_all {
                for vm in 0..vms {
                    (recent..self.tokens.all.len())
                        .for_each(|token| drop(self.ask(process, vm, "/x", token)));
                }
            }
            for _ in 0..3 {
                let (vm, from) =
                    (self.random.place(vms), if self.random.chance(800_000) { recent } else { 0 });
                let token = from + self.random.place(self.tokens.all.len() - from);
                let path = if self.random.chance(300_000) { "/strict/x" } else { "/x" };
                self.ask(process, vm, path, token);
            }
        }
    }

    /// No VM goes back, and what it enforces is what the log has up to its position.
    pub(crate) fn look_after_positions(&mut self) {
        for process in 0..self.processes.len() {
            if !self.processes[process].is_up() {
                continue;
            }
            for place in 0..self.processes[process].vms.len() {
                let vm = &self.processes[process].vms[place];
                let (before, position) = (vm.highest, vm.engine.position());
                if position == before {
                    continue;
                }
                if position < before {
                    let text = format!("VM {place} of {process} went from {before:?} to {position:?}");
                    self.fail("no VM goes back", &text);
                }
                let known = self.processes[process].highest;
                if before.is_none() && position < known {
                    let text = format!("VM {place} of {process} begins at {position:?} after {known:?}");
                    self.fail("no VM begins before what its process had come to", &text);
                }
                self.processes[process].vms[place].highest = position;
                let position = position.unwrap_or_default();
                if position < SMALL_LOG || self.random.chance(30_000) {
                    self.compare(process, place, position);
                }
            }
            let Process { vms, highest, .. } = &mut self.processes[process];
            *highest = vms.iter().map(|vm| vm.highest).fold(*highest, Option::max);
        }
    }

    /// Compares what a VM enforces with the log up to this position.
    pub(crate) fn compare(&mut self, process: usize, place: usize, position: u64) {
        self.seen.sets_compared += 1;
        let Some(set) = self.processes[process].vms[place].engine.revocations() else {
            self.fail("who has a position has a set", &format!("VM {place} of {process}"))
        };
        if let Err(what) = InForce::at(self, position).matches(set, self.today()) {
            let text = format!("VM {place} of {process} at position {position}: {what}");
            self.fail("the set at a position is that of the log", &text);
        }
    }

    /// Waits until everything is as it should be when nothing goes wrong.
    pub(crate) fn expect_calm(&mut self) {
        self.calm_down();
        let began = self.now;
        while let Some(lack) = self.lack() {
            if self.now - began > CALM_MILLIS {
                self.fail(
                    "soon after the trouble everything is enforced and every good token admitted",
                    &lack,
                );
            }
            self.pass(100);
        }
        self.seen.calm = self.seen.calm.max(self.now - began);
        for _ in 0..SETTLED_MILLIS / 100 {
            self.pass(100);
        }
        for _ in 0..60 {
            self.pass(100);
            for process in 0..self.processes.len() {
                let polls = self.network.polls_at_issuer(process);
                if polls > 1 {
                    let text = format!("process {process} has {polls} polls at the issuer");
                    self.fail("one poll of a process is under way when it is calm", &text);
                }
            }
        }
    }

    /// What is not as it should be when it is calm.
    fn lack(&mut self) -> Option<String> {
        let end = self.database.position().0;
        if !self.database.is_idle() {
            return Some("the database is busy".to_owned());
        }
        for process in 0..self.processes.len() {
            for vm in 0..self.processes[process].vms.len() {
                let position = self.processes[process].vms[vm].engine.position();
                if position != Some(end) {
                    return Some(format!("VM {vm} of {process} is at {position:?} of {end}"));
                }
                for token in self.tokens.all.len().saturating_sub(150)..self.tokens.all.len() {
                    let (issued_at, expires_at, is_touched, is_acknowledged) = {
                        let token = &self.tokens.all[token];
                        (token.issued_at, token.expires_at, token.is_touched, token.acknowledged.is_some())
                    };
                    let decision = self.ask(process, vm, "/strict/x", token);
                    let is_good = !is_touched && self.is_current(issued_at, expires_at);
                    match &decision {
                        Decision::Refuse(refusal) if is_good => {
                            return Some(format!("VM {vm} of {process} refuses: {:?}", refusal.denial));
                        }
                        Decision::Admit(_) if is_acknowledged => {
                            return Some(format!("VM {vm} of {process} admits what is revoked"));
                        }
                        Decision::Admit(_) | Decision::Refuse(_) | Decision::Wait => {}
                    }
                }
                self.compare(process, vm, end);
            }
        }
        None
    }
}

/// What the log says up to a position.
#[derive(Default)]
struct InForce {
    /// With the expiry of their block.
    indices: BTreeMap<StatusIndex, UnixSeconds>,
    cutoffs: BTreeMap<(Dimension, Option<String>, String), Vec<Cutoff>>,
}

impl InForce {
    fn at(world: &World, position: u64) -> Self {
        let mut in_force = Self::default();
        let until = world.database.entries().take_while(|(entry, _)| entry.position.0 <= position);
        for (entry, block) in until {
            match &entry.change {
                FeedEntryChange::Index { index, expires_at } => {
                    in_force.indices.insert(*index, *expires_at);
                }
                FeedEntryChange::Cutoff(cutoff) => {
                    let value = (cutoff.dimension, cutoff.issuer.clone(), cutoff.value.clone());
                    in_force.cutoffs.entry(value).or_default().push(cutoff.clone());
                }
                FeedEntryChange::Reuse => in_force.indices.retain(|index, _| Some(index.block()) != *block),
                FeedEntryChange::Keys(_) | FeedEntryChange::Plans(_) => {}
            }
        }
        in_force
    }

    /// Whether a set has all of it that concerns tokens which are not over at `today`, and nothing else.
    fn matches(&self, set: &RevocationSet, today: UnixSeconds) -> Result<(), String> {
        if let Some(index) = set.indices.iter().find(|index| !self.indices.contains_key(index)) {
            return Err(format!("{index:?} was never revoked"));
        }
        for (index, expires_at) in &self.indices {
            if *expires_at >= today && !set.indices.contains(*index) {
                return Err(format!("{index:?} is missing"));
            }
        }
        let has: BTreeMap<_, _> = set
            .cutoffs
            .iter()
            .map(|cutoff| ((cutoff.dimension, cutoff.issuer.clone(), cutoff.value.clone()), cutoff))
            .collect();
        for (value, cutoff) in &has {
            let known = self.cutoffs.get(value).map_or(&[][..], Vec::as_slice);
            if !known.iter().any(|one| covers(one.issued_before, cutoff.issued_before)) {
                return Err(format!("{cutoff:?} covers more than {known:?}"));
            }
        }
        for (value, known) in &self.cutoffs {
            for one in known.iter().filter(|one| one.until >= today) {
                if !has.get(value).is_some_and(|cutoff| covers(cutoff.issued_before, one.issued_before)) {
                    return Err(format!("{one:?} is missing"));
                }
            }
        }
        Ok(())
    }
}

/// Whether a cut-off before the one date covers all that is before the other.
fn covers(wide: Option<UnixSeconds>, narrow: Option<UnixSeconds>) -> bool {
    wide.is_none_or(|wide| narrow.is_some_and(|narrow| wide >= narrow))
}
