//! Acknowledgements that publishers ask for. The publisher's core collects them until all are in or the time is over;
//! a member core knows whom it has asked. Does not know lines, nor how an answer travels to the publisher.
//!
//! The ring from a member core to the publisher's core keeps this order: a report of asked sockets comes before their
//! answers, so that nobody answers who was not counted. Whatever comes after the end of an ask finds nothing.

use super::messages::{Answered, Ask, Down, ReceiptTo};
use super::{Action, Shard, TimerKey};
use crate::base::clock::Millis;
use crate::base::ids::SlotRef;
use crate::base::slab::Slab;
use crate::base::wheel::TimerId;
use crate::proto::line::{self, Ack, Acks};
use crate::proto::socketio::Incoming;
use smallvec::SmallVec;
use std::collections::HashMap;

/// Answers that one core keeps for all its publishers' lines together. Each line has its own bound; this one holds
/// when clients conspire against a publisher with a thousand lines under way.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// Bits of an acknowledgement id below the publisher's core. Ten bits of core make 50: a JavaScript number.
const COUNT_BITS: u32 = 40;
const _: () = assert!(crate::base::ids::CORES_MAX.next_power_of_two().ilog2() + COUNT_BITS <= 53);

/// What a publisher wants to know of its event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AskOptions {
    /// How long clients have.
    pub timeout_ms: u64,
    /// Answers that are kept, in bytes of the receipt.
    pub answer_bytes_max: usize,
}

/// Asks under way on one core.
#[derive(Debug)]
pub(super) struct Asks {
    /// The publishers' side: asks of this core's publishers.
    open: Slab<Open>,
    /// Bytes of all answers in `open`.
    answer_bytes: usize,
    /// Counts asks, for their ids.
    count: u64,
    /// No ask goes on for longer: set by a drain.
    latest: Millis,
    /// The members' side: asks that reached sockets here.
    asked: Slab<Asked>,
    /// Slots of `asked` by acknowledgement id.
    by_id: HashMap<u64, u32>,
    /// Slots of `asked` by socket: those that the socket was asked and has not answered. Never an empty list.
    of_socket: HashMap<SlotRef, SmallVec<[u32; 4]>>,
}

/// An ask of one of this core's publishers.
#[derive(Debug)]
struct Open {
    to: ReceiptTo,
    due: Millis,
    /// Armed for `due`.
    timer: TimerId,
    /// Cores that have yet to tell whom they asked; an owner that is alone tells how many there are, and until then
    /// this can be below zero.
    cores_missing: i64,
    /// True once `cores_missing` counts from the right number.
    cores_known: bool,
    /// Sockets that were asked and have neither answered nor gone.
    waiting: u64,
    acks: Acks,
    bytes: usize,
    bytes_max: usize,
}

/// An ask that reached sockets of this core.
#[derive(Debug)]
struct Asked {
    ask: Ask,
    timer: TimerId,
    /// Who was asked here, whether or not it has answered.
    sockets: Vec<SlotRef>,
    /// How many of them have neither answered nor gone: never zero.
    waiting: usize,
    /// Bytes of answers that may still be sent from here.
    bytes_left: usize,
}

impl Asks {
    /// Nothing under way. `first_count` differs from what an earlier process began with, so that a client's late answer
    /// to that one means nothing here.
    pub(super) fn new(first_count: u64) -> Asks {
        Asks {
            open: Slab::new(),
            answer_bytes: 0,
            count: first_count,
            latest: Millis::NEVER,
            asked: Slab::new(),
            by_id: HashMap::new(),
            of_socket: HashMap::new(),
        }
    }

    /// Asks of this core's publishers under way.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// What is asked and who was asked name each other; nothing is kept that nobody waits for.
    pub(super) fn check(&self) {
        assert_eq!(self.by_id.len(), self.asked.len());
        let mut waiting = 0;
        for (at, asked) in self.asked.iter() {
            assert_eq!(self.by_id.get(&asked.ask.id), Some(&at.slot));
            let waits = |socket: &&SlotRef| self.of_socket.get(socket).is_some_and(|list| list.contains(&at.slot));
            assert_eq!(asked.sockets.iter().filter(waits).count(), asked.waiting);
            assert!(asked.waiting > 0, "an ask that nobody has to answer");
            waiting += asked.waiting;
        }
        assert_eq!(waiting, self.of_socket.values().map(SmallVec::len).sum::<usize>());
        assert!(self.of_socket.values().all(|list| !list.is_empty()));
        for (_, open) in self.open.iter() {
            assert_eq!(open.bytes, open.acks.answers.iter().map(Ack::bytes).sum::<usize>());
            assert!(open.acks.missing() >= open.waiting, "who waits is missing");
        }
        assert_eq!(self.answer_bytes, self.open.iter().map(|(_, open)| open.bytes).sum::<usize>());
    }

