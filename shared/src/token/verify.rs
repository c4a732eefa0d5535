//! Decides whether a token was made by its issuer: strict decoding, then one signature check with one key.

use std::fmt;

use base64ct::{Base64UrlUnpadded, Encoding};
use jwt_compact::alg::{Es256, Rsa};
use jwt_compact::{Algorithm as _, AlgorithmSignature};

use super::claims::{ClaimError, Claims, TokenRules};
use super::header::Header;
use super::json::{JsonError, JsonValue};
use super::keys::{Algorithm, KeyFingerprint, KeySet, VerifyingKey};
use crate::time::UnixSeconds;

/// A longer token is refused before anything in it is looked at, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// Why bytes are not a token that could be checked. Each is one of the client's faults; the client is told none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[expect(missing_docs, reason = "the error text of each says what its documentation would")]
pub enum ParseError {
    #[error("token is empty")]
    Empty,
    #[error("token is longer than 8192 bytes")]
    TooLong,
    #[error("not three segments of base64url")]
    Segments,
    #[error("base64url is padded, has foreign characters or non-zero trailing bits")]
    Base64,
    #[error("header is not valid json")]
    HeaderMalformed,
    #[error("header is not an object")]
    HeaderNotObject,
    #[error("header or claims name a member twice")]
    DuplicateMember,
    #[error("header or claims are nested too deep or have too many entries")]
    TooComplex,
    #[error("header has crit")]
    CriticalExtension,
    #[error("header has b64")]
    UnencodedPayload,
    #[error("header has enc or zip")]
    Encrypted,
    #[error("header has no alg")]
    AlgorithmMissing,
    #[error("alg is not EdDSA, ES256 or RS256")]
    AlgorithmRefused,
    #[error("header has no kid")]
    KeyIdMissing,
    #[error("kid is not a string of 1 to 255 bytes")]
    KeyIdMalformed,
    #[error("typ is not a string")]
    TypeMalformed,
    #[error("claims are not a json object")]
    ClaimsMalformed,
    #[error("signature is empty")]
    SignatureEmpty,
}

/// Why a well-formed token is not its issuer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum VerifyError {
    /// No key of the issuer has this `kid`.
    #[error("no key has this kid")]
    UnknownKey,
    /// The header's `alg` is not the one the key is used with.
    #[error("alg is not the key's")]
    AlgorithmMismatch,
    /// The provider does not accept this algorithm.
    #[error("alg is not allowed for this issuer")]
    AlgorithmNotAllowed,
    /// The signature does not verify.
    #[error("signature does not verify")]
    Signature,
}

/// A well-formed token of unknown origin.
pub struct UntrustedToken<'t> {
    signed: &'t [u8],
    header: Header,
    claims: JsonValue,
    payload: &'t str,
    signature: Vec<u8>,
}

/// A token that a key of its issuer signed. Nothing is known yet of its purpose, audience and time.
#[derive(Clone)]
pub struct SignedToken {
    header: Header,
    claims: JsonValue,
    key: KeyFingerprint,
    payload: String,
}

/// An access token for this audience, in its time. Whether it is revoked is the next question, asked at every use.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveToken {
    /// What it says.
    pub claims: Claims,
    /// The key that signed it.
    pub key: KeyFingerprint,
    /// The payload segment as it was sent: strict base64url of a JSON object.
    pub payload: String,
}

/// Verifies one signature. A host may have a faster one than [`RustCrypto`]; both must give the same verdict, and a
/// wrong `true` admits a forged token.
pub trait SignatureBackend {
    /// Whether `signature`, as JWS carries it (RFC 7518 section 3), is by `key` over `message`.
    fn verify(&self, key: &VerifyingKey, message: &[u8], signature: &[u8]) -> bool;
}

/// The verifiers of the RustCrypto and dalek crates, the same on every target.
#[derive(Debug, Clone, Copy, Default)]
pub struct RustCrypto;

impl SignatureBackend for RustCrypto {
    fn verify(&self, key: &VerifyingKey, message: &[u8], signature: &[u8]) -> bool {
        match key {
            // jwt-compact's Ed25519 accepts keys and nonces of small order; the strict rule is the one that every
            // implementation can agree on.
            VerifyingKey::EdDsa(key) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(message, &signature).is_ok()),
            VerifyingKey::Es256 { key, .. } => p256::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| Es256.verify_signature(&signature, key, message)),
            VerifyingKey::Rs256 { key, .. } => AlgorithmSignature::try_from_slice(signature)
                .is_ok_and(|signature| Rsa::rs256().verify_signature(&signature, key, message)),
        }
    }
}

