//! What each price plan allows.

use crate::id::PlanName;

/// The most plans there can be.
pub const PLANS_MAX: usize = 256;
/// The longest window, in seconds: 31 days.
const WINDOW_SECONDS_MAX: u64 = 31 * 86_400;

/// A limit for each window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Its name, as the claim `plan` has it.
    pub name: PlanName,
    /// Units for one window.
    pub limit: u64,
    /// The length of the window, in seconds.
    pub window_seconds: u64,
}

impl Plan {
    /// A plan; `None` when the window is empty or longer than 31 days.
    #[must_use]
    pub fn new(name: PlanName, limit: u64, window_seconds: u64) -> Option<Self> {
        (1..=WINDOW_SECONDS_MAX).contains(&window_seconds).then_some(Self { name, limit, window_seconds })
    }

    /// The plans a new issuer starts with: free 100, premium 1 000 and vip 10 000 units an hour.
    #[must_use]
    pub fn defaults() -> Vec<Self> {
        [("free", 100), ("premium", 1_000), ("vip", 10_000)]
            .into_iter()
            .filter_map(|(name, limit)| Self::new(PlanName::new(name)?, limit, 3600))
            .collect()
    }
}
