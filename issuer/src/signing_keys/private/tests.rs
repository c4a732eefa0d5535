//! Private keys: what they sign is good for our verifier and for another's, and what is kept of them is the same key.

use std::sync::Mutex;

use base64ct::{Base64UrlUnpadded, Encoding};
use tollgate_shared::time::{Now, UnixSeconds};
use tollgate_shared::token::{
    AccessToken, IssuedStatus, KeySet, RustCrypto, SigningKey, UntrustedToken, VerifyError,
};

use super::*;
use crate::clock::SystemHost;

const KINDS: [NewKey; 3] = [NewKey::EdDsa, NewKey::Es256, NewKey::Rs256(RsaSize::Bits2048)];

/// A machine whose random bytes are known: these blocks in turn, the last one for ever.
#[derive(Debug)]
struct Dice(Mutex<Vec<u8>>);

impl Dice {
    fn of(blocks: &[u8]) -> Self {
        Self(Mutex::new(blocks.iter().rev().copied().collect()))
    }
}

impl Host for Dice {
    fn now(&self) -> Now {
        Now::default()
    }

    fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError> {
        let mut blocks = self.0.lock().unwrap();
        let block = if blocks.len() > 1 { blocks.pop() } else { blocks.last().copied() };
        bytes.fill(block.ok_or(EntropyError)?);
        Ok(())
    }
}

fn token(key: &PrivateKey) -> String {
    let token = AccessToken {
        issuer: "https://i",
        subject: "client-1",
        audience: "api",
        client: "client-1",
        token_id: "t",
        issued_at: UnixSeconds(1_800_000_000),
        expires_at: UnixSeconds(4_000_000_000),
        scope: "read",
        roles: &[],
        tenant: None,
        plan: "free",
        session: None,
        status: IssuedStatus::new(0, "https://i/v1/status/0"),
    };
    token.signed_by(key).unwrap()
}

fn set(key: &PrivateKey) -> KeySet {
    let jwks = serde_json::json!({ "keys": [key.public().public_jwk()] }).to_string();
    let (set, ignored) = KeySet::from_jwks(jwks.as_bytes()).unwrap();
    assert_eq!(ignored, []);
    set
}

fn verify(token: &str, key: &PrivateKey) -> Result<(), VerifyError> {
    let token = UntrustedToken::parse(token.as_bytes()).unwrap();
    token.verify(&set(key), &[key.algorithm()], &RustCrypto).map(|_| ())
}

#[test]
fn what_each_kind_of_key_signs_is_good_for_our_verifier() {
    for kind in KINDS {
        let key = PrivateKey::generate(kind, &SystemHost::new()).unwrap();
        assert_eq!(key.algorithm(), kind.algorithm());
        let good = token(&key);
        assert_eq!(verify(&good, &key), Ok(()), "{kind:?}");
        let (signed, signature) = good.rsplit_once('.').unwrap();
        let mut signature = Base64UrlUnpadded::decode_vec(signature).unwrap();
        signature[9] ^= 1;
        let forged = format!("{signed}.{}", Base64UrlUnpadded::encode_string(&signature));
        assert_eq!(verify(&forged, &key), Err(VerifyError::Signature), "{kind:?}");
    }
}

#[test]
fn what_each_kind_of_key_signs_is_good_for_another_library() {
    for kind in KINDS {
        let key = PrivateKey::generate(kind, &SystemHost::new()).unwrap();
        let token = token(&key);
        let header = jsonwebtoken::decode_header(&token).unwrap();
        assert_eq!(header.kid.as_deref(), Some(key.key_id().as_str()));
        assert_eq!(header.typ.as_deref(), Some("at+jwt"));
        let jwk: jsonwebtoken::jwk::Jwk = serde_json::from_value(key.public().public_jwk()).unwrap();
        let algorithm: jsonwebtoken::Algorithm = kind.algorithm().name().parse().unwrap();
        let mut rules = jsonwebtoken::Validation::new(algorithm);
        rules.set_audience(&["api"]);
        let decoding = jsonwebtoken::DecodingKey::from_jwk(&jwk).unwrap();
        let claims = jsonwebtoken::decode::<serde_json::Value>(&token, &decoding, &rules).unwrap().claims;
        assert_eq!(claims["sub"], "client-1");
        assert_eq!(claims.get("sid"), None, "{kind:?}");
    }
}

