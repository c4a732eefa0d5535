//! The set against a naive one, whatever is added and whenever blocks expire.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// Expiries are told of so many blocks.
const BLOCKS: u16 = 40;

/// Few blocks, so that what is added meets what is there.
fn any_index() -> impl Strategy<Value = u32> {
    (0..6u32, prop_oneof![0..300u32, 0..BLOCK_INDICES])
        .prop_map(|(block, place)| block * BLOCK_INDICES + place)
}

#[derive(Debug, Clone)]
enum Step {
    Add(Vec<u32>),
    AddAscending(BTreeSet<u32>),
    /// A whole run of a block, so that it is no longer kept as a list.
    AddRun(u32, u32),
    /// What a message has.
    AddMessage(Vec<u32>),
    Settle(usize),
    /// As a message tells them, in order, or in any.
    Learn(Vec<(u16, u64)>),
    Drop(u64),
}

fn any_expiries() -> impl Strategy<Value = Vec<(u16, u64)>> {
    let any_order = proptest::collection::vec((0..BLOCKS, 0..50u64), 1..60);
    (any_order, any::<bool>()).prop_map(|(mut expiries, in_order)| {
        if in_order {
            expiries.sort_unstable();
        }
        expiries
    })
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        proptest::collection::vec(any_index(), 0..20).prop_map(Step::Add),
        proptest::collection::btree_set(any_index(), 0..400).prop_map(Step::AddAscending),
        (any_index(), 1..9000u32).prop_map(|(start, count)| Step::AddRun(start, count)),
        proptest::collection::vec(any_index(), 0..200).prop_map(Step::AddMessage),
        (0..150usize).prop_map(Step::Settle),
        any_expiries().prop_map(Step::Learn),
        (0..60u64).prop_map(Step::Drop),
    ]
}

#[derive(Default)]
struct Naive {
    revoked: BTreeSet<u32>,
    expiries: BTreeMap<u16, u64>,
}

fn carry_out(step: Step, set: &mut IndexSet, naive: &mut Naive) {
    match step {
        Step::Add(indices) => {
            set.extend(indices.iter().copied().map(StatusIndex));
            naive.revoked.extend(indices);
        }
        Step::AddAscending(indices) => {
            set.extend_ascending(&indices.iter().copied().map(StatusIndex).collect::<Vec<_>>());
            naive.revoked.extend(indices);
        }
        Step::AddRun(start, count) => {
            let run: Vec<u32> = (start..start + count).collect();
            set.extend_ascending(&run.iter().copied().map(StatusIndex).collect::<Vec<_>>());
            naive.revoked.extend(run);
        }
        Step::AddMessage(indices) => {
            set.add(indices.iter().copied().map(StatusIndex).collect());
            naive.revoked.extend(indices);
        }
        Step::Settle(count) => {
            let before = set.runs.iter().map(Vec::len).sum::<usize>();
            assert_eq!(set.settle(count), set.is_settled());
            let after = set.runs.iter().map(Vec::len).sum::<usize>();
            assert!(after <= before && before - after <= count, "{before} then {after} of at most {count}");
        }
        Step::Learn(expiries) => {
            let told = expiries.iter().copied();
            set.learn_expiries(
                told.map(|(block, seconds)| BlockExpiry { block, expires_at: UnixSeconds(seconds) }),
            );
            for (block, expires_at) in expiries {
                let known = naive.expiries.entry(block).or_default();
                *known = (*known).max(expires_at);
            }
        }
        Step::Drop(horizon) => {
            set.drop_expired(UnixSeconds(horizon));
            let over = |block: u16, expiries: &BTreeMap<u16, u64>| {
                expiries.get(&block).is_some_and(|end| *end < horizon)
            };
            naive.revoked.retain(|index| !over((index >> 16) as u16, &naive.expiries));
            naive.expiries.retain(|_, end| *end >= horizon);
        }
    }
}

proptest! {
    #[test]
    fn it_holds_what_a_naive_set_holds(steps in proptest::collection::vec(any_step(), 0..30), probes in proptest::collection::vec(any_index(), 50)) {
        let (mut set, mut naive) = (IndexSet::default(), Naive::default());
        for step in steps {
            carry_out(step, &mut set, &mut naive);
            let unsettled = set.runs.iter().map(Vec::len).sum::<usize>() as u64;
            prop_assert!(set.runs.len() <= RUNS_MAX && set.runs.iter().all(|run| !run.is_empty()));
            prop_assert!((0..=unsettled).contains(&(set.len() - naive.revoked.len() as u64)));
        }
        prop_assert!(set.iter().map(|index| index.0).eq(naive.revoked.iter().copied()));
        let mut settled = set.clone();
        while !settled.settle(100) {}
        prop_assert_eq!(settled.len(), naive.revoked.len() as u64);
        prop_assert!(settled == set && settled.revoked.iter().eq(naive.revoked.iter().copied()));
        for probe in probes.into_iter().chain(naive.revoked.iter().copied().take(200)) {
            prop_assert_eq!(set.contains(StatusIndex(probe)), naive.revoked.contains(&probe));
        }
        for block in 0..BLOCKS + 1 {
            let known = set.expiry(block).map(|known| known.expires_at.0);
            prop_assert_eq!(known, naive.expiries.get(&block).copied());
        }
    }
}
