//! The HTTP driver: a client's requests become polls, POSTs and openings of its session, or a WebSocket; what waits for
//! the session becomes responses. Knows HTTP, not what packets mean.
//!
//! One connection serves one request after the other. While a poll waits, requests behind it on the same connection are
//! served, as long as they can be answered at once; their responses wait behind the poll's.

use super::admit::Denied;
use super::conn::{Conn, Role};
use super::core::Core;
use super::{Endpoint, conn, sys};
use crate::base::counters::{self, limits};
use crate::base::ids::{CoreId, SlotRef, SocketId};
use crate::proto::engineio::{self, Refusal};
use crate::proto::http::{self, Body, BodyError, BodyLength, BodyStep, Connection, Head, HeadStep, Response};
use crate::proto::ws;
use crate::session::admission::Place;
use crate::session::identity::Bearer;
use crate::shard::{Handshake, Posted};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::string::FromUtf8Error;
use std::time::SystemTime;

/// Packets of one POST that are handled before others are heard: with 10 µs for rules, a fair share of a turn.
const PACKETS_PER_TURN: usize = 16;
/// Beyond this, responses that were not read hold up further requests of the connection.
const RESPONSE_BYTES_MAX: usize = 64 << 10;
/// When to come again after there was no room for a request. It gets free when those that hold it go on, or go.
const RETRY_S: &str = "5";
/// A deadline waits so long for bytes that are here to be read.
const READ_FIRST_MS: u64 = 1_000;
pub(super) const TEXT: &str = "text/plain; charset=utf-8";
/// What the reference server calls its payloads: browsers must not offer them for download.
const PAYLOAD: &str = "text/plain; charset=UTF-8";
const JSON: &str = "application/json";
const HTML: &str = "text/html";
pub(super) const NO_STORE: (&str, &str) = ("Cache-Control", "no-store");

/// A connection that speaks HTTP.
#[derive(Debug, Default)]
pub(super) struct Http {
    /// Responses on their way; the kernel has not taken them yet.
    out: Vec<u8>,
    /// The poll that waits here.
    waiting: Option<Waiting>,
    /// Responses to requests that came behind the waiting poll.
    behind: Vec<u8>,
    /// The request that is being received or served.
    request: Option<Box<Request>>,
    /// What the connection's timer is for.
    phase: Phase,
    /// True once a request's head, or what was to be one, has come.
    pub(super) heard: bool,
    /// True once a request was answered.
    served: bool,
    /// True once the last response is written: what comes then is nobody's.
    ends: bool,
    /// True while the kernel notes when its bytes come in.
    pub(super) stamped: bool,
    /// When the last bytes came in, if the kernel noted it: nanoseconds of `CLOCK_REALTIME`.
    pub(super) arrived: Option<u64>,
    /// When the request was read, on the cores' clock, and when it came in, or else was read, on `CLOCK_REALTIME`.
    /// Nanoseconds both; zero once it has waited for those that came before it.
    read: u64,
    came: u64,
}

/// What a connection waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// The end of a request's head.
    #[default]
    Head,
    /// The end of a request's body.
    Body,
    /// The client is not waited for.
    Serving,
    /// A request.
    Idle,
}

#[derive(Debug)]
struct Waiting {
    session: SlotRef,
    manner: Manner,
}

/// How a response is given, whatever it says.
#[derive(Debug)]
pub(super) struct Manner {
    /// Header lines that let pages of other origins read it.
    pub(super) cors: Box<str>,
    pub(super) connection: Connection,
    pub(super) head_only: bool,
    /// The client wants a WebSocket.
    is_upgrade: bool,
}

#[derive(Debug)]
struct Request {
    wish: Wish,
    manner: Manner,
    body: Body,
    /// True while the client waits for our word before it sends the body.
    expects_continue: bool,
}

impl Request {
    /// True if it can be served: it is whole, or a POST, which its session is to know of from its beginning.
    fn is_ready(&self) -> bool {
        self.body.is_complete() || matches!(self.wish, Wish::Session { what: What::Post { .. }, .. })
    }
}

/// What a request wants.
#[derive(Debug)]
enum Wish {
    /// To know which origins may ask: header lines.
    Preflight(Box<str>),
    /// What it cannot have.
    Refused(Refusal),
    /// A session of its own.
    Open(Box<Opening>),
    /// Something of a session.
    Session { endpoint: usize, sid: SocketId, what: What },
    /// To go on with a POST that its session knows of.
    Posting { session: SlotRef },
    /// The rest of a POST: packets from byte `from` on.
    Packets { session: SlotRef, body: String, from: usize },
}

#[derive(Debug)]
struct Opening {
    endpoint: usize,
    /// Without tokens.
    query: Box<str>,
    bearer: Option<Bearer>,
    ip: IpAddr,
    /// Present if a WebSocket carries the session from the start.
    upgrade: Option<http::Upgrade>,
}

#[derive(Debug)]
enum What {
    Poll,
    Post {
        is_binary: bool,
    },
    TakeOver(http::Upgrade),
    /// Another method, or another transport than the session's.
    Nothing,
}

