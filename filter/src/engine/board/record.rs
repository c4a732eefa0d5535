//! The records of the board: their fields, in a fixed order, numbers with the highest byte first. A first byte says which
//! form it is; another form is read as nothing.

use tollgate_shared::revocation::{Epoch, Place, Position};
use tollgate_shared::time::{Monotonic, UnixMillis};

use super::VMS_MAX;

/// The form that this code writes and reads.
pub(in crate::engine) const FORM: u8 = 1;
/// A VM that has not signed in for so long is gone, in milliseconds.
const GONE_MILLIS: u64 = 3_000;

/// Who leads, and how often that was renewed. Nobody is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::engine) struct Lease {
    pub(in crate::engine) holder: u128,
    pub(in crate::engine) beat: u64,
}

/// What was published so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) struct Head {
    /// The history it is of.
    pub(in crate::engine) epoch: Epoch,
    /// Where the last delta leads to.
    pub(in crate::engine) position: Position,
    /// The issuer's time there.
    pub(in crate::engine) as_of: UnixMillis,
    /// How far the issuer's log is known to go.
    pub(in crate::engine) known_end: Position,
    /// What the issuer's clock showed at an instant of the process's monotonic clock.
    pub(in crate::engine) clock: (UnixMillis, Monotonic),
    /// How many deltas there were; the last [`super::RING`] of them are on the board.
    pub(in crate::engine) deltas: u64,
    /// How many snapshots there were.
    pub(in crate::engine) snapshots: u64,
    /// The snapshot on the board.
    pub(in crate::engine) snapshot: Option<SnapshotRecord>,
    /// Whether the issuer was heard to have no more than this, since this history was begun: a snapshot may have been made a
    /// while ago.
    pub(in crate::engine) is_proven: bool,
    /// The envelope of the last message without news: a proof of freshness.
    pub(in crate::engine) fresh: Vec<u8>,
}

/// The snapshot on the board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct SnapshotRecord {
    /// Which one.
    pub(in crate::engine) number: u64,
    /// In how many pieces.
    pub(in crate::engine) pieces: u32,
    /// Where it leads.
    pub(in crate::engine) position: Position,
    /// The number of the first delta that follows on it.
    pub(in crate::engine) deltas: u64,
}

/// What the leader last heard of a foreign issuer's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) struct KeyRecord {
    /// When, on the process's monotonic clock.
    pub(in crate::engine) fetched_at: Monotonic,
    /// The JWK Set.
    pub(in crate::engine) jwks: Vec<u8>,
}

/// One VM, and what it enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct Vm {
    pub(in crate::engine) id: u128,
    /// Where it is; the zero epoch when it has no state.
    pub(in crate::engine) epoch: Epoch,
    pub(in crate::engine) position: Position,
    /// Since when, on the process's monotonic clock.
    pub(in crate::engine) since: Monotonic,
    /// When it last signed in, on the same clock.
    pub(in crate::engine) signed_in: Monotonic,
}

/// All VMs of the process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::engine) struct Vms(pub(in crate::engine) Vec<Vm>);

impl Vms {
    /// Notes this one, and forgets those that are gone. One too many is not noted.
    pub(super) fn sign_in(&mut self, vm: Vm) {
        let Self(vms) = self;
        vms.retain(|known| known.id != vm.id && vm.signed_in.since(known.signed_in) < GONE_MILLIS);
        if vms.len() < VMS_MAX {
            vms.push(vm);
        }
    }

    /// The position that every VM enforces, and since when; `None` when one of them has no state of this epoch, or when there
    /// may be more VMs than are known.
    pub(in crate::engine) fn enforced(&self, epoch: Epoch) -> Option<(Position, Monotonic)> {
        let Self(vms) = self;
        let lowest = vms.iter().map(|vm| vm.position).min()?;
        if vms.len() >= VMS_MAX || vms.iter().any(|vm| vm.epoch != epoch) {
            return None;
        }
        let since = vms.iter().filter(|vm| vm.position == lowest).map(|vm| vm.since).max()?;
        Some((lowest, since))
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn new() -> Self {
        Self(vec![FORM])
    }

    fn number(mut self, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
}

struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn new(value: &'b [u8]) -> Option<Self> {
        value.split_first().filter(|(form, _)| **form == FORM).map(|(_, rest)| Self(rest))
    }

    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*bytes)
    }

    fn number(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_be_bytes)
    }
}

