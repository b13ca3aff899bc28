//! Raw WebSocket messages: an event as one JSON object in one text message, and back. Knows no rooms, rules or
//! sessions.
//!
//! This format is roomcast's own; DESIGN.md ("Raw WebSocket clients") and this file are its documents.

use std::borrow::Cow;
use std::fmt;

use data_encoding::BASE64;
use smallvec::SmallVec;

use super::engineio::text_frame;
use super::json;
use super::socketio::placeholders;
use crate::base::event::Event;

/// Where an event's fields stand; the operator's `raw.shape`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Shape {
    /// Under `data`: `{"type":"seat_update","data":{"seat":7}}`.
    #[default]
    Nested,
    /// Beside `type`: `{"type":"seat_update","seat":7}`.
    Flat,
}

/// Appends `event` as one unmasked WebSocket text frame.
///
/// | arguments | `Nested` | `Flat` |
/// |---|---|---|
/// | none | `{"type":"x"}` | the same |
/// | one object | `{"type":"x","data":{"a":1}}` | `{"type":"x","a":1}` |
/// | one other value | `{"type":"x","data":1}` | the same |
/// | several | `{"type":"x","args":[1,{"a":1}]}` | the same |
///
/// An attachment is written as `{"_base64":"…"}` where its placeholder stands (each time, if several do; who lets
/// clients' packets in must have checked that no two name the same). A single binary argument is "one other value".
///
/// In the flat shape an object may have a `type` of its own. If it spells the event's name, it is written once, in
/// front. If not ([`flat_conflict`]), neither may be lost nor both be written, so the event takes the nested shape.
pub fn event(out: &mut Vec<u8>, shape: Shape, event: &Event) {
    let args = inline_attachments(event.args_json(), &event.attachments);
    let args = args.trim_matches(JSON_SPACE);
    let name = event.name_json();
    match event.arg_count() {
        0 => text_frame(out, &["{\"type\":", name, "}"]),
        1 => match flat_object(event).filter(|_| shape == Shape::Flat).map(TypeMember::of(name)) {
            Some(TypeMember::Absent) => {
                let fields = args[1..args.len() - 1].trim_matches(JSON_SPACE);
                let comma = if fields.is_empty() { "" } else { "," };
                text_frame(out, &["{\"type\":", name, comma, fields, "}"]);
            }
            Some(TypeMember::SameName) => text_frame(out, &["{\"type\":", name, &without_type(args), "}"]),
            Some(TypeMember::OtherName) | None => text_frame(out, &["{\"type\":", name, ",\"data\":", args, "}"]),
        },
        _ => text_frame(out, &["{\"type\":", name, ",\"args\":[", args, "]}"]),
    }
}

/// True if the flat shape cannot hold `event` because its object has a `type` other than the event's name. A
/// publisher's event of this kind should be refused where [`Shape::Flat`] is configured.
#[must_use]
pub fn flat_conflict(event: &Event) -> bool {
    flat_object(event).map(TypeMember::of(event.name_json())) == Some(TypeMember::OtherName)
}

const JSON_SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

/// The only argument, if it is an object and not an attachment's placeholder.
fn flat_object(event: &Event) -> Option<&str> {
    let object = event.args_json().trim_matches(JSON_SPACE);
    let is_object = event.arg_count() == 1 && object.starts_with('{');
    let is_attachment = || {
        !event.attachments.is_empty()
            && placeholders(object).first().is_some_and(|placeholder| placeholder.range == (0..object.len()))
    };
    (is_object && !is_attachment()).then_some(object)
}

/// What an object says under its key `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TypeMember {
    Absent,
    SameName,
    OtherName,
}

impl TypeMember {
    /// If there are several, all of them must spell the name.
    fn of(name_json: &str) -> impl Fn(&str) -> TypeMember {
        move |object| {
            let mut found = TypeMember::Absent;
            for (_, value) in json::members(object).filter(|(key, _)| json::spells(key, "type")) {
                if value != name_json && (!value.starts_with('"') || json::unescape(value) != json::unescape(name_json))
                {
                    return TypeMember::OtherName;
                }
                found = TypeMember::SameName;
            }
            found
        }
    }
}

