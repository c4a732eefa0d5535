//! The leader's part: polls the feed and puts on the board what follows on what is there.
//!
//! *What comes in:* replies that claim to be the issuer's. *What goes out:* one feed call at a time, and on the board whole
//! messages under the issuer's signature, in sequence. *What is lost if this is wrong:* freshness in all VMs of the process,
//! so in the end protected routes refuse.
//!
//! Its cursor is where the board ends. What it takes from the issuer it does not apply: that is every VM's own affair, the
//! leader's included.

use tollgate_shared::revocation::{
    ApplyError, Epoch, FeedChange, FeedMessage, Place, Position, SEGMENT_POSITIONS, Staging,
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
use super::opening::Opening;
use super::shared_data::{SharedData, Version};
use super::unknown_keys::REFETCH_MILLIS;
use crate::config::Origin;

/// The publisher of one VM; it does something only while that leads.
#[derive(Debug, Default)]
pub(super) struct Publisher {
    asked: Option<Asked>,
    next_at: Monotonic,
    failures: u32,
    task: Task,
    /// Not before this is a snapshot fetched for others again, and how often that failed in a row.
    fetch_at: Monotonic,
    fetch_failures: u32,
    /// When somebody's wish for a poll was last heeded.
    hurried_at: Option<Monotonic>,
    /// How often in a row an answer that was to bring more did not.
    idle: u32,
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
    /// Where the board was then.
    at: Option<(Epoch, Position)>,
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
    pub(super) opening: &'e mut Opening,
    pub(super) ids: &'e mut CallIds,
    pub(super) breaker: &'e mut Breaker,
    pub(super) metrics: &'e mut Metrics,
    pub(super) now: Now,
    pub(super) random: u64,
}

/// What an answer led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Published {
    /// News.
    News,
    /// A proof that there is none.
    Proof,
    /// Nothing: there is no such segment, or the board has moved on since it was asked for.
    Nothing,
    /// Nothing: another VM published meanwhile, and that one leads.
    Overtaken,
}

/// A snapshot may be large and the link slow: after each failure it may be on its way for twice as long, up to so many
/// milliseconds.
const LARGE_MILLIS_MAX: u64 = 60_000;
const LARGE_DOUBLINGS_MAX: u32 = 4;
/// What follows on the board is never large, and a call into silence delays by as much the one that would be answered.
const SMALL_DOUBLINGS_MAX: u32 = 1;
/// The first and the longest pause after an answer that was to bring more and did not, in milliseconds.
const IDLE_FIRST_MILLIS: u64 = 50;
const IDLE_DOUBLINGS_MAX: u32 = 6;

impl Publisher {
    /// Begins to lead: at once, and with nothing that is left of an earlier term.
    pub(super) fn begin(&mut self, now: Monotonic) {
        *self = Self { next_at: now, ..Self::default() };
    }

    /// Does what other VMs, and this one, want.
    pub(super) fn heed<S: SharedData>(&mut self, board: &Board<S>, now: Monotonic) {
        let busy = matches!(self.task, Task::Restart | Task::Fetch | Task::Meet(_));
        let in_hand = self.asked.is_some_and(|asked| !asked.may_be_held);
        // Between two tries there is a poll for those that follow.
        let may_fetch = !busy && !in_hand && self.failures == 0 && now >= self.fetch_at;
        if may_fetch && board.take_want(Want::Snapshot) {
            self.task = Task::Fetch;
            // A poll that is held would keep them waiting; its answer is not missed, because the next one says the same.
            self.asked = None;
            self.next_at = now;
        }
        // Each VM asks for its own strangers; the issuer is asked for all of them together.
        let is_hurried = self.hurried_at.is_some_and(|last| now.since(last) < REFETCH_MILLIS);
        if self.asked.is_none() && self.failures == 0 && !is_hurried && board.take_want(Want::Poll) {
            self.hurried_at = Some(now);
            self.next_at = self.next_at.min(now);
        }
    }

    /// Whether this call is the one under way.
    pub(super) fn awaits(&self, id: super::call::CallId) -> bool {
        self.asked.is_some_and(|asked| asked.flight.id == id)
    }

