//! The issuer: it knows users, gives them tokens, takes tokens back, and tells edges what they need to decide alone.
//!
//! [`serve`] runs it on a listener and until a future that the caller has; the program in `main.rs` and the tests are two
//! such callers. [`App::open`] is everything but the network.

#![forbid(unsafe_code)]
// A login waits for counters, databases and hashing in turn; the type of that wait is nested deeper than the default.
#![recursion_limit = "256"]

pub mod access;
pub mod admin;
pub mod api_key;
pub mod app;
pub mod audit;
pub mod body;
pub mod breaker;
pub mod cache;
pub mod cli;
pub mod client;
pub mod client_token;
pub mod clock;
pub mod config;
pub mod credential;
pub mod edge_credentials;
pub mod error;
pub mod feed;
pub mod heartbeats;
pub mod huge_pages;
pub mod import;
pub mod keyring;
pub mod keys;
pub mod load;
pub mod login;
pub mod metrics;
pub mod network;
pub mod oauth;
mod once;
pub mod openapi;
pub mod password;
pub mod permission;
pub mod principal;
pub mod propagation;
pub mod published;
pub mod quota;
pub mod refresh;
mod routes;
mod server;
pub mod session;
pub mod sessions;
pub mod signing_keys;
pub mod status;
pub mod status_lists;
pub mod store;
pub mod throttle;
pub mod tokens;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

pub use app::{App, routes};
pub use server::{ServeError, serve};

use cache::Cache;
use client::Client;
use clock::Host;
use config::{Settings, ThrottleSettings};
use edge_credentials::EdgeCredentials;
use feed::Feed;
use heartbeats::Heartbeats;
use keyring::{Keyring, KeyringError};
use keys::{Existing, KeyError, create_private_dir, write_private};
use load::LoadReport;
use metrics::Metrics;
use oauth::metadata::Metadata;
use password::{PasswordError, PasswordPool};
use quota::PlanBook;
use status::StatusIndices;
use status_lists::StatusLists;
use store::redis::{CounterClock, Redis, RedisCounters};
use store::{LogEntry, Store, StoreError, StorePlace};
use throttle::{AnyCounters, KeySecret, MemoryCounters, SharedCounters, Throttle};

/// How long the answer to a request with an idempotency key is kept, in seconds.
const ANSWERS_SECONDS: u64 = 86_400;
/// The roles of a new database, each with what it is for.
const SEEDED_ROLES: [(&str, &str); 2] =
    [("admin", "Whoever runs what the tokens are for"), ("member", "Whoever uses it")];
/// Where the first operator finds the credential.
const OPERATOR_FILE: &str = "operator.token";

/// Why the issuer cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its keys.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// Its sealed keys.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// Its database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its password parameters.
    #[error(transparent)]
    Password(#[from] PasswordError),
}

