//! What clients say, and what the rules make of it. One message of a session at a time: the next one waits until the
//! joins of this one are done, so that a client's messages take effect in their order whatever cores they concern.

use super::joins::{Answer, LateAnswer, Then, Wants};
use super::{CLIENT_LEFT, Closing, Flow, INBOXES_FULL, Line, PROTOCOL_ERROR, REFUSED, Shard, UNSUPPORTED, name_of};
use crate::base::clock::Millis;
use crate::base::counters::{self, limits};
use crate::base::event::Event;
use crate::base::frame::Frame;
use crate::base::ids::{NamespaceRef, RoomKey, RoomName, SlotRef, SocketId};
use crate::base::rate::Rate;
use crate::proto::engineio::{self, PacketType};
use crate::proto::raw::{self, Shape};
use crate::proto::socketio::{self, Incoming, PacketError, PacketKind};
use crate::proto::{http, json, ws};
use crate::session::inboxes::Room;
use crate::session::namespace::NamespaceName;
use crate::session::rules::{Args, Emit, Facts, Outcome, Refusal, Reply, UnknownEvents, put_snapshots};
use crate::session::{AUTH_BYTES_MAX, Kind, Notes, Socket};
use smallvec::SmallVec;
use std::sync::Arc;

/// An event that a client sent.
#[derive(Clone, Copy)]
pub(super) struct ClientEvent<'a> {
    pub(super) name: &'a str,
    pub(super) args: &'a [&'a str],
    pub(super) ack_id: Option<u64>,
    attachments: &'a [Box<[u8]>],
}

/// What is left to be done for an outcome whose state and leaves have taken effect.
struct Settled {
    /// Rooms to join.
    keys: Vec<RoomKey>,
    /// Snapshots to be told of.
    wants: Wants,
    /// Events for rooms.
    emits: Vec<Line>,
}

impl Shard {
    /// A text message came.
    pub fn text(&mut self, at: SlotRef, text: &str, now: Millis) -> Flow {
        if !self.hears(at) {
            return Flow::Ready;
        }
        if self.options.panic_on.is_some_and(|trap| trap == text) {
            panic!("a client's message asked for a panic");
        }
        match self.sessions[at.slot].kind {
            Kind::SocketIo | Kind::EngineIoEcho => self.engine_io(at, text, now),
            Kind::Raw { shape, .. } => self.raw_text(at, text, shape),
            Kind::WebSocketEcho => self.echo(at, ws::Kind::Text, text.as_bytes()),
        }
        self.flow(at)
    }

    /// A binary message came.
    pub fn binary(&mut self, at: SlotRef, bytes: &[u8]) -> Flow {
        if !self.hears(at) {
            return Flow::Ready;
        }
        match self.sessions[at.slot].kind {
            Kind::SocketIo => {
                let reassembler = &mut self.sessions[at.slot].reassembler;
                let before = reassembler.held_bytes();
                let packet = reassembler.binary(bytes);
                self.reassembled(at, before, packet);
            }
            Kind::Raw { .. } => {
                self.counters.count(counters::CLIENT_ERRORS, "binary_on_raw");
                self.close(at, UNSUPPORTED);
            }
            Kind::EngineIoEcho | Kind::WebSocketEcho => self.echo(at, ws::Kind::Binary, bytes),
        }
        self.flow(at)
    }

    /// Sends a message back as it came.
    fn echo(&mut self, at: SlotRef, kind: ws::Kind, message: &[u8]) {
        self.counters.client_messages += 1;
        self.scratch.clear();
        ws::write_header(&mut self.scratch, kind, message.len());
        self.scratch.extend_from_slice(message);
        self.push_scratch(at.slot);
    }

    /// The client's WebSocket answered a ping.
    pub fn websocket_pong(&mut self, at: SlotRef, now: Millis) {
        if self.hears(at) && !self.sessions[at.slot].kind.is_engine_io() {
            self.pong(at, now);
        }
    }

