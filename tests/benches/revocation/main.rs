//! What revocation costs at scale, in a real Envoy: bytes of a snapshot, memory of a VM, a look-up in wasm, and what traffic
//! notices of a storm.
//!
//! `cargo bench -p tollgate-tests --bench revocation -- PART`: `size`, `storm` or `propagation`; all of them without one.

mod propagation;
mod size;
mod source;
mod storm;

use anyhow::Result;

#[tokio::main]
async fn main() -> Result<()> {
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let is_wanted = |part: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == part);
    if is_wanted("size") {
        size::run().await?;
    }
    if is_wanted("storm") {
        storm::run().await?;
    }
    if is_wanted("propagation") {
        propagation::run().await?;
    }
    Ok(())
}

/// Prints a line of the report.
#[expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]
fn say(line: &str) {
    println!("{line}");
}

/// The value below which this part of the sorted values lies.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let place = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(place.saturating_sub(1)).copied().unwrap_or_default()
}
