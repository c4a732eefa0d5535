//! Rows 12 and 13: signatures that the named key did not make, or not over this, or not in this form.

use super::{Bench, Class, segments};
use crate::foreign::{Algorithm, encode};

const ABSENT: Class = Class { row: 12, reasons: &["segments"], why: "there is no signature" };
const DAMAGED: Class =
    Class { row: 12, reasons: &["signature"], why: "the signature is not the one the key made" };
const ELSEWHERE: Class =
    Class { row: 12, reasons: &["signature"], why: "the signature was made over something else" };
const FORGED: Class =
    Class { row: 12, reasons: &["signature"], why: "another key of the same type made the signature" };
const MISSHAPEN: Class = Class {
    row: 12,
    reasons: &["signature"],
    why: "the signature has not the one form that JWS gives it (RFC 7518 section 3)",
};
const DEGENERATE: Class = Class {
    row: 12,
    reasons: &["signature"],
    why: "the numbers are out of range, where careless arithmetic accepts anything",
};
const MALLEATED: Class = Class {
    row: 13,
    reasons: &["signature"],
    why: "s is not reduced (RFC 8032 section 5.1.7), so that one signature has several spellings",
};
const SMALL_ORDER: Class = Class {
    row: 13,
    reasons: &["signature"],
    why: "R has small order; some verifiers accept that and others do not",
};

/// The order of Ed25519's prime subgroup, little-endian (RFC 8032 section 5.1).
const ED25519_ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];
/// The order of P-256, big-endian (FIPS 186-4 section D.1.2.3).
pub(super) const P256_ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
    0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// What is done to a good signature.
type Change = fn(&[u8]) -> Vec<u8>;

pub(super) fn fill(bench: &mut Bench<'_>) {
    for algorithm in Algorithm::ALL {
        damaged(bench, algorithm);
        elsewhere(bench, algorithm);
    }
    ecdsa(bench);
    rsa(bench);
    eddsa(bench);
}

/// What a good token's signature is over, and the signature.
fn good(bench: &Bench<'_>, algorithm: Algorithm) -> (String, Vec<u8>) {
    let header = encode(bench.good_header(algorithm).as_bytes());
    let signed = format!("{header}.{}", encode(bench.good_claims().as_bytes()));
    let signature = bench.issuer.sign(algorithm, signed.as_bytes());
    (signed, signature)
}

fn refuse_changed(
    bench: &mut Bench<'_>,
    class: &Class,
    name: String,
    algorithm: Algorithm,
    change: impl Fn(&[u8]) -> Vec<u8>,
) {
    let (signed, signature) = good(bench, algorithm);
    let changed = change(&signature);
    assert_ne!(changed, signature, "{name} changes nothing");
    bench.refuse(class, name, format!("{signed}.{}", encode(&changed)));
}

fn flipped(signature: &[u8], place: usize, mask: u8) -> Vec<u8> {
    let mut signature = signature.to_vec();
    if let Some(byte) = signature.get_mut(place) {
        *byte ^= mask;
    }
    signature
}

