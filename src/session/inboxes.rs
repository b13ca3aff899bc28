//! A bound on what all clients of a process have sent and is not handled yet: messages, packets and requests of which
//! a part is still to come, and those that wait their turn. Does not know what they are, nor what becomes of a client
//! that gets no more room.
//!
//! Each core publishes what its clients take, and looks at the sum when one of them takes more; so cores that do that
//! at the same moment can go beyond the bound by one read each.

use crate::base::ids::CoreId;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Who holds no more than this may use all of the budget: a handshake, and what most clients ever say in one message.
pub const SMALL_BYTES: usize = 16 << 10;
/// One part in so many is left to those. Whoever fills the rest with a few large messages that never end keeps no
/// small one out; to fill this part as well takes 2,000 connections with the default, which have limits of their own.
const SMALL_PARTS: u64 = 8;

/// Shared by all cores.
#[derive(Debug)]
pub struct Budget {
    bytes_max: AtomicU64,
    shares: Box<[Share]>,
}

/// What one core's clients take, on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Share(AtomicU64);

impl Budget {
    /// At most about `bytes_max` for all of `cores` cores; 0: no bound.
    #[must_use]
    pub fn new(cores: usize, bytes_max: u64) -> Budget {
        Budget { bytes_max: AtomicU64::new(bytes_max), shares: (0..cores).map(|_| Share::default()).collect() }
    }

    /// From here on this is the bound; 0: none. Nobody goes for it before taking more.
    pub fn set_bytes_max(&self, bytes_max: u64) {
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
    }

    /// True if what all cores' clients take together is too much for one that holds `bytes` of it to take more.
    fn is_over(&self, bytes: usize) -> bool {
        let bytes_max = self.bytes_max.load(Ordering::Relaxed);
        let reserve = if bytes > SMALL_BYTES { bytes_max / SMALL_PARTS } else { 0 };
        let taken: u64 = self.shares.iter().map(|share| share.0.load(Ordering::Relaxed)).sum();
        bytes_max > 0 && taken > bytes_max - reserve
    }
}

/// Whether a client may keep what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Room {
    /// Yes.
    Enough,
    /// No: it has taken more, and there was none. What it holds is counted until it is given back.
    None,
}

/// What one core's clients take. The default counts for nobody else and has no bound.
#[derive(Debug, Default)]
pub struct Inboxes {
    budget: Option<(Arc<Budget>, usize)>,
    bytes: u64,
}

impl Inboxes {
    /// Those of one core.
    #[must_use]
    pub fn new(budget: Arc<Budget>, core: CoreId) -> Inboxes {
        Inboxes { budget: Some((budget, core.index())), bytes: 0 }
    }

    /// What they take.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A client that held `before` bytes holds `after` from now on.
    ///
    /// # Panics
    /// If that were less than nothing for all together: `before` was not counted.
    pub fn resize(&mut self, before: usize, after: usize) -> Room {
        if before == after {
            return Room::Enough;
        }
        self.bytes = (self.bytes + after as u64).checked_sub(before as u64).expect("it was counted");
        let Some((budget, core)) = &self.budget else { return Room::Enough };
        budget.shares[*core].0.store(self.bytes, Ordering::Relaxed);
        if after > before && budget.is_over(after) { Room::None } else { Room::Enough }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1 << 10;

    fn cores(bytes_max: usize) -> [Inboxes; 2] {
        let budget = Arc::new(Budget::new(2, bytes_max as u64));
        [0, 1].map(|core| Inboxes::new(budget.clone(), CoreId::new(core)))
    }

    #[test]
    fn who_takes_more_than_there_is_gets_no_room() {
        // What the other core's clients take, what the client holds and takes; all of 800 KiB.
        for (others, before, after, room) in [
            (0, 0, 700, Room::Enough),
            (0, 0, 701, Room::None),
            (0, 700, 701, Room::None),
            (300, 0, 400, Room::Enough),
            (300, 0, 401, Room::None),
            (300, 399, 400, Room::Enough),
            // The last eighth is for small ones.
            (690, 0, 16, Room::Enough),
            (784, 0, 16, Room::Enough),
            (785, 0, 16, Room::None),
            (690, 0, 17, Room::None),
            (690, 16, 17, Room::None),
            // Giving back is always right, and so is what stays.
            (900, 20, 20, Room::Enough),
            (900, 20, 19, Room::Enough),
            (900, 20, 0, Room::Enough),
            (900, 20, 21, Room::None),
        ] {
            let [mut one, mut other] = cores(800 * KIB);
            let _ = other.resize(0, others * KIB);
            let _ = one.resize(0, before * KIB);
            assert_eq!(one.resize(before * KIB, after * KIB), room, "{others} {before} {after}");
            assert_eq!((one.bytes(), other.bytes()), ((after * KIB) as u64, (others * KIB) as u64));
        }
    }

    #[test]
    fn without_a_bound_there_is_always_room() {
        let [mut bounded, _] = cores(0);
        for inboxes in [&mut bounded, &mut Inboxes::default()] {
            assert_eq!(inboxes.resize(0, 1 << 40), Room::Enough);
            assert_eq!(inboxes.resize(1 << 40, 1), Room::Enough);
            assert_eq!(inboxes.bytes(), 1);
        }
    }

    #[test]
    #[should_panic(expected = "it was counted")]
    fn nobody_gives_back_what_was_not_counted() {
        let _ = cores(0)[0].resize(1, 0);
    }
}
