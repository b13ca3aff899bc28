//! RFC 6455 and HTTP over real sockets: however the bytes are cut, the messages are the same; whoever breaks the
//! protocol is told by the right code.

mod common;

use common::polling::Http;
use common::wire::{self, Wire};
use common::{OPEN, Publisher, RawClient, Server, http};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

on_one_and_two_cores!(
    frames_may_be_cut_at_every_byte,
    fragments_make_one_message,
    pings_are_answered,
    the_close_handshake_echoes_the_code,
    violations_are_told_by_their_code,
    requests_that_are_refused,
    a_slow_handshake_is_cut,
    a_client_that_vanishes_leaves,
);

const ASK: &str = r#"{"type":"subscribe","data":{"room":"ä😀"}}"#;
const ANSWER: &str = r#"{"type":"subscribed","data":{"room":"ä😀"}}"#;

fn frames_may_be_cut_at_every_byte(cores: usize) {
    let server = Server::start(OPEN, cores);
    // Byte by byte, the handshake included: without Nagle's algorithm each one is a segment of its own.
    let mut wire = Wire::connect(&server);
    for byte in wire::handshake("/ws").bytes() {
        wire.write([byte]);
    }
    wire.upgraded();
    for byte in wire::text(ASK) {
        wire.write([byte]);
    }
    assert_eq!(wire.text(), ANSWER);
    // In two pieces, cut at each place, the second one carrying the start of what follows.
    let message = wire::text(ASK);
    let mut behind = Vec::new();
    for cut in 0..=message.len() {
        behind.extend_from_slice(&message[..cut]);
        wire.write(&behind);
        behind = message[cut..].to_vec();
        if cut == message.len() {
            wire.write(&behind);
        }
    }
    for _ in 0..=message.len() {
        assert_eq!(wire.text(), ANSWER);
    }
    // Each length of header, the payload in many segments.
    for length in [10, 125, 126, 127, 65_535, 65_536, 500_000] {
        let text = format!(r#"{{"type":"subscribe","data":{{"room":"r","padding":"{}"}}}}"#, "x".repeat(length));
        for piece in wire::text(&text).chunks(997) {
            wire.write(piece);
        }
        assert_eq!(wire.text(), r#"{"type":"subscribed","data":{"room":"r"}}"#);
    }
}

fn fragments_make_one_message(cores: usize) {
    let server = Server::start(OPEN, cores);
    let mut wire = Wire::open(&server, "/ws");
    let bytes = ASK.as_bytes();
    // Cut everywhere, also within a character, with a ping in between.
    for cut in 0..=bytes.len() {
        wire.write(wire::frame(false, wire::TEXT, &bytes[..cut]));
        wire.write(wire::frame(true, wire::PING, b"between"));
        assert_eq!(wire.frame(), (wire::PONG, b"between".to_vec()));
        wire.write(wire::frame(false, wire::CONTINUATION, b""));
        wire.write(wire::frame(true, wire::CONTINUATION, &bytes[cut..]));
        assert_eq!(wire.text(), ANSWER);
    }
    // One byte a fragment, all in one segment.
    let mut all = Vec::new();
    for (n, byte) in bytes.iter().enumerate() {
        let opcode = if n == 0 { wire::TEXT } else { wire::CONTINUATION };
        all.extend(wire::frame(n + 1 == bytes.len(), opcode, &[*byte]));
    }
    wire.write(all);
    assert_eq!(wire.text(), ANSWER);
}

fn pings_are_answered(cores: usize) {
    let server = Server::start(OPEN, cores);
    let mut wire = Wire::open(&server, "/ws");
    let longest = [7; 125];
    for data in [&b""[..], b"x", &longest] {
        wire.write(wire::frame(true, wire::PING, data));
        assert_eq!(wire.frame(), (wire::PONG, data.to_vec()));
    }
    // A pong that nobody asked for is no offence.
    wire.write(wire::frame(true, wire::PONG, b"hello"));
    wire.write(wire::text(ASK));
    assert_eq!(wire.text(), ANSWER);
}

fn the_close_handshake_echoes_the_code(cores: usize) {
    let server = Server::start(OPEN, cores);
    for (payload, code) in [
        (vec![], 1000),
        (1000u16.to_be_bytes().to_vec(), 1000),
        (1001u16.to_be_bytes().to_vec(), 1001),
        ([&4321u16.to_be_bytes()[..], "bye ä".as_bytes()].concat(), 4321),
    ] {
        let mut wire = Wire::open(&server, "/ws");
        wire.write(wire::text(ASK));
        wire.write(wire::frame(true, wire::CLOSE, &payload));
        // What was asked before the goodbye is answered.
        assert_eq!(wire.text(), ANSWER);
        assert_eq!(wire.close_code(), code, "{payload:?}");
        wire.ends();
    }
    server.await_metric("roomcast_closes_total", &[("reason", "client left")], 4.0);
    server.await_metric("roomcast_sockets", &[], 0.0);
}

fn violations_are_told_by_their_code(cores: usize) {
    const MAX: usize = 2000;
    let server = Server::start(&format!("[limits]\nmessage_bytes_max = {MAX}\n{OPEN}"), cores);
    let unmasked = vec![0x81, 2, b'{', b'}'];
    let mut reserved = wire::text("{}");
    reserved[0] |= 0x40;
    let close = |payload: &[u8]| wire::frame(true, wire::CLOSE, payload);
    let two = |a: Vec<u8>, b: Vec<u8>| [a, b].concat();
    let half = vec![b' '; MAX / 2];
    let too_big_head = {
        // Announced, never sent: nobody waits for it.
        let mut head = vec![0x81, 0x80 | 127];
        head.extend_from_slice(&(1u64 << 40).to_be_bytes());
        head.extend_from_slice(&[0; 4]);
        head
    };
    for (what, bytes, code) in [
        ("an unmasked frame", unmasked, 1002),
        ("a reserved bit", reserved, 1002),
        ("a reserved opcode", wire::frame(true, 3, b""), 1002),
        ("a reserved control opcode", wire::frame(true, 11, b""), 1002),
        ("a long ping", wire::frame(true, wire::PING, &[0; 126]), 1002),
        ("a fragmented ping", wire::frame(false, wire::PING, b""), 1002),
        ("a continuation of nothing", wire::frame(true, wire::CONTINUATION, b"x"), 1002),
        ("a message within a message", two(wire::frame(false, wire::TEXT, b"{"), wire::text("{}")), 1002),
        ("a close code of one byte", close(&[3]), 1002),
        ("a close code that must not be sent", close(&1005u16.to_be_bytes()), 1002),
        ("a close code below 1000", close(&999u16.to_be_bytes()), 1002),
        ("text that is no UTF-8", wire::frame(true, wire::TEXT, b"\xff{}"), 1007),
        ("text cut within a character", wire::frame(true, wire::TEXT, b"{\"type\":\"\xc3"), 1007),
        ("a close reason that is no UTF-8", close(&[3, 232, 0xff]), 1007),
        ("a message over the bound", wire::text(&" ".repeat(MAX + 1)), 1009),
        ("a message announced over the bound", too_big_head, 1009),
        (
            "fragments over the bound",
            two(
                two(wire::frame(false, wire::TEXT, &half), wire::frame(false, wire::CONTINUATION, &half)),
                wire::frame(false, wire::CONTINUATION, b" "),
            ),
            1009,
        ),
        ("a binary message at a text endpoint", wire::frame(true, wire::BINARY, b"x"), 1003),
    ] {
        let mut wire = Wire::open(&server, "/ws");
        wire.write(&bytes);
        assert_eq!(wire.close_code(), code, "{what}");
        // Its own close answered, the client is let go at once.
        wire.write(wire::frame(true, wire::CLOSE, &code.to_be_bytes()));
        wire.ends();
    }
    // Exactly the bound is allowed.
    let mut wire = Wire::open(&server, "/ws");
    wire.write(wire::text(&format!("{ASK:MAX$}").chars().take(MAX - 4).collect::<String>()));
    assert_eq!(wire.text(), ANSWER);
    // JSON that is no event is answered, and the connection goes on.
    for bad in ["", "x", "[]", "{}", r#"{"type":7}"#, r#"{"type":"subscribe"}"#, r#"{"type":"no such"}"#] {
        wire.write(wire::text(bad));
        assert!(wire.text().starts_with(r#"{"type":"error","data":{"message":""#), "{bad}");
    }
    wire.write(wire::text(ASK));
    assert_eq!(wire.text(), ANSWER);
    server.await_metric("roomcast_sockets", &[], 1.0);
}

fn requests_that_are_refused(cores: usize) {
    let server = Server::start(OPEN, cores);
    let good = wire::handshake("/ws");
    let without = |header: &str| -> String {
        let lines = good.split_inclusive("\r\n").filter(|line| !line.to_lowercase().starts_with(header));
        lines.collect()
    };
    let long = good.replace("\r\n\r\n", &format!("\r\nX: {}\r\n\r\n", "x".repeat(9000)));
    let many = good.replace("\r\n\r\n", &format!("{}\r\n\r\n", "\r\nX: x".repeat(100)));
    for (request, status) in [
        (wire::handshake("/nowhere"), 404),
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 404),
        (without("host"), 400),
        (without("sec-websocket-key"), 400),
        (good.replace("dGhlIHNhbXBsZSBub25jZQ==", "short"), 400),
        ("\x16\x03\x01 this is TLS\r\n\r\n".to_owned(), 400),
        ("GET no-slash HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 400),
        (good.replace("\r\n\r\n", "\r\nContent-Length: 5\r\n\r\n"), 400),
        (without("upgrade"), 426),
        (without("connection"), 426),
        (without("sec-websocket-version"), 426),
        (good.replace("Version: 13", "Version: 8"), 426),
        (good.replace("GET", "POST"), 405),
        (long, 431),
        (many, 431),
        (good.replace("HTTP/1.1", "HTTP/1.0"), 426),
        (good.replace("HTTP/1.1", "HTTP/2.0"), 505),
    ] {
        let response = http(server.listen, &request);
        assert_eq!(response.status, status, "{request}{}", response.body);
        assert!(response.head.contains("Connection: close\r\n"), "{}", response.head);
        assert!(!response.body.is_empty(), "a refusal says why");
        if status == 426 {
            assert!(response.head.contains("Upgrade: websocket\r\n"), "{}", response.head);
            assert!(response.head.contains("Sec-WebSocket-Version: 13\r\n"), "{}", response.head);
        }
    }
    server.await_metric("roomcast_http_refused_total", &[], 17.0);
    server.await_metric("roomcast_connections", &[], 0.0);
    // With and without its last slash, whatever the query.
    for path in ["/ws", "/ws/", "/ws?x=1&y", "/ws/?"] {
        Wire::open(&server, path);
    }
}

fn a_slow_handshake_is_cut(cores: usize) {
    let server = Server::start(&format!("[limits]\nhandshake_ms_max = 1000\n{OPEN}"), cores);
    // Neither silence nor half a request holds a connection.
    let mut silent = Wire::connect(&server);
    let mut slow = Http::connect(server.listen);
    slow.write("GET /ws HTTP/1.1\r\nHost: x\r\n");
    silent.ends();
    assert_eq!(slow.response().status, 408);
    slow.ends();
    server.await_metric("roomcast_http_refused_total", &[("reason", "handshake_timeout")], 2.0);
    server.await_metric("roomcast_connections", &[], 0.0);
}

fn a_client_that_vanishes_leaves(cores: usize) {
    let server = Server::start(OPEN, cores);
    let mut stays = RawClient::in_room(&server, "a");
    // A reset, an end without a close frame, half an end, and leaving in the middle of a frame.
    let reset = RawClient::in_room(&server, "a");
    socket2::SockRef::from(&reset.stream()).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(reset);
    drop(RawClient::in_room(&server, "a"));
    let half = RawClient::in_room(&server, "a");
    half.stream().shutdown(Shutdown::Write).unwrap();
    let mut mid_frame = RawClient::in_room(&server, "a").stream();
    mid_frame.write_all(&wire::text(ASK)[..9]).unwrap();
    drop(mid_frame);
    server.await_metric("roomcast_sockets", &[], 1.0);
    server.await_metric("roomcast_connections", &[], 1.0);
    let mut publisher = Publisher::connect(&server);
    publisher.line(r#"{"room":"a","event":"x"}"#);
    assert_eq!(stays.next(), r#"{"type":"x"}"#);
    server.await_metric("roomcast_deliveries_total", &[], 1.0);
    // The half-closed one was closed by the server.
    let mut rest = Vec::new();
    match (&mut half.stream() as &mut TcpStream).read_to_end(&mut rest) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}
