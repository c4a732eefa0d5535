//! The leader's part: polls the feed and puts on the board what follows on what is there.
//!
//! *What comes in:* replies that claim to be the issuer's. *What goes out:* one feed call at a time, and on the board whole
//! messages under the issuer's signature, in sequence. *What is lost if this is wrong:* freshness in all VMs of the process,
//! so in the end protected routes refuse.
//!
//! Its cursor is where the board ends. What it takes from the issuer it does not apply: that is every VM's own affair, the
//! leader's included.

use tollgate_shared::revocation::{Epoch, Position, SEGMENT_POSITIONS};
use tollgate_shared::time::{Monotonic, Now};
use tollgate_shared::wire::feed::{MEDIA_TYPE, PIECES_MEDIA_TYPE};

mod parts;
mod publish;

use self::parts::Parts;
use super::board::{Board, Head, SnapshotRecord, Want};
use super::breaker::{Breaker, backoff};
use super::call::{AnswerFault, CALL_MILLIS, Call, CallIds, CallKind, Flight, Outcome, Reply};
use super::metrics::{Counter, Metrics};
use super::opening::Opening;
use super::shared_data::SharedData;
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
    /// The snapshot whose pieces are asked for in parts.
    parts: Option<Parts>,
    /// How often in a row a snapshot could not be had in parts.
    parts_failed: u32,
    /// When what is new was last asked for.
    polled_at: Monotonic,
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
    Part,
}

impl Request {
    /// What its answer is.
    fn media_type(self) -> &'static str {
        match self {
            Self::Snapshot | Self::Delta | Self::Segment => MEDIA_TYPE,
            Self::Part => PIECES_MEDIA_TYPE,
        }
    }
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