fn damaged(bench: &mut Bench<'_>, algorithm: Algorithm) {
    let kid = algorithm.key_id();
    let (signed, _) = good(bench, algorithm);
    bench.refuse(&ABSENT, format!("signature-empty-{kid}"), format!("{signed}."));
    let changes: [(&str, Change); 12] = [
        ("first-bit", |signature| flipped(signature, 0, 0x80)),
        ("last-bit", |signature| flipped(signature, signature.len() - 1, 1)),
        ("middle-bit", |signature| flipped(signature, signature.len() / 2, 0x10)),
        ("bit-before-the-middle", |signature| flipped(signature, signature.len() / 2 - 1, 1)),
        ("zeros", |signature| vec![0; signature.len()]),
        ("ones", |signature| vec![0xff; signature.len()]),
        ("one-zero", |_| vec![0]),
        ("inverted", |signature| signature.iter().map(|byte| !byte).collect()),
        ("reversed", |signature| signature.iter().rev().copied().collect()),
        ("halves-swapped", |signature| {
            let (first, second) = signature.split_at(signature.len() / 2);
            [second, first].concat()
        }),
        ("first-half-twice", |signature| signature.get(..signature.len() / 2).unwrap_or_default().repeat(2)),
        ("as-base64url-text", |signature| encode(signature).into_bytes()),
    ];
    for (name, change) in changes {
        refuse_changed(bench, &DAMAGED, format!("signature-{name}-{kid}"), algorithm, change);
    }
    let shapes: [(&str, Change); 7] = [
        ("without-last-byte", |signature| signature.get(..signature.len() - 1).unwrap_or_default().to_vec()),
        ("without-first-byte", |signature| signature.get(1..).unwrap_or_default().to_vec()),
        ("first-half", |signature| signature.get(..signature.len() / 2).unwrap_or_default().to_vec()),
        ("with-a-zero-behind", |signature| [signature, &[0]].concat()),
        ("with-a-zero-before", |signature| [&[0], signature].concat()),
        ("twice", |signature| signature.repeat(2)),
        ("in-4000-bytes", |signature| [signature, &[0; 4000]].concat()),
    ];
    for (name, change) in shapes {
        refuse_changed(bench, &MISSHAPEN, format!("signature-{name}-{kid}"), algorithm, change);
    }
}

fn elsewhere(bench: &mut Bench<'_>, algorithm: Algorithm) {
    let kid = algorithm.key_id();
    let one = bench.good_token(algorithm);
    let two = bench.good_token(algorithm);
    let [header, payload, signature] = segments(&one);
    let [_, other_payload, other_signature] = segments(&two);
    bench.refuse(
        &ELSEWHERE,
        format!("signature-of-another-token-{kid}"),
        format!("{header}.{payload}.{other_signature}"),
    );
    bench.refuse(
        &ELSEWHERE,
        format!("payload-of-another-token-{kid}"),
        format!("{header}.{other_payload}.{signature}"),
    );

    let admin = encode(bench.claims_with("sub", "\"admin\"").as_bytes());
    bench.refuse(&ELSEWHERE, format!("payload-tampered-{kid}"), format!("{header}.{admin}.{signature}"));
    let odd_header = encode(bench.header_with(algorithm, "x", "1").as_bytes());
    bench.refuse(&ELSEWHERE, format!("header-tampered-{kid}"), format!("{odd_header}.{payload}.{signature}"));
    // The same JSON in another spelling: what is signed is the text, not the value.
    let spaced = encode(format!("{} ", bench.good_header(algorithm)).as_bytes());
    bench.refuse(&ELSEWHERE, format!("header-respelt-{kid}"), format!("{spaced}.{payload}.{signature}"));

    let inputs = [
        ("payload-alone", payload.to_owned()),
        ("header-alone", header.to_owned()),
        ("header-and-payload-without-a-dot", format!("{header}{payload}")),
        ("payload-and-header", format!("{payload}.{header}")),
        ("header-and-payload-and-a-dot", format!("{header}.{payload}.")),
        ("nothing", String::new()),
        ("decoded-text", format!("{}.{}", bench.good_header(algorithm), bench.good_claims())),
    ];
    for (name, input) in inputs {
        let signature = encode(&bench.issuer.sign(algorithm, input.as_bytes()));
        bench.refuse(
            &ELSEWHERE,
            format!("signature-over-{name}-{kid}"),
            format!("{header}.{payload}.{signature}"),
        );
    }
    let signed = format!("{header}.{payload}");
    let forged = encode(&bench.issuer.attacker.sign(algorithm, signed.as_bytes()));
    bench.refuse(&FORGED, format!("signature-of-the-attacker-{kid}"), format!("{signed}.{forged}"));
    for other in Algorithm::ALL.into_iter().filter(|other| *other != algorithm) {
        let signature = encode(&bench.issuer.sign(other, signed.as_bytes()));
        let name = format!("signature-of-the-{}-key-named-{kid}", other.key_id());
        bench.refuse(&MISSHAPEN, name, format!("{signed}.{signature}"));
    }
}

