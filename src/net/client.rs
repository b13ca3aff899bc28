//! The WebSocket driver: a client's bytes become messages of its session. Knows HTTP and frames, not what messages
//! mean.

use super::Endpoint;
use super::conn::{Inbox, Role};
use super::core::Core;
use crate::base::counters;
use crate::base::frame::Frame;
use crate::base::ids::SlotRef;
use crate::proto::engineio::Refusal;
use crate::proto::http::{self, Head, HeadStep};
use crate::proto::ws::{self, Message, Step};
use crate::session::Kind;
use crate::shard::{CLIENT_LEFT, Closing, Flow, Handshake};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};

/// What a request head leads to.
enum Answer {
    /// A session begins.
    Upgrade { bytes: usize, upgrade: http::Upgrade, endpoint: usize, query: String },
    /// A response, and the end.
    Refuse { response: Vec<u8>, label: &'static str },
    /// More bytes are needed.
    Wait,
}

impl Core {
    /// Handles a client's bytes: what waited, then `fresh`.
    pub(super) fn client_bytes(&mut self, at: SlotRef, fresh: &mut [u8]) {
        self.shard.counters.client_bytes += fresh.len() as u64;
        match self.conns[at.slot].inbox.take() {
            // The usual case: whole frames came. They are read where they are.
            None => {
                let handled = self.client_buffer(at, fresh);
                if handled < fresh.len() {
                    self.keep(at, Box::new(Inbox(fresh[handled..].to_vec())));
                }
            }
            Some(mut inbox) => {
                inbox.0.extend_from_slice(fresh);
                let handled = self.client_buffer(at, &mut inbox.0);
                if handled < inbox.0.len() {
                    inbox.0.drain(..handled);
                    self.keep(at, inbox);
                }
            }
        }
    }

    /// Keeps what could not be handled yet.
    fn keep(&mut self, at: SlotRef, rest: Box<Inbox>) {
        if let Some(conn) = self.conns.get_mut(at)
            && matches!(conn.role, Role::Head | Role::WebSocket { .. } | Role::Closing { .. })
        {
            conn.inbox = Some(rest);
        }
    }

    /// Handles as much of `buffer` as can be; returns how many bytes that was.
    fn client_buffer(&mut self, at: SlotRef, buffer: &mut [u8]) -> usize {
        let mut handled = 0;
        if matches!(self.conns[at.slot].role, Role::Head) {
            match self.answer(buffer) {
                Answer::Wait => return 0,
                Answer::Refuse { response, label } => {
                    self.shard.counters.count(counters::HTTP_REFUSED, label);
                    self.write_and_linger(at, &response);
                    return buffer.len();
                }
                Answer::Upgrade { bytes, upgrade, endpoint, query } => {
                    handled = bytes;
                    if !self.upgrade(at, &upgrade, endpoint, &query) {
                        return buffer.len();
                    }
                }
            }
        }
        handled + self.frames(at, &mut buffer[handled..])
    }

    /// Reads the request head at the start of `buffer`.
    fn answer(&self, buffer: &[u8]) -> Answer {
        let mut headers = [httparse::EMPTY_HEADER; http::HEADERS_MAX];
        let refuse = |error: &http::HeadError| {
            let response = last_response(error.status(), TEXT, error.to_string().as_bytes(), error.headers());
            Answer::Refuse { response, label: error.label() }
        };
        match http::parse_head(buffer, &mut headers, self.options.http_head_bytes_max) {
            Ok(HeadStep::Incomplete) => Answer::Wait,
            Err(error) => refuse(&error),
            Ok(HeadStep::Complete { bytes, head }) => {
                let Some(endpoint) = self.options.endpoints.iter().position(|e| e.serves(head.path)) else {
                    return not_found(&head, &self.options.endpoints);
                };
                if let Some(answer) = self.refused_by_engine_io(endpoint, &head) {
                    return answer;
                }
                match http::websocket_upgrade(&head) {
                    Ok(upgrade) => Answer::Upgrade { bytes, upgrade, endpoint, query: head.query.into() },
                    Err(error) => refuse(&error),
                }
            }
        }
    }

