//! Where rooms meet sessions on one core. Takes clients' messages, publishers' events and other cores' messages;
//! returns frames in outboxes, messages in rings, actions and a next deadline. Names no runtime, socket, file or system
//! clock.

mod asks;
mod clients;
mod delivery;
mod identity;
mod joins;
mod limits;
pub mod messages;
mod queries;
mod reload;
mod slow;
pub mod tap;
mod timing;
mod transports;

use crate::base::class::Classes;
use crate::base::clock::{Micros, Millis};
use crate::base::counters::{self, Counters};
use crate::base::frame::Frame;
use crate::base::ids::{CoreId, NamespaceId, NamespaceRef, Offset, RoomName, SlotRef, SocketId, Topology};
use crate::base::slab::Slab;
use crate::base::wheel::Wheel;
use crate::mesh::Port;
use crate::proto::line::Acks;
use crate::proto::{engineio, ws};
use crate::room::{members::LocalRooms, owner, owner::OwnedRooms};
use crate::session::admission::Place;
use crate::session::identity::{Bearer, Identity};
use crate::session::inboxes::Inboxes;
use crate::session::namespace::{NamespaceName, is_namespace_name};
use crate::session::outbox::{Offer, Outboxes};
use crate::session::rules::{NamespaceRules, Refusal};
use crate::session::{
    Beat, Credentials, Extras, HeartbeatOptions, Kind, LimitOptions, NOWHERE, Polling, Session, Socket, own_query,
};
use messages::{Down, Facts, ReceiptTo, Up};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

pub use asks::AskOptions;
pub use delivery::Line;
pub use joins::NamedOperation;
pub use transports::{Posted, Probed, TRANSPORT_ERROR, UPGRADE_FAILED, UPGRADE_TIMEOUT};

/// What a shard needs besides its namespaces.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Heartbeats.
    pub heartbeat: HeartbeatOptions,
    /// Bounds of sessions.
    pub limits: LimitOptions,
    /// Memory of rooms without members.
    pub rooms: owner::Options,
    /// Set in tests: a client text message of exactly these bytes panics, to show that the core outlives it.
    pub panic_on: Option<&'static str>,
}

/// A namespace and what its clients may do.
#[derive(Debug)]
pub struct Namespace {
    /// Its name, `/` first, or the pattern of its names.
    pub name: NamespaceName,
    /// Its rules.
    pub rules: NamespaceRules,
    /// What holds for its rooms.
    pub classes: Classes,
}

/// The namespace of that name: the one that is called so, or else the first whose pattern matches. No pattern matches a
/// name of more than `bytes_max` bytes.
#[must_use]
pub fn find_namespace(namespaces: &[Namespace], name: &str, bytes_max: usize) -> Option<usize> {
    let is_called = |n: &Namespace| matches!(&n.name, NamespaceName::Exact(exact) if **exact == *name);
    if let Some(index) = namespaces.iter().position(is_called) {
        return Some(index);
    }
    if name.len() > bytes_max || !is_namespace_name(name) {
        return None;
    }
    let matches = |n: &Namespace| matches!(&n.name, NamespaceName::Pattern(pattern) if pattern.is_match(name));
    namespaces.iter().position(matches)
}

/// The name that clients and publishers spell.
fn name_of<'a>(namespaces: &'a [Namespace], namespace: NamespaceRef<'a>) -> &'a str {
    match (namespace.instance, &namespaces[usize::from(namespace.id.0)].name) {
        (Some(instance), _) => instance,
        (None, NamespaceName::Exact(name)) => name,
        (None, NamespaceName::Pattern(_)) => unreachable!("a pattern's namespaces are named by their instances"),
    }
}

/// How a client's connection came in.
#[derive(Clone, Copy, Debug)]
pub struct Handshake<'a> {
    /// What the endpoint speaks.
    pub kind: Kind,
    /// True if the connection's request is the session's first poll, false if it opened a WebSocket.
    pub polls: bool,
    /// The query string, without tokens.
    pub query: &'a str,
    /// The token that came with the request.
    pub bearer: Option<&'a Bearer>,
    /// The client's address.
    pub ip: IpAddr,
    /// Largest message or POST that the endpoint takes.
    pub message_bytes_max: usize,
}

