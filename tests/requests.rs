//! Clients' HTTP: requests that are slow, broken, too long, or sent before others are answered. Whoever breaks a rule
//! is told by the right status, and harms neither the server nor a session that is not its own.

mod common;

use common::polling::{Http, Polling, get, post, refusal};
use common::wire::{self, Wire};
use common::{OPEN, Publisher, Response, Server, wait_until};
use std::io::Write;
use std::net::Ipv4Addr;

on_one_and_two_cores!(
    a_head_that_does_not_end,
    a_body_that_does_not_end_ends_its_session,
    a_body_that_does_not_end_behind_a_poll,
    an_idle_connection_is_closed_and_a_waiting_poll_is_not,
    a_silent_connection_is_closed,
    the_clients_address_behind_proxies,
    refused_requests_are_told_and_counted,
    lengths_of_heads,
    a_refusal_by_engine_io_leaves_the_connection,
    http_1_0,
    too_long_bodies_leave_the_session,
    posts_behind_a_waiting_poll,
    what_takes_long_waits_behind_the_poll,
    a_second_poll_behind_the_first,
    polls_of_several_sessions_on_one_connection,
    the_last_request_behind_a_waiting_poll,
    nothing_counts_behind_a_request_that_closes,
    who_does_not_read_responses_is_paused,
    requests_behind_a_poll_are_bounded,
);

const ECHO: &str = "[[endpoint]]\nkind = \"engine.io-echo\"\n";
const OPENING: &str = "/engine.io/?EIO=4&transport=polling";

/// Nothing is due while a test runs, however slow the machine, but what `limits` says.
fn config(limits: &str) -> String {
    let mut lines = limits.to_owned();
    for patient in ["handshake_ms_max = 600_000", "request_body_ms_max = 3_600_000", "keep_alive_ms = 3_600_000"] {
        if !limits.contains(patient.split(' ').next().unwrap()) {
            lines = format!("{lines}\n{patient}");
        }
    }
    format!("[limits]\n{lines}\n[heartbeat]\nping_interval_ms = 3_600_000\n{OPEN}\n{ECHO}")
}

#[track_caller]
fn await_refused(server: &Server, reason: &str, count: f64) {
    server.await_metric("roomcast_http_refused_total", &[("reason", reason)], count);
}

/// The response says that the connection ends, and it does.
#[track_caller]
fn is_the_last(connection: &mut Http, response: &Response, status: u16) {
    assert_eq!(response.status, status, "{} {}", response.head, response.body);
    assert!(response.head.contains("\r\nConnection: close\r\n"), "{}", response.head);
    connection.ends();
}

// ---- slow ----

fn a_head_that_does_not_end(cores: usize) {
    let server = Server::start(&config("handshake_ms_max = 1000"), cores);
    let mut session = Polling::open(&server, "/engine.io/");
    session.begin_poll();
    let mut fresh = Http::connect(server.listen);
    fresh.write("GET /engine.io/ HTTP/1.1\r\nHost:");
    let mut kept = Http::connect(server.listen);
    assert_eq!(kept.ask(get(OPENING)).status, 200);
    kept.write("G");
    for connection in [&mut fresh, &mut kept] {
        let response = connection.response();
        is_the_last(connection, &response, 408);
    }
    await_refused(&server, "handshake_timeout", 2.0);
    // Who waits for the server is not slow.
    session.post(&["4hello"]);
    assert_eq!(session.polled(), "4hello");
}

fn a_body_that_does_not_end_ends_its_session(cores: usize) {
    let server = Server::start(&config("request_body_ms_max = 500"), cores);
    // On any core, and with and without a poll that waits.
    for n in 0..4 {
        let mut session = Polling::open(&server, "/engine.io/");
        if n % 2 == 1 {
            session.begin_poll();
        }
        let mut slow = session.connect();
        slow.write(post(&session.target, "4hello").replace("Content-Length: 6", "Content-Length: 10"));
        let response = slow.response();
        is_the_last(&mut slow, &response, 408);
        if n % 2 == 1 {
            assert_eq!(session.polled(), "1");
        }
        session.is_gone();
    }
    await_refused(&server, "body_timeout", 4.0);
    server.await_metric("roomcast_sessions_polling", &[], 0.0);
    // A body that belongs to no session.
    let mut slow = Http::connect(server.listen);
    slow.write(format!("POST {OPENING} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"));
    let response = slow.response();
    is_the_last(&mut slow, &response, 408);
    await_refused(&server, "body_timeout", 5.0);
}

