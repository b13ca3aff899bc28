//! Which rooms of a core get most: by deliveries, bytes and lag, over the last 8 to 16 seconds, in memory that does not
//! grow with the rooms. Does not know who the members are, nor who wants to know.
//!
//! A group adds up what it has got and says so when that is a sixteenth of what the least room of the sketch has: a
//! room below cannot matter, and an event in one of a million small rooms costs two additions. While there is a place
//! for every room, each event is told at once, and all counts are exact.

use crate::base::clock::Millis;
use crate::base::frame::Encoding;
use crate::base::ids::RoomKey;
use crate::base::sketch::{Measure, Sketch};

/// A window's length as a power of two of milliseconds, as in `traffic`.
const WINDOW_BITS: u32 = 13;
const WINDOW_MS: u64 = 1 << WINDOW_BITS;
/// What a group may keep to itself, as a part of the least room's count.
const SHARE: u64 = 16;

/// What a group has got in the present window and not told yet, and where its room stands in the sketches.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Untold {
    deliveries: u32,
    bytes: u32,
    /// What is of another window than this is forgotten. It comes round in six days.
    window: u16,
    hints: [u8; 2],
}

// There is one for each room and encoding.
const _: () = assert!(size_of::<Untold>() == 12);

/// What one delivery to a group brought about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Members that got it.
    pub deliveries: u64,
    /// Bytes that they got.
    pub bytes: u64,
    /// Bytes that came to members who lag, whether they got them or not.
    pub lag: u64,
}

/// A room's count, and how much too high it may be. It is never too low.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    /// What it has at most.
    pub count: u64,
    /// What it has at least is so much less.
    pub error: u64,
}

/// The sketches of one core.
#[derive(Debug, Default)]
pub struct Busiest {
    window: u64,
    boards: [Board; Measure::COUNT],
    /// A place to work in.
    scratch: Vec<u64>,
}

/// One measure's sketches.
#[derive(Debug)]
struct Board {
    now: Sketch<RoomKey>,
    /// Of the window before.
    before: Sketch<RoomKey>,
    /// A group tells what it has when it has so much. It grows within a window.
    tell_at: u32,
    /// What that was at the end of the window before.
    told_at: u32,
}

impl Default for Board {
    fn default() -> Board {
        Board { now: Sketch::default(), before: Sketch::default(), tell_at: 1, told_at: 1 }
    }
}

impl Board {
    fn end_window(&mut self) {
        std::mem::swap(&mut self.now, &mut self.before);
        self.now.clear();
        self.told_at = std::mem::replace(&mut self.tell_at, 1);
    }

    /// What may be kept untold grows with the least count.
    fn settle(&mut self) {
        if self.now.is_full() {
            let may_keep = self.now.least() / SHARE;
            self.tell_at = u32::try_from(may_keep).unwrap_or(u32::MAX).max(1);
        }
    }

    /// What all groups of a room have kept untold at most, in both windows.
    fn untold_max(&self) -> u64 {
        (u64::from(self.tell_at - 1) + u64::from(self.told_at - 1)) * Encoding::COUNT as u64
    }

    /// What a room has at most that is not listed, and the listed ones.
    fn list(&self) -> (u64, impl Iterator<Item = (&RoomKey, Estimate)>) {
        let untold = self.untold_max();
        let (least_now, least_before) = (self.now.least(), self.before.least());
        let now = self.now.iter().map(move |(room, hash, count, error)| {
            let (before, before_error) = self.before.get(hash).unwrap_or((least_before, least_before));
            (room, count + before, error + before_error)
        });
        let only_before = self.before.iter().filter(|(_, hash, ..)| self.now.get(*hash).is_none());
        let before = only_before.map(move |(room, _, count, error)| (room, count + least_now, error + least_now));
        let listed = now.chain(before).map(move |(room, count, error)| {
            let count = count + untold;
            (room, Estimate { count, error: error + untold })
        });
        (least_now + least_before + untold, listed)
    }
}

impl Busiest {
    /// Moves time on; true while there is anything that will be forgotten.
    #[inline]
    pub fn advance(&mut self, now: Millis) -> bool {
        let window = now.0 >> WINDOW_BITS;
        if window != self.window {
            self.end_windows(window);
        }
        self.boards.iter().any(|board| !board.now.is_empty() || !board.before.is_empty())
    }

    #[cold]
    fn end_windows(&mut self, window: u64) {
        for board in &mut self.boards {
            board.end_window();
            if window != self.window + 1 {
                board.end_window();
            }
        }
        self.window = window;
    }

