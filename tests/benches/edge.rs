//! What the filter costs Envoy, next to Envoy's own filters, as CPU time for each request in one run.
//!
//! `cargo bench -p tollgate-tests` prints medians over interleaved rounds and ratios; absolute figures are the machine's.

#[path = "../e2e/foreign.rs"]
#[expect(
    dead_code,
    clippy::expect_used,
    reason = "shared with the tests, which use all of it and fail by panicking"
)]
mod foreign;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use foreign::{Algorithm, ForeignIssuer};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tollgate_tests::client::Client;
use tollgate_tests::envoy::{Bootstrap, Envoy, EnvoyOptions};
use tollgate_tests::evidence::Evidence;
use tollgate_tests::module::{self, Variant};
use tollgate_tests::upstream::Upstream;

const ROUNDS: usize = 9;
const REQUESTS: usize = 8_000;
/// Connections at once: enough that Envoy does not sleep between requests, which would count as its work.
const CONNECTIONS: usize = 16;

/// One Envoy, and the tokens it is asked with: one again and again, or a new one each time.
struct Contestant {
    name: String,
    envoy: Envoy,
    algorithm: Algorithm,
    new_tokens: bool,
    microseconds: Vec<f64>,
}

#[expect(clippy::indexing_slicing, reason = "the shipped bootstrap has this shape; its lint is a test")]
fn filters(bootstrap: &mut Value) -> &mut Value {
    &mut bootstrap["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
}

fn tollgate() -> Value {
    json!({
        "providers": [{
            "name": "foreign",
            "issuer": "https://foreign.example",
            "audiences": ["api"],
            "keys": { "inline_jwks": ForeignIssuer::shared().jwks().to_string() },
            "claim_to_headers": [{ "claim_name": "sub", "header_name": "x-tollgate-subject" }],
        }],
        "rules": [{ "match": { "prefix": "/" }, "requires": { "scopes": ["read"] } }],
    })
}

#[expect(clippy::indexing_slicing, reason = "the object is the one above")]
fn native(cache: bool) -> Value {
    let mut provider = json!({
        "issuer": "https://foreign.example",
        "audiences": ["api"],
        "local_jwks": { "inline_string": ForeignIssuer::shared().jwks().to_string() },
        "claim_to_headers": [{ "claim_name": "sub", "header_name": "x-tollgate-subject" }],
    });
    if cache {
        provider["jwt_cache_config"] = json!({ "jwt_cache_size": 10_000 });
    }
    json!([
        {
            "name": "envoy.filters.http.jwt_authn",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
                "providers": { "foreign": provider },
                "rules": [{ "match": { "prefix": "/" }, "requires": { "provider_name": "foreign" } }],
            },
        },
        {
            "name": "envoy.filters.http.local_ratelimit",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
                "stat_prefix": "bench",
                "token_bucket": { "max_tokens": 1_000_000_000, "tokens_per_fill": 1_000_000_000, "fill_interval": "1s" },
                "filter_enabled": { "default_value": { "numerator": 100 } },
                "filter_enforced": { "default_value": { "numerator": 100 } },
            },
        },
    ])
}

/// CPU time that a process's threads have used, in microseconds, from the scheduler's count of nanoseconds.
fn cpu_microseconds(pid: u32) -> Result<f64> {
    let mut nanoseconds = 0.0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let times = std::fs::read_to_string(thread?.path().join("schedstat"))?;
        let on_cpu = times.split_whitespace().next().and_then(|field| field.parse::<f64>().ok());
        nanoseconds += on_cpu.context("a time on the CPU")?;
    }
    Ok(nanoseconds / 1000.0)
}

#[expect(clippy::disallowed_methods, reason = "real Envoy runs on the real clock")]
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or_default()
}

async fn round(contestant: &mut Contestant) -> Result<()> {
    let Contestant { envoy, algorithm, new_tokens, microseconds, .. } = contestant;
    let issuer = ForeignIssuer::shared();
    let count = if *new_tokens { REQUESTS } else { 1 };
    // `jti` is new in each.
    let tokens: Vec<String> = (0..count).map(|_| issuer.token(*algorithm, &issuer.claims(now()))).collect();
    let tokens = Arc::new(tokens);
    let url = format!("{}/x", envoy.url());
    let before = cpu_microseconds(envoy.process().id())?;
    let mut connections = JoinSet::new();
    for connection in 0..CONNECTIONS {
        let (tokens, url) = (Arc::clone(&tokens), url.clone());
        connections.spawn(async move {
            let client = Client::new();
            for number in (connection..REQUESTS).step_by(CONNECTIONS) {
                let token = tokens.get(number % count).context("a token")?;
                let answer = client.get(&url).bearer(token).send().await?;
                ensure!(answer.status == 200, "{answer}");
            }
            Ok(())
        });
    }
    while let Some(ended) = connections.join_next().await {
        ended??;
    }
    let after = cpu_microseconds(envoy.process().id())?;
    microseconds.push((after - before) / REQUESTS as f64);
    Ok(())
}

fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "a benchmark is what it prints")]
async fn main() -> Result<()> {
    let evidence = Evidence::named("bench-edge")?;
    let upstream = Upstream::start().await?;
    let shipped = module::build(Variant::Shipped)?;
    let whole = module::linked(Variant::Shipped);
    let base = || -> Result<Bootstrap> {
        Bootstrap::load()?
            .on_free_ports()?
            .upstream(upstream.addr())?
            .module(&shipped)?
            .plugin_config(&tollgate())
    };
    // `cargo bench -p tollgate-tests -- warm` runs those with `warm` in their names, and the one without a filter.
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let mut contestants: Vec<Contestant> = Vec::new();
    let mut add = async |name: &str, bootstrap: Bootstrap, algorithm, new_tokens| -> Result<()> {
        let chosen = wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str()));
        if !chosen && !contestants.is_empty() {
            return Ok(());
        }
        let options = EnvoyOptions { concurrency: 1, ..EnvoyOptions::new(bootstrap) };
        let envoy = Envoy::start_named(name, options, &evidence).await?;
        contestants.push(Contestant {
            name: name.to_owned(),
            envoy,
            algorithm,
            new_tokens,
            microseconds: Vec::new(),
        });
        Ok(())
    };
    let without = |bootstrap: &mut Value| {
        if let Some(filters) = filters(bootstrap).as_array_mut() {
            filters.remove(0);
        }
    };
    let with_native = |cache: bool| {
        move |bootstrap: &mut Value| {
            let filters = filters(bootstrap);
            let router = filters.get(1).cloned().unwrap_or_default();
            let mut chain = native(cache).as_array().cloned().unwrap_or_default();
            chain.push(router);
            *filters = Value::Array(chain);
        }
    };
    let warm = Algorithm::EdDsa;
    add("no-filter", base()?.edit(without), warm, false).await?;
    add("tollgate-warm", base()?, warm, false).await?;
    add("tollgate-warm-all-exports", base()?.module(&whole)?, warm, false).await?;
    add("native-warm", base()?.edit(with_native(true)), warm, false).await?;
    for (algorithm, name) in
        [(Algorithm::EdDsa, "eddsa"), (Algorithm::Es256, "es256"), (Algorithm::Rs256, "rs256")]
    {
        add(&format!("tollgate-cold-{name}"), base()?, algorithm, true).await?;
        add(&format!("native-cold-{name}"), base()?.edit(with_native(false)), algorithm, true).await?;
    }
    let count = contestants.len();
    for number in 0..ROUNDS {
        // Each round begins with another one, so that none always follows the same.
        for place in 0..count {
            let contestant = contestants.get_mut((number + place) % count).context("contestants")?;
            round(contestant).await.with_context(|| contestant.name.clone())?;
        }
    }
    let bare = contestants.first().context("contestants")?.microseconds.clone();
    let floor = median(&bare);
    println!(
        "CPU of Envoy for one request, median of {ROUNDS} rounds of {REQUESTS}; `added` is over no filter ({floor:.1} µs)"
    );
    let added = |name: &str| {
        let found = contestants.iter().find(|contestant| contestant.name == name);
        // Differences within a round: what slows the machine down for a while slows both.
        let differences = |contestant: &Contestant| -> Vec<f64> {
            contestant.microseconds.iter().zip(&bare).map(|(ours, bare)| ours - bare).collect()
        };
        found.map(|contestant| median(&differences(contestant))).unwrap_or_default()
    };
    for contestant in contestants.iter().skip(1) {
        println!("{:28} added {:7.1} µs", contestant.name, added(&contestant.name));
    }
    for (ours, peer) in [
        ("tollgate-warm", "native-warm"),
        ("tollgate-warm", "tollgate-warm-all-exports"),
        ("tollgate-cold-eddsa", "native-cold-eddsa"),
        ("tollgate-cold-es256", "native-cold-es256"),
        ("tollgate-cold-rs256", "native-cold-rs256"),
    ] {
        if added(ours) != 0.0 && added(peer) != 0.0 {
            println!("{ours} / {peer}: {:.2}", added(ours) / added(peer));
        }
    }
    Ok(())
}
