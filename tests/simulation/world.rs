//! The whole of it: an issuer of two replicas on one database, processes at the edge, the network between them, and the one
//! true time that none of them knows.

mod trouble;

use std::collections::VecDeque;

use tollgate_filter::engine::CallKind;
use tollgate_shared::revocation::Dimension;
use tollgate_shared::time::UnixSeconds;
use tollgate_shared::token::SigningKey;

use crate::database::{Database, Order};
use crate::issuer::{Answer, Moment, Poll, Replica, Tally};
use crate::network::{Network, Rates};
use crate::process::{Process, shown};
use crate::properties::Seen;
use crate::random::Random;
use crate::tokens::{LIFE_SECONDS, Tokens};

pub(crate) const REPLICAS: usize = 2;
/// The clocks of two replicas differ by so many milliseconds at most.
pub(crate) const SKEW_MILLIS: u64 = 5_000;
/// A date that was set right is remembered for so long, in milliseconds: a replica that starts may still go by it.
const REMEMBERED_MILLIS: u64 = 120_000;
const HOUSEKEEPING_MILLIS: u64 = 60_000;
const HEARTBEAT: &[u8] = br#"{"interval_seconds":10,"ttl_seconds":30}"#;
/// Of what happened last, so much is told of a case that failed.
const STORY_LINES: usize = 60;

/// What one case is like.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) seed: u64,
    pub(crate) processes: usize,
    pub(crate) vms: usize,
    /// So many entries of the log a replica keeps one by one.
    pub(crate) entries_max: u64,
    /// A snapshot that is larger than this is given in parts.
    pub(crate) part_bytes: usize,
    /// By so many milliseconds the dates of edges and of the issuer may be wrong. Together they are at most what
    /// `CLOCK_ERROR_SECONDS` allows.
    pub(crate) edge_date_wrong: u64,
    pub(crate) issuer_date_wrong: u64,
    /// The longest time for which everything stands still, in milliseconds.
    pub(crate) suspended_max: u64,
    /// How often something is revoked, in a million steps.
    pub(crate) revoked_rate: u32,
    /// Whether the feed's clock goes back when a replica starts while the date is behind it, as it does by the time since its
    /// floor was noted and by the time that the replica was down. Then edges take the state for older than it is, for long, and
    /// nothing is promised but that nothing revoked is admitted.
    pub(crate) clock_goes_back: bool,
}

impl Case {
    /// A small one, in which nothing is left to chance but the instants.
    pub(crate) fn plain(seed: u64) -> Self {
        Self {
            seed,
            processes: 2,
            vms: 3,
            entries_max: 5_000,
            part_bytes: usize::MAX,
            edge_date_wrong: 600_000,
            issuer_date_wrong: 300_000,
            suspended_max: 90_000,
            revoked_rate: 20_000,
            clock_goes_back: false,
        }
    }

    pub(crate) fn drawn(seed: u64, random: &mut Random) -> Self {
        let edges_differ = random.chance(500_000);
        Self {
            seed,
            processes: 1 + random.place(2),
            vms: 1 + random.place(4),
            entries_max: [40, 400, 1_500, 5_000][random.place(4)],
            edge_date_wrong: if edges_differ { 600_000 } else { 300_000 },
            issuer_date_wrong: if edges_differ { 300_000 } else { 600_000 },
            suspended_max: if random.chance(250_000) { 3_600_000 } else { 90_000 },
            revoked_rate: 2_000 << random.below(5),
            clock_goes_back: random.chance(200_000),
            part_bytes: [1, 600, usize::MAX][random.place(3)],
        }
    }
}

