//! A hierarchical timing wheel: all deadlines of one core. Does not know what the deadlines are for, nor the time.

use super::clock::Millis;
use super::paged::PagedVec;
use std::num::NonZeroU32;

/// Slots of one level; a level's slot spans as much time as the whole level below it.
const SLOTS: usize = 64;
const SLOT_BITS: u32 = 6;
/// 64⁵ ms are twelve days; later deadlines wait in the last level and are looked at again then.
const LEVELS: usize = 5;
const NONE: u32 = u32::MAX;
const _: () = assert!(1 << SLOT_BITS == SLOTS);

/// Names one armed deadline until it fires or is cancelled: its entry's index and one, so that an `Option` costs no
/// more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerId(NonZeroU32);

/// Deadlines with keys. Arming and cancelling are O(1); a deadline fires in the first `advance` at or after it.
#[derive(Debug)]
pub struct Wheel<K> {
    /// All deadlines before this have fired.
    now: u64,
    entries: PagedVec<Entry<K>>,
    free: u32,
    armed: usize,
    levels: [Level; LEVELS],
}

#[derive(Debug)]
struct Level {
    /// Bit `i` is set exactly while `heads[i]` is not `NONE`.
    occupied: u64,
    heads: [u32; SLOTS],
}

#[derive(Debug)]
struct Entry<K> {
    at: u64,
    key: K,
    next: u32,
    /// The entry before this one, or, for the first, `NONE`.
    prev: u32,
    /// Level and slot of the list that holds the entry; `u16::MAX` while the entry is free.
    place: u16,
}

impl<K: Copy> Wheel<K> {
    /// A wheel that starts at `now`.
    #[must_use]
    pub fn new(now: Millis) -> Wheel<K> {
        let level = || Level { occupied: 0, heads: [NONE; SLOTS] };
        Wheel {
            now: now.0,
            entries: PagedVec::default(),
            free: NONE,
            armed: 0,
            levels: std::array::from_fn(|_| level()),
        }
    }

    /// Deadlines that have neither fired nor been cancelled.
    #[must_use]
    pub fn len(&self) -> usize {
        self.armed
    }

