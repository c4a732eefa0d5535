//! A snapshot in pieces is what it was made of, and nothing before its last piece is there.

use proptest::prelude::*;

use super::*;
use crate::revocation::{BLOCK_INDICES, Dimension, Epoch, Position};
use crate::time::UnixMillis;
use crate::token::SigningKey;
use crate::wire::feed::{
    BodyError, FeedDecodeError, MESSAGE_BYTES_MAX, Opened, Snapshot, TrustAnchor, apply_body, open_piece,
    seal, seal_snapshot,
};

const TODAY: UnixSeconds = UnixSeconds(1_000_000);

fn feed_key() -> (SigningKey, TrustAnchor) {
    let key = SigningKey::from_seed(&[3; 32]);
    let anchor = TrustAnchor::new(&key.public_bytes()).unwrap();
    (key, anchor)
}

fn body(set: &RevocationSet, position: u64) -> Vec<u8> {
    let (key, _) = feed_key();
    let place = Place { epoch: Epoch([7; 16]), position: Position(position), as_of: UnixMillis(5_000) };
    let keys = serde_json::json!({ "keys": [key.public_jwk()] }).to_string();
    let plans = Plan::defaults();
    let snapshot = Snapshot { place, head: Position(position), revoked: set, keys: &keys, plans: &plans };
    seal_snapshot(snapshot, &key).unwrap().0
}

fn cutoff(number: u32) -> Cutoff {
    Cutoff {
        dimension: Dimension::Session,
        issuer: None,
        value: format!("s_{number}"),
        issued_before: None,
        until: UnixSeconds(2_000_000),
    }
}

fn set_of(indices: impl IntoIterator<Item = u32>, cutoffs: u32) -> RevocationSet {
    let mut set = RevocationSet::default();
    set.indices.extend(indices.into_iter().map(StatusIndex));
    let blocks: Vec<u16> = set.indices.iter().map(StatusIndex::block).collect();
    set.indices.learn_expiries(
        blocks.into_iter().map(|block| BlockExpiry { block, expires_at: UnixSeconds(2_000_000) }),
    );
    (0..cutoffs).for_each(|number| set.cutoffs.insert(cutoff(number)));
    set
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_set_arrives_as_it_was(
        few in proptest::collection::vec(any::<u32>(), 0..200),
        runs in proptest::collection::vec((any::<u32>(), 1..40_000u32), 0..4),
        cutoffs in 0..600u32,
    ) {
        let run = |(start, count): (u32, u32)| start..start.saturating_add(count);
        let set = set_of(few.into_iter().chain(runs.into_iter().flat_map(run)), cutoffs);
        for piece in pieces(&set) {
            match piece {
                Piece::Indices { revoked, blocks } => {
                    prop_assert!(revoked.len() < PIECE_INDICES_MAX + BLOCK_INDICES as usize);
                    prop_assert!(blocks.len() <= PIECE_BLOCKS_MAX);
                }
                Piece::Cutoffs(cutoffs) => prop_assert!(cutoffs.len() <= PIECE_CUTOFFS_MAX),
            }
        }
        let mut state = None;
        apply_body(&feed_key().1, &body(&set, 4), &mut state, TODAY).unwrap();
        let state = state.unwrap();
        prop_assert_eq!(state.position, Position(4));
        prop_assert_eq!(state.revoked, set);
    }
}

#[test]
fn nothing_is_there_before_the_last_piece() {
    let (_, anchor) = feed_key();
    let set =
        set_of((0..3).flat_map(|block| (0..30_000).map(move |place| block * BLOCK_INDICES + place)), 300);
    let body = body(&set, 4);
    let opened = anchor.open(&body).unwrap();
    assert_eq!(anchor.open_envelope(opened.envelope).as_ref(), Ok(&opened.message));
    let mut rest = opened.pieces;
    let mut staging = Staging::begin(None, opened.message.clone()).unwrap();
    let mut taken = 0;
    while let Some((number, mark)) = staging.next_piece() {
        assert_eq!(number, taken);
        let unfinished = Staging::begin(None, opened.message.clone()).unwrap();
        assert_eq!(unfinished.finish(TODAY).unwrap_err(), ApplyError::Incomplete);
        let (piece, after) = rest.split_at(mark.size as usize);
        rest = after;
        staging.take_in(open_piece(&mark, piece).unwrap()).unwrap();
        taken += 1;
    }
    assert!(taken >= 4, "{taken} pieces");
    assert_eq!(staging.finish(TODAY).unwrap().revoked, set);
}

