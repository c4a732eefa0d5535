//! Decides what the text of a refresh token is, and what its child is: the same one however often it is asked for.
//!
//! *What comes in:* a string chosen by anyone. *What goes out:* a slot to look in and a digest to look for. *What an
//! attacker gains if this is wrong:* a session.
//!
//! A token is `tgr_<slot>_<secret>`: two hex digits that tell which database to ask, and 256 bits that tell nothing. The
//! child's secret is a keyed digest of the parent's and of a nonce that is kept with the parent. So a client that lost our
//! answer gets the same child again, though nothing is kept of it but a digest; and who knows a parent cannot compute its
//! child, nor can who has the database.

use std::fmt;

use base64ct::{Base64UrlUnpadded, Encoding};
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::clock::{EntropyError, Host, random};

/// How a refresh token begins.
pub(crate) const PREFIX: &str = "tgr_";
const SECRET_CHARS: usize = 43;

/// A refresh token. It is wiped when dropped and prints nothing of itself.
pub struct RefreshToken {
    slot: u8,
    secret: Zeroizing<[u8; 32]>,
}

impl RefreshToken {
    /// A new one, for a user in this slot.
    ///
    /// # Errors
    /// [`EntropyError`] when there are no random bytes.
    pub fn generate(slot: u8, host: &dyn Host) -> Result<Self, EntropyError> {
        Ok(Self { slot, secret: Zeroizing::new(random::<32>(host)?) })
    }

    /// Reads a token; `None` when it has not the shape of one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (slot, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if slot.len() != 2 || !slot.bytes().all(lower_hex) || secret.len() != SECRET_CHARS {
            return None;
        }
        let mut bytes = Zeroizing::new([0; 32]);
        let decoded = Base64UrlUnpadded::decode(secret, bytes.as_mut_slice()).ok()?;
        (decoded.len() == 32).then_some(())?;
        Some(Self { slot: u8::from_str_radix(slot, 16).ok()?, secret: bytes })
    }

    /// Where its user is.
    #[must_use]
    pub fn slot(&self) -> u8 {
        self.slot
    }

    /// What is kept of it.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.secret.as_slice()).into()
    }

    /// The child of this token: of a nonce that is kept with it, under a key that is not in the same place.
    #[must_use]
    pub fn child(&self, key: &[u8; 32], nonce: &[u8; 16]) -> Option<Self> {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
        mac.update(self.secret.as_slice());
        mac.update(nonce);
        Some(Self { slot: self.slot, secret: Zeroizing::new(mac.finalize().into_bytes().into()) })
    }

    /// The token itself, for the client.
    #[must_use]
    pub fn reveal(&self) -> Zeroizing<String> {
        let secret = Zeroizing::new(Base64UrlUnpadded::encode_string(self.secret.as_slice()));
        Zeroizing::new(format!("{PREFIX}{:02x}_{}", self.slot, secret.as_str()))
    }
}

impl fmt::Debug for RefreshToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("RefreshToken(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemHost;

    #[test]
    fn a_token_is_read_as_it_was_written() {
        let token = RefreshToken::generate(0xa7, &SystemHost::new()).unwrap();
        let text = token.reveal();
        let read = RefreshToken::parse(&text).unwrap();
        assert_eq!((read.slot(), read.digest()), (0xa7, token.digest()));
        assert!(!format!("{token:?}").contains(&text[8..]));
    }

    #[test]
    fn what_has_another_shape_is_no_token() {
        let text = RefreshToken::generate(7, &SystemHost::new()).unwrap().reveal().to_string();
        let wrong = [
            String::new(),
            text.replacen("tgr_07", "tgr_7", 1),
            text.replacen("tgr_07", "tgr_0G", 1),
            text.replacen("tgr_07", "tgr_+7", 1),
            text.replacen("tgr_", "tgo_", 1),
            text[..text.len() - 1].to_owned(),
            format!("{text}A"),
            format!("{}=", &text[..text.len() - 1]),
            format!("{}é", &text[..text.len() - 2]),
        ];
        for text in wrong {
            assert!(RefreshToken::parse(&text).is_none(), "{text}");
        }
    }

    #[test]
    fn the_child_is_the_same_for_the_same_key_and_nonce_only() {
        let token = RefreshToken::generate(7, &SystemHost::new()).unwrap();
        let child = token.child(&[1; 32], &[2; 16]).unwrap().digest();
        assert_eq!(token.child(&[1; 32], &[2; 16]).unwrap().digest(), child);
        assert_ne!(token.child(&[9; 32], &[2; 16]).unwrap().digest(), child);
        assert_ne!(token.child(&[1; 32], &[9; 16]).unwrap().digest(), child);
        assert_ne!(token.digest(), child);
    }
}
