//! The order of requests that came in on different cores. What clients do on several connections takes effect in the
//! order in which it reached this host: a poll that is aborted before the next one comes must have been there first,
//! whichever cores the kernel gave the two connections to. Knows times and cores, not what requests are.
//!
//! Each core publishes up to when it has handed over whatever came in on it. A request waits until that is later than
//! its own coming on all cores, a turn of theirs at most; then requests go by the kernel's own times of arrival.

use super::sys;
use crate::base::ids::{CoreId, SlotRef};
use smallvec::SmallVec;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU64, Ordering};

/// A core that does not get on, as when the machine is overloaded, is not waited for any longer.
const PATIENCE_NS: u64 = 50_000_000;

/// How far all cores are.
#[derive(Debug)]
pub struct Horizons(Vec<Horizon>);

/// On a cache line of its own: its core writes it every turn.
#[derive(Debug)]
#[repr(align(64))]
struct Horizon {
    /// Whatever came in on the core before this has been read, and what belongs to other cores handed over.
    /// Nanoseconds on the cores' clock.
    until: AtomicU64,
    /// What the core does: [`AWAKE`], [`ASLEEP`] or [`LISTENING`].
    state: AtomicU8,
    /// The core's listener, or -1: connections that wait there are not read.
    backlog: AtomicI32,
}

/// The core is at work: it gets on by itself.
const AWAKE: u8 = 0;
/// The core sleeps, and there is nothing that it has not read but what may be in its backlog.
const ASLEEP: u8 = 1;
/// The core sleeps, but has connections that have said nothing yet: what they say meanwhile is found when it wakes.
const LISTENING: u8 = 2;

impl Horizons {
    /// All cores at the beginning.
    #[must_use]
    pub fn new(cores: usize) -> Horizons {
        let horizon = || Horizon { until: AtomicU64::new(0), state: AtomicU8::new(AWAKE), backlog: AtomicI32::new(-1) };
        Horizons((0..cores).map(|_| horizon()).collect())
    }

    /// Whose connections wait on listener `backlog`; -1 from before it is closed.
    pub(super) fn listens(&self, core: CoreId, backlog: RawFd) {
        self.0[core.index()].backlog.store(backlog, Ordering::SeqCst);
    }

    /// `core` has got to `until`.
    pub(super) fn advance(&self, core: CoreId, until: u64) {
        self.0[core.index()].until.store(until, Ordering::Release);
    }

    /// `core` has nothing to do, and sleeps; `unheard` connections of it have said nothing yet.
    pub(super) fn sleeps(&self, core: CoreId, unheard: usize) {
        let state = if unheard > 0 { LISTENING } else { ASLEEP };
        self.0[core.index()].state.store(state, Ordering::SeqCst);
    }

    /// `core` is awake. Before it accepts anything, so that a connection is always either in the backlog of a core that
    /// sleeps or behind the horizon of one that does not.
    pub(super) fn wakes(&self, core: CoreId) {
        self.0[core.index()].state.store(AWAKE, Ordering::SeqCst);
    }

    /// Everything that came in on other cores than `me` before this is in the rings; at most `now`. Calls `wake` for
    /// cores that have to look before more can be said.
    pub(super) fn settled(&self, me: CoreId, now: u64, mut wake: impl FnMut(CoreId)) -> u64 {
        let others = || self.0.iter().enumerate().filter(|(index, _)| *index != me.index());
        let mut settled = now;
        let mut asleep: SmallVec<[&Horizon; 8]> = SmallVec::new();
        for (index, horizon) in others() {
            let state = horizon.state.load(Ordering::SeqCst);
            if state == ASLEEP {
                asleep.push(horizon);
                continue;
            }
            settled = settled.min(horizon.until.load(Ordering::SeqCst));
            if state == LISTENING {
                wake(CoreId::new(index));
            }
        }
        let backlogs: SmallVec<[RawFd; 8]> = asleep.iter().map(|h| h.backlog.load(Ordering::SeqCst)).collect();
        let waiting = !backlogs.is_empty() && sys::any_readable(&backlogs);
        for horizon in asleep {
            // A core that woke in between may have emptied its backlog without having got any further.
            if waiting || horizon.state.load(Ordering::SeqCst) != ASLEEP {
                settled = settled.min(horizon.until.load(Ordering::SeqCst));
            }
        }
        settled
    }
}

