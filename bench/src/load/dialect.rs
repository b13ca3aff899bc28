//! What clients and publishers say: raw, Socket.IO over WebSocket, NATS over WebSocket, and Socket.IO over
//! long-polling, which can join but not listen. Bytes in, bytes and sequence numbers out; knows no sockets.

use super::frames::{self, BINARY, Broken, CLOSE, CONTINUATION, Frames, PING, PONG, TEXT};
use clap::ValueEnum;
use memchr::{memchr, memmem};
use std::fmt::Write as _;
use std::ops::Range;

/// What clients speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Dialect {
    /// JSON objects over a WebSocket at `/ws`.
    Raw,
    /// Socket.IO over a WebSocket.
    SocketIo,
    /// NATS' protocol over a WebSocket; the publisher speaks it over TCP.
    Nats,
    /// Socket.IO over HTTP long-polling, each client with one connection, on which its poll waits. `idle` only.
    Polling,
}

/// What ends a step of joining.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// A whole HTTP response with this status.
    Response(&'static str),
    /// A frame that contains this.
    Frame(&'static str),
    /// Nothing: the client has joined as soon as its last words are sent.
    Nothing,
}

/// What a server said that concerns the generator.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard<'a> {
    /// An event with this sequence number.
    Event(u32),
    /// The server wants this frame as an answer.
    Ping { opcode: u8, answer: &'a [u8] },
    /// The server says that it closes.
    Close,
}

/// Why a server cannot be understood.
#[derive(Debug, PartialEq, Eq)]
pub struct Misunderstood(pub String);

impl From<Broken> for Misunderstood {
    fn from(_: Broken) -> Misunderstood {
        Misunderstood("the server sent a frame with a mask or with a reserved bit".to_owned())
    }
}

/// What of a connection's bytes must be kept until more come.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Rest {
    pub bytes: Range<usize>,
    /// So many at the start are out of their frames already (NATS' messages may span frames).
    pub unframed: usize,
}

const SOCKET_IO_PATH: &str = "/socket.io/?EIO=4&transport=websocket";
const POLLING_PATH: &str = "/socket.io/?EIO=4&transport=polling";

