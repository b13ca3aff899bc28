//! One publisher's connection: lines in, receipts out, both with backpressure. Receipts come in the lines' order, but
//! those that wait for clients' acknowledgements or ask about rooms and sockets come when these are in. Knows the
//! shard, not the socket.

use super::queries::Finding;
use crate::base::counters;
use crate::base::event::Event;
use crate::base::ids::{CoreId, NamespaceRef, Offset, RoomName, SlotRef};
use crate::base::secret::Secret;
use crate::proto::line::{self, Acks, Emit, Line, LineError, OpKind, Parser, Receipt, Request};
use crate::proto::raw;
use crate::shard::messages::{Facts, ReceiptTo};
use crate::shard::{self, AskOptions, NamedOperation, Shard};
use smallvec::{SmallVec, smallvec};
use std::collections::{HashMap, VecDeque};

/// Bounds of publishers' connections.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Longest line, without its ending. A longer one is skipped and answered with an error.
    pub line_bytes_max: usize,
    /// Receipts that may wait for the publisher to read them, in bytes; beyond, its lines wait. Also what one line's
    /// receipt may hold of clients' answers.
    pub receipt_bytes_max: usize,
    /// Rooms and exceptions that one line may name.
    pub rooms_per_line_max: usize,
    /// Length of a room's name.
    pub room_name_bytes_max: usize,
    /// How long a line may wait for clients' acknowledgements.
    pub ack_timeout_ms_max: u64,
}

/// Lines without an answer yet; beyond, the publisher's next lines wait. An answer takes one trip between cores, so
/// that this many keep any publisher busy.
const UNANSWERED_MAX: usize = 16_384;

/// Lines of one publisher that wait for acknowledgements; a further one is refused. It cannot wait, as all lines behind
/// it would have to wait with it, for clients that may never answer.
const ASKS_MAX: usize = 1024;

/// Questions of one publisher under way; beyond, its next lines wait. Each may have as many rooms in hand as one
/// answer.
const FINDINGS_MAX: usize = 16;

/// Longest line of a publisher that has not said the token: enough for the token and an id.
const LOCKED_LINE_BYTES_MAX: usize = 4096;

/// The answer to whoever takes this port for another.
const NOT_HTTP: &str = "this port takes lines of JSON, not HTTP; the operators' port has POST /api/emit; the \
    connection is closed";

/// The answer to whoever does not begin with the token.
const LOCKED: &str = "this port wants a token: the first line must be {\"op\":\"auth\",\"token\":\"…\"}, as the \
    server's ingest.token_file says; the connection is closed";

/// Set in the tickets of lines that wait for acknowledgements, and of questions. They stand apart from the others,
/// whose order they would hold up.
const APART: u64 = 1 << 63;

/// What several publishers of one core share.
#[derive(Debug)]
pub struct Desk {
    options: Options,
    parser: Parser,
    limits: line::Limits,
    /// By namespace: true if clients get its events as flat objects.
    flat: Vec<bool>,
    /// What publishers say who come in over the network; `None`: they need not.
    token: Option<Secret>,
}

impl Desk {
    /// `flat` tells for each namespace whether an endpoint shows its events as flat objects.
    #[must_use]
    pub fn new(options: Options, flat: Vec<bool>) -> Desk {
        Desk { options, parser: Parser::default(), limits: limits(&options), flat, token: None }
    }

    /// From here on all this holds. Whoever has said the former token need not say the new one.
    pub fn change(&mut self, options: Options, flat: Vec<bool>, token: Option<Secret>) {
        self.limits = limits(&options);
        (self.options, self.flat, self.token) = (options, flat, token);
    }

    /// Wants this token from publishers that come in over the network.
    #[must_use]
    pub fn with_token(self, token: Option<Secret>) -> Desk {
        Desk { token, ..self }
    }

    /// A publisher that comes in over the network.
    #[must_use]
    pub fn stranger(&self) -> Publisher {
        Publisher { locked: self.token.is_some(), ..Publisher::default() }
    }
}

fn limits(options: &Options) -> line::Limits {
    line::Limits {
        room_name_bytes_max: options.room_name_bytes_max,
        rooms_max: options.rooms_per_line_max,
        ack_timeout_ms_max: options.ack_timeout_ms_max,
        ..line::Limits::default()
    }
}

/// One publisher's connection.
#[derive(Debug, Default)]
pub struct Publisher {
    /// Bytes received and not handled: less than one line, unless handling is paused.
    inbox: Vec<u8>,
    /// Bytes at the start of `inbox` that are handled.
    handled: usize,
    /// True while the rest of a too long line is skipped.
    skipping: bool,
    /// True once the publisher will send no more.
    ended: bool,
    /// True once no more is taken from the publisher: a line that is not whole is dropped.
    stopped: bool,
    /// True once the beginning of a line was dropped, which counts among `lines`.
    cut: bool,
    /// True while it is to be told that no more is taken from it.
    owes_notice: bool,
    /// True until it has said the token.
    locked: bool,
    /// Set once it is sent away, to the reason's label.
    refused: Option<&'static str>,
    lines: u64,
    /// Lines whose answers are missing or wait for an earlier one's, in the order of the lines.
    unanswered: VecDeque<Answer>,
    /// The ticket of the first of `unanswered`.
    first_ticket: u64,
    /// Lines that wait for acknowledgements, by ticket. Each is answered when it has all, whatever came before it.
    asking: HashMap<u64, Asking>,
    /// Counts `asking` and `finding`, for the tickets.
    asks: u64,
    /// Questions that wait for cores, by ticket. Each is answered when all have told, whatever came before it.
    finding: HashMap<u64, Finding>,
    /// The operation that must be done before the next line is handled.
    barrier: Option<u64>,
    /// Answers to be sent.
    outbox: Vec<u8>,
}