    /// The session's driver found that the client breaks the transport's protocol.
    pub fn violated(&mut self, at: SlotRef, closing: Closing, label: &'static str) {
        if self.hears(at) {
            self.counters.count(counters::CLIENT_ERRORS, label);
            self.close(at, closing);
        }
    }

    /// Has the session closed in good order, for `closing`.
    pub fn shut(&mut self, at: SlotRef, closing: Closing) {
        if self.hears(at) {
            self.close(at, closing);
        }
    }

    /// The client's transport says goodbye: its sockets leave now, what waits for it is still sent.
    pub fn closed_by_peer(&mut self, at: SlotRef) {
        if self.hears(at) {
            self.tear_down(at);
        }
    }

    /// True while a message of the client waits for owners to answer.
    #[must_use]
    pub fn is_busy(&self, at: SlotRef) -> bool {
        self.flow(at) == Flow::Wait
    }

    /// Puts the session into a namespace: the rules say where its socket belongs. The client hears of it when the
    /// socket is in all its rooms.
    pub(super) fn connect(&mut self, at: SlotRef, namespace: NamespaceRef<'_>, auth: Option<&str>) {
        let claims = match self.identify(at, namespace.id, auth) {
            Ok(claims) => claims,
            Err(error) => return self.refuse_token(at, namespace, error),
        };
        let random = self.random_bytes();
        let core = self.core;
        let notes = (claims.is_some() || auth.is_some() || namespace.instance.is_some()).then(|| {
            let (auth, instance) = (auth.map(|auth| self.without_tokens(auth)), namespace.instance.map(Into::into));
            Box::new(Notes { auth, claims, instance, ..Notes::default() })
        });
        let socket = self.sockets.insert_with(|socket| Socket {
            session: at.slot,
            namespace: namespace.id,
            sid: SocketId::new(core, socket.slot, random),
            connected: false,
            joining: 0,
            notes,
        });
        self.rates.socket_begins(socket, self.now);
        self.sessions[at.slot].sockets.push((namespace.id, socket));
        self.watch_tokens(at);
        let outcome = self.judge(socket, None, |rules, facts| rules.on_connect(facts));
        let settled = outcome.and_then(|outcome| {
            let settled = self.settle(socket, &outcome, &[])?;
            Ok((outcome, settled))
        });
        match settled {
            Ok((outcome, Settled { mut keys, wants, emits })) => {
                // As in the Node server, a client that every namespace refuses is closed when its time is up.
                let session = &mut self.sessions[at.slot];
                if std::mem::replace(&mut session.connect_by, Millis::NEVER) != Millis::NEVER {
                    self.arm(at);
                }
                keys.insert(0, self.topology.key(namespace, RoomName::whole_namespace()));
                let mut answer = Answer { emits, disconnect: outcome.disconnect, ..Answer::default() };
                if self.sessions[at.slot].kind == Kind::SocketIo {
                    let sid = self.sockets[socket.slot].sid.to_string();
                    self.scratch.clear();
                    socketio::connect(&mut self.scratch, name_of(&self.namespaces, namespace), &sid);
                    answer.frames.push(Frame::new(&self.scratch));
                }
                self.answers(at, socket, outcome, None, &[], &mut answer);
                if !self.join(socket, &keys, wants, Then::Connected(answer)) {
                    self.sessions[at.slot].busy = Some(socket);
                }
            }
            Err(refusal) => {
                self.count_refusal(refusal.limit.unwrap_or("connect"));
                self.refuse_connection(at, socket, &refusal);
            }
        }
    }

