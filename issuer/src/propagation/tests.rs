use proptest::prelude::*;

use super::*;

fn key(name: &str) -> InstanceKey {
    InstanceKey { edge: name.to_owned(), instance: "0".to_owned() }
}

fn up_to(position: u64, since: u64, seen_at: u64) -> Report {
    Report {
        enforced: Enforced::UpTo(Position(position)),
        since: UnixMillis(since),
        seen_at: UnixMillis(seen_at),
    }
}

fn everywhere(position: u64, millis: u64) -> Everywhere {
    Everywhere { position: Position(position), millis }
}

/// Two live instances that enforce everything so far.
fn two() -> Propagation {
    let mut propagation = Propagation::default();
    propagation.heard(&key("a"), up_to(10, 0, 1_000), UnixMillis(1_000));
    propagation.heard(&key("b"), up_to(10, 0, 1_000), UnixMillis(1_000));
    propagation
}

#[test]
fn a_position_is_everywhere_when_the_last_live_instance_enforces_it() {
    let mut propagation = two();
    assert!(propagation.committed(Position(11), Origin::Here, UnixMillis(2_000)).is_empty());
    assert!(propagation.heard(&key("a"), up_to(11, 2_004, 2_010), UnixMillis(2_010)).is_empty());
    let outlook = propagation.outlook(UnixMillis(2_500));
    assert_eq!((outlook.edges, outlook.instances, outlook.lowest), (2, 2, Some(Position(10))));
    assert_eq!(outlook.oldest_waits_millis, 500);
    // The last one was heard of long after it enforced it.
    let done = propagation.heard(&key("b"), up_to(11, 2_030, 9_000), UnixMillis(9_000));
    assert_eq!(done, [everywhere(11, 30)]);
    assert_eq!(propagation.outlook(UnixMillis(9_000)).oldest_waits_millis, 0);
    assert_eq!(propagation.outlook(UnixMillis(9_000)).lowest, Some(Position(11)));
}

#[test]
fn no_duration_is_below_nothing_and_none_is_too_short() {
    let mut propagation = two();
    propagation.committed(Position(11), Origin::Here, UnixMillis(2_000));
    propagation.committed(Position(12), Origin::Here, UnixMillis(5_000));
    propagation.heard(&key("a"), up_to(12, 5_001, 6_000), UnixMillis(6_000));
    // By its own clock it was before the commit; and of the first position nothing better is known than by when.
    let done = propagation.heard(&key("b"), up_to(12, 4_999, 6_000), UnixMillis(6_000));
    assert_eq!(done, [everywhere(11, 3_001), everywhere(12, 1)]);
    propagation.committed(Position(13), Origin::Here, UnixMillis(7_000));
    propagation.heard(&key("a"), up_to(13, 6_000, 7_001), UnixMillis(7_001));
    let done = propagation.heard(&key("b"), up_to(13, 6_000, 7_001), UnixMillis(7_001));
    assert_eq!(done, [everywhere(13, 0)]);
}

#[test]
fn who_is_dead_or_admits_nobody_holds_nothing_up() {
    let mut propagation = two();
    propagation.committed(Position(11), Origin::Here, UnixMillis(2_000));
    propagation.heard(&key("a"), up_to(11, 2_005, 20_000), UnixMillis(20_000));
    assert!(propagation.settle(UnixMillis(30_999)).is_empty());
    assert_eq!(propagation.settle(UnixMillis(31_000)), [everywhere(11, 5)], "b is dead");
    let starting =
        Report { enforced: Enforced::AdmitsNobody, since: UnixMillis(0), seen_at: UnixMillis(31_000) };
    propagation.heard(&key("c"), starting, UnixMillis(31_000));
    propagation.committed(Position(12), Origin::Here, UnixMillis(31_000));
    let done = propagation.heard(&key("a"), up_to(12, 31_010, 31_020), UnixMillis(31_020));
    assert_eq!(done, [everywhere(12, 10)]);
    assert_eq!(propagation.outlook(UnixMillis(31_020)).lowest, None);
    let half = Report { enforced: Enforced::Unknown, ..starting };
    propagation.heard(&key("c"), half, UnixMillis(31_030));
    propagation.committed(Position(13), Origin::Here, UnixMillis(31_030));
    assert!(propagation.heard(&key("a"), up_to(13, 31_040, 31_040), UnixMillis(31_040)).is_empty());
}

