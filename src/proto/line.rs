//! The publishers' line protocol: one JSON object a line in, one receipt a line out (DESIGN.md "Publishers: lines over
//! TCP"). Does not know which namespaces or rooms exist, nor where the bytes come from.
//!
//! A line either means one thing, and its `data` or `args` leave with the bytes that came in, or it is refused with a
//! sentence that names what is wrong. There is nothing in between: no key is ignored, no value is rewritten. The one
//! exception is asked for by `"binary":true`, which takes `{"_base64":"…"}` out as attachments; in receipts the binary
//! parts of clients' answers come back in the same form.

pub mod query;

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::{self, Write as _};
use std::io::Write as _;

use data_encoding::BASE64;
use smallvec::SmallVec;

use super::json::{self, Kind, Scratch};
use super::socketio::{self, Placeholder};
use crate::base::ids::{Offset, RoomName, SocketId};

/// Bytes of an event's key, whether a line says it or its data carries it.
pub const KEY_BYTES_MAX: usize = 200;

/// Bounds of one line.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a room's name.
    pub room_name_bytes_max: usize,
    /// Names in `room`, `rooms` and `except` of one line together, duplicates counted.
    pub rooms_max: usize,
    /// Bytes of an `id` as JSON, quotes included: it is repeated in the receipt.
    pub id_bytes_max: usize,
    /// Bytes of an event's name, escapes resolved.
    pub event_name_bytes_max: usize,
    /// Bytes of an event's key, escapes resolved.
    pub key_bytes_max: usize,
    /// How long a line may wait for clients' acknowledgements.
    pub ack_timeout_ms_max: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            room_name_bytes_max: 200,
            rooms_max: 1024,
            id_bytes_max: 256,
            event_name_bytes_max: 200,
            key_bytes_max: KEY_BYTES_MAX,
            ack_timeout_ms_max: 60_000,
        }
    }
}

/// One line, understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Line<'a> {
    /// The JSON of the `id`, a string or an integer, byte for byte; with one, the line wants a receipt.
    pub id: Option<&'a str>,
    /// Begins with `/`; is `/` when the line names none.
    pub namespace: Cow<'a, str>,
    /// What is to be done.
    pub request: Request<'a>,
}

/// What a line asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Request<'a> {
    /// Send an event.
    Emit(Emit<'a>),
    /// Change who is where.
    Op(Op),
    /// Tell what there is.
    Query(query::Query),
    /// Hear what the lines after it may need.
    Auth {
        /// What the publisher must know.
        token: Cow<'a, str>,
    },
}

/// An event to send.
#[derive(Clone, Debug, PartialEq)]
pub struct Emit<'a> {
    /// The rooms that get it, in the line's order without duplicates; empty for the whole namespace.
    pub rooms: SmallVec<[RoomName; 1]>,
    /// Sockets in these rooms do not get it; without duplicates.
    pub except: Vec<RoomName>,
    /// The event's name as JSON, quotes and escapes included.
    pub name_json: &'a str,
    /// `arg_count` JSON values joined by commas, without brackets, as they were sent; empty when there are none. Owned
    /// only when attachments were taken out.
    pub args: Cow<'a, str>,
    /// How many arguments there are.
    pub arg_count: usize,
    /// What `{"_placeholder":true,"num":n}` in `args` stands for, by `n`.
    pub attachments: Attachments,
    /// What the event is about in its rooms, escapes resolved; a whole number stands as its digits.
    pub key: Option<Cow<'a, str>>,
    /// Whoever cannot take the event at once does not get it.
    pub volatile: bool,
    /// Whoever gets the event is asked to acknowledge it within so many milliseconds; the line has an `id` then.
    pub ack_timeout_ms: Option<u64>,
}

/// Binary parts, decoded.
pub type Attachments = Vec<Box<[u8]>>;

/// A change of memberships or connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// The change.
    pub kind: OpKind,
    /// The sockets of this room; `None` for all sockets of the namespace.
    pub target: Option<RoomName>,
    /// The rooms to join or to leave, in the line's order without duplicates, never empty for these; empty for others.
    pub rooms: Vec<RoomName>,
}

/// The changes that a publisher can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpKind {
    /// The sockets join the rooms.
    Join,
    /// The sockets leave the rooms.
    Leave,
    /// The sockets leave the namespace.
    Disconnect {
        /// Close their connections too, with all other namespaces on them.
        close: bool,
    },
}

/// Why a line was refused: the publisher's mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineError {
    /// The JSON of the line's `id` if it has a valid one, to be repeated in the answer.
    pub id: Option<String>,
    /// A sentence for the publisher's developer.
    pub message: String,
    /// The reason's label in the metrics: `json`, `shape`, or the key at fault as `key` (unknown, twice, or out of
    /// place), `id`, `namespace`, `op`, `event`, `room`, `data`, `binary`, `close`, `event_key`, `volatile`, `ack`,
    /// `query`, `auth`.
    pub label: &'static str,
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for LineError {}

/// Reads lines, one after the other, with buffers that it keeps.
#[derive(Debug, Default)]
pub struct Parser {
    scratch: Scratch,
}

impl Parser {
    /// A parser with empty buffers.
    #[must_use]
    pub fn new() -> Parser {
        Parser::default()
    }

    /// Reads `line`, without its line ending.
    ///
    /// # Errors
    /// The first thing in `line` that is not as the protocol wants it.
    pub fn parse<'a>(&mut self, line: &'a [u8], limits: &Limits) -> Result<Line<'a>, LineError> {
        let text = json::validate(line, &mut self.scratch).map_err(|error| LineError {
            id: None,
            message: format!("the line is not valid JSON: {error}"),
            label: "json",
        })?;
        read(text, limits).map_err(|refusal| LineError {
            id: readable_id(text, limits),
            message: refusal.message,
            label: refusal.label,
        })
    }
}

/// What was done for a line with an `id`.
#[derive(Clone, Copy, Debug)]
pub enum Receipt<'a> {
    /// What it asked for, and there is no more to say.
    Done,
    /// An event for one room or for the whole namespace took this place in the room's order.
    Offset(Offset),
    /// An event for several rooms took these places, in the line's order.
    Offsets(&'a [(RoomName, Offset)]),
    /// An operation was applied to this many sockets.
    Sockets {
        /// Sockets to which it was applied.
        applied: u64,
        /// Sockets that would have been in too many rooms by it, and stay as they were. Told unless zero.
        refused: u64,
    },
}

/// What clients answered to an event that asked them to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acks {
    /// Sockets that were asked.
    pub asked: u64,
    /// What they answered, in the order in which it came.
    pub answers: Vec<Ack>,
    /// Answers that are not kept: there were too many bytes of them. Told unless zero.
    pub dropped: u64,
}

impl Acks {
    /// Sockets that were asked and have not answered.
    ///
    /// # Panics
    /// If more have answered than were asked.
    #[must_use]
    pub fn missing(&self) -> u64 {
        let answered = self.answers.len() as u64 + self.dropped;
        self.asked.checked_sub(answered).expect("whoever answers was asked")
    }
}

/// One client's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The socket that answered.
    pub sid: SocketId,
    /// JSON values joined by commas, without brackets and without line breaks; empty when there are none.
    pub args_json: Box<str>,
}

impl Ack {
    /// Bytes that the answer takes in a receipt.
    #[must_use]
    pub fn bytes(&self) -> usize {
        r#"{"sid":"20 characters of sid","args":[]},"#.len() + self.args_json.len()
    }
}

/// A client's arguments as a receipt shows them: an attachment stands where its placeholder was, as
/// `{"_base64":"…"}`, and line breaks are spaces, as a receipt is one line. In valid JSON they are nothing but space:
/// inside of a string they would be escaped. `args_json` must be valid and name no attachment that is not there.
#[must_use]
pub fn put_attachments(args_json: &str, attachments: &[Box<[u8]>]) -> Box<str> {
    let mut text = String::with_capacity(args_json.len());
    let mut copied = 0;
    if !attachments.is_empty() {
        for Placeholder { range, number } in socketio::placeholders(args_json) {
            let attachment = number.and_then(|number| attachments.get(number)).expect("placeholders are checked");
            text.push_str(&args_json[copied..range.start]);
            text.push_str("{\"_base64\":\"");
            BASE64.encode_append(attachment, &mut text);
            text.push_str("\"}");
            copied = range.end;
        }
    }
    text.push_str(&args_json[copied..]);
    if text.contains(['\n', '\r']) { text.replace(['\n', '\r'], " ").into() } else { text.into() }
}

/// Appends the answer to a line that was carried out; `id` is [`Line::id`], `acks` what clients answered if they were
/// asked.
pub fn write_receipt(out: &mut Vec<u8>, id: &str, receipt: Receipt<'_>, acks: Option<&Acks>) {
    out.extend_from_slice(b"{\"id\":");
    out.extend_from_slice(id.as_bytes());
    out.extend_from_slice(b",\"ok\":true");
    match receipt {
        Receipt::Done => {}
        Receipt::Offset(offset) => number(out, ",\"offset\":", offset.0),
        Receipt::Sockets { applied, refused } => {
            number(out, ",\"sockets\":", applied);
            if refused > 0 {
                number(out, ",\"refused\":", refused);
            }
        }
        Receipt::Offsets(offsets) => {
            out.extend_from_slice(b",\"offsets\":{");
            for (i, (room, offset)) in offsets.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                json::escape_into(out, room.as_str());
                number(out, ":", offset.0);
            }
            out.push(b'}');
        }
    }
    if let Some(acks) = acks {
        write_acks(out, acks);
    }
    out.extend_from_slice(b"}\n");
}

