//! The `[throttle]` section: how many logins may be tried, and what failures cost.

use serde::{Deserialize, Serialize};

use super::document::{OutOfRange, related, within};
use crate::throttle::{Distinct, Excess, Ladder, Rate};

/// How many logins may be tried, and what failures cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThrottleSettings {
    /// Attempts from one address (of IPv6: one /64).
    pub address: Rate,
    /// Attempts from one network (a /24; of IPv6: one /48).
    pub network: Rate,
    /// All attempts.
    pub total: Rate,
    /// Failures in a row of one account, and for themselves of each known device.
    pub failures: Ladder,
    /// Accounts that failed from one address.
    pub address_accounts: Distinct,
    /// Accounts that failed from one network.
    pub network_accounts: Distinct,
    /// All accounts that failed.
    pub total_accounts: Distinct,
    /// For how long a source is refused that sprayed.
    pub penalty: Ladder,
    /// So many counters of each kind are kept in this process.
    pub entries_max: usize,
    /// What limits are divided by while counters are not shared.
    pub fallback_divisor: u64,
}

/// `[throttle]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "each is described where it is used: in `ThrottleSettings`")]
pub struct ThrottleDocument {
    pub address_per_minute: u64,
    pub network_per_minute: u64,
    pub total_per_second: u64,
    pub total_burst: u64,
    pub account_failures: u64,
    pub delay_first_ms: u64,
    pub delay_max_seconds: u64,
    pub account_failures_max: u64,
    pub lock_seconds: u64,
    pub spraying_window_seconds: u64,
    pub spraying_address_accounts: u64,
    pub spraying_network_accounts: u64,
    pub spraying_total_accounts: u64,
    pub spraying_penalty_seconds: u64,
    pub spraying_penalty_max_seconds: u64,
    pub entries_max: usize,
    pub fallback_divisor: u64,
}

impl Default for ThrottleDocument {
    fn default() -> Self {
        Self {
            address_per_minute: 10,
            network_per_minute: 60,
            total_per_second: 1000,
            total_burst: 1000,
            account_failures: 5,
            delay_first_ms: 60_000,
            delay_max_seconds: 900,
            account_failures_max: 100,
            lock_seconds: DAY_SECONDS,
            spraying_window_seconds: 600,
            spraying_address_accounts: 10,
            spraying_network_accounts: 30,
            spraying_total_accounts: 500,
            spraying_penalty_seconds: 600,
            spraying_penalty_max_seconds: DAY_SECONDS,
            entries_max: 100_000,
            fallback_divisor: 4,
        }
    }
}

impl ThrottleDocument {
    pub(super) fn checked(&self) -> Result<ThrottleSettings, OutOfRange> {
        let Self {
            address_per_minute,
            network_per_minute,
            total_per_second,
            total_burst,
            entries_max,
            fallback_divisor,
            ..
        } = *self;
        let many = |value| (1..=EVENTS_MAX).contains(&value);
        within(many(address_per_minute), "throttle.address_per_minute", EVENTS)?;
        within(many(network_per_minute), "throttle.network_per_minute", EVENTS)?;
        within(many(total_per_second), "throttle.total_per_second", EVENTS)?;
        within(many(total_burst), "throttle.total_burst", EVENTS)?;
        within((1000..=10_000_000).contains(&entries_max), "throttle.entries_max", "1000 to 10000000")?;
        within((1..=1000).contains(&fallback_divisor), "throttle.fallback_divisor", "1 to 1000")?;
        let [address_accounts, network_accounts, total_accounts] = self.checked_spraying()?;
        Ok(ThrottleSettings {
            address: Rate::new(address_per_minute, MINUTE_MS, address_per_minute),
            network: Rate::new(network_per_minute, MINUTE_MS, network_per_minute),
            total: Rate::new(total_per_second, 1000, total_burst),
            failures: self.checked_failures()?,
            address_accounts,
            network_accounts,
            total_accounts,
            penalty: self.checked_penalty()?,
            entries_max,
            fallback_divisor,
        })
    }

    fn checked_failures(&self) -> Result<Ladder, OutOfRange> {
        let Self {
            account_failures,
            delay_first_ms,
            delay_max_seconds,
            account_failures_max,
            lock_seconds,
            ..
        } = *self;
        within((1..=100).contains(&account_failures), "throttle.account_failures", "1 to 100")?;
        within((1..=3_600_000).contains(&delay_first_ms), "throttle.delay_first_ms", "1 to 3600000")?;
        within((1..=DAY_SECONDS).contains(&delay_max_seconds), "throttle.delay_max_seconds", "1 to 86400")?;
        // NIST SP 800-63B allows no more than a hundred.
        within((1..=100).contains(&account_failures_max), "throttle.account_failures_max", "1 to 100")?;
        within((1..=WEEK_SECONDS).contains(&lock_seconds), "throttle.lock_seconds", "1 to 604800")?;
        related(
            account_failures <= account_failures_max,
            "throttle.account_failures",
            "at most throttle.account_failures_max",
        )?;
        Ok(Ladder {
            free: account_failures,
            first_ms: delay_first_ms,
            max_ms: delay_max_seconds * 1000,
            failures_max: account_failures_max,
            lock_ms: lock_seconds * 1000,
            memory_ms: DAY_SECONDS * 1000,
        })
    }

