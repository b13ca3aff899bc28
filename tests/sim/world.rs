//! The machine: shards joined by real rings, publishers that write lines, clients that read frames.

mod lives;
mod net;
mod polling;

use crate::model::kept::{self, CLASSES, Got, Ordered, Question, Reply, Watch};
use crate::model::{
    AckReceipt, Ask, CONFLATING, Client, DROPPING, Event, Membership, Model, OUTBOX_BYTES_MAX, Operation, Read, Step,
    place,
};
use net::Net;
use polling::Poller;
use roomcast::base::class::{Class, Classes, KeyPath, NameMatch, SlowConsumer, SnapshotOptions};
use roomcast::base::clock::Millis;
use roomcast::base::ids::{CoreId, NamespaceId, SlotRef, Topology};
use roomcast::ingest::publisher::{self, Desk, Publisher};
use roomcast::mesh;
use roomcast::proto::{json, raw::Shape};
use roomcast::room::owner;
use roomcast::session::budget::Budget;
use roomcast::session::namespace::{NamePattern, NamespaceName};
use roomcast::session::rules::{NamespaceRules, RulesSource};
use roomcast::session::{HeartbeatOptions, Kind, LimitOptions, NOWHERE};
use roomcast::shard::messages::Up;
use roomcast::shard::{self, Action, Flow, Handshake, Namespace, Shard};
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

const RULES: &str = r#"
[[on]]
event = "join"
join = ["{data.room}"]
reply = { event = "joined", data = { room = "{data.room}" } }
[[on]]
event = "leave"
leave = ["{data.room}"]
reply = { event = "left", data = { room = "{data.room}" } }
[[on]]
event = "watch"
join = ["{data.room}"]
snapshot = true
reply = { event = "watched", data = { q = "{data.q}" } }
[[on]]
event = "watch_two"
join = ["{data.room}", "{data.second}"]
snapshot = true
reply = { event = "watched", data = { q = "{data.q}" } }
[[on]]
event = "watch_three"
join = ["{data.room}", "{data.second}", "{data.third}"]
snapshot = true
reply = { event = "watched", data = { q = "{data.q}" } }
[[on]]
event = "enter"
join = ["{data.room}", "{data.second}"]
snapshot = true
emit = { rooms = ["{data.room}"], event = "event", data = "{data.e}", key = "{data.key}" }
reply = { event = "watched", data = { q = "{data.q}" } }
[[on]]
event = "values"
snapshot = "{data.room}"
reply = { event = "values", data = { q = "{data.q}", values = "{snapshot}" } }
[[on]]
event = "say"
emit = [
    { rooms = ["{data.room}"], event = "event", data = "{data.e}" },
    { rooms = ["{data.room}"], event = "event", data = "{data.f}", to_self = true },
]
reply = { event = "said", data = { q = "{data.q}" } }
[[on]]
event = "tell"
reply = { event = "said", data = { q = "{data.q}" } }
[on.emit]
rooms = ["{data.room}", "{data.second}"]
event = "event"
data = "{data.e}"
key = "{data.key}"
to_self = false
[[on]]
event = "shout"
emit = { event = "event", data = "{data.e}", to_self = false, volatile = true }
reply = { event = "said", data = { q = "{data.q}" } }
"#;
const ROOMS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
/// One of its own, where most clients are, and two of one pattern.
const NAMESPACES: [&str; 4] = ["/", "/", "/w-1", "/w-2"];
const PATTERN: &str = "/w-[0-9]";
const PING_INTERVAL_MS: u64 = 25_000;
const PING_TIMEOUT_MS: u64 = 20_000;
/// Not their sum, at which two things would happen to a session at once.
const CONNECT_TIMEOUT_MS: u64 = 40_000;
const UPGRADE_TIMEOUT_MS: u64 = 10_000;
/// At most this much time passes in one step.
const STEP_MS_MAX: usize = 6_000;
/// Things that polled clients, and cores for them, do in one step, at most.
const POLLING_PER_STEP_MAX: usize = 5;
/// One machine in this many has a budget for its outboxes, which is this and up to this more.
const BUDGET_ONE_IN: usize = 3;
const BUDGET_BYTES: usize = 1_000;
const KEYS: [&str; 5] = ["v", "w", "x", "y", "z"];

/// A small generator of its own, so that a seed means the same for ever (xorshift64*).
pub struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
    }

    fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// A client with its connection.
struct Peer {
    core: usize,
    transport: SlotRef,
    session: SlotRef,
    kind: Kind,
    namespace: &'static str,
    /// The own id, once it is known (Socket.IO tells it).
    sid: Option<String>,
    open: bool,
    /// The first namespace join is done.
    connected: bool,
    /// A message is being handled; more wait.
    busy: bool,
    waiting: VecDeque<String>,
    /// What was asked for and not answered.
    asked: VecDeque<Asked>,
    /// Since when frames are left in the outbox: the client does not read.
    stuck: Option<Step>,
    /// It does not read for a while.
    lags: bool,
    /// When nothing waited for it last, and what it has read since.
    reading: (Step, u64),
    /// Acknowledgements that the client may give later: id and event.
    owed: Vec<(u64, u64)>,
    inbox: Vec<u8>,
    /// Its place among the clients that began with polling: what is said of transports is there.
    poller: Option<usize>,
}

impl Peer {
    fn new(core: usize, transport: SlotRef, session: SlotRef, kind: Kind, namespace: &'static str) -> Peer {
        Peer {
            core,
            transport,
            session,
            kind,
            namespace,
            sid: None,
            open: true,
            connected: false,
            busy: false,
            waiting: VecDeque::new(),
            asked: VecDeque::new(),
            stuck: None,
            lags: false,
            reading: (0, 0),
            owed: Vec::new(),
            inbox: Vec::new(),
            poller: None,
        }
    }
}

/// A client's request, as its answer finds it.
#[derive(Debug)]
enum Asked {
    /// A join or leave: the place, and how many memberships of it there were then.
    Room(String, usize),
    /// Of its number among the client's.
    Watch(usize),
    /// Likewise.
    Question(usize),
    /// Events for others, by their ids.
    Emit(RangeInclusive<u64>),
}

struct Source {
    publisher: Publisher,
    at: SlotRef,
    /// Lines not yet handed over.
    unsent: VecDeque<Line>,
    /// Lines handed over, in order, whose answers are missing.
    sent: VecDeque<Line>,
}

#[derive(Clone, Debug)]
enum Line {
    Event {
        id: u64,
        namespace: &'static str,
        rooms: Vec<String>,
        except: Vec<String>,
        volatile: bool,
        ack_timeout_ms: Option<u64>,
        key: Keyed,
    },
    Operation {
        id: u64,
        namespace: &'static str,
        kind: &'static str,
        target: Option<String>,
        rooms: Vec<String>,
    },
}

/// Where an event says what it is about: in its line, in its data.
#[derive(Clone, Debug, Default)]
struct Keyed {
    line: Option<&'static str>,
    data: Option<&'static str>,
}

impl Keyed {
    fn some(random: &mut Random) -> Keyed {
        let mut some = |one_in: usize| random.chance(one_in).then(|| *random.pick(&KEYS));
        Keyed { line: some(2), data: some(3) }
    }