/// A snapshot, or a part of one, may be large and the link slow: after each failure it may be on its way for twice as long, up to so many
/// milliseconds.
const LARGE_MILLIS_MAX: u64 = 60_000;
const LARGE_DOUBLINGS_MAX: u32 = 4;
/// What follows on the board is never large, and a call into silence delays by as much the one that would be answered.
const SMALL_DOUBLINGS_MAX: u32 = 1;
/// After so many snapshots that could not be had in parts one is asked for whole.
const PARTS_FAILED_MAX: u32 = 2;
/// While a snapshot comes in parts for others, what is new is asked for between two of them when it was not for so long, in
/// milliseconds.
const BETWEEN_PARTS_MILLIS: u64 = 500;
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
        let busy = matches!(self.task, Task::Restart | Task::Fetch | Task::Meet(_)) || self.parts.is_some();
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
        let (request, path, held_seconds) = self.request(head.as_ref(), scene.origin, now);
        let timeout_millis = match request {
            Request::Delta if held_seconds > 0 => CALL_MILLIS + held_seconds * 1000,
            Request::Delta | Request::Segment => CALL_MILLIS << self.failures.min(SMALL_DOUBLINGS_MAX),
            Request::Snapshot | Request::Part => {
                let failures = self.failures.max(self.fetch_failures).min(LARGE_DOUBLINGS_MAX);
                LARGE_MILLIS_MAX.min(CALL_MILLIS << failures)
            }
        };
        let flight = scene.ids.take_off(now, timeout_millis);
        let at = head.as_ref().map(|head| (head.epoch, head.position));
        if request == Request::Delta {
            self.polled_at = now;
        }
        let may_be_held = held_seconds > 0;
        self.asked = Some(Asked { flight, request, at, may_be_held });
        scene.breaker.began();
        Some(Call {
            id: flight.id,
            kind: CallKind::Feed,
            cluster: scene.origin.cluster.clone(),
            authority: scene.origin.authority.clone(),
            method: "GET",
            path,
            headers: vec![("accept", request.media_type().to_owned())],
            body: Vec::new(),
            timeout_millis,
        })
    }

    /// Whether a large snapshot is to come without its pieces.
    fn takes_parts(&self) -> bool {
        self.parts_failed < PARTS_FAILED_MAX
    }

    /// What to ask for, where, and for how many seconds the answer may be held.
    fn request(&self, head: Option<&Head>, origin: &Origin, now: Monotonic) -> (Request, String, u64) {
        // A snapshot may be the answer to a poll, too. Then its head comes alone, because a poll is not given much time.
        let (poll, all) = ("/v1/edge/feed?pieces=apart", "/v1/edge/feed");
        let all = if self.takes_parts() { poll } else { all };
        let others_wait =
            matches!(self.task, Task::Fetch) && now.since(self.polled_at) >= BETWEEN_PARTS_MILLIS;
        let until = match (&self.parts, self.task) {
            (Some(parts), _) if !others_wait => return (Request::Part, parts.path(), 0),
            (Some(parts), _) => parts.until(),
            (None, Task::Meet(SnapshotRecord { position, .. })) => Some(position),
            (None, Task::Follow | Task::Restart | Task::Fetch) => None,
        };
        let Some(head) = head else { return (Request::Snapshot, all.to_owned(), 0) };
        let (epoch, position) = (head.epoch.to_hex(), head.position);
        match self.task {
            Task::Restart | Task::Fetch if self.parts.is_none() => {
                let join = if all == poll { '&' } else { '?' };
                return (Request::Snapshot, format!("{all}{join}epoch={epoch}&least={}", position.0), 0);
            }
            Task::Restart | Task::Fetch | Task::Meet(_) => {
                let until = until.map(|until| format!("&until={}", until.0)).unwrap_or_default();
                let path = format!("{poll}&epoch={epoch}&after={}{until}&wait=0", position.0);
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
        (Request::Delta, format!("{poll}&epoch={epoch}&after={}&wait={hold}", position.0), hold)
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
            Ok(Reply { status: 200, body }) if asked.request == Request::Part => self
                .publish_part(asked, body, scene)
                .inspect_err(|_| scene.metrics.count(Counter::FeedRefused)),
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
            Ok(Reply { status: 404, .. }) if asked.request == Request::Part => {
                self.miss_part();
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
        // Nor by what another replica may have.
        let is_missing = asked.request == Request::Part && published == Published::Nothing;
        if !self.is_unproven && self.parts.is_none() && !is_missing {
            self.failures = 0;
        }
        scene.breaker.succeeded();
        let is_whole = matches!(asked.request, Request::Snapshot | Request::Part) && self.parts.is_none();
        if is_whole && !is_missing && matches!(self.task, Task::Follow) {
            self.fetch_failures = 0;
        }
        let (now, poll_millis) = (scene.now.monotonic, scene.origin.poll_interval_ms);
        let behind = scene.board.head().is_some_and(|(head, _)| head.position < head.known_end);
        let is_done = matches!(self.task, Task::Follow) && self.parts.is_none();
        let wants_more = behind || self.is_unproven || !is_done;
        // What moved nothing is asked for again at once only if the board has moved meanwhile, or was to be asked otherwise.
        self.idle = match published {
            Published::News => 0,
            // Another replica may have the part.
            Published::Nothing if asked.request == Request::Part => 0,
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
        match asked.request {
            // Whatever spoils it may spoil it for good: what follows is polled for.
            Request::Segment => self.missing = asked.at.map(|(_, position)| position),
            Request::Part => self.parts_failed = self.parts_failed.saturating_add(1),
            // Whole it could not be had either.
            Request::Snapshot if !self.takes_parts() => self.parts_failed = 0,
            Request::Delta | Request::Snapshot => {}
        }
        self.parts = None;
        if matches!(self.task, Task::Fetch | Task::Meet(_)) {
            // The others follow on while one waits for its snapshot.
            self.task = Task::Follow;
            self.fetch_failures = self.fetch_failures.saturating_add(1);
            self.fetch_at = now.plus(backoff(self.fetch_failures, random));
            scene.board.want(Want::Snapshot);
        }
    }
}
