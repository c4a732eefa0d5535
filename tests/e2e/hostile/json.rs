//! Rows 7 and 11: header and claims that two JSON parsers read differently, or that cost too much to read.

use serde_json::{Value, json};

use super::{Bench, Class, members_then};
use crate::foreign::Algorithm;

const DUPLICATE: Class = Class {
    row: 7,
    reasons: &["duplicate_member"],
    why: "a member stands twice, so the edge and the application may read different ones (RFC 7515 section 4)",
};
const HEADER_TEXT: Class =
    Class { row: 11, reasons: &["header"], why: "the header is not one JSON object in UTF-8" };
const CLAIMS_TEXT: Class =
    Class { row: 11, reasons: &["claims"], why: "the payload is not one JSON object in UTF-8" };
const TOO_COMPLEX: Class = Class {
    row: 11,
    reasons: &["too_complex"],
    why: "nested so deep, or so wide, that reading it is an attack",
};

pub(super) fn fill(bench: &mut Bench<'_>) {
    duplicates(bench);
    members(bench);
    texts(bench);
    sizes(bench);
}

fn duplicates(bench: &mut Bench<'_>) {
    let in_header = [
        ("alg", "\"alg\":\"EdDSA\""),
        ("alg-none", "\"alg\":\"none\""),
        ("alg-hs256", "\"alg\":\"HS256\""),
        ("kid", "\"kid\":\"ed\""),
        ("kid-other", "\"kid\":\"rs\""),
        ("typ", "\"typ\":\"at+jwt\""),
        ("typ-other", "\"typ\":\"JWT\""),
        ("alg-escaped", "\"\\u0061lg\":\"EdDSA\""),
        ("kid-escaped", "\"k\\u0069d\":\"ed\""),
        ("typ-escaped", "\"\\u0074\\u0079\\u0070\":\"at+jwt\""),
        ("unknown", "\"x\":1,\"x\":1"),
        ("empty-name", "\"\":1,\"\":1"),
        ("nested", "\"x\":{\"y\":1,\"y\":1}"),
        ("in-jwk", "\"jwk\":{\"kty\":\"OKP\",\"kty\":\"oct\"}"),
        ("in-array", "\"x\":[{\"y\":1,\"y\":2}]"),
    ];
    for (name, more) in in_header {
        let header = members_then(&bench.issuer.header(Algorithm::EdDsa), more);
        bench.refuse(&DUPLICATE, format!("duplicate-header-{name}"), bench.under_header(header));
    }
    let in_claims = [
        ("sub", "\"sub\":\"u_1\""),
        ("sub-other", "\"sub\":\"admin\""),
        ("sub-escaped", "\"s\\u0075b\":\"admin\""),
        ("sub-null", "\"sub\":null"),
        ("iss", "\"iss\":\"https://foreign.example\""),
        ("iss-other", "\"iss\":\"https://other.example\""),
        ("aud", "\"aud\":\"api\""),
        ("aud-other", "\"aud\":[\"other\"]"),
        ("exp-later", "\"exp\":4102444800"),
        ("exp-escaped", "\"\\u0065xp\":4102444800"),
        ("iat", "\"iat\":1"),
        ("nbf", "\"nbf\":1,\"nbf\":2"),
        ("jti", "\"jti\":\"other\""),
        ("client-id", "\"client_id\":\"other\""),
        ("client-id-escaped", "\"client\\u005fid\":\"other\""),
        ("scope", "\"scope\":\"read admin\""),
        ("roles", "\"roles\":[],\"roles\":[\"admin\"]"),
        ("unknown", "\"x\":1,\"x\":2"),
        ("unknown-same", "\"x\":1,\"x\":1"),
        ("surrogates", "\"\u{1f600}\":1,\"\\ud83d\\ude00\":1"),
        ("nested", "\"x\":{\"y\":{\"z\":1,\"z\":1}}"),
        ("nested-escaped", "\"x\":{\"y\":1,\"\\u0079\":1}"),
        ("in-array", "\"x\":[[{\"y\":1,\"y\":1}]]"),
        ("in-status", "\"status\":{\"status_list\":{\"idx\":0,\"idx\":1,\"uri\":\"u\"}}"),
        ("in-act", "\"act\":{\"sub\":\"a\",\"sub\":\"b\"}"),
    ];
    for (name, more) in in_claims {
        let claims = members_then(&bench.issuer.claims(bench.now), more);
        bench.refuse(&DUPLICATE, format!("duplicate-claim-{name}"), bench.with_payload(claims));
    }
}

