//! The configuration: TOML to each module's Options. Knows every setting with its default and bounds, and nothing of
//! what the modules do with them; the references for operators are `development.toml` and what `reference` writes.

mod auth;
mod bounds;
mod changes;
mod classes;
mod document;
mod door;
mod endpoints;
mod reference;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::de::{DeTable, DeValue};
use tracing_subscriber::EnvFilter;

pub use auth::{Auth, AuthKey};
pub(crate) use bounds::NUMBERS;
pub use changes::{Effect, Update};
pub use document::ConfigError;
use document::{Document, path};
pub use door::{Alias, AliasKind, read_token};
pub use endpoints::{Endpoint, EndpointKind, EndpointShape};
pub use reference::reference;

use crate::base::rate::Rate;
use crate::ingest::publisher;
use crate::proto::cors;
use crate::proto::forwarded::TrustedProxies;
use crate::session::admission;
use crate::session::identity::Identity;
use crate::session::namespace::{NamePattern, NamespaceName, is_namespace_name};
use crate::session::rules::{NamespaceRules, PathStep, RuleError, RulesSource};
use crate::session::{HeartbeatOptions, LimitOptions};
use crate::{mesh, net, room, shard};

/// The config that stands for a missing one.
pub const DEVELOPMENT: &str = include_str!("development.toml");

/// Namespaces are numbered by `u16`, and each core holds the rules of all.
const NAMESPACES_MAX: usize = 1024;

/// Everything that can be set. Made by [`Config::parse`] and its kin alone, so that its parts have been checked, the
/// rules compile and the namespace `/` stands first.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[server]`
    pub server: Server,
    /// `[cors]`
    pub cors: Cors,
    /// `[auth]`
    pub auth: Auth,
    /// `[ingest]`
    pub ingest: Ingest,
    /// `[ops]`
    pub ops: Ops,
    /// `[limits]`
    pub limits: Limits,
    /// `[heartbeat]`
    pub heartbeat: Heartbeat,
    /// `[mesh]`
    pub mesh: Mesh,
    /// `[rooms]`
    pub rooms: Rooms,
    /// `[log]`
    pub log: Log,
    endpoints: Vec<Endpoint>,
    namespaces: Vec<RulesSource>,
    /// Of `cors` and `server.trusted_proxies`, when the file was read.
    allowed_origins: cors::Cors,
    trusted_proxies: TrustedProxies,
    document: Document,
    /// Where the file is: paths in it begin here.
    folder: PathBuf,
    is_development: bool,
}

/// The file's shape.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    server: Server,
    cors: Cors,
    auth: Auth,
    ingest: Ingest,
    ops: Ops,
    limits: Limits,
    heartbeat: Heartbeat,
    mesh: Mesh,
    rooms: Rooms,
    log: Log,
    endpoint: Vec<Endpoint>,
    namespace: Vec<RulesSource>,
}

/// Clients' port and the process.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Where clients connect; port 0 picks one.
    pub listen: SocketAddr,
    /// Cores to run on; 0 for all that the process may use.
    pub cores: usize,
    /// From the signal to stop until all connections are closed.
    pub drain_ms_max: u64,
    /// Clients to send away in a second then; 0: as many as are done in a third of that time.
    pub drain_clients_per_s: u32,
    /// True: clients may reach the server from elsewhere although it does not authenticate them.
    pub public: bool,
    /// Addresses and networks of proxies whose `X-Forwarded-For` counts.
    pub trusted_proxies: Vec<String>,
    /// Which core gets a new connection of a client.
    pub steer: Steer,
}

/// Which core gets a new connection of a client.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Steer {
    /// One by the kernel's hash of the addresses.
    #[default]
    Hash,
    /// That of the processor on which its packets come in.
    Cpu,
}

/// Which pages of other origins may read responses over HTTP, and open WebSockets.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Cors {
    /// Origins and patterns of origins; empty for none.
    pub origins: Vec<String>,
    /// True: pages may send cookies along.
    pub credentials: bool,
    /// Request headers that pages may set; empty for all.
    pub headers: Vec<String>,
    /// How long browsers may remember what is allowed; 0 does not say.
    pub max_age_s: u32,
    /// False: pages of any origin may open WebSockets.
    pub check_websockets: bool,
}

/// Publishers' port.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Ingest {
    /// Where publishers connect; port 0 picks one.
    pub listen: SocketAddr,
    /// Longest line.
    pub line_bytes_max: usize,
    /// Receipts that may wait for a publisher.
    pub receipt_bytes_max: usize,
    /// Names in one line.
    pub rooms_per_line_max: usize,
    /// How long a line may wait for clients' acknowledgements.
    pub ack_timeout_ms_max: u64,
    /// A file with the token that publishers must say who come in over TCP; empty for none.
    pub token_file: String,
    /// A Unix socket where publishers of this host come in besides; empty for none.
    pub unix: String,
    /// That socket's file mode.
    pub unix_mode: String,
}

/// Operators' port.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Ops {
    /// Where health and metrics are served; port 0 picks one.
    pub listen: SocketAddr,
    /// True: they may be read from elsewhere although readers are not authenticated.
    pub public: bool,
    /// A file with the token that users of the HTTP API must bring; empty for none.
    pub token_file: String,
    /// Names that the port is asked by, besides addresses and names without a dot.
    pub hosts: Vec<String>,
    /// What health calls the server.
    pub service: String,
    /// Requests of the HTTP API under other paths and in other shapes.
    pub alias: Vec<Alias>,
}

/// Bounds of clients.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Largest message from a client.
    pub message_bytes_max: usize,
    /// One Socket.IO packet with all its attachments, which are messages each.
    pub packet_bytes_max: usize,
    /// Binary attachments of one Socket.IO packet.
    pub attachments_max: usize,
    /// Longest HTTP request head.
    pub http_head_bytes_max: usize,
    /// Clients that a core accepts in one turn of its loop.
    pub accepts_per_turn: usize,
    /// From accept to the end of the WebSocket handshake.
    pub handshake_ms_max: u64,
    /// From the end of a request's head to the end of its body.
    pub request_body_ms_max: u64,
    /// An HTTP connection without a request for this long is closed.
    pub keep_alive_ms: u64,
    /// Namespaces of one client.
    pub namespaces_per_client_max: usize,
    /// Length of a namespace's name that a pattern may match.
    pub namespace_bytes_max: usize,
    /// Rooms of one socket.
    pub rooms_per_socket_max: usize,
    /// Length of a room's name.
    pub room_name_bytes_max: usize,
    /// What may wait for one connection.
    pub outbox_bytes_max: u32,
    /// Memory of what waits for all connections; 0 for no bound.
    pub outboxes_bytes_max: u64,
    /// Memory of what all clients have sent and is not whole; 0 for no bound.
    pub inboxes_bytes_max: u64,
    /// Connections of one client address; 0 for any number, as in all that follow.
    pub connections_per_ip_max: u32,
    /// Sessions that one client address may begin.
    pub handshakes_per_ip_per_s: u32,
    /// How many of them at once; 0 for as many as come in one second, as in all bursts.
    pub handshakes_per_ip_burst: u32,
    /// Sessions that all clients may begin.
    pub handshakes_per_s: u32,
    /// How many of them at once.
    pub handshakes_burst: u32,
    /// Events that one socket may send.
    pub events_per_socket_per_s: u32,
    /// How many of them at once.
    pub events_per_socket_burst: u32,
}

