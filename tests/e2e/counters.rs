//! The stores as real servers: what is counted in Redis is what the pure rules say, and a Redis that fails makes logins
//! stricter and never free.

mod agreement;
mod faults;
mod news;
mod sharing;

use std::collections::BTreeMap;
use std::sync::Arc;

use tollgate_issuer::clock::SystemHost;
use tollgate_issuer::config::{Flags, Settings};
use tollgate_issuer::metrics::Metrics;
use tollgate_issuer::store::redis::{CounterClock, Redis, RedisCounters};
use tollgate_issuer::throttle::{
    Admission, AnyCounters, KeySecret, MemoryCounters, Outcome, SharedCounters, Throttle,
};
use tollgate_tests::redis_server::PRIMARY_NAME;
use zeroize::Zeroizing;

/// One replica of the issuer, as far as logins are throttled in it. Limits of sources are out of the way.
struct Replica {
    throttle: Throttle,
    redis: Redis,
    metrics: Arc<Metrics>,
}

/// Where a replica finds its Redis.
fn single(url: &str) -> Vec<(&'static str, String)> {
    vec![("URL", url.to_owned())]
}

fn cluster(urls: &[String]) -> Vec<(&'static str, String)> {
    vec![("MODE", "cluster".to_owned()), ("URLS", format!("{urls:?}"))]
}

fn sentinel(url: &str) -> Vec<(&'static str, String)> {
    let primary = format!("redis://{PRIMARY_NAME}");
    vec![("MODE", "sentinel".to_owned()), ("URL", primary), ("URLS", format!("[{url:?}]"))]
}

fn settings(redis: &[(&str, String)]) -> Settings {
    let fixed = [
        ("REDIS__TIMEOUT_MS", "1000"),
        ("REDIS__OPEN_FOR_MS", "100"),
        ("THROTTLE__ADDRESS_PER_MINUTE", "1000000"),
        ("THROTTLE__NETWORK_PER_MINUTE", "1000000"),
        ("THROTTLE__SPRAYING_ADDRESS_ACCOUNTS", "10000"),
        ("THROTTLE__SPRAYING_NETWORK_ACCOUNTS", "10000"),
        // Long enough that whoever is locked stays locked for the length of a test.
        ("THROTTLE__DELAY_FIRST_MS", "60000"),
    ];
    let fixed = fixed.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let redis = redis.iter().map(|(name, value)| (format!("REDIS__{name}"), value.clone()));
    let variables = redis.chain(fixed).map(|(name, value)| (format!("TOLLGATE_{name}"), value));
    Settings::load(None, &variables.collect::<BTreeMap<_, _>>(), &Flags::default()).unwrap()
}

impl Replica {
    fn new(redis: &[(&str, String)]) -> Self {
        let settings = settings(redis);
        let (host, metrics) = (Arc::new(SystemHost::new()), Arc::new(Metrics::default()));
        let redis = Redis::new(settings.redis.unwrap(), host.clone(), metrics.clone());
        let memory = MemoryCounters::new(settings.throttle.entries_max, host.clone());
        let shared = SharedCounters::new(
            RedisCounters::new(redis.clone(), CounterClock::Server),
            memory,
            settings.throttle.fallback_divisor,
            metrics.clone(),
        );
        let secret = KeySecret::new(Zeroizing::new([9; 32]));
        let counters = AnyCounters::Shared(shared);
        let throttle = Throttle::new(settings.throttle, secret, counters, host, metrics.clone());
        Self { throttle, redis, metrics }
    }

    /// One failed login; whether its password was looked at.
    async fn fails(&self, username: &str) -> bool {
        self.attempt(username, Outcome::Failed).await
    }

    async fn attempt(&self, username: &str, outcome: Outcome) -> bool {
        let approach = self.throttle.approach([192, 0, 2, 1].into(), username).await.unwrap();
        match self.throttle.admit(approach, None).await {
            Admission::Proceed(pass) => {
                self.throttle.note(pass, outcome).await;
                true
            }
            Admission::Locked(pass) => {
                self.throttle.note(pass, outcome).await;
                false
            }
            Admission::TooMany(refused) => panic!("{refused:?}"),
        }
    }

    /// How many guesses an account allows before it is locked.
    async fn guesses(&self, username: &str) -> usize {
        let mut guesses = 0;
        while self.fails(username).await {
            guesses += 1;
            assert!(guesses < 100, "no end to the guesses");
        }
        guesses
    }

    fn fallbacks(&self) -> u64 {
        let text = self.metrics.text().unwrap();
        let line = text.lines().find(|line| line.contains("throttle_fallbacks_total ")).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}
