//! The settings of sessions.

use serde::{Deserialize, Serialize};

use super::SESSION_SECONDS_MAX;
use super::document::{OutOfRange, within};

/// `[session]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionDocument {
    pub idle_seconds: u64,
    pub lasts_seconds: u64,
    pub grace_seconds: u64,
}

impl Default for SessionDocument {
    fn default() -> Self {
        Self { idle_seconds: 14 * 86_400, lasts_seconds: 90 * 86_400, grace_seconds: 30 }
    }
}

/// How long sessions last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionSettings {
    /// Without being used, in seconds.
    pub idle_seconds: u64,
    /// At most, in seconds.
    pub lasts_seconds: u64,
    /// For how long a client that lost the answer to a refresh may ask again, in seconds.
    pub grace_seconds: u64,
}

impl SessionDocument {
    pub(super) fn checked(&self) -> Result<SessionSettings, OutOfRange> {
        let Self { idle_seconds, lasts_seconds, grace_seconds } = *self;
        let span = 60..=SESSION_SECONDS_MAX;
        within(span.contains(&idle_seconds), "session.idle_seconds", "60 to 31622400")?;
        within(span.contains(&lasts_seconds), "session.lasts_seconds", "60 to 31622400")?;
        within(grace_seconds <= 300, "session.grace_seconds", "0 to 300")?;
        Ok(SessionSettings { idle_seconds, lasts_seconds, grace_seconds })
    }
}
