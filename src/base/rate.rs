//! So many a second, with a burst: the generic cell rate algorithm (ITU-T I.371), which is a token bucket kept in one
//! number. Does not know what is counted, nor the clock.

use super::clock::Millis;

/// What one costs, in ticks: so a millisecond brings as many ticks as the rate says.
const COST: u64 = 1000;
/// The same in coarse ticks: so few, that 32 bits of them are days. Rounding to one allows a sixteenth too many.
const COST_SHORT: u64 = 16;

/// Far enough from 2³² coarse ticks.
const SHORT_BURST_MAX: u32 = 1 << 27;

/// A bound of so many a second. Who has been quiet may take a burst at once.
///
/// What it remembers of whoever is bounded is when all of the burst will be there again, in ticks: 0 of somebody new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    per_s: u32,
    burst: u32,
}

impl Rate {
    /// The largest rate and burst.
    pub const MAX: u32 = 1_000_000;

    /// `None` for a rate of 0, which bounds nothing; a burst of 0 is one second's worth. Time is counted in whole
    /// milliseconds, so that a burst is at least what one of them brings.
    ///
    /// # Panics
    /// Beyond [`Rate::MAX`].
    #[must_use]
    pub fn new(per_s: u32, burst: u32) -> Option<Rate> {
        assert!(per_s <= Rate::MAX && burst <= Rate::MAX, "{per_s} a second with a burst of {burst}");
        let burst = if burst == 0 { per_s } else { burst.max(per_s.div_ceil(1000)) };
        (per_s > 0).then_some(Rate { per_s, burst })
    }

    /// How many a second.
    #[must_use]
    pub fn per_s(self) -> u32 {
        self.per_s
    }

    /// How many may come at once.
    #[must_use]
    pub fn burst(self) -> u32 {
        self.burst
    }

    /// The same rate with so many times the burst.
    #[must_use]
    pub fn with_bursts(self, count: u32) -> Rate {
        Rate { burst: self.burst.saturating_mul(count).min(SHORT_BURST_MAX), ..self }
    }

    /// The rate as a number other than 0, for memory that cores share.
    #[must_use]
    pub fn to_bits(self) -> u64 {
        u64::from(self.per_s) << 32 | u64::from(self.burst)
    }

    /// What [`Rate::to_bits`] has made; `None` for 0.
    #[must_use]
    pub fn from_bits(bits: u64) -> Option<Rate> {
        (bits > 0).then_some(Rate { per_s: (bits >> 32) as u32, burst: bits as u32 })
    }

    /// Takes one. What is returned is to be remembered instead of `full_at`.
    ///
    /// # Errors
    /// It is one too many. In so many milliseconds it would not be, if no other comes before.
    pub fn take(self, full_at: u64, now: Millis) -> Result<u64, u64> {
        let now = self.ticks(now);
        let after = full_at.max(now) + COST;
        let excess = after.saturating_sub(now + u64::from(self.burst) * COST);
        if excess == 0 { Ok(after) } else { Err(excess.div_ceil(u64::from(self.per_s))) }
    }

    /// As [`Rate::take`], of `count` and with half the memory; `None` for too many. Whoever has taken nothing for
    /// exactly 2³² coarse ticks (three days at 1,000 a second) may find a part of the burst missing, for as long as
    /// that takes to come back.
    #[must_use]
    pub fn take_short(self, full_at: u32, count: u32, now: Millis) -> Option<u32> {
        let now = self.short_full_now(now);
        let most = u64::from(self.burst) * COST_SHORT;
        let ahead = u64::from(full_at.wrapping_sub(now));
        // Nobody is further ahead than the burst: who seems to be is behind.
        let after = if ahead > most { 0 } else { ahead } + u64::from(count) * COST_SHORT;
        (after <= most).then(|| now.wrapping_add(after as u32))
    }

    /// What [`Rate::take_short`] is to be given of somebody new.
    #[must_use]
    pub fn short_full_now(self, now: Millis) -> u32 {
        (self.ticks(now) / COST * COST_SHORT + self.ticks(now) % COST * COST_SHORT / COST) as u32
    }

    /// True if all of the burst is there: nothing need be remembered.
    #[must_use]
    pub fn is_full(self, full_at: u64, now: Millis) -> bool {
        full_at <= self.ticks(now)
    }

