//! What is measured of the way of events and of the rings, and which rooms get most. Reads no clock: times are those
//! that [`Shard::set_instant`] was told, once for each read and once for each turn's deliveries.

use super::{Shard, TimerKey};
use crate::base::clock::{Micros, Millis, Stamp};
use crate::base::sketch::Measure;
use std::collections::VecDeque;

/// One event in so many is timed: a stamp and four notes, 40 ns together, are less than a nanosecond of each.
const EVENTS_PER_STAMP: u32 = 64;
/// And each that comes so long after the last one that was: where few events are, each is worth timing.
const PAUSE_US: u64 = 10_000;
/// Deliveries whose sends are waited for. More at a time are not timed to their end: as many wait for sends only while
/// the core has far too much to do, which the others show.
const AFLOAT_MAX: usize = 64;
/// The rings are looked at in one of so many turns: a prime, as turns with messages may come in some rhythm.
const TURNS_PER_LOOK: u64 = 17;
/// How often the ranks of rooms are made anew, as long as any of them gets anything: with full sketches it takes 20 µs.
const RANK_MS: u64 = 1000;

/// What is measured at present.
#[derive(Debug)]
pub(super) struct Timing {
    /// Events until the next one that is timed.
    until_next: u32,
    /// When the last one was.
    last: Micros,
    afloat: VecDeque<Afloat>,
    /// True exactly while [`TimerKey::Ranks`] is armed.
    ranks: bool,
}

/// A delivery that waits for its sends.
#[derive(Clone, Copy, Debug)]
struct Afloat {
    stamp: Stamp,
    /// When the frames were in the outboxes.
    delivered: Micros,
    /// All sessions that had something to send then have had their turn when the outboxes have counted so many.
    until: u64,
}

impl Timing {
    pub(super) fn new() -> Timing {
        // The first event is timed.
        Timing { until_next: 0, last: Micros(0), afloat: VecDeque::with_capacity(AFLOAT_MAX), ranks: false }
    }

    /// An event comes in.
    #[inline]
    pub(super) fn begin(&mut self, now: Micros) -> Stamp {
        if self.until_next > 0 && now.0 < self.last.0 + PAUSE_US {
            self.until_next -= 1;
            return Stamp::NONE;
        }
        (self.until_next, self.last) = (EVENTS_PER_STAMP - 1, now);
        Stamp::new(now)
    }
}

impl Shard {
    /// Tells what time it is, for what is measured.
    #[inline]
    pub fn set_instant(&mut self, now: Micros) {
        self.instant = now;
    }

    /// A timed event is at its owner.
    pub(super) fn ordered(&mut self, stamp: Stamp) -> Stamp {
        self.counters.histograms.stage_owner.note_ns(stamp.age_us(self.instant) * 1000);
        stamp.owned(self.instant)
    }

    /// A timed event is in so many outboxes.
    pub(super) fn delivered(&mut self, stamp: Stamp, count: usize) {
        self.counters.histograms.stage_member.note_ns(stamp.since_owned_us(self.instant) * 1000);
        let afloat = &mut self.timing.afloat;
        if count > 0 && afloat.len() < AFLOAT_MAX {
            let until = self.outboxes.visited() + self.outboxes.dirty_len() as u64;
            afloat.push_back(Afloat { stamp, delivered: self.instant, until });
        }
    }

    /// True if sends have ended that somebody times: [`Shard::sent`] is to be told when that was.
    #[inline]
    #[must_use]
    pub fn awaits_sends(&self) -> bool {
        self.timing.afloat.front().is_some_and(|afloat| afloat.until <= self.outboxes.visited())
    }

    /// All that was taken from the outboxes so far has been sent by now.
    pub fn sent(&mut self, now: Micros) {
        while let Some(Afloat { stamp, delivered, .. }) =
            self.timing.afloat.pop_front_if(|afloat| afloat.until <= self.outboxes.visited())
        {
            self.counters.histograms.stage_socket.note_ns(now.0.saturating_sub(delivered.0) * 1000);
            self.counters.histograms.stage_total.note_ns(stamp.age_us(now) * 1000);
        }
    }

