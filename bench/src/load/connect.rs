//! Connects clients and joins them to their rooms, so many at a time, each a small state machine. Knows no scenario.

use super::clients::{Clients, READ};
use super::dialect::{self, Wait};
use super::frames::{self, Frames};
use super::measure::{Times, times};
use crate::cpu::now;
use memchr::memmem;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, connect, recv, send, socket_with, sockopt,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Ports of a source address that connections come from, below those that the kernel gives out. To let it choose one at
/// bind costs more than all the rest of a connection, once a third of an address' ports are taken.
const SOURCE_PORTS: std::ops::Range<u16> = 10_000..30_000;

/// So many ports in a row that are in use are not chance.
const SOURCES_IN_USE_MAX: usize = 1_000_000;

/// Descriptors for all that is no client connection.
const OTHER_DESCRIPTORS: u64 = 16;

/// Receive buffer of a connection that is never read, so that it is full soon. The kernel doubles it.
const SLOW_BUFFER_BYTES: usize = 4096;

/// How to connect.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Connections on their way at a time.
    pub at_once: usize,
    /// How long to wait for any byte.
    pub patience: Duration,
}

/// How it went.
#[derive(Debug)]
pub struct Connected {
    pub wall: Duration,
    /// From connect() to the confirmation of the join.
    pub times: Times,
}

/// A connection on its way.
struct Joining {
    started: u64,
    step: usize,
    wait: Wait,
    sid: String,
    /// What is not sent yet, as the connection is not there yet.
    unsent: Vec<u8>,
    received: Vec<u8>,
    slow: bool,
}

/// Raises the limit of descriptors to what is allowed.
pub fn allow_descriptors(connections: u64) -> Result<(), String> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let needed = connections + OTHER_DESCRIPTORS;
    if let Some(maximum) = maximum.filter(|maximum| *maximum < needed) {
        return Err(format!(
            "{connections} connections need {needed} descriptors, {maximum} are allowed: {} are missing (ulimit -Hn)",
            needed - maximum
        ));
    }
    if current.is_some_and(|current| current < needed) {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
            .map_err(|error| format!("the limit of descriptors: {error}"))?;
    }
    Ok(())
}

/// A socket that is being connected to `to`: non-blocking, without Nagle's delay.
fn open(to: SocketAddr, source: Option<SocketAddr>, receive_buffer: Option<usize>) -> Result<OwnedFd, Errno> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    // The next run finds its ports free: a reset leaves no TIME_WAIT.
    sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
    if let Some(bytes) = receive_buffer {
        sockopt::set_socket_recv_buffer_size(&socket, bytes)?;
    }
    if let Some(source) = source {
        bind(&socket, &source)?;
    }
    match connect(&socket, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error),
    }
}

/// Connects the publisher and waits until it is connected.
pub fn open_publisher(to: SocketAddr, patience: Duration) -> Result<OwnedFd, String> {
    let socket = open(to, None, None).map_err(|error| format!("{to}: {error}"))?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|error| format!("epoll: {error}"))?;
    epoll::add(&epoll, &socket, EventData::new_u64(0), EventFlags::OUT).map_err(|error| format!("epoll: {error}"))?;
    if super::wait(&epoll, &mut [MaybeUninit::uninit()], patience)?.is_empty() {
        return Err(format!("{to}: no connection within {patience:?}"));
    }
    match sockopt::socket_error(&socket) {
        Ok(Ok(())) => Ok(socket),
        Ok(Err(error)) | Err(error) => Err(format!("{to}: {error}")),
    }
}

/// Connects `count` clients. `place(i)` is the room of the i-th, and whether it is never to be read.
pub fn join_all(
    clients: &mut Clients,
    options: &Options,
    count: usize,
    place: impl Fn(usize) -> (u32, bool),
) -> Result<Connected, String> {
    let sources = clients.len();
    let mut crowd = Crowd { clients, options, sources, joining: HashMap::new(), times: times(), words: Vec::new() };
    let started = now();
    crowd.clients.heard_at = started;
    let mut events = vec![MaybeUninit::uninit(); super::EVENTS_MAX];
    let mut begun = 0;
    while begun < count || !crowd.joining.is_empty() {
        while begun < count && crowd.joining.len() < options.at_once {
            let (room, slow) = place(begun);
            crowd.begin(room, slow)?;
            begun += 1;
        }
        for event in super::wait(&crowd.clients.epoll, &mut events, options.patience)? {
            crowd.ready(event.data.u64() as u32, event.flags)?;
        }
        if now() - crowd.clients.heard_at > options.patience.as_nanos() as u64 {
            let joined = begun - crowd.joining.len();
            return Err(format!("nothing came for {:?}; {joined} of {count} clients have joined", options.patience));
        }
    }
    Ok(Connected { wall: Duration::from_nanos(now() - started), times: crowd.times })
}