pub(crate) struct World {
    pub(crate) case: Case,
    pub(crate) random: Random,
    /// The true time since the beginning, in milliseconds.
    pub(crate) now: u64,
    pub(crate) tokens: Tokens,
    pub(crate) database: Database,
    pub(crate) replicas: Vec<Option<Replica>>,
    skews: Vec<i64>,
    pub(crate) issuer_ahead: i64,
    /// What the issuer's date was ahead until when.
    set_right: Vec<(u64, i64)>,
    /// The most by which the feed's clock was ever ahead.
    feed_ahead_most: i64,
    back_at: Vec<u64>,
    database_back_at: u64,
    next_housekeeping: u64,
    pub(crate) network: Network,
    pub(crate) processes: Vec<Process>,
    vms_made: u64,
    feed_key: SigningKey,
    pub(crate) seen: Seen,
    pub(crate) told: Tally,
    story: VecDeque<String>,
}

impl World {
    pub(crate) fn new(case: Case) -> Self {
        let mut random = Random::new(case.seed);
        let tokens = Tokens::new();
        let feed_key = SigningKey::from_seed(&[3; 32]);
        let database = Database::new(&tokens, shown(0, 0).wall.seconds());
        let half = SKEW_MILLIS / 2;
        let mut world = Self {
            skews: (0..REPLICAS).map(|_| random.around_zero(half)).collect(),
            random,
            now: 0,
            tokens,
            database,
            replicas: (0..REPLICAS).map(|_| None).collect(),
            issuer_ahead: 0,
            set_right: Vec::new(),
            feed_ahead_most: i64::MIN / 2,
            back_at: vec![0; REPLICAS],
            database_back_at: 0,
            next_housekeeping: HOUSEKEEPING_MILLIS,
            network: Network::new(),
            processes: (0..case.processes).map(|_| Process::new(&feed_key)).collect(),
            vms_made: 0,
            feed_key,
            seen: Seen::default(),
            told: Tally::default(),
            story: VecDeque::new(),
            case,
        };
        (0..REPLICAS).for_each(|replica| world.start_replica(replica));
        (0..world.processes.len()).for_each(|process| world.start_process(process));
        world.database.order(Order::TakeBlock, 0);
        world
    }

    pub(crate) fn tell(&mut self, what: String) {
        self.story.push_back(format!("{:>9} {what}", self.now));
        if self.story.len() > STORY_LINES {
            self.story.pop_front();
        }
    }

    /// Ends the test: this property does not hold.
    pub(crate) fn fail(&self, property: &str, what: &str) -> ! {
        let story: Vec<&str> = self.story.iter().map(String::as_str).collect();
        panic!("{property}: {what}\nat {} ms of {:?}\n{}", self.now, self.case, story.join("\n"));
    }

    pub(crate) fn date(&self, replica: usize) -> UnixSeconds {
        shown(self.now, self.skews[replica] + self.issuer_ahead).wall.seconds()
    }

    /// By how much a clock that a message can be dated by is ahead of the true time.
    pub(crate) fn ahead(&self) -> i64 {
        let skew = self.skews.iter().copied().max().unwrap_or_default();
        let remembered = self.set_right.iter().filter(|(at, _)| self.now <= at + REMEMBERED_MILLIS);
        let dates = remembered.map(|(_, ahead)| *ahead).chain([self.issuer_ahead]).max().unwrap_or_default();
        (0..REPLICAS).filter_map(|replica| self.feed_ahead(replica)).fold(skew + dates, i64::max)
    }

    /// By how much the feed's clock of a replica is ahead.
    pub(crate) fn feed_ahead(&self, place: usize) -> Option<i64> {
        let now = shown(self.now, self.skews[place] + self.issuer_ahead);
        let date = self.replicas[place].as_ref()?.clock.read(now);
        Some(date.0 as i64 - shown(self.now, 0).wall.0 as i64)
    }

    pub(crate) fn start_replica(&mut self, place: usize) {
        let now = shown(self.now, self.skews[place] + self.issuer_ahead);
        if !self.case.clock_goes_back {
            let floor = shown(self.now, self.feed_ahead_most - SKEW_MILLIS as i64 / 2).wall;
            self.database.floor = self.database.floor.max(floor);
        }
        self.replicas[place] = Some(Replica::start(&mut self.database, now, &self.case));
    }