    fn ticks(self, now: Millis) -> u64 {
        // Beyond 290 years at the largest rate time stands still, so that sums fit.
        now.0.saturating_mul(u64::from(self.per_s)).min(u64::MAX / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rate(per_s: u32, burst: u32) -> Rate {
        Rate::new(per_s, burst).unwrap()
    }

    #[test]
    fn a_burst_then_the_rate() {
        assert_eq!(Rate::new(0, 7), None);
        assert_eq!(Rate::from_bits(0), None);
        assert_eq!(Rate::from_bits(rate(5, 7).to_bits()), Some(rate(5, 7)));
        assert_eq!((rate(5, 0).burst, rate(10_000, 1).burst), (5, 10), "a second's worth; a millisecond's worth");
        // (rate, burst, [(milliseconds, what became of one)])
        for (per_s, burst, steps) in [
            (1, 1, &[(0, Ok(())), (0, Err(1000)), (999, Err(1)), (1000, Ok(())), (1001, Err(999)), (9000, Ok(()))][..]),
            (
                10,
                3,
                &[(5, Ok(())), (5, Ok(())), (5, Ok(())), (5, Err(100)), (55, Err(50)), (105, Ok(())), (106, Err(99))],
            ),
            // A burst comes back as a whole, and no more than that.
            (10, 2, &[(0, Ok(())), (0, Ok(())), (0, Err(100)), (9000, Ok(())), (9000, Ok(())), (9000, Err(100))]),
            // 333.3 ms each.
            (3, 1, &[(0, Ok(())), (333, Err(1)), (334, Ok(())), (667, Err(1)), (668, Ok(()))]),
        ] {
            let rate = rate(per_s, burst);
            let (mut long, mut short) = (0, rate.short_full_now(Millis(0)));
            for &(now, expected) in steps {
                let is = rate.take(long, Millis(now));
                assert_eq!(is.map(|_| ()), expected, "{per_s}/s, burst {burst}, at {now} ms");
                long = is.unwrap_or(long);
                // A sixteenth early at most: a third of a second is no whole number of coarse ticks.
                let is = rate.take_short(short, 1, Millis(now));
                assert!(is.is_some() == expected.is_ok() || per_s == 3, "{per_s}/s, at {now} ms, in 32 bits");
                short = is.unwrap_or(short);
            }
        }
    }

    #[test]
    fn nothing_is_remembered_of_who_has_all() {
        let rate = rate(1, 1);
        let taken = rate.take(0, Millis(70)).unwrap();
        assert!(!rate.is_full(taken, Millis(1069)) && rate.is_full(taken, Millis(1070)));
    }

    #[test]
    fn short_memory_lasts_for_days() {
        let rate = rate(1000, 1000);
        let days = |days: u64| Millis(days * 86_400_000);
        let mut short = rate.short_full_now(days(0));
        for _ in 0..1000 {
            short = rate.take_short(short, 1, days(0)).unwrap();
        }
        assert_eq!(rate.take_short(short, 1, days(0)), None);
        for later in (1..1000).map(days) {
            assert!(rate.take_short(short, 1, later).is_some(), "{later:?}");
        }
    }

    #[test]
    fn several_are_taken_together_or_not_at_all() {
        let rate = rate(10, 5).with_bursts(3);
        assert_eq!(rate.burst(), 15);
        let mut short = rate.short_full_now(Millis(0));
        for (now, count, taken) in [(0, 5, true), (0, 10, true), (0, 1, false), (400, 5, false), (500, 5, true)] {
            let is = rate.take_short(short, count, Millis(now));
            assert_eq!(is.is_some(), taken, "{count} at {now} ms");
            short = is.unwrap_or(short);
        }
        assert_eq!(rate.with_bursts(u32::MAX).burst(), SHORT_BURST_MAX);
        const { assert!((SHORT_BURST_MAX as u64) * COST_SHORT < 1 << 32) };
    }

    proptest! {
        #[test]
        fn no_window_has_more_than_the_burst_and_the_rate_allow(
            per_s in 1u32..3000,
            burst in 0u32..50,
            pauses in prop::collection::vec(0u64..40, 1..400),
            start in 0u64..1_000_000_000_000,
        ) {
            let rate = rate(per_s, burst);
            let (mut now, mut long, mut short) = (start, 0, rate.short_full_now(Millis(start)));
            let mut taken = [Vec::new(), Vec::new()];
            for pause in pauses {
                now += pause;
                match rate.take(long, Millis(now)) {
                    Ok(next) => {
                        long = next;
                        taken[0].push(now);
                    }
                    Err(wait_ms) => {
                        // In time, and not a millisecond late.
                        prop_assert!(rate.take(long, Millis(now + wait_ms)).is_ok());
                        prop_assert!(wait_ms > 0 && rate.take(long, Millis(now + wait_ms - 1)).is_err());
                    }
                }
                if let Some(next) = rate.take_short(short, 1, Millis(now)) {
                    short = next;
                    taken[1].push(now);
                }
            }
            for (taken, rounding) in taken.iter().zip([0, COST / COST_SHORT + 1]) {
                for (first, from) in taken.iter().enumerate() {
                    for (last, to) in taken.iter().enumerate().skip(first) {
                        let most = u64::from(rate.burst) * COST + (to - from) * u64::from(per_s) + rounding;
                        prop_assert!((last - first + 1) as u64 * COST <= most, "{} in {}", last - first + 1, to - from);
                    }
                }
            }
        }
    }
}
