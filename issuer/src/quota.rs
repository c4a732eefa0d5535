//! Decides whether a quota batch makes sense, and which plan's limit a bucket has.
//!
//! *What comes in:* JSON from an edge whose credential was checked. *What goes out:* a [`Batch`] of bounded size. *What is
//! lost if this is wrong:* the bill of one edge; the limits are kept by the allocator whatever an edge says.

use tollgate_shared::id::{EdgeId, ID_BYTES_MAX, IssuerId, PlanName};
use tollgate_shared::quota::allocator::Want;
use tollgate_shared::quota::{Bucket, Plan, Window};
use tollgate_shared::time::UnixSeconds;
use tollgate_shared::wire::quota::{
    BATCH_ENTRIES_MAX, QuotaBatch, WireBucket, WireReturn, WireUsage, WireWant,
};

/// A window may begin this much later than now: our clock may have been set back since it was named to the edge.
const WINDOW_AHEAD_SECONDS_MAX: u64 = 86_400;

/// One batch of one spender, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Which edge.
    pub edge: EdgeId,
    /// Which of its starts.
    pub epoch: String,
    /// Its place among the spender's batches.
    pub sequence: u64,
    /// What was admitted and refused.
    pub usage: Vec<Usage>,
    /// Units given back.
    pub returns: Vec<Return>,
    /// Leases asked for.
    pub wants: Vec<Wanted>,
}

/// Units spent and refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// Of which bucket.
    pub bucket: Bucket,
    /// In which window.
    pub window: Window,
    /// Units admitted.
    pub allowed: u64,
    /// Units refused.
    pub denied: u64,
}

/// Units given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Return {
    /// Of which bucket.
    pub bucket: Bucket,
    /// Of which window.
    pub window: Window,
    /// How many.
    pub units: u64,
}

/// A lease that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Of which bucket.
    pub bucket: Bucket,
    /// How much.
    pub want: Want,
}

/// Units that one batch moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UnitCounts {
    /// Lent.
    pub granted: u64,
    /// Reported as admitted.
    pub allowed: u64,
    /// Reported as refused.
    pub denied: u64,
}

