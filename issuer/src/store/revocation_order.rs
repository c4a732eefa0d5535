//! Says what is to be revoked.

use tollgate_shared::revocation::{Dimension, StatusIndex};
use tollgate_shared::time::UnixSeconds;

/// What is to be revoked. Dates are set when it is written, under the lock that orders it among logins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RevocationOrder {
    /// One token of ours.
    Index(StatusIndex),
    /// Everything with this value in this dimension.
    Value {
        /// What it goes by.
        dimension: Dimension,
        /// Of which issuer; ours when `None`.
        issuer: Option<String>,
        /// Which one.
        value: String,
    },
    /// What has this value in this dimension and was issued before a date that is past.
    Earlier {
        /// What it goes by: subject, client, tenant or issuer.
        dimension: Dimension,
        /// Of which issuer; ours when `None`.
        issuer: Option<String>,
        /// Which one.
        value: String,
        /// The date. What is dated so is spared.
        issued_before: UnixSeconds,
    },
}

impl RevocationOrder {
    /// What it goes by.
    #[must_use]
    pub fn dimension(&self) -> Dimension {
        match self {
            Self::Index(_) => Dimension::Token,
            Self::Value { dimension, .. } | Self::Earlier { dimension, .. } => *dimension,
        }
    }
}
