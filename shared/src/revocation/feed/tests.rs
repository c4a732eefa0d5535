//! Which messages may replace which state, and that nothing else changes it.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::revocation::{BLOCK_INDICES, Dimension};
use crate::time::UnixSeconds;
use crate::token::SigningKey;
use crate::wire::feed::{BodyError, FeedDecodeError, Snapshot, TrustAnchor, apply_body, seal, seal_snapshot};

const EPOCH: Epoch = Epoch([7; 16]);
/// Our own date, later than all that these tests are about.
const TODAY: UnixSeconds = UnixSeconds(1_000_000);

fn jwks() -> String {
    serde_json::json!({ "keys": [SigningKey::from_seed(&[1; 32]).public_jwk()] }).to_string()
}

/// What the issuer says next: a body under its key.
#[derive(Debug, Clone)]
enum Said {
    Snapshot { epoch: Epoch, to: u64, as_of: u64, set: RevocationSet },
    Message(Box<FeedMessage>),
}

impl Said {
    fn apply(self, state: &mut Option<FeedState>, today: UnixSeconds) -> Result<(), ApplyError> {
        let key = SigningKey::from_seed(&[3; 32]);
        let anchor = TrustAnchor::new(&key.public_bytes()).unwrap();
        let body = match self {
            Self::Message(message) => seal(&message, &key),
            Self::Snapshot { epoch, to, as_of, set } => {
                let (to, as_of) = (Position(to), UnixMillis(as_of));
                let place = Place { epoch, position: to, as_of };
                let (keys, plans) = (jwks(), Plan::defaults());
                seal_snapshot(Snapshot { place, head: to, revoked: &set, keys: &keys, plans: &plans }, &key)
                    .map(|(body, _)| body)
            }
        };
        match apply_body(&anchor, &body.unwrap(), state, today) {
            Ok(_) => Ok(()),
            Err(BodyError::Apply(error)) => Err(error),
            Err(BodyError::Decode(error)) => panic!("{error}"),
        }
    }
}

fn snapshot(to: u64, revoked: &[u32]) -> Said {
    let mut set = RevocationSet::default();
    set.indices.extend(revoked.iter().copied().map(StatusIndex));
    Said::Snapshot { epoch: EPOCH, to, as_of: 1_000_000 + to, set }
}

fn message(from: u64, to: u64, revoked: &[u32]) -> FeedMessage {
    let revoked = revoked.iter().copied().map(StatusIndex).collect();
    FeedMessage {
        epoch: EPOCH,
        to: Position(to),
        head: Position(to),
        as_of: UnixMillis(1_000_000 + to),
        change: FeedChange::Delta(Delta { from: Position(from), revoked, ..Delta::default() }),
        keys: None,
        plans: None,
    }
}

fn delta(from: u64, to: u64, revoked: &[u32]) -> Said {
    Said::Message(Box::new(message(from, to, revoked)))
}

fn said(message: FeedMessage) -> Said {
    Said::Message(Box::new(message))
}

fn state_at(to: u64, revoked: &[u32]) -> Option<FeedState> {
    let mut state = None;
    snapshot(to, revoked).apply(&mut state, TODAY).unwrap();
    state
}

fn revoked(state: &Option<FeedState>, index: u32) -> bool {
    state.as_ref().unwrap().revoked.indices.contains(StatusIndex(index))
}

#[test]
fn deltas_apply_in_sequence() {
    let mut state = state_at(5, &[1]);
    delta(5, 7, &[2, 70_000]).apply(&mut state, TODAY).unwrap();
    delta(7, 7, &[]).apply(&mut state, TODAY).unwrap();
    assert!(revoked(&state, 1) && revoked(&state, 2) && revoked(&state, 70_000) && !revoked(&state, 3));
    assert_eq!(state.unwrap().position, Position(7));
}

#[test]
fn what_does_not_follow_changes_nothing() {
    let other_epoch = said(FeedMessage { epoch: Epoch([8; 16]), ..message(5, 6, &[9]) });
    let pieces = FeedChange::Snapshot { pieces: Vec::new() };
    let without_keys = said(FeedMessage { change: pieces, ..message(9, 9, &[]) });
    let bad_keys = said(FeedMessage { keys: Some("{\"keys\":[]}".to_owned()), ..message(5, 6, &[9]) });
    let older_time = said(FeedMessage { as_of: UnixMillis(1), ..message(5, 5, &[9]) });
    for (message, error) in [
        (delta(6, 8, &[9]), ApplyError::Gap),
        (delta(4, 6, &[9]), ApplyError::Gap),
        (delta(3, 4, &[9]), ApplyError::Rollback),
        (delta(6, 5, &[9]), ApplyError::Incomplete),
        (other_epoch, ApplyError::EpochChanged),
        (snapshot(4, &[9]), ApplyError::Rollback),
        (without_keys, ApplyError::Incomplete),
        (bad_keys, ApplyError::Keys(KeySetError::Empty)),
        (older_time, ApplyError::Rollback),
    ] {
        let mut state = state_at(5, &[1]);
        assert_eq!(message.apply(&mut state, TODAY), Err(error));
        assert!(revoked(&state, 1) && !revoked(&state, 9));
        assert_eq!(state.as_ref().unwrap().position, Position(5));
        assert_eq!(state.unwrap().keys.len(), 1);
    }
}

