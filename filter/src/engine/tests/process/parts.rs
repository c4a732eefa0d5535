//! Snapshots that are so large that they are taken in parts.

use super::*;

const BYTES: usize = 40_000;

/// A process whose issuer has revoked a hundred thousand, which are some parts.
fn large(vms: usize) -> Process {
    let mut process = Process::new(vms);
    process.issuer.part_bytes = BYTES;
    process.revoke((0..100_000u32).map(|number| number.wrapping_mul(2_654_435_769) % 100_000_000));
    process
}

/// Such a process whose board has no snapshot that could be begun with any more.
fn long_after_the_snapshot() -> Process {
    let mut process = large(3);
    process.pass(1_000);
    for index in 0..2 * board::RING as u32 {
        process.revoke([50_000_000 + index]);
        process.pass(10);
    }
    process
}

/// Lets time pass until so many parts were given.
fn until_parts(process: &mut Process, count: usize) {
    for _ in 0..1_000 {
        if process.issuer.parts >= count {
            return;
        }
        process.pass(5);
    }
    panic!("{} parts after five seconds", process.issuer.parts);
}

#[test]
fn a_large_snapshot_comes_in_parts_and_is_used_when_all_are_there() {
    let mut process = large(3);
    until_parts(&mut process, 2);
    assert_eq!(process.positions(), [None; 3]);
    process.pass(1_000);
    assert!(process.all_have_it(), "{:?}", process.positions());
    assert_eq!((process.issuer.snapshots, process.polls_held()), (1, 1));
    assert!(process.issuer.parts >= 4, "{} parts", process.issuer.parts);
    assert!(process.issuer.largest < 2 * BYTES, "{} bytes at once", process.issuer.largest);
}

#[test]
fn a_part_that_one_replica_does_not_have_is_had_from_another() {
    let mut process = large(2);
    process.issuer.replicas = 3;
    process.pass(3_000);
    assert!(process.all_have_it(), "{:?}", process.positions());
    assert_eq!(process.issuer.snapshots, 1);
    assert!(process.issuer.parts >= 4, "{} parts", process.issuer.parts);
}

#[test]
fn what_no_replica_has_parts_of_is_asked_for_whole_in_the_end() {
    let mut process = large(2);
    process.issuer.keeps = false;
    process.pass(3_000);
    assert!(process.all_have_it(), "{:?}", process.positions());
    assert_eq!((process.issuer.snapshots, process.issuer.parts), (2, 0));
    // And the next one in parts again.
    process.issuer.keeps = true;
    process.issuer.epoch = Epoch([2; 16]);
    process.pass(40_000);
    assert!(process.all_have_it(), "{:?}", process.positions());
    assert!(process.issuer.parts >= 4, "{} parts", process.issuer.parts);
}

#[test]
fn who_takes_over_between_two_parts_begins_anew() {
    let mut process = large(3);
    process.rate = 200;
    until_parts(&mut process, 2);
    let leader = process.vms.iter().find(|(_, engine)| engine.leads()).map(|(vm, _)| *vm);
    process.kill(leader.unwrap());
    process.pass(4_000);
    assert!(process.all_have_it(), "{:?}", process.positions());
    assert_eq!(process.issuer.snapshots, 2);
}

#[test]
fn the_others_follow_on_while_one_that_comes_later_gets_its_snapshot_in_parts() {
    let mut process = long_after_the_snapshot();
    // Each part is a piece and takes two seconds and a half.
    (process.rate, process.issuer.part_bytes) = (10, 1);
    process.start(0);
    let (first, mut followed) = (process.issuer.parts, 0);
    // Also in the very moment in which it is asked for, so that the snapshot has more than the board.
    while process.issuer.parts == first {
        process.revoke([70_000_000 + process.millis as u32]);
        process.pass(5);
    }
    while process.vms[&0].position().is_none() {
        process.revoke([60_000_000 + followed]);
        // A poll to where the snapshot leads, and one beyond, each after the part that is on its way.
        process.pass(6_000);
        followed += 1;
        let end = Some(process.issuer.log.len() as u64);
        assert_eq!([process.vms[&1].position(), process.vms[&2].position()], [end; 2], "after {followed}");
        assert!(followed < 30, "it never comes");
    }
    assert!(followed > 1, "there was little to follow: {followed}");
    process.pass(1_000);
    assert!(process.all_have_it(), "{:?}", process.positions());
    assert_eq!(process.issuer.snapshots, 2);
    assert!(!process.issuer.went_back, "the board went back to where the snapshot leads");
}

#[test]
fn another_history_is_begun_with_although_a_snapshot_of_it_comes_slowly_for_one_that_came_later() {
    let mut process = long_after_the_snapshot();
    process.rate = BYTES / 2_000;
    process.start(0);
    let first = process.issuer.parts;
    until_parts(&mut process, first + 1);
    process.issuer.epoch = Epoch([2; 16]);
    process.pass(40_000);
    assert!(process.all_have_it(), "{:?}", process.positions());
}

/// Whatever is too slow for the time that a call gets is given more.
#[test]
fn over_a_slow_link_a_large_snapshot_comes_in_the_end() {
    // Of these, one whose parts are too large at first, and that could never be had whole; one that is never given in parts; and one
    // whose parts nobody has.
    for (rate, part_bytes, keeps) in
        [(10, BYTES, true), (2, BYTES, true), (10, usize::MAX, true), (10, BYTES, false)]
    {
        let mut process = large(2);
        (process.rate, process.issuer.part_bytes, process.issuer.keeps) = (rate, part_bytes, keeps);
        process.pass(400_000);
        assert!(
            process.all_have_it(),
            "{rate} bytes in a millisecond, parts of {part_bytes} {keeps}: {:?}",
            process.positions()
        );
        // And when there is another history, which is told to who polls.
        process.issuer.epoch = Epoch([2; 16]);
        process.pass(400_000);
        assert!(
            process.all_have_it(),
            "{rate} bytes in a millisecond, parts of {part_bytes} {keeps}: {:?}",
            process.positions()
        );
    }
}

#[test]
fn of_a_snapshot_that_was_given_up_nothing_stays_on_the_board() {
    let mut process = large(2);
    process.rate = 100;
    until_parts(&mut process, 3);
    assert!(process.data.bytes() > 2 * BYTES);
    (process.issuer.keeps, process.issuer.epoch) = (false, Epoch([2; 16]));
    process.issuer.log.truncate(10);
    process.pass(3_000);
    assert!(process.all_have_it(), "{:?}", process.positions());
    assert!(process.data.bytes() < 10_000, "{} bytes", process.data.bytes());
}

#[test]
fn a_damaged_part_is_never_used() {
    let mut process = large(2);
    process.issuer.damages = true;
    process.pass(4_000);
    assert!(process.all_have_it(), "{:?}", process.positions());
    assert!(process.issuer.snapshots >= 2);
}

#[test]
fn a_part_with_more_or_less_than_whole_pieces_is_refused() {
    for change in
        [|part: &mut Vec<u8>| part.push(0), |part: &mut Vec<u8>| part.truncate(part.len() - 1), Vec::clear]
    {
        let mut process = large(1);
        process.issuer.spoils = Some(change);
        process.pass(4_000);
        // Not in parts, but whole.
        assert!(process.all_have_it(), "{:?}", process.positions());
        assert_eq!((process.issuer.snapshots, process.issuer.parts), (3, 2));
    }
}
