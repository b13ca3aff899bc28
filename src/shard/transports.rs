//! Engine.IO's transports: long-polling, and the way from there to WebSocket. A session's frames wait in its outbox
//! whatever carries them; here is decided which connection drains it, and when. Connections are slots here; requests,
//! responses and frames are their driver's.
//!
//! Source: Engine.IO protocol 4 ("HTTP long-polling", "Upgrade") and engine.io 6.6 where the document is silent.

use super::{
    Action, CLIENT_LEFT, CONNECT_TIMEOUT, Closing, DISCONNECTED, Flow, GOING_AWAY, INBOXES_FULL, PROTOCOL_ERROR, Shard,
};
use crate::base::class::PatternId;
use crate::base::clock::Millis;
use crate::base::counters;
use crate::base::ids::{SlotRef, SocketId};
use crate::proto::engineio::{self, PacketType, PollingPacket, Refusal};
use crate::session::{Kind, NOWHERE, Polling, Probe, Session};
use smallvec::SmallVec;

/// A polled session that the server has closed is kept for its next poll this long, as in the reference server.
const LINGER_MS: u64 = 30_000;
/// While a client is about to upgrade, a poll of its waits no longer than this, as in the reference server: it upgrades
/// when its last poll has ended.
const UPGRADING_POLL_MS: u64 = 100;

/// The client's poll or POST ended before it was answered.
pub const TRANSPORT_ERROR: Closing = Closing::new(1000, "transport error");
/// The client's WebSocket did not take over in time.
pub const UPGRADE_TIMEOUT: Closing = Closing::new(1000, "upgrade timeout");
/// The WebSocket was not to be had, or said something else than what upgrades.
pub const UPGRADE_FAILED: Closing = Closing::new(1000, "upgrade failed");

/// What became of one packet of a POST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Posted {
    /// The next one can be handled.
    Ready,
    /// The next one must wait for [`Action::Resume`].
    Wait,
    /// The client broke the protocol, and its session is closed.
    Broken,
}

/// What a WebSocket that may take over gets for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Probed {
    /// The answer to the probe.
    Pong,
    /// It carries the session from now on.
    Upgraded,
    /// It will: [`Action::Upgraded`] or a close follows.
    Wait,
    /// It is closed; the session goes on polling.
    Failed,
}

impl Shard {
    /// The live session of that id, if it speaks `kind`.
    #[must_use]
    pub fn find(&self, sid: &SocketId, kind: Kind) -> Option<SlotRef> {
        let at = self.sessions.at(sid.slot())?;
        let session = &self.sessions[at.slot];
        let lingers = session.polling.as_ref().is_some_and(|polling| polling.lingers);
        (session.sid == *sid && session.kind == kind && (!session.closing || lingers)).then_some(at)
    }

    /// The live sessions that poll.
    pub fn polling_sessions(&self) -> impl Iterator<Item = SlotRef> {
        let polls = |session: &Session| session.polling.is_some() && !session.closing;
        self.sessions.iter().filter(move |(_, session)| polls(session)).map(|(at, _)| at)
    }

    /// The connections that carry the session now or may do so: what has come in on them came before a request that
    /// names the session on another connection.
    #[must_use]
    pub fn carriers(&self, at: SlotRef) -> SmallVec<[SlotRef; 3]> {
        let Some(session) = self.sessions.get(at) else { return SmallVec::new() };
        match &session.polling {
            Some(polling) => {
                let Polling { poll, post, probe, .. } = &**polling;
                poll.iter().chain(post).copied().chain(probe.as_ref().map(|probe| probe.transport)).collect()
            }
            None => SmallVec::from_slice(&[session.transport]),
        }
    }

