//! Decides whether a text that many will read has a secret in it.
//!
//! *What comes in:* what an operator typed or pasted. *What goes out:* whether a word of it has the shape of a token, key or secret.
//! *What an attacker gains if this is wrong:* a token that still works, for whoever may read a list.

use crate::api_key;
use crate::client::SECRET_PREFIX;
use crate::credential::{CredentialKind, SECRET_CHARS};
use crate::refresh;
use crate::sessions::DEVICE_PREFIX;

/// How the header of every JWT begins: `{"` in base64url.
const JWT_START: &str = "eyJ";

/// Whether a word of this has the shape of one of our credentials, or of a JWT of anybody.
pub(super) fn has_secret(text: &str) -> bool {
    let is_of_secrets = |character: char| character.is_ascii_alphanumeric() || "_-.".contains(character);
    text.split(|character: char| !is_of_secrets(character)).any(|word| is_ours(word) || is_jwt(word))
}

fn is_ours(word: &str) -> bool {
    let prefixes = [
        api_key::PREFIX,
        refresh::PREFIX,
        DEVICE_PREFIX,
        SECRET_PREFIX,
        CredentialKind::Operator.prefix(),
        CredentialKind::Edge.prefix(),
    ];
    // Ids are shorter than any secret is.
    prefixes.iter().any(|prefix| word.strip_prefix(prefix).is_some_and(|rest| rest.len() >= SECRET_CHARS))
}

fn is_jwt(word: &str) -> bool {
    word.starts_with(JWT_START) && word.split('.').count() == 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_known_by_its_shape_wherever_it_stands_and_no_id_is_taken_for_one() {
        let secret = "0123456789abcdefghijABCDEFGHIJ-_";
        for start in ["tg_01234567_", "tgr_1f_", "tgd_", "tgc_01234567_", "tgo_01234567_", "tge_01234567_"] {
            assert!(has_secret(&format!("{start}{secret}")), "{start}");
            assert!(has_secret(&format!("Bearer {start}{secret},")), "{start}");
        }
        assert!(has_secret("eyJhbGciOiJFZERTQSJ9.eyJqdGkiOiJ0In0.c2ln"));
        assert!(has_secret("token=eyJhbGciOiJFZERTQSJ9.eyJqdGkiOiJ0In0."));
        for id in [
            "u_0123456789abcdefghijAB",
            "tg_robot",
            "0/12",
            "https://www.tgr.example/a.b.c",
            "a.b.c",
            secret,
            "",
        ] {
            assert!(!has_secret(id), "{id}");
        }
    }
}
