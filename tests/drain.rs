//! SIGTERM and SIGINT: every client is told, every accepted line is delivered, the process ends in time with code 0.

mod common;

use common::polling::{Http, Polling, get};
use common::wire::{self, Wire};
use common::{Node, OPEN, Publisher, RawClient, Server, Signal};
use std::io::Write;
use std::time::{Duration, Instant};

on_one_and_two_cores!(
    clients_are_told_and_the_exit_is_clean,
    sigint_does_the_same,
    accepted_lines_are_delivered,
    who_ignores_the_close_frame_does_not_hold_it_up,
    a_publisher_that_does_not_read_does_not_hold_it_up,
    health_tells_of_it_and_a_second_signal_ends_it,
    an_idle_server_ends,
    clients_who_poll_get_a_clean_end,
    publishers_are_told_which_lines_were_not_taken,
    nobody_new_comes_in,
    clients_go_at_the_pace_that_is_set,
    stock_clients_come_back_by_themselves,
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
        if line.ends_with("\"draining\":true}") {
            assert_eq!(line, notice(receipts + 1), "the first line without a receipt was not taken");
        } else if line.ends_with('}') {
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

/// What a publisher is told at the end.
fn notice(line: usize) -> String {
    let told = "the server stops; from this line on nothing was taken: say it again to the next one";
    format!(r#"{{"id":null,"ok":false,"error":"{told}","line":{line},"draining":true}}"#)
}

#[track_caller]
fn await_draining(server: &Server) {
    common::wait_until("the server drains", || {
        let health: serde_json::Value = serde_json::from_str(&server.admin_get("/health")).unwrap();
        health["status"] == "draining"
    });
}

fn clients_who_poll_get_a_clean_end(cores: usize) {
    // Long enough for a slow machine: nobody waits for it.
    let mut server = Server::start(&format!("[server]\ndrain_ms_max = 90_000\n{OPEN}"), cores);
    // Some whose poll waits, and some between two polls.
    let mut waiting: Vec<Polling> = (0..4).map(|_| Polling::in_room(&server, "a")).collect();
    let mut between: Vec<Polling> = (0..4).map(|_| Polling::in_room(&server, "b")).collect();
    waiting.iter_mut().for_each(Polling::begin_poll);
    let mut idle = Http::connect(server.listen);
    assert_eq!(idle.ask(get("/none")).status, 404);
    idle.ends();
    let mut silent = Wire::connect(&server);
    let mut publisher = Publisher::connect(&server);
    assert_eq!(publisher.ask(r#"{"id":1,"room":"b","event":"x"}"#)["ok"], true);
    server.signal(Signal::TERM);
    for client in &mut waiting {
        let response = client.polls().response();
        assert_eq!((response.status, response.body.as_str()), (200, "1"));
        assert!(response.head.contains("Connection: close\r\n"), "{}", response.head);
        client.polls().ends();
    }
    silent.ends();
    await_draining(&server);
    for client in &mut between {
        // On the connection that they have: no other is accepted. What had come before is not lost.
        let mut packets: Vec<String> = Vec::new();
        while packets.last().is_none_or(|last| last != "1") {
            packets.extend(client.poll().split(common::polling::SEPARATOR).map(str::to_owned));
        }
        assert_eq!(packets, [r#"42["x"]"#, "1"]);
        client.polls().ends();
    }
    // With the last of them all other connections go.
    assert!(server.wait().success());
}

fn publishers_are_told_which_lines_were_not_taken(cores: usize) {
    let mut server = Server::start(OPEN, cores);
    let mut idle = Publisher::connect(&server);
    let mut confirmed = Publisher::connect(&server);
    let mut cut = Publisher::connect(&server);
    for n in 1..=3 {
        assert_eq!(confirmed.ask(&format!(r#"{{"id":{n},"room":"a","event":"x"}}"#))["ok"], true);
    }
    // A line that is not whole is not taken.
    assert_eq!(cut.ask(r#"{"id":1,"room":"a","event":"x"}"#)["ok"], true);
    cut.bytes(r#"{"room":"a","#);
    common::wait_until("the bytes have come", || server.metric("roomcast_ingest_received_bytes_total") > 130.0);
    server.signal(Signal::TERM);
    assert_eq!(idle.rest(), notice(1) + "\n");
    assert_eq!(confirmed.rest(), notice(4) + "\n");
    assert_eq!(cut.rest(), notice(2) + "\n");
    assert!(server.wait().success());
}

fn nobody_new_comes_in(cores: usize) {
    let mut server = Server::start(&format!("[server]\ndrain_ms_max = 90_000\n{OPEN}"), cores);
    // It holds up the end until it polls.
    let mut last = Polling::in_room(&server, "a");
    let mut kept: Vec<Http> = (0..4).map(|_| Http::connect(server.listen)).collect();
    for http in &mut kept {
        // Sessions of their own, which are given up.
        assert_eq!(http.ask(get("/socket.io/?EIO=4&transport=polling")).status, 200);
    }
    server.signal(Signal::TERM);
    await_draining(&server);
    for http in &mut kept {
        let response = http.ask(get("/socket.io/?EIO=4&transport=polling"));
        assert_eq!(response.status, 503);
        assert!(response.head.contains("Retry-After: ") && response.body.starts_with("The server is stopping"));
        http.ends();
    }
    assert!(std::net::TcpStream::connect(server.listen).is_err() || cores > 1);
    assert_eq!(last.poll(), "1");
    // The four sessions that were given up are waited for until the time is over; a second signal ends that.
    server.signal(Signal::TERM);
    let code = server.wait().code();
    assert!(matches!(code, Some(0 | 1)), "{code:?}");
}

fn clients_go_at_the_pace_that_is_set(cores: usize) {
    const CLIENTS: usize = 60;
    const PER_S: usize = 40;
    let config = format!("[server]\ndrain_ms_max = 60_000\ndrain_clients_per_s = {PER_S}\n{OPEN}");
    let mut server = Server::start(&config, cores);
    let clients: Vec<Wire> = (0..CLIENTS).map(|_| Wire::open(&server, "/ws")).collect();
    server.await_metric("roomcast_sockets", &[], CLIENTS as f64);
    let began = Instant::now();
    server.signal(Signal::TERM);
    // Each by a thread of its own, so that none is seen late for another.
    let ended: Vec<Duration> = std::thread::scope(|scope| {
        let ends = |mut client: Wire| {
            move || {
                assert_eq!(client.close_code(), 1001);
                let ended = began.elapsed();
                client.write(wire::frame(true, wire::CLOSE, &1001u16.to_be_bytes()));
                ended
            }
        };
        let threads: Vec<_> = clients.into_iter().map(|client| scope.spawn(ends(client))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    // Never faster, however the kernel has dealt the clients out to the cores; a slow machine is slower.
    let least = Duration::from_millis((CLIENTS * 1000 / PER_S) as u64);
    let last = *ended.iter().max().unwrap();
    assert!(last >= least * 9 / 10, "{last:?} for {CLIENTS} clients at {PER_S} a second");
    // Not in the order in which they came.
    assert!(!ended.is_sorted(), "{ended:?}");
    assert!(server.wait().success());
    assert!(!server.log().contains("drain_clients_per_s"), "{}", server.log());
}

fn stock_clients_come_back_by_themselves(cores: usize) {
    let mut server = Server::start(OPEN, cores);
    let mut clients = Node::start("drained.js", &server, &[]);
    clients.await_line("all are connected");
    let again = server.listen;
    assert!(server.stop(Signal::TERM).success());
    // What a client that was sent away in good order says, by polling and by WebSocket.
    clients.await_line("polling: transport close, websocket: transport close");
    let _next = Server::setup(OPEN, cores).listen(again).start();
    clients.await_line("all are connected again");
    clients.finish();
}

#[test]
fn a_pace_that_is_too_slow_is_told_and_the_end_is_in_time() {
    let mut server = Server::start(&format!("[server]\ndrain_ms_max = 3000\ndrain_clients_per_s = 1\n{OPEN}"), 1);
    let mut clients: Vec<RawClient> = (0..20).map(|_| RawClient::connect(&server)).collect();
    server.await_metric("roomcast_sockets", &[], 20.0);
    server.signal(Signal::TERM);
    for client in &mut clients {
        assert_eq!(client.closed(), (1001, "shutdown".to_owned()));
    }
    assert!(server.wait().success());
    assert!(server.log().contains("drain_clients_per_s"), "{}", server.log());
}
