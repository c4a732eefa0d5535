//! Codes a sorted set of indices as Golomb–Rice gaps, the coding of BIP 158, close to the entropy of a random set.
//!
//! *What comes in when decoding:* bytes under the feed's signature, so from the issuer, but perhaps damaged by a
//! defect. *What goes out:* strictly ascending indices, at most as many as the caller allows. *What is lost if this is
//! wrong:* a revocation.

/// A coded set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CodedGaps {
    /// How many indices there are.
    pub count: u32,
    /// Bits of each gap's remainder, 0 to 31.
    pub remainder_bits: u8,
    /// Quotients in unary (ones, then a zero) and remainders, most significant bit first, padded with zeros.
    pub bits: Vec<u8>,
}

/// Codes strictly ascending `indices`.
pub(super) fn encode(indices: impl Iterator<Item = u32> + Clone) -> CodedGaps {
    let (count, last) =
        indices.clone().fold((0u32, 0u32), |(count, _), index| (count.saturating_add(1), index));
    let remainder_bits = best_remainder_bits(count, last);
    let mut writer = BitWriter::default();
    let mut next = 0u64;
    for index in indices {
        let gap = u64::from(index).saturating_sub(next);
        next = u64::from(index) + 1;
        for _ in 0..(gap >> remainder_bits) {
            writer.push(true);
        }
        writer.push(false);
        for bit in (0..remainder_bits).rev() {
            writer.push(gap >> bit & 1 == 1);
        }
    }
    CodedGaps { count, remainder_bits, bits: writer.bytes }
}

/// Decodes at most `count_max` indices into `sink`; `None` when the bytes are not a whole set.
pub(super) fn decode(coded: &CodedGaps, count_max: u32, mut sink: impl FnMut(u32)) -> Option<()> {
    if coded.count > count_max || coded.remainder_bits > 31 {
        return None;
    }
    let mut reader = BitReader { bytes: &coded.bits, place: 0 };
    let mut next = 0u64;
    for _ in 0..coded.count {
        let mut gap = 0u64;
        while reader.next()? {
            gap += 1;
        }
        for _ in 0..coded.remainder_bits {
            gap = gap << 1 | u64::from(reader.next()?);
        }
        let index = u32::try_from(next.checked_add(gap)?).ok()?;
        sink(index);
        next = u64::from(index) + 1;
    }
    Some(())
}

/// The remainder size that is best for a random set of this density: the mean gap times ln 2, as a power of two.
fn best_remainder_bits(count: u32, last: u32) -> u8 {
    let mean_gap = u64::from(last) / u64::from(count.max(1));
    let scaled = mean_gap * 69 / 100;
    u8::try_from(scaled.max(1).ilog2()).unwrap_or_default()
}

#[derive(Default)]
struct BitWriter {
    bytes: Vec<u8>,
    used: u8,
}

impl BitWriter {
    fn push(&mut self, bit: bool) {
        if self.used == 0 {
            self.bytes.push(0);
        }
        if let (true, Some(byte)) = (bit, self.bytes.last_mut()) {
            *byte |= 0x80 >> self.used;
        }
        self.used = (self.used + 1) % 8;
    }
}

struct BitReader<'b> {
    bytes: &'b [u8],
    place: usize,
}

impl BitReader<'_> {
    fn next(&mut self) -> Option<bool> {
        let byte = self.bytes.get(self.place / 8)?;
        let bit = byte << (self.place % 8) & 0x80 != 0;
        self.place += 1;
        Some(bit)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn decoded(coded: &CodedGaps, count_max: u32) -> Option<Vec<u32>> {
        let mut indices = Vec::new();
        decode(coded, count_max, |index| indices.push(index)).map(|()| indices)
    }

    proptest! {
        #[test]
        fn any_set_survives_coding(set in proptest::collection::btree_set(any::<u32>(), 0..300)) {
            let indices: Vec<u32> = set.iter().copied().collect();
            let coded = encode(indices.iter().copied());
            prop_assert_eq!(decoded(&coded, 300), Some(indices));
        }

        #[test]
        fn damaged_bytes_never_panic(bits in proptest::collection::vec(any::<u8>(), 0..64), count: u32, remainder_bits: u8) {
            if let Some(indices) = decoded(&CodedGaps { count, remainder_bits, bits }, 1000) {
                prop_assert!(indices.windows(2).all(|pair| pair[0] < pair[1]));
            }
        }
    }

    #[test]
    fn a_truncated_set_is_refused() {
        let mut coded = encode([3, 70_000, 70_001, u32::MAX].into_iter());
        coded.bits.pop();
        assert_eq!(decoded(&coded, 10), None);
    }

    #[test]
    fn more_than_allowed_is_refused() {
        assert_eq!(decoded(&encode(0..11), 10), None);
    }

    #[test]
    fn a_random_set_is_near_its_entropy() {
        // One in a hundred of a million, spread by a fixed multiplicative generator: the entropy is 10 098 bytes.
        let mut state = 1u64;
        let mut set = BTreeSet::new();
        while set.len() < 10_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            set.insert((state >> 33) as u32 % 1_000_000);
        }
        let bytes = encode(set.iter().copied()).bits.len();
        assert!(bytes < 10_400, "{bytes} bytes");
    }
}
