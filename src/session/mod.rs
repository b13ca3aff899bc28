//! The protocol state of clients: sessions, their sockets, what waits for them, and the rules that decide what they may
//! do. Does not know rooms' members, other cores or real sockets.

pub mod admission;
pub mod budget;
pub mod identity;
pub mod inboxes;
pub mod namespace;
pub mod outbox;
pub mod rules;

use crate::base::clock::Millis;
use crate::base::frame::Encoding;
use crate::base::ids::{NamespaceId, NamespaceRef, SlotRef, SocketId};
use crate::base::rate::Rate;
use crate::base::wheel::TimerId;
use crate::proto::raw::Shape;
use crate::proto::socketio::Reassembler;
use admission::Place;
use identity::{Bearer, Claims};
use rules::State;
use smallvec::SmallVec;
use std::net::Ipv6Addr;

/// Most bytes of what a client connects to a namespace with. It is kept for the socket's life, as rules read it: with a
/// message's 1 MB, 600 connections of one address would take 600 MB. Tokens have 1 to 2 KB.
pub const AUTH_BYTES_MAX: usize = 32 << 10;

/// Heartbeats of all sessions (Engine.IO protocol 4, "Heartbeat"; for raw WebSockets by ping frames).
#[derive(Clone, Copy, Debug)]
pub struct HeartbeatOptions {
    /// From one pong to the next ping.
    pub ping_interval_ms: u64,
    /// A session whose pong takes longer is gone.
    pub ping_timeout_ms: u64,
    /// A Socket.IO client that connects to no namespace for this long is closed.
    pub connect_timeout_ms: u64,
    /// From a polled client's WebSocket handshake to the end of its upgrade.
    pub upgrade_timeout_ms: u64,
}

/// Bounds of one session.
#[derive(Clone, Copy, Debug)]
pub struct LimitOptions {
    /// Largest Socket.IO packet from a client, all its attachments included.
    pub packet_bytes_max: usize,
    /// Binary attachments of one Socket.IO packet.
    pub attachments_max: usize,
    /// Namespaces that one session can be in: sockets that it can have.
    pub namespaces_per_session_max: usize,
    /// Length of a namespace's name that a pattern may match.
    pub namespace_bytes_max: usize,
    /// Rooms that one socket can be in, besides the namespace's and its own.
    pub rooms_per_socket_max: usize,
    /// Length of a room's name.
    pub room_name_bytes_max: usize,
    /// What may wait for one connection before it counts as a slow consumer.
    pub outbox_bytes_max: u32,
    /// Events that one socket may send.
    pub events_per_socket: Option<Rate>,
}

/// Those of a server whose operator has set nothing.
impl Default for HeartbeatOptions {
    fn default() -> HeartbeatOptions {
        HeartbeatOptions {
            ping_interval_ms: 25_000,
            ping_timeout_ms: 20_000,
            connect_timeout_ms: 45_000,
            upgrade_timeout_ms: 10_000,
        }
    }
}

/// Those of a server whose operator has set nothing.
impl Default for LimitOptions {
    fn default() -> LimitOptions {
        LimitOptions {
            packet_bytes_max: 11_000_000,
            attachments_max: 1000,
            namespaces_per_session_max: 128,
            namespace_bytes_max: 200,
            rooms_per_socket_max: 128,
            room_name_bytes_max: 200,
            outbox_bytes_max: 1 << 20,
            events_per_socket: None,
        }
    }
}

/// What a session speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Socket.IO v5 over Engine.IO v4.
    SocketIo,
    /// JSON objects, bound to one namespace.
    Raw {
        /// The endpoint's namespace.
        namespace: NamespaceId,
        /// How objects carry data.
        shape: Shape,
    },
    /// Engine.IO v4 that sends every message back: for conformance tests.
    EngineIoEcho,
    /// A WebSocket that sends every message back: for conformance tests.
    WebSocketEcho,
}

