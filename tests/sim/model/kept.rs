//! The oracle of what rooms keep. It tells, in each client's stream, state from live events: for each request there
//! must be one place in each room's order such that the client got what was kept there, behind the reply, and every
//! later event live. It knows each room's order, and nothing of who asked whom for what.
//!
//! What it deliberately does not know:
//! * An event for several rooms may come twice, once as what one room keeps and once live by another. Rooms have no
//!   order among each other. For the same reason it may wait behind a reply for one room, and so come late in another.
//! * What came as state and what came live directly behind it look the same: of several ways to read a stream one must
//!   be right.
//! * Volatile events that come as state, or wait behind a reply, come like all others.
//! * Who is in one of several rooms already gets its events meanwhile: what that room keeps may come before the reply.
//! * Who is taken out of a room while its state is on its way is promised nothing of it.

use super::{Client, Model, Step};
use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

/// What rooms of a name keep, and whether an event's data may carry its key as `k`.
#[derive(Clone, Copy, Debug)]
pub struct Class {
    pub room: &'static str,
    pub key_in_data: bool,
    pub keys_max: usize,
    pub bytes_max: usize,
    pub age_ms_max: Option<u64>,
}

const fn class(room: &'static str, key_in_data: bool, keys_max: usize, bytes_max: usize, age: Option<u64>) -> Class {
    Class { room, key_in_data, keys_max, bytes_max, age_ms_max: age }
}

/// Other rooms keep nothing.
pub const CLASSES: [Class; 5] = [
    class("a", true, 1000, 1 << 20, None),
    class("b", false, 2, 1 << 20, None),
    // Three or four events.
    class("c", true, 1000, 75, None),
    class("d", false, 1000, 1 << 20, Some(1_500)),
    class("f", true, 3, 1 << 20, Some(4_000)),
];

/// What holds for the room at this place.
pub fn class_of(place: &str) -> Option<&'static Class> {
    let (_, room) = place.split_once(' ')?;
    CLASSES.iter().find(|class| class.room == room)
}

/// An event at its place in a room's order.
#[derive(Debug)]
pub struct Ordered {
    pub id: u64,
    pub step: Step,
    /// In virtual milliseconds.
    pub time: u64,
    /// Of its name and arguments.
    pub bytes: usize,
}

/// A client's question for what rooms keep.
#[derive(Debug)]
pub struct Ask {
    /// Places, without duplicates.
    pub rooms: Vec<String>,
    /// It stands among the ids of events: those that the client sent before are smaller.
    pub id: u64,
    pub step: Step,
    /// In virtual milliseconds.
    pub time: u64,
    pub reply: Option<Reply>,
}

#[derive(Clone, Copy, Debug)]
pub struct Reply {
    /// How much of the stream came before the client's last answer: its messages are handled one by one.
    pub after: usize,
    /// How much of the stream came before.
    pub behind: usize,
    pub step: Step,
    pub time: u64,
}

/// A wish to join rooms with what they keep.
#[derive(Debug)]
pub struct Watch {
    pub ask: Ask,
    /// Its membership in each of the rooms, by its place in the client's list.
    pub memberships: Vec<usize>,
}

/// A wish for what one room keeps.
#[derive(Debug)]
pub struct Question {
    pub ask: Ask,
    /// The events whose data stood in the reply.
    pub answer: Vec<u64>,
}

/// An event in a client's stream.
#[derive(Clone, Copy, Debug)]
pub struct Got {
    pub id: u64,
    pub step: Step,
    /// It asks the client for an acknowledgement.
    pub asks: bool,
}

/// What a room can have kept at some moment: the last places of the order that count, and the ids.
struct Kept {
    place: usize,
    ids: Vec<u64>,
}

