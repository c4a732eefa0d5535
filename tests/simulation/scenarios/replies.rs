//! What may happen to single calls.

use super::{ALWAYS, OFTEN, Scene, Verdict};
use crate::database::Order;
use crate::network::{Cut, Fault};
use crate::process::HARD_SECONDS;

/// A minute and a half in which nothing new can be known.
fn nothing_is_known_any_more(mut scene: Scene) {
    let (good, doomed) = (scene.good, scene.doomed);
    for token in [good, doomed] {
        assert!(scene.all_say(token, Verdict::Unavailable), "{:?}", scene.verdicts(token));
    }
    scene.end();
}

#[test]
fn while_requests_are_lost_nothing_is_admitted_beyond_the_hard_limit() {
    nothing_is_known_any_more(Scene::revoke_under(1, Fault::RequestDropped, ALWAYS));
}

#[test]
fn while_replies_are_lost_nothing_is_admitted_beyond_the_hard_limit() {
    nothing_is_known_any_more(Scene::revoke_under(2, Fault::ReplyDropped, ALWAYS));
}

#[test]
fn while_the_issuer_answers_with_errors_nothing_is_admitted_beyond_the_hard_limit() {
    nothing_is_known_any_more(Scene::revoke_under(3, Fault::ServerError, ALWAYS));
}

#[test]
fn a_page_of_a_portal_is_no_answer() {
    nothing_is_known_any_more(Scene::revoke_under(4, Fault::Html, ALWAYS));
}

#[test]
fn an_answer_cut_at_any_byte_is_no_answer() {
    nothing_is_known_any_more(Scene::revoke_under(5, Fault::Truncated, ALWAYS));
}

#[test]
fn an_answer_with_a_bit_flipped_is_no_answer() {
    nothing_is_known_any_more(Scene::revoke_under(6, Fault::Flipped, ALWAYS));
}

/// Calls that go into silence get more time each, and must not get so much that the end of the silence goes unnoticed.
#[test]
fn a_silence_that_ends_before_the_hard_limit_costs_no_request() {
    let mut scene = Scene::new(11);
    let ends_at = scene.world.now + 40_000;
    (0..2).for_each(|process| scene.cut(process, Cut::Silent, ends_at));
    scene.revoke(scene.doomed);
    while scene.world.now < ends_at + HARD_SECONDS * 1000 {
        scene.world.pass(100);
        let good = scene.good;
        assert!(scene.all_say(good, Verdict::Admitted), "{:?}", scene.verdicts(good));
    }
    scene.end();
}

#[test]
fn answers_that_were_recorded_keep_no_state_fresh() {
    let mut scene = Scene::new(7);
    scene.revoke(scene.good);
    scene.good = super::issue(&mut scene.world);
    let recorded = scene.world.network.recorded.clone();
    scene.replay(0..2, 200_000, recorded);
    scene.revoke(scene.doomed);
    scene.world.pass(HARD_SECONDS * 1000 + 15_000);
    nothing_is_known_any_more(scene);
}

#[test]
fn however_often_an_old_answer_is_repeated_the_hard_limit_stays_what_it_is() {
    let mut scene = Scene::new(16);
    scene.world.database.order(Order::RevokeMany(1_100), 0);
    scene.world.pass(1_000);
    scene.world.network.recorded.clear();
    scene.world.crash_process(0);
    while !scene.world.network.recorded.iter().any(|answer| answer.is_snapshot) {
        scene.world.step(10);
    }
    // A snapshot proves little, so that the next poll follows at once. One that is answered with the same is a failure: or
    // whoever records one answer has an edge poll without a pause.
    let recorded = [scene.last_snapshot()].into();
    scene.replay(0..1, 200_000, recorded);
    scene.revoke(scene.doomed);
    let before = scene.world.network.flown;
    for _ in 0..HARD_SECONDS * 100 + 500 {
        scene.world.step(10);
    }
    let calls = scene.world.network.flown - before;
    assert!((20..200).contains(&calls), "{calls} calls");
    scene.end();
}

#[test]
fn old_answers_among_the_true_ones_take_nothing_back() {
    Scene::revoke_under(8, Fault::Replayed, OFTEN).end();
}

#[test]
fn answers_that_are_late_lose_nothing() {
    Scene::revoke_under(9, Fault::Delayed, ALWAYS).end();
}

#[test]
fn an_answer_that_comes_again_for_the_next_call_loses_nothing() {
    Scene::revoke_under(10, Fault::Duplicated, ALWAYS).end();
}

#[test]
fn answers_that_change_places_lose_nothing() {
    Scene::revoke_under(11, Fault::Reordered, OFTEN).end();
}

#[test]
fn a_call_whose_end_is_never_told_is_given_up() {
    Scene::revoke_under(12, Fault::NeverReported, OFTEN).end();
}

#[test]
fn a_process_that_is_cut_off_admits_nothing_beyond_the_hard_limit_and_another_is_not_concerned() {
    for (seed, cut) in [(13, Cut::Silent), (14, Cut::Refused)] {
        let mut scene = Scene::new(seed);
        let until = scene.world.now + 200_000;
        scene.cut(0, cut, until);
        scene.revoke(scene.doomed);
        scene.world.pass(HARD_SECONDS * 1000 + 15_000);
        let verdicts = scene.verdicts(scene.doomed);
        let (cut_off, other) = verdicts.split_at(3);
        assert_eq!((cut_off, other), (&[Verdict::Unavailable; 3][..], &[Verdict::Revoked; 3][..]));
        scene.end();
    }
}

/// Found by the case of seed 184.
#[test]
fn a_snapshot_whose_piece_was_damaged_is_asked_for_again() {
    let mut scene = Scene::new(15);
    // More than a snapshot may be behind.
    scene.world.database.order(Order::RevokeMany(1_100), 0);
    scene.revoke(scene.doomed);
    scene.world.crash_process(0);
    scene.world.pass(4_000);
    let mut damaged = scene.last_snapshot();
    *damaged.body.last_mut().unwrap() ^= 1;
    scene.replay(0..1, 10_000, [damaged].into());
    scene.world.crash_process(0);
    scene.world.pass(9_000);
    let verdicts = scene.verdicts(scene.good);
    assert_eq!(verdicts[..3], [Verdict::Unavailable; 3], "it is of no use");
    scene.end();
}
