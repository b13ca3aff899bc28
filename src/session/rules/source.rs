//! The rules as they stand in the config file: serde types, nothing checked beyond their shape. Does not know the file.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor, value};

/// The rules of one namespace. Every string in it is an expression (`when`, `allow`) or a template (the others).
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct RulesSource {
    /// The namespace's name, with its slash.
    pub name: Option<String>,
    /// Instead of a name, a regular expression: these rules are for every namespace whose whole name it matches.
    pub pattern: Option<String>,
    /// Whether a client needs a valid token. Left out: as `auth.require` says.
    pub require: Option<bool>,
    /// What a client hears that sends an event which no rule names.
    #[serde(default)]
    pub unknown_events: UnknownEvents,
    /// What holds for its rooms, by their names; the first entry that matches holds.
    #[serde(default)]
    pub rooms: Vec<RoomsSource>,
    /// What happens when a client connects, in the order of the file.
    #[serde(default)]
    pub connect: Vec<ConnectRule>,
    /// What happens when a client sends an event, in the order of the file.
    #[serde(default)]
    pub on: Vec<EventRule>,
}

impl RulesSource {
    /// What the operator calls the namespace: its name or its pattern.
    #[must_use]
    pub fn title(&self) -> &str {
        self.name.as_deref().or(self.pattern.as_deref()).unwrap_or_default()
    }
}

/// `[[namespace.rooms]]`: what holds for rooms of certain names.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct RoomsSource {
    /// The rooms' names; a `*` at the end stands for any rest.
    pub r#match: Vec<String>,
    /// Where an event's data carries its key, as in `data.seatNumber`, unless its line says one.
    pub key: Option<String>,
    /// Present if the rooms keep the last event of each key.
    pub snapshot: Option<SnapshotSource>,
    /// What becomes of members that read too slowly.
    #[serde(default)]
    pub slow_consumer: SlowConsumerSource,
}

/// Bounds of what a room keeps; see [`SnapshotOptions`](crate::base::class::SnapshotOptions).
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct SnapshotSource {
    /// Keys of one room.
    pub keys_max: Option<u64>,
    /// Bytes of one room.
    pub bytes_max: Option<u64>,
    /// How long an event is kept; 0 for ever.
    #[serde(default)]
    pub age_ms_max: u64,
}

/// What becomes of members that read too slowly.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum SlowConsumerSource {
    /// They are disconnected.
    #[default]
    Disconnect,
    /// They miss the oldest events that wait for them.
    DropOldest,
    /// They get only the newest event of each key.
    Conflate,
}

/// What a client hears that sends an event which no rule names.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum UnknownEvents {
    /// An `error` event, and an acknowledgement with the error if it asked for one.
    #[default]
    Error,
    /// Nothing, as from a Node server without a listener.
    Ignore,
}

/// What a client hears whom `allow` refuses.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ErrorSource {
    /// The text, a template.
    pub message: String,
    /// More for the client's program.
    pub data: Option<toml::Value>,
}

/// `[[namespace.connect]]`: what happens when a client connects. Every rule whose `when` holds applies.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ConnectRule {
    /// The rule is passed over unless this holds. Left out: it always applies. An error in it counts as false.
    pub when: Option<Condition>,
    /// The connection is refused unless this holds. Left out: allowed. An error in it refuses.
    pub allow: Option<Condition>,
    /// What the client hears whom `allow` refuses. Left out: a reason of ours.
    pub error: Option<ErrorSource>,
    /// Values that the socket keeps, readable as `state.NAME` by later rules and messages; null forgets the name.
    #[serde(default)]
    pub set: toml::Table,
    /// Rooms to leave, before `join`. A `*` at the end, written here and not by a client, leaves all rooms that begin
    /// so.
    #[serde(default)]
    pub leave: Vec<String>,
    /// Rooms to join.
    #[serde(default)]
    pub join: Vec<String>,
    /// `true`: what the joined rooms keep comes behind the replies, as the events that they were. The name of a room, a
    /// template: what it keeps stands in `reply` and `ack` as `{snapshot}`.
    pub snapshot: Option<SnapshotWish>,
    /// Events for this client: one table or an array of them.
    #[serde(default, deserialize_with = "one_or_many")]
    pub reply: Vec<ReplySource>,
    /// Events for rooms, once this client is in those that it joins: one table or an array of them.
    #[serde(default, deserialize_with = "one_or_many")]
    pub emit: Vec<EmitSource>,
}

/// `[[namespace.on]]`: what happens when a client sends `event`. Every rule for the event whose `when` holds is taken;
/// if one of them refuses, nothing of any of them happens; if none is taken, the message is refused.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct EventRule {
    /// The event's name, literally.
    pub event: String,
    /// The rule is passed over unless this holds. Left out: it is taken. An error in it counts as false.
    pub when: Option<Condition>,
    /// The message is refused unless this holds. Left out: allowed. An error in it refuses.
    pub allow: Option<Condition>,
    /// As [`ConnectRule::error`].
    pub error: Option<ErrorSource>,
    /// As [`ConnectRule::set`]. Templates of this same rule still read the old values.
    #[serde(default)]
    pub set: toml::Table,
    /// As [`ConnectRule::leave`].
    #[serde(default)]
    pub leave: Vec<String>,
    /// As [`ConnectRule::join`].
    #[serde(default)]
    pub join: Vec<String>,
    /// As [`ConnectRule::snapshot`].
    pub snapshot: Option<SnapshotWish>,
    /// As [`ConnectRule::reply`].
    #[serde(default, deserialize_with = "one_or_many")]
    pub reply: Vec<ReplySource>,
    /// As [`ConnectRule::emit`].
    #[serde(default, deserialize_with = "one_or_many")]
    pub emit: Vec<EmitSource>,
    /// The arguments of the acknowledgement, should the client ask for one. The last rule taken that has an `ack` gives
    /// it.
    pub ack: Option<ArgsSource>,
    /// True: the socket is disconnected after the replies.
    #[serde(default)]
    pub disconnect: bool,
}

