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

/// Codes strictly ascending `indices`, none below `base`.
pub(super) fn encode(base: u32, indices: impl Iterator<Item = u32> + Clone) -> CodedGaps {
    let (count, last) =
        indices.clone().fold((0u32, base), |(count, _), index| (count.saturating_add(1), index));
    let remainder_bits = best_remainder_bits(count, last.saturating_sub(base));
    let mut writer = BitWriter::default();
    let mut next = u64::from(base);
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

/// Decodes at most `count_max` indices from `base` on into `sink`; `None` when the bytes are not a whole set.
pub(super) fn decode(coded: &CodedGaps, base: u32, count_max: u32, mut sink: impl FnMut(u32)) -> Option<()> {
    if coded.count > count_max || coded.remainder_bits > 31 {
        return None;
    }
    let mut reader = BitReader { bytes: &coded.bits, place: 0 };
    let mut next = u64::from(base);
    for _ in 0..coded.count {
        let gap = reader.unary()? << coded.remainder_bits | reader.number(u32::from(coded.remainder_bits))?;
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

/// So many bits of a window are there whatever the place, if the bytes do not end.
const WINDOW_BITS: u32 = 57;

impl BitReader<'_> {
    /// The bits from here on, the first of them highest. Beyond the end they are zeros.
    fn window(&self) -> u64 {
        let rest = self.bytes.get(self.place / 8..).unwrap_or_default();
        let word = match rest.first_chunk::<8>() {
            Some(eight) => u64::from_be_bytes(*eight),
            None => rest
                .iter()
                .zip((0..8).rev())
                .fold(0, |word, (byte, place)| word | u64::from(*byte) << (8 * place)),
        };
        word << (self.place % 8)
    }

    fn skip(&mut self, bits: u32) -> Option<()> {
        self.place += bits as usize;
        (self.place <= self.bytes.len() * 8).then_some(())
    }

    /// How many ones there are before the next zero.
    fn unary(&mut self) -> Option<u64> {
        let mut ones = 0;
        loop {
            let more = self.window().leading_ones().min(WINDOW_BITS);
            ones += u64::from(more);
            if more < WINDOW_BITS {
                self.skip(more + 1)?;
                return Some(ones);
            }
            self.skip(more)?;
        }
    }

    /// A number of at most 31 bits.
    fn number(&mut self, bits: u32) -> Option<u64> {
        let number = self.window().checked_shr(64 - bits).unwrap_or_default();
        self.skip(bits)?;
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn decoded(coded: &CodedGaps, count_max: u32) -> Option<Vec<u32>> {
        let mut indices = Vec::new();
        decode(coded, 0, count_max, |index| indices.push(index)).map(|()| indices)
    }

    proptest! {
        #[test]
        fn any_set_survives_coding(set in proptest::collection::btree_set(any::<u32>(), 0..300)) {
            let indices: Vec<u32> = set.iter().copied().collect();
            let coded = encode(0, indices.iter().copied());
            prop_assert_eq!(decoded(&coded, 300), Some(indices));
        }

        #[test]
        fn a_set_is_coded_from_its_base_on(base: u32, set in proptest::collection::btree_set(any::<u16>(), 0..300)) {
            let indices: Vec<u32> = set.iter().filter_map(|place| base.checked_add(u32::from(*place))).collect();
            let coded = encode(base, indices.iter().copied());
            let mut found = Vec::new();
            prop_assert_eq!(decode(&coded, base, 300, |index| found.push(index)), Some(()));
            prop_assert_eq!(found, indices);
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
        let mut coded = encode(0, [3, 70_000, 70_001, u32::MAX].into_iter());
        coded.bits.pop();
        assert_eq!(decoded(&coded, 10), None);
    }

    #[test]
    fn more_than_allowed_is_refused() {
        assert_eq!(decoded(&encode(0, 0..11), 10), None);
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
        let bytes = encode(0, set.iter().copied()).bits.len();
        assert!(bytes < 10_400, "{bytes} bytes");
    }
}