fn ecdsa(bench: &mut Bench<'_>) {
    let (signed, _) = good(bench, Algorithm::Es256);
    let der = bench.issuer.genuine.sign_es256_der(signed.as_bytes());
    bench.refuse(&MISSHAPEN, "es256-signature-in-der", format!("{signed}.{}", encode(&der)));

    let zero = [0; 32];
    let one = number(1);
    let order = P256_ORDER;
    let below = difference(&P256_ORDER, &one);
    let ones = [0xff; 32];
    let whole: [(&str, [u8; 32], [u8; 32]); 8] = [
        ("zero-and-zero", zero, zero),
        ("zero-and-one", zero, one),
        ("one-and-zero", one, zero),
        ("one-and-one", one, one),
        ("order-and-order", order, order),
        ("order-and-one", order, one),
        ("below-the-order-twice", below, below),
        ("ones-and-ones", ones, ones),
    ];
    for (name, r, s) in whole {
        refuse_changed(bench, &DEGENERATE, format!("es256-r-and-s-{name}"), Algorithm::Es256, |_| {
            [r, s].concat()
        });
    }
    for (name, value) in
        [("zero", zero), ("one", one), ("the-order", order), ("below-the-order", below), ("ones", ones)]
    {
        refuse_changed(bench, &DEGENERATE, format!("es256-r-is-{name}"), Algorithm::Es256, |signature| {
            [&value, signature.get(32..).unwrap_or_default()].concat()
        });
        refuse_changed(bench, &DEGENERATE, format!("es256-s-is-{name}"), Algorithm::Es256, |signature| {
            [signature.get(..32).unwrap_or_default(), &value].concat()
        });
    }
    refuse_changed(
        bench,
        &MISSHAPEN,
        "es256-r-and-s-in-48-bytes-each".to_owned(),
        Algorithm::Es256,
        |signature| {
            let (r, s) = signature.split_at(32);
            [&[0; 16], r, &[0; 16], s].concat()
        },
    );
    refuse_changed(
        bench,
        &MISSHAPEN,
        "es256-r-and-s-little-endian".to_owned(),
        Algorithm::Es256,
        |signature| {
            let (r, s) = signature.split_at(32);
            r.iter().rev().chain(s.iter().rev()).copied().collect()
        },
    );
    refuse_changed(bench, &DEGENERATE, "es256-r-negated".to_owned(), Algorithm::Es256, |signature| {
        let (r, s) = signature.split_at(32);
        [difference(&P256_ORDER, r).as_slice(), s].concat()
    });
}

fn rsa(bench: &mut Bench<'_>) {
    let modulus = bench.issuer.genuine.modulus().to_vec();
    refuse_changed(
        bench,
        &DEGENERATE,
        "rs256-signature-plus-modulus".to_owned(),
        Algorithm::Rs256,
        |signature| sum(signature, &modulus),
    );
    let mut one = vec![0; 256];
    one.last_mut().into_iter().for_each(|low| *low = 1);
    let mut below = modulus.clone();
    below.last_mut().into_iter().for_each(|low| *low -= 1);
    for (name, value) in [("one", one), ("the-modulus", modulus), ("below-the-modulus", below)] {
        refuse_changed(bench, &DEGENERATE, format!("rs256-signature-is-{name}"), Algorithm::Rs256, |_| {
            value.clone()
        });
    }
    let (signed, _) = good(bench, Algorithm::Rs256);
    let bare = crate::foreign::padded_digest(signed.as_bytes());
    bench.refuse(&DEGENERATE, "rs256-signature-is-the-padded-digest", format!("{signed}.{}", encode(&bare)));
}

