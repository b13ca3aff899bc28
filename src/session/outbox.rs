//! What waits to be sent, for all sessions of one core. Frames are shared: a waiting frame costs eight bytes at each
//! holder. Does not know sockets; a transport driver drains an outbox and says how many bytes it got rid of. What
//! happens when one is full is in `laggards`.

mod laggards;

use crate::base::class::PatternId;
use crate::base::frame::Frame;
use crate::base::ids::KeyMark;
use crate::base::paged::PagedVec;
use laggards::Laggard;
use std::collections::{HashMap, VecDeque};

pub use laggards::Losses;

const NONE: u32 = u32::MAX;
/// How much of each chain [`Outboxes::fetch`] brings near: a batch of 256 such pieces fits into the second-level cache.
const NODES_FETCHED: usize = 8;

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

/// What [`Outboxes::take`] has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Bytes to be sent.
    pub bytes: u32,
    /// Bytes of the first frame that are sent already.
    pub skip: u32,
    /// True if more waits behind them.
    pub rest: bool,
}

/// What may become of a frame that waits in a full outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing: it is sent, or the session ends. It was said to the session alone and does not count as lagging behind
    /// others.
    Answer,
    /// Nothing: it is sent, or the session ends.
    Kept,
    /// It may be dropped if it is the oldest such one, which is counted for the pattern.
    Droppable(PatternId),
    /// It gives way to a later one of the same mark, which is counted for the pattern.
    Conflatable(PatternId, KeyMark),
}

/// What became of an offered frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Offer {
    /// It will be sent.
    Queued,
    /// The outbox is full of what must not be dropped: the frame was not taken, and the session misses it from now on.
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
    /// The most that an outbox came to hold whose transport could take it, since [`Outboxes::watch_backlog`].
    backlog: u32,
    /// Nodes in use.
    nodes_held: u32,
    /// Memory of the frames in the table.
    frames_memory: u64,
    /// Sessions whose outbox was full and has not been empty since, by slot.
    laggards: HashMap<u32, Laggard>,
    /// By pattern.
    losses: Vec<Losses>,
    /// Bytes of events offered to outboxes that lag, since [`Outboxes::take_lag`].
    lag: u64,
    /// Sessions ever taken off the front of `dirty`.
    visited: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The session is on its way out, or there is none.
    Closed,
    Open,
    /// It was full, and has not been empty since: it is among the laggards, and some of its nodes may be void.
    Lagging,
}

#[derive(Clone, Copy, Debug)]
struct Outbox {
    /// Never void.
    head: u32,
    tail: u32,
    /// Bytes waiting, less those of the first frame that are sent already.
    bytes: u32,
    /// Bytes of the first frame that are sent already.
    sent: u32,
    /// Of the waiting bytes, those of frames that the session was told alone.
    answers: u32,
    transport: u32,
    state: State,
    dirty: bool,
    /// True while the transport takes nothing until it says so.
    blocked: bool,
}

// There is one for each client.
const _: () = assert!(size_of::<Outbox>() <= 28);

#[derive(Clone, Copy, Debug)]
struct Node {
    /// [`NONE`] if the frame has been dropped, which only happens in outboxes that lag.
    frame: u32,
    next: u32,
}

// There is one for each frame and each client that it waits for.
const _: () = assert!(size_of::<Node>() == 8);

