//! The bytes that issuer and edge exchange: versioned messages, and the only home of serde outside the token.
//!
//! Domain types stop at this door; each message is taken apart and checked before anything acts on it. Fields that
//! are not known are passed over, so that an older edge understands a newer issuer; a message *kind* that is not
//! known is an error, and the edge asks for a snapshot.

mod expiries;
pub mod feed;
mod gaps;
pub mod quota;
