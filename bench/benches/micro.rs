//! What the steps of an event's way cost, each by itself: parsing, encoding, delivering, taking from outboxes, a hop
//! from core to core; and the parsing of clients' messages. Times are per item, as the names say. No sockets: what the
//! kernel does is measured by `bench/run`.
//!
//! `cargo bench -p roomcast-bench`; with `-- --save-baseline NAME` and `-- --baseline NAME` it compares.

#[path = "../../tests/allocations/machine.rs"]
mod machine;

use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime};
use machine::{Machine, RAW};
use roomcast::base::event::Event;
use roomcast::base::frame::Frame;
use roomcast::base::ids::{CoreId, NamespaceId};
use roomcast::config::DEVELOPMENT;
use roomcast::mesh::{self, Plane};
use roomcast::proto::line::{self, Parser};
use roomcast::proto::raw::{self, Shape};
use roomcast::proto::{json, socketio, ws};
use roomcast::session::Kind;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The server's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Items for which the clock is read once where an item takes some nanoseconds: reading it costs 25 ns.
const BATCH: usize = 256;

/// Measures `round`, which does `items` things and tells how long they took; the time is per thing.
fn per_item(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, items: usize, mut round: impl FnMut() -> Duration) {
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|rounds| {
            let spent: Duration = (0..rounds).map(|_| round()).sum();
            spent.div_f64(items as f64)
        });
    });
}

/// How long `work` takes.
fn time<T>(work: impl FnOnce() -> T) -> Duration {
    let began = Instant::now();
    black_box(work());
    began.elapsed()
}

