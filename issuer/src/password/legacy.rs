//! Decides whether a password is the one of a hash that another system made. None is made here.

use pbkdf2::pbkdf2_hmac;
use sha_crypt::password_hash::PasswordVerifier;
use sha_crypt::{PasswordHashRef, ShaCrypt};
use subtle::ConstantTimeEq;

use super::Verdict;

/// The hash function within PBKDF2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pbkdf2Digest {
    Sha1,
    Sha256,
    Sha512,
}

impl Pbkdf2Digest {
    /// The length of a block of output.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

/// A hash by PBKDF2.
pub(super) struct Pbkdf2Hash {
    pub(super) digest: Pbkdf2Digest,
    pub(super) rounds: u32,
    pub(super) salt: Vec<u8>,
    pub(super) tag: Vec<u8>,
}

impl Pbkdf2Hash {
    pub(super) fn check(&self, password: &[u8]) -> Verdict {
        let Self { digest, rounds, salt, tag } = self;
        let mut computed = vec![0; tag.len()];
        match digest {
            Pbkdf2Digest::Sha1 => pbkdf2_hmac::<sha1::Sha1>(password, salt, *rounds, &mut computed),
            Pbkdf2Digest::Sha256 => {
                pbkdf2_hmac::<pbkdf2::sha2::Sha256>(password, salt, *rounds, &mut computed)
            }
            Pbkdf2Digest::Sha512 => {
                pbkdf2_hmac::<pbkdf2::sha2::Sha512>(password, salt, *rounds, &mut computed)
            }
        }
        Verdict::of(bool::from(computed.ct_eq(tag)))
    }
}

/// A hash by scrypt.
pub(super) struct ScryptHash {
    pub(super) params: scrypt::Params,
    pub(super) memory_kib: u32,
    pub(super) salt: Vec<u8>,
    pub(super) tag: Vec<u8>,
}

impl ScryptHash {
    /// The memory it takes, in KiB.
    pub(super) fn memory_kib(&self) -> u32 {
        self.memory_kib
    }

    pub(super) fn check(&self, password: &[u8]) -> Verdict {
        let Self { params, salt, tag, memory_kib: _ } = self;
        let mut computed = vec![0; tag.len()];
        let done = scrypt::scrypt(password, salt, params, &mut computed);
        Verdict::of(done.is_ok() && bool::from(computed.ct_eq(tag)))
    }
}

/// Whether the text, whose form was checked, hashes the password. Of a password, bcrypt knows the first 72 bytes: that is
/// how these hashes were made, so it is how they are checked.
pub(super) fn verify_bcrypt(text: &str, password: &[u8]) -> Verdict {
    Verdict::of(bcrypt::verify(password, text).unwrap_or(false))
}

/// Whether the crate can read the text.
pub(super) fn is_sha_crypt(text: &str) -> bool {
    PasswordHashRef::new(text).is_ok()
}

/// Whether the text, whose form was checked, hashes the password.
pub(super) fn verify_sha_crypt(text: &str, password: &[u8]) -> Verdict {
    Verdict::of(ShaCrypt::default().verify_password(password, text).is_ok())
}