/// Why a transport is closed: a close code (RFC 6455 section 7.4) and a metrics label, which is also the reason's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closing {
    /// Close code.
    pub code: u16,
    /// Reason.
    pub label: &'static str,
}

impl Closing {
    const fn new(code: u16, label: &'static str) -> Closing {
        Closing { code, label }
    }
}

/// The server stops.
pub const GOING_AWAY: Closing = Closing::new(1001, "shutdown");
/// No pong came in time.
pub const PING_TIMEOUT: Closing = Closing::new(1000, "ping timeout");
/// No namespace was connected in time.
pub const CONNECT_TIMEOUT: Closing = Closing::new(1000, "connect timeout");
/// The client said so in its protocol.
pub const CLIENT_LEFT: Closing = Closing::new(1000, "client left");
/// A publisher or a rule said so.
pub const DISCONNECTED: Closing = Closing::new(1000, "server disconnect");
/// A rule refused the raw connection.
pub const REFUSED: Closing = Closing::new(4403, "refused");
/// A raw client has no valid token.
pub const UNAUTHENTICATED: Closing = Closing::new(4401, "unauthenticated");
/// The token of a raw client has ended.
pub const TOKEN_EXPIRED: Closing = Closing::new(4401, "token expired");
/// The client broke Engine.IO's, Socket.IO's or the raw protocol.
pub const PROTOCOL_ERROR: Closing = Closing::new(1002, "parse error");
/// A text endpoint got a binary message.
pub const UNSUPPORTED: Closing = Closing::new(1003, "binary not supported");
/// The outbox is full.
pub const SLOW_CONSUMER: Closing = Closing::new(1008, "slow consumer");
/// All outboxes together take too much memory, and this is among the largest.
pub const OVER_BUDGET: Closing = Closing::new(1008, "slow consumer, memory short");
/// What all clients have sent incompletely takes too much memory, and this one has sent more.
pub const INBOXES_FULL: Closing = Closing::new(1013, "no room for incomplete messages");

/// What the shard wants done outside.
#[derive(Debug, PartialEq)]
pub enum Action {
    /// Send what waits, then close in good order.
    Close {
        /// Which transport.
        transport: SlotRef,
        /// Why.
        closing: Closing,
        /// What to say instead of the reason's text, if that is not all there is to say.
        text: Option<Box<str>>,
    },
    /// Close now; what waits is lost.
    Abort {
        /// Which transport.
        transport: SlotRef,
        /// Why.
        closing: Closing,
    },
    /// The client's next message can be handled.
    Resume {
        /// Which transport.
        transport: SlotRef,
    },
    /// End the waiting poll with a noop: another transport carries the session.
    EndPoll {
        /// Which transport.
        transport: SlotRef,
    },
    /// The session of a POST is gone before all of it has come: refuse it.
    EndPost {
        /// Which transport.
        transport: SlotRef,
    },
    /// The WebSocket that probed carries its session from now on, and can be read again.
    Upgraded {
        /// Which transport.
        transport: SlotRef,
    },
    /// The session is over and has no transport: [`Shard::closed`] takes it away.
    Ended {
        /// Which session.
        session: SlotRef,
    },
    /// An event has its place in one of its rooms.
    Receipt {
        /// Which publisher's line.
        to: ReceiptTo,
        /// Which of its rooms.
        room: u32,
        /// The place.
        offset: Offset,
    },
    /// One core has applied an operation.
    Operated {
        /// Which publisher's line.
        to: ReceiptTo,
        /// Sockets to which it was applied.
        sockets: u32,
        /// Sockets that would have been in too many rooms.
        refused: u32,
    },
    /// One core has told what a publisher asked about.
    Found {
        /// Which publisher's line.
        to: ReceiptTo,
        /// The core.
        core: CoreId,
        /// What it has.
        facts: Facts,
    },
    /// Clients have acknowledged an event, or their time is over.
    Acknowledged {
        /// Which publisher's line.
        to: ReceiptTo,
        /// What they answered.
        acks: Box<Acks>,
    },
}

