//! Any bytes as what publishers send: the same lines in whatever pieces they come, each understood or refused with
//! words, each receipt one line of JSON. What is understood holds what its types promise, as it goes to clients unread.
#![no_main]

use libfuzzer_sys::fuzz_target;
use roomcast::base::frame::Encoding;
use roomcast::base::ids::{CoreId, Offset, RoomName, SocketId};
use roomcast::proto::line::query::{self, CoreStats, Query, RoomFacts, RoomOrder, SocketFacts, TopRoom};
use roomcast::proto::line::{
    Ack, Acks, Emit, Limits, Line, Op, OpKind, Parser, Receipt, Request, put_attachments, split_line, write_error,
    write_receipt,
};
use roomcast::proto::socketio::check_placeholders;
use roomcast_fuzz::{arrivals, elements, object, raw_json};

fuzz_target!(|data: &[u8]| {
    let expected: Vec<&[u8]> = data.split(|byte| *byte == b'\n').collect();
    let (_, expected) = expected.split_last().expect("a split gives something");
    let expected: Vec<&[u8]> = expected.iter().map(|line| line.strip_suffix(b"\r").unwrap_or(line)).collect();
    for pieces in arrivals(data) {
        assert_eq!(lines(&pieces), expected);
    }
    // Small, so that inputs reach them.
    let limits = Limits { room_name_bytes_max: 20, rooms_max: 8, id_bytes_max: 20, ..Limits::default() };
    let mut parser = Parser::new();
    for (index, line) in data.split(|byte| *byte == b'\n').enumerate() {
        match parser.parse(line, &limits) {
            Ok(line) => check_line(&line, &limits, &mut parser),
            Err(error) => {
                roomcast_fuzz::check_error(&error, error.label);
                let mut receipt = Vec::new();
                write_error(&mut receipt, error.id.as_deref(), &error.message, index as u64 + 1);
                let members = receipt_of(&receipt, error.id.as_deref());
                assert_eq!((&members["ok"], &members["error"]), (&false.into(), &error.message.into()));
            }
        }
    }
});

/// The lines, as the bytes arrive.
fn lines(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
    let (mut buffer, mut lines) = (Vec::new(), Vec::new());
    for piece in pieces {
        let mut searched = buffer.len();
        buffer.extend_from_slice(piece);
        while let Some((line, bytes)) = split_line(&buffer, searched) {
            lines.push(line.to_owned());
            buffer.drain(..bytes);
            searched = 0;
        }
    }
    lines
}

/// A receipt's members: one line, with the line's id as it was written.
fn receipt_of(receipt: &[u8], id: Option<&str>) -> serde_json::Map<String, serde_json::Value> {
    let text = str::from_utf8(receipt).unwrap().strip_suffix('\n').expect("a line");
    assert!(!text.contains(['\n', '\r']), "two lines: {text:?}");
    assert!(text.starts_with(&format!("{{\"id\":{},\"ok\":", id.unwrap_or("null"))), "{text}");
    object(text)
}

fn check_line(line: &Line<'_>, limits: &Limits, parser: &mut Parser) {
    assert!(line.namespace.starts_with('/'));
    let rooms: Vec<RoomName> = match &line.request {
        Request::Emit(emit) => {
            check_emit(emit, line.id, limits, parser);
            emit.rooms.iter().chain(&emit.except).cloned().collect()
        }
        Request::Op(Op { kind, target, rooms }) => {
            assert_eq!(rooms.is_empty(), matches!(kind, OpKind::Disconnect { .. }));
            rooms.iter().chain(target).cloned().collect()
        }
        Request::Query(query) => check_query(query, line),
        Request::Auth { .. } => Vec::new(),
    };
    assert!(rooms.len() <= limits.rooms_max + 1);
    assert!(rooms.iter().all(|room| (1..=limits.room_name_bytes_max).contains(&room.as_str().len())));
    let Some(id) = line.id else { return };
    assert!(id.len() <= limits.id_bytes_max && matches!(raw_json(id).get().as_bytes()[0], b'"' | b'-' | b'0'..=b'9'));
    let offsets: Vec<_> = rooms.iter().zip(1..).map(|(room, offset)| (room.clone(), Offset(offset))).collect();
    let sockets = Receipt::Sockets { applied: u64::MAX, refused: 1 };
    for receipt in [Receipt::Offset(Offset(u64::MAX)), Receipt::Offsets(&offsets), sockets] {
        let mut out = Vec::new();
        write_receipt(&mut out, id, receipt, None);
        let members = receipt_of(&out, Some(id));
        if let (Receipt::Offsets(_), Some((room, _))) = (receipt, offsets.last()) {
            assert_eq!(members["offsets"][room.as_str()], offsets.len());
        }
    }
}