fn write_acks(out: &mut Vec<u8>, acks: &Acks) {
    number(out, ",\"ack\":{\"asked\":", acks.asked);
    out.extend_from_slice(b",\"answers\":[");
    for (i, Ack { sid, args_json }) in acks.answers.iter().enumerate() {
        out.extend_from_slice(if i > 0 { b",{\"sid\":\"" } else { b"{\"sid\":\"" });
        out.extend_from_slice(&sid.to_chars());
        out.extend_from_slice(b"\",\"args\":[");
        out.extend_from_slice(args_json.as_bytes());
        out.extend_from_slice(b"]}");
    }
    number(out, "],\"missing\":", acks.missing());
    if acks.dropped > 0 {
        number(out, ",\"dropped\":", acks.dropped);
    }
    out.push(b'}');
}

/// Appends the answer to a line that was refused. `id` is the JSON of its id, if it could be read; `line` is its number
/// on this connection, counted from 1.
pub fn write_error(out: &mut Vec<u8>, id: Option<&str>, message: &str, line: u64) {
    out.extend_from_slice(b"{\"id\":");
    out.extend_from_slice(id.unwrap_or("null").as_bytes());
    out.extend_from_slice(b",\"ok\":false,\"error\":");
    json::escape_into(out, message);
    number(out, ",\"line\":", line);
    out.extend_from_slice(b"}\n");
}

/// Appends what a publisher is told when the server stops: the lines from number `line` on were not taken. It looks
/// like the answer to a bad line without an id, which every reader of answers has to expect, and has one member more.
pub fn write_draining(out: &mut Vec<u8>, line: u64) {
    let told = "the server stops; from this line on nothing was taken: say it again to the next one";
    out.extend_from_slice(b"{\"id\":null,\"ok\":false,\"error\":");
    json::escape_into(out, told);
    number(out, ",\"line\":", line);
    out.extend_from_slice(b",\"draining\":true}\n");
}

fn number(out: &mut Vec<u8>, before: &str, value: u64) {
    write!(out, "{before}{value}").expect("a Vec takes every write");
}

/// The first line in `buffer`, without its `\n` or `\r\n`, and how many bytes it takes with it. `None` when its end has
/// not arrived; then `buffer.len()` may be given as `searched` next time, so that a long line is not searched from its
/// beginning again with each part that arrives.
#[must_use]
pub fn split_line(buffer: &[u8], searched: usize) -> Option<(&[u8], usize)> {
    let end = searched + memchr::memchr(b'\n', buffer.get(searched..)?)?;
    let line = &buffer[..end];
    Some((line.strip_suffix(b"\r").unwrap_or(line), end + 1))
}

/// A [`LineError`] before the line's id was looked for.
#[derive(Debug)]
struct Refusal {
    label: &'static str,
    message: String,
}

fn refuse<T>(label: &'static str, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { label, message: message.into() })
}

fn read<'a>(text: &'a str, limits: &Limits) -> Result<Line<'a>, Refusal> {
    let kind = json::kind(text);
    if kind != Kind::Object {
        return refuse("shape", format!("a line must be a JSON object such as {{\"event\":\"hello\"}}, not {kind}"));
    }
    let fields = Fields::collect(text)?;
    let id = fields.id.map(|id| read_id(id, limits)).transpose()?;
    let namespace = read_namespace(fields.ns)?;
    let request = match fields.op.map(|op| string("op", "op", op)).transpose()?.as_deref() {
        None | Some("emit") => Request::Emit(read_emit(&fields, limits)?),
        Some("join") => Request::Op(read_membership("join", OpKind::Join, &fields, limits)?),
        Some("leave") => Request::Op(read_membership("leave", OpKind::Leave, &fields, limits)?),
        Some("disconnect") => Request::Op(read_disconnect(&fields, limits)?),
        Some(op @ ("stats" | "rooms" | "room" | "socket" | "top")) => Request::Query(query::read(op, &fields, limits)?),
        Some("auth") => Request::Auth { token: read_token(&fields)? },
        Some(other) => {
            let hint = did_you_mean(other, &OPS, &[]);
            let known = format!("; the ops are {}", OPS.join(", "));
            return refuse("op", format!("unknown op {}{}", quoted(other), if hint.is_empty() { known } else { hint }));
        }
    };
    Ok(Line { id, namespace, request })
}

const OPS: [&str; 10] = ["emit", "join", "leave", "disconnect", "stats", "rooms", "room", "socket", "top", "auth"];

fn read_token<'a>(fields: &Fields<'a>) -> Result<Cow<'a, str>, Refusal> {
    query::only("auth", fields, &["token"])?;
    match (fields.token, fields.ns) {
        (Some(token), None) => string("auth", "token", token),
        (_, Some(_)) => refuse("key", "\"ns\" does not belong to \"op\":\"auth\"; leave it out"),
        (None, None) => refuse("auth", "\"op\":\"auth\" needs \"token\": what the server's ingest.token_file says"),
    }
}

/// The values of a line's keys, as they were written.
#[derive(Clone, Copy, Default)]
struct Fields<'a> {
    id: Option<&'a str>,
    ns: Option<&'a str>,
    op: Option<&'a str>,
    room: Option<&'a str>,
    rooms: Option<&'a str>,
    except: Option<&'a str>,
    event: Option<&'a str>,
    data: Option<&'a str>,
    args: Option<&'a str>,
    binary: Option<&'a str>,
    r#where: Option<&'a str>,
    close: Option<&'a str>,
    key: Option<&'a str>,
    volatile: Option<&'a str>,
    ack: Option<&'a str>,
    prefix: Option<&'a str>,
    limit: Option<&'a str>,
    after: Option<&'a str>,
    sid: Option<&'a str>,
    by: Option<&'a str>,
    token: Option<&'a str>,
}

const KEYS: [&str; 21] = [
    "id", "ns", "op", "room", "rooms", "except", "event", "data", "args", "binary", "where", "close", "key",
    "volatile", "ack", "prefix", "limit", "after", "sid", "by", "token",
];

/// Words that other systems use for our keys.
const ALIASES: [(&str, &str); 7] = [
    ("namespace", "ns"),
    ("to", "room"),
    ("channel", "room"),
    ("type", "event"),
    ("name", "event"),
    ("payload", "data"),
    ("message", "data"),
];

impl<'a> Fields<'a> {
    fn collect(object: &'a str) -> Result<Fields<'a>, Refusal> {
        let mut fields = Fields::default();
        for (key, value) in json::members(object) {
            let key = match key.as_bytes() {
                [b'"', plain @ .., b'"'] if !plain.contains(&b'\\') => Cow::Borrowed(&key[1..key.len() - 1]),
                _ => json::unescape(key).unwrap_or_default(),
            };
            let Some(slot) = fields.slot(&key) else {
                let hint = did_you_mean(&key, &KEYS, &ALIASES);
                let way_out = if hint.is_empty() { "; what clients shall get belongs into \"data\"" } else { "" };
                return refuse("key", format!("unknown key {}{hint}{way_out}", quoted(&key)));
            };
            if slot.replace(value).is_some() {
                return refuse("key", format!("the key {} occurs twice; keep one of them", quoted(&key)));
            }
        }
        Ok(fields)
    }

    fn slot(&mut self, key: &str) -> Option<&mut Option<&'a str>> {
        Some(match key {
            "id" => &mut self.id,
            "ns" => &mut self.ns,
            "op" => &mut self.op,
            "room" => &mut self.room,
            "rooms" => &mut self.rooms,
            "except" => &mut self.except,
            "event" => &mut self.event,
            "data" => &mut self.data,
            "args" => &mut self.args,
            "binary" => &mut self.binary,
            "where" => &mut self.r#where,
            "close" => &mut self.close,
            "key" => &mut self.key,
            "volatile" => &mut self.volatile,
            "ack" => &mut self.ack,
            "prefix" => &mut self.prefix,
            "limit" => &mut self.limit,
            "after" => &mut self.after,
            "sid" => &mut self.sid,
            "by" => &mut self.by,
            "token" => &mut self.token,
            _ => return None,
        })
    }
}

impl<'a> Fields<'a> {
    /// Those that go with queries and `auth` only.
    fn of_questions(&self) -> [(&'static str, Option<&'a str>); 6] {
        [
            ("prefix", self.prefix),
            ("limit", self.limit),
            ("after", self.after),
            ("sid", self.sid),
            ("by", self.by),
            ("token", self.token),
        ]
    }
}

/// The id for an error's answer: the line's, if it has exactly one and that is valid.
fn readable_id(text: &str, limits: &Limits) -> Option<String> {
    let mut ids = json::members(text).filter(|(key, _)| json::spells(key, "id"));
    let (_, id) = ids.next()?;
    let only = ids.next().is_none();
    read_id(id, limits).ok().filter(|_| only).map(String::from)
}

