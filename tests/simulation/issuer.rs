//! One replica of the issuer: the real history, clock, kept answers and kept snapshots of the feed, looking at the database now
//! and then. It dies with all of its memory.

use tollgate_issuer::feed::{Answers, FeedClock, History, Snapshot, Snapshots, Told, Whole};
use tollgate_issuer::store::FeedEntry;
use tollgate_shared::revocation::{Epoch, FeedChange, FeedMessage, Position};
use tollgate_shared::time::{Monotonic, Now, UnixMillis};
use tollgate_shared::token::SigningKey;
use tollgate_shared::wire::feed::{seal, seal_snapshot};

use crate::database::Database;
use crate::random::Random;
use crate::world::Case;

pub(crate) const EPOCH: Epoch = Epoch([1; 16]);
/// Of so long ago a look may be for who asks now, and how often the log is looked at, in milliseconds; …
const FRESH_MILLIS: u64 = 50;
/// … and when looks fail, of so long ago.
const BLIND_MILLIS_MAX: u64 = 2_000;
/// The longest look, in milliseconds.
const LOOK_MILLIS_MAX: u64 = 30;

/// An answer of the issuer, and how to hold an edge against it.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    /// Of a message of the feed: how late it says that it is, and by how much any replica's clock had been ahead of the true time
    /// until the look that it was made of.
    pub(crate) dated: Option<(UnixMillis, i64)>,
    pub(crate) is_snapshot: bool,
}

impl Answer {
    pub(crate) fn plain(status: u16, body: &[u8]) -> Self {
        Self { status, body: body.to_vec(), dated: None, is_snapshot: false }
    }
}

/// A poll that is at this replica.
#[derive(Debug)]
pub(crate) struct Poll {
    pub(crate) flight: u64,
    after: Option<Position>,
    until: Option<Position>,
    least: Position,
    /// Until when it is held when there is no news; then it wants to know how late it is.
    held_until: u64,
    asked_at: Option<(u64, Position)>,
    segment: Option<Position>,
    /// Whether a large snapshot may come without its pieces, and which part of one is asked for.
    apart: bool,
    part: Option<(String, usize)>,
}

impl Poll {
    /// What is asked by this path; `None` when it is no path of the feed.
    pub(crate) fn read(flight: u64, target: &str, now: u64) -> Option<Self> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let number = |name: &str| {
            let pair = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
            pair.and_then(|text| text.parse::<u64>().ok())
        };
        let knows_epoch = target.contains(&EPOCH.to_hex());
        let after = number("after").filter(|_| knows_epoch).map(Position);
        let poll = Self {
            flight,
            after,
            until: number("until").map(Position),
            least: Position(number("least").unwrap_or_default()).max(after.unwrap_or_default()),
            held_until: now + number("wait").unwrap_or_default() * 1000,
            asked_at: None,
            segment: None,
            apart: query.split('&').any(|pair| pair == "pieces=apart"),
            part: None,
        };
        if let Some(part) = path.strip_prefix("/v1/edge/snapshot/") {
            let (id, first) = part.split_once('/')?;
            return Some(Self { part: Some((id.to_owned(), first.parse().ok()?)), held_until: 0, ..poll });
        }
        if path == "/v1/edge/feed" {
            return Some(poll);
        }
        let from = path.strip_prefix("/v1/edge/history/")?.split_once('/')?.1.parse().ok()?;
        Some(Self { segment: Some(Position(from)), held_until: 0, ..poll })
    }
}

/// A look at the log that is under way.
#[derive(Debug)]
struct Look {
    began: u64,
    as_of: UnixMillis,
    from: Position,
    reads_at: u64,
    found: Option<Vec<FeedEntry>>,
    ends_at: u64,
}

/// What a replica has while it runs.
pub(crate) struct Replica {
    pub(crate) clock: FeedClock,
    history: History,
    answers: Answers,
    snapshots: Snapshots,
    look: Option<Look>,
    last_began: Option<u64>,
    last_failed: Option<u64>,
    /// A snapshot that is larger than this is given in parts of so many bytes.
    part_bytes: usize,
    /// The highest position it knows of.
    position: Position,
    pub(crate) polls: Vec<Poll>,
    /// Of each look its date, and how far ahead any clock had been.
    dated: Vec<(UnixMillis, i64)>,
    pub(crate) told: Tally,
}

