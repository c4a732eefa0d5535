//! Keeps the edge's state current: when to poll the feed and send the quota batch, and what to do with the answers.
//!
//! *What comes in:* replies that claim to be the issuer's. *What goes out:* calls, one of each kind at a time, and the
//! state they left. *What is lost if this is wrong:* freshness, so in the end protected routes refuse.

use tollgate_shared::quota::ledger::Ledger;
use tollgate_shared::revocation::{ApplyError, FeedChange, FeedState};
use tollgate_shared::time::{Monotonic, Now};
use tollgate_shared::wire::feed::{BodyError, FeedDecodeError, MEDIA_TYPE, TrustAnchor, apply_body};
use tollgate_shared::wire::quota::{BATCH_BYTES_MAX, QuotaAnswer};

use super::freshness::{Freshness, IssuerClock};
use super::metrics::{Counter, Gauge, Metrics};
use crate::config::Origin;

/// The first and the longest wait after failures, in milliseconds; each failure doubles it, and the wait is drawn at
/// random below that (full jitter).
const BACKOFF_FIRST_MILLIS: u64 = 250;
const BACKOFF_MAX_MILLIS: u64 = 10_000;
/// How long a call may take beyond the time the issuer was asked to hold it, in milliseconds.
const CALL_MILLIS: u64 = 5_000;
/// A host may never report what became of a call; it is given up this long after its own deadline, in milliseconds.
const WATCHDOG_MILLIS: u64 = 1_000;

/// Names one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// A call to the issuer. The host adds the credential and the authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Which call this is.
    pub id: CallId,
    /// What it is for.
    pub kind: CallKind,
    /// The HTTP method.
    pub method: &'static str,
    /// Path and query.
    pub path: String,
    /// The headers beside those that the host adds.
    pub headers: Vec<(&'static str, String)>,
    /// The body, perhaps empty.
    pub body: Vec<u8>,
    /// How long to wait for the answer, in milliseconds.
    pub timeout_millis: u64,
}

/// What a call is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallKind {
    /// Revocations, keys and plans.
    Feed,
    /// Usage and leases.
    Quota,
}

/// An answer that arrived.
#[derive(Debug, Clone, Copy)]
pub struct Reply<'r> {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: &'r [u8],
}

/// An answer that did not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum CallFailure {
    /// The host could not make the call.
    #[error("the host knows no such cluster")]
    Unroutable,
    /// No answer in time, or the connection broke.
    #[error("no answer from the issuer")]
    NoAnswer,
}

/// Why an answer changed nothing; for the log. The state in force stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum AnswerFault {
    /// There was none.
    #[error("{0}")]
    Call(CallFailure),
    /// The issuer refused the call.
    #[error("the issuer answered with status {0}")]
    Status(u16),
    /// The feed message could not be read.
    #[error("feed message refused: {0}")]
    Decode(FeedDecodeError),
    /// The feed message does not follow on the state.
    #[error("feed message refused: {0}")]
    Apply(ApplyError),
    /// The answer to a quota batch could not be read.
    #[error("the answer to a quota batch could not be read")]
    QuotaAnswer,
}

#[derive(Debug)]
pub(super) struct Refresh {
    settings: Settings,
    state: Option<FeedState>,
    clock: Option<IssuerClock>,
    feed: Poll,
    feed_failures: u32,
    want_snapshot: bool,
    ledger: Ledger,
    quota: Option<InFlight>,
    quota_failures: u32,
    next_id: u64,
}

#[derive(Debug)]
struct Settings {
    anchor: TrustAnchor,
    poll_millis: u64,
    hold_seconds: u64,
    stale_millis: u64,
    refuse_millis: u64,
}

#[derive(Debug, Clone, Copy)]
enum Poll {
    Idle { next_at: Monotonic },
    Asked(InFlight),
}

#[derive(Debug, Clone, Copy)]
struct InFlight {
    id: CallId,
    sent_at: Monotonic,
    given_up_at: Monotonic,
}

impl Refresh {
    pub(super) fn new(origin: &Origin, epoch: String, random: u64) -> Self {
        let settings = Settings {
            anchor: origin.trust_anchor.clone(),
            poll_millis: origin.poll_interval_ms,
            hold_seconds: origin.long_poll_seconds,
            stale_millis: origin.stale_after_seconds * 1000,
            refuse_millis: origin.refuse_after_seconds * 1000,
        };
        Self {
            settings,
            state: None,
            clock: None,
            feed: Poll::Idle { next_at: Monotonic::default() },
            feed_failures: 0,
            want_snapshot: false,
            ledger: Ledger::new(origin.edge_id.clone(), epoch),
            quota: None,
            quota_failures: 0,
            // Ids of a VM that was replaced are not taken for ours.
            next_id: random >> 1,
        }
    }

    pub(super) fn state(&self) -> Option<&FeedState> {
        self.state.as_ref()
    }

    pub(super) fn ledger_mut(&mut self) -> &mut Ledger {
        &mut self.ledger
    }

