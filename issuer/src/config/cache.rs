//! The `[cache]` section: how much is kept of what the database has, and for how long.

use serde::{Deserialize, Serialize};

use super::document::{OutOfRange, within};

/// `[cache]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CacheDocument {
    pub memory_entries_max: usize,
    pub memory_seconds: u64,
    pub shared_seconds: u64,
    pub stale_seconds: u64,
}

impl Default for CacheDocument {
    fn default() -> Self {
        Self { memory_entries_max: 10_000, memory_seconds: 5, shared_seconds: 60, stale_seconds: 60 }
    }
}

/// What is kept of what the database has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheSettings {
    /// In this process, of each kind.
    pub memory_entries_max: usize,
    /// For how long in this process, in seconds; not at all when 0.
    pub memory_seconds: u64,
    /// For how long in Redis, in seconds; not at all when 0.
    pub shared_seconds: u64,
    /// For how much longer it is good while the database does not answer, in seconds.
    pub stale_seconds: u64,
}

impl CacheDocument {
    pub(super) fn checked(&self) -> Result<CacheSettings, OutOfRange> {
        let Self { memory_entries_max, memory_seconds, shared_seconds, stale_seconds } = *self;
        within((1..=1_000_000).contains(&memory_entries_max), "cache.memory_entries_max", "1 to 1000000")?;
        within(memory_seconds <= 300, "cache.memory_seconds", "0 (off) to 300")?;
        within(shared_seconds <= 3600, "cache.shared_seconds", "0 (off) to 3600")?;
        within(stale_seconds <= 3600, "cache.stale_seconds", "0 (off) to 3600")?;
        Ok(CacheSettings { memory_entries_max, memory_seconds, shared_seconds, stale_seconds })
    }
}
