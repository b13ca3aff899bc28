//! Any messages of a client, joined by record separators as in a polling body, as Socket.IO packets and as raw events.
//! A message that begins with `b` is binary. What is understood and encoded again is understood alike.
#![no_main]

use std::borrow::Cow;

use libfuzzer_sys::fuzz_target;
use roomcast::base::event::Event;
use roomcast::base::ids::NamespaceId;
use roomcast::proto::json::Scratch;
use roomcast::proto::raw::{self, Shape};
use roomcast::proto::socketio::{
    self, Incoming, Limits, Packet, PacketError, PacketKind, Reassembler, check_placeholders, collect_placeholders,
    decode, placeholders,
};
use roomcast::proto::ws::{self, Kind};
use roomcast_fuzz::{check_error, elements, object, raw_json};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// Small, so that inputs reach them.
const LIMITS: Limits = Limits { attachments_max: 4, packet_bytes_max: 300 };

fuzz_target!(|data: &[u8]| {
    let mut scratch = Scratch::default();
    let mut reassembler = Reassembler::default();
    // Attachments that the model still waits for, and the bytes that they may have.
    let mut missing: Option<(usize, usize, Vec<&[u8]>)> = None;
    for message in data.split(|byte| *byte == 0x1e) {
        let outcome = if let Some(binary) = message.strip_prefix(b"b") {
            let outcome = reassembler.binary(binary);
            match missing.take() {
                None => assert_eq!(outcome, Err(PacketError::UnexpectedBinary)),
                Some((_, bytes, _)) if bytes < binary.len() => {
                    assert_eq!(outcome, Err(PacketError::TooLarge { max: LIMITS.packet_bytes_max }));
                }
                Some((count, bytes, mut attachments)) => {
                    attachments.push(binary);
                    match &outcome {
                        Ok(Some(packet)) => assert_eq!((count, slices(packet)), (1, attachments)),
                        _ => {
                            assert!(outcome == Ok(None) && count > 1);
                            missing = Some((count - 1, bytes - binary.len(), attachments));
                        }
                    }
                }
            }
            outcome
        } else {
            let Ok(text) = str::from_utf8(message) else { continue };
            check_raw(text, &mut scratch);
            check_decoded(text, &mut scratch);
            let outcome = reassembler.text(text, &LIMITS, &mut scratch);
            if missing.take().is_some() {
                assert_eq!(outcome, Err(PacketError::UnexpectedText));
            } else if outcome == Ok(None) {
                let packet = decode(text, &LIMITS, &mut scratch).expect("it is taken");
                missing = Some((packet.attachments, LIMITS.packet_bytes_max - text.len(), Vec::new()));
            }
            outcome
        };
        assert_eq!(reassembler.is_open(), missing.is_some());
        match outcome {
            Ok(Some(packet)) => check_packet(&packet, &mut scratch),
            Ok(None) => {}
            Err(error) => check_error(&error, error.label()),
        }
    }
});

fn slices<'a>(packet: &'a Incoming<'_>) -> Vec<&'a [u8]> {
    packet.attachments.iter().map(|bytes| &**bytes).collect()
}

/// A packet's text, put together again from its parts.
fn check_decoded(text: &str, scratch: &mut Scratch) {
    let Ok(packet) = decode(text, &LIMITS, scratch) else { return };
    assert!(packet.namespace.starts_with('/') && !packet.namespace.contains(','));
    assert_eq!(packet.attachments > 0, packet.kind.is_binary());
    assert!(packet.attachments <= LIMITS.attachments_max);
    if !packet.payload.is_empty() {
        raw_json(packet.payload);
        check_placeholders_found(packet.payload);
    }
    let Packet { kind, namespace, ack_id, attachments, payload } = packet;
    let attachments = if attachments > 0 { format!("{attachments}-") } else { String::new() };
    let ack_id = ack_id.map(|id| id.to_string()).unwrap_or_default();
    let again = format!("{}{attachments}{namespace},{ack_id}{payload}", kind as u8);
    assert_eq!(decode(&again, &LIMITS, scratch), Ok(packet));
}

/// The attachments' places are those that a parser of values finds.
fn check_placeholders_found(payload: &str) {
    let Ok(node) = serde_json::from_str::<Node>(payload) else { return };
    let found: Vec<_> = placeholders(payload).into_iter().map(|placeholder| placeholder.number).collect();
    assert_eq!(found, node.found);
}

