//! Events under way: when each was published, and which members have got how far. Knows no sockets and no clock.
//!
//! A room does not count the members that miss an event, which would be one write for each delivery. It counts for each
//! event under way the members whose last event it is, so that a member that read thirteen events at once is moved by
//! two writes. An event has reached all when no member stands before it.

use std::collections::VecDeque;

#[derive(Debug)]
struct Event {
    /// When it was published.
    ts: u64,
    /// Members whose last event it is.
    members: u32,
}

/// What a member's read led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It has got `count` events that were published at `ts`.
    Delivered { ts: u64, count: u64 },
    /// All members have got an event that was published at `ts`.
    Completed { ts: u64 },
}

/// One room.
#[derive(Debug, Default)]
pub struct Room {
    /// Connections that count. Those that are never read do not.
    members: u32,
    /// The last event that all have.
    complete: u32,
    /// Members whose last event is `complete`.
    at_complete: u32,
    /// The events after `complete`, in order.
    under_way: VecDeque<Event>,
}

impl Room {
    /// A member joins before anything was published.
    pub fn join(&mut self) {
        assert!(self.published() == 0, "members join first");
        self.members += 1;
        self.at_complete += 1;
    }

    pub fn members(&self) -> u32 {
        self.members
    }

    /// The last event's number.
    pub fn published(&self) -> u32 {
        self.complete + self.under_way.len() as u32
    }

    /// Publishes at `ts`; returns the event's number, from 1.
    pub fn publish(&mut self, ts: u64) -> u32 {
        assert!(self.members > 0, "an event to nobody is never complete");
        self.under_way.push_back(Event { ts, members: 0 });
        self.published()
    }

    /// A member has got the events after `from` up to `to`, which was published. Reports a delivery for each group of
    /// them that was published at one time, then the events that all have now.
    #[inline]
    pub fn advance(&mut self, from: u32, to: u32, mut report: impl FnMut(Progress)) {
        debug_assert!(from < to && to <= self.published());
        let (first, last) = ((from - self.complete) as usize, (to - self.complete - 1) as usize);
        let (mut ts, mut count) = (self.under_way[first].ts, 0);
        for event in self.under_way.range(first..=last) {
            if event.ts != ts {
                report(Progress::Delivered { ts, count });
                (ts, count) = (event.ts, 0);
            }
            count += 1;
        }
        report(Progress::Delivered { ts, count });
        self.under_way[last].members += 1;
        self.depart(from, report);
    }

    /// A member that is at `last` is gone.
    pub fn leave(&mut self, last: u32, report: impl FnMut(Progress)) {
        self.members -= 1;
        self.depart(last, report);
    }

    #[inline]
    fn depart(&mut self, from: u32, mut report: impl FnMut(Progress)) {
        if from > self.complete {
            self.under_way[(from - self.complete - 1) as usize].members -= 1;
            return;
        }
        self.at_complete -= 1;
        while self.at_complete == 0 {
            let Some(event) = self.under_way.pop_front() else { return };
            self.complete += 1;
            self.at_complete = event.members;
            report(Progress::Completed { ts: event.ts });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Moves a member and notes what was reported.
    fn advance(room: &mut Room, from: u32, to: u32) -> (Vec<(u64, u64)>, Vec<u64>) {
        let (mut delivered, mut completed) = (Vec::new(), Vec::new());
        room.advance(from, to, |progress| match progress {
            Progress::Delivered { ts, count } => delivered.push((ts, count)),
            Progress::Completed { ts } => completed.push(ts),
        });
        (delivered, completed)
    }

    #[test]
    fn an_event_is_complete_when_its_last_member_has_it() {
        let mut room = Room::default();
        (0..3).for_each(|_| room.join());
        assert_eq!([10, 10, 20].map(|ts| room.publish(ts)), [1, 2, 3]);
        assert_eq!(advance(&mut room, 0, 3), (vec![(10, 2), (20, 1)], vec![]));
        assert_eq!(advance(&mut room, 0, 1), (vec![(10, 1)], vec![]));
        assert_eq!(advance(&mut room, 0, 2), (vec![(10, 2)], vec![10]));
        assert_eq!(advance(&mut room, 1, 2), (vec![(10, 1)], vec![10]));
        assert!(!room.under_way.is_empty());
        assert_eq!(advance(&mut room, 2, 3), (vec![(20, 1)], vec![]));
        assert_eq!(advance(&mut room, 2, 3), (vec![(20, 1)], vec![20]));
        assert!(room.under_way.is_empty());
        assert_eq!(room.publish(30), 4);
        assert_eq!(room.published(), 4);
    }

    #[test]
    fn who_leaves_is_not_waited_for() {
        let mut room = Room::default();
        (0..2).for_each(|_| room.join());
        room.publish(10);
        room.publish(20);
        assert_eq!(advance(&mut room, 0, 2), (vec![(10, 1), (20, 1)], vec![]));
        let mut completed = Vec::new();
        room.leave(0, |progress| completed.push(progress));
        let expected = [10, 20].map(|ts| Progress::Completed { ts }).to_vec();
        assert_eq!((completed, room.under_way.len(), room.members()), (expected, 0, 1));
    }
}
