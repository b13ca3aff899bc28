//! Slow consumers: how a room's members are treated when they lag, what is counted then, and the memory of all outboxes
//! together. Knows neither rings nor clients' protocols; dropping is the outbox's.

use super::messages::Manner;
use super::{Namespace, OVER_BUDGET, SLOW_CONSUMER, Shard};
use crate::base::class::{PatternId, SlowClass, SlowConsumer};
use crate::base::counters::SLOW_CONSUMERS;
use crate::base::ids::{NamespaceId, SlotRef};
use crate::session::budget::Budget;
use crate::session::outbox::Fate;
use std::sync::Arc;

/// What stands for rooms that no pattern is for.
const NO_PATTERN: &str = "*";

/// The patterns of all namespaces' rooms, numbered.
#[derive(Debug)]
pub(super) struct Patterns {
    /// What metrics call them; two namespaces may share one.
    names: Vec<Arc<str>>,
    /// By namespace and position among its patterns.
    ids: Vec<Vec<PatternId>>,
    /// Connections that were cut, by number of the pattern.
    disconnects: Vec<u64>,
    /// Connections that were cut for want of memory.
    shed: u64,
}

impl Patterns {
    pub(super) fn new(namespaces: &[Namespace]) -> Patterns {
        let names = vec![NO_PATTERN.into()];
        let mut patterns = Patterns { names, ids: Vec::new(), disconnects: vec![0], shed: 0 };
        patterns.extend(namespaces);
        patterns
    }

    /// Numbers the patterns of these namespaces. Each one keeps a number that it has: members, frames that wait, and
    /// metrics know it.
    pub(super) fn extend(&mut self, namespaces: &[Namespace]) {
        let Patterns { names, ids, disconnects, .. } = self;
        let mut number = |name: String| {
            let at = names.iter().position(|other| **other == *name).unwrap_or_else(|| {
                names.push(name.into());
                names.len() - 1
            });
            PatternId(at as u32)
        };
        let of = |namespace: &Namespace| namespace.classes.patterns().map(ToString::to_string).collect::<Vec<_>>();
        *ids = namespaces.iter().map(|namespace| of(namespace).into_iter().map(&mut number).collect()).collect();
        disconnects.resize(names.len(), 0);
    }

    /// How slow members of the room of that name are treated.
    pub(super) fn slow_class(&self, namespaces: &[Namespace], namespace: NamespaceId, room: &str) -> SlowClass {
        let index = usize::from(namespace.0);
        let Some((at, class)) = namespaces[index].classes.find(room) else { return SlowClass::default() };
        SlowClass { policy: class.slow_consumer, pattern: self.ids[index][at] }
    }
}

/// What may become of an event's frame that waits for a slow member.
pub(super) fn fate(slow: SlowClass, manner: Option<&Manner>) -> Fate {
    match (slow.policy, manner.and_then(|manner| manner.mark)) {
        (SlowConsumer::Disconnect, _) | (SlowConsumer::Conflate, None) => Fate::Kept,
        (SlowConsumer::DropOldest, _) => Fate::Droppable(slow.pattern),
        (SlowConsumer::Conflate, Some(mark)) => Fate::Conflatable(slow.pattern, mark),
    }
}

impl Shard {
    /// Ends a session that does not take what waits for it, for which an event of a room of that pattern had no place.
    pub(super) fn cut_slow_consumer(&mut self, session: SlotRef, pattern: PatternId) {
        self.patterns.disconnects[pattern.0 as usize] += 1;
        self.abort(session, SLOW_CONSUMER);
    }

    /// Brings the counts by pattern up to date.
    pub(super) fn count_slow_consumers(&mut self) {
        let Shard { patterns, outboxes, counters, .. } = self;
        for (index, rooms) in patterns.names.iter().enumerate() {
            let losses = outboxes.losses().get(index).copied().unwrap_or_default();
            counters.set_for_rooms(SLOW_CONSUMERS, "disconnect", rooms, patterns.disconnects[index]);
            counters.set_for_rooms(SLOW_CONSUMERS, "dropped", rooms, losses.dropped);
            counters.set_for_rooms(SLOW_CONSUMERS, "conflated", rooms, losses.conflated);
        }
        counters.set_for_rooms(SLOW_CONSUMERS, "shed", &patterns.names[0], patterns.shed);
    }

