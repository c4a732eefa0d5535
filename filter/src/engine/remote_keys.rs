//! Keeps the key set of a foreign issuer: fetched by the leader before it is too old, taken from the board by every VM.
//!
//! *What comes in:* bodies from a server of somebody else. *What goes out:* the last set that could be used, until the hard
//! limit; then none. *What an attacker gains if this is wrong:* a key that the issuer withdrew, or one that it never had.

use tollgate_shared::time::Monotonic;
use tollgate_shared::token::KeySet;

use super::board::{Board, KeyRecord, Want};
use super::breaker::backoff;
use super::call::{AnswerFault, CALL_MILLIS, Call, CallId, CallIds, CallKind, Flight, Outcome, Reply};
use super::metrics::{Counter, Metrics};
use super::shared_data::{SharedData, Version};
use super::unknown_keys::REFETCH_MILLIS;
use crate::config::RemoteJwks;

/// A longer key set is not read, in bytes.
const JWKS_BYTES_MAX: usize = 256 * 1024;
/// How often a VM looks at the board for a newer set, in milliseconds.
const LOOK_MILLIS: u64 = 100;

/// The keys of one provider.
#[derive(Debug)]
pub(super) struct RemoteKeys {
    place: usize,
    settings: RemoteJwks,
    set: Option<(KeySet, Monotonic)>,
    seen: Option<Version>,
    look_at: Monotonic,
    fetch: Fetch,
    /// When a fetch last began.
    asked_at: Option<Monotonic>,
    failures: u32,
    /// How many keys of the set cannot be used.
    ignored: u64,
}

#[derive(Debug, Clone, Copy)]
enum Fetch {
    Idle { next_at: Monotonic },
    Asked(Flight),
}

impl RemoteKeys {
    pub(super) fn new(place: usize, settings: RemoteJwks) -> Self {
        let next_at = Monotonic::default();
        let fetch = Fetch::Idle { next_at };
        Self {
            place,
            settings,
            set: None,
            seen: None,
            look_at: next_at,
            fetch,
            asked_at: None,
            failures: 0,
            ignored: 0,
        }
    }

    /// The provider's place in the configuration.
    pub(super) fn place(&self) -> usize {
        self.place
    }

    /// The keys, unless they are older than the hard limit.
    pub(super) fn keys(&self, now: Monotonic) -> Option<&KeySet> {
        let (keys, fetched_at) = self.set.as_ref()?;
        (now.since(*fetched_at) < self.settings.refuse_after_seconds * 1000).then_some(keys)
    }

    /// The age of the keys, in milliseconds.
    pub(super) fn age_millis(&self, now: Monotonic) -> Option<u64> {
        self.set.as_ref().map(|(_, fetched_at)| now.since(*fetched_at))
    }

    /// How many keys of the set cannot be used.
    pub(super) fn ignored(&self) -> u64 {
        self.ignored
    }

    /// Takes over what the leader has put on the board.
    pub(super) fn look<S: SharedData>(&mut self, board: &Board<S>, now: Monotonic) {
        if now < self.look_at {
            return;
        }
        self.look_at = now.plus(LOOK_MILLIS);
        let Some((KeyRecord { fetched_at, jwks }, version)) = board.keys(self.place, self.seen) else {
            return;
        };
        self.seen = Some(version);
        // The leader put nothing else there than what it could use; whatever else is there replaces nothing.
        if let Ok((keys, ignored)) = KeySet::from_jwks(&jwks) {
            self.ignored = ignored.len() as u64;
            self.set = Some((keys, fetched_at.min(now)));
        }
    }

    /// Begins to lead: the next fetch is due when this VM's own set will be old, or at once.
    pub(super) fn begin(&mut self, now: Monotonic) {
        let next_at = self.set.as_ref().map_or(now, |(_, fetched_at)| fetched_at.plus(self.lead_millis()));
        (self.fetch, self.failures) = (Fetch::Idle { next_at }, 0);
    }

