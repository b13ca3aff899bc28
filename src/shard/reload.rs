//! A shard's rules and bounds change while clients are connected: sessions, sockets and memberships stay, and whatever
//! comes next is judged by the new ones. Does not know where they come from.

use super::{Namespace, Options, Shard};
use crate::session::HeartbeatOptions;

impl Shard {
    /// From here on these bounds hold. Sessions keep what they were promised when they began: how often they hear a
    /// ping at least.
    pub fn set_options(&mut self, options: Options) {
        let former = self.options;
        self.options = Options { panic_on: former.panic_on, ..options };
        // A client gives its connection up when no ping has come for as long as its handshake said. Who is pinged more
        // often than that does not mind, so the shortest interval of all is everybody's from then on.
        let HeartbeatOptions { ping_interval_ms, .. } = self.options.heartbeat;
        self.ping_every_ms = self.ping_every_ms.min(ping_interval_ms);
        self.owned.set_options(self.options.rooms);
        let limits = &self.options.limits;
        if limits.events_per_socket != former.limits.events_per_socket
            || limits.namespaces_per_session_max != former.limits.namespaces_per_session_max
        {
            let (sessions, sockets) = (self.sessions.iter(), self.sockets.iter());
            self.rates.renew(limits, sessions.map(|(at, _)| at), sockets.map(|(at, _)| at), self.now);
        }
    }

    /// From here on these rules hold, in the order of the namespaces' ids: those that are there come first, with the
    /// names and the rooms' classes that they have. Of the rest no name is found before [`Shard::open_namespaces`], as
    /// other cores may not know them yet, and would get messages about them.
    ///
    /// # Panics
    /// If a namespace is missing.
    pub fn set_namespaces(&mut self, namespaces: Vec<Namespace>) {
        assert!(namespaces.len() >= self.namespaces.len(), "rooms and sockets name their namespace by its number");
        assert!(namespaces.len() <= usize::from(u16::MAX), "namespaces are numbered by u16");
        self.patterns.extend(&namespaces);
        self.namespaces = namespaces;
    }

    /// All cores know the first `count` namespaces: clients and publishers may name them.
    ///
    /// # Panics
    /// If this core does not know them.
    pub fn open_namespaces(&mut self, count: usize) {
        assert!(count <= self.namespaces.len(), "nobody tells of namespaces that a core does not have");
        self.namespaces_open = count;
    }

