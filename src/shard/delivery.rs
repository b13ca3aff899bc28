//! The way of an event: from a publisher's core to the owners, from there to member cores, into outboxes.

use super::messages::{
    DeliverMany, Down, Found, Kept, KeptContent, Manner, Operate, Operation, Part, Publish, ReceiptTo, SnapshotAsk, Up,
};
use super::slow::fate;
use super::{Action, AskOptions, NamedOperation, Namespace, Shard, TimerKey, name_of};
use crate::base::class::{PatternId, SlowClass};
use crate::base::clock::{Millis, Stamp};
use crate::base::counters;
use crate::base::event::{Encodable, Event};
use crate::base::frame::{Encoding, Frame};
use crate::base::ids::{CoreId, NamespaceId, NamespaceRef, Offset, RoomKey, RoomName, SlotRef, SocketId};
use crate::proto::{json, line, raw, socketio};
use crate::room::busiest::Delivered;
use crate::room::members::{GroupRef, LocalRooms, Member};
use crate::room::owner::{Attachment, KeepOutcome};
use crate::session::outbox::{Fate, Offer, Outboxes, SharedFrame};
use smallvec::SmallVec;
use std::collections::HashSet;
use std::sync::Arc;

/// An event with its addressees, as a publisher's line gives it.
#[derive(Debug)]
pub struct Line {
    /// The event.
    pub event: Event,
    /// Its rooms, without duplicates; none means the whole namespace.
    pub rooms: SmallVec<[RoomName; 1]>,
    /// Sockets in any of these rooms don't get it.
    pub except: Vec<RoomName>,
    /// What it is about. Left out: what its rooms' class finds in the data.
    pub key: Option<Box<str>>,
    /// Sockets whose transport cannot take it now don't get it.
    pub volatile: bool,
    /// Set if sockets that get it are to acknowledge it.
    pub ask: Option<AskOptions>,
}

/// What a core remembers of an event that several owners send: which sockets have it, and how many parts are to come.
#[derive(Debug)]
pub(super) struct Parts {
    remaining: u32,
    seen: HashSet<SlotRef>,
}

impl Shard {
    /// Publishes an event. Returns how many [`Action::Receipt`] follow if `receipt` is given: one for each room. If it
    /// asks for acknowledgements, one [`Action::Acknowledged`] follows besides.
    ///
    /// # Panics
    /// If it asks without `receipt`.
    pub fn publish(&mut self, line: Line, receipt: Option<ReceiptTo>) -> u32 {
        let Line { event, rooms, except, key, volatile, ask } = line;
        let namespace = event.namespace_ref();
        let except: Box<[RoomKey]> = except.into_iter().map(|name| self.topology.key(namespace, name)).collect();
        let whole = rooms.is_empty().then(RoomName::whole_namespace);
        let mut keys: SmallVec<[(CoreId, u32, RoomKey); 1]> = SmallVec::new();
        for (index, name) in rooms.into_iter().chain(whole).enumerate() {
            let key = self.topology.key(namespace, name);
            keys.push((self.topology.owner(&key), index as u32, key));
        }
        let count = keys.len() as u32;
        let key = key.or_else(|| self.key_in(&event, &keys[0].2));
        let mark = key.as_deref().map(|key| self.topology.mark(keys.iter().map(|(_, _, room)| room), key));
        // Stable: within an owner, the line's order stays.
        keys.sort_by_key(|(owner, _, _)| *owner);
        let owners = keys.chunk_by(|a, b| a.0 == b.0).count() as u32;
        let ask = ask.map(|options| {
            let to = receipt.expect("who asks waits for the answers");
            // Parts of an event go to every core, and each one tells whom it has asked.
            self.open_ask(options, to, (owners > 1).then(|| self.topology.cores()))
        });
        let event = Arc::new(Encodable::new(event, key, ask.map(|ask| ask.id)));
        let is_special = volatile || ask.is_some() || !except.is_empty() || mark.is_some();
        let manner = is_special.then(|| Arc::new(Manner { except, volatile, ask, mark }));
        let stamp = self.timing.begin(self.instant);
        if let [(owner, _, _)] = keys[..] {
            let rooms = keys.into_iter().map(|(_, index, key)| (index, key)).collect();
            let publish = Publish { event, rooms, manner, receipt, part: None, stamp };
            self.port.up.send(owner, Up::Publish(Box::new(publish)));
            return count;
        }
        let part = (owners > 1).then(|| Part { event: self.next_part_id(), owners });
        let mut keys = keys.into_iter().peekable();
        while let Some((owner, index, key)) = keys.next() {
            let mut rooms: SmallVec<[(u32, RoomKey); 1]> = SmallVec::new();
            rooms.push((index, key));
            while let Some((_, index, key)) = keys.next_if(|(next, _, _)| *next == owner) {
                rooms.push((index, key));
            }
            let (event, manner) = (event.clone(), manner.clone());
            let publish = Publish { event, rooms, manner, receipt, part, stamp };
            self.port.up.send(owner, Up::Publish(Box::new(publish)));
        }
        count
    }

