//! Keeps the counters of logins in Redis, where all replicas see them: one script for each rule, one key for each step.
//!
//! Time is the server's (`TIME`), because the clocks of replicas differ and a lock must end for all of them at once. After
//! a failover it is the new server's. Every key has a life that ends a minute after it means anything, so a server that
//! evicts keys of its own accord (`maxmemory-policy` other than `noeviction`) would forget locks and must not be used.

use std::sync::Arc;

use redis::Script;

use super::{Redis, RedisError};
use crate::clock::Host;
use crate::throttle::{
    Count, CounterError, Counters, Crowd, Digest, Distinct, Excess, Key, Ladder, Place, Rate, Reservation,
    Standing, Step, Turn,
};

/// Whose clock a script goes by.
#[derive(Debug, Clone)]
pub enum CounterClock {
    /// The server's.
    Server,
    /// This one's monotonic clock: for tests that cannot wait a day.
    Given(Arc<dyn Host>),
}

/// Counters in Redis.
#[derive(Debug)]
pub struct RedisCounters {
    redis: Redis,
    clock: CounterClock,
    rate: Script,
    ladder: Script,
    distinct: Script,
}

impl RedisCounters {
    /// Counters in this Redis.
    #[must_use]
    pub fn new(redis: Redis, clock: CounterClock) -> Self {
        let [rate, ladder, distinct] = [RATE, LADDER, DISTINCT].map(Script::new);
        Self { redis, clock, rate, ladder, distinct }
    }

    fn now(&self) -> Vec<u8> {
        match &self.clock {
            CounterClock::Server => Vec::new(),
            CounterClock::Given(host) => number(host.now().monotonic.0),
        }
    }
}

impl Counters for RedisCounters {
    async fn rate(&self, key: &Key, rate: Rate, count: Count) -> Result<Turn, CounterError> {
        let counts = match count {
            Count::One => 1,
            Count::Nothing => 0,
        };
        let arguments = [self.now(), number(rate.interval_us()), number(rate.tolerance_us()), number(counts)];
        let (refused, micros): (u8, u64) =
            self.redis.script(&self.rate, RATE, &key.text(), &arguments).await?;
        Ok(if refused == 0 { Turn::Now } else { Turn::In(micros.div_ceil(1000)) })
    }

    async fn ladder(&self, key: &Key, ladder: Ladder, step: Step) -> Result<Standing, CounterError> {
        let Ladder { free, first_ms, max_ms, failures_max, lock_ms, memory_ms } = ladder;
        let (word, given) = match step {
            Step::Attempt => ("attempt", 0),
            Step::Strike => ("strike", 0),
            Step::Look => ("look", 0),
            Step::Refund(given) => ("refund", given),
        };
        let arguments = [
            self.now(),
            word.into(),
            number(free),
            number(first_ms),
            number(max_ms),
            number(failures_max),
            number(lock_ms),
            number(memory_ms),
            number(given),
        ];
        let (delayed, millis): (u8, u64) =
            self.redis.script(&self.ladder, LADDER, &key.text(), &arguments).await?;
        Ok(if delayed == 0 {
            Standing::Free(Reservation { until: millis, place: Place::Redis })
        } else {
            Standing::Delayed(millis)
        })
    }

    async fn distinct(&self, key: &Key, distinct: Distinct, member: &Digest) -> Result<Crowd, CounterError> {
        let Distinct { limit, window_ms, excess } = distinct;
        let excess = match excess {
            Excess::Restarts => "restarts",
            Excess::Stays => "stays",
        };
        let arguments =
            [self.now(), member.to_vec(), number(window_ms), number(limit), excess.as_bytes().to_vec()];
        let many: u8 = self.redis.script(&self.distinct, DISTINCT, &key.text(), &arguments).await?;
        Ok(if many == 0 { Crowd::Few } else { Crowd::Many })
    }

    async fn clear(&self, key: &Key) -> Result<(), CounterError> {
        let text = key.text();
        let command = async |link: &super::Link| link.ask(redis::cmd("DEL").arg(&text)).await;
        self.redis.guarded(command).await.map(|_| ()).map_err(RedisError::into)
    }
}

fn number(value: u64) -> Vec<u8> {
    value.to_string().into_bytes()
}

const RATE: &str = include_str!("rate.lua");
const LADDER: &str = include_str!("ladder.lua");
const DISTINCT: &str = include_str!("distinct.lua");
