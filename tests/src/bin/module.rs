//! Builds the module that Envoy loads and prints its size and digest.

#![forbid(unsafe_code)]

use anyhow::{Result, bail};
use tollgate_tests::module::{self, Variant};
use tollgate_tests::workspace_root;

fn main() -> Result<()> {
    let mut variant = Variant::Shipped;
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--probe" => variant = Variant::Probe,
            other => bail!("unknown argument {other}; usage: cargo module [--probe]"),
        }
    }
    let path = module::build(variant)?;
    let bytes = std::fs::metadata(&path)?.len();
    let digest = module::sha256_hex(&path)?;
    let root = workspace_root();
    let shown = path.strip_prefix(&root).unwrap_or(&path).display();
    #[expect(clippy::print_stdout, reason = "printing it is what this program is for")]
    {
        println!("{shown}  {bytes} bytes  sha256:{digest}");
    }
    Ok(())
}