    /// Notes that the socket answers the ask; `None` if it was not asked, or has answered.
    fn take(&mut self, socket: SlotRef, id: u64) -> Option<u32> {
        let slot = *self.by_id.get(&id)?;
        let list = self.of_socket.get_mut(&socket)?;
        let index = list.iter().position(|other| *other == slot)?;
        list.swap_remove(index);
        if list.is_empty() {
            self.of_socket.remove(&socket);
        }
        Some(slot)
    }

    /// One socket less is waited for. Returns the timer to be cancelled if it was the last.
    fn one_less(&mut self, slot: u32) -> Option<TimerId> {
        self.asked[slot].waiting -= 1;
        if self.asked[slot].waiting > 0 {
            return None;
        }
        let at = self.asked.at(slot).expect("looked up by its slot");
        let asked = self.asked.remove(at)?;
        self.by_id.remove(&asked.ask.id);
        Some(asked.timer)
    }
}

impl Shard {
    /// Begins an ask of one of this core's publishers. `cores` will report; `None` if an owner will tell how many.
    pub(super) fn open_ask(&mut self, options: AskOptions, to: ReceiptTo, cores: Option<usize>) -> Ask {
        self.asks.count = (self.asks.count + 1) & ((1 << COUNT_BITS) - 1);
        let id = (self.core.index() as u64) << COUNT_BITS | self.asks.count;
        let due = self.now.after(options.timeout_ms).min(self.asks.latest);
        let timers = &mut self.timers;
        let at = self.asks.open.insert_with(|at| Open {
            to,
            due,
            timer: timers.arm(due, TimerKey::Ask(at)),
            cores_missing: cores.unwrap_or(0) as i64,
            cores_known: cores.is_some(),
            waiting: 0,
            acks: Acks::default(),
            bytes: 0,
            bytes_max: options.answer_bytes_max,
        });
        self.counters.asks += 1;
        Ask { id, core: self.core, at, due, answer_bytes_max: options.answer_bytes_max }
    }

    /// No ask of this core's publishers goes on for longer than until `latest`: whoever has not answered by then is
    /// missing.
    pub fn hurry_asks(&mut self, latest: Millis) {
        self.asks.latest = latest;
        for at in self.asks.open.iter().map(|(at, _)| at).collect::<Vec<_>>() {
            let open = &mut self.asks.open[at.slot];
            if open.due > latest {
                self.timers.cancel(open.timer);
                open.due = latest;
                open.timer = self.timers.arm(latest, TimerKey::Ask(at));
            }
        }
    }

    /// A publisher's connection is gone: nobody waits for its asks any more.
    pub fn publisher_left(&mut self, publisher: SlotRef) {
        let of_publisher = self.asks.open.iter().filter(|(_, open)| open.to.publisher == publisher);
        for at in of_publisher.map(|(at, _)| at).collect::<Vec<_>>() {
            let open = self.asks.open.remove(at).expect("listed above");
            self.asks.answer_bytes -= open.bytes;
            self.timers.cancel(open.timer);
        }
    }

    /// A single owner tells how many cores will report.
    pub(super) fn ask_reaches(&mut self, at: SlotRef, cores: u32) {
        let Some(open) = self.asks.open.get_mut(at) else { return };
        open.cores_missing += i64::from(cores);
        open.cores_known = true;
        self.ask_went_on(at);
    }

    /// A core tells how many more sockets it has asked, and if that was the last it tells of it.
    pub(super) fn ask_reported(&mut self, at: SlotRef, sockets: u32, last: bool) {
        let Some(open) = self.asks.open.get_mut(at) else { return };
        open.acks.asked += u64::from(sockets);
        open.waiting += u64::from(sockets);
        open.cores_missing -= i64::from(last);
        self.ask_went_on(at);
    }

