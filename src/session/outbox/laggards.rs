//! Outboxes that were full and have not been empty since: what gives way in them, so that newer frames find room.
//! Nothing is dropped in any other outbox. Does not know rooms, nor why a frame may be dropped.
//!
//! A dropped frame leaves a void node behind, as the chain goes one way; void nodes go when they reach the front, or
//! all at once when there are more of them than others.

use super::{Fate, FrameEntry, NONE, Node, Offer, Outboxes, SharedFrame, State};
use crate::base::class::PatternId;
use crate::base::ids::KeyMark;
use hashbrown::HashTable;

/// So few void nodes are not worth a walk.
const VOID_MIN: u32 = 32;

/// Frames that were dropped under one pattern.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// As the oldest ones.
    pub dropped: u64,
    /// As a later one of the same mark was there.
    pub conflated: u64,
}

/// What is known about an outbox that lags.
#[derive(Debug)]
pub(super) struct Laggard {
    /// Nodes whose frames give way to later ones of their marks, by mark.
    newest: HashTable<u32>,
    /// Before this node there is no frame that may be dropped, but for one that is sent in part. [`NONE`]: nowhere.
    oldest: u32,
    /// Nodes with a frame.
    live: u32,
    /// Nodes without.
    void: u32,
}

impl Outboxes {
    /// An offer to an outbox that is not simply open and wide enough.
    #[cold]
    #[inline(never)]
    pub(super) fn offer_to_laggard(&mut self, slot: u32, shared: SharedFrame, bytes_max: u32) -> Offer {
        match self.boxes[slot as usize].state {
            State::Closed => return Offer::Closed,
            State::Open => self.begin_to_lag(slot),
            State::Lagging => {}
        }
        let fate = self.frames[shared.index as usize].fate;
        if fate != Fate::Answer {
            self.lag += u64::from(shared.bytes);
        }
        if let Fate::Conflatable(_, mark) = fate {
            self.supersede(slot, mark);
        }
        while self.boxes[slot as usize].has_no_room(shared, bytes_max) {
            if !self.drop_oldest(slot) {
                return Offer::Full;
            }
        }
        let node = self.append(slot, shared);
        self.note(slot, node);
        self.remove_void(slot);
        Offer::Queued
    }

    /// The outbox is empty.
    #[inline]
    pub(super) fn caught_up(&mut self, slot: u32) {
        let outbox = &mut self.boxes[slot as usize];
        if outbox.state == State::Lagging {
            outbox.state = State::Open;
            self.laggards.remove(&slot);
        }
    }

    /// Frees the first node of the chain, whose frame is sent; returns the first one after it that has a frame.
    pub(super) fn free_of_laggard(&mut self, slot: u32, node: u32) -> u32 {
        let Outboxes { laggards, nodes, frames, .. } = self;
        let laggard = laggards.get_mut(&slot).expect("a session that lags is among the laggards");
        if let Some(mark) = mark_of(nodes, frames, node)
            && let Ok(entry) = laggard.newest.find_entry(mark.0, |&other| other == node)
        {
            entry.remove();
        }
        laggard.live -= 1;
        if laggard.oldest == node {
            laggard.oldest = nodes[node as usize].next;
        }
        let next = self.free(node);
        self.skip_void(slot, next)
    }

    /// Conflates what waits.
    fn begin_to_lag(&mut self, slot: u32) {
        let outbox = &mut self.boxes[slot as usize];
        outbox.state = State::Lagging;
        let mut node = outbox.head;
        self.laggards.insert(slot, Laggard { newest: HashTable::new(), oldest: node, live: 0, void: 0 });
        while node != NONE {
            if let Some(mark) = mark_of(&self.nodes, &self.frames, node) {
                self.supersede(slot, mark);
            }
            self.note(slot, node);
            node = self.nodes[node as usize].next;
        }
        self.trim(slot);
    }

