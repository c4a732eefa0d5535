//! What the engine asks of its host: one HTTP call, and what became of it.

use std::borrow::Cow;
use std::fmt;

use tollgate_shared::revocation::ApplyError;
use tollgate_shared::time::Monotonic;
use tollgate_shared::token::KeySetError;
use tollgate_shared::wire::feed::FeedDecodeError;

/// How long a call may take beyond the time the issuer was asked to hold it, in milliseconds.
pub(super) const CALL_MILLIS: u64 = 5_000;
/// A host may never report what became of a call; it is given up this long after its own deadline, in milliseconds.
const WATCHDOG_MILLIS: u64 = 1_000;

/// Names one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// A call that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Which call this is.
    pub id: CallId,
    /// What it is for.
    pub kind: CallKind,
    /// The host's name for where it goes: an Envoy cluster.
    pub cluster: String,
    /// Its `:authority`.
    pub authority: String,
    /// The HTTP method.
    pub method: &'static str,
    /// Path and query.
    pub path: String,
    /// The headers beside those that the host adds.
    pub headers: Vec<(&'static str, String)>,
    /// The body, perhaps empty.
    pub body: Vec<u8>,
    /// How long to wait for the answer, in milliseconds.
    pub timeout_millis: u64,
}

/// What a call is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallKind {
    /// Revocations, keys and plans.
    Feed,
    /// Usage and leases.
    Quota,
    /// Telling the issuer what is enforced here.
    Heartbeat,
    /// The key set of a foreign issuer: the provider of this place in the configuration.
    Keys(usize),
}

impl CallKind {
    /// Whether the host adds the edge's credential: nobody but our own issuer ever sees it.
    #[must_use]
    pub fn takes_credential(self) -> bool {
        match self {
            Self::Feed | Self::Quota | Self::Heartbeat => true,
            Self::Keys(_) => false,
        }
    }
}

/// An answer that arrived.
#[derive(Debug, Clone, Copy)]
pub struct Reply<'r> {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Body<'r>,
}

/// The body of an answer.
#[derive(Debug, Clone, Copy)]
pub enum Body<'r> {
    /// These bytes.
    Here(&'r [u8]),
    /// Where the host has it: a large one is taken over part by part, so that it is never whole in this VM, whose memory only
    /// grows.
    AtHost(&'r dyn HostBody),
}

/// A body that the host has.
pub trait HostBody: fmt::Debug {
    /// How long it is, in bytes.
    fn size(&self) -> usize;

    /// So many bytes of it from `start` on, or fewer if it ends; `None` when the host does not give them.
    fn read(&self, start: usize, size: usize) -> Option<Vec<u8>>;
}

impl<'r> Body<'r> {
    pub(super) fn size(self) -> usize {
        match self {
            Self::Here(bytes) => bytes.len(),
            Self::AtHost(body) => body.size(),
        }
    }

    /// So many bytes from `start` on, or fewer if it ends there.
    pub(super) fn part(self, start: usize, size: usize) -> Option<Cow<'r, [u8]>> {
        match self {
            Self::Here(bytes) => {
                let rest = bytes.get(start..)?;
                Some(Cow::Borrowed(rest.get(..size).unwrap_or(rest)))
            }
            Self::AtHost(body) if body.size() == start => Some(Cow::Borrowed(&[])),
            Self::AtHost(body) => body.read(start, size).map(Cow::Owned),
        }
    }

    /// All of it; `None` when it is longer than `size_max` or the host does not give it.
    pub(super) fn whole(self, size_max: usize) -> Option<Cow<'r, [u8]>> {
        let size = self.size();
        if size > size_max {
            return None;
        }
        self.part(0, size).filter(|whole| whole.len() == size)
    }
}

/// So much of a body is asked of the host at once, in bytes: it looks for the place from the start each time.
const READ_AHEAD_BYTES: usize = 128 * 1024;

/// Reads a body from one part to the next.
#[derive(Debug)]
pub(super) struct Reader<'r> {
    body: Body<'r>,
    /// What was read, where in the body that begins, and how much of it was given.
    ahead: Cow<'r, [u8]>,
    start: usize,
    given: usize,
}

impl<'r> Reader<'r> {
    /// Begins at `start`.
    pub(super) fn new(body: Body<'r>, start: usize) -> Self {
        Self { body, ahead: Cow::Borrowed(&[]), start, given: 0 }
    }

    /// The next so many bytes; `None` if there are not as many, or the host does not give them: then it stays where it is.
    pub(super) fn next(&mut self, size: usize) -> Option<&[u8]> {
        if self.ahead.len() - self.given < size {
            self.start += self.given;
            self.given = 0;
            self.ahead = Cow::Borrowed(&[]);
            self.ahead = self.body.part(self.start, size.max(READ_AHEAD_BYTES))?;
        }
        let end = self.given.checked_add(size)?;
        let part = self.ahead.get(self.given..end)?;
        self.given = end;
        Some(part)
    }
}

