//! Decides what time it is and what is random: the only place where the issuer asks its machine for either.

use std::fmt::Debug;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tollgate_shared::time::{Monotonic, Now, UnixMillis, UnixSeconds};

/// The machine's clocks and its random bytes, behind one seam so that tests have their own.
///
/// A wrong clock makes tokens that are refused or live too long; predictable bytes make credentials that can be guessed.
pub trait Host: Debug + Send + Sync {
    /// The date and the monotonic clock.
    fn now(&self) -> Now;

    /// Fills `bytes` from a source fit for secrets.
    ///
    /// # Errors
    /// [`EntropyError`] when the machine has none to give; nothing may be made up in its place.
    fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError>;

    /// Tells that a step was reached at which a crash would be most awkward. Does nothing, except in tests that end the
    /// process there.
    fn reached(&self, step: &'static str) {
        let _ = step;
    }

    /// The second it is.
    fn seconds(&self) -> UnixSeconds {
        self.now().wall.seconds()
    }
}

/// The machine gave no random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no random bytes to be had")]
pub struct EntropyError;

/// `N` random bytes.
///
/// # Errors
/// [`EntropyError`] when the machine has none to give.
pub fn random<const N: usize>(host: &dyn Host) -> Result<[u8; N], EntropyError> {
    let mut bytes = [0; N];
    host.fill(&mut bytes)?;
    Ok(bytes)
}

/// A random number below `bound`; the bias is below 2^-32 for the small bounds used here.
///
/// # Errors
/// [`EntropyError`] when the machine has none to give.
pub fn random_below(host: &dyn Host, bound: u64) -> Result<u64, EntropyError> {
    let number = u64::from_le_bytes(random::<8>(host)?);
    Ok(number.checked_rem(bound).unwrap_or_default())
}

/// The operating system's clocks and random bytes.
#[derive(Debug, Clone, Copy)]
pub struct SystemHost {
    started: Instant,
}

impl SystemHost {
    /// A host whose monotonic clock starts now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the issuer's one home of the clock")]
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }
}

impl Default for SystemHost {
    fn default() -> Self {
        Self::new()
    }
}

impl Host for SystemHost {
    #[expect(clippy::disallowed_methods, reason = "this is the issuer's one home of the clock")]
    fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { wall: UnixMillis(millis(wall)), monotonic: Monotonic(millis(self.started.elapsed())) }
    }

    #[expect(clippy::disallowed_methods, reason = "this is the issuer's one home of randomness")]
    fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError> {
        getrandom::fill(bytes).map_err(|_| EntropyError)
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
