//! Counts how soon edges enforce what was revoked.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::seconds;
use crate::propagation::Outlook;

/// From what a poll that is held takes to what an edge that lost the issuer may be behind, in seconds.
const BUCKETS: [f64; 16] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0];

/// How soon edges enforce what was revoked.
pub(crate) struct EnforcementMetrics {
    enforced: Histogram,
    edges: Gauge,
    instances: Gauge,
    lowest: Gauge,
    oldest: Gauge<f64, AtomicU64>,
}

impl Default for EnforcementMetrics {
    fn default() -> Self {
        Self {
            enforced: Histogram::new(BUCKETS),
            edges: Gauge::default(),
            instances: Gauge::default(),
            lowest: Gauge::default(),
            oldest: Gauge::default(),
        }
    }
}

impl EnforcementMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "revocation_enforced",
            "Time from a revocation's commit until every live edge instance enforced it",
            Unit::Seconds,
            self.enforced.clone(),
        );
        registry.register("edges_live", "Edges with a live instance", self.edges.clone());
        registry.register("edge_instances_live", "Live edge instances", self.instances.clone());
        registry.register(
            "edge_enforced_position",
            "The position that every live edge instance enforces; 0 when there is none",
            self.lowest.clone(),
        );
        registry.register_with_unit(
            "revocation_unenforced_age",
            "Age of the oldest revocation that is not enforced everywhere",
            Unit::Seconds,
            self.oldest.clone(),
        );
    }

    pub(crate) fn observe(&self, millis: u64) {
        self.enforced.observe(seconds(millis));
    }

    pub(crate) fn show(&self, outlook: Outlook) {
        let Outlook { edges, instances, lowest, oldest_waits_millis } = outlook;
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.edges.set(number(edges));
        self.instances.set(number(instances));
        self.lowest.set(lowest.map_or(0, |position| i64::try_from(position.0).unwrap_or(i64::MAX)));
        self.oldest.set(seconds(oldest_waits_millis));
    }
}
