//! Housing society gates (system 4) with the official Socket.IO client: each flat and each society hears what is meant
//! for it and nothing else.
//!
//! What the system asks for, and where it is shown (functions of `tests/clients/housing_society.js`):
//!
//! * `join_room` → `{room_type}:{room_id}`, types `flat` and `society`, answer `room_joined`: `rooms`
//! * `visitor_request` to `flat:{id}`, `request_approved` and `visitor_timeout` to `society:{id}`: `rooms`
//! * no event of one society or flat reaches another: `rooms`, and among a thousand rooms `isolation`
//! * several servers through Redis, where one may die: not in this version; [`says_that_it_is_one_server`], and apps
//!   come back after a restart and a crash: [`clients_come_back_after_a_restart`]
//! * apps are Flutter, with polling and websocket: `rooms` for each; another stock client, python-socketio, is in
//!   `conformance.rs`

mod common;

use common::{Node, Publisher, Server, Signal, example, example_for_many, node};

on_one_and_two_cores!(
    each_flat_and_society_gets_its_own,
    each_flat_and_society_gets_its_own_by_polling,
    each_flat_and_society_gets_its_own_by_websocket,
    a_thousand_rooms_are_apart,
    clients_come_back_after_a_restart,
);

fn each_flat_and_society_gets_its_own(cores: usize) {
    let server = Server::start(&example_for_many("housing-society.toml"), cores);
    node("housing_society.js", &server, &["rooms", "default"]);
}

fn each_flat_and_society_gets_its_own_by_polling(cores: usize) {
    let server = Server::start(&example_for_many("housing-society.toml"), cores);
    node("housing_society.js", &server, &["rooms", "polling"]);
}

fn each_flat_and_society_gets_its_own_by_websocket(cores: usize) {
    let server = Server::start(&example_for_many("housing-society.toml"), cores);
    node("housing_society.js", &server, &["rooms", "websocket"]);
}

fn a_thousand_rooms_are_apart(cores: usize) {
    let server = Server::start(&example_for_many("housing-society.toml"), cores);
    node("housing_society.js", &server, &["isolation"]);
}

#[test]
fn says_that_it_is_one_server() {
    let server = Server::example("housing-society.toml", 1);
    assert!(server.log().contains(r#""mode":"single-server""#), "{}", server.log());
    assert!(!server.log().contains("REDIS_URL"), "{}", server.log());
    let server = Server::setup(&example("housing-society.toml"), 1).env("REDIS_URL", "redis://127.0.0.1:1").start();
    assert!(server.log().contains("REDIS_URL is set, but this version serves from one server"), "{}", server.log());
}

fn clients_come_back_after_a_restart(cores: usize) {
    let mut server = Server::example("housing-society.toml", cores);
    let mut app = Node::start("reconnect.js", &server, &[]);
    let request = |server: &Server, id: u32| {
        let line = format!(r#"{{"id":1,"room":"flat:A-101","event":"visitor_request","data":{{"request_id":{id}}}}}"#);
        assert_eq!(Publisher::connect(server).ask(&line)["ok"], true);
    };
    let restart =
        |server: &Server| Server::setup(&example("housing-society.toml"), cores).listen(server.listen).start();
    app.await_line("joined 1");
    request(&server, 1);
    app.await_line("got 1");

    assert!(server.stop(Signal::TERM).success());
    app.await_line("disconnect transport close");
    let mut server = restart(&server);
    app.await_line("joined 2");
    request(&server, 2);
    app.await_line("got 2");

    // Without a goodbye, too.
    server.kill();
    app.await_line("disconnect transport close");
    let server = restart(&server);
    app.await_line("joined 3");
    request(&server, 3);
    app.await_line("got 3");
    app.finish();
}
