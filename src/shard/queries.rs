//! What publishers ask about: each core tells what it has, and the publisher's core puts it together. A list of rooms
//! is gathered in slices, one in each turn, so that a million rooms delay nobody.

use super::messages::{Down, Facts, Found, Query, ReceiptTo, Up, What};
use super::{Shard, name_of};
use crate::base::frame::Encoding;
use crate::base::ids::{CoreId, NamespaceRef, RoomKey, RoomName, SocketId};
use crate::base::sketch::Measure;
use crate::proto::line::query::{self, CoreStats, ROOMS_MAX, RoomFacts, RoomOrder, SocketFacts, TopFacts, TopRoom};
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

/// Rooms looked at in one slice: 400 ns each in the worst case, that every one comes before all others so far and has a
/// long name, so that a slice takes a fifth of a turn's 500 µs.
const SLOTS_PER_SLICE: u32 = 256;
/// Rooms whose facts are gathered in one slice: two look-ups each, most of them cache misses.
const FACTS_PER_SLICE: usize = 64;
/// A slice's share of a turn's budget of deliveries.
const SLICE_COST: usize = 2048;

/// Lists of rooms under way; the first one is worked on.
pub(super) type Scans = VecDeque<Scan>;

/// One core's part of a list of rooms. A room that is there all the time is found; one that comes or goes meanwhile may
/// be.
#[derive(Debug)]
pub(super) struct Scan {
    query: Arc<Query>,
    stage: Stage,
    /// The first rooms in the order of their names, at most as many as are wanted.
    first: BTreeMap<RoomName, RoomKey>,
    facts: Vec<RoomFacts>,
}

/// Which table is gone through, and where the next slice begins.
#[derive(Clone, Copy, Debug)]
enum Stage {
    Owned(u32),
    Groups(u32),
    Facts,
}

impl Shard {
    /// Asks the cores. Each of those whose number is returned answers with one [`Action::Found`](super::Action::Found);
    /// none does if it is about a socket that cannot exist.
    pub fn query(&mut self, namespace: NamespaceRef<'_>, wanted: &query::Query, to: ReceiptTo) -> usize {
        let key = |name: RoomName| self.topology.key(namespace, name);
        let what = match wanted {
            query::Query::Stats => What::Stats { whole: key(RoomName::whole_namespace()) },
            query::Query::Rooms { prefix, after, limit } => What::Rooms {
                whole: key(RoomName::whole_namespace()),
                prefix: prefix.clone(),
                after: after.clone(),
                limit: *limit,
            },
            query::Query::Room(name) => What::Room(key(name.clone())),
            query::Query::Top { by, .. } => What::Top(*by),
            query::Query::Socket(sid) => {
                // A socket's own room has its name, and the socket's core owns it.
                let Some(sid) = SocketId::parse(sid) else { return 0 };
                let Some(core) = sid.core(self.topology.cores()) else { return 0 };
                let Ok(name) = RoomName::new(&sid.to_string(), usize::MAX) else { return 0 };
                let what = What::Socket(key(name));
                self.port.up.send(core, Up::Query(Arc::new(Query { what, to })));
                return 1;
            }
        };
        let query = Arc::new(Query { what, to });
        for core in 0..self.topology.cores() {
            self.port.up.send(CoreId::new(core), Up::Query(query.clone()));
        }
        self.topology.cores()
    }

    /// Milliseconds since the process began.
    #[must_use]
    pub fn uptime_ms(&self) -> u64 {
        self.now.0
    }

    /// Answers for this core: at once, or slice by slice.
    pub(super) fn look(&mut self, query: Arc<Query>) {
        let facts = match &query.what {
            What::Stats { whole } => Facts::Stats(self.stats(whole)),
            What::Room(key) => Facts::Room(self.room_facts(key)),
            What::Socket(key) => Facts::Socket(self.socket_facts(key)),
            What::Top(by) => Facts::Top(self.top_facts(*by)),
            What::Rooms { .. } => {
                let (first, facts) = (BTreeMap::new(), Vec::new());
                return self.scans.push_back(Scan { query, stage: Stage::Owned(0), first, facts });
            }
        };
        self.tell(query.to, facts);
    }

