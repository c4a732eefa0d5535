//! Makes access tokens: the issuer's half of what `verify` checks, and the one place where their wire form is written.

use std::fmt;

use base64ct::{Base64UrlUnpadded, Encoding};
use ed25519_dalek::ed25519::signature::Signer;
use serde::Serialize;

use super::keys::{Algorithm, Key, VerifyingKey};
use crate::id::KeyId;
use crate::time::UnixSeconds;

/// An Ed25519 private key. It is wiped when dropped and prints nothing of itself.
pub struct SigningKey {
    id: KeyId,
    secret: ed25519_dalek::SigningKey,
}

/// What signs tokens. The three answers belong together: a signature by another key or algorithm than the header names
/// makes a token that everybody refuses.
pub trait TokenSigner {
    /// The `kid`.
    fn key_id(&self) -> &KeyId;

    /// The `alg`.
    fn algorithm(&self) -> Algorithm;

    /// The signature over `message`, as JWS carries it (RFC 7518 section 3).
    ///
    /// # Errors
    /// [`IssueError::Signature`].
    fn signature(&self, message: &[u8]) -> Result<Vec<u8>, IssueError>;
}

/// The claims of an RFC 9068 access token with the status reference of the Token Status List draft.
#[derive(Debug, Clone, Serialize)]
pub struct AccessToken<'t> {
    /// `iss`
    #[serde(rename = "iss")]
    pub issuer: &'t str,
    /// `sub`
    #[serde(rename = "sub")]
    pub subject: &'t str,
    /// `aud`
    #[serde(rename = "aud")]
    pub audience: &'t str,
    /// `client_id`
    #[serde(rename = "client_id")]
    pub client: &'t str,
    /// `jti`
    #[serde(rename = "jti")]
    pub token_id: &'t str,
    /// `iat`
    #[serde(rename = "iat", serialize_with = "seconds")]
    pub issued_at: UnixSeconds,
    /// `exp`
    #[serde(rename = "exp", serialize_with = "seconds")]
    pub expires_at: UnixSeconds,
    /// `scope`, separated by spaces.
    pub scope: &'t str,
    /// `roles`
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub roles: &'t [String],
    /// `tenant`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<&'t str>,
    /// `plan`
    pub plan: &'t str,
    /// `sid`; a client that speaks for itself has none.
    #[serde(rename = "sid", skip_serializing_if = "Option::is_none")]
    pub session: Option<&'t str>,
    /// `status`
    pub status: IssuedStatus<'t>,
}

/// `status` as it is written into a token.
#[derive(Debug, Clone, Serialize)]
pub struct IssuedStatus<'t> {
    status_list: IssuedReference<'t>,
}

#[derive(Debug, Clone, Serialize)]
struct IssuedReference<'t> {
    idx: u32,
    uri: &'t str,
}

impl<'t> IssuedStatus<'t> {
    /// The bit `idx` of the list at `uri`.
    #[must_use]
    pub fn new(idx: u32, uri: &'t str) -> Self {
        Self { status_list: IssuedReference { idx, uri } }
    }
}

/// The JOSE header of what is issued.
#[derive(Serialize)]
struct IssuedHeader<'t> {
    alg: &'static str,
    kid: &'t str,
    typ: &'static str,
}

/// Why there is no token; only a defect of ours or of the machine can bring either about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// The claims have no JSON.
    #[error("claims could not be serialised")]
    Claims,
    /// The key did not sign.
    #[error("token could not be signed")]
    Signature,
}

impl AccessToken<'_> {
    /// The token in RFC 7515 compact serialisation, signed by `signer` (`typ: at+jwt`).
    ///
    /// # Errors
    /// See [`IssueError`].
    pub fn signed_by(&self, signer: &impl TokenSigner) -> Result<String, IssueError> {
        signed_jwt("at+jwt", self, signer)
    }
}

