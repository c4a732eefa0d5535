//! The program `tollgate-issuer`: hands its arguments, environment and signals to the library.

#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use tollgate_issuer::cli::{Cli, run};
use tollgate_issuer::clock::SystemHost;
use tollgate_issuer::huge_pages::start_again_with_huge_pages;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.serves() {
        start_again_with_huge_pages();
    }
    // Names or values that are not Unicode cannot be settings of ours.
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let host = Arc::new(SystemHost::new());
    match run(cli, &environment, host, &mut std::io::stdin().lock(), &mut std::io::stdout()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If standard error is gone, the exit code has to do.
            let _ = writeln!(std::io::stderr(), "tollgate-issuer: {error}");
            ExitCode::FAILURE
        }
    }
}
