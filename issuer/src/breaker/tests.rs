use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const SETTINGS: BreakerSettings = BreakerSettings { failures_to_open: 3, open_for_ms: 1000, probes: 2 };

fn at(millis: u64) -> Monotonic {
    Monotonic(millis)
}

fn opened() -> Breaker {
    let mut breaker = Breaker::new(SETTINGS);
    for _ in 0..SETTINGS.failures_to_open {
        let permit = breaker.permit(at(0)).unwrap();
        breaker.failed(permit, at(0));
    }
    breaker
}

#[test]
fn failures_in_a_row_open_it_and_a_success_between_them_does_not() {
    let mut breaker = Breaker::new(SETTINGS);
    for fails in [true, true, false, true, true] {
        let permit = breaker.permit(at(0)).unwrap();
        if fails { breaker.failed(permit, at(0)) } else { breaker.succeeded(permit) }
    }
    assert_eq!(breaker.state(at(0)), BreakerState::Closed);
    let permit = breaker.permit(at(0)).unwrap();
    breaker.failed(permit, at(5));
    assert_eq!(breaker.state(at(5)), BreakerState::Open);
    assert_eq!(breaker.permit(at(6)), Err(Refused { retry_after_ms: 999 }));
}

#[test]
fn half_open_it_lets_the_probes_through_and_no_more() {
    let mut breaker = opened();
    assert_eq!(breaker.permit(at(999)), Err(Refused { retry_after_ms: 1 }));
    let first = breaker.permit(at(1000)).unwrap();
    let second = breaker.permit(at(1000)).unwrap();
    breaker.permit(at(1000)).unwrap_err();
    breaker.succeeded(first);
    assert_eq!(breaker.state(at(1000)), BreakerState::HalfOpen);
    breaker.permit(at(1000)).unwrap_err();
    breaker.succeeded(second);
    assert_eq!(breaker.state(at(1000)), BreakerState::Closed);
}

#[test]
fn a_probe_that_fails_opens_it_for_the_whole_time() {
    let mut breaker = opened();
    let first = breaker.permit(at(1000)).unwrap();
    let second = breaker.permit(at(1000)).unwrap();
    breaker.failed(first, at(1500));
    breaker.succeeded(second);
    assert_eq!(breaker.permit(at(2499)), Err(Refused { retry_after_ms: 1 }));
    assert_eq!(breaker.state(at(2500)), BreakerState::HalfOpen);
}

#[test]
fn an_abandoned_probe_frees_its_place() {
    let mut breaker = opened();
    let first = breaker.permit(at(1000)).unwrap();
    let _second = breaker.permit(at(1000)).unwrap();
    breaker.abandoned(first);
    let _third = breaker.permit(at(1000)).unwrap();
    breaker.permit(at(1000)).unwrap_err();
}

#[test]
fn what_ends_late_says_nothing_of_the_present_phase() {
    let mut breaker = Breaker::new(SETTINGS);
    let late: Vec<Permit> = (0..4).map(|_| breaker.permit(at(0)).unwrap()).collect();
    for _ in 0..3 {
        let permit = breaker.permit(at(0)).unwrap();
        breaker.failed(permit, at(0));
    }
    let mut late = late.into_iter();
    // A slow answer from before it opened neither closes it nor counts as a probe.
    breaker.succeeded(late.next().unwrap());
    assert_eq!(breaker.state(at(500)), BreakerState::Open);
    let probes = [breaker.permit(at(1000)).unwrap(), breaker.permit(at(1000)).unwrap()];
    breaker.failed(late.next().unwrap(), at(1001));
    assert_eq!(breaker.state(at(1001)), BreakerState::HalfOpen);
    probes.into_iter().for_each(|permit| breaker.succeeded(permit));
    assert_eq!(breaker.state(at(1001)), BreakerState::Closed);
}

