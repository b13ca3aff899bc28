//! As many connections as one process may have, each in its room, and what happens beyond the limit.

mod common;

use common::swarm::Swarm;
use common::wire::{Wire, handshake};
use common::{OPEN, Publisher, Server};
use std::sync::Mutex;

on_one_and_two_cores!(nineteen_thousand, out_of_descriptors);

/// One of these tests at a time: each wants most of the process's descriptors.
static ALONE: Mutex<()> = Mutex::new(());

/// The limit of open files is 20,000 where these tests run; server and clients are two processes.
const CONNECTIONS: usize = 19_000;
const ROOMS: usize = 1_000;

fn nineteen_thousand(cores: usize) {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    rustix::process::setrlimit(
        rustix::process::Resource::Nofile,
        rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum },
    )
    .unwrap();
    let server = Server::start(OPEN, cores);
    // Memory that the first connections bring along is not theirs.
    drop(common::RawClient::in_room(&server, "warm-up"));
    server.await_metric("roomcast_connections", &[], 0.0);
    let before = server.anonymous_bytes();

    let mut swarm = Swarm::connect(&server, "/ws", CONNECTIONS);
    for index in 0..CONNECTIONS {
        swarm.send(index, &format!(r#"{{"type":"subscribe","data":{{"room":"room{}"}}}}"#, index % ROOMS));
    }
    swarm.receive("the answers to subscribe", CONNECTIONS, |index, text| {
        assert_eq!(text, format!(r#"{{"type":"subscribed","data":{{"room":"room{}"}}}}"#, index % ROOMS));
    });
    server.await_metric("roomcast_connections", &[], CONNECTIONS as f64);
    server.await_metric("roomcast_sessions_raw", &[], CONNECTIONS as f64);
    let each = (server.anonymous_bytes() - before) / CONNECTIONS as u64;
    println!("{cores} cores: {each} bytes of user memory per raw connection in one room");
    // Not a budget (that is measured by `bench`), but a forgotten buffer of a page would show.
    assert!(each < 4096, "{each} bytes per idle connection");

    let mut publisher = Publisher::connect(&server);
    let lines: String =
        (0..ROOMS).map(|room| format!("{{\"room\":\"room{room}\",\"event\":\"x\",\"data\":{room}}}\n")).collect();
    publisher.bytes(lines);
    let mut got = vec![0; CONNECTIONS];
    swarm.receive("the rooms' events", CONNECTIONS, |index, text| {
        assert_eq!(text, format!(r#"{{"type":"x","data":{}}}"#, index % ROOMS));
        got[index] += 1;
    });
    assert!(got.iter().all(|&count| count == 1));
    assert_eq!(publisher.ask(r#"{"id":1,"event":"all"}"#)["offset"], 1);
    swarm.receive("the event for all", CONNECTIONS, |_, text| assert_eq!(text, r#"{"type":"all"}"#));
    server.await_metric("roomcast_deliveries_total", &[], 2.0 * CONNECTIONS as f64);

    // They all leave at once.
    drop(swarm);
    server.await_metric("roomcast_connections", &[], 0.0);
    server.await_metric("roomcast_sockets", &[], 0.0);
    server.await_metric("roomcast_rooms_attached", &[], 0.0);
}

fn out_of_descriptors(cores: usize) {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let server = Server::setup(OPEN, cores).descriptors_max(200).start();
    // Keeps the operators' connection from now on: later there is no descriptor for one.
    assert_eq!(server.metric("roomcast_connections"), 0.0);
    let mut publisher = Publisher::connect(&server);
    assert_eq!(publisher.ask(r#"{"id":1,"room":"a","event":"x"}"#)["ok"], true);

    let mut clients: Vec<Wire> = (0..300)
        .map(|_| {
            let mut client = Wire::connect(&server);
            client.write(handshake("/ws"));
            client
        })
        .collect();
    common::wait_until("descriptors have run out", || {
        server.metric_where("roomcast_accept_errors_total", &[("reason", "EMFILE")]) >= 1.0
    });
    // Those who are in are served, and so is the publisher.
    let sessions = server.metric("roomcast_sessions_raw");
    assert!((100.0..200.0).contains(&sessions), "{sessions} connections");
    clients[0].upgraded();
    clients[0].write(common::wire::text(r#"{"type":"subscribe","data":{"room":"a"}}"#));
    assert_eq!(clients[0].text(), r#"{"type":"subscribed","data":{"room":"a"}}"#);
    assert_eq!(publisher.ask(r#"{"id":2,"room":"a","event":"y"}"#)["ok"], true);
    assert_eq!(clients[0].text(), r#"{"type":"y"}"#);

    // When they leave, those who wait are let in.
    let waiting = clients.split_off(150);
    drop(clients);
    for mut client in waiting {
        client.upgraded();
        client.write(common::wire::text(r#"{"type":"subscribe","data":{"room":"b"}}"#));
        assert_eq!(client.text(), r#"{"type":"subscribed","data":{"room":"b"}}"#);
    }
    server.await_metric("roomcast_connections", &[], 0.0);
}