/// A connection on its way to another core.
#[derive(Debug)]
pub enum HandOver {
    /// A client's, to the core of its session.
    Client(HandedOver),
    /// A publisher's of this host, to the core whose turn it is.
    Neighbour(TcpStream),
}

/// A client's connection with what was read from it.
#[derive(Debug)]
pub struct HandedOver {
    stream: TcpStream,
    http: Box<Http>,
    rest: Option<Box<conn::Inbox>>,
    place: Option<Box<Place>>,
}

impl Wish {
    /// True if the connection must be free for it: of a poll that waits, and of its response.
    fn wants_connection(&self) -> bool {
        matches!(self, Wish::Open(_) | Wish::Session { what: What::TakeOver(_), .. })
    }
}

impl Manner {
    /// As given to a request that is refused: if not all of it is here, the connection ends, as what follows is no
    /// request.
    fn of_refusal(self, body: &Body) -> Manner {
        if body.is_complete() { self } else { Manner { connection: Connection::Close, ..self } }
    }
}

impl Http {
    /// The session whose poll waits here.
    pub(super) fn waits_for(&self) -> Option<SlotRef> {
        self.waiting.as_ref().map(|waiting| waiting.session)
    }

    /// The session of which a POST is being handled here.
    pub(super) fn posts_to(&self) -> Option<SlotRef> {
        match self.request.as_ref().map(|request| &request.wish) {
            Some(Wish::Posting { session } | Wish::Packets { session, .. }) => Some(*session),
            _ => None,
        }
    }

    /// Memory of the request that is being received or served.
    pub(super) fn held_bytes(&self) -> usize {
        self.request.as_ref().map_or(0, |request| match &request.wish {
            Wish::Packets { body, .. } => body.capacity(),
            _ => request.body.held_bytes(),
        })
    }

    /// True while a whole request is not answered: no more is read.
    pub(super) fn is_serving(&self) -> bool {
        self.request.as_ref().is_some_and(|request| request.body.is_complete())
    }

    /// True while the client has to read responses before it is heard again.
    pub(super) fn is_stuffed(&self) -> bool {
        self.out.len() + self.behind.len() > RESPONSE_BYTES_MAX
    }

    /// True if what comes in is no request: the last response is written, or the poll that waits gets it (RFC 9112,
    /// section 9.6).
    fn hears_nothing(&self) -> bool {
        let closes = |waiting: &Waiting| waiting.manner.connection == Connection::Close;
        self.ends || self.waiting.as_ref().is_some_and(closes)
    }

    /// True if no request is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_none() && !self.is_serving()
    }

    /// True once a request was answered here: the next one may be for a session that polls.
    pub(super) fn was_served(&self) -> bool {
        self.served
    }

    /// The reason to count if the connection ends now.
    pub(super) fn end_label(&self) -> &'static str {
        if self.served || self.waiting.is_some() { "" } else { "left before handshake" }
    }
}

impl Core {
    /// Handles as much of `buffer` as can be; returns how many bytes that was.
    pub(super) fn http_buffer(&mut self, at: SlotRef, buffer: &[u8]) -> usize {
        let mut handled = 0;
        loop {
            let Role::Http(http) = &mut self.conns[at.slot].role else { return buffer.len() };
            if http.hears_nothing() {
                return buffer.len();
            }
            match &mut http.request {
                Some(request) if request.body.is_complete() => return handled,
                Some(request) => match request.body.read(&buffer[handled..]) {
                    Ok(BodyStep::Complete { bytes }) => {
                        handled += bytes;
                        self.whole(at);
                    }
                    Ok(BodyStep::Incomplete) => return buffer.len(),
                    Err(error) => {
                        let cors = std::mem::take(&mut request.manner.cors);
                        let session = http.posts_to();
                        http.request = None;
                        if let Some(session) = session {
                            self.shard.end_post(session, at);
                        }
                        self.refuse_body(at, &error, &cors);
                        return buffer.len();
                    }
                },
                None => {
                    let mut headers = [httparse::EMPTY_HEADER; http::HEADERS_MAX];
                    match http::parse_head(&buffer[handled..], &mut headers, self.options.http_head_bytes_max) {
                        Ok(HeadStep::Incomplete) => {
                            if handled < buffer.len() {
                                self.enter(at, Phase::Head);
                            }
                            return handled;
                        }
                        Ok(HeadStep::Complete { bytes, head }) => {
                            handled += bytes;
                            self.hear(at);
                            if !self.request(at, &head) {
                                return buffer.len();
                            }
                        }
                        Err(error) => {
                            self.hear(at);
                            self.refuse_head(at, &error);
                            return buffer.len();
                        }
                    }
                }
            }
        }
    }

    /// A request's head has come, good or bad.
    fn hear(&mut self, at: SlotRef) {
        self.shard.counters.requests += 1;
        let Role::Http(http) = &mut self.conns[at.slot].role else { unreachable!("it speaks HTTP") };
        self.unheard -= usize::from(!std::mem::replace(&mut http.heard, true));
    }

