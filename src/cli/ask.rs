//! `roomcast check FILE --as CLIENT --event EVENT`: what would happen to one client, in words, without a server. Knows
//! what a shard does with the outcome of rules; does not know sessions, sockets or wires.

use std::fmt::Write as _;

use super::args::Check;
use crate::base::ids::{NamespaceId, RoomName};
use crate::config::{Config, EndpointKind};
use crate::proto::json::{self, Kind};
use crate::session::identity::{Identity, TokenError};
use crate::session::namespace::NamespaceName;
use crate::session::rules::{Args, Facts, Outcome, Refusal, Reply, State, UnknownEvents, put_snapshots};
use crate::shard::{Namespace, find_namespace};

/// What `{sid}` is in the answer, unless the question says otherwise: as long as a real one.
const SID: &str = "exampleSid0123456789";

/// A name and its value in a query.
type Pair = (Box<str>, Box<str>);

/// Who asks, as `--as` says.
#[derive(Debug)]
struct Client {
    namespace: String,
    query: Vec<Pair>,
    auth: String,
    claims: String,
    ip: String,
    sid: String,
    /// What earlier messages have made of the socket, besides connecting.
    state: String,
    rooms: Vec<String>,
}

/// The keys of `--as`, for who misspells one.
const KEYS: [&str; 8] = ["ns", "claims", "query", "auth", "ip", "sid", "state", "rooms"];

/// What a socket is after its last message.
#[derive(Debug, Default)]
struct Socket {
    rooms: Vec<String>,
    state: State,
}

/// The question with all that its answer depends on.
struct Question<'a> {
    config: &'a Config,
    client: &'a Client,
    namespace: &'a Namespace,
    /// Its place among the config's rules.
    index: usize,
    captures: Vec<(&'a str, &'a str)>,
}

/// True if the words ask what would happen, rather than what the config means.
pub(super) fn is_asked(check: &Check) -> bool {
    check.client.is_some() || check.event.is_some() || check.data.is_some() || check.args.is_some()
}

/// What would happen.
///
/// # Errors
/// The question makes no sense, and why.
pub(super) fn answer(check: &Check, config: &Config, identity: Option<&Identity>) -> Result<String, String> {
    let mut client = Client::parse(check.client.as_deref().unwrap_or("{}"))?;
    let args = arguments(check)?;
    let mut text = String::new();
    match identity {
        Some(identity) => client.auth = identity.without_tokens_in(&client.auth).into(),
        None if client.claims != "null" => {
            text.push_str(
                "Without any [[auth.key]] no client has claims; as if these were of a token that is valid:\n",
            );
        }
        None => {}
    }
    let _ = write!(text, "A client at {} connects to {}: ", client.ip, client.namespace);
    let namespaces = config.namespaces().map_err(|error| error.to_string())?;
    let Some(index) = find_namespace(&namespaces, &client.namespace, config.limits.namespace_bytes_max) else {
        text.push_str("refused, as the config has no such namespace.\n");
        hears(&mut text, "connect_error \"Invalid namespace\"");
        return Ok(text);
    };
    let namespace = &namespaces[index];
    let captures = match &namespace.name {
        NamespaceName::Pattern(pattern) => pattern.captures(&client.namespace),
        NamespaceName::Exact(_) => Vec::new(),
    };
    let question = Question { config, client: &client, namespace, index, captures };
    if client.claims == "null" && identity.is_some_and(|identity| identity.is_required(NamespaceId(index as u16))) {
        question.refuse_token(TokenError::Missing, &mut text);
        return Ok(text);
    }
    let mut socket = Socket::default();
    if !question.connect(&mut socket, &mut text) {
        return Ok(text);
    }
    let Some(event) = &check.event else { return Ok(text) };
    if identity.is_some_and(|identity| identity.is_refresh(event)) {
        let _ = writeln!(text, "It says {event:?}: that brings a new token, which only a server can judge.");
        return Ok(text);
    }
    question.meanwhile(&mut socket)?;
    question.event(event, &args, &mut socket, &mut text);
    Ok(text)
}

