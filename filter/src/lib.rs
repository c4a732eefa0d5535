//! The decision engine of the edge, and one thin adapter for each host it runs in.
//!
//! The compile target picks the host: `wasm32-wasip1` is a proxy-wasm module for Envoy; everywhere else this is a plain
//! library in which [`engine`] and [`config`] are tested at full speed without a host.

pub mod config;
pub mod engine;

#[cfg(all(target_arch = "wasm32", target_os = "wasi"))]
mod envoy;