    /// Notes how full the rings are, now and then.
    pub(super) fn note_rings(&mut self) {
        if !self.counters.turns.is_multiple_of(TURNS_PER_LOOK) {
            return;
        }
        let (up, down) = (self.port.up.fullest() as u64, self.port.down.fullest() as u64);
        let histograms = &mut self.counters.histograms;
        for (messages, histogram) in [(up, &mut histograms.ring_publish), (down, &mut histograms.ring_deliver)] {
            if messages > 0 {
                histogram.note(messages);
            }
        }
    }

    /// Has rooms ranked, now that one has got something.
    #[inline]
    pub(super) fn watch_ranks(&mut self) {
        if !self.timing.ranks {
            self.timing.ranks = true;
            self.timers.arm(self.now.after(RANK_MS), TimerKey::Ranks);
        }
    }

    /// Ranks the rooms, until all that they have got is forgotten and their figures have died away.
    pub(super) fn rank_rooms(&mut self, now: Millis) {
        self.timing.ranks = false;
        if self.local.busiest.advance(now) {
            self.watch_ranks();
        }
        for measure in Measure::ALL {
            let rates = &mut self.counters.top_rooms[measure.index()];
            self.local.busiest.rates(measure, now, rates);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::class::Classes;
    use crate::base::event::Event;
    use crate::base::histogram::Histogram;
    use crate::base::ids::{NamespaceId, RoomName, SlotRef, Topology};
    use crate::mesh;
    use crate::proto::raw::Shape;
    use crate::session::rules::{NamespaceRules, RulesSource};
    use crate::session::{Kind, LimitOptions};
    use crate::shard::{Handshake, Line, Namespace, Options};

    fn machine() -> Vec<Shard> {
        let rules = "[[on]]\nevent = \"join\"\njoin = [\"{data.room}\"]";
        let rules = || NamespaceRules::compile(&toml::from_str::<RulesSource>(rules).unwrap()).unwrap();
        let limits = LimitOptions { outbox_bytes_max: 1 << 20, ..LimitOptions::default() };
        let shard = |port| {
            let namespaces = vec![Namespace { name: "/".into(), rules: rules(), classes: Classes::default() }];
            let options = Options { limits, ..Options::default() };
            Shard::new(port, Topology::new(2, 1), namespaces, options, [0; 32], Millis(0), 1)
        };
        mesh::connect(2, mesh::Options { slots: 1 << 10 }).into_iter().map(shard).collect()
    }

    fn join(shards: &mut [Shard], core: usize, room: &str) -> SlotRef {
        let ip = std::net::Ipv4Addr::LOCALHOST.into();
        let kind = Kind::Raw { namespace: NamespaceId(0), shape: Shape::Nested };
        let handshake = Handshake { kind, query: "", bearer: None, ip, polls: false, message_bytes_max: 100 };
        let transport = SlotRef { slot: shards[core].sessions.len() as u32, generation: 0 };
        let session = shards[core].open(transport, handshake, Millis(0));
        rest(shards);
        let text = format!("{{\"type\":\"join\",\"data\":{{\"room\":\"{room}\"}}}}");
        let _ = shards[core].text(session, &text, Millis(0));
        rest(shards);
        session
    }

    fn rest(shards: &mut [Shard]) {
        for _ in 0..10 {
            for shard in shards.iter_mut() {
                shard.receive(1000, Millis(0));
            }
        }
    }

    fn publish(shard: &mut Shard, room: &str) {
        let event = Event::new(NamespaceId(0), "\"e\"", "1", 1);
        let rooms = smallvec::smallvec![RoomName::new(room, 99).unwrap()];
        let line = Line { event, rooms, except: Vec::new(), key: None, volatile: false, ask: None };
        shard.publish(line, None);
    }

    fn counted(histogram: &Histogram) -> (u64, u64) {
        (histogram.counts().iter().sum(), histogram.sum() / 1000)
    }

    #[test]
    fn one_event_in_64_is_timed_and_each_after_a_pause() {
        let mut timing = Timing::new();
        let stamped =
            |timing: &mut Timing, us, count| (0..count).filter(|_| timing.begin(Micros(us)).is_some()).count();
        assert_eq!(stamped(&mut timing, 5, 1), 1);
        assert_eq!(stamped(&mut timing, 9_000, 63), 0);
        assert_eq!(stamped(&mut timing, 9_000, 1000), 16);
        assert_eq!(stamped(&mut timing, 19_000, 2), 1);
    }

    #[test]
    fn each_stage_of_a_timed_event_is_told_apart() {
        let mut shards = machine();
        // A room of each owner, whose members are on the other core.
        let name = |owner: usize| {
            let key = |n: usize| shards[0].topology.key(NamespaceId(0), RoomName::new(&n.to_string(), 9).unwrap());
            (0..).find(|n| shards[0].topology.owner(&key(*n)).index() == owner).unwrap().to_string()
        };
        let room = name(1);
        let sessions: Vec<SlotRef> = (0..3).map(|_| join(&mut shards, 0, &room)).collect();
        while shards[0].outboxes.next_dirty().is_some_and(|(slot, _)| {
            let bytes = shards[0].outboxes.bytes(slot) as usize;
            shards[0].outboxes.advance(slot, bytes);
            true
        }) {}
        // One who takes nothing is not waited for.
        shards[0].outboxes.block(sessions[1].slot);
        let at = |shards: &mut [Shard], us: u64| shards.iter_mut().for_each(|shard| shard.set_instant(Micros(us)));
        at(&mut shards, 1_000_000);
        publish(&mut shards[0], &room);
        publish(&mut shards[0], &room);
        at(&mut shards, 1_000_030);
        shards[1].receive(100, Millis(1_000));
        at(&mut shards, 1_000_100);
        shards[0].receive(100, Millis(1_000));
        assert!(!shards[0].awaits_sends());
        assert!(shards[0].outboxes.next_dirty().is_some());
        assert!(!shards[0].awaits_sends(), "one more has to have its turn");
        assert!(shards[0].outboxes.next_dirty().is_some() && shards[0].outboxes.next_dirty().is_none());
        assert!(shards[0].awaits_sends());
        shards[0].sent(Micros(1_000_500));
        assert!(!shards[0].awaits_sends());
        let [member, owner] = [0, 1].map(|core| &shards[core].counters.histograms);
        assert_eq!(counted(&owner.stage_owner), (1, 30), "the second one is not timed");
        assert_eq!(counted(&member.stage_member), (1, 70));
        assert_eq!(counted(&member.stage_socket), (1, 400));
        assert_eq!(counted(&member.stage_total), (1, 500));
    }

    #[test]
    fn figures_of_rooms_die_away_when_nothing_comes_any_more() {
        let mut shards = machine();
        join(&mut shards, 0, "a");
        (0..20).for_each(|_| publish(&mut shards[0], "a"));
        rest(&mut shards);
        let rates = |shard: &Shard| shard.counters.top_rooms[Measure::Deliveries.index()];
        shards[0].advance(Millis(4_000));
        assert_eq!(rates(&shards[0]), [5.0, 0.0, 0.0, 0.0, 0.0]);
        let mut wakes = 0;
        while let Some(due) = shards[0].timers.next_deadline().filter(|_| shards[0].timing.ranks) {
            shards[0].advance(due);
            wakes += 1;
        }
        assert_eq!(rates(&shards[0]), [0.0; 5]);
        assert!(wakes < 40, "a core that has nothing to do sleeps: {wakes}");
    }

    #[test]
    fn who_lags_makes_its_rooms_lag() {
        let mut shards = machine();
        let limits = &mut shards[0].options.limits;
        limits.outbox_bytes_max = 40;
        join(&mut shards, 0, "a");
        join(&mut shards, 0, "b");
        (0..20).for_each(|_| publish(&mut shards[0], "a"));
        rest(&mut shards);
        let lag: Vec<_> = shards[0].local.busiest.list(Measure::Lag).1.collect();
        let [(room, estimate)] = lag[..] else { panic!("{lag:?}") };
        // The first event that does not find room is what cuts the session.
        assert_eq!((room.name.as_str(), estimate.error), ("a", 0));
        assert!((10..40).contains(&estimate.count), "{estimate:?}");
    }
}
