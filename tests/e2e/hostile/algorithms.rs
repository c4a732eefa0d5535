//! Row 1: algorithms that no verifier of public tokens may take, `none` and the HMACs first.

use serde_json::json;

use super::{Bench, Class, object_with, object_without};
use crate::foreign::{Algorithm, HmacHash, RsaScheme, encode, hmac};

const NONE: Class =
    Class { row: 1, reasons: &["algorithm"], why: "`none` is not an algorithm, however it is spelt" };
const UNSIGNED: Class =
    Class { row: 1, reasons: &["segments"], why: "a token without a signature is nobody's" };
const CONFUSED: Class = Class {
    row: 1,
    reasons: &["algorithm"],
    why: "a public key is no secret, so an HMAC under it proves nothing",
};
const WEAK: Class =
    Class { row: 1, reasons: &["algorithm"], why: "HMACs are not taken, and this key can be guessed" };
const DISGUISED: Class = Class {
    row: 1,
    reasons: &["signature"],
    why: "an HMAC under the public key is not that key's signature",
};
const MALFORMED: Class =
    Class { row: 1, reasons: &["algorithm"], why: "`alg` is not a string from the static list" };
const UNLISTED: Class =
    Class { row: 1, reasons: &["algorithm"], why: "the algorithm is sound but not on the static list" };

pub(super) fn fill(bench: &mut Bench<'_>) {
    none(bench);
    confusion(bench);
    weak_secrets(bench);
    malformed(bench);
    unlisted(bench);
}

fn none(bench: &mut Bench<'_>) {
    let spellings = [
        "none",
        "None",
        "NONE",
        "nOnE",
        "nonE",
        "none ",
        " none",
        "none\u{0}",
        "n\u{f6}ne",
        "null",
        "unsecured",
        "plain",
    ];
    for (place, spelling) in spellings.into_iter().enumerate() {
        let raw = json!(spelling).to_string();
        let signed = bench.under_member("alg", &raw);
        bench.refuse(&NONE, format!("alg-none-{place}-genuinely-signed"), &signed);
        let unsigned = signed.rsplit_once('.').map(|(signed, _)| format!("{signed}.")).unwrap_or_default();
        bench.refuse(&UNSIGNED, format!("alg-none-{place}-with-empty-signature"), &unsigned);
    }
    let signed = bench.under_member("alg", "\"none\"");
    let bare = signed.rsplit_once('.').map(|(signed, _)| signed).unwrap_or_default();
    bench.refuse(&UNSIGNED, "alg-none-without-third-segment", bare);
    bench.refuse(&NONE, "alg-none-with-zero-signature", format!("{bare}.{}", encode(&[0; 64])));
    bench.refuse(&NONE, "alg-none-with-the-text-none-for-a-signature", format!("{bare}.none"));
    let header = object_without(bench.issuer.header(Algorithm::EdDsa), "kid");
    let header = header.replace("EdDSA", "none");
    bench.refuse(&NONE, "alg-none-without-kid", bench.under_header(header));
}

/// A token with an HMAC for a signature.
fn mac(bench: &Bench<'_>, hash: HmacHash, kid: &str, key: &[u8]) -> String {
    let alg = match hash {
        HmacHash::Sha256 => "HS256",
        HmacHash::Sha384 => "HS384",
        HmacHash::Sha512 => "HS512",
    };
    let header = json!({ "typ": "at+jwt", "alg": alg, "kid": kid }).to_string();
    let signed = format!("{}.{}", encode(header.as_bytes()), encode(bench.good_claims().as_bytes()));
    format!("{signed}.{}", encode(&hmac(hash, key, signed.as_bytes())))
}

fn confusion(bench: &mut Bench<'_>) {
    let keys = &bench.issuer.genuine;
    for algorithm in Algorithm::ALL {
        let kid = algorithm.key_id();
        let pem = keys.pem(algorithm);
        let jwk = keys.jwk(algorithm, kid).to_string();
        let forms: [(&str, Vec<u8>); 8] = [
            ("pem", pem.clone().into_bytes()),
            ("pem-without-last-newline", pem.trim_end().as_bytes().to_vec()),
            ("pem-with-crlf", pem.replace('\n', "\r\n").into_bytes()),
            ("pem-body", pem.lines().filter(|line| !line.starts_with('-')).collect::<String>().into_bytes()),
            ("der", keys.spki(algorithm)),
            ("raw", keys.raw(algorithm).to_vec()),
            ("raw-base64url", encode(keys.raw(algorithm)).into_bytes()),
            ("jwk", jwk.into_bytes()),
        ];
        for (form, key) in forms {
            let token = mac(bench, HmacHash::Sha256, kid, &key);
            bench.refuse(&CONFUSED, format!("hs256-under-{kid}-{form}"), token);
        }
        let token = mac(bench, HmacHash::Sha384, kid, pem.as_bytes());
        bench.refuse(&CONFUSED, format!("hs384-under-{kid}-pem"), token);
        let token = mac(bench, HmacHash::Sha512, kid, pem.as_bytes());
        bench.refuse(&CONFUSED, format!("hs512-under-{kid}-pem"), token);

        let signed = format!(
            "{}.{}",
            encode(bench.good_header(algorithm).as_bytes()),
            encode(bench.good_claims().as_bytes())
        );
        let forged = hmac(HmacHash::Sha256, pem.as_bytes(), signed.as_bytes());
        bench.refuse(
            &DISGUISED,
            format!("hmac-under-{kid}-pem-named-{kid}"),
            format!("{signed}.{}", encode(&forged)),
        );
    }
    let whole = bench.issuer.jwks().to_string();
    bench.refuse(
        &CONFUSED,
        "hs256-under-the-whole-jwks",
        mac(bench, HmacHash::Sha256, "ed", whole.as_bytes()),
    );
    let modulus = bench.issuer.genuine.modulus();
    bench.refuse(&CONFUSED, "hs256-under-the-modulus", mac(bench, HmacHash::Sha256, "rs", modulus));
}

