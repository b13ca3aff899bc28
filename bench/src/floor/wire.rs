//! What the floor knows of protocols: the room of a publisher's line, the head of a frame, how a client joins. It
//! trusts that lines have the form that the load generator gives them, and knows neither sockets nor who is in a room.

/// What a client wants its events wrapped in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// JSON objects in WebSocket messages.
    Raw,
    /// Socket.IO packets in Engine.IO packets in WebSocket messages.
    SocketIo,
}

impl Dialect {
    /// All of them, by their number.
    pub const ALL: [Dialect; 2] = [Dialect::Raw, Dialect::SocketIo];
}

/// What a client's message asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// To be let into the namespace (Socket.IO).
    Connect,
    /// To be a member of room `r{n}`.
    Join(usize),
    /// The WebSocket's end.
    Close,
}

/// Room numbers are indices: nobody makes the floor allocate more than this many rooms.
const ROOMS_MAX: usize = 1 << 20;

/// The room's number and the bytes of `data` of a line `{"room":"r7","event":"e","data":…}`; none of any other line.
pub fn event(line: &[u8]) -> Option<(usize, &[u8])> {
    let (room, rest) = room(line.strip_prefix(br#"{"room":"r"#)?)?;
    Some((room, rest.strip_prefix(br#"","event":"e","data":"#)?.strip_suffix(b"}")?))
}

/// Appends the event with this `data` as a WebSocket frame.
pub fn append_event(dialect: Dialect, data: &[u8], out: &mut Vec<u8>) {
    let (before, after): (&[u8], &[u8]) = match dialect {
        Dialect::Raw => (br#"{"type":"e","data":"#, b"}"),
        Dialect::SocketIo => (br#"42["e","#, b"]"),
    };
    append_head(before.len() + data.len() + after.len(), out);
    out.extend_from_slice(before);
    out.extend_from_slice(data);
    out.extend_from_slice(after);
}

/// Appends a text frame (RFC 6455, 5.2).
pub fn append_text(text: &[u8], out: &mut Vec<u8>) {
    append_head(text.len(), out);
    out.extend_from_slice(text);
}

fn append_head(length: usize, out: &mut Vec<u8>) {
    out.push(0x81);
    match length {
        short @ 0..126 => out.push(short as u8),
        medium @ 126..0x1_0000 => {
            out.push(126);
            out.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            out.push(127);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
}

/// The dialect that a request's path means and the head's length, once the head is complete.
pub fn head(bytes: &[u8]) -> Option<(Dialect, usize)> {
    let end = memchr::memmem::find(bytes, b"\r\n\r\n")? + 4;
    let dialect = if bytes.starts_with(b"GET /socket.io/") { Dialect::SocketIo } else { Dialect::Raw };
    Some((dialect, end))
}

/// Appends the handshake's answer, and in Socket.IO the opening of the session, which comes in the same send.
pub fn append_welcome(dialect: Dialect, out: &mut Vec<u8>) {
    // The load generator always sends the key of RFC 6455's example.
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
    );
    if dialect == Dialect::SocketIo {
        let open = br#"0{"sid":"floor","upgrades":[],"pingInterval":600000,"pingTimeout":600000,"maxPayload":1000000}"#;
        append_text(open, out);
    }
}

/// Appends the answer to a request.
pub fn append_answer(dialect: Dialect, request: &Request, out: &mut Vec<u8>) {
    match (dialect, request) {
        (Dialect::Raw, Request::Join(room)) => {
            append_text(format!(r#"{{"type":"subscribed","room":"r{room}"}}"#).as_bytes(), out);
        }
        (Dialect::SocketIo, Request::Join(room)) => {
            append_text(format!(r#"42["subscribed",{{"room":"r{room}"}}]"#).as_bytes(), out);
        }
        (Dialect::SocketIo, Request::Connect) => append_text(br#"40{"sid":"floor"}"#, out),
        (Dialect::Raw, Request::Connect) | (_, Request::Close) => {}
    }
}

/// Calls `each` with what the whole frames of a client in `bytes` ask for; returns how many bytes they took. What asks
/// for nothing, as a pong does, is passed over.
pub fn requests(bytes: &mut [u8], mut each: impl FnMut(Request)) -> usize {
    const MASK: usize = 4;
    let mut at = 0;
    while let [first, second, rest @ ..] = &bytes[at..] {
        let (head, length) = match (second & 0x7f, rest) {
            (126, [high, low, ..]) => (4, usize::from(u16::from_be_bytes([*high, *low]))),
            (126, _) => break,
            // No client of the bench says anything that long: the inbox will not hold it, and the connection ends.
            (127, _) => break,
            (short, _) => (2, usize::from(short)),
        };
        let opcode = first & 0x0f;
        let Some(masked) = bytes[at..].get_mut(head..head + MASK + length) else { break };
        at += head + MASK + length;
        let (mask, payload) = masked.split_at_mut(MASK);
        for (index, byte) in payload.iter_mut().enumerate() {
            *byte ^= mask[index % MASK];
        }
        let request = match opcode {
            0x1 => request(payload),
            0x8 => Some(Request::Close),
            _ => None,
        };
        request.map(&mut each);
    }
    at
}

fn request(text: &[u8]) -> Option<Request> {
    const ROOM: &[u8] = br#""room":"r"#;
    if text == b"40" {
        return Some(Request::Connect);
    }
    let at = memchr::memmem::find(text, ROOM)?;
    Some(Request::Join(room(&text[at + ROOM.len()..])?.0))
}

/// The number that `text` begins with, and what follows it.
fn room(text: &[u8]) -> Option<(usize, &[u8])> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).take(8).count();
    let number = text[..digits].iter().fold(0, |number, digit| number * 10 + usize::from(digit - b'0'));
    (digits > 0 && number < ROOMS_MAX).then_some((number, &text[digits..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let table: [(&str, Option<(usize, &str)>); 8] = [
            (r#"{"room":"r7","event":"e","data":{"seq":1}}"#, Some((7, r#"{"seq":1}"#))),
            (r#"{"room":"r2499","event":"e","data":"x"}"#, Some((2499, r#""x""#))),
            (r#"{"room":"r","event":"e","data":1}"#, None),
            (r#"{"room":"7","event":"e","data":1}"#, None),
            (r#"{"room":"r7","event":"f","data":1}"#, None),
            (r#"{"room":"r7","event":"e","data":1"#, None),
            (r#"{"room":"r99999999","event":"e","data":1}"#, None),
            ("", None),
        ];
        for (line, wanted) in table {
            assert_eq!(event(line.as_bytes()), wanted.map(|(room, data)| (room, data.as_bytes())), "{line}");
        }
    }

    #[test]
    fn frames() {
        // (dialect, bytes of data, head, payload before the data, payload after it)
        let table: [(Dialect, usize, &[u8], &str, &str); 5] = [
            (Dialect::Raw, 9, &[0x81, 29], r#"{"type":"e","data":"#, "}"),
            (Dialect::SocketIo, 9, &[0x81, 17], r#"42["e","#, "]"),
            (Dialect::Raw, 105, &[0x81, 125], r#"{"type":"e","data":"#, "}"),
            (Dialect::Raw, 106, &[0x81, 126, 0, 126], r#"{"type":"e","data":"#, "}"),
            (Dialect::SocketIo, 0x1_0000, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 8], r#"42["e","#, "]"),
        ];
        for (dialect, length, head, before, after) in table {
            let data = "1".repeat(length);
            let mut out = b"earlier".to_vec();
            append_event(dialect, data.as_bytes(), &mut out);
            let wanted = [b"earlier", head, before.as_bytes(), data.as_bytes(), after.as_bytes()].concat();
            assert!(out == wanted, "{dialect:?} {length}: {}", String::from_utf8_lossy(&out));
        }
    }

    #[test]
    fn heads() {
        assert_eq!(head(b"GET /ws HTTP/1.1\r\nA: b\r\n\r\nmore"), Some((Dialect::Raw, 26)));
        assert_eq!(head(b"GET /socket.io/?EIO=4 HTTP/1.1\r\n\r\n"), Some((Dialect::SocketIo, 34)));
        assert_eq!(head(b"GET /ws HTTP/1.1\r\nA: b\r\n"), None);
    }

    fn client_frame(opcode: u8, text: &str, mask: [u8; 4]) -> Vec<u8> {
        let mut frame = vec![0x80 | opcode];
        match text.len() {
            short @ 0..126 => frame.push(0x80 | short as u8),
            medium => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&(medium as u16).to_be_bytes());
            }
        }
        frame.extend_from_slice(&mask);
        frame.extend(text.bytes().enumerate().map(|(index, byte)| byte ^ mask[index % 4]));
        frame
    }

    #[test]
    fn what_clients_ask_for() {
        let long = format!(r#"{{"type":"subscribe","room":"r1","filler":"{}"}}"#, "x".repeat(200));
        let table: [(u8, &str, Option<Request>); 7] = [
            (1, "40", Some(Request::Connect)),
            (1, r#"42["subscribe",{"room":"r12"}]"#, Some(Request::Join(12))),
            (1, r#"{"type":"subscribe","room":"r0"}"#, Some(Request::Join(0))),
            (1, &long, Some(Request::Join(1))),
            (1, "3", None),
            (8, "", Some(Request::Close)),
            (10, "", None),
        ];
        for (opcode, text, wanted) in table {
            for mask in [[0; 4], [1, 2, 3, 0xff]] {
                let mut bytes = client_frame(opcode, text, mask);
                let whole = bytes.len();
                for part in 0..whole {
                    let taken = requests(&mut bytes.clone()[..part], |request| panic!("{request:?} of {part} bytes"));
                    assert_eq!(taken, 0);
                }
                bytes.extend_from_slice(&[0x81]);
                let mut asked = Vec::new();
                assert_eq!(requests(&mut bytes, |request| asked.push(request)), whole);
                assert_eq!(asked.pop(), wanted, "{text}");
                assert_eq!(asked, []);
            }
        }
    }
}
