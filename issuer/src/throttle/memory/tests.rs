use super::*;
use crate::throttle::tests::StillHost;

const ROOM: usize = 4;
const RATE: (u64, u64, u64) = (1, 1000, 2);

fn key(kind: Kind, n: u8) -> Key {
    Key { kind, digest: [n; 16] }
}

fn rate() -> Rate {
    let (limit, period_ms, burst) = RATE;
    Rate::new(limit, period_ms, burst)
}

fn ladder() -> Ladder {
    Ladder { free: 1, first_ms: 1000, max_ms: 1000, failures_max: 100, lock_ms: 5000, memory_ms: 2000 }
}

fn take(state: &mut State, n: u8, now: u64) -> Result<Turn, CounterError> {
    state.rate(&key(Kind::AddressRate, n), rate(), Count::One, now)
}

fn attempt(state: &mut State, n: u8, now: u64) -> Result<Rung, CounterError> {
    state.ladder(&key(Kind::Account, n), ladder(), Step::Attempt, now)
}

#[test]
fn a_key_too_many_is_refused_and_no_lock_is_forgotten_for_it() {
    let mut state = State::new(ROOM);
    for n in 0..4 {
        attempt(&mut state, n, 0).unwrap();
    }
    for n in 4..100 {
        assert!(matches!(attempt(&mut state, n, 1), Err(CounterError::Full)));
    }
    for n in 0..4 {
        assert_eq!(attempt(&mut state, n, 1).unwrap(), Rung::Delayed(999));
    }
    // Looking makes no record, so there is nothing to refuse.
    let look = state.ladder(&key(Kind::Account, 9), ladder(), Step::Look, 1).unwrap();
    assert_eq!(look, Rung::Free(0));
    let look = state.rate(&key(Kind::AddressRate, 9), rate(), Count::Nothing, 1).unwrap();
    assert_eq!(look, Turn::Now);
    // What is over makes room.
    assert_eq!(attempt(&mut state, 9, 2000).unwrap(), Rung::Free(3000));
    assert_eq!(state.tables[&Kind::Account].weight, 1);
}

#[test]
fn made_up_names_do_not_keep_others_from_logging_in() {
    let mut state = State::new(ROOM);
    let patient = Ladder { free: 2, memory_ms: 1_000_000, ..ladder() };
    let mut attempt =
        |n, now| state.ladder(&key(Kind::Account, n), patient, Step::Attempt, now).map_err(|_| "full");
    // One account is delayed; the names after it have failed once each, and fill the room again and again.
    assert!(matches!(attempt(0, 0), Ok(Rung::Free(_))));
    assert!(matches!(attempt(0, 0), Ok(Rung::Free(_))));
    for n in 1..200 {
        assert!(matches!(attempt(n, u64::from(n)), Ok(Rung::Free(_))), "{n}");
    }
    assert!(matches!(attempt(0, 200), Ok(Rung::Delayed(_))), "what is delayed stays so");
}

#[test]
fn kinds_do_not_crowd_each_other_out() {
    let mut state = State::new(ROOM);
    for n in 0..4 {
        take(&mut state, n, 0).unwrap();
    }
    assert!(matches!(take(&mut state, 4, 0), Err(CounterError::Full)));
    attempt(&mut state, 4, 0).unwrap();
    // One that is there already is counted on.
    assert_eq!(take(&mut state, 0, 0).unwrap(), Turn::Now);
    assert_eq!(take(&mut state, 0, 0).unwrap(), Turn::In(1000));
}

#[test]
fn members_of_a_set_take_room_too() {
    let mut state = State::new(ROOM);
    let distinct = Distinct { limit: 3, window_ms: 100, excess: super::super::rule::Excess::Stays };
    let mut see = |set, member, now| {
        state.distinct(&key(Kind::AddressSeen, set), distinct, &[member; 16], now).map_err(|_| ())
    };
    for member in 0..3 {
        assert_eq!(see(1, member, 0), Ok(Crowd::Few));
    }
    assert_eq!(see(2, 0, 1), Ok(Crowd::Few));
    assert_eq!(see(2, 1, 1), Err(()));
    assert_eq!(see(1, 1, 1), Ok(Crowd::Few));
    assert_eq!(see(2, 1, 101), Ok(Crowd::Few));
    assert!(state.tables[&Kind::AddressSeen].weight <= ROOM);
}

#[test]
fn a_record_is_gone_once_it_is_over() {
    let mut state = State::new(1000);
    for n in 0..200 {
        take(&mut state, n, u64::from(n)).unwrap();
        attempt(&mut state, n, u64::from(n)).unwrap();
    }
    take(&mut state, 0, 10_000).unwrap();
    attempt(&mut state, 0, 10_000).unwrap();
    for kind in [Kind::AddressRate, Kind::Account] {
        let table = &state.tables[&kind];
        assert_eq!((table.records.len(), table.expiries.len(), table.weight), (1, 1, 1));
    }
    state.clear(&key(Kind::Account, 0));
    assert_eq!(attempt(&mut state, 0, 10_000).unwrap(), Rung::Free(11_000));
}

#[tokio::test]
async fn the_clock_is_the_hosts_monotonic_one() {
    let host = StillHost::at(0);
    let counters = MemoryCounters::new(ROOM, host.clone());
    let key = key(Kind::Account, 1);
    let attempt = async || counters.ladder(&key, ladder(), Step::Attempt).await.unwrap();
    assert!(matches!(attempt().await, Standing::Free(_)));
    assert_eq!(attempt().await, Standing::Delayed(1000));
    host.advance(1000);
    assert!(matches!(attempt().await, Standing::Free(_)));
}
