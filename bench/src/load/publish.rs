//! The publisher: its connection, its queue, and when the next event is due. A server that does not read fills the
//! queue; nothing waits for it.

use super::dialect::{Dialect, number};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

/// When events are published.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// Never.
    Silent,
    /// So many have not reached all their members.
    ClosedLoop {
        /// Events.
        outstanding: u64,
    },
    /// So many each second, evenly, however many are under way.
    Rate {
        /// Events, over all rooms.
        per_second: f64,
    },
}

/// Counts what is due.
#[derive(Debug)]
pub struct Schedule {
    pace: Pace,
    /// When the first event was due. A rate only.
    started: Option<u64>,
    published: u64,
}

impl Schedule {
    /// Nothing is published yet.
    pub fn new(pace: Pace) -> Schedule {
        Schedule { pace, started: None, published: 0 }
    }

    /// How many events to publish at `now`, when `under_way` have not reached all. They count as published.
    pub fn take(&mut self, now: u64, under_way: u64) -> u64 {
        let due = match self.pace {
            Pace::Silent => 0,
            Pace::ClosedLoop { outstanding } => outstanding.saturating_sub(under_way),
            Pace::Rate { per_second } => {
                let started = *self.started.get_or_insert(now);
                let due = ((now - started) as f64 * per_second / 1e9) as u64 + 1;
                due.saturating_sub(self.published)
            }
        };
        self.published += due;
        due
    }

    /// When the next event is due, if time alone decides.
    pub fn next(&self) -> Option<u64> {
        match (self.pace, self.started) {
            (Pace::Rate { per_second }, Some(started)) => {
                // Rounded up: to wake a nanosecond early is to wake twice.
                Some(started + (self.published as f64 * 1e9 / per_second).ceil() as u64 + 1)
            }
            _ => None,
        }
    }
}

/// The connection that events go out on.
#[derive(Debug)]
pub struct Publisher {
    pub socket: OwnedFd,
    dialect: Dialect,
    /// Bytes of an event's data.
    bytes: usize,
    filler: Vec<u8>,
    data: Vec<u8>,
    queue: Vec<u8>,
    /// So many bytes of the queue are sent.
    sent: usize,
}

impl Publisher {
    /// On a connected, non-blocking socket. Each event's data has `bytes` bytes, or more if its numbers need them.
    pub fn new(socket: OwnedFd, dialect: Dialect, bytes: usize) -> Publisher {
        let queue = dialect.publisher_greeting().to_vec();
        Publisher { socket, dialect, bytes, filler: vec![b'x'; bytes], data: Vec::new(), queue, sent: 0 }
    }

    /// Queues an event.
    pub fn push(&mut self, room: u32, seq: u32, ts: u64) {
        const END: &[u8] = b"\"}";
        let data = &mut self.data;
        data.clear();
        data.extend_from_slice(b"{\"seq\":");
        number(u64::from(seq), data);
        data.extend_from_slice(b",\"ts\":");
        number(ts, data);
        data.extend_from_slice(b",\"x\":\"");
        data.extend_from_slice(&self.filler[..self.bytes.saturating_sub(data.len() + END.len())]);
        data.extend_from_slice(END);
        self.dialect.publish(room, data, &mut self.queue);
    }

    /// Sends what the socket takes.
    pub fn flush(&mut self) -> Result<(), String> {
        while self.sent < self.queue.len() {
            match send(&self.socket, &self.queue[self.sent..], SendFlags::NOSIGNAL) {
                Ok(bytes) => self.sent += bytes,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(format!("the publisher's connection: {error}")),
            }
        }
        if self.sent == self.queue.len() {
            self.queue.clear();
            self.sent = 0;
        } else if self.sent > self.queue.len() / 2 {
            self.queue.drain(..self.sent);
            self.sent = 0;
        }
        Ok(())
    }

    /// Reads what the server says to a publisher: receipts, which nobody asked for, NATS' pings, which want an answer.
    pub fn hear(&mut self, buffer: &mut [u8]) -> Result<(), String> {
        loop {
            let bytes = match recv(&self.socket, &mut *buffer, RecvFlags::empty()) {
                Ok((_, 0)) => return Err("the server closed the publisher's connection".to_owned()),
                Ok((_, bytes)) => bytes,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(format!("the publisher's connection: {error}")),
            };
            if self.dialect == Dialect::Nats {
                let said = &buffer[..bytes];
                if let Some(at) = memchr::memmem::find(said, b"-ERR") {
                    return Err(format!("the server says {}", String::from_utf8_lossy(&said[at..])));
                }
                for _ in memchr::memmem::find_iter(said, b"PING\r\n") {
                    self.queue.extend_from_slice(b"PONG\r\n");
                }
                self.flush()?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    fn pair() -> (OwnedFd, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        near.set_nonblocking(true).unwrap();
        (near.into(), listener.accept().unwrap().0)
    }

    #[test]
    fn a_closed_loop_fills_up_to_its_bound() {
        let mut schedule = Schedule::new(Pace::ClosedLoop { outstanding: 4 });
        assert_eq!([schedule.take(0, 0), schedule.take(1, 4), schedule.take(2, 3)], [4, 0, 1]);
        assert_eq!(schedule.next(), None);
        assert_eq!(Schedule::new(Pace::Silent).take(0, 0), 0);
    }

    #[test]
    fn a_rate_is_even_and_catches_up() {
        let mut schedule = Schedule::new(Pace::Rate { per_second: 100.0 });
        let start = 77_000_000_000;
        assert_eq!(schedule.take(start, 0), 1);
        assert_eq!(schedule.take(start + 9_000_000, 50), 0);
        let next = schedule.next().unwrap();
        assert_eq!((next - start) / 1000, 10_000);
        assert_eq!(schedule.take(next, 50), 1);
        assert_eq!(schedule.take(start + 100_000_001, 50), 9);
    }

    #[test]
    fn data_has_the_asked_length() {
        let (near, mut far) = pair();
        let mut publisher = Publisher::new(near, Dialect::Raw, 200);
        publisher.push(3, 1, 5);
        publisher.push(3, 1_234_567, u64::MAX);
        publisher.flush().unwrap();
        drop(publisher);
        let mut text = String::new();
        far.read_to_string(&mut text).unwrap();
        for line in text.lines() {
            let data = line.strip_prefix(r#"{"room":"r3","event":"e","data":"#).unwrap().strip_suffix('}').unwrap();
            assert_eq!(data.len(), 200, "{line}");
            assert!(data.starts_with("{\"seq\":1") && data.contains(",\"ts\":") && data.ends_with("x\"}"));
        }
        assert_eq!(text.lines().count(), 2);
    }

    #[test]
    fn a_server_that_does_not_read_blocks_nobody() {
        let (near, mut far) = pair();
        let mut publisher = Publisher::new(near, Dialect::Raw, 60_000);
        for seq in 1..=500 {
            publisher.push(0, seq, 0);
            publisher.flush().unwrap();
        }
        assert!(!publisher.queue.is_empty());
        far.set_nonblocking(true).unwrap();
        let (mut buffer, mut lines) = (vec![0; 1 << 20], 0);
        while lines < 500 {
            if let Ok(bytes) = far.read(&mut buffer) {
                lines += buffer[..bytes].iter().filter(|byte| **byte == b'\n').count();
            }
            publisher.flush().unwrap();
        }
        assert!(publisher.queue.is_empty());
    }
}
