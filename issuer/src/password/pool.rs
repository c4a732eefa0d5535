//! Decides when a password is hashed: on threads of its own, a bounded number at once in bounded memory, with a bounded
//! queue before it.
//!
//! **Equal work.** Without a hash, one is computed with the current parameters, for nothing. Whoever is refused after a
//! hash that may be cheaper than the current parameters has the same done, so that no refusal comes faster than that for a
//! user that does not exist, and none of a locked or disabled user tells by its time that the password was right. What
//! remains: until the first login, a refusal of a user with a hash of another scheme or other parameters takes longer than
//! for the others.

use std::fmt;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use rustix::process::setpriority_process;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::argon::{Argon2Hash, HashMemory, Standard};
use super::stored::{MEMORY_KIB_MAX, StoredHash};
use super::{NewPassword, Password};
use crate::clock::{EntropyError, Host, random};
use crate::config::PasswordSettings;
use crate::metrics::Metrics;

/// The nice value of the workers: a tenth of the share of the other threads, while those want one.
const PRIORITY: i32 = 10;

/// Why a password was neither right nor wrong.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// As many wait as may.
    #[error("too many logins at once")]
    Busy,
    /// The parameters are impossible, or the hashing itself failed.
    #[error("password hashing failed")]
    Hash,
    /// No salt could be drawn.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// The operating system gave no thread to hash on.
    #[error("no thread for password hashing: {0}")]
    Thread(#[source] std::io::Error),
}

/// Whether a password is the one that was hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Right,
    /// It is not, or there was no hash.
    Wrong,
}

impl Verdict {
    pub(super) fn of(right: bool) -> Self {
        if right { Self::Right } else { Self::Wrong }
    }
}

/// What a right password is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Whoever knows it is let in.
    Open,
    /// Nothing: the user is locked or disabled, and is refused as for a wrong one.
    Refused,
}

/// Whether the hash is to be replaced by one with the current parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rehash {
    /// It is.
    Needed,
    /// It is as strong as those made now.
    NotNeeded,
}

/// What is known after a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Whether the password is right.
    pub right: Verdict,
    /// Of use only when it is: whether to store it anew with [`PasswordPool::rehash`].
    pub needs_rehash: Rehash,
}

/// How busy the pool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolLoad {
    /// Threads.
    pub workers: usize,
    /// Of which this many hash.
    pub busy: usize,
    /// Requests that wait for one.
    pub waiting: usize,
}

/// Computes hashes, a bounded number at once, with a bounded queue before it.
pub struct PasswordPool {
    jobs: Sender<Job>,
    sizing: Sizing,
    /// One permit for each worker.
    workers: Arc<Semaphore>,
    /// One permit for each MiB that hashes may take beside what the workers keep.
    extra: Arc<Semaphore>,
    waiting: AtomicUsize,
    queue_max: usize,
    kept_kib: u32,
    standard: Standard,
    /// What the password of a user that does not exist is compared with.
    nobody: Arc<Argon2Hash>,
    host: Arc<dyn Host>,
    metrics: Arc<Metrics>,
}

impl fmt::Debug for PasswordPool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PasswordPool").field("load", &self.load()).finish_non_exhaustive()
    }
}

