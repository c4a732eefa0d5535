//! Good tokens that a filter which is merely strict about everything would refuse.

use serde_json::{Value, json};

use super::signatures::{P256_ORDER, difference};
use super::{Bench, object_with, token_of_length};
use crate::foreign::{Algorithm, ForeignIssuer, encode};

/// Tokens that must be admitted, each with a name that no other has.
pub(crate) fn good_tokens(issuer: &ForeignIssuer, now: u64) -> Vec<(String, String)> {
    let bench = Bench { issuer, now, hostile: Vec::new() };
    let mut tokens = Vec::new();
    plain(&bench, &mut tokens);
    headers(&bench, &mut tokens);
    claims(&bench, &mut tokens);
    dates(&bench, &mut tokens);
    signatures(&bench, &mut tokens);
    tokens.push(("good-of-8192-bytes".to_owned(), token_of_length(issuer, now, 8192)));
    tokens.push(("good-of-8000-bytes".to_owned(), token_of_length(issuer, now, 8000)));
    tokens
}

fn plain(bench: &Bench<'_>, tokens: &mut Vec<(String, String)>) {
    for algorithm in Algorithm::ALL {
        let kid = algorithm.key_id();
        tokens.push((format!("good-{kid}"), bench.good_token(algorithm)));
        let header = bench.header_with(algorithm, "typ", "\"application/at+jwt\"");
        let token = bench.issuer.token_with_header(header, bench.good_claims(), algorithm);
        tokens.push((format!("good-{kid}-with-the-whole-media-type"), token));
        // RFC 8725 section 3.1 is about keys in use: what the header merely carries is nobody's concern.
        let jwk = bench.issuer.attacker.jwk(algorithm, kid).to_string();
        let header = bench.header_with(algorithm, "jwk", &jwk);
        let token = bench.issuer.token_with_header(header, bench.good_claims(), algorithm);
        tokens.push((format!("good-{kid}-with-a-foreign-jwk-ignored"), token));
    }
}

fn headers(bench: &Bench<'_>, tokens: &mut Vec<(String, String)>) {
    let mut add = |name: &str, token: String| tokens.push((format!("good-header-{name}"), token));
    for (name, typ) in
        [("capitals", "AT+JWT"), ("mixed-case", "At+Jwt"), ("media-type-in-capitals", "APPLICATION/AT+JWT")]
    {
        add(&format!("typ-in-{name}"), bench.under_member("typ", &json!(typ).to_string()));
    }
    let members = [
        ("jku", "\"https://attacker.example/jwks.json\""),
        ("x5u", "\"https://attacker.example/chain.pem\""),
        ("x5c", "[\"AAAA\"]"),
        ("x5t", "\"AAAA\""),
        ("x5t#S256", "\"AAAA\""),
        ("cty", "\"JWT\""),
        ("nonce", "\"n\""),
        ("x-unknown", "{\"deep\":[[[1]]],\"null\":null}"),
        ("ALG", "\"none\""),
        ("", "0"),
    ];
    for (place, (member, raw)) in members.into_iter().enumerate() {
        add(&format!("ignored-member-{place}"), bench.under_member(member, raw));
    }
    let spaced = "\t{ \"kid\" : \"ed\" ,\r\n \"alg\" : \"EdDSA\" , \"typ\" : \"at+jwt\" }\n";
    add("with-white-space", bench.under_header(spaced));
    add(
        "with-escapes",
        bench.under_header("{\"\\u0061lg\":\"Ed\\u0044SA\",\"kid\":\"\\u0065d\",\"typ\":\"at\\u002bjwt\"}"),
    );
}

