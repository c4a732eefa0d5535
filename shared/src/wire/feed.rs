//! The signed feed: one CBOR message in a COSE_Sign1 envelope (RFC 9052) under the feed key. A snapshot's pieces follow its
//! envelope as they are; the message has the length and digest of each.
//!
//! *What comes in:* bytes from the network, a cache or a CDN. *What goes out:* a [`FeedMessage`] that the holder of the
//! feed key wrote, and pieces that it named. *What an attacker gains if this is wrong:* the token keys, and with them every
//! identity.

mod message;
mod parts;

use coset::iana::Algorithm;
use coset::{AsCborValue, CoseSign1, CoseSign1Builder, HeaderBuilder, TaggedCborSerializable};
use ed25519_dalek::{Signature, VerifyingKey};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use self::message::{WireFeed, WirePiece};
pub use self::parts::{PART_BYTES, SnapshotId, SnapshotLayout, WHOLE_BYTES};
use crate::quota::Plan;
use crate::revocation::{
    ApplyError, FeedChange, FeedMessage, FeedState, Piece, PieceMark, Place, Position, RevocationSet,
    Staging, pieces,
};
use crate::time::UnixSeconds;
use crate::token::SigningKey;

/// The media type of a feed message (RFC 9052 section 11.3).
pub const MEDIA_TYPE: &str = "application/cose; cose-type=\"cose-sign1\"";
/// The media type of a part of a snapshot: pieces one after another, each a CBOR item (RFC 8742).
pub const PIECES_MEDIA_TYPE: &str = "application/cbor-seq";
/// A longer body is not read, in bytes. The most revocations there may be, however scattered, fit in.
pub const MESSAGE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Says what the signature is over, so that one made for another purpose never passes for a feed.
const CONTEXT: &[u8] = b"tollgate-feed-v1";

/// The feed key's public half, with which the filter is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustAnchor(VerifyingKey);

/// Why bytes are not a feed message that may be acted upon. The state in force stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[expect(missing_docs, reason = "the error text of each says what its documentation would")]
pub enum FeedDecodeError {
    #[error("message is longer than 32 MiB")]
    TooLong,
    #[error("not a COSE_Sign1 message")]
    Envelope,
    #[error("signed with another algorithm than EdDSA, or has critical headers")]
    Algorithm,
    #[error("signature is not by the trust anchor")]
    Signature,
    #[error("payload is not a feed message")]
    Payload,
    #[error("message version or kind is not known")]
    Unknown,
    #[error("what follows the envelope is not as long as the message says")]
    Pieces,
    #[error("piece is not the one that the message names")]
    Digest,
}

/// The body of an answer, taken apart.
#[derive(Debug, Clone, PartialEq)]
pub struct Opened<'b> {
    /// What it says.
    pub message: FeedMessage,
    /// The envelope alone.
    pub envelope: &'b [u8],
    /// A snapshot's pieces, one after another, as long in all as the message says. None has been looked at.
    pub pieces: &'b [u8],
}

impl TrustAnchor {
    /// The anchor whose 32 bytes (RFC 8032) these are; `None` when they are no point, or one of small order.
    #[must_use]
    pub fn new(bytes: &[u8; 32]) -> Option<Self> {
        VerifyingKey::from_bytes(bytes).ok().filter(|key| !key.is_weak()).map(Self)
    }