impl Kind {
    /// How the session's sockets want events.
    ///
    /// # Panics
    /// For echoes: they have no sockets.
    #[must_use]
    pub fn encoding(self) -> Encoding {
        match self {
            Kind::SocketIo => Encoding::SocketIo,
            Kind::Raw { shape: Shape::Nested, .. } => Encoding::RawNested,
            Kind::Raw { shape: Shape::Flat, .. } => Encoding::RawFlat,
            Kind::EngineIoEcho | Kind::WebSocketEcho => unreachable!("an echo is in no room"),
        }
    }

    /// True for what is spoken over Engine.IO, whose transports are long-polling and WebSocket.
    #[must_use]
    pub fn is_engine_io(self) -> bool {
        matches!(self, Kind::SocketIo | Kind::EngineIoEcho)
    }
}

/// What is due next in a session's heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    /// A ping is sent.
    Ping,
    /// The session is gone, unless the client has answered by then.
    Pong,
}

/// One client. Plain data, so that it can be written down and taken up elsewhere.
#[derive(Debug)]
pub struct Session {
    /// What it speaks.
    pub kind: Kind,
    /// The connection that drains its outbox: its WebSocket, or the one whose poll waits; [`NOWHERE`] between polls.
    pub transport: SlotRef,
    /// Present exactly while the client polls.
    pub polling: Option<Box<Polling>>,
    /// Its sockets by namespace.
    pub sockets: SmallVec<[(NamespaceId, SlotRef); 1]>,
    /// What is known about few sessions only.
    pub extras: Option<Box<Extras>>,
    /// Where the client is; an IPv4 address in its mapped form.
    pub ip: Ipv6Addr,
    /// The session's own id.
    pub sid: SocketId,
    /// What is due next.
    pub beat: Beat,
    /// When.
    pub beat_at: Millis,
    /// A client that is in no namespace by then is closed; [`Millis::NEVER`] for raw sessions and once it was in one.
    pub connect_by: Millis,
    /// The armed deadline: [`Session::due`].
    pub timer: Option<TimerId>,
    /// A binary packet whose attachments are not all here.
    pub reassembler: Reassembler,
    /// Set while a message of the client waits for owners to answer: to the socket that it was for. The next one must
    /// not be handled before.
    pub busy: Option<SlotRef>,
    /// True from the moment the transport was told to close: nothing that the client says counts any more.
    pub closing: bool,
}

// There is one for each client.
const _: () = assert!(size_of::<Session>() <= 128);

impl Session {
    /// The earliest of its deadlines.
    #[must_use]
    pub fn due(&self) -> Millis {
        let probe = self.polling.as_ref().and_then(|polling| polling.probe);
        let upgrade = probe.map_or(Millis::NEVER, |probe| probe.give_up_at.min(probe.noop_at));
        self.connect_by.min(self.beat_at).min(upgrade).min(self.token_ends_at())
    }

    /// When the first of its sockets' tokens ends; perhaps earlier, if that socket is gone.
    #[must_use]
    pub fn token_ends_at(&self) -> Millis {
        self.credentials().map_or(Millis::NEVER, |credentials| credentials.ends_at)
    }

    /// The query string of its handshake, unless there is nothing of the client's own in it.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.extras.as_ref()?.query.as_deref()
    }

    /// Present if its client has come with a token, in its handshake's request or later.
    #[must_use]
    pub fn credentials(&self) -> Option<&Credentials> {
        self.extras.as_ref()?.credentials.as_ref()
    }

    /// [`Session::credentials`], to change them.
    pub fn credentials_mut(&mut self) -> Option<&mut Credentials> {
        self.extras.as_mut()?.credentials.as_mut()
    }
}

/// What few sessions have.
#[derive(Debug, Default)]
pub struct Extras {
    /// [`Session::query`].
    pub query: Option<Box<str>>,
    /// [`Session::credentials`].
    pub credentials: Option<Credentials>,
    /// Held until it closes by a client behind a proxy, whose connections are not counted themselves.
    pub place: Option<Box<Place>>,
}

