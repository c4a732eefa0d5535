//! The rule that allocator and ledger keep together, against a model issuer and a network that loses, repeats and
//! delays.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::id::{IssuerId, Subject};
use crate::quota::Window;
use crate::quota::allocator::{Account, Allotment, Holding, Terms as AllocatorTerms, Want};
use crate::time::UnixMillis;
use crate::wire::quota::{WireGrant, WireRefusal};

const WINDOW_SECONDS: u64 = 60;

fn bucket(subject: &str) -> Bucket {
    Bucket::of_subject("api", &IssuerId::new("i").unwrap(), &Subject::new(subject).unwrap()).unwrap()
}

fn charge(cost: u64) -> Vec<Charge> {
    vec![Charge { bucket: bucket("u"), cost }]
}

/// The issuer as its contract has it: one transaction for each batch, one answer for each sequence.
struct ModelIssuer {
    limit: u64,
    accounts: BTreeMap<(WireBucketKey, u64), Account>,
    holdings: BTreeMap<(WireBucketKey, u64, String), Holding>,
    answers: BTreeMap<String, (u64, QuotaAnswer)>,
}

type WireBucketKey = BTreeMap<String, String>;

impl ModelIssuer {
    fn new(limit: u64) -> Self {
        Self { limit, accounts: BTreeMap::new(), holdings: BTreeMap::new(), answers: BTreeMap::new() }
    }

    /// `None`: the sequence is older than one that was applied.
    fn receive(&mut self, batch: &QuotaBatch, now: UnixMillis) -> Option<QuotaAnswer> {
        let spender = format!("{}/{}", batch.edge, batch.epoch);
        match self.answers.get(&spender) {
            Some((sequence, answer)) if *sequence == batch.sequence => return Some(answer.clone()),
            Some((sequence, _)) if *sequence > batch.sequence => return None,
            _ => {}
        }
        for usage in &batch.usage {
            let (account, holding) = self.rows(&usage.bucket, usage.window, &spender);
            account.report(holding, usage.allowed, usage.denied);
        }
        for back in &batch.returns {
            let (account, holding) = self.rows(&back.bucket, back.window, &spender);
            account.take_back(holding, back.units);
        }
        let window = Window::containing(now.seconds(), WINDOW_SECONDS);
        let ends_at = UnixMillis((window.0.0 + WINDOW_SECONDS) * 1000);
        let limit = self.limit;
        let mut answer = QuotaAnswer::default();
        for want in &batch.wants {
            let (account, holding) = self.rows(&want.bucket, window.0.0, &spender);
            let terms = AllocatorTerms { limit, now, ends_at };
            let resets_in = ends_at.0 - now.0;
            match account.lease(holding, Want { units: want.units, least: want.least }, terms) {
                Allotment::Lease { units, expires_in, remaining } => answer.grants.push(WireGrant {
                    bucket: want.bucket.clone(),
                    window: window.0.0,
                    units,
                    expires_in,
                    remaining,
                    resets_in,
                    limit,
                    window_seconds: WINDOW_SECONDS,
                }),
                Allotment::Refused { ask_again_in } => answer.refusals.push(WireRefusal {
                    bucket: want.bucket.clone(),
                    window: window.0.0,
                    resets_in,
                    ask_again_in,
                    limit,
                    window_seconds: WINDOW_SECONDS,
                }),
            }
        }
        self.answers.insert(spender, (batch.sequence, answer.clone()));
        Some(answer)
    }

    fn rows(&mut self, bucket: &WireBucketKey, window: u64, spender: &str) -> (&mut Account, &mut Holding) {
        let account = self.accounts.entry((bucket.clone(), window)).or_default();
        let holding = self.holdings.entry((bucket.clone(), window, spender.to_owned())).or_default();
        (account, holding)
    }
}

fn ledger(edge: &str, epoch: u32) -> Ledger {
    Ledger::new(EdgeId::new(edge).unwrap(), format!("{epoch}"))
}

/// A clock that issuer and edges share; the edge's monotonic one starts at zero.
const START: u64 = 1_700_000_040_000;

fn exchange(ledger: &mut Ledger, issuer: &mut ModelIssuer, now: u64) {
    if let Some(batch) = ledger.due(Monotonic(now)).cloned() {
        let answer = issuer.receive(&batch, UnixMillis(START + now)).unwrap();
        ledger.answered(answer);
    }
}

#[test]
fn one_edge_spends_exactly_the_limit() {
    let (mut ledger, mut issuer) = (ledger("e", 1), ModelIssuer::new(100));
    let mut admitted = 0;
    for now in 0..3000 {
        match ledger.spend(&charge(1), Monotonic(now)) {
            Spend::Granted(_) => admitted += 1,
            Spend::NeedsLease => exchange(&mut ledger, &mut issuer, now),
            Spend::Exhausted { standing, .. } => assert_eq!(standing.limit, 100),
            other @ (Spend::Unavailable | Spend::Full) => panic!("{other:?}"),
        }
    }
    assert_eq!(admitted, 100);
}

