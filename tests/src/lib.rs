//! Owns the real processes that the end-to-end tests and the demo run against.
//!
//! Everything listens on a port that the system picked, is waited for by looking at it, and is killed when its
//! owner is dropped. What a failed test leaves behind is in `target/evidence`.

#![forbid(unsafe_code)]

mod accepting;
pub mod client;
pub mod clock;
pub mod envoy;
pub mod eventually;
pub mod evidence;
pub mod faked_clock;
pub mod fault_proxy;
pub mod feed_proxy;
pub mod foreign;
pub mod issuer;
pub mod module;
pub mod postgres_server;
pub mod process;
pub mod redis_server;
pub mod samples;
pub mod schemathesis;
pub mod stack;
pub mod tools;
pub mod upstream;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The folder that holds the workspace's `Cargo.toml`.
pub fn workspace_root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// The folder that cargo builds into: `CARGO_TARGET_DIR`, or `target` in the workspace.
pub fn target_directory() -> PathBuf {
    let root = workspace_root();
    match environment("CARGO_TARGET_DIR") {
        Some(directory) => root.join(directory),
        None => root.join("target"),
    }
}

/// Reads one variable of the environment; an empty one counts as absent. The harness reads it nowhere else.
pub(crate) fn environment(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}