/// Whether the client's next message can be handled at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Flow {
    /// Yes.
    Ready,
    /// No: [`Action::Resume`] or a close follows.
    Wait,
}

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerKey {
    /// A session's heartbeat or connect timeout.
    Session(SlotRef),
    /// Idle rooms are looked at.
    IdleRooms,
    /// The end of an ask of one of this core's publishers.
    Ask(SlotRef),
    /// The end of an ask that reached sockets of this core.
    Asked(SlotRef),
    /// What a room keeps may be too old.
    Kept(SlotRef),
    /// Rooms are ranked.
    Ranks,
}

/// One core's share of everything.
#[derive(Debug)]
pub struct Shard {
    core: CoreId,
    topology: Topology,
    options: Options,
    namespaces: Vec<Namespace>,
    /// Those of them, from the first, that clients and publishers may name: all cores know them.
    namespaces_open: usize,
    /// From one pong to the next ping: the shortest interval that any session was promised.
    ping_every_ms: u64,
    /// Of the namespaces' rooms.
    patterns: slow::Patterns,
    random: ChaCha12Rng,
    /// Rings to the other cores.
    pub port: Port<Up, Down>,
    owned: OwnedRooms,
    local: LocalRooms,
    sessions: Slab<Session>,
    sockets: Slab<Socket>,
    /// What waits for clients.
    pub outboxes: Outboxes,
    /// What clients have sent and is not handled: counted by their connections' drivers, and here for packets whose
    /// attachments are missing.
    pub inboxes: Inboxes,
    joins: joins::Joins,
    asks: asks::Asks,
    /// Lists of rooms that are being gathered.
    scans: queries::Scans,
    /// Events of which other owners' parts are still to come, with the sockets that have them already.
    parts: HashMap<u64, delivery::Parts>,
    /// Emptied sets of finished parts, kept for their memory.
    spare_sets: Vec<HashSet<SlotRef>>,
    /// Sessions whose outbox was full during the present delivery.
    overflown: Vec<u32>,
    /// What operators watch of the events that this core orders.
    pub tap: tap::View,
    /// Sockets that the present event is not for, kept for the set's memory.
    excepted: HashSet<u32>,
    /// Counts events for several owners, to tell them apart.
    next_part: u64,
    /// All deadlines of sessions and rooms.
    pub timers: Wheel<TimerKey>,
    fired: Vec<TimerKey>,
    /// True exactly while [`TimerKey::IdleRooms`] is armed.
    idle_timer_armed: bool,
    actions: VecDeque<Action>,
    /// What the core counts.
    pub counters: Counters,
    scratch: Vec<u8>,
    json: crate::proto::json::Scratch,
    stock: Stock,
    /// `None` while tokens have no meaning: there are no keys.
    identity: Option<Arc<Identity>>,
    /// The Unix time of [`Millis`] 0, in milliseconds.
    unix_origin_ms: u64,
    /// As of the last [`Shard::advance`].
    now: Millis,
    /// As of the last [`Shard::set_instant`].
    instant: Micros,
    timing: timing::Timing,
    rates: limits::Rates,
}

/// Frames that are always the same, made once.
#[derive(Debug)]
struct Stock {
    ping: Frame,
    close: Frame,
    noop: Frame,
    websocket_ping: Frame,
}

impl Stock {
    fn new() -> Stock {
        let frame = |write: fn(&mut Vec<u8>)| {
            let mut bytes = Vec::new();
            write(&mut bytes);
            Frame::new(&bytes)
        };
        Stock {
            ping: frame(engineio::ping),
            close: frame(engineio::close),
            noop: frame(engineio::noop),
            websocket_ping: frame(|out| ws::write_header(out, ws::Kind::Ping, 0)),
        }
    }
}

