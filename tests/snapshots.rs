//! What rooms keep: the last event of each key, for whoever joins and whoever asks, without a gap and without a
//! duplicate. And events that clients send to rooms.

mod common;

use common::{Publisher, RawClient, Server};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

on_one_and_two_cores!(
    a_joiner_gets_what_the_room_keeps_and_then_what_happens,
    a_question_is_answered_from_what_the_room_keeps,
    a_last_question_is_answered_too,
    keys_stand_in_the_line_or_in_the_data,
    bounds_are_kept_and_counted,
    what_is_too_old_is_forgotten,
    rooms_of_several_owners_are_joined_with_all_they_keep,
    snapshot_and_live_events_make_the_state_at_any_moment,
    clients_send_events_to_rooms,
    events_of_clients_are_kept_too,
    emits_are_refused_with_a_reason,
    binary_parts_are_kept,
);

const CONFIG: &str = r#"
[[endpoint]]
kind = "socket.io"
path = "/socket.io/"

[[endpoint]]
kind = "raw"
path = "/ws"
namespace = "/"

[[namespace]]
name = "/"

[[namespace.rooms]]
match = ["route:*"]
key = "data.seatNumber"
snapshot = { keys_max = 1000 }

[[namespace.rooms]]
match = ["small", "tiny"]
snapshot = { keys_max = 3, bytes_max = 1024 }

[[namespace.rooms]]
match = ["young"]
snapshot = { age_ms_max = 100 }

[[namespace.on]]
event = "subscribe"
join = ["{data.room}"]
snapshot = true
reply = { event = "subscribed", data = { room = "{data.room}" } }

[[namespace.on]]
event = "subscribe_all"
join = ["route:1", "route:2", "route:3", "route:4", "route:5"]
snapshot = true
reply = { event = "subscribed", data = "all" }

[[namespace.on]]
event = "availability"
snapshot = "{data.room}"
reply = { event = "seats", data = { room = "{data.room}", seats = "{snapshot}", asked = "{data}" } }
ack = ["{snapshot}", "{data.room}"]

[[namespace.on]]
event = "two"
snapshot = "route:1"
reply = { event = "one", args = ["{snapshot}", "{snapshot}"] }

[[namespace.on]]
event = "two"
snapshot = "route:2"
reply = { event = "two", data = ["{snapshot}"] }

[[namespace.on]]
event = "last"
snapshot = "{data.room}"
reply = { event = "seats", data = "{snapshot}" }
disconnect = true

[[namespace.on]]
event = "say"
join = ["{data.room}"]
emit = [
    { rooms = ["{data.room}"], event = "said:{data.kind}", data = { text = "{data.text}", by = "{sid}" }, SELF },
    { rooms = ["log"], event = "logged", args = "{args}" },
]
reply = { event = "ok" }
ack = ["done"]

[[namespace.on]]
event = "set"
emit = { rooms = ["{data.room}"], event = "was_set", data = "{data.value}", key = "{data.key}" }
ack = ["done"]

[[namespace.on]]
event = "shout"
emit = { event = "shouted", args = "{args}", to_self = false }
"#;

