//! Tells whoever keeps a copy of something that it has changed. No write can forget to: the notice is given when the write
//! ends, however it ends.

use std::fmt::Debug;
use std::sync::{Arc, OnceLock};

use super::Store;

/// What copies may be kept of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FactKind {
    /// Clients, by id.
    Client,
    /// Roles, by name.
    Role,
    /// Tenants, by id.
    Tenant,
}

impl FactKind {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::Client, Self::Role, Self::Tenant];

    /// Its name in metrics, keys and tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Role => "role",
            Self::Tenant => "tenant",
        }
    }

    /// The kind that is called `name`.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Keeps copies, and wants to know when they are old.
pub trait Observer: Debug + Send + Sync {
    /// This may have changed. It is committed, if it is.
    fn changed(&self, kind: FactKind, id: &str);
}

/// Who observes a store. Clones of the store share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Observed(Arc<OnceLock<Arc<dyn Observer>>>);

impl Store {
    /// Has every change told to `observer`, from now on. There is one observer of a store; another is not taken.
    pub fn observe(&self, observer: Arc<dyn Observer>) {
        let _ = self.observed.0.set(observer);
    }

    /// A change that begins. The observer is told when this is dropped: after the commit, also when the caller gave up
    /// waiting or the answer got lost, and it is not known whether there was a commit.
    pub(super) fn changing<'c>(&'c self, kind: FactKind, id: &'c str) -> Changing<'c> {
        Changing { observed: &self.observed, kind, id }
    }
}

/// A change that is under way.
#[must_use = "the observer is told when this is dropped"]
pub(super) struct Changing<'c> {
    observed: &'c Observed,
    kind: FactKind,
    id: &'c str,
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        if let Some(observer) = self.observed.0.get() {
            observer.changed(self.kind, self.id);
        }
    }
}
