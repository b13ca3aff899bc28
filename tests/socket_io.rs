//! Socket.IO v5 over Engine.IO v4, packet by packet as the protocol documents say, and with the official client.

mod common;

use common::wire::{self, Wire};
use common::{RawClient, Server, http, node, wait_until};
use serde_json::Value;

on_one_and_two_cores!(
    the_official_client_finds_what_it_relies_on,
    the_handshake_names_its_terms,
    handshakes_that_are_refused,
    pings_come_and_pongs_keep_alive,
    who_does_not_pong_is_closed,
    who_connects_to_no_namespace_is_closed,
    connect_event_and_more_in_one_segment,
    namespaces_connect_and_disconnect,
    binary_events_are_put_together,
    many_attachments_and_large_ones,
    packets_against_the_protocol_close_the_connection,
);

const CONFIG: &str = r#"
[[namespace]]
name = "/"

[[namespace.on]]
event = "subscribe"
join = ["{data.room}"]
ack = ["ok"]

[[namespace.on]]
event = "echo"
reply = { event = "back", data = "{data}" }
ack = "{args}"

[[namespace]]
name = "/seats"

[[namespace.on]]
event = "subscribe"
join = ["{data.room}"]
ack = ["seats ok"]

[[namespace]]
name = "/vip"

[[namespace.connect]]
allow = "auth.token == 'right'"
reply = { event = "welcome", data = { id = "{sid}", token = "{auth.token}" } }

[[namespace.connect]]
when = "has(query.lang)"
reply = { event = "query", data = { lang = "{query.lang}" } }
"#;

fn the_official_client_finds_what_it_relies_on(cores: usize) {
    node("socket_io.js", &Server::start(CONFIG, cores), &[]);
}

fn the_handshake_names_its_terms(cores: usize) {
    let config = format!(
        "[heartbeat]\nping_interval_ms = 12345\nping_timeout_ms = 6789\n[limits]\nmessage_bytes_max = 54321\n{CONFIG}"
    );
    let server = Server::start(&config, cores);
    let (_client, open) = RawClient::engine_io(&server);
    assert_eq!(open["pingInterval"], 12345);
    assert_eq!(open["pingTimeout"], 6789);
    assert_eq!(open["maxPayload"], 54321);
    assert_eq!(open["upgrades"], Value::Array(Vec::new()));
    assert_eq!(open["sid"].as_str().unwrap().len(), 20);
    assert_eq!(open.as_object().unwrap().len(), 5, "{open}");
    let (_other, other) = RawClient::engine_io(&server);
    assert_ne!(open["sid"], other["sid"]);
}