/// What became of a call.
pub(super) type Outcome<'r> = Result<Reply<'r>, CallFailure>;

/// An answer that did not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum CallFailure {
    /// The host could not make the call.
    #[error("the host knows no such cluster")]
    Unroutable,
    /// No answer in time, or the connection broke.
    #[error("no answer")]
    NoAnswer,
}

/// Why an answer changed nothing; for the log. The state in force stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum AnswerFault {
    /// There was none.
    #[error("{0}")]
    Call(CallFailure),
    /// The call was refused.
    #[error("answered with status {0}")]
    Status(u16),
    /// The feed message could not be read.
    #[error("feed message refused: {0}")]
    Decode(FeedDecodeError),
    /// The feed message does not follow on the state.
    #[error("feed message refused: {0}")]
    Apply(ApplyError),
    /// The answer to a quota batch could not be read.
    #[error("the answer to a quota batch could not be read")]
    QuotaAnswer,
    /// A foreign issuer's key set cannot be used.
    #[error("key set refused: {0}")]
    KeySet(KeySetError),
    /// A foreign issuer's key set is longer than is read.
    #[error("key set refused: too long")]
    KeySetTooLong,
}

impl AnswerFault {
    /// Whether a snapshot would help where a delta did not.
    pub(super) fn calls_for_snapshot(self) -> bool {
        match self {
            // A snapshot has only what is live, so it may fit where one more delta does not.
            Self::Apply(
                ApplyError::Gap | ApplyError::EpochChanged | ApplyError::Incomplete | ApplyError::TooLarge,
            )
            | Self::Decode(FeedDecodeError::Unknown | FeedDecodeError::Payload) => true,
            Self::Call(_)
            | Self::Status(_)
            | Self::QuotaAnswer
            | Self::KeySet(_)
            | Self::KeySetTooLong
            | Self::Apply(ApplyError::Rollback | ApplyError::Keys(_))
            | Self::Decode(
                FeedDecodeError::TooLong
                | FeedDecodeError::Envelope
                | FeedDecodeError::Algorithm
                | FeedDecodeError::Signature
                | FeedDecodeError::Pieces
                | FeedDecodeError::Digest,
            ) => false,
        }
    }
}

/// A call under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flight {
    pub(super) id: CallId,
    pub(super) sent_at: Monotonic,
    given_up_at: Monotonic,
}

impl Flight {
    /// Whether its end should have been reported long ago.
    pub(super) fn is_lost(&self, now: Monotonic) -> bool {
        now >= self.given_up_at
    }
}

/// Gives each call its name.
#[derive(Debug)]
pub(super) struct CallIds(u64);

impl CallIds {
    /// Ids from a random one on: an answer to a VM that was replaced is not taken for ours.
    pub(super) fn new(random: u64) -> Self {
        Self(random >> 1)
    }

    pub(super) fn take_off(&mut self, now: Monotonic, timeout_millis: u64) -> Flight {
        self.0 = self.0.wrapping_add(1);
        Flight { id: CallId(self.0), sent_at: now, given_up_at: now.plus(timeout_millis + WATCHDOG_MILLIS) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A host that copies.
    #[derive(Debug)]
    struct Host(Vec<u8>);

    impl HostBody for Host {
        fn size(&self) -> usize {
            self.0.len()
        }

        fn read(&self, start: usize, size: usize) -> Option<Vec<u8>> {
            let rest = self.0.get(start..)?;
            Some(rest.get(..size).unwrap_or(rest).to_vec())
        }
    }

    proptest! {
        #[test]
        fn a_reader_gives_each_byte_once_and_none_that_is_not_there(
            length in 0..300_000usize,
            start in 0..2_000usize,
            sizes in proptest::collection::vec(prop_oneof![0..40_000usize, 0..400_000usize], 0..30),
        ) {
            let bytes: Vec<u8> = (0..length).map(|place| (place % 251) as u8).collect();
            let host = Host(bytes.clone());
            for body in [Body::Here(&bytes), Body::AtHost(&host)] {
                let (mut reader, mut place) = (Reader::new(body, start), start);
                for size in &sizes {
                    let wanted = bytes.get(place..place + size);
                    let given = reader.next(*size);
                    // Of nothing it does not matter where it is asked for.
                    if *size > 0 {
                        prop_assert_eq!(given, wanted);
                    }
                    place += given.map_or(0, <[u8]>::len);
                }
            }
        }
    }
}
