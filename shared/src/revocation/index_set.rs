//! Guards the set of revoked status indices: exact, compressed, and shed a block at a time once its tokens expired.
//!
//! To bring a thousand scattered indices into a bitmap of a million takes as long as several requests. So a run of many is
//! looked up as it came, from the moment that it is added, and brought into the bitmap later, a few at a time.

use std::borrow::Cow;

use roaring::RoaringBitmap;

use crate::time::UnixSeconds;

/// Indices are handed to issuer replicas in blocks of this many: one Roaring container, which expires as a whole.
pub const BLOCK_INDICES: u32 = 1 << 16;
/// Indices of one Token Status List: sixteen blocks.
pub const LIST_INDICES: u32 = 1 << 20;
/// The most revoked indices an edge holds. A feed that brings more is refused, the state grows stale, and the hard
/// limit then refuses protected routes: never growth without bound, never a forgotten revocation.
pub const REVOKED_MAX: u32 = 12_000_000;

/// The place of one token in the issuer's status lists: `list * LIST_INDICES + idx`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StatusIndex(pub u32);

impl StatusIndex {
    /// Bit `idx` of list number `list`; `None` beyond the end of the list or of all lists.
    #[must_use]
    pub fn in_list(list: u32, idx: u32) -> Option<Self> {
        if idx >= LIST_INDICES {
            return None;
        }
        list.checked_mul(LIST_INDICES)?.checked_add(idx).map(Self)
    }

    /// Bit `idx` of the list at `uri`, if that is one of the lists of the issuer `issuer`, written as [`list_uri`] does.
    #[must_use]
    pub fn from_reference(issuer: &str, uri: &str, idx: u32) -> Option<Self> {
        let list = uri.strip_prefix(issuer)?.strip_prefix("/v1/status/")?.parse().ok()?;
        // Only one spelling: no sign, no leading zeros.
        if list_uri(issuer, list) == uri { Self::in_list(list, idx) } else { None }
    }

    /// The number of its list, and its bit there.
    #[must_use]
    pub fn list_and_bit(self) -> (u32, u32) {
        (self.0 / LIST_INDICES, self.0 % LIST_INDICES)
    }

    /// The block it lies in.
    #[must_use]
    pub fn block(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

/// Where the list number `list` of the issuer `issuer` is published.
#[must_use]
pub fn list_uri(issuer: &str, list: u32) -> String {
    format!("{issuer}/v1/status/{list}")
}

/// When the last token of a block expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockExpiry {
    /// The block's number: its indices divided by [`BLOCK_INDICES`].
    pub block: u16,
    /// No token of the block lives beyond this.
    pub expires_at: UnixSeconds,
}

/// Revoked indices and the expiry of the blocks they lie in.
#[derive(Debug, Clone, Default)]
pub struct IndexSet {
    revoked: RoaringBitmap,
    /// Those that are not in the bitmap yet: runs of descending indices, none of them empty, the oldest first.
    runs: Vec<Vec<StatusIndex>>,
    /// When blocks expire, ascending by block.
    blocks: Vec<BlockExpiry>,
    /// No block expires before this; so that a look for expired ones is made only when there may be some.
    first_expiry: Option<UnixSeconds>,
}

/// What is known of the past is not part of what a set is.
impl PartialEq for IndexSet {
    fn eq(&self, other: &Self) -> bool {
        self.whole() == other.whole() && self.blocks == other.blocks
    }
}

/// Of a block with fewer new indices than this they are added one by one: a bit for each index of the block costs more.
const FEW: usize = 64;
/// A run of so many indices is worth a list of its own.
const RUN_MIN: usize = 64;
/// So many runs there are at most: each is looked into for every token.
const RUNS_MAX: usize = 4;

impl IndexSet {
    /// Whether this index is revoked.
    #[must_use]
    pub fn contains(&self, index: StatusIndex) -> bool {
        self.revoked.contains(index.0) || self.runs.iter().any(|run| is_in_run(run, index))
    }

    /// Adds the indices of one message. Many are left to [`Self::settle`]; what is not settled when more come is settled here.
    pub fn add(&mut self, mut indices: Vec<StatusIndex>) {
        if indices.len() < RUN_MIN {
            return self.extend(indices);
        }
        if self.runs.len() >= RUNS_MAX {
            let oldest = self.runs.remove(0);
            self.extend(oldest);
        }
        indices.sort_unstable_by(|one, other| other.cmp(one));
        self.runs.push(indices);
    }

    /// Brings at most so many indices into the bitmap; tells whether that was all there were. They are in force before and after.
    pub fn settle(&mut self, count: usize) -> bool {
        if let Some(oldest) = self.runs.first_mut() {
            let lowest = oldest.split_off(oldest.len().saturating_sub(count));
            self.revoked.extend(lowest.into_iter().rev().map(|index| index.0));
            if oldest.is_empty() {
                self.runs.remove(0);
            }
        }
        self.is_settled()
    }

    /// Whether all indices are in the bitmap.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.runs.is_empty()
    }

