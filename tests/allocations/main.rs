//! An event costs the same number of allocations whatever the number of members who get it: appending it to outboxes
//! and sending it allocates nothing for a member. Counted by an allocator that counts, not by reading the code.
//!
//! With `--nocapture` the tests tell what an event costs. Where a count is not what it should be, they say which lines
//! of the server allocate.

#[path = "../common/mod.rs"]
mod common;
mod counter;
mod machine;
mod sockets;

use counter::{Allocated, Places, count, trace};
use machine::{Machine, RAW};
use roomcast::session::Kind;
use sockets::Server;

/// Turns before anything is counted: until then tables grow to what the load needs.
const WARM_UP: usize = 4;
/// Counted turns.
const TURNS: usize = 4;
/// Rooms that each member is in.
const ROOMS: usize = 4;
const CONFIG: &str = r#"
[heartbeat]
ping_interval_ms = 3_600_000
[[endpoint]]
kind = "socket.io"
path = "/socket.io/"
[[endpoint]]
kind = "raw"
path = "/ws"
namespace = "/"
[[namespace]]
name = "/"
[[namespace.on]]
event = "subscribe"
join = ["{data.room}"]
reply = { event = "subscribed" }
[[namespace.rooms]]
match = ["r2"]
slow_consumer = "conflate"
[[namespace.rooms]]
match = ["r3"]
slow_consumer = "drop_oldest"
snapshot = {}
"#;

/// What is published in a turn: so many lines that differ by their number.
#[derive(Clone, Copy)]
struct Load {
    what: &'static str,
    events: usize,
    line: fn(usize) -> String,
}

impl Load {
    fn lines(self) -> String {
        (0..self.events).map(|n| (self.line)(n) + "\n").collect()
    }
}

