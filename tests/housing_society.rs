//! Housing society gates (system 4) with the official Socket.IO client: each flat and each society hears what is meant
//! for it and nothing else.

mod common;

use common::{Node, Publisher, Server, Signal, node};

on_one_and_two_cores!(each_flat_and_society_gets_its_own, clients_come_back_after_a_restart);

fn each_flat_and_society_gets_its_own(cores: usize) {
    let server = Server::example("housing-society.toml", cores);
    node("housing_society.js", &server, &[]);
}

fn clients_come_back_after_a_restart(cores: usize) {
    let mut server = Server::example("housing-society.toml", cores);
    let mut app = Node::start("reconnect.js", &server, &[]);
    let request = |server: &Server, id: u32| {
        let line = format!(r#"{{"id":1,"room":"flat:A-101","event":"visitor_request","data":{{"request_id":{id}}}}}"#);
        assert_eq!(Publisher::connect(server).ask(&line)["ok"], true);
    };
    let restart =
        |server: &Server| Server::setup(&common::example("housing-society.toml"), cores).listen(server.listen).start();
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
