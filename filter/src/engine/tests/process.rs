//! One process with several VMs, in virtual time: who polls, who takes over, and that each has what the issuer said.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tollgate_shared::quota::Plan;
use tollgate_shared::revocation::{
    Delta, Epoch, FeedChange, FeedMessage, Place, Position, RevocationSet, SEGMENT_POSITIONS, StatusIndex,
};
use tollgate_shared::token::SigningKey;
use tollgate_shared::wire::feed::{PART_BYTES, Snapshot, SnapshotId, SnapshotLayout, seal, seal_snapshot};

mod parts;

use super::*;

const EPOCH: Epoch = Epoch([1; 16]);

/// An issuer whose log is a list of indices.
struct Issuer {
    feed_key: SigningKey,
    epoch: Epoch,
    log: Vec<u32>,
    up: bool,
    /// By so much its messages are older than they could be, in milliseconds.
    late: u64,
    /// Who is before this place is told everything.
    told_from: usize,
    /// Whether the last byte of its next snapshot is another.
    damages: bool,
    /// What it does not answer: calls whose path begins so.
    refuses: Option<&'static str>,
    /// How many calls came.
    calls: usize,
    /// By so much the end of its log is ahead of what it tells.
    claims: u64,
    snapshots: usize,
    /// A snapshot that is larger than this is given in parts of so many bytes to who takes such.
    part_bytes: usize,
    /// The last snapshot, as long as it is known; and how many parts were given.
    kept: Option<(SnapshotId, Vec<u8>, SnapshotLayout)>,
    keeps: bool,
    /// Of so many calls for a part one reaches the replica that has it.
    replicas: usize,
    replica: usize,
    /// What becomes of each part.
    spoils: Option<fn(&mut Vec<u8>)>,
    parts: usize,
    /// The largest answer there was.
    largest: usize,
    /// From where on what is new was asked for, the last time, and whether that was ever further back than before.
    after: usize,
    went_back: bool,
    segments: usize,
    reports: Vec<serde_json::Value>,
}

impl Issuer {
    fn new() -> Self {
        let feed_key = SigningKey::from_seed(&[3; 32]);
        Self {
            feed_key,
            epoch: EPOCH,
            log: Vec::new(),
            up: true,
            late: 0,
            told_from: 0,
            damages: false,
            refuses: None,
            calls: 0,
            claims: 0,
            snapshots: 0,
            part_bytes: PART_BYTES,
            kept: None,
            keeps: true,
            replicas: 1,
            replica: 0,
            spoils: None,
            parts: 0,
            largest: 0,
            after: 0,
            went_back: false,
            segments: 0,
            reports: Vec::new(),
        }
    }

    fn message(&self, from: usize, to: usize, now: Now) -> FeedMessage {
        let revoked = self.log[from..to].iter().copied().map(StatusIndex).collect();
        FeedMessage {
            epoch: self.epoch,
            to: Position(to as u64),
            head: Position(self.log.len() as u64 + self.claims),
            as_of: UnixMillis(now.wall.0 - self.late),
            change: FeedChange::Delta(Delta { from: Position(from as u64), revoked, ..Delta::default() }),
            keys: None,
            plans: None,
        }
    }

    fn snapshot(&mut self, now: Now) -> Vec<u8> {
        let mut set = RevocationSet::default();
        set.indices.extend(self.log.iter().copied().map(StatusIndex));
        let position = Position(self.log.len() as u64);
        let place = Place { epoch: self.epoch, position, as_of: UnixMillis(now.wall.0 - self.late) };
        let keys = serde_json::json!({ "keys": [self.feed_key.public_jwk()] }).to_string();
        let plans = Plan::defaults();
        let snapshot = Snapshot { place, head: position, revoked: &set, keys: &keys, plans: &plans };
        let (mut body, layout) = seal_snapshot(snapshot, &self.feed_key).unwrap();
        if std::mem::take(&mut self.damages) {
            *body.last_mut().unwrap() ^= 1;
        }
        self.kept = Some((SnapshotId::of(&body[layout.envelope()]), body.clone(), layout));
        body
    }

