//! The load generator from outside: every scenario against the floor, and against a server that lies, which must be
//! found out.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const BENCH: &str = env!("CARGO_BIN_EXE_roomcast-bench");

/// Long enough for the slowest machine, never waited for by a test that passes.
const LONG: Duration = Duration::from_secs(60);

/// A server process, gone with the test.
struct Floor {
    process: Child,
    listen: SocketAddr,
    ingest: SocketAddr,
}

impl Floor {
    fn start() -> Floor {
        let [listen, ingest] = [free_port(), free_port()];
        let process = Command::new(BENCH)
            .args(["floor", "--listen", &listen.to_string(), "--ingest", &ingest.to_string()])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while TcpStream::connect(ingest).is_err() {
            assert!(begun.elapsed() < LONG, "the floor does not open its ports");
            thread::yield_now();
        }
        Floor { process, listen, ingest }
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn load(listen: SocketAddr, ingest: SocketAddr, pid: u32, arguments: &[&str]) -> Output {
    let (listen, ingest, pid) = (listen.to_string(), ingest.to_string(), pid.to_string());
    Command::new(BENCH)
        .arg("load")
        .args(arguments)
        .args(["--listen", &listen, "--ingest", &ingest, "--pid", &pid])
        .output()
        .unwrap()
}

fn figures(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.lines().count(), 1, "one line of JSON: {text} {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&text).unwrap()
}

#[test]
fn every_scenario_gives_its_figures() {
    let published = ["events", "deliveries_per_s", "cpu_ns_per_delivery", "latency_us", "last_byte_us"];
    // (scenario, sockets, figures that it has)
    let rows: [(&str, u64, &[&str]); 6] = [
        ("trains", 100, &published),
        ("firehose", 10, &published),
        ("stadium", 100, &published),
        ("lobby", 100, &published),
        ("idle", 100, &["user_bytes", "kernel_bytes"]),
        ("storm", 100, &["connections_per_s", "connect_us", "cpu_ns_per_connection"]),
    ];
    let common = ["seconds", "cpu_share", "generator_share", "foreign_share", "rooms"];
    for (scenario, sockets, keys) in rows {
        let floor = Floor::start();
        // A floor with a short queue of new connections must not lose some.
        let size =
            ["--scale", "0.01", "--seconds", "0.2", "--warm-up", "0.1", "--outstanding", "20", "--at-once", "20"];
        let arguments = [&[scenario, "--json"][..], &size].concat();
        let output = load(floor.listen, floor.ingest, floor.process.id(), &arguments);
        let figures = figures(&output);
        assert!(output.status.success(), "{figures} {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!((&figures["scenario"], &figures["sockets"]), (&scenario.into(), &sockets.into()));
        for key in keys.iter().chain(&common) {
            assert!(!figures[*key].is_null(), "{scenario} has no {key}: {figures}");
        }
        for key in ["lost", "duplicates", "reordered", "closed"] {
            assert_eq!(figures[key], 0, "{scenario}: {figures}");
        }
        if keys.contains(&"events") {
            let (events, deliveries) = (figures["events"].as_u64().unwrap(), figures["deliveries"].as_u64().unwrap());
            let members = sockets / figures["rooms"].as_u64().unwrap();
            assert!(events > 0 && deliveries > 0, "{figures}");
            // At the edges of the window an event may be within it in part.
            assert!(deliveries.abs_diff(events * members) <= 2 * 20 * members, "{figures}");
        }
    }
}

/// What the server in this test does wrong with one member.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Lie {
    Nothing,
    Drop,
    Swap,
    Double,
    Close,
    DropLast,
}

/// The number of the event with which it does so, and the member.
const WRONG: (u64, usize) = (30, 3);

/// A server for `members` clients and a publisher, in this process.
fn lying_server(lie: Lie, members: usize) -> (SocketAddr, SocketAddr) {
    let [clients, publishers] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let addresses = (clients.local_addr().unwrap(), publishers.local_addr().unwrap());
    thread::spawn(move || {
        let mut sockets: Vec<Option<TcpStream>> = (0..members).map(|_| Some(join(&clients))).collect();
        let publisher = BufReader::new(publishers.accept().unwrap().0);
        let mut held = Vec::new();
        for (number, line) in (1..).zip(publisher.lines().map_while(Result::ok)) {
            let data = &line[line.find("\"data\":").unwrap()..];
            let frame = text_frame(&format!("{{\"type\":\"e\",{data}"));
            for (member, socket) in sockets.iter_mut().enumerate() {
                let wrong = (number, member) == WRONG;
                let frames = match lie {
                    Lie::Drop if wrong => Vec::new(),
                    Lie::DropLast if member == WRONG.1 && number >= WRONG.0 => Vec::new(),
                    Lie::Double if wrong => [&frame[..], &frame].concat(),
                    Lie::Close if wrong => {
                        *socket = None;
                        continue;
                    }
                    Lie::Swap if wrong => {
                        held.clone_from(&frame);
                        Vec::new()
                    }
                    Lie::Swap if member == WRONG.1 => [&frame[..], &std::mem::take(&mut held)].concat(),
                    _ => frame.clone(),
                };
                // Whoever does not read what was sent long ago is let go.
                if socket.as_mut().is_some_and(|socket| socket.write_all(&frames).is_err()) {
                    *socket = None;
                }
            }
        }
    });
    addresses
}

/// Answers a client's upgrade and its subscription.
fn join(listener: &TcpListener) -> TcpStream {
    let mut socket = listener.accept().unwrap().0;
    wait_for(&mut socket, b"\r\n\r\n");
    socket.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").unwrap();
    wait_for(&mut socket, b"}");
    socket.write_all(&text_frame(r#"{"type":"subscribed"}"#)).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

fn wait_for(socket: &mut TcpStream, end: &[u8]) {
    let (mut got, mut byte) = (Vec::new(), [0]);
    while !got.ends_with(end) {
        socket.read_exact(&mut byte).unwrap();
        got.push(byte[0]);
    }
}

fn text_frame(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap();
    let header =
        if length < 126 { vec![0x81, length as u8] } else { [&[0x81, 126][..], &length.to_be_bytes()].concat() };
    [&header, text.as_bytes()].concat()
}

#[test]
fn a_lying_server_is_found_out() {
    // (lie; lost, duplicates, reordered, closed)
    let rows = [
        (Lie::Nothing, [0, 0, 0, 0]),
        (Lie::Drop, [1, 0, 0, 0]),
        (Lie::Double, [0, 1, 0, 0]),
        (Lie::Swap, [0, 0, 1, 0]),
    ];
    for (lie, expected) in rows {
        let output = lie_to(lie, &[]);
        let figures = figures(&output);
        let found = ["lost", "duplicates", "reordered", "closed"].map(|key| figures[key].as_u64().unwrap());
        assert_eq!(found, expected, "{lie:?}: {figures}");
        assert_eq!(output.status.success(), lie == Lie::Nothing, "{lie:?}");
    }
}

#[test]
fn what_never_comes_is_lost_and_not_waited_for() {
    // The loop stalls: all that was outstanding then is lost at one member.
    let output = lie_to(Lie::DropLast, &["--patience", "0.5"]);
    let figures = figures(&output);
    let lost = figures["lost"].as_u64().unwrap();
    assert!((1..=20).contains(&lost), "{figures}");
    assert!(!output.status.success());
}

#[test]
fn a_closed_connection_is_told() {
    let output = lie_to(Lie::Close, &[]);
    let figures = figures(&output);
    assert_eq!(figures["closed"], 1, "{figures}");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("1 connections closed by the server"));
}

#[test]
fn who_never_reads_is_not_counted() {
    let (listen, ingest) = lying_server(Lie::Nothing, 10);
    let arguments = ["slow", "--json", "--scale", "0.01", "--seconds", "0.3", "--warm-up", "0"];
    let output = load(listen, ingest, std::process::id(), &arguments);
    let figures = figures(&output);
    assert!(output.status.success(), "{figures}");
    assert_eq!((&figures["sockets"], &figures["slow"]), (&9.into(), &1.into()), "{figures}");
    assert!(figures["deliveries"].as_u64().unwrap() > 0);
}

/// One room of ten members.
fn lie_to(lie: Lie, more: &[&str]) -> Output {
    let (listen, ingest) = lying_server(lie, 10);
    let arguments = ["firehose", "--json", "--scale", "0.01", "--seconds", "0.2", "--warm-up", "0.1"];
    let arguments = [&arguments[..], &["--outstanding", "20"], more].concat();
    load(listen, ingest, std::process::id(), &arguments)
}

#[test]
fn errors_say_what_is_wrong() {
    let (nowhere, own) = (free_port(), std::process::id());
    let (listen, _) = lying_server(Lie::Nothing, 10);
    // (where clients connect, process, arguments, part of the error)
    let rows: [(SocketAddr, u32, &[&str], &str); 5] = [
        (nowhere, own, &["firehose"], "refused"),
        (listen, u32::MAX, &["firehose"], "there is no process 4294967295"),
        (listen, own, &["firehose", "--dialect", "polling"], "only idle can be measured with polling"),
        (listen, own, &["firehose", "--scale", "1e7"], "are missing"),
        (listen, own, &["firehose", "--scale=-1"], "must be positive"),
    ];
    for (listen, pid, arguments, expected) in rows {
        let output = load(listen, nowhere, pid, arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains(expected), "{arguments:?}: {error}");
        assert!(!output.status.success() && output.stdout.is_empty());
    }
}
