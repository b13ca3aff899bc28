//! What whole-process tests share: a server process, publishers, WebSocket clients one by one and by the thousand, Node
//! programs. Waits for events with generous limits and knows no timing: a slow machine makes these tests slow, not red.

#![allow(dead_code, reason = "each test binary uses its own part of this")]

pub mod cores;
pub mod host;
pub mod polling;
pub mod python;
pub mod swarm;
pub mod wire;

use serde_json::Value;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};
use tungstenite::client::IntoClientRequest;
use tungstenite::{Message, WebSocket};

pub use rustix::process::Signal;

/// After this without the awaited event a test has failed. Long, because it is never waited for when all is well.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Runs each test function on one core and on two: `on_one_and_two_cores!(a, b)` for `fn a(cores: usize)`.
#[macro_export]
macro_rules! on_one_and_two_cores {
    ($($name:ident),* $(,)?) => {
        mod one_core { $(#[test] fn $name() { super::$name(1); })* }
        mod two_cores { $(#[test] fn $name() { super::$name(2); })* }
    };
}

/// Waits until `holds`, or fails with `what`.
#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < LIMIT, "waited {LIMIT:?} in vain until {what}");
        pause();
    }
}

/// Between two looks. Nothing is expected to happen within it.
#[allow(clippy::disallowed_methods, reason = "the only sleep in the tests, and always in a loop")]
fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}

/// A config in which every client may join every room, at a Socket.IO and a raw endpoint.
pub const OPEN: &str = r#"
[[endpoint]]
kind = "socket.io"
path = "/socket.io/"

[[endpoint]]
kind = "raw"
path = "/ws"
namespace = "/"

[[namespace]]
name = "/"

[[namespace.on]]
event = "subscribe"
join = ["{data.room}"]
reply = { event = "subscribed", data = { room = "{data.room}" } }
ack = ["ok"]

[[namespace.on]]
event = "unsubscribe"
leave = ["{data.room}"]
reply = { event = "unsubscribed", data = { room = "{data.room}" } }

[[namespace.on]]
event = "who"
reply = { event = "you", data = { sid = "{sid}" } }
"#;

// ---- the server ----

/// A config and how to start the server with it.
pub struct Setup {
    config: String,
    cores: usize,
    listen: String,
    admin: String,
    descriptors_max: Option<u32>,
    variables: Vec<(String, String)>,
    has_file: bool,
    sockets: Vec<OwnedFd>,
}

impl Setup {
    /// Without a config file: with the built-in config.
    pub fn without_file(mut self) -> Setup {
        self.has_file = false;
        self
    }

    /// With this variable in its environment.
    pub fn env(mut self, name: &str, value: &str) -> Setup {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Listens at this address instead of at a free port.
    pub fn listen(mut self, address: SocketAddr) -> Setup {
        self.listen = address.to_string();
        self
    }

    /// Operators reach it at this address instead of at a free port.
    pub fn admin(mut self, address: SocketAddr) -> Setup {
        self.admin = address.to_string();
        self
    }

    /// With these sockets handed over as a service manager does it: descriptors from 3 on, named by variables. At most
    /// two, as a shell has two standard streams to bring them in.
    pub fn sockets(mut self, sockets: impl IntoIterator<Item: Into<OwnedFd>>) -> Setup {
        self.sockets = sockets.into_iter().map(Into::into).collect();
        self
    }

    /// Under `ulimit -n`.
    pub fn descriptors_max(mut self, max: u32) -> Setup {
        self.descriptors_max = Some(max);
        self
    }

    /// Starts it and waits until it listens.
    #[track_caller]
    pub fn start(self) -> Server {
        self.try_start().unwrap_or_else(|(status, log)| panic!("the server ended with {status}:\n{log}"))
    }

    /// Starts it and waits until it listens, or has ended with this status and log.
    #[track_caller]
    pub fn try_start(self) -> Result<Server, (ExitStatus, String)> {
        let dir = TempDir::new();
        let (config, ports, log) = (dir.path("config.toml"), dir.path("ports.json"), dir.path("log"));
        fs::write(&config, &self.config).unwrap();
        let binary = env!("CARGO_BIN_EXE_roomcast");
        let mut script = String::new();
        if let Some(max) = self.descriptors_max {
            script += &format!("ulimit -n {max} || exit; ");
        }
        if !self.sockets.is_empty() {
            let count = self.sockets.len();
            script += &format!("exec 3<&0 4<&1 </dev/null >&2; export LISTEN_FDS={count} LISTEN_PID=$$; ");
        }
        let mut command = if script.is_empty() { Command::new(binary) } else { Command::new("sh") };
        if !script.is_empty() {
            command.args(["-c", &format!("{script}exec \"$0\" \"$@\""), binary]);
        }
        let cores = self.cores.to_string();
        command.env_remove("REDIS_URL").envs(self.variables);
        command.arg("serve").arg("--ports-file").arg(&ports);
        if self.has_file {
            command.arg("--config").arg(&config);
        }
        command.args(["--cores", &cores, "--listen", &self.listen]);
        command.args(["--ingest", "127.0.0.1:0", "--admin", &self.admin]);
        let log_file = File::create(&log).unwrap();
        command.stdin(Stdio::null()).stdout(log_file.try_clone().unwrap()).stderr(log_file);
        let mut sockets = self.sockets.into_iter();
        if let Some(socket) = sockets.next() {
            command.stdin(socket);
        }
        if let Some(socket) = sockets.next() {
            command.stdout(socket);
        }
        assert!(sockets.next().is_none(), "two sockets at most");
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {binary}: {error}"));
        let mut ended = None;
        wait_until("the server has written its ports file", || {
            ended = child.try_wait().unwrap();
            ended.is_some() || ports.exists()
        });
        if let Some(status) = ended {
            return Err((status, fs::read_to_string(&log).unwrap()));
        }
        let ports: Value = serde_json::from_str(&fs::read_to_string(&ports).unwrap()).unwrap();
        let address = |key: &str| ports[key].as_str().unwrap().parse().unwrap();
        Ok(Server {
            listen: address("listen"),
            ingest: address("ingest"),
            admin: address("admin"),
            child,
            log,
            admin_connection: RefCell::new(None),
            stopped: false,
            dir,
        })
    }
}

/// A running `roomcast serve`. Dropped, it is stopped by SIGTERM and must end with exit code 0 and without a panic.
pub struct Server {
    pub listen: SocketAddr,
    pub ingest: SocketAddr,
    pub admin: SocketAddr,
    child: Child,
    log: PathBuf,
    admin_connection: RefCell<Option<BufReader<TcpStream>>>,
    stopped: bool,
    dir: TempDir,
}

impl Server {
    /// For settings beyond config and cores.
    pub fn setup(config: &str, cores: usize) -> Setup {
        Setup {
            config: config.to_owned(),
            cores,
            listen: "127.0.0.1:0".to_owned(),
            admin: "127.0.0.1:0".to_owned(),
            descriptors_max: None,
            variables: Vec::new(),
            has_file: true,
            sockets: Vec::new(),
        }
    }

    #[track_caller]
    pub fn start(config: &str, cores: usize) -> Server {
        Server::setup(config, cores).start()
    }

    /// Starts with one of the ready configs in `examples/`.
    #[track_caller]
    pub fn example(name: &str, cores: usize) -> Server {
        Server::start(&example(name), cores)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.listen)
    }

    /// For clients, publishers and operators, as programs of `tests/clients` take them.
    pub fn addresses(&self) -> [String; 3] {
        [self.listen, self.ingest, self.admin].map(|address| address.to_string())
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The config file, in a folder of the server's own.
    pub fn config_path(&self) -> PathBuf {
        self.dir.path("config.toml")
    }

    /// Has the server read this config instead of the former one. Returns true if it goes by it from here on, false if
    /// it has refused to.
    #[track_caller]
    pub fn reload(&self, config: &str) -> bool {
        fs::write(self.config_path(), config).unwrap();
        let count = |outcome| self.metric_where("roomcast_config_reloads_total", &[("outcome", outcome)]);
        let (taken, refused) = (count("ok"), count("refused"));
        self.signal(Signal::HUP);
        wait_until("the config has been read again", || count("ok") + count("refused") > taken + refused);
        count("ok") > taken
    }

    pub fn signal(&self, signal: Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Sends the signal and waits for the end.
    #[track_caller]
    pub fn stop(&mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        self.wait()
    }

    /// Waits for the end.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the server has ended", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        self.stopped = true;
        status.unwrap()
    }

    /// SIGTERM, and only if that does not end it, SIGKILL: then there is no status.
    fn end(&mut self) -> Option<ExitStatus> {
        self.signal(Signal::TERM);
        let start = Instant::now();
        while start.elapsed() < LIMIT {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            pause();
        }
        self.kill();
        None
    }

    /// Dies without a chance to do anything about it, as in a power cut.
    pub fn kill(&mut self) {
        self.stopped = true;
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The body of `GET path` at the operators' port. The connection is kept, so that this works without free
    /// descriptors.
    #[track_caller]
    pub fn admin_get(&self, path: &str) -> String {
        let mut kept = self.admin_connection.borrow_mut();
        for _ in 0..2 {
            let connection = kept.get_or_insert_with(|| {
                let stream = TcpStream::connect(self.admin).expect("the operators' port is there");
                stream.set_read_timeout(Some(LIMIT)).unwrap();
                BufReader::new(stream)
            });
            let request = format!("GET {path} HTTP/1.1\r\nHost: admin\r\n\r\n");
            let response = connection.get_mut().write_all(request.as_bytes()).and_then(|()| read_response(connection));
            match response {
                Ok(response) => return response.body,
                // It was idle for too long.
                Err(_) => *kept = None,
            }
        }
        panic!("no answer to GET {path}; the server's log:\n{}", self.log());
    }

    /// All samples of `/metrics`.
    #[track_caller]
    pub fn samples(&self) -> Vec<Sample> {
        self.admin_get("/metrics").lines().filter(|line| !line.starts_with('#')).filter_map(Sample::parse).collect()
    }

    /// The sum of a metric over all cores and labels; 0 if there is none.
    #[track_caller]
    pub fn metric(&self, name: &str) -> f64 {
        self.metric_where(name, &[])
    }

    /// The sum of a metric over all cores, where it has all of `labels`.
    #[track_caller]
    pub fn metric_where(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has =
            |sample: &Sample| labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|v| v == value));
        self.samples().iter().filter(|sample| sample.name == name && has(sample)).map(|sample| sample.value).sum()
    }

    /// Waits until a metric has exactly this value; fails at once if a counter has passed it.
    #[track_caller]
    pub fn await_metric(&self, name: &str, labels: &[(&str, &str)], expected: f64) {
        let mut last = f64::NAN;
        let start = Instant::now();
        while last != expected {
            last = self.metric_where(name, labels);
            let passed = name.ends_with("_total") && last > expected;
            assert!(
                !passed && start.elapsed() < LIMIT,
                "{name} {labels:?} is {last}, not {expected}; log:\n{}",
                self.log()
            );
            pause();
        }
    }

    /// Bytes of the process's own memory that are in RAM, shared pages and files excluded.
    pub fn anonymous_bytes(&self) -> u64 {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid())).unwrap();
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss_Anon:")).expect("smaps_rollup has Pss_Anon");
        line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() << 10
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let panicking = std::thread::panicking();
        let status = if self.stopped { None } else { Some(self.end()) };
        let log = self.log();
        if panicking {
            println!("---- the server's log ----\n{log}");
            return;
        }
        match status {
            None => {}
            Some(None) => panic!("the server did not end within {LIMIT:?} after SIGTERM; its log:\n{log}"),
            Some(Some(status)) => assert!(status.success(), "after SIGTERM it ended with {status}; its log:\n{log}"),
        }
        assert!(!log.contains("panick"), "the server has panicked:\n{log}");
    }
}

