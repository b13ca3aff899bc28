//! Does every connection get its room's sequence numbers without loss, duplicate or reorder? Knows no sockets.

use std::collections::HashSet;

/// Numbers that were skipped and may still come, remembered for telling reorder from duplicate; beyond this many, what
/// comes late is called a duplicate.
const SKIPPED_MAX: usize = 1 << 20;

/// What is wrong so far, over all connections.
#[derive(Debug, Default)]
pub struct Check {
    /// Events that a connection has not got.
    pub lost: u64,
    /// Events that a connection got again.
    pub duplicates: u64,
    /// Events that came behind a later one.
    pub reordered: u64,
    /// (connection, number)
    skipped: HashSet<(u32, u32)>,
}

impl Check {
    /// Connection `client`, at `last` so far, got number `seq`. Returns where it is now.
    #[inline]
    pub fn follow(&mut self, client: u32, last: u32, seq: u32) -> u32 {
        if seq == last.wrapping_add(1) { seq } else { self.odd(client, last, seq) }
    }

    #[cold]
    fn odd(&mut self, client: u32, last: u32, seq: u32) -> u32 {
        if seq > last {
            self.lost += u64::from(seq - last - 1);
            for number in last + 1..seq {
                if self.skipped.len() < SKIPPED_MAX {
                    self.skipped.insert((client, number));
                }
            }
            return seq;
        }
        if self.skipped.remove(&(client, seq)) {
            self.lost -= 1;
            self.reordered += 1;
        } else {
            self.duplicates += 1;
        }
        last
    }

    /// A connection at `last` will get no more, of `published` events.
    pub fn end(&mut self, last: u32, published: u32) {
        self.lost += u64::from(published.saturating_sub(last));
    }

    /// Nothing was wrong.
    pub fn passed(&self) -> bool {
        (self.lost, self.duplicates, self.reordered) == (0, 0, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planted_faults_are_found() {
        /// Lost, duplicates, reordered.
        type Faults = (u64, u64, u64);
        // (numbers in the order in which they come, of 5 published; what is wrong)
        let rows: [(&[u32], Faults); 9] = [
            (&[1, 2, 3, 4, 5], (0, 0, 0)),
            (&[1, 2, 4, 5], (1, 0, 0)),
            (&[2, 3, 4, 5], (1, 0, 0)),
            (&[1, 2, 3], (2, 0, 0)),
            (&[1, 2, 2, 3, 4, 5], (0, 1, 0)),
            (&[1, 2, 4, 3, 5], (0, 0, 1)),
            (&[1, 2, 5, 4, 3], (0, 0, 2)),
            (&[1, 2, 4, 3, 3, 5], (0, 1, 1)),
            (&[], (5, 0, 0)),
        ];
        for (numbers, expected) in rows {
            let mut check = Check::default();
            let mut last = 0;
            for seq in numbers {
                last = check.follow(7, last, *seq);
            }
            check.end(last, 5);
            assert_eq!((check.lost, check.duplicates, check.reordered), expected, "{numbers:?}");
            assert_eq!(check.passed(), expected == (0, 0, 0));
        }
    }

    #[test]
    fn connections_are_told_apart() {
        let mut check = Check::default();
        assert_eq!(check.follow(1, 0, 2), 2);
        // The other one has number 1 twice; that it is missing at the first one changes nothing.
        assert_eq!(check.follow(2, 0, 1), 1);
        assert_eq!(check.follow(2, 1, 1), 1);
        assert_eq!((check.lost, check.duplicates, check.reordered), (1, 1, 0));
    }
}
