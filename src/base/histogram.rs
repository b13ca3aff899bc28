//! Distributions that a core keeps of what it does: counts by powers of two, in memory that never grows. Does not know
//! what is measured, nor the clock.

/// Buckets with an upper bound; one more takes the rest.
pub const BUCKETS: usize = 24;

/// What the numbers of a histogram are, and how its bounds are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Nanoseconds, published as seconds: the bounds go from 1 µs by factors of two to 8.4 s.
    Seconds,
    /// Plain numbers: the bounds are the first so many powers of two.
    Numbers(usize),
}

impl Scale {
    /// How many bounds are published.
    #[must_use]
    pub const fn bounds(self) -> usize {
        match self {
            Scale::Seconds => BUCKETS,
            Scale::Numbers(bounds) => bounds,
        }
    }
}

/// How often which numbers were met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BUCKETS + 1],
    sum: u64,
}

impl Histogram {
    /// A plain number.
    #[inline]
    pub fn note(&mut self, value: u64) {
        self.counts[bucket(value)] += 1;
        self.sum += value;
    }

    /// A time in nanoseconds.
    #[inline]
    pub fn note_ns(&mut self, ns: u64) {
        self.counts[bucket(ns.div_ceil(1000))] += 1;
        self.sum += ns;
    }

    /// By bucket: how many numbers were at most its bound and more than the one before; the last is for all the others.
    #[must_use]
    pub fn counts(&self) -> &[u64; BUCKETS + 1] {
        &self.counts
    }

    /// The numbers' sum: nanoseconds of times.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.sum
    }
}

/// The first bucket whose bound is not below `value`: that of bucket `n` is 2ⁿ.
#[inline]
fn bucket(value: u64) -> usize {
    let bits = u64::BITS - value.saturating_sub(1).leading_zeros();
    (bits as usize).min(BUCKETS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_goes_to_the_first_bound_that_it_does_not_pass() {
        for (value, expected) in [
            (0, 0),
            (1, 0),
            (2, 1),
            (3, 2),
            (4, 2),
            (5, 3),
            (1 << 23, 23),
            ((1 << 23) + 1, 24),
            (1 << 24, 24),
            (u64::MAX, 24),
        ] {
            assert_eq!(bucket(value), expected, "{value}");
        }
    }

    #[test]
    fn times_are_counted_by_microseconds_and_summed_exactly() {
        let mut histogram = Histogram::default();
        for ns in [0, 1, 1000, 1001, 2000, 9_000_000_000] {
            histogram.note_ns(ns);
        }
        assert_eq!(histogram.sum(), 9_000_004_002);
        assert_eq!((histogram.counts()[0], histogram.counts()[1], histogram.counts()[BUCKETS]), (3, 2, 1));
        histogram.note(7);
        assert_eq!((histogram.counts()[3], histogram.sum()), (1, 9_000_004_009));
    }
}
