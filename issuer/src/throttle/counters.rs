//! Decides where counters are kept: in this process, or in Redis with this process as the stricter second choice.
//!
//! *What comes in:* steps of the rules. *What goes out:* their answers, always: when Redis fails, hangs, is read-only or
//! full, each step is made in memory with every limit divided. *What an attacker gains if this is wrong:* unlimited guesses
//! for as long as Redis is away.

use std::sync::Arc;

use super::key::{Digest, Key};
use super::memory::MemoryCounters;
use super::rule::{Count, Crowd, Distinct, Ladder, Rate, Step, Turn};
use crate::metrics::Metrics;
use crate::store::redis::{RedisCounters, RedisError};

/// Counters: each call is one atomic step on one key.
///
/// A wrong answer costs guesses: an implementation that forgets, or counts two steps as one, lets an attacker try more
/// passwords than the settings say.
pub trait Counters: Send + Sync {
    /// A step of [`Rate`].
    fn rate(
        &self,
        key: &Key,
        rate: Rate,
        count: Count,
    ) -> impl Future<Output = Result<Turn, CounterError>> + Send;

    /// A step of [`Ladder`].
    fn ladder(
        &self,
        key: &Key,
        ladder: Ladder,
        step: Step,
    ) -> impl Future<Output = Result<Standing, CounterError>> + Send;

    /// A step of [`Distinct`].
    fn distinct(
        &self,
        key: &Key,
        distinct: Distinct,
        member: &Digest,
    ) -> impl Future<Output = Result<Crowd, CounterError>> + Send;

    /// Forgets a key.
    fn clear(&self, key: &Key) -> impl Future<Output = Result<(), CounterError>> + Send;
}

/// Where somebody stands on a ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// There is no delay. If an attempt was counted, this takes it back.
    Free(Reservation),
    /// There is one, of so many milliseconds.
    Delayed(u64),
}

/// An attempt that was counted, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reservation {
    /// The end of the delay that it set.
    pub until: u64,
    /// Whose counter.
    pub place: Place,
}

/// Where a counter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In this process.
    Memory,
    /// In Redis.
    Redis,
}

/// Why a step was not made.
#[derive(Debug, thiserror::Error)]
pub enum CounterError {
    /// There is no room for another key, and none is over.
    #[error("no room for another counter")]
    Full,
    /// The server did not make it, or nobody knows.
    #[error(transparent)]
    Redis(#[from] RedisError),
}

/// The counters that the settings ask for.
#[derive(Debug)]
pub enum AnyCounters {
    /// Of this process alone.
    Memory(MemoryCounters),
    /// Shared by all replicas.
    Shared(SharedCounters),
}

/// Counters in Redis. What Redis does not answer is counted here, more strictly.
#[derive(Debug)]
pub struct SharedCounters {
    redis: RedisCounters,
    memory: MemoryCounters,
    /// Replicas do not see each other's counters then: with at least as many as there are replicas, all of them together
    /// allow no more than one did.
    divisor: u64,
    metrics: Arc<Metrics>,
}

impl SharedCounters {
    /// Counters in `redis`, and in `memory` with every limit divided by `divisor` when it does not answer.
    #[must_use]
    pub fn new(redis: RedisCounters, memory: MemoryCounters, divisor: u64, metrics: Arc<Metrics>) -> Self {
        Self { redis, memory, divisor, metrics }
    }

    /// Notes how a step on the server ended; `None` means that it is to be made here.
    fn answered<T>(&self, answer: Result<T, CounterError>) -> Option<T> {
        match answer {
            Ok(answer) => Some(answer),
            Err(error) => {
                self.metrics.throttle_fell_back();
                tracing::debug!(%error, "counting in this process instead");
                None
            }
        }
    }
}

impl Counters for SharedCounters {
    async fn rate(&self, key: &Key, rate: Rate, count: Count) -> Result<Turn, CounterError> {
        match self.answered(self.redis.rate(key, rate, count).await) {
            Some(turn) => Ok(turn),
            None => self.memory.rate(key, rate.stricter(self.divisor), count).await,
        }
    }

    async fn ladder(&self, key: &Key, ladder: Ladder, step: Step) -> Result<Standing, CounterError> {
        match self.answered(self.redis.ladder(key, ladder, step).await) {
            Some(standing) => Ok(standing),
            None => self.memory.ladder(key, ladder.stricter(self.divisor), step).await,
        }
    }

    async fn distinct(&self, key: &Key, distinct: Distinct, member: &Digest) -> Result<Crowd, CounterError> {
        match self.answered(self.redis.distinct(key, distinct, member).await) {
            Some(crowd) => Ok(crowd),
            None => self.memory.distinct(key, distinct.stricter(self.divisor), member).await,
        }
    }

    async fn clear(&self, key: &Key) -> Result<(), CounterError> {
        // What was counted here while Redis was away is over too.
        self.memory.clear(key).await?;
        self.redis.clear(key).await
    }
}

impl AnyCounters {
    /// Takes an attempt back that came to nothing, where it was counted. If that fails it stays counted: stricter.
    pub(super) async fn refund(
        &self,
        key: &Key,
        ladder: Ladder,
        reservation: Reservation,
    ) -> Result<(), CounterError> {
        let step = Step::Refund(reservation.until);
        match (self, reservation.place) {
            (Self::Memory(memory), _) => memory.ladder(key, ladder, step).await?,
            (Self::Shared(shared), Place::Memory) => shared.memory.ladder(key, ladder, step).await?,
            (Self::Shared(shared), Place::Redis) => shared.redis.ladder(key, ladder, step).await?,
        };
        Ok(())
    }
}

impl Counters for AnyCounters {
    async fn rate(&self, key: &Key, rate: Rate, count: Count) -> Result<Turn, CounterError> {
        match self {
            Self::Memory(counters) => counters.rate(key, rate, count).await,
            Self::Shared(counters) => counters.rate(key, rate, count).await,
        }
    }

    async fn ladder(&self, key: &Key, ladder: Ladder, step: Step) -> Result<Standing, CounterError> {
        match self {
            Self::Memory(counters) => counters.ladder(key, ladder, step).await,
            Self::Shared(counters) => counters.ladder(key, ladder, step).await,
        }
    }

    async fn distinct(&self, key: &Key, distinct: Distinct, member: &Digest) -> Result<Crowd, CounterError> {
        match self {
            Self::Memory(counters) => counters.distinct(key, distinct, member).await,
            Self::Shared(counters) => counters.distinct(key, distinct, member).await,
        }
    }

    async fn clear(&self, key: &Key) -> Result<(), CounterError> {
        match self {
            Self::Memory(counters) => counters.clear(key).await,
            Self::Shared(counters) => counters.clear(key).await,
        }
    }
}
