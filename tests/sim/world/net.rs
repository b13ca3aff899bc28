//! Simulated TCP connections of polled clients, and on each core what `net::http` and `net::client` do with them: each
//! call to a shard stands here as it stands there. Knows requests and frames, not what packets mean; whatever a shard
//! answers is compared with the oracle of sessions' lives.

use super::Random;
use super::lives::{End, Life, Lives};
use roomcast::base::clock::Millis;
use roomcast::base::frame::Frame;
use roomcast::base::ids::{SlotRef, SocketId};
use roomcast::proto::engineio::{self, Refusal, SEPARATOR};
use roomcast::proto::{json, ws};
use roomcast::session::Kind;
use roomcast::session::outbox::Taken;
use roomcast::shard::{
    Action, CLIENT_LEFT, Closing, Flow, Handshake, OVER_BUDGET, PROTOCOL_ERROR, Posted, Probed, SLOW_CONSUMER, Shard,
    UPGRADE_FAILED, UPGRADE_TIMEOUT,
};
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};

/// Slots from here on are connections of this network.
const FIRST_SLOT: u32 = 1 << 24;
const CLOSE_MS_MAX: u64 = 3_000;
const CLOSED_MS_MAX: u64 = 1_000;
/// What one send joins: few enough bytes that a busy session takes several.
const SEND_BYTES_MAX: u32 = 400;
/// The kernel takes only a part of what waits for a WebSocket, one time in this many.
const PARTIAL_ONE_IN: usize = 8;
/// Packets of a POST that are handled in one go.
const PACKETS_PER_TURN_MAX: usize = 3;

/// What a client writes.
#[derive(Debug)]
pub(super) enum Up {
    Open,
    Get(SocketId),
    /// The head of a POST; its body follows.
    Post {
        sid: SocketId,
        is_binary: bool,
    },
    Body(Vec<String>),
    /// Of a WebSocket.
    Handshake(SocketId),
    Text(String),
    CloseFrame,
}

/// What a server writes.
#[derive(Debug)]
pub(super) enum Down {
    Polled(String),
    Posted,
    Refused(Refusal),
    Switched,
    Frames(Vec<u8>),
}

/// A TCP connection.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    pub up: VecDeque<Up>,
    pub down: VecDeque<Down>,
    /// The client has closed it.
    pub up_ended: bool,
    /// The server has.
    pub down_ended: bool,
}

/// A core's end of one.
#[derive(Debug)]
struct Conn {
    core: usize,
    pipe: usize,
    role: Role,
    request: Option<Request>,
    /// Nothing is read from its WebSocket.
    paused: bool,
    /// The kernel takes nothing more.
    full: bool,
    timer: Option<Millis>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Http { waiting: Option<SlotRef> },
    Probe(SlotRef),
    WebSocket(SlotRef),
    Closing { session: SlotRef, peer_closed: bool },
    Dead,
}

#[derive(Debug)]
struct Request {
    wish: Wish,
    /// Present once all of it is here.
    body: Option<Vec<String>>,
}

#[derive(Debug)]
enum Wish {
    Open,
    Session { sid: SocketId, what: What },
    Posting { session: SlotRef },
    Packets { session: SlotRef, rest: VecDeque<String> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Poll,
    Post { is_binary: bool },
    TakeOver,
}

impl Request {
    fn is_whole(&self) -> bool {
        self.body.is_some()
    }