    /// The part of the last snapshot that this path names, if it names one.
    fn part(&mut self, path: &str) -> Option<Vec<u8>> {
        let (id, piece) = path.strip_prefix("/v1/edge/snapshot/")?.split_once('/')?;
        let (_, body, layout) = self.kept.as_ref().filter(|(kept, ..)| self.keeps && kept.to_hex() == id)?;
        self.parts += 1;
        let part = layout.part(piece.parse().unwrap(), self.part_bytes)?;
        let mut part = body[part].to_vec();
        if let Some(spoil) = self.spoils {
            spoil(&mut part);
        }
        Some(part)
    }

    /// The answer to a call that came at `since`; `None` for a poll that is held.
    fn answer(&mut self, call: &Call, since: u64, now: Now) -> Option<Vec<u8>> {
        let (path, query) = call.path.split_once('?').unwrap_or((&call.path, ""));
        let parameter = |name: &str| {
            let pair = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
            pair.map(str::to_owned)
        };
        let number = |name: &str| parameter(name).map(|text| text.parse::<usize>().unwrap());
        if path == "/v1/edge/heartbeat" {
            self.reports.push(serde_json::from_slice(&call.body).unwrap());
            return Some(br#"{"interval_seconds":10,"ttl_seconds":30}"#.to_vec());
        }
        if let Some(segment) = path.strip_prefix("/v1/edge/history/") {
            self.segments += 1;
            let from: usize = segment.split_once('/').unwrap().1.parse().unwrap();
            let message = self.message(from, from + SEGMENT_POSITIONS as usize, now);
            return seal(&FeedMessage { head: message.to, ..message }, &self.feed_key);
        }
        if path.starts_with("/v1/edge/snapshot/") {
            self.replica += 1;
            let is_there = self.replica.is_multiple_of(self.replicas);
            return Some(is_there.then(|| self.part(path)).flatten().unwrap_or_default());
        }
        let held_for = number("wait").unwrap_or_default() as u64 * 1000;
        let may_be_held = now.monotonic.0 < since + held_for;
        let known = parameter("epoch") == Some(self.epoch.to_hex());
        if let Some(after) = number("after").filter(|_| known) {
            self.went_back |= after < self.after;
            self.after = after;
        }
        match number("after").filter(|after| known && (self.told_from..=self.log.len()).contains(after)) {
            Some(after) if after == self.log.len() && may_be_held => None,
            Some(after) => {
                let segment = SEGMENT_POSITIONS as usize;
                let end = self.log.len().min((after / segment + 1) * segment);
                let end = number("until").map_or(end, |until| until.min(end));
                seal(&self.message(after, end, now), &self.feed_key)
            }
            None => {
                self.snapshots += 1;
                let whole = self.snapshot(now);
                let whole_bytes = if parameter("pieces").is_some() { self.part_bytes } else { usize::MAX };
                let (_, _, layout) = self.kept.as_ref().unwrap();
                Some(whole[layout.first(whole_bytes)].to_vec())
            }
        }
    }
}

/// The process: its VMs by number, and the calls they have under way.
struct Process {
    data: LocalData,
    vms: BTreeMap<usize, Engine<RustCrypto, LocalData>>,
    held: Vec<(usize, Call, u64)>,
    /// How fast answers come, in bytes in a millisecond, and those that are on their way: until when, or until when they are waited
    /// for.
    rate: usize,
    wire: Vec<(usize, Call, Vec<u8>, u64, u64)>,
    issuer: Issuer,
    /// A VM that is not ticked, but told of what its calls were answered.
    late: Option<usize>,
    millis: u64,
    started: u128,
}

impl Process {
    fn new(vms: usize) -> Self {
        let mut process = Self {
            data: LocalData::default(),
            vms: BTreeMap::new(),
            held: Vec::new(),
            rate: usize::MAX,
            wire: Vec::new(),
            issuer: Issuer::new(),
            late: None,
            millis: 0,
            started: 0,
        };
        (0..vms).for_each(|vm| process.start(vm));
        process
    }

