//! Slow consumers: how a room's members are treated when they lag, what is counted then, and the memory of all outboxes
//! together. Knows neither rings nor clients' protocols; dropping is the outbox's.

use super::messages::Manner;
use super::{Namespace, Shard};
use crate::base::class::{PatternId, SlowClass, SlowConsumer};
use crate::base::counters::SLOW_CONSUMERS;
use crate::base::ids::NamespaceId;
use crate::session::outbox::Fate;
use std::sync::Arc;

/// What stands for rooms that no pattern is for.
const NO_PATTERN: &str = "*";

/// The patterns of all namespaces' rooms, numbered.
#[derive(Debug)]
pub(super) struct Patterns {
    /// What metrics call them; two namespaces may share one.
    names: Vec<Arc<str>>,
    /// By namespace and position among its patterns.
    ids: Vec<Vec<PatternId>>,
    /// Connections that were cut, by number of the pattern.
    disconnects: Vec<u64>,
    /// Connections that were cut for want of memory.
    shed: u64,
}

impl Patterns {
    pub(super) fn new(namespaces: &[Namespace]) -> Patterns {
        let mut names: Vec<Arc<str>> = vec![NO_PATTERN.into()];
        let mut number = |name: String| {
            let at = names.iter().position(|other| **other == *name).unwrap_or_else(|| {
                names.push(name.into());
                names.len() - 1
            });
            PatternId(at as u32)
        };
        let of = |namespace: &Namespace| namespace.classes.patterns().map(ToString::to_string).collect::<Vec<_>>();
        let ids = namespaces.iter().map(|namespace| of(namespace).into_iter().map(&mut number).collect()).collect();
        let disconnects = vec![0; names.len()];
        Patterns { names, ids, disconnects, shed: 0 }
    }

    /// How slow members of the room of that name are treated.
    pub(super) fn slow_class(&self, namespaces: &[Namespace], namespace: NamespaceId, room: &str) -> SlowClass {
        let index = usize::from(namespace.0);
        let Some((at, class)) = namespaces[index].classes.find(room) else { return SlowClass::default() };
        SlowClass { policy: class.slow_consumer, pattern: self.ids[index][at] }
    }

    /// A member was cut because an event of such a room found no place.
    pub(super) fn disconnected(&mut self, pattern: PatternId) {
        self.disconnects[pattern.0 as usize] += 1;
    }
}

/// What may become of an event's frame that waits for a slow member.
pub(super) fn fate(slow: SlowClass, manner: Option<&Manner>) -> Fate {
    match (slow.policy, manner.and_then(|manner| manner.mark)) {
        (SlowConsumer::Disconnect, _) | (SlowConsumer::Conflate, None) => Fate::Kept,
        (SlowConsumer::DropOldest, _) => Fate::Droppable(slow.pattern),
        (SlowConsumer::Conflate, Some(mark)) => Fate::Conflatable(slow.pattern, mark),
    }
}

impl Shard {
    /// Brings the counts by pattern up to date.
    pub(super) fn count_slow_consumers(&mut self) {
        let Shard { patterns, outboxes, counters, .. } = self;
        for (index, rooms) in patterns.names.iter().enumerate() {
            let losses = outboxes.losses().get(index).copied().unwrap_or_default();
            counters.set_for_rooms(SLOW_CONSUMERS, "disconnect", rooms, patterns.disconnects[index]);
            counters.set_for_rooms(SLOW_CONSUMERS, "dropped", rooms, losses.dropped);
            counters.set_for_rooms(SLOW_CONSUMERS, "conflated", rooms, losses.conflated);
        }
        counters.set_for_rooms(SLOW_CONSUMERS, "shed", &patterns.names[0], patterns.shed);
    }
}