    /// Gives up a poll whose end the host never reported, also one of a term that is over.
    pub(super) fn give_up<S: SharedData>(&mut self, scene: &mut Scene<'_, S>) {
        if let Some(asked) = self.asked.filter(|asked| asked.flight.is_lost(scene.now.monotonic)) {
            self.asked = None;
            self.failed(asked, scene);
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
        let timeout_millis = match request {
            Request::Delta if held_seconds > 0 => CALL_MILLIS + held_seconds * 1000,
            Request::Delta | Request::Segment => CALL_MILLIS << self.failures.min(SMALL_DOUBLINGS_MAX),
            Request::Snapshot => {
                let failures = self.failures.max(self.fetch_failures).min(LARGE_DOUBLINGS_MAX);
                LARGE_MILLIS_MAX.min(CALL_MILLIS << failures)
            }
        };
        let flight = scene.ids.take_off(now, timeout_millis);
        let at = head.as_ref().map(|head| (head.epoch, head.position));
        self.asked = Some(Asked { flight, request, at, may_be_held: held_seconds > 0 });
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
        let may_wait = self.failures == 0 && behind == 0 && head.is_proven && !self.is_unproven;
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
        let Some(asked) = self.asked.take() else { return Ok(Published::Nothing) };
        let published = match outcome {
            Ok(Reply { status: 200, body }) => self.publish(asked, body, scene).inspect_err(|fault| {
                scene.metrics.count(Counter::FeedRefused);
                if fault.calls_for_snapshot() && asked.request != Request::Segment {
                    self.task = Task::Restart;
                }
            }),
            Ok(Reply { status: 404, .. }) if asked.request == Request::Segment => {
                // It is no longer kept; polling for what follows leads to a snapshot.
                self.missing = asked.at.map(|(_, position)| position);
                Ok(Published::Nothing)
            }
            Ok(Reply { status, .. }) => Err(AnswerFault::Status(status)),
            Err(failure) => Err(AnswerFault::Call(failure)),
        };
        match published {
            Ok(Published::Overtaken) => {
                scene.breaker.succeeded();
                self.begin(scene.now.monotonic);
            }
            Ok(published) => self.succeeded(asked, published, scene),
            Err(_) => self.failed(asked, scene),
        }
        published
    }

    /// An answer came that says something, and is not published, because this VM does not lead any more.
    pub(super) fn forget<S: SharedData>(&mut self, outcome: Outcome<'_>, scene: &mut Scene<'_, S>) {
        self.asked = None;
        match outcome {
            Ok(Reply { status: ..500, .. }) => scene.breaker.succeeded(),
            Ok(_) | Err(_) => scene.breaker.failed(scene.now.monotonic, scene.random),
        }
    }

    fn succeeded<S: SharedData>(&mut self, asked: Asked, published: Published, scene: &mut Scene<'_, S>) {
        // Not by a snapshot: when what should follow on it fails each time, each takes longer to be asked for.
        if !self.is_unproven {
            self.failures = 0;
        }
        scene.breaker.succeeded();
        if asked.request == Request::Snapshot && matches!(self.task, Task::Follow) {
            self.fetch_failures = 0;
        }
        let (now, poll_millis) = (scene.now.monotonic, scene.origin.poll_interval_ms);
        let behind = scene.board.head().is_some_and(|(head, _)| head.position < head.known_end);
        let wants_more = behind || self.is_unproven || !matches!(self.task, Task::Follow);
        // What moved nothing is asked for again at once only if the board has moved meanwhile, or was to be asked otherwise.
        self.idle = match published {
            Published::News => 0,
            Published::Nothing => self.idle.min(1) + 1,
            Published::Proof | Published::Overtaken if wants_more => self.idle.saturating_add(1),
            Published::Proof | Published::Overtaken => 0,
        };
        self.next_at = if wants_more || published == Published::Nothing {
            match self.idle {
                0 | 1 => now,
                idle => now.plus(IDLE_FIRST_MILLIS << (idle - 2).min(IDLE_DOUBLINGS_MAX)),
            }
        } else {
            // With long polling the next poll follows at once, unless the issuer answered early and had no news: then it, or a
            // cache before it, does not hold polls.
            let was_held = now.since(asked.flight.sent_at) >= poll_millis;
            let held = published == Published::News || !asked.may_be_held || was_held;
            let at_once = scene.origin.long_poll_seconds > 0 && held;
            if at_once { now } else { asked.flight.sent_at.plus(poll_millis) }
        };
    }

    fn failed<S: SharedData>(&mut self, asked: Asked, scene: &mut Scene<'_, S>) {
        scene.metrics.count(Counter::FeedFailed);
        let (now, random) = (scene.now.monotonic, scene.random);
        self.failures = self.failures.saturating_add(1);
        scene.breaker.failed(now, random);
        self.next_at = now.plus(backoff(self.failures, random));
        if asked.request == Request::Segment {
            // Whatever spoils it may spoil it for good: what follows is polled for.
            self.missing = asked.at.map(|(_, position)| position);
        }
        if matches!(self.task, Task::Fetch | Task::Meet(_)) {
            // The others follow on while one waits for its snapshot.
            self.task = Task::Follow;
            self.fetch_failures = self.fetch_failures.saturating_add(1);
            self.fetch_at = now.plus(backoff(self.fetch_failures, random));
            scene.board.want(Want::Snapshot);
        }
    }

    fn publish<S: SharedData>(
        &mut self,
        asked: Asked,
        body: Body<'_>,
        scene: &mut Scene<'_, S>,
    ) -> Result<Published, AnswerFault> {
        let read = |size| body.part(0, size).ok_or(AnswerFault::Call(CallFailure::NoAnswer));
        let mut start = read(ENVELOPE_BYTES)?;
        if body.size() > ENVELOPE_BYTES
            && scene.opening.open_start(&start, body.size()) == Err(FeedDecodeError::Envelope)
        {
            start = read(ENVELOPE_BYTES_MAX)?;
        }
        let (message, envelope) =
            scene.opening.open_start(&start, body.size()).map_err(AnswerFault::Decode)?;
        let opened = Heard { message, envelope, body };
        let known = scene.board.head();
        let place = known.as_ref().map(|(head, _)| head.place());
        if asked.at != place.map(|place| (place.epoch, place.position)) {
            // Another VM that took itself for the leader was quicker. What was asked for is of no use now, and no fault.
            return Ok(Published::Nothing);
        }
        match (&opened.message.change, asked.request) {
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
                let published = self.publish_delta(asked.request, &opened, known, scene);
                // What this VM published it takes from the board next.
                scene.opening.remember(opened.envelope, opened.message);
                Ok(published)
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
                if (head.epoch, head.position) != (place.epoch, place.position) {
                    head.is_proven = false;
                }
                (head.epoch, head.position, head.as_of) = (place.epoch, place.position, place.as_of);
                head.snapshot = Some(record);
                head.fresh.clear();
                Task::Follow
            }
        };
        head.known_end = if same_history { head.known_end.max(message.head) } else { message.head };
        match scene.board.write_head(&head, version) {
            Ok(()) => Published::News,
            Err(_) => Published::Overtaken,
        }
    }

    fn publish_delta<S: SharedData>(
        &mut self,
        request: Request,
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
        // A segment was written when there was no more; a poll tells what there is, also if that is less than there was.
        let known_end = match request {
            Request::Segment => known.known_end.max(message.head),
            Request::Delta | Request::Snapshot => message.head,
        };
        let mut head = Head { clock, as_of: place.as_of, known_end, ..known };
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
                self.fetch_failures = 0;
                // Whoever asked for one until now is answered with this.
                scene.board.take_want(Want::Snapshot);
            } else if head.position > record.position {
                self.task = Task::Fetch;
            }
        }
        scene.metrics.count(Counter::FeedDelta);
        self.is_unproven = false;
        match scene.board.write_head(&head, Some(version)) {
            Ok(()) if news => Published::News,
            Ok(()) => Published::Proof,
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