    /// A client's answer has come to the publisher's core.
    pub(super) fn ask_answered(&mut self, answered: Answered) {
        let Answered { ask, answer } = answered;
        let Some(open) = self.asks.open.get_mut(ask) else { return };
        open.waiting -= 1;
        let bytes = answer.as_ref().map_or(0, Ack::bytes);
        let fits = open.bytes + bytes <= open.bytes_max && self.asks.answer_bytes + bytes <= ANSWER_BYTES_MAX;
        match answer.filter(|_| fits) {
            Some(answer) => {
                open.bytes += bytes;
                self.asks.answer_bytes += bytes;
                open.acks.answers.push(answer);
            }
            None => open.acks.dropped += 1,
        }
        self.ask_went_on(ask);
    }

    /// A socket that was asked is gone without an answer.
    pub(super) fn ask_deserted(&mut self, at: SlotRef) {
        let Some(open) = self.asks.open.get_mut(at) else { return };
        open.waiting -= 1;
        self.ask_went_on(at);
    }

    /// The time of an ask of this core's publishers is over.
    pub(super) fn ask_due(&mut self, at: SlotRef) {
        assert!(self.asks.open.get(at).is_some(), "an ask's timer dies with it");
        self.end_ask(at);
    }

    fn ask_went_on(&mut self, at: SlotRef) {
        let open = self.asks.open.get_mut(at).expect("the caller has just found it");
        if open.cores_known && open.cores_missing == 0 && open.waiting == 0 {
            self.timers.cancel(open.timer);
            self.end_ask(at);
        }
    }

    fn end_ask(&mut self, at: SlotRef) {
        let Open { to, acks, bytes, .. } = self.asks.open.remove(at).expect("the caller has just found it");
        self.asks.answer_bytes -= bytes;
        self.counters.acks_missing += acks.missing();
        self.counters.acks_dropped += acks.dropped;
        self.actions.push_back(Action::Acknowledged { to, acks: Box::new(acks) });
    }

    /// Notes that these sockets have got an event that asks for an acknowledgement, and tells the publisher's core how
    /// many they are; `last` if no more of this core will be asked.
    pub(super) fn ask_sockets(&mut self, ask: Ask, sockets: &[SlotRef], last: bool) {
        if sockets.is_empty() && !last {
            return;
        }
        self.counters.asked += sockets.len() as u64;
        self.port.down.send(ask.core, Down::Asked { ask: ask.at, sockets: sockets.len() as u32, last });
        if sockets.is_empty() {
            return;
        }
        let Asks { asked, by_id, of_socket, .. } = &mut self.asks;
        let timers = &mut self.timers;
        let slot = *by_id.entry(ask.id).or_insert_with(|| {
            let make = |at| Asked {
                ask,
                timer: timers.arm(ask.due, TimerKey::Asked(at)),
                sockets: Vec::new(),
                waiting: 0,
                bytes_left: ask.answer_bytes_max,
            };
            asked.insert_with(make).slot
        });
        asked[slot].sockets.extend_from_slice(sockets);
        asked[slot].waiting += sockets.len();
        for socket in sockets {
            of_socket.entry(*socket).or_default().push(slot);
        }
    }

    /// A client's acknowledgement. Ignored if it was not asked for, as the Node server does.
    pub(super) fn acknowledged(&mut self, socket: SlotRef, packet: &Incoming<'_>) {
        let Some(slot) = packet.ack_id.and_then(|id| self.asks.take(socket, id)) else {
            self.counters.acks_ignored += 1;
            return;
        };
        self.counters.acks += 1;
        let args_json = line::put_attachments(packet.args_json(), &packet.attachments);
        let answer = Ack { sid: self.sockets[socket.slot].sid, args_json };
        let Asked { ask, bytes_left, .. } = &mut self.asks.asked[slot];
        let (core, ask) = (ask.core, ask.at);
        // The publisher's core would not keep it either: it need not go there.
        let answer = (answer.bytes() <= *bytes_left).then_some(answer);
        *bytes_left -= answer.as_ref().map_or(0, Ack::bytes);
        self.port.down.send(core, Down::Answered(Box::new(Answered { ask, answer })));
        if let Some(timer) = self.asks.one_less(slot) {
            self.timers.cancel(timer);
        }
    }

