//! How much a room is used: its bytes, and its events per second over the last 8 to 16 seconds. Does not know what the
//! events are.

use crate::base::clock::Millis;

/// A window's length as a power of two of milliseconds: finding an event's window costs a shift.
const WINDOW_BITS: u32 = 13;

/// One room's use. Noting an event costs a shift, a comparison and two additions, beside the room's offset in memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    /// Bytes of all events of the room's order.
    bytes: u64,
    /// The window that `events` counts in.
    window: u32,
    events: u32,
    /// Events of the window before.
    before: u32,
}

impl Traffic {
    /// An event of so many bytes.
    pub fn note(&mut self, bytes: usize, now: Millis) {
        let window = window_of(now);
        if window != self.window {
            *self = self.moved_to(window);
        }
        self.events = self.events.saturating_add(1);
        self.bytes += bytes as u64;
    }

    /// Bytes of all events so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Events per second: those of this window, and of the one before as much as makes them a whole window's.
    #[must_use]
    pub fn rate(&self, now: Millis) -> f64 {
        let Traffic { events, before, .. } = self.moved_to(window_of(now));
        let length_ms = f64::from(1u32 << WINDOW_BITS);
        let passed = (now.0 & ((1 << WINDOW_BITS) - 1)) as f64 / length_ms;
        (f64::from(events) + f64::from(before) * (1.0 - passed)) * 1000.0 / length_ms
    }

    fn moved_to(self, window: u32) -> Traffic {
        match window.wrapping_sub(self.window) {
            0 => self,
            1 => Traffic { window, events: 0, before: self.events, ..self },
            _ => Traffic { window, events: 0, before: 0, ..self },
        }
    }
}

fn window_of(now: Millis) -> u32 {
    (now.0 >> WINDOW_BITS) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_follows_the_events_and_dies_away() {
        let mut traffic = Traffic::default();
        // Two events a second for 20 seconds.
        for n in 0..40 {
            traffic.note(10, Millis(100_000 + n * 500));
        }
        assert_eq!(traffic.bytes(), 400);
        // (milliseconds after the last, at least, at most)
        for (later, from, to) in [(0, 1.8, 2.2), (4_000, 0.8, 1.8), (8_192, 0.1, 1.2), (16_384, 0.0, 0.0)] {
            let rate = traffic.rate(Millis(119_500 + later));
            assert!((from..=to).contains(&rate), "{rate} after {later} ms");
        }
        traffic.note(5, Millis(1_000_000));
        assert_eq!(traffic.bytes(), 405);
        assert!((0.06..0.13).contains(&traffic.rate(Millis(1_000_000))), "the old windows are forgotten");
    }
}
