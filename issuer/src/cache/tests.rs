use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use tempfile::TempDir;
use tokio::sync::{Notify, oneshot};
use tollgate_shared::time::{Monotonic, Now, UnixMillis, UnixSeconds};

use super::*;
use crate::clock::{EntropyError, SystemHost};
use crate::config::{Flags, Settings};
use crate::store::{Revision, StorePlace};

/// A clock that only a test moves.
#[derive(Debug)]
struct StillHost(AtomicU64);

impl StillHost {
    fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(1_800_000_000_000)))
    }

    fn advance(&self, millis: u64) {
        self.0.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Host for StillHost {
    fn now(&self) -> Now {
        let millis = self.0.load(Ordering::SeqCst);
        Now { wall: UnixMillis(millis), monotonic: Monotonic(millis) }
    }

    fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError> {
        SystemHost::new().fill(bytes)
    }
}

const SETTINGS: CacheSettings =
    CacheSettings { memory_entries_max: 100, memory_seconds: 5, shared_seconds: 60, stale_seconds: 60 };

fn tenant(name: &str) -> (Tenant, Revision) {
    let tenant = Tenant { id: "acme".to_owned(), name: name.to_owned(), disabled: false };
    (tenant, Revision { version: 1, created_at: UnixSeconds(1), updated_at: UnixSeconds(1) })
}

/// One shelf, and a database that a test answers for.
struct Bench {
    host: Arc<StillHost>,
    metrics: Arc<Metrics>,
    shelf: Shelf<Tenant>,
    reads: AtomicU64,
}

impl Bench {
    fn new(settings: CacheSettings) -> Self {
        let (host, metrics) = (StillHost::new(), Arc::new(Metrics::default()));
        let shelf = Shelf::new(settings, None, host.clone(), metrics.clone());
        Self { host, metrics, shelf, reads: AtomicU64::new(0) }
    }

    /// What is answered when the database says this.
    async fn read(
        &self,
        id: &str,
        says: Result<Option<&str>, StoreError>,
    ) -> Result<Option<String>, StoreError> {
        let found = self.shelf.read(id, || {
            self.reads.fetch_add(1, Ordering::SeqCst);
            async move { says.map(|name| name.map(tenant)) }
        });
        Ok(found.await?.map(|known| known.value.name.clone()))
    }

    async fn has(&self, id: &str, says: Option<&str>) -> Option<String> {
        self.read(id, Ok(says)).await.unwrap()
    }

    fn reads(&self) -> u64 {
        self.reads.load(Ordering::SeqCst)
    }

    fn counted(&self, line: &str) -> bool {
        self.metrics.text().unwrap().lines().any(|counted| counted == line)
    }
}

#[tokio::test]
async fn an_entry_is_good_until_its_time_is_over_and_then_read_again() {
    let bench = Bench::new(SETTINGS);
    assert_eq!(bench.has("acme", Some("one")).await.as_deref(), Some("one"));
    bench.host.advance(4_999);
    assert_eq!(bench.has("acme", Some("two")).await.as_deref(), Some("one"));
    assert_eq!(bench.reads(), 1);
    bench.host.advance(1);
    assert_eq!(bench.has("acme", Some("two")).await.as_deref(), Some("two"));
    assert_eq!(bench.reads(), 2);
    for (level, outcome, count) in [("memory", "hit", 1), ("memory", "miss", 2), ("database", "hit", 2)] {
        let line = format!(
            "tollgate_issuer_cache_reads_total{{kind=\"tenant\",level=\"{level}\",outcome=\"{outcome}\"}} {count}"
        );
        assert!(bench.counted(&line), "{line}");
    }
    assert!(bench.counted("tollgate_issuer_cache_entries{kind=\"tenant\"} 1"));
}

#[tokio::test]
async fn an_entry_is_as_old_as_the_moment_its_reading_began() {
    let bench = Bench::new(SETTINGS);
    let slow = bench.shelf.read("acme", || async {
        bench.host.advance(5_000);
        Ok(Some(tenant("one")))
    });
    assert!(slow.await.unwrap().is_some());
    assert_eq!(bench.has("acme", Some("two")).await.as_deref(), Some("two"));
}

#[tokio::test]
async fn without_time_in_memory_every_answer_is_the_databases() {
    let bench = Bench::new(CacheSettings { memory_seconds: 0, ..SETTINGS });
    for (turn, says) in [Some("one"), None, Some("two")].into_iter().enumerate() {
        assert_eq!(bench.has("acme", says).await.as_deref(), says);
        assert_eq!(bench.reads(), turn as u64 + 1);
    }
}

#[tokio::test]
async fn what_does_not_exist_is_believed_for_a_second_and_pushes_nothing_out() {
    let bench = Bench::new(CacheSettings { memory_seconds: 300, ..SETTINGS });
    assert_eq!(bench.has("acme", Some("one")).await.as_deref(), Some("one"));
    for number in 0..5_000 {
        assert_eq!(bench.has(&format!("invented{number}"), None).await, None);
    }
    assert_eq!(bench.has("acme", None).await.as_deref(), Some("one"));
    assert_eq!(bench.reads(), 5_001);
    assert!(bench.counted("tollgate_issuer_cache_entries{kind=\"tenant\"} 1"));
    assert_eq!(bench.has("new", None).await, None);
    assert_eq!(bench.has("new", Some("new")).await, None);
    bench.host.advance(ABSENT_SECONDS * 1000);
    assert_eq!(bench.has("new", Some("new")).await.as_deref(), Some("new"));
    assert!(bench.shelf.take_hot().iter().all(|(id, _)| !id.starts_with("invented")));
}

const ABSENT_SECONDS: u64 = 1;

#[tokio::test]
async fn no_more_is_kept_than_the_setting_says() {
    let bench = Bench::new(SETTINGS);
    for number in 0..2_000 {
        bench.has(&number.to_string(), Some("one")).await;
    }
    assert!(
        format!("{:?}", bench.shelf).split(|char: char| !char.is_ascii_digit()).all(|digits| {
            digits.parse::<usize>().is_ok_and(|entries| entries <= 100) || digits.is_empty()
        })
    );
}

#[tokio::test]
async fn a_change_is_seen_at_once_also_by_whoever_was_told_of_nothing() {
    let bench = Bench::new(SETTINGS);
    bench.has("acme", Some("one")).await;
    bench.has("new", None).await;
    bench.shelf.changed("acme");
    bench.shelf.changed("new");
    assert_eq!(bench.has("acme", Some("two")).await.as_deref(), Some("two"));
    assert_eq!(bench.has("new", Some("new")).await.as_deref(), Some("new"));
}

#[tokio::test]
async fn what_was_being_read_when_it_changed_is_not_kept() {
    let bench = Bench::new(SETTINGS);
    let overtaken = bench.shelf.read("acme", || async {
        let read = tenant("one");
        bench.shelf.changed("acme");
        Ok(Some(read))
    });
    assert_eq!(overtaken.await.unwrap().unwrap().value.name, "one");
    assert_eq!(bench.has("acme", Some("two")).await.as_deref(), Some("two"));
}

#[tokio::test]
async fn after_news_were_missed_everything_is_read_again() {
    let bench = Bench::new(SETTINGS);
    bench.has("acme", Some("one")).await;
    bench.shelf.distrust();
    assert_eq!(bench.has("acme", Some("two")).await.as_deref(), Some("two"));
    bench.shelf.distrust();
    assert_eq!(bench.read("acme", Err(StoreError::Timeout)).await.unwrap().as_deref(), Some("two"));
}

#[tokio::test]
async fn a_cold_key_is_read_once_for_all_who_want_it() {
    let bench = Bench::new(SETTINGS);
    let (asked, answer) = (Notify::new(), Notify::new());
    let first = bench.shelf.read("acme", || async {
        asked.notify_one();
        answer.notified().await;
        Ok(Some(tenant("one")))
    });
    let others = async {
        asked.notified().await;
        let waiting = (0..50).map(|_| bench.read("acme", Ok(Some("two"))));
        let answered = async { answer.notify_one() };
        futures_util::future::join(futures_util::future::join_all(waiting), answered).await.0
    };
    let (first, others) = futures_util::future::join(first, others).await;
    assert_eq!(first.unwrap().unwrap().value.name, "one");
    assert!(others.into_iter().all(|found| found.unwrap().as_deref() == Some("one")));
    assert_eq!(bench.reads(), 0);
}

/// Whether a future, looked at once, has no answer yet.
async fn waits<F: Future>(mut future: Pin<&mut F>) -> bool {
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_pending())).await
}

