//! Tells the issuer what this process enforces, so that it can say when a revocation is in force everywhere.
//!
//! Every VM signs in on the board with its position. The leader reports the lowest of them: when it has risen, but not more
//! often than the spacing, and now and then otherwise, as a sign of life.

use serde_json::json;
use tollgate_shared::revocation::Position;
use tollgate_shared::time::Monotonic;

use super::board::{Board, Head, Vm};
use super::breaker::{BreakerState, backoff};
use super::call::{AnswerFault, CALL_MILLIS, Call, CallId, CallIds, CallKind, Flight, Outcome, Reply};
use super::metrics::{Counter, Metrics};
use super::shared_data::SharedData;
use super::subscriber::Subscriber;
use crate::config::Origin;

/// How often a VM signs in when nothing has changed, in milliseconds.
const SIGN_IN_MILLIS: u64 = 1_000;
/// How often the leader looks whether all have come further, in milliseconds.
const LOOK_MILLIS: u64 = 20;
/// The time between two signs of life until the issuer says another, in milliseconds, and the bounds of what it may say.
const INTERVAL_MILLIS: u64 = 10_000;
const INTERVAL_SECONDS_MAX: u64 = 300;
/// A longer answer is not read, in bytes.
const ANSWER_BYTES_MAX: usize = 4096;
/// Between two reports lies at least this part of the interval.
const SPACINGS: u64 = 40;

/// What kind of host this is.
const HOST: &str = if cfg!(target_os = "wasi") { "envoy" } else { "native" };

/// One VM's part in the reports.
#[derive(Debug)]
pub(super) struct Report {
    me: u128,
    signed_in: Option<(Monotonic, Option<Position>)>,
    look_at: Monotonic,
    asked: Option<Flight>,
    last: Monotonic,
    reported: Option<Position>,
    interval_millis: u64,
    failures: u32,
    retry_at: Monotonic,
}

/// What the leader knows beside the board.
pub(super) struct Standing {
    pub(super) state_age_millis: Option<u64>,
    pub(super) breaker: BreakerState,
}

impl Report {
    pub(super) fn new(me: u128) -> Self {
        let never = Monotonic::default();
        Self {
            me,
            signed_in: None,
            look_at: never,
            asked: None,
            last: never,
            reported: None,
            interval_millis: INTERVAL_MILLIS,
            failures: 0,
            retry_at: never,
        }
    }

    /// Writes on the board what this VM enforces, if that has changed or was long ago.
    pub(super) fn sign_in<S: SharedData>(
        &mut self,
        board: &Board<S>,
        subscriber: &Subscriber,
        now: Monotonic,
    ) {
        let place = subscriber.state().map(|state| (state.epoch, state.position));
        let position = place.map(|(_, position)| position);
        if self.signed_in.is_some_and(|(at, known)| known == position && now.since(at) < SIGN_IN_MILLIS) {
            return;
        }
        let (epoch, at) = place.unwrap_or_default();
        let vm = Vm { id: self.me, epoch, position: at, since: subscriber.since(), signed_in: now };
        if board.sign_in(vm) {
            self.signed_in = Some((now, position));
        }
    }

    /// Begins to lead: the issuer hears of it at once.
    pub(super) fn begin(&mut self, now: Monotonic) {
        (self.asked, self.failures, self.retry_at) = (None, 0, now);
        self.last = Monotonic(now.0.saturating_sub(self.interval_millis));
    }

    /// The report that is due, if there is one. Only ever asked of a leader.
    pub(super) fn due<S: SharedData>(
        &mut self,
        board: &Board<S>,
        origin: &Origin,
        standing: &Standing,
        ids: &mut CallIds,
        now: Monotonic,
    ) -> Option<Call> {
        if self.asked.is_some_and(|flight| flight.is_lost(now)) {
            (self.asked, self.reported) = (None, None);
        }
        let spaced = now.since(self.last) >= self.interval_millis / SPACINGS;
        if self.asked.is_some() || now < self.look_at || now < self.retry_at || !spaced {
            return None;
        }
        self.look_at = now.plus(LOOK_MILLIS);
        let head = board.head().map(|(head, _)| head);
        let vms = board.vms();
        let enforced = head.as_ref().and_then(|head| vms.enforced(head.epoch));
        let has_risen = enforced.is_some_and(|(position, _)| self.reported != Some(position));
        if !has_risen && now.since(self.last) < self.interval_millis {
            return None;
        }
        self.last = now;
        let flight = ids.take_off(now, CALL_MILLIS);
        self.asked = Some(flight);
        self.reported = enforced.map(|(position, _)| position);
        let Standing { state_age_millis, breaker } = standing;
        let body = json!({
            "edge": origin.edge_id.as_str(),
            "instance": format!("{:032x}", board.instance(self.me)),
            "host": HOST,
            "version": env!("CARGO_PKG_VERSION"),
            "workers": vms.0.len(),
            "epoch": head.as_ref().map(|head| head.epoch.to_hex()),
            "position": head.as_ref().map(|Head { position, .. }| position.0),
            "enforced": enforced.map(|(position, _)| position.0),
            "enforced_ago_ms": enforced.map_or(0, |(_, since)| now.since(since)),
            "state_age_ms": state_age_millis,
            "issuer_state": breaker.name(),
        });
        Some(Call {
            id: flight.id,
            kind: CallKind::Heartbeat,
            cluster: origin.cluster.clone(),
            authority: origin.authority.clone(),
            method: "POST",
            path: "/v1/edge/heartbeat".to_owned(),
            headers: vec![("content-type", "application/json".to_owned())],
            body: body.to_string().into_bytes(),
            timeout_millis: CALL_MILLIS,
        })
    }

    /// Whether this call is the one under way.
    pub(super) fn awaits(&self, id: CallId) -> bool {
        self.asked.is_some_and(|flight| flight.id == id)
    }

    /// Takes in what became of the report under way.
    ///
    /// # Errors
    /// [`AnswerFault`]: it is sent again.
    pub(super) fn answered(
        &mut self,
        outcome: Outcome<'_>,
        metrics: &mut Metrics,
        (now, random): (Monotonic, u64),
    ) -> Result<(), AnswerFault> {
        self.asked = None;
        let fault = match outcome {
            Ok(Reply { status: 200, body }) => {
                self.failures = 0;
                let body = body.whole(ANSWER_BYTES_MAX).unwrap_or_default();
                let said: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
                let seconds = said.and_then(|said| said.get("interval_seconds")?.as_u64());
                let seconds = seconds.filter(|seconds| (1..=INTERVAL_SECONDS_MAX).contains(seconds));
                self.interval_millis = seconds.map_or(INTERVAL_MILLIS, |seconds| seconds * 1000);
                return Ok(());
            }
            Ok(Reply { status, .. }) => AnswerFault::Status(status),
            Err(failure) => AnswerFault::Call(failure),
        };
        metrics.count(Counter::HeartbeatFailed);
        self.failures = self.failures.saturating_add(1);
        self.reported = None;
        self.retry_at = now.plus(backoff(self.failures, random));
        Err(fault)
    }
}