/// Lines that every member simply gets.
const LOADS: [Load; 5] = [
    Load { what: "one event in one room", events: 1, line: |n| event(r#""room":"r0""#, n) },
    Load { what: "13 events in one room", events: 13, line: |n| event(r#""room":"r1""#, n) },
    Load { what: "13 events in four rooms", events: 13, line: |n| event(&format!(r#""room":"r{}""#, n % ROOMS), n) },
    Load { what: "3 events for all", events: 3, line: |n| event(r#""key":"k""#, n) },
    Load { what: "9 events of three keys", events: 9, line: |n| event(&keyed(n), n) },
];

/// Lines that some members don't get, or that reach members by several ways: these are looked at first.
const SELECTIVE: [Load; 4] = [
    Load { what: "5 volatile events", events: 5, line: |n| event(r#""room":"r0","volatile":true"#, n) },
    Load { what: "5 events in two rooms", events: 5, line: |n| event(r#""rooms":["r0","r1"]"#, n) },
    Load { what: "5 events in all rooms", events: 5, line: |n| event(r#""rooms":["r0","r1","r2","r3"]"#, n) },
    Load {
        what: "5 events for who is not elsewhere",
        events: 5,
        line: |n| event(r#""room":"r0","except":["odd"]"#, n),
    },
];

fn event(to: &str, n: usize) -> String {
    format!(r#"{{{to},"event":"e","data":{{"seq":{}}}}}"#, 100 + n)
}

fn keyed(n: usize) -> String {
    format!(r#""room":"r{}","key":"k{}""#, 2 + n % 2, n % 3)
}

/// The rooms of the member with this number.
fn rooms(member: usize) -> Vec<String> {
    let common = (0..ROOMS).map(|room| format!("r{room}"));
    common.chain((member % 4 > 1).then(|| "odd".to_owned())).collect()
}

/// The members take turns in what they speak, so that each core has both.
fn kind(member: usize) -> Kind {
    if member.is_multiple_of(2) { RAW } else { Kind::SocketIo }
}

/// Measures what a turn of each load costs with few members and with many, and fails if that is not the same by
/// `is_same`. `cost` and `places` take the cores, the members and the load.
fn judge(
    loads: &[Load],
    [few, many]: [usize; 2],
    is_same: fn(Allocated, Allocated) -> bool,
    cost: impl Fn(usize, usize, Load) -> Allocated,
    places: impl Fn(usize, usize, Load) -> Places,
) {
    let mut offences = Vec::new();
    for (cores, load) in [1, 2].into_iter().flat_map(|cores| loads.iter().map(move |load| (cores, *load))) {
        let (cost_few, cost_many) = (cost(cores, few, load), cost(cores, many, load));
        assert!(cost_few.blocks >= load.events as u64, "each event is allocated: who counts nothing finds nothing");
        let per_event = |count: u64| count as f64 / load.events as f64;
        let (blocks, bytes) = (per_event(cost_few.blocks), per_event(cost_few.bytes));
        let what = format!("{} on {cores} core(s)", load.what);
        println!("{what}: {blocks:.1} allocations, {bytes:.0} bytes per event for {few} members");
        if !is_same(cost_few, cost_many) {
            offences.push(format!("{what}: {cost_few:?} for {few} members, {cost_many:?} for {many}; in one turn"));
            let places_few = places(cores, few, load);
            for (place, count) in places(cores, many, load) {
                let before = places_few.get(&place).copied().unwrap_or_default();
                if before != count {
                    offences.push(format!("    {before} times, and {count} times, at {place}"));
                }
            }
        }
    }
    assert!(offences.is_empty(), "members cost allocations:\n{}", offences.join("\n"));
}

/// A machine without sockets, whose members are all in their rooms, after its warm-up.
fn warm_machine(cores: usize, members: usize, lines: &str) -> Machine {
    let mut machine = Machine::new(cores, CONFIG);
    (0..members).for_each(|member| machine.join(member / 2 % cores, kind(member), &rooms(member)));
    for _ in 0..WARM_UP {
        turn(&mut machine, lines);
    }
    machine
}

/// Lines come in, and all that follows. Returns what was allocated until all was delivered, and from then on.
fn turn(machine: &mut Machine, lines: &str) -> (Allocated, Allocated) {
    let (delivering, ()) = count(|| {
        machine.publish(0, lines.as_bytes());
        machine.deliver_all();
    });
    let (taking, sends) = count(|| (0..machine.cores.len()).map(|core| machine.take(core).0).sum::<usize>());
    assert!(sends > 0, "somebody got something");
    (delivering, taking)
}

fn without_sockets(loads: &[Load], is_same: fn(Allocated, Allocated) -> bool) {
    let cost = |cores, members, load: Load| {
        let mut machine = warm_machine(cores, members, &load.lines());
        let turn = |_| {
            let (delivering, taking) = turn(&mut machine, &load.lines());
            assert_eq!(taking, Allocated::default(), "taking from outboxes allocates: {}", load.what);
            delivering
        };
        (0..TURNS).map(turn).max_by_key(|allocated| allocated.blocks).expect("there are turns")
    };
    let places = |cores, members, load: Load| {
        let mut machine = warm_machine(cores, members, &load.lines());
        trace(|| turn(&mut machine, &load.lines()))
    };
    judge(loads, [100, 10_000], is_same, cost, places);
}

#[test]
fn delivering_allocates_nothing_for_a_member() {
    without_sockets(&LOADS, |few, many| few == many);
}

#[test]
fn choosing_members_allocates_nothing_for_a_member() {
    // The list of those who are left may grow with the members.
    without_sockets(&SELECTIVE, |few, many| few.blocks == many.blocks);
}

/// Bytes that each client gets of a load.
fn bytes(load: Load, kind: Kind) -> usize {
    let data = r#"{"seq":100}"#;
    let text = match kind {
        Kind::SocketIo => format!(r#"42["e",{data}]"#),
        _ => format!(r#"{{"type":"e","data":{data}}}"#),
    };
    // A short frame's header has two bytes.
    load.events * (2 + text.len())
}

/// Runs `work` with a server whose members are all in their rooms, after its warm-up, and that load.
fn with_sockets<T: Send + 'static>(
    cores: usize,
    members: usize,
    load: Load,
    work: impl FnOnce(&mut dyn FnMut() -> Allocated) -> T + Send + 'static,
) -> T {
    Server::run(cores, CONFIG, move |server| {
        (0..members).for_each(|member| server.join(kind(member), &rooms(member)));
        let mut publish = || server.publish(&load.lines(), |kind| bytes(load, kind));
        for _ in 0..WARM_UP {
            publish();
        }
        work(&mut publish)
    })
}

#[test]
fn sending_allocates_nothing_for_a_member() {
    let cost = |cores, members, load| {
        // The cheapest turn: when the kernel hands lines over in two parts, a buffer may have to grow once more.
        with_sockets(cores, members, load, |publish| (0..TURNS).map(|_| publish()).min_by_key(|cost| cost.blocks))
            .expect("there are turns")
    };
    let places = |cores, members, load| with_sockets(cores, members, load, |publish| trace(publish));
    judge(&LOADS, [100, 1_000], |few, many| few == many, cost, places);
}