    /// The namespaces that clients and publishers may name.
    pub(super) fn namespaces_open(&self) -> &[Namespace] {
        &self.namespaces[..self.namespaces_open]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::class::{Class, Classes, NameMatch, SlowConsumer};
    use crate::base::clock::Millis;
    use crate::base::ids::{NamespaceId, SlotRef, Topology};
    use crate::base::rate::Rate;
    use crate::mesh;
    use crate::proto::raw::Shape;
    use crate::session::rules::{NamespaceRules, RulesSource};
    use crate::session::{Kind, LimitOptions};
    use crate::shard::{self, Flow, Handshake};
    use std::net::{IpAddr, Ipv4Addr};

    fn namespace(name: &str, rules: &str, rooms: &[&str]) -> Namespace {
        let source: RulesSource = toml::from_str(rules).unwrap();
        let class = Class { slow_consumer: SlowConsumer::DropOldest, ..Class::default() };
        let classes = rooms.iter().map(|room| (vec![NameMatch::new(room)], class.clone())).collect();
        Namespace {
            name: name.into(),
            rules: NamespaceRules::compile(&source).unwrap(),
            classes: Classes::new(classes),
        }
    }

    fn rule(event: &str, reply: &str) -> String {
        format!("[[on]]\nevent = \"{event}\"\nreply = {{ event = \"{reply}\" }}\n")
    }

    fn shard(ping_interval_ms: u64) -> Shard {
        let port = mesh::connect(1, mesh::Options { slots: 64 }).remove(0);
        let heartbeat = HeartbeatOptions { ping_interval_ms, ..HeartbeatOptions::default() };
        let options = shard::Options { heartbeat, ..shard::Options::default() };
        let namespaces = vec![namespace("/", &rule("a", "old"), &["x"])];
        Shard::new(port, Topology::new(1, 1), namespaces, options, [0; 32], Millis(0), 1)
    }

    fn open(shard: &mut Shard, slot: u32) -> SlotRef {
        let kind = Kind::Raw { namespace: NamespaceId(0), shape: Shape::Nested };
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let handshake = Handshake { kind, polls: false, query: "", bearer: None, ip, message_bytes_max: 1000 };
        let at = shard.open(SlotRef { slot, generation: 0 }, handshake, shard.now);
        while shard.receive(1000, shard.now) < 1000 {}
        at
    }

    /// What waits for the session, as text.
    fn heard(shard: &mut Shard, at: SlotRef) -> String {
        let all: Vec<u8> = shard.outboxes.waiting(at.slot).flat_map(|(_, bytes)| bytes.to_vec()).collect();
        shard.outboxes.advance(at.slot, all.len());
        String::from_utf8_lossy(&all).into_owned()
    }

    #[test]
    fn live_sockets_go_by_the_new_rules() {
        let mut shard = shard(1000);
        let at = open(&mut shard, 1);
        let say = |shard: &mut Shard, text: &str| {
            assert_eq!(shard.text(at, text, Millis(0)), Flow::Ready);
            heard(shard, at)
        };
        assert!(say(&mut shard, r#"{"type":"a"}"#).contains("old"));
        let fresh = namespace("/new", &rule("a", "b"), &["x", "y"]);
        shard.set_namespaces(vec![namespace("/", &rule("a", "young"), &["x"]), fresh]);
        assert!(say(&mut shard, r#"{"type":"a"}"#).contains("young"));
        assert_eq!(shard.namespace("/new"), None, "the other cores may not know it");
        shard.open_namespaces(2);
        assert_eq!(shard.namespace("/new").map(|namespace| namespace.id), Some(NamespaceId(1)));
        // A pattern's number is what it was, and two namespaces share one.
        let number = |shard: &Shard, namespace, room| {
            shard.patterns.slow_class(&shard.namespaces, NamespaceId(namespace), room).pattern.0
        };
        assert_eq!([number(&shard, 0, "x"), number(&shard, 1, "x"), number(&shard, 1, "y")], [1, 1, 2]);
        shard.count_slow_consumers();
    }

    #[test]
    fn who_was_promised_a_ping_gets_it() {
        let mut shard = shard(1000);
        let with = |ping_interval_ms| {
            let heartbeat = HeartbeatOptions { ping_interval_ms, ..HeartbeatOptions::default() };
            shard::Options { heartbeat, ..shard::Options::default() }
        };
        let former = open(&mut shard, 1);
        heard(&mut shard, former);
        shard.set_options(with(5000));
        let latter = open(&mut shard, 2);
        heard(&mut shard, latter);
        // From 1000 on one ping each, which is early for the second one.
        shard.advance(Millis(1000));
        assert!(!heard(&mut shard, former).is_empty());
        assert!(!heard(&mut shard, latter).is_empty());
        shard.set_options(with(300));
        let third = open(&mut shard, 3);
        heard(&mut shard, third);
        shard.advance(Millis(1300));
        assert!(!heard(&mut shard, third).is_empty());
        shard.check();
    }

    #[test]
    fn limits_hold_for_who_is_there() {
        let mut shard = shard(1000);
        let at = open(&mut shard, 1);
        heard(&mut shard, at);
        let limited = |per_s| {
            let limits = LimitOptions { events_per_socket: Rate::new(per_s, 0), ..LimitOptions::default() };
            shard::Options { limits, ..shard::Options::default() }
        };
        let answers = |shard: &mut Shard, count: usize| {
            for _ in 0..count {
                assert_eq!(shard.text(at, r#"{"type":"a"}"#, Millis(0)), Flow::Ready);
            }
            heard(shard, at).matches("\"old\"").count()
        };
        assert_eq!(answers(&mut shard, 9), 9);
        shard.set_options(limited(3));
        assert_eq!(answers(&mut shard, 9), 3);
        shard.set_options(limited(3));
        assert_eq!(answers(&mut shard, 9), 0, "the same limit forgets nothing");
        shard.set_options(limited(5));
        assert_eq!(answers(&mut shard, 9), 5);
        shard.set_options(limited(0));
        assert_eq!(answers(&mut shard, 9), 9);
    }
}
