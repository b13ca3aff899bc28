//! One publisher's connection: lines in, receipts out, both with backpressure. Knows the shard, not the socket.

use crate::base::counters;
use crate::base::event::Event;
use crate::base::ids::{NamespaceRef, Offset, RoomName, SlotRef};
use crate::proto::line::{self, Emit, Line, LineError, OpKind, Parser, Receipt, Request};
use crate::proto::raw;
use crate::shard::messages::ReceiptTo;
use crate::shard::{self, NamedOperation, Shard};
use smallvec::{SmallVec, smallvec};
use std::collections::VecDeque;

/// Bounds of publishers' connections.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Longest line, without its ending. A longer one is skipped and answered with an error.
    pub line_bytes_max: usize,
    /// Receipts that may wait for the publisher to read them, in bytes; beyond, its lines wait.
    pub receipt_bytes_max: usize,
    /// Rooms and exceptions that one line may name.
    pub rooms_per_line_max: usize,
    /// Length of a room's name.
    pub room_name_bytes_max: usize,
}

/// Lines without an answer yet; beyond, the publisher's next lines wait. An answer takes one trip between cores, so
/// that this many keep any publisher busy.
const UNANSWERED_MAX: usize = 16_384;

/// What several publishers of one core share.
#[derive(Debug)]
pub struct Desk {
    options: Options,
    parser: Parser,
    limits: line::Limits,
    /// By namespace: true if clients get its events as flat objects.
    flat: Vec<bool>,
}

impl Desk {
    /// `flat` tells for each namespace whether an endpoint shows its events as flat objects.
    #[must_use]
    pub fn new(options: Options, flat: Vec<bool>) -> Desk {
        let limits = line::Limits {
            room_name_bytes_max: options.room_name_bytes_max,
            rooms_max: options.rooms_per_line_max,
            ..line::Limits::default()
        };
        Desk { options, parser: Parser::default(), limits, flat }
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
    lines: u64,
    /// Lines whose answers are missing or wait for an earlier one's, in the order of the lines.
    unanswered: VecDeque<Answer>,
    /// The ticket of the first of `unanswered`.
    first_ticket: u64,
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

#[derive(Debug)]
enum Content {
    Offsets { rooms: SmallVec<[RoomName; 1]>, offsets: SmallVec<[Option<Offset>; 1]>, missing: u32 },
    Operation { cores_missing: usize, sockets: u32, refused: u32 },
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
}

impl Publisher {
    /// A new connection.
    #[must_use]
    pub fn new() -> Publisher {
        Publisher::default()
    }

    /// The publisher will send no more. A last line without ending counts: a line that was cut short is no JSON object.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// No more is taken from the publisher: whole lines that are here are still handled.
    pub fn stop(&mut self) {
        self.ended = true;
        self.stopped = true;
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
        let answer = self.answer(to);
        let Content::Offsets { offsets, missing, .. } = &mut answer.content else {
            unreachable!("owners give receipts for events")
        };
        assert!(offsets[room as usize].replace(offset).is_none(), "one receipt for each room");
        *missing -= 1;
        self.settle();
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
            if self.must_wait(desk, shard) {
                return (at, Progress::Paused);
            }
            if at - start >= bytes_max {
                return (at, Progress::Budget);
            }
            let rest = &buffer[at..];
            let (line, bytes) = match line::split_line(rest, 0) {
                Some(found) => found,
                None if self.stopped && !rest.is_empty() => (&rest[..0], rest.len()),
                None if self.ended && !rest.is_empty() => (rest, rest.len()),
                None => {
                    if self.skipping || rest.len() > desk.options.line_bytes_max {
                        self.skip(desk, shard);
                        return (buffer.len(), Progress::Hungry);
                    }
                    let done = self.ended && self.unanswered.is_empty();
                    return (at, if done { Progress::Done } else { Progress::Hungry });
                }
            };
            at += bytes;
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            self.lines += 1;
            if line.len() > desk.options.line_bytes_max {
                self.too_long(desk, shard);
            } else if !line.is_empty() {
                self.line(line, desk, shard, me);
            }
        }
    }

    /// True while no further line may be handled.
    fn must_wait(&self, desk: &Desk, shard: &Shard) -> bool {
        self.barrier.is_some()
            || self.unanswered.len() >= UNANSWERED_MAX
            || self.outbox.len() >= desk.options.receipt_bytes_max
            || !shard.may_publish()
    }

    /// The rest of a line that is too long already is thrown away as it comes.
    fn skip(&mut self, desk: &Desk, shard: &mut Shard) {
        if !std::mem::replace(&mut self.skipping, true) {
            self.lines += 1;
            self.too_long(desk, shard);
        }
    }

    fn too_long(&mut self, desk: &Desk, shard: &mut Shard) {
        let message = format!(
            "the line has more than {} bytes; send less data in one event or raise ingest.line_bytes_max",
            desk.options.line_bytes_max
        );
        shard.counters.lines += 1;
        self.refuse(LineError { id: None, message, label: "line_too_long" }, shard);
    }

    fn line(&mut self, text: &[u8], desk: &mut Desk, shard: &mut Shard, me: SlotRef) {
        shard.counters.lines += 1;
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
            self.request(id, request, namespace, to, &desk.flat, shard)
        });
        if let Err(error) = handled {
            self.refuse(error, shard);
        }
    }

    fn request(
        &mut self,
        id: Option<&str>,
        request: Request<'_>,
        namespace: NamespaceRef<'_>,
        to: ReceiptTo,
        flat: &[bool],
        shard: &mut Shard,
    ) -> Result<(), LineError> {
        let content = match request {
            Request::Emit(emit) => {
                let names = emit.rooms.clone();
                let line = event_line(namespace, emit, flat, id)?;
                let missing = shard.publish(line, id.is_some().then_some(to));
                if id.is_none() {
                    return Ok(());
                }
                Content::Offsets { rooms: names, offsets: smallvec![None; missing as usize], missing }
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
        };
        self.unanswered.push_back(Answer { id: id.map(Into::into), line: self.lines, content });
        Ok(())
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
                (Content::Offsets { missing: 1.., .. } | Content::Operation { cores_missing: 1.., .. }, _) => return,
                (Content::Error(message), id) => line::write_error(&mut self.outbox, id, message, answer.line),
                (_, None) => {}
                (Content::Offsets { rooms, offsets, .. }, Some(id)) => {
                    let mut offsets = offsets.iter().map(|offset| offset.expect("none is missing"));
                    let mut pairs: SmallVec<[(RoomName, Offset); 1]> = SmallVec::new();
                    let receipt = if rooms.len() > 1 {
                        pairs.extend(rooms.iter().cloned().zip(offsets));
                        Receipt::Offsets(&pairs)
                    } else {
                        Receipt::Offset(offsets.next().expect("an event is for one room at least"))
                    };
                    line::write_receipt(&mut self.outbox, id, receipt);
                }
                (Content::Operation { sockets, refused, .. }, Some(id)) => {
                    let receipt = Receipt::Sockets { applied: u64::from(*sockets), refused: u64::from(*refused) };
                    line::write_receipt(&mut self.outbox, id, receipt);
                }
            }
            self.unanswered.pop_front();
            self.first_ticket += 1;
        }
    }
}