/// The session's own poll waits on the connection whose POST does not come.
fn a_body_that_does_not_end_behind_a_poll(cores: usize) {
    let server = Server::start(&config("request_body_ms_max = 500"), cores);
    let mut session = Polling::open(&server, "/engine.io/");
    session.begin_poll();
    let request = post(&session.target, "4hello").replace("Content-Length: 6", "Content-Length: 10");
    session.polls().write(request);
    assert_eq!(session.polled(), "1");
    let response = session.polls().response();
    is_the_last(session.polls(), &response, 408);
    session.is_gone();
}

fn an_idle_connection_is_closed_and_a_waiting_poll_is_not(cores: usize) {
    let server = Server::start(&config("keep_alive_ms = 500"), cores);
    let mut session = Polling::open(&server, "/engine.io/");
    session.begin_poll();
    // In HTTP/1.0 too, and after a refusal.
    let mut idle = [Http::connect(server.listen), Http::connect(server.listen), Http::connect(server.listen)];
    assert_eq!(idle[0].ask(get(OPENING)).status, 200);
    assert_eq!(idle[1].ask(format!("GET {OPENING} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")).status, 200);
    assert_eq!(idle[2].ask(get("/engine.io/")).status, 400);
    idle.iter_mut().for_each(Http::ends);
    assert_eq!(session.connect().ask(post(&session.target, "4hello")).body, "ok");
    assert_eq!(session.polled(), "4hello");
    // Nobody was refused anything but what was wrong, and sessions do not end with idle connections.
    assert_eq!(server.metric("roomcast_http_refused_total"), 1.0);
    assert_eq!(server.metric("roomcast_closes_total"), 0.0);
    server.await_metric("roomcast_sessions_polling", &[], 3.0);
}

fn a_silent_connection_is_closed(cores: usize) {
    let server = Server::start(&config("handshake_ms_max = 500"), cores);
    let mut silent: Vec<Http> = (0..4).map(|_| Http::connect(server.listen)).collect();
    silent.iter_mut().for_each(Http::ends);
    server.await_metric("roomcast_closes_total", &[("reason", "handshake timeout")], 4.0);
    server.await_metric("roomcast_connections", &[], 0.0);
}

// ---- whose request it is ----

