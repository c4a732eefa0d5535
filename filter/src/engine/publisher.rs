//! The leader's part: polls the feed and puts on the board what follows on what is there.
//!
//! *What comes in:* replies that claim to be the issuer's. *What goes out:* one feed call at a time, and on the board whole
//! messages under the issuer's signature, in sequence. *What is lost if this is wrong:* freshness in all VMs of the process,
//! so in the end protected routes refuse.
//!
//! Its cursor is where the board ends. What it takes from the issuer it does not apply: that is every VM's own affair, the
//! leader's included.

use tollgate_shared::revocation::{
    ApplyError, FeedChange, FeedMessage, Place, Position, SEGMENT_POSITIONS, Staging,
};
use tollgate_shared::time::{Monotonic, Now, UnixMillis};
use tollgate_shared::token::KeySet;
use tollgate_shared::wire::feed::{FeedDecodeError, MEDIA_TYPE};

use super::board::{Board, Head, SnapshotRecord, Want};
use super::breaker::{Breaker, backoff};
use super::call::{
    AnswerFault, Body, CALL_MILLIS, Call, CallFailure, CallIds, CallKind, Flight, Outcome, Reply,
};
use super::freshness::IssuerClock;
use super::metrics::{Counter, Metrics};
use super::shared_data::{SharedData, Version};
use crate::config::Origin;

/// The publisher of one VM; it does something only while that leads.
#[derive(Debug, Default)]
pub(super) struct Publisher {
    asked: Option<Asked>,
    next_at: Monotonic,
    failures: u32,
    task: Task,
    /// The segment of history that the issuer does not have: what follows is polled for.
    missing: Option<Position>,
    /// Whether the last message was a snapshot, which may have been made long ago: how late it is now is to be heard at once.
    is_unproven: bool,
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, Default)]
enum Task {
    /// Follow the feed.
    #[default]
    Follow,
    /// Begin anew with a snapshot: what the board has cannot be followed on.
    Restart,
    /// Get a snapshot for VMs that have no state, and follow on from where the board is.
    Fetch,
    /// Bring the board to exactly where this snapshot is, which is written down already.
    Meet(SnapshotRecord),
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    flight: Flight,
    request: Request,
    /// Whether the answer may be held until there is news.
    may_be_held: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    Snapshot,
    Delta,
    Segment,
}

/// The start of a body that is read at once, in bytes: most envelopes fit in. So much is read of one that does not.
const ENVELOPE_BYTES: usize = 64 * 1024;
const ENVELOPE_BYTES_MAX: usize = 1024 * 1024;

/// What the issuer said.
struct Heard<'b> {
    message: FeedMessage,
    envelope: &'b [u8],
    body: Body<'b>,
}

/// What everything here needs of the engine.
pub(super) struct Scene<'e, S> {
    pub(super) board: &'e Board<S>,
    pub(super) origin: &'e Origin,
    pub(super) ids: &'e mut CallIds,
    pub(super) breaker: &'e mut Breaker,
    pub(super) metrics: &'e mut Metrics,
    pub(super) now: Now,
    pub(super) random: u64,
}

/// What an answer led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Published {
    /// News, or a proof that there is none.
    Yes {
        /// Whether there was news.
        news: bool,
    },
    /// Another VM published meanwhile: that one leads.
    Overtaken,
}

impl Publisher {
    /// Begins to lead: at once, and with nothing that is left of an earlier term.
    pub(super) fn begin(&mut self, now: Monotonic) {
        *self = Self { next_at: now, ..Self::default() };
    }

    /// Does what other VMs, and this one, want.
    pub(super) fn heed<S: SharedData>(&mut self, board: &Board<S>, now: Monotonic) {
        let busy = matches!(self.task, Task::Restart | Task::Fetch | Task::Meet(_));
        let in_hand = self.asked.is_some_and(|asked| !asked.may_be_held);
        if !busy && !in_hand && board.take_want(Want::Snapshot) {
            self.task = Task::Fetch;
            // A poll that is held would keep them waiting; its answer is not missed, because the next one says the same.
            self.asked = None;
            if self.failures == 0 {
                self.next_at = now;
            }
        }
        if self.asked.is_none() && board.take_want(Want::Poll) {
            self.next_at = self.next_at.min(now);
        }
    }

