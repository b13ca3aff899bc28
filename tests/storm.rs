//! Thousands of clients come at once, as after a restart: they are let in a few at a time, the others wait in the
//! kernel, and those who are in are served meanwhile.

mod common;

use common::cores::Cores;
use common::polling::{Http, get};
use common::swarm::Swarm;
use common::wire::{self, handshake};
use common::{OPEN, Publisher, RawClient, Server, Signal};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

on_one_and_two_cores!(
    who_is_in_is_served_between_the_others,
    who_spoke_in_time_is_heard_however_late,
    a_restart_under_load,
    a_storm_is_let_in_and_counted,
);

/// A connection that never waits.
struct Client {
    stream: TcpStream,
    heard: Vec<u8>,
}

impl Client {
    fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_nonblocking(true).unwrap();
        Client { stream, heard: Vec::new() }
    }

    fn says(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// True once it has heard this; from then on it waits for something else.
    fn hears(&mut self, what: &str) -> bool {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => panic!("the server has closed a connection"),
            Ok(length) => self.heard.extend_from_slice(&buffer[..length]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        let found = self.heard.windows(what.len()).any(|window| window == what.as_bytes());
        if found {
            self.heard.clear();
        }
        found
    }
}

fn who_is_in_is_served_between_the_others(cores: usize) {
    const STORM: usize = 600;
    const PER_TURN: usize = 2;
    let mut machine = Cores::start(cores, &format!("[limits]\naccepts_per_turn = {PER_TURN}\n{OPEN}"));
    let mut served = Client::connect(machine.listen);
    served.says(handshake("/ws"));
    served.says(wire::text(r#"{"type":"subscribe","data":{"room":"a"}}"#));
    while !served.hears("\"subscribed\"") {
        machine.turn();
    }
    let mut publisher = Client::connect(machine.ingest);
    // All of them are in the kernel's backlog, with their requests, before the first one is let in.
    let mut storm: Vec<Client> = (0..STORM).map(|_| Client::connect(machine.listen)).collect();
    storm.iter_mut().for_each(|client| client.says(handshake("/ws")));

    let (mut turns, mut rounds) = (0, 0);
    publisher.says("{\"room\":\"a\",\"event\":\"n\",\"data\":0}\n");
    served.says(wire::text(r#"{"type":"who"}"#));
    while !storm.is_empty() {
        machine.turn();
        turns += 1;
        storm.retain_mut(|client| !client.hears("\r\n\r\n"));
        // An event and the answer to a message of its own; then the next ones.
        if served.hears(&format!("\"data\":{rounds}}}")) {
            rounds += 1;
            publisher.says(format!("{{\"room\":\"a\",\"event\":\"n\",\"data\":{rounds}}}\n"));
        }
    }
    // No core can have let in more than so many a turn.
    assert!(turns >= STORM / PER_TURN / cores, "{STORM} clients came in within {turns} turns");
    // An event takes a turn or a few on its way between cores. If all had been let in before others were heard, there
    // would have been a handful of events.
    assert!(rounds >= turns / 8, "{rounds} events were delivered in {turns} turns");
    println!("{cores} cores: {STORM} clients in {turns} turns, {rounds} events between them");
}

/// The process may stand still, as one that is stopped does: whoever has said all in time has done their part.
fn who_spoke_in_time_is_heard_however_late(cores: usize) {
    let mut machine = Cores::start(cores, &format!("[limits]\nhandshake_ms_max = 100\n{OPEN}"));
    let mut client = Client::connect(machine.listen);
    // One turn lets it in and gives it its deadline; it speaks, and the next turn comes too late for that.
    machine.turn();
    client.says(handshake("/ws"));
    let spoke = Instant::now();
    common::wait_until("the deadline has passed", || spoke.elapsed() > Duration::from_millis(200));
    common::wait_until("it is heard", || {
        machine.turn();
        client.hears("\r\n\r\n")
    });
}

/// As many as fit into a backlog of the usual length.
const CROWD: usize = 2_000;
/// One of the tests with a crowd at a time: they want most of the machine.
static ALONE: Mutex<()> = Mutex::new(());

fn a_storm_is_let_in_and_counted(cores: usize) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let server = Server::start(OPEN, cores);
    let mut served = RawClient::in_room(&server, "a");
    assert_eq!(server.metric("roomcast_accepts_paced_total"), 0.0);
    // While it stands still the kernel takes their connections and requests.
    server.signal(Signal::STOP);
    let mut crowd = Swarm::begin(&server, "/ws", CROWD);
    server.signal(Signal::CONT);
    assert!(served.ask(r#"{"type":"who"}"#).contains("\"you\""));
    crowd.shake_hands();
    server.await_metric("roomcast_connections", &[], CROWD as f64 + 1.0);
    server.await_metric("roomcast_connections_unheard", &[], 0.0);
    // A turn lets in 16 on each core: hundreds of turns have left the others for the next one.
    let paced = server.metric("roomcast_accepts_paced_total");
    assert!(paced >= (CROWD / 16 / 2) as f64, "{paced}");
    // Those who say nothing are in as well, and in nobody's way.
    let silent = Http::connect(server.listen);
    server.await_metric("roomcast_connections_unheard", &[], 1.0);
    assert_eq!(Http::connect(server.listen).ask(get("/none")).status, 404);
    drop(silent);
}

fn a_restart_under_load(cores: usize) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    const SERVED: usize = 5;
    let mut server = Server::start(OPEN, cores);
    let listen = server.listen;
    let mut crowd = Swarm::connect(&server, "/ws", CROWD);
    crowd.join_all("crowd");
    let mut publisher = Publisher::connect(&server);
    publisher.line(r#"{"room":"crowd","event":"n","data":0}"#);
    crowd.receive("the first event", CROWD, |_, text| assert_eq!(text, r#"{"type":"n","data":0}"#));
    // In the middle of the next ones.
    for n in 1..5 {
        publisher.line(&format!(r#"{{"room":"crowd","event":"n","data":{n}}}"#));
    }
    server.kill();
    drop((crowd, publisher));
    // The kernel takes a moment to take down a dead process's `io_uring`s, and its listeners with them: whoever comes
    // to one of those is cut off, and would come again.
    common::wait_until("the dead server's listeners are gone", || TcpStream::connect(listen).is_err());

    let server = Server::setup(OPEN, cores).listen(listen).start();
    let mut served: Vec<RawClient> = (0..SERVED).map(|_| RawClient::in_room(&server, "a")).collect();
    let mut publisher = Publisher::connect(&server);
    let (done, published) = (AtomicBool::new(false), AtomicU64::new(0));
    let (before, during, crowd) = std::thread::scope(|scope| {
        // One event after the other, each once the one before it has its place.
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                let n = published.load(Ordering::SeqCst);
                let receipt = publisher.ask(&format!(r#"{{"id":{n},"room":"a","event":"n","data":{n}}}"#));
                assert_eq!(receipt["offset"], n + 1);
                published.store(n + 1, Ordering::SeqCst);
            }
        });
        let _done = Done(&done);
        common::wait_until("events flow", || published.load(Ordering::SeqCst) > 10);
        server.signal(Signal::STOP);
        let mut crowd = Swarm::begin(&server, "/ws", CROWD);
        let before = published.load(Ordering::SeqCst);
        server.signal(Signal::CONT);
        crowd.shake_hands();
        let during = published.load(Ordering::SeqCst) - before;
        crowd.join_all("crowd");
        (before, during, crowd)
    });
    let last = published.load(Ordering::SeqCst);
    println!("{cores} cores: {before} events, {during} while {CROWD} clients came in, {last} in all");
    // Each of the hundreds of turns that it takes to let them in has room for an event.
    assert!(during >= 10, "{during} events were published while {CROWD} clients came in");
    for client in &mut served {
        for n in 0..last {
            assert_eq!(client.next(), format!(r#"{{"type":"n","data":{n}}}"#));
        }
    }
    assert_eq!(server.metric("roomcast_closes_total"), 0.0, "{}", server.log());
    assert!(server.metric("roomcast_accepts_paced_total") > 0.0);
    drop(crowd);
}

/// Ends the publisher's thread, whatever becomes of the test.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
