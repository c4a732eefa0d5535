//! End-to-end tests: what Tollgate promises, shown on the real programs.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout, reason = "a test fails by panicking, and says what it measured")]

mod conversation;
mod demo;
mod outage;
mod revocation;
