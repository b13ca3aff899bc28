//! The owner's side of rooms: each room's order and the cores that have members. Does not know who the members are.

use super::traffic::Traffic;
use crate::base::clock::Millis;
use crate::base::frame::Encoding;
use crate::base::ids::{CoreId, Epoch, Offset, RoomKey, SlotRef};
use crate::base::slab::Slab;
use hashbrown::HashTable;
use smallvec::SmallVec;
use std::collections::VecDeque;

/// How long orders outlive their rooms.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A room without members and events for this long is forgotten; its next event begins a new epoch at offset 1.
    pub idle_ms: u64,
    /// Rooms without members that are remembered at most; beyond, the longest idle one is forgotten.
    pub idle_max: usize,
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
        Options { idle_ms: 60_000, idle_max: 100_000 }
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
        }
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
            if !room.attachments.is_empty() {
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
            assert!(room.queued || !room.attachments.is_empty(), "{:?} would never be forgotten", room.key);
        }
        assert_eq!(self.idle.len(), self.rooms.iter().filter(|(_, room)| room.queued).count());
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
            if room.attachments.is_empty() {
                assert_ne!(oldest.slot, slot, "the newest is last");
                self.forget(oldest);
            }
        }
    }

    fn forget(&mut self, at: SlotRef) {
        let room = self.rooms.remove(at).expect("the room exists");
        assert!(room.attachments.is_empty() && !room.queued);
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
        let mut rooms = OwnedRooms::new(Options { idle_ms: 100, idle_max: 10 }, 7);
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
        let mut rooms = OwnedRooms::new(Options { idle_ms: 1_000, idle_max: 3 }, 0);
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
}