#[tokio::test]
async fn who_gives_up_leaves_the_reading_to_the_next() {
    let bench = Bench::new(SETTINGS);
    let (_never, silence) = oneshot::channel::<()>();
    let mut given_up = Box::pin(bench.shelf.read("acme", || async {
        let _ = silence.await;
        Ok(None)
    }));
    assert!(waits(given_up.as_mut()).await);
    let mut waiting = Box::pin(bench.read("acme", Ok(Some("one"))));
    assert!(waits(waiting.as_mut()).await);
    drop(given_up);
    assert_eq!(waiting.await.unwrap().as_deref(), Some("one"));
    assert_eq!(bench.reads(), 1);
}

#[tokio::test]
async fn while_the_database_is_silent_an_old_entry_stands_in_for_as_long_as_it_may() {
    let bench = Bench::new(SETTINGS);
    bench.has("acme", Some("one")).await;
    bench.host.advance(5_000);
    let silent = || Err(StoreError::Timeout);
    for _ in 0..10 {
        assert_eq!(bench.read("acme", silent()).await.unwrap().as_deref(), Some("one"));
    }
    assert_eq!(bench.reads(), 2, "a silent database is left alone for a while");
    assert!(
        bench.counted(
            "tollgate_issuer_cache_reads_total{kind=\"tenant\",level=\"memory\",outcome=\"stale\"} 10"
        )
    );
    assert!(matches!(bench.read("other", silent()).await, Err(StoreError::Timeout)));
    bench.host.advance(59_999);
    assert_eq!(bench.read("acme", silent()).await.unwrap().as_deref(), Some("one"));
    bench.host.advance(1);
    assert!(matches!(bench.read("acme", silent()).await, Err(StoreError::Timeout)));
    bench.host.advance(1_000);
    assert_eq!(bench.has("acme", Some("two")).await.as_deref(), Some("two"));
}