fn read_id<'a>(id: &'a str, limits: &Limits) -> Result<&'a str, Refusal> {
    let integer = id.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    if json::kind(id) != Kind::String && !integer {
        return refuse("id", format!("\"id\" must be a string or an integer, not {}", excerpt(id)));
    }
    if id.len() > limits.id_bytes_max {
        let max = limits.id_bytes_max;
        return refuse("id", format!("\"id\" has {} bytes as JSON; at most {max} are allowed", id.len()));
    }
    Ok(id)
}

fn read_namespace(ns: Option<&str>) -> Result<Cow<'_, str>, Refusal> {
    let Some(ns) = ns else { return Ok(Cow::Borrowed("/")) };
    let ns = string("namespace", "ns", ns)?;
    if !ns.starts_with('/') {
        let way_out = quoted(&format!("/{ns}"));
        return refuse("namespace", format!("\"ns\" must begin with a slash: write {way_out}, not {}", quoted(&ns)));
    }
    Ok(ns)
}

fn read_emit<'a>(fields: &Fields<'a>, limits: &Limits) -> Result<Emit<'a>, Refusal> {
    for (key, value) in [("where", fields.r#where), ("close", fields.close)] {
        if value.is_some() {
            let way_out = "it goes with \"op\": \"join\", \"leave\" or \"disconnect\"";
            return refuse("key", format!("{} does not belong to an event; {way_out}", quoted(key)));
        }
    }
    if let Some((key, _)) = fields.of_questions().iter().find(|(_, value)| value.is_some()) {
        return refuse("key", format!("{} does not belong to an event; leave it out", quoted(key)));
    }
    let Some(name_json) = fields.event else {
        return refuse("event", "the line has no \"event\" to send and no \"op\" to carry out");
    };
    check_event_name(name_json, limits)?;
    let mut room_count = 0;
    let rooms = read_rooms(fields, limits, &mut room_count)?;
    let except = fields.except.map(|list| room_list("except", list, limits, &mut room_count)).transpose()?;
    let (args, arg_count) = match (fields.data, fields.args) {
        (Some(_), Some(_)) => {
            return refuse("data", "the line has both \"data\" and \"args\"; put all arguments into \"args\"");
        }
        (Some(data), None) => (data, 1),
        (None, Some(args)) => read_args(args)?,
        (None, None) => ("", 0),
    };
    let mut emit = Emit {
        rooms: rooms.unwrap_or_default(),
        except: except.unwrap_or_default().into_vec(),
        name_json,
        args: Cow::Borrowed(args),
        arg_count,
        attachments: Vec::new(),
        key: fields.key.map(|key| read_key(key, limits)).transpose()?,
        volatile: boolean("volatile", fields.volatile)?,
        ack_timeout_ms: fields.ack.map(|ack| read_ack(ack, fields.id.is_some(), limits)).transpose()?,
    };
    if boolean("binary", fields.binary)? {
        (emit.args, emit.attachments) = take_attachments(args)?;
    }
    Ok(emit)
}

/// What the event is about.
fn read_key<'a>(key: &'a str, limits: &Limits) -> Result<Cow<'a, str>, Refusal> {
    let Some(text) = scalar_key(key) else {
        let message = format!("\"key\" must be a string or a whole number, not {}", excerpt(key));
        return refuse("event_key", message);
    };
    let max = limits.key_bytes_max;
    match text.len() {
        0 => refuse("event_key", "\"key\" is empty; leave it out if the event is about nothing in particular"),
        bytes if bytes > max => refuse("event_key", format!("\"key\" has {bytes} bytes; at most {max} are allowed")),
        _ => Ok(text),
    }
}

/// The text of a key: what a JSON string spells, or the digits of a whole number. `None` for other values.
#[must_use]
pub fn scalar_key(value: &str) -> Option<Cow<'_, str>> {
    match json::kind(value) {
        Kind::String => json::unescape(value),
        Kind::Number => value.bytes().all(|b| b.is_ascii_digit() || b == b'-').then_some(Cow::Borrowed(value)),
        _ => None,
    }
}

/// The time that clients have for their answers.
fn read_ack(ack: &str, has_id: bool, limits: &Limits) -> Result<u64, Refusal> {
    let max = limits.ack_timeout_ms_max;
    let kind = json::kind(ack);
    if kind != Kind::Object {
        return refuse("ack", format!("\"ack\" must be an object such as {{\"timeout_ms\":2000}}, not {kind}"));
    }
    let mut timeout_ms = None;
    for (key, value) in json::members(ack) {
        if !json::spells(key, "timeout_ms") {
            let key = json::unescape(key).unwrap_or_default();
            return refuse("ack", format!("unknown key {} in \"ack\"; the only one is \"timeout_ms\"", quoted(&key)));
        }
        if timeout_ms.replace(value).is_some() {
            return refuse("ack", "the key \"timeout_ms\" occurs twice; keep one of them");
        }
    }
    let Some(text) = timeout_ms else {
        return refuse("ack", "\"ack\" needs \"timeout_ms\": how long to wait for the clients' answers");
    };
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let Some(timeout_ms) = text.parse().ok().filter(|ms| digits && (1..=max).contains(ms)) else {
        let message = format!("\"timeout_ms\" must be an integer from 1 to {max}, not {}", excerpt(text));
        return refuse("ack", message);
    };
    if !has_id {
        return refuse("ack", "\"ack\" needs an \"id\": the clients' answers come with the line's receipt");
    }
    Ok(timeout_ms)
}

/// Names that Socket.IO's client and server give to their own events and refuse in `emit` (socket.io
/// `RESERVED_EVENTS`).
const RESERVED_EVENTS: [&str; 6] =
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];

fn check_event_name(name_json: &str, limits: &Limits) -> Result<(), Refusal> {
    let name = string("event", "event", name_json)?;
    if name.is_empty() {
        return refuse("event", "the event name is empty; clients listen to events by name");
    }
    if name.len() > limits.event_name_bytes_max {
        let max = limits.event_name_bytes_max;
        return refuse("event", format!("the event name has {} bytes; at most {max} are allowed", name.len()));
    }
    if RESERVED_EVENTS.contains(&&*name) {
        return refuse("event", format!("the event name {} is reserved by Socket.IO; choose another", quoted(&name)));
    }
    Ok(())
}

/// What stands between the brackets of `args`, and how many values that are.
fn read_args(args: &str) -> Result<(&str, usize), Refusal> {
    let kind = json::kind(args);
    let inner = args.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match inner {
        // Only JSON's whitespace can stand here.
        Some(inner) => Ok((inner.trim_ascii(), json::elements(args).count())),
        None => refuse("data", format!("\"args\" must be an array, not {kind}; for a single argument write \"data\"")),
    }
}

