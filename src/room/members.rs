//! The member core's side of rooms: which local sockets are in which room. Sockets and sessions are numbers here.
//!
//! Members are kept in groups, one for each room and encoding, so that a delivery walks one array.

use super::busiest::{Busiest, Delivered, Untold};
use crate::base::class::SlowClass;
use crate::base::frame::Encoding;
use crate::base::ids::{Epoch, Offset, RoomKey, SlotRef};
use crate::base::paged::PagedVec;
use crate::base::slab::Slab;
use hashbrown::HashTable;
use smallvec::SmallVec;

/// One member, as a delivery needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Slot of the session whose outbox gets the frames.
    pub session: u32,
    /// Slot of the socket that is the member.
    pub socket: u32,
}

/// What the owner must be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRef {
    /// The room.
    pub key: RoomKey,
    /// The group's encoding.
    pub encoding: Encoding,
    /// The group's slot here.
    pub group: SlotRef,
}

/// What taking a hold found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// The group is attached: members can join now.
    Ready,
    /// The group's `Attach` is on its way.
    Waiting,
    /// The group is new: the caller sends `Attach` to the owner.
    Attach(GroupRef),
}

/// All rooms with members on one core.
#[derive(Debug, Default)]
pub struct LocalRooms {
    groups: Slab<Group>,
    index: HashTable<u32>,
    /// Memberships by socket slot.
    of_socket: PagedVec<SmallVec<[Membership; 2]>>,
    /// Which rooms get most.
    pub busiest: Busiest,
}

#[derive(Debug)]
struct Group {
    key: RoomKey,
    encoding: Encoding,
    slow: SlowClass,
    /// The last offset that reached this core, with its order; `None` until the owner answered `Attach`.
    attached: Option<(Offset, Epoch)>,
    members: Vec<Member>,
    /// Joins that wait for the owner's answer about this or another group.
    holds: u32,
    untold: Untold,
}

/// `groups[group].members[position]` is this socket: true for each membership at any time.
#[derive(Clone, Copy, Debug)]
struct Membership {
    group: u32,
    position: u32,
}

impl LocalRooms {
    /// No rooms.
    #[must_use]
    pub fn new() -> LocalRooms {
        LocalRooms::default()
    }

    /// Groups known now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// True when there is no group.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Keeps the group of `key` and `encoding` alive until [`LocalRooms::join`] or [`LocalRooms::release`] gives the
    /// hold back. `slow` says how the group's slow members are treated, if it is new. Returns the group's slot.
    pub fn hold(&mut self, key: &RoomKey, encoding: Encoding, slow: impl FnOnce() -> SlowClass) -> (u32, Hold) {
        let same = |group: &Group| group.encoding == encoding && group.key == *key;
        if let Some(&slot) = self.index.find(key.hash, |&slot| same(&self.groups[slot])) {
            let group = &mut self.groups[slot];
            group.holds += 1;
            return (slot, if group.attached.is_some() { Hold::Ready } else { Hold::Waiting });
        }
        let at = self.groups.insert(Group {
            key: key.clone(),
            encoding,
            slow: slow(),
            attached: None,
            members: Vec::new(),
            holds: 1,
            untold: Untold::default(),
        });
        let groups = &self.groups;
        self.index.insert_unique(key.hash, at.slot, |&slot| groups[slot].key.hash);
        (at.slot, Hold::Attach(GroupRef { key: key.clone(), encoding, group: at }))
    }

    /// Gives a hold back unused. Returns what to detach, if nobody needs the group any more.
    pub fn release(&mut self, group: u32) -> Option<GroupRef> {
        self.groups[group].holds -= 1;
        self.remove_if_unused(group)
    }

    /// The owner's answer to `Attach`. False if the group is gone or a later one has its slot: the answer is void.
    pub fn attached(&mut self, at: SlotRef, offset: Offset, epoch: Epoch) -> bool {
        let Some(group) = self.groups.get_mut(at) else { return false };
        assert!(group.attached.is_none(), "one Attach, one answer");
        group.attached = Some((offset, epoch));
        true
    }

    /// True when the owner has answered for the group.
    #[must_use]
    pub fn is_attached(&self, group: u32) -> bool {
        self.groups[group].attached.is_some()
    }

    /// True if the socket is a member of the group.
    #[must_use]
    pub fn is_member(&self, socket: u32, group: u32) -> bool {
        self.of_socket.get(socket as usize).is_some_and(|memberships| memberships.iter().any(|m| m.group == group))
    }

    /// Makes the socket a member, giving one hold back; false if it was one already.
    ///
    /// # Panics
    /// If the group is not attached.
    pub fn join(&mut self, slot: u32, member: Member) -> bool {
        let group = &mut self.groups[slot];
        assert!(group.attached.is_some() && group.holds > 0);
        group.holds -= 1;
        let index = member.socket as usize;
        while self.of_socket.len() <= index {
            self.of_socket.push(SmallVec::new());
        }
        if self.of_socket[index].iter().any(|m| m.group == slot) {
            return false;
        }
        self.of_socket[index].push(Membership { group: slot, position: group.members.len() as u32 });
        group.members.push(member);
        true
    }

