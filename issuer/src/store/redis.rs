//! Guards what replicas share in Redis: each command has a time limit, and a breaker leaves a server alone that fails.
//!
//! *What comes in:* commands of ours, never a client's words as a command. *What goes out:* answers, or that there is none:
//! a server that hangs, is full, or may not be written to is as good as none. *What an attacker gains if this is wrong:*
//! logins that wait for a server that does not answer.
//!
//! Nothing is kept here that must survive. A single server, a primary that sentinels name, and a cluster are used alike:
//! every script touches one key.

mod connection;
mod counters;
mod facts;
mod news;

use std::sync::{Arc, Mutex, PoisonError};

use redis::{Cmd, ErrorKind, FromRedisValue, Script, ServerErrorKind};

pub use counters::{CounterClock, RedisCounters};
pub use facts::{SharedFact, SharedFacts};
pub use news::{FeedNews, News};

use crate::breaker::{BreakerState, Refused, SharedBreaker};
use crate::clock::Host;
use crate::config::RedisSettings;
use crate::metrics::Metrics;
use connection::Link;

/// Why Redis did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    /// It failed before, and is left alone for a while.
    #[error("redis: {0}")]
    LeftAlone(#[from] Refused),
    /// No connection, or no answer, in time.
    #[error("redis: no answer in time")]
    Timeout,
    /// It cannot be reached, or refuses.
    #[error("redis: {0}")]
    Server(#[from] redis::RedisError),
    /// It answered what our script does not.
    #[error("redis: an answer that makes no sense")]
    Answer,
}

/// A Redis, however many servers that is. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Redis(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    link: Link,
    breaker: SharedBreaker,
    /// The state that was last told to the metrics.
    told: Mutex<Option<BreakerState>>,
    host: Arc<dyn Host>,
    metrics: Arc<Metrics>,
}

impl Redis {
    /// The Redis of these settings. It is connected to when it is first used, and again after each failure.
    #[must_use]
    pub fn new(settings: RedisSettings, host: Arc<dyn Host>, metrics: Arc<Metrics>) -> Self {
        let RedisSettings { servers, timeout, breaker } = settings;
        let breaker = SharedBreaker::new(breaker);
        let redis = Self(Arc::new(Inner {
            link: Link::new(servers, timeout),
            breaker,
            told: Mutex::new(None),
            host,
            metrics,
        }));
        redis.tell();
        redis
    }

    /// Whether it is asked at present.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        self.0.breaker.state(self.0.host.now().monotonic)
    }

    /// Whether it answers.
    ///
    /// # Errors
    /// [`RedisError`] when it does not.
    pub async fn ping(&self) -> Result<(), RedisError> {
        self.guarded(async |link| link.ask(&redis::cmd("PING")).await.map(|_| ())).await
    }

    /// Runs a script on one key. A server that does not have the script is given it.
    async fn script<T: FromRedisValue>(
        &self,
        script: &Script,
        code: &'static str,
        key: &str,
        arguments: &[Vec<u8>],
    ) -> Result<T, RedisError> {
        let command = |verb, what: &str| -> Cmd {
            let mut command = redis::cmd(verb);
            command.arg(what).arg(1).arg(key).arg(arguments);
            command
        };
        let answer =
            self.guarded(async |link| match link.ask(&command("EVALSHA", script.get_hash())).await {
                // With EVAL the script goes where the key is, also in a cluster.
                Err(RedisError::Server(error)) if lacks_script(&error) => {
                    link.ask(&command("EVAL", code)).await
                }
                other => other,
            });
        redis::from_redis_value(answer.await?).map_err(|_| RedisError::Answer)
    }

    /// Does what the breaker permits, and tells it how that ended.
    async fn guarded<T>(
        &self,
        work: impl AsyncFnOnce(&Link) -> Result<T, RedisError>,
    ) -> Result<T, RedisError> {
        let Inner { link, breaker, host, .. } = &*self.0;
        let call = breaker.permit(host.now().monotonic)?;
        let result = work(link).await;
        match &result {
            Ok(_) => call.succeeded(),
            Err(error) => {
                tracing::debug!(%error, "redis failed");
                call.failed(host.now().monotonic);
            }
        }
        self.tell();
        result
    }

    /// Tells log and metrics of a state that is new.
    fn tell(&self) {
        let state = self.state();
        let mut told = self.0.told.lock().unwrap_or_else(PoisonError::into_inner);
        let before = told.replace(state);
        if before == Some(state) {
            return;
        }
        self.0.metrics.breaker("redis", state);
        match (before, state) {
            (None, _) => {}
            (Some(_), BreakerState::Closed) => tracing::info!("redis is used again"),
            (Some(_), BreakerState::Open | BreakerState::HalfOpen) => {
                tracing::warn!(state = state.name(), "redis is left alone");
            }
        }
    }
}

fn lacks_script(error: &redis::RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}
