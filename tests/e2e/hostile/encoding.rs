//! Row 6: base64url in any other than its one strict form.
//!
//! Where the header or the payload is encoded oddly, the genuine key signed it as it stands, so that a lenient decoder
//! would find nothing wrong.

use base64ct::{Base64Url, Encoding as _};

use super::{Bench, Class, object_with, segments};
use crate::foreign::{Algorithm, encode};

const PADDED: Class =
    Class { row: 6, reasons: &["base64"], why: "base64url in a token has no padding (RFC 7515 section 2)" };
const ALPHABET: Class =
    Class { row: 6, reasons: &["base64"], why: "a character is not of the base64url alphabet" };
const SPARE_BITS: Class = Class {
    row: 6,
    reasons: &["base64"],
    why: "spare bits are set, so that one token has several spellings",
};
const LENGTH: Class = Class { row: 6, reasons: &["base64"], why: "no bytes have an encoding of this length" };
const FOREIGN_BYTES: Class = Class {
    row: 6,
    reasons: &["malformed_credential"],
    why: "a bearer token is made of a few ASCII characters only",
};

/// The base64url alphabet, in the order of its values.
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Which segment of a token is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Header,
    Payload,
    Signature,
}

impl Part {
    const ALL: [Self; 3] = [Self::Header, Self::Payload, Self::Signature];

    fn name(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Payload => "payload",
            Self::Signature => "signature",
        }
    }
}

pub(super) fn fill(bench: &mut Bench<'_>) {
    padding(bench);
    alphabet(bench);
    spare_bits(bench);
    lengths(bench);
    foreign_bytes(bench);
}

/// A token with one segment rewritten; `spaces` of JSON whitespace bring the first two to the wanted length.
fn rewritten(bench: &Bench<'_>, part: Part, spaces: usize, rewrite: impl Fn(&str) -> String) -> String {
    let space = " ".repeat(spaces);
    let header = encode(format!("{}{space}", marked(bench.issuer.header(Algorithm::EdDsa))).as_bytes());
    let payload = encode(format!("{}{space}", marked(bench.issuer.claims(bench.now))).as_bytes());
    match part {
        Part::Header => bench.issuer.token_of_segments(&rewrite(&header), &payload, Algorithm::EdDsa),
        Part::Payload => bench.issuer.token_of_segments(&header, &rewrite(&payload), Algorithm::EdDsa),
        Part::Signature => {
            let token = bench.issuer.token_of_segments(&header, &payload, Algorithm::EdDsa);
            let [header, payload, signature] = segments(&token);
            format!("{header}.{payload}.{}", rewrite(signature))
        }
    }
}

/// An object with a member whose encoding holds both of the characters in which base64url differs from base64.
fn marked(object: serde_json::Map<String, serde_json::Value>) -> String {
    object_with(object, "mark", "\"???>>>???>>>~~~???>>>\"")
}

/// Tries rewriting until it changes something that lies in chance: lengths, and what a signature happens to hold.
fn until_changed(bench: &Bench<'_>, part: Part, rewrite: impl Fn(&str) -> Option<String>) -> String {
    for attempt in 0..256 {
        let changed = std::cell::Cell::new(false);
        let token = rewritten(bench, part, attempt % 3, |segment| match rewrite(segment) {
            Some(other) => {
                changed.set(true);
                other
            }
            None => segment.to_owned(),
        });
        if changed.get() {
            return token;
        }
    }
    unreachable!("one of 256 tokens has a segment to rewrite")
}

fn padding(bench: &mut Bench<'_>) {
    for part in Part::ALL {
        let name = part.name();
        let padded = until_changed(bench, part, |segment| {
            let missing = (4 - segment.len() % 4) % 4;
            (missing > 0).then(|| format!("{segment}{}", "=".repeat(missing)))
        });
        bench.refuse(&PADDED, format!("padding-{name}"), padded);
        bench.refuse(
            &PADDED,
            format!("padding-one-too-many-{name}"),
            rewritten(bench, part, 0, |segment| format!("{segment}=")),
        );
        let many = rewritten(bench, part, 0, |segment| format!("{segment}===="));
        bench.refuse(&PADDED, format!("padding-of-four-{name}"), many);
        let within = rewritten(bench, part, 0, |segment| {
            let (start, end) = segment.split_at(segment.len() / 8 * 4);
            format!("{start}={end}")
        });
        bench.refuse(&PADDED, format!("padding-within-{name}"), within);
    }
    let token = bench.good_token(Algorithm::Es256);
    let [header, payload, signature] = segments(&token).map(padded);
    bench.refuse(&PADDED, "padding-everywhere", format!("{header}.{payload}.{signature}"));
}

fn padded(segment: &str) -> String {
    let bytes = base64ct::Base64UrlUnpadded::decode_vec(segment).unwrap_or_default();
    // RFC 4648 section 5 with padding: the form most libraries call url-safe.
    let padded = Base64Url::encode_string(&bytes);
    if padded.ends_with('=') { padded } else { format!("{padded}=") }
}

