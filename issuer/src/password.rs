//! Decides whether a password is right, at a cost that no caller can choose.
//!
//! *What comes in:* up to 1024 bytes chosen by anyone. *What goes out:* yes or no, after the same work whoever is named.
//! *What an attacker gains if this is wrong:* accounts, a list of who has one, or the machine's memory.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use serde::{Deserialize, Deserializer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

use crate::clock::{EntropyError, Host, random};
use crate::config::PasswordSettings;
use crate::metrics::Metrics;

/// Shorter passwords are refused (NIST SP 800-63B), in bytes.
pub const PASSWORD_BYTES_MIN: usize = 8;
/// Longer ones are refused before anything is done with them, in bytes.
pub const PASSWORD_BYTES_MAX: usize = 1024;

/// A password. It is wiped when dropped and prints nothing of itself.
pub struct Password(Zeroizing<String>);

/// The password is too short or too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("password: must be {PASSWORD_BYTES_MIN} to {PASSWORD_BYTES_MAX} bytes long")]
pub struct PasswordLength;

impl Password {
    /// The password that was typed as `text`, in normalisation form C: how an accent was typed makes no difference.
    ///
    /// # Errors
    /// [`PasswordLength`].
    pub fn new(text: Zeroizing<String>) -> Result<Self, PasswordLength> {
        let fits = |text: &str| (PASSWORD_BYTES_MIN..=PASSWORD_BYTES_MAX).contains(&text.len());
        // Before normalising too, whose cost grows with the length.
        if !fits(&text) {
            return Err(PasswordLength);
        }
        // Form C is at most three times as long in UTF-8; room for all of it, so that no shorter copy is left behind.
        let mut normal = Zeroizing::new(String::with_capacity(3 * text.len()));
        normal.extend(text.nfc());
        if fits(&normal) { Ok(Self(normal)) } else { Err(PasswordLength) }
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Password(…)")
    }
}

/// A password as it stands in a request, before its length was looked at.
pub struct TypedPassword(pub Zeroizing<String>);

impl<'de> Deserialize<'de> for TypedPassword {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Zeroizing::new(text)))
    }
}

impl fmt::Debug for TypedPassword {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TypedPassword(…)")
    }
}

/// Why a password was neither right nor wrong.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// As many wait as may.
    #[error("too many logins at once")]
    Busy,
    /// The stored hash is not one, or the parameters are impossible.
    #[error("password hashing failed")]
    Hash,
    /// No salt could be drawn.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

/// Computes hashes, a bounded number at once, with a bounded queue before it.
#[derive(Debug)]
pub struct PasswordPool {
    workers: Arc<Semaphore>,
    waiting: AtomicUsize,
    queue_max: usize,
    argon2: Argon2<'static>,
    /// What the password of a user that does not exist is compared with.
    dummy_hash: String,
    host: Arc<dyn Host>,
    metrics: Arc<Metrics>,
}

impl PasswordPool {
    /// A pool with nothing to do. Computes one hash.
    ///
    /// # Errors
    /// [`PasswordError`] when the parameters are impossible or there are no random bytes.
    pub fn new(
        settings: PasswordSettings,
        host: Arc<dyn Host>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, PasswordError> {
        let PasswordSettings { memory_kib, iterations, parallelism, queue_max, workers } = settings;
        let params =
            Params::new(memory_kib, iterations, parallelism, None).map_err(|_| PasswordError::Hash)?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let dummy_hash = hash(&argon2, &random::<32>(&*host)?, &random::<16>(&*host)?)?;
        let workers = Arc::new(Semaphore::new(workers));
        Ok(Self { workers, waiting: AtomicUsize::new(0), queue_max, argon2, dummy_hash, host, metrics })
    }

    /// The hash of a new password, as a PHC string.
    ///
    /// # Errors
    /// [`PasswordError`].
    pub async fn hash(&self, password: Password) -> Result<String, PasswordError> {
        let permit = self.worker().await?;
        let argon2 = self.argon2.clone();
        let salt = random::<16>(&*self.host)?;
        let work = move || {
            let _permit = permit;
            hash(&argon2, password.0.as_bytes(), &salt)
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| PasswordError::Hash)?
    }

    /// Whether the password is the one that was hashed. Without a hash the same work is done, for nothing.
    ///
    /// # Errors
    /// [`PasswordError`].
    pub async fn verify(&self, password: Password, stored: Option<String>) -> Result<bool, PasswordError> {
        let permit = self.worker().await?;
        let argon2 = self.argon2.clone();
        let known = stored.is_some();
        let stored = stored.unwrap_or_else(|| self.dummy_hash.clone());
        let work = move || {
            let _permit = permit;
            argon2.verify_password(password.0.as_bytes(), stored.as_str()).is_ok()
        };
        let right = tokio::task::spawn_blocking(work).await.map_err(|_| PasswordError::Hash)?;
        Ok(known && right)
    }

    /// All workers, taken: whoever comes now has to wait. For tests of the queue.
    #[cfg(test)]
    pub(crate) async fn occupy(&self) -> Vec<OwnedSemaphorePermit> {
        let mut taken = Vec::new();
        for _ in 0..self.workers.available_permits() {
            taken.push(Arc::clone(&self.workers).acquire_owned().await.unwrap());
        }
        taken
    }

    /// A worker, once there is one. The permit goes with the work: a caller that gives up does not free it early.
    async fn worker(&self) -> Result<OwnedSemaphorePermit, PasswordError> {
        if let Ok(permit) = Arc::clone(&self.workers).try_acquire_owned() {
            return Ok(permit);
        }
        let asked_at = self.host.now().monotonic;
        let _place = Place::take(self).ok_or(PasswordError::Busy)?;
        let permit = Arc::clone(&self.workers).acquire_owned().await.map_err(|_| PasswordError::Busy)?;
        self.metrics.password_waited(self.host.now().monotonic.since(asked_at));
        Ok(permit)
    }
}

/// A place in the queue, given back when the wait ends in whatever way.
struct Place<'p>(&'p PasswordPool);

impl<'p> Place<'p> {
    fn take(pool: &'p PasswordPool) -> Option<Self> {
        let free = |waiting: usize| (waiting < pool.queue_max).then_some(waiting + 1);
        pool.waiting.fetch_update(Ordering::SeqCst, Ordering::SeqCst, free).ok()?;
        pool.metrics.password_queue(1);
        Some(Self(pool))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
        self.0.metrics.password_queue(-1);
    }
}

fn hash(argon2: &Argon2<'_>, password: &[u8], salt: &[u8]) -> Result<String, PasswordError> {
    let hash = argon2.hash_password_with_salt(password, salt).map_err(|_| PasswordError::Hash)?;
    Ok(hash.to_string())
}
