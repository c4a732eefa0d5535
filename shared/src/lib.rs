//! What the issuer and the edge must agree on: what a token is, what is revoked, how much may be spent, and the
//! messages that carry all three.
//!
//! Everything here is pure. Time, randomness and keys are arguments; there is no clock, socket, environment or
//! logger, so that one engine gives one answer on every host and a test needs neither a port nor a sleep.

#![forbid(unsafe_code)]

pub mod id;
pub mod quota;
pub mod revocation;
pub mod time;
pub mod token;
pub mod wire;