    /// What the event is about, as its data says it: where that stands, the first room's class knows.
    fn key_in(&self, event: &Event, room: &RoomKey) -> Option<Box<str>> {
        let path = self.namespaces[usize::from(room.namespace.0)].classes.of(&room.name).key.as_ref()?;
        let data = json::first(event.args_json())?;
        let value = path.0.iter().try_fold(data, |value, step| json::get(value, step))?;
        let key = line::scalar_key(value).filter(|key| (1..=line::KEY_BYTES_MAX).contains(&key.len()))?;
        Some(key.into())
    }

    /// Has every core apply an operation to the members of a room; `None` stands for the whole namespace. Each core
    /// answers with one [`Action::Operated`].
    pub fn operate(
        &mut self,
        namespace: NamespaceRef<'_>,
        target: Option<RoomName>,
        operation: NamedOperation,
        to: ReceiptTo,
    ) {
        let keys = |names: Vec<RoomName>| names.into_iter().map(|name| self.topology.key(namespace, name)).collect();
        let operation = match operation {
            NamedOperation::Join(rooms) => Operation::Join(keys(rooms)),
            NamedOperation::Leave(rooms) => Operation::Leave(keys(rooms)),
            NamedOperation::Disconnect { close } => Operation::Disconnect { close },
        };
        let target = self.topology.key(namespace, target.unwrap_or_else(RoomName::whole_namespace));
        let owner = self.topology.owner(&target);
        self.port.up.send(owner, Up::Operate(Arc::new(Operate { target, operation, to })));
    }

    /// An owner's work.
    pub fn handle_up(&mut self, from: CoreId, message: Up, now: Millis) {
        match message {
            Up::Publish(publish) => self.order(*publish, now),
            Up::Operate(operate) => {
                for core in 0..self.topology.cores() {
                    self.port.down.send(CoreId::new(core), Down::Operate(operate.clone()));
                }
            }
            Up::Query(query) => self.look(query),
            Up::Attach(GroupRef { key, encoding, group }) => {
                let (offset, epoch) = self.owned.attach(&key, Attachment { group, core: from, encoding }, now);
                self.port.down.send(from, Down::Attached { group, offset, epoch });
                self.watch_idle_rooms(now);
            }
            Up::Snapshot(ask) => self.tell_snapshot(from, *ask, now),
            Up::Detach(GroupRef { key, encoding, group }) => {
                self.owned.detach(&key, Attachment { group, core: from, encoding }, now);
                self.watch_idle_rooms(now);
            }
        }
    }

