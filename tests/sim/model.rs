//! The oracle: what is known about memberships and events from outside, and what follows for each client's stream. It
//! knows no cores, no rings and no owners; but of each room the order that its owner has given it.

pub mod kept;

use kept::{Got, Ordered, Question, Watch};
use std::collections::{BTreeMap, HashMap, HashSet};

/// A moment of the run: the count of steps.
pub type Step = u64;

/// A room's name in the model: the namespace's name, a space, and the room's own name; without the latter it is the
/// whole namespace. So rooms of two namespaces share nothing, whatever they are called.
pub fn place(namespace: &str, room: &str) -> String {
    format!("{namespace} {room}")
}

/// Rooms whose slow members may miss the oldest events.
pub const DROPPING: [&str; 2] = ["c", "d"];
/// Rooms whose slow members may get only the newest event of each key.
pub const CONFLATING: [&str; 2] = ["e", "f"];
/// What may wait for a client: a few frames.
pub const OUTBOX_BYTES_MAX: u32 = 200;
/// No event's frame is longer.
const FRAME_BYTES_MAX: u64 = 64;

/// A published event.
#[derive(Debug)]
pub struct Event {
    /// Rooms by their places, at least one.
    pub rooms: Vec<String>,
    pub except: Vec<String>,
    /// Before this it was not on its way.
    pub published: Step,
    /// Its places in the orders of `rooms`; 0 as long as it has none.
    pub offsets: Vec<u64>,
    pub volatile: bool,
    pub key: Option<String>,
    /// The client that sent it.
    pub emitter: Option<usize>,
    /// That client has been told that it is done.
    pub answered: bool,
    /// A client that does not get it, but as what a room keeps.
    pub not_to: Option<usize>,
    /// Set if it asks for acknowledgements.
    pub ask: Option<Ask>,
}

/// A wish for acknowledgements, and what came of it.
#[derive(Debug)]
pub struct Ask {
    /// Before this, in virtual milliseconds, its time cannot be over.
    pub not_due_before: u64,
    pub receipt: Option<AckReceipt>,
}

/// What the receipt says of clients' answers.
#[derive(Debug)]
pub struct AckReceipt {
    pub step: Step,
    /// In virtual milliseconds.
    pub time: u64,
    pub asked: u64,
    /// Numbers of the clients that answered, in the order of the receipt.
    pub answers: Vec<usize>,
    pub missing: u64,
}

/// A publisher's operation on the members of a room.
#[derive(Debug)]
pub struct Operation {
    pub id: u64,
    pub kind: &'static str,
    /// A place, as are the rooms.
    pub target: String,
    pub rooms: Vec<String>,
    /// It takes effect between these two.
    pub handed: Step,
    pub done: Option<Step>,
}

/// A membership that the client asked for, as far as it can be told from outside.
#[derive(Clone, Debug)]
pub struct Membership {
    /// Before this it cannot have begun.
    pub asked: Step,
    /// From here on it holds.
    pub certain: Option<Step>,
    /// The client asked to leave.
    pub leaving: Option<Step>,
    /// From here on it has ended.
    pub ended: Option<Step>,
}

impl Membership {
    pub fn asked(at: Step) -> Membership {
        Membership { asked: at, certain: None, leaving: None, ended: None }
    }
}

/// A client as the outside sees it.
#[derive(Debug, Default)]
pub struct Client {
    pub number: usize,
    /// By place; the whole namespace is one, and the own id is a room as well.
    pub memberships: BTreeMap<String, Vec<Membership>>,
    /// By place: when the client asked to leave.
    pub leaves: BTreeMap<String, Vec<Step>>,
    /// Events in the order they came.
    pub stream: Vec<Got>,
    /// Those of them that came live, each with its step. Known when the stream is looked at.
    pub received: Vec<(u64, Step)>,
    pub watches: Vec<Watch>,
    pub questions: Vec<Question>,
    /// How much of the stream came before the last answer.
    pub answered: usize,
    /// The client did not read: what it missed says nothing.
    pub stuck: bool,
    /// It may hear of things long after they have happened: it polls, or has lagged.
    pub late: bool,
    /// What it read between moments at which nothing waited for it.
    pub reads: Vec<Read>,
    /// It can be asked for acknowledgements.
    pub socket_io: bool,
    /// Events that it has acknowledged, each with the step of the first time.
    pub acked: BTreeMap<u64, Step>,
    /// When its connection ended.
    pub gone: Option<Step>,
}

