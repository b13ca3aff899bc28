//! Engine.IO protocol 4 on the wire: packets, the handshake, polling payloads, refusals. Knows no session, no heartbeat
//! and no socket.
//!
//! Source: the Engine.IO protocol document, revision 4, and engine.io-parser 5.2 / engine.io 6.6, from which the golden
//! rows below were taken.

use std::borrow::Cow;
use std::fmt;
use std::sync::LazyLock;

use data_encoding::{BASE64, Encoding, Specification};

use super::{json, ws};

/// What a packet is for; its wire form is one ASCII digit in front of the data ("Packet encoding").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PacketType {
    /// Server to client, first of all: the handshake as JSON.
    Open = b'0',
    /// Either side ends the session.
    Close = b'1',
    /// The server's heartbeat; with the data `probe`, a client's test of a transport to upgrade to.
    Ping = b'2',
    /// The answer to a ping, with the ping's data.
    Pong = b'3',
    /// Application data: a Socket.IO packet.
    Message = b'4',
    /// The client has moved to the transport that carries this packet.
    Upgrade = b'5',
    /// Ends a waiting poll during an upgrade.
    Noop = b'6',
}

impl PacketType {
    /// The type that `digit` stands for on the wire.
    #[must_use]
    pub fn from_digit(digit: u8) -> Option<PacketType> {
        Some(match digit {
            b'0' => PacketType::Open,
            b'1' => PacketType::Close,
            b'2' => PacketType::Ping,
            b'3' => PacketType::Pong,
            b'4' => PacketType::Message,
            b'5' => PacketType::Upgrade,
            b'6' => PacketType::Noop,
            _ => return None,
        })
    }

    /// The ASCII digit on the wire.
    #[must_use]
    pub fn digit(self) -> u8 {
        self as u8
    }
}

/// Why a client's bytes are no Engine.IO packet. The reference server closes the session on each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketError {
    /// No bytes at all, so not even a type.
    Empty,
    /// The first byte is no packet type.
    UnknownType,
    /// A polling packet that starts with `b` holds no base64.
    BadBase64,
}

impl PacketError {
    /// A metrics label: one word in `snake_case`, one per variant.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            PacketError::Empty => "empty",
            PacketError::UnknownType => "unknown_type",
            PacketError::BadBase64 => "bad_base64",
        }
    }
}

impl fmt::Display for PacketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PacketError::Empty => "the Engine.IO packet is empty",
            PacketError::UnknownType => "the Engine.IO packet starts with no known type (0 to 6)",
            PacketError::BadBase64 => "the binary Engine.IO packet is not base64",
        })
    }
}

impl std::error::Error for PacketError {}

/// Splits a text packet (one WebSocket text message) into its type and its data, which may be empty.
///
/// # Errors
/// [`PacketError::Empty`] and [`PacketError::UnknownType`].
pub fn parse(packet: &str) -> Result<(PacketType, &str), PacketError> {
    let &digit = packet.as_bytes().first().ok_or(PacketError::Empty)?;
    let kind = PacketType::from_digit(digit).ok_or(PacketError::UnknownType)?;
    Ok((kind, &packet[1..]))
}

/// What the open packet tells the client ("Handshake").
#[derive(Clone, Copy, Debug)]
pub struct Handshake<'a> {
    /// The session's id.
    pub sid: &'a str,
    /// Transports that the client may move to: `["websocket"]` over polling, none over WebSocket.
    pub upgrades: &'a [&'a str],
    /// Milliseconds between the server's pings.
    pub ping_interval_ms: u64,
    /// Milliseconds that a pong may take.
    pub ping_timeout_ms: u64,
    /// Most bytes of one polling payload or WebSocket message from the client.
    pub payload_bytes_max: u64,
}