    /// Notes a node that is the last one so far.
    fn note(&mut self, slot: u32, node: u32) {
        let Outboxes { laggards, nodes, frames, .. } = self;
        let laggard = laggards.get_mut(&slot).expect("a session that lags is among the laggards");
        laggard.live += 1;
        match frames[nodes[node as usize].frame as usize].fate {
            Fate::Answer | Fate::Kept => {}
            Fate::Droppable(_) if laggard.oldest == NONE => laggard.oldest = node,
            Fate::Droppable(_) => {}
            Fate::Conflatable(_, mark) => {
                let hash = |&other: &u32| mark_of(nodes, frames, other).map_or(0, |mark| mark.0);
                laggard.newest.insert_unique(mark.0, node, hash);
            }
        }
    }

    /// Drops the frame of that mark, if one waits and is not sent in part.
    fn supersede(&mut self, slot: u32, mark: KeyMark) {
        let Outboxes { laggards, nodes, frames, .. } = self;
        let laggard = laggards.get_mut(&slot).expect("a session that lags is among the laggards");
        let Ok(entry) = laggard.newest.find_entry(mark.0, |&node| mark_of(nodes, frames, node) == Some(mark)) else {
            return;
        };
        let (node, _) = entry.remove();
        let outbox = &self.boxes[slot as usize];
        // A frame that is sent in part must go on.
        if node != outbox.head || outbox.sent == 0 {
            self.drop_frame(slot, node);
            self.trim(slot);
        }
    }

    /// Drops the oldest frame that may be. False if there is none.
    fn drop_oldest(&mut self, slot: u32) -> bool {
        let Outboxes { laggards, nodes, frames, boxes, .. } = self;
        let laggard = laggards.get_mut(&slot).expect("a session that lags is among the laggards");
        let outbox = &boxes[slot as usize];
        while laggard.oldest != NONE {
            let node = laggard.oldest;
            let Node { frame, next } = nodes[node as usize];
            laggard.oldest = next;
            let may_go = frame != NONE && matches!(frames[frame as usize].fate, Fate::Droppable(_));
            if may_go && (node != outbox.head || outbox.sent == 0) {
                self.drop_frame(slot, node);
                self.trim(slot);
                return true;
            }
        }
        false
    }

    /// Makes a node void.
    fn drop_frame(&mut self, slot: u32, node: u32) {
        let frame = std::mem::replace(&mut self.nodes[node as usize].frame, NONE);
        let entry = &self.frames[frame as usize];
        let bytes = entry.frame.as_ref().map_or(0, |f| f.len() as u32);
        let (PatternId(pattern), conflated) = match entry.fate {
            Fate::Droppable(pattern) => (pattern, 0),
            Fate::Conflatable(pattern, _) => (pattern, 1),
            Fate::Answer | Fate::Kept => unreachable!("it must not be dropped"),
        };
        if self.losses.len() <= pattern as usize {
            self.losses.resize(pattern as usize + 1, Losses::default());
        }
        let losses = &mut self.losses[pattern as usize];
        losses.conflated += conflated;
        losses.dropped += 1 - conflated;
        self.boxes[slot as usize].bytes -= bytes;
        self.bytes_waiting -= u64::from(bytes);
        let laggard = self.laggards.get_mut(&slot).expect("a session that lags is among the laggards");
        laggard.live -= 1;
        laggard.void += 1;
        self.drop_holder(frame);
    }

    /// Takes void nodes off the front.
    fn trim(&mut self, slot: u32) {
        let head = self.skip_void(slot, self.boxes[slot as usize].head);
        let outbox = &mut self.boxes[slot as usize];
        outbox.head = head;
        if head == NONE {
            outbox.tail = NONE;
        }
    }

    /// Takes all void nodes out, if there are many.
    fn remove_void(&mut self, slot: u32) {
        let laggard = &self.laggards[&slot];
        if laggard.void <= VOID_MIN.max(laggard.live) {
            return;
        }
        let mut node = self.boxes[slot as usize].head;
        while node != NONE {
            let next = self.skip_void(slot, self.nodes[node as usize].next);
            self.nodes[node as usize].next = next;
            if next == NONE {
                self.boxes[slot as usize].tail = node;
            }
            node = next;
        }
    }

