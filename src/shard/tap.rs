//! What operators watch of the events as they are ordered. An owner shows an event to every tap whose filter it passes
//! and that still has an allowance; all others are counted. Does not know who watches, nor a clock: whoever takes the
//! events gives a new allowance, so that what waits is bounded by what was asked for.

use crate::base::class::NameMatch;
use crate::base::event::Event;
use crate::base::ids::Offset;
use crate::proto::json;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Taps that are open at a time.
pub const TAPS_MAX: usize = 16;
/// Bytes of an event's arguments that a tap shows.
pub const ARGS_BYTES_MAX: usize = 2048;

/// Which events are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Of which namespaces.
    pub namespace: NameMatch,
    /// In which rooms. An event for the whole namespace is in the room of the empty name.
    pub room: NameMatch,
    /// Of which names.
    pub event: NameMatch,
}

/// An event as a tap shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tapped {
    /// The namespace's name.
    pub namespace: Box<str>,
    /// The room's; empty for the whole namespace.
    pub room: Box<str>,
    /// Its place in the room's order.
    pub offset: Offset,
    /// The event's name as a JSON string, quotes included.
    pub name_json: Box<str>,
    /// The beginning of its arguments, JSON values joined by commas, at most [`ARGS_BYTES_MAX`].
    pub args: Box<str>,
    /// Bytes of all of its arguments.
    pub args_bytes: usize,
    /// How many binary parts it has.
    pub attachments: usize,
}

/// One look at the events.
#[derive(Debug)]
pub struct Tap {
    filter: Filter,
    /// Events that may still be shown.
    allowance: AtomicU32,
    /// Events that passed the filter and were not shown.
    skipped: AtomicU64,
    shown: Mutex<Vec<Tapped>>,
}

/// All taps of the process.
#[derive(Debug, Default)]
pub struct Taps {
    /// 0 exactly while no tap is open; otherwise it changes whenever one is opened or closed.
    state: AtomicU64,
    list: Mutex<List>,
}

#[derive(Debug, Default)]
struct List {
    open: Vec<Arc<Tap>>,
    changes: u64,
}

/// A core's view of the taps.
#[derive(Debug, Default)]
pub struct View {
    taps: Arc<Taps>,
    state: u64,
    list: Vec<Arc<Tap>>,
}

impl Taps {
    /// Opens a tap, which shows nothing yet; `None` if there are [`TAPS_MAX`].
    pub fn open(&self, filter: Filter) -> Option<Arc<Tap>> {
        let list = &mut *locked(&self.list);
        if list.open.len() >= TAPS_MAX {
            return None;
        }
        let tap =
            Arc::new(Tap { filter, allowance: AtomicU32::new(0), skipped: AtomicU64::new(0), shown: Mutex::default() });
        list.open.push(tap.clone());
        self.changed(list);
        Some(tap)
    }

    /// Closes a tap.
    pub fn close(&self, tap: &Arc<Tap>) {
        // A core that has not looked at the list since may still hold it.
        tap.allowance.store(0, Ordering::Relaxed);
        let list = &mut *locked(&self.list);
        list.open.retain(|other| !Arc::ptr_eq(other, tap));
        self.changed(list);
    }

    fn changed(&self, list: &mut List) {
        list.changes += 1;
        let state = if list.open.is_empty() { 0 } else { list.changes };
        self.state.store(state, Ordering::Relaxed);
    }
}

impl Tap {
    /// Takes what was shown, and lets so many more events be shown, up to `max` that were not used.
    pub fn take(&self, more: u32, max: u32) -> Vec<Tapped> {
        let shown = std::mem::take(&mut *locked(&self.shown));
        let raised = |allowance: u32| Some(allowance.saturating_add(more).min(max));
        let _ = self.allowance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, raised);
        shown
    }

    /// How many events passed the filter and were not shown.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }

    fn see(&self, namespace: &str, room: &str, offset: Offset, event: &Event, name: &str) {
        let Filter { namespace: namespaces, room: rooms, event: names } = &self.filter;
        if !namespaces.is_match(namespace) || !rooms.is_match(room) || !names.is_match(name) {
            return;
        }
        let lowered = |allowance: u32| allowance.checked_sub(1);
        if self.allowance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, lowered).is_err() {
            self.skipped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let args = event.args_json();
        let tapped = Tapped {
            namespace: namespace.into(),
            room: room.into(),
            offset,
            name_json: event.name_json().into(),
            args: args[..args.floor_char_boundary(ARGS_BYTES_MAX)].into(),
            args_bytes: args.len(),
            attachments: event.attachments.len(),
        };
        locked(&self.shown).push(tapped);
    }
}

impl View {
    /// A view of these taps.
    #[must_use]
    pub fn new(taps: Arc<Taps>) -> View {
        View { taps, state: 0, list: Vec::new() }
    }

