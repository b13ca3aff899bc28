//! Memberships begin and end here. A join of several rooms takes effect in all of them at once, when the last owner has
//! answered; only then does the client hear of it.

use super::messages::{Down, Operate, Operation, ReceiptTo, Up};
use super::{Action, DISCONNECTED, Shard, name_of};
use crate::base::frame::Frame;
use crate::base::ids::{Epoch, Offset, RoomKey, RoomName, SlotRef};
use crate::base::slab::Slab;
use crate::proto::socketio;
use crate::room::members::{GroupRef, Hold, Member};
use crate::session::Kind;
use smallvec::SmallVec;
use std::collections::HashMap;

/// A publisher's operation with rooms by name.
#[derive(Debug)]
pub enum NamedOperation {
    /// Put the sockets into rooms.
    Join(Vec<RoomName>),
    /// Take the sockets out of rooms.
    Leave(Vec<RoomName>),
    /// End the sockets' presence in the namespace.
    Disconnect {
        /// End their whole connections.
        close: bool,
    },
}

/// Joins and operations under way on one core.
#[derive(Debug, Default)]
pub(super) struct Joins {
    pending: Slab<Join>,
    /// Joins to look at when a group's owner answers, by group slot.
    waiters: HashMap<u32, SmallVec<[SlotRef; 2]>>,
    /// Operations of which joins are still under way.
    operations: Slab<Operated>,
}

#[derive(Debug)]
struct Join {
    socket: SlotRef,
    /// Groups of which this join has a hold.
    groups: SmallVec<[u32; 2]>,
    then: Then,
}

#[derive(Debug)]
struct Operated {
    to: ReceiptTo,
    sockets: u32,
    refused: u32,
    /// Joins under way, and one for the operation itself until all are begun.
    remaining: u32,
}

/// What follows a join.
#[derive(Debug)]
pub(super) enum Then {
    /// The client gets frames, and its next message may be handled.
    Answer(SmallVec<[Frame; 2]>),
    /// The socket is connected: likewise, from here on it gets events.
    Connected(SmallVec<[Frame; 2]>),
    /// A publisher's operation is one join nearer to its end.
    Operation(SlotRef),
}

impl Joins {
    pub(super) fn check(&self) {
        for (at, join) in self.pending.iter() {
            let waits = |group: &u32| self.waiters.get(group).is_some_and(|list| list.contains(&at));
            assert!(join.groups.iter().any(waits), "a join that waits for nothing");
        }
    }
}

impl Shard {
    /// Puts the socket into rooms; `then` follows when it is in all of them. Returns true if that is already so.
    pub(super) fn join(&mut self, socket: SlotRef, rooms: &[RoomKey], then: Then) -> bool {
        let encoding = self.sessions[self.sockets[socket.slot].session].kind.encoding();
        let mut groups: SmallVec<[u32; 2]> = SmallVec::new();
        let mut waiting: SmallVec<[u32; 2]> = SmallVec::new();
        for key in rooms {
            let Shard { local, patterns, namespaces, .. } = self;
            let slow = || patterns.slow_class(namespaces, key.namespace, key.name.as_str());
            let (group, hold) = local.hold(key, encoding, slow);
            groups.push(group);
            match hold {
                Hold::Ready => continue,
                Hold::Waiting => {}
                Hold::Attach(attach) => self.port.up.send(self.topology.owner(key), Up::Attach(attach)),
            }
            waiting.push(group);
        }
        if waiting.is_empty() {
            self.commit(Join { socket, groups, then });
            return true;
        }
        self.sockets[socket.slot].joining += 1;
        let at = self.joins.pending.insert(Join { socket, groups, then });
        for group in waiting {
            let list = self.joins.waiters.entry(group).or_default();
            if !list.contains(&at) {
                list.push(at);
            }
        }
        false
    }

    /// An owner's answer: goes on with the joins that waited for it.
    pub(super) fn attached(&mut self, group: SlotRef, offset: Offset, epoch: Epoch) {
        if !self.local.attached(group, offset, epoch) {
            return;
        }
        for at in self.joins.waiters.remove(&group.slot).unwrap_or_default() {
            self.go_on(at);
        }
    }