    /// Engine.IO's own checks of a handshake request (Engine.IO protocol 4, "HTTP query parameters").
    fn refused_by_engine_io(&self, endpoint: usize, head: &Head<'_, '_>) -> Option<Answer> {
        if self.options.endpoints[endpoint].kind != Kind::SocketIo {
            return None;
        }
        let parameter = |name: &str| http::query_pairs(head.query).find(|(n, _)| n == name).map(|(_, value)| value);
        let refusal = if parameter("transport").as_deref() != Some("websocket") {
            Refusal::UnknownTransport
        } else if parameter("sid").is_some() {
            Refusal::UnknownSid
        } else if head.method != "GET" {
            Refusal::BadHandshakeMethod
        } else if parameter("EIO").as_deref() != Some("4") {
            Refusal::UnsupportedProtocolVersion
        } else if !head.has_token("upgrade", "websocket") {
            Refusal::BadRequest
        } else {
            return None;
        };
        let response = last_response(refusal.status(), "application/json", refusal.body().as_bytes(), &[]);
        Some(Answer::Refuse { response, label: refusal.label() })
    }

    /// Answers the handshake and opens the session. False if the client is gone.
    fn upgrade(&mut self, at: SlotRef, upgrade: &http::Upgrade, endpoint: usize, query: &str) -> bool {
        let mut response = Vec::new();
        http::write_upgrade_response(&mut response, upgrade);
        // Some 129 bytes into an empty socket buffer: they fit, or the client is gone.
        if !matches!((&self.conns[at.slot].stream).write(&response), Ok(bytes) if bytes == response.len()) {
            self.finish(at, "left before handshake");
            return false;
        }
        let unknown = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let ip = self.conns[at.slot].stream.peer_addr().map_or(unknown, |address| address.ip().to_canonical());
        let kind = self.options.endpoints[endpoint].kind;
        if let Some(timer) = self.conns[at.slot].timer.take() {
            self.shard.timers.cancel(timer);
        }
        let handshake = Handshake { kind, polls: false, query, ip, message_bytes_max: self.options.message_bytes_max };
        let session = self.shard.open(at, handshake, self.now);
        let conn = &mut self.conns[at.slot];
        conn.role = Role::WebSocket { session, decoder: ws::Decoder::new() };
        // A raw session's first joins come before its first message.
        conn.paused = self.shard.is_busy(session);
        true
    }

    /// Handles the whole frames in `buffer`; returns how many bytes they take.
    fn frames(&mut self, at: SlotRef, buffer: &mut [u8]) -> usize {
        let mut handled = 0;
        for messages in 0.. {
            let conn = &mut self.conns[at.slot];
            if conn.paused || messages == MESSAGES_PER_READ {
                conn.backlog = true;
                if !conn.paused {
                    self.queue(at);
                }
                break;
            }
            // The decoder is taken out for the call: a message may borrow from it while the shard handles it.
            let conn = &mut self.conns[at.slot];
            let (session, mut decoder) = match &mut conn.role {
                Role::WebSocket { session, decoder } | Role::Closing { session, decoder, .. } => {
                    (*session, std::mem::take(decoder))
                }
                _ => return buffer.len(),
            };
            let closing = matches!(conn.role, Role::Closing { .. });
            let step = decoder.decode(&mut buffer[handled..], self.options.message_bytes_max);
            let (bytes, flow) = match step {
                Ok(Step::Incomplete { .. }) => {
                    self.put_back(at, decoder);
                    break;
                }
                Ok(Step::Consumed { bytes }) => (bytes, Flow::Ready),
                Ok(Step::Message { bytes, message }) => (bytes, self.message(at, session, message, closing)),
                Err(violation) => {
                    if !closing {
                        let closing = Closing { code: violation.close_code(), label: violation.label() };
                        self.shard.violated(session, closing, violation.label());
                    }
                    (buffer.len() - handled, Flow::Ready)
                }
            };
            handled += bytes;
            self.put_back(at, decoder);
            if flow == Flow::Wait
                && let Some(conn) = self.conns.get_mut(at)
            {
                conn.paused = true;
            }
            if handled >= buffer.len() || self.conns.get(at).is_none() {
                break;
            }
        }
        handled
    }

