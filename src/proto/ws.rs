//! RFC 6455 frames as values, seen from the server: client bytes to messages, and the headers of what we send. Does not
//! know sockets, extensions, the opening handshake, or what is to be answered to a Ping or a Close.

use std::fmt;
use std::io::Cursor;
use std::mem;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// The most payload that a control frame may carry (RFC 6455, section 5.5).
pub const CONTROL_BYTES_MAX: usize = 125;
/// The most text that a close frame has room for beside its code.
pub const CLOSE_REASON_BYTES_MAX: usize = CONTROL_BYTES_MAX - 2;

/// Finds the messages in what one client sends. Owns heap memory only while a fragmented message is open or was just
/// handed out; [`Decoder::give_back`] and the next call of [`Decoder::decode`] give it back.
#[derive(Debug, Default)]
pub struct Decoder {
    state: State,
}

// It lies in every connection, and nearly all connections are idle.
const _: () = assert!(size_of::<Decoder>() <= 16);

#[derive(Debug, Default)]
enum State {
    /// No message is open.
    #[default]
    Between,
    /// Fragments have come, the final one has not.
    Open(Box<Fragments>),
    /// The caller was given a reference to this message and has not called again.
    Delivered(Box<Whole>),
    /// A Close came, or a violation: what follows is nobody's (sections 5.5.1 and 7.1.7).
    Closed,
}

/// What a client says. The bytes lie in the caller's buffer, or in the decoder if they came in fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Valid UTF-8.
    Text(&'a str),
    /// Any bytes.
    Binary(&'a [u8]),
    /// To be answered by a Pong with the same bytes, at most [`CONTROL_BYTES_MAX`].
    Ping(&'a [u8]),
    /// The answer to a Ping, or unasked for; at most [`CONTROL_BYTES_MAX`] bytes.
    Pong(&'a [u8]),
    /// To be answered by a close frame. The last message: whatever comes after it is discarded.
    Close {
        /// `None` if the client gave no code; otherwise one that [`is_close_code`] accepts.
        code: Option<u16>,
        /// Empty if the client gave none.
        reason: &'a str,
    },
}

/// What [`Decoder::decode`] found at the start of the buffer.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// Not a whole frame. Nothing was consumed or changed: call again when there are more bytes.
    Incomplete {
        /// Bytes from the start of the buffer that the frame takes at least, as far as its header tells; always more
        /// than there are. Within the bounds of a message, so that it may be reserved.
        need: usize,
    },
    /// `bytes` are done with but gave no message (a fragment, or leftovers after a Close): remove them, call again.
    Consumed {
        /// At least 1, at most the buffer's length.
        bytes: usize,
    },
    /// A whole message, whose last frame are the first `bytes` of the buffer: use it, remove them, call again.
    Message {
        /// At least 1, at most the buffer's length.
        bytes: usize,
        /// What the client says.
        message: Message<'a>,
    },
}

impl Decoder {
    /// A decoder for a connection's first byte after the handshake.
    #[must_use]
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// Looks at `buffer`, which is everything that was received and not consumed yet. Data messages of more than
    /// `message_bytes_max` bytes are refused as soon as a header declares them.
    ///
    /// A frame is unmasked in place once all of it is there; a message of one frame is neither copied nor allocated.
    ///
    /// # Errors
    /// The rule that the client broke. Close the connection with its [`Violation::close_code`]; the decoder discards
    /// all that the client still sends.
    pub fn decode<'a>(&'a mut self, buffer: &'a mut [u8], message_bytes_max: usize) -> Result<Step<'a>, Violation> {
        // Closed is what every return by `?` leaves behind; all others put a state back.
        let open = match mem::replace(&mut self.state, State::Closed) {
            State::Open(fragments) => Some(fragments),
            State::Between | State::Delivered(_) => None,
            State::Closed if buffer.is_empty() => return Ok(Step::Incomplete { need: 1 }),
            State::Closed => return Ok(Step::Consumed { bytes: buffer.len() }),
        };
        let (header, payload_at, payload_bytes) = match parse_header(buffer)? {
            Parsed::Whole { header, bytes, payload_bytes } => (header, bytes, payload_bytes),
            Parsed::Partial { need } => {
                self.state = resting(open);
                return Ok(Step::Incomplete { need });
            }
        };
        let (mask, payload_bytes) = check(&header, payload_at, payload_bytes, open.as_deref(), message_bytes_max)?;
        let bytes = payload_at.saturating_add(payload_bytes);
        if buffer.len() < bytes {
            self.state = resting(open);
            return Ok(Step::Incomplete { need: bytes });
        }
        let payload = &mut buffer[payload_at..bytes];
        apply_mask(payload, mask);
        let payload: &'a [u8] = payload;

        let message = match header.opcode {
            OpCode::Control(Control::Ping) => {
                self.state = resting(open);
                Message::Ping(payload)
            }
            OpCode::Control(Control::Pong) => {
                self.state = resting(open);
                Message::Pong(payload)
            }
            OpCode::Control(_) => parse_close(payload)?,
            OpCode::Data(kind) if header.is_final && open.is_none() => {
                let message = match kind {
                    Data::Text => Message::Text(str::from_utf8(payload).map_err(|_| Violation::TextNotUtf8)?),
                    _ => Message::Binary(payload),
                };
                self.state = State::Between;
                message
            }
            OpCode::Data(kind) => {
                let mut fragments = open.unwrap_or_else(|| Box::new(Fragments::new(kind == Data::Text)));
                fragments.append(payload)?;
                if !header.is_final {
                    self.state = State::Open(fragments);
                    return Ok(Step::Consumed { bytes });
                }
                self.state = State::Delivered(Box::new(fragments.finish()?));
                let State::Delivered(whole) = &self.state else { unreachable!("set on the line above") };
                whole.message()
            }
        };
        Ok(Step::Message { bytes, message })
    }

    /// Gives back the memory of the message that was handed out last.
    pub fn give_back(&mut self) {
        if matches!(self.state, State::Delivered(_)) {
            self.state = State::Between;
        }
    }

    /// Discards what has come of a message, and all that the client still sends.
    pub fn close(&mut self) {
        self.state = State::Closed;
    }

    /// Memory of the message that is open or was handed out last, if it came in fragments.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        match &self.state {
            State::Between | State::Closed => 0,
            State::Open(fragments) => size_of::<Fragments>() + fragments.bytes.capacity(),
            State::Delivered(whole) => size_of::<Whole>() + whole.capacity(),
        }
    }
}

