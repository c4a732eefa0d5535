//! Makes machines, dates and databases fail now and then, and has everything well again.

use super::{REPLICAS, World};
use crate::database::Order;
use crate::network::{Cut, Fault};

impl World {
    pub(super) fn make_trouble(&mut self) {
        self.bring_back();
        let network = &mut self.network;
        let (crash, away) = (Fault::ReplicaCrashed, Fault::DatabaseAway);
        if network.happens(crash, &mut self.random) {
            self.crash_replica();
        }
        if self.network.happens(away, &mut self.random) {
            self.database.is_up = false;
            self.database_back_at = self.now + self.random.between(100, 8_000);
            self.tell("the database is away".to_owned());
        }
        if self.network.happens(Fault::IssuerDateJumped, &mut self.random) {
            let ahead = self.random.around_zero(self.case.issuer_date_wrong);
            self.set_issuer_date(ahead);
        }
        if self.network.happens(Fault::Suspended, &mut self.random) {
            let millis = self.random.below(self.case.suspended_max);
            self.now += millis;
            self.tell(format!("everything stood still for {millis} ms"));
        }
        for place in 0..self.processes.len() {
            self.trouble_process(place);
        }
    }

    fn trouble_process(&mut self, place: usize) {
        if self.network.happens(Fault::EdgeDateJumped, &mut self.random) {
            self.processes[place].date_ahead = self.random.around_zero(self.case.edge_date_wrong);
            self.tell(format!("the date of {place} is ahead by {}", self.processes[place].date_ahead));
        }
        if self.network.happens(Fault::Partitioned, &mut self.random) {
            let cut = [Cut::Silent, Cut::Refused, Cut::Replaying, Cut::Replaying][self.random.place(4)];
            let until = self.now + self.random.below(150_000);
            self.network.cuts.insert(place, (cut, until));
            self.tell(format!("{place} is cut off, {cut:?}, until {until}"));
        }
        if !self.processes[place].is_up() {
            return;
        }
        if self.network.happens(Fault::VmReplaced, &mut self.random) {
            let vm = self.random.place(self.processes[place].vms.len());
            self.tell(format!("VM {vm} of {place} is replaced"));
            self.replace_vm(place, vm);
        }
        if self.network.happens(Fault::ProcessCrashed, &mut self.random) {
            self.crash_process(place);
        }
    }

    pub(crate) fn crash_process(&mut self, place: usize) {
        self.tell(format!("process {place} crashes"));
        self.processes[place].down_until = Some(self.now + self.random.below(3_000));
        let network = &mut self.network;
        self.processes[place].vms.iter().for_each(|vm| network.hang_up(vm.number));
    }

    pub(crate) fn crash_replica(&mut self) {
        let place = self.random.place(REPLICAS);
        self.tell(format!("replica {place} crashes"));
        self.stop_replica(place, false);
        self.back_at[place] = self.now + self.random.between(100, 15_000);
    }

    pub(crate) fn set_issuer_date(&mut self, ahead: i64) {
        self.tell(format!("the issuer's date is ahead by {ahead}"));
        self.set_right.push((self.now, self.issuer_ahead));
        self.issuer_ahead = ahead;
    }

    fn bring_back(&mut self) {
        if !self.database.is_up && self.now >= self.database_back_at {
            self.database.is_up = true;
        }
        for place in 0..REPLICAS {
            if self.replicas[place].is_none() && self.now >= self.back_at[place] && self.database.is_up {
                self.start_replica(place);
            }
        }
        for place in 0..self.processes.len() {
            if self.processes[place].down_until.is_some_and(|until| self.now >= until) {
                self.start_process(place);
            }
        }
    }

    /// Everything goes right from now on: dates are right, everybody is there.
    pub(crate) fn calm_down(&mut self) {
        self.tell("calm".to_owned());
        self.network.calm_down();
        (self.database.is_up, self.database_back_at) = (true, self.now);
        self.set_issuer_date(0);
        self.back_at = vec![self.now; REPLICAS];
        for process in &mut self.processes {
            process.date_ahead = 0;
            process.down_until = process.down_until.map(|_| self.now);
        }
        self.bring_back();
        // Keys that were made and never published are published with the next.
        self.database.order(Order::AddKey, 0);
    }
}
