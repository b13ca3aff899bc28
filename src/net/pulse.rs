//! Signs of life: how often each core's loop has turned. Does not know who looks, or what is done about a core that
//! stands.

use crate::base::ids::CoreId;
use std::sync::atomic::{AtomicU64, Ordering};

/// The pulses of all cores.
#[derive(Debug)]
pub struct Pulses(Vec<Pulse>);

/// On a cache line of its own: its core writes it every turn.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Pulse(AtomicU64);

/// The pulse of a core that has come to its end: it has no more turns, and nobody expects any.
const ENDED: u64 = u64::MAX;

impl Pulses {
    /// Cores that have not turned yet.
    #[must_use]
    pub fn new(cores: usize) -> Pulses {
        Pulses((0..cores).map(|_| Pulse::default()).collect())
    }

    /// `core` has come round once more. Only the core itself says this: a load and a store are enough.
    pub fn beat(&self, core: CoreId) {
        let pulse = &self.0[core.index()].0;
        pulse.store(pulse.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// `core` has drained, and its loop is over.
    pub fn end(&self, core: CoreId) {
        self.0[core.index()].0.store(ENDED, Ordering::Relaxed);
    }

    /// How often each core has turned; `None` for one that has ended.
    pub fn read(&self) -> impl Iterator<Item = Option<u64>> {
        self.0.iter().map(|pulse| Some(pulse.0.load(Ordering::Relaxed)).filter(|turns| *turns != ENDED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_counted_by_core_until_its_end() {
        let pulses = Pulses::new(2);
        let read = || pulses.read().collect::<Vec<_>>();
        assert_eq!(read(), [Some(0), Some(0)]);
        pulses.beat(CoreId::new(1));
        pulses.beat(CoreId::new(1));
        assert_eq!(read(), [Some(0), Some(2)]);
        pulses.end(CoreId::new(1));
        pulses.beat(CoreId::new(0));
        assert_eq!(read(), [Some(1), None]);
    }
}