impl Model {
    /// Puts a client's stream into what came live and what came as state.
    pub(super) fn tell_apart(&self, number: usize, histories: &HashMap<&str, Vec<Vec<usize>>>) -> Vec<bool> {
        let client = &self.clients[number];
        let mut marks = vec![false; client.stream.len()];
        let furthest = Cell::new(0);
        if !self.explain(number, 0, histories, &mut marks, &furthest) {
            let watch = &client.watches[furthest.get()];
            panic!("client {number} got no state that there was: {watch:?} {}", self.about(client, watch));
        }
        for watch in &client.watches {
            if let Some(reply) = watch.ask.reply {
                self.check_nothing_before_reply(number, watch, reply, &marks);
            }
        }
        for (got, is_state) in client.stream.iter().zip(&marks) {
            let asks = self.events[&got.id].ask.is_some() && client.socket_io;
            let event = &self.events[&got.id];
            let rooms = client.watches.iter().flat_map(|watch| &watch.ask.rooms);
            assert_eq!(
                got.asks,
                asks && !is_state,
                "client {number}: {got:?} {event:?} {client:?} {}",
                self.orders_of(rooms)
            );
        }
        marks
    }

    /// Each answer is what the room kept at one place between question and answer.
    pub(super) fn check_questions(&self, number: usize, histories: &HashMap<&str, Vec<Vec<usize>>>) {
        for Question { ask, answer } in &self.clients[number].questions {
            let Some(reply) = ask.reply else { continue };
            let room = &ask.rooms[0];
            let is_right = self.possible_states(number, ask, reply, room, histories).any(|kept| kept.ids == *answer);
            assert!(is_right, "client {number} was told of {answer:?}: {ask:?} {}", self.order_of(room));
        }
    }

    /// Events that clients caused are in their order, and all of them are there.
    pub(super) fn check_emits(&self) {
        for (room, order) in &self.orders {
            let mut last: HashMap<usize, u64> = HashMap::new();
            for event in order {
                let Some(emitter) = self.events[&event.id].emitter else { continue };
                let before = last.insert(emitter, event.id).unwrap_or(0);
                assert!(before < event.id, "client {emitter}'s {} overtook {before} in {room:?}", event.id);
            }
        }
        for (id, event) in &self.events {
            let Some(emitter) = event.emitter else { continue };
            let ordered = event.offsets.iter().filter(|offset| **offset > 0).count();
            assert!(ordered == 0 || ordered == event.rooms.len(), "a part of event {id} is missing: {event:?}");
            // A client that polls may not know yet that its message was too late.
            let client = &self.clients[emitter];
            let lost = event.answered || client.gone.is_none() && !client.late;
            assert!(ordered > 0 || !lost, "client {emitter} sent event {id} in vain: {event:?}");
        }
    }

    /// By room and place: the places of the events that it keeps there, had they no age.
    pub(super) fn histories(&self) -> HashMap<&str, Vec<Vec<usize>>> {
        self.orders.iter().map(|(room, order)| (&**room, self.history(room, order))).collect()
    }

    fn history(&self, room: &str, order: &[Ordered]) -> Vec<Vec<usize>> {
        let mut states = vec![Vec::new()];
        let Some(class) = class_of(room) else { return vec![Vec::new(); order.len() + 1] };
        let key_of = |place: usize| self.events[&order[place - 1].id].key.as_deref();
        for place in 1..=order.len() {
            let mut state: Vec<usize> = states[place - 1].clone();
            if let Some(key) = key_of(place) {
                state.retain(|&other| key_of(other) != Some(key));
                state.push(place);
                let bytes = |state: &[usize]| -> usize {
                    state.iter().map(|&place| order[place - 1].bytes + key_of(place).unwrap_or_default().len()).sum()
                };
                while state.len() > class.keys_max || bytes(&state) > class.bytes_max {
                    state.remove(0);
                }
            }
            states.push(state);
        }
        states
    }

    /// What the room may have kept between question and answer, at the latest place first.
    fn possible_states(
        &self,
        number: usize,
        ask: &Ask,
        reply: Reply,
        room: &str,
        histories: &HashMap<&str, Vec<Vec<usize>>>,
    ) -> impl Iterator<Item = Kept> {
        let order = self.orders.get(room).map_or(&[][..], |order| &order[..]);
        let age = class_of(room).and_then(|class| class.age_ms_max);
        let is_own_before = |event: &Ordered| self.events[&event.id].emitter == Some(number) && event.id < ask.id;
        let own = order.iter().rposition(is_own_before).map_or(0, |place| place + 1);
        let first = own.max(order.partition_point(|event| event.step < ask.step));
        let last = order.partition_point(|event| event.step <= reply.step);
        let mut states = Vec::new();
        for place in (first..=last).rev() {
            let all: &[usize] = histories.get(room).map_or(&[], |history| &history[place]);
            let too_old = |by: u64| {
                let is_old = |place: &&usize| age.is_some_and(|age| order[**place - 1].time + age <= by);
                all.iter().take_while(is_old).count()
            };
            for gone in too_old(ask.time)..=too_old(reply.time) {
                states.push(Kept { place, ids: all[gone..].iter().map(|&place| order[place - 1].id).collect() });
            }
        }
        states.into_iter()
    }

