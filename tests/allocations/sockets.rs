//! A machine of several cores in one thread, with real sockets: the data plane's own loop, turn by turn, and clients
//! that read what it has sent. Does not know what is counted.

use crate::common::cores::Cores;
use crate::common::{LIMIT, wire};
use crate::counter::{Allocated, count};
use roomcast::net::{self, sys};
use roomcast::session::Kind;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

/// The server and its peers, all on one thread.
pub struct Server {
    cores: Vec<net::Core>,
    clients: Vec<Client>,
    listen: SocketAddr,
    publisher: TcpStream,
    buffer: Vec<u8>,
}

struct Client {
    stream: TcpStream,
    kind: Kind,
    /// Bytes that are to come.
    missing: usize,
}

impl Server {
    /// Starts a server of `cores` cores, which is gone when `work` is done.
    pub fn run<T>(cores: usize, config: &str, work: impl FnOnce(&mut Server) -> T) -> T {
        sys::raise_descriptor_limit().unwrap();
        work(&mut Server::start(cores, config))
    }

    fn start(cores: usize, config: &str) -> Server {
        let Cores { cores, listen, ingest } = Cores::start(cores, config);
        let publisher = TcpStream::connect(ingest).unwrap();
        publisher.set_nodelay(true).unwrap();
        Server { cores, clients: Vec::new(), listen, publisher, buffer: vec![0; 64 << 10] }
    }

    /// A client comes in and joins these rooms.
    pub fn join(&mut self, kind: Kind, rooms: &[String]) {
        let path = if kind == Kind::SocketIo { "/socket.io/?EIO=4&transport=websocket" } else { "/ws" };
        let mut stream = TcpStream::connect(self.listen).unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut hello = wire::handshake(path).into_bytes();
        if kind == Kind::SocketIo {
            hello.extend(wire::text("40"));
        }
        hello.extend(rooms.iter().flat_map(|room| wire::text(&crate::machine::subscribe(kind, room))));
        stream.write_all(&hello).unwrap();
        let mut heard = Vec::new();
        let began = Instant::now();
        while String::from_utf8_lossy(&heard).matches("subscribed").count() < rooms.len() {
            assert!(began.elapsed() < LIMIT, "{:?}", String::from_utf8_lossy(&heard));
            for core in &mut self.cores {
                core.turn();
            }
            let length = read(&mut stream, &mut self.buffer);
            heard.extend_from_slice(&self.buffer[..length]);
        }
        self.clients.push(Client { stream, kind, missing: 0 });
    }

    /// A publisher writes lines, which bring each client so many bytes. Returns what the cores allocate until all have
    /// read all of them.
    pub fn publish(&mut self, lines: &str, bytes: impl Fn(Kind) -> usize) -> Allocated {
        self.clients.iter_mut().for_each(|client| client.missing = bytes(client.kind));
        self.publisher.write_all(lines.as_bytes()).unwrap();
        let mut all = Allocated::default();
        let mut waiting = true;
        let began = Instant::now();
        while std::mem::take(&mut waiting) {
            assert!(began.elapsed() < LIMIT, "the lines do not reach all clients");
            for core in &mut self.cores {
                all += count(|| core.turn()).0;
            }
            for Client { stream, missing, .. } in &mut self.clients {
                let length = read(stream, &mut self.buffer);
                *missing = missing.checked_sub(length).expect("no client gets more than was published");
                waiting |= *missing > 0;
            }
        }
        all
    }
}

/// What there is to be read; 0 if that is nothing.
fn read(stream: &mut TcpStream, buffer: &mut [u8]) -> usize {
    match stream.read(buffer) {
        Ok(0) => panic!("the server has closed a connection"),
        Ok(length) => length,
        Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
        Err(error) => panic!("{error}"),
    }
}