impl Handshake<'_> {
    /// Appends the open packet's JSON, keys in the reference server's order.
    pub fn write_json(&self, out: &mut String) {
        out.push_str("{\"sid\":");
        json::escape_into(out, self.sid);
        out.push_str(",\"upgrades\":[");
        for (position, transport) in self.upgrades.iter().enumerate() {
            if position > 0 {
                out.push(',');
            }
            json::escape_into(out, transport);
        }
        out.push_str("],\"pingInterval\":");
        out.push_str(Decimal::new(self.ping_interval_ms).as_str());
        out.push_str(",\"pingTimeout\":");
        out.push_str(Decimal::new(self.ping_timeout_ms).as_str());
        out.push_str(",\"maxPayload\":");
        out.push_str(Decimal::new(self.payload_bytes_max).as_str());
        out.push('}');
    }
}

/// Appends the open packet as one WebSocket text frame.
pub fn open(out: &mut Vec<u8>, handshake: &Handshake<'_>) {
    let mut text = String::with_capacity(128);
    handshake.write_json(&mut text);
    text_frame(out, &["0", &text]);
}

/// Appends a close packet as one WebSocket text frame.
pub fn close(out: &mut Vec<u8>) {
    text_frame(out, &["1"]);
}

/// Appends the heartbeat's ping as one WebSocket text frame.
pub fn ping(out: &mut Vec<u8>) {
    text_frame(out, &["2"]);
}

/// Appends a pong that carries its ping's `data` (`probe` in an upgrade) as one WebSocket text frame.
pub fn pong(out: &mut Vec<u8>, data: &str) {
    text_frame(out, &["3", data]);
}

/// Appends a noop packet as one WebSocket text frame.
pub fn noop(out: &mut Vec<u8>) {
    text_frame(out, &["6"]);
}

/// Appends one unmasked WebSocket text frame that holds `parts` joined. The header names the length in 1, 3 or 9 bytes,
/// so the length is added up first and the parts are copied once.
pub(super) fn text_frame(out: &mut Vec<u8>, parts: &[&str]) {
    let payload_len = parts.iter().map(|part| part.len()).sum();
    out.reserve(FRAME_HEADER_BYTES_MAX + payload_len);
    ws::write_header(out, ws::Kind::Text, payload_len);
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

/// Appends one unmasked WebSocket binary frame. Over WebSocket a binary message has no type digit.
pub(super) fn binary_frame(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(FRAME_HEADER_BYTES_MAX + bytes.len());
    ws::write_header(out, ws::Kind::Binary, bytes.len());
    out.extend_from_slice(bytes);
}

/// An unmasked frame's header: two bytes and up to eight of length (RFC 6455, section 5.2).
const FRAME_HEADER_BYTES_MAX: usize = 10;

/// A number as decimal text on the stack: packets are put together from borrowed parts.
pub(super) struct Decimal {
    digits: [u8; 20],
    start: usize,
}

impl Decimal {
    pub(super) fn new(mut number: u64) -> Decimal {
        let mut decimal = Decimal { digits: [b'0'; 20], start: 20 };
        loop {
            decimal.start -= 1;
            decimal.digits[decimal.start] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return decimal;
            }
        }
    }

    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.digits[self.start..]).expect("decimal digits are ASCII")
    }
}

/// Between two packets of a polling payload ("HTTP long-polling", packet encoding): ASCII record separator.
pub const SEPARATOR: u8 = 0x1e;

/// One packet of a polling payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PollingPacket<'a> {
    /// Any packet with text data.
    Text(PacketType, &'a str),
    /// A message with binary data.
    Binary(Cow<'a, [u8]>),
}

/// Reads one packet of the body of a polling request: what stands between two [`SEPARATOR`]s. After a broken one the
/// rest of the body has no meaning.
///
/// # Errors
/// Any of [`PacketError`].
pub fn parse_polled(packet: &str) -> Result<PollingPacket<'_>, PacketError> {
    let Some(base64) = packet.strip_prefix('b') else {
        return parse(packet).map(|(kind, data)| PollingPacket::Text(kind, data));
    };
    let bytes = CLIENT_BASE64.decode(base64.trim_end().trim_end_matches('=').as_bytes());
    bytes.map(|bytes| PollingPacket::Binary(Cow::Owned(bytes))).map_err(|_| PacketError::BadBase64)
}

