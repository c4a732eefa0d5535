use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64ct::Base64;
use serde_json::{Value, json};
use tollgate_shared::token::RustCrypto;

use super::*;

pub(crate) const NOW: UnixSeconds = UnixSeconds(1_800_000_000);
pub(crate) const CLIENT: &str = "batch";
pub(crate) const AUDIENCES: [&str; 2] = ["https://issuer.test", "https://issuer.test/oauth2/token"];

/// A client's private key, used by a library that is not ours and, for what no library makes, directly.
pub(crate) struct ClientKey {
    kid: String,
    private: Private,
}

enum Private {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
    Rsa(Box<RsaKeyPair>),
}

impl ClientKey {
    pub(crate) fn ed25519(kid: &str) -> Self {
        Self { kid: kid.to_owned(), private: Private::Ed25519(Ed25519KeyPair::generate().unwrap()) }
    }

    fn p256(kid: &str) -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self { kid: kid.to_owned(), private: Private::P256(key) }
    }

    fn rsa(kid: &str) -> Self {
        let key = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        Self { kid: kid.to_owned(), private: Private::Rsa(Box::new(key)) }
    }

    fn all() -> [Self; 3] {
        [Self::ed25519("ed"), Self::p256("es"), Self::rsa("rs")]
    }

    fn algorithm(&self) -> &'static str {
        match &self.private {
            Private::Ed25519(_) => "EdDSA",
            Private::P256(_) => "ES256",
            Private::Rsa(_) => "RS256",
        }
    }

    fn jwk(&self) -> Value {
        let encode = Base64UrlUnpadded::encode_string;
        let mut jwk = match &self.private {
            Private::Ed25519(key) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(key.public_key().as_ref()) })
            }
            Private::P256(key) => {
                let (x, y) = key.public_key().as_ref()[1..].split_at(32);
                json!({ "kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y) })
            }
            Private::Rsa(key) => {
                let modulus = key.public_key().modulus().big_endian_without_leading_zero();
                json!({ "kty": "RSA", "n": encode(modulus), "e": "AQAB" })
            }
        };
        jwk["kid"] = json!(self.kid);
        jwk["use"] = json!("sig");
        jwk
    }

    /// As the `jsonwebtoken` crate signs it.
    pub(crate) fn token(&self, claims: &Value) -> String {
        let document = match &self.private {
            Private::Ed25519(key) => key.to_pkcs8v1().unwrap().as_ref().to_vec(),
            Private::P256(key) => key.to_pkcs8v1().unwrap().as_ref().to_vec(),
            Private::Rsa(key) => AsDer::<Pkcs8V1Der<'_>>::as_der(&**key).unwrap().as_ref().to_vec(),
        };
        let body = Base64::encode_string(&document);
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n").into_bytes();
        let (algorithm, key) = match &self.private {
            Private::Ed25519(_) => {
                (jsonwebtoken::Algorithm::EdDSA, jsonwebtoken::EncodingKey::from_ed_pem(&pem))
            }
            Private::P256(_) => {
                (jsonwebtoken::Algorithm::ES256, jsonwebtoken::EncodingKey::from_ec_pem(&pem))
            }
            Private::Rsa(_) => {
                (jsonwebtoken::Algorithm::RS256, jsonwebtoken::EncodingKey::from_rsa_pem(&pem))
            }
        };
        let mut header = jsonwebtoken::Header::new(algorithm);
        header.kid = Some(self.kid.clone());
        jsonwebtoken::encode(&header, claims, &key.unwrap()).unwrap()
    }

    /// A genuine signature under any header and any payload.
    fn token_of(&self, header: &str, payload: &str) -> String {
        let encode = |text: &str| Base64UrlUnpadded::encode_string(text.as_bytes());
        let signed = format!("{}.{}", encode(header), encode(payload));
        format!("{signed}.{}", Base64UrlUnpadded::encode_string(&self.sign(signed.as_bytes())))
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.private {
            Private::Ed25519(key) => key.sign(message).as_ref().to_vec(),
            Private::P256(key) => key.sign(&random, message).unwrap().as_ref().to_vec(),
            Private::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
                signature
            }
        }
    }
}

