//! What a room keeps: the last event of each key, in the order of their offsets. Does not know who reads it, nor which
//! rooms keep anything.

use crate::base::class::SnapshotOptions;
use crate::base::clock::Millis;
use crate::base::event::Encodable;
use crate::base::ids::Offset;
use crate::proto::{json, line};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// One room's kept events. Every key stands in both tables, and the tables name each other.
#[derive(Debug, Default)]
pub struct Snapshot {
    by_key: HashMap<Box<str>, Offset>,
    /// By the offsets that the events have in the room.
    in_order: BTreeMap<Offset, Kept>,
    bytes: usize,
    /// The answer to [`Snapshot::values`] until the next change.
    values: Option<Arc<str>>,
}

#[derive(Debug)]
struct Kept {
    event: Arc<Encodable>,
    /// When it was published.
    at: Millis,
}

/// Events that had to go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evicted {
    /// As there were too many keys.
    pub keys: u64,
    /// As there were too many bytes.
    pub bytes: u64,
}

impl Snapshot {
    /// Keeps `event`, which has a key, in the place of the former one of that key. What is oldest goes, if there is
    /// too much.
    ///
    /// # Panics
    /// If the event has no key, or `offset` is not above all earlier ones.
    pub fn keep(&mut self, offset: Offset, event: Arc<Encodable>, now: Millis, options: &SnapshotOptions) -> Evicted {
        let key = event.key.as_deref().expect("only events with a key are kept");
        assert!(self.in_order.last_key_value().is_none_or(|(last, _)| *last < offset), "offsets grow");
        self.values = None;
        self.bytes += bytes_of(&event);
        if let Some(place) = self.by_key.get_mut(key) {
            let former = self.in_order.remove(&std::mem::replace(place, offset)).expect("each key has an event");
            self.bytes -= bytes_of(&former.event);
        } else {
            self.by_key.insert(key.into(), offset);
        }
        self.in_order.insert(offset, Kept { event, at: now });
        let mut evicted = Evicted::default();
        while self.by_key.len() > options.keys_max {
            self.drop_oldest();
            evicted.keys += 1;
        }
        // An event that is too large by itself goes too.
        while self.bytes > options.bytes_max {
            self.drop_oldest();
            evicted.bytes += 1;
        }
        evicted
    }

    /// Forgets what is older than `age_ms_max`; returns how many events that were.
    pub fn expire(&mut self, now: Millis, age_ms_max: u64) -> u64 {
        let mut expired = 0;
        while let Some((_, oldest)) = self.in_order.first_key_value()
            && oldest.at.after(age_ms_max) <= now
        {
            self.values = None;
            self.drop_oldest();
            expired += 1;
        }
        expired
    }

