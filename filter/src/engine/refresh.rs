//! Keeps a VM's state current: which of its parts has what to do next, and to which of them an answer goes.
//!
//! *What comes in:* replies that claim to be an issuer's, and what other VMs of the process left on the board. *What goes
//! out:* calls, one of each kind at a time, and the state they left. *What is lost if this is wrong:* freshness, so in the end
//! protected routes refuse.

use sha2::{Digest, Sha256};
use tollgate_shared::id::KeyId;
use tollgate_shared::quota::ledger::Ledger;
use tollgate_shared::revocation::FeedState;
use tollgate_shared::time::{Monotonic, Now};
use tollgate_shared::token::KeySet;

use super::board::{self, Board, Want};
use super::breaker::Breaker;
use super::call::{AnswerFault, Call, CallId, CallIds, Outcome};
use super::election::Election;
use super::freshness::{Freshness, IssuerClock};
use super::lending::Lending;
use super::metrics::{Counter, Gauge, Metrics};
use super::opening::Opening;
use super::publisher::{Published, Publisher, Scene};
use super::remote_keys::RemoteKeys;
use super::report::{Report, Standing};
use super::shared_data::SharedData;
use super::subscriber::Subscriber;
use super::unknown_keys::UnknownKeys;
use crate::config::{Config, KeySource, Origin};

/// The time between two ticks, in milliseconds: how late what another VM published can be taken in.
const TICK_MILLIS: u32 = 20;
/// The time to the next tick when there is more to take in than one step allows.
const BUSY_TICK_MILLIS: u32 = 1;

/// An answer is large from so many bytes on.
const LARGE_BYTES: usize = 2 * 1024;

#[derive(Debug)]
pub(super) struct Refresh<S> {
    board: Board<S>,
    election: Election,
    ids: CallIds,
    home: Option<Home>,
    remotes: Vec<RemoteKeys>,
    unknown: UnknownKeys,
}

/// What has to do with our own issuer.
#[derive(Debug)]
struct Home {
    origin: Origin,
    opening: Opening,
    publisher: Publisher,
    subscriber: Subscriber,
    report: Report,
    lending: Lending,
    breaker: Breaker,
}

impl<S: SharedData> Refresh<S> {
    /// What keeps this configuration's state current; `None` when nothing of it has to be kept so. `seed` is random.
    pub(super) fn new(config: &Config, data: S, seed: u128) -> Option<Self> {
        let remotes =
            config.providers.iter().enumerate().filter_map(|(place, provider)| match &provider.keys {
                KeySource::Remote(settings) => Some(RemoteKeys::new(place, settings.clone())),
                KeySource::Feed | KeySource::Inline(..) => None,
            });
        let remotes: Vec<RemoteKeys> = remotes.collect();
        if config.origin.is_none() && remotes.is_empty() {
            return None;
        }
        let home = config.origin.clone().map(|origin| Home {
            opening: Opening::new(origin.trust_anchor.clone()),
            publisher: Publisher::default(),
            subscriber: Subscriber::default(),
            report: Report::new(seed),
            lending: Lending::new(&origin, format!("{seed:032x}")),
            breaker: Breaker::default(),
            origin,
        });
        Some(Self {
            board: Board::new(data, board_name(config)),
            election: Election::new(seed),
            ids: CallIds::new((seed >> 64) as u64),
            home,
            remotes,
            unknown: UnknownKeys::default(),
        })
    }

    pub(super) fn leads(&self) -> bool {
        self.election.leads()
    }

    pub(super) fn seize_lead(&self) -> bool {
        self.election.seize(&self.board)
    }

    pub(super) fn state(&self) -> Option<&FeedState> {
        self.home.as_ref()?.subscriber.state()
    }

    pub(super) fn ledger_mut(&mut self) -> Option<&mut Ledger> {
        self.home.as_mut().map(|home| home.lending.ledger_mut())
    }

    /// The keys of the foreign issuer whose provider stands at this place, unless they are too old.
    pub(super) fn remote_keys(&self, place: usize, now: Monotonic) -> Option<&KeySet> {
        self.remotes.iter().find(|remote| remote.place() == place)?.keys(now)
    }

