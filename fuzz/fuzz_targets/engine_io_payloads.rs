//! Any text as the body of a polling request, and what waits for a polling client as the body of a response: packets
//! in, the same packets out, whichever way they go.
#![no_main]

use std::borrow::Cow;

use libfuzzer_sys::fuzz_target;
use roomcast::proto::engineio::{
    self, Handshake, PacketType, PollingPacket, SEPARATOR, append_polled, parse, parse_polled,
};
use roomcast::proto::ws::{self, Kind};
use roomcast_fuzz::{Choices, check_error, object};

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let mut packets = Vec::new();
    for packet in text.split(char::from(SEPARATOR)) {
        match parse_polled(packet) {
            Ok(parsed) => packets.push(parsed),
            Err(error) => check_error(&error, error.label()),
        }
        match parse(packet) {
            Ok((kind, data)) => {
                assert_eq!([&char::from(kind.digit()).to_string(), data].concat(), packet);
                assert_eq!(parse_polled(packet), Ok(PollingPacket::Text(kind, data)));
            }
            Err(error) => check_error(&error, error.label()),
        }
    }
    packets.push(PollingPacket::Binary(Cow::Borrowed(data)));
    check_response(&packets, &mut Choices::of(data));
    check_own_packets(&text);
});

/// The packets as frames that wait, joined to one body in several goes, come back as they were.
fn check_response(packets: &[PollingPacket<'_>], choices: &mut Choices) {
    let frames: Vec<Vec<u8>> = packets.iter().map(frame).collect();
    let before = b"HTTP/1.1 200 OK\r\n\r\n".repeat(choices.up_to(1));
    let mut out = before.clone();
    let (first, second) = frames.split_at(choices.up_to(frames.len()));
    for some in [first, second] {
        append_polled(&mut out, before.len(), &some.concat());
    }
    let body = str::from_utf8(out.strip_prefix(&before[..]).expect("what stood there still stands there")).unwrap();
    let read: Vec<_> = body.split(char::from(SEPARATOR)).map(|packet| parse_polled(packet).unwrap()).collect();
    assert_eq!(read, packets);
}

fn frame(packet: &PollingPacket<'_>) -> Vec<u8> {
    let mut frame = Vec::new();
    match packet {
        PollingPacket::Text(kind, data) => {
            ws::write_header(&mut frame, Kind::Text, 1 + data.len());
            frame.push(kind.digit());
            frame.extend_from_slice(data.as_bytes());
        }
        PollingPacket::Binary(bytes) => {
            ws::write_header(&mut frame, Kind::Binary, bytes.len());
            frame.extend_from_slice(bytes);
        }
    }
    frame
}

/// A client's text never leaves the packet that it is put into.
fn check_own_packets(text: &str) {
    let upgrades = [text, "websocket"];
    let handshake =
        Handshake { sid: text, upgrades: &upgrades, ping_interval_ms: 1, ping_timeout_ms: 2, payload_bytes_max: 3 };
    let mut frames = Vec::new();
    engineio::open(&mut frames, &handshake);
    engineio::pong(&mut frames, text);
    let read: Vec<_> = ws::unmasked_messages(&frames).map(|(_, payload)| str::from_utf8(payload).unwrap()).collect();
    let [open, pong] = read[..] else { panic!("{} frames of two", read.len()) };
    assert_eq!(parse(pong), Ok((PacketType::Pong, text)));
    let Ok((PacketType::Open, json)) = parse(open) else { panic!("{open}") };
    let members = object(json);
    assert_eq!((members.len(), &members["sid"], &members["upgrades"][0]), (5, &text.into(), &text.into()));
}
