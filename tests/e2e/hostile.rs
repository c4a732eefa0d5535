//! Every hostile token we know a class of, and the good ones that look like them.
//!
//! A token is odd in one respect and, unless the class is about signatures or keys, signed by the genuine key: whatever
//! lets it through is the one check it is meant for. The classes carry the number of their row in the checklist of
//! reliability and security.

mod algorithms;
mod claims;
mod credential;
mod encoding;
mod good;
mod header;
mod json;
mod keys;
mod signatures;
mod time;

use std::collections::{BTreeMap, BTreeSet};

use base64ct::{Base64UrlUnpadded, Encoding as _};
use serde_json::{Map, Value, json};
use tollgate_filter::config::Config;
use tollgate_filter::engine::{Decision, Engine, LocalData, Patience, Refusal, RequestView};
use tollgate_shared::time::{Monotonic, Now, UnixMillis};
use tollgate_shared::token::RustCrypto;

use crate::foreign::{AUDIENCE, Algorithm, ForeignIssuer, ISSUER};

pub(crate) use good::good_tokens;

/// One request that must be refused.
#[derive(Debug, Clone)]
pub(crate) struct Hostile {
    /// Its name, which no other has.
    pub(crate) name: String,
    /// The row of the checklist that it belongs to.
    pub(crate) row: u8,
    /// Why it must be refused.
    pub(crate) why: &'static str,
    /// The value of the `Authorization` header.
    pub(crate) authorization: Vec<u8>,
    /// The labels of the metric that may count it.
    pub(crate) reasons: &'static [&'static str],
    /// The status that it is answered with.
    pub(crate) status: u16,
}

/// What several hostile tokens have in common.
#[derive(Debug, Clone, Copy)]
struct Class {
    row: u8,
    reasons: &'static [&'static str],
    why: &'static str,
}

/// Where hostile tokens are made and collected.
struct Bench<'i> {
    issuer: &'i ForeignIssuer,
    now: u64,
    hostile: Vec<Hostile>,
}

/// Every hostile request, for the provider that [`provider`] describes.
pub(crate) fn hostile_tokens(issuer: &ForeignIssuer, now: u64) -> Vec<Hostile> {
    let mut bench = Bench { issuer, now, hostile: Vec::new() };
    algorithms::fill(&mut bench);
    keys::fill(&mut bench);
    header::fill(&mut bench);
    encoding::fill(&mut bench);
    json::fill(&mut bench);
    claims::fill(&mut bench);
    time::fill(&mut bench);
    signatures::fill(&mut bench);
    credential::fill(&mut bench);
    bench.hostile
}

/// The provider, as the filter's configuration has it, that the verdicts are about.
pub(crate) fn provider(issuer: &ForeignIssuer) -> Value {
    json!({
        "name": "foreign",
        "issuer": ISSUER,
        "audiences": [AUDIENCE],
        "keys": { "inline_jwks": issuer.jwks_with_unusable_keys().to_string() },
        "claim_to_headers": [
            { "claim_name": "sub", "header_name": "x-tollgate-subject" },
            { "claim_name": "scope", "header_name": "x-tollgate-scope" },
        ],
    })
}