    fn is_ready(&self) -> bool {
        self.is_whole() || matches!(self.wish, Wish::Session { what: What::Post { .. }, .. })
    }
}

/// A connection on its way to the core of its session.
#[derive(Debug)]
struct HandOver {
    pipe: usize,
    request: Request,
}

pub(super) struct Net {
    pub pipes: Vec<Pipe>,
    pub lives: Lives,
    /// Acknowledgements that shards have just been told of.
    pub acks: Vec<(SocketId, String)>,
    /// What has just been sent to whom, and whether nothing waits any more.
    pub reads: Vec<(SocketId, usize, bool)>,
    conns: Vec<Conn>,
    /// Connections with a request to be served, by core.
    requests: Vec<VecDeque<SlotRef>>,
    /// By receiving core, then by sending core.
    handovers: Vec<Vec<VecDeque<HandOver>>>,
    random: Random,
    now: Millis,
}

fn at(index: usize) -> SlotRef {
    SlotRef { slot: FIRST_SLOT + index as u32, generation: 1 }
}

fn index(at: SlotRef) -> usize {
    (at.slot - FIRST_SLOT) as usize
}

impl Net {
    pub(super) fn new(cores: usize, random: Random, now: Millis) -> Net {
        Net {
            pipes: Vec::new(),
            lives: Lives::new(cores, now),
            acks: Vec::new(),
            reads: Vec::new(),
            conns: Vec::new(),
            requests: (0..cores).map(|_| VecDeque::new()).collect(),
            handovers: (0..cores).map(|_| (0..cores).map(|_| VecDeque::new()).collect()).collect(),
            random,
            now,
        }
    }

    /// A client connects to whichever core accepts it.
    pub(super) fn connect(&mut self) -> usize {
        let core = self.random.below(self.requests.len());
        let pipe = self.pipes.len();
        self.pipes.push(Pipe::default());
        self.add_conn(core, pipe, None);
        pipe
    }

    fn add_conn(&mut self, core: usize, pipe: usize, request: Option<Request>) -> SlotRef {
        let role = Role::Http { waiting: None };
        self.conns.push(Conn { core, pipe, role, request, paused: false, full: false, timer: None });
        at(self.conns.len() - 1)
    }

    /// Time moves on: connections whose close was not answered end.
    pub(super) fn fire_timers(&mut self, now: Millis, shards: &mut [Shard]) {
        self.now = now;
        for index in 0..self.conns.len() {
            if self.conns[index].timer.is_some_and(|due| due <= now) {
                self.finish(shards, at(index));
            }
        }
    }

    /// One thing that a core does in a turn before it sends, on a core and of a kind that the seed decides.
    pub(super) fn step(&mut self, shards: &mut [Shard]) {
        let core = self.random.below(shards.len());
        match self.random.below(6) {
            0 => {
                let from = self.random.below(shards.len());
                let _ = self.take_in(core, from);
            }
            1 | 2 => self.serve_next(shards, core),
            3 => self.writable(shards, core),
            _ => {
                let readable = |conn: &Conn| {
                    let pipe = &self.pipes[conn.pipe];
                    conn.role != Role::Dead && (!pipe.up.is_empty() || pipe.up_ended)
                };
                let readable: Vec<usize> =
                    (0..self.conns.len()).filter(|&index| readable(&self.conns[index])).collect();
                if !readable.is_empty() {
                    let conn = at(*self.random.pick(&readable));
                    self.read(shards, conn);
                }
            }
        }
    }

    /// Everything that can be done. False if that was nothing.
    pub(super) fn work(&mut self, shards: &mut [Shard]) -> bool {
        let mut worked = false;
        for index in 0..self.conns.len() {
            let pipe = &self.pipes[self.conns[index].pipe];
            let (conn, before) = (&self.conns[index], pipe.up.len());
            if conn.role != Role::Dead && (!pipe.up.is_empty() || pipe.up_ended) {
                let pipe = conn.pipe;
                self.read(shards, at(index));
                worked |= self.pipes[pipe].up.len() < before || self.conns[index].role == Role::Dead;
            }
        }
        for core in 0..shards.len() {
            for from in 0..shards.len() {
                worked |= self.take_in(core, from);
            }
            while !self.requests[core].is_empty() {
                self.serve_next(shards, core);
                worked = true;
            }
            self.writable(shards, core);
        }
        worked
    }

