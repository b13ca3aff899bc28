//! Sockets that a service manager holds open for clients: they are served in place of `server.listen`, by all cores,
//! and no client that connects while the server restarts is lost.

mod common;

use common::wire::{self, Wire};
use common::{OPEN, Publisher, RawClient, Server, Signal};
use socket2::{Domain, Socket, Type};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

on_one_and_two_cores!(
    a_passed_socket_takes_the_place_of_the_configs,
    who_connects_between_two_servers_is_served_by_the_second,
    who_connects_while_the_first_drains_is_served_by_the_second,
);

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

fn copy(listener: &TcpListener) -> [TcpListener; 1] {
    [listener.try_clone().unwrap()]
}

/// Everybody in the room gets what is published to it.
fn assert_serves(server: &Server, clients: &mut [RawClient]) {
    let mut publisher = Publisher::connect(server);
    publisher.ask(r#"{"room":"a","event":"x","data":1,"id":1}"#);
    for client in clients {
        assert_eq!(client.next(), r#"{"type":"x","data":1}"#);
    }
}

fn a_passed_socket_takes_the_place_of_the_configs(cores: usize) {
    let listener = listener();
    let server = Server::setup(OPEN, cores).sockets(copy(&listener)).start();
    assert_eq!(server.listen, listener.local_addr().unwrap());
    let mut clients: Vec<RawClient> = (0..10).map(|_| RawClient::in_room(&server, "a")).collect();
    assert_serves(&server, &mut clients);
    assert!(server.log().contains("not by server.listen"), "{}", server.log());
}

fn who_connects_between_two_servers_is_served_by_the_second(cores: usize) {
    let listener = listener();
    let mut first = Server::setup(OPEN, cores).sockets(copy(&listener)).start();
    let mut client = RawClient::in_room(&first, "a");
    first.signal(Signal::TERM);
    assert_eq!(client.closed(), (1001, "shutdown".to_owned()));
    assert!(first.wait().success());
    // Nobody is there, but the socket is.
    let mut early = Wire::connect_to(listener.local_addr().unwrap());
    early.write(wire::handshake("/ws"));
    let second = Server::setup(OPEN, cores).sockets(copy(&listener)).start();
    let mut clients = [RawClient::in_room(&second, "a")];
    early.upgraded();
    assert_serves(&second, &mut clients);
}

fn who_connects_while_the_first_drains_is_served_by_the_second(cores: usize) {
    let listener = listener();
    let mut first = Server::setup(OPEN, cores).sockets(copy(&listener)).start();
    // It does not answer its close frame, and is waited for: that long the first server drains.
    let mut deaf = Wire::open(&first, "/ws");
    first.signal(Signal::TERM);
    assert_eq!(deaf.close_code(), 1001);
    let mut early: Vec<Wire> = (0..20).map(|_| Wire::connect_to(listener.local_addr().unwrap())).collect();
    for client in &mut early {
        client.write(wire::handshake("/ws"));
    }
    assert!(first.wait().success());
    let _second = Server::setup(OPEN, cores).sockets(copy(&listener)).start();
    for client in &mut early {
        client.upgraded();
    }
}

/// Clients now, by core.
fn clients_of(server: &Server, core: usize) -> f64 {
    server.metric_where("roomcast_connections", &[("core", &core.to_string())])
}

#[test]
fn cores_that_share_a_socket_get_their_share_of_clients() {
    let listener = listener();
    let server = Server::setup(OPEN, 2).sockets(copy(&listener)).start();
    let mut clients: Vec<RawClient> = (0..40).map(|_| RawClient::in_room(&server, "a")).collect();
    server.await_metric("roomcast_connections", &[], 40.0);
    // In turn, unless one of them has a lot to do. By chance alone it would be all on one side once in 500 billion
    // times.
    let shares = [clients_of(&server, 0), clients_of(&server, 1)];
    assert!(shares.iter().all(|&share| share > 0.0), "{shares:?}");
    println!("shares: {shares:?}");
    assert_serves(&server, &mut clients);
}

#[test]
fn each_core_may_have_a_socket_of_its_own() {
    let first = reuse_port("127.0.0.1:0".parse().unwrap());
    let address = first.local_addr().unwrap();
    let second = reuse_port(address);
    let server = Server::setup(OPEN, 2).sockets([first, second]).start();
    assert_eq!(server.listen, address);
    let mut clients: Vec<RawClient> = (0..40).map(|_| RawClient::in_room(&server, "a")).collect();
    assert_serves(&server, &mut clients);
}

/// As `ReusePort=yes` has it.
fn reuse_port(address: SocketAddr) -> TcpListener {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket.listen(128).unwrap();
    socket.into()
}

#[test]
fn what_makes_no_sense_is_refused() {
    let everywhere = TcpListener::bind("0.0.0.0:0").unwrap();
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    let one = reuse_port("127.0.0.1:0".parse().unwrap());
    let same = reuse_port(one.local_addr().unwrap());
    let cases: [(&str, usize, Vec<OwnedFd>); 4] = [
        ("at most as often as there are cores", 1, vec![one.into(), same.into()]),
        ("have two addresses", 2, vec![listener().into(), listener().into()]),
        ("no listening TCP socket", 1, vec![datagrams.into()]),
        // The config's server.listen is on loopback, and does not count.
        ("server.public = true", 1, vec![everywhere.into()]),
    ];
    for (words, cores, sockets) in cases {
        let Err((status, log)) = Server::setup(OPEN, cores).sockets(sockets).try_start() else { panic!("{words}") };
        assert_eq!(status.code(), Some(1), "{log}");
        assert!(log.contains(words), "{log}");
    }
}