/// Requests that wait for those that came before them.
#[derive(Debug, Default)]
pub(super) struct Parking(Vec<Parked>);

#[derive(Debug)]
struct Parked {
    at: SlotRef,
    /// When the kernel got it: nanoseconds of `CLOCK_REALTIME`.
    arrived: u64,
    /// When it was read: nanoseconds on the cores' clock.
    read: u64,
}

impl Parking {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn park(&mut self, at: SlotRef, arrived: u64, read: u64) {
        self.0.push(Parked { at, arrived, read });
    }

    /// Those that need not wait any longer, in their order, into `ready`. `settled` is [`Horizons::settled`], asked for
    /// before the rings were emptied for the last time.
    pub(super) fn leave(&mut self, settled: u64, now: u64, ready: &mut Vec<SlotRef>) {
        // Stable: what came on one core at the same time was read in its order.
        self.0.sort_by_key(|parked| parked.arrived);
        let waits = |parked: &Parked| parked.read > settled && now.saturating_sub(parked.read) < PATIENCE_NS;
        let count = self.0.iter().position(waits).unwrap_or(self.0.len());
        ready.extend(self.0.drain(..count).map(|parked| parked.at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(slot: u32) -> SlotRef {
        SlotRef { slot, generation: 0 }
    }

    #[test]
    fn requests_go_by_their_arrival_once_all_cores_are_past_it() {
        let mut parking = Parking::default();
        parking.park(at(1), 70, 1_100);
        parking.park(at(2), 50, 1_200);
        parking.park(at(3), 90, 1_000);
        let mut ready = Vec::new();
        // The first to have come was read last: the others wait for it.
        parking.leave(1_150, 1_300, &mut ready);
        assert_eq!(ready, []);
        parking.leave(1_200, 1_300, &mut ready);
        assert_eq!(ready, [at(2), at(1), at(3)]);
        assert!(parking.is_empty());
    }

    #[test]
    fn a_core_that_does_not_get_on_is_not_waited_for_for_ever() {
        let mut parking = Parking::default();
        parking.park(at(1), 1, 1_000);
        let mut ready = Vec::new();
        parking.leave(0, 1_000 + PATIENCE_NS - 1, &mut ready);
        assert_eq!(ready, []);
        parking.leave(0, 1_000 + PATIENCE_NS, &mut ready);
        assert_eq!(ready, [at(1)]);
    }

    #[test]
    fn the_slowest_core_decides() {
        let (me, other, third) = (CoreId::new(0), CoreId::new(1), CoreId::new(2));
        let horizons = Horizons::new(3);
        let settled = || {
            let mut woken = Vec::new();
            (horizons.settled(me, 100, |core| woken.push(core)), woken)
        };
        assert_eq!(settled(), (0, vec![]), "nobody has got anywhere");
        horizons.advance(other, 40);
        horizons.advance(third, 60);
        assert_eq!(settled(), (40, vec![]));
        horizons.sleeps(other, 0);
        assert_eq!(settled(), (60, vec![]), "who sleeps has nothing");
        horizons.sleeps(third, 0);
        assert_eq!(settled(), (100, vec![]));
        horizons.sleeps(third, 1);
        assert_eq!(settled(), (60, vec![third]), "who sleeps with a silent connection has to look");
        horizons.sleeps(third, 0);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        horizons.listens(other, std::os::fd::AsRawFd::as_raw_fd(&listener));
        assert_eq!(settled(), (100, vec![]));
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(settled(), (40, vec![]), "a connection waits for a core that sleeps");
        horizons.wakes(other);
        assert_eq!(settled(), (40, vec![]));
    }
}