    /// A token of this provider names a key that is not known: perhaps it is new.
    pub(super) fn missed_key(&mut self, place: usize, key: &KeyId, metrics: &mut Metrics, now: Monotonic) {
        let is_remote = self.remotes.iter().any(|remote| remote.place() == place);
        if !is_remote && self.home.is_none() {
            return;
        }
        if self.unknown.is_worth_a_look(place, key, now) {
            metrics.count(Counter::KeysRefetched);
            self.board.want(if is_remote { Want::Keys(place) } else { Want::Poll });
        }
    }

    pub(super) fn freshness(&self, now: Monotonic) -> Freshness {
        let Some(home) = &self.home else { return Freshness::Fresh };
        let Origin { stale_after_seconds, refuse_after_seconds, .. } = home.origin;
        match home.subscriber.clock().map(|clock| clock.age_millis(now)) {
            Some(age) if age < stale_after_seconds * 1000 => Freshness::Fresh,
            Some(age) if age < refuse_after_seconds * 1000 => Freshness::Stale,
            Some(_) | None => Freshness::Expired,
        }
    }

    pub(super) fn gauges(&self, now: Monotonic, metrics: &mut Metrics) {
        metrics.set(Gauge::Ready, u64::from(self.freshness(now) != Freshness::Expired));
        if let Some(oldest) = self.remotes.iter().filter_map(|remote| remote.age_millis(now)).max() {
            metrics.set(Gauge::KeysAgeMilliseconds, oldest);
        }
        let of_feed = self.state().map_or(0, |state| state.ignored_keys.len() as u64);
        let of_others: u64 = self.remotes.iter().map(RemoteKeys::ignored).sum();
        metrics.set(Gauge::KeysIgnored, of_feed + of_others);
        let Some(home) = &self.home else { return };
        metrics.set(Gauge::QuotaBuckets, home.lending.ledger().len() as u64);
        if self.election.leads() {
            metrics.set(Gauge::IssuerState, home.breaker.state(now).number());
        }
        if let (Some(state), Some(clock)) = (home.subscriber.state(), home.subscriber.clock()) {
            metrics.set(Gauge::StateAgeMilliseconds, clock.age_millis(now));
            metrics.set(Gauge::FeedPosition, state.position.0);
            metrics.set(Gauge::RevokedTokens, state.revoked.indices.len());
            metrics.set(Gauge::RevokedCutoffs, state.revoked.cutoffs.len() as u64);
        }
    }

    /// Does what is due without a call: holds the election, takes in what is on the board.
    ///
    /// # Errors
    /// [`AnswerFault`] of what was on the board and could not be used.
    pub(super) fn tick(&mut self, metrics: &mut Metrics, now: Now) -> Result<(), AnswerFault> {
        if self.election.step(&self.board, now.monotonic) {
            self.begin_term(metrics, now.monotonic);
        }
        self.remotes.iter_mut().for_each(|remote| remote.look(&self.board, now.monotonic));
        let Some(home) = &mut self.home else { return Ok(()) };
        if self.election.leads() {
            home.publisher.heed(&self.board, now.monotonic);
        }
        let stepped = home.subscriber.step(&self.board, &mut home.opening, metrics, now);
        home.report.sign_in(&self.board, &home.subscriber, now.monotonic);
        stepped.map(|_| ())
    }

    /// This VM leads from now on, and nothing is left of an earlier term.
    fn begin_term(&mut self, metrics: &mut Metrics, now: Monotonic) {
        metrics.count(Counter::LeaderTerm);
        self.remotes.iter_mut().for_each(|remote| remote.begin(now));
        if let Some(home) = &mut self.home {
            home.publisher.begin(now);
            home.report.begin(now);
            // What a poll of an earlier term would have decided is not waited for.
            home.breaker = Breaker::default();
        }
    }