    /// How long a time the counts are about, in milliseconds.
    #[must_use]
    pub fn covers_ms(&self, now: Millis) -> u64 {
        now.0.min(WINDOW_MS + now.0 % WINDOW_MS).max(1)
    }

    /// Notes what a delivery to a group brought about.
    #[inline]
    pub(super) fn note(&mut self, room: &RoomKey, untold: &mut Untold, delivered: Delivered) {
        if untold.window != self.window as u16 {
            *untold = Untold { window: self.window as u16, hints: untold.hints, ..Untold::default() };
        }
        let [by_deliveries, by_bytes, _] = &self.boards;
        let deliveries = u64::from(untold.deliveries) + delivered.deliveries;
        let bytes = u64::from(untold.bytes) + delivered.bytes;
        let is_less = deliveries < u64::from(by_deliveries.tell_at) && bytes < u64::from(by_bytes.tell_at);
        if is_less && delivered.lag == 0 {
            // Less than a bound of 32 bits.
            (untold.deliveries, untold.bytes) = (deliveries as u32, bytes as u32);
            return;
        }
        (untold.deliveries, untold.bytes) = (0, 0);
        self.tell(room, untold, Delivered { deliveries, bytes, lag: delivered.lag });
    }

    /// The group goes: what it has not told is told now.
    pub(super) fn leave(&mut self, room: &RoomKey, mut untold: Untold) {
        let (deliveries, bytes) = (u64::from(untold.deliveries), u64::from(untold.bytes));
        if untold.window == self.window as u16 && (deliveries > 0 || bytes > 0) {
            self.tell(room, &mut untold, Delivered { deliveries, bytes, lag: 0 });
        }
    }

    fn tell(&mut self, room: &RoomKey, untold: &mut Untold, Delivered { deliveries, bytes, lag }: Delivered) {
        let [by_deliveries, by_bytes, by_lag] = &mut self.boards;
        let [of_deliveries, of_bytes] = &mut untold.hints;
        for (board, weight, hint) in
            [(by_deliveries, deliveries, of_deliveries), (by_bytes, bytes, of_bytes), (by_lag, lag, &mut 0)]
        {
            if weight > 0 {
                *hint = board.now.add(room, room.hash, weight, *hint);
                board.settle();
            }
        }
    }

    /// Every room that may be among the first, in no order, and what any other has at most.
    pub fn list(&self, measure: Measure) -> (u64, impl Iterator<Item = (&RoomKey, Estimate)>) {
        self.boards[measure.index()].list()
    }

