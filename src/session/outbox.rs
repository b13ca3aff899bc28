//! What waits to be sent, for all sessions of one core. Frames are shared: a waiting frame costs eight bytes at each
//! holder. Does not know sockets; a transport driver drains an outbox and says how many bytes it got rid of.

use crate::base::frame::Frame;
use crate::base::paged::PagedVec;
use std::collections::VecDeque;

const NONE: u32 = u32::MAX;

/// A frame's place in the core's table while at least one outbox, or the caller of [`Outboxes::share`], holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedFrame {
    index: u32,
    bytes: u32,
}

impl SharedFrame {
    /// The frame's length.
    #[must_use]
    pub fn bytes(self) -> u32 {
        self.bytes
    }
}

/// What became of an offered frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Offer {
    /// It will be sent.
    Queued,
    /// The outbox is full: the frame was not taken, and the session misses it from now on.
    Full,
    /// The transport cannot take the frame now: it was not taken, and that is in order.
    Skipped,
    /// The outbox is closed: the session is on its way out.
    Closed,
}

/// The outboxes of one core, by session slot.
#[derive(Debug)]
pub struct Outboxes {
    boxes: PagedVec<Outbox>,
    nodes: Vec<Node>,
    free_node: u32,
    frames: Vec<FrameEntry>,
    free_frame: u32,
    /// Sessions with something to send whose transport can take it. A session stands here exactly while it is `dirty`.
    dirty: VecDeque<u32>,
    bytes_waiting: u64,
}

#[derive(Clone, Copy, Debug)]
struct Outbox {
    head: u32,
    tail: u32,
    /// Bytes waiting, less those of the first frame that are sent already.
    bytes: u32,
    /// Bytes of the first frame that are sent already.
    sent: u32,
    transport: u32,
    open: bool,
    dirty: bool,
    /// True while the transport takes nothing until it says so.
    blocked: bool,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    frame: u32,
    next: u32,
}

#[derive(Debug)]
struct FrameEntry {
    frame: Option<Frame>,
    /// Nodes and callers that hold the frame; of a free entry, the next free one.
    holders: u32,
}

impl Default for Outboxes {
    fn default() -> Outboxes {
        Outboxes {
            boxes: PagedVec::default(),
            nodes: Vec::new(),
            free_node: NONE,
            frames: Vec::new(),
            free_frame: NONE,
            dirty: VecDeque::new(),
            bytes_waiting: 0,
        }
    }
}

impl Outboxes {
    /// No outboxes.
    #[must_use]
    pub fn new() -> Outboxes {
        Outboxes::default()
    }

    /// Opens the outbox of the session in `slot`, drained by `transport`.
    pub fn open(&mut self, slot: u32, transport: u32) {
        let index = slot as usize;
        let closed =
            Outbox { head: NONE, tail: NONE, bytes: 0, sent: 0, transport, open: false, dirty: false, blocked: false };
        while self.boxes.len() <= index {
            self.boxes.push(closed);
        }
        assert!(!self.boxes[index].open && self.boxes[index].head == NONE, "session {slot} has an outbox");
        let dirty = self.boxes[index].dirty;
        self.boxes[index] = Outbox { open: true, dirty, ..closed };
    }

    /// Closes the outbox and drops what waits in it.
    pub fn close(&mut self, slot: u32) {
        self.clear(slot);
        self.boxes[slot as usize].open = false;
    }

    /// Drops what waits, all of it.
    pub fn clear(&mut self, slot: u32) {
        let mut node = std::mem::replace(&mut self.boxes[slot as usize].head, NONE);
        while node != NONE {
            node = self.free(node);
        }
        let outbox = &mut self.boxes[slot as usize];
        self.bytes_waiting -= u64::from(outbox.bytes);
        (outbox.tail, outbox.bytes, outbox.sent) = (NONE, 0, 0);
    }

    /// Puts a frame into the table, to offer it to many. The caller gives it back with [`Outboxes::release`].
    ///
    /// # Panics
    /// If the frame has 4 GB or more.
    pub fn share(&mut self, frame: Frame) -> SharedFrame {
        let bytes = u32::try_from(frame.len()).expect("frames are bounded by the line and message bounds");
        let entry = FrameEntry { frame: Some(frame), holders: 1 };
        let index = if self.free_frame == NONE {
            self.frames.push(entry);
            (self.frames.len() - 1) as u32
        } else {
            let index = self.free_frame;
            self.free_frame = self.frames[index as usize].holders;
            self.frames[index as usize] = entry;
            index
        };
        SharedFrame { index, bytes }
    }