/// An event's data that makes a line of a publisher so long; `to` is the beginning of the line.
fn data(to: &str, bytes: usize) -> String {
    let rest = r#"{"seq":1234567,"ts":1712345678901,"x":""}"#;
    let filler = bytes.saturating_sub(format!(r#"{{{to},"event":"moved","data":{rest}}}"#).len());
    format!(r#"{{"seq":1234567,"ts":1712345678901,"x":"{}"}}"#, "abcdefg ".repeat(filler / 8 + 1).split_at(filler).0)
}

/// A publisher's line of so many bytes, without its ending.
fn line_of(to: &str, bytes: usize) -> String {
    format!(r#"{{{to},"event":"moved","data":{}}}"#, data(to, bytes))
}

/// As many lines as this, each for the room that `room` gives it.
fn lines(count: usize, room: impl Fn(usize) -> usize) -> String {
    (0..count).map(|n| line_of(&format!(r#""room":"r{}""#, room(n)), 200) + "\n").collect()
}

const ONE_ROOM: &str = r#""room":"train_17225""#;
const THREE_ROOMS: &str = r#""rooms":["train_17225","train_17226","route:7"]"#;

fn parse_lines(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse a publisher's line");
    let (mut parser, limits) = (Parser::new(), line::Limits::default());
    for (name, to, bytes) in [
        ("200 B, one room", ONE_ROOM, 200),
        ("200 B, three rooms", THREE_ROOMS, 200),
        ("2 KB, one room", ONE_ROOM, 2000),
        ("2 KB, three rooms", THREE_ROOMS, 2000),
    ] {
        let line = line_of(to, bytes);
        assert_eq!(line.len(), bytes);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                black_box(parser.parse(black_box(line.as_bytes()), &limits).expect("it is good"));
            });
        });
    }
    group.finish();
}

/// From the bytes of one read to messages for owners: splitting, parsing, checking, hashing.
fn publish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("take a publisher's lines in, per line");
    for (name, count) in [("one line of 200 B in a read", 1), ("300 lines of 200 B in a read", 300)] {
        let mut machine = Machine::new(1, DEVELOPMENT);
        let lines = lines(count, |n| n % 16);
        per_item(&mut group, name, count, || {
            let spent = time(|| machine.publish(0, lines.as_bytes()));
            machine.deliver_all();
            spent
        });
    }
    group.finish();
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode an event");
    let mut scratch = Vec::new();
    for (size, bytes) in [("200 B", 200), ("2 KB", 2000)] {
        let event = Event::new(NamespaceId(0), "\"moved\"", &data(ONE_ROOM, bytes), 1);
        for (shape, name) in [(Shape::Nested, "raw"), (Shape::Flat, "raw, flat")] {
            group.bench_function(format!("{name}, {size}"), |bencher| {
                bencher.iter(|| {
                    scratch.clear();
                    raw::event(&mut scratch, shape, black_box(&event));
                    Frame::new(&scratch)
                });
            });
        }
        group.bench_function(format!("Socket.IO, {size}"), |bencher| {
            bencher.iter(|| {
                scratch.clear();
                let event = black_box(&event);
                let (name, args) = (event.name_json(), event.args_json());
                socketio::event(&mut scratch, "/", None, name, args, &event.attachments);
                Frame::new(&scratch)
            });
        });
    }
    group.finish();
}

/// A machine of one core with so many rooms, `r0` and so on, of so many members.
fn machine_with(rooms: usize, members: usize, kind: impl Fn(usize) -> Kind) -> Machine {
    let mut machine = Machine::new(1, DEVELOPMENT);
    for room in 0..rooms {
        (0..members).for_each(|member| machine.join(0, kind(member), &[format!("r{room}")]));
    }
    machine
}

fn mixed(member: usize) -> Kind {
    if member.is_multiple_of(2) { RAW } else { Kind::SocketIo }
}

/// From the owner's ring to the members' outboxes: order, encode, deliver. Outboxes are empty before.
fn deliver(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("deliver, per member");
    for (name, members, events, kind) in [
        ("1 member", 1, BATCH, (|_| RAW) as fn(usize) -> Kind),
        ("200 members", 200, 1, |_| RAW),
        ("200 members, raw and Socket.IO", 200, 1, mixed),
        ("200 members, 13 events in a turn", 200, 13, |_| RAW),
        ("10,000 members", 10_000, 1, |_| RAW),
    ] {
        let mut machine = machine_with(1, members, kind);
        let lines = lines(events, |_| 0);
        per_item(&mut group, name, members * events, || {
            machine.publish(0, lines.as_bytes());
            let spent = time(|| machine.deliver_all());
            assert_eq!(machine.take(0).0, members, "each member has got something");
            spent
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("deliver, per event");
    const ROOMS: usize = 2500;
    const EVENTS: usize = 1000;
    let mut machine = machine_with(ROOMS, 4, |_| RAW);
    // Other rooms each time, in no order of theirs.
    let rounds: Vec<String> = (0..5).map(|round| lines(EVENTS, |n| (n + round * EVENTS) * 997 % ROOMS)).collect();
    let mut next = rounds.iter().cycle();
    per_item(&mut group, "1,000 events, 2,500 rooms of 4 members", EVENTS, || {
        machine.publish(0, next.next().expect("a cycle has no end").as_bytes());
        let spent = time(|| machine.deliver_all());
        assert_eq!(machine.take(0).0, 4 * EVENTS, "no room comes twice in a round");
        spent
    });
    group.finish();
}

/// What a flush does for a connection besides the call to the kernel: find it, find its bytes, take note that they are
/// sent. A single frame is sent from where it is; several are joined, unless they are those of the connection before.
fn take(criterion: &mut Criterion) {
    const MEMBERS: usize = 200;
    let mut group = criterion.benchmark_group("take from an outbox, per send");
    for (name, events, joins) in [
        ("1 frame of 200 B", 1, false),
        ("13 frames of 200 B, those of the one before", 13, false),
        ("13 frames of 200 B, joined", 13, true),
    ] {
        let mut machine = machine_with(1, MEMBERS, |_| RAW);
        let lines = lines(events, |_| 0);
        let (mut frames, mut joined) = (Vec::new(), Vec::new());
        per_item(&mut group, name, MEMBERS, || {
            machine.publish(0, lines.as_bytes());
            machine.deliver_all();
            let outboxes = &mut machine.cores[0].shard.outboxes;
            time(|| {
                while let Some((session, _)) = outboxes.next_dirty() {
                    frames.clear();
                    joined.clear();
                    let taken = outboxes.take(session, u32::MAX, &mut frames).expect("nobody lags");
                    if joins {
                        frames.iter().for_each(|&frame| joined.extend_from_slice(outboxes.frame(frame)));
                    }
                    black_box((&frames, &joined));
                    outboxes.settle(session, taken, &frames, taken.bytes as usize);
                }
            })
        });
    }
    group.finish();
}

/// As large as a message to a member core.
type Message = [u64; 6];

/// The two ends of a ring from the first core to the second, and of one back.
fn ends() -> [Plane<Message>; 2] {
    mesh::planes(2, 4096).try_into().expect("there are two cores")
}

/// Has the calling thread run on these processors alone.
fn run_on(processors: &CpuSet) {
    sched_setaffinity(None, processors).expect("they are among the allowed ones");
}

fn ring(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hop from core to core, per message");
    let [mut here, mut there] = ends();
    per_item(&mut group, "one thread", BATCH, || {
        time(|| {
            (0..BATCH).for_each(|n| here.send(CoreId::new(1), [n as u64; 6]));
            while there.receive().is_some() {}
        })
    });
    let allowed = sched_getaffinity(None).expect("a thread knows its processors");
    let mut processors = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).map(|cpu| {
        let mut set = CpuSet::new();
        set.set(cpu);
        set
    });
    if let (Some(first), Some(second)) = (processors.next(), processors.next()) {
        run_on(&first);
        two_threads(&mut group, &second);
        run_on(&allowed);
    }
    group.finish();
}

/// A thread on another processor sends back what comes.
fn two_threads(group: &mut BenchmarkGroup<'_, WallTime>, other: &CpuSet) {
    let [mut here, mut there] = ends();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            run_on(other);
            while !over.load(Ordering::Relaxed) {
                match there.receive() {
                    Some((from, message)) => there.send(from, message),
                    None => spin_loop(),
                }
            }
        });
        for (name, under_way) in [("two threads, one under way", 1), ("two threads, 128 under way", 128)] {
            per_item(group, name, 2 * BATCH, || {
                time(|| {
                    let (mut sent, mut received) = (0, 0);
                    while received < BATCH {
                        while sent < BATCH && sent - received < under_way {
                            here.send(CoreId::new(1), [sent as u64; 6]);
                            sent += 1;
                        }
                        received += usize::from(here.receive().is_some());
                    }
                })
            });
        }
        over.store(true, Ordering::Relaxed);
    });
}

