//! What publishers can ask about (`"op":"stats"`, `"rooms"`, `"room"`, `"socket"`, `"top"`) and what they are told.
//! Does not know where the facts come from.

use std::io::Write as _;
use std::net::IpAddr;

use super::{Fields, KEYS, Limits, Refusal, excerpt, quoted, refuse, room_name, string};
use crate::base::frame::Encoding;
use crate::base::ids::{RoomName, SocketId};
use crate::base::sketch::Measure;
use crate::proto::json;

/// Rooms in one answer. Its receipt is a few hundred kilobytes then, and a core has gathered them within one turn.
pub const ROOMS_MAX: usize = 1000;
/// And without a limit of the publisher's own.
const ROOMS_DEFAULT: usize = 100;
/// Rooms in an answer to what gets most: no more than one core's sketch holds.
pub const TOP_MAX: usize = 100;
const TOP_DEFAULT: usize = 10;

/// What a publisher wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// How much there is of everything.
    Stats,
    /// The namespace's rooms in the order of their names, bytewise.
    Rooms {
        /// How their names begin.
        prefix: Box<str>,
        /// Their names come after this one.
        after: Box<str>,
        /// As many as that, from 1 to [`ROOMS_MAX`].
        limit: usize,
    },
    /// One room.
    Room(RoomName),
    /// One socket, by its id as it was written.
    Socket(Box<str>),
    /// The rooms of all namespaces that get most.
    Top {
        /// Of what.
        by: Measure,
        /// As many as that, from 1 to [`TOP_MAX`].
        limit: usize,
    },
}

/// What one core has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CoreStats {
    /// Client TCP connections.
    pub connections: u64,
    /// Publisher connections.
    pub publishers: u64,
    /// Sessions of clients.
    pub sessions: u64,
    /// Those that poll.
    pub sessions_polling: u64,
    /// Sockets in all namespaces.
    pub sockets: u64,
    /// Sockets in the namespace that the line names.
    pub sockets_of_namespace: u64,
    /// Rooms that it owns.
    pub rooms: u64,
    /// Events that it has ordered.
    pub events: u64,
    /// Frames that it has appended to outboxes.
    pub deliveries: u64,
}

/// What a room's owner knows of its order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RoomOrder {
    /// The last event's offset: as many events there were.
    pub offset: u64,
    /// The order that the offset belongs to.
    pub epoch: u64,
    /// Events per second, lately.
    pub rate: f64,
    /// Bytes of all events, as published.
    pub bytes: u64,
}

/// What one core knows of a room.
#[derive(Clone, Debug, PartialEq)]
pub struct RoomFacts {
    /// The room.
    pub name: RoomName,
    /// Members by [`Encoding::index`].
    pub members: [u32; Encoding::COUNT],
    /// On the owner, if it remembers the room.
    pub order: Option<RoomOrder>,
}

/// What is known of a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketFacts {
    /// Its id.
    pub sid: SocketId,
    /// Where its client is.
    pub ip: IpAddr,
    /// What it speaks.
    pub encoding: Encoding,
    /// True if it polls.
    pub polls: bool,
    /// Bytes that wait for it.
    pub waiting: u64,
    /// Its rooms besides the namespace's and its own, at most [`ROOMS_MAX`].
    pub rooms: Vec<RoomName>,
    /// How many there are.
    pub room_count: usize,
}

/// What one core knows of the rooms that get most on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopFacts {
    /// Every room that may be among the first, in no order.
    pub rooms: Vec<TopRoom>,
    /// What any other room has at most.
    pub others_max: u64,
    /// The time that all counts are about, in milliseconds.
    pub covers_ms: u64,
}

/// A room that may be among the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopRoom {
    /// Its namespace's name.
    pub namespace: Box<str>,
    /// Its name, empty for all sockets of the namespace.
    pub room: RoomName,
    /// What it has at most.
    pub count: u64,
    /// By how much that may be too high.
    pub error: u64,
}

