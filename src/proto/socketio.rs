//! Socket.IO protocol 5 on the wire: client packets to values, server packets to WebSocket frames. Knows no namespaces'
//! members, no pending acknowledgements, no rules; its only memory is a binary packet whose attachments are on their
//! way.
//!
//! Source: the Socket.IO protocol document, revision 5, and socket.io-parser 4.2, whose checks are followed and from
//! which the golden rows below were taken. This decoder is stricter where the parser's own encoder never goes:
//! * an event or acknowledgement without a payload is refused; the parser hands on an event without a name;
//! * counts and acknowledgement ids are plain digits up to `u64::MAX`; the parser lets through what JavaScript's
//!   `Number` reads, such as `0x1-`, `1e0-` or a space for 0;
//! * an attachment is named by one placeholder at most: the parser's encoder never names one twice, and a client that
//!   does could make a small packet grow without bound where attachments are written in place.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use smallvec::SmallVec;

use super::engineio::{Decimal, binary_frame, text_frame};
use super::json;

/// What a packet is for; its wire form is one ASCII digit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PacketKind {
    /// A client asks for a namespace, the server grants it.
    Connect = 0,
    /// Either side leaves a namespace.
    Disconnect = 1,
    /// A name and arguments.
    Event = 2,
    /// The arguments that answer an event with an acknowledgement id.
    Ack = 3,
    /// The server refuses a namespace.
    ConnectError = 4,
    /// An event whose attachments follow as binary messages.
    BinaryEvent = 5,
    /// An acknowledgement whose attachments follow as binary messages.
    BinaryAck = 6,
}

impl PacketKind {
    /// The kind that `digit` stands for on the wire.
    #[must_use]
    pub fn from_digit(digit: u8) -> Option<PacketKind> {
        Some(match digit {
            b'0' => PacketKind::Connect,
            b'1' => PacketKind::Disconnect,
            b'2' => PacketKind::Event,
            b'3' => PacketKind::Ack,
            b'4' => PacketKind::ConnectError,
            b'5' => PacketKind::BinaryEvent,
            b'6' => PacketKind::BinaryAck,
            _ => return None,
        })
    }

    /// The protocol document's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            PacketKind::Connect => "CONNECT",
            PacketKind::Disconnect => "DISCONNECT",
            PacketKind::Event => "EVENT",
            PacketKind::Ack => "ACK",
            PacketKind::ConnectError => "CONNECT_ERROR",
            PacketKind::BinaryEvent => "BINARY_EVENT",
            PacketKind::BinaryAck => "BINARY_ACK",
        }
    }

    /// True if attachments follow.
    #[must_use]
    pub fn is_binary(self) -> bool {
        matches!(self, PacketKind::BinaryEvent | PacketKind::BinaryAck)
    }
}

/// Bounds on what one client packet may make us keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most attachments of one packet.
    pub attachments_max: usize,
    /// Most bytes of one binary packet: its text and its attachments together.
    pub packet_bytes_max: usize,
}

impl Default for Limits {
    /// What the reference server's defaults come to: a text and 10 attachments, each at most 1 MB.
    fn default() -> Limits {
        Limits { attachments_max: 10, packet_bytes_max: 11_000_000 }
    }
}

/// Names that mean something to client and server libraries, so that no event may bear them.
const RESERVED_NAMES: [&str; 6] =
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];

/// Why a client's message is no Socket.IO packet. The reference server closes the connection on each of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PacketError {
    /// The message is empty or does not start with a packet type.
    UnknownType,
    /// A binary packet without a count of at least 1 and `-` behind its type.
    IllegalAttachmentCount,
    /// A binary packet announces more attachments than allowed.
    TooManyAttachments {
        /// Attachments allowed.
        max: usize,
    },
    /// The acknowledgement id does not fit into 64 bits.
    AckIdTooLarge,
    /// The payload is not JSON, or nested more than [`json::DEPTH_MAX`] levels deep, its own array included.
    InvalidJson(json::JsonError),
    /// The payload is JSON, but not what this kind of packet carries.
    InvalidPayload(PacketKind),
    /// The event's name is the library's own.
    ReservedEventName,
    /// A placeholder names no attachment, or one that another placeholder names.
    IllegalPlaceholder,
    /// Text came while attachments were missing.
    UnexpectedText,
    /// A binary message came that no packet announced.
    UnexpectedBinary,
    /// A binary packet's text and attachments have more bytes than allowed.
    TooLarge {
        /// Bytes allowed.
        max: usize,
    },
}

impl PacketError {
    /// A metrics label: one word in `snake_case`, one per variant.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            PacketError::UnknownType => "unknown_type",
            PacketError::IllegalAttachmentCount => "illegal_attachment_count",
            PacketError::TooManyAttachments { .. } => "too_many_attachments",
            PacketError::AckIdTooLarge => "ack_id_too_large",
            PacketError::InvalidJson(_) => "invalid_json",
            PacketError::InvalidPayload(_) => "invalid_payload",
            PacketError::ReservedEventName => "reserved_event_name",
            PacketError::IllegalPlaceholder => "illegal_placeholder",
            PacketError::UnexpectedText => "unexpected_text",
            PacketError::UnexpectedBinary => "unexpected_binary",
            PacketError::TooLarge { .. } => "too_large",
        }
    }
}

impl fmt::Display for PacketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PacketError::UnknownType => f.write_str("the packet starts with no known type (0 to 6)"),
            PacketError::IllegalAttachmentCount => {
                f.write_str("the binary packet does not say how many attachments follow, as in \"51-[…]\"")
            }
            PacketError::TooManyAttachments { max } => {
                write!(f, "the packet announces too many attachments; at most {max} are allowed")
            }
            PacketError::AckIdTooLarge => f.write_str("the acknowledgement id does not fit into 64 bits"),
            PacketError::InvalidJson(error) => write!(f, "the payload is not JSON: {error}"),
            PacketError::InvalidPayload(kind) => write!(f, "the payload does not suit a {} packet", kind.name()),
            PacketError::ReservedEventName => f.write_str("the event's name is reserved"),
            PacketError::IllegalPlaceholder => {
                f.write_str("a placeholder names an attachment that does not exist or is already taken")
            }
            PacketError::UnexpectedText => f.write_str("a text message came while attachments were missing"),
            PacketError::UnexpectedBinary => f.write_str("a binary message came that no packet announced"),
            PacketError::TooLarge { max } => {
                write!(f, "the packet and its attachments are too large; at most {max} bytes are allowed")
            }
        }
    }
}