    fn tell(&mut self, to: ReceiptTo, facts: Facts) {
        let core = self.core;
        self.port.down.send(to.core, Down::Found(Box::new(Found { to, core, facts })));
    }

    /// Does the next slice of the first list, if there is any and its answer would find space; returns its cost.
    pub(super) fn scan_some(&mut self) -> usize {
        if self.port.down.is_blocked() {
            return 0;
        }
        let Some(mut scan) = self.scans.pop_front() else { return 0 };
        if self.scan_slice(&mut scan) {
            self.tell(scan.query.to, Facts::Rooms(scan.facts));
        } else {
            self.scans.push_front(scan);
        }
        SLICE_COST
    }

    /// True if it was the last one.
    fn scan_slice(&mut self, scan: &mut Scan) -> bool {
        match scan.stage {
            Stage::Owned(from) => {
                let until = self.owned.slots().min(from.saturating_add(SLOTS_PER_SLICE));
                (from..until).filter_map(|slot| self.owned.key_at(slot)).for_each(|key| scan.consider(key));
                let done = until == self.owned.slots();
                scan.stage = if done { Stage::Groups(0) } else { Stage::Owned(until) };
                false
            }
            Stage::Groups(from) => {
                let until = self.local.slots().min(from.saturating_add(SLOTS_PER_SLICE));
                (from..until).filter_map(|slot| self.local.key_at(slot)).for_each(|key| scan.consider(key));
                let done = until == self.local.slots();
                scan.stage = if done { Stage::Facts } else { Stage::Groups(until) };
                false
            }
            Stage::Facts => {
                for _ in 0..FACTS_PER_SLICE {
                    let Some((_, key)) = scan.first.pop_first() else { return true };
                    scan.facts.push(self.room_facts(&key));
                }
                scan.first.is_empty()
            }
        }
    }

    fn stats(&self, whole: &RoomKey) -> CoreStats {
        let counters = &self.counters;
        CoreStats {
            connections: counters.connections,
            publishers: counters.publishers,
            sessions: self.sessions.len() as u64,
            sessions_polling: counters.sessions_polling,
            sockets: self.sockets.len() as u64,
            sockets_of_namespace: self.local.count_of(whole).iter().map(|count| u64::from(*count)).sum(),
            rooms: self.owned.len() as u64,
            events: counters.events_ordered,
            deliveries: counters.deliveries,
        }
    }

    fn room_facts(&self, key: &RoomKey) -> RoomFacts {
        let mut members = self.local.count_of(key);
        // A socket is in its own room without a membership.
        if let Some(own) = self.own_socket(key)
            && !self.local.members_of(key).any(|member| member.socket == own.slot)
        {
            members[self.encoding_of(self.sockets[own.slot].session).index()] += 1;
        }
        let order = self.owned.order_of(key).map(|(offset, epoch, traffic)| RoomOrder {
            offset: offset.0,
            epoch: epoch.0,
            rate: traffic.rate(self.now),
            bytes: traffic.bytes(),
        });
        RoomFacts { name: key.name.clone(), members, order }
    }

    fn socket_facts(&self, own_room: &RoomKey) -> Option<SocketFacts> {
        let at = self.own_socket(own_room)?;
        let socket = &self.sockets[at.slot];
        let session = &self.sessions[socket.session];
        let named = || {
            let rooms = self.local.rooms_of(at.slot);
            rooms.filter(|key| !key.name.is_whole_namespace() && **key != *own_room)
        };
        Some(SocketFacts {
            sid: socket.sid,
            ip: session.ip.to_ipv4_mapped().map_or(IpAddr::V6(session.ip), IpAddr::V4),
            encoding: self.encoding_of(socket.session),
            polls: session.polling.is_some(),
            waiting: u64::from(self.outboxes.bytes(socket.session)),
            rooms: named().take(ROOMS_MAX).map(|key| key.name.clone()).collect(),
            room_count: named().count(),
        })
    }

