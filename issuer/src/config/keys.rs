//! Decides what the settings of `[keys]` may be: which key signs, for how long, and under what it is sealed.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tollgate_shared::token::Algorithm;

use super::TokenSettings;
use super::document::{OutOfRange, fault, relation, within};
use crate::signing_keys::{EncryptionKeys, NewKey, PUBLISHED_KEYS_MAX, RsaSize, Schedule};

/// What keys there are, and how they change.
#[derive(Debug, Clone)]
pub struct KeySettings {
    /// What signs.
    pub new_key: NewKey,
    /// How long a key signs; for ever when `None`.
    pub rotate_every_seconds: Option<u64>,
    /// How long a key is published before it signs.
    pub prepublish_seconds: u64,
    /// Where the key-encryption keys are; in the data folder when `None`.
    pub encryption_key_file: Option<PathBuf>,
    /// The key-encryption keys of the environment. They are in no document that could be printed.
    pub encryption_keys: Option<EncryptionKeys>,
}

/// `[keys]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeysDocument {
    pub algorithm: String,
    pub rsa_bits: u32,
    pub rotate_every_seconds: u64,
    pub prepublish_seconds: u64,
    pub encryption_key_file: PathBuf,
}

impl Default for KeysDocument {
    fn default() -> Self {
        Self {
            algorithm: "EdDSA".to_owned(),
            rsa_bits: 2048,
            rotate_every_seconds: 30 * 86_400,
            prepublish_seconds: 3_600,
            encryption_key_file: PathBuf::new(),
        }
    }
}

impl KeysDocument {
    pub(super) fn checked(&self) -> Result<KeySettings, OutOfRange> {
        let Self { algorithm, rsa_bits, rotate_every_seconds, prepublish_seconds, encryption_key_file } =
            self;
        let rsa_size = match rsa_bits {
            2048 => RsaSize::Bits2048,
            3072 => RsaSize::Bits3072,
            _ => return Err(fault("keys.rsa_bits", "2048 or 3072")),
        };
        let new_key = match Algorithm::of(algorithm) {
            Some(Algorithm::EdDsa) => NewKey::EdDsa,
            Some(Algorithm::Es256) => NewKey::Es256,
            Some(Algorithm::Rs256) => NewKey::Rs256(rsa_size),
            None => return Err(fault("keys.algorithm", "\"EdDSA\", \"ES256\" or \"RS256\"")),
        };
        let period = *rotate_every_seconds;
        let in_range = period == 0 || (2..=366 * 86_400).contains(&period);
        within(in_range, "keys.rotate_every_seconds", "0 (never) or 2 to 31622400")?;
        within((2..=30 * 86_400).contains(prepublish_seconds), "keys.prepublish_seconds", "2 to 2592000")?;
        let named = !encryption_key_file.as_os_str().is_empty();
        Ok(KeySettings {
            new_key,
            rotate_every_seconds: (period > 0).then_some(period),
            prepublish_seconds: *prepublish_seconds,
            encryption_key_file: named.then(|| encryption_key_file.clone()),
            encryption_keys: None,
        })
    }
}

impl KeySettings {
    /// The schedule that these settings give for tokens of that life.
    #[must_use]
    pub fn schedule(&self, token: TokenSettings) -> Schedule {
        Schedule {
            new_key: self.new_key,
            rotate_every_seconds: self.rotate_every_seconds,
            prepublish_seconds: self.prepublish_seconds,
            token_seconds: token.lifetime_seconds,
        }
    }

    /// Whether keys can follow each other like this while tokens live that long.
    pub(super) fn fits(&self, token: TokenSettings) -> Result<(), OutOfRange> {
        if self.rotate_every_seconds.is_some_and(|period| self.prepublish_seconds > period) {
            return Err(relation(
                "keys.prepublish_seconds",
                "at most keys.rotate_every_seconds: the next key is published when the one before begins to sign",
            ));
        }
        let at_once = self.schedule(token).published_at_once();
        if usize::try_from(at_once).is_ok_and(|at_once| at_once <= PUBLISHED_KEYS_MAX) {
            Ok(())
        } else {
            Err(relation(
                "keys.rotate_every_seconds",
                "0, or at least (token.lifetime_seconds + 120) / 46, as at most 48 keys are published at once",
            ))
        }
    }
}

#[cfg(test)]
mod tests;