    /// The key in rooms at these places.
    fn key(&self, places: &[String]) -> Option<String> {
        let in_data = kept::class_of(&places[0]).is_some_and(|class| class.key_in_data);
        self.line.or(self.data.filter(|_| in_data)).map(str::to_owned)
    }

    fn data(&self, id: u64) -> String {
        let key = self.data.map_or(String::new(), |key| format!(",\"k\":{key:?}"));
        format!("{{\"n\":{id}{key}}}")
    }
}

/// What the config says of rooms.
fn classes() -> Classes {
    let class = |room: &&str| {
        let slow_consumer = match room {
            room if DROPPING.contains(room) => SlowConsumer::DropOldest,
            room if CONFLATING.contains(room) => SlowConsumer::Conflate,
            _ => SlowConsumer::Disconnect,
        };
        let kept = CLASSES.iter().find(|class| class.room == *room);
        let key = kept.filter(|class| class.key_in_data).map(|_| KeyPath::parse("data.k").unwrap());
        let snapshot = kept.map(|&kept::Class { keys_max, bytes_max, age_ms_max, .. }| SnapshotOptions {
            keys_max,
            bytes_max,
            age_ms_max,
        });
        (vec![NameMatch::new(room)], Class { key, snapshot, slow_consumer })
    };
    Classes::new(ROOMS.iter().map(class).collect())
}

fn places(namespace: &str, rooms: &[String]) -> Vec<String> {
    rooms.iter().map(|room| place(namespace, room)).collect()
}

pub struct World {
    random: Random,
    now: Millis,
    step: Step,
    shards: Vec<Shard>,
    desks: Vec<Desk>,
    /// One or two publishers for each core.
    sources: Vec<Vec<Source>>,
    peers: Vec<Peer>,
    pollers: Vec<Poller>,
    net: Net,
    budget: Budget,
    model: Model,
    next_id: u64,
    /// Clients that end their connections are told apart from those that are cut.
    transports: u32,
}

impl World {
    pub fn new(seed: u64) -> World {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        random.below(2);
        let cores = 1 + random.below(4);
        let slots = 2 << random.below(4);
        let topology = Topology::new(cores, u128::from(seed));
        let now = Millis(1_000);
        let options = shard::Options {
            heartbeat: HeartbeatOptions {
                ping_interval_ms: PING_INTERVAL_MS,
                ping_timeout_ms: PING_TIMEOUT_MS,
                connect_timeout_ms: CONNECT_TIMEOUT_MS,
                upgrade_timeout_ms: UPGRADE_TIMEOUT_MS,
            },
            limits: LimitOptions {
                packet_bytes_max: 10_000,
                attachments_max: 10,
                rooms_per_socket_max: 128,
                room_name_bytes_max: 200,
                outbox_bytes_max: OUTBOX_BYTES_MAX,
                ..LimitOptions::default()
            },
            // An order must outlive the run, so that offsets can be compared.
            rooms: owner::Options { idle_ms: 1 << 40, idle_max: 1 << 20, ..owner::Options::default() },
            ..shard::Options::default()
        };
        let shards: Vec<Shard> = mesh::connect(cores, mesh::Options { slots })
            .into_iter()
            .enumerate()
            .map(|(core, port)| {
                let source: RulesSource = toml::from_str(RULES).unwrap();
                let pattern = NamespaceName::Pattern(NamePattern::compile(PATTERN).unwrap());
                let namespaces = [NamespaceName::from("/"), pattern];
                let rules = || NamespaceRules::compile(&source).unwrap();
                let namespaces =
                    namespaces.into_iter().map(|name| Namespace { name, rules: rules(), classes: classes() }).collect();
                Shard::new(port, topology.clone(), namespaces, options, [core as u8; 32], now, 1)
            })
            .collect();
        let ingest = publisher::Options {
            line_bytes_max: 10_000,
            receipt_bytes_max: 10_000,
            rooms_per_line_max: 10,
            room_name_bytes_max: 200,
            ack_timeout_ms_max: 1_000,
        };
        let desks = (0..cores).map(|_| Desk::new(ingest, vec![false, false])).collect();
        let source = |slot: u32| Source {
            publisher: Publisher::new(),
            at: SlotRef { slot, generation: 0 },
            unsent: VecDeque::new(),
            sent: VecDeque::new(),
        };
        let sources = (0..cores).map(|_| (0..1 + random.below(2) as u32).map(source).collect()).collect();
        let budget = if random.chance(BUDGET_ONE_IN) { BUDGET_BYTES + random.below(BUDGET_BYTES) } else { 0 };
        let net = Net::new(cores, Random(random.0 ^ 0x5DEE_CE66), now);
        World {
            random,
            now,
            step: 0,
            shards,
            desks,
            sources,
            peers: Vec::new(),
            pollers: Vec::new(),
            net,
            budget: Budget::new(cores, budget as u64),
            model: Model::default(),
            next_id: 1,
            transports: 0,
        }
    }

    /// Acknowledgements that came in time.
    pub fn acks(&self) -> usize {
        self.model.acks()
    }

    /// What the model could decide.
    pub fn certainties(&self) -> usize {
        self.model.certainties()
    }

    /// Events that clients have missed as they lagged.
    pub fn lost(&self) -> usize {
        self.model.lost_by_laggards()
    }

    /// Clients that were cut as memory was short.
    pub fn shed(&self) -> u64 {
        self.by_outcome(|outcome| outcome == "shed")
    }

    fn by_outcome(&self, which: impl Fn(&str) -> bool) -> u64 {
        let counts = self.shards.iter().flat_map(|shard| &shard.counters.by_rooms);
        counts.filter(|(_, outcome, _, _)| which(outcome)).map(|(_, _, _, count)| *count).sum()
    }

    /// Clients that went from polling to WebSocket.
    pub fn upgrades(&self) -> u64 {
        self.shards.iter().map(|shard| shard.counters.upgrades).sum()
    }

    pub fn phases(&mut self) -> usize {
        2 + self.random.below(3)
    }

    /// Many things at once, in any order.
    pub fn mingle(&mut self) {
        for _ in 0..100 + self.random.below(300) {
            self.step += 1;
            match self.random.below(100) {
                0..=3 => self.open(),
                4..=5 => self.open_polled(),
                6..=9 => self.ask("join"),
                10..=12 => self.ask("leave"),
                13..=16 => self.watch(),
                17 => self.question(),
                18..=19 => self.emit(),
                20 => self.sip(),
                21..=22 => self.begin_to_lag(),
                23 => self.leave_for_good(),
                24 => self.catch_up_some(),
                25 => self.get_stuck(),
                26 => self.acknowledge_late(),
                27..=35 => self.publish_event(),
                36..=37 => self.flood(),
                38 => self.publish_operation(),
                39 => self.operate_on_watcher(),
                40..=55 => self.hand_over(),
                56..=60 => self.pass_time(),
                61..=90 => self.move_one_message(),
                _ => {
                    let core = self.random.below(self.shards.len());
                    let budget = 1 + self.random.below(20);
                    self.turn(core, budget);
                }
            }
            self.observe();
            for _ in 0..self.random.below(1 + POLLING_PER_STEP_MAX) {
                self.poll_on();
                if self.random.chance(2) {
                    self.observe();
                }
            }
            let core = self.random.below(self.shards.len());
            self.shards[core].keep_budget(&self.budget);
            self.observe();
            self.net.lives.check(&self.shards);
            if self.random.chance(20) {
                self.shards.iter().for_each(Shard::check);
            }
        }
    }

