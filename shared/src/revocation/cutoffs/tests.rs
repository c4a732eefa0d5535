//! Cut-offs against a naive list, and that what is over goes in steps.

use proptest::prelude::*;

use super::*;
use crate::id::{ClientId, IssuerId, SessionId, Subject, TenantId, TokenId};
use crate::token::JsonValue;

/// A token whose names are all single letters.
fn claims(names: &str, issuer: &str, issued_at: Option<u64>) -> Claims {
    let mut names = names.chars().map(String::from);
    let mut name = || names.next().unwrap();
    Claims {
        issuer: IssuerId::new(issuer).unwrap(),
        token_id: TokenId::new(&name()).unwrap(),
        session: SessionId::new(&name()),
        subject: Subject::new(&name()).unwrap(),
        client: ClientId::new(&name()),
        tenant: TenantId::new(&name()),
        issued_at: issued_at.map(UnixSeconds),
        not_before: None,
        expires_at: UnixSeconds(1_000_000),
        scopes: Vec::new(),
        roles: Vec::new(),
        plan: None,
        status: None,
        all: JsonValue::Null,
    }
}

fn cutoff(dimension: Dimension, value: &str, until: u64) -> Cutoff {
    Cutoff {
        dimension,
        issuer: None,
        value: value.to_owned(),
        issued_before: None,
        until: UnixSeconds(until),
    }
}

fn any_cutoff() -> impl Strategy<Value = Cutoff> {
    let issuer = prop_oneof![Just(None), Just(Some("x".to_owned())), Just(Some("y".to_owned()))];
    let before = proptest::option::of((0..6u64).prop_map(UnixSeconds));
    (0..7usize, "[abxy]", issuer, before, 0..50u64).prop_map(
        |(dimension, value, issuer, issued_before, until)| Cutoff {
            dimension: Dimension::ALL[dimension],
            issuer,
            value,
            issued_before,
            until: UnixSeconds(until),
        },
    )
}

/// Whether any of these covers the token, by the definition of a cut-off and nothing else.
fn naive(cutoffs: &[Cutoff], key: &str, claims: &Claims, home: bool) -> bool {
    cutoffs.iter().any(|cutoff| {
        let ours = match &cutoff.issuer {
            Some(issuer) => issuer == claims.issuer.as_str(),
            None => home,
        };
        let early = match (cutoff.issued_before, claims.issued_at) {
            (Some(before), Some(issued_at)) => issued_at < before,
            _ => true,
        };
        ours && early && cutoff.dimension.value_in(key, claims) == Some(cutoff.value.as_str())
    })
}

proptest! {
    #[test]
    fn what_is_cut_off_is_what_any_cutoff_covers(
        cutoffs in proptest::collection::vec(any_cutoff(), 0..12),
        names in "[abxy]{5}",
        key in "[abxy]",
        issuer in "[xy]",
        issued_at in proptest::option::of(0..6u64),
        home: bool,
    ) {
        let mut set = Cutoffs::default();
        for cutoff in &cutoffs {
            set.insert(cutoff.clone());
        }
        let claims = claims(&names, &issuer, issued_at);
        prop_assert_eq!(set.covering(&key, &claims, home).is_some(), naive(&cutoffs, &key, &claims, home));
        // What is sent on as a snapshot means the same.
        let mut sent = Cutoffs::default();
        for cutoff in set.iter() {
            sent.insert(cutoff);
        }
        prop_assert_eq!(&sent, &set);
        prop_assert_eq!(sent.len(), set.iter().count());
    }

    /// Whatever the steps, what is not over stays, and after enough of them nothing that is over is left.
    #[test]
    fn expired_cutoffs_go_in_steps_and_no_other_does(
        cutoffs in proptest::collection::vec(any_cutoff(), 0..30),
        horizon in 0..60u64,
        step in 1..5usize,
    ) {
        let (mut set, mut left) = (Cutoffs::default(), Cutoffs::default());
        let longest = |wanted: &Cutoff| {
            let same = |cutoff: &&Cutoff| {
                (&cutoff.dimension, &cutoff.value, &cutoff.issuer) == (&wanted.dimension, &wanted.value, &wanted.issuer)
            };
            cutoffs.iter().filter(same).map(|cutoff| cutoff.until.0).max().unwrap()
        };
        for cutoff in &cutoffs {
            set.insert(cutoff.clone());
            if longest(cutoff) >= horizon {
                left.insert(cutoff.clone());
            }
        }
        for _ in 0..=cutoffs.len().div_ceil(step) {
            set.drop_expired(UnixSeconds(horizon), step);
            prop_assert!(left.iter().all(|cutoff| set.iter().any(|other| other == cutoff)));
        }
        prop_assert_eq!(set.len(), set.iter().count());
        prop_assert_eq!(set, left);
    }
}

#[test]
fn a_step_looks_at_no_more_than_it_may() {
    let mut set = Cutoffs::default();
    for number in 0..100 {
        set.insert(cutoff(Dimension::Session, &number.to_string(), 1));
    }
    set.drop_expired(UnixSeconds(9), 30);
    assert_eq!(set.len(), 70);
    assert!(set.discard(50));
    assert_eq!(set.len(), 20);
    assert!(!set.discard(50));
    assert!(set.is_empty());
}
