//! One connection: what it is, and what still has to be sent to it. Does not know rooms.

use crate::floor::wire::Dialect;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use std::io::{self, ErrorKind, Write};

/// What a connection says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Lines.
    Publisher,
    /// The request for a WebSocket.
    Newcomer,
    /// WebSocket frames.
    Client(Dialect),
}

/// A connection. It is small, as ten thousand of them go through the cache for each event of a large room.
#[derive(Debug)]
pub struct Conn {
    /// Non-blocking.
    pub stream: TcpStream,
    /// What it says.
    pub role: Role,
    /// The group that it is a member of.
    pub group: Option<u32>,
    /// The part that came of a line, head or frame.
    pub inbox: Vec<u8>,
    /// What its socket had no space for; none if it has had space for everything.
    tail: Option<Box<Tail>>,
}

#[derive(Debug, Default)]
struct Tail {
    bytes: Vec<u8>,
    /// How many of them are sent.
    sent: usize,
}

impl Conn {
    /// A connection that nothing has come from yet.
    pub fn new(stream: TcpStream, role: Role) -> Conn {
        Conn { stream, role, group: None, inbox: Vec::new(), tail: None }
    }

    /// Does something wait to be sent? Then nothing else may be sent before it.
    pub fn lags(&self) -> bool {
        self.tail.as_ref().is_some_and(|tail| tail.sent < tail.bytes.len())
    }

    /// Sends `bytes`, or keeps what there is no space for.
    ///
    /// # Errors
    /// Those of the socket: it is of no more use.
    pub fn send(&mut self, bytes: &[u8], registry: &Registry, token: Token) -> io::Result<()> {
        if self.lags() {
            self.keep(bytes);
            return Ok(());
        }
        match self.stream.write(bytes) {
            Ok(sent) if sent == bytes.len() => Ok(()),
            Ok(sent) => self.wait(&bytes[sent..], registry, token),
            Err(error) if is_transient(&error) => self.wait(bytes, registry, token),
            Err(error) => Err(error),
        }
    }

    /// Appends to what waits already.
    pub fn keep(&mut self, bytes: &[u8]) {
        self.tail.get_or_insert_default().bytes.extend_from_slice(bytes);
    }

    /// Keeps `bytes` until the socket has space again, which the poll tells.
    pub fn wait(&mut self, bytes: &[u8], registry: &Registry, token: Token) -> io::Result<()> {
        // Whoever has lagged once keeps being polled for space: the kernel reports it only after it was missing.
        if self.tail.is_none() {
            registry.reregister(&mut self.stream, token, Interest::READABLE | Interest::WRITABLE)?;
        }
        self.keep(bytes);
        Ok(())
    }

    /// Sends what waits, as far as there is space.
    ///
    /// # Errors
    /// Those of the socket: it is of no more use.
    pub fn flush(&mut self) -> io::Result<()> {
        let Some(tail) = &mut self.tail else { return Ok(()) };
        while tail.sent < tail.bytes.len() {
            match self.stream.write(&tail.bytes[tail.sent..]) {
                Ok(sent) => tail.sent += sent,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_transient(&error) => break,
                Err(error) => return Err(error),
            }
        }
        // Bytes that are sent go when they are the greater part, so that each is moved once at most on average.
        if tail.sent > tail.bytes.len() / 2 {
            tail.bytes.drain(..tail.sent);
            tail.sent = 0;
        }
        Ok(())
    }
}

/// Will the same send succeed later?
pub fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

const _: () =
    assert!(size_of::<Option<Conn>>() <= 64 || cfg!(debug_assertions), "mio tracks its polls in debug builds");