/// The event's arguments as JSON values.
fn arguments(check: &Check) -> Result<Vec<String>, String> {
    if check.event.is_none() && (check.data.is_some() || check.args.is_some()) {
        return Err("--data and --args belong to an event: name it with --event".to_owned());
    }
    match (&check.data, &check.args) {
        (Some(_), Some(_)) => Err("--data is the only argument of an event; give either it or --args".to_owned()),
        (Some(data), None) => Ok(vec![valid("--data", data)?]),
        (None, Some(args)) => {
            let args = valid("--args", args)?;
            if json::kind(&args) != Kind::Array {
                return Err(format!("--args {args}: not an array, as in '[1,\"two\"]'"));
            }
            Ok(json::elements(&args).map(str::to_owned).collect())
        }
        (None, None) => Ok(Vec::new()),
    }
}

fn valid(what: &str, text: &str) -> Result<String, String> {
    match json::validate(text.as_bytes(), &mut json::Scratch::default()) {
        Ok(value) => Ok(value.trim_ascii().to_owned()),
        Err(error) => Err(format!("{what} {text}: not JSON: {error}")),
    }
}

impl Client {
    fn parse(text: &str) -> Result<Client, String> {
        let text = valid("--as", text)?;
        if json::kind(&text) != Kind::Object {
            return Err(format!("--as {text}: not an object, as in '{{\"claims\":{{\"role\":\"ADMIN\"}}}}'"));
        }
        let keys = json::members(&text).map(|(key, _)| json::unescape(key).unwrap_or_default().into_owned());
        for key in keys {
            if !KEYS.contains(&key.as_str()) {
                return Err(format!("--as has no {key}; it has {}", KEYS.join(", ")));
            }
        }
        let of_kind = |key: &str, kinds: &[Kind], must: &str, default: &str| match json::get(&text, key) {
            Some(value) if kinds.contains(&json::kind(value)) => Ok(value.to_owned()),
            Some(value) => Err(format!("--as: {key} is {value}, but it must be {must}")),
            None => Ok(default.to_owned()),
        };
        let string = |key: &str, default: &str| {
            let value = of_kind(key, &[Kind::String], "a string", &format!("{default:?}"))?;
            let text = json::unescape(&value).ok_or_else(|| format!("--as: {key} is not valid Unicode"))?;
            Ok::<_, String>(text.into_owned())
        };
        let object = |key: &str, default: &str| of_kind(key, &[Kind::Object, Kind::Null], "an object", default);
        let namespace = match string("ns", "/")? {
            name if name.starts_with('/') => name,
            name => format!("/{name}"),
        };
        let ip = string("ip", "127.0.0.1")?;
        let ip = ip.parse::<std::net::IpAddr>().map_err(|_| format!("--as: ip is {ip:?}, which is no IP address"))?;
        let rooms = of_kind("rooms", &[Kind::Array], "an array of rooms", "[]")?;
        Ok(Client {
            namespace,
            query: query(&object("query", "{}")?)?,
            auth: json::get(&text, "auth").unwrap_or("null").to_owned(),
            claims: object("claims", "null")?,
            ip: ip.to_canonical().to_string(),
            sid: string("sid", SID)?,
            state: object("state", "{}")?,
            rooms: json::elements(&rooms).map(|room| plain("rooms", room)).collect::<Result<_, _>>()?,
        })
    }
}

/// In an address everything is text: `{"trainNo":12658}` stands for `?trainNo=12658`.
fn query(object: &str) -> Result<Vec<Pair>, String> {
    if json::kind(object) == Kind::Null {
        return Ok(Vec::new());
    }
    let pair = |(key, value)| Ok((plain("query", key)?.into(), plain("query", value)?.into()));
    json::members(object).map(pair).collect()
}

fn plain(what: &str, value: &str) -> Result<String, String> {
    match json::kind(value) {
        Kind::String => {
            json::unescape(value).map(Into::into).ok_or_else(|| format!("--as: {value} in {what} is not valid Unicode"))
        }
        Kind::Number | Kind::Bool => Ok(value.to_owned()),
        Kind::Null | Kind::Array | Kind::Object => Err(format!("--as: {value} in {what} must be a string")),
    }
}