/// How often what was told.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Tally {
    pub(crate) deltas: u64,
    pub(crate) snapshots: u64,
    pub(crate) snapshots_again: u64,
    pub(crate) segments: u64,
    pub(crate) parts: u64,
    /// Asked for at a replica that has no such snapshot.
    pub(crate) parts_missed: u64,
}

/// The world around a replica at one instant.
pub(crate) struct Moment<'w> {
    pub(crate) database: &'w Database,
    pub(crate) key: &'w SigningKey,
    pub(crate) now: Now,
    /// By how much any replica's clock has been ahead of the true time, in milliseconds.
    pub(crate) ahead: i64,
}

impl Replica {
    pub(crate) fn start(database: &mut Database, now: Now, case: &Case) -> Self {
        database.floor = database.floor.max(now.wall);
        Self {
            clock: FeedClock::new(database.floor, now),
            history: History::new(EPOCH, case.entries_max),
            part_bytes: case.part_bytes,
            answers: Answers::default(),
            snapshots: Snapshots::default(),
            look: None,
            last_began: None,
            last_failed: None,
            position: database.position(),
            polls: Vec::new(),
            dated: Vec::new(),
            told: Tally::default(),
        }
    }

    /// This process committed up to here, or heard that another did.
    pub(crate) fn reached(&mut self, position: Position) {
        self.position = self.position.max(position);
    }

    /// Does what is due; gives the answers that are ready, by flight.
    pub(crate) fn step(&mut self, at: &Moment<'_>, random: &mut Random) -> Vec<(u64, Answer)> {
        let now = at.now.monotonic.0;
        self.go_on_looking(at);
        let is_due = self.last_began.is_none_or(|began| now >= began + FRESH_MILLIS);
        if self.look.is_none() && is_due {
            self.begin_to_look(at, random);
        }
        let mut answers = Vec::new();
        for mut poll in std::mem::take(&mut self.polls) {
            match self.answer(&mut poll, at) {
                Some(answer) => answers.push((poll.flight, answer)),
                None => self.polls.push(poll),
            }
        }
        answers
    }

    fn begin_to_look(&mut self, at: &Moment<'_>, random: &mut Random) {
        let now = at.now.monotonic.0;
        // Before the reading begins: everything that was committed by this instant is in it.
        let as_of = self.clock.read(at.now);
        let reads_at = now + random.below(LOOK_MILLIS_MAX / 2);
        let ends_at = reads_at + random.below(LOOK_MILLIS_MAX / 2);
        self.dated.push((as_of, at.ahead));
        self.look =
            Some(Look { began: now, as_of, from: self.history.head(), reads_at, found: None, ends_at });
        self.go_on_looking(at);
    }

    fn go_on_looking(&mut self, at: &Moment<'_>) {
        let now = at.now.monotonic.0;
        let Some(mut look) = self.look.take() else { return };
        if look.found.is_none() && now >= look.reads_at {
            if !at.database.is_up {
                self.last_failed = Some(now);
                return;
            }
            look.found = Some(at.database.read(look.from));
        }
        match look.found {
            Some(found) if now >= look.ends_at => {
                assert!(self.history.is_continued_by(found.first()), "the log was set back");
                self.history.append(found, look.as_of.min(at.now.wall).seconds());
                self.history.looked(look.as_of);
                self.last_began = Some(look.began);
                self.reached(self.history.head());
            }
            found => self.look = Some(Look { found, ..look }),
        }
    }

    /// The answer to this poll, if it is to be answered now.
    fn answer(&mut self, poll: &mut Poll, at: &Moment<'_>) -> Option<Answer> {
        let now = at.now.monotonic.0;
        let may_wait = poll.until.is_none_or(|until| Some(until) > poll.after);
        if poll.asked_at.is_none() && may_wait && poll.after == Some(self.position) && now < poll.held_until {
            return None;
        }
        let (asked_at, wanted) = *poll.asked_at.get_or_insert((now, self.position));
        let has = self.last_began.is_some_and(|began| began + FRESH_MILLIS >= asked_at);
        if !has || self.history.head() < wanted {
            if self.last_failed.is_none_or(|failed| failed < asked_at) {
                return None;
            }
            // Looks fail: what is known is told on for a while.
            if self.last_began.is_none_or(|began| now - began > BLIND_MILLIS_MAX) {
                return Some(Answer::plain(503, b""));
            }
        }
        Some(self.tell(poll, at))
    }

