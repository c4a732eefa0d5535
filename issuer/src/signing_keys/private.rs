//! Guards the private halves of the keys that sign tokens: how they are made, kept, and used.
//!
//! aws-lc-rs signs for all three algorithms. RSA has to: the `rsa` crate's private operations leak time (RUSTSEC-2023-0071).
//! The others could stay with the crates that verify, but one home means one PKCS#8 encoding, one set of constant-time
//! routines, and signatures that are made by one implementation and checked by another.
//!
//! The secrets of Ed25519 and P-256 keys come from [`Host`]. Two things aws-lc draws from its own generator, because it takes
//! no other: the primes of an RSA key, and the nonces of ECDSA signatures. Private keys live in memory that aws-lc wipes
//! when it frees it.

use std::fmt;

use aws_lc_rs::agreement::{self, ECDH_P256};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use tollgate_shared::id::KeyId;
use tollgate_shared::token::{Algorithm, IssueError, Key, TokenSigner, VerifyingKey};
use zeroize::Zeroizing;

use crate::clock::{EntropyError, Host, random};

/// How often a P-256 secret is drawn again. All but one draw in 2^32 are good, so a third means that the source is broken.
const P256_DRAWS_MAX: usize = 3;

/// Which key to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewKey {
    /// Ed25519.
    EdDsa,
    /// P-256.
    Es256,
    /// RSA of this size.
    Rs256(RsaSize),
}

/// How long an RSA modulus is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RsaSize {
    /// 2048 bits.
    Bits2048,
    /// 3072 bits: a third of the signatures per second.
    Bits3072,
}

/// A private key with the name and the public half it has. It prints nothing of its secret.
pub struct PrivateKey {
    public: Key,
    secret: Secret,
}

enum Secret {
    EdDsa(Ed25519KeyPair),
    Es256(EcdsaKeyPair),
    Rs256(RsaKeyPair),
}

/// Why there is no private key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PrivateKeyError {
    /// No random bytes.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// It could not be made or encoded.
    #[error("signing key could not be made")]
    Generate,
    /// The bytes are not the PKCS#8 document of a key for this algorithm that verifiers accept.
    #[error("not a private key of its algorithm")]
    Malformed,
}

impl NewKey {
    /// What it will sign with.
    #[must_use]
    pub fn algorithm(self) -> Algorithm {
        match self {
            Self::EdDsa => Algorithm::EdDsa,
            Self::Es256 => Algorithm::Es256,
            Self::Rs256(_) => Algorithm::Rs256,
        }
    }
}

impl PrivateKey {
    /// A new key. An RSA key takes a good part of a second: not for a thread that answers requests.
    ///
    /// # Errors
    /// [`PrivateKeyError::Entropy`] or [`PrivateKeyError::Generate`].
    pub fn generate(kind: NewKey, host: &dyn Host) -> Result<Self, PrivateKeyError> {
        match kind {
            NewKey::EdDsa => Self::from_ed25519_seed(&Zeroizing::new(random::<32>(host)?)),
            NewKey::Es256 => {
                for _ in 0..P256_DRAWS_MAX {
                    let scalar = Zeroizing::new(random::<32>(host)?);
                    // Refused when it is zero or not below the order.
                    if let Some(pair) = p256_pair(&scalar) {
                        return Self::new(Secret::Es256(pair)).ok_or(PrivateKeyError::Generate);
                    }
                }
                Err(PrivateKeyError::Generate)
            }
            NewKey::Rs256(size) => {
                let size = match size {
                    RsaSize::Bits2048 => KeySize::Rsa2048,
                    RsaSize::Bits3072 => KeySize::Rsa3072,
                };
                let pair = RsaKeyPair::generate(size).map_err(|_| PrivateKeyError::Generate)?;
                Self::new(Secret::Rs256(pair)).ok_or(PrivateKeyError::Generate)
            }
        }
    }

