//! Who counts most, of any number of candidates and in memory that is bounded: the space-saving sketch (Metwally,
//! Agrawal, El Abbadi: "Efficient computation of frequent and top-k elements in data streams", 2005). Does not know
//! what is counted.

/// What rooms are ranked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Frames appended to members' outboxes.
    Deliveries,
    /// Bytes of these.
    Bytes,
    /// Bytes of events that came to members who lagged, whatever became of them.
    Lag,
}

impl Measure {
    /// Every measure, by position.
    pub const ALL: [Measure; 3] = [Measure::Deliveries, Measure::Bytes, Measure::Lag];
    /// How many there are.
    pub const COUNT: usize = Measure::ALL.len();

    /// Position in tables.
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }

    /// How it is called in lines and answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Measure::Deliveries => "deliveries",
            Measure::Bytes => "bytes",
            Measure::Lag => "lag",
        }
    }
}

/// Candidates that one sketch holds: whoever has more than one in so many of all that was counted is among them.
pub const CAPACITY: usize = 128;
// A place fits into a hint.
const _: () = assert!(CAPACITY <= 1 << u8::BITS);

/// Counts of the candidates that may count most. When a candidate comes that is not held, it takes the place of the one
/// that has least, and that one's count as well: so a count is never too low, and too high by at most what the place
/// had before, which is held beside it.
#[derive(Clone, Debug)]
pub struct Sketch<K> {
    /// The keyed hashes that the candidates are known by: two with the same hash are one.
    hashes: Vec<u64>,
    counts: Vec<u64>,
    /// The candidates, each with what its place had before.
    keys: Vec<(K, u64)>,
}

impl<K> Default for Sketch<K> {
    fn default() -> Sketch<K> {
        Sketch { hashes: Vec::new(), counts: Vec::new(), keys: Vec::new() }
    }
}

impl<K: Clone> Sketch<K> {
    /// Adds `weight` to the candidate's count. `hint` is where it may stand: what the last call for it returned, or
    /// anything. Returns where it stands.
    #[inline]
    pub fn add(&mut self, key: &K, hash: u64, weight: u64, hint: u8) -> u8 {
        let place = usize::from(hint);
        if self.hashes.get(place) == Some(&hash) {
            self.counts[place] += weight;
            return hint;
        }
        self.look_and_add(key, hash, weight)
    }

    #[cold]
    #[inline(never)]
    fn look_and_add(&mut self, key: &K, hash: u64, weight: u64) -> u8 {
        let place = match self.hashes.iter().position(|other| *other == hash) {
            Some(place) => {
                self.counts[place] += weight;
                place
            }
            None if self.hashes.len() < CAPACITY => {
                self.hashes.push(hash);
                self.counts.push(weight);
                self.keys.push((key.clone(), 0));
                self.hashes.len() - 1
            }
            None => {
                let (place, least) = self.last_one();
                self.hashes[place] = hash;
                self.counts[place] = least + weight;
                self.keys[place] = (key.clone(), least);
                place
            }
        };
        place as u8
    }

    /// The most that a candidate can have that is not held.
    #[must_use]
    pub fn least(&self) -> u64 {
        if self.is_full() { self.last_one().1 } else { 0 }
    }

    /// True when the next candidate that is not held takes another's place.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.hashes.len() == CAPACITY
    }

    /// The place of the smallest count, and that.
    fn last_one(&self) -> (usize, u64) {
        let least = self.counts.iter().copied().min().unwrap_or(0);
        (self.counts.iter().position(|count| *count == least).unwrap_or(0), least)
    }

    /// The candidates with their hashes, their counts, and how much of these may be others'.
    pub fn iter(&self) -> impl Iterator<Item = (&K, u64, u64, u64)> {
        let all = self.hashes.iter().zip(&self.counts).zip(&self.keys);
        all.map(|((hash, count), (key, error))| (key, *hash, *count, *error))
    }

    /// The count of who is known by that hash, and how much of it may be others'.
    #[must_use]
    pub fn get(&self, hash: u64) -> Option<(u64, u64)> {
        let place = self.hashes.iter().position(|other| *other == hash)?;
        Some((self.counts[place], self.keys[place].1))
    }

    /// True when nothing has been counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Forgets everything but its memory.
    pub fn clear(&mut self) {
        self.hashes.clear();
        self.counts.clear();
        self.keys.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    /// What must hold of a sketch that has taken in exactly this.
    fn check(sketch: &Sketch<u64>, truth: &HashMap<u64, u64>) -> Result<(), TestCaseError> {
        let all: u64 = truth.values().sum();
        prop_assert_eq!(sketch.iter().map(|(_, _, count, _)| count).sum::<u64>(), all, "nothing is lost");
        prop_assert!(sketch.least() * CAPACITY as u64 <= all);
        for (key, hash, count, error) in sketch.iter() {
            let is = truth[key];
            prop_assert_eq!(*key, hash);
            prop_assert!(count - error <= is && is <= count, "{} is not within {} - {}", is, count, error);
            prop_assert!(error <= sketch.least());
        }
        for (key, count) in truth {
            let held = sketch.get(*key).is_some();
            prop_assert!(held || *count <= sketch.least(), "{} has {} and is not held", key, count);
            prop_assert!(held || *count * CAPACITY as u64 <= all, "more than one in {}", CAPACITY);
        }
        Ok(())
    }

    proptest! {
        // A case takes 10 ms.
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn counts_are_within_their_errors_and_who_has_much_is_held(
            steps in prop::collection::vec((any::<u32>(), 1u64..100, any::<bool>()), 1..3000),
            spread in 1u32..1000,
        ) {
            let (mut sketch, mut truth, mut hints) = (Sketch::default(), HashMap::new(), HashMap::new());
            for (number, weight, often) in steps {
                // Some come again and again, among many that hardly ever do.
                let key = u64::from(if often { number % 7 } else { number % spread });
                let hint = hints.entry(key).or_insert(number as u8);
                *hint = sketch.add(&key, key, weight, *hint);
                *truth.entry(key).or_insert(0) += weight;
            }
            check(&sketch, &truth)?;
            sketch.clear();
            prop_assert!(sketch.is_empty() && sketch.least() == 0 && sketch.get(0).is_none());
        }
    }

    #[test]
    fn while_there_is_a_place_for_everybody_counts_are_exact() {
        let mut sketch = Sketch::default();
        for round in 0..3 {
            for key in 0..CAPACITY as u64 {
                sketch.add(&key, key, key + round, 0);
            }
        }
        assert!(sketch.iter().all(|(key, _, count, error)| (count, error) == (3 * key + 3, 0)));
        assert_eq!(sketch.add(&1000, 1000, 5, 7), 0, "in place of the one that has least");
        assert_eq!((sketch.get(1000), sketch.get(0), sketch.least()), (Some((8, 3)), None, 6));
    }
}
