//! The issuer's database: a log that survives everything, whose positions are in the order of commits, and acknowledgements
//! that follow a commit.

use std::collections::{BTreeMap, VecDeque};

use tollgate_issuer::store::{FeedEntry, FeedEntryChange};
use tollgate_shared::quota::Plan;
use tollgate_shared::revocation::{Cutoff, Dimension, Position, RETENTION_SECONDS, StatusIndex};
use tollgate_shared::time::{UnixMillis, UnixSeconds};

use crate::random::Random;
use crate::tokens::{ISSUER, LIFE_SECONDS, PARTNER, Tokens};

/// How long tokens are issued with indices of one block, in seconds.
const BLOCK_OPEN_SECONDS: u64 = 10 * 60;
/// So many blocks there are before one comes into use again.
const BLOCKS_MAX: u16 = 4;
/// A cut-off is told for so much longer than the last token it covers may live, in seconds.
const SLACK_SECONDS: u64 = 60;

/// What is to be written in one transaction.
#[derive(Debug, Clone)]
pub(crate) enum Order {
    /// Revokes the token of this place in [`Tokens::all`] alone.
    RevokeToken(usize),
    /// Revokes all of ours with this value.
    CutOff(Dimension, String),
    /// Revokes indices of so many tokens that nobody shows.
    RevokeMany(u32),
    /// Another key signs from now on.
    AddKey,
    /// A block of indices is taken.
    TakeBlock,
}

#[derive(Debug)]
struct Queued {
    order: Order,
    replica: usize,
}

/// A transaction that has its positions and is not committed yet.
#[derive(Debug)]
struct Writing {
    replica: usize,
    entries: Vec<FeedEntry>,
    covered: Vec<usize>,
    commits_at: u64,
    block: Option<(u16, UnixSeconds)>,
}

/// A commit of which the caller has not heard yet.
#[derive(Debug)]
struct Unheard {
    replica: usize,
    covered: Vec<usize>,
    at: u64,
}

pub(crate) struct Database {
    /// What is in the log now.
    log: BTreeMap<u64, FeedEntry>,
    /// Everything that was ever committed, by position, and which block came into use again there.
    pub(crate) ever: BTreeMap<u64, (FeedEntry, Option<u16>)>,
    /// The highest position that was given.
    given: u64,
    queue: VecDeque<Queued>,
    writing: Vec<Writing>,
    unheard: Vec<Unheard>,
    blocks: BTreeMap<u16, UnixSeconds>,
    /// The floor of the feed's clock.
    pub(crate) floor: UnixMillis,
    pub(crate) is_up: bool,
    pub(crate) acknowledged: u64,
}

impl Database {
    pub(crate) fn new(tokens: &Tokens, now: UnixSeconds) -> Self {
        let mut database = Self {
            log: BTreeMap::new(),
            ever: BTreeMap::new(),
            given: 0,
            queue: VecDeque::new(),
            writing: Vec::new(),
            unheard: Vec::new(),
            blocks: BTreeMap::new(),
            floor: UnixMillis(0),
            is_up: true,
            acknowledged: 0,
        };
        for change in [FeedEntryChange::Keys(tokens.key_set()), FeedEntryChange::Plans(Plan::defaults())] {
            let entry = database.entry(change, now);
            database.commit(entry, None);
        }
        database
    }

    pub(crate) fn position(&self) -> Position {
        Position(self.ever.last_key_value().map_or(0, |(position, _)| *position))
    }

