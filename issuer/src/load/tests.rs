//! What Envoy is told.

use proptest::prelude::*;

use super::*;

fn pool(busy: usize, waiting: usize) -> PoolLoad {
    PoolLoad { workers: 8, busy, waiting }
}

fn value(pool: PoolLoad, requests: u64, errors: u64) -> String {
    header_value(pool, Rates { requests, errors }).unwrap().to_str().unwrap().to_owned()
}

#[test]
fn the_header_is_as_envoy_reads_it() {
    assert_eq!(LOAD_HEADER.as_str(), "endpoint-load-metrics");
    let cases = [
        ((0, 0, 0, 0), "TEXT application_utilization=0.05,cpu_utilization=0.05,rps_fractional=1,eps=0"),
        ((3, 0, 15, 1), "TEXT application_utilization=0.40,cpu_utilization=0.40,rps_fractional=15,eps=1"),
        ((8, 4, 100, 17), "TEXT application_utilization=1.50,cpu_utilization=1.00,rps_fractional=96,eps=16"),
        (
            (8, 900, 1000, 0),
            "TEXT application_utilization=10.00,cpu_utilization=1.00,rps_fractional=960,eps=0",
        ),
    ];
    for ((busy, waiting, requests, errors), expected) in cases {
        assert_eq!(value(pool(busy, waiting), requests, errors), expected);
    }
}

#[test]
fn rates_are_those_of_the_last_whole_interval() {
    let mut report = LoadReport::new(Monotonic(1_000));
    let at = |report: &LoadReport, millis| report.rates(Monotonic(millis));
    for turn in 0..50 {
        let outcome = if turn < 10 { Outcome::Failed } else { Outcome::Answered };
        report.observe(Monotonic(1_000 + turn), outcome);
    }
    assert_eq!(at(&report, 5_999), Rates::default());
    assert_eq!(at(&report, 6_000), Rates { requests: 10, errors: 2 });
    // One more request does not show before its interval is over.
    report.observe(Monotonic(6_000), Outcome::Answered);
    assert_eq!(at(&report, 10_999), Rates { requests: 10, errors: 2 });
    assert_eq!(at(&report, 11_000), Rates::default());
    for _ in 0..5 {
        report.observe(Monotonic(11_001), Outcome::Answered);
    }
    assert_eq!(at(&report, 16_000), Rates { requests: 1, errors: 0 });
    // Nothing came for a whole interval.
    assert_eq!(at(&report, 21_000), Rates::default());
    report.observe(Monotonic(90_000), Outcome::Answered);
    assert_eq!(at(&report, 90_001), Rates::default());
}

#[test]
fn only_server_errors_are_failures() {
    for (status, outcome) in [
        (200, Outcome::Answered),
        (401, Outcome::Answered),
        (429, Outcome::Answered),
        (500, Outcome::Failed),
        (503, Outcome::Failed),
    ] {
        assert_eq!(Outcome::of_status(status), outcome);
    }
}

proptest! {
    /// The values are numbers that Envoy takes, near the truth, and on the steps.
    #[test]
    fn what_is_told_is_coarse_and_near_the_truth(
        workers in 1..64usize, busy in 0..64usize, waiting in 0..2_000usize, requests in 0..10_000_000u64,
    ) {
        let busy = busy.min(workers);
        let text = value(PoolLoad { workers, busy, waiting }, requests, 0);
        let fields = text.strip_prefix("TEXT ").unwrap().split(',').map(|field| field.split_once('=').unwrap());
        let numbers: Vec<f64> = fields.map(|(_, number)| number.parse().unwrap()).collect();
        let &[application, cpu, rate, errors] = numbers.as_slice() else { panic!("{text}") };
        let truth = (busy + waiting) as f64 / workers as f64;
        prop_assert!((application - truth.clamp(0.05, 10.0)).abs() <= 0.026, "{text} {truth}");
        prop_assert!(cpu > 0.0 && cpu <= 1.0 && errors == 0.0);
        let steps = application * 20.0;
        prop_assert!((steps - steps.round()).abs() < 1e-6);
        let true_rate = requests.max(1) as f64;
        prop_assert!(rate <= true_rate && rate >= true_rate * 0.88, "{text} {requests}");
        prop_assert_eq!(coarse(rate as u64), rate as u64);
    }

    /// Time that stands still or goes back neither panics nor loses a request.
    #[test]
    fn any_order_of_instants_is_borne(instants in proptest::collection::vec(0..40_000u64, 0..60)) {
        let mut report = LoadReport::new(Monotonic(0));
        for instant in &instants {
            report.observe(Monotonic(*instant), Outcome::Answered);
            prop_assert!(report.rates(Monotonic(*instant)).requests <= 12);
        }
    }
}