    /// A request's head is here. False if nothing that follows it can be understood.
    fn request(&mut self, at: SlotRef, head: &Head<'_, '_>) -> bool {
        let Some(endpoint) = self.options.endpoints.iter().position(|endpoint| endpoint.serves(head.path)) else {
            let response = not_found(head, &self.options.endpoints);
            self.shard.counters.count(counters::HTTP_REFUSED, "unknown_path");
            let response = Response::new(404, TEXT, response.as_bytes());
            let head_only = head.method == "HEAD";
            self.answer(at, &Response { head_only, connection: Connection::Close, ..response });
            return false;
        };
        let is_upgrade = head.has_token("upgrade", "websocket") && head.has_token("connection", "upgrade");
        let manner = Manner {
            cors: self.options.cors.response_headers(head.header("origin")).into(),
            connection: if is_upgrade { Connection::Close } else { head.connection() },
            head_only: head.method == "HEAD",
            is_upgrade,
        };
        let wish = match self.wish(at, endpoint, head, is_upgrade) {
            Ok(wish) => wish,
            Err(error) => {
                self.refuse_head(at, &error);
                return false;
            }
        };
        let length = http::body_length(head).and_then(|length| Ok((length, http::expects_continue(head)?)));
        let (length, expects_continue) = match length {
            Ok(length) => length,
            Err(error) => {
                self.refuse_head(at, &error);
                return false;
            }
        };
        let body = match Body::new(length, self.options.endpoints[endpoint].message_bytes_max) {
            Ok(body) => body,
            Err(error) => {
                self.refuse_body(at, &error, &manner.cors);
                return false;
            }
        };
        let Role::Http(http) = &mut self.conns[at.slot].role else { unreachable!("it speaks HTTP") };
        let request = Request { wish, manner, body, expects_continue };
        let (is_whole, is_ready) = (request.body.is_complete(), request.is_ready());
        let is_of_session = matches!(request.wish, Wish::Session { .. });
        http.request = Some(Box::new(request));
        if is_of_session {
            self.note_coming(at);
        }
        if is_whole {
            self.whole(at);
        } else {
            self.enter(at, Phase::Body);
            if is_ready {
                self.requests.push_back(at);
            } else {
                self.write_interim(at);
            }
        }
        true
    }

    /// What the request wants, by the checks of the reference server in their order (Engine.IO protocol 4, "HTTP query
    /// parameters").
    fn wish(
        &self,
        at: SlotRef,
        endpoint: usize,
        head: &Head<'_, '_>,
        is_upgrade: bool,
    ) -> Result<Wish, http::HeadError> {
        let opening = |upgrade| {
            let unknown = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
            let peer = self.conns[at.slot].stream.peer_addr().map_or(unknown, |address| address.ip());
            let ip = self.options.trusted_proxies.client_ip(peer, head);
            let (query, bearer) = self.bearer(head);
            Wish::Open(Box::new(Opening { endpoint, query, bearer, ip, upgrade }))
        };
        if !self.options.endpoints[endpoint].kind.is_engine_io() {
            return self.upgrade(head).map(|upgrade| opening(Some(upgrade)));
        }
        if head.method == "OPTIONS" && !is_upgrade && self.options.cors.is_enabled() {
            let requested = head.header("access-control-request-headers");
            return Ok(Wish::Preflight(self.options.cors.preflight_headers(head.header("origin"), requested).into()));
        }
        let parameter = |name: &str| http::query_pairs(head.query).find(|(n, _)| n == name).map(|(_, value)| value);
        let transport = parameter("transport");
        let over_websocket = match transport.as_deref() {
            Some("polling") => false,
            Some("websocket") => true,
            _ => return Ok(Wish::Refused(Refusal::UnknownTransport)),
        };
        if let Some(sid) = parameter("sid").filter(|sid| !sid.is_empty()) {
            let Some(sid) = SocketId::parse(&sid) else { return Ok(Wish::Refused(Refusal::UnknownSid)) };
            let what = match (head.method, over_websocket, is_upgrade) {
                _ if parameter("EIO").as_deref() != Some("4") => What::Nothing,
                (_, true, true) => What::TakeOver(self.upgrade(head)?),
                ("GET", false, false) => What::Poll,
                ("POST", false, false) => {
                    What::Post { is_binary: head.header("content-type") == Some(b"application/octet-stream") }
                }
                _ => What::Nothing,
            };
            return Ok(Wish::Session { endpoint, sid, what });
        }
        Ok(if head.method != "GET" {
            Wish::Refused(Refusal::BadHandshakeMethod)
        } else if over_websocket != is_upgrade {
            Wish::Refused(Refusal::BadRequest)
        } else if parameter("EIO").as_deref() != Some("4") {
            Wish::Refused(Refusal::UnsupportedProtocolVersion)
        } else if is_upgrade {
            opening(Some(self.upgrade(head)?))
        } else {
            opening(None)
        })
    }

    /// The client's wish to speak WebSocket, if it may have one.
    fn upgrade(&self, head: &Head<'_, '_>) -> Result<http::Upgrade, http::HeadError> {
        let upgrade = http::websocket_upgrade(head)?;
        let is_allowed = self.options.cors.allows_websocket(head.values("origin"), head.header("host"));
        if is_allowed { Ok(upgrade) } else { Err(http::HeadError::Origin) }
    }