    /// True when nothing is armed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.armed == 0
    }

    /// Arms a deadline. One that is not after the last `advance` fires in the next one to a later time.
    pub fn arm(&mut self, at: Millis, key: K) -> TimerId {
        let entry = Entry { at: at.0, key, next: NONE, prev: NONE, place: u16::MAX };
        let id = if self.free == NONE {
            self.entries.push(entry);
            (self.entries.len() - 1) as u32
        } else {
            let id = self.free;
            self.free = self.entries[id as usize].next;
            self.entries[id as usize] = entry;
            id
        };
        self.armed += 1;
        self.link(id);
        TimerId(NonZeroU32::MIN.saturating_add(id))
    }

    /// Takes the deadline back.
    ///
    /// # Panics
    /// If it fired or was cancelled before: its holder must forget the id then.
    pub fn cancel(&mut self, id: TimerId) {
        let id = id.0.get() - 1;
        assert_ne!(self.entries[id as usize].place, u16::MAX, "timer {id} is not armed");
        self.unlink(id);
        self.release(id);
    }

    /// Moves time to `now` and appends the keys of all deadlines up to and including it, earliest first.
    pub fn advance(&mut self, now: Millis, fired: &mut Vec<K>) {
        while self.now <= now.0 {
            let Some(next) = self.next_event() else {
                self.now = now.0 + 1;
                return;
            };
            if next > now.0 {
                self.now = now.0 + 1;
                return;
            }
            self.now = next;
            self.cascade();
            let slot = (next as usize) % SLOTS;
            let mut id = std::mem::replace(&mut self.levels[0].heads[slot], NONE);
            self.levels[0].occupied &= !(1 << slot);
            while id != NONE {
                let entry = &self.entries[id as usize];
                debug_assert!(entry.at <= next, "level 0 holds only what is due in its slot");
                fired.push(entry.key);
                let following = entry.next;
                self.release(id);
                id = following;
            }
            self.now = next + 1;
        }
    }

    /// No deadline fires before this; `None` when nothing is armed. It may be earlier than the first deadline, at most
    /// by the span of the slot that holds it.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Millis> {
        self.next_event().map(Millis)
    }

    /// The first time at which a slot falls due, be it to fire or to spread over the level below.
    fn next_event(&self) -> Option<u64> {
        if self.armed == 0 {
            return None;
        }
        let mut first: Option<u64> = None;
        for (index, level) in self.levels.iter().enumerate() {
            if level.occupied == 0 {
                continue;
            }
            let shift = SLOT_BITS * index as u32;
            let current = self.now >> shift;
            // A slot of a higher level is due when its span begins. The current slot's span has begun, unless `now` is
            // exactly its beginning: then it has not been spread yet.
            let began = self.now != current << shift;
            let start = current + u64::from(began);
            let rotated = level.occupied.rotate_right((start % SLOTS as u64) as u32);
            let at = (start + u64::from(rotated.trailing_zeros())) << shift;
            first = Some(first.map_or(at, |f| f.min(at)));
        }
        first
    }

    /// Spreads the higher slots whose span begins now over the levels below, from the top.
    fn cascade(&mut self) {
        for index in (1..LEVELS).rev() {
            let shift = SLOT_BITS * index as u32;
            if self.now & ((1 << shift) - 1) != 0 {
                continue;
            }
            let slot = ((self.now >> shift) as usize) % SLOTS;
            let mut id = std::mem::replace(&mut self.levels[index].heads[slot], NONE);
            self.levels[index].occupied &= !(1 << slot);
            while id != NONE {
                let next = self.entries[id as usize].next;
                self.link(id);
                id = next;
            }
        }
    }

    fn link(&mut self, id: u32) {
        let at = self.entries[id as usize].at.max(self.now);
        let distance = at - self.now;
        let index =
            (0..LEVELS - 1).find(|&level| distance < 1 << (SLOT_BITS * (level as u32 + 1))).unwrap_or(LEVELS - 1);
        let shift = SLOT_BITS * index as u32;
        // The last level holds what lies beyond it in its farthest slot.
        let tick = (at >> shift).min((self.now >> shift) + SLOTS as u64 - 1);
        let slot = (tick as usize) % SLOTS;
        let level = &mut self.levels[index];
        let head = std::mem::replace(&mut level.heads[slot], id);
        level.occupied |= 1 << slot;
        let entry = &mut self.entries[id as usize];
        entry.place = (index * SLOTS + slot) as u16;
        entry.prev = NONE;
        entry.next = head;
        if head != NONE {
            self.entries[head as usize].prev = id;
        }
    }

    fn unlink(&mut self, id: u32) {
        let Entry { next, prev, place, .. } = self.entries[id as usize];
        if next != NONE {
            self.entries[next as usize].prev = prev;
        }
        if prev != NONE {
            self.entries[prev as usize].next = next;
            return;
        }
        let (index, slot) = (usize::from(place) / SLOTS, usize::from(place) % SLOTS);
        self.levels[index].heads[slot] = next;
        if next == NONE {
            self.levels[index].occupied &= !(1 << slot);
        }
    }

    fn release(&mut self, id: u32) {
        let entry = &mut self.entries[id as usize];
        entry.place = u16::MAX;
        entry.next = self.free;
        self.free = id;
        self.armed -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn fires_what_a_sorted_map_fires(
            start in 0u64..1 << 20,
            steps in prop::collection::vec((0u64..3, 0u64..1 << 22, 0u64..70_000), 1..200),
        ) {
            let mut wheel = Wheel::new(Millis(start));
            let mut model: BTreeMap<(u64, u32), TimerId> = BTreeMap::new();
            let (mut now, mut serial) = (start, 0u32);
            for (action, far, near) in steps {
                match action {
                    0 => {
                        // What is armed for a time that has passed fires one millisecond after it.
                        let at = now + if far % 2 == 0 { far } else { near }.max(1);
                        model.insert((at, serial), wheel.arm(Millis(at), (at, serial)));
                        serial += 1;
                    }
                    1 => if let Some((&key, &id)) = model.iter().nth(far as usize % model.len().max(1)) {
                        wheel.cancel(id);
                        model.remove(&key);
                    },
                    _ => {
                        now += near;
                        if let (Some(bound), Some((&(first, _), _))) = (wheel.next_deadline(), model.iter().next()) {
                            prop_assert!(bound.0 <= first);
                        }
                        let mut fired = Vec::new();
                        wheel.advance(Millis(now), &mut fired);
                        prop_assert!(fired.windows(2).all(|w| w[0].0 <= w[1].0), "earliest first");
                        fired.sort_unstable();
                        let rest = model.split_off(&(now + 1, 0));
                        let due: Vec<_> = std::mem::replace(&mut model, rest).into_keys().collect();
                        prop_assert_eq!(fired, due);
                    }
                }
                prop_assert_eq!(wheel.len(), model.len());
            }
        }
    }

    #[test]
    fn a_deadline_fires_in_its_own_millisecond() {
        let mut wheel = Wheel::new(Millis(1_000));
        for after in [0, 1, 63, 64, 4_095, 4_096, 45_000, 300_000_000] {
            wheel.arm(Millis(1_000 + after), after);
        }
        let mut fired = Vec::new();
        for after in [0, 1, 63, 64, 4_095, 4_096, 45_000, 300_000_000u64] {
            if after > 1 {
                wheel.advance(Millis(1_000 + after - 1), &mut fired);
                assert!(fired.is_empty(), "{fired:?} early");
            }
            wheel.advance(Millis(1_000 + after), &mut fired);
            assert_eq!(fired, [after]);
            fired.clear();
        }
        assert!(wheel.is_empty() && wheel.next_deadline().is_none());
    }
}
