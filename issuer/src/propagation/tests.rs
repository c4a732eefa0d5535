use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn key(name: &str) -> InstanceKey {
    InstanceKey { edge: name.to_owned(), instance: "0".to_owned() }
}

fn up_to(position: u64, since: u64, seen_at: u64) -> Report {
    Report {
        enforced: Enforced::UpTo(Position(position)),
        since: Monotonic(since),
        seen_at: Monotonic(seen_at),
        dated: UnixMillis(seen_at),
    }
}

fn everywhere(position: u64, millis: u64) -> Everywhere {
    Everywhere { position: Position(position), millis }
}

/// Two live instances that enforce everything so far.
fn two() -> Propagation {
    let mut propagation = Propagation::default();
    propagation.heard(&key("a"), up_to(10, 0, 1_000), Monotonic(1_000));
    propagation.heard(&key("b"), up_to(10, 0, 1_000), Monotonic(1_000));
    propagation
}

#[test]
fn a_position_is_everywhere_when_the_last_live_instance_enforces_it() {
    let mut propagation = two();
    propagation.committed(Position(11), Origin::Here, Monotonic(2_000));
    assert!(propagation.heard(&key("a"), up_to(11, 2_004, 2_010), Monotonic(2_010)).is_empty());
    let outlook = propagation.outlook(Monotonic(2_500));
    assert_eq!((outlook.edges, outlook.instances, outlook.lowest), (2, 2, Some(Position(10))));
    assert_eq!(outlook.oldest_waits_millis, 500);
    // The last one was heard of long after it enforced it.
    let done = propagation.heard(&key("b"), up_to(11, 2_030, 9_000), Monotonic(9_000));
    assert_eq!(done, [everywhere(11, 30)]);
    assert_eq!(propagation.outlook(Monotonic(9_000)).oldest_waits_millis, 0);
    assert_eq!(propagation.outlook(Monotonic(9_000)).lowest, Some(Position(11)));
}

#[test]
fn no_duration_is_below_nothing_and_none_is_too_short() {
    let mut propagation = two();
    propagation.committed(Position(11), Origin::Here, Monotonic(2_000));
    propagation.committed(Position(12), Origin::Here, Monotonic(5_000));
    propagation.heard(&key("a"), up_to(12, 5_001, 6_000), Monotonic(6_000));
    // By its own clock it was before the commit; and of the first position nothing better is known than by when.
    let done = propagation.heard(&key("b"), up_to(12, 4_999, 6_000), Monotonic(6_000));
    assert_eq!(done, [everywhere(11, 3_001), everywhere(12, 1)]);
    propagation.committed(Position(13), Origin::Here, Monotonic(7_000));
    propagation.heard(&key("a"), up_to(13, 6_000, 7_001), Monotonic(7_001));
    let done = propagation.heard(&key("b"), up_to(13, 6_000, 7_001), Monotonic(7_001));
    assert_eq!(done, [everywhere(13, 0)]);
}

#[test]
fn who_is_dead_or_admits_nobody_holds_nothing_up() {
    let mut propagation = two();
    propagation.committed(Position(11), Origin::Here, Monotonic(2_000));
    propagation.heard(&key("a"), up_to(11, 2_005, 20_000), Monotonic(20_000));
    assert!(propagation.settle(Monotonic(30_999)).is_empty());
    assert_eq!(propagation.settle(Monotonic(31_000)), [everywhere(11, 5)], "b is dead");
    let starting = Report { enforced: Enforced::AdmitsNobody, ..up_to(0, 0, 31_000) };
    propagation.heard(&key("c"), starting, Monotonic(31_000));
    propagation.committed(Position(12), Origin::Here, Monotonic(31_000));
    let done = propagation.heard(&key("a"), up_to(12, 31_010, 31_020), Monotonic(31_020));
    assert_eq!(done, [everywhere(12, 10)]);
    assert_eq!(propagation.outlook(Monotonic(31_020)).lowest, None);
    let half = Report { enforced: Enforced::Unknown, ..starting };
    propagation.heard(&key("c"), half, Monotonic(31_030));
    propagation.committed(Position(13), Origin::Here, Monotonic(31_030));
    assert!(propagation.heard(&key("a"), up_to(13, 31_040, 31_040), Monotonic(31_040)).is_empty());
}

#[test]
fn without_a_live_instance_nothing_is_measured_and_nothing_kept() {
    let mut propagation = Propagation::default();
    propagation.committed(Position(1), Origin::Here, Monotonic(0));
    assert!(propagation.heard(&key("a"), up_to(1, 500, 500), Monotonic(500)).is_empty());
    propagation.committed(Position(2), Origin::Here, Monotonic(600));
    assert!(propagation.settle(Monotonic(40_000)).is_empty());
    assert!(propagation.heard(&key("a"), up_to(2, 40_000, 40_000), Monotonic(40_000)).is_empty());
    assert_eq!(propagation.outlook(Monotonic(80_000)), Outlook::default());
}

