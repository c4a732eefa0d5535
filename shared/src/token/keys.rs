//! Decides which keys may verify a token, and with which one algorithm each.
//!
//! *What comes in:* a JWK Set (RFC 7517) from the signed feed, from the configuration or from another issuer. *What
//! goes out:* at most [`KEYS_MAX`] verifying keys. *What an attacker gains if this is wrong:* a key that signs under an
//! algorithm it was not made for.

use base64ct::{Base64UrlUnpadded, Encoding};
use jwt_compact::alg::RsaPublicKey;
use jwt_compact::jwk::JsonWebKey;
use rsa::pkcs8::EncodePublicKey;
use rsa::traits::PublicKeyParts;
use sha2::{Digest, Sha256};

use super::json::{JsonError, JsonValue};
use crate::id::KeyId;

/// The most keys of one issuer; a larger set is refused whole.
pub const KEYS_MAX: usize = 64;
/// RSA keys outside these sizes are ignored: shorter ones are weak, longer ones cost the data plane too much.
const RSA_MODULUS_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

/// The signature algorithms that exist here. There is no way to name another, `none` and the HMACs included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Ed25519 (RFC 8037), verified by the strict rule: canonical encodings, no point of small order, no cofactor.
    EdDsa,
    /// ECDSA on P-256 with SHA-256 (RFC 7518 section 3.4).
    Es256,
    /// RSASSA-PKCS1-v1_5 with SHA-256 (RFC 7518 section 3.3).
    Rs256,
}

impl Algorithm {
    /// The algorithm that a header or a JWK calls `name`. RFC 9864's `Ed25519` is the same algorithm as `EdDSA` here,
    /// but only under a JWK's `alg`; tokens say `EdDSA`.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "EdDSA" => Some(Self::EdDsa),
            "ES256" => Some(Self::Es256),
            "RS256" => Some(Self::Rs256),
            _ => None,
        }
    }

    /// The name in the JOSE registry.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        }
    }
}

/// A public key, and with it the one algorithm it is used with.
#[derive(Debug, Clone)]
pub enum VerifyingKey {
    /// A point on Ed25519.
    EdDsa(ed25519_dalek::VerifyingKey),
    /// A point on P-256.
    Es256 {
        /// The point.
        key: p256::ecdsa::VerifyingKey,
        /// The key as DER SubjectPublicKeyInfo (RFC 5480), which hosts with their own verifier want.
        spki: Vec<u8>,
    },
    /// An RSA modulus and exponent.
    Rs256 {
        /// The numbers; boxed, as they are large.
        key: Box<RsaPublicKey>,
        /// The key as DER SubjectPublicKeyInfo (RFC 8017), which hosts with their own verifier want.
        spki: Vec<u8>,
    },
}

/// Why one key of a set is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum KeyFault {
    /// No `kid`, or one that is not a string of 1 to 255 bytes.
    #[error("kid is missing or malformed")]
    KeyId,
    /// A `kty` or `crv` that no accepted algorithm uses; `oct` among them.
    #[error("kty or crv is not one we verify with")]
    Type,
    /// An `alg` that is not accepted, or not the one the key type has.
    #[error("alg does not fit the key")]
    Algorithm,
    /// `use` is not `sig`, or `key_ops` lacks `verify`.
    #[error("the key is not for verifying signatures")]
    Purpose,
    /// A private or symmetric part is there: such a key is compromised by having been published.
    #[error("a private part is present")]
    PrivatePart,
    /// A coordinate, modulus or exponent that is not strict base64url of the right length.
    #[error("a parameter is malformed")]
    Parameter,
    /// The point is not on the curve, or has small order.
    #[error("not a point of the curve's prime-order group")]
    Point,
    /// The RSA modulus is not of 2048 to 4096 bits, or the exponent is below 3 or even.
    #[error("rsa modulus or exponent out of bounds")]
    RsaSize,
}

/// A key that was passed over, and why. Its place in the set is what an operator can act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IgnoredKey {
    /// Index in `keys`.
    pub place: usize,
    /// What is wrong with it.
    pub fault: KeyFault,
}

/// Identifies a key by everything that decides a verdict: its id, algorithm and material.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyFingerprint([u8; 32]);

/// One usable key.
#[derive(Debug, Clone)]
pub struct Key {
    id: KeyId,
    fingerprint: KeyFingerprint,
    verifying: VerifyingKey,
}

/// The keys of one issuer.
#[derive(Debug, Clone, Default)]
pub struct KeySet {
    keys: Vec<Key>,
}