impl std::error::Error for PacketError {}

/// A packet's text, taken apart and checked. Borrows from the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// What it is for.
    pub kind: PacketKind,
    /// Starts with `/`, has no comma; `/` where the packet names none.
    pub namespace: &'a str,
    /// In an event: the client wants an answer under this number. In an acknowledgement: the event that it answers.
    pub ack_id: Option<u64>,
    /// Binary messages that follow: at least 1 if the kind is binary, else 0.
    pub attachments: usize,
    /// Valid JSON of the kind's shape, or empty. Connect: an object or empty. Disconnect: empty. Event: an array whose
    /// first element is a string that is not reserved, or a number. Ack: an array. `ConnectError`: an object, a string
    /// or empty.
    pub payload: &'a str,
}

/// Takes the text of an Engine.IO message apart: `<type>[<attachments>-][<namespace>,][<ack id>][<payload>]`.
///
/// A query string behind the namespace is a part of its name, as for the reference server: were it cut off, the client
/// would wait for an answer to the name that it said.
///
/// # Errors
/// What is wrong with the packet; never [`PacketError::UnexpectedText`], which only the [`Reassembler`] can know.
pub fn decode<'a>(text: &'a str, limits: &Limits, scratch: &mut json::Scratch) -> Result<Packet<'a>, PacketError> {
    let kind = text.as_bytes().first().and_then(|&digit| PacketKind::from_digit(digit));
    let kind = kind.ok_or(PacketError::UnknownType)?;
    let mut rest = &text[1..];

    let mut attachments = 0;
    if kind.is_binary() {
        let (digits, behind) = split_digits(rest);
        rest = behind.strip_prefix('-').ok_or(PacketError::IllegalAttachmentCount)?;
        attachments = match digits.parse() {
            Ok(0) => return Err(PacketError::IllegalAttachmentCount),
            Ok(count) => count,
            Err(_) if digits.is_empty() => return Err(PacketError::IllegalAttachmentCount),
            Err(_) => usize::MAX,
        };
        if attachments > limits.attachments_max {
            return Err(PacketError::TooManyAttachments { max: limits.attachments_max });
        }
    }

    let mut namespace = "/";
    if rest.starts_with('/') {
        (namespace, rest) = rest.split_once(',').unwrap_or((rest, ""));
    }

    let (digits, payload) = split_digits(rest);
    let ack_id = match digits {
        "" => None,
        digits => Some(digits.parse().map_err(|_| PacketError::AckIdTooLarge)?),
    };
    let payload = check_payload(kind, payload, scratch)?;
    Ok(Packet { kind, namespace, ack_id, attachments, payload })
}

fn split_digits(text: &str) -> (&str, &str) {
    let end = text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

/// The parser's `isPayloadValid`. The first byte tells the JSON type, so most nonsense costs no JSON parsing.
fn check_payload<'a>(kind: PacketKind, payload: &'a str, scratch: &mut json::Scratch) -> Result<&'a str, PacketError> {
    let suits = match (kind, payload.as_bytes().first()) {
        (PacketKind::Connect, first) => matches!(first, None | Some(b'{')),
        (PacketKind::Disconnect, first) => first.is_none(),
        (PacketKind::ConnectError, first) => matches!(first, None | Some(b'{' | b'"')),
        (_, first) => first == Some(&b'['),
    };
    if !suits {
        return Err(PacketError::InvalidPayload(kind));
    }
    if payload.is_empty() {
        return Ok(payload);
    }
    json::validate(payload.as_bytes(), scratch).map_err(PacketError::InvalidJson)?;
    let payload = payload.trim_end_matches(JSON_SPACE);
    if matches!(kind, PacketKind::Event | PacketKind::BinaryEvent) {
        let name_json = json::elements(payload).next().ok_or(PacketError::InvalidPayload(kind))?;
        match json::kind(name_json) {
            json::Kind::String if RESERVED_NAMES.iter().any(|name| json::spells(name_json, name)) => {
                return Err(PacketError::ReservedEventName);
            }
            json::Kind::String | json::Kind::Number => {}
            _ => return Err(PacketError::InvalidPayload(kind)),
        }
    }
    Ok(payload)
}

/// The values of an array payload as raw JSON, in order; none if the payload is no array. An event's first is its name.
pub fn args(payload: &str) -> impl Iterator<Item = &str> {
    json::elements(payload)
}

/// A whole packet with its attachments. Borrows from the message unless it had to wait for attachments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming<'a> {
    /// What it is for; a binary event is an `Event` with attachments, a binary acknowledgement an `Ack`.
    pub kind: PacketKind,
    /// As in [`Packet`].
    pub namespace: Cow<'a, str>,
    /// As in [`Packet`].
    pub ack_id: Option<u64>,
    /// As in [`Packet`]. Placeholders stand where attachments belong, each with a number below `attachments.len()` and
    /// no two with the same.
    pub payload: Cow<'a, str>,
    /// In the order they came.
    pub attachments: Vec<Box<[u8]>>,
}

