//! The signed feed: one CBOR message in a COSE_Sign1 envelope (RFC 9052) under the feed key.
//!
//! *What comes in:* bytes from the network, a cache or a CDN. *What goes out:* a [`FeedMessage`] that the holder of the
//! feed key wrote. *What an attacker gains if this is wrong:* the token keys, and with them every identity.

use coset::iana::Algorithm;
use coset::{CoseSign1, CoseSign1Builder, HeaderBuilder, TaggedCborSerializable};
use ed25519_dalek::{Signature, VerifyingKey};
use serde::{Deserialize, Serialize};

use super::gaps::{self, CodedGaps};
use crate::quota::Plan;
use crate::revocation::{
    BlockExpiry, Cutoff, Dimension, Epoch, FeedChange, FeedMessage, Position, REVOKED_MAX, StatusIndex,
};
use crate::time::{UnixMillis, UnixSeconds};
use crate::token::SigningKey;

/// The media type of a feed message (RFC 9052 section 11.3).
pub const MEDIA_TYPE: &str = "application/cose; cose-type=\"cose-sign1\"";
/// A longer message is not read, in bytes. The most revocations there may be, however scattered, fit in.
pub const MESSAGE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// The version of the message this code writes and reads.
const VERSION: u64 = 1;
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
}

impl TrustAnchor {
    /// The anchor whose 32 bytes (RFC 8032) these are; `None` when they are no point, or one of small order.
    #[must_use]
    pub fn new(bytes: &[u8; 32]) -> Option<Self> {
        VerifyingKey::from_bytes(bytes).ok().filter(|key| !key.is_weak()).map(Self)
    }

    /// Checks the signature of `envelope`, then decodes it.
    ///
    /// # Errors
    /// See [`FeedDecodeError`].
    pub fn open(&self, envelope: &[u8]) -> Result<FeedMessage, FeedDecodeError> {
        if envelope.len() > MESSAGE_BYTES_MAX {
            return Err(FeedDecodeError::TooLong);
        }
        let signed = CoseSign1::from_tagged_slice(envelope).map_err(|_| FeedDecodeError::Envelope)?;
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
        let wire = read_exactly(payload).ok_or(FeedDecodeError::Payload)?;
        FeedMessage::try_from(wire)
    }
}

