//! `roomcast demo`: one command, and there is something to see, by the official clients and in a browser; and it ends
//! as the server does.

mod common;

use common::{TempDir, clients_folder, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A running demo on ports of its own.
struct Demo {
    child: Child,
    ports: Value,
    dir: TempDir,
}

impl Demo {
    #[track_caller]
    fn start(words: &[&str]) -> Demo {
        let dir = TempDir::new();
        let (ports, log) = (dir.path("ports.json"), dir.path("log"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_roomcast"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ROOMCAST_")) {
            command.env_remove(name);
        }
        command.arg("demo").arg("--ports-file").arg(&ports);
        command.args(["--listen", "127.0.0.1:0", "--ingest", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.args(["--page", "127.0.0.1:0"]).args(words);
        let log_file = File::create(&log).unwrap();
        command.stdin(Stdio::null()).stdout(log_file.try_clone().unwrap()).stderr(log_file);
        let mut child = command.spawn().unwrap();
        wait_until("the demo has written its ports file", || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the demo ended with {status}:\n{}", fs::read_to_string(&log).unwrap());
            }
            ports.exists()
        });
        let ports = serde_json::from_str(&fs::read_to_string(&ports).unwrap()).unwrap();
        Demo { child, ports, dir }
    }

    fn port(&self, name: &str) -> &str {
        self.ports[name].as_str().unwrap_or_else(|| panic!("{name} is not in {}", self.ports))
    }

    /// What it has said so far.
    fn said(&self) -> String {
        fs::read_to_string(self.dir.path("log")).unwrap()
    }

    /// Runs a part of `tests/clients/demo.js` to its end.
    #[track_caller]
    fn visit(&self, part: &str) {
        let program: PathBuf = clients_folder().join("demo.js");
        let mut node = Command::new("node");
        node.arg(program)
            .args(["listen", "ingest", "admin"].map(|name| self.port(name)))
            .args([part, self.port("page")]);
        let output = node.stdin(Stdio::null()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{part}: {}\n{out}\n{err}\nthe demo:\n{}", output.status, self.said());
    }

    /// Ctrl-C, and the end.
    #[track_caller]
    fn interrupt(mut self) -> String {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        let mut status = None;
        wait_until("the demo has ended", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        let said = self.said();
        assert!(status.unwrap().success(), "{said}");
        said
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn official_clients_see_seats_and_trains() {
    let demo = Demo::start(&["--cores", "2", "--speed", "120"]);
    demo.visit("clients");
    let said = demo.interrupt();
    // Whoever has started it reads what to open, and nothing has gone wrong: the log says only warnings.
    assert!(said.contains("  Open        http://127.0.0.1:") && said.contains("roomcast pub --ingest"), "{said}");
    let last = said.trim_end().lines().last().unwrap();
    assert_eq!(last, "Ctrl-C ends it.", "{said}");
}

#[test]
fn the_page_shows_what_happens() {
    let demo = Demo::start(&["--cores", "1"]);
    demo.visit("browser");
    demo.interrupt();
}

#[test]
fn no_line_of_the_feed_is_refused() {
    let demo = Demo::start(&["--cores", "1", "--speed", "600"]);
    let events = || {
        let request = "GET /metrics HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n";
        let body = common::http(demo.port("admin").parse().unwrap(), request).body;
        let total = |line: &str| line.strip_prefix("roomcast_events_total{")?.rsplit(' ').next()?.parse::<f64>().ok();
        body.lines().filter_map(total).sum::<f64>()
    };
    wait_until("what has happened until eight is published, and more", || events() > 12_000.0);
    let said = demo.interrupt();
    assert!(!said.contains("refuses"), "{said}");
}

/// As npm has it, less the last line, which names a source map.
#[test]
fn the_embedded_client_is_the_stock_one() {
    let root = clients_folder().join("../..");
    let embedded = fs::read_to_string(root.join("src/demo/page/socket.io.min.js")).unwrap();
    let stock = clients_folder().join("node_modules/socket.io-client/dist/socket.io.min.js");
    let stock = fs::read_to_string(stock).unwrap();
    let (code, map) = stock.split_once("//# sourceMappingURL=").unwrap();
    assert!(embedded == code && map.lines().count() == 1, "copy it anew from tests/clients/node_modules");
}

#[test]
fn a_port_that_is_taken_is_named() {
    let demo = Demo::start(&["--cores", "1"]);
    let taken = demo.port("page");
    let output = Command::new(env!("CARGO_BIN_EXE_roomcast"))
        .args(["demo", "--listen", "127.0.0.1:0", "--ingest", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--page", taken])
        .output()
        .unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains(taken) && err.contains("--page") && err.contains("port 0 picks a free one"), "{err}");
    let output = Command::new(env!("CARGO_BIN_EXE_roomcast")).args(["demo", "--page", "0.0.0.0:0"]).output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && err.contains("stays on this machine's own addresses"), "{err}");
}
