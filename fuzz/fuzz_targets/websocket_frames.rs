//! Any bytes as what a client sends behind its handshake: the messages are those that a naive reader of RFC 6455 finds,
//! in whatever pieces the bytes come. Also the reverse: what we write is what is read. The input's first byte chooses
//! the bound of a message.
#![no_main]

use libfuzzer_sys::fuzz_target;
use roomcast::proto::ws::{self, CONTROL_BYTES_MAX, Decoder, Kind, Message, Step, Violation};
use roomcast_fuzz::{Choices, arrivals, check_error};

/// The longest header.
const HEADER_BYTES_MAX: usize = 14;

fuzz_target!(|data: &[u8]| {
    let Some((choice, stream)) = data.split_first() else { return };
    let message_bytes_max = [10, 300, 70_000][usize::from(choice % 3)];
    let expected = expected(stream, message_bytes_max);
    for pieces in arrivals(stream) {
        let (messages, violation) = decode(&pieces, message_bytes_max);
        if let Some(violation) = &violation {
            check_error(violation, violation.label());
            assert!(violation.to_string().len() <= ws::CLOSE_REASON_BYTES_MAX);
        }
        assert_eq!((messages, violation.map(|violation| violation.close_code())), expected);
    }
    check_client_frames(stream);
    check_server_frames(stream);
});

/// A message with its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Owned {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
}

impl From<Message<'_>> for Owned {
    fn from(message: Message<'_>) -> Owned {
        match message {
            Message::Text(text) => Owned::Text(text.to_owned()),
            Message::Binary(bytes) => Owned::Binary(bytes.to_owned()),
            Message::Ping(bytes) => Owned::Ping(bytes.to_owned()),
            Message::Pong(bytes) => Owned::Pong(bytes.to_owned()),
            Message::Close { code, reason } => Owned::Close(code, reason.to_owned()),
        }
    }
}

/// As a connection's driver does it.
fn decode(pieces: &[&[u8]], message_bytes_max: usize) -> (Vec<Owned>, Option<Violation>) {
    let mut decoder = Decoder::new();
    let mut buffer = Vec::new();
    let mut messages = Vec::new();
    let mut violation = None;
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let waiting = buffer.len();
            let bytes = match decoder.decode(&mut buffer, message_bytes_max) {
                Ok(Step::Incomplete { need }) => {
                    assert!(need > waiting && need <= HEADER_BYTES_MAX + message_bytes_max.max(CONTROL_BYTES_MAX));
                    break;
                }
                Ok(Step::Consumed { bytes }) => bytes,
                Ok(Step::Message { bytes, message }) => {
                    assert!(violation.is_none() && !matches!(messages.last(), Some(Owned::Close(..))));
                    messages.push(message.into());
                    bytes
                }
                Err(error) => {
                    assert_eq!(violation, None, "a second violation");
                    violation = Some(error);
                    continue;
                }
            };
            assert!((1..=waiting).contains(&bytes));
            buffer.drain(..bytes);
        }
    }
    (messages, violation)
}

/// The messages in `stream` and the close code that it deserves, by RFC 6455 alone.
fn expected(mut stream: &[u8], message_bytes_max: usize) -> (Vec<Owned>, Option<u16>) {
    let mut messages = Vec::new();
    let mut open: Option<(u8, Vec<u8>)> = None;
    loop {
        let (frame, rest) = match Frame::read(stream, open.as_ref(), message_bytes_max) {
            Ok(Some(read)) => read,
            Ok(None) => return (messages, None),
            Err(code) => return (messages, Some(code)),
        };
        stream = rest;
        match frame.opcode {
            8 => match close(&frame.payload) {
                Ok(close) => {
                    messages.push(close);
                    return (messages, None);
                }
                Err(code) => return (messages, Some(code)),
            },
            9 => messages.push(Owned::Ping(frame.payload)),
            10 => messages.push(Owned::Pong(frame.payload)),
            opcode => {
                let (kind, mut bytes) = open.take().unwrap_or((opcode, Vec::new()));
                bytes.extend_from_slice(&frame.payload);
                match (kind, frame.last) {
                    (1, last) => match str::from_utf8(&bytes) {
                        Ok(text) if last => messages.push(Owned::Text(text.to_owned())),
                        Err(error) if last || error.error_len().is_some() => return (messages, Some(1007)),
                        _ => open = Some((kind, bytes)),
                    },
                    (_, true) => messages.push(Owned::Binary(bytes)),
                    (_, false) => open = Some((kind, bytes)),
                }
            }
        }
    }
}

struct Frame {
    last: bool,
    opcode: u8,
    payload: Vec<u8>,
}

