//! Whatever is told, in whatever pieces, adds up to what a plain list of all entries has; and no message claims more.

use proptest::prelude::*;
use tollgate_shared::revocation::{Cutoff, Cutoffs, Dimension, FeedState};
use tollgate_shared::token::{KeySet, SigningKey};
use tollgate_shared::wire::feed::{Snapshot, TrustAnchor, apply_body, seal, seal_snapshot};

use super::*;

const EPOCH: Epoch = Epoch([7; 16]);
/// When the first entry is written; every token of it is in force for long after the last.
const START: u64 = 1_000_000;
const LATER: UnixSeconds = UnixSeconds(START + 10_000_000);

fn jwks(number: u64) -> String {
    let key = SigningKey::from_seed(&[(number % 200) as u8 + 1; 32]);
    serde_json::json!({ "keys": [key.public_jwk()] }).to_string()
}

/// The entry at a position, of a kind that is given. The log begins with keys and plans.
fn entry(position: u64, kind: u8) -> FeedEntry {
    let cutoff = |until| Cutoff {
        dimension: Dimension::Session,
        issuer: None,
        value: format!("s_{}", position % 700),
        issued_before: None,
        until,
    };
    let change = match (position, kind % 8) {
        (1, _) | (3.., 6) => FeedEntryChange::Keys(jwks(position)),
        (2, _) => FeedEntryChange::Plans(Plan::defaults()),
        (_, 7) => FeedEntryChange::Cutoff(cutoff(LATER.plus(position))),
        (_, _) => {
            let index = StatusIndex((position as u32).wrapping_mul(0x9e37_79b9) >> 6);
            FeedEntryChange::Index { index, expires_at: LATER.plus(u64::from(index.block())) }
        }
    };
    // Written up to some seconds before it is committed, and seconds are whole.
    FeedEntry { position: Position(position), created_at: UnixSeconds(START + position / 50), change }
}

/// When the entry at a position is committed, in milliseconds: never before it is written.
fn committed_at(position: u64) -> u64 {
    (START + position / 50) * 1000 + 1_000 + (position % 50)
}

/// A log that keeps everything, and a history of it.
struct Model {
    log: Vec<FeedEntry>,
    history: History,
    key: SigningKey,
}

impl Model {
    fn new(entries_max: u64) -> Self {
        let history = History::new(EPOCH, entries_max);
        Self { log: Vec::new(), history, key: SigningKey::from_seed(&[3; 32]) }
    }

    fn commit(&mut self, kinds: &[u8]) {
        for kind in kinds {
            self.log.push(entry(self.log.len() as u64 + 1, *kind));
        }
    }

    /// Looks at the log at the instant of its last commit, up to so many entries at once.
    fn look(&mut self, page: usize) {
        let began_at = UnixMillis(committed_at(self.log.len() as u64));
        loop {
            // From the head on, as the log is read: that the head is there again is how it is known to be the same log.
            let from = self.history.head().0.saturating_sub(1) as usize;
            let found: Vec<_> = self.log[from..].iter().take(page).cloned().collect();
            let is_last = found.len() < page;
            assert!(self.history.is_continued_by(found.first()));
            self.history.append(found, UnixSeconds(START));
            if is_last {
                break;
            }
        }
        self.history.looked(began_at);
    }

    /// What is in force at a position, by the log alone.
    fn at(&self, position: Position) -> (RevocationSet, Option<&str>) {
        let mut set = RevocationSet::default();
        let mut keys = None;
        for entry in &self.log[..position.0 as usize] {
            match &entry.change {
                FeedEntryChange::Index { index, expires_at } => {
                    set.indices.extend([*index]);
                    let expiry = BlockExpiry { block: index.block(), expires_at: *expires_at };
                    set.indices.learn_expiries([expiry]);
                }
                FeedEntryChange::Cutoff(cutoff) => set.cutoffs.insert(cutoff.clone()),
                FeedEntryChange::Keys(told) => keys = Some(told.as_str()),
                FeedEntryChange::Plans(_) | FeedEntryChange::Reuse => {}
            }
        }
        (set, keys)
    }

