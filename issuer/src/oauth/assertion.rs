//! Decides whether a JWT proves that a client signed it, for us, just now (RFC 7523 section 3, OpenID Connect Core
//! section 9).
//!
//! *What comes in:* up to [`TOKEN_BYTES_MAX`] bytes chosen by anyone. *What goes out:* a [`UsedAssertion`], which is to be
//! recorded so that the same one is not taken twice. *What an attacker gains if this is wrong:* every token of a client.
//!
//! The rules are not those of access tokens: `kid` may be absent, `typ` says something else, and the issuer is the client.

use std::fmt;

use base64ct::{Base64UrlUnpadded, Encoding};
use sha2::{Digest, Sha256};
use tollgate_shared::id::{ClientId, KeyId};
use tollgate_shared::time::UnixSeconds;
use tollgate_shared::token::{Algorithm, JsonValue, KeySet, SignatureBackend, TOKEN_BYTES_MAX};

/// What `alg` may be. `Ed25519` is RFC 9864's name of what `EdDSA` is here; libraries sign under either.
pub const ALGORITHMS: [&str; 4] = ["EdDSA", "Ed25519", "ES256", "RS256"];
/// An assertion is taken for this long after it was made, and must be made for about this long, in seconds.
pub const LIFETIME_SECONDS_MAX: u64 = 600;
/// An assertion that says when it was made may name an end up to this far ahead, in seconds: libraries write one hour and
/// do not ask. It counts for [`LIFETIME_SECONDS_MAX`] all the same.
pub const STATED_SECONDS_MAX: u64 = 3600;
/// How far the client's clock and ours may differ, in seconds.
pub const SKEW_SECONDS: u64 = 60;
/// The longest `jti`, in bytes.
pub const TOKEN_ID_BYTES_MAX: usize = 128;

/// Dates beyond this are refused: 2^53, the last integer that every JSON implementation can hold.
const NUMERIC_DATE_MAX: u64 = 1 << 53;

/// A well-formed assertion of unknown origin.
pub struct UntrustedAssertion {
    signed: String,
    algorithm: Algorithm,
    key_id: Option<KeyId>,
    claims: JsonValue,
    client: ClientId,
    signature: Vec<u8>,
}

/// An assertion that was good, once. Whoever acts on it records it first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsedAssertion {
    /// What tells it from every other: a digest over the client and the `jti`.
    pub digest: [u8; 32],
    /// From here on it would be refused anyway, and the record may go.
    pub until: UnixSeconds,
}

/// Why an assertion proves nothing. The client is told none of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum AssertionFault {
    /// Not a JWT: segments, base64url, JSON, or a member twice.
    #[error("not a well-formed JWT")]
    Malformed,
    /// A header that asks for more than a signature: `crit`, `b64`, `enc` or `zip`.
    #[error("header asks for what is not done here")]
    Header,
    /// `alg` is not one of [`ALGORITHMS`].
    #[error("alg is not EdDSA, Ed25519, ES256 or RS256")]
    Algorithm,
    /// `kid` is not a string of 1 to 255 bytes.
    #[error("kid is malformed")]
    KeyId,
    /// `typ` is that of another kind of token (RFC 8725 section 3.11).
    #[error("typ is that of another kind of token")]
    Type,
    /// No key of the client is meant, or more than one.
    #[error("no one key of the client is meant")]
    UnknownKey,
    /// The key is used with another algorithm.
    #[error("alg is not the key's")]
    AlgorithmMismatch,
    /// The signature does not verify.
    #[error("signature does not verify")]
    Signature,
    /// `sub` is no client.
    #[error("sub is missing or malformed")]
    Subject,
    /// `iss` is not the client.
    #[error("iss is not the client")]
    Issuer,
    /// `aud` does not name us.
    #[error("aud is missing, malformed or names somebody else")]
    Audience,
    /// `jti` is not a string of 1 to 128 bytes.
    #[error("jti is missing or malformed")]
    TokenId,
    /// `exp`, `iat` or `nbf` is not a date, or there is no `exp`.
    #[error("exp, iat or nbf is missing or not a date")]
    Date,
    /// It is over.
    #[error("expired")]
    Expired,
    /// It was made for longer than an assertion is good for.
    #[error("exp is too far ahead")]
    TooLong,
    /// It was made later than now, or is for later.
    #[error("not valid yet")]
    NotYetValid,
}

