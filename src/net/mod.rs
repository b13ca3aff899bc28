//! The data plane: one loop per core that moves bytes between sockets and the shard. Does not know rooms or rules.

mod admit;
mod client;
mod conn;
mod core;
pub mod cpus;
mod drain;
pub mod executor;
mod flush;
mod http;
mod inbox;
pub mod listener;
mod order;
mod published;
pub mod pulse;
mod ring;
mod settings;
pub mod steer;
pub mod sys;
pub mod wake;

pub use self::core::{Core, Extra, Setup, Shared};
pub use self::drain::DrainProgress;
pub use self::http::{HandOver, HandedOver};
pub use self::order::Horizons;
pub use self::published::Published;
pub use self::ring::probe as probe_ring;
pub use self::settings::{Settings, Step};

use crate::proto::cors::Cors;
use crate::proto::forwarded::TrustedProxies;
use crate::session::Kind;

/// Bounds and endpoints of client connections.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where clients come in, by path.
    pub endpoints: Vec<Endpoint>,
    /// Longest HTTP request head.
    pub http_head_bytes_max: usize,
    /// Clients that a core accepts in one turn.
    pub accepts_per_turn: usize,
    /// From accept to the end of the WebSocket handshake.
    pub handshake_ms_max: u64,
    /// From the end of a request's head to the end of its body.
    pub request_body_ms_max: u64,
    /// An HTTP connection without a request for this long is closed.
    pub keep_alive_ms: u64,
    /// Which pages of other origins may read responses.
    pub cors: Cors,
    /// Whose word about a client's address counts.
    pub trusted_proxies: TrustedProxies,
    /// While half of this waits for a client in answers to it, no more of its messages are read.
    pub outbox_bytes_max: u32,
    /// From the signal to stop until all connections are closed.
    pub drain_ms_max: u64,
    /// Clients that all cores together send away in a second then; 0: as many as are done in a third of that time.
    pub drain_clients_per_s: u32,
}

/// A path on the clients' port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The request's path.
    pub path: Box<str>,
    /// What is spoken there.
    pub kind: Kind,
    /// Largest message from a client there.
    pub message_bytes_max: usize,
}

/// A metrics label for an error of the kernel.
fn error_label(error: &std::io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ECONNRESET) => "ECONNRESET",
        Some(libc::ECONNABORTED) => "ECONNABORTED",
        Some(libc::EPIPE) => "EPIPE",
        Some(libc::ETIMEDOUT) => "ETIMEDOUT",
        Some(libc::EMFILE) => "EMFILE",
        Some(libc::ENFILE) => "ENFILE",
        Some(libc::ENOBUFS) => "ENOBUFS",
        Some(libc::ENOMEM) => "ENOMEM",
        Some(libc::EHOSTUNREACH) => "EHOSTUNREACH",
        _ => "other",
    }
}