impl App {
    /// Opens the data folder, and makes in it what is not there yet: keys, database, first operator.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(settings: Settings, host: Arc<dyn Host>) -> Result<Arc<Self>, OpenError> {
        create_private_dir(&settings.data_dir)?;
        let place = match settings.database.postgres.clone() {
            Some((home, shards)) => StorePlace::Postgres { home, shards },
            None => StorePlace::Folder(settings.data_dir.clone()),
        };
        let store = Store::open(&place, settings.database.limits, Arc::clone(&host)).await?;
        let keys = Keyring::open(&store, &settings, &host).await?;
        let operator_file = settings.data_dir.join(OPERATOR_FILE);
        store
            .add_first_operator(&*host, |credential| {
                let line = zeroize::Zeroizing::new(format!("{}\n", credential.reveal()));
                Ok(write_private(&operator_file, line.as_bytes(), Existing::IsReplaced, &*host)?)
            })
            .await?;
        store.seed_roles(&SEEDED_ROLES, host.seconds()).await?;
        if let Some(client) = Client::first_party(settings.default_plan.as_str()) {
            store.ensure_client(&client, host.seconds()).await?;
        }
        let metrics = Arc::new(Metrics::default());
        let redis = settings.redis.clone();
        let redis = redis.map(|redis| Redis::new(redis, Arc::clone(&host), Arc::clone(&metrics)));
        let shared = redis.clone().map(|redis| (redis, keys.shared_cache_key().clone()));
        let cache = Cache::new(settings.cache, &store, shared, &host, &metrics);
        let (closing, closing_seen) = watch::channel(false);
        let heartbeats = Arc::new(Heartbeats::new(Arc::clone(&metrics)));
        let (counted, heard) = (Arc::clone(&metrics), Arc::clone(&heartbeats));
        let feed =
            Feed::open(store.clone(), Arc::clone(&host), settings.feed, closing_seen, counted, heard).await?;
        let passwords = PasswordPool::new(settings.password, Arc::clone(&host), Arc::clone(&metrics))?;
        let indices = StatusIndices::new(store.clone(), Arc::clone(&host), settings.token.lifetime_seconds);
        let plans =
            PlanBook::new(settings.issuer.clone(), settings.plans.clone(), settings.default_plan.clone());
        let metadata = Metadata::new(&settings.issuer, &[settings.keys.new_key.algorithm()]);
        let throttle = throttle(&settings, &keys, redis.clone(), &host, &metrics);
        let load = Mutex::new(LoadReport::new(host.now().monotonic));
        let edges_seen = Mutex::new(BTreeMap::new());
        let openapi = openapi::published(&settings.issuer);
        Ok(Arc::new(Self {
            settings,
            host,
            store,
            cache,
            keys,
            passwords,
            indices,
            status_lists: StatusLists::default(),
            feed,
            plans,
            throttle,
            redis,
            load,
            metadata,
            openapi,
            metrics,
            edges_seen,
            heartbeats,
            edge_credentials: EdgeCredentials::default(),
            closing,
        }))
    }

    /// Tells the edges of plans that differ from what they were told. Only who serves does this: a command may
    /// run with other settings.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn publish(&self) -> Result<(), StoreError> {
        let plans = LogEntry::Plans(self.plans.to_json());
        if let Some(position) = self.store.log_if_changed(&plans, self.host.seconds()).await? {
            self.feed.reached(position);
        }
        Ok(())
    }

    /// Ends the long polls, and has the service say that it is not ready.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    /// What is to be done now and then: keep the feed's clock and the edges' last signs of life, remove what is of no use.
    /// Each step is done whatever became of those before it.
    ///
    /// # Errors
    /// [`StoreError`] of the first step that failed; what was not done is done the next time.
    pub async fn keep_house(&self) -> Result<(), StoreError> {
        let (store, shown) = (&self.store, self.feed.now());
        // Only what is over by both clocks goes: the feed's may be ahead of the date.
        let now = shown.min(self.host.now().wall).seconds();
        let done = [
            // First: events that find no part have to be moved to it later, while all who write wait.
            store.prepare_parts(now).await,
            store.raise_clock_floor(shown).await.map(drop),
            self.keep_edges_seen().await,
            self.cache.keep_hot(store).await,
            store.prune_feed_log(now).await.map(drop),
            store.prune_quota(now).await.map(drop),
            store.prune_sessions(now).await.map(drop),
            store.prune_cutoffs(now).await.map(drop),
            store.prune_outbox(now).await.map(drop),
            store.prune_api_keys(now).await.map(drop),
            store.prune_heartbeats(now).await.map(drop),
            store.prune_once(now.minus(ANSWERS_SECONDS), now).await.map(drop),
            match self.settings.audit_keep_days {
                Some(days) => store.prune_audit(now.minus(days * 86_400)).await.map(drop),
                None => Ok(()),
            },
        ];
        done.into_iter().collect()
    }

    /// Writes down when edges were last heard of, and forgets what was written.
    async fn keep_edges_seen(&self) -> Result<(), StoreError> {
        let seen: Vec<_> = match self.edges_seen.lock() {
            Ok(edges) => edges.iter().map(|(edge, seen)| (edge.clone(), *seen)).collect(),
            Err(_) => Vec::new(),
        };
        self.store.keep_edges_seen(&seen).await?;
        if let Ok(mut edges) = self.edges_seen.lock() {
            for (edge, written) in &seen {
                if edges.get(edge) == Some(written) {
                    edges.remove(edge);
                }
            }
        }
        Ok(())
    }
}

fn throttle(
    settings: &Settings,
    keys: &Keyring,
    redis: Option<Redis>,
    host: &Arc<dyn Host>,
    metrics: &Arc<Metrics>,
) -> Throttle {
    let ThrottleSettings { entries_max, fallback_divisor, .. } = settings.throttle;
    let memory = MemoryCounters::new(entries_max, Arc::clone(host));
    let counters = match redis {
        None => AnyCounters::Memory(memory),
        Some(redis) => {
            let redis = RedisCounters::new(redis, CounterClock::Server);
            AnyCounters::Shared(SharedCounters::new(redis, memory, fallback_divisor, Arc::clone(metrics)))
        }
    };
    let secret = KeySecret::new(keys.throttle_key());
    Throttle::new(settings.throttle, secret, counters, Arc::clone(host), Arc::clone(metrics))
}

#[cfg(test)]
mod tests;