    /// Sends what waits on some core. To be called when all that shards want done is done.
    pub(super) fn flush_some(&mut self, shards: &mut [Shard]) {
        let core = self.random.below(shards.len());
        self.flush(shards, core);
    }

    /// The connection of a POST that is being handled breaks, as by a panic, if there is one.
    pub(super) fn break_post(&mut self, shards: &mut [Shard]) {
        let handled = |conn: &Conn| matches!(&conn.request, Some(Request { wish: Wish::Packets { .. }, .. }));
        let handled: Vec<usize> = (0..self.conns.len()).filter(|&index| handled(&self.conns[index])).collect();
        if !handled.is_empty() {
            let conn = at(*self.random.pick(&handled));
            self.finish(shards, conn);
        }
    }

    /// At rest every request is answered but polls of living sessions and POSTs of which the rest is still to come.
    pub(super) fn check_rest(&mut self) {
        for (index, conn) in self.conns.iter().enumerate() {
            let Role::Http { waiting } = conn.role else { continue };
            if let Some(session) = waiting {
                let life = self.lives.of(conn.core, session);
                assert_eq!((life.end, life.poll), (End::No, Some(at(index))), "a poll waits for nothing: {life:?}");
            }
            match &conn.request {
                None => {}
                Some(Request { wish: Wish::Posting { session }, body: None }) => {
                    let life = self.lives.of(conn.core, *session);
                    // The body of one for a session that lingered has its own time to come.
                    let goes_on = life.lingered || life.end == End::No && life.post == Some(at(index));
                    assert!(goes_on, "a POST comes in for nothing: {life:?}");
                }
                Some(request) => panic!("never answered: {request:?}"),
            }
        }
    }

    /// At the end nobody is served any more.
    pub(super) fn check_over(&self) {
        for conn in &self.conns {
            let idle = matches!(conn.role, Role::Dead | Role::Http { waiting: None });
            assert!(idle && conn.timer.is_none(), "{conn:?} is left");
        }
    }

    /// Does what a shard wants done for a polled session; returns what concerns others.
    pub(super) fn act(&mut self, shards: &mut [Shard], core: usize, action: Action) -> Option<Action> {
        let ours = |transport: SlotRef| transport.slot >= FIRST_SLOT;
        match action {
            Action::Close { transport, closing, .. } if ours(transport) => self.begin_close(shards, transport, closing),
            Action::Abort { transport, closing } if ours(transport) => {
                if let Role::WebSocket(session) | Role::Http { waiting: Some(session) } =
                    self.conns[index(transport)].role
                    && matches!(closing, SLOW_CONSUMER | OVER_BUDGET)
                {
                    self.lives.of(core, session).ends(closing.label);
                }
                self.finish(shards, transport);
            }
            Action::Resume { transport } if ours(transport) => {
                let conn = &mut self.conns[index(transport)];
                conn.paused = false;
                if matches!(conn.role, Role::Http { .. }) {
                    self.requests[core].push_back(transport);
                }
            }
            Action::EndPoll { transport } => self.respond_to_poll(transport, "6"),
            Action::EndPost { transport } => {
                self.lives.post_dropped(core, transport);
                if self.conns[index(transport)].request.take().is_some() {
                    self.answer(transport, Down::Refused(Refusal::UnknownSid));
                }
            }
            Action::Upgraded { transport } => self.upgraded(transport),
            Action::Ended { session } => {
                self.lives.ended(&shards[core], session);
                shards[core].closed(session);
            }
            others => return Some(others),
        }
        None
    }

    fn answer(&mut self, conn: SlotRef, response: Down) {
        let pipe = self.conns[index(conn)].pipe;
        self.pipes[pipe].down.push_back(response);
    }

    /// True while nothing is read from the connection.
    fn is_held(&self, at: SlotRef) -> bool {
        let conn = &self.conns[index(at)];
        match conn.role {
            Role::Http { .. } => conn.request.as_ref().is_some_and(Request::is_whole),
            Role::Probe(_) | Role::WebSocket(_) => conn.paused,
            Role::Closing { .. } => false,
            Role::Dead => true,
        }
    }