/// The rest of a query's line.
pub(super) fn read(op: &str, fields: &Fields<'_>, limits: &Limits) -> Result<Query, Refusal> {
    let allowed: &[&str] = match op {
        "rooms" => &["prefix", "limit", "after"],
        "room" => &["room"],
        "socket" => &["sid"],
        "top" => &["by", "limit"],
        _ => &[],
    };
    only(op, fields, allowed)?;
    if op == "top" && fields.ns.is_some() {
        return refuse("key", "\"ns\" does not belong to \"op\":\"top\", which tells of all namespaces; leave it out");
    }
    if fields.id.is_none() {
        return refuse("id", format!("\"op\":\"{op}\" needs an \"id\": the answer is the line's receipt"));
    }
    match op {
        "rooms" => {
            let text = |key, value: Option<&str>| -> Result<Box<str>, Refusal> {
                Ok(value.map(|value| string("query", key, value)).transpose()?.unwrap_or_default().into())
            };
            let (prefix, after) = (text("prefix", fields.prefix)?, text("after", fields.after)?);
            let limit = fields.limit.map_or(Ok(ROOMS_DEFAULT), |limit| read_limit(limit, ROOMS_MAX))?;
            Ok(Query::Rooms { prefix, after, limit })
        }
        "top" => {
            let by = fields.by.map_or(Ok(Measure::Deliveries), read_measure)?;
            let limit = fields.limit.map_or(Ok(TOP_DEFAULT), |limit| read_limit(limit, TOP_MAX))?;
            Ok(Query::Top { by, limit })
        }
        "room" => match fields.room {
            Some(room) => Ok(Query::Room(room_name("\"room\"", room, limits)?)),
            None => refuse("room", "\"op\":\"room\" needs \"room\": the room's name"),
        },
        "socket" => match fields.sid {
            Some(sid) => Ok(Query::Socket(string("query", "sid", sid)?.into())),
            None => refuse("query", "\"op\":\"socket\" needs \"sid\": the socket's id"),
        },
        _ => Ok(Query::Stats),
    }
}

fn read_limit(text: &str, max: usize) -> Result<usize, Refusal> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse().ok().filter(|limit| digits && (1..=max).contains(limit)) {
        Some(limit) => Ok(limit),
        None => refuse("query", format!("\"limit\" must be an integer from 1 to {max}, not {}", excerpt(text))),
    }
}

fn read_measure(text: &str) -> Result<Measure, Refusal> {
    match Measure::ALL.into_iter().find(|measure| json::spells(text, measure.name())) {
        Some(measure) => Ok(measure),
        None => {
            let known = Measure::ALL.map(|measure| quoted(measure.name())).join(", ");
            refuse("query", format!("\"by\" must be one of {known}, not {}", excerpt(text)))
        }
    }
}

/// Refuses keys that have no meaning for `op`.
pub(super) fn only(op: &str, fields: &Fields<'_>, allowed: &[&str]) -> Result<(), Refusal> {
    let mut fields = *fields;
    let always = ["id", "ns", "op"];
    let mut others = KEYS.iter().filter(|key| !always.contains(key) && !allowed.contains(key));
    match others.find(|key| fields.slot(key).is_some_and(|value| value.is_some())) {
        Some(key) => refuse("key", format!("{} does not belong to \"op\":\"{op}\"; leave it out", quoted(key))),
        None => Ok(()),
    }
}

/// How an answer calls an encoding.
fn encoding_name(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::SocketIo => "socket_io",
        Encoding::RawNested => "raw_nested",
        Encoding::RawFlat => "raw_flat",
    }
}

