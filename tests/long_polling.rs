//! Members over long-polling are members like all others: what they get, how they move on to a WebSocket, what becomes
//! of those who do not poll, and of two things at once, whichever cores their connections came in on.

mod common;

use common::polling::{Http, Polling, SEPARATOR, get, post, refusal};
use common::wire::{self, Wire};
use common::{OPEN, Publisher, RawClient, Server, Signal, wait_until};
use std::fmt::Debug;
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};

on_one_and_two_cores!(
    polling_and_websocket_members_get_the_same,
    what_waits_is_one_body,
    exceptions_several_rooms_and_own_rooms,
    an_upgrade_loses_and_repeats_nothing,
    a_poll_behind_an_aborted_poll_is_refused,
    of_two_polls_the_first_is_closed_and_the_second_refused,
    two_posts_at_once_take_effect_in_their_order,
    a_poll_behind_an_upgrade_is_refused,
    a_websocket_behind_a_closed_one_can_upgrade,
    requests_reach_their_session_from_any_connection,
    who_does_not_poll_is_cut,
    a_publisher_disconnects_a_polling_socket,
    a_publisher_closes_a_polling_session,
    who_connects_to_no_namespace_is_closed,
    a_drain_answers_the_polls_that_wait,
    three_thousand_polls,
);

/// Nothing is due while a test runs, however slow the machine. `limits` are lines of that section.
fn config(limits: &str) -> String {
    format!(
        "[limits]\nhandshake_ms_max = 600_000\nrequest_body_ms_max = 3_600_000\nkeep_alive_ms = 3_600_000\n{limits}\n\
         [heartbeat]\nping_interval_ms = 3_600_000\nupgrade_timeout_ms = 3_600_000\n{OPEN}\n\
         [[endpoint]]\nkind = \"engine.io-echo\"\n"
    )
}

// ---- what members get ----