    /// Takes the socket out again that a rule refused, and tells the client.
    fn refuse_connection(&mut self, at: SlotRef, socket: SlotRef, refusal: &Refusal) {
        let Refusal { reason, data_json, own_words, .. } = refusal;
        match self.sessions[at.slot].kind {
            Kind::SocketIo => {
                self.scratch.clear();
                let name = name_of(&self.namespaces, self.sockets[socket.slot].namespace_ref());
                socketio::connect_error(&mut self.scratch, name, reason, data_json.as_deref());
                self.push_scratch(at.slot);
                self.forget_socket(at, socket);
            }
            // A close frame has no room for data, and libraries like to hide its text.
            Kind::Raw { .. } if *own_words => {
                self.refuse(at, socket, None, refusal);
                self.close_saying(at, REFUSED, Some(reason.as_str().into()));
            }
            Kind::Raw { .. } => self.close(at, REFUSED),
            Kind::EngineIoEcho | Kind::WebSocketEcho => unreachable!("an echo connects to no namespace"),
        }
    }

    /// True while the session is there and what its client says counts.
    #[must_use]
    pub fn hears(&self, at: SlotRef) -> bool {
        self.sessions.get(at).is_some_and(|session| !session.closing)
    }

    fn flow(&self, at: SlotRef) -> Flow {
        if self.sessions.get(at).is_some_and(|session| session.busy.is_some()) { Flow::Wait } else { Flow::Ready }
    }

    pub(super) fn protocol_error(&mut self, at: SlotRef, label: &'static str) {
        self.counters.count(counters::CLIENT_ERRORS, label);
        self.close(at, PROTOCOL_ERROR);
    }

    fn engine_io(&mut self, at: SlotRef, text: &str, now: Millis) {
        let (kind, data) = match engineio::parse(text) {
            Ok(packet) => packet,
            Err(error) => return self.protocol_error(at, error.label()),
        };
        match kind {
            PacketType::Message if self.sessions[at.slot].kind == Kind::EngineIoEcho => {
                self.echo(at, ws::Kind::Text, text.as_bytes());
            }
            PacketType::Message => {
                let limits = socketio::Limits {
                    attachments_max: self.options.limits.attachments_max,
                    packet_bytes_max: self.options.limits.packet_bytes_max,
                };
                // The reassembler is taken out for the call, as the packet borrows from the text alone.
                let mut reassembler = std::mem::take(&mut self.sessions[at.slot].reassembler);
                let before = reassembler.held_bytes();
                let packet = reassembler.text(data, &limits, &mut self.json);
                self.sessions[at.slot].reassembler = reassembler;
                self.reassembled(at, before, packet);
            }
            PacketType::Pong => self.pong(at, now),
            // Heartbeats go the other way.
            PacketType::Ping => self.protocol_error(at, "heartbeat_direction"),
            PacketType::Close => self.close(at, CLIENT_LEFT),
            // The reference server takes no notice of these.
            PacketType::Noop | PacketType::Open | PacketType::Upgrade => {}
        }
    }

    /// The session's reassembler, which held `before` bytes, has taken a message.
    fn reassembled(&mut self, at: SlotRef, before: usize, packet: Result<Option<Incoming<'_>>, PacketError>) {
        let room = self.inboxes.resize(before, self.sessions[at.slot].reassembler.held_bytes());
        match packet {
            Ok(Some(packet)) => self.packet(at, &packet),
            Ok(None) if room == Room::None => self.refuse_rest(at),
            Ok(None) => {}
            Err(error) => self.protocol_error(at, error.label()),
        }
    }

    /// Closes a session of whose message no more can be held.
    pub fn refuse_rest(&mut self, at: SlotRef) {
        if self.hears(at) {
            self.count_refusal(limits::INBOXES_BYTES);
            self.close(at, INBOXES_FULL);
        }
    }

