//! Thousands of WebSocket clients in one thread, by epoll. Each one's frames are parsed as they come, so that no client
//! is slow because another is served.

use super::wire::{self, handshake};
use super::{LIMIT, Server};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;

/// Handshakes under way at a time, below the usual length of a listener's queue.
const HANDSHAKES: usize = 256;
/// Clients per source address, which has about 28,000 ports, used ones among them for a minute.
const PER_ADDRESS: usize = 5_000;

/// Many clients. Each has its index, from 0.
pub struct Swarm {
    epoll: OwnedFd,
    clients: Vec<Client>,
    scratch: Vec<u8>,
}

struct Client {
    stream: TcpStream,
    inbox: Vec<u8>,
    upgraded: bool,
}

impl Swarm {
    /// Connects `count` clients to `path` and waits until all have shaken hands.
    #[track_caller]
    pub fn connect(server: &Server, path: &str, count: usize) -> Swarm {
        let mut swarm = Swarm::new(count);
        while swarm.clients.len() < count {
            let wave = HANDSHAKES.min(count - swarm.clients.len());
            for _ in 0..wave {
                swarm.add(server, path);
            }
            swarm.receive_handshakes(wave);
        }
        swarm
    }

    fn new(count: usize) -> Swarm {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        Swarm { epoll, clients: Vec::with_capacity(count), scratch: vec![0; 64 << 10] }
    }

    /// Connects `count` clients at once and has each ask for `path`, without waiting for any answer: as many as fit
    /// into the listeners' queues.
    #[track_caller]
    pub fn begin(server: &Server, path: &str, count: usize) -> Swarm {
        let mut swarm = Swarm::new(count);
        (0..count).for_each(|_| swarm.add(server, path));
        swarm
    }

    /// Waits until all have shaken hands that [`Swarm::begin`] has connected.
    #[track_caller]
    pub fn shake_hands(&mut self) {
        self.receive_handshakes(self.clients.len());
    }

    /// All join a room of [`super::OPEN`].
    #[track_caller]
    pub fn join_all(&mut self, room: &str) {
        for index in 0..self.len() {
            self.send(index, &format!(r#"{{"type":"subscribe","data":{{"room":"{room}"}}}}"#));
        }
        let answer = format!(r#"{{"type":"subscribed","data":{{"room":"{room}"}}}}"#);
        self.receive("the answers to subscribe", self.len(), |_, text| assert_eq!(text, answer));
    }

    fn add(&mut self, server: &Server, path: &str) {
        let index = self.clients.len();
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        // Each run has addresses of its own, so that ports of an earlier one that still rest are not in the way.
        let run = std::process::id();
        let source = Ipv4Addr::new(127, 1 + (run % 250) as u8, (run / 250) as u8, 1 + (index / PER_ADDRESS) as u8);
        socket.set_reuse_address(true).unwrap();
        socket.bind(&SockAddr::from(SocketAddr::from((source, 0)))).unwrap();
        socket.connect(&SockAddr::from(server.listen)).unwrap();
        let mut stream = TcpStream::from(socket);
        stream.set_nodelay(true).unwrap();
        stream.write_all(handshake(path).as_bytes()).unwrap();
        stream.set_nonblocking(true).unwrap();
        let data = epoll::EventData::new_u64(index as u64);
        epoll::add(&self.epoll, &stream, data, epoll::EventFlags::IN).unwrap();
        self.clients.push(Client { stream, inbox: Vec::new(), upgraded: false });
    }

    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Sends a text message. Small ones only: it must fit into the socket's buffer.
    #[track_caller]
    pub fn send(&mut self, index: usize, text: &str) {
        self.clients[index].stream.write_all(&wire::text(text)).expect("a small message fits into a socket's buffer");
    }

    /// Receives `count` text messages, whoever gets them. Fails when a connection ends, or when nothing comes any more.
    #[track_caller]
    pub fn receive(&mut self, what: &str, count: usize, mut each: impl FnMut(usize, &str)) {
        let mut left = count;
        while left > 0 {
            self.turn(&format!("{what} ({left} of {count} missing)"), |index, text| {
                assert!(left > 0, "{what}: more than {count} messages; client {index} got {text}");
                left -= 1;
                each(index, text);
            });
        }
    }

    /// One round of reading from whoever has something.
    #[track_caller]
    fn turn(&mut self, what: &str, mut each: impl FnMut(usize, &str)) -> usize {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(1024);
        let limit = Timespec { tv_sec: LIMIT.as_secs() as i64, tv_nsec: 0 };
        match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&limit)) {
            Ok(0) => panic!("nothing came for {LIMIT:?} while waiting for {what}"),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("{error}"),
        }
        let mut upgrades = 0;
        for event in &events {
            let index = event.data.u64() as usize;
            let client = &mut self.clients[index];
            match client.stream.read(&mut self.scratch) {
                Ok(0) => panic!("the server has closed the connection of client {index}, in {what}"),
                Ok(bytes) => client.inbox.extend_from_slice(&self.scratch[..bytes]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => panic!("client {index}: {error}, in {what}"),
            }
            let mut at = 0;
            if !client.upgraded {
                let Some(end) = client.inbox.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
                assert!(client.inbox.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&client.inbox));
                client.upgraded = true;
                upgrades += 1;
                at = end + 4;
            }
            while let Some((first, payload, length)) = wire::parse(&client.inbox[at..]) {
                match first {
                    0x81 => each(index, std::str::from_utf8(payload).expect("text is UTF-8")),
                    0x89 => {
                        client.stream.write_all(&wire::frame(true, wire::PONG, payload)).expect("a pong fits");
                    }
                    _ => panic!("client {index} got a frame {first:#x}: {}", String::from_utf8_lossy(payload)),
                }
                at += length;
            }
            client.inbox.drain(..at);
            if client.inbox.is_empty() {
                client.inbox = Vec::new();
            }
        }
        upgrades
    }

    #[track_caller]
    fn receive_handshakes(&mut self, count: usize) {
        let mut left = count;
        while left > 0 {
            left -= self.turn("handshakes", |index, text| panic!("client {index} got {text} in the handshake"));
        }
    }
}