    /// When the oldest event was published; `None` if nothing is kept.
    #[must_use]
    pub fn oldest(&self) -> Option<Millis> {
        self.in_order.first_key_value().map(|(_, kept)| kept.at)
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// True if nothing is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// Bytes of what is kept.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The kept events in the room's order.
    pub fn events(&self) -> impl Iterator<Item = &Arc<Encodable>> {
        self.in_order.values().map(|kept| &kept.event)
    }

    /// The first argument of each kept event, in the room's order, as a JSON array; `null` for an event without any.
    /// Binary parts stand in it as `{"_base64":"…"}`.
    pub fn values(&mut self) -> Arc<str> {
        if let Some(values) = &self.values {
            return values.clone();
        }
        let mut array = String::from("[");
        for kept in self.in_order.values() {
            if array.len() > 1 {
                array.push(',');
            }
            let event = &kept.event.event;
            let data = json::first(event.args_json()).unwrap_or("null");
            array.push_str(&line::put_attachments(data, &event.attachments));
        }
        array.push(']');
        self.values.insert(array.into()).clone()
    }

    /// The tables name each other, and the bytes are those of the events.
    pub fn check(&self) {
        assert_eq!(self.by_key.len(), self.in_order.len());
        for (key, offset) in &self.by_key {
            assert_eq!(self.in_order[offset].event.key.as_ref(), Some(key));
        }
        assert_eq!(self.bytes, self.in_order.values().map(|kept| bytes_of(&kept.event)).sum::<usize>());
    }

    fn drop_oldest(&mut self) {
        let (_, Kept { event, .. }) = self.in_order.pop_first().expect("the caller has seen one");
        self.bytes -= bytes_of(&event);
        let key = event.key.as_deref().expect("only events with a key are kept");
        self.by_key.remove(key);
    }
}

/// What an event counts against the bounds. Its encodings come on top, one for each in use.
fn bytes_of(event: &Encodable) -> usize {
    let attachments: usize = event.event.attachments.iter().map(|attachment| attachment.len()).sum();
    let key = event.key.as_ref().map_or(0, |key| key.len());
    key + event.event.name_json().len() + event.event.args_json().len() + attachments
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::event::Event;
    use crate::base::ids::NamespaceId;
    use proptest::prelude::*;

    fn event(key: &str, args: &str, count: usize) -> Arc<Encodable> {
        let event = Event::new(NamespaceId(0), "\"e\"", args, count);
        Arc::new(Encodable::new(event, Some(key.into()), None))
    }

    fn options(keys_max: usize, bytes_max: usize) -> SnapshotOptions {
        SnapshotOptions { keys_max, bytes_max, age_ms_max: None }
    }

    #[test]
    fn the_last_event_of_each_key_is_kept_in_the_order_of_updates() {
        let mut snapshot = Snapshot::default();
        let bounds = options(3, 1000);
        for (n, (key, args, count)) in
            [("a", "1", 1), ("b", r#"{"x": 1.0},2"#, 2), ("a", "3", 1), ("c", "", 0)].into_iter().enumerate()
        {
            snapshot.keep(Offset(n as u64), event(key, args, count), Millis(n as u64 * 10), &bounds);
            snapshot.check();
        }
        assert_eq!(&*snapshot.values(), r#"[{"x": 1.0},3,null]"#);
        let evicted = snapshot.keep(Offset(9), event("d", "4", 1), Millis(90), &bounds);
        assert_eq!((evicted, &*snapshot.values()), (Evicted { keys: 1, bytes: 0 }, "[3,null,4]"));
        assert_eq!((snapshot.expire(Millis(119), 100), snapshot.oldest()), (0, Some(Millis(20))));
        assert_eq!((snapshot.expire(Millis(120), 100), &*snapshot.values()), (1, "[null,4]"));
        snapshot.check();
        assert_eq!((snapshot.expire(Millis(999), 100), snapshot.is_empty(), snapshot.bytes()), (2, true, 0));
    }

    #[test]
    fn what_does_not_fit_goes_and_be_it_the_newest() {
        let mut snapshot = Snapshot::default();
        let bounds = options(9, 20);
        assert_eq!(snapshot.keep(Offset(1), event("a", "123456", 1), Millis(0), &bounds), Evicted::default());
        assert_eq!(snapshot.bytes(), 10, "a, \"e\" and the data");
        let evicted = snapshot.keep(Offset(2), event("b", "1234567", 1), Millis(0), &bounds);
        assert_eq!((evicted.bytes, &*snapshot.values()), (1, "[1234567]"));
        let evicted = snapshot.keep(Offset(3), event("c", "12345678901234567", 1), Millis(0), &bounds);
        assert_eq!((evicted.bytes, snapshot.len()), (2, 0));
        snapshot.check();
    }

    #[test]
    fn binary_parts_stand_in_the_values_as_base64() {
        let mut with_binary = Event::new(NamespaceId(0), "\"e\"", r#"{"a":{"_placeholder":true,"num":0}},1"#, 2);
        with_binary.attachments = vec![Box::from(&b"hi"[..])];
        let mut snapshot = Snapshot::default();
        let kept = Arc::new(Encodable::new(with_binary, Some("k".into()), None));
        snapshot.keep(Offset(1), kept, Millis(0), &options(1, 1000));
        assert_eq!(&*snapshot.values(), r#"[{"a":{"_base64":"aGk="}}]"#);
    }

    proptest! {
        #[test]
        fn a_snapshot_is_the_last_of_each_key_within_the_bounds(
            keys in prop::collection::vec(0u8..6, 1..60),
            max in 1usize..6,
        ) {
            let mut snapshot = Snapshot::default();
            let mut model: Vec<(u8, usize)> = Vec::new();
            for (n, key) in keys.into_iter().enumerate() {
                let kept = event(&key.to_string(), &n.to_string(), 1);
                snapshot.keep(Offset(n as u64), kept, Millis(0), &options(max, 9999));
                model.retain(|(other, _)| *other != key);
                model.push((key, n));
                if model.len() > max {
                    model.remove(0);
                }
                let values: Vec<String> = model.iter().map(|(_, n)| n.to_string()).collect();
                prop_assert_eq!(snapshot.values().to_string(), format!("[{}]", values.join(",")));
                snapshot.check();
            }
        }
    }
}
