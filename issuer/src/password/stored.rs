//! Decides what a stored hash is: one of the known schemes with every parameter in range, or an error, never a guess.
//!
//! *What comes in:* hashes that this service or another made, from the store or an import. *What goes out:* a
//! [`StoredHash`] that can be checked within a known time and memory. *What an attacker gains if this is wrong:* a hash
//! that stalls a worker, exhausts the memory, or that any password fits.

use std::fmt;
use std::str::FromStr;

use argon2::password_hash::phc::{Decimal, ParamsString, PasswordHash};
use base64ct::{Base64ShaCrypt, Base64Unpadded, Encoding};
use bcrypt::HashParts;

use super::Verdict;
use super::argon::{Argon2Hash, HashMemory};
use super::legacy::{Pbkdf2Digest, Pbkdf2Hash, ScryptHash, is_sha_crypt, verify_bcrypt, verify_sha_crypt};

/// The longest stored hash, in bytes.
pub(super) const STORED_BYTES_MAX: usize = 1024;
/// The most memory that checking one hash may take, in KiB.
pub(super) const MEMORY_KIB_MAX: u32 = 256 * 1024;
/// The most rounds of PBKDF2, over all blocks of its output. About two seconds of one core.
pub(super) const PBKDF2_ROUNDS_MAX: u32 = 2_000_000;
/// The highest cost of bcrypt. About two seconds of one core.
pub(super) const BCRYPT_COST_MAX: u32 = 15;
/// The most work of scrypt: N times r times p. About two seconds of one core.
pub(super) const SCRYPT_WORK_MAX: u64 = 1 << 22;
/// The most rounds of SHA-crypt. About half a second of one core, and five for a password of 1024 bytes, because each
/// round hashes the password too.
pub(super) const SHA_CRYPT_ROUNDS_MAX: u32 = 1_000_000;

/// The rounds of a `salt:hex` hash.
const SALTED_HEX_ROUNDS: u32 = 100_000;
/// The longest salt where no format says it, in bytes.
const SALT_BYTES_MAX: usize = 256;
/// Tags that are shorter would be hit by chance (PHC string format).
const TAG_BYTES_MIN: usize = 10;
const TAG_BYTES_MAX: usize = 64;

/// A hash that can be checked, as it was written. It prints its scheme and nothing else.
pub struct StoredHash {
    text: String,
    scheme: Scheme,
}

enum Scheme {
    Argon2(Argon2Hash),
    Pbkdf2(Pbkdf2Hash),
    Bcrypt,
    Scrypt(ScryptHash),
    ShaCrypt,
}

/// Why a text is not a stored hash. It never repeats the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoredHashError {
    /// It is too long.
    #[error("is longer than {STORED_BYTES_MAX} bytes")]
    Length,
    /// It is of no scheme that is known.
    #[error("is of no known scheme")]
    Scheme,
    /// It is not written as its scheme says.
    #[error("is not written as its scheme says")]
    Form,
    /// A parameter is missing, unknown, there twice or out of its scheme's range.
    #[error("has a wrong or missing parameter")]
    Parameter,
    /// Checking it would take too much time or memory.
    #[error("costs more to check than is accepted")]
    Cost,
}

impl StoredHash {
    /// Reads a hash:
    ///
    /// - `$argon2id$`, `$argon2i$`, `$argon2d$` (PHC),
    /// - `$pbkdf2-sha256$`, `$pbkdf2-sha512$`, `$pbkdf2$` (SHA-1), with `i=` (PHC) or bare rounds (passlib),
    /// - `salt:hex`: PBKDF2 with HMAC-SHA-256, 100 000 rounds and 32 bytes; the salt is the text before the last colon,
    ///   as it stands,
    /// - `$2a$`, `$2b$`, `$2y$` (bcrypt; of a password, it knows the first 72 bytes),
    /// - `$scrypt$ln=…,r=…,p=…` (PHC),
    /// - `$5$`, `$6$` (SHA-crypt), with and without `rounds=`.
    ///
    /// # Errors
    /// [`StoredHashError`].
    pub fn parse(text: &str) -> Result<Self, StoredHashError> {
        if text.len() > STORED_BYTES_MAX {
            return Err(StoredHashError::Length);
        }
        let scheme = match text.rsplit_once(':') {
            Some((salt, digest)) => Scheme::Pbkdf2(salted_hex(salt, digest)?),
            None => scheme_of(text)?,
        };
        Ok(Self { text: text.to_owned(), scheme })
    }