impl Shard {
    /// A shard without sessions. `seed` must come from the system's random source: socket ids are made from it.
    #[must_use]
    pub fn new(
        port: Port<Up, Down>,
        topology: Topology,
        namespaces: Vec<Namespace>,
        options: Options,
        seed: [u8; 32],
        now: Millis,
        first_epoch: u64,
    ) -> Shard {
        let core = port.core();
        assert!(namespaces.len() <= usize::from(u16::MAX), "namespaces are numbered by u16");
        Shard {
            core,
            topology,
            options,
            patterns: slow::Patterns::new(&namespaces),
            namespaces_open: namespaces.len(),
            ping_every_ms: options.heartbeat.ping_interval_ms,
            namespaces,
            random: ChaCha12Rng::from_seed(seed),
            port,
            owned: OwnedRooms::new(options.rooms, first_epoch),
            local: LocalRooms::new(),
            sessions: Slab::new(),
            sockets: Slab::new(),
            outboxes: Outboxes::new(),
            inboxes: Inboxes::default(),
            joins: joins::Joins::default(),
            asks: asks::Asks::new(first_epoch),
            scans: queries::Scans::new(),
            parts: HashMap::new(),
            spare_sets: Vec::new(),
            overflown: Vec::new(),
            tap: tap::View::default(),
            excepted: HashSet::new(),
            next_part: 0,
            timers: Wheel::new(now),
            fired: Vec::new(),
            idle_timer_armed: false,
            actions: VecDeque::new(),
            counters: Counters::default(),
            scratch: Vec::new(),
            json: crate::proto::json::Scratch::default(),
            stock: Stock::new(),
            identity: None,
            unix_origin_ms: 0,
            now,
            instant: Micros(now.0 * 1000),
            timing: timing::Timing::new(),
            rates: limits::Rates::new(&options.limits),
        }
    }

    /// The core that this is.
    #[must_use]
    pub fn core(&self) -> CoreId {
        self.core
    }

