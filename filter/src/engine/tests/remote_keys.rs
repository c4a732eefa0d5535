//! The keys of a foreign issuer: fetched early, kept while they may be, never replaced by what cannot be used.

use tollgate_shared::token::SigningKey;

use super::*;

struct Foreign {
    engine: Engine<RustCrypto, LocalData>,
    millis: u64,
    /// How it answers; `None` when it does not.
    jwks: Option<String>,
    fetches: Vec<u64>,
}

fn key(number: u8) -> SigningKey {
    SigningKey::from_seed(&[number; 32])
}

fn jwks(keys: &[u8]) -> String {
    let keys: Vec<_> = keys.iter().map(|number| key(*number).public_jwk()).collect();
    serde_json::json!({ "keys": keys }).to_string()
}

impl Foreign {
    fn new() -> Self {
        Self::on(LocalData::default(), 7)
    }

    fn on(data: LocalData, seed: u128) -> Self {
        let remote = serde_json::json!({
            "cluster": "foreign", "uri": "https://foreign.example/keys?v=1", "cache_seconds": 100, "refuse_after_seconds": 300,
        });
        let config = serde_json::json!({
            "providers": [{ "name": "f", "issuer": "https://f", "audiences": ["api"], "keys": { "remote_jwks": remote } }],
            "rules": [{ "match": { "prefix": "/" }, "requires": "token" }],
        });
        let config = Config::parse(config.to_string().as_bytes()).unwrap();
        let engine = Engine::new(config, RustCrypto, data, seed);
        Self { engine, millis: 0, jwks: Some(jwks(&[1])), fetches: Vec::new() }
    }

    fn pass(&mut self, seconds: u64) {
        let end = self.millis + seconds * 1000;
        while self.millis < end {
            self.millis += 100;
            self.engine.tick(at(self.millis)).unwrap();
            while let Some(call) = self.engine.due(at(self.millis)) {
                assert_eq!((call.cluster.as_str(), call.authority.as_str()), ("foreign", "foreign.example"));
                assert_eq!((call.kind, call.path.as_str()), (CallKind::Keys(0), "/keys?v=1"));
                assert!(!call.kind.takes_credential());
                self.fetches.push(self.millis / 1000);
                let outcome = match &self.jwks {
                    Some(body) => Ok(Reply { status: 200, body: Body::Here(body.as_bytes()) }),
                    None => Err(CallFailure::NoAnswer),
                };
                let _ = self.engine.answer(call.id, outcome, at(self.millis));
            }
        }
    }

    /// What a token by this key is answered, and why.
    fn ask(&mut self, by: u8) -> (u16, &'static str) {
        let now = at(self.millis);
        let token = token("https://f", "t", "https://f/v1/status/0", now);
        let value = format!("Bearer {}", key(by).issue(token).unwrap());
        let headers: [(&[u8], &[u8]); 1] = [(b"authorization", value.as_bytes())];
        let request = RequestView { method: b"GET", path: b"/x", headers: &headers };
        match self.engine.check(&request, Patience::MustDecide, now) {
            Decision::Admit(_) => (200, "token"),
            Decision::Refuse(refusal) => (refusal.status, refusal.denial.reason()),
            Decision::Wait => panic!("it must decide"),
        }
    }
}

const GOOD: (u16, &str) = (200, "token");
const UNKNOWN: (u16, &str) = (401, "unknown_key");
const NO_KEYS: (u16, &str) = (503, "keys_unavailable");

#[test]
fn a_foreign_token_is_admitted_once_its_keys_are_there() {
    let mut foreign = Foreign::new();
    assert_eq!(foreign.ask(1), NO_KEYS);
    foreign.pass(1);
    assert_eq!((foreign.ask(1), foreign.ask(2)), (GOOD, UNKNOWN));
}