impl Extras {
    /// Boxed, unless there is nothing in it.
    #[must_use]
    pub fn new(query: Option<Box<str>>, credentials: Option<Credentials>) -> Option<Box<Extras>> {
        let has_any = query.is_some() || credentials.is_some();
        has_any.then(|| Box::new(Extras { query, credentials, place: None }))
    }
}

/// What is known of a session whose client has a token.
#[derive(Debug)]
pub struct Credentials {
    /// The token of its handshake's request: each namespace that it connects to verifies it anew.
    pub bearer: Option<Bearer>,
    /// [`Session::token_ends_at`].
    pub ends_at: Millis,
}

/// The transport of a session without a connection.
pub const NOWHERE: SlotRef = SlotRef { slot: u32::MAX, generation: u32::MAX };

/// What a session over HTTP long-polling has besides (Engine.IO protocol 4, "HTTP long-polling" and "Upgrade").
#[derive(Debug, Default)]
pub struct Polling {
    /// The connection whose GET waits for packets.
    pub poll: Option<SlotRef>,
    /// The connection whose POST comes in or is being handled.
    pub post: Option<SlotRef>,
    /// True while its packets are handled: nothing is sent meanwhile, so that the answers to all of them go out
    /// together.
    pub holds_answers: bool,
    /// The WebSocket that may take over.
    pub probe: Option<Probe>,
    /// Set when the client broke the protocol, or there is no room for what it sends: its POST is refused.
    pub broken: bool,
    /// True for a session that was closed by the server between two polls: the next poll is told.
    pub lingers: bool,
}

/// A WebSocket of a session that still polls.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// Its connection.
    pub transport: SlotRef,
    /// True once it was probed: from then on polls don't wait for long, as the client stops polling to upgrade.
    pub probed: bool,
    /// True once the client has upgraded while a POST was being handled: it takes effect after that.
    pub upgrades: bool,
    /// It is given up then.
    pub give_up_at: Millis,
    /// A waiting poll is ended with a noop then.
    pub noop_at: Millis,
}

/// One session's presence in one namespace.
#[derive(Debug)]
pub struct Socket {
    /// Slot of its session.
    pub session: u32,
    /// Its namespace.
    pub namespace: NamespaceId,
    /// Its public id, the name of its own room.
    pub sid: SocketId,
    /// True from the moment the client was told that it is connected.
    pub connected: bool,
    /// Joins under way for it.
    pub joining: u16,
    /// What is known about few sockets only.
    pub notes: Option<Box<Notes>>,
}

// There is one for each client: a namespace of one name costs nothing for those with a pattern.
const _: () = assert!(size_of::<Socket>() <= 32);

impl Socket {
    /// The namespace with its instance.
    #[must_use]
    pub fn namespace_ref(&self) -> NamespaceRef<'_> {
        NamespaceRef { id: self.namespace, instance: self.notes.as_ref().and_then(|notes| notes.instance.as_deref()) }
    }
}

/// What a socket brought along and what rules remember about it.
#[derive(Debug, Default)]
pub struct Notes {
    /// The whole name of its namespace, if a pattern matched it.
    pub instance: Option<Box<str>>,
    /// The auth payload that it connected with, as JSON.
    pub auth: Option<Box<str>>,
    /// What its token says.
    pub claims: Option<Box<Claims>>,
    /// What rules have set.
    pub state: State,
}

/// The part of a handshake's query string that is the client's own: without Engine.IO's parameters.
#[must_use]
pub fn own_query(query: &str) -> Option<Box<str>> {
    let of_engine_io = |pair: &&str| matches!(pair.split('=').next(), Some("EIO" | "transport" | "t" | "sid" | "b64"));
    let own: Vec<&str> = query.split('&').filter(|pair| !pair.is_empty() && !of_engine_io(pair)).collect();
    (!own.is_empty()).then(|| own.join("&").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engine_ios_own_parameters_are_not_kept() {
        assert_eq!(own_query("EIO=4&transport=websocket&t=abc"), None);
        assert_eq!(own_query("userId=7&EIO=4&role=TTE&transport=websocket").as_deref(), Some("userId=7&role=TTE"));
        assert_eq!(own_query(""), None);
    }
}
