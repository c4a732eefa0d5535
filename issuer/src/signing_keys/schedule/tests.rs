//! The schedule: what it does at each point of a key's life, and what holds whatever happens to it.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use proptest::prelude::*;

use super::*;
use crate::signing_keys::{KeyState, Rotation};

const FAST: Schedule = Schedule {
    new_key: NewKey::EdDsa,
    rotate_every_seconds: Some(5),
    prepublish_seconds: 2,
    token_seconds: 60,
};
const DAILY: Schedule = Schedule {
    new_key: NewKey::EdDsa,
    rotate_every_seconds: Some(86_400),
    prepublish_seconds: 3_600,
    token_seconds: 900,
};
const START: u64 = 1_000_000;

fn at(now: u64) -> Moment {
    Moment { now: UnixSeconds(now), serving_since: UnixSeconds(START) }
}

fn record(name: &str, algorithm: Algorithm, since: u64) -> KeyRecord {
    KeyRecord {
        id: KeyId::new(name).unwrap(),
        algorithm,
        state: KeyState::Prepublished { since: UnixSeconds(since) },
        created_at: UnixSeconds(since),
        token_seconds: 0,
        sealed: Some(vec![1]),
        public_jwk: String::new(),
    }
}

/// An issuer whose keys are only names: `k1`, `k2`, ….
#[derive(Debug, Default, Clone)]
struct Ring {
    records: Vec<KeyRecord>,
    made: usize,
}

impl Ring {
    fn started(schedule: &Schedule) -> Self {
        let mut ring = Self::default();
        ring.rotate(schedule, at(START));
        ring
    }

    fn rotate(&mut self, schedule: &Schedule, moment: Moment) {
        let (records, made) = (self.records.clone(), &mut self.made);
        let Ok(rotation) = Rotation::due(records, schedule, moment, |kind| make(made, kind, moment));
        self.records = rotation.records;
    }

    /// Does the first steps of a plan only.
    fn rotate_in_part(&mut self, schedule: &Schedule, moment: Moment, steps: usize) {
        let made = &mut self.made;
        let plan = plan(&self.records, schedule, moment);
        let mut rotation = Rotation { records: std::mem::take(&mut self.records), changed: Vec::new() };
        for step in plan.iter().take(steps) {
            let Ok(()) = rotation.apply(step, schedule, moment, &mut |kind| make(made, kind, moment));
        }
        self.records = rotation.records;
    }

    fn withdraw(&mut self, id: &KeyId, schedule: &Schedule, moment: Moment) -> bool {
        let (records, made) = (self.records.clone(), &mut self.made);
        let Ok(rotation) = Rotation::without(records, id, schedule, moment, |kind| make(made, kind, moment));
        let found = rotation.is_some();
        if let Some(rotation) = rotation {
            assert!(rotation.changed.contains(id));
            self.records = rotation.records;
        }
        found
    }

    fn active(&self) -> Vec<&KeyRecord> {
        self.records.iter().filter(|record| record.state.active_since().is_some()).collect()
    }

    fn signer(&self) -> &KeyRecord {
        let active = self.active();
        assert_eq!(active.len(), 1, "{:?}", self.records);
        active[0]
    }

    fn states(&self) -> String {
        let state = |record: &KeyRecord| {
            format!("{} {}", record.id, record.state.name().get(..3).unwrap_or_default())
        };
        self.records.iter().map(state).collect::<Vec<_>>().join(", ")
    }

    fn published(&self) -> usize {
        published(&self.records)
    }
}

fn make(made: &mut usize, kind: NewKey, moment: Moment) -> Result<KeyRecord, Infallible> {
    *made += 1;
    Ok(record(&format!("k{made}"), kind.algorithm(), moment.now.0))
}