/// A JSON value, as far as placeholders are concerned.
#[derive(Default)]
struct Node {
    is_true: bool,
    number: Option<usize>,
    /// The numbers of the placeholders in it, in their order.
    found: Vec<Option<usize>>,
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Node;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::default())
    }

    fn visit_bool<E>(self, is_true: bool) -> Result<Node, E> {
        Ok(Node { is_true, ..Node::default() })
    }

    fn visit_u64<E>(self, number: u64) -> Result<Node, E> {
        Ok(Node { number: Some(number as usize), ..Node::default() })
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::default())
    }

    fn visit_str<E>(self, _: &str) -> Result<Node, E> {
        Ok(Node::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut found = Vec::new();
        while let Some(node) = seq.next_element::<Node>()? {
            found.extend(node.found);
        }
        Ok(Node { found, ..Node::default() })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let (mut is_placeholder, mut number, mut found) = (false, None, Vec::new());
        while let Some((key, node)) = map.next_entry::<String, Node>()? {
            match key.as_str() {
                "_placeholder" => is_placeholder = node.is_true,
                "num" => number = node.number,
                _ => {}
            }
            found.extend(node.found);
        }
        Ok(Node { found: if is_placeholder { vec![number] } else { found }, ..Node::default() })
    }
}

/// A packet as the server would send it to others.
fn check_packet(packet: &Incoming<'_>, scratch: &mut Scratch) {
    let Incoming { kind, namespace, ack_id, .. } = packet;
    check_placeholders(&packet.payload, packet.attachments.len()).unwrap_or_else(
        |error| match packet.attachments[..] {
            // Without attachments it is not looked for them: such an object is data.
            [] => {}
            _ => panic!("{error}"),
        },
    );
    let mut frames = Vec::new();
    match kind {
        PacketKind::Event => {
            let name_json = packet.name_json().expect("an event has a name");
            raw_json(name_json);
            socketio::event(&mut frames, namespace, *ack_id, name_json, packet.args_json(), &packet.attachments);
        }
        PacketKind::Ack => {
            socketio::ack(&mut frames, namespace, ack_id.unwrap_or(7), packet.args_json(), &packet.attachments);
        }
        PacketKind::Connect | PacketKind::ConnectError => {
            let data_json = (!packet.payload.is_empty()).then_some(&*packet.payload);
            socketio::connect_error(&mut frames, namespace, namespace, data_json);
        }
        PacketKind::Disconnect => socketio::disconnect(&mut frames, namespace),
        PacketKind::BinaryEvent | PacketKind::BinaryAck => panic!("{kind:?} is not put together"),
    }
    let again = read(&frames, scratch);
    assert_eq!(again.namespace, *namespace);
    match kind {
        PacketKind::Event | PacketKind::Ack => {
            assert_eq!((again.kind, again.ack_id), (*kind, ack_id.or((*kind == PacketKind::Ack).then_some(7))));
            assert_eq!((again.name_json(), again.args_json()), (packet.name_json(), packet.args_json()));
            assert_eq!(again.attachments, packet.attachments);
            let args: Vec<&str> = packet.args().collect();
            let texts = elements(packet.args_json());
            assert_eq!(args, texts.iter().map(|text| text.get()).collect::<Vec<_>>());
            check_collected(packet, &args, scratch);
            check_raw_event(packet, args.len(), scratch);
        }
        PacketKind::Disconnect => assert_eq!(again.kind, PacketKind::Disconnect),
        _ => {
            assert_eq!(again.kind, PacketKind::ConnectError);
            let data = raw_json(&again.payload).get();
            let data = data.split_once(",\"data\":").map(|(_, data)| &data[..data.len() - 1]);
            assert!(packet.payload.is_empty() || data.is_some_and(|data| data.ends_with(&*packet.payload)));
        }
    }
}

