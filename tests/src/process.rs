//! Owns one child process: its log, its signals and its end.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::eventually::eventually;
use crate::evidence::tail;

/// A running program whose output goes to `<folder>/<name>.log`. Dropping it kills and reaps it.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    child: Mutex<Child>,
}

impl Process {
    /// Starts `program` with its standard output and error appended to one log in `folder`, which is also where it runs.
    ///
    /// # Errors
    /// When the log cannot be opened or the program cannot be started.
    pub fn spawn(
        name: &str,
        program: &Path,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
        variables: &[(String, String)],
        folder: &Path,
    ) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let output = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("opening {}", log.display()))?;
        let child = Command::new(program)
            .args(arguments)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        Ok(Self { name: name.to_owned(), log, child: Mutex::new(child) })
    }

    /// The number that the system gave it.
    pub fn id(&self) -> u32 {
        self.child().id()
    }

    /// Sends a signal by its short name: `TERM`, `KILL`, `STOP`, `CONT`, `HUP`.
    ///
    /// # Errors
    /// When it has ended already, or `kill` refuses.
    pub fn signal(&self, signal: &str) -> Result<()> {
        let mut child = self.child();
        // Its number is its own only until it is reaped, so that is looked at under the same lock.
        ensure!(child.try_wait()?.is_none(), "{} has ended already", self.name);
        let sent = Command::new("kill").arg(format!("-{signal}")).arg(child.id().to_string()).status();
        ensure!(sent.context("running kill")?.success(), "kill -{signal} {} failed", self.name);
        Ok(())
    }

    /// Whether it has not ended.
    pub fn is_running(&self) -> bool {
        matches!(self.child().try_wait(), Ok(None))
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// When it is still running at the deadline.
    pub async fn wait_exit(&self, deadline: Duration) -> Result<ExitStatus> {
        eventually(&format!("{} to end", self.name), deadline, async || match self.child().try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err(format!("it runs; the end of its log:\n{}", tail(&self.log))),
            Err(error) => Err(error.to_string()),
        })
        .await
    }

    /// Kills it at once and reaps it; nothing happens if it has ended.
    pub fn kill(&self) {
        let mut child = self.child();
        // Both fail only for a child that is gone, which is what is wanted.
        child.kill().unwrap_or_default();
        child.wait().ok();
    }

    /// Sends a signal that ends it, and waits until it has: for a program that has something to put in order.
    pub fn end(&self, signal: &str) {
        if self.signal(signal).is_ok() {
            self.child().wait().ok();
        }
    }

    /// All that it has written so far, earlier runs under the same name included.
    pub fn logs(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// An error if it has ended, with the end of its log.
    ///
    /// # Errors
    /// When it has ended.
    pub fn ensure_running(&self) -> Result<()> {
        let ended = self.child().try_wait().context("looking at the child")?;
        ensure!(
            ended.is_none(),
            "{} ended with {}; the end of its log:\n{}",
            self.name,
            ended.map(|status| status.to_string()).unwrap_or_default(),
            tail(&self.log)
        );
        Ok(())
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::Evidence;

    const SOON: Duration = Duration::from_secs(10);

    fn shell(evidence: &Evidence, script: &str) -> Process {
        let word = [("WORD".to_owned(), "hello".to_owned())];
        Process::spawn("shell", Path::new("/bin/sh"), ["-c", script], &word, evidence.folder()).unwrap()
    }

    #[tokio::test]
    async fn output_of_both_streams_is_in_the_log() {
        let evidence = Evidence::of_this_test().unwrap();
        let process = shell(&evidence, "echo $WORD; echo world >&2; exit 3");
        assert_eq!(process.wait_exit(SOON).await.unwrap().code(), Some(3));
        assert_eq!(process.logs(), "hello\nworld\n");
        assert!(!process.is_running());
        assert!(process.ensure_running().unwrap_err().to_string().contains("world"));
        process.signal("TERM").unwrap_err();
    }

    #[tokio::test]
    async fn signal_reaches_it_and_a_drop_ends_it() {
        let evidence = Evidence::of_this_test().unwrap();
        let process = shell(
            &evidence,
            "trap 'echo caught; exit 0' TERM; echo ready; while :; do read x < /dev/null; done",
        );
        eventually("the trap", SOON, async || match process.logs() {
            log if log.contains("ready") => Ok(()),
            log => Err(log),
        })
        .await
        .unwrap();
        process.signal("TERM").unwrap();
        assert!(process.wait_exit(SOON).await.unwrap().success());

        let process = shell(&evidence, "exec cat /dev/zero > /dev/null");
        assert!(process.is_running());
        let id = process.id();
        drop(process);
        let alive =
            Command::new("kill").arg("-0").arg(id.to_string()).stderr(Stdio::null()).status().unwrap();
        assert!(!alive.success());
    }
}