    /// Ends the socket's memberships in all rooms that `which` picks; `detach` gets the groups that nobody needs any
    /// more. Returns how many memberships ended.
    pub fn leave(
        &mut self,
        socket: u32,
        mut which: impl FnMut(&RoomKey) -> bool,
        mut detach: impl FnMut(GroupRef),
    ) -> usize {
        let Some(memberships) = self.of_socket.get_mut(socket as usize) else { return 0 };
        let mut ended: SmallVec<[Membership; 4]> = SmallVec::new();
        memberships.retain(|m| {
            let leaves = which(&self.groups[m.group].key);
            if leaves {
                ended.push(*m);
            }
            !leaves
        });
        if memberships.is_empty() {
            *memberships = SmallVec::new();
        }
        for Membership { group, position } in &ended {
            self.remove_member(*group, *position);
            if let Some(unused) = self.remove_if_unused(*group) {
                detach(unused);
            }
        }
        ended.len()
    }

    /// Takes note that the event at `offset` is delivered to the group now; false if the group is gone or not attached
    /// yet: the delivery was on its way to a former group in this slot.
    ///
    /// # Panics
    /// If `offset` does not follow the last one: the owner and the ring between us lost or doubled an event.
    #[must_use]
    pub fn deliver(&mut self, at: SlotRef, offset: Offset) -> bool {
        let Some(group) = self.groups.get_mut(at) else { return false };
        let Some((last, _)) = group.attached.as_mut() else { return false };
        assert_eq!(offset.0, last.0 + 1, "gap in {:?}", group.key);
        *last = offset;
        true
    }

    /// Notes what a delivery to a group brought about. Nobody has left or joined since.
    ///
    /// # Panics
    /// If the group is gone.
    #[inline]
    pub fn delivered(&mut self, at: SlotRef, delivered: Delivered) {
        let group = self.groups.get_mut(at).expect("the caller has just delivered to it");
        self.busiest.note(&group.key, &mut group.untold, delivered);
    }

    /// The members of a group.
    ///
    /// # Panics
    /// If the group is gone.
    #[must_use]
    pub fn members(&self, at: SlotRef) -> &[Member] {
        &self.groups.get(at).expect("the caller has just delivered to it").members
    }

    /// How slow members of a group are treated.
    ///
    /// # Panics
    /// If the group is gone.
    #[must_use]
    pub fn slow_class(&self, at: SlotRef) -> SlowClass {
        self.groups.get(at).expect("the caller has just delivered to it").slow
    }

    /// The members of every group of a room, whatever their encoding.
    pub fn members_of<'a>(&'a self, key: &'a RoomKey) -> impl Iterator<Item = Member> + 'a {
        self.index
            .iter_hash(key.hash)
            .map(|&slot| &self.groups[slot])
            .filter(move |group| group.key == *key)
            .flat_map(|group| group.members.iter().copied())
    }

    /// How many members the room has here, by [`Encoding::index`].
    #[must_use]
    pub fn count_of(&self, key: &RoomKey) -> [u32; Encoding::COUNT] {
        let mut count = [0; Encoding::COUNT];
        for group in self.index.iter_hash(key.hash).map(|&slot| &self.groups[slot]).filter(|group| group.key == *key) {
            count[group.encoding.index()] += group.members.len() as u32;
        }
        count
    }