#[test]
fn signatures_have_the_form_that_jws_wants() {
    let length = |kind| {
        let key = PrivateKey::generate(kind, &SystemHost::new()).unwrap();
        key.signature(b"message").unwrap().len()
    };
    assert_eq!(length(NewKey::EdDsa), 64);
    // r and s, not DER, whose length varies.
    assert_eq!(length(NewKey::Es256), 64);
    assert_eq!(length(NewKey::Rs256(RsaSize::Bits2048)), 256);
    assert_eq!(length(NewKey::Rs256(RsaSize::Bits3072)), 384);
}

#[test]
fn a_key_that_was_put_away_comes_back_as_itself_and_as_no_other_kind() {
    for kind in KINDS {
        let key = PrivateKey::generate(kind, &SystemHost::new()).unwrap();
        let document = key.to_pkcs8().unwrap();
        let back = PrivateKey::from_pkcs8(kind.algorithm(), &document).unwrap();
        assert_eq!(back.key_id(), key.key_id());
        assert_eq!(verify(&token(&back), &key), Ok(()));
        for other in KINDS.into_iter().filter(|other| *other != kind) {
            let refused = PrivateKey::from_pkcs8(other.algorithm(), &document);
            assert_eq!(refused.unwrap_err(), PrivateKeyError::Malformed, "{kind:?} as {other:?}");
        }
        let cut = &document[..document.len() - 1];
        assert!(PrivateKey::from_pkcs8(kind.algorithm(), cut).is_err());
    }
}

#[test]
fn an_rsa_key_is_published_with_its_two_numbers_and_nothing_more() {
    let key = PrivateKey::generate(NewKey::Rs256(RsaSize::Bits2048), &SystemHost::new()).unwrap();
    let jwk = key.public().public_jwk();
    let names: Vec<&str> = jwk.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["alg", "e", "kid", "kty", "n", "use"]);
    assert_eq!((&jwk["kty"], &jwk["alg"], &jwk["use"]), (&"RSA".into(), &"RS256".into(), &"sig".into()));
    assert_eq!(jwk["e"], "AQAB");
    let modulus = Base64UrlUnpadded::decode_vec(jwk["n"].as_str().unwrap()).unwrap();
    assert_eq!(modulus.len(), 256);
    assert!(modulus[0] >= 0x80, "a leading zero, or fewer bits than were asked for");
}

#[test]
fn an_elliptic_key_is_published_with_its_point_and_nothing_more() {
    let names = |kind| {
        let key = PrivateKey::generate(kind, &SystemHost::new()).unwrap();
        let jwk = key.public().public_jwk();
        jwk.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names(NewKey::EdDsa), "alg crv kid kty use x");
    assert_eq!(names(NewKey::Es256), "alg crv kid kty use x y");
}

#[test]
fn elliptic_secrets_are_drawn_from_the_host() {
    for kind in [NewKey::EdDsa, NewKey::Es256] {
        let of = |block| PrivateKey::generate(kind, &Dice::of(&[block])).unwrap().key_id().clone();
        assert_eq!(of(1), of(1), "{kind:?}");
        assert_ne!(of(1), of(2), "{kind:?}");
    }
    let seed = PrivateKey::generate(NewKey::EdDsa, &Dice::of(&[7])).unwrap();
    assert_eq!(seed.key_id(), SigningKey::from_seed(&[7; 32]).id(), "the id is not that of earlier releases");
}

#[test]
fn a_p256_secret_outside_of_the_group_is_drawn_again_and_a_broken_source_is_an_error() {
    let redrawn = PrivateKey::generate(NewKey::Es256, &Dice::of(&[0, 255, 5])).unwrap();
    let direct = PrivateKey::generate(NewKey::Es256, &Dice::of(&[5])).unwrap();
    assert_eq!(redrawn.key_id(), direct.key_id());
    let broken = PrivateKey::generate(NewKey::Es256, &Dice::of(&[0])).unwrap_err();
    assert_eq!(broken, PrivateKeyError::Generate);
    let empty = PrivateKey::generate(NewKey::Es256, &Dice::of(&[])).unwrap_err();
    assert_eq!(empty, PrivateKeyError::Entropy(EntropyError));
}

#[test]
fn a_private_key_prints_its_name_only() {
    for kind in KINDS {
        let key = PrivateKey::generate(kind, &SystemHost::new()).unwrap();
        let expected = format!("PrivateKey {{ id: KeyId({:?}), .. }}", key.key_id().as_str());
        assert_eq!(format!("{key:?}"), expected);
    }
}

#[test]
fn the_thumbprint_is_that_of_rfc_7638() {
    let modulus = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3\
                   oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQ\
                   vRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDK\
                   gw";
    let key = VerifyingKey::rsa(&Base64UrlUnpadded::decode_vec(modulus).unwrap(), &[1, 0, 1]).unwrap();
    assert_eq!(key.thumbprint().as_str(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
}