/// The text of a config in `examples/`, for a server that reads it elsewhere.
pub fn example(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let keys = folder.join("keys");
    fs::read_to_string(folder.join(name)).unwrap().replace("\"keys/", &format!("\"{}/", keys.display()))
}

/// The same without what a single machine with a thousand clients runs into: limits per address and second.
pub fn example_for_many(name: &str) -> String {
    let limits = ["connections_per_ip", "handshakes_", "events_per_socket"];
    let is_limit = |line: &str| limits.iter().any(|limit| line.starts_with(limit));
    example(name).lines().filter(|line| !is_limit(line)).map(|line| format!("{line}\n")).collect()
}

/// The example with one of its settings changed: `key` stands there with another value.
#[track_caller]
pub fn example_with(name: &str, settings: &[(&str, &str)]) -> String {
    let mut found = 0;
    let text = example(name);
    let changed = text.lines().map(|line| {
        let setting = settings.iter().find(|(key, _)| line.split('=').next().is_some_and(|name| name.trim() == *key));
        found += usize::from(setting.is_some());
        setting.map_or_else(|| format!("{line}\n"), |(key, value)| format!("{key} = {value}\n"))
    });
    let changed = changed.collect();
    assert_eq!(found, settings.len(), "{name} has each of {settings:?} once");
    changed
}

