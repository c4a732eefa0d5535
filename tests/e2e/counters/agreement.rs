//! The scripts in Redis and the rules in Rust are the same: random steps, one answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use tokio::runtime::Handle;
use tollgate_issuer::clock::{EntropyError, Host};
use tollgate_issuer::metrics::Metrics;
use tollgate_issuer::store::redis::{CounterClock, Redis, RedisCounters};
use tollgate_issuer::throttle::{
    Count, Counters, Crowd, Distinct, Excess, Key, Kind, Ladder, MemoryCounters, Rate, Standing, Step, Turn,
};
use tollgate_shared::time::{Monotonic, Now, UnixMillis};
use tollgate_tests::evidence::Evidence;
use tollgate_tests::redis_server::{RedisCluster, RedisOptions, RedisServer};

use super::{cluster, settings, single};

/// A clock that only the test moves; both sides go by it. It begins at figures of today's size.
#[derive(Debug)]
struct GivenHost(AtomicU64);

const TODAY: u64 = 1_800_000_000_123;

impl Host for GivenHost {
    fn now(&self) -> Now {
        let millis = self.0.load(Ordering::SeqCst);
        Now { wall: UnixMillis(millis), monotonic: Monotonic(millis) }
    }

    fn fill(&self, _: &mut [u8]) -> Result<(), EntropyError> {
        Err(EntropyError)
    }
}

#[derive(Debug, Clone, Copy)]
enum Operation {
    Rate(Rate, Count),
    Ladder(Ladder, LadderStep),
    Distinct(Distinct, u8),
    Clear(Kind),
}

#[derive(Debug, Clone, Copy)]
enum LadderStep {
    Attempt,
    Strike,
    Look,
    /// Of the last attempt that was let through.
    Refund,
}

/// What both must say alike.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Turn(Turn),
    Free(u64),
    Delayed(u64),
    Crowd(Crowd),
    Cleared,
}

#[derive(Debug, Clone, Copy)]
struct Move {
    pause_ms: u64,
    key: u8,
    operation: Operation,
}

fn operation() -> impl Strategy<Value = Operation> {
    let rate = (1_u64..2000, 1_u64..90_000, 1_u64..20).prop_map(|(a, b, c)| Rate::new(a, b, c));
    let rates = prop_oneof![Just(Rate::new(10, 60_000, 10)), Just(Rate::new(1000, 1000, 7)), rate];
    let count = prop_oneof![3 => Just(Count::One), 1 => Just(Count::Nothing)];
    let ladder = Ladder {
        free: 5,
        first_ms: 1000,
        max_ms: 900_000,
        failures_max: 100,
        lock_ms: 86_400_000,
        memory_ms: 86_400_000,
    };
    let short = Ladder { free: 1, failures_max: 4, max_ms: 3000, lock_ms: 5000, memory_ms: 2500, ..ladder };
    let penalty = Ladder { free: 1, first_ms: 600_000, failures_max: 1_000_000_000, ..ladder };
    let ladders = prop_oneof![Just(ladder), Just(Ladder { free: 1, ..ladder }), Just(short), Just(penalty)];
    let step = prop_oneof![
        5 => Just(LadderStep::Attempt),
        2 => Just(LadderStep::Strike),
        1 => Just(LadderStep::Look),
        1 => Just(LadderStep::Refund),
    ];
    let excess = prop_oneof![Just(Excess::Stays), Just(Excess::Restarts)];
    let distinct = (1_u64..5, excess).prop_map(|(limit, excess)| Distinct { limit, window_ms: 0, excess });
    let kind = prop_oneof![Just(Kind::AddressRate), Just(Kind::Account), Just(Kind::AddressSeen)];
    prop_oneof![
        6 => (rates, count).prop_map(|(rate, count)| Operation::Rate(rate, count)),
        8 => (ladders, step).prop_map(|(ladder, step)| Operation::Ladder(ladder, step)),
        6 => (distinct, 0_u8..8).prop_map(|(distinct, member)| Operation::Distinct(distinct, member)),
        1 => kind.prop_map(Operation::Clear),
    ]
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let pause = prop_oneof![
        6 => Just(0),
        6 => 1_u64..50,
        3 => 1000_u64..5000,
        2 => 100_000_u64..1_000_000,
        1 => 80_000_000_u64..100_000_000,
    ];
    let one = (pause, 0_u8..2, operation());
    let made = one.prop_map(|(pause_ms, key, mut operation)| {
        if let Operation::Distinct(distinct, _) = &mut operation {
            // The window of a key stays the same, as it does for a setting.
            distinct.window_ms = if key == 0 { 50 } else { 600_000 };
        }
        Move { pause_ms, key, operation }
    });
    vec(made, 1..80)
}

