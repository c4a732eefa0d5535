//! However many workers an Envoy has, the issuer sees one edge: one polls for all, another takes over when it dies, and what
//! is reported is what every worker enforces.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tollgate_tests::client::Client;
use tollgate_tests::eventually::eventually;
use tollgate_tests::module::Variant;
use tollgate_tests::stack::{Stack, StackOptions};

use crate::faults::{FEED, POLLS_MAX};
use crate::revocation::{self, add_alice, fresh_token, status};

const WORKERS: u32 = 4;

struct Process {
    stack: Stack,
    /// One for each worker.
    clients: Vec<Client>,
}

impl Process {
    async fn start() -> Self {
        let options = StackOptions {
            concurrency: WORKERS,
            through_feed_proxy: true,
            ..revocation::options(Variant::Probe)
        };
        let stack = Stack::start(options).await.unwrap();
        add_alice(&stack).await;
        let clients: Vec<Client> = (0..WORKERS).map(|_| Client::one_connection()).collect();
        for client in &clients {
            client.get(&format!("{}/public/", stack.envoy.url())).send_ok().await.unwrap();
        }
        Self { stack, clients }
    }

    /// Whether it is refused at every worker; a worker that was just replaced may not be ready.
    async fn is_refused_everywhere(&self, token: &str) -> bool {
        let mut refused = true;
        for client in &self.clients {
            refused &= matches!(status(client, &self.stack, token).await, 401 | 503);
        }
        refused
    }

    async fn probe(&self, client: &Client, command: &str) -> Value {
        let request =
            client.get(&format!("{}/probe", self.stack.envoy.url())).header("x-tollgate-probe", command);
        request.send_ok().await.unwrap().json().unwrap()
    }

    #[expect(clippy::disallowed_methods, reason = "the time until a refusal is what is measured")]
    async fn revoke_and_measure(&self) -> Duration {
        let token = fresh_token(&self.stack).await;
        self.stack.issuer.revoke_token(&token).await.unwrap();
        let acknowledged = Instant::now();
        while !self.is_refused_everywhere(&token).await {
            assert!(acknowledged.elapsed() < Duration::from_secs(10), "admitted after ten seconds");
        }
        acknowledged.elapsed()
    }

    async fn instance(&self) -> Value {
        let edges =
            self.stack.issuer.operator("GET", "/v1/admin/edges").send_ok().await.unwrap().json().unwrap();
        edges["edges"][0]["instances"][0].clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_worker_polls_for_all_and_what_all_enforce_is_reported() {
    let process = Process::start().await;
    // Of a process that has not been heard of nothing is measured.
    eventually("the first report", Duration::from_secs(5), async || {
        let instance = process.instance().await;
        if instance["enforced"].is_u64() { Ok(()) } else { Err(instance) }
    })
    .await
    .unwrap();
    for _ in 0..20 {
        process.revoke_and_measure().await;
    }
    let tally = process.stack.feed_proxy.as_ref().unwrap().tally(FEED);
    assert_eq!((tally.in_flight, tally.in_flight_most), (1, POLLS_MAX), "{tally:?}");
    // Of the 20 that were revoked, and of what a new issuer tells.
    let position = process.stack.issuer.metric("tollgate_issuer_feed_position", "").await.unwrap();
    eventually("the report", Duration::from_secs(5), async || {
        let instance = process.instance().await;
        let said = (instance["enforced"].as_u64(), instance["workers"].as_u64(), instance["live"].as_bool());
        // Each worker, and the main thread.
        if said == (Some(position), Some(u64::from(WORKERS) + 1), Some(true)) {
            Ok(())
        } else {
            Err(instance)
        }
    })
    .await
    .unwrap();
    let metric = |name: &'static str| process.stack.issuer.metric(name, "");
    assert_eq!(metric("tollgate_issuer_edge_enforced_position").await.unwrap(), position);
    let measured = metric("tollgate_issuer_revocation_enforced_seconds_count").await.unwrap();
    let within = metric_below(&process.stack, 1.0).await;
    println!(
        "revocations until every worker enforced them: {measured} measured, {within} of them within a second or so"
    );
    assert!(measured >= 20 && within * 10 >= measured * 9, "{within} of {measured}");
    let reports = process.stack.feed_proxy.as_ref().unwrap().tally("/v1/edge/heartbeat");
    assert!(reports.requests < 60, "{reports:?}");
}

/// How many revocations were enforced everywhere within the first bucket that ends at so many seconds or later.
async fn metric_below(stack: &Stack, seconds: f64) -> u64 {
    let text = stack.issuer.operator("GET", "/metrics").send_ok().await.unwrap().text();
    let buckets = text.lines().filter_map(|line| {
        let rest = line.strip_prefix("tollgate_issuer_revocation_enforced_seconds_bucket{le=\"")?;
        let (bound, count) = rest.split_once("\"} ")?;
        Some((bound.parse::<f64>().ok()?, count.parse::<u64>().ok()?))
    });
    buckets.filter(|(bound, _)| *bound >= seconds).map(|(_, count)| count).min().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn another_worker_takes_over_when_the_one_that_polls_dies() {
    let process = Process::start().await;
    let terms = "wasmcustom.tollgate_leader_terms_total";
    let mut took = Vec::new();
    for round in 0..3 {
        let client = &process.clients[round];
        assert_eq!(process.probe(client, "lead").await, json!({ "seized": true }));
        eventually("it to lead", Duration::from_secs(5), async || {
            let state = process.probe(client, "state").await;
            if state["leads"] == true { Ok(()) } else { Err(state) }
        })
        .await
        .unwrap();
        let before = process.stack.envoy.stat(terms).await.unwrap();
        // The answer to the request that traps is Envoy's, or none.
        let trap = client.get(&format!("{}/x", process.stack.envoy.url())).header("x-tollgate-probe", "trap");
        drop(trap.send().await);
        took.push(process.revoke_and_measure().await);
        eventually("another to lead", Duration::from_secs(5), async || {
            let after = process.stack.envoy.stat(terms).await.unwrap();
            if after > before { Ok(()) } else { Err(after) }
        })
        .await
        .unwrap();
    }
    println!("revoke -> refused at {WORKERS} workers, right after the one that polls died: {took:?}");
    assert!(took.iter().all(|took| *took < Duration::from_secs(3)), "{took:?}");
    let tally = process.stack.feed_proxy.as_ref().unwrap().tally(FEED);
    assert_eq!(tally.in_flight, 1, "{tally:?}");
}