#[test]
fn a_replica_whose_clock_is_behind_is_followed_and_makes_nothing_younger() {
    let mut state = state_at(5, &[1]);
    let before = state.as_ref().unwrap().as_of;
    let later = UnixMillis(before.0 + REPLICA_SKEW_MILLIS);
    let ahead = said(FeedMessage { as_of: later, ..message(5, 6, &[2]) });
    let behind = said(FeedMessage { as_of: before, ..message(6, 7, &[3]) });
    let Said::Snapshot { set, .. } = snapshot(7, &[1, 2, 3, 4]) else { panic!("a snapshot") };
    let snapshot = |as_of| Said::Snapshot { epoch: EPOCH, to: 7, as_of, set: set.clone() };
    for message in [ahead, behind, snapshot(before.0)] {
        message.apply(&mut state, TODAY).unwrap();
        assert_eq!(state.as_ref().unwrap().as_of, later);
    }
    assert!(revoked(&state, 3) && revoked(&state, 4));
    // However old: of this position it says the same, and its age makes nothing younger.
    snapshot(1).apply(&mut state, TODAY).unwrap();
    assert_eq!(state.as_ref().unwrap().as_of, later);
    let older = said(FeedMessage { as_of: UnixMillis(before.0 - 1), ..message(7, 7, &[]) });
    assert_eq!(older.apply(&mut state, TODAY), Err(ApplyError::Rollback));
}

#[test]
fn what_goes_on_from_here_is_followed_however_long_ago_it_was_written() {
    let mut state = state_at(5, &[1]);
    let before = state.as_ref().unwrap().as_of;
    said(FeedMessage { as_of: UnixMillis(1), ..message(5, 6, &[2]) }).apply(&mut state, TODAY).unwrap();
    assert!(revoked(&state, 2));
    assert_eq!(state.unwrap().as_of, before, "and makes nothing younger");
}

#[test]
fn a_delta_without_a_state_is_a_gap() {
    let mut state = None;
    assert_eq!(delta(0, 1, &[1]).apply(&mut state, TODAY), Err(ApplyError::Gap));
    assert!(state.is_none());
}

#[test]
fn a_new_epoch_comes_by_snapshot() {
    let mut state = state_at(50, &[1]);
    let Said::Snapshot { set, .. } = snapshot(2, &[3]) else { panic!("a snapshot") };
    let restarted = Said::Snapshot { epoch: Epoch([8; 16]), to: 2, as_of: 2_000_000, set };
    restarted.apply(&mut state, TODAY).unwrap();
    assert!(revoked(&state, 3) && !revoked(&state, 1));
}

#[test]
fn revocations_are_kept_until_their_tokens_are_long_expired() {
    let block = |expires_at| vec![BlockExpiry { block: 1, expires_at: UnixSeconds(expires_at) }];
    let cutoff = |until| Cutoff {
        dimension: Dimension::Subject,
        issuer: None,
        value: "u".to_owned(),
        issued_before: None,
        until: UnixSeconds(until),
    };
    let index = BLOCK_INDICES + 3;
    let mut set = RevocationSet::default();
    set.indices.extend([StatusIndex(index)]);
    set.indices.learn_expiries(block(2000));
    set.cutoffs.insert(cutoff(2000));
    let first = Said::Snapshot { epoch: EPOCH, to: 1, as_of: 1_000_001, set };
    let mut state = None;
    first.apply(&mut state, TODAY).unwrap();
    let at = |position, seconds: u64| {
        said(FeedMessage { as_of: UnixMillis(seconds * 1000), ..message(position, position, &[]) })
    };
    at(1, 2000 + RETENTION_SECONDS).apply(&mut state, TODAY).unwrap();
    assert!(revoked(&state, index));
    assert_eq!(state.as_ref().unwrap().revoked.cutoffs.len(), 1);
    at(1, 2001 + RETENTION_SECONDS).apply(&mut state, TODAY).unwrap();
    assert!(!revoked(&state, index));
    assert!(state.unwrap().revoked.cutoffs.is_empty());
}

