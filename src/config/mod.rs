//! The configuration: TOML to each module's Options. Knows every setting with its default and bounds, and nothing of what
//! the modules do with them; the reference for operators is `development.toml`.

mod bounds;
mod document;
mod endpoints;

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

use serde::Deserialize;
use toml::de::{DeTable, DeValue};
use tracing_subscriber::EnvFilter;

pub(crate) use bounds::NUMBERS;
pub use document::ConfigError;
use document::{Document, path};
pub use endpoints::{Endpoint, EndpointKind, EndpointShape};

use crate::ingest::publisher;
use crate::session::rules::{NamespaceRules, PathStep, RuleError, RulesSource};
use crate::session::{HeartbeatOptions, LimitOptions};
use crate::{mesh, net, room, shard};

/// The config that stands for a missing one.
pub const DEVELOPMENT: &str = include_str!("development.toml");

/// Namespaces are numbered by `u16`, and each core holds the rules of all.
const NAMESPACES_MAX: usize = 1024;

/// Everything that can be set. Made by [`Config::parse`] and its kin alone, so that its parts have been checked, the rules
/// compile and the namespace `/` stands first.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[server]`
    pub server: Server,
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
    document: Document,
    is_development: bool,
}

/// The file's shape.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    server: Server,
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
    /// True: clients may reach the server from elsewhere although it does not authenticate them.
    pub public: bool,
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
    /// True: publishers may come from elsewhere although they are not authenticated.
    pub public: bool,
}

/// Operators' port.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Ops {
    /// Where health and metrics are served; port 0 picks one.
    pub listen: SocketAddr,
    /// True: they may be read from elsewhere although readers are not authenticated.
    pub public: bool,
}

/// Bounds of clients.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Largest message from a client.
    pub message_bytes_max: usize,
    /// Binary attachments of one Socket.IO packet.
    pub attachments_max: usize,
    /// Longest HTTP request head.
    pub http_head_bytes_max: usize,
    /// From accept to the end of the WebSocket handshake.
    pub handshake_ms_max: u64,
    /// Rooms of one socket.
    pub rooms_per_socket_max: usize,
    /// Length of a room's name.
    pub room_name_bytes_max: usize,
    /// What may wait for one connection.
    pub outbox_bytes_max: u32,
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
        Server { listen: loopback(3000), cores: 0, drain_ms_max: 10_000, public: false }
    }
}

impl Default for Ingest {
    fn default() -> Ingest {
        Ingest {
            listen: loopback(3100),
            line_bytes_max: 1 << 20,
            receipt_bytes_max: 1 << 20,
            rooms_per_line_max: 1024,
            public: false,
        }
    }
}

impl Default for Ops {
    fn default() -> Ops {
        Ops { listen: loopback(3200), public: false }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            message_bytes_max: 1_000_000,
            attachments_max: 10,
            http_head_bytes_max: 8192,
            handshake_ms_max: 10_000,
            rooms_per_socket_max: 128,
            room_name_bytes_max: 200,
            outbox_bytes_max: 1 << 20,
        }
    }
}

impl Default for Heartbeat {
    fn default() -> Heartbeat {
        Heartbeat { ping_interval_ms: 25_000, ping_timeout_ms: 20_000, connect_timeout_ms: 45_000 }
    }
}