    fn put_back(&mut self, at: SlotRef, taken: ws::Decoder) {
        if let Some(conn) = self.conns.get_mut(at)
            && let Role::WebSocket { decoder, .. } | Role::Closing { decoder, .. } = &mut conn.role
        {
            *decoder = taken;
        }
    }

    fn message(&mut self, at: SlotRef, session: SlotRef, message: Message<'_>, closing: bool) -> Flow {
        match message {
            Message::Close { code, .. } => {
                self.peer_closed(at, session, code, closing);
                Flow::Ready
            }
            // We have said goodbye; what the client said before it heard of it counts no more.
            _ if closing => Flow::Ready,
            Message::Text(text) => self.shard.text(session, text, self.now),
            Message::Binary(bytes) => self.shard.binary(session, bytes),
            Message::Ping(data) => {
                let mut pong = Vec::with_capacity(2 + data.len());
                ws::write_header(&mut pong, ws::Kind::Pong, data.len());
                pong.extend_from_slice(data);
                let _ = self.shard.outboxes.push(session.slot, Frame::new(&pong));
                Flow::Ready
            }
            Message::Pong(_) => {
                self.shard.websocket_pong(session, self.now);
                Flow::Ready
            }
        }
    }

    /// A close frame came: the answer to ours, or the client's wish.
    fn peer_closed(&mut self, at: SlotRef, session: SlotRef, code: Option<u16>, closing: bool) {
        if !closing {
            // The wish is granted with its own code (RFC 6455 section 5.5.1). The shard's close is ours: no second
            // frame.
            self.shard.closed_by_peer(session);
            self.shard.counters.count(counters::CLOSES, CLIENT_LEFT.label);
            self.push_close_frame(session, code.unwrap_or(1000), "");
        }
        let conn = &mut self.conns[at.slot];
        let decoder = ws::Decoder::new();
        conn.role = Role::Closing { session, decoder, peer_closed: true };
        self.set_timer(at, 1_000);
        if self.shard.outboxes.is_empty(session.slot) {
            self.linger(at);
        }
    }

    pub(super) fn push_close_frame(&mut self, session: SlotRef, code: u16, reason: &str) {
        let _ = self.shard.outboxes.push(session.slot, Frame::new(&ws::close_frame(code, reason)));
    }

    /// Sends a last response. It fits into the socket's empty buffer, or the client is not worth waiting for.
    fn write_and_linger(&mut self, at: SlotRef, response: &[u8]) {
        match (&self.conns[at.slot].stream).write(response) {
            Ok(bytes) if bytes == response.len() => self.linger(at),
            _ => self.finish(at, "left before handshake"),
        }
    }
}

/// Messages of one client that are handled before others are heard: with 10 µs for rules, a fair share of a turn.
const MESSAGES_PER_READ: usize = 16;
const TEXT: &str = "text/plain; charset=utf-8";

impl Endpoint {
    /// True for the endpoint's path, with or without its last slash.
    fn serves(&self, path: &str) -> bool {
        let bare = |path: &'_ str| -> usize { path.strip_suffix('/').map_or(path.len(), str::len) };
        path[..bare(path)] == self.path[..bare(&self.path)]
    }
}

fn not_found(head: &Head<'_, '_>, endpoints: &[Endpoint]) -> Answer {
    let paths: Vec<&str> = endpoints.iter().map(|endpoint| &*endpoint.path).collect();
    let body = format!("There is nothing at {}. WebSocket clients connect to {}.\n", head.path, paths.join(" or "));
    let response = last_response(404, TEXT, body.as_bytes(), &[]);
    Answer::Refuse { response, label: "unknown_path" }
}

/// A response after which the connection is closed.
fn last_response(status: u16, content_type: &str, body: &[u8], headers: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    let connection = http::Connection::Close;
    http::Response { headers, connection, ..http::Response::new(status, content_type, body) }.write(&mut out);
    out
}
