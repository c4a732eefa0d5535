//! End-to-end tests: what Tollgate promises, shown on the real programs.

#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it measured"
)]

mod bootstrap;
mod cache;
mod canaries;
mod configuration;
mod conversation;
mod counters;
mod crash;
mod demo;
mod faults;
mod foreign;
mod foreign_clients;
mod hostile;
mod issuer;
mod key_rotation;
mod openapi;
mod outage;
mod remote_keys;
mod replicas;
mod revocation;
mod signatures;
mod slow_clients;
mod spoofing;
mod stores;
mod tokens;
mod workers;

/// Says, past the capture of output, that something could not be run here.
fn not_run(why: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "NOT RUN: {why}");
}