    /// Some 30 µs with full sketches.
    fn top_facts(&self, by: Measure) -> TopFacts {
        let (others_max, listed) = self.local.busiest.list(by);
        let rooms = listed.map(|(key, estimate)| {
            let namespace = NamespaceRef { id: key.namespace, instance: key.name.instance() };
            TopRoom {
                namespace: name_of(&self.namespaces, namespace).into(),
                room: key.name.clone(),
                count: estimate.count,
                error: estimate.error,
            }
        });
        TopFacts { rooms: rooms.collect(), others_max, covers_ms: self.local.busiest.covers_ms(self.now) }
    }

    fn encoding_of(&self, session: u32) -> Encoding {
        self.sessions[session].kind.encoding()
    }
}

impl Scan {
    /// Keeps the room if it is one of the first of those that are wanted.
    fn consider(&mut self, key: &RoomKey) {
        let What::Rooms { whole, prefix, after, limit } = &self.query.what else {
            unreachable!("only lists of rooms are gathered")
        };
        let here = key.namespace == whole.namespace && key.name.instance() == whole.name.instance();
        let name = key.name.as_str();
        if !here || !name.starts_with(&**prefix) || name <= &**after || key.name.is_whole_namespace() {
            return;
        }
        let beyond = |last: &RoomName| last.as_str() <= name;
        if self.first.len() >= *limit && self.first.last_key_value().is_some_and(|(last, _)| beyond(last)) {
            return;
        }
        self.first.insert(key.name.clone(), key.clone());
        if self.first.len() > *limit {
            self.first.pop_last();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::class::Classes;
    use crate::base::clock::Millis;
    use crate::base::event::Event;
    use crate::base::ids::{SlotRef, Topology};
    use crate::mesh;
    use crate::session::Kind;
    use crate::session::namespace::{NamePattern, NamespaceName};
    use crate::session::rules::{NamespaceRules, RulesSource};
    use crate::shard::{Action, Handshake, Line, Namespace, Options};
    use smallvec::smallvec;

    const PUBLISHER: SlotRef = SlotRef { slot: 9, generation: 1 };

    /// Two cores in one thread.
    struct Machine(Vec<Shard>);

    impl Machine {
        fn new() -> Machine {
            let topology = Topology::new(2, 1);
            let shard = |port| {
                let source: RulesSource = toml::from_str(
                    "name = \"/\"\n[[on]]\nevent = \"join\"\njoin = [\"{data}\"]\nreply = { event = \"joined\" }",
                )
                .unwrap();
                let rules = |source| NamespaceRules::compile(source).unwrap();
                let pattern = NamespaceName::Pattern(NamePattern::compile("^/w-.$").unwrap());
                let every_w = RulesSource { pattern: Some("/w-.".into()), ..RulesSource::default() };
                let namespaces = vec![
                    Namespace { name: "/".into(), rules: rules(&source), classes: Classes::default() },
                    Namespace { name: pattern, rules: rules(&every_w), classes: Classes::default() },
                ];
                Shard::new(port, topology.clone(), namespaces, Options::default(), [0; 32], Millis(0), 1)
            };
            Machine(mesh::connect(2, mesh::Options { slots: 1 << 12 }).into_iter().map(shard).collect())
        }

        /// Lets the cores work until nothing happens; returns what was found.
        fn rest(&mut self) -> Vec<(CoreId, Facts)> {
            let mut found = Vec::new();
            loop {
                let mut idle = true;
                for shard in &mut self.0 {
                    shard.port.flush();
                    idle &= shard.receive(1 << 20, Millis(20_000)) == 1 << 20;
                    while let Some(action) = shard.poll_action() {
                        idle = false;
                        if let Action::Found { to, core, facts } = action {
                            assert_eq!(to.ticket, 7);
                            found.push((core, facts));
                        }
                    }
                }
                if idle && self.0.iter().all(|shard| shard.port.is_idle()) {
                    found.sort_by_key(|(core, _)| *core);
                    return found;
                }
            }
        }

        fn ask(&mut self, namespace: &str, query: &query::Query) -> Vec<(CoreId, Facts)> {
            let to = ReceiptTo { core: CoreId::new(0), publisher: PUBLISHER, ticket: 7 };
            let namespace = self.0[0].namespace(namespace).unwrap();
            let cores = self.0[0].query(namespace, query, to);
            let found = self.rest();
            assert_eq!(found.len(), cores);
            found
        }

        fn publish(&mut self, namespace: &str, room: &str) {
            let namespace = self.0[0].namespace(namespace).unwrap();
            let event = Event::new(namespace, "\"x\"", "12345", 1);
            let rooms = smallvec![RoomName::new(room, 99).unwrap()];
            let line = Line { event, rooms, except: Vec::new(), key: None, volatile: false, ask: None };
            self.0[0].publish(line, None);
            self.rest();
        }

        /// A Socket.IO client on `core` that polls and is in `rooms`; returns its socket's id.
        fn client(&mut self, core: usize, rooms: &[&str]) -> String {
            let transport = SlotRef { slot: rooms.len() as u32, generation: 0 };
            let ip = std::net::Ipv4Addr::LOCALHOST.into();
            let handshake =
                Handshake { kind: Kind::SocketIo, query: "", bearer: None, ip, polls: true, message_bytes_max: 100 };
            let session = self.0[core].open(transport, handshake, Millis(0));
            let _ = self.0[core].text(session, "40", Millis(0));
            self.rest();
            for room in rooms {
                let _ = self.0[core].text(session, &format!("42[\"join\",\"{room}\"]"), Millis(0));
                self.rest();
            }
            let shard = &self.0[core];
            shard.sockets[shard.sessions[session.slot].sockets[0].1.slot].sid.to_string()
        }

        /// The names of a list, merged as the publisher's core does.
        fn names(&mut self, namespace: &str, prefix: &str, after: &str, limit: usize) -> Vec<String> {
            let found = self.ask(namespace, &query::Query::Rooms { prefix: prefix.into(), after: after.into(), limit });
            let mut names: Vec<String> = Vec::new();
            for (_, facts) in found {
                let Facts::Rooms(rooms) = facts else { panic!("{facts:?}") };
                assert!(rooms.len() <= limit);
                names.extend(rooms.iter().map(|room| room.name.as_str().to_owned()));
            }
            names.sort();
            names.dedup();
            names.truncate(limit);
            names
        }
    }

    #[test]
    fn lists_are_gathered_in_slices_and_sorted() {
        let mut machine = Machine::new();
        let all: Vec<String> = (0..5000).map(|n| format!("r{n:04}")).collect();
        for name in all.iter().rev() {
            machine.publish("/", name);
        }
        machine.publish("/w-1", "r0000x");
        machine.publish("/w-2", "elsewhere");
        assert_eq!(machine.names("/", "", "", 1000), all[..1000]);
        assert_eq!(machine.names("/", "", "r0999", 7), all[1000..1007]);
        assert_eq!(machine.names("/", "r49", "r4990", 1000), all[4991..]);
        assert_eq!(machine.names("/", "s", "", 10), [""; 0]);
        assert_eq!(machine.names("/w-1", "", "", 10), ["r0000x"]);
        // One slice in each call, whatever the budget.
        let to = ReceiptTo { core: CoreId::new(0), publisher: PUBLISHER, ticket: 7 };
        let namespace = machine.0[0].namespace("/").unwrap();
        machine.0[0].query(namespace, &query::Query::Rooms { prefix: "".into(), after: "".into(), limit: 1 }, to);
        let mut slices = 0;
        while machine.0[0].receive(1 << 20, Millis(1)) < 1 << 20 {
            slices += 1;
        }
        assert!(slices > 5000 / 2 / SLOTS_PER_SLICE as usize, "{slices} slices");
    }

    /// `cargo test --release slice_cost -- --ignored --nocapture`
    #[test]
    #[ignore = "a measurement"]
    fn slice_cost() {
        let mut machine = Machine::new();
        for n in (0..100_000).rev() {
            machine.publish("/", &format!("a rather long name that all rooms begin with: {n:06}"));
        }
        let to = ReceiptTo { core: CoreId::new(0), publisher: PUBLISHER, ticket: 7 };
        let namespace = machine.0[0].namespace("/").unwrap();
        machine.0[0].query(namespace, &query::Query::Rooms { prefix: "a r".into(), after: "".into(), limit: 1000 }, to);
        let mut slices = Vec::new();
        loop {
            let start = std::time::Instant::now();
            if machine.0[0].receive(1 << 20, Millis(1)) == 1 << 20 {
                break;
            }
            slices.push(start.elapsed());
        }
        slices.sort_unstable();
        let (count, all) = (slices.len(), slices.iter().sum::<std::time::Duration>());
        let (average, late, longest) = (all / count as u32, slices[count * 99 / 100], slices[count - 1]);
        println!("{count} slices, on average {average:?}, 99 of 100 within {late:?}, the longest {longest:?}");
        let (mut traffic, start) = (crate::room::traffic::Traffic::default(), std::time::Instant::now());
        for n in 0..10_000_000 {
            std::hint::black_box(&mut traffic).note(std::hint::black_box(100), Millis(n / 1000));
        }
        println!("an event's note in its room: {:?}", start.elapsed() / 10_000_000);
    }

    #[test]
    fn facts_are_those_of_all_cores() {
        let mut machine = Machine::new();
        let sids = [machine.client(0, &["a", "b"]), machine.client(1, &["a"]), machine.client(1, &[])];
        for _ in 0..16 {
            machine.publish("/", "a");
        }
        let Facts::Room(of_owner) = (match &machine.ask("/", &query::Query::Room(RoomName::new("a", 9).unwrap()))[..] {
            [(_, first @ Facts::Room(RoomFacts { order: Some(_), .. })), (_, Facts::Room(other))]
            | [(_, Facts::Room(other)), (_, first @ Facts::Room(RoomFacts { order: Some(_), .. }))] => {
                assert_eq!((other.members, other.order), ([1, 0, 0], None));
                first.clone()
            }
            found => panic!("{found:?}"),
        }) else {
            unreachable!()
        };
        let order = of_owner.order.unwrap();
        assert_eq!((of_owner.members, order.offset, order.bytes), ([1, 0, 0], 16, 16 * 8));
        // What a socket hears by its own room's name counts as a room of one member.
        machine.publish("/", &sids[2]);
        let own = machine.ask("/", &query::Query::Room(RoomName::new(&sids[2], 20).unwrap()));
        let count = |facts: &Facts| match facts {
            Facts::Room(room) => room.members.iter().sum::<u32>(),
            other => panic!("{other:?}"),
        };
        assert_eq!(own.iter().map(|(_, facts)| count(facts)).collect::<Vec<_>>(), [0, 1]);
        // (socket, its rooms; None if there is none)
        for (namespace, sid, rooms) in [
            ("/", &*sids[0], Some(&["a", "b"][..])),
            ("/", &*sids[1], Some(&["a"][..])),
            ("/", &*sids[2], Some(&[][..])),
            ("/w-1", &*sids[0], None),
            ("/", "AAAAAAAAAAAAAAAAAAAA", None),
            ("/", "nobody", None),
        ] {
            let found = machine.ask(namespace, &query::Query::Socket(sid.into()));
            let socket = match &found[..] {
                [] => None,
                [(_, Facts::Socket(socket))] => socket.as_ref(),
                other => panic!("{other:?}"),
            };
            let names = |s: &SocketFacts| s.rooms.iter().map(|room| room.as_str().to_owned()).collect::<Vec<_>>();
            let expected = rooms.map(|rooms| rooms.iter().map(|room| (*room).to_owned()).collect::<Vec<_>>());
            assert_eq!(socket.map(names), expected, "{sid}");
            if let Some(socket) = socket {
                assert!(socket.sid.to_string() == sid && socket.polls && socket.waiting > 0);
                assert_eq!((socket.ip.to_string().as_str(), socket.room_count), ("127.0.0.1", socket.rooms.len()));
            }
        }
        let stats = machine.ask("/", &query::Query::Stats);
        let stats = stats.into_iter().map(|(_, facts)| match facts {
            Facts::Stats(stats) => (stats.sessions, stats.sockets, stats.sockets_of_namespace),
            other => panic!("{other:?}"),
        });
        assert_eq!(stats.collect::<Vec<_>>(), [(1, 1, 1), (2, 2, 2)]);
        machine.0.iter().for_each(Shard::check);
    }
}
