//! Decides whether a login may be tried, and what failures cost: by address, network, account, device, and all together.
//!
//! *What comes in:* where an attempt comes from, which name it gives, and later how it ended. *What goes out:* go on; go on
//! but answer as for a wrong password; or come back later. *What an attacker gains if this is wrong:* more guesses, the
//! means to lock others out, or a way to learn which names exist.
//!
//! An attempt passes three values, each made by the one before: [`Approach`] when its source may try at all, [`Pass`] when
//! the account was asked, and [`Throttle::note`] takes the pass back with the outcome.
//!
//! * An attempt counts as a failure of its account until it is known to be none. So attempts at the same time cannot all
//!   be made before the first has failed, and an issuer that dies in between has counted.
//! * Failures in a row are forgotten by a success, by an operator, or a day after the last one; never by time alone before.
//! * A device that the account has logged in from is counted for itself. Who does not have it can neither use up nor
//!   lengthen what it is allowed.

mod counters;
mod key;
mod memory;
mod rule;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tollgate_shared::time::Monotonic;

pub use counters::{AnyCounters, CounterError, Counters, Place, Reservation, SharedCounters, Standing};
pub use key::{Digest, Key, KeySecret, Kind};
pub use memory::MemoryCounters;
pub use rule::{Count, Crowd, Distinct, Excess, Ladder, Rate, Rung, Step, Turn};

use crate::clock::Host;
use crate::config::ThrottleSettings;
use crate::metrics::Metrics;
use key::Source;

/// The throttle of logins.
#[derive(Debug)]
pub struct Throttle {
    settings: ThrottleSettings,
    secret: KeySecret,
    counters: AnyCounters,
    host: Arc<dyn Host>,
    metrics: Arc<Metrics>,
    /// Until when accounts are guarded more strictly. Each replica learns of an attack by the failures that it notes.
    attacked_until: Mutex<Option<Monotonic>>,
}

/// An attempt whose source may try. It is used up by asking for the account.
#[derive(Debug)]
#[must_use = "the account is to be asked too"]
pub struct Approach {
    address: Digest,
    network: Digest,
    account: Digest,
}

/// An attempt that goes on to the password. It is used up by noting how that ended.
#[derive(Debug)]
#[must_use = "how it ended is to be noted; until then it counts as a failure"]
pub struct Pass {
    approach: Approach,
    device: Option<Digest>,
    /// What was counted, on which ladder; nothing when the account is locked.
    counted: Option<(Ladder, Reservation)>,
}

/// What becomes of an attempt.
#[derive(Debug)]
#[must_use = "an attempt that is not admitted must not be answered"]
pub enum Admission {
    /// The password decides.
    Proceed(Pass),
    /// The password is hashed, and the answer is the one to a wrong password, whatever it was.
    Locked(Pass),
    /// No password is hashed.
    TooMany(TooMany),
}

/// The source is told when to come back, and nothing about the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany {
    /// Of what there were too many; for metrics, not for the client.
    pub of: Excessive,
    /// At least 1.
    pub retry_after_seconds: u64,
}

/// Of what there was too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excessive {
    /// Attempts from this address.
    Address,
    /// Attempts from its network.
    Network,
    /// Attempts in all.
    Total,
    /// Accounts that failed from this address or its network.
    Spraying,
    /// Counters: there is no room for another.
    Counters,
}

impl Excessive {
    /// Its name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Address => "too_many_of_address",
            Self::Network => "too_many_of_network",
            Self::Total => "too_many_in_all",
            Self::Spraying => "spraying",
            Self::Counters => "no_room",
        }
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With a session.
    Succeeded,
    /// As every failure does: unknown, wrong, disabled or locked.
    Failed,
    /// Nobody looked at the password: no worker was free, or a store failed.
    Abandoned,
}

/// What a failure brought to light, for whoever keeps records of such things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alarm {
    /// Too many accounts failed from one address; it is refused for a while.
    AddressSprays,
    /// Too many accounts failed from one network; it is refused for a while.
    NetworkSprays,
    /// Too many accounts failed in all; unknown devices are guarded more strictly from now on.
    UnderAttack,
}

impl Throttle {
    /// A throttle that keeps its figures in `counters`.
    #[must_use]
    pub fn new(
        settings: ThrottleSettings,
        secret: KeySecret,
        counters: AnyCounters,
        host: Arc<dyn Host>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { settings, secret, counters, host, metrics, attacked_until: Mutex::new(None) }
    }

