//! One process at the edge: several real engines that share what Envoy's workers share, and what the process has heard, by
//! which is known for how long it may go on.

use base64ct::{Base64UrlUnpadded, Encoding};
use tollgate_filter::config::Config;
use tollgate_filter::engine::{
    Body, Call, CallFailure, Counter, Decision, Engine, LocalData, Patience, Reply, RequestView,
};
use tollgate_shared::revocation::CLOCK_ERROR_SECONDS;
use tollgate_shared::time::{Monotonic, Now, UnixMillis};
use tollgate_shared::token::{RustCrypto, SigningKey};

use crate::issuer::Answer;
use crate::random::Random;
use crate::tokens::{ISSUER, PARTNER};

/// The date when a simulation begins, in milliseconds.
pub(crate) const START_MILLIS: u64 = 1_800_000_000_000;
pub(crate) const STALE_SECONDS: u64 = 20;
pub(crate) const HARD_SECONDS: u64 = 60;
const HOLD_SECONDS: u64 = 5;
/// So many ticks of a VM that has much to take in fit into one step.
const BUSY_TICKS_MAX: usize = 25;

/// One worker.
pub(crate) struct Vm {
    pub(crate) engine: Engine<RustCrypto, LocalData>,
    /// Which of all VMs there ever were.
    pub(crate) number: u64,
    /// The highest position it has had.
    pub(crate) highest: Option<u64>,
    /// What the process had heard at the last tick of this VM.
    pub(crate) heard: Option<Heard>,
    next_tick: u64,
}

/// What a process can know of the issuer's clock from the messages that it took in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heard {
    /// The least by which its estimate was ahead of the true time, and when, in milliseconds.
    lead: i64,
    at: u64,
    /// The most by which any replica's clock was ahead of the true time until one of these messages was made.
    ahead: i64,
}

impl Heard {
    /// How far the estimate is ahead of the true time at least: it runs slow by one part in a thousand.
    fn lead(self, now: u64) -> i64 {
        self.lead - (now - self.at).div_ceil(1000) as i64
    }

    /// By how much the age of the state may be taken for less than it is, in milliseconds. This is what the hard limit is
    /// exact to.
    pub(crate) fn slack(self, now: u64) -> u64 {
        (self.ahead - self.lead(now)).max(0).unsigned_abs()
    }
}

pub(crate) struct Process {
    pub(crate) vms: Vec<Vm>,
    data: LocalData,
    /// By how much its date is ahead of the true one, in milliseconds.
    pub(crate) date_ahead: i64,
    /// Until when it is down.
    pub(crate) down_until: Option<u64>,
    pub(crate) heard: Option<Heard>,
    /// The highest position that one of its VMs has had.
    pub(crate) highest: Option<u64>,
    anchor: String,
}

/// A moment as a host shows it whose date is ahead by so many milliseconds.
pub(crate) fn shown(now: u64, ahead: i64) -> Now {
    Now { wall: UnixMillis((START_MILLIS + now).saturating_add_signed(ahead)), monotonic: Monotonic(now) }
}

impl Process {
    pub(crate) fn new(feed_key: &SigningKey) -> Self {
        Self {
            vms: Vec::new(),
            data: LocalData::default(),
            date_ahead: 0,
            down_until: None,
            heard: None,
            highest: None,
            anchor: Base64UrlUnpadded::encode_string(&feed_key.public_bytes()),
        }
    }

    /// Begins with nothing but its configuration.
    pub(crate) fn start(&mut self, vms: usize, partner: &SigningKey, made: &mut u64, random: &mut Random) {
        (self.data, self.heard, self.highest, self.down_until) = (LocalData::default(), None, None, None);
        self.vms.clear();
        for place in 0..vms {
            self.replace(place, partner, made, random);
        }
    }