/// A client broke RFC 6455, or sent more than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Section 5.1: clients mask every frame.
    Unmasked,
    /// Section 5.2: RSV1 to RSV3 are zero where no extension was negotiated.
    ReservedBits,
    /// Section 5.2: opcodes 3 to 7 and 11 to 15 have no meaning.
    ReservedOpcode(u8),
    /// Section 5.2: a length takes the shortest of the three forms.
    LengthNotMinimal,
    /// Section 5.2: the most significant bit of a 64-bit length is zero.
    LengthNegative,
    /// Section 5.4: a continuation frame continues a message.
    NothingToContinue,
    /// Section 5.4: the fragments of one message are not interleaved with another's.
    MessageInsideMessage,
    /// Section 5.5: control frames are not fragmented.
    ControlFragmented,
    /// Section 5.5: control frames carry at most 125 bytes.
    ControlTooLong,
    /// Section 5.5.1: a close body starts with a code of two bytes.
    CloseBodyTooShort,
    /// Section 7.4: codes that mean nothing or must not appear in a frame.
    CloseCode(u16),
    /// Section 5.5.1: the reason is UTF-8.
    CloseReasonNotUtf8,
    /// Section 5.6: text is UTF-8.
    TextNotUtf8,
    /// Section 7.4.1, code 1009: more than we take.
    TooBig {
        /// Bytes that the message has at least, by what its headers declare.
        bytes: u64,
        /// Bytes allowed.
        max: usize,
    },
}

impl Violation {
    /// The code to close the connection with (section 7.4.1).
    #[must_use]
    pub fn close_code(&self) -> u16 {
        match self {
            Violation::TextNotUtf8 | Violation::CloseReasonNotUtf8 => 1007,
            Violation::TooBig { .. } => 1009,
            _ => 1002,
        }
    }

    /// A metrics label: one word in `snake_case`, one per variant.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Violation::Unmasked => "unmasked",
            Violation::ReservedBits => "reserved_bits",
            Violation::ReservedOpcode(_) => "reserved_opcode",
            Violation::LengthNotMinimal => "length_not_minimal",
            Violation::LengthNegative => "length_negative",
            Violation::NothingToContinue => "nothing_to_continue",
            Violation::MessageInsideMessage => "message_inside_message",
            Violation::ControlFragmented => "control_fragmented",
            Violation::ControlTooLong => "control_too_long",
            Violation::CloseBodyTooShort => "close_body_too_short",
            Violation::CloseCode(_) => "close_code",
            Violation::CloseReasonNotUtf8 => "close_reason_not_utf8",
            Violation::TextNotUtf8 => "text_not_utf8",
            Violation::TooBig { .. } => "too_big",
        }
    }
}

/// A sentence that fits into a close frame's reason.
impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Unmasked => f.write_str("the frame is not masked"),
            Violation::ReservedBits => f.write_str("a reserved bit is set, but no extension was negotiated"),
            Violation::ReservedOpcode(opcode) => write!(f, "opcode {opcode} is reserved"),
            Violation::LengthNotMinimal => f.write_str("the length is not in its shortest form"),
            Violation::LengthNegative => f.write_str("the most significant bit of the length is set"),
            Violation::NothingToContinue => f.write_str("a continuation frame came with no message to continue"),
            Violation::MessageInsideMessage => {
                f.write_str("a new message began before the last fragment of the one before")
            }
            Violation::ControlFragmented => f.write_str("a control frame is fragmented"),
            Violation::ControlTooLong => write!(f, "a control frame has more than {CONTROL_BYTES_MAX} bytes"),
            Violation::CloseBodyTooShort => f.write_str("a close frame has a body of one byte"),
            Violation::CloseCode(code) => write!(f, "close code {code} must not be sent"),
            Violation::CloseReasonNotUtf8 => f.write_str("the reason of a close frame is not UTF-8"),
            Violation::TextNotUtf8 => f.write_str("a text message is not UTF-8"),
            Violation::TooBig { bytes, max } => {
                write!(f, "the message has at least {bytes} bytes; at most {max} are allowed")
            }
        }
    }
}

impl std::error::Error for Violation {}

/// What a frame is (section 5.2), without the reserved opcodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A further fragment of the message that is open.
    Continuation,
    /// A text message, or its first fragment.
    Text,
    /// A binary message, or its first fragment.
    Binary,
    /// A close frame.
    Close,
    /// A Ping.
    Ping,
    /// A Pong.
    Pong,
}

impl From<Kind> for OpCode {
    fn from(kind: Kind) -> OpCode {
        match kind {
            Kind::Continuation => OpCode::Data(Data::Continue),
            Kind::Text => OpCode::Data(Data::Text),
            Kind::Binary => OpCode::Data(Data::Binary),
            Kind::Close => OpCode::Control(Control::Close),
            Kind::Ping => OpCode::Control(Control::Ping),
            Kind::Pong => OpCode::Control(Control::Pong),
        }
    }
}

/// Appends the header of a server's unfragmented frame; `payload_bytes` bytes of payload are to follow it.
///
/// # Panics
/// If a control frame is to carry more than [`CONTROL_BYTES_MAX`].
pub fn write_header(out: &mut Vec<u8>, kind: Kind, payload_bytes: usize) {
    format_header(out, true, kind, None, payload_bytes);
}

/// A server's close frame, at most 127 bytes. `reason` is cut to [`CLOSE_REASON_BYTES_MAX`] at the end of a character.
///
/// # Panics
/// If `code` must not be sent (see [`is_close_code`]).
#[must_use]
pub fn close_frame(code: u16, reason: &str) -> Vec<u8> {
    assert!(is_close_code(code), "close code {code}");
    let reason = &reason[..reason.floor_char_boundary(CLOSE_REASON_BYTES_MAX)];
    let payload_bytes = 2 + reason.len();
    let mut out = Vec::with_capacity(2 + payload_bytes);
    write_header(&mut out, Kind::Close, payload_bytes);
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
    out
}

/// Takes a server's frames apart, as [`write_header`] begins them: each one's kind and payload.
///
/// # Panics
/// If `frames` ends inside a frame.
pub fn unmasked_messages(frames: &[u8]) -> impl Iterator<Item = (Kind, &[u8])> {
    let mut rest = frames;
    std::iter::from_fn(move || {
        let [first, length, after @ ..] = rest else {
            assert!(rest.is_empty(), "a frame of one byte");
            return None;
        };
        let kind = match first {
            0x81 => Kind::Text,
            0x82 => Kind::Binary,
            0x88 => Kind::Close,
            0x89 => Kind::Ping,
            0x8a => Kind::Pong,
            other => unreachable!("no frame of ours begins with {other:#x}"),
        };
        let (bytes, header) = match length {
            126 => (u64::from(u16::from_be_bytes([after[0], after[1]])), 2),
            127 => (u64::from_be_bytes(after[..8].try_into().expect("eight bytes")), 8),
            short => (u64::from(*short), 0),
        };
        let (payload, behind) = after[header..].split_at(bytes as usize);
        rest = behind;
        Some((kind, payload))
    })
}

