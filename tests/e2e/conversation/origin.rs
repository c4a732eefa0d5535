//! The issuer of a conversation: says what the script tells it to, in the real messages under real signatures.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use ciborium::Value;
use coset::{AsCborValue, CoseSign1};
use serde::Deserialize;
use serde_json::json;
use tollgate_shared::quota::allocator::{Account, Allotment, Holding, Terms, Want};
use tollgate_shared::quota::{Plan, Window};
use tollgate_shared::revocation::{
    Cutoff, Delta, Dimension, Epoch, FeedChange, FeedMessage, Place, Position, RevocationSet, StatusIndex,
};
use tollgate_shared::time::{UnixMillis, UnixSeconds};
use tollgate_shared::token::SigningKey;
use tollgate_shared::wire::feed::{Snapshot, seal, seal_payload, seal_snapshot};
use tollgate_shared::wire::quota::{QuotaAnswer, QuotaBatch, WireGrant, WireRefusal};

/// The `iss` of its tokens.
pub(crate) const ISSUER: &str = "https://issuer.test";
const WINDOW_SECONDS: u64 = 3600;

/// What can be changed about it, each at once.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OriginChange {
    /// What it does with calls.
    mood: Option<Mood>,
    /// Indices to revoke.
    #[serde(default)]
    revoke: Vec<u32>,
    /// Cut-offs by dimension and value, for tokens made before now plus the seconds.
    #[serde(default)]
    cutoff: Vec<(String, String, Option<u64>)>,
    /// Whether its key set has the next key, and still has the first.
    keys: Option<Keys>,
    /// Starts history anew, with what is revoked.
    #[serde(default)]
    new_epoch: bool,
    /// The limit of every quota.
    limit: Option<u64>,
    /// Its clock runs ahead by this many seconds from now on (or behind).
    clock_ahead: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mood {
    /// Answers as it should.
    Well,
    /// Does not answer.
    Down,
    /// Answers 500.
    Error,
    /// Answers 200 with a page of HTML.
    Html,
    /// Answers with its true message, one bit flipped.
    Flipped,
    /// Answers with the first half of its true message.
    Truncated,
    /// Answers as an impostor would, under another feed key.
    Forged,
    /// Answers with what it said first of all.
    Replayed,
    /// Leaves out the latest change from a delta and goes on from there.
    Gap,
    /// As one of a later version might: its messages have fields that nobody knows.
    LaterFields,
    /// Its messages are of a version that nobody knows.
    LaterVersion,
    /// Its messages are of a kind that nobody knows.
    LaterKind,
    /// Its deltas are of a kind that nobody knows, and its snapshots as they were.
    LaterDeltas,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Keys {
    First,
    Both,
    Next,
    None,
}

enum Entry {
    Index(u32),
    Cutoff(Cutoff),
    Keys,
}

/// The issuer.
pub(crate) struct Origin {
    pub(crate) key: SigningKey,
    pub(crate) next_key: SigningKey,
    feed_key: SigningKey,
    epoch: Epoch,
    log: Vec<Entry>,
    mood: Mood,
    keys: Keys,
    limit: u64,
    clock_ahead: i64,
    start: UnixSeconds,
    first_said: Option<Vec<u8>>,
    /// How often it was polled.
    pub(crate) polls: u64,
    accounts: BTreeMap<String, (Account, Holding)>,
}

impl Origin {
    /// One that has revoked nothing and is well.
    pub(crate) fn new(start: UnixSeconds) -> Self {
        Self {
            key: SigningKey::from_seed(&[11; 32]),
            next_key: SigningKey::from_seed(&[12; 32]),
            feed_key: SigningKey::from_seed(&[13; 32]),
            epoch: Epoch([1; 16]),
            log: Vec::new(),
            mood: Mood::Well,
            keys: Keys::First,
            limit: 100,
            clock_ahead: 0,
            start,
            first_said: None,
            polls: 0,
            accounts: BTreeMap::new(),
        }
    }

    /// Its feed's public key, as configurations have it.
    pub(crate) fn anchor(&self) -> String {
        use base64ct::{Base64UrlUnpadded, Encoding};
        Base64UrlUnpadded::encode_string(&self.feed_key.public_bytes())
    }

    pub(crate) fn change(&mut self, change: &OriginChange) -> Result<()> {
        let OriginChange { mood, revoke, cutoff, keys, new_epoch, limit, clock_ahead } = change;
        self.mood = mood.unwrap_or(self.mood);
        self.limit = limit.unwrap_or(self.limit);
        self.clock_ahead = clock_ahead.unwrap_or(self.clock_ahead);
        self.log.extend(revoke.iter().map(|index| Entry::Index(*index)));
        for (dimension, value, before) in cutoff {
            self.log.push(Entry::Cutoff(Cutoff {
                dimension: Dimension::of(dimension).context("a dimension")?,
                issuer: None,
                value: value.clone(),
                issued_before: before.map(|seconds| self.start.plus(seconds)),
                until: self.start.plus(1_000_000),
            }));
        }
        if let Some(keys) = keys {
            self.keys = *keys;
            self.log.push(Entry::Keys);
        }
        if *new_epoch {
            self.epoch = Epoch([self.epoch.0[0] + 1; 16]);
        }
        Ok(())
    }

    /// Answers a call; `None` is no answer at all.
    pub(crate) fn answer(&mut self, path: &str, body: &[u8], wall: UnixMillis) -> Option<(u16, Vec<u8>)> {
        self.polls += u64::from(path.starts_with("/v1/edge/feed"));
        match self.mood {
            Mood::Down => return None,
            Mood::Error => return Some((500, b"oops".to_vec())),
            Mood::Html => return Some((200, b"<html>portal</html>".to_vec())),
            Mood::Well
            | Mood::Flipped
            | Mood::Truncated
            | Mood::Forged
            | Mood::Replayed
            | Mood::Gap
            | Mood::LaterFields
            | Mood::LaterVersion
            | Mood::LaterKind
            | Mood::LaterDeltas => {}
        }
        let wall = UnixMillis(wall.0.saturating_add_signed(self.clock_ahead * 1000));
        if path.starts_with("/v1/edge/quota") {
            return Some((200, self.lend(body, wall)));
        }
        if path.starts_with("/v1/edge/heartbeat") {
            return Some((
                200,
                json!({ "interval_seconds": 10, "ttl_seconds": 30 }).to_string().into_bytes(),
            ));
        }
        if path.starts_with("/v1/edge/history/") {
            return Some((404, Vec::new()));
        }
        let key = if self.mood == Mood::Forged { &self.key } else { &self.feed_key };
        let mut said = self.said(path, wall, key);
        let is_snapshot = opened(&said).0.iter().any(is_snapshot);
        let first = self.first_said.get_or_insert_with(|| said.clone());
        match self.mood {
            Mood::Replayed => said = first.clone(),
            Mood::Flipped => {
                let middle = said.len() / 2;
                said[middle] ^= 1;
            }
            Mood::Truncated => said.truncate(said.len() / 2),
            Mood::LaterFields => said = self.altered(&said, "later", "anything".into()),
            Mood::LaterVersion => said = self.altered(&said, "v", 1000.into()),
            Mood::LaterDeltas if is_snapshot => {}
            Mood::LaterKind | Mood::LaterDeltas => said = self.altered(&said, "kind", "later".into()),
            Mood::Well | Mood::Down | Mood::Error | Mood::Html | Mood::Forged | Mood::Gap => {}
        }
        Some((200, said))
    }

    /// The same body with a field that its message lacks, or with another value of one that it has.
    fn altered(&self, said: &[u8], field: &str, value: Value) -> Vec<u8> {
        let (mut fields, pieces) = opened(said);
        fields.retain(|(name, _)| name.as_text() != Some(field));
        fields.push((field.into(), value));
        let mut payload = Vec::new();
        ciborium::into_writer(&Value::Map(fields), &mut payload).expect("it serialises");
        let mut body = seal_payload(payload, &self.feed_key).expect("a message is sealed");
        body.extend_from_slice(pieces);
        body
    }

    /// The body of an answer to a poll.
    fn said(&self, path: &str, as_of: UnixMillis, key: &SigningKey) -> Vec<u8> {
        let parameter = |name: &str| {
            let query = path.split_once('?')?.1;
            query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
        };
        let number = |name: &str| parameter(name).and_then(|text| text.parse::<usize>().ok());
        let head = self.log.len();
        let known = parameter("epoch").and_then(Epoch::from_hex) == Some(self.epoch);
        let said = match number("after").filter(|after| known && *after <= head) {
            Some(from) => {
                seal(&self.delta(from, number("until").unwrap_or(head).clamp(from, head), as_of), key)
            }
            // Later than any position that is asked for at least.
            None => {
                let place = Place { epoch: self.epoch, position: Position(head as u64), as_of };
                let (_, revoked) = self.told(0, head);
                let (head, keys, plans) = (place.position, self.jwks(), Plan::defaults());
                let revoked = &revoked;
                seal_snapshot(Snapshot { place, head, revoked, keys: &keys, plans: &plans }, key)
                    .map(|(body, _)| body)
            }
        };
        said.expect("a message is sealed")
    }

    fn delta(&self, from: usize, to: usize, as_of: UnixMillis) -> FeedMessage {
        let (new_keys, told) = self.told(from, to);
        let (from, to) = (Position(from as u64), Position(to as u64));
        let mut delta = Delta { from, cutoffs: told.cutoffs.iter().collect(), ..Delta::default() };
        delta.revoked = told.indices.iter().collect();
        let keys = new_keys.then(|| self.jwks());
        let (epoch, head) = (self.epoch, Position(self.log.len() as u64));
        if self.mood == Mood::Gap {
            // One position is passed over, with what stands there.
            let delta = Delta { from: Position(from.0 + 1), revoked: Vec::new(), ..delta };
            let (to, head) = (Position(to.0 + 1), Position(head.0 + 1));
            return FeedMessage {
                epoch,
                to,
                head,
                as_of,
                change: FeedChange::Delta(delta),
                keys,
                plans: None,
            };
        }
        FeedMessage { epoch, to, head, as_of, change: FeedChange::Delta(delta), keys, plans: None }
    }

    /// Whether the keys changed between two positions, and what was revoked.
    fn told(&self, from: usize, to: usize) -> (bool, RevocationSet) {
        let (mut new_keys, mut told) = (false, RevocationSet::default());
        for entry in &self.log[from..to] {
            match entry {
                Entry::Index(index) => told.indices.extend([StatusIndex(*index)]),
                Entry::Cutoff(cutoff) => told.cutoffs.insert(cutoff.clone()),
                Entry::Keys => new_keys = true,
            }
        }
        (new_keys, told)
    }

    fn jwks(&self) -> String {
        let keys = match self.keys {
            Keys::First => vec![self.key.public_jwk()],
            Keys::Both => vec![self.key.public_jwk(), self.next_key.public_jwk()],
            Keys::Next => vec![self.next_key.public_jwk()],
            Keys::None => vec![],
        };
        json!({ "keys": keys }).to_string()
    }

    fn lend(&mut self, body: &[u8], now: UnixMillis) -> Vec<u8> {
        let Ok(batch) = serde_json::from_slice::<QuotaBatch>(body) else { return Vec::new() };
        let window = Window::containing(now.seconds(), WINDOW_SECONDS);
        let ends_at = UnixMillis((window.0.0 + WINDOW_SECONDS) * 1000);
        let (limit, window_seconds) = (self.limit, WINDOW_SECONDS);
        let (window, resets_in) = (window.0.0, ends_at.0 - now.0);
        let mut answer = QuotaAnswer::default();
        for want in batch.wants {
            let (account, holding) = self.accounts.entry(format!("{:?}/{window}", want.bucket)).or_default();
            let wanted = Want { units: want.units, least: want.least };
            let bucket = want.bucket;
            match account.lease(holding, wanted, Terms { limit, now, ends_at }) {
                Allotment::Lease { units, expires_in, remaining } => {
                    let grant = WireGrant {
                        bucket,
                        window,
                        units,
                        expires_in,
                        remaining,
                        resets_in,
                        limit,
                        window_seconds,
                    };
                    answer.grants.push(grant);
                }
                Allotment::Refused { ask_again_in } => {
                    let refusal =
                        WireRefusal { bucket, window, resets_in, ask_again_in, limit, window_seconds };
                    answer.refusals.push(refusal);
                }
            }
        }
        serde_json::to_vec(&answer).expect("an answer serialises")
    }
}

/// The fields of the message that a body begins with, and what follows it.
fn opened(mut said: &[u8]) -> (Vec<(Value, Value)>, &[u8]) {
    let item: Value = ciborium::from_reader(&mut said).expect("an item");
    let (_, envelope) = item.into_tag().expect("an envelope");
    let payload = CoseSign1::from_cbor_value(*envelope).expect("an envelope").payload.expect("a payload");
    let message: Value = ciborium::from_reader(payload.as_slice()).expect("a message");
    (message.into_map().expect("fields"), said)
}

fn is_snapshot((name, value): &(Value, Value)) -> bool {
    name.as_text() == Some("kind") && value.as_text() == Some("snapshot")
}
