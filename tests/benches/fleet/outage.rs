//! Ten thousand edges that wait, that are told, and that come back after the issuer was away.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use base64ct::{Base64UrlUnpadded, Encoding as _};
use serde_json::json;
use tollgate_shared::wire::feed::TrustAnchor;
use tollgate_tests::evidence::Evidence;
use tollgate_tests::issuer::{Issuer, IssuerOptions, Program};

use crate::clock;
use crate::edges::{Fleet, Reading};
use crate::log;
use crate::reports::POOL_MAX;

const STEADY: Duration = Duration::from_secs(20);
const AWAY: Duration = Duration::from_secs(60);
/// So many that they are told by segments, too.
const MISSED: u64 = 3_000;
const PATIENCE: Duration = Duration::from_secs(180);

#[expect(clippy::print_stdout, reason = "a benchmark is what it prints")]
pub(crate) async fn run(count: usize) -> Result<()> {
    let evidence = Evidence::named("bench-fleet")?;
    let options =
        IssuerOptions { program: Program::At(std::env::current_exe()?), ..IssuerOptions::default() };
    // Each edge has one, and may open new ones before the old ones are known to be closed.
    let room = (4 * count).to_string();
    let options = options
        .with("CONNECTIONS_MAX", &room)
        .with("CONNECTIONS_PER_ADDRESS_MAX", &room)
        .with("LOG__LEVEL", "warn");
    let mut issuer = Issuer::start(options, &evidence).await?;
    let credentials = log::add_edges(issuer.data(), count).await?;
    let before = clock::status_kib(issuer.process().id(), "VmRSS")?;
    let anchor = Base64UrlUnpadded::decode_vec(issuer.trust_anchor())?;
    let anchor = anchor.try_into().ok().and_then(|bytes| TrustAnchor::new(&bytes)).context("an anchor")?;
    let fleet = Fleet::new(issuer.addr(), anchor);
    let mut edges = fleet.follow(credentials);
    wait("all edges to wait", || fleet.waiting.load(Ordering::SeqCst) == count).await?;
    // Until the last of them has come to wait, and not only asked.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let held = clock::status_kib(issuer.process().id(), "VmRSS")?;
    println!(
        "{count} edges wait, each on a connection of its own, and report on {POOL_MAX} together: VmRSS {} MiB, {:.1} KiB more for each \
         than with none",
        held / 1024,
        held.saturating_sub(before) as f64 / count as f64
    );

    steady(&issuer, &fleet, count).await?;
    told(&issuer, &fleet, count).await?;
    away(&mut issuer, &fleet, count).await?;
    told(&issuer, &fleet, count).await?;
    println!("VmHWM {} MiB", clock::status_kib(issuer.process().id(), "VmHWM")? / 1024);
    fleet.end();
    edges.abort_all();
    while edges.join_next().await.is_some() {}
    Ok(())
}

async fn revoke(issuer: &Issuer, name: &str) -> Result<u64> {
    let order = json!({ "dimension": "session", "value": name });
    let answer = issuer.operator("POST", "/v1/admin/revocations").json(&order).send_ok().await?;
    answer.json_at("/position")?.as_u64().context("a position")
}

/// Nothing new, then one revocation a second.
#[expect(clippy::print_stdout, reason = "a benchmark is what it prints")]
async fn steady(issuer: &Issuer, fleet: &Fleet, count: usize) -> Result<()> {
    for (name, revocations) in [("nothing new", 0), ("one revocation a second", 1)] {
        let (begun, cpu) = (fleet.read(), cpu(issuer)?);
        let (mut ticks, mut number) = (tokio::time::interval(Duration::from_secs(1)), 0);
        while begun.at.elapsed() < STEADY {
            ticks.tick().await;
            for _ in 0..revocations {
                revoke(issuer, &format!("s_steady_{number}")).await?;
                number += 1;
            }
        }
        let (spent, Reading { answers, reports, bytes, at }) =
            (crate::outage::cpu(issuer)? - cpu, fleet.read());
        let seconds = at.duration_since(begun.at).as_secs_f64();
        let (answers, bytes) = (answers - begun.answers, bytes - begun.bytes);
        let reports = reports - begun.reports;
        println!(
            "{count} edges, {name}: {:.0} answers and {:.0} reports a second, {:.0} KiB a second, {:.1} % of a core, \
             {:.0} µs of CPU for an answer or a report",
            answers as f64 / seconds,
            reports as f64 / seconds,
            bytes as f64 / seconds / 1024.0,
            100.0 * spent / seconds,
            1e6 * spent / ((answers + reports) as f64).max(1.0),
        );
    }
    Ok(())
}

