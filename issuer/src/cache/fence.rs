//! Decides whether what was read from the store may be kept: not if it has changed since the reading began.
//!
//! Without this, a reader that is slow would put back what a change has just removed, and an entry that nobody removes again
//! would stay for its whole life. Who wants the same thing at once travels in one flight, so that it is read once.

use std::collections::BTreeMap;

/// What is being read. `C` is what those who wait for the same thing share.
///
/// There is a flight for a key only while somebody waits for it, so their number is bounded by that of requests.
#[derive(Debug, Default)]
pub(super) struct Fence<C> {
    flights: BTreeMap<String, Flight<C>>,
    /// Numbers flights, so that one that was overtaken by a change is not taken for its successor.
    last: u64,
}

#[derive(Debug)]
struct Flight<C> {
    number: u64,
    riders: usize,
    shared: C,
}

/// A place in a flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

/// Whether what was read may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing has changed since before it was read.
    Keep,
    /// It may be old. Who waited for it may have it, because they asked before the change was acknowledged.
    Discard,
}

impl<C: Clone + Default> Fence<C> {
    /// Boards the flight that is under way for this key, or a new one. Who boards leaves or lands.
    pub(super) fn board(&mut self, key: &str) -> (Ticket, C) {
        if let Some(flight) = self.flights.get_mut(key) {
            flight.riders += 1;
            return (Ticket(flight.number), flight.shared.clone());
        }
        self.last = self.last.wrapping_add(1);
        let flight = Flight { number: self.last, riders: 1, shared: C::default() };
        let place = (Ticket(flight.number), flight.shared.clone());
        self.flights.insert(key.to_owned(), flight);
        place
    }

    /// The reading has ended. Who comes from now on boards another flight.
    pub(super) fn land(&mut self, key: &str, ticket: Ticket) -> Verdict {
        if self.flights.get(key).is_some_and(|flight| flight.number == ticket.0) {
            self.flights.remove(key);
            return Verdict::Keep;
        }
        Verdict::Discard
    }

    /// Somebody waits no more. A flight that has nobody left is over.
    pub(super) fn leave(&mut self, key: &str, ticket: Ticket) {
        let Some(flight) = self.flights.get_mut(key).filter(|flight| flight.number == ticket.0) else {
            return;
        };
        flight.riders = flight.riders.saturating_sub(1);
        if flight.riders == 0 {
            self.flights.remove(key);
        }
    }

    /// This has changed: what is being read of it is not kept, and nobody who asks from now on gets it.
    pub(super) fn changed(&mut self, key: &str) {
        self.flights.remove(key);
    }

    /// Anything may have changed.
    pub(super) fn all_changed(&mut self) {
        self.flights.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// What can happen to one key, one step at a time. Readers are numbered.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        /// Asks the cache, and boards a flight if there is nothing.
        Ask(usize),
        /// Reads the store, if it is the first of its flight.
        Read(usize),
        /// Keeps what it read, if it may.
        End(usize),
        /// Goes away before it has an answer.
        Leave(usize),
        /// Changes the store; nobody has been told.
        Commit,
        /// Removes what is kept, and acknowledges the change.
        Tell,
    }

    const READERS: usize = 4;
    const KEY: &str = "k";

    #[derive(Debug, Default)]
    struct Reader {
        /// The version that was acknowledged when it asked: it must not be told an older one.
        owed: u64,
        place: Option<(Ticket, u64)>,
    }

    /// A cache of one key around the fence, a store that counts its versions, and what was promised.
    #[derive(Debug, Default)]
    struct World {
        fence: Fence<()>,
        kept: Option<u64>,
        stored: u64,
        acknowledged: u64,
        /// What each flight has read so far.
        read: BTreeMap<Ticket, u64>,
        readers: [Reader; READERS],
    }