    /// A member core's work, and what comes back to a publisher's core. Returns the number of deliveries made.
    pub fn handle_down(&mut self, message: Down) -> usize {
        match message {
            Down::Deliver { group, offset, frame, manner, stamp } => {
                let outbox_bytes_max = self.options.limits.outbox_bytes_max;
                if !self.local.deliver(group, offset) {
                    return 0;
                }
                if self.joins.has_followers() {
                    self.follow(group.slot, &frame, manner.as_deref(), |_| true);
                }
                let members = self.local.members(group);
                let slow = self.local.slow_class(group);
                let shared = self.outboxes.share(frame, fate(slow, manner.as_deref()));
                let count = match manner.filter(|manner| manner.is_selective()) {
                    None => deliver(members, &mut self.outboxes, shared, outbox_bytes_max, &mut self.overflown),
                    Some(manner) => {
                        debug_assert!(manner.ask.is_none(), "asks come by DeliverMany");
                        let own_room = |slot| own_room(&self.sockets[slot]);
                        let members = without(members, &self.local, &manner.except, &mut self.excepted, own_room);
                        self.deliver_specially(&members, shared, manner.volatile, None)
                    }
                };
                self.finish_delivery(Some(group), shared, count, slow.pattern);
                if stamp.is_some() {
                    self.delivered(stamp, count);
                }
                count
            }
            Down::DeliverMany(many) => self.deliver_many(*many),
            Down::Attached { group, offset, epoch } => {
                self.attached(group, offset, epoch);
                0
            }
            Down::Kept(kept) => {
                let count = match &kept.content {
                    KeptContent::Events(frames) => frames.len(),
                    KeptContent::Values(_) => 0,
                };
                self.kept(*kept);
                count
            }
            Down::Operate(operate) => self.apply(&operate),
            Down::Receipt { to, room, offset } => {
                self.actions.push_back(Action::Receipt { to, room, offset });
                0
            }
            Down::Operated { to, sockets, refused } => {
                self.actions.push_back(Action::Operated { to, sockets, refused });
                0
            }
            Down::Found(found) => {
                let Found { to, core, facts } = *found;
                self.actions.push_back(Action::Found { to, core, facts });
                0
            }
            Down::AskReaches { ask, cores } => {
                self.ask_reaches(ask, cores);
                0
            }
            Down::Asked { ask, sockets, last } => {
                self.ask_reported(ask, sockets, last);
                0
            }
            Down::Answered(answered) => {
                self.ask_answered(*answered);
                0
            }
            Down::Deserted { ask } => {
                self.ask_deserted(ask);
                0
            }
        }
    }

    /// Gives the event its offsets and sends its frames to the member cores.
    fn order(&mut self, publish: Publish, now: Millis) {
        let Publish { event, rooms, manner, receipt, part, mut stamp } = publish;
        self.watch_idle_rooms(now);
        if stamp.is_some() {
            stamp = self.ordered(stamp);
        }
        if part.is_none()
            && event.ack_id.is_none()
            && let [(room, key)] = &rooms[..]
            && self.own_socket(key).is_none()
        {
            let (offset, attachments) = self.owned.append(key, event.event.bytes(), now);
            for &Attachment { group, core, encoding } in attachments {
                let frame = frame(&event, encoding, &self.namespaces, &mut self.scratch, &mut self.counters.encodes);
                self.port.down.send(core, Down::Deliver { group, offset, frame, manner: manner.clone(), stamp });
            }
            self.counters.events_ordered += 1;
            self.show(key, offset, &event.event);
            self.receipt(receipt, *room, offset);
            self.keep(key, &event, now);
            return;
        }
        self.order_many(&event, &rooms, manner.as_ref(), receipt, (part, stamp), now);
    }

    fn order_many(
        &mut self,
        event: &Arc<Encodable>,
        rooms: &[(u32, RoomKey)],
        manner: Option<&Arc<Manner>>,
        receipt: Option<ReceiptTo>,
        (part, stamp): (Option<Part>, Stamp),
        now: Millis,
    ) {
        let mut by_core: SmallVec<[Option<DeliverMany>; 8]> = (0..self.topology.cores()).map(|_| None).collect();
        let empty = || DeliverMany {
            groups: SmallVec::new(),
            sockets: SmallVec::new(),
            frames: [const { None }; Encoding::COUNT],
            manner: manner.cloned(),
            part,
            stamp,
        };
        for (room, key) in rooms {
            let (offset, attachments) = self.owned.append(key, event.event.bytes(), now);
            for &Attachment { group, core, encoding } in attachments {
                by_core[core.index()].get_or_insert_with(empty).groups.push((group, encoding, offset));
            }
            if let Some(socket) = self.own_socket(key) {
                let encoding = self.sessions[self.sockets[socket.slot].session].kind.encoding();
                by_core[self.core.index()].get_or_insert_with(empty).sockets.push((socket, encoding));
            }
            self.counters.events_ordered += 1;
            self.show(key, offset, &event.event);
            self.receipt(receipt, *room, offset);
            self.keep(key, event, now);
        }
        if part.is_none()
            && let Some(ask) = manner.and_then(|manner| manner.ask)
        {
            let cores = by_core.iter().flatten().count() as u32;
            self.port.down.send(ask.core, Down::AskReaches { ask: ask.at, cores });
        }
        for (core, many) in by_core.into_iter().enumerate() {
            // With several owners, every core counts their parts, so that it knows when it has seen the last.
            let Some(mut many) = many.or_else(|| part.is_some().then(empty)) else { continue };
            let groups = many.groups.iter().map(|(_, encoding, _)| *encoding);
            for encoding in
                groups.chain(many.sockets.iter().map(|(_, encoding)| *encoding)).collect::<SmallVec<[_; 4]>>()
            {
                many.frames[encoding.index()].get_or_insert_with(|| {
                    frame(event, encoding, &self.namespaces, &mut self.scratch, &mut self.counters.encodes)
                });
            }
            self.port.down.send(CoreId::new(core), Down::DeliverMany(Box::new(many)));
        }
    }

