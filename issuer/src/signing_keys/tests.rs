//! Keys in use: a view of them signs, verifies and is replaced as a whole; and a row holds all of a record.

use base64ct::{Base64UrlUnpadded, Encoding};
use tollgate_shared::time::UnixSeconds;
use tollgate_shared::token::{Algorithm, IssuedStatus, RustCrypto, UntrustedToken};

use super::*;
use crate::clock::SystemHost;

const START: u64 = 1_000_000;

fn encryption(byte: u8) -> EncryptionKeys {
    EncryptionKeys::parse(&Base64UrlUnpadded::encode_string(&[byte; 32])).unwrap()
}

fn schedule(new_key: NewKey) -> Schedule {
    Schedule { new_key, rotate_every_seconds: Some(100), prepublish_seconds: 10, token_seconds: 60 }
}

fn at(now: u64) -> Moment {
    Moment { now: UnixSeconds(now), serving_since: UnixSeconds(START) }
}

fn rotated(records: Vec<KeyRecord>, new_key: NewKey, now: u64) -> Vec<KeyRecord> {
    let make = |kind| KeyRecord::generate(kind, &encryption(1), &SystemHost::new(), UnixSeconds(now));
    Rotation::due(records, &schedule(new_key), at(now), make).unwrap().records
}

fn signed(keys: &SigningKeys) -> String {
    let token = AccessToken {
        issuer: "https://i",
        subject: "u",
        audience: "api",
        client: "c",
        token_id: "t",
        issued_at: UnixSeconds(START),
        expires_at: UnixSeconds(START + 60),
        scope: "",
        roles: &[],
        tenant: None,
        plan: "free",
        session: None,
        status: IssuedStatus::new(0, "https://i/v1/status/0"),
    };
    keys.sign(&token).unwrap()
}

fn is_good(token: &str, view: &KeyView) -> bool {
    let all = [Algorithm::EdDsa, Algorithm::Es256, Algorithm::Rs256];
    UntrustedToken::parse(token.as_bytes()).unwrap().verify(&view.verifying, &all, &RustCrypto).is_ok()
}

#[test]
fn a_token_stays_good_through_changes_of_key_and_algorithm() {
    let mut records = rotated(Vec::new(), NewKey::EdDsa, START);
    let keys = SigningKeys::new(KeyView::of(&records, &encryption(1)).unwrap());
    let mut tokens = vec![signed(&keys)];
    for (kind, now) in [
        (NewKey::EdDsa, START + 100),
        (NewKey::Es256, START + 101),
        (NewKey::Es256, START + 111),
        (NewKey::Rs256(RsaSize::Bits2048), START + 112),
        (NewKey::Rs256(RsaSize::Bits2048), START + 122),
    ] {
        records = rotated(records, kind, now);
        keys.replace(KeyView::of(&records, &encryption(1)).unwrap());
        tokens.push(signed(&keys));
    }
    let view = keys.view();
    assert!(tokens.iter().all(|token| is_good(token, &view)));
    let algorithm = |token: &String| UntrustedToken::parse(token.as_bytes()).unwrap().header().algorithm;
    let algorithms: Vec<_> = tokens.iter().map(algorithm).collect();
    let (ed, es, rs) = (Algorithm::EdDsa, Algorithm::Es256, Algorithm::Rs256);
    assert_eq!(algorithms, [ed, ed, ed, es, es, rs]);
}

#[test]
fn a_token_of_a_withdrawn_key_is_good_no_more() {
    let records = rotated(Vec::new(), NewKey::EdDsa, START);
    let keys = SigningKeys::new(KeyView::of(&records, &encryption(1)).unwrap());
    let token = signed(&keys);
    let (withdrawn, before) = (keys.view().active().clone(), keys.view());
    let make = |kind| KeyRecord::generate(kind, &encryption(1), &SystemHost::new(), UnixSeconds(START));
    let rotation = Rotation::without(records, &withdrawn, &schedule(NewKey::EdDsa), at(START + 50), make);
    let rotation = rotation.unwrap().unwrap();
    assert_eq!(rotation.changes().count(), 3, "withdrawn, active, and a new reserve");
    keys.replace(KeyView::of(&rotation.records, &encryption(1)).unwrap());
    let view = keys.view();
    assert!(!is_good(&token, &view) && is_good(&signed(&keys), &view));
    assert!(!view.jwks.contains(withdrawn.as_str()));
    assert_ne!(view.jwks_etag, before.jwks_etag);
    assert!(is_good(&token, &before), "a view changed under someone who holds it");
}

