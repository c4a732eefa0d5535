//! Row 3: an issuer that answers late or slowly.

use std::time::{Duration, Instant};

use serde_json::json;
use tollgate_tests::evidence::Evidence;
use tollgate_tests::feed_proxy::Mode;
use tollgate_tests::samples::percentile;

use super::{Edge, FEED, POLLS_MAX, options};

const SAMPLES: usize = 1000;
/// Whatever a machine with other work to do adds to the slowest of a hundred requests, in milliseconds.
const NOISE_MILLIS: f64 = 25.0;

impl Edge {
    /// Sends requests one after the other until that is enough, each of which succeeds, and says the 99th percentile of
    /// their times in milliseconds.
    #[expect(clippy::disallowed_methods, reason = "how long requests take is what is measured")]
    async fn p99(&self, token: &str, enough: impl Fn(usize) -> bool) -> f64 {
        let mut times = Vec::new();
        while !enough(times.len()) {
            let began = Instant::now();
            self.all_answer(200, token, "under load").await;
            times.push(began.elapsed().as_secs_f64() * 1000.0 / self.clients.len() as f64);
        }
        percentile(&times, 99)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_issuer_has_no_polls_piled_up_and_slows_no_request() {
    let edge = Edge::start_with(
        options().edit_plugin(|plugin| plugin["origin"]["long_poll_seconds"] = json!(1)),
        Evidence::of_this_test().unwrap(),
    )
    .await;
    let good = edge.token().await;
    edge.all_come_to(200, &good).await;
    let before = edge.p99(&good, |times| times >= SAMPLES).await;
    let mut seen = Vec::new();
    // A poll has 5 s beyond the time for which it is held. Of 200 cut-offs the message has more bytes than come in that.
    for mode in [Mode::Delay(Duration::from_secs(10)), Mode::Bandwidth(1000)] {
        let revoked = edge.token().await;
        edge.all_come_to(200, &revoked).await;
        edge.proxy().set_mode(FEED, Mode::Hang);
        for number in 0..200 {
            edge.stack.issuer.revoke_subject(&format!("nobody-{number}")).await.unwrap();
        }
        edge.revoke(&revoked).await;
        let asked = edge.proxy().tally(FEED).requests;
        edge.proxy().set_mode(FEED, mode);
        // Until some were given up and made again.
        let again = |times| times >= SAMPLES && edge.proxy().tally(FEED).requests > asked + POLLS_MAX;
        let during = edge.p99(&good, again).await;
        let most = edge.proxy().tally(FEED).in_flight_most;
        assert!((1..=POLLS_MAX).contains(&most), "{mode:?}: {most} polls at once");
        assert!(during < 5.0 * before + NOISE_MILLIS, "{mode:?}: {during} ms instead of {before} ms");
        let ratio = during / before;
        seen.push(format!("{mode:?}: p99 {during:.2} ms ({ratio:.1} times), {most} polls at once at most"));
        edge.heal();
        edge.all_come_to(401, &revoked).await;
    }
    assert_eq!(edge.reloads().await, 0);
    println!("row 3: p99 {before:.2} ms before → {}", seen.join("; "));
}