    /// Whether this call is the one under way.
    pub(super) fn awaits(&self, id: super::call::CallId) -> bool {
        self.asked.is_some_and(|asked| asked.flight.id == id)
    }

    /// Gives up a poll whose end the host never reported, also one of a term that is over.
    pub(super) fn give_up<S: SharedData>(&mut self, scene: &mut Scene<'_, S>) {
        if self.asked.is_some_and(|asked| asked.flight.is_lost(scene.now.monotonic)) {
            self.asked = None;
            self.failed(scene);
        }
    }

    /// The poll that is due, if there is one.
    pub(super) fn due<S: SharedData>(&mut self, scene: &mut Scene<'_, S>) -> Option<Call> {
        let now = scene.now.monotonic;
        if self.asked.is_some() || now < self.next_at || !scene.breaker.permits(now) {
            return None;
        }
        let head = scene.board.head().map(|(head, _)| head);
        let (request, path, held_seconds) = self.request(head.as_ref(), scene.origin);
        let timeout_millis = CALL_MILLIS + held_seconds * 1000;
        let flight = scene.ids.take_off(now, timeout_millis);
        self.asked = Some(Asked { flight, request, may_be_held: held_seconds > 0 });
        scene.breaker.began();
        Some(Call {
            id: flight.id,
            kind: CallKind::Feed,
            cluster: scene.origin.cluster.clone(),
            authority: scene.origin.authority.clone(),
            method: "GET",
            path,
            headers: vec![("accept", MEDIA_TYPE.to_owned())],
            body: Vec::new(),
            timeout_millis,
        })
    }

    /// What to ask for, where, and for how many seconds the answer may be held.
    fn request(&self, head: Option<&Head>, origin: &Origin) -> (Request, String, u64) {
        let feed = "/v1/edge/feed";
        let Some(head) = head else { return (Request::Snapshot, feed.to_owned(), 0) };
        let (epoch, position) = (head.epoch.to_hex(), head.position);
        match self.task {
            Task::Restart | Task::Fetch => {
                return (Request::Snapshot, format!("{feed}?epoch={epoch}&least={}", position.0), 0);
            }
            Task::Meet(SnapshotRecord { position: until, .. }) => {
                let path = format!("{feed}?epoch={epoch}&after={}&until={}&wait=0", position.0, until.0);
                return (Request::Delta, path, 0);
            }
            Task::Follow => {}
        }
        let behind = head.known_end.0.saturating_sub(position.0);
        if behind >= SEGMENT_POSITIONS
            && position.0.is_multiple_of(SEGMENT_POSITIONS)
            && self.missing != Some(position)
        {
            return (Request::Segment, format!("/v1/edge/history/{epoch}/{}", position.0), 0);
        }
        // After a failure the first answer is wanted at once: it proves that the issuer is back.
        let may_wait = self.failures == 0 && behind == 0 && !self.is_unproven;
        let hold = if may_wait { origin.long_poll_seconds } else { 0 };
        (Request::Delta, format!("{feed}?epoch={epoch}&after={}&wait={hold}", position.0), hold)
    }

