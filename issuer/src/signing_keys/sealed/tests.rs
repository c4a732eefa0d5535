//! Sealed secrets: they open under their own label and key, and every change is refused.

use aws_lc_rs::hmac;

use super::*;
use crate::clock::SystemHost;

const LABEL: Label<'static> = Label::SigningKey("kid-1", Algorithm::EdDsa);
const SECRET: &[u8] = b"canary of a private key";

fn keys(bytes: &[u8]) -> EncryptionKeys {
    let texts: Vec<_> = bytes.iter().map(|byte| Base64UrlUnpadded::encode_string(&[*byte; 32])).collect();
    EncryptionKeys::parse(&texts.join(",")).unwrap()
}

fn sealed(keys: &EncryptionKeys) -> Vec<u8> {
    keys.seal(LABEL, SECRET, &SystemHost::new()).unwrap()
}

#[test]
fn what_was_sealed_opens_and_shows_nothing_of_itself() {
    let keys = keys(&[1]);
    let blob = sealed(&keys);
    assert_eq!(keys.open(LABEL, &blob).unwrap().as_slice(), SECRET);
    assert!(!blob.windows(6).any(|window| window == b"canary"));
    assert_eq!(blob.len(), HEADER_BYTES + SECRET.len() + 16);
    assert_ne!(blob, sealed(&keys), "the same nonce twice");
}

#[test]
fn a_change_of_any_byte_is_refused() {
    let keys = keys(&[1]);
    let blob = sealed(&keys);
    for place in 0..blob.len() {
        for bit in [1, 0x80] {
            let mut changed = blob.clone();
            changed[place] ^= bit;
            let expected = match place {
                0 => SealError::Format,
                1..=8 => {
                    let mut id = keys.sealing().0;
                    id[place - 1] ^= bit;
                    SealError::UnknownKey(EncryptionKeyId(id))
                }
                _ => SealError::Forged,
            };
            assert_eq!(keys.open(LABEL, &changed).unwrap_err(), expected, "byte {place}");
        }
    }
}

#[test]
fn a_blob_that_lacks_or_has_bytes_is_refused() {
    let keys = keys(&[1]);
    let blob = sealed(&keys);
    for length in 0..blob.len() {
        assert!(keys.open(LABEL, &blob[..length]).is_err(), "{length} bytes");
    }
    assert_eq!(keys.open(LABEL, &[blob.as_slice(), &[0]].concat()).unwrap_err(), SealError::Forged);
}

#[test]
fn a_blob_in_the_place_of_another_is_refused() {
    let keys = keys(&[1]);
    let blob = sealed(&keys);
    for other in [
        Label::SigningKey("kid-2", Algorithm::EdDsa),
        Label::SigningKey("kid-1", Algorithm::Es256),
        Label::SigningKey("", Algorithm::EdDsa),
        Label::ServerSecret,
    ] {
        assert_eq!(keys.open(other, &blob).unwrap_err(), SealError::Forged, "{other:?}");
    }
    assert!(matches!(ServerSecret::open(&keys, &blob), Err(SealError::Forged)));
}

#[test]
fn a_blob_of_a_key_that_is_not_configured_names_that_key() {
    let old = keys(&[1]);
    let error = keys(&[2]).open(LABEL, &sealed(&old)).unwrap_err();
    assert_eq!(error, SealError::UnknownKey(old.sealing()));
    let text = error.to_string();
    assert!(text.contains(&old.sealing().to_string()) && text.contains("key-encryption key"), "{text}");
}

#[test]
fn a_blob_that_claims_to_be_of_another_configured_key_is_refused() {
    let both = keys(&[1, 2]);
    let mut blob = sealed(&both);
    blob[1..9].copy_from_slice(&keys(&[2]).sealing().0);
    assert_eq!(both.open(LABEL, &blob).unwrap_err(), SealError::Forged);
}

#[test]
fn the_first_key_seals_and_all_open_so_that_keys_can_be_rotated() {
    let (old, both, new) = (keys(&[1]), keys(&[2, 1]), keys(&[2]));
    let blob = sealed(&old);
    assert_eq!(both.open(LABEL, &blob).unwrap().as_slice(), SECRET);
    let resealed = both.resealed(LABEL, &blob, &SystemHost::new()).unwrap().unwrap();
    assert_eq!(new.open(LABEL, &resealed).unwrap().as_slice(), SECRET);
    assert_eq!(both.resealed(LABEL, &resealed, &SystemHost::new()).unwrap(), None);
    assert_eq!(new.and(old).open(LABEL, &blob).unwrap().as_slice(), SECRET);
}

#[test]
fn a_blob_of_version_1_still_opens() {
    let hex = "01a4d3ca9f348caee3090909090909090909090909b76a44bcab4460c7129747dc7d92e213445d8577a22a";
    let blob: Vec<u8> =
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    assert_eq!(keys(&[1]).open(LABEL, &blob).unwrap().as_slice(), b"secret");
}

#[test]
fn only_lists_of_whole_keys_are_taken() {
    let one = Base64UrlUnpadded::encode_string(&[1; 32]);
    for text in [one.clone(), format!(" {one}\n"), format!("{one},{one}"), format!("{one}\n{one}\n")] {
        assert!(EncryptionKeys::parse(&text).is_ok(), "{text:?}");
    }
    let nine = vec![one.clone(); ENCRYPTION_KEYS_MAX + 1].join(" ");
    for text in ["", ",", &one[1..], &format!("{one}="), &format!("{one}A"), &format!("{one},x"), &nine] {
        assert_eq!(EncryptionKeys::parse(text).unwrap_err(), EncryptionKeyFault, "{text:?}");
    }
}

#[test]
fn purposes_have_secrets_of_their_own_that_outlive_the_key_encryption_key() {
    let (old, both) = (keys(&[1]), keys(&[2, 1]));
    let secret = ServerSecret::generate(&SystemHost::new()).unwrap();
    assert_ne!(secret.derive("a").unwrap(), secret.derive("b").unwrap());
    let blob = secret.sealed(&old, &SystemHost::new()).unwrap();
    let resealed = both.resealed(Label::ServerSecret, &blob, &SystemHost::new()).unwrap().unwrap();
    let back = ServerSecret::open(&keys(&[2]), &resealed).unwrap();
    assert_eq!(back.derive("a").unwrap(), secret.derive("a").unwrap());
    let another = ServerSecret::generate(&SystemHost::new()).unwrap();
    assert_ne!(another.derive("a").unwrap(), secret.derive("a").unwrap());
}

#[test]
fn derivation_is_hkdf_of_rfc_5869() {
    let mac = |key: &[u8], message: &[u8]| {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref().to_vec()
    };
    let pseudorandom = mac(b"tollgate server secret", &[5; 32]);
    let expected = mac(&pseudorandom, b"purpose\x01");
    let secret = ServerSecret(Zeroizing::new([5; 32]));
    assert_eq!(secret.derive("purpose").unwrap().as_slice(), expected);
}

#[test]
fn nothing_of_a_secret_is_printed() {
    let keys = EncryptionKeys::parse(&Base64UrlUnpadded::encode_string(&[0xab; 32])).unwrap();
    let secret = ServerSecret(Zeroizing::new([0xab; 32]));
    for text in [format!("{keys:?}"), format!("{secret:?}")] {
        assert!(!text.contains("171") && !text.contains("abab") && !text.contains("q6ur"), "{text}");
    }
}