#[test]
fn a_shared_call_that_is_dropped_gives_its_place_back() {
    let shared = SharedBreaker::new(BreakerSettings { failures_to_open: 1, open_for_ms: 10, probes: 1 });
    shared.permit(at(0)).unwrap().failed(at(0));
    shared.permit(at(9)).unwrap_err();
    let probe = shared.permit(at(10)).unwrap();
    shared.permit(at(10)).unwrap_err();
    drop(probe);
    shared.permit(at(10)).unwrap().succeeded();
    assert_eq!(shared.state(at(10)), BreakerState::Closed);
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Ask,
    Succeed(usize),
    Fail(usize),
    Abandon(usize),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Ask),
        2 => any::<usize>().prop_map(Step::Succeed),
        3 => any::<usize>().prop_map(Step::Fail),
        1 => any::<usize>().prop_map(Step::Abandon),
        2 => (0_u64..1500).prop_map(Step::Pass),
    ]
}

proptest! {
    /// A naive reference: whether a call may pass is worked out from the history, and the breaker must agree.
    #[test]
    fn it_does_what_its_history_says(steps in vec(step(), 0..200)) {
        let mut breaker = Breaker::new(SETTINGS);
        let mut reference = Reference::default();
        let mut out: Vec<(Permit, u64)> = Vec::new();
        let mut now = 0;
        for step in steps {
            match step {
                Step::Pass(millis) => now += millis,
                Step::Ask => {
                    let given = breaker.permit(at(now));
                    prop_assert_eq!(given.is_ok(), reference.may_pass(now));
                    if let Ok(permit) = given {
                        out.push((permit, reference.began()));
                    }
                }
                Step::Succeed(which) | Step::Fail(which) | Step::Abandon(which) => {
                    if out.is_empty() {
                        continue;
                    }
                    let (permit, era) = out.swap_remove(which % out.len());
                    match step {
                        Step::Succeed(_) => breaker.succeeded(permit),
                        Step::Fail(_) => breaker.failed(permit, at(now)),
                        Step::Abandon(_) | Step::Ask | Step::Pass(_) => breaker.abandoned(permit),
                    }
                    reference.ended(step, era, now);
                }
            }
            // Whatever happened, it is not shut for good.
            prop_assert_ne!(breaker.state(at(now + SETTINGS.open_for_ms)), BreakerState::Open);
        }
    }
}

/// Keeps lists where the breaker keeps counts: the events since the last change of era.
#[derive(Default)]
struct Reference {
    era: u64,
    opened_at: Option<u64>,
    probing: bool,
    events: Vec<Event>,
}

#[derive(Clone, Copy, PartialEq)]
enum Event {
    Began,
    Succeeded,
    Failed,
    Abandoned,
}

impl Reference {
    fn may_pass(&mut self, now: u64) -> bool {
        if let Some(opened_at) = self.opened_at {
            if now < opened_at + SETTINGS.open_for_ms {
                return false;
            }
            self.turn(None, true);
        }
        let count = |event| self.events.iter().filter(|seen| **seen == event).count();
        !self.probing || count(Event::Began) - count(Event::Abandoned) < SETTINGS.probes as usize
    }

    fn began(&mut self) -> u64 {
        self.events.push(Event::Began);
        self.era
    }

    fn ended(&mut self, step: Step, era: u64, now: u64) {
        if era != self.era {
            return;
        }
        self.events.push(match step {
            Step::Succeed(_) => Event::Succeeded,
            Step::Fail(_) => Event::Failed,
            Step::Abandon(_) | Step::Ask | Step::Pass(_) => Event::Abandoned,
        });
        let succeeded = self.events.iter().filter(|event| **event == Event::Succeeded).count();
        let ends = self.events.iter().filter(|event| matches!(event, Event::Succeeded | Event::Failed));
        let failures = ends.rev().take_while(|event| **event == Event::Failed).count();
        if self.probing && failures > 0 || failures >= SETTINGS.failures_to_open as usize {
            self.turn(Some(now), false);
        } else if self.probing && succeeded >= SETTINGS.probes as usize {
            self.turn(None, false);
        }
    }

    fn turn(&mut self, opened_at: Option<u64>, probing: bool) {
        self.era += 1;
        self.opened_at = opened_at;
        self.probing = probing;
        self.events.clear();
    }
}