impl Client {
    /// True if the event has come, live or as what a room kept.
    pub fn has(&self, id: u64) -> bool {
        self.stream.iter().any(|got| got.id == id)
    }
}

/// What a client read until nothing waited for it any more.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    /// Nothing waited then.
    pub from: Step,
    /// Nor then.
    pub to: Step,
    pub bytes: u64,
}

#[derive(Debug, Default)]
pub struct Model {
    /// By place.
    pub orders: HashMap<String, Vec<Ordered>>,
    pub events: HashMap<u64, Event>,
    pub operations: Vec<Operation>,
    pub clients: Vec<Client>,
    /// Steps at which nothing was under way.
    pub quiet: Vec<Step>,
    /// Steps at which nothing was under way but asks for acknowledgements.
    pub still: Vec<Step>,
    /// Volatile frames that cores say they have skipped.
    pub volatile_dropped: u64,
    /// Frames that cores say they have dropped from full outboxes.
    pub lost: u64,
}

impl Model {
    /// Checks every client's stream. To be called at a quiet step.
    pub fn check(&mut self) {
        for (id, event) in self.events.iter().filter(|(_, event)| event.emitter.is_none()) {
            assert!(!event.offsets.contains(&0), "event {id} has no place: {event:?}");
        }
        self.check_emits();
        let histories = self.histories();
        let mut received = Vec::new();
        for (number, client) in self.clients.iter().enumerate() {
            let marks = self.tell_apart(number, &histories);
            let live = client.stream.iter().zip(marks).filter(|(_, is_state)| !is_state);
            received.push(live.map(|(got, _)| (got.id, got.step)).collect::<Vec<_>>());
            self.check_questions(number, &histories);
        }
        for (client, received) in self.clients.iter_mut().zip(received) {
            client.received = received;
        }
        self.check_streams();
    }

    fn check_streams(&self) {
        let mut orders: HashMap<&str, BTreeMap<u64, u64>> = HashMap::new();
        for (room, order) in &self.orders {
            let of_room = orders.entry(room).or_default();
            of_room.extend(order.iter().enumerate().map(|(place, event)| (place as u64 + 1, event.id)));
        }
        let (mut skipped, mut lost) = (0, 0);
        for (number, client) in self.clients.iter().enumerate() {
            self.check_once(number, client);
            self.check_nothing_foreign(number, client);
            self.check_order(number, client);
            if !client.stuck {
                for (id, event) in self.missed(client) {
                    let excused = event.volatile || self.may_have_lost(client, event);
                    assert!(excused, "client {number} missed event {id} {event:?}: {client:?} {:?}", self.operations);
                    *if event.volatile { &mut skipped } else { &mut lost } += 1;
                }
                self.check_gaps(number, client, &orders);
            }
        }
        let reasons = (self.volatile_dropped, self.lost);
        assert!(lost <= self.lost, "{lost} events are missing, {reasons:?}");
        assert!(
            skipped + lost <= self.volatile_dropped + self.lost,
            "{skipped} volatile events are missing, {reasons:?}"
        );
        self.events.iter().for_each(|(id, event)| self.check_ask(*id, event));
    }

    /// At a still step: whoever an event waits for is there, has got it, and has not answered.
    pub fn check_waits_for_somebody(&self, id: u64) {
        let silent = |client: &Client| {
            let got = client.stuck || client.stream.iter().any(|got| got.id == id && got.asks);
            // Of a client that polled, the server may not know yet that it is gone.
            let there = if client.gone.is_none() { got } else { client.late };
            client.socket_io && there && !client.acked.contains_key(&id)
        };
        assert!(self.clients.iter().any(silent), "event {id} waits for nobody: {:?}", self.events[&id]);
    }