    fn is_honest(&self, message: &FeedMessage) -> bool {
        let next = message.to.0 + 1;
        next > self.log.len() as u64 || message.as_of.0 <= committed_at(next)
    }

    fn take(&self, state: &mut Option<FeedState>, body: &[u8]) -> FeedMessage {
        let anchor = TrustAnchor::new(&self.key.public_bytes()).unwrap();
        let message = apply_body(&anchor, body, state, UnixSeconds(START)).unwrap();
        assert!(self.is_honest(&message), "{:?} at {:?}", message.as_of, message.to);
        let state = state.as_ref().unwrap();
        let (set, keys) = self.at(state.position);
        assert_eq!(state.revoked, set, "at {:?}", state.position);
        let (known, _) = KeySet::from_jwks(keys.unwrap().as_bytes()).unwrap();
        assert_eq!(format!("{:?}", state.keys), format!("{known:?}"));
        message
    }

    fn snapshot(&self) -> Vec<u8> {
        let Whole { place, revoked, keys, plans } = self.history.whole().unwrap();
        let snapshot =
            Snapshot { place, head: place.position, revoked: &revoked, keys: &keys, plans: &plans };
        seal_snapshot(snapshot, &self.key).unwrap().0
    }
}

/// What is done to the log, its history and the edge.
#[derive(Debug, Clone)]
enum Step {
    Commit(Vec<u8>),
    Look(usize),
    /// Asks for what is new, up to so many positions on.
    Delta(Option<u64>),
    Segment,
    Snapshot,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => prop::collection::vec(any::<u8>(), 1..900).prop_map(Step::Commit),
        2 => (2..600_usize).prop_map(Step::Look),
        4 => prop::option::of(0..1500_u64).prop_map(Step::Delta),
        2 => Just(Step::Segment),
        1 => Just(Step::Snapshot),
    ];
    prop::collection::vec(step, 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn every_chain_of_messages_leads_to_what_the_log_has(steps in steps(), entries_max in 1..4_000_u64) {
        let mut model = Model::new(entries_max);
        model.commit(&[0, 0]);
        model.look(100);
        let mut state = None;
        model.take(&mut state, &model.snapshot());
        let mut segments = std::collections::BTreeMap::new();
        for step in steps {
            let at = state.as_ref().unwrap().position;
            match step {
                Step::Commit(kinds) => model.commit(&kinds),
                Step::Look(page) => model.look(page),
                Step::Delta(further) => {
                    let until = further.map(|further| Position(at.0 + further));
                    let Some(message) = model.history.delta(at, until) else {
                        prop_assert!(model.history.head().0 - at.0 > entries_max);
                        continue;
                    };
                    prop_assert!(until.is_none_or(|until| message.to <= until));
                    prop_assert!(message.to.0 <= (at.0 / SEGMENT_POSITIONS + 1) * SEGMENT_POSITIONS);
                    prop_assert_eq!(message.head, model.history.head());
                    let told = model.take(&mut state, &seal(&message, &model.key).unwrap());
                    if told.to == told.head {
                        prop_assert_eq!(told.as_of, model.history.looked_at());
                    }
                }
                Step::Segment => {
                    let from = Position(at.0 / SEGMENT_POSITIONS * SEGMENT_POSITIONS);
                    let Some(message) = model.history.segment(from) else { continue };
                    prop_assert!(model.is_honest(&message));
                    prop_assert_eq!(message.to, message.head);
                    let bytes = seal(&message, &model.key).unwrap();
                    if from == at {
                        model.take(&mut state, &bytes);
                    }
                    prop_assert_eq!(segments.entry(from).or_insert_with(|| bytes.clone()), &bytes);
                }
                Step::Snapshot => {
                    model.take(&mut state, &model.snapshot());
                }
            }
        }
        // A replica that starts now tells the same segments, those that it tells.
        let mut other = Model::new(entries_max);
        other.log.clone_from(&model.log);
        other.look(333);
        for (from, bytes) in segments {
            if let Some(message) = other.history.segment(from) {
                prop_assert_eq!(&seal(&message, &other.key).unwrap(), &bytes);
            }
        }
    }
}

