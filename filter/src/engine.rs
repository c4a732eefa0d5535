//! Decides every request at the edge, and says what it must ask the issuer to go on deciding.
//!
//! The engine performs no effect. An adapter hands it requests ([`Engine::check`]), asks it which call is due
//! ([`Engine::due`]) and tells it what came of the call ([`Engine::answer`]). The same inputs give the same answers on
//! every host.
//!
//! *What comes in:* requests by anyone, and bytes that claim to be the issuer's. *What goes out:* a [`Decision`]. *What
//! an attacker gains if this is wrong:* everything behind the edge.

mod board;
mod breaker;
mod cache;
mod call;
mod credential;
mod denial;
mod election;
mod freshness;
mod headers;
mod identity;
mod lending;
mod metrics;
mod opening;
mod path;
mod policy;
mod publisher;
mod refresh;
mod remote_keys;
mod report;
mod shared_data;
mod subscriber;
mod unknown_keys;

use std::rc::Rc;

use tollgate_shared::quota::Bucket;
use tollgate_shared::quota::ledger::{Charge, Spend, Standing};
use tollgate_shared::revocation::{CLOCK_ERROR_SECONDS, RevocationSet};
use tollgate_shared::time::{Monotonic, Now, UnixSeconds};
use tollgate_shared::token::{SignatureBackend, VerifyError};

use crate::config::{Access, Config, Origin, Rule, WhenStale};
use cache::VerifiedCache;
use credential::Credential;
use freshness::Freshness;
use headers::HeaderPolicy;
use identity::{Identity, KeySources, Keyring, Unidentified};
use refresh::Refresh;

pub use call::{AnswerFault, Body, Call, CallFailure, CallId, CallKind, HostBody, Reply};
pub use denial::{Denial, TokenFault};
pub use headers::{RequestView, ResponseHeader};
pub use metrics::{Counter, Gauge, Metrics};
pub use shared_data::{LocalData, NotWritten, SharedData, Version};

/// How long a request waits for a lease before it is refused, in milliseconds.
pub const WAIT_MILLIS: u64 = 2_000;
/// The time between ticks of an engine that has nothing to keep current.
const IDLE_TICK_MILLIS: u32 = 1_000;

/// What a host does with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Send it on, with these changes.
    Admit(Admission),
    /// Answer it with this.
    Refuse(Refusal),
    /// Hold it, make the call that [`Engine::due`] gives, and check it again after each [`Engine::answer`] as
    /// [`Patience::StillWaiting`], and with [`Patience::MustDecide`] once [`WAIT_MILLIS`] have passed.
    Wait,
}

/// The changes to a request that is sent on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Admission {
    /// Headers to remove, by name, before any is set.
    pub strip: Vec<Vec<u8>>,
    /// Headers to set.
    pub set: Vec<(String, Vec<u8>)>,
    /// Headers to add to the response.
    pub respond: Vec<ResponseHeader>,
}

/// The answer to a request that is not sent on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// Its headers.
    pub headers: Vec<ResponseHeader>,
    /// Its body.
    pub body: String,
    /// Why, for logs and metrics only.
    pub denial: Denial,
}

/// Whether a request may be told to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// It may.
    MayWait,
    /// It waits already, and may go on.
    StillWaiting,
    /// It waited long enough, or too many wait already.
    MustDecide,
}

/// The decision engine of one VM, isolate or process.
#[derive(Debug)]
pub struct Engine<B, S> {
    config: Config,
    headers: HeaderPolicy,
    keyring: Keyring,
    cache: VerifiedCache,
    backend: B,
    refresh: Option<Refresh<S>>,
    metrics: Metrics,
    jitter: Jitter,
    /// The host's clocks when it was first asked anything.
    first_seen: Option<Now>,
}

/// What a check has found out, or the denial that ends it.
type Verdict<T> = Result<T, Denial>;

enum Grant {
    Anonymous,
    Identified { identity: Rc<Identity>, standings: Vec<(String, Standing)> },
    Wait,
}

