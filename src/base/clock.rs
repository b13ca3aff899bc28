//! Time as a value: milliseconds since the process started. Never reads the system clock; `net` and the simulation do.

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