    /// The hash as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What the scheme is called.
    #[must_use]
    pub fn scheme_name(&self) -> &'static str {
        match self.scheme {
            Scheme::Argon2(_) => "argon2",
            Scheme::Pbkdf2(_) => "pbkdf2",
            Scheme::Bcrypt => "bcrypt",
            Scheme::Scrypt(_) => "scrypt",
            Scheme::ShaCrypt => "sha-crypt",
        }
    }

    /// Whether the password is the one that was hashed.
    pub(super) fn check(&self, password: &[u8], memory: &mut HashMemory) -> Verdict {
        match &self.scheme {
            Scheme::Argon2(hash) => hash.check(password, memory),
            Scheme::Pbkdf2(hash) => hash.check(password),
            Scheme::Bcrypt => verify_bcrypt(&self.text, password),
            Scheme::Scrypt(hash) => hash.check(password),
            Scheme::ShaCrypt => verify_sha_crypt(&self.text, password),
        }
    }

    /// The Argon2 hash, if it is one.
    pub(super) fn as_argon2(&self) -> Option<&Argon2Hash> {
        match &self.scheme {
            Scheme::Argon2(hash) => Some(hash),
            Scheme::Pbkdf2(_) | Scheme::Bcrypt | Scheme::Scrypt(_) | Scheme::ShaCrypt => None,
        }
    }

    /// How much memory it takes beside what a worker keeps, in KiB.
    pub(super) fn extra_kib(&self, kept_kib: u32) -> u32 {
        match &self.scheme {
            Scheme::Argon2(hash) => Some(hash.memory_kib()).filter(|kib| *kib > kept_kib).unwrap_or(0),
            Scheme::Scrypt(hash) => hash.memory_kib(),
            Scheme::Pbkdf2(_) | Scheme::Bcrypt | Scheme::ShaCrypt => 0,
        }
    }
}

impl FromStr for StoredHash {
    type Err = StoredHashError;

    fn from_str(text: &str) -> Result<Self, StoredHashError> {
        Self::parse(text)
    }
}

impl fmt::Debug for StoredHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "StoredHash({})", self.scheme_name())
    }
}

fn scheme_of(text: &str) -> Result<Scheme, StoredHashError> {
    let id = text.strip_prefix('$').and_then(|rest| rest.split('$').next());
    match id.ok_or(StoredHashError::Scheme)? {
        "argon2id" | "argon2i" | "argon2d" => Argon2Hash::parse(text).map(Scheme::Argon2),
        "pbkdf2-sha256" => pbkdf2(text, Pbkdf2Digest::Sha256),
        "pbkdf2-sha512" => pbkdf2(text, Pbkdf2Digest::Sha512),
        "pbkdf2" => pbkdf2(text, Pbkdf2Digest::Sha1),
        "2a" | "2b" | "2y" => bcrypt(text),
        "scrypt" => scrypt(text),
        "5" => sha_crypt(text, 43),
        "6" => sha_crypt(text, 86),
        _ => Err(StoredHashError::Scheme),
    }
}

/// The values of the named parameters; one that is not named, or is there twice, is an error.
pub(super) fn decimals<const N: usize>(
    params: &ParamsString,
    names: [&str; N],
) -> Result<[Option<Decimal>; N], StoredHashError> {
    let mut values = [None; N];
    for (name, value) in params.iter() {
        let place = names.iter().zip(values.iter_mut()).find(|(known, _)| **known == name.as_str());
        let Some((_, place @ None)) = place else { return Err(StoredHashError::Parameter) };
        *place = Some(value.decimal().map_err(|_| StoredHashError::Parameter)?);
    }
    Ok(values)
}

fn pbkdf2(text: &str, digest: Pbkdf2Digest) -> Result<Scheme, StoredHashError> {
    let mut fields = text.split('$').skip(2);
    let first = fields.next().unwrap_or_default();
    let (rounds, salt, tag) = if first.contains('=') {
        let phc = PasswordHash::new(text).map_err(|_| StoredHashError::Form)?;
        let (Some(salt), Some(tag), None) = (phc.salt, phc.hash, phc.version) else {
            return Err(StoredHashError::Form);
        };
        let [Some(rounds), length] = decimals(&phc.params, ["i", "l"])? else {
            return Err(StoredHashError::Parameter);
        };
        if length.is_some_and(|length| usize::try_from(length) != Ok(tag.len())) {
            return Err(StoredHashError::Parameter);
        }
        (rounds, salt.to_vec(), tag.as_bytes().to_vec())
    } else {
        let (Some(salt), Some(tag), None) = (fields.next(), fields.next(), fields.next()) else {
            return Err(StoredHashError::Form);
        };
        // passlib writes a point for a plus.
        let decode = |text: &str| Base64Unpadded::decode_vec(&text.replace('.', "+"));
        let salt = decode(salt).map_err(|_| StoredHashError::Form)?;
        (number(first)?, salt, decode(tag).map_err(|_| StoredHashError::Form)?)
    };
    checked_pbkdf2(Pbkdf2Hash { digest, rounds, salt, tag }).map(Scheme::Pbkdf2)
}