    /// The 32 bytes of the key.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// Checks the signature of the envelope that `body` begins with, then decodes it. All pieces must follow.
    ///
    /// # Errors
    /// See [`FeedDecodeError`].
    pub fn open<'b>(&self, body: &'b [u8]) -> Result<Opened<'b>, FeedDecodeError> {
        let (message, envelope) = self.open_start(body, body.len())?;
        let pieces = body.get(envelope.len()..).unwrap_or_default();
        if pieces.is_empty() && message.piece_bytes() > 0 {
            return Err(FeedDecodeError::Pieces);
        }
        Ok(Opened { message, envelope, pieces })
    }

    /// The same for a body of this many bytes of which only the start is at hand, at least the envelope: gives the message and
    /// the envelope. The pieces follow it, all of them or, of a snapshot that is taken in parts, none.
    ///
    /// # Errors
    /// See [`FeedDecodeError`].
    pub fn open_start<'b>(
        &self,
        start: &'b [u8],
        body_bytes: usize,
    ) -> Result<(FeedMessage, &'b [u8]), FeedDecodeError> {
        if body_bytes > MESSAGE_BYTES_MAX {
            return Err(FeedDecodeError::TooLong);
        }
        let mut rest = start;
        let item: ciborium::Value = read_one(&mut rest).ok_or(FeedDecodeError::Envelope)?;
        let envelope = start.get(..start.len() - rest.len()).unwrap_or_default();
        let message = self.message(item)?;
        let whole = message.piece_bytes();
        // Also if they do not come with it.
        if whole.saturating_add(envelope.len() as u64) > MESSAGE_BYTES_MAX as u64 {
            return Err(FeedDecodeError::TooLong);
        }
        match (body_bytes - envelope.len()) as u64 {
            0 => {}
            there if there == whole => {}
            _ => return Err(FeedDecodeError::Pieces),
        }
        Ok((message, envelope))
    }

    /// The same for an envelope without what follows it.
    ///
    /// # Errors
    /// See [`FeedDecodeError`].
    pub fn open_envelope(&self, envelope: &[u8]) -> Result<FeedMessage, FeedDecodeError> {
        let mut rest = envelope;
        let item = read_one(&mut rest).filter(|_| rest.is_empty()).ok_or(FeedDecodeError::Envelope)?;
        self.message(item)
    }

    fn message(&self, item: ciborium::Value) -> Result<FeedMessage, FeedDecodeError> {
        let tagged = item.into_tag().ok().filter(|(tag, _)| *tag == CoseSign1::TAG);
        let signed = tagged.and_then(|(_, inner)| CoseSign1::from_cbor_value(*inner).ok());
        let signed = signed.ok_or(FeedDecodeError::Envelope)?;
        let protected = &signed.protected.header;
        if protected.alg != Some(coset::RegisteredLabelWithPrivate::Assigned(Algorithm::EdDSA))
            || !protected.crit.is_empty()
        {
            return Err(FeedDecodeError::Algorithm);
        }
        signed.verify_signature(CONTEXT, |signature, message| {
            let signature = Signature::from_slice(signature).map_err(|_| FeedDecodeError::Signature)?;
            self.0.verify_strict(message, &signature).map_err(|_| FeedDecodeError::Signature)
        })?;
        let payload = signed.payload.as_deref().ok_or(FeedDecodeError::Payload)?;
        let wire: WireFeed = read_exactly(payload).ok_or(FeedDecodeError::Payload)?;
        FeedMessage::try_from(wire)
    }
}

/// Compares a piece with what the signed message says of it, then decodes it.
///
/// # Errors
/// See [`FeedDecodeError`].
pub fn open_piece(mark: &PieceMark, bytes: &[u8]) -> Result<Piece, FeedDecodeError> {
    if bytes.len() as u64 != u64::from(mark.size) || <[u8; 32]>::from(Sha256::digest(bytes)) != mark.digest {
        return Err(FeedDecodeError::Digest);
    }
    let wire: WirePiece = read_exactly(bytes).ok_or(FeedDecodeError::Payload)?;
    Piece::try_from(wire)
}

