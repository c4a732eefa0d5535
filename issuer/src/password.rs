//! Decides what a password may be, and whether it is right, at a cost that no caller can choose.
//!
//! *What comes in:* up to 1024 bytes chosen by anyone, and hashes that other systems made. *What goes out:* right or
//! wrong, after no less work whoever is named. *What an attacker gains if this is wrong:* accounts, a list of who has
//! one, or the machine's memory.

mod argon;
mod blocked;
mod legacy;
mod pool;
mod stored;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer};
use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

pub use blocked::PasswordContext;
pub use pool::{PasswordError, PasswordPool, PoolLoad, Rehash, Standing, Verdict, Verified};
pub use stored::{StoredHash, StoredHashError};

/// Shorter passwords are refused (NIST SP 800-63B), in bytes.
pub const PASSWORD_BYTES_MIN: usize = 8;
/// Longer ones are refused before anything is done with them, in bytes.
pub const PASSWORD_BYTES_MAX: usize = 1024;
/// A password that is set has at least this many characters, however few bytes it takes to reach
/// [`PASSWORD_BYTES_MIN`].
pub const PASSWORD_CHARACTERS_MIN: usize = 8;

/// A password. It is wiped when its last copy is dropped, and prints nothing of itself. A clone is another handle on the
/// same bytes.
#[derive(Clone)]
pub struct Password(Arc<Zeroizing<String>>);

/// The password is too short or too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("password: must be {PASSWORD_BYTES_MIN} to {PASSWORD_BYTES_MAX} bytes long")]
pub struct PasswordLength;

impl Password {
    /// The password that was typed as `text`, in normalisation form C: how an accent was typed makes no difference.
    ///
    /// # Errors
    /// [`PasswordLength`].
    pub fn new(text: Zeroizing<String>) -> Result<Self, PasswordLength> {
        let fits = |text: &str| (PASSWORD_BYTES_MIN..=PASSWORD_BYTES_MAX).contains(&text.len());
        // Before normalising too, whose cost grows with the length.
        if !fits(&text) {
            return Err(PasswordLength);
        }
        // Form C is at most three times as long in UTF-8; room for all of it, so that no shorter copy is left behind.
        let mut normal = Zeroizing::new(String::with_capacity(3 * text.len()));
        normal.extend(text.nfc());
        if fits(&normal) { Ok(Self(Arc::new(normal))) } else { Err(PasswordLength) }
    }

    fn as_str(&self) -> &str {
        &self.0
    }

    fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Password(…)")
    }
}

/// A password that may be set: long enough, not among the most common, and without what anybody knows of the user.
#[derive(Debug, Clone)]
pub struct NewPassword(Password);

/// Why a password may not be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordRefused {
    /// It is too short or too long.
    #[error(
        "password: must have at least {PASSWORD_CHARACTERS_MIN} characters and at most {PASSWORD_BYTES_MAX} bytes"
    )]
    Length,
    /// It is one of those that are tried first.
    #[error("password: is one of the most common passwords")]
    Common,
    /// It contains a word that anybody knows of the user or of the service.
    #[error("password: must not contain the username or the service's name")]
    ContainsContext,
}

impl From<PasswordLength> for PasswordRefused {
    fn from(_: PasswordLength) -> Self {
        Self::Length
    }
}

impl NewPassword {
    /// The password, if it may be set by this user of this issuer.
    ///
    /// # Errors
    /// [`PasswordRefused`] names the rule.
    pub fn new(password: Password, context: &PasswordContext<'_>) -> Result<Self, PasswordRefused> {
        if password.as_str().chars().count() < PASSWORD_CHARACTERS_MIN {
            return Err(PasswordRefused::Length);
        }
        let folded = blocked::folded(password.as_str());
        if blocked::is_common(&folded) {
            return Err(PasswordRefused::Common);
        }
        if context.is_contained(&folded) {
            return Err(PasswordRefused::ContainsContext);
        }
        Ok(Self(password))
    }
}

/// A password as it stands in a request, before its length was looked at.
pub struct TypedPassword(pub Zeroizing<String>);

impl<'de> Deserialize<'de> for TypedPassword {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Zeroizing::new(text)))
    }
}

impl fmt::Debug for TypedPassword {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TypedPassword(…)")
    }
}

#[cfg(test)]
mod tests;
