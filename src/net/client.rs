//! The WebSocket driver: a client's bytes become messages of its session. Knows frames, not what messages mean.

use super::conn::{Inbox, Role};
use super::core::Core;
use crate::base::counters;
use crate::base::frame::Frame;
use crate::base::ids::SlotRef;
use crate::proto::engineio;
use crate::proto::ws::{self, Message, Step};
use crate::shard::{CLIENT_LEFT, Closing, Flow, Probed, UPGRADE_FAILED};
use std::io::Write;

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
        self.weigh(at);
    }

    /// Keeps what could not be handled yet.
    fn keep(&mut self, at: SlotRef, rest: Box<Inbox>) {
        if let Some(conn) = self.conns.get_mut(at)
            && !matches!(conn.role, Role::Lingering { .. } | Role::TurnedAway | Role::Publisher(_) | Role::Dead)
        {
            conn.inbox = Some(rest);
        }
    }

    /// Handles as much of `buffer` as can be; returns how many bytes that was.
    fn client_buffer(&mut self, at: SlotRef, buffer: &mut [u8]) -> usize {
        match &self.conns[at.slot].role {
            Role::Http(_) => self.http_buffer(at, buffer),
            _ => self.frames(at, buffer),
        }
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
            let (session, mut decoder, message_bytes_max) = match &mut conn.role {
                Role::WebSocket { session, decoder, message_bytes_max }
                | Role::Probe { session, decoder, message_bytes_max }
                | Role::Closing { session, decoder, message_bytes_max, .. } => {
                    (*session, std::mem::take(decoder), *message_bytes_max)
                }
                _ => return buffer.len(),
            };
            let closing = matches!(conn.role, Role::Closing { .. });
            let step = decoder.decode(&mut buffer[handled..], message_bytes_max as usize);
            let (bytes, flow) = match step {
                Ok(Step::Incomplete { .. }) => {
                    self.put_back(at, decoder);
                    break;
                }
                Ok(Step::Consumed { bytes }) => (bytes, Flow::Ready),
                Ok(Step::Message { bytes, message }) => (bytes, self.message(at, session, message, closing)),
                Err(violation) => {
                    let breach = Closing { code: violation.close_code(), label: violation.label() };
                    if matches!(self.conns[at.slot].role, Role::Probe { .. }) {
                        self.shard.counters.count(counters::CLIENT_ERRORS, breach.label);
                        self.end_probe(at, session, breach);
                    } else if !closing {
                        self.shard.violated(session, breach, breach.label);
                    }
                    (buffer.len() - handled, Flow::Ready)
                }
            };
            handled += bytes;
            decoder.give_back();
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
            && let Role::WebSocket { decoder, .. } | Role::Probe { decoder, .. } | Role::Closing { decoder, .. } =
                &mut conn.role
        {
            *decoder = taken;
        }
    }

    fn message(&mut self, at: SlotRef, session: SlotRef, message: Message<'_>, closing: bool) -> Flow {
        if matches!(self.conns[at.slot].role, Role::Probe { .. }) {
            return self.probe_message(at, session, message);
        }
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

    /// A message on a WebSocket that may take over its session.
    fn probe_message(&mut self, at: SlotRef, session: SlotRef, message: Message<'_>) -> Flow {
        let mut answer = Vec::new();
        match message {
            Message::Text(text) => match self.shard.probe_text(session, at, text, self.now) {
                Probed::Pong => engineio::pong(&mut answer, "probe"),
                Probed::Upgraded => self.upgraded(at),
                Probed::Wait => return Flow::Wait,
                Probed::Failed => self.close_probe(at, UPGRADE_FAILED),
            },
            Message::Binary(_) => self.end_probe(at, session, UPGRADE_FAILED),
            Message::Close { code, .. } => {
                self.shard.probe_ended(session, at);
                self.write_and_linger(at, &ws::close_frame(code.unwrap_or(1000), ""));
            }
            Message::Ping(data) => {
                ws::write_header(&mut answer, ws::Kind::Pong, data.len());
                answer.extend_from_slice(data);
            }
            Message::Pong(_) => {}
        }
        // A few bytes into an empty socket buffer: they fit, or the client is not worth waiting for.
        if !answer.is_empty()
            && !matches!((&self.conns[at.slot].stream).write(&answer), Ok(bytes) if bytes == answer.len())
        {
            self.finish(at, "");
        }
        Flow::Ready
    }

    /// The WebSocket carries its session from now on.
    pub(super) fn upgraded(&mut self, at: SlotRef) {
        let Some(conn) = self.conns.get_mut(at) else { return };
        if let Role::Probe { session, decoder, message_bytes_max } = &mut conn.role {
            let (session, decoder, message_bytes_max) = (*session, std::mem::take(decoder), *message_bytes_max);
            conn.role = Role::WebSocket { session, decoder, message_bytes_max };
            conn.paused = false;
            self.queue(at);
        }
    }

    pub(super) fn end_probe(&mut self, at: SlotRef, session: SlotRef, closing: Closing) {
        self.shard.probe_ended(session, at);
        self.close_probe(at, closing);
    }

    /// Closes a WebSocket that does not take over.
    pub(super) fn close_probe(&mut self, at: SlotRef, closing: Closing) {
        self.write_and_linger(at, &ws::close_frame(closing.code, closing.label));
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
        let (Role::WebSocket { message_bytes_max, .. } | Role::Closing { message_bytes_max, .. }) = conn.role else {
            unreachable!("it has a WebSocket")
        };
        let decoder = ws::Decoder::new();
        conn.role = Role::Closing { session, decoder, message_bytes_max, peer_closed: true };
        self.set_timer(at, 1_000);
        if self.shard.outboxes.is_empty(session.slot) {
            self.linger(at);
        }
    }

    pub(super) fn push_close_frame(&mut self, session: SlotRef, code: u16, reason: &str) {
        let _ = self.shard.outboxes.push(session.slot, Frame::new(&ws::close_frame(code, reason)));
    }

    /// Sends a last response. It fits into the socket's empty buffer, or the client is not worth waiting for.
    pub(super) fn write_and_linger(&mut self, at: SlotRef, response: &[u8]) {
        match (&self.conns[at.slot].stream).write(response) {
            Ok(bytes) if bytes == response.len() => self.linger(at),
            _ => self.finish(at, "left before handshake"),
        }
    }
}

/// Messages of one client that are handled before others are heard: with 10 µs for rules, a fair share of a turn.
const MESSAGES_PER_READ: usize = 16;