    pub(super) fn due(&mut self, now: Now, random: u64, metrics: &mut Metrics) -> Option<Call> {
        let at = (now.monotonic, random);
        let leads = self.election.leads();
        if leads {
            for remote in &mut self.remotes {
                if let Some(call) = remote.due(&self.board, &mut self.ids, metrics, at) {
                    return Some(call);
                }
            }
        }
        let Self { board, ids, home, .. } = self;
        let Home { origin, opening, publisher, subscriber, report, lending, breaker } = home.as_mut()?;
        let mut scene = Scene { board, origin, opening, ids, breaker, metrics, now, random };
        publisher.give_up(&mut scene);
        if leads {
            if let Some(call) = publisher.due(&mut scene) {
                return Some(call);
            }
            let state_age_millis =
                subscriber.clock().map(|clock: &IssuerClock| clock.age_millis(now.monotonic));
            let standing = Standing { state_age_millis, breaker: breaker.state(now.monotonic) };
            if let Some(call) = report.due(board, origin, &standing, ids, now.monotonic) {
                return Some(call);
            }
        }
        lending.due(origin, breaker, ids, metrics, at)
    }

    pub(super) fn answer(
        &mut self,
        id: CallId,
        outcome: Outcome<'_>,
        now: Now,
        random: u64,
        metrics: &mut Metrics,
    ) -> Result<(), AnswerFault> {
        let at = (now.monotonic, random);
        // Ticks may be late: an answer is taken by who leads at this moment. What comes of an earlier term belongs to nobody.
        if self.election.step(&self.board, now.monotonic) {
            self.begin_term(metrics, now.monotonic);
        }
        if let Some(remote) = self.remotes.iter_mut().find(|remote| remote.awaits(id)) {
            let answered = remote.answered(outcome, &self.board, metrics, at);
            if answered.is_err() {
                self.unknown.forget(remote.place());
            }
            return answered;
        }
        let Self { board, ids, home, election, .. } = self;
        let Some(Home { origin, opening, publisher, subscriber, report, lending, breaker }) = home else {
            return Ok(());
        };
        if lending.awaits(id) {
            return lending.answered(outcome, breaker, metrics, at);
        }
        if report.awaits(id) {
            return report.answered(outcome, metrics, at);
        }
        if !publisher.awaits(id) {
            return Ok(());
        }
        let is_large = outcome.is_ok_and(|reply| reply.body.size() > LARGE_BYTES);
        let mut scene = Scene { board, origin, opening, ids, breaker, metrics, now, random };
        if !election.leads() {
            publisher.forget(outcome, &mut scene);
        } else if publisher.answered(outcome, &mut scene)? == Published::Overtaken {
            election.step_down();
        }
        // A large answer has taken its time already; what it brought is taken in with the next tick.
        if !is_large {
            subscriber.step(board, opening, metrics, now)?;
            report.sign_in(board, subscriber, now.monotonic);
        }
        Ok(())
    }

    /// In how many milliseconds to come again, as things stand.
    pub(super) fn next_tick_millis(&self) -> u32 {
        let busy = self.home.as_ref().is_some_and(|home| home.subscriber.is_busy());
        if busy { BUSY_TICK_MILLIS } else { TICK_MILLIS }
    }
}

/// Names the board of a configuration: filters that ask the same issuers as the same edge share one.
fn board_name(config: &Config) -> String {
    // Modules of different forms that run side by side for a while have a board each.
    let mut digest = Sha256::new_with_prefix([board::FORM]);
    if let Some(Origin { cluster, authority, edge_id, trust_anchor, .. }) = &config.origin {
        for part in
            [cluster.as_bytes(), authority.as_bytes(), edge_id.as_str().as_bytes(), &trust_anchor.to_bytes()]
        {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
    }
    for (place, provider) in config.providers.iter().enumerate() {
        if let KeySource::Remote(remote) = &provider.keys {
            let place = (place as u64).to_be_bytes();
            for part in
                [&place[..], remote.cluster.as_bytes(), remote.authority.as_bytes(), remote.path.as_bytes()]
            {
                digest.update((part.len() as u64).to_be_bytes());
                digest.update(part);
            }
        }
    }
    let bytes: [u8; 32] = digest.finalize().into();
    let name: String = bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("tollgate.{name}.")
}