/// Why a body changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum BodyError {
    /// It could not be read.
    #[error("{0}")]
    Decode(#[from] FeedDecodeError),
    /// It does not follow on the state.
    #[error("{0}")]
    Apply(#[from] ApplyError),
}

/// Takes in the body of an answer at once, and gives back what it said: for programs that nobody waits for. The filter, which
/// requests wait for, takes in a snapshot piece by piece.
///
/// # Errors
/// [`BodyError`]; the state is as it was.
pub fn apply_body(
    anchor: &TrustAnchor,
    body: &[u8],
    state: &mut Option<FeedState>,
    today: UnixSeconds,
) -> Result<FeedMessage, BodyError> {
    let Opened { message, mut pieces, .. } = anchor.open(body)?;
    match (&message.change, &mut *state) {
        (FeedChange::Delta(_), Some(state)) => state.add(message.clone(), today)?,
        (FeedChange::Delta(_), None) => return Err(ApplyError::Gap.into()),
        (FeedChange::Snapshot { .. }, current) => {
            let place = current.as_ref().map(FeedState::place);
            let mut staging = Staging::begin(place, message.clone())?;
            while let Some((_, mark)) = staging.next_piece() {
                let (piece, rest) =
                    pieces.split_at_checked(mark.size as usize).ok_or(FeedDecodeError::Pieces)?;
                pieces = rest;
                staging.take_in(open_piece(&mark, piece)?)?;
            }
            let as_of = Place::after(place, &message).as_of;
            *state = Some(FeedState { as_of, ..staging.finish(today)? });
        }
    }
    Ok(message)
}

/// Signs `message` with the feed key. `None` only if serialising failed, which is a defect of ours.
#[must_use]
pub fn seal(message: &FeedMessage, key: &SigningKey) -> Option<Vec<u8>> {
    let mut payload = Vec::new();
    ciborium::into_writer(&WireFeed::from(message), &mut payload).ok()?;
    seal_payload(payload, key)
}

/// All of a state, to be sent as a snapshot.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot<'s> {
    /// Where it leads.
    pub place: Place,
    /// The end of the history now.
    pub head: Position,
    /// What is revoked.
    pub revoked: &'s RevocationSet,
    /// The JWK Set as JSON.
    pub keys: &'s str,
    /// The plans.
    pub plans: &'s [Plan],
}

/// The body of an answer with all of a state, signed with the feed key, and where in it what is. `None` only if serialising
/// failed, or if it is more than [`MESSAGE_BYTES_MAX`].
#[must_use]
pub fn seal_snapshot(snapshot: Snapshot<'_>, key: &SigningKey) -> Option<(Vec<u8>, SnapshotLayout)> {
    let Snapshot { place: Place { epoch, position: to, as_of }, head, revoked, keys, plans } = snapshot;
    let (mut marks, mut bodies) = (Vec::new(), Vec::new());
    for piece in pieces(revoked) {
        let start = bodies.len();
        ciborium::into_writer(&WirePiece::from(&piece), &mut bodies).ok()?;
        let bytes = bodies.get(start..)?;
        let size = u32::try_from(bytes.len()).ok()?;
        marks.push(PieceMark { size, digest: Sha256::digest(bytes).into() });
    }
    let sizes: Vec<usize> = marks.iter().map(|mark| mark.size as usize).collect();
    let change = FeedChange::Snapshot { pieces: marks };
    let (keys, plans) = (Some(keys.to_owned()), Some(plans.to_vec()));
    let mut body = seal(&FeedMessage { epoch, to, head, as_of, change, keys, plans }, key)?;
    let envelope_bytes = body.len();
    let ends = sizes.into_iter().scan(envelope_bytes, |end, size| {
        *end += size;
        Some(*end)
    });
    let layout = SnapshotLayout { envelope_bytes, piece_ends: ends.collect() };
    body.append(&mut bodies);
    (body.len() <= MESSAGE_BYTES_MAX).then_some((body, layout))
}

/// Signs bytes that need not be a message, for tests of what opening them does.
#[doc(hidden)]
#[must_use]
pub fn seal_payload(payload: Vec<u8>, key: &SigningKey) -> Option<Vec<u8>> {
    let protected = HeaderBuilder::new().algorithm(Algorithm::EdDSA).build();
    CoseSign1Builder::new()
        .protected(protected)
        .payload(payload)
        .create_signature(CONTEXT, |message| key.sign(message).to_vec())
        .build()
        .to_tagged_vec()
        .ok()
}

/// Decodes the CBOR item that `bytes` begin with, and leaves what follows it.
fn read_one<T: DeserializeOwned>(bytes: &mut &[u8]) -> Option<T> {
    ciborium::de::from_reader_with_recursion_limit(bytes, 16).ok()
}

/// Decodes one CBOR item and nothing after it.
fn read_exactly<T: DeserializeOwned>(mut bytes: &[u8]) -> Option<T> {
    read_one(&mut bytes).filter(|_| bytes.is_empty())
}