    /// What is in the way of a request of this session must not be over, had it been read.
    fn check_is_read(&mut self, core: usize, session: SlotRef) {
        let Life { poll, post, probe, socket, end, .. } = *self.lives.of(core, session);
        // A POST that comes in while its session is closed is being refused.
        let post = post.filter(|_| end == End::No);
        for other in poll.into_iter().chain(post).chain(probe.map(|probe| probe.conn)).chain(socket) {
            let pipe = &self.pipes[self.conns[index(other)].pipe];
            assert!(self.is_held(other) || pipe.up.is_empty() && !pipe.up_ended, "{other:?} should have been read");
        }
    }

    /// Reads what has come, as far as it can be handled.
    fn read(&mut self, shards: &mut [Shard], at: SlotRef) {
        loop {
            if self.is_held(at) {
                return;
            }
            let conn = &self.conns[index(at)];
            let (core, role, pipe) = (conn.core, conn.role, &mut self.pipes[conn.pipe]);
            let Some(said) = pipe.up.pop_front() else {
                if pipe.up_ended {
                    self.finish(shards, at);
                }
                return;
            };
            match (role, said) {
                (Role::Http { .. }, said) => self.request(at, said),
                (Role::Probe(session), Up::Text(text)) => self.probe_message(shards, at, session, &text),
                (Role::Probe(session), Up::CloseFrame) => self.end_probe(shards, at, session, CLIENT_LEFT),
                (Role::WebSocket(session), Up::Text(text)) => {
                    self.said(core, session, &text);
                    self.conns[index(at)].paused = shards[core].text(session, &text, self.now) == Flow::Wait;
                    let life = self.lives.of(core, session);
                    if shards[core].find(&life.sid, Kind::SocketIo).is_none() {
                        life.ends(PROTOCOL_ERROR.label);
                    }
                }
                (Role::WebSocket(session) | Role::Closing { session, .. }, Up::CloseFrame) => {
                    self.peer_closed(shards, at, session);
                }
                (Role::Closing { .. }, Up::Text(_)) => {}
                (role, said) => unreachable!("{said:?} to {role:?}"),
            }
        }
    }

    /// A request, or the body of one, has come.
    fn request(&mut self, at: SlotRef, said: Up) {
        let conn = &mut self.conns[index(at)];
        assert!(conn.role == Role::Http { waiting: None }, "clients wait for one answer before they ask again");
        let nothing = || Some(Vec::new());
        conn.request = match (said, conn.request.take()) {
            (Up::Open, None) => Some(Request { wish: Wish::Open, body: nothing() }),
            (Up::Get(sid), None) => Some(Request { wish: Wish::Session { sid, what: What::Poll }, body: nothing() }),
            (Up::Post { sid, is_binary }, None) => {
                Some(Request { wish: Wish::Session { sid, what: What::Post { is_binary } }, body: None })
            }
            (Up::Handshake(sid), None) => {
                Some(Request { wish: Wish::Session { sid, what: What::TakeOver }, body: nothing() })
            }
            (Up::Body(packets), Some(request)) => Some(Request { body: Some(packets), ..request }),
            // The request was refused before its body was here: in truth the connection has ended.
            (Up::Body(_) | Up::Text(_) | Up::CloseFrame, None) => None,
            (said, request) => unreachable!("{said:?} behind {request:?}"),
        };
        if conn.request.as_ref().is_some_and(Request::is_ready) || conn.request.as_ref().is_some_and(Request::is_whole)
        {
            self.requests[conn.core].push_back(at);
        }
    }

    /// Serves the next request, if there is one.
    fn serve_next(&mut self, shards: &mut [Shard], core: usize) {
        if let Some(at) = self.requests[core].pop_front() {
            self.serve(shards, at);
        }
    }

