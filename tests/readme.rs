//! What the README shows works as it stands there: the ways to publish reach a client, the browsers' ways get an event,
//! the configs are some, and what `roomcast check` is asked it answers.

mod common;

use common::{Server, TempDir, clients_folder};
use roomcast::config::Config;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;

fn readme() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap()
}

/// The fenced blocks of a language.
fn blocks(language: &str) -> Vec<String> {
    let begin = format!("\n```{language}\n");
    readme().split(&*begin).skip(1).map(|rest| rest.split("\n```").next().unwrap().to_owned()).collect()
}

/// The block of a language in which this stands.
fn block(language: &str, with: &str) -> String {
    let mut blocks = blocks(language).into_iter().filter(|block| block.contains(with));
    let block = blocks.next().unwrap_or_else(|| panic!("README.md has no block of {language} with {with}"));
    assert!(blocks.next().is_none(), "README.md has several blocks of {language} with {with}");
    block
}

/// With the ports of this server. The shell has the publishers' behind a slash.
fn at(server: &Server, snippet: &str) -> String {
    let [clients, publishers, operators] = [server.listen, server.ingest, server.admin].map(|a| a.port().to_string());
    let mut text = snippet.replace("127.0.0.1:3000", &format!("127.0.0.1:{clients}"));
    text = text.replace("127.0.0.1:3200", &format!("127.0.0.1:{operators}"));
    for before in ["127.0.0.1:", "127.0.0.1/", "connect(", "(\"127.0.0.1\", "] {
        text = text.replace(&format!("{before}3100"), &format!("{before}{publishers}"));
    }
    assert!(text != snippet, "there is no port in {snippet}");
    text
}

#[track_caller]
fn succeeds(what: &str, command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{what}: {error}"));
    let Output { status, stdout, stderr } = &output;
    let (stdout, stderr) = (String::from_utf8_lossy(stdout), String::from_utf8_lossy(stderr));
    assert!(status.success(), "{what}: {status}\n{stdout}{stderr}");
    stdout.into_owned()
}

/// A client of the development config, in the room.
fn listener(server: &Server) -> common::RawClient {
    let mut client = common::RawClient::connect(server);
    let answer = client.ask(r#"{"type":"subscribe","room":"news"}"#);
    assert_eq!(answer, r#"{"type":"subscribed","data":{"room":"news"}}"#);
    client
}

#[test]
fn every_way_to_publish_reaches_the_room() {
    let server = Server::start(roomcast::config::DEVELOPMENT, 1);
    let mut client = listener(&server);
    let dir = TempDir::new();
    let mut arrives = |title: &str| {
        let event: Value = serde_json::from_str(&client.next()).unwrap();
        assert_eq!(event, json!({"type":"headline","data":{"title":title}}));
    };

    let shell = at(&server, &block("bash", "/dev/tcp/"));
    succeeds(&shell, Command::new("bash").args(["-c", &shell]));
    arrives("from the shell");

    let node = at(&server, &block("js", "require(\"net\")"));
    succeeds(&node, Command::new("node").args(["-e", &node]));
    arrives("from Node");

    let python = at(&server, &block("python", "import"));
    succeeds(&python, Command::new("python3").args(["-c", &python]));
    arrives("from Python");

    let rust = at(&server, &block("rust", "fn main"));
    let (source, program) = (dir.path("publish.rs"), dir.path("publish"));
    fs::write(&source, &rust).unwrap();
    succeeds(&rust, Command::new("rustc").args(["--edition", "2024", "-o"]).arg(&program).arg(&source));
    succeeds(&rust, &mut Command::new(&program));
    arrives("from Rust");
    for block in blocks("js").into_iter().chain(blocks("python")).chain(blocks("rust")) {
        assert!(block.lines().count() < 10, "a newcomer wants less than ten lines:\n{block}");
    }

    let http = at(&server, &block("bash", "curl"));
    let said =
        succeeds(&http, Command::new("bash").args(["-ec", &format!("curl() {{ command curl -sS \"$@\"; }}\n{http}")]));
    arrives("by HTTP");
    assert!(said.contains(r#""sockets":1"#) && said.contains(r#""name":"news""#), "{said}");
    for (line, answer) in http.lines().filter_map(|line| Some((line, line.rsplit_once("# ")?.1))) {
        let shape = |text: &str| text.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
        assert!(said.split('}').any(|one| shape(&format!("{one}}}")).contains(&shape(answer))), "{line}\n{said}");
    }
}

#[test]
fn both_ways_of_browsers_get_the_event() {
    let server = Server::start(roomcast::config::DEVELOPMENT, 1);
    let mut publisher = common::Publisher::connect(&server);
    // Browsers have it; Node 20 has not.
    let shim = "globalThis.WebSocket ??= (await import('ws')).default;\n";
    for (with, module, joined, shown) in [
        ("socket.io-client", "", "in the room", "hello"),
        (
            "new WebSocket",
            shim,
            "{ type: 'subscribed', data: { room: 'news' } }",
            "{ type: 'headline', data: { title: 'hello' } }",
        ),
    ] {
        let snippet = format!("{module}{}", at(&server, &block("js", with)));
        let mut node = Command::new("node");
        node.args(["--input-type=module", "-e", &snippet]).current_dir(clients_folder());
        let mut child = node.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let line = || lines.recv_timeout(common::LIMIT).unwrap_or_else(|error| panic!("{error}:\n{snippet}"));
        assert_eq!(line(), joined);
        publisher.line(r#"{"room":"news","event":"headline","data":{"title":"hello"}}"#);
        assert_eq!(line(), shown);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn every_config_that_is_shown_is_one() {
    let blocks = blocks("toml");
    for block in &blocks {
        if let Err(error) = Config::parse(block, "README.md") {
            panic!("{error}\n{block}");
        }
    }
    assert!(blocks.len() >= 3, "{}", blocks.len());
}

#[test]
fn what_check_is_asked_it_answers() {
    let bin = Path::new(env!("CARGO_BIN_EXE_roomcast")).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    for line in block("sh", "roomcast check").lines() {
        let mut command = Command::new("sh");
        command.args(["-c", line]).current_dir(env!("CARGO_MANIFEST_DIR")).env("PATH", &path);
        assert!(!succeeds(line, &mut command).is_empty(), "{line}");
    }
}

#[test]
fn what_tail_prints_is_what_the_readme_says() {
    let server = Server::start(roomcast::config::DEVELOPMENT, 1);
    let mut client = listener(&server);
    let line = block("sh", " pub news").lines().last().unwrap().to_owned();
    let own = format!("{} pub --ingest {}", env!("CARGO_BIN_EXE_roomcast"), server.ingest);
    let line = line.replace("cargo run --release -- pub", &own);
    succeeds(&line, Command::new("sh").args(["-c", &line]));
    let printed = client.next();
    assert!(readme().contains(&format!("`tail` prints `{printed}`.")), "{printed}");
}