/// The members of `object` except `type`, a comma before each.
fn without_type(object: &str) -> String {
    let mut fields = String::with_capacity(object.len());
    for (key, value) in json::members(object).filter(|(key, _)| !json::spells(key, "type")) {
        for part in [",", key, ":", value] {
            fields.push_str(part);
        }
    }
    fields
}

/// `args_json` with `{"_base64":"…"}` for each placeholder that names one of `attachments`.
fn inline_attachments<'a>(args_json: &'a str, attachments: &[Box<[u8]>]) -> Cow<'a, str> {
    if attachments.is_empty() {
        return Cow::Borrowed(args_json);
    }
    let mut text = String::with_capacity(args_json.len());
    let mut copied = 0;
    for placeholder in placeholders(args_json) {
        let Some(bytes) = placeholder.number.and_then(|number| attachments.get(number)) else { continue };
        text.push_str(&args_json[copied..placeholder.range.start]);
        text.push_str("{\"_base64\":\"");
        BASE64.encode_append(bytes, &mut text);
        text.push_str("\"}");
        copied = placeholder.range.end;
    }
    text.push_str(&args_json[copied..]);
    Cow::Owned(text)
}

/// What a client says. Borrows from its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming<'a> {
    /// The event's name, without quotes and escapes.
    pub name: Cow<'a, str>,
    /// The arguments as raw JSON, each without whitespace around it.
    pub args: SmallVec<[&'a str; 2]>,
}

/// Why a client's message is no event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RawError {
    /// Not JSON, or nested more than [`json::DEPTH_MAX`] levels deep.
    InvalidJson(json::JsonError),
    /// JSON, but no object.
    NotAnObject,
    /// No member `type`.
    TypeMissing,
    /// `type` is something else than a string.
    TypeNotAString,
    /// `type`, `data` or `args` stands there twice: readers differ in which one they believe.
    DuplicateKey(&'static str),
    /// Nested shape: both `data` and `args`.
    DataAndArgs,
    /// Nested shape: `args` is something else than an array.
    ArgsNotAnArray,
}

impl RawError {
    /// A metrics label: one word in `snake_case`, one per variant.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            RawError::InvalidJson(_) => "invalid_json",
            RawError::NotAnObject => "not_an_object",
            RawError::TypeMissing => "type_missing",
            RawError::TypeNotAString => "type_not_a_string",
            RawError::DuplicateKey(_) => "duplicate_key",
            RawError::DataAndArgs => "data_and_args",
            RawError::ArgsNotAnArray => "args_not_an_array",
        }
    }
}

impl fmt::Display for RawError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RawError::InvalidJson(error) => write!(f, "the message is not JSON: {error}"),
            RawError::NotAnObject => f.write_str("the message is not a JSON object"),
            RawError::TypeMissing => f.write_str("the message has no \"type\", which names the event"),
            RawError::TypeNotAString => f.write_str("the message's \"type\" is not a string"),
            RawError::DuplicateKey(key) => write!(f, "the message has \"{key}\" twice"),
            RawError::DataAndArgs => f.write_str("the message has both \"data\" and \"args\""),
            RawError::ArgsNotAnArray => f.write_str("the message's \"args\" is not an array"),
        }
    }
}

impl std::error::Error for RawError {}