    /// Finds in the stream what the rooms of the watches from `of` on kept.
    fn explain(
        &self,
        number: usize,
        of: usize,
        histories: &HashMap<&str, Vec<Vec<usize>>>,
        marks: &mut Vec<bool>,
        furthest: &Cell<usize>,
    ) -> bool {
        let client = &self.clients[number];
        let Some(watch) = client.watches.get(of) else { return true };
        furthest.set(furthest.get().max(of));
        // A client that went away before the reply came may have got some of the state already.
        let behind = client.stream.len();
        let never = Reply { after: client.answered, behind, step: Step::MAX - 1, time: u64::MAX };
        let reply = watch.ask.reply.unwrap_or(never);
        self.explain_rooms(number, of, reply, 0, reply.behind, histories, marks, furthest)
    }

    /// Finds what the rooms from `index` on kept in the stream from `at` on, or, where the client was in a room before,
    /// in front of the reply. The longest that is possible goes first: what came as state or directly behind it
    /// looks the same.
    #[allow(clippy::too_many_arguments)]
    fn explain_rooms(
        &self,
        number: usize,
        of: usize,
        reply: Reply,
        index: usize,
        at: usize,
        histories: &HashMap<&str, Vec<Vec<usize>>>,
        marks: &mut Vec<bool>,
        furthest: &Cell<usize>,
    ) -> bool {
        let client = &self.clients[number];
        let watch = &client.watches[of];
        let Some(room) = watch.ask.rooms.get(index) else {
            // Whoever has no answer yet has been given nothing for what it asked after that.
            let good = self.can_be_live(number, of, reply, at, marks);
            return good && (watch.ask.reply.is_none() || self.explain(number, of + 1, histories, marks, furthest));
        };
        let disturbed = self.disturbed(client, room, watch.ask.step, reply.step);
        let fresh = self.is_fresh(client, watch, index, reply.step);
        // State stands with the reply. Who polls, or has polled, may be given the parts one by one.
        let packets = if client.late { 1 + at - reply.behind } else { 0 };
        let prompt = client.stream.get(at).is_none_or(|got| got.step <= reply.step + packets as Step);
        // Of who went away, the stream may end anywhere.
        let cut = client.gone.is_some() || client.stuck;
        let mut ways: Vec<(bool, usize, Kept)> = Vec::new();
        for kept in self.possible_states(number, &watch.ask, reply, room, histories) {
            let early = !fresh && watch.ask.rooms.len() > 1;
            let asked = client.stream.partition_point(|got| got.step < watch.ask.step).max(reply.after);
            for start in (asked..reply.behind).filter(|_| early) {
                let whole = start + kept.ids.len() <= reply.behind;
                let fits = whole || cut && watch.ask.reply.is_none();
                if fits && self.stands(client, &kept.ids, start, marks, !whole) {
                    ways.push((!whole, start, Kept { ids: kept.ids.clone(), ..kept }));
                }
            }
            let here = [false, true].into_iter().take(1 + usize::from(cut));
            let here = here.filter(|&ends| self.stands(client, &kept.ids, at, marks, ends)).min();
            let may_be_here = prompt || client.late || kept.ids.is_empty();
            ways.extend(here.filter(|_| may_be_here).map(|ends| (ends, at, kept)));
        }
        ways.sort_by_key(|(ends, start, kept)| {
            let apart = *start != at || !prompt;
            (*ends, kept.ids.is_empty(), apart, Reverse(kept.ids.len()), *start, Reverse(kept.place))
        });
        let mut tried: HashSet<(Vec<u64>, usize)> = HashSet::new();
        for (_, start, kept) in ways {
            let block = start..(start + kept.ids.len()).min(marks.len());
            if !tried.contains(&(kept.ids.clone(), start)) {
                marks[block.clone()].fill(true);
                let next = if start == at { block.end } else { at };
                let good = disturbed || self.goes_on(number, of, reply, index, &kept, block.clone(), fresh, marks);
                if good {
                    if self.explain_rooms(number, of, reply, index + 1, next, histories, marks, furthest) {
                        return true;
                    }
                    // Another place with the same state makes no difference to the other rooms.
                    tried.insert((kept.ids.clone(), start));
                }
                marks[block].fill(false);
            }
        }
        disturbed && self.explain_rooms(number, of, reply, index + 1, at, histories, marks, furthest)
    }

