//! Decides how much may still be spent: the issuer's `allocator` gives leases out of one limit, the edge's `ledger`
//! spends from them without asking.
//!
//! The rule that both keep together: for each bucket and window, units admitted anywhere, units in live leases and
//! units left never add up to more than the limit. What is lost on the way (a crashed edge, an answer that never
//! arrived) counts as spent.

pub mod allocator;
pub mod ledger;
mod plan;

pub use plan::{PLANS_MAX, Plan};

use std::collections::BTreeMap;

use crate::time::UnixSeconds;

/// What is counted together. Ordered, so that two with the same entries are the same bucket.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket(BTreeMap<String, String>);

/// The most entries of a bucket.
const BUCKET_ENTRIES_MAX: usize = 8;

impl Bucket {
    /// A bucket with these names and values; `None` when empty, too many, or one is longer than an id may be.
    #[must_use]
    pub fn new(entries: BTreeMap<String, String>) -> Option<Self> {
        let bounded = |text: &str| !text.is_empty() && text.len() <= 2 * crate::id::ID_BYTES_MAX;
        let fits = (1..=BUCKET_ENTRIES_MAX).contains(&entries.len())
            && entries.iter().all(|(name, value)| bounded(name) && bounded(value));
        fits.then_some(Self(entries))
    }

    /// The quota `quota` of the subject `subject` as the issuer `issuer` knows it.
    #[must_use]
    pub fn of_subject(
        quota: &str,
        issuer: &crate::id::IssuerId,
        subject: &crate::id::Subject,
    ) -> Option<Self> {
        let entry = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        Self::new(BTreeMap::from([
            entry("quota", quota),
            entry("issuer", issuer.as_str()),
            entry("subject", subject.as_str()),
        ]))
    }

    /// The value called `name`.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// All names and values.
    #[must_use]
    pub fn entries(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// A text that two buckets share only if they are the same: JSON with sorted names.
    #[must_use]
    pub fn canonical(&self) -> String {
        serde_json::to_string(&self.0).unwrap_or_default()
    }
}

/// A window of a quota, by its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window(pub UnixSeconds);

impl Window {
    /// The window of `seconds` length that `now` lies in; windows start at multiples of their length since 1970.
    #[must_use]
    pub fn containing(now: UnixSeconds, seconds: u64) -> Self {
        Self(UnixSeconds(now.0 - now.0.checked_rem(seconds).unwrap_or_default()))
    }
}
