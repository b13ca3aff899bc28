//! The table of client connections: reads them, follows their numbers, answers pings. Knows no scenario.
//!
//! A connection has 16 bytes in one array. Its bytes go through one buffer that all share; only an incomplete frame is
//! kept for it, in a table aside, and put before what comes next.

use super::check::Check;
use super::dialect::{Dialect, Finder, Heard, Rest};
use super::frames;
use super::measure::Measure;
use super::rooms::{Progress, Room};
use crate::cpu::now;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

/// Events of a connection that is read. Edge-triggered: a socket that was read until it gave less than asked for is not
/// looked at again by the kernel until more comes.
pub const READ: EventFlags = EventFlags::IN.union(EventFlags::RDHUP).union(EventFlags::ET);
/// Its end.
const END: EventFlags = EventFlags::RDHUP.union(EventFlags::HUP).union(EventFlags::ERR);

/// Bytes that one recv takes at most.
const BUFFER_BYTES: usize = 256 << 10;

/// No bytes are kept.
const NONE: u32 = u32::MAX;

/// A connection.
#[derive(Debug)]
struct Client {
    /// `None` after its end.
    socket: Option<OwnedFd>,
    room: u32,
    /// The last sequence number that came.
    last: u32,
    /// Index of its kept bytes, [`NONE`] mostly; [`Client::SLOW`] if it is never read.
    tail: u32,
}

const _: () = assert!(size_of::<Client>() == 16);

impl Client {
    const SLOW: u32 = u32::MAX - 1;
}

/// Bytes of incomplete frames.
#[derive(Debug, Default)]
struct Tails {
    tails: Vec<Tail>,
    free: Vec<u32>,
}

#[derive(Debug, Default)]
struct Tail {
    bytes: Vec<u8>,
    /// So many are out of their frames already.
    unframed: usize,
}

impl Tails {
    fn keep(&mut self, bytes: &[u8], unframed: usize) -> u32 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.tails.push(Tail::default());
            self.tails.len() as u32 - 1
        });
        let tail = &mut self.tails[index as usize];
        tail.bytes.extend_from_slice(bytes);
        tail.unframed = unframed;
        index
    }

    /// Puts the bytes at the start of `buffer`; returns how many, and how many of them are out of their frames.
    fn restore(&mut self, index: u32, buffer: &mut [u8]) -> (usize, usize) {
        let tail = &mut self.tails[index as usize];
        let length = tail.bytes.len();
        buffer[..length].copy_from_slice(&tail.bytes);
        tail.bytes.clear();
        self.free.push(index);
        (length, tail.unframed)
    }
}

/// All connections and what they got.
pub struct Clients {
    pub epoll: OwnedFd,
    pub dialect: Dialect,
    pub rooms: Vec<Room>,
    pub check: Check,
    pub measure: Measure,
    /// Connections that the server closed, those that are never read aside.
    pub closed: u64,
    /// Connections that are never read, and those of them whose end could be seen.
    pub slow: u64,
    pub slow_closed: u64,
    /// Events that have not reached all their members.
    pub under_way: u64,
    /// When bytes came last.
    pub heard_at: u64,
    pub buffer: Vec<u8>,
    table: Vec<Client>,
    tails: Tails,
    finder: Finder,
}