#[derive(Debug)]
struct Answer {
    /// The line's id as JSON; a line without one is not answered, unless it is bad.
    id: Option<Box<str>>,
    line: u64,
    content: Content,
}

/// A line that wants to know what clients answer.
#[derive(Debug)]
struct Asking {
    id: Box<str>,
    places: Places,
    /// Set once nobody is waited for any more.
    acks: Option<Box<Acks>>,
}

/// An event's places in the orders of its rooms, as far as they are known.
#[derive(Debug)]
struct Places {
    /// None for the whole namespace.
    rooms: SmallVec<[RoomName; 1]>,
    offsets: SmallVec<[Option<Offset>; 1]>,
    missing: u32,
}

#[derive(Debug)]
enum Content {
    Offsets(Places),
    Operation { cores_missing: usize, sockets: u32, refused: u32 },
    Done,
    Error(Box<str>),
}

/// Why [`Publisher::work`] came to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    /// All whole lines are handled.
    Hungry,
    /// Lines wait for the rings, for an operation, or for the publisher to read its receipts.
    Paused,
    /// Lines wait for the next turn.
    Budget,
    /// The publisher has ended and has all its answers, once the outbox is sent.
    Done,
    /// The publisher is sent away, once the outbox is sent: the reason's label.
    Refused(&'static str),
}

impl Publisher {
    /// A new connection that needs no token; see [`Desk::stranger`].
    #[must_use]
    pub fn new() -> Publisher {
        Publisher::default()
    }