/// Base64 as the reference server reads it: both alphabets, with and without padding, white space skipped, such as the
/// line breaks of MIME encoders. Padding is cut off before. Other characters are errors here; there they are skipped.
static CLIENT_BASE64: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification.symbols.push_str("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/");
    specification.translate.from.push_str("-_");
    specification.translate.to.push_str("+/");
    specification.ignore.push_str(" \t\r\n");
    specification.check_trailing_bits = false;
    specification.encoding().expect("the specification is a constant")
});

/// Appends the packets in `frames`, which are whole unmasked WebSocket messages as the encoders of this module and of
/// `socketio` write them, to the body of a polling response that begins at `start` in `out`.
///
/// # Panics
/// If `frames` holds anything else than whole text and binary messages of one frame each.
pub fn append_polled(out: &mut Vec<u8>, start: usize, frames: &[u8]) {
    for (kind, payload) in ws::unmasked_messages(frames) {
        if out.len() > start {
            out.push(SEPARATOR);
        }
        match kind {
            ws::Kind::Text => out.extend_from_slice(payload),
            ws::Kind::Binary => {
                let base64 = out.len() + 1;
                out.push(b'b');
                out.resize(base64 + BASE64.encode_len(payload.len()), 0);
                BASE64.encode_mut(payload, &mut out[base64..]);
            }
            other => unreachable!("a polled session has no {other:?} frames"),
        }
    }
}

/// Why a request for a session was refused, in the reference server's numbers (engine.io `Server.errors`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Refusal {
    /// `transport` names none that is offered.
    UnknownTransport = 0,
    /// `sid` names no session of this server.
    UnknownSid = 1,
    /// A handshake by another method than GET.
    BadHandshakeMethod = 2,
    /// The request contradicts itself or the session's state.
    BadRequest = 3,
    /// The server does not want this client.
    Forbidden = 4,
    /// `EIO` is not 4.
    UnsupportedProtocolVersion = 5,
}

impl Refusal {
    /// Every refusal, by code.
    pub const ALL: [Refusal; 6] = [
        Refusal::UnknownTransport,
        Refusal::UnknownSid,
        Refusal::BadHandshakeMethod,
        Refusal::BadRequest,
        Refusal::Forbidden,
        Refusal::UnsupportedProtocolVersion,
    ];

