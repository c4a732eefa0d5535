//! Decides whether a password is the one of an Argon2 hash, in memory that is kept from one hash to the next.

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{ARGON2ID_IDENT, Algorithm, Argon2, Block, Params, Version};
use subtle::ConstantTimeEq;

use super::stored::{MEMORY_KIB_MAX, StoredHashError, decimals};
use super::{PasswordError, Rehash, Verdict};
use crate::config::PasswordSettings;

/// The most KiB that one hash may pass over: memory times iterations. About two seconds of one core.
pub(super) const ARGON2_WORK_KIB_MAX: u64 = 2 * 1024 * 1024;
/// The length of salts and tags that are made here, in bytes.
pub(super) const SALT_BYTES: usize = 16;
pub(super) const TAG_BYTES: usize = 32;

/// Memory for Argon2. What is kept is reused, so that the process is no larger after a thousand hashes than after one:
/// an allocator may keep what it was given back.
///
/// It is not wiped between hashes. That would cost a tenth of each hash, and what stays is worth no more than the hash in
/// the store: a guess is tested against the last pass over the memory only by computing it.
pub(super) struct HashMemory {
    kept: usize,
    blocks: Vec<Block>,
    #[cfg(test)]
    pub(super) filled: Vec<usize>,
}

impl HashMemory {
    /// Memory that keeps what a hash of this many blocks needs. It is taken with the first one.
    pub(super) fn keeping(kept: usize) -> Self {
        Self {
            kept,
            blocks: Vec::new(),
            #[cfg(test)]
            filled: Vec::new(),
        }
    }

    /// Where what is kept lies, and how many blocks of it.
    #[cfg(test)]
    pub(super) fn place(&self) -> (*const Block, usize) {
        (self.blocks.as_ptr(), self.blocks.capacity())
    }

    /// What is kept, if it is enough; otherwise memory that is given back afterwards.
    fn lend<T>(&mut self, count: usize, work: impl FnOnce(&mut [Block]) -> T) -> T {
        #[cfg(test)]
        self.filled.push(count);
        if count > self.kept {
            return work(&mut vec![Block::new(); count]);
        }
        if self.blocks.len() < self.kept {
            self.blocks = vec![Block::new(); self.kept];
        }
        work(&mut self.blocks)
    }
}

/// A hash by Argon2.
pub(super) struct Argon2Hash {
    algorithm: Algorithm,
    version: Version,
    params: Params,
    salt: Vec<u8>,
    tag: Vec<u8>,
}

impl Argon2Hash {
    /// The hash that a PHC string says, if it costs no more than is accepted.
    pub(super) fn parse(text: &str) -> Result<Self, StoredHashError> {
        let phc = PasswordHash::new(text).map_err(|_| StoredHashError::Form)?;
        let algorithm = Algorithm::new(phc.algorithm.as_str()).map_err(|_| StoredHashError::Scheme)?;
        // The reference implementation leaves out the version of the first one, and so does everybody after it.
        let version = phc.version.map_or(Ok(Version::V0x10), Version::try_from);
        let version = version.map_err(|_| StoredHashError::Parameter)?;
        let (Some(salt), Some(tag)) = (phc.salt, phc.hash) else { return Err(StoredHashError::Form) };
        let [Some(memory_kib), Some(iterations), Some(lanes)] = decimals(&phc.params, ["m", "t", "p"])?
        else {
            return Err(StoredHashError::Parameter);
        };
        let work_kib = u64::from(memory_kib) * u64::from(iterations);
        if memory_kib > MEMORY_KIB_MAX || work_kib > ARGON2_WORK_KIB_MAX {
            return Err(StoredHashError::Cost);
        }
        // A lane needs 8 KiB; said here because the crate multiplies before it compares.
        if lanes > memory_kib / 8 {
            return Err(StoredHashError::Parameter);
        }
        let params = Params::new(memory_kib, iterations, lanes, Some(tag.len()))
            .map_err(|_| StoredHashError::Parameter)?;
        Ok(Self { algorithm, version, params, salt: salt.to_vec(), tag: tag.as_bytes().to_vec() })
    }

