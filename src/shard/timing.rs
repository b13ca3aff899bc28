//! What is measured of the way of events and of the rings, and which rooms get most. Reads no clock: times are those that
//! [`Shard::set_instant`] was told, once for each read and once for each turn's deliveries.

use super::{Shard, TimerKey};
use crate::base::clock::{Micros, Millis, Stamp};
use crate::base::sketch::Measure;
use std::collections::VecDeque;

/// One event in so many is timed: a stamp and four notes, 40 ns together, are less than a nanosecond of each.
const EVENTS_PER_STAMP: u32 = 64;
/// And each that comes so long after the last one that was: where few events are, each is worth timing.
const PAUSE_US: u64 = 10_000;
/// Deliveries whose sends are waited for. More at a time are not timed to their end: as many wait for sends only while
/// the core has far too much to do, which the others show.
const AFLOAT_MAX: usize = 64;
/// The rings are looked at in one of so many turns.
const TURNS_PER_LOOK: u64 = 16;
/// How often the ranks of rooms are made anew: with full sketches it takes 20 µs.
const RANK_MS: u64 = 1000;

/// What is measured at present.
#[derive(Debug)]
pub(super) struct Timing {
    /// Events until the next one that is timed.
    until_next: u32,
    /// When the last one was.
    last: Micros,
    afloat: VecDeque<Afloat>,
    /// When rooms were ranked.
    ranked: Millis,
}

/// A delivery that waits for its sends.
#[derive(Clone, Copy, Debug)]
struct Afloat {
    stamp: Stamp,
    /// When the frames were in the outboxes.
    delivered: Micros,
    /// All sessions that had something to send then have had their turn when the outboxes have counted so many.
    until: u64,
}

impl Timing {
    pub(super) fn new() -> Timing {
        // The first event is timed.
        Timing { until_next: 0, last: Micros(0), afloat: VecDeque::with_capacity(AFLOAT_MAX), ranked: Millis(0) }
    }

    /// An event comes in.
    #[inline]
    pub(super) fn begin(&mut self, now: Micros) -> Stamp {
        if self.until_next > 0 && now.0 < self.last.0 + PAUSE_US {
            self.until_next -= 1;
            return Stamp::NONE;
        }
        (self.until_next, self.last) = (EVENTS_PER_STAMP - 1, now);
        Stamp::new(now)
    }
}

impl Shard {
    /// Tells what time it is, for what is measured.
    #[inline]
    pub fn set_instant(&mut self, now: Micros) {
        self.instant = now;
    }

    /// A timed event is at its owner.
    pub(super) fn ordered(&mut self, stamp: Stamp) -> Stamp {
        self.counters.histograms.stage_owner.note_ns(stamp.age_us(self.instant) * 1000);
        stamp.owned(self.instant)
    }

    /// A timed event is in so many outboxes.
    pub(super) fn delivered(&mut self, stamp: Stamp, count: usize) {
        self.counters.histograms.stage_member.note_ns(stamp.since_owned_us(self.instant) * 1000);
        let afloat = &mut self.timing.afloat;
        if count > 0 && afloat.len() < AFLOAT_MAX {
            let until = self.outboxes.taken() + self.outboxes.dirty_len() as u64;
            afloat.push_back(Afloat { stamp, delivered: self.instant, until });
        }
    }

    /// True if sends have ended that somebody times: [`Shard::sent`] is to be told when that was.
    #[inline]
    #[must_use]
    pub fn awaits_sends(&self) -> bool {
        self.timing.afloat.front().is_some_and(|afloat| afloat.until <= self.outboxes.taken())
    }

    /// All that was taken from the outboxes so far has been sent by now.
    pub fn sent(&mut self, now: Micros) {
        while let Some(Afloat { stamp, delivered, .. }) =
            self.timing.afloat.pop_front_if(|afloat| afloat.until <= self.outboxes.taken())
        {
            self.counters.histograms.stage_socket.note_ns(now.0.saturating_sub(delivered.0) * 1000);
            self.counters.histograms.stage_total.note_ns(stamp.age_us(now) * 1000);
        }
    }

    /// Notes how full the rings are, now and then.
    pub(super) fn note_rings(&mut self) {
        if !self.counters.turns.is_multiple_of(TURNS_PER_LOOK) {
            return;
        }
        let (up, down) = (self.port.up.fullest() as u64, self.port.down.fullest() as u64);
        let histograms = &mut self.counters.histograms;
        for (messages, histogram) in [(up, &mut histograms.ring_publish), (down, &mut histograms.ring_deliver)] {
            if messages > 0 {
                histogram.note(messages);
            }
        }
    }

    /// Has the core wake up when the present window ends: the figures of a room that gets nothing more die away.
    #[inline]
    pub(super) fn watch_window(&mut self) {
        if !self.window_timer_armed {
            self.window_timer_armed = true;
            self.timers.arm(self.local.busiest.window_ends(), TimerKey::Window);
        }
    }

    pub(super) fn window_ended(&mut self, now: Millis) {
        self.window_timer_armed = false;
        if self.local.busiest.advance(now) {
            self.watch_window();
        } else {
            self.timing.ranked = Millis(0);
        }
    }

    /// Brings the figures of the first rooms up to date.
    pub(super) fn rank_rooms(&mut self) {
        if self.now.since(self.timing.ranked) < RANK_MS {
            return;
        }
        self.timing.ranked = self.now;
        for measure in Measure::ALL {
            let rates = &mut self.counters.top_rooms[measure.index()];
            self.local.busiest.rates(measure, self.now, rates);
        }
    }
}