    /// The response's JSON body. A refused WebSocket handshake has [`Refusal::message`] alone as its body.
    #[must_use]
    pub fn body(self) -> &'static str {
        match self {
            Refusal::UnknownTransport => r#"{"code":0,"message":"Transport unknown"}"#,
            Refusal::UnknownSid => r#"{"code":1,"message":"Session ID unknown"}"#,
            Refusal::BadHandshakeMethod => r#"{"code":2,"message":"Bad handshake method"}"#,
            Refusal::BadRequest => r#"{"code":3,"message":"Bad request"}"#,
            Refusal::Forbidden => r#"{"code":4,"message":"Forbidden"}"#,
            Refusal::UnsupportedProtocolVersion => r#"{"code":5,"message":"Unsupported protocol version"}"#,
        }
    }

    /// The sentence in the body.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            Refusal::UnknownTransport => "Transport unknown",
            Refusal::UnknownSid => "Session ID unknown",
            Refusal::BadHandshakeMethod => "Bad handshake method",
            Refusal::BadRequest => "Bad request",
            Refusal::Forbidden => "Forbidden",
            Refusal::UnsupportedProtocolVersion => "Unsupported protocol version",
        }
    }

    /// The HTTP status that goes with the JSON body: 403 for [`Refusal::Forbidden`], else 400.
    #[must_use]
    pub fn status(self) -> u16 {
        if self == Refusal::Forbidden { 403 } else { 400 }
    }

    /// A metrics label: one word in `snake_case`, one per variant.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Refusal::UnknownTransport => "unknown_transport",
            Refusal::UnknownSid => "unknown_sid",
            Refusal::BadHandshakeMethod => "bad_handshake_method",
            Refusal::BadRequest => "bad_request",
            Refusal::Forbidden => "forbidden",
            Refusal::UnsupportedProtocolVersion => "unsupported_protocol_version",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(kind: PacketType, data: &str) -> Result<PollingPacket<'_>, PacketError> {
        Ok(PollingPacket::Text(kind, data))
    }

    fn binary(bytes: &[u8]) -> Result<PollingPacket<'_>, PacketError> {
        Ok(PollingPacket::Binary(Cow::Borrowed(bytes)))
    }

    #[test]
    fn text_packets() {
        for (packet, parsed) in [
            ("0{\"a\":1}", Ok((PacketType::Open, "{\"a\":1}"))),
            ("1", Ok((PacketType::Close, ""))),
            ("2", Ok((PacketType::Ping, ""))),
            ("2probe", Ok((PacketType::Ping, "probe"))),
            ("3probe", Ok((PacketType::Pong, "probe"))),
            ("4hello", Ok((PacketType::Message, "hello"))),
            ("4€", Ok((PacketType::Message, "€"))),
            ("5", Ok((PacketType::Upgrade, ""))),
            ("6", Ok((PacketType::Noop, ""))),
            ("", Err(PacketError::Empty)),
            ("7", Err(PacketError::UnknownType)),
            ("€", Err(PacketError::UnknownType)),
            ("bAQID", Err(PacketError::UnknownType)),
        ] {
            assert_eq!(parse(packet), parsed, "{packet:?}");
        }
    }

    #[test]
    fn handshake_has_the_keys_of_the_reference_server_in_its_order() {
        let mut handshake = Handshake {
            sid: "lv_VI97HAXpY6yYWAAAC",
            upgrades: &["websocket"],
            ping_interval_ms: 25000,
            ping_timeout_ms: 20000,
            payload_bytes_max: 1_000_000,
        };
        let mut json = String::new();
        handshake.write_json(&mut json);
        assert_eq!(
            json,
            "{\"sid\":\"lv_VI97HAXpY6yYWAAAC\",\"upgrades\":[\"websocket\"],\"pingInterval\":25000,\
             \"pingTimeout\":20000,\"maxPayload\":1000000}"
        );

        handshake.upgrades = &[];
        let mut out = Vec::new();
        open(&mut out, &handshake);
        let payload = b"0{\"sid\":\"lv_VI97HAXpY6yYWAAAC\",\"upgrades\":[],\"pingInterval\":25000,\
                        \"pingTimeout\":20000,\"maxPayload\":1000000}";
        assert_eq!(out[..2], [0x81, payload.len() as u8]);
        assert_eq!(out[2..], payload[..]);
    }

    #[test]
    fn packets_as_websocket_frames() {
        let mut out = Vec::new();
        close(&mut out);
        ping(&mut out);
        pong(&mut out, "probe");
        noop(&mut out);
        binary_frame(&mut out, &[1, 2]);
        assert_eq!(out, b"\x81\x011\x81\x012\x81\x063probe\x81\x016\x82\x02\x01\x02");
    }

    #[test]
    fn frame_headers_at_each_width() {
        for (len, header) in [
            (0, &b"\x81\x00"[..]),
            (125, b"\x81\x7d"),
            (126, b"\x81\x7e\x00\x7e"),
            (65535, b"\x81\x7e\xff\xff"),
            (65536, b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
        ] {
            let mut out = Vec::new();
            text_frame(&mut out, &["x".repeat(len / 2).as_str(), "x".repeat(len - len / 2).as_str()]);
            assert_eq!(out[..header.len()], *header, "{len}");
            assert_eq!(out.len(), header.len() + len);
        }
    }

    #[test]
    fn polling_payloads() {
        for (body, packets) in [
            (
                "4hello\x1ebAQIDBA==\x1e2\x1e4€",
                vec![
                    text(PacketType::Message, "hello"),
                    binary(&[1, 2, 3, 4]),
                    text(PacketType::Ping, ""),
                    text(PacketType::Message, "€"),
                ],
            ),
            ("bAQID\x1eb", vec![binary(&[1, 2, 3]), binary(&[])]),
            ("bAQI", vec![binary(&[1, 2])]),
            ("bAQ=\x1e4", vec![binary(&[1]), text(PacketType::Message, "")]),
            ("b_-8=", vec![binary(&[255, 239])]),
            ("b AQ\r\nID\n", vec![binary(&[1, 2, 3])]),
            ("b!!", vec![Err(PacketError::BadBase64)]),
            ("bA", vec![Err(PacketError::BadBase64)]),
            ("", vec![Err(PacketError::Empty)]),
            ("4a\x1e", vec![text(PacketType::Message, "a"), Err(PacketError::Empty)]),
            (
                "4a\x1exx\x1e4b",
                vec![text(PacketType::Message, "a"), Err(PacketError::UnknownType), text(PacketType::Message, "b")],
            ),
        ] {
            assert_eq!(parse_all(body), packets, "{body:?}");
        }
    }

    #[test]
    fn frames_become_a_polling_payload() {
        let mut first = Vec::new();
        text_frame(&mut first, &["451-[\"x\",{\"_placeholder\":true,\"num\":0}]"]);
        binary_frame(&mut first, &[1, 2, 3, 4]);
        let mut second = Vec::new();
        ping(&mut second);
        for (frames, body) in [
            (vec![&first, &second], "451-[\"x\",{\"_placeholder\":true,\"num\":0}]\x1ebAQIDBA==\x1e2"),
            (vec![&second], "2"),
            (vec![], ""),
        ] {
            let mut out = b"head".to_vec();
            frames.iter().for_each(|frame| append_polled(&mut out, 4, frame));
            assert_eq!(out, format!("head{body}").as_bytes());
        }
    }

    fn parse_all(body: &str) -> Vec<Result<PollingPacket<'_>, PacketError>> {
        body.split(char::from(SEPARATOR)).map(parse_polled).collect()
    }

    #[test]
    fn refusals() {
        for (code, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, code);
            assert_eq!(refusal.body(), format!("{{\"code\":{code},\"message\":\"{refusal}\"}}"));
            assert_eq!(refusal.status(), if code == 4 { 403 } else { 400 });
        }
    }

    proptest! {
        #[test]
        fn decimal_is_to_string(number: u64) {
            let decimal = Decimal::new(number);
            prop_assert_eq!(decimal.as_str(), number.to_string());
        }

        #[test]
        fn any_text_is_a_packet_or_an_error(body in "[0-9b\\x1e+/=A-Za-z€ ]{0,40}|\\PC*") {
            let _ = parse(&body);
            let _ = parse_all(&body);
        }

        #[test]
        fn payloads_round_trip(
            parts in prop::collection::vec(
                (0..7_u8, "[^\\x1e]{0,300}", prop::collection::vec(any::<u8>(), 0..300)),
                1..6,
            ),
        ) {
            let packets: Vec<_> = parts
                .iter()
                .map(|(kind, data, bytes)| match PacketType::from_digit(b'0' + kind) {
                    Some(PacketType::Message) if data.len() % 2 == 0 => PollingPacket::Binary(Cow::Borrowed(bytes)),
                    kind => PollingPacket::Text(kind.unwrap(), data),
                })
                .collect();
            let mut out = Vec::new();
            for packet in &packets {
                let mut frame = Vec::new();
                match packet {
                    PollingPacket::Text(kind, data) => {
                        text_frame(&mut frame, &[&char::from(kind.digit()).to_string(), data]);
                    }
                    PollingPacket::Binary(bytes) => binary_frame(&mut frame, bytes),
                }
                append_polled(&mut out, 0, &frame);
            }
            let body = String::from_utf8(out).unwrap();
            prop_assert_eq!(parse_all(&body).into_iter().collect::<Result<Vec<_>, _>>().unwrap(), packets);
        }
    }
}