impl ConnectRule {
    /// The same rule in the wider form.
    #[must_use]
    pub fn to_event_rule(&self) -> EventRule {
        let ConnectRule { when, allow, error, set, leave, join, snapshot, reply, emit } = self.clone();
        EventRule { when, allow, error, set, leave, join, snapshot, reply, emit, ..EventRule::default() }
    }
}

/// `true`, `false`, or an expression that yields one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The same for every client.
    Fixed(bool),
    /// A CEL expression, without braces.
    Expression(String),
}

/// What of the rooms' snapshots the client gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotWish {
    /// True: of those that it joins, event by event.
    OfJoined(bool),
    /// Of this room, a template, in a reply.
    OfRoom(String),
}

/// An event that a client causes for others.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct EmitSource {
    /// The rooms that get it, templates; left out: the whole namespace.
    pub rooms: Option<Vec<String>>,
    /// The event's name, a template.
    pub event: String,
    /// The only argument.
    pub data: Option<toml::Value>,
    /// All arguments, instead of `data`.
    pub args: Option<ArgsSource>,
    /// What it is about, a template: as the `key` of a publisher's line.
    pub key: Option<String>,
    /// False: the client itself does not get it.
    pub to_self: Option<bool>,
    /// True: whoever cannot take it at once does not get it.
    #[serde(default)]
    pub volatile: bool,
}

/// One event for the client that sent the message.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ReplySource {
    /// The event's name, a template.
    pub event: String,
    /// The only argument.
    pub data: Option<toml::Value>,
    /// All arguments, instead of `data`.
    pub args: Option<ArgsSource>,
}

/// The arguments of an acknowledgement or a reply.
#[derive(Clone, Debug, PartialEq)]
pub enum ArgsSource {
    /// A string; only `"{args}"` has a meaning: the arguments as they came.
    Text(String),
    /// One template per argument.
    Args(Vec<toml::Value>),
}

/// Not an untagged enum: its errors would not say what is wrong inside the table.
fn one_or_many<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    struct OneOrMany<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrMany<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a table { event, data } or an array of them")
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            Ok(vec![T::deserialize(value::MapAccessDeserializer::new(map))?])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
            Vec::deserialize(value::SeqAccessDeserializer::new(seq))
        }
    }
    deserializer.deserialize_any(OneOrMany(PhantomData))
}

/// A boolean or a string, which stands for something else.
fn bool_or_text<'de, D: Deserializer<'de>, T: From<bool> + From<String>>(
    deserializer: D,
    expecting: &'static str,
) -> Result<T, D::Error> {
    struct BoolOrText<T>(&'static str, PhantomData<T>);
    impl<T: From<bool> + From<String>> Visitor<'_> for BoolOrText<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_bool<E>(self, fixed: bool) -> Result<T, E> {
            Ok(fixed.into())
        }

        fn visit_str<E>(self, text: &str) -> Result<T, E> {
            Ok(text.to_owned().into())
        }
    }
    deserializer.deserialize_any(BoolOrText(expecting, PhantomData))
}

impl From<bool> for Condition {
    fn from(fixed: bool) -> Condition {
        Condition::Fixed(fixed)
    }
}

impl From<String> for Condition {
    fn from(text: String) -> Condition {
        Condition::Expression(text)
    }
}

impl From<bool> for SnapshotWish {
    fn from(fixed: bool) -> SnapshotWish {
        SnapshotWish::OfJoined(fixed)
    }
}

impl From<String> for SnapshotWish {
    fn from(text: String) -> SnapshotWish {
        SnapshotWish::OfRoom(text)
    }
}

impl<'de> Deserialize<'de> for SnapshotWish {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SnapshotWish, D::Error> {
        bool_or_text(deserializer, "true, false or a string with the name of a room")
    }
}

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Condition, D::Error> {
        bool_or_text(deserializer, "true, false or a string with an expression")
    }
}

impl<'de> Deserialize<'de> for ArgsSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ArgsSource, D::Error> {
        struct TextOrArgs;
        impl<'de> Visitor<'de> for TextOrArgs {
            type Value = ArgsSource;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of arguments or the string \"{args}\"")
            }

            fn visit_str<E>(self, text: &str) -> Result<ArgsSource, E> {
                Ok(ArgsSource::Text(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<ArgsSource, A::Error> {
                Ok(ArgsSource::Args(Vec::deserialize(value::SeqAccessDeserializer::new(seq))?))
            }
        }
        deserializer.deserialize_any(TextOrArgs)
    }
}