impl Frame {
    /// The first frame and what follows it; `None` if it is not whole; the close code if it may not be.
    fn read<'a>(
        stream: &'a [u8],
        open: Option<&(u8, Vec<u8>)>,
        message_bytes_max: usize,
    ) -> Result<Option<(Frame, &'a [u8])>, u16> {
        let Some((&[first, second], rest)) = stream.split_first_chunk() else { return Ok(None) };
        let (last, opcode, masked) = (first & 0x80 != 0, first & 0x0f, second & 0x80 != 0);
        let extended = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let header = extended + if masked { 4 } else { 0 };
        if rest.len() < header {
            return Ok(None);
        }
        let (length, rest) = rest.split_at(extended);
        let length = match extended {
            0 => u64::from(second & 0x7f),
            _ => length.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)),
        };
        let is_minimal = match extended {
            0 => true,
            2 => length > 125,
            _ => length > 65_535 && length >> 63 == 0,
        };
        let (is_control, is_reserved) = (opcode >= 8, matches!(opcode, 3..=7 | 11..=15));
        let is_out_of_place = match opcode {
            0 => open.is_none(),
            1 | 2 => open.is_some(),
            _ => !last || length > 125,
        };
        if first & 0x70 != 0 || is_reserved || !masked || !is_minimal || is_out_of_place {
            return Err(1002);
        }
        let so_far = open.map_or(0, |(_, bytes)| bytes.len() as u64);
        if !is_control && length.saturating_add(so_far) > message_bytes_max as u64 {
            return Err(1009);
        }
        let (mask, rest) = rest.split_at(4);
        let Some((payload, rest)) = rest.split_at_checked(length as usize) else { return Ok(None) };
        let payload = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        Ok(Some((Frame { last, opcode, payload }, rest)))
    }
}

fn close(payload: &[u8]) -> Result<Owned, u16> {
    match payload {
        [] => Ok(Owned::Close(None, String::new())),
        [_] => Err(1002),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            // IANA's registry of close codes, without those that never stand in a frame.
            if !matches!(code, 1000 | 1001 | 1002 | 1003 | 1007..=1014 | 3000..=4999) {
                return Err(1002);
            }
            let reason = str::from_utf8(reason).map_err(|_| 1007u16)?;
            Ok(Owned::Close(Some(code), reason.to_owned()))
        }
    }
}

/// One message in fragments of any size, with pings between them.
fn check_client_frames(bytes: &[u8]) {
    let mut choices = Choices::of(bytes);
    let text = String::from_utf8_lossy(bytes);
    let (kind, bytes, message) = match choices.up_to(1) {
        0 => (Kind::Text, text.as_bytes(), Owned::Text(text.clone().into_owned())),
        _ => (Kind::Binary, bytes, Owned::Binary(bytes.to_owned())),
    };
    let (mut stream, mut expected) = (Vec::new(), Vec::new());
    let mut pieces = choices.pieces(bytes);
    let last = pieces.pop().unwrap_or_default();
    for (index, piece) in pieces.iter().enumerate() {
        let mask = [choices.up_to(255) as u8, 1, 2, choices.up_to(255) as u8];
        let kind = if index == 0 { kind } else { Kind::Continuation };
        ws::encode_client_frame(&mut stream, false, kind, mask, piece);
        let ping = &piece[..piece.len().min(CONTROL_BYTES_MAX)];
        ws::encode_client_frame(&mut stream, true, Kind::Ping, mask, ping);
        expected.push(Owned::Ping(ping.to_owned()));
    }
    let kind = if pieces.is_empty() { kind } else { Kind::Continuation };
    ws::encode_client_frame(&mut stream, true, kind, [7; 4], last);
    expected.push(message);
    assert_eq!(decode(&[&stream], bytes.len()), (expected, None));
}

fn check_server_frames(bytes: &[u8]) {
    let mut frames = Vec::new();
    for kind in [Kind::Text, Kind::Binary] {
        ws::write_header(&mut frames, kind, bytes.len());
        frames.extend_from_slice(bytes);
    }
    let code = bytes.first_chunk().map_or(1000, |code| u16::from_be_bytes(*code));
    let code = if ws::is_close_code(code) { code } else { 1000 };
    let reason = String::from_utf8_lossy(bytes);
    frames.extend_from_slice(&ws::close_frame(code, &reason));
    let read: Vec<_> = ws::unmasked_messages(&frames).collect();
    let [text, binary, close] = read[..] else { panic!("{} messages of three", read.len()) };
    assert_eq!((text, binary, close.0), ((Kind::Text, bytes), (Kind::Binary, bytes), Kind::Close));
    let (their_code, their_reason) = close.1.split_first_chunk().unwrap();
    assert_eq!(u16::from_be_bytes(*their_code), code);
    assert!(reason.starts_with(str::from_utf8(their_reason).unwrap()) && close.1.len() <= CONTROL_BYTES_MAX);
}
