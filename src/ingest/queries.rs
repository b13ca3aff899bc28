//! A publisher's question under way: what each core has told so far, and the answer once all have. Does not know how
//! the cores find it.

use crate::base::ids::{CoreId, RoomName};
use crate::base::sketch::Measure;
use crate::proto::line::query::{self, CoreStats, Query, RoomFacts, SocketFacts, TopFacts, TopRoom};
use crate::shard::messages::Facts;
use std::collections::{BTreeMap, HashMap};

/// A question that waits for cores.
#[derive(Debug)]
pub(super) struct Finding {
    /// The line's id as JSON.
    id: Box<str>,
    namespace: Box<str>,
    /// When it was asked, in milliseconds since the process began.
    asked_at_ms: u64,
    missing: usize,
    found: Found,
}

#[derive(Debug)]
enum Found {
    Stats(Vec<CoreStats>),
    Rooms { limit: usize, more: bool, rooms: BTreeMap<RoomName, RoomFacts> },
    Room { name: RoomName, cores: Vec<Option<RoomFacts>> },
    Socket(Option<SocketFacts>),
    Top { by: Measure, limit: usize, cores: Vec<TopFacts> },
}

impl Finding {
    /// Of `cores` cores, `missing` will answer.
    pub(super) fn new(
        id: &str,
        namespace: &str,
        query: Query,
        asked_at_ms: u64,
        cores: usize,
        missing: usize,
    ) -> Finding {
        let found = match query {
            Query::Stats => Found::Stats(vec![CoreStats::default(); cores]),
            Query::Rooms { limit, .. } => Found::Rooms { limit, more: false, rooms: BTreeMap::new() },
            Query::Room(name) => Found::Room { name, cores: vec![None; cores] },
            Query::Socket(_) => Found::Socket(None),
            Query::Top { by, limit } => Found::Top { by, limit, cores: Vec::with_capacity(cores) },
        };
        Finding { id: id.into(), namespace: namespace.into(), asked_at_ms, missing, found }
    }

    /// True once every core has answered.
    pub(super) fn is_complete(&self) -> bool {
        self.missing == 0
    }

    /// One core's answer.
    ///
    /// # Panics
    /// If it answers another question.
    pub(super) fn take(&mut self, core: CoreId, facts: Facts) {
        self.missing -= 1;
        match (&mut self.found, facts) {
            (Found::Stats(cores), Facts::Stats(stats)) => cores[core.index()] = stats,
            (Found::Room { cores, .. }, Facts::Room(room)) => cores[core.index()] = Some(room),
            (Found::Socket(socket), Facts::Socket(found)) => *socket = found,
            (Found::Top { cores, .. }, Facts::Top(found)) => cores.push(found),
            (Found::Rooms { limit, more, rooms }, Facts::Rooms(found)) => {
                *more |= found.len() == *limit;
                for room in found {
                    merge(rooms, room);
                }
                while rooms.len() > *limit {
                    *more = true;
                    rooms.pop_last();
                }
            }
            (found, facts) => unreachable!("{facts:?} for {found:?}"),
        }
    }

    /// Appends the line's receipt.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match &self.found {
            Found::Stats(cores) => query::write_stats(out, &self.id, &self.namespace, self.asked_at_ms, cores),
            Found::Rooms { more, rooms, .. } => query::write_rooms(out, &self.id, rooms.values(), *more),
            Found::Room { name, cores } => {
                let cores: Vec<RoomFacts> = cores.iter().flatten().cloned().collect();
                query::write_room(out, &self.id, name, &cores);
            }
            Found::Socket(socket) => query::write_socket(out, &self.id, &self.namespace, socket.as_ref()),
            Found::Top { by, limit, cores } => {
                let covers_ms = cores.iter().map(|core| core.covers_ms).max().unwrap_or(0);
                query::write_top(out, &self.id, *by, covers_ms, &first(cores, *limit));
            }
        }
    }
}