/// One line of `/metrics`.
#[derive(Debug)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Sample {
    fn parse(line: &str) -> Option<Sample> {
        let (key, value) = line.rsplit_once(' ')?;
        let (name, labels) = key.split_once('{').unwrap_or((key, ""));
        let labels = labels.trim_end_matches('}').split("\",").filter_map(|pair| {
            let (key, value) = pair.split_once("=\"")?;
            Some((key.to_owned(), value.trim_end_matches('"').to_owned()))
        });
        Some(Sample { name: name.to_owned(), labels: labels.collect(), value: value.parse().ok()? })
    }
}

/// A directory that goes with its value.
pub struct TempDir(PathBuf);

impl TempDir {
    #[allow(clippy::new_without_default)]
    pub fn new() -> TempDir {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("roomcast-test-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        TempDir(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

// ---- HTTP ----

/// An HTTP response with a `Content-Length`.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// Reads one response.
pub fn read_response(reader: &mut impl BufRead) -> std::io::Result<Response> {
    read_response_without(reader, false)
}

/// Reads one response; `bodiless` if it answers HEAD.
pub fn read_response_without(reader: &mut impl BufRead, bodiless: bool) -> std::io::Result<Response> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(ErrorKind::InvalidData)?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().unwrap())
    });
    let mut body = vec![0; if bodiless { 0 } else { length.unwrap_or(0) }];
    reader.read_exact(&mut body)?;
    Ok(Response { status, head, body: String::from_utf8(body).map_err(|_| ErrorKind::InvalidData)? })
}