/// Why a whole set is refused. The set in force stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum KeySetError {
    /// Not JSON, or a member twice.
    #[error("jwks: {0}")]
    Json(#[from] JsonError),
    /// No `keys` array of objects.
    #[error("jwks: there is no `keys` array of objects")]
    Shape,
    /// More keys than [`KEYS_MAX`].
    #[error("jwks: more than 64 keys")]
    TooMany,
    /// Two keys share a `kid`, so a token could mean either.
    #[error("jwks: two keys have the same kid")]
    DuplicateKeyId,
    /// Not one key can be used; an empty set never replaces a good one.
    #[error("jwks: no usable key")]
    Empty,
}

impl VerifyingKey {
    /// The algorithm this key is used with.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::EdDsa(_) => Algorithm::EdDsa,
            Self::Es256 { .. } => Algorithm::Es256,
            Self::Rs256 { .. } => Algorithm::Rs256,
        }
    }

    fn material(&self) -> &[u8] {
        match self {
            Self::EdDsa(key) => key.as_bytes(),
            Self::Es256 { spki, .. } | Self::Rs256 { spki, .. } => spki,
        }
    }

    /// An Ed25519 key from its 32 bytes (RFC 8032).
    ///
    /// # Errors
    /// [`KeyFault::Point`] when they encode no point, or one of small order.
    pub fn ed25519(bytes: &[u8; 32]) -> Result<Self, KeyFault> {
        let key = ed25519_dalek::VerifyingKey::from_bytes(bytes).map_err(|_| KeyFault::Point)?;
        if key.is_weak() { Err(KeyFault::Point) } else { Ok(Self::EdDsa(key)) }
    }

    /// A P-256 key from its affine coordinates.
    ///
    /// # Errors
    /// [`KeyFault::Parameter`] when one has not 32 bytes, [`KeyFault::Point`] when they are not on the curve.
    pub fn p256(x: &[u8], y: &[u8]) -> Result<Self, KeyFault> {
        if x.len() != 32 || y.len() != 32 {
            return Err(KeyFault::Parameter);
        }
        let jwk = JsonWebKey::EllipticCurve { curve: "P-256".into(), x: x.into(), y: y.into(), secret: None };
        let key = p256::ecdsa::VerifyingKey::try_from(&jwk).map_err(|_| KeyFault::Point)?;
        let spki = [P256_SPKI_PREFIX.as_slice(), key.to_encoded_point(false).as_bytes()].concat();
        Ok(Self::Es256 { key, spki })
    }

    /// An RSA key from big-endian modulus and exponent.
    ///
    /// # Errors
    /// [`KeyFault::RsaSize`] outside of 2048 to 4096 bits, or with an even exponent or one below 3.
    pub fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, KeyFault> {
        // Checked before any arithmetic: what follows costs time that grows with the numbers.
        if modulus.len() > 512 || exponent.len() > 5 || exponent.last().is_none_or(|low| low % 2 == 0) {
            return Err(KeyFault::RsaSize);
        }
        let jwk = JsonWebKey::Rsa {
            modulus: modulus.into(),
            public_exponent: exponent.into(),
            private_parts: None,
        };
        let key = RsaPublicKey::try_from(&jwk).map_err(|_| KeyFault::RsaSize)?;
        if !RSA_MODULUS_BITS.contains(&key.n().bits()) || key.e().bits() < 2 {
            return Err(KeyFault::RsaSize);
        }
        let spki = key.to_public_key_der().map_err(|_| KeyFault::Parameter)?.into_vec();
        Ok(Self::Rs256 { key: Box::new(key), spki })
    }
}

impl Key {
    /// A key known by `id`.
    #[must_use]
    pub fn new(id: KeyId, verifying: VerifyingKey) -> Self {
        let digest = Sha256::new()
            .chain_update(id.as_str())
            .chain_update([0])
            .chain_update(verifying.algorithm().name())
            .chain_update([0])
            .chain_update(verifying.material());
        Self { id, fingerprint: KeyFingerprint(digest.finalize().into()), verifying }
    }

    /// Its `kid`.
    #[must_use]
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// What tells this key from every other.
    #[must_use]
    pub fn fingerprint(&self) -> KeyFingerprint {
        self.fingerprint
    }

    /// The key itself.
    #[must_use]
    pub fn verifying(&self) -> &VerifyingKey {
        &self.verifying
    }
}