impl Clients {
    /// No connections; rooms without members. Frames of events with `bytes` of data must fit the buffer.
    pub fn new(dialect: Dialect, rooms: u32, bytes: usize) -> Result<Clients, String> {
        Ok(Clients {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|error| format!("epoll: {error}"))?,
            dialect,
            rooms: (0..rooms).map(|_| Room::default()).collect(),
            check: Check::default(),
            measure: Measure::new(),
            closed: 0,
            slow: 0,
            slow_closed: 0,
            under_way: 0,
            heard_at: now(),
            buffer: vec![0; BUFFER_BYTES.max(4 * bytes)],
            table: Vec::new(),
            tails: Tails::default(),
            finder: Finder::default(),
        })
    }

    /// Connections in the table, open or not.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Takes a connection into the table, before it has joined. Its index is its epoll data.
    pub fn add(&mut self, socket: OwnedFd, room: u32, flags: EventFlags) -> Result<u32, String> {
        let index = self.table.len() as u32;
        epoll::add(&self.epoll, &socket, EventData::new_u64(u64::from(index)), flags)
            .map_err(|error| format!("epoll: {error}"))?;
        self.table.push(Client { socket: Some(socket), room, last: 0, tail: NONE });
        Ok(index)
    }

    /// The socket of a connection that is open.
    pub fn socket(&self, index: u32) -> Option<&OwnedFd> {
        self.table[index as usize].socket.as_ref()
    }

    /// The room that a connection is to join.
    pub fn room(&self, index: u32) -> u32 {
        self.table[index as usize].room
    }

    /// A connection has joined; `rest` came behind the confirmation. From now on it is read, unless it is `slow`.
    pub fn joined(&mut self, index: u32, rest: &[u8], slow: bool) -> Result<(), String> {
        let client = &mut self.table[index as usize];
        if slow {
            client.tail = Client::SLOW;
            self.slow += 1;
            let Some(socket) = &client.socket else { return Ok(()) };
            return epoll::modify(&self.epoll, socket, EventData::new_u64(u64::from(index)), END)
                .map_err(|error| format!("epoll: {error}"));
        }
        self.rooms[client.room as usize].join();
        if !rest.is_empty() {
            self.buffer[..rest.len()].copy_from_slice(rest);
            self.take(index, rest.len(), 0, now())?;
        }
        Ok(())
    }

    /// Something happened on a connection that has joined.
    #[inline]
    pub fn ready(&mut self, index: u32, flags: EventFlags) -> Result<(), String> {
        let ended = flags.intersects(END);
        loop {
            let client = &self.table[index as usize];
            let Some(socket) = &client.socket else { return Ok(()) };
            let (kept, unframed) = match client.tail {
                NONE => (0, 0),
                Client::SLOW => return self.slow_ready(index),
                tail => self.tails.restore(tail, &mut self.buffer),
            };
            let room = self.buffer.len() - kept;
            match recv(socket, &mut self.buffer[kept..], RecvFlags::empty()) {
                Ok((_, 0)) | Err(Errno::CONNRESET | Errno::PIPE) => {
                    self.table[index as usize].tail = NONE;
                    self.end(index);
                    return Ok(());
                }
                Ok((_, bytes)) => {
                    let now = now();
                    self.heard_at = now;
                    self.take(index, kept + bytes, unframed, now)?;
                    if bytes < room && !ended {
                        return Ok(());
                    }
                }
                Err(error @ (Errno::AGAIN | Errno::INTR)) => {
                    // What was put back is kept again.
                    if kept > 0 {
                        self.table[index as usize].tail = self.tails.keep(&self.buffer[..kept], unframed);
                    }
                    if error == Errno::AGAIN {
                        return Ok(());
                    }
                }
                Err(error) => return Err(format!("a client's connection: {error}")),
            }
        }
    }

    /// Reads the first `length` bytes of the buffer as what connection `index` got.
    #[inline]
    fn take(&mut self, index: u32, length: usize, unframed: usize, now: u64) -> Result<(), String> {
        let Clients { table, rooms, check, measure, tails, finder, buffer, under_way, .. } = self;
        let client = &mut table[index as usize];
        let room = &mut rooms[client.room as usize];
        let (from, published) = (client.last, room.published());
        let (mut last, mut strange, mut closing) = (from, None, false);
        let socket = &client.socket;
        let heard = |heard: Heard| match heard {
            Heard::Event(seq) if seq <= published => last = check.follow(index, last, seq),
            Heard::Event(seq) => strange = Some(seq),
            Heard::Ping { opcode, answer } => {
                let mut frame = Vec::new();
                frames::say(opcode, answer, &mut frame);
                // A peer that does not take some bytes does not wait for them either.
                let _ = socket.as_ref().map(|socket| send(socket, &frame, SendFlags::NOSIGNAL));
            }
            Heard::Close => closing = true,
        };
        let rest = self.dialect.listen(&mut buffer[..length], unframed, finder, heard);
        let Rest { bytes, unframed } = rest.map_err(|error| error.0)?;
        if let Some(seq) = strange {
            return Err(format!(
                "the server sent event {seq} of room r{}, where {published} were published",
                client.room
            ));
        }
        client.last = last;
        client.tail = match bytes.is_empty() {
            true => NONE,
            false if bytes.len() * 2 > buffer.len() => {
                return Err(format!("the server sent a frame of more than {} bytes", buffer.len() / 2));
            }
            false => tails.keep(&buffer[bytes], unframed),
        };
        if last > from {
            room.advance(from, last, |progress| match progress {
                Progress::Delivered { ts, count } => measure.delivered(ts, now, count),
                Progress::Completed { ts } => {
                    *under_way -= 1;
                    measure.completed(ts, now);
                }
            });
        }
        if closing {
            self.end(index);
        }
        Ok(())
    }

    #[cold]
    fn slow_ready(&mut self, index: u32) -> Result<(), String> {
        self.table[index as usize].socket = None;
        self.slow_closed += 1;
        Ok(())
    }

    /// The server has closed a connection. What it has not got is lost.
    #[cold]
    fn end(&mut self, index: u32) {
        let client = &mut self.table[index as usize];
        if client.socket.take().is_none() {
            return;
        }
        self.closed += 1;
        let room = &mut self.rooms[client.room as usize];
        self.check.end(client.last, room.published());
        let under_way = &mut self.under_way;
        room.leave(client.last, |_| *under_way -= 1);
    }

    /// Publishes in room `room` at `ts`; returns the event's number.
    pub fn publish(&mut self, room: u32, ts: u64) -> Result<u32, String> {
        if self.rooms[room as usize].members() == 0 {
            return Err(format!("the server closed every connection of room r{room}"));
        }
        self.under_way += 1;
        Ok(self.rooms[room as usize].publish(ts))
    }

    /// No more will come: what open connections have not got is lost.
    pub fn finish(&mut self) {
        for client in self.table.iter().filter(|client| client.socket.is_some() && client.tail != Client::SLOW) {
            self.check.end(client.last, self.rooms[client.room as usize].published());
        }
    }
}