fn claims(bench: &Bench<'_>, tokens: &mut Vec<(String, String)>) {
    let mut add = |name: &str, claim: &str, raw: &str| {
        tokens.push((format!("good-claim-{name}"), bench.with_claim(claim, raw)));
    };
    let longest = json!("x".repeat(255)).to_string();
    let nested = format!("{}1{}", "[".repeat(15), "]".repeat(15));
    let wide = format!("[{}0]", "0,".repeat(255));
    add("aud-string", "aud", "\"api\"");
    add("aud-among-others", "aud", "[\"other\",\"api\",\"another\"]");
    add("aud-twice", "aud", "[\"api\",\"api\"]");
    add("sub-of-255-bytes", "sub", &longest);
    add("sub-of-letters", "sub", "\"jos\u{e9} \u{5c71}\u{7530} \u{1f600}\"");
    add("sub-escaped", "sub", "\"u\\u005f1 \\ud83d\\ude00\"");
    add("sub-of-punctuation", "sub", "\"auth0|a,b;c=\\\"d\\\"\\\\\"");
    add("jti-of-255-bytes", "jti", &longest);
    add("scope-spaced", "scope", "\"write  read\"");
    add("roles", "roles", "[\"admin\",\"\"]");
    add("roles-empty", "roles", "[]");
    add("tenant-plan-and-sid", "tenant", "\"t\",\"plan\":\"free\",\"sid\":\"s\"");
    add("status", "status", "{\"status_list\":{\"idx\":4294967295,\"uri\":\"https://foreign.example/s/1\"}}");
    add("unknown-nested-15-deep", "x", &nested);
    add("unknown-of-256-elements", "x", &wide);
    add("unknown-null", "x", "null");
    add(
        "unknown-huge-numbers",
        "x",
        "[18446744073709551615,-9223372036854775808,1e308,123456789012345678901234567890]",
    );
    add("unknown-same-names-apart", "x", "{\"sub\":{\"sub\":{\"sub\":1}},\"exp\":0}");
    add("unknown-in-other-case", "SUB", "\"admin\"");
    add("unknown-text", "x", "\"</script>\\u0000\\r\\n'; DROP TABLE users; --\"");
}

fn dates(bench: &Bench<'_>, tokens: &mut Vec<(String, String)>) {
    let now = bench.now;
    let mut add = |name: &str, claim: &str, raw: String| {
        tokens.push((format!("good-date-{name}"), bench.with_claim(claim, &raw)));
    };
    add("exp-within-the-skew", "exp", (now - 30).to_string());
    add("exp-fractional", "exp", format!("{}.75", now + 600));
    add("exp-with-exponent", "exp", format!("{}e-2", (now + 600) * 100));
    add("exp-as-a-whole-float", "exp", format!("{}.0", now + 600));
    add("exp-2-53", "exp", "9007199254740992".to_owned());
    add("iat-fractional", "iat", format!("{}.25", now - 5));
    add("iat-within-the-skew", "iat", (now + 30).to_string());
    add("iat-zero", "iat", "0".to_owned());
    add("nbf-now", "nbf", now.to_string());
    add("nbf-within-the-skew", "nbf", (now + 30).to_string());
    add("nbf-zero", "nbf", "0".to_owned());
}

/// ECDSA has two signatures for one: s and its negative. JWS forbids neither.
fn signatures(bench: &Bench<'_>, tokens: &mut Vec<(String, String)>) {
    let claims: Value = bench.issuer.claims(bench.now).into();
    let claims = object_with(claims.as_object().cloned().unwrap_or_default(), "x", "1");
    let header = bench.good_header(Algorithm::Es256);
    let signed = format!("{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()));
    let signature = bench.issuer.sign(Algorithm::Es256, signed.as_bytes());
    let (r, s) = signature.split_at(32);
    let negative = difference(&P256_ORDER, s);
    let (low, high) =
        if s < negative.as_slice() { (s, negative.as_slice()) } else { (negative.as_slice(), s) };
    tokens.push(("good-es-with-low-s".to_owned(), format!("{signed}.{}", encode(&[r, low].concat()))));
    tokens.push(("good-es-with-high-s".to_owned(), format!("{signed}.{}", encode(&[r, high].concat()))));
}