#[test]
fn what_is_not_spent_comes_back_for_others() {
    let (mut idle, mut busy, mut issuer) = (ledger("idle", 1), ledger("busy", 1), ModelIssuer::new(10));
    assert_eq!(idle.spend(&charge(1), Monotonic(0)), Spend::NeedsLease);
    exchange(&mut idle, &mut issuer, 0);
    let mut admitted = 0;
    for now in (0..30_000).step_by(50) {
        if matches!(busy.spend(&charge(1), Monotonic(now)), Spend::Granted(_)) {
            admitted += 1;
        }
        exchange(&mut busy, &mut issuer, now);
        exchange(&mut idle, &mut issuer, now);
    }
    assert_eq!(admitted, 10, "the idle edge's units were lost");
}

#[test]
fn a_new_window_starts_with_the_whole_limit() {
    let (mut ledger, mut issuer) = (ledger("e", 1), ModelIssuer::new(5));
    let mut admitted = [0; 2];
    for now in (0..WINDOW_SECONDS * 2000).step_by(100) {
        let window = usize::from(now >= WINDOW_SECONDS * 1000);
        if matches!(ledger.spend(&charge(1), Monotonic(now)), Spend::Granted(_)) {
            admitted[window] += 1;
        }
        exchange(&mut ledger, &mut issuer, now);
    }
    // START is the start of a window.
    assert_eq!(START / 1000 % WINDOW_SECONDS, 0);
    assert_eq!(admitted, [5, 5]);
}

#[test]
fn charges_are_all_or_nothing() {
    let mut ledger = ledger("e", 1);
    let mut issuer = ModelIssuer::new(100);
    let both = vec![Charge { bucket: bucket("a"), cost: 1 }, Charge { bucket: bucket("b"), cost: 200 }];
    assert_eq!(ledger.spend(&both, Monotonic(0)), Spend::NeedsLease);
    exchange(&mut ledger, &mut issuer, 0);
    let Spend::Exhausted { place: 1, .. } = ledger.spend(&both, Monotonic(1)) else {
        panic!("the second cannot be had")
    };
    exchange(&mut ledger, &mut issuer, 1001);
    let account = issuer.accounts.iter().find(|((name, _), _)| name["subject"] == "a").unwrap().1;
    assert_eq!(account.allowed, 0, "the first was spent although the second was refused");
}

#[test]
fn a_batch_that_failed_is_sent_again_unchanged() {
    let mut ledger = ledger("e", 1);
    ledger.spend(&charge(1), Monotonic(0));
    let first = ledger.due(Monotonic(0)).cloned().unwrap();
    ledger.failed(Monotonic(500));
    assert_eq!(ledger.spend(&charge(1), Monotonic(10)), Spend::Unavailable);
    assert!(ledger.due(Monotonic(499)).is_none());
    assert_eq!(ledger.due(Monotonic(500)), Some(&first));
}

#[test]
fn a_bucket_too_many_is_refused() {
    let mut ledger = ledger("e", 1);
    for number in 0..BUCKETS_MAX {
        let charge = Charge { bucket: bucket(&number.to_string()), cost: 1 };
        assert_eq!(ledger.spend(&[charge], Monotonic(0)), Spend::NeedsLease);
    }
    assert_eq!(ledger.spend(&charge(1), Monotonic(0)), Spend::Full);
    assert_eq!(ledger.len(), BUCKETS_MAX);
}

#[test]
fn a_bucket_is_forgotten_only_when_it_owes_nothing() {
    let (mut ledger, mut issuer) = (ledger("e", 1), ModelIssuer::new(100));
    ledger.spend(&charge(1), Monotonic(0));
    exchange(&mut ledger, &mut issuer, 0);
    assert!(matches!(ledger.spend(&charge(1), Monotonic(1)), Spend::Granted(_)));
    ledger.forget(Monotonic(10 * FORGET_AFTER_MILLIS));
    assert_eq!(ledger.len(), 1, "a bucket with a report to make was forgotten");
    let mut now = 11 * FORGET_AFTER_MILLIS;
    let batch = ledger.due(Monotonic(now)).cloned().expect("a report");
    assert_eq!(batch.usage.len(), 1);
    ledger.answered(issuer.receive(&batch, UnixMillis(START + now)).unwrap());
    for _ in 0..3 {
        now += 2 * SWEEP_INTERVAL_MILLIS;
        exchange(&mut ledger, &mut issuer, now);
    }
    assert!(ledger.is_empty(), "an idle bucket that owes nothing is kept");
    assert_eq!(issuer.accounts.values().map(|account| account.allowed).sum::<u64>(), 1);
}

#[test]
fn every_bucket_gets_its_turn_when_one_batch_cannot_hold_all() {
    let (mut ledger, mut issuer) = (ledger("e", 1), ModelIssuer::new(100));
    let buckets = 3 * BATCH_ENTRIES_MAX;
    let one = |number: usize| [Charge { bucket: bucket(&number.to_string()), cost: 1 }];
    let mut granted = std::collections::BTreeSet::new();
    for now in (0..20).map(|round| round * 1000) {
        for number in 0..buckets {
            if matches!(ledger.spend(&one(number), Monotonic(now)), Spend::Granted(_)) {
                granted.insert(number);
            }
        }
        exchange(&mut ledger, &mut issuer, now);
    }
    assert_eq!(granted.len(), buckets);
}

