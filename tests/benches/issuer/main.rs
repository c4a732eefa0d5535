//! What the issuer does in a second and how soon it answers, next to a peer in the same run; absolute figures are the
//! machine's.
//!
//! `cargo bench -p tollgate-tests --bench issuer -- <part>` runs one part: `logins`, `memory`, `oidc-provider` or
//! `refusals`; without a name all of them, one after another. A slow figure is no failure; one that could not be had is.
//!
//! The issuer that is measured is this program too, started with the issuer's own arguments: it is the same library, built
//! once and as it is used.

mod connection;
mod load;
mod logins;
mod memory;
mod peer;
mod people;
mod refusals;

use anyhow::{Result, ensure};
use clap::Parser as _;
use std::sync::Arc;
use tollgate_issuer::cli::{Cli, run};
use tollgate_issuer::clock::SystemHost;
use tollgate_issuer::huge_pages::start_again_with_huge_pages;
use tollgate_tests::clock;

const PARTS: [&str; 4] = ["logins", "memory", "oidc-provider", "refusals"];

#[tokio::main]
async fn main() -> Result<()> {
    if std::env::args().nth(1).is_some_and(|argument| argument == "serve") {
        start_again_with_huge_pages();
        let environment = std::env::vars().collect();
        return Ok(run(
            Cli::parse(),
            &environment,
            Arc::new(SystemHost::new()),
            &mut std::io::empty(),
            &mut std::io::sink(),
        )
        .await?);
    }
    let arguments = std::env::args().skip(1);
    let wanted: Vec<String> = arguments.filter(|argument| !argument.starts_with('-')).collect();
    for part in &wanted {
        ensure!(PARTS.contains(&part.as_str()), "there is no part {part}; there are {PARTS:?}");
    }
    let wanted = |part: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == part);
    if wanted("logins") {
        logins::run().await?;
    }
    if wanted("memory") {
        memory::run().await?;
    }
    if wanted("oidc-provider") {
        peer::run().await?;
    }
    if wanted("refusals") {
        refusals::run().await?;
    }
    Ok(())
}
