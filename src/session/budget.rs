//! A bound on the memory of all cores' outboxes together: what each core takes, in words that the others can read. Does
//! not know outboxes, nor how a core brings its own down.

use std::sync::atomic::{AtomicU64, Ordering};

/// Shared by all cores. Everything in it is a hint that may be a turn old.
#[derive(Debug)]
pub struct Budget {
    bytes_max: AtomicU64,
    shares: Box<[Share]>,
}

/// What one core says, on a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
struct Share {
    memory: AtomicU64,
    /// [`UNKNOWN`] unless the core has found all cores over the budget.
    largest: AtomicU64,
}

const UNKNOWN: u64 = u64::MAX;

impl Budget {
    /// At most about `bytes_max` for all of `cores` cores; 0: no bound.
    #[must_use]
    pub fn new(cores: usize, bytes_max: u64) -> Budget {
        let share = || Share { memory: AtomicU64::new(0), largest: AtomicU64::new(UNKNOWN) };
        Budget { bytes_max: AtomicU64::new(bytes_max), shares: (0..cores).map(|_| share()).collect() }
    }

    /// What all cores may take together, unless there is no bound.
    #[must_use]
    pub fn bytes_max(&self) -> Option<u64> {
        let bytes_max = self.bytes_max.load(Ordering::Relaxed);
        (bytes_max > 0).then_some(bytes_max)
    }

    /// From here on this is the bound; 0: none.
    pub fn set_bytes_max(&self, bytes_max: u64) {
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
    }

    /// A core takes so much.
    pub fn set_memory(&self, core: usize, bytes: u64) {
        self.shares[core].memory.store(bytes, Ordering::Relaxed);
    }

    /// What all cores take.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.shares.iter().map(|share| share.memory.load(Ordering::Relaxed)).sum()
    }

    /// A core's largest outbox holds so much; `None` while nobody needs to know.
    pub fn set_largest(&self, core: usize, bytes: Option<u32>) {
        self.shares[core].largest.store(bytes.map_or(UNKNOWN, u64::from), Ordering::Relaxed);
    }

    /// What the largest outbox of all holds; `None` as long as a core has not said so.
    #[must_use]
    pub fn largest(&self) -> Option<u64> {
        let largest = self.shares.iter().map(|share| share.largest.load(Ordering::Relaxed)).max();
        largest.filter(|&bytes| bytes != UNKNOWN)
    }
}