impl Question<'_> {
    fn facts<'f>(&'f self, state: &'f State, args: &'f [&'f str]) -> Facts<'f> {
        Facts {
            namespace: &self.client.namespace,
            captures: &self.captures,
            sid: &self.client.sid,
            ip: &self.client.ip,
            query: &self.client.query,
            auth_json: &self.client.auth,
            claims_json: &self.client.claims,
            state,
            args,
        }
    }

    /// Returns whether the client is in.
    fn connect(&self, socket: &mut Socket, text: &mut String) -> bool {
        let state = State::default();
        let outcome = self.namespace.rules.on_connect(&self.facts(&state, &[]));
        match outcome.and_then(|outcome| Ok((self.settle(socket, &outcome)?, outcome))) {
            Ok((moved, outcome)) => {
                text.push_str("accepted.\n");
                self.tell(&moved, &outcome, text);
                true
            }
            Err(refusal) => {
                self.refused(&refusal, "connect", text);
                let data = refusal.data_json.as_deref().map_or(String::new(), |data| format!(", data {data}"));
                if self.is_served(EndpointKind::SocketIo) {
                    hears(text, &format!("connect_error {}{data}", shown(&refusal.reason)));
                }
                if self.is_served(EndpointKind::Raw) {
                    if refusal.own_words {
                        line(text, "raw: hears", &format!("error {}", complaint(&refusal, None)));
                    }
                    let why = if refusal.own_words { &refusal.reason } else { "refused" };
                    line(text, "raw: closed", &format!("4403 {}", shown(why)));
                }
                false
            }
        }
    }

    /// Says what a client hears that has not the token that it needs.
    fn refuse_token(&self, error: TokenError, text: &mut String) {
        let (reason, code) = (shown(&error.to_string()), error.label());
        let _ = writeln!(text, "refused: {error}.");
        if self.is_served(EndpointKind::SocketIo) {
            hears(text, &format!("connect_error {reason}, data {{\"code\":\"{code}\"}}"));
        }
        if self.is_served(EndpointKind::Raw) {
            line(text, "raw: hears", &format!("error {{\"message\":{reason},\"data\":{{\"code\":\"{code}\"}}}}"));
            line(text, "raw: closed", &format!("4401 {reason}"));
        }
    }

    /// What has happened since, says the question.
    fn meanwhile(&self, socket: &mut Socket) -> Result<(), String> {
        socket.state = socket.state.updated(&self.client.state).ok_or_else(|| {
            format!("--as: with this state the socket keeps more than {} bytes, which it never can", State::BYTES_MAX)
        })?;
        for room in &self.client.rooms {
            let name = self.room_name(room).map_err(|error| format!("--as: in rooms {room:?}: {error}"))?;
            if !socket.rooms.contains(&name) {
                socket.rooms.push(name);
            }
        }
        let max = self.config.limits.rooms_per_socket_max;
        if socket.rooms.len() > max {
            return Err(format!("--as: these are {} rooms; a socket can be in {max}", socket.rooms.len()));
        }
        Ok(())
    }

    fn event(&self, name: &str, args: &[String], socket: &mut Socket, text: &mut String) {
        let rules = &self.namespace.rules;
        let _ = write!(text, "It says {name:?}{}: ", args.iter().map(|arg| format!(" {arg}")).collect::<String>());
        if !rules.is_known(name) && rules.unknown_events() == UnknownEvents::Ignore {
            text.push_str("ignored, as no rule is for this event.\n");
            return;
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let state = socket.state.clone();
        let outcome = rules.on_event(name, &self.facts(&state, &args));
        match outcome.and_then(|outcome| Ok((self.settle(socket, &outcome)?, outcome))) {
            Ok((moved, outcome)) => {
                text.push_str("accepted.\n");
                self.tell(&moved, &outcome, text);
            }
            Err(refusal) => {
                self.refused(&refusal, "on", text);
                let complaint = complaint(&refusal, Some(name));
                hears(text, &format!("error {complaint}"));
                if self.is_served(EndpointKind::SocketIo) {
                    acknowledged(text, &format!("{{\"error\":{complaint}}}"));
                }
                line(text, "changes", "nothing else");
            }
        }
    }

    /// Moves the socket as a shard would: all or nothing.
    fn settle(&self, socket: &mut Socket, outcome: &Outcome) -> Result<Moved, Refusal> {
        let joins = outcome.joins().map(|name| self.named(name)).collect::<Result<Vec<String>, Refusal>>()?;
        let ends = |name: &String| outcome.leaves(name);
        let (left, stays): (Vec<String>, Vec<String>) = socket.rooms.iter().cloned().partition(ends);
        let (already, joined): (Vec<String>, Vec<String>) = joins.into_iter().partition(|name| stays.contains(name));
        let (after, max) = (stays.len() + joined.len(), self.config.limits.rooms_per_socket_max);
        if after > max {
            return Err(Refusal::too_many_rooms(after, max));
        }
        let (snapshots, values) = self.snapshots(outcome, &joined, &already)?;
        self.check_emits(outcome)?;
        socket.rooms = [stays, joined.clone()].concat();
        let state = outcome.state.clone().filter(|state| *state != socket.state);
        if let Some(state) = &state {
            socket.state = state.clone();
        }
        let rooms = socket.rooms.clone();
        let state = state.map(|state| state.as_json().to_owned());
        Ok(Moved { left, already, joined, rooms, state, snapshots, values })
    }

    /// The rooms whose kept events follow the replies, and for each room whose kept values stand in them what is shown
    /// in their place: only a server knows them.
    fn snapshots(
        &self,
        outcome: &Outcome,
        joined: &[String],
        already: &[String],
    ) -> Result<(Vec<String>, Vec<String>), Refusal> {
        let names =
            |rooms: &[String]| rooms.iter().map(|room| self.named(room)).collect::<Result<Vec<String>, Refusal>>();
        let mut events = names(&outcome.snapshots)?;
        events.retain(|room| joined.contains(room) || already.contains(room));
        let values = names(&outcome.values)?.iter().map(|room| format!("[what {room} keeps]")).collect();
        Ok((events, values))
    }

    /// What a shard asks of the events that rules send.
    fn check_emits(&self, outcome: &Outcome) -> Result<(), Refusal> {
        for emit in &outcome.emits {
            for room in emit.rooms.iter().flatten() {
                self.named(room)?;
            }
            emit.check_key()?;
        }
        Ok(())
    }

    /// A room's name in a rule, if it is one.
    fn named(&self, name: &str) -> Result<String, Refusal> {
        self.room_name(name).map_err(Refusal::new)
    }

    fn room_name(&self, name: &str) -> Result<String, String> {
        let name = RoomName::new(name, self.config.limits.room_name_bytes_max).map_err(|error| error.to_string())?;
        Ok(name.as_str().to_owned())
    }

    fn tell(&self, moved: &Moved, outcome: &Outcome, text: &mut String) {
        for (what, rooms) in [("leaves", &moved.left), ("joins", &moved.joined), ("is already in", &moved.already)] {
            if !rooms.is_empty() {
                line(text, what, &rooms.join(", "));
            }
        }
        for reply in &outcome.replies {
            hears(text, &event_shown(reply, &moved.values));
        }
        if let Some(Args { json, .. }) = &outcome.ack
            && self.is_served(EndpointKind::SocketIo)
        {
            let json = put_snapshots(json, &moved.values);
            acknowledged(text, if json.is_empty() { "nothing" } else { &json });
        }
        if !moved.snapshots.is_empty() {
            hears(text, &format!("then what {} keeps, event by event", moved.snapshots.join(", ")));
        }
        for emit in &outcome.emits {
            let rooms = emit.rooms.as_ref().map_or_else(|| "the whole namespace".to_owned(), |rooms| rooms.join(", "));
            let except = if emit.to_self { "" } else { ", itself excepted" };
            line(text, "sends", &format!("{} to {rooms}{except}", event_shown(&emit.event, &[])));
        }
        if let Some(state) = &moved.state {
            line(text, "remembered", state);
        }
        if outcome.disconnect {
            line(text, "then", "is disconnected");
        } else {
            let rooms = moved.rooms.join(", ");
            line(text, "is then in", if rooms.is_empty() { "no rooms" } else { &rooms });
        }
    }

    /// Names the rule that refuses by its place in the file.
    fn refused(&self, refusal: &Refusal, kind: &str, text: &mut String) {
        let by = refusal.rule.map_or_else(String::new, |rule| {
            let place = self.config.place_of_rule(self.index, kind, rule);
            let place = place.map_or_else(String::new, |line| format!(" in line {line}"));
            format!(" by {kind}[{rule}]{place}")
        });
        let _ = writeln!(text, "refused{by}: {}.", refusal.reason);
    }

    /// True if clients of this kind reach the namespace.
    fn is_served(&self, kind: EndpointKind) -> bool {
        let mut endpoints = self.config.endpoints().iter().filter(|endpoint| endpoint.kind == kind);
        match kind {
            EndpointKind::Raw => endpoints.any(|endpoint| endpoint.namespace() == self.client.namespace),
            _ => endpoints.next().is_some(),
        }
    }
}

/// What an outcome did to the socket.
#[derive(Debug)]
struct Moved {
    left: Vec<String>,
    joined: Vec<String>,
    /// Joined again, which is nothing.
    already: Vec<String>,
    rooms: Vec<String>,
    /// Its new state, if it changed.
    state: Option<String>,
    /// Rooms whose kept events it gets.
    snapshots: Vec<String>,
    /// What is shown for kept values, by number.
    values: Vec<String>,
}

fn event_shown(event: &Reply, values: &[String]) -> String {
    let name = json::unescape(&event.name_json).unwrap_or_default();
    format!("{name} {}", put_snapshots(&event.args_json, values)).trim_end().to_owned()
}

/// The data of the `error` event.
fn complaint(refusal: &Refusal, event: Option<&str>) -> String {
    let event = event.map_or_else(String::new, |event| format!(",\"event\":{}", shown(event)));
    let data = refusal.data_json.as_deref().map_or_else(String::new, |data| format!(",\"data\":{data}"));
    format!("{{\"message\":{}{event}{data}}}", shown(&refusal.reason))
}

/// A text as JSON.
fn shown(text: &str) -> String {
    let mut out = String::new();
    json::escape_into(&mut out, text);
    out
}

fn line(text: &mut String, what: &str, rest: &str) {
    let _ = writeln!(text, "  {what:<14}{rest}");
}

fn hears(text: &mut String, what: &str) {
    line(text, "hears", what);
}

fn acknowledged(text: &mut String, what: &str) {
    line(text, "acknowledged", &format!("{what}, if it asks for that"));
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"
[limits]
rooms_per_socket_max = 3
room_name_bytes_max = 20

[[endpoint]]
kind = "socket.io"

[[endpoint]]
kind = "raw"
namespace = "/seats"

[[namespace]]
name = "/seats"

[[namespace.connect]]
when = "claims.role == 'ADMIN'"
join = ["admin"]
set = { role = "ADMIN" }
reply = { event = "welcome", data = { sid = "{sid}", ip = "{ip}" } }

[[namespace.connect]]
when = "has(query.trainNo)"
allow = "query.trainNo in claims.trains"
error = { message = "Not your train", data = { trainNo = "{query.trainNo}" } }
join = ["train_{query.trainNo}"]

[[namespace.on]]
event = "move"
leave = ["r:*"]
join = ["r:{data.to}"]
set = { at = "{data.to}" }
reply = { event = "moved", args = ["{data.to}", 2] }
ack = [{ ok = true }]

[[namespace.on]]
event = "more"
join = ["a", "b", "c"]

[[namespace.on]]
event = "list"
reply = { event = "back", args = "{args}" }

[[namespace.on]]
event = "watch"
join = ["s:{data}"]
snapshot = true
emit = { rooms = ["s:{data}", "log"], event = "watches", data = { sid = "{sid}" }, to_self = false }

[[namespace.on]]
event = "look"
snapshot = "s:{data}"
reply = { event = "seen", data = { all = "{snapshot}" } }

[[namespace.on]]
event = "tag"
emit = { event = "tagged", key = "{data}" }

[[namespace.on]]
event = "where"
allow = "has(state.at)"
reply = { event = "at", data = "{state.at}" }
disconnect = true

[[namespace]]
pattern = "/w-(?<id>[0-9]+)"
unknown_events = "ignore"

[[namespace.connect]]
join = ["{captures.id}"]
"#;

    fn ask(client: &str, event: Option<&str>, data: Option<&str>, args: Option<&str>) -> Result<String, String> {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let (client, event, data, args) = (Some(client.to_owned()), owned(event), owned(data), owned(args));
        let check = Check { file: "f".into(), client, event, data, args };
        let config = Config::parse(CONFIG, "f").unwrap();
        let said = answer(&check, &config, None)?;
        let note = "Without any [[auth.key]] no client has claims; as if these were of a token that is valid:\n";
        Ok(said.strip_prefix(note).unwrap_or(&said).to_owned())
    }

    #[test]
    fn connecting() {
        for (client, expected) in [
            (
                r#"{"ns":"/seats","claims":{"role":"ADMIN","trains":["7"]},"query":{"trainNo":7},
                    "ip":"::ffff:10.0.0.1"}"#,
                r#"A client at 10.0.0.1 connects to /seats: accepted.
  joins         admin, train_7
  hears         welcome {"sid":"exampleSid0123456789","ip":"10.0.0.1"}
  remembered    {"role":"ADMIN"}
  is then in    admin, train_7
"#,
            ),
            (
                r#"{"ns":"seats","claims":{"trains":[]},"query":{"trainNo":"7"}}"#,
                r#"A client at 127.0.0.1 connects to /seats: refused by connect[1] in line 22: Not your train.
  hears         connect_error "Not your train", data {"trainNo":"7"}
  raw: hears    error {"message":"Not your train","data":{"trainNo":"7"}}
  raw: closed   4403 "Not your train"
"#,
            ),
            (
                r#"{"ns":"/seats","claims":{"trains":["123456789012345"]},
                    "query":{"trainNo":"123456789012345"}}"#,
                "A client at 127.0.0.1 connects to /seats: refused: the room name has 21 bytes; \
                 at most 20 are allowed.\n  \
                 hears         connect_error \"the room name has 21 bytes; at most 20 are allowed\"\n  \
                 raw: closed   4403 \"refused\"\n",
            ),
            (
                r#"{"ns":"/w-12"}"#,
                "A client at 127.0.0.1 connects to /w-12: accepted.\n  joins         12\n  is then in    12\n",
            ),
            (
                r#"{"ns":"/w-x"}"#,
                "A client at 127.0.0.1 connects to /w-x: refused, as the config has no such namespace.\n  \
                 hears         connect_error \"Invalid namespace\"\n",
            ),
            ("{}", "A client at 127.0.0.1 connects to /: accepted.\n  is then in    no rooms\n"),
        ] {
            assert_eq!(ask(client, None, None, None).unwrap(), expected, "{client}");
        }
    }

    #[test]
    fn events() {
        const SEATS: &str = r#"{"ns":"/seats"}"#;
        for (client, event, data, args, expected) in [
            (
                r#"{"ns":"/seats","claims":{"role":"ADMIN"},"rooms":["r:1","x"]}"#,
                "move",
                Some(r#"{"to":2}"#),
                None,
                r#"It says "move" {"to":2}: accepted.
  leaves        r:1
  joins         r:2
  hears         moved 2,2
  acknowledged  {"ok":true}, if it asks for that
  remembered    {"role":"ADMIN","at":2}
  is then in    admin, x, r:2
"#,
            ),
            (
                r#"{"ns":"/seats","state":{"at":2},"rooms":["r:2"]}"#,
                "move",
                Some(r#"{"to":2}"#),
                None,
                r#"It says "move" {"to":2}: accepted.
  is already in r:2
  hears         moved 2,2
  acknowledged  {"ok":true}, if it asks for that
  is then in    r:2
"#,
            ),
            (
                r#"{"ns":"/seats","rooms":["x"]}"#,
                "more",
                None,
                None,
                "It says \"more\": refused: this would make 4 rooms; a socket can be in 3.\n  \
                 hears         error {\"message\":\"this would make 4 rooms; a socket can be in 3\",\
                 \"event\":\"more\"}\n  \
                 acknowledged  {\"error\":{\"message\":\"this would make 4 rooms; a socket can be in 3\",\
                 \"event\":\"more\"}}, if it asks for that\n  \
                 changes       nothing else\n",
            ),
            (
                SEATS,
                "move",
                Some("{}"),
                None,
                r#"It says "move" {}: refused by on[0] in line 28: data.to is missing.
  hears         error {"message":"data.to is missing","event":"move"}
  acknowledged  {"error":{"message":"data.to is missing","event":"move"}}, if it asks for that
  changes       nothing else
"#,
            ),
            (
                SEATS,
                "list",
                None,
                Some(r#"[1, "two"]"#),
                "It says \"list\" 1 \"two\": accepted.\n  hears         back 1,\"two\"\n  is then in    no rooms\n",
            ),
            (
                r#"{"ns":"/seats","state":{"at":[1]}}"#,
                "where",
                None,
                None,
                "It says \"where\": accepted.\n  hears         at [1]\n  then          is disconnected\n",
            ),
            (
                SEATS,
                "watch",
                Some("7"),
                None,
                r#"It says "watch" 7: accepted.
  joins         s:7
  hears         then what s:7 keeps, event by event
  sends         watches {"sid":"exampleSid0123456789"} to s:7, log, itself excepted
  is then in    s:7
"#,
            ),
            (
                SEATS,
                "look",
                Some("7"),
                None,
                "It says \"look\" 7: accepted.\n  hears         seen {\"all\":[what s:7 keeps]}\n  \
                 is then in    no rooms\n",
            ),
            (
                SEATS,
                "tag",
                Some(r#""""#),
                None,
                "It says \"tag\" \"\": refused: the event's key has 0 bytes; it needs 1 to 200.\n  \
                 hears         error {\"message\":\"the event's key has 0 bytes; it needs 1 to 200\",\
                 \"event\":\"tag\"}\n  \
                 acknowledged  {\"error\":{\"message\":\"the event's key has 0 bytes; it needs 1 to 200\",\
                 \"event\":\"tag\"}}, if it asks for that\n  \
                 changes       nothing else\n",
            ),
            (
                SEATS,
                "nothing",
                None,
                None,
                r#"It says "nothing": refused: no rule allows this.
  hears         error {"message":"no rule allows this","event":"nothing"}
  acknowledged  {"error":{"message":"no rule allows this","event":"nothing"}}, if it asks for that
  changes       nothing else
"#,
            ),
            (r#"{"ns":"/w-1"}"#, "x", None, None, "It says \"x\": ignored, as no rule is for this event.\n"),
        ] {
            let said = ask(client, Some(event), data, args).unwrap();
            let said = &said[said.find("It says").unwrap()..];
            assert_eq!(said, expected, "{client} {event}");
        }
    }

    #[test]
    fn tokens_are_asked_for() {
        let key = format!("{}/examples/keys/demo-hs256.secret", env!("CARGO_MANIFEST_DIR"));
        let auth = format!(
            "[auth]\nrequire = true\nrefresh_event = 'refresh'\n[[auth.key]]\nalgorithm = 'HS256'\nfile = '{key}'\n"
        );
        let config = Config::parse(&format!("{auth}{CONFIG}"), "f").unwrap();
        let (identity, _) = config.identity().unwrap().unwrap();
        let ask = |client: &str, event: Option<&str>| {
            let (client, event) = (Some(client.to_owned()), event.map(str::to_owned));
            let check = Check { file: "f".into(), client, event, data: None, args: None };
            answer(&check, &config, Some(&identity)).unwrap()
        };
        assert_eq!(
            ask(r#"{"ns":"/seats","auth":{"token":"x"}}"#, None),
            r#"A client at 127.0.0.1 connects to /seats: refused: a token is required.
  hears         connect_error "a token is required", data {"code":"token_missing"}
  raw: hears    error {"message":"a token is required","data":{"code":"token_missing"}}
  raw: closed   4401 "a token is required"
"#
        );
        assert!(ask(r#"{"ns":"/seats","claims":{}}"#, None).contains("accepted"));
        assert!(ask(r#"{"ns":"/seats","claims":{}}"#, Some("refresh")).ends_with("which only a server can judge.\n"));
    }

    #[test]
    fn questions_that_make_no_sense() {
        for (client, event, data, args, error) in [
            ("{", None, None, None, "--as {: not JSON"),
            ("[]", None, None, None, "--as []: not an object"),
            (r#"{"claim":{}}"#, None, None, None, "--as has no claim; it has ns, claims"),
            (r#"{"claims":1}"#, None, None, None, "claims is 1, but it must be an object"),
            (r#"{"query":{"a":[]}}"#, None, None, None, "[] in query must be a string"),
            (r#"{"ip":"here"}"#, None, None, None, "ip is \"here\", which is no IP address"),
            (r#"{"rooms":["a","b","c","d"]}"#, Some("e"), None, None, "these are 4 rooms; a socket can be in 3"),
            (r#"{"rooms":[""]}"#, Some("e"), None, None, "in rooms \"\""),
            ("{}", None, Some("1"), None, "name it with --event"),
            ("{}", None, None, Some("[]"), "name it with --event"),
            ("{}", Some("e"), Some("1"), Some("[]"), "either it or --args"),
            ("{}", Some("e"), Some("{"), None, "--data {: not JSON"),
            ("{}", Some("e"), None, Some("{}"), "--args {}: not an array"),
        ] {
            let said = ask(client, event, data, args).unwrap_err();
            assert!(said.contains(error), "{client}: {said}");
        }
    }
}