impl Bench<'_> {
    /// The header of a good token with one member replaced by `raw`, which need not be JSON.
    fn header_with(&self, algorithm: Algorithm, name: &str, raw: &str) -> String {
        object_with(self.issuer.header(algorithm), name, raw)
    }

    /// The claims of a good token with one member replaced by `raw`, which need not be JSON.
    fn claims_with(&self, name: &str, raw: &str) -> String {
        object_with(self.issuer.claims(self.now), name, raw)
    }

    fn good_header(&self, algorithm: Algorithm) -> String {
        Value::Object(self.issuer.header(algorithm)).to_string()
    }

    fn good_claims(&self) -> String {
        Value::Object(self.issuer.claims(self.now)).to_string()
    }

    /// A good token.
    fn good_token(&self, algorithm: Algorithm) -> String {
        self.issuer.token(algorithm, &self.issuer.claims(self.now))
    }

    /// A genuine EdDSA token with this text for a header.
    fn under_header(&self, header: impl AsRef<[u8]>) -> String {
        self.issuer.token_with_header(header, self.good_claims(), Algorithm::EdDsa)
    }

    /// A genuine EdDSA token with this text for claims.
    fn with_payload(&self, payload: impl AsRef<[u8]>) -> String {
        self.issuer.token_with_header(self.good_header(Algorithm::EdDsa), payload, Algorithm::EdDsa)
    }

    /// A genuine EdDSA token with one member of the header replaced.
    fn under_member(&self, name: &str, raw: &str) -> String {
        self.under_header(self.header_with(Algorithm::EdDsa, name, raw))
    }

    /// A genuine EdDSA token with one claim replaced.
    fn with_claim(&self, name: &str, raw: &str) -> String {
        self.with_payload(self.claims_with(name, raw))
    }

    /// Adds a bearer token that must be answered with 401.
    fn refuse(&mut self, class: &Class, name: impl Into<String>, token: impl AsRef<[u8]>) {
        let authorization = [b"Bearer ", token.as_ref()].concat();
        self.refuse_value(class, 401, name, authorization);
    }

    /// Adds a whole `Authorization` header.
    fn refuse_value(
        &mut self,
        class: &Class,
        status: u16,
        name: impl Into<String>,
        authorization: impl Into<Vec<u8>>,
    ) {
        let Class { row, reasons, why } = *class;
        self.hostile.push(Hostile {
            name: name.into(),
            row,
            why,
            authorization: authorization.into(),
            reasons,
            status,
        });
    }
}

/// An object in which `name` has the value `raw`, as the last member.
fn object_with(mut object: Map<String, Value>, name: &str, raw: &str) -> String {
    object.remove(name);
    members_then(&object, &format!("{}:{raw}", json!(name)))
}

/// An object without `name`.
fn object_without(mut object: Map<String, Value>, name: &str) -> String {
    object.remove(name);
    Value::Object(object).to_string()
}

/// The members of an object, followed by more text in front of the closing brace.
fn members_then(object: &Map<String, Value>, more: &str) -> String {
    let text = Value::Object(object.clone()).to_string();
    let open = text.strip_suffix('}').unwrap_or(&text);
    let comma = if object.is_empty() { "" } else { "," };
    format!("{open}{comma}{more}}}")
}

/// The three segments of a token.
fn segments(token: &str) -> [&str; 3] {
    let mut segments = token.split('.');
    std::array::from_fn(|_| segments.next().unwrap_or_default())
}

/// A token of exactly `length` bytes, genuine in every respect.
fn token_of_length(issuer: &ForeignIssuer, now: u64, length: usize) -> String {
    let claims = issuer.claims(now);
    let bare = members_then(&claims, "\"pad\":\"\"").len();
    for spaces in 0..4 {
        let header = format!("{}{}", Value::Object(issuer.header(Algorithm::EdDsa)), " ".repeat(spaces));
        // Two dots, and 64 bytes of signature in base64url.
        let rest = (header.len() * 4).div_ceil(3) + 2 + 86;
        let payload = (length - rest) * 3 / 4;
        let filler = "x".repeat(payload - bare);
        let payload = members_then(&claims, &format!("\"pad\":\"{filler}\""));
        let token = issuer.token_with_header(header, payload, Algorithm::EdDsa);
        if token.len() == length {
            return token;
        }
    }
    unreachable!("one of four headers leaves a length that base64url can have")
}

const NOW: u64 = 1_800_000_000;