/// Clients and those of them on their way.
struct Crowd<'a> {
    clients: &'a mut Clients,
    options: &'a Options,
    /// Source addresses tried so far.
    sources: usize,
    joining: HashMap<u32, Joining>,
    times: Times,
    /// What one client says next.
    words: Vec<u8>,
}

impl Crowd<'_> {
    /// Starts the next connection.
    fn begin(&mut self, room: u32, slow: bool) -> Result<(), String> {
        let started = now();
        let socket = self.open(slow)?;
        self.words.clear();
        let wait = self.clients.dialect.step(0, room, "", &mut self.words).unwrap_or(Wait::Nothing);
        // On loopback the connection is there when connect() returns, unless the server's queue is full.
        let unsent = match send(&socket, &self.words, SendFlags::NOSIGNAL) {
            Ok(bytes) if bytes == self.words.len() => Vec::new(),
            Ok(_) | Err(Errno::AGAIN) => self.words.clone(),
            Err(error) => return Err(format!("{}: {error}", self.options.listen)),
        };
        let flags = if unsent.is_empty() { READ } else { READ | EventFlags::OUT };
        let index = self.clients.add(socket, room, flags)?;
        let sid = String::new();
        self.joining.insert(index, Joining { started, step: 0, wait, sid, unsent, received: Vec::new(), slow });
        Ok(())
    }

    /// A connection from the next free source address.
    fn open(&mut self, slow: bool) -> Result<OwnedFd, String> {
        let listen = self.options.listen;
        for _ in 0..SOURCES_IN_USE_MAX {
            let source = source(listen, self.sources);
            self.sources += 1;
            match open(listen, source, slow.then_some(SLOW_BUFFER_BYTES)) {
                Err(Errno::ADDRINUSE) if source.is_some() => {}
                opened => return opened.map_err(|error| format!("{listen}: {error}")),
            }
        }
        Err(format!("no free source address for a connection to {listen}"))
    }

    /// Something happened on connection `index`.
    fn ready(&mut self, index: u32, flags: EventFlags) -> Result<(), String> {
        let Some(joining) = self.joining.get_mut(&index) else { return self.clients.ready(index, flags) };
        let Some(socket) = self.clients.socket(index) else { return Ok(()) };
        let listen = self.options.listen;
        let failed = |error: Errno| format!("{listen}: {error}, while client {index} was joining");
        if !joining.unsent.is_empty() && flags.intersects(EventFlags::OUT | EventFlags::ERR) {
            match send(socket, &joining.unsent, SendFlags::NOSIGNAL) {
                Ok(bytes) => drop(joining.unsent.drain(..bytes)),
                Err(Errno::AGAIN) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        loop {
            let mut buffer = [0; 4096];
            match recv(socket, &mut buffer, RecvFlags::empty()) {
                Ok((_, 0)) => return Err(format!("{listen}: the server closed client {index} while it was joining")),
                Ok((_, bytes)) => {
                    joining.received.extend_from_slice(&buffer[..bytes]);
                    if bytes < buffer.len() {
                        break;
                    }
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        self.clients.heard_at = now();
        self.proceed(index)
    }

    /// Takes as many steps as the bytes that came allow.
    fn proceed(&mut self, index: u32) -> Result<(), String> {
        let Some(joining) = self.joining.get_mut(&index) else { return Ok(()) };
        let (room, dialect) = (self.clients.room(index), self.clients.dialect);
        while answered(joining)? {
            joining.step += 1;
            self.words.clear();
            let next = dialect.step(joining.step, room, &joining.sid, &mut self.words);
            if let (false, Some(socket)) = (self.words.is_empty(), self.clients.socket(index)) {
                send(socket, &self.words, SendFlags::NOSIGNAL)
                    .map_err(|error| format!("{}: {error}", self.options.listen))?;
            }
            match next {
                Some(Wait::Nothing) | None => {
                    self.times.saturating_record(now() - joining.started);
                    let Some(joining) = self.joining.remove(&index) else { return Ok(()) };
                    return self.clients.joined(index, &joining.received, joining.slow);
                }
                Some(wait) => joining.wait = wait,
            }
        }
        Ok(())
    }
}

/// The server has answered the last step; its answer is taken out of what was received.
fn answered(joining: &mut Joining) -> Result<bool, String> {
    match joining.wait {
        Wait::Nothing => Ok(true),
        Wait::Response(expected) => {
            let Some((length, status)) = dialect::response(&joining.received).map_err(|error| error.0)? else {
                return Ok(false);
            };
            if status != expected {
                let said = String::from_utf8_lossy(&joining.received[..length]);
                return Err(format!("the server refuses: {}", said.trim_end()));
            }
            if joining.sid.is_empty()
                && let Some(sid) = dialect::session_id(&joining.received[..length])
            {
                joining.sid = sid;
            }
            joining.received.drain(..length);
            Ok(true)
        }
        Wait::Frame(needle) => {
            let mut frames = Frames::new(&joining.received);
            let mut found = false;
            while let Some(frame) = frames.next().map_err(|error| dialect::Misunderstood::from(error).0)? {
                if frame.opcode == frames::CLOSE || memmem::find(frame.payload, b"-ERR").is_some() {
                    let said = String::from_utf8_lossy(frame.payload);
                    return Err(format!("the server refuses a client that is joining: {said:?}"));
                }
                if memmem::find(frame.payload, needle.as_bytes()).is_some() {
                    found = true;
                    break;
                }
            }
            let taken = frames.taken();
            joining.received.drain(..taken);
            Ok(found)
        }
    }
}

/// The `index`-th source address for connections to `to`: on loopback we choose, from 127.0.0.2 on, so that there are
/// more than one address has ports.
fn source(to: SocketAddr, index: usize) -> Option<SocketAddr> {
    match to.ip() {
        IpAddr::V4(address) if address.is_loopback() => {
            let (host, port) = (index / SOURCE_PORTS.len() + 1, index % SOURCE_PORTS.len());
            let address = Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + host as u32);
            Some(SocketAddr::new(address.into(), SOURCE_PORTS.start + port as u16))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joining(wait: Wait, received: &[u8]) -> Joining {
        let (sid, unsent) = (String::new(), Vec::new());
        Joining { started: 0, step: 0, wait, sid, unsent, received: received.to_vec(), slow: false }
    }

    #[test]
    fn answers_are_waited_for() {
        let frame = Wait::Frame("40{");
        // (what is waited for, what came, answered, what is left)
        let rows: [(Wait, &[u8], bool, &[u8]); 8] = [
            (frame, b"", false, b""),
            (frame, b"\x81\x04\x34\x30{", false, b"\x81\x04\x34\x30{"),
            (frame, b"\x81\x04\x34\x30{}", true, b""),
            (frame, b"\x81\x02\x30{", false, b""),
            (frame, b"\x81\x02\x30{\x81\x04\x34\x30{}\x81", true, b"\x81"),
            (Wait::Response("101"), b"HTTP/1.1 101 S\r\n\r", false, b"HTTP/1.1 101 S\r\n\r"),
            (Wait::Response("101"), b"HTTP/1.1 101 S\r\n\r\n\x81", true, b"\x81"),
            (Wait::Response("200"), b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true, b""),
        ];
        for (wait, received, expected, left) in rows {
            let mut joining = joining(wait, received);
            assert_eq!(answered(&mut joining), Ok(expected), "{wait:?} {received:?}");
            assert_eq!(joining.received, left, "{wait:?} {received:?}");
        }
    }

    #[test]
    fn refusals_are_told() {
        // (what is waited for, what came, part of the error)
        let rows: [(Wait, &[u8], &str); 3] = [
            (Wait::Response("101"), b"HTTP/1.1 404 Not Found\r\n\r\n", "404 Not Found"),
            (Wait::Frame("40{"), b"\x88\x00", "refuses"),
            (Wait::Frame("PONG"), b"\x82\x06-ERR x", "-ERR x"),
        ];
        for (wait, received, expected) in rows {
            let error = answered(&mut joining(wait, received)).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn many_connections_have_many_sources() {
        let to = "127.0.0.1:80".parse().unwrap();
        assert_eq!(source(to, 0), Some("127.0.0.2:10000".parse().unwrap()));
        assert_eq!(source(to, 19_999), Some("127.0.0.2:29999".parse().unwrap()));
        assert_eq!(source(to, 199_999), Some("127.0.0.11:29999".parse().unwrap()));
        assert_eq!(source("192.0.2.1:80".parse().unwrap(), 0), None);
    }

    #[test]
    fn missing_descriptors_are_counted() {
        let Some(maximum) = getrlimit(Resource::Nofile).maximum else { return };
        assert_eq!(allow_descriptors(100), Ok(()));
        let error = allow_descriptors(maximum).unwrap_err();
        assert!(error.contains(": 16 are missing"), "{error}");
    }
}
