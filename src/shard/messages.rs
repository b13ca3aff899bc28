//! Every message that crosses cores. Plain data: a message names sockets, groups and publishers by slot and generation,
//! so that one that arrives late finds nothing and does no harm.

use crate::base::clock::{Millis, Stamp};
use crate::base::event::Encodable;
use crate::base::frame::{Encoding, Frame};
use crate::base::ids::{CoreId, Epoch, KeyMark, Offset, RoomKey, SlotRef};
use crate::base::sketch::Measure;
use crate::proto::line::Ack;
use crate::proto::line::query::{CoreStats, RoomFacts, SocketFacts, TopFacts};
use crate::room::members::GroupRef;
use smallvec::SmallVec;
use std::sync::Arc;

/// To an owner.
#[derive(Debug)]
pub enum Up {
    /// From the core of a publisher to the owner of the rooms. Rings lose nothing; a publisher that wants to know asks
    /// for a receipt.
    Publish(Box<Publish>),
    /// From the core of a publisher to the owner of the target room. Answered by [`Down::Operated`] from every core.
    Operate(Arc<Operate>),
    /// From the core of a publisher to every core, or to the one that a socket's id names. Answered by [`Down::Found`]
    /// from each, so that nothing repairs its loss: rings lose nothing.
    Query(Arc<Query>),
    /// From a member core whose group is new. Answered by [`Down::Attached`].
    Attach(GroupRef),
    /// From a member core for a join that wants to know what the room keeps. Answered by [`Down::Kept`].
    Snapshot(Box<SnapshotAsk>),
    /// From a member core that needs the group no more. Deliveries already on their way find a void group.
    Detach(GroupRef),
}

/// From an owner to a member core, or back to the core of a publisher.
#[derive(Debug)]
pub enum Down {
    /// From the owner: the group gets every event after `offset`. Void if the group is gone; it sent `Detach` then.
    Attached {
        /// The group that asked.
        group: SlotRef,
        /// The room's last offset.
        offset: Offset,
        /// The order that the offset belongs to.
        epoch: Epoch,
    },
    /// From the owner: what the room keeps, as of this place between its deliveries. Void if the join is gone.
    Kept(Box<Kept>),
    /// From the owner: one event for one group. Void if the group is gone.
    Deliver {
        /// The group.
        group: SlotRef,
        /// The event's place in the room's order.
        offset: Offset,
        /// Bytes in the group's encoding.
        frame: Frame,
        /// What is particular about it. It asks for nothing: see [`DeliverMany`].
        manner: Option<Arc<Manner>>,
        /// Set if its way is timed.
        stamp: Stamp,
    },
    /// From one of the owners of an event for several rooms, or of an event that asks for
    /// acknowledgements: see [`DeliverMany`].
    DeliverMany(Box<DeliverMany>),
    /// From the owner of the target room, in the room's order, to every core. Answered by [`Down::Operated`].
    Operate(Arc<Operate>),
    /// From an owner to the core of the publisher: the event's place in one of its rooms. Void if the publisher is
    /// gone.
    Receipt {
        /// Who asked.
        to: ReceiptTo,
        /// Which of the line's rooms.
        room: u32,
        /// The event's place there.
        offset: Offset,
    },
    /// From every core to the core of the publisher: the operation holds here. Void if the publisher is gone.
    Operated {
        /// Who asked.
        to: ReceiptTo,
        /// Sockets here to which it was applied.
        sockets: u32,
        /// Sockets here that would have been in too many rooms.
        refused: u32,
    },
    /// From a core that was asked to the core of the publisher. Void if the publisher is gone.
    Found(Box<Found>),
    /// From the only owner of an event's rooms to the core of the publisher: so many cores will tell by
    /// [`Down::Asked`] whom they have asked. Void if the ask has ended.
    AskReaches {
        /// The ask, in its core's table.
        ask: SlotRef,
        /// The cores.
        cores: u32,
    },
    /// From a member core to the core of the publisher: sockets that got the event are asked. Comes before their
    /// answers. Void if the ask has ended.
    Asked {
        /// The ask, in its core's table.
        ask: SlotRef,
        /// How many are asked, besides those told of before.
        sockets: u32,
        /// The core will not tell of more.
        last: bool,
    },
    /// From a member core to the core of the publisher: a client's answer. Void if the ask has ended.
    Answered(Box<Answered>),
    /// From a member core to the core of the publisher: a socket that was asked is gone without an answer. Void if the
    /// ask has ended.
    Deserted {
        /// The ask, in its core's table.
        ask: SlotRef,
    },
}

// A message moves through a ring by value: a large one costs every hop.
const _: () = assert!(size_of::<Up>() <= 56 && size_of::<Down>() <= 48);

/// See [`Up::Snapshot`].
#[derive(Debug)]
pub struct SnapshotAsk {
    /// The room.
    pub room: RoomKey,
    /// In which form its events are wanted; `None` for their values alone.
    pub encoding: Option<Encoding>,
    /// Who asks.
    pub to: SnapshotTo,
}

/// Names a join that waits for what a room keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotTo {
    /// The join, in its core's table.
    pub join: SlotRef,
    /// Which of the snapshots that it has asked for.
    pub item: u32,
}

/// See [`Down::Kept`].
#[derive(Debug)]
pub struct Kept {
    /// Who has asked.
    pub to: SnapshotTo,
    /// What is kept, oldest first.
    pub content: KeptContent,
}

/// What a room keeps.
#[derive(Debug)]
pub enum KeptContent {
    /// The events, in the encoding that was asked for.
    Events(Vec<Frame>),
    /// The events' first arguments, as a JSON array.
    Values(Arc<str>),
}