#[derive(Debug, Clone)]
enum Step {
    Spend {
        edge: usize,
        cost: u64,
    },
    /// An edge sends what is due, and the network does this to it.
    Send {
        edge: usize,
        fate: Fate,
    },
    Restart {
        edge: usize,
    },
    Pass {
        millis: u64,
    },
}

#[derive(Debug, Clone, Copy)]
enum Fate {
    Delivered,
    RequestLost,
    AnswerLost,
    Duplicated,
    /// Delivered, and once more at the very end.
    RepeatedLate,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let fate = prop_oneof![
        4 => Just(Fate::Delivered),
        1 => Just(Fate::RequestLost),
        1 => Just(Fate::AnswerLost),
        1 => Just(Fate::Duplicated),
        1 => Just(Fate::RepeatedLate),
    ];
    let step = prop_oneof![
        6 => (0..3usize, 1..4u64).prop_map(|(edge, cost)| Step::Spend { edge, cost }),
        4 => (0..3usize, fate).prop_map(|(edge, fate)| Step::Send { edge, fate }),
        1 => (0..3usize).prop_map(|edge| Step::Restart { edge }),
        3 => (1..5_000u64).prop_map(|millis| Step::Pass { millis }),
    ];
    proptest::collection::vec(step, 1..200)
}

/// What the edges admitted, by the window of the lease; what they reported is the issuer's to know.
#[derive(Default)]
struct Run {
    admitted: BTreeMap<u64, u64>,
    late: Vec<QuotaBatch>,
    restarts: u32,
}

impl Run {
    fn step(&mut self, step: &Step, now: &mut u64, ledgers: &mut [Ledger], issuer: &mut ModelIssuer) {
        match *step {
            Step::Pass { millis } => *now += millis,
            Step::Restart { edge } => {
                self.restarts += 1;
                ledgers[edge] = ledger(&format!("e{edge}"), 1000 + self.restarts);
            }
            Step::Spend { edge, cost } => {
                let before =
                    ledgers[edge].tabs.get(&bucket("u")).and_then(|tab| tab.lease).map(|lease| lease.window);
                if let Spend::Granted(_) = ledgers[edge].spend(&charge(cost), Monotonic(*now)) {
                    *self.admitted.entry(before.expect("spent from a lease").0.0).or_default() += cost;
                }
            }
            Step::Send { edge, fate } => {
                let Some(batch) = ledgers[edge].due(Monotonic(*now)).cloned() else { return };
                self.send(&batch, fate, *now, &mut ledgers[edge], issuer);
            }
        }
    }

    fn send(
        &mut self,
        batch: &QuotaBatch,
        fate: Fate,
        now: u64,
        ledger: &mut Ledger,
        issuer: &mut ModelIssuer,
    ) {
        let wall = UnixMillis(START + now);
        match fate {
            Fate::RequestLost => return ledger.failed(Monotonic(now)),
            Fate::AnswerLost => {
                issuer.receive(batch, wall);
                return ledger.failed(Monotonic(now));
            }
            Fate::Duplicated => {
                issuer.receive(batch, wall);
            }
            Fate::RepeatedLate => self.late.push(batch.clone()),
            Fate::Delivered => {}
        }
        ledger.answered(issuer.receive(batch, wall).expect("an edge never goes back in its sequence"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Units admitted anywhere, in any window, never exceed the limit; and what edges that live on admitted is what the
    /// issuer has counted once they could report it.
    #[test]
    fn the_limit_holds_whatever_the_network_does(steps in steps(), limit in 1..60u64) {
        let mut ledgers = [ledger("e0", 1), ledger("e1", 1), ledger("e2", 1)];
        let mut issuer = ModelIssuer::new(limit);
        let (mut now, mut run) = (0, Run::default());
        for step in &steps {
            run.step(step, &mut now, &mut ledgers, &mut issuer);
            for (window, admitted) in &run.admitted {
                prop_assert!(*admitted <= limit, "{admitted} of {limit} in window {window}");
            }
        }
        for batch in std::mem::take(&mut run.late) {
            issuer.receive(&batch, UnixMillis(START + now));
        }
        for _ in 0..4 {
            now += 20_000;
            for ledger in &mut ledgers {
                exchange(ledger, &mut issuer, now);
            }
        }
        let admitted: u64 = run.admitted.values().sum();
        let counted: u64 = issuer.accounts.values().map(|account| account.allowed).sum();
        prop_assert!(counted <= admitted, "a report was counted twice: {counted} of {admitted}");
        if run.restarts == 0 {
            prop_assert_eq!(counted, admitted);
        }
        for account in issuer.accounts.values() {
            prop_assert!(account.granted - account.returned <= limit);
        }
    }
}