    /// The query of a handshake without its tokens, and the token that the request has.
    fn bearer(&self, head: &Head<'_, '_>) -> (Box<str>, Option<Bearer>) {
        let Some(identity) = self.shard.identity() else { return (head.query.into(), None) };
        let cookies_count = self.options.cors.lets_cookies_count(head.values("origin"), head.header("host"));
        (identity.without_tokens(head.query).into(), identity.of_request(head, cookies_count))
    }

    /// A request is whole: it is served when the reads of this turn are done.
    fn whole(&mut self, at: SlotRef) {
        self.enter(at, Phase::Serving);
        self.requests.push_back(at);
    }

    /// Notes when a request that names a session came.
    fn note_coming(&mut self, at: SlotRef) {
        let read = self.clock_ns();
        let Role::Http(http) = &mut self.conns[at.slot].role else { unreachable!("it speaks HTTP") };
        http.read = read;
        http.came = http.arrived.unwrap_or_else(sys::realtime_ns);
    }

    /// Serves whole requests.
    pub(super) fn serve_some(&mut self) -> bool {
        let served = self.serve_waiting();
        served | self.serve_parked()
    }

    /// Serves the whole requests that are there at this moment.
    fn serve_waiting(&mut self) -> bool {
        let count = self.requests.len();
        for _ in 0..count {
            let Some(at) = self.requests.pop_front() else { break };
            self.guarded(at, |core| core.serve(at));
        }
        count > 0
    }

    /// Serves the requests that have waited for those before them.
    fn serve_parked(&mut self) -> bool {
        if self.parking.is_empty() {
            return false;
        }
        let now = self.clock_ns();
        let (shared, counters) = (&self.shared, &mut self.shard.counters);
        let wake = |core| counters.wakes += u64::from(shared.bells.ring(core));
        let settled = shared.horizons.settled(self.shard.port.core(), now, wake).min(self.settled);
        // What had come by then is in the rings, and parks beside the others.
        self.take_in();
        self.serve_waiting();
        let mut ready = Vec::new();
        let unsettled = self.parking.leave(settled, now, &mut ready);
        self.shard.counters.requests_unsettled += unsettled as u64;
        for &at in &ready {
            if let Some(Conn { role: Role::Http(http), .. }) = self.conns.get_mut(at) {
                http.read = 0;
            }
            self.guarded(at, |core| core.serve(at));
        }
        !ready.is_empty()
    }

    /// True if the request on `at` has to wait for those that came before it elsewhere; it is parked then.
    fn parks(&mut self, at: SlotRef, wish: &Wish) -> bool {
        let Role::Http(http) = &self.conns[at.slot].role else { unreachable!("it speaks HTTP") };
        if http.read == 0 || !matches!(wish, Wish::Session { .. }) {
            return false;
        }
        self.parking.park(at, http.came, http.read);
        true
    }

    fn serve(&mut self, at: SlotRef) {
        let Some(Conn { role: Role::Http(http), .. }) = self.conns.get_mut(at) else { return };
        let Some(request) = http.request.take_if(|request| request.is_ready()) else { return };
        let is_free = http.waiting.is_none();
        if let Wish::Session { sid, .. } = &request.wish
            && let Some(home) = sid.core(self.shard.topology().cores())
            && home != self.shard.core()
        {
            return if is_free { self.hand_over(at, *request, home) } else { self.put_off(at, *request) };
        }
        // What is not answered at once keeps its place behind the poll that waits.
        if !is_free && request.wish.wants_connection() || self.parks(at, &request.wish) {
            return self.put_off(at, *request);
        }
        let Request { wish, manner, body, expects_continue } = *request;
        match wish {
            Wish::Preflight(lines) => {
                let response = Response { raw_headers: &lines, ..Response::new(204, TEXT, b"") };
                self.answer(at, &Response { connection: manner.connection, ..response });
            }
            Wish::Refused(refusal) => self.refuse(at, refusal, &manner),
            Wish::Open(opening) => self.open(at, *opening, manner),
            Wish::Session { endpoint, sid, what } => {
                self.serve_session(at, endpoint, &sid, what, (manner, body, expects_continue));
            }
            Wish::Posting { session } => {
                if self.shard.begin_packets(session, at) {
                    // As the reference server does: what is no UTF-8 becomes U+FFFD.
                    let lossy = |error: FromUtf8Error| String::from_utf8_lossy(error.as_bytes()).into_owned();
                    let body = String::from_utf8(body.into_bytes()).unwrap_or_else(lossy);
                    self.packets(at, session, body, 0, manner);
                } else {
                    self.refuse(at, Refusal::UnknownSid, &manner);
                }
            }
            Wish::Packets { session, body: packets, from } => self.packets(at, session, packets, from, manner),
        }
        self.go_on(at);
        self.weigh(at);
    }