    fn serve(&mut self, shards: &mut [Shard], at: SlotRef) {
        let conn = &mut self.conns[index(at)];
        let core = conn.core;
        if !matches!(conn.role, Role::Http { .. }) {
            return;
        }
        let Some(request) = conn.request.take_if(|request| request.is_ready()) else { return };
        let Request { wish, body } = request;
        match wish {
            Wish::Open => self.open(&mut shards[core], at),
            Wish::Session { sid, what } => match sid.core(shards.len()) {
                Some(home) if home.index() != core => {
                    let (pipe, request) = (conn.pipe, Request { wish: Wish::Session { sid, what }, body });
                    conn.role = Role::Dead;
                    self.handovers[home.index()][core].push_back(HandOver { pipe, request });
                }
                Some(_) => self.serve_session(shards, at, &sid, what, body),
                None => unreachable!("clients name sessions that there were"),
            },
            Wish::Posting { session } => {
                if shards[core].begin_packets(session, at) {
                    self.packets(shards, at, session, body.unwrap_or_default().into());
                } else {
                    self.lives.ended(&shards[core], session);
                    self.answer(at, Down::Refused(Refusal::UnknownSid));
                }
            }
            Wish::Packets { session, rest } => self.packets(shards, at, session, rest),
        }
    }

    fn take_in(&mut self, core: usize, from: usize) -> bool {
        let Some(HandOver { pipe, request }) = self.handovers[core][from].pop_front() else { return false };
        let at = self.add_conn(core, pipe, Some(request));
        self.requests[core].push_back(at);
        true
    }

    fn open(&mut self, shard: &mut Shard, at: SlotRef) {
        let core = shard.core().index();
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let handshake =
            Handshake { kind: Kind::SocketIo, polls: true, query: "", bearer: None, ip, message_bytes_max: 10_000 };
        let session = shard.open(at, handshake, self.now);
        let mut said = Vec::new();
        shard.outboxes.waiting(session.slot).for_each(|(_, frame)| engineio::append_polled(&mut said, 0, frame));
        let said = String::from_utf8(said).unwrap();
        let sid = json::unescape(json::get(&said[1..], "sid").unwrap()).unwrap();
        self.lives.begin(core, session, SocketId::parse(&sid).unwrap(), at);
        self.conns[index(at)].role = Role::Http { waiting: Some(session) };
    }

    fn serve_session(
        &mut self,
        shards: &mut [Shard],
        at: SlotRef,
        sid: &SocketId,
        what: What,
        body: Option<Vec<String>>,
    ) {
        let core = self.conns[index(at)].core;
        if let Some(session) = shards[core].find(sid, Kind::SocketIo) {
            for carrier in shards[core].carriers(session) {
                if carrier != at {
                    self.read(shards, carrier);
                }
            }
        }
        let Some(session) = shards[core].find(sid, Kind::SocketIo) else {
            assert_ne!(self.lives.by_sid(sid).end, End::No, "a session that lives is not found");
            return self.answer(at, Down::Refused(Refusal::UnknownSid));
        };
        self.check_is_read(core, session);
        match what {
            What::Poll => {
                let expected = self.lives.polled(core, session, at);
                let result = shards[core].poll(session, at, self.now);
                assert_eq!(result.is_ok(), expected, "{:?}", self.lives.of(core, session));
                match result {
                    Ok(()) => self.conns[index(at)].role = Role::Http { waiting: Some(session) },
                    Err(refusal) => self.answer(at, Down::Refused(refusal)),
                }
            }
            What::Post { is_binary } => {
                let expected = self.lives.post_begins(core, session, at);
                let result = shards[core].begin_post(session, at);
                let life = self.lives.of(core, session);
                // The POST that came in while its session was closed is being refused.
                assert!(result.is_ok() == expected || matches!(life.end, End::Lingers(_)), "{life:?}");
                if result.is_ok() {
                    life.post = Some(at);
                }
                match result {
                    Ok(()) if is_binary => {
                        shards[core].refuse_post(session, at, "octet_stream");
                        let upgraded = self.lives.post_ends(core, session, at);
                        self.lives.of(core, session).ends("octet stream");
                        assert!(!upgraded || !self.lives.of(core, session).polls);
                        self.answer(at, Down::Refused(Refusal::BadRequest));
                    }
                    Ok(()) => {
                        let is_whole = body.is_some();
                        self.conns[index(at)].request = Some(Request { wish: Wish::Posting { session }, body });
                        if is_whole {
                            self.serve(shards, at);
                        }
                    }
                    Err(refusal) => self.answer(at, Down::Refused(refusal)),
                }
            }
            What::TakeOver => {
                self.answer(at, Down::Switched);
                let expected = self.lives.probe_begins(core, session, at);
                let accepted = shards[core].begin_probe(session, at, self.now);
                assert_eq!(accepted, expected, "{:?}", self.lives.of(core, session));
                if accepted {
                    self.conns[index(at)].role = Role::Probe(session);
                } else {
                    self.close_with(at, &ws::close_frame(1000, ""));
                }
            }
        }
    }