    /// All of them as a bitmap.
    fn whole(&self) -> Cow<'_, RoaringBitmap> {
        if self.runs.is_empty() {
            return Cow::Borrowed(&self.revoked);
        }
        let mut whole = self.revoked.clone();
        whole.extend(self.runs.iter().flatten().map(|index| index.0));
        Cow::Owned(whole)
    }

    /// Adds revoked indices.
    pub fn extend(&mut self, indices: impl IntoIterator<Item = StatusIndex>) {
        self.revoked.extend(indices.into_iter().map(|index| index.0));
    }

    /// Adds ascending indices, in no more memory than they need: a set that is extended one by one has up to twice of that.
    pub fn extend_ascending(&mut self, indices: &[StatusIndex]) {
        let mut added = RoaringBitmap::new();
        let mut bits: Vec<u8> = Vec::new();
        for of_block in indices.chunk_by(|one, next| one.block() == next.block()) {
            let [first, ..] = of_block else { continue };
            if of_block.len() < FEW {
                added.extend(of_block.iter().map(|index| index.0));
                continue;
            }
            let base = u32::from(first.block()) * BLOCK_INDICES;
            bits.clear();
            bits.resize(BLOCK_INDICES as usize / 8, 0);
            for index in of_block {
                let place = index.0 - base;
                if let Some(byte) = bits.get_mut(place as usize / 8) {
                    *byte |= 1 << (place % 8);
                }
            }
            added |= RoaringBitmap::from_lsb0_bytes(base, &bits);
        }
        self.revoked |= added;
    }

    /// Learns when blocks expire. A later date replaces an earlier one and never the reverse.
    pub fn learn_expiries(&mut self, expiries: impl IntoIterator<Item = BlockExpiry>) {
        // A message tells of blocks in order, often of hundreds: each is looked for close to the one before.
        let (mut place, mut new) = (0, Vec::new());
        for told @ BlockExpiry { block, expires_at } in expiries {
            place = self.place_of(block, place);
            match self.blocks.get_mut(place) {
                Some(known) if known.block == block => known.expires_at = known.expires_at.max(expires_at),
                Some(_) | None => new.push(told),
            }
            self.first_expiry = Some(self.first_expiry.map_or(expires_at, |first| first.min(expires_at)));
        }
        match *new {
            [] => return,
            [only] => {
                let place = self.place_of(only.block, place);
                return self.blocks.insert(place, only);
            }
            _ => {}
        }
        // All at once: each alone would move what comes after it.
        self.blocks.append(&mut new);
        self.blocks.sort_by_key(|known| known.block);
        self.blocks.dedup_by(|again, known| {
            let is_known = again.block == known.block;
            if is_known {
                known.expires_at = known.expires_at.max(again.expires_at);
            }
            is_known
        });
    }

    /// Where a block is among those whose expiry is known, or would be; it is most often soon after `near`.
    fn place_of(&self, block: u16, near: usize) -> usize {
        const STEPS: usize = 8;
        let close = self.blocks.get(near..).unwrap_or_default();
        let steps = close.iter().take(STEPS).take_while(|known| known.block < block).count();
        let is_after = near.checked_sub(1).and_then(|before| self.blocks.get(before));
        if steps < STEPS && is_after.is_none_or(|before| before.block < block) {
            near + steps
        } else {
            self.blocks.partition_point(|known| known.block < block)
        }
    }

    /// Drops every block that expired before `horizon`. A block whose expiry is not known is kept.
    pub fn drop_expired(&mut self, horizon: UnixSeconds) {
        if self.first_expiry.is_none_or(|first| first >= horizon) {
            return;
        }
        let Self { revoked, runs, blocks, .. } = self;
        let is_over = |block: u16| {
            let place = blocks.binary_search_by_key(&block, |known| known.block);
            place.ok().and_then(|place| blocks.get(place)).is_some_and(|known| known.expires_at < horizon)
        };
        runs.iter_mut().for_each(|run| run.retain(|index| !is_over(index.block())));
        runs.retain(|run| !run.is_empty());
        blocks.retain(|known| {
            let is_over = known.expires_at < horizon;
            if is_over {
                let first = u32::from(known.block) * BLOCK_INDICES;
                revoked.remove_range(first..=first + (BLOCK_INDICES - 1));
            }
            !is_over
        });
        self.first_expiry = self.blocks.iter().map(|known| known.expires_at).min();
    }

    /// How many indices are revoked. One that is told of again counts twice until it is settled.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.revoked.len() + self.runs.iter().map(|run| run.len() as u64).sum::<u64>()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.revoked.is_empty() && self.runs.is_empty()
    }

    /// All revoked indices, ascending.
    pub fn iter(&self) -> impl Iterator<Item = StatusIndex> + '_ {
        let (borrowed, owned) = match self.whole() {
            Cow::Borrowed(whole) => (Some(whole.iter()), None),
            Cow::Owned(whole) => (None, Some(whole.into_iter())),
        };
        borrowed.into_iter().flatten().chain(owned.into_iter().flatten()).map(StatusIndex)
    }

    /// When this block expires, if that is known.
    #[must_use]
    pub fn expiry(&self, block: u16) -> Option<BlockExpiry> {
        self.blocks.get(self.place_of(block, 0)).filter(|known| known.block == block).copied()
    }
}

fn is_in_run(run: &[StatusIndex], index: StatusIndex) -> bool {
    run.binary_search_by(|known| index.cmp(known)).is_ok()
}

#[cfg(test)]
mod tests;
