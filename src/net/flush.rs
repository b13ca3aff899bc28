//! Sending: what waits in outboxes goes out in one batch per call to the kernel, one send per connection.

use super::conn::Role;
use super::core::Core;
use super::ring::{Outgoing, SENDS_MAX};
use crate::base::counters;
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
    /// The frames of the last joined send, and the length of its first piece: members of one room mostly get the same.
    last: Vec<u32>,
    last_first_bytes: usize,
    frames: Vec<u32>,
}

/// One connection's send.
#[derive(Debug)]
struct Pending {
    session: u32,
    conn: u32,
    bytes: Bytes,
    length: usize,
}

#[derive(Debug)]
enum Bytes {
    /// The first waiting frame, where it is.
    Frame,
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
                Bytes::Frame => self.shard.outboxes.waiting(pending.session).next().map_or(&[][..], |(_, b)| b),
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
        for (pending, result) in work.batch.iter().zip(&work.results) {
            self.sent(pending.session, pending.conn, *result, pending.length);
        }
        let count = work.batch.len() + work.polls;
        work.batch.clear();
        self.flush = work;
        count
    }

    fn sent(&mut self, session: u32, slot: u32, result: i32, length: usize) {
        let at = self.conns.at(slot).expect("a session in the batch has its connection");
        let taken = usize::try_from(result).unwrap_or(0);
        if taken > 0 {
            self.shard.counters.sends += 1;
            self.shard.counters.sent_bytes += taken as u64;
        }
        let full = taken < length;
        if full {
            // Before `advance`, which would have it sent again at once.
            self.shard.outboxes.block(session);
        }
        let frames = self.shard.outboxes.advance(session, taken) as u64;
        self.shard.counters.sent_frames += frames;
        if taken > 0 {
            self.shard.counters.histograms.send_frames.note(frames);
        }
        self.drained(at, session);
        if !full {
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
    /// Collects what the next batch sends.
    fn gather(&mut self, core: &mut Core) {
        self.batch.clear();
        self.joined.clear();
        self.last.clear();
        self.polls = 0;
        while self.batch.len() + self.polls < SENDS_MAX && self.joined.len() < BATCH_BYTES_MAX {
            let outboxes = &mut core.shard.outboxes;
            let Some((session, conn)) = outboxes.next_dirty() else { break };
            // A panic may have torn a session from its connection; what waits for it must not reach the slot's next
            // tenant.
            let carries = core.conns.at(conn).is_some_and(|_| core.conns[conn].carries(session));
            if !carries {
                outboxes.close(session);
                continue;
            }
            if matches!(core.conns[conn].role, Role::Http(_)) {
                let at = core.conns.at(conn).expect("it carries the session");
                core.answer_poll(at);
                self.polls += 1;
                continue;
            }
            let outboxes = &mut core.shard.outboxes;
            self.frames.clear();
            let mut bytes = 0;
            let mut first_bytes = 0;
            for (frame, piece) in outboxes.waiting(session) {
                if !self.frames.is_empty() && bytes + piece.len() > JOIN_BYTES_MAX {
                    break;
                }
                if self.frames.is_empty() {
                    first_bytes = piece.len();
                }
                bytes += piece.len();
                self.frames.push(frame);
            }
            let length = bytes;
            let bytes = if self.frames.len() == 1 {
                Bytes::Frame
            } else if self.frames == self.last && first_bytes == self.last_first_bytes {
                match self.batch.iter().rev().find_map(|pending| match &pending.bytes {
                    Bytes::Joined(range) => Some(range.clone()),
                    Bytes::Frame => None,
                }) {
                    Some(range) => Bytes::Joined(range),
                    None => unreachable!("`last` is what the last joined send holds"),
                }
            } else {
                let start = self.joined.len();
                for (_, piece) in outboxes.waiting(session).take(self.frames.len()) {
                    self.joined.extend_from_slice(piece);
                }
                std::mem::swap(&mut self.last, &mut self.frames);
                self.last_first_bytes = first_bytes;
                Bytes::Joined(start..self.joined.len())
            };
            self.batch.push(Pending { session, conn, bytes, length });
        }
    }
}

/// The vector's memory for a batch that borrows from elsewhere: collecting from a vector's own items takes it over.
fn emptied<'a>(mut batch: Vec<Outgoing<'_>>) -> Vec<Outgoing<'a>> {
    batch.clear();
    batch.into_iter().map(|_| unreachable!("it is empty")).collect()
}
