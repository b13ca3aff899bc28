//! The commands besides the server, and what operators get to read when something is wrong: sentences that name the
//! thing and the way out; exit code 0, 1 for a failure, 2 for a mistake on the command line.

mod common;

use common::{OPEN, Publisher, RawClient, Server, TempDir, wait_until};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Output, Stdio};

on_one_and_two_cores!(pub_publishes, tail_shows_events);

/// Runs `roomcast` with these words; nothing of the test's own environment is a setting.
fn roomcast(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_roomcast"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ROOMCAST_")) {
        command.env_remove(name);
    }
    command.args(words).stdin(Stdio::null());
    command
}

#[track_caller]
fn run(words: &[&str]) -> (i32, String, String) {
    read(roomcast(words).output().unwrap())
}

fn read(output: Output) -> (i32, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
    (output.status.code().expect("it was not killed"), text(output.stdout), text(output.stderr))
}

#[test]
fn help_and_version_go_to_standard_output() {
    for words in
        [&["--help"][..], &["-h"], &["serve", "--help"], &["pub", "--help"], &["tail", "--help"], &["--version"]]
    {
        let (code, out, err) = run(words);
        assert_eq!((code, err.as_str()), (0, ""), "{words:?}");
        assert!(out.contains("roomcast"), "{words:?}: {out}");
    }
    assert!(run(&["--version"]).1.contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn mistakes_of_usage_are_code_2() {
    for (words, word) in [
        (&["srve"][..], "serve"),
        (&["serve", "--prot", "3"], "--prot"),
        (&["serve", "--cores", "many"], "many"),
        (&["serve", "--listen", "nowhere"], "nowhere"),
        (&["check"], "FILE"),
        (&["pub", "room"], "EVENT"),
        (&["tail"], "ROOM"),
    ] {
        let (code, out, err) = run(words);
        assert_eq!((code, out.as_str()), (2, ""), "{words:?}: {err}");
        assert!(err.contains(word), "{words:?}: {err}");
    }
}

#[test]
fn check_says_what_a_config_means() {
    for example in ["housing-society.toml", "many-trains.toml", "library-seats.toml", "conformance.toml"] {
        let file = format!("{}/examples/{example}", env!("CARGO_MANIFEST_DIR"));
        let (code, out, err) = run(&["check", &file]);
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        assert!(out.contains("127.0.0.1:3000"), "{out}");
    }
    let dir = TempDir::new();
    let file = dir.path("config.toml");
    let path = file.to_str().unwrap();
    for (config, place, word) in [
        ("[server\n", ":1:", "]"),
        ("[server]\nlisten = \"nowhere\"\n", ":2:", "server.listen"),
        ("[server]\n\nlisten = 3000\n", ":3:", "server.listen"),
        ("[limits]\nmessage_bytes_max = 1\n", ":2:", "between"),
        ("[limits]\nmesage_bytes_max = 1\n", ":2:", "mesage_bytes_max"),
        ("[[namespace]]\nname = \"seats\"\n", ":2:", "/seats"),
        ("[[namespace]]\nname = \"/\"\n[[namespace.on]]\nevent = \"x\"\njoin = [\"{dta.id}\"]\n", ":5:", "dta"),
        ("[[namespace]]\nname = \"/\"\n[[namespace.on]]\nevent = \"x\"\nallow = \"data.x ==\"\n", ":5:", "allow"),
        ("[[endpoint]]\nkind = \"raw\"\nnamespace = \"/none\"\n", ":3:", "/none"),
    ] {
        std::fs::write(&file, config).unwrap();
        let (code, _, err) = run(&["check", path]);
        assert_eq!(code, 1, "{config}");
        assert!(err.contains(&format!("{path}{place}")) && err.contains(word), "{config}\n{err}");
        // A server does not start with it, and says the same.
        let (code, _, said) = run(&["serve", "--config", path]);
        assert_eq!(code, 1, "{config}");
        assert!(said.contains(&format!("{path}{place}")), "{config}\n{said}");
    }
    let (code, _, err) = run(&["check", "/nowhere/config.toml"]);
    assert_eq!(code, 1);
    assert!(err.contains("/nowhere/config.toml"), "{err}");
}

#[test]
fn check_says_what_would_happen() {
    let file = format!("{}/examples/many-trains.toml", env!("CARGO_MANIFEST_DIR"));
    let identify = [
        "check",
        &file,
        "--as",
        r#"{"state":{"trainNo":"5"},"rooms":["train:5"]}"#,
        "--event",
        "IDENTIFY",
        "--data",
        r#"{"role":"TTE","irctcId":"IR1"}"#,
    ];
    let (code, out, err) = run(&identify);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("is then in    train:5, user:IR1, role:TTE, train:5:TTE\n"), "{out}");
    // What is refused is an answer as well.
    let (code, out, err) = run(&["check", &file, "--event", "IDENTIFY", "--data", r#"{"role":"KING"}"#]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("refused by on[2] in line") && out.contains("hears         error {"), "{out}");
    for words in [&["--as", "{"][..], &["--data", "1"], &["--as", r#"{"clams":{}}"#]] {
        let (code, out, err) = run(&[&["check", &file], words].concat());
        assert_eq!((code, out.as_str()), (1, ""), "{err}");
        assert!(err.contains(words[0]), "{err}");
    }
}

#[test]
fn a_port_in_use_is_named_with_its_key() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (flag, key) in [("--listen", "server.listen"), ("--ingest", "ingest.listen"), ("--admin", "ops.listen")] {
        let mut words = vec!["serve", "--cores", "1", flag, &address];
        for other in ["--listen", "--ingest", "--admin"].iter().filter(|other| **other != flag) {
            words.extend([*other, "127.0.0.1:0"]);
        }
        let (code, _, err) = run(&words);
        assert_eq!(code, 1, "{err}");
        assert!(err.contains(&address) && err.contains(key), "{err}");
    }
}

#[test]
fn an_open_config_stays_on_this_machine() {
    for (flag, key) in [("--listen", "server"), ("--ingest", "ingest"), ("--admin", "ops")] {
        let (code, _, err) = run(&["serve", "--cores", "1", flag, "0.0.0.0:0"]);
        assert_eq!(code, 1, "{err}");
        assert!(err.contains(&format!("{key}.listen")) && err.contains("--config"), "{err}");
    }
}

fn pub_publishes(cores: usize) {
    let server = Server::start(OPEN, cores);
    let ingest = server.ingest.to_string();
    let mut client = RawClient::in_room(&server, "a");
    let publish = |words: &[&str]| run(&[&["pub", "--ingest", &ingest], words].concat());
    let (code, _, err) = publish(&["a", "hello", r#"{"n":1.0}"#]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(client.next(), r#"{"type":"hello","data":{"n":1.0}}"#);
    let (code, _, err) = publish(&["--all", "everyone", "-5"]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(client.next(), r#"{"type":"everyone","data":-5}"#);

    // One event for each line of standard input.
    let mut command = roomcast(&["pub", "--ingest", &ingest, "a", "line", "-"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for n in 0..1000 {
        writeln!(stdin, "{n}").unwrap();
    }
    drop(stdin);
    let (code, _, err) = read(child.wait_with_output().unwrap());
    assert_eq!(code, 0, "{err}");
    for n in 0..1000 {
        assert_eq!(client.next(), format!(r#"{{"type":"line","data":{n}}}"#));
    }

    // What is wrong is named, and nothing of it is sent.
    let (code, _, err) = publish(&["a", "bad", "{"]);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("JSON"), "{err}");
    let (code, _, err) = publish(&["--ns", "/nowhere", "a", "bad", "1"]);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("/nowhere"), "{err}");
    // A port that nobody listens on: this one's was, a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (code, _, err) = run(&["pub", "--ingest", &free, "a", "x", "1"]);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains(&free), "{err}");
    Publisher::connect(&server).line(r#"{"room":"a","event":"end"}"#);
    assert_eq!(client.next(), r#"{"type":"end"}"#);
}

fn tail_shows_events(cores: usize) {
    let server = Server::start(OPEN, cores);
    let url = format!("ws://{}/ws", server.listen);
    let mut command = roomcast(&["tail", "--url", &url, "a", "b"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Two rooms of its own, besides those that every socket has.
    wait_until("tail is in its rooms", || server.metric("roomcast_client_messages_total") == 2.0);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut publisher = Publisher::connect(&server);
    for room in ["a", "b", "elsewhere", "a"] {
        publisher.ask(&format!(r#"{{"id":1,"room":"{room}","event":"x","data":{{"room":"{room}","n":1.0}}}}"#));
    }
    let mut got: Vec<String> = (0..3).map(|_| lines.next().unwrap().unwrap()).collect();
    got.sort();
    let line = |room: &str| format!(r#"{{"type":"x","data":{{"room":"{room}","n":1.0}}}}"#);
    assert_eq!(got, [line("a"), line("a"), line("b")]);
    // The server's end is the end.
    drop(server);
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert!(rest.is_empty(), "{rest:?}");
    assert_eq!(child.wait().unwrap().code(), Some(1));

    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (code, _, err) = run(&["tail", "--url", &format!("ws://{free}/ws"), "a"]);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains(&free), "{err}");
}