async fn said(counters: &impl Counters, operation: Operation, key: u8, case: u64, last: &mut u64) -> Said {
    let mut digest = [key; 16];
    digest[..8].copy_from_slice(&case.to_be_bytes());
    let key = |kind| Key { kind, digest };
    match operation {
        Operation::Rate(rate, count) => {
            Said::Turn(counters.rate(&key(Kind::AddressRate), rate, count).await.unwrap())
        }
        Operation::Ladder(ladder, step) => {
            let step = match step {
                LadderStep::Attempt => Step::Attempt,
                LadderStep::Strike => Step::Strike,
                LadderStep::Look => Step::Look,
                LadderStep::Refund => Step::Refund(*last),
            };
            match counters.ladder(&key(Kind::Account), ladder, step).await.unwrap() {
                Standing::Free(reservation) => {
                    if step == Step::Attempt {
                        *last = reservation.until;
                    }
                    Said::Free(reservation.until)
                }
                Standing::Delayed(millis) => Said::Delayed(millis),
            }
        }
        Operation::Distinct(distinct, member) => {
            let member = [member; 16];
            Said::Crowd(counters.distinct(&key(Kind::AddressSeen), distinct, &member).await.unwrap())
        }
        Operation::Clear(kind) => {
            counters.clear(&key(kind)).await.unwrap();
            Said::Cleared
        }
    }
}

/// Makes the same moves on both and compares what they say, many times over.
fn agree(redis: &[(&str, String)], cases: u32) {
    let host = Arc::new(GivenHost(AtomicU64::new(TODAY)));
    let settings = settings(redis).redis.unwrap();
    let metrics = Arc::new(Metrics::default());
    let redis = Redis::new(settings, host.clone(), metrics);
    let redis = RedisCounters::new(redis, CounterClock::Given(host.clone()));
    let case = AtomicU64::new(0);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&moves(), |moves| {
        // Each case has keys of its own, so that none sees what another left.
        let case = case.fetch_add(1, Ordering::SeqCst);
        let memory = MemoryCounters::new(1_000_000, host.clone());
        let played = async {
            let (mut last_here, mut last_there) = (0, 0);
            for Move { pause_ms, key, operation } in &moves {
                host.0.fetch_add(*pause_ms, Ordering::SeqCst);
                let here = said(&memory, *operation, *key, case, &mut last_here).await;
                let there = said(&redis, *operation, *key, case, &mut last_there).await;
                prop_assert_eq!(here, there, "{:?}", operation);
            }
            Ok::<_, TestCaseError>(())
        };
        tokio::task::block_in_place(|| Handle::current().block_on(played))
    });
    outcome.unwrap();
}

/// Every key there is, with how long it lives, in milliseconds.
async fn lives(server: &RedisServer) -> Vec<(String, i64)> {
    let keys: Vec<String> = server.command(redis::cmd("KEYS").arg("*")).await.unwrap();
    let mut lives = Vec::new();
    for key in keys {
        lives.push((key.clone(), server.command(redis::cmd("PTTL").arg(&key)).await.unwrap()));
    }
    lives
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_and_the_pure_rules_say_the_same_and_every_key_ends() {
    let evidence = Evidence::of_this_test().unwrap();
    let server = RedisServer::start(RedisOptions::default(), &evidence).await.unwrap();
    agree(&single(&server.url()), 150);
    let lives = lives(&server).await;
    assert!(lives.len() > 100, "{}", lives.len());
    for (key, life) in lives {
        // A day's memory, a day's lock, and the minute that every key has.
        assert!(0 < life && life <= (2 * 86_400 + 60) * 1000, "{key}: {life}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_and_the_pure_rules_say_the_same() {
    let evidence = Evidence::of_this_test().unwrap();
    let servers = RedisCluster::start(3, &evidence).await.unwrap();
    agree(&cluster(&servers.urls()), 50);
    for node in servers.nodes() {
        assert!(!lives(node).await.is_empty(), "each node has some of the keys");
    }
}