fn salted_hex(salt: &str, digest: &str) -> Result<Pbkdf2Hash, StoredHashError> {
    if digest.len() != 64 || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(StoredHashError::Form);
    }
    let (pairs, _) = digest.as_bytes().as_chunks::<2>();
    let byte = |pair: &[u8; 2]| {
        let digits = std::str::from_utf8(pair).map_err(|_| StoredHashError::Form)?;
        u8::from_str_radix(digits, 16).map_err(|_| StoredHashError::Form)
    };
    let tag = pairs.iter().map(byte).collect::<Result<Vec<u8>, _>>()?;
    let salt = salt.as_bytes().to_vec();
    checked_pbkdf2(Pbkdf2Hash { digest: Pbkdf2Digest::Sha256, rounds: SALTED_HEX_ROUNDS, salt, tag })
}

fn checked_pbkdf2(hash: Pbkdf2Hash) -> Result<Pbkdf2Hash, StoredHashError> {
    let Pbkdf2Hash { digest, rounds, salt, tag } = &hash;
    if !(1..=SALT_BYTES_MAX).contains(&salt.len()) || !(TAG_BYTES_MIN..=TAG_BYTES_MAX).contains(&tag.len()) {
        return Err(StoredHashError::Form);
    }
    if *rounds == 0 {
        return Err(StoredHashError::Parameter);
    }
    let blocks = u32::try_from(tag.len().div_ceil(digest.bytes())).unwrap_or(u32::MAX);
    if rounds.checked_mul(blocks).is_none_or(|rounds| rounds > PBKDF2_ROUNDS_MAX) {
        return Err(StoredHashError::Cost);
    }
    Ok(hash)
}

fn bcrypt(text: &str) -> Result<Scheme, StoredHashError> {
    let parts = HashParts::from_str(text).map_err(|_| StoredHashError::Form)?;
    // The crate takes a sign for a digit.
    if !text.bytes().skip(4).take(2).all(|byte| byte.is_ascii_digit()) {
        return Err(StoredHashError::Form);
    }
    match parts.get_cost() {
        0..4 | 32.. => Err(StoredHashError::Parameter),
        4..=BCRYPT_COST_MAX => Ok(Scheme::Bcrypt),
        _ => Err(StoredHashError::Cost),
    }
}

fn scrypt(text: &str) -> Result<Scheme, StoredHashError> {
    let phc = PasswordHash::new(text).map_err(|_| StoredHashError::Form)?;
    let (Some(salt), Some(tag), None) = (phc.salt, phc.hash, phc.version) else {
        return Err(StoredHashError::Form);
    };
    let [Some(log_n), Some(r), Some(p)] = decimals(&phc.params, ["ln", "r", "p"])? else {
        return Err(StoredHashError::Parameter);
    };
    if !(1..64).contains(&log_n) || r == 0 || p == 0 {
        return Err(StoredHashError::Parameter);
    }
    // Before the crate sees the numbers: it multiplies some of them in 32 bits.
    let n = 1_u64 << log_n;
    let memory_kib = (n.saturating_add(u64::from(p))).saturating_mul(u64::from(r)).div_ceil(8);
    let work = n.saturating_mul(u64::from(r)).saturating_mul(u64::from(p));
    let memory_kib = u32::try_from(memory_kib).ok().filter(|kib| *kib <= MEMORY_KIB_MAX);
    let (Some(memory_kib), true) = (memory_kib, work <= SCRYPT_WORK_MAX) else {
        return Err(StoredHashError::Cost);
    };
    let log_n = u8::try_from(log_n).map_err(|_| StoredHashError::Parameter)?;
    let params = scrypt::Params::new(log_n, r, p).map_err(|_| StoredHashError::Parameter)?;
    Ok(Scheme::Scrypt(ScryptHash { params, memory_kib, salt: salt.to_vec(), tag: tag.as_bytes().to_vec() }))
}

fn sha_crypt(text: &str, tag_characters: usize) -> Result<Scheme, StoredHashError> {
    let mut fields = text.split('$').skip(2).peekable();
    if let Some(rounds) = fields.next_if(|field| field.starts_with("rounds=")) {
        match number(rounds.strip_prefix("rounds=").unwrap_or_default())? {
            0..1000 => return Err(StoredHashError::Parameter),
            1000..=SHA_CRYPT_ROUNDS_MAX => {}
            _ => return Err(StoredHashError::Cost),
        }
    }
    let (Some(salt), Some(tag), None) = (fields.next(), fields.next(), fields.next()) else {
        return Err(StoredHashError::Form);
    };
    // The scheme uses 16 characters of a salt; its tools never write more.
    let fits = (1..=16).contains(&salt.len()) && tag.len() == tag_characters;
    if fits && Base64ShaCrypt::decode_vec(tag).is_ok() && is_sha_crypt(text) {
        Ok(Scheme::ShaCrypt)
    } else {
        Err(StoredHashError::Form)
    }
}

/// A number as the schemes write it: digits, none of them a leading zero.
fn number(text: &str) -> Result<u32, StoredHashError> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !(text.len() > 1 && text.starts_with('0'));
    if !plain || text.is_empty() {
        return Err(StoredHashError::Parameter);
    }
    // Longer than 32 bits can say is too much of anything.
    text.parse().map_err(|_| StoredHashError::Cost)
}

#[cfg(test)]
mod tests;