    /// Ends the hold of [`Outboxes::share`].
    pub fn release(&mut self, shared: SharedFrame) {
        self.drop_holder(shared.index);
    }

    /// Appends a shared frame, unless the outbox would hold more than `bytes_max` then.
    pub fn offer(&mut self, slot: u32, shared: SharedFrame, bytes_max: u32) -> Offer {
        let outbox = &mut self.boxes[slot as usize];
        if !outbox.open {
            return Offer::Closed;
        }
        // An empty outbox takes any frame: one that is larger than the bound could never be sent otherwise.
        if outbox.bytes.saturating_add(shared.bytes) > bytes_max && outbox.bytes > 0 {
            return Offer::Full;
        }
        outbox.bytes += shared.bytes;
        self.bytes_waiting += u64::from(shared.bytes);
        let node = Node { frame: shared.index, next: NONE };
        let index = if self.free_node == NONE {
            self.nodes.push(node);
            (self.nodes.len() - 1) as u32
        } else {
            let index = self.free_node;
            self.free_node = self.nodes[index as usize].next;
            self.nodes[index as usize] = node;
            index
        };
        if outbox.head == NONE {
            outbox.head = index;
        } else {
            self.nodes[outbox.tail as usize].next = index;
        }
        outbox.tail = index;
        if !outbox.dirty && !outbox.blocked {
            outbox.dirty = true;
            self.dirty.push_back(slot);
        }
        self.frames[shared.index as usize].holders += 1;
        Offer::Queued
    }

    /// Like [`Outboxes::offer`], for a frame that is of no use later: it is not taken while the transport is blocked,
    /// nor while the outbox has no room, which is no fault of the session's.
    pub fn offer_volatile(&mut self, slot: u32, shared: SharedFrame, bytes_max: u32) -> Offer {
        let outbox = &self.boxes[slot as usize];
        if outbox.open && outbox.blocked {
            return Offer::Skipped;
        }
        match self.offer(slot, shared, bytes_max) {
            Offer::Full => Offer::Skipped,
            offer => offer,
        }
    }

    /// Appends a frame of this session alone, without a bound: answers and control frames, which the client asked for
    /// and which are bounded by its being read one message at a time.
    pub fn push(&mut self, slot: u32, frame: Frame) -> Offer {
        let shared = self.share(frame);
        let offer = self.offer(slot, shared, u32::MAX);
        self.release(shared);
        offer
    }

    /// Bytes that wait in one outbox.
    #[must_use]
    pub fn bytes(&self, slot: u32) -> u32 {
        self.boxes[slot as usize].bytes
    }

    /// Bytes that wait in all outboxes.
    #[must_use]
    pub fn bytes_waiting(&self) -> u64 {
        self.bytes_waiting
    }

    /// Sessions that have something to send now.
    #[must_use]
    pub fn dirty_len(&self) -> usize {
        self.dirty.len()
    }

    /// The next session that has something to send, with its transport. The caller sends and reports, or it is
    /// forgotten until its outbox grows.
    pub fn next_dirty(&mut self) -> Option<(u32, u32)> {
        while let Some(slot) = self.dirty.pop_front() {
            let outbox = &mut self.boxes[slot as usize];
            outbox.dirty = false;
            if outbox.open && !outbox.blocked && outbox.head != NONE {
                return Some((slot, outbox.transport));
            }
        }
        None
    }

    /// The waiting bytes, in order: slices of shared frames, each with its frame's number. Two outboxes whose numbers
    /// and first slices' lengths agree hold the same bytes.
    pub fn waiting(&self, slot: u32) -> impl Iterator<Item = (u32, &[u8])> {
        let outbox = &self.boxes[slot as usize];
        let (mut node, mut skip) = (outbox.head, outbox.sent as usize);
        std::iter::from_fn(move || {
            if node == NONE {
                return None;
            }
            let Node { frame, next } = self.nodes[node as usize];
            node = next;
            let bytes = self.frames[frame as usize].frame.as_deref().expect("a node holds its frame");
            Some((frame, &bytes[std::mem::take(&mut skip)..]))
        })
    }