    pub(crate) fn stop_replica(&mut self, place: usize, is_graceful: bool) {
        let now = shown(self.now, self.skews[place] + self.issuer_ahead);
        let Some(replica) = self.replicas[place].take() else { return };
        if is_graceful {
            self.database.floor = self.database.floor.max(replica.clock.read(now));
        } else {
            self.database.forget(place);
        }
        self.told.add(&replica.told);
        for poll in replica.polls {
            self.network.reply(poll.flight, None, self.now, &mut self.random);
        }
    }

    pub(crate) fn start_process(&mut self, place: usize) {
        let Self { processes, tokens, vms_made, random, case, network, .. } = self;
        processes[place].vms.iter().for_each(|vm| network.hang_up(vm.number));
        processes[place].start(case.vms, &tokens.partner, vms_made, random);
    }

    pub(crate) fn replace_vm(&mut self, process: usize, place: usize) {
        let Self { processes, tokens, vms_made, random, network, .. } = self;
        network.hang_up(processes[process].vms[place].number);
        processes[process].replace(place, &tokens.partner, vms_made, random);
    }

    /// Lets so many milliseconds pass, in steps of 10 to 100.
    pub(crate) fn pass(&mut self, millis: u64) {
        let end = self.now + millis;
        while self.now < end {
            let step = self.random.between(10, 100).min(end - self.now);
            self.step(step);
        }
    }

    pub(crate) fn step(&mut self, millis: u64) {
        self.now += millis;
        self.make_trouble();
        self.write();
        self.run_issuer();
        self.run_edges();
        self.look_after_positions();
        self.ask_some();
    }

    fn write(&mut self) {
        let dates: Vec<UnixSeconds> = (0..REPLICAS).map(|replica| self.date(replica)).collect();
        let committed = self.database.step(&mut self.tokens, self.now, &dates, &mut self.random);
        for (replica, position) in committed {
            if let Some(replica) = &mut self.replicas[replica] {
                replica.reached(position);
            }
        }
        if self.now >= self.next_housekeeping && self.database.is_up {
            self.next_housekeeping = self.now + HOUSEKEEPING_MILLIS;
            for (place, replica) in self.replicas.iter().enumerate() {
                let Some(replica) = replica else { continue };
                let now = shown(self.now, self.skews[place] + self.issuer_ahead);
                let date = replica.clock.read(now);
                self.database.floor = self.database.floor.max(date);
                self.database.prune(date.min(now.wall).seconds());
            }
        }
        self.issue_and_revoke();
    }

    fn issue_and_revoke(&mut self) {
        let Some(replica) = (0..REPLICAS).find(|replica| self.replicas[*replica].is_some()) else { return };
        let replica = if self.random.chance(500_000) { replica } else { REPLICAS - 1 };
        if self.replicas[replica].is_none() || !self.database.is_up {
            return;
        }
        let date = self.date(replica);
        if self.random.chance(40_000) {
            if self.random.chance(150_000) {
                self.tokens.issue_by_partner(date);
            } else if self.tokens.issue(date, &mut self.random).is_none() && self.database.is_idle() {
                self.database.order(Order::TakeBlock, replica);
            }
        }
        if self.random.chance(self.case.revoked_rate) && !self.tokens.all.is_empty() {
            // Now and then several at once, at either replica.
            let orders = if self.random.chance(200_000) { self.random.between(2, 6) } else { 1 };
            for _ in 0..orders {
                let order = self.any_order();
                let replica = if orders > 1 { self.random.place(REPLICAS) } else { replica };
                self.tell(format!("{order:?} at replica {replica}"));
                if self.replicas[replica].is_some() {
                    self.database.order(order, replica);
                }
            }
        }
    }