    /// A fetch begins so long after the last one, well before that is too old, in milliseconds.
    fn lead_millis(&self) -> u64 {
        self.settings.cache_seconds * 800
    }

    /// The fetch that is due, if there is one. Only ever asked of a leader.
    pub(super) fn due<S: SharedData>(
        &mut self,
        board: &Board<S>,
        ids: &mut CallIds,
        metrics: &mut Metrics,
        (now, random): (Monotonic, u64),
    ) -> Option<Call> {
        match self.fetch {
            Fetch::Asked(flight) if flight.is_lost(now) => {
                self.failed(metrics, now, random);
                None
            }
            Fetch::Asked(_) => None,
            Fetch::Idle { next_at } => {
                // Each VM asks for its own strangers; the issuer is asked for all of them together.
                let is_recent = self.asked_at.is_some_and(|asked| now.since(asked) < REFETCH_MILLIS);
                let wanted = self.failures == 0 && !is_recent && board.take_want(Want::Keys(self.place));
                if now < next_at && !wanted {
                    return None;
                }
                let flight = ids.take_off(now, CALL_MILLIS);
                self.fetch = Fetch::Asked(flight);
                self.asked_at = Some(now);
                let RemoteJwks { cluster, authority, path, .. } = &self.settings;
                Some(Call {
                    id: flight.id,
                    kind: CallKind::Keys(self.place),
                    cluster: cluster.clone(),
                    authority: authority.clone(),
                    method: "GET",
                    path: path.clone(),
                    headers: vec![("accept", "application/jwk-set+json, application/json".to_owned())],
                    body: Vec::new(),
                    timeout_millis: CALL_MILLIS,
                })
            }
        }
    }

    /// Whether this call is the one under way.
    pub(super) fn awaits(&self, id: CallId) -> bool {
        matches!(self.fetch, Fetch::Asked(flight) if flight.id == id)
    }

    /// Takes in what became of the fetch under way.
    ///
    /// # Errors
    /// [`AnswerFault`]: the keys are as they were.
    pub(super) fn answered<S: SharedData>(
        &mut self,
        outcome: Outcome<'_>,
        board: &Board<S>,
        metrics: &mut Metrics,
        (now, random): (Monotonic, u64),
    ) -> Result<(), AnswerFault> {
        let read = match outcome {
            Ok(Reply { status: 200, body }) => match body.whole(JWKS_BYTES_MAX) {
                Some(jwks) => KeySet::from_jwks(&jwks).map(|_| jwks).map_err(AnswerFault::KeySet),
                None => Err(AnswerFault::KeySetTooLong),
            },
            Ok(Reply { status, .. }) => Err(AnswerFault::Status(status)),
            Err(failure) => Err(AnswerFault::Call(failure)),
        };
        match read {
            Ok(jwks) => {
                metrics.count(Counter::KeysFetched);
                // As old as when they were asked for: how long they were on their way nobody knows.
                let fetched_at = self.asked_at.unwrap_or(now);
                board.write_keys(self.place, &KeyRecord { fetched_at, jwks: jwks.to_vec() });
                self.look_at = now;
                self.look(board, now);
                self.failures = 0;
                // Full jitter on the last tenth, so that a fleet that began at once does not ask at once.
                let spread = random % (self.settings.cache_seconds * 100 + 1);
                self.fetch = Fetch::Idle { next_at: now.plus(self.lead_millis() + spread) };
                Ok(())
            }
            Err(fault) => {
                self.failed(metrics, now, random);
                Err(fault)
            }
        }
    }

    fn failed(&mut self, metrics: &mut Metrics, now: Monotonic, random: u64) {
        metrics.count(Counter::KeysFailed);
        self.failures = self.failures.saturating_add(1);
        self.fetch = Fetch::Idle { next_at: now.plus(backoff(self.failures, random)) };
    }
}
