//! What may happen to programs and machines.

use super::{Scene, Verdict, issue};
use crate::database::Order;
use crate::network::{Cut, Fault};
use crate::process::HARD_SECONDS;
use crate::world::REPLICAS;

#[test]
fn a_replica_that_dies_takes_nothing_with_it_that_was_acknowledged() {
    let mut scene = Scene::new(21);
    for round in 0..6 {
        let token = issue(&mut scene.world);
        scene.world.database.order(Order::RevokeToken(token), round % REPLICAS);
        // Before, during or after the commit.
        scene.world.pass(10 * round as u64);
        scene.world.stop_replica(round % REPLICAS, false);
        scene.world.pass(500);
        scene.world.start_replica(round % REPLICAS);
    }
    scene.revoke(scene.doomed);
    scene.end();
}

#[test]
fn of_revocations_that_are_written_at_once_none_is_passed_over() {
    let mut scene = Scene::new(29);
    for round in 0..20 {
        let tokens = [(); 3].map(|()| issue(&mut scene.world));
        for (place, token) in tokens.into_iter().enumerate() {
            scene.world.database.order(Order::RevokeToken(token), (round + place) % REPLICAS);
        }
        scene.world.pass(4_000);
        for token in tokens {
            assert!(scene.all_say(token, Verdict::Revoked), "round {round}: {:?}", scene.verdicts(token));
        }
    }
    scene.revoke(scene.doomed);
    scene.end();
}

#[test]
fn without_any_replica_nothing_is_admitted_beyond_the_hard_limit() {
    let mut scene = Scene::new(22);
    scene.revoke(scene.doomed);
    scene.only(Fault::ReplicaCrashed, super::ALWAYS);
    scene.world.pass(HARD_SECONDS * 1000 + 30_000);
    assert!(scene.all_say(scene.good, Verdict::Unavailable));
    scene.end();
}

#[test]
fn while_the_database_is_away_states_grow_old_and_afterwards_they_are_young() {
    let mut scene = Scene::new(23);
    scene.revoke(scene.doomed);
    scene.only(Fault::DatabaseAway, super::ALWAYS);
    scene.world.pass(HARD_SECONDS * 1000 + 30_000);
    assert!(scene.all_say(scene.good, Verdict::Unavailable));
    scene.end();
}

#[test]
fn a_process_that_starts_anew_admits_nothing_that_was_revoked_meanwhile() {
    let mut scene = Scene::new(24);
    scene.world.crash_process(0);
    scene.revoke(scene.doomed);
    while !scene.world.processes[0].is_up() {
        scene.world.pass(10);
    }
    for _ in 0..300 {
        scene.world.pass(10);
        let verdicts = scene.verdicts(scene.doomed);
        assert!(!verdicts[..3].contains(&Verdict::Admitted), "{verdicts:?}");
    }
    scene.end();
}

#[test]
fn a_vm_that_is_replaced_admits_nothing_that_its_process_knew_to_be_revoked() {
    let mut scene = Scene::new(25);
    scene.revoke(scene.doomed);
    scene.world.pass(1_000);
    for round in 0..9 {
        scene.world.database.order(Order::RevokeMany(200), round % REPLICAS);
        scene.world.replace_vm(0, round % 3);
        for _ in 0..40 {
            scene.world.pass(20);
            let verdicts = scene.verdicts(scene.doomed);
            assert!(!verdicts.contains(&Verdict::Admitted), "{verdicts:?}");
        }
    }
    scene.end();
}

#[test]
fn who_stood_still_for_long_admits_nothing_before_it_has_heard() {
    let mut scene = Scene::new(26);
    scene.revoke(scene.doomed);
    for process in &mut scene.world.processes {
        process.date_ahead = -600_000;
    }
    scene.world.now += 10 * 60_000;
    assert!(scene.all_say(scene.good, Verdict::Unavailable));
    assert!(scene.all_say(scene.doomed, Verdict::Unavailable));
    scene.end();
}

#[test]
fn who_is_far_behind_takes_segments_and_misses_nothing() {
    let mut scene = Scene::new(27);
    scene.only(Fault::RequestDropped, super::ALWAYS);
    scene.revoke(scene.doomed);
    scene.world.database.order(Order::RevokeMany(4_500), 1);
    scene.world.pass(20_000);
    scene.world.expect_calm();
    let segments: u64 = scene.world.replicas.iter().flatten().map(|replica| replica.told.segments).sum();
    assert!(segments >= 4, "{segments} segments");
    scene.end();
}

#[test]
fn an_index_that_is_in_use_again_revokes_nobody_who_has_it_now() {
    let mut scene = Scene::new(28);
    let mut given: Vec<_> = scene.world.tokens.all.iter().filter_map(|token| token.index).collect();
    let mut again = 0;
    for _ in 0..40 {
        let token = issue(&mut scene.world);
        let index = scene.world.tokens.all[token].index.unwrap();
        again += usize::from(given.contains(&index));
        given.push(index);
        assert!(!scene.verdicts(token).contains(&Verdict::Revoked));
        scene.revoke(token);
        scene.world.pass(1_000);
        scene.world.now += 9 * 60_000;
        scene.world.pass(4_000);
    }
    assert!(again > 3, "{again} indices came again");
}

#[test]
fn who_was_away_while_indices_came_into_use_again_refuses_nobody_for_those_of_before() {
    let mut scene = Scene::new(30);
    let before = 0..scene.world.tokens.all.len();
    let indices: Vec<_> = scene.world.tokens.all.iter().filter_map(|token| token.index).collect();
    for token in before {
        scene.revoke(token);
    }
    scene.world.pass(1_000);
    scene.cut(0, Cut::Silent, u64::MAX);
    // Until one of them is given again.
    let again = loop {
        scene.world.now += 9 * 60_000;
        let token = issue(&mut scene.world);
        if scene.world.tokens.all[token].index.is_some_and(|index| indices.contains(&index)) {
            break token;
        }
        assert!(scene.world.now < 12 * 3_600_000, "no index comes again");
    };
    // Something of the same block is revoked, so that its new end is told.
    scene.world.database.order(Order::RevokeMany(200), 0);
    scene.world.pass(1_000);
    scene.world.expect_calm();
    assert!(!scene.verdicts(again).contains(&Verdict::Revoked), "{:?}", scene.verdicts(again));
}