/// Names a line of a publisher that waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiptTo {
    /// The publisher's core.
    pub core: CoreId,
    /// The publisher's connection on its core.
    pub publisher: SlotRef,
    /// The line: the publisher connection's own count.
    pub ticket: u64,
}

/// An event for those of its rooms that one core owns.
#[derive(Debug)]
pub struct Publish {
    /// The event, shared with the other owners.
    pub event: Arc<Encodable>,
    /// The rooms, each with its position in the line.
    pub rooms: SmallVec<[(u32, RoomKey); 1]>,
    /// What is particular about it.
    pub manner: Option<Arc<Manner>>,
    /// Who wants to know the offsets.
    pub receipt: Option<ReceiptTo>,
    /// Set when other owners handle other rooms of the same event.
    pub part: Option<Part>,
    /// Set if its way is timed.
    pub stamp: Stamp,
}

/// What is particular about an event: most events have none of it.
#[derive(Debug)]
pub struct Manner {
    /// Sockets in any of these rooms don't get it.
    pub except: Box<[RoomKey]>,
    /// Sockets whose transport cannot take it now don't get it.
    pub volatile: bool,
    /// Sockets that get it are asked to acknowledge it, if they speak Socket.IO.
    pub ask: Option<Ask>,
    /// Stands for the event's rooms and its key: a later event of the same mark makes an earlier one worthless.
    pub mark: Option<KeyMark>,
}

impl Manner {
    /// True if not every member simply gets it.
    #[must_use]
    pub fn is_selective(&self) -> bool {
        self.volatile || self.ask.is_some() || !self.except.is_empty()
    }
}

/// A publisher's wish for acknowledgements of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The acknowledgement id in the event's frames: below 2⁵³, and unique among those under way.
    pub id: u64,
    /// The publisher's core.
    pub core: CoreId,
    /// Its place in that core's table.
    pub at: SlotRef,
    /// When the publisher's core waits no longer.
    pub due: Millis,
    /// Answers that are kept, in bytes.
    pub answer_bytes_max: usize,
}

/// See [`Down::Answered`].
#[derive(Debug)]
pub struct Answered {
    /// The ask, in its core's table.
    pub ask: SlotRef,
    /// What the client said; `None` if there is no room for it among the ask's answers.
    pub answer: Option<Ack>,
}

/// Ties together what several owners send about one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Unique among the events under way.
    pub event: u64,
    /// How many owners there are. Each sends one [`DeliverMany`] to every core, so that a core knows when it has seen
    /// all.
    pub owners: u32,
}

/// One event for several groups of a core; a socket that is in several of them gets it once, at the first.
#[derive(Debug)]
pub struct DeliverMany {
    /// Groups in the line's order of rooms, each with the event's offset there.
    pub groups: SmallVec<[(SlotRef, Encoding, Offset); 2]>,
    /// Sockets whose own rooms are meant.
    pub sockets: SmallVec<[(SlotRef, Encoding); 1]>,
    /// Bytes by encoding; present for each encoding named above.
    pub frames: [Option<Frame>; Encoding::COUNT],
    /// What is particular about the event.
    pub manner: Option<Arc<Manner>>,
    /// Set when other owners send about the same event too.
    pub part: Option<Part>,
    /// Set if its way is timed.
    pub stamp: Stamp,
}

/// A publisher's operation on the sockets of a room.
#[derive(Debug)]
pub struct Operate {
    /// The room whose members are meant.
    pub target: RoomKey,
    /// What happens to them.
    pub operation: Operation,
    /// Who waits for it.
    pub to: ReceiptTo,
}

/// A publisher's question.
#[derive(Debug)]
pub struct Query {
    /// What it is about.
    pub what: What,
    /// Who wants to know.
    pub to: ReceiptTo,
}

/// What a publisher can ask about.
#[derive(Debug)]
pub enum What {
    /// How much there is of everything.
    Stats {
        /// The namespace's own room: its sockets are counted apart.
        whole: RoomKey,
    },
    /// The first rooms of a namespace in the order of their names.
    Rooms {
        /// The namespace's own room.
        whole: RoomKey,
        /// How their names begin.
        prefix: Box<str>,
        /// Their names come after this one.
        after: Box<str>,
        /// As many as that.
        limit: usize,
    },
    /// One room.
    Room(RoomKey),
    /// The socket whose own room this is.
    Socket(RoomKey),
    /// The rooms of all namespaces that get most.
    Top(Measure),
}

/// See [`Down::Found`].
#[derive(Debug)]
pub struct Found {
    /// Who asked.
    pub to: ReceiptTo,
    /// Whose facts these are.
    pub core: CoreId,
    /// What was found.
    pub facts: Facts,
}

/// What one core answers to a question.
#[derive(Clone, Debug, PartialEq)]
pub enum Facts {
    /// To [`What::Stats`].
    Stats(CoreStats),
    /// To [`What::Rooms`]: the first ones of which this core knows anything, sorted. A room that is among the first of
    /// all is among the first of each core that knows it.
    Rooms(Vec<RoomFacts>),
    /// To [`What::Room`].
    Room(RoomFacts),
    /// To [`What::Socket`].
    Socket(Option<SocketFacts>),
    /// To [`What::Top`]: every room that may be among the first here.
    Top(TopFacts),
}

/// What a publisher can do to sockets.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Put them into rooms.
    Join(Vec<RoomKey>),
    /// Take them out of rooms.
    Leave(Vec<RoomKey>),
    /// End their presence in the namespace.
    Disconnect {
        /// End the whole connection.
        close: bool,
    },
}