#[test]
fn the_first_start_gives_a_key_that_signs_and_one_to_follow() {
    let ring = Ring::started(&DAILY);
    assert_eq!(ring.states(), "k1 act, k2 pre");
    assert_eq!(ring.signer().token_seconds, 900);
    assert_eq!(plan(&ring.records, &DAILY, at(START)), []);
}

#[test]
fn a_key_signs_for_its_period_and_is_published_until_its_tokens_are_over() {
    let mut ring = Ring::started(&DAILY);
    ring.rotate(&DAILY, at(START + 86_399));
    assert_eq!(ring.states(), "k1 act, k2 pre");
    let change = START + 86_400;
    ring.rotate(&DAILY, at(change));
    assert_eq!(ring.states(), "k1 ret, k2 act, k3 pre");
    ring.rotate(&DAILY, at(change + 900 + SLACK_SECONDS - 1));
    assert_eq!(ring.states(), "k1 ret, k2 act, k3 pre");
    ring.rotate(&DAILY, at(change + 900 + SLACK_SECONDS));
    assert_eq!(ring.states(), "k1 rem, k2 act, k3 pre");
}

#[test]
fn the_private_half_is_forgotten_when_a_key_stops_signing() {
    let mut ring = Ring::started(&DAILY);
    ring.rotate(&DAILY, at(START + 86_400));
    let kept: Vec<bool> = ring.records.iter().map(|record| record.sealed.is_some()).collect();
    assert_eq!(kept, [false, true, true]);
}

#[test]
fn no_key_signs_before_it_was_published_for_long_enough() {
    let mut ring = Ring::started(&DAILY);
    // It was made late: the service was down when its turn to be made came.
    ring.records[1].state = KeyState::Prepublished { since: UnixSeconds(START + 86_000) };
    ring.rotate(&DAILY, at(START + 86_000 + 3_599));
    assert_eq!(ring.states(), "k1 act, k2 pre");
    ring.rotate(&DAILY, at(START + 86_000 + 3_600));
    assert_eq!(ring.states(), "k1 ret, k2 act, k3 pre");
}

#[test]
fn a_service_that_just_came_back_lets_edges_hear_of_the_next_key_first() {
    let mut ring = Ring::started(&DAILY);
    let now = START + 100_000;
    let back = |served: u64| Moment { now: UnixSeconds(now + served), serving_since: UnixSeconds(now) };
    ring.rotate(&DAILY, back(RECONNECT_SECONDS - 1));
    assert_eq!(ring.states(), "k1 act, k2 pre");
    ring.rotate(&DAILY, back(RECONNECT_SECONDS));
    assert_eq!(ring.states(), "k1 ret, k2 act, k3 pre");
}

#[test]
fn keys_that_never_rotate_have_one_in_reserve() {
    let never = Schedule { rotate_every_seconds: None, ..DAILY };
    let mut ring = Ring::started(&never);
    ring.rotate(&never, at(START + 10 * 366 * 86_400));
    assert_eq!(ring.states(), "k1 act, k2 pre");
}

#[test]
fn another_algorithm_comes_by_way_of_being_published_first() {
    let mut ring = Ring::started(&DAILY);
    let es256 = Schedule { new_key: NewKey::Es256, ..DAILY };
    let change = START + 10_000;
    ring.rotate(&es256, at(change));
    assert_eq!(ring.states(), "k1 act, k2 pre, k3 pre", "the reserve stays until there is a better one");
    ring.rotate(&es256, at(change + 3_599));
    assert_eq!(ring.signer().algorithm, Algorithm::EdDsa);
    ring.rotate(&es256, at(change + 3_600));
    assert_eq!(ring.signer().algorithm, Algorithm::Es256);
    assert_eq!(ring.states(), "k1 ret, k2 pre, k3 act, k4 pre");
    ring.rotate(&es256, at(change + 2 * 3_600));
    assert_eq!(ring.states(), "k1 rem, k2 rem, k3 act, k4 pre");
}

