//! A publisher's question under way: what each core has told so far, and the answer once all have. Does not know how
//! the cores find it.

use crate::base::ids::{CoreId, RoomName};
use crate::proto::line::query::{self, CoreStats, Query, RoomFacts, SocketFacts};
use crate::shard::messages::Facts;
use std::collections::BTreeMap;

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
        }
    }
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
}