    /// Frees the void nodes from `node` on; returns the first one with a frame.
    fn skip_void(&mut self, slot: u32, mut node: u32) -> u32 {
        while node != NONE && self.nodes[node as usize].frame == NONE {
            let next = self.free(node);
            let laggard = self.laggards.get_mut(&slot).expect("a session that lags is among the laggards");
            laggard.void -= 1;
            if laggard.oldest == node {
                laggard.oldest = next;
            }
            node = next;
        }
        node
    }

    /// What is known about an outbox agrees with its chain. Returns how many nodes that has.
    pub(super) fn check_laggard(&self, slot: u32) -> u32 {
        let outbox = &self.boxes[slot as usize];
        let some = |node: u32| (node != NONE).then_some(node);
        let chain: Vec<u32> =
            std::iter::successors(some(outbox.head), |&node| some(self.nodes[node as usize].next)).collect();
        assert_eq!(chain.last().copied().unwrap_or(NONE), outbox.tail, "session {slot}");
        let is_void = |node: &u32| self.nodes[*node as usize].frame == NONE;
        let void = chain.iter().filter(|node| is_void(node)).count();
        assert_eq!(outbox.state == State::Lagging, self.laggards.contains_key(&slot), "session {slot}");
        assert!(outbox.state == State::Lagging || void == 0, "session {slot} has void nodes");
        if let Some(laggard) = self.laggards.get(&slot) {
            assert!(!chain.first().is_some_and(is_void), "the first node of session {slot} is void");
            assert_eq!((laggard.live as usize, laggard.void as usize), (chain.len() - void, void), "session {slot}");
            let fate = |node: u32| self.frames.get(self.nodes[node as usize].frame as usize).map(|entry| entry.fate);
            let in_part = |node: u32| node == outbox.head && outbox.sent > 0;
            let mut marks = 0;
            let mut passed = laggard.oldest == NONE;
            for &node in chain.iter().rev() {
                match fate(node) {
                    None => {}
                    Some(Fate::Conflatable(_, mark)) => {
                        let found = laggard.newest.find(mark.0, |&other| other == node).is_some();
                        assert!(found || in_part(node), "session {slot} has two of a mark");
                        marks += usize::from(found);
                    }
                    Some(Fate::Droppable(_)) => {
                        assert!(!passed || in_part(node), "session {slot} forgets what may go");
                    }
                    Some(Fate::Answer | Fate::Kept) => {}
                }
                passed |= node == laggard.oldest;
            }
            assert_eq!(marks, laggard.newest.len(), "session {slot}");
        }
        chain.len() as u32
    }
}