#[derive(Debug)]
struct FrameEntry {
    frame: Option<Frame>,
    fate: Fate,
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
            backlog: 0,
            nodes_held: 0,
            frames_memory: 0,
            laggards: HashMap::new(),
            losses: Vec::new(),
            lag: 0,
            visited: 0,
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
        let closed = Outbox {
            head: NONE,
            tail: NONE,
            bytes: 0,
            sent: 0,
            answers: 0,
            transport,
            state: State::Closed,
            dirty: false,
            blocked: false,
        };
        while self.boxes.len() <= index {
            self.boxes.push(closed);
        }
        let former = &self.boxes[index];
        assert!(former.state == State::Closed && former.head == NONE, "session {slot} has an outbox");
        self.boxes[index] = Outbox { state: State::Open, dirty: former.dirty, ..closed };
    }

    /// Closes the outbox and drops what waits in it.
    pub fn close(&mut self, slot: u32) {
        self.clear(slot);
        self.boxes[slot as usize].state = State::Closed;
    }

    /// Drops what waits, all of it.
    pub fn clear(&mut self, slot: u32) {
        let mut node = std::mem::replace(&mut self.boxes[slot as usize].head, NONE);
        while node != NONE {
            node = self.free(node);
        }
        let outbox = &mut self.boxes[slot as usize];
        self.bytes_waiting -= u64::from(outbox.bytes);
        (outbox.tail, outbox.bytes, outbox.sent, outbox.answers) = (NONE, 0, 0, 0);
        self.caught_up(slot);
    }

    /// Puts a frame into the table, to offer it to many. The caller gives it back with [`Outboxes::release`].
    ///
    /// # Panics
    /// If the frame has 4 GB or more.
    pub fn share(&mut self, frame: Frame, fate: Fate) -> SharedFrame {
        let bytes = u32::try_from(frame.len()).expect("frames are bounded by the line and message bounds");
        self.frames_memory += frame_memory(&frame);
        let entry = FrameEntry { frame: Some(frame), fate, holders: 1 };
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

    /// Appends a shared frame, unless the outbox would hold more than `bytes_max` then, even without what may be
    /// dropped; answers don't count.
    pub fn offer(&mut self, slot: u32, shared: SharedFrame, bytes_max: u32) -> Offer {
        let outbox = &self.boxes[slot as usize];
        if outbox.state != State::Open || outbox.has_no_room(shared, bytes_max) {
            return self.offer_to_laggard(slot, shared, bytes_max);
        }
        self.append(slot, shared);
        Offer::Queued
    }

    /// Appends a frame; returns its node.
    #[inline]
    fn append(&mut self, slot: u32, shared: SharedFrame) -> u32 {
        self.bytes_waiting += u64::from(shared.bytes);
        let index = self.new_node(Node { frame: shared.index, next: NONE });
        let outbox = &mut self.boxes[slot as usize];
        if outbox.head == NONE {
            outbox.head = index;
        } else {
            self.nodes[outbox.tail as usize].next = index;
        }
        outbox.tail = index;
        outbox.bytes += shared.bytes;
        if !outbox.blocked {
            self.backlog = self.backlog.max(outbox.bytes);
            if !outbox.dirty {
                outbox.dirty = true;
                self.dirty.push_back(slot);
            }
        }
        self.frames[shared.index as usize].holders += 1;
        index
    }

    #[inline]
    fn new_node(&mut self, node: Node) -> u32 {
        self.nodes_held += 1;
        if self.free_node == NONE {
            self.nodes.push(node);
            return (self.nodes.len() - 1) as u32;
        }
        let index = self.free_node;
        self.free_node = self.nodes[index as usize].next;
        self.nodes[index as usize] = node;
        index
    }

    /// Like [`Outboxes::offer`], for a frame that is of no use later: it is not taken while the transport is blocked,
    /// nor while the outbox has no room, which is no fault of the session's. Nothing else is dropped for it.
    pub fn offer_volatile(&mut self, slot: u32, shared: SharedFrame, bytes_max: u32) -> Offer {
        let outbox = &self.boxes[slot as usize];
        if outbox.state != State::Closed && (outbox.blocked || outbox.has_no_room(shared, bytes_max)) {
            return Offer::Skipped;
        }
        self.offer(slot, shared, bytes_max)
    }

    /// Appends a frame of this session alone, without a bound: answers and control frames, which the client asked for
    /// and which are bounded by its not being read while many wait: [`Outboxes::answers`].
    pub fn push(&mut self, slot: u32, frame: Frame) -> Offer {
        let shared = self.share(frame, Fate::Answer);
        let offer = self.push_shared(slot, shared);
        self.release(shared);
        offer
    }

    /// Like [`Outboxes::push`], for a frame that several sessions are told, each for reasons of its own.
    ///
    /// # Panics
    /// If the frame was not shared as [`Fate::Answer`].
    pub fn push_shared(&mut self, slot: u32, shared: SharedFrame) -> Offer {
        assert_eq!(self.frames[shared.index as usize].fate, Fate::Answer, "only answers have no bound");
        let offer = self.offer(slot, shared, u32::MAX);
        if offer == Offer::Queued {
            self.boxes[slot as usize].answers += shared.bytes;
        }
        offer
    }

    /// Bytes of frames that wait in one outbox and were said to its session alone.
    #[must_use]
    pub fn answers(&self, slot: u32) -> u32 {
        self.boxes[slot as usize].answers
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

    /// Memory that all outboxes take: each frame once, and a node for each outbox that it waits in.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.frames_memory + u64::from(self.nodes_held) * size_of::<Node>() as u64
    }

    /// Sessions for which something waits, with how many bytes.
    pub fn holders(&self) -> impl Iterator<Item = (u32, u32)> {
        let boxes = self.boxes.iter().enumerate();
        boxes.filter(|(_, outbox)| outbox.bytes > 0).map(|(slot, outbox)| (slot as u32, outbox.bytes))
    }

    /// What has been dropped, by the number of the pattern.
    #[must_use]
    pub fn losses(&self) -> &[Losses] {
        &self.losses
    }

    /// Sessions whose outbox was full and has not been empty since.
    #[must_use]
    pub fn lagging(&self) -> usize {
        self.laggards.len()
    }

    /// Bytes of events that were offered to outboxes that lag since the last call, whatever became of them.
    #[inline]
    pub fn take_lag(&mut self) -> u64 {
        std::mem::take(&mut self.lag)
    }

    /// How many sessions [`Outboxes::next_dirty`] has looked at so far.
    #[must_use]
    pub fn visited(&self) -> u64 {
        self.visited
    }

    /// Sessions that have something to send now.
    #[must_use]
    pub fn dirty_len(&self) -> usize {
        self.dirty.len()
    }

    /// The most bytes that an outbox has come to hold since [`Outboxes::watch_backlog`] though its transport could take
    /// them: what waits for this core, not for a client.
    #[must_use]
    pub fn backlog(&self) -> u32 {
        self.backlog
    }

    /// Has [`Outboxes::backlog`] begin anew.
    pub fn watch_backlog(&mut self) {
        self.backlog = 0;
    }

    /// The next session that has something to send, with its transport. The caller sends and reports, or it is
    /// forgotten until its outbox grows.
    pub fn next_dirty(&mut self) -> Option<(u32, u32)> {
        while let Some(slot) = self.dirty.pop_front() {
            let outbox = &mut self.boxes[slot as usize];
            self.visited += 1;
            outbox.dirty = false;
            if outbox.state != State::Closed && !outbox.blocked && outbox.head != NONE {
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
            loop {
                if node == NONE {
                    return None;
                }
                let Node { frame, next } = self.nodes[node as usize];
                node = next;
                if frame != NONE {
                    let bytes = self.frames[frame as usize].frame.as_deref().expect("a node holds its frame");
                    return Some((frame, &bytes[std::mem::take(&mut skip)..]));
                }
            }
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
        let lags = outbox.state == State::Lagging;
        let (mut head, mut sent, mut answers) = (outbox.head, outbox.sent, outbox.answers);
        let mut complete = 0;
        while rest > 0 {
            let frame = self.nodes[head as usize].frame;
            let entry = &self.frames[frame as usize];
            let length = entry.bytes();
            if entry.fate == Fate::Answer {
                answers -= rest.min(length - sent);
            }
            if length - sent > rest {
                sent += rest;
                break;
            }
            rest -= length - sent;
            sent = 0;
            complete += 1;
            head = if lags { self.free_of_laggard(slot, head) } else { self.free(head) };
        }
        let outbox = &mut self.boxes[slot as usize];
        (outbox.head, outbox.sent, outbox.answers) = (head, sent, answers);
        if head == NONE {
            outbox.tail = NONE;
            self.caught_up(slot);
        }
        self.soil(slot);
        complete
    }

    /// Has the chains of many outboxes brought near before they are walked one after the other. Each node of a chain
    /// says where the next one is, which may be far away by now; those of different chains can be fetched at the same
    /// time. `cursors` is a place to work in.
    pub fn fetch(&self, slots: impl Iterator<Item = u32>, cursors: &mut Vec<u32>) {
        cursors.clear();
        cursors.extend(slots.map(|slot| self.boxes[slot as usize].head).filter(|&node| node != NONE));
        for _ in 0..NODES_FETCHED {
            cursors.retain_mut(|node| {
                *node = self.nodes[*node as usize].next;
                *node != NONE
            });
        }
        // Or else the compiler finds that nobody needs the last ones.
        std::hint::black_box(cursors);
    }

    /// Takes frames off the front, as many as `bytes_max` allow and one at least, for a transport that is about to send
    /// them: the outbox is not looked at again if it takes all. Their numbers go to `frames`. The caller gives them
    /// back with [`Outboxes::settle`] before anything else is done with the outbox. `None`, and nothing is taken, if
    /// the outbox lags: what is left of it then depends on what waits.
    pub fn take(&mut self, slot: u32, bytes_max: u32, frames: &mut Vec<u32>) -> Option<Taken> {
        let outbox = &mut self.boxes[slot as usize];
        if outbox.state != State::Open {
            return None;
        }
        let (mut node, skip) = (outbox.head, outbox.sent);
        let (mut bytes, mut count, mut answers) = (0, 0, 0);
        while node != NONE {
            let Node { frame, next } = self.nodes[node as usize];
            let entry = &self.frames[frame as usize];
            let length = entry.bytes() - if count == 0 { skip } else { 0 };
            if count > 0 && bytes + length > bytes_max {
                break;
            }
            if entry.fate == Fate::Answer {
                answers += length;
            }
            bytes += length;
            count += 1;
            frames.push(frame);
            self.nodes[node as usize].next = self.free_node;
            self.free_node = node;
            node = next;
        }
        let rest = node != NONE;
        outbox.head = node;
        outbox.tail = if rest { outbox.tail } else { NONE };
        (outbox.bytes, outbox.answers, outbox.sent) = (outbox.bytes - bytes, outbox.answers - answers, 0);
        self.bytes_waiting -= u64::from(bytes);
        self.nodes_held -= count;
        Some(Taken { bytes, skip, rest })
    }

    /// Has a session that came by [`Outboxes::next_dirty`] come again before all others.
    pub fn postpone(&mut self, slot: u32) {
        let outbox = &mut self.boxes[slot as usize];
        if !std::mem::replace(&mut outbox.dirty, true) {
            self.dirty.push_front(slot);
            self.visited -= 1;
        }
    }

    /// The bytes of a frame that waits or is taken.
    ///
    /// # Panics
    /// If the frame is gone.
    #[must_use]
    pub fn frame(&self, frame: u32) -> &[u8] {
        self.frames[frame as usize].frame.as_deref().expect("a frame that is held")
    }

    /// The transport has taken `sent` bytes of what [`Outboxes::take`] took, of which `frames` are the numbers; the
    /// others wait again, where they stood. Returns how many frames are complete with that. A rest makes the session
    /// dirty again, unless its transport is blocked.
    ///
    /// # Panics
    /// If fewer bytes were taken.
    pub fn settle(&mut self, slot: u32, taken: Taken, frames: &[u32], sent: usize) -> usize {
        let mut complete = frames.len();
        if sent < taken.bytes as usize {
            let mut left = taken.skip as usize + sent;
            complete = 0;
            while let Some(less) = left.checked_sub(self.frame(frames[complete]).len()) {
                left = less;
                complete += 1;
            }
            self.put_back(slot, &frames[complete..], left as u32);
        } else {
            assert_eq!(sent, taken.bytes as usize, "no more than was taken");
        }
        frames[..complete].iter().for_each(|&frame| self.drop_holder(frame));
        if complete < frames.len() || taken.rest {
            self.soil(slot);
        }
        complete
    }

    /// Puts frames in front of what waits, with the hold on each; of the first, `sent` bytes are sent.
    fn put_back(&mut self, slot: u32, frames: &[u32], sent: u32) {
        let Outbox { mut head, mut tail, .. } = self.boxes[slot as usize];
        let (mut bytes, mut answers) = (0, 0);
        for (position, &frame) in frames.iter().enumerate().rev() {
            let entry = &self.frames[frame as usize];
            let length = entry.bytes() - if position == 0 { sent } else { 0 };
            bytes += length;
            answers += if entry.fate == Fate::Answer { length } else { 0 };
            head = self.new_node(Node { frame, next: head });
            tail = if tail == NONE { head } else { tail };
        }
        let outbox = &mut self.boxes[slot as usize];
        assert!(outbox.state == State::Open, "session {slot} is settled before it ends");
        (outbox.head, outbox.tail, outbox.sent) = (head, tail, sent);
        (outbox.bytes, outbox.answers) = (outbox.bytes + bytes, outbox.answers + answers);
        self.bytes_waiting += u64::from(bytes);
    }

    /// The session has something to send, unless its transport is blocked.
    fn soil(&mut self, slot: u32) {
        let outbox = &mut self.boxes[slot as usize];
        if !outbox.dirty && !outbox.blocked && outbox.head != NONE {
            outbox.dirty = true;
            self.dirty.push_back(slot);
        }
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
        self.soil(slot);
    }

    /// True when nothing waits for the session.
    #[must_use]
    pub fn is_empty(&self, slot: u32) -> bool {
        self.boxes[slot as usize].head == NONE
    }

    /// Chains, bytes and holders agree.
    pub fn check(&self) {
        let mut holders = vec![0u32; self.frames.len()];
        let (mut total, mut nodes) = (0u64, 0);
        for (slot, outbox) in self.boxes.iter().enumerate() {
            let bytes: usize = self.waiting(slot as u32).map(|(_, bytes)| bytes.len()).sum();
            assert_eq!(bytes, outbox.bytes as usize, "session {slot}");
            self.waiting(slot as u32).for_each(|(frame, _)| holders[frame as usize] += 1);
            total += u64::from(outbox.bytes);
            let is_answer = |frame: u32| self.frames[frame as usize].fate == Fate::Answer;
            let answers =
                self.waiting(slot as u32).filter(|(frame, _)| is_answer(*frame)).map(|(_, bytes)| bytes.len());
            assert_eq!(answers.sum::<usize>(), outbox.answers as usize, "session {slot}");
            nodes += self.check_laggard(slot as u32);
        }
        assert_eq!((total, nodes), (self.bytes_waiting, self.nodes_held));
        for (index, entry) in self.frames.iter().enumerate() {
            assert!(entry.frame.is_none() || entry.holders == holders[index], "frame {index}");
        }
        let frames = self.frames.iter().filter_map(|entry| entry.frame.as_ref());
        assert_eq!(frames.map(frame_memory).sum::<u64>(), self.frames_memory);
    }

    /// Frees a node; returns the one after it.
    fn free(&mut self, node: u32) -> u32 {
        let Node { frame, next } = self.nodes[node as usize];
        self.nodes[node as usize].next = self.free_node;
        self.free_node = node;
        self.nodes_held -= 1;
        if frame != NONE {
            self.drop_holder(frame);
        }
        next
    }

    fn drop_holder(&mut self, index: u32) {
        let entry = &mut self.frames[index as usize];
        entry.holders -= 1;
        if entry.holders == 0 {
            self.frames_memory -= entry.frame.take().as_ref().map_or(0, frame_memory);
            entry.holders = self.free_frame;
            self.free_frame = index;
        }
    }
}

impl FrameEntry {
    /// The frame's length.
    #[inline]
    fn bytes(&self) -> u32 {
        self.frame.as_ref().map_or(0, |frame| frame.len() as u32)
    }
}

impl Outbox {
    /// Answers take no room from others. If nothing else waits, there is room for any frame: one that is larger than
    /// the bound could never be sent otherwise.
    #[inline]
    fn has_no_room(&self, shared: SharedFrame, bytes_max: u32) -> bool {
        let bytes = self.bytes - self.answers;
        bytes.saturating_add(shared.bytes) > bytes_max && bytes > 0
    }
}

/// Two counts stand in front of the bytes of a shared frame; its entry is ours.
fn frame_memory(frame: &Frame) -> u64 {
    (frame.len() + 2 * size_of::<usize>() + size_of::<FrameEntry>()) as u64
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
            let shared = outboxes.share(Frame::new(word.as_bytes()), Fate::Kept);
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
        let shared = outboxes.share(Frame::new(&[b'x'; 60]), Fate::Kept);
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
        let shared = outboxes.share(Frame::new(&[b'x'; 60]), Fate::Kept);
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
            steps in prop::collection::vec((0u32..3, 0usize..40, any::<bool>(), any::<bool>()), 1..200)
        ) {
            let mut outboxes = Outboxes::new();
            let mut model = [const { Vec::<u8>::new() }; 3];
            (0..3).for_each(|slot| outboxes.open(slot, slot));
            for (n, (slot, amount, send, take)) in steps.into_iter().enumerate() {
                let waiting = &mut model[slot as usize];
                if send && take && !waiting.is_empty() {
                    let mut frames = Vec::new();
                    let taken = outboxes.take(slot, 60, &mut frames).expect("it does not lag");
                    let mut bytes: Vec<u8> = frames.iter().flat_map(|&frame| outboxes.frame(frame).to_vec()).collect();
                    bytes.drain(..taken.skip as usize);
                    prop_assert_eq!(&bytes, &waiting[..taken.bytes as usize]);
                    prop_assert_eq!(taken.rest, bytes.len() < waiting.len());
                    let amount = amount.min(bytes.len());
                    let (before, length) = (frames.len(), waiting.len());
                    let complete = outboxes.settle(slot, taken, &frames, amount);
                    prop_assert_eq!(complete == before, amount == bytes.len());
                    waiting.drain(..amount);
                    prop_assert_eq!(outboxes.bytes(slot) as usize, length - amount);
                    let dirty = std::iter::from_fn(|| outboxes.next_dirty()).any(|(dirty, _)| dirty == slot);
                    prop_assert!(dirty || waiting.is_empty(), "a rest is to be sent");
                } else if send {
                    let amount = amount.min(waiting.len());
                    outboxes.advance(slot, amount);
                    waiting.drain(..amount);
                } else {
                    let frame = vec![n as u8; amount + 1];
                    let shared = outboxes.share(Frame::new(&frame), Fate::Kept);
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
