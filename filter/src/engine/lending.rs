//! Sends the quota batches of this VM, one at a time, and takes in the leases that answer them.

use tollgate_shared::quota::ledger::Ledger;
use tollgate_shared::time::Monotonic;
use tollgate_shared::wire::quota::{BATCH_BYTES_MAX, QuotaAnswer};

use super::breaker::{Breaker, BreakerState, backoff};
use super::call::{
    AnswerFault, Body, CALL_MILLIS, Call, CallFailure, CallId, CallIds, CallKind, Flight, Outcome, Reply,
};
use super::metrics::{Counter, Metrics};
use crate::config::Origin;

/// What this VM may spend, and the batch under way.
#[derive(Debug)]
pub(super) struct Lending {
    ledger: Ledger,
    asked: Option<Flight>,
    failures: u32,
}

impl Lending {
    pub(super) fn new(origin: &Origin, epoch: String) -> Self {
        Self { ledger: Ledger::new(origin.edge_id.clone(), epoch), asked: None, failures: 0 }
    }

    pub(super) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    pub(super) fn ledger_mut(&mut self) -> &mut Ledger {
        &mut self.ledger
    }

    /// Whether this call is the one under way.
    pub(super) fn awaits(&self, id: CallId) -> bool {
        self.asked.is_some_and(|flight| flight.id == id)
    }

    /// The batch that is due, if there is one.
    pub(super) fn due(
        &mut self,
        origin: &Origin,
        breaker: &mut Breaker,
        ids: &mut CallIds,
        metrics: &mut Metrics,
        (now, random): (Monotonic, u64),
    ) -> Option<Call> {
        if self.asked.is_some_and(|flight| flight.is_lost(now)) {
            // Counted there; there is nobody to tell.
            let _ = self.answered(Err(CallFailure::NoAnswer), breaker, metrics, (now, random));
        }
        if self.asked.is_some() {
            return None;
        }
        if !breaker.permits(now) {
            // Nobody waits for what is not asked for.
            if breaker.state(now) == BreakerState::Open {
                self.ledger.failed(breaker.retry_at());
            }
            return None;
        }
        let batch = self.ledger.due(now)?;
        // A batch is made of strings and numbers; it always serialises.
        let body = serde_json::to_vec(batch).unwrap_or_default();
        let flight = ids.take_off(now, CALL_MILLIS);
        self.asked = Some(flight);
        breaker.began();
        Some(Call {
            id: flight.id,
            kind: CallKind::Quota,
            cluster: origin.cluster.clone(),
            authority: origin.authority.clone(),
            method: "POST",
            path: "/v1/edge/quota".to_owned(),
            headers: vec![("content-type", "application/json".to_owned())],
            body,
            timeout_millis: CALL_MILLIS,
        })
    }

    /// Takes in what became of the batch under way.
    ///
    /// # Errors
    /// [`AnswerFault`]: it is sent again, or dropped if the issuer will never take it.
    pub(super) fn answered(
        &mut self,
        outcome: Outcome<'_>,
        breaker: &mut Breaker,
        metrics: &mut Metrics,
        (now, random): (Monotonic, u64),
    ) -> Result<(), AnswerFault> {
        self.asked = None;
        let fault = match outcome {
            Ok(Reply { status: 200, body }) => match read_answer(body) {
                Some(answer) => {
                    metrics.count(Counter::QuotaBatch);
                    self.failures = 0;
                    breaker.succeeded();
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
        if matches!(fault, AnswerFault::Status(400..=499)) {
            // It answers; what it says is about the batch.
            breaker.succeeded();
        } else {
            breaker.failed(now, random);
        }
        metrics.count(Counter::QuotaBatchFailed);
        self.failures = self.failures.saturating_add(1);
        self.ledger.failed(now.plus(backoff(self.failures, random)));
        Err(fault)
    }
}

fn read_answer(body: Body<'_>) -> Option<QuotaAnswer> {
    serde_json::from_slice(&body.whole(BATCH_BYTES_MAX)?).ok()
}
