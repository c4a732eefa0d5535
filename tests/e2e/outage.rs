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

#[tokio::test(flavor = "multi_thread")]
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
    proxy.set_mode(Mode::Pass);
    // At most one backoff of 10 s, and Envoy's own health check.
    eventually("recovery", Duration::from_secs(20), async || {
        let answer = get("/x", Some(&token)).await;
        if answer.status == 200 { Ok(()) } else { Err(answer.status) }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "when service ends is what is measured")]
async fn an_edge_that_loses_the_issuer_serves_until_the_hard_limit_and_not_beyond() {
    const LONG_POLL: u64 = 1;
    const HARD_LIMIT: u64 = 5;
    let options = StackOptions { through_fault_proxy: true, concurrency: 1, ..StackOptions::default() };
    let stack = Stack::start(options.edit_plugin(|plugin| {
        plugin["origin"]["long_poll_seconds"] = json!(LONG_POLL);
        plugin["origin"]["stale_after_seconds"] = json!(2);
        plugin["origin"]["refuse_after_seconds"] = json!(HARD_LIMIT);
        plugin["rules"][1]["quotas"] = json!([]);
    }))
    .await
    .unwrap();
    stack.issuer.add_user("alice", "correct horse battery", "free", &[], &["read"]).await.unwrap();
    let token = stack.issuer.login("alice", "correct horse battery").await.unwrap().access_token;
    let proxy = stack.fault_proxy.as_ref().unwrap();
    for mode in [Mode::Refuse, Mode::Hang] {
        eventually("service", Duration::from_secs(20), async || {
            match stack.get("/x", &token).await.unwrap().status {
                200 => Ok(()),
                other => Err(other),
            }
        })
        .await
        .unwrap();
        proxy.set_mode(mode);
        let cut = Instant::now();
        let (mut before, mut after) = (0, 0);
        while after < 50 {
            let asked = cut.elapsed();
            let status = stack.get("/x", &token).await.unwrap().status;
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
        proxy.set_mode(Mode::Pass);
    }
}
