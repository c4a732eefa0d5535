//! Guards what replicas leave for each other in Redis: nobody else can write it, read it, move it or bring it back.
//!
//! *What comes in:* bytes from a server that others may be able to write to. *What goes out:* what a replica of this very
//! installation wrote under this key, not too long ago; or nothing. *What an attacker gains if this is wrong:* a client with
//! a secret of the attacker's, or a role that permits everything.
//!
//! A blob is `version (1) | salt (32) | AES-256-GCM ciphertext and tag`. Each has a key of its own, by HKDF-SHA256 of the
//! salt, so that the number of blobs is not bounded by the nonce, which is zero. The associated data is the version and the
//! entry's key. The first eight bytes sealed are the second in which it ends.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf;
use tollgate_shared::time::UnixSeconds;
use zeroize::Zeroizing;

use crate::clock::{Host, random};

/// The first byte of every blob.
const VERSION: u8 = 1;
const SALT_BYTES: usize = 32;
/// How far the clocks of replicas may differ.
const CLOCKS_SECONDS: u64 = 60;

/// What seals, shared by all replicas of an installation.
pub(super) struct CacheSeal(Zeroizing<[u8; 32]>);

impl std::fmt::Debug for CacheSeal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("CacheSeal(…)")
    }
}

impl CacheSeal {
    pub(super) fn new(secret: Zeroizing<[u8; 32]>) -> Self {
        Self(secret)
    }

    /// Seals what is good until a second, under the key it will have.
    pub(super) fn seal(
        &self,
        key: &str,
        fact: &[u8],
        until: UnixSeconds,
        host: &dyn Host,
    ) -> Option<Vec<u8>> {
        let salt = random::<SALT_BYTES>(host).ok()?;
        let mut sealed = [&until.0.to_be_bytes(), fact].concat();
        let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
        self.cipher(&salt)?.seal_in_place_append_tag(nonce, Aad::from(associated(key)), &mut sealed).ok()?;
        Some([&[VERSION], salt.as_slice(), &sealed].concat())
    }

    /// What was sealed under this key, and for how many seconds it is still good, which is `seconds_max` at most.
    pub(super) fn open(
        &self,
        key: &str,
        blob: &[u8],
        now: UnixSeconds,
        seconds_max: u64,
    ) -> Option<(Vec<u8>, u64)> {
        let (&version, rest) = blob.split_first()?;
        let (salt, sealed) = rest.split_first_chunk::<SALT_BYTES>()?;
        if version != VERSION {
            return None;
        }
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
        let cipher = self.cipher(salt)?;
        let opened = cipher.open_in_place(nonce, Aad::from(associated(key)), &mut sealed).ok()?;
        let (until, fact) = opened.split_first_chunk::<8>()?;
        let until = u64::from_be_bytes(*until);
        let left = until.checked_sub(now.0).filter(|left| *left > 0)?;
        // Written when the setting was another, or by a clock that is far ahead.
        (left <= seconds_max.saturating_add(CLOCKS_SECONDS)).then(|| (fact.to_vec(), left.min(seconds_max)))
    }

    fn cipher(&self, salt: &[u8; SALT_BYTES]) -> Option<LessSafeKey> {
        let mut key = Zeroizing::new([0; 32]);
        hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
            .extract(self.0.as_slice())
            .expand(&[b"tollgate cache entry"], hkdf::HKDF_SHA256)
            .and_then(|output| output.fill(key.as_mut_slice()))
            .ok()?;
        UnboundKey::new(&AES_256_GCM, key.as_slice()).ok().map(LessSafeKey::new)
    }
}

fn associated(key: &str) -> Vec<u8> {
    [&[VERSION], key.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemHost;

    const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

    fn seal() -> CacheSeal {
        CacheSeal::new(Zeroizing::new([7; 32]))
    }

    #[test]
    fn what_is_sealed_opens_under_its_key_until_it_ends() {
        let blob = seal().seal("k", b"fact", NOW.plus(60), &SystemHost::new()).unwrap();
        assert_eq!(seal().open("k", &blob, NOW, 60), Some((b"fact".to_vec(), 60)));
        assert_eq!(seal().open("k", &blob, NOW.plus(59), 60), Some((b"fact".to_vec(), 1)));
        assert_eq!(seal().open("k", &blob, NOW.plus(60), 60), None);
        assert_eq!(seal().open("k", &blob, NOW.minus(60), 60), Some((b"fact".to_vec(), 60)));
        assert_eq!(seal().open("k", &blob, NOW.minus(61), 60), None);
    }

    #[test]
    fn nothing_opens_that_was_moved_changed_cut_or_made_with_another_secret() {
        let blob = seal().seal("k", b"fact", NOW.plus(60), &SystemHost::new()).unwrap();
        assert_eq!(seal().open("l", &blob, NOW, 60), None);
        assert_eq!(CacheSeal::new(Zeroizing::new([8; 32])).open("k", &blob, NOW, 60), None);
        for place in 0..blob.len() {
            assert_eq!(seal().open("k", &blob[..place], NOW, 60), None);
            let mut changed = blob.clone();
            changed[place] ^= 1;
            assert_eq!(seal().open("k", &changed, NOW, 60), None, "byte {place}");
        }
    }

    #[test]
    fn two_blobs_of_the_same_share_no_bytes_that_could_be_compared() {
        let blob = || seal().seal("k", b"fact", NOW, &SystemHost::new()).unwrap();
        let (one, other) = (blob(), blob());
        assert_ne!(one[1..], other[1..]);
        assert_ne!(one[1 + SALT_BYTES..], other[1 + SALT_BYTES..]);
    }
}
