//! Makes access tokens: the issuer's half of what `verify` checks.

use std::fmt;

use base64ct::{Base64UrlUnpadded, Encoding};
use ed25519_dalek::ed25519::signature::Signer;
use jwt_compact::alg::Ed25519;
use jwt_compact::jwk::JsonWebKey;
use jwt_compact::{AlgorithmExt, Header};
use serde::Serialize;
use sha2::Sha256;

use super::keys::{Key, VerifyingKey};
use crate::id::KeyId;
use crate::time::UnixSeconds;

/// An Ed25519 private key. It is wiped when dropped and prints nothing of itself.
pub struct SigningKey {
    id: KeyId,
    secret: ed25519_dalek::SigningKey,
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
    /// `sid`
    #[serde(rename = "sid")]
    pub session: &'t str,
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

/// Serialising the claims failed, which only a defect of ours can bring about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("claims could not be serialised")]
pub struct IssueError;

impl SigningKey {
    /// The key whose RFC 8032 seed this is. Its id is the RFC 7638 thumbprint, so the same key has the same id
    /// everywhere.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let secret = ed25519_dalek::SigningKey::from_bytes(seed);
        let thumbprint = JsonWebKey::from(&secret.verifying_key()).thumbprint::<Sha256>();
        Self { id: KeyId::of_digest(&thumbprint.into()), secret }
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
        serde_json::json!({
            "kty": "OKP",
            "crv": "Ed25519",
            "x": Base64UrlUnpadded::encode_string(&self.public_bytes()),
            "kid": self.id.as_str(),
            "use": "sig",
            "alg": "EdDSA",
        })
    }

    /// Signs an access token (`typ: at+jwt`, `alg: EdDSA`).
    ///
    /// # Errors
    /// [`IssueError`] when the claims cannot be serialised.
    pub fn issue(&self, token: AccessToken<'_>) -> Result<String, IssueError> {
        let header = Header::empty().with_key_id(self.id.as_str()).with_token_type("at+jwt");
        Ed25519.token(&header, &jwt_compact::Claims::new(token), &self.secret).map_err(|_| IssueError)
    }

    /// The Ed25519 signature over `message`.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.secret.sign(message).to_bytes()
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