/// Sends these bytes on a new connection and reads the response.
#[track_caller]
pub fn http(address: SocketAddr, request: &str) -> Response {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let bodiless = request.starts_with("HEAD ");
    let response = read_response_without(&mut BufReader::new(stream), bodiless);
    response.unwrap_or_else(|error| panic!("no response ({error}) to:\n{request}"))
}

// ---- publishers ----

/// A publisher's connection.
pub struct Publisher {
    reader: BufReader<TcpStream>,
}

impl Publisher {
    #[track_caller]
    pub fn connect(server: &Server) -> Publisher {
        let stream = TcpStream::connect(server.ingest).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Publisher { reader: BufReader::new(stream) }
    }

    /// A second handle on the connection, for another thread.
    pub fn stream(&self) -> TcpStream {
        self.reader.get_ref().try_clone().unwrap()
    }

    /// Sends bytes as they are.
    #[track_caller]
    pub fn bytes(&mut self, bytes: impl AsRef<[u8]>) {
        self.reader.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    /// Sends a line.
    #[track_caller]
    pub fn line(&mut self, line: &str) {
        self.bytes(format!("{line}\n"));
    }

    /// The next receipt as text, without its line ending.
    #[track_caller]
    pub fn receipt_text(&mut self) -> String {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => panic!("the server has closed the publisher's connection"),
            Ok(_) => line.trim_end_matches('\n').to_owned(),
            Err(error) => panic!("no receipt within {LIMIT:?}: {error}"),
        }
    }

    /// The next receipt.
    #[track_caller]
    pub fn receipt(&mut self) -> Value {
        let text = self.receipt_text();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in the receipt {text:?}"))
    }

