//! The owner's side of rooms: each room's order, the cores that have members, and what the room keeps. Does not know
//! who the members are.

use super::snapshot::{Evicted, Snapshot};
use super::traffic::Traffic;
use crate::base::class::SnapshotOptions;
use crate::base::clock::Millis;
use crate::base::event::Encodable;
use crate::base::frame::Encoding;
use crate::base::ids::{CoreId, Epoch, Offset, RoomKey, SlotRef};
use crate::base::slab::Slab;
use hashbrown::HashTable;
use smallvec::SmallVec;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// How long orders outlive their rooms.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A room without members and events for this long is forgotten; its next event begins a new epoch at offset 1.
    pub idle_ms: u64,
    /// Rooms without members that are remembered at most; beyond, the longest idle one is forgotten.
    pub idle_max: usize,
    /// Bytes that all rooms keep at most; beyond, the room whose last event is oldest forgets all it kept.
    pub snapshots_bytes_max: usize,
}

/// A group of members on one core: where one encoding of the room's events goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The group's slot on its core; the generation makes a late delivery to a former group void.
    pub group: SlotRef,
    /// The member core.
    pub core: CoreId,
    /// What the group's members want.
    pub encoding: Encoding,
}

/// Those of a server whose operator has set nothing.
impl Default for Options {
    fn default() -> Options {
        Options { idle_ms: 60_000, idle_max: 100_000, snapshots_bytes_max: 256 << 20 }
    }
}

/// All rooms that one core owns.
#[derive(Debug)]
pub struct OwnedRooms {
    options: Options,
    rooms: Slab<OwnedRoom>,
    index: HashTable<u32>,
    /// Rooms that were without members when queued, longest ago first. A room stands here at most once.
    idle: VecDeque<(SlotRef, Millis)>,
    next_epoch: u64,
    /// Rooms that keep something, by when they took their last event; the number counts those.
    keeping: BTreeSet<(u64, u32)>,
    kept_count: u64,
    kept_events: usize,
    kept_bytes: usize,
}

/// What came of keeping an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeepOutcome {
    /// Events of the same room that had to go.
    pub evicted: Evicted,
    /// Events of other rooms that had to go, as all rooms together kept too much.
    pub for_memory: u64,
    /// When [`OwnedRooms::kept_due`] is to be called for the room, unless that is arranged already.
    pub watch: Option<(SlotRef, Millis)>,
}

#[derive(Debug)]
struct OwnedRoom {
    key: RoomKey,
    epoch: Epoch,
    last: Offset,
    traffic: Traffic,
    attachments: SmallVec<[Attachment; 2]>,
    /// When the room last had a member or an event.
    used: Millis,
    /// True exactly while the room stands in `idle`.
    queued: bool,
    /// Present exactly while the room keeps at least one event.
    kept: Option<Box<KeptEvents>>,
    /// True while somebody will call [`OwnedRooms::kept_due`].
    watched: bool,
}

#[derive(Debug)]
struct KeptEvents {
    snapshot: Snapshot,
    age_ms_max: Option<u64>,
    /// The room's place in `keeping`.
    count: u64,
}

impl OwnedRoom {
    /// True if the room goes when it has been idle long enough.
    fn may_go(&self) -> bool {
        self.attachments.is_empty() && self.kept.is_none()
    }
}

impl OwnedRooms {
    /// No rooms. Epochs count from `first_epoch`, which must be larger than any that an earlier process used.
    #[must_use]
    pub fn new(options: Options, first_epoch: u64) -> OwnedRooms {
        OwnedRooms {
            options,
            rooms: Slab::new(),
            index: HashTable::new(),
            idle: VecDeque::new(),
            next_epoch: first_epoch,
            keeping: BTreeSet::new(),
            kept_count: 0,
            kept_events: 0,
            kept_bytes: 0,
        }
    }

    /// From here on these bounds hold; what is beyond one goes when the next event or idle room is looked at.
    pub fn set_options(&mut self, options: Options) {
        self.options = options;
    }