    /// The Ed25519 key of this RFC 8032 seed.
    ///
    /// # Errors
    /// [`PrivateKeyError::Generate`].
    pub fn from_ed25519_seed(seed: &[u8; 32]) -> Result<Self, PrivateKeyError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| PrivateKeyError::Generate)?;
        Self::new(Secret::EdDsa(pair)).ok_or(PrivateKeyError::Generate)
    }

    /// The key in a PKCS#8 document (RFC 5958).
    ///
    /// # Errors
    /// [`PrivateKeyError::Malformed`].
    pub fn from_pkcs8(algorithm: Algorithm, document: &[u8]) -> Result<Self, PrivateKeyError> {
        let secret = match algorithm {
            Algorithm::EdDsa => Ed25519KeyPair::from_pkcs8(document).map(Secret::EdDsa),
            Algorithm::Es256 => {
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document).map(Secret::Es256)
            }
            Algorithm::Rs256 => RsaKeyPair::from_pkcs8(document).map(Secret::Rs256),
        };
        secret.ok().and_then(Self::new).ok_or(PrivateKeyError::Malformed)
    }

    /// The key as a PKCS#8 document, which is wiped when dropped.
    ///
    /// # Errors
    /// [`PrivateKeyError::Generate`] when aws-lc cannot encode it.
    pub fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, PrivateKeyError> {
        let document = match &self.secret {
            Secret::EdDsa(pair) => pair.to_pkcs8v1().map(|document| document.as_ref().to_vec()),
            Secret::Es256(pair) => pair.to_pkcs8v1().map(|document| document.as_ref().to_vec()),
            Secret::Rs256(pair) => {
                AsDer::<Pkcs8V1Der<'_>>::as_der(pair).map(|document| document.as_ref().to_vec())
            }
        };
        document.map(Zeroizing::new).map_err(|_| PrivateKeyError::Generate)
    }

    /// The public half, known by its thumbprint.
    #[must_use]
    pub fn public(&self) -> &Key {
        &self.public
    }

    /// The public half is read by the code that edges read it with: a key that they would refuse is not made.
    fn new(secret: Secret) -> Option<Self> {
        let verifying = match &secret {
            Secret::EdDsa(pair) => {
                let point = pair.public_key().as_ref().try_into().ok()?;
                VerifyingKey::ed25519(&point)
            }
            Secret::Es256(pair) => {
                let coordinates = pair.public_key().as_ref().strip_prefix(&[4])?;
                let (x, y) = coordinates.split_at_checked(32)?;
                VerifyingKey::p256(x, y)
            }
            Secret::Rs256(pair) => {
                let (modulus, exponent) = (pair.public_key().modulus(), pair.public_key().exponent());
                VerifyingKey::rsa(
                    modulus.big_endian_without_leading_zero(),
                    exponent.big_endian_without_leading_zero(),
                )
            }
        };
        Some(Self { public: Key::of(verifying.ok()?), secret })
    }
}

impl TokenSigner for PrivateKey {
    fn key_id(&self) -> &KeyId {
        self.public.id()
    }

    fn algorithm(&self) -> Algorithm {
        self.public.verifying().algorithm()
    }

    fn signature(&self, message: &[u8]) -> Result<Vec<u8>, IssueError> {
        // aws-lc has a generator for each thread; this names it.
        let own = SystemRandom::new();
        let signature = match &self.secret {
            Secret::EdDsa(pair) => pair.try_sign(message).map(|signature| signature.as_ref().to_vec()),
            Secret::Es256(pair) => pair.sign(&own, message).map(|signature| signature.as_ref().to_vec()),
            Secret::Rs256(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &own, message, &mut signature).map(|()| signature)
            }
        };
        signature.map_err(|_| IssueError::Signature)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PrivateKey").field("id", self.public.id()).finish_non_exhaustive()
    }
}

fn p256_pair(scalar: &[u8; 32]) -> Option<EcdsaKeyPair> {
    let secret = agreement::PrivateKey::from_private_key(&ECDH_P256, scalar).ok()?;
    let point = secret.compute_public_key().ok()?;
    EcdsaKeyPair::from_private_key_and_public_key(&ECDSA_P256_SHA256_FIXED_SIGNING, scalar, point.as_ref())
        .ok()
}

#[cfg(test)]
mod tests;
