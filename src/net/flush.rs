//! Sending: what waits in outboxes goes out in one batch per call to the kernel, one send per connection.

use super::conn::Role;
use super::core::Core;
use super::ring::{Outgoing, SENDS_MAX};
use crate::base::counters;
use crate::session::outbox::{Outboxes, Taken};
use std::ops::Range;

/// The most bytes that one send joins. Copying 100 bytes beats a further iovec; beyond this, a large outbox takes turns
/// with the others.
pub(super) const JOIN_BYTES_MAX: usize = 64 << 10;
/// Bytes joined per batch: beyond the second-level cache, joining costs more than the next batch's system call.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// Buffers of the flush, kept from batch to batch.
#[derive(Debug, Default)]
pub(super) struct Workspace {
    /// Frames that go out together, one connection's after the other's.
    joined: Vec<u8>,
    batch: Vec<Pending>,
    /// Polls answered beside the batch. Each is a call to the kernel of its own: polling is for clients that have
    /// nothing better.
    polls: usize,
    results: Vec<i32>,
    /// The last batch's memory: always empty between batches.
    outgoing: Vec<Outgoing<'static>>,
    /// The batch's frames, by their numbers.
    frames: Vec<u32>,
    /// For [`Outboxes::fetch`].
    cursors: Vec<u32>,
}

/// One connection's send.
#[derive(Debug)]
struct Pending {
    session: u32,
    conn: u32,
    /// True if somebody waits for the outbox to be drained.
    watched: bool,
    /// `None` if the frames stay in the outbox until they are sent.
    taken: Option<Taken>,
    /// In the workspace's `frames`. Members of one room mostly get the same, which stand there once then.
    frames: Range<usize>,
    bytes: Bytes,
    length: usize,
}

#[derive(Clone, Debug)]
enum Bytes {
    /// The only frame, where it is, from this byte on.
    Frame { skip: usize },
    /// A part of `joined`.
    Joined(Range<usize>),
}

impl Core {
    /// Sends one batch. Returns how many connections were in it.
    pub(super) fn flush_some(&mut self) -> usize {
        let mut work = std::mem::take(&mut self.flush);
        work.gather(self);
        let mut batch = emptied(std::mem::take(&mut work.outgoing));
        batch.extend(work.batch.iter().map(|pending| {
            let bytes = match &pending.bytes {
                Bytes::Joined(range) => &work.joined[range.clone()],
                Bytes::Frame { skip } => &self.shard.outboxes.frame(work.frames[pending.frames.start])[*skip..],
            };
            Outgoing { stream: &self.conns[pending.conn].stream, bytes }
        }));
        if batch.is_empty() {
            let polls = work.polls;
            work.outgoing = emptied(batch);
            self.flush = work;
            return polls;
        }
        self.shard.counters.histograms.batch_sends.note(batch.len() as u64);
        self.ring.send(&batch, &mut work.results, &mut self.completions);
        work.outgoing = emptied(batch);
        // Every outbox has back what was not sent before anything is done about that.
        for (pending, result) in work.batch.iter().zip(&work.results) {
            self.settle(pending, &work.frames[pending.frames.clone()], *result);
        }
        for (pending, result) in work.batch.iter().zip(&work.results) {
            let full = usize::try_from(*result).is_ok_and(|taken| taken == pending.length);
            if !full || pending.watched {
                self.sent(pending.session, pending.conn, *result, full);
            }
        }
        let count = work.batch.len() + work.polls;
        work.batch.clear();
        self.flush = work;
        count
    }

    /// What the kernel has taken is gone, and nothing else.
    fn settle(&mut self, pending: &Pending, frames: &[u32], result: i32) {
        let taken = usize::try_from(result).unwrap_or(0);
        let shard = &mut self.shard;
        if taken > 0 {
            shard.counters.sends += 1;
            shard.counters.sent_bytes += taken as u64;
        }
        if taken < pending.length {
            // Before the outbox has it back, which would have it sent again at once.
            shard.outboxes.block(pending.session);
        }
        let complete = match pending.taken {
            Some(of) => shard.outboxes.settle(pending.session, of, frames, taken),
            None => shard.outboxes.advance(pending.session, taken),
        };
        shard.counters.sent_frames += complete as u64;
        if taken > 0 {
            shard.counters.histograms.send_frames.note(complete as u64);
        }
    }

    fn sent(&mut self, session: u32, slot: u32, result: i32, full: bool) {
        let at = self.conns.at(slot).expect("a session in the batch has its connection");
        self.drained(at, session);
        if full {
            return;
        }
        match -result {
            error if result < 0 && !matches!(error, libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM | libc::EINTR) => {
                let label = super::error_label(&std::io::Error::from_raw_os_error(error));
                self.shard.counters.count(counters::SOCKET_ERRORS, label);
                return self.finish(at, label);
            }
            libc::EAGAIN => self.shard.counters.sends_blocked += 1,
            error if result < 0 => {
                let label = super::error_label(&std::io::Error::from_raw_os_error(error));
                self.shard.counters.count(counters::SOCKET_ERRORS, label);
            }
            _ => self.shard.counters.sends_partial += 1,
        }
        let conn = &mut self.conns[slot];
        if !std::mem::replace(&mut conn.polls_write, true) {
            self.ring.poll_write(&self.conns[slot].stream, at);
        }
    }

