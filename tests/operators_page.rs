//! The operators' page: what browsers are told about it, who may watch by its WebSocket, and the page itself in a real
//! Chromium.

mod common;

use common::{LIMIT, OPEN, Publisher, RawClient, Server, TempDir, http, node, wait_until};
use serde_json::{Value, json};
use std::fs;
use std::net::TcpStream;
use tungstenite::client::IntoClientRequest;
use tungstenite::{Message, WebSocket};

on_one_and_two_cores!(the_tap_shows_matching_events_only);

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn with_token(cores: usize) -> (Server, TempDir) {
    let folder = TempDir::new();
    let file = folder.path("ops.token");
    fs::write(&file, TOKEN).unwrap();
    let config = format!("[ops]\ntoken_file = {file:?}\n{OPEN}");
    (Server::start(&config, cores), folder)
}

/// A live connection by another's hand.
struct Watcher(WebSocket<TcpStream>);

impl Watcher {
    /// Opens one with these headers besides, or tells the status of the refusal.
    fn open(server: &Server, headers: &[(&'static str, &str)]) -> Result<Watcher, u16> {
        let stream = TcpStream::connect(server.admin).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut request = format!("ws://{}/live", server.admin).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        match tungstenite::client::client(request, stream) {
            Ok((socket, _)) => Ok(Watcher(socket)),
            Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(response))) => {
                Err(response.status().as_u16())
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn say(&mut self, message: Value) {
        self.0.send(Message::text(message.to_string())).unwrap();
    }

    /// The next message that is not of the numbers.
    fn hear(&mut self) -> Value {
        loop {
            let message = self.hear_any();
            if message["type"] != "stats" {
                return message;
            }
        }
    }

    fn hear_any(&mut self) -> Value {
        loop {
            match self.0.read().unwrap_or_else(|error| panic!("nothing within {LIMIT:?}: {error}")) {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn browsers_are_told_to_be_strict() {
    let server = Server::start(OPEN, 1);
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/page", "text/html; charset=utf-8"),
        ("/page.css", "text/css; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
    ] {
        let response = http(server.admin, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!(response.status, 200, "{path}");
        assert!(response.body.len() > 1000, "{path}");
        for header in [
            &format!("Content-Type: {kind}"),
            "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
             img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            "X-Content-Type-Options: nosniff",
            "Cross-Origin-Resource-Policy: same-origin",
        ] {
            assert!(response.head.contains(&format!("{header}\r\n")), "{path}: {}", response.head);
        }
    }
    let get =
        |path: &str, host: &str| http(server.admin, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).status;
    // A page of another name that was made to mean this address.
    assert_eq!(get("/", "evil.example:3200"), 403);
    // Not a WebSocket.
    assert_eq!(get("/live", "localhost"), 426);
    assert_eq!(http(server.admin, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").status, 405);
}

#[test]
fn only_this_ports_own_page_may_watch() {
    let server = Server::start(OPEN, 1);
    let own = format!("http://{}", server.admin);
    let port = server.admin.port();
    assert_eq!(Watcher::open(&server, &[("Origin", &own)]).unwrap().hear()["access"]["reads"], "now");
    assert_eq!(Watcher::open(&server, &[]).unwrap().hear()["type"], "hello");
    let localhost = format!("localhost:{port}");
    let origin = format!("http://{localhost}");
    assert!(Watcher::open(&server, &[("Host", &localhost), ("Origin", &origin)]).is_ok());
    let evil = format!("evil.example:{port}");
    let evil_origin = format!("http://{evil}");
    for headers in [
        &[("Origin", "http://evil.example")][..],
        &[("Origin", &origin)],
        &[("Origin", "null")],
        &[("Host", &evil), ("Origin", &evil_origin)],
        &[("Host", &evil)],
    ] {
        assert_eq!(Watcher::open(&server, headers).err(), Some(403), "{headers:?}");
    }
}

#[test]
fn events_are_for_who_has_the_token() {
    let (server, _folder) = with_token(1);
    let mut watcher = Watcher::open(&server, &[]).unwrap();
    assert_eq!(watcher.hear()["access"], json!({"reads": "token", "writes": "token"}));
    assert_eq!(watcher.hear_any()["type"], "stats", "numbers are for everybody, as those of /metrics");
    watcher.say(json!({"type": "tap"}));
    assert_eq!(watcher.hear()["error"], "the tap wants the token in ops.token_file");
    watcher.say(json!({"type": "token", "token": "0123456789abcdef"}));
    assert_eq!(watcher.hear()["right"], false);
    watcher.say(json!({"type": "tap"}));
    assert_eq!(watcher.hear()["type"], "error");
    watcher.say(json!({"type": "token", "token": TOKEN}));
    assert_eq!(watcher.hear()["access"], json!({"reads": "now", "writes": "now"}));
    watcher.say(json!({"type": "tap"}));
    assert_eq!(watcher.hear()["type"], "tapped");
    Publisher::connect(&server).ask(r#"{"room":"a","event":"x","data":{"n":1},"id":1}"#);
    let event = json!({"type": "event", "ns": "/", "room": "a", "offset": 1, "event": "x", "args": "{\"n\":1}",
        "args_bytes": 7, "binary": 0});
    assert_eq!(watcher.hear(), event);
}

fn the_tap_shows_matching_events_only(cores: usize) {
    let server = Server::start(OPEN, cores);
    let mut watcher = Watcher::open(&server, &[]).unwrap();
    watcher.hear();
    watcher.say(json!({"type": "tap", "ns": "/", "room": "route:*", "event": "seat*", "per_s_max": 3}));
    assert_eq!(watcher.hear()["per_s_max"], 3);
    let mut publisher = Publisher::connect(&server);
    // Rooms of both cores, and an event of several owners.
    for n in 0..20 {
        publisher.bytes(format!(
            "{{\"room\":\"route:{n}\",\"event\":\"other\"}}\n{{\"room\":\"{n}\",\"event\":\"seat\"}}\n"
        ));
    }
    publisher.ask(r#"{"event":"seat","id":1}"#);
    publisher.ask(r#"{"rooms":["a","route:1","route:2"],"event":"seat_update","data":7,"id":2}"#);
    let (one, other) = (watcher.hear(), watcher.hear());
    let mut rooms = [&one, &other].map(|event| event["room"].as_str().unwrap().to_owned());
    rooms.sort();
    assert_eq!(rooms, ["route:1", "route:2"], "each room's order has its own place for it");
    assert_eq!([&one["offset"], &other["offset"]], [2, 2]);
    // What exceeds the bound is counted: nothing is lost in between, and no more comes than was asked for.
    const EVENTS: u64 = 5000;
    let lines: String =
        (0..EVENTS).map(|n| format!("{{\"room\":\"route:{}\",\"event\":\"seat\",\"data\":{n}}}\n", n % 50)).collect();
    publisher.bytes(lines);
    publisher.ask(r#"{"event":"end","id":3}"#);
    let started = std::time::Instant::now();
    let (mut shown, mut skipped) = (0, 0);
    while shown + skipped < EVENTS {
        let message = watcher.hear();
        match message["type"].as_str() {
            Some("event") => shown += 1,
            Some("skipped") => skipped += message["count"].as_u64().unwrap(),
            _ => panic!("{message}"),
        }
    }
    let most = 3 + 3 * (started.elapsed().as_secs() + 2);
    assert!((1..=most).contains(&shown), "{shown} shown");
    watcher.say(json!({"type": "untap"}));
    assert_eq!(watcher.hear()["type"], "untapped");
}

#[test]
fn the_numbers_are_told_and_the_past_is_kept() {
    let server = Server::start(OPEN, 2);
    let mut client = RawClient::in_room(&server, "a");
    let mut publisher = Publisher::connect(&server);
    for n in 0..100 {
        publisher.ask(&format!("{{\"room\":\"a\",\"event\":\"x\",\"data\":{n},\"id\":{n}}}"));
        client.next();
    }
    assert_eq!(http(server.listen, "GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n").status, 404);
    let mut watcher = Watcher::open(&server, &[]).unwrap();
    let hello = watcher.hear_any();
    assert_eq!((&hello["service"], &hello["version"]), (&"roomcast".into(), &env!("CARGO_PKG_VERSION").into()));
    let sum = |message: &Value, name: &str| -> u64 {
        message["cores"].as_array().unwrap().iter().map(|core| core[name].as_u64().unwrap()).sum()
    };
    let mut refused = 0;
    loop {
        let message = watcher.hear_any();
        assert_eq!(message["type"], "stats");
        let told = message["incidents"].as_array().unwrap().iter().chain(hello["incidents"].as_array().unwrap());
        refused = refused.max(told.filter(|incident| incident["reason"] == "unknown_path").count());
        if sum(&message, "deliveries") == 100 && refused > 0 {
            assert_eq!(message["cores"].as_array().unwrap().len(), 2);
            assert_eq!((sum(&message, "connections"), sum(&message, "events")), (1, 100));
            let busy = |core: &Value| core["busy_s"].as_f64().unwrap() > 0.0;
            assert!(message["cores"].as_array().unwrap().iter().all(busy));
            assert_eq!(message["status"], "ready");
            assert!(message["memory_bytes"].as_u64().unwrap() > 1_000_000);
            break;
        }
    }
    // Whoever comes later sees it as well.
    let hello = Watcher::open(&server, &[]).unwrap().hear_any();
    assert_eq!(hello["incidents"][0]["reason"], "unknown_path");
    assert!(hello["points"].as_array().unwrap().len() >= 2, "{hello}");
}

#[test]
fn there_is_a_bound_on_watchers() {
    let server = Server::start(OPEN, 1);
    let mut watchers = Vec::new();
    let status = loop {
        match Watcher::open(&server, &[]) {
            Ok(watcher) => watchers.push(watcher),
            Err(status) => break status,
        }
    };
    assert_eq!((watchers.len(), status), (16, 503));
    for watcher in &mut watchers {
        watcher.hear();
        watcher.say(json!({"type": "tap"}));
        assert_eq!(watcher.hear()["type"], "tapped");
    }
    watchers.pop();
    wait_until("a place is free", || Watcher::open(&server, &[]).is_ok());
    assert_eq!(server.metric("roomcast_panics_total"), 0.0);
}

#[test]
fn the_page_shows_what_happens() {
    node("operators_page.js", &Server::start(OPEN, 2), &["open", "2"]);
}

#[test]
fn the_page_publishes_with_the_token() {
    let (server, _folder) = with_token(1);
    node("operators_page.js", &server, &["token", TOKEN]);
}