    /// Rooms known now, with or without members.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rooms.len()
    }

    /// True when no room is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rooms.is_empty()
    }

    /// Adds a group of members; it gets every event after the returned offset.
    ///
    /// # Panics
    /// If the core attaches one encoding of the room twice: member cores detach first.
    pub fn attach(&mut self, key: &RoomKey, attachment: Attachment, now: Millis) -> (Offset, Epoch) {
        let slot = self.find_or_create(key, now);
        let room = &mut self.rooms[slot];
        let same = |a: &Attachment| a.core == attachment.core && a.encoding == attachment.encoding;
        assert!(!room.attachments.iter().any(same), "attached twice: {attachment:?}");
        room.attachments.push(attachment);
        room.used = now;
        (room.last, room.epoch)
    }

    /// Takes a group out.
    ///
    /// # Panics
    /// If the group is not attached: its core sent `Attach` before on the same ring.
    pub fn detach(&mut self, key: &RoomKey, attachment: Attachment, now: Millis) {
        let slot = self.find(key).expect("a detached room was attached");
        let room = &mut self.rooms[slot];
        let at = room.attachments.iter().position(|a| *a == attachment).expect("a detached group was attached");
        room.attachments.swap_remove(at);
        if room.attachments.is_empty() {
            room.attachments.shrink_to_fit();
            room.used = now;
            self.queue_idle(slot, now);
        }
    }

    /// Gives the next event, of so many bytes, its offset; returns it with the groups that get the event.
    pub fn append(&mut self, key: &RoomKey, bytes: usize, now: Millis) -> (Offset, &[Attachment]) {
        let slot = self.find_or_create(key, now);
        let room = &mut self.rooms[slot];
        room.used = now;
        room.traffic.note(bytes, now);
        room.last = Offset(room.last.0 + 1);
        (room.last, &room.attachments)
    }

    /// Keeps an event that has just been appended, and has a key.
    ///
    /// # Panics
    /// If the room is not known, or the event has no key.
    pub fn keep(
        &mut self,
        key: &RoomKey,
        event: Arc<Encodable>,
        options: &SnapshotOptions,
        now: Millis,
    ) -> KeepOutcome {
        let slot = self.find(key).expect("an event was appended to the room");
        let count = self.kept_count;
        self.kept_count += 1;
        let room = &mut self.rooms[slot];
        let kept = room.kept.get_or_insert_with(|| {
            Box::new(KeptEvents { snapshot: Snapshot::default(), age_ms_max: options.age_ms_max, count })
        });
        let before = (kept.snapshot.len(), kept.snapshot.bytes());
        let evicted = kept.snapshot.keep(room.last, event, now, options);
        self.kept_events = self.kept_events + kept.snapshot.len() - before.0;
        self.kept_bytes = self.kept_bytes + kept.snapshot.bytes() - before.1;
        self.keeping.remove(&(std::mem::replace(&mut kept.count, count), slot));
        self.keeping.insert((count, slot));
        if kept.snapshot.is_empty() {
            self.drop_kept(slot, now);
        }
        let mut for_memory = 0;
        while self.kept_bytes > self.options.snapshots_bytes_max {
            let &(_, oldest) = self.keeping.first().expect("somebody keeps the bytes");
            for_memory += self.drop_kept(oldest, now);
        }
        KeepOutcome { evicted, for_memory, watch: self.watch(slot) }
    }

    /// Forgets what the room has kept for too long. Returns how many events that were, and when to look again.
    pub fn kept_due(&mut self, at: SlotRef, now: Millis) -> (u64, Option<Millis>) {
        let Some(room) = self.rooms.get_mut(at) else { return (0, None) };
        room.watched = false;
        let expired = self.expire_kept(at.slot, now);
        (expired, self.watch(at.slot).map(|(_, due)| due))
    }

    /// What the room keeps; nothing of it is too old.
    pub fn snapshot(&mut self, key: &RoomKey, now: Millis) -> Option<&mut Snapshot> {
        let slot = self.find(key)?;
        self.expire_kept(slot, now);
        self.rooms[slot].kept.as_mut().map(|kept| &mut kept.snapshot)
    }

    /// Events that all rooms keep, and their bytes.
    #[must_use]
    pub fn kept(&self) -> (usize, usize) {
        (self.kept_events, self.kept_bytes)
    }

    /// The last offset, its order and the use of a room, if it is known.
    #[must_use]
    pub fn order_of(&self, key: &RoomKey) -> Option<(Offset, Epoch, Traffic)> {
        let room = &self.rooms[self.find(key)?];
        Some((room.last, room.epoch, room.traffic))
    }

    /// For going through the rooms step by step: `slots` is where [`OwnedRooms::key_at`] ends.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.rooms.slots()
    }

    /// The room in this slot, if any.
    #[must_use]
    pub fn key_at(&self, slot: u32) -> Option<&RoomKey> {
        self.rooms.at(slot).map(|at| &self.rooms[at.slot].key)
    }

    /// The groups of all rooms.
    pub fn all_attachments(&self) -> impl Iterator<Item = Attachment> {
        self.rooms.iter().flat_map(|(_, room)| room.attachments.iter().copied())
    }

    /// Forgets rooms that were idle long enough; says when to look again.
    pub fn expire(&mut self, now: Millis) -> Option<Millis> {
        while let Some(&(at, queued)) = self.idle.front() {
            if queued.after(self.options.idle_ms) > now {
                return Some(queued.after(self.options.idle_ms));
            }
            self.idle.pop_front();
            let room = &mut self.rooms[at.slot];
            room.queued = false;
            if !room.may_go() {
                continue;
            }
            let used = room.used;
            if used.after(self.options.idle_ms) <= now {
                self.forget(at);
            } else {
                // Used since it was queued: it gets the rest of its time, at the end of the queue, where the time is a
                // little late for the neighbours' order and never early.
                self.queue_idle(at.slot, now);
            }
        }
        None
    }

    /// Each index entry names a room of that key, each room stands in the index, and idle rooms are queued.
    pub fn check(&self) {
        assert_eq!(self.index.len(), self.rooms.len());
        for (at, room) in self.rooms.iter() {
            assert_eq!(self.find(&room.key), Some(at.slot));
            assert!(room.queued || !room.may_go(), "{:?} would never be forgotten", room.key);
            if let Some(KeptEvents { snapshot, age_ms_max, count }) = room.kept.as_deref() {
                snapshot.check();
                assert!(!snapshot.is_empty() && self.keeping.contains(&(*count, at.slot)), "{:?}", room.key);
                assert!(room.watched || age_ms_max.is_none(), "{:?} would keep its events for ever", room.key);
            }
        }
        assert_eq!(self.idle.len(), self.rooms.iter().filter(|(_, room)| room.queued).count());
        let kept = self.rooms.iter().filter_map(|(_, room)| room.kept.as_ref());
        let (mut rooms, mut events, mut bytes) = (0, 0, 0);
        for KeptEvents { snapshot, .. } in kept.map(Box::as_ref) {
            (rooms, events, bytes) = (rooms + 1, events + snapshot.len(), bytes + snapshot.bytes());
        }
        assert_eq!((rooms, events, bytes), (self.keeping.len(), self.kept_events, self.kept_bytes));
    }

    fn find(&self, key: &RoomKey) -> Option<u32> {
        self.index.find(key.hash, |&slot| self.rooms[slot].key == *key).copied()
    }

    fn find_or_create(&mut self, key: &RoomKey, now: Millis) -> u32 {
        if let Some(slot) = self.find(key) {
            return slot;
        }
        let epoch = Epoch(self.next_epoch);
        self.next_epoch += 1;
        let room = OwnedRoom {
            key: key.clone(),
            epoch,
            last: Offset(0),
            traffic: Traffic::default(),
            attachments: SmallVec::new(),
            used: now,
            queued: false,
            kept: None,
            watched: false,
        };
        let slot = self.rooms.insert(room).slot;
        let rooms = &self.rooms;
        self.index.insert_unique(key.hash, slot, |&slot| rooms[slot].key.hash);
        self.queue_idle(slot, now);
        slot
    }

    fn queue_idle(&mut self, slot: u32, now: Millis) {
        let at = self.rooms.at(slot).expect("the room exists");
        if !std::mem::replace(&mut self.rooms[slot].queued, true) {
            self.idle.push_back((at, now));
        }
        // The bound counts queue entries: a room that got members since is dropped from the queue for free.
        while self.idle.len() > self.options.idle_max.max(1) {
            let (oldest, _) = self.idle.pop_front().expect("longer than the bound");
            let room = &mut self.rooms[oldest.slot];
            room.queued = false;
            if room.may_go() {
                assert_ne!(oldest.slot, slot, "the newest is last");
                self.forget(oldest);
            }
        }
    }

    /// Has somebody look at the room when its oldest event is too old.
    fn watch(&mut self, slot: u32) -> Option<(SlotRef, Millis)> {
        let at = self.rooms.at(slot).expect("the room exists");
        let room = &mut self.rooms[slot];
        let KeptEvents { snapshot, age_ms_max, .. } = room.kept.as_deref()?;
        let due = snapshot.oldest()?.after((*age_ms_max)?);
        (!std::mem::replace(&mut room.watched, true)).then_some((at, due))
    }

    fn expire_kept(&mut self, slot: u32, now: Millis) -> u64 {
        let Some(kept) = &mut self.rooms[slot].kept else { return 0 };
        let Some(age_ms_max) = kept.age_ms_max else { return 0 };
        let before = kept.snapshot.bytes();
        let expired = kept.snapshot.expire(now, age_ms_max);
        self.kept_events -= expired as usize;
        self.kept_bytes -= before - kept.snapshot.bytes();
        if kept.snapshot.is_empty() {
            self.drop_kept(slot, now);
        }
        expired
    }

    /// The room keeps nothing any more; returns how many events it kept.
    fn drop_kept(&mut self, slot: u32, now: Millis) -> u64 {
        let room = &mut self.rooms[slot];
        let kept = room.kept.take().expect("the caller has seen it");
        self.keeping.remove(&(kept.count, slot));
        self.kept_events -= kept.snapshot.len();
        self.kept_bytes -= kept.snapshot.bytes();
        if room.attachments.is_empty() {
            self.queue_idle(slot, now);
        }
        kept.snapshot.len() as u64
    }

    fn forget(&mut self, at: SlotRef) {
        let room = self.rooms.remove(at).expect("the room exists");
        assert!(room.may_go() && !room.queued);
        match self.index.find_entry(room.key.hash, |&slot| slot == at.slot) {
            Ok(entry) => drop(entry.remove()),
            Err(_) => unreachable!("every room is indexed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::{NamespaceId, RoomName, Topology};

    fn attachment(core: usize, slot: u32) -> Attachment {
        let group = SlotRef { slot, generation: 0 };
        Attachment { group, core: CoreId::new(core), encoding: Encoding::RawNested }
    }

    #[test]
    fn offsets_count_from_one_and_survive_until_the_room_is_idle() {
        let topology = Topology::new(1, 1);
        let key = topology.key(NamespaceId(0), RoomName::new("a", 9).unwrap());
        let mut rooms = OwnedRooms::new(Options { idle_ms: 100, idle_max: 10, ..Options::default() }, 7);
        assert_eq!(rooms.append(&key, 5, Millis(0)).0, Offset(1));
        assert_eq!(rooms.attach(&key, attachment(0, 1), Millis(10)), (Offset(1), Epoch(7)));
        let (offset, groups) = rooms.append(&key, 5, Millis(20));
        assert_eq!((offset, groups), (Offset(2), &[attachment(0, 1)][..]));
        assert_eq!(rooms.expire(Millis(500)), None, "a room with members stays");
        rooms.detach(&key, attachment(0, 1), Millis(600));
        assert_eq!(rooms.expire(Millis(650)), Some(Millis(700)));
        assert_eq!(rooms.append(&key, 5, Millis(690)).0, Offset(3));
        rooms.expire(Millis(700));
        rooms.check();
        assert_eq!(rooms.len(), 1, "used at 690");
        rooms.expire(Millis(800));
        assert!(rooms.is_empty());
        assert_eq!(
            rooms.attach(&key, attachment(0, 2), Millis(801)),
            (Offset(0), Epoch(8)),
            "a new order, a new epoch"
        );
    }

    #[test]
    fn idle_rooms_are_bounded_and_the_longest_idle_goes_first() {
        let topology = Topology::new(1, 1);
        let mut rooms = OwnedRooms::new(Options { idle_ms: 1_000, idle_max: 3, ..Options::default() }, 0);
        let keys: Vec<_> =
            (0..5).map(|n| topology.key(NamespaceId(0), RoomName::new(&n.to_string(), 9).unwrap())).collect();
        for key in &keys {
            rooms.append(key, 5, Millis(0));
            rooms.check();
        }
        assert_eq!(rooms.len(), 3);
        assert_eq!(rooms.append(&keys[4], 5, Millis(1)).0, Offset(2));
        assert_eq!(rooms.append(&keys[0], 5, Millis(1)).0, Offset(1));
    }

    #[test]
    fn a_room_that_keeps_something_is_not_idle_until_that_is_too_old() {
        use crate::base::event::Event;
        let topology = Topology::new(1, 1);
        let keys: Vec<_> =
            (0..3).map(|n| topology.key(NamespaceId(0), RoomName::new(&n.to_string(), 9).unwrap())).collect();
        let event = |key: &str| {
            let event = Event::new(NamespaceId(0), "\"e\"", "1", 1);
            Arc::new(Encodable::new(event, Some(key.into()), None))
        };
        let aged = SnapshotOptions { age_ms_max: Some(1_000), ..SnapshotOptions::default() };
        let mut rooms = OwnedRooms::new(Options { idle_ms: 100, idle_max: 10, snapshots_bytes_max: 10 }, 0);
        rooms.append(&keys[0], 5, Millis(0));
        let outcome = rooms.keep(&keys[0], event("a"), &aged, Millis(0));
        let Some((at, due)) = outcome.watch else { panic!("{outcome:?}") };
        assert_eq!(due, Millis(1_000));
        rooms.append(&keys[0], 5, Millis(500));
        assert_eq!(rooms.keep(&keys[0], event("b"), &aged, Millis(500)), KeepOutcome::default(), "watched already");
        assert_eq!((rooms.expire(Millis(900)), rooms.len(), rooms.kept()), (None, 1, (2, 10)));
        rooms.check();
        assert_eq!(rooms.kept_due(at, Millis(1_000)), (1, Some(Millis(1_500))));
        assert_eq!(rooms.snapshot(&keys[0], Millis(1_499)).map(|snapshot| snapshot.len()), Some(1));
        assert!(rooms.snapshot(&keys[0], Millis(1_500)).is_none());
        rooms.check();
        assert_eq!(rooms.kept_due(at, Millis(1_500)), (0, None));
        assert_eq!((rooms.expire(Millis(1_600)), rooms.len()), (None, 0));
        // Together they keep ten bytes: the room that has heard nothing for longest gives way.
        let for_ever = SnapshotOptions::default();
        for (key, for_memory) in [(&keys[1], 0), (&keys[2], 0), (&keys[1], 0), (&keys[0], 1)] {
            rooms.append(key, 5, Millis(2_000));
            assert_eq!(rooms.keep(key, event("a"), &for_ever, Millis(2_000)).for_memory, for_memory);
            rooms.check();
        }
        assert!(rooms.snapshot(&keys[2], Millis(2_000)).is_none());
        assert_eq!(rooms.kept(), (2, 10));
    }
}