    /// A GET came on `transport`. It is answered when something waits in the outbox: the driver calls
    /// [`Shard::poll_answered`] then.
    ///
    /// # Errors
    /// Another one waits already, and the session is closed; or the session does not poll any more.
    pub fn poll(&mut self, at: SlotRef, transport: SlotRef, now: Millis) -> Result<(), Refusal> {
        let session = &mut self.sessions[at.slot];
        let Some(polling) = &mut session.polling else { return Err(Refusal::BadRequest) };
        if polling.poll.is_some() {
            self.counters.count(counters::CLIENT_ERRORS, "overlapping_polls");
            self.close(at, TRANSPORT_ERROR);
            return Err(Refusal::BadRequest);
        }
        polling.poll = Some(transport);
        session.transport = transport;
        let (posting, probed) = (polling.holds_answers, polling.probe.is_some_and(|probe| probe.probed));
        self.outboxes.carry(at.slot, transport.slot);
        if !posting {
            self.outboxes.unblock(at.slot);
        }
        if probed {
            self.end_poll_by(at, now.after(UPGRADING_POLL_MS));
        }
        Ok(())
    }

    /// Everything that waited for a polled session is in a response. The session waits for its next poll, or ends.
    pub fn poll_answered(&mut self, at: SlotRef) {
        self.counters.polls += 1;
        let session = &mut self.sessions[at.slot];
        let Some(polling) = &mut session.polling else { unreachable!("only polls are answered") };
        polling.poll = None;
        session.transport = NOWHERE;
        self.outboxes.block(at.slot);
        if session.closing {
            self.closed(at);
        }
    }

    /// The connection of a waiting poll is gone.
    pub fn poll_aborted(&mut self, at: SlotRef, transport: SlotRef) {
        let Some(polling) = self.polling(at) else { return };
        if polling.poll == Some(transport) {
            polling.poll = None;
            let lingers = polling.lingers;
            self.sessions[at.slot].transport = NOWHERE;
            self.outboxes.block(at.slot);
            if self.hears(at) {
                self.close(at, TRANSPORT_ERROR);
            } else if !lingers {
                self.actions.push_back(Action::Ended { session: at });
            }
        }
    }

    /// A POST comes in on `transport`. [`Shard::begin_packets`] follows when all of it is here, or it is aborted.
    ///
    /// # Errors
    /// Another one is under way, and the session is closed; or the session does not poll any more.
    pub fn begin_post(&mut self, at: SlotRef, transport: SlotRef) -> Result<(), Refusal> {
        let Some(polling) = &mut self.sessions[at.slot].polling else { return Err(Refusal::BadRequest) };
        if polling.post.is_some() {
            self.counters.count(counters::CLIENT_ERRORS, "overlapping_posts");
            self.close(at, TRANSPORT_ERROR);
            return Err(Refusal::BadRequest);
        }
        polling.post = Some(transport);
        Ok(())
    }

    /// The POST on `transport` is whole. Its packets follow, then [`Shard::end_post`]. False if its session is gone, or
    /// ends here, as the client asks on and on and does not poll for the answers.
    #[must_use]
    pub fn begin_packets(&mut self, at: SlotRef, transport: SlotRef) -> bool {
        let (outbox_bytes_max, answers) = (self.options.limits.outbox_bytes_max, self.outboxes.answers(at.slot));
        let Some(polling) = self.polling(at) else { return false };
        if polling.post != Some(transport) {
            return false;
        }
        if answers > outbox_bytes_max {
            // The caller refuses it.
            polling.post = None;
            self.cut_slow_consumer(at, PatternId::default());
            return false;
        }
        polling.holds_answers = true;
        self.outboxes.block(at.slot);
        true
    }

    /// The POST on `transport` is not of the kind that is taken: the session is closed.
    pub fn refuse_post(&mut self, at: SlotRef, transport: SlotRef, label: &'static str) {
        self.end_post(at, transport);
        self.violated(at, TRANSPORT_ERROR, label);
    }

