use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const LADDER: Ladder = Ladder {
    free: 5,
    first_ms: 1000,
    max_ms: 900_000,
    failures_max: 100,
    lock_ms: 86_400_000,
    memory_ms: 86_400_000,
};

fn climb(ladder: Ladder, record: &mut Option<Failures>, step: Step, now: u64) -> Rung {
    let (rung, next) = ladder.step(*record, step, now);
    *record = next;
    rung
}

#[test]
fn the_delay_doubles_from_the_fifth_failure_to_its_maximum_and_the_hundredth_locks() {
    let delays = |failures: &[u64]| -> Vec<u64> { failures.iter().map(|n| LADDER.delay_ms(*n)).collect() };
    assert_eq!(delays(&[1, 2, 3, 4]), [0, 0, 0, 0]);
    assert_eq!(delays(&[5, 6, 7, 8, 14]), [1000, 2000, 4000, 8000, 512_000]);
    assert_eq!(delays(&[15, 16, 80, 99]), [900_000; 4]);
    assert_eq!(delays(&[100, 101]), [86_400_000; 2]);
}

#[test]
fn no_more_than_a_hundred_guesses_fit_before_the_lock_and_then_it_starts_anew() {
    let (mut record, mut now, mut guesses) = (None, 0, 0);
    loop {
        match climb(LADDER, &mut record, Step::Attempt, now) {
            Rung::Free(_) => guesses += 1,
            Rung::Delayed(LOCK) => break,
            Rung::Delayed(millis) => now += millis,
        }
    }
    assert_eq!(guesses, 100);
    // Five at once, then 1, 2, 4 … 512 s, then 15 minutes each: the last of them after 21 and a half hours.
    assert_eq!(now, 77_523_000);
    assert_eq!(climb(LADDER, &mut record, Step::Look, now + LOCK - 1), Rung::Delayed(1));
    assert_eq!(climb(LADDER, &mut record, Step::Attempt, now + LOCK), Rung::Free(now + LOCK));
    const LOCK: u64 = LADDER.lock_ms;
}

#[test]
fn attempts_at_the_same_time_are_not_more_guesses() {
    let mut record = None;
    let rungs: Vec<Rung> = (0..50).map(|_| climb(LADDER, &mut record, Step::Attempt, 7)).collect();
    assert_eq!(rungs.iter().filter(|rung| matches!(rung, Rung::Free(_))).count(), 5);
    assert_eq!(rungs[5], Rung::Delayed(1000));
}

#[test]
fn waiting_does_not_make_failures_forgotten_before_a_day() {
    let mut record = None;
    for n in 0..5 {
        climb(LADDER, &mut record, Step::Attempt, n * 3_600_000);
    }
    assert_eq!(climb(LADDER, &mut record, Step::Look, 4 * 3_600_000), Rung::Delayed(1000));
    let mut forgotten = record;
    let day_after = 4 * 3_600_000 + LADDER.memory_ms;
    assert_eq!(climb(LADDER, &mut forgotten, Step::Attempt, day_after), Rung::Free(day_after));
    let before = day_after - 1;
    assert_eq!(climb(LADDER, &mut record, Step::Attempt, before), Rung::Free(before + 2000));
}

#[test]
fn a_refund_takes_one_attempt_back_and_its_delay_with_it() {
    let mut record = None;
    for _ in 0..4 {
        climb(LADDER, &mut record, Step::Attempt, 0);
    }
    let Rung::Free(given) = climb(LADDER, &mut record, Step::Attempt, 0) else { panic!("was free") };
    assert_eq!(climb(LADDER, &mut record, Step::Look, 0), Rung::Delayed(1000));
    climb(LADDER, &mut record, Step::Refund(given), 1);
    assert_eq!(climb(LADDER, &mut record, Step::Attempt, 1), Rung::Free(1001));
    // The delay that another attempt set stays.
    climb(LADDER, &mut record, Step::Refund(given), 2);
    assert_eq!(climb(LADDER, &mut record, Step::Look, 2), Rung::Delayed(999));
    for _ in 0..10 {
        climb(LADDER, &mut record, Step::Refund(0), 3);
    }
    assert_eq!(record, None);
}

#[test]
fn a_strike_counts_although_there_is_a_delay_and_never_shortens_it() {
    let ladder = Ladder { free: 1, ..LADDER };
    let mut record = None;
    for (now, delay) in [(0, 1000), (1, 2000), (2, 4000)] {
        climb(ladder, &mut record, Step::Strike, now);
        assert_eq!(climb(ladder, &mut record, Step::Look, now), Rung::Delayed(delay));
    }
    let laxer = Ladder { first_ms: 1, ..ladder };
    climb(laxer, &mut record, Step::Strike, 3);
    assert_eq!(climb(laxer, &mut record, Step::Look, 3), Rung::Delayed(3999));
}

#[test]
fn a_clock_that_was_set_back_shuts_nobody_out_for_longer_than_the_longest_delay() {
    let mut record = None;
    for _ in 0..6 {
        climb(LADDER, &mut record, Step::Strike, 1_000_000_000_000);
    }
    assert_eq!(climb(LADDER, &mut record, Step::Look, 0), Rung::Delayed(LADDER.longest_ms()));
    let rate = Rate::new(10, 60_000, 10);
    let (_, arrival) = rate.step(0, Count::One, 1_000_000_000_000);
    assert_eq!(rate.step(arrival, Count::One, 0).0, Turn::In(6000));
}

