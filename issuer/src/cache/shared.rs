//! Decides what replicas leave for each other: the second level, between this process and the database.
//!
//! It may be away at any time. Then the database is asked, as it would be for something new.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64ct::{Base64UrlUnpadded, Encoding};
use sha2::{Digest, Sha256};

use super::seal::CacheSeal;
use super::untold::Untold;
use crate::clock::{Host, random};
use crate::store::FactKind;
use crate::store::redis::{RedisError, SharedFact, SharedFacts};

/// The second level.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) facts: SharedFacts,
    pub(super) seal: CacheSeal,
    /// How long an entry lives.
    pub(super) seconds: u64,
    pub(super) host: Arc<dyn Host>,
    pub(super) untold: Mutex<Untold>,
}

/// What the second level has.
#[derive(Debug)]
pub(super) enum Found {
    /// This, which is good for so many seconds more.
    Fact(Vec<u8>, u64),
    /// Nothing; what is read may be left with this.
    Nothing(Lease),
    /// Nothing, and nothing may be left: another replica is reading it, what is there is not ours, or it is older than a
    /// change of this process.
    Barred,
    /// No answer.
    Failed,
}

/// Permits to leave what is read, unless it changes first.
#[derive(Debug)]
pub(super) struct Lease([u8; 16]);

impl Shared {
    pub(super) async fn take(&self, kind: FactKind, id: &str) -> Found {
        if self.untold().has(kind, id, self.host.now().monotonic) {
            return Found::Barred;
        }
        let Ok(lease) = random::<16>(&*self.host) else { return Found::Failed };
        let key = key(kind, id);
        match self.facts.take(&key, &lease).await {
            Ok(SharedFact::Found(blob)) => {
                match self.seal.open(&key, &blob, self.host.seconds(), self.seconds) {
                    Some((fact, left)) => Found::Fact(fact, left),
                    None => Found::Barred,
                }
            }
            Ok(SharedFact::Leased) => Found::Nothing(Lease(lease)),
            Ok(SharedFact::Taken) => Found::Barred,
            Err(_) => Found::Failed,
        }
    }

    /// Leaves what was read. That it could not be left concerns nobody.
    pub(super) async fn leave(&self, kind: FactKind, id: &str, lease: Lease, fact: &[u8]) {
        let key = key(kind, id);
        let until = self.host.seconds().plus(self.seconds);
        let Some(blob) = self.seal.seal(&key, fact, until, &*self.host) else { return };
        let life_ms = self.seconds.saturating_mul(1000);
        if let Err(error) = self.facts.leave(&key, &lease.0, blob, life_ms).await {
            tracing::debug!(%error, kind = kind.name(), "not left for other replicas");
        }
    }

    /// The changes of this process that are yet to be told.
    pub(super) fn untold(&self) -> MutexGuard<'_, Untold> {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes what was left, and tells the other replicas of the change.
    pub(super) async fn forget(&self, kind: FactKind, id: &str) -> Result<(), RedisError> {
        self.facts.forget(&key(kind, id), &news(kind, id)).await
    }
}

/// Says less than it could of who there is. The braces make it one slot of a cluster.
fn key(kind: FactKind, id: &str) -> String {
    let digest = Sha256::digest(id);
    let short =
        digest.first_chunk::<16>().map_or_else(String::new, |short| Base64UrlUnpadded::encode_string(short));
    format!("tollgate:cache:{{{}:{short}}}", kind.name())
}

fn news(kind: FactKind, id: &str) -> String {
    format!("{}:{id}", kind.name())
}

/// What has changed, as another replica told it. Whoever else can tell it can cost us a reading, and no more.
pub(super) fn changed(news: &[u8]) -> Option<(FactKind, &str)> {
    let (kind, id) = std::str::from_utf8(news).ok()?.split_once(':')?;
    Some((FactKind::of(kind)?, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_say_what_changed_and_nothing_else_is_understood() {
        for kind in FactKind::ALL {
            let told = news(kind, "a:b");
            assert_eq!(changed(told.as_bytes()), Some((kind, "a:b")));
        }
        for other in [b"".as_slice(), b"client", b"user:a", b"\xff:a"] {
            assert_eq!(changed(other), None);
        }
    }

    #[test]
    fn kinds_and_ids_have_keys_of_their_own() {
        let keys: std::collections::BTreeSet<String> =
            FactKind::ALL.into_iter().flat_map(|kind| ["a", "b"].map(|id| key(kind, id))).collect();
        assert_eq!(keys.len(), 6);
        assert!(keys.iter().all(|key| key.starts_with("tollgate:cache:{")));
    }
}
