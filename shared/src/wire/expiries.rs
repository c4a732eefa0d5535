//! Codes when blocks of status indices expire: for each, ascending, the blocks passed over and the seconds after the earliest expiry,
//! both as LEB128. In a storm that is a quarter of what a list of pairs would be, and as much less to take apart.
//!
//! *What comes in when decoding:* bytes under the feed's signature, so from the issuer, but perhaps damaged by a defect. *What
//! goes out:* strictly ascending blocks, at most all there are. *What is lost if this is wrong:* a revocation, if its block
//! is taken for expired.

use serde::{Deserialize, Serialize};

use crate::revocation::BlockExpiry;
use crate::time::UnixSeconds;

/// Coded expiries: the earliest of them, in seconds since 1970, and the blocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WireExpiries(u64, #[serde(with = "serde_bytes")] Vec<u8>);

impl WireExpiries {
    /// Codes these, which may be in any order; of a block that is there twice the later expiry. `None` when there are none.
    pub(super) fn encode(expiries: &[BlockExpiry]) -> Option<Self> {
        let first = expiries.iter().map(|known| known.expires_at.0).min()?;
        let mut blocks: Vec<(u16, u64)> =
            expiries.iter().map(|known| (known.block, known.expires_at.0 - first)).collect();
        blocks.sort_unstable_by(|one, other| (one.0, other.1).cmp(&(other.0, one.1)));
        blocks.dedup_by_key(|(block, _)| *block);
        let (mut bytes, mut next) = (Vec::with_capacity(blocks.len() * 4), 0);
        for (block, after) in blocks {
            write_number(&mut bytes, u64::from(block) - next);
            write_number(&mut bytes, after);
            next = u64::from(block) + 1;
        }
        Some(Self(first, bytes))
    }

    /// What was coded; `None` when that was nothing of the kind.
    pub(super) fn decode(&self) -> Option<Vec<BlockExpiry>> {
        let Self(first, bytes) = self;
        let (mut rest, mut next) = (bytes.as_slice(), 0u64);
        let mut expiries = Vec::with_capacity((bytes.len() / 2).min(1 << 16));
        while !rest.is_empty() {
            let block = u16::try_from(next.checked_add(read_number(&mut rest)?)?).ok()?;
            let expires_at = UnixSeconds(first.checked_add(read_number(&mut rest)?)?);
            expiries.push(BlockExpiry { block, expires_at });
            next = u64::from(block) + 1;
        }
        Some(expiries)
    }
}

fn write_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn read_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let part = u64::from(byte & 0x7f);
        number |= part << shift;
        if *byte < 0x80 {
            // Of the last one only a bit is left.
            return (number >> shift == part).then_some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn expiry((block, seconds): (u16, u64)) -> BlockExpiry {
        BlockExpiry { block, expires_at: UnixSeconds(seconds) }
    }

    proptest! {
        #[test]
        fn any_expiries_survive_coding_in_order_and_the_later_of_two(
            pairs in proptest::collection::vec((any::<u16>(), any::<u64>()), 0..200),
        ) {
            let mut latest = BTreeMap::new();
            for (block, seconds) in &pairs {
                let known = latest.entry(*block).or_insert(*seconds);
                *known = (*known).max(*seconds);
            }
            let coded = WireExpiries::encode(&pairs.into_iter().map(expiry).collect::<Vec<_>>());
            let decoded = coded.map_or(Some(Vec::new()), |coded| coded.decode());
            prop_assert_eq!(decoded, Some(latest.into_iter().map(expiry).collect()));
        }

        #[test]
        fn damaged_bytes_never_panic(first: u64, bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Some(expiries) = WireExpiries(first, bytes).decode() {
                prop_assert!(expiries.windows(2).all(|pair| pair[0].block < pair[1].block));
            }
        }
    }

    #[test]
    fn what_was_cut_off_or_goes_beyond_the_last_block_or_second_is_refused() {
        let whole = WireExpiries::encode(&[expiry((7, 1_000)), expiry((u16::MAX, 2_000))]).unwrap();
        assert_eq!(whole, WireExpiries(1_000, vec![7, 0, 0xf7, 0xff, 0x03, 0xe8, 0x07]));
        for length in 1..whole.1.len() {
            let cut = WireExpiries(1_000, whole.1[..length].to_vec());
            assert_eq!(cut.decode().is_some(), length == 2, "{length}");
        }
        for (first, bytes) in [
            (0, vec![0xff, 0xff, 0x03, 0, 0, 0]),
            (0, vec![0x80, 0x80, 0x04, 0]),
            (u64::MAX, vec![0, 1]),
            (0, vec![0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]),
        ] {
            assert_eq!(WireExpiries(first, bytes.clone()).decode(), None, "{first} {bytes:x?}");
        }
    }
}