fn the_clients_address_behind_proxies(cores: usize) {
    let config = "[server]\ntrusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]\n[[namespace]]\nname = \"/\"\n\
        [[namespace.connect]]\nreply = { event = \"you\", data = { ip = \"{ip}\" } }\n";
    let server = Server::start(config, cores);
    let trusted = Ipv4Addr::LOCALHOST;
    let stranger = Ipv4Addr::new(127, 0, 0, 2);
    for (peer, forwarded, ip) in [
        (trusted, None, "127.0.0.1"),
        (trusted, Some("203.0.113.7"), "203.0.113.7"),
        // What the client itself has sent stands to the left of what the proxy knows.
        (trusted, Some("9.9.9.9, 203.0.113.7"), "203.0.113.7"),
        (trusted, Some("9.9.9.9, 203.0.113.7, 10.1.2.3"), "203.0.113.7"),
        (trusted, Some("9.9.9.9, unknown"), "127.0.0.1"),
        (trusted, Some("2001:db8::1"), "2001:db8::1"),
        (stranger, None, "127.0.0.2"),
        (stranger, Some("203.0.113.7"), "127.0.0.2"),
        (stranger, Some("127.0.0.1"), "127.0.0.2"),
    ] {
        let lines = forwarded.map_or(String::new(), |list| format!("X-Forwarded-For: {list}\r\n"));
        let with = |request: String| request.replace("Host: test\r\n", &format!("Host: test\r\n{lines}"));
        let connected = |packets: &str| {
            let you = format!(r#"42["you",{{"ip":"{ip}"}}]"#);
            assert!(packets.ends_with(&you), "{peer} {forwarded:?}: {packets}, not {you}");
        };
        // The address is that of the handshake, wherever later requests come from.
        let mut polling = Http::connect_from(peer, server.listen);
        let open = polling.ask(with(get("/socket.io/?EIO=4&transport=polling"))).body;
        let open: serde_json::Value = serde_json::from_str(&open[1..]).unwrap();
        let target = format!("/socket.io/?EIO=4&transport=polling&sid={}", open["sid"].as_str().unwrap());
        let mut elsewhere = Http::connect_from(Ipv4Addr::new(127, 0, 0, 3), server.listen);
        assert_eq!(elsewhere.ask(post(&target, "40")).body, "ok");
        connected(&polling.ask(get(&target)).body);

        let mut websocket = Http::connect_from(peer, server.listen);
        let handshake = with(wire::handshake("/socket.io/?EIO=4&transport=websocket"));
        assert_eq!(websocket.ask(handshake).status, 101);
        let mut websocket = Wire::from(websocket);
        assert!(websocket.text().starts_with('0'));
        websocket.write(wire::text("40"));
        assert!(websocket.text().starts_with("40"));
        connected(&websocket.text());

        let mut raw = Http::connect_from(peer, server.listen);
        assert_eq!(raw.ask(with(wire::handshake("/ws"))).status, 101);
        assert_eq!(Wire::from(raw).text(), format!(r#"{{"type":"you","data":{{"ip":"{ip}"}}}}"#));
    }
}

// ---- broken ----

fn refused_requests_are_told_and_counted(cores: usize) {
    let server = Server::start(&config(""), cores);
    let session = Polling::open(&server, "/engine.io/");
    let with = |lines: &str, body: &str| format!("POST {} HTTP/1.1\r\nHost: test\r\n{lines}\r\n{body}", session.target);
    let chunked = |body: &str| with("Transfer-Encoding: chunked\r\n", body);
    let upgrade = |from: &str, to: &str| wire::handshake("/ws").replace(from, to);
    for (request, status, label) in [
        ("hello\r\n\r\n".to_owned(), 400, "malformed"),
        (get("here"), 400, "target"),
        (get(OPENING).replace("1.1", "2.0"), 505, "http_version"),
        (get(OPENING).replace("Host: test\r\n", ""), 400, "host"),
        (with("Content-Length: 1x\r\n", "4x"), 400, "content_length"),
        (with("Content-Length: 1\r\nContent-Length: 2\r\n", "4x"), 400, "content_lengths"),
        (with("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", "4x"), 400, "length_and_coding"),
        (with("Transfer-Encoding: chunked, gzip\r\n", ""), 400, "coding_open_ended"),
        (with("Transfer-Encoding: gzip, chunked\r\n", ""), 501, "coding_unknown"),
        (chunked("").replace("HTTP/1.1", "HTTP/1.0"), 400, "coding_in_http_1_0"),
        (with("Expect: wonders\r\nContent-Length: 2\r\n", "4x"), 417, "expectation"),
        (get("/nothing"), 404, "unknown_path"),
        (chunked("x\r\n"), 400, "chunk_size"),
        (chunked("1 x\r\n"), 400, "chunk_line"),
        (chunked("1\r\n4x\r\n"), 400, "chunk_end"),
        (chunked("2\r\n4x\r\n0\r\n:\r\n"), 400, "trailer"),
        (chunked(&format!("2;{}", "x".repeat(16 << 10))), 413, "extensions_too_long"),
        (chunked(&format!("2\r\n4x\r\n0\r\nx:{}", "x".repeat(8 << 10))), 413, "trailers_too_long"),
        (upgrade("GET", "POST"), 405, "not_get"),
        (upgrade("Upgrade: websocket\r\n", ""), 426, "no_upgrade"),
        (upgrade("HTTP/1.1", "HTTP/1.0"), 426, "upgrade_in_http_1_0"),
        (upgrade("Version: 13", "Version: 8"), 426, "websocket_version"),
        (upgrade("dGhl", "d"), 400, "websocket_key"),
        (upgrade("Host", "Content-Length: 1\r\nHost"), 400, "upgrade_with_body"),
    ] {
        let mut connection = Http::connect(server.listen);
        let response = connection.ask(request);
        is_the_last(&mut connection, &response, status);
        await_refused(&server, label, 1.0);
    }
    // None of them was the session's end, as none was a request.
    let mut session = session;
    session.post(&["4hello"]);
    assert_eq!(session.poll(), "4hello");
    assert_eq!(server.metric("roomcast_http_refused_total"), 24.0);
    server.await_metric("roomcast_connections", &[], 2.0);
}

fn lengths_of_heads(cores: usize) {
    const BYTES_MAX: usize = 2000;
    const HEADERS_MAX: usize = 64;
    let server = Server::start(&config(&format!("http_head_bytes_max = {BYTES_MAX}")), cores);
    let long = |bytes: usize| {
        let bare = get(OPENING).len() + "X: \r\n".len();
        get(OPENING).replace("Host", &format!("X: {}\r\nHost", "x".repeat(bytes - bare)))
    };
    let many = |headers: usize| get(OPENING).replace("Host", &format!("{}Host", "X: y\r\n".repeat(headers - 1)));
    let mut connection = Http::connect(server.listen);
    assert_eq!(connection.ask(long(BYTES_MAX)).status, 200);
    assert_eq!(connection.ask(many(HEADERS_MAX)).status, 200);
    let response = connection.ask(long(BYTES_MAX + 1));
    is_the_last(&mut connection, &response, 431);
    await_refused(&server, "too_long", 1.0);
    let mut connection = Http::connect(server.listen);
    let response = connection.ask(many(HEADERS_MAX + 1));
    is_the_last(&mut connection, &response, 431);
    await_refused(&server, "too_many_headers", 1.0);
    // Nobody waits for the end of a head that is too long already.
    let mut connection = Http::connect(server.listen);
    let response = connection.ask(&long(BYTES_MAX + 1)[..BYTES_MAX]);
    is_the_last(&mut connection, &response, 431);
}

fn a_refusal_by_engine_io_leaves_the_connection(cores: usize) {
    let server = Server::start(&config(""), cores);
    let mut connection = Http::connect(server.listen);
    for (request, code) in [
        (get("/engine.io/?EIO=4"), 0),
        (get(&format!("{OPENING}&sid=AAAAAAAAAAAAAAAAAAAA")), 1),
        (post(&format!("{OPENING}&sid=nobody"), "4hello"), 1),
        (post(OPENING, "4hello"), 2),
        (get("/engine.io/?EIO=4&transport=websocket"), 3),
    ] {
        let response = connection.ask(request);
        assert_eq!((response.status, response.body), (400, refusal(code)));
        assert!(!response.head.contains("Connection:"), "{}", response.head);
    }
    assert_eq!(connection.ask(get(OPENING)).status, 200);
    server.await_metric("roomcast_http_requests_total", &[], 6.0);
    server.await_metric("roomcast_http_refused_total", &[], 5.0);
}

fn http_1_0(cores: usize) {
    let server = Server::start(&config(""), cores);
    let session = Polling::open(&server, "/engine.io/");
    let old =
        |request: String, line: &str| request.replace("HTTP/1.1\r\nHost: test\r\n", &format!("HTTP/1.0\r\n{line}"));
    for keep_alive in ["", "Connection: keep-alive\r\n"] {
        let mut connection = Http::connect(server.listen);
        for (request, body) in [
            (post(&session.target, "4hello"), "ok"),
            (get(&session.target), "4hello"),
            // What expects something in HTTP/1.0 is not told to go on.
            (post(&session.target, "4again").replace("Content", "Expect: 100-continue\r\nContent"), "ok"),
            (get(&session.target), "4again"),
        ] {
            let response = connection.ask(old(request, keep_alive));
            assert_eq!((response.status, response.body.as_str()), (200, body));
            assert!(!response.head.contains("Transfer-Encoding"), "{}", response.head);
            if keep_alive.is_empty() {
                is_the_last(&mut connection, &response, 200);
                connection = Http::connect(server.listen);
            } else {
                assert!(response.head.contains("\r\nConnection: keep-alive\r\n"), "{}", response.head);
            }
        }
    }
}

fn too_long_bodies_leave_the_session(cores: usize) {
    const MAX: usize = 2000;
    let server = Server::start(&config(&format!("message_bytes_max = {MAX}")), cores);
    let mut session = Polling::open(&server, "/engine.io/");
    let longest = format!("4{}", "x".repeat(MAX - 1));
    let too_long = format!("4{}", "x".repeat(MAX));
    let head = format!("POST {} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n", session.target);
    let in_chunks =
        |body: &str| format!("{}0\r\n\r\n", body.chars().map(|x| format!("1\r\n{x}\r\n")).collect::<String>());
    for n in 0..3 {
        let mut connection = session.connect();
        match n {
            0 => connection.write(post(&session.target, &too_long)),
            1 => connection.write(format!("{head}\r\n{}", in_chunks(&too_long))),
            _ => {
                // The session knows of it when it turns out to be too long.
                connection.write(format!("{head}Expect: 100-continue\r\n\r\n"));
                assert_eq!(connection.response().status, 100);
                connection.write(in_chunks(&too_long));
            }
        }
        let response = connection.response();
        assert_eq!(response.status, 413, "{}", response.body);
        await_refused(&server, "body_too_long", f64::from(n + 1));
        session.post(&["4hello"]);
        assert_eq!(session.poll(), "4hello");
    }
    let mut connection = session.connect();
    assert_eq!(connection.ask(post(&session.target, &longest)).body, "ok");
    assert_eq!(session.poll(), longest);
    assert_eq!(connection.ask(format!("{head}\r\n{}", in_chunks(&longest))).body, "ok");
    assert_eq!(session.poll(), longest);
}

// ---- one request behind the other ----

fn posts_behind_a_waiting_poll(cores: usize) {
    const POSTS: usize = 200;
    let server = Server::start(&config(""), cores);
    for _ in 0..5 {
        let mut session = Polling::open(&server, "/engine.io/");
        // The last POST ends the poll. Until then those before it have taken effect, but are not answered.
        let mut all = get(&session.target);
        for _ in 0..POSTS {
            all += &post(&session.target, "3");
        }
        let mut connection = session.connect();
        connection.write(all);
        connection.write(post(&session.target, "4to itself"));
        assert_eq!(connection.response().body, "4to itself");
        for n in 0..POSTS + 1 {
            assert_eq!(connection.response().body, "ok", "answer {n}");
        }
        session.post(&["4alive"]);
        assert_eq!(session.poll(), "4alive");
    }
    assert_eq!(server.metric("roomcast_panics_total"), 0.0);
}

fn what_takes_long_waits_behind_the_poll(cores: usize) {
    let server = Server::start(&config(""), cores);
    let mut session = Polling::open(&server, "/engine.io/");
    session.begin_poll();
    session.polls().write(get(OPENING));
    session.polls().write(wire::handshake(&OPENING.replace("polling", "websocket")));
    server.await_metric("roomcast_http_requests_total", &[], 4.0);
    session.polls().has_nothing();
    assert_eq!(server.metric("roomcast_sessions_socket_io"), 1.0);
    session.post(&["4hello"]);
    assert_eq!(session.polled(), "4hello");
    assert!(session.polled().starts_with('0'));
    assert_eq!(session.polls().response().status, 101);
    server.await_metric("roomcast_sessions_socket_io", &[], 3.0);
}

fn a_second_poll_behind_the_first(cores: usize) {
    let server = Server::start(&config(""), cores);
    let session = Polling::open(&server, "/engine.io/");
    let mut connection = session.connect();
    connection.write(get(&session.target).repeat(2) + &get(OPENING));
    // As if it had come on another connection.
    assert_eq!(connection.response().body, "1");
    let response = connection.response();
    assert_eq!((response.status, response.body), (400, refusal(3)));
    assert!(connection.response().body.starts_with('0'));
    session.is_gone();
    assert_eq!(server.metric("roomcast_panics_total"), 0.0);
}

/// As a proxy may do it that has fewer connections than clients.
fn polls_of_several_sessions_on_one_connection(cores: usize) {
    let server = Server::start(&config(""), cores);
    let mut sessions: Vec<Polling> = (0..6).map(|_| Polling::open(&server, "/engine.io/")).collect();
    let mut connection = Http::connect(server.listen);
    connection.write(sessions.iter().map(|session| get(&session.target)).collect::<String>());
    // The first one waits, and the next one behind it.
    server.await_metric("roomcast_http_requests_total", &[], 8.0);
    for (n, session) in sessions.iter_mut().enumerate() {
        session.post(&[&format!("4{n}")]);
        assert_eq!(connection.response().body, format!("4{n}"));
    }
    assert_eq!(server.metric("roomcast_panics_total"), 0.0);
    drop(connection);
    for session in &mut sessions {
        session.post(&["4alive"]);
        assert_eq!(session.poll(), "4alive");
    }
}

fn the_last_request_behind_a_waiting_poll(cores: usize) {
    let server = Server::start(&config(""), cores);
    let closing = |session: &Polling| post(&session.target, "3").replace("Host", "Connection: close\r\nHost");
    for (what, request, status) in [
        ("a POST that closes", closing as fn(&Polling) -> String, 200),
        ("a broken request", |_: &Polling| "hello\r\n\r\n".to_owned(), 400),
        ("an unknown path", |_: &Polling| get("/nothing"), 404),
    ] {
        let mut session = Polling::open(&server, "/engine.io/");
        session.begin_poll();
        let requests = server.metric("roomcast_http_requests_total");
        let request = request(&session);
        session.polls().write(request);
        wait_until(what, || server.metric("roomcast_http_requests_total") > requests);
        session.post(&["4hello"]);
        assert_eq!(session.polled(), "4hello", "{what}");
        let response = session.polls().response();
        is_the_last(session.polls(), &response, status);
    }
}

/// RFC 9112, section 9.6: what follows a request that closes the connection is not to be processed.
fn nothing_counts_behind_a_request_that_closes(cores: usize) {
    let server = Server::start(&config(""), cores);
    let mut session = Polling::open(&server, "/engine.io/");
    let mut connection = session.connect();
    let closing = get(&session.target).replace("Host", "Connection: close\r\nHost");
    connection.write(closing + &post(&session.target, "4not heard"));
    // The server has had turns enough to find it.
    (0..5).for_each(|_| session.post(&["3"]));
    session.post(&["4heard"]);
    let response = connection.response();
    assert_eq!(response.body, "4heard");
    is_the_last(&mut connection, &response, 200);
    session.post(&["4alive"]);
    assert_eq!(session.poll(), "4alive");
}

/// More than the kernel holds on the way there and back: up to 4 MB to send and 6 MB received on a common Linux.
const FLOOD: usize = 300_000;
/// What the server may hold of a flood: its bound is far below, but its memory allocator keeps what it once had, and
/// the operators' connection is busy meanwhile.
const HELD_BYTES_MAX: u64 = 20 << 20;

/// Sends requests and waits until no more of them are taken. Returns how many bytes of memory that took.
#[track_caller]
fn flood(server: &Server, connection: &Http, request: &str) -> (u64, std::thread::JoinHandle<()>) {
    let before = server.anonymous_bytes();
    let (mut stream, batch) = (connection.stream(), request.repeat(1000));
    let writer = std::thread::spawn(move || {
        for _ in 0..FLOOD / 1000 {
            stream.write_all(batch.as_bytes()).unwrap();
        }
    });
    // Taken for a standstill too early, it is only a weaker test.
    let mut seen = Vec::new();
    wait_until("no more requests are taken", || {
        seen.push(server.metric("roomcast_http_requests_total"));
        seen.len() >= 100 && seen[seen.len() - 100..].iter().all(|requests| *requests == seen[seen.len() - 1])
    });
    (server.anonymous_bytes().saturating_sub(before), writer)
}

fn who_does_not_read_responses_is_paused(cores: usize) {
    let server = Server::start(&config(""), cores);
    let mut connection = Http::connect(server.listen);
    let (held, writer) = flood(&server, &connection, &get("/engine.io/?EIO=4"));
    assert!(held < HELD_BYTES_MAX, "{held} bytes are held for a client that does not read");
    // Others are served meanwhile, and it is served as well when it reads.
    let mut session = Polling::open(&server, "/engine.io/");
    session.post(&["4hello"]);
    assert_eq!(session.poll(), "4hello");
    for _ in 0..FLOOD {
        assert_eq!(connection.response().status, 400);
    }
    writer.join().unwrap();
}

fn requests_behind_a_poll_are_bounded(cores: usize) {
    let server = Server::start(&config(""), cores);
    let mut session = Polling::open(&server, "/engine.io/");
    session.begin_poll();
    let request = post(&session.target, "3");
    let (held, writer) = flood(&server, session.polls(), &request);
    assert!(held < HELD_BYTES_MAX, "{held} bytes are held behind a poll");
    session.post(&["4hello"]);
    assert_eq!(session.polled(), "4hello");
    for _ in 0..FLOOD {
        assert_eq!(session.polled(), "ok");
    }
    writer.join().unwrap();
    let mut publisher = Publisher::connect(&server);
    assert_eq!(publisher.ask(r#"{"id":1,"event":"x"}"#)["ok"], true);
}
