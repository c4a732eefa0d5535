//! Decides what a bearer token proves: `UntrustedToken` (well-formed bytes) → `SignedToken` (a key of that issuer
//! made it) → `LiveToken` (it is an access token, for us, and in its time).
//!
//! *What comes in:* up to [`TOKEN_BYTES_MAX`] bytes chosen by anyone. *What goes out:* a type that only the next check
//! can make, so none can be forgotten. *What an attacker gains if this is wrong:* every identity there is.
//!
//! The profile is RFC 9068 over RFC 7515 and RFC 8725. jwt-compact supplies algorithms, keys and thumbprints;
//! writing is ours so that any key can sign the one form, and decoding because the strictness (duplicate members, zero trailing bits, one pass over bounded
//! input) has to be decided before any of it is trusted.

mod claims;
mod header;
mod issue;
mod json;
mod jwk;
mod keys;
mod verify;

pub use claims::{ClaimError, Claims, StatusReference, TokenRules};
pub use header::{Header, TokenType};
pub use issue::{AccessToken, IssueError, IssuedStatus, SigningKey, TokenSigner, signed_jwt};
pub use json::{JsonError, JsonValue};
pub use keys::{
    Algorithm, IgnoredKey, KEYS_MAX, Key, KeyFault, KeyFingerprint, KeySet, KeySetError, VerifyingKey,
};
pub use verify::{
    LiveToken, ParseError, RustCrypto, SignatureBackend, SignedToken, TOKEN_BYTES_MAX, UntrustedToken,
    VerifyError, es256_signature_der,
};
