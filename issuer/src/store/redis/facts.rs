//! Keeps in Redis what replicas have read from the database, so that each thing is read by one of them.
//!
//! Who finds nothing takes a lease, reads the database, and leaves what was read only if the lease is still there. A change
//! removes value and lease alike: so what was read before a change never comes after it.

use redis::Script;

use super::{Redis, RedisError};

/// What there is of something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SharedFact {
    /// This, as a replica left it.
    Found(Vec<u8>),
    /// Nothing. The lease is taken: who asked may leave what it reads.
    Leased,
    /// Nothing, and another one is reading it.
    Taken,
}

/// The scripts, by their digests.
#[derive(Debug)]
pub struct SharedFacts {
    redis: Redis,
    take: Script,
    leave: Script,
    forget: Script,
}

impl SharedFacts {
    /// Facts in this Redis.
    #[must_use]
    pub fn new(redis: Redis) -> Self {
        let [take, leave, forget] = [TAKE, LEAVE, FORGET].map(Script::new);
        Self { redis, take, leave, forget }
    }

    /// Where they are.
    #[must_use]
    pub fn redis(&self) -> &Redis {
        &self.redis
    }

    /// What there is under a key; a lease when there is nothing.
    ///
    /// # Errors
    /// [`RedisError`].
    pub async fn take(&self, key: &str, lease: &[u8]) -> Result<SharedFact, RedisError> {
        let arguments = [marked(lease), number(LEASE_MS)];
        let found: Option<Vec<u8>> = self.redis.script(&self.take, TAKE, key, &arguments).await?;
        Ok(match found {
            None => SharedFact::Leased,
            Some(bytes) if bytes.first() == Some(&LEASE_MARK) => SharedFact::Taken,
            Some(bytes) => SharedFact::Found(bytes),
        })
    }

    /// Leaves what was read, if the lease is still there. It may not begin like a lease.
    ///
    /// # Errors
    /// [`RedisError`].
    pub async fn leave(
        &self,
        key: &str,
        lease: &[u8],
        fact: Vec<u8>,
        life_ms: u64,
    ) -> Result<(), RedisError> {
        let arguments = [marked(lease), fact, number(life_ms)];
        let _: u8 = self.redis.script(&self.leave, LEAVE, key, &arguments).await?;
        Ok(())
    }

    /// Removes what there is and any lease, and tells all replicas so.
    ///
    /// # Errors
    /// [`RedisError`]; whether it was removed is not known then.
    pub async fn forget(&self, key: &str, news: &str) -> Result<(), RedisError> {
        let arguments = [CHANGES.as_bytes().to_vec(), news.as_bytes().to_vec()];
        let _: u8 = self.redis.script(&self.forget, FORGET, key, &arguments).await?;
        Ok(())
    }
}

fn marked(lease: &[u8]) -> Vec<u8> {
    [&[LEASE_MARK], lease].concat()
}

fn number(value: u64) -> Vec<u8> {
    value.to_string().into_bytes()
}

/// Where changes are told.
pub(super) const CHANGES: &str = "tollgate:changes";
/// What a lease begins with, and nothing else that is kept here.
const LEASE_MARK: u8 = b'L';
/// Longer than any reading of the database that is worth keeping.
const LEASE_MS: u64 = 10_000;

const TAKE: &str = include_str!("take.lua");
const LEAVE: &str = include_str!("leave.lua");
const FORGET: &str = include_str!("forget.lua");
