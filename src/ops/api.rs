//! The HTTP API: requests become lines for the cores, receipts become responses. Does not know connections, nor who may
//! ask; `openapi.json` describes it, and tests hold both to each other.

use super::clerk::Clerk;
use super::reply::{Reply, quoted};
use crate::proto::http::query_pairs;
use crate::proto::json::{self, Kind};
use std::borrow::Cow;
use std::rc::Rc;

/// The description of the API, OpenAPI 3.1.
pub const OPENAPI: &str = include_str!("openapi.json");

/// Objects in one array: their receipts are put together in memory.
pub const OBJECTS_MAX: usize = 1000;
/// As many objects of the largest size fit into one body.
pub const LARGE_OBJECTS_MAX: usize = 4;
/// Bytes of a client's own id: as many as a line's.
const ID_BYTES_MAX: usize = 256;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Send one event or many.
    Emit,
    /// Change who is where: the line's op.
    Operate(&'static str),
    /// How much there is of everything.
    Stats,
    /// The rooms of a namespace.
    Rooms,
    /// One room, named by the path.
    Room,
    /// One socket, named by the path.
    Socket,
    /// The rooms that get most.
    Top,
    /// The description of the API.
    OpenApi,
}

/// A request's method, its path, whose last part may stand for any text, and what it asks for.
pub const ROUTES: [(&str, &str, Call); 10] = [
    ("POST", "/api/emit", Call::Emit),
    ("POST", "/api/join", Call::Operate("join")),
    ("POST", "/api/leave", Call::Operate("leave")),
    ("POST", "/api/disconnect", Call::Operate("disconnect")),
    ("GET", "/api/stats", Call::Stats),
    ("GET", "/api/rooms", Call::Rooms),
    ("GET", "/api/rooms/{room}", Call::Room),
    ("GET", "/api/sockets/{sid}", Call::Socket),
    ("GET", "/api/top", Call::Top),
    ("GET", "/api/openapi.json", Call::OpenApi),
];

/// Finds the route of `path`: its method, what it asks for, and the text that its last part stands for, as it was sent.
#[must_use]
pub fn route(path: &str) -> Option<(&'static str, Call, &str)> {
    ROUTES.iter().find_map(|(method, template, call)| match template.split_once('{') {
        None => (*template == path).then_some((*method, *call, "")),
        Some((before, _)) => {
            let rest = path.strip_prefix(before).filter(|rest| !rest.is_empty())?;
            Some((*method, *call, rest))
        }
    })
}

/// Answers the API's requests.
#[derive(Clone, Debug)]
pub struct Api {
    /// Speaks with the cores.
    pub clerk: Rc<Clerk>,
    /// Longest line that the cores take.
    pub line_bytes_max: usize,
}

/// A request whose body is here.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// See [`route`].
    pub rest: &'a str,
    /// Not decoded.
    pub query: &'a str,
    /// Empty if there is none.
    pub body: &'a [u8],
}

/// One line's receipt: what it says after the id, and the id that the client gave.
struct Told {
    members: String,
    id: Option<String>,
}

impl Told {
    fn is_ok(&self) -> bool {
        self.members.starts_with("\"ok\":true")
    }

    /// As JSON, with the client's id if it gave one.
    fn json(&self) -> String {
        match &self.id {
            Some(id) => format!("{{\"id\":{id},{}", self.members),
            None => format!("{{{}", self.members),
        }
    }
}

impl Api {
    /// Longest body of a request.
    #[must_use]
    pub fn body_bytes_max(&self, call: Call) -> usize {
        match call {
            Call::Emit => self.line_bytes_max.saturating_mul(LARGE_OBJECTS_MAX),
            Call::Operate(_) => self.line_bytes_max,
            _ => 0,
        }
    }

    /// Does what is asked for.
    pub async fn serve(&self, call: Call, request: Request<'_>) -> Reply {
        let served = match call {
            Call::Emit => self.emit(request.body).await,
            Call::Operate(op) => self.operate(op, request.body).await,
            Call::Stats => self.query("stats", request, &["ns"]).await,
            Call::Rooms => self.query("rooms", request, &["ns", "prefix", "limit", "after"]).await,
            Call::Room => self.query("room", request, &["ns"]).await,
            Call::Socket => self.query("socket", request, &["ns"]).await,
            Call::Top => self.query("top", request, &["by", "limit"]).await,
            Call::OpenApi => Ok(Reply::json(200, OPENAPI)),
        };
        served.unwrap_or_else(|reply| reply)
    }