    /// For going through the groups step by step: `slots` is where [`LocalRooms::key_at`] ends.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.groups.slots()
    }

    /// The room of the group in this slot, if any.
    #[must_use]
    pub fn key_at(&self, slot: u32) -> Option<&RoomKey> {
        self.groups.at(slot).map(|at| &self.groups[at.slot].key)
    }

    /// The rooms that the socket is in, in the order of joining as long as it has left none.
    pub fn rooms_of(&self, socket: u32) -> impl Iterator<Item = &RoomKey> {
        let memberships = self.of_socket.get(socket as usize).map_or(&[][..], |m| &m[..]);
        memberships.iter().map(|m| &self.groups[m.group].key)
    }

    /// All groups.
    pub fn groups(&self) -> impl Iterator<Item = SlotRef> {
        self.groups.iter().map(|(at, _)| at)
    }

    /// The key of a group that the caller holds.
    #[must_use]
    pub fn key(&self, group: u32) -> &RoomKey {
        &self.groups[group].key
    }

    /// Members and memberships name each other; no group is without members and holds; the index finds each group.
    pub fn check(&self) {
        assert_eq!(self.index.len(), self.groups.len());
        let mut memberships = 0;
        for (at, group) in self.groups.iter() {
            assert!(group.holds > 0 || !group.members.is_empty(), "unused group {:?}", group.key);
            assert!(group.attached.is_some() || group.members.is_empty(), "member before Attached");
            assert!(self.index.find(group.key.hash, |&slot| slot == at.slot).is_some());
            memberships += group.members.len();
        }
        assert_eq!(memberships, self.of_socket.iter().map(SmallVec::len).sum::<usize>());
        for (socket, list) in self.of_socket.iter().enumerate() {
            for m in list {
                assert_eq!(self.groups[m.group].members[m.position as usize].socket as usize, socket);
            }
        }
    }

    fn remove_member(&mut self, slot: u32, position: u32) {
        let group = &mut self.groups[slot];
        group.members.swap_remove(position as usize);
        if group.members.capacity() > 4 * group.members.len().max(4) {
            group.members.shrink_to(2 * group.members.len());
        }
        if let Some(moved) = group.members.get(position as usize) {
            let memberships = &mut self.of_socket[moved.socket as usize];
            let entry = memberships.iter_mut().find(|m| m.group == slot).expect("a member has a membership");
            entry.position = position;
        }
    }

    fn remove_if_unused(&mut self, slot: u32) -> Option<GroupRef> {
        let group = &self.groups[slot];
        if group.holds > 0 || !group.members.is_empty() {
            return None;
        }
        let hash = group.key.hash;
        match self.index.find_entry(hash, |&other| other == slot) {
            Ok(entry) => drop(entry.remove()),
            Err(_) => unreachable!("every group is indexed"),
        }
        let at = self.groups.at(slot).expect("the group exists");
        let Group { key, encoding, untold, .. } = self.groups.remove(at).expect("the group exists");
        self.busiest.leave(&key, untold);
        Some(GroupRef { key, encoding, group: at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::{NamespaceId, RoomName, Topology};

    fn key(topology: &Topology, name: &str) -> RoomKey {
        topology.key(NamespaceId(0), RoomName::new(name, 200).unwrap())
    }

    fn joined(rooms: &mut LocalRooms, key: &RoomKey, socket: u32) -> u32 {
        let (slot, hold) = rooms.hold(key, Encoding::RawNested, SlowClass::default);
        if let Hold::Attach(group) = hold {
            assert!(rooms.attached(group.group, Offset(0), Epoch(0)));
        }
        rooms.join(slot, Member { session: socket + 100, socket });
        slot
    }

    #[test]
    fn leaving_keeps_the_other_members_places() {
        let topology = Topology::new(1, 1);
        let (a, b) = (key(&topology, "a"), key(&topology, "b"));
        let mut rooms = LocalRooms::new();
        for socket in 0..5 {
            joined(&mut rooms, &a, socket);
            joined(&mut rooms, &b, socket);
        }
        rooms.check();
        assert_eq!(rooms.leave(1, |k| *k == a, |_| panic!("others are in")), 1);
        rooms.check();
        let mut left: Vec<u32> = rooms.members_of(&a).map(|m| m.socket).collect();
        left.sort_unstable();
        assert_eq!(left, [0, 2, 3, 4]);
        assert_eq!(rooms.rooms_of(1).map(|k| k.name.as_str()).collect::<Vec<_>>(), ["b"]);
        let mut detached = Vec::new();
        for socket in 0..5 {
            rooms.leave(socket, |_| true, |group| detached.push(group.key.name.as_str().to_owned()));
            rooms.check();
        }
        assert_eq!(detached, ["a", "b"]);
        assert!(rooms.is_empty());
    }

    #[test]
    fn joining_twice_is_joining_once() {
        let topology = Topology::new(1, 1);
        let a = key(&topology, "a");
        let mut rooms = LocalRooms::new();
        joined(&mut rooms, &a, 1);
        let (slot, hold) = rooms.hold(&a, Encoding::RawNested, SlowClass::default);
        assert_eq!(hold, Hold::Ready);
        assert!(!rooms.join(slot, Member { session: 101, socket: 1 }));
        rooms.check();
        assert_eq!(rooms.members_of(&a).count(), 1);
    }

    #[test]
    fn an_answer_to_a_group_that_is_gone_is_void() {
        let topology = Topology::new(1, 1);
        let a = key(&topology, "a");
        let mut rooms = LocalRooms::new();
        let (slot, Hold::Attach(first)) = rooms.hold(&a, Encoding::RawNested, SlowClass::default) else {
            panic!("new")
        };
        assert_eq!(rooms.release(slot), Some(first.clone()));
        let (again, Hold::Attach(second)) = rooms.hold(&a, Encoding::RawNested, SlowClass::default) else {
            panic!("new again")
        };
        assert_eq!((slot, first.group.slot), (again, second.group.slot), "the slot is reused");
        assert!(!rooms.attached(first.group, Offset(5), Epoch(1)));
        assert!(!rooms.deliver(first.group, Offset(6)));
        assert!(!rooms.deliver(second.group, Offset(6)), "not attached yet");
        assert!(rooms.attached(second.group, Offset(6), Epoch(1)));
        assert!(rooms.deliver(second.group, Offset(7)));
    }
}
