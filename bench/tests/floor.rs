//! Each way in which the floor sends keeps every room's order and loses nothing, whatever its members do.

use socket2::{Domain, Socket, Type};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;

/// 15 MB for each member and round: more than the kernel keeps for a connection that nobody reads from.
const EVENTS: u64 = 15_000;
/// Who has stalled once does it again: the second time differs, as the floor polls for space already.
const ROUNDS: u64 = 2;

struct Floor {
    process: Child,
    clients: SocketAddr,
    publishers: SocketAddr,
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Floor {
    fn start(frames: &str, by: &str) -> Floor {
        let mut process = Command::new(env!("CARGO_BIN_EXE_roomcast-bench"))
            .args(["floor", "--listen", "127.0.0.1:0", "--ingest", "127.0.0.1:0", "--frames", frames, "--by", by])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stderr.take().unwrap()).read_line(&mut line).unwrap();
        let mut addresses = line.split([' ', ',', '\n']).filter_map(|word| word.parse().ok());
        let (clients, publishers) = (addresses.next().unwrap(), addresses.next().unwrap());
        line.clear();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Floor { process, clients, publishers }
    }
}

struct Member {
    stream: BufReader<TcpStream>,
    /// What its events begin and end with.
    wrap: (&'static str, &'static str),
}

impl Member {
    fn raw(floor: &Floor, room: usize) -> Member {
        let mut member = Member::open(floor, "/ws", (r#"{"type":"e","data":"#, "}"));
        member.say(&format!(r#"{{"type":"subscribe","room":"r{room}"}}"#));
        assert_eq!(member.text(), format!(r#"{{"type":"subscribed","room":"r{room}"}}"#));
        member
    }

    fn socket_io(floor: &Floor, room: usize) -> Member {
        let mut member = Member::open(floor, "/socket.io/?EIO=4&transport=websocket", (r#"42["e","#, "]"));
        assert!(member.text().starts_with("0{"));
        member.say("40");
        assert!(member.text().starts_with("40{"));
        member.say(&format!(r#"42["subscribe",{{"room":"r{room}"}}]"#));
        assert_eq!(member.text(), format!(r#"42["subscribed",{{"room":"r{room}"}}]"#));
        member
    }

    fn open(floor: &Floor, path: &str, wrap: (&'static str, &'static str)) -> Member {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(1 << 14).unwrap();
        socket.connect(&floor.clients.into()).unwrap();
        let mut stream: TcpStream = socket.into();
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nSec-WebSocket-Key: {key}\r\n\r\n")
            .unwrap();
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        assert!(line.starts_with("HTTP/1.1 101 "), "{line}");
        while line != "\r\n" {
            line.clear();
            stream.read_line(&mut line).unwrap();
        }
        Member { stream, wrap }
    }

    fn say(&mut self, text: &str) {
        let mask = [1, 2, 3, 4];
        let mut frame = vec![0x81, 0x80 | text.len() as u8];
        frame.extend_from_slice(&mask);
        frame.extend(text.bytes().enumerate().map(|(index, byte)| byte ^ mask[index % 4]));
        self.stream.get_mut().write_all(&frame).unwrap();
    }

    fn text(&mut self) -> String {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head).unwrap();
        assert_eq!(head[0], 0x81);
        let mut length = usize::from(head[1]);
        if length == 126 {
            self.stream.read_exact(&mut head).unwrap();
            length = usize::from(u16::from_be_bytes(head));
        }
        let mut text = vec![0; length];
        self.stream.read_exact(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    /// The events of a round come one after the other, whole.
    fn check(&mut self, round: u64) {
        for seq in round * EVENTS..(round + 1) * EVENTS {
            let wanted = [self.wrap.0, &data(seq), self.wrap.1].concat();
            let text = self.text();
            assert!(text == wanted, "event {seq}: {} bytes: {:.60}", text.len(), text);
        }
    }
}

/// Many small events, so that one read has many sends to a member that takes some of them, and a few large ones, which
/// are sent in parts.
fn data(seq: u64) -> String {
    let length = if seq.is_multiple_of(16) { 15_000 } else { 40 };
    format!(r#"{{"seq":{seq},"x":"{}"}}"#, "x".repeat(length))
}

fn order_without_loss(frames: &str, by: &str) {
    let floor = Floor::start(frames, by);
    let mut stalled = [Member::raw(&floor, 0), Member::socket_io(&floor, 0)];
    let mut readers = vec![
        Member::raw(&floor, 0),
        Member::socket_io(&floor, 0),
        Member::raw(&floor, 1),
        Member::raw(&floor, 1),
        Member::socket_io(&floor, 7),
    ];
    for round in 0..ROUNDS {
        let leaver = Member::raw(&floor, 1);
        let mut publisher = TcpStream::connect(floor.publishers).unwrap();
        let publisher = thread::spawn(move || {
            for seq in round * EVENTS..(round + 1) * EVENTS {
                let data = data(seq);
                let lines = [0, 1, 7].map(|room| format!("{{\"room\":\"r{room}\",\"event\":\"e\",\"data\":{data}}}\n"));
                publisher.write_all(lines.concat().as_bytes()).unwrap();
            }
        });
        let reading = readers.into_iter().map(|mut reader| {
            thread::spawn(move || {
                reader.check(round);
                reader
            })
        });
        let reading: Vec<_> = reading.collect();
        // Its socket closes with bytes unread, which resets the connection under the floor's sends.
        drop(leaver);
        // All others get everything before those who have stalled read a byte.
        readers = reading.into_iter().map(|reader| reader.join().unwrap()).collect();
        publisher.join().unwrap();
        for member in &mut stalled {
            member.check(round);
        }
    }
}

#[test]
fn each_by_send() {
    order_without_loss("each", "send");
}

#[test]
fn each_by_uring() {
    order_without_loss("each", "uring");
}

#[test]
fn joined_by_send() {
    order_without_loss("joined", "send");
}

#[test]
fn joined_by_uring() {
    order_without_loss("joined", "uring");
}
