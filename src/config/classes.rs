//! `[[namespace.rooms]]` to what holds for rooms. Knows the bounds of its numbers; not what rooms do with them.

use super::document::{ConfigError, Document};
use super::namespace_path;
use crate::base::class::{Class, Classes, KeyPath, NameMatch, SlowConsumer, SnapshotOptions};
use crate::session::rules::{PathStep, RoomsSource, SlowConsumerSource, SnapshotSource};

/// A snapshot goes to its reader in one turn: 10,000 references are 100 µs.
const KEYS_LARGEST: u64 = 10_000;
/// One event of usual size should find room.
const BYTES_SMALLEST: u64 = 1024;
/// One reader may get as much at once.
const BYTES_LARGEST: u64 = 64 << 20;
/// A week: what is older is no present state.
const AGE_MS_LARGEST: u64 = 7 * 24 * 3_600_000;

/// A number in `snapshot = { … }`.
struct Number {
    name: &'static str,
    min: u64,
    max: u64,
    /// What 0 means, if it is allowed besides.
    zero: &'static str,
}

/// All of them, in the order of [`SnapshotSource`].
const NUMBERS: [Number; 3] = [
    Number { name: "keys_max", min: 1, max: KEYS_LARGEST, zero: "" },
    Number { name: "bytes_max", min: BYTES_SMALLEST, max: BYTES_LARGEST, zero: "" },
    Number { name: "age_ms_max", min: 1, max: AGE_MS_LARGEST, zero: "0, for ever, or " },
];

impl Number {
    /// `between 1 and 10000`
    fn bounds(&self) -> String {
        let Number { min, max, zero, .. } = self;
        format!("{zero}between {min} and {max}")
    }
}

/// The bounds of the number of that name in `snapshot = { … }`.
pub(super) fn bounds(name: &str) -> Option<String> {
    NUMBERS.iter().find(|number| number.name == name).map(Number::bounds)
}

/// What holds for the rooms of a namespace, checked before by [`check`].
pub(super) fn compile(sources: &[RoomsSource]) -> Classes {
    let class = |source: &RoomsSource| Class {
        key: source.key.as_deref().and_then(KeyPath::parse),
        snapshot: source.snapshot.as_ref().map(snapshot_options),
        slow_consumer: match source.slow_consumer {
            SlowConsumerSource::Disconnect => SlowConsumer::Disconnect,
            SlowConsumerSource::DropOldest => SlowConsumer::DropOldest,
            SlowConsumerSource::Conflate => SlowConsumer::Conflate,
        },
    };
    let names = |source: &RoomsSource| source.r#match.iter().map(|name| NameMatch::new(name)).collect();
    Classes::new(sources.iter().map(|source| (names(source), class(source))).collect())
}

fn snapshot_options(source: &SnapshotSource) -> SnapshotOptions {
    let default = SnapshotOptions::default();
    SnapshotOptions {
        keys_max: source.keys_max.map_or(default.keys_max, |keys| keys as usize),
        bytes_max: source.bytes_max.map_or(default.bytes_max, |bytes| bytes as usize),
        age_ms_max: (source.age_ms_max > 0).then_some(source.age_ms_max),
    }
}

/// Finds the first mistake in the namespace of that index.
pub(super) fn check(document: &Document, namespace: usize, sources: &[RoomsSource]) -> Result<(), ConfigError> {
    for (index, source) in sources.iter().enumerate() {
        let wrong = |keys: &[&str], message: &str| {
            let mut path = namespace_path(namespace, "rooms");
            path.push(PathStep::Index(index));
            path.extend(keys.iter().map(|key| PathStep::Key((*key).to_owned())));
            Err(document.wrong_value(&path, message))
        };
        if source.r#match.is_empty() {
            return wrong(&["match"], "names no room; match = [\"*\"] is for all of them");
        }
        if let Some(key) = &source.key
            && KeyPath::parse(key).is_none()
        {
            return wrong(&["key"], "must be a path into an event's data, as in \"data.seatNumber\"");
        }
        let Some(snapshot) = &source.snapshot else { continue };
        let age = (snapshot.age_ms_max > 0).then_some(snapshot.age_ms_max);
        for (number, value) in NUMBERS.iter().zip([snapshot.keys_max, snapshot.bytes_max, age]) {
            if value.is_some_and(|value| !(number.min..=number.max).contains(&value)) {
                return wrong(&["snapshot", number.name], &format!("must be {}", number.bounds()));
            }
        }
    }
    Ok(())
}