#[test]
fn a_key_is_kept_for_the_longest_tokens_it_signed_whatever_is_set_later() {
    let long = Schedule { token_seconds: 80_000, ..DAILY };
    let mut ring = Ring::started(&long);
    ring.rotate(&DAILY, at(START + 86_400));
    let over = START + 86_400 + 80_000 + SLACK_SECONDS;
    ring.rotate(&DAILY, at(over - 1));
    assert!(ring.records[0].is_published());
    ring.rotate(&DAILY, at(over));
    assert!(!ring.records[0].is_published());
    let mut ring = Ring::started(&DAILY);
    ring.rotate(&long, at(START + 5));
    assert_eq!(ring.signer().token_seconds, 80_000, "not noted before such a token can be signed");
}

#[test]
fn a_withdrawn_key_is_gone_at_once_and_the_one_in_reserve_signs() {
    let mut ring = Ring::started(&DAILY);
    let (id, now) = (KeyId::new("k1").unwrap(), at(START + 5_000));
    assert!(ring.withdraw(&id, &DAILY, now));
    assert_eq!(ring.states(), "k1 wit, k2 act, k3 pre");
    assert_eq!(ring.records[0].sealed, None);
    assert!(!ring.withdraw(&id, &DAILY, now), "withdrawn twice");
    assert!(!ring.withdraw(&KeyId::new("k9").unwrap(), &DAILY, now));
}

#[test]
fn a_reserve_that_is_known_is_preferred_to_one_of_the_right_algorithm() {
    let es256 = Schedule { new_key: NewKey::Es256, ..DAILY };
    let mut ring = Ring::started(&DAILY);
    ring.rotate(&es256, at(START + 5_000));
    assert!(ring.withdraw(&KeyId::new("k1").unwrap(), &es256, at(START + 5_001)));
    assert_eq!(ring.states(), "k1 wit, k2 act, k3 pre");
}

#[test]
fn when_there_is_no_reserve_a_new_key_signs_at_once() {
    let mut ring = Ring::started(&DAILY);
    ring.records.retain(|record| record.state.active_since().is_some());
    assert!(ring.withdraw(&KeyId::new("k1").unwrap(), &DAILY, at(START + 1)));
    assert_eq!(ring.states(), "k1 wit, k3 act, k4 pre");
}

#[test]
fn a_withdrawn_reserve_or_retired_key_changes_nothing_for_the_active_one() {
    let mut ring = Ring::started(&DAILY);
    ring.rotate(&DAILY, at(START + 86_400));
    assert!(ring.withdraw(&KeyId::new("k1").unwrap(), &DAILY, at(START + 86_401)));
    assert!(ring.withdraw(&KeyId::new("k3").unwrap(), &DAILY, at(START + 86_401)));
    assert_eq!(ring.states(), "k1 wit, k2 act, k3 wit, k4 pre");
}

#[test]
fn of_two_active_keys_the_later_one_stays() {
    let mut ring = Ring::started(&DAILY);
    ring.records[1].activate(UnixSeconds(START + 5), 900);
    ring.rotate(&DAILY, at(START + 6));
    assert_eq!(ring.states(), "k1 ret, k2 act, k3 pre");
}

#[test]
fn keys_that_change_every_five_seconds_are_all_published_while_their_tokens_live() {
    let mut ring = Ring::started(&FAST);
    let mut signers = BTreeMap::new();
    for second in 0..600 {
        ring.rotate(&FAST, at(START + second));
        signers.insert(second, ring.signer().id.clone());
        let published: BTreeSet<_> =
            ring.records.iter().filter(|record| record.is_published()).map(|record| &record.id).collect();
        assert!(published.len() as u64 <= FAST.published_at_once(), "{}", published.len());
        for (_, signer) in signers.range(second.saturating_sub(60 + SLACK_SECONDS - 1)..) {
            assert!(published.contains(signer), "a token of {signer} is refused in second {second}");
        }
    }
    let different: BTreeSet<_> = signers.values().collect();
    assert_eq!(different.len(), 120);
    // The last change was in second 595: those before it whose tokens are not over, the active one, and the next.
    assert_eq!(ring.published(), 37 + 1);
}