/// A JWT of this type with these claims in RFC 7515 compact serialisation, signed by `signer`.
///
/// # Errors
/// See [`IssueError`].
pub fn signed_jwt(
    typ: &'static str,
    claims: &impl Serialize,
    signer: &impl TokenSigner,
) -> Result<String, IssueError> {
    let header = IssuedHeader { alg: signer.algorithm().name(), kid: signer.key_id().as_str(), typ };
    let header = serde_json::to_vec(&header).map_err(|_| IssueError::Claims)?;
    let claims = serde_json::to_vec(claims).map_err(|_| IssueError::Claims)?;
    let mut token = Base64UrlUnpadded::encode_string(&header);
    token.push('.');
    token.push_str(&Base64UrlUnpadded::encode_string(&claims));
    let signature = signer.signature(token.as_bytes())?;
    token.push('.');
    token.push_str(&Base64UrlUnpadded::encode_string(&signature));
    Ok(token)
}

impl SigningKey {
    /// The key whose RFC 8032 seed this is. Its id is the RFC 7638 thumbprint, so the same key has the same id
    /// everywhere.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let secret = ed25519_dalek::SigningKey::from_bytes(seed);
        let id = VerifyingKey::EdDsa(secret.verifying_key()).thumbprint();
        Self { id, secret }
    }

    /// Its `kid`.
    #[must_use]
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// The 32 bytes of the public key (RFC 8032).
    #[must_use]
    pub fn public_bytes(&self) -> [u8; 32] {
        self.secret.verifying_key().to_bytes()
    }

    /// The key that verifies what this one signs.
    #[must_use]
    pub fn verifying_key(&self) -> Key {
        Key::new(self.id.clone(), VerifyingKey::EdDsa(self.secret.verifying_key()))
    }

    /// The public key as a JWK (RFC 8037) with `kid`, `use` and `alg`.
    #[must_use]
    pub fn public_jwk(&self) -> serde_json::Value {
        self.verifying_key().public_jwk()
    }

    /// Signs an access token (`typ: at+jwt`, `alg: EdDSA`).
    ///
    /// # Errors
    /// See [`IssueError`].
    pub fn issue(&self, token: AccessToken<'_>) -> Result<String, IssueError> {
        token.signed_by(self)
    }

    /// The Ed25519 signature over `message`.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.secret.sign(message).to_bytes()
    }
}

impl TokenSigner for SigningKey {
    fn key_id(&self) -> &KeyId {
        &self.id
    }

    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDsa
    }

    fn signature(&self, message: &[u8]) -> Result<Vec<u8>, IssueError> {
        Ok(self.sign(message).to_vec())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SigningKey").field("id", &self.id).finish_non_exhaustive()
    }
}

fn seconds<S: serde::Serializer>(date: &UnixSeconds, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(date.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> AccessToken<'static> {
        AccessToken {
            issuer: "https://i",
            subject: "u",
            audience: "api",
            client: "c",
            token_id: "t",
            issued_at: UnixSeconds(5),
            expires_at: UnixSeconds(65),
            scope: "read write",
            roles: &[],
            tenant: None,
            plan: "free",
            session: Some("s"),
            status: IssuedStatus::new(7, "https://i/v1/status/0"),
        }
    }

    #[test]
    fn a_token_is_byte_for_byte_what_another_library_writes_of_the_same_claims() {
        use jwt_compact::AlgorithmExt;

        let key = SigningKey::from_seed(&[7; 32]);
        let header = jwt_compact::Header::empty().with_key_id(key.id().as_str()).with_token_type("at+jwt");
        let claims = jwt_compact::Claims::new(token());
        let theirs = jwt_compact::alg::Ed25519.token(&header, &claims, &key.secret).unwrap();
        assert_eq!(key.issue(token()).unwrap(), theirs);
    }

    #[test]
    fn a_claim_that_does_not_apply_is_absent_rather_than_null() {
        let of_client = AccessToken { session: None, ..token() };
        let claims = serde_json::to_value(of_client).unwrap();
        assert_eq!(claims.get("sid"), None);
        assert_eq!(claims.get("tenant"), None);
        assert_eq!(claims.get("roles"), None);
        assert_eq!(serde_json::to_value(token()).unwrap()["sid"], "s");
    }
}