    /// Whether nothing waits to be written or acknowledged.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.writing.is_empty() && self.unheard.is_empty()
    }

    /// What is committed from a position on, with it.
    pub(crate) fn read(&self, from: Position) -> Vec<FeedEntry> {
        self.log.range(from.0..).map(|(_, entry)| entry.clone()).collect()
    }

    pub(crate) fn order(&mut self, order: Order, replica: usize) {
        self.queue.push_back(Queued { order, replica });
    }

    /// The process that wrote died: what it had not committed is gone, and nobody hears of what it had.
    pub(crate) fn forget(&mut self, replica: usize) {
        self.queue.retain(|queued| queued.replica != replica);
        self.writing.retain(|writing| writing.replica != replica);
        self.unheard.retain(|unheard| unheard.replica != replica);
        // A position that was given and not committed is given again, as `MAX(position) + 1` does.
        if self.writing.is_empty() {
            self.given = self.position().0;
        }
    }

    /// Does what is due at the true instant `now`; `dates` are what the replicas' wall clocks show. Tells who committed up to
    /// which position.
    pub(crate) fn step(
        &mut self,
        tokens: &mut Tokens,
        now: u64,
        dates: &[UnixSeconds],
        random: &mut Random,
    ) -> Vec<(usize, Position)> {
        let mut committed = Vec::new();
        if !self.is_up {
            return committed;
        }
        // Positions are given under a lock that is held until the commit.
        while self.writing.is_empty() {
            let Some(queued) = self.queue.pop_front() else { break };
            self.begin(queued, tokens, now, dates, random);
        }
        let due = self.writing.extract_if(.., |writing| writing.commits_at <= now);
        for Writing { replica, entries, covered, block, .. } in due.collect::<Vec<_>>() {
            for entry in entries {
                committed.push((replica, entry.position));
                self.commit(entry, block.map(|(number, _)| number));
            }
            if let Some((number, expires_at)) = block {
                self.blocks.insert(number, expires_at);
                tokens.block = Some((number, expires_at, 0));
            }
            self.unheard.push(Unheard { replica, covered, at: now + random.below(60) });
        }
        for Unheard { covered, .. } in self.unheard.extract_if(.., |unheard| unheard.at <= now) {
            self.acknowledged += u64::from(!covered.is_empty());
            tokens.acknowledge(&covered, now);
        }
        committed
    }

    fn begin(
        &mut self,
        Queued { order, replica }: Queued,
        tokens: &mut Tokens,
        now: u64,
        dates: &[UnixSeconds],
        random: &mut Random,
    ) {
        let date = dates[replica];
        let (mut changes, mut covered, mut block) = (Vec::new(), Vec::new(), None);
        match order {
            Order::RevokeToken(place) => {
                covered.push(place);
                let token = &tokens.all[place];
                changes.push(match token.index {
                    Some(index) => self.index(index),
                    None => FeedEntryChange::Cutoff(Cutoff {
                        dimension: Dimension::Token,
                        issuer: Some(PARTNER.to_owned()),
                        value: token.values[&Dimension::Token].clone(),
                        issued_before: None,
                        until: date.max(token.issued_at).plus(LIFE_SECONDS + SLACK_SECONDS),
                    }),
                });
            }
            Order::CutOff(dimension, value) => {
                let (latest, places) = tokens.covered(ISSUER, dimension, &value);
                let latest = latest.max(date);
                let before = latest.plus(1);
                let (dimension_value, until) = (value.clone(), latest.plus(LIFE_SECONDS + SLACK_SECONDS));
                let is_for_good = matches!(dimension, Dimension::Token | Dimension::Session | Dimension::Key);
                let issued_before = (!is_for_good).then_some(before);
                covered = places;
                tokens.cut_off(dimension, &value, before);
                if dimension == Dimension::Key {
                    changes.push(FeedEntryChange::Keys(tokens.key_set()));
                }
                let cutoff = Cutoff { dimension, issuer: None, value: dimension_value, issued_before, until };
                changes.push(FeedEntryChange::Cutoff(cutoff));
            }
            Order::RevokeMany(count) => {
                let unused = (0..count).map_while(|_| tokens.next_index(date)).map(|(index, _)| index);
                changes.extend(unused.collect::<Vec<_>>().into_iter().map(|index| self.index(index)));
            }
            Order::AddKey => {
                tokens.add_key();
                changes.push(FeedEntryChange::Keys(tokens.key_set()));
            }
            Order::TakeBlock => {
                let (taken, is_reused) = self.free_block(date);
                block = Some((taken, date.plus(BLOCK_OPEN_SECONDS + LIFE_SECONDS)));
                if is_reused {
                    changes.push(FeedEntryChange::Reuse);
                }
            }
        }
        tokens.touch(&covered);
        let entries = changes.into_iter().map(|change| self.entry(change, date)).collect();
        // Now and then a disk or a peer is slow.
        let longest = if random.chance(200_000) { 600 } else { 40 };
        let commits_at = now + random.between(1, longest);
        self.writing.push(Writing { replica, entries, covered, commits_at, block });
    }

    fn index(&self, index: StatusIndex) -> FeedEntryChange {
        FeedEntryChange::Index { index, expires_at: self.blocks[&index.block()] }
    }

    fn entry(&mut self, change: FeedEntryChange, created_at: UnixSeconds) -> FeedEntry {
        self.given += 1;
        FeedEntry { position: Position(self.given), created_at, change }
    }

    fn commit(&mut self, entry: FeedEntry, block: Option<u16>) {
        if let (FeedEntryChange::Reuse, Some(block)) = (&entry.change, block) {
            self.log.retain(|_, known| {
                !matches!(&known.change, FeedEntryChange::Index { index, .. } if index.block() == block)
            });
        }
        self.log.insert(entry.position.0, entry.clone());
        self.ever.insert(entry.position.0, (entry, block));
    }

    /// A block that nobody has had, or else one that was forgotten everywhere; whether it is such a one.
    fn free_block(&self, now: UnixSeconds) -> (u16, bool) {
        let next = self.blocks.len() as u16;
        let forgotten = now.minus(2 * RETENTION_SECONDS);
        let over = self.blocks.iter().filter(|(_, expires_at)| **expires_at < forgotten);
        match over.min_by_key(|(_, expires_at)| **expires_at) {
            Some((number, _)) if next >= BLOCKS_MAX => (*number, true),
            Some(_) | None => (next, false),
        }
    }

    /// Removes what has concerned no token for long; the last entry stays.
    pub(crate) fn prune(&mut self, now: UnixSeconds) {
        let (horizon, last) = (now.minus(2 * RETENTION_SECONDS), self.position().0);
        self.log.retain(|position, entry| {
            let until = match &entry.change {
                FeedEntryChange::Index { expires_at, .. } => Some(*expires_at),
                FeedEntryChange::Cutoff(cutoff) => Some(cutoff.until),
                FeedEntryChange::Keys(_) | FeedEntryChange::Plans(_) | FeedEntryChange::Reuse => None,
            };
            *position == last || until.is_none_or(|until| until >= horizon)
        });
    }

    /// Everything committed so far, in the order of positions.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &(FeedEntry, Option<u16>)> {
        self.ever.values()
    }
}
