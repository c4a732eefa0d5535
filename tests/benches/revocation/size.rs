//! How large a snapshot is next to its entropy, what a VM needs for it, and how long a look-up takes in wasm.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tollgate_shared::revocation::StatusIndex;
use tollgate_tests::envoy::{Bootstrap, Envoy, EnvoyOptions};
use tollgate_tests::eventually::eventually;
use tollgate_tests::evidence::Evidence;
use tollgate_tests::module::{self, Variant};
use tollgate_tests::upstream::Upstream;

use super::say;
use super::source::{LIVE, Source, probe, random_set};

/// So few that a round is over before another process gets the core.
const LOOKUPS: u64 = 20_000;
const ROUNDS: usize = 301;

pub(crate) async fn run() -> Result<()> {
    let empty = measure(0).await?;
    for count in [1_000_000, 10_000_000] {
        let Measured { body, further, memory, slowest, lookups } = measure(count).await?;
        let entropy = entropy_bytes(count as f64, f64::from(LIVE));
        say(&format!("{count} of {LIVE} revoked at random"));
        say(&format!(
            "  snapshot: body {body} bytes; the entropy of such a set is {entropy:.0} bytes; ratio {:.3}",
            body as f64 / entropy
        ));
        say(&format!("  one further revocation: body {further} bytes"));
        let growth = (memory as f64 - empty.memory as f64) / 1_048_576.0;
        say(&format!(
            "  memory of a VM: {:.2} MiB, {growth:.2} MiB more than with nothing revoked ({:.2} MiB)",
            memory as f64 / 1_048_576.0,
            empty.memory as f64 / 1_048_576.0
        ));
        say(&format!(
            "  longest step of the worker that fetched it and took it in: {:.2} ms",
            slowest as f64 / 1e6
        ));
        say(&format!("  look-up in wasm: {lookups:.1} ns, median of {ROUNDS} rounds of {LOOKUPS}"));
    }
    Ok(())
}

struct Measured {
    body: usize,
    further: usize,
    memory: u64,
    slowest: u64,
    lookups: f64,
}

/// Envoy's main thread has a VM, too, and it may be that one which takes the answer. What that costs counts when a worker does: so
/// it is tried until one did.
async fn measure(count: u64) -> Result<Measured> {
    for _ in 0..20 {
        if let Some(measured) = measure_if_a_worker_leads(count).await? {
            return Ok(measured);
        }
    }
    bail!("no worker ever led")
}

async fn measure_if_a_worker_leads(count: u64) -> Result<Option<Measured>> {
    let evidence = Evidence::named(&format!("bench-revocation-size-{count}"))?;
    let module = tokio::task::spawn_blocking(|| module::build(Variant::Probe)).await??;
    let source = Source::new(random_set(count))?;
    let upstream = Upstream::start().await?;
    let bootstrap = Bootstrap::load()?.on_free_ports()?.upstream(upstream.addr())?;
    let bootstrap =
        bootstrap.issuer(source.serve().await?)?.module(&module)?.plugin_config(&source.plugin())?;
    let options = EnvoyOptions { concurrency: 1, ..EnvoyOptions::new(bootstrap) };
    let envoy = Envoy::start(options, &evidence).await?;
    let number = |state: &Value, name: &str| state.get(name).and_then(Value::as_u64);
    let mut slowest = 0;
    let mut have = async |wanted: u64| {
        eventually("the worker to have what is revoked", Duration::from_secs(60), async || {
            let state = probe(envoy.addr(), "state").await?;
            slowest = slowest.max(number(&state, "slowest_step_nanoseconds").unwrap_or_default());
            ensure!(number(&state, "revoked") == Some(wanted), "{state}");
            Ok::<_, anyhow::Error>(state)
        })
        .await
    };
    let state = have(count).await?;
    if state.get("leads") != Some(&Value::Bool(true)) {
        return Ok(None);
    }
    let free = (0..LIVE).map(StatusIndex).find(|index| !source.has(*index));
    let end = source.revoke(&[free.context("something is not revoked")?]);
    let further = source.delta(end - 1, None)?.len();
    let state = have(count + 1).await?;
    let memory = number(&state, "memory_bytes").context("the memory")?;
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let looked = probe(envoy.addr(), &format!("lookups={LOOKUPS}")).await?;
        let nanoseconds = |name: &str| number(&looked, name).map(|time| time as f64).context("a time");
        rounds.push((nanoseconds("nanoseconds")? - nanoseconds("without_nanoseconds")?) / LOOKUPS as f64);
    }
    rounds.sort_by(f64::total_cmp);
    let lookups = rounds.get(ROUNDS / 2).copied().context("rounds")?;
    Ok(Some(Measured { body: source.snapshot_bytes(), further, memory, slowest, lookups }))
}

/// The entropy of a set of `count` among `all`: log2 of the number of such sets, in bytes.
fn entropy_bytes(count: f64, all: f64) -> f64 {
    let part = count / all;
    let bits = -(part * part.log2() + (1.0 - part) * (1.0 - part).log2());
    // The binomial coefficient is that less half the logarithm of what follows from Stirling.
    (all * bits - 0.5 * (2.0 * std::f64::consts::PI * all * part * (1.0 - part)).log2()) / 8.0
}