#[tokio::test]
async fn nothing_stands_in_for_what_was_changed_or_for_an_answer_that_is_wrong() {
    let bench = Bench::new(SETTINGS);
    bench.has("acme", Some("one")).await;
    bench.has("other", Some("one")).await;
    bench.shelf.changed("acme");
    bench.host.advance(5_000);
    let corrupt = bench.read("other", Err(StoreError::Corrupt("tenants"))).await;
    assert!(matches!(corrupt, Err(StoreError::Corrupt(_))));
    assert!(matches!(bench.read("acme", Err(StoreError::Timeout)).await, Err(StoreError::Timeout)));
}

/// A cache on a database of its own.
struct Replica {
    store: Store,
    cache: Cache,
    metrics: Arc<Metrics>,
    host: Arc<StillHost>,
}

impl Replica {
    async fn open(folder: &TempDir, host: &Arc<StillHost>) -> Self {
        let limits = Settings::load(None, &BTreeMap::new(), &Flags::default()).unwrap().database.limits;
        let place = StorePlace::Folder(folder.path().to_owned());
        let store = Store::open(&place, limits, host.clone()).await.unwrap();
        let metrics = Arc::new(Metrics::default());
        let shared_host: Arc<dyn Host> = host.clone();
        let cache = Cache::new(SETTINGS, &store, None, &shared_host, &metrics);
        Self { store, cache, metrics, host: host.clone() }
    }

    async fn client(&self, id: &str) -> Option<Arc<Client>> {
        self.cache.client(&self.store, id).await.unwrap()
    }

    fn database_reads(&self, kind: &str) -> u64 {
        let start = format!(
            "tollgate_issuer_cache_reads_total{{kind=\"{kind}\",level=\"database\",outcome=\"hit\"}} "
        );
        let text = self.metrics.text().unwrap();
        text.lines().find_map(|line| line.strip_prefix(&start)?.parse().ok()).unwrap_or_default()
    }

    fn now(&self) -> UnixSeconds {
        self.host.seconds()
    }
}

fn client(id: &str) -> Client {
    let id = crate::client::client_id(id).unwrap();
    Client { id, ..Client::first_party("free").unwrap() }
}

#[tokio::test]
async fn every_write_of_the_store_is_seen_by_the_next_read() {
    let (folder, host) = (TempDir::new().unwrap(), StillHost::new());
    let replica = Replica::open(&folder, &host).await;
    let Replica { store, cache, .. } = &replica;
    assert!(replica.client("app").await.is_none());
    let mut app = client("app");
    store.add_client(&app, replica.now()).await.unwrap();
    assert_eq!(replica.client("app").await.unwrap().name, "First party");
    app.name = "Second".to_owned();
    store.change_client(&app, None, "operator", &*host).await.unwrap();
    assert_eq!(replica.client("app").await.unwrap().name, "Second");
    store.delete_client("app", None, "operator", &*host).await.unwrap();
    assert!(replica.client("app").await.is_none());

    let permissions = async || {
        let role = cache.role(store, "admin").await.unwrap();
        role.map(|role| role.permissions.clone())
    };
    let role = |permissions: &[&str]| Role {
        name: "admin".to_owned(),
        permissions: permissions.iter().map(|name| (*name).to_owned()).collect(),
        description: String::new(),
    };
    assert_eq!(permissions().await, None);
    store.add_role(&role(&["a", "b"]), replica.now()).await.unwrap();
    assert_eq!(permissions().await.unwrap(), ["a", "b"]);
    store.change_role(&role(&["a"]), None, ("operator", "https://issuer.test"), &*host).await.unwrap();
    assert_eq!(permissions().await.unwrap(), ["a"]);
    store.delete_role("admin", None, ("operator", "https://issuer.test"), &*host).await.unwrap();
    assert_eq!(permissions().await, None);

    let disabled = async || cache.tenant(store, "acme").await.unwrap().map(|tenant| tenant.disabled);
    assert_eq!(disabled().await, None);
    let mut acme = tenant("Acme").0;
    store.add_tenant(&acme, replica.now()).await.unwrap();
    assert_eq!(disabled().await, Some(false));
    acme.disabled = true;
    store.change_tenant(&acme, None, "operator", &*host).await.unwrap();
    assert_eq!(disabled().await, Some(true));
}

