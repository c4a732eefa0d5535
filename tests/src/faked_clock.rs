//! The date that a process is shown, which a test sets while it runs: libfaketime. Its other clocks go on as they did.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::evidence::Evidence;

const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// The date of every process that is started with its [`variables`](Self::variables).
#[derive(Clone, Debug)]
pub struct FakedClock {
    library: PathBuf,
    file: PathBuf,
}

impl FakedClock {
    /// One that shows the date as it is.
    ///
    /// # Errors
    /// When libfaketime is not installed.
    pub fn new(name: &str, evidence: &Evidence) -> Result<Self> {
        let clock = Self { library: library()?, file: evidence.file(&format!("{name}-ahead")) };
        clock.set_ahead(0)?;
        Ok(clock)
    }

    /// What a process is started with to be shown this date.
    pub fn variables(&self) -> Vec<(String, String)> {
        let text = |path: &Path| path.display().to_string();
        let variables = [
            ("LD_PRELOAD", text(&self.library)),
            ("FAKETIME_TIMESTAMP_FILE", text(&self.file)),
            // Each reading of the clock reads the file, so that a change is seen by the next.
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("FAKETIME_DONT_RESET", "1".to_owned()),
        ];
        variables.map(|(name, value)| (name.to_owned(), value)).to_vec()
    }

    /// Shows a date so many seconds ahead of what it is, or behind it.
    ///
    /// # Errors
    /// When the file that says so cannot be written.
    pub fn set_ahead(&self, seconds: i64) -> Result<()> {
        // In one step, for it is read all the time.
        let unfinished = self.file.with_extension("tmp");
        fs::write(&unfinished, format!("{seconds:+}\n")).context("setting a clock")?;
        fs::rename(&unfinished, &self.file).context("setting a clock")
    }
}

/// Where the package puts it: in a folder that is named after the machine's architecture.
fn library() -> Result<PathBuf> {
    let folders = fs::read_dir("/usr/lib").context("looking for libfaketime")?.flatten();
    let found = folders.map(|folder| folder.path().join(LIBRARY)).find(|library| library.is_file());
    found.context("libfaketime is not installed; this installs it: sudo apt-get install --yes faketime")
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the date is what is faked")]
    fn another_process_is_shown_the_date_that_was_set() {
        let evidence = Evidence::of_this_test().unwrap();
        let clock = FakedClock::new("date", &evidence).unwrap();
        for ahead in [0, 600, -600] {
            clock.set_ahead(ahead).unwrap();
            let shown = Command::new("date").arg("+%s").envs(clock.variables()).output().unwrap().stdout;
            let shown: i64 = String::from_utf8(shown).unwrap().trim().parse().unwrap();
            let real = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
            assert!((shown - real - ahead).abs() <= 5, "{shown} instead of {real} and {ahead}");
        }
    }
}