    /// Whether `address` may try to log in as `username`; asked before anything is looked up.
    ///
    /// # Errors
    /// [`TooMany`], in the same way for names that exist and for others.
    pub async fn approach(&self, address: IpAddr, username: &str) -> Result<Approach, TooMany> {
        let source = Source::of(address);
        let approach = Approach {
            address: self.secret.address(source),
            network: self.secret.network(source),
            account: self.secret.account(username),
        };
        match self.source(&approach).await {
            Ok(()) => Ok(approach),
            Err(refused) => {
                self.metrics.throttled(refused.of.name());
                Err(refused)
            }
        }
    }

    /// Each limit is asked only when the narrower one let the attempt through, so that one address cannot use up what
    /// its neighbours are allowed, nor a network what all are. Yet a network that is at its limit is refused before
    /// an address of it gets a counter: there are more addresses than there is room.
    async fn source(&self, approach: &Approach) -> Result<(), TooMany> {
        let Approach { address, network, account: _ } = approach;
        let ThrottleSettings { address: address_rate, network: network_rate, total, penalty, .. } =
            self.settings;
        let key = |kind, of| self.secret.key(kind, of);
        let (address_penalty, network_penalty) =
            (key(Kind::AddressPenalty, address), key(Kind::NetworkPenalty, network));
        let network_key = key(Kind::NetworkRate, network);
        let (of_address, of_network, would_be) = tokio::join!(
            self.counters.ladder(&address_penalty, penalty, Step::Look),
            self.counters.ladder(&network_penalty, penalty, Step::Look),
            self.counters.rate(&network_key, network_rate, Count::Nothing),
        );
        for standing in [of_address, of_network] {
            if let Standing::Delayed(millis) = standing.map_err(no_room)? {
                return Err(too_many(Excessive::Spraying, millis));
            }
        }
        let taken = |turn: Result<Turn, CounterError>, of| match turn.map_err(no_room)? {
            Turn::Now => Ok(()),
            Turn::In(millis) => Err(too_many(of, millis)),
        };
        taken(would_be, Excessive::Network)?;
        let address_key = key(Kind::AddressRate, address);
        taken(self.counters.rate(&address_key, address_rate, Count::One).await, Excessive::Address)?;
        taken(self.counters.rate(&network_key, network_rate, Count::One).await, Excessive::Network)?;
        let total_key = key(Kind::TotalRate, &EVERYBODY);
        taken(self.counters.rate(&total_key, total, Count::One).await, Excessive::Total)
    }

    /// Whether the account may be tried. `device` is one that this account has logged in from, as was proven by its
    /// secret; what identifies it must be the same each time.
    pub async fn admit(&self, approach: Approach, device: Option<&[u8]>) -> Admission {
        let device = device.map(|device| self.secret.device(device));
        let mut ladder = self.settings.failures;
        let key = match &device {
            Some(device) => self.secret.key(Kind::Device, device),
            None => {
                if self.is_attacked() {
                    ladder.free = 1;
                }
                self.secret.key(Kind::Account, &approach.account)
            }
        };
        let standing = self.counters.ladder(&key, ladder, Step::Attempt).await;
        let (decision, admission) = match standing {
            Ok(Standing::Free(reservation)) => {
                let counted = Some((ladder, reservation));
                ("proceed", Admission::Proceed(Pass { approach, device, counted }))
            }
            Ok(Standing::Delayed(_)) => {
                ("locked", Admission::Locked(Pass { approach, device, counted: None }))
            }
            Err(error) => {
                let refused = no_room(error);
                (refused.of.name(), Admission::TooMany(refused))
            }
        };
        self.metrics.throttled(decision);
        admission
    }