    /// How rooms map to cores.
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The namespace of that name; see [`find_namespace`].
    #[must_use]
    pub fn namespace<'n>(&self, name: &'n str) -> Option<NamespaceRef<'n>> {
        let index = find_namespace(self.namespaces_open(), name, self.options.limits.namespace_bytes_max)?;
        let is_one_of_many = matches!(self.namespaces[index].name, NamespaceName::Pattern(_));
        Some(NamespaceRef { id: NamespaceId(index as u16), instance: is_one_of_many.then_some(name) })
    }

    /// The next thing to be done outside.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Opens a session, whose frames `transport` carries, and sends what its protocol says first.
    pub fn open(&mut self, transport: SlotRef, handshake: Handshake<'_>, now: Millis) -> SlotRef {
        let random = self.random_bytes();
        let HeartbeatOptions { connect_timeout_ms, .. } = self.options.heartbeat;
        let beat_at = match handshake.kind {
            Kind::SocketIo | Kind::Raw { .. } | Kind::EngineIoEcho => now.after(self.ping_every_ms),
            // Whoever tests a WebSocket counts every frame; who has gone is found by the kernel's keep-alive.
            Kind::WebSocketEcho => Millis::NEVER,
        };
        let connect_by = match handshake.kind {
            Kind::SocketIo => now.after(connect_timeout_ms),
            Kind::Raw { .. } | Kind::EngineIoEcho | Kind::WebSocketEcho => Millis::NEVER,
        };
        let polling = Polling { poll: Some(transport), ..Polling::default() };
        let bearer = handshake.bearer.cloned();
        let credentials = bearer.map(|bearer| Credentials { bearer: Some(bearer), ends_at: Millis::NEVER });
        let core = self.core;
        let at = self.sessions.insert_with(|at| Session {
            kind: handshake.kind,
            transport,
            polling: handshake.polls.then(|| Box::new(polling)),
            sockets: smallvec::SmallVec::new(),
            extras: Extras::new(own_query(handshake.query), credentials),
            ip: match handshake.ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => ip,
            },
            sid: SocketId::new(core, at.slot, random),
            beat: Beat::Ping,
            beat_at,
            connect_by,
            timer: None,
            reassembler: Default::default(),
            busy: None,
            closing: false,
        });
        self.rates.session_begins(at, self.now);
        self.outboxes.open(at.slot, transport.slot);
        self.arm(at);
        self.counters.sessions_polling += u64::from(handshake.polls);
        match handshake.kind {
            Kind::SocketIo | Kind::EngineIoEcho => {
                self.counters.sessions_socket_io += 1;
                let sid = self.sessions[at.slot].sid;
                let heartbeat = self.options.heartbeat;
                self.scratch.clear();
                let open = engineio::Handshake {
                    sid: &sid.to_string(),
                    upgrades: if handshake.polls { &["websocket"] } else { &[] },
                    ping_interval_ms: heartbeat.ping_interval_ms,
                    ping_timeout_ms: heartbeat.ping_timeout_ms,
                    payload_bytes_max: handshake.message_bytes_max as u64,
                };
                engineio::open(&mut self.scratch, &open);
                self.push_scratch(at.slot);
            }
            Kind::Raw { namespace, .. } => {
                self.counters.sessions_raw += 1;
                self.connect(at, namespace.into(), None);
            }
            Kind::WebSocketEcho => self.counters.sessions_raw += 1,
        }
        at
    }

    /// Has a session hold a place among its address's connections until it ends.
    pub fn hold(&mut self, session: SlotRef, place: Option<Box<Place>>) {
        if let Some(session) = self.sessions.get_mut(session).filter(|session| !session.closing)
            && place.is_some()
        {
            session.extras.get_or_insert_default().place = place;
        }
    }

    /// The transport is gone, and the session with it.
    pub fn closed(&mut self, session: SlotRef) {
        if self.sessions.get(session).is_none() {
            return;
        }
        self.tear_down(session);
        self.outboxes.close(session.slot);
        let Some(session) = self.sessions.remove(session) else { unreachable!("looked up above") };
        if let Some(timer) = session.timer {
            self.timers.cancel(timer);
        }
        self.counters.sessions_polling -= u64::from(session.polling.is_some());
        match session.kind {
            Kind::SocketIo | Kind::EngineIoEcho => self.counters.sessions_socket_io -= 1,
            Kind::Raw { .. } | Kind::WebSocketEcho => self.counters.sessions_raw -= 1,
        }
    }

    /// Moves time on: heartbeats, timeouts, idle rooms, asks.
    pub fn advance(&mut self, now: Millis) {
        self.now = now;
        self.local.busiest.advance(now);
        let mut fired = std::mem::take(&mut self.fired);
        self.timers.advance(now, &mut fired);
        // Asks first: what follows from the other deadlines ends asks and cancels their timers, which must not have
        // fired by then.
        for key in &fired {
            match *key {
                TimerKey::Ask(at) => self.ask_due(at),
                TimerKey::Asked(at) => self.asked_due(at),
                TimerKey::Session(_) | TimerKey::IdleRooms | TimerKey::Kept(_) | TimerKey::Ranks => {}
            }
        }
        for key in fired.drain(..) {
            match key {
                TimerKey::Ask(_) | TimerKey::Asked(_) => {}
                TimerKey::Session(at) => self.session_due(at, now),
                TimerKey::IdleRooms => self.expire_rooms(now),
                TimerKey::Kept(at) => self.kept_due(at, now),
                TimerKey::Ranks => self.rank_rooms(now),
            }
        }
        self.fired = fired;
    }

    /// True while this core may take in more work for owners: neither plane of its rings is full.
    #[must_use]
    pub fn may_publish(&self) -> bool {
        !self.port.up.is_blocked() && !self.port.down.is_blocked()
    }

    /// True while clients' events wait for space in the rings: [`Shard::receive`] must be called again soon.
    #[must_use]
    pub fn has_emits(&self) -> bool {
        self.joins.has_emits()
    }

    /// Handles messages from other cores, at most about `budget` deliveries' worth; returns what is left of it. Owners'
    /// work is only taken on while its results find space in the rings, and while deliveries leave budget for it.
    pub fn receive(&mut self, mut budget: usize, now: Millis) -> usize {
        self.port.flush();
        self.emit_some();
        self.note_rings();
        while budget > 0 {
            let Some((_, message)) = self.port.down.receive() else { break };
            budget = budget.saturating_sub(1 + self.handle_down(message));
        }
        while budget > 0 && !self.port.down.is_blocked() {
            let Some((from, message)) = self.port.up.receive() else { break };
            self.handle_up(from, message, now);
            // What an owner sends to its own core is delivered before the next event, so that the budget counts it.
            budget = budget.saturating_sub(1);
            while budget > 0 {
                let Some(message) = self.port.down.receive_from(self.core) else { break };
                budget = budget.saturating_sub(1 + self.handle_down(message));
            }
        }
        if budget > 0 { budget.saturating_sub(self.scan_some()) } else { 0 }
    }

    /// Brings the levels among the counters up to date.
    pub fn update_gauges(&mut self) {
        self.counters.sockets = self.sockets.len() as u64;
        self.counters.rooms_owned = self.owned.len() as u64;
        self.counters.rooms_attached = self.local.len() as u64;
        let (snapshot_events, snapshot_bytes) = self.owned.kept();
        self.counters.snapshot_events = snapshot_events as u64;
        self.counters.snapshot_bytes = snapshot_bytes as u64;
        self.counters.asks_open = self.asks.len() as u64;
        self.counters.inbox_bytes = self.inboxes.bytes();
        self.counters.outbox_bytes = self.outboxes.bytes_waiting();
        self.counters.outbox_memory_bytes = self.outboxes.memory();
        self.counters.lagging = self.outboxes.lagging() as u64;
        self.counters.ring_slots = self.port.up.slots() as u64;
        self.count_slow_consumers();
        self.counters.ring_full_up = self.port.up.full_count();
        self.counters.ring_full_down = self.port.down.full_count();
    }

    /// Checks every invariant of the shard's tables. Slow: for tests.
    pub fn check(&self) {
        self.owned.check();
        self.local.check();
        self.outboxes.check();
        self.joins.check();
        self.asks.check();
        for (at, session) in self.sessions.iter() {
            for (namespace, socket) in &session.sockets {
                let socket = self.sockets.get(*socket).expect("a session's socket exists");
                assert_eq!((socket.session, socket.namespace), (at.slot, *namespace));
            }
            let lingers = session.polling.as_ref().is_some_and(|polling| polling.lingers);
            let due = if session.closing { lingers } else { session.due() != Millis::NEVER };
            assert_eq!(session.timer.is_some(), due, "a live session has a deadline");
            if let Some(polling) = &session.polling {
                let transport = polling.poll.unwrap_or(NOWHERE);
                assert_eq!(session.transport, transport, "a polled session's transport is its waiting poll");
            }
        }
        let packets: usize = self.sessions.iter().map(|(_, session)| session.reassembler.held_bytes()).sum();
        assert!(packets as u64 <= self.inboxes.bytes(), "packets that are not whole are counted");
        assert_eq!(self.sockets.len(), self.sessions.iter().map(|(_, s)| s.sockets.len()).sum::<usize>());
    }

    /// Every attachment of every room that this core owns: for tests that compare owners with member cores.
    pub fn attachments(&self) -> impl Iterator<Item = owner::Attachment> {
        self.owned.all_attachments()
    }

    /// Every group of members on this core: for the same tests.
    pub fn groups(&self) -> impl Iterator<Item = SlotRef> {
        self.local.groups()
    }

    /// Ends the session's presence everywhere and has its transport closed after what waits is sent.
    fn close(&mut self, session: SlotRef, closing: Closing) {
        self.close_saying(session, closing, None);
    }

    /// Like [`Shard::close`], with a reason in words of its own.
    fn close_saying(&mut self, session: SlotRef, closing: Closing, text: Option<Box<str>>) {
        if !self.tear_down(session) {
            return;
        }
        let Session { transport, polling, .. } = &self.sessions[session.slot];
        if polling.is_some() {
            return self.close_polling(session, closing);
        }
        self.actions.push_back(Action::Close { transport: *transport, closing, text });
    }

    /// Like [`Shard::close`], without sending what waits.
    fn abort(&mut self, session: SlotRef, closing: Closing) {
        if !self.tear_down(session) {
            return;
        }
        self.outboxes.close(session.slot);
        let Session { transport, polling, .. } = &self.sessions[session.slot];
        let Some(polling) = polling else {
            self.actions.push_back(Action::Abort { transport: *transport, closing });
            return;
        };
        let carriers = polling.poll.into_iter().chain(polling.probe.map(|probe| probe.transport));
        self.actions.extend(carriers.map(|transport| Action::Abort { transport, closing }));
        let incoming = polling.post.filter(|_| !polling.holds_answers);
        self.actions.extend(incoming.map(|transport| Action::EndPost { transport }));
        self.counters.count(counters::CLOSES, closing.label);
        self.actions.push_back(Action::Ended { session });
    }

    /// Takes the session out of everything; false if that was done before.
    fn tear_down(&mut self, at: SlotRef) -> bool {
        let session = &mut self.sessions[at.slot];
        if std::mem::replace(&mut session.closing, true) {
            return false;
        }
        if let Some(extras) = &mut session.extras {
            extras.place = None;
        }
        let held = std::mem::take(&mut session.reassembler).held_bytes();
        let _ = self.inboxes.resize(held, 0);
        if let Some(timer) = session.timer.take() {
            self.timers.cancel(timer);
        }
        for (_, socket) in std::mem::take(&mut session.sockets) {
            self.remove_socket(socket);
        }
        true
    }

    fn session_due(&mut self, at: SlotRef, now: Millis) {
        let Some(session) = self.sessions.get_mut(at) else { unreachable!("a session's timer dies with it") };
        session.timer = None;
        if session.closing {
            return self.lingered(at);
        }
        if session.connect_by <= now {
            return self.close(at, CONNECT_TIMEOUT);
        }
        if session.token_ends_at() <= now && !self.tokens_due(at) {
            return;
        }
        let session = &mut self.sessions[at.slot];
        if session.beat_at <= now {
            if session.beat == Beat::Pong {
                return self.close(at, PING_TIMEOUT);
            }
            session.beat = Beat::Pong;
            session.beat_at = session.beat_at.after(self.options.heartbeat.ping_timeout_ms);
            let frame = match session.kind {
                Kind::SocketIo | Kind::EngineIoEcho => self.stock.ping.clone(),
                Kind::Raw { .. } | Kind::WebSocketEcho => self.stock.websocket_ping.clone(),
            };
            self.push(at.slot, frame);
        }
        self.upgrade_due(at, now);
        self.arm(at);
    }

    /// The client has shown that it lives: the next ping is due one interval later.
    fn pong(&mut self, at: SlotRef, now: Millis) {
        let interval = self.ping_every_ms;
        let session = &mut self.sessions[at.slot];
        if session.beat == Beat::Pong {
            session.beat = Beat::Ping;
            session.beat_at = now.after(interval);
            self.arm(at);
        }
    }

    /// Arms the session's next deadline.
    fn arm(&mut self, at: SlotRef) {
        let session = &mut self.sessions[at.slot];
        if let Some(timer) = session.timer.take() {
            self.timers.cancel(timer);
        }
        let due = session.due();
        if due != Millis::NEVER {
            session.timer = Some(self.timers.arm(due, TimerKey::Session(at)));
        }
    }

    /// Arms the deadline of a session that may be closing: then it has none, or its own.
    fn rearm(&mut self, at: SlotRef) {
        if !self.sessions[at.slot].closing {
            self.arm(at);
        }
    }

    fn expire_rooms(&mut self, now: Millis) {
        if let Some(next) = self.owned.expire(now) {
            self.timers.arm(next, TimerKey::IdleRooms);
            self.idle_timer_armed = true;
        } else {
            self.idle_timer_armed = false;
        }
    }

    /// Has idle rooms looked at in time, whenever one may have become idle.
    fn watch_idle_rooms(&mut self, now: Millis) {
        if !std::mem::replace(&mut self.idle_timer_armed, true) {
            self.timers.arm(now.after(self.options.rooms.idle_ms), TimerKey::IdleRooms);
        }
    }

    /// Sends what stands in `scratch` to one session.
    fn push_scratch(&mut self, session: u32) {
        let frame = Frame::new(&self.scratch);
        self.push(session, frame);
    }

    fn push(&mut self, session: u32, frame: Frame) {
        match self.outboxes.push(session, frame) {
            Offer::Queued | Offer::Closed => {}
            Offer::Full | Offer::Skipped => unreachable!("answers have no bound"),
        }
    }

    fn random_bytes(&mut self) -> [u8; 9] {
        let mut bytes = [0; 9];
        self.random.fill_bytes(&mut bytes);
        bytes
    }

    /// A number that nobody can guess.
    pub fn random(&mut self) -> u64 {
        self.random.next_u64()
    }

    /// Refuses a client's message: counts it and says why to the client.
    fn count_refusal(&mut self, label: &'static str) {
        self.counters.count(counters::RULE_REFUSALS, label);
    }

    /// A checked room name.
    fn room_name(&self, name: &str) -> Result<RoomName, Refusal> {
        let name = RoomName::new(name, self.options.limits.room_name_bytes_max);
        name.map_err(|error| Refusal::by(counters::limits::ROOM_NAME, error.to_string()))
    }
}
