//! Rows 9 and 20: tokens of this issuer that are not for us, lack what an access token has, or name a subject that
//! cannot be passed on.

use serde_json::json;

use super::{Bench, Class, object_without};
use crate::foreign::Algorithm;

const ISSUER: Class =
    Class { row: 9, reasons: &["unknown_issuer"], why: "`iss` must be the issuer's name, byte for byte" };
const AUDIENCE: Class =
    Class { row: 9, reasons: &["audience"], why: "`aud` must hold our name, byte for byte" };
const SUBJECT: Class =
    Class { row: 9, reasons: &["subject"], why: "`sub` must be a string of 1 to 255 bytes" };
const TOKEN_ID: Class =
    Class { row: 9, reasons: &["token_id"], why: "`jti` must be a string of 1 to 255 bytes" };
const CLIENT: Class =
    Class { row: 9, reasons: &["client"], why: "`client_id` must be a string of 1 to 255 bytes" };
const SCOPE: Class =
    Class { row: 9, reasons: &["scope"], why: "`scope` must be a string (RFC 8693 section 4.2)" };
const ROLES: Class = Class { row: 9, reasons: &["roles"], why: "`roles` must be an array of strings" };
const REFERENCE: Class = Class {
    row: 9,
    reasons: &["reference"],
    why: "what revocation goes by must be a string of 1 to 255 bytes",
};
const STATUS: Class = Class {
    row: 9,
    reasons: &["status"],
    why: "a status that cannot be read cannot be looked up, and might say revoked",
};
const UNFIT: Class = Class {
    row: 20,
    reasons: &["claim_unfit_for_header"],
    why: "the claim would end its header, start another, or be trimmed into another value",
};

pub(super) fn fill(bench: &mut Bench<'_>) {
    issuer(bench);
    audience(bench);
    required(bench);
    optional(bench);
    status(bench);
    unfit(bench);
}

fn without(bench: &Bench<'_>, name: &str) -> String {
    bench.with_payload(object_without(bench.issuer.claims(bench.now), name))
}

fn issuer(bench: &mut Bench<'_>) {
    bench.refuse(&ISSUER, "iss-missing", without(bench, "iss"));
    let texts = [
        ("empty", ""),
        ("other", "https://other.example"),
        ("trailing-slash", "https://foreign.example/"),
        ("upper-case", "HTTPS://FOREIGN.EXAMPLE"),
        ("capital", "https://Foreign.example"),
        ("port", "https://foreign.example:443"),
        ("plain-http", "http://foreign.example"),
        ("no-scheme", "foreign.example"),
        ("subdomain", "https://x.foreign.example"),
        ("extended", "https://foreign.example.attacker.example"),
        ("userinfo", "https://foreign.example@attacker.example"),
        ("path", "https://foreign.example/tenant"),
        ("query", "https://foreign.example?x"),
        ("trailing-space", "https://foreign.example "),
        ("trailing-nul", "https://foreign.example\u{0}"),
        ("trailing-newline", "https://foreign.example\n"),
        ("trailing-dot", "https://foreign.example."),
        ("cyrillic", "https://f\u{43e}reign.example"),
        ("fullwidth", "https://\u{ff46}oreign.example"),
        ("zero-width", "https://foreign\u{200b}.example"),
        ("percent-encoded", "https://foreign%2eexample"),
        ("name-of-the-provider", "foreign"),
    ];
    for (name, text) in texts {
        bench.refuse(&ISSUER, format!("iss-{name}"), bench.with_claim("iss", &json!(text).to_string()));
    }
    for (name, raw) in [
        ("null", "null"),
        ("number", "1"),
        ("true", "true"),
        ("array", "[\"https://foreign.example\"]"),
        ("object", "{\"url\":\"https://foreign.example\"}"),
    ] {
        bench.refuse(&ISSUER, format!("iss-{name}"), bench.with_claim("iss", raw));
    }
}