    /// Takes the socket out of the rooms that `which` picks, whether it is in them or on its way there.
    pub(super) fn leave(&mut self, socket: SlotRef, mut which: impl FnMut(&RoomKey) -> bool) {
        if self.sockets[socket.slot].joining > 0 {
            self.leave_pending(socket, &mut which);
        }
        let Shard { local, port, topology, .. } = self;
        let ended = local.leave(socket.slot, which, |group| detach(port, topology, group));
        self.counters.leaves += ended as u64;
    }

    /// Ends a socket. Its memberships end; joins under way find it gone.
    pub(super) fn remove_socket(&mut self, socket: SlotRef) {
        self.leave(socket, |_| true);
        self.desert_asks(socket);
        let removed = self.sockets.remove(socket);
        assert!(removed.is_some(), "a session's socket exists");
    }

    /// Applies a publisher's operation to the target room's members on this core. Returns how many there are.
    pub(super) fn apply(&mut self, operate: &Operate) -> usize {
        let mut sockets: Vec<SlotRef> =
            self.local.members_of(&operate.target).filter_map(|m| self.sockets.at(m.socket)).collect();
        if let Some(own) = self.own_socket(&operate.target).filter(|own| !sockets.contains(own)) {
            sockets.push(own);
        }
        let count = sockets.len();
        let mut refused = 0;
        let at = self.joins.operations.insert(Operated { to: operate.to, sockets: 0, refused: 0, remaining: 1 });
        for socket in sockets {
            // An earlier one's connection may have taken this one with it.
            if self.sockets.get(socket).is_none() {
                continue;
            }
            match &operate.operation {
                Operation::Join(rooms) => {
                    if self.has_room_for(socket, rooms) {
                        self.joins.operations[at.slot].remaining += 1;
                        self.join(socket, rooms, Then::Operation(at));
                    } else {
                        refused += 1;
                    }
                }
                Operation::Leave(rooms) => self.leave(socket, |key| rooms.contains(key)),
                Operation::Disconnect { close } => self.disconnect(socket, *close),
            }
        }
        let operated = &mut self.joins.operations[at.slot];
        operated.sockets = count as u32 - refused;
        operated.refused = refused;
        self.operation_went_on(at);
        count
    }

    /// Ends a socket on the server's behalf and tells the client. With `close` its whole connection ends; then each of
    /// its namespaces is told, as the Node server does: a client comes back by itself to those that were not.
    pub(super) fn disconnect(&mut self, socket: SlotRef, close: bool) {
        let Some(session) = self.sessions.at(self.sockets[socket.slot].session) else {
            unreachable!("a socket's session exists")
        };
        if self.sessions[session.slot].kind != Kind::SocketIo {
            return self.close(session, DISCONNECTED);
        }
        if close {
            let sockets: SmallVec<[SlotRef; 2]> =
                self.sessions[session.slot].sockets.iter().map(|(_, socket)| *socket).collect();
            // One that is not connected yet was never told that it is.
            for socket in sockets {
                if self.sockets[socket.slot].connected {
                    self.say_goodbye(session, socket);
                }
            }
            return self.close(session, DISCONNECTED);
        }
        self.say_goodbye(session, socket);
        self.forget_socket(session, socket);
    }

    fn say_goodbye(&mut self, session: SlotRef, socket: SlotRef) {
        self.scratch.clear();
        let name = name_of(&self.namespaces, self.sockets[socket.slot].namespace_ref());
        socketio::disconnect(&mut self.scratch, name);
        self.push_scratch(session.slot);
    }

    /// Ends one socket of a session that goes on.
    pub(super) fn forget_socket(&mut self, session: SlotRef, socket: SlotRef) {
        self.sessions[session.slot].sockets.retain(|(_, other)| *other != socket);
        self.remove_socket(socket);
        if self.sessions[session.slot].busy == Some(socket) {
            self.resume(session);
        }
    }

