//! Publishers' door: a token on the network, a Unix socket with a mode beside it, and what becomes of those who do not
//! come in properly.

mod common;

use common::{LIMIT, OPEN, Publisher, RawClient, Server, TempDir, wait_until};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Output};

on_one_and_two_cores!(
    the_token_opens_the_door,
    who_does_not_say_it_is_sent_away,
    neighbours_come_in_by_a_unix_socket,
    a_dead_socket_is_replaced_and_a_live_one_is_not,
    questions_have_answers,
);

const TOKEN: &str = "publishers-0123456789";

/// A config with a token, in a folder that has it.
fn with_token(folder: &TempDir, more: &str) -> String {
    let file = folder.path("publish.token");
    fs::write(&file, format!("{TOKEN}\n")).unwrap();
    format!("[ingest]\ntoken_file = \"{}\"\n{more}\n{OPEN}", file.display())
}

fn auth(token: &str) -> String {
    format!("{{\"op\":\"auth\",\"token\":\"{token}\",\"id\":\"me\"}}")
}

fn run_pub(address: &str, token_file: Option<&Path>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_roomcast"));
    command.args(["pub", "--ingest", address]).args(["a", "hello", "1"]);
    if let Some(file) = token_file {
        command.env("ROOMCAST_TOKEN_FILE", file);
    }
    command.output().unwrap()
}