    fn packet(&mut self, at: SlotRef, packet: &Incoming<'_>) {
        self.counters.client_messages += 1;
        let sockets = &self.sessions[at.slot].sockets;
        let is_named = |socket: &SlotRef| {
            name_of(&self.namespaces, self.sockets[socket.slot].namespace_ref()) == &*packet.namespace
        };
        let present = sockets.iter().map(|(_, socket)| *socket).find(is_named);
        match (packet.kind, present) {
            (PacketKind::Connect, None) if !self.may_connect(at) => {
                self.count_refusal(limits::CONNECTS);
                self.connect_error(at, &packet.namespace, "Too many attempts to connect");
            }
            (PacketKind::Connect, None) if packet.payload.len() > AUTH_BYTES_MAX => {
                self.count_refusal(limits::AUTH_BYTES);
                self.connect_error(at, &packet.namespace, &format!("auth has more than {AUTH_BYTES_MAX} bytes"));
            }
            (PacketKind::Connect, None) => match self.namespace(&packet.namespace) {
                Some(_) if self.sessions[at.slot].sockets.len() >= self.options.limits.namespaces_per_session_max => {
                    self.count_refusal(limits::NAMESPACES);
                    self.connect_error(at, &packet.namespace, "Too many namespaces");
                }
                Some(namespace) => {
                    let auth = (!packet.payload.is_empty()).then_some(&*packet.payload);
                    self.connect(at, namespace, auth);
                }
                None => {
                    self.count_refusal("unknown_namespace");
                    self.connect_error(at, &packet.namespace, "Invalid namespace");
                }
            },
            (PacketKind::Event, Some(socket)) => {
                // The parser admits a number as a name too.
                let name_json = packet.name_json().unwrap_or_default();
                let name = match json::kind(name_json) {
                    json::Kind::String => json::unescape(name_json),
                    _ => Some(name_json.into()),
                };
                let Some(name) = name else { return self.protocol_error(at, "event_name") };
                let args: SmallVec<[&str; 4]> = packet.args().collect();
                let attachments = &packet.attachments;
                self.event(at, socket, ClientEvent { name: &name, args: &args, ack_id: packet.ack_id, attachments });
            }
            (PacketKind::Ack, Some(socket)) => self.acknowledged(socket, packet),
            (PacketKind::Disconnect, Some(socket)) => self.forget_socket(at, socket),
            // The Node server closes the connection on all of these.
            (PacketKind::Connect, Some(_)) => self.protocol_error(at, "connected_twice"),
            (PacketKind::Event | PacketKind::Ack | PacketKind::Disconnect, None) => {
                self.protocol_error(at, "not_connected");
            }
            (PacketKind::ConnectError | PacketKind::BinaryEvent | PacketKind::BinaryAck, _) => {
                self.protocol_error(at, "unexpected_packet");
            }
        }
    }

    fn raw_text(&mut self, at: SlotRef, text: &str, shape: Shape) {
        self.counters.client_messages += 1;
        let Some(&(_, socket)) = self.sessions[at.slot].sockets.first() else {
            return self.protocol_error(at, "not_connected");
        };
        match raw::decode(text, shape, &mut self.json) {
            Ok(incoming) => {
                let event = ClientEvent { name: &incoming.name, args: &incoming.args, ack_id: None, attachments: &[] };
                self.event(at, socket, event);
            }
            // The connection goes on: the next object may be a good one.
            Err(error) => {
                if !self.may_say(socket) {
                    return self.refuse_one_too_many(at, socket, None);
                }
                self.counters.count(counters::CLIENT_ERRORS, error.label());
                self.refuse(at, socket, None, &Refusal::new(error.to_string()));
            }
        }
    }