    /// Takes in what became of the poll under way.
    ///
    /// # Errors
    /// [`AnswerFault`]: nothing was published.
    pub(super) fn answered<S: SharedData>(
        &mut self,
        outcome: Outcome<'_>,
        scene: &mut Scene<'_, S>,
    ) -> Result<Published, AnswerFault> {
        let Some(Asked { flight, request, may_be_held }) = self.asked.take() else {
            return Ok(Published::Yes { news: false });
        };
        let published = match outcome {
            Ok(Reply { status: 200, body }) => self.publish(request, body, scene).inspect_err(|fault| {
                scene.metrics.count(Counter::FeedRefused);
                if fault.calls_for_snapshot() {
                    self.task = Task::Restart;
                }
            }),
            Ok(Reply { status: 404, .. }) if request == Request::Segment => {
                // It is no longer kept; polling for what follows leads to a snapshot.
                self.missing = scene.board.head().map(|(head, _)| head.position);
                Ok(Published::Yes { news: true })
            }
            Ok(Reply { status, .. }) => Err(AnswerFault::Status(status)),
            Err(failure) => Err(AnswerFault::Call(failure)),
        };
        match published {
            Ok(Published::Yes { news }) => {
                // Not by a snapshot: when what should follow on it fails each time, each takes longer to be asked for.
                if !self.is_unproven {
                    self.failures = 0;
                }
                scene.breaker.succeeded();
                let (now, poll_millis) = (scene.now.monotonic, scene.origin.poll_interval_ms);
                // With long polling the next poll follows at once, unless the issuer answered early and had no news: then
                // it, or a cache before it, does not hold polls.
                let held = news || !may_be_held || now.since(flight.sent_at) >= poll_millis;
                let behind = scene.board.head().is_some_and(|(head, _)| head.position < head.known_end);
                let at_once = behind || self.is_unproven || (scene.origin.long_poll_seconds > 0 && held);
                let at_once = at_once || !matches!(self.task, Task::Follow);
                self.next_at = if at_once { now } else { flight.sent_at.plus(poll_millis) };
            }
            Ok(Published::Overtaken) => self.begin(scene.now.monotonic),
            Err(_) => self.failed(scene),
        }
        published
    }

    fn failed<S: SharedData>(&mut self, scene: &mut Scene<'_, S>) {
        scene.metrics.count(Counter::FeedFailed);
        self.failures = self.failures.saturating_add(1);
        scene.breaker.failed(scene.now.monotonic, scene.random);
        self.next_at = scene.now.monotonic.plus(backoff(self.failures, scene.random));
    }

    fn publish<S: SharedData>(
        &mut self,
        request: Request,
        body: Body<'_>,
        scene: &mut Scene<'_, S>,
    ) -> Result<Published, AnswerFault> {
        let read = |size| body.part(0, size).ok_or(AnswerFault::Call(CallFailure::NoAnswer));
        let anchor = &scene.origin.trust_anchor;
        let mut start = read(ENVELOPE_BYTES)?;
        if body.size() > ENVELOPE_BYTES
            && anchor.open_start(&start, body.size()) == Err(FeedDecodeError::Envelope)
        {
            start = read(ENVELOPE_BYTES_MAX)?;
        }
        let (message, envelope) = anchor.open_start(&start, body.size()).map_err(AnswerFault::Decode)?;
        let opened = Heard { message, envelope, body };
        let known = scene.board.head();
        let place = known.as_ref().map(|(head, _)| head.place());
        match (&opened.message.change, request) {
            (FeedChange::Snapshot { .. }, Request::Segment) => {
                Err(AnswerFault::Apply(ApplyError::Incomplete))
            }
            // One that was asked for news and says what it had said is a cache, or worse.
            (FeedChange::Snapshot { .. }, Request::Delta)
                if place.is_some_and(|place| {
                    place.epoch == opened.message.epoch && place.position == opened.message.to
                }) =>
            {
                Err(AnswerFault::Apply(ApplyError::Rollback))
            }
            // Asked for more, the issuer may say that it must begin anew.
            (FeedChange::Snapshot { .. }, Request::Snapshot | Request::Delta) => {
                // Begun and left: whether its keys can be used is known then.
                Staging::begin(place, opened.message.clone()).map_err(AnswerFault::Apply)?;
                Ok(self.publish_snapshot(&opened, known, scene))
            }
            (FeedChange::Delta(_), _) => {
                Place::may_become(place, &opened.message).map_err(AnswerFault::Apply)?;
                check_keys(&opened.message).map_err(AnswerFault::Apply)?;
                Ok(self.publish_delta(&opened, known, scene))
            }
        }
    }