fn audience(bench: &mut Bench<'_>) {
    bench.refuse(&AUDIENCE, "aud-missing", without(bench, "aud"));
    let raws = [
        ("null", "null"),
        ("number", "1"),
        ("true", "true"),
        ("empty", "\"\""),
        ("empty-array", "[]"),
        ("other", "\"other\""),
        ("others", "[\"other\",\"another\"]"),
        ("array-of-empty", "[\"\"]"),
        ("object", "{\"api\":true}"),
        ("object-holding-it", "{\"aud\":\"api\"}"),
        ("nested-array", "[[\"api\"]]"),
        ("with-a-number", "[\"api\",1]"),
        ("with-null", "[\"api\",null]"),
        ("with-an-object", "[{},\"api\"]"),
        ("with-an-array", "[\"api\",[\"api\"]]"),
        ("upper-case", "\"API\""),
        ("longer", "\"api2\""),
        ("shorter", "\"ap\""),
        ("as-a-suffix", "\"my-api\""),
        ("trailing-space", "\"api \""),
        ("leading-space", "[\" api\"]"),
        ("trailing-nul", "\"api\\u0000\""),
        ("trailing-slash", "\"api/\""),
        ("cyrillic", "\"\\u0430pi\""),
        ("spaces-between", "\"other api\""),
        ("commas-between", "\"other,api\""),
        ("wildcard", "\"*\""),
        ("prefix-wildcard", "[\"ap*\"]"),
        ("array-in-a-string", "\"[\\\"api\\\"]\""),
        ("the-issuer", "\"https://foreign.example\""),
        ("the-client", "[\"c1\"]"),
    ];
    for (name, raw) in raws {
        bench.refuse(&AUDIENCE, format!("aud-{name}"), bench.with_claim("aud", raw));
    }
}

fn required(bench: &mut Bench<'_>) {
    let long = json!("x".repeat(256)).to_string();
    let letters = json!("\u{e9}".repeat(128)).to_string();
    let raws = [
        ("empty", "\"\""),
        ("null", "null"),
        ("zero", "0"),
        ("number", "1"),
        ("float", "1.5"),
        ("true", "true"),
        ("false", "false"),
        ("array", "[\"u_1\"]"),
        ("empty-array", "[]"),
        ("object", "{\"u_1\":1}"),
        ("of-256-bytes", long.as_str()),
        ("of-128-letters-in-256-bytes", letters.as_str()),
    ];
    for (claim, class) in [("sub", SUBJECT), ("jti", TOKEN_ID), ("client_id", CLIENT)] {
        let prefix = claim.replace('_', "-");
        bench.refuse(&class, format!("{prefix}-missing"), without(bench, claim));
        for (name, raw) in raws {
            bench.refuse(&class, format!("{prefix}-{name}"), bench.with_claim(claim, raw));
        }
        // Names are compared as they are written, also those of claims.
        let renamed = bench
            .claims_with(claim, "\"u_1\"")
            .replace(&format!("\"{claim}\""), &format!("\"{}\"", claim.to_uppercase()));
        bench.refuse(&class, format!("{prefix}-in-capitals"), bench.with_payload(renamed));
    }
    for algorithm in [Algorithm::Es256, Algorithm::Rs256] {
        let claims = object_without(bench.issuer.claims(bench.now), "sub");
        let token = bench.issuer.token_with_header(bench.good_header(algorithm), claims, algorithm);
        bench.refuse(&SUBJECT, format!("sub-missing-{}", algorithm.key_id()), token);
    }
}

fn optional(bench: &mut Bench<'_>) {
    for (name, raw) in [
        ("array", "[\"read\"]"),
        ("number", "1"),
        ("null", "null"),
        ("true", "true"),
        ("object", "{\"read\":true}"),
    ] {
        bench.refuse(&SCOPE, format!("scope-{name}"), bench.with_claim("scope", raw));
    }
    for (name, raw) in [
        ("string", "\"admin\""),
        ("number", "1"),
        ("null", "null"),
        ("true", "true"),
        ("object", "{\"admin\":true}"),
        ("with-a-number", "[\"admin\",1]"),
        ("with-null", "[null]"),
        ("with-an-array", "[[\"admin\"]]"),
        ("with-an-object", "[{\"name\":\"admin\"}]"),
    ] {
        bench.refuse(&ROLES, format!("roles-{name}"), bench.with_claim("roles", raw));
    }
    let long = json!("x".repeat(256)).to_string();
    for claim in ["tenant", "plan", "sid"] {
        for (name, raw) in [
            ("empty", "\"\""),
            ("number", "1"),
            ("null", "null"),
            ("true", "true"),
            ("array", "[\"t\"]"),
            ("object", "{}"),
            ("of-256-bytes", long.as_str()),
        ] {
            bench.refuse(&REFERENCE, format!("{claim}-{name}"), bench.with_claim(claim, raw));
        }
    }
}

