//! The board on which the VMs of one process leave each other what the leader heard: the latest messages of the feed, a
//! snapshot for who has none, the key sets of foreign issuers, who enforces what, and who wants what.
//!
//! *What comes in:* bytes that any VM of this process wrote, perhaps of another version of this module. *What goes out:*
//! records that have the right form; what they say of the feed is believed only under the issuer's signature, by whoever
//! reads it. *What is lost if this is wrong:* freshness.
//!
//! The values are few and never removed, because the host never forgets one: a ring of deltas, the pieces of one snapshot
//! (emptied when it is of no use any more), and one record of each other kind.

mod record;

use tollgate_shared::revocation::{FeedMessage, Position};

use super::shared_data::{NotWritten, SharedData, Version};
pub(super) use record::{FORM, Head, KeyRecord, Lease, SnapshotRecord, Vm, Vms};

/// So many deltas are kept. Who falls further behind takes the snapshot.
pub(super) const RING: u64 = 512;
/// The most VMs of one process whose positions are known.
pub(super) const VMS_MAX: usize = 256;
/// How often a change of a record is tried again when somebody else changed it meanwhile.
const TRIES_MAX: usize = 8;

/// What one VM or another wants of the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// A snapshot.
    Snapshot,
    /// That the feed is polled now.
    Poll,
    /// The key set of the provider of this place.
    Keys(usize),
}

impl Want {
    fn bit(self) -> u32 {
        match self {
            Self::Snapshot => 1,
            Self::Poll => 2,
            // There are at most 16 providers.
            Self::Keys(place) => 4 << place.min(28),
        }
    }
}

/// A snapshot of which some pieces are on the board.
#[derive(Debug)]
pub(super) struct SnapshotDraft {
    pieces: u32,
}

/// The board of one configuration.
#[derive(Debug)]
pub(super) struct Board<S> {
    data: S,
    /// Stands before every name: filters with another origin have another board.
    prefix: String,
}

impl<S: SharedData> Board<S> {
    pub(super) fn new(data: S, prefix: String) -> Self {
        Self { data, prefix }
    }

    fn read(&self, name: &str) -> Option<(Vec<u8>, Version)> {
        self.data.read(&format!("{}{name}", self.prefix))
    }

    fn write(&self, name: &str, value: &[u8], version: Option<Version>) -> Result<(), NotWritten> {
        self.data.write(&format!("{}{name}", self.prefix), value, version)
    }

    pub(super) fn lease(&self) -> Option<(Lease, Version)> {
        let (value, version) = self.read("lease")?;
        // One that cannot be read is nobody's.
        Some((Lease::decode(&value).unwrap_or_default(), version))
    }

    /// Creates what is changed by whoever is quicker. Whoever else creates it writes the same.
    pub(super) fn create(&self) {
        let empty: [(&str, &[u8]); 3] = [("lease", &Lease::default().encode()), ("wants", &[]), ("vms", &[])];
        for (name, value) in empty {
            if self.read(name).is_none() {
                let _ = self.write(name, value, None);
            }
        }
    }

    pub(super) fn write_lease(&self, lease: Lease, version: Version) -> Result<(), NotWritten> {
        self.write("lease", &lease.encode(), Some(version))
    }

    /// What was published up to now. One that cannot be read is none.
    pub(super) fn head(&self) -> Option<(Head, Version)> {
        let (value, version) = self.read("head")?;
        Some((Head::decode(&value)?, version))
    }

    /// Writes the head over that of this version, which it was made from.
    ///
    /// # Errors
    /// [`NotWritten`] when somebody else published meanwhile.
    pub(super) fn write_head(&self, head: &Head, version: Option<Version>) -> Result<(), NotWritten> {
        self.write("head", &head.encode(), version)
    }

    /// Adds a delta after those that `head` counts.
    pub(super) fn push_delta(&self, head: &mut Head, message: &FeedMessage, envelope: &[u8]) {
        let mut slot = head.deltas.to_be_bytes().to_vec();
        slot.extend_from_slice(envelope);
        // What is not written is missed by who looks for it, and who misses something takes a snapshot.
        let _ = self.write(&format!("delta.{}", head.deltas % RING), &slot, None);
        head.deltas += 1;
        head.position = message.to;
        if head.snapshot.is_some_and(|snapshot| head.deltas.saturating_sub(snapshot.deltas) > RING) {
            self.drop_snapshot(head);
        }
    }

    /// The envelope of the delta of this number, if it is there still.
    pub(super) fn delta(&self, number: u64) -> Option<Vec<u8>> {
        let (slot, _) = self.read(&format!("delta.{}", number % RING))?;
        let (written, envelope) = slot.split_first_chunk::<8>()?;
        (u64::from_be_bytes(*written) == number).then(|| envelope.to_vec())
    }