    fn packets(&mut self, shards: &mut [Shard], at: SlotRef, session: SlotRef, mut rest: VecDeque<String>) {
        let core = self.conns[index(at)].core;
        let mut posted = if shards[core].is_busy(session) { Posted::Wait } else { Posted::Ready };
        for _ in 0..1 + self.random.below(PACKETS_PER_TURN_MAX) {
            if posted != Posted::Ready {
                break;
            }
            let Some(packet) = rest.pop_front() else { break };
            self.said(core, session, &packet);
            posted = shards[core].post_packet(session, &packet, self.now);
        }
        match posted {
            Posted::Broken => {
                self.lives.of(core, session).ends(PROTOCOL_ERROR.label);
                self.end_post(shards, at, session);
                self.answer(at, Down::Refused(Refusal::BadRequest));
            }
            Posted::Ready if rest.is_empty() => {
                self.end_post(shards, at, session);
                self.answer(at, Down::Posted);
            }
            posted => {
                let wish = Wish::Packets { session, rest };
                self.conns[index(at)].request = Some(Request { wish, body: Some(Vec::new()) });
                if posted == Posted::Ready {
                    self.requests[core].push_back(at);
                }
            }
        }
    }

    /// The shard is about to hear something that a client says.
    fn said(&mut self, core: usize, session: SlotRef, text: &str) {
        self.lives.said(core, session, text);
        let life = self.lives.of(core, session);
        if text.starts_with("43") && life.end == End::No {
            self.acks.push((life.sid, text.to_owned()));
        }
    }

    fn end_post(&mut self, shards: &mut [Shard], at: SlotRef, session: SlotRef) {
        let core = self.conns[index(at)].core;
        shards[core].end_post(session, at);
        self.lives.post_ends(core, session, at);
    }

    fn probe_message(&mut self, shards: &mut [Shard], at: SlotRef, session: SlotRef, text: &str) {
        let core = self.conns[index(at)].core;
        let life = self.lives.of(core, session);
        let carries = life.probe.is_some_and(|probe| probe.conn == at);
        let posts = life.post.is_some();
        let expected = match text {
            "2probe" if carries => Probed::Pong,
            "5" if carries && posts => Probed::Wait,
            "5" if carries => Probed::Upgraded,
            _ => Probed::Failed,
        };
        let probed = shards[core].probe_text(session, at, text, self.now);
        assert_eq!(probed, expected, "{text} to {:?}", self.lives.of(core, session));
        match probed {
            Probed::Pong => {
                self.lives.probed(core, session);
                let mut pong = Vec::new();
                engineio::pong(&mut pong, "probe");
                self.answer(at, Down::Frames(pong));
            }
            Probed::Upgraded => {
                self.lives.of(core, session).upgraded();
                self.upgraded(at);
            }
            Probed::Wait => {
                if let Some(probe) = &mut self.lives.of(core, session).probe {
                    probe.upgrades = true;
                }
                self.conns[index(at)].paused = true;
            }
            Probed::Failed => self.end_probe(shards, at, session, UPGRADE_FAILED),
        }
    }