    /// Lets everything come to rest, then compares with the model.
    pub fn settle(&mut self) {
        self.come_to_rest();
        self.model.quiet.push(self.step);
        self.check_nothing_volatile_waits();
        for shard in &self.shards {
            assert_eq!(shard.counters.acks_dropped, 0, "the bound is far away");
        }
        self.shards.iter_mut().for_each(Shard::update_gauges);
        self.model.lost = self.by_outcome(|outcome| matches!(outcome, "dropped" | "conflated"));
        self.model.volatile_dropped = self.shards.iter().map(|shard| shard.counters.volatile_dropped).sum();
        self.shards.iter().for_each(Shard::check);
        self.check_attachments();
        self.model.check();
    }

    fn come_to_rest(&mut self) {
        (0..self.peers.len()).for_each(|peer| self.catch_up(peer));
        for round in 0.. {
            assert!(round < 100_000, "the machine does not come to rest");
            self.step += 1;
            self.hand_over_all();
            (0..self.shards.len()).for_each(|core| self.turn(core, 1000));
            self.observe();
            let polling = self.poll_to_rest();
            self.observe();
            self.keep_budget();
            let waits = |source: &Source| {
                let unasking = source.sent.iter().any(|line| !line.asks());
                unasking || !source.unsent.is_empty() || source.publisher.is_loaded()
            };
            let lines = self.sources.iter().flatten().any(waits);
            let messages = self.shards.iter().any(|s| !s.port.is_idle() || !s.may_publish() || s.has_emits());
            let asking = self.peers.iter().any(|peer| peer.open && (peer.busy || !peer.waiting.is_empty()));
            if lines || messages || asking || polling || self.poll_waits() {
                continue;
            }
            self.model.still.push(self.step);
            let asks: Vec<u64> = self.sources.iter().flatten().flat_map(|s| &s.sent).map(Line::id).collect();
            if asks.is_empty() {
                break;
            }
            asks.into_iter().for_each(|id| self.model.check_waits_for_somebody(id));
            if self.random.chance(3) {
                self.acknowledge_late();
            } else {
                let later = self.now.after(1 + self.random.below(50) as u64);
                self.advance_to(later);
            }
        }
        self.net.check_rest();
        self.net.lives.check(&self.shards);
    }

    /// Each core does what it must as long as one says that there is more to be done. Then all fit.
    fn keep_budget(&mut self) {
        let mut more = true;
        while std::mem::take(&mut more) {
            for core in 0..self.shards.len() {
                more |= self.shards[core].keep_budget(&self.budget);
            }
            self.observe();
        }
        if let Some(bytes_max) = self.budget.bytes_max() {
            let memory: u64 = self.shards.iter().map(|shard| shard.outboxes.memory()).sum();
            let lingers = self.net.lives.lingering().next().is_some();
            assert!(memory <= bytes_max || lingers, "{memory} bytes wait");
        }
    }

    /// Everybody leaves: nothing may be left of them on any core.
    pub fn finish(&mut self) {
        for peer in 0..self.peers.len() {
            self.step += 1;
            self.close_peer(peer);
        }
        self.settle();
        self.outlive_sessions();
        for shard in &mut self.shards {
            shard.update_gauges();
            assert_eq!((shard.counters.sessions_polling, shard.counters.sessions_socket_io), (0, 0));
            assert_eq!(shard.counters.sessions_raw, 0);
            assert_eq!(
                (shard.counters.snapshot_events > 0, shard.has_emits()),
                (shard.counters.snapshot_bytes > 0, false)
            );
            assert_eq!((shard.counters.sockets, shard.counters.rooms_attached, shard.counters.asks_open), (0, 0, 0));
            assert_eq!(shard.counters.joins, shard.counters.leaves);
            assert_eq!(shard.attachments().count(), 0, "an owner believes in members that are gone");
            assert_eq!((shard.outboxes.bytes_waiting(), shard.outboxes.memory()), (0, 0));
        }
    }

    /// Heartbeats in virtual time.
    pub fn silent_client_is_gone_in_time(&mut self) {
        self.open();
        self.settle();
        let opened = self.now;
        let core = self.peers[0].core;
        self.peers[0].stuck = Some(self.step);
        let gone = opened.after(PING_INTERVAL_MS + PING_TIMEOUT_MS);
        while self.now < gone {
            let shard = &mut self.shards[core];
            assert_eq!(shard.poll_action(), None, "closed at {:?}, too early", self.now);
            let due = shard.timers.next_deadline().expect("a heartbeat is due");
            self.now = due.max(Millis(self.now.0 + 1)).min(gone);
            shard.advance(self.now);
        }
        let action = self.shards[core].poll_action();
        assert!(matches!(action, Some(Action::Close { .. })), "{action:?} when the time was over");
    }

    /// Each group is attached at its owner exactly once, and each attachment is a group.
    fn check_attachments(&self) {
        let mut attached: Vec<(usize, SlotRef)> =
            self.shards.iter().flat_map(|s| s.attachments().map(|a| (a.core.index(), a.group))).collect();
        let mut groups: Vec<(usize, SlotRef)> =
            self.shards.iter().flat_map(|s| s.groups().map(|group| (s.core().index(), group))).collect();
        attached.sort_unstable();
        groups.sort_unstable();
        assert_eq!(attached, groups, "owners and member cores disagree");
    }

    fn open(&mut self) {
        let core = self.random.below(self.shards.len());
        self.transports += 1;
        let transport = SlotRef { slot: self.peers.len() as u32, generation: self.transports };
        let kind = match self.random.below(3) {
            0 => Kind::Raw { namespace: NamespaceId(0), shape: Shape::Nested },
            1 => Kind::Raw { namespace: NamespaceId(0), shape: Shape::Flat },
            _ => Kind::SocketIo,
        };
        // Raw clients are where their endpoint is.
        let namespace = if kind == Kind::SocketIo { *self.random.pick(&NAMESPACES) } else { "/" };
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let handshake = Handshake { kind, polls: false, query: "", bearer: None, ip, message_bytes_max: 10_000 };
        let session = self.shards[core].open(transport, handshake, self.now);
        let number = self.model.clients.len();
        let mut client = Client { number, socket_io: kind == Kind::SocketIo, ..Client::default() };
        client.memberships.insert(place(namespace, ""), vec![Membership::asked(self.step)]);
        self.model.clients.push(client);
        let raw_busy = kind != Kind::SocketIo && self.shards[core].is_busy(session);
        self.peers.push(Peer { busy: raw_busy, ..Peer::new(core, transport, session, kind, namespace) });
        let peer = self.peers.len() - 1;
        if kind == Kind::SocketIo {
            self.say(peer, format!("40{}", prefix(namespace)));
        } else if !raw_busy {
            self.raw_connected(peer);
        }
    }

    /// A raw client hears nothing of being connected; the driver knows when it may be read.
    fn raw_connected(&mut self, peer: usize) {
        self.peers[peer].connected = true;
        self.in_namespace(peer);
    }