    /// The memory it takes, in KiB.
    pub(super) fn memory_kib(&self) -> u32 {
        self.params.m_cost()
    }

    pub(super) fn check(&self, password: &[u8], memory: &mut HashMemory) -> Verdict {
        let argon2 = Argon2::new(self.algorithm, self.version, self.params.clone());
        let mut tag = vec![0; self.tag.len()];
        let computed = memory.lend(self.params.block_count(), |blocks| {
            argon2.hash_password_into_with_memory(password, &self.salt, &mut tag, blocks)
        });
        // Everything that could fail was checked when the hash was read; if it fails all the same, nobody gets in.
        Verdict::of(computed.is_ok() && bool::from(tag.ct_eq(&self.tag)))
    }
}

/// What hashes are made with now.
#[derive(Debug, Clone)]
pub(super) struct Standard(Params);

impl Standard {
    pub(super) fn new(settings: &PasswordSettings) -> Result<Self, PasswordError> {
        let PasswordSettings { memory_kib, iterations, parallelism, .. } = *settings;
        let params = Params::new(memory_kib, iterations, parallelism, Some(TAG_BYTES));
        params.map(Self).map_err(|_| PasswordError::Hash)
    }

    /// How many blocks of memory a hash takes.
    pub(super) fn block_count(&self) -> usize {
        self.0.block_count()
    }

    /// What takes as long as any hash of now, and is nobody's: its tag was never computed.
    pub(super) fn nobody(&self, salt: [u8; SALT_BYTES], tag: [u8; TAG_BYTES]) -> Argon2Hash {
        let (salt, tag) = (salt.to_vec(), tag.to_vec());
        Argon2Hash {
            algorithm: Algorithm::Argon2id,
            version: Version::V0x13,
            params: self.0.clone(),
            salt,
            tag,
        }
    }

    /// The hash of a password, as a PHC string.
    pub(super) fn hash(
        &self,
        password: &[u8],
        salt: &[u8; SALT_BYTES],
        memory: &mut HashMemory,
    ) -> Result<String, PasswordError> {
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, self.0.clone());
        let mut tag = [0; TAG_BYTES];
        memory
            .lend(self.block_count(), |blocks| {
                argon2.hash_password_into_with_memory(password, salt, &mut tag, blocks)
            })
            .map_err(|_| PasswordError::Hash)?;
        let phc = PasswordHash {
            algorithm: ARGON2ID_IDENT,
            version: Some(Version::V0x13.into()),
            params: ParamsString::try_from(&self.0).map_err(|_| PasswordError::Hash)?,
            salt: Some(Salt::new(salt).map_err(|_| PasswordError::Hash)?),
            hash: Some(Output::new(&tag).map_err(|_| PasswordError::Hash)?),
        };
        Ok(phc.to_string())
    }

    /// Whether a hash is to be made anew: it is not what would be made now, or cheaper in any respect.
    pub(super) fn rehash(&self, hash: &Argon2Hash) -> Rehash {
        let Argon2Hash { algorithm, version, params, salt, tag } = hash;
        let kept = *algorithm == Algorithm::Argon2id
            && *version == Version::V0x13
            && params.m_cost() >= self.0.m_cost()
            && params.t_cost() >= self.0.t_cost()
            && params.p_cost() >= self.0.p_cost()
            && salt.len() >= SALT_BYTES
            && tag.len() >= TAG_BYTES;
        if kept { Rehash::NotNeeded } else { Rehash::Needed }
    }

    /// Whether checking a hash takes at least as long as making one now: lanes are computed one after another, so only
    /// the memory that is passed over counts.
    pub(super) fn is_outweighed_by(&self, hash: &Argon2Hash) -> bool {
        let work = |params: &Params| u64::from(params.m_cost()) * u64::from(params.t_cost());
        work(&hash.params) >= work(&self.0)
    }
}