    /// True until it has said the token that it must say.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.locked
    }

    /// The publisher will send no more. A last line without ending counts: a line that was cut short is no JSON object.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// No more is taken from the publisher, as the process ends: whole lines that are here are still handled. If
    /// `tell`, it gets to know which lines were not, behind all other answers.
    pub fn stop(&mut self, tell: bool) {
        self.ended = true;
        self.stopped = true;
        self.owes_notice = tell && !self.locked;
    }

    /// Answers to be sent. The driver removes what it got rid of.
    pub fn outbox(&mut self) -> &mut Vec<u8> {
        &mut self.outbox
    }

    /// True while lines are here that could not be handled yet: the driver must not read more.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.handled < self.inbox.len() && self.inbox[self.handled..].contains(&b'\n')
    }

    /// Handles lines: what waited, then `fresh` bytes. Takes `bytes_max` bytes or a little more, then stops. What it
    /// does not handle it keeps.
    pub fn work(
        &mut self,
        fresh: &[u8],
        desk: &mut Desk,
        shard: &mut Shard,
        me: SlotRef,
        bytes_max: usize,
    ) -> Progress {
        shard.counters.ingest_bytes += fresh.len() as u64;
        let mut taken = std::mem::take(&mut self.inbox);
        // The usual case: nothing waited, and whole lines came. They are read where they are.
        let (buffer, start) = if taken.is_empty() {
            (fresh, 0)
        } else {
            taken.extend_from_slice(fresh);
            (&taken[..], std::mem::take(&mut self.handled))
        };
        let (handled, progress) = self.handle(buffer, start, desk, shard, me, bytes_max);
        if taken.is_empty() {
            self.inbox = fresh[handled..].to_vec();
            self.handled = 0;
        } else if handled == taken.len() {
            taken.clear();
            // A large burst's memory is not kept by an idle connection.
            taken.shrink_to(4096);
            self.inbox = taken;
            self.handled = 0;
        } else if handled > taken.len() / 2 {
            taken.drain(..handled);
            self.inbox = taken;
            self.handled = 0;
        } else {
            self.inbox = taken;
            self.handled = handled;
        }
        progress
    }

    /// An event of this publisher has its place in one of its rooms.
    pub fn receipt(&mut self, to: ReceiptTo, room: u32, offset: Offset) {
        if to.ticket & APART != 0 {
            let asking = self.asking.get_mut(&to.ticket).expect("it waits for its places");
            asking.places.take(room, offset);
            return self.settle_ask(to.ticket);
        }
        let answer = self.answer(to);
        let Content::Offsets(places) = &mut answer.content else { unreachable!("owners give receipts for events") };
        places.take(room, offset);
        self.settle();
    }

    /// Clients have acknowledged an event of this publisher, or their time is over.
    pub fn acknowledged(&mut self, to: ReceiptTo, acks: Box<Acks>) {
        let asking = self.asking.get_mut(&to.ticket).expect("a line that asked waits for it");
        assert!(asking.acks.replace(acks).is_none(), "an ask ends once");
        self.settle_ask(to.ticket);
    }

    /// One core has applied an operation of this publisher.
    pub fn operated(&mut self, to: ReceiptTo, sockets: u32, refused: u32) {
        let answer = self.answer(to);
        let Content::Operation { cores_missing, sockets: all, refused: all_refused } = &mut answer.content else {
            unreachable!("cores report operations")
        };
        *cores_missing -= 1;
        *all += sockets;
        *all_refused += refused;
        if *cores_missing == 0 && self.barrier == Some(to.ticket) {
            self.barrier = None;
        }
        self.settle();
    }

    /// One core has told what this publisher asked about.
    pub fn found(&mut self, to: ReceiptTo, core: CoreId, facts: Facts) {
        let finding = self.finding.get_mut(&to.ticket).expect("a question waits for its cores");
        finding.take(core, facts);
        self.settle_finding(to.ticket);
    }

    fn settle_finding(&mut self, ticket: u64) {
        if self.finding[&ticket].is_complete()
            && let Some(finding) = self.finding.remove(&ticket)
        {
            finding.write(&mut self.outbox);
        }
    }

    fn answer(&mut self, to: ReceiptTo) -> &mut Answer {
        let index = usize::try_from(to.ticket - self.first_ticket).expect("tickets are given in order");
        &mut self.unanswered[index]
    }

    fn handle(
        &mut self,
        buffer: &[u8],
        start: usize,
        desk: &mut Desk,
        shard: &mut Shard,
        me: SlotRef,
        bytes_max: usize,
    ) -> (usize, Progress) {
        let mut at = start;
        loop {
            if let Some(label) = self.refused {
                // What is owed for earlier lines is still told.
                let owes = !self.unanswered.is_empty();
                return (buffer.len(), if owes { Progress::Hungry } else { Progress::Refused(label) });
            }
            if self.must_wait(desk, shard) {
                return (at, Progress::Paused);
            }
            if at - start >= bytes_max {
                return (at, Progress::Budget);
            }
            let rest = &buffer[at..];
            let (line, bytes) = match line::split_line(rest, 0) {
                Some(found) => found,
                None if self.stopped && !rest.is_empty() => {
                    self.cut = true;
                    (&rest[..0], rest.len())
                }
                None if self.ended && !rest.is_empty() => (rest, rest.len()),
                None => {
                    if !rest.is_empty() && (self.skipping || rest.len() > self.line_bytes_max(desk)) {
                        self.skip(rest, desk, shard);
                        return (buffer.len(), self.refused.map_or(Progress::Hungry, Progress::Refused));
                    }
                    let waits = !self.unanswered.is_empty() || !self.asking.is_empty() || !self.finding.is_empty();
                    let done = self.ended && !waits;
                    if done && std::mem::take(&mut self.owes_notice) {
                        line::write_draining(&mut self.outbox, self.lines + u64::from(!self.cut));
                    }
                    return (at, if done { Progress::Done } else { Progress::Hungry });
                }
            };
            at += bytes;
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            self.lines += 1;
            if line.len() > self.line_bytes_max(desk) {
                self.too_long(line, desk, shard);
            } else if !line.is_empty() {
                self.line(line, desk, shard, me);
            }
        }
    }

    /// True while no further line may be handled.
    fn must_wait(&self, desk: &Desk, shard: &Shard) -> bool {
        self.barrier.is_some()
            || self.unanswered.len() >= UNANSWERED_MAX
            || self.finding.len() >= FINDINGS_MAX
            || self.outbox.len() >= desk.options.receipt_bytes_max
            || !shard.may_publish()
    }

    /// The rest of a line that is too long already is thrown away as it comes.
    fn skip(&mut self, line: &[u8], desk: &Desk, shard: &mut Shard) {
        if !std::mem::replace(&mut self.skipping, true) {
            self.lines += 1;
            self.too_long(line, desk, shard);
        }
    }

    fn line_bytes_max(&self, desk: &Desk) -> usize {
        let max = desk.options.line_bytes_max;
        if self.locked { max.min(LOCKED_LINE_BYTES_MAX) } else { max }
    }

    /// `line` is the beginning of one at least.
    fn too_long(&mut self, line: &[u8], desk: &Desk, shard: &mut Shard) {
        if self.locked {
            shard.counters.lines += 1;
            return self.send_away(None, LOCKED, "auth_missing", shard);
        }
        // A request's address may be as long as a browser lets it: its body must not be heard for that.
        if self.lines == 1 && !line.starts_with(b"{") {
            shard.counters.lines += 1;
            return self.send_away(None, NOT_HTTP, "http", shard);
        }
        let message = format!(
            "the line has more than {} bytes; send less data in one event or raise ingest.line_bytes_max",
            desk.options.line_bytes_max
        );
        shard.counters.lines += 1;
        self.refuse(LineError { id: None, message, label: "line_too_long" }, shard);
    }

    /// The first line of a publisher that must say the token.
    fn unlock(&mut self, text: &[u8], desk: &mut Desk, shard: &mut Shard) {
        match desk.parser.parse(text, &desk.limits) {
            Ok(Line { id, request: Request::Auth { token }, .. }) => {
                let id = id.map(ToOwned::to_owned);
                self.check_token(id, &token, desk.token.as_ref(), shard);
            }
            Ok(Line { id, .. }) => self.send_away(id.map(ToOwned::to_owned), LOCKED, "auth_missing", shard),
            Err(error) => self.send_away(error.id, LOCKED, "auth_missing", shard),
        }
    }

    /// A token that is right, or that nobody wants, is answered; with a wrong one the connection ends.
    fn check_token(&mut self, id: Option<String>, token: &str, wanted: Option<&Secret>, shard: &mut Shard) {
        if wanted.is_some_and(|wanted| !wanted.is(token.as_bytes())) {
            let message = "the token is not the one in the server's ingest.token_file; the connection is closed";
            return self.send_away(id, message, "token_invalid", shard);
        }
        self.locked = false;
        self.unanswered.push_back(Answer { id: id.map(Into::into), line: self.lines, content: Content::Done });
        self.settle();
    }

    fn send_away(&mut self, id: Option<String>, message: &str, label: &'static str, shard: &mut Shard) {
        self.refused = Some(label);
        self.refuse(LineError { id, message: message.to_owned(), label }, shard);
    }

    fn line(&mut self, text: &[u8], desk: &mut Desk, shard: &mut Shard, me: SlotRef) {
        shard.counters.lines += 1;
        if self.locked {
            return self.unlock(text, desk, shard);
        }
        if self.lines == 1 && is_http(text) {
            return self.send_away(None, NOT_HTTP, "http", shard);
        }
        let to =
            ReceiptTo { core: shard.core(), publisher: me, ticket: self.first_ticket + self.unanswered.len() as u64 };
        let handled = desk.parser.parse(text, &desk.limits).and_then(|Line { id, namespace: name, request }| {
            let Some(namespace) = shard.namespace(&name) else {
                return Err(LineError {
                    id: id.map(ToOwned::to_owned),
                    message: format!("there is no namespace {name:?}; the config names those that exist"),
                    label: "unknown_namespace",
                });
            };
            self.request(id, request, (namespace, &name), to, desk, shard)
        });
        if let Err(error) = handled {
            self.refuse(error, shard);
        }
    }

    fn request(
        &mut self,
        id: Option<&str>,
        request: Request<'_>,
        (namespace, name): (NamespaceRef<'_>, &str),
        mut to: ReceiptTo,
        desk: &Desk,
        shard: &mut Shard,
    ) -> Result<(), LineError> {
        let content = match request {
            Request::Emit(emit) => {
                let names = emit.rooms.clone();
                let line = event_line(namespace, emit, desk, id)?;
                let asks = line.ask.is_some();
                if asks {
                    to.ticket = self.ask_ticket(id)?;
                }
                let missing = shard.publish(line, id.is_some().then_some(to));
                let Some(id) = id else { return Ok(()) };
                let places = Places { rooms: names, offsets: smallvec![None; missing as usize], missing };
                if asks {
                    self.asking.insert(to.ticket, Asking { id: id.into(), places, acks: None });
                    return Ok(());
                }
                Content::Offsets(places)
            }
            Request::Op(op) => {
                let operation = match op.kind {
                    OpKind::Join => NamedOperation::Join(op.rooms),
                    OpKind::Leave => NamedOperation::Leave(op.rooms),
                    OpKind::Disconnect { close } => NamedOperation::Disconnect { close },
                };
                shard.operate(namespace, op.target, operation, to);
                self.barrier = Some(to.ticket);
                Content::Operation { cores_missing: shard.topology().cores(), sockets: 0, refused: 0 }
            }
            Request::Query(query) => {
                let id = id.expect("a question has an id");
                self.asks += 1;
                to.ticket = APART | self.asks;
                let missing = shard.query(namespace, &query, to);
                let cores = shard.topology().cores();
                let finding = Finding::new(id, name, query, shard.uptime_ms(), cores, missing);
                self.finding.insert(to.ticket, finding);
                self.settle_finding(to.ticket);
                return Ok(());
            }
            Request::Auth { token } => {
                self.check_token(id.map(ToOwned::to_owned), &token, desk.token.as_ref(), shard);
                return Ok(());
            }
        };
        self.unanswered.push_back(Answer { id: id.map(Into::into), line: self.lines, content });
        Ok(())
    }

    /// A ticket for a line that asks for acknowledgements.
    fn ask_ticket(&mut self, id: Option<&str>) -> Result<u64, LineError> {
        if self.asking.len() >= ASKS_MAX {
            let message = format!(
                "{ASKS_MAX} lines of this connection wait for acknowledgements already; wait for a receipt, or ask for \
                 a shorter timeout_ms"
            );
            return Err(LineError { id: id.map(ToOwned::to_owned), message, label: "too_many_asks" });
        }
        self.asks += 1;
        Ok(APART | self.asks)
    }

    fn refuse(&mut self, error: LineError, shard: &mut Shard) {
        shard.counters.count(counters::LINE_ERRORS, error.label);
        let content = Content::Error(error.message.into());
        self.unanswered.push_back(Answer { id: error.id.map(Into::into), line: self.lines, content });
        self.settle();
    }

    /// Writes the answers that are complete, in the lines' order.
    fn settle(&mut self) {
        while let Some(answer) = self.unanswered.front() {
            let id = answer.id.as_deref();
            match (&answer.content, id) {
                (Content::Offsets(Places { missing: 1.., .. }) | Content::Operation { cores_missing: 1.., .. }, _) => {
                    return;
                }
                (Content::Error(message), id) => line::write_error(&mut self.outbox, id, message, answer.line),
                (_, None) => {}
                (Content::Done, Some(id)) => line::write_receipt(&mut self.outbox, id, Receipt::Done, None),
                (Content::Offsets(places), Some(id)) => places.write(&mut self.outbox, id, None),
                (Content::Operation { sockets, refused, .. }, Some(id)) => {
                    let receipt = Receipt::Sockets { applied: u64::from(*sockets), refused: u64::from(*refused) };
                    line::write_receipt(&mut self.outbox, id, receipt, None);
                }
            }
            self.unanswered.pop_front();
            self.first_ticket += 1;
        }
    }

    /// Writes the answer to a line that asked for acknowledgements, if it is complete.
    fn settle_ask(&mut self, ticket: u64) {
        if self.asking[&ticket].places.missing > 0 || self.asking[&ticket].acks.is_none() {
            return;
        }
        if let Some(Asking { id, places, acks }) = self.asking.remove(&ticket) {
            places.write(&mut self.outbox, &id, acks.as_deref());
        }
    }
}