impl UntrustedAssertion {
    /// Decodes an assertion strictly: three segments of base64url without padding or spare bits, and JSON objects in which
    /// nothing stands twice.
    ///
    /// # Errors
    /// See [`AssertionFault`].
    pub fn parse(text: &str) -> Result<Self, AssertionFault> {
        if text.len() > TOKEN_BYTES_MAX {
            return Err(AssertionFault::Malformed);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(AssertionFault::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(AssertionFault::Malformed)?;
        let signature = decode(signature)?;
        if signature.is_empty() {
            return Err(AssertionFault::Malformed);
        }
        let (algorithm, key_id) = read_header(&object(header)?)?;
        let claims = object(payload)?;
        let client = text_of(&claims, "sub").and_then(ClientId::new).ok_or(AssertionFault::Subject)?;
        Ok(Self { signed: signed.to_owned(), algorithm, key_id, claims, client, signature })
    }

    /// The client that it claims to be of. It proves nothing until [`Self::verify`].
    #[must_use]
    pub fn claimed_client(&self) -> &ClientId {
        &self.client
    }

    /// Checks that the client with these keys made it, for one of `audiences`, and that it is in its time.
    ///
    /// # Errors
    /// See [`AssertionFault`].
    pub fn verify(
        &self,
        keys: &KeySet,
        audiences: &[&str],
        now: UnixSeconds,
        crypto: &impl SignatureBackend,
    ) -> Result<UsedAssertion, AssertionFault> {
        let key = match &self.key_id {
            Some(id) => keys.find(id),
            // RFC 7515 section 4.1.4 lets `kid` be absent, and some libraries leave it out. Then the algorithm must say
            // which key is meant.
            None => keys.only(self.algorithm),
        };
        let key = key.ok_or(AssertionFault::UnknownKey)?.verifying();
        if key.algorithm() != self.algorithm {
            return Err(AssertionFault::AlgorithmMismatch);
        }
        if !crypto.verify(key, self.signed.as_bytes(), &self.signature) {
            return Err(AssertionFault::Signature);
        }
        if text_of(&self.claims, "iss") != Some(self.client.as_str()) {
            return Err(AssertionFault::Issuer);
        }
        meant_for(&self.claims, audiences)?;
        let token_id = text_of(&self.claims, "jti").ok_or(AssertionFault::TokenId)?;
        if !(1..=TOKEN_ID_BYTES_MAX).contains(&token_id.len()) {
            return Err(AssertionFault::TokenId);
        }
        let until = in_time(&self.claims, now)?;
        // The id cannot hold the byte that separates it: it was found by that id.
        let digest =
            Sha256::new().chain_update(self.client.as_str()).chain_update([0]).chain_update(token_id);
        Ok(UsedAssertion { digest: digest.finalize().into(), until })
    }
}

// An assertion is a credential: neither it nor its signature may reach a log by way of `{:?}`.
impl fmt::Debug for UntrustedAssertion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("UntrustedAssertion").field("client", &self.client).finish_non_exhaustive()
    }
}

fn decode(segment: &str) -> Result<Vec<u8>, AssertionFault> {
    Base64UrlUnpadded::decode_vec(segment).map_err(|_| AssertionFault::Malformed)
}

fn object(segment: &str) -> Result<JsonValue, AssertionFault> {
    match JsonValue::parse(&decode(segment)?) {
        Ok(object @ JsonValue::Object(_)) => Ok(object),
        Ok(_) | Err(_) => Err(AssertionFault::Malformed),
    }
}

fn text_of<'j>(object: &'j JsonValue, name: &str) -> Option<&'j str> {
    object.member(name).and_then(JsonValue::text)
}

