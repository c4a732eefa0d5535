//! Cases that are drawn at random, each from one number.

use std::collections::BTreeMap;

use crate::issuer::Tally;
use crate::network::{Fault, Rates};
use crate::properties::Seen;
use crate::random::Random;
use crate::world::{Case, REPLICAS, World};

/// So many cases are run if the environment does not say otherwise.
const CASES: u64 = 60;

/// Runs the case of this seed to its end.
fn run(seed: u64) -> World {
    let mut random = Random::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
    let mut world = World::new(Case::drawn(seed, &mut random));
    for _ in 0..random.between(1, 3) {
        let millis = random.between(20_000, 150_000);
        let rates = Rates::drawn(&mut random);
        world.trouble(rates, millis);
        if world.case.clock_goes_back {
            world.calm_down();
            world.pass(40_000);
        } else {
            world.expect_calm();
        }
    }
    world
}

fn number(name: &str) -> Option<u64> {
    std::env::var_os(name)?.to_str()?.parse().ok()
}

/// What came of many cases.
#[derive(Debug, Default)]
struct Sum {
    revocations: u64,
    minutes: u64,
    seen: Seen,
    told: Tally,
    faults: BTreeMap<Fault, u64>,
}

impl Sum {
    fn add(&mut self, other: &Self) {
        let Self { revocations, minutes, seen, told, faults } = other;
        self.revocations += revocations;
        self.minutes += minutes;
        self.seen.add(seen);
        self.told.add(told);
        for (fault, count) in faults {
            *self.faults.entry(*fault).or_default() += count;
        }
    }

    fn of(seeds: impl Iterator<Item = u64>) -> Self {
        let mut sum = Self::default();
        for seed in seeds {
            let mut world = run(seed);
            (0..REPLICAS).for_each(|replica| world.stop_replica(replica, true));
            let (revocations, minutes) = (world.database.acknowledged, world.now / 60_000);
            sum.add(&Self {
                revocations,
                minutes,
                seen: world.seen,
                told: world.told,
                faults: world.network.counts,
            });
        }
        sum
    }
}

/// A case that fails prints its seed; `TOLLGATE_SIMULATION_SEED` names the first and `TOLLGATE_SIMULATION_CASES` how many.
#[test]
fn whatever_happens_what_was_acknowledged_is_enforced_in_time_and_no_good_token_is_refused() {
    let cases = number("TOLLGATE_SIMULATION_CASES").unwrap_or(CASES);
    let first = number("TOLLGATE_SIMULATION_SEED").unwrap_or(1);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut sum = Sum::default();
    std::thread::scope(|scope| {
        let spawn = |thread: usize| {
            let seeds = (first..first + cases).skip(thread).step_by(threads);
            scope.spawn(move || Sum::of(seeds))
        };
        for running in (0..threads).map(spawn).collect::<Vec<_>>() {
            sum.add(&running.join().expect("the case whose seed is told above"));
        }
    });
    println!("{cases} cases: {sum:#?}");
    if cases >= CASES {
        let missing: Vec<&Fault> =
            Fault::ALL.iter().filter(|fault| !sum.faults.contains_key(fault)).collect();
        assert!(missing.is_empty(), "never happened: {missing:?}");
        let Seen { admitted_late, revoked, sets_compared, .. } = sum.seen;
        let Tally { segments, snapshots_again, parts, parts_missed, .. } = sum.told;
        let told = [segments, snapshots_again, parts, parts_missed];
        let reached = [sum.revocations, admitted_late, revoked, sets_compared].into_iter().chain(told);
        assert!(reached.min() > Some(0), "something that is to be tried was not");
    }
}
