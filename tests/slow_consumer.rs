//! A member that does not read is treated as its rooms' config says; nobody else notices, and the publisher goes on.

mod common;

use common::{OPEN, Publisher, RawClient, Server, wait_until};
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

on_one_and_two_cores!(
    who_never_reads_is_cut,
    who_lags_may_miss_the_oldest,
    who_lags_may_get_the_newest_of_each_key,
    the_worst_are_cut_when_memory_is_short,
    an_asker_who_never_reads_is_paused,
);

/// More than the kernel holds for one connection: up to 4 MB to send and 6 MB received on a common Linux.
const EVENT_BYTES: usize = 16 << 10;
const EVENTS: usize = 4_000;
/// The publisher waits for honest readers, so that none ever lags behind by as much as this.
const OUTBOX_BYTES_MAX: usize = 8_000_000;
const SLOW_CONSUMERS: &str = "roomcast_slow_consumers_total";

const CLASSES: &str = r#"
[[namespace.rooms]]
match = ["ticks:*"]
slow_consumer = "drop_oldest"

[[namespace.rooms]]
match = ["seats:*"]
slow_consumer = "conflate"
"#;

/// A client that reads all the time and misses nothing.
struct Reader {
    read: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Reader {
    fn start(server: &Server, room: &str, events: usize) -> Reader {
        let mut client = RawClient::in_room(server, room);
        let read = Arc::new(AtomicUsize::new(0));
        let count = read.clone();
        let thread = std::thread::spawn(move || {
            for n in 0..events {
                assert_eq!(number(&client.next()), n, "an event is missing");
                count.store(n + 1, Ordering::Relaxed);
            }
            assert_eq!(client.next(), r#"{"type":"end"}"#);
        });
        Reader { read, thread }
    }
}

/// Which of the large events this is.
fn number(text: &str) -> usize {
    let start = || panic!("no large event: {:?}", &text[..text.len().min(60)]);
    let digits = text.strip_prefix(r#"{"type":"big","args":["#).unwrap_or_else(start);
    assert!(text.len() > EVENT_BYTES);
    digits.split(',').next().unwrap().parse().unwrap()
}

/// Publishes large events, each `n` with the key `n % keys` if there are keys, and an end. Honest readers keep up.
fn publish(server: &Server, room: &str, events: usize, keys: usize, readers: Vec<Reader>) {
    let mut publisher = Publisher::connect(server);
    let padding = "x".repeat(EVENT_BYTES);
    for n in 0..events {
        let key = n.checked_rem(keys).map_or(String::new(), |key| format!(r#""key":{key},"#));
        // A publisher with patience, so that only those are cut who read nothing at all.
        publisher.line(&format!(r#"{{"id":{n},{key}"room":"{room}","event":"big","args":[{n},"{padding}"]}}"#));
        assert_eq!(publisher.receipt()["offset"], n + 1);
        if n % 50 == 49 {
            let caught_up = |reader: &Reader| reader.read.load(Ordering::Relaxed) + 100 > n;
            wait_until("honest readers have caught up", || readers.iter().all(caught_up));
        }
    }
    let key = if keys > 0 { r#""key":"end","# } else { "" };
    let end = publisher.ask(&format!(r#"{{"id":"end",{key}"room":"{room}","event":"end"}}"#));
    assert_eq!(end["offset"], events + 1);
    for reader in readers {
        reader.thread.join().unwrap();
    }
}

fn who_never_reads_is_cut(cores: usize) {
    let config = format!("[limits]\noutbox_bytes_max = {OUTBOX_BYTES_MAX}\n{OPEN}{CLASSES}");
    let server = Server::start(&config, cores);
    // On each core at least one, whatever the kernel's hash of the ports says: many sleepers, many readers.
    let sleepers: Vec<RawClient> = (0..4).map(|_| RawClient::in_room(&server, "news")).collect();
    let readers = (0..4).map(|_| Reader::start(&server, "news", EVENTS)).collect();
    publish(&server, "news", EVENTS, 0, readers);
    server.await_metric("roomcast_closes_total", &[("reason", "slow consumer")], 4.0);
    server.await_metric(SLOW_CONSUMERS, &[("outcome", "disconnect"), ("rooms", "*")], 4.0);
    server.await_metric(SLOW_CONSUMERS, &[], 4.0);
    server.await_metric("roomcast_connections", &[], 0.0);
    // What waited for them is gone with them.
    server.await_metric("roomcast_outbox_bytes", &[], 0.0);
    server.await_metric("roomcast_outbox_memory_bytes", &[], 0.0);
    for sleeper in sleepers {
        // The connection was reset, or ends after what the kernel still held.
        let mut sink = vec![0; 1 << 20];
        let mut stream = sleeper.stream();
        while stream.read(&mut sink).is_ok_and(|bytes| bytes > 0) {}
    }
}

/// What a client got that has slept until all was published; it has said one thing besides.
fn rest_of(client: &mut RawClient) -> Vec<usize> {
    let mut got = Vec::new();
    loop {
        match &*client.next() {
            r#"{"type":"end"}"# => break,
            text => got.push(number(text)),
        }
    }
    assert_eq!(client.next(), r#"{"type":"subscribed","data":{"room":"other"}}"#, "answers are not dropped");
    assert!(got.is_sorted_by(|a, b| a < b), "{got:?}");
    got
}

/// Clients that sleep in `room` while others read are heard when they lag, and stay.
fn lag(room: &str, keys: usize, cores: usize) -> (Server, Vec<Vec<usize>>) {
    let config = format!("[limits]\noutbox_bytes_max = {OUTBOX_BYTES_MAX}\n{OPEN}{CLASSES}");
    let server = Server::start(&config, cores);
    let mut sleepers: Vec<RawClient> = (0..3).map(|_| RawClient::in_room(&server, room)).collect();
    let readers = (0..3).map(|_| Reader::start(&server, room, EVENTS)).collect();
    publish(&server, room, EVENTS, keys, readers);
    server.await_metric("roomcast_connections", &[], 3.0);
    let joins = server.metric("roomcast_joins_total");
    for sleeper in &mut sleepers {
        sleeper.send(r#"{"type":"subscribe","data":{"room":"other"}}"#);
    }
    server.await_metric("roomcast_joins_total", &[], joins + 3.0);
    let got = sleepers.iter_mut().map(rest_of).collect();
    // They are as good as any other from then on.
    let mut publisher = Publisher::connect(&server);
    publisher.line(r#"{"room":"other","event":"x"}"#);
    for sleeper in &mut sleepers {
        assert_eq!(sleeper.next(), r#"{"type":"x"}"#);
    }
    assert_eq!(server.metric("roomcast_closes_total"), 3.0, "but for the readers, which are done");
    (server, got)
}

fn who_lags_may_miss_the_oldest(cores: usize) {
    let (server, got) = lag("ticks:1", 0, cores);
    for got in &got {
        let run = got.iter().rev().zip((0..EVENTS).rev()).take_while(|(a, b)| *a == b).count();
        assert!(
            run < EVENTS && (run + 2) * (EVENT_BYTES + 100) > OUTBOX_BYTES_MAX,
            "the last {run} are there: {got:?}"
        );
    }
    let missed: usize = got.iter().map(|got| EVENTS - got.len()).sum();
    server.await_metric(SLOW_CONSUMERS, &[("outcome", "dropped"), ("rooms", "ticks:*")], missed as f64);
    server.await_metric(SLOW_CONSUMERS, &[], missed as f64);
}

fn who_lags_may_get_the_newest_of_each_key(cores: usize) {
    const KEYS: usize = 10;
    let (server, got) = lag("seats:1", KEYS, cores);
    for got in &got {
        let (before, newest) = got.split_at(got.len() - KEYS);
        assert!(newest.iter().copied().eq(EVENTS - KEYS..EVENTS), "{newest:?}");
        assert!(before.len() < EVENTS / 2, "who slept gets all of {}", before.len());
    }
    let missed: usize = got.iter().map(|got| EVENTS - got.len()).sum();
    server.await_metric(SLOW_CONSUMERS, &[("outcome", "conflated"), ("rooms", "seats:*")], missed as f64);
    server.await_metric(SLOW_CONSUMERS, &[], missed as f64);
}

fn the_worst_are_cut_when_memory_is_short(cores: usize) {
    const BUDGET: usize = 16_000_000;
    let config = format!("[limits]\noutbox_bytes_max = 1_000_000_000\noutboxes_bytes_max = {BUDGET}\n{OPEN}");
    let server = Server::start(&config, cores);
    let few = 3_000_000 / EVENT_BYTES;
    let mut lesser: Vec<RawClient> = (0..4).map(|_| RawClient::in_room(&server, "few")).collect();
    publish(&server, "few", few, 0, Vec::new());
    // What two wait for is held once. On two cores at least one of them is on a core with others that sleep.
    let worst: Vec<RawClient> = (0..4).map(|_| RawClient::in_room(&server, "many")).collect();
    let readers = (0..2).map(|_| Reader::start(&server, "many", EVENTS)).collect();
    publish(&server, "many", EVENTS, 0, readers);
    server.await_metric("roomcast_closes_total", &[("reason", "slow consumer, memory short")], 4.0);
    server.await_metric(SLOW_CONSUMERS, &[("outcome", "shed"), ("rooms", "*")], 4.0);
    server.await_metric(SLOW_CONSUMERS, &[], 4.0);
    assert!(server.metric("roomcast_outbox_memory_bytes") <= BUDGET as f64);
    for client in &mut lesser {
        (0..few).for_each(|n| assert_eq!(number(&client.next()), n));
        assert_eq!(client.next(), r#"{"type":"end"}"#);
    }
    drop(worst);
}

/// Answers to a client's own questions do not count as slow consuming: the client is not heard until it reads.
fn an_asker_who_never_reads_is_paused(cores: usize) {
    const QUESTIONS: usize = 200_000;
    // No ping: the client's pong would stand in the middle of what the other thread writes.
    let config = "[limits]\noutbox_bytes_max = 65536\n[heartbeat]\nping_interval_ms = 3600000\n";
    let server = Server::start(&format!("{config}{OPEN}"), cores);
    let mut client = RawClient::connect(&server);
    let mut stream = client.stream();
    let asking = std::thread::spawn(move || {
        use std::io::Write;
        let question =
            common::wire::text(r#"{"type":"subscribe","data":{"room":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}}"#);
        let batch = question.repeat(1000);
        for _ in 0..QUESTIONS / 1000 {
            stream.write_all(&batch).unwrap();
        }
    });
    // Others are served meanwhile.
    let mut other = RawClient::in_room(&server, "b");
    let mut publisher = Publisher::connect(&server);
    assert_eq!(publisher.ask(r#"{"id":1,"room":"b","event":"x"}"#)["offset"], 1);
    assert_eq!(other.next(), r#"{"type":"x"}"#);
    for _ in 0..QUESTIONS {
        assert_eq!(
            client.next(),
            r#"{"type":"subscribed","data":{"room":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}}"#
        );
    }
    asking.join().unwrap();
    assert_eq!(server.metric("roomcast_closes_total"), 0.0);
}