    fn upgraded(&mut self, at: SlotRef) {
        let conn = &mut self.conns[index(at)];
        if let Role::Probe(session) = conn.role {
            conn.role = Role::WebSocket(session);
            conn.paused = false;
            assert!(!self.lives.of(conn.core, session).polls);
        }
    }

    fn end_probe(&mut self, shards: &mut [Shard], at: SlotRef, session: SlotRef, closing: Closing) {
        let core = self.conns[index(at)].core;
        shards[core].probe_ended(session, at);
        self.lives.probe_ends(core, session, at);
        self.close_with(at, &ws::close_frame(closing.code, closing.label));
    }

    /// Writes a last frame and ends the connection.
    fn close_with(&mut self, at: SlotRef, frame: &[u8]) {
        self.answer(at, Down::Frames(frame.to_vec()));
        let conn = &mut self.conns[index(at)];
        conn.role = Role::Dead;
        self.pipes[conn.pipe].down_ended = true;
    }

    fn begin_close(&mut self, shards: &mut [Shard], at: SlotRef, closing: Closing) {
        let conn = &mut self.conns[index(at)];
        let core = conn.core;
        match conn.role {
            Role::WebSocket(session) => {
                let peer_closed = matches!(closing.code, 1002 | 1003 | 1007 | 1009);
                conn.role = Role::Closing { session, peer_closed };
                let frame = Frame::new(&ws::close_frame(closing.code, closing.label));
                let _ = shards[core].outboxes.push(session.slot, frame);
                self.conns[index(at)].timer = Some(self.now.after(CLOSE_MS_MAX));
            }
            Role::Probe(session) => {
                if closing == UPGRADE_TIMEOUT {
                    self.lives.gives_up(at);
                }
                self.end_probe(shards, at, session, closing);
            }
            Role::Http { .. } | Role::Closing { .. } | Role::Dead => {}
        }
    }

    fn peer_closed(&mut self, shards: &mut [Shard], at: SlotRef, session: SlotRef) {
        let core = self.conns[index(at)].core;
        if matches!(self.conns[index(at)].role, Role::WebSocket(_)) {
            self.lives.of(core, session).ends(CLIENT_LEFT.label);
            shards[core].closed_by_peer(session);
            let _ = shards[core].outboxes.push(session.slot, Frame::new(&ws::close_frame(1000, "")));
        }
        self.conns[index(at)].role = Role::Closing { session, peer_closed: true };
        self.conns[index(at)].timer = Some(self.now.after(CLOSED_MS_MAX));
        if shards[core].outboxes.is_empty(session.slot) {
            self.finish(shards, at);
        }
    }

    /// Ends a connection.
    fn finish(&mut self, shards: &mut [Shard], at: SlotRef) {
        let conn = &mut self.conns[index(at)];
        let (core, request) = (conn.core, conn.request.take());
        conn.timer = None;
        match std::mem::replace(&mut conn.role, Role::Dead) {
            Role::Dead => return,
            Role::WebSocket(session) | Role::Closing { session, .. } => {
                shards[core].closed(session);
                self.lives.of(core, session).ends("transport close");
            }
            Role::Http { waiting } => {
                if let Some(session) = waiting {
                    shards[core].poll_aborted(session, at);
                    self.lives.aborted(core, session, at);
                }
                if let Some(Request { wish: Wish::Posting { session } | Wish::Packets { session, .. }, .. }) = request {
                    shards[core].post_aborted(session, at);
                    self.lives.aborted(core, session, at);
                }
            }
            Role::Probe(session) => {
                shards[core].probe_ended(session, at);
                self.lives.probe_ends(core, session, at);
            }
        }
        let pipe = self.conns[index(at)].pipe;
        self.pipes[pipe].down_ended = true;
    }

