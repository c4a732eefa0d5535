//! Decides which VM of a process talks to the issuer: one holds a lease in shared data and renews it; when it stops, another
//! takes over.
//!
//! Two may believe for a moment that they lead, because the creation of the lease is not guarded; the one whose renewal is
//! refused steps down. Nothing rests on there being one: what they publish is signed and applied in sequence.

use tollgate_shared::time::Monotonic;

use super::board::{Board, Lease};
use super::shared_data::SharedData;

/// How often a leader renews its lease, and the others look at it, in milliseconds.
const BEAT_MILLIS: u64 = 50;
/// A lease that nobody renewed for so long is free, in milliseconds. Each VM adds up to [`SPREAD_MILLIS`] of its own, so that
/// not all try at once.
const LEASE_MILLIS: u64 = 400;
const SPREAD_MILLIS: u64 = 100;

/// One VM's part in the election.
#[derive(Debug)]
pub(super) struct Election {
    me: u128,
    leads: bool,
    next_look: Monotonic,
    /// The lease that was last seen, and since when it has stood so.
    seen: Option<(Lease, Monotonic)>,
}

impl Election {
    /// `me` is random, and not zero: that is nobody.
    pub(super) fn new(me: u128) -> Self {
        Self { me: me.max(1), leads: false, next_look: Monotonic::default(), seen: None }
    }

    pub(super) fn leads(&self) -> bool {
        self.leads
    }

    /// Leads from now on, whoever does: for tests of what happens when this VM dies.
    pub(super) fn seize<S: SharedData>(&self, board: &Board<S>) -> bool {
        let Some((lease, version)) = board.lease() else { return false };
        let seized = Lease { holder: self.me, beat: lease.beat.wrapping_add(1) };
        board.write_lease(seized, version).is_ok()
    }

    /// Somebody else published: whoever that is leads.
    pub(super) fn step_down(&mut self) {
        self.leads = false;
    }

    /// Renews the lease or looks at it; tells whether this VM has just become the leader.
    pub(super) fn step<S: SharedData>(&mut self, board: &Board<S>, now: Monotonic) -> bool {
        if now < self.next_look {
            return false;
        }
        self.next_look = now.plus(BEAT_MILLIS);
        let Some((lease, version)) = board.lease() else {
            // The same value whoever creates it, so that it does not matter who was last.
            board.create();
            // Not to lose a beat at the start.
            self.next_look = now;
            self.leads = false;
            return false;
        };
        if lease.holder != self.me && !self.is_free(lease, now) {
            self.leads = false;
            return false;
        }
        let led = self.leads && lease.holder == self.me;
        let renewed = Lease { holder: self.me, beat: lease.beat.wrapping_add(1) };
        self.leads = board.write_lease(renewed, version).is_ok();
        self.seen = None;
        self.leads && !led
    }

    fn is_free(&mut self, lease: Lease, now: Monotonic) -> bool {
        if lease.holder == 0 {
            return true;
        }
        match self.seen {
            Some((seen, since)) if seen == lease => {
                now.since(since) >= LEASE_MILLIS + (self.me as u64) % SPREAD_MILLIS
            }
            _ => {
                self.seen = Some((lease, now));
                false
            }
        }
    }
}