fn eddsa(bench: &mut Bench<'_>) {
    for (times, name) in [(1, "once"), (2, "twice"), (7, "seven-times"), (14, "fourteen-times")] {
        let name = format!("ed25519-order-added-{name}-to-s");
        refuse_changed(bench, &MALLEATED, name, Algorithm::EdDsa, |signature| {
            let (r, s) = signature.split_at(32);
            let s = (0..times).fold(s.to_vec(), |s, _| sum_little_endian(&s, &ED25519_ORDER));
            [r, &s].concat()
        });
    }
    for (name, mask) in [("highest", 0x80), ("second-highest", 0x40), ("third-highest", 0x20)] {
        let name = format!("ed25519-{name}-bit-of-s");
        refuse_changed(bench, &MALLEATED, name, Algorithm::EdDsa, |signature| flipped(signature, 63, mask));
    }
    refuse_changed(bench, &MALLEATED, "ed25519-s-is-the-order".to_owned(), Algorithm::EdDsa, |signature| {
        [signature.get(..32).unwrap_or_default(), &ED25519_ORDER].concat()
    });

    let mut identity = [0; 32];
    identity[0] = 1;
    let mut order_two = [0xff; 32];
    order_two[0] = 0xec;
    order_two[31] = 0x7f;
    let mut identity_unreduced = order_two;
    identity_unreduced[0] = 0xee;
    let mut identity_negative = identity;
    identity_negative[31] = 0x80;
    let mut order_four_negative = [0; 32];
    order_four_negative[31] = 0x80;
    let points = [
        ("identity", identity),
        ("identity-negative", identity_negative),
        ("identity-unreduced", identity_unreduced),
        ("order-two", order_two),
        ("order-four", [0; 32]),
        ("order-four-negative", order_four_negative),
    ];
    for (name, r) in points {
        refuse_changed(bench, &SMALL_ORDER, format!("ed25519-r-is-{name}-s-zero"), Algorithm::EdDsa, |_| {
            [r, [0; 32]].concat()
        });
        refuse_changed(bench, &SMALL_ORDER, format!("ed25519-r-is-{name}"), Algorithm::EdDsa, |signature| {
            [&r, signature.get(32..).unwrap_or_default()].concat()
        });
    }
    refuse_changed(bench, &DAMAGED, "ed25519-sign-of-r".to_owned(), Algorithm::EdDsa, |signature| {
        flipped(signature, 31, 0x80)
    });
}

/// A small number, big-endian.
fn number(value: u8) -> [u8; 32] {
    let mut number = [0; 32];
    number[31] = value;
    number
}

/// `minuend - subtrahend` of big-endian numbers, modulo 2^256.
pub(super) fn difference(minuend: &[u8; 32], subtrahend: &[u8]) -> [u8; 32] {
    let mut borrow = 0;
    let mut result = [0; 32];
    for (place, (one, two)) in result.iter_mut().zip(minuend.iter().zip(subtrahend)).rev() {
        let value = 0x100 + u16::from(*one) - u16::from(*two) - borrow;
        borrow = u16::from(value < 0x100);
        let [low, _] = value.to_le_bytes();
        *place = low;
    }
    result
}

/// The sum of two little-endian numbers of the same length; the caller knows that it fits.
fn sum_little_endian(one: &[u8], two: &[u8]) -> Vec<u8> {
    let mut carry = 0;
    let add = |(one, two): (&u8, &u8)| {
        let [low, high] = (u16::from(*one) + u16::from(*two) + carry).to_le_bytes();
        carry = u16::from(high);
        low
    };
    one.iter().zip(two).map(add).collect()
}

/// The sum of two big-endian numbers of the same length, with one byte more for the carry.
fn sum(one: &[u8], two: &[u8]) -> Vec<u8> {
    let little = |number: &[u8]| -> Vec<u8> { number.iter().rev().copied().chain([0]).collect() };
    sum_little_endian(&little(one), &little(two)).into_iter().rev().collect()
}