    /// Takes `bytes` off the front: the transport has them. Returns how many frames are complete with that. A rest
    /// makes the session dirty again, unless its transport is blocked.
    ///
    /// # Panics
    /// If fewer bytes waited.
    pub fn advance(&mut self, slot: u32, bytes: usize) -> usize {
        let outbox = &mut self.boxes[slot as usize];
        let mut rest = u32::try_from(bytes).expect("no more than waited");
        outbox.bytes -= rest;
        self.bytes_waiting -= u64::from(rest);
        let (mut head, mut sent) = (outbox.head, outbox.sent);
        let mut complete = 0;
        while rest > 0 {
            let frame = self.nodes[head as usize].frame;
            let length = self.frames[frame as usize].frame.as_ref().map_or(0, |f| f.len() as u32);
            if length - sent > rest {
                sent += rest;
                break;
            }
            rest -= length - sent;
            sent = 0;
            complete += 1;
            head = self.free(head);
        }
        let outbox = &mut self.boxes[slot as usize];
        (outbox.head, outbox.sent) = (head, sent);
        if head == NONE {
            outbox.tail = NONE;
        } else if !outbox.dirty && !outbox.blocked {
            outbox.dirty = true;
            self.dirty.push_back(slot);
        }
        complete
    }

    /// Another transport drains the outbox from now on, as long as it is not blocked.
    pub fn carry(&mut self, slot: u32, transport: u32) {
        self.boxes[slot as usize].transport = transport;
    }

    /// The transport takes nothing until [`Outboxes::unblock`].
    pub fn block(&mut self, slot: u32) {
        self.boxes[slot as usize].blocked = true;
    }

    /// The transport takes bytes again.
    pub fn unblock(&mut self, slot: u32) {
        let outbox = &mut self.boxes[slot as usize];
        outbox.blocked = false;
        if outbox.head != NONE && !outbox.dirty {
            outbox.dirty = true;
            self.dirty.push_back(slot);
        }
    }

    /// True when nothing waits for the session.
    #[must_use]
    pub fn is_empty(&self, slot: u32) -> bool {
        self.boxes[slot as usize].head == NONE
    }

    /// Chains, bytes and holders agree.
    pub fn check(&self) {
        let mut holders = vec![0u32; self.frames.len()];
        let mut total = 0u64;
        for (slot, outbox) in self.boxes.iter().enumerate() {
            let bytes: usize = self.waiting(slot as u32).map(|(_, bytes)| bytes.len()).sum();
            assert_eq!(bytes, outbox.bytes as usize, "session {slot}");
            self.waiting(slot as u32).for_each(|(frame, _)| holders[frame as usize] += 1);
            total += u64::from(outbox.bytes);
        }
        assert_eq!(total, self.bytes_waiting);
        for (index, entry) in self.frames.iter().enumerate() {
            assert!(entry.frame.is_none() || entry.holders == holders[index], "frame {index}");
        }
    }

    /// Frees a node; returns the one after it.
    fn free(&mut self, node: u32) -> u32 {
        let Node { frame, next } = self.nodes[node as usize];
        self.nodes[node as usize].next = self.free_node;
        self.free_node = node;
        self.drop_holder(frame);
        next
    }