/// Reads a client's message: a JSON object whose member `type`, a string, is the event's name. The arguments are, by
/// the first line that fits:
///
/// | members beside `type` | `Nested` | `Flat` |
/// |---|---|---|
/// | none | none | none |
/// | only `data` | its value | its value |
/// | only `args`, an array | its elements | its elements |
/// | `data` and `args` | error | the whole object |
/// | `data` and others | the value of `data` | the whole object |
/// | `args`, no array | error | the whole object |
/// | `args` and others | the elements of `args` | the whole object |
/// | others | the whole object | the whole object |
///
/// "The whole object" is one argument, `type` included: `{"type":"SUBSCRIBE_TRAIN","trainNo":"12345"}` reaches the
/// rules with `data.trainNo` in either shape.
///
/// # Errors
/// What is wrong with the message.
pub fn decode<'a>(text: &'a str, shape: Shape, scratch: &mut json::Scratch) -> Result<Incoming<'a>, RawError> {
    json::validate(text.as_bytes(), scratch).map_err(RawError::InvalidJson)?;
    let object = text.trim_matches(JSON_SPACE);
    if json::kind(object) != json::Kind::Object {
        return Err(RawError::NotAnObject);
    }
    let members = Members::of(object)?;
    let name_json = members.name_json.ok_or(RawError::TypeMissing)?;
    let name = json::unescape(name_json).ok_or(RawError::TypeNotAString)?;

    let data_counts = shape == Shape::Nested || !members.has_others;
    let args = match (members.data, members.args) {
        (None, None) if !members.has_others => SmallVec::new(),
        (Some(_), Some(_)) if shape == Shape::Nested => return Err(RawError::DataAndArgs),
        (Some(data), None) if data_counts => SmallVec::from_iter([data]),
        (None, Some(args)) if data_counts && json::kind(args) == json::Kind::Array => json::elements(args).collect(),
        (None, Some(_)) if shape == Shape::Nested => return Err(RawError::ArgsNotAnArray),
        _ => SmallVec::from_iter([object]),
    };
    Ok(Incoming { name, args })
}

/// The members that mean something here.
#[derive(Default)]
struct Members<'a> {
    name_json: Option<&'a str>,
    data: Option<&'a str>,
    args: Option<&'a str>,
    has_others: bool,
}

