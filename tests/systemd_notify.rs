//! What the service manager is told, and when: ready with open ports, reloading, stopping, and signs of life as long as
//! all cores turn. The manager is a socket of the test.

mod common;

use common::wire::Wire;
use common::{LIMIT, OPEN, RawClient, Server, Signal, TempDir, http};
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;

on_one_and_two_cores!(
    ready_comes_with_open_ports,
    a_reload_is_announced_and_ended,
    a_refused_reload_ends_as_well_and_the_status_says_why,
    a_stop_is_announced_with_the_time_that_it_may_take,
    idle_cores_show_that_they_live,
    signs_of_life_go_on_while_the_server_drains,
);

/// The manager's end.
struct Manager {
    socket: UnixDatagram,
    dir: TempDir,
}

impl Manager {
    fn new() -> Manager {
        let dir = TempDir::new();
        let socket = UnixDatagram::bind(dir.path("notify")).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        Manager { socket, dir }
    }

    fn path(&self) -> String {
        self.dir.path("notify").to_str().unwrap().to_owned()
    }

    /// The next message's lines.
    #[track_caller]
    fn message(&self) -> Vec<String> {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).expect("the manager is told something");
        String::from_utf8(buffer[..length].to_vec()).unwrap().lines().map(str::to_owned).collect()
    }

    /// The next message that is no sign of life.
    #[track_caller]
    fn news(&self) -> Vec<String> {
        loop {
            let message = self.message();
            if message != ["WATCHDOG=1"] {
                return message;
            }
        }
    }
}

/// The value of the line `KEY=value`.
#[track_caller]
fn value<'a>(message: &'a [String], key: &str) -> &'a str {
    let line = message.iter().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    line.unwrap_or_else(|| panic!("no {key} in {message:?}"))
}

/// Addresses that nobody uses at the moment.
fn free_addresses() -> [SocketAddr; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap())
}

fn ready_comes_with_open_ports(cores: usize) {
    let manager = Manager::new();
    let (path, [address, admin]) = (manager.path(), free_addresses());
    let looker = std::thread::spawn(move || {
        let message = manager.message();
        // At once, not when the server has written its ports file.
        TcpStream::connect(address).expect("clients can connect");
        let health = http(admin, "GET /health/ready HTTP/1.1\r\nHost: admin\r\n\r\n");
        (message, health.status)
    });
    let server = Server::setup(OPEN, cores).listen(address).admin(admin).env("NOTIFY_SOCKET", &path).start();
    let (message, health) = looker.join().unwrap();
    assert_eq!(health, 200, "all cores run");
    assert_eq!(value(&message, "READY"), "1");
    let status = value(&message, "STATUS");
    assert!(status.contains(&address.to_string()), "{status}");
    server.await_metric("roomcast_connections_accepted_total", &[], 1.0);
}

fn a_reload_is_announced_and_ended(cores: usize) {
    let manager = Manager::new();
    let server = Server::setup(OPEN, cores).env("NOTIFY_SOCKET", &manager.path()).start();
    assert_eq!(value(&manager.message(), "READY"), "1");
    let mut since = 0;
    for _ in 0..2 {
        server.signal(Signal::HUP);
        let message = manager.message();
        assert_eq!(value(&message, "RELOADING"), "1");
        // By this the manager tells the answer to its present request from one to an earlier one.
        let at: u64 = value(&message, "MONOTONIC_USEC").parse().unwrap();
        assert!(at > since, "{at}, and {since} before");
        since = at;
        assert_eq!(value(&manager.message(), "READY"), "1");
    }
}