fn filled(entries: u64, entries_max: u64) -> Model {
    let mut model = Model::new(entries_max);
    model.commit(&vec![0; entries as usize]);
    model.look(4_096);
    model
}

#[test]
fn who_is_far_behind_takes_whole_segments_after_the_first_message() {
    let model = filled(5_000, 65_536);
    let mut ends = Vec::new();
    let mut at = Position(1_500);
    while at < Position(5_000) {
        at = model.history.delta(at, None).unwrap().to;
        ends.push(at.0);
    }
    assert_eq!(ends, [2_048, 3_072, 4_096, 5_000]);
    for from in [0, 1_024, 2_048, 3_072] {
        assert_eq!(model.history.segment(Position(from)).unwrap().to, Position(from + 1_024));
    }
    for from in [1, 1_025, 4_096, 5_120, u64::MAX, u64::MAX - 1_023] {
        assert_eq!(model.history.segment(Position(from)), None, "{from}");
    }
}

#[test]
fn a_delta_ends_where_it_is_to_end_and_says_where_the_head_is() {
    let model = filled(5_000, 65_536);
    for (after, until, to) in
        [(10, 10, 10), (10, 3, 10), (10, 11, 11), (10, 9_000, 1_024), (4_990, 9_000, 5_000)]
    {
        let message = model.history.delta(Position(after), Some(Position(until))).unwrap();
        assert_eq!((message.to, message.head), (Position(to), Position(5_000)), "{after} to {until}");
    }
    assert_eq!(model.history.delta(Position(5_001), None), None);
}

#[test]
fn a_message_that_is_short_of_the_head_is_as_old_as_its_last_entry() {
    let mut model = filled(1_000, 65_536);
    model.commit(&vec![0; 4_000]);
    model.look(4_096);
    let as_of =
        |after, until: u64| model.history.delta(Position(after), Some(Position(until))).unwrap().as_of;
    assert_eq!(as_of(4_500, 5_000).0, committed_at(5_000), "the look");
    assert_eq!(as_of(4_000, 4_050).0, (START + 4_050 / 50) * 1000, "when it was written");
    // That there was nothing beyond it was seen after it was written.
    assert_eq!(as_of(990, 1_000).0, committed_at(1_000));
    // Of a segment every replica says the same, whenever it looked.
    let segment = model.history.segment(Position(0)).unwrap();
    assert_eq!(segment.as_of.0, (START + 1_024 / 50) * 1000);
}

#[test]
fn who_is_before_a_gap_must_begin_anew() {
    let mut history = History::new(EPOCH, 65_536);
    let kept = [1, 2, 3, 7, 8, 9].map(|position| entry(position, 0));
    history.append(kept.to_vec(), UnixSeconds(START));
    for after in [0, 1, 3, 5] {
        assert_eq!(history.delta(Position(after), None), None, "{after}");
    }
    assert_eq!(history.delta(Position(6), None).unwrap().to, Position(9));
    assert_eq!(history.whole().unwrap().revoked.indices.len(), 4, "all that is there is in force");
}

#[test]
fn a_block_that_is_used_again_brings_nothing_back_and_is_told_to_nobody_before() {
    let mut history = History::new(EPOCH, 65_536);
    let index = |position, index, expires_at| FeedEntry {
        change: FeedEntryChange::Index { index: StatusIndex(index), expires_at: UnixSeconds(expires_at) },
        ..entry(position, 0)
    };
    let first = vec![entry(1, 0), entry(2, 0), index(3, 5, START + 100), index(4, 70_000, LATER.0)];
    history.append(first, UnixSeconds(START));
    let reused_at = UnixSeconds(START + 100 + 2 * RETENTION_SECONDS + 1);
    let reuse = FeedEntry { position: Position(5), created_at: reused_at, change: FeedEntryChange::Reuse };
    // In one reading with what it holds from then on, and with our clock behind.
    history.append(vec![reuse, index(6, 9, LATER.0)], UnixSeconds(START));
    let whole = history.whole().unwrap();
    let revoked: Vec<u32> = whole.revoked.indices.iter().map(|index| index.0).collect();
    assert_eq!(revoked, [9, 70_000]);
    assert_eq!(history.delta(Position(4), None), None);
    assert_eq!(history.delta(Position(5), None).unwrap().to, Position(6));
    assert_eq!(history.segment(Position(0)), None);
}