/// The line's event, ready to be published.
fn event_line(
    namespace: NamespaceRef<'_>,
    emit: Emit<'_>,
    flat: &[bool],
    id: Option<&str>,
) -> Result<shard::Line, LineError> {
    let Emit { rooms, except, name_json, args, arg_count, attachments } = emit;
    let mut event = Event::new(namespace, name_json, &args, arg_count);
    event.attachments = attachments;
    if flat[usize::from(namespace.id.0)] && raw::flat_conflict(&event) {
        return Err(LineError {
            id: id.map(ToOwned::to_owned),
            message: format!(
                "\"data\" has a field \"type\" other than the event's name {name_json}, and this namespace's raw \
                 clients get data's fields beside \"type\"; rename the field or use shape = \"nested\""
            ),
            label: "type_conflict",
        });
    }
    Ok(shard::Line { event, rooms, except })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Millis;
    use crate::base::ids::Topology;
    use crate::mesh;
    use crate::room::owner;
    use crate::session::namespace::{NamePattern, NamespaceName};
    use crate::session::rules::{NamespaceRules, RulesSource};
    use crate::session::{HeartbeatOptions, LimitOptions};
    use crate::shard::{Action, Namespace};
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
                    ping_interval_ms: 1,
                    ping_timeout_ms: 1,
                    connect_timeout_ms: 1,
                    upgrade_timeout_ms: 1,
                },
                limits: LimitOptions {
                    message_bytes_max: 100,
                    attachments_max: 1,
                    namespaces_per_session_max: 1,
                    namespace_bytes_max: 20,
                    rooms_per_socket_max: 1,
                    room_name_bytes_max: 20,
                    outbox_bytes_max: 100,
                },
                rooms: owner::Options { idle_ms: 1000, idle_max: 1000 },
                panic_on: None,
            };
            let pattern = NamePattern::compile("^/w-[^x]*$").unwrap();
            let every_w = RulesSource { pattern: Some("/w-.*".into()), ..RulesSource::default() };
            let every_w = NamespaceRules::compile(&every_w).unwrap();
            let namespaces = vec![
                Namespace { name: "/".into(), rules },
                Namespace { name: NamespaceName::Pattern(pattern), rules: every_w },
            ];
            let shard = Shard::new(port, Topology::new(1, 1), namespaces, options, [0; 32], Millis(0), 1);
            let options = Options {
                line_bytes_max: 80,
                receipt_bytes_max: 1 << 20,
                rooms_per_line_max: 4,
                room_name_bytes_max: 20,
            };
            Bench { desk: Desk::new(options, vec![false, false]), shard, publisher: Publisher::new() }
        }

        /// Hands over bytes and lets the shard come to rest.
        fn hand(&mut self, bytes: &[u8], bytes_max: usize) -> Progress {
            let mut fresh = bytes;
            loop {
                let progress = self.publisher.work(fresh, &mut self.desk, &mut self.shard, ME, bytes_max);
                fresh = &[];
                self.shard.receive(usize::MAX, Millis(1));
                let mut acted = false;
                while let Some(action) = self.shard.poll_action() {
                    acted = true;
                    match action {
                        Action::Receipt { to, room, offset } => self.publisher.receipt(to, room, offset),
                        Action::Operated { to, sockets, refused } => self.publisher.operated(to, sockets, refused),
                        other => panic!("{other:?} without clients"),
                    }
                }
                if !acted && progress != Progress::Budget {
                    return progress;
                }
            }
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
