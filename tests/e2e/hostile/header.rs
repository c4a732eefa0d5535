//! Rows 5 and 8: headers that ask for more than a signature check, and tokens that are not access tokens.

use serde_json::{Value, json};

use super::{Bench, Class, object_with, object_without, segments};
use crate::foreign::{Algorithm, encode};

const CRITICAL: Class = Class {
    row: 5,
    reasons: &["crit"],
    why: "an extension that must be understood is not understood (RFC 7515 section 4.1.11)",
};
const UNENCODED: Class = Class {
    row: 5,
    reasons: &["b64"],
    why: "the payload might be meant unencoded (RFC 7797), so it has two readings",
};
const ENCRYPTED: Class =
    Class { row: 5, reasons: &["encrypted"], why: "encrypted and compressed tokens are not taken" };
const SEGMENTS: Class =
    Class { row: 5, reasons: &["segments"], why: "a signed token has three segments, none of them empty" };
const EMPTY_HEADER: Class = Class { row: 5, reasons: &["header"], why: "there is no header" };
const EMPTY_CLAIMS: Class =
    Class { row: 5, reasons: &["claims"], why: "there are no claims; a detached payload is not looked for" };
const OTHER_KIND: Class = Class {
    row: 8,
    reasons: &["token_type"],
    why: "`typ` is not that of an access token, so it was made for another purpose",
};
const MALFORMED_TYPE: Class = Class { row: 8, reasons: &["header"], why: "`typ` is not a string" };
const OPAQUE: Class =
    Class { row: 8, reasons: &["segments", "base64", "header"], why: "it is a credential of another kind" };

pub(super) fn fill(bench: &mut Bench<'_>) {
    extensions(bench);
    shapes(bench);
    kinds(bench);
    opaque(bench);
}

fn extensions(bench: &mut Bench<'_>) {
    let critical = [
        ("empty", "[]"),
        ("exp", "[\"exp\"]"),
        ("alg", "[\"alg\"]"),
        ("unknown", "[\"x-unknown\"]"),
        ("b64", "[\"b64\"]"),
        ("string", "\"exp\""),
        ("null", "null"),
        ("false", "false"),
        ("object", "{}"),
        ("empty-name", "[\"\"]"),
    ];
    for (name, raw) in critical {
        bench.refuse(&CRITICAL, format!("crit-{name}"), bench.under_member("crit", raw));
    }
    let present =
        object_with(bench.issuer.header(Algorithm::EdDsa), "x-unknown", "1,\"crit\":[\"x-unknown\"]");
    bench.refuse(&CRITICAL, "crit-unknown-and-present", bench.under_header(present));
    let unencoded = object_with(bench.issuer.header(Algorithm::EdDsa), "b64", "false,\"crit\":[\"b64\"]");
    bench.refuse(&CRITICAL, "crit-b64-false", bench.under_header(&unencoded));
    let escaped = object_with(bench.issuer.header(Algorithm::EdDsa), "x", "1,\"cr\\u0069t\":[\"x\"]");
    bench.refuse(&CRITICAL, "crit-by-an-escaped-name", bench.under_header(escaped));

    // Signed as RFC 7797 has it: over the payload's bytes as they stand.
    let payload = "plainpayload";
    let token = bench.issuer.token_of_segments(&encode(unencoded.as_bytes()), payload, Algorithm::EdDsa);
    bench.refuse(&CRITICAL, "crit-b64-false-with-plain-payload", token);

    for (name, raw) in
        [("false", "false"), ("true", "true"), ("null", "null"), ("string", "\"false\""), ("zero", "0")]
    {
        bench.refuse(&UNENCODED, format!("b64-{name}"), bench.under_member("b64", raw));
    }
    let encrypted = [
        ("zip-deflate", "zip", "\"DEF\""),
        ("zip-gzip", "zip", "\"GZIP\""),
        ("zip-null", "zip", "null"),
        ("enc-gcm", "enc", "\"A256GCM\""),
        ("enc-cbc", "enc", "\"A128CBC-HS256\""),
        ("enc-null", "enc", "null"),
    ];
    for (name, member, raw) in encrypted {
        bench.refuse(&ENCRYPTED, name, bench.under_member(member, raw));
    }
}

fn shapes(bench: &mut Bench<'_>) {
    let token = bench.good_token(Algorithm::EdDsa);
    let [header, payload, signature] = segments(&token);
    let jwe = encode(json!({ "alg": "RSA-OAEP-256", "enc": "A256GCM", "kid": "rs" }).to_string().as_bytes());
    let shapes = [
        ("one", header.to_owned()),
        ("two", format!("{header}.{payload}")),
        ("four", format!("{token}.{signature}")),
        ("four-with-a-flag", format!("{token}.AQ")),
        ("five", format!("{jwe}.{signature}.{header}.{payload}.{signature}")),
        ("five-with-direct-key", format!("{jwe}..{header}.{payload}.{signature}")),
        ("five-after-a-genuine-token", format!("{token}.{header}.{signature}")),
        ("six", format!("{token}.{token}")),
        ("a-thousand", vec!["AA"; 1000].join(".")),
        ("trailing-dot", format!("{token}.")),
        ("leading-dot", format!(".{token}")),
        ("doubled-first-dot", format!("{header}..{payload}.{signature}")),
        ("doubled-second-dot", format!("{header}.{payload}..{signature}")),
        ("one-dot", ".".to_owned()),
        ("two-dots", "..".to_owned()),
        ("three-dots", "...".to_owned()),
        ("four-dots", "....".to_owned()),
        ("eight-thousand-dots", ".".repeat(8000)),
        ("no-signature", format!("{header}.{payload}.")),
        ("header-alone", format!("{header}..")),
        ("tilde-for-a-dot", format!("{header}~{payload}~{signature}")),
    ];
    for (name, token) in shapes {
        bench.refuse(&SEGMENTS, format!("segments-{name}"), token);
    }
    bench.refuse(&EMPTY_HEADER, "segments-empty-header", format!(".{payload}.{signature}"));
    bench.refuse(&EMPTY_HEADER, "segments-signature-alone", format!("..{signature}"));
    let genuine = bench.issuer.token_of_segments("", payload, Algorithm::EdDsa);
    bench.refuse(&EMPTY_HEADER, "segments-empty-header-genuinely-signed", genuine);
    bench.refuse(&EMPTY_CLAIMS, "segments-detached-payload", format!("{header}..{signature}"));
    let genuine = bench.issuer.token_of_segments(header, "", Algorithm::EdDsa);
    bench.refuse(&EMPTY_CLAIMS, "segments-empty-payload-genuinely-signed", genuine);
}

