//! Decides whether a token that names an unknown key is worth one look at its issuer's keys: strangers must not make the
//! edge ask more often than it would by itself.
//!
//! *What comes in:* key ids that anybody may make up. *What goes out:* for each provider at most one refetch in
//! [`REFETCH_MILLIS`], and none for a key that was looked for lately.

use std::collections::BTreeMap;

use tollgate_shared::id::KeyId;
use tollgate_shared::time::Monotonic;

/// The least time between two refetches for one provider, in milliseconds.
pub(super) const REFETCH_MILLIS: u64 = 5_000;
/// For so long a key that was looked for is taken for absent, in milliseconds.
const ABSENT_MILLIS: u64 = 60_000;
/// The most keys that are known to be absent. When there are more, none is looked for until some are forgotten.
const ABSENT_MAX: usize = 256;

/// What was looked for, and when.
#[derive(Debug, Default)]
pub(super) struct UnknownKeys {
    absent: BTreeMap<(usize, KeyId), Monotonic>,
    refetched: BTreeMap<usize, Monotonic>,
}

impl UnknownKeys {
    /// Whether the keys of `provider` are to be fetched again, because this one is not among them.
    pub(super) fn is_worth_a_look(&mut self, provider: usize, key: &KeyId, now: Monotonic) -> bool {
        if self.refetched.get(&provider).is_some_and(|last| now.since(*last) < REFETCH_MILLIS) {
            return false;
        }
        self.absent.retain(|_, since| now.since(*since) < ABSENT_MILLIS);
        let key = (provider, key.clone());
        if self.absent.contains_key(&key) || self.absent.len() >= ABSENT_MAX {
            return false;
        }
        self.absent.insert(key, now);
        self.refetched.insert(provider, now);
        true
    }

    /// The look failed: nothing was learnt of what is absent.
    pub(super) fn forget(&mut self, provider: usize) {
        self.absent.retain(|(other, _), _| *other != provider);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> KeyId {
        KeyId::new(name).unwrap()
    }

    #[test]
    fn a_flood_of_made_up_keys_causes_one_look_in_each_interval() {
        let mut unknown = UnknownKeys::default();
        let mut looks = Vec::new();
        for millis in 0..20_000u64 {
            if unknown.is_worth_a_look(0, &key(&format!("made-up-{millis}")), Monotonic(millis)) {
                looks.push(millis);
            }
        }
        assert_eq!(looks, [0, 5_000, 10_000, 15_000]);
    }

    #[test]
    fn a_key_that_was_looked_for_is_not_looked_for_again_until_it_is_forgotten() {
        let mut unknown = UnknownKeys::default();
        let looks: Vec<u64> = (0..130_000)
            .filter(|millis| unknown.is_worth_a_look(0, &key("gone"), Monotonic(*millis)))
            .collect();
        assert_eq!(looks, [0, 60_000, 120_000]);
        // One that comes up in between is looked for, and each provider is on its own.
        assert!(unknown.is_worth_a_look(0, &key("new"), Monotonic(126_000)));
        assert!(unknown.is_worth_a_look(1, &key("gone"), Monotonic(126_001)));
    }

    #[test]
    fn after_a_failed_look_the_same_key_is_looked_for_again() {
        let mut unknown = UnknownKeys::default();
        assert!(unknown.is_worth_a_look(0, &key("k"), Monotonic(0)));
        unknown.forget(0);
        assert!(!unknown.is_worth_a_look(0, &key("k"), Monotonic(REFETCH_MILLIS - 1)));
        assert!(unknown.is_worth_a_look(0, &key("k"), Monotonic(REFETCH_MILLIS)));
    }

    #[test]
    fn what_is_known_to_be_absent_is_bounded_and_a_full_table_asks_no_more() {
        let mut unknown = UnknownKeys::default();
        let mut asked = 0;
        for provider in 0..2 * ABSENT_MAX {
            asked += usize::from(unknown.is_worth_a_look(provider, &key("k"), Monotonic(1)));
        }
        assert_eq!((asked, unknown.absent.len()), (ABSENT_MAX, ABSENT_MAX));
    }
}
