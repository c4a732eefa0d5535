//! Decides which passwords are too easy to guess to be set: the most common ones, and what is known of the user.
//!
//! Only on setting: a login with such a password is answered like any other, or the list would say which are right.

use std::iter::once;

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// The first 8 bytes of the SHA-256 of each common password, sorted. A password that is not among the 10 000 is taken for
/// one of them with a chance of 10 000 in 2^64, about 2^-50.
const COMMON: &[u8] = include_bytes!("common.bin");
/// Context words with fewer characters are ignored: they are in too many good passwords.
const WORD_CHARACTERS_MIN: usize = 4;
/// The service's own name.
const SERVICE: &str = "tollgate";

/// What an attacker knows of a user before the first guess.
#[derive(Debug, Clone, Copy)]
pub struct PasswordContext<'c> {
    /// By what the user logs in.
    pub username: &'c str,
    /// The issuer's URL, for the name of its host.
    pub issuer: &'c str,
}

impl PasswordContext<'_> {
    /// Whether a folded password contains the username, the issuer's host, a label of it, or the service's name.
    pub(super) fn is_contained(&self, folded: &str) -> bool {
        let mailbox = self.username.split_once('@').map_or(self.username, |(name, _)| name);
        let host = host_of(self.issuer);
        // The last label says only which country or kind; of an address, none says anything.
        let labels = host.rsplit('.').skip(1);
        once(SERVICE).chain([self.username, mailbox, host]).chain(labels).any(|word| {
            word.chars().count() >= WORD_CHARACTERS_MIN && folded.contains(folded_word(word).as_str())
        })
    }
}

/// Whether a folded password is one of the most common.
pub(super) fn is_common(folded: &str) -> bool {
    let (digests, _) = COMMON.as_chunks::<8>();
    digests.binary_search(&digest(folded)).is_ok()
}

/// A password without the difference between capitals and small letters.
pub(super) fn folded(password: &str) -> Zeroizing<String> {
    // Room for all of it, so that no shorter copy is left behind: a small letter has at most three characters.
    let mut folded = Zeroizing::new(String::with_capacity(3 * password.len()));
    folded.extend(password.chars().flat_map(char::to_lowercase));
    folded
}

fn folded_word(word: &str) -> String {
    word.chars().flat_map(char::to_lowercase).collect()
}

fn digest(folded: &str) -> [u8; 8] {
    let whole: [u8; 32] = Sha256::digest(folded).into();
    let [a, b, c, d, e, f, g, h, ..] = whole;
    [a, b, c, d, e, f, g, h]
}

fn host_of(issuer: &str) -> &str {
    let rest = issuer.split_once("://").map_or(issuer, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or(rest);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    // An IPv6 address is in brackets and has colons of its own.
    match host.strip_prefix('[') {
        Some(address) => address.split(']').next().unwrap_or(address),
        None => host.split(':').next().unwrap_or(host),
    }
}

#[cfg(test)]
mod tests;