    /// One packet of a POST, as it stands between separators.
    pub fn post_packet(&mut self, at: SlotRef, packet: &str, now: Millis) -> Posted {
        let flow = match engineio::parse_polled(packet) {
            Ok(PollingPacket::Text(..)) => self.text(at, packet, now),
            Ok(PollingPacket::Binary(bytes)) => self.binary(at, &bytes),
            Err(error) => {
                if self.hears(at) {
                    self.protocol_error(at, error.label());
                }
                Flow::Ready
            }
        };
        let broken = self.sessions.get(at).is_some_and(|s| s.polling.as_ref().is_some_and(|p| p.broken));
        match flow {
            _ if broken => Posted::Broken,
            Flow::Ready => Posted::Ready,
            Flow::Wait => Posted::Wait,
        }
    }

    /// All packets of the POST on `transport` are handled, or it is refused.
    pub fn end_post(&mut self, at: SlotRef, transport: SlotRef) {
        let Some(polling) = self.polling(at) else { return };
        if polling.post != Some(transport) {
            return;
        }
        polling.post = None;
        polling.holds_answers = false;
        let waits = polling.poll.is_some();
        if let Some(Probe { transport, .. }) = polling.probe.filter(|probe| probe.upgrades) {
            self.upgrade(at, transport);
            self.actions.push_back(Action::Upgraded { transport });
        } else if waits {
            self.outboxes.unblock(at.slot);
        }
    }

    /// The connection of a POST is gone before all of its packets were handled.
    pub fn post_aborted(&mut self, at: SlotRef, transport: SlotRef) {
        let Some(polling) = self.polling(at) else { return };
        if polling.post == Some(transport) {
            polling.post = None;
            polling.holds_answers = false;
            if polling.poll.is_some() {
                self.outboxes.unblock(at.slot);
            }
            // A session that is closing already waits for its poll alone.
            self.shut(at, TRANSPORT_ERROR);
        }
    }

    /// A WebSocket that names the session was opened on `transport`. False if it must be closed: the session has one.
    #[must_use]
    pub fn begin_probe(&mut self, at: SlotRef, transport: SlotRef, now: Millis) -> bool {
        let upgrade_timeout_ms = self.options.heartbeat.upgrade_timeout_ms;
        let session = &mut self.sessions[at.slot];
        let Some(polling) = &mut session.polling else { return false };
        if polling.probe.is_some() || session.closing {
            return false;
        }
        let give_up_at = now.after(upgrade_timeout_ms);
        polling.probe = Some(Probe { transport, probed: false, upgrades: false, give_up_at, noop_at: Millis::NEVER });
        self.arm(at);
        true
    }

    /// A text message came on a WebSocket that may take over.
    pub fn probe_text(&mut self, at: SlotRef, transport: SlotRef, text: &str, now: Millis) -> Probed {
        let Some(probe) = self.probe(at).filter(|probe| probe.transport == transport) else { return Probed::Failed };
        match engineio::parse(text) {
            Ok((PacketType::Ping, "probe")) => {
                probe.probed = true;
                // The poll that waits is in the client's way.
                self.end_poll_by(at, now);
                Probed::Pong
            }
            Ok((PacketType::Upgrade, _)) => {
                probe.upgrades = true;
                // From here on the client is waited for no longer.
                probe.give_up_at = Millis::NEVER;
                if self.sessions[at.slot].polling.as_ref().is_some_and(|polling| polling.post.is_some()) {
                    self.arm(at);
                    return Probed::Wait;
                }
                self.upgrade(at, transport);
                Probed::Upgraded
            }
            _ => {
                self.counters.count(counters::CLIENT_ERRORS, "upgrade_failed");
                self.probe_ended(at, transport);
                Probed::Failed
            }
        }
    }

    /// A WebSocket that might have taken over is gone.
    pub fn probe_ended(&mut self, at: SlotRef, transport: SlotRef) {
        let Some(polling) = self.polling(at) else { return };
        if polling.probe.is_some_and(|probe| probe.transport == transport) {
            polling.probe = None;
            self.rearm(at);
        }
    }