    /// True if what is not marked, up to where the next watch may have brought something, can have come live.
    fn can_be_live(&self, number: usize, of: usize, reply: Reply, at: usize, marks: &[bool]) -> bool {
        let client = &self.clients[number];
        let next = client.watches.get(of + 1);
        let until =
            next.map_or(marks.len(), |next| next.ask.reply.map_or(client.answered, |reply| reply.after)).max(at);
        let live = |at: &usize| !marks[*at];
        (reply.after..until).filter(live).all(|at| {
            let Got { id, step, asks } = client.stream[at];
            let event = &self.events[&id];
            let excepted = event.except.iter().any(|room| self.certain(client, room, event.published, step));
            let there = event.rooms.iter().any(|room| self.possible(client, room, event.published, step, 0));
            let before = || (0..at).filter(live).map(|before| client.stream[before].id);
            let again = before().filter(|other| *other == id).count();
            let of_room = |other: &u64| event.rooms.len() == 1 && self.events[other].rooms == event.rooms;
            let in_order = before().filter(of_room).all(|other| self.events[&other].offsets < event.offsets);
            let asked = asks == (client.socket_io && event.ask.is_some());
            asked && there && in_order && !excepted && again < self.times(client, id) && event.not_to != Some(number)
        })
    }

    /// True if the stream has these events at `at`, and they can be state.
    fn stands(&self, client: &Client, ids: &[u64], at: usize, marks: &[bool], ends: bool) -> bool {
        let stream = &client.stream[at.min(client.stream.len())..];
        let whole = stream.len() >= ids.len() || ends;
        let alike = |(got, id): (&Got, &u64)| got.id == *id && !got.asks;
        whole
            && stream.iter().zip(ids).all(alike)
            && !marks[at.min(marks.len())..].iter().zip(ids).any(|(mark, _)| *mark)
    }

    /// True if the live events of the room go on where the state ends: before it those up to its place, after it all
    /// the others.
    #[allow(clippy::too_many_arguments)]
    fn goes_on(
        &self,
        number: usize,
        of: usize,
        reply: Reply,
        index: usize,
        kept: &Kept,
        block: Range<usize>,
        fresh: bool,
        marks: &[bool],
    ) -> bool {
        let client = &self.clients[number];
        let Watch { ask, memberships } = &client.watches[of];
        let room = &ask.rooms[index];
        let later = client.watches[of + 1..].iter().find(|later| later.ask.rooms.contains(room));
        let end = later.map_or(marks.len(), |later| later.ask.reply.map_or(client.answered, |reply| reply.after));
        let membership = &client.memberships[room][memberships[index]];
        let since = membership.asked;
        let joined = reply.step + 1;
        // It may have left and come again by the time it reads that.
        let stays = |until| {
            membership.leaving.is_none_or(|leaving| leaving > until) && self.certain(client, room, joined, until)
        };
        let mut newest = kept.place;
        for (at, got) in client.stream.iter().enumerate().filter(|(at, _)| !marks[*at]) {
            let event = &self.events[&got.id];
            if at >= end.max(block.end) || event.rooms != [room.clone()] {
                continue;
            }
            let offset = event.offsets[0] as usize;
            if got.step < since {
                continue;
            }
            if at >= block.end {
                if offset <= kept.place {
                    return false;
                }
                if stays(got.step) {
                    newest = newest.max(offset);
                }
            } else if !fresh && offset > kept.place {
                return false;
            }
        }
        let Some(order) = self.orders.get(room) else { return true };
        let missing = |(place, event): (usize, &Ordered)| {
            let what = &self.events[&event.id];
            if client.stuck || what.volatile || what.not_to == Some(number) || client.has(event.id) {
                return false;
            }
            let settled = self.settled(event.step.max(joined));
            let meant = place < newest || settled.is_some_and(stays);
            let until = settled.unwrap_or(Step::MAX);
            let excepted = || what.except.iter().any(|place| self.possible(client, place, ask.step, until, 0));
            meant && !excepted() && !self.may_have_lost(client, what)
        };
        !(kept.place..order.len()).any(|at| missing((at + 1, &order[at])))
    }