    /// Kernels take bytes again.
    fn writable(&mut self, shards: &mut [Shard], core: usize) {
        for conn in self.conns.iter_mut().filter(|conn| conn.core == core && conn.full) {
            conn.full = false;
            if let Role::WebSocket(session) | Role::Closing { session, .. } = conn.role {
                shards[core].outboxes.unblock(session.slot);
            }
        }
    }

    /// Sends what waits, likewise. False if that was nothing.
    pub(super) fn flush(&mut self, shards: &mut [Shard], core: usize) -> bool {
        let mut sent = false;
        while let Some((slot, transport)) = shards[core].outboxes.next_dirty() {
            if transport < FIRST_SLOT {
                continue;
            }
            sent = true;
            let at = at((transport - FIRST_SLOT) as usize);
            match self.conns[index(at)].role {
                Role::Http { waiting: Some(session) } if session.slot == slot => {
                    self.answer_poll(&mut shards[core], at, session);
                }
                Role::WebSocket(session) | Role::Closing { session, .. } if session.slot == slot => {
                    self.send(shards, at, session);
                }
                role => panic!("what waits for a session would go to {role:?}"),
            }
        }
        sent
    }

    fn answer_poll(&mut self, shard: &mut Shard, at: SlotRef, session: SlotRef) {
        let (mut body, mut bytes) = (Vec::new(), 0);
        for (_, frame) in shard.outboxes.waiting(session.slot) {
            engineio::append_polled(&mut body, 0, frame);
            bytes += frame.len();
        }
        shard.outboxes.advance(session.slot, bytes);
        self.reads.push((self.lives.of(shard.core().index(), session).sid, bytes, true));
        shard.poll_answered(session);
        self.lives.answered(shard.core().index(), session);
        self.respond_to_poll(at, std::str::from_utf8(&body).unwrap());
    }

    fn respond_to_poll(&mut self, at: SlotRef, body: &str) {
        let conn = &mut self.conns[index(at)];
        if let Role::Http { waiting: Some(_) } = conn.role {
            conn.role = Role::Http { waiting: None };
            self.answer(at, Down::Polled(body.to_owned()));
        }
    }

    fn send(&mut self, shards: &mut [Shard], at: SlotRef, session: SlotRef) {
        let outboxes = &mut shards[self.conns[index(at)].core].outboxes;
        let mut frames = Vec::new();
        // As the flush does: what lags stays where it is until it is sent.
        let taken = outboxes.take(session.slot, SEND_BYTES_MAX, &mut frames);
        let mut bytes: Vec<u8> = match taken {
            Some(Taken { skip, .. }) => {
                let bytes = frames.iter().flat_map(|&frame| outboxes.frame(frame).to_vec());
                bytes.skip(skip as usize).collect()
            }
            None => outboxes.waiting(session.slot).flat_map(|(_, bytes)| bytes.to_vec()).collect(),
        };
        if self.random.chance(PARTIAL_ONE_IN) {
            bytes.truncate(self.random.below(bytes.len()));
            outboxes.block(session.slot);
            self.conns[index(at)].full = true;
        }
        match taken {
            Some(taken) => outboxes.settle(session.slot, taken, &frames, bytes.len()),
            None => outboxes.advance(session.slot, bytes.len()),
        };
        let waits = !outboxes.is_empty(session.slot);
        let sid = self.lives.of(self.conns[index(at)].core, session).sid;
        self.reads.push((sid, bytes.len(), !waits));
        self.answer(at, Down::Frames(bytes));
        if !waits && matches!(self.conns[index(at)].role, Role::Closing { peer_closed: true, .. }) {
            self.finish(shards, at);
        }
    }
}

/// The packets of a polling response.
pub(super) fn split(body: &str) -> impl Iterator<Item = &str> {
    body.split(char::from(SEPARATOR))
}