#[test]
fn a_list_is_left_alone_only_by_what_is_known_to_have_no_token_of_it() {
    let at =
        |position, change| FeedEntry { position: Position(position), created_at: UnixSeconds(START), change };
    let index = |list| {
        let index = StatusIndex::in_list(list, 9).unwrap();
        FeedEntryChange::Index { index, expires_at: LATER }
    };
    let keys = || FeedEntryChange::Keys(jwks(1));
    let mut history = History::new(EPOCH, 4);
    history.append(vec![at(1, keys()), at(2, index(1)), at(3, index(0)), at(4, keys())], UnixSeconds(START));
    let left = |history: &History, list, since| history.leaves_list(list, Position(since));
    assert!(left(&history, 0, 3) && left(&history, 1, 2) && left(&history, 7, 0));
    assert!(!left(&history, 0, 2) && !left(&history, 1, 1));
    history.append(vec![at(5, keys())], UnixSeconds(START));
    assert!(left(&history, 7, 1) && !left(&history, 7, 0), "what came first is not told any more");
    history.append(vec![at(6, FeedEntryChange::Reuse)], UnixSeconds(START));
    assert!(!left(&history, 7, 5) && left(&history, 7, 6), "a block has another meaning");
}

#[test]
fn a_log_that_was_set_back_is_another() {
    let mut model = filled(10, 65_536);
    assert!(model.history.is_continued_by(Some(&entry(10, 0))));
    assert!(model.history.is_continued_by(Some(&entry(12, 0))), "the last but one may be gone");
    assert!(!model.history.is_continued_by(None), "the last entry is never removed");
    assert!(!model.history.is_continued_by(Some(&entry(10, 7))), "another one in its place");
    model.history = History::new(EPOCH, 65_536);
    assert!(model.history.is_continued_by(None));
}

#[test]
fn what_expired_is_dropped_in_steps_and_not_while_somebody_writes_a_snapshot() {
    let mut history = History::new(EPOCH, 10);
    let cutoffs = (1..=3_000).map(|position| {
        let until = UnixSeconds(START + 10);
        let value = format!("s_{position}");
        let cutoff =
            Cutoff { dimension: Dimension::Session, issuer: None, value, issued_before: None, until };
        FeedEntry { change: FeedEntryChange::Cutoff(cutoff), ..entry(position, 0) }
    });
    let of_keys = [entry(1, 0), entry(2, 0)].into_iter();
    history.append(of_keys.chain(cutoffs.skip(2)).collect(), UnixSeconds(START));
    let count = |history: &History| Cutoffs::len(&history.whole().unwrap().revoked.cutoffs);
    assert_eq!(count(&history), 2_998);
    let over = UnixSeconds(START + 11 + RETENTION_SECONDS);
    let held = history.whole().unwrap();
    history.append(Vec::new(), over);
    assert_eq!(count(&history), 2_998);
    drop(held);
    // The look that read them had a look at the first 1024 already.
    for left in [1_974, 1_024, 0] {
        history.append(Vec::new(), over);
        assert_eq!(count(&history), left);
    }
    // What is over when it is read is not taken in at all.
    let mut late = History::new(EPOCH, 10);
    late.append(vec![entry(1, 0), entry(2, 0), entry(3, 7)], LATER.plus(1_000_000));
    assert!(late.whole().unwrap().revoked.cutoffs.is_empty());
}
