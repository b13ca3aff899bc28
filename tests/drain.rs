//! SIGTERM and SIGINT: every client is told, every accepted line is delivered, the process ends in time with code 0.

mod common;

use common::wire::{self, Wire};
use common::{OPEN, Publisher, RawClient, Server, Signal};
use std::io::Write;

on_one_and_two_cores!(
    clients_are_told_and_the_exit_is_clean,
    sigint_does_the_same,
    accepted_lines_are_delivered,
    who_ignores_the_close_frame_does_not_hold_it_up,
    a_publisher_that_does_not_read_does_not_hold_it_up,
    health_tells_of_it_and_a_second_signal_ends_it,
    an_idle_server_ends,
);

fn told(cores: usize, signal: Signal) {
    let mut server = Server::start(OPEN, cores);
    let mut clients: Vec<RawClient> = (0..20).map(|_| RawClient::in_room(&server, "a")).collect();
    let mut socket_io: Vec<RawClient> = (0..20).map(|_| RawClient::socket_io(&server)).collect();
    // One that has not said who it is.
    let mut silent = Wire::connect(&server);
    server.await_metric("roomcast_connections", &[], 41.0);
    server.signal(signal);
    for client in clients.iter_mut().chain(&mut socket_io) {
        assert_eq!(client.closed(), (1001, "shutdown".to_owned()));
    }
    silent.ends();
    assert!(server.wait().success());
}

fn clients_are_told_and_the_exit_is_clean(cores: usize) {
    told(cores, Signal::TERM);
}

fn sigint_does_the_same(cores: usize) {
    told(cores, Signal::INT);
}

fn accepted_lines_are_delivered(cores: usize) {
    const LINES: usize = 20_000;
    let mut server = Server::start(&format!("[limits]\noutbox_bytes_max = 100_000_000\n{OPEN}"), cores);
    let mut client = RawClient::in_room(&server, "a");
    let mut publisher = Publisher::connect(&server);
    let mut stream = publisher.stream();
    let writer = std::thread::spawn(move || {
        for n in 0..LINES {
            // The server may close in between.
            let line = format!("{{\"id\":{n},\"room\":\"a\",\"event\":\"n\",\"data\":{n}}}\n");
            if stream.write_all(line.as_bytes()).is_err() {
                return;
            }
        }
    });
    // In the middle of it.
    assert_eq!(publisher.receipt_text(), r#"{"id":0,"ok":true,"offset":1}"#);
    server.signal(Signal::TERM);
    let mut delivered = 0;
    loop {
        match client.message() {
            tungstenite::Message::Text(text) => {
                assert_eq!(text.as_str(), format!(r#"{{"type":"n","data":{delivered}}}"#));
                delivered += 1;
            }
            tungstenite::Message::Close(_) => break,
            other => panic!("{other:?}"),
        }
    }
    let mut receipts = 1;
    for line in publisher.rest_or_reset().lines() {
        // The last one may be cut by a reset, when lines came after the end.
        if line.ends_with('}') {
            assert_eq!(line, format!(r#"{{"id":{receipts},"ok":true,"offset":{}}}"#, receipts + 1));
            receipts += 1;
        }
    }
    writer.join().unwrap();
    assert!(server.wait().success());
    assert!(delivered >= receipts, "{receipts} lines were confirmed, {delivered} delivered");
    println!("{cores} cores: {delivered} of {LINES} delivered, {receipts} receipts");
}

fn who_ignores_the_close_frame_does_not_hold_it_up(cores: usize) {
    // The bound is the drain's, not the close's.
    let mut server = Server::start(&format!("[server]\ndrain_ms_max = 2000\n{OPEN}"), cores);
    let mut deaf: Vec<Wire> = (0..5).map(|_| Wire::open(&server, "/ws")).collect();
    server.await_metric("roomcast_sockets", &[], 5.0);
    assert!(server.stop(Signal::TERM).success());
    for wire in &mut deaf {
        assert_eq!(wire.close_code(), 1001);
        wire.ends();
    }
}

fn a_publisher_that_does_not_read_does_not_hold_it_up(cores: usize) {
    let config = format!("[server]\ndrain_ms_max = 2000\n[ingest]\nreceipt_bytes_max = 65536\n{OPEN}");
    let mut server = Server::start(&config, cores);
    let publisher = Publisher::connect(&server);
    let mut stream = publisher.stream();
    let id = "i".repeat(200);
    let writer = std::thread::spawn(move || {
        let lines = format!("{{\"id\":\"{id}\",\"room\":\"a\",\"event\":\"x\"}}\n").repeat(100_000);
        // Fails when the server closes: that is the point.
        let _ = stream.write_all(lines.as_bytes());
    });
    common::wait_until("lines have come", || server.metric("roomcast_ingest_lines_total") > 1000.0);
    assert!(server.stop(Signal::TERM).success());
    drop(publisher);
    writer.join().unwrap();
}

fn health_tells_of_it_and_a_second_signal_ends_it(cores: usize) {
    let mut server = Server::start(&format!("[server]\ndrain_ms_max = 3_600_000\n{OPEN}"), cores);
    let mut client = Wire::open(&server, "/ws");
    let health: serde_json::Value = serde_json::from_str(&server.admin_get("/health")).unwrap();
    assert_eq!(health["status"], "healthy");
    server.signal(Signal::TERM);
    // The first client of an hour's drain is closed at once or half an hour later; health tells meanwhile.
    common::wait_until("health tells of the drain", || {
        let health: serde_json::Value = serde_json::from_str(&server.admin_get("/health")).unwrap();
        health["status"] == "draining"
    });
    assert_eq!(client.close_code(), 1001);
    // Neither answered nor closed: it goes on, but for a second signal. Should the client's time have run out first,
    // the server has ended in good order.
    server.signal(Signal::TERM);
    let code = server.wait().code();
    assert!(matches!(code, Some(0 | 1)), "{code:?}");
    drop(client);
}

fn an_idle_server_ends(cores: usize) {
    let mut server = Server::start(OPEN, cores);
    assert!(server.stop(Signal::INT).success());
    // One that has had clients, too.
    let mut server = Server::start(OPEN, cores);
    let mut wire = Wire::open(&server, "/ws");
    wire.write(wire::frame(true, wire::CLOSE, b""));
    assert_eq!(wire.close_code(), 1000);
    wire.ends();
    assert!(server.stop(Signal::TERM).success());
}
