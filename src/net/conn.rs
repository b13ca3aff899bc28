//! One TCP connection's bookkeeping. Does not know what its bytes mean.

use super::http::Http;
use crate::base::ids::SlotRef;
use crate::base::wheel::TimerId;
use crate::ingest::publisher::Publisher;
use crate::proto::ws;
use crate::session::admission::Place;
use std::net::TcpStream;

/// A connection. It lives in its slot until its last poll has reported, so that a late report finds it.
#[derive(Debug)]
pub(super) struct Conn {
    pub stream: TcpStream,
    pub role: Role,
    /// Bytes received and not handled: an incomplete head or frame, or messages that wait. Boxed, as it is empty in
    /// nearly all connections nearly all the time.
    pub inbox: Option<Box<Inbox>>,
    /// What it holds of its client's bytes, as counted in the core's inboxes.
    pub held: u32,
    /// The handshake's or the closing's deadline.
    pub timer: Option<TimerId>,
    /// True while the kernel reports when there is something to read.
    pub polls_read: bool,
    /// True while the kernel will report that there is space to write.
    pub polls_write: bool,
    /// True while the connection stands in the core's list of those to be read.
    pub queued: bool,
    /// True while nothing is read from it: what is there must be handled first.
    pub paused: bool,
    /// True while whole messages are in `inbox`: they are handled before more is read.
    pub backlog: bool,
    /// True if something can be read as far as we know: the kernel reports only what is new.
    pub readable: bool,
    /// True once the kernel has reported the end: it is to be read until the end is found.
    pub hangup: bool,
    /// Its place among the connections of its address, if those are counted. Boxed, as it mostly is none.
    pub place: Option<Box<Place>>,
}

// There is one for each client.
const _: () = assert!(size_of::<Conn>() <= 72);

/// Received bytes that wait.
#[derive(Debug)]
pub(super) struct Inbox(pub Vec<u8>);

/// What a connection is at the moment.
#[derive(Debug)]
pub(super) enum Role {
    /// A client that speaks HTTP: before its first request, in one, or between two.
    Http(Box<Http>),
    /// A client with an open WebSocket.
    WebSocket { session: SlotRef, decoder: ws::Decoder, message_bytes_max: u32 },
    /// A client's WebSocket that may take over its session, which polls.
    Probe { session: SlotRef, decoder: ws::Decoder, message_bytes_max: u32 },
    /// A client to whom a close frame is being sent.
    Closing { session: SlotRef, decoder: ws::Decoder, message_bytes_max: u32, peer_closed: bool },
    /// Everything is sent and our side is shut: what still comes is thrown away, so that the kernel does not reset the
    /// connection before the peer has read the end.
    Lingering { publisher: bool },
    /// A connection without a place that was told so. It is read to its end like one that lingers.
    TurnedAway,
    /// A publisher.
    Publisher(Box<Publisher>),
    /// Waiting for its polls to end.
    Dead,
}

impl Conn {
    pub(super) fn new(stream: TcpStream, role: Role) -> Conn {
        Conn {
            stream,
            role,
            inbox: None,
            held: 0,
            timer: None,
            polls_read: false,
            polls_write: false,
            queued: false,
            paused: false,
            backlog: false,
            readable: false,
            hangup: false,
            place: None,
        }
    }

    /// True if the connection is the session's.
    pub(super) fn carries(&self, slot: u32) -> bool {
        match &self.role {
            Role::WebSocket { session, .. } | Role::Closing { session, .. } => session.slot == slot,
            Role::Http(http) => http.waits_for().is_some_and(|session| session.slot == slot),
            Role::Probe { .. } | Role::Lingering { .. } | Role::TurnedAway | Role::Publisher(_) | Role::Dead => false,
        }
    }
}
