//! Memberships begin and end here. A join of several rooms takes effect in all of them at once, when the last owner has
//! answered; only then does the client hear of it.

use super::messages::{Down, Kept, KeptContent, Manner, Operate, Operation, ReceiptTo, SnapshotAsk, SnapshotTo, Up};
use super::{Action, DISCONNECTED, Line, Shard, name_of};
use crate::base::frame::Frame;
use crate::base::ids::{Epoch, Offset, RoomKey, RoomName, SlotRef, SocketId};
use crate::base::slab::Slab;
use crate::proto::socketio;
use crate::room::members::{GroupRef, Hold, Member};
use crate::session::Kind;
use crate::session::rules::{Args, Reply};
use smallvec::SmallVec;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

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
    /// Joins that have a room's snapshot and wait for others', by group slot: what the group gets meanwhile is theirs.
    following: HashMap<u32, SmallVec<[SlotRef; 1]>>,
    /// Events that clients cause, for sockets whose message is done but for them: the rings to the owners were full.
    emitting: VecDeque<(SlotRef, Vec<Line>)>,
}

#[derive(Debug)]
struct Join {
    socket: SlotRef,
    /// Groups of which this join has a hold.
    groups: SmallVec<[u32; 2]>,
    /// Present if it wants to know what rooms keep.
    wanted: Option<Box<Wanted>>,
    then: Then,
}

/// Snapshots that a join wants. They are asked for when all groups are attached, so that the answers come between the
/// rooms' deliveries.
#[derive(Debug, Default)]
struct Wanted {
    items: SmallVec<[WantedItem; 1]>,
    /// True once the owners are asked.
    asked: bool,
    /// Answers to come.
    missing: usize,
    /// What the groups got that have answered, while others have not.
    live: Vec<Frame>,
}

#[derive(Debug)]
struct WantedItem {
    room: RoomKey,
    /// The group that the socket joins; `None` if only the values are wanted.
    group: Option<u32>,
    content: Option<KeptContent>,
}

/// Snapshots that go with a join.
#[derive(Debug, Default)]
pub(super) struct Wants {
    /// Rooms, among those joined, whose kept events are wanted.
    pub(super) events: SmallVec<[RoomKey; 1]>,
    /// Rooms whose values are wanted, in the order in which the answer numbers them.
    pub(super) values: SmallVec<[RoomKey; 1]>,
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
    /// The client gets its answer, and its next message may be handled.
    Answer(Answer),
    /// The socket is connected: likewise, from here on it gets events.
    Connected(Answer),
    /// A publisher's operation is one join nearer to its end.
    Operation(SlotRef),
}

/// What a client gets when its message is done.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) frames: SmallVec<[Frame; 2]>,
    /// Encoded when the values of snapshots are there.
    pub(super) late: Option<Box<LateAnswer>>,
    /// Events for rooms, as soon as the socket is in those that it joins.
    pub(super) emits: Vec<Line>,
    /// The socket is disconnected after that.
    pub(super) disconnect: bool,
}

/// Replies and acknowledgement in which values of snapshots are to be put.
#[derive(Debug)]
pub(super) struct LateAnswer {
    pub(super) replies: Vec<Reply>,
    pub(super) ack: Option<(u64, Args)>,
    pub(super) attachments: Vec<Box<[u8]>>,
}

impl Joins {
    pub(super) fn check(&self) {
        for (at, join) in self.pending.iter() {
            let waits = |group: &u32| self.waiters.get(group).is_some_and(|list| list.contains(&at));
            let wants = join.wanted.as_ref().is_some_and(|wanted| wanted.asked && wanted.missing > 0);
            let behind = join.wanted.is_none() && self.wants(join.socket);
            assert!(wants || behind || join.groups.iter().any(waits), "a join that waits for nothing");
        }
        for (group, joins) in &self.following {
            assert!(!joins.is_empty());
            for at in joins {
                assert!(
                    self.pending.get(*at).is_some_and(|join| join.groups.contains(group)),
                    "who follows has a hold"
                );
            }
        }
    }

    /// True while a client's message is not done as its events wait for space in the rings.
    pub(super) fn has_emits(&self) -> bool {
        !self.emitting.is_empty()
    }
}

