//! The pool: equal work, sizes, the queue.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use zeroize::Zeroizing;

use super::*;
use crate::clock::SystemHost;
use crate::password::PasswordContext;

const SETTINGS: PasswordSettings = PasswordSettings {
    memory_kib: 64,
    iterations: 2,
    parallelism: 1,
    queue_max: 4,
    workers: 1,
    memory_max_mib: 1,
};

fn pool(settings: PasswordSettings) -> PasswordPool {
    PasswordPool::new(settings, Arc::new(SystemHost::new()), Arc::new(Metrics::default())).unwrap()
}

fn password(text: &str) -> Password {
    Password::new(Zeroizing::new(text.to_owned())).unwrap()
}

fn stored(text: &str) -> StoredHash {
    StoredHash::parse(text).unwrap()
}

async fn hash(settings: PasswordSettings) -> String {
    pool(settings).rehash(&password("correct horse")).await.unwrap()
}

const BCRYPT: &str = "$2b$04$EGdrhbKUv8Oc9vGiXX0HQOxSg445d458Muh7DAHskb6QbtCvdxcie";

#[tokio::test]
async fn a_hash_fits_its_password_and_is_as_strong_as_those_made_now() {
    let pool = pool(SETTINGS);
    let context = PasswordContext { username: "alice", issuer: "https://id.example.org" };
    let new = NewPassword::new(password("correct horse"), &context).unwrap();
    let (one, two) = (pool.hash(&new).await.unwrap(), pool.hash(&new).await.unwrap());
    assert!(one.starts_with("$argon2id$v=19$m=64,t=2,p=1$"), "{one}");
    assert_ne!(one, two);
    let verified = pool.verify(&password("correct horse"), Some(stored(&one)), Standing::Open).await.unwrap();
    assert_eq!(verified, Verified { right: Verdict::Right, needs_rehash: Rehash::NotNeeded });
    let verified =
        pool.verify(&password("correct horse."), Some(stored(&one)), Standing::Open).await.unwrap();
    assert_eq!(verified.right, Verdict::Wrong);
    assert_eq!(
        pool.verify(&password("correct horse"), None, Standing::Open).await.unwrap().right,
        Verdict::Wrong
    );
}

#[tokio::test]
async fn a_hash_is_made_anew_when_anything_of_it_is_below_what_is_set_now() {
    let pool = pool(SETTINGS);
    let lower = [
        PasswordSettings { memory_kib: 63, ..SETTINGS },
        PasswordSettings { iterations: 1, ..SETTINGS },
        PasswordSettings { memory_kib: 128, iterations: 1, ..SETTINGS },
    ];
    let enough = [
        SETTINGS,
        PasswordSettings { memory_kib: 65, ..SETTINGS },
        PasswordSettings { iterations: 3, ..SETTINGS },
        PasswordSettings { parallelism: 2, ..SETTINGS },
    ];
    let cases = lower.map(|settings| (settings, Rehash::Needed)).into_iter();
    for (settings, expected) in cases.chain(enough.map(|settings| (settings, Rehash::NotNeeded))) {
        let hash = hash(settings).await;
        let verified =
            pool.verify(&password("correct horse"), Some(stored(&hash)), Standing::Open).await.unwrap();
        assert_eq!(verified, Verified { right: Verdict::Right, needs_rehash: expected }, "{settings:?}");
    }
    let legacy = pool
        .verify(&password("correctbatteryhorsestapler"), Some(stored(BCRYPT)), Standing::Open)
        .await
        .unwrap();
    assert_eq!(legacy, Verified { right: Verdict::Right, needs_rehash: Rehash::Needed });
    // The same costs, but another kind of Argon2, and its first version.
    let argon2i = "$argon2i$v=19$m=256,t=2,p=1$c29tZXNhbHQ$iekCn0Y3spW+sCcFanM2xBT63UP2sghkUoHLIUpWRS8";
    let first = "$argon2i$m=256,t=2,p=1$c29tZXNhbHQ$/U3YPXYsSb3q9XxHvc0MLxur+GP960kN9j7emXX8zwY";
    for hash in [argon2i, first] {
        let verified = pool.verify(&password("password"), Some(stored(hash)), Standing::Open).await.unwrap();
        assert_eq!(verified, Verified { right: Verdict::Right, needs_rehash: Rehash::Needed }, "{hash}");
    }
}