impl PasswordPool {
    /// A pool with nothing to do.
    ///
    /// # Errors
    /// [`PasswordError`] when the parameters are impossible, there are no random bytes or no threads.
    pub fn new(
        settings: PasswordSettings,
        host: Arc<dyn Host>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, PasswordError> {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let sizing = Sizing::of(&settings, cores);
        let PasswordSettings { memory_kib, queue_max, workers: wanted, .. } = settings;
        match sizing.limit {
            WorkerLimit::Settings => {}
            WorkerLimit::Cores => {
                tracing::info!(
                    wanted,
                    workers = sizing.workers,
                    "as many password workers as there are cores"
                );
            }
            WorkerLimit::Memory => {
                tracing::warn!(
                    wanted,
                    workers = sizing.workers,
                    "fewer password workers, so that they fit into password.memory_max_mib"
                );
            }
        }
        let standard = Standard::new(&settings)?;
        let nobody = Arc::new(standard.nobody(random(&*host)?, random(&*host)?));
        let jobs = start_threads(sizing.workers, standard.block_count())?;
        metrics.password_workers(sizing.workers);
        Ok(Self {
            jobs,
            sizing,
            workers: Arc::new(Semaphore::new(sizing.workers)),
            extra: Arc::new(Semaphore::new(sizing.extra_mib)),
            waiting: AtomicUsize::new(0),
            queue_max,
            kept_kib: memory_kib,
            standard,
            nobody,
            host,
            metrics,
        })
    }

    /// The hash of a new password, as a PHC string.
    ///
    /// # Errors
    /// [`PasswordError`].
    pub async fn hash(&self, password: &NewPassword) -> Result<String, PasswordError> {
        self.rehash(&password.0).await
    }

    /// The hash of a password that was right a moment ago, as a PHC string. It may be one that could not be set now.
    ///
    /// # Errors
    /// [`PasswordError`].
    pub async fn rehash(&self, password: &Password) -> Result<String, PasswordError> {
        let (standard, password) = (self.standard.clone(), password.clone());
        let salt = random(&*self.host)?;
        self.run(0, move |memory| standard.hash(password.as_bytes(), &salt, memory)).await?
    }

    /// Whether the password is the one that was hashed, of a user who would be let in by it. Without a hash the same work
    /// is done, for nothing.
    ///
    /// # Errors
    /// [`PasswordError`].
    pub async fn verify(
        &self,
        password: &Password,
        stored: Option<StoredHash>,
        standing: Standing,
    ) -> Result<Verified, PasswordError> {
        let (standard, nobody) = (self.standard.clone(), Arc::clone(&self.nobody));
        let password = password.clone();
        let extra_kib = stored.as_ref().map_or(0, |stored| stored.extra_kib(self.kept_kib));
        let work = move |memory: &mut HashMemory| {
            compare(&standard, &nobody, password.as_bytes(), stored.as_ref(), standing, memory)
        };
        self.run(extra_kib, work).await
    }

    /// How busy the pool is at the moment.
    #[must_use]
    pub fn load(&self) -> PoolLoad {
        let workers = self.sizing.workers;
        let busy = workers.saturating_sub(self.workers.available_permits());
        PoolLoad { workers, busy, waiting: self.waiting.load(Ordering::SeqCst) }
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

    /// Does the work on a worker, once there is one and the memory that it needs beside its own.
    async fn run<T: Send + 'static>(
        &self,
        extra_kib: u32,
        work: impl FnOnce(&mut HashMemory) -> T + Send + 'static,
    ) -> Result<T, PasswordError> {
        let permits = self.permits(extra_kib.div_ceil(1024)).await?;
        let running = self.metrics.password_hash_started();
        let (answer, answered) = oneshot::channel();
        let job = Job(Box::new(move |memory| {
            // A panic is an answer that never comes to one caller, and not the end of a worker.
            let result = catch_unwind(AssertUnwindSafe(|| work(memory)));
            // Before the answer: who has it may ask again at once.
            drop((permits, running));
            if let Ok(result) = result {
                // Nobody may be waiting any more; then the work was for nothing.
                let _ = answer.send(result);
            }
        }));
        self.jobs.send(job).map_err(|_| PasswordError::Hash)?;
        answered.await.map_err(|_| PasswordError::Hash)
    }

    /// The right to a worker and to memory. It goes with the work: a caller that gives up does not free them early.
    async fn permits(&self, extra_mib: u32) -> Result<Permits, PasswordError> {
        let extra = Arc::clone(&self.extra).try_acquire_many_owned(extra_mib);
        let worker = Arc::clone(&self.workers).try_acquire_owned();
        if let (Ok(extra), Ok(worker)) = (extra, worker) {
            return Ok(Permits { _worker: worker, _extra: extra });
        }
        let asked_at = self.host.now().monotonic;
        let _place = Place::take(self).ok_or(PasswordError::Busy)?;
        // Memory first: who waits for it does not hold a worker meanwhile, and who has it waits for no more memory.
        let extra = match extra_mib {
            // None of it is had without waiting, even behind those who wait for much.
            0 => Arc::clone(&self.extra).try_acquire_many_owned(0).map_err(|_| PasswordError::Busy)?,
            mib => {
                let extra = Arc::clone(&self.extra).acquire_many_owned(mib).await;
                extra.map_err(|_| PasswordError::Busy)?
            }
        };
        let worker = Arc::clone(&self.workers).acquire_owned().await.map_err(|_| PasswordError::Busy)?;
        self.metrics.password_waited(self.host.now().monotonic.since(asked_at));
        Ok(Permits { _worker: worker, _extra: extra })
    }
}

/// Checks a password against a hash or against nobody's, with no less work for the one than for the other.
fn compare(
    standard: &Standard,
    nobody: &Argon2Hash,
    password: &[u8],
    stored: Option<&StoredHash>,
    standing: Standing,
    memory: &mut HashMemory,
) -> Verified {
    let wrong = Verified { right: Verdict::Wrong, needs_rehash: Rehash::NotNeeded };
    let Some(stored) = stored else {
        nobody.check(password, memory);
        return wrong;
    };
    let argon2 = stored.as_argon2();
    match (stored.check(password, memory), standing) {
        (Verdict::Right, Standing::Open) => {
            let needs_rehash = argon2.map_or(Rehash::Needed, |hash| standard.rehash(hash));
            Verified { right: Verdict::Right, needs_rehash }
        }
        (Verdict::Right, Standing::Refused) | (Verdict::Wrong, _) => {
            if !argon2.is_some_and(|hash| standard.is_outweighed_by(hash)) {
                nobody.check(password, memory);
            }
            wrong
        }
    }
}

/// How many workers there are, and how much memory there is beside theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sizing {
    workers: usize,
    extra_mib: usize,
    limit: WorkerLimit,
}

