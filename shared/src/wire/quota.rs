//! Quota messages: one batch a second from edge to issuer, and its answer. JSON; the words are those of Envoy's
//! rate-limit-quota service.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The most entries of each list in a batch. The rest waits for the next one.
pub const BATCH_ENTRIES_MAX: usize = 1000;
/// The longest batch or answer that is read, in bytes.
pub const BATCH_BYTES_MAX: usize = 2 * 1024 * 1024;

/// What is counted together: names and values, such as `{"quota": "api", "subject": "u_1"}`.
pub type WireBucket = BTreeMap<String, String>;

/// What an edge tells and asks. Applied once for each `(edge, epoch, sequence)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaBatch {
    /// The edge's id; its credential must be for the same one.
    pub edge: String,
    /// A random value that this spender drew when it started: a restarted edge is another spender.
    pub epoch: String,
    /// Counts up by one with each batch that was answered.
    pub sequence: u64,
    /// What was admitted and refused since the last batch.
    #[serde(default)]
    pub usage: Vec<WireUsage>,
    /// Leases asked for.
    #[serde(default)]
    pub wants: Vec<WireWant>,
    /// Units given back.
    #[serde(default)]
    pub returns: Vec<WireReturn>,
}

/// Units spent and refused in one window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireUsage {
    /// Which bucket.
    pub bucket: WireBucket,
    /// The window, by its start in seconds since 1970.
    pub window: u64,
    /// Units admitted.
    pub allowed: u64,
    /// Units refused.
    pub denied: u64,
}

/// A wish for units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireWant {
    /// Which bucket.
    pub bucket: WireBucket,
    /// How many units.
    pub units: u64,
    /// How many it still holds.
    pub held: u64,
    /// Fewer than this many are of no use: the cost of the cheapest request that waits.
    #[serde(default = "one")]
    pub least: u64,
}

/// Units of a lease that ended unspent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireReturn {
    /// Which bucket.
    pub bucket: WireBucket,
    /// The window the units are of.
    pub window: u64,
    /// How many.
    pub units: u64,
}

/// The issuer's answer to a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct QuotaAnswer {
    /// Leases given.
    #[serde(default)]
    pub grants: Vec<WireGrant>,
    /// Wishes not granted.
    #[serde(default)]
    pub refusals: Vec<WireRefusal>,
}

/// A lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireGrant {
    /// Which bucket.
    pub bucket: WireBucket,
    /// The window the units are of.
    pub window: u64,
    /// How many units may be spent.
    pub units: u64,
    /// Milliseconds for which they may be, counted by the edge from when it asked.
    pub expires_in: u64,
    /// Units of the whole limit not yet given to anyone.
    pub remaining: u64,
    /// Milliseconds until the window ends.
    pub resets_in: u64,
    /// The limit of the window, in units.
    pub limit: u64,
    /// The length of the window, in seconds.
    pub window_seconds: u64,
}

/// A wish that could not be granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireRefusal {
    /// Which bucket.
    pub bucket: WireBucket,
    /// The current window.
    pub window: u64,
    /// Milliseconds until the window ends.
    pub resets_in: u64,
    /// Milliseconds after which asking again may help, because others may have given units back.
    pub ask_again_in: u64,
    /// The limit of the window, in units.
    pub limit: u64,
    /// The length of the window, in seconds.
    pub window_seconds: u64,
}

fn one() -> u64 {
    1
}