    pub(super) fn freshness(&self, now: Monotonic) -> Freshness {
        match &self.clock {
            Some(clock) if clock.age_millis(now) < self.settings.stale_millis => Freshness::Fresh,
            Some(clock) if clock.age_millis(now) < self.settings.refuse_millis => Freshness::Stale,
            Some(_) | None => Freshness::Expired,
        }
    }

    pub(super) fn gauges(&self, now: Monotonic, metrics: &mut Metrics) {
        metrics.set(Gauge::Ready, u64::from(self.freshness(now) != Freshness::Expired));
        metrics.set(Gauge::QuotaBuckets, self.ledger.len() as u64);
        if let (Some(state), Some(clock)) = (&self.state, &self.clock) {
            metrics.set(Gauge::StateAgeMilliseconds, clock.age_millis(now));
            metrics.set(Gauge::FeedPosition, state.position.0);
            metrics.set(Gauge::RevokedTokens, state.revoked.indices.len());
            metrics.set(Gauge::RevokedCutoffs, state.revoked.cutoffs.len() as u64);
        }
    }

    pub(super) fn due(&mut self, now: Monotonic, random: u64, metrics: &mut Metrics) -> Option<Call> {
        self.give_up(now, random, metrics);
        if let Poll::Idle { next_at } = self.feed
            && now >= next_at
        {
            return Some(self.poll_feed(now));
        }
        if self.quota.is_none() {
            return self.send_batch(now);
        }
        None
    }

    pub(super) fn answer(
        &mut self,
        id: CallId,
        outcome: Result<Reply<'_>, CallFailure>,
        now: Now,
        random: u64,
        metrics: &mut Metrics,
    ) -> Result<(), AnswerFault> {
        match (self.feed, self.quota) {
            (Poll::Asked(asked), _) if asked.id == id => {
                self.feed_answered(asked, outcome, now, random, metrics)
            }
            (_, Some(asked)) if asked.id == id => {
                self.quota_answered(outcome, now.monotonic, random, metrics)
            }
            _ => Ok(()),
        }
    }

    fn call_id(&mut self) -> CallId {
        self.next_id = self.next_id.wrapping_add(1);
        CallId(self.next_id)
    }

    fn in_flight(&mut self, now: Monotonic, timeout_millis: u64) -> InFlight {
        let given_up_at = now.plus(timeout_millis + WATCHDOG_MILLIS);
        InFlight { id: self.call_id(), sent_at: now, given_up_at }
    }

    fn poll_feed(&mut self, now: Monotonic) -> Call {
        let mut path = "/v1/edge/feed".to_owned();
        let mut timeout_millis = CALL_MILLIS;
        if let Some(state) = self.state.as_ref().filter(|_| !self.want_snapshot) {
            // After a failure the first answer is wanted at once: it proves that the issuer is back.
            let wait = if self.feed_failures == 0 { self.settings.hold_seconds } else { 0 };
            path = format!("{path}?epoch={}&after={}&wait={wait}", state.epoch.to_hex(), state.position.0);
            timeout_millis += wait * 1000;
        }
        let asked = self.in_flight(now, timeout_millis);
        self.feed = Poll::Asked(asked);
        let headers = vec![("accept", MEDIA_TYPE.to_owned())];
        Call {
            id: asked.id,
            kind: CallKind::Feed,
            method: "GET",
            path,
            headers,
            body: Vec::new(),
            timeout_millis,
        }
    }

    fn feed_answered(
        &mut self,
        asked: InFlight,
        outcome: Result<Reply<'_>, CallFailure>,
        now: Now,
        random: u64,
        metrics: &mut Metrics,
    ) -> Result<(), AnswerFault> {
        let applied = match outcome {
            Ok(Reply { status: 200, body }) => self.take_in(body, now, metrics).inspect_err(|fault| {
                metrics.count(Counter::FeedRefused);
                self.want_snapshot = fault.calls_for_snapshot();
            }),
            Ok(Reply { status, .. }) => Err(AnswerFault::Status(status)),
            Err(failure) => Err(AnswerFault::Call(failure)),
        };
        let next_at = match applied {
            Ok(news) => {
                self.feed_failures = 0;
                self.want_snapshot = false;
                // With long polling the next poll follows at once, unless the issuer answered early and had no news:
                // then it, or a cache before it, does not hold polls.
                let held = news || now.monotonic.since(asked.sent_at) >= self.settings.poll_millis;
                let follow_at_once = self.settings.hold_seconds > 0 && held;
                if follow_at_once { now.monotonic } else { asked.sent_at.plus(self.settings.poll_millis) }
            }
            Err(_) => {
                metrics.count(Counter::FeedFailed);
                self.feed_failures = self.feed_failures.saturating_add(1);
                now.monotonic.plus(backoff(self.feed_failures, random))
            }
        };
        self.feed = Poll::Idle { next_at };
        applied.map(|_| ())
    }

