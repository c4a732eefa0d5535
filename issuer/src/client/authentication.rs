//! Guards what clients prove themselves with: digests of secrets, and public keys. The secrets are kept by nobody.
//!
//! A secret is `tgc_<id>_<secret>` in base62. It is 190 bits at random, so one SHA-256 is as good as a slow hash.

use std::fmt;

use tollgate_shared::token::KeySet;
use zeroize::Zeroizing;

use super::ClientFault;
use crate::clock::{EntropyError, Host};
use crate::credential::{ID_CHARS, SECRET_CHARS, SecretDigest, base62};

/// The most secrets of a client at once: the old and the new, and room for a rotation that was interrupted.
pub const SECRETS_MAX: usize = 4;
/// The most keys of a client at once.
pub const CLIENT_KEYS_MAX: usize = 8;
/// The longest JWK Set of a client, in bytes.
pub const JWKS_BYTES_MAX: usize = 16 * 1024;

/// How a secret begins.
pub(crate) const SECRET_PREFIX: &str = "tgc_";

/// How a client proves who it is.
#[derive(Debug, Clone)]
pub enum ClientAuthentication {
    /// Not at all: a public client (RFC 6749 section 2.1), such as a program on a person's machine.
    None,
    /// With one of its secrets; 1 to [`SECRETS_MAX`], so that a new one can be handed out before the old one goes.
    Secret(Vec<ClientSecret>),
    /// With a signature of one of its keys (OpenID Connect Core section 9).
    PrivateKeyJwt(ClientKeys),
}

/// What is kept of a client's secret.
#[derive(Debug, Clone)]
pub struct ClientSecret {
    /// By what it is withdrawn.
    pub id: String,
    /// What is compared.
    pub digest: SecretDigest,
}

/// The public keys of a client.
#[derive(Debug, Clone)]
pub struct ClientKeys {
    text: String,
    set: KeySet,
}

/// A secret that was just made.
pub struct NewClientSecret {
    /// What is kept of it.
    pub kept: ClientSecret,
    text: Zeroizing<String>,
}

impl ClientAuthentication {
    /// Its name in OAuth metadata.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Secret(_) => "client_secret",
            Self::PrivateKeyJwt(_) => "private_key_jwt",
        }
    }

    /// Whether the client proves who it is (RFC 6749 section 2.1).
    #[must_use]
    pub fn is_confidential(&self) -> bool {
        match self {
            Self::None => false,
            Self::Secret(_) | Self::PrivateKeyJwt(_) => true,
        }
    }
}

impl ClientKeys {
    /// Reads a JWK Set in which every key can be used.
    ///
    /// # Errors
    /// [`ClientFault::JwksSize`], [`ClientFault::Jwks`] or [`ClientFault::JwksKey`].
    pub fn from_jwks(text: &str) -> Result<Self, ClientFault> {
        if text.len() > JWKS_BYTES_MAX {
            return Err(ClientFault::JwksSize);
        }
        let (set, ignored) = KeySet::from_jwks(text.as_bytes())?;
        if let Some(key) = ignored.first() {
            return Err(ClientFault::JwksKey { place: key.place, fault: key.fault });
        }
        if set.len() > CLIENT_KEYS_MAX {
            return Err(ClientFault::JwksSize);
        }
        Ok(Self { text: text.to_owned(), set })
    }

    /// The set as it was given.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The set to verify with.
    #[must_use]
    pub fn set(&self) -> &KeySet {
        &self.set
    }
}

impl NewClientSecret {
    /// A new secret.
    ///
    /// # Errors
    /// [`EntropyError`] when there are no random bytes.
    pub fn generate(host: &dyn Host) -> Result<Self, EntropyError> {
        let id = base62::<ID_CHARS>(host)?;
        let secret = base62::<SECRET_CHARS>(host)?;
        let text = Zeroizing::new([SECRET_PREFIX, &id, "_", &secret].concat());
        let kept = ClientSecret { id: String::clone(&id), digest: SecretDigest::of(text.as_bytes()) };
        Ok(Self { kept, text })
    }

    /// The secret itself, for the one who is to use it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for NewClientSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("NewClientSecret").field("id", &self.kept.id).finish_non_exhaustive()
    }
}