/// An ES256 signature as JWS carries it (r and s, 32 bytes each) in the DER that hosts with their own verifier want;
/// `None` when it is not one.
#[must_use]
pub fn es256_signature_der(signature: &[u8]) -> Option<Vec<u8>> {
    let signature = p256::ecdsa::Signature::from_slice(signature).ok()?;
    Some(signature.to_der().as_bytes().to_vec())
}

impl<'t> UntrustedToken<'t> {
    /// Decodes `token` strictly: RFC 7515 compact serialisation, base64url without padding or spare bits, and JSON
    /// objects in which nothing stands twice.
    ///
    /// # Errors
    /// See [`ParseError`]. The cost is linear in the length, and nothing is decoded beyond [`TOKEN_BYTES_MAX`].
    pub fn parse(token: &'t [u8]) -> Result<Self, ParseError> {
        if token.is_empty() {
            return Err(ParseError::Empty);
        }
        if token.len() > TOKEN_BYTES_MAX {
            return Err(ParseError::TooLong);
        }
        let text = std::str::from_utf8(token).map_err(|_| ParseError::Base64)?;
        let mut segments = text.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (segments.next(), segments.next(), segments.next(), segments.next())
        else {
            return Err(ParseError::Segments);
        };
        if signature.is_empty() {
            return Err(ParseError::SignatureEmpty);
        }
        let decode = |segment| Base64UrlUnpadded::decode_vec(segment).map_err(|_| ParseError::Base64);
        let json = |bytes: &[u8], otherwise| {
            JsonValue::parse(bytes).map_err(|error| match error {
                JsonError::Malformed => otherwise,
                JsonError::DuplicateMember => ParseError::DuplicateMember,
                JsonError::TooLarge => ParseError::TooComplex,
            })
        };
        let header = Header::read(&json(&decode(header)?, ParseError::HeaderMalformed)?)?;
        let signature = decode(signature)?;
        let claims = json(&decode(payload)?, ParseError::ClaimsMalformed)?;
        if !matches!(claims, JsonValue::Object(_)) {
            return Err(ParseError::ClaimsMalformed);
        }
        let signed = token.get(..header_and_payload(token)).unwrap_or_default();
        Ok(Self { signed, header, claims, payload, signature })
    }

    /// The `iss` that the token claims, by which its keys are chosen. It proves nothing until [`Self::verify`].
    #[must_use]
    pub fn claimed_issuer(&self) -> Option<&str> {
        self.claims.member("iss").and_then(JsonValue::text)
    }

    /// What the header asks for.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Checks the signature with the one key of `keys` that the token names and `allowed` admits.
    ///
    /// # Errors
    /// See [`VerifyError`].
    pub fn verify(
        self,
        keys: &KeySet,
        allowed: &[Algorithm],
        backend: &impl SignatureBackend,
    ) -> Result<SignedToken, VerifyError> {
        if !allowed.contains(&self.header.algorithm) {
            return Err(VerifyError::AlgorithmNotAllowed);
        }
        let key = keys.find(&self.header.key_id).ok_or(VerifyError::UnknownKey)?;
        if key.verifying().algorithm() != self.header.algorithm {
            return Err(VerifyError::AlgorithmMismatch);
        }
        if !backend.verify(key.verifying(), self.signed, &self.signature) {
            return Err(VerifyError::Signature);
        }
        let Self { header, claims, payload, .. } = self;
        Ok(SignedToken { header, claims, key: key.fingerprint(), payload: payload.to_owned() })
    }
}

impl SignedToken {
    /// Checks what the issuer wrote against what this audience expects, at the instant `now`.
    ///
    /// # Errors
    /// See [`ClaimError`].
    pub fn live(self, rules: &TokenRules, now: UnixSeconds) -> Result<LiveToken, ClaimError> {
        let claims = Claims::read(&self.claims, &self.header, rules)?;
        claims.in_time(rules, now)?;
        Ok(LiveToken { claims, key: self.key, payload: self.payload })
    }
}

/// The length of `header.payload`: everything before the last dot.
fn header_and_payload(token: &[u8]) -> usize {
    token.iter().rposition(|byte| *byte == b'.').unwrap_or_default()
}

// A token is a credential: neither it nor its signature may reach a log by way of `{:?}`.
impl fmt::Debug for UntrustedToken<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("UntrustedToken").field("header", &self.header).finish_non_exhaustive()
    }
}

impl fmt::Debug for SignedToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SignedToken").field("header", &self.header).finish_non_exhaustive()
    }
}
