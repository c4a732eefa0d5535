//! Decides whether a bearer string is the credential of an operator or of an edge.
//!
//! *What comes in:* a header chosen by anyone. *What goes out:* a public id to look up and a digest to compare. *What an
//! attacker gains if this is wrong:* every account, or a place to read the feed from and spend quota.
//!
//! A credential is `tgo_<id>_<secret>` or `tge_<id>_<secret>` in base62. The secret is 190 bits at random, so one SHA-256
//! is as good as a slow hash: there is nothing to guess.

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::clock::{EntropyError, Host, random};

pub(crate) const ID_CHARS: usize = 8;
pub(crate) const SECRET_CHARS: usize = 32;
pub(crate) const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Whom a credential is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CredentialKind {
    /// A person or a program that administers the issuer.
    Operator,
    /// An Envoy process or a Worker.
    Edge,
}

impl CredentialKind {
    /// Its name in the database.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Edge => "edge",
        }
    }

    /// How its text begins.
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::Operator => "tgo_",
            Self::Edge => "tge_",
        }
    }
}

/// The SHA-256 digest of a credential's secret: all that is kept of it.
#[derive(Clone, Copy)]
pub struct SecretDigest([u8; 32]);

impl SecretDigest {
    /// The digest that these bytes are; `None` unless there are 32.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The digest of a secret.
    #[must_use]
    pub fn of(secret: &[u8]) -> Self {
        Self(Sha256::digest(secret).into())
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether both are the same, in a time that does not tell where they differ.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for SecretDigest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SecretDigest(…)")
    }
}

/// A credential as it was presented: well-formed, and nothing more.
#[derive(Debug, Clone)]
pub struct Presented {
    /// What it claims to be.
    pub kind: CredentialKind,
    /// By what it is looked up.
    pub id: String,
    /// What is compared.
    pub digest: SecretDigest,
}

impl Presented {
    /// Reads a credential; `None` when it has not the shape of one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = [CredentialKind::Operator, CredentialKind::Edge]
            .into_iter()
            .find_map(|kind| text.strip_prefix(kind.prefix()).map(|rest| (kind, rest)))?;
        let (id, secret) = rest.split_once('_')?;
        let base62 = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let shaped = id.len() == ID_CHARS && secret.len() == SECRET_CHARS && base62(id) && base62(secret);
        shaped.then(|| Self { kind, id: id.to_owned(), digest: SecretDigest(Sha256::digest(secret).into()) })
    }
}

/// A credential that was just made. Its text is shown once and then gone.
pub struct NewCredential {
    /// By what it is looked up.
    pub id: String,
    /// What is kept.
    pub digest: SecretDigest,
    text: Zeroizing<String>,
}

impl NewCredential {
    /// A new credential of this kind.
    ///
    /// # Errors
    /// [`EntropyError`] when there are no random bytes.
    pub fn generate(kind: CredentialKind, host: &dyn Host) -> Result<Self, EntropyError> {
        let id = base62::<ID_CHARS>(host)?;
        let secret = base62::<SECRET_CHARS>(host)?;
        let digest = SecretDigest(Sha256::digest(secret.as_bytes()).into());
        let text = Zeroizing::new([kind.prefix(), &id, "_", &secret].concat());
        Ok(Self { id: String::clone(&id), digest, text })
    }

    /// The credential itself, for the one who is to use it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for NewCredential {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("NewCredential").field("id", &self.id).finish_non_exhaustive()
    }
}

/// `N` characters of base62, each equally likely: bytes beyond the largest multiple of 62 are drawn again.
pub(crate) fn base62<const N: usize>(host: &dyn Host) -> Result<Zeroizing<String>, EntropyError> {
    let mut text = Zeroizing::new(String::with_capacity(N));
    while text.len() < N {
        let bytes = Zeroizing::new(random::<64>(host)?);
        let fair = bytes.iter().filter(|byte| **byte < 248);
        let digits = fair.filter_map(|byte| BASE62.get(usize::from(byte % 62)));
        let missing = N - text.len();
        text.extend(digits.take(missing).map(|digit| char::from(*digit)));
    }
    Ok(text)
}

/// A new identifier: the prefix and 128 random bits in base64url.
///
/// # Errors
/// [`EntropyError`] when there are no random bytes.
pub fn new_id(prefix: &str, host: &dyn Host) -> Result<String, EntropyError> {
    use base64ct::{Base64UrlUnpadded, Encoding};
    Ok(format!("{prefix}{}", Base64UrlUnpadded::encode_string(&random::<16>(host)?)))
}
