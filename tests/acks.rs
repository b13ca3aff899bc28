//! A publisher that asks clients for acknowledgements gets them with its receipt; a volatile event is taken at once or
//! not at all, and costs no slow client its connection.

mod common;

use common::{OPEN, Publisher, RawClient, Server, Signal, http, node, wait_until};
use serde_json::{Value, json};
use std::process::Command;

on_one_and_two_cores!(
    the_official_client_answers,
    it_answers_by_long_polling_too,
    packet_by_packet,
    a_line_that_asks_wrongly_is_refused,
    answers_that_are_too_large_are_counted,
    a_publisher_that_leaves_is_forgotten,
    a_drain_does_not_wait_for_answers,
    the_command_line_prints_answers,
    a_volatile_event_cuts_nobody,
    a_volatile_event_needs_a_poll_that_waits,
);

fn config() -> String {
    format!("{OPEN}\n[[namespace]]\nname = \"/seats\"\n")
}

/// A Socket.IO client in the room "a".
fn in_room(server: &Server) -> RawClient {
    let mut client = RawClient::socket_io(server);
    client.send(r#"42["subscribe",{"room":"a"}]"#);
    assert_eq!(client.next(), r#"42["subscribed",{"room":"a"}]"#);
    client
}

/// The acknowledgement id of the event `e` that the client gets next.
fn asked(client: &mut RawClient) -> u64 {
    let packet = client.next();
    let id = packet.strip_prefix("42").and_then(|rest| rest.strip_suffix(r#"["e"]"#));
    id.and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("{packet} asks for nothing"))
}

fn the_official_client_answers(cores: usize) {
    node("acks.js", &Server::start(&config(), cores), &["websocket"]);
}

fn it_answers_by_long_polling_too(cores: usize) {
    node("acks.js", &Server::start(&config(), cores), &["polling"]);
    node("acks.js", &Server::start(&config(), cores), &["polling", "websocket"]);
}

fn packet_by_packet(cores: usize) {
    let server = Server::start(&config(), cores);
    let mut clients: Vec<RawClient> = (0..4).map(|_| in_room(&server)).collect();
    let mut publisher = Publisher::connect(&server);
    let mut last = 0;
    for round in 1..=3 {
        publisher.line(r#"{"id":"q","room":"a","event":"e","ack":{"timeout_ms":60000}}"#);
        let ids: Vec<u64> = clients.iter_mut().map(asked).collect();
        assert!(ids.iter().all(|id| *id == ids[0]), "one frame for all: {ids:?}");
        assert!(ids[0] < 1 << 53 && ids[0] != last, "{ids:?}");
        for (n, client) in clients.iter_mut().enumerate() {
            // Of an event before this one, and of none.
            client.send(&format!("43{last}[\"old\"]"));
            client.send("43[\"none\"]");
            client.send(&format!("43{}[{n} ,\n1e400,{{\"b\":1,\"a\":1.0}}]", ids[0]));
            client.send(&format!("43{}[\"again\"]", ids[0]));
        }
        last = ids[0];
        let text = publisher.receipt_text();
        for n in 0..clients.len() {
            assert!(text.contains(&format!("\"args\":[{n} , 1e400,{{\"b\":1,\"a\":1.0}}]")), "{text}");
        }
        let receipt: Value = serde_json::from_str(&text.replace("1e400", "1")).unwrap();
        assert_eq!((&receipt["ack"]["asked"], &receipt["ack"]["missing"]), (&json!(4), &json!(0)), "{text}");
        server.await_metric("roomcast_acks_total", &[], f64::from(4 * round));
        server.await_metric("roomcast_acks_ignored_total", &[], f64::from(12 * round));
    }
    server.await_metric("roomcast_asked_total", &[], 12.0);
    server.await_metric("roomcast_asks_total", &[], 3.0);
    server.await_metric("roomcast_acks_missing_total", &[], 0.0);
    // An event that asks for nothing carries no id.
    publisher.line(r#"{"room":"a","event":"e"}"#);
    assert_eq!(clients[0].next(), r#"42["e"]"#);
}

fn a_line_that_asks_wrongly_is_refused(cores: usize) {
    let server = Server::start(&format!("[ingest]\nack_timeout_ms_max = 5000\n{OPEN}"), cores);
    let mut publisher = Publisher::connect(&server);
    for (line, error) in [
        (r#"{"room":"a","event":"e","ack":{"timeout_ms":1}}"#, "needs an \"id\""),
        (r#"{"id":1,"room":"a","event":"e","ack":{"timeout_ms":5001}}"#, "from 1 to 5000, not 5001"),
        (r#"{"id":1,"room":"a","event":"e","ack":{"timeout_ms":1,"x":1}}"#, "unknown key \"x\""),
    ] {
        let answer = publisher.ask(line);
        assert_eq!(answer["ok"], false, "{line}");
        assert!(answer["error"].as_str().unwrap().contains(error), "{answer}");
    }
    server.await_metric("roomcast_ingest_errors_total", &[("reason", "ack")], 3.0);
    assert_eq!(publisher.ask(r#"{"id":1,"room":"a","event":"e","ack":{"timeout_ms":5000}}"#)["ack"]["asked"], 0);
}

fn answers_that_are_too_large_are_counted(cores: usize) {
    let server = Server::start(&format!("[ingest]\nreceipt_bytes_max = 10000\n{OPEN}"), cores);
    let mut clients: Vec<RawClient> = (0..3).map(|_| in_room(&server)).collect();
    let mut publisher = Publisher::connect(&server);
    publisher.line(r#"{"id":1,"room":"a","event":"e","ack":{"timeout_ms":60000}}"#);
    for client in &mut clients {
        let id = asked(client);
        client.send(&format!("43{id}[\"{}\"]", "x".repeat(6000)));
    }
    let ack = &publisher.receipt()["ack"];
    let counts = (&ack["asked"], &ack["missing"], &ack["dropped"], ack["answers"].as_array().unwrap().len());
    assert_eq!(counts, (&json!(3), &json!(0), &json!(2), 1));
    server.await_metric("roomcast_acks_dropped_total", &[], 2.0);
}

fn a_publisher_that_leaves_is_forgotten(cores: usize) {
    let server = Server::start(&config(), cores);
    let mut client = in_room(&server);
    let mut publisher = Publisher::connect(&server);
    publisher.line(r#"{"id":1,"room":"a","event":"e","ack":{"timeout_ms":60000}}"#);
    let id = asked(&mut client);
    server.await_metric("roomcast_asks_open", &[], 1.0);
    // Not by a half-close: that one waits for its receipt.
    let stream = publisher.stream();
    reset_on_close(&stream);
    drop((publisher, stream));
    server.await_metric("roomcast_asks_open", &[], 0.0);
    client.send(&format!("43{id}[]"));
    server.await_metric("roomcast_acks_total", &[], 1.0);
    let mut other = Publisher::connect(&server);
    other.line(r#"{"id":1,"room":"a","event":"e","ack":{"timeout_ms":60000}}"#);
    let id = asked(&mut client);
    client.send(&format!("43{id}[1]"));
    let receipt = other.receipt();
    assert_eq!(receipt["ack"]["answers"][0]["args"], json!([1]), "{receipt}");
    // A publisher that has only said its last line is waited for.
    other.line(r#"{"id":2,"room":"a","event":"e","ack":{"timeout_ms":60000}}"#);
    other.half_close();
    let id = asked(&mut client);
    client.send(&format!("43{id}[2]"));
    assert!(other.rest().contains("\"args\":[2]"));
}

/// Closing resets the connection.
fn reset_on_close(stream: &std::net::TcpStream) {
    socket2::SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
}

fn a_drain_does_not_wait_for_answers(cores: usize) {
    let mut server = Server::start(&format!("[server]\ndrain_ms_max = 6000\n{OPEN}"), cores);
    let (mut answers, mut silent) = (in_room(&server), in_room(&server));
    let mut publisher = Publisher::connect(&server);
    publisher.line(r#"{"id":1,"room":"a","event":"e","ack":{"timeout_ms":60000}}"#);
    let id = asked(&mut answers);
    assert_eq!(asked(&mut silent), id);
    server.signal(Signal::TERM);
    answers.send(&format!("43{id}[\"last words\"]"));
    let receipt = publisher.receipt();
    let ack = &receipt["ack"];
    assert_eq!((&ack["asked"], &ack["missing"]), (&json!(2), &json!(1)), "{receipt}");
    assert_eq!(ack["answers"][0]["args"], json!(["last words"]));
    drop((answers, silent));
    assert!(server.wait().success());
}

fn the_command_line_prints_answers(cores: usize) {
    let server = Server::start(&config(), cores);
    let mut client = in_room(&server);
    let ingest = server.ingest.to_string();
    let command = Command::new(env!("CARGO_BIN_EXE_roomcast"))
        .args(["pub", "--ingest", &ingest, "--ack-timeout-ms", "60000", "a", "e", "1"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let packet = client.next();
    let id = packet.strip_prefix("42").and_then(|rest| rest.strip_suffix(r#"["e",1]"#)).unwrap();
    client.send(&format!("43{id}[\"yes\"]"));
    let output = command.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    assert!(text.starts_with(r#"ok offset 1 ack {"asked":1,"answers":[{"sid":""#), "{text}");
    assert!(text.ends_with("\",\"args\":[\"yes\"]}],\"missing\":0}\n"), "{text}");
}

fn a_volatile_event_cuts_nobody(cores: usize) {
    const BATCH: usize = 50;
    let server = Server::start(&format!("[limits]\noutbox_bytes_max = 65536\n{OPEN}"), cores);
    let mut sleepers: Vec<RawClient> = (0..4).map(|_| RawClient::in_room(&server, "news")).collect();
    let mut publisher = Publisher::connect(&server);
    let padding = "x".repeat(16 << 10);
    let mut sent = 0;
    // Until the kernel holds no more for any of them, and then as much again.
    wait_until("every sleeper has missed some", || {
        for _ in 0..BATCH {
            publisher.line(&format!(
                r#"{{"id":0,"room":"news","event":"big","args":[{sent},"{padding}"],"volatile":true}}"#
            ));
            assert_eq!(publisher.receipt()["ok"], true);
            sent += 1;
        }
        server.metric("roomcast_volatile_dropped_total") >= (4 * BATCH + 4 * sent / 2) as f64
    });
    assert_eq!(server.metric("roomcast_closes_total"), 0.0);
    assert!(server.metric("roomcast_outbox_bytes") <= f64::from(4 * (65536 + (17 << 10))), "nothing piles up");
    // An ordinary event waits for them.
    publisher.line(r#"{"room":"news","event":"end"}"#);
    for sleeper in &mut sleepers {
        let (mut next, mut count) = (0, 0);
        loop {
            let text = sleeper.next();
            if text == r#"{"type":"end"}"# {
                break;
            }
            let event: Value = serde_json::from_str(&text).unwrap();
            let number = event["args"][0].as_u64().unwrap() as usize;
            assert!(number >= next && number < sent, "{number} came after {next} of {sent}");
            (next, count) = (number + 1, count + 1);
        }
        assert!(count < sent, "it cannot have got all {sent}");
    }
    // Whoever reads gets the next one.
    publisher.line(r#"{"room":"news","event":"fresh","volatile":true}"#);
    for sleeper in &mut sleepers {
        assert_eq!(sleeper.next(), r#"{"type":"fresh"}"#);
    }
    assert_eq!(server.metric("roomcast_closes_total"), 0.0);
}

fn a_volatile_event_needs_a_poll_that_waits(cores: usize) {
    let server = Server::start(&config(), cores);
    let listen = server.listen;
    let get = move |sid: &str| {
        let path = format!("/socket.io/?EIO=4&transport=polling{sid}");
        http(listen, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).body
    };
    let open: Value = serde_json::from_str(&get("")[1..]).unwrap();
    let sid = format!("&sid={}", open["sid"].as_str().unwrap());
    let say = |packet: &str| {
        let head =
            format!("POST /socket.io/?EIO=4&transport=polling{sid} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
        let length = packet.len();
        let request = format!("{head}Content-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{packet}");
        assert_eq!(http(listen, &request).body, "ok");
    };
    say("40");
    assert!(get(&sid).starts_with("40{"));
    let mut publisher = Publisher::connect(&server);
    assert_eq!(publisher.ask(r#"{"id":1,"event":"lost","volatile":true}"#)["ok"], true);
    server.await_metric("roomcast_volatile_dropped_total", &[], 1.0);
    assert_eq!(publisher.ask(r#"{"id":1,"event":"kept"}"#)["ok"], true);
    assert_eq!(get(&sid), r#"42["kept"]"#);
    // From some moment on the poll waits, and takes the next one.
    let poll = std::thread::spawn(move || get(&sid));
    wait_until("a volatile event has ended the poll", || {
        publisher.line(r#"{"event":"found","volatile":true}"#);
        poll.is_finished()
    });
    assert!(poll.join().unwrap().starts_with(r#"42["found"]"#));
}