    fn serve_session(
        &mut self,
        at: SlotRef,
        endpoint: usize,
        sid: &SocketId,
        what: What,
        (manner, body, expects_continue): (Manner, Body, bool),
    ) {
        let kind = self.options.endpoints[endpoint].kind;
        // What has come in on the session's other connections came before this request: an upgrade, or the end of a
        // poll.
        if let Some(session) = self.shard.find(sid, kind) {
            for carrier in self.shard.carriers(session) {
                if carrier != at && self.conns.get(carrier).is_some() {
                    self.read(carrier);
                }
            }
        }
        let Some(session) = self.shard.find(sid, kind) else {
            return self.refuse(at, Refusal::UnknownSid, &manner.of_refusal(&body));
        };
        match what {
            // One connection has one poll that waits. That of another session goes first.
            What::Poll if self.waits_for_another(at, session) => {
                let wish = Wish::Session { endpoint, sid: *sid, what };
                self.put_off(at, Request { wish, manner, body, expects_continue });
            }
            What::Poll => match self.shard.poll(session, at, self.now) {
                Ok(()) => {
                    let Role::Http(http) = &mut self.conns[at.slot].role else { unreachable!("it speaks HTTP") };
                    assert!(http.waiting.is_none(), "a second poll on one connection overlaps");
                    http.waiting = Some(Waiting { session, manner });
                }
                Err(refusal) => self.refuse(at, refusal, &manner),
            },
            What::Post { is_binary } => match self.shard.begin_post(session, at) {
                Ok(()) if is_binary => {
                    self.shard.refuse_post(session, at, "octet_stream");
                    self.refuse(at, Refusal::BadRequest, &manner.of_refusal(&body));
                }
                Ok(()) => {
                    let is_whole = body.is_complete();
                    self.put_off(at, Request { wish: Wish::Posting { session }, manner, body, expects_continue });
                    if is_whole {
                        // At once: the next POST may be whole already, on another connection.
                        self.serve(at);
                    } else {
                        self.enter(at, Phase::Body);
                        self.write_interim(at);
                    }
                }
                Err(refusal) => self.refuse(at, refusal, &manner.of_refusal(&body)),
            },
            What::TakeOver(upgrade) => self.take_over(at, session, &upgrade, endpoint),
            What::Nothing => self.refuse(at, Refusal::BadRequest, &manner),
        }
    }

    /// True while a poll of another session waits here.
    fn waits_for_another(&self, at: SlotRef, session: SlotRef) -> bool {
        let Role::Http(http) = &self.conns[at.slot].role else { unreachable!("it speaks HTTP") };
        http.waits_for().is_some_and(|other| other != session)
    }

    /// Begins a session.
    fn open(&mut self, at: SlotRef, opening: Opening, manner: Manner) {
        let Opening { endpoint, query, bearer, ip, upgrade } = opening;
        if self.drain.is_some() {
            let manner = Manner { connection: Connection::Close, ..manner };
            let denied = Denied::draining(self.shard.random());
            return self.deny(at, denied, &manner);
        }
        let Endpoint { kind, message_bytes_max, .. } = self.options.endpoints[endpoint];
        let place = match self.admit_session(at, ip) {
            Ok(place) => place,
            Err(denied) => return self.deny(at, denied, &manner),
        };
        if let Some(upgrade) = &upgrade
            && !self.write_upgrade(at, upgrade)
        {
            return;
        }
        let (polls, bearer) = (upgrade.is_none(), bearer.as_ref());
        let handshake = Handshake { kind, polls, query: &query, bearer, ip, message_bytes_max };
        let session = self.shard.open(at, handshake, self.now);
        self.shard.hold(session, place);
        if upgrade.is_some() {
            let message_bytes_max = connection_bytes(message_bytes_max);
            self.become_websocket(at, Role::WebSocket { session, decoder: ws::Decoder::new(), message_bytes_max });
            // A raw session's first joins come before its first message.
            self.conns[at.slot].paused = self.shard.is_busy(session);
        } else {
            let Role::Http(http) = &mut self.conns[at.slot].role else { unreachable!("it speaks HTTP") };
            http.waiting = Some(Waiting { session, manner });
            self.watch_polling();
        }
    }

    /// Opens a WebSocket that may take over a polled session.
    fn take_over(&mut self, at: SlotRef, session: SlotRef, upgrade: &http::Upgrade, endpoint: usize) {
        if !self.write_upgrade(at, upgrade) {
            return;
        }
        if self.shard.begin_probe(session, at, self.now) {
            let message_bytes_max = connection_bytes(self.options.endpoints[endpoint].message_bytes_max);
            self.become_websocket(at, Role::Probe { session, decoder: ws::Decoder::new(), message_bytes_max });
        } else {
            // As the reference server does: opened, and closed at once.
            self.shard.counters.count(counters::HTTP_REFUSED, "upgraded_already");
            self.write_and_linger(at, &ws::close_frame(1000, ""));
        }
    }

    /// Writes the response that opens a WebSocket. False if the client is gone.
    fn write_upgrade(&mut self, at: SlotRef, upgrade: &http::Upgrade) -> bool {
        let Role::Http(http) = &mut self.conns[at.slot].role else { unreachable!("it speaks HTTP") };
        http.served = true;
        http::write_upgrade_response(&mut http.out, upgrade);
        self.send_http(at);
        // Some 129 bytes into an empty socket buffer: they fit, or the client is not worth waiting for.
        match self.conns.get(at).map(|conn| &conn.role) {
            Some(Role::Http(http)) if http.out.is_empty() => true,
            Some(Role::Http(_)) => {
                self.finish(at, "left before handshake");
                false
            }
            _ => false,
        }
    }