fn read_membership(name: &str, kind: OpKind, fields: &Fields<'_>, limits: &Limits) -> Result<Op, Refusal> {
    refuse_foreign_keys(name, fields, &[("close", fields.close)])?;
    let mut room_count = 0;
    let target = read_target(name, fields.r#where, limits)?;
    let Some(rooms) = read_rooms(fields, limits, &mut room_count)? else {
        return refuse("room", format!("\"op\":\"{name}\" needs \"rooms\": the rooms to {name}"));
    };
    Ok(Op { kind, target, rooms: rooms.into_vec() })
}

fn read_disconnect(fields: &Fields<'_>, limits: &Limits) -> Result<Op, Refusal> {
    refuse_foreign_keys("disconnect", fields, &[("room", fields.room), ("rooms", fields.rooms)])?;
    let target = read_target("disconnect", fields.r#where, limits)?;
    let close = boolean("close", fields.close)?;
    Ok(Op { kind: OpKind::Disconnect { close }, target, rooms: Vec::new() })
}

fn refuse_foreign_keys(op: &str, fields: &Fields<'_>, more: &[(&str, Option<&str>)]) -> Result<(), Refusal> {
    let events = [
        ("event", fields.event),
        ("data", fields.data),
        ("args", fields.args),
        ("except", fields.except),
        ("binary", fields.binary),
        ("key", fields.key),
        ("volatile", fields.volatile),
        ("ack", fields.ack),
    ];
    match events.iter().chain(more).chain(&fields.of_questions()).find(|(_, value)| value.is_some()) {
        Some((key, _)) => refuse("key", format!("{} does not belong to \"op\":\"{op}\"; leave it out", quoted(key))),
        None => Ok(()),
    }
}

/// Whose sockets are meant: exactly one of `{"room":"…"}` and `{"all":true}`.
fn read_target(op: &str, clause: Option<&str>, limits: &Limits) -> Result<Option<RoomName>, Refusal> {
    let way_out = "{\"room\":\"…\"} or {\"all\":true}";
    let Some(clause) = clause else {
        return refuse("op", format!("\"op\":\"{op}\" needs \"where\", to say whose sockets: {way_out}"));
    };
    let mut members = json::members(clause);
    match (members.next(), members.next()) {
        (Some((key, room)), None) if json::spells(key, "room") => {
            room_name("\"where\".\"room\"", room, limits).map(Some)
        }
        (Some((key, "true")), None) if json::spells(key, "all") => Ok(None),
        _ => refuse("op", format!("\"where\" must be {way_out}, not {}", excerpt(clause))),
    }
}

type Rooms = SmallVec<[RoomName; 1]>;

/// The rooms in `room` or `rooms`; `None` when the line has neither.
fn read_rooms(fields: &Fields<'_>, limits: &Limits, count: &mut usize) -> Result<Option<Rooms>, Refusal> {
    match (fields.room, fields.rooms) {
        (Some(_), Some(_)) => {
            refuse("room", "the line has both \"room\" and \"rooms\"; put all of them into \"rooms\"")
        }
        (Some(room), None) => {
            *count += 1;
            Ok(Some(SmallVec::from_buf([room_name("\"room\"", room, limits)?])))
        }
        (None, Some(list)) => {
            let rooms = room_list("rooms", list, limits, count)?;
            if rooms.is_empty() {
                return refuse("room", "\"rooms\" is empty: nobody, or everybody? Name a room, or leave \"rooms\" out");
            }
            Ok(Some(rooms))
        }
        (None, None) => Ok(None),
    }
}

/// A list of room names, duplicates removed. `count` counts the names of the line.
fn room_list(key: &str, list: &str, limits: &Limits, count: &mut usize) -> Result<Rooms, Refusal> {
    /// Up to here, looking through the list is cheaper than hashing.
    const SEARCHED_MAX: usize = 16;
    let kind = json::kind(list);
    if kind != Kind::Array {
        let way_out = if key == "rooms" { "; a single room goes into \"room\"" } else { "" };
        return refuse("room", format!("\"{key}\" must be an array of room names, not {kind}{way_out}"));
    }
    let mut rooms = Rooms::new();
    let mut seen = HashSet::new();
    for (i, item) in json::elements(list).enumerate() {
        *count += 1;
        if *count > limits.rooms_max {
            let max = limits.rooms_max;
            return refuse("room", format!("the line names more than {max} rooms; send several lines"));
        }
        let room = room_name(format_args!("\"{key}\"[{i}]"), item, limits)?;
        if rooms.len() == SEARCHED_MAX {
            seen.extend(rooms.iter().cloned());
        }
        let new = if rooms.len() < SEARCHED_MAX { !rooms.contains(&room) } else { seen.insert(room.clone()) };
        if new {
            rooms.push(room);
        }
    }
    Ok(rooms)
}

/// `place` names the value in the message.
fn room_name(place: impl fmt::Display, value: &str, limits: &Limits) -> Result<RoomName, Refusal> {
    let kind = json::kind(value);
    let Some(name) = json::unescape(value) else {
        return refuse("room", format!("{place} must be a string, not {kind}"));
    };
    RoomName::new(&name, limits.room_name_bytes_max)
        .map_err(|bad| Refusal { label: "room", message: format!("{place}: {bad}") })
}

/// The text of a value that must be a string. Half characters were refused before, so that every string has one.
fn string<'a>(label: &'static str, key: &str, value: &'a str) -> Result<Cow<'a, str>, Refusal> {
    match json::unescape(value) {
        Some(text) => Ok(text),
        None => refuse(label, format!("\"{key}\" must be a string, not {}", json::kind(value))),
    }
}

fn boolean(key: &'static str, value: Option<&str>) -> Result<bool, Refusal> {
    match value {
        Some("true") => Ok(true),
        None | Some("false") => Ok(false),
        Some(other) => refuse(key, format!("\"{key}\" must be true or false, not {}", excerpt(other))),
    }
}

/// Takes each object that is exactly `{"_base64":"…"}` out of `args` and puts its placeholder there (Socket.IO protocol
/// 5, "binary event"); every other byte stays.
fn take_attachments(args: &str) -> Result<(Cow<'_, str>, Attachments), Refusal> {
    let bytes = args.as_bytes();
    let mut attachments = Attachments::new();
    let mut replaced = String::new();
    // Everything before `copied` is in `replaced`.
    let (mut copied, mut at) = (0, 0);
    while let Some(found) = bytes.get(at..).and_then(|rest| memchr::memchr2(b'"', b'{', rest)) {
        at += found;
        if bytes[at] == b'"' {
            let end = json::string_end(bytes, at);
            if bytes.get(json::space_end(bytes, end)) == Some(&b':') && json::spells(&args[at..end], "_placeholder") {
                let reason = "with \"binary\":true no object may have the key \"_placeholder\"";
                return refuse("binary", format!("{reason}: clients would take it for an attachment"));
            }
            at = end;
        } else if let Some((base64, end)) = base64_object(args, at) {
            let num = attachments.len();
            attachments.push(decode(&base64, num)?);
            replaced.push_str(&args[copied..at]);
            write!(replaced, "{{\"_placeholder\":true,\"num\":{num}}}").expect("a String takes every write");
            (copied, at) = (end, end);
        } else {
            at += 1;
        }
    }
    if attachments.is_empty() {
        return Ok((Cow::Borrowed(args), attachments));
    }
    replaced.push_str(&args[copied..]);
    Ok((Cow::Owned(replaced), attachments))
}

/// If the object that begins at `open` is `{"_base64":"…"}`: the string's text, and where the object ends.
fn base64_object(text: &str, open: usize) -> Option<(Cow<'_, str>, usize)> {
    let bytes = text.as_bytes();
    let token = |at: usize, token: u8| {
        let at = json::space_end(bytes, at);
        (bytes.get(at) == Some(&token)).then_some(at)
    };
    let key = token(open + 1, b'"')?;
    let key_end = json::string_end(bytes, key);
    if !json::spells(&text[key..key_end], "_base64") {
        return None;
    }
    let value = token(token(key_end, b':')? + 1, b'"')?;
    let value_end = json::string_end(bytes, value);
    let close = token(value_end, b'}')?;
    Some((json::unescape(&text[value..value_end])?, close + 1))
}

fn decode(base64: &str, num: usize) -> Result<Box<[u8]>, Refusal> {
    match BASE64.decode(base64.as_bytes()) {
        Ok(bytes) => Ok(bytes.into()),
        Err(error) => {
            let way_out = "use the standard alphabet, with padding and without line breaks (RFC 4648 section 4)";
            refuse("binary", format!("\"_base64\" number {} of the line: {error}; {way_out}", num + 1))
        }
    }
}

/// `text` as a JSON string, cut to a length that can be read in a log.
fn quoted(text: &str) -> String {
    let mut out = String::new();
    json::escape_into(&mut out, &excerpt(text));
    out
}

fn excerpt(text: &str) -> Cow<'_, str> {
    const CHARS_MAX: usize = 64;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

/// `; did you mean "room"?`, or nothing when `word` is near to no known one.
fn did_you_mean(word: &str, known: &[&'static str], aliases: &[(&str, &'static str)]) -> String {
    const LENGTH_MAX: usize = 16;
    if word.len() > LENGTH_MAX {
        return String::new();
    }
    let lower = word.to_lowercase();
    let alias = aliases.iter().find(|(alias, _)| *alias == lower).map(|(_, known)| *known);
    let nearest = || known.iter().map(|known| (distance(&lower, known), *known)).min_by_key(|(distance, _)| *distance);
    // One slip in a short word, two in a longer one: more, and everything resembles everything.
    let near = |(distance, known): (usize, &'static str)| {
        (distance <= if known.len() < 5 { 1 } else { 2 } && distance < known.len().min(lower.len())).then_some(known)
    };
    match alias.or_else(|| nearest().and_then(near)) {
        Some(known) => format!("; did you mean \"{known}\"?"),
        None => String::new(),
    }
}

/// Letters inserted, left out, changed or swapped with their neighbour between `a` and `b` (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let changed = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = changed.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::super::json::tests::{string_text, value_text};
    use super::*;
    use proptest::prelude::*;

    fn parse(line: &[u8]) -> Result<Line<'_>, LineError> {
        Parser::new().parse(line, &Limits::default())
    }

    /// The line's meaning in one string, for the tables.
    fn meaning(line: &str) -> String {
        let Line { id, namespace, request } = parse(line.as_bytes()).unwrap_or_else(|error| panic!("{line}: {error}"));
        let names = |rooms: &[RoomName]| rooms.iter().map(RoomName::as_str).collect::<Vec<_>>().join(" ");
        let mut text = format!("{}{namespace}", id.map(|id| format!("{id} ")).unwrap_or_default());
        match request {
            Request::Emit(emit) => {
                let Emit { rooms, except, name_json, args, arg_count, attachments, key, volatile, ack_timeout_ms } =
                    emit;
                text += &format!(" emit to [{}] except [{}] {name_json} ", names(&rooms), names(&except));
                text += &format!("{arg_count}({args})");
                for attachment in attachments {
                    text += &format!(" +{}", attachment.escape_ascii());
                }
                if let Some(key) = key {
                    text += &format!(" key {key:?}");
                }
                if volatile {
                    text += " volatile";
                }
                if let Some(ms) = ack_timeout_ms {
                    text += &format!(" ack {ms}");
                }
            }
            Request::Op(Op { kind, target, rooms }) => {
                text +=
                    &format!(" {kind:?} of {} [{}]", target.as_ref().map_or("all", RoomName::as_str), names(&rooms));
            }
            Request::Query(query) => text += &format!(" {query:?}"),
            Request::Auth { token } => text += &format!(" auth {token}"),
        }
        text
    }

    /// A line, and below it what it means: id, namespace, then the event or the operation.
    const ACCEPTED: &str = r#"
{"room":"train_17225","event":"RAC_UPGRADE","data":{"pnr":"8524"}}
  / emit to [train_17225] except [] "RAC_UPGRADE" 1({"pnr":"8524"})
{"ns":"/seats","rooms":["route:7","route:8"],"except":["sid1"],"event":"seat_update","data":{"x": 1},"id":"a1"}
  "a1" /seats emit to [route:7 route:8] except [sid1] "seat_update" 1({"x": 1})
{"event":"announce","data":"…"}
  / emit to [] except [] "announce" 1("…")
{"room":"user:42","event":"moved","args":[1,"two",{"x":3}]}
  / emit to [user:42] except [] "moved" 3(1,"two",{"x":3})
{"event":"e","args":[ ]}
  / emit to [] except [] "e" 0()
{"event":"e"}
  / emit to [] except [] "e" 0()
{"event":"e","data":null}
  / emit to [] except [] "e" 1(null)
{"op":"emit","event":"e","id":17}
  17 / emit to [] except [] "e" 0()
 { "event" : "e" , "id" : -0 }
  -0 / emit to [] except [] "e" 0()
{"event":"e","id":123456789012345678901234567890}
  123456789012345678901234567890 / emit to [] except [] "e" 0()
{"event":"e","id":"\u0061\/"}
  "\u0061\/" / emit to [] except [] "e" 0()
{"\u0072oom":"\u0072","e\u0076ent":"\u0065","data":"\u0064"}
  / emit to [r] except [] "\u0065" 1("\u0064")
{"ns":"\/seats","event":"e"}
  /seats emit to [] except [] "e" 0()
{"rooms":["b","a","b","\u0061"],"except":["c","c"],"event":"e"}
  / emit to [b a] except [c] "e" 0()
{"room":"a","except":[],"event":"e"}
  / emit to [a] except [] "e" 0()
{"event":"connected","binary":false,"data":{"_base64":"AA=="}}
  / emit to [] except [] "connected" 1({"_base64":"AA=="})
{"event":"e","key":"A1"}
  / emit to [] except [] "e" 0() key "A1"
{"event":"e","key":"\u00e9 \"1\""}
  / emit to [] except [] "e" 0() key "é \"1\""
{"event":"e","key": -7 ,"data":1}
  / emit to [] except [] "e" 1(1) key "-7"
{"event":"e","volatile":true}
  / emit to [] except [] "e" 0() volatile
{"event":"e","volatile":false,"id":1,"ack":{"timeout_ms":1}}
  1 / emit to [] except [] "e" 0() ack 1
{"id":1,"ack": { "t\u0069meout_ms" : 60000 } ,"volatile":true,"event":"e"}
  1 / emit to [] except [] "e" 0() volatile ack 60000
{"op":"join","where":{"room":"user:42"},"rooms":["vip"]}
  / Join of user:42 [vip]
{"op":"join","where":{"room":"user:42"},"room":"vip"}
  / Join of user:42 [vip]
{"op":"leave","where":{"all":true},"rooms":["a","b","a"],"ns":"/x"}
  /x Leave of all [a b]
{"op":"disconnect","where":{"room":"a"}}
  / Disconnect { close: false } of a []
{"op":"disconnect","where":{"all":true},"close":true,"id":"z"}
  "z" / Disconnect { close: true } of all []
{"op":"auth","token":"a\u0062"}
  / auth ab
{"id":1,"op":"stats","ns":"/x"}
  1 /x Stats
{"id":1,"op":"rooms"}
  1 / Rooms { prefix: "", after: "", limit: 100 }
{"id":1,"op":"rooms","prefix":"a:","after":"a:7","limit":1000}
  1 / Rooms { prefix: "a:", after: "a:7", limit: 1000 }
{"id":1,"op":"socket","sid":"whatever"}
  1 / Socket("whatever")
{"id":1,"op":"top"}
  1 / Top { by: Deliveries, limit: 10 }
{"id":1,"op":"top","by":"l\u0061g","limit":100}
  1 / Top { by: Lag, limit: 100 }
