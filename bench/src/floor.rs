//! The floor: what the kernel alone costs. A publisher's line is looked at just enough to find its room; a frame is
//! made once by copying the line's data; every member gets the same bytes. It has no limits, rules, heartbeats or
//! shutdown, and knows no clients but those of the load generator.

mod conn;
mod ring;
mod rooms;
mod wire;

use clap::{Args, ValueEnum};
use conn::{Conn, Role};
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use ring::{Outgoing, Ring};
use rooms::Rooms;
use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;
use wire::Request;

/// What the floor is told.
#[derive(Args, Clone, Copy, Debug)]
pub struct Options {
    /// Clients' port.
    #[arg(long, default_value = "127.0.0.1:4000")]
    pub listen: SocketAddr,
    /// Publishers' port.
    #[arg(long, default_value = "127.0.0.1:4100")]
    pub ingest: SocketAddr,
    /// What one send carries.
    #[arg(long, value_enum, default_value_t = Frames::Each)]
    pub frames: Frames,
    /// How it is sent.
    #[arg(long, value_enum, default_value_t = By::Send)]
    pub by: By,
}

/// What one send carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Frames {
    /// One frame.
    Each,
    /// All frames that the member gets for one read of a publisher.
    Joined,
}

/// How frames are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// A call of `send(2)` for each.
    Send,
    /// An `io_uring` with batches of up to 1,024 sends.
    Uring,
}

const CLIENTS: Token = Token(0);
const PUBLISHERS: Token = Token(1);
/// Connections' tokens begin after the listeners'.
const FIRST: usize = 2;

/// What one read takes at most.
const READ: usize = 64 << 10;
/// What a connection may leave unfinished: the longest line is a little longer.
const INBOX_MAX: usize = 4 << 20;
/// The storm has 500 connections on their way at a time; the kernel may bound this further (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// Serves until it is killed.
///
/// # Errors
/// A port cannot be listened on, or the kernel has no epoll or `io_uring`.
pub fn run(options: &Options) -> Result<(), String> {
    let mut floor = Floor::new(options)?;
    // Who asked for port 0 learns the ports here.
    eprintln!("clients at {}, publishers at {}", address(&floor.clients)?, address(&floor.publishers)?);
    println!("ready");
    io::stdout().flush().map_err(|error| error.to_string())?;
    floor.serve().map_err(|error| error.to_string())
}

struct Floor {
    poll: Poll,
    clients: TcpListener,
    publishers: TcpListener,
    /// By token, from [`FIRST`].
    conns: Vec<Option<Conn>>,
    /// Places in `conns` that are empty.
    free: Vec<u32>,
    rooms: Rooms,
    ring: Option<Ring>,
    /// The number of the last batch of sends.
    batch: u64,
    /// Connections that failed or ended in this turn. They are closed at its end: until then no place changes its
    /// meaning.
    ended: Vec<u32>,
    /// Connections that may have more to read than was read, and whether their end is among that.
    unread: Vec<(u32, bool)>,
    /// What is read goes here, behind what the connection's inbox holds.
    chunk: Vec<u8>,
    /// True after the first line that was ignored, which is told once.
    complained: bool,
}

impl Floor {
    fn new(options: &Options) -> Result<Floor, String> {
        let poll = Poll::new().map_err(|error| format!("epoll: {error}"))?;
        let listen = |address: SocketAddr, token| {
            listener(address, &poll, token).map_err(|error| format!("cannot listen on {address}: {error}"))
        };
        let ring = (options.by == By::Uring).then(Ring::new).transpose();
        Ok(Floor {
            clients: listen(options.listen, CLIENTS)?,
            publishers: listen(options.ingest, PUBLISHERS)?,
            poll,
            conns: Vec::new(),
            free: Vec::new(),
            rooms: Rooms::new(options.frames == Frames::Joined),
            ring: ring.map_err(|error| format!("io_uring: {error}"))?,
            batch: 0,
            ended: Vec::new(),
            unread: Vec::new(),
            chunk: vec![0; READ],
            complained: false,
        })
    }