fn a_refused_reload_ends_as_well_and_the_status_says_why(cores: usize) {
    let manager = Manager::new();
    let server = Server::setup(OPEN, cores).env("NOTIFY_SOCKET", &manager.path()).start();
    let good = value(&manager.message(), "STATUS").to_owned();
    for (config, refused) in [("[limits]\nmessage_bytes = 1\n", true), (OPEN, false)] {
        fs::write(server.config_path(), config).unwrap();
        server.signal(Signal::HUP);
        assert_eq!(value(&manager.message(), "RELOADING"), "1");
        let message = manager.message();
        assert_eq!(value(&message, "READY"), "1", "it serves, by the former config");
        let status = value(&message, "STATUS");
        assert!(status.starts_with(&good) && status.contains("message_bytes") == refused, "{status}");
    }
}

fn a_stop_is_announced_with_the_time_that_it_may_take(cores: usize) {
    let manager = Manager::new();
    let config = format!("[server]\ndrain_ms_max = 120_000\n{OPEN}");
    let mut server = Server::setup(&config, cores).env("NOTIFY_SOCKET", &manager.path()).start();
    assert_eq!(value(&manager.message(), "READY"), "1");
    assert!(server.stop(Signal::TERM).success());
    let message = manager.message();
    assert_eq!(value(&message, "STOPPING"), "1");
    // TimeoutStopSec= of the unit does not know the config.
    assert!(value(&message, "EXTEND_TIMEOUT_USEC").parse::<u64>().unwrap() > 120_000_000, "{message:?}");
    assert!(value(&message, "STATUS").contains("drain"), "{message:?}");
}

fn idle_cores_show_that_they_live(cores: usize) {
    let manager = Manager::new();
    let setup = Server::setup(OPEN, cores).env("NOTIFY_SOCKET", &manager.path()).env("WATCHDOG_USEC", "400000");
    let _server = setup.start();
    assert_eq!(value(&manager.news(), "READY"), "1");
    // Nobody connects: the cores sleep, and have to be woken for each.
    for _ in 0..5 {
        assert_eq!(manager.message(), ["WATCHDOG=1"]);
    }
}

fn signs_of_life_go_on_while_the_server_drains(cores: usize) {
    let manager = Manager::new();
    let setup = Server::setup(OPEN, cores).env("NOTIFY_SOCKET", &manager.path()).env("WATCHDOG_USEC", "40000");
    let mut server = setup.start();
    // One that does not answer the close frame, for which a drain waits some seconds. The other core has nothing to do.
    let _deaf = Wire::open(&server, "/ws");
    server.signal(Signal::TERM);
    while !manager.news().iter().any(|line| line == "STOPPING=1") {}
    for _ in 0..5 {
        assert_eq!(manager.message(), ["WATCHDOG=1"]);
    }
    assert!(server.wait().success());
}

#[test]
fn nobody_is_watched_who_is_not_meant() {
    // None, or those of another process, as of one that has started this one.
    for variables in [&[][..], &[("WATCHDOG_USEC", "40000"), ("WATCHDOG_PID", "1")]] {
        let manager = Manager::new();
        let setup = Server::setup(OPEN, 1).env("NOTIFY_SOCKET", &manager.path());
        let mut server = variables.iter().fold(setup, |setup, (name, value)| setup.env(name, value)).start();
        // A drain of some seconds is time enough for signs of life.
        let _deaf = Wire::open(&server, "/ws");
        assert!(server.stop(Signal::TERM).success());
        assert_eq!(value(&manager.message(), "READY"), "1");
        assert_eq!(value(&manager.message(), "STOPPING"), "1");
        manager.socket.set_nonblocking(true).unwrap();
        assert!(manager.socket.recv(&mut [0; 100]).is_err(), "there is nothing else to tell");
    }
}

#[test]
fn without_a_manager_or_with_one_that_is_gone_the_server_serves() {
    for path in ["", "/nowhere/notify"] {
        let server = Server::setup(OPEN, 1).env("NOTIFY_SOCKET", path).start();
        server.signal(Signal::HUP);
        let mut clients = [RawClient::in_room(&server, "a"), RawClient::in_room(&server, "a")];
        clients.iter_mut().for_each(|client| client.join("b"));
    }
}