    fn become_websocket(&mut self, at: SlotRef, role: Role) {
        let conn = &mut self.conns[at.slot];
        if matches!(&conn.role, Role::Http(http) if http.stamped)
            && let Err(error) = sys::stamp_arrivals(&conn.stream, false)
        {
            tracing::debug!(%error, "the kernel goes on noting arrivals");
        }
        self.cancel_timer(at);
        self.conns[at.slot].role = role;
    }

    /// Handles packets of a POST from byte `from` on, some of them.
    fn packets(&mut self, at: SlotRef, session: SlotRef, body: String, from: usize, manner: Manner) {
        let mut next = from;
        let mut posted = if self.shard.is_busy(session) { Posted::Wait } else { Posted::Ready };
        for _ in 0..PACKETS_PER_TURN {
            if posted != Posted::Ready || next > body.len() {
                break;
            }
            let rest = &body.as_bytes()[next..];
            let end = memchr::memchr(engineio::SEPARATOR, rest).map_or(body.len(), |length| next + length);
            posted = self.shard.post_packet(session, &body[next..end], self.now);
            next = end + 1;
        }
        if posted == Posted::Broken {
            self.shard.end_post(session, at);
            return self.refuse(at, Refusal::BadRequest, &manner);
        }
        if next <= body.len() || posted == Posted::Wait {
            let wish = Wish::Packets { session, body, from: next };
            self.put_off(at, Request { wish, manner, body: no_body(), expects_continue: false });
            if posted == Posted::Ready {
                self.requests.push_back(at);
            }
            return;
        }
        self.shard.end_post(session, at);
        let headers = &[NO_STORE];
        let Manner { cors, connection, .. } = manner;
        self.answer(at, &Response { raw_headers: &cors, connection, headers, ..Response::new(200, HTML, b"ok") });
    }

    /// Keeps a whole request that cannot be answered yet.
    fn put_off(&mut self, at: SlotRef, request: Request) {
        if let Some(Conn { role: Role::Http(http), .. }) = self.conns.get_mut(at) {
            http.request = Some(Box::new(request));
        }
    }

    /// A request is answered, or waits as a poll: what came behind it is next.
    fn go_on(&mut self, at: SlotRef) {
        let Some(conn) = self.conns.get_mut(at) else { return };
        if let Role::Http(http) = &conn.role {
            if http.request.is_some() {
                return;
            }
            let phase = if http.waiting.is_some() { Phase::Serving } else { Phase::Idle };
            self.enter(at, phase);
        }
        let conn = &mut self.conns[at.slot];
        conn.backlog |= conn.inbox.is_some();
        if conn.backlog || conn.readable {
            self.queue(at);
        }
    }

    /// Sets the deadline of what the connection waits for from here on.
    fn enter(&mut self, at: SlotRef, phase: Phase) {
        let Role::Http(http) = &mut self.conns[at.slot].role else { return };
        if std::mem::replace(&mut http.phase, phase) == phase {
            return;
        }
        match phase {
            Phase::Head => self.set_timer(at, self.options.handshake_ms_max),
            Phase::Body => self.set_timer(at, self.options.request_body_ms_max),
            Phase::Idle => self.set_timer(at, self.options.keep_alive_ms),
            Phase::Serving => self.cancel_timer(at),
        }
    }

    /// The deadline has come.
    pub(super) fn http_timer_fired(&mut self, at: SlotRef) {
        let conn = &mut self.conns[at.slot];
        let Role::Http(http) = &mut conn.role else { unreachable!("it speaks HTTP") };
        if conn.queued && matches!(http.phase, Phase::Head | Phase::Body | Phase::Idle) {
            // What is here and was not read yet is late by our fault: the process stood still, or others came first.
            return self.set_timer(at, READ_FIRST_MS);
        }
        let label = match http.phase {
            Phase::Head if conn.inbox.is_none() => {
                self.shard.counters.count(counters::HTTP_REFUSED, limits::HANDSHAKE_TIMEOUT);
                let label = if http.served { "" } else { "handshake timeout" };
                return self.finish(at, label);
            }
            Phase::Head => limits::HANDSHAKE_TIMEOUT,
            Phase::Body => {
                self.forget_request(at);
                limits::BODY_TIMEOUT
            }
            Phase::Idle | Phase::Serving => return self.finish(at, ""),
        };
        self.shard.counters.count(counters::HTTP_REFUSED, label);
        let response = Response::new(408, TEXT, b"The request took too long to arrive.\n");
        self.answer(at, &Response { connection: Connection::Close, ..response });
    }

    /// Refuses the request that is being received: there is no room for more of it.
    pub(super) fn refuse_request(&mut self, at: SlotRef) {
        self.conns[at.slot].inbox = None;
        self.forget_request(at);
        self.enter(at, Phase::Serving);
        self.shard.counters.count(counters::HTTP_REFUSED, limits::INBOXES_BYTES);
        let body = format!("There is no room for the rest of the request; try again in {RETRY_S} s.\n");
        let headers = &[("Retry-After", RETRY_S)];
        let response = Response { headers, ..Response::new(503, TEXT, body.as_bytes()) };
        self.answer(at, &Response { connection: Connection::Close, ..response });
    }