"#;

    #[test]
    fn accepted_lines_and_what_they_mean() {
        for (line, wanted) in rows(ACCEPTED) {
            assert_eq!(meaning(line), wanted, "{line}");
        }
        let tab = "{\"event\":\"e\",\t\"args\":[ 1 ,\t[2]\t]}";
        assert_eq!(meaning(tab), "/ emit to [] except [] \"e\" 2(1 ,\t[2])");
    }

    /// A line, and below it the label and the message.
    const REFUSED: &str = r#"
{"event":"e",}
  json: the line is not valid JSON: expected a key in double quotes, found '}' at byte 13
[1]
  shape: a line must be a JSON object such as {"event":"hello"}, not an array
"x"
  shape: a line must be a JSON object such as {"event":"hello"}, not a string
{}
  event: the line has no "event" to send and no "op" to carry out
{"room":"a","data":1}
  event: the line has no "event" to send and no "op" to carry out

{"event":"e","rom":"a"}
  key: unknown key "rom"; did you mean "room"?
{"event":"e","romo":"a"}
  key: unknown key "romo"; did you mean "room"?
{"event":"e","Rooms":["a"]}
  key: unknown key "Rooms"; did you mean "rooms"?
{"event":"e","excpet":["a"]}
  key: unknown key "excpet"; did you mean "except"?
{"event":"e","namespace":"/a"}
  key: unknown key "namespace"; did you mean "ns"?
{"event":"e","payload":1}
  key: unknown key "payload"; did you mean "data"?
{"event":"e","colour":1}
  key: unknown key "colour"; what clients shall get belongs into "data"
{"event":"e","":1}
  key: unknown key ""; what clients shall get belongs into "data"
{"event":"e","x\u0000\"":1}
  key: unknown key "x\u0000\""; what clients shall get belongs into "data"
{"event":"e","room":"a","room":"a"}
  key: the key "room" occurs twice; keep one of them
{"event":"e","data":1,"d\u0061ta":2}
  key: the key "data" occurs twice; keep one of them
{"event":"e","where":{"all":true}}
  key: "where" does not belong to an event; it goes with "op": "join", "leave" or "disconnect"
{"event":"e","close":true}
  key: "close" does not belong to an event; it goes with "op": "join", "leave" or "disconnect"

{"event":"e","id":1.5}
  id: "id" must be a string or an integer, not 1.5
{"event":"e","id":1e3}
  id: "id" must be a string or an integer, not 1e3
{"event":"e","id":null}
  id: "id" must be a string or an integer, not null
{"event":"e","id":{"a":1}}
  id: "id" must be a string or an integer, not {"a":1}
{"event":"e","ns":"seats"}
  namespace: "ns" must begin with a slash: write "/seats", not "seats"
{"event":"e","ns":""}
  namespace: "ns" must begin with a slash: write "/", not ""
{"event":"e","ns":7}
  namespace: "ns" must be a string, not a number

{"event":""}
  event: the event name is empty; clients listen to events by name
{"event":["e"]}
  event: "event" must be a string, not an array
{"event":"connect"}
  event: the event name "connect" is reserved by Socket.IO; choose another
{"event":"connect_error"}
  event: the event name "connect_error" is reserved by Socket.IO; choose another
{"event":"disconnect"}
  event: the event name "disconnect" is reserved by Socket.IO; choose another
{"event":"disconnecting"}
  event: the event name "disconnecting" is reserved by Socket.IO; choose another
{"event":"newListener"}
  event: the event name "newListener" is reserved by Socket.IO; choose another
{"event":"remove\u004cistener"}
  event: the event name "removeListener" is reserved by Socket.IO; choose another

{"room":"a","rooms":["b"],"event":"e"}
  room: the line has both "room" and "rooms"; put all of them into "rooms"
{"rooms":[],"event":"e"}
  room: "rooms" is empty: nobody, or everybody? Name a room, or leave "rooms" out
{"rooms":"a","event":"e"}
  room: "rooms" must be an array of room names, not a string; a single room goes into "room"
{"room":["a"],"event":"e"}
  room: "room" must be a string, not an array
{"room":42,"event":"e"}
  room: "room" must be a string, not a number
{"room":"","event":"e"}
  room: "room": the room name is empty; leave out "room" to reach the whole namespace
{"rooms":["a",true],"event":"e"}
  room: "rooms"[1] must be a string, not true or false
{"rooms":["a\u0000"],"event":"e"}
  room: "rooms"[0]: the room name contains a control character
{"except":"a","event":"e"}
  room: "except" must be an array of room names, not a string
{"except":[{}],"event":"e"}
  room: "except"[0] must be a string, not an object

{"event":"e","data":1,"args":[1]}
  data: the line has both "data" and "args"; put all arguments into "args"
{"event":"e","args":{"a":1}}
  data: "args" must be an array, not an object; for a single argument write "data"
{"event":"e","binary":1}
  binary: "binary" must be true or false, not 1
{"event":"e","volatile":"yes"}
  volatile: "volatile" must be true or false, not "yes"

