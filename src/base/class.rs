//! What holds for rooms of certain names: where an event's key is found, whether the room keeps the last event of each
//! key, and what becomes of members that read too slowly. Data only; does not know who asks for it, nor the config.

use super::ids::RoomName;
use std::fmt;

/// What holds for the rooms of one namespace. Without entries: [`Class::default`] for all.
#[derive(Clone, Debug, Default)]
pub struct Classes(Vec<(Vec<NameMatch>, Class)>);

/// What holds for some rooms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Class {
    /// Where an event's data carries its key, if its line does not say one.
    pub key: Option<KeyPath>,
    /// Present if the rooms keep the last event of each key.
    pub snapshot: Option<SnapshotOptions>,
    /// What becomes of a member that reads too slowly.
    pub slow_consumer: SlowConsumer,
}

/// Which rooms an entry is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameMatch {
    /// The room of this name.
    Exactly(Box<str>),
    /// All rooms whose names begin so.
    Prefix(Box<str>),
}

/// The members to go through from an event's data to its key, outermost first; empty if the data itself is the key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPath(pub Vec<Box<str>>);

/// Bounds of what one room keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotOptions {
    /// Keys; beyond, the one whose event is oldest is forgotten.
    pub keys_max: usize,
    /// Bytes of keys, names, arguments and attachments; beyond, likewise.
    pub bytes_max: usize,
    /// An event is forgotten after this, unless a later one of its key has come; `None`: never.
    pub age_ms_max: Option<u64>,
}

/// Those of rooms whose operator has set nothing but that they keep something.
impl Default for SnapshotOptions {
    fn default() -> SnapshotOptions {
        SnapshotOptions { keys_max: 1000, bytes_max: 256 << 10, age_ms_max: None }
    }
}

/// What becomes of a member whose outbox is full: which of the room's events that wait for it may give way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlowConsumer {
    /// None: unless others do, it is disconnected, so that it knows that it has missed something.
    #[default]
    Disconnect,
    /// The oldest ones.
    DropOldest,
    /// Those of which a later one of the same key waits as well. Events without a key stay.
    Conflate,
}

/// A pattern of rooms' names, as metrics tell it: a number that the core has for it. 0 stands for rooms that no pattern
/// is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PatternId(pub u32);

/// How members of a room that read too slowly are treated, and under which pattern that is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlowClass {
    /// What becomes of them.
    pub policy: SlowConsumer,
    /// Which pattern says so.
    pub pattern: PatternId,
}

impl Classes {
    /// Of several entries that match a room's name the first holds.
    #[must_use]
    pub fn new(entries: Vec<(Vec<NameMatch>, Class)>) -> Classes {
        Classes(entries)
    }

    /// True if all rooms are alike.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What holds for the room.
    #[must_use]
    pub fn of(&self, name: &RoomName) -> &Class {
        const ELSE: &Class = &Class { key: None, snapshot: None, slow_consumer: SlowConsumer::Disconnect };
        self.find(name.as_str()).map_or(ELSE, |(_, class)| class)
    }

    /// The first pattern that matches the name, as a position among [`Classes::patterns`], with what holds.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<(usize, &Class)> {
        let patterns = self.0.iter().flat_map(|(rooms, class)| rooms.iter().map(move |pattern| (pattern, class)));
        patterns.enumerate().find(|(_, (pattern, _))| pattern.is_match(name)).map(|(at, (_, class))| (at, class))
    }

    /// All patterns.
    pub fn patterns(&self) -> impl Iterator<Item = &NameMatch> {
        self.0.iter().flat_map(|(rooms, _)| rooms)
    }
}

impl NameMatch {
    /// A name, or with a `*` at its end all names that begin so.
    #[must_use]
    pub fn new(text: &str) -> NameMatch {
        match text.strip_suffix('*') {
            Some(prefix) => NameMatch::Prefix(prefix.into()),
            None => NameMatch::Exactly(text.into()),
        }
    }

    /// True for the names that it stands for.
    #[must_use]
    pub fn is_match(&self, name: &str) -> bool {
        match self {
            NameMatch::Exactly(exact) => **exact == *name,
            NameMatch::Prefix(prefix) => name.starts_with(&**prefix),
        }
    }
}

/// As it stands in the config.
impl fmt::Display for NameMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NameMatch::Exactly(exact) => f.write_str(exact),
            NameMatch::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

impl KeyPath {
    /// Reads `data.a.b`, or `data`. `None` if it is something else.
    #[must_use]
    pub fn parse(text: &str) -> Option<KeyPath> {
        let mut steps = text.split('.');
        let is_name = |step: &str| !step.is_empty() && step.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if steps.next() != Some("data") || !steps.clone().all(is_name) {
            return None;
        }
        Some(KeyPath(steps.map(Into::into).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_entry_that_matches_holds() {
        let class = |slow_consumer| Class { slow_consumer, ..Class::default() };
        let classes = Classes::new(vec![
            (vec![NameMatch::new("a"), NameMatch::new("route:1*")], class(SlowConsumer::Conflate)),
            (vec![NameMatch::new("route:*")], class(SlowConsumer::DropOldest)),
        ]);
        for (name, policy) in [
            ("a", SlowConsumer::Conflate),
            ("ab", SlowConsumer::Disconnect),
            ("route:17", SlowConsumer::Conflate),
            ("route:2", SlowConsumer::DropOldest),
            ("route:", SlowConsumer::DropOldest),
            ("route", SlowConsumer::Disconnect),
        ] {
            assert_eq!(classes.of(&RoomName::new(name, 99).unwrap()).slow_consumer, policy, "{name}");
        }
        for (name, pattern) in
            [("a", Some("a")), ("route:17", Some("route:1*")), ("route:2", Some("route:*")), ("b", None)]
        {
            let found = classes.find(name).and_then(|(at, _)| classes.patterns().nth(at)).map(ToString::to_string);
            assert_eq!(found.as_deref(), pattern, "{name}");
        }
        let all = Classes::new(vec![(vec![NameMatch::new("*")], class(SlowConsumer::Conflate))]);
        assert_eq!(all.of(&RoomName::whole_namespace()).slow_consumer, SlowConsumer::Conflate);
    }

    #[test]
    fn paths_begin_at_the_data() {
        let path = |steps: &[&str]| Some(KeyPath(steps.iter().map(|step| (*step).into()).collect()));
        for (text, expected) in [
            ("data", path(&[])),
            ("data.seatNumber", path(&["seatNumber"])),
            ("data.a.b_1", path(&["a", "b_1"])),
            ("seatNumber", None),
            ("data.", None),
            ("data..a", None),
            ("data[0]", None),
            ("data.a b", None),
            ("", None),
        ] {
            assert_eq!(KeyPath::parse(text), expected, "{text}");
        }
    }
}