fn read_header(header: &JsonValue) -> Result<(Algorithm, Option<KeyId>), AssertionFault> {
    if ["crit", "b64", "enc", "zip"].iter().any(|name| header.member(name).is_some()) {
        return Err(AssertionFault::Header);
    }
    let algorithm = match text_of(header, "alg") {
        Some("Ed25519") => Some(Algorithm::EdDsa),
        name => name.and_then(Algorithm::of),
    };
    let key_id = match header.member("kid") {
        None => None,
        Some(id) => Some(id.text().and_then(KeyId::new).ok_or(AssertionFault::KeyId)?),
    };
    // Absent or `JWT` is what libraries write; the third is the name that RFC 7523's successor gives to assertions.
    let kinds = ["JWT", "client-authentication+jwt", "application/client-authentication+jwt"];
    match header.member("typ") {
        None => {}
        Some(typ)
            if typ.text().is_some_and(|typ| kinds.iter().any(|kind| typ.eq_ignore_ascii_case(kind))) => {}
        Some(_) => return Err(AssertionFault::Type),
    }
    Ok((algorithm.ok_or(AssertionFault::Algorithm)?, key_id))
}

fn meant_for(claims: &JsonValue, audiences: &[&str]) -> Result<(), AssertionFault> {
    let names: Option<Vec<&str>> = match claims.member("aud") {
        Some(JsonValue::List(names)) => names.iter().map(JsonValue::text).collect(),
        other => other.and_then(JsonValue::text).map(|name| vec![name]),
    };
    let ours = |names: Vec<&str>| names.iter().any(|name| audiences.contains(name));
    if names.is_some_and(ours) { Ok(()) } else { Err(AssertionFault::Audience) }
}

/// Until when it would be taken, if it would be taken now.
fn in_time(claims: &JsonValue, now: UnixSeconds) -> Result<UnixSeconds, AssertionFault> {
    let expires_at = date(claims, "exp")?.ok_or(AssertionFault::Date)?;
    let issued_at = date(claims, "iat")?;
    let not_before = date(claims, "nbf")?;
    let latest = now.plus(SKEW_SECONDS);
    if issued_at.is_some_and(|date| date > latest) || not_before.is_some_and(|date| date > latest) {
        return Err(AssertionFault::NotYetValid);
    }
    let (stated_max, ends_at) = match issued_at {
        Some(date) => (STATED_SECONDS_MAX, expires_at.min(date.plus(LIFETIME_SECONDS_MAX))),
        None => (LIFETIME_SECONDS_MAX, expires_at),
    };
    let until = ends_at.plus(SKEW_SECONDS);
    if until <= now {
        return Err(AssertionFault::Expired);
    }
    if expires_at > latest.plus(stated_max) {
        return Err(AssertionFault::TooLong);
    }
    Ok(until)
}

/// A `NumericDate`, or that there is none. Fractions are cut off.
fn date(claims: &JsonValue, name: &str) -> Result<Option<UnixSeconds>, AssertionFault> {
    match claims.member(name) {
        None => Ok(None),
        Some(JsonValue::Unsigned(seconds)) if *seconds <= NUMERIC_DATE_MAX => Ok(Some(UnixSeconds(*seconds))),
        Some(JsonValue::Float(seconds)) => whole_seconds(*seconds).map(Some).ok_or(AssertionFault::Date),
        Some(
            JsonValue::Null
            | JsonValue::Bool(_)
            | JsonValue::Unsigned(_)
            | JsonValue::Text(_)
            | JsonValue::List(_)
            | JsonValue::Object(_),
        ) => Err(AssertionFault::Date),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "the range is checked first, and 2^53 is exact"
)]
fn whole_seconds(seconds: f64) -> Option<UnixSeconds> {
    let in_range = seconds.is_finite() && seconds.is_sign_positive() && seconds <= NUMERIC_DATE_MAX as f64;
    in_range.then_some(UnixSeconds(seconds as u64))
}

#[cfg(test)]
pub(crate) mod tests;
