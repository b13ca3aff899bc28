//! The way of an event: from a publisher's core to the owners, from there to member cores, into outboxes.

use super::messages::{DeliverMany, Down, Encodable, Operate, Operation, Part, Publish, ReceiptTo, Up};
use super::{Action, NamedOperation, Namespace, SLOW_CONSUMER, Shard, name_of};
use crate::base::clock::Millis;
use crate::base::event::Event;
use crate::base::frame::{Encoding, Frame};
use crate::base::ids::{CoreId, NamespaceId, NamespaceRef, RoomKey, RoomName, SlotRef, SocketId};
use crate::proto::{raw, socketio};
use crate::room::members::{GroupRef, LocalRooms, Member};
use crate::room::owner::Attachment;
use crate::session::outbox::{Offer, Outboxes, SharedFrame};
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
}

/// What a core remembers of an event that several owners send: which sockets have it, and how many parts are to come.
#[derive(Debug)]
pub(super) struct Parts {
    remaining: u32,
    seen: HashSet<SlotRef>,
}

impl Shard {
    /// Publishes an event. Returns how many [`Action::Receipt`] follow if `receipt` is given: one for each room.
    pub fn publish(&mut self, line: Line, receipt: Option<ReceiptTo>) -> u32 {
        let Line { event, rooms, except } = line;
        let event = Arc::new(Encodable::new(event));
        let namespace = event.event.namespace_ref();
        let except: Option<Arc<[RoomKey]>> =
            (!except.is_empty()).then(|| except.into_iter().map(|name| self.topology.key(namespace, name)).collect());
        let whole = rooms.is_empty().then(RoomName::whole_namespace);
        let mut keys: SmallVec<[(CoreId, u32, RoomKey); 1]> = SmallVec::new();
        for (index, name) in rooms.into_iter().chain(whole).enumerate() {
            let key = self.topology.key(namespace, name);
            keys.push((self.topology.owner(&key), index as u32, key));
        }
        let count = keys.len() as u32;
        if let [(owner, _, _)] = keys[..] {
            let rooms = keys.into_iter().map(|(_, index, key)| (index, key)).collect();
            self.port.up.send(owner, Up::Publish(Box::new(Publish { event, rooms, except, receipt, part: None })));
            return count;
        }
        // Stable: within an owner, the line's order stays.
        keys.sort_by_key(|(owner, _, _)| *owner);
        let owners = keys.chunk_by(|a, b| a.0 == b.0).count() as u32;
        let part = (owners > 1).then(|| Part { event: self.next_part_id(), owners });
        let mut keys = keys.into_iter().peekable();
        while let Some((owner, index, key)) = keys.next() {
            let mut rooms: SmallVec<[(u32, RoomKey); 1]> = SmallVec::new();
            rooms.push((index, key));
            while let Some((_, index, key)) = keys.next_if(|(next, _, _)| *next == owner) {
                rooms.push((index, key));
            }
            let (event, except) = (event.clone(), except.clone());
            self.port.up.send(owner, Up::Publish(Box::new(Publish { event, rooms, except, receipt, part })));
        }
        count
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
            Up::Attach(GroupRef { key, encoding, group }) => {
                let (offset, epoch) = self.owned.attach(&key, Attachment { group, core: from, encoding }, now);
                self.port.down.send(from, Down::Attached { group, offset, epoch });
                self.watch_idle_rooms(now);
            }
            Up::Detach(GroupRef { key, encoding, group }) => {
                self.owned.detach(&key, Attachment { group, core: from, encoding }, now);
                self.watch_idle_rooms(now);
            }
        }
    }

    /// A member core's work, and what comes back to a publisher's core. Returns the number of deliveries made.
    pub fn handle_down(&mut self, message: Down) -> usize {
        match message {
            Down::Deliver { group, offset, frame, except } => {
                let outbox_bytes_max = self.options.limits.outbox_bytes_max;
                if !self.local.deliver(group, offset) {
                    return 0;
                }
                let members = self.local.members(group);
                let shared = self.outboxes.share(frame);
                let count = match except {
                    None => deliver(members, &mut self.outboxes, shared, outbox_bytes_max, &mut self.overflown),
                    Some(except) => {
                        let members = without(members, &self.local, &except, |slot| own_room(&self.sockets[slot]));
                        deliver(&members, &mut self.outboxes, shared, outbox_bytes_max, &mut self.overflown)
                    }
                };
                self.finish_delivery(shared, count);
                count
            }
            Down::DeliverMany(many) => self.deliver_many(*many),
            Down::Attached { group, offset, epoch } => {
                self.attached(group, offset, epoch);
                0
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
        }
    }

    /// Gives the event its offsets and sends its frames to the member cores.
    fn order(&mut self, publish: Publish, now: Millis) {
        let Publish { event, rooms, except, receipt, part } = publish;
        self.watch_idle_rooms(now);
        if part.is_none()
            && let [(room, key)] = &rooms[..]
            && self.own_socket(key).is_none()
        {
            let (offset, attachments) = self.owned.append(key, now);
            for &Attachment { group, core, encoding } in attachments {
                let frame = frame(&event, encoding, &self.namespaces, &mut self.scratch, &mut self.counters.encodes);
                self.port.down.send(core, Down::Deliver { group, offset, frame, except: except.clone() });
            }
            self.counters.events_ordered += 1;
            self.receipt(receipt, *room, offset);
            return;
        }
        self.order_many(&event, &rooms, except.as_ref(), receipt, part, now);
    }

    fn order_many(
        &mut self,
        event: &Encodable,
        rooms: &[(u32, RoomKey)],
        except: Option<&Arc<[RoomKey]>>,
        receipt: Option<ReceiptTo>,
        part: Option<Part>,
        now: Millis,
    ) {
        let mut by_core: SmallVec<[Option<DeliverMany>; 8]> = (0..self.topology.cores()).map(|_| None).collect();
        let empty = || DeliverMany {
            groups: SmallVec::new(),
            sockets: SmallVec::new(),
            frames: [const { None }; Encoding::COUNT],
            except: except.cloned(),
            part,
        };
        for (room, key) in rooms {
            let (offset, attachments) = self.owned.append(key, now);
            for &Attachment { group, core, encoding } in attachments {
                by_core[core.index()].get_or_insert_with(empty).groups.push((group, encoding, offset));
            }
            if let Some(socket) = self.own_socket(key) {
                let encoding = self.sessions[self.sockets[socket.slot].session].kind.encoding();
                by_core[self.core.index()].get_or_insert_with(empty).sockets.push((socket, encoding));
            }
            self.counters.events_ordered += 1;
            self.receipt(receipt, *room, offset);
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

    /// Delivers to each socket once, at the first of the event's rooms that it is in.
    fn deliver_many(&mut self, many: DeliverMany) -> usize {
        let DeliverMany { groups, sockets, frames, except, part } = many;
        let except = except.as_deref().unwrap_or(&[]);
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
            let mut members: Vec<Member> = match whom {
                Ok(socket) => {
                    let session = self.sockets.get(socket).filter(|s| s.connected).map(|s| s.session);
                    session.map(|session| Member { session, socket: socket.slot }).into_iter().collect()
                }
                Err((group, offset)) if self.local.deliver(group, offset) => self.local.members(group).to_vec(),
                Err(_) => Vec::new(),
            };
            // A socket that is excepted at its first place is excepted for good, even if it leaves the excepted room
            // before the next place comes.
            members.retain(|m| seen.seen.insert(self.sockets.at(m.socket).expect("a member's socket exists")));
            let members = without(&members, &self.local, except, |slot| own_room(&self.sockets[slot]));
            let frame = frames[encoding.index()].clone().expect("the owner encodes for every group that it names");
            let shared = self.outboxes.share(frame);
            let outbox_bytes_max = self.options.limits.outbox_bytes_max;
            let count = deliver(&members, &mut self.outboxes, shared, outbox_bytes_max, &mut self.overflown);
            self.finish_delivery(shared, count);
            total += count;
        }
        seen.remaining -= 1;
        match part {
            Some(part) if seen.remaining > 0 => drop(self.parts.insert(part.event, seen)),
            _ => {
                seen.seen.clear();
                self.spare_sets.push(seen.seen);
            }
        }
        total
    }

    /// Counts a delivery and cuts the sessions that could not take it.
    fn finish_delivery(&mut self, shared: SharedFrame, count: usize) {
        self.counters.deliveries += count as u64;
        self.counters.delivered_bytes += count as u64 * u64::from(shared.bytes());
        self.outboxes.release(shared);
        while let Some(slot) = self.overflown.pop() {
            let session = self.sessions.at(slot).expect("an open outbox has a session");
            self.abort(session, SLOW_CONSUMER);
        }
    }

    fn receipt(&mut self, to: Option<ReceiptTo>, room: u32, offset: crate::base::ids::Offset) {
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
            // A session can be a member twice over, by two of its sockets; it overflows once.
            Offer::Full => {
                if !overflown.contains(&member.session) {
                    overflown.push(member.session);
                }
            }
            Offer::Closed => {}
        }
    }
    count
}