fn weak_secrets(bench: &mut Bench<'_>) {
    let secrets: [(&str, &[u8]); 10] = [
        ("empty", b""),
        ("one-zero", b"\0"),
        ("zeros", &[0; 32]),
        ("secret", b"secret"),
        ("password", b"password"),
        ("changeme", b"changeme"),
        ("digits", b"12345678"),
        ("null", b"null"),
        ("kid", b"ed"),
        ("issuer", b"https://foreign.example"),
    ];
    for (name, secret) in secrets {
        bench.refuse(&WEAK, format!("hs256-weak-{name}"), mac(bench, HmacHash::Sha256, "ed", secret));
    }
    bench.refuse(&WEAK, "hs384-weak-secret", mac(bench, HmacHash::Sha384, "ed", b"secret"));
    bench.refuse(&WEAK, "hs512-weak-secret", mac(bench, HmacHash::Sha512, "ed", b"secret"));
}

fn malformed(bench: &mut Bench<'_>) {
    let missing = object_without(bench.issuer.header(Algorithm::EdDsa), "alg");
    bench.refuse(&MALFORMED, "alg-missing", bench.under_header(missing));
    let mut capitals = bench.issuer.header(Algorithm::EdDsa);
    capitals.remove("alg");
    let capitals = object_with(capitals, "ALG", "\"EdDSA\"");
    bench.refuse(&MALFORMED, "alg-member-in-capitals", bench.under_header(capitals));
    let raws = [
        ("null", "null"),
        ("zero", "0"),
        ("number", "256"),
        ("true", "true"),
        ("array", "[\"EdDSA\"]"),
        ("array-of-two", "[\"EdDSA\",\"none\"]"),
        ("object", "{\"name\":\"EdDSA\"}"),
        ("empty", "\"\""),
        ("lower-case", "\"eddsa\""),
        ("upper-case", "\"EDDSA\""),
        ("trailing-space", "\"EdDSA \""),
        ("leading-space", "\" EdDSA\""),
        ("trailing-nul", "\"EdDSA\\u0000\""),
        ("trailing-newline", "\"EdDSA\\n\""),
        ("fullwidth", "\"\u{ff25}dDSA\""),
        ("cyrillic", "\"\u{415}dDSA\""),
        ("uri", "\"http://www.w3.org/2021/04/xmldsig-more#eddsa-ed25519\""),
        ("fully-specified", "\"Ed25519\""),
        ("ed448", "\"Ed448\""),
        ("unknown", "\"XX256\""),
    ];
    for (name, raw) in raws {
        bench.refuse(&MALFORMED, format!("alg-{name}"), bench.under_member("alg", raw));
    }
    for (name, alg) in
        [("es256-lower-case", "es256"), ("es256k", "ES256K"), ("es384", "ES384"), ("es512", "ES512")]
    {
        let header = bench.header_with(Algorithm::Es256, "alg", &json!(alg).to_string());
        let token = bench.issuer.token_with_header(header, bench.good_claims(), Algorithm::Es256);
        bench.refuse(&MALFORMED, format!("alg-{name}"), token);
    }
}

/// Algorithms that verify under the published RSA key, if only a verifier let the token choose.
fn unlisted(bench: &mut Bench<'_>) {
    let schemes = [
        ("RS384", RsaScheme::Rs384),
        ("RS512", RsaScheme::Rs512),
        ("PS256", RsaScheme::Ps256),
        ("PS384", RsaScheme::Ps384),
        ("PS512", RsaScheme::Ps512),
        ("rs256", RsaScheme::Rs256),
        ("RS1", RsaScheme::Rs256),
        ("RSA1_5", RsaScheme::Rs256),
    ];
    for (alg, scheme) in schemes {
        let header = bench.header_with(Algorithm::Rs256, "alg", &json!(alg).to_string());
        let signed = format!("{}.{}", encode(header.as_bytes()), encode(bench.good_claims().as_bytes()));
        let signature = bench.issuer.genuine.sign_rsa(scheme, signed.as_bytes());
        let name = format!("alg-{}-{}", alg.to_ascii_lowercase().replace('_', "-"), place_of(alg));
        bench.refuse(&UNLISTED, name, format!("{signed}.{}", encode(&signature)));
    }
}

/// Tells `rs256` from other names that differ in case only.
fn place_of(alg: &str) -> &'static str {
    if alg.bytes().any(|byte| byte.is_ascii_uppercase()) { "genuinely-signed" } else { "in-lower-case" }
}