fn the_token_opens_the_door(cores: usize) {
    let folder = TempDir::new();
    let server = Server::start(&with_token(&folder, ""), cores);
    let mut client = RawClient::in_room(&server, "a");
    let mut publisher = Publisher::connect(&server);
    publisher.line(&auth(TOKEN));
    assert_eq!(publisher.receipt_text(), "{\"id\":\"me\",\"ok\":true}");
    assert_eq!(publisher.ask("{\"room\":\"a\",\"event\":\"x\",\"id\":1}")["offset"], 1);
    assert_eq!(client.next(), r#"{"type":"x"}"#);
    let address = server.ingest.to_string();
    let output = run_pub(&address, Some(&folder.path("publish.token")));
    assert!(output.status.success(), "{output:?}");
    assert_eq!(client.next(), r#"{"type":"hello","data":1}"#);
    let refused = run_pub(&address, None);
    assert!(!refused.status.success() && String::from_utf8(refused.stderr).unwrap().contains("wants a token"));
    // The token stands nowhere.
    assert!(!server.log().contains(TOKEN) && !server.admin_get("/metrics").contains(TOKEN));
}

fn who_does_not_say_it_is_sent_away(cores: usize) {
    let folder = TempDir::new();
    let config = with_token(&folder, "[limits]\nhandshake_ms_max = 200");
    let server = Server::start(&config, cores);
    let mut client = RawClient::in_room(&server, "a");
    let event = "{\"room\":\"a\",\"event\":\"stolen\",\"id\":1}";
    // (what comes first, the answer's words, the counter's)
    for (line, words, reason) in [
        (auth("publishers-0123456780"), "the token is not the one", "token_invalid"),
        (auth(""), "the token is not the one", "token_invalid"),
        (event.to_owned(), "this port wants a token", "auth_missing"),
        ("GET / HTTP/1.1".to_owned(), "this port wants a token", "auth_missing"),
        ("x".repeat(100_000), "this port wants a token", "auth_missing"),
    ] {
        let before = server.metric_where("roomcast_publisher_closes_total", &[("reason", reason)]);
        let errors = server.metric_where("roomcast_ingest_errors_total", &[("reason", reason)]);
        let mut publisher = Publisher::connect(&server);
        publisher.bytes(format!("{line}\n{event}\n{event}\n"));
        let answer = publisher.receipt();
        assert!(answer["ok"] == false && answer["error"].as_str().unwrap().contains(words), "{answer}");
        assert_eq!(publisher.rest_or_reset(), "", "nothing else is answered");
        server.await_metric("roomcast_publisher_closes_total", &[("reason", reason)], before + 1.0);
        server.await_metric("roomcast_ingest_errors_total", &[("reason", reason)], errors + 1.0);
    }
    // Who says nothing is not waited for; who has said the token is.
    let mut honest = Publisher::connect(&server);
    honest.line(&auth(TOKEN));
    assert_eq!(honest.receipt()["ok"], true);
    let mut silent = Publisher::connect(&server);
    assert_eq!(silent.rest_or_reset(), "");
    server.await_metric("roomcast_publisher_closes_total", &[("reason", "auth_timeout")], 1.0);
    assert_eq!(honest.ask("{\"room\":\"a\",\"event\":\"x\",\"id\":1}")["offset"], 1);
    assert_eq!(client.next(), r#"{"type":"x"}"#, "nothing of the others was sent");
    server.await_metric("roomcast_publishers", &[], 1.0);
}

/// A publisher's connection to a Unix socket.
struct Neighbour(BufReader<UnixStream>);

impl Neighbour {
    fn connect(path: &Path) -> Neighbour {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Neighbour(BufReader::new(stream))
    }

    fn ask(&mut self, line: &str) -> Value {
        self.0.get_mut().write_all(format!("{line}\n").as_bytes()).unwrap();
        let mut answer = String::new();
        self.0.read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
    }
}

fn neighbours_come_in_by_a_unix_socket(cores: usize) {
    let folder = TempDir::new();
    let socket = folder.path("publish.sock");
    let unix = format!("unix = \"{}\"\nunix_mode = \"0600\"", socket.display());
    let mut server = Server::start(&with_token(&folder, &unix), cores);
    let metadata = fs::metadata(&socket).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
    let mut client = RawClient::in_room(&server, "a");
    // Without a token, on all cores by turns.
    let mut neighbours: Vec<Neighbour> = (0..4).map(|_| Neighbour::connect(&socket)).collect();
    for (index, neighbour) in neighbours.iter_mut().enumerate() {
        let answer = neighbour.ask("{\"room\":\"a\",\"event\":\"x\",\"id\":1}");
        assert_eq!(answer["offset"], index + 1);
        assert_eq!(client.next(), r#"{"type":"x"}"#);
    }
    server.await_metric("roomcast_publishers", &[], 4.0);
    for core in 0..cores {
        let label = core.to_string();
        server.await_metric("roomcast_publishers", &[("core", &label)], 4.0 / cores as f64);
    }
    // A lot of receipts that are read late.
    let lines = "{\"room\":\"b\",\"event\":\"x\",\"id\":1}\n".repeat(20_000);
    let mut writer = neighbours[0].0.get_ref().try_clone().unwrap();
    let writing = std::thread::spawn(move || writer.write_all(lines.as_bytes()).unwrap());
    let mut last = String::new();
    for _ in 0..20_000 {
        last.clear();
        neighbours[0].0.read_line(&mut last).unwrap();
    }
    writing.join().unwrap();
    assert_eq!(last, "{\"id\":1,\"ok\":true,\"offset\":20000}\n");
    let output = run_pub(&format!("unix:{}", socket.display()), None);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(client.next(), r#"{"type":"hello","data":1}"#);
    // One that says that it has ended has all its answers, and the end.
    let mut last = neighbours.pop().unwrap();
    last.0.get_mut().write_all(b"{\"room\":\"c\",\"event\":\"x\",\"id\":1}\n").unwrap();
    last.0.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
    let mut rest = String::new();
    last.0.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "{\"id\":1,\"ok\":true,\"offset\":1}\n");
    drop(client);
    assert!(server.stop(common::Signal::TERM).success());
    assert!(!socket.exists(), "the file goes with the server");
    assert_eq!(UnixStream::connect(&socket).unwrap_err().kind(), ErrorKind::NotFound);
}

fn a_dead_socket_is_replaced_and_a_live_one_is_not(cores: usize) {
    let folder = TempDir::new();
    let socket = folder.path("publish.sock");
    let config = format!("[ingest]\nunix = \"{}\"\n{OPEN}", socket.display());
    let mut dead = Server::start(&config, cores);
    dead.kill();
    assert!(socket.exists());
    let server = Server::start(&config, cores);
    assert_eq!(Neighbour::connect(&socket).ask("{\"event\":\"x\",\"id\":1}")["offset"], 1);
    let file = folder.path("config.toml");
    fs::write(&file, &config).unwrap();
    let second = Command::new(env!("CARGO_BIN_EXE_roomcast"))
        .args(["serve", "--listen", "127.0.0.1:0", "--ingest", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--config"])
        .arg(&file)
        .output()
        .unwrap();
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(!second.status.success() && said.contains("(ingest.unix): another process listens there"), "{said}");
    assert_eq!(Neighbour::connect(&socket).ask("{\"event\":\"x\",\"id\":1}")["offset"], 2);
    drop(server);
    // Whoever listens there now keeps its file.
    let other = UnixListener::bind(&socket).unwrap();
    drop(other);
    assert!(socket.exists());
}

fn questions_have_answers(cores: usize) {
    let server = Server::start(OPEN, cores);
    let mut publisher = Publisher::connect(&server);
    let mut clients: Vec<RawClient> = (0..6).map(|_| RawClient::in_room(&server, "a")).collect();
    let mut socket_io = RawClient::socket_io(&server);
    socket_io.send(r#"420["subscribe",{"room":"a"}]"#);
    assert_eq!(
        (socket_io.next(), socket_io.next()),
        (r#"42["subscribed",{"room":"a"}]"#.into(), r#"430["ok"]"#.into())
    );
    let lines: String = (0..1500).map(|n| format!("{{\"room\":\"r{n:04}\",\"event\":\"x\"}}\n")).collect();
    publisher.bytes(lines);
    assert_eq!(publisher.ask("{\"room\":\"a\",\"event\":\"x\",\"data\":[1,2],\"id\":1}")["offset"], 1);

    let room = publisher.ask("{\"op\":\"room\",\"room\":\"a\",\"id\":1}")["room"].clone();
    assert_eq!((&room["name"], &room["members"], &room["offset"]), (&"a".into(), &7.into(), &1.into()));
    assert_eq!(room["encodings"], serde_json::json!({"socket_io": 1, "raw_nested": 6, "raw_flat": 0}));
    let by_core: Vec<u64> = room["cores"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
    assert_eq!((by_core.len(), by_core.iter().sum::<u64>()), (cores, 7));
    assert!(room["bytes"] == 8 && room["rate"].as_f64().unwrap() > 0.0 && room["epoch"].as_u64().unwrap() > 0);
    assert!(publisher.ask("{\"op\":\"room\",\"room\":\"nobody\",\"id\":1}")["room"].is_null());

    // Page by page.
    let mut names: Vec<String> = Vec::new();
    let mut after = String::new();
    loop {
        let page = publisher.ask(&format!("{{\"op\":\"rooms\",\"limit\":700,\"after\":\"{after}\",\"id\":1}}"));
        names.extend(page["rooms"].as_array().unwrap().iter().map(|room| room["name"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    let expected: Vec<String> = ["a".to_owned()].into_iter().chain((0..1500).map(|n| format!("r{n:04}"))).collect();
    assert_eq!(names, expected);
    let some = publisher.ask("{\"op\":\"rooms\",\"prefix\":\"r14\",\"after\":\"r1497\",\"id\":1}");
    assert_eq!((some["rooms"].as_array().unwrap().len(), &some["next"]), (2, &Value::Null));

    let answer = clients[0].ask(r#"{"type":"who"}"#);
    let answer = if answer.contains("\"x\"") { clients[0].next() } else { answer };
    let you: Value = serde_json::from_str(&answer).unwrap();
    let sid = you["data"]["sid"].as_str().unwrap();
    let socket = publisher.ask(&format!("{{\"op\":\"socket\",\"sid\":\"{sid}\",\"id\":1}}"))["socket"].clone();
    assert_eq!((&socket["sid"], &socket["transport"]), (&you["data"]["sid"], &"websocket".into()));
    assert_eq!((&socket["rooms"], &socket["ip"]), (&serde_json::json!(["a"]), &"127.0.0.1".into()));
    drop(clients);
    wait_until("the socket is gone", || {
        publisher.ask(&format!("{{\"op\":\"socket\",\"sid\":\"{sid}\",\"id\":1}}"))["socket"].is_null()
    });
    let stats = publisher.ask("{\"op\":\"stats\",\"id\":1}")["stats"].clone();
    assert_eq!(stats["cores"].as_array().unwrap().len(), cores);
    assert!(stats["events"] == 1501 && stats["publishers"] == 1, "{stats}");
}