/// Appends a client's frame: header, `mask`, masked `payload`.
///
/// # Panics
/// If a control frame is to carry more than [`CONTROL_BYTES_MAX`] or to be fragmented.
pub fn encode_client_frame(out: &mut Vec<u8>, fin: bool, kind: Kind, mask: [u8; 4], payload: &[u8]) {
    format_header(out, fin, kind, Some(mask), payload.len());
    let payload_at = out.len();
    out.extend_from_slice(payload);
    apply_mask(&mut out[payload_at..], mask);
}

/// True for codes that a close frame may carry: those that sections 7.4.1 and IANA's registry define for the wire, and
/// the ranges of libraries and applications (7.4.2).
#[must_use]
pub fn is_close_code(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// The fragments so far of a message that is open.
#[derive(Debug)]
struct Fragments {
    text: bool,
    bytes: Vec<u8>,
    /// Text only: these first bytes are valid UTF-8, and at most three more follow, the start of a code point.
    checked: usize,
}

impl Fragments {
    fn new(text: bool) -> Fragments {
        Fragments { text, bytes: Vec::new(), checked: 0 }
    }

    fn append(&mut self, payload: &[u8]) -> Result<(), Violation> {
        self.bytes.extend_from_slice(payload);
        if self.text {
            self.checked += match str::from_utf8(&self.bytes[self.checked..]) {
                Ok(text) => text.len(),
                Err(error) if error.error_len().is_none() => error.valid_up_to(),
                Err(_) => return Err(Violation::TextNotUtf8),
            };
        }
        Ok(())
    }

    fn finish(self) -> Result<Whole, Violation> {
        if self.text {
            String::from_utf8(self.bytes).map(Whole::Text).map_err(|_| Violation::TextNotUtf8)
        } else {
            Ok(Whole::Binary(self.bytes))
        }
    }
}

/// A message put together from fragments.
#[derive(Debug)]
enum Whole {
    Text(String),
    Binary(Vec<u8>),
}

impl Whole {
    fn message(&self) -> Message<'_> {
        match self {
            Whole::Text(text) => Message::Text(text),
            Whole::Binary(bytes) => Message::Binary(bytes),
        }
    }

    fn capacity(&self) -> usize {
        match self {
            Whole::Text(text) => text.capacity(),
            Whole::Binary(bytes) => bytes.capacity(),
        }
    }
}

fn resting(open: Option<Box<Fragments>>) -> State {
    open.map_or(State::Between, State::Open)
}

enum Parsed {
    /// `need` bytes hold the header at least.
    Partial { need: usize },
    /// `bytes` is the header's own length.
    Whole { header: FrameHeader, bytes: usize, payload_bytes: u64 },
}

fn parse_header(buffer: &[u8]) -> Result<Parsed, Violation> {
    let [first, second, ..] = *buffer else { return Ok(Parsed::Partial { need: 2 }) };
    let mut cursor = Cursor::new(buffer);
    match FrameHeader::parse(&mut cursor) {
        Ok(Some((header, payload_bytes))) => {
            // At most 14, the longest header.
            let bytes = cursor.position() as usize;
            Ok(Parsed::Whole { header, bytes, payload_bytes })
        }
        Ok(None) => {
            let length_bytes = match second & 0x7f {
                126 => 2,
                127 => 8,
                _ => 0,
            };
            let mask_bytes = if second & 0x80 == 0 { 0 } else { 4 };
            Ok(Parsed::Partial { need: 2 + length_bytes + mask_bytes })
        }
        // Memory reads without IO errors, so the opcode is all that can be wrong.
        Err(_) => Err(Violation::ReservedOpcode(first & 0x0f)),
    }
}

/// The rules that a header can break; gives the mask and the payload's length if it breaks none.
fn check(
    header: &FrameHeader,
    header_bytes: usize,
    payload_bytes: u64,
    open: Option<&Fragments>,
    message_bytes_max: usize,
) -> Result<([u8; 4], usize), Violation> {
    if header.rsv1 || header.rsv2 || header.rsv3 {
        return Err(Violation::ReservedBits);
    }
    let Some(mask) = header.mask else { return Err(Violation::Unmasked) };
    if payload_bytes >> 63 != 0 {
        return Err(Violation::LengthNegative);
    }
    if header_bytes != header.len(payload_bytes) {
        return Err(Violation::LengthNotMinimal);
    }
    match (header.opcode, open) {
        (OpCode::Control(_), _) if !header.is_final => return Err(Violation::ControlFragmented),
        (OpCode::Control(_), _) if payload_bytes > CONTROL_BYTES_MAX as u64 => return Err(Violation::ControlTooLong),
        (OpCode::Data(Data::Continue), None) => return Err(Violation::NothingToContinue),
        (OpCode::Data(Data::Text | Data::Binary), Some(_)) => return Err(Violation::MessageInsideMessage),
        _ => {}
    }
    let bytes = payload_bytes.saturating_add(open.map_or(0, |fragments| fragments.bytes.len() as u64));
    if matches!(header.opcode, OpCode::Data(_)) && bytes > message_bytes_max as u64 {
        return Err(Violation::TooBig { bytes, max: message_bytes_max });
    }
    // Not above `message_bytes_max` or CONTROL_BYTES_MAX, so it fits.
    Ok((mask, payload_bytes as usize))
}

fn parse_close(body: &[u8]) -> Result<Message<'_>, Violation> {
    match body {
        [] => Ok(Message::Close { code: None, reason: "" }),
        [_] => Err(Violation::CloseBodyTooShort),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !is_close_code(code) {
                return Err(Violation::CloseCode(code));
            }
            let reason = str::from_utf8(reason).map_err(|_| Violation::CloseReasonNotUtf8)?;
            Ok(Message::Close { code: Some(code), reason })
        }
    }
}

/// Masks or unmasks (section 5.3), eight bytes at a time: two rounds of the mask are one word.
fn apply_mask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for eight in words {
        *eight = (u64::from_ne_bytes(*eight) ^ word).to_ne_bytes();
    }
    for (byte, m) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= m;
    }
}

