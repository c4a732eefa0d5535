//! Row 7: the issuer's date is ten minutes off, and steps.
//!
//! Envoy does not start under libfaketime. The edge's date steps in `conversation::native`, and time passes for a real Envoy
//! in `tests/conversations/time.yaml`.

use std::sync::Arc;
use std::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use serde_json::Value;
use tollgate_tests::eventually::eventually;
use tollgate_tests::evidence::Evidence;
use tollgate_tests::faked_clock::FakedClock;

use super::{Edge, options};

const TEN_MINUTES: i64 = 600;
/// In this order: it starts behind, is set right, jumps forward, is set right, and so on.
const STEPS: [i64; 6] = [-TEN_MINUTES, 0, TEN_MINUTES, 0, -TEN_MINUTES, 0];

/// The date of a token.
fn issued_at(token: &str) -> i64 {
    let claims = Base64UrlUnpadded::decode_vec(token.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice::<Value>(&claims).unwrap()["iat"].as_i64().unwrap()
}

impl Edge {
    /// A token that is revoked while the clock is as it is, whatever workers say to it before.
    async fn revoked_now(&self) -> String {
        let token = self.token().await;
        self.revoke(&token).await;
        self.all_come_to(401, &token).await;
        token
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_whose_date_steps_expires_nothing_good_and_brings_nothing_revoked_back() {
    let evidence = Evidence::of_this_test().unwrap();
    let clock = FakedClock::new("issuer-clock", &evidence).unwrap();
    clock.set_ahead(STEPS[0]).unwrap();
    let mut options = options();
    options.issuer.variables.extend(clock.variables());
    let edge = Edge::start_with(options, Arc::clone(&evidence)).await;
    let start = issued_at(&edge.token().await) - STEPS[0];
    let (mut good, mut revoked, mut seen) = (Vec::new(), Vec::new(), Vec::new());
    for ahead in STEPS {
        clock.set_ahead(ahead).unwrap();
        let token = eventually("the issuer's date to be so", Duration::from_secs(5), async || {
            let token = edge.token().await;
            let found = issued_at(&token) - start - ahead;
            if found.abs() < TEN_MINUTES / 2 { Ok(token) } else { Err(format!("{found} seconds off")) }
        });
        let token = token.await.unwrap();
        if ahead <= 0 {
            edge.all_come_to(200, &token).await;
            good.push(token);
        } else {
            // Not within the tolerance of 60 s, so not yet.
            edge.all_answer(401, &token, "of the future").await;
        }
        revoked.push(edge.revoked_now().await);
        for token in &good {
            edge.all_answer(200, token, &format!("good, the issuer {ahead} s ahead")).await;
        }
        for token in &revoked {
            edge.all_answer(401, token, &format!("revoked, the issuer {ahead} s ahead")).await;
        }
        let (ready, age) =
            (edge.counted("tollgate_ready").await, edge.counted("tollgate_state_age_milliseconds").await);
        assert_eq!(ready, 1, "the issuer {ahead} s ahead");
        seen.push(format!("{ahead:+}: {} good, {} revoked, age {age} ms", good.len(), revoked.len()));
    }
    println!("row 7: the issuer's date off by these seconds → {}", seen.join("; "));
}
