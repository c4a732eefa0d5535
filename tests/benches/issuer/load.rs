//! Does one thing on many threads for a while, and says how often a second it was done.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Error, Result, anyhow};

use crate::clock;

/// Is over before the counting begins: connections are open and queues are full by then.
const WARM_UP: Duration = Duration::from_millis(500);

/// Runs each worker again and again on a thread of its own, and `during` on this one while they run. Gives back how
/// often a second they did it while `during` ran, and what that gave.
pub(crate) fn while_working<T>(
    workers: Vec<impl FnMut() -> Result<()> + Send>,
    during: impl FnOnce() -> Result<T>,
) -> Result<(f64, T)> {
    let (count, over, fault) = (AtomicUsize::new(0), AtomicBool::new(false), Mutex::new(None::<Error>));
    let (count, over, fault) = (&count, &over, &fault);
    thread::scope(|scope| {
        for mut worker in workers {
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    match worker() {
                        Ok(()) => count.fetch_add(1, Ordering::Relaxed),
                        Err(error) => {
                            over.store(true, Ordering::Relaxed);
                            fault.lock().map(|mut fault| fault.replace(error)).ok();
                            return;
                        }
                    };
                }
            });
        }
        clock::sleep(WARM_UP);
        let (begun, before) = (clock::now(), count.load(Ordering::Relaxed));
        let result = during();
        let (done, took) = (count.load(Ordering::Relaxed) - before, begun.elapsed());
        over.store(true, Ordering::Relaxed);
        result.map(|result| (done as f64 / took.as_secs_f64(), result))
    })
    .and_then(|result| match fault.lock().map_err(|_| anyhow!("a worker panicked"))?.take() {
        Some(error) => Err(error).context("a worker"),
        None => Ok(result),
    })
}