    impl World {
        fn step(&mut self, step: Step) -> Result<(), String> {
            match step {
                Step::Ask(number) if self.readers[number].place.is_none() => {
                    if let Some(kept) = self.kept {
                        return self.told(kept, self.acknowledged);
                    }
                    let (ticket, ()) = self.fence.board(KEY);
                    self.readers[number] =
                        Reader { owed: self.acknowledged, place: Some((ticket, self.stored)) };
                }
                Step::Read(number) => {
                    if let Some((ticket, _)) = self.readers[number].place {
                        self.read.entry(ticket).or_insert(self.stored);
                    }
                }
                Step::End(number) => {
                    let Some((ticket, _)) = self.readers[number].place else { return Ok(()) };
                    let Some(value) = self.read.get(&ticket).copied() else { return Ok(()) };
                    if self.fence.land(KEY, ticket) == Verdict::Keep {
                        self.kept = Some(value);
                    }
                    let owed = self.readers[number].owed;
                    self.readers[number].place = None;
                    self.told(value, owed)?;
                }
                Step::Leave(number) => {
                    if let Some((ticket, _)) = self.readers[number].place.take() {
                        self.fence.leave(KEY, ticket);
                    }
                }
                Step::Commit => self.stored += 1,
                Step::Tell => {
                    let stored = self.stored;
                    self.fence.changed(KEY);
                    self.kept = None;
                    self.acknowledged = stored;
                }
                Step::Ask(_) => {}
            }
            let idle = self.readers.iter().all(|reader| reader.place.is_none());
            if idle && !self.fence.flights.is_empty() {
                return Err("a flight without riders".to_owned());
            }
            Ok(())
        }

        fn told(&self, value: u64, owed: u64) -> Result<(), String> {
            if value < owed { Err(format!("told {value} after {owed} was acknowledged")) } else { Ok(()) }
        }
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let reader = 0..READERS;
        let step = prop_oneof![
            reader.clone().prop_map(Step::Ask),
            reader.clone().prop_map(Step::Read),
            reader.clone().prop_map(Step::End),
            reader.prop_map(Step::Leave),
            Just(Step::Commit),
            Just(Step::Tell),
        ];
        prop::collection::vec(step, 1..60)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn nobody_is_told_less_than_was_acknowledged_before_they_asked(steps in steps()) {
            let mut world = World::default();
            for (place, step) in steps.iter().enumerate() {
                world.step(*step).map_err(|broken| TestCaseError::fail(format!("step {place}: {broken}")))?;
            }
        }
    }

    /// Every order of two readers with a change, to the end: the interleavings a scheduler could choose.
    #[test]
    fn every_interleaving_of_two_readers_and_two_changes_keeps_the_promise() {
        fn explore(left: [&[Step]; 3], done: &mut Vec<Step>, seen: &mut u32) {
            let mut ended = true;
            for actor in 0..left.len() {
                let Some((step, rest)) = left[actor].split_first() else { continue };
                ended = false;
                let mut next = left;
                next[actor] = rest;
                done.push(*step);
                explore(next, done, seen);
                done.pop();
            }
            if ended {
                *seen += 1;
                let mut world = World::default();
                for step in done.iter() {
                    world.step(*step).unwrap_or_else(|broken| panic!("{broken}: {done:?}"));
                }
                assert!(world.kept.is_none_or(|kept| kept == world.stored), "old value is kept: {done:?}");
            }
        }
        let reader = |number| [Step::Ask(number), Step::Read(number), Step::End(number)];
        let change = [Step::Commit, Step::Tell, Step::Commit, Step::Tell];
        let (first, second) = (reader(0), reader(1));
        let mut seen = 0;
        explore([&first, &second, &change], &mut Vec::new(), &mut seen);
        assert_eq!(seen, 4200);
    }

    #[test]
    fn what_was_read_before_a_change_is_not_kept_and_later_readers_do_not_wait_for_it() {
        let mut fence = Fence::<()>::default();
        let (before, ()) = fence.board(KEY);
        fence.changed(KEY);
        let (after, ()) = fence.board(KEY);
        assert_ne!(before, after);
        assert_eq!(fence.land(KEY, before), Verdict::Discard);
        assert_eq!(fence.land(KEY, after), Verdict::Keep);
    }

    #[test]
    fn those_who_want_the_same_share_a_flight_until_all_are_gone() {
        let mut fence = Fence::<()>::default();
        let (first, ()) = fence.board(KEY);
        let (second, ()) = fence.board(KEY);
        assert_eq!(first, second);
        fence.leave(KEY, first);
        assert_eq!(fence.board(KEY).0, second);
        fence.leave(KEY, second);
        fence.leave(KEY, second);
        assert!(fence.flights.is_empty());
    }

    #[test]
    fn when_anything_may_have_changed_nothing_under_way_is_kept() {
        let mut fence = Fence::<()>::default();
        let tickets = ["a", "b"].map(|key| (key, fence.board(key).0));
        fence.all_changed();
        for (key, ticket) in tickets {
            assert_eq!(fence.land(key, ticket), Verdict::Discard);
        }
    }
}
