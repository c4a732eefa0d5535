//! Decides how a snapshot is divided: an edge may take its head alone, and then its pieces in parts, so that no answer is so large
//! that copying it holds up requests.
//!
//! A part is named by the digest of the head and by its first piece. So it never changes, a cache may keep it, and a replica
//! that has another snapshot has no such part.

use std::ops::Range;

use sha2::{Digest, Sha256};

use crate::id::hex;

/// A snapshot that is no larger in all comes at once, in bytes: so every answer to a poll is small enough for a slow link.
pub const WHOLE_BYTES: usize = 64 * 1024;
/// A part ends with the piece that brings it to so many bytes.
pub const PART_BYTES: usize = 512 * 1024;

/// Names a snapshot: the SHA-256 of the envelope that it begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SnapshotId([u8; 32]);

impl SnapshotId {
    /// That of the snapshot with this envelope.
    #[must_use]
    pub fn of(envelope: &[u8]) -> Self {
        Self(Sha256::digest(envelope).into())
    }

    /// 64 hexadecimal digits.
    #[must_use]
    pub fn to_hex(self) -> String {
        hex(&self.0)
    }
}

/// Where in the body of a snapshot what is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotLayout {
    /// The envelope is so long.
    pub(super) envelope_bytes: usize,
    /// Where each piece ends.
    pub(super) piece_ends: Vec<usize>,
}

impl SnapshotLayout {
    /// Where the envelope is.
    #[must_use]
    pub fn envelope(&self) -> Range<usize> {
        0..self.envelope_bytes
    }

    /// Where what comes first is: all of it if it has no more than so many bytes, or else the envelope alone.
    #[must_use]
    pub fn first(&self, whole_bytes: usize) -> Range<usize> {
        let end = self.piece_ends.last().copied().unwrap_or(self.envelope_bytes);
        if end <= whole_bytes { 0..end } else { self.envelope() }
    }

    /// Where the part is that begins with the piece of this number and has at least so many bytes, if there are as many; `None`
    /// when there is no such piece.
    #[must_use]
    pub fn part(&self, first: usize, bytes: usize) -> Option<Range<usize>> {
        let rest = self.piece_ends.get(first..)?;
        let last = rest.last()?;
        let start =
            first.checked_sub(1).map_or(Some(&self.envelope_bytes), |before| self.piece_ends.get(before));
        let start = *start?;
        let end = rest.iter().find(|end| **end - start >= bytes).unwrap_or(last);
        Some(start..*end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parts_from_the_first_piece_on_are_the_whole_of_it(
            envelope_bytes in 1..50usize,
            sizes in proptest::collection::vec(1..40usize, 0..30),
            bytes in 0..100usize,
        ) {
            let ends = sizes.iter().scan(envelope_bytes, |end, size| {
                *end += size;
                Some(*end)
            });
            let layout = SnapshotLayout { envelope_bytes, piece_ends: ends.collect() };
            let end = envelope_bytes + sizes.iter().sum::<usize>();
            prop_assert_eq!((layout.first(end), layout.first(end - 1).end), (0..end, envelope_bytes));
            let (mut place, mut first) = (layout.envelope().end, 0);
            while let Some(part) = layout.part(first, bytes) {
                prop_assert_eq!(part.start, place);
                prop_assert!(part.end > part.start);
                let count = layout.piece_ends.iter().filter(|end| part.contains(&(**end - 1))).count();
                let but_one = layout.piece_ends.get(first + count - 1).map_or(0, |end| end - sizes[first + count - 1]);
                prop_assert!(but_one - part.start < bytes.max(1), "it ends as soon as it may");
                place = part.end;
                first += count;
            }
            prop_assert_eq!(place, end);
            prop_assert_eq!(first, sizes.len());
        }
    }

    #[test]
    fn a_snapshot_is_named_by_its_envelope() {
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(SnapshotId::of(b"abc").to_hex(), hex);
    }
}