fn handshakes_that_are_refused(cores: usize) {
    let server = Server::start(CONFIG, cores);
    // As the Node server answers: a refused WebSocket in words, other requests in JSON with a code.
    for (query, code, message) in [
        ("?EIO=4", 0, "Transport unknown"),
        ("?EIO=4&transport=carrier-pigeon", 0, "Transport unknown"),
        ("?EIO=4&transport=websocket&sid=AAAAAAAAAAAAAAAAAAAA", 1, "Session ID unknown"),
        ("?EIO=3&transport=websocket", 5, "Unsupported protocol version"),
        ("?transport=websocket", 5, "Unsupported protocol version"),
        ("?EIO=4&transport=websocket", 3, "Bad request"),
    ] {
        if code != 3 {
            let response = http(server.listen, &wire::handshake(&format!("/socket.io/{query}")));
            assert_eq!((response.status, response.body.as_str()), (400, message), "{query}");
        }
        if query != "?EIO=3&transport=websocket" && query != "?transport=websocket" {
            let plain = format!("GET /socket.io/{query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            let response = http(server.listen, &plain);
            let body: Value = serde_json::from_str(&response.body).unwrap();
            assert_eq!((response.status, &body["code"], &body["message"]), (400, &code.into(), &message.into()));
        }
    }
    server.await_metric("roomcast_http_refused_total", &[], 9.0);
}

fn pings_come_and_pongs_keep_alive(cores: usize) {
    // The timeout leaves room for any machine: it must not strike a client that answers.
    let config = format!("[heartbeat]\nping_interval_ms = 100\nping_timeout_ms = 50000\n{CONFIG}");
    let server = Server::start(&config, cores);
    let mut client = RawClient::socket_io(&server);
    for _ in 0..5 {
        assert_eq!(client.next(), "2");
        client.send("3");
    }
    // No second ping before the first is answered.
    assert_eq!(client.next(), "2");
    assert_eq!(client.ask(r#"42["echo",1]"#), r#"42["back",1]"#);
    client.send("3");
    assert_eq!(client.next(), "2");
}

fn who_does_not_pong_is_closed(cores: usize) {
    let config = format!("[heartbeat]\nping_interval_ms = 100\nping_timeout_ms = 100\n{CONFIG}");
    let server = Server::start(&config, cores);
    // All that the client will ever say comes at once, however slow the machine is.
    let mut client = Wire::connect(&server);
    let hello = wire::handshake("/socket.io/?EIO=4&transport=websocket");
    client.write([hello.as_bytes(), &wire::text("40")].concat());
    client.upgraded();
    assert!(client.text().starts_with("0{"));
    assert!(client.text().starts_with("40{"));
    assert_eq!(client.text(), "2");
    assert_eq!(client.close_code(), 1000);
    // A raw client's heartbeat is WebSocket's own: a client that answers nothing at all.
    let mut raw = Wire::open(&server, "/ws");
    assert_eq!(raw.frame(), (wire::PING, Vec::new()));
    assert_eq!(raw.close_code(), 1000);
    server.await_metric("roomcast_closes_total", &[("reason", "ping timeout")], 2.0);
    server.await_metric("roomcast_sockets", &[], 0.0);
    // Nor does the answer to the close frame ever come; the connection ends nevertheless.
    raw.ends();
    client.ends();
    wait_until("the connections are gone", || server.metric("roomcast_connections") == 0.0);
}

fn who_connects_to_no_namespace_is_closed(cores: usize) {
    let config = format!("[heartbeat]\nconnect_timeout_ms = 100\n{CONFIG}");
    let server = Server::start(&config, cores);
    let (mut silent, _) = RawClient::engine_io(&server);
    assert_eq!(silent.closed(), (1000, "connect timeout".to_owned()));
    server.await_metric("roomcast_sessions_socket_io", &[], 0.0);
}

fn connect_event_and_more_in_one_segment(cores: usize) {
    let server = Server::start(CONFIG, cores);
    let mut wire = Wire::connect(&server);
    // The client does not even wait for the handshake's answer.
    let mut bytes = wire::handshake("/socket.io/?EIO=4&transport=websocket").into_bytes();
    for packet in ["40", r#"420["subscribe",{"room":"a"}]"#, "40/seats,", r#"42/seats,1["subscribe",{"room":"a"}]"#] {
        bytes.extend(wire::text(packet));
    }
    bytes.extend(wire::text(r#"422["echo",1]"#));
    wire.write(&bytes);
    wire.upgraded();
    assert!(wire.text().starts_with('0'));
    assert!(wire.text().starts_with("40{\"sid\":\""));
    assert_eq!(wire.text(), r#"430["ok"]"#);
    assert!(wire.text().starts_with("40/seats,{\"sid\":\""));
    assert_eq!(wire.text(), r#"43/seats,1["seats ok"]"#);
    assert_eq!(wire.text(), r#"42["back",1]"#);
    assert_eq!(wire.text(), "432[1]");
}

fn namespaces_connect_and_disconnect(cores: usize) {
    let server = Server::start(CONFIG, cores);
    let (mut client, _) = RawClient::engine_io(&server);
    assert_eq!(client.ask("40/nowhere,"), r#"44/nowhere,{"message":"Invalid namespace"}"#);
    let refusal = client.ask(r#"40/vip,{"token":"wrong"}"#);
    assert!(refusal.starts_with(r#"44/vip,{"message":""#), "{refusal}");
    // Without the main namespace: it is not obligatory.
    assert!(client.ask("40/seats,{}").starts_with("40/seats,{\"sid\":\""));
    server.await_metric("roomcast_sockets", &[], 1.0);
    client.send("41/seats,");
    server.await_metric("roomcast_sockets", &[], 0.0);
    assert!(client.ask("40/seats,").starts_with("40/seats,{\"sid\":\""));
    assert!(client.ask("40").starts_with("40{\"sid\":\""));
    server.await_metric("roomcast_sockets", &[], 2.0);
    // Engine.IO's close packet ends it all.
    client.send("1");
    client.closed();
    server.await_metric("roomcast_sockets", &[], 0.0);
}

/// Each attachment is a message of its own, and may be as large as one.
fn many_attachments_and_large_ones(cores: usize) {
    let server = Server::start(CONFIG, cores);
    let mut client = RawClient::socket_io(&server);
    for (count, bytes) in [(300, 1), (3, 900_000)] {
        let places: Vec<String> = (0..count).map(|num| format!(r#"{{"_placeholder":true,"num":{num}}}"#)).collect();
        let places = places.join(",");
        client.send(&format!(r#"45{count}-7["echo",[{places}]]"#));
        for number in 0..count {
            client.send_binary(&vec![number as u8; bytes]);
        }
        for packet in [format!(r#"45{count}-["back",[{places}]]"#), format!(r#"46{count}-7[[{places}]]"#)] {
            assert_eq!(client.next(), packet);
            for number in 0..count {
                assert!(client.next_binary() == vec![number as u8; bytes], "attachment {number} of {count}");
            }
        }
    }
}

fn binary_events_are_put_together(cores: usize) {
    let server = Server::start(CONFIG, cores);
    let mut client = RawClient::socket_io(&server);
    client.send(r#"452-7["echo",{"_placeholder":true,"num":0},{"b":{"_placeholder":true,"num":1}}]"#);
    client.send_binary(b"first");
    client.send_binary(b"");
    // The reply carries the first argument, and only its attachment.
    assert_eq!(client.next(), r#"451-["back",{"_placeholder":true,"num":0}]"#);
    assert_eq!(client.next_binary(), b"first");
    assert_eq!(client.next(), r#"462-7[{"_placeholder":true,"num":0},{"b":{"_placeholder":true,"num":1}}]"#);
    assert_eq!(client.next_binary(), b"first");
    assert_eq!(client.next_binary(), b"");
}

fn packets_against_the_protocol_close_the_connection(cores: usize) {
    let server = Server::start(CONFIG, cores);
    let mut bystander = RawClient::socket_io(&server);
    let garbage = [
        // Of a namespace that is not connected.
        r#"42/seats,["subscribe",{"room":"a"}]"#,
        "41/seats,",
        r#"43/seats,1[]"#,
        // Connected twice.
        "40",
        // Not Engine.IO.
        "9",
        "",
        "hello",
        // Heartbeats go the other way.
        "2",
        "2probe",
        // Not Socket.IO.
        "4",
        "49",
        "42",
        "42[]",
        "42{}",
        r#"42["unfinished""#,
        r#"42["x"]trailing"#,
        "42[{}]",
        "44{}",
        // The server's own events are not the client's to send (Socket.IO's reserved names).
        r#"42["connect"]"#,
        // Binary without binary.
        r#"451-["echo",{"_placeholder":true,"num":9}]"#,
        r#"45999999999-["echo"]"#,
        r#"451["echo"]"#,
    ];
    for (n, packet) in garbage.iter().enumerate() {
        let mut client = RawClient::socket_io(&server);
        client.send(packet);
        if packet.contains("\"num\":9") {
            client.send_binary(b"x");
        }
        let (code, reason) = client.closed();
        assert_eq!((code, reason.as_str()), (1002, "parse error"), "{packet:?}");
        server.await_metric("roomcast_client_errors_total", &[], (n + 1) as f64);
    }
    // Text where an attachment is awaited; an attachment that nobody awaits.
    let mut client = RawClient::socket_io(&server);
    client.send(r#"451-["echo",{"_placeholder":true,"num":0}]"#);
    client.send(r#"42["echo",1]"#);
    assert_eq!(client.closed().0, 1002);
    let mut client = RawClient::socket_io(&server);
    client.send_binary(b"x");
    assert_eq!(client.closed().0, 1002);
    // Nobody else was harmed.
    assert_eq!(bystander.ask(r#"42["echo",1]"#), r#"42["back",1]"#);
    server.await_metric("roomcast_sockets", &[], 1.0);
}