#[test]
fn without_a_live_instance_nothing_is_measured_and_nothing_kept() {
    let mut propagation = Propagation::default();
    propagation.committed(Position(1), Origin::Here, UnixMillis(0));
    assert!(propagation.heard(&key("a"), up_to(1, 500, 500), UnixMillis(500)).is_empty());
    propagation.committed(Position(2), Origin::Here, UnixMillis(600));
    assert!(propagation.settle(UnixMillis(40_000)).is_empty());
    assert!(propagation.heard(&key("a"), up_to(2, 40_000, 40_000), UnixMillis(40_000)).is_empty());
    assert_eq!(propagation.outlook(UnixMillis(80_000)), Outlook::default());
}

#[test]
fn what_another_process_committed_is_waited_for_and_measured_by_that_one() {
    let mut propagation = two();
    propagation.committed(Position(11), Origin::Elsewhere, UnixMillis(2_000));
    propagation.committed(Position(12), Origin::Elsewhere, UnixMillis(2_000));
    // It was this process's own, only noticed in the database first.
    propagation.committed(Position(12), Origin::Here, UnixMillis(2_003));
    assert_eq!(propagation.outlook(UnixMillis(2_100)).oldest_waits_millis, 100);
    propagation.heard(&key("a"), up_to(12, 2_010, 2_010), UnixMillis(2_010));
    let done = propagation.heard(&key("b"), up_to(12, 2_020, 2_020), UnixMillis(2_020));
    assert_eq!(done, [everywhere(12, 20)]);
}

#[test]
fn a_position_that_is_told_again_is_not_measured_again() {
    let mut propagation = two();
    propagation.committed(Position(11), Origin::Here, UnixMillis(2_000));
    propagation.heard(&key("a"), up_to(11, 2_010, 2_010), UnixMillis(2_010));
    // While it is waited for, and when it is not any more: what was revoked already keeps its position.
    propagation.committed(Position(11), Origin::Here, UnixMillis(2_500));
    let done = propagation.heard(&key("b"), up_to(11, 2_600, 2_600), UnixMillis(2_600));
    assert_eq!(done, [everywhere(11, 600)]);
    assert!(propagation.committed(Position(11), Origin::Here, UnixMillis(3_000)).is_empty());
    assert!(propagation.committed(Position(9), Origin::Here, UnixMillis(3_000)).is_empty());
    assert!(propagation.settle(UnixMillis(3_001)).is_empty());
    assert_eq!(propagation.outlook(UnixMillis(3_100)).oldest_waits_millis, 0);
}

#[test]
fn a_report_that_comes_late_changes_nothing() {
    let mut propagation = two();
    propagation.heard(&key("a"), up_to(12, 3_000, 3_000), UnixMillis(3_000));
    propagation.heard(&key("a"), up_to(11, 2_000, 2_000), UnixMillis(3_001));
    propagation.heard(&key("b"), up_to(12, 3_000, 3_000), UnixMillis(3_002));
    assert_eq!(propagation.outlook(UnixMillis(3_002)).lowest, Some(Position(12)));
}

#[test]
fn the_last_of_a_burst_count_as_one_from_the_first_of_them_on() {
    let mut propagation = two();
    let most = u64::try_from(WAITING_MAX).unwrap();
    for number in 1..=most + 5 {
        propagation.committed(Position(10 + number), Origin::Here, UnixMillis(2_000 + number));
    }
    assert_eq!(propagation.waiting.len(), WAITING_MAX);
    propagation.heard(&key("a"), up_to(u64::MAX, 5_000, 5_000), UnixMillis(5_000));
    let done = propagation.heard(&key("b"), up_to(u64::MAX, 5_000, 5_000), UnixMillis(5_000));
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
                    propagation.committed(Position(last), Origin::Here, UnixMillis(now))
                }
                Event::Report { who, position, ago } => {
                    let position = position.min(last);
                    reports.insert(who, (position, now));
                    propagation.heard(&key(names[who]), up_to(position, now - ago, now), UnixMillis(now))
                }
                Event::Pass(millis) => {
                    now += millis;
                    propagation.settle(UnixMillis(now))
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
            let outlook = propagation.outlook(UnixMillis(now));
            prop_assert_eq!(outlook.lowest, lowest.map(Position));
            prop_assert_eq!(outlook.instances, reports.len());
            // What all enforce waits for nobody.
            prop_assert!(propagation.waiting.keys().all(|position| lowest.is_some_and(|lowest| position.0 > lowest)));
        }
    }
}