    /// Shows an event that was appended to the room to those who watch.
    fn show(&mut self, room: &RoomKey, offset: Offset, event: &Event) {
        if self.tap.is_open() {
            self.tap.see(name_of(&self.namespaces, event.namespace_ref()), room.name.as_str(), offset, event);
        }
    }

    /// Keeps an event that was appended to the room, if the room keeps such.
    fn keep(&mut self, room: &RoomKey, event: &Arc<Encodable>, now: Millis) {
        if event.key.is_none() {
            return;
        }
        let class = self.namespaces[usize::from(room.namespace.0)].classes.of(&room.name);
        // A socket's own room ends with the socket, of which its order does not hear.
        let Some(options) = &class.snapshot.filter(|_| SocketId::parse(room.name.as_str()).is_none()) else { return };
        let event = match event.ack_id {
            None => event.clone(),
            // Nobody will wait for an acknowledgement by then.
            Some(_) => Arc::new(Encodable::new(event.event.clone(), event.key.clone(), None)),
        };
        let KeepOutcome { evicted, for_memory, watch } = self.owned.keep(room, event, options, now);
        for (reason, count) in [("keys", evicted.keys), ("bytes", evicted.bytes), ("memory", for_memory)] {
            self.counters.count_many(counters::SNAPSHOT_EVICTIONS, reason, count);
        }
        if let Some((at, due)) = watch {
            self.timers.arm(due, TimerKey::Kept(at));
        }
    }

    /// What a room keeps is too old.
    pub(super) fn kept_due(&mut self, at: SlotRef, now: Millis) {
        let (expired, next) = self.owned.kept_due(at, now);
        self.counters.count_many(counters::SNAPSHOT_EVICTIONS, "age", expired);
        if let Some(due) = next {
            self.timers.arm(due, TimerKey::Kept(at));
        }
        self.watch_idle_rooms(now);
    }

    /// Tells a member core what the room keeps.
    fn tell_snapshot(&mut self, from: CoreId, ask: SnapshotAsk, now: Millis) {
        let SnapshotAsk { room, encoding, to } = ask;
        self.counters.snapshots += 1;
        let snapshot = self.owned.snapshot(&room, now);
        let content = match (encoding, snapshot) {
            (Some(_), None) => KeptContent::Events(Vec::new()),
            (Some(encoding), Some(snapshot)) => KeptContent::Events(
                snapshot
                    .events()
                    .map(|e| frame(e, encoding, &self.namespaces, &mut self.scratch, &mut self.counters.encodes))
                    .collect(),
            ),
            (None, None) => KeptContent::Values("[]".into()),
            (None, Some(snapshot)) => KeptContent::Values(snapshot.values()),
        };
        self.port.down.send(from, Down::Kept(Box::new(Kept { to, content })));
    }

