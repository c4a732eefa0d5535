//! `[keys]`: what is refused, and by which name.

use std::collections::BTreeMap;

use super::*;
use crate::config::{Flags, Settings};

fn load(variables: &[(&str, &str)]) -> Result<Settings, String> {
    let environment =
        variables.iter().map(|(name, value)| (format!("TOLLGATE_{name}"), (*value).to_owned())).collect();
    Settings::load(None, &environment, &Flags::default()).map_err(|error| error.to_string())
}

#[test]
fn without_settings_a_key_signs_for_thirty_days_and_is_published_an_hour_before() {
    let settings = load(&[]).unwrap();
    let schedule = settings.keys.schedule(settings.token);
    assert_eq!(schedule.new_key, NewKey::EdDsa);
    assert_eq!(schedule.rotate_every_seconds, Some(2_592_000));
    assert_eq!(schedule.prepublish_seconds, 3_600);
    assert_eq!(schedule.token_seconds, settings.token.lifetime_seconds);
    assert_eq!(schedule.jwks_cache_control(), "public, max-age=300, stale-while-revalidate=60");
}

#[test]
fn a_fault_names_its_key() {
    for (variables, key) in [
        (&[("KEYS__ALGORITHM", "HS256")][..], "keys.algorithm"),
        (&[("KEYS__ALGORITHM", "eddsa")], "keys.algorithm"),
        (&[("KEYS__RSA_BITS", "1024")], "keys.rsa_bits"),
        (&[("KEYS__ROTATE_EVERY_SECONDS", "1")], "keys.rotate_every_seconds"),
        (&[("KEYS__ROTATE_EVERY_SECONDS", "31622401")], "keys.rotate_every_seconds"),
        (&[("KEYS__PREPUBLISH_SECONDS", "1")], "keys.prepublish_seconds"),
        (&[("KEYS__PREPUBLISH_SECONDS", "2592001")], "keys.prepublish_seconds"),
        (&[("KEYS__PREPUBLISH", "5")], "keys.prepublish"),
        // Right by themselves, but the next key would not be known in time.
        (&[("KEYS__ROTATE_EVERY_SECONDS", "3599")], "keys.prepublish_seconds"),
        // More keys than may be published would have to be.
        (
            &[("KEYS__ROTATE_EVERY_SECONDS", "5"), ("KEYS__PREPUBLISH_SECONDS", "2")],
            "keys.rotate_every_seconds",
        ),
        (&[("KEYS__ENCRYPTION_KEY", "short")], "keys.encryption_key"),
    ] {
        let error = load(variables).unwrap_err();
        assert!(error.contains(&format!("`{key}`")), "{error}");
    }
}

#[test]
fn keys_may_change_every_few_seconds_when_tokens_are_short() {
    let settings = load(&[
        ("KEYS__ROTATE_EVERY_SECONDS", "5"),
        ("KEYS__PREPUBLISH_SECONDS", "2"),
        ("TOKEN__LIFETIME_SECONDS", "60"),
    ])
    .unwrap();
    assert_eq!(settings.keys.schedule(settings.token).published_at_once(), 38);
    let never = load(&[("KEYS__ROTATE_EVERY_SECONDS", "0")]).unwrap();
    assert_eq!(never.keys.schedule(never.token).rotate_every_seconds, None);
}

#[test]
fn every_algorithm_can_be_chosen() {
    let of = |variables| load(variables).unwrap().keys.new_key;
    assert_eq!(of(&[("KEYS__ALGORITHM", "ES256")]), NewKey::Es256);
    assert_eq!(of(&[("KEYS__ALGORITHM", "RS256")]), NewKey::Rs256(RsaSize::Bits2048));
    let large = [("KEYS__ALGORITHM", "RS256"), ("KEYS__RSA_BITS", "3072")];
    assert_eq!(of(&large), NewKey::Rs256(RsaSize::Bits3072));
}

#[test]
fn the_key_encryption_key_of_the_environment_is_used_and_never_shown() {
    let key = "q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s";
    let settings = load(&[("KEYS__ENCRYPTION_KEY", key)]).unwrap();
    let expected = EncryptionKeys::parse(key).unwrap().sealing();
    assert_eq!(settings.keys.encryption_keys.as_ref().map(EncryptionKeys::sealing), Some(expected));
    assert!(!format!("{settings:?}").contains("q6ur"));
    let environment = BTreeMap::from([("TOLLGATE_KEYS__ENCRYPTION_KEY".to_owned(), key.to_owned())]);
    let document = Settings::document(None, &environment, &Flags::default()).unwrap();
    assert!(!toml::to_string(&document).unwrap().contains("q6ur"));
    let error = load(&[("KEYS__ENCRYPTION_KEY", &key[1..])]).unwrap_err();
    assert!(error.contains("TOLLGATE_KEYS__ENCRYPTION_KEY") && !error.contains("6urq"), "{error}");
}
