//! Keeps the credentials of edges that were looked up, so that ten thousand polls that end at once are not ten thousand
//! questions to the database.
//!
//! *What comes in:* what the database had, and which credential it says was withdrawn last. *What goes out:* credentials that
//! were in force at most a second ago. *What an attacker gains if this is wrong:* the use of a withdrawn credential.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tollgate_shared::time::Monotonic;

use crate::store::StoredCredential;

/// What is kept is good for so many milliseconds after it was last seen that nothing had been withdrawn.
const SEEN_MILLIS_MAX: u64 = 1_000;
/// At most so many are kept.
const KNOWN_MAX: usize = 65_536;

/// The credentials of edges that are known to be in force.
#[derive(Debug, Default)]
pub struct EdgeCredentials(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    by_id: HashMap<String, StoredCredential>,
    /// Which was withdrawn last, when that was last asked.
    withdrawn: Option<String>,
    /// When that was.
    seen_at: Option<Monotonic>,
    /// Changes whenever all are forgotten: what was read before that is not kept after it.
    round: Round,
}

/// Between two times that all were forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Round(u64);

impl EdgeCredentials {
    /// The credential with this id, if it is known to have been in force within the last second; and the round it is, to be
    /// told with what is read otherwise.
    pub fn find(&self, id: &str, now: Monotonic) -> (Option<StoredCredential>, Round) {
        let known = self.known();
        let is_seen = known.seen_at.is_some_and(|seen_at| now.since(seen_at) <= SEEN_MILLIS_MAX);
        let found = if is_seen { known.by_id.get(id).cloned() } else { None };
        (found, known.round)
    }

    /// Keeps what was read, unless all were forgotten since.
    pub fn keep(&self, id: &str, credential: &StoredCredential, round: Round) {
        let mut known = self.known();
        if known.round == round && known.by_id.len() < KNOWN_MAX {
            known.by_id.insert(id.to_owned(), credential.clone());
        }
    }

    /// Notes which was withdrawn last, as the database said to who asked at this instant. After another than before, all are
    /// forgotten.
    pub fn seen(&self, withdrawn: Option<String>, asked_at: Monotonic) {
        let mut known = self.known();
        if known.withdrawn != withdrawn {
            known.forget();
            known.withdrawn = withdrawn;
        }
        known.seen_at = known.seen_at.max(Some(asked_at));
    }

    /// Forgets all: one may have been withdrawn.
    pub fn forget(&self) {
        self.known().forget();
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Each change of it leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn forget(&mut self) {
        self.by_id.clear();
        self.round = Round(self.round.0.wrapping_add(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::SecretDigest;
    use crate::permission::Permissions;

    fn credential() -> StoredCredential {
        let digest = SecretDigest::from_bytes(&[1; 32]).unwrap();
        StoredCredential { name: "eu-1".to_owned(), digest, permissions: Permissions::Only([].into()) }
    }

    fn is_known(known: &EdgeCredentials, now: u64) -> bool {
        known.find("a", Monotonic(now)).0.is_some()
    }

    #[test]
    fn what_is_kept_is_good_for_a_second_after_it_was_seen_that_nothing_was_withdrawn() {
        let known = EdgeCredentials::default();
        let (_, round) = known.find("a", Monotonic(0));
        known.keep("a", &credential(), round);
        assert!(!is_known(&known, 0), "never seen");
        known.seen(None, Monotonic(5_000));
        assert!(is_known(&known, 6_000) && !is_known(&known, 6_001));
        known.seen(None, Monotonic(6_500));
        assert!(is_known(&known, 7_500));
        known.seen(Some("other".to_owned()), Monotonic(7_000));
        assert!(!is_known(&known, 7_000), "one was withdrawn");
    }

    #[test]
    fn what_was_read_before_a_withdrawal_is_not_kept_after_it() {
        let known = EdgeCredentials::default();
        known.seen(None, Monotonic(0));
        for withdraw in [&(|known: &EdgeCredentials| known.forget()) as &dyn Fn(&EdgeCredentials), &|known| {
            known.seen(Some("a".to_owned()), Monotonic(0))
        }] {
            let (_, round) = known.find("a", Monotonic(0));
            withdraw(&known);
            known.keep("a", &credential(), round);
            assert!(!is_known(&known, 0));
        }
    }
}