#[test]
fn every_replica_publishes_the_same_bytes_and_the_active_key_first() {
    let mut records = rotated(Vec::new(), NewKey::EdDsa, START);
    for now in [START + 100, START + 200] {
        records = rotated(records, NewKey::EdDsa, now);
    }
    let view = KeyView::of(&records, &encryption(1)).unwrap();
    records.reverse();
    let other = KeyView::of(&records, &encryption(1)).unwrap();
    assert_eq!((&view.jwks, &view.jwks_etag), (&other.jwks, &other.jwks_etag));
    let set: serde_json::Value = serde_json::from_str(&view.jwks).unwrap();
    assert_eq!(set["keys"][0]["kid"], view.active().as_str());
    assert_eq!(set["keys"].as_array().unwrap().len(), 4);
}

#[test]
fn records_that_do_not_fit_together_give_no_view() {
    let records = rotated(Vec::new(), NewKey::EdDsa, START);
    let changed = |change: &dyn Fn(&mut Vec<KeyRecord>)| {
        let mut records = records.clone();
        change(&mut records);
        KeyView::of(&records, &encryption(1)).map(|_| ()).unwrap_err()
    };
    assert!(matches!(changed(&|records| records.clear()), KeyViewError::NoActive));
    assert!(matches!(changed(&|records| drop(records.remove(0))), KeyViewError::NoActive));
    // The private half of one key in the place of another's.
    let error = changed(&|records| records[0].sealed = records[1].sealed.clone());
    assert!(matches!(error, KeyViewError::Private { error: KeyRecordError::Seal(SealError::Forged), .. }));
    let error = changed(&|records| records[0].sealed = None);
    assert!(matches!(error, KeyViewError::Private { error: KeyRecordError::Forgotten, .. }));
    // A public half that is another's, is named as another's, or brings a guest.
    let foreign = PrivateKey::from_ed25519_seed(&[9; 32]).unwrap();
    let mut jwk = foreign.public().public_jwk();
    let error = changed(&|records| records[1].public_jwk = jwk.to_string());
    assert!(matches!(error, KeyViewError::Public(id) if id == records[1].id));
    jwk["kid"] = records[1].id.as_str().into();
    let error = changed(&|records| records[1].public_jwk = jwk.to_string());
    assert!(matches!(error, KeyViewError::Public(id) if id == records[1].id));
    let guest = foreign.public().public_jwk().to_string();
    let error = changed(&|records| records[1].public_jwk = [&records[1].public_jwk, &*guest].join(","));
    assert!(matches!(error, KeyViewError::Public(_)));
    let error = KeyView::of(&records, &encryption(2)).unwrap_err().to_string();
    assert!(error.contains(records[0].id.as_str()) && error.contains("key-encryption key"), "{error}");
}

#[test]
fn a_row_holds_all_of_a_record_in_every_state() {
    let record =
        KeyRecord::generate(NewKey::Es256, &encryption(1), &SystemHost::new(), UnixSeconds(5)).unwrap();
    let (published_at, active_at) = (UnixSeconds(5), UnixSeconds(6));
    let life =
        |active_at, retiring_at| EndedLife { published_at, active_at, retiring_at, at: UnixSeconds(9) };
    for state in [
        KeyState::Prepublished { since: published_at },
        KeyState::Active { published_at, since: active_at },
        KeyState::Retiring { published_at, active_at, since: UnixSeconds(7) },
        KeyState::Removed(life(Some(active_at), Some(UnixSeconds(7)))),
        KeyState::Removed(life(None, None)),
        KeyState::Withdrawn(life(Some(active_at), None)),
    ] {
        let record = KeyRecord { state, token_seconds: 60, ..record.clone() };
        assert_eq!(KeyRecord::try_from(KeyRow::from(&record)).unwrap(), record);
    }
}

#[test]
fn a_row_that_describes_no_key_is_refused() {
    let record =
        KeyRecord::generate(NewKey::EdDsa, &encryption(1), &SystemHost::new(), UnixSeconds(5)).unwrap();
    let row = KeyRow::from(&record);
    for row in [
        KeyRow { kid: String::new(), ..row.clone() },
        KeyRow { alg: "none".to_owned(), ..row.clone() },
        KeyRow { state: "asleep".to_owned(), ..row.clone() },
        KeyRow { state: "active".to_owned(), ..row.clone() },
        KeyRow { ended_at: Some(6), ..row.clone() },
    ] {
        assert_eq!(KeyRecord::try_from(row), Err(KeyRowFault));
    }
}

#[test]
fn nothing_that_holds_a_sealed_key_prints_it() {
    let records = rotated(Vec::new(), NewKey::EdDsa, START);
    let row = KeyRow::from(&records[0]);
    let keys = SigningKeys::new(KeyView::of(&records, &encryption(1)).unwrap());
    for text in [format!("{:?}", records[0]), format!("{row:?}"), format!("{keys:?}")] {
        assert!(text.contains(records[0].id.as_str()), "{text}");
        assert!(!text.contains("sealed") && !text.contains("secret"), "{text}");
    }
}