fn kinds(bench: &mut Bench<'_>) {
    let missing = object_without(bench.issuer.header(Algorithm::EdDsa), "typ");
    bench.refuse(&OTHER_KIND, "typ-missing", bench.under_header(missing));
    let types = [
        ("jwt", "JWT"),
        ("jwt-lower-case", "jwt"),
        ("jwt-media-type", "application/jwt"),
        ("jws", "JOSE"),
        ("jws-json", "JOSE+JSON"),
        ("empty", ""),
        ("id-token", "id_token+jwt"),
        ("refresh", "rt+jwt"),
        ("logout", "logout+jwt"),
        ("dpop", "dpop+jwt"),
        ("security-event", "secevent+jwt"),
        ("status-list", "statuslist+jwt"),
        ("client-assertion", "client-authentication+jwt"),
        ("request-object", "oauth-authz-req+jwt"),
        ("introspection", "token-introspection+jwt"),
        ("federation", "entity-statement+jwt"),
        ("sd-jwt", "dc+sd-jwt"),
        ("key-binding", "kb+jwt"),
        ("old-access-token", "JWT+AT"),
        ("extended", "at+jwtx"),
        ("trailing-space", "at+jwt "),
        ("leading-space", " at+jwt"),
        ("trailing-nul", "at+jwt\u{0}"),
        ("trailing-newline", "at+jwt\n"),
        ("with-parameter", "at+jwt; charset=utf-8"),
        ("media-type-twice", "application/application/at+jwt"),
        ("other-media-type", "text/at+jwt"),
        ("hyphen", "at-jwt"),
        ("space-for-plus", "at jwt"),
        ("encoded-plus", "at%2Bjwt"),
        ("cyrillic", "\u{430}t+jwt"),
        ("fullwidth-plus", "at\u{ff0b}jwt"),
        ("list", "at+jwt,JWT"),
        ("uri", "urn:ietf:params:oauth:token-type:access_token"),
    ];
    for (name, typ) in types {
        bench.refuse(&OTHER_KIND, format!("typ-{name}"), bench.under_member("typ", &json!(typ).to_string()));
    }
    for (name, raw) in [
        ("null", "null"),
        ("number", "1"),
        ("true", "true"),
        ("array", "[\"at+jwt\"]"),
        ("object", "{\"at+jwt\":true}"),
    ] {
        bench.refuse(&MALFORMED_TYPE, format!("typ-{name}"), bench.under_member("typ", raw));
    }
    // What the same issuer makes for other purposes, whole.
    let other_purposes: [(&str, &str, Value); 3] = [
        (
            "id-token",
            "JWT",
            json!({ "nonce": "n", "at_hash": encode(&[1; 16]), "auth_time": bench.now, "azp": "c1" }),
        ),
        ("refresh-token", "rt+jwt", json!({ "token_use": "refresh", "family": "f1" })),
        (
            "logout-token",
            "logout+jwt",
            json!({ "sid": "s1", "events": { "http://schemas.openid.net/event/backchannel-logout": {} } }),
        ),
    ];
    for (name, typ, members) in other_purposes {
        let mut claims = bench.issuer.claims(bench.now);
        claims.extend(members.as_object().cloned().unwrap_or_default());
        for algorithm in Algorithm::ALL {
            let header = bench.header_with(algorithm, "typ", &json!(typ).to_string());
            let token =
                bench.issuer.token_with_header(header, Value::Object(claims.clone()).to_string(), algorithm);
            bench.refuse(&OTHER_KIND, format!("whole-{name}-{}", algorithm.key_id()), token);
        }
    }
}

fn opaque(bench: &mut Bench<'_>) {
    let credentials = [
        ("refresh-token", "tgr_3q2-7wKp0v9n1cQ5mZxB8yLrTaUdEf"),
        ("api-key", "tgk_0123456789abcdef0123456789abcdef"),
        ("hexadecimal", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"),
        ("uuid", "123e4567-e89b-12d3-a456-426614174000"),
        ("basic", "dV8xOnBhc3N3b3Jk"),
        ("paseto-local", "v4.local.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
        ("paseto-public", "v2.public.eyJzdWIiOiJ1XzEifQ"),
        ("saml", "PHNhbWw6QXNzZXJ0aW9uPjwvc2FtbDpBc3NlcnRpb24-"),
        ("word-null", "null"),
        ("word-undefined", "undefined"),
        ("word-token", "token"),
        ("one-character", "A"),
        ("ip-address", "127.0.0.1"),
        ("dotted-words", "header.payload.signature"),
    ];
    for (name, credential) in credentials {
        bench.refuse(&OPAQUE, format!("opaque-{name}"), credential);
    }
}
