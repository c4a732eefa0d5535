//! Row 10: dates that are over, that have not come, and that are not dates.

use super::{Bench, Class, object_without};
use crate::foreign::Algorithm;

const NO_EXPIRY: Class = Class {
    row: 10,
    reasons: &["expiry"],
    why: "`exp` must be a number from 0 to 2^53, or the token never dies",
};
const EXPIRED: Class = Class { row: 10, reasons: &["expired"], why: "its time is over" };
const NO_START: Class =
    Class { row: 10, reasons: &["not_before"], why: "`nbf` must be a number from 0 to 2^53" };
const EARLY: Class = Class { row: 10, reasons: &["not_yet_valid"], why: "its time has not come" };
const NO_ISSUE: Class =
    Class { row: 10, reasons: &["issued_at"], why: "`iat` must be a number from 0 to 2^53" };
const FROM_FUTURE: Class =
    Class { row: 10, reasons: &["issued_in_future"], why: "nobody can have issued it yet" };
const NO_NUMBER: Class =
    Class { row: 10, reasons: &["claims"], why: "the date is not a number that JSON has" };

pub(super) fn fill(bench: &mut Bench<'_>) {
    malformed(bench);
    out_of_time(bench);
}

fn malformed(bench: &mut Bench<'_>) {
    let good = (bench.now + 600).to_string();
    let quoted = format!("\"{good}\"");
    let listed = format!("[{good}]");
    let spelt = format!("\" {good} \"");
    let raws = [
        ("null", "null"),
        ("string", quoted.as_str()),
        ("string-with-spaces", spelt.as_str()),
        ("empty-string", "\"\""),
        ("word", "\"never\""),
        ("iso-8601", "\"2099-01-01T00:00:00Z\""),
        ("infinity-in-a-string", "\"Infinity\""),
        ("true", "true"),
        ("false", "false"),
        ("array", listed.as_str()),
        ("empty-array", "[]"),
        ("object", "{\"$date\":4102444800}"),
        ("minus-one", "-1"),
        ("large-negative", "-4102444800"),
        ("least-i64", "-9223372036854775808"),
        ("small-negative-fraction", "-0.5"),
        ("beyond-2-53", "9007199254740993"),
        ("2-63", "9223372036854775808"),
        ("largest-u64", "18446744073709551615"),
        ("2-64", "18446744073709551616"),
        ("thirty-digits", "999999999999999999999999999999"),
        ("1e16", "1e16"),
        ("1e308", "1e308"),
        ("minus-1e308", "-1e308"),
    ];
    for (claim, class) in [("exp", NO_EXPIRY), ("nbf", NO_START), ("iat", NO_ISSUE)] {
        for (name, raw) in raws {
            bench.refuse(&class, format!("{claim}-{name}"), bench.with_claim(claim, raw));
        }
        for (name, raw) in [
            ("1e309", "1e309"),
            ("nan", "NaN"),
            ("infinity", "Infinity"),
            ("octal", "01"),
            ("hexadecimal", "0xFF"),
        ] {
            bench.refuse(&NO_NUMBER, format!("{claim}-{name}"), bench.with_claim(claim, raw));
        }
    }
    for (claim, class) in [("exp", NO_EXPIRY), ("iat", NO_ISSUE)] {
        let claims = object_without(bench.issuer.claims(bench.now), claim);
        for algorithm in Algorithm::ALL {
            let token = bench.issuer.token_with_header(bench.good_header(algorithm), &claims, algorithm);
            bench.refuse(&class, format!("{claim}-missing-{}", algorithm.key_id()), token);
        }
    }
}

fn out_of_time(bench: &mut Bench<'_>) {
    let now = bench.now;
    let past = [
        ("zero", "0".to_owned()),
        ("one", "1".to_owned()),
        ("zero-point-zero", "0.0".to_owned()),
        ("smallest-float", "5e-324".to_owned()),
        ("an-hour-ago", (now - 3600).to_string()),
        ("a-year-ago", (now - 31_536_000).to_string()),
        ("just-past-the-skew", (now - 61).to_string()),
        ("at-the-skew", (now - 60).to_string()),
        ("fraction-past-the-skew", format!("{}.5", now - 61)),
        ("fraction-before-the-skew-ends", format!("{}.999", now - 60)),
        ("with-exponent", format!("{}e-3", (now - 3600) * 1000)),
    ];
    for (name, raw) in past {
        bench.refuse(&EXPIRED, format!("exp-{name}"), bench.with_claim("exp", &raw));
    }
    for algorithm in Algorithm::ALL {
        let claims = bench.claims_with("exp", &(now - 3600).to_string());
        let token = bench.issuer.token_with_header(bench.good_header(algorithm), claims, algorithm);
        bench.refuse(&EXPIRED, format!("exp-an-hour-ago-{}", algorithm.key_id()), token);
    }
    let future = [
        ("in-an-hour", (now + 3600).to_string()),
        ("in-an-hour-and-a-fraction", format!("{}.5", now + 3600)),
        ("in-a-century", (now + 3_155_760_000).to_string()),
        ("in-milliseconds", (now * 1000).to_string()),
        ("2-53", "9007199254740992".to_owned()),
    ];
    for (name, raw) in future {
        bench.refuse(&EARLY, format!("nbf-{name}"), bench.with_claim("nbf", &raw));
        bench.refuse(&FROM_FUTURE, format!("iat-{name}"), bench.with_claim("iat", &raw));
    }
    let shielded = format!("{},\"nbf\":{}", now - 3600, now - 7200);
    bench.refuse(&EXPIRED, "exp-an-hour-ago-and-nbf-before-it", bench.with_claim("exp", &shielded));
    let inverted = format!("{},\"nbf\":{}", now + 600, now + 3600);
    bench.refuse(&EARLY, "exp-before-nbf", bench.with_claim("exp", &inverted));
}