    fn tell(&mut self, poll: &Poll, at: &Moment<'_>) -> Answer {
        let looked_at = self.history.looked_at();
        let Self { history, answers, .. } = self;
        let sealed = |message: Option<FeedMessage>| {
            let message = message.ok_or(())?;
            let bytes = seal(&message, at.key).ok_or(())?;
            Ok::<_, ()>((message, bytes.into()))
        };
        if let Some((id, first)) = &poll.part {
            return self.tell_part(id, *first);
        }
        if let Some(from) = poll.segment {
            let Ok(body) = answers
                .one(Told::Segment(history.epoch(), from), looked_at, || sealed(history.segment(from)))
            else {
                return Answer::plain(404, b"");
            };
            self.told.segments += 1;
            return self.dated(&body, at);
        }
        if let Some((after, to)) =
            poll.after.and_then(|after| Some((after, history.end_of_delta(after, poll.until)?)))
        {
            let make = || sealed(history.delta(after, Some(to)));
            let Ok(body) = answers.one(Told::Delta(history.epoch(), after, to), looked_at, make) else {
                return Answer::plain(500, b"");
            };
            self.told.deltas += 1;
            return self.dated(&body, at);
        }
        self.tell_everything(poll, at)
    }

    fn tell_everything(&mut self, poll: &Poll, at: &Moment<'_>) -> Answer {
        let least = poll.least.min(self.history.head());
        self.told.snapshots += 1;
        let made = match self.snapshots.kept(least, &self.history, at.now.monotonic) {
            Some(kept) => {
                self.told.snapshots_again += 1;
                kept
            }
            None => match self.make_snapshot(at) {
                Some(made) => made,
                None => return Answer::plain(500, b""),
            },
        };
        let whole_bytes = if poll.apart { self.part_bytes } else { usize::MAX };
        let told = made.body.slice(made.layout.first(whole_bytes));
        self.dated(&told, at)
    }

    fn make_snapshot(&self, at: &Moment<'_>) -> Option<Snapshot> {
        let Whole { place, revoked, keys, plans } = self.history.whole()?;
        let snapshot = tollgate_shared::wire::feed::Snapshot {
            place,
            head: place.position,
            revoked: &revoked,
            keys: &keys,
            plans: &plans,
        };
        let sealed = seal_snapshot(snapshot, at.key)?;
        let read_at = Monotonic(self.last_began.unwrap_or_default());
        let made = Snapshot::new(sealed, place.position, read_at);
        self.snapshots.keep(made.clone(), self.snapshots.log());
        Some(made)
    }

    fn tell_part(&mut self, id: &str, first: usize) -> Answer {
        let part = self.snapshots.named(id).and_then(|kept| {
            let part = kept.layout.part(first, self.part_bytes)?;
            Some(kept.body.slice(part))
        });
        match part {
            Some(part) => {
                self.told.parts += 1;
                Answer { status: 200, body: part.to_vec(), dated: None, is_snapshot: false }
            }
            None => {
                self.told.parts_missed += 1;
                Answer::plain(404, b"")
            }
        }
    }

    fn dated(&self, body: &[u8], at: &Moment<'_>) -> Answer {
        let anchor = tollgate_shared::wire::feed::TrustAnchor::new(&at.key.public_bytes()).unwrap();
        let FeedMessage { as_of, change, .. } = anchor.open_start(body, body.len()).unwrap().0;
        let is_snapshot = matches!(change, FeedChange::Snapshot { .. });
        let place = self.dated.partition_point(|(date, _)| *date < as_of);
        let ahead = self.dated.get(place).map_or(at.ahead, |(_, ahead)| *ahead);
        Answer { status: 200, body: body.to_vec(), dated: Some((as_of, ahead)), is_snapshot }
    }
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        let Self { deltas, snapshots, snapshots_again, segments, parts, parts_missed } = *other;
        self.deltas += deltas;
        self.snapshots += snapshots;
        self.snapshots_again += snapshots_again;
        self.segments += segments;
        self.parts += parts;
        self.parts_missed += parts_missed;
    }
}