#[test]
fn what_another_process_committed_is_waited_for_and_measured_by_that_one() {
    let mut propagation = two();
    propagation.committed(Position(11), Origin::Elsewhere, Monotonic(2_000));
    propagation.committed(Position(12), Origin::Elsewhere, Monotonic(2_000));
    // It was this process's own, only noticed in the database first.
    propagation.committed(Position(12), Origin::Here, Monotonic(2_003));
    assert_eq!(propagation.outlook(Monotonic(2_100)).oldest_waits_millis, 100);
    propagation.heard(&key("a"), up_to(12, 2_010, 2_010), Monotonic(2_010));
    let done = propagation.heard(&key("b"), up_to(12, 2_020, 2_020), Monotonic(2_020));
    assert_eq!(done, [everywhere(12, 20)]);
}

#[test]
fn a_position_that_is_told_again_is_not_measured_again() {
    let mut propagation = two();
    propagation.committed(Position(11), Origin::Here, Monotonic(2_000));
    propagation.heard(&key("a"), up_to(11, 2_010, 2_010), Monotonic(2_010));
    // While it is waited for, and when it is not any more: what was revoked already keeps its position.
    propagation.committed(Position(11), Origin::Here, Monotonic(2_500));
    let done = propagation.heard(&key("b"), up_to(11, 2_600, 2_600), Monotonic(2_600));
    assert_eq!(done, [everywhere(11, 600)]);
    propagation.committed(Position(11), Origin::Here, Monotonic(3_000));
    propagation.committed(Position(9), Origin::Here, Monotonic(3_000));
    assert!(propagation.settle(Monotonic(3_001)).is_empty());
    assert_eq!(propagation.outlook(Monotonic(3_100)).oldest_waits_millis, 0);
}

#[test]
fn a_report_that_comes_late_changes_nothing() {
    let mut propagation = two();
    propagation.heard(&key("a"), up_to(12, 3_000, 3_000), Monotonic(3_000));
    propagation.heard(&key("a"), up_to(11, 2_000, 2_000), Monotonic(3_001));
    propagation.heard(&key("b"), up_to(12, 3_000, 3_000), Monotonic(3_002));
    assert_eq!(propagation.outlook(Monotonic(3_002)).lowest, Some(Position(12)));
}

#[test]
fn the_last_of_a_burst_count_as_one_from_the_first_of_them_on() {
    let mut propagation = two();
    let most = u64::try_from(WAITING_MAX).unwrap();
    for number in 1..=most + 5 {
        propagation.committed(Position(10 + number), Origin::Here, Monotonic(2_000 + number));
    }
    assert_eq!(propagation.waiting.len(), WAITING_MAX);
    propagation.heard(&key("a"), up_to(u64::MAX, 5_000, 5_000), Monotonic(5_000));
    let done = propagation.heard(&key("b"), up_to(u64::MAX, 5_000, 5_000), Monotonic(5_000));
    assert_eq!(done.len(), WAITING_MAX);
    assert_eq!(done.last(), Some(&everywhere(15 + most, 3_000 - most)));
}

/// Something that happens.
#[derive(Debug, Clone)]
enum Event {
    Commit(u64),
    Report { who: usize, position: u64, ago: u64 },
    Pass(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (1..3_u64).prop_map(Event::Commit),
        (0..3_usize, 0..30_u64, 0..200_u64).prop_map(|(who, position, ago)| Event::Report {
            who,
            position,
            ago
        }),
        (0..20_000_u64).prop_map(Event::Pass),
    ]
}

#[test]
fn what_another_process_heard_counts_from_when_it_was_read() {
    let mut propagation = two();
    propagation.committed(Position(11), Origin::Here, Monotonic(2_000));
    propagation.heard(&key("a"), up_to(11, 2_010, 2_010), Monotonic(2_010));
    // The other one's clock is far ahead, or far behind, and what this one heard itself is read as well.
    let read = |position, dated| Report { dated: UnixMillis(dated), ..up_to(position, 2_900, 2_800) };
    propagation.told(&key("a"), read(10, 2_010), Monotonic(2_900));
    propagation.told(&key("b"), read(11, 9_000_000), Monotonic(2_900));
    assert_eq!(propagation.settle(Monotonic(2_900)), [everywhere(11, 900)]);
    // What it says here later counts, although its date is before that; and what was read then is known.
    propagation.heard(&key("b"), up_to(12, 3_000, 3_000), Monotonic(3_000));
    propagation.told(&key("b"), read(11, 9_000_000), Monotonic(3_900));
    propagation.heard(&key("a"), up_to(12, 3_000, 3_000), Monotonic(3_000));
    assert_eq!(propagation.outlook(Monotonic(3_900)).lowest, Some(Position(12)));
}

