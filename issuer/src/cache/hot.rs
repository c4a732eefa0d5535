//! Decides what is used most, in bounded memory: the space-saving counter of Metwally, Agrawal and El Abbadi (2005).
//!
//! What takes the place of another takes over its count. So no count is ever too low, and whatever was used more often than
//! one in so many times as there are places is in the list.

use std::collections::BTreeMap;

/// The places for each kind of principal. All kinds together stay below a thousand.
pub(super) const PLACES: usize = 300;

/// What was used most.
#[derive(Debug, Default)]
pub(super) struct HotList(BTreeMap<String, u64>);

impl HotList {
    /// It was used once.
    pub(super) fn used(&mut self, id: &str) {
        if let Some(uses) = self.0.get_mut(id) {
            *uses = uses.saturating_add(1);
            return;
        }
        let mut uses = 0;
        if self.0.len() >= PLACES {
            let least = self.0.iter().min_by_key(|(_, uses)| **uses);
            if let Some((least, inherited)) = least.map(|(id, uses)| (id.clone(), *uses)) {
                self.0.remove(&least);
                uses = inherited;
            }
        }
        self.0.insert(id.to_owned(), uses.saturating_add(1));
    }

    /// The list, by id, and an empty one in its place.
    pub(super) fn take(&mut self) -> Vec<(String, u64)> {
        std::mem::take(&mut self.0).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_list_that_is_taken_starts_anew() {
        let mut list = HotList::default();
        for id in ["a", "b", "a"] {
            list.used(id);
        }
        assert_eq!(list.take(), [("a".to_owned(), 2), ("b".to_owned(), 1)]);
        assert!(list.take().is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        /// Against a model that counts everything.
        #[test]
        fn what_is_used_often_is_listed_and_never_counted_too_low(
            uses in prop::collection::vec(prop_oneof![0..20_u32, 0..5_000_u32], 0..4_000),
        ) {
            let mut list = HotList::default();
            let mut model: BTreeMap<String, u64> = BTreeMap::new();
            for id in &uses {
                list.used(&id.to_string());
                *model.entry(id.to_string()).or_default() += 1;
            }
            let listed: BTreeMap<String, u64> = list.take().into_iter().collect();
            prop_assert!(listed.len() <= PLACES);
            let error_max = uses.len() as u64 / PLACES as u64;
            prop_assert_eq!(listed.values().sum::<u64>(), uses.len() as u64);
            for (id, counted) in &listed {
                prop_assert!((model[id]..=model[id] + error_max).contains(counted), "{id}: {counted}");
            }
            for (id, truly) in &model {
                prop_assert!(*truly <= error_max || listed.contains_key(id), "{id} was used {truly} times");
            }
        }
    }
}
