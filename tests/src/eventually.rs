//! Waits for an observation, never for a time.

use std::fmt::Display;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep, timeout_at};

/// Observes until `observe` answers `Ok`, and gives that back.
///
/// An `Err` says what was seen instead. When `deadline` has passed, the error names `what` was waited for and the last
/// thing that was seen.
///
/// # Errors
/// When the deadline passed first.
pub async fn eventually<T, E: Display>(
    what: &str,
    deadline: Duration,
    mut observe: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T> {
    let end = Instant::now() + deadline;
    let mut last_seen = String::from("nothing");
    let mut observations = 0_u64;
    loop {
        match timeout_at(end, observe()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(seen)) => {
                last_seen = format!("{seen:#}");
                observations += 1;
            }
            Err(_) => bail!(
                "waited {deadline:?} for {what}; the last look had no answer in time; before it, {observations} looks \
                 saw: {last_seen}"
            ),
        }
        if Instant::now() >= end {
            bail!("waited {deadline:?} for {what}; {observations} looks; last seen: {last_seen}");
        }
        sleep(INTERVAL).await;
    }
}

/// The pause between two looks: short beside anything that a person would notice.
const INTERVAL: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_as_soon_as_the_observation_holds() {
        let mut looks = 0;
        let value = eventually("three looks", Duration::from_secs(5), async || {
            looks += 1;
            if looks == 3 { Ok(looks) } else { Err(format!("look {looks}")) }
        })
        .await
        .unwrap();
        assert_eq!(value, 3);
    }

    #[tokio::test]
    async fn timeout_tells_what_was_seen_last() {
        let waited = eventually("rain", Duration::from_millis(20), async || Err::<(), _>("a blue sky")).await;
        let text = waited.unwrap_err().to_string();
        assert!(text.contains("rain") && text.contains("a blue sky"), "{text}");
    }

    #[tokio::test]
    async fn look_that_hangs_is_cut_at_the_deadline() {
        let waited = eventually("an answer", Duration::from_millis(20), async || {
            std::future::pending::<Result<(), String>>().await
        })
        .await;
        assert!(waited.unwrap_err().to_string().contains("had no answer in time"));
    }
}
