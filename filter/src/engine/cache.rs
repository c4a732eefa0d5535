//! Keeps tokens whose signature was checked, so that it is checked once. Whoever uses an entry still asks whether it
//! expired, lost its key or was revoked.
//!
//! Only verified tokens get in, so a client can fill it no faster than its issuer gives it tokens. It is bounded twice,
//! by entries and by bytes; when full, entries that were not used since the hand last passed make room.

use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;

use super::identity::Identity;

/// The most tokens.
pub(super) const ENTRIES_MAX: usize = 8192;
/// The most bytes of tokens.
const TOKEN_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A cache with second-chance eviction.
#[derive(Default)]
pub(super) struct VerifiedCache {
    places: HashMap<Rc<[u8]>, usize>,
    slots: Vec<Slot>,
    hand: usize,
    token_bytes: usize,
}

struct Slot {
    token: Rc<[u8]>,
    identity: Rc<Identity>,
    used: bool,
}

impl VerifiedCache {
    pub(super) fn find(&mut self, token: &[u8]) -> Option<Rc<Identity>> {
        let slot = self.slots.get_mut(*self.places.get(token)?)?;
        slot.used = true;
        Some(Rc::clone(&slot.identity))
    }

    pub(super) fn insert(&mut self, token: &[u8], identity: Rc<Identity>) {
        self.remove(token);
        while !self.slots.is_empty()
            && (self.slots.len() >= ENTRIES_MAX || self.token_bytes + token.len() > TOKEN_BYTES_MAX)
        {
            self.evict_one();
        }
        let token: Rc<[u8]> = token.into();
        self.token_bytes += token.len();
        self.places.insert(Rc::clone(&token), self.slots.len());
        self.slots.push(Slot { token, identity, used: false });
    }

    pub(super) fn remove(&mut self, token: &[u8]) {
        let Some(place) = self.places.remove(token) else { return };
        if place >= self.slots.len() {
            return;
        }
        let removed = self.slots.swap_remove(place);
        self.token_bytes -= removed.token.len();
        if let Some(moved) = self.slots.get(place) {
            self.places.insert(Rc::clone(&moved.token), place);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    fn evict_one(&mut self) {
        loop {
            if self.hand >= self.slots.len() {
                self.hand = 0;
            }
            let Some(slot) = self.slots.get_mut(self.hand) else { return };
            if slot.used {
                slot.used = false;
                self.hand += 1;
                continue;
            }
            let token = Rc::clone(&slot.token);
            self.remove(&token);
            return;
        }
    }
}

// Its keys are credentials.
impl fmt::Debug for VerifiedCache {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("VerifiedCache").field("len", &self.slots.len()).finish_non_exhaustive()
    }
}