    /// Notes how an attempt ended. What was admitted as locked has failed, however it ended.
    pub async fn note(&self, pass: Pass, outcome: Outcome) -> Vec<Alarm> {
        let Pass { approach, device, counted } = pass;
        let account = self.secret.key(Kind::Account, &approach.account);
        let device = device.map(|device| self.secret.key(Kind::Device, &device));
        match (outcome, counted) {
            (Outcome::Abandoned, None) => Vec::new(),
            (Outcome::Abandoned, Some((ladder, reservation))) => {
                let key = device.as_ref().unwrap_or(&account);
                self.kept(self.counters.refund(key, ladder, reservation).await);
                Vec::new()
            }
            (Outcome::Succeeded, Some(_)) => {
                self.kept(self.counters.clear(&account).await);
                if let Some(device) = device {
                    self.kept(self.counters.clear(&device).await);
                }
                Vec::new()
            }
            (Outcome::Failed, _) | (Outcome::Succeeded, None) => self.failed(&approach).await,
        }
    }

    /// Forgets an account's failures, as an operator may order.
    ///
    /// # Errors
    /// [`CounterError`] when Redis did not do it.
    pub async fn unlock(&self, username: &str) -> Result<(), CounterError> {
        let account = self.secret.account(username);
        self.counters.clear(&self.secret.key(Kind::Account, &account)).await
    }

    /// Whether so many accounts failed lately that unknown devices are guarded more strictly.
    #[must_use]
    pub fn is_attacked(&self) -> bool {
        let now = self.host.now().monotonic;
        let mut until = self.attacked_until.lock().unwrap_or_else(PoisonError::into_inner);
        if until.is_some_and(|until| until <= now) {
            *until = None;
            self.metrics.under_attack(false);
            tracing::info!("few accounts fail again");
        }
        until.is_some()
    }

    async fn failed(&self, approach: &Approach) -> Vec<Alarm> {
        let Approach { address, network, account } = approach;
        let ThrottleSettings { address_accounts, network_accounts, total_accounts, .. } = self.settings;
        let key = |kind, of| self.secret.key(kind, of);
        let (address_seen, network_seen) = (key(Kind::AddressSeen, address), key(Kind::NetworkSeen, network));
        let total_seen = key(Kind::TotalSeen, &EVERYBODY);
        let (by_address, by_network, in_all) = tokio::join!(
            self.counters.distinct(&address_seen, address_accounts, account),
            self.counters.distinct(&network_seen, network_accounts, account),
            self.counters.distinct(&total_seen, total_accounts, account),
        );
        let mut alarms = Vec::new();
        if self.kept(by_address) == Some(Crowd::Many) {
            self.punish(&key(Kind::AddressPenalty, address)).await;
            alarms.push(Alarm::AddressSprays);
        }
        if self.kept(by_network) == Some(Crowd::Many) {
            self.punish(&key(Kind::NetworkPenalty, network)).await;
            alarms.push(Alarm::NetworkSprays);
        }
        if self.kept(in_all) == Some(Crowd::Many) && self.attack_begins() {
            alarms.push(Alarm::UnderAttack);
        }
        for alarm in &alarms {
            tracing::warn!(?alarm, "too many accounts fail");
        }
        alarms
    }

    async fn punish(&self, key: &Key) {
        self.kept(self.counters.ladder(key, self.settings.penalty, Step::Strike).await);
    }

    /// Guards all accounts for another window, and says whether they were not guarded before.
    fn attack_begins(&self) -> bool {
        let until = self.host.now().monotonic.plus(self.settings.total_accounts.window_ms);
        let mut attacked_until = self.attacked_until.lock().unwrap_or_else(PoisonError::into_inner);
        self.metrics.under_attack(true);
        attacked_until.replace(until).is_none()
    }

    /// An outcome that is not kept makes nothing laxer: the attempt itself was counted before.
    fn kept<T>(&self, result: Result<T, CounterError>) -> Option<T> {
        result
            .inspect_err(|error| {
                self.metrics.throttle_outcome_lost();
                tracing::debug!(%error, "an outcome was not kept");
            })
            .ok()
    }
}

fn too_many(of: Excessive, millis: u64) -> TooMany {
    TooMany { of, retry_after_seconds: millis.div_ceil(1000).max(1) }
}

/// Without a counter there is no telling, so the answer is no.
fn no_room(error: CounterError) -> TooMany {
    tracing::warn!(%error, "a login is refused that could not be counted");
    too_many(Excessive::Counters, NO_ROOM_MS)
}

/// What is counted for all together.
const EVERYBODY: Digest = [0; 16];
/// Counters of rates are over within a minute; those of failures last longer.
const NO_ROOM_MS: u64 = 60_000;

#[cfg(test)]
mod tests;