/// Heartbeats of clients.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Heartbeat {
    /// From one pong to the next ping.
    pub ping_interval_ms: u64,
    /// A client whose pong takes longer is gone.
    pub ping_timeout_ms: u64,
    /// A Socket.IO client that connects to no namespace for this long is closed.
    pub connect_timeout_ms: u64,
    /// From a polled client's WebSocket handshake to the end of its upgrade.
    pub upgrade_timeout_ms: u64,
}

/// Rings between cores.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Mesh {
    /// Messages that one ring holds; 0 chooses by the number of cores.
    pub ring_slots: usize,
}

/// Memory of rooms without members.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Rooms {
    /// A room without members and events for this long is forgotten.
    pub idle_ms: u64,
    /// Rooms without members that each core remembers.
    pub idle_max: usize,
    /// Bytes that all rooms together keep in their snapshots.
    pub snapshots_bytes_max: usize,
}

/// The log on standard error.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// A filter of `tracing_subscriber::EnvFilter`.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// [`LogFormat::Human`] on a terminal, [`LogFormat::Json`] elsewhere.
    #[default]
    Auto,
    /// Text, with colours on a terminal.
    Human,
    /// One JSON object a line.
    Json,
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

impl Default for Server {
    fn default() -> Server {
        let trusted_proxies = Vec::new();
        let (listen, steer) = (loopback(3000), Steer::default());
        let (drain_ms_max, drain_clients_per_s) = (10_000, 0);
        Server { listen, cores: 0, drain_ms_max, drain_clients_per_s, public: false, trusted_proxies, steer }
    }
}

impl Default for Cors {
    fn default() -> Cors {
        let (origins, headers) = (Vec::new(), Vec::new());
        Cors { origins, credentials: false, headers, max_age_s: 0, check_websockets: true }
    }
}

impl Default for Ingest {
    fn default() -> Ingest {
        Ingest {
            listen: loopback(3100),
            line_bytes_max: 1 << 20,
            receipt_bytes_max: 1 << 20,
            rooms_per_line_max: 1024,
            ack_timeout_ms_max: 60_000,
            token_file: String::new(),
            unix: String::new(),
            unix_mode: "0660".to_owned(),
        }
    }
}

impl Default for Ops {
    fn default() -> Ops {
        let (token_file, service, alias) = (String::new(), "roomcast".to_owned(), Vec::new());
        Ops { listen: loopback(3200), public: false, token_file, hosts: Vec::new(), service, alias }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        let of_session = LimitOptions::default();
        Limits {
            message_bytes_max: 1_000_000,
            packet_bytes_max: of_session.packet_bytes_max,
            attachments_max: of_session.attachments_max,
            http_head_bytes_max: 8192,
            accepts_per_turn: 16,
            handshake_ms_max: 10_000,
            request_body_ms_max: 30_000,
            keep_alive_ms: 75_000,
            namespaces_per_client_max: of_session.namespaces_per_session_max,
            namespace_bytes_max: of_session.namespace_bytes_max,
            rooms_per_socket_max: of_session.rooms_per_socket_max,
            room_name_bytes_max: of_session.room_name_bytes_max,
            outbox_bytes_max: of_session.outbox_bytes_max,
            outboxes_bytes_max: 0,
            inboxes_bytes_max: 256 << 20,
            connections_per_ip_max: 0,
            handshakes_per_ip_per_s: 0,
            handshakes_per_ip_burst: 0,
            handshakes_per_s: 0,
            handshakes_burst: 0,
            events_per_socket_per_s: 0,
            events_per_socket_burst: 0,
        }
    }
}

impl Default for Heartbeat {
    fn default() -> Heartbeat {
        let HeartbeatOptions { ping_interval_ms, ping_timeout_ms, connect_timeout_ms, upgrade_timeout_ms } =
            HeartbeatOptions::default();
        Heartbeat { ping_interval_ms, ping_timeout_ms, connect_timeout_ms, upgrade_timeout_ms }
    }
}

impl Default for Rooms {
    fn default() -> Rooms {
        let room::owner::Options { idle_ms, idle_max, snapshots_bytes_max } = room::owner::Options::default();
        Rooms { idle_ms, idle_max, snapshots_bytes_max }
    }
}

impl Default for Log {
    fn default() -> Log {
        Log { level: "info".to_owned(), format: LogFormat::Auto }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LogFormat::Auto => "auto",
            LogFormat::Human => "human",
            LogFormat::Json => "json",
        })
    }
}

