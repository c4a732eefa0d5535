//! Decides whether this process may look into Redis for something: not while the others, and Redis, have yet to be told that
//! this process changed it. Otherwise whoever changed something would read there what it was before.

use std::collections::BTreeMap;

use tollgate_shared::time::Monotonic;

use crate::store::FactKind;

/// The changes of this process that are yet to be told. There are no more of them than wait to be told.
#[derive(Debug, Default)]
pub(super) struct Untold {
    changes: BTreeMap<(FactKind, String), usize>,
    /// Until when one may be there that is not in the list, because there were too many.
    others_until: Option<Monotonic>,
}

impl Untold {
    /// This changed, and will be told.
    pub(super) fn changed(&mut self, kind: FactKind, id: &str) {
        *self.changes.entry((kind, id.to_owned())).or_default() += 1;
    }

    /// One change of this was told, or nothing that is older can be found any more.
    pub(super) fn told(&mut self, kind: FactKind, id: &str) {
        let key = (kind, id.to_owned());
        if let Some(changes) = self.changes.get_mut(&key) {
            *changes = changes.saturating_sub(1);
            if *changes == 0 {
                self.changes.remove(&key);
            }
        }
    }

    /// One change of this will not be told; what is older can be found until then.
    pub(super) fn given_up(&mut self, kind: FactKind, id: &str, until: Monotonic) {
        self.told(kind, id);
        self.others_until = self.others_until.max(Some(until));
    }

    /// Whether what is found of this may be older than a change of this process.
    pub(super) fn has(&self, kind: FactKind, id: &str, now: Monotonic) -> bool {
        self.others_until.is_some_and(|until| now < until)
            || self.changes.contains_key(&(kind, id.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Monotonic = Monotonic(1000);
    const KIND: FactKind = FactKind::Role;

    #[test]
    fn a_change_counts_until_each_of_its_kind_was_told() {
        let mut untold = Untold::default();
        assert!(!untold.has(KIND, "a", NOW));
        untold.changed(KIND, "a");
        untold.changed(KIND, "a");
        untold.told(KIND, "a");
        assert!(untold.has(KIND, "a", NOW));
        assert!(!untold.has(KIND, "b", NOW) && !untold.has(FactKind::Tenant, "a", NOW));
        untold.told(KIND, "a");
        untold.told(KIND, "a");
        assert!(!untold.has(KIND, "a", NOW) && untold.changes.is_empty());
    }

    #[test]
    fn what_will_not_be_told_bars_everything_until_it_has_ended() {
        let mut untold = Untold::default();
        untold.changed(KIND, "a");
        untold.given_up(KIND, "a", NOW.plus(10));
        untold.changed(KIND, "b");
        untold.given_up(KIND, "b", NOW.plus(5));
        assert!(untold.changes.is_empty());
        assert!(untold.has(KIND, "c", NOW.plus(9)));
        assert!(!untold.has(KIND, "c", NOW.plus(10)));
    }
}