    fn serve(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        loop {
            let timeout = if self.unread.is_empty() { None } else { Some(Duration::ZERO) };
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            }
            for (index, ends) in mem::take(&mut self.unread) {
                self.read(index, ends);
            }
            for event in &events {
                match event.token() {
                    CLIENTS | PUBLISHERS => self.accept(event.token()),
                    Token(token) => {
                        let index = (token - FIRST) as u32;
                        if event.is_writable() {
                            self.flush(index);
                        }
                        if event.is_readable() {
                            self.read(index, event.is_read_closed());
                        }
                    }
                }
            }
            self.close_ended();
        }
    }

    /// Accepts all that wait.
    fn accept(&mut self, listener: Token) {
        let role = if listener == CLIENTS { Role::Newcomer } else { Role::Publisher };
        loop {
            let accepted = if listener == CLIENTS { self.clients.accept() } else { self.publishers.accept() };
            let mut stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => continue,
                // Descriptors or memory are short: whoever closes a connection comes here again.
                Err(error) => return eprintln!("cannot accept: {error}"),
            };
            let index = self.free.pop().unwrap_or(self.conns.len() as u32);
            if let Err(error) = self.poll.registry().register(&mut stream, token(index), Interest::READABLE) {
                eprintln!("cannot poll a connection: {error}");
                self.free.extend((index as usize != self.conns.len()).then_some(index));
                continue;
            }
            let conn = Some(Conn::new(stream, role));
            match self.conns.get_mut(index as usize) {
                Some(place) => *place = conn,
                None => self.conns.push(conn),
            }
        }
    }

    /// Reads once. `ends`: an end is behind whatever there is to read, and will not be reported again.
    fn read(&mut self, index: u32, ends: bool) {
        let Some(conn) = &mut self.conns[index as usize] else { return };
        let (kept, role) = (conn.inbox.len(), conn.role);
        if self.chunk.len() < kept + READ {
            self.chunk.resize(kept + READ, 0);
        }
        let length = match conn.stream.read(&mut self.chunk[kept..kept + READ]) {
            Ok(0) => return self.ended.push(index),
            Ok(length) => length,
            Err(error) if conn::is_transient(&error) => return,
            Err(_) => return self.ended.push(index),
        };
        // A short read has emptied the socket; the poll reports what comes later.
        if length == READ || ends {
            self.unread.push((index, ends));
        }
        self.chunk[..kept].copy_from_slice(&conn.inbox);
        conn.inbox.clear();
        let mut chunk = mem::take(&mut self.chunk);
        let bytes = &mut chunk[..kept + length];
        let taken = match role {
            Role::Publisher => self.publish(bytes),
            Role::Newcomer | Role::Client(_) => self.hear(index, bytes),
        };
        let rest = &bytes[taken..];
        if rest.len() > INBOX_MAX {
            eprintln!("closed a connection: {} bytes without an end of the line, head or frame", rest.len());
            self.ended.push(index);
        } else if let Some(conn) = &mut self.conns[index as usize] {
            conn.inbox.extend_from_slice(rest);
        }
        self.chunk = chunk;
    }

    /// Sends what the whole lines in `bytes` say to whom it concerns; returns how many bytes they took.
    fn publish(&mut self, bytes: &[u8]) -> usize {
        self.rooms.begin();
        let mut at = 0;
        for end in memchr::memchr_iter(b'\n', bytes) {
            match wire::event(&bytes[at..end]) {
                Some((room, data)) => self.rooms.publish(room, data),
                None if self.complained => {}
                None => {
                    self.complained = true;
                    let line = String::from_utf8_lossy(&bytes[at..end.min(at + 80)]);
                    eprintln!("ignored a line that is not {{\"room\":\"rN\",\"event\":\"e\",\"data\":…}}: {line}");
                }
            }
            at = end + 1;
        }
        match self.ring.take() {
            None => self.deliver_by_send(),
            Some(mut ring) => {
                self.deliver_by_ring(&mut ring);
                self.ring = Some(ring);
            }
        }
        at
    }

    fn deliver_by_send(&mut self) {
        let (pieces, groups) = self.rooms.outgoing();
        for piece in pieces {
            for &member in &groups[piece.group as usize].members {
                let Some(conn) = &mut self.conns[member as usize] else { continue };
                if conn.send(&piece.bytes, self.poll.registry(), token(member)).is_err() {
                    self.ended.push(member);
                }
            }
        }
    }

    fn deliver_by_ring(&mut self, ring: &mut Ring) {
        let (pieces, groups) = self.rooms.outgoing();
        let mut batch = Batch { sends: Vec::with_capacity(ring::SENDS_MAX), to: Vec::new(), results: Vec::new() };
        self.batch += 1;
        for piece in pieces {
            let group = &mut groups[piece.group as usize];
            // A member is in a batch once: its next frame must not be sent before it is known whether this one was.
            if group.batch == self.batch {
                batch.send(ring, &mut self.conns, &self.poll, &mut self.ended);
                self.batch += 1;
            }
            for &member in &group.members {
                let Some(conn) = &mut self.conns[member as usize] else { continue };
                if conn.lags() {
                    conn.keep(&piece.bytes);
                    continue;
                }
                batch.sends.push(Outgoing { to: conn.stream.as_raw_fd(), bytes: &piece.bytes });
                batch.to.push(member);
                if batch.sends.len() == ring::SENDS_MAX {
                    batch.send(ring, &mut self.conns, &self.poll, &mut self.ended);
                    self.batch += 1;
                }
            }
            group.batch = self.batch;
        }
        batch.send(ring, &mut self.conns, &self.poll, &mut self.ended);
    }

    /// Answers what a client says; returns how many bytes that took.
    fn hear(&mut self, index: u32, bytes: &mut [u8]) -> usize {
        let Some(conn) = &mut self.conns[index as usize] else { return bytes.len() };
        let (mut answer, mut taken) = (Vec::new(), 0);
        if conn.role == Role::Newcomer {
            let Some((dialect, length)) = wire::head(bytes) else { return 0 };
            conn.role = Role::Client(dialect);
            wire::append_welcome(dialect, &mut answer);
            taken = length;
        }
        if let Role::Client(dialect) = conn.role {
            taken += wire::requests(&mut bytes[taken..], |request| {
                match request {
                    Request::Connect => {}
                    Request::Close => self.ended.push(index),
                    Request::Join(room) => {
                        let group = rooms::group_number(room, dialect);
                        if let Some(before) = conn.group.replace(group) {
                            self.rooms.leave(before, index);
                        }
                        self.rooms.join(group, index);
                    }
                }
                wire::append_answer(dialect, &request, &mut answer);
            });
        }
        if !answer.is_empty() && conn.send(&answer, self.poll.registry(), token(index)).is_err() {
            self.ended.push(index);
        }
        taken
    }

    fn flush(&mut self, index: u32) {
        let Some(conn) = &mut self.conns[index as usize] else { return };
        if conn.flush().is_err() {
            self.ended.push(index);
        }
    }

    fn close_ended(&mut self) {
        if self.ended.is_empty() {
            return;
        }
        for index in mem::take(&mut self.ended) {
            // It may have ended for several reasons.
            let Some(conn) = self.conns[index as usize].take() else { continue };
            if let Some(group) = conn.group {
                self.rooms.leave(group, index);
            }
            self.free.push(index);
        }
        // Some may wait that there was no descriptor for.
        self.accept(CLIENTS);
        self.accept(PUBLISHERS);
    }
}