    async fn emit(&self, body: &[u8]) -> Result<Reply, Reply> {
        let text = valid(body)?;
        match json::kind(text) {
            Kind::Object => self.one(text, "emit").await,
            Kind::Array if json::elements(text).count() > OBJECTS_MAX => {
                let message = format!("the array has more than {OBJECTS_MAX} objects; send several requests");
                Err(Reply::error(413, &message))
            }
            Kind::Array => self.many(text).await,
            kind => Err(Reply::error(400, &format!("the body must be an object or an array of objects, not {kind}"))),
        }
    }

    async fn operate(&self, op: &'static str, body: &[u8]) -> Result<Reply, Reply> {
        let text = valid(body)?;
        match json::kind(text) {
            Kind::Object => self.one(text, op).await,
            kind => Err(Reply::error(400, &format!("the body must be an object, not {kind}"))),
        }
    }

    /// One object: its receipt is the body.
    async fn one(&self, object: &str, op: &'static str) -> Result<Reply, Reply> {
        let line = self.line_of(object, op)?;
        let told = self.ask(line).await?;
        Ok(Reply::json(if told.is_ok() { 200 } else { 400 }, told.json()))
    }

    /// An array of objects: all are sent, then their receipts come, in order. A bad one disturbs no other.
    async fn many(&self, array: &str) -> Result<Reply, Reply> {
        let asked: Vec<_> = json::elements(array)
            .map(|object| self.line_of(object, "emit").map(|line| (self.clerk.ask(&line.rest), line.id)))
            .collect();
        let (mut all_ok, mut results) = (true, Vec::new());
        for asked in asked {
            match asked {
                Ok((receipt, id)) => {
                    let told = Told { members: without_line(receipt.await.ok_or_else(stopping)?), id };
                    all_ok &= told.is_ok();
                    results.push(told.json());
                }
                Err(reply) => {
                    all_ok = false;
                    results.push(reply.body);
                }
            }
        }
        Ok(Reply::json(200, format!("{{\"ok\":{all_ok},\"results\":[{}]}}", results.join(","))))
    }

    async fn query(&self, op: &str, request: Request<'_>, parameters: &[&str]) -> Result<Reply, Reply> {
        let mut rest = format!("\"op\":\"{op}\"");
        if !request.rest.is_empty() {
            let name = decoded(request.rest).ok_or_else(|| {
                Reply::error(400, "the path is not valid: its last part must be percent-encoded UTF-8")
            })?;
            let key = if op == "room" { "room" } else { "sid" };
            rest.push_str(&format!(",\"{key}\":{}", quoted(&name)));
        }
        let mut seen: Vec<Cow<'_, str>> = Vec::new();
        for (name, value) in query_pairs(request.query) {
            if !parameters.contains(&&*name) || seen.contains(&name) {
                let known = parameters.join(", ");
                let message = format!("the parameter {} is unknown, or there twice; there are {known}", quoted(&name));
                return Err(Reply::error(400, &message));
            }
            let is_number = !value.is_empty() && value.bytes().all(|digit| digit.is_ascii_digit());
            let value = match &*name {
                // A number with a zero before it is none in JSON.
                "limit" if is_number && (!value.starts_with('0') || value == "0") => value.into_owned(),
                _ => quoted(&value),
            };
            rest.push_str(&format!(",\"{name}\":{value}"));
            seen.push(name);
        }
        rest.push('}');
        self.check_length(&rest)?;
        let told = self.ask(Line { rest, id: None }).await?;
        let nothing = told.members == format!("\"ok\":true,\"{op}\":null}}");
        match (told.is_ok(), nothing, op) {
            (true, true, "room") => Err(Reply::error(404, "nobody is in that room, and nothing was sent to it lately")),
            (true, true, _) => Err(Reply::error(404, "there is no such socket in the namespace")),
            (is_ok, ..) => Ok(Reply::json(if is_ok { 200 } else { 400 }, told.json())),
        }
    }

    /// Sends one line and waits for its receipt's members.
    pub(super) async fn tell(&self, rest: String) -> Result<String, Reply> {
        self.check_length(&rest)?;
        self.ask(Line { rest, id: None }).await.map(|told| told.members)
    }

    async fn ask(&self, Line { rest, id }: Line) -> Result<Told, Reply> {
        let members = self.clerk.ask(&rest).await.ok_or_else(stopping)?;
        Ok(Told { members: without_line(members), id })
    }