    /// The socket is going: whatever it was asked, it will not answer.
    pub(super) fn desert_asks(&mut self, socket: SlotRef) {
        for slot in self.asks.of_socket.remove(&socket).unwrap_or_default() {
            let ask = self.asks.asked[slot].ask;
            self.port.down.send(ask.core, Down::Deserted { ask: ask.at });
            if let Some(timer) = self.asks.one_less(slot) {
                self.timers.cancel(timer);
            }
        }
    }

    /// The time of an ask that reached sockets here is over: the publisher's core knows that by itself.
    pub(super) fn asked_due(&mut self, at: SlotRef) {
        let asked = self.asks.asked.remove(at).expect("an ask's timer dies with it");
        self.asks.by_id.remove(&asked.ask.id);
        for socket in asked.sockets {
            let Some(list) = self.asks.of_socket.get_mut(&socket) else { continue };
            list.retain(|slot| *slot != at.slot);
            if list.is_empty() {
                self.asks.of_socket.remove(&socket);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::class::Classes;
    use crate::base::event::Event;
    use crate::base::ids::{CoreId, NamespaceId, Topology};
    use crate::mesh;
    use crate::room::owner;
    use crate::session::rules::{NamespaceRules, RulesSource};
    use crate::session::{HeartbeatOptions, Kind, LimitOptions};
    use crate::shard::{self, Flow, Handshake, Line, Namespace};
    use std::net::{IpAddr, Ipv4Addr};

    const PUBLISHER: SlotRef = SlotRef { slot: 3, generation: 5 };
    const TIMEOUT_MS: u64 = 500;

    /// One core with Socket.IO clients, which read whatever is sent to them.
    struct Bench {
        shard: Shard,
        clients: u32,
    }

    impl Bench {
        fn new() -> Bench {
            let port = mesh::connect(1, mesh::Options { slots: 1 << 12 }).remove(0);
            let rules =
                NamespaceRules::compile(&RulesSource { name: Some("/".into()), ..RulesSource::default() }).unwrap();
            let options = shard::Options {
                heartbeat: HeartbeatOptions {
                    ping_interval_ms: TIMEOUT_MS / 2,
                    ping_timeout_ms: TIMEOUT_MS / 2,
                    connect_timeout_ms: 1 << 40,
                    upgrade_timeout_ms: 1 << 40,
                },
                limits: LimitOptions {
                    packet_bytes_max: 1000,
                    attachments_max: 2,
                    rooms_per_socket_max: 1,
                    room_name_bytes_max: 20,
                    outbox_bytes_max: 1000,
                    ..LimitOptions::default()
                },
                rooms: owner::Options { idle_ms: 1000, idle_max: 1000, ..owner::Options::default() },
                ..shard::Options::default()
            };
            let namespaces = vec![Namespace { name: "/".into(), rules, classes: Classes::default() }];
            let shard = Shard::new(port, Topology::new(1, 1), namespaces, options, [0; 32], Millis(0), 1);
            Bench { shard, clients: 0 }
        }

        fn client(&mut self) -> SlotRef {
            self.clients += 1;
            let transport = SlotRef { slot: self.clients, generation: 0 };
            let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
            let handshake =
                Handshake { kind: Kind::SocketIo, query: "", bearer: None, ip, polls: false, message_bytes_max: 1000 };
            let session = self.shard.open(transport, handshake, Millis(0));
            self.say(session, "40");
            self.read(session);
            session
        }

        fn say(&mut self, session: SlotRef, text: &str) {
            let _: Flow = self.shard.text(session, text, Millis(0));
            self.rest();
        }

        /// The last text message for a client.
        fn read(&mut self, session: SlotRef) -> String {
            let mut last = Vec::new();
            for (_, bytes) in self.shard.outboxes.waiting(session.slot) {
                last = bytes[2..].to_vec();
            }
            self.shard.outboxes.clear(session.slot);
            String::from_utf8(last).unwrap()
        }

        fn rest(&mut self) {
            self.shard.receive(usize::MAX, Millis(0));
            self.shard.check();
        }

        fn ask(&mut self, answer_bytes_max: usize) {
            let event = Event::new(NamespaceId(0), "\"e\"", "", 0);
            let ask = Some(AskOptions { timeout_ms: TIMEOUT_MS, answer_bytes_max });
            let line = Line { event, rooms: SmallVec::new(), except: Vec::new(), key: None, volatile: false, ask };
            let to = ReceiptTo { core: CoreId::new(0), publisher: PUBLISHER, ticket: 7 };
            self.shard.publish(line, Some(to));
            self.rest();
        }

        /// What clients have answered, if the ask has ended: asked, answers, missing, dropped.
        fn ended(&mut self) -> Option<(u64, String, u64, u64)> {
            let mut ended = None;
            while let Some(action) = self.shard.poll_action() {
                if let Action::Acknowledged { to, acks } = action {
                    assert_eq!((to.publisher, to.ticket), (PUBLISHER, 7));
                    let answers: Vec<&str> = acks.answers.iter().map(|ack| &*ack.args_json).collect();
                    let told = (acks.asked, answers.join(" | "), acks.missing(), acks.dropped);
                    assert!(ended.replace(told).is_none(), "an ask ends once");
                }
            }
            ended
        }

        fn advance(&mut self, to: u64) {
            self.shard.advance(Millis(to));
            self.rest();
        }
    }

    #[test]
    fn all_answers_end_it_and_each_counts_once() {
        let mut bench = Bench::new();
        let clients = [bench.client(), bench.client(), bench.client()];
        bench.ask(1000);
        for client in clients {
            assert_eq!(bench.read(client), "422[\"e\"]");
        }
        bench.say(clients[0], "432[1,{\"a\":[2]}]");
        bench.say(clients[0], "432[\"again\"]");
        bench.say(clients[1], "433[\"of no event\"]");
        bench.say(clients[1], "43[\"without an id\"]");
        bench.say(clients[1], "432[]");
        assert_eq!(bench.ended(), None);
        bench.say(clients[2], "432[ \"c\" ]");
        assert_eq!(bench.ended(), Some((3, "1,{\"a\":[2]} |  | \"c\"".to_owned(), 0, 0)));
        bench.say(clients[2], "432[]");
        let counters = &bench.shard.counters;
        assert_eq!((counters.asks, counters.asked, counters.acks, counters.acks_ignored), (1, 3, 3, 4));
        bench.advance(TIMEOUT_MS);
        assert_eq!(bench.ended(), None);
        assert!(bench.shard.asks.of_socket.is_empty() && bench.shard.asks.asked.is_empty());
    }

    #[test]
    fn nobody_there_ends_it_at_once() {
        let mut bench = Bench::new();
        bench.ask(1000);
        assert_eq!(bench.ended(), Some((0, String::new(), 0, 0)));
    }

    #[test]
    fn the_time_ends_it_and_later_answers_are_void() {
        let mut bench = Bench::new();
        let clients = [bench.client(), bench.client()];
        bench.ask(1000);
        bench.say(clients[0], "432[0]");
        bench.advance(TIMEOUT_MS - 1);
        assert_eq!(bench.ended(), None);
        bench.advance(TIMEOUT_MS);
        assert_eq!(bench.ended(), Some((2, "0".to_owned(), 1, 0)));
        bench.say(clients[1], "432[1]");
        assert_eq!((bench.ended(), bench.shard.counters.acks_missing), (None, 1));
        assert!(bench.shard.asks.of_socket.is_empty() && bench.shard.asks.asked.is_empty());
    }

    #[test]
    fn who_leaves_is_missing_at_once() {
        let mut bench = Bench::new();
        let clients = [bench.client(), bench.client(), bench.client()];
        bench.ask(1000);
        bench.say(clients[0], "432[0]");
        bench.shard.closed(clients[0]);
        bench.say(clients[1], "41");
        assert_eq!(bench.ended(), None);
        bench.shard.closed(clients[2]);
        bench.rest();
        assert_eq!(bench.ended(), Some((3, "0".to_owned(), 2, 0)));
    }

    #[test]
    fn a_heartbeat_that_ends_before_the_ask_in_the_same_turn_disturbs_nothing() {
        let mut bench = Bench::new();
        let client = bench.client();
        bench.advance(TIMEOUT_MS / 2);
        assert_eq!(bench.read(client), "2", "a ping, which nobody answers");
        bench.ask(1000);
        bench.advance(2 * TIMEOUT_MS);
        assert_eq!(bench.ended(), Some((1, String::new(), 1, 0)));
        assert!(bench.shard.asks.asked.is_empty() && bench.shard.asks.open.is_empty());
    }

    #[test]
    fn answers_beyond_the_bound_are_counted_only() {
        let mut bench = Bench::new();
        let clients = [bench.client(), bench.client(), bench.client()];
        let short = Ack { sid: crate::base::ids::SocketId::new(CoreId::new(0), 0, [0; 9]), args_json: "1".into() };
        bench.ask(2 * short.bytes());
        bench.say(clients[0], "432[1]");
        bench.say(clients[1], "432[12]");
        bench.say(clients[2], "432[3]");
        assert_eq!(bench.ended(), Some((3, "1 | 3".to_owned(), 0, 1)));
        assert_eq!(bench.shard.counters.acks_dropped, 1);
    }

    #[test]
    fn several_cores_answers_share_one_bound() {
        let mut bench = Bench::new();
        let sid = crate::base::ids::SocketId::new(CoreId::new(0), 0, [0; 9]);
        let answer = |args: &str| Ack { sid, args_json: args.into() };
        let to = ReceiptTo { core: CoreId::new(0), publisher: PUBLISHER, ticket: 7 };
        let options = AskOptions { timeout_ms: TIMEOUT_MS, answer_bytes_max: 2 * answer("1").bytes() };
        let ask = bench.shard.open_ask(options, to, Some(4)).at;
        for args in ["1", "22", "3", "4"] {
            bench.shard.ask_reported(ask, 1, true);
            bench.shard.ask_answered(Answered { ask, answer: Some(answer(args)) });
            bench.shard.check();
        }
        assert_eq!(bench.ended(), Some((4, "1 | 3".to_owned(), 0, 2)));
    }

    #[test]
    fn a_publisher_that_leaves_is_forgotten() {
        let mut bench = Bench::new();
        let clients = [bench.client(), bench.client()];
        bench.ask(1000);
        bench.say(clients[0], "432[0]");
        bench.shard.publisher_left(SlotRef { generation: 4, ..PUBLISHER });
        assert_eq!(bench.shard.asks.len(), 1, "somebody else has left");
        bench.shard.publisher_left(PUBLISHER);
        bench.shard.check();
        assert_eq!((bench.shard.asks.len(), bench.shard.asks.answer_bytes), (0, 0));
        bench.say(clients[1], "432[1]");
        bench.advance(TIMEOUT_MS);
        assert_eq!(bench.ended(), None);
    }

    #[test]
    fn a_drain_hurries() {
        let mut bench = Bench::new();
        let client = bench.client();
        bench.ask(1000);
        bench.shard.hurry_asks(Millis(20));
        bench.advance(19);
        assert_eq!(bench.ended(), None);
        bench.advance(20);
        assert_eq!(bench.ended(), Some((1, String::new(), 1, 0)));
        bench.ask(1000);
        bench.advance(21);
        assert_eq!(bench.ended(), Some((1, String::new(), 1, 0)), "so does what begins after it");
        bench.say(client, "432[]");
        bench.advance(TIMEOUT_MS);
        assert_eq!(bench.ended(), None);
    }

    #[test]
    fn a_volatile_event_asks_only_who_gets_it() {
        let mut bench = Bench::new();
        let clients = [bench.client(), bench.client()];
        bench.shard.outboxes.block(clients[0].slot);
        let event = Event::new(NamespaceId(0), "\"e\"", "", 0);
        let ask = Some(AskOptions { timeout_ms: TIMEOUT_MS, answer_bytes_max: 1000 });
        let line = Line { event, rooms: SmallVec::new(), except: Vec::new(), key: None, volatile: true, ask };
        bench.shard.publish(line, Some(ReceiptTo { core: CoreId::new(0), publisher: PUBLISHER, ticket: 7 }));
        bench.rest();
        assert_eq!(bench.read(clients[0]), "");
        bench.say(clients[0], "432[0]");
        bench.say(clients[1], "432[1]");
        assert_eq!(bench.ended(), Some((1, "1".to_owned(), 0, 0)));
        assert_eq!(bench.shard.counters.volatile_dropped, 1);
    }
}
