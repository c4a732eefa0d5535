//! How long an issuer takes to start with a million revocations in force, and to notice a million that another wrote.

use std::time::Duration;

use anyhow::{Result, ensure};
use tollgate_tests::evidence::Evidence;
use tollgate_tests::issuer::{Issuer, IssuerOptions, Program};

use crate::{clock, log};

const MANY: u64 = 1_000_000;
const BLOCKS: u64 = 1_525;

#[expect(clippy::print_stdout, reason = "a benchmark is what it prints")]
pub(crate) async fn run() -> Result<()> {
    let evidence = Evidence::named("bench-fleet-start")?;
    let options =
        IssuerOptions { program: Program::At(std::env::current_exe()?), ..IssuerOptions::default() };
    let mut issuer = Issuer::start(options.with("LOG__LEVEL", "warn"), &evidence).await?;
    let edge = issuer.add_edge("edge").await?;
    let rss = |issuer: &Issuer| clock::status_kib(issuer.process().id(), "VmRSS");
    let before = rss(&issuer)?;
    let last = log::revoke_tokens(issuer.data(), MANY, BLOCKS).await?;
    let begun = clock::now();
    while issuer.metric("tollgate_issuer_feed_position", "").await? < last {
        ensure!(begun.elapsed() < Duration::from_secs(60), "not noticed");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!(
        "{MANY} revocations by another process: known {:.1} s after they were committed; VmRSS {} MiB, {} before",
        begun.elapsed().as_secs_f64(),
        rss(&issuer)? / 1024,
        before / 1024
    );
    let begun = clock::now();
    issuer.restart().await?;
    println!(
        "start with {MANY} revocations in force: ready after {:.1} s; VmRSS {} MiB",
        begun.elapsed().as_secs_f64(),
        rss(&issuer)? / 1024
    );
    for which in ["first", "second"] {
        let begun = clock::now();
        let client = tollgate_tests::client::Client::new();
        let answer =
            client.get(&format!("{}/v1/edge/feed", issuer.base_url())).bearer(&edge).send_ok().await?;
        let millis = clock::millis(begun.elapsed());
        println!(
            "the {which} snapshot: {} bytes after {millis:.0} ms; VmRSS {} MiB",
            answer.body.len(),
            rss(&issuer)? / 1024
        );
    }
    Ok(())
}