    /// Drops the request that is being received. The session that it was for ends: what it said is lost.
    fn forget_request(&mut self, at: SlotRef) {
        let Role::Http(http) = &mut self.conns[at.slot].role else { unreachable!("it speaks HTTP") };
        let session = http.posts_to();
        http.request = None;
        if let Some(session) = session {
            self.shard.post_aborted(session, at);
        }
        self.weigh(at);
    }

    /// Answers the waiting poll with everything that waits for its session.
    pub(super) fn answer_poll(&mut self, at: SlotRef) {
        let Role::Http(http) = &self.conns[at.slot].role else { unreachable!("it speaks HTTP") };
        let session = http.waits_for().expect("the outbox is drained by a poll");
        let mut body = std::mem::take(&mut self.payload);
        body.clear();
        let mut bytes = 0;
        for (_, frame) in self.shard.outboxes.waiting(session.slot) {
            engineio::append_polled(&mut body, 0, frame);
            bytes += frame.len();
        }
        self.shard.counters.sent_frames += self.shard.outboxes.advance(session.slot, bytes) as u64;
        let is_over = !self.shard.hears(session);
        self.shard.poll_answered(session);
        self.respond_to_poll(at, &body, is_over);
        self.payload = body;
    }

    /// Ends the waiting poll with nothing.
    pub(super) fn end_poll(&mut self, at: SlotRef) {
        self.respond_to_poll(at, b"6", false);
    }

    /// Refuses the POST that is coming in: its session is gone.
    pub(super) fn end_post(&mut self, at: SlotRef) {
        let Some(Conn { role: Role::Http(http), .. }) = self.conns.get_mut(at) else { return };
        if let Some(request) = http.request.take() {
            let manner = Manner { connection: Connection::Close, ..request.manner };
            self.weigh(at);
            self.refuse(at, Refusal::UnknownSid, &manner);
        }
    }

    /// While the core drains, whoever goes on polling does so on this connection: no other is accepted.
    fn respond_to_poll(&mut self, at: SlotRef, body: &[u8], is_over: bool) {
        self.look_at_the_date();
        let (ends, date) = (self.hangs_up() || is_over && self.drain.is_some(), &*self.date.1);
        let Some(Conn { role: Role::Http(http), .. }) = self.conns.get_mut(at) else { return };
        let Some(Waiting { manner: Manner { cors, connection, .. }, .. }) = http.waiting.take() else { return };
        let behind = std::mem::take(&mut http.behind);
        http.served = true;
        http.ends |= ends || connection == Connection::Close;
        // The last response says so, and the others must not.
        let connection = if http.ends && behind.is_empty() { Connection::Close } else { connection };
        let headers = &[NO_STORE];
        let response = Response::new(200, PAYLOAD, body);
        Response { raw_headers: &cors, connection, headers, date, ..response }.write(&mut http.out);
        http.out.extend_from_slice(&behind);
        self.send_http(at);
        let Some(Conn { role: Role::Http(http), .. }) = self.conns.get_mut(at) else { return };
        if http.is_serving() {
            self.requests.push_back(at);
        } else {
            self.go_on(at);
        }
    }

    fn refuse(&mut self, at: SlotRef, refusal: Refusal, manner: &Manner) {
        self.shard.counters.count(counters::HTTP_REFUSED, refusal.label());
        let Manner { cors, connection, head_only, is_upgrade } = manner;
        let response = if *is_upgrade {
            Response::new(400, HTML, refusal.message().as_bytes())
        } else {
            Response { raw_headers: cors, ..Response::new(refusal.status(), JSON, refusal.body().as_bytes()) }
        };
        self.answer(at, &Response { connection: *connection, head_only: *head_only, ..response });
    }

    fn refuse_head(&mut self, at: SlotRef, error: &http::HeadError) {
        self.shard.counters.count(counters::HTTP_REFUSED, error.label());
        let body = format!("{error}\n");
        let (headers, connection) = (error.headers(), Connection::Close);
        self.answer(at, &Response { headers, connection, ..Response::new(error.status(), TEXT, body.as_bytes()) });
    }

    fn refuse_body(&mut self, at: SlotRef, error: &BodyError, cors: &str) {
        self.shard.counters.count(counters::HTTP_REFUSED, error.label());
        let body = format!("{error}\n");
        let response = Response { raw_headers: cors, ..Response::new(error.status(), TEXT, body.as_bytes()) };
        self.answer(at, &Response { connection: Connection::Close, ..response });
    }

    /// Tells the client to send the body if it asks for our word, unless a response is to come before: then it does not
    /// wait for long (RFC 9110, section 10.1.1).
    fn write_interim(&mut self, at: SlotRef) {
        let Some(Conn { role: Role::Http(http), .. }) = self.conns.get_mut(at) else { return };
        let Some(request) = &mut http.request else { return };
        if std::mem::take(&mut request.expects_continue) && http.waiting.is_none() {
            http.out.extend_from_slice(http::CONTINUE);
            self.send_http(at);
        }
    }