    /// Puts a new VM in this place.
    pub(crate) fn replace(
        &mut self,
        place: usize,
        partner: &SigningKey,
        made: &mut u64,
        random: &mut Random,
    ) {
        *made += 1;
        let seed = (u128::from(random.next()) << 64) | u128::from(random.next());
        let jwks = serde_json::json!({ "keys": [partner.public_jwk()] }).to_string();
        let config = serde_json::json!({
            "providers": [
                { "name": "home", "issuer": ISSUER, "audiences": ["api"], "keys": "feed" },
                { "name": "partner", "issuer": PARTNER, "audiences": ["api"], "keys": { "inline_jwks": jwks } },
            ],
            "origin": {
                "cluster": "issuer", "authority": "i", "edge_id": "e", "trust_anchor": self.anchor,
                "long_poll_seconds": HOLD_SECONDS, "stale_after_seconds": STALE_SECONDS,
                "refuse_after_seconds": HARD_SECONDS,
            },
            "rules": [
                { "match": { "prefix": "/strict/" }, "requires": "token", "when_stale": "deny" },
                { "match": { "prefix": "/" }, "requires": "token", "when_stale": "grace" },
            ],
        });
        let config = Config::parse(config.to_string().as_bytes()).unwrap();
        let engine = Engine::new(config, RustCrypto, self.data.clone(), seed);
        let vm = Vm { engine, number: *made, highest: None, heard: None, next_tick: 0 };
        match self.vms.get_mut(place) {
            Some(before) => *before = vm,
            None => self.vms.push(vm),
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.down_until.is_none()
    }

    pub(crate) fn now(&self, now: u64) -> Now {
        shown(now, self.date_ahead)
    }

    /// The calls that its VMs make now.
    pub(crate) fn step(&mut self, now: u64, random: &mut Random) -> Vec<(u64, Call)> {
        let shown = self.now(now);
        let mut calls = Vec::new();
        let first = random.place(self.vms.len());
        for place in 0..self.vms.len() {
            let place = (first + place) % self.vms.len();
            let vm = &mut self.vms[place];
            for _ in 0..BUSY_TICKS_MAX {
                if now < vm.next_tick {
                    break;
                }
                // What cannot be used is what this is about.
                let _ = vm.engine.tick(shown);
                vm.heard = self.heard;
                calls.extend(std::iter::from_fn(|| vm.engine.due(shown)).map(|call| (vm.number, call)));
                let millis = u64::from(vm.engine.next_tick_millis());
                if millis > 1 {
                    vm.next_tick = now + millis;
                }
            }
        }
        calls
    }

    /// Gives an answer to the VM that asked, if it is there still.
    pub(crate) fn answer(&mut self, vm: u64, call: &Call, answer: Option<&Answer>, now: u64) {
        let shown = self.now(now);
        let asked = vm;
        let Some(vm) = self.vms.iter_mut().find(|known| known.number == asked) else { return };
        let taken = |vm: &Vm| -> u64 {
            let metrics = vm.engine.metrics(shown);
            let messages = metrics
                .counters()
                .filter(|(counter, _)| matches!(counter, Counter::FeedDelta | Counter::FeedSnapshot));
            messages.map(|(_, count)| count).sum()
        };
        let before = taken(vm);
        let outcome = match answer {
            Some(Answer { status, body, .. }) => Ok(Reply { status: *status, body: Body::Here(body) }),
            None => Err(CallFailure::NoAnswer),
        };
        let _ = vm.engine.answer(call.id, outcome, shown);
        if taken(vm) == before {
            return;
        }
        let Some((as_of, ahead)) = answer.and_then(|answer| answer.dated) else { return };
        self.hear(as_of, ahead, now);
        let heard = self.heard;
        self.vms.iter_mut().filter(|known| known.number == asked).for_each(|vm| vm.heard = heard);
    }

    fn hear(&mut self, as_of: UnixMillis, ahead: i64, now: u64) {
        let lead = as_of.0 as i64 - (START_MILLIS + now) as i64;
        // The first message counts as no older than this: the clocks may honestly differ by as much.
        let first_lead = lead.max(self.date_ahead - CLOCK_ERROR_SECONDS as i64 * 1000);
        self.heard = Some(match self.heard {
            None => Heard { lead: first_lead, at: now, ahead },
            Some(heard) if lead > heard.lead(now) => Heard { lead, at: now, ahead: ahead.max(heard.ahead) },
            Some(heard) => Heard { ahead: ahead.max(heard.ahead), ..heard },
        });
    }

    /// Asks a VM whether the bearer of this header may come in.
    pub(crate) fn check(&mut self, vm: usize, path: &str, header: &str, now: u64) -> Decision {
        let shown = self.now(now);
        let headers: [(&[u8], &[u8]); 1] = [(b"authorization", header.as_bytes())];
        let request = RequestView { method: b"GET", path: path.as_bytes(), headers: &headers };
        self.vms[vm].engine.check(&request, Patience::MustDecide, shown)
    }
}