    fn publish_snapshot<S: SharedData>(
        &mut self,
        opened: &Heard<'_>,
        known: Option<(Head, Version)>,
        scene: &mut Scene<'_, S>,
    ) -> Published {
        let Heard { message, envelope, body } = opened;
        let (known, version) = known.unzip();
        let clock = clock_after(known.as_ref(), message, scene.now);
        let place = Place::after(known.as_ref().map(Head::place), message);
        let same_history = known.as_ref().is_some_and(|head| head.epoch == message.epoch);
        let mut head = match known {
            Some(known) => Head { clock, ..known },
            None => Head::new(place, message.head, clock),
        };
        let record = scene.board.write_snapshot(&mut head, message, envelope, *body);
        // Whoever asked for one until now is answered with this.
        scene.board.take_want(Want::Snapshot);
        scene.metrics.count(Counter::FeedSnapshot);
        self.is_unproven = true;
        self.task = match self.task {
            // The VMs that have state go on from where they are, and so must the board.
            Task::Fetch if same_history && message.to > head.position => Task::Meet(record),
            Task::Follow | Task::Restart | Task::Fetch | Task::Meet(_) => {
                (head.epoch, head.position, head.as_of) = (place.epoch, place.position, place.as_of);
                head.snapshot = Some(record);
                head.is_proven = false;
                head.fresh.clear();
                Task::Follow
            }
        };
        head.known_end = if same_history { head.known_end.max(message.head) } else { message.head };
        match scene.board.write_head(&head, version) {
            Ok(()) => Published::Yes { news: true },
            Err(_) => Published::Overtaken,
        }
    }

    fn publish_delta<S: SharedData>(
        &mut self,
        opened: &Heard<'_>,
        known: Option<(Head, Version)>,
        scene: &mut Scene<'_, S>,
    ) -> Published {
        let Heard { message, envelope, .. } = opened;
        // A delta follows on something, so there is a head.
        let Some((known, version)) = known else { return Published::Overtaken };
        let place = Place::after(Some(known.place()), message);
        let news = message.to > known.position;
        let clock = clock_after(Some(&known), message, scene.now);
        let mut head =
            Head { clock, as_of: place.as_of, known_end: known.known_end.max(message.head), ..known };
        if news {
            scene.board.push_delta(&mut head, message, envelope);
        } else {
            head.fresh = envelope.to_vec();
        }
        head.is_proven |= head.position >= head.known_end;
        if let Task::Meet(record) = self.task {
            if head.position == record.position {
                head.snapshot = Some(SnapshotRecord { deltas: head.deltas, ..record });
                self.task = Task::Follow;
            } else if head.position > record.position {
                self.task = Task::Fetch;
            }
        }
        scene.metrics.count(Counter::FeedDelta);
        self.is_unproven = false;
        match scene.board.write_head(&head, Some(version)) {
            Ok(()) => Published::Yes { news },
            Err(_) => Published::Overtaken,
        }
    }
}

fn check_keys(message: &FeedMessage) -> Result<(), ApplyError> {
    message.keys.as_deref().map(|jwks| KeySet::from_jwks(jwks.as_bytes())).transpose()?;
    Ok(())
}

/// What the process knows of the issuer's clock after this message.
fn clock_after(head: Option<&Head>, message: &FeedMessage, now: Now) -> (UnixMillis, Monotonic) {
    let clock = match head {
        Some(head) => {
            let mut clock = IssuerClock::resume(head.clock, head.as_of);
            clock.advance(message.as_of, now.monotonic);
            clock
        }
        None => IssuerClock::first(message.as_of, now),
    };
    clock.reading()
}