/// From one revocation until all have it.
#[expect(clippy::print_stdout, reason = "a benchmark is what it prints")]
async fn told(issuer: &Issuer, fleet: &Fleet, count: usize) -> Result<()> {
    for round in 0..5 {
        wait("all edges to wait", || fleet.waiting.load(Ordering::SeqCst) == count).await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let (before, spent) = (fleet.read(), cpu(issuer)?);
        // Its position is known before it is ordered: nobody else writes.
        let next = issuer.metric("tollgate_issuer_feed_position", "").await? + 1;
        fleet.aim(next);
        let begun = clock::now();
        revoke(issuer, &format!("s_told_{}", clock::millis(begun.elapsed()).to_bits())).await?;
        let acknowledged = begun.elapsed();
        wait("all edges to be told", || fleet.arrived() >= count).await?;
        let all = fleet.arrivals(begun);
        println!(
            "one revocation to {count} edges ({round}): acknowledged after {:.0} ms; median {:.0} ms, p99 {:.0} ms, last {:.0} ms; \
             {} answers and {} reports, {:.2} s of the issuer's CPU",
            clock::millis(acknowledged),
            quantile(&all, 0.5),
            quantile(&all, 0.99),
            quantile(&all, 1.0),
            fleet.read().answers - before.answers,
            fleet.read().reports - before.reports,
            cpu(issuer)? - spent,
        );
    }
    Ok(())
}

/// The issuer is killed, there are many revocations, and it comes back.
#[expect(clippy::print_stdout, reason = "a benchmark is what it prints")]
async fn away(issuer: &mut Issuer, fleet: &Arc<Fleet>, count: usize) -> Result<()> {
    issuer.kill();
    let killed = clock::now();
    let last = log::revoke_sessions(issuer.data(), MISSED).await?;
    fleet.aim(last);
    while killed.elapsed() < AWAY {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (begun, failures) = (fleet.read(), fleet.failures.load(Ordering::SeqCst));
    let reports_failed = fleet.reports_failed.load(Ordering::SeqCst);
    issuer.restart().await?;
    let ready = begun.at.elapsed();
    wait("all edges to catch up", || fleet.arrived() >= count).await?;
    let all = fleet.arrivals(begun.at);
    let Reading { answers, reports, bytes, .. } = fleet.read();
    println!(
        "back after {} s with {MISSED} revocations more: ready after {:.0} ms; {count} edges caught up: median {:.0} ms, p99 {:.0} ms, \
         last {:.0} ms; {} answers ({} of them segments), {} reports, {} polls and {} reports failed, {:.1} MiB, at most {} requests in a second, {:.2} s of the issuer's CPU",
        AWAY.as_secs(),
        clock::millis(ready),
        quantile(&all, 0.5),
        quantile(&all, 0.99),
        quantile(&all, 1.0),
        answers - begun.answers,
        fleet.segments.load(Ordering::SeqCst),
        reports - begun.reports,
        fleet.failures.load(Ordering::SeqCst) - failures,
        fleet.reports_failed.load(Ordering::SeqCst) - reports_failed,
        (bytes - begun.bytes) as f64 / 1024.0 / 1024.0,
        fleet.busiest_second(begun.at),
        cpu(issuer)?,
    );
    Ok(())
}

fn cpu(issuer: &Issuer) -> Result<f64> {
    clock::cpu_seconds(&issuer.process().id().to_string(), "")
}

fn quantile(ascending: &[f64], share: f64) -> f64 {
    let last = ascending.len().saturating_sub(1);
    ascending.get((last as f64 * share).round() as usize).copied().unwrap_or(f64::NAN)
}

async fn wait(what: &str, holds: impl Fn() -> bool) -> Result<()> {
    let begun: Instant = clock::now();
    while !holds() {
        ensure!(begun.elapsed() < PATIENCE, "{what} took too long");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}