    /// Asked is who got the event, and answered who answered in time.
    fn check_ask(&self, id: u64, event: &Event) {
        let Some(ask) = &event.ask else { return };
        let receipt = ask.receipt.as_ref().unwrap_or_else(|| panic!("event {id} has no receipt: {event:?}"));
        let AckReceipt { step, asked, answers, missing, .. } = receipt;
        assert_eq!(*asked, answers.len() as u64 + missing, "event {id}: {receipt:?}");
        let complete = receipt.time < ask.not_due_before;
        let (mut surely, mut maybe) = (0, 0);
        for (number, client) in self.clients.iter().enumerate().filter(|(_, client)| client.socket_io) {
            let got = client.received.iter().any(|(other, _)| *other == id);
            let said = answers.iter().filter(|other| **other == number).count();
            surely += u64::from(got);
            maybe += u64::from(got || client.stuck || client.gone.is_some());
            assert!(said <= 1, "event {id}: client {number} answered twice: {receipt:?}");
            let acked = client.acked.get(&id).filter(|acked| *acked <= step);
            assert!(said == 0 || got && acked.is_some(), "event {id}: client {number} did not say so: {receipt:?}");
            // One that does not read, or reads later, does not know when it is sent away.
            let after = |moment: Step| client.gone.is_none_or(|gone| !client.late && gone > moment);
            let stays = !client.stuck && after(*step);
            if complete {
                assert!(!(got && stays) || acked.is_some(), "event {id} did not wait for client {number}: {receipt:?}");
            }
            // A client that is just being sent away may say so in vain.
            let heard = acked.filter(|acked| after(**acked + 1));
            let in_time = heard.is_some_and(|acked| complete || self.still.iter().any(|s| acked <= s && s < step));
            assert!(!in_time || said == 1, "event {id} misses client {number}'s answer: {receipt:?} {client:?}");
        }
        assert!(*asked <= maybe, "event {id} asked {asked} of at most {maybe}: {receipt:?}");
        assert!(!complete || *asked >= surely, "event {id} asked {asked} of at least {surely}: {receipt:?}");
    }

    /// Acknowledgements that came in time: a model that sees none finds nothing.
    pub fn acks(&self) -> usize {
        let receipts = self.events.values().filter_map(|event| event.ask.as_ref()?.receipt.as_ref());
        receipts.map(|receipt| receipt.answers.len()).sum()
    }

