//! Decides how long a client may take to read an answer.
//!
//! *What comes in:* nothing; a client that asked and then does not read, or reads a byte at a time. *What goes out:* an answer,
//! or the end of the connection. *What an attacker gains if this is wrong:* connections that never end, each with an answer
//! in memory.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// A connection on which an answer that is not taken in time is an error.
#[derive(Debug)]
pub(super) struct Patient<S> {
    stream: S,
    timeout: Duration,
    /// Runs while bytes of an answer wait for room.
    limit: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    /// A client may take this long to read an answer, from when it no longer fits into the buffers of the system.
    pub(super) fn new(stream: S, timeout: Duration) -> Self {
        Self { stream, timeout, limit: None }
    }

    /// What a write came to, or that it took too long.
    fn within_limit<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            return written;
        }
        // Bytes that go through now and then do not start it anew; only a flush, which is an answer's end, stops it.
        let timeout = self.timeout;
        let limit = self.limit.get_or_insert_with(|| Box::pin(sleep(timeout)));
        limit.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.within_limit(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.within_limit(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if flushed.is_ready() {
            self.limit = None;
        }
        self.within_limit(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::interval;

    use super::*;

    const ANSWER: &[u8] = &[b'a'; 1000];
    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(600);

    #[tokio::test]
    async fn an_answer_that_nobody_reads_ends_in_time() {
        let (ours, _theirs) = duplex(10);
        let error = Patient::new(ours, SHORT).write_all(ANSWER).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn reading_a_byte_now_and_then_wins_no_time() {
        let (ours, mut theirs) = duplex(10);
        let reading = tokio::spawn(async move {
            let (mut read, mut ticks) = (0, interval(SHORT / 10));
            while theirs.read_u8().await.is_ok() {
                read += 1;
                ticks.tick().await;
            }
            read
        });
        let mut ours = Patient::new(ours, SHORT);
        let error = ours.write_all(ANSWER).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(ours);
        let read = reading.await.unwrap();
        assert!(read > 10 && read < ANSWER.len(), "{read}");
    }

    #[tokio::test]
    async fn each_answer_has_its_own_time_and_a_pause_between_them_none() {
        let (ours, mut theirs) = duplex(10);
        let reading = tokio::spawn(async move {
            let mut answer = [0; ANSWER.len()];
            for _ in 0..2 {
                theirs.read_exact(&mut answer).await.unwrap();
            }
        });
        let mut ours = Patient::new(ours, LONG);
        for _ in 0..2 {
            ours.write_all(ANSWER).await.unwrap();
            assert!(ours.limit.is_some(), "it had to wait for room");
            ours.flush().await.unwrap();
            assert!(ours.limit.is_none());
        }
        reading.await.unwrap();
    }
}