#[test]
fn at_the_most_keys_the_active_one_signs_on_until_there_is_room() {
    let long = Schedule { token_seconds: 1_000, ..FAST };
    let mut ring = Ring::started(&long);
    let mut changes = Vec::new();
    let mut signer = ring.signer().id.clone();
    for second in 0..1_500 {
        ring.rotate(&long, at(START + second));
        assert!(ring.published() <= PUBLISHED_KEYS_MAX);
        if ring.signer().id != signer {
            signer = ring.signer().id.clone();
            changes.push(second);
        }
    }
    let widest = changes.windows(2).map(|pair| pair[1] - pair[0]).max();
    assert!(widest > Some(500), "keys were removed early to make room: {changes:?}");
    assert!(changes.last() > Some(&1_300), "there was room, and no key was made: {changes:?}");
}

#[test]
fn what_is_cached_is_fetched_anew_before_an_unknown_key_signs() {
    for prepublish_seconds in (2..2_000).chain([3_600, 86_400]) {
        let text = Schedule { prepublish_seconds, ..DAILY }.jwks_cache_control();
        let spans: Vec<u64> = text.split(['=', ',']).filter_map(|part| part.parse().ok()).collect();
        assert_eq!(spans.len(), 2, "{text}");
        // Dates are whole seconds: a key that is two seconds old by its date may be a second and a bit old.
        assert!(spans.iter().sum::<u64>() < prepublish_seconds, "{prepublish_seconds}: {text}");
    }
}

/// What can happen to an issuer between two looks at its keys.
#[derive(Debug, Clone)]
enum Event {
    /// Time passes.
    Pass(u64),
    /// The date is set back.
    SetBack(u64),
    /// The process ends and comes back.
    Restart,
    /// It is told to use another algorithm, or another life of tokens, or another period.
    Configure(NewKey, u64, Option<u64>),
    /// It looks at its keys, and ends after so many steps.
    LoseSteps(usize),
    /// It looks at its keys.
    Rotate,
    /// It signs a token.
    Sign,
    /// The key at this place is withdrawn.
    Withdraw(usize),
}

fn event() -> impl Strategy<Value = Event> {
    let kind = prop_oneof![Just(NewKey::EdDsa), Just(NewKey::Es256)];
    let period = proptest::option::of(10_u64..400);
    prop_oneof![
        6 => (0_u64..300).prop_map(Event::Pass),
        1 => (0_u64..2_000).prop_map(Event::SetBack),
        1 => Just(Event::Restart),
        1 => (kind, 60_u64..300, period).prop_map(|(kind, life, period)| Event::Configure(kind, life, period)),
        3 => (0_usize..3).prop_map(Event::LoseSteps),
        6 => Just(Event::Rotate),
        6 => Just(Event::Sign),
        1 => (0_usize..6).prop_map(Event::Withdraw),
    ]
}

/// The issuer, and beside it what is true: time that never goes back, and what was promised to whom.
struct World {
    ring: Ring,
    schedule: Schedule,
    /// What passed since the start.
    passed: u64,
    /// By how much the date was set back.
    behind: u64,
    serving_since: u64,
    /// When each key was first published.
    published_at: BTreeMap<KeyId, u64>,
    /// Until when each key has to be published for its tokens' sake.
    owed_until: BTreeMap<KeyId, u64>,
    withdrawn: BTreeSet<KeyId>,
    signed_last: Option<KeyId>,
    /// Whether the process has looked at its keys since it was configured or started.
    settled: bool,
}