/// How many blocks each computed hash of Argon2 took.
fn work(password: &str, stored: Option<&StoredHash>, standing: Standing) -> Vec<usize> {
    let standard = Standard::new(&SETTINGS).unwrap();
    let nobody = standard.nobody([1; 16], [2; 32]);
    let mut memory = HashMemory::keeping(standard.block_count());
    compare(&standard, &nobody, password.as_bytes(), stored, standing, &mut memory);
    memory.filled
}

#[tokio::test]
async fn no_wrong_password_costs_less_than_an_unknown_user() {
    let current = hash(SETTINGS).await;
    let cheaper = hash(PasswordSettings { memory_kib: 32, ..SETTINGS }).await;
    let dearer = hash(PasswordSettings { iterations: 3, ..SETTINGS }).await;
    let salted = "s4lt:54622756d22424ab853fc558df943bd14003498d1f0683f956983b27005f5334";
    assert_eq!(work("wrong password", None, Standing::Open), [64]);
    let cases: [(&str, &str, &[usize], &[usize]); 5] = [
        (&current, "correct horse", &[64], &[64]),
        (&cheaper, "correct horse", &[32, 64], &[32]),
        (&dearer, "correct horse", &[64], &[64]),
        (BCRYPT, "correctbatteryhorsestapler", &[64], &[]),
        (salted, "correct horse", &[64], &[]),
    ];
    for (hash, right, refused, admitted) in cases {
        let hash = stored(hash);
        assert_eq!(work("wrong password", Some(&hash), Standing::Open), refused, "{hash:?}");
        assert_eq!(work("wrong password", Some(&hash), Standing::Refused), refused, "{hash:?}");
        // Who guesses at a locked account does not see by the time that the guess was right.
        assert_eq!(work(right, Some(&hash), Standing::Refused), refused, "{hash:?}");
        // Who knows the password and is let in is not kept waiting.
        assert_eq!(work(right, Some(&hash), Standing::Open), admitted, "{hash:?}");
    }
}

#[tokio::test]
async fn a_right_password_of_somebody_who_is_refused_is_wrong() {
    let pool = pool(SETTINGS);
    let hash = hash(SETTINGS).await;
    let right = password("correct horse");
    let verified = pool.verify(&right, Some(stored(&hash)), Standing::Refused).await.unwrap();
    assert_eq!(verified.right, Verdict::Wrong);
}

#[test]
fn nobodys_hash_costs_what_a_hash_of_now_costs_and_fits_nothing() {
    let standard = Standard::new(&SETTINGS).unwrap();
    let nobody = standard.nobody([1; 16], [2; 32]);
    assert!(standard.is_outweighed_by(&nobody));
    assert_eq!(standard.rehash(&nobody), Rehash::NotNeeded);
    let mut memory = HashMemory::keeping(standard.block_count());
    assert_eq!(nobody.check(b"wrong password", &mut memory), Verdict::Wrong);
}

#[test]
fn workers_are_bounded_by_the_settings_the_cores_and_the_memory() {
    let table = [
        // workers, memory of one in KiB, of all in MiB, cores: workers, MiB beside
        ((4, 19_456, 256, 8), (4, 256, WorkerLimit::Settings)),
        ((4, 19_456, 256, 2), (2, 256, WorkerLimit::Cores)),
        ((64, 19_456, 256, 64), (13, 256, WorkerLimit::Memory)),
        ((64, 19_456, 1024, 16), (16, 720, WorkerLimit::Cores)),
        ((4, 65_536, 100, 4), (1, 256, WorkerLimit::Memory)),
        ((4, 262_144, 100, 4), (1, 256, WorkerLimit::Memory)),
        ((1, 8, 1, 1), (1, 256, WorkerLimit::Settings)),
    ];
    for ((workers, memory_kib, memory_max_mib, cores), (expected, extra_mib, limit)) in table {
        let settings = PasswordSettings { workers, memory_kib, memory_max_mib, ..SETTINGS };
        let sizing = Sizing::of(&settings, cores);
        assert_eq!(sizing, Sizing { workers: expected, extra_mib, limit }, "{settings:?} {cores}");
    }
}