    /// Starts a VM, or replaces one that trapped: its calls are lost.
    fn start(&mut self, vm: usize) {
        use base64ct::{Base64UrlUnpadded, Encoding};
        let anchor = Base64UrlUnpadded::encode_string(&self.issuer.feed_key.public_bytes());
        let config = serde_json::json!({
            "providers": [{ "name": "home", "issuer": "https://i", "audiences": ["api"], "keys": "feed" }],
            "origin": { "cluster": "issuer", "authority": "i", "edge_id": "e", "trust_anchor": anchor },
            "rules": [{ "match": { "prefix": "/" }, "requires": "token" }],
        });
        let config = Config::parse(config.to_string().as_bytes()).unwrap();
        self.started += 1;
        let seed = (self.started << 64) | self.started.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.kill(vm);
        self.vms.insert(vm, Engine::new(config, RustCrypto, self.data.clone(), seed));
    }

    fn kill(&mut self, vm: usize) {
        self.vms.remove(&vm);
        self.held.retain(|(owner, ..)| *owner != vm);
        self.wire.retain(|(owner, ..)| *owner != vm);
    }

    fn now(&self) -> Now {
        at(self.millis)
    }

    /// Lets time pass, a tick of every VM in each step.
    fn pass(&mut self, millis: u64) {
        let end = self.millis + millis;
        while self.millis < end {
            self.millis += 5;
            self.tick();
        }
    }

    fn tick(&mut self) {
        let now = self.now();
        for (vm, engine) in self.vms.iter_mut().filter(|(vm, _)| Some(**vm) != self.late) {
            // Faults are what some of these are about.
            let _ = engine.tick(now);
            while let Some(call) = engine.due(now) {
                self.held.push((*vm, call, self.millis));
            }
        }
        for (vm, call, since) in std::mem::take(&mut self.held) {
            let Some(engine) = self.vms.get_mut(&vm) else { continue };
            let is_refused = |refused: &str| {
                // A snapshot is what is asked for without a place.
                let wants_all = call.path.starts_with("/v1/edge/feed") && !call.path.contains("after=");
                call.path.starts_with(refused) || (refused == "snapshot" && wants_all)
            };
            if !self.issuer.up {
                let _ = engine.answer(call.id, Err(CallFailure::NoAnswer), now);
            } else if self.issuer.refuses.is_some_and(is_refused) {
                self.issuer.calls += 1;
                let _ = engine.answer(call.id, Ok(Reply { status: 500, body: Body::Here(b"no") }), now);
            } else if let Some(body) = self.issuer.answer(&call, since, now) {
                self.issuer.calls += 1;
                self.issuer.largest = self.issuer.largest.max(body.len());
                let arrives = self.millis + (body.len() / self.rate) as u64;
                let waited_until = since + call.timeout_millis;
                self.wire.push((vm, call, body, arrives, waited_until));
            } else {
                self.held.push((vm, call, since));
            }
        }
        let over = |(_, _, _, arrives, waited_until): &mut (_, _, _, u64, u64)| {
            self.millis >= (*arrives).min(*waited_until)
        };
        for (vm, call, body, arrives, _) in self.wire.extract_if(.., over).collect::<Vec<_>>() {
            let Some(engine) = self.vms.get_mut(&vm) else { continue };
            // No part is empty.
            let is_missing = body.is_empty() && self.issuer.spoils.is_none();
            let status = if is_missing { 404 } else { 200 };
            let reply = Ok(Reply { status, body: Body::Here(&body) });
            let outcome = if self.millis >= arrives { reply } else { Err(CallFailure::NoAnswer) };
            let _ = engine.answer(call.id, outcome, now);
        }
    }

    fn revoke(&mut self, indices: impl IntoIterator<Item = u32>) {
        self.issuer.log.extend(indices);
    }

    fn positions(&self) -> Vec<Option<u64>> {
        self.vms.values().map(Engine::position).collect()
    }