impl KeySet {
    /// Reads a JWK Set. Keys that cannot be used are passed over and reported; see [`KeySetError`] for what voids
    /// the whole set.
    ///
    /// # Errors
    /// See [`KeySetError`].
    pub fn from_jwks(json: &[u8]) -> Result<(Self, Vec<IgnoredKey>), KeySetError> {
        let document = JsonValue::parse(json)?;
        let Some(JsonValue::List(entries)) = document.member("keys") else {
            return Err(KeySetError::Shape);
        };
        if entries.len() > KEYS_MAX {
            return Err(KeySetError::TooMany);
        }
        let mut keys: Vec<Key> = Vec::with_capacity(entries.len());
        let mut ignored = Vec::new();
        for (place, entry) in entries.iter().enumerate() {
            if !matches!(entry, JsonValue::Object(_)) {
                return Err(KeySetError::Shape);
            }
            match read_key(entry) {
                Ok(key) if keys.iter().any(|known| known.id == key.id) => {
                    return Err(KeySetError::DuplicateKeyId);
                }
                Ok(key) => keys.push(key),
                Err(fault) => ignored.push(IgnoredKey { place, fault }),
            }
        }
        if keys.is_empty() { Err(KeySetError::Empty) } else { Ok((Self { keys }, ignored)) }
    }

    /// The key whose `kid` is exactly `id`.
    #[must_use]
    pub fn find(&self, id: &KeyId) -> Option<&Key> {
        self.keys.iter().find(|key| key.id == *id)
    }

    /// The one key that is used with `algorithm`; `None` when there is none, and when there are several.
    #[must_use]
    pub fn only(&self, algorithm: Algorithm) -> Option<&Key> {
        let mut keys = self.keys.iter().filter(|key| key.verifying.algorithm() == algorithm);
        match (keys.next(), keys.next()) {
            (Some(key), None) => Some(key),
            (None | Some(_), _) => None,
        }
    }

    /// Whether the key with this fingerprint is still in the set.
    #[must_use]
    pub fn holds(&self, fingerprint: KeyFingerprint) -> bool {
        self.keys.iter().any(|key| key.fingerprint == fingerprint)
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

fn read_key(jwk: &JsonValue) -> Result<Key, KeyFault> {
    let text = |name| jwk.member(name).and_then(JsonValue::text);
    let id = text("kid").and_then(KeyId::new).ok_or(KeyFault::KeyId)?;
    if ["d", "p", "q", "dp", "dq", "qi", "oth", "k"].iter().any(|part| jwk.member(part).is_some()) {
        return Err(KeyFault::PrivatePart);
    }
    if !for_verifying(jwk) {
        return Err(KeyFault::Purpose);
    }
    let bytes = |name| {
        let text = text(name).ok_or(KeyFault::Parameter)?;
        Base64UrlUnpadded::decode_vec(text).map_err(|_| KeyFault::Parameter)
    };
    // The algorithm follows from the key's type; a stated one may only agree.
    let verifying = match (text("kty"), text("crv")) {
        (Some("OKP"), Some("Ed25519")) => {
            let point = bytes("x")?.try_into().map_err(|_| KeyFault::Parameter)?;
            VerifyingKey::ed25519(&point)?
        }
        (Some("EC"), Some("P-256")) => VerifyingKey::p256(&bytes("x")?, &bytes("y")?)?,
        (Some("RSA"), None) => VerifyingKey::rsa(&bytes("n")?, &bytes("e")?)?,
        _ => return Err(KeyFault::Type),
    };
    match jwk.member("alg").map(JsonValue::text) {
        None => {}
        Some(Some("Ed25519")) if verifying.algorithm() == Algorithm::EdDsa => {}
        Some(name) if name.and_then(Algorithm::of) == Some(verifying.algorithm()) => {}
        Some(_) => return Err(KeyFault::Algorithm),
    }
    Ok(Key::new(id, verifying))
}

fn for_verifying(jwk: &JsonValue) -> bool {
    let purpose = match jwk.member("use") {
        None => true,
        Some(purpose) => purpose.text() == Some("sig"),
    };
    let operations = match jwk.member("key_ops") {
        None => true,
        Some(JsonValue::List(operations)) => {
            operations.iter().any(|operation| operation.text() == Some("verify"))
        }
        Some(_) => false,
    };
    purpose && operations
}

/// `SEQUENCE { SEQUENCE { id-ecPublicKey, prime256v1 }, BIT STRING …`, up to the uncompressed point.
const P256_SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
