//! How long after its acknowledgement a revocation is enforced at every worker of a real Envoy, with the real issuer.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;
use tollgate_tests::client::Client;
use tollgate_tests::evidence::Evidence;
use tollgate_tests::stack::{Stack, StackOptions};

use super::{quantile, say};

const REVOCATIONS: usize = 300;
const WORKERS: u32 = 4;
const INTERVAL_MILLIS: u64 = 500;
const PASSWORD: &str = "correct horse battery";

pub(crate) async fn run() -> Result<()> {
    for (name, long_poll_seconds) in [("long polling", 20), ("polling only, every 500 ms", 0)] {
        let mut took = measure(long_poll_seconds).await?;
        took.sort_by(f64::total_cmp);
        say(&format!(
            "revoke -> refused at all {WORKERS} workers, {name}: p50 {:.1} ms, p99 {:.1} ms, maximum {:.1} ms of {}",
            quantile(&took, 0.5),
            quantile(&took, 0.99),
            took.last().copied().unwrap_or_default(),
            took.len()
        ));
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the time until a refusal is what is measured")]
async fn measure(long_poll_seconds: u64) -> Result<Vec<f64>> {
    let evidence = Evidence::named(&format!("bench-revocation-propagation-{long_poll_seconds}"))?;
    let options = StackOptions { concurrency: WORKERS, ..StackOptions::default() };
    let options = options
        .edit_plugin(move |plugin| {
            if let Some(rule) = plugin.pointer_mut("/rules/1/quotas") {
                *rule = json!([]);
            }
            if let Some(origin) = plugin.get_mut("origin").and_then(serde_json::Value::as_object_mut) {
                origin.insert("long_poll_seconds".to_owned(), json!(long_poll_seconds));
                origin.insert("poll_interval_ms".to_owned(), json!(INTERVAL_MILLIS));
            }
        })
        .edit_bootstrap(|bootstrap| {
            let listener = bootstrap.pointer_mut("/static_resources/listeners/0");
            if let Some(listener) = listener.and_then(serde_json::Value::as_object_mut) {
                listener.insert("connection_balance_config".to_owned(), json!({ "exact_balance": {} }));
            }
        });
    let stack = Stack::start_with(options, evidence).await?;
    stack.issuer.add_user("alice", PASSWORD, "free", &[], &["read"]).await?;
    let clients: Vec<Client> = (0..WORKERS).map(|_| Client::new()).collect();
    let url = format!("{}/x", stack.envoy.url());
    // Opened one after another, the connections are dealt to the workers in turn.
    for client in &clients {
        client.get(&format!("{}/public/", stack.envoy.url())).send_ok().await?;
    }
    let stats = stack.envoy.stats("listener.").await?;
    for worker in 0..WORKERS {
        let name = format!(".worker_{worker}.downstream_cx_active");
        ensure!(
            stats.iter().any(|(stat, active)| stat.ends_with(&name) && *active > 0),
            "no connection on {name}"
        );
    }
    let mut took = Vec::new();
    for _ in 0..REVOCATIONS {
        let token = stack.issuer.login("alice", PASSWORD).await?.access_token;
        for client in &clients {
            let status = client.get(&url).bearer(&token).send().await?.status;
            ensure!(status == 200, "{status} before the revocation");
        }
        stack.issuer.revoke_token(&token).await?;
        let acknowledged = Instant::now();
        for client in &clients {
            while client.get(&url).bearer(&token).send().await?.status != 401 {
                ensure!(acknowledged.elapsed() < Duration::from_secs(10), "not refused after ten seconds");
            }
        }
        took.push(acknowledged.elapsed().as_secs_f64() * 1e3);
    }
    Ok(took)
}