#[test]
fn keys_are_fetched_again_before_they_are_too_old() {
    let mut foreign = Foreign::new();
    foreign.pass(1_000);
    let gaps: Vec<u64> = foreign.fetches.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.len() >= 9 && gaps.iter().all(|gap| (79..=91).contains(gap)), "{gaps:?}");
}

#[test]
fn an_unknown_key_has_them_fetched_once_and_a_new_one_is_admitted_then() {
    let mut foreign = Foreign::new();
    foreign.pass(6);
    foreign.jwks = Some(jwks(&[1, 2]));
    for _ in 0..1000 {
        assert_eq!(foreign.ask(2), UNKNOWN);
    }
    foreign.pass(1);
    assert_eq!((foreign.fetches.len(), foreign.ask(2)), (2, GOOD));
    // Strangers cost one look in five seconds, and the same stranger none for a minute.
    for stranger in 3..103 {
        foreign.ask(stranger);
        foreign.ask(9);
    }
    foreign.pass(20);
    assert_eq!(foreign.fetches.len(), 2, "within five seconds of the last look nobody is looked for");
    foreign.ask(9);
    foreign.pass(20);
    assert_eq!(foreign.fetches.len(), 3);
    foreign.ask(9);
    foreign.pass(20);
    assert_eq!(foreign.fetches.len(), 3);
    foreign.ask(10);
    foreign.pass(1);
    assert_eq!(foreign.fetches.len(), 4);
}

#[test]
fn the_last_good_set_stays_until_the_hard_limit_whatever_comes_instead() {
    for bad in [
        None,
        Some("{}".to_owned()),
        Some("<html>portal</html>".to_owned()),
        Some("{\"keys\":[]}".to_owned()),
        Some(jwks(&[1, 1])),
        Some(format!("{}{}", jwks(&[2]), " ".repeat(300_000))),
    ] {
        let mut foreign = Foreign::new();
        foreign.pass(1);
        foreign.jwks = bad;
        for _ in 0..29 {
            foreign.pass(10);
            assert_eq!(
                (foreign.ask(1), foreign.ask(2)),
                (GOOD, UNKNOWN),
                "after {} s",
                foreign.millis / 1000
            );
        }
        foreign.pass(10);
        assert_eq!((foreign.ask(1), foreign.ask(2)), (NO_KEYS, NO_KEYS));
        // Not asked for more often than the longest backoff, and back by itself.
        assert!(foreign.fetches.len() < 300, "{} fetches", foreign.fetches.len());
        foreign.jwks = Some(jwks(&[1]));
        foreign.pass(11);
        assert_eq!(foreign.ask(1), GOOD);
    }
}

#[test]
fn a_withdrawn_key_is_refused_as_soon_as_the_set_lacks_it_also_for_a_token_that_was_seen() {
    let mut foreign = Foreign::new();
    foreign.jwks = Some(jwks(&[1, 2]));
    foreign.pass(1);
    assert_eq!(foreign.ask(2), GOOD);
    foreign.jwks = Some(jwks(&[1]));
    foreign.pass(100);
    assert_eq!((foreign.ask(1), foreign.ask(2)), (GOOD, UNKNOWN));
}

#[test]
fn the_vms_of_a_process_fetch_once_for_all_and_a_late_one_knows_how_old_they_are() {
    let data = LocalData::default();
    let (mut first, mut second) = (Foreign::on(data.clone(), 7), Foreign::on(data.clone(), 8));
    for _ in 0..10 {
        first.pass(1);
        second.pass(1);
    }
    assert_eq!((first.fetches.len(), second.fetches.len()), (1, 0));
    assert_eq!((first.ask(1), second.ask(1)), (GOOD, GOOD));
    (first.jwks, second.jwks) = (None, None);
    for _ in 0..280 {
        first.pass(1);
        second.pass(1);
    }
    let mut late = Foreign::on(data, 9);
    (late.jwks, late.millis) = (None, first.millis);
    late.pass(1);
    assert_eq!(late.ask(1), GOOD);
    late.pass(20);
    assert_eq!(late.ask(1), NO_KEYS);
}