fn status(bench: &mut Bench<'_>) {
    let long = format!("{{\"status_list\":{{\"idx\":1,\"uri\":\"{}\"}}}}", "u".repeat(513));
    let raws = [
        ("null", "null"),
        ("string", "\"valid\""),
        ("number", "0"),
        ("array", "[]"),
        ("empty", "{}"),
        ("list-null", "{\"status_list\":null}"),
        ("list-array", "{\"status_list\":[]}"),
        ("list-empty", "{\"status_list\":{}}"),
        ("index-missing", "{\"status_list\":{\"uri\":\"https://foreign.example/s/1\"}}"),
        ("index-string", "{\"status_list\":{\"idx\":\"1\",\"uri\":\"https://foreign.example/s/1\"}}"),
        ("index-negative", "{\"status_list\":{\"idx\":-1,\"uri\":\"https://foreign.example/s/1\"}}"),
        ("index-fractional", "{\"status_list\":{\"idx\":1.5,\"uri\":\"https://foreign.example/s/1\"}}"),
        (
            "index-of-33-bits",
            "{\"status_list\":{\"idx\":4294967296,\"uri\":\"https://foreign.example/s/1\"}}",
        ),
        ("index-null", "{\"status_list\":{\"idx\":null,\"uri\":\"https://foreign.example/s/1\"}}"),
        ("uri-missing", "{\"status_list\":{\"idx\":1}}"),
        ("uri-empty", "{\"status_list\":{\"idx\":1,\"uri\":\"\"}}"),
        ("uri-number", "{\"status_list\":{\"idx\":1,\"uri\":1}}"),
        ("uri-null", "{\"status_list\":{\"idx\":1,\"uri\":null}}"),
        ("uri-of-513-bytes", long.as_str()),
    ];
    for (name, raw) in raws {
        bench.refuse(&STATUS, format!("status-{name}"), bench.with_claim("status", raw));
    }
}

fn unfit(bench: &mut Bench<'_>) {
    let subjects = [
        ("line-break", "u_1\r\nx-tollgate-scope: admin"),
        ("newline", "u_1\nadmin"),
        ("carriage-return", "u_1\radmin"),
        ("last-newline", "u_1\n"),
        ("nul", "u_1\u{0}"),
        ("nul-within", "u_1\u{0}admin"),
        ("tab", "u_1\tadmin"),
        ("escape", "u_1\u{1b}[31m"),
        ("delete", "u_1\u{7f}"),
        ("next-line", "u_1\u{85}admin"),
        ("c1-control", "u_1\u{9f}"),
        ("leading-space", " u_1"),
        ("trailing-space", "u_1 "),
        ("only-a-space", " "),
        ("trailing-no-break-space", "u_1\u{a0}"),
        ("leading-ideographic-space", "\u{3000}u_1"),
        ("trailing-line-separator", "u_1\u{2028}"),
    ];
    for (name, subject) in subjects {
        bench.refuse(
            &UNFIT,
            format!("sub-unfit-{name}"),
            bench.with_claim("sub", &json!(subject).to_string()),
        );
    }
    for (name, scope) in [
        ("line-break", "read write\r\nx-tollgate-subject: admin"),
        ("nul", "read write\u{0}"),
        ("leading-space", " read write"),
        ("trailing-space", "read write "),
    ] {
        bench.refuse(
            &UNFIT,
            format!("scope-unfit-{name}"),
            bench.with_claim("scope", &json!(scope).to_string()),
        );
    }
}