/// Appends the answer to [`Query::Stats`].
pub fn write_stats(out: &mut Vec<u8>, id: &str, namespace: &str, uptime_ms: u64, cores: &[CoreStats]) {
    begin(out, id);
    let version = env!("CARGO_PKG_VERSION");
    put(out, format_args!("\"stats\":{{\"version\":\"{version}\",\"uptime_ms\":{uptime_ms},\"ns\":"));
    json::escape_into(out, namespace);
    let mut all = CoreStats::default();
    for core in cores {
        all.sockets_of_namespace += core.sockets_of_namespace;
        for (all, one) in all.numbers_mut().into_iter().zip(core.numbers()) {
            *all += one;
        }
    }
    put(out, format_args!(",\"ns_sockets\":{}", all.sockets_of_namespace));
    all.write(out);
    out.extend_from_slice(b",\"cores\":[");
    for (index, core) in cores.iter().enumerate() {
        put(out, format_args!("{}{{\"core\":{index}", if index > 0 { "," } else { "" }));
        core.write(out);
        out.push(b'}');
    }
    out.extend_from_slice(b"]}}\n");
}

impl CoreStats {
    const NAMES: [&str; 8] =
        ["connections", "publishers", "sessions", "sessions_polling", "sockets", "rooms", "events", "deliveries"];

    fn numbers(mut self) -> [u64; 8] {
        self.numbers_mut().map(|number| *number)
    }

    fn numbers_mut(&mut self) -> [&mut u64; 8] {
        [
            &mut self.connections,
            &mut self.publishers,
            &mut self.sessions,
            &mut self.sessions_polling,
            &mut self.sockets,
            &mut self.rooms,
            &mut self.events,
            &mut self.deliveries,
        ]
    }

    fn write(self, out: &mut Vec<u8>) {
        for (name, number) in CoreStats::NAMES.iter().zip(self.numbers()) {
            put(out, format_args!(",\"{name}\":{number}"));
        }
    }
}

/// Appends the answer to [`Query::Rooms`]: one [`RoomFacts`] for each room, with the members of all cores. `more` if
/// further rooms may follow.
pub fn write_rooms<'a>(out: &mut Vec<u8>, id: &str, rooms: impl Iterator<Item = &'a RoomFacts>, more: bool) {
    begin(out, id);
    out.extend_from_slice(b"\"rooms\":[");
    let mut last = None;
    for (index, room) in rooms.enumerate() {
        put(out, format_args!("{}{{", if index > 0 { "," } else { "" }));
        write_order(out, &room.name, room.members.iter().sum(), room.order);
        out.push(b'}');
        last = Some(room.name.as_str());
    }
    out.extend_from_slice(b"],\"next\":");
    match last.filter(|_| more) {
        Some(last) => json::escape_into(out, last),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b"}\n");
}

/// Appends the answer to [`Query::Room`], from what each core knows; `null` for a room that nobody knows.
pub fn write_room(out: &mut Vec<u8>, id: &str, name: &RoomName, cores: &[RoomFacts]) {
    begin(out, id);
    let of_core = |core: &RoomFacts| core.members.iter().sum::<u32>();
    let members = cores.iter().map(of_core).sum();
    let order = cores.iter().find_map(|core| core.order);
    if members == 0 && order.is_none() {
        return out.extend_from_slice(b"\"room\":null}\n");
    }
    out.extend_from_slice(b"\"room\":{");
    write_order(out, name, members, order);
    put(out, format_args!(",\"epoch\":{},\"encodings\":{{", order.map_or(0, |order| order.epoch)));
    for encoding in Encoding::ALL {
        let comma = if encoding.index() > 0 { "," } else { "" };
        let members: u32 = cores.iter().map(|core| core.members[encoding.index()]).sum();
        put(out, format_args!("{comma}\"{}\":{members}", encoding_name(encoding)));
    }
    out.extend_from_slice(b"},\"cores\":[");
    for (index, core) in cores.iter().enumerate() {
        put(out, format_args!("{}{}", if index > 0 { "," } else { "" }, of_core(core)));
    }
    out.extend_from_slice(b"]}}\n");
}