    /// True if the client cannot have been in the room while it waited, but for the watch itself.
    fn is_fresh(&self, client: &Client, watch: &Watch, index: usize, until: Step) -> bool {
        let room = &watch.ask.rooms[index];
        let before = &client.memberships[room][..watch.memberships[index]];
        let was_there = before.iter().any(|m| m.ended.is_none_or(|end| end >= watch.ask.step));
        !was_there && !self.joined_by_operation(client, room, until, 0)
    }

    /// Nothing of a room that the client was not in before comes before the reply.
    fn check_nothing_before_reply(&self, number: usize, watch: &Watch, reply: Reply, marks: &[bool]) {
        let client = &self.clients[number];
        let is_fresh = |room: &String| match watch.ask.rooms.iter().position(|other| other == room) {
            Some(index) => self.is_fresh(client, watch, index, reply.step),
            None => !self.possible(client, room, 0, reply.step, 0),
        };
        for (got, _) in client.stream[..reply.behind].iter().zip(marks).filter(|(_, is_state)| !**is_state) {
            let early = got.step >= watch.ask.step && self.events[&got.id].rooms.iter().all(is_fresh);
            assert!(!early, "client {number} got {got:?} before the reply: {}", self.about(client, watch));
        }
    }

    /// How often an event for several rooms may come live: what is followed for one room may be told by another.
    pub(super) fn times(&self, client: &Client, id: u64) -> usize {
        let rooms = &self.events[&id].rooms;
        let watched = client.watches.iter().filter(|watch| watch.ask.rooms.iter().any(|room| rooms.contains(room)));
        if rooms.len() > 1 { 1 + watched.count() } else { 1 }
    }

    /// True if a room that the client watches may keep the event, or have had it while the client waited.
    pub fn may_be_state(&self, number: usize, id: u64) -> bool {
        let rooms = &self.events[&id].rooms;
        let mut watches = self.clients[number].watches.iter();
        watches.any(|watch| watch.ask.rooms.iter().any(|room| rooms.contains(room)))
    }

    /// True if the event may have waited behind a reply: it is late in those of its rooms that the client was in.
    pub(super) fn may_be_held_back(&self, client: &Client, id: u64) -> bool {
        let event = &self.events[&id];
        let holds = |watch: &&Watch| {
            let after = watch.ask.reply.is_none_or(|reply| reply.step >= event.published);
            after && watch.ask.rooms.len() > 1 && watch.ask.rooms.iter().any(|room| event.rooms.contains(room))
        };
        event.rooms.len() > 1 && client.watches.iter().any(|watch| holds(&watch))
    }

    fn about(&self, client: &Client, watch: &Watch) -> String {
        format!("{} {client:?} {:?}", self.orders_of(&watch.ask.rooms), self.operations)
    }

    pub(super) fn orders_of<'a>(&self, rooms: impl IntoIterator<Item = &'a String>) -> String {
        rooms.into_iter().map(|room| self.order_of(room)).collect::<Vec<_>>().join("; ")
    }

    fn order_of(&self, room: &str) -> String {
        let order = self.orders.get(room).map_or(&[][..], |order| &order[..]);
        let tell = |event: &Ordered| {
            let Ordered { id, step, time, bytes } = event;
            let of = &self.events[id];
            format!(
                "{id} key {:?} at {step}, {time} ms, {bytes} bytes, from {:?} to {:?}",
                of.key, of.emitter, of.rooms
            )
        };
        format!("{room:?} had {:#?}", order.iter().map(tell).collect::<Vec<_>>())
    }
}