fn polling_and_websocket_members_get_the_same(cores: usize) {
    const EVENTS: usize = 500;
    let server = Server::start(&config(""), cores);
    let mut websockets: Vec<RawClient> = (0..4).map(|_| member_over_websocket(&server, "news")).collect();
    let mut polling: Vec<Polling> = (0..4).map(|_| Polling::in_room(&server, "news")).collect();
    let encodes = server.metric("roomcast_encodes_total");
    // Two publishers, so that there is no order but the room's.
    let publishers: Vec<_> = ["a", "b"]
        .into_iter()
        .map(|name| {
            let mut publisher = Publisher::connect(&server);
            std::thread::spawn(move || {
                for n in 0..EVENTS {
                    publisher.line(&format!(r#"{{"room":"news","event":"{name}","data":{n}}}"#));
                }
                assert_eq!(publisher.ask(&format!(r#"{{"id":1,"room":"news","event":"end {name}"}}"#))["ok"], true);
            })
        })
        .collect();
    let expected: Vec<String> = (0..2 * EVENTS + 2).map(|_| websockets[0].next()).collect();
    for websocket in &mut websockets[1..] {
        let got: Vec<String> = expected.iter().map(|_| websocket.next()).collect();
        assert_eq!(got, expected);
    }
    for session in &mut polling {
        assert_eq!(session.packets(expected.len()), expected);
    }
    publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
    for name in ["a", "b"] {
        let own = |packet: &&String| packet.starts_with(&format!(r#"42["{name}""#));
        let sent: Vec<String> = (0..EVENTS).map(|n| format!(r#"42["{name}",{n}]"#)).collect();
        assert!(expected.iter().filter(own).eq(&sent), "the publisher's own order");
    }
    // A poll wants the bytes of a WebSocket frame.
    server.await_metric("roomcast_encodes_total", &[], encodes + (2 * EVENTS + 2) as f64);
}

fn what_waits_is_one_body(cores: usize) {
    let server = Server::start(&config(""), cores);
    let mut session = Polling::in_room(&server, "news");
    let mut websocket = member_over_websocket(&server, "news");
    let mut publisher = Publisher::connect(&server);
    let encodes = server.metric("roomcast_encodes_total");
    for line in [
        r#"{"id":1,"room":"news","event":"text","data":"ä😀"}"#,
        r#"{"id":2,"room":"news","event":"binary","binary":true,"args":[{"_base64":"AAEC/w=="},[{"_base64":""}]]}"#,
        r#"{"id":3,"event":"to all","data":{"big":12345678901234567890}}"#,
        r#"{"id":4,"room":"news","event":"last"}"#,
    ] {
        assert_eq!(publisher.ask(line)["ok"], true);
    }
    let texts = [
        r#"42["text","ä😀"]"#,
        r#"452-["binary",{"_placeholder":true,"num":0},[{"_placeholder":true,"num":1}]]"#,
        r#"42["to all",{"big":12345678901234567890}]"#,
        r#"42["last"]"#,
    ];
    assert_eq!(websocket.next(), texts[0]);
    assert_eq!(websocket.next(), texts[1]);
    assert_eq!(websocket.next_binary(), [0, 1, 2, 255]);
    assert_eq!(websocket.next_binary(), b"");
    assert_eq!(websocket.next(), texts[2]);
    assert_eq!(websocket.next(), texts[3]);
    server.await_metric("roomcast_encodes_total", &[], encodes + 4.0);
    // The room's and the namespace's events may be on their way from different cores when the receipts are here.
    server.await_metric("roomcast_deliveries_total", &[], 8.0);
    let waiting = [texts[0], texts[1], "bAAEC/w==", "b", texts[2], texts[3]];
    assert_eq!(session.poll(), waiting.join("\x1e"));
    // And it was given once.
    session.begin_poll();
    assert_eq!(publisher.ask(r#"{"id":5,"room":"news","event":"next"}"#)["ok"], true);
    assert_eq!(session.polled(), r#"42["next"]"#);
}

fn exceptions_several_rooms_and_own_rooms(cores: usize) {
    let server = Server::start(&config(""), cores);
    let (mut first, first_sid) = Polling::socket_io(&server);
    let (mut second, second_sid) = Polling::socket_io(&server);
    let mut websocket = member_over_websocket(&server, "a");
    for room in ["a", "b", "c"] {
        first.join(room);
    }
    second.join("b");
    let mut publisher = Publisher::connect(&server);
    for line in [
        // Once to each, though the first is in three of them.
        r#"{"id":1,"rooms":["a","b","c","d"],"event":"1"}"#.to_owned(),
        r#"{"id":2,"rooms":["a","b"],"except":["c"],"event":"2"}"#.to_owned(),
        format!(r#"{{"id":3,"rooms":["a","b"],"except":["{second_sid}"],"event":"3"}}"#),
        format!(r#"{{"id":4,"room":"{first_sid}","event":"4"}}"#),
        format!(r#"{{"id":5,"rooms":["{second_sid}","a","{first_sid}"],"event":"5"}}"#),
        format!(r#"{{"id":6,"event":"6","except":["{first_sid}"]}}"#),
    ] {
        assert_eq!(publisher.ask(&line)["ok"], true, "{line}");
    }
    // Different rooms have no common order: what each gets is compared as a set.
    for (who, got, expected) in [
        ("first", first.packets(4), ["1", "3", "4", "5"]),
        ("second", second.packets(4), ["1", "2", "5", "6"]),
        (
            "websocket",
            (0..5).map(|_| websocket.next()).filter(|packet| packet != r#"42["3"]"#).collect(),
            ["1", "2", "5", "6"],
        ),
    ] {
        let mut got = got;
        got.sort();
        assert_eq!(got, expected.map(|name| format!(r#"42["{name}"]"#)), "{who}");
    }
    // Nothing more was waiting for anybody.
    assert_eq!(publisher.ask(r#"{"id":7,"event":"end"}"#)["ok"], true);
    assert_eq!((first.poll(), second.poll(), websocket.next()), end_for_all());
}

fn end_for_all() -> (String, String, String) {
    let end = || r#"42["end"]"#.to_owned();
    (end(), end(), end())
}

/// A Socket.IO client over WebSocket in a room.
#[track_caller]
fn member_over_websocket(server: &Server, room: &str) -> RawClient {
    let mut client = RawClient::socket_io(server);
    let answer = client.ask(&format!(r#"420["subscribe",{{"room":"{room}"}}]"#));
    assert_eq!(answer, format!(r#"42["subscribed",{{"room":"{room}"}}]"#));
    assert_eq!(client.next(), r#"430["ok"]"#);
    client
}

// ---- upgrade ----

fn an_upgrade_loses_and_repeats_nothing(cores: usize) {
    const CLIENTS: usize = 8;
    let server = Server::start(&config("outbox_bytes_max = 100_000_000"), cores);
    let sessions: Vec<Polling> = (0..CLIENTS).map(|_| Polling::in_room(&server, "news")).collect();
    server.await_metric("roomcast_sessions_polling", &[], CLIENTS as f64);
    let (upgraded, published) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let client = |session| {
            let (upgraded, published) = (&upgraded, &published);
            scope.spawn(move || {
                let (count, mut websocket) = upgrade_in_the_middle(session, published);
                upgraded.fetch_add(1, Ordering::SeqCst);
                let mut next = count;
                loop {
                    let packet = websocket.text();
                    if packet == format!(r#"42["end",{next}]"#) {
                        break;
                    }
                    assert_eq!(packet, format!(r#"42["n",{next}]"#));
                    next += 1;
                }
            })
        };
        let clients: Vec<_> = sessions.into_iter().map(client).collect();
        // In bursts, and on until all have upgraded, or one has failed.
        let mut publisher = Publisher::connect(&server);
        let mut next = 0;
        while upgraded.load(Ordering::SeqCst) < CLIENTS && !clients.iter().any(|client| client.is_finished()) {
            let lines: String =
                (next..next + 100).map(|n| format!("{{\"room\":\"news\",\"event\":\"n\",\"data\":{n}}}\n")).collect();
            publisher.bytes(lines);
            next += 100;
            // No faster than they are taken.
            let receipt = publisher.ask(&format!(r#"{{"id":1,"room":"news","event":"n","data":{next}}}"#));
            next += 1;
            assert_eq!(receipt["offset"], next);
            published.store(next, Ordering::SeqCst);
        }
        assert_eq!(
            publisher.ask(&format!(r#"{{"id":2,"room":"news","event":"end","data":{next}}}"#))["offset"],
            next + 1
        );
    });
    println!("{cores} cores: {} events", published.into_inner());
    server.await_metric("roomcast_upgrades_total", &[], CLIENTS as f64);
    server.await_metric("roomcast_sessions_polling", &[], 0.0);
    server.await_metric("roomcast_sockets", &[], 0.0);
    server.await_metric("roomcast_outbox_bytes", &[], 0.0);
}

/// Polls for some of the numbered events, and upgrades as stock clients do: they go on polling until the probe is
/// answered, and upgrade when their last poll has ended. Returns how many events came by polls.
fn upgrade_in_the_middle(mut session: Polling, published: &AtomicUsize) -> (usize, Wire) {
    let mut count = 0;
    let mut take = |body: String| {
        for packet in body.split(SEPARATOR).filter(|packet| *packet != "6") {
            assert_eq!(packet, format!(r#"42["n",{count}]"#));
            count += 1;
        }
        count
    };
    while take(session.poll()) < 100 {}
    let mut websocket = session.websocket();
    websocket.write(wire::text("2probe"));
    take(session.poll());
    assert_eq!(websocket.text(), "3probe");
    let count = take(session.poll());
    wait_until("something waits for the WebSocket", || published.load(Ordering::SeqCst) > count + 200);
    websocket.write(wire::text("5"));
    (count, websocket)
}

// ---- two things at once ----

/// Runs a race often: connections come to cores as their ports have it. Nobody waits for anything between its steps,
/// and yet there is one outcome.
#[track_caller]
fn race<O: Debug + PartialEq>(cores: usize, expected: O, run: impl Fn(Polling) -> O) {
    race_on(&Server::start(&config(""), cores), &expected, &run);
    if cores > 1 {
        // Cores that share a socket, as of a service manager, take what comes from one queue.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        race_on(&Server::setup(&config(""), cores).sockets([listener]).start(), &expected, &run);
    }
}

#[track_caller]
fn race_on<O: Debug + PartialEq>(server: &Server, expected: &O, run: &impl Fn(Polling) -> O) {
    const TIMES: usize = 50;
    stay_on_one_processor();
    // From the first poll on the server orders what comes in on different connections.
    let _first = Polling::open(server, "/engine.io/");
    let (mut excused, mut impatient) = (0, 0.0);
    for round in 0..TIMES {
        let outcome = run(Polling::open(server, "/engine.io/"));
        if outcome != *expected {
            excused += 1;
            // Excusable if the machine did not let a core get on, which the server knows and counts.
            wait_until(&format!("{outcome:?} in round {round} is excused"), || {
                let seen = server.metric("roomcast_requests_unsettled_total");
                std::mem::replace(&mut impatient, seen) < seen
            });
        }
    }
    assert!(excused < TIMES / 5, "{excused} of {TIMES} rounds ended otherwise");
    assert_eq!(server.metric("roomcast_panics_total"), 0.0);
}

/// What a thread sends over loopback goes through a queue of the processor that it runs on. On a busy machine a thread
/// that moves to another processor may overtake itself, and "before" would mean nothing.
fn stay_on_one_processor() {
    let allowed = rustix::thread::sched_getaffinity(None).unwrap();
    let mut one = rustix::thread::CpuSet::new();
    one.set((0..).find(|&processor| allowed.is_set(processor)).unwrap());
    rustix::thread::sched_setaffinity(None, &one).unwrap();
}

fn a_poll_behind_an_aborted_poll_is_refused(cores: usize) {
    race(cores, (400, refusal(1)), |session| {
        let mut aborted = session.connect();
        aborted.write(get(&session.target));
        aborted.close();
        let response = session.connect().ask(get(&session.target));
        (response.status, response.body)
    });
}

fn of_two_polls_the_first_is_closed_and_the_second_refused(cores: usize) {
    race(cores, [(200, "1".to_owned()), (400, refusal(3))], |session| {
        let mut polls = [session.connect(), session.connect()];
        polls.iter_mut().for_each(|poll| poll.write(get(&session.target)));
        let outcome = polls.each_mut().map(|poll| {
            let response = poll.response();
            (response.status, response.body)
        });
        session.is_gone();
        outcome
    });
}

fn two_posts_at_once_take_effect_in_their_order(cores: usize) {
    let expected = ("ok".to_owned(), "ok".to_owned(), "4a\x1e4b".to_owned());
    race(cores, expected, |mut session| {
        let (mut first, mut second) = (session.connect(), session.connect());
        first.write(post(&session.target, "4a"));
        second.write(post(&session.target, "4b"));
        (first.response().body, second.response().body, session.poll())
    });
}

fn a_poll_behind_an_upgrade_is_refused(cores: usize) {
    race(cores, (400, refusal(3), "4hello".to_owned()), |session| {
        let mut websocket = session.websocket();
        websocket.write(wire::text("2probe"));
        assert_eq!(websocket.text(), "3probe");
        let mut poll = session.connect();
        websocket.write(wire::text("5"));
        let response = poll.ask(get(&session.target));
        websocket.write(wire::text("4hello"));
        (response.status, response.body, websocket.text())
    });
}

fn a_websocket_behind_a_closed_one_can_upgrade(cores: usize) {
    race(cores, ["3probe", "4hello"].map(str::to_owned), |session| {
        let mut closed = session.websocket();
        closed.write(wire::text("2probe"));
        assert_eq!(closed.text(), "3probe");
        closed.close();
        let mut websocket = session.websocket();
        websocket.write(wire::text("2probe"));
        let answer = websocket.text();
        websocket.write([wire::text("5"), wire::text("4hello")].concat());
        [answer, websocket.text()]
    });
}

// ---- many connections, one session ----

fn requests_reach_their_session_from_any_connection(cores: usize) {
    const SESSIONS: usize = 30;
    let server = Server::start(&config(""), cores);
    for n in 0..SESSIONS {
        // Each request on a connection of its own.
        let session = Polling::open(&server, "/engine.io/");
        for round in 0..4 {
            let message = format!("4{n}.{round}");
            assert_eq!(session.connect().ask(post(&session.target, &message)).body, "ok");
            assert_eq!(session.connect().ask(get(&session.target)).body, message);
        }
    }
    let handed_over = server.metric("roomcast_handed_over_total");
    assert_eq!(handed_over > 0.0, cores > 1, "{handed_over} connections were handed over");
    // A connection goes to the session's core once, and stays there.
    let session = Polling::open(&server, "/engine.io/");
    let mut connections: Vec<Http> = (0..10).map(|_| session.connect()).collect();
    let mut ask_all = |expected: &str| {
        for connection in &mut connections {
            assert_eq!(connection.ask(post(&session.target, expected)).body, "ok");
            assert_eq!(connection.ask(get(&session.target)).body, expected);
        }
    };
    ask_all("4first");
    server.await_metric("roomcast_http_requests_total", &[], (SESSIONS * 9 + 1 + 20) as f64);
    let handed_over = server.metric("roomcast_handed_over_total");
    for _ in 0..20 {
        ask_all("4again");
    }
    server.await_metric("roomcast_http_requests_total", &[], (SESSIONS * 9 + 1 + 21 * 20) as f64);
    assert_eq!(server.metric("roomcast_handed_over_total"), handed_over);
    // Whoever names a session of another core takes its connection there, and back.
    let others: Vec<Polling> = (0..10).map(|_| Polling::open(&server, "/engine.io/")).collect();
    let mut connection = session.connect();
    for round in 0..3 {
        for other in &others {
            let message = format!("4{round}");
            assert_eq!(connection.ask(post(&other.target, &message)).body, "ok");
            assert_eq!(connection.ask(get(&other.target)).body, message);
        }
    }
    drop(connection);
    drop((session, connections, others));
    server.await_metric("roomcast_connections", &[], 0.0);
}

// ---- who does not poll ----

fn who_does_not_poll_is_cut(cores: usize) {
    const BOUND: usize = 4096;
    let server = Server::start(&config(&format!("outbox_bytes_max = {BOUND}")), cores);
    let mut sleeper = Polling::in_room(&server, "news");
    let mut polling = Polling::in_room(&server, "news");
    let mut websocket = member_over_websocket(&server, "news");
    let mut publisher = Publisher::connect(&server);
    // What is of no use later does not wait for anybody.
    let padding = "x".repeat(500);
    for n in 0..20 {
        let line = format!(r#"{{"id":{n},"room":"news","event":"v","args":[{n},"{padding}"],"volatile":true}}"#);
        assert_eq!(publisher.ask(&line)["ok"], true);
        assert_eq!(websocket.next(), format!(r#"42["v",{n},"{padding}"]"#));
    }
    server.await_metric("roomcast_volatile_dropped_total", &[], 40.0);
    server.await_metric("roomcast_outbox_bytes", &[], 0.0);
    assert_eq!(publisher.ask(r#"{"id":1,"room":"news","event":"first"}"#)["ok"], true);
    assert_eq!((sleeper.poll(), polling.poll(), websocket.next()), {
        let first = || r#"42["first"]"#.to_owned();
        (first(), first(), first())
    });
    // Everything else waits, up to the bound.
    let mut waiting = 0;
    for n in 0..20 {
        let packet = format!(r#"42["n",{n},"{padding}"]"#);
        let line = format!(r#"{{"id":1,"room":"news","event":"n","args":[{n},"{padding}"]}}"#);
        assert_eq!(publisher.ask(&line)["ok"], true);
        assert_eq!((polling.poll(), websocket.next()), (packet.clone(), packet.clone()));
        // As a WebSocket frame with its header: all transports share it.
        waiting += packet.len() + 4;
        let reason = &[("reason", "slow consumer")];
        if waiting > BOUND {
            server.await_metric("roomcast_closes_total", reason, 1.0);
        } else {
            server.await_metric("roomcast_outbox_bytes", &[], waiting as f64);
        }
    }
    assert!(waiting > 2 * BOUND);
    sleeper.is_gone();
    server.await_metric("roomcast_sessions_polling", &[], 1.0);
    server.await_metric("roomcast_sockets", &[], 2.0);
    // What waited went with it.
    server.await_metric("roomcast_outbox_bytes", &[], 0.0);
    assert_eq!(server.metric("roomcast_closes_total"), 1.0);
}

// ---- who is sent away ----

fn a_publisher_disconnects_a_polling_socket(cores: usize) {
    let server = Server::start(&config(""), cores);
    let mut publisher = Publisher::connect(&server);
    let mut waiting = Polling::in_room(&server, "out");
    let mut between = Polling::in_room(&server, "out");
    waiting.begin_poll();
    let line = r#"{"id":1,"op":"disconnect","where":{"room":"out"}}"#;
    assert_eq!(publisher.ask(line)["sockets"], 2);
    assert_eq!(waiting.polled(), "41");
    assert_eq!(between.poll(), "41");
    server.await_metric("roomcast_sockets", &[], 0.0);
    // The sessions live, and may connect again.
    for session in [&mut waiting, &mut between] {
        session.post(&["40"]);
        assert!(session.poll().starts_with("40{"));
        session.join("in");
    }
    assert_eq!(publisher.ask(r#"{"id":2,"room":"out","event":"missed"}"#)["ok"], true);
    assert_eq!(publisher.ask(r#"{"id":3,"room":"in","event":"got"}"#)["ok"], true);
    assert_eq!([waiting.poll(), between.poll()], [r#"42["got"]"#; 2]);
}

fn a_publisher_closes_a_polling_session(cores: usize) {
    let server = Server::start(&config(""), cores);
    let mut publisher = Publisher::connect(&server);
    let mut waiting = Polling::in_room(&server, "out");
    let mut between = Polling::in_room(&server, "out");
    let mut other = Polling::in_room(&server, "in");
    waiting.begin_poll();
    assert_eq!(publisher.ask(r#"{"id":1,"room":"out","event":"last"}"#)["ok"], true);
    assert_eq!(waiting.polled(), r#"42["last"]"#);
    waiting.begin_poll();
    let line = r#"{"id":2,"op":"disconnect","where":{"room":"out"},"close":true}"#;
    assert_eq!(publisher.ask(line)["sockets"], 2);
    // Whichever comes first of the goodbyes goes with the poll that waits.
    assert_eq!(waiting.polled(), "41\x1e1");
    waiting.is_gone();
    // A session that is told by its next poll has left already.
    server.await_metric("roomcast_sockets", &[], 1.0);
    assert_eq!(between.poll(), "42[\"last\"]\x1e41\x1e1");
    between.is_gone();
    server.await_metric("roomcast_closes_total", &[("reason", "server disconnect")], 2.0);
    server.await_metric("roomcast_sessions_polling", &[], 1.0);
    assert_eq!(publisher.ask(r#"{"id":3,"event":"still here"}"#)["ok"], true);
    assert_eq!(other.poll(), r#"42["still here"]"#);
}

fn who_connects_to_no_namespace_is_closed(cores: usize) {
    let server = Server::start(&format!("[heartbeat]\nconnect_timeout_ms = 300\n{OPEN}"), cores);
    let mut waiting = Polling::open(&server, "/socket.io/");
    // Whether the poll comes before or after the timeout: it is told.
    assert_eq!(waiting.poll(), "1");
    waiting.is_gone();
    let mut between = Polling::open(&server, "/socket.io/");
    server.await_metric("roomcast_closes_total", &[("reason", "connect timeout")], 2.0);
    assert_eq!(between.poll(), "1");
    between.is_gone();
    server.await_metric("roomcast_sessions_polling", &[], 0.0);
    assert_eq!(server.metric("roomcast_closes_total"), 2.0);
}

fn a_drain_answers_the_polls_that_wait(cores: usize) {
    const SESSIONS: usize = 20;
    let mut server = Server::start(&config(""), cores);
    let mut waiting: Vec<Polling> = (0..SESSIONS).map(|_| Polling::in_room(&server, "a")).collect();
    let mut members: Vec<Polling> = (0..SESSIONS).map(|_| Polling::in_room(&server, "b")).collect();
    let mut between = Polling::in_room(&server, "a");
    waiting.iter_mut().chain(&mut members).for_each(Polling::begin_poll);
    let mut publisher = Publisher::connect(&server);
    // Accepted, and so delivered.
    publisher.line(r#"{"id":1,"room":"b","event":"last words"}"#);
    assert_eq!(publisher.receipt_text(), r#"{"id":1,"ok":true,"offset":1}"#);
    server.signal(Signal::TERM);
    for session in &mut waiting {
        let response = session.polls().response();
        assert_eq!((response.status, response.body.as_str()), (200, "1"));
        assert!(response.head.contains("\r\nConnection: close\r\n"), "{}", response.head);
        session.polls().ends();
    }
    for session in &mut members {
        assert_eq!(session.polled(), r#"42["last words"]"#);
        session.polls().ends();
    }
    between.polls().ends();
    assert!(server.wait().success());
    assert!(!server.log().contains("panick"), "{}", server.log());
}

// ---- many ----

fn three_thousand_polls(cores: usize) {
    const SESSIONS: usize = 3_000;
    let server = Server::start(&config(""), cores);
    let endpoint = "/socket.io/?EIO=4&transport=polling";
    let mut connections: Vec<(Http, String)> = Vec::with_capacity(SESSIONS);
    for _ in 0..SESSIONS {
        let mut connection = Http::connect(server.listen);
        let open = connection.ask(get(endpoint)).body;
        let open: serde_json::Value = serde_json::from_str(&open[1..]).unwrap();
        let target = format!("{endpoint}&sid={}", open["sid"].as_str().unwrap());
        let packets = "40\x1e42[\"subscribe\",{\"room\":\"news\"}]";
        assert_eq!(connection.ask(post(&target, packets)).body, "ok");
        let answers = connection.ask(get(&target)).body;
        assert!(answers.ends_with("\x1e42[\"subscribed\",{\"room\":\"news\"}]"), "{answers}");
        connection.write(get(&target));
        connections.push((connection, target));
    }
    server.await_metric("roomcast_http_requests_total", &[], (4 * SESSIONS) as f64);
    server.await_metric("roomcast_sessions_polling", &[], SESSIONS as f64);
    let encodes = server.metric("roomcast_encodes_total");
    let mut publisher = Publisher::connect(&server);
    assert_eq!(publisher.ask(r#"{"id":1,"room":"news","event":"x","data":1}"#)["offset"], 1);
    for (connection, _) in &mut connections {
        assert_eq!(connection.response().body, r#"42["x",1]"#);
    }
    server.await_metric("roomcast_encodes_total", &[], encodes + 1.0);
    server.await_metric("roomcast_outbox_bytes", &[], 0.0);
    // They poll again, and are gone, all at once.
    for (connection, target) in &mut connections {
        connection.write(get(target));
    }
    server.await_metric("roomcast_http_requests_total", &[], (5 * SESSIONS) as f64);
    drop(connections);
    for gauge in ["roomcast_connections", "roomcast_sessions_polling", "roomcast_sockets", "roomcast_rooms_attached"] {
        server.await_metric(gauge, &[], 0.0);
    }
    server.await_metric("roomcast_closes_total", &[("reason", "transport error")], SESSIONS as f64);
    assert_eq!(server.metric("roomcast_panics_total"), 0.0);
}