#[tokio::test]
async fn another_process_sees_a_change_at_the_latest_when_the_time_in_memory_is_over() {
    let (folder, host) = (TempDir::new().unwrap(), StillHost::new());
    let (one, other) = (Replica::open(&folder, &host).await, Replica::open(&folder, &host).await);
    one.store.add_client(&client("app"), one.now()).await.unwrap();
    assert!(!other.client("app").await.unwrap().disabled);
    let disabled = Client { disabled: true, ..client("app") };
    one.store.change_client(&disabled, None, "operator", &*host).await.unwrap();
    assert!(!other.client("app").await.unwrap().disabled);
    let confirmed = other.cache.confirmed_client(&other.store, "app").await.unwrap();
    assert!(confirmed.unwrap().disabled, "what is issued to it is decided by the database");
    assert!(other.client("app").await.unwrap().disabled, "and what was old is gone then");

    one.store.change_client(&client("app"), None, "operator", &*host).await.unwrap();
    assert!(other.client("app").await.unwrap().disabled);
    host.advance(5_000);
    assert!(!other.client("app").await.unwrap().disabled);
    assert!(other.cache.confirmed_client(&other.store, "app").await.unwrap().is_some());
    one.store.delete_client("app", None, "operator", &*host).await.unwrap();
    assert!(other.cache.confirmed_client(&other.store, "app").await.unwrap().is_none());
}

#[tokio::test]
async fn what_was_hot_is_in_memory_after_a_start_before_anybody_asks() {
    let (folder, host) = (TempDir::new().unwrap(), StillHost::new());
    let before = Replica::open(&folder, &host).await;
    for id in ["hot", "cold"] {
        before.store.add_client(&client(id), before.now()).await.unwrap();
    }
    before.store.add_tenant(&tenant("Acme").0, before.now()).await.unwrap();
    for _ in 0..3 {
        before.client("hot").await.unwrap();
        before.cache.tenant(&before.store, "acme").await.unwrap().unwrap();
    }
    before.cache.keep_hot(&before.store).await.unwrap();

    let after = Replica::open(&folder, &host).await;
    assert_eq!(after.cache.warm(&after.store).await.unwrap(), 2);
    let read = after.database_reads("client");
    after.client("hot").await.unwrap();
    assert_eq!(after.database_reads("client"), read, "a hot client is not read again");
    after.client("cold").await.unwrap();
    assert_eq!(after.database_reads("client"), read + 1);
}

#[tokio::test]
async fn what_is_used_no_more_is_forgotten_and_no_more_is_kept_than_there_are_places() {
    let (folder, host) = (TempDir::new().unwrap(), StillHost::new());
    let Replica { store, .. } = Replica::open(&folder, &host).await;
    let uses = |id: &str, uses| (FactKind::Client, id.to_owned(), uses);
    store.add_uses(&[uses("a", 9), uses("b", 4), uses("c", 5)], 2).await.unwrap();
    assert_eq!(store.hot(10).await.unwrap(), [uses("a", 9), uses("c", 5)]);
    store.add_uses(&[uses("c", 3), (FactKind::Role, "r".to_owned(), 1)], 2).await.unwrap();
    let role = (FactKind::Role, "r".to_owned(), 1);
    assert_eq!(store.hot(10).await.unwrap(), [uses("c", 5), uses("a", 4), role]);
    assert_eq!(store.hot(1).await.unwrap(), [uses("c", 5)]);
    for _ in 0..3 {
        store.add_uses(&[uses("z", 100)], 2).await.unwrap();
    }
    let left: Vec<String> = store.hot(10).await.unwrap().into_iter().map(|(_, id, _)| id).collect();
    assert_eq!(left, ["z"]);
}
