//! A member that does not read is cut off; nobody else notices, and the publisher goes on.

mod common;

use common::{OPEN, Publisher, RawClient, Server, wait_until};
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

on_one_and_two_cores!(who_never_reads_is_cut, an_asker_who_never_reads_is_paused);

/// More than the kernel holds for one connection: up to 4 MB to send and 6 MB received on a common Linux.
const EVENT_BYTES: usize = 16 << 10;
const EVENTS: usize = 4_000;

fn who_never_reads_is_cut(cores: usize) {
    // The publisher waits for honest readers, so that none ever lags behind by as much as this.
    let config = format!("[limits]\noutbox_bytes_max = 8_000_000\n{OPEN}");
    let server = Server::start(&config, cores);
    // On each core at least one, whatever the kernel's hash of the ports says: many sleepers, many readers.
    let sleepers: Vec<RawClient> = (0..4).map(|_| RawClient::in_room(&server, "news")).collect();
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let mut client = RawClient::in_room(&server, "news");
            let read = Arc::new(AtomicUsize::new(0));
            let count = read.clone();
            let thread = std::thread::spawn(move || {
                for n in 0..EVENTS {
                    let text = client.next();
                    let start = format!(r#"{{"type":"big","args":[{n},""#);
                    assert!(text.starts_with(&start), "event {n} is missing: {:?}", &text[..text.len().min(60)]);
                    assert!(text.len() > EVENT_BYTES);
                    count.store(n + 1, Ordering::Relaxed);
                }
                assert_eq!(client.next(), r#"{"type":"end"}"#);
            });
            (read, thread)
        })
        .collect();

    let mut publisher = Publisher::connect(&server);
    let padding = "x".repeat(EVENT_BYTES);
    for n in 0..EVENTS {
        // A publisher with patience, so that only those are cut who read nothing at all.
        publisher.line(&format!(r#"{{"id":{n},"room":"news","event":"big","args":[{n},"{padding}"]}}"#));
        assert_eq!(publisher.receipt()["offset"], n + 1);
        if n % 50 == 49 {
            let caught_up = |read: &Arc<AtomicUsize>| read.load(Ordering::Relaxed) + 100 > n;
            wait_until("honest readers have caught up", || readers.iter().all(|(read, _)| caught_up(read)));
        }
    }
    assert_eq!(publisher.ask(r#"{"id":"end","room":"news","event":"end"}"#)["offset"], EVENTS + 1);
    for (_, thread) in readers {
        thread.join().unwrap();
    }
    server.await_metric("roomcast_closes_total", &[("reason", "slow consumer")], 4.0);
    server.await_metric("roomcast_connections", &[], 0.0);
    // What waited for them is gone with them.
    server.await_metric("roomcast_outbox_bytes", &[], 0.0);
    for sleeper in sleepers {
        // The connection was reset, or ends after what the kernel still held.
        let mut sink = vec![0; 1 << 20];
        let mut stream = sleeper.stream();
        while stream.read(&mut sink).is_ok_and(|bytes| bytes > 0) {}
    }
}

/// Answers to a client's own questions do not count as slow consuming: the client is not heard until it reads.
fn an_asker_who_never_reads_is_paused(cores: usize) {
    const QUESTIONS: usize = 200_000;
    let server = Server::start(&format!("[limits]\noutbox_bytes_max = 65536\n{OPEN}"), cores);
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