    /// Applies a message; tells whether it brought news.
    fn take_in(&mut self, body: &[u8], now: Now, metrics: &mut Metrics) -> Result<bool, AnswerFault> {
        let before = self.state.as_ref().map(|state| (state.epoch, state.position));
        let (anchor, today) = (&self.settings.anchor, now.wall.seconds());
        let message = apply_body(anchor, body, &mut self.state, today).map_err(|error| match error {
            BodyError::Decode(error) => AnswerFault::Decode(error),
            BodyError::Apply(error) => AnswerFault::Apply(error),
        })?;
        let as_of = message.as_of;
        let counter = match message.change {
            FeedChange::Delta { .. } => Counter::FeedDelta,
            FeedChange::Snapshot { .. } => Counter::FeedSnapshot,
        };
        metrics.count(counter);
        match &mut self.clock {
            Some(clock) => clock.advance(as_of, now.monotonic),
            None => self.clock = Some(IssuerClock::first(as_of, now)),
        }
        Ok(before != self.state.as_ref().map(|state| (state.epoch, state.position)))
    }

    fn send_batch(&mut self, now: Monotonic) -> Option<Call> {
        let batch = self.ledger.due(now)?;
        // A batch is made of strings and numbers; it always serialises.
        let body = serde_json::to_vec(batch).unwrap_or_default();
        let asked = self.in_flight(now, CALL_MILLIS);
        self.quota = Some(asked);
        Some(Call {
            id: asked.id,
            kind: CallKind::Quota,
            method: "POST",
            path: "/v1/edge/quota".to_owned(),
            headers: vec![("content-type", "application/json".to_owned())],
            body,
            timeout_millis: CALL_MILLIS,
        })
    }

    fn quota_answered(
        &mut self,
        outcome: Result<Reply<'_>, CallFailure>,
        now: Monotonic,
        random: u64,
        metrics: &mut Metrics,
    ) -> Result<(), AnswerFault> {
        self.quota = None;
        let fault = match outcome {
            Ok(Reply { status: 200, body }) => match read_answer(body) {
                Some(answer) => {
                    metrics.count(Counter::QuotaBatch);
                    self.quota_failures = 0;
                    self.ledger.answered(answer);
                    return Ok(());
                }
                None => AnswerFault::QuotaAnswer,
            },
            Ok(Reply { status, .. }) => {
                // The issuer read the batch and will never take it: sending it again would block every later one.
                if matches!(status, 400 | 409 | 413 | 422) {
                    metrics.add(Counter::QuotaUnitsUnreported, self.ledger.rejected());
                }
                AnswerFault::Status(status)
            }
            Err(failure) => AnswerFault::Call(failure),
        };
        metrics.count(Counter::QuotaBatchFailed);
        self.quota_failures = self.quota_failures.saturating_add(1);
        self.ledger.failed(now.plus(backoff(self.quota_failures, random)));
        Err(fault)
    }

    /// Gives up calls whose end the host never reported.
    fn give_up(&mut self, now: Monotonic, random: u64, metrics: &mut Metrics) {
        if let Poll::Asked(asked) = self.feed
            && now >= asked.given_up_at
        {
            metrics.count(Counter::FeedFailed);
            self.feed_failures = self.feed_failures.saturating_add(1);
            self.feed = Poll::Idle { next_at: now.plus(backoff(self.feed_failures, random)) };
        }
        if self.quota.is_some_and(|asked| now >= asked.given_up_at) {
            // Counted there; there is nobody to tell.
            let _ = self.quota_answered(Err(CallFailure::NoAnswer), now, random, metrics);
        }
    }
}

impl AnswerFault {
    /// Whether a snapshot would help where a delta did not.
    fn calls_for_snapshot(self) -> bool {
        match self {
            // A snapshot has only what is live, so it may fit where one more delta does not.
            Self::Apply(
                ApplyError::Gap | ApplyError::EpochChanged | ApplyError::Incomplete | ApplyError::TooLarge,
            )
            | Self::Decode(FeedDecodeError::Unknown | FeedDecodeError::Payload) => true,
            Self::Call(_)
            | Self::Status(_)
            | Self::QuotaAnswer
            | Self::Apply(ApplyError::Rollback | ApplyError::Keys(_))
            | Self::Decode(
                FeedDecodeError::TooLong
                | FeedDecodeError::Pieces
                | FeedDecodeError::Digest
                | FeedDecodeError::Envelope
                | FeedDecodeError::Algorithm
                | FeedDecodeError::Signature,
            ) => false,
        }
    }
}

fn read_answer(body: &[u8]) -> Option<QuotaAnswer> {
    serde_json::from_slice(body).ok().filter(|_| body.len() <= BATCH_BYTES_MAX)
}

fn backoff(failures: u32, random: u64) -> u64 {
    let doublings = failures.saturating_sub(1).min(16);
    let ceiling = BACKOFF_MAX_MILLIS.min(BACKOFF_FIRST_MILLIS << doublings);
    random % (ceiling + 1)
}
