//! Which messages may replace which state, and that nothing else changes it.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::revocation::{BLOCK_INDICES, Dimension};
use crate::time::UnixSeconds;
use crate::token::SigningKey;
use crate::wire::feed::{FeedDecodeError, TrustAnchor, seal};

const EPOCH: Epoch = Epoch([7; 16]);
/// Our own date, later than all that these tests are about.
const TODAY: UnixSeconds = UnixSeconds(1_000_000);

fn jwks() -> String {
    serde_json::json!({ "keys": [SigningKey::from_seed(&[1; 32]).public_jwk()] }).to_string()
}

fn snapshot(to: u64, revoked: &[u32]) -> FeedMessage {
    FeedMessage {
        epoch: EPOCH,
        to: Position(to),
        as_of: UnixMillis(1_000_000 + to),
        change: FeedChange::Snapshot { revoked: revoked.iter().copied().map(StatusIndex).collect() },
        blocks: Vec::new(),
        cutoffs: Vec::new(),
        keys: Some(jwks()),
        plans: Some(Plan::defaults()),
    }
}

fn delta(from: u64, to: u64, revoked: &[u32]) -> FeedMessage {
    FeedMessage {
        change: FeedChange::Delta {
            from: Position(from),
            revoked: revoked.iter().copied().map(StatusIndex).collect(),
        },
        keys: None,
        plans: None,
        ..snapshot(to, &[])
    }
}

fn state_at(to: u64, revoked: &[u32]) -> Option<FeedState> {
    let mut state = None;
    FeedState::apply(&mut state, snapshot(to, revoked), TODAY).unwrap();
    state
}

fn revoked(state: &Option<FeedState>, index: u32) -> bool {
    state.as_ref().unwrap().revoked.indices.contains(StatusIndex(index))
}

#[test]
fn deltas_apply_in_sequence() {
    let mut state = state_at(5, &[1]);
    FeedState::apply(&mut state, delta(5, 7, &[2, 70_000]), TODAY).unwrap();
    FeedState::apply(&mut state, delta(7, 7, &[]), TODAY).unwrap();
    assert!(revoked(&state, 1) && revoked(&state, 2) && revoked(&state, 70_000) && !revoked(&state, 3));
    assert_eq!(state.unwrap().position, Position(7));
}

#[test]
fn what_does_not_follow_changes_nothing() {
    let other_epoch = FeedMessage { epoch: Epoch([8; 16]), ..delta(5, 6, &[9]) };
    let without_keys = FeedMessage { keys: None, ..snapshot(9, &[9]) };
    let bad_keys = FeedMessage { keys: Some("{\"keys\":[]}".to_owned()), ..delta(5, 6, &[9]) };
    let older_time = FeedMessage { as_of: UnixMillis(1), ..delta(5, 6, &[9]) };
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
        assert_eq!(FeedState::apply(&mut state, message, TODAY), Err(error));
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
    let ahead = FeedMessage { as_of: later, ..delta(5, 6, &[2]) };
    let behind = FeedMessage { as_of: before, ..delta(6, 7, &[3]) };
    let snapshot = FeedMessage { as_of: before, ..snapshot(7, &[1, 2, 3, 4]) };
    for message in [ahead, behind, snapshot.clone()] {
        FeedState::apply(&mut state, message, TODAY).unwrap();
        assert_eq!(state.as_ref().unwrap().as_of, later);
    }
    assert!(revoked(&state, 3) && revoked(&state, 4));
    let older = FeedMessage { as_of: UnixMillis(before.0 - 1), ..snapshot };
    assert_eq!(FeedState::apply(&mut state, older, TODAY), Err(ApplyError::Rollback));
}

#[test]
fn a_delta_without_a_state_is_a_gap() {
    let mut state = None;
    assert_eq!(FeedState::apply(&mut state, delta(0, 1, &[1]), TODAY), Err(ApplyError::Gap));
    assert!(state.is_none());
}

#[test]
fn a_new_epoch_comes_by_snapshot() {
    let mut state = state_at(50, &[1]);
    let restarted = FeedMessage { epoch: Epoch([8; 16]), as_of: UnixMillis(2_000_000), ..snapshot(2, &[3]) };
    FeedState::apply(&mut state, restarted, TODAY).unwrap();
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
    let mut first = snapshot(1, &[index]);
    (first.blocks, first.cutoffs) = (block(2000), vec![cutoff(2000)]);
    let mut state = None;
    FeedState::apply(&mut state, first, TODAY).unwrap();
    let at = |position, seconds: u64| FeedMessage {
        as_of: UnixMillis(seconds * 1000),
        ..delta(position, position, &[])
    };
    FeedState::apply(&mut state, at(1, 2000 + RETENTION_SECONDS), TODAY).unwrap();
    assert!(revoked(&state, index));
    assert_eq!(state.as_ref().unwrap().revoked.cutoffs.len(), 1);
    FeedState::apply(&mut state, at(1, 2001 + RETENTION_SECONDS), TODAY).unwrap();
    assert!(!revoked(&state, index));
    assert!(state.unwrap().revoked.cutoffs.is_empty());
}

#[test]
fn an_issuer_whose_clock_jumps_makes_nothing_expire_early() {
    let mut first = snapshot(1, &[3]);
    first.blocks = vec![BlockExpiry { block: 0, expires_at: UnixSeconds(2000) }];
    let mut state = None;
    FeedState::apply(&mut state, first, UnixSeconds(1500)).unwrap();
    let jumped = FeedMessage { as_of: UnixMillis(90_000_000), ..delta(1, 1, &[]) };
    FeedState::apply(&mut state, jumped, UnixSeconds(1501)).unwrap();
    assert!(revoked(&state, 3));
}

#[test]
fn a_message_survives_its_envelope_and_only_under_its_key() {
    let key = SigningKey::from_seed(&[3; 32]);
    let anchor = TrustAnchor::new(&key.public_bytes()).unwrap();
    let other = TrustAnchor::new(&SigningKey::from_seed(&[4; 32]).public_bytes()).unwrap();
    let mut message = delta(5, 7, &[2, 70_000]);
    message.blocks = vec![BlockExpiry { block: 1, expires_at: UnixSeconds(9) }];
    message.cutoffs = vec![Cutoff {
        dimension: Dimension::Key,
        issuer: Some("https://other".to_owned()),
        value: "k".to_owned(),
        issued_before: Some(UnixSeconds(8)),
        until: UnixSeconds(9),
    }];
    for message in [message, snapshot(9, &[1, 5, 1_000_000])] {
        let sealed = seal(&message, &key).unwrap();
        assert_eq!(anchor.open(&sealed), Ok(message));
        assert_eq!(other.open(&sealed), Err(FeedDecodeError::Signature));
    }
}

#[test]
fn no_byte_of_a_message_can_be_changed_and_none_left_out() {
    let key = SigningKey::from_seed(&[3; 32]);
    let anchor = TrustAnchor::new(&key.public_bytes()).unwrap();
    let sealed = seal(&delta(5, 7, &[2, 70_000]), &key).unwrap();
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
    let mut message = delta(1_000_000, 1_000_001, &[99_999_999]);
    message.blocks = vec![BlockExpiry { block: 1525, expires_at: UnixSeconds(1_800_000_000) }];
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
            let _ = FeedState::apply(&mut state, message, TODAY);
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