/// Polls once: whether the answer is there already.
fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test]
async fn as_many_wait_as_may_and_all_of_them_get_an_answer() {
    let pool = pool(PasswordSettings { queue_max: 2, ..SETTINGS });
    let busy = pool.occupy().await;
    let secret = password("correct horse");
    let mut first = pin!(pool.verify(&secret, None, Standing::Open));
    assert!(poll(first.as_mut()).is_pending());
    {
        let mut left = pin!(pool.verify(&secret, None, Standing::Open));
        assert!(poll(left.as_mut()).is_pending());
        assert_eq!(pool.load(), PoolLoad { workers: 1, busy: 1, waiting: 2 });
        let full = pool.verify(&secret, None, Standing::Open).await;
        assert!(matches!(full, Err(PasswordError::Busy)), "{full:?}");
    }
    // Who gave up left a place.
    let mut second = pin!(pool.rehash(&secret));
    assert!(poll(second.as_mut()).is_pending());
    assert_eq!(pool.load().waiting, 2);
    drop(busy);
    assert_eq!(first.await.unwrap().right, Verdict::Wrong);
    second.await.unwrap();
    assert_eq!(pool.load(), PoolLoad { workers: 1, busy: 0, waiting: 0 });
}

#[tokio::test]
async fn a_worker_is_free_again_when_its_answer_is_there() {
    let pool = pool(PasswordSettings { queue_max: 0, ..SETTINGS });
    for _ in 0..50 {
        pool.verify(&password("correct horse"), None, Standing::Open).await.unwrap();
    }
}

#[tokio::test]
async fn memory_beside_the_workers_is_bounded_too_and_waited_for() {
    let pool = pool(PasswordSettings { queue_max: 1, ..SETTINGS });
    let scrypt = "$scrypt$ln=14,r=8,p=1$U29kaXVtQ2hsb3JpZGU$cCO9yzr9c0hGHAbNgf046/2o+7qQT44+qbVD9lRdofLVQylVYT8Pz2LUlwUkKpr55h6F3A1lHkDfzwF7RVdYhw";
    let all = Arc::clone(&pool.extra).acquire_many_owned(256).await.unwrap();
    let secret = password("pleaseletmein");
    let mut heavy = pin!(pool.verify(&secret, Some(stored(scrypt)), Standing::Open));
    assert!(poll(heavy.as_mut()).is_pending());
    // Others are not held up by it.
    pool.verify(&secret, None, Standing::Open).await.unwrap();
    assert!(poll(heavy.as_mut()).is_pending());
    drop(all);
    assert_eq!(heavy.await.unwrap().right, Verdict::Right);
    assert_eq!(pool.extra.available_permits(), 256);
    // The largest hash that is accepted can be checked in any pool.
    assert_eq!(MEMORY_KIB_MAX / 1024, 256);
}

#[tokio::test]
async fn a_panic_costs_one_answer_and_no_worker() {
    let pool = pool(PasswordSettings { queue_max: 0, ..SETTINGS });
    let result: Result<(), _> = pool.run(0, |_| panic!("on purpose")).await;
    assert!(matches!(result, Err(PasswordError::Hash)));
    assert_eq!(pool.load().busy, 0);
    pool.verify(&password("correct horse"), None, Standing::Open).await.unwrap();
}

#[tokio::test]
async fn the_metrics_say_how_many_workers_there_are_and_how_many_are_busy() {
    let metrics = Arc::new(Metrics::default());
    let pool = PasswordPool::new(SETTINGS, Arc::new(SystemHost::new()), Arc::clone(&metrics)).unwrap();
    let seen = Arc::clone(&metrics);
    let during = pool.run(0, move |_| seen.text().unwrap()).await.unwrap();
    assert!(during.contains("tollgate_issuer_password_hashes_running 1\n"), "{during}");
    assert!(during.contains("tollgate_issuer_password_workers 1\n"), "{during}");
    let after = metrics.text().unwrap();
    assert!(after.contains("tollgate_issuer_password_hashes_running 0\n"), "{after}");
}

#[test]
fn memory_that_is_kept_is_taken_once_and_no_more_of_it() {
    let standard = Standard::new(&SETTINGS).unwrap();
    let large = Standard::new(&PasswordSettings { memory_kib: 256, ..SETTINGS }).unwrap();
    let mut memory = HashMemory::keeping(standard.block_count());
    standard.hash(b"correct horse", &[1; 16], &mut memory).unwrap();
    let place = memory.place();
    let first = standard.hash(b"correct horse", &[1; 16], &mut memory).unwrap();
    large.hash(b"correct horse", &[1; 16], &mut memory).unwrap();
    let second = standard.hash(b"correct horse", &[1; 16], &mut memory).unwrap();
    assert_eq!(memory.place(), place);
    assert_eq!(first, second);
    assert_eq!(place.1, 64);
}