impl<'a> Members<'a> {
    fn of(object: &'a str) -> Result<Members<'a>, RawError> {
        let mut members = Members::default();
        for (key, value) in json::members(object) {
            let (place, key) = if json::spells(key, "type") {
                (&mut members.name_json, "type")
            } else if json::spells(key, "data") {
                (&mut members.data, "data")
            } else if json::spells(key, "args") {
                (&mut members.args, "args")
            } else {
                members.has_others = true;
                continue;
            };
            if place.replace(value).is_some() {
                return Err(RawError::DuplicateKey(key));
            }
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::ids::NamespaceId;

    fn event_of(name_json: &str, args: &[&str]) -> Event {
        Event::new(NamespaceId(0), name_json, &args.join(","), args.len())
    }

    /// The text of the one frame that `event` becomes.
    fn encode(shape: Shape, of: &Event) -> String {
        let mut out = Vec::new();
        event(&mut out, shape, of);
        let (header, len) = match out[1] {
            126 => (4, usize::from(u16::from_be_bytes([out[2], out[3]]))),
            len => (2, usize::from(len)),
        };
        assert_eq!((out[0], out.len()), (0x81, header + len));
        String::from_utf8(out.split_off(header)).unwrap()
    }

    fn decode_one(text: &str, shape: Shape) -> Result<Incoming<'_>, RawError> {
        decode(text, shape, &mut json::Scratch::default())
    }

    #[test]
    fn events_out() {
        for (args, nested, flat) in [
            (&[][..], r#"{"type":"x"}"#, r#"{"type":"x"}"#),
            (&[r#"{"a":1}"#], r#"{"type":"x","data":{"a":1}}"#, r#"{"type":"x","a":1}"#),
            (&[r#"{ "a": 1.0 }"#], r#"{"type":"x","data":{ "a": 1.0 }}"#, r#"{"type":"x","a": 1.0}"#),
            (&["{}"], r#"{"type":"x","data":{}}"#, r#"{"type":"x"}"#),
            (&["{ }"], r#"{"type":"x","data":{ }}"#, r#"{"type":"x"}"#),
            (&["null"], r#"{"type":"x","data":null}"#, r#"{"type":"x","data":null}"#),
            (&["[1]"], r#"{"type":"x","data":[1]}"#, r#"{"type":"x","data":[1]}"#),
            (&["1", "{\"a\":2}"], r#"{"type":"x","args":[1,{"a":2}]}"#, r#"{"type":"x","args":[1,{"a":2}]}"#),
            (
                &[r#"{"a":{"type":"y"}}"#],
                r#"{"type":"x","data":{"a":{"type":"y"}}}"#,
                r#"{"type":"x","a":{"type":"y"}}"#,
            ),
            (&[r#"{"type":"x","a":1}"#], r#"{"type":"x","data":{"type":"x","a":1}}"#, r#"{"type":"x","a":1}"#),
            (
                &[r#"{"a":1, "\u0074ype": "\u0078"}"#],
                r#"{"type":"x","data":{"a":1, "\u0074ype": "\u0078"}}"#,
                r#"{"type":"x","a":1}"#,
            ),
            (&[r#"{"type":"x"}"#], r#"{"type":"x","data":{"type":"x"}}"#, r#"{"type":"x"}"#),
            (
                &[r#"{"type":"y","a":1}"#],
                r#"{"type":"x","data":{"type":"y","a":1}}"#,
                r#"{"type":"x","data":{"type":"y","a":1}}"#,
            ),
        ] {
            let of = event_of("\"x\"", args);
            assert_eq!(encode(Shape::Nested, &of), nested);
            assert_eq!(encode(Shape::Flat, &of), flat);
        }
    }

    #[test]
    fn attachments_out() {
        let p = |num| format!("{{\"_placeholder\":true,\"num\":{num}}}");
        for (args, nested, flat) in [
            (p(1), r#"{"type":"x","data":{"_base64":"AwQF"}}"#, r#"{"type":"x","data":{"_base64":"AwQF"}}"#),
            (
                format!("{{\"img\":{}}}", p(0)),
                r#"{"type":"x","data":{"img":{"_base64":"AQI="}}}"#,
                r#"{"type":"x","img":{"_base64":"AQI="}}"#,
            ),
            (
                format!("{{\"type\":\"x\",\"img\":{}}}", p(0)),
                r#"{"type":"x","data":{"type":"x","img":{"_base64":"AQI="}}}"#,
                r#"{"type":"x","img":{"_base64":"AQI="}}"#,
            ),
            (
                p(2),
                r#"{"type":"x","data":{"_placeholder":true,"num":2}}"#,
                r#"{"type":"x","data":{"_placeholder":true,"num":2}}"#,
            ),
        ] {
            let mut of = event_of("\"x\"", &[&args]);
            of.attachments = vec![Box::from([1, 2]), Box::from([3, 4, 5])];
            assert_eq!(encode(Shape::Nested, &of), nested);
            assert_eq!(encode(Shape::Flat, &of), flat);
        }
        let of = event_of("\"x\"", &[&p(0)]);
        assert_eq!(encode(Shape::Flat, &of), r#"{"type":"x","_placeholder":true,"num":0}"#);
    }

    #[test]
    fn flat_conflicts() {
        for (args, conflict) in [
            (&[][..], false),
            (&["1"], false),
            (&["\"type\""], false),
            (&[r#"{"a":{"type":"y"}}"#], false),
            (&[r#"{"type":"x"}"#], false),
            (&[r#"{"type":"\u0078"}"#], false),
            (&[r#"{"type":"y"}"#], true),
            (&[r#"{"type":null}"#], true),
            (&[r#"{"\u0074ype":1}"#], true),
            (&[r#"{"type":"x","type":"y"}"#], true),
            (&[r#"{"type":"y"}"#, "1"], false),
        ] {
            assert_eq!(flat_conflict(&event_of("\"x\"", args)), conflict, "{args:?}");
        }
    }

    #[test]
    fn messages_in() {
        use Shape::{Flat, Nested};
        for (text, shapes, name, args) in [
            (r#"{"type":"x"}"#, &[Nested, Flat][..], "x", &[][..]),
            (r#" {"type":"x","data":{"a":1}} "#, &[Nested, Flat], "x", &[r#"{"a":1}"#]),
            (r#"{"data":null,"type":"x"}"#, &[Nested, Flat], "x", &["null"]),
            (r#"{"type":"x","args":[1, "two"]}"#, &[Nested, Flat], "x", &["1", "\"two\""]),
            (r#"{"type":"x","args":[]}"#, &[Nested, Flat], "x", &[]),
            (r#"{"type":"\u0078","d\u0061ta":1}"#, &[Nested, Flat], "x", &["1"]),
            (
                r#"{"type":"SUBSCRIBE_TRAIN","trainNo":"12345"}"#,
                &[Nested, Flat],
                "SUBSCRIBE_TRAIN",
                &[r#"{"type":"SUBSCRIBE_TRAIN","trainNo":"12345"}"#],
            ),
            (r#"{"type":"x","data":1,"id":7}"#, &[Nested], "x", &["1"]),
            (r#"{"type":"x","data":1,"id":7}"#, &[Flat], "x", &[r#"{"type":"x","data":1,"id":7}"#]),
            (r#"{"type":"x","args":[1],"id":7}"#, &[Nested], "x", &["1"]),
            (r#"{"type":"x","args":[1],"id":7}"#, &[Flat], "x", &[r#"{"type":"x","args":[1],"id":7}"#]),
            (r#"{"type":"x","args":5}"#, &[Flat], "x", &[r#"{"type":"x","args":5}"#]),
            (r#"{"type":"x","data":1,"args":[]}"#, &[Flat], "x", &[r#"{"type":"x","data":1,"args":[]}"#]),
        ] {
            for &shape in shapes {
                let incoming = decode_one(text, shape).unwrap();
                assert_eq!((&*incoming.name, &*incoming.args), (name, args), "{text} {shape:?}");
            }
        }
    }

    #[test]
    fn broken_messages_in() {
        for (text, error) in [
            ("[]", RawError::NotAnObject),
            ("\"x\"", RawError::NotAnObject),
            ("{}", RawError::TypeMissing),
            (r#"{"data":{"type":"x"}}"#, RawError::TypeMissing),
            (r#"{"type":1}"#, RawError::TypeNotAString),
            (r#"{"type":null}"#, RawError::TypeNotAString),
            (r#"{"type":"x","type":"y"}"#, RawError::DuplicateKey("type")),
            (r#"{"type":"x","data":1,"d\u0061ta":2}"#, RawError::DuplicateKey("data")),
            (r#"{"type":"x","args":[],"args":[]}"#, RawError::DuplicateKey("args")),
            (r#"{"type":"x","data":1,"args":[]}"#, RawError::DataAndArgs),
            (r#"{"type":"x","args":5}"#, RawError::ArgsNotAnArray),
        ] {
            assert_eq!(decode_one(text, Shape::Nested), Err(error), "{text}");
        }
        for text in ["", "x", "{", "{\"type\":\"x\"}}", "{\"type\":\"x\",}"] {
            assert!(matches!(decode_one(text, Shape::Flat), Err(RawError::InvalidJson(_))), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_event_or_an_error(
            text in prop_oneof![
                "\\{(\"(type|data|args|a)\":(1|\"x\"|\\[1?\\]|\\{\\}),?){0,4}\\}",
                "[\\[\\]{}\":,type\\\\ ]{0,16}",
                "\\PC{0,20}",
            ],
        ) {
            for shape in [Shape::Nested, Shape::Flat] {
                let _ = decode_one(&text, shape);
            }
        }

        #[test]
        fn nested_events_come_back(
            name in "\\PC{0,8}",
            values in prop::collection::vec("[0-9]|\\[1, 2\\]|\\{\"type\": 7\\}|\"[a-z,]{0,4}\"", 0..4),
        ) {
            let mut name_json = String::new();
            json::escape_into(&mut name_json, &name);
            let values: Vec<_> = values.iter().map(String::as_str).collect();
            let text = encode(Shape::Nested, &event_of(&name_json, &values));
            let incoming = decode_one(&text, Shape::Nested).unwrap();
            prop_assert_eq!((&*incoming.name, incoming.args.to_vec()), (&*name, values));
        }

        #[test]
        fn flat_fields_come_back(fields in prop::collection::btree_map("[a-z]{1,5}", 0..100_u32, 0..4)) {
            let object = fields.iter().map(|(key, value)| format!("\"{key}\": {value}")).collect::<Vec<_>>().join(" ,");
            let of = event_of("\"x\"", &[&format!("{{{object}}}")]);
            prop_assume!(!flat_conflict(&of));
            let text = encode(Shape::Flat, &of);
            let written: Vec<_> = json::members(&text).skip(1).collect();
            let fields: Vec<_> =
                fields.iter().map(|(key, value)| (format!("\"{key}\""), value.to_string())).collect();
            prop_assert!(written.iter().copied().eq(fields.iter().map(|(key, value)| (&**key, &**value))));
        }
    }
}