    /// Delivers to each socket once, at the first of the event's rooms that it is in.
    fn deliver_many(&mut self, many: DeliverMany) -> usize {
        let DeliverMany { groups, sockets, frames, manner, part, stamp } = many;
        let (except, volatile, ask) = match manner.as_deref() {
            Some(manner) => (&manner.except[..], manner.volatile, manner.ask),
            None => (&[][..], false, None),
        };
        let mut asked: Vec<SlotRef> = Vec::new();
        let mut seen = match part {
            Some(part) => match self.parts.remove(&part.event) {
                Some(parts) => parts,
                None => Parts { remaining: part.owners, seen: self.spare_sets.pop().unwrap_or_default() },
            },
            None => Parts { remaining: 1, seen: self.spare_sets.pop().unwrap_or_default() },
        };
        let mut total = 0;
        let whom = groups.iter().map(|&(group, encoding, offset)| (encoding, Err((group, offset))));
        for (encoding, whom) in whom.chain(sockets.iter().map(|&(socket, encoding)| (encoding, Ok(socket)))) {
            let (slow, mut members): (SlowClass, Vec<Member>) = match whom {
                Ok(at) => match self.sockets.get(at).filter(|socket| socket.connected) {
                    Some(socket) => {
                        let own = socket.sid.to_chars();
                        let room = str::from_utf8(&own).expect("its alphabet is ASCII");
                        let slow = self.patterns.slow_class(&self.namespaces, socket.namespace, room);
                        (slow, vec![Member { session: socket.session, socket: at.slot }])
                    }
                    None => continue,
                },
                Err((group, offset)) if self.local.deliver(group, offset) => {
                    (self.local.slow_class(group), self.local.members(group).to_vec())
                }
                Err(_) => continue,
            };
            // A socket that is excepted at its first place is excepted for good, even if it leaves the excepted room
            // before the next place comes.
            members.retain(|m| seen.seen.insert(self.sockets.at(m.socket).expect("a member's socket exists")));
            let own_room = |slot| own_room(&self.sockets[slot]);
            let members = without(&members, &self.local, except, &mut self.excepted, own_room);
            let frame = frames[encoding.index()].clone().expect("the owner encodes for every group that it names");
            let asks = ask.is_some() && encoding.can_acknowledge();
            if let Err((group, _)) = whom
                && self.joins.has_followers()
            {
                let is_new = |socket| seen.seen.insert(socket);
                let followers = self.follow(group.slot, &frame, manner.as_deref(), is_new);
                asked.extend(followers.into_iter().filter(|_| asks));
            }
            // A question that is counted as asked must be put.
            let fate = if asks { Fate::Kept } else { fate(slow, manner.as_deref()) };
            let shared = self.outboxes.share(frame, fate);
            let count = self.deliver_specially(&members, shared, volatile, asks.then_some(&mut asked));
            self.finish_delivery(whom.err().map(|(group, _)| group), shared, count, slow.pattern);
            total += count;
        }
        if stamp.is_some() {
            self.delivered(stamp, total);
        }
        seen.remaining -= 1;
        if let Some(ask) = ask {
            // Who has just been cut as a slow consumer will not read the question.
            asked.retain(|socket| self.sockets.get(*socket).is_some());
            self.ask_sockets(ask, &asked, seen.remaining == 0);
        }
        match part {
            Some(part) if seen.remaining > 0 => drop(self.parts.insert(part.event, seen)),
            _ => {
                seen.seen.clear();
                self.spare_sets.push(seen.seen);
            }
        }
        total
    }

    /// Like [`deliver`], for events that are not like most: volatile ones, and those that ask whoever takes them, who
    /// goes to `asked` then.
    fn deliver_specially(
        &mut self,
        members: &[Member],
        shared: SharedFrame,
        volatile: bool,
        mut asked: Option<&mut Vec<SlotRef>>,
    ) -> usize {
        let outbox_bytes_max = self.options.limits.outbox_bytes_max;
        if !volatile && asked.is_none() {
            return deliver(members, &mut self.outboxes, shared, outbox_bytes_max, &mut self.overflown);
        }
        let mut count = 0;
        for member in members {
            let offer = if volatile {
                self.outboxes.offer_volatile(member.session, shared, outbox_bytes_max)
            } else {
                self.outboxes.offer(member.session, shared, outbox_bytes_max)
            };
            match offer {
                Offer::Queued => {
                    count += 1;
                    if let Some(asked) = &mut asked {
                        asked.push(self.sockets.at(member.socket).expect("a member's socket exists"));
                    }
                }
                Offer::Full => overflow(&mut self.overflown, member.session),
                Offer::Skipped => self.counters.volatile_dropped += 1,
                Offer::Closed => {}
            }
        }
        count
    }

    /// Counts a delivery, to the room whose group that was if it was one, and cuts the sessions that could not take it,
    /// for which `pattern` accounts.
    fn finish_delivery(&mut self, group: Option<SlotRef>, shared: SharedFrame, count: usize, pattern: PatternId) {
        let deliveries = count as u64;
        let delivered =
            Delivered { deliveries, bytes: deliveries * u64::from(shared.bytes()), lag: self.outboxes.take_lag() };
        self.counters.deliveries += deliveries;
        self.counters.delivered_bytes += delivered.bytes;
        if let Some(group) = group.filter(|_| delivered != Delivered::default()) {
            self.local.delivered(group, delivered);
            self.watch_ranks();
        }
        self.outboxes.release(shared);
        while let Some(slot) = self.overflown.pop() {
            let session = self.sessions.at(slot).expect("an open outbox has a session");
            self.cut_slow_consumer(session, pattern);
        }
    }