    /// Whether anybody watches. Asked for each event and room: one load, of a line that nobody writes to.
    #[inline]
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.taps.state.load(Ordering::Relaxed) != 0
    }

    /// Shows an event that was given its place in a room.
    #[cold]
    pub fn see(&mut self, namespace: &str, room: &str, offset: Offset, event: &Event) {
        let state = self.taps.state.load(Ordering::Relaxed);
        if state != self.state {
            self.state = state;
            self.list.clone_from(&locked(&self.taps.list).open);
        }
        let Some(name) = json::unescape(event.name_json()) else { return };
        for tap in &self.list {
            tap.see(namespace, room, offset, event, &name);
        }
    }
}

/// Nothing panics while it holds one of these locks, and what they guard is whole at any time.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::NamespaceId;

    fn filter(namespace: &str, room: &str, event: &str) -> Filter {
        Filter { namespace: NameMatch::new(namespace), room: NameMatch::new(room), event: NameMatch::new(event) }
    }

    fn event(name_json: &str, args: &str) -> Event {
        Event::new(NamespaceId(0), name_json, args, usize::from(!args.is_empty()))
    }

    #[test]
    fn a_tap_shows_what_passes_its_filter() {
        let taps = Arc::new(Taps::default());
        let mut view = View::new(taps.clone());
        // (namespace, room, event, how many of the events below)
        let rows = [
            (filter("*", "*", "*"), 6),
            (filter("/", "*", "*"), 5),
            (filter("/seats", "*", "*"), 1),
            (filter("/", "route:*", "*"), 3),
            (filter("/", "route:1", "*"), 1),
            (filter("/", "", "*"), 1),
            (filter("/", "*", "seat*"), 2),
            (filter("/", "*", "é\""), 1),
            (filter("/", "*", "none"), 0),
        ];
        let open: Vec<Arc<Tap>> = rows.iter().map(|(filter, _)| taps.open(filter.clone()).unwrap()).collect();
        open.iter().for_each(|tap| assert!(tap.take(50, 50).is_empty()));
        for (namespace, room, name) in [
            ("/", "route:1", "\"seat_update\""),
            ("/", "route:12", "\"seat\""),
            ("/", "route:", "\"x\""),
            ("/", "", "\"\\u00e9\\\"\""),
            ("/", "a", "\"x\""),
            ("/seats", "route:1", "\"x\""),
        ] {
            assert!(view.is_open());
            view.see(namespace, room, Offset(7), &event(name, "{}"));
        }
        for ((filter, count), tap) in rows.iter().zip(&open) {
            assert_eq!((tap.take(0, 50).len(), tap.skipped()), (*count, 0), "{filter:?}");
        }
    }

    #[test]
    fn no_more_is_shown_than_was_allowed() {
        let taps = Arc::new(Taps::default());
        let mut view = View::new(taps.clone());
        assert!(!view.is_open());
        let tap = taps.open(filter("*", "*", "*")).unwrap();
        let mut see = |count: usize| (0..count).for_each(|_| view.see("/", "a", Offset(1), &event("\"x\"", "1")));
        see(3);
        assert_eq!((tap.take(2, 5).len(), tap.skipped()), (0, 3));
        see(3);
        assert_eq!((tap.take(9, 5).len(), tap.skipped()), (2, 4));
        see(4);
        // One was not used; of this and the next nine, five may be.
        assert_eq!((tap.take(9, 5).len(), tap.skipped()), (4, 4));
        see(6);
        assert_eq!((tap.take(0, 5).len(), tap.skipped()), (5, 5));
        tap.take(5, 5);
        taps.close(&tap);
        see(1);
        assert!(tap.take(0, 5).is_empty());
        assert!(!View::new(taps.clone()).is_open());
        let open: Vec<_> = (0..TAPS_MAX).map(|_| taps.open(filter("*", "*", "*")).unwrap()).collect();
        assert!(taps.open(filter("*", "*", "*")).is_none());
        taps.close(&open[3]);
        assert!(taps.open(filter("*", "*", "*")).is_some());
    }

    #[test]
    fn long_arguments_are_cut_between_characters() {
        let taps = Arc::new(Taps::default());
        let mut view = View::new(taps.clone());
        let tap = taps.open(filter("*", "*", "*")).unwrap();
        tap.take(1, 1);
        let args = format!("\"{}\"", "é".repeat(2000));
        view.see("/", "a", Offset(1), &event("\"x\"", &args));
        let shown = tap.take(0, 1).remove(0);
        assert_eq!((shown.args.len(), shown.args_bytes), (ARGS_BYTES_MAX - 1, args.len()));
        assert!(args.starts_with(&*shown.args));
    }
}