{"op":"auth"}
  auth: "op":"auth" needs "token": what the server's ingest.token_file says
{"op":"auth","token":7}
  auth: "token" must be a string, not a number
{"op":"auth","token":"t","ns":"/"}
  key: "ns" does not belong to "op":"auth"; leave it out
{"op":"auth","token":"t","room":"a"}
  key: "room" does not belong to "op":"auth"; leave it out
{"op":"stats"}
  id: "op":"stats" needs an "id": the answer is the line's receipt
{"op":"stats","id":1,"prefix":"a"}
  key: "prefix" does not belong to "op":"stats"; leave it out
{"op":"rooms","id":1,"limit":0}
  query: "limit" must be an integer from 1 to 1000, not 0
{"op":"rooms","id":1,"limit":1001}
  query: "limit" must be an integer from 1 to 1000, not 1001
{"op":"rooms","id":1,"limit":"7"}
  query: "limit" must be an integer from 1 to 1000, not "7"
{"op":"rooms","id":1,"after":null}
  query: "after" must be a string, not null
{"op":"rooms","id":1,"room":"a"}
  key: "room" does not belong to "op":"rooms"; leave it out
{"op":"room","id":1}
  room: "op":"room" needs "room": the room's name
{"op":"room","id":1,"room":""}
  room: "room": the room name is empty; leave out "room" to reach the whole namespace
{"op":"socket","id":1}
  query: "op":"socket" needs "sid": the socket's id
{"op":"top","id":1,"by":"size"}
  query: "by" must be one of "deliveries", "bytes", "lag", not "size"
{"op":"top","id":1,"limit":101}
  query: "limit" must be an integer from 1 to 100, not 101
{"op":"top","id":1,"ns":"/"}
  key: "ns" does not belong to "op":"top", which tells of all namespaces; leave it out
{"op":"join","where":{"all":true},"room":"a","by":"lag"}
  key: "by" does not belong to "op":"join"; leave it out
{"event":"e","by":"lag"}
  key: "by" does not belong to an event; leave it out
{"op":"join","where":{"all":true},"room":"a","limit":1}
  key: "limit" does not belong to "op":"join"; leave it out
{"event":"e","token":"t"}
  key: "token" does not belong to an event; leave it out
{"event":"e","key":""}
  event_key: "key" is empty; leave it out if the event is about nothing in particular
{"event":"e","key":1.0}
  event_key: "key" must be a string or a whole number, not 1.0
{"event":"e","key":{"a":1}}
  event_key: "key" must be a string or a whole number, not {"a":1}
{"event":"e","key":null}
  event_key: "key" must be a string or a whole number, not null
{"op":"leave","where":{"all":true},"rooms":["a"],"key":"k"}
  key: "key" does not belong to "op":"leave"; leave it out
{"event":"e","ack":{"timeout_ms":1}}
  ack: "ack" needs an "id": the clients' answers come with the line's receipt
{"event":"e","id":1,"ack":true}
  ack: "ack" must be an object such as {"timeout_ms":2000}, not true or false
{"event":"e","id":1,"ack":2000}
  ack: "ack" must be an object such as {"timeout_ms":2000}, not a number
{"event":"e","id":1,"ack":{}}
  ack: "ack" needs "timeout_ms": how long to wait for the clients' answers
{"event":"e","id":1,"ack":{"timeout":1}}
  ack: unknown key "timeout" in "ack"; the only one is "timeout_ms"
{"event":"e","id":1,"ack":{"timeout_ms":1,"timeout_ms":1}}
  ack: the key "timeout_ms" occurs twice; keep one of them
{"event":"e","id":1,"ack":{"timeout_ms":0}}
  ack: "timeout_ms" must be an integer from 1 to 60000, not 0
{"event":"e","id":1,"ack":{"timeout_ms":60001}}
  ack: "timeout_ms" must be an integer from 1 to 60000, not 60001
{"event":"e","id":1,"ack":{"timeout_ms":99999999999999999999999}}
  ack: "timeout_ms" must be an integer from 1 to 60000, not 99999999999999999999999
{"event":"e","id":1,"ack":{"timeout_ms":-1}}
  ack: "timeout_ms" must be an integer from 1 to 60000, not -1
{"event":"e","id":1,"ack":{"timeout_ms":1e3}}
  ack: "timeout_ms" must be an integer from 1 to 60000, not 1e3
{"event":"e","id":1,"ack":{"timeout_ms":"5"}}
  ack: "timeout_ms" must be an integer from 1 to 60000, not "5"
{"event":"e","acks":{"timeout_ms":1}}
  key: unknown key "acks"; did you mean "ack"?
{"op":"leave","where":{"all":true},"rooms":["a"],"id":1,"ack":{"timeout_ms":1}}
  key: "ack" does not belong to "op":"leave"; leave it out
{"op":"join","where":{"all":true},"rooms":["a"],"volatile":true}
  key: "volatile" does not belong to "op":"join"; leave it out

{"op":"jion","where":{"all":true}}
  op: unknown op "jion"; did you mean "join"?
{"op":"publish"}
  op: unknown op "publish"; the ops are emit, join, leave, disconnect, stats, rooms, room, socket, top, auth
{"op":1}
  op: "op" must be a string, not a number
{"op":"emit"}
  event: the line has no "event" to send and no "op" to carry out
{"op":"join","rooms":["a"]}
  op: "op":"join" needs "where", to say whose sockets: {"room":"…"} or {"all":true}
{"op":"join","where":{},"rooms":["a"]}
  op: "where" must be {"room":"…"} or {"all":true}, not {}
{"op":"join","where":"a","rooms":["a"]}
  op: "where" must be {"room":"…"} or {"all":true}, not "a"
{"op":"join","where":{"all":false},"rooms":["a"]}
  op: "where" must be {"room":"…"} or {"all":true}, not {"all":false}
{"op":"join","where":{"room":"a","all":true},"rooms":["a"]}
  op: "where" must be {"room":"…"} or {"all":true}, not {"room":"a","all":true}
{"op":"join","where":{"room":""},"rooms":["a"]}
  room: "where"."room": the room name is empty; leave out "room" to reach the whole namespace
{"op":"join","where":{"all":true}}
  room: "op":"join" needs "rooms": the rooms to join
{"op":"leave","where":{"all":true},"rooms":[]}
  room: "rooms" is empty: nobody, or everybody? Name a room, or leave "rooms" out
{"op":"join","where":{"all":true},"rooms":["a"],"event":"e"}
  key: "event" does not belong to "op":"join"; leave it out
{"op":"leave","where":{"all":true},"rooms":["a"],"close":true}
  key: "close" does not belong to "op":"leave"; leave it out
{"op":"disconnect","where":{"all":true},"rooms":["a"]}
  key: "rooms" does not belong to "op":"disconnect"; leave it out
{"op":"disconnect","where":{"all":true},"close":"yes"}
  close: "close" must be true or false, not "yes"