    /// Begins to write a snapshot down, in the place of the one that `head` names. It is in use when the head names it.
    pub(super) fn begin_snapshot(&self, head: Option<&mut Head>, envelope: &[u8]) -> SnapshotDraft {
        if let Some(head) = head {
            self.drop_snapshot(head);
        }
        let _ = self.write("snapshot", envelope, None);
        SnapshotDraft { pieces: 0 }
    }

    /// Writes its next piece. What the host does not give is no piece, and who takes it asks for another snapshot.
    pub(super) fn write_piece(&self, draft: &mut SnapshotDraft, piece: &[u8]) {
        let _ = self.write(&format!("piece.{}", draft.pieces), piece, None);
        draft.pieces += 1;
    }

    /// It is all there, and leads to `position`.
    pub(super) fn end_snapshot(
        &self,
        draft: SnapshotDraft,
        head: &mut Head,
        position: Position,
    ) -> SnapshotRecord {
        let SnapshotDraft { pieces } = draft;
        // Of one that was longer, or was never finished.
        let mut unused = pieces;
        while self.piece(unused as usize).is_some_and(|piece| !piece.is_empty()) {
            let _ = self.write(&format!("piece.{unused}"), &[], None);
            unused += 1;
        }
        head.snapshots += 1;
        SnapshotRecord { number: head.snapshots, pieces, position, deltas: head.deltas }
    }

    /// Gives back the memory of a snapshot that is of no use.
    fn drop_snapshot(&self, head: &mut Head) {
        let Some(snapshot) = head.snapshot.take() else { return };
        for piece in 0..snapshot.pieces {
            let _ = self.write(&format!("piece.{piece}"), &[], None);
        }
    }

    pub(super) fn snapshot(&self) -> Option<Vec<u8>> {
        self.read("snapshot").map(|(envelope, _)| envelope)
    }

    pub(super) fn piece(&self, number: usize) -> Option<Vec<u8>> {
        self.read(&format!("piece.{number}")).map(|(piece, _)| piece)
    }

    /// Asks the leader for something.
    pub(super) fn want(&self, want: Want) {
        self.change("wants", |wants| {
            let wanted = number(wants);
            (wanted & want.bit() == 0).then(|| (wanted | want.bit()).to_be_bytes().to_vec())
        });
    }

    /// Whether somebody asks for this; nobody does afterwards.
    pub(super) fn take_want(&self, want: Want) -> bool {
        self.change("wants", |wants| {
            let wanted = number(wants);
            (wanted & want.bit() != 0).then(|| (wanted & !want.bit()).to_be_bytes().to_vec())
        })
    }

    /// Changes a record as long as somebody else is not quicker; tells whether it was changed.
    fn change(&self, name: &str, change: impl Fn(&[u8]) -> Option<Vec<u8>>) -> bool {
        for _ in 0..TRIES_MAX {
            let (value, version) = match self.read(name) {
                Some((value, version)) => (value, Some(version)),
                None => (Vec::new(), None),
            };
            match change(&value) {
                Some(changed) if self.write(name, &changed, version).is_ok() => return true,
                Some(_) => {}
                None => return false,
            }
        }
        false
    }

    /// What the leader last heard of a foreign issuer's keys, if it is other than the record of this version.
    pub(super) fn keys(&self, place: usize, known: Option<Version>) -> Option<(KeyRecord, Version)> {
        let (value, version) = self.read(&format!("keys.{place}"))?;
        if known == Some(version) { None } else { Some((KeyRecord::decode(&value)?, version)) }
    }

    pub(super) fn write_keys(&self, place: usize, record: &KeyRecord) {
        let _ = self.write(&format!("keys.{place}"), &record.encode(), None);
    }

    /// Writes down what this VM enforces, and forgets who has not done so for long; tells whether others were not quicker each
    /// time.
    pub(super) fn sign_in(&self, vm: Vm) -> bool {
        self.change("vms", |value| {
            let mut vms = Vms::decode(value).unwrap_or_default();
            vms.sign_in(vm);
            Some(vms.encode())
        })
    }

    pub(super) fn vms(&self) -> Vms {
        self.read("vms").and_then(|(value, _)| Vms::decode(&value)).unwrap_or_default()
    }

    /// By what the issuer knows this process: what the first VM proposed.
    pub(super) fn instance(&self, proposed: u128) -> u128 {
        let known = || Some(u128::from_be_bytes(self.read("instance")?.0.try_into().ok()?));
        known().unwrap_or_else(|| {
            let _ = self.write("instance", &proposed.to_be_bytes(), None);
            known().unwrap_or(proposed)
        })
    }
}

fn number(value: &[u8]) -> u32 {
    value.try_into().map(u32::from_be_bytes).unwrap_or_default()
}

impl Head {
    /// The snapshot of the board, if who takes it finds all deltas that follow on it.
    pub(super) fn usable_snapshot(&self) -> Option<SnapshotRecord> {
        self.snapshot.filter(|snapshot| self.deltas.saturating_sub(snapshot.deltas) <= RING)
    }
}

#[cfg(test)]
mod tests;