impl<B: SignatureBackend, S: SharedData> Engine<B, S> {
    /// An engine without any state. `data` is what it shares with the other VMs of its process. `seed` must be random: by it
    /// this VM is known to the others, and it makes the epoch of this spender and the jitter.
    #[must_use]
    pub fn new(config: Config, backend: B, data: S, seed: u128) -> Self {
        let jitter = Jitter(seed as u64);
        let refresh = Refresh::new(&config, data, seed);
        Self {
            headers: HeaderPolicy::new(&config),
            keyring: Keyring::new(&config),
            cache: VerifiedCache::default(),
            backend,
            refresh,
            metrics: Metrics::default(),
            jitter,
            first_seen: None,
            config,
        }
    }

    /// Decides a request.
    pub fn check(&mut self, request: &RequestView<'_>, patience: Patience, now: Now) -> Decision {
        let strip = self.headers.strip(request);
        match self.decide(request, patience, now) {
            Ok(Grant::Wait) => Decision::Wait,
            Ok(Grant::Anonymous) => {
                self.metrics.admitted_anonymous();
                Decision::Admit(Admission { strip, ..Admission::default() })
            }
            Ok(Grant::Identified { identity, standings }) => {
                self.metrics.admitted();
                let mut strip = strip;
                strip.extend(identity.credential_header.as_ref().map(|name| name.clone().into_bytes()));
                let respond = self.headers.standing(&standings);
                Decision::Admit(Admission { strip, set: identity.headers.clone(), respond })
            }
            Err(denial) => {
                self.metrics.refused(&denial);
                let random = self.jitter.next();
                Decision::Refuse(denial.refusal(&self.config.realm, &self.headers, random))
            }
        }
    }

    /// Takes in what other VMs of the process have heard, and plays this one's part among them. To be called every
    /// [`Self::next_tick_millis`], before [`Self::due`].
    ///
    /// # Errors
    /// [`AnswerFault`], for the log: what was heard could not be used, and the state is as it was.
    pub fn tick(&mut self, now: Now) -> Result<(), AnswerFault> {
        match &mut self.refresh {
            Some(refresh) => refresh.tick(&mut self.metrics, now),
            None => Ok(()),
        }
    }

    /// After how many milliseconds [`Self::tick`] is to be called again: soon, when there is more to take in than one call may.
    #[must_use]
    pub fn next_tick_millis(&self) -> u32 {
        self.refresh.as_ref().map_or(IDLE_TICK_MILLIS, Refresh::next_tick_millis)
    }

    /// The next call to make, if one is due. Ask until there is none.
    pub fn due(&mut self, now: Now) -> Option<Call> {
        let random = self.jitter.next();
        self.refresh.as_mut()?.due(now, random, &mut self.metrics)
    }

    /// Takes in what became of a call. Calls that were given up in the meantime are ignored.
    ///
    /// # Errors
    /// [`AnswerFault`], for the log: the state is as it was, and the engine asks again in its own time.
    pub fn answer(
        &mut self,
        call: CallId,
        outcome: Result<Reply<'_>, CallFailure>,
        now: Now,
    ) -> Result<(), AnswerFault> {
        let random = self.jitter.next();
        match &mut self.refresh {
            Some(refresh) => refresh.answer(call, outcome, now, random, &mut self.metrics),
            None => Ok(()),
        }
    }

    /// The trailers, of those with these names, that must not be sent on.
    #[must_use]
    pub fn strip_trailers(&self, names: &[&[u8]]) -> Vec<Vec<u8>> {
        names.iter().filter(|name| self.headers.is_owned(name)).map(|name| name.to_vec()).collect()
    }

    /// What was counted so far, with the gauges as they stand at `now`.
    #[must_use]
    pub fn metrics(&self, now: Now) -> Metrics {
        let mut metrics = self.metrics.clone();
        metrics.set(Gauge::CachedTokens, self.cache.len() as u64);
        if let Some(refresh) = &self.refresh {
            refresh.gauges(now.monotonic, &mut metrics);
        }
        metrics
    }

    /// What an operator should know once, at the start: whatever in the configuration is allowed but surprising.
    #[must_use]
    pub fn notices(&self) -> Vec<String> {
        let mut notices = Vec::new();
        if self.config.origin.is_none() {
            notices.push("there is no `origin`: nothing is ever revoked and no quota is counted".to_owned());
        }
        for (provider, ignored) in self.keyring.ignored() {
            notices.push(format!(
                "provider `{provider}`: key {} of its set is not used: {}",
                ignored.place, ignored.fault
            ));
        }
        notices
    }