    fn polls_held(&self) -> usize {
        self.held.iter().filter(|(_, call, _)| call.kind == CallKind::Feed).count()
    }

    /// Whether every VM has exactly what the issuer revoked.
    fn all_have_it(&self) -> bool {
        let mut wanted = RevocationSet::default();
        wanted.indices.extend(self.issuer.log.iter().copied().map(StatusIndex));
        self.vms.values().all(|engine| {
            let state = engine.refresh.as_ref().and_then(Refresh::state);
            state.is_some_and(|state| {
                state.epoch == self.issuer.epoch && state.revoked.indices == wanted.indices
            })
        })
    }
}

#[test]
fn one_vm_polls_and_all_of_them_know() {
    let mut process = Process::new(5);
    process.revoke(0..100);
    process.pass(500);
    assert!(process.all_have_it(), "{:?}", process.positions());
    assert_eq!((process.issuer.snapshots, process.polls_held()), (1, 1));
    for round in 0..20 {
        process.revoke([1_000 + round]);
        // What was revoked is known at every VM within two ticks of it.
        process.pass(40);
        assert!(process.all_have_it(), "round {round}: {:?}", process.positions());
        assert_eq!(process.polls_held(), 1);
    }
    assert_eq!(process.issuer.snapshots, 1, "nobody but the first needed one");
}

#[test]
fn what_comes_by_the_thousand_is_in_force_at_once_and_settles_in_steps_that_are_short() {
    let mut process = Process::new(2);
    process.pass(500);
    let scattered = |number: u32| number.wrapping_mul(2_654_435_769) % 100_000_000;
    process.revoke((0..SEGMENT_POSITIONS as u32).map(scattered));
    let states = |process: &Process| -> Vec<(u64, bool)> {
        let state = |engine: &Engine<_, _>| {
            let state = engine.refresh.as_ref().and_then(Refresh::state)?;
            Some((state.position.0, state.revoked.indices.is_settled()))
        };
        process.vms.values().map(|engine| state(engine).unwrap()).collect()
    };
    let mut unsettled = 0;
    while states(&process) != [(SEGMENT_POSITIONS, true); 2] {
        process.pass(5);
        for engine in process.vms.values() {
            let state = engine.refresh.as_ref().and_then(Refresh::state).unwrap();
            if !state.revoked.indices.is_settled() {
                unsettled += 1;
                assert_eq!(state.position.0, SEGMENT_POSITIONS);
                assert!(
                    process
                        .issuer
                        .log
                        .iter()
                        .all(|index| state.revoked.indices.contains(StatusIndex(*index)))
                );
                assert_eq!(engine.next_tick_millis(), 1, "there is more to do");
            }
        }
        assert!(unsettled < 100, "it never ends");
    }
    assert!(unsettled >= 6, "{unsettled}: a step did more than its part");
    assert!(process.all_have_it());
}

#[test]
fn another_vm_takes_over_within_a_second_when_the_leader_dies() {
    let mut process = Process::new(4);
    process.revoke(0..10);
    process.pass(500);
    for round in 0..3 {
        let leader = process.held.iter().find(|(_, call, _)| call.kind == CallKind::Feed).unwrap().0;
        process.kill(leader);
        process.revoke([100 + round]);
        process.pass(1_000);
        assert_eq!(process.polls_held(), 1);
        assert!(process.all_have_it(), "{:?}", process.positions());
    }
    assert_eq!(process.issuer.snapshots, 1, "who takes over goes on where the board is");
}

#[test]
fn a_replaced_vm_serves_nothing_until_it_has_what_the_process_had() {
    let mut process = Process::new(3);
    process.revoke(0..10);
    process.pass(500);
    process.revoke(10..40);
    process.pass(100);
    for vm in 0..3 {
        process.start(vm);
        let mut seen = Vec::new();
        while seen.last() != Some(&Some(40)) {
            process.pass(5);
            let now = process.now().monotonic;
            let position = process.vms[&vm].position();
            assert_eq!(process.vms[&vm].is_ready(now), position.is_some());
            seen.push(position);
            assert!(seen.len() < 400, "not there after two seconds");
        }
        assert!(seen.iter().all(|position| position.is_none() || *position == Some(40)), "{seen:?}");
        assert!(process.all_have_it());
    }
}

#[test]
fn a_vm_that_comes_when_the_snapshot_is_long_gone_gets_another_and_the_others_follow_on() {
    let mut process = Process::new(3);
    process.pass(500);
    for index in 0..2 * board::RING as u32 {
        process.revoke([index]);
        process.pass(10);
    }
    process.start(1);
    // Something is revoked while the snapshot is on its way.
    for index in 0..50 {
        process.revoke([10_000 + index]);
        process.pass(10);
    }
    process.pass(3_000);
    assert!(process.all_have_it(), "{:?}", process.positions());
    assert_eq!(process.issuer.snapshots, 2);
    assert_eq!(process.polls_held(), 1);
}

/// Found by the simulation.
#[test]
fn a_snapshot_whose_piece_was_damaged_is_asked_for_again() {
    let mut process = Process::new(3);
    process.revoke(0..100);
    process.issuer.damages = true;
    process.pass(3_000);
    assert!(process.all_have_it(), "{:?}", process.positions());
    // Who finds the damage after another was asked for asks once more.
    assert!((2..=3).contains(&process.issuer.snapshots), "{}", process.issuer.snapshots);
    assert_eq!(process.polls_held(), 1);
}

/// Found by the simulation.
#[test]
fn a_vm_that_cannot_follow_knows_at_once_how_late_it_is() {
    let mut process = Process::new(3);
    process.revoke(0..100);
    // What is heard first is ten minutes old, and nothing tells so yet.
    process.issuer.late = 600_000;
    process.pass(200);
    assert!(process.all_have_it() && process.vms.values().all(|vm| vm.is_ready(process.now().monotonic)));
    process.issuer.late = 0;
    process.revoke(100..200);
    process.issuer.told_from = 200;
    while process.issuer.snapshots == 1 {
        process.pass(5);
    }
    while !process.all_have_it() {
        process.pass(5);
        for vm in process.vms.values() {
            assert!(vm.position() == Some(200) || !vm.is_ready(process.now().monotonic));
        }
        assert!(process.millis < 10_000, "{:?}", process.positions());
    }
}

#[test]
fn while_one_vm_waits_for_a_snapshot_that_cannot_be_had_the_others_follow_on() {
    let mut process = Process::new(3);
    process.pass(500);
    for index in 0..2 * board::RING as u32 {
        process.revoke([index]);
        process.pass(10);
    }
    process.issuer.refuses = Some("snapshot");
    process.start(1);
    process.pass(5_000);
    let mut followed = 0;
    for index in 0..40 {
        process.revoke([20_000 + index]);
        // Longer than the wait after one failure that a try for the snapshot costs them.
        process.pass(500);
        let end = Some(process.issuer.log.len() as u64);
        followed += usize::from(process.positions()[0] == end && process.positions()[2] == end);
    }
    assert!(followed >= 30, "{followed} of 40");
    process.issuer.refuses = None;
    process.pass(15_000);
    assert!(process.all_have_it(), "{:?}", process.positions());
}

#[test]
fn a_segment_that_is_spoilt_for_good_keeps_nobody_back() {
    let mut process = Process::new(2);
    process.revoke(0..10);
    process.pass(500);
    process.issuer.refuses = Some("/v1/edge/history/");
    process.revoke(10..5 * SEGMENT_POSITIONS as u32);
    process.pass(20_000);
    assert!(process.all_have_it(), "{:?}", process.positions());
    assert_eq!((process.issuer.snapshots, process.issuer.segments), (1, 0));
}

#[test]
fn a_leader_that_is_late_does_no_harm_when_its_poll_is_answered_at_last() {
    let mut process = Process::new(3);
    process.revoke(0..10);
    process.pass(500);
    for round in 0..5 {
        // The leader's worker is busy: its poll is held meanwhile, and another takes over.
        process.late =
            process.held.iter().find(|(_, call, _)| call.kind == CallKind::Feed).map(|held| held.0);
        process.pass(1_000);
        assert_eq!(process.polls_held(), 2);
        process.revoke([100 + round]);
        process.pass(50);
        process.late = None;
        process.pass(100);
        assert!(process.all_have_it(), "{:?}", process.positions());
        assert_eq!(process.polls_held(), 1);
    }
    assert_eq!(process.issuer.snapshots, 1, "nobody fell out of step");
}

#[test]
fn a_takeover_right_after_the_first_snapshot_leaves_nobody_waiting() {
    let mut process = Process::new(3);
    process.revoke(0..10);
    while process.issuer.snapshots == 0 {
        process.tick();
        process.millis += 5;
    }
    let leads = |process: &Process| process.vms.iter().find(|(_, vm)| vm.leads()).map(|(vm, _)| *vm);
    let leader = leads(&process).unwrap();
    process.kill(leader);
    process.pass(1_000);
    assert!(process.all_have_it(), "{:?}", process.positions());
    assert!(process.vms.values().all(|vm| vm.is_ready(process.now().monotonic)));
}

#[test]
fn an_issuer_whose_log_was_set_back_is_not_polled_without_a_pause() {
    let mut process = Process::new(2);
    process.revoke(0..100);
    process.pass(500);
    // It tells no news, and that there is some.
    process.issuer.claims = 50;
    process.pass(1_000);
    let before = process.issuer.calls;
    process.pass(60_000);
    let calls = process.issuer.calls - before;
    assert!(calls < 60 + 60_000 / 3_000, "{calls} calls in a minute");
    process.issuer.claims = 0;
    process.revoke([7_000]);
    process.pass(5_000);
    assert!(process.all_have_it(), "{:?}", process.positions());
}

#[test]
fn who_is_far_behind_takes_segments_of_history() {
    let mut process = Process::new(2);
    process.revoke(0..10);
    process.pass(500);
    process.issuer.up = false;
    process.pass(100);
    process.held.clear();
    process.revoke(10..10 * SEGMENT_POSITIONS as u32);
    process.pass(7_000);
    process.issuer.up = true;
    process.pass(11_000);
    assert!(process.all_have_it(), "{:?}", process.positions());
    assert_eq!((process.issuer.snapshots, process.issuer.segments), (1, 9));
}

#[test]
fn a_history_that_begins_anew_reaches_every_vm() {
    let mut process = Process::new(3);
    process.revoke(0..10);
    process.pass(500);
    process.issuer.epoch = Epoch([2; 16]);
    process.issuer.log = vec![5, 6];
    // The poll that is held is given up; the next one learns of it.
    process.pass(30_000);
    assert!(process.all_have_it(), "{:?}", process.positions());
}

#[test]
fn what_all_enforce_is_reported_when_it_has_risen_and_now_and_then() {
    let mut process = Process::new(3);
    process.revoke(0..10);
    process.pass(1_000);
    process.revoke([77]);
    process.pass(1_000);
    let last = process.issuer.reports.last().unwrap();
    assert_eq!((&last["enforced"], &last["position"], &last["workers"]), (&11.into(), &11.into(), &3.into()));
    assert!(last["enforced_ago_ms"].as_u64().unwrap() <= 300, "{last}");
    let instances: std::collections::BTreeSet<String> =
        process.issuer.reports.iter().map(|report| report["instance"].to_string()).collect();
    assert_eq!(instances.len(), 1, "{instances:?}");
    let before = process.issuer.reports.len();
    process.pass(30_000);
    let idle = process.issuer.reports.len() - before;
    assert!((2..=4).contains(&idle), "{idle} reports in 30 quiet seconds");
    // One that does not move holds the figure back.
    let held_back = process.vms.remove(&2).unwrap();
    process.revoke([78]);
    process.pass(1_000);
    assert_eq!(process.issuer.reports.last().unwrap()["enforced"], 11);
    drop(held_back);
    // Until it is known to be gone.
    process.pass(4_000);
    assert_eq!(process.issuer.reports.last().unwrap()["enforced"], 12);
}

#[test]
fn the_memory_of_the_board_is_bounded() {
    let mut process = Process::new(2);
    process.revoke((0..60_000).map(|index| index * 7));
    process.pass(1_000);
    let with_snapshot = process.data.bytes();
    for index in 0..2 * board::RING as u32 {
        process.revoke([1_000_000 + index]);
        process.pass(10);
    }
    let without = process.data.bytes();
    assert!(without < with_snapshot / 2 + 300 * board::RING as usize, "{with_snapshot} then {without} bytes");
    assert!(process.all_have_it());
}

/// Found by the property below.
#[test]
fn a_board_that_was_forgotten_and_written_anew_is_not_taken_for_the_one_before() {
    let mut process = Process::new(4);
    process.pass(6);
    process.data.clear();
    process.revoke([7]);
    process.pass(40_000);
    assert!(process.all_have_it(), "{:?}", process.positions());
}

#[derive(Debug, Clone)]
enum Event {
    Pass(u64),
    Revoke(u32),
    RevokeMany(u32),
    Replace(usize),
    Kill(usize),
    Down,
    Up,
    ForgetBoard,
    NewHistory,
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (0..600u64).prop_map(Event::Pass),
        8 => (0..100_000u32).prop_map(Event::Revoke),
        1 => (500..3_000u32).prop_map(Event::RevokeMany),
        2 => (0..4usize).prop_map(Event::Replace),
        1 => (0..4usize).prop_map(Event::Kill),
        1 => Just(Event::Down),
        2 => Just(Event::Up),
        1 => Just(Event::ForgetBoard),
        1 => Just(Event::NewHistory),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever dies and whatever is lost: no VM goes back, none has what was never revoked, and when all is well again every
    /// one of them has exactly what was.
    #[test]
    fn whatever_happens_every_vm_ends_with_what_was_revoked(
        events in proptest::collection::vec(any_event(), 1..40),
        in_parts in any::<bool>(),
    ) {
        let mut process = Process::new(4);
        if in_parts {
            process.issuer.part_bytes = 1;
        }
        let mut epochs = 1;
        let mut highest: BTreeMap<usize, (u8, u64)> = BTreeMap::new();
        for event in events {
            match event {
                Event::Pass(millis) => process.pass(millis),
                Event::Revoke(index) => process.revoke([index]),
                Event::RevokeMany(count) => process.revoke((0..count).map(|index| 200_000 + index)),
                Event::Replace(vm) => {
                    process.start(vm);
                    highest.remove(&vm);
                }
                Event::Kill(vm) => {
                    process.kill(vm);
                    highest.remove(&vm);
                }
                Event::Down => process.issuer.up = false,
                Event::Up => process.issuer.up = true,
                Event::ForgetBoard => process.data.clear(),
                Event::NewHistory => {
                    epochs += 1;
                    process.issuer.epoch = Epoch([epochs; 16]);
                }
            }
            for (vm, engine) in &process.vms {
                let Some(state) = engine.refresh.as_ref().and_then(Refresh::state) else { continue };
                let place = (state.epoch.0[0], state.position.0);
                prop_assert!(highest.get(vm).is_none_or(|before| *before <= place), "VM {} went back", vm);
                highest.insert(*vm, place);
                prop_assert!(state.revoked.indices.iter().all(|index| process.issuer.log.contains(&index.0)));
            }
        }
        process.issuer.up = true;
        (0..4).filter(|vm| !process.vms.contains_key(vm)).collect::<Vec<_>>().into_iter().for_each(|vm| process.start(vm));
        process.revoke([7]);
        // A held poll to an earlier history is given up after half a minute.
        process.pass(80_000);
        prop_assert!(process.all_have_it(), "{:?} of {}", process.positions(), process.issuer.log.len());
        prop_assert!(process.polls_held() <= 1, "{} polls", process.polls_held());
    }
}