/// What is wrong with a batch, and at which entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchFault {
    /// The edge or epoch is empty or too long.
    #[error("{0}: must be 1 to 255 bytes long")]
    Name(&'static str),
    /// A list is longer than a batch may have.
    #[error("{0}: more than {BATCH_ENTRIES_MAX} entries")]
    TooMany(&'static str),
    /// A bucket is empty or too large.
    #[error("{list}[{place}].bucket: must have 1 to 8 entries of 1 to 510 bytes")]
    Bucket {
        /// In which list.
        list: &'static str,
        /// At which index.
        place: usize,
    },
    /// A window lies in the future.
    #[error("{list}[{place}].window: lies in the future")]
    Window {
        /// In which list.
        list: &'static str,
        /// At which index.
        place: usize,
    },
}

impl Batch {
    /// Checks a batch at the instant `now`.
    ///
    /// # Errors
    /// [`BatchFault`] names the entry.
    pub fn read(wire: QuotaBatch, now: UnixSeconds) -> Result<Self, BatchFault> {
        let QuotaBatch { edge, epoch, sequence, usage, wants, returns } = wire;
        let edge = EdgeId::new(&edge).ok_or(BatchFault::Name("edge"))?;
        if epoch.is_empty() || epoch.len() > ID_BYTES_MAX {
            return Err(BatchFault::Name("epoch"));
        }
        for (list, entries) in [("usage", usage.len()), ("wants", wants.len()), ("returns", returns.len())] {
            if entries > BATCH_ENTRIES_MAX {
                return Err(BatchFault::TooMany(list));
            }
        }
        let window = |seconds, list, place| {
            let starts_at = UnixSeconds(seconds);
            let sensible = starts_at <= now.plus(WINDOW_AHEAD_SECONDS_MAX);
            sensible.then_some(Window(starts_at)).ok_or(BatchFault::Window { list, place })
        };
        let usage = usage.into_iter().enumerate().map(|(place, entry)| {
            let WireUsage { bucket, window: starts_at, allowed, denied } = entry;
            let window = window(starts_at, "usage", place)?;
            Ok(Usage { bucket: checked(bucket, "usage", place)?, window, allowed, denied })
        });
        let returns = returns.into_iter().enumerate().map(|(place, entry)| {
            let WireReturn { bucket, window: starts_at, units } = entry;
            let window = window(starts_at, "returns", place)?;
            Ok(Return { bucket: checked(bucket, "returns", place)?, window, units })
        });
        let wants = wants.into_iter().enumerate().map(|(place, entry)| {
            let WireWant { bucket, units, held: _, least } = entry;
            Ok(Wanted { bucket: checked(bucket, "wants", place)?, want: Want { units, least } })
        });
        Ok(Self {
            edge,
            epoch,
            sequence,
            usage: usage.collect::<Result<_, _>>()?,
            returns: returns.collect::<Result<_, _>>()?,
            wants: wants.collect::<Result<_, _>>()?,
        })
    }
}

fn checked(bucket: WireBucket, list: &'static str, place: usize) -> Result<Bucket, BatchFault> {
    Bucket::new(bucket).ok_or(BatchFault::Bucket { list, place })
}

/// The plans, and what decides which of them a bucket falls under.
#[derive(Debug, Clone)]
pub struct PlanBook {
    issuer: IssuerId,
    plans: Vec<Plan>,
    default_plan: PlanName,
}

impl PlanBook {
    /// The plans of this issuer.
    #[must_use]
    pub fn new(issuer: IssuerId, plans: Vec<Plan>, default_plan: PlanName) -> Self {
        Self { issuer, plans, default_plan }
    }

    /// Whether there is a plan of this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.plans.iter().any(|plan| plan.name.as_str() == name)
    }

    /// The name of the plan of those that have none.
    #[must_use]
    pub fn default_name(&self) -> &str {
        self.default_plan.as_str()
    }

    /// The subject of a bucket, if it is one of this issuer's users.
    #[must_use]
    pub fn own_subject<'b>(&self, bucket: &'b Bucket) -> Option<&'b str> {
        bucket
            .value("issuer")
            .filter(|issuer| *issuer == self.issuer.as_str())
            .and_then(|_| bucket.value("subject"))
    }

    /// The plan of this name, or else the default one.
    #[must_use]
    pub fn named(&self, name: Option<&str>) -> Plan {
        let found = self.plans.iter().find(|plan| Some(plan.name.as_str()) == name);
        found.cloned().unwrap_or_else(|| self.default_plan())
    }

    /// The plan of those that have none.
    #[must_use]
    pub fn default_plan(&self) -> Plan {
        let found = self.plans.iter().find(|plan| plan.name == self.default_plan);
        // The settings were checked to hold it; without it nothing is granted.
        found.cloned().unwrap_or_else(|| Plan {
            name: self.default_plan.clone(),
            limit: 0,
            window_seconds: 3600,
        })
    }

    /// The plans as the feed's log keeps them.
    #[must_use]
    pub fn to_json(&self) -> String {
        let plans: Vec<_> = self
            .plans
            .iter()
            .map(|Plan { name, limit, window_seconds }| {
                serde_json::json!({ "name": name.as_str(), "limit": limit, "window_seconds": window_seconds })
            })
            .collect();
        serde_json::Value::Array(plans).to_string()
    }
}

/// The plans that [`PlanBook::to_json`] wrote; `None` when it did not write this.
#[must_use]
pub fn plans_from_json(text: &str) -> Option<Vec<Plan>> {
    let plans: Vec<serde_json::Value> = serde_json::from_str(text).ok()?;
    plans
        .iter()
        .map(|plan| {
            let name = PlanName::new(plan.get("name")?.as_str()?)?;
            Plan::new(name, plan.get("limit")?.as_u64()?, plan.get("window_seconds")?.as_u64()?)
        })
        .collect()
}