    /// Does what the rules say about a client's event.
    fn event(&mut self, at: SlotRef, socket: SlotRef, event: ClientEvent<'_>) {
        if !self.may_say(socket) {
            return self.refuse_one_too_many(at, socket, Some(event));
        }
        if self.identity.as_ref().is_some_and(|identity| identity.is_refresh(event.name)) {
            return self.refresh_token(at, socket, event);
        }
        let rules = &self.namespaces[usize::from(self.sockets[socket.slot].namespace.0)].rules;
        let is_known = rules.is_known(event.name);
        if !is_known && rules.unknown_events() == UnknownEvents::Ignore {
            return self.count_refusal("unknown_event");
        }
        let outcome = self.judge(socket, Some(event), |rules, facts| rules.on_event(event.name, facts));
        let settled = outcome.and_then(|outcome| {
            let settled = self.settle(socket, &outcome, event.attachments)?;
            Ok((outcome, settled))
        });
        match settled {
            Ok((outcome, Settled { keys, wants, emits })) => {
                let mut answer = Answer { emits, disconnect: outcome.disconnect, ..Answer::default() };
                self.answers(at, socket, outcome, event.ack_id, event.attachments, &mut answer);
                if !self.join(socket, &keys, wants, Then::Answer(answer)) {
                    self.sessions[at.slot].busy = Some(socket);
                }
            }
            Err(refusal) => {
                self.count_refusal(refusal.limit.unwrap_or(if is_known { "event" } else { "unknown_event" }));
                self.refuse(at, socket, Some(event), &refusal);
            }
        }
    }