fn format_header(out: &mut Vec<u8>, fin: bool, kind: Kind, mask: Option<[u8; 4]>, payload_bytes: usize) {
    let opcode = OpCode::from(kind);
    if matches!(opcode, OpCode::Control(_)) {
        assert!(fin && payload_bytes <= CONTROL_BYTES_MAX, "{kind:?} of {payload_bytes} bytes, fin {fin}");
    }
    let header = FrameHeader { is_final: fin, opcode, mask, ..FrameHeader::default() };
    header.format(payload_bytes as u64, out).expect("a Vec takes any bytes");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    const MAX: usize = 1 << 20;

    #[derive(Clone, Debug, PartialEq)]
    enum Said {
        Text(String),
        Binary(Vec<u8>),
        Ping(Vec<u8>),
        Pong(Vec<u8>),
        Close(Option<u16>, String),
    }

    impl From<Message<'_>> for Said {
        fn from(message: Message<'_>) -> Said {
            match message {
                Message::Text(text) => Said::Text(text.into()),
                Message::Binary(bytes) => Said::Binary(bytes.into()),
                Message::Ping(bytes) => Said::Ping(bytes.into()),
                Message::Pong(bytes) => Said::Pong(bytes.into()),
                Message::Close { code, reason } => Said::Close(code, reason.into()),
            }
        }
    }

    fn text(text: &str) -> Said {
        Said::Text(text.into())
    }

    /// A driver: appends each piece to its buffer and decodes until nothing whole is left.
    fn drive<'p>(pieces: impl IntoIterator<Item = &'p [u8]>, max: usize) -> (Vec<Said>, Option<Violation>) {
        let (mut decoder, mut buffer, mut said) = (Decoder::new(), Vec::new(), Vec::new());
        for piece in pieces {
            buffer.extend_from_slice(piece);
            loop {
                let (before, len) = (buffer.clone(), buffer.len());
                let done = match decoder.decode(&mut buffer, max) {
                    Ok(Step::Incomplete { need }) => {
                        assert!(need > len, "need {need} of {len}");
                        assert_eq!(buffer, before, "an incomplete frame is left alone");
                        break;
                    }
                    Ok(Step::Consumed { bytes }) => bytes,
                    Ok(Step::Message { bytes, message }) => {
                        said.push(message.into());
                        bytes
                    }
                    Err(violation) => return (said, Some(violation)),
                };
                assert!((1..=len).contains(&done), "{done} of {len}");
                buffer.drain(..done);
            }
        }
        (said, None)
    }

    /// Whole, byte by byte (unless it is long), and in pieces of 997 bytes.
    fn drive_all_ways(name: &str, bytes: &[u8], max: usize) -> (Vec<Said>, Option<Violation>) {
        let whole = drive([bytes], max);
        assert_eq!(drive(bytes.chunks(997), max), whole, "{name}, in pieces of 997");
        if bytes.len() < 3000 {
            assert_eq!(drive(bytes.chunks(1), max), whole, "{name}, byte by byte");
        }
        whole
    }

    /// A client's frame, masked.
    fn frame(fin: bool, kind: Kind, payload: impl AsRef<[u8]>) -> Vec<u8> {
        let mut out = Vec::new();
        encode_client_frame(&mut out, fin, kind, MASK, payload.as_ref());
        out
    }

    fn whole(kind: Kind, payload: impl AsRef<[u8]>) -> Vec<u8> {
        frame(true, kind, payload)
    }

    fn part(kind: Kind, payload: impl AsRef<[u8]>) -> Vec<u8> {
        frame(false, kind, payload)
    }

    /// A frame that no encoder would write: any first byte, and a zero mask.
    fn raw(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![first];
        match payload.len() {
            n @ 0..=125 => out.push(0x80 | n as u8),
            n => {
                out.push(0xfe);
                out.extend_from_slice(&(n as u16).to_be_bytes());
            }
        }
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(payload);
        out
    }

    fn close(code: u16, reason: impl AsRef<[u8]>) -> Vec<u8> {
        whole(Kind::Close, [&code.to_be_bytes(), reason.as_ref()].concat())
    }

    /// `bytes` as one message of one-byte fragments.
    fn octets(kind: Kind, bytes: &[u8]) -> Vec<u8> {
        let last = bytes.len() - 1;
        let one = |(i, b): (usize, &u8)| frame(i == last, if i == 0 { kind } else { Kind::Continuation }, [*b]);
        bytes.iter().enumerate().flat_map(one).collect()
    }

    /// The words of a table of byte sequences.
    fn unhex(table: &str) -> impl Iterator<Item = Vec<u8>> {
        table.split(' ').map(|word| data_encoding::HEXLOWER.decode(word.as_bytes()).unwrap())
    }

    /// Name, what the client sends, what is understood before the end or the violation.
    type Row = (&'static str, Vec<u8>, Vec<Said>, Option<Violation>);

    fn check_rows(rows: Vec<Row>) {
        for (name, bytes, said, violation) in rows {
            assert_eq!(drive_all_ways(name, &bytes, MAX), (said, violation), "{name}");
        }
    }

    #[test]
    fn a_decoder_holds_fragments_until_they_are_given_back() {
        let frame = |fin, kind, bytes: usize| {
            let mut out = Vec::new();
            encode_client_frame(&mut out, fin, kind, [1, 2, 3, 4], &vec![b'x'; bytes]);
            out
        };
        let mut decoder = Decoder::new();
        let feed = |decoder: &mut Decoder, mut bytes: Vec<u8>| {
            let step = decoder.decode(&mut bytes, 10_000).map(|step| matches!(step, Step::Message { .. }));
            (step, decoder.held_bytes() >= 1000)
        };
        assert_eq!(feed(&mut decoder, frame(true, Kind::Text, 1000)), (Ok(true), false), "whole: nothing is kept");
        assert_eq!(feed(&mut decoder, frame(false, Kind::Text, 1000)), (Ok(false), true));
        decoder.give_back();
        assert_eq!(feed(&mut decoder, frame(true, Kind::Ping, 1)), (Ok(true), true), "the message is still open");
        assert_eq!(feed(&mut decoder, frame(true, Kind::Continuation, 1)), (Ok(true), true), "handed out");
        decoder.give_back();
        assert_eq!(decoder.held_bytes(), 0);
        assert_eq!(feed(&mut decoder, frame(false, Kind::Binary, 1000)), (Ok(false), true));
        decoder.close();
        assert_eq!(decoder.held_bytes(), 0);
        assert_eq!(feed(&mut decoder, frame(true, Kind::Text, 1)), (Ok(false), false), "nobody listens");
    }

    #[test]
    fn section_5_7_examples() {
        let hello: &[u8] = &[0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        let pong: &[u8] = &[0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(drive_all_ways("a masked text", hello, MAX), (vec![text("Hello")], None));
        assert_eq!(drive_all_ways("a masked pong", pong, MAX), (vec![Said::Pong(b"Hello".into())], None));
        assert_eq!(whole(Kind::Text, "Hello"), hello);
        assert_eq!(whole(Kind::Pong, "Hello"), pong);

        let rows: [(Kind, usize, &[u8]); 10] = [
            (Kind::Text, 5, &[0x81, 0x05]),
            (Kind::Ping, 5, &[0x89, 0x05]),
            (Kind::Pong, 125, &[0x8a, 0x7d]),
            (Kind::Close, 0, &[0x88, 0x00]),
            (Kind::Continuation, 0, &[0x80, 0x00]),
            (Kind::Binary, 125, &[0x82, 0x7d]),
            (Kind::Binary, 126, &[0x82, 0x7e, 0x00, 0x7e]),
            (Kind::Binary, 256, &[0x82, 0x7e, 0x01, 0x00]),
            (Kind::Binary, 65535, &[0x82, 0x7e, 0xff, 0xff]),
            (Kind::Binary, 65536, &[0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]),
        ];
        for (kind, payload_bytes, header) in rows {
            let mut out = Vec::new();
            write_header(&mut out, kind, payload_bytes);
            assert_eq!(out, header, "{kind:?} of {payload_bytes}");
        }
    }

    #[test]
    fn rules_in_the_order_of_the_rfc() {
        use Kind::*;
        use Violation::*;
        let no = |name, bytes: &[u8], violation| (name, bytes.to_vec(), vec![], Some(violation));
        check_rows(vec![
            no("5.1 unmasked", &[0x81, 0x02, b'h', b'i'], Unmasked),
            no("5.1 unmasked and empty", &[0x81, 0x00], Unmasked),
            no("5.1 unmasked control", &[0x89, 0x00], Unmasked),
            no("5.2 RSV1", &raw(0xc1, b"x"), ReservedBits),
            no("5.2 RSV2", &raw(0xa1, b"x"), ReservedBits),
            no("5.2 RSV3", &raw(0x91, b"x"), ReservedBits),
            no("5.2 RSV1 on a control frame", &raw(0xc9, b""), ReservedBits),
            no("5.2 opcode 3", &raw(0x83, b""), ReservedOpcode(3)),
            no("5.2 opcode 15", &raw(0x8f, b""), ReservedOpcode(15)),
            no("5.2 16-bit length of 125", &[0x82, 0xfe, 0, 125, 0, 0, 0, 0], LengthNotMinimal),
            no("5.2 16-bit length of 0", &[0x82, 0xfe, 0, 0, 0, 0, 0, 0], LengthNotMinimal),
            no("5.2 64-bit length of 65535", &[0x82, 0xff, 0, 0, 0, 0, 0, 0, 255, 255, 0, 0, 0, 0], LengthNotMinimal),
            no("5.2 16-bit length of a Ping of 5", &[0x89, 0xfe, 0, 5, 0, 0, 0, 0], LengthNotMinimal),
            no(
                "5.2 64-bit length with its top bit",
                &[0x82, 0xff, 128, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                LengthNegative,
            ),
            no("5.4 continuation without start", &whole(Continuation, "x"), NothingToContinue),
            no("5.4 continuation without start or end", &part(Continuation, ""), NothingToContinue),
            no("5.4 text inside text", &[part(Text, "a"), whole(Text, "b")].concat(), MessageInsideMessage),
            no("5.4 fragment inside binary", &[part(Binary, "a"), part(Text, "b")].concat(), MessageInsideMessage),
            no("5.5 fragmented Ping", &raw(0x09, b""), ControlFragmented),
            no("5.5 fragmented Close", &raw(0x08, b""), ControlFragmented),
            no("5.5 Ping of 126", &raw(0x89, &[0; 126]), ControlTooLong),
            no("5.5 Close of 126", &raw(0x88, &[3; 126]), ControlTooLong),
            no("5.5.1 body of one byte", &whole(Close, [3]), CloseBodyTooShort),
            no("5.5.1 reason not UTF-8", &close(1000, [0xff]), CloseReasonNotUtf8),
            no("5.6 text not UTF-8", &whole(Text, [b'a', 0xff]), TextNotUtf8),
            no("5.6 text ends inside a code point", &whole(Text, [0xce]), TextNotUtf8),
            (
                "5.4 empty fragments",
                [part(Text, ""), part(Continuation, ""), whole(Continuation, "")].concat(),
                vec![text("")],
                None,
            ),
            (
                "5.4 a message after a fragmented one",
                [part(Binary, [1]), whole(Continuation, [2]), whole(Text, "b")].concat(),
                vec![Said::Binary(vec![1, 2]), text("b")],
                None,
            ),
            (
                "5.4 control between fragments",
                [part(Text, "a"), whole(Ping, "p"), whole(Pong, "q"), whole(Continuation, "b")].concat(),
                vec![Said::Ping(b"p".into()), Said::Pong(b"q".into()), text("ab")],
                None,
            ),
            ("5.5.1 empty body", whole(Close, ""), vec![Said::Close(None, String::new())], None),
            ("5.6 code point over three fragments", octets(Text, "€".as_bytes()), vec![text("€")], None),
            ("5.6 binary is any bytes", octets(Binary, &[0xff, 0xce]), vec![Said::Binary(vec![0xff, 0xce])], None),
        ]);
    }

    #[test]
    fn autobahn_1_framing() {
        for n in [0, 1, 125, 126, 127, 128, 65535, 65536, 65537] {
            let stars = "*".repeat(n);
            check_rows(vec![
                ("1.1 text", whole(Kind::Text, &stars), vec![Said::Text(stars.clone())], None),
                ("1.2 binary", whole(Kind::Binary, &stars), vec![Said::Binary(stars.into())], None),
            ]);
        }
    }

    #[test]
    fn autobahn_2_pings_and_pongs() {
        use Kind::*;
        let ping = |bytes: &[u8]| Said::Ping(bytes.to_vec());
        let pong = |bytes: &[u8]| Said::Pong(bytes.to_vec());
        let ten: Vec<u8> = (0..10).flat_map(|i| whole(Ping, [i])).collect();
        let binary = [0x00, 0xff, 0xfe, 0xfd, 0xfc, 0xfb, 0x00, 0xff];
        check_rows(vec![
            ("2.1", whole(Ping, ""), vec![ping(b"")], None),
            ("2.2", whole(Ping, "Hello, world!"), vec![ping(b"Hello, world!")], None),
            ("2.3", whole(Ping, binary), vec![ping(&binary)], None),
            ("2.4, 2.6", whole(Ping, [0xfe; 125]), vec![ping(&[0xfe; 125])], None),
            ("2.5", raw(0x89, &[0xfe; 126]), vec![], Some(Violation::ControlTooLong)),
            ("2.7", whole(Pong, ""), vec![pong(b"")], None),
            ("2.8", whole(Pong, "unsolicited"), vec![pong(b"unsolicited")], None),
            ("2.9", [whole(Pong, "u"), whole(Ping, "p")].concat(), vec![pong(b"u"), ping(b"p")], None),
            ("2.10, 2.11", ten, (0..10).map(|i| ping(&[i])).collect(), None),
        ]);
    }

    #[test]
    fn autobahn_3_reserved_bits() {
        let rows = [(1, 1), (2, 1), (3, 1), (4, 1), (5, 2), (6, 8), (7, 9)];
        for (bits, opcode) in rows {
            let first = 0x80 | bits << 4 | opcode;
            let bytes = [whole(Kind::Text, "fine"), raw(first, b"bad"), whole(Kind::Ping, "")].concat();
            check_rows(vec![("3.1 to 3.7", bytes, vec![text("fine")], Some(Violation::ReservedBits))]);
        }
    }

    #[test]
    fn autobahn_4_opcodes() {
        for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
            let bytes = [whole(Kind::Text, "fine"), raw(0x80 | opcode, b"bad"), whole(Kind::Ping, "")].concat();
            check_rows(vec![("4.1, 4.2", bytes, vec![text("fine")], Some(Violation::ReservedOpcode(opcode)))]);
        }
    }

    #[test]
    fn autobahn_5_fragmentation() {
        use Kind::*;
        use Violation::*;
        let ping = || Said::Ping(b"ping".into());
        let two = [part(Text, "one"), whole(Continuation, "two")].concat();
        let pinged = [part(Text, "one"), whole(Ping, "ping"), whole(Continuation, "two")].concat();
        let after = |first: Vec<u8>| [first, whole(Text, "x")].concat();
        let five = [
            part(Text, "1"),
            part(Continuation, "2"),
            whole(Ping, "ping"),
            part(Continuation, "3"),
            part(Continuation, "4"),
            whole(Ping, "ping"),
            whole(Continuation, "5"),
        ];
        check_rows(vec![
            ("5.1", [raw(0x09, b"a"), whole(Continuation, "b")].concat(), vec![], Some(ControlFragmented)),
            ("5.2", [raw(0x0a, b"a"), whole(Continuation, "b")].concat(), vec![], Some(ControlFragmented)),
            ("5.3 to 5.5", two.clone(), vec![text("onetwo")], None),
            ("5.6 to 5.8", pinged, vec![ping(), text("onetwo")], None),
            ("5.9 to 5.11", after(whole(Continuation, "x")), vec![], Some(NothingToContinue)),
            ("5.12 to 5.14", after(part(Continuation, "x")), vec![], Some(NothingToContinue)),
            ("5.15", after([two, part(Continuation, "x")].concat()), vec![text("onetwo")], Some(NothingToContinue)),
            ("5.16", [part(Continuation, "x"), part(Text, "y")].concat(), vec![], Some(NothingToContinue)),
            ("5.17", [whole(Continuation, "x"), part(Text, "y")].concat(), vec![], Some(NothingToContinue)),
            ("5.18", [part(Text, "x"), whole(Text, "y")].concat(), vec![], Some(MessageInsideMessage)),
            ("5.19, 5.20", five.concat(), vec![ping(), ping(), text("12345")], None),
        ]);
    }

    #[test]
    fn autobahn_6_utf8() {
        use Kind::*;
        let kosme = "κόσμε";
        let hello = "Hello-µ@ßöäüàá-UTF-8!!";
        let (head, tail) = hello.as_bytes().split_at(7);
        check_rows(vec![
            ("6.1.1", whole(Text, ""), vec![text("")], None),
            ("6.1.2", [part(Text, ""), part(Continuation, ""), whole(Continuation, "")].concat(), vec![text("")], None),
            (
                "6.1.3",
                [part(Text, ""), part(Continuation, "mid"), whole(Continuation, "")].concat(),
                vec![text("mid")],
                None,
            ),
            ("6.2.1", whole(Text, hello), vec![text(hello)], None),
            ("6.2.2, split inside µ", [part(Text, head), whole(Continuation, tail)].concat(), vec![text(hello)], None),
            ("6.2.3", octets(Text, hello.as_bytes()), vec![text(hello)], None),
            ("6.2.4", octets(Text, kosme.as_bytes()), vec![text(kosme)], None),
            // Refused with the second fragment: the third never has to come.
            (
                "6.4.1",
                [part(Text, kosme), part(Continuation, [0xf4, 0x90, 0x80, 0x80])].concat(),
                vec![],
                Some(Violation::TextNotUtf8),
            ),
            (
                "6.4.2",
                [part(Text, [0xce, 0xba, 0xf4]), part(Continuation, [0x90])].concat(),
                vec![],
                Some(Violation::TextNotUtf8),
            ),
        ]);
        let valid = "00 7f c280 dfbf e0a080 e18080 ed9fbf ee8080 efbfbd efbfbe efbfbf f0908080 f09fbfbf \
                    f3bfbfbf f48fbfbe f48fbfbf";
        for bytes in unhex(valid) {
            let said = vec![text(str::from_utf8(&bytes).unwrap())];
            check_rows(vec![
                ("6.5 to 6.7, 6.9, 6.11, 6.22, 6.23", whole(Text, &bytes), said.clone(), None),
                ("the same in octets", octets(Text, &bytes), said, None),
            ]);
        }
        let invalid = "cebae1bdb9cf83cebcceb5eda080656469746564 80 bf 80bf80 c020c120 e020ef20 f020f720 f820 \
                      fc20 fe ff c0 e080 f08080 c0af e080af f08080af c1bf e09fbf eda080 edbfbf eda080edb080 \
                      f4908080 f888808080";
        for bytes in unhex(invalid) {
            check_rows(vec![
                ("6.3, 6.8, 6.10, 6.12 to 6.21", whole(Text, &bytes), vec![], Some(Violation::TextNotUtf8)),
                ("the same in octets", octets(Text, &bytes), vec![], Some(Violation::TextNotUtf8)),
            ]);
        }
    }

    #[test]
    fn autobahn_7_close_handling() {
        use Kind::*;
        let bye = |code, reason: &str| Said::Close(Some(code), reason.into());
        let long = "*".repeat(123);
        let big = "a".repeat(256 * 1024);
        check_rows(vec![
            ("7.1.1", [whole(Text, "x"), close(1000, "")].concat(), vec![text("x"), bye(1000, "")], None),
            ("7.1.2", [close(1000, ""), close(1000, "")].concat(), vec![bye(1000, "")], None),
            ("7.1.3", [close(1000, ""), whole(Ping, "")].concat(), vec![bye(1000, "")], None),
            ("7.1.4", [close(1000, ""), whole(Text, "x")].concat(), vec![bye(1000, "")], None),
            ("7.1.5", [part(Text, "x"), close(1000, ""), whole(Continuation, "y")].concat(), vec![bye(1000, "")], None),
            (
                "7.1.6",
                [whole(Text, &big), close(1000, ""), whole(Ping, "")].concat(),
                vec![Said::Text(big), bye(1000, "")],
                None,
            ),
            ("7.3.1", whole(Close, ""), vec![Said::Close(None, String::new())], None),
            ("7.3.2", whole(Close, "a"), vec![], Some(Violation::CloseBodyTooShort)),
            ("7.3.3", close(1000, ""), vec![bye(1000, "")], None),
            ("7.3.4", close(1000, "Hello World!"), vec![bye(1000, "Hello World!")], None),
            ("7.3.5", close(1000, &long), vec![bye(1000, &long)], None),
            (
                "7.3.6",
                raw(0x88, &[b"\x03\xe8", [b'*'; 124].as_slice()].concat()),
                vec![],
                Some(Violation::ControlTooLong),
            ),
            (
                "7.5.1",
                close(1000, b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80"),
                vec![],
                Some(Violation::CloseReasonNotUtf8),
            ),
        ]);
        let valid = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999];
        for code in valid {
            check_rows(vec![("7.7", close(code, ""), vec![bye(code, "")], None)]);
        }
        let invalid = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535];
        for code in invalid {
            check_rows(vec![("7.9, 7.13", close(code, "reason"), vec![], Some(Violation::CloseCode(code)))]);
        }
    }

    #[test]
    fn what_follows_a_violation_is_discarded() {
        let mut decoder = Decoder::new();
        assert_eq!(decoder.decode(&mut raw(0x83, b""), MAX), Err(Violation::ReservedOpcode(3)));
        assert_eq!(decoder.decode(&mut whole(Kind::Text, "late"), MAX), Ok(Step::Consumed { bytes: 10 }));
        assert_eq!(decoder.decode(&mut [], MAX), Ok(Step::Incomplete { need: 1 }));
    }

    #[test]
    fn a_message_that_is_too_big_is_refused_at_its_header() {
        let refused = |bytes, max| Err(Violation::TooBig { bytes, max });
        let header = |payload| whole(Kind::Binary, vec![0; payload]);
        assert!(matches!(Decoder::new().decode(&mut header(125)[..6], 125), Ok(Step::Incomplete { need: 131 })));
        assert_eq!(Decoder::new().decode(&mut header(126)[..8], 125), refused(126, 125));
        let mut huge = [0x82, 0xff, 0x7f, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0];
        assert_eq!(Decoder::new().decode(&mut huge, 125), refused(u64::MAX >> 1, 125));
        let need = (u64::MAX >> 1) as usize + 14;
        assert_eq!(Decoder::new().decode(&mut huge, usize::MAX), Ok(Step::Incomplete { need }));

        // The sum of the fragments counts; a Ping between them does not.
        let mut decoder = Decoder::new();
        assert_eq!(decoder.decode(&mut part(Kind::Text, [b'a'; 80]), 100), Ok(Step::Consumed { bytes: 86 }));
        assert!(matches!(decoder.decode(&mut whole(Kind::Ping, [0; 125]), 100), Ok(Step::Message { .. })));
        assert_eq!(decoder.decode(&mut part(Kind::Continuation, [b'a'; 20]), 100), Ok(Step::Consumed { bytes: 26 }));
        assert_eq!(decoder.decode(&mut part(Kind::Continuation, "a")[..6], 100), refused(101, 100));
    }

    #[test]
    fn need_grows_with_what_the_header_tells() {
        let rows: [(&[u8], usize); 8] = [
            (&[], 2),
            (&[0x81], 2),
            (&[0x81, 0x85], 6),
            (&[0x81, 0x85, 1, 2, 3, 4], 11),
            (&[0x81, 0xfe], 8),
            (&[0x81, 0xfe, 1], 8),
            (&[0x81, 0xfe, 1, 0, 1, 2, 3, 4], 264),
            (&[0x81, 0xff, 0, 0], 14),
        ];
        for (bytes, need) in rows {
            let step = Decoder::new().decode(&mut bytes.to_vec(), MAX).map(|step| format!("{step:?}"));
            assert_eq!(step, Ok(format!("Incomplete {{ need: {need} }}")), "{bytes:x?}");
        }
    }

    #[test]
    fn a_message_of_one_frame_stays_in_the_buffer() {
        let mut buffer = whole(Kind::Text, "in place");
        let range = buffer.as_ptr_range();
        let mut decoder = Decoder::new();
        let Ok(Step::Message { message: Message::Text(text), .. }) = decoder.decode(&mut buffer, MAX) else { panic!() };
        assert!(range.contains(&text.as_ptr()), "copied");
        assert!(matches!(decoder.state, State::Between));
    }

    #[test]
    fn a_fragmented_message_is_given_back_by_the_next_call() {
        let mut decoder = Decoder::new();
        assert_eq!(decoder.decode(&mut part(Kind::Text, "a"), MAX), Ok(Step::Consumed { bytes: 7 }));
        assert!(matches!(decoder.state, State::Open(_)));
        assert!(matches!(decoder.decode(&mut whole(Kind::Continuation, "b"), MAX), Ok(Step::Message { .. })));
        assert!(matches!(decoder.state, State::Delivered(_)));
        assert_eq!(decoder.decode(&mut [], MAX), Ok(Step::Incomplete { need: 2 }));
        assert!(matches!(decoder.state, State::Between));
    }

    #[test]
    fn close_frames_fit_into_a_control_frame() {
        assert_eq!(close_frame(1000, ""), [0x88, 2, 0x03, 0xe8]);
        assert_eq!(close_frame(4001, "bye"), [0x88, 5, 0x0f, 0xa1, b'b', b'y', b'e']);
        assert_eq!(close_frame(1000, &"a".repeat(124)).len(), 2 + 125);
        let cut = close_frame(1000, &"€".repeat(60));
        assert_eq!(str::from_utf8(&cut[4..]), Ok("€".repeat(41).as_str()));
        let cut = close_frame(1000, &format!("a{}", "€".repeat(60)));
        assert_eq!(
            str::from_utf8(&cut[4..]),
            Ok(format!("a{}", "€".repeat(40)).as_str()),
            "123 lies inside a character"
        );
    }

    #[test]
    fn each_violation_has_a_sentence_a_label_and_a_code() {
        use Violation::*;
        let all = [
            (Unmasked, 1002),
            (ReservedBits, 1002),
            (ReservedOpcode(15), 1002),
            (LengthNotMinimal, 1002),
            (LengthNegative, 1002),
            (NothingToContinue, 1002),
            (MessageInsideMessage, 1002),
            (ControlFragmented, 1002),
            (ControlTooLong, 1002),
            (CloseBodyTooShort, 1002),
            (CloseCode(65535), 1002),
            (CloseReasonNotUtf8, 1007),
            (TextNotUtf8, 1007),
            (TooBig { bytes: u64::MAX, max: usize::MAX }, 1009),
        ];
        for (violation, code) in all {
            let sentence = violation.to_string();
            assert_eq!(violation.close_code(), code, "{sentence}");
            assert!(sentence.len() <= CLOSE_REASON_BYTES_MAX, "{sentence}");
            assert!(violation.label().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'));
        }
        let labels: std::collections::HashSet<_> = all.iter().map(|(violation, _)| violation.label()).collect();
        assert_eq!(labels.len(), all.len());
    }

    /// One data message: cut at the points of `cuts`, with a control frame after each fragment but the last.
    #[derive(Clone, Debug)]
    struct Sent {
        data: Said,
        cuts: Vec<prop::sample::Index>,
        controls: Vec<(bool, Vec<u8>)>,
        mask: [u8; 4],
    }

    impl Sent {
        fn encode(&self, out: &mut Vec<u8>, said: &mut Vec<Said>) {
            let (first, bytes) = match &self.data {
                Said::Text(text) => (Kind::Text, text.as_bytes()),
                Said::Binary(bytes) => (Kind::Binary, bytes.as_slice()),
                other => unreachable!("{other:?}"),
            };
            let mut cuts: Vec<usize> = self.cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            cuts.push(bytes.len());
            let last = cuts.len() - 1;
            let (mut start, mut controls) = (0, self.controls.iter());
            for (i, &end) in cuts.iter().enumerate() {
                let kind = if i == 0 { first } else { Kind::Continuation };
                encode_client_frame(out, i == last, kind, self.mask, &bytes[start..end]);
                start = end;
                if i < last
                    && let Some((ping, bytes)) = controls.next()
                {
                    let kind = if *ping { Kind::Ping } else { Kind::Pong };
                    encode_client_frame(out, true, kind, self.mask, bytes);
                    said.push(if *ping { Said::Ping(bytes.clone()) } else { Said::Pong(bytes.clone()) });
                }
            }
            said.push(self.data.clone());
        }
    }

    fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..=max)
    }

    fn sent() -> impl Strategy<Value = Sent> {
        let text = prop::collection::vec(any::<char>(), 0..200).prop_map(|text| Said::Text(text.into_iter().collect()));
        let data = prop_oneof![text, bytes(300).prop_map(Said::Binary)];
        let cuts = prop::collection::vec(any::<prop::sample::Index>(), 0..5);
        let controls = prop::collection::vec((any::<bool>(), bytes(125)), 0..5);
        (data, cuts, controls, any::<[u8; 4]>()).prop_map(|(data, cuts, controls, mask)| Sent {
            data,
            cuts,
            controls,
            mask,
        })
    }

    /// `bytes` in pieces whose lengths are `lengths`, again and again.
    fn pieces<'b>(mut bytes: &'b [u8], lengths: &[usize]) -> Vec<&'b [u8]> {
        let mut out = Vec::new();
        for length in lengths.iter().cycle() {
            if bytes.is_empty() {
                break;
            }
            let (piece, rest) = bytes.split_at((*length).min(bytes.len()));
            out.push(piece);
            bytes = rest;
        }
        out
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_understood_however_it_is_split(
            messages in prop::collection::vec(sent(), 0..6),
            lengths in prop::collection::vec(1usize..400, 1..8),
        ) {
            let (mut wire, mut said) = (Vec::new(), Vec::new());
            for message in &messages {
                message.encode(&mut wire, &mut said);
            }
            prop_assert_eq!(drive(pieces(&wire, &lengths), MAX), (said, None));
        }

        #[test]
        fn random_bytes_are_refused_or_understood_the_same_however_they_are_split(
            bytes in bytes(300),
            lengths in prop::collection::vec(1usize..40, 1..8),
            max in 0usize..200,
        ) {
            prop_assert_eq!(drive([&bytes[..]], max), drive(pieces(&bytes, &lengths), max));
        }

        /// Random bytes seldom get past the first header; these are frames with a few bytes changed.
        #[test]
        fn damaged_frames_are_refused_or_understood_the_same_however_they_are_split(
            messages in prop::collection::vec(sent(), 1..4),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            lengths in prop::collection::vec(1usize..400, 1..8),
            max in 0usize..2000,
        ) {
            let mut wire = Vec::new();
            for message in &messages {
                message.encode(&mut wire, &mut Vec::new());
            }
            for (at, byte) in damage {
                let at = at.index(wire.len());
                wire[at] = byte;
            }
            prop_assert_eq!(drive([&wire[..]], max), drive(pieces(&wire, &lengths), max));
        }

        #[test]
        fn the_mask_is_its_own_inverse_and_goes_round_by_position(bytes in bytes(100), mask: [u8; 4]) {
            let mut masked = bytes.clone();
            apply_mask(&mut masked, mask);
            for (i, (m, b)) in masked.iter().zip(&bytes).enumerate() {
                prop_assert_eq!(*m, b ^ mask[i % 4]);
            }
            apply_mask(&mut masked, mask);
            prop_assert_eq!(masked, bytes);
        }

        #[test]
        fn close_frames_are_read_back(
            code in prop_oneof![1000u16..=1003, 1007u16..=1014, 3000u16..=4999],
            reason: String,
        ) {
            let frame = close_frame(code, &reason);
            prop_assert_eq!(frame.len(), 2 + usize::from(frame[1]));
            let message = parse_close(&frame[2..]).unwrap();
            let Message::Close { code: Some(back), reason: cut } = message else { panic!("{message:?}") };
            prop_assert_eq!(back, code);
            prop_assert!(reason.starts_with(cut) && (cut == reason || cut.len() > CLOSE_REASON_BYTES_MAX - 4));
        }
    }
}