/// The mark of a node's frame, if that gives way to later ones.
fn mark_of(nodes: &[Node], frames: &[FrameEntry], node: u32) -> Option<KeyMark> {
    match frames.get(nodes[node as usize].frame as usize)?.fate {
        Fate::Conflatable(_, mark) => Some(mark),
        Fate::Answer | Fate::Kept | Fate::Droppable(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use super::*;
    use proptest::prelude::*;

    const RATES: PatternId = PatternId(1);
    const SEATS: PatternId = PatternId(2);

    /// Offers a frame of that text under a bound of 10 bytes.
    fn offer(outboxes: &mut Outboxes, text: &str, fate: Fate) -> Offer {
        let shared = outboxes.share(Frame::new(text.as_bytes()), fate);
        let offer = outboxes.offer(0, shared, 10);
        outboxes.release(shared);
        outboxes.check();
        offer
    }

    fn text(outboxes: &Outboxes) -> String {
        outboxes.waiting(0).map(|(_, bytes)| String::from_utf8(bytes.to_vec()).unwrap()).collect()
    }

    fn seat(mark: u64) -> Fate {
        Fate::Conflatable(SEATS, KeyMark(mark))
    }

    #[test]
    fn the_oldest_that_may_go_makes_room_and_the_rest_keeps_its_order() {
        let mut outboxes = Outboxes::new();
        outboxes.open(0, 0);
        assert_eq!(outboxes.push(0, Frame::new(b"----")), Offer::Queued, "an answer takes no room from others");
        for (text, fate) in [("aaa", Fate::Droppable(RATES)), ("KK", Fate::Kept), ("bbbb", Fate::Droppable(RATES))] {
            assert_eq!(offer(&mut outboxes, text, fate), Offer::Queued);
        }
        assert_eq!(offer(&mut outboxes, "cc", Fate::Droppable(RATES)), Offer::Queued);
        assert_eq!(text(&outboxes), "----KKbbbbcc");
        assert_eq!(offer(&mut outboxes, "LLLLL", Fate::Kept), Offer::Queued, "what must stay makes others go");
        assert_eq!(text(&outboxes), "----KKccLLLLL");
        assert_eq!(offer(&mut outboxes, "MMMM", Fate::Kept), Offer::Full);
        assert_eq!(outboxes.losses()[1], Losses { dropped: 3, conflated: 0 });
    }

    #[test]
    fn the_newest_of_each_mark_stays_at_its_own_place() {
        let mut outboxes = Outboxes::new();
        outboxes.open(0, 0);
        for (text, mark) in [("a1", 1), ("b1", 2), ("a2", 1), ("c1", 3), ("a3", 1)] {
            assert_eq!(offer(&mut outboxes, text, seat(mark)), Offer::Queued);
        }
        assert_eq!(text(&outboxes), "a1b1a2c1a3", "who does not lag gets everything");
        assert_eq!(offer(&mut outboxes, "b2", seat(2)), Offer::Queued);
        assert_eq!(text(&outboxes), "c1a3b2");
        assert_eq!(offer(&mut outboxes, "c2", seat(3)), Offer::Queued);
        assert_eq!(text(&outboxes), "a3b2c2", "from then on at once");
        assert_eq!(outboxes.losses()[2], Losses { dropped: 0, conflated: 4 });
        assert_eq!(outboxes.advance(0, 6), 3);
        for text in ["a4", "a5"] {
            assert_eq!(offer(&mut outboxes, text, seat(1)), Offer::Queued);
        }
        assert_eq!(text(&outboxes), "a4a5", "until it has caught up");
    }

    #[test]
    fn a_frame_that_is_sent_in_part_goes_on() {
        for (fate, left) in [(Fate::Droppable(RATES), "23bbbbxxx"), (seat(1), "23xxx")] {
            let mut outboxes = Outboxes::new();
            outboxes.open(0, 0);
            assert_eq!(offer(&mut outboxes, "0123", fate), Offer::Queued);
            assert_eq!(outboxes.advance(0, 2), 0);
            assert_eq!(offer(&mut outboxes, "aaaa", fate), Offer::Queued);
            assert_eq!(offer(&mut outboxes, "bbbb", fate), Offer::Queued);
            assert_eq!(offer(&mut outboxes, "xxx", fate), Offer::Queued);
            assert_eq!(text(&outboxes), left);
            outboxes.close(0);
            outboxes.check();
        }
    }

    #[test]
    fn nothing_is_dropped_for_a_volatile_frame() {
        let mut outboxes = Outboxes::new();
        outboxes.open(0, 0);
        for fate in [Fate::Droppable(RATES), seat(1), seat(1)] {
            assert_eq!(offer(&mut outboxes, "aaa", fate), Offer::Queued);
        }
        let shared = outboxes.share(Frame::new(b"vv"), Fate::Droppable(RATES));
        assert_eq!(outboxes.offer_volatile(0, shared, 10), Offer::Skipped);
        outboxes.release(shared);
        assert_eq!(text(&outboxes), "aaaaaaaaa");
    }

    #[test]
    fn a_frame_counts_once_however_many_wait_for_it() {
        let mut outboxes = Outboxes::new();
        (0..3).for_each(|slot| outboxes.open(slot, slot));
        let shared = outboxes.share(Frame::new(&[0; 1000]), Fate::Kept);
        let alone = outboxes.memory();
        assert!((1000..1200).contains(&alone));
        (0..3).for_each(|slot| assert_eq!(outboxes.offer(slot, shared, 2000), Offer::Queued));
        outboxes.release(shared);
        assert_eq!((outboxes.memory(), outboxes.bytes_waiting()), (alone + 3 * 8, 3000));
        assert!(outboxes.holders().eq([(0, 1000), (1, 1000), (2, 1000)]));
        outboxes.close(0);
        outboxes.advance(1, 1000);
        outboxes.clear(2);
        assert_eq!((outboxes.memory(), outboxes.holders().count()), (0, 0));
    }

    /// An outbox as one would write it down.
    #[derive(Debug, Default)]
    struct Naive {
        /// Texts with their fates; of the first, `sent` bytes are gone.
        waiting: Vec<(Vec<u8>, Fate)>,
        sent: usize,
        lags: bool,
        losses: [Losses; 3],
    }

    impl Naive {
        fn bytes(&self) -> usize {
            self.waiting.iter().map(|(bytes, _)| bytes.len()).sum::<usize>() - self.sent
        }

        /// Bytes other than answers.
        fn offered(&self) -> usize {
            let offered = self.waiting.iter().filter(|(_, fate)| *fate != Fate::Answer);
            let sent = self.waiting.first().filter(|(_, fate)| *fate != Fate::Answer).map_or(0, |_| self.sent);
            offered.map(|(bytes, _)| bytes.len()).sum::<usize>() - sent
        }

        /// Drops the first frame that `which` picks, unless it is sent in part.
        fn drop_one(&mut self, which: impl Fn(usize, Fate) -> bool) -> bool {
            let found = (0..self.waiting.len()).find(|&at| (at > 0 || self.sent == 0) && which(at, self.waiting[at].1));
            let Some(at) = found else { return false };
            match self.waiting.remove(at).1 {
                Fate::Droppable(pattern) => self.losses[pattern.0 as usize].dropped += 1,
                Fate::Conflatable(pattern, _) => self.losses[pattern.0 as usize].conflated += 1,
                fate => panic!("{fate:?} was dropped"),
            }
            true
        }

        fn offer(&mut self, bytes: &[u8], fate: Fate, bytes_max: usize) -> Offer {
            let full = |naive: &Naive| naive.offered() > 0 && naive.offered() + bytes.len() > bytes_max;
            self.lags |= full(self);
            if self.lags {
                let mut fates: Vec<Fate> = self.waiting.iter().map(|(_, fate)| *fate).collect();
                fates.push(fate);
                while self.drop_one(|at, own| matches!(own, Fate::Conflatable(..)) && fates[at + 1..].contains(&own)) {
                    fates = self.waiting.iter().map(|(_, fate)| *fate).chain([fate]).collect();
                }
            }
            while full(self) {
                if !self.drop_one(|_, own| matches!(own, Fate::Droppable(_))) {
                    return Offer::Full;
                }
            }
            self.waiting.push((bytes.to_vec(), fate));
            Offer::Queued
        }

        fn advance(&mut self, bytes: usize) {
            self.sent += bytes;
            while let Some((first, _)) = self.waiting.first()
                && first.len() <= self.sent
            {
                self.sent -= first.len();
                self.waiting.remove(0);
            }
            self.lags &= !self.waiting.is_empty();
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Offer { to: u32, bytes: usize, fate: Fate, volatile: bool },
        Push { to: u32, bytes: usize },
        Send { from: u32, bytes: usize },
        Block(u32),
        Unblock(u32),
        Reopen(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        let slot = 0u32..3;
        let fate = prop_oneof![
            Just(Fate::Kept),
            Just(Fate::Droppable(RATES)),
            Just(Fate::Droppable(PatternId(0))),
            (0u64..4).prop_map(seat),
        ];
        let offer = (slot.clone(), 1usize..60, fate, prop::bool::weighted(0.1))
            .prop_map(|(to, bytes, fate, volatile)| Step::Offer { to, bytes, fate, volatile });
        prop_oneof![
            12 => offer,
            1 => (slot.clone(), 1usize..30).prop_map(|(to, bytes)| Step::Push { to, bytes }),
            4 => (slot.clone(), 0usize..80).prop_map(|(from, bytes)| Step::Send { from, bytes }),
            1 => slot.clone().prop_map(Step::Block),
            1 => slot.clone().prop_map(Step::Unblock),
            1 => slot.prop_map(Step::Reopen),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn what_waits_is_what_a_naive_outbox_would_hold(
            bytes_max in 20u32..300,
            only in prop::option::of(0u64..3),
            steps in prop::collection::vec(step(), 1..300),
        ) {
            let mut outboxes = Outboxes::new();
            let mut naive: [Naive; 3] = Default::default();
            let mut lost = [Losses::default(); 3];
            let mut blocked = [false; 3];
            (0..3).for_each(|slot| outboxes.open(slot, slot));
            for (n, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Offer { to, bytes, fate, volatile } => {
                        // Runs of one policy alone make long chains of it.
                        let fate = match only {
                            Some(0) => Fate::Droppable(RATES),
                            Some(1) => seat(n as u64 % 5),
                            _ => fate,
                        };
                        let frame = vec![n as u8; bytes];
                        let shared = outboxes.share(Frame::new(&frame), fate);
                        for slot in 0..=to {
                            let own = &mut naive[slot as usize];
                            let full = own.offered() > 0 && own.offered() + bytes > bytes_max as usize;
                            let offer = if !volatile {
                                let offer = own.offer(&frame, fate, bytes_max as usize);
                                prop_assert_eq!(outboxes.offer(slot, shared, bytes_max), offer);
                                offer
                            } else if blocked[slot as usize] || full {
                                prop_assert_eq!(outboxes.offer_volatile(slot, shared, bytes_max), Offer::Skipped);
                                Offer::Skipped
                            } else {
                                prop_assert_eq!(own.offer(&frame, fate, bytes_max as usize), Offer::Queued);
                                prop_assert_eq!(outboxes.offer_volatile(slot, shared, bytes_max), Offer::Queued);
                                Offer::Queued
                            };
                            let waiting = naive[slot as usize].waiting.iter().filter(|(_, fate)| *fate != Fate::Answer);
                            if offer == Offer::Queued {
                                let offered = outboxes.bytes(slot) - outboxes.answers(slot);
                                prop_assert!(offered <= bytes_max || waiting.count() == 1);
                            }
                        }
                        outboxes.release(shared);
                    }
                    Step::Push { to, bytes } => {
                        let frame = vec![n as u8; bytes];
                        let _ = outboxes.push(to, Frame::new(&frame));
                        naive[to as usize].waiting.push((frame, Fate::Answer));
                    }
                    Step::Send { from, bytes } => {
                        let bytes = bytes.min(naive[from as usize].bytes());
                        outboxes.advance(from, bytes);
                        naive[from as usize].advance(bytes);
                    }
                    Step::Block(slot) => {
                        outboxes.block(slot);
                        blocked[slot as usize] = true;
                    }
                    Step::Unblock(slot) => {
                        outboxes.unblock(slot);
                        blocked[slot as usize] = false;
                    }
                    Step::Reopen(slot) => {
                        outboxes.close(slot);
                        outboxes.open(slot, slot);
                        let former = std::mem::take(&mut naive[slot as usize]);
                        (0..3).for_each(|at| lost[at].dropped += former.losses[at].dropped);
                        (0..3).for_each(|at| lost[at].conflated += former.losses[at].conflated);
                        blocked[slot as usize] = false;
                    }
                }
                outboxes.check();
                for slot in 0..3 {
                    let own = &naive[slot as usize];
                    let waiting: Vec<u8> = outboxes.waiting(slot).flat_map(|(_, b)| b.to_vec()).collect();
                    let expected = own.waiting.iter().flat_map(|(bytes, _)| bytes.clone()).skip(own.sent);
                    prop_assert_eq!(waiting, expected.collect::<Vec<u8>>(), "session {}", slot);
                }
            }
            for (pattern, former) in lost.iter().enumerate() {
                let now = naive.iter().map(|naive| naive.losses[pattern]);
                let expected = now.fold(*former, |sum, losses| Losses {
                    dropped: sum.dropped + losses.dropped,
                    conflated: sum.conflated + losses.conflated,
                });
                prop_assert_eq!(outboxes.losses().get(pattern).copied().unwrap_or_default(), expected);
            }
        }
    }
}
