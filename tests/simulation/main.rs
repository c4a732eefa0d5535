//! Issuer and edges in virtual time, under everything that a network, a machine and a clock may do: what was acknowledged at an
//! instant is nowhere admitted later than the hard limit after it, and no good token is ever refused as revoked.

#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it measured"
)]

mod cases;
mod database;
mod issuer;
mod network;
mod process;
mod properties;
mod random;
mod scenarios;
mod tokens;
mod world;