    /// Events that the client was there for and has not got: whatever was published while it certainly was in the room,
    /// and was under way no longer than it stayed.
    fn missed<'a>(&'a self, client: &'a Client) -> impl Iterator<Item = (&'a u64, &'a Event)> {
        let received: HashSet<u64> = client.stream.iter().map(|got| got.id).collect();
        let missed = self.events.iter().filter(move |(id, _)| !received.contains(id));
        missed.filter(|(_, event)| self.must_get(client, event))
    }

    /// Events that honest clients have missed as they read too late.
    pub fn lost_by_laggards(&self) -> usize {
        let clients = self.clients.iter().filter(|client| !client.stuck);
        clients.map(|client| self.missed(client).filter(|(_, event)| !event.volatile).count()).sum()
    }

    /// True if the client may have missed the event because it lagged: a room that it can have got it by allows that, a
    /// newer one of its key has come if need be, and the client's outbox can have been full while the event waited.
    fn may_have_lost(&self, client: &Client, event: &Event) -> bool {
        let Some(settled) = self.settled(event.published) else { return false };
        let asked = event.ask.is_some() && client.socket_io;
        let by = |rooms: &[&str]| {
            let allows = |place: &String| place.split_once(' ').is_some_and(|(_, room)| rooms.contains(&room));
            let mut allowing = event.rooms.iter().filter(|place| allows(place));
            !asked && allowing.any(|room| self.possible(client, room, event.published, settled, 0))
        };
        let succeeds = |id: &u64| {
            let other = &self.events[id];
            let later = other.offsets.first() > event.offsets.first();
            later && other.rooms == event.rooms && other.key == event.key && event.key.is_some()
        };
        let conflated = || by(&CONFLATING) && client.stream.iter().any(|got| succeeds(&got.id));
        (by(&DROPPING) || conflated()) && client.reads.iter().any(|read| self.can_have_been_full(client, read, event))
    }

    /// True if the client's outbox can have been full in this time, with the event in it.
    fn can_have_been_full(&self, client: &Client, read: &Read, event: &Event) -> bool {
        let overlaps = |event: &Event| {
            event.published <= read.to && self.settled(event.published).is_none_or(|settled| settled >= read.from)
        };
        if !overlaps(event) {
            return false;
        }
        let received: HashSet<u64> = client.stream.iter().map(|got| got.id).collect();
        let missing = |(id, other): &(&u64, &Event)| {
            !received.contains(id)
                && overlaps(other)
                && other.rooms.iter().any(|room| self.possible(client, room, other.published, read.to, 0))
        };
        let missing = self.events.iter().filter(missing).count() as u64;
        read.bytes + (missing + 1) * FRAME_BYTES_MAX > u64::from(OUTBOX_BYTES_MAX)
    }

    /// How many (client, event) pairs the rules decide: a model that decides nothing would find nothing.
    pub fn certainties(&self) -> usize {
        let clients = self.clients.iter().filter(|client| !client.stuck);
        clients.map(|client| self.events.values().filter(|event| self.must_get(client, event)).count()).sum()
    }

    fn check_once(&self, number: usize, client: &Client) {
        let mut seen: HashMap<u64, usize> = HashMap::new();
        for &(id, _) in &client.received {
            let times = seen.entry(id).or_default();
            *times += 1;
            let too_often = *times > 1 && *times > self.times(client, id);
            assert!(!too_often, "client {number} got event {id} {times} times: {:?} {client:?}", self.events[&id]);
        }
    }

    /// Whatever came was for a room that the client can have been in, and was not excepted.
    fn check_nothing_foreign(&self, number: usize, client: &Client) {
        for &(id, step) in &client.received {
            let event = &self.events[&id];
            let may = event.rooms.iter().any(|room| self.possible(client, room, event.published, step, 0));
            assert!(may, "client {number} got event {id} {event:?} at {step}: {client:?}");
            let excepted = event.except.iter().any(|room| self.certain(client, room, event.published, step));
            let excepted = excepted || event.not_to == Some(number);
            assert!(!excepted, "client {number} got event {id} {event:?}, from which it was excepted");
        }
    }

    fn must_get(&self, client: &Client, event: &Event) -> bool {
        let Some(settled) = self.settled(event.published) else { return false };
        if event.offsets.contains(&0) || event.not_to == Some(client.number) {
            return false;
        }
        event.rooms.iter().any(|room| self.certain(client, room, event.published, settled))
            && !event.except.iter().any(|room| self.possible(client, room, event.published, settled, 0))
    }

    /// Within a room events come by offset. Only an event for several rooms may come earlier, at its place in another,
    /// or later, if the client was not in this room at its place here.
    fn check_order(&self, number: usize, client: &Client) {
        for room in client.memberships.keys() {
            let run = self.run(client, room);
            for (index, &(offset, id, _)) in run.iter().enumerate() {
                let early = self.events[&id].rooms.len() > 1;
                for &(later, other, step) in &run[index + 1..] {
                    let other_event = &self.events[&other];
                    let by_another_room = other_event.rooms.len() > 1
                        && (!self.certain(client, room, other_event.published, step)
                            || self.may_be_held_back(client, other));
                    assert!(
                        offset < later || early || by_another_room,
                        "client {number} got {id} (offset {offset}) before {other} (offset {later}) of {room:?}: {:?}, \
                         {other_event:?}, {client:?}, {:?}",
                        self.events[&id],
                        self.operations
                    );
                }
            }
        }
    }

    /// Between two events of a room that came while the client was in it all the time, nothing is missing.
    fn check_gaps(&self, number: usize, client: &Client, orders: &HashMap<&str, BTreeMap<u64, u64>>) {
        let received: HashSet<u64> = client.stream.iter().map(|got| got.id).collect();
        for (room, order) in orders {
            let single: Vec<(u64, u64, Step)> = self.run(client, room);
            let single: Vec<_> = single.iter().filter(|(_, id, _)| self.events[id].rooms.len() <= 1).collect();
            for pair in single.windows(2) {
                let (&(first, id, came), &(last, _, to)) = (pair[0], pair[1]);
                let from = if client.late { self.events[&id].published } else { came };
                if !self.certain(client, room, from + 1, to) {
                    continue;
                }
                for (offset, id) in order.range(first + 1..last) {
                    let event = &self.events[id];
                    let meant = event.except.is_empty() && event.not_to != Some(number);
                    // What waited behind a reply when the client went away has not come.
                    let held_back = client.gone.is_some() && self.may_be_held_back(client, *id);
                    let missing = meant && !event.volatile && !received.contains(id) && !held_back;
                    assert!(
                        !missing || self.may_have_lost(client, event),
                        "client {number} has a gap at offset {offset} (event {id}) of {room:?} between {first} and \
                         {last}: {client:?}, {:?} {}",
                        self.operations,
                        self.orders_of(client.watches.iter().flat_map(|watch| &watch.ask.rooms))
                    );
                }
            }
        }
    }

    /// What a client got of a room: offset, event and step, as it came.
    fn run(&self, client: &Client, room: &str) -> Vec<(u64, u64, Step)> {
        let of_room = |&(id, step): &(u64, Step)| {
            let event = &self.events[&id];
            let place = event.rooms.iter().position(|other| other == room)?;
            Some((event.offsets[place], id, step))
        };
        client.received.iter().filter_map(of_room).collect()
    }

    /// The first quiet step at or after `step`.
    fn settled(&self, step: Step) -> Option<Step> {
        self.quiet.get(self.quiet.partition_point(|&quiet| quiet < step)).copied()
    }

    /// True if the client can have been in the room at some time within `from..=to`.
    fn possible(&self, client: &Client, room: &str, from: Step, to: Step, depth: usize) -> bool {
        if client.gone.is_some_and(|gone| gone < from) {
            return false;
        }
        let asked = |m: &Membership| m.asked <= to && m.ended.is_none_or(|end| end >= from);
        if client.memberships.get(room).is_some_and(|list| list.iter().any(asked)) {
            return true;
        }
        self.joined_by_operation(client, room, to, depth)
    }

    /// True if an operation can have put the client into the room before `to`.
    fn joined_by_operation(&self, client: &Client, room: &str, to: Step, depth: usize) -> bool {
        let joins = |op: &&Operation| op.handed <= to && op.kind == "join" && op.rooms.iter().any(|r| r == room);
        self.operations.iter().filter(joins).any(|op| self.meant(client, op, depth))
    }

    /// True if the operation can have met the client. A chain of operations is taken for possible at its third link.
    fn meant(&self, client: &Client, operation: &Operation, depth: usize) -> bool {
        let done = operation.done.unwrap_or(Step::MAX);
        depth >= 3 || self.possible(client, &operation.target, operation.handed, done, depth + 1)
    }

    /// True if the client certainly was in the room all the time from `from` to `to`.
    fn certain(&self, client: &Client, room: &str, from: Step, to: Step) -> bool {
        if client.gone.is_some_and(|gone| gone <= to) {
            return false;
        }
        let own = client.memberships.get(room).into_iter().flatten();
        let own = own.filter(|m| m.certain.is_some_and(|c| c < from) && m.leaving.is_none_or(|leaving| leaving > to));
        let mut since: Vec<Step> = own.map(|m| m.asked).collect();
        let done = self.operations.iter().filter_map(|op| Some((op, op.done.filter(|done| *done < from)?)));
        for (op, done) in done.filter(|(op, _)| op.kind == "join" && op.rooms.iter().any(|r| r == room)) {
            let own_leaves = client.leaves.get(room).into_iter().flatten();
            let left = own_leaves.into_iter().any(|&leave| leave <= to && leave >= self.quiet_before(op.handed));
            if !left && self.certain_by_own(client, &op.target, op.handed, done) {
                since.push(op.handed);
            }
        }
        since.iter().any(|&since| !self.disturbed(client, room, since, to))
    }

    /// Like [`Model::certain`], by what the client asked for alone.
    fn certain_by_own(&self, client: &Client, room: &str, from: Step, to: Step) -> bool {
        let holds = |m: &Membership| {
            m.certain.is_some_and(|certain| certain < from)
                && m.leaving.is_none_or(|leaving| leaving > to)
                && !self.disturbed(client, room, m.asked, to)
        };
        client.gone.is_none_or(|gone| gone > to) && client.memberships.get(room).is_some_and(|l| l.iter().any(holds))
    }

    /// A client's request may wait behind others of its own: it was made after the last quiet step at the earliest.
    fn quiet_before(&self, step: Step) -> Step {
        self.quiet[..self.quiet.partition_point(|&quiet| quiet < step)].last().copied().unwrap_or(0)
    }

    /// True if an operation can have taken the client out of the room between `since` and `to`.
    fn disturbed(&self, client: &Client, room: &str, since: Step, to: Step) -> bool {
        let takes_out = |op: &&Operation| match op.kind {
            "join" => false,
            "leave" => op.rooms.iter().any(|r| r == room),
            _ => true,
        };
        let overlaps = |op: &&Operation| op.handed <= to && op.done.is_none_or(|done| done >= since);
        self.operations.iter().filter(overlaps).filter(takes_out).any(|op| self.meant(client, op, 0))
    }
}