fn start(cores: usize) -> Server {
    Server::start(&CONFIG.replace("SELF", "to_self = false"), cores)
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn seat(room: &str, seat: &str, state: &str) -> String {
    let data = json!({"seatNumber": seat, "state": state});
    json!({"room": room, "event": "seat_update", "data": data, "id": 1}).to_string()
}

fn a_joiner_gets_what_the_room_keeps_and_then_what_happens(cores: usize) {
    let server = start(cores);
    let mut publisher = Publisher::connect(&server);
    for (n, state) in [("A1", "held"), ("A2", "sold"), ("A1", "sold"), ("A3", "held")] {
        assert_eq!(publisher.ask(&seat("route:7", n, state))["ok"], true);
    }
    // An event without a key is not kept.
    assert_eq!(publisher.ask(r#"{"room":"route:7","event":"note","data":"x","id":1}"#)["offset"], 5);
    let mut raw = RawClient::connect(&server);
    let mut socket_io = RawClient::socket_io(&server);
    for round in 0..2 {
        raw.send(r#"{"type":"subscribe","data":{"room":"route:7"}}"#);
        socket_io.send(r#"42["subscribe",{"room":"route:7"}]"#);
        // A second subscription brings the state once more, and no event twice after that.
        assert_eq!(json(&raw.next()), json!({"type": "subscribed", "data": {"room": "route:7"}}), "round {round}");
        assert_eq!(socket_io.next(), r#"42["subscribed",{"room":"route:7"}]"#);
        for (n, state) in [("A2", "sold"), ("A1", "sold"), ("A3", "held")] {
            let data = json!({"seatNumber": n, "state": state});
            assert_eq!(json(&raw.next()), json!({"type": "seat_update", "data": data}));
            assert_eq!(json(&socket_io.next()[2..]), json!(["seat_update", data]));
        }
    }
    publisher.line(&seat("route:7", "A2", "free"));
    publisher.line(r#"{"room":"route:7","event":"note","data":"end"}"#);
    let data = json!({"seatNumber": "A2", "state": "free"});
    assert_eq!(json(&raw.next()), json!({"type": "seat_update", "data": data}));
    assert_eq!(json(&socket_io.next()[2..]), json!(["seat_update", data]));
    assert_eq!(raw.next(), r#"{"type":"note","data":"end"}"#);
    assert_eq!(socket_io.next(), r#"42["note","end"]"#);
    server.await_metric("roomcast_snapshot_events", &[], 3.0);
    server.await_metric("roomcast_snapshots_total", &[], 4.0);
}

fn a_question_is_answered_from_what_the_room_keeps(cores: usize) {
    let server = start(cores);
    let mut publisher = Publisher::connect(&server);
    let mut client = RawClient::socket_io(&server);
    let empty = r#"42["seats",{"room":"route:9","seats":[],"asked":{"room":"route:9"}}]"#;
    assert_eq!(client.ask(r#"42["availability",{"room":"route:9"}]"#), empty);
    for n in ["A1", "A2"] {
        publisher.ask(&seat("route:9", n, "held"));
    }
    let seats = r#"[{"seatNumber":"A1","state":"held"},{"seatNumber":"A2","state":"held"}]"#;
    let seats = json(seats);
    let answer = client.ask(r#"425["availability",{"room":"route:9"}]"#);
    assert_eq!(json(&answer[2..])[1]["seats"], seats);
    assert_eq!(json(client.next().strip_prefix("435").unwrap()), json!([seats, "route:9"]));
    // Whoever asks is in no room for it.
    publisher.ask(&seat("route:9", "A3", "held"));
    // Two rules, two rooms, each its own.
    publisher.ask(&seat("route:1", "B1", "free"));
    client.send(r#"42["two"]"#);
    let one = json!([{"seatNumber": "B1", "state": "free"}]);
    assert_eq!(json(&client.next()[2..]), json!(["one", one, one]));
    assert_eq!(client.next(), r#"42["two",[[]]]"#);
    // What looks like a place for a snapshot, and comes from a client, is text.
    client.send(r#"42["availability",{"room":"route:none","x":"{snapshot} \u00010\u0001"}]"#);
    let answer = json(&client.next()[2..]);
    assert_eq!(answer[1]["asked"]["x"], "{snapshot} \u{1}0\u{1}");
}

/// Whoever is disconnected by a rule gets its replies first, wherever the room's owner is.
fn a_last_question_is_answered_too(cores: usize) {
    let server = start(cores);
    let mut publisher = Publisher::connect(&server);
    for room in 1..=4 {
        publisher.ask(&seat(&format!("route:{room}"), "A1", "held"));
        let mut client = RawClient::socket_io(&server);
        client.send(&format!(r#"42["last",{{"room":"route:{room}"}}]"#));
        assert_eq!(client.next(), r#"42["seats",[{"seatNumber":"A1","state":"held"}]]"#);
        assert_eq!(client.next(), "41");
    }
}

fn keys_stand_in_the_line_or_in_the_data(cores: usize) {
    let server = start(cores);
    let mut publisher = Publisher::connect(&server);
    for line in [
        r#"{"room":"route:1","event":"e","data":{"seatNumber":"x","n":1},"id":1}"#,
        r#"{"room":"route:1","event":"e","key":"x","data":{"n":2},"id":1}"#,
        r#"{"room":"route:1","event":"e","key":"y","data":{"seatNumber":"x","n":3},"id":1}"#,
        r#"{"room":"route:1","event":"e","data":{"seatNumber":7,"n":4},"id":1}"#,
        r#"{"room":"route:1","event":"e","key":"7","data":{"n":5},"id":1}"#,
        r#"{"room":"route:1","event":"e","data":{"seatNumber":{"a":1},"n":6},"id":1}"#,
        r#"{"room":"route:1","event":"e","data":{"seatNumber":"","n":7},"id":1}"#,
        r#"{"room":"route:1","event":"e","id":1}"#,
        // Rooms of no class keep nothing; of two rooms each keeps it.
        r#"{"room":"other","event":"e","key":"x","data":{"n":8},"id":1}"#,
        r#"{"rooms":["route:1","route:2"],"event":"e","key":"both","data":{"n":9},"id":1}"#,
    ] {
        assert_eq!(publisher.ask(line)["ok"], true, "{line}");
    }
    let mut client = RawClient::socket_io(&server);
    for (room, expected) in [("route:1", vec![2, 3, 5, 9]), ("route:2", vec![9]), ("other", vec![])] {
        let answer = json(&client.ask(&format!(r#"42["availability",{{"room":"{room}"}}]"#))[2..]);
        let seats = answer[1]["seats"].as_array().unwrap();
        let numbers: Vec<i64> = seats.iter().map(|seat| seat["n"].as_i64().unwrap()).collect();
        assert_eq!(numbers, expected, "{room}");
    }
    let refused = publisher.ask(r#"{"room":"route:1","event":"e","key":{"a":1},"id":1}"#);
    assert_eq!(refused["error"], r#""key" must be a string or a whole number, not {"a":1}"#);
}

fn bounds_are_kept_and_counted(cores: usize) {
    let server = start(cores);
    let mut publisher = Publisher::connect(&server);
    for n in 0..5 {
        publisher.ask(&format!(r#"{{"room":"small","event":"e","key":{n},"data":{n},"id":1}}"#));
    }
    let large = "x".repeat(600);
    for n in 0..2 {
        publisher.ask(&format!(r#"{{"room":"tiny","event":"e","key":{n},"data":"{large}{n}","id":1}}"#));
    }
    let mut client = RawClient::socket_io(&server);
    let small = client.ask(r#"42["availability",{"room":"small"}]"#);
    assert_eq!(json(&small[2..])[1]["seats"], json!([2, 3, 4]));
    let tiny = client.ask(r#"42["availability",{"room":"tiny"}]"#);
    assert_eq!(json(&tiny[2..])[1]["seats"], json!([format!("{large}1")]));
    server.await_metric("roomcast_snapshot_evictions_total", &[("reason", "keys")], 2.0);
    server.await_metric("roomcast_snapshot_evictions_total", &[("reason", "bytes")], 1.0);
    server.await_metric("roomcast_snapshot_events", &[], 4.0);
}

fn what_is_too_old_is_forgotten(cores: usize) {
    let server = start(cores);
    let mut publisher = Publisher::connect(&server);
    publisher.ask(r#"{"room":"young","event":"e","key":1,"data":1,"id":1}"#);
    server.await_metric("roomcast_snapshot_evictions_total", &[("reason", "age")], 1.0);
    server.await_metric("roomcast_snapshot_bytes", &[], 0.0);
    let mut client = RawClient::socket_io(&server);
    let young = client.ask(r#"42["availability",{"room":"young"}]"#);
    assert_eq!(json(&young[2..])[1]["seats"], json!([]));
}

fn rooms_of_several_owners_are_joined_with_all_they_keep(cores: usize) {
    let server = start(cores);
    let mut publisher = Publisher::connect(&server);
    for room in 1..=5 {
        for n in 0..room {
            publisher.ask(&seat(&format!("route:{room}"), &format!("{room}-{n}"), "held"));
        }
    }
    let mut client = RawClient::connect(&server);
    client.send(r#"{"type":"subscribe_all"}"#);
    assert_eq!(client.next(), r#"{"type":"subscribed","data":"all"}"#);
    for room in 1..=5 {
        for n in 0..room {
            assert_eq!(json(&client.next())["data"]["seatNumber"], format!("{room}-{n}"));
        }
    }
    publisher.line(r#"{"rooms":["route:1","route:5"],"event":"end"}"#);
    assert_eq!(client.next(), r#"{"type":"end"}"#);
}

/// Publishers change seats, each in its turn, while clients come: snapshot and live changes must be one run without a
/// gap and without a duplicate, in each of five rooms.
fn snapshot_and_live_events_make_the_state_at_any_moment(cores: usize) {
    const SEATS: usize = 7;
    let server = start(cores);
    let over = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (1..=5)
        .map(|room| {
            let (mut publisher, over) = (Publisher::connect(&server), over.clone());
            std::thread::spawn(move || {
                for n in 0.. {
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    let seat = n * 5 % SEATS;
                    // Each tenth wants a receipt, so that it never runs far ahead.
                    let id = if n % 10 == 0 { r#","id":1"# } else { "" };
                    let data = format!(r#"{{"room":{room},"seatNumber":{seat},"n":{n}}}"#);
                    publisher.line(&format!(r#"{{"room":"route:{room}","event":"u","data":{data}{id}}}"#));
                    if n % 10 == 0 {
                        assert_eq!(publisher.receipt()["ok"], true);
                    }
                }
            })
        })
        .collect();
    for _ in 0..30 {
        let mut client = RawClient::connect(&server);
        client.send(r#"{"type":"subscribe_all"}"#);
        assert_eq!(client.next(), r#"{"type":"subscribed","data":"all"}"#);
        let mut rooms: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        while rooms.len() < 5 || rooms.values().any(|seen| seen.len() < 3 * SEATS) {
            let data = json(&client.next())["data"].take();
            rooms.entry(data["room"].as_u64().unwrap()).or_default().push(data["n"].as_u64().unwrap() as usize);
        }
        for (room, seen) in rooms {
            // Each seat's state came last with one of the SEATS changes before the first live one: the snapshot is a
            // part of the same run.
            let first = seen[0];
            let run: Vec<usize> = (first..first + seen.len()).collect();
            assert_eq!(seen, run, "room {room}");
        }
    }
    over.store(true, Ordering::Relaxed);
    writers.into_iter().for_each(|writer| writer.join().unwrap());
}

fn clients_send_events_to_rooms(cores: usize) {
    for to_self in [true, false] {
        let server = Server::start(&CONFIG.replace("SELF", &format!("to_self = {to_self}")), cores);
        let mut listener = RawClient::in_log(&server);
        let mut alice = RawClient::socket_io(&server);
        let mut bob = RawClient::connect(&server);
        bob.send(r#"{"type":"subscribe","data":{"room":"chat"}}"#);
        assert_eq!(bob.next(), r#"{"type":"subscribed","data":{"room":"chat"}}"#);
        alice.send(r#"427["say",{"room":"chat","kind":"loud","text":"hi \"you\""},2]"#);
        assert_eq!(alice.next(), r#"42["ok"]"#);
        assert_eq!(alice.next(), r#"437["done"]"#);
        let said = json(&bob.next());
        assert_eq!((said["type"].as_str(), said["data"]["text"].as_str()), (Some("said:loud"), Some("hi \"you\"")));
        if to_self {
            assert_eq!(json(&alice.next()[2..]), json!(["said:loud", said["data"]]));
        }
        assert_eq!(
            json(&listener.next()),
            json!({"type": "logged", "args": [{"room": "chat", "kind": "loud", "text": "hi \"you\""}, 2]})
        );
        // She is in the room by now, and hears others.
        bob.send(r#"{"type":"say","data":{"room":"chat","kind":"x","text":"yo"}}"#);
        assert_eq!(bob.next(), r#"{"type":"ok"}"#);
        assert!(alice.next().starts_with(r#"42["said:x",{"text":"yo","by":""#));
        assert!(listener.next().contains("logged"));
        // The whole namespace, but for the one who shouts.
        alice.send(r#"42["shout",1,2]"#);
        assert_eq!(listener.next(), r#"{"type":"shouted","args":[1,2]}"#);
        if to_self {
            assert!(bob.next().contains("said:x"));
        }
        assert_eq!(bob.next(), r#"{"type":"shouted","args":[1,2]}"#);
        alice.send(r#"42["availability",{"room":"x"}]"#);
        assert!(alice.next().starts_with(r#"42["seats""#), "she has not heard herself");
        server.await_metric("roomcast_client_emits_total", &[], 5.0);
    }
}

fn events_of_clients_are_kept_too(cores: usize) {
    let server = start(cores);
    let mut client = RawClient::socket_io(&server);
    for (key, value) in [("a", "1.0"), ("b", "[2]"), ("a", "3")] {
        let set = format!(r#"421["set",{{"room":"route:1","key":"{key}","value":{value}}}]"#);
        assert_eq!(client.ask(&set), r#"431["done"]"#);
    }
    // Its own events were on their way to the owner before its question.
    let answer = client.ask(r#"42["availability",{"room":"route:1"}]"#);
    assert_eq!(json(&answer[2..])[1]["seats"], json!([[2], 3]));
}

fn emits_are_refused_with_a_reason(cores: usize) {
    let server = start(cores);
    let mut client = RawClient::connect(&server);
    for (message, reason) in [
        (r#"{"type":"say","data":{"kind":"x","text":"y"}}"#.to_owned(), "data.room is missing"),
        (
            format!(r#"{{"type":"say","data":{{"room":"{}","kind":"x","text":"y"}}}}"#, "r".repeat(201)),
            "the room name has 201 bytes; at most 200 are allowed",
        ),
        (
            r#"{"type":"set","data":{"room":"r","key":"","value":1}}"#.to_owned(),
            "the event's key has 0 bytes; it needs 1 to 200",
        ),
    ] {
        let answer = json(&client.ask(&message));
        assert_eq!((&answer["type"], &answer["data"]["message"]), (&json!("error"), &json!(reason)), "{message}");
    }
    assert_eq!(server.metric("roomcast_client_emits_total"), 0.0);
}

fn binary_parts_are_kept(cores: usize) {
    let server = start(cores);
    let mut publisher = Publisher::connect(&server);
    let line = r#"{"room":"route:1","event":"e","key":"k","data":{"b":{"_base64":"aGk="}},"binary":true,"id":1}"#;
    assert_eq!(publisher.ask(line)["ok"], true);
    let mut client = RawClient::socket_io(&server);
    client.send(r#"42["subscribe",{"room":"route:1"}]"#);
    assert_eq!(client.next(), r#"42["subscribed",{"room":"route:1"}]"#);
    assert_eq!(client.next(), r#"451-["e",{"b":{"_placeholder":true,"num":0}}]"#);
    assert_eq!(client.next_binary(), b"hi");
    let answer = client.ask(r#"42["availability",{"room":"route:1"}]"#);
    assert_eq!(json(&answer[2..])[1]["seats"], json!([{"b": {"_base64": "aGk="}}]));
}

impl RawClient {
    fn in_log(server: &Server) -> RawClient {
        let mut client = RawClient::connect(server);
        client.send(r#"{"type":"subscribe","data":{"room":"log"}}"#);
        assert_eq!(client.next(), r#"{"type":"subscribed","data":{"room":"log"}}"#);
        client
    }
}