fn write_order(out: &mut Vec<u8>, name: &RoomName, members: u32, order: Option<RoomOrder>) {
    out.extend_from_slice(b"\"name\":");
    json::escape_into(out, name.as_str());
    let RoomOrder { offset, rate, bytes, .. } = order.unwrap_or(RoomOrder { offset: 0, epoch: 0, rate: 0.0, bytes: 0 });
    put(out, format_args!(",\"members\":{members},\"offset\":{offset},\"rate\":{rate:.2},\"bytes\":{bytes}"));
}

/// Appends the answer to [`Query::Socket`]; `null` if there is no such socket.
pub fn write_socket(out: &mut Vec<u8>, id: &str, namespace: &str, socket: Option<&SocketFacts>) {
    begin(out, id);
    let Some(SocketFacts { sid, ip, encoding, polls, waiting, rooms, room_count }) = socket else {
        return out.extend_from_slice(b"\"socket\":null}\n");
    };
    put(out, format_args!("\"socket\":{{\"sid\":\"{sid}\",\"ns\":"));
    json::escape_into(out, namespace);
    let transport = if *polls { "polling" } else { "websocket" };
    let encoding = encoding_name(*encoding);
    put(out, format_args!(",\"transport\":\"{transport}\",\"encoding\":\"{encoding}\",\"ip\":\"{ip}\""));
    put(out, format_args!(",\"waiting_bytes\":{waiting},\"room_count\":{room_count},\"rooms\":["));
    for (index, room) in rooms.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        json::escape_into(out, room.as_str());
    }
    out.extend_from_slice(b"]}}\n");
}

/// Appends the answer to [`Query::Top`]: the rooms in their order, over `covers_ms` milliseconds.
pub fn write_top(out: &mut Vec<u8>, id: &str, by: Measure, covers_ms: u64, rooms: &[TopRoom]) {
    begin(out, id);
    let seconds = covers_ms.max(1) as f64 / 1000.0;
    put(out, format_args!("\"by\":\"{}\",\"seconds\":{seconds:.3},\"rooms\":[", by.name()));
    for (index, TopRoom { namespace, room, count, error }) in rooms.iter().enumerate() {
        out.extend_from_slice(if index > 0 { b",{\"ns\":" } else { b"{\"ns\":" });
        json::escape_into(out, namespace);
        out.extend_from_slice(b",\"room\":");
        if room.is_whole_namespace() {
            out.extend_from_slice(b"null");
        } else {
            json::escape_into(out, room.as_str());
        }
        let per_second = *count as f64 / seconds;
        put(out, format_args!(",\"count\":{count},\"error\":{error},\"per_second\":{per_second:.2}}}"));
    }
    out.extend_from_slice(b"]}\n");
}