/// The one packet in a server's frames.
fn read(frames: &[u8], scratch: &mut Scratch) -> Incoming<'static> {
    // Our own packets may be longer than what clients may send, by names that we put in.
    let limits = Limits { attachments_max: LIMITS.attachments_max, packet_bytes_max: usize::MAX };
    let mut reassembler = Reassembler::default();
    let mut found = None;
    for (kind, payload) in ws::unmasked_messages(frames) {
        assert_eq!(found, None, "a second packet");
        found = match kind {
            Kind::Text => {
                let text = str::from_utf8(payload).unwrap().strip_prefix('4').expect("a message");
                let packet = reassembler.text(text, &limits, scratch).unwrap();
                packet.map(|packet| Incoming {
                    namespace: Cow::Owned(packet.namespace.into_owned()),
                    payload: Cow::Owned(packet.payload.into_owned()),
                    ..packet
                })
            }
            Kind::Binary => reassembler.binary(payload).unwrap(),
            other => panic!("a frame of kind {other:?}"),
        };
    }
    found.expect("a whole packet")
}

/// An answer that carries one of the arguments back has the attachments that this one names, and no others.
fn check_collected(packet: &Incoming<'_>, args: &[&str], scratch: &mut Scratch) {
    for arg in args {
        let (text, collected) = collect_placeholders(arg, &packet.attachments);
        raw_json(&text);
        if packet.attachments.is_empty() {
            assert_eq!((&*text, collected.len()), (*arg, 0));
            continue;
        }
        check_placeholders(&text, collected.len()).unwrap();
        let mut frames = Vec::new();
        socketio::ack(&mut frames, "/", 1, &text, &collected);
        assert_eq!(slices(&read(&frames, scratch)), collected);
    }
}

fn check_raw_event(packet: &Incoming<'_>, arg_count: usize, scratch: &mut Scratch) {
    let Some(name_json) = packet.name_json().filter(|name| name.starts_with('"')) else { return };
    let mut event = Event::new(NamespaceId(0), name_json, packet.args_json(), arg_count);
    event.attachments.clone_from(&packet.attachments);
    for shape in [Shape::Nested, Shape::Flat] {
        let mut frame = Vec::new();
        raw::event(&mut frame, shape, &event);
        let (kind, payload) = ws::unmasked_messages(&frame).next().unwrap();
        let text = str::from_utf8(payload).unwrap();
        assert_eq!(kind, Kind::Text);
        raw_json(text);
        let read = raw::decode(text, shape, scratch).unwrap_or_else(|error| panic!("{error} in {text}"));
        assert_eq!(serde_json::to_string(&read.name).unwrap(), normal(name_json));
        let args: Vec<&str> = packet.args().collect();
        if shape == Shape::Nested && packet.attachments.is_empty() {
            assert_eq!(&read.args[..], args);
        }
        if let (Shape::Flat, [arg], true) = (shape, &args[..], packet.attachments.is_empty()) {
            check_flat(text, name_json, arg);
        }
    }
}

/// Nothing of the only argument is lost in the flat shape.
fn check_flat(text: &str, name_json: &str, arg: &str) {
    // Numbers that serde does not take in say nothing about members.
    let Ok(mut expected) = serde_json::from_str::<serde_json::Map<_, _>>(arg) else { return };
    let Ok(found) = serde_json::from_str::<serde_json::Map<_, _>>(text) else { return };
    let name: serde_json::Value = serde_json::from_str(name_json).unwrap();
    if expected.get("type").is_some_and(|own| *own != name) {
        assert_eq!((found.len(), &found["type"], &found["data"]), (2, &name, &expected.into()));
    } else if found.get("data").and_then(|data| data.as_object()) != Some(&expected) {
        expected.insert("type".to_owned(), name);
        assert_eq!(found, expected);
    }
}

/// A JSON string as serde writes it.
fn normal(string_json: &str) -> String {
    serde_json::to_string(&serde_json::from_str::<String>(string_json).unwrap()).unwrap()
}

fn check_raw(text: &str, scratch: &mut Scratch) {
    for shape in [Shape::Nested, Shape::Flat] {
        match raw::decode(text, shape, scratch) {
            Ok(event) => {
                assert!(event.args.iter().all(|arg| raw_json(arg).get() == *arg));
                assert!(!event.name.is_empty() || text.contains("\"\""));
            }
            Err(error) => check_error(&error, error.label()),
        }
    }
    let mut frame = Vec::new();
    socketio::connect_error(&mut frame, "/", text, None);
    let refusal = read(&frame, scratch);
    assert_eq!(object(&refusal.payload)["message"], text);
}
