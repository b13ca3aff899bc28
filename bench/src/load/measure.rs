//! What is counted within the measured window. Knows no sockets.

use hdrhistogram::Histogram;

/// Longest time that is told apart from longer ones.
const LONGEST_NS: u64 = 100_000_000_000;

/// Times, with three digits.
pub type Times = Histogram<u64>;

/// Times from 1 ns on.
pub fn times() -> Times {
    Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("the bounds are right")
}

/// Counters and times of the window.
pub struct Measure {
    /// True exactly within the window.
    pub open: bool,
    /// Events read by a connection.
    pub deliveries: u64,
    /// Events that all members have read.
    pub events: u64,
    /// Publish to read, for each delivery.
    pub latency: Times,
    /// Publish to the last member's read, for each event.
    pub last_byte: Times,
}

impl Measure {
    /// Before the window.
    pub fn new() -> Measure {
        Measure { open: false, deliveries: 0, events: 0, latency: times(), last_byte: times() }
    }

    /// `count` events that were published at `ts` are read by one connection at `now`.
    #[inline]
    pub fn delivered(&mut self, ts: u64, now: u64, count: u64) {
        if self.open {
            self.deliveries += count;
            self.latency.saturating_record_n(now.saturating_sub(ts), count);
        }
    }

    /// An event that was published at `ts` is read by all at `now`.
    #[inline]
    pub fn completed(&mut self, ts: u64, now: u64) {
        if self.open {
            self.events += 1;
            self.last_byte.saturating_record(now.saturating_sub(ts));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_window_counts() {
        let mut measure = Measure::new();
        measure.delivered(0, 1_000, 5);
        measure.completed(0, 1_000);
        measure.open = true;
        measure.delivered(1_000, 3_000, 3);
        measure.delivered(1_000, 101_000, 1);
        measure.completed(1_000, 101_000);
        measure.open = false;
        measure.delivered(0, 1_000, 5);
        assert_eq!((measure.deliveries, measure.events, measure.latency.len()), (4, 1, 4));
        let about = |value: u64, expected: u64| value.abs_diff(expected) * 500 <= expected;
        assert!(about(measure.latency.value_at_quantile(0.5), 2_000), "{}", measure.latency.value_at_quantile(0.5));
        assert!(about(measure.latency.max(), 100_000));
        assert!(about(measure.last_byte.max(), 100_000));
    }

    #[test]
    fn beyond_the_longest_is_the_longest() {
        let mut measure = Measure::new();
        measure.open = true;
        measure.delivered(0, u64::MAX, 1);
        // A clock that has not moved.
        measure.delivered(7, 7, 1);
        assert_eq!(measure.latency.len(), 2);
        assert!(measure.latency.max() >= LONGEST_NS);
    }
}
