//! Verifies ES256 and RS256 by Envoy's own `verify_signature`, several times faster than in wasm, and in Rust where the
//! host lacks it. Ed25519, which the host does not know, is always verified in Rust. The verdicts are the same.

use std::cell::Cell;

use tollgate_shared::token::{RustCrypto, SignatureBackend, VerifyingKey, es256_signature_der};

use super::host::{self, HostStatus};

/// The signature backend of a VM in Envoy.
#[derive(Debug, Default)]
pub(super) struct HostCrypto {
    /// Whether the host said that it has no such function; it is not asked twice.
    missing: Cell<bool>,
}

impl SignatureBackend for HostCrypto {
    fn verify(&self, key: &VerifyingKey, message: &[u8], signature: &[u8]) -> bool {
        let by_host = match key {
            VerifyingKey::EdDsa(_) => None,
            VerifyingKey::Es256 { spki, .. } => match es256_signature_der(signature) {
                Some(der) => self.ask(spki, message, &der),
                None => Some(false),
            },
            VerifyingKey::Rs256 { spki, .. } => self.ask(spki, message, signature),
        };
        by_host.unwrap_or_else(|| RustCrypto.verify(key, message, signature))
    }
}

impl HostCrypto {
    /// The host's verdict; `None` when it has none.
    fn ask(&self, spki: &[u8], message: &[u8], signature: &[u8]) -> Option<bool> {
        if self.missing.get() {
            return None;
        }
        let argument = encode(spki, message, signature);
        match host::call_foreign_function("verify_signature", &argument) {
            Ok(answer) => Some(is_valid(&answer)),
            Err(status) => {
                self.missing.set(status == HostStatus::NOT_FOUND);
                None
            }
        }
    }
}

/// Envoy's `VerifySignatureArguments`: 1 `hash_function`, 2 `public_key`, 3 `signature`, 4 `text`, all length-delimited.
fn encode(spki: &[u8], message: &[u8], signature: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(spki.len() + message.len() + signature.len() + 32);
    for (field, value) in [(1u8, b"sha256".as_slice()), (2, spki), (3, signature), (4, message)] {
        bytes.push(field << 3 | 2);
        let mut length = value.len();
        while length >= 0x80 {
            bytes.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        bytes.push(length as u8);
        bytes.extend(value);
    }
    bytes
}

/// Whether a `VerifySignatureResult` starts with field 1 (`result`) set. A false one is left out by protobuf, and a
/// result with an error has no field 1 either.
fn is_valid(answer: &[u8]) -> bool {
    answer.starts_with(&[0x08, 0x01])
}