    /// A connection has taken something.
    fn drained(&mut self, at: crate::base::ids::SlotRef, session: u32) {
        let outboxes = &self.shard.outboxes;
        let (answers, is_empty) = (outboxes.answers(session), outboxes.is_empty(session));
        let conn = &mut self.conns[at.slot];
        match conn.role {
            // A client that had to read its answers first is heard again.
            Role::WebSocket { session, .. }
                if conn.paused && answers <= self.options.outbox_bytes_max / 2 && !self.shard.is_busy(session) =>
            {
                conn.paused = false;
                self.queue(at);
            }
            Role::Closing { peer_closed: true, .. } if is_empty => self.linger(at),
            _ => {}
        }
    }
}

impl Workspace {
    /// Collects what the next batch sends. All outboxes are looked at before all connections, and these before all
    /// chains of frames: whatever was not used for a while is far away, and the processor fetches many things at a time
    /// that do not hang on each other.
    fn gather(&mut self, core: &mut Core) {
        self.batch.clear();
        self.joined.clear();
        self.frames.clear();
        self.polls = 0;
        while self.batch.len() < SENDS_MAX {
            let Some((session, conn)) = core.shard.outboxes.next_dirty() else { break };
            let (frames, bytes) = (0..0, Bytes::Frame { skip: 0 });
            self.batch.push(Pending { session, conn, watched: false, taken: None, frames, bytes, length: 0 });
        }
        self.batch.retain_mut(|pending| core.can_be_sent(pending, &mut self.polls));
        core.shard.outboxes.fetch(self.batch.iter().map(|pending| pending.session), &mut self.cursors);
        for next in 0..self.batch.len() {
            if self.joined.len() >= BATCH_BYTES_MAX {
                let late = self.batch.drain(next..).rev();
                late.for_each(|pending| core.shard.outboxes.postpone(pending.session));
                break;
            }
            let (former, rest) = self.batch.split_at_mut(next);
            let outboxes = &mut core.shard.outboxes;
            gather_one(&mut rest[0], former.last(), outboxes, &mut self.frames, &mut self.joined);
        }
    }
}

impl Core {
    /// False if there is nothing to be sent in a batch. A poll is answered at once, and counted.
    fn can_be_sent(&mut self, pending: &mut Pending, polls: &mut usize) -> bool {
        let conn = self.conns.at(pending.conn).map(|at| (at, &self.conns[at.slot]));
        // A panic may have torn a session from its connection; what waits for it must not reach the slot's next tenant.
        let Some((at, conn)) = conn.filter(|(_, conn)| conn.carries(pending.session)) else {
            self.shard.outboxes.close(pending.session);
            return false;
        };
        if matches!(conn.role, Role::Http(_)) {
            self.answer_poll(at);
            *polls += 1;
            return false;
        }
        pending.watched = conn.paused || matches!(conn.role, Role::Closing { .. });
        true
    }
}

/// Finds out what is sent to one connection. `former` is the one before.
fn gather_one(
    pending: &mut Pending,
    former: Option<&Pending>,
    outboxes: &mut Outboxes,
    frames: &mut Vec<u32>,
    joined: &mut Vec<u8>,
) {
    let start = frames.len();
    pending.taken = outboxes.take(pending.session, JOIN_BYTES_MAX as u32, frames);
    let (skip, length) = match pending.taken {
        Some(Taken { bytes, skip, .. }) => (skip as usize, bytes as usize),
        None => {
            let (mut skip, mut length) = (0, 0);
            for (frame, piece) in outboxes.waiting(pending.session) {
                if frames.len() == start {
                    skip = outboxes.frame(frame).len() - piece.len();
                } else if length + piece.len() > JOIN_BYTES_MAX {
                    break;
                }
                length += piece.len();
                frames.push(frame);
            }
            (skip, length)
        }
    };
    pending.frames = start..frames.len();
    pending.length = length;
    // What differs in nothing but the first piece differs in length.
    if let Some(former) =
        former.filter(|former| former.length == length && frames[former.frames.clone()] == frames[start..])
    {
        pending.bytes = former.bytes.clone();
        pending.frames = former.frames.clone();
        frames.truncate(start);
    } else if frames.len() - start == 1 {
        pending.bytes = Bytes::Frame { skip };
    } else {
        let from = joined.len();
        let mut skip = skip;
        for &frame in &frames[start..] {
            joined.extend_from_slice(&outboxes.frame(frame)[std::mem::take(&mut skip)..]);
        }
        pending.bytes = Bytes::Joined(from..joined.len());
    }
}

/// The vector's memory for a batch that borrows from elsewhere: collecting from a vector's own items takes it over.
fn emptied<'a>(mut batch: Vec<Outgoing<'_>>) -> Vec<Outgoing<'a>> {
    batch.clear();
    batch.into_iter().map(|_| unreachable!("it is empty")).collect()
}