#[test]
fn hostile_tokens_cover_the_checklist_and_have_names() {
    let hostile = hostile_tokens(ForeignIssuer::shared(), NOW);
    let names: BTreeSet<&str> = hostile.iter().map(|hostile| hostile.name.as_str()).collect();
    assert_eq!(names.len(), hostile.len(), "a name stands twice");
    for Hostile { name, why, authorization, reasons, status, .. } in &hostile {
        let kebab = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        assert!(!name.is_empty() && name.bytes().all(kebab), "{name}: not in kebab case");
        assert!(!why.is_empty() && !reasons.is_empty() && [400, 401].contains(status), "{name}: incomplete");
        let delivered = !authorization.iter().any(|byte| b"\r\n\0".contains(byte));
        // HTTP drops white space around a value, and what is left might be good.
        assert!(delivered && authorization.trim_ascii() == authorization, "{name}: no host receives this");
    }
    let values: BTreeSet<&[u8]> = hostile.iter().map(|hostile| hostile.authorization.as_slice()).collect();
    assert_eq!(values.len(), hostile.len(), "two of them are the same");
    assert!(hostile.len() >= 180, "only {}", hostile.len());

    let mut rows: BTreeMap<u8, usize> = BTreeMap::new();
    for hostile in &hostile {
        *rows.entry(hostile.row).or_default() += 1;
    }
    // Row 15 is about the answer, not about a token; rows 17, 18 and 20 are the ones beside 1 to 16 that tokens touch.
    for row in (1..=14).chain([16, 17, 18, 20]) {
        assert!(rows.contains_key(&row), "no token for row {row}; there are {rows:?}");
    }
    assert!(good_tokens(ForeignIssuer::shared(), NOW).len() >= 12);
}

#[test]
fn a_token_that_is_odd_in_its_text_is_genuine_otherwise() {
    let issuer = ForeignIssuer::shared();
    for Hostile { name, row, authorization, .. } in hostile_tokens(issuer, NOW) {
        let about_text = [4, 7, 8, 9, 10, 11, 20].contains(&row) && !name.starts_with("opaque-");
        let token = authorization.strip_prefix(b"Bearer ").and_then(|token| std::str::from_utf8(token).ok());
        if let Some(token) = token.filter(|_| about_text) {
            let (signed, signature) = token.rsplit_once('.').unwrap_or_default();
            let signature = Base64UrlUnpadded::decode_vec(signature).unwrap_or_default();
            assert!(
                issuer.genuine.made(&signature, signed.as_bytes()),
                "{name}: refused for its signature alone"
            );
        }
    }
}

#[test]
fn every_hostile_token_is_refused_for_its_own_reason_and_every_good_one_admitted() {
    let issuer = ForeignIssuer::shared();
    let mut faults = Vec::new();
    let mut answers: BTreeMap<String, String> = BTreeMap::new();
    for hostile in hostile_tokens(issuer, NOW) {
        let Hostile { name, row, why, authorization, reasons, status } = hostile;
        let refusal = match decide(&authorization) {
            Decision::Refuse(refusal) => refusal,
            Decision::Admit(_) | Decision::Wait => {
                faults.push(format!("row {row}, {name}: not refused, although {why}"));
                continue;
            }
        };
        let Refusal { status: given, headers, body, denial } = refusal;
        if given != status || !reasons.contains(&denial.reason()) {
            faults.push(format!("row {row}, {name}: {given} {}, not {status} {reasons:?}", denial.reason()));
        }
        // Whoever brought no bearer token is told which one is wanted, and not that a token was bad.
        if given == 401 && denial.reason() != "no_credential" {
            answers.entry(format!("{headers:?} {body}")).or_insert(name);
        }
    }
    for (name, token) in good_tokens(issuer, NOW) {
        if let Decision::Refuse(refusal) = decide(format!("Bearer {token}").as_bytes()) {
            faults.push(format!("{name}: refused as {}, although it is good", refusal.denial.reason()));
        }
    }
    if answers.len() != 1 {
        faults.push(format!("row 15: bad tokens are told apart by {answers:?}"));
    }
    assert!(faults.is_empty(), "{} wrong verdicts:\n{}", faults.len(), faults.join("\n"));
}

/// The verdict of an engine that has seen nothing before.
fn decide(authorization: &[u8]) -> Decision {
    let config = json!({
        "providers": [provider(ForeignIssuer::shared())],
        "rules": [{ "match": { "prefix": "/" }, "requires": { "scopes": ["read"] } }],
    });
    let config = Config::parse(config.to_string().as_bytes());
    let Ok(config) = config else { unreachable!("the configuration is refused: {config:?}") };
    let request = RequestView { method: b"GET", path: b"/x", headers: &[(b"authorization", authorization)] };
    let now = Now { wall: UnixMillis(NOW * 1000), monotonic: Monotonic(1) };
    Engine::new(config, RustCrypto, LocalData::default(), 1).check(&request, Patience::MustDecide, now)
}
