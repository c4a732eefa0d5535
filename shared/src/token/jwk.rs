//! Decides how a key of ours is published, and what it is called: one JWK (RFC 7517) with `kid`, `use` and `alg`.

use base64ct::{Base64UrlUnpadded, Encoding};
use jwt_compact::jwk::JsonWebKey;
use rsa::traits::PublicKeyParts;
use serde_json::json;
use sha2::Sha256;

use super::keys::{Key, VerifyingKey};
use crate::id::KeyId;

impl VerifyingKey {
    /// The key's id by RFC 7638: the same key has the same id everywhere.
    #[must_use]
    pub fn thumbprint(&self) -> KeyId {
        let jwk = match self {
            Self::EdDsa(key) => JsonWebKey::from(key),
            Self::Es256 { key, .. } => JsonWebKey::from(key),
            Self::Rs256 { key, .. } => JsonWebKey::from(&**key),
        };
        KeyId::of_digest(&jwk.thumbprint::<Sha256>().into())
    }

    /// The public key as a JWK (RFC 7518 section 6, RFC 8037) that is known by `id`.
    #[must_use]
    pub fn public_jwk(&self, id: &KeyId) -> serde_json::Value {
        let text = |bytes: &[u8]| Base64UrlUnpadded::encode_string(bytes);
        let alg = self.algorithm().name();
        let kid = id.as_str();
        match self {
            Self::EdDsa(key) => json!({
                "kty": "OKP", "crv": "Ed25519", "x": text(key.as_bytes()),
                "kid": kid, "use": "sig", "alg": alg,
            }),
            Self::Es256 { key, .. } => {
                let point = key.to_encoded_point(false);
                // An uncompressed point of this type is never the identity, so it has both.
                let [x, y] = [point.x(), point.y()].map(|coordinate| coordinate.map(|bytes| text(bytes)));
                json!({
                    "kty": "EC", "crv": "P-256", "x": x, "y": y,
                    "kid": kid, "use": "sig", "alg": alg,
                })
            }
            Self::Rs256 { key, .. } => json!({
                "kty": "RSA", "n": text(&key.n().to_bytes_be()), "e": text(&key.e().to_bytes_be()),
                "kid": kid, "use": "sig", "alg": alg,
            }),
        }
    }
}

impl Key {
    /// The key, known by its thumbprint.
    #[must_use]
    pub fn of(verifying: VerifyingKey) -> Self {
        Self::new(verifying.thumbprint(), verifying)
    }

    /// The JWK under which it is published.
    #[must_use]
    pub fn public_jwk(&self) -> serde_json::Value {
        self.verifying().public_jwk(self.id())
    }
}