    fn receipt(&mut self, to: Option<ReceiptTo>, room: u32, offset: Offset) {
        if let Some(to) = to {
            self.port.down.send(to.core, Down::Receipt { to, room, offset });
        }
    }

    /// The local socket whose own room `key` is.
    pub(super) fn own_socket(&self, key: &RoomKey) -> Option<SlotRef> {
        let sid = SocketId::parse(key.name.as_str())?;
        let at = self.sockets.at(sid.slot())?;
        let socket = &self.sockets[at.slot];
        let here = socket.namespace == key.namespace && socket.namespace_ref().instance == key.name.instance();
        (socket.sid == sid && here && socket.connected).then_some(at)
    }

    fn next_part_id(&mut self) -> u64 {
        self.next_part += 1;
        (self.core.index() as u64) << 48 | self.next_part
    }
}

/// Appends one frame to the outbox of each member; whose outbox is full goes to `overflown`. Returns how many took it.
fn deliver(
    members: &[Member],
    outboxes: &mut Outboxes,
    shared: SharedFrame,
    outbox_bytes_max: u32,
    overflown: &mut Vec<u32>,
) -> usize {
    let mut count = 0;
    for member in members {
        match outboxes.offer(member.session, shared, outbox_bytes_max) {
            Offer::Queued => count += 1,
            Offer::Full => overflow(overflown, member.session),
            Offer::Skipped => unreachable!("only volatile frames are skipped"),
            Offer::Closed => {}
        }
    }
    count
}

/// A session can be a member twice over, by two of its sockets; it overflows once.
fn overflow(overflown: &mut Vec<u32>, session: u32) {
    if !overflown.contains(&session) {
        overflown.push(session);
    }
}

/// The members that are in none of the rooms of `except`, which are of the members' namespace and instance. `excepted`
/// is a place to work in.
fn without(
    members: &[Member],
    local: &LocalRooms,
    except: &[RoomKey],
    excepted: &mut HashSet<u32>,
    own_room: impl Fn(u32) -> (NamespaceId, SocketId),
) -> SmallVec<[Member; 8]> {
    if except.is_empty() {
        return SmallVec::from_slice(members);
    }
    excepted.clear();
    let mut sids: SmallVec<[(NamespaceId, SocketId); 2]> = SmallVec::new();
    for key in except {
        excepted.extend(local.members_of(key).map(|m| m.socket));
        sids.extend(SocketId::parse(key.name.as_str()).map(|sid| (key.namespace, sid)));
    }
    let stays = |m: &&Member| !excepted.contains(&m.socket) && (sids.is_empty() || !sids.contains(&own_room(m.socket)));
    let mut left = SmallVec::with_capacity(members.len());
    left.extend(members.iter().filter(stays).copied());
    left
}

fn own_room(socket: &crate::session::Socket) -> (NamespaceId, SocketId) {
    (socket.namespace, socket.sid)
}

/// The event in one encoding, made now unless an owner has made it before.
fn frame(
    event: &Encodable,
    encoding: Encoding,
    namespaces: &[Namespace],
    scratch: &mut Vec<u8>,
    encodes: &mut u64,
) -> Frame {
    event.frame(encoding, |Encodable { event, ack_id, .. }| {
        *encodes += 1;
        encode(event, *ack_id, encoding, name_of(namespaces, event.namespace_ref()), scratch)
    })
}

/// The event's finished bytes: the only place where an event is encoded for a room.
fn encode(event: &Event, ack_id: Option<u64>, encoding: Encoding, namespace: &str, scratch: &mut Vec<u8>) -> Frame {
    scratch.clear();
    match encoding {
        Encoding::SocketIo => {
            socketio::event(scratch, namespace, ack_id, event.name_json(), event.args_json(), &event.attachments);
        }
        Encoding::RawNested => raw::event(scratch, raw::Shape::Nested, event),
        Encoding::RawFlat => raw::event(scratch, raw::Shape::Flat, event),
    }
    Frame::new(scratch)
}