#[test]
fn one_that_is_read_for_the_first_time_is_as_old_as_its_date_and_lives_while_it_speaks() {
    let mut propagation = Propagation::default();
    let spoke = |dated, seen_at| Report { dated: UnixMillis(dated), ..up_to(5, 40_000, seen_at) };
    propagation.told(&key("dead"), spoke(1, 10_000), Monotonic(40_000));
    propagation.told(&key("late"), spoke(1, 20_000), Monotonic(40_000));
    propagation.told(&key("mute"), spoke(1, 20_000), Monotonic(40_000));
    propagation.told(&key("late"), spoke(2, 20_001), Monotonic(49_000));
    propagation.settle(Monotonic(50_000));
    assert_eq!(propagation.instances.keys().collect::<Vec<_>>(), [&key("late")]);
    propagation.settle(Monotonic(79_000));
    assert!(propagation.instances.is_empty());
}

#[test]
fn what_an_instance_did_not_say_yet_it_did_not_enforce_before() {
    let mut propagation = two();
    propagation.committed(Position(11), Origin::Here, Monotonic(2_000));
    propagation.heard(&key("a"), up_to(11, 2_010, 2_010), Monotonic(2_010));
    propagation.heard(&key("b"), up_to(10, 0, 2_500), Monotonic(2_500));
    let done = propagation.heard(&key("b"), up_to(11, 2_100, 2_600), Monotonic(2_600));
    assert_eq!(done, [everywhere(11, 500)]);
}

#[test]
fn a_report_and_a_commit_leave_the_dead_to_the_next_look() {
    let mut propagation = two();
    propagation.heard(&key("a"), up_to(10, 0, 40_000), Monotonic(40_000));
    propagation.committed(Position(11), Origin::Here, Monotonic(40_000));
    assert_eq!(propagation.instances.len(), 2, "neither looks at all instances");
    assert!(propagation.heard(&key("a"), up_to(11, 40_007, 40_010), Monotonic(40_010)).is_empty());
    assert_eq!(propagation.outlook(Monotonic(40_010)).instances, 1);
    assert_eq!(propagation.settle(Monotonic(40_500)), [everywhere(11, 7)]);
}

#[test]
fn of_too_many_instances_the_one_that_goes_holds_nothing_up() {
    let mut propagation = Propagation::default();
    let key = |number| InstanceKey { edge: "eu-1".to_owned(), instance: format!("{number:02}") };
    let most = u64::try_from(INSTANCES_MAX).unwrap();
    propagation.heard(&key(0), up_to(1, 0, 1), Monotonic(1));
    for number in 1..=most {
        propagation.heard(&key(number), up_to(5, 0, 10), Monotonic(10));
    }
    assert_eq!(propagation.holds.lowest(), Some(Position(5)));
    assert_eq!(propagation.holds.0.values().sum::<usize>(), INSTANCES_MAX);
}

proptest! {
    #[test]
    fn each_position_is_measured_once_and_only_when_all_who_live_enforce_it(
        events in proptest::collection::vec(event(), 0..60)
    ) {
        let names = ["a", "b", "c"];
        let (mut propagation, mut now, mut last) = (Propagation::default(), 100_000, 0);
        let mut committed: BTreeMap<u64, u64> = BTreeMap::new();
        let mut reports: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
        let mut measured = BTreeSet::new();
        for event in events {
            let done = match event {
                Event::Commit(step) => {
                    last += step;
                    committed.insert(last, now);
                    propagation.committed(Position(last), Origin::Here, Monotonic(now));
                    Vec::new()
                }
                Event::Report { who, position, ago } => {
                    let position = position.min(last);
                    reports.insert(who, (position, now));
                    propagation.heard(&key(names[who]), up_to(position, now - ago, now), Monotonic(now))
                }
                Event::Pass(millis) => {
                    now += millis;
                    propagation.settle(Monotonic(now))
                }
            };
            reports.retain(|_, (_, seen_at)| now - *seen_at < TTL_MILLIS);
            for Everywhere { position, millis } in done {
                prop_assert!(measured.insert(position));
                prop_assert!(!reports.is_empty());
                prop_assert!(reports.values().all(|(enforced, _)| *enforced >= position.0));
                prop_assert!(millis <= now - committed[&position.0]);
            }
            let lowest = reports.values().map(|(enforced, _)| *enforced).min();
            let outlook = propagation.outlook(Monotonic(now));
            prop_assert_eq!(outlook.lowest, lowest.map(Position));
            prop_assert_eq!(propagation.holds.lowest(), lowest.map(Position));
            prop_assert_eq!(outlook.instances, reports.len());
            // What all enforce waits for nobody.
            prop_assert!(propagation.waiting.keys().all(|position| lowest.is_some_and(|lowest| position.0 > lowest)));
        }
    }
}
