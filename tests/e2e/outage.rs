//! Without the issuer the edge refuses until it has state, serves from what it has until the hard limit, and recovers by
//! itself.

use std::time::{Duration, Instant};

use serde_json::json;
use tollgate_tests::client::{Client, Response};
use tollgate_tests::envoy::{Bootstrap, Envoy, EnvoyOptions};
use tollgate_tests::eventually::eventually;
use tollgate_tests::evidence::Evidence;
use tollgate_tests::fault_proxy::{FaultProxy, Mode};
use tollgate_tests::issuer::{Issuer, IssuerOptions};
use tollgate_tests::module::{self, Variant};
use tollgate_tests::stack::{Stack, StackOptions, plugin_config};
use tollgate_tests::upstream::Upstream;

use crate::revocation;

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "how long it takes to recover is what is measured")]
async fn an_edge_that_starts_without_the_issuer_refuses_and_recovers_without_a_restart() {
    let evidence = Evidence::of_this_test().unwrap();
    let module = module::build(Variant::Shipped).unwrap();
    let issuer = Issuer::start(IssuerOptions::default(), &evidence).await.unwrap();
    let credential = issuer.add_edge("edge").await.unwrap();
    issuer.add_user("alice", "correct horse battery", "free", &[], &["read"]).await.unwrap();
    let token = issuer.login("alice", "correct horse battery").await.unwrap().access_token;
    let proxy = FaultProxy::start(issuer.addr()).await.unwrap();
    proxy.set_mode(Mode::Refuse);
    let upstream = Upstream::start().await.unwrap();
    let bootstrap = Bootstrap::load().unwrap().on_free_ports().unwrap().upstream(upstream.addr()).unwrap();
    let bootstrap = bootstrap.issuer(proxy.addr()).unwrap().module(&module).unwrap();
    let bootstrap = bootstrap.plugin_config(&plugin_config(&issuer, "edge", &credential)).unwrap();
    let envoy = Envoy::start(EnvoyOptions::new(bootstrap), &evidence).await.unwrap();
    let client = Client::fresh_connections();
    let get = async |path: &str, token: Option<&str>| -> Response {
        let request = client.get(&format!("{}{path}", envoy.url()));
        let request = match token {
            Some(token) => request.bearer(token),
            None => request,
        };
        request.send().await.unwrap()
    };
    for _ in 0..10 {
        for token in [None, Some(token.as_str())] {
            let answer = get("/x", token).await;
            assert_eq!(answer.status, 503);
            let seconds: u64 = answer.header("retry-after").expect("Retry-After").parse().unwrap();
            assert!((1..=4).contains(&seconds), "Retry-After: {seconds}");
        }
        assert_eq!(get("/public/x", None).await.status, 200);
    }
    assert_eq!(upstream.requests(), 10, "only the public requests reach the application");
    let ready = async || envoy.stat("wasmcustom.tollgate_ready").await.unwrap();
    assert_eq!(ready().await, 0);
    proxy.set_mode(Mode::Pass);
    let back = Instant::now();
    // At most one backoff of 10 s, and the call after it. New connections meet every worker.
    let mut in_a_row = 0;
    eventually("recovery", Duration::from_secs(11), async || {
        let status = get("/x", Some(&token)).await.status;
        in_a_row = if status == 200 { in_a_row + 1 } else { 0 };
        if in_a_row >= 16 { Ok(()) } else { Err(format!("{status}, {in_a_row} good in a row")) }
    })
    .await
    .unwrap();
    let took = back.elapsed();
    eventually("the gauge", Duration::from_secs(2), async || match ready().await {
        1 => Ok(()),
        other => Err(other),
    })
    .await
    .unwrap();
    println!(
        "row 1: started without the issuer → protected 503, public 200, ready 0; good {took:?} after it came"
    );
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "when service ends is what is measured")]
async fn an_edge_that_loses_the_issuer_serves_until_the_hard_limit_and_not_beyond() {
    const LONG_POLL: u64 = 1;
    const HARD_LIMIT: u64 = 5;
    let options = revocation::options(Variant::Shipped);
    let stack = Stack::start(StackOptions { through_fault_proxy: true, ..options }.edit_plugin(|plugin| {
        plugin["origin"]["long_poll_seconds"] = json!(LONG_POLL);
        plugin["origin"]["stale_after_seconds"] = json!(2);
        plugin["origin"]["refuse_after_seconds"] = json!(HARD_LIMIT);
    }))
    .await
    .unwrap();
    revocation::add_alice(&stack).await;
    let token = revocation::fresh_token(&stack).await;
    let clients = revocation::clients_on_every_worker(&stack).await;
    // Envoy is told now and then, and what a VM did not tell yet is not there.
    let age_within = async |ages: std::ops::Range<u64>| {
        eventually("the age of the state", Duration::from_secs(10), async || {
            let age = stack.envoy.stat("wasmcustom.tollgate_state_age_milliseconds").await;
            let age = age.map_err(|error| error.to_string())?;
            if ages.contains(&age) { Ok(age) } else { Err(format!("{age} ms, not in {ages:?}")) }
        })
        .await
        .unwrap()
    };
    let mut turn = clients.iter().cycle();
    let mut status = async || revocation::status(turn.next().unwrap(), &stack, &token).await;
    let mut seen = Vec::new();
    let proxy = stack.fault_proxy.as_ref().unwrap();
    for mode in [Mode::Refuse, Mode::Hang] {
        eventually("service", Duration::from_secs(20), async || {
            for _ in &clients {
                match status().await {
                    200 => {}
                    other => return Err(other),
                }
            }
            Ok(())
        })
        .await
        .unwrap();
        let young = age_within(0..2_000).await;
        proxy.set_mode(mode);
        let cut = Instant::now();
        let (mut before, mut after) = (0, 0);
        while after < 50 {
            let asked = cut.elapsed();
            let status = status().await;
            let answered = cut.elapsed();
            // State is at most one held poll old when the issuer goes.
            if answered < Duration::from_secs(HARD_LIMIT - LONG_POLL) - Duration::from_millis(500) {
                assert_eq!(status, 200, "{mode:?}: refused after {answered:?}");
                before += 1;
            } else if asked > Duration::from_secs(HARD_LIMIT) + Duration::from_millis(100) {
                assert_eq!(status, 503, "{mode:?}: admitted {asked:?} after the issuer went");
                after += 1;
            }
        }
        assert!(before > 50, "{mode:?}: only {before} requests before the limit");
        assert_eq!(stack.get("/public/x", "none").await.unwrap().status, 200);
        let old = age_within(HARD_LIMIT * 1000..u64::MAX).await;
        seen.push(format!("{mode:?}: {before} of {before} good before, {after} of {after} refused after, age {young} to {old} ms"));
        proxy.set_mode(Mode::Pass);
    }
    println!("row 2: the issuer gone for longer than the limit of {HARD_LIMIT} s → {}", seen.join("; "));
}
