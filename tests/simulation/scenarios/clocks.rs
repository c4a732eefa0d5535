//! What may happen to dates.

use tollgate_shared::revocation::CLOCK_ERROR_SECONDS;

use super::{Scene, Verdict, issue};
use crate::database::Order;
use crate::network::Cut;
use crate::process::HARD_SECONDS;
use crate::world::SKEW_MILLIS;

#[test]
fn an_edge_whose_date_jumps_while_it_is_cut_off_admits_nothing_longer() {
    for (seed, ahead) in [(31, -600_000), (32, 600_000)] {
        let mut scene = Scene::new(seed);
        let until = scene.world.now + 200_000;
        (0..2).for_each(|process| scene.cut(process, Cut::Silent, until));
        scene.revoke(scene.doomed);
        scene.world.processes.iter_mut().for_each(|process| process.date_ahead = ahead);
        scene.world.pass(HARD_SECONDS * 1000 + 2_000);
        assert!(scene.all_say(scene.good, Verdict::Unavailable));
        assert!(scene.all_say(scene.doomed, Verdict::Unavailable));
        scene.end();
    }
}

#[test]
fn an_issuer_whose_date_jumps_there_and_back_loses_nothing() {
    let mut scene = Scene::new(33);
    for ahead in [600_000, 0, -600_000, 300_000] {
        scene.world.set_issuer_date(ahead);
        let token = issue(&mut scene.world);
        scene.revoke(token);
        scene.world.pass(5_000);
        assert!(!scene.verdicts(token).contains(&Verdict::Admitted));
        assert!(!scene.verdicts(scene.good).contains(&Verdict::Revoked));
    }
    scene.revoke(scene.doomed);
    scene.end();
}

/// What was recorded.
enum Heard {
    Snapshot,
    /// And the answer to the poll after it, which said that there was no more.
    SnapshotAndProof,
}

/// Starts a process that hears nothing but what was recorded so many minutes ago, before a revocation; tells for how many
/// milliseconds it admits the token.
fn admitted_after_a_start_on_old_answers(seed: u64, minutes: u64, heard: Heard) -> u64 {
    let mut scene = Scene::new(seed);
    // More than a snapshot may be behind, so that the next one is new.
    scene.world.database.order(Order::RevokeMany(1_100), 0);
    scene.world.pass(1_000);
    scene.world.crash_process(0);
    scene.world.pass(6_000);
    let recorded = match heard {
        Heard::Snapshot => [scene.last_snapshot()].into(),
        Heard::SnapshotAndProof => scene.last_snapshot_and_its_proof(),
    };
    scene.doomed = issue(&mut scene.world);
    scene.revoke(scene.doomed);
    scene.world.now += minutes * 60_000 - 10_000;
    scene.replay(0..1, 600_000, recorded);
    scene.world.crash_process(0);
    let began = scene.world.now;
    let mut last = began;
    while scene.world.now < began + 3 * HARD_SECONDS * 1000 {
        scene.world.pass(100);
        if scene.world.processes[0].is_up() && scene.verdicts(scene.doomed)[..3].contains(&Verdict::Admitted)
        {
            last = scene.world.now;
        }
    }
    let most = CLOCK_ERROR_SECONDS * 1000 + SKEW_MILLIS + 3 * HARD_SECONDS;
    assert!(scene.world.seen.slack <= most, "{} ms of slack", scene.world.seen.slack);
    last - began
}

/// This is the allowance for a first message: nothing else tells an edge that has just started how late it is.
#[test]
fn a_process_that_first_hears_an_answer_of_minutes_ago_takes_it_for_new_for_the_hard_limit() {
    let millis = admitted_after_a_start_on_old_answers(34, 12, Heard::SnapshotAndProof);
    assert!((HARD_SECONDS * 1000 - 5_000..HARD_SECONDS * 1000 + 5_000).contains(&millis), "{millis} ms");
}

#[test]
fn a_process_that_first_hears_an_answer_older_than_clocks_may_differ_admits_nothing() {
    let minutes = CLOCK_ERROR_SECONDS / 60 + 2;
    assert_eq!(admitted_after_a_start_on_old_answers(35, minutes, Heard::SnapshotAndProof), 0);
}

#[test]
fn a_process_that_hears_a_snapshot_and_not_that_it_is_all_there_is_admits_nothing() {
    assert_eq!(admitted_after_a_start_on_old_answers(36, 12, Heard::Snapshot), 0);
}
