//! Rows 16, 17 and 18: how a token is brought, and how long it is.

use super::{Bench, Class, object_with, token_of_length};
use crate::foreign::{Algorithm, encode};

const TOO_LONG: Class = Class {
    row: 16,
    reasons: &["too_long"],
    why: "it is longer than 8192 bytes, so nothing of it is decoded",
};
const TWO: Class = Class {
    row: 17,
    reasons: &["ambiguous_credential"],
    why: "there are two credentials, and the application may read the other",
};
const MALFORMED: Class = Class {
    row: 18,
    reasons: &["malformed_credential"],
    why: "it is no bearer token by RFC 6750 section 2.1",
};
const OTHER_SCHEME: Class = Class {
    row: 18,
    reasons: &["no_credential"],
    why: "a token counts only after the scheme `Bearer` and one space",
};

pub(super) fn fill(bench: &mut Bench<'_>) {
    lengths(bench);
    two(bench);
    malformed(bench);
    other_schemes(bench);
}

fn lengths(bench: &mut Bench<'_>) {
    for length in [8193, 8194, 9000, 12_000, 16_384, 32_768, 59 * 1024] {
        let token = token_of_length(bench.issuer, bench.now, length);
        bench.refuse(&TOO_LONG, format!("long-genuine-{length}-bytes"), token);
    }
    let deep = "[".repeat(5000) + &"]".repeat(5000);
    bench.refuse(&TOO_LONG, "long-header-5000-deep-and-closed", bench.under_member("x", &deep));
    bench.refuse(&TOO_LONG, "long-claims-5000-deep-and-closed", bench.with_claim("x", &deep));
    bench.refuse(&TOO_LONG, "long-header", bench.under_member("x", &format!("\"{}\"", "x".repeat(40_000))));
    let length = 59 * 1024;
    let texts = [
        ("letters", "A".repeat(length)),
        ("dots", ".".repeat(length)),
        ("padding", "=".repeat(length)),
        ("segments", "AA.".repeat(length / 3)),
        ("crit-behind-the-limit", {
            let header = object_with(bench.issuer.header(Algorithm::EdDsa), "crit", "[]");
            format!("{}.{}.AA", encode(header.as_bytes()), "A".repeat(length - 400))
        }),
    ];
    for (name, text) in texts {
        bench.refuse(&TOO_LONG, format!("long-{name}"), text);
    }
    let token = bench.good_token(Algorithm::EdDsa);
    bench.refuse(&TOO_LONG, "long-signature", format!("{token}{}", "A".repeat(20_000)));
}

fn two(bench: &mut Bench<'_>) {
    let token = bench.good_token(Algorithm::EdDsa);
    let other = bench.good_token(Algorithm::Es256);
    let values = [
        ("two-tokens-joined", format!("Bearer {token},Bearer {other}")),
        ("two-tokens-joined-with-a-space", format!("Bearer {token}, Bearer {other}")),
        ("two-tokens-of-one-scheme", format!("Bearer {token},{other}")),
        ("the-same-token-twice", format!("Bearer {token}, Bearer {token}")),
        ("basic-behind", format!("Bearer {token}, Basic dV8xOnA=")),
        ("basic-before", format!("Basic dV8xOnA=, Bearer {token}")),
        ("nothing-before", format!(",Bearer {token}")),
        ("parameter-behind", format!("Bearer {token},realm=x")),
        ("trailing-comma", format!("Bearer {token},")),
        ("leading-comma", format!("Bearer ,{token}")),
        ("comma-within", format!("Bearer {}", token.replacen('.', ",", 1))),
        ("json-serialisation", format!("Bearer {{\"payload\":\"{token}\",\"signatures\":[]}}")),
    ];
    for (name, value) in values {
        bench.refuse_value(&TWO, 400, format!("ambiguous-{name}"), value);
    }
}

fn malformed(bench: &mut Bench<'_>) {
    let token = bench.good_token(Algorithm::EdDsa);
    let values = [
        ("two-spaces", format!("Bearer  {token}")),
        ("many-spaces", format!("Bearer{}{token}", " ".repeat(100))),
        ("space-and-tab", format!("Bearer \t{token}")),
        ("scheme-twice", format!("Bearer Bearer {token}")),
        ("two-tokens-apart", format!("Bearer {token} {token}")),
        ("parameter-behind", format!("Bearer {token} realm=x")),
        ("semicolon-behind", format!("Bearer {token};v=1")),
        ("fragment-behind", format!("Bearer {token}#x")),
        ("query-behind", format!("Bearer {token}?x=1")),
        ("quoted", format!("Bearer \"{token}\"")),
        ("single-quoted", format!("Bearer '{token}'")),
        ("in-angle-brackets", format!("Bearer <{token}>")),
        ("in-brackets", format!("Bearer [{token}]")),
        ("in-braces", format!("Bearer {{{token}}}")),
        ("as-a-parameter", format!("Bearer token=\"{token}\"")),
        ("colon", format!("Bearer :{token}")),
        ("asterisk", format!("Bearer *{token}")),
        ("backslash", format!("Bearer {token}\\")),
        ("template", "Bearer ${token}".to_owned()),
        ("path", format!("Bearer {token}@example")),
    ];
    for (name, value) in values {
        bench.refuse_value(&MALFORMED, 400, format!("malformed-{name}"), value);
    }
    let bytes: [(&str, &[u8]); 5] = [
        ("byte-order-mark", b"\xef\xbb\xbf"),
        ("no-break-space", b"\xc2\xa0"),
        ("latin-1-no-break-space", b"\xa0"),
        ("high-byte", b"\xff"),
        ("right-to-left-override", "\u{202e}".as_bytes()),
    ];
    for (name, before) in bytes {
        let value = [b"Bearer ", before, token.as_bytes()].concat();
        bench.refuse_value(&MALFORMED, 400, format!("malformed-{name}"), value);
        let value = [b"Bearer ", token.as_bytes(), before].concat();
        bench.refuse_value(&MALFORMED, 400, format!("malformed-{name}-behind"), value);
    }
}

fn other_schemes(bench: &mut Bench<'_>) {
    let token = bench.good_token(Algorithm::EdDsa);
    let values = [
        ("none", token.clone()),
        ("scheme-alone", "Bearer".to_owned()),
        ("basic", format!("Basic {token}")),
        ("dpop", format!("DPoP {token}")),
        ("jwt", format!("JWT {token}")),
        ("token", format!("Token {token}")),
        ("gnap", format!("GNAP {token}")),
        ("negotiate", format!("Negotiate {token}")),
        ("digest", format!("Digest username=\"u_1\", response=\"{token}\"")),
        ("extended", format!("BearerX {token}")),
        ("shortened", format!("Beare {token}")),
        ("prefixed", format!("XBearer {token}")),
        ("no-space", format!("Bearer{token}")),
        ("tab", format!("Bearer\t{token}")),
        ("colon", format!("Bearer: {token}")),
        ("equals", format!("Bearer={token}")),
        ("percent-encoded-space", format!("Bearer%20{token}")),
        ("no-break-space", format!("Bearer\u{a0}{token}")),
        ("cyrillic", format!("Be\u{430}rer {token}")),
        ("fullwidth", format!("\u{ff22}earer {token}")),
        ("byte-order-mark", format!("\u{feff}Bearer {token}")),
        ("quoted", format!("\"Bearer {token}\"")),
    ];
    for (name, value) in values {
        bench.refuse_value(&OTHER_SCHEME, 401, format!("scheme-{name}"), value);
    }
}