"#;

    #[test]
    fn refused_lines_and_their_messages() {
        for (line, wanted) in rows(REFUSED) {
            let error = parse(line.as_bytes()).map(|_| line).unwrap_err();
            assert_eq!(format!("{}: {}", error.label, error.message), wanted, "{line}");
        }
        assert_eq!(parse(b"").unwrap_err().message, "the line is not valid JSON: there is no value");
    }

    fn rows(table: &str) -> impl Iterator<Item = (&str, &str)> {
        let mut lines = table.lines().filter(|line| !line.is_empty());
        std::iter::from_fn(move || Some((lines.next()?, lines.next()?.strip_prefix("  ").expect("indented"))))
    }

    #[test]
    fn bounds_are_refused_by_number() {
        let limits = Limits {
            room_name_bytes_max: 4,
            rooms_max: 3,
            id_bytes_max: 5,
            event_name_bytes_max: 4,
            ..Limits::default()
        };
        let message = |line: &str| Parser::new().parse(line.as_bytes(), &limits).map(|_| ()).map_err(|e| e.message);
        assert_eq!(message(r#"{"event":"éé","room":"\u0061bcd","id":"abc"}"#), Ok(()));
        assert_eq!(message(r#"{"event":"e","rooms":["a","b"],"except":["c"]}"#), Ok(()));
        for (line, wanted) in [
            (r#"{"event":"abcde"}"#, "the event name has 5 bytes; at most 4 are allowed"),
            (r#"{"event":"e","room":"abcde"}"#, r#""room": the room name has 5 bytes; at most 4 are allowed"#),
            (r#"{"event":"e","rooms":["a","a","b","c"]}"#, "the line names more than 3 rooms; send several lines"),
            (
                r#"{"event":"e","rooms":["a","b"],"except":["c","d"]}"#,
                "the line names more than 3 rooms; send several lines",
            ),
            (r#"{"event":"e","id":"abcd"}"#, r#""id" has 6 bytes as JSON; at most 5 are allowed"#),
        ] {
            assert_eq!(message(line), Err(String::from(wanted)), "{line}");
        }
        let long = format!("{{\"event\":\"e\",\"{}\":1}}", "é".repeat(1000));
        let shown = "é".repeat(64) + "…";
        assert_eq!(
            message(&long),
            Err(format!("unknown key \"{shown}\"; what clients shall get belongs into \"data\""))
        );
    }

    #[test]
    fn many_rooms_are_one_each() {
        let names: Vec<String> = (0..500).map(|i| format!("\"r{}\"", i % 300)).collect();
        let line = format!("{{\"event\":\"e\",\"rooms\":[{}]}}", names.join(","));
        let Request::Emit(emit) = parse(line.as_bytes()).unwrap().request else { panic!("an event") };
        let wanted: Vec<String> = (0..300).map(|i| format!("r{i}")).collect();
        assert_eq!(emit.rooms.iter().map(RoomName::as_str).collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn a_refused_line_still_gets_its_id_back() {
        for (line, id) in [
            (r#"{"colour":1,"id":"a\u0031"}"#, Some(r#""a\u0031""#)),
            (r#"{"id":7,"event":""}"#, Some("7")),
            (r#"{"\u0069d":7,"event":""}"#, Some("7")),
            (r#"{"id":7,"event":"e","id":8}"#, None),
            (r#"{"id":[7],"event":"e"}"#, None),
            (r#"{"id":7,"event":"e""#, None),
            ("[7]", None),
        ] {
            assert_eq!(parse(line.as_bytes()).unwrap_err().id.as_deref(), id, "{line}");
        }
    }

    /// The promise: the value that arrives is the value that was sent, or the line is refused.
    #[test]
    fn nasty_values_arrive_as_sent_or_not_at_all() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        let kept = [
            "9007199254740993",
            "9223372036854775807",
            "-9223372036854775808",
            "18446744073709551615",
            "18446744073709551616",
            "123456789012345678901234567890",
            "-123456789012345678901234567890.123456789012345678901234567890",
            "1.0",
            "1.10",
            "1e400",
            "-1E+400",
            "1e-400",
            "1e99999999999999999999",
            "-0",
            "-0.0",
            "0e0",
            r#"{"b":1,"a":2,"b":3}"#,
            r#"{"":{"":""}}"#,
            "{ \"a\" :\t[ 1 ,\t2 ] }",
            "[\r\t]",
            r#""\u0000""#,
            r#""\ud83d\ude00""#,
            r#""\u00e9\u00E9é""#,
            r#""😀👩‍👩‍👧‍👦""#,
            r#""<\/script>""#,
            "\"/\"",
            r#""\\\"\b\f\n\r\t""#,
            "\"\u{7f}\u{80}\u{2028}\u{feff}\u{fffe}\"",
            r#"{"_placeholder":true,"num":0}"#,
            r#"{"_base64":"AA=="}"#,
            r#"{"room":"x","event":"y"}"#,
            "\"\"",
            "null",
            "false",
        ];
        for value in kept.into_iter().map(String::from).chain(["9".repeat(400), nested(100), nested(127)]) {
            let line = format!("{{\"event\":\"e\",\"data\": {value}\t}}");
            let Ok(Line { request: Request::Emit(emit), .. }) = parse(line.as_bytes()) else { panic!("{value}") };
            assert!(matches!(emit.args, Cow::Borrowed(args) if args == value), "{value} became {}", emit.args);
            assert_eq!(emit.arg_count, 1);
        }

        let (deep, abyss) = (nested(200), nested(100_000));
        let half = "half of a character; write both halves, or leave it out";
        let refused: &[(&[u8], &str)] = &[
            (br#""\ud800""#, &format!("\\ud800 at byte 21 is {half}")),
            (br#""\udc00\ud800""#, &format!("\\udc00 at byte 21 is {half}")),
            (br#"{"\ud800":1}"#, &format!("\\ud800 at byte 22 is {half}")),
            (deep.as_bytes(), "nested more than 128 levels deep at byte 147"),
            (abyss.as_bytes(), "nested more than 128 levels deep at byte 147"),
            (b"\"\xff\"", "invalid UTF-8 at byte 21"),
            (b"\"\xed\xa0\x80\"", "invalid UTF-8 at byte 21"),
            (b"\"\0\"", "control character inside a string at byte 21; write it as \\u0000"),
            (b"\"a\tb\"", "control character inside a string at byte 22; write it as \\u0009"),
            (b"NaN", "NaN and Infinity are not JSON, at byte 20; send null or a string"),
            (b"007", "number with a leading zero at byte 20"),
            (b"", "expected a value, found '}' at byte 20"),
        ];
        for (value, reason) in refused {
            let line = [b"{\"event\":\"e\",\"data\":", *value, b"}"].concat();
            let error = parse(&line).unwrap_err();
            assert_eq!(error.message, format!("the line is not valid JSON: {reason}"));
        }
    }

    #[test]
    fn binary_parts_become_attachments() {
        let table = [
            (r#"{"_base64":"aGk="}"#, r#"1({"_placeholder":true,"num":0}) +hi"#),
            (r#"{ "_base64" : "" }"#, r#"1({"_placeholder":true,"num":0}) +"#),
            (r#"{"\u005fbase64":"\/\u002f8="}"#, r#"1({"_placeholder":true,"num":0}) +\xff\xff"#),
            (
                r#"{"a": {"_base64":"YQ=="}, "b":[{"_base64":"Yg=="} ,1.0]}"#,
                r#"1({"a": {"_placeholder":true,"num":0}, "b":[{"_placeholder":true,"num":1} ,1.0]}) +a +b"#,
            ),
            (r#"{"x":"{\"_base64\":\"YQ==\"}"}"#, r#"1({"x":"{\"_base64\":\"YQ==\"}"})"#),
            (r#"{"_base64":"YQ==","type":"png"}"#, r#"1({"_base64":"YQ==","type":"png"})"#),
            (r#"{"type":"png","_base64":"YQ=="}"#, r#"1({"type":"png","_base64":"YQ=="})"#),
            (r#"{"_base64":{"_base64":"YQ=="}}"#, r#"1({"_base64":{"_placeholder":true,"num":0}}) +a"#),
            (r#"{"_base64":5}"#, r#"1({"_base64":5})"#),
            (r#"["_placeholder",{"a":"_placeholder"}]"#, r#"1(["_placeholder",{"a":"_placeholder"}])"#),
        ];
        for (data, wanted) in table {
            let line = format!("{{\"event\":\"e\",\"data\":{data},\"binary\":true}}");
            assert_eq!(meaning(&line), format!("/ emit to [] except [] \"e\" {wanted}"), "{data}");
        }
        assert_eq!(
            meaning(r#"{"binary":true,"event":"e","args":[{"_base64":"YQ=="},2,{"_base64":"Yg=="}]}"#),
            r#"/ emit to [] except [] "e" 3({"_placeholder":true,"num":0},2,{"_placeholder":true,"num":1}) +a +b"#
        );
        assert_eq!(meaning(r#"{"binary":true,"event":"e"}"#), r#"/ emit to [] except [] "e" 0()"#);

        let way_out = "use the standard alphabet, with padding and without line breaks (RFC 4648 section 4)";
        let placeholder =
            "with \"binary\":true no object may have the key \"_placeholder\": clients would take it for an attachment";
        for (data, wanted) in [
            (r#"{"_base64":"YQ"}"#, format!("\"_base64\" number 1 of the line: invalid length at 0; {way_out}")),
            (
                r#"[{"_base64":""},{"_base64":"Y_=="}]"#,
                format!("\"_base64\" number 2 of the line: invalid symbol at 1; {way_out}"),
            ),
            (
                r#"{"_base64":"YR=="}"#,
                format!("\"_base64\" number 1 of the line: non-zero trailing bits at 1; {way_out}"),
            ),
            (r#"{"_placeholder":true,"num":0}"#, String::from(placeholder)),
            (r#"[{"a":{"\u005fplaceholder" :false}},{"_base64":"YQ=="}]"#, String::from(placeholder)),
        ] {
            let line = format!("{{\"event\":\"e\",\"data\":{data},\"binary\":true,\"id\":1}}");
            let error = parse(line.as_bytes()).unwrap_err();
            assert_eq!((error.message, error.label, error.id.as_deref()), (wanted, "binary", Some("1")), "{data}");
        }
    }

    #[test]
    fn receipts() {
        let room = |name| RoomName::new(name, 200).unwrap();
        let several = [(room("route:7"), Offset(3)), (room("a\"b"), Offset(9))];
        let mut out = Vec::new();
        write_receipt(&mut out, "\"a1\"", Receipt::Offset(Offset(17)), None);
        write_receipt(&mut out, "12345678901234567890", Receipt::Offsets(&several), None);
        write_receipt(&mut out, "-7", Receipt::Sockets { applied: 3, refused: 0 }, None);
        let sid = |n| SocketId::new(crate::base::ids::CoreId::new(0), n, [0; 9]);
        let answers = [(0, "1,{\"a\":2}"), (1, "")];
        let answers = answers.map(|(n, args)| Ack { sid: sid(n), args_json: args.into() }).to_vec();
        let mut acks = Acks { asked: 5, answers, dropped: 0 };
        write_receipt(&mut out, "1", Receipt::Offset(Offset(2)), Some(&acks));
        acks.dropped = 2;
        write_receipt(&mut out, "1", Receipt::Offsets(&several[..1]), Some(&acks));
        write_receipt(&mut out, "1", Receipt::Offset(Offset(3)), Some(&Acks::default()));
        write_error(&mut out, None, "unknown key \"x\"", 3);
        write_error(&mut out, Some("\"a1\""), "no", u64::MAX);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            concat!(
                "{\"id\":\"a1\",\"ok\":true,\"offset\":17}\n",
                "{\"id\":12345678901234567890,\"ok\":true,\"offsets\":{\"route:7\":3,\"a\\\"b\":9}}\n",
                "{\"id\":-7,\"ok\":true,\"sockets\":3}\n",
                "{\"id\":1,\"ok\":true,\"offset\":2,\"ack\":{\"asked\":5,\"answers\":[",
                "{\"sid\":\"AAAAAAAAAAAAAAAAAAAA\",\"args\":[1,{\"a\":2}]},",
                "{\"sid\":\"AAAAAAABAAAAAAAAAAAA\",\"args\":[]}],\"missing\":3}}\n",
                "{\"id\":1,\"ok\":true,\"offsets\":{\"route:7\":3},\"ack\":{\"asked\":5,\"answers\":[",
                "{\"sid\":\"AAAAAAAAAAAAAAAAAAAA\",\"args\":[1,{\"a\":2}]},",
                "{\"sid\":\"AAAAAAABAAAAAAAAAAAA\",\"args\":[]}],\"missing\":1,\"dropped\":2}}\n",
                "{\"id\":1,\"ok\":true,\"offset\":3,\"ack\":{\"asked\":0,\"answers\":[],\"missing\":0}}\n",
                "{\"id\":null,\"ok\":false,\"error\":\"unknown key \\\"x\\\"\",\"line\":3}\n",
                "{\"id\":\"a1\",\"ok\":false,\"error\":\"no\",\"line\":18446744073709551615}\n",
            )
        );
    }

    #[test]
    fn an_answer_takes_as_many_bytes_as_it_says() {
        let sid = SocketId::new(crate::base::ids::CoreId::new(0), 1, [0; 9]);
        let size = |answers: Vec<Ack>| {
            let mut out = Vec::new();
            write_acks(&mut out, &Acks { asked: answers.len() as u64, answers, dropped: 0 });
            out.len()
        };
        let one = Ack { sid, args_json: "1".into() };
        let other = Ack { sid, args_json: "\"two\",3".into() };
        assert_eq!(size(vec![one.clone(), other.clone()]), size(vec![one]) + other.bytes());
    }

    #[test]
    fn clients_attachments_are_shown_as_publishers_write_them() {
        let p = |num| format!("{{\"_placeholder\":true,\"num\":{num}}}");
        let two: Vec<Box<[u8]>> = vec![Box::from(*b"hi"), Box::from([])];
        for (args, attachments, wanted) in [
            ("1, [2]", &two[..0], "1, [2]".to_owned()),
            ("", &two[..0], String::new()),
            ("[1,\n2\r\n]", &two[..0], "[1, 2  ]".to_owned()),
            (r#""a\nb""#, &two[..0], r#""a\nb""#.to_owned()),
            (&p(0), &two[..0], p(0)),
            (&p(0), &two[..1], "{\"_base64\":\"aGk=\"}".to_owned()),
            (
                &format!("{{\"x\":\n{},\"y\":[{}]}} , null", p(1), p(0)),
                &two[..],
                "{\"x\": {\"_base64\":\"\"},\"y\":[{\"_base64\":\"aGk=\"}]} , null".to_owned(),
            ),
        ] {
            let shown = put_attachments(args, attachments);
            assert_eq!(*shown, *wanted, "{args}");
            // And the way back, as a publisher would send it.
            if attachments.len() == 1 {
                let (back, parts) = take_attachments(&shown).map_err(|refusal| refusal.message).unwrap();
                assert_eq!((&*back, &parts[..]), (args, attachments));
            }
        }
    }

    #[test]
    fn lines_end_with_or_without_a_carriage_return() {
        assert_eq!(split_line(b"a\nb", 0), Some((&b"a"[..], 2)));
        assert_eq!(split_line(b"a\r\r\nb", 0), Some((&b"a\r"[..], 4)));
        assert_eq!(split_line(b"\n", 0), Some((&b""[..], 1)));
        assert_eq!(split_line(b"\r\n", 1), Some((&b""[..], 2)));
        assert_eq!(split_line(b"ab", 0), None);
        assert_eq!(split_line(b"ab\r", 2), None);
        assert_eq!(split_line(b"", 0), None);
        assert_eq!(split_line(b"a", 9), None, "searched beyond the end");
    }

    proptest! {
        #[test]
        fn data_and_args_arrive_as_sent(
            values in prop::collection::vec(value_text(), 0..4), name in string_text(), pad in "[ \t]{0,2}",
        ) {
            let spelled = json::unescape(&name).unwrap().into_owned();
            prop_assume!(!spelled.is_empty() && !RESERVED_EVENTS.contains(&&*spelled));
            let joined = values.join(&format!("{pad},"));
            let args = format!("{{\"args\":{pad}[{pad}{joined}{pad}]{pad},\"event\":{name}}}");
            let data = values.first().map(|value| format!("{{\"event\":{name},{pad}\"data\"{pad}:{pad}{value}{pad}}}"));
            let mut parser = Parser::new();
            for (line, wanted, count) in [
                (Some(&args), joined.as_str(), values.len()),
                (data.as_ref(), values.first().map_or("", String::as_str), 1),
            ] {
                let Some(line) = line else { continue };
                let parsed = parser.parse(line.as_bytes(), &Limits::default());
                let parsed = parsed.map_err(|e| TestCaseError::fail(e.message))?;
                let Request::Emit(emit) = parsed.request else { return Err(TestCaseError::fail("an event")) };
                prop_assert_eq!((emit.name_json, &*emit.args, emit.arg_count), (name.as_str(), wanted, count));
            }
        }

        #[test]
        fn binary_changes_nothing_but_the_binary_parts(
            values in prop::collection::vec(value_text(), 1..4), blob in prop::collection::vec(any::<u8>(), 0..9),
        ) {
            let part = format!("{{\"_base64\":\"{}\"}}", BASE64.encode(&blob));
            let (mut sent, mut wanted) = (String::new(), String::new());
            for (num, value) in values.iter().enumerate() {
                sent += &format!("{value},{{\"k\":{part}}} ,");
                wanted += &format!("{value},{{\"k\":{{\"_placeholder\":true,\"num\":{num}}}}} ,");
            }
            let line = format!("{{\"event\":\"e\",\"binary\":true,\"args\":[{sent}0]}}");
            let parsed = parse(line.as_bytes()).map_err(|e| TestCaseError::fail(e.message))?;
            let Request::Emit(emit) = parsed.request else { return Err(TestCaseError::fail("an event")) };
            prop_assert_eq!(&*emit.args, wanted + "0");
            prop_assert!(emit.attachments.len() == values.len() && emit.attachments.iter().all(|a| **a == *blob));
        }

        #[test]
        fn no_line_panics(
            members in prop::collection::vec((prop::sample::select(&KEYS[..]), value_text()), 0..6),
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        ) {
            let members: Vec<_> = members.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
            let mut line = format!("{{{}}}", members.join(",")).into_bytes();
            let _ = parse(&line);
            for (at, byte) in edits {
                let at = at.index(line.len());
                line[at] = byte;
            }
            if let Err(error) = parse(&line) {
                let mut answer = Vec::new();
                write_error(&mut answer, error.id.as_deref(), &error.message, 1);
                prop_assert!(json::validate(&answer, &mut Scratch::default()).is_ok(), "an answer is a line of JSON");
                prop_assert_eq!(split_line(&answer, 0).map(|(_, used)| used), Some(answer.len()));
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = parse(&bytes);
            let _ = take_attachments(&String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn lines_are_the_same_however_the_bytes_are_cut(
            bytes in prop::collection::vec(prop::sample::select(&b"ab{\r\n"[..]), 0..60),
            cuts in prop::collection::vec(1..9usize, 0..20),
        ) {
            let mut wanted: Vec<&[u8]> = bytes.split(|b| *b == b'\n').collect();
            let rest = wanted.pop().unwrap_or_default();
            let wanted: Vec<&[u8]> = wanted.into_iter().map(|line| line.strip_suffix(b"\r").unwrap_or(line)).collect();
            let (mut buffer, mut searched, mut lines): (Vec<u8>, usize, Vec<Vec<u8>>) = (Vec::new(), 0, Vec::new());
            let mut input = &bytes[..];
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let (part, later) = input.split_at(cut.min(input.len()));
                buffer.extend_from_slice(part);
                while let Some((line, used)) = split_line(&buffer, searched) {
                    lines.push(line.to_vec());
                    buffer.drain(..used);
                    searched = 0;
                }
                searched = buffer.len();
                input = later;
            }
            prop_assert_eq!(lines, wanted);
            prop_assert_eq!(buffer, rest);
        }
    }

    /// `cargo test --release line_cost -- --ignored --nocapture`
    #[test]
    #[ignore = "a measurement"]
    fn line_cost() {
        let seat = concat!(
            r#"{"routeId":"r-7","seatNumber":"12A","eventType":"seat_reserved""#,
            r#","ticketId":9007199254740993,"timestamp":"2025-01-01T10:00:00Z"}"#
        );
        let line = format!(
            "{{\"ns\":\"/seats\",\"room\":\"route:7\",\"event\":\"seat_update\",\"data\":{seat},\"id\":\"a1\"}}"
        );
        let huge = line.replace("9007199254740993", "1e400");
        let (mut parser, limits, rounds) = (Parser::new(), Limits::default(), 1_000_000u32);
        for (what, line) in [("plain", &line), ("slow path", &huge)] {
            let cost = |work: &mut dyn FnMut() -> bool| {
                let start = std::time::Instant::now();
                assert!((0..rounds).all(|_| work()));
                start.elapsed() / rounds
            };
            let validate =
                cost(&mut || json::validate(std::hint::black_box(line.as_bytes()), &mut parser.scratch).is_ok());
            let parse = cost(&mut || parser.parse(std::hint::black_box(line.as_bytes()), &limits).is_ok());
            println!("{what}: {} bytes, validate {validate:?}, validate and read {parse:?}", line.len());
        }
    }
}