/// Sends that go to the kernel together.
struct Batch<'a> {
    sends: Vec<Outgoing<'a>>,
    /// Whom each is for.
    to: Vec<u32>,
    results: Vec<i32>,
}

impl Batch<'_> {
    /// Sends all, and keeps for each member what there was no space for.
    fn send(&mut self, ring: &mut Ring, conns: &mut [Option<Conn>], poll: &Poll, ended: &mut Vec<u32>) {
        debug_assert!(
            self.names_each_once(),
            "the kernel would try a member's second send even if the first had no space"
        );
        ring.send(&self.sends, &mut self.results);
        for ((outgoing, member), result) in self.sends.iter().zip(&self.to).zip(&self.results) {
            let bytes = outgoing.bytes;
            let rest = match usize::try_from(*result) {
                Ok(sent) if sent == bytes.len() => continue,
                Ok(sent) => &bytes[sent..],
                Err(_) if matches!(-result, libc::EAGAIN | libc::EINTR) => bytes,
                Err(_) => {
                    ended.push(*member);
                    continue;
                }
            };
            let Some(conn) = &mut conns[*member as usize] else { continue };
            if conn.wait(rest, poll.registry(), token(*member)).is_err() {
                ended.push(*member);
            }
        }
        self.sends.clear();
        self.to.clear();
    }

    fn names_each_once(&self) -> bool {
        let mut members = self.to.clone();
        members.sort_unstable();
        members.windows(2).all(|pair| pair[0] != pair[1])
    }
}

fn token(index: u32) -> Token {
    Token(FIRST + index as usize)
}

/// A listener whose connections inherit TCP_NODELAY, which saves a call for each.
fn listener(address: SocketAddr, poll: &Poll, token: Token) -> io::Result<TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let mut listener = TcpListener::from_std(socket.into());
    poll.registry().register(&mut listener, token, Interest::READABLE)?;
    Ok(listener)
}

fn address(listener: &TcpListener) -> Result<SocketAddr, String> {
    listener.local_addr().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_connections_do_not_delay_small_sends() {
        let poll = Poll::new().unwrap();
        let listener = listener("127.0.0.1:0".parse().unwrap(), &poll, CLIENTS).unwrap();
        let _client = std::net::TcpStream::connect(address(&listener).unwrap()).unwrap();
        assert!(listener.accept().unwrap().0.nodelay().unwrap());
    }
}