    /// Sends a line with an id and returns its receipt.
    #[track_caller]
    pub fn ask(&mut self, line: &str) -> Value {
        self.line(line);
        self.receipt()
    }

    /// Says that nothing more will come.
    pub fn half_close(&mut self) {
        self.reader.get_ref().shutdown(Shutdown::Write).unwrap();
    }

    /// Like [`Publisher::rest`], of a server that may close while lines are on their way to it.
    #[track_caller]
    pub fn rest_or_reset(&mut self) -> String {
        let mut rest = Vec::new();
        match self.reader.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
        String::from_utf8(rest).unwrap()
    }

    /// Everything that the server still sends until it closes.
    #[track_caller]
    pub fn rest(&mut self) -> String {
        let mut rest = String::new();
        self.reader.read_to_string(&mut rest).expect("the server closes the connection");
        rest
    }
}

// ---- one WebSocket client ----

/// A WebSocket client by another's hand: tungstenite checks what the server sends.
pub struct RawClient {
    socket: WebSocket<TcpStream>,
}

impl RawClient {
    /// Connects to the raw endpoint `/ws`.
    #[track_caller]
    pub fn connect(server: &Server) -> RawClient {
        RawClient::connect_to(server, "/ws")
    }

    /// Opens an Engine.IO session and reads its handshake packet, without the type.
    #[track_caller]
    pub fn engine_io(server: &Server) -> (RawClient, Value) {
        let mut client = RawClient::connect_to(server, "/socket.io/?EIO=4&transport=websocket");
        let packet = client.next();
        let json = packet.strip_prefix('0').unwrap_or_else(|| panic!("the first packet is {packet:?}"));
        (client, serde_json::from_str(json).unwrap())
    }

    /// A Socket.IO client in the namespace `/`.
    #[track_caller]
    pub fn socket_io(server: &Server) -> RawClient {
        let (mut client, _) = RawClient::engine_io(server);
        client.send("40");
        let mut answer = client.next();
        while answer == "2" {
            // A ping of a test with short intervals.
            client.send("3");
            answer = client.next();
        }
        assert!(answer.starts_with("40{\"sid\":"), "{answer}");
        client
    }

    #[track_caller]
    pub fn connect_to(server: &Server, path: &str) -> RawClient {
        RawClient::connect_with(server, path, &[])
    }