    /// Asks the namespace's rules.
    fn judge(
        &self,
        socket: SlotRef,
        event: Option<ClientEvent<'_>>,
        ask: impl FnOnce(&crate::session::rules::NamespaceRules, &Facts<'_>) -> Result<Outcome, Refusal>,
    ) -> Result<Outcome, Refusal> {
        let socket = &self.sockets[socket.slot];
        let Socket { session, namespace, sid, notes, .. } = socket;
        let no_notes = Notes::default();
        let Notes { auth, claims, state, instance } = notes.as_deref().unwrap_or(&no_notes);
        let session = &self.sessions[*session];
        let namespace = &self.namespaces[usize::from(namespace.0)];
        let query: Vec<(Box<str>, Box<str>)> = session
            .query()
            .into_iter()
            .flat_map(http::query_pairs)
            .map(|(key, value)| (key.into(), value.into()))
            .collect();
        let captures = match (&namespace.name, instance) {
            (NamespaceName::Pattern(pattern), Some(instance)) => pattern.captures(instance),
            _ => Vec::new(),
        };
        let facts = Facts {
            namespace: name_of(&self.namespaces, socket.namespace_ref()),
            captures: &captures,
            sid: &sid.to_string(),
            ip: &session.ip.to_canonical().to_string(),
            query: &query,
            auth_json: auth.as_deref().unwrap_or("null"),
            claims_json: claims.as_ref().map_or("null", |claims| &claims.json),
            state,
            args: event.map_or(&[], |event| event.args),
        };
        ask(&namespace.rules, &facts)
    }

    /// Checks an outcome's rooms against the bounds, then applies what takes effect at once: state and leaves. Returns
    /// what takes longer. Events for rooms carry those of `attachments` that they name.
    fn settle(&mut self, socket: SlotRef, outcome: &Outcome, attachments: &[Box<[u8]>]) -> Result<Settled, Refusal> {
        let namespace = self.sockets[socket.slot].namespace_ref();
        let key = |name| Ok(self.topology.key(namespace, self.room_name(name)?));
        let keys = outcome.joins().map(key).collect::<Result<Vec<RoomKey>, Refusal>>()?;
        let ends = |key: &RoomKey| !key.name.is_whole_namespace() && outcome.leaves(key.name.as_str());
        let stay = self.local.rooms_of(socket.slot).filter(|key| !key.name.is_whole_namespace() && !ends(key));
        let after = stay.filter(|key| !keys.contains(key)).count() + keys.len();
        let max = self.options.limits.rooms_per_socket_max;
        if after > max {
            return Err(Refusal::too_many_rooms(after, max));
        }
        let wants = self.wants(socket, outcome, &keys)?;
        let emits = outcome.emits.iter().map(|emit| self.emit_line(socket, emit, attachments));
        let emits = emits.collect::<Result<Vec<Line>, Refusal>>()?;
        self.counters.client_emits += emits.len() as u64;
        self.leave(socket, ends);
        if let Some(state) = &outcome.state {
            self.sockets[socket.slot].notes.get_or_insert_default().state = state.clone();
        }
        Ok(Settled { keys, wants, emits })
    }

    /// The snapshots that an outcome speaks of. A room that keeps nothing has an empty one.
    fn wants(&self, socket: SlotRef, outcome: &Outcome, keys: &[RoomKey]) -> Result<Wants, Refusal> {
        let namespace = self.sockets[socket.slot].namespace_ref();
        let key = |name: &String| Ok(self.topology.key(namespace, self.room_name(name)?));
        let events = outcome.snapshots.iter().map(key).collect::<Result<SmallVec<[RoomKey; 1]>, Refusal>>()?;
        let values = outcome.values.iter().map(key).collect::<Result<_, Refusal>>()?;
        // A later rule may have taken the join back.
        Ok(Wants { events: events.into_iter().filter(|room| keys.contains(room)).collect(), values })
    }

    /// An event that a rule sends for a client.
    fn emit_line(&self, socket: SlotRef, emit: &Emit, attachments: &[Box<[u8]>]) -> Result<Line, Refusal> {
        let Emit { rooms, event: Reply { name_json, args_json, arg_count }, key, to_self, volatile } = emit;
        let socket = &self.sockets[socket.slot];
        let mut names: SmallVec<[RoomName; 1]> = SmallVec::new();
        for name in rooms.iter().flatten() {
            let name = self.room_name(name)?;
            if !names.contains(&name) {
                names.push(name);
            }
        }
        emit.check_key()?;
        let (args, carried) = socketio::collect_placeholders(args_json, attachments);
        let mut event = Event::new(socket.namespace_ref(), name_json, &args, *arg_count);
        event.attachments = carried.into_iter().map(Into::into).collect();
        let itself = || RoomName::new(&socket.sid.to_string(), usize::MAX).expect("an id is a room's name");
        let except = if *to_self { Vec::new() } else { vec![itself()] };
        let key = key.as_deref().map(Into::into);
        Ok(Line { event, rooms: names, except, key, volatile: *volatile, ask: None })
    }

    /// Encodes an outcome's replies and acknowledgement, or leaves it for later if a snapshot belongs into them. Those
    /// that carry what the client sent carry its attachments.
    fn answers(
        &mut self,
        at: SlotRef,
        socket: SlotRef,
        outcome: Outcome,
        ack_id: Option<u64>,
        attachments: &[Box<[u8]>],
        answer: &mut Answer,
    ) {
        let Outcome { replies, ack, values, .. } = outcome;
        let ack = ack_id.zip(ack);
        if values.is_empty() {
            return self.encode_answers(at, socket, &replies, ack.as_ref(), attachments, &mut answer.frames);
        }
        answer.late = Some(Box::new(LateAnswer { replies, ack, attachments: attachments.to_vec() }));
    }

    /// Encodes replies and acknowledgement with the values of snapshots in them.
    pub(super) fn late_answers(
        &mut self,
        at: SlotRef,
        socket: SlotRef,
        late: LateAnswer,
        values: &[Arc<str>],
        frames: &mut SmallVec<[Frame; 2]>,
    ) {
        let LateAnswer { mut replies, mut ack, attachments } = late;
        for reply in &mut replies {
            reply.args_json = put_snapshots(&reply.args_json, values);
        }
        if let Some((_, args)) = &mut ack {
            args.json = put_snapshots(&args.json, values);
        }
        self.encode_answers(at, socket, &replies, ack.as_ref(), &attachments, frames);
    }

    fn encode_answers(
        &mut self,
        at: SlotRef,
        socket: SlotRef,
        replies: &[Reply],
        ack: Option<&(u64, Args)>,
        attachments: &[Box<[u8]>],
        frames: &mut SmallVec<[Frame; 2]>,
    ) {
        for reply in replies {
            frames.push(self.reply(at, socket, &reply.name_json, &reply.args_json, reply.arg_count, attachments));
        }
        if let Some((ack_id, args)) = ack {
            let (args, carried) = socketio::collect_placeholders(&args.json, attachments);
            self.scratch.clear();
            let name = name_of(&self.namespaces, self.sockets[socket.slot].namespace_ref());
            socketio::ack(&mut self.scratch, name, *ack_id, &args, &carried);
            frames.push(Frame::new(&self.scratch));
        }
    }

    fn reply(
        &mut self,
        at: SlotRef,
        socket: SlotRef,
        name_json: &str,
        args_json: &str,
        arg_count: usize,
        attachments: &[Box<[u8]>],
    ) -> Frame {
        let namespace = self.sockets[socket.slot].namespace_ref();
        self.scratch.clear();
        match self.sessions[at.slot].kind {
            Kind::SocketIo => {
                let (args, carried) = socketio::collect_placeholders(args_json, attachments);
                let name = name_of(&self.namespaces, namespace);
                socketio::event(&mut self.scratch, name, None, name_json, &args, &carried);
            }
            Kind::Raw { shape, .. } => {
                let event = Event::new(namespace, name_json, args_json, arg_count);
                raw::event(&mut self.scratch, shape, &event);
            }
            Kind::EngineIoEcho | Kind::WebSocketEcho => unreachable!("an echo has no rules"),
        }
        Frame::new(&self.scratch)
    }

    /// Tells the client that its message was refused, and why: by the namespace's `error` event, and by an
    /// acknowledgement if it asked for one.
    pub(super) fn refuse(&mut self, at: SlotRef, socket: SlotRef, event: Option<ClientEvent<'_>>, refusal: &Refusal) {
        let mut data = String::from("{\"message\":");
        json::escape_into(&mut data, &refusal.reason);
        if let Some(event) = event {
            data.push_str(",\"event\":");
            json::escape_into(&mut data, event.name);
        }
        if let Some(data_json) = &refusal.data_json {
            data.push_str(",\"data\":");
            data.push_str(data_json);
        }
        data.push('}');
        let frame = self.reply(at, socket, "\"error\"", &data, 1, &[]);
        self.push(at.slot, frame);
        if let Some(ack_id) = event.and_then(|event| event.ack_id) {
            let args = format!("{{\"error\":{data}}}");
            self.scratch.clear();
            let name = name_of(&self.namespaces, self.sockets[socket.slot].namespace_ref());
            socketio::ack(&mut self.scratch, name, ack_id, &args, socketio::NO_ATTACHMENTS);
            self.push_scratch(at.slot);
        }
    }

    fn refuse_one_too_many(&mut self, at: SlotRef, socket: SlotRef, event: Option<ClientEvent<'_>>) {
        self.count_refusal(limits::EVENTS_PER_SOCKET);
        let per_s = self.options.limits.events_per_socket.map_or(0, Rate::per_s);
        let reason = format!("this is one event too many; a socket may send {per_s} a second");
        self.refuse(at, socket, event, &Refusal::new(reason));
    }

    fn connect_error(&mut self, at: SlotRef, namespace: &str, message: &str) {
        self.scratch.clear();
        socketio::connect_error(&mut self.scratch, namespace, message, None);
        self.push_scratch(at.slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::class::Classes;
    use crate::base::ids::{CoreId, Topology};
    use crate::mesh;
    use crate::session::inboxes::{Budget, Inboxes};
    use crate::session::rules::{NamespaceRules, RulesSource};
    use crate::shard::{self, Action, Handshake, Namespace, Posted};
    use std::net::{IpAddr, Ipv4Addr};

    const MIB: usize = 1 << 20;

    fn shard() -> Shard {
        let rules = NamespaceRules::compile(&RulesSource::default()).unwrap();
        let namespaces = vec![Namespace { name: "/".into(), rules, classes: Classes::default() }];
        let port = mesh::connect(1, mesh::Options { slots: 16 }).remove(0);
        let options = shard::Options::default();
        let mut shard = Shard::new(port, Topology::new(1, 1), namespaces, options, [0; 32], Millis(0), 1);
        shard.inboxes = Inboxes::new(Arc::new(Budget::new(1, 8 * MIB as u64)), CoreId::new(0));
        shard
    }

    fn client(shard: &mut Shard, number: u32, polls: bool) -> SlotRef {
        let (ip, transport) = (IpAddr::V4(Ipv4Addr::LOCALHOST), SlotRef { slot: number, generation: 0 });
        let handshake =
            Handshake { kind: Kind::SocketIo, query: "", ip, polls, bearer: None, message_bytes_max: 2 * MIB };
        let session = shard.open(transport, handshake, Millis(0));
        if polls {
            shard.poll_answered(session);
        }
        let _ = shard.text(session, "40", Millis(0));
        shard.receive(100, Millis(0));
        session
    }

    fn half(shard: &mut Shard, session: SlotRef, mebibytes: usize) {
        let _ = shard.text(session, r#"4520-["x"]"#, Millis(0));
        for _ in 0..mebibytes {
            let _ = shard.binary(session, &vec![0; MIB]);
        }
        shard.check();
    }

    fn closed(shard: &mut Shard) -> Vec<(u32, Closing)> {
        let actions = std::iter::from_fn(|| shard.poll_action());
        actions
            .filter_map(|action| match action {
                Action::Close { transport, closing, .. } => Some((transport.slot, closing)),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn packets_that_are_not_whole_share_a_budget() {
        let mut shard = shard();
        let all: Vec<SlotRef> = (0..4).map(|number| client(&mut shard, number, false)).collect();
        // Seven eighths of eight are for large ones, and their bookkeeping takes some.
        half(&mut shard, all[0], 3);
        half(&mut shard, all[1], 3);
        assert_eq!(closed(&mut shard), []);
        let held = shard.inboxes.bytes();
        half(&mut shard, all[2], 2);
        assert_eq!(closed(&mut shard), [(2, INBOXES_FULL)], "and nobody else");
        assert_eq!(shard.inboxes.bytes(), held, "it has given back everything");
        assert_eq!(shard.counters.by_reason, [(counters::RULE_REFUSALS, limits::INBOXES_BYTES, 1)]);
        // A packet of the usual size.
        let _ = shard.text(all[3], r#"451-["x"]"#, Millis(0));
        let _ = shard.binary(all[3], b"small");
        // The rest of what was there before.
        for _ in 0..17 {
            let _ = shard.binary(all[0], b"");
        }
        assert_eq!(closed(&mut shard), []);
        assert!(shard.inboxes.bytes() < held - 3 * MIB as u64);
        // Text where an attachment is due, and the end.
        let _ = shard.text(all[1], r#"42["x"]"#, Millis(0));
        assert_eq!(closed(&mut shard), [(1, PROTOCOL_ERROR)]);
        assert_eq!(shard.inboxes.bytes(), 0);
        half(&mut shard, all[0], 3);
        shard.closed(all[0]);
        assert_eq!(shard.inboxes.bytes(), 0);
        shard.check();
    }

    #[test]
    fn a_post_for_whose_packets_there_is_no_room_is_refused() {
        let mut shard = shard();
        let other = client(&mut shard, 0, false);
        half(&mut shard, other, 6);
        let session = client(&mut shard, 1, true);
        let post = SlotRef { slot: 2, generation: 0 };
        shard.begin_post(session, post).unwrap();
        assert!(shard.begin_packets(session, post));
        assert_eq!(shard.post_packet(session, r#"452-["x"]"#, Millis(0)), Posted::Ready);
        let attachment = format!("b{}", "AAAA".repeat(MIB / 3 + 1));
        assert_eq!(shard.post_packet(session, &attachment, Millis(0)), Posted::Broken);
        shard.end_post(session, post);
        shard.check();
        assert!((6 * MIB as u64..7 * MIB as u64).contains(&shard.inboxes.bytes()));
    }
}