/// The members that are in none of the rooms of `except`, which are of the members' namespace and instance.
fn without(
    members: &[Member],
    local: &LocalRooms,
    except: &[RoomKey],
    own_room: impl Fn(u32) -> (NamespaceId, SocketId),
) -> SmallVec<[Member; 8]> {
    if except.is_empty() {
        return SmallVec::from_slice(members);
    }
    let mut excluded: HashSet<u32> = HashSet::new();
    let mut sids: SmallVec<[(NamespaceId, SocketId); 2]> = SmallVec::new();
    for key in except {
        excluded.extend(local.members_of(key).map(|m| m.socket));
        sids.extend(SocketId::parse(key.name.as_str()).map(|sid| (key.namespace, sid)));
    }
    let stays = |m: &&Member| !excluded.contains(&m.socket) && (sids.is_empty() || !sids.contains(&own_room(m.socket)));
    members.iter().filter(stays).copied().collect()
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
    event.frame(encoding, |event| {
        *encodes += 1;
        encode(event, encoding, name_of(namespaces, event.namespace_ref()), scratch)
    })
}

/// The event's finished bytes: the only place where an event is encoded for a room.
fn encode(event: &Event, encoding: Encoding, namespace: &str, scratch: &mut Vec<u8>) -> Frame {
    scratch.clear();
    match encoding {
        Encoding::SocketIo => {
            socketio::event(scratch, namespace, event.name_json(), event.args_json(), &event.attachments);
        }
        Encoding::RawNested => raw::event(scratch, raw::Shape::Nested, event),
        Encoding::RawFlat => raw::event(scratch, raw::Shape::Flat, event),
    }
    Frame::new(scratch)
}