    /// What the session has besides, if it is there and polls.
    fn polling(&mut self, at: SlotRef) -> Option<&mut Polling> {
        self.sessions.get_mut(at)?.polling.as_deref_mut()
    }

    fn probe(&mut self, at: SlotRef) -> Option<&mut Probe> {
        let session = self.sessions.get_mut(at).filter(|session| !session.closing)?;
        session.polling.as_mut()?.probe.as_mut()
    }

    /// Has the poll that waits ended with a noop at `due`, unless it is answered before.
    fn end_poll_by(&mut self, at: SlotRef, due: Millis) {
        if let Some(probe) = self.probe(at) {
            probe.noop_at = due;
            self.arm(at);
        }
    }

    /// The WebSocket on `transport` carries the session from now on.
    fn upgrade(&mut self, at: SlotRef, transport: SlotRef) {
        let session = &mut self.sessions[at.slot];
        let polling = session.polling.take().expect("only a polled session upgrades");
        session.transport = transport;
        if let Some(poll) = polling.poll {
            self.actions.push_back(Action::EndPoll { transport: poll });
        }
        self.outboxes.carry(at.slot, transport.slot);
        self.outboxes.unblock(at.slot);
        self.counters.upgrades += 1;
        self.counters.sessions_polling -= 1;
        self.arm(at);
    }

    /// What is due of an upgrade under way.
    pub(super) fn upgrade_due(&mut self, at: SlotRef, now: Millis) {
        let Some(polling) = self.sessions[at.slot].polling.as_mut() else { return };
        let Some(probe) = &mut polling.probe else { return };
        if probe.give_up_at <= now {
            let transport = probe.transport;
            polling.probe = None;
            self.actions.push_back(Action::Close { transport, closing: UPGRADE_TIMEOUT, text: None });
        } else if probe.noop_at <= now {
            probe.noop_at = Millis::NEVER;
            if polling.poll.is_some() && self.outboxes.is_empty(at.slot) {
                let noop = self.stock.noop.clone();
                self.push(at.slot, noop);
            }
        }
    }

    /// The rest of closing a polled session, which has left everything: its last words are put into its outbox.
    pub(super) fn close_polling(&mut self, at: SlotRef, closing: Closing) {
        self.counters.count(counters::CLOSES, closing.label);
        let polling = self.sessions[at.slot].polling.as_mut().expect("the caller knows that it polls");
        if let Some(probe) = polling.probe.take() {
            self.actions.push_back(Action::Close { transport: probe.transport, closing, text: None });
        }
        if let Some(post) = polling.post.take_if(|_| !polling.holds_answers) {
            self.actions.push_back(Action::EndPost { transport: post });
        }
        polling.broken = matches!(closing, PROTOCOL_ERROR | INBOXES_FULL);
        let waits = polling.poll.is_some();
        polling.lingers = !waits && matches!(closing, DISCONNECTED | CONNECT_TIMEOUT | GOING_AWAY);
        let lingers = polling.lingers;
        match closing {
            // A client that left hears of it only if its poll waits for nothing else.
            CLIENT_LEFT if !self.outboxes.is_empty(at.slot) => {}
            CLIENT_LEFT => self.push(at.slot, self.stock.noop.clone()),
            _ => self.push(at.slot, self.stock.close.clone()),
        }
        if waits {
            // Whatever POST is under way: the answer is not for its packets alone any more.
            self.outboxes.unblock(at.slot);
        } else if lingers {
            let due = self.now.after(LINGER_MS);
            self.sessions[at.slot].timer = Some(self.timers.arm(due, super::TimerKey::Session(at)));
        } else {
            self.actions.push_back(Action::Ended { session: at });
        }
    }

    /// The time to linger is over.
    pub(super) fn lingered(&mut self, at: SlotRef) {
        let polling = self.sessions[at.slot].polling.as_mut().expect("only polled sessions linger");
        polling.lingers = false;
        // A poll that has just come is still told.
        if polling.poll.is_none() {
            self.closed(at);
        }
    }
}
