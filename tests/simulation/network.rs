//! The network between edges and issuer: what may become of a call, and how often each fault was made to happen.

use std::collections::{BTreeMap, VecDeque};

use tollgate_filter::engine::{Call, CallKind};

use crate::issuer::Answer;
use crate::random::Random;

/// Everything that goes wrong in a simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    RequestDropped,
    ReplyDropped,
    Delayed,
    Duplicated,
    Reordered,
    Replayed,
    Truncated,
    Flipped,
    ServerError,
    Html,
    NeverReported,
    Partitioned,
    ReplicaCrashed,
    DatabaseAway,
    ProcessCrashed,
    VmReplaced,
    Suspended,
    EdgeDateJumped,
    IssuerDateJumped,
}

impl Fault {
    pub(crate) const ALL: [Self; 19] = [
        Self::RequestDropped,
        Self::ReplyDropped,
        Self::Delayed,
        Self::Duplicated,
        Self::Reordered,
        Self::Replayed,
        Self::Truncated,
        Self::Flipped,
        Self::ServerError,
        Self::Html,
        Self::NeverReported,
        Self::Partitioned,
        Self::ReplicaCrashed,
        Self::DatabaseAway,
        Self::ProcessCrashed,
        Self::VmReplaced,
        Self::Suspended,
        Self::EdgeDateJumped,
        Self::IssuerDateJumped,
    ];
}

/// How often each fault happens, in a million: of calls, or of steps.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rates(BTreeMap<Fault, u32>);

impl Rates {
    pub(crate) fn only(faults: &[(Fault, u32)]) -> Self {
        Self(faults.iter().copied().collect())
    }

    /// Some kinds of faults, each more or less often.
    pub(crate) fn drawn(random: &mut Random) -> Self {
        let mut rates = BTreeMap::new();
        for fault in Fault::ALL {
            if random.chance(550_000) {
                let of_calls = fault < Fault::Partitioned;
                // From one in a hundred to a quarter of calls; of steps, far fewer.
                let rate = 10_000 << random.below(5);
                rates.insert(fault, if of_calls { rate } else { rate / 40 });
            }
        }
        Self(rates)
    }

    pub(crate) fn of(&self, fault: Fault) -> u32 {
        self.0.get(&fault).copied().unwrap_or_default()
    }
}

/// Where a call is.
#[derive(Debug)]
enum Leg {
    ToIssuer { at: u64 },
    AtIssuer,
    Home { at: u64, outcome: Option<Answer> },
    Nowhere,
}

/// A call under way.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) number: u64,
    pub(crate) process: usize,
    /// The VM that made it, by its number of all.
    pub(crate) vm: u64,
    pub(crate) call: Call,
    deadline: u64,
    leg: Leg,
    is_never_reported: bool,
}

impl Flight {
    pub(crate) fn is_poll_at_issuer(&self) -> bool {
        self.call.kind == CallKind::Feed && matches!(self.leg, Leg::AtIssuer)
    }
}

/// How a process is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Nothing is ever answered.
    Silent,
    /// Connections are refused.
    Refused,
    /// Somebody answers with what was recorded.
    Replaying,
}

/// Of the bodies that were ever sent, so many are kept to be sent again.
const RECORDED_MAX: usize = 200;
/// The longest delay of one leg, in milliseconds.
const DELAY_MILLIS_MAX: u64 = 30_000;

pub(crate) struct Network {
    pub(crate) rates: Rates,
    pub(crate) counts: BTreeMap<Fault, u64>,
    flights: Vec<Flight>,
    /// How many calls there were.
    pub(crate) flown: u64,
    pub(crate) recorded: VecDeque<Answer>,
    /// Whether what is sent is recorded.
    pub(crate) is_recording: bool,
    /// An answer that a later call of the same process gets instead of its own, or as well.
    kept_back: BTreeMap<usize, Answer>,
    doubled: BTreeMap<usize, Answer>,
    pub(crate) cuts: BTreeMap<usize, (Cut, u64)>,
}

impl Network {
    pub(crate) fn new() -> Self {
        Self {
            rates: Rates::default(),
            counts: BTreeMap::new(),
            flights: Vec::new(),
            flown: 0,
            recorded: VecDeque::new(),
            is_recording: true,
            kept_back: BTreeMap::new(),
            doubled: BTreeMap::new(),
            cuts: BTreeMap::new(),
        }
    }

    pub(crate) fn happened(&mut self, fault: Fault) {
        *self.counts.entry(fault).or_default() += 1;
    }

    /// Whether this happens now; it is counted.
    pub(crate) fn happens(&mut self, fault: Fault, random: &mut Random) -> bool {
        let happens = random.chance(self.rates.of(fault));
        if happens {
            self.happened(fault);
        }
        happens
    }

    /// From now on nothing goes wrong that has not gone wrong already.
    pub(crate) fn calm_down(&mut self) {
        self.rates = Rates::default();
        self.kept_back.clear();
        self.doubled.clear();
        self.cuts.clear();
    }

    pub(crate) fn send(&mut self, process: usize, vm: u64, call: Call, now: u64, random: &mut Random) {
        self.flown += 1;
        let deadline = now + call.timeout_millis;
        let is_feed = call.kind == CallKind::Feed;
        let is_never_reported = self.happens(Fault::NeverReported, random);
        let leg = self.first_leg(process, is_feed, now, random);
        let number = self.flown;
        self.flights.push(Flight { number, process, vm, call, deadline, leg, is_never_reported });
    }