fn alphabet(bench: &mut Bench<'_>) {
    for part in Part::ALL {
        let name = part.name();
        let standard = until_changed(bench, part, |segment| {
            let standard = segment.replace('-', "+").replace('_', "/");
            (standard != segment).then_some(standard)
        });
        bench.refuse(&ALPHABET, format!("standard-alphabet-{name}"), standard);
        let mixed = until_changed(bench, part, |segment| {
            let mixed = segment.replace('_', "/");
            (mixed != segment).then_some(mixed)
        });
        bench.refuse(&ALPHABET, format!("mixed-alphabet-{name}"), mixed);
        let tilde = rewritten(bench, part, 0, |segment| format!("{segment}~"));
        bench.refuse(&ALPHABET, format!("tilde-at-the-end-of-{name}"), tilde);
        let within = rewritten(bench, part, 0, |segment| {
            let (start, end) = segment.split_at(8);
            format!("{start}~{end}")
        });
        bench.refuse(&ALPHABET, format!("tilde-within-{name}"), within);
    }
    let disclosed = format!("{}~WyJzYWx0IiwibmFtZSIsInZhbHVlIl0~", bench.good_token(Algorithm::EdDsa));
    bench.refuse(&ALPHABET, "selective-disclosure-appended", disclosed);
}

/// The same bytes to a lenient decoder: only bits that stand for nothing are set.
fn with_spare_bit(segment: &str) -> Option<String> {
    let spare = match segment.len() % 4 {
        2 => 0b1000,
        3 => 0b10,
        _ => return None,
    };
    let last = segment.bytes().last()?;
    let value = DIGITS.iter().position(|digit| *digit == last)?;
    let other = DIGITS.get(value | spare).filter(|other| **other != last)?;
    Some(format!("{}{}", segment.get(..segment.len() - 1)?, char::from(*other)))
}

fn spare_bits(bench: &mut Bench<'_>) {
    for part in Part::ALL {
        let token = until_changed(bench, part, with_spare_bit);
        bench.refuse(&SPARE_BITS, format!("spare-bits-{}", part.name()), token);
    }
    for algorithm in [Algorithm::Es256, Algorithm::Rs256] {
        let token = bench.good_token(algorithm);
        let [header, payload, signature] = segments(&token);
        let signature = with_spare_bit(signature).unwrap_or_default();
        let name = format!("spare-bits-signature-{}", algorithm.key_id());
        bench.refuse(&SPARE_BITS, name, format!("{header}.{payload}.{signature}"));
    }
}

fn lengths(bench: &mut Bench<'_>) {
    for part in Part::ALL {
        let token = rewritten(bench, part, 0, |segment| {
            let whole = segment.len() / 4 * 4;
            format!("{}A", segment.get(..whole).unwrap_or_default())
        });
        bench.refuse(&LENGTH, format!("impossible-length-{}", part.name()), token);
    }
}

fn foreign_bytes(bench: &mut Bench<'_>) {
    let pieces: [(&str, &[u8]); 12] = [
        ("space", b" "),
        ("tab", b"\t"),
        ("percent-encoded-padding", b"%3D"),
        ("percent-encoded-newline", b"%0A"),
        ("escaped-newline", b"\\n"),
        ("quote", b"\""),
        ("semicolon", b";"),
        ("invalid-utf8", b"\xff"),
        ("latin-1", b"\xe9"),
        ("two-byte-letter", "\u{e9}".as_bytes()),
        ("zero-width-space", "\u{200b}".as_bytes()),
        ("overlong-dot", b"\xc0\xae"),
    ];
    for (name, piece) in pieces {
        for part in Part::ALL {
            let token = bench.good_token(Algorithm::EdDsa);
            let pieces = segments(&token).map(str::as_bytes);
            let mut value = b"Bearer ".to_vec();
            for (place, segment) in Part::ALL.into_iter().zip(pieces) {
                let (start, end) = segment.split_at(8);
                let between = if place == part { piece } else { b"" };
                let dot: &[u8] = if place == Part::Signature { b"" } else { b"." };
                value.extend([start, between, end, dot].concat());
            }
            bench.refuse_value(&FOREIGN_BYTES, 400, format!("{name}-in-{}", part.name()), value);
        }
    }
    let token = bench.good_token(Algorithm::EdDsa);
    let encoded_dots = format!("Bearer {}", token.replace('.', "%2E"));
    bench.refuse_value(&FOREIGN_BYTES, 400, "percent-encoded-dots", encoded_dots);
    let fullwidth_dots = format!("Bearer {}", token.replace('.', "\u{ff0e}"));
    bench.refuse_value(&FOREIGN_BYTES, 400, "fullwidth-dots", fullwidth_dots);
}