fn client_messages(criterion: &mut Criterion) {
    let subscribe = r#"{"type":"subscribe","data":{"room":"train_17225"}}"#;
    let packet = r#"42["subscribe",{"room":"train_17225"}]"#;
    let long = format!(r#"42["say",{}]"#, data("", 2000));

    let mut group = criterion.benchmark_group("parse a client's WebSocket frame");
    for (name, text) in [("40 B", packet), ("2 KB", &long)] {
        let mut decoder = ws::Decoder::new();
        let mut frame = Vec::new();
        // Of zeros, so that the frame is the same after it was unmasked in place.
        ws::encode_client_frame(&mut frame, true, ws::Kind::Text, [0; 4], text.as_bytes());
        group.bench_function(name, |bencher| {
            bencher.iter(|| match decoder.decode(black_box(&mut frame), 1 << 20) {
                Ok(ws::Step::Message { bytes, .. }) => bytes,
                other => panic!("{other:?}"),
            });
        });
    }
    group.finish();

    let mut scratch = json::Scratch::default();
    let mut group = criterion.benchmark_group("parse a client's message");
    let limits = socketio::Limits::default();
    for (name, text) in [("Socket.IO packet, 40 B", packet), ("Socket.IO packet, 2 KB", &long)] {
        let text = text.strip_prefix('4').expect("an Engine.IO message");
        group.bench_function(name, |bencher| {
            bencher
                .iter(|| socketio::decode(black_box(text), &limits, &mut scratch).expect("it is good").payload.len());
        });
    }
    group.bench_function("raw, 50 B", |bencher| {
        bencher.iter(|| {
            black_box(raw::decode(black_box(subscribe), Shape::Nested, &mut scratch).expect("it is good"));
        });
    });
    group.finish();
}

criterion_group! {
    name = micro;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    targets = parse_lines, publish, encode, deliver, take, ring, client_messages
}
criterion_main!(micro);