#[test]
fn a_piece_that_is_damaged_cut_or_another_one_is_refused() {
    let (_, anchor) = feed_key();
    let set =
        set_of((0..2).flat_map(|block| (0..20_000).map(move |place| block * BLOCK_INDICES + 2 * place)), 0);
    let body = body(&set, 4);
    let start = body.len() - anchor.open(&body).unwrap().pieces.len();
    let refused = |body: &[u8]| {
        let mut state = None;
        let error = apply_body(&anchor, body, &mut state, TODAY).unwrap_err();
        assert!(state.is_none());
        error
    };
    for place in (start..body.len()).step_by(97) {
        let mut damaged = body.clone();
        damaged[place] ^= 1 << (place % 8);
        assert_eq!(refused(&damaged), BodyError::Decode(FeedDecodeError::Digest), "byte {place}");
        assert_eq!(refused(&body[..place]), BodyError::Decode(FeedDecodeError::Pieces), "cut at {place}");
    }
    let longer = [body.as_slice(), &[0]].concat();
    assert_eq!(refused(&longer), BodyError::Decode(FeedDecodeError::Pieces));
    // The pieces of another snapshot, or in another order.
    let first = anchor.open(&body).unwrap();
    let FeedChange::Snapshot { pieces: marks } = first.message.change else { panic!("a snapshot") };
    let (one, two) = first.pieces.split_at(marks[0].size as usize);
    let swapped = [&body[..start], two, one].concat();
    assert_eq!(refused(&swapped), BodyError::Decode(FeedDecodeError::Digest));
}

#[test]
fn a_head_comes_alone_or_with_all_its_pieces_and_names_no_more_than_a_body_may_have() {
    let (key, anchor) = feed_key();
    let whole = body(&set_of(0..50_000, 0), 1);
    let Opened { message, envelope, pieces } = anchor.open(&whole).unwrap();
    assert_eq!(message.piece_bytes(), pieces.len() as u64);
    assert_eq!(anchor.open_start(envelope, envelope.len()), Ok((message.clone(), envelope)));
    assert_eq!(anchor.open(envelope), Err(FeedDecodeError::Pieces), "who asks for all of it gets all of it");
    assert_eq!(anchor.open_start(envelope, whole.len() - 1), Err(FeedDecodeError::Pieces));
    let marks = |size: u32| vec![PieceMark { size, digest: [0; 32] }; 2];
    let named = |size| {
        let change = FeedChange::Snapshot { pieces: marks(size) };
        let head = seal(&FeedMessage { change, ..message.clone() }, &key).unwrap();
        anchor.open_start(&head, head.len()).map(|(message, _)| message.piece_bytes())
    };
    let half = MESSAGE_BYTES_MAX as u32 / 2;
    assert_eq!(named(half - 1_000), Ok(u64::from(half - 1_000) * 2));
    assert_eq!(named(half), Err(FeedDecodeError::TooLong));
    assert_eq!(named(u32::MAX), Err(FeedDecodeError::TooLong));
}

#[test]
fn a_snapshot_with_more_than_an_edge_holds_is_refused() {
    let mut staging = {
        let body = body(&RevocationSet::default(), 1);
        Staging::begin(None, feed_key().1.open(&body).unwrap().message).unwrap()
    };
    let mut next = 0;
    loop {
        let count = PIECE_CUTOFFS_MAX as u32;
        let piece = Piece::Cutoffs((next..next + count).map(cutoff).collect());
        next += count;
        match staging.take_in(piece) {
            Ok(()) => assert!(next as usize <= CUTOFFS_MAX),
            Err(error) => {
                assert_eq!(error, ApplyError::TooLarge);
                assert!(next as usize > CUTOFFS_MAX);
                break;
            }
        }
    }
}
