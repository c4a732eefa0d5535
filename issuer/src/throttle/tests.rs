use std::sync::atomic::{AtomicU64, Ordering};

use tollgate_shared::time::{Now, UnixMillis};
use zeroize::Zeroizing;

use super::*;
use crate::clock::EntropyError;
use crate::config::{Flags, Settings};

/// A clock that only a test moves.
#[derive(Debug)]
pub(super) struct StillHost(AtomicU64);

impl StillHost {
    pub(super) fn at(millis: u64) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(millis)))
    }

    pub(super) fn advance(&self, millis: u64) {
        self.0.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Host for StillHost {
    fn now(&self) -> Now {
        let millis = self.0.load(Ordering::SeqCst);
        Now { wall: UnixMillis(millis), monotonic: Monotonic(millis) }
    }

    fn fill(&self, _: &mut [u8]) -> Result<(), EntropyError> {
        Err(EntropyError)
    }
}

struct Bench {
    host: Arc<StillHost>,
    metrics: Arc<Metrics>,
    throttle: Throttle,
}

fn settings() -> ThrottleSettings {
    Settings::load(None, &std::collections::BTreeMap::new(), &Flags::default()).unwrap().throttle
}

/// Limits of sources so high that only accounts are throttled.
fn of_accounts() -> ThrottleSettings {
    let many = Rate::new(1_000_000, 1000, 1_000_000);
    let most = |distinct| Distinct { limit: 10_000, ..distinct };
    let settings = settings();
    ThrottleSettings {
        address: many,
        network: many,
        total: many,
        address_accounts: most(settings.address_accounts),
        network_accounts: most(settings.network_accounts),
        ..settings
    }
}

impl Bench {
    fn new(settings: ThrottleSettings) -> Self {
        let (host, metrics) = (StillHost::at(5_000_000), Arc::new(Metrics::default()));
        let counters = AnyCounters::Memory(MemoryCounters::new(settings.entries_max, host.clone()));
        let secret = KeySecret::new(Zeroizing::new([3; 32]));
        let throttle = Throttle::new(settings, secret, counters, host.clone(), metrics.clone());
        Self { host, metrics, throttle }
    }

    async fn approach(&self, address: &str, username: &str) -> Result<Approach, TooMany> {
        self.throttle.approach(address.parse().unwrap(), username).await
    }

    /// What an attempt is refused with that goes no further.
    async fn refused(&self, address: &str, username: &str) -> Option<TooMany> {
        self.approach(address, username).await.err()
    }

    async fn admit(&self, username: &str, device: Option<&str>) -> Admission {
        let approach = self.approach("192.0.2.1", username).await.unwrap();
        self.throttle.admit(approach, device.map(str::as_bytes)).await
    }

    /// One attempt that proceeds and ends like this.
    async fn proceed(&self, username: &str, device: Option<&str>, outcome: Outcome) {
        let admission = self.admit(username, device).await;
        let Admission::Proceed(pass) = admission else { panic!("{username}: {admission:?}") };
        self.throttle.note(pass, outcome).await;
    }

    async fn is_locked(&self, username: &str, device: Option<&str>) -> bool {
        match self.admit(username, device).await {
            Admission::Locked(pass) => {
                drop(self.throttle.note(pass, Outcome::Failed).await);
                true
            }
            Admission::Proceed(pass) => {
                drop(self.throttle.note(pass, Outcome::Abandoned).await);
                false
            }
            Admission::TooMany(refused) => panic!("{refused:?}"),
        }
    }

    async fn fail_from(&self, address: &str, username: &str) -> Result<Vec<Alarm>, TooMany> {
        let approach = self.approach(address, username).await?;
        match self.throttle.admit(approach, None).await {
            Admission::Proceed(pass) | Admission::Locked(pass) => {
                Ok(self.throttle.note(pass, Outcome::Failed).await)
            }
            Admission::TooMany(refused) => Err(refused),
        }
    }
}

fn is_of(result: Result<Vec<Alarm>, TooMany>, of: Excessive) -> u64 {
    let refused = result.unwrap_err();
    assert_eq!(refused.of, of);
    refused.retry_after_seconds
}

#[tokio::test]
async fn an_address_has_ten_attempts_and_then_one_each_six_seconds() {
    let bench = Bench::new(settings());
    for _ in 0..10 {
        assert_eq!(bench.refused("192.0.2.1", "alice").await, None);
    }
    let refused = bench.refused("192.0.2.1", "bob").await;
    assert_eq!(refused, Some(TooMany { of: Excessive::Address, retry_after_seconds: 6 }));
    assert_eq!(bench.refused("192.0.2.2", "alice").await, None);
    bench.host.advance(6000);
    assert_eq!(bench.refused("192.0.2.1", "alice").await, None);
    assert!(bench.refused("192.0.2.1", "alice").await.is_some());
    let metrics = bench.metrics.text().unwrap();
    assert!(metrics.contains("throttle_decisions_total{decision=\"too_many_of_address\"} 2"), "{metrics}");
}

#[tokio::test]
async fn a_network_has_sixty_attempts_and_one_address_cannot_use_them_up() {
    let bench = Bench::new(settings());
    for _ in 0..500 {
        bench.refused("2001:db8:0:1::1", "alice").await;
    }
    for address in 2..7 {
        for _ in 0..10 {
            assert_eq!(bench.refused(&format!("2001:db8:0:{address}::1"), "alice").await, None);
        }
    }
    let refused = bench.refused("2001:db8:0:7::1", "alice").await;
    assert_eq!(refused, Some(TooMany { of: Excessive::Network, retry_after_seconds: 1 }));
    assert_eq!(bench.refused("2001:db8:1::1", "alice").await, None);
}

#[tokio::test]
async fn all_together_have_a_limit_that_one_network_cannot_use_up() {
    let bench = Bench::new(ThrottleSettings { total: Rate::new(100, 1000, 100), ..settings() });
    for _ in 0..1000 {
        bench.refused("192.0.2.1", "alice").await;
    }
    let mut passed = 10;
    for network in 0..90 {
        assert_eq!(bench.refused(&format!("198.51.{network}.1"), "alice").await, None);
        passed += 1;
    }
    assert_eq!(passed, 100);
    let refused = bench.refused("203.0.113.1", "alice").await;
    assert_eq!(refused, Some(TooMany { of: Excessive::Total, retry_after_seconds: 1 }));
}

#[tokio::test]
async fn an_account_is_locked_for_longer_and_longer_and_its_password_is_then_of_no_use() {
    let bench = Bench::new(of_accounts());
    for _ in 0..5 {
        bench.proceed("alice", None, Outcome::Failed).await;
    }
    for seconds in [60, 120, 240, 480, 900] {
        assert!(bench.is_locked("alice", None).await);
        bench.host.advance(seconds * 1000 - 1);
        // A right password does not open a locked account.
        let admission = bench.admit("alice", None).await;
        let Admission::Locked(pass) = admission else { panic!("{admission:?}") };
        bench.throttle.note(pass, Outcome::Succeeded).await;
        assert!(bench.is_locked("alice", None).await);
        bench.host.advance(1);
        bench.proceed("alice", None, Outcome::Failed).await;
    }
    assert!(!bench.is_locked("Alice", None).await, "another name is another account");
    bench.host.advance(900_000);
    bench.proceed("alice", None, Outcome::Succeeded).await;
    for _ in 0..5 {
        bench.proceed("alice", None, Outcome::Failed).await;
    }
}

#[tokio::test]
async fn an_account_is_guessed_at_five_times_in_a_minute_and_no_more() {
    let bench = Bench::new(of_accounts());
    let mut guesses = Vec::new();
    for second in 0..1800_u64 {
        match bench.admit("alice", None).await {
            Admission::Proceed(pass) => {
                drop(bench.throttle.note(pass, Outcome::Failed).await);
                guesses.push(second);
            }
            Admission::Locked(pass) => drop(bench.throttle.note(pass, Outcome::Failed).await),
            Admission::TooMany(refused) => panic!("{refused:?}"),
        }
        bench.host.advance(1000);
    }
    let within = |start: u64| guesses.iter().filter(|guess| (start..start + 60).contains(guess)).count();
    assert_eq!(guesses.iter().map(|guess| within(*guess)).max(), Some(5), "{guesses:?}");
    assert!(guesses.len() > 5, "and it goes on");
}

#[tokio::test]
async fn fifty_attempts_at_once_are_five_guesses() {
    let bench = Bench::new(of_accounts());
    let mut passes = Vec::new();
    for n in 0..50 {
        match bench.admit("alice", None).await {
            Admission::Proceed(pass) => passes.push(pass),
            Admission::Locked(_) => assert!(n >= 5),
            Admission::TooMany(refused) => panic!("{refused:?}"),
        }
    }
    assert_eq!(passes.len(), 5);
    // One of them was right: the account is open again.
    drop(bench.throttle.note(passes.pop().unwrap(), Outcome::Succeeded).await);
    assert!(!bench.is_locked("alice", None).await);
}

#[tokio::test]
async fn an_attempt_that_nobody_looked_at_costs_nothing() {
    let bench = Bench::new(of_accounts());
    for _ in 0..4 {
        bench.proceed("alice", None, Outcome::Failed).await;
    }
    for _ in 0..20 {
        bench.proceed("alice", None, Outcome::Abandoned).await;
    }
    bench.proceed("alice", None, Outcome::Failed).await;
    assert!(bench.is_locked("alice", None).await);
}

#[tokio::test]
async fn a_known_device_is_not_locked_out_by_others_and_its_success_clears_the_account() {
    let bench = Bench::new(of_accounts());
    for _ in 0..10 {
        drop(bench.fail_from("203.0.113.9", "alice").await.unwrap());
    }
    assert!(bench.is_locked("alice", None).await);
    assert!(!bench.is_locked("alice", Some("phone")).await);
    bench.proceed("alice", Some("phone"), Outcome::Succeeded).await;
    assert!(!bench.is_locked("alice", None).await);
}

#[tokio::test]
async fn a_known_device_has_a_limit_of_its_own() {
    let bench = Bench::new(of_accounts());
    for _ in 0..5 {
        bench.proceed("alice", Some("phone"), Outcome::Failed).await;
    }
    assert!(bench.is_locked("alice", Some("phone")).await);
    assert!(!bench.is_locked("alice", Some("laptop")).await);
    assert!(!bench.is_locked("alice", None).await, "its failures do not lock the account");
}

#[tokio::test]
async fn an_operator_unlocks_an_account() {
    let bench = Bench::new(of_accounts());
    for _ in 0..5 {
        bench.proceed("alice", None, Outcome::Failed).await;
    }
    bench.throttle.unlock("alice").await.unwrap();
    assert!(!bench.is_locked("alice", None).await);
}

#[tokio::test]
async fn an_address_that_sprays_is_refused_for_longer_each_time() {
    let settings = ThrottleSettings {
        address_accounts: settings().address_accounts,
        network_accounts: of_accounts().network_accounts,
        ..of_accounts()
    };
    let bench = Bench::new(settings);
    for minutes in [10, 20, 40] {
        for user in 0..10 {
            assert_eq!(bench.fail_from("192.0.2.1", &format!("user{user}")).await, Ok(vec![]));
        }
        // The same ones again are no more accounts.
        assert_eq!(bench.fail_from("192.0.2.1", "user0").await, Ok(vec![]));
        assert_eq!(bench.fail_from("192.0.2.1", "user10").await, Ok(vec![Alarm::AddressSprays]));
        let seconds = is_of(bench.fail_from("192.0.2.1", "user11").await, Excessive::Spraying);
        assert_eq!(seconds, minutes * 60);
        drop(bench.fail_from("192.0.2.2", "user11").await.unwrap());
        bench.host.advance(minutes * 60_000 - 1);
        is_of(bench.fail_from("192.0.2.1", "user11").await, Excessive::Spraying);
        bench.host.advance(1);
    }
}

#[tokio::test]
async fn a_network_that_sprays_is_refused_whatever_the_address() {
    let bench =
        Bench::new(ThrottleSettings { network_accounts: settings().network_accounts, ..of_accounts() });
    for user in 0..30 {
        assert_eq!(bench.fail_from(&format!("192.0.2.{user}"), &format!("user{user}")).await, Ok(vec![]));
    }
    assert_eq!(bench.fail_from("192.0.2.99", "user30").await, Ok(vec![Alarm::NetworkSprays]));
    is_of(bench.fail_from("192.0.2.100", "user31").await, Excessive::Spraying);
    drop(bench.fail_from("192.0.3.1", "user31").await.unwrap());
}

#[tokio::test]
async fn under_attack_one_failure_delays_unknown_devices_and_it_is_reported_once() {
    let bench = Bench::new(of_accounts());
    let mut alarms = Vec::new();
    for user in 0..520 {
        let address = format!("10.{}.{}.1", user / 200, user % 200);
        alarms.extend(bench.fail_from(&address, &format!("user{user}")).await.unwrap());
    }
    assert_eq!(alarms, [Alarm::UnderAttack]);
    assert!(bench.throttle.is_attacked());
    assert!(bench.metrics.text().unwrap().contains("throttle_under_attack 1"));
    bench.proceed("alice", None, Outcome::Failed).await;
    assert!(bench.is_locked("alice", None).await);
    for _ in 0..5 {
        bench.proceed("alice", Some("phone"), Outcome::Failed).await;
    }
    bench.host.advance(600_000);
    bench.proceed("bob", None, Outcome::Failed).await;
    bench.proceed("bob", None, Outcome::Failed).await;
    assert!(bench.metrics.text().unwrap().contains("throttle_under_attack 0"));
}

#[tokio::test]
async fn without_room_a_new_key_is_refused_and_never_admitted() {
    let bench = Bench::new(ThrottleSettings { entries_max: 20, ..of_accounts() });
    for user in (0..20).flat_map(|user| [user; 5]) {
        bench.proceed(&format!("user{user}"), None, Outcome::Failed).await;
    }
    let admission = bench.admit("user20", None).await;
    let Admission::TooMany(refused) = admission else { panic!("{admission:?}") };
    assert_eq!(refused, TooMany { of: Excessive::Counters, retry_after_seconds: 60 });
    assert!(bench.is_locked("user3", None).await);
}

#[tokio::test]
async fn nothing_that_prints_an_attempt_prints_a_name() {
    let bench = Bench::new(settings());
    let approach = bench.approach("192.0.2.77", "alice-canary").await.unwrap();
    let admission = bench.throttle.admit(approach, Some(b"device-canary")).await;
    let text = format!("{admission:?} {:?}", bench.throttle);
    assert!(!text.contains("canary") && !text.contains("192.0.2.77"), "{text}");
}