    /// True if the socket's rooms and `more` together stay within the bound.
    pub(super) fn has_room_for(&self, socket: SlotRef, more: &[RoomKey]) -> bool {
        let named = |key: &&RoomKey| !key.name.is_whole_namespace();
        let present = self.local.rooms_of(socket.slot).filter(named).count();
        let new = more.iter().filter(|key| !self.local.rooms_of(socket.slot).any(|room| room == *key)).count();
        present + new <= self.options.limits.rooms_per_socket_max
    }

    fn leave_pending(&mut self, socket: SlotRef, which: &mut impl FnMut(&RoomKey) -> bool) {
        let of_socket: Vec<SlotRef> =
            self.joins.pending.iter().filter(|(_, join)| join.socket == socket).map(|(at, _)| at).collect();
        for at in of_socket {
            let groups = std::mem::take(&mut self.joins.pending[at.slot].groups);
            let (leaves, stays): (SmallVec<[u32; 2]>, SmallVec<[u32; 2]>) =
                groups.into_iter().partition(|&group| which(self.local.key(group)));
            self.joins.pending[at.slot].groups = stays;
            for group in leaves {
                self.give_back(group);
            }
            self.go_on(at);
        }
    }

    /// Completes a join if nothing is missing any more.
    fn go_on(&mut self, at: SlotRef) {
        let Some(join) = self.joins.pending.get(at) else { return };
        if !join.groups.iter().all(|&group| self.local.is_attached(group)) {
            return;
        }
        let join = self.joins.pending.remove(at).expect("looked up above");
        if let Some(socket) = self.sockets.get_mut(join.socket) {
            socket.joining -= 1;
        }
        self.commit(join);
    }

    /// Makes the socket a member of all groups, and says so.
    fn commit(&mut self, join: Join) {
        let Join { socket, groups, then } = join;
        let Some(entry) = self.sockets.get(socket) else {
            for group in groups {
                self.give_back(group);
            }
            return self.orphaned(&then);
        };
        let member = Member { session: entry.session, socket: socket.slot };
        for group in groups {
            self.counters.joins += u64::from(self.local.join(group, member));
        }
        let session = self.sessions.at(member.session).expect("a socket's session exists");
        match then {
            Then::Answer(frames) => self.answer(session, frames),
            Then::Connected(frames) => {
                self.sockets[socket.slot].connected = true;
                self.answer(session, frames);
            }
            Then::Operation(at) => self.operation_went_on(at),
        }
    }

    fn answer(&mut self, session: SlotRef, frames: SmallVec<[Frame; 2]>) {
        for frame in frames {
            self.push(session.slot, frame);
        }
        self.resume(session);
    }

    /// The client's next message may be handled.
    fn resume(&mut self, at: SlotRef) {
        let session = &mut self.sessions[at.slot];
        if session.busy.take().is_some() {
            let transport = session.polling.as_ref().map_or(Some(session.transport), |polling| polling.post);
            self.actions.extend(transport.map(|transport| Action::Resume { transport }));
        }
    }

    /// The join's socket is gone; whoever waits for the join is not the client.
    fn orphaned(&mut self, then: &Then) {
        match then {
            Then::Answer(_) | Then::Connected(_) => {}
            Then::Operation(at) => self.operation_went_on(*at),
        }
    }

    fn operation_went_on(&mut self, at: SlotRef) {
        let operated = &mut self.joins.operations[at.slot];
        operated.remaining -= 1;
        if operated.remaining == 0
            && let Some(Operated { to, sockets, refused, .. }) = self.joins.operations.remove(at)
        {
            self.port.down.send(to.core, Down::Operated { to, sockets, refused });
        }
    }

    fn give_back(&mut self, group: u32) {
        if let Some(unused) = self.local.release(group) {
            // Nobody holds the group: whoever waited for its answer has given its hold back.
            self.joins.waiters.remove(&group);
            detach(&mut self.port, &self.topology, unused);
        }
    }
}

fn detach(port: &mut crate::mesh::Port<Up, Down>, topology: &crate::base::ids::Topology, group: GroupRef) {
    let owner = topology.owner(&group.key);
    port.up.send(owner, Up::Detach(group));
}
