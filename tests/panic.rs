//! A panic while one connection's bytes are handled closes that connection, is counted, and disturbs nobody else.
//!
//! The core runs inside the test, as only a test can ask for the panic.

use roomcast::base::class::Classes;
use roomcast::base::clock::Millis;
use roomcast::base::ids::{NamespaceId, Topology};
use roomcast::ingest::publisher::{self, Desk};
use roomcast::net::{self, executor, listener, wake::Bells};
use roomcast::proto::{cors::Cors, forwarded::TrustedProxies, raw::Shape, ws};
use roomcast::session::admission::Admission;
use roomcast::session::budget::Budget;
use roomcast::session::inboxes;
use roomcast::session::rules::{NamespaceRules, RulesSource};
use roomcast::session::{HeartbeatOptions, Kind, LimitOptions};
use roomcast::shard::{self, Namespace, Shard};
use roomcast::{mesh, room};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

const TRAP: &str = r#"{"type":"boom"}"#;
const RULES: &str = r#"
name = "/"
[[on]]
event = "subscribe"
join = ["{data.room}"]
reply = { event = "subscribed" }
"#;

struct Running {
    shared: Arc<net::Shared>,
    panics: Arc<AtomicU64>,
    connections: Arc<AtomicU64>,
    clients: SocketAddr,
    publishers: SocketAddr,
    handle: executor::Handle,
}

fn start() -> Running {
    let shared = Arc::new(net::Shared {
        bells: Bells::new(1).unwrap(),
        origin: net::sys::monotonic(),
        draining: AtomicBool::new(false),
        drain: net::DrainProgress::new(1),
        horizons: net::Horizons::new(1),
        pulses: net::pulse::Pulses::new(1),
        polling: AtomicUsize::new(0),
        budget: Budget::new(1, 0),
        inboxes: Arc::new(inboxes::Budget::new(1, 0)),
        admission: Admission::new(Default::default()),
        settings: net::Published::new(net::Step::Start),
    });
    let loopback = "127.0.0.1:0".parse().unwrap();
    let client_listener = listener::bind(loopback, 1).unwrap().remove(0);
    let publisher_listener = listener::bind(loopback, 1).unwrap().remove(0);
    let clients = client_listener.local_addr().unwrap();
    let publishers = publisher_listener.local_addr().unwrap();
    let (panics, connections) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (in_core, panics_seen, connections_seen) = (shared.clone(), panics.clone(), connections.clone());
    let handle = executor::spawn("core-0", None, move || async move {
        let port = mesh::connect(1, mesh::Options { slots: 64 }).remove(0);
        let source: RulesSource = toml::from_str(RULES).unwrap();
        let namespace = Namespace {
            name: "/".into(),
            rules: NamespaceRules::compile(&source).unwrap(),
            classes: Classes::default(),
        };
        let options = shard::Options {
            heartbeat: HeartbeatOptions {
                ping_interval_ms: 60_000,
                ping_timeout_ms: 60_000,
                connect_timeout_ms: 60_000,
                upgrade_timeout_ms: 10_000,
            },
            limits: LimitOptions {
                packet_bytes_max: 10_000,
                attachments_max: 10,
                rooms_per_socket_max: 128,
                room_name_bytes_max: 200,
                outbox_bytes_max: 1 << 20,
                ..LimitOptions::default()
            },
            rooms: room::owner::Options::default(),
            panic_on: Some(TRAP),
        };
        let shard = Shard::new(port, Topology::new(1, 1), vec![namespace], options, [7; 32], Millis(0), 1);
        let kind = Kind::Raw { namespace: NamespaceId(0), shape: Shape::Nested };
        let ingest = publisher::Options {
            line_bytes_max: 10_000,
            receipt_bytes_max: 10_000,
            rooms_per_line_max: 10,
            room_name_bytes_max: 200,
            ack_timeout_ms_max: 1_000,
        };
        let setup = net::Setup {
            options: net::Options {
                endpoints: vec![net::Endpoint { path: "/ws".into(), kind, message_bytes_max: 10_000 }],
                http_head_bytes_max: 8192,
                accepts_per_turn: 16,
                handshake_ms_max: 60_000,
                request_body_ms_max: 60_000,
                keep_alive_ms: 60_000,
                cors: Cors::default(),
                trusted_proxies: TrustedProxies::default(),
                outbox_bytes_max: 1 << 20,
                drain_ms_max: 5_000,
                drain_clients_per_s: 0,
            },
            shard,
            desk: Desk::new(ingest, vec![false]),
            clients: client_listener,
            shares_clients: false,
            extra: net::Extra::default(),
            publishers: publisher_listener,
            handovers: mesh::planes(1, 1).remove(0),
            shared: in_core,
            publish_counters: Box::new(move |shard| {
                panics_seen.store(shard.counters.panics, Ordering::SeqCst);
                connections_seen.store(shard.counters.connections, Ordering::SeqCst);
            }),
        };
        let core = net::Core::new(setup).unwrap();
        core.run();
    })
    .unwrap();
    Running { shared, panics, connections, clients, publishers, handle }
}

struct Client(TcpStream);

impl Client {
    fn connect(address: SocketAddr) -> Client {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
            .write_all(
                b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                  Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            )
            .unwrap();
        let mut client = Client(stream);
        client.read_until(b"\r\n\r\n");
        client
    }

    fn say(&mut self, text: &str) {
        let mut frame = Vec::new();
        ws::encode_client_frame(&mut frame, true, ws::Kind::Text, [1, 2, 3, 4], text.as_bytes());
        self.0.write_all(&frame).unwrap();
    }

    fn read_until(&mut self, end: &[u8]) {
        let mut seen = Vec::new();
        let mut byte = [0];
        while !seen.ends_with(end) {
            assert_eq!(self.0.read(&mut byte).unwrap(), 1, "closed after {:?}", String::from_utf8_lossy(&seen));
            seen.push(byte[0]);
        }
    }
}

#[test]
fn a_panic_closes_its_own_connection_only() {
    let running = start();
    let mut bystander = Client::connect(running.clients);
    bystander.say(r#"{"type":"subscribe","room":"a"}"#);
    bystander.read_until(b"subscribed\"}");
    for round in 1..=3 {
        let mut culprit = Client::connect(running.clients);
        culprit.say(r#"{"type":"subscribe","room":"a"}"#);
        culprit.read_until(b"subscribed\"}");
        culprit.say(TRAP);
        let mut rest = Vec::new();
        // Closed, in good order or not.
        let _ = culprit.0.read_to_end(&mut rest);
        let mut publisher = TcpStream::connect(running.publishers).unwrap();
        writeln!(publisher, r#"{{"room":"a","event":"go-on","data":{round}}}"#).unwrap();
        bystander.read_until(format!(r#"{{"type":"go-on","data":{round}}}"#).as_bytes());
    }
    running.shared.draining.store(true, Ordering::SeqCst);
    running.shared.bells.ring_all();
    drop(bystander);
    executor::join(running.handle).unwrap();
    assert_eq!(running.panics.load(Ordering::SeqCst), 3);
    assert_eq!(running.connections.load(Ordering::SeqCst), 0, "nobody is left over");
}