impl Config {
    /// Reads the config file at `path`.
    ///
    /// # Errors
    /// The file cannot be read, or the first mistake in it.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let file = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => {
                let folder = path.parent().unwrap_or(Path::new("")).to_owned();
                Ok(Config { folder, ..Config::parse(&text, &file)? })
            }
            Err(error) => Err(ConfigError {
                file,
                place: None,
                key: String::new(),
                value: String::new(),
                message: format!("cannot read the config file: {error}"),
            }),
        }
    }

    /// Reads a config; `file_name` is what errors call it.
    ///
    /// # Errors
    /// The first mistake in it.
    pub fn parse(text: &str, file_name: &str) -> Result<Config, ConfigError> {
        let document = Document { file: file_name.to_owned(), text: text.to_owned() };
        let tables = document.tables()?;
        bounds::check_numbers(&document, &tables)?;
        check_addresses(&document, &tables)?;
        let file: File = toml::from_str(text).map_err(|error| document.toml_error(&error))?;
        check_log(&document, &file.log)?;
        check_bursts(&document, &file.limits)?;
        let allowed_origins = compile_cors(&document, &file.cors)?;
        let trusted_proxies = compile_proxies(&document, &file.server)?;
        check_namespaces(&document, &file.namespace)?;
        auth::check(&document, &file.auth, &file.namespace)?;
        for (index, rules) in file.namespace.iter().enumerate() {
            NamespaceRules::compile(rules).map_err(|error| rule_error(&document, index, error))?;
        }
        let endpoints = if file.endpoint.is_empty() { Endpoint::defaults() } else { file.endpoint };
        let namespaces = with_main_first(file.namespace);
        endpoints::check(&document, &endpoints, &namespaces)?;
        door::check(&document, &file.ingest, &file.ops, &namespaces)?;
        drop(tables);
        Ok(Config {
            server: file.server,
            cors: file.cors,
            auth: file.auth,
            ingest: file.ingest,
            ops: file.ops,
            limits: file.limits,
            heartbeat: file.heartbeat,
            mesh: file.mesh,
            rooms: file.rooms,
            log: file.log,
            endpoints,
            namespaces,
            allowed_origins,
            trusted_proxies,
            document,
            folder: PathBuf::new(),
            is_development: false,
        })
    }

    /// The config that stands for a missing one: everybody may join every room, on loopback.
    ///
    /// # Panics
    /// If the embedded text is broken: a test reads it.
    #[must_use]
    pub fn development() -> Config {
        let config = Config::parse(DEVELOPMENT, "built-in development config");
        Config { is_development: true, ..config.unwrap_or_else(|error| panic!("{error}")) }
    }

    /// True for [`Config::development`].
    #[must_use]
    pub fn is_development(&self) -> bool {
        self.is_development
    }

    /// Refuses to let others than this machine reach what nobody guards. To be called after the addresses are final.
    ///
    /// # Errors
    /// The first address that is not loopback and not allowed to be, with the key that allows it.
    pub fn check_exposure(&self) -> Result<(), ConfigError> {
        let (server, ingest, ops) = (&self.server, &self.ingest, &self.ops);
        for (section, listen, public, reason) in [
            (
                "server",
                server.listen,
                server.public || self.auth.require,
                "clients are not authenticated; set auth.require = true and an [[auth.key]], or server.public = true \
                 if rules and a proxy take care of it",
            ),
            (
                "ingest",
                ingest.listen,
                !ingest.token_file.is_empty(),
                "anyone who reaches this port can publish; set ingest.token_file to a file with a token that they must \
                 say",
            ),
            (
                "ops",
                ops.listen,
                ops.public,
                "anyone who reaches this port can read health and metrics; set ops.public = true if a firewall takes \
                 care of it",
            ),
        ] {
            if public || listen.ip().to_canonical().is_loopback() {
                continue;
            }
            let key = format!("{section}.listen");
            let message = if self.is_development {
                "the built-in development config lets everybody join every room, so it stays on loopback; write a \
                 config of your own and name it with --config"
            } else {
                reason
            };
            let mut error = self.document.wrong_value(&path(&key), message);
            let value = format!("\"{listen}\"");
            if self.is_development || error.value.trim_matches(['"', '\'']) != listen.to_string() {
                // It does not come from the file, but from the command line or the environment.
                error.place = None;
            }
            error.value = value;
            return Err(error);
        }
        Ok(())
    }

    /// The endpoints, at least one.
    #[must_use]
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// The namespaces' rules in the order of their ids, `/` first.
    #[must_use]
    pub fn rules(&self) -> &[RulesSource] {
        &self.namespaces
    }

    /// The line of the file in which a rule begins: of the namespace at `index` of [`Config::rules`], the rule at
    /// `rule` of its `connect` or `on`.
    #[must_use]
    pub fn place_of_rule(&self, index: usize, kind: &str, rule: usize) -> Option<usize> {
        let RulesSource { name, pattern, .. } = self.namespaces.get(index)?;
        // The namespace / was put first, wherever it stands. No two have one name.
        let file: File = toml::from_str(&self.document.text).ok()?;
        let at = file.namespace.iter().position(|other| other.name == *name && other.pattern == *pattern)?;
        let mut path = namespace_path(at, kind);
        path.push(PathStep::Index(rule));
        self.document.line_of(&path)
    }

    /// For the data plane of clients.
    #[must_use]
    pub fn net_options(&self) -> net::Options {
        let compile = |endpoint: &Endpoint| endpoint.compile(&self.namespaces, self.limits.message_bytes_max);
        net::Options {
            endpoints: self.endpoints.iter().map(compile).collect(),
            http_head_bytes_max: self.limits.http_head_bytes_max,
            accepts_per_turn: self.limits.accepts_per_turn,
            handshake_ms_max: self.limits.handshake_ms_max,
            request_body_ms_max: self.limits.request_body_ms_max,
            keep_alive_ms: self.limits.keep_alive_ms,
            cors: self.allowed_origins.clone(),
            trusted_proxies: self.trusted_proxies.clone(),
            outbox_bytes_max: self.limits.outbox_bytes_max,
            drain_ms_max: self.server.drain_ms_max,
            drain_clients_per_s: self.server.drain_clients_per_s,
        }
    }

    /// For the table of clients' addresses.
    #[must_use]
    pub fn admission_options(&self) -> admission::Options {
        let limits = &self.limits;
        admission::Options {
            connections_per_ip_max: (limits.connections_per_ip_max > 0).then_some(limits.connections_per_ip_max),
            handshakes_per_ip: Rate::new(limits.handshakes_per_ip_per_s, limits.handshakes_per_ip_burst),
            handshakes: Rate::new(limits.handshakes_per_s, limits.handshakes_burst),
        }
    }

    /// For the shard of each of `cores` cores.
    #[must_use]
    pub fn shard_options(&self, cores: usize) -> shard::Options {
        shard::Options {
            heartbeat: HeartbeatOptions {
                ping_interval_ms: self.heartbeat.ping_interval_ms,
                ping_timeout_ms: self.heartbeat.ping_timeout_ms,
                connect_timeout_ms: self.heartbeat.connect_timeout_ms,
                upgrade_timeout_ms: self.heartbeat.upgrade_timeout_ms,
            },
            limits: LimitOptions {
                packet_bytes_max: self.limits.packet_bytes_max,
                attachments_max: self.limits.attachments_max,
                namespaces_per_session_max: self.limits.namespaces_per_client_max,
                namespace_bytes_max: self.limits.namespace_bytes_max,
                rooms_per_socket_max: self.limits.rooms_per_socket_max,
                room_name_bytes_max: self.limits.room_name_bytes_max,
                outbox_bytes_max: self.limits.outbox_bytes_max,
                events_per_socket: Rate::new(self.limits.events_per_socket_per_s, self.limits.events_per_socket_burst),
            },
            rooms: room::owner::Options {
                idle_ms: self.rooms.idle_ms,
                idle_max: self.rooms.idle_max,
                snapshots_bytes_max: self.rooms.snapshots_bytes_max / cores.max(1),
            },
            panic_on: None,
        }
    }

    /// For publishers' connections.
    #[must_use]
    pub fn ingest_options(&self) -> publisher::Options {
        publisher::Options {
            line_bytes_max: self.ingest.line_bytes_max,
            receipt_bytes_max: self.ingest.receipt_bytes_max,
            rooms_per_line_max: self.ingest.rooms_per_line_max,
            room_name_bytes_max: self.limits.room_name_bytes_max,
            ack_timeout_ms_max: self.ingest.ack_timeout_ms_max,
        }
    }

    /// For the rings between `cores` cores.
    #[must_use]
    pub fn mesh_options(&self, cores: usize) -> mesh::Options {
        // Rings grow with the square of the cores, so all that one core sends into hold 16,384 together. But each must
        // absorb a burst (128), and none needs to hold more than a few turns' worth (4096).
        let chosen = (16_384 / cores.max(1)).clamp(128, 4096);
        mesh::Options { slots: if self.mesh.ring_slots == 0 { chosen } else { self.mesh.ring_slots } }
    }

    /// Compiles the namespaces' patterns and rules, once for each core; in the order of their ids, `/` first.
    ///
    /// # Errors
    /// The first pattern or rule that does not compile: never after [`Config::parse`] has succeeded.
    pub fn namespaces(&self) -> Result<Vec<shard::Namespace>, RuleError> {
        let compile = |source: &RulesSource| {
            let rules = NamespaceRules::compile(source)?;
            let name = match &source.pattern {
                Some(pattern) => NamePattern::compile(pattern).map(NamespaceName::Pattern).map_err(|error| {
                    let key = vec![PathStep::Key("pattern".to_owned())];
                    let (text, message) = (pattern.as_str().into(), error.message.into());
                    RuleError { namespace: source.title().into(), event: None, key, text, at: error.at, message }
                })?,
                None => NamespaceName::from(source.title()),
            };
            Ok(shard::Namespace { name, rules, classes: classes::compile(&source.rooms) })
        };
        self.namespaces.iter().map(compile).collect()
    }

    /// Reads the keys of `[auth]` and makes of them what identifies clients, with a sentence about each that is odd;
    /// `None` if there are none. Reads the files anew at each call.
    ///
    /// # Errors
    /// The first file that cannot be read or has no key.
    pub fn identity(&self) -> Result<Option<(Identity, Vec<String>)>, ConfigError> {
        auth::load(&self.document, &self.folder, &self.auth, &self.namespaces)
    }

    /// By namespace: true if a raw endpoint shows its events as flat objects.
    #[must_use]
    pub fn flat_namespaces(&self) -> Vec<bool> {
        let is_flat = |name: &str| {
            let flat = |e: &Endpoint| e.kind == EndpointKind::Raw && e.shape() == EndpointShape::Flat;
            self.endpoints.iter().any(|endpoint| flat(endpoint) && endpoint.namespace() == name)
        };
        self.namespaces.iter().map(|namespace| namespace.name.as_deref().is_some_and(is_flat)).collect()
    }
}

