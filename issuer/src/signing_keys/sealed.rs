//! Guards private keys at rest: what lies in the database is of no use to who has only the database.
//!
//! *What comes in:* blobs from a database that others may be able to write to. *What goes out:* the secret that was sealed
//! under this very label, or a refusal. *What an attacker gains if this is wrong:* every identity there is, by reading a
//! backup, or a key of his own in the place of ours.
//!
//! A blob is `version (1) | id of the key-encryption key (8) | nonce (12) | AES-256-GCM ciphertext and tag`. The associated
//! data is the version, that id and the label, so that neither can be changed and no blob opens in another's place. Nonces
//! are 96 random bits: a key-encryption key is good for 2^32 of them, and rotation of keys every second would take 136 years.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf;
use base64ct::{Base64UrlUnpadded, Encoding};
use sha2::{Digest, Sha256};
use tollgate_shared::token::Algorithm;
use zeroize::Zeroizing;

use crate::clock::{EntropyError, Host, random};

/// The environment variable with the key-encryption keys. It is no setting that could be printed.
pub const ENCRYPTION_KEY_VARIABLE: &str = "TOLLGATE_KEYS__ENCRYPTION_KEY";
/// The most key-encryption keys at once: rotating one takes two.
pub const ENCRYPTION_KEYS_MAX: usize = 8;

const VERSION: u8 = 1;
const KEY_ID_BYTES: usize = 8;
const HEADER_BYTES: usize = 1 + KEY_ID_BYTES + NONCE_LEN;

/// What names a key-encryption key: the start of a digest of it, which says nothing about the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncryptionKeyId([u8; KEY_ID_BYTES]);

/// One key that seals.
#[derive(Clone)]
struct EncryptionKey {
    id: EncryptionKeyId,
    secret: Zeroizing<[u8; 32]>,
}

/// The keys that seal and open: the first seals, all of them open. To rotate, put a new one first, have everything sealed
/// anew ([`EncryptionKeys::resealed`]), then leave the old one out.
#[derive(Clone)]
pub struct EncryptionKeys {
    first: EncryptionKey,
    others: Vec<EncryptionKey>,
}

/// What a secret is, and whose. It has to be the same for sealing and opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Label<'l> {
    /// The private half of the signing key with this `kid`, for this algorithm.
    SigningKey(&'l str, Algorithm),
    /// The secret from which others are derived.
    ServerSecret,
    /// The seed of the key that signs the feed.
    FeedKey,
    /// The answer to a request, and which.
    Answer(&'l str),
}

/// Why a secret cannot be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// No random bytes.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// The cipher refused to seal, or the hash to derive.
    #[error("secret could not be sealed or derived")]
    Seal,
    /// It is not a sealed secret, or one of a version we do not know.
    #[error("not a sealed secret of a known version")]
    Format,
    /// It was sealed under a key we were not given.
    #[error("sealed under key-encryption key {0}, which is not among the configured ones")]
    UnknownKey(EncryptionKeyId),
    /// It was changed, or it is another one's.
    #[error("sealed secret was changed, or is in another's place")]
    Forged,
}

/// The text is not a list of key-encryption keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not 1 to 8 times 32 bytes in base64url, separated by commas or white space")]
pub struct EncryptionKeyFault;

impl EncryptionKeys {
    /// Reads keys of 32 bytes in base64url that are separated by commas or white space; the first seals.
    ///
    /// # Errors
    /// [`EncryptionKeyFault`].
    pub fn parse(text: &str) -> Result<Self, EncryptionKeyFault> {
        let words = text.split(|char: char| char == ',' || char.is_ascii_whitespace());
        let mut keys = Vec::new();
        for word in words.filter(|word| !word.is_empty()).take(ENCRYPTION_KEYS_MAX + 1) {
            let mut secret = Zeroizing::new([0; 32]);
            let decoded = Base64UrlUnpadded::decode(word, secret.as_mut_slice());
            if decoded.map_err(|_| EncryptionKeyFault)?.len() != 32 {
                return Err(EncryptionKeyFault);
            }
            keys.push(EncryptionKey::new(secret));
        }
        if keys.is_empty() || keys.len() > ENCRYPTION_KEYS_MAX {
            return Err(EncryptionKeyFault);
        }
        let first = keys.remove(0);
        Ok(Self { first, others: keys })
    }

    /// These keys, and after them those of `more` for opening only.
    #[must_use]
    pub fn and(mut self, more: Self) -> Self {
        self.others.push(more.first);
        self.others.extend(more.others);
        self
    }

    /// What names the key that seals.
    #[must_use]
    pub fn sealing(&self) -> EncryptionKeyId {
        self.first.id
    }

    /// Seals `secret` as what `label` says it is.
    ///
    /// # Errors
    /// [`SealError::Entropy`] or [`SealError::Seal`].
    pub fn seal(&self, label: Label<'_>, secret: &[u8], host: &dyn Host) -> Result<Vec<u8>, SealError> {
        let nonce = random::<NONCE_LEN>(host)?;
        // Room for the tag from the start, so that no copy of the secret is left behind when it is appended.
        let mut sealed = Zeroizing::new(Vec::with_capacity(secret.len() + AES_256_GCM.tag_len()));
        sealed.extend_from_slice(secret);
        let associated = label.associated(self.first.id);
        self.first
            .cipher()
            .and_then(|cipher| {
                let nonce = Nonce::assume_unique_for_key(nonce);
                cipher.seal_in_place_append_tag(nonce, Aad::from(associated), &mut *sealed).ok()
            })
            .ok_or(SealError::Seal)?;
        Ok([&[VERSION], self.first.id.0.as_slice(), &nonce, &sealed].concat())
    }