impl Default for Rooms {
    fn default() -> Rooms {
        Rooms { idle_ms: 60_000, idle_max: 100_000 }
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
            Ok(text) => Config::parse(&text, &file),
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
        check_namespaces(&document, &file.namespace)?;
        for (index, rules) in file.namespace.iter().enumerate() {
            NamespaceRules::compile(rules).map_err(|error| rule_error(&document, index, error))?;
        }
        let endpoints = if file.endpoint.is_empty() { Endpoint::defaults() } else { file.endpoint };
        let namespaces = with_main_first(file.namespace);
        endpoints::check(&document, &endpoints, &namespaces)?;
        drop(tables);
        Ok(Config {
            server: file.server,
            ingest: file.ingest,
            ops: file.ops,
            limits: file.limits,
            heartbeat: file.heartbeat,
            mesh: file.mesh,
            rooms: file.rooms,
            log: file.log,
            endpoints,
            namespaces,
            document,
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
                server.public,
                "clients are not authenticated by this version; set server.public = true if rules and a proxy take care \
                 of it",
            ),
            (
                "ingest",
                ingest.listen,
                ingest.public,
                "anyone who reaches this port can publish; set ingest.public = true if a firewall takes care of it",
            ),
            (
                "ops",
                ops.listen,
                ops.public,
                "anyone who reaches this port can read health and metrics; set ops.public = true if a firewall takes care \
                 of it",
            ),
        ] {
            if public || listen.ip().to_canonical().is_loopback() {
                continue;
            }
            let key = format!("{section}.listen");
            let message = if self.is_development {
                "the built-in development config lets everybody join every room, so it stays on loopback; write a config \
                 of your own and name it with --config"
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

    /// For the data plane of clients.
    #[must_use]
    pub fn net_options(&self) -> net::Options {
        net::Options {
            endpoints: self.endpoints.iter().map(|endpoint| endpoint.compile(&self.namespaces)).collect(),
            http_head_bytes_max: self.limits.http_head_bytes_max,
            handshake_ms_max: self.limits.handshake_ms_max,
            message_bytes_max: self.limits.message_bytes_max,
            outbox_bytes_max: self.limits.outbox_bytes_max,
            drain_ms_max: self.server.drain_ms_max,
        }
    }

    /// For each core's shard.
    #[must_use]
    pub fn shard_options(&self) -> shard::Options {
        shard::Options {
            heartbeat: HeartbeatOptions {
                ping_interval_ms: self.heartbeat.ping_interval_ms,
                ping_timeout_ms: self.heartbeat.ping_timeout_ms,
                connect_timeout_ms: self.heartbeat.connect_timeout_ms,
            },
            limits: LimitOptions {
                message_bytes_max: self.limits.message_bytes_max,
                attachments_max: self.limits.attachments_max,
                rooms_per_socket_max: self.limits.rooms_per_socket_max,
                room_name_bytes_max: self.limits.room_name_bytes_max,
                outbox_bytes_max: self.limits.outbox_bytes_max,
            },
            rooms: room::owner::Options { idle_ms: self.rooms.idle_ms, idle_max: self.rooms.idle_max },
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
        }
    }

    /// For the rings between `cores` cores.
    #[must_use]
    pub fn mesh_options(&self, cores: usize) -> mesh::Options {
        // All rings that one core sends into hold together as much on few cores as on many, within what absorbs a burst
        // (128) and what stays in a cache (4096).
        let chosen = (16_384 / cores.max(1)).clamp(128, 4096);
        mesh::Options { slots: if self.mesh.ring_slots == 0 { chosen } else { self.mesh.ring_slots } }
    }

    /// Compiles the namespaces' rules, once for each core; in the order of their ids, `/` first.
    ///
    /// # Errors
    /// The first rule that does not compile: never after [`Config::parse`] has succeeded.
    pub fn namespaces(&self) -> Result<Vec<shard::Namespace>, RuleError> {
        let compile = |source: &RulesSource| {
            let rules = NamespaceRules::compile(source)?;
            Ok(shard::Namespace { name: source.name.as_str().into(), rules })
        };
        self.namespaces.iter().map(compile).collect()
    }

    /// By namespace: true if a raw endpoint shows its events as flat objects.
    #[must_use]
    pub fn flat_namespaces(&self) -> Vec<bool> {
        let is_flat = |name: &str| {
            let flat = |e: &Endpoint| e.kind == EndpointKind::Raw && e.shape() == EndpointShape::Flat;
            self.endpoints.iter().any(|endpoint| flat(endpoint) && endpoint.namespace() == name)
        };
        self.namespaces.iter().map(|namespace| is_flat(&namespace.name)).collect()
    }
}

fn namespace_path(index: usize, key: &str) -> Vec<PathStep> {
    vec![PathStep::Key("namespace".to_owned()), PathStep::Index(index), PathStep::Key(key.to_owned())]
}

fn check_addresses(document: &Document, tables: &DeTable<'_>) -> Result<(), ConfigError> {
    for (key, example) in [("server.listen", loopback(3000)), ("ingest.listen", loopback(3100)), ("ops.listen", loopback(3200))] {
        let is_good = match bounds::find(tables, key) {
            Some(DeValue::String(text)) => text.parse::<SocketAddr>().is_ok(),
            Some(_) => false,
            None => true,
        };
        if !is_good {
            let message = format!("must be an IP address and a port, as in \"{example}\" or \"[::1]:0\"; port 0 picks one");
            return Err(document.wrong_value(&path(key), message));
        }
    }
    Ok(())
}

fn check_log(document: &Document, log: &Log) -> Result<(), ConfigError> {
    match EnvFilter::builder().parse(&log.level) {
        Ok(_) => Ok(()),
        Err(error) => {
            let message = format!("must be error, warn, info, debug, trace, or a filter as in \"info,roomcast=debug\": {error}");
            Err(document.wrong_value(&path("log.level"), message))
        }
    }
}

fn check_namespaces(document: &Document, namespaces: &[RulesSource]) -> Result<(), ConfigError> {
    for (index, namespace) in namespaces.iter().enumerate() {
        let name = namespace.name.as_str();
        let wrong = |message: String| Err(document.wrong_value(&namespace_path(index, "name"), message));
        // A comma and a question mark end the namespace in a Socket.IO packet.
        if !name.starts_with('/') || name.contains(|c: char| c.is_control() || matches!(c, ',' | '?')) {
            return wrong("must begin with / and contain no comma and no ?, as in \"/seats\"".to_owned());
        }
        if let Some(first) = namespaces[..index].iter().position(|n| n.name == name) {
            return wrong(format!("namespace[{first}] has this name already; put all rules of a namespace together"));
        }
        if index >= NAMESPACES_MAX {
            return wrong(format!("there are more than {NAMESPACES_MAX} namespaces"));
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
    let main = match namespaces.iter().position(|namespace| namespace.name == "/") {
        Some(index) => namespaces.remove(index),
        None => RulesSource { name: "/".to_owned(), ..RulesSource::default() },
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
    fn bad_configs_dump() {
        for text in [
            "[limits]\nrooms_per_socket_max = 0",
            "[limits]\nmessage_bytes_max = -1",
            "[server]\ncores = 2000",
            "limits.outbox_bytes_max = 99999999999999999999",
            "[limits]\nattachments_max = 0x1000",
            "[mesh]\nring_slots = 3",
            "[rooms]\nidle_ms = \"60s\"",
            "[heartbeat]\nping_interval_ms = 25.0",
            "[server]\nlisten = \"localhost:3000\"",
            "[server]\n  listen = 3000",
            "[ops]\nlisten = \"127.0.0.1\"",
            "[limits]\nrooms_per_sockets_max = 5",
            "[limit]\nrooms_per_socket_max = 5",
            "[server]\ncolour = 1",
            "log = 3",
            "[server]\npublic = \"yes\"",
            "[log]\nformat = \"xml\"",
            "[log]\nlevel = \"roomcast=loud\"",
            "[server\nlisten = 1",
            "[server]\ncores = 1\ncores = 2",
            "x = ",
            "[server]\nlisten = \"abc",
            "[[endpoint]]\npath = \"/ws\"",
            "[[endpoint]]\nkind = \"websocket\"",
            "[[endpoint]]\nkind = \"raw\"\nnamespace = \"/seats\"",
            "[[endpoint]]\nkind = \"raw\"\nshape = \"flatt\"",
            "[[endpoint]]\nkind = \"raw\"\n[[endpoint]]\nkind = \"raw\"",
            "[[endpoint]]\nkind = \"raw\"\npath = \"/x\"\n[[endpoint]]\nkind = \"socket.io\"\npath = \"/x/\"",
            "[[endpoint]]\nkind = \"raw\"\npath = \"ws\"",
            "[[endpoint]]\nkind = \"socket.io\"\nshape = \"flat\"",
            "[[endpoint]]\nkind = \"socket.io\"\nnamespace = \"/\"",
            "[endpoint]\nkind = \"raw\"",
            "[[namespace]]\nname = \"seats\"",
            "[[namespace]]\non = []",
            "[[namespace]]\nname = \"/a\"\n[[namespace]]\nname = \"/a\"",
            "[[namespace]]\nname = \"/a\"\n[[namespace.on]]\nevnt = \"x\"",
            "[[namespace]]\nname = \"/a\"\n[[namespace.on]]\nevent = \"x\"\njoin = \"r\"",
            "[[namespace]]\nname = \"/a\"\n[[namespace.on]]\nevent = \"x\"\nallow = 5",
            "[[namespace]]\nname = \"/a\"\n[[namespace.on]]\nevent = \"x\"\nreply = { evnt = \"y\" }",
            "[[namespace]]\nname = \"/a\"\n[[namespace.on]]\nevent = \"x\"\njoin = [\"a\", \"route:{dta.id}\"]",
            "[[namespace]]\nname = \"/a\"\n[[namespace]]\nname = \"/\"\n[[namespace.on]]\nevent = \"x\"\nreply = { event = \"y\", data = { a = \"{data.a +}\" } }",
            "[[namespace]]\nname = \"/a\"\n[[namespace.connect]]\nallow = \"\"\"\n  true\n  && foo == 1\n\"\"\"",
        ] {
            println!("{text:?}\n   => {}", error_of(text));
        }
    }
}
