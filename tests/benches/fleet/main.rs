//! What ten thousand edges cost one issuer, how soon they know of a revocation, and how small a set of revocations can be said.
//!
//! `cargo bench -p tollgate-tests --bench fleet -- <part>` runs one part: `edges`, `sets` or `start`; without a name all of them.
//! `EDGES=1000` has fewer edges. The issuer that is measured is this program too, started with the issuer's own arguments. Both
//! need a descriptor for each edge and some hundred more (`ulimit -n`), and share the machine: the edges' own work is in the times.

mod edges;
mod log;
mod outage;
mod reports;
mod sets;
mod start;

use std::sync::Arc;

use anyhow::{Result, ensure};
use clap::Parser as _;
use tollgate_issuer::cli::{Cli, run};
use tollgate_issuer::clock::SystemHost;
use tollgate_issuer::huge_pages::start_again_with_huge_pages;
use tollgate_tests::clock;

const PARTS: [&str; 3] = ["edges", "sets", "start"];

#[tokio::main]
async fn main() -> Result<()> {
    let environment = std::env::vars().collect::<std::collections::BTreeMap<_, _>>();
    if std::env::args().nth(1).is_some_and(|argument| argument == "serve") {
        start_again_with_huge_pages();
        let (input, output) = (&mut std::io::empty(), &mut std::io::sink());
        return Ok(run(Cli::parse(), &environment, Arc::new(SystemHost::new()), input, output).await?);
    }
    let edges = environment.get("EDGES").map_or(Ok(10_000), |text| text.parse())?;
    let arguments = std::env::args().skip(1);
    let wanted: Vec<String> = arguments.filter(|argument| !argument.starts_with('-')).collect();
    for part in &wanted {
        ensure!(PARTS.contains(&part.as_str()), "there is no part {part}; there are {PARTS:?}");
    }
    let wanted = |part: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == part);
    if wanted("edges") {
        outage::run(edges).await?;
    }
    if wanted("sets") {
        sets::run()?;
    }
    if wanted("start") {
        start::run().await?;
    }
    Ok(())
}