impl Incoming<'_> {
    /// An event's name as raw JSON: a string with quotes, or a number. `None` for other kinds.
    #[must_use]
    pub fn name_json(&self) -> Option<&str> {
        if self.kind == PacketKind::Event { args(&self.payload).next() } else { None }
    }

    /// The arguments as JSON values joined by commas, without brackets and without an event's name; the form that
    /// `Event` takes. Empty if there are none or the kind has none.
    #[must_use]
    pub fn args_json(&self) -> &str {
        let Some(list) = self.payload.strip_prefix('[').and_then(|list| list.strip_suffix(']')) else { return "" };
        let Some(name_json) = self.name_json() else { return list.trim_matches(JSON_SPACE) };
        // The name is a piece of the list: what precedes it can only be space, what follows is `,…` or nothing.
        let behind = &list.trim_start_matches(JSON_SPACE)[name_json.len()..];
        behind.trim_start_matches(JSON_SPACE).trim_start_matches(',').trim_matches(JSON_SPACE)
    }

    /// The values of [`Incoming::args_json`], one by one.
    pub fn args(&self) -> impl Iterator<Item = &str> {
        args(&self.payload).skip(usize::from(self.kind == PacketKind::Event))
    }
}

const JSON_SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

/// Holds one client's binary packet until its attachments are there. Owns heap memory only in that time. After an error
/// it is empty; the connection should be closed, as what follows may belong to the broken packet.
#[derive(Debug, Default)]
pub struct Reassembler {
    open: Option<Box<Open>>,
}

// It lies in every connection, and nearly all connections are idle.
const _: () = assert!(size_of::<Reassembler>() <= 8);

#[derive(Debug)]
struct Open {
    incoming: Incoming<'static>,
    /// Attachments still to come, at least 1.
    missing: usize,
    /// Bytes that they may have together.
    bytes_left: usize,
    limits: Limits,
}

impl Reassembler {
    /// True while attachments are missing.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Memory of the packet whose attachments are missing.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.open.as_ref().map_or(0, |open| {
            let places = open.incoming.attachments.capacity() * size_of::<Box<[u8]>>();
            size_of::<Open>() + places + open.limits.packet_bytes_max - open.bytes_left
        })
    }

    /// Takes the text of an Engine.IO message. Gives the packet, or `None` if its attachments are to follow. A packet
    /// without attachments borrows from `text` and allocates nothing.
    ///
    /// # Errors
    /// What is wrong with the packet, or [`PacketError::UnexpectedText`].
    pub fn text<'a>(
        &mut self,
        text: &'a str,
        limits: &Limits,
        scratch: &mut json::Scratch,
    ) -> Result<Option<Incoming<'a>>, PacketError> {
        if self.open.take().is_some() {
            return Err(PacketError::UnexpectedText);
        }
        let packet = decode(text, limits, scratch)?;
        let kind = match packet.kind {
            PacketKind::BinaryEvent => PacketKind::Event,
            PacketKind::BinaryAck => PacketKind::Ack,
            kind => {
                return Ok(Some(Incoming {
                    kind,
                    namespace: Cow::Borrowed(packet.namespace),
                    ack_id: packet.ack_id,
                    payload: Cow::Borrowed(packet.payload),
                    attachments: Vec::new(),
                }));
            }
        };
        check_placeholders(packet.payload, packet.attachments)?;
        let bytes_left = limits.packet_bytes_max.checked_sub(text.len());
        self.open = Some(Box::new(Open {
            incoming: Incoming {
                kind,
                namespace: Cow::Owned(packet.namespace.to_owned()),
                ack_id: packet.ack_id,
                payload: Cow::Owned(packet.payload.to_owned()),
                attachments: Vec::new(),
            },
            missing: packet.attachments,
            bytes_left: bytes_left.ok_or(PacketError::TooLarge { max: limits.packet_bytes_max })?,
            limits: *limits,
        }));
        Ok(None)
    }

    /// Takes a binary message: the open packet's next attachment. Gives the packet if it was the last.
    ///
    /// # Errors
    /// [`PacketError::UnexpectedBinary`] and [`PacketError::TooLarge`].
    pub fn binary(&mut self, bytes: &[u8]) -> Result<Option<Incoming<'static>>, PacketError> {
        let mut open = self.open.take().ok_or(PacketError::UnexpectedBinary)?;
        let bytes_left = open.bytes_left.checked_sub(bytes.len());
        open.bytes_left = bytes_left.ok_or(PacketError::TooLarge { max: open.limits.packet_bytes_max })?;
        open.incoming.attachments.push(bytes.into());
        open.missing -= 1;
        if open.missing == 0 {
            return Ok(Some(open.incoming));
        }
        self.open = Some(open);
        Ok(None)
    }
}

/// An object `{"_placeholder":true,"num":n}` in raw JSON: an attachment's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placeholder {
    /// Where the object stands, braces included.
    pub range: Range<usize>,
    /// The attachment, if `num` is a plain number.
    pub number: Option<usize>,
}

/// Checks that each placeholder in `json` (valid JSON) names one of `attachments` attachments, and no two the same. An
/// attachment without a placeholder is allowed, as in the parser; nobody will see it.
///
/// # Errors
/// [`PacketError::IllegalPlaceholder`]
pub fn check_placeholders(json: &str, attachments: usize) -> Result<(), PacketError> {
    let mut taken = vec![false; attachments];
    for placeholder in placeholders(json) {
        match placeholder.number.and_then(|number| taken.get_mut(number)) {
            Some(taken) if !*taken => *taken = true,
            _ => return Err(PacketError::IllegalPlaceholder),
        }
    }
    Ok(())
}