    fn any_order(&mut self) -> Order {
        let place = self.random.place(self.tokens.all.len());
        let of_token = |dimension: Dimension, world: &Self| {
            let value = world.tokens.all[place].values.get(&dimension).cloned();
            value
                .filter(|_| world.tokens.all[place].index.is_some())
                .map(|value| Order::CutOff(dimension, value))
        };
        let order = match self.random.below(100) {
            0..50 => None,
            50..62 => of_token(Dimension::Session, self),
            62..72 => of_token(Dimension::Subject, self),
            72..78 => of_token(Dimension::Client, self),
            78..83 => of_token(Dimension::Tenant, self),
            83..88 => of_token(Dimension::Token, self),
            88..90 => of_token(Dimension::Key, self).filter(|_| self.tokens.keys.len() < 200),
            90..92 => of_token(Dimension::Issuer, self),
            92..95 if self.tokens.keys.len() < 200 => Some(Order::AddKey),
            97..98 => Some(Order::RevokeMany(self.random.between(500, 3_500) as u32)),
            _ => Some(Order::RevokeMany(self.random.between(1, 30) as u32)),
        };
        order.unwrap_or(Order::RevokeToken(place))
    }

    fn run_issuer(&mut self) {
        for (flight, kind, path) in self.network.arrived(self.now) {
            self.arrive(flight, kind, &path);
        }
        let ahead = self.ahead();
        let feed_ahead = (0..REPLICAS).filter_map(|replica| self.feed_ahead(replica)).max();
        self.feed_ahead_most =
            feed_ahead.map_or(self.feed_ahead_most, |ahead| ahead.max(self.feed_ahead_most));
        for place in 0..REPLICAS {
            let now = shown(self.now, self.skews[place] + self.issuer_ahead);
            let Some(replica) = &mut self.replicas[place] else { continue };
            replica.polls.retain(|poll| self.network.is_waited_for(poll.flight));
            let moment = Moment { database: &self.database, key: &self.feed_key, now, ahead };
            for (flight, answer) in replica.step(&moment, &mut self.random) {
                self.network.reply(flight, Some(answer), self.now, &mut self.random);
            }
        }
    }

    fn arrive(&mut self, flight: u64, kind: CallKind, path: &str) {
        let now = self.now;
        let place = self.random.place(REPLICAS);
        // A balancer sends on to one that is there.
        let place = if self.replicas[place].is_some() { place } else { REPLICAS - 1 - place };
        let poll = Poll::read(flight, path, now);
        let Some(replica) = &mut self.replicas[place] else {
            return self.network.reply(flight, None, now, &mut self.random);
        };
        match (kind, poll) {
            (CallKind::Feed, Some(poll)) => replica.polls.push(poll),
            (CallKind::Heartbeat, _) => {
                self.network.reply(flight, Some(Answer::plain(200, HEARTBEAT)), now, &mut self.random);
            }
            (CallKind::Feed | CallKind::Quota | CallKind::Keys(_), _) => {
                self.network.reply(flight, Some(Answer::plain(404, b"")), now, &mut self.random);
            }
        }
    }

    fn run_edges(&mut self) {
        let now = self.now;
        for place in 0..self.processes.len() {
            if !self.processes[place].is_up() {
                continue;
            }
            for (vm, call) in self.processes[place].step(now, &mut self.random) {
                self.network.send(place, vm, call, now, &mut self.random);
            }
        }
        for (flight, answer) in self.network.come_home(now) {
            let process = &mut self.processes[flight.process];
            if process.is_up() {
                process.answer(flight.vm, &flight.call, answer.as_ref(), now);
            }
        }
    }

    /// The seconds that it is, truly.
    pub(crate) fn today(&self) -> UnixSeconds {
        shown(self.now, 0).wall.seconds()
    }

    /// Whether tokens of this date and end are good at a date that is right, with some seconds to spare.
    pub(crate) fn is_current(&self, issued_at: UnixSeconds, expires_at: UnixSeconds) -> bool {
        let today = self.today();
        issued_at <= today && today.plus(5) < expires_at && expires_at.0 <= today.0 + 2 * LIFE_SECONDS
    }

    pub(crate) fn trouble(&mut self, rates: Rates, millis: u64) {
        self.network.rates = rates;
        self.pass(millis);
    }
}