    /// The line for one object of a body.
    fn line_of(&self, object: &str, op: &str) -> Result<Line, Reply> {
        let kind = json::kind(object);
        if kind != Kind::Object {
            return Err(Reply::error(
                400,
                &format!("an event must be an object such as {{\"event\":\"hello\"}}, not {kind}"),
            ));
        }
        let mut rest = format!("\"op\":\"{op}\"");
        let (mut id, mut has_op) = (None, false);
        for (key, value) in json::members(object) {
            let twice = if json::spells(key, "id") {
                id.replace(value).is_some()
            } else if json::spells(key, "op") {
                if !json::spells(value, op) {
                    return Err(Reply::error(400, &format!("\"op\" must be left out or {}", quoted(op))));
                }
                std::mem::replace(&mut has_op, true)
            } else {
                rest.push(',');
                rest.push_str(key);
                rest.push(':');
                rest.push_str(value);
                false
            };
            if twice {
                return Err(Reply::error(400, &format!("the key {key} occurs twice; keep one of them")));
            }
        }
        if let Some(id) = id {
            let is_id = json::kind(id) == Kind::String || id.bytes().all(|b| b.is_ascii_digit() || b == b'-');
            if !is_id || id.len() > ID_BYTES_MAX {
                let message = format!("\"id\" must be a string or an integer of at most {ID_BYTES_MAX} bytes");
                return Err(Reply::error(400, &message));
            }
        }
        rest.push('}');
        // In valid JSON a line break is space between values: in a string it would be escaped.
        let rest = if rest.contains(['\n', '\r']) { rest.replace(['\n', '\r'], " ") } else { rest };
        self.check_length(&rest)?;
        Ok(Line { rest, id: id.map(str::to_owned) })
    }

    /// A line that is too long would be answered without its id: nobody could tell whose answer that is.
    fn check_length(&self, rest: &str) -> Result<(), Reply> {
        if rest.len() + Clerk::ID_BYTES_MAX > self.line_bytes_max {
            let max = self.line_bytes_max;
            let message = format!("as a line this has more than {max} bytes; send less or raise ingest.line_bytes_max");
            return Err(Reply::error(413, &message));
        }
        Ok(())
    }
}

/// A line for the clerk, and the id that the client gave.
struct Line {
    rest: String,
    id: Option<String>,
}

fn stopping() -> Reply {
    Reply::error(503, "the server is shutting down")
}

fn valid(body: &[u8]) -> Result<&str, Reply> {
    json::validate(body, &mut json::Scratch::default())
        .map_err(|error| Reply::error(400, &format!("the body is not valid JSON: {error}")))
}

/// An error tells its line's number, which means nothing here.
fn without_line(mut members: String) -> String {
    if members.starts_with("\"ok\":false")
        && let Some(at) = members.rfind(",\"line\":")
    {
        members.replace_range(at..members.len() - 1, "");
    }
    members
}

