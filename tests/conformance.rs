//! Engine.IO, Socket.IO and their stock clients: what is said and what is answered stands in `tests/clients`, in
//! programs that know no server. They run against ours, on one core and on two, and against Node's own, so that a wrong
//! expectation is found where it belongs.

mod common;

use common::python::{Python, skipped};
use common::{Node, Server, example};
use std::any::Any;
use std::process::Command;
use std::sync::LazyLock;

/// A server that runs as long as this value lives.
struct Subject {
    /// For clients, publishers and operators; `-` for what Node's server has not.
    addresses: [String; 3],
    _process: Box<dyn Any>,
}

/// The timeout of the protocols' own test suites: transcripts want to see it.
const SHORT_TIMEOUT: &str = "200";
/// Stock clients beat as often, but are given time: a browser that starts on a busy machine takes it.
const LONG_TIMEOUT: &str = "30000";

impl Subject {
    /// `cores` 0 is Node's server. Pages may come from any origin, or from `origin` alone.
    fn start(cores: usize, timeout_ms: &str, origin: Option<&str>) -> Subject {
        if cores == 0 {
            let args = [timeout_ms].into_iter().chain(origin);
            let mut node = Node::run(Command::new("node"), "reference.js", args);
            let addresses = [node.await_prefix("listening "), "-".to_owned(), "-".to_owned()];
            return Subject { addresses, _process: Box::new(node) };
        }
        let mut config = example("conformance.toml");
        replace(&mut config, "ping_timeout_ms = 200", &format!("ping_timeout_ms = {timeout_ms}"));
        if let Some(origin) = origin {
            replace(&mut config, r#"origins = ["*"]"#, &format!("origins = [{origin:?}]"));
        }
        let server = Server::start(&config, cores);
        Subject { addresses: server.addresses(), _process: Box::new(server) }
    }
}

fn replace(config: &mut String, from: &str, to: &str) {
    assert!(config.contains(from), "examples/conformance.toml has {from}");
    *config = config.replace(from, to);
}

/// Runs a program to its end.
#[track_caller]
fn run(interpreter: Command, program: &str, subject: &Subject, args: &[&str]) {
    let addresses = subject.addresses.iter().map(String::as_str);
    Node::run(interpreter, program, addresses.chain(args.iter().copied())).finish();
}

#[track_caller]
fn node(program: &str, subject: &Subject, args: &[&str]) {
    run(Command::new("node"), program, subject, args);
}

macro_rules! on_one_and_two_cores_and_nodes_server {
    ($($name:ident),* $(,)?) => {
        on_one_and_two_cores!($($name),*);
        mod nodes_server { $(#[test] fn $name() { super::$name(0); })* }
    };
}

on_one_and_two_cores_and_nodes_server!(
    engine_io_is_spoken_as_written,
    socket_io_is_spoken_as_written,
    races_have_one_outcome,
    stock_clients_of_all_transports,
    python_clients_of_all_transports,
    a_page_of_another_origin,
    a_page_of_an_unknown_origin_is_kept_out,
);

fn engine_io_is_spoken_as_written(cores: usize) {
    node("engine_io.js", &Subject::start(cores, SHORT_TIMEOUT, None), &[]);
}

fn socket_io_is_spoken_as_written(cores: usize) {
    node("socket_io_protocol.js", &Subject::start(cores, SHORT_TIMEOUT, None), &[]);
}

fn races_have_one_outcome(cores: usize) {
    node("races.js", &Subject::start(cores, SHORT_TIMEOUT, None), &[]);
}

fn stock_clients_of_all_transports(cores: usize) {
    node("matrix.js", &Subject::start(cores, LONG_TIMEOUT, None), &[]);
}

fn python_clients_of_all_transports(cores: usize) {
    // One of the three tests installs it for all of them.
    static PYTHON: LazyLock<Result<Python, String>> = LazyLock::new(Python::three);
    match &*PYTHON {
        Ok(python) => run(python.command(), "python_client.py", &Subject::start(cores, LONG_TIMEOUT, None), &[]),
        Err(why) => skipped("python-socketio against the server", why),
    }
}

fn a_page_of_another_origin(cores: usize) {
    node("browser.js", &Subject::start(cores, LONG_TIMEOUT, None), &["allowed"]);
}

fn a_page_of_an_unknown_origin_is_kept_out(cores: usize) {
    node("browser.js", &Subject::start(cores, LONG_TIMEOUT, Some("https://app.example")), &["blocked"]);
}