    /// Tells the other cores what this one's outboxes take. While all take more than the budget, those that hold the
    /// most are cut, worst first: a core cuts its own as long as they hold at least half of what the worst of any core
    /// holds. Returns true while more is to be done, here or elsewhere: all cores must be awake then, and call this
    /// again.
    pub fn keep_budget(&mut self, budget: &Budget) -> bool {
        let Some(bytes_max) = budget.bytes_max() else { return false };
        let core = self.core.index();
        budget.set_memory(core, self.outboxes.memory());
        if budget.memory() <= bytes_max {
            budget.set_largest(core, None);
            return false;
        }
        // Every session is looked at, which is no price for what does not happen.
        let mut holders: Vec<(u32, u32)> = self.outboxes.holders().map(|(slot, bytes)| (bytes, slot)).collect();
        holders.retain(|(_, slot)| self.may_shed(*slot));
        holders.sort_unstable();
        let largest = |holders: &[(u32, u32)]| holders.last().map_or(0, |(bytes, _)| *bytes);
        budget.set_largest(core, Some(largest(&holders)));
        let Some(worst) = budget.largest() else { return true };
        while budget.memory() > bytes_max / 10 * 9
            && let Some((_, slot)) = holders.pop_if(|(bytes, _)| 2 * u64::from(*bytes) >= worst)
        {
            self.shed(slot);
            budget.set_memory(core, self.outboxes.memory());
        }
        budget.set_largest(core, Some(largest(&holders)));
        worst > 0 && budget.memory() > bytes_max
    }

    /// A polled session that has ended must keep its last words for the poll that fetches them, for a while.
    fn may_shed(&self, slot: u32) -> bool {
        self.sessions
            .at(slot)
            .is_none_or(|at| !self.sessions[at.slot].closing || self.sessions[at.slot].polling.is_none())
    }