    fn checked_spraying(&self) -> Result<[Distinct; 3], OutOfRange> {
        let Self {
            spraying_window_seconds,
            spraying_address_accounts,
            spraying_network_accounts,
            spraying_total_accounts,
            ..
        } = *self;
        within(
            (1..=DAY_SECONDS).contains(&spraying_window_seconds),
            "throttle.spraying_window_seconds",
            "1 to 86400",
        )?;
        let accounts = |value| (1..=ACCOUNTS_MAX).contains(&value);
        within(accounts(spraying_address_accounts), "throttle.spraying_address_accounts", ACCOUNTS)?;
        within(accounts(spraying_network_accounts), "throttle.spraying_network_accounts", ACCOUNTS)?;
        within(accounts(spraying_total_accounts), "throttle.spraying_total_accounts", ACCOUNTS)?;
        // One more than the limit is kept, and all of them must have room.
        let most = spraying_address_accounts.max(spraying_network_accounts).max(spraying_total_accounts);
        related(
            usize::try_from(most).is_ok_and(|most| most < self.entries_max),
            "throttle.entries_max",
            "above each of throttle.spraying_…_accounts",
        )?;
        let window_ms = spraying_window_seconds * 1000;
        let distinct = |limit, excess| Distinct { limit, window_ms, excess };
        Ok([
            distinct(spraying_address_accounts, Excess::Restarts),
            distinct(spraying_network_accounts, Excess::Restarts),
            distinct(spraying_total_accounts, Excess::Stays),
        ])
    }

    fn checked_penalty(&self) -> Result<Ladder, OutOfRange> {
        let Self { spraying_penalty_seconds, spraying_penalty_max_seconds, .. } = *self;
        let span = |value| (1..=WEEK_SECONDS).contains(&value);
        within(span(spraying_penalty_seconds), "throttle.spraying_penalty_seconds", "1 to 604800")?;
        within(span(spraying_penalty_max_seconds), "throttle.spraying_penalty_max_seconds", "1 to 604800")?;
        Ok(Ladder {
            free: 1,
            first_ms: spraying_penalty_seconds * 1000,
            max_ms: spraying_penalty_max_seconds * 1000,
            failures_max: NEVER,
            lock_ms: spraying_penalty_max_seconds * 1000,
            memory_ms: DAY_SECONDS * 1000,
        })
    }
}

const MINUTE_MS: u64 = 60_000;
const DAY_SECONDS: u64 = 86_400;
const WEEK_SECONDS: u64 = 604_800;
const EVENTS_MAX: u64 = 1_000_000;
const EVENTS: &str = "1 to 1000000";
const ACCOUNTS_MAX: u64 = 100_000;
const ACCOUNTS: &str = "1 to 100000";
/// More penalties than any source can live to see; small enough to be exact in a script.
const NEVER: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::{ConfigError, Flags, Settings};
    use super::*;

    fn load(name: &str, value: u64) -> Result<ThrottleSettings, ConfigError> {
        let variable = (format!("TOLLGATE_THROTTLE__{}", name.to_uppercase()), value.to_string());
        let settings = Settings::load(None, &BTreeMap::from([variable]), &Flags::default());
        settings.map(|settings| settings.throttle)
    }

    #[test]
    fn the_defaults_are_the_documented_ones() {
        let settings = ThrottleDocument::default().checked().ok().unwrap();
        assert_eq!(settings.address, Rate::new(10, 60_000, 10));
        assert_eq!(settings.network, Rate::new(60, 60_000, 60));
        assert_eq!(settings.total, Rate::new(1000, 1000, 1000));
        let Ladder { free, first_ms, max_ms, failures_max, lock_ms, memory_ms } = settings.failures;
        assert_eq!((free, first_ms, max_ms), (5, 60_000, 900_000));
        assert_eq!((failures_max, lock_ms, memory_ms), (100, 86_400_000, 86_400_000));
        let limits = [settings.address_accounts, settings.network_accounts, settings.total_accounts];
        assert_eq!(limits.map(|distinct| distinct.limit), [10, 30, 500]);
        assert_eq!(settings.penalty.first_ms, 600_000);
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let rows = [
            ("address_per_minute", 0),
            ("network_per_minute", 1_000_001),
            ("total_per_second", 0),
            ("total_burst", 0),
            ("account_failures", 0),
            ("delay_first_ms", 0),
            ("delay_max_seconds", 86_401),
            ("account_failures_max", 101),
            ("account_failures_max", 4),
            ("lock_seconds", 0),
            ("spraying_window_seconds", 0),
            ("spraying_address_accounts", 0),
            ("spraying_network_accounts", 100_001),
            ("spraying_total_accounts", 100_000),
            ("spraying_penalty_seconds", 0),
            ("spraying_penalty_max_seconds", 604_801),
            ("entries_max", 999),
            ("fallback_divisor", 0),
        ];
        for (name, value) in rows {
            let error = load(name, value).unwrap_err().to_string();
            // Two of them are wrong only beside another setting, and named by that.
            let named = match (name, value) {
                ("account_failures_max", 4) => "account_failures",
                ("spraying_total_accounts", 100_000) => "entries_max",
                _ => name,
            };
            assert!(error.contains(&format!("`throttle.{named}`")), "{name}: {error}");
        }
    }
}