    /// Whether protected routes can be served: there are keys and revocations, and they are not too old.
    #[must_use]
    pub fn is_ready(&self, now: Monotonic) -> bool {
        self.refresh.as_ref().is_none_or(|refresh| refresh.freshness(now) != Freshness::Expired)
    }

    /// Whether this VM talks to the issuer for all of its process.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.refresh.as_ref().is_some_and(Refresh::leads)
    }

    /// Takes the lead from whoever has it, for tests of what happens when the leader dies; tells whether that went well.
    #[doc(hidden)]
    pub fn seize_lead(&self) -> bool {
        self.refresh.as_ref().is_some_and(Refresh::seize_lead)
    }

    /// The issuer this engine asks, if any.
    #[must_use]
    pub fn origin(&self) -> Option<&Origin> {
        self.config.origin.as_ref()
    }

    /// What is revoked, if that is known.
    #[must_use]
    pub fn revocations(&self) -> Option<&RevocationSet> {
        self.refresh.as_ref()?.state().map(|state| &state.revoked)
    }

    /// The position of the feed that is enforced, if there is any.
    #[must_use]
    pub fn position(&self) -> Option<u64> {
        self.refresh.as_ref()?.state().map(|state| state.position.0)
    }

    fn decide(&mut self, request: &RequestView<'_>, patience: Patience, now: Now) -> Verdict<Grant> {
        let path = path::RequestPath::parse(request.path).map_err(|_| Denial::MalformedPath)?;
        let rules = std::mem::take(&mut self.config.rules);
        let verdict = match policy::find(&rules, request.method, &path) {
            Ok(Some(rule)) => self.decide_by(rule, &path, request, patience, now),
            Ok(None) => Err(Denial::NoRule),
            Err(path::Ambiguous) => Err(Denial::MalformedPath),
        };
        self.config.rules = rules;
        verdict
    }

    fn decide_by(
        &mut self,
        rule: &Rule,
        path: &path::RequestPath<'_>,
        request: &RequestView<'_>,
        patience: Patience,
        now: Now,
    ) -> Verdict<Grant> {
        let requirement = match &rule.access {
            Access::Public => return Ok(Grant::Anonymous),
            Access::Optional => None,
            Access::Required(requirement) => Some(requirement),
        };
        match self.usable_state(rule, now.monotonic) {
            // An optional route stays open to those who bring nothing; a token cannot be judged now.
            Err(_) if requirement.is_none() && !self.headers.carries_credential(request) => {
                return Ok(Grant::Anonymous);
            }
            Err(denial) => return Err(denial),
            Ok(Usable::AsAnonymous) => return Ok(Grant::Anonymous),
            Ok(Usable::Yes) => {}
        }
        let Some(credential) = self.headers.credential(request)? else {
            return if requirement.is_none() { Ok(Grant::Anonymous) } else { Err(Denial::NoCredential) };
        };
        let identity = self.identify(&credential, now)?;
        if let Some(requirement) = requirement {
            policy::authorise(requirement, &rule.path, path, &identity.claims)?;
        }
        let Some(standings) = self.charge(rule, &identity, patience, now.monotonic)? else {
            return Ok(Grant::Wait);
        };
        Ok(Grant::Identified { identity, standings })
    }

    fn usable_state(&self, rule: &Rule, now: Monotonic) -> Verdict<Usable> {
        let Some(refresh) = &self.refresh else { return Ok(Usable::Yes) };
        match (refresh.freshness(now), rule.when_stale) {
            (Freshness::Fresh, _) | (Freshness::Stale, WhenStale::Grace) => Ok(Usable::Yes),
            (Freshness::Stale | Freshness::Expired, WhenStale::Anonymous) if refresh.state().is_some() => {
                Ok(Usable::AsAnonymous)
            }
            (Freshness::Stale, WhenStale::Deny | WhenStale::Anonymous) => Err(Denial::TooStale),
            (Freshness::Expired, _) => {
                Err(if refresh.state().is_some() { Denial::TooStale } else { Denial::NotReady })
            }
        }
    }

    /// Finds out who the bearer is. A token seen before skips the signature and nothing else.
    fn identify(&mut self, credential: &Credential<'_>, now: Now) -> Verdict<Rc<Identity>> {
        let date = self.date(now);
        let sources = KeySources { refresh: self.refresh.as_ref(), now: now.monotonic };
        let feed = sources.feed();
        if let Some(identity) = self.cache.find(credential.token) {
            if identity.came_in(credential)
                && identity.still_good(&self.keyring, sources, date, now.monotonic)
            {
                self.metrics.count(Counter::CacheHit);
                identity.not_revoked(feed).map_err(Denial::InvalidToken)?;
                return Ok(identity);
            }
            self.cache.remove(credential.token);
        }
        self.metrics.count(Counter::CacheMiss);
        let identified = self.keyring.identify(credential, sources, &self.backend, date, now.monotonic);
        let identity = match identified {
            Ok(identity) => Rc::new(identity),
            Err(Unidentified::NoKeys) => return Err(Denial::KeysUnavailable),
            Err(Unidentified::UnknownKey { provider, key }) => {
                if let Some(refresh) = &mut self.refresh {
                    refresh.missed_key(provider, &key, &mut self.metrics, now.monotonic);
                }
                return Err(Denial::InvalidToken(TokenFault::Verify(VerifyError::UnknownKey)));
            }
            Err(Unidentified::Fault(fault)) => return Err(Denial::InvalidToken(fault)),
        };
        // A revoked one as well: who keeps sending it shall not cost a signature each time.
        self.cache.insert(credential.token, Rc::clone(&identity));
        identity.not_revoked(feed).map_err(Denial::InvalidToken)?;
        Ok(identity)
    }

    /// The date by which tokens are judged: the host's, unless that went back, since it was first read, by more than a
    /// clock may be wrong.
    fn date(&mut self, now: Now) -> UnixSeconds {
        let first = self.first_seen.get_or_insert(now);
        let passed = now.monotonic.since(first.monotonic) / 1000;
        now.wall.seconds().max(first.wall.seconds().plus(passed).minus(CLOCK_ERROR_SECONDS))
    }

    /// Spends what the rule costs; `None` when the request has to wait for a lease.
    fn charge(
        &mut self,
        rule: &Rule,
        identity: &Identity,
        patience: Patience,
        now: Monotonic,
    ) -> Verdict<Option<Vec<(String, Standing)>>> {
        let ledger = self.refresh.as_mut().and_then(Refresh::ledger_mut);
        let Some(ledger) = ledger.filter(|_| !rule.quotas.is_empty()) else {
            return Ok(Some(Vec::new()));
        };
        let charges: Option<Vec<Charge>> = rule
            .quotas
            .iter()
            .map(|quota| {
                let bucket =
                    Bucket::of_subject(&quota.name, &identity.claims.issuer, &identity.claims.subject)?;
                Some(Charge { bucket, cost: quota.cost })
            })
            .collect();
        let charges = charges.ok_or(Denial::QuotaUnavailable)?;
        let mut names = rule.quotas.iter().map(|quota| quota.name.clone());
        match ledger.spend(&charges, now) {
            Spend::Granted(standings) => Ok(Some(names.zip(standings).collect())),
            Spend::Exhausted { place, standing } => {
                let name = names.nth(place).unwrap_or_default();
                Err(Denial::QuotaExceeded { name, standing })
            }
            Spend::NeedsLease if patience == Patience::MayWait => {
                self.metrics.count(Counter::Waited);
                Ok(None)
            }
            Spend::NeedsLease if patience == Patience::StillWaiting => Ok(None),
            Spend::NeedsLease | Spend::Unavailable | Spend::Full => Err(Denial::QuotaUnavailable),
        }
    }
}

enum Usable {
    Yes,
    AsAnonymous,
}

/// SplitMix64: spreads retries and `Retry-After`. Nothing secret depends on it.
#[derive(Debug)]
struct Jitter(u64);

impl Jitter {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests;