#[test]
fn stricter_limits_are_divided_and_never_nothing() {
    let rate = Rate::new(10, 60_000, 10);
    assert_eq!(rate.stricter(4), Rate::new(2, 60_000, 2));
    assert_eq!(rate.stricter(1000), Rate::new(1, 60_000, 1));
    assert_eq!(rate.stricter(0), Rate::new(1, 60_000, 1));
    let ladder = LADDER.stricter(4);
    assert_eq!((ladder.free, ladder.failures_max, ladder.max_ms), (1, 25, LADDER.max_ms));
    let distinct = Distinct { limit: 10, window_ms: 5, excess: Excess::Stays };
    assert_eq!(distinct.stricter(4).limit, 2);
    assert_eq!(distinct.stricter(11).limit, 1);
}

#[test]
fn different_members_count_once_each_while_they_are_in_the_window() {
    let member = |n: u8| [n; 16];
    let distinct = Distinct { limit: 2, window_ms: 100, excess: Excess::Stays };
    let mut seen = Seen::default();
    let rows = [
        (0, 1, Crowd::Few),
        (0, 1, Crowd::Few),
        (10, 2, Crowd::Few),
        (50, 1, Crowd::Few),
        (60, 3, Crowd::Many),
        (61, 4, Crowd::Many),
        // The second was dropped as the oldest; the first is over at 150, the third at 160.
        (149, 4, Crowd::Many),
        (160, 5, Crowd::Few),
    ];
    for (now, n, crowd) in rows {
        assert_eq!(distinct.step(&mut seen, member(n), now), crowd, "{n} at {now}");
    }
    let restarting = Distinct { excess: Excess::Restarts, ..distinct };
    let mut seen = Seen::default();
    let crowds: Vec<Crowd> = (0..7).map(|n| restarting.step(&mut seen, member(n), u64::from(n))).collect();
    let many = [2, 5].map(|n| crowds[n]);
    assert_eq!(many, [Crowd::Many; 2]);
    assert_eq!(crowds.iter().filter(|crowd| **crowd == Crowd::Many).count(), 2);
}

proptest! {
    /// In any stretch of time no more pass than the burst and what that stretch allows.
    #[test]
    fn a_rate_lets_through_what_it_says(
        limit in 1_u64..50, period_ms in 1_u64..5000, burst in 1_u64..20, pauses in vec(0_u64..300, 1..300)
    ) {
        let rate = Rate::new(limit, period_ms, burst);
        let (mut arrival, mut now, mut passed) = (0, 0, Vec::new());
        for pause in pauses {
            now += pause;
            let (peek, same) = rate.step(arrival, Count::Nothing, now);
            let (turn, next) = rate.step(arrival, Count::One, now);
            prop_assert_eq!(peek, turn);
            match turn {
                Turn::Now => passed.push(now),
                Turn::In(millis) => {
                    prop_assert_eq!(next, same);
                    // It says when to come back: then it passes, and not before.
                    prop_assert_eq!(rate.step(arrival, Count::One, now + millis).0, Turn::Now);
                    prop_assert_ne!(rate.step(arrival, Count::One, now + millis - 1).0, Turn::Now);
                }
            }
            arrival = next;
        }
        for (from, began) in passed.iter().enumerate() {
            for (to, ended) in passed.iter().enumerate().skip(from) {
                let allowed = burst + (ended - began) * 1000 / rate.interval_us();
                prop_assert!((to - from + 1) as u64 <= allowed);
            }
        }
    }

    /// Whatever is done, a delay that was announced is kept until a refund or until it is over.
    #[test]
    fn a_delay_is_never_shortened_by_an_attempt(steps in vec((0_u8..3, 0_u64..3000), 1..200)) {
        let (mut record, mut now, mut until) = (None, 0, 0);
        for (which, pause) in steps {
            now += pause;
            let step = [Step::Attempt, Step::Strike, Step::Look][usize::from(which)];
            let rung = climb(LADDER, &mut record, step, now);
            prop_assert_eq!(matches!(rung, Rung::Delayed(_)), now < until);
            if let Rung::Delayed(left) = climb(LADDER, &mut record, Step::Look, now) {
                prop_assert!(now + left >= until);
                until = now + left;
            } else {
                prop_assert!(now >= until);
            }
        }
    }

    /// A naive reference: all members with the times they were seen at.
    #[test]
    fn many_is_more_than_the_limit_in_the_window(
        limit in 1_u64..6, stays: bool, steps in vec((0_u8..12, 0_u64..40), 1..200)
    ) {
        let excess = if stays { Excess::Stays } else { Excess::Restarts };
        let distinct = Distinct { limit, window_ms: 100, excess };
        let (mut seen, mut history, mut now) = (Seen::default(), Vec::<(u64, u8)>::new(), 0);
        for (member, pause) in steps {
            now += pause;
            let crowd = distinct.step(&mut seen, [member; 16], now);
            history.push((now, member));
            let mut recent: Vec<u8> = history.iter().filter(|(at, _)| at + 100 > now).map(|(_, m)| *m).collect();
            recent.sort_unstable();
            recent.dedup();
            let many = recent.len() as u64 > limit;
            prop_assert_eq!(crowd == Crowd::Many, many);
            if many && !stays {
                history.clear();
            }
            prop_assert!(seen.len() <= limit + 1);
        }
    }
}