    /// What the first rooms get a second, most first; zeros where there are no more.
    pub fn rates(&mut self, measure: Measure, now: Millis, out: &mut [f64]) {
        let mut counts = std::mem::take(&mut self.scratch);
        counts.clear();
        counts.extend(self.list(measure).1.map(|(_, estimate)| estimate.count));
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let seconds = self.covers_ms(now) as f64 / 1000.0;
        let all = counts.iter().map(|count| *count as f64 / seconds).chain(std::iter::repeat(0.0));
        out.iter_mut().zip(all).for_each(|(out, rate)| *out = rate);
        self.scratch = counts;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::{NamespaceId, RoomName, Topology};
    use crate::base::sketch::CAPACITY;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn rooms(count: usize) -> Vec<RoomKey> {
        let topology = Topology::new(1, 1);
        let name = |n: usize| RoomName::new(&n.to_string(), 9).unwrap();
        (0..count).map(|n| topology.key(NamespaceId(0), name(n))).collect()
    }

    #[test]
    fn few_rooms_are_counted_exactly_and_forgotten_after_two_windows() {
        let rooms = rooms(3);
        let mut busiest = Busiest::default();
        let mut groups = [Untold::default(); 3];
        let mut event = |busiest: &mut Busiest, room: usize, deliveries, at| {
            assert!(busiest.advance(Millis(at)) || at == 1_000);
            busiest.note(&rooms[room], &mut groups[room], Delivered { deliveries, bytes: 10 * deliveries, lag: 0 });
        };
        event(&mut busiest, 0, 5, 1_000);
        event(&mut busiest, 1, 7, 2_000);
        event(&mut busiest, 0, 1, 9_000);
        event(&mut busiest, 2, 4, 9_000);
        let listed = |busiest: &Busiest, measure| {
            let (others, rooms) = busiest.list(measure);
            let mut rooms: Vec<_> = rooms.map(|(room, e)| (room.name.as_str().to_owned(), e.count, e.error)).collect();
            rooms.sort();
            (others, rooms)
        };
        let exact = |counts: &[(&str, u64)]| (0, counts.iter().map(|(name, n)| ((*name).to_owned(), *n, 0)).collect());
        assert_eq!(listed(&busiest, Measure::Deliveries), exact(&[("0", 6), ("1", 7), ("2", 4)]));
        assert_eq!(listed(&busiest, Measure::Bytes), exact(&[("0", 60), ("1", 70), ("2", 40)]));
        assert_eq!(listed(&busiest, Measure::Lag), exact(&[]));
        let mut rates = [9.0; 4];
        busiest.rates(Measure::Deliveries, Millis(9_000), &mut rates);
        assert_eq!(rates.map(|rate| (rate * 9.0_f64).round()), [7.0, 6.0, 4.0, 0.0], "over 9 seconds");
        assert_eq!((busiest.covers_ms(Millis(30_000)), busiest.covers_ms(Millis(5))), (8_192 + 5_424, 5));
        assert!(busiest.advance(Millis(2 * WINDOW_MS)));
        assert_eq!(listed(&busiest, Measure::Deliveries), exact(&[("0", 1), ("2", 4)]));
        assert!(!busiest.advance(Millis(100_000)), "nothing is left");
        assert_eq!(listed(&busiest, Measure::Deliveries), exact(&[]));
    }

    #[test]
    fn who_lags_is_told_at_once() {
        let rooms = rooms(CAPACITY * 4);
        let mut busiest = Busiest::default();
        for room in &rooms {
            let mut group = Untold::default();
            busiest.note(room, &mut group, Delivered { deliveries: 1000, bytes: 100_000, lag: 0 });
        }
        let mut group = Untold::default();
        busiest.note(&rooms[3], &mut group, Delivered { deliveries: 0, bytes: 0, lag: 77 });
        let lagging: Vec<_> = busiest.list(Measure::Lag).1.map(|(room, e)| (room.clone(), e)).collect();
        assert_eq!(lagging, [(rooms[3].clone(), Estimate { count: 77, error: 0 })]);
    }

    proptest! {
        // A case takes 10 ms.
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn what_a_room_got_is_within_its_estimate(
            steps in prop::collection::vec((0usize..2000, 1u64..200, 0u64..30, 0u8..20), 1..4000),
            often in 1usize..10,
        ) {
            const GROUPS: usize = Encoding::COUNT;
            static ROOMS: std::sync::LazyLock<Vec<RoomKey>> = std::sync::LazyLock::new(|| rooms(2000));
            let rooms = &*ROOMS;
            let mut groups = vec![[Untold::default(); GROUPS]; rooms.len()];
            let mut busiest = Busiest::default();
            let mut truth: [HashMap<usize, [u64; 2]>; 2] = Default::default();
            let mut now = 0;
            for (number, deliveries, pause, what) in steps {
                let window = now >> WINDOW_BITS;
                now += if what == 0 { pause * 300 } else { pause };
                busiest.advance(Millis(now));
                for _ in 0..((now >> WINDOW_BITS) - window).min(2) {
                    truth.swap(0, 1);
                    truth[0].clear();
                }
                let room = if what % 2 == 0 { number % often } else { number };
                let group = &mut groups[room][number % GROUPS];
                if what == 1 {
                    busiest.leave(&rooms[room], std::mem::take(group));
                }
                let bytes = deliveries * (number as u64 % 50 + 1);
                busiest.note(&rooms[room], group, Delivered { deliveries, bytes, lag: 0 });
                let counts = truth[0].entry(room).or_default();
                *counts = [counts[0] + deliveries, counts[1] + bytes];
            }
            for measure in [Measure::Deliveries, Measure::Bytes] {
                let of = |room: usize| truth.iter().filter_map(move |window| window.get(&room));
                let is = |room: usize| of(room).map(|counts| counts[measure.index()]).sum::<u64>();
                let (others, listed) = busiest.list(measure);
                let listed: HashMap<&str, Estimate> = listed.map(|(room, e)| (room.name.as_str(), e)).collect();
                for (room, key) in rooms.iter().enumerate() {
                    match listed.get(key.name.as_str()) {
                        None => prop_assert!(is(room) <= others, "{} is not listed", is(room)),
                        Some(Estimate { count, error }) => {
                            let (least, is) = (count.saturating_sub(*error), is(room));
                            prop_assert!(least <= is && is <= *count, "{} is not from {} to {}", is, least, count);
                        }
                    }
                }
            }
        }
    }
}