/// The answers to a question are receipts like others, whatever the names in them. Returns the names.
fn check_query(query: &Query, line: &Line<'_>) -> Vec<RoomName> {
    let id = line.id.expect("a question has an id");
    let order = RoomOrder { offset: u64::MAX, epoch: 1, rate: 1e300, bytes: 0 };
    let facts = |name: RoomName| RoomFacts { name, members: [u32::MAX / 8, 0, 1], order: Some(order) };
    let mut out = Vec::new();
    let rooms = match query {
        Query::Stats => {
            query::write_stats(&mut out, id, &line.namespace, u64::MAX, &[CoreStats::default(); 2]);
            Vec::new()
        }
        Query::Rooms { prefix, after, limit } => {
            assert!((1..=query::ROOMS_MAX).contains(limit));
            let names = [prefix, after].map(|name| RoomName::new(name, usize::MAX));
            let rooms: Vec<RoomFacts> = names.into_iter().flatten().map(facts).collect();
            query::write_rooms(&mut out, id, rooms.iter(), *limit > 1);
            Vec::new()
        }
        Query::Top { by, limit } => {
            assert!((1..=query::TOP_MAX).contains(limit));
            let namespace = (&*line.namespace).into();
            let room = TopRoom { namespace, room: RoomName::whole_namespace(), count: u64::MAX, error: 0 };
            query::write_top(&mut out, id, *by, 0, &[room.clone(), room]);
            Vec::new()
        }
        Query::Room(name) => {
            query::write_room(&mut out, id, name, &[facts(name.clone()), facts(name.clone())]);
            vec![name.clone()]
        }
        Query::Socket(sid) => {
            let rooms: Vec<RoomName> = RoomName::new(sid, usize::MAX).into_iter().collect();
            let socket = SocketFacts {
                sid: SocketId::new(CoreId::new(1), 2, [3; 9]),
                ip: [0u16; 8].into(),
                encoding: Encoding::SocketIo,
                polls: true,
                waiting: u64::MAX,
                room_count: rooms.len(),
                rooms,
            };
            query::write_socket(&mut out, id, &line.namespace, Some(&socket));
            Vec::new()
        }
    };
    let members = receipt_of(&out, Some(id));
    assert_eq!((members.len(), &members["ok"]), (if members.contains_key("next") { 4 } else { 3 }, &true.into()));
    rooms
}

fn check_emit(emit: &Emit<'_>, id: Option<&str>, limits: &Limits, parser: &mut Parser) {
    let name: String = serde_json::from_str(emit.name_json).expect("the name is a JSON string");
    assert!((1..=limits.event_name_bytes_max).contains(&name.len()));
    assert_eq!(elements(&emit.args).len(), emit.arg_count);
    assert!(emit.key.as_ref().is_none_or(|key| (1..=limits.key_bytes_max).contains(&key.len())));
    assert!(emit.ack_timeout_ms.is_none_or(|ms| ms <= limits.ack_timeout_ms_max && id.is_some()));
    if !emit.attachments.is_empty() {
        check_placeholders(&emit.args, emit.attachments.len()).unwrap();
    }
    // As if a client had answered with the arguments: they stand in a receipt as they came.
    let args = put_attachments(&emit.args, &emit.attachments);
    let acks = Acks {
        asked: 3,
        answers: vec![Ack { sid: SocketId::new(CoreId::new(1), 2, [3; 9]), args_json: args.clone() }],
        dropped: 1,
    };
    let mut receipt = Vec::new();
    write_receipt(&mut receipt, "7", Receipt::Offset(Offset(0)), Some(&acks));
    let text = str::from_utf8(&receipt).unwrap().strip_suffix('\n').expect("a line");
    assert!(!text.contains(['\n', '\r']) && raw_json(text).get() == text);
    let again =
        format!("{{\"event\":{},\"binary\":{},\"args\":[{args}]}}", emit.name_json, !emit.attachments.is_empty());
    let again = parser.parse(again.as_bytes(), limits).unwrap_or_else(|error| panic!("{error} in {again}"));
    let Request::Emit(again) = again.request else { panic!("{again:?}") };
    assert_eq!((again.attachments.as_slice(), again.arg_count), (emit.attachments.as_slice(), emit.arg_count));
    assert_eq!(again.args, emit.args.replace(['\n', '\r'], " ").trim());
}
