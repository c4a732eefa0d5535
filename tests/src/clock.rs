//! The benchmarks' one home of the clock, and of what the kernel says a process used.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// The instant it is.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
pub fn now() -> Instant {
    Instant::now()
}

/// Waits.
#[expect(clippy::disallowed_methods, reason = "a benchmark asks at a steady rate and measures for a while")]
pub fn sleep(span: Duration) {
    std::thread::sleep(span);
}

/// A span in milliseconds.
#[must_use]
pub fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1000.0
}

/// CPU time that a process's threads have used, in seconds, from the scheduler's count of nanoseconds; by threads whose
/// names begin so.
///
/// # Errors
/// When there is no such process.
pub fn cpu_seconds(process: &str, thread_name: &str) -> Result<f64> {
    let mut nanoseconds = 0.0;
    for thread in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let thread = thread?.path();
        // One that ended meanwhile has no files any more.
        let read = |file| std::fs::read_to_string(thread.join(file)).unwrap_or_default();
        if read("comm").starts_with(thread_name) {
            let on_cpu = read("schedstat").split_whitespace().next().map(str::parse::<f64>);
            nanoseconds += on_cpu.and_then(Result::ok).unwrap_or_default();
        }
    }
    Ok(nanoseconds / 1e9)
}

/// A figure of `/proc/<process>/status` in KiB.
///
/// # Errors
/// When there is no such process, or no such figure.
pub fn status_kib(process: u32, name: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let figure = line.and_then(|line| line.split_whitespace().next()).and_then(|figure| figure.parse().ok());
    figure.with_context(|| format!("no {name} in the status of process {process}"))
}