impl Dialect {
    /// Step `number` of joining room `r{room}`: appends what the client says, returns what it waits for then. `None`:
    /// it has joined. `sid` is what [`session_id`] found in the answer to the first step.
    pub fn step(self, number: usize, room: u32, sid: &str, out: &mut Vec<u8>) -> Option<Wait> {
        match self {
            Dialect::Raw => match number {
                0 => upgrade("/ws", out),
                1 => {
                    frames::say(TEXT, format!(r#"{{"type":"subscribe","room":"r{room}"}}"#).as_bytes(), out);
                    Some(Wait::Frame("\"subscribed\""))
                }
                _ => None,
            },
            Dialect::SocketIo => match number {
                0 => upgrade(SOCKET_IO_PATH, out),
                1 => Some(Wait::Frame("0{")),
                2 => {
                    frames::say(TEXT, b"40", out);
                    Some(Wait::Frame("40{"))
                }
                3 => {
                    frames::say(TEXT, subscribe_packet(room).as_bytes(), out);
                    Some(Wait::Frame("\"subscribed\""))
                }
                _ => None,
            },
            Dialect::Nats => match number {
                0 => upgrade("/", out),
                1 => {
                    let words = format!("CONNECT {{\"verbose\":false}}\r\nSUB r{room} 1\r\nPING\r\n");
                    frames::say(BINARY, words.as_bytes(), out);
                    Some(Wait::Frame("PONG"))
                }
                _ => None,
            },
            Dialect::Polling => match number {
                0 => {
                    get(POLLING_PATH, out);
                    Some(Wait::Response("200"))
                }
                1 => post(sid, "40", out),
                2 => post(sid, &subscribe_packet(room), out),
                // The grant and the answer to the packet come with one poll; then a poll stays waiting.
                3 => {
                    get(&format!("{POLLING_PATH}&sid={sid}"), out);
                    Some(Wait::Response("200"))
                }
                4 => {
                    get(&format!("{POLLING_PATH}&sid={sid}"), out);
                    Some(Wait::Nothing)
                }
                _ => None,
            },
        }
    }

    /// What the publisher says first.
    pub fn publisher_greeting(self) -> &'static [u8] {
        match self {
            Dialect::Nats => b"CONNECT {\"verbose\":false}\r\n",
            Dialect::Raw | Dialect::SocketIo | Dialect::Polling => b"",
        }
    }

    /// Appends an event for room `r{room}` as the publisher sends it. `data` is a JSON object.
    pub fn publish(self, room: u32, data: &[u8], out: &mut Vec<u8>) {
        match self {
            Dialect::Nats => {
                out.extend_from_slice(b"PUB r");
                number(u64::from(room), out);
                out.push(b' ');
                number((NATS_EVENT.len() + data.len() + 1) as u64, out);
                for part in [b"\r\n", NATS_EVENT, data, b"}\r\n"] {
                    out.extend_from_slice(part);
                }
            }
            Dialect::Raw | Dialect::SocketIo | Dialect::Polling => {
                out.extend_from_slice(br#"{"room":"r"#);
                number(u64::from(room), out);
                for part in [br#"","event":"e","data":"#, data, b"}\n"] {
                    out.extend_from_slice(part);
                }
            }
        }
    }

    /// Reads what came on one connection, `unframed` bytes of which are out of their frames already. Says what was
    /// heard and what must be kept. The bytes may be moved about.
    #[inline]
    pub fn listen(
        self,
        bytes: &mut [u8],
        unframed: usize,
        finder: &mut Finder,
        mut heard: impl FnMut(Heard),
    ) -> Result<Rest, Misunderstood> {
        match self {
            Dialect::Raw | Dialect::SocketIo => listen_frames(bytes, finder, heard),
            Dialect::Nats => {
                let stream = unframe(bytes, unframed, &mut heard)?;
                let taken = messages(&bytes[stream.start..stream.start + stream.unframed], finder, heard)?;
                Ok(Rest { bytes: stream.start + taken..stream.end, unframed: stream.unframed - taken })
            }
            // A poll that is answered has ended; idle is over before the first heartbeat.
            Dialect::Polling => Ok(Rest::default()),
        }
    }
}

const NATS_EVENT: &[u8] = br#"{"type":"e","data":"#;

fn upgrade(path: &str, out: &mut Vec<u8>) -> Option<Wait> {
    out.extend_from_slice(b"GET ");
    out.extend_from_slice(path.as_bytes());
    // The key of RFC 6455's example, so that a server without SHA-1 knows the answer.
    out.extend_from_slice(
        b" HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    Some(Wait::Response("101"))
}

fn subscribe_packet(room: u32) -> String {
    format!(r#"42["subscribe",{{"room":"r{room}"}}]"#)
}

fn get(path: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
}

fn post(sid: &str, body: &str, out: &mut Vec<u8>) -> Option<Wait> {
    let mut request = format!("POST {POLLING_PATH}&sid={sid} HTTP/1.1\r\nHost: localhost\r\n");
    let _ = write!(request, "Content-Length: {}\r\n\r\n{body}", body.len());
    out.extend_from_slice(request.as_bytes());
    Some(Wait::Response("200"))
}

/// Appends `value` in decimal.
pub fn number(mut value: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break out.extend_from_slice(&digits[at..]);
        }
    }
}

/// A whole HTTP response at the start of `bytes`: its length and its status. `None`: more must come.
pub fn response(bytes: &[u8]) -> Result<Option<(usize, &str)>, Misunderstood> {
    let Some(end) = memmem::find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let strange = || Misunderstood(format!("no HTTP response: {:?}", String::from_utf8_lossy(&bytes[..end])));
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| strange())?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).ok_or_else(strange)?;
    let mut length = 0;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().map_err(|_| strange())?;
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(Misunderstood("the server sent a chunked response".to_owned()));
        }
    }
    let whole = (end + 4_usize).saturating_add(length);
    Ok((bytes.len() >= whole).then_some((whole, status)))
}

