//! A body that comes slowly, or breaks off.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use super::exchange::Broken;
use super::tally::Visit;

/// The pause before each piece of a slow body, and between the last byte of a cut one and its end: what was written is on
/// its way by then.
const PAUSE: Duration = Duration::from_millis(20);

/// What is given. The request is under way until this is dropped.
#[derive(Debug)]
pub(super) struct Given {
    rest: Bytes,
    announced: u64,
    piece: Option<usize>,
    pause: Option<Pin<Box<Sleep>>>,
    visit: Visit,
}

impl Given {
    /// A whole body.
    pub(super) fn whole(body: Bytes, visit: Visit) -> Self {
        let announced = body.len() as u64;
        Self { rest: body, announced, piece: None, pause: None, visit }
    }

    /// At so many bytes a second.
    pub(super) fn slow(body: Bytes, bytes_per_second: u64, visit: Visit) -> Self {
        let piece = bytes_per_second.saturating_mul(PAUSE.as_millis() as u64) / 1000;
        let piece = usize::try_from(piece).unwrap_or(usize::MAX).max(1);
        Self { piece: Some(piece), ..Self::whole(body, visit) }
    }

    /// Less than what is announced.
    pub(super) fn cut(body: Bytes, announced: usize, visit: Visit) -> Self {
        Self { announced: announced as u64, ..Self::whole(body, visit) }
    }

    fn is_cut(&self) -> bool {
        self.announced > 0 && self.piece.is_none() && self.rest.is_empty()
    }
}

impl Body for Given {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if self.announced == 0 {
            return Poll::Ready(None);
        }
        if self.is_cut() || self.piece.is_some() {
            let pause = self.pause.get_or_insert_with(|| Box::pin(sleep(PAUSE)));
            ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        if self.is_cut() {
            return Poll::Ready(Some(Err(Broken::Cut)));
        }
        let size = self.piece.unwrap_or(usize::MAX).min(self.rest.len());
        let piece = self.rest.split_to(size);
        self.announced = self.announced.saturating_sub(size as u64);
        self.visit.count(|tally| tally.bytes += size as u64);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.announced == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.announced)
    }
}