/// Signs `message` with the feed key. `None` only if serialising failed, which is a defect of ours.
#[must_use]
pub fn seal(message: &FeedMessage, key: &SigningKey) -> Option<Vec<u8>> {
    let mut payload = Vec::new();
    ciborium::into_writer(&WireFeed::from(message), &mut payload).ok()?;
    seal_payload(payload, key)
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

/// Decodes one CBOR item and nothing after it.
fn read_exactly(payload: &[u8]) -> Option<WireFeed> {
    let mut rest = payload;
    let wire = ciborium::de::from_reader_with_recursion_limit(&mut rest, 16).ok()?;
    rest.is_empty().then_some(wire)
}

#[derive(Serialize, Deserialize)]
struct WireFeed {
    v: u64,
    kind: String,
    #[serde(with = "serde_bytes")]
    epoch: Vec<u8>,
    from: u64,
    to: u64,
    as_of: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    revoked: Vec<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    set: Option<WireSet>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    blocks: Vec<(u16, u64)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    cutoffs: Vec<WireCutoff>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keys: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    plans: Option<Vec<WirePlan>>,
}

#[derive(Serialize, Deserialize)]
struct WireSet {
    n: u32,
    p: u8,
    #[serde(with = "serde_bytes")]
    bits: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct WireCutoff {
    dim: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iss: Option<String>,
    val: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before: Option<u64>,
    until: u64,
}

#[derive(Serialize, Deserialize)]
struct WirePlan {
    name: String,
    limit: u64,
    window: u64,
}

impl From<&FeedMessage> for WireFeed {
    fn from(message: &FeedMessage) -> Self {
        let FeedMessage { epoch, to, as_of, change, blocks, cutoffs, keys, plans } = message;
        let (kind, from, revoked, set) = match change {
            FeedChange::Delta { from, revoked } => {
                ("delta", from.0, revoked.iter().map(|index| index.0).collect(), None)
            }
            FeedChange::Snapshot { revoked } => {
                let CodedGaps { count, remainder_bits, bits } =
                    gaps::encode(revoked.iter().map(|index| index.0));
                ("snapshot", 0, Vec::new(), Some(WireSet { n: count, p: remainder_bits, bits }))
            }
        };
        Self {
            v: VERSION,
            kind: kind.to_owned(),
            epoch: epoch.0.to_vec(),
            from,
            to: to.0,
            as_of: as_of.0,
            revoked,
            set,
            blocks: blocks.iter().map(|block| (block.block, block.expires_at.0)).collect(),
            cutoffs: cutoffs.iter().map(WireCutoff::from).collect(),
            keys: keys.clone(),
            plans: plans.as_ref().map(|plans| plans.iter().map(WirePlan::from).collect()),
        }
    }
}

impl TryFrom<WireFeed> for FeedMessage {
    type Error = FeedDecodeError;

    fn try_from(wire: WireFeed) -> Result<Self, FeedDecodeError> {
        let WireFeed { v, kind, epoch, from, to, as_of, revoked, set, blocks, cutoffs, keys, plans } = wire;
        if v != VERSION {
            return Err(FeedDecodeError::Unknown);
        }
        let change = match (kind.as_str(), set) {
            ("delta", None) => {
                let revoked = revoked.into_iter().map(StatusIndex).collect();
                FeedChange::Delta { from: Position(from), revoked }
            }
            ("snapshot", Some(WireSet { n, p, bits })) => {
                let coded = CodedGaps { count: n, remainder_bits: p, bits };
                let mut revoked = Vec::new();
                gaps::decode(&coded, REVOKED_MAX, |index| revoked.push(StatusIndex(index)))
                    .ok_or(FeedDecodeError::Payload)?;
                FeedChange::Snapshot { revoked }
            }
            ("delta" | "snapshot", _) => return Err(FeedDecodeError::Payload),
            _ => return Err(FeedDecodeError::Unknown),
        };
        let expiry = |(block, seconds)| BlockExpiry { block, expires_at: UnixSeconds(seconds) };
        let plans = plans.map(|plans| plans.into_iter().map(Plan::try_from).collect()).transpose()?;
        Ok(Self {
            epoch: Epoch(epoch.try_into().map_err(|_| FeedDecodeError::Payload)?),
            to: Position(to),
            as_of: UnixMillis(as_of),
            change,
            blocks: blocks.into_iter().map(expiry).collect(),
            cutoffs: cutoffs.into_iter().map(Cutoff::try_from).collect::<Result<_, _>>()?,
            keys,
            plans,
        })
    }
}

impl From<&Cutoff> for WireCutoff {
    fn from(cutoff: &Cutoff) -> Self {
        let Cutoff { dimension, issuer, value, issued_before, until } = cutoff;
        Self {
            dim: dimension.name().to_owned(),
            iss: issuer.clone(),
            val: value.clone(),
            before: issued_before.map(|date| date.0),
            until: until.0,
        }
    }
}

impl TryFrom<WireCutoff> for Cutoff {
    type Error = FeedDecodeError;

    /// A dimension that is not known is an error and not passed over: ignoring it would be ignoring a revocation.
    fn try_from(wire: WireCutoff) -> Result<Self, FeedDecodeError> {
        let WireCutoff { dim, iss, val, before, until } = wire;
        Ok(Self {
            dimension: Dimension::of(&dim).ok_or(FeedDecodeError::Unknown)?,
            issuer: iss,
            value: val,
            issued_before: before.map(UnixSeconds),
            until: UnixSeconds(until),
        })
    }
}

impl From<&Plan> for WirePlan {
    fn from(plan: &Plan) -> Self {
        let Plan { name, limit, window_seconds } = plan;
        Self { name: name.as_str().to_owned(), limit: *limit, window: *window_seconds }
    }
}

impl TryFrom<WirePlan> for Plan {
    type Error = FeedDecodeError;

    fn try_from(wire: WirePlan) -> Result<Self, FeedDecodeError> {
        let WirePlan { name, limit, window } = wire;
        let name = crate::id::PlanName::new(&name).ok_or(FeedDecodeError::Payload)?;
        Self::new(name, limit, window).ok_or(FeedDecodeError::Payload)
    }
}