fn namespace_path(index: usize, key: &str) -> Vec<PathStep> {
    vec![PathStep::Key("namespace".to_owned()), PathStep::Index(index), PathStep::Key(key.to_owned())]
}

fn check_addresses(document: &Document, tables: &DeTable<'_>) -> Result<(), ConfigError> {
    for (key, example) in
        [("server.listen", loopback(3000)), ("ingest.listen", loopback(3100)), ("ops.listen", loopback(3200))]
    {
        let is_good = match bounds::find(tables, key) {
            Some(DeValue::String(text)) => text.parse::<SocketAddr>().is_ok(),
            Some(_) => false,
            None => true,
        };
        if !is_good {
            let message =
                format!("must be an IP address and a port, as in \"{example}\" or \"[::1]:0\"; port 0 picks one");
            return Err(document.wrong_value(&path(key), message));
        }
    }
    Ok(())
}

fn check_log(document: &Document, log: &Log) -> Result<(), ConfigError> {
    match EnvFilter::builder().parse(&log.level) {
        Ok(_) => Ok(()),
        Err(error) => {
            let message =
                format!("must be error, warn, info, debug, trace, or a filter as in \"info,roomcast=debug\": {error}");
            Err(document.wrong_value(&path("log.level"), message))
        }
    }
}

/// A burst of a rate that is not limited is a mistake: the operator believes in a limit.
fn check_bursts(document: &Document, limits: &Limits) -> Result<(), ConfigError> {
    for (rate, per_s, burst) in [
        ("handshakes_per_ip", limits.handshakes_per_ip_per_s, limits.handshakes_per_ip_burst),
        ("handshakes", limits.handshakes_per_s, limits.handshakes_burst),
        ("events_per_socket", limits.events_per_socket_per_s, limits.events_per_socket_burst),
    ] {
        if per_s == 0 && burst > 0 {
            let message = format!("limits nothing without limits.{rate}_per_s");
            return Err(document.wrong_value(&path(&format!("limits.{rate}_burst")), message));
        }
    }
    Ok(())
}

fn compile_cors(document: &Document, cors: &Cors) -> Result<cors::Cors, ConfigError> {
    let options = cors::Options {
        origins: cors.origins.clone(),
        credentials: cors.credentials,
        headers: cors.headers.clone(),
        max_age_s: (cors.max_age_s > 0).then_some(cors.max_age_s),
        check_websockets: cors.check_websockets,
    };
    cors::Cors::new(&options).map_err(|error| {
        let mut path = path(&format!("cors.{}", error.key));
        path.push(PathStep::Index(error.index));
        document.wrong_value(&path, error.message)
    })
}

fn compile_proxies(document: &Document, server: &Server) -> Result<TrustedProxies, ConfigError> {
    TrustedProxies::new(&server.trusted_proxies).map_err(|error| {
        let mut path = path("server.trusted_proxies");
        path.push(PathStep::Index(error.index));
        document.wrong_value(&path, error.message)
    })
}

fn check_namespaces(document: &Document, namespaces: &[RulesSource]) -> Result<(), ConfigError> {
    for (index, namespace) in namespaces.iter().enumerate() {
        let wrong = |key: &str, message: String| Err(document.wrong_value(&namespace_path(index, key), message));
        let table = [PathStep::Key("namespace".to_owned()), PathStep::Index(index)];
        let key = match (&namespace.name, &namespace.pattern) {
            (None, None) => {
                let message = "needs a name, as in name = \"/seats\", or a pattern, as in \
                    pattern = \"^/workspace-[a-z0-9]+$\"";
                return Err(document.wrong_value(&table, message));
            }
            (Some(_), Some(_)) => {
                return wrong("pattern", "has a name too; a namespace has either a name or a pattern".to_owned());
            }
            (Some(name), None) if !is_namespace_name(name) => {
                let message = "must begin with / and contain no comma and no ?, as in \"/seats\"";
                return wrong("name", message.to_owned());
            }
            (Some(_), None) => "name",
            (None, Some(pattern)) => {
                if let Err(error) = NamePattern::compile(pattern) {
                    let path = namespace_path(index, "pattern");
                    return Err(document.wrong_string(&path, pattern, error.at, error.message));
                }
                "pattern"
            }
        };
        classes::check(document, index, &namespace.rooms)?;
        let same = |other: &RulesSource| other.name == namespace.name && other.pattern == namespace.pattern;
        if let Some(first) = namespaces[..index].iter().position(same) {
            let message = format!("namespace[{first}] has this {key} already; put all rules of a namespace together");
            return wrong(key, message);
        }
        if index >= NAMESPACES_MAX {
            return wrong(key, format!("there are more than {NAMESPACES_MAX} namespaces"));
        }
    }
    Ok(())
}

fn rule_error(document: &Document, index: usize, error: RuleError) -> ConfigError {
    let mut path = vec![PathStep::Key("namespace".to_owned()), PathStep::Index(index)];
    path.extend(error.key);
    let rule = error.event.map_or_else(String::new, |event| format!(", event {event:?}"));
    let message = format!("{} (namespace {:?}{rule})", error.message, error.namespace);
    document.wrong_string(&path, &error.text, error.at, message)
}

