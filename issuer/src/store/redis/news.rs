//! Tells replicas that the feed has grown, so that none has to ask the database all the time, and what has changed of what
//! they keep.
//!
//! It is a hint: what is published while a replica is not connected is lost to it. So whoever listens looks at the database
//! now and then too, and whenever the connection is new.

use std::convert::Infallible;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use futures_util::StreamExt;
use redis::aio::PubSub;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tollgate_shared::revocation::Position;

use super::facts::CHANGES;
use super::{Redis, RedisError};

/// What other replicas publish. Dropping it ends the subscription.
#[derive(Debug)]
pub struct FeedNews {
    positions: watch::Receiver<Position>,
    listening: JoinHandle<Infallible>,
}

impl FeedNews {
    /// The last position that was heard of. It counts as changed when the connection is new, too, even if it is the same.
    #[must_use]
    pub fn positions(&self) -> watch::Receiver<Position> {
        self.positions.clone()
    }
}

impl Drop for FeedNews {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Redis {
    /// Tells the other replicas that the feed has reached a position.
    ///
    /// # Errors
    /// [`RedisError`]; nothing depends on it having been told.
    pub async fn announce(&self, position: Position) -> Result<(), RedisError> {
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(CHANNEL).arg(position.0);
        self.guarded(async |link| link.ask(&publish).await.map(|_| ())).await
    }

    /// Listens for what other replicas announce, and connects again for as long as it is not dropped.
    #[must_use]
    pub fn listen(&self) -> FeedNews {
        let (heard, positions) = watch::channel(Position(0));
        let listening = tokio::spawn(listen(self.clone(), heard));
        FeedNews { positions, listening }
    }
}

async fn listen(redis: Redis, heard: watch::Sender<Position>) -> Infallible {
    let hear = |news: News<'_>| match news {
        // Whatever was announced before this was not heard.
        News::Connected => heard.send_modify(|_| ()),
        News::Said(payload) => {
            if let Some(position) = position(payload) {
                heard.send_replace(position);
            }
        }
    };
    redis.hear(CHANNEL, hear).await
}

/// What is heard on a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News<'n> {
    /// It is listened to from now on: what was said before was not heard.
    Connected,
    /// This was said.
    Said(&'n [u8]),
}

impl Redis {
    /// Hears of the changes that replicas tell, for ever. Connects again for as long as it is not dropped.
    pub async fn hear_changes(&self, heard: impl FnMut(News<'_>)) -> Infallible {
        self.hear(CHANGES, heard).await
    }

    async fn hear(&self, channel: &'static str, mut heard: impl FnMut(News<'_>)) -> Infallible {
        let backoff = ExponentialBuilder::default()
            .with_min_delay(DELAY_MIN)
            .with_max_delay(DELAY_MAX)
            .with_jitter()
            .without_max_times();
        let mut delays = backoff.build();
        loop {
            match self.subscribe(channel).await {
                Ok(subscribed) => {
                    delays = backoff.build();
                    heard(News::Connected);
                    let error = self.hear_until_it_fails(subscribed, &mut heard).await;
                    tracing::info!(%error, channel, "the connection for news ended");
                }
                Err(error) => tracing::debug!(%error, channel, "no connection for news"),
            }
            sleep(delays.next().unwrap_or(DELAY_MAX)).await;
        }
    }

    async fn subscribe(&self, channel: &str) -> Result<PubSub, RedisError> {
        // Not through the breaker: this waits by itself, and must come back although no login does.
        let link = &self.0.link;
        let mut connection = link.subscriber().await?;
        timeout(link.limit(), connection.subscribe(channel)).await.map_err(|_| RedisError::Timeout)??;
        Ok(connection)
    }

    /// A silent connection is asked for a sign of life.
    async fn hear_until_it_fails(&self, connection: PubSub, heard: &mut impl FnMut(News<'_>)) -> RedisError {
        let (mut sink, mut messages) = connection.split();
        loop {
            match timeout(SILENCE_MAX, messages.next()).await {
                Ok(Some(message)) => heard(News::Said(message.get_payload_bytes())),
                Ok(None) => return RedisError::Answer,
                Err(_) => match timeout(self.0.link.limit(), sink.ping::<redis::Value>()).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => return RedisError::Server(error),
                    Err(_) => return RedisError::Timeout,
                },
            }
        }
    }
}

fn position(payload: &[u8]) -> Option<Position> {
    std::str::from_utf8(payload).ok()?.parse().ok().map(Position)
}

const CHANNEL: &str = "tollgate:feed";
const DELAY_MIN: Duration = Duration::from_millis(50);
const DELAY_MAX: Duration = Duration::from_secs(5);
/// A server that is gone without a word is noticed after this and one time limit.
const SILENCE_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_number_is_a_position() {
        assert_eq!(position(b"42"), Some(Position(42)));
        for other in [b"".as_slice(), b"-1", b"4 2", b"18446744073709551616", b"\xff"] {
            assert_eq!(position(other), None);
        }
    }
}