#[test]
fn an_issuer_whose_clock_jumps_makes_nothing_expire_early() {
    let mut set = RevocationSet::default();
    set.indices.extend([StatusIndex(3)]);
    set.indices.learn_expiries([BlockExpiry { block: 0, expires_at: UnixSeconds(2000) }]);
    let first = Said::Snapshot { epoch: EPOCH, to: 1, as_of: 1_000_001, set };
    let mut state = None;
    first.apply(&mut state, UnixSeconds(1500)).unwrap();
    let jumped = said(FeedMessage { as_of: UnixMillis(90_000_000), ..message(1, 1, &[]) });
    jumped.apply(&mut state, UnixSeconds(1501)).unwrap();
    assert!(revoked(&state, 3));
}

#[test]
fn a_message_survives_its_envelope_and_only_under_its_key() {
    let key = SigningKey::from_seed(&[3; 32]);
    let anchor = TrustAnchor::new(&key.public_bytes()).unwrap();
    let other = TrustAnchor::new(&SigningKey::from_seed(&[4; 32]).public_bytes()).unwrap();
    let cutoff = Cutoff {
        dimension: Dimension::Key,
        issuer: Some("https://other".to_owned()),
        value: "k".to_owned(),
        issued_before: Some(UnixSeconds(8)),
        until: UnixSeconds(9),
    };
    let delta = Delta {
        from: Position(5),
        revoked: vec![StatusIndex(2), StatusIndex(70_000)],
        blocks: vec![BlockExpiry { block: 1, expires_at: UnixSeconds(9) }],
        cutoffs: vec![cutoff],
    };
    let delta = FeedMessage { change: FeedChange::Delta(delta), head: Position(9), ..message(5, 7, &[]) };
    let keys = FeedMessage { keys: Some(jwks()), plans: Some(Plan::defaults()), ..message(5, 7, &[1]) };
    for message in [delta, keys] {
        let sealed = seal(&message, &key).unwrap();
        assert_eq!(anchor.open(&sealed).map(|opened| opened.message), Ok(message));
        assert_eq!(other.open(&sealed), Err(FeedDecodeError::Signature));
    }
}

#[test]
fn no_byte_of_a_message_can_be_changed_and_none_left_out() {
    let key = SigningKey::from_seed(&[3; 32]);
    let anchor = TrustAnchor::new(&key.public_bytes()).unwrap();
    let sealed = seal(&message(5, 7, &[2, 70_000]), &key).unwrap();
    for place in 0..sealed.len() {
        assert!(anchor.open(&sealed[..place]).is_err(), "cut at {place}");
        for bit in 0..8 {
            let mut damaged = sealed.clone();
            damaged[place] ^= 1 << bit;
            assert!(anchor.open(&damaged).is_err(), "bit {bit} of byte {place}");
        }
    }
    assert!(anchor.open(&[sealed.as_slice(), &[0]].concat()).is_err());
}

#[test]
fn one_revocation_fits_in_300_bytes() {
    let blocks = vec![BlockExpiry { block: 1525, expires_at: UnixSeconds(1_800_000_000) }];
    let (from, revoked) = (Position(1_000_000), vec![StatusIndex(99_999_999)]);
    let change = FeedChange::Delta(Delta { from, revoked, blocks, cutoffs: Vec::new() });
    let message = FeedMessage { change, ..message(1_000_000, 1_000_001, &[]) };
    let size = seal(&message, &SigningKey::from_seed(&[3; 32])).unwrap().len();
    assert!(size <= 300, "{size} bytes");
}

proptest! {
    /// Any interleaving of true, repeated, skipped and old messages leaves a set that the issuer once had, at the position
    /// where it had it, and never one position lower than before.
    #[test]
    fn the_state_is_always_one_the_issuer_had(
        history in proptest::collection::vec(0..200_000u32, 1..40),
        offers in proptest::collection::vec((0..40usize, 0..40usize, any::<bool>()), 0..80),
    ) {
        let mut state = None;
        let mut highest = Position(0);
        for (one, two, whole) in offers {
            let (from, to) = (one.min(history.len()), two.min(history.len()));
            let sorted: BTreeSet<u32> = history[..to].iter().copied().collect();
            let message = if whole {
                snapshot(to as u64, &sorted.into_iter().collect::<Vec<_>>())
            } else {
                delta(from as u64, to as u64, history.get(from..to).unwrap_or_default())
            };
            let _ = message.apply(&mut state, TODAY);
            let Some(state) = &state else { continue };
            prop_assert!(state.position >= highest);
            highest = state.position;
            let had: BTreeSet<u32> = history[..state.position.0 as usize].iter().copied().collect();
            prop_assert_eq!(state.revoked.indices.len(), had.len() as u64);
            for index in had {
                prop_assert!(state.revoked.indices.contains(StatusIndex(index)));
            }
        }
    }
}