impl Lease {
    pub(super) fn encode(self) -> Vec<u8> {
        Writer::new().bytes(&self.holder.to_be_bytes()).number(self.beat).0
    }

    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(value)?;
        Some(Self { holder: u128::from_be_bytes(reader.bytes()?), beat: reader.number()? })
    }
}

impl Head {
    /// Of a history that begins at this place.
    pub(in crate::engine) fn new(place: Place, known_end: Position, clock: (UnixMillis, Monotonic)) -> Self {
        let Place { epoch, position, as_of } = place;
        let (deltas, snapshots, snapshot, is_proven, fresh) = (0, 0, None, false, Vec::new());
        Self { epoch, position, as_of, known_end, clock, deltas, snapshots, snapshot, is_proven, fresh }
    }

    pub(in crate::engine) fn place(&self) -> Place {
        Place { epoch: self.epoch, position: self.position, as_of: self.as_of }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let Self { epoch, position, as_of, known_end, clock, deltas, snapshots, snapshot, is_proven, fresh } =
            self;
        let written = Writer::new().bytes(&epoch.0).number(position.0).number(as_of.0).number(known_end.0);
        let written = written.number(clock.0.0).number(clock.1.0).number(*deltas).number(*snapshots);
        let written = match snapshot {
            Some(SnapshotRecord { number, pieces, position, deltas }) => written
                .bytes(&[1])
                .number(*number)
                .number(u64::from(*pieces))
                .number(position.0)
                .number(*deltas),
            None => written.bytes(&[0]),
        };
        written.bytes(&[u8::from(*is_proven)]).bytes(fresh).0
    }

    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(value)?;
        let epoch = Epoch(reader.bytes()?);
        let position = Position(reader.number()?);
        let as_of = UnixMillis(reader.number()?);
        let known_end = Position(reader.number()?);
        let clock = (UnixMillis(reader.number()?), Monotonic(reader.number()?));
        let (deltas, snapshots) = (reader.number()?, reader.number()?);
        let snapshot = match reader.bytes::<1>()? {
            [0] => None,
            [_] => Some(SnapshotRecord {
                number: reader.number()?,
                pieces: u32::try_from(reader.number()?).ok()?,
                position: Position(reader.number()?),
                deltas: reader.number()?,
            }),
        };
        let is_proven = reader.bytes::<1>()? == [1];
        let fresh = reader.0.to_vec();
        Some(Self { epoch, position, as_of, known_end, clock, deltas, snapshots, snapshot, is_proven, fresh })
    }
}

impl KeyRecord {
    pub(super) fn encode(&self) -> Vec<u8> {
        Writer::new().number(self.fetched_at.0).bytes(&self.jwks).0
    }

    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(value)?;
        Some(Self { fetched_at: Monotonic(reader.number()?), jwks: reader.0.to_vec() })
    }
}

impl Vms {
    pub(super) fn encode(&self) -> Vec<u8> {
        let one = |written: Writer, vm: &Vm| {
            let Vm { id, epoch, position, since, signed_in } = vm;
            let written = written.bytes(&id.to_be_bytes()).bytes(&epoch.0);
            written.number(position.0).number(since.0).number(signed_in.0)
        };
        self.0.iter().fold(Writer::new(), one).0
    }

    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(value)?;
        let mut vms = Vec::new();
        while !reader.0.is_empty() && vms.len() < VMS_MAX {
            vms.push(Vm {
                id: u128::from_be_bytes(reader.bytes()?),
                epoch: Epoch(reader.bytes()?),
                position: Position(reader.number()?),
                since: Monotonic(reader.number()?),
                signed_in: Monotonic(reader.number()?),
            });
        }
        Some(Self(vms))
    }
}