fn begin(out: &mut Vec<u8>, id: &str) {
    put(out, format_args!("{{\"id\":{id},\"ok\":true,"));
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a Vec takes every write");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::CoreId;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn room(name: &str, members: [u32; Encoding::COUNT], order: Option<RoomOrder>) -> RoomFacts {
        RoomFacts { name: RoomName::new(name, 9).unwrap(), members, order }
    }

    #[test]
    fn answers() {
        let order = Some(RoomOrder { offset: 7, epoch: 9, rate: 0.125, bytes: 70 });
        let cores = [room("a\"", [1, 0, 2], None), room("a\"", [0, 3, 0], order)];
        let name = &cores[0].name;
        assert_eq!(
            written(|out| write_room(out, "1", name, &cores)),
            "{\"id\":1,\"ok\":true,\"room\":{\"name\":\"a\\\"\",\"members\":6,\"offset\":7,\"rate\":0.12,\"bytes\":70,\
             \"epoch\":9,\"encodings\":{\"socket_io\":1,\"raw_nested\":3,\"raw_flat\":2},\"cores\":[3,3]}}\n"
        );
        let nothing = room("b", [0; Encoding::COUNT], None);
        assert_eq!(
            written(|out| write_room(out, "1", &nothing.name, std::slice::from_ref(&nothing))),
            "{\"id\":1,\"ok\":true,\"room\":null}\n"
        );
        let rooms = [nothing, cores[1].clone()];
        let listed = "{\"id\":\"x\",\"ok\":true,\"rooms\":[\
            {\"name\":\"b\",\"members\":0,\"offset\":0,\"rate\":0.00,\"bytes\":0},\
            {\"name\":\"a\\\"\",\"members\":3,\"offset\":7,\"rate\":0.12,\"bytes\":70}],\"next\":";
        for (more, next) in [(false, "null"), (true, "\"a\\\"\"")] {
            let text = written(|out| write_rooms(out, "\"x\"", rooms.iter(), more));
            assert_eq!(text, format!("{listed}{next}}}\n"));
        }
        let none = written(|out| write_rooms(out, "2", [].iter(), true));
        assert_eq!(none, "{\"id\":2,\"ok\":true,\"rooms\":[],\"next\":null}\n");
        let sid = SocketId::new(CoreId::new(1), 2, [3; 9]);
        let socket = SocketFacts {
            sid,
            ip: IpAddr::from([127, 0, 0, 1]),
            encoding: Encoding::RawFlat,
            polls: false,
            waiting: 5,
            rooms: vec![RoomName::new("r", 9).unwrap(), RoomName::new("q", 9).unwrap()],
            room_count: 2,
        };
        assert_eq!(
            written(|out| write_socket(out, "3", "/a", Some(&socket))),
            format!(
                "{{\"id\":3,\"ok\":true,\"socket\":{{\"sid\":\"{sid}\",\"ns\":\"/a\",\"transport\":\"websocket\",\
                 \"encoding\":\"raw_flat\",\"ip\":\"127.0.0.1\",\"waiting_bytes\":5,\"room_count\":2,\
                 \"rooms\":[\"r\",\"q\"]}}}}\n"
            )
        );
        let none = written(|out| write_socket(out, "3", "/a", None));
        assert_eq!(none, "{\"id\":3,\"ok\":true,\"socket\":null}\n");
        let top = |namespace: &str, room, count, error| TopRoom { namespace: namespace.into(), room, count, error };
        let rooms = [top("/a\"", RoomName::new("b\"", 9).unwrap(), 25, 5), top("/", RoomName::whole_namespace(), 3, 0)];
        for (rooms, told) in [
            (
                &rooms[..],
                "{\"ns\":\"/a\\\"\",\"room\":\"b\\\"\",\"count\":25,\"error\":5,\"per_second\":2.50},\
                 {\"ns\":\"/\",\"room\":null,\"count\":3,\"error\":0,\"per_second\":0.30}",
            ),
            (&[], ""),
        ] {
            assert_eq!(
                written(|out| write_top(out, "5", Measure::Lag, 10_000, rooms)),
                format!("{{\"id\":5,\"ok\":true,\"by\":\"lag\",\"seconds\":10.000,\"rooms\":[{told}]}}\n")
            );
        }
        let one = CoreStats { connections: 1, sockets: 3, sockets_of_namespace: 2, events: 9, ..CoreStats::default() };
        let core = |connections, sockets, events| {
            format!(
                "\"connections\":{connections},\"publishers\":0,\"sessions\":0,\"sessions_polling\":0,\
                 \"sockets\":{sockets},\"rooms\":0,\"events\":{events},\"deliveries\":0"
            )
        };
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            written(|out| write_stats(out, "4", "/", 17, &[one, one])),
            format!(
                "{{\"id\":4,\"ok\":true,\"stats\":{{\"version\":\"{version}\",\"uptime_ms\":17,\"ns\":\"/\",\
                 \"ns_sockets\":4,{},\"cores\":[{{\"core\":0,{}}},{{\"core\":1,{}}}]}}}}\n",
                core(2, 6, 18),
                core(1, 3, 9),
                core(1, 3, 9)
            )
        );
    }
}