    /// Gives a response, behind the poll that waits if there is one.
    pub(super) fn answer(&mut self, at: SlotRef, response: &Response<'_>) {
        let ends = response.connection == Connection::Close || self.hangs_up();
        self.look_at_the_date();
        let Some(Conn { role: Role::Http(http), .. }) = self.conns.get_mut(at) else { return };
        let connection = if ends { Connection::Close } else { response.connection };
        let out = if http.waiting.is_some() { &mut http.behind } else { &mut http.out };
        Response { connection, date: &self.date.1, ..*response }.write(out);
        http.served = true;
        http.ends |= ends;
        if http.waiting.is_none() {
            self.send_http(at);
        }
    }

    /// Brings the time for responses up to date.
    pub(super) fn look_at_the_date(&mut self) {
        let now = SystemTime::now();
        let second = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if self.date.0 != second {
            self.date = (second, httpdate::fmt_http_date(now));
        }
    }

    /// Sends responses as far as the kernel takes them; ends the connection behind the last one.
    pub(super) fn send_http(&mut self, at: SlotRef) {
        let conn = &mut self.conns[at.slot];
        let Role::Http(http) = &mut conn.role else { unreachable!("it speaks HTTP") };
        let mut sent = 0;
        let result = loop {
            if sent == http.out.len() {
                break Ok(());
            }
            match (&conn.stream).write(&http.out[sent..]) {
                Ok(bytes) => sent += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        if sent > 0 {
            self.shard.counters.sends += 1;
            self.shard.counters.sent_bytes += sent as u64;
        }
        http.out.drain(..sent);
        match result {
            Ok(()) => {
                http.out = Vec::new();
                if http.ends && http.waiting.is_none() {
                    return self.linger(at);
                }
                // It may have been too much for more to be read.
                if conn.readable || conn.backlog {
                    self.queue(at);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.shard.counters.sends_partial += 1;
                if !std::mem::replace(&mut conn.polls_write, true) {
                    self.ring.poll_write(&self.conns[at.slot].stream, at);
                }
            }
            Err(error) => {
                let label = super::error_label(&error);
                self.shard.counters.count(counters::SOCKET_ERRORS, label);
                self.finish(at, "");
            }
        }
    }

    /// Sends a connection to the core of the session that its request names. A second descriptor goes there, as the
    /// first is watched by this core's ring until that says otherwise.
    fn hand_over(&mut self, at: SlotRef, request: Request, home: CoreId) {
        let stream = match self.conns[at.slot].stream.try_clone() {
            Ok(stream) => stream,
            Err(error) => {
                self.shard.counters.count(counters::ACCEPT_ERRORS, super::error_label(&error));
                let response = Response::new(503, TEXT, b"The server is out of descriptors.\n");
                return self.answer(at, &Response { connection: Connection::Close, ..response });
            }
        };
        self.enter(at, Phase::Serving);
        let conn = &mut self.conns[at.slot];
        let Role::Http(mut http) = std::mem::replace(&mut conn.role, Role::Dead) else {
            unreachable!("it speaks HTTP")
        };
        http.request = Some(Box::new(request));
        let (rest, place) = (conn.inbox.take(), conn.place.take());
        self.handovers.send(home, HandOver::Client(HandedOver { stream, http, rest, place }));
        self.shard.counters.connections -= 1;
        self.shard.counters.handed_over += 1;
        self.let_go(at);
    }

    /// Takes in the connections that other cores have sent. True if there were any.
    pub(super) fn take_in(&mut self) -> bool {
        let mut any = false;
        while let Some((_, handover)) = self.handovers.receive() {
            any = true;
            let HandedOver { stream, http, rest, place } = match handover {
                HandOver::Client(client) => client,
                HandOver::Neighbour(stream) => {
                    self.take_neighbour(stream);
                    continue;
                }
            };
            let mut conn = Conn::new(stream, Role::Http(http));
            conn.inbox = rest;
            conn.place = place;
            let at = self.conns.insert(conn);
            self.watch_new(at);
            self.shard.counters.connections += 1;
            self.requests.push_back(at);
            self.weigh(at);
        }
        any
    }
}

impl Endpoint {
    /// True for the endpoint's path, with or without its last slash.
    fn serves(&self, path: &str) -> bool {
        let bare = |path: &'_ str| -> usize { path.strip_suffix('/').map_or(path.len(), str::len) };
        path[..bare(path)] == self.path[..bare(&self.path)]
    }
}

/// A bound of messages as connections keep it; the config allows none of 4 GB.
fn connection_bytes(message_bytes_max: usize) -> u32 {
    u32::try_from(message_bytes_max).unwrap_or(u32::MAX)
}

fn no_body() -> Body {
    Body::new(BodyLength::Bytes(0), 0).expect("nothing is not too long")
}

fn not_found(head: &Head<'_, '_>, endpoints: &[Endpoint]) -> String {
    let paths: Vec<&str> = endpoints.iter().map(|endpoint| &*endpoint.path).collect();
    format!("There is nothing at {}. Clients connect to {}.\n", head.path, paths.join(" or "))
}
