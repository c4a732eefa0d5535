//! Decides whether a text is an API key, and makes new ones.
//!
//! *What comes in:* text chosen by anyone. *What goes out:* a public id to look up and a digest to compare; or nothing, and
//! then nobody needs to be asked. *What an attacker gains if this is wrong:* what the key's owner may do.
//!
//! A key is `tg_<id>_<secret>_<checksum>` in base62. The secret is 190 bits at random, so one SHA-256 is as good as a slow
//! hash. The checksum is the CRC-32 of everything before it. It proves nothing, as anybody can compute it: it tells a typing
//! error or a key that was cut off from a key, without a look-up, and lets a scanner of source code be sure of what it found.

use std::fmt;

use crc::{CRC_32_ISO_HDLC, Crc};
use zeroize::Zeroizing;

use crate::clock::{EntropyError, Host};
use crate::credential::{BASE62, ID_CHARS, SECRET_CHARS, SecretDigest, base62};

/// The most keys that one owner has at a time, those that are over not counted.
pub const API_KEYS_MAX: u32 = 50;
/// The longest that a key with an end may last, in seconds: ten years.
pub const LIFE_SECONDS_MAX: u64 = 3_652 * 86_400;
/// How a key begins.
pub(crate) const PREFIX: &str = "tg_";
/// Six digits of base62 hold every CRC-32.
const CHECKSUM_CHARS: usize = 6;
static CHECKSUM: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// Whose a key is: what it may do, its tenant and its plan follow from that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiKeyOwner {
    /// A user, by id.
    User(String),
    /// An OAuth client, by id.
    Client(String),
}

impl ApiKeyOwner {
    /// Which kind of owner it is, in the database.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::User(_) => "user",
            Self::Client(_) => "client",
        }
    }

    /// The owner's id.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::User(id) | Self::Client(id) => id,
        }
    }

    /// The owner of this kind and id; `None` when there is no such kind.
    #[must_use]
    pub fn of(kind: &str, id: String) -> Option<Self> {
        match kind {
            "user" => Some(Self::User(id)),
            "client" => Some(Self::Client(id)),
            _ => None,
        }
    }
}

/// A key as it was presented: well-formed, and nothing more.
#[derive(Debug, Clone)]
pub struct PresentedApiKey {
    /// By what it is looked up.
    pub id: String,
    /// What is compared.
    pub digest: SecretDigest,
}

impl PresentedApiKey {
    /// Reads a key; `None` when it has not the shape of one, or its checksum is of another.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (body, sum) = text.rsplit_once('_')?;
        let (id, secret) = body.strip_prefix(PREFIX)?.split_once('_')?;
        let is_key = is_id(id) && is_base62(secret, SECRET_CHARS) && checksum(body) == sum;
        is_key.then(|| Self { id: id.to_owned(), digest: SecretDigest::of(secret.as_bytes()) })
    }
}

/// A key that was just made. Its text is shown once and then gone.
pub struct NewApiKey {
    /// By what it is looked up.
    pub id: String,
    /// What is kept.
    pub digest: SecretDigest,
    text: Zeroizing<String>,
}

impl NewApiKey {
    /// A new key.
    ///
    /// # Errors
    /// [`EntropyError`] when there are no random bytes.
    pub fn generate(host: &dyn Host) -> Result<Self, EntropyError> {
        let id = base62::<ID_CHARS>(host)?;
        let secret = base62::<SECRET_CHARS>(host)?;
        let body = Zeroizing::new([PREFIX, &id, "_", &secret].concat());
        let text = Zeroizing::new([body.as_str(), "_", &checksum(&body)].concat());
        Ok(Self { id: String::clone(&id), digest: SecretDigest::of(secret.as_bytes()), text })
    }

    /// The key itself, for the one who is to use it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for NewApiKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("NewApiKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Whether this can be the public id of a key.
#[must_use]
pub fn is_id(text: &str) -> bool {
    is_base62(text, ID_CHARS)
}

fn is_base62(text: &str, chars: usize) -> bool {
    text.len() == chars && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// The checksum of a key without it: most significant digit first.
fn checksum(body: &str) -> String {
    let mut rest = CHECKSUM.checksum(body.as_bytes());
    let mut digits = [b'0'; CHECKSUM_CHARS];
    for digit in digits.iter_mut().rev() {
        // What is left of a division by 62 is a digit.
        *digit = usize::try_from(rest % 62).ok().and_then(|rest| BASE62.get(rest)).copied().unwrap_or(b'0');
        rest /= 62;
    }
    digits.into_iter().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use base64ct::{Base64UrlUnpadded, Encoding as _};
    use proptest::prelude::*;

    use super::*;
    use crate::clock::SystemHost;

    /// The checksums and the digest were computed by Python's `zlib` and `hashlib`.
    const KNOWN: [&str; 3] = [
        "tg_AbCd0123_0123456789ABCDEFGHIJKLMNOPQRSTUV_3qpz6l",
        "tg_00000000_00000000000000000000000000000000_0pJ2WP",
        "tg_zzzzzzzz_zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz_1gZ6Lp",
    ];

    #[test]
    fn known_keys_are_read_as_another_implementation_writes_them() {
        for key in KNOWN {
            assert_eq!(PresentedApiKey::parse(key).unwrap().id, key[3..11]);
        }
        let digest = PresentedApiKey::parse(KNOWN[0]).unwrap().digest;
        assert_eq!(
            Base64UrlUnpadded::encode_string(digest.as_bytes()),
            "Qbppa8KCKST3y6DOIRv93-ZTzrPJgSVaF3W-vxEL9C0"
        );
        // The check value of the catalogue of CRCs.
        assert_eq!(CHECKSUM.checksum(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn a_new_key_is_read_back_and_is_not_printed() {
        let key = NewApiKey::generate(&SystemHost::new()).unwrap();
        let presented = PresentedApiKey::parse(key.reveal()).unwrap();
        assert_eq!(presented.id, key.id);
        assert!(presented.digest.matches(&key.digest));
        let secret = key.reveal().split('_').nth(2).unwrap();
        assert_eq!(secret.len(), SECRET_CHARS);
        assert!(!format!("{key:?}{presented:?}").contains(secret));
        assert_ne!(NewApiKey::generate(&SystemHost::new()).unwrap().reveal(), key.reveal());
    }

    #[test]
    fn what_is_not_whole_is_refused() {
        let [key, ..] = KNOWN;
        for end in 0..key.len() {
            assert!(PresentedApiKey::parse(&key[..end]).is_none(), "{end}");
        }
        for text in [
            "",
            "_",
            "tg___",
            &format!("{key}_"),
            &format!(" {key}"),
            &format!("{key}\n"),
            &key.replacen("tg_", "tgo_", 1),
            &key.replacen('_', "", 1),
            "tg_AbCd0123_é123456789ABCDEFGHIJKLMNOPQRSTU_000000",
        ] {
            assert!(PresentedApiKey::parse(text).is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn each_change_of_one_character_is_refused(place in 0_usize..51, other in "[0-9A-Za-z_.é]") {
            let key = NewApiKey::generate(&SystemHost::new()).unwrap();
            let mut changed: Vec<String> = key.reveal().chars().map(String::from).collect();
            prop_assert_eq!(changed.len(), 51);
            prop_assume!(changed[place] != other);
            changed[place] = other;
            prop_assert!(PresentedApiKey::parse(&changed.concat()).is_none());
        }

        #[test]
        fn nothing_panics(text in "\\PC{0,80}") {
            let _ = PresentedApiKey::parse(&text);
        }
    }
}