/// Members that no JSON parser may take, put into a header and into claims that are good otherwise.
fn members(bench: &mut Bench<'_>) {
    let members: [(&str, &[u8]); 46] = [
        ("not-a-number", b"\"x\":NaN"),
        ("infinity", b"\"x\":Infinity"),
        ("minus-infinity", b"\"x\":-Infinity"),
        ("huge-number", b"\"x\":1e400"),
        ("huge-negative-number", b"\"x\":-1e400"),
        ("leading-zero", b"\"x\":01"),
        ("leading-zeros", b"\"x\":-00"),
        ("leading-plus", b"\"x\":+1"),
        ("leading-point", b"\"x\":.5"),
        ("trailing-point", b"\"x\":1."),
        ("no-exponent", b"\"x\":1e"),
        ("no-exponent-digits", b"\"x\":1e+"),
        ("minus-alone", b"\"x\":-"),
        ("hexadecimal", b"\"x\":0x10"),
        ("underscores", b"\"x\":1_000"),
        ("fullwidth-digit", b"\"x\":\xef\xbc\x91"),
        ("trailing-comma", b"\"x\":1,"),
        ("two-commas", b"\"x\":1,,\"y\":1"),
        ("no-colon", b"\"x\" 1"),
        ("two-colons", b"\"x\"::1"),
        ("no-value", b"\"x\":"),
        ("no-member-value", b"\"x\""),
        ("number-for-a-name", b"1:1"),
        ("bare-name", b"x:1"),
        ("null-for-a-name", b"null:1"),
        ("single-quotes", b"'x':1"),
        ("single-quoted-value", b"\"x\":'y'"),
        ("block-comment", b"/* comment */\"x\":1"),
        ("line-comment", b"// comment\n\"x\":1"),
        ("hash-comment", b"# comment\n\"x\":1"),
        ("capital-true", b"\"x\":True"),
        ("capital-null", b"\"x\":NULL"),
        ("undefined", b"\"x\":undefined"),
        ("truncated-literal", b"\"x\":tru"),
        ("trailing-comma-in-array", b"\"x\":[1,]"),
        ("unclosed-array", b"\"x\":[1"),
        ("crossed-brackets", b"\"x\":[1}"),
        ("unknown-escape", b"\"x\":\"\\x41\""),
        ("short-escape", b"\"x\":\"\\u00\""),
        ("escape-of-no-digits", b"\"x\":\"\\u00zz\""),
        ("lone-high-surrogate", b"\"x\":\"\\ud800\""),
        ("lone-low-surrogate", b"\"x\":\"\\udc00\""),
        ("surrogates-swapped", b"\"x\":\"\\ude00\\ud83d\""),
        ("lone-surrogate-in-a-name", b"\"\\ud800\":1"),
        ("raw-control", b"\"x\":\"\x01\""),
        ("raw-newline", b"\"x\":\"\n\""),
    ];
    let encodings: [(&str, &[u8]); 9] = [
        ("lone-byte", b"\"x\":\"\xff\""),
        ("continuation-byte", b"\"x\":\"\x80\""),
        ("truncated-letter", b"\"x\":\"\xc3\""),
        ("overlong-slash", b"\"x\":\"\xc0\xaf\""),
        ("overlong-nul", b"\"x\":\"\xc0\x80\""),
        ("encoded-surrogate", b"\"x\":\"\xed\xa0\x80\""),
        ("beyond-unicode", b"\"x\":\"\xf4\x90\x80\x80\""),
        ("lone-byte-in-a-name", b"\"\xff\":1"),
        ("no-break-space", b"\xc2\xa0\"x\":1"),
    ];
    for (name, more) in members.into_iter().chain(encodings) {
        let header = with_member(&bench.good_header(Algorithm::EdDsa), more);
        bench.refuse(&HEADER_TEXT, format!("header-{name}"), bench.under_header(header));
        let claims = with_member(&bench.good_claims(), more);
        bench.refuse(&CLAIMS_TEXT, format!("claims-{name}"), bench.with_payload(claims));
    }
}

/// An object with one more member, of any bytes, at its end.
fn with_member(object: &str, more: &[u8]) -> Vec<u8> {
    let open = object.strip_suffix('}').unwrap_or(object);
    [open.as_bytes(), b",", more, b"}"].concat()
}

