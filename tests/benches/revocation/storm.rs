//! What admitted traffic notices while a million revocations arrive and are taken in.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::task::JoinSet;
use tollgate_shared::revocation::StatusIndex;
use tollgate_shared::token::{AccessToken, IssuedStatus};
use tollgate_tests::client::Client;
use tollgate_tests::envoy::{Bootstrap, Envoy, EnvoyOptions};
use tollgate_tests::eventually::eventually;
use tollgate_tests::evidence::Evidence;
use tollgate_tests::module::{self, Variant};
use tollgate_tests::upstream::Upstream;

use super::source::{LIVE, Random, Source, apart, now, probe, random_set};
use super::{quantile, say};

const REVOCATIONS: usize = 1_002_000;
const STORM_SECONDS: u64 = 20;
const ROUNDS: usize = 3;
const CONNECTIONS: usize = 8;
/// Requests of a connection follow each other with this pause, so that what is measured is not a queue.
const PAUSE: Duration = Duration::from_millis(4);

pub(crate) async fn run() -> Result<()> {
    let evidence = Evidence::named("bench-revocation-storm")?;
    let module = tokio::task::spawn_blocking(|| module::build(Variant::Probe)).await??;
    let source = Source::new(random_set(0))?;
    let upstream = Upstream::start().await?;
    let bootstrap = Bootstrap::load()?.on_free_ports()?.upstream(upstream.addr())?;
    let bootstrap =
        bootstrap.issuer(source.serve().await?)?.module(&module)?.plugin_config(&source.plugin())?;
    let envoy =
        Envoy::start(EnvoyOptions { concurrency: 2, ..EnvoyOptions::new(bootstrap) }, &evidence).await?;
    let token = token(&source)?;
    let client = Client::fresh_connections();
    let url = format!("{}/x", envoy.url());
    eventually("the edge to admit", Duration::from_secs(30), async || {
        // So many new connections that each worker is among those they meet.
        for _ in 0..16 {
            let status = client.get(&url).bearer(&token).send().await?.status;
            ensure!(status == 200, "{status}");
        }
        Ok(())
    })
    .await?;
    // Or it could be the VM of Envoy's main thread, which serves nobody.
    eventually("a worker to lead", Duration::from_secs(30), async || {
        probe(envoy.addr(), "lead").await?;
        standing(&envoy).await.map(drop)
    })
    .await?;
    let mut random = Random(7);
    let (mut calm, mut storm, mut shares) = (Vec::new(), Vec::new(), Vec::new());
    let (mut idle, mut busy) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let quiet = standing(&envoy).await?;
        calm.extend(traffic(&url, &token, Duration::from_secs(STORM_SECONDS / 2)).await?);
        let before = standing(&envoy).await?;
        idle.extend(before.spent_since(&quiet, STORM_SECONDS / 2)?);
        let raging = apart(rage(source.clone(), random.next(), REVOCATIONS / ROUNDS))?;
        storm.extend(traffic(&url, &token, Duration::from_secs(STORM_SECONDS)).await?);
        let after = standing(&envoy).await?;
        let end = raging.await??;
        shares.push((after.position - before.position) as f64 / (end - before.position) as f64);
        busy.extend(after.spent_since(&before, STORM_SECONDS)?);
        let wanted = |state: &Value| state.get("position").and_then(Value::as_u64) >= Some(end);
        eventually("the storm to be over", Duration::from_secs(60), async || {
            let state = probe(envoy.addr(), "state").await?;
            ensure!(wanted(&state), "round {round}: {state}, of {end}");
            Ok(())
        })
        .await?;
    }
    calm.sort_by(f64::total_cmp);
    storm.sort_by(f64::total_cmp);
    let state = probe(envoy.addr(), "state").await?;
    say(&format!(
        "{REVOCATIONS} revocations in {ROUNDS} storms of {STORM_SECONDS} s, two workers, {CONNECTIONS} connections"
    ));
    for (name, times) in [("without", &calm), ("with", &storm)] {
        say(&format!(
            "  {name:8} p50 {:.3} ms, p99 {:.3} ms, maximum {:.1} ms of {} requests",
            quantile(times, 0.5),
            quantile(times, 0.99),
            times.last().copied().unwrap_or_default(),
            times.len()
        ));
    }
    say(&format!("  p99 with / without: {:.2}", quantile(&storm, 0.99) / quantile(&calm, 0.99)));
    say(&format!("  part of each storm that every worker enforced when its traffic ended: {shares:.3?}"));
    for (name, spent) in [("without", &idle), ("with", &busy)] {
        say(&format!(
            "  {name:8} part of its time that a worker spent in steps, and the longest: {}",
            spent.join(", ")
        ));
    }
    say(&format!("  a worker at the end: {state}"));
    Ok(())
}

