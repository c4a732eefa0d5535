//! Keeps what a failed test leaves behind, and removes what a passed one does.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context as _, Result};

use crate::target_directory;

/// A folder for the logs, configurations and data of one test, in `target/evidence`.
///
/// It is removed when the last owner drops it, unless the thread is panicking or [`keep`](Self::keep) was called: then
/// its path and the ends of the logs go to standard error.
#[derive(Debug)]
pub struct Evidence {
    folder: PathBuf,
    kept: AtomicBool,
}

impl Evidence {
    /// A folder named after the running test.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn of_this_test() -> Result<Arc<Self>> {
        let thread = std::thread::current();
        Self::named(thread.name().unwrap_or("unnamed"))
    }

    /// A folder with this name, the process and a number in its path.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn named(name: &str) -> Result<Arc<Self>> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
        let name: String = name.replace("::", "-").chars().map(plain).collect();
        let folder =
            target_directory().join("evidence").join(format!("{name}-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        Ok(Arc::new(Self { folder, kept: AtomicBool::new(false) }))
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The path of a file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Keeps the folder although nothing panics: for a failure that is reported as an `Err`.
    pub fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }

    fn report(&self) -> String {
        let mut text = format!("evidence is kept in {}\n", self.folder.display());
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut logs: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        logs.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
        logs.sort();
        for log in logs {
            let name = log.file_name().unwrap_or_default().to_string_lossy();
            text.push_str(&format!("--- the end of {name}\n{}\n", tail(&log)));
        }
        text
    }
}

impl Drop for Evidence {
    fn drop(&mut self) {
        if std::thread::panicking() || self.kept.load(Ordering::Relaxed) {
            #[expect(
                clippy::print_stderr,
                reason = "the reader of a failed test must learn where its logs are"
            )]
            {
                eprintln!("{}", self.report());
            }
        } else {
            // What cannot be removed is rubbish in `target`, not a failure.
            fs::remove_dir_all(&self.folder).unwrap_or_default();
        }
    }
}

/// The last lines of a text file.
pub(crate) fn tail(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(TAIL_LINES_MAX)..).unwrap_or_default().join("\n")
}

const TAIL_LINES_MAX: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_goes_when_the_test_passed() {
        let evidence = Evidence::of_this_test().unwrap();
        let folder = evidence.folder().to_path_buf();
        fs::write(evidence.file("some.log"), "a line").unwrap();
        assert!(folder.exists());
        drop(evidence);
        assert!(!folder.exists());
    }

    #[test]
    fn folder_stays_when_the_test_panicked() {
        let evidence = Evidence::of_this_test().unwrap();
        let folder = evidence.folder().to_path_buf();
        let failed = std::thread::spawn(move || {
            let _evidence = evidence;
            panic!("on purpose");
        });
        failed.join().unwrap_err();
        assert!(folder.exists());
        fs::remove_dir_all(folder).unwrap();
    }
}