    fn shed(&mut self, slot: u32) {
        match self.sessions.at(slot) {
            Some(at) if !self.sessions[at.slot].closing => {
                self.patterns.shed += 1;
                self.abort(at, OVER_BUDGET);
            }
            // Its connection is being closed, or a panic has left nothing but its outbox.
            _ => self.outboxes.close(slot),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::class::{Class, Classes, NameMatch};
    use crate::base::clock::Millis;
    use crate::base::event::Event;
    use crate::base::frame::Frame;
    use crate::base::ids::{RoomName, Topology};
    use crate::mesh;
    use crate::proto::raw::Shape;
    use crate::session::rules::{NamespaceRules, RulesSource};
    use crate::session::{Kind, LimitOptions};
    use crate::shard::{self, Action, AskOptions, Handshake, Line, messages::ReceiptTo};
    use std::net::{IpAddr, Ipv4Addr};

    const RULES: &str = "[[on]]\nevent = \"join\"\njoin = [\"{data.room}\"]";

    fn shards(cores: usize, classes: &Classes, outbox_bytes_max: u32) -> Vec<Shard> {
        let rules = || NamespaceRules::compile(&toml::from_str::<RulesSource>(RULES).unwrap()).unwrap();
        let limits = LimitOptions { outbox_bytes_max, ..LimitOptions::default() };
        let options = shard::Options { limits, ..shard::Options::default() };
        let shard = |port| {
            let namespaces = vec![Namespace { name: "/".into(), rules: rules(), classes: classes.clone() }];
            Shard::new(port, Topology::new(cores, 1), namespaces, options, [0; 32], Millis(0), 1)
        };
        mesh::connect(cores, mesh::Options { slots: 1 << 10 }).into_iter().map(shard).collect()
    }

    fn client(shard: &mut Shard, number: u32, kind: Kind) -> SlotRef {
        let transport = SlotRef { slot: number, generation: 0 };
        shard.open(transport, handshake(kind), Millis(0))
    }

    fn handshake(kind: Kind) -> Handshake<'static> {
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Handshake { kind, query: "", ip, polls: false, bearer: None, message_bytes_max: 1000 }
    }

    const RAW: Kind = Kind::Raw { namespace: NamespaceId(0), shape: Shape::Nested };

    #[test]
    fn the_worst_of_all_cores_are_cut_until_the_rest_fits() {
        let mut shards = shards(3, &Classes::default(), 1 << 20);
        let budget = Budget::new(3, 1000 << 10);
        let mut sessions = Vec::new();
        let waiting = [(0, 190), (0, 300), (0, 20), (1, 10), (1, 280), (1, 40), (1, 250)];
        for (number, &(core, kilobytes)) in waiting.iter().enumerate() {
            let session = client(&mut shards[core], number as u32, RAW);
            shards[core].receive(100, Millis(0));
            sessions.push((core, session));
            assert!(!shards[core].keep_budget(&budget), "in order so far");
            let shared = shards[core].outboxes.share(Frame::new(&vec![0; kilobytes << 10]), Fate::Kept);
            let _ = shards[core].outboxes.offer(session.slot, shared, u32::MAX);
            shards[core].outboxes.release(shared);
        }
        let over = |shards: &mut [Shard], core: usize| shards[core].keep_budget(&budget);
        let open = |shards: &[Shard]| -> Vec<u32> {
            let bytes = |(core, session): &(usize, SlotRef)| shards[*core].outboxes.bytes(session.slot) >> 10;
            sessions.iter().map(bytes).filter(|kilobytes| *kilobytes > 0).collect()
        };
        assert!(!over(&mut shards, 0), "the others have not said what they hold");
        assert!(over(&mut shards, 1), "and a third has not said what its worst is");
        assert!(over(&mut shards, 0));
        assert_eq!(open(&shards).len(), waiting.len());
        assert!(over(&mut shards, 2));
        assert!(!over(&mut shards, 1));
        // Not the 300 of the other core, but nearly as much; and not one that holds less than half of it.
        assert_eq!(open(&shards), [190, 300, 20, 10, 40, 250]);
        assert!(!over(&mut shards, 0));
        assert_eq!(budget.largest(), None, "nobody needs to know any more");
        shards[1].count_slow_consumers();
        let counted: Vec<_> = shards[1].counters.by_rooms.iter().map(|(_, o, r, n)| (*o, &**r, *n)).collect();
        assert_eq!(counted, [("shed", "*", 1)]);
        let (_, session) = sessions[4];
        let transport = SlotRef { slot: 4, generation: 0 };
        let abort = Action::Abort { transport, closing: OVER_BUDGET };
        assert!(std::iter::from_fn(|| shards[1].poll_action()).any(|action| action == abort));
        shards[1].closed(session);
        shards.iter().for_each(Shard::check);
    }

    #[test]
    fn what_cannot_be_cut_is_not_waited_for() {
        let mut shards = shards(1, &Classes::default(), 1000);
        let shared = shards[0].outboxes.share(Frame::new(&[0; 2000]), Fate::Kept);
        assert!(!shards[0].keep_budget(&Budget::new(1, 1000)));
        assert!(!shards[0].keep_budget(&Budget::new(1, 0)));
        shards[0].outboxes.release(shared);
    }

    fn publish(shard: &mut Shard, rooms: &[&str], key: Option<&str>, ask: bool) {
        let event = Event::new(NamespaceId(0), "\"e\"", "\"0123456789\"", 1);
        let rooms = rooms.iter().map(|room| RoomName::new(room, 99).unwrap()).collect();
        let to = ReceiptTo { core: shard.core(), publisher: SlotRef { slot: 0, generation: 0 }, ticket: 0 };
        let ask = ask.then_some(AskOptions { timeout_ms: 1000, answer_bytes_max: 1000 });
        let line = Line { event, rooms, except: Vec::new(), key: key.map(Into::into), volatile: false, ask };
        shard.publish(line, Some(to));
        shard.receive(1000, Millis(0));
        shard.check();
    }

    #[test]
    fn a_room_says_what_becomes_of_its_events() {
        let class = |slow_consumer| Class { slow_consumer, ..Class::default() };
        let classes = Classes::new(vec![
            (vec![NameMatch::new("seats:*")], class(SlowConsumer::Conflate)),
            (vec![NameMatch::new("rates"), NameMatch::new("p*")], class(SlowConsumer::DropOldest)),
            (vec![NameMatch::new("news")], class(SlowConsumer::Disconnect)),
            (vec![NameMatch::new("*")], class(SlowConsumer::DropOldest)),
        ]);
        // Which rooms, which key, is it asked for; what 100 of that bring about under a bound of ten.
        for (rooms, key, ask, outcome, pattern) in [
            (&["seats:1"][..], Some("a"), false, "conflated", "seats:*"),
            (&["seats:1"], None, false, "disconnect", "seats:*"),
            (&["rates"], None, false, "dropped", "rates"),
            (&["rates"], Some("a"), false, "dropped", "rates"),
            (&["p1", "rates"], None, false, "dropped", "p*"),
            (&["other", "rates"], None, false, "dropped", "rates"),
            (&["rates"], None, true, "disconnect", "rates"),
            (&["seats:1"], Some("a"), true, "disconnect", "seats:*"),
            (&["news"], None, false, "disconnect", "news"),
            (&["own"], Some("a"), false, "dropped", "*"),
        ] {
            let mut shards = shards(1, &classes, 400);
            let shard = &mut shards[0];
            let session = client(shard, 0, Kind::SocketIo);
            let say = |shard: &mut Shard, text: &str| {
                let _ = shard.text(session, text, Millis(0));
                shard.receive(100, Millis(0));
            };
            say(shard, "40");
            for room in ["seats:1", "rates", "p1", "news"] {
                say(shard, &format!("42[\"join\",{{\"room\":\"{room}\"}}]"));
            }
            shard.outboxes.clear(session.slot);
            let own = shard.sockets[0].sid.to_string();
            let rooms: Vec<&str> = rooms.iter().map(|room| if *room == "own" { &*own } else { *room }).collect();
            (0..100).for_each(|_| publish(shard, &rooms, key, ask));
            shard.count_slow_consumers();
            let counted: Vec<_> = shard.counters.by_rooms.iter().map(|(_, o, r, n)| (*o, &**r, *n)).collect();
            let [(said, under, count)] = counted[..] else { panic!("{counted:?}") };
            assert_eq!((said, under), (outcome, pattern), "{rooms:?} {key:?} {ask}");
            let cut = std::iter::from_fn(|| shard.poll_action())
                .filter(|action| matches!(action, Action::Abort { closing, .. } if *closing == SLOW_CONSUMER))
                .count() as u64;
            if outcome == "disconnect" {
                assert_eq!((count, cut), (1, 1));
            } else {
                let waiting = shard.outboxes.waiting(session.slot).count() as u64;
                assert_eq!((count + waiting, cut), (100, 0));
                assert!(waiting > 0);
            }
        }
    }

    #[test]
    fn a_polling_client_that_asks_and_never_polls_is_cut() {
        let mut shards = shards(1, &Classes::default(), 400);
        let shard = &mut shards[0];
        let handshake = Handshake { polls: true, ..handshake(Kind::SocketIo) };
        let session = shard.open(SlotRef { slot: 1, generation: 0 }, handshake, Millis(0));
        shard.outboxes.clear(session.slot);
        shard.poll_answered(session);
        let post = SlotRef { slot: 2, generation: 0 };
        let most = (0..1000).map(|_| {
            shard.begin_post(session, post).unwrap();
            if !shard.begin_packets(session, post) {
                return None;
            }
            let _ = shard.post_packet(session, "40/nowhere,", Millis(0));
            shard.end_post(session, post);
            Some(shard.outboxes.answers(session.slot))
        });
        let most: Vec<u32> = most.map_while(|answers| answers).collect();
        assert!(most.last().is_some_and(|&last| last > 400 && last < 600), "{most:?}");
        assert_eq!(shard.poll_action(), Some(Action::Ended { session }));
        shard.closed(session);
        shard.count_slow_consumers();
        assert_eq!(shard.counters.by_rooms, [(SLOW_CONSUMERS, "disconnect", "*".into(), 1)]);
        shard.check();
    }
}