    fn first_leg(&mut self, process: usize, is_feed: bool, now: u64, random: &mut Random) -> Leg {
        let soon = now + random.between(1, 15);
        let again = |network: &Self, random: &mut Random| {
            let length = network.recorded.len();
            (length > 0 && is_feed).then(|| network.recorded[random.place(length)].clone())
        };
        match self.cuts.get(&process) {
            Some((cut, until)) if now < *until => {
                return match cut {
                    Cut::Silent => Leg::Nowhere,
                    Cut::Refused => Leg::Home { at: soon, outcome: None },
                    Cut::Replaying => Leg::Home { at: soon, outcome: again(self, random) },
                };
            }
            Some(_) | None => {}
        }
        if is_feed && let Some(doubled) = self.doubled.remove(&process) {
            self.happened(Fault::Duplicated);
            return Leg::Home { at: soon, outcome: Some(doubled) };
        }
        if is_feed && !self.recorded.is_empty() && self.happens(Fault::Replayed, random) {
            return Leg::Home { at: soon, outcome: again(self, random) };
        }
        if self.happens(Fault::RequestDropped, random) {
            return if random.chance(500_000) { Leg::Nowhere } else { Leg::Home { at: soon, outcome: None } };
        }
        Leg::ToIssuer { at: self.arrival(now, random) }
    }

    fn arrival(&mut self, now: u64, random: &mut Random) -> u64 {
        if self.happens(Fault::Delayed, random) {
            now + random.below(DELAY_MILLIS_MAX)
        } else {
            now + random.between(1, 15)
        }
    }

    /// The calls that have come to the issuer.
    pub(crate) fn arrived(&mut self, now: u64) -> Vec<(u64, CallKind, String)> {
        let mut arrived = Vec::new();
        for flight in &mut self.flights {
            if matches!(flight.leg, Leg::ToIssuer { at } if at <= now) {
                flight.leg = Leg::AtIssuer;
                arrived.push((flight.number, flight.call.kind, flight.call.path.clone()));
            }
        }
        arrived
    }

    /// The issuer answers, or its end of the connection is gone.
    pub(crate) fn reply(&mut self, number: u64, answer: Option<Answer>, now: u64, random: &mut Random) {
        let Some(place) = self.flights.iter().position(|flight| flight.number == number) else { return };
        let process = self.flights[place].process;
        let is_feed = self.flights[place].call.kind == CallKind::Feed;
        let is_cut = self.cuts.get(&process).is_some_and(|(_, until)| now < *until);
        let leg = match answer {
            _ if is_cut || self.happens(Fault::ReplyDropped, random) => Leg::Nowhere,
            Some(answer) => {
                let answer = if is_feed { self.meddle(process, answer, random) } else { Some(answer) };
                Leg::Home { at: self.arrival(now, random), outcome: answer }
            }
            None => Leg::Home { at: now + 1, outcome: None },
        };
        self.flights[place].leg = leg;
    }

    /// What becomes of an answer of the feed on its way; `None` when there is none.
    fn meddle(&mut self, process: usize, mut answer: Answer, random: &mut Random) -> Option<Answer> {
        if answer.dated.is_some() && self.is_recording {
            self.recorded.push_back(answer.clone());
            if self.recorded.len() > RECORDED_MAX {
                // Some of the old ones stay for good.
                let place = random.place(RECORDED_MAX / 2);
                self.recorded.remove(place);
            }
        }
        if self.happens(Fault::Reordered, random) {
            return self.kept_back.insert(process, answer);
        }
        if random.chance(self.rates.of(Fault::Duplicated)) {
            self.doubled.insert(process, answer.clone());
        }
        if !answer.body.is_empty() && self.happens(Fault::Truncated, random) {
            let length = random.place(answer.body.len());
            answer.body.truncate(length);
        }
        if !answer.body.is_empty() && self.happens(Fault::Flipped, random) {
            let place = random.place(answer.body.len());
            answer.body[place] ^= 1 << random.below(8);
        }
        if self.happens(Fault::ServerError, random) {
            return Some(Answer::plain(500, b"{}"));
        }
        if self.happens(Fault::Html, random) {
            return Some(Answer::plain(200, b"<html><body>Please log in to the network.</body></html>"));
        }
        Some(answer)
    }

    /// What has come home, or was waited for long enough.
    pub(crate) fn come_home(&mut self, now: u64) -> Vec<(Flight, Option<Answer>)> {
        let is_over = |flight: &mut Flight| match flight.leg {
            Leg::Home { at, .. } if at <= now => true,
            Leg::Home { .. } | Leg::ToIssuer { .. } | Leg::AtIssuer | Leg::Nowhere => flight.deadline <= now,
        };
        let over: Vec<Flight> = self.flights.extract_if(.., is_over).collect();
        let mut home = Vec::new();
        for mut flight in over {
            let leg = std::mem::replace(&mut flight.leg, Leg::Nowhere);
            let outcome = match leg {
                Leg::Home { at, outcome } if at <= now => outcome,
                Leg::Home { .. } | Leg::ToIssuer { .. } | Leg::AtIssuer | Leg::Nowhere => None,
            };
            if !flight.is_never_reported {
                home.push((flight, outcome));
            }
        }
        home
    }

    /// Whether the call of this number is still waited for.
    pub(crate) fn is_waited_for(&self, number: u64) -> bool {
        self.flights.iter().any(|flight| flight.number == number)
    }

    /// A VM is gone, and its calls with it.
    pub(crate) fn hang_up(&mut self, vm: u64) {
        self.flights.retain(|flight| flight.vm != vm);
    }

    pub(crate) fn polls_at_issuer(&self, process: usize) -> usize {
        let polls = self.flights.iter().filter(|flight| flight.process == process);
        polls.filter(|flight| flight.is_poll_at_issuer()).count()
    }
}
