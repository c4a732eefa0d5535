//! The settings of the admin API.

use serde::{Deserialize, Serialize};

/// `[admin]`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminDocument {
    pub require_if_match: bool,
}

/// What the admin API asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdminSettings {
    /// Whether a change must say which version it is for.
    pub if_match: IfMatchRule,
}

/// Whether a change must say which version it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfMatchRule {
    /// It may.
    Optional,
    /// It must.
    Required,
}

impl AdminDocument {
    pub(super) fn checked(&self) -> AdminSettings {
        let Self { require_if_match } = *self;
        let if_match = if require_if_match { IfMatchRule::Required } else { IfMatchRule::Optional };
        AdminSettings { if_match }
    }
}
