//! Files of secrets: who may read them, which are made, and how a key of an earlier release goes on.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use base64ct::{Base64UrlUnpadded, Encoding};
use tempfile::TempDir;

use super::*;
use crate::clock::SystemHost;
use crate::keys::{Existing, write_private};
use crate::signing_keys::{KeyView, NewKey};

fn settings(file: Option<PathBuf>, given: Option<u8>) -> KeySettings {
    KeySettings {
        new_key: NewKey::EdDsa,
        rotate_every_seconds: None,
        prepublish_seconds: 2,
        encryption_key_file: file,
        encryption_keys: given.map(key),
    }
}

fn text(byte: u8) -> String {
    Base64UrlUnpadded::encode_string(&[byte; 32])
}

fn key(byte: u8) -> EncryptionKeys {
    EncryptionKeys::parse(&text(byte)).unwrap()
}

fn file(folder: &TempDir, name: &str, content: &str) -> PathBuf {
    let path = folder.path().join(name);
    write_private(&path, content.as_bytes(), Existing::IsReplaced, &SystemHost::new()).unwrap();
    path
}

fn open(settings: &KeySettings, folder: &TempDir) -> Result<EncryptionKeys, KeyError> {
    open_encryption_keys(settings, folder.path(), &SystemHost::new())
}

#[test]
fn a_key_encryption_key_is_made_once_and_is_private() {
    let folder = TempDir::new().unwrap();
    let first = open(&settings(None, None), &folder).unwrap();
    let mode = folder.path().join("encryption.key").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(open(&settings(None, None), &folder).unwrap().sealing(), first.sealing());
}

#[test]
fn the_key_of_the_environment_seals_and_that_of_the_file_still_opens() {
    let folder = TempDir::new().unwrap();
    let of_file = open(&settings(None, None), &folder).unwrap();
    let label = crate::signing_keys::Label::ServerSecret;
    let blob = of_file.seal(label, b"x", &SystemHost::new()).unwrap();
    let both = open(&settings(None, Some(5)), &folder).unwrap();
    assert_eq!(both.sealing(), key(5).sealing());
    assert_eq!(both.open(label, &blob).unwrap().as_slice(), b"x");
}

#[test]
fn no_file_is_made_when_the_environment_has_a_key() {
    let folder = TempDir::new().unwrap();
    open(&settings(None, Some(5)), &folder).unwrap();
    assert!(!folder.path().join("encryption.key").exists());
}

#[test]
fn a_named_file_holds_a_key_on_each_line_of_which_the_first_seals() {
    let folder = TempDir::new().unwrap();
    let path = file(&folder, "keys", &format!("{}\n{}\n", text(2), text(1)));
    let keys = open(&settings(Some(path), None), &folder).unwrap();
    assert_eq!(keys.sealing(), key(2).sealing());
    assert!(!folder.path().join("encryption.key").exists());
}

#[test]
fn a_named_file_that_is_absent_exposed_or_no_key_is_refused_by_name() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("keys");
    let fault = |given| open(&settings(Some(path.clone()), given), &folder).unwrap_err().to_string();
    assert!(fault(None).contains("keys: "), "{}", fault(None));
    assert!(fault(Some(5)).contains("keys: "), "a named file may be absent beside the environment");
    file(&folder, "keys", "nonsense\n");
    assert!(fault(None).contains("32 bytes"), "{}", fault(None));
    file(&folder, "keys", &text(1));
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    assert!(fault(None).contains("0640"), "{}", fault(None));
}

#[test]
fn the_signing_key_of_an_earlier_release_becomes_the_active_one() {
    let folder = TempDir::new().unwrap();
    file(&folder, SIGNING_KEY_FILE, &format!("{}\n", text(7)));
    let old = tollgate_shared::token::SigningKey::from_seed(&[7; 32]);
    let keys = key(1);
    let adopt = || adopted_key(folder.path(), &keys, 900, &SystemHost::new(), UnixSeconds(50)).unwrap();
    let record = adopt().unwrap();
    assert_eq!(record.id, *old.id());
    assert_eq!(record.state, KeyState::Active { published_at: UnixSeconds(50), since: UnixSeconds(50) });
    assert_eq!(record.token_seconds, 900);
    let jwks = serde_json::json!({ "keys": [old.public_jwk()] }).to_string();
    assert_eq!(KeyView::of(&[record], &keys).unwrap().jwks, jwks);
    forget_adopted_file(folder.path()).unwrap();
    assert_eq!(adopt(), None);
    forget_adopted_file(folder.path()).unwrap();
}

#[test]
fn a_signing_key_that_others_may_read_is_not_taken_over() {
    let folder = TempDir::new().unwrap();
    let path = file(&folder, "signing.key", &text(3));
    fs::set_permissions(&path, Permissions::from_mode(0o604)).unwrap();
    let error = adopted_key(folder.path(), &key(1), 900, &SystemHost::new(), UnixSeconds(50)).unwrap_err();
    assert!(error.to_string().contains("signing.key"), "{error}");
}