    /// Opens what was sealed under the same label.
    ///
    /// # Errors
    /// [`SealError::Format`], [`SealError::UnknownKey`] or [`SealError::Forged`].
    pub fn open(&self, label: Label<'_>, blob: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let (id, rest) = header(blob).ok_or(SealError::Format)?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>().ok_or(SealError::Format)?;
        let key = std::iter::once(&self.first).chain(&self.others).find(|key| key.id == id);
        let key = key.ok_or(SealError::UnknownKey(id))?;
        let mut secret = Zeroizing::new(sealed.to_vec());
        let length = key
            .cipher()
            .and_then(|cipher| {
                let nonce = Nonce::assume_unique_for_key(*nonce);
                let opened = cipher.open_in_place(nonce, Aad::from(label.associated(id)), &mut secret);
                opened.ok().map(|opened| opened.len())
            })
            .ok_or(SealError::Forged)?;
        secret.truncate(length);
        Ok(secret)
    }

    /// The same secret sealed under the first key; `None` when it is already.
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn resealed(
        &self,
        label: Label<'_>,
        blob: &[u8],
        host: &dyn Host,
    ) -> Result<Option<Vec<u8>>, SealError> {
        let (id, _) = header(blob).ok_or(SealError::Format)?;
        if id == self.first.id {
            return Ok(None);
        }
        Ok(Some(self.seal(label, &self.open(label, blob)?, host)?))
    }
}

/// The version's promise and the rest; `None` when it is not long enough to be a blob.
fn header(blob: &[u8]) -> Option<(EncryptionKeyId, &[u8])> {
    let (&version, rest) = blob.split_first()?;
    let (id, rest) = rest.split_first_chunk()?;
    (version == VERSION && blob.len() >= HEADER_BYTES).then_some((EncryptionKeyId(*id), rest))
}

impl EncryptionKey {
    fn new(secret: Zeroizing<[u8; 32]>) -> Self {
        let digest = Sha256::new()
            .chain_update(b"tollgate key-encryption key id\0")
            .chain_update(secret.as_slice())
            .finalize();
        let mut id = [0; KEY_ID_BYTES];
        for (to, from) in id.iter_mut().zip(digest) {
            *to = from;
        }
        Self { id: EncryptionKeyId(id), secret }
    }

    fn cipher(&self) -> Option<LessSafeKey> {
        UnboundKey::new(&AES_256_GCM, self.secret.as_slice()).ok().map(LessSafeKey::new)
    }
}

impl Label<'_> {
    /// What the cipher authenticates beside the secret. Each part but the last ends in a byte that none of them holds, so no
    /// two labels give the same bytes.
    fn associated(self, key: EncryptionKeyId) -> Vec<u8> {
        let (purpose, algorithm, name) = match self {
            Self::SigningKey(kid, algorithm) => ("signing key", algorithm.name(), kid),
            Self::ServerSecret => ("server secret", "", ""),
            Self::FeedKey => ("feed key", "", ""),
            Self::Answer(of) => ("answer", "", of),
        };
        let text = ["tollgate sealed\0", purpose, "\0", algorithm, "\0", name].concat();
        [&[VERSION], key.0.as_slice(), text.as_bytes()].concat()
    }
}

/// A secret of the whole installation, from which those of single purposes are derived. It lies in the database, sealed, so
/// that replicas share it and a new key-encryption key does not change what is derived from it.
pub struct ServerSecret(Zeroizing<[u8; 32]>);

impl ServerSecret {
    /// A new one.
    ///
    /// # Errors
    /// [`EntropyError`].
    pub fn generate(host: &dyn Host) -> Result<Self, EntropyError> {
        Ok(Self(Zeroizing::new(random::<32>(host)?)))
    }

    /// It as it is stored.
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn sealed(&self, keys: &EncryptionKeys, host: &dyn Host) -> Result<Vec<u8>, SealError> {
        keys.seal(Label::ServerSecret, self.0.as_slice(), host)
    }

    /// The one that is stored.
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn open(keys: &EncryptionKeys, blob: &[u8]) -> Result<Self, SealError> {
        let bytes = keys.open(Label::ServerSecret, blob)?;
        let mut secret = Zeroizing::new([0; 32]);
        if bytes.len() != secret.len() {
            return Err(SealError::Format);
        }
        secret.copy_from_slice(&bytes);
        Ok(Self(secret))
    }

    /// The secret for one purpose, by HKDF-SHA256 (RFC 5869). A purpose is a constant of the program, so that nobody from
    /// outside can ask for the secret of another one.
    ///
    /// # Errors
    /// [`SealError::Seal`] when aws-lc fails.
    pub fn derive(&self, purpose: &'static str) -> Result<Zeroizing<[u8; 32]>, SealError> {
        let mut derived = Zeroizing::new([0; 32]);
        hkdf::Salt::new(hkdf::HKDF_SHA256, b"tollgate server secret")
            .extract(self.0.as_slice())
            .expand(&[purpose.as_bytes()], hkdf::HKDF_SHA256)
            .and_then(|output| output.fill(derived.as_mut_slice()))
            .map_err(|_| SealError::Seal)?;
        Ok(derived)
    }
}

impl fmt::Display for EncryptionKeyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for EncryptionKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<_> =
            std::iter::once(&self.first).chain(&self.others).map(|key| key.id.to_string()).collect();
        formatter.debug_tuple("EncryptionKeys").field(&ids).finish()
    }
}

impl fmt::Debug for ServerSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ServerSecret(…)")
    }
}

#[cfg(test)]
mod tests;
