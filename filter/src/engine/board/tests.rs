//! Records come back as they were written, and what is no record is none.

use proptest::prelude::*;
use tollgate_shared::revocation::{Epoch, Position};
use tollgate_shared::time::{Monotonic, UnixMillis};

use super::super::shared_data::LocalData;
use super::*;

fn head(deltas: u64, snapshot: Option<SnapshotRecord>, fresh: Vec<u8>) -> Head {
    Head {
        epoch: Epoch([9; 16]),
        position: Position(5),
        as_of: UnixMillis(7),
        known_end: Position(8),
        clock: (UnixMillis(10), Monotonic(11)),
        deltas,
        snapshots: 3,
        snapshot,
        is_proven: deltas.is_multiple_of(2),
        fresh,
    }
}

fn vm(id: u128, position: u64, since: u64, signed_in: u64) -> Vm {
    let (since, signed_in) = (Monotonic(since), Monotonic(signed_in));
    Vm { id, epoch: Epoch([9; 16]), position: Position(position), since, signed_in }
}

proptest! {
    #[test]
    fn a_head_comes_back_as_it_was(deltas: u64, snapshot in proptest::option::of((any::<u64>(), any::<u32>(), any::<u64>())), fresh: Vec<u8>) {
        let snapshot = snapshot.map(|(number, pieces, deltas)| SnapshotRecord { number, pieces, position: Position(4), deltas });
        let head = head(deltas, snapshot, fresh);
        prop_assert_eq!(Head::decode(&head.encode()), Some(head));
    }

    /// Whatever another version of this module left there.
    #[test]
    fn any_bytes_are_a_record_or_none(bytes: Vec<u8>) {
        let _ = (Lease::decode(&bytes), Head::decode(&bytes), KeyRecord::decode(&bytes), Vms::decode(&bytes));
        let board = Board::new(LocalData::default(), String::new());
        for name in ["lease", "head", "wants", "keys.0", "vms", "instance", "delta.0", "snapshot", "piece.0"] {
            board.write(name, &bytes, None).unwrap();
        }
        let _ = (board.lease(), board.head(), board.delta(0), board.vms(), board.instance(5));
        board.want(Want::Poll);
        board.sign_in(vm(1, 2, 3, 4));
        prop_assert!(board.take_want(Want::Poll));
        prop_assert!(board.vms().0.contains(&vm(1, 2, 3, 4)));
    }
}

#[test]
fn the_position_that_all_enforce_is_the_lowest_and_since_its_last_came_to_it() {
    let board = Board::new(LocalData::default(), String::new());
    assert_eq!(board.vms().enforced(Epoch([9; 16])), None);
    for (id, position, since) in [(1, 12, 100), (2, 11, 90), (3, 11, 95)] {
        board.sign_in(vm(id, position, since, 100));
    }
    assert_eq!(board.vms().enforced(Epoch([9; 16])), Some((Position(11), Monotonic(95))));
    assert_eq!(board.vms().enforced(Epoch([8; 16])), None);
    // Without a state.
    board.sign_in(Vm { epoch: Epoch::default(), ..vm(4, 0, 0, 100) });
    assert_eq!(board.vms().enforced(Epoch([9; 16])), None);
    // Gone.
    board.sign_in(vm(1, 12, 100, 3_100));
    assert_eq!(board.vms().enforced(Epoch([9; 16])), Some((Position(12), Monotonic(100))));
}

#[test]
fn more_vms_than_are_known_enforce_nothing_for_sure() {
    let board = Board::new(LocalData::default(), String::new());
    for id in 1..=VMS_MAX as u128 + 1 {
        board.sign_in(vm(id, 1, 1, 1));
    }
    assert_eq!(board.vms().0.len(), VMS_MAX);
    assert_eq!(board.vms().enforced(Epoch([9; 16])), None);
}

#[test]
fn each_want_is_taken_once_and_no_other_with_it() {
    let board = Board::new(LocalData::default(), String::new());
    let all = [Want::Snapshot, Want::Poll, Want::Keys(0), Want::Keys(15)];
    all.into_iter().for_each(|want| board.want(want));
    for want in all {
        assert!(board.take_want(want) && !board.take_want(want), "{want:?}");
    }
}

#[test]
fn an_instance_has_one_name_whoever_asks() {
    let board = Board::new(LocalData::default(), String::new());
    assert_eq!((board.instance(5), board.instance(6)), (5, 5));
}