/// The first rooms of all cores, most first. Of a core that does not list a room, that room may have as much as the
/// core says of all others: it is added to the count, and to its error.
fn first(cores: &[TopFacts], limit: usize) -> Vec<TopRoom> {
    let others_max: u64 = cores.iter().map(|core| core.others_max).sum();
    let mut rooms: HashMap<(&str, &RoomName), (u64, u64)> = HashMap::new();
    for core in cores {
        for TopRoom { namespace, room, count, error } in &core.rooms {
            // The sum holds the core's own part of it: a room's count is never below that.
            let (sum, errors) = rooms.entry((namespace, room)).or_insert((others_max, others_max));
            *sum = *sum - core.others_max + count;
            *errors = *errors - core.others_max + error;
        }
    }
    let room = |((namespace, room), (count, error)): ((&str, &RoomName), (u64, u64))| TopRoom {
        namespace: namespace.into(),
        room: room.clone(),
        count,
        error,
    };
    let mut rooms: Vec<TopRoom> = rooms.into_iter().map(room).collect();
    rooms.sort_unstable_by(|a, b| (b.count, &a.namespace, &a.room).cmp(&(a.count, &b.namespace, &b.room)));
    rooms.truncate(limit);
    rooms
}

/// Adds what one more core knows of a room.
fn merge(rooms: &mut BTreeMap<RoomName, RoomFacts>, room: RoomFacts) {
    match rooms.get_mut(&room.name) {
        None => drop(rooms.insert(room.name.clone(), room)),
        Some(known) => {
            known.members.iter_mut().zip(room.members).for_each(|(known, more)| *known += more);
            known.order = known.order.or(room.order);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::line::query::RoomOrder;

    #[test]
    fn lists_of_cores_become_one() {
        let order = RoomOrder { offset: 4, epoch: 1, rate: 0.0, bytes: 9 };
        let room = |name: &str, members, order| RoomFacts { name: RoomName::new(name, 9).unwrap(), members, order };
        // (limit, the rooms of each core, the names and members that are told, the next page)
        for (limit, cores, told, next) in [
            (3, ["ac", "ab"], "a2 b1 c1 ", "null"),
            (2, ["ac", "ab"], "a2 b1 ", "\"b\""),
            (2, ["ac", ""], "a1 c1 ", "\"c\""),
            (3, ["", ""], "", "null"),
        ] {
            let wanted = Query::Rooms { prefix: "".into(), after: "".into(), limit };
            let mut finding = Finding::new("1", "/", wanted, 0, 2, 2);
            for (core, names) in cores.into_iter().enumerate() {
                assert!(!finding.is_complete());
                let rooms = names.chars().map(|name| room(&name.to_string(), [1, 0, 0], (core == 1).then_some(order)));
                finding.take(CoreId::new(core), Facts::Rooms(rooms.collect()));
            }
            assert!(finding.is_complete());
            let mut out = Vec::new();
            finding.write(&mut out);
            let answer: serde_json::Value = serde_json::from_slice(&out).unwrap();
            let rooms = answer["rooms"].as_array().unwrap().iter();
            let shown: String =
                rooms.map(|room| format!("{}{} ", room["name"].as_str().unwrap(), room["members"])).collect();
            assert_eq!((shown.as_str(), answer["next"].to_string().as_str()), (told, next), "{limit} of {cores:?}");
        }
    }

    #[test]
    fn the_first_rooms_of_cores_become_one_list() {
        let room = |room: &str, count, error| TopRoom {
            namespace: "/".into(),
            room: RoomName::new(room, 9).unwrap(),
            count,
            error,
        };
        let core = |rooms: &[(&str, u64, u64)], others_max, covers_ms| TopFacts {
            rooms: rooms.iter().map(|(name, count, error)| room(name, *count, *error)).collect(),
            others_max,
            covers_ms,
        };
        // Three cores: one has a place for every room, two have not.
        let cores = [
            core(&[("a", 5, 0), ("b", 1, 0)], 0, 9_000),
            core(&[("a", 10, 2), ("c", 30, 3)], 3, 9_001),
            core(&[("b", 20, 9), ("c", 10, 10)], 10, 9_000),
        ];
        let expected = [room("c", 40, 13), room("a", 25, 12), room("b", 24, 12)];
        assert_eq!(first(&cores, 9), expected);
        assert_eq!(first(&cores, 2), expected[..2]);
        let mut finding = Finding::new("1", "/", Query::Top { by: Measure::Bytes, limit: 1 }, 0, 3, 3);
        cores.into_iter().enumerate().for_each(|(n, facts)| finding.take(CoreId::new(n), Facts::Top(facts)));
        let mut out = Vec::new();
        finding.write(&mut out);
        let answer: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(
            (&answer["seconds"], &answer["rooms"][0]["room"], &answer["rooms"][1]),
            (&9.001.into(), &"c".into(), &serde_json::Value::Null)
        );
    }
}
