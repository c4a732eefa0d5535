//! What the engine keeps to itself: bounds, credentials and the state of calls. Its verdicts are in the conversations.

mod process;
mod remote_keys;

use tollgate_shared::time::UnixMillis;
use tollgate_shared::token::{AccessToken, IssuedStatus, RustCrypto};

use super::*;

const ANCHOR: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

fn engine() -> Engine<RustCrypto, LocalData> {
    let config = serde_json::json!({
        "providers": [{ "name": "home", "issuer": "https://i", "audiences": ["api"], "keys": "feed" }],
        "origin": { "cluster": "issuer", "authority": "i", "edge_id": "e", "trust_anchor": ANCHOR },
        "rules": [{ "match": { "prefix": "/" }, "requires": "token" }],
    });
    Engine::new(Config::parse(config.to_string().as_bytes()).unwrap(), RustCrypto, LocalData::default(), 7)
}

/// The feed's call that is due, of an engine that leads.
fn due(engine: &mut Engine<RustCrypto, LocalData>, millis: u64) -> Option<Call> {
    // The lease is made, then taken.
    (0..2).for_each(|_| engine.tick(at(millis)).unwrap());
    std::iter::from_fn(|| engine.due(at(millis))).find(|call| call.kind == CallKind::Feed)
}

/// A token of ten minutes, without a session.
fn token<'t>(issuer: &'t str, token_id: &'t str, status_list: &'t str, now: Now) -> AccessToken<'t> {
    AccessToken {
        issuer,
        subject: "u",
        audience: "api",
        client: "c",
        token_id,
        issued_at: now.wall.seconds(),
        expires_at: now.wall.seconds().plus(600),
        scope: "",
        roles: &[],
        tenant: None,
        plan: "free",
        session: None,
        status: IssuedStatus::new(0, status_list),
    }
}

fn at(millis: u64) -> Now {
    Now { wall: UnixMillis(1_800_000_000_000 + millis), monotonic: Monotonic(millis) }
}

#[test]
fn one_poll_is_under_way_at_a_time_and_a_lost_one_is_given_up() {
    let mut engine = engine();
    let first = due(&mut engine, 0).expect("the first poll");
    assert_eq!((first.kind, first.path.as_str()), (CallKind::Feed, "/v1/edge/feed?pieces=apart"));
    assert_eq!(due(&mut engine, 5_999), None);
    assert_eq!(due(&mut engine, 6_000), None, "given up, and the next waits for its backoff");
    let second = due(&mut engine, 6_300).expect("another poll within the first backoff");
    assert_ne!(first.id, second.id);
    // The lost answer arrives after all; nobody waits for it.
    engine.answer(first.id, Ok(Reply { status: 200, body: Body::Here(b"x") }), at(6_301)).unwrap();
    let refused = engine.answer(second.id, Ok(Reply { status: 200, body: Body::Here(b"x") }), at(6_302));
    assert!(matches!(refused, Err(AnswerFault::Decode(_))));
}

#[test]
fn failures_back_off_to_ten_seconds_and_no_further() {
    let (mut engine, mut now, mut polls) = (engine(), 0, Vec::new());
    while polls.len() < 40 {
        if let Some(call) = due(&mut engine, now) {
            engine.answer(call.id, Err(CallFailure::NoAnswer), at(now)).unwrap_err();
            polls.push(now);
        }
        now += 10;
    }
    let waits: Vec<u64> = polls.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(waits[0] <= 260, "{waits:?}");
    assert!(waits.iter().all(|wait| *wait <= 10_010), "{waits:?}");
    assert!(waits[10..].iter().sum::<u64>() > 30 * 3_000, "the backoff does not grow: {waits:?}");
}

#[test]
fn a_decision_costs_no_call_when_there_is_no_state() {
    let mut engine = engine();
    let request =
        RequestView { method: b"GET", path: b"/x", headers: &[(b"authorization", b"Bearer a.b.c")] };
    for _ in 0..1000 {
        assert!(matches!(
            engine.check(&request, Patience::MayWait, at(0)),
            Decision::Refuse(Refusal { status: 503, .. })
        ));
    }
    assert!(due(&mut engine, 0).is_some() && due(&mut engine, 0).is_none(), "one poll, whatever the load");
}

#[test]
fn retry_after_is_spread() {
    let mut engine = engine();
    let request = RequestView { method: b"GET", path: b"/x", headers: &[] };
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..100 {
        if let Decision::Refuse(refusal) = engine.check(&request, Patience::MayWait, at(0)) {
            seen.extend(refusal.headers.into_iter().filter(|(name, _)| *name == "retry-after"));
        }
    }
    assert!(seen.len() >= 3, "{seen:?}");
}

#[test]
fn nothing_that_prints_an_engine_prints_a_token() {
    let mut cache = VerifiedCache::default();
    assert_eq!(format!("{cache:?}"), "VerifiedCache { len: 0, .. }");
    cache.remove(b"canary");
    assert!(!format!("{:?}", engine()).contains("canary"));
}

#[test]
fn the_cache_of_verified_tokens_is_bounded_and_a_full_one_still_admits() {
    use tollgate_shared::token::SigningKey;

    let key = SigningKey::from_seed(&[5; 32]);
    let jwks = serde_json::json!({ "keys": [key.public_jwk()] }).to_string();
    let config = serde_json::json!({
        "providers": [{ "name": "p", "issuer": "https://i", "audiences": ["api"], "keys": { "inline_jwks": jwks } }],
        "rules": [{ "match": { "prefix": "/" }, "requires": "token" }],
    });
    let mut engine = Engine::new(
        Config::parse(config.to_string().as_bytes()).unwrap(),
        RustCrypto,
        LocalData::default(),
        7,
    );
    let now = at(0);
    let admits = |engine: &mut Engine<RustCrypto, LocalData>, number: usize| {
        let number = number.to_string();
        let token =
            AccessToken { session: Some("s"), ..token("https://i", &number, "https://i/v1/status/0", now) };
        let value = format!("Bearer {}", key.issue(token).unwrap());
        let request =
            RequestView { method: b"GET", path: b"/x", headers: &[(b"authorization", value.as_bytes())] };
        matches!(engine.check(&request, Patience::MustDecide, now), Decision::Admit(_))
    };
    for number in 0..cache::ENTRIES_MAX + 500 {
        assert!(admits(&mut engine, number));
    }
    let cached = |engine: &Engine<RustCrypto, LocalData>| {
        engine.metrics(now).gauges().find(|(gauge, _)| *gauge == Gauge::CachedTokens).map(|(_, value)| value)
    };
    assert_eq!(cached(&engine), Some(cache::ENTRIES_MAX as u64));
    let hits = |engine: &Engine<RustCrypto, LocalData>| {
        engine
            .metrics(now)
            .counters()
            .find(|(counter, _)| *counter == Counter::CacheHit)
            .map_or(0, |(_, count)| count)
    };
    let before = hits(&engine);
    assert!(
        admits(&mut engine, cache::ENTRIES_MAX + 499) && hits(&engine) == before + 1,
        "the latest is not kept"
    );
    assert!(
        admits(&mut engine, 0) && hits(&engine) == before + 1,
        "the first was evicted, and is verified again"
    );
}
