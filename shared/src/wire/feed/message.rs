//! What a message and a piece are in CBOR, and the way from there to what they say.
//!
//! *What comes in:* a payload under the feed's signature, or a piece whose digest is under it; so from the issuer, but perhaps of a
//! later version, or damaged by a defect. *What goes out:* a message that is whole, or the reason why it is none. *What is lost if
//! this is wrong:* a revocation.

use serde::{Deserialize, Serialize};

use super::FeedDecodeError;
use crate::quota::Plan;
use crate::revocation::{
    BlockExpiry, Cutoff, Delta, Dimension, Epoch, FeedChange, FeedMessage, Piece, PieceMark, Position,
    REVOKED_MAX, StatusIndex,
};
use crate::time::{UnixMillis, UnixSeconds};
use crate::wire::expiries::WireExpiries;
use crate::wire::gaps::{self, CodedGaps};

/// The version of the message this code writes and reads.
const VERSION: u64 = 1;

#[derive(Serialize, Deserialize)]
pub(super) struct WireFeed {
    v: u64,
    kind: String,
    #[serde(with = "serde_bytes")]
    epoch: Vec<u8>,
    from: u64,
    to: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    head: Option<u64>,
    as_of: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    revoked: Vec<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    blocks: Option<WireExpiries>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    cutoffs: Vec<WireCutoff>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pieces: Option<Vec<WireMark>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keys: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    plans: Option<Vec<WirePlan>>,
}

#[derive(Serialize, Deserialize)]
struct WireMark(u32, #[serde(with = "serde_bytes")] Vec<u8>);

#[derive(Serialize, Deserialize)]
pub(super) struct WirePiece {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    set: Option<WireSet>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    blocks: Option<WireExpiries>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    cutoffs: Vec<WireCutoff>,
}

#[derive(Serialize, Deserialize)]
struct WireSet {
    base: u32,
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
        let FeedMessage { epoch, to, head, as_of, change, keys, plans } = message;
        let mut wire = Self {
            v: VERSION,
            kind: "snapshot".to_owned(),
            epoch: epoch.0.to_vec(),
            from: 0,
            to: to.0,
            head: (head != to).then_some(head.0),
            as_of: as_of.0,
            revoked: Vec::new(),
            blocks: None,
            cutoffs: Vec::new(),
            pieces: None,
            keys: keys.clone(),
            plans: plans.as_ref().map(|plans| plans.iter().map(WirePlan::from).collect()),
        };
        match change {
            FeedChange::Delta(Delta { from, revoked, blocks, cutoffs }) => {
                wire.kind = "delta".to_owned();
                wire.from = from.0;
                wire.revoked = revoked.iter().map(|index| index.0).collect();
                wire.blocks = WireExpiries::encode(blocks);
                wire.cutoffs = cutoffs.iter().map(WireCutoff::from).collect();
            }
            FeedChange::Snapshot { pieces } => {
                let mark = |mark: &PieceMark| WireMark(mark.size, mark.digest.to_vec());
                wire.pieces = Some(pieces.iter().map(mark).collect());
            }
        }
        wire
    }
}

impl TryFrom<WireFeed> for FeedMessage {
    type Error = FeedDecodeError;

    fn try_from(wire: WireFeed) -> Result<Self, FeedDecodeError> {
        let WireFeed { v, kind, epoch, from, to, head, as_of, revoked, blocks, cutoffs, pieces, keys, plans } =
            wire;
        if v != VERSION {
            return Err(FeedDecodeError::Unknown);
        }
        let change = match (kind.as_str(), pieces) {
            ("delta", None) => FeedChange::Delta(Delta {
                from: Position(from),
                revoked: revoked.into_iter().map(StatusIndex).collect(),
                blocks: expiries(blocks)?,
                cutoffs: cutoffs.into_iter().map(Cutoff::try_from).collect::<Result<_, _>>()?,
            }),
            // What revokes stands in the pieces; beside them it would be passed over.
            ("snapshot", Some(marks)) if revoked.is_empty() && cutoffs.is_empty() => FeedChange::Snapshot {
                pieces: marks.into_iter().map(PieceMark::try_from).collect::<Result<_, _>>()?,
            },
            ("delta" | "snapshot", _) => return Err(FeedDecodeError::Payload),
            _ => return Err(FeedDecodeError::Unknown),
        };
        let plans = plans.map(|plans| plans.into_iter().map(Plan::try_from).collect()).transpose()?;
        Ok(Self {
            epoch: Epoch(epoch.try_into().map_err(|_| FeedDecodeError::Payload)?),
            to: Position(to),
            head: Position(head.unwrap_or(to).max(to)),
            as_of: UnixMillis(as_of),
            change,
            keys,
            plans,
        })
    }
}

impl TryFrom<WireMark> for PieceMark {
    type Error = FeedDecodeError;

    fn try_from(WireMark(size, digest): WireMark) -> Result<Self, FeedDecodeError> {
        Ok(Self { size, digest: digest.try_into().map_err(|_| FeedDecodeError::Payload)? })
    }
}

impl From<&Piece> for WirePiece {
    fn from(piece: &Piece) -> Self {
        match piece {
            Piece::Indices { revoked, blocks } => {
                let base = revoked.first().map_or(0, |index| index.0);
                let CodedGaps { count: n, remainder_bits: p, bits } =
                    gaps::encode(base, revoked.iter().map(|index| index.0));
                Self {
                    set: Some(WireSet { base, n, p, bits }),
                    blocks: WireExpiries::encode(blocks),
                    cutoffs: Vec::new(),
                }
            }
            Piece::Cutoffs(cutoffs) => {
                Self { set: None, blocks: None, cutoffs: cutoffs.iter().map(WireCutoff::from).collect() }
            }
        }
    }
}

impl TryFrom<WirePiece> for Piece {
    type Error = FeedDecodeError;

    fn try_from(wire: WirePiece) -> Result<Self, FeedDecodeError> {
        let WirePiece { set, blocks, cutoffs } = wire;
        match set {
            Some(WireSet { base, n, p, bits }) if cutoffs.is_empty() => {
                // A gap takes more than no bit, so that a short piece cannot ask for much memory.
                let count_max = u64::from(REVOKED_MAX).min(bits.len() as u64 * 8);
                let coded = CodedGaps { count: n, remainder_bits: p, bits };
                let mut revoked = Vec::new();
                gaps::decode(&coded, base, u32::try_from(count_max).unwrap_or(REVOKED_MAX), |index| {
                    revoked.push(StatusIndex(index));
                })
                .ok_or(FeedDecodeError::Payload)?;
                Ok(Self::Indices { revoked, blocks: expiries(blocks)? })
            }
            None if blocks.is_none() => {
                let cutoffs = cutoffs.into_iter().map(Cutoff::try_from).collect::<Result<_, _>>()?;
                Ok(Self::Cutoffs(cutoffs))
            }
            Some(_) | None => Err(FeedDecodeError::Payload),
        }
    }
}

fn expiries(blocks: Option<WireExpiries>) -> Result<Vec<BlockExpiry>, FeedDecodeError> {
    blocks.map_or(Some(Vec::new()), |coded| coded.decode()).ok_or(FeedDecodeError::Payload)
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