/// What says how many workers there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WorkerLimit {
    Settings,
    Cores,
    Memory,
}

impl Sizing {
    /// As many workers as are wanted, as there are cores, and as fit into memory. What they leave of it, and in any case
    /// enough for one, is for stored hashes that need more than a worker keeps.
    fn of(settings: &PasswordSettings, cores: usize) -> Self {
        let PasswordSettings { memory_kib, memory_max_mib, workers: wanted, .. } = *settings;
        let [memory_kib, memory_max_mib] = [memory_kib, memory_max_mib].map(|amount| amount as usize);
        let fitting = (memory_max_mib * 1024).checked_div(memory_kib).unwrap_or(usize::MAX);
        let (workers, limit) =
            [(wanted, WorkerLimit::Settings), (cores, WorkerLimit::Cores), (fitting, WorkerLimit::Memory)]
                .into_iter()
                .min_by_key(|(workers, _)| *workers)
                .unwrap_or((1, WorkerLimit::Settings));
        let workers = workers.max(1);
        let left_mib = memory_max_mib.saturating_sub((workers * memory_kib).div_ceil(1024));
        Self { workers, extra_mib: left_mib.max(MEMORY_KIB_MAX.div_ceil(1024) as usize), limit }
    }
}

/// Something to hash, with the right to do so in it.
struct Job(Box<dyn FnOnce(&mut HashMemory) + Send>);

/// The right to a worker and to memory beside its own, given back when dropped.
struct Permits {
    _worker: OwnedSemaphorePermit,
    _extra: OwnedSemaphorePermit,
}

/// The threads that hash. They end when the sender is dropped.
///
/// Threads of their own, each with its memory, rather than those that the runtime lends: what the allocator keeps for a
/// thread is then kept for these few. They have a lower priority than the rest: who needs a core for a hundredth of a
/// millisecond, to refresh a token or to answer an edge, does not wait until a hash has had its turn.
fn start_threads(workers: usize, blocks: usize) -> Result<Sender<Job>, PasswordError> {
    let (jobs, waiting) = channel();
    let waiting = Arc::new(Mutex::new(waiting));
    for number in 0..workers {
        let waiting = Arc::clone(&waiting);
        std::thread::Builder::new()
            .name(format!("password-{number}"))
            .spawn(move || work_off(&waiting, blocks))
            .map_err(PasswordError::Thread)?;
    }
    Ok(jobs)
}

fn work_off(waiting: &Mutex<Receiver<Job>>, blocks: usize) {
    // Of this thread alone, on Linux. Where it cannot be had, others wait longer; nothing else depends on it.
    if let Err(error) = setpriority_process(None, PRIORITY) {
        tracing::debug!(%error, "password workers have the priority of the others");
    }
    let mut memory = HashMemory::keeping(blocks);
    loop {
        // Whoever holds the lock waits for the next job, the others for the lock.
        let Ok(Ok(Job(work))) = waiting.lock().map(|waiting| waiting.recv()) else { return };
        work(&mut memory);
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

#[cfg(test)]
mod tests;