/// Whole texts that are not one object.
fn texts(bench: &mut Bench<'_>) {
    let around: [(&str, &[u8], &[u8]); 14] = [
        ("byte-order-mark", b"\xef\xbb\xbf", b""),
        ("leading-nul", b"\0", b""),
        ("leading-form-feed", b"\x0c", b""),
        ("leading-comma", b",", b""),
        ("trailing-garbage", b"", b"x"),
        ("trailing-nul", b"", b"\0"),
        ("trailing-brace", b"", b"}"),
        ("trailing-comma-after-object", b"", b","),
        ("second-object", b"", b"{}"),
        ("second-object-on-a-line", b"", b"\n{\"sub\":\"admin\"}"),
        ("comment-after", b"", b" // end"),
        ("in-an-array", b"[", b"]"),
        ("in-parentheses", b"(", b")"),
        ("guarded", b")]}',\n", b""),
    ];
    for (name, before, after) in around {
        let header = [before, bench.good_header(Algorithm::EdDsa).as_bytes(), after].concat();
        bench.refuse(&HEADER_TEXT, format!("header-{name}"), bench.under_header(header));
        let claims = [before, bench.good_claims().as_bytes(), after].concat();
        bench.refuse(&CLAIMS_TEXT, format!("claims-{name}"), bench.with_payload(claims));
    }
    let quoted =
        [bench.good_header(Algorithm::EdDsa), bench.good_claims()].map(|text| json!(text).to_string());
    let [quoted_header, quoted_claims] = quoted;
    bench.refuse(&HEADER_TEXT, "header-in-a-string", bench.under_header(quoted_header));
    bench.refuse(&CLAIMS_TEXT, "claims-in-a-string", bench.with_payload(quoted_claims));

    let utf16 = |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
    let header = utf16(&bench.good_header(Algorithm::EdDsa));
    bench.refuse(&HEADER_TEXT, "header-in-utf16", bench.under_header(header));
    let claims = utf16(&bench.good_claims());
    bench.refuse(&CLAIMS_TEXT, "claims-in-utf16", bench.with_payload(claims));

    let unclosed = |text: &str| text.trim_end_matches('}').to_owned();
    let header = unclosed(&bench.good_header(Algorithm::EdDsa));
    bench.refuse(&HEADER_TEXT, "header-unclosed", bench.under_header(header));
    let claims = unclosed(&bench.good_claims());
    bench.refuse(&CLAIMS_TEXT, "claims-unclosed", bench.with_payload(claims));

    let values: [(&str, &str); 9] = [
        ("array", "[]"),
        ("null", "null"),
        ("true", "true"),
        ("number", "1"),
        ("string", "\"x\""),
        ("space", " "),
        ("brace", "{"),
        ("word", "header"),
        ("xml", "<header/>"),
    ];
    for (name, text) in values {
        bench.refuse(&HEADER_TEXT, format!("header-only-{name}"), bench.under_header(text));
        bench.refuse(&CLAIMS_TEXT, format!("claims-only-{name}"), bench.with_payload(text));
    }
}

fn sizes(bench: &mut Bench<'_>) {
    let arrays = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let objects = |depth: usize| "{\"a\":".repeat(depth) + "1" + &"}".repeat(depth);
    let wide_object = |count: usize| {
        let members: Vec<String> = (0..count).map(|place| format!("\"{place:x}\":0")).collect();
        format!("{{{}}}", members.join(","))
    };
    let wide_array = |count: usize| format!("[{}0]", "0,".repeat(count - 1));
    let values = [
        ("arrays-17-deep", arrays(17)),
        ("arrays-20-deep", arrays(20)),
        ("arrays-200-deep", arrays(200)),
        ("arrays-2500-deep", arrays(2500)),
        ("objects-20-deep", objects(20)),
        ("objects-200-deep", objects(200)),
        ("objects-700-deep", objects(700)),
        ("object-of-257", wide_object(257)),
        ("object-of-600", wide_object(600)),
        ("array-of-257", wide_array(257)),
        ("array-of-2500", wide_array(2500)),
    ];
    for (name, value) in values {
        bench.refuse(&TOO_COMPLEX, format!("header-{name}"), bench.under_member("x", &value));
        bench.refuse(&TOO_COMPLEX, format!("claims-{name}"), bench.with_claim("x", &value));
    }
    // Five thousand levels fit into a token only if they are not closed again: the depth must show before the end does.
    let open = "[".repeat(5000);
    bench.refuse(&TOO_COMPLEX, "header-arrays-5000-deep-in-a-member", bench.under_member("x", &open));
    bench.refuse(&TOO_COMPLEX, "claims-arrays-5000-deep-in-a-member", bench.with_claim("x", &open));
    bench.refuse(&TOO_COMPLEX, "header-arrays-5000-deep", bench.under_header(&open));
    bench.refuse(&TOO_COMPLEX, "claims-arrays-5000-deep", bench.with_payload(&open));
    let open = "{\"\":".repeat(1300);
    bench.refuse(&TOO_COMPLEX, "header-objects-1300-deep", bench.under_header(&open));
    bench.refuse(&TOO_COMPLEX, "claims-objects-1300-deep", bench.with_payload(&open));

    let mut crowded = bench.issuer.claims(bench.now);
    crowded.extend((0..300).map(|place| (format!("c{place}"), Value::from(0))));
    bench.refuse(
        &TOO_COMPLEX,
        "claims-of-300-members",
        bench.with_payload(Value::Object(crowded).to_string()),
    );
    let mut crowded = bench.issuer.header(Algorithm::EdDsa);
    crowded.extend((0..300).map(|place| (format!("h{place}"), Value::from(0))));
    bench.refuse(
        &TOO_COMPLEX,
        "header-of-300-members",
        bench.under_header(Value::Object(crowded).to_string()),
    );
}