    /// Connects with these headers besides.
    #[track_caller]
    pub fn connect_with(server: &Server, path: &str, headers: &[(&'static str, &str)]) -> RawClient {
        let stream = TcpStream::connect(server.listen).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut request = format!("ws://{}{path}", server.listen).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        match tungstenite::client::client(request, stream) {
            Ok((socket, _)) => RawClient { socket },
            Err(error) => panic!("the handshake failed: {error}"),
        }
    }

    /// Connects and joins a room of [`OPEN`].
    #[track_caller]
    pub fn in_room(server: &Server, room: &str) -> RawClient {
        let mut client = RawClient::connect(server);
        client.join(room);
        client
    }

    /// Joins a room of [`OPEN`].
    #[track_caller]
    pub fn join(&mut self, room: &str) {
        let answer = self.ask(&format!(r#"{{"type":"subscribe","data":{{"room":"{room}"}}}}"#));
        assert_eq!(answer, format!(r#"{{"type":"subscribed","data":{{"room":"{room}"}}}}"#));
    }

    #[track_caller]
    pub fn send(&mut self, text: &str) {
        self.socket.send(Message::text(text)).unwrap();
    }

    #[track_caller]
    pub fn send_binary(&mut self, bytes: &[u8]) {
        self.socket.send(Message::binary(bytes.to_vec())).unwrap();
    }

    /// The next message of any kind; pings are answered on the way.
    #[track_caller]
    pub fn message(&mut self) -> Message {
        match self.socket.read() {
            Ok(message) => message,
            Err(error) => panic!("no message within {LIMIT:?}: {error}"),
        }
    }

    /// The next text message.
    #[track_caller]
    pub fn next(&mut self) -> String {
        loop {
            match self.message() {
                Message::Text(text) => return text.to_string(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("not a text message: {other:?}"),
            }
        }
    }

    /// The next binary message.
    #[track_caller]
    pub fn next_binary(&mut self) -> Vec<u8> {
        match self.message() {
            Message::Binary(bytes) => bytes.to_vec(),
            other => panic!("not a binary message: {other:?}"),
        }
    }

    /// Sends a message and returns the next one.
    #[track_caller]
    pub fn ask(&mut self, text: &str) -> String {
        self.send(text);
        self.next()
    }

    /// The code and reason of the close frame that must come next. Answers it and reads to the end of the connection.
    #[track_caller]
    pub fn closed(&mut self) -> (u16, String) {
        let closed = loop {
            match self.message() {
                Message::Close(Some(frame)) => break (frame.code.into(), frame.reason.to_string()),
                Message::Close(None) => break (1005, String::new()),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("not a close frame: {other:?}"),
            }
        };
        match self.socket.read() {
            Ok(other) => panic!("after the close frame came {other:?}"),
            Err(tungstenite::Error::ConnectionClosed) => closed,
            Err(error) => panic!("the connection did not end in good order: {error}"),
        }
    }

    /// A second handle on the connection, for doing things to it that no client does.
    pub fn stream(&self) -> TcpStream {
        self.socket.get_ref().try_clone().unwrap()
    }
}

// ---- Node programs ----

/// A program of `tests/clients` that runs beside the test. It ends by itself if it is forgotten.
pub struct Node {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
    name: String,
}

impl Node {
    /// Starts it with the server's three addresses and `args` as arguments.
    #[track_caller]
    pub fn start(program: &str, server: &Server, args: &[&str]) -> Node {
        let addresses = server.addresses();
        Node::run(Command::new("node"), program, addresses.iter().map(String::as_str).chain(args.iter().copied()))
    }

    /// Has a program of `tests/clients` run by this interpreter.
    #[track_caller]
    pub fn run<'a>(mut interpreter: Command, program: &str, args: impl IntoIterator<Item = &'a str>) -> Node {
        let folder = clients_folder();
        assert!(folder.join("node_modules").exists(), "the Node clients are missing: run `npm ci` in {folder:?}");
        let command = interpreter.arg(folder.join(program));
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {program}: {error}"));
        let (sender, lines) = mpsc::channel();
        let streams: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for stream in streams {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let _ = sender.send(line);
                }
            });
        }
        Node { child, lines, seen: Vec::new(), name: program.to_owned() }
    }

    /// Waits until the program prints this line.
    #[track_caller]
    pub fn await_line(&mut self, expected: &str) {
        loop {
            match self.lines.recv_timeout(LIMIT * 2) {
                Ok(line) => {
                    let found = line == expected;
                    self.seen.push(line);
                    if found {
                        return;
                    }
                }
                Err(_) => {
                    panic!("{} did not print {expected:?} but:\n{}", self.name, self.seen.join("\n"));
                }
            }
        }
    }

    /// Waits until the program prints a line that begins with `prefix`, and returns the rest of it.
    #[track_caller]
    pub fn await_prefix(&mut self, prefix: &str) -> String {
        loop {
            match self.lines.recv_timeout(LIMIT * 2) {
                Ok(line) => {
                    let found = line.strip_prefix(prefix).map(str::to_owned);
                    self.seen.push(line);
                    if let Some(rest) = found {
                        return rest;
                    }
                }
                Err(_) => panic!("{} printed nothing with {prefix:?} but:\n{}", self.name, self.seen.join("\n")),
            }
        }
    }

    /// Waits for the end, which must be exit code 0.
    #[track_caller]
    pub fn finish(mut self) {
        while let Ok(line) = self.lines.recv_timeout(LIMIT * 2) {
            self.seen.push(line);
        }
        let mut status = None;
        wait_until("the Node program has ended", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        let status = status.unwrap();
        assert!(status.success(), "{} ended with {status} after:\n{}", self.name, self.seen.join("\n"));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where the programs are that [`Node`] runs.
pub fn clients_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// Runs a program of `tests/clients` to its end.
#[track_caller]
pub fn node(program: &str, server: &Server, args: &[&str]) {
    Node::start(program, server, args).finish();
}
