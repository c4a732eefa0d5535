//! Writes the bits of a status list as the Token Status List draft has them: one for each token, compressed.

use std::io::{self, Write as _};

use base64ct::{Base64UrlUnpadded, Encoding};
use flate2::Compression;
use flate2::write::ZlibEncoder;
use tollgate_shared::revocation::LIST_INDICES;

/// The bits of one list: 0 is valid, 1 is invalid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusBits(Vec<u8>);

impl StatusBits {
    /// A list in which these are invalid. What lies beyond its end is in no list.
    #[must_use]
    pub fn revoking(indices: &[u32]) -> Self {
        Self::sized(LIST_INDICES, indices)
    }

    fn sized(statuses: u32, revoked: &[u32]) -> Self {
        let mut bytes = vec![0; usize::try_from(statuses.div_ceil(8)).unwrap_or_default()];
        for index in revoked {
            let place = usize::try_from(index / 8).unwrap_or(usize::MAX);
            if let Some(byte) = bytes.get_mut(place) {
                // The first status is the lowest bit.
                *byte |= 1 << (index % 8);
            }
        }
        Self(bytes)
    }

    /// The bits, the first status in the lowest bit of the first byte.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// `lst`: DEFLATE in the zlib format at the highest level, as base64url without padding.
    ///
    /// # Errors
    /// What compresses failed, which it cannot when it writes to memory.
    pub fn lst(&self) -> io::Result<String> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&self.0)?;
        Ok(Base64UrlUnpadded::encode_string(&encoder.finish()?))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Read as _;

    use flate2::read::ZlibDecoder;
    use proptest::prelude::*;

    use super::*;

    /// The statuses in `lst`, as whoever checks a token reads them.
    pub(crate) fn read(lst: &str, bits: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let compressed = Base64UrlUnpadded::decode_vec(lst).unwrap();
        ZlibDecoder::new(compressed.as_slice()).read_to_end(&mut bytes).unwrap();
        let each = |byte: u8| (0..8 / bits).map(move |place| (byte >> (place * bits)) & ((1 << bits) - 1));
        bytes.into_iter().flat_map(each).collect()
    }

    #[test]
    fn the_vector_of_the_draft_is_written_and_read() {
        let bits = StatusBits::sized(16, &[0, 3, 4, 5, 7, 8, 9, 13, 15]);
        assert_eq!(bits.bytes(), [0xb9, 0xa3]);
        assert_eq!(bits.lst().unwrap(), "eNrbuRgAAhcBXQ");
        assert_eq!(read("eNrbuRgAAhcBXQ", 1), [1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0, 1]);
        // Two bits for each: read as others write them.
        assert_eq!(read("eNo76fITAAPfAgc", 2), [1, 2, 0, 3, 0, 1, 0, 1, 1, 2, 3, 3]);
    }

    #[test]
    fn a_list_without_a_revocation_is_short_and_one_beyond_its_end_is_nowhere() {
        let none = StatusBits::revoking(&[]);
        assert!(none.lst().unwrap().len() < 256);
        assert_eq!(StatusBits::revoking(&[LIST_INDICES, u32::MAX]), none);
        assert_eq!(read(&none.lst().unwrap(), 1).len(), 1 << 20);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn exactly_what_is_revoked_is_read_as_invalid(
            revoked in proptest::collection::btree_set(0..LIST_INDICES, 0..400)
        ) {
            let indices: Vec<u32> = revoked.iter().copied().collect();
            let statuses = read(&StatusBits::revoking(&indices).lst().unwrap(), 1);
            let found: Vec<u32> =
                (0..LIST_INDICES).zip(&statuses).filter(|(_, status)| **status == 1).map(|(index, _)| index).collect();
            prop_assert_eq!(found, indices);
        }
    }
}