/// Engine.IO's session id in the handshake's packet.
pub fn session_id(response: &[u8]) -> Option<String> {
    let start = memmem::find(response, br#""sid":""#)? + 7;
    let sid = &response[start..start + memchr(b'"', &response[start..])?];
    String::from_utf8(sid.to_vec()).ok()
}

/// Finds the number behind `"seq":`. It mostly stands where it stood in the frame before.
#[derive(Debug, Default)]
pub struct Finder {
    /// Offset of the number's first digit in the last payload.
    at: usize,
}

const KEY: &[u8; 6] = b"\"seq\":";

impl Finder {
    /// The sequence number in `payload`, if it has one that fits.
    #[inline]
    pub fn sequence(&mut self, payload: &[u8]) -> Option<u32> {
        if self.at < KEY.len() || payload.get(self.at - KEY.len()..self.at) != Some(KEY) {
            self.at = memmem::find(payload, KEY)? + KEY.len();
        }
        digits(&payload[self.at..])
    }
}

/// The decimal number at the start of `bytes`.
#[inline]
fn digits(bytes: &[u8]) -> Option<u32> {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    if let Some(eight) = bytes.first_chunk::<8>() {
        // Eight bytes at once: a byte above 9 shows in its highest bit; what carries on from there comes behind it.
        let values = u64::from_le_bytes(*eight) ^ 0x3030_3030_3030_3030;
        let other = (values.wrapping_add(0x7676_7676_7676_7676) | values) & HIGH;
        if other != 0 {
            let count = other.trailing_zeros() / 8;
            // The digits move to the end, zeros come before them; then pairs, fours and eights are added up.
            let values = if count == 0 { return None } else { values << (64 - 8 * count) };
            let pairs = (values * 10 + (values >> 8)) & 0x00ff_00ff_00ff_00ff;
            let fours = (pairs * 100 + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
            return Some(((fours * 10_000 + (fours >> 32)) & 0xffff_ffff) as u32);
        }
    }
    let count = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&bytes[..count]).ok()?.parse().ok()
}

#[inline]
fn listen_frames(bytes: &[u8], finder: &mut Finder, mut heard: impl FnMut(Heard)) -> Result<Rest, Misunderstood> {
    let mut frames = Frames::new(bytes);
    while let Some(frame) = frames.next()? {
        if let Some(seq) = finder.sequence(frame.payload) {
            heard(Heard::Event(seq));
        } else if frame.opcode == TEXT && frame.payload == b"2" {
            heard(Heard::Ping { opcode: TEXT, answer: b"3" });
        } else {
            control(frame.opcode, frame.payload, &mut heard);
        }
    }
    Ok(Rest { bytes: frames.taken()..bytes.len(), unframed: 0 })
}

#[cold]
fn control(opcode: u8, payload: &[u8], heard: &mut impl FnMut(Heard)) {
    match opcode {
        PING => heard(Heard::Ping { opcode: PONG, answer: payload }),
        CLOSE => heard(Heard::Close),
        _ => {}
    }
}

/// Bytes out of their frames, followed by an incomplete frame.
struct Stream {
    start: usize,
    unframed: usize,
    end: usize,
}

/// Moves the payloads in `bytes` together, behind the first `unframed` bytes. The first of all stays where it is.
fn unframe(bytes: &mut [u8], unframed: usize, heard: &mut impl FnMut(Heard)) -> Result<Stream, Broken> {
    let (mut start, mut end, mut at) = (0, unframed, unframed);
    loop {
        let mut frames = Frames::new(&bytes[at..]);
        let Some(frame) = frames.next()? else { break };
        let (after, length) = (at + frames.taken(), frame.payload.len());
        at = after;
        if !matches!(frame.opcode, BINARY | TEXT | CONTINUATION) {
            control(frame.opcode, frame.payload, heard);
        } else if start == end {
            (start, end) = (after - length, after);
        } else {
            bytes.copy_within(after - length..after, end);
            end += length;
        }
    }
    let unframed = end - start;
    if at != end {
        bytes.copy_within(at.., end);
        end += bytes.len() - at;
    } else {
        end = bytes.len();
    }
    Ok(Stream { start, unframed, end })
}

/// Reads NATS' messages; returns how many bytes the whole ones took.
fn messages(bytes: &[u8], finder: &mut Finder, mut heard: impl FnMut(Heard)) -> Result<usize, Misunderstood> {
    let mut at = 0;
    while let Some(end) = memchr(b'\n', &bytes[at..]) {
        let line = &bytes[at..at + end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let body = at + end + 1;
        if line.starts_with(b"MSG ") {
            let length = line.rsplit(|byte| *byte == b' ').next().and_then(digits);
            let length = length.ok_or_else(|| Misunderstood("a MSG without a length".to_owned()))? as usize;
            let Some(payload) = bytes.get(body..body + length) else { break };
            // A line end follows the payload.
            if bytes.len() < body + length + 2 {
                break;
            }
            if let Some(seq) = finder.sequence(payload) {
                heard(Heard::Event(seq));
            }
            at = body + length + 2;
            continue;
        }
        if line.starts_with(b"-ERR") {
            return Err(Misunderstood(format!("the server says {}", String::from_utf8_lossy(line))));
        }
        if line == b"PING" {
            heard(Heard::Ping { opcode: BINARY, answer: b"PONG\r\n" });
        }
        at = body;
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0x80 | opcode];
        if payload.len() < 126 {
            frame.push(payload.len() as u8);
        } else {
            frame.push(126);
            frame.extend_from_slice(&(payload.len() as u16).to_be_bytes());
        }
        frame.extend_from_slice(payload);
        frame
    }

    /// What is heard, as text, of a stream that comes in two parts.
    fn hear(dialect: Dialect, stream: &[u8], cut: usize) -> Vec<String> {
        let (mut finder, mut heard) = (Finder::default(), Vec::new());
        let mut kept: (Vec<u8>, usize) = (Vec::new(), 0);
        for part in [&stream[..cut], &stream[cut..]] {
            let mut bytes = [&kept.0, part].concat();
            let rest = dialect.listen(&mut bytes, kept.1, &mut finder, |said| heard.push(format!("{said:?}"))).unwrap();
            kept = (bytes[rest.bytes].to_vec(), rest.unframed);
        }
        assert_eq!(kept, (Vec::new(), 0), "cut at {cut}");
        heard
    }

    fn event(seq: u32) -> String {
        let filler = "x".repeat(150);
        format!(r#"{{"seq":{seq},"ts":123456789,"x":"{filler}"}}"#)
    }

    #[test]
    fn every_split_point_gives_the_same_events() {
        let raw = |seq| frame(TEXT, format!(r#"{{"type":"e","data":{}}}"#, event(seq)).as_bytes());
        let socket_io = |seq| frame(TEXT, format!(r#"42["e",{}]"#, event(seq)).as_bytes());
        let nats = |seq| {
            let payload = format!(r#"{{"type":"e","data":{}}}"#, event(seq));
            format!("MSG r7 1 {}\r\n{payload}\r\n", payload.len()).into_bytes()
        };
        let pair = [nats(9), b"PING\r\n".to_vec(), nats(10)].concat();
        let (ping, close) = (frame(PING, b"hi"), frame(CLOSE, b""));
        let ping_heard = format!("{:?}", Heard::Ping { opcode: PONG, answer: b"hi" });
        let heard = |between: &str| ["Event(9)", between, "Event(10)", "Close"].map(str::to_owned).to_vec();
        // (dialect, stream, what is heard)
        let rows: [(Dialect, Vec<u8>, Vec<String>); 6] = [
            (Dialect::Raw, [raw(9), ping.clone(), raw(10), close.clone()].concat(), heard(&ping_heard)),
            (
                Dialect::SocketIo,
                [socket_io(9), frame(TEXT, b"2"), socket_io(10), close.clone()].concat(),
                heard(&format!("{:?}", Heard::Ping { opcode: TEXT, answer: b"3" })),
            ),
            // One frame for all.
            (
                Dialect::Nats,
                [frame(BINARY, &pair), close.clone()].concat(),
                heard(&format!("{:?}", Heard::Ping { opcode: BINARY, answer: b"PONG\r\n" })),
            ),
            // Frames that end in the middle of a message.
            (
                Dialect::Nats,
                [frame(BINARY, &pair[..5]), frame(BINARY, &pair[5..100]), frame(BINARY, &pair[100..]), close.clone()]
                    .concat(),
                heard(&format!("{:?}", Heard::Ping { opcode: BINARY, answer: b"PONG\r\n" })),
            ),
            // Fragments, with a ping between them.
            (
                Dialect::Nats,
                [frame(BINARY, &nats(9)[..100]), ping, frame(CONTINUATION, &nats(9)[100..]), close].concat(),
                vec![ping_heard, "Event(9)".to_owned(), "Close".to_owned()],
            ),
            (Dialect::Nats, frame(BINARY, b"INFO {}\r\n+OK\r\nPONG\r\n"), vec![]),
        ];
        for (dialect, stream, expected) in rows {
            for cut in 0..=stream.len() {
                let mut heard = hear(dialect, &stream, cut);
                // A close frame is heard while messages are being unframed, so before those of the same read.
                if dialect == Dialect::Nats {
                    heard.sort_by_key(|said| (said == "Close", !said.starts_with("Ping"), said.len()));
                    let mut expected = expected.clone();
                    expected.sort_by_key(|said| (said == "Close", !said.starts_with("Ping"), said.len()));
                    assert_eq!(heard, expected, "{dialect:?} cut at {cut}");
                } else {
                    assert_eq!(heard, expected, "{dialect:?} cut at {cut}");
                }
            }
        }
    }

    #[test]
    fn numbers_are_found_where_they_stood_and_elsewhere() {
        let mut finder = Finder::default();
        // (payload, number)
        let rows: [(&str, Option<u32>); 12] = [
            (r#"{"seq":1,"ts":2}"#, Some(1)),
            (r#"{"seq":1234567,"ts":2}"#, Some(1_234_567)),
            (r#"{"seq":12345678,"ts":2}"#, Some(12_345_678)),
            (r#"{"seq":4294967295,"ts":2}"#, Some(u32::MAX)),
            (r#"{"seq":4294967296,"ts":2}"#, None),
            (r#"{"ts":2,"seq":77}"#, Some(77)),
            (r#"{"seq":5}"#, Some(5)),
            (r#"{"seq":"#, None),
            (r#"{"seq":x,"ts":222}"#, None),
            (r#"{"se"#, None),
            ("", None),
            (r#"42["e",{"seq":600,"ts":2}]"#, Some(600)),
        ];
        for (payload, expected) in rows {
            assert_eq!(finder.sequence(payload.as_bytes()), expected, "{payload}");
        }
        for value in (0..2_000_000).step_by(37) {
            assert_eq!(digits(format!("{value},\"ts\":1").as_bytes()), Some(value));
        }
    }

    #[test]
    fn decimal() {
        for value in [0, 7, 10, 99, 12_345, u64::MAX] {
            let mut out = Vec::new();
            number(value, &mut out);
            assert_eq!(out, value.to_string().as_bytes());
        }
    }

    #[test]
    fn events_are_published_as_the_contract_says() {
        let publish = |dialect: Dialect| {
            let mut out = Vec::new();
            dialect.publish(7, br#"{"seq":1}"#, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(publish(Dialect::Raw), "{\"room\":\"r7\",\"event\":\"e\",\"data\":{\"seq\":1}}\n");
        assert_eq!(publish(Dialect::Nats), "PUB r7 29\r\n{\"type\":\"e\",\"data\":{\"seq\":1}}\r\n");
    }

    #[test]
    fn responses() {
        let short = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81";
        assert_eq!(response(short), Ok(Some((short.len() - 1, "101"))));
        let body = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        assert_eq!(response(body), Ok(Some((body.len(), "200"))));
        assert_eq!(response(&body[..body.len() - 1]), Ok(None));
        assert_eq!(response(b"HTTP/1.1 200"), Ok(None));
        assert!(response(b"nonsense\r\n\r\n").is_err());
        assert_eq!(session_id(br#"0{"sid":"abc","upgrades":[]}"#), Some("abc".to_owned()));
    }
}