/// How the workers are doing.
struct Standing {
    /// The lowest position.
    position: u64,
    /// Of the leader and of another one, what all steps took and what the longest did since this was asked last, in nanoseconds.
    steps: BTreeMap<&'static str, (u64, u64)>,
}

impl Standing {
    /// The part of these seconds that each worker spent in steps, and its longest one.
    fn spent_since(&self, before: &Self, seconds: u64) -> Result<Vec<String>> {
        let of_worker = |(worker, (stepped, slowest)): (&&str, &(u64, u64))| {
            let (stepped_before, _) = before.steps.get(worker).context("the worker was there")?;
            let spent = stepped.checked_sub(*stepped_before).context("another worker leads than before")?;
            let part = spent as f64 / 1e7 / seconds as f64;
            Ok(format!("{worker} {part:.2} % ({:.2} ms)", *slowest as f64 / 1e6))
        };
        self.steps.iter().map(of_worker).collect()
    }
}

/// What those say that new connections meet: as many that each worker is among them.
async fn standing(envoy: &Envoy) -> Result<Standing> {
    let mut standing = Standing { position: u64::MAX, steps: BTreeMap::new() };
    for _ in 0..16 {
        let state = probe(envoy.addr(), "state").await?;
        let number = |name: &str| state.get(name).and_then(Value::as_u64).with_context(|| name.to_owned());
        standing.position = standing.position.min(number("position")?);
        let leads = state.get("leads").and_then(Value::as_bool).context("leads")?;
        let (stepped, slowest) =
            standing.steps.entry(if leads { "the leader" } else { "the other" }).or_default();
        *stepped = number("stepped_nanoseconds")?.max(*stepped);
        *slowest = number("slowest_step_nanoseconds")?.max(*slowest);
    }
    ensure!(standing.steps.len() == 2, "one of the workers leads, and one does not");
    Ok(standing)
}

fn token(source: &Source) -> Result<String> {
    let issued_at = now().seconds();
    source
        .token_key()
        .issue(AccessToken {
            issuer: "https://issuer.test",
            subject: "u",
            audience: "api",
            client: "c",
            token_id: "t",
            issued_at,
            expires_at: issued_at.plus(3_600),
            scope: "read",
            roles: &[],
            tenant: None,
            plan: "free",
            session: Some("s"),
            // In a list that no storm reaches.
            status: IssuedStatus::new(0, "https://issuer.test/v1/status/4000"),
        })
        .context("a token")
}

/// Revokes so many, spread over the storm.
async fn rage(source: Source, seed: u64, count: usize) -> Result<u64> {
    let mut random = Random(seed);
    let waves = STORM_SECONDS as usize * 10;
    let mut end = 0;
    let mut pace = tokio::time::interval(Duration::from_millis(100));
    for _ in 0..waves {
        pace.tick().await;
        let wave: Vec<StatusIndex> =
            (0..count / waves).map(|_| StatusIndex((random.next() % u64::from(LIVE)) as u32)).collect();
        end = source.revoke(&wave);
    }
    Ok(end)
}

/// How long each admitted request took, in milliseconds.
#[expect(clippy::disallowed_methods, reason = "the time of requests is what is measured")]
async fn traffic(url: &str, token: &str, lasts: Duration) -> Result<Vec<f64>> {
    let began = Instant::now();
    let mut connections = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (url, token) = (url.to_owned(), token.to_owned());
        connections.spawn(async move {
            let client = Client::new();
            let mut times = Vec::new();
            while began.elapsed() < lasts {
                let asked = Instant::now();
                let status = client.get(&url).bearer(&token).send().await?.status;
                ensure!(status == 200, "{status}");
                times.push(asked.elapsed().as_secs_f64() * 1e3);
                tokio::time::sleep(PAUSE).await;
            }
            Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(connection) = connections.join_next().await {
        times.extend(connection??);
    }
    Ok(times)
}