    fn drop_holder(&mut self, index: u32) {
        let entry = &mut self.frames[index as usize];
        entry.holders -= 1;
        if entry.holders == 0 {
            entry.frame = None;
            entry.holders = self.free_frame;
            self.free_frame = index;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(outboxes: &Outboxes, slot: u32) -> String {
        outboxes.waiting(slot).map(|(_, bytes)| String::from_utf8(bytes.to_vec()).unwrap()).collect()
    }

    #[test]
    fn frames_are_shared_and_each_outbox_has_its_own_pace() {
        let mut outboxes = Outboxes::new();
        outboxes.open(0, 10);
        outboxes.open(1, 11);
        for word in ["hello ", "world"] {
            let shared = outboxes.share(Frame::new(word.as_bytes()));
            assert_eq!(outboxes.offer(0, shared, 100), Offer::Queued);
            assert_eq!(outboxes.offer(1, shared, 100), Offer::Queued);
            outboxes.release(shared);
        }
        assert_eq!((outboxes.next_dirty(), outboxes.next_dirty()), (Some((0, 10)), Some((1, 11))));
        assert_eq!(outboxes.advance(0, 8), 1);
        assert_eq!((text(&outboxes, 0).as_str(), text(&outboxes, 1).as_str()), ("rld", "hello world"));
        assert_eq!(outboxes.next_dirty(), Some((0, 10)), "a rest is dirty again");
        outboxes.block(0);
        assert_eq!(outboxes.push(0, Frame::new(b"!")), Offer::Queued);
        assert_eq!(outboxes.next_dirty(), None, "blocked");
        outboxes.unblock(0);
        assert_eq!((outboxes.next_dirty(), text(&outboxes, 0).as_str()), (Some((0, 10)), "rld!"));
        outboxes.check();
        assert_eq!(outboxes.advance(0, 4), 2);
        outboxes.close(1);
        outboxes.check();
        assert_eq!(outboxes.bytes_waiting(), 0);
    }

    #[test]
    fn a_full_outbox_takes_no_more_and_a_closed_one_nothing() {
        let mut outboxes = Outboxes::new();
        outboxes.open(0, 0);
        let shared = outboxes.share(Frame::new(&[b'x'; 60]));
        assert_eq!(outboxes.offer(0, shared, 50), Offer::Queued, "an empty outbox takes any frame");
        assert_eq!(outboxes.offer(0, shared, 100), Offer::Full);
        assert_eq!(outboxes.offer(0, shared, 120), Offer::Queued);
        outboxes.close(0);
        assert_eq!(outboxes.offer(0, shared, 100), Offer::Closed);
        outboxes.release(shared);
        outboxes.check();
    }

    #[test]
    fn a_volatile_frame_is_taken_at_once_or_not_at_all() {
        let mut outboxes = Outboxes::new();
        outboxes.open(0, 0);
        let shared = outboxes.share(Frame::new(&[b'x'; 60]));
        assert_eq!(outboxes.offer_volatile(0, shared, 50), Offer::Queued, "an empty outbox takes any frame");
        assert_eq!(outboxes.offer_volatile(0, shared, 100), Offer::Skipped, "no room");
        outboxes.block(0);
        assert_eq!(outboxes.offer_volatile(0, shared, 1000), Offer::Skipped);
        assert_eq!(outboxes.offer(0, shared, 1000), Offer::Queued);
        outboxes.unblock(0);
        assert_eq!(outboxes.offer_volatile(0, shared, 1000), Offer::Queued);
        assert_eq!(outboxes.bytes(0), 180);
        outboxes.close(0);
        assert_eq!(outboxes.offer_volatile(0, shared, 1000), Offer::Closed);
        outboxes.release(shared);
        outboxes.check();
    }

    proptest! {
        #[test]
        fn whatever_is_sent_in_whatever_pieces_is_what_was_offered(
            steps in prop::collection::vec((0u32..3, 0usize..40, any::<bool>()), 1..200)
        ) {
            let mut outboxes = Outboxes::new();
            let mut model = [const { Vec::<u8>::new() }; 3];
            (0..3).for_each(|slot| outboxes.open(slot, slot));
            for (n, (slot, amount, send)) in steps.into_iter().enumerate() {
                if send {
                    let amount = amount.min(model[slot as usize].len());
                    outboxes.advance(slot, amount);
                    model[slot as usize].drain(..amount);
                } else {
                    let frame = vec![n as u8; amount + 1];
                    let shared = outboxes.share(Frame::new(&frame));
                    for to in 0..=slot {
                        prop_assert_eq!(outboxes.offer(to, shared, u32::MAX), Offer::Queued);
                        model[to as usize].extend(&frame);
                    }
                    outboxes.release(shared);
                }
                outboxes.check();
                for slot in 0..3 {
                    let waiting: Vec<u8> = outboxes.waiting(slot).flat_map(|(_, b)| b.to_vec()).collect();
                    prop_assert_eq!(&waiting, &model[slot as usize]);
                }
            }
        }
    }
}