impl World {
    fn new() -> Self {
        let schedule = Schedule {
            new_key: NewKey::EdDsa,
            rotate_every_seconds: Some(100),
            prepublish_seconds: 10,
            token_seconds: 60,
        };
        Self {
            ring: Ring::default(),
            schedule,
            passed: 0,
            behind: 0,
            serving_since: START,
            published_at: BTreeMap::new(),
            owed_until: BTreeMap::new(),
            withdrawn: BTreeSet::new(),
            signed_last: None,
            settled: false,
        }
    }

    fn moment(&self) -> Moment {
        let date = START + self.passed - self.behind.min(START);
        Moment { now: UnixSeconds(date), serving_since: UnixSeconds(self.serving_since) }
    }

    fn happen(&mut self, event: Event) {
        let moment = self.moment();
        match event {
            Event::Pass(seconds) => self.passed += seconds,
            Event::SetBack(seconds) => self.behind += seconds,
            Event::Restart => (self.serving_since, self.settled) = (moment.now.0, false),
            Event::Configure(new_key, token_seconds, rotate_every_seconds) => {
                self.schedule = Schedule { new_key, token_seconds, rotate_every_seconds, ..self.schedule };
                self.settled = false;
            }
            Event::LoseSteps(steps) => {
                self.ring.rotate_in_part(&self.schedule, moment, steps);
                (self.serving_since, self.settled) = (moment.now.0, false);
            }
            Event::Rotate => {
                self.ring.rotate(&self.schedule, moment);
                self.settled = true;
                assert_eq!(
                    plan(&self.ring.records, &self.schedule, moment),
                    [],
                    "it does not come to an end"
                );
            }
            Event::Sign if self.settled => {
                let signer = self.ring.signer().id.clone();
                let until = self.passed + self.schedule.token_seconds;
                let owed = self.owed_until.entry(signer).or_default();
                *owed = until.max(*owed);
            }
            Event::Sign => {}
            Event::Withdraw(place) => {
                let Some(id) = self.ring.records.get(place).map(|record| record.id.clone()) else { return };
                if self.ring.withdraw(&id, &self.schedule, moment) {
                    self.withdrawn.insert(id);
                    self.settled = true;
                }
            }
        }
        self.check();
    }

    fn check(&mut self) {
        let active = self.ring.active();
        let started = self.signed_last.is_some();
        assert!(active.len() <= 1, "{}", self.ring.states());
        assert!(!started || active.len() == 1, "nobody signs: {}", self.ring.states());
        assert!(self.ring.published() <= PUBLISHED_KEYS_MAX);
        for record in self.ring.records.iter().filter(|record| record.is_published()) {
            self.published_at.entry(record.id.clone()).or_insert(self.passed);
        }
        if let Some(signer) = active.first() {
            let is_new = self.signed_last.as_ref() != Some(&signer.id);
            let in_need = self.signed_last.as_ref().is_none_or(|last| self.withdrawn.contains(last));
            let published = self.passed - self.published_at[&signer.id];
            assert!(
                !is_new || in_need || published >= self.schedule.prepublish_seconds,
                "{} signs after {published} s",
                signer.id
            );
            self.signed_last = Some(signer.id.clone());
        }
        for (id, until) in &self.owed_until {
            let published = self.ring.records.iter().any(|record| record.id == *id && record.is_published());
            let owed = self.passed < *until && !self.withdrawn.contains(id);
            assert!(published || !owed, "good tokens of {id} are refused: {}", self.ring.states());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_one_key_signs_and_no_good_token_is_refused(
        events in proptest::collection::vec(event(), 1..120)
    ) {
        let mut world = World::new();
        for event in events {
            world.happen(event);
        }
        // And when nothing more happens, it becomes what it was told to be.
        world.behind = 0;
        for _ in 0..3 {
            world.passed += 5_000;
            world.happen(Event::Rotate);
        }
        let signer = world.ring.signer();
        prop_assert_eq!(signer.algorithm, world.schedule.new_key.algorithm());
    }
}