impl Places {
    fn take(&mut self, room: u32, offset: Offset) {
        assert!(self.offsets[room as usize].replace(offset).is_none(), "one receipt for each room");
        self.missing -= 1;
    }

    /// Appends the line's receipt.
    fn write(&self, out: &mut Vec<u8>, id: &str, acks: Option<&Acks>) {
        let mut offsets = self.offsets.iter().map(|offset| offset.expect("none is missing"));
        let mut pairs: SmallVec<[(RoomName, Offset); 1]> = SmallVec::new();
        let receipt = if self.rooms.len() > 1 {
            pairs.extend(self.rooms.iter().cloned().zip(offsets));
            Receipt::Offsets(&pairs)
        } else {
            Receipt::Offset(offsets.next().expect("an event is for one room at least"))
        };
        line::write_receipt(out, id, receipt, acks);
    }
}

/// True for a request line. A web page can have a browser on this host send one here, with lines of its choice in the
/// body: so whoever begins in this way is not listened to any further.
fn is_http(line: &[u8]) -> bool {
    !line.starts_with(b"{") && memchr::memmem::find(line, b" HTTP/1.").is_some()
}

/// The line's event, ready to be published.
fn event_line(
    namespace: NamespaceRef<'_>,
    emit: Emit<'_>,
    desk: &Desk,
    id: Option<&str>,
) -> Result<shard::Line, LineError> {
    let Emit { rooms, except, name_json, args, arg_count, attachments, key, volatile, ack_timeout_ms } = emit;
    let mut event = Event::new(namespace, name_json, &args, arg_count);
    event.attachments = attachments;
    if desk.flat[usize::from(namespace.id.0)] && raw::flat_conflict(&event) {
        return Err(LineError {
            id: id.map(ToOwned::to_owned),
            message: format!(
                "\"data\" has a field \"type\" other than the event's name {name_json}, and this namespace's raw \
                 clients get data's fields beside \"type\"; rename the field or use shape = \"nested\""
            ),
            label: "type_conflict",
        });
    }
    let answer_bytes_max = desk.options.receipt_bytes_max;
    let ask = ack_timeout_ms.map(|timeout_ms| AskOptions { timeout_ms, answer_bytes_max });
    Ok(shard::Line { event, rooms, except, key: key.map(Into::into), volatile, ask })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::class::Classes;
    use crate::base::clock::Millis;
    use crate::base::ids::Topology;
    use crate::mesh;
    use crate::room::owner;
    use crate::session::namespace::{NamePattern, NamespaceName};
    use crate::session::rules::{NamespaceRules, RulesSource};
    use crate::session::{HeartbeatOptions, Kind, LimitOptions};
    use crate::shard::{Action, Handshake, Namespace};
    use proptest::prelude::*;

    const ME: SlotRef = SlotRef { slot: 3, generation: 5 };

    struct Bench {
        desk: Desk,
        shard: Shard,
        publisher: Publisher,
    }

    impl Bench {
        fn new() -> Bench {
            let port = mesh::connect(1, mesh::Options { slots: 1 << 12 }).remove(0);
            let source = RulesSource { name: Some("/".into()), ..RulesSource::default() };
            let rules = NamespaceRules::compile(&source).unwrap();
            let options = shard::Options {
                heartbeat: HeartbeatOptions {
                    ping_interval_ms: 1 << 40,
                    ping_timeout_ms: 1,
                    connect_timeout_ms: 1,
                    upgrade_timeout_ms: 1,
                },
                limits: LimitOptions {
                    namespace_bytes_max: 20,
                    rooms_per_socket_max: 1,
                    room_name_bytes_max: 20,
                    outbox_bytes_max: 1000,
                    ..LimitOptions::default()
                },
                rooms: owner::Options { idle_ms: 1000, idle_max: 1000, ..owner::Options::default() },
                ..shard::Options::default()
            };
            let pattern = NamePattern::compile("^/w-[^x]*$").unwrap();
            let every_w = RulesSource { pattern: Some("/w-.*".into()), ..RulesSource::default() };
            let every_w = NamespaceRules::compile(&every_w).unwrap();
            let namespaces = vec![
                Namespace { name: "/".into(), rules, classes: Classes::default() },
                Namespace { name: NamespaceName::Pattern(pattern), rules: every_w, classes: Classes::default() },
            ];
            let shard = Shard::new(port, Topology::new(1, 1), namespaces, options, [0; 32], Millis(0), 1);
            let options = Options {
                line_bytes_max: 80,
                receipt_bytes_max: 1 << 20,
                rooms_per_line_max: 4,
                room_name_bytes_max: 20,
                ack_timeout_ms_max: 1_000,
            };
            Bench { desk: Desk::new(options, vec![false, false]), shard, publisher: Publisher::new() }
        }

        /// Hands over bytes and lets the shard come to rest.
        fn hand(&mut self, bytes: &[u8], bytes_max: usize) -> Progress {
            let mut fresh = bytes;
            loop {
                let progress = self.publisher.work(fresh, &mut self.desk, &mut self.shard, ME, bytes_max);
                fresh = &[];
                let mut acted = self.shard.receive(usize::MAX, Millis(1)) < usize::MAX;
                while let Some(action) = self.shard.poll_action() {
                    acted = true;
                    match action {
                        Action::Receipt { to, room, offset } => self.publisher.receipt(to, room, offset),
                        Action::Operated { to, sockets, refused } => self.publisher.operated(to, sockets, refused),
                        Action::Acknowledged { to, acks } => self.publisher.acknowledged(to, acks),
                        Action::Found { to, core, facts } => self.publisher.found(to, core, facts),
                        other => panic!("{other:?} without clients"),
                    }
                }
                if !acted && progress != Progress::Budget {
                    return progress;
                }
            }
        }

        /// A Socket.IO client that is in the namespace.
        fn client(&mut self) -> SlotRef {
            let transport = SlotRef { slot: 0, generation: 0 };
            let ip = std::net::Ipv4Addr::LOCALHOST.into();
            let handshake =
                Handshake { kind: Kind::SocketIo, query: "", bearer: None, ip, polls: false, message_bytes_max: 100 };
            let session = self.shard.open(transport, handshake, Millis(0));
            let _ = self.shard.text(session, "40", Millis(0));
            self.shard.receive(usize::MAX, Millis(0));
            assert_eq!(self.shard.poll_action(), Some(Action::Resume { transport }));
            self.shard.outboxes.clear(session.slot);
            session
        }

        fn answers(&mut self) -> String {
            String::from_utf8(std::mem::take(self.publisher.outbox())).unwrap()
        }
    }

    const LINES: &str = "{\"room\":\"a\",\"event\":\"x\",\"id\":1}\n\
        \r\n\
        {\"rooms\":[\"a\",\"b\"],\"event\":\"x\",\"id\":\"two\"}\r\n\
        garbage\n\
        {\"room\":\"a\",\"event\":\"no receipt wanted\"}\n\
        {\"room\":\"a\",\"event\":\"x\",\
        \"data\":\"eighty bytes are what this desk takes, and these are more than that\",\"id\":6}\n\
        {\"op\":\"join\",\"where\":{\"room\":\"a\"},\"rooms\":[\"b\"],\"id\":7}\n\
        {\"ns\":\"/other\",\"event\":\"x\",\"id\":8}\n\
        {\"event\":\"x\",\"id\":9}\n";
    const ANSWERS: &str = "{\"id\":1,\"ok\":true,\"offset\":1}\n\
        {\"id\":\"two\",\"ok\":true,\"offsets\":{\"a\":2,\"b\":1}}\n\
        {\"id\":null,\"ok\":false,\
        \"error\":\"the line is not valid JSON: expected a value, found 'g' at byte 0\",\"line\":4}\n\
        {\"id\":null,\"ok\":false,\
        \"error\":\"the line has more than 80 bytes; send less data in one event or raise ingest.line_bytes_max\",\
        \"line\":6}\n\
        {\"id\":7,\"ok\":true,\"sockets\":0}\n\
        {\"id\":8,\"ok\":false,\
        \"error\":\"there is no namespace \\\"/other\\\"; the config names those that exist\",\"line\":8}\n\
        {\"id\":9,\"ok\":true,\"offset\":1}\n";

    #[test]
    fn lines_are_answered_in_their_order_and_bad_ones_disturb_nobody() {
        let mut bench = Bench::new();
        assert_eq!(bench.hand(LINES.as_bytes(), 1 << 20), Progress::Hungry);
        assert_eq!(bench.answers(), ANSWERS);
    }

    #[test]
    fn each_name_of_a_pattern_is_a_namespace_of_its_own() {
        let mut bench = Bench::new();
        // (namespace, room, what comes back)
        for (ns, room, answer) in [
            ("/w-1", "\"room\":\"a\",", "\"ok\":true,\"offset\":1"),
            ("/w-1", "\"room\":\"a\",", "\"ok\":true,\"offset\":2"),
            ("/w-2", "\"room\":\"a\",", "\"ok\":true,\"offset\":1"),
            ("/", "\"room\":\"a\",", "\"ok\":true,\"offset\":1"),
            ("/w-1", "", "\"ok\":true,\"offset\":1"),
            ("/w-1", "\"rooms\":[\"a\",\"b\"],", "\"ok\":true,\"offsets\":{\"a\":3,\"b\":1}"),
            ("/w-", "", "\"ok\":true,\"offset\":1"),
            // Too long by one, of no pattern, or nothing that a packet can carry.
            ("/w-45678901234567890", "", "\"ok\":true,\"offset\":1"),
            ("/w-456789012345678901", "", "there is no namespace"),
            ("/w-x", "", "there is no namespace"),
            ("/w-1,", "", "there is no namespace"),
            ("/w-1?", "", "there is no namespace"),
            ("/w-1\\u0000a", "", "there is no namespace"),
        ] {
            let _ = bench.hand(format!("{{\"ns\":\"{ns}\",{room}\"event\":\"x\",\"id\":1}}\n").as_bytes(), 1 << 20);
            let found = bench.answers();
            assert!(found.contains(answer), "{ns} {room}: {found}");
        }
    }

    #[test]
    fn a_last_line_without_ending_counts_and_a_torn_one_does_not() {
        let mut bench = Bench::new();
        let _ = bench.hand(b"{\"room\":\"a\",\"event\":\"x\",\"id\":1}", 1 << 20);
        assert_eq!(bench.answers(), "", "it may go on");
        bench.publisher.end();
        assert_eq!(bench.hand(b"", 1 << 20), Progress::Done);
        assert_eq!(bench.answers(), "{\"id\":1,\"ok\":true,\"offset\":1}\n");

        let mut bench = Bench::new();
        let _ = bench.hand(b"{\"room\":\"a\",\"event\":\"x\",\"i", 1 << 20);
        bench.publisher.end();
        assert_eq!(bench.hand(b"", 1 << 20), Progress::Done);
        assert!(bench.answers().starts_with("{\"id\":null,\"ok\":false,"), "it is no JSON object");
        assert_eq!(bench.shard.counters.events_ordered, 0);
    }

    #[test]
    fn who_must_say_a_token_says_it_first() {
        let token = "0123456789abcdef";
        let right = format!("{{\"op\":\"auth\",\"token\":\"{token}\",\"id\":1}}");
        let event = "{\"event\":\"x\",\"id\":2}";
        let wrong = right.replace('f', "e");
        let ok = "{\"id\":1,\"ok\":true}\n";
        let offset = "{\"id\":2,\"ok\":true,\"offset\":1}\n";
        let long = "x".repeat(LOCKED_LINE_BYTES_MAX + 1);
        // (locked, lines, what comes back, why it is closed)
        for (locked, lines, answer, closed) in [
            (true, format!("{right}\n{event}\n"), format!("{ok}{offset}"), None),
            (true, format!("\r\n{right}\n"), ok.to_owned(), None),
            (true, right.replace(",\"id\":1", "") + "\n", String::new(), None),
            (true, format!("{wrong}\n{event}\n"), "{\"id\":1,\"ok\":false,".to_owned(), Some("token_invalid")),
            (true, format!("{event}\n{right}\n"), "{\"id\":2,\"ok\":false,".to_owned(), Some("auth_missing")),
            (true, "bad\n".to_owned(), "{\"id\":null,\"ok\":false,".to_owned(), Some("auth_missing")),
            (true, long.clone(), "{\"id\":null,\"ok\":false,".to_owned(), Some("auth_missing")),
            (true, long + "\n", "{\"id\":null,\"ok\":false,".to_owned(), Some("auth_missing")),
            (
                false,
                format!("POST / HTTP/1.1\r\nHost: a\r\n\r\n{event}\n"),
                "{\"id\":null,\"ok\":false,".to_owned(),
                Some("http"),
            ),
            (
                false,
                format!("POST /{} HTTP/1.1\r\nHost: a\r\n\r\n{event}\n", "a".repeat(1 << 20)),
                "{\"id\":null,\"ok\":false,".to_owned(),
                Some("http"),
            ),
            (false, format!("{event}\n{right}\n"), format!("{offset}{ok}"), None),
            (
                false,
                format!("{event}\n{wrong}\n{event}\n"),
                offset.to_owned() + "{\"id\":1,\"ok\":false,",
                Some("token_invalid"),
            ),
        ] {
            let mut bench = Bench::new();
            let limits = Options { line_bytes_max: 1 << 20, ..bench.desk.options };
            bench.desk = Desk::new(limits, vec![false, false]).with_token(Some(Secret::new(token).unwrap()));
            if locked {
                bench.publisher = bench.desk.stranger();
            }
            let progress = bench.hand(lines.as_bytes(), 1 << 20);
            let answers = bench.answers();
            assert!(answers.starts_with(&answer), "{lines}: {answers}");
            assert_eq!(answers.lines().count(), answer.lines().count(), "{answers}");
            assert!(!answers.contains(token));
            assert_eq!(progress, closed.map_or(Progress::Hungry, Progress::Refused), "{lines}");
            assert_eq!(bench.publisher.is_locked(), closed.is_some() && locked);
            let counted = bench.shard.counters.by_reason.iter().any(|(_, reason, _)| Some(*reason) == closed);
            assert_eq!(counted, closed.is_some());
        }
        let mut bench = Bench::new();
        bench.publisher = bench.desk.stranger();
        let _ = bench.hand(format!("{wrong}\n").as_bytes(), 1 << 20);
        assert_eq!(bench.answers(), ok, "where nobody wants a token, any will do");
    }

    #[test]
    fn questions_are_answered_when_all_cores_have_told() {
        let mut bench = Bench::new();
        let client = bench.client();
        let lines = "{\"room\":\"a\",\"event\":\"x\",\"id\":1}\n\
            {\"op\":\"rooms\",\"id\":2}\n\
            {\"op\":\"room\",\"room\":\"a\",\"id\":3}\n\
            {\"op\":\"room\",\"room\":\"b\",\"id\":4}\n\
            {\"op\":\"socket\",\"sid\":\"nobody\",\"id\":5}\n\
            {\"op\":\"stats\",\"id\":6}\n\
            {\"op\":\"room\",\"ns\":\"/q\",\"room\":\"b\",\"id\":7}\n";
        let _ = bench.hand(lines.as_bytes(), 1 << 20);
        let mut answers: Vec<serde_json::Value> =
            bench.answers().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        answers.sort_by_key(|answer| answer["id"].as_u64());
        let keys = ["offset", "rooms", "room", "room", "socket", "stats", "error"];
        assert_eq!(answers.len(), keys.len());
        for (index, (answer, key)) in answers.iter().zip(keys).enumerate() {
            assert!(answer["id"] == index + 1 && answer.get(key).is_some(), "{answer}");
        }
        assert_eq!(answers[1]["rooms"][0]["name"], "a");
        assert_eq!((&answers[2]["room"]["offset"], &answers[2]["room"]["bytes"]), (&1.into(), &3.into()));
        assert!(answers[3]["room"].is_null() && answers[4]["socket"].is_null());
        assert_eq!((&answers[5]["stats"]["sockets"], &answers[5]["stats"]["ns_sockets"]), (&1.into(), &1.into()));
        bench.shard.closed(client);
        // A publisher that has ended gets its answers first.
        bench.publisher.end();
        let lines = "{\"op\":\"rooms\",\"id\":1}\n".repeat(3 * FINDINGS_MAX);
        assert_eq!(bench.hand(lines.as_bytes(), 1 << 20), Progress::Done);
        assert_eq!(bench.answers().lines().count(), 3 * FINDINGS_MAX);
    }

    #[test]
    fn a_line_that_waits_for_clients_holds_up_nobody() {
        let mut bench = Bench::new();
        let client = bench.client();
        let lines = "{\"event\":\"x\",\"id\":1,\"ack\":{\"timeout_ms\":10}}\n\
            {\"event\":\"y\",\"id\":2}\n\
            {\"rooms\":[\"a\",\"b\"],\"event\":\"z\",\"id\":3,\"ack\":{\"timeout_ms\":10}}\n\
            {\"event\":\"x\",\"id\":4,\"ack\":{\"timeout_ms\":1001}}\n";
        let _ = bench.hand(lines.as_bytes(), 1 << 20);
        let answers = bench.answers();
        let answers: Vec<&str> = answers.lines().collect();
        assert_eq!(answers.len(), 3, "{answers:?}");
        assert_eq!(answers[0], "{\"id\":2,\"ok\":true,\"offset\":2}");
        let nobody = "\"ack\":{\"asked\":0,\"answers\":[],\"missing\":0}";
        let places = "\"offsets\":{\"a\":1,\"b\":1}";
        assert!(answers.contains(&&*format!("{{\"id\":3,\"ok\":true,{places},{nobody}}}")), "{answers:?}");
        assert!(answers[1..].iter().any(|answer| answer.contains("from 1 to 1000, not 1001")), "{answers:?}");
        bench.publisher.end();
        assert_eq!(bench.hand(b"", 1 << 20), Progress::Hungry, "one is missing");
        let _ = bench.shard.text(client, "432[7]", Millis(1));
        assert_eq!(bench.hand(b"", 1 << 20), Progress::Done);
        let answer = bench.answers();
        assert!(
            answer.starts_with("{\"id\":1,\"ok\":true,\"offset\":1,\"ack\":{\"asked\":1,\"answers\":[{\"sid\":\"")
                && answer.ends_with("\",\"args\":[7]}],\"missing\":0}}\n"),
            "{answer}"
        );
    }

    #[test]
    fn lines_that_wait_for_clients_are_bounded() {
        let mut bench = Bench::new();
        let client = bench.client();
        let line = "{\"event\":\"x\",\"id\":1,\"ack\":{\"timeout_ms\":10}}\n";
        for _ in 0..ASKS_MAX {
            let _ = bench.hand(line.as_bytes(), 1 << 20);
            bench.shard.outboxes.clear(client.slot);
        }
        assert_eq!(bench.answers(), "");
        let _ = bench.hand(line.as_bytes(), 1 << 20);
        assert!(bench.answers().contains("1024 lines of this connection wait"));
        let _ = bench.hand(b"{\"event\":\"x\",\"id\":2}\n", 1 << 20);
        assert!(bench.answers().starts_with("{\"id\":2,\"ok\":true,"), "others are not concerned");
        bench.shard.advance(Millis(10));
        let _ = bench.hand(b"", 1 << 20);
        assert_eq!(bench.answers().matches("\"missing\":1").count(), ASKS_MAX);
        bench.shard.outboxes.clear(client.slot);
        let _ = bench.hand(line.as_bytes(), 1 << 20);
        assert_eq!(bench.answers(), "", "there is room again");
    }

    #[test]
    fn receipts_that_nobody_reads_pause_the_lines() {
        let mut bench = Bench::new();
        bench.desk.options.receipt_bytes_max = 100;
        let lines = "{\"room\":\"a\",\"event\":\"x\",\"id\":1}\n".repeat(50);
        let mut answers = String::new();
        let mut progress = bench.hand(lines.as_bytes(), 1);
        assert_eq!(progress, Progress::Paused);
        assert!(bench.publisher.is_loaded());
        while progress == Progress::Paused {
            assert!(bench.publisher.outbox().len() < 200, "the bound holds, give or take one answer");
            answers += &bench.answers();
            progress = bench.hand(b"", 1);
        }
        answers += &bench.answers();
        assert_eq!(answers.lines().count(), 50);
        assert!(answers.ends_with("\"offset\":50}\n"));
    }

    proptest! {
        #[test]
        fn any_split_of_the_bytes_gives_the_same_answers(
            mut cuts in prop::collection::vec(0..LINES.len(), 0..12),
            bytes_max in 1usize..100,
        ) {
            cuts.sort_unstable();
            let mut bench = Bench::new();
            let mut from = 0;
            for cut in cuts.into_iter().chain([LINES.len()]) {
                let _ = bench.hand(&LINES.as_bytes()[from..cut], bytes_max);
                from = cut;
            }
            prop_assert_eq!(bench.answers(), ANSWERS);
        }
    }
}
