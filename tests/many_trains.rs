//! Many trains (system 5) over plain WebSockets: whatever the order of the messages, each socket is in its rooms, and
//! each train's events reach its own sockets in order, and no others.
//!
//! What the system asks for, and where it is shown:
//!
//! * `SUBSCRIBE_TRAIN` and `IDENTIFY` in either order; rooms `train:{trainNo}`, `user:{irctcId}`, `role:{role}`,
//!   `train:{trainNo}:{role}`: [`rooms_follow_train_and_role`], with the package `ws`
//! * all on a train, one user, the TTEs of a train, all TTEs: [`rooms_follow_train_and_role`]
//! * 1,000 trains, an arrival goes to the train's sockets alone: [`each_train_gets_its_own`], with 10 sockets a train
//!   instead of 200, as 200,000 are more than a test machine bears beside everything else
//! * messages are `{type, …}`: [`rooms_follow_train_and_role`], [`pipelined_messages_take_effect_in_order`]
//! * a socket that changes its train leaves the old one: [`rooms_follow_train_and_role`],
//!   [`pipelined_messages_take_effect_in_order`]

mod common;

use common::swarm::Swarm;
use common::{Publisher, RawClient, Server, example_for_many, node};
use std::sync::{Arc, Barrier};

on_one_and_two_cores!(rooms_follow_train_and_role, pipelined_messages_take_effect_in_order, each_train_gets_its_own);

fn rooms_follow_train_and_role(cores: usize) {
    let server = Server::start(&example_for_many("many-trains.toml"), cores);
    node("many_trains.js", &server, &[]);
}

/// A client that waits for no answer: the last message counts.
fn pipelined_messages_take_effect_in_order(cores: usize) {
    let server = Server::start(&example_for_many("many-trains.toml"), cores);
    let mut client = RawClient::connect(&server);
    client.send(r#"{"type":"IDENTIFY","role":"TTE","irctcId":"IR0001"}"#);
    for train in 0..100 {
        client.send(&format!(r#"{{"type":"SUBSCRIBE_TRAIN","trainNo":"{train}"}}"#));
    }
    let identified: serde_json::Value = serde_json::from_str(&client.next()).unwrap();
    assert_eq!(identified, serde_json::json!({"type": "IDENTIFIED", "role": "TTE", "irctcId": "IR0001"}));
    for train in 0..100 {
        assert_eq!(client.next(), format!(r#"{{"type":"SUBSCRIBED","trainNo":"{train}"}}"#));
    }
    let mut publisher = Publisher::connect(&server);
    for train in 0..100 {
        for room in [format!("train:{train}"), format!("train:{train}:TTE")] {
            publisher.line(&format!(r#"{{"room":"{room}","event":"NEWS","data":{{"of":"{room}"}}}}"#));
        }
    }
    assert_eq!(publisher.ask(r#"{"id":1,"room":"user:IR0001","event":"END"}"#)["ok"], true);
    // Rooms have no order among each other.
    let mut got = [client.next(), client.next(), client.next()];
    got.sort();
    assert_eq!(
        got,
        [
            r#"{"type":"END"}"#.to_owned(),
            r#"{"type":"NEWS","of":"train:99"}"#.to_owned(),
            r#"{"type":"NEWS","of":"train:99:TTE"}"#.to_owned()
        ]
    );
    server.await_metric("roomcast_events_total", &[], 201.0);
    server.await_metric("roomcast_deliveries_total", &[], 3.0);
}

const TRAINS: usize = 1_000;
const SOCKETS_PER_TRAIN: usize = 10;
const EVENTS_PER_TRAIN: usize = 8;
const PUBLISHERS: usize = 4;

fn each_train_gets_its_own(cores: usize) {
    let server = Server::start(&example_for_many("many-trains.toml"), cores);
    let sockets = TRAINS * SOCKETS_PER_TRAIN;
    let mut swarm = Swarm::connect(&server, "/ws", sockets);
    // Neighbours in the order of connecting are on different trains.
    let train_of = |index: usize| index % TRAINS;
    for index in 0..sockets {
        swarm.send(index, &format!(r#"{{"type":"SUBSCRIBE_TRAIN","trainNo":"{}"}}"#, train_of(index)));
    }
    swarm.receive("the answers to SUBSCRIBE_TRAIN", sockets, |index, text| {
        assert_eq!(text, format!(r#"{{"type":"SUBSCRIBED","trainNo":"{}"}}"#, train_of(index)));
    });

    // Each train's events come from one publisher, so that they have an order that can be checked.
    let start = Arc::new(Barrier::new(PUBLISHERS));
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|number| {
            let mut publisher = Publisher::connect(&server);
            let start = start.clone();
            std::thread::spawn(move || {
                start.wait();
                for event in 0..EVENTS_PER_TRAIN {
                    let mut lines = String::new();
                    for train in (number..TRAINS).step_by(PUBLISHERS) {
                        let data = format!(r#"{{"train":{train},"n":{event}}}"#);
                        lines.push_str(&format!("{{\"room\":\"train:{train}\",\"event\":\"AT\",\"data\":{data}}}\n"));
                    }
                    publisher.bytes(lines);
                }
                assert_eq!(publisher.ask(r#"{"id":1,"room":"nobody","event":"END"}"#)["ok"], true);
            })
        })
        .collect();
    let mut next = vec![0; sockets];
    swarm.receive("the trains' events", sockets * EVENTS_PER_TRAIN, |index, text| {
        let train = train_of(index);
        assert_eq!(text, format!(r#"{{"type":"AT","train":{train},"n":{}}}"#, next[index]), "client {index}");
        next[index] += 1;
    });
    for publisher in publishers {
        publisher.join().unwrap();
    }
    assert!(next.iter().all(|&count| count == EVENTS_PER_TRAIN));
    server.await_metric("roomcast_deliveries_total", &[], (sockets * EVENTS_PER_TRAIN) as f64);
    server.await_metric("roomcast_encodes_total", &[], (TRAINS * EVENTS_PER_TRAIN) as f64);
}