pub(crate) fn jwks(keys: &[&ClientKey]) -> String {
    json!({ "keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>() }).to_string()
}

fn set(keys: &[&ClientKey]) -> KeySet {
    KeySet::from_jwks(jwks(keys).as_bytes()).unwrap().0
}

pub(crate) fn claims() -> Value {
    json!({ "iss": CLIENT, "sub": CLIENT, "aud": AUDIENCES[0], "jti": "1", "iat": NOW.0, "exp": NOW.0 + 60 })
}

fn changed(change: impl FnOnce(&mut Value)) -> Value {
    let mut claims = claims();
    change(&mut claims);
    claims
}

fn check(token: &str, keys: &KeySet) -> Result<UsedAssertion, AssertionFault> {
    UntrustedAssertion::parse(token)?.verify(keys, &AUDIENCES, NOW, &RustCrypto)
}

#[test]
fn an_assertion_of_each_algorithm_proves_its_client_once() {
    let keys = ClientKey::all();
    let all = set(&keys.each_ref());
    for key in &keys {
        let token = key.token(&claims());
        assert_eq!(UntrustedAssertion::parse(&token).unwrap().claimed_client().as_str(), CLIENT);
        let used = check(&token, &all).unwrap();
        assert_eq!(used.until, NOW.plus(60 + SKEW_SECONDS), "{}", key.algorithm());
        // The caller refuses what it has recorded: another `jti` is another assertion, another signature is not.
        assert_eq!(check(&token, &all).unwrap(), used);
        let other = key.token(&changed(|claims| claims["jti"] = json!("2")));
        assert_ne!(check(&other, &all).unwrap().digest, used.digest);
        assert!(!format!("{:?}", UntrustedAssertion::parse(&token).unwrap()).contains(&token[..20]));
    }
    let clients = ["a", "b"].map(|client| {
        let claims = changed(|claims| {
            claims["iss"] = json!(client);
            claims["sub"] = json!(client);
        });
        check(&keys[0].token(&claims), &all).unwrap().digest
    });
    assert_ne!(clients[0], clients[1], "two clients may choose the same jti");
}

#[test]
fn what_libraries_write_differently_is_taken() {
    let key = ClientKey::ed25519("ed");
    let keys = set(&[&key]);
    let payload = claims().to_string();
    for header in [
        r#"{"alg":"EdDSA","kid":"ed"}"#,
        r#"{"alg":"Ed25519","kid":"ed"}"#,
        r#"{"alg":"EdDSA"}"#,
        r#"{"alg":"EdDSA","typ":"jwt"}"#,
        r#"{"alg":"EdDSA","typ":"client-authentication+jwt"}"#,
    ] {
        assert!(check(&key.token_of(header, &payload), &keys).is_ok(), "{header}");
    }
    for aud in [json!(AUDIENCES[1]), json!([AUDIENCES[0]]), json!(["https://other.test", AUDIENCES[1]])] {
        assert!(check(&key.token(&changed(|claims| claims["aud"] = aud.clone())), &keys).is_ok(), "{aud}");
    }
    let fraction = changed(|claims| claims["exp"] = json!(NOW.0 as f64 + 30.5));
    assert_eq!(check(&key.token(&fraction), &keys).unwrap().until, NOW.plus(30 + SKEW_SECONDS));
}

#[test]
fn without_kid_the_algorithm_must_say_which_key() {
    let [one, other] = [ClientKey::ed25519("one"), ClientKey::ed25519("other")];
    let elliptic = ClientKey::p256("es");
    let token = one.token_of(r#"{"alg":"EdDSA"}"#, &claims().to_string());
    assert!(check(&token, &set(&[&one, &elliptic])).is_ok());
    assert_eq!(check(&token, &set(&[&one, &other])), Err(AssertionFault::UnknownKey));
    assert_eq!(check(&token, &set(&[&elliptic])), Err(AssertionFault::UnknownKey));
    assert_eq!(check(&token, &set(&[&other])), Err(AssertionFault::Signature));
}

#[test]
fn no_other_header_is_taken() {
    let [ed, es, rs] = ClientKey::all();
    let keys = set(&[&ed, &es, &rs]);
    let payload = claims().to_string();
    let cases = [
        (r#"{"alg":"none","kid":"ed"}"#, AssertionFault::Algorithm),
        (r#"{"alg":"HS256","kid":"ed"}"#, AssertionFault::Algorithm),
        (r#"{"alg":"PS256","kid":"ed"}"#, AssertionFault::Algorithm),
        (r#"{"alg":"eddsa","kid":"ed"}"#, AssertionFault::Algorithm),
        (r#"{"alg":["EdDSA"],"kid":"ed"}"#, AssertionFault::Algorithm),
        (r#"{"kid":"ed"}"#, AssertionFault::Algorithm),
        (r#"{"alg":"EdDSA","kid":"nobody"}"#, AssertionFault::UnknownKey),
        (r#"{"alg":"EdDSA","kid":""}"#, AssertionFault::KeyId),
        (r#"{"alg":"EdDSA","kid":1}"#, AssertionFault::KeyId),
        (r#"{"alg":"ES256","kid":"ed"}"#, AssertionFault::AlgorithmMismatch),
        (r#"{"alg":"EdDSA","kid":"es"}"#, AssertionFault::AlgorithmMismatch),
        (r#"{"alg":"ES256","kid":"es"}"#, AssertionFault::Signature),
        (r#"{"alg":"RS256","kid":"rs"}"#, AssertionFault::Signature),
        (r#"{"alg":"EdDSA","kid":"ed","crit":["exp"]}"#, AssertionFault::Header),
        (r#"{"alg":"EdDSA","kid":"ed","b64":false}"#, AssertionFault::Header),
        (r#"{"alg":"EdDSA","kid":"ed","zip":"DEF"}"#, AssertionFault::Header),
        (r#"{"alg":"EdDSA","kid":"ed","typ":"at+jwt"}"#, AssertionFault::Type),
        (r#"{"alg":"EdDSA","kid":"ed","typ":7}"#, AssertionFault::Type),
        (r#"{"alg":"EdDSA","alg":"EdDSA","kid":"ed"}"#, AssertionFault::Malformed),
        (r#"["EdDSA"]"#, AssertionFault::Malformed),
    ];
    for (header, fault) in cases {
        assert_eq!(check(&ed.token_of(header, &payload), &keys), Err(fault), "{header}");
    }
    // A key that the token brings itself is looked at by nobody.
    let own = json!({ "alg": "EdDSA", "kid": "ed", "jwk": ClientKey::ed25519("x").jwk() }).to_string();
    let attacker = ClientKey::ed25519("ed");
    assert_eq!(check(&attacker.token_of(&own, &payload), &keys), Err(AssertionFault::Signature));
}

#[test]
fn no_other_claims_are_taken() {
    let key = ClientKey::ed25519("ed");
    let keys = set(&[&key]);
    let set_to = |name: &'static str, value: Value| {
        changed(move |claims| {
            claims[name] = value;
        })
    };
    let without = |name: &str| {
        changed(|claims| {
            claims.as_object_mut().unwrap().remove(name);
        })
    };
    let cases = [
        (without("iss"), AssertionFault::Issuer),
        (set_to("iss", json!("other")), AssertionFault::Issuer),
        (set_to("iss", json!([CLIENT])), AssertionFault::Issuer),
        (without("sub"), AssertionFault::Subject),
        (set_to("sub", json!("")), AssertionFault::Subject),
        (set_to("sub", json!("other")), AssertionFault::Issuer),
        (without("aud"), AssertionFault::Audience),
        (set_to("aud", json!("https://other.test")), AssertionFault::Audience),
        (set_to("aud", json!("https://issuer.test/")), AssertionFault::Audience),
        (set_to("aud", json!([])), AssertionFault::Audience),
        (set_to("aud", json!([AUDIENCES[0], 1])), AssertionFault::Audience),
        (set_to("aud", json!({ "a": AUDIENCES[0] })), AssertionFault::Audience),
        (without("jti"), AssertionFault::TokenId),
        (set_to("jti", json!("")), AssertionFault::TokenId),
        (set_to("jti", json!(1)), AssertionFault::TokenId),
        (set_to("jti", json!("x".repeat(TOKEN_ID_BYTES_MAX + 1))), AssertionFault::TokenId),
        (without("exp"), AssertionFault::Date),
        (set_to("exp", json!("soon")), AssertionFault::Date),
        (set_to("exp", json!(-1)), AssertionFault::Date),
        (set_to("exp", json!(1u64 << 60)), AssertionFault::Date),
        (set_to("iat", json!("now")), AssertionFault::Date),
        (set_to("iat", json!(null)), AssertionFault::Date),
        (set_to("nbf", json!(true)), AssertionFault::Date),
    ];
    for (claims, fault) in cases {
        assert_eq!(check(&key.token(&claims), &keys), Err(fault), "{claims}");
    }
    assert!(check(&key.token(&set_to("jti", json!("x".repeat(TOKEN_ID_BYTES_MAX)))), &keys).is_ok());
}

#[test]
fn time_is_short_whatever_the_client_writes() {
    let key = ClientKey::ed25519("ed");
    let keys = set(&[&key]);
    let now = i64::try_from(NOW.0).unwrap();
    let skew = i64::try_from(SKEW_SECONDS).unwrap();
    let life = i64::try_from(LIFETIME_SECONDS_MAX).unwrap();
    let stated = i64::try_from(STATED_SECONDS_MAX).unwrap();
    // `iat`, `nbf` and `exp` from now, and for how long from now it would be taken.
    let cases = [
        (Some(0), None, 60, Ok(60 + skew)),
        (None, None, 60, Ok(60 + skew)),
        (Some(0), Some(0), life, Ok(life + skew)),
        (None, None, life, Ok(life + skew)),
        (None, None, life + skew, Ok(life + 2 * skew)),
        (None, None, life + skew + 1, Err(AssertionFault::TooLong)),
        (Some(0), None, stated, Ok(life + skew)),
        (Some(-300), None, stated, Ok(life - 300 + skew)),
        (Some(0), None, stated + skew + 1, Err(AssertionFault::TooLong)),
        (Some(-life - skew), None, 60, Err(AssertionFault::Expired)),
        (Some(-life - skew + 1), None, 60, Ok(1)),
        (Some(-100), None, -skew, Err(AssertionFault::Expired)),
        (Some(-100), None, -skew + 1, Ok(1)),
        (Some(skew), None, 60 + skew, Ok(60 + 2 * skew)),
        (Some(skew + 1), None, 60 + skew, Err(AssertionFault::NotYetValid)),
        (Some(0), Some(skew), 600, Ok(life + skew)),
        (Some(0), Some(skew + 1), 600, Err(AssertionFault::NotYetValid)),
    ];
    for (iat, nbf, exp, expected) in cases {
        let claims = changed(|claims| {
            let members = claims.as_object_mut().unwrap();
            members.remove("iat");
            for (name, date) in [("iat", iat), ("nbf", nbf), ("exp", Some(exp))] {
                if let Some(date) = date {
                    members.insert(name.to_owned(), json!(now + date));
                }
            }
        });
        let until = check(&key.token(&claims), &keys).map(|used| i64::try_from(used.until.0).unwrap() - now);
        assert_eq!(until, expected, "iat {iat:?}, nbf {nbf:?}, exp {exp}");
    }
}

#[test]
fn what_is_no_jwt_is_refused_before_anything_in_it_counts() {
    let key = ClientKey::ed25519("ed");
    let keys = set(&[&key]);
    let good = key.token(&claims());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let other = key.token(&changed(|claims| claims["jti"] = json!("2")));
    let forged = format!("{}.{signature}", other.rsplit_once('.').unwrap().0);
    assert_eq!(check(&forged, &keys), Err(AssertionFault::Signature));
    let long = format!("{signed}.{}", "A".repeat(TOKEN_BYTES_MAX));
    for text in [
        "",
        ".",
        "..",
        "a.b.c",
        signed,
        &format!("{signed}."),
        &format!("{good}="),
        &format!("{good}.x"),
        &format!(" {good}"),
        &long,
        &key.token_of(r#"{"alg":"EdDSA","kid":"ed"}"#, r#"{"sub":"batch","sub":"batch"}"#),
        &key.token_of(r#"{"alg":"EdDSA","kid":"ed"}"#, "[]"),
    ] {
        assert_eq!(check(text, &keys), Err(AssertionFault::Malformed), "{text}");
    }
}