impl Shard {
    /// Puts the socket into rooms; `then` follows when it is in all of them and knows what it wants to know. Returns
    /// true if that is already so.
    pub(super) fn join(&mut self, socket: SlotRef, rooms: &[RoomKey], wants: Wants, then: Then) -> bool {
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
        let wanted = wants.of_join(rooms, &groups);
        let join = Join { socket, groups, wanted, then };
        if waiting.is_empty() && join.wanted.is_none() && !self.is_ahead_of_state(&join) {
            return self.commit(join);
        }
        self.sockets[socket.slot].joining += 1;
        let wants = join.wanted.is_some();
        let at = self.joins.pending.insert(join);
        if wants && waiting.is_empty() {
            self.ask_snapshots(at);
            return false;
        }
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
        self.leave_joined(socket, which);
    }

    /// Likewise, of the rooms that it is in.
    fn leave_joined(&mut self, socket: SlotRef, which: impl FnMut(&RoomKey) -> bool) {
        let Shard { local, port, topology, .. } = self;
        let ended = local.leave(socket.slot, which, |group| detach(port, topology, group));
        self.counters.leaves += ended as u64;
    }

    /// Ends a socket. Its memberships end; joins under way find it gone.
    pub(super) fn remove_socket(&mut self, socket: SlotRef) {
        self.desert_asks(socket);
        let removed = self.sockets.remove(socket).expect("a session's socket exists");
        if removed.joining > 0 {
            self.leave_pending(socket, &mut |_| true);
        }
        self.leave_joined(socket, |_| true);
        // Its message is done with that, whatever it still waits for.
        if self.sessions[removed.session].busy == Some(socket) {
            self.resume(self.sessions.at(removed.session).expect("a socket's session exists"));
        }
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
                        self.join(socket, rooms, Wants::default(), Then::Operation(at));
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

    pub(super) fn say_goodbye(&mut self, session: SlotRef, socket: SlotRef) {
        self.scratch.clear();
        let name = name_of(&self.namespaces, self.sockets[socket.slot].namespace_ref());
        socketio::disconnect(&mut self.scratch, name);
        self.push_scratch(session.slot);
    }

    /// Ends one socket of a session that goes on.
    pub(super) fn forget_socket(&mut self, session: SlotRef, socket: SlotRef) {
        self.sessions[session.slot].sockets.retain(|(_, other)| *other != socket);
        self.remove_socket(socket);
    }

    /// True if the socket's rooms and `more` together stay within the bound.
    pub(super) fn has_room_for(&self, socket: SlotRef, more: &[RoomKey]) -> bool {
        let named = |key: &&RoomKey| !key.name.is_whole_namespace();
        let present = self.local.rooms_of(socket.slot).filter(named).count();
        let new = more.iter().filter(|key| !self.local.rooms_of(socket.slot).any(|room| room == *key)).count();
        present + new <= self.options.limits.rooms_per_socket_max
    }

    fn leave_pending(&mut self, socket: SlotRef, which: &mut impl FnMut(&RoomKey) -> bool) {
        for at in self.joins.of_socket(socket) {
            // The end of an earlier one may have been what it waited for.
            let Some(join) = self.joins.pending.get_mut(at) else { continue };
            let groups = std::mem::take(&mut join.groups);
            let (leaves, stays): (SmallVec<[u32; 2]>, SmallVec<[u32; 2]>) =
                groups.into_iter().partition(|&group| which(self.local.key(group)));
            let join = &mut self.joins.pending[at.slot];
            join.groups = stays;
            // What a room keeps is not for who has left it. The numbers of the others must stay as they are.
            if let Some(wanted) = &mut join.wanted {
                for item in wanted.items.iter_mut().filter(|item| item.group.is_some_and(|g| leaves.contains(&g))) {
                    wanted.missing -= usize::from(item.content.is_none());
                    (item.group, item.content) = (None, Some(KeptContent::Events(Vec::new())));
                }
            }
            for group in leaves {
                self.joins.unfollow(group, at);
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
        if let Some(wanted) = &join.wanted
            && wanted.missing > 0
        {
            if !wanted.asked {
                self.ask_snapshots(at);
            }
            return;
        }
        if self.is_ahead_of_state(join) {
            return;
        }
        for group in join.groups.clone() {
            self.joins.unfollow(group, at);
        }
        let join = self.joins.pending.remove(at).expect("looked up above");
        let (socket, wanted) = (join.socket, join.wanted.is_some());
        if let Some(socket) = self.sockets.get_mut(socket) {
            socket.joining -= 1;
        }
        self.commit(join);
        if wanted && self.sockets.get(socket).is_some_and(|socket| socket.joining > 0) {
            self.joins.of_socket(socket).into_iter().for_each(|at| self.go_on(at));
        }
    }

    /// True if the join would give its socket events of a room before an older state that is on its way to it: a
    /// publisher's operation waits until the client has what it asked for.
    fn is_ahead_of_state(&self, join: &Join) -> bool {
        let may_be = !join.groups.is_empty() && join.wanted.is_none();
        may_be
            && self.sockets.get(join.socket).is_some_and(|socket| socket.joining > 0)
            && self.joins.wants(join.socket)
    }

    /// Asks the owners for what the join wants to know.
    fn ask_snapshots(&mut self, at: SlotRef) {
        let Join { socket, wanted: Some(wanted), .. } = &mut self.joins.pending[at.slot] else {
            unreachable!("the caller has seen what it wants")
        };
        wanted.asked = true;
        let encoding = self.sockets.get(*socket).map(|socket| self.sessions[socket.session].kind.encoding());
        for (item, WantedItem { room, group, content }) in wanted.items.iter().enumerate() {
            if content.is_none() {
                let to = SnapshotTo { join: at, item: item as u32 };
                // Whoever is gone by now wants no frames; its join ends when the answers are in.
                let encoding = encoding.filter(|_| group.is_some());
                let ask = SnapshotAsk { room: room.clone(), encoding, to };
                self.port.up.send(self.topology.owner(room), Up::Snapshot(Box::new(ask)));
            }
        }
    }

    /// An owner's answer: what a room keeps, at this place between its deliveries.
    pub(super) fn kept(&mut self, kept: Kept) {
        let Kept { to: SnapshotTo { join: at, item }, content } = kept;
        let Some(Join { socket, wanted: Some(wanted), .. }) = self.joins.pending.get_mut(at) else { return };
        let item = &mut wanted.items[item as usize];
        if item.content.is_some() {
            return;
        }
        wanted.missing -= 1;
        let (socket, group, missing) = (*socket, item.group, wanted.missing);
        let is_member = group.is_some_and(|group| self.local.is_member(socket.slot, group));
        match content {
            // Who is in the room already gets its events meanwhile: what it kept must not come after them.
            KeptContent::Events(frames) if is_member && missing > 0 && self.sockets.get(socket).is_some() => {
                item.content = Some(KeptContent::Events(Vec::new()));
                let session = self.sockets[socket.slot].session;
                for frame in frames {
                    self.push(session, frame);
                }
            }
            content => {
                item.content = Some(content);
                if let Some(group) = group.filter(|_| missing > 0) {
                    self.joins.following.entry(group).or_default().push(at);
                }
            }
        }
        self.go_on(at);
    }

    /// An event was delivered to a group: joins that have the room's snapshot and are not done yet keep it for later.
    /// `is_new` tells for each of their sockets whether it has the event from nowhere else. Returns the sockets that
    /// will get it.
    pub(super) fn follow(
        &mut self,
        group: u32,
        frame: &Frame,
        manner: Option<&Manner>,
        mut is_new: impl FnMut(SlotRef) -> bool,
    ) -> SmallVec<[SlotRef; 1]> {
        let mut taken = SmallVec::new();
        let Some(followers) = self.joins.following.get(&group) else { return taken };
        for at in followers {
            let Join { socket, wanted: Some(wanted), .. } = &mut self.joins.pending[at.slot] else {
                unreachable!("who follows wants a snapshot")
            };
            let Some(entry) = self.sockets.get(*socket) else { continue };
            let is_excepted = |key: &RoomKey| {
                let by_id = SocketId::parse(key.name.as_str()) == Some(entry.sid) && key.namespace == entry.namespace;
                by_id || self.local.rooms_of(socket.slot).any(|room| room == key)
            };
            if is_new(*socket) && !manner.is_some_and(|manner| manner.except.iter().any(is_excepted)) {
                wanted.live.push(frame.clone());
                taken.push(*socket);
            }
        }
        taken
    }

    /// Publishes what clients have caused, as far as there is space in the rings.
    pub(super) fn emit_some(&mut self) {
        while self.may_publish()
            && let Some((socket, lines)) = self.joins.emitting.pop_front()
        {
            for line in lines {
                self.publish(line, None);
            }
            if let Some(socket) = self.sockets.get(socket)
                && let Some(session) = self.sessions.at(socket.session)
            {
                self.resume(session);
            }
        }
    }

    /// Makes the socket a member of all groups, and says so. Returns true if the message is done with that.
    fn commit(&mut self, join: Join) -> bool {
        let Join { socket, groups, wanted, then } = join;
        let Some(entry) = self.sockets.get(socket) else {
            for group in groups {
                self.give_back(group);
            }
            self.orphaned(socket, then);
            return true;
        };
        let member = Member { session: entry.session, socket: socket.slot };
        for group in groups {
            self.counters.joins += u64::from(self.local.join(group, member));
        }
        let session = self.sessions.at(member.session).expect("a socket's session exists");
        match then {
            Then::Answer(answer) => self.answer(session, socket, answer, wanted),
            Then::Connected(answer) => {
                self.sockets[socket.slot].connected = true;
                self.answer(session, socket, answer, wanted)
            }
            Then::Operation(at) => {
                self.operation_went_on(at);
                true
            }
        }
    }

    fn answer(&mut self, session: SlotRef, socket: SlotRef, answer: Answer, wanted: Option<Box<Wanted>>) -> bool {
        let Answer { mut frames, late, emits, disconnect } = answer;
        let Wanted { items, live, .. } = wanted.map(|wanted| *wanted).unwrap_or_default();
        let mut kept: Vec<Frame> = Vec::new();
        let mut values: Vec<Arc<str>> = Vec::new();
        for item in items {
            match item.content.expect("the join waits for all") {
                KeptContent::Events(events) => kept.extend(events),
                KeptContent::Values(array) => values.push(array),
            }
        }
        if let Some(late) = late {
            self.late_answers(session, socket, *late, &values, &mut frames);
        }
        for frame in frames.into_iter().chain(kept).chain(live) {
            self.push(session.slot, frame);
        }
        let has_own = !emits.is_empty();
        if has_own {
            self.joins.emitting.push_back((socket, emits));
            self.emit_some();
        }
        if disconnect {
            self.disconnect(socket, false);
            return true;
        }
        // Its own are the last.
        if has_own && self.joins.has_emits() {
            return false;
        }
        self.resume(session);
        true
    }

    /// The client's next message may be handled.
    pub(super) fn resume(&mut self, at: SlotRef) {
        let session = &mut self.sessions[at.slot];
        if session.busy.take().is_some() {
            let transport = session.polling.as_ref().map_or(Some(session.transport), |polling| polling.post);
            self.actions.extend(transport.map(|transport| Action::Resume { transport }));
        }
    }

    /// The join's socket is gone: it hears nothing more, but what it has said holds.
    fn orphaned(&mut self, socket: SlotRef, then: Then) {
        match then {
            Then::Answer(Answer { emits, .. }) if !emits.is_empty() => self.joins.emitting.push_back((socket, emits)),
            // Who was never there has not come.
            Then::Answer(_) | Then::Connected(_) => {}
            Then::Operation(at) => self.operation_went_on(at),
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

impl Joins {
    fn of_socket(&self, socket: SlotRef) -> Vec<SlotRef> {
        self.pending.iter().filter(|(_, join)| join.socket == socket).map(|(at, _)| at).collect()
    }

    /// True if the socket waits for what rooms keep.
    fn wants(&self, socket: SlotRef) -> bool {
        self.pending.iter().any(|(_, join)| join.socket == socket && join.wanted.is_some())
    }

    fn unfollow(&mut self, group: u32, at: SlotRef) {
        if let Some(followers) = self.following.get_mut(&group) {
            followers.retain(|other| *other != at);
            if followers.is_empty() {
                self.following.remove(&group);
            }
        }
    }

    /// True while some join follows some group.
    pub(super) fn has_followers(&self) -> bool {
        !self.following.is_empty()
    }
}

impl Wants {
    /// What a join of `rooms`, whose groups are `groups`, has to ask for.
    fn of_join(self, rooms: &[RoomKey], groups: &[u32]) -> Option<Box<Wanted>> {
        let events = self.events.into_iter().map(|room| {
            let at = rooms.iter().position(|other| *other == room).expect("the room is joined");
            WantedItem { room, group: Some(groups[at]), content: None }
        });
        let values = self.values.into_iter().map(|room| WantedItem { room, group: None, content: None });
        let items: SmallVec<[WantedItem; 1]> = events.chain(values).collect();
        let missing = items.len();
        (missing > 0).then(|| Box::new(Wanted { items, missing, ..Wanted::default() }))
    }
}

fn detach(port: &mut crate::mesh::Port<Up, Down>, topology: &crate::base::ids::Topology, group: GroupRef) {
    let owner = topology.owner(&group.key);
    port.up.send(owner, Up::Detach(group));
}