/// The placeholders in `json`, which must be valid: one JSON value or several joined by commas. In order of appearance,
/// never one inside another. As in the parser, an object is one if its `_placeholder` is `true`, whatever else it
/// holds.
#[must_use]
pub fn placeholders(json: &str) -> Vec<Placeholder> {
    struct Container {
        start: usize,
        is_placeholder: bool,
        number: Option<usize>,
    }

    let mut found: Vec<Placeholder> = Vec::new();
    let mut open: SmallVec<[Container; 8]> = SmallVec::new();
    let mut at = 0;
    while let Some(&byte) = json.as_bytes().get(at) {
        match byte {
            b'{' | b'[' => open.push(Container { start: at, is_placeholder: false, number: None }),
            b'}' | b']' => {
                if let Some(Container { start, is_placeholder: true, number }) = open.pop() {
                    // Those inside it have been found before it and are replaced with it.
                    found.truncate(found.partition_point(|inner| inner.range.start < start));
                    found.push(Placeholder { range: start..at + 1, number });
                }
            }
            b'"' => {
                let end = json::string_end(json.as_bytes(), at);
                if let (Some(value), Some(object)) = (value_of_key(&json[end..]), open.last_mut()) {
                    // The last of two members with the same key counts, as in JavaScript.
                    if json::spells(&json[at..end], "_placeholder") {
                        object.is_placeholder = value.starts_with("true");
                    } else if json::spells(&json[at..end], "num") {
                        object.number = plain_number(value);
                    }
                }
                at = end;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// What follows the colon, if the string before `rest` was a key.
fn value_of_key(rest: &str) -> Option<&str> {
    Some(rest.trim_start_matches(JSON_SPACE).strip_prefix(':')?.trim_start_matches(JSON_SPACE))
}

/// The number that `rest` starts with, if it has digits only: neither sign nor fraction nor exponent.
fn plain_number(rest: &str) -> Option<usize> {
    let (digits, behind) = split_digits(rest);
    if behind.starts_with(['.', 'e', 'E']) { None } else { digits.parse().ok() }
}

/// Prepares arguments that carry some of a packet's attachments, such as an answer that echoes one of several: the
/// arguments with their placeholders numbered from 0 in order of appearance, and the attachments in that order. Two
/// placeholders of one attachment keep sharing it. `args_json` as in [`Incoming::args_json`]; a placeholder that names
/// none of `attachments` stays as it is.
#[must_use]
pub fn collect_placeholders<'a>(args_json: &'a str, attachments: &'a [Box<[u8]>]) -> (Cow<'a, str>, Vec<&'a [u8]>) {
    if attachments.is_empty() {
        return (Cow::Borrowed(args_json), Vec::new());
    }
    let mut collected: Vec<&[u8]> = Vec::new();
    let mut new_numbers: Vec<Option<usize>> = vec![None; attachments.len()];
    let mut text = String::new();
    let mut copied = 0;
    for Placeholder { range, number } in placeholders(args_json) {
        let Some((number, attachment)) = number.and_then(|number| Some((number, attachments.get(number)?))) else {
            continue;
        };
        let new_number = *new_numbers[number].get_or_insert_with(|| {
            collected.push(attachment);
            collected.len() - 1
        });
        if new_number != number {
            text.push_str(&args_json[copied..range.start]);
            text.push_str("{\"_placeholder\":true,\"num\":");
            text.push_str(Decimal::new(new_number as u64).as_str());
            text.push('}');
            copied = range.end;
        }
    }
    if copied == 0 {
        return (Cow::Borrowed(args_json), collected);
    }
    text.push_str(&args_json[copied..]);
    (Cow::Owned(text), collected)
}

/// For packets without attachments.
pub const NO_ATTACHMENTS: &[&[u8]] = &[];

/// Appends an event as WebSocket frames: one of text and one per attachment. `name_json` is a JSON string with quotes,
/// `args_json` JSON values joined by commas, empty if there are none; a placeholder `n` in it stands for
/// `attachments[n]`. With `ack_id` the client is asked for an acknowledgement of that id; it reads it as a JavaScript
/// number, which is exact below 2⁵³.
///
/// In all encoders `namespace` starts with `/` and has no comma; the root's name is left out, as the protocol wants it.
pub fn event(
    out: &mut Vec<u8>,
    namespace: &str,
    ack_id: Option<u64>,
    name_json: &str,
    args_json: &str,
    attachments: &[impl AsRef<[u8]>],
) {
    let prefix = if attachments.is_empty() { "42" } else { "45" };
    let comma = if args_json.is_empty() { "" } else { "," };
    packet(out, prefix, namespace, ack_id, ["[", name_json, comma, args_json, "]"], attachments);
}

/// Appends the answer to the client's event that had acknowledgement id `ack_id`; arguments as in [`event`].
pub fn ack(out: &mut Vec<u8>, namespace: &str, ack_id: u64, args_json: &str, attachments: &[impl AsRef<[u8]>]) {
    let prefix = if attachments.is_empty() { "43" } else { "46" };
    packet(out, prefix, namespace, Some(ack_id), ["[", args_json, "]", "", ""], attachments);
}

/// Appends the grant of a namespace. `sid` is the socket's id there: our own, so it needs no escapes.
pub fn connect(out: &mut Vec<u8>, namespace: &str, sid: &str) {
    debug_assert!(!sid.contains(['"', '\\']), "sid {sid}");
    packet(out, "40", namespace, None, ["{\"sid\":\"", sid, "\"}", "", ""], NO_ATTACHMENTS);
}

/// Appends the refusal of a namespace. `message` is plain text, `data_json` one JSON value that tells more.
pub fn connect_error(out: &mut Vec<u8>, namespace: &str, message: &str, data_json: Option<&str>) {
    let mut message_json = String::with_capacity(message.len() + 2);
    json::escape_into(&mut message_json, message);
    let (data_key, data_json) = data_json.map_or(("", ""), |data_json| (",\"data\":", data_json));
    packet(out, "44", namespace, None, ["{\"message\":", &message_json, data_key, data_json, "}"], NO_ATTACHMENTS);
}

/// Appends the server's goodbye from a namespace.
pub fn disconnect(out: &mut Vec<u8>, namespace: &str) {
    packet(out, "41", namespace, None, [""; 5], NO_ATTACHMENTS);
}

/// `prefix` is the Engine.IO message type and the packet's type.
fn packet(
    out: &mut Vec<u8>,
    prefix: &str,
    namespace: &str,
    ack_id: Option<u64>,
    payload: [&str; 5],
    attachments: &[impl AsRef<[u8]>],
) {
    debug_assert!(namespace.starts_with('/') && !namespace.contains(','), "namespace {namespace}");
    let count = Decimal::new(attachments.len() as u64);
    let (count, dash) = if attachments.is_empty() { ("", "") } else { (count.as_str(), "-") };
    let (namespace, comma) = if namespace == "/" { ("", "") } else { (namespace, ",") };
    let ack_id = ack_id.map(Decimal::new);
    let ack_id = ack_id.as_ref().map_or("", Decimal::as_str);
    let [first, second, third, fourth, fifth] = payload;
    text_frame(out, &[prefix, count, dash, namespace, comma, ack_id, first, second, third, fourth, fifth]);
    for attachment in attachments {
        binary_frame(out, attachment.as_ref());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { attachments_max: 10, packet_bytes_max: 1000 };

    fn decode_one(text: &str) -> Result<Packet<'_>, PacketError> {
        decode(text, &LIMITS, &mut json::Scratch::default())
    }

    /// All messages of one client through one reassembler, up to the first error.
    fn reassemble(text: &str, binaries: &[&[u8]]) -> Result<Option<Incoming<'static>>, PacketError> {
        let mut reassembler = Reassembler::default();
        let incoming = reassembler.text(text, &LIMITS, &mut json::Scratch::default())?;
        assert!(incoming.is_none(), "{text} is no binary packet");
        let mut last = None;
        for bytes in binaries {
            last = reassembler.binary(bytes)?;
        }
        Ok(last)
    }

    /// The text of the first frame in `out`, checked against its header.
    fn frame_text(out: &[u8]) -> &str {
        assert_eq!(out[0], 0x81);
        let (start, len) = match out[1] {
            126 => (4, usize::from(u16::from_be_bytes([out[2], out[3]]))),
            len => (2, usize::from(len)),
        };
        assert!(len < 65536, "tests write short frames");
        str::from_utf8(&out[start..start + len]).unwrap()
    }

    #[test]
    fn client_packets() {
        use PacketKind::{Ack, BinaryAck, BinaryEvent, Connect, ConnectError, Disconnect, Event};
        for (text, kind, namespace, ack_id, attachments, payload) in [
            ("0", Connect, "/", None, 0, ""),
            ("0/admin,", Connect, "/admin", None, 0, ""),
            ("0/admin", Connect, "/admin", None, 0, ""),
            ("0/admin?token=1234&uid=abcd,", Connect, "/admin?token=1234&uid=abcd", None, 0, ""),
            ("0/admin?token=1234,{\"a\":1}", Connect, "/admin?token=1234", None, 0, "{\"a\":1}"),
            ("0{\"token\":\"123\"}", Connect, "/", None, 0, "{\"token\":\"123\"}"),
            ("0/,{}", Connect, "/", None, 0, "{}"),
            ("01", Connect, "/", Some(1), 0, ""),
            ("1", Disconnect, "/", None, 0, ""),
            ("1/admin,", Disconnect, "/admin", None, 0, ""),
            ("1/admin", Disconnect, "/admin", None, 0, ""),
            ("2[\"hello\",1]", Event, "/", None, 0, "[\"hello\",1]"),
            ("2/admin,456[\"project:delete\",123]", Event, "/admin", Some(456), 0, "[\"project:delete\",123]"),
            ("212[\"foo\"]", Event, "/", Some(12), 0, "[\"foo\"]"),
            ("200007[\"a\"]", Event, "/", Some(7), 0, "[\"a\"]"),
            ("218446744073709551615[\"a\"]", Event, "/", Some(u64::MAX), 0, "[\"a\"]"),
            ("2[\"a\"]\n", Event, "/", None, 0, "[\"a\"]"),
            ("2[\"error\"]", Event, "/", None, 0, "[\"error\"]"),
            ("2[\"\"]", Event, "/", None, 0, "[\"\"]"),
            ("2[1]", Event, "/", None, 0, "[1]"),
            ("2//,[\"a\"]", Event, "//", None, 0, "[\"a\"]"),
            ("3/admin,456[]", Ack, "/admin", Some(456), 0, "[]"),
            ("312[\"bar\"]", Ack, "/", Some(12), 0, "[\"bar\"]"),
            ("3[\"connect\"]", Ack, "/", None, 0, "[\"connect\"]"),
            ("4", ConnectError, "/", None, 0, ""),
            ("4/admin,{\"message\":\"x\"}", ConnectError, "/admin", None, 0, "{\"message\":\"x\"}"),
            ("4\"x\"", ConnectError, "/", None, 0, "\"x\""),
            (
                "51-[\"a\",{\"_placeholder\":true,\"num\":0}]",
                BinaryEvent,
                "/",
                None,
                1,
                "[\"a\",{\"_placeholder\":true,\"num\":0}]",
            ),
            ("501-[\"a\"]", BinaryEvent, "/", None, 1, "[\"a\"]"),
            ("510-/admin,456[\"a\"]", BinaryEvent, "/admin", Some(456), 10, "[\"a\"]"),
            ("61-/admin,456[]", BinaryAck, "/admin", Some(456), 1, "[]"),
        ] {
            let packet = Packet { kind, namespace, ack_id, attachments, payload };
            assert_eq!(decode_one(text), Ok(packet), "{text}");
        }
    }

    #[test]
    fn broken_client_packets() {
        let many = PacketError::TooManyAttachments { max: 10 };
        for (text, error) in [
            ("", PacketError::UnknownType),
            ("7", PacketError::UnknownType),
            ("x", PacketError::UnknownType),
            ("é", PacketError::UnknownType),
            ("-1", PacketError::UnknownType),
            ("0[]", PacketError::InvalidPayload(PacketKind::Connect)),
            ("0null", PacketError::InvalidPayload(PacketKind::Connect)),
            ("0,", PacketError::InvalidPayload(PacketKind::Connect)),
            ("1{}", PacketError::InvalidPayload(PacketKind::Disconnect)),
            ("1null", PacketError::InvalidPayload(PacketKind::Disconnect)),
            ("2", PacketError::InvalidPayload(PacketKind::Event)),
            ("2/admin,", PacketError::InvalidPayload(PacketKind::Event)),
            ("2/admin[\"x\"]", PacketError::InvalidPayload(PacketKind::Event)),
            ("2[]", PacketError::InvalidPayload(PacketKind::Event)),
            ("2[ ]", PacketError::InvalidPayload(PacketKind::Event)),
            ("2{}", PacketError::InvalidPayload(PacketKind::Event)),
            ("2[null]", PacketError::InvalidPayload(PacketKind::Event)),
            ("2[true]", PacketError::InvalidPayload(PacketKind::Event)),
            ("2[[\"a\"]]", PacketError::InvalidPayload(PacketKind::Event)),
            ("2 [\"a\"]", PacketError::InvalidPayload(PacketKind::Event)),
            ("2-1[\"a\"]", PacketError::InvalidPayload(PacketKind::Event)),
            ("21.5[\"a\"]", PacketError::InvalidPayload(PacketKind::Event)),
            ("2/a,1/b,[\"x\"]", PacketError::InvalidPayload(PacketKind::Event)),
            ("2é", PacketError::InvalidPayload(PacketKind::Event)),
            ("2[\"connect\"]", PacketError::ReservedEventName),
            ("2[\"conn\\u0065ct\"]", PacketError::ReservedEventName),
            ("2[\"connect_error\"]", PacketError::ReservedEventName),
            ("2[\"disconnect\"]", PacketError::ReservedEventName),
            ("2[\"disconnecting\"]", PacketError::ReservedEventName),
            ("2[\"newListener\"]", PacketError::ReservedEventName),
            ("2[\"removeListener\"]", PacketError::ReservedEventName),
            ("51-[\"connect\"]", PacketError::ReservedEventName),
            ("218446744073709551616[\"a\"]", PacketError::AckIdTooLarge),
            ("312{}", PacketError::InvalidPayload(PacketKind::Ack)),
            ("312", PacketError::InvalidPayload(PacketKind::Ack)),
            ("4[]", PacketError::InvalidPayload(PacketKind::ConnectError)),
            ("50-[\"a\"]", PacketError::IllegalAttachmentCount),
            ("5-[\"a\"]", PacketError::IllegalAttachmentCount),
            ("5[\"a\"]", PacketError::IllegalAttachmentCount),
            ("51", PacketError::IllegalAttachmentCount),
            ("5-1-[\"a\"]", PacketError::IllegalAttachmentCount),
            ("5+1-[\"a\"]", PacketError::IllegalAttachmentCount),
            ("51e0-[\"a\"]", PacketError::IllegalAttachmentCount),
            ("60-5[]", PacketError::IllegalAttachmentCount),
            ("511-[\"a\"]", many.clone()),
            ("599999999999999999999999-[\"a\"]", many),
            ("51-[]", PacketError::InvalidPayload(PacketKind::BinaryEvent)),
            ("51-", PacketError::InvalidPayload(PacketKind::BinaryEvent)),
            ("61-5{}", PacketError::InvalidPayload(PacketKind::BinaryAck)),
        ] {
            assert_eq!(decode_one(text), Err(error), "{text}");
        }
        for text in ["2[\"a\"", "2[\"a\"]x", "0{", "4\"x", "2[\"a\",01]"] {
            assert!(matches!(decode_one(text), Err(PacketError::InvalidJson(_))), "{text}");
        }
    }

    #[test]
    fn payloads_nest_128_levels() {
        let nested = |levels: usize| format!("2[\"a\",{}{}]", "[".repeat(levels), "]".repeat(levels));
        assert!(decode_one(&nested(127)).is_ok());
        let error = decode_one(&nested(128)).unwrap_err();
        assert!(matches!(&error, PacketError::InvalidJson(json) if json.fault == json::Fault::TooDeep), "{error}");
    }

    #[test]
    fn arguments_are_pieces_of_the_payload() {
        for (text, name_json, args_json, args) in [
            ("2[\"a\"]", Some("\"a\""), "", vec![]),
            ("2[ \"a\" ]", Some("\"a\""), "", vec![]),
            ("2[\"a\",1,\"x,y\"]", Some("\"a\""), "1,\"x,y\"", vec!["1", "\"x,y\""]),
            (
                "2[ \"a\" , {\"b\": [1, 2]} , null ] ",
                Some("\"a\""),
                "{\"b\": [1, 2]} , null",
                vec!["{\"b\": [1, 2]}", "null"],
            ),
            ("2[1.50,2]", Some("1.50"), "2", vec!["2"]),
            ("31[ ]", None, "", vec![]),
            ("31[ 1, 2 ]", None, "1, 2", vec!["1", "2"]),
            ("0{\"a\":[1]}", None, "", vec![]),
            ("1", None, "", vec![]),
        ] {
            let incoming = Reassembler::default().text(text, &LIMITS, &mut json::Scratch::default()).unwrap().unwrap();
            assert!(matches!(incoming.payload, Cow::Borrowed(_)), "{text}");
            assert_eq!(incoming.name_json(), name_json, "{text}");
            assert_eq!(incoming.args_json(), args_json, "{text}");
            assert_eq!(incoming.args().collect::<Vec<_>>(), args, "{text}");
        }
    }

    #[test]
    fn binary_packets_wait_for_their_attachments() {
        let p = |num: &str| format!("{{\"_placeholder\":true,\"num\":{num}}}");
        for payload in [
            format!("[\"a\",{},{}]", p("0"), p("1")),
            format!("[\"a\",{},{}]", p("1"), p("0")),
            format!("[\"a\",{}]", p("0")),
            "[\"a\"]".to_owned(),
            "[\"a\",{\"_placeholder\":false,\"num\":9}]".to_owned(),
            "[\"a\",{\"num\":0,\"_placeholder\":true,\"x\":1}]".to_owned(),
            "[\"a\",{\"x\":[{ \"_placeholder\" : true , \"num\" : 1 }]}]".to_owned(),
            format!("[\"a\",{{\"_placeholder\":true,\"num\":0,\"in\":{}}}]", p("7")),
        ] {
            let incoming = reassemble(&format!("52-/x,7{payload}"), &[&[1], &[2, 3]]).unwrap().unwrap();
            assert_eq!(incoming.kind, PacketKind::Event);
            assert_eq!((&*incoming.namespace, incoming.ack_id), ("/x", Some(7)));
            assert_eq!(incoming.payload, payload);
            assert_eq!(incoming.attachments, [Box::from([1]), Box::from([2, 3])]);
        }
        let ack = reassemble(&format!("61-9[{}]", p("0")), &[&[]]).unwrap().unwrap();
        assert_eq!((ack.kind, ack.ack_id, ack.args_json()), (PacketKind::Ack, Some(9), &*p("0")));
        assert_eq!(reassemble("52-[\"a\"]", &[&[1]]), Ok(None));

        for num in ["1", "-1", "0.5", "0e0", "\"0\"", "null", "99999999999999999999999", "0,\"num\":3"] {
            let text = format!("51-[\"a\",{}]", p(num));
            assert_eq!(reassemble(&text, &[]), Err(PacketError::IllegalPlaceholder), "{text}");
        }
        for payload in [
            format!("[\"a\",{},{}]", p("0"), p("0")),
            "[\"a\",{\"_placeholder\":true}]".to_owned(),
            "[\"a\",{\"\\u005fplaceholder\":true,\"n\\u0075m\":9}]".to_owned(),
        ] {
            assert_eq!(reassemble(&format!("52-{payload}"), &[]), Err(PacketError::IllegalPlaceholder), "{payload}");
        }
    }

    #[test]
    fn messages_out_of_place_empty_the_reassembler() {
        let mut scratch = json::Scratch::default();
        let mut reassembler = Reassembler::default();
        assert_eq!(reassembler.binary(&[1]), Err(PacketError::UnexpectedBinary));

        for text in ["2[\"b\"]", "51-[\"b\"]", "1"] {
            assert_eq!(reassembler.text("51-[\"a\"]", &LIMITS, &mut scratch), Ok(None));
            assert!(reassembler.is_open());
            assert_eq!(reassembler.text(text, &LIMITS, &mut scratch), Err(PacketError::UnexpectedText));
            assert!(!reassembler.is_open());
        }

        assert_eq!(reassembler.text("51-[\"a\"]", &LIMITS, &mut scratch), Ok(None));
        assert!(reassembler.binary(&[1]).unwrap().is_some());
        assert_eq!(reassembler.binary(&[2]), Err(PacketError::UnexpectedBinary));
    }

    #[test]
    fn a_packet_holds_what_has_come_of_it() {
        let mut reassembler = Reassembler::default();
        let least = |bytes: usize, places: usize| size_of::<Open>() + bytes + places * size_of::<Box<[u8]>>();
        assert_eq!(reassembler.held_bytes(), 0);
        assert_eq!(reassembler.text("53-[\"a\"]", &LIMITS, &mut json::Scratch::default()), Ok(None));
        assert_eq!(reassembler.held_bytes(), least(8, 0));
        for (attachments, bytes) in [(1, 108), (2, 208)] {
            assert_eq!(reassembler.binary(&[0; 100]), Ok(None));
            assert!(reassembler.held_bytes() >= least(bytes, attachments), "{}", reassembler.held_bytes());
        }
        assert!(reassembler.binary(&[0; 100]).unwrap().is_some());
        assert_eq!(reassembler.held_bytes(), 0);
    }

    #[test]
    fn text_and_attachments_count_against_one_bound() {
        let text = "52-[\"a\"]";
        let room = LIMITS.packet_bytes_max - text.len();
        assert!(reassemble(text, &[&vec![0; room - 1], &[0]]).unwrap().is_some());
        let too_large = PacketError::TooLarge { max: LIMITS.packet_bytes_max };
        assert_eq!(reassemble(text, &[&vec![0; room], &[0]]), Err(too_large.clone()));
        assert_eq!(reassemble(&format!("51-[\"{}\"]", "a".repeat(1000)), &[]), Err(too_large));
    }

    #[test]
    fn server_packets() {
        let two: &[&[u8]] = &[&[1, 2], &[3]];
        let written = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut out = vec![];
            write(&mut out);
            out
        };
        for (out, text, behind) in [
            (written(&|o| event(o, "/", None, "\"hello\"", "1", NO_ATTACHMENTS)), "42[\"hello\",1]", &b""[..]),
            (written(&|o| event(o, "/", None, "\"x\"", "", NO_ATTACHMENTS)), "42[\"x\"]", b""),
            (written(&|o| event(o, "/", Some(0), "\"x\"", "", NO_ATTACHMENTS)), "420[\"x\"]", b""),
            (
                written(&|o| event(o, "/seats", Some((1 << 53) - 1), "\"x\"", "1", NO_ATTACHMENTS)),
                "42/seats,9007199254740991[\"x\",1]",
                b"",
            ),
            (
                written(&|o| {
                    event(o, "/seats", Some(12), "\"pic\"", "{\"_placeholder\":true,\"num\":0}", &two[1..]);
                }),
                "451-/seats,12[\"pic\",{\"_placeholder\":true,\"num\":0}]",
                b"\x82\x01\x03",
            ),
            (
                written(&|o| event(o, "/seats", None, "\"seat_update\"", "{\"routeId\":\"7\"},1.0", NO_ATTACHMENTS)),
                "42/seats,[\"seat_update\",{\"routeId\":\"7\"},1.0]",
                b"",
            ),
            (
                written(&|o| {
                    event(
                        o,
                        "/seats",
                        None,
                        "\"pic\"",
                        "{\"_placeholder\":true,\"num\":0},{\"a\":{\"_placeholder\":true,\"num\":1}}",
                        two,
                    );
                }),
                "452-/seats,[\"pic\",{\"_placeholder\":true,\"num\":0},{\"a\":{\"_placeholder\":true,\"num\":1}}]",
                b"\x82\x02\x01\x02\x82\x01\x03",
            ),
            (written(&|o| ack(o, "/seats", 456, "", NO_ATTACHMENTS)), "43/seats,456[]", b""),
            (written(&|o| ack(o, "/", 12, "\"bar\",{\"a\":1}", NO_ATTACHMENTS)), "4312[\"bar\",{\"a\":1}]", b""),
            (
                written(&|o| ack(o, "/admin", 456, "{\"_placeholder\":true,\"num\":0}", &two[1..])),
                "461-/admin,456[{\"_placeholder\":true,\"num\":0}]",
                b"\x82\x01\x03",
            ),
            (written(&|o| connect(o, "/", "oSO0OpakMV_3jnilAAAA")), "40{\"sid\":\"oSO0OpakMV_3jnilAAAA\"}", b""),
            (
                written(&|o| connect(o, "/admin", "oSO0OpakMV_3jnilAAAA")),
                "40/admin,{\"sid\":\"oSO0OpakMV_3jnilAAAA\"}",
                b"",
            ),
            (written(&|o| connect_error(o, "/", "Not authorized", None)), "44{\"message\":\"Not authorized\"}", b""),
            (
                written(&|o| connect_error(o, "/nope", "Invalid namespace", None)),
                "44/nope,{\"message\":\"Invalid namespace\"}",
                b"",
            ),
            (
                written(&|o| connect_error(o, "/admin", "Not \"authorized\"\n", Some("{\"code\":\"E1\"}"))),
                "44/admin,{\"message\":\"Not \\\"authorized\\\"\\n\",\"data\":{\"code\":\"E1\"}}",
                b"",
            ),
            (written(&|o| disconnect(o, "/")), "41", b""),
            (written(&|o| disconnect(o, "/admin")), "41/admin,", b""),
        ] {
            assert_eq!(frame_text(&out), text);
            assert!(out.ends_with(behind));
            assert_eq!(out.len(), text.len() + if text.len() < 126 { 2 } else { 4 } + behind.len(), "{text}");
        }
    }

    #[test]
    fn answers_carry_the_attachments_that_they_name() {
        let attachments: Vec<Box<[u8]>> = vec![Box::from([10]), Box::from([11]), Box::from([12])];
        let p = |num| format!("{{\"_placeholder\":true,\"num\":{num}}}");
        for (args_json, collected_json, numbers) in [
            (String::new(), String::new(), vec![]),
            ("1,{\"a\":2}".to_owned(), "1,{\"a\":2}".to_owned(), vec![]),
            (p(0), p(0), vec![10]),
            (p(2), p(0), vec![12]),
            (format!("1,{},{{\"a\":{}}}", p(2), p(0)), format!("1,{},{{\"a\":{}}}", p(0), p(1)), vec![12, 10]),
            (format!("{},{},{}", p(1), p(1), p(2)), format!("{},{},{}", p(0), p(0), p(1)), vec![11, 12]),
            (format!("{},{}", p(0), p(2)), format!("{},{}", p(0), p(1)), vec![10, 12]),
            (p(3), p(3), vec![]),
        ] {
            let (text, collected) = collect_placeholders(&args_json, &attachments);
            assert_eq!(text, collected_json);
            assert_eq!(collected.concat(), numbers, "{args_json}");
        }
        let (text, collected) = collect_placeholders("{\"_placeholder\":true,\"num\":0}", &[]);
        assert_eq!((text, collected.len()), (Cow::Borrowed("{\"_placeholder\":true,\"num\":0}"), 0));
    }

    fn json_value() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            any::<i32>().prop_map(|number| number.to_string()),
            "[ -~é]{0,6}".prop_map(|text| {
                let mut json = String::new();
                json::escape_into(&mut json, &text);
                json
            }),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            let list = prop::collection::vec(inner.clone(), 0..3).prop_map(|items| format!("[{}]", items.join(" , ")));
            prop_oneof![list, inner.prop_map(|value| format!("{{\"k\": {value}}}"))]
        })
    }

    proptest! {
        #[test]
        fn any_text_is_a_packet_or_an_error(
            text in "[0-7]?([0-9]{0,2}-)?(/[a-z?]{0,3},?)?[0-9]{0,3}[\\[\\]{}\":,a_ \\\\0-9]{0,12}|\\PC{0,20}",
        ) {
            let mut reassembler = Reassembler::default();
            if let Ok(Some(incoming)) = reassembler.text(&text, &LIMITS, &mut json::Scratch::default()) {
                let joined = incoming.args().collect::<Vec<_>>().join(",");
                prop_assert_eq!(joined.is_empty(), incoming.args_json().is_empty());
            }
            let _ = (reassembler.binary(&[1]), placeholders(&text), args(&text).count());
        }

        #[test]
        fn events_come_back(
            name in "[a-z:]{0,8}é?",
            values in prop::collection::vec(json_value(), 0..4),
            namespace in "/[a-z]{0,5}",
            count in 0..3_usize,
            ack_id: Option<u64>,
            answers: bool,
        ) {
            prop_assume!(!RESERVED_NAMES.contains(&&*name));
            let attachments: Vec<Box<[u8]>> = (0..count).map(|n| vec![n as u8; n].into()).collect();
            let places = (0..count).rev().map(|num| format!("{{\"_placeholder\":true,\"num\":{num}}}"));
            let values: Vec<_> = values.into_iter().chain(places).collect();
            let (name_json, args_json) = (format!("\"{name}\""), values.join(","));
            let mut out = Vec::new();
            match ack_id {
                Some(ack_id) if answers => ack(&mut out, &namespace, ack_id, &args_json, &attachments),
                _ => event(&mut out, &namespace, ack_id, &name_json, &args_json, &attachments),
            }
            let mut reassembler = Reassembler::default();
            let mut scratch = json::Scratch::default();
            let mut incoming = reassembler.text(&frame_text(&out)[1..], &LIMITS, &mut scratch).unwrap();
            for attachment in &attachments {
                prop_assert!(incoming.is_none());
                incoming = reassembler.binary(attachment).unwrap();
            }
            let incoming = incoming.unwrap();
            prop_assert_eq!(&*incoming.namespace, &namespace);
            prop_assert_eq!(incoming.ack_id, ack_id);
            prop_assert_eq!(incoming.name_json(), if answers && ack_id.is_some() { None } else { Some(&*name_json) });
            prop_assert_eq!(incoming.args_json(), &args_json);
            prop_assert_eq!(incoming.args().collect::<Vec<_>>(), values);
            prop_assert_eq!(incoming.attachments, attachments);
        }
    }
}