    fn open_peers(&self) -> Vec<usize> {
        (0..self.peers.len()).filter(|&peer| self.peers[peer].open).collect()
    }

    /// A client that can ask for something.
    fn some_connected(&mut self) -> Option<usize> {
        let peers = self.open_peers();
        let peer = *self.random.pick(if peers.is_empty() { return None } else { &peers });
        self.peers[peer].connected.then_some(peer)
    }

    /// The client sends an event with this data.
    fn send(&mut self, peer: usize, what: &str, data: &str) {
        let text = match self.peers[peer].kind {
            Kind::SocketIo => format!(r#"42{}["{what}",{data}]"#, prefix(self.peers[peer].namespace)),
            Kind::Raw { .. } => format!(r#"{{"type":"{what}","data":{data}}}"#),
            Kind::EngineIoEcho | Kind::WebSocketEcho => unreachable!("no echoes here"),
        };
        self.say(peer, text);
    }

    /// A client asks for a room, or to be let out of one.
    fn ask(&mut self, what: &str) {
        let Some(peer) = self.some_connected() else { return };
        let room = *self.random.pick(&ROOMS);
        let namespace = self.peers[peer].namespace;
        let data = format!(r#"{{"room":"{room}"}}"#);
        let step = self.step;
        let room = place(namespace, room);
        let client = &mut self.model.clients[peer];
        let list = client.memberships.entry(room.clone()).or_default();
        if what == "join" {
            list.push(Membership::asked(step));
        } else {
            client.leaves.entry(room.clone()).or_default().push(step);
            list.iter_mut().filter(|m| m.ended.is_none()).for_each(|m| {
                m.leaving.get_or_insert(step);
            });
        }
        let asked = Asked::Room(room, list.len());
        self.peers[peer].asked.push_back(asked);
        self.send(peer, what, &data);
    }

    /// Rooms of names that clients and classes know, without duplicates.
    fn named_rooms(&mut self, count: usize) -> Vec<String> {
        let mut rooms: Vec<String> = Vec::new();
        while rooms.len() < count {
            let room = (*self.random.pick(&ROOMS)).to_owned();
            if !rooms.contains(&room) {
                rooms.push(room);
            }
        }
        rooms
    }

    /// A client joins rooms and wants to have what they keep; it may say something there at once.
    fn watch(&mut self) {
        let Some(peer) = self.some_connected() else { return };
        let emits = self.random.chance(6);
        let count = if emits { 2 } else { 1 + self.random.below(3) };
        let names = self.named_rooms(count);
        let rooms = places(self.peers[peer].namespace, &names);
        let id = self.take_id();
        let mut fields = format!("\"q\":{id}");
        for (field, name) in ["room", "second", "third"].iter().zip(&names) {
            fields.push_str(&format!(",\"{field}\":{name:?}"));
        }
        let step = self.step;
        let client = &mut self.model.clients[peer];
        let memberships = rooms.iter().map(|room| {
            let list = client.memberships.entry(room.clone()).or_default();
            list.push(Membership::asked(step));
            list.len() - 1
        });
        let memberships = memberships.collect();
        let ask = kept::Ask { rooms: rooms.clone(), id, step, time: self.now.0, reply: None };
        client.watches.push(Watch { ask, memberships });
        let asked = Asked::Watch(client.watches.len() - 1);
        self.peers[peer].asked.push_back(asked);
        let mut what = ["watch", "watch_two", "watch_three"][count - 1];
        if emits {
            what = "enter";
            let keyed = Keyed { line: Some(*self.random.pick(&KEYS)), ..Keyed::default() };
            let data = self.emitted(peer, &rooms[..1], &keyed, false, None);
            fields.push_str(&format!(",\"e\":{data},\"key\":{:?}", keyed.line.unwrap_or_default()));
        }
        self.send(peer, what, &format!("{{{fields}}}"));
    }

    /// A client asks what a room keeps.
    fn question(&mut self) {
        let Some(peer) = self.some_connected() else { return };
        let room = self.named_rooms(1).remove(0);
        let id = self.take_id();
        let rooms = vec![place(self.peers[peer].namespace, &room)];
        let ask = kept::Ask { rooms, id, step: self.step, time: self.now.0, reply: None };
        let client = &mut self.model.clients[peer];
        client.questions.push(Question { ask, answer: Vec::new() });
        let asked = Asked::Question(client.questions.len() - 1);
        self.peers[peer].asked.push_back(asked);
        self.send(peer, "values", &format!("{{\"q\":{id},\"room\":{room:?}}}"));
    }

    /// A client sends events to rooms.
    fn emit(&mut self) {
        let Some(peer) = self.some_connected() else { return };
        let names = self.named_rooms(2);
        let rooms = places(self.peers[peer].namespace, &names);
        let q = self.take_id();
        let (room, second) = (&names[0], &names[1]);
        let (what, data) = match self.random.below(5) {
            0..=1 => {
                let mut event = || {
                    let data = self.random.chance(2).then(|| *self.random.pick(&KEYS));
                    self.emitted(peer, &rooms[..1], &Keyed { line: None, data }, false, None)
                };
                let (first, then) = (event(), event());
                ("say", format!("{{\"q\":{q},\"room\":{room:?},\"e\":{first},\"f\":{then}}}"))
            }
            2..=3 => {
                let keyed = Keyed { line: Some(*self.random.pick(&KEYS)), ..Keyed::default() };
                let event = self.emitted(peer, &rooms, &keyed, false, Some(peer));
                let key = keyed.line.unwrap_or_default();
                let to = format!("\"room\":{room:?},\"second\":{second:?},\"key\":{key:?}");
                ("tell", format!("{{\"q\":{q},{to},\"e\":{event}}}"))
            }
            _ => {
                let whole = [place(self.peers[peer].namespace, "")];
                let event = self.emitted(peer, &whole, &Keyed::default(), true, Some(peer));
                ("shout", format!("{{\"q\":{q},\"e\":{event}}}"))
            }
        };
        self.peers[peer].asked.push_back(Asked::Emit(q + 1..=self.next_id));
        self.send(peer, what, &data);
    }

    /// Takes note of an event that a client sends; returns its data.
    fn emitted(
        &mut self,
        peer: usize,
        rooms: &[String],
        keyed: &Keyed,
        volatile: bool,
        not_to: Option<usize>,
    ) -> String {
        let id = self.take_id();
        let event = Event {
            rooms: rooms.to_vec(),
            except: Vec::new(),
            published: self.step,
            offsets: vec![0; rooms.len()],
            volatile,
            key: keyed.key(rooms),
            emitter: Some(peer),
            answered: false,
            not_to,
            ask: None,
        };
        self.model.events.insert(id, event);
        keyed.data(id)
    }

    fn say(&mut self, peer: usize, text: String) {
        self.peers[peer].waiting.push_back(text);
        self.hear(peer);
    }

    /// Gives the shard the client's messages, one by one.
    fn hear(&mut self, index: usize) {
        if self.peers[index].poller.is_some() {
            return;
        }
        while !self.peers[index].busy && self.peers[index].open {
            let Some(text) = self.peers[index].waiting.pop_front() else { return };
            let (core, session) = (self.peers[index].core, self.peers[index].session);
            if let Some(event) = acknowledged_event(&text) {
                self.model.clients[index].acked.entry(event).or_insert(self.step);
            }
            let flow = self.shards[core].text(session, &text, self.now);
            self.peers[index].busy = flow == Flow::Wait;
        }
    }

    fn leave_for_good(&mut self) {
        let peers = self.open_peers();
        if !peers.is_empty() {
            let peer = *self.random.pick(&peers);
            self.close_peer(peer);
        }
    }

    fn get_stuck(&mut self) {
        let mut peers = self.open_peers();
        peers.retain(|&peer| self.peers[peer].poller.is_none() && !self.peers[peer].lags);
        if !peers.is_empty() {
            let peer = *self.random.pick(&peers);
            self.peers[peer].stuck.get_or_insert(self.step);
            self.model.clients[peer].stuck = true;
            // As the data plane does when the kernel takes no more.
            self.shards[self.peers[peer].core].outboxes.block(self.peers[peer].session.slot);
        }
    }

    /// A client does not read for a while.
    fn begin_to_lag(&mut self) {
        let mut peers = self.open_peers();
        peers.retain(|&peer| self.peers[peer].poller.is_none() && self.peers[peer].stuck.is_none());
        if !peers.is_empty() {
            let peer = *self.random.pick(&peers);
            self.peers[peer].lags = true;
            self.model.clients[peer].late = true;
            self.shards[self.peers[peer].core].outboxes.block(self.peers[peer].session.slot);
        }
    }

    fn laggards(&self) -> Vec<usize> {
        (0..self.peers.len()).filter(|&peer| self.peers[peer].lags && self.peers[peer].open).collect()
    }

    /// A client that lags reads something, not to the end of a frame.
    fn sip(&mut self) {
        let laggards = self.laggards();
        if !laggards.is_empty() {
            let peer = *self.random.pick(&laggards);
            let bytes = self.random.below(OUTBOX_BYTES_MAX as usize);
            self.take(peer, bytes);
        }
    }

    fn catch_up_some(&mut self) {
        let laggards = self.laggards();
        if !laggards.is_empty() {
            let peer = *self.random.pick(&laggards);
            self.catch_up(peer);
        }
    }

    /// The client reads again.
    fn catch_up(&mut self, peer: usize) {
        if self.peers[peer].open && std::mem::take(&mut self.peers[peer].lags) {
            self.shards[self.peers[peer].core].outboxes.unblock(self.peers[peer].session.slot);
            self.read(peer);
        }
    }

    /// A client gives an answer that it has kept back, in time or not.
    fn acknowledge_late(&mut self) {
        let peers = self.open_peers();
        if peers.is_empty() {
            return;
        }
        let peer = *self.random.pick(&peers);
        if let Some((id, event)) = self.peers[peer].owed.pop() {
            self.acknowledge(peer, id, event);
        }
    }

    fn acknowledge(&mut self, peer: usize, id: u64, event: u64) {
        let own = prefix(self.peers[peer].namespace);
        self.say(peer, format!("43{own}{id}[{event},\"{peer}\"]"));
    }

    /// The client is asked: it answers, answers twice or more than it was asked, thinks about it, or does nothing.
    fn asked(&mut self, peer: usize, id: u64, event: u64) {
        match self.random.below(8) {
            0..=3 => self.acknowledge(peer, id, event),
            4 => {
                self.acknowledge(peer, id, event);
                self.acknowledge(peer, id, event);
                let own = prefix(self.peers[peer].namespace);
                self.say(peer, format!("43{own}{}[]", id + 1_000_000));
            }
            5 | 6 => self.peers[peer].owed.push((id, event)),
            _ => {}
        }
    }

    /// Whoever does not read has no volatile event waiting that came after the standstill.
    fn check_nothing_volatile_waits(&self) {
        for (number, peer) in self.peers.iter().enumerate().filter(|(_, peer)| peer.open) {
            let Some(since) = peer.stuck else { continue };
            let outboxes = &self.shards[peer.core].outboxes;
            let mut bytes: Vec<u8> = outboxes.waiting(peer.session.slot).flat_map(|(_, b)| b.to_vec()).collect();
            while let Some(text) = take_frame(&mut bytes) {
                let answers = text.contains("\"values\"");
                let data = (!answers).then(|| text.find("\"n\":")).flatten().map(|start| &text[start + 4..]);
                let Some(id) = data.and_then(|data| data.split(['}', ',']).next()) else { continue };
                let id = id.parse().unwrap();
                let event = &self.model.events[&id];
                // State waits, and what came behind it meanwhile.
                if self.model.may_be_state(number, id) {
                    continue;
                }
                assert!(!event.volatile || event.published <= since, "client {number} will get {event:?}");
            }
        }
    }

    /// Time passes on all cores at once. It stops wherever something must happen to a session, so that nothing can
    /// happen to it before.
    fn pass_time(&mut self) {
        let some = self.now.after(self.random.below(STEP_MS_MAX) as u64);
        let due = self.net.lives.next_due().unwrap_or(Millis::NEVER);
        let now = match self.random.below(4) {
            0 => some.min(due),
            1 => some.min(Millis(due.0 - 1)),
            _ => self.now.after(self.random.below(20) as u64).min(due),
        };
        self.advance_to(now);
    }

    fn advance_to(&mut self, now: Millis) {
        self.now = now;
        self.net.fire_timers(now, &mut self.shards);
        self.shards.iter_mut().for_each(|shard| shard.advance(now));
        self.net.lives.advance(now, &self.shards);
        self.observe();
    }

    /// The client's connection ends.
    fn close_peer(&mut self, index: usize) {
        let peer = &mut self.peers[index];
        if !std::mem::replace(&mut peer.open, false) {
            return;
        }
        peer.waiting.clear();
        peer.busy = false;
        // It reads no further.
        self.note_read(index, 0, true);
        let peer = &self.peers[index];
        match peer.poller {
            Some(poller) => self.leave_polled(poller),
            None => {
                let (core, session) = (peer.core, peer.session);
                self.shards[core].closed(session);
            }
        }
        self.model.clients[index].gone = Some(self.step);
    }

    fn some_rooms(&mut self) -> Vec<String> {
        let mut rooms: Vec<String> = Vec::new();
        for _ in 0..1 + self.random.below(3) {
            let known: Vec<String> = self.peers.iter().filter_map(|peer| peer.sid.clone()).collect();
            let room = if !known.is_empty() && self.random.chance(8) {
                self.random.pick(&known).clone()
            } else {
                (*self.random.pick(&ROOMS)).to_owned()
            };
            if !rooms.contains(&room) {
                rooms.push(room);
            }
        }
        rooms
    }

    /// More events than an outbox takes, in a room whose slow members are not cut.
    fn flood(&mut self) {
        let lenient = [&DROPPING[..], &CONFLATING].concat();
        let room = (*self.random.pick(&lenient)).to_owned();
        let (namespace, volatile) = (*self.random.pick(&NAMESPACES), false);
        let core = self.random.below(self.sources.len());
        for _ in 0..2 + self.random.below(8) {
            let line = (!self.random.chance(4)).then(|| *self.random.pick(&KEYS[..2]));
            let (id, key) = (self.take_id(), Keyed { line, data: None });
            let (rooms, except) = (vec![room.clone()], Vec::new());
            let ack_timeout_ms = self.random.chance(30).then_some(100);
            let line = Line::Event { id, namespace, rooms, except, volatile, ack_timeout_ms, key };
            self.sources[core][0].unsent.push_back(line);
        }
    }

    fn publish_event(&mut self) {
        let mut rooms = match self.random.below(10) {
            0 => Vec::new(),
            1..=5 => vec![(*self.random.pick(&ROOMS)).to_owned()],
            _ => self.some_rooms(),
        };
        let except = if self.random.chance(6) { self.some_rooms() } else { Vec::new() };
        rooms.dedup();
        let id = self.take_id();
        let namespace = *self.random.pick(&NAMESPACES);
        let volatile = self.random.chance(5);
        let ack_timeout_ms = self.random.chance(3).then(|| 1 + self.random.below(200) as u64);
        let key = Keyed::some(&mut self.random);
        self.queue_line(Line::Event { id, namespace, rooms, except, volatile, ack_timeout_ms, key });
    }

    fn publish_operation(&mut self) {
        let kind =
            ["join", "leave", "disconnect"][self.random.below(if self.random.0.is_multiple_of(4) { 3 } else { 2 })];
        let target = if self.random.chance(5) { None } else { self.some_rooms().pop() };
        let rooms = vec![(*self.random.pick(&ROOMS)).to_owned()];
        let id = self.take_id();
        let namespace = *self.random.pick(&NAMESPACES);
        self.queue_line(Line::Operation { id, namespace, kind, target, rooms });
    }

    /// A publisher meddles with a client that waits for what rooms keep: with one of these rooms.
    fn operate_on_watcher(&mut self) {
        let waits = |client: &&Client| {
            let unanswered = client.watches.last().is_some_and(|watch| watch.ask.reply.is_none());
            unanswered && client.gone.is_none() && self.peers[client.number].sid.is_some()
        };
        let watchers: Vec<usize> = self.model.clients.iter().filter(waits).map(|client| client.number).collect();
        if watchers.is_empty() {
            return self.publish_operation();
        }
        let peer = *self.random.pick(&watchers);
        let watches = &self.model.clients[peer].watches;
        let first = watches.iter().find(|watch| watch.ask.reply.is_none()).expect("the last has no answer");
        let place = self.random.pick(&first.ask.rooms).clone();
        let (_, room) = place.split_once(' ').expect("the namespace's name stands in front");
        let (namespace, target) = (self.peers[peer].namespace, self.peers[peer].sid.clone());
        let kind = if self.random.chance(3) { "leave" } else { "join" };
        let (id, rooms) = (self.take_id(), vec![room.to_owned()]);
        self.queue_line(Line::Operation { id, namespace, kind, target, rooms });
    }

    fn take_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn queue_line(&mut self, line: Line) {
        let core = self.random.below(self.sources.len());
        let source = self.random.below(self.sources[core].len());
        self.sources[core][source].unsent.push_back(line);
    }

    fn hand_over(&mut self) {
        let core = self.random.below(self.sources.len());
        let source = self.random.below(self.sources[core].len());
        self.hand_over_from(core, source);
    }

    fn hand_over_all(&mut self) {
        for core in 0..self.sources.len() {
            for source in 0..self.sources[core].len() {
                self.hand_over_from(core, source);
            }
        }
    }

    /// A publisher's next line reaches its core, together with whatever waited there.
    fn hand_over_from(&mut self, core: usize, index: usize) {
        let step = self.step;
        let source = &mut self.sources[core][index];
        let mut bytes = Vec::new();
        if let Some(line) = source.unsent.pop_front() {
            bytes = line_text(&line).into_bytes();
            match &line {
                Line::Event { id, namespace, rooms, except, volatile, ack_timeout_ms, key } => {
                    let whole = [String::new()];
                    let rooms = places(namespace, if rooms.is_empty() { &whole } else { rooms });
                    let (except, volatile) = (places(namespace, except), *volatile);
                    let now = self.now;
                    let ask = ack_timeout_ms.map(|ms| Ask { not_due_before: now.after(ms).0, receipt: None });
                    let event = Event {
                        key: key.key(&rooms),
                        offsets: vec![0; rooms.len()],
                        rooms,
                        except,
                        published: step,
                        volatile,
                        emitter: None,
                        answered: false,
                        not_to: None,
                        ask,
                    };
                    self.model.events.insert(*id, event);
                }
                Line::Operation { id, namespace, kind, target, rooms } => {
                    let target = place(namespace, target.as_deref().unwrap_or_default());
                    let rooms = places(namespace, rooms);
                    let operation = Operation { id: *id, kind, target, rooms, handed: step, done: None };
                    self.model.operations.push(operation);
                }
            }
            source.sent.push_back(line);
        }
        let me = source.at;
        let _ = source.publisher.work(&bytes, &mut self.desks[core], &mut self.shards[core], me, 1 << 20);
    }

    /// A core's turn, as [`Shard::receive`] has it, with an eye on what owners put in order.
    fn turn(&mut self, core: usize, mut budget: usize) {
        // Moves rings on and publishes what clients have caused.
        let now = self.now;
        self.shards[core].receive(0, now);
        while budget > 0 {
            let Some((_, message)) = self.shards[core].port.down.receive() else { break };
            budget = budget.saturating_sub(1 + self.shards[core].handle_down(message));
        }
        while budget > 0 && !self.shards[core].port.down.is_blocked() {
            let Some((from, message)) = self.shards[core].port.up.receive() else { break };
            self.handle_up(core, from, message);
            budget = budget.saturating_sub(1);
            let own = self.shards[core].core();
            while budget > 0 {
                let Some(message) = self.shards[core].port.down.receive_from(own) else { break };
                budget = budget.saturating_sub(1 + self.shards[core].handle_down(message));
            }
        }
    }

    /// An owner's work. The model is told of the order: clients get no receipts for what they send.
    fn handle_up(&mut self, core: usize, from: CoreId, message: Up) {
        if let Up::Publish(publish) = &message {
            let event = &publish.event.event;
            let bytes = event.name_json().len() + event.args_json().len();
            let id: u64 = json::get(event.args_json(), "n").unwrap().parse().unwrap();
            let known = self.model.events.get_mut(&id).unwrap();
            assert_eq!(publish.event.key.as_deref(), known.key.as_deref(), "{known:?}");
            for (_, key) in &publish.rooms {
                let namespace = key.name.instance().unwrap_or("/");
                let room = if key.name.is_whole_namespace() { "" } else { key.name.as_str() };
                let room = place(namespace, room);
                let at = known.rooms.iter().position(|other| *other == room).expect("it is for this room");
                let order = self.model.orders.entry(room).or_default();
                order.push(Ordered { id, step: self.step, time: self.now.0, bytes });
                let before = std::mem::replace(&mut known.offsets[at], order.len() as u64);
                assert_eq!(before, 0, "ordered twice: {known:?}");
            }
        }
        let now = self.now;
        self.shards[core].handle_up(from, message, now);
    }

    fn move_one_message(&mut self) {
        let to = self.random.below(self.shards.len());
        let from = self.shards[self.random.below(self.shards.len())].core();
        let shard = &mut self.shards[to];
        shard.port.flush();
        if self.random.chance(2) {
            if let Some(message) = shard.port.down.receive_from(from) {
                shard.handle_down(message);
            }
        } else if !shard.port.down.is_blocked()
            && let Some(message) = shard.port.up.receive_from(from)
        {
            self.handle_up(to, from, message);
        }
    }

    /// Does what shards want done, and lets clients and publishers see what came.
    fn observe(&mut self) {
        self.note_acks();
        self.note_reads();
        for core in 0..self.shards.len() {
            while let Some(action) = self.shards[core].poll_action() {
                let Some(action) = self.net.act(&mut self.shards, core, action) else { continue };
                match action {
                    Action::Close { transport, .. } | Action::Abort { transport, .. } => {
                        let peer = transport.slot as usize;
                        assert_eq!(self.peers[peer].transport, transport);
                        self.catch_up(peer);
                        self.read(peer);
                        self.close_peer(peer);
                    }
                    Action::Resume { transport } => {
                        let peer = transport.slot as usize;
                        self.read(peer);
                        self.peers[peer].busy = false;
                        if !self.peers[peer].connected && self.peers[peer].kind != Kind::SocketIo {
                            self.raw_connected(peer);
                        }
                        self.hear(peer);
                    }
                    Action::EndPoll { .. }
                    | Action::EndPost { .. }
                    | Action::Upgraded { .. }
                    | Action::Ended { .. } => {
                        unreachable!("of polled clients alone")
                    }
                    Action::Receipt { to, room, offset } => {
                        self.sources[core][to.publisher.slot as usize].publisher.receipt(to, room, offset);
                    }
                    Action::Found { to, core: from, facts } => {
                        self.sources[core][to.publisher.slot as usize].publisher.found(to, from, facts);
                    }
                    Action::Operated { to, sockets, refused } => {
                        self.sources[core][to.publisher.slot as usize].publisher.operated(to, sockets, refused);
                    }
                    Action::Acknowledged { to, acks } => {
                        self.sources[core][to.publisher.slot as usize].publisher.acknowledged(to, acks);
                    }
                }
            }
        }
        for peer in 0..self.peers.len() {
            if self.peers[peer].open {
                self.read(peer);
            }
        }
        for core in 0..self.sources.len() {
            for source in 0..self.sources[core].len() {
                self.read_receipts(core, source);
            }
        }
    }

    fn read_receipts(&mut self, core: usize, index: usize) {
        let text = std::mem::take(self.sources[core][index].publisher.outbox());
        for answer in String::from_utf8(text).unwrap().lines() {
            assert_eq!(json::get(answer, "ok"), Some("true"), "{answer}");
            let id: u64 = json::get(answer, "id").unwrap().parse().unwrap();
            let ack = json::get(answer, "ack");
            let mut sent = self.sources[core][index].sent.iter();
            // Lines that ask have no place in the order of the answers.
            let place = sent.position(|line| if ack.is_some() { line.id() == id } else { !line.asks() });
            let line = place.and_then(|place| self.sources[core][index].sent.remove(place));
            let line = line.unwrap_or_else(|| panic!("{answer} without a line"));
            assert_eq!(line.asks(), ack.is_some(), "{answer} to {line:?}");
            match line {
                Line::Event { id: expected, rooms, .. } => {
                    assert_eq!(id, expected, "answers come in the lines' order");
                    let offsets: Vec<u64> = match json::get(answer, "offset") {
                        Some(offset) => vec![offset.parse().unwrap()],
                        None => {
                            let offsets = json::get(answer, "offsets").unwrap();
                            rooms.iter().map(|room| json::get(offsets, room).unwrap().parse().unwrap()).collect()
                        }
                    };
                    let receipt = ack.map(|ack| self.understand_acks(id, ack));
                    let event = self.model.events.get_mut(&id).unwrap();
                    assert_eq!(event.offsets, offsets, "event {id} is elsewhere: {event:?}");
                    if let Some(ask) = &mut event.ask {
                        assert!(ask.receipt.is_none(), "two receipts for {event:?}");
                        ask.receipt = receipt;
                    }
                }
                Line::Operation { id: expected, .. } => {
                    assert_eq!(id, expected, "answers come in the lines' order");
                    let operation = self.model.operations.iter_mut().find(|op| op.id == id).unwrap();
                    operation.done = Some(self.step);
                }
            }
        }
    }

    /// What a receipt says of the answers to an event, each checked against the client that it is said to be from.
    fn understand_acks(&self, event: u64, ack: &str) -> AckReceipt {
        let number = |key| json::get(ack, key).unwrap().parse().unwrap();
        let answers = json::elements(json::get(ack, "answers").unwrap()).map(|answer| {
            let sid = json::unescape(json::get(answer, "sid").unwrap()).unwrap();
            let peer = self.peers.iter().position(|peer| peer.sid.as_deref() == Some(&*sid));
            let peer = peer.unwrap_or_else(|| panic!("{ack}: {sid} is nobody"));
            assert_eq!(json::get(answer, "args"), Some(&*format!("[{event},\"{peer}\"]")), "{ack}");
            peer
        });
        let answers = answers.collect();
        AckReceipt { step: self.step, time: self.now.0, asked: number("asked"), answers, missing: number("missing") }
    }

    /// The client reads what was sent to it.
    fn read(&mut self, index: usize) {
        let peer = &self.peers[index];
        if peer.open && peer.stuck.is_none() && !peer.lags && peer.poller.is_none() {
            self.take(index, usize::MAX);
        }
    }

    /// The client reads so many bytes.
    fn take(&mut self, index: usize, bytes_max: usize) {
        let peer = &mut self.peers[index];
        let outboxes = &mut self.shards[peer.core].outboxes;
        let slot = peer.session.slot;
        if outboxes.is_empty(slot) {
            return;
        }
        let bytes: Vec<u8> = outboxes.waiting(slot).flat_map(|(_, bytes)| bytes.to_vec()).take(bytes_max).collect();
        outboxes.advance(slot, bytes.len());
        let is_empty = outboxes.is_empty(slot);
        self.note_read(index, bytes.len(), is_empty);
        self.peers[index].inbox.extend(bytes);
        while let Some(text) = take_frame(&mut self.peers[index].inbox) {
            if text == PING {
                let Peer { core, session, .. } = self.peers[index];
                self.shards[core].websocket_pong(session, self.now);
            } else {
                self.understand(index, &text);
            }
        }
    }

    /// The client has read something; `is_empty` if nothing waits for it any more.
    fn note_read(&mut self, index: usize, bytes: usize, is_empty: bool) {
        let (from, read) = &mut self.peers[index].reading;
        *read += bytes as u64;
        if is_empty {
            let read = Read { from: *from, to: self.step, bytes: *read };
            self.peers[index].reading = (self.step, 0);
            self.model.clients[index].reads.push(read);
        }
    }

    fn understand(&mut self, index: usize, text: &str) {
        let step = self.step;
        if self.peers[index].kind == Kind::SocketIo {
            if text.starts_with('0') {
                return;
            }
            if text == "2" {
                return self.say(index, "3".to_owned());
            }
            let namespace = self.peers[index].namespace;
            if let Some(grant) = text.strip_prefix("40") {
                let grant = grant.strip_prefix(&prefix(namespace)).expect("the grant is for this namespace");
                let sid = json::unescape(json::get(grant, "sid").unwrap()).unwrap().into_owned();
                self.peers[index].sid = Some(sid.clone());
                self.peers[index].connected = true;
                let own = Membership { asked: 0, certain: Some(step), leaving: None, ended: None };
                self.model.clients[index].memberships.insert(place(namespace, &sid), vec![own]);
                self.in_namespace(index);
                return;
            }
            if text.strip_prefix("41") == Some(&prefix(namespace)) {
                return self.close_peer(index);
            }
        }
        let mut ack_id = None;
        let (name, data) = match text.strip_prefix("42") {
            Some(packet) => {
                let own = prefix(self.peers[index].namespace);
                let packet = packet.strip_prefix(&own);
                let packet = packet.unwrap_or_else(|| panic!("{text:?} to client {index} in {own:?}"));
                let list = packet.trim_start_matches(|c: char| c.is_ascii_digit());
                ack_id = packet[..packet.len() - list.len()].parse().ok();
                let mut values = json::elements(list);
                (values.next().unwrap(), values.next().unwrap_or("{}"))
            }
            None => (json::get(text, "type").unwrap(), json::get(text, "data").unwrap_or(text)),
        };
        match name {
            "\"joined\"" | "\"left\"" => {
                let said = json::unescape(json::get(data, "room").unwrap()).unwrap();
                let asked = self.peers[index].asked.pop_front();
                let Some(Asked::Room(room, count)) = asked else { panic!("{text} to {asked:?}") };
                assert_eq!(
                    room,
                    place(self.peers[index].namespace, &said),
                    "answers come in the order of the questions"
                );
                let client = &mut self.model.clients[index];
                client.answered = client.stream.len();
                let list = client.memberships.get_mut(&room).unwrap();
                if name == "\"joined\"" {
                    list[count - 1].certain = Some(step);
                } else {
                    list[..count].iter_mut().for_each(|m| {
                        m.ended.get_or_insert(step);
                    });
                }
            }
            "\"watched\"" | "\"values\"" | "\"said\"" => self.answered(index, name, data),
            "\"event\"" => {
                let id: u64 = json::get(data, "n").unwrap().parse().unwrap();
                self.model.clients[index].stream.push(Got { id, step, asks: ack_id.is_some() });
                if let Some(ack_id) = ack_id {
                    self.asked(index, ack_id, id);
                }
            }
            other => panic!("client {index} got {other}"),
        }
    }

    /// The client's question is answered.
    fn answered(&mut self, index: usize, name: &str, data: &str) {
        let q: u64 = json::get(data, "q").unwrap().parse().unwrap();
        let asked = self.peers[index].asked.pop_front().expect("an answer was asked for");
        let client = &mut self.model.clients[index];
        let behind = client.stream.len();
        let after = std::mem::replace(&mut client.answered, behind);
        let reply = Reply { after, behind, step: self.step, time: self.now.0 };
        match (name, asked) {
            ("\"watched\"", Asked::Watch(number)) => {
                let Watch { ask, memberships } = &mut client.watches[number];
                assert_eq!(ask.id, q, "answers come in the order of the questions");
                ask.reply = Some(reply);
                for (room, &membership) in ask.rooms.iter().zip(&*memberships) {
                    client.memberships.get_mut(room).unwrap()[membership].certain = Some(self.step);
                }
            }
            ("\"values\"", Asked::Question(number)) => {
                let Question { ask, answer } = &mut client.questions[number];
                assert_eq!(ask.id, q, "answers come in the order of the questions");
                ask.reply = Some(reply);
                let values = json::elements(json::get(data, "values").unwrap());
                answer.extend(values.map(|value| json::get(value, "n").unwrap().parse::<u64>().unwrap()));
            }
            ("\"said\"", Asked::Emit(ids)) => {
                ids.for_each(|id| self.model.events.get_mut(&id).unwrap().answered = true);
            }
            (name, asked) => panic!("{name} {data} to {asked:?}"),
        }
    }

    /// The client is in the namespace from now on.
    fn in_namespace(&mut self, index: usize) {
        let whole = place(self.peers[index].namespace, "");
        let list = self.model.clients[index].memberships.get_mut(&whole).expect("asked for by connecting");
        list[0].certain = Some(self.step);
    }
}

/// How a packet names its namespace.
fn prefix(namespace: &str) -> String {
    if namespace == "/" { String::new() } else { format!("{namespace},") }
}

impl Line {
    fn id(&self) -> u64 {
        match self {
            Line::Event { id, .. } | Line::Operation { id, .. } => *id,
        }
    }

    fn asks(&self) -> bool {
        matches!(self, Line::Event { ack_timeout_ms: Some(_), .. })
    }
}

/// The event that a client's message acknowledges, if that is what it does.
fn acknowledged_event(text: &str) -> Option<u64> {
    let packet = text.strip_prefix("43")?;
    let packet = packet.strip_prefix('/').and_then(|rest| rest.split_once(',')).map_or(packet, |(_, packet)| packet);
    let list = packet.trim_start_matches(|c: char| c.is_ascii_digit());
    json::elements(list).next()?.parse().ok()
}

fn line_text(line: &Line) -> String {
    let names = |rooms: &[String]| rooms.iter().map(|room| format!("{room:?}")).collect::<Vec<_>>().join(",");
    match line {
        Line::Event { id, namespace, rooms, except, volatile, ack_timeout_ms, key } => {
            let to = match &rooms[..] {
                [] => String::new(),
                [room] => format!("\"room\":{room:?},"),
                _ => format!("\"rooms\":[{}],", names(rooms)),
            };
            let (except, data) = (names(except), key.data(*id));
            let data = data + &key.line.map_or(String::new(), |key| format!(",\"key\":{key:?}"));
            let ack = ack_timeout_ms.map_or(String::new(), |ms| format!(",\"ack\":{{\"timeout_ms\":{ms}}}"));
            let to = format!("\"ns\":\"{namespace}\",{to}\"except\":[{except}]");
            format!("{{{to},\"event\":\"event\",\"data\":{data},\"id\":{id},\"volatile\":{volatile}{ack}}}\n")
        }
        Line::Operation { id, namespace, kind, target, rooms } => {
            let whom = target.as_ref().map_or("{\"all\":true}".to_owned(), |room| format!("{{\"room\":{room:?}}}"));
            let rooms = if *kind == "disconnect" { String::new() } else { format!(",\"rooms\":[{}]", names(rooms)) };
            format!("{{\"ns\":\"{namespace}\",\"op\":\"{kind}\",\"where\":{whom}{rooms},\"id\":{id}}}\n")
        }
    }
}

/// Stands for a ping frame among texts.
const PING: &str = "\u{9}";

/// The text of the first whole server frame in `bytes`, taken out.
fn take_frame(bytes: &mut Vec<u8>) -> Option<String> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    let (length, header) = match second {
        126 => (usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?])), 4),
        short => (usize::from(short), 2),
    };
    if bytes.len() < header + length {
        return None;
    }
    let payload: Vec<u8> = bytes.drain(..header + length).skip(header).collect();
    match first {
        0x81 => Some(String::from_utf8(payload).unwrap()),
        0x89 => Some(PING.to_owned()),
        other => panic!("frame {other:#x}"),
    }
}