/// A part of a path, percent-decoded (RFC 3986, section 2.1); `None` if it is not the encoding of a text.
fn decoded(part: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = tail;
        bytes.push(match (byte, tail) {
            (b'%', [high, low, after @ ..]) => {
                rest = after;
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                u8::try_from(digit(high)? << 4 | digit(low)?).ok()?
            }
            (b'%', _) => return None,
            (byte, _) => *byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future;

    /// What the API answers, and the lines that it asks, whose receipts `told` are in turn.
    fn exchange(call: Call, request: Request<'_>, told: &[&str]) -> (u16, String, String) {
        let api = Api { clerk: Rc::new(Clerk::default()), line_bytes_max: 200 };
        let answers = future::or(async { Some(api.serve(call, request).await) }, async {
            let mut asked = String::new();
            while let Some(lines) = future::poll_fn(|context| api.clerk.poll_lines(context)).await {
                let first = asked.lines().count();
                asked += std::str::from_utf8(&lines).unwrap();
                for (number, told) in told.iter().enumerate().take(asked.lines().count()).skip(first) {
                    api.clerk.received(format!("{{\"id\":{},{told}\n", number + 1).as_bytes());
                }
                LINES.with(|all| all.replace(asked.clone()));
            }
            None
        });
        LINES.with(|all| all.take());
        let reply = future::block_on(answers).unwrap();
        (reply.status, reply.body, LINES.with(|all| all.take()))
    }

    thread_local! {
        static LINES: std::cell::RefCell<String> = const { std::cell::RefCell::new(String::new()) };
    }

    #[test]
    fn bodies_become_lines_and_receipts_answers() {
        let ok = "\"ok\":true,\"offset\":7}";
        let bad = "\"ok\":false,\"error\":\"no, \\\"line\\\":3\",\"line\":12}";
        let refused = "\"ok\":false,\"error\":\"no, \\\"line\\\":3\"}";
        let long = format!("{{\"event\":\"e\",\"data\":\"{}\"}}", "x".repeat(200));
        let error = |message: &str| Reply::error(400, message).body;
        let too_long = error("as a line this has more than 200 bytes; send less or raise ingest.line_bytes_max");
        let twice = |key: &str| error(&format!("the key \"{key}\" occurs twice; keep one of them"));
        // (what, body, receipts, status, answer, lines)
        for (call, body, told, status, answer, lines) in [
            (
                Call::Emit,
                "{\"event\":\"e\"}",
                &[ok][..],
                200,
                format!("{{{ok}"),
                "{\"id\":1,\"op\":\"emit\",\"event\":\"e\"}\n",
            ),
            (
                Call::Emit,
                " {\r\n \"id\" : \"a\\\"\", \"op\":\"emit\", \"event\":\"e\", \"data\": [\n1 , 2.0] }\n",
                &[ok],
                200,
                format!("{{\"id\":\"a\\\"\",{ok}"),
                "{\"id\":1,\"op\":\"emit\",\"event\":\"e\",\"data\":[ 1 , 2.0]}\n",
            ),
            (
                Call::Emit,
                "{\"event\":7,\"id\":-5}",
                &[bad],
                400,
                format!("{{\"id\":-5,{refused}"),
                "{\"id\":1,\"op\":\"emit\",\"event\":7}\n",
            ),
            (Call::Emit, "[]", &[], 200, "{\"ok\":true,\"results\":[]}".into(), ""),
            (
                Call::Emit,
                "[{\"event\":\"a\",\"id\":5},7,{\"event\":\"b\"},{\"id\":1,\"\\u0069d\":2}]",
                &[ok, bad],
                200,
                format!(
                    "{{\"ok\":false,\"results\":[{{\"id\":5,{ok},{{\"ok\":false,\"error\":\"an event must be an object \
                     such as {{\\\"event\\\":\\\"hello\\\"}}, not a number\"}},{{{refused},{}]}}",
                    twice("\\u0069d")
                ),
                "{\"id\":1,\"op\":\"emit\",\"event\":\"a\"}\n{\"id\":2,\"op\":\"emit\",\"event\":\"b\"}\n",
            ),
            (Call::Emit, &long, &[], 413, too_long, ""),
            (Call::Emit, "{\"id\":1,\"id\":1}", &[], 400, twice("id"), ""),
            (Call::Emit, "{\"op\":\"emit\",\"op\":\"emit\"}", &[], 400, twice("op"), ""),
            (
                Call::Emit,
                "{\"op\":\"join\"}",
                &[],
                400,
                "{\"ok\":false,\"error\":\"\\\"op\\\" must be left out or \\\"emit\\\"\"}".into(),
                "",
            ),
            (
                Call::Emit,
                "{\"id\":null}",
                &[],
                400,
                "{\"ok\":false,\"error\":\"\\\"id\\\" must be a string or an integer of at most 256 bytes\"}".into(),
                "",
            ),
            (
                Call::Emit,
                "{a}",
                &[],
                400,
                error("the body is not valid JSON: expected a key in double quotes or '}', found 'a' at byte 1"),
                "",
            ),
            (
                Call::Operate("join"),
                "{\"where\":{\"all\":true},\"rooms\":[\"a\"]}",
                &["\"ok\":true,\"sockets\":0}"],
                200,
                "{\"ok\":true,\"sockets\":0}".into(),
                "{\"id\":1,\"op\":\"join\",\"where\":{\"all\":true},\"rooms\":[\"a\"]}\n",
            ),
            (
                Call::Operate("leave"),
                "[]",
                &[],
                400,
                "{\"ok\":false,\"error\":\"the body must be an object, not an array\"}".into(),
                "",
            ),
        ] {
            let request = Request { rest: "", query: "", body: body.as_bytes() };
            assert_eq!(exchange(call, request, told), (status, answer, lines.to_owned()), "{body}");
        }
        let many = format!("[{}{{}}]", "{},".repeat(OBJECTS_MAX));
        assert_eq!(exchange(Call::Emit, Request { rest: "", query: "", body: many.as_bytes() }, &[]).0, 413);
    }

    #[test]
    fn paths_and_parameters_become_lines() {
        let rooms = "\"ok\":true,\"rooms\":[],\"next\":null}";
        let bad = "\"ok\":false,\"error\":\"no\",\"line\":12}";
        // (what, the path's last part, query, receipt, status, line)
        for (call, rest, query, told, status, line) in [
            (Call::Stats, "", "", "\"ok\":true,\"stats\":{}}", 200, "\"op\":\"stats\"}"),
            (Call::Stats, "", "ns=%2Fa", "\"ok\":true,\"stats\":{}}", 200, "\"op\":\"stats\",\"ns\":\"/a\"}"),
            (
                Call::Rooms,
                "",
                "prefix=a+%22b&limit=10&after=x%3A1&ns=/",
                rooms,
                200,
                "\"op\":\"rooms\",\"prefix\":\"a \\\"b\",\"limit\":10,\"after\":\"x:1\",\"ns\":\"/\"}",
            ),
            (Call::Rooms, "", "limit=010", bad, 400, "\"op\":\"rooms\",\"limit\":\"010\"}"),
            (Call::Rooms, "", "limit=", bad, 400, "\"op\":\"rooms\",\"limit\":\"\"}"),
            (Call::Rooms, "", "limit=1&limit=2", "", 400, ""),
            (Call::Rooms, "", "room=1", "", 400, ""),
            (
                Call::Room,
                "route%3A7/x%20+",
                "",
                "\"ok\":true,\"room\":{}}",
                200,
                "\"op\":\"room\",\"room\":\"route:7/x +\"}",
            ),
            (Call::Top, "", "", "\"ok\":true,\"by\":\"deliveries\"}", 200, "\"op\":\"top\"}"),
            (Call::Top, "", "by=lag&limit=5", "\"ok\":true}", 200, "\"op\":\"top\",\"by\":\"lag\",\"limit\":5}"),
            (Call::Top, "", "ns=/", "", 400, ""),
            (Call::Room, "a", "", "\"ok\":true,\"room\":null}", 404, "\"op\":\"room\",\"room\":\"a\"}"),
            (Call::Room, "%", "", "", 400, ""),
            (Call::Room, "%4", "", "", 400, ""),
            (Call::Room, "%+1", "", "", 400, ""),
            (Call::Room, "%ff", "", "", 400, ""),
            (Call::Room, &"a".repeat(200), "", "", 413, ""),
            (
                Call::Socket,
                "s",
                "ns=/a",
                "\"ok\":true,\"socket\":null}",
                404,
                "\"op\":\"socket\",\"sid\":\"s\",\"ns\":\"/a\"}",
            ),
        ] {
            let (is, _, lines) = exchange(call, Request { rest, query, body: b"" }, &[told]);
            let expected = if line.is_empty() { String::new() } else { format!("{{\"id\":1,{line}\n") };
            assert_eq!((is, lines), (status, expected), "{rest} {query}");
        }
    }

    #[test]
    fn routes() {
        for (path, found) in [
            ("/api/emit", Some(("POST", Call::Emit, ""))),
            ("/api/rooms", Some(("GET", Call::Rooms, ""))),
            ("/api/rooms/a/b", Some(("GET", Call::Room, "a/b"))),
            ("/api/rooms/", None),
            ("/api/emit/", None),
            ("/api", None),
        ] {
            assert_eq!(route(path), found, "{path}");
        }
    }

    #[test]
    fn the_description_has_every_route_and_no_other() {
        let described: serde_json::Value = serde_json::from_str(OPENAPI).unwrap();
        assert_eq!(described["info"]["version"], env!("CARGO_PKG_VERSION"));
        let mut described: Vec<(String, String)> = described["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, item)| {
                let methods = item.as_object().unwrap().keys().filter(|key| *key != "parameters");
                methods.map(move |method| (method.to_uppercase(), path.clone()))
            })
            .collect();
        let others = super::super::site::OTHERS.iter().map(|path| ("GET", *path));
        let routes = ROUTES.iter().map(|(method, path, _)| (*method, *path)).chain(others);
        let mut routes: Vec<(String, String)> = routes.map(|(m, p)| (m.to_owned(), p.to_owned())).collect();
        described.sort();
        routes.sort();
        assert_eq!(described, routes);
    }
}
