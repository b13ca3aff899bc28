//! Time as a value: milliseconds since the process started, and microseconds for what is measured. Never reads the
//! system clock; `net` and the simulation do.

/// A point in time, in milliseconds since an arbitrary origin that all cores share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Millis {
    /// Later than any time that comes.
    pub const NEVER: Millis = Millis(u64::MAX);

    /// The point `ms` milliseconds later.
    #[must_use]
    pub fn after(self, ms: u64) -> Millis {
        Millis(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to `self`; zero if `earlier` lies in the future.
    #[must_use]
    pub fn since(self, earlier: Millis) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A point in time, in microseconds since the origin of [`Millis`]: for what is measured, not for deadlines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Micros(pub u64);

/// What travels with an event whose way is timed: when it came in, and how long after that its owner had it. Seven
/// bytes, which is the room that a delivery has beside its tag, so that it costs no message anything.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Stamp([u8; 7]);

impl Stamp {
    /// Of an event that is not timed.
    pub const NONE: Stamp = Stamp([0; 7]);

    /// Of an event that comes in now. Times are cut to 32 bits, so that an event under way for more than half an hour
    /// counts as one that took no time.
    #[must_use]
    pub fn new(now: Micros) -> Stamp {
        Stamp::with(now.0 as u32, 0)
    }

    fn with(came_in: u32, owned_after: u32) -> Stamp {
        let [a, b, c, d] = came_in.max(1).to_le_bytes();
        let [e, f, g, _] = owned_after.min((1 << 24) - 1).to_le_bytes();
        Stamp([a, b, c, d, e, f, g])
    }

    /// True if the event is timed.
    #[inline]
    #[must_use]
    pub fn is_some(self) -> bool {
        self != Stamp::NONE
    }

    /// The owner has the event now.
    #[must_use]
    pub fn owned(self, now: Micros) -> Stamp {
        Stamp::with(self.came_in(), self.age_us(now) as u32)
    }

    /// Microseconds since the event came in. What another core has stamped may lie a little in this one's future: that
    /// counts as now.
    #[must_use]
    pub fn age_us(self, now: Micros) -> u64 {
        let age = (now.0 as u32).wrapping_sub(self.came_in());
        if age > u32::MAX / 2 { 0 } else { u64::from(age) }
    }

    /// Microseconds since the owner had it; 17 s that it took until then are the most that is told apart.
    #[must_use]
    pub fn since_owned_us(self, now: Micros) -> u64 {
        let [.., e, f, g] = self.0;
        self.age_us(now).saturating_sub(u64::from(u32::from_le_bytes([e, f, g, 0])))
    }

    fn came_in(self) -> u32 {
        let [a, b, c, d, ..] = self.0;
        u32::from_le_bytes([a, b, c, d])
    }
}

impl std::fmt::Debug for Stamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_some() { write!(f, "Stamp({} us)", self.came_in()) } else { f.write_str("Stamp(none)") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_tells_the_stages_apart() {
        // Beyond 32 bits as well as before.
        for start in [0, 5, 1 << 32, (1 << 32) - 3, 7 << 40] {
            let at = |us: u64| Micros(start + us);
            let stamp = Stamp::new(at(0));
            assert!(stamp.is_some() && !Stamp::NONE.is_some());
            let zero = u64::from(start as u32 == 0);
            assert_eq!(stamp.age_us(at(70)), 70 - zero);
            let stamp = stamp.owned(at(30));
            assert_eq!((stamp.age_us(at(100)), stamp.since_owned_us(at(100))), (100 - zero, 70));
            assert_eq!((stamp.age_us(at(0)), stamp.since_owned_us(at(20))), (0, 0), "in the owner's future");
        }
        let late = Stamp::new(Micros(1)).owned(Micros(30_000_001));
        assert_eq!((late.age_us(Micros(30_000_003)), late.since_owned_us(Micros(17_000_000))), (30_000_002, 222_784));
    }
}