/// Clients may always be in `/`; its id is 0.
fn with_main_first(mut namespaces: Vec<RulesSource>) -> Vec<RulesSource> {
    let main = match namespaces.iter().position(|namespace| namespace.name.as_deref() == Some("/")) {
        Some(index) => namespaces.remove(index),
        None => RulesSource { name: Some("/".to_owned()), ..RulesSource::default() },
    };
    namespaces.insert(0, main);
    namespaces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(text: &str) -> String {
        Config::parse(text, "f.toml").expect_err(text).to_string()
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        for (text, error) in [
            // Numbers.
            (
                "[limits]\nrooms_per_socket_max = 0",
                "2:24: limits.rooms_per_socket_max = 0: must be between 1 and 100000",
            ),
            (
                "[limits]\nmessage_bytes_max = -1 # x",
                "2:21: limits.message_bytes_max = -1: must be between 1024 and 67108864",
            ),
            ("server.cores = 2000", "1:16: server.cores = 2000: must be between 0 and 1024"),
            (
                "limits = { outbox_bytes_max = 99999999999999999999999999999999999999999 }",
                "1:31: limits.outbox_bytes_max = 99999999999999999999999999999999999999999: \
                 must be between 4096 and 1073741824",
            ),
            (
                "[limits]\nattachments_max = 0x10000",
                "2:19: limits.attachments_max = 0x10000: must be between 0 and 10000",
            ),
            (
                "[limits]\nhandshakes_per_s = 1\nhandshakes_per_ip_burst = 5",
                "3:27: limits.handshakes_per_ip_burst = 5: limits nothing without limits.handshakes_per_ip_per_s",
            ),
            (
                "[limits]\nevents_per_socket_per_s = 10001",
                "2:27: limits.events_per_socket_per_s = 10001: must be between 0 and 10000",
            ),
            ("[mesh]\nring_slots = 3", "2:14: mesh.ring_slots = 3: must be 0 or between 16 and 65536"),
            (
                "[rooms]\nidle_ms = \"60s\"",
                "2:11: rooms.idle_ms = \"60s\": must be a whole number, between 100 and 86400000",
            ),
            (
                "[heartbeat]\nping_interval_ms = 25.0",
                "2:20: heartbeat.ping_interval_ms = 25.0: must be a whole number, between 100 and 86400000",
            ),
            // Addresses, words, flags.
            (
                "[server]\nlisten = \"localhost:3000\"",
                "2:10: server.listen = \"localhost:3000\": must be an IP address and a port, as in \"127.0.0.1:3000\" \
                 or \"[::1]:0\"; port 0 picks one",
            ),
            (
                "[ops]\n  listen = 3200",
                "2:12: ops.listen = 3200: must be an IP address and a port, as in \"127.0.0.1:3200\" or \"[::1]:0\"; \
                 port 0 picks one",
            ),
            ("[server]\npublic = \"yes\"", "2:10: server.public = \"yes\": must be true or false"),
            ("[server]\nsteer = \"irq\"", "2:9: server.steer = \"irq\": must be \"hash\" or \"cpu\""),
            ("[log]\nformat = \"xml\"", "2:10: log.format = \"xml\": must be \"auto\" or \"human\" or \"json\""),
            ("[log]\nlevel = 3", "2:9: log.level = 3: must be a string"),
            // Keys.
            (
                "[limits]\nrooms_per_sockets_max = 5",
                "2:1: limits.rooms_per_sockets_max: there is no such key; did you mean rooms_per_socket_max?",
            ),
            ("[limit]\nattachments_max = 5", "1:2: limit: there is no such key; did you mean limits?"),
            (
                "[server]\ncolour = 1",
                "2:1: server.colour: there is no such key; the keys here are listen, cores, drain_ms_max, \
                 drain_clients_per_s, public, trusted_proxies, steer",
            ),
            ("log = 3", "1:7: log = 3: must be a table of keys"),
            ("[server]\ncores = 1\ncores = 2", "3:1: cores is set twice; remove one of them"),
            // TOML.
            ("[server\nlisten = 1", "1:8: unclosed table, expected `]`"),
            ("x = ", "1:5: a value is missing"),
            ("[server]\nlisten = \"abc", "2:14: invalid basic string, expected `\"`"),
            // Endpoints.
            ("[[endpoint]]\npath = \"/ws\"", "1:1: endpoint[0]: the key kind is missing"),
            ("[endpoint]\nkind = \"raw\"", "1:1: endpoint: must be written with two brackets, [[endpoint]]"),
            (
                "[[endpoint]]\nkind = \"websocket\"",
                "2:8: endpoint[0].kind = \"websocket\": must be \"socket.io\" or \"raw\" or \
                 \"engine.io-echo\" or \"websocket-echo\"",
            ),
            (
                "[[endpoint]]\nkind = \"raw\"\nnamespace = \"/seats\"",
                "3:13: endpoint[0].namespace = \"/seats\": there is no such namespace; add a [[namespace]] of this \
                 name, or use one of /",
            ),
            (
                "[[endpoint]]\nkind = \"raw\"\n\n[[endpoint]]\nkind = \"raw\"",
                "4:1: endpoint[1]: endpoint[0] has the path \"/ws\" already; give each its own",
            ),
            (
                "[[endpoint]]\nkind = \"raw\"\npath = \"/x\"\n[[endpoint]]\nkind = \"socket.io\"\npath = \"/x/\"",
                "6:8: endpoint[1].path = \"/x/\": endpoint[0] has the path \"/x\" already; give each its own",
            ),
            (
                "[[endpoint]]\nkind = \"raw\"\npath = \"ws\"",
                "3:8: endpoint[0].path = \"ws\": must begin with / and contain no spaces, no ? and no #, as in \"/ws\"",
            ),
            (
                "[[endpoint]]\nkind = \"socket.io\"\nshape = \"flat\"",
                "3:9: endpoint[0].shape = \"flat\": only for kind = \"raw\"; remove the key",
            ),
            (
                "[[endpoint]]\nkind = \"socket.io\"\nnamespace = \"/\"",
                "3:13: endpoint[0].namespace = \"/\": Socket.IO clients name their namespaces themselves; \
                 remove the key",
            ),
            (
                "[[endpoint]]\nkind = \"engine.io-echo\"\nnamespace = \"/\"",
                "3:13: endpoint[0].namespace = \"/\": clients of an echo are in no namespace; remove the key",
            ),
            (
                "[[endpoint]]\nkind = \"websocket-echo\"\nshape = \"flat\"",
                "3:9: endpoint[0].shape = \"flat\": only for kind = \"raw\"; remove the key",
            ),
            (
                "[[endpoint]]\nkind = \"raw\"\n[[endpoint]]\nkind = \"websocket-echo\"\nmessage_bytes_max = 1023",
                "5:21: endpoint[1].message_bytes_max = 1023: must be between 1024 and 67108864",
            ),
            (
                "endpoint = [{ kind = \"raw\", message_bytes_max = \"1M\" }]",
                "1:49: endpoint[0].message_bytes_max = \"1M\": must be a whole number, between 1024 and 67108864",
            ),
            // Publishers' door and aliases.
            (
                "[ingest]\nunix_mode = \"rw\"",
                "2:13: ingest.unix_mode = \"rw\": must be a file's mode in octal, as in \"0660\"",
            ),
            ("[ingest]\ntoken_file = 7", "2:14: ingest.token_file = 7: must be a string"),
            (
                "[ops]\nhosts = [\"a.example\", \"a.example:3200\"]",
                "2:23: ops.hosts[1] = \"a.example:3200\": must be the name of a host, without a port, as in \
                 \"metrics.example\"",
            ),
            (
                "[[ops.alias]]\npath = \"stats\"\nkind = \"socket-stats\"",
                "2:8: ops.alias[0].path = \"stats\": must begin with / and contain no spaces, no ? and no #, as in \
                 \"/stats\"",
            ),
            (
                "[[ops.alias]]\npath = \"/metrics\"\nkind = \"health\"",
                "2:8: ops.alias[0].path = \"/metrics\": is a path of the server's own; choose another",
            ),
            (
                "[[ops.alias]]\npath = \"/live\"\nkind = \"health\"",
                "2:8: ops.alias[0].path = \"/live\": is a path of the server's own; choose another",
            ),
            (
                "[[ops.alias]]\npath = \"/s\"\nkind = \"stats\"",
                "3:8: ops.alias[0].kind = \"stats\": must be \"socket-event\" or \"socket-stats\" or \"health\"",
            ),
            (
                "[[ops.alias]]\npath = \"/s\"\nkind = \"health\"\n[[ops.alias]]\npath = \"/s\"\nkind = \"health\"",
                "5:8: ops.alias[1].path = \"/s\": ops.alias[0] has this path already; give each its own",
            ),
            (
                "[[ops.alias]]\npath = \"/s\"\nkind = \"health\"\nnamespace = \"/x\"",
                "4:13: ops.alias[0].namespace = \"/x\": there is no such namespace; add a [[namespace]] of this name, \
                 or leave the key out for /",
            ),
            // Origins and proxies.
            (
                "[cors]\norigins = [\n  \"https://a.example\",\n  \"b.example\",\n]",
                "4:3: cors.origins[1] = \"b.example\": the scheme is missing: write \"https://b.example\"",
            ),
            (
                "[cors]\norigins = [\"https://a.example/\"]",
                "2:12: cors.origins[0] = \"https://a.example/\": an origin has no path, not even a last slash: write \
                 \"https://a.example\"",
            ),
            ("[cors]\norigins = \"*\"", "2:11: cors.origins = \"*\": must be an array, as in [\"…\"]"),
            (
                "[cors]\nheaders = [\"X-A: b\"]",
                "2:12: cors.headers[0] = \"X-A: b\": must be the name of one header, as in \"Authorization\"",
            ),
            ("[cors]\nmax_age_s = 90_000", "2:13: cors.max_age_s = 90_000: must be between 0 and 86400"),
            (
                "[server]\ntrusted_proxies = [\"10.0.0.0/8\", \"10.0.0.0/33\"]",
                "2:34: server.trusted_proxies[1] = \"10.0.0.0/33\": must be an address or a network, as in \
                 \"10.0.0.7\", \"10.0.0.0/8\" or \"fd00::/8\"",
            ),
            // Namespaces and rules.
            (
                "[[namespace]]\nname = \"seats\"",
                "2:8: namespace[0].name = \"seats\": must begin with / and contain no comma and no ?, as in \"/seats\"",
            ),
            (
                "[[namespace]]\non = []",
                "1:1: namespace[0]: needs a name, as in name = \"/seats\", or a pattern, as in \
                 pattern = \"^/workspace-[a-z0-9]+$\"",
            ),
            (
                "[[namespace]]\nname = \"/a\"\npattern = \"/b+\"",
                "3:11: namespace[0].pattern = \"/b+\": has a name too; a namespace has either a name or a pattern",
            ),
            ("[[namespace]]\npattern = \"^/(a$\"", "2:14: namespace[0].pattern = \"^/(a$\": unclosed group"),
            (
                "[[namespace]]\npattern = '/a|b'",
                "2:12: namespace[0].pattern = '/a|b': must match only names that begin with /, as in \
                 \"^/workspace-[a-z0-9]+$\"",
            ),
            (
                "[[namespace]]\npattern = \"/a+\"\n[[namespace]]\npattern = \"/a+\"",
                "4:11: namespace[1].pattern = \"/a+\": namespace[0] has this pattern already; put all rules of a \
                 namespace together",
            ),
            (
                "[[namespace]]\npattern = \"/a+\"\n[[namespace.on]]\nevent = \"x\"\njoin = [\"{foo}\"]",
                "5:11: namespace[0].on[0].join[0] = \"{foo}\": unknown variable foo (namespace \"/a+\", event \"x\")",
            ),
            (
                "[[namespace]]\nname = \"/\"\n[[namespace.rooms]]\nmatch = []",
                "4:9: namespace[0].rooms[0].match = []: names no room; match = [\"*\"] is for all of them",
            ),
            (
                "[[namespace]]\nname = \"/\"\n[[namespace.rooms]]\nmatch = [\"a*\"]\nkey = \"seat\"",
                "5:7: namespace[0].rooms[0].key = \"seat\": must be a path into an event's data, as in \
                 \"data.seatNumber\"",
            ),
            (
                "[[namespace]]\nname = \"/\"\n[[namespace.rooms]]\nmatch = [\"a*\"]\nsnapshot = { keys_max = 0 }",
                "5:25: namespace[0].rooms[0].snapshot.keys_max = 0: must be between 1 and 10000",
            ),
            (
                "[[namespace]]\nname = \"/\"\n[[namespace.rooms]]\nmatch = [\"a*\"]\nslow_consumer = \"drop\"",
                "5:17: namespace[0].rooms[0].slow_consumer = \"drop\": must be \"disconnect\" or \"drop_oldest\" or \
                 \"conflate\"",
            ),
            (
                "[[namespace]]\nname = \"/\"\nunknown_events = \"drop\"",
                "3:18: namespace[0].unknown_events = \"drop\": must be \"error\" or \"ignore\"",
            ),
            (
                "[[namespace]]\nname = \"/\"\n[[namespace.connect]]\nerror = { message = \"{a}\" }",
                "4:23: namespace[0].connect[0].error.message = \"{a}\": unknown variable a (namespace \"/\")",
            ),
            (
                "[[endpoint]]\nkind = \"raw\"\nnamespace = \"/w-7\"\n[[namespace]]\npattern = \"/w-[0-9]\"",
                "3:13: endpoint[0].namespace = \"/w-7\": plain WebSockets cannot be in a namespace that a pattern \
                 names; add a [[namespace]] with this name",
            ),
            (
                "[[namespace]]\nname = \"/a\"\n[[namespace]]\nname = \"/a\"",
                "4:8: namespace[1].name = \"/a\": namespace[0] has this name already; put all rules of a \
                 namespace together",
            ),
            (
                "[[namespace]]\nname = \"/a\"\n[[namespace.on]]\nevnt = \"x\"",
                "4:1: namespace[0].on[0].evnt: there is no such key; did you mean event?",
            ),
            (
                "[[namespace]]\nname = \"/a\"\n[[namespace.on]]\nevent = \"x\"\njoin = \"r\"",
                "5:8: namespace[0].on[0].join = \"r\": must be an array, as in [\"…\"]",
            ),
            (
                "[[namespace]]\nname = \"/a\"\n[[namespace.on]]\nevent = \"x\"\nallow = 5",
                "5:9: namespace[0].on[0].allow = 5: must be true, false or a string with an expression",
            ),
            (
                "[[namespace]]\nname = \"/a\"\n[[namespace.on]]\nevent = \"x\"\njoin = [\"a\", \"route:{dta.id}\"]",
                "5:22: namespace[0].on[0].join[1] = \"route:{dta.id}\": unknown variable dta (namespace \"/a\", \
                 event \"x\")",
            ),
            // The main namespace comes first inside, wherever it stands in the file.
            (
                "[[namespace]]\nname = \"/a\"\n[[namespace]]\nname = \"/\"\n[[namespace.on]]\nevent = \"x\"\n\
                 reply = { event = \"y\", data = { a = \"{foo}\" } }",
                "7:39: namespace[1].on[0].reply[0].data.a = \"{foo}\": unknown variable foo (namespace \"/\", \
                 event \"x\")",
            ),
            (
                "[[namespace]]\nname = \"/a\"\n[[namespace.connect]]\nallow = \"\"\"\n  true\n  && foo == 1\n\"\"\"",
                "6:6: namespace[0].connect[0].allow = && foo == 1: unknown variable foo (namespace \"/a\")",
            ),
        ] {
            assert_eq!(error_of(text), format!("f.toml:{error}"), "{text}");
        }
    }

    #[test]
    fn a_bad_filter_is_told() {
        let error = error_of("[log]\nlevel = \"roomcast=loud\"");
        assert!(error.starts_with("f.toml:2:9: log.level = \"roomcast=loud\": must be error, warn, info,"), "{error}");
    }

    #[test]
    fn every_number_has_bounds_that_hold_exactly() {
        let defaults = Config::parse("", "f.toml").unwrap();
        for number in NUMBERS {
            let (section, key) = number.key.split_once('.').unwrap();
            // A burst is one of a rate.
            let rate = key.strip_suffix("_burst").map_or_else(String::new, |rate| format!("\n{rate}_per_s = 1"));
            let with = |value: i128| Config::parse(&format!("[{section}]\n{key} = {value}{rate}"), "f.toml");
            for value in [number.min, number.max] {
                assert_eq!((number.get)(&with(value.into()).unwrap()), value, "{}", number.key);
            }
            for value in [i128::from(number.min) - 1, i128::from(number.max) + 1] {
                let error = with(value).unwrap_err().to_string();
                assert!(error.ends_with(&format!("{} = {value}: must be {}", number.key, number.bounds())), "{error}");
            }
            assert_eq!(with(0).is_ok(), number.min == 0 || number.zero.is_some(), "{}", number.key);
            let default = (number.get)(&defaults);
            assert!(number.zero.is_some() && default == 0 || (number.min..=number.max).contains(&default));
        }
    }

    #[test]
    fn the_reference_shows_every_setting_with_its_default() {
        let (reference, mut defaults) = (Config::development(), Config::parse("", "f.toml").unwrap());
        // Whoever tries roomcast has a page on a port of the same machine.
        assert_eq!(defaults.cors.origins, [""; 0]);
        defaults.cors.origins = reference.cors.origins.clone();
        assert_eq!(format!("{:?}", settings(&reference)), format!("{:?}", settings(&defaults)));
        assert_eq!(reference.net_options().endpoints, defaults.net_options().endpoints);
        // Not by being left out: the text names every key there is, as the error for an unknown one lists them. Without
        // a default there is nothing to show but a comment.
        let comments = ["auth.refresh_event", "auth.key"];
        let tables = reference.document.tables().unwrap();
        for section in ["server", "cors", "auth", "ingest", "ops", "limits", "heartbeat", "mesh", "rooms", "log"] {
            let message = Config::parse(&format!("[{section}]\nqqqqqqqqqqqq = 1"), "f").unwrap_err().message;
            let keys = message.split_once(" are ").or(message.split_once("mean ")).map(|(_, keys)| keys);
            for key in keys.unwrap_or_else(|| panic!("{section}: {message}")).split(", ") {
                let key = format!("{section}.{key}");
                let is_shown = bounds::find(&tables, &key).is_some() || comments.contains(&&*key);
                assert!(is_shown, "{key} is not described");
            }
        }
        for number in NUMBERS {
            assert!(bounds::find(&tables, number.key).is_some(), "{}", number.key);
        }
    }

    fn settings(config: &Config) -> impl fmt::Debug {
        let Config { server, cors, auth, ingest, ops, limits, heartbeat, mesh, rooms, log, .. } = config.clone();
        (server, cors, auth, ingest, ops, limits, heartbeat, mesh, rooms, log)
    }

    #[test]
    fn the_examples_load() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
        let mut count = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                let config = Config::load(&path).unwrap_or_else(|error| panic!("{error}"));
                config.check_exposure().unwrap();
                assert_eq!(config.rules()[0].title(), "/");
                config.namespaces().unwrap();
                count += 1;
            }
        }
        assert!(count >= 2, "{count} examples in {folder}");
    }

    #[test]
    fn modules_get_what_the_file_says() {
        let text = r#"
            [server]
            drain_ms_max = 7
            trusted_proxies = ["10.0.0.0/8"]
            [cors]
            origins = ["https://*.example.com"]
            credentials = true
            headers = ["X-A"]
            max_age_s = 60
            [limits]
            message_bytes_max = 3000
            request_body_ms_max = 200
            keep_alive_ms = 300
            room_name_bytes_max = 30
            outbox_bytes_max = 5000
            [heartbeat]
            ping_interval_ms = 300
            [rooms]
            idle_max = 3
            [[endpoint]]
            kind = "raw"
            namespace = "/b"
            shape = "flat"
            [[endpoint]]
            kind = "socket.io"
            path = "/io"
            message_bytes_max = 2000
            [[endpoint]]
            kind = "engine.io-echo"
            [[endpoint]]
            kind = "websocket-echo"
            [[namespace]]
            name = "/a"
            [[namespace]]
            name = "/b"
            [[namespace]]
            name = "/"
        "#;
        let config = Config::parse(text, "f.toml").unwrap();
        let names: Vec<_> = config.rules().iter().map(RulesSource::title).collect();
        assert_eq!(names, ["/", "/a", "/b"]);
        assert_eq!(config.flat_namespaces(), [false, false, true]);
        let net = config.net_options();
        assert_eq!((net.drain_ms_max, net.outbox_bytes_max, net.endpoints.len()), (7, 5000, 4));
        assert_eq!((net.request_body_ms_max, net.keep_alive_ms), (200, 300));
        assert_eq!(net.trusted_proxies, TrustedProxies::new(&["10.0.0.0/8".into()]).unwrap());
        let origin = Some(&b"https://a.example.com"[..]);
        let lines = [
            "Access-Control-Allow-Origin: https://a.example.com",
            "Vary: Origin",
            "Access-Control-Allow-Credentials: true",
            "Access-Control-Allow-Methods: GET,HEAD,PUT,PATCH,POST,DELETE",
            "Access-Control-Allow-Headers: X-A",
            "Access-Control-Max-Age: 60",
        ];
        assert_eq!(net.cors.preflight_headers(origin, None).trim_end().split("\r\n").collect::<Vec<_>>(), lines);
        let (namespace, shape) = (crate::base::ids::NamespaceId(2), crate::proto::raw::Shape::Flat);
        use crate::session::Kind;
        let kind = Kind::Raw { namespace, shape };
        let endpoint =
            |path: &str, kind, message_bytes_max| net::Endpoint { path: path.into(), kind, message_bytes_max };
        assert_eq!(net.endpoints[0], endpoint("/ws", kind, 3000));
        assert_eq!(net.endpoints[1], endpoint("/io", Kind::SocketIo, 2000));
        assert_eq!(net.endpoints[2], endpoint("/engine.io/", Kind::EngineIoEcho, 3000));
        assert_eq!(net.endpoints[3], endpoint("/echo", Kind::WebSocketEcho, 3000));
        let unsaid = Config::parse("[cors]\norigins = [\"*\"]", "f.toml").unwrap().net_options();
        assert!(!unsaid.cors.preflight_headers(origin, None).contains("Max-Age"));
        let shard = config.shard_options(1);
        assert_eq!((shard.heartbeat.ping_interval_ms, shard.rooms.idle_max, shard.panic_on), (300, 3, None));
        assert_eq!((shard.limits.room_name_bytes_max, shard.limits.outbox_bytes_max), (30, 5000));
        assert_eq!(config.ingest_options().room_name_bytes_max, 30);
    }

    #[test]
    fn the_built_in_rules_let_everybody_join_and_leave() {
        use crate::proto::{json, raw};
        use crate::session::rules::{Facts, Outcome, RoomStep, State};
        let namespaces = Config::development().namespaces().unwrap();
        let state = State::default();
        let says = |text: &str| {
            let incoming = raw::decode(text, raw::Shape::Nested, &mut json::Scratch::default()).unwrap();
            let (namespace, sid, ip, args) = ("/", "s", "::1", &*incoming.args);
            let (auth_json, claims_json, query) = ("null", "null", &[]);
            let captures = &[];
            let facts = Facts { namespace, captures, sid, ip, query, auth_json, claims_json, state: &state, args };
            namespaces[0].rules.on_event(&incoming.name, &facts)
        };
        let joined = |outcome: &Outcome| {
            let (reply, ack) = (&outcome.replies[0], outcome.ack.as_ref().unwrap());
            assert_eq!((&*reply.args_json, &*ack.json), (r#"{"room":"x"}"#, r#"{"room":"x"}"#));
            (outcome.rooms.clone(), reply.name_json.clone())
        };
        for text in [r#"{"type":"subscribe","room":"x"}"#, r#"{"type":"subscribe","data":{"room":"x"}}"#] {
            let outcome = says(text).unwrap();
            assert_eq!(joined(&outcome), (vec![RoomStep::Join("x".into())], "\"subscribed\"".into()), "{text}");
            let outcome = says(&text.replace("subscribe", "unsubscribe")).unwrap();
            assert_eq!(joined(&outcome), (vec![RoomStep::Leave("x".into())], "\"unsubscribed\"".into()), "{text}");
        }
        for text in [r#"{"type":"subscribe","room":7}"#, r#"{"type":"subscribe"}"#, r#"{"type":"publish","room":"x"}"#]
        {
            assert!(says(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rings_shrink_with_the_number_of_cores() {
        let config = Config::parse("", "f.toml").unwrap();
        for (cores, slots) in [(1, 4096), (2, 4096), (4, 4096), (8, 2048), (64, 256), (128, 128), (1024, 128)] {
            assert_eq!(config.mesh_options(cores).slots, slots, "{cores} cores");
        }
        assert_eq!(Config::parse("[mesh]\nring_slots = 100", "f").unwrap().mesh_options(64).slots, 100);
    }

    #[test]
    fn nobody_is_exposed_by_accident() {
        let exposure = |text: &str| Config::parse(text, "f.toml").unwrap().check_exposure().map_err(|e| e.to_string());
        for text in [
            "",
            "[server]\nlisten = \"[::1]:3000\"",
            "[server]\nlisten = \"127.9.9.9:0\"",
            "[server]\nlisten = \"[::ffff:127.0.0.1]:1\"",
            "[server]\nlisten = \"0.0.0.0:3000\"\npublic = true",
            "[ops]\nlisten = \"10.0.0.1:3200\"\npublic = true",
            "[ingest]\nlisten = \"0.0.0.0:3100\"\ntoken_file = \"t\"",
        ] {
            assert_eq!(exposure(text), Ok(()), "{text}");
        }
        for (text, error) in [
            (
                "[server]\nlisten = \"0.0.0.0:3000\"",
                "f.toml:2:10: server.listen = \"0.0.0.0:3000\": clients are not authenticated; set \
                 auth.require = true and an [[auth.key]], or server.public = true if rules and a proxy take care of it",
            ),
            (
                "[server]\npublic = true\n[ingest]\nlisten = \"[::]:3100\"",
                "f.toml:4:10: ingest.listen = \"[::]:3100\": anyone who reaches this port can publish; set \
                 ingest.token_file to a file with a token that they must say",
            ),
            (
                "[ops]\nlisten = \"10.0.0.1:3200\"",
                "f.toml:2:10: ops.listen = \"10.0.0.1:3200\": anyone who reaches this port can read health and \
                 metrics; set ops.public = true if a firewall takes care of it",
            ),
        ] {
            assert_eq!(exposure(text), Err(error.to_owned()));
        }
    }

    #[test]
    fn an_address_from_elsewhere_has_no_place_in_the_file() {
        let mut config = Config::parse("[server]\nlisten = \"127.0.0.1:3000\"", "f.toml").unwrap();
        config.server.listen = "0.0.0.0:80".parse().unwrap();
        let error = config.check_exposure().unwrap_err().to_string();
        assert!(error.starts_with("f.toml: server.listen = \"0.0.0.0:80\": clients are not"), "{error}");
        let mut config = Config::development();
        config.ingest.listen = "0.0.0.0:80".parse().unwrap();
        let error = config.check_exposure().unwrap_err().to_string();
        assert!(error.starts_with("built-in development config: ingest.listen = \"0.0.0.0:80\": the built"), "{error}");
        assert!(error.contains("--config"), "{error}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Config::load(Path::new("/nowhere/r.toml")).unwrap_err().to_string();
        assert!(error.starts_with("/nowhere/r.toml: cannot read the config file: No such file"), "{error}");
    }

    mod any {
        use super::*;
        use proptest::prelude::*;

        /// Lines that look like a config's, most of them wrong.
        fn text() -> impl Strategy<Value = String> {
            let header = r"\[\[?(server|limits|namespace|namespace\.on|endpoint|x)\]?\]";
            let value = r#"(1|-5|"/é"|"\{a"|"raw"|\[1\]|\{a=1\}|'''x|)"#;
            let setting = format!("(listen|cores|name|on|join|kind) = {value}");
            let setting = prop::string::string_regex(&setting).unwrap();
            let line = prop_oneof![header, setting, "\\PC{0,8}"];
            prop::collection::vec(line, 0..8).prop_map(|lines| lines.join("\n"))
        }

        proptest! {
            #[test]
            fn text_is_a_config_or_an_error_with_a_place(
                text in text(),
            ) {
                if let Err(error) = Config::parse(&text, "f") {
                    let (line, column) = error.place.expect("every mistake has its place");
                    prop_assert!(line >= 1 && line <= text.matches('\n').count() + 1 && column >= 1, "{}", error);
                }
            }
        }
    }
}
