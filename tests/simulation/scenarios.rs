//! One fault of each kind alone, so that a failure says which.

mod clocks;
mod crashes;
mod replies;

use std::collections::VecDeque;

use crate::database::Order;
use crate::issuer::Answer;
use crate::network::{Cut, Fault, Rates};
use crate::process::HARD_SECONDS;
use crate::properties::Verdict;
use crate::world::{Case, World};

/// All calls, or all steps.
const ALWAYS: u32 = 1_000_000;
/// Half of them.
const OFTEN: u32 = 500_000;

/// A world in which everything is well, and two tokens that are admitted everywhere.
struct Scene {
    world: World,
    good: usize,
    doomed: usize,
}

impl Scene {
    fn new(seed: u64) -> Self {
        let mut world = World::new(Case { revoked_rate: 0, ..Case::plain(seed) });
        world.expect_calm();
        let [good, doomed] = [(); 2].map(|()| issue(&mut world));
        Self { world, good, doomed }
    }

    /// Revokes a token; what is told back is when that was acknowledged.
    fn revoke(&mut self, token: usize) -> u64 {
        self.world.database.order(Order::RevokeToken(token), 0);
        for _ in 0..100 {
            if let Some(at) = self.world.tokens.all[token].acknowledged {
                return at;
            }
            self.world.step(10);
        }
        panic!("the revocation is not acknowledged")
    }

    /// From now on processes that are cut off hear this only.
    fn replay(&mut self, processes: std::ops::Range<usize>, millis: u64, recorded: VecDeque<Answer>) {
        let until = self.world.now + millis;
        processes.for_each(|process| self.cut(process, Cut::Replaying, until));
        (self.world.network.recorded, self.world.network.is_recording) = (recorded, false);
    }

    fn cut(&mut self, process: usize, cut: Cut, until: u64) {
        self.world.network.cuts.insert(process, (cut, until));
    }

    /// The last snapshot that the issuer sent.
    fn last_snapshot(&self) -> Answer {
        self.world.network.recorded.iter().rfind(|answer| answer.is_snapshot).cloned().unwrap()
    }

    /// That, and what the issuer sent next: that there was no more.
    fn last_snapshot_and_its_proof(&self) -> VecDeque<Answer> {
        let recorded = &self.world.network.recorded;
        let place = recorded.iter().rposition(|answer| answer.is_snapshot).unwrap();
        let after = recorded.iter().skip(place + 1).find(|answer| !answer.is_snapshot).cloned().unwrap();
        [recorded[place].clone(), after].into()
    }

    fn only(&mut self, fault: Fault, rate: u32) {
        self.world.network.rates = Rates::only(&[(fault, rate)]);
    }

    /// What each VM says of a token.
    fn verdicts(&mut self, token: usize) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        for process in 0..self.world.processes.len() {
            for vm in 0..self.world.processes[process].vms.len() {
                let decision = self.world.ask(process, vm, "/x", token);
                verdicts.push(Verdict::from(&decision));
            }
        }
        verdicts
    }

    fn all_say(&mut self, token: usize, verdict: Verdict) -> bool {
        self.verdicts(token).iter().all(|said| *said == verdict)
    }

    /// The trouble is over: the one token is revoked everywhere and the other admitted.
    fn end(mut self) {
        self.world.expect_calm();
        let (good, doomed) = (self.good, self.doomed);
        assert!(self.all_say(doomed, Verdict::Revoked), "{:?}", self.verdicts(doomed));
        assert!(self.all_say(good, Verdict::Admitted), "{:?}", self.verdicts(good));
    }

    /// While this fault befalls so many calls a token is revoked, and time passes beyond the hard limit; it happened.
    fn revoke_under(seed: u64, fault: Fault, rate: u32) -> Self {
        let mut scene = Self::new(seed);
        scene.only(fault, rate);
        scene.revoke(scene.doomed);
        scene.world.pass(HARD_SECONDS * 1000 + 30_000);
        let counted = scene.world.network.counts.get(&fault).copied().unwrap_or_default();
        assert!(counted > 2, "{fault:?} happened {counted} times");
        scene
    }
}

fn issue(world: &mut World) -> usize {
    loop {
        let date = world.date(0);
        if let Some(token) = world.tokens.issue(date, &mut world.random) {
            // Replicas' clocks are ahead of edges' by a little.
            world.pass(3_000);
            return token;
        }
        if world.database.is_idle() {
            world.database.order(Order::TakeBlock, 0);
        }
        world.pass(100);
    }
}
