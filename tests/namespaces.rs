//! Namespaces by pattern, refusals in the operator's own words, events that nobody has a rule for, and what else the
//! Node server does with packets for namespaces.

mod common;

use common::{Publisher, RawClient, Server, node};
use serde_json::Value;

on_one_and_two_cores!(
    the_official_client_finds_each_name_a_namespace,
    endless_names_leave_nothing_behind,
    names_and_their_number_are_bounded,
    rules_see_rooms_as_they_spell_them,
    refusals_say_what_the_rule_says,
    events_without_a_rule_are_told_or_ignored,
    a_client_that_every_namespace_refuses_is_closed,
    packets_of_other_namespaces_of_a_pattern_close_the_connection,
    what_a_conformance_server_must_say,
);

const CONFIG: &str = r#"
[[namespace]]
pattern = "^/workspace-(?<id>[a-z0-9]+)$"

[[namespace.connect]]
allow = "!captures.id.startsWith('closed')"
error = { message = "closed: {auth.key}", data = { code = 403, id = "{captures.id}", auth = "{auth}" } }
reply = { event = "welcome", data = { id = "{captures.id}", namespace = "{namespace}" } }

[[namespace.on]]
event = "join"
join = ["{data}"]
ack = ["ok"]

[[namespace.on]]
event = "leave"
leave = ["{data}*"]
ack = ["ok"]

# Never: the pattern before it has these names.
[[namespace]]
pattern = "/workspace-[0-9]"

[[namespace.connect]]
allow = false

[[namespace]]
name = "/workspace-own"

[[namespace.connect]]
reply = { event = "welcome", data = "a name of its own wins" }

[[namespace]]
name = "/"

[[namespace.connect]]
reply = { event = "welcome", data = "main" }
"#;

fn the_official_client_finds_each_name_a_namespace(cores: usize) {
    node("namespaces.js", &Server::start(CONFIG, cores), &[]);
}

fn endless_names_leave_nothing_behind(cores: usize) {
    let server = Server::start(&format!("[rooms]\nidle_ms = 100\n{CONFIG}"), cores);
    let mut client = RawClient::socket_io(&server);
    assert_eq!(client.next(), r#"42["welcome","main"]"#);
    for n in 0..300 {
        let grant = client.ask(&format!("40/workspace-{n},"));
        assert!(grant.starts_with(&format!(r#"40/workspace-{n},{{"sid":""#)), "{grant}");
        let welcome = format!(r#"42/workspace-{n},["welcome",{{"id":"{n}","namespace":"/workspace-{n}"}}]"#);
        assert_eq!(client.next(), welcome);
        assert_eq!(client.ask(&format!(r#"42/workspace-{n},1["join","r"]"#)), format!(r#"43/workspace-{n},1["ok"]"#));
        client.send(&format!("41/workspace-{n},"));
    }
    server.await_metric("roomcast_sockets", &[], 1.0);
    server.await_metric("roomcast_rooms_attached", &[], 1.0);
    server.await_metric("roomcast_rooms_owned", &[], 1.0);
}

fn names_and_their_number_are_bounded(cores: usize) {
    let limits = "[limits]\nnamespace_bytes_max = 20\nnamespaces_per_client_max = 3\n";
    let server = Server::start(&format!("{limits}{CONFIG}"), cores);
    let (mut client, _) = RawClient::engine_io(&server);
    let invalid = |name: &str| format!(r#"44{name},{{"message":"Invalid namespace"}}"#);
    assert_eq!(client.ask("40/workspace-1234567890,"), invalid("/workspace-1234567890"));
    // A query string belongs to the name, which no namespace has then.
    assert_eq!(client.ask("40/workspace-1?a=1,"), invalid("/workspace-1?a=1"));
    for name in ["/workspace-123456789", "/workspace-2", "/workspace-3"] {
        assert!(client.ask(&format!("40{name},")).starts_with(&format!("40{name},{{")));
        assert!(client.next().contains("welcome"));
    }
    assert_eq!(client.ask("40/workspace-4,"), r#"44/workspace-4,{"message":"Too many namespaces"}"#);
    assert_eq!(client.ask("40"), r#"44{"message":"Too many namespaces"}"#);
    client.send("41/workspace-2,");
    assert!(client.ask("40/workspace-4,").starts_with("40/workspace-4,{"));
    for (reason, count) in [("unknown_namespace", 2.0), ("too_many_namespaces", 2.0)] {
        server.await_metric("roomcast_rule_refusals_total", &[("reason", reason)], count);
    }
    // Publishers hear the same of a name that is too long.
    let mut publisher = Publisher::connect(&server);
    let receipt = publisher.ask(r#"{"ns":"/workspace-1234567890","event":"x","id":1}"#);
    assert!(receipt["error"].as_str().unwrap().starts_with("there is no namespace \"/workspace-1234567890\""));
}

fn rules_see_rooms_as_they_spell_them(cores: usize) {
    let limits = "[limits]\nrooms_per_socket_max = 3\nroom_name_bytes_max = 20\n";
    let server = Server::start(&format!("{limits}{CONFIG}"), cores);
    let (mut client, _) = RawClient::engine_io(&server);
    assert!(client.ask("40/workspace-1,").starts_with("40/workspace-1,{"));
    assert!(client.next().contains("welcome"));
    let mut publisher = Publisher::connect(&server);
    let mut emit = |room: &str, event: &str| {
        publisher.ask(&format!(r#"{{"ns":"/workspace-1",{room}"event":"{event}","id":1}}"#));
    };
    let ask = |what: &str, room: &str| format!(r#"42/workspace-1,1["{what}","{room}"]"#);
    let ok = r#"43/workspace-1,1["ok"]"#;
    // The bound on names and the one on rooms count what the client asked for.
    for room in ["a1", "a2", "12345678901234567890"] {
        assert_eq!(client.ask(&ask("join", room)), ok);
    }
    for (room, reason) in [
        ("123456789012345678901", "the room name has 21 bytes; at most 20 are allowed"),
        ("a3", "this would make 4 rooms; a socket can be in 3"),
    ] {
        let refusal = client.ask(&ask("join", room));
        assert_eq!(refusal, format!(r#"42/workspace-1,["error",{{"message":"{reason}","event":"join"}}]"#));
        assert!(client.next().starts_with("43/workspace-1,1[{\"error\""));
    }
    // A prefix means names, and never the whole namespace.
    assert_eq!(client.ask(&ask("leave", "a")), ok);
    emit(r#""rooms":["a1","a2"],"#, "never");
    emit(r#""room":"12345678901234567890","#, "still there");
    assert_eq!(client.next(), r#"42/workspace-1,["still there"]"#);
    assert_eq!(client.ask(&ask("leave", "")), ok);
    emit(r#""room":"12345678901234567890","#, "never");
    emit("", "all");
    assert_eq!(client.next(), r#"42/workspace-1,["all"]"#);
}

fn refusals_say_what_the_rule_says(cores: usize) {
    let config = r#"
[[endpoint]]
kind = "socket.io"
[[endpoint]]
kind = "raw"
path = "/ws"
shape = "flat"
[[endpoint]]
kind = "raw"
path = "/plain"
namespace = "/plain"

[[namespace]]
name = "/"
[[namespace.connect]]
allow = "has(query.key)"
error = { message = "A key is needed", data = { code = 401 } }
[[namespace.on]]
event = "buy"
allow = "data.n < 5"
error = { message = "Not {data.n} at once", data = ["{data}", 4] }
[[namespace.on]]
event = "sell"
allow = false

[[namespace]]
name = "/plain"
[[namespace.connect]]
allow = false
"#;
    let server = Server::start(config, cores);
    let (mut client, _) = RawClient::engine_io(&server);
    assert_eq!(client.ask("40"), r#"44{"message":"A key is needed","data":{"code":401}}"#);

    let mut client = RawClient::connect_to(&server, "/socket.io/?EIO=4&transport=websocket&key=1");
    assert!(client.next().starts_with('0'));
    assert!(client.ask("40").starts_with("40{"));
    let content = r#"{"message":"Not 7.0 at once","event":"buy","data":[{"n":7.0},4]}"#;
    assert_eq!(client.ask(r#"423["buy",{"n":7.0}]"#), format!(r#"42["error",{content}]"#));
    assert_eq!(client.next(), format!(r#"433[{{"error":{content}}}]"#));
    assert_eq!(client.ask(r#"42["sell",1]"#), r#"42["error",{"message":"not allowed","event":"sell"}]"#);

    let mut raw = RawClient::connect_to(&server, "/ws");
    assert_eq!(raw.next(), r#"{"type":"error","message":"A key is needed","data":{"code":401}}"#);
    assert_eq!(raw.closed(), (4403, "A key is needed".to_owned()));
    let mut raw = RawClient::connect_to(&server, "/plain");
    assert_eq!(raw.closed(), (4403, "refused".to_owned()));
    let mut raw = RawClient::connect_to(&server, "/ws?key=1");
    let answer: Value = serde_json::from_str(&raw.ask(r#"{"type":"buy","n":7}"#)).unwrap();
    assert_eq!((&answer["message"], &answer["data"][1]), (&"Not 7 at once".into(), &4.into()));
    server.await_metric("roomcast_closes_total", &[("reason", "refused")], 2.0);
    server.await_metric("roomcast_rule_refusals_total", &[("reason", "connect")], 3.0);
}

fn events_without_a_rule_are_told_or_ignored(cores: usize) {
    let config = r#"
[[namespace]]
name = "/"
[[namespace.on]]
event = "never"
when = false

[[namespace]]
name = "/quiet"
unknown_events = "ignore"
[[namespace.on]]
event = "echo"
ack = "{args}"
[[namespace.on]]
event = "never"
when = false
"#;
    let server = Server::start(config, cores);
    let mut client = RawClient::socket_io(&server);
    let told = r#"{"message":"no rule allows this","event":"x"}"#;
    assert_eq!(client.ask(r#"421["x",1]"#), format!(r#"42["error",{told}]"#));
    assert_eq!(client.next(), format!(r#"431[{{"error":{told}}}]"#));
    assert!(client.ask(r#"42["never"]"#).starts_with(r#"42["error""#));
    assert!(client.ask("40/quiet,").starts_with("40/quiet,{"));
    client.send(r#"42/quiet,2["x",1]"#);
    client.send(r#"451-/quiet,3["x",{"_placeholder":true,"num":0}]"#);
    client.send_binary(b"x");
    assert_eq!(client.ask(r#"42/quiet,4["echo",1]"#), "43/quiet,4[1]");
    assert!(client.ask(r#"42/quiet,["never"]"#).starts_with(r#"42/quiet,["error""#), "its rule does not take it");
    server.await_metric("roomcast_rule_refusals_total", &[("reason", "unknown_event")], 3.0);
    server.await_metric("roomcast_rule_refusals_total", &[("reason", "event")], 2.0);
}

fn a_client_that_every_namespace_refuses_is_closed(cores: usize) {
    let server = Server::start(&format!("[heartbeat]\nconnect_timeout_ms = 100\n{CONFIG}"), cores);
    let (mut client, _) = RawClient::engine_io(&server);
    assert!(client.ask(r#"40/workspace-closed,{"key":1}"#).starts_with("44/workspace-closed,{"));
    assert_eq!(client.closed(), (1000, "connect timeout".to_owned()));
}

fn packets_of_other_namespaces_of_a_pattern_close_the_connection(cores: usize) {
    let server = Server::start(CONFIG, cores);
    // Of `/workspace-1` the client is a member, of the others not.
    for packet in [r#"42/workspace-2,["join","r"]"#, "41/workspace-2,", "43/workspace-2,1[]", "40/workspace-1,"] {
        let (mut client, _) = RawClient::engine_io(&server);
        assert!(client.ask("40/workspace-1,").starts_with("40/workspace-1,{"));
        assert!(client.next().contains("welcome"));
        client.send(packet);
        assert_eq!(client.closed(), (1002, "parse error".to_owned()), "{packet}");
    }
    // One after its own goodbye is no exception.
    let (mut client, _) = RawClient::engine_io(&server);
    assert!(client.ask("40/workspace-1,").starts_with("40/workspace-1,{"));
    assert!(client.next().contains("welcome"));
    client.send("41/workspace-1,");
    client.send(r#"42/workspace-1,["join","r"]"#);
    assert_eq!(client.closed().0, 1002);
}

fn what_a_conformance_server_must_say(cores: usize) {
    let rules = r#"
[[namespace.connect]]
when = "auth == null"
reply = { event = "auth", data = {} }
[[namespace.connect]]
when = "auth != null"
reply = { event = "auth", data = "{auth}" }
[[namespace.on]]
event = "message"
reply = { event = "message-back", args = "{args}" }
[[namespace.on]]
event = "message-with-ack"
ack = "{args}"
"#;
    let config = format!("[[namespace]]\nname = \"/\"\n{rules}\n[[namespace]]\nname = \"/custom\"\n{rules}");
    let server = Server::start(&config, cores);
    for prefix in ["", "/custom,"] {
        let (mut client, _) = RawClient::engine_io(&server);
        assert!(client.ask(&format!("40{prefix}")).starts_with(&format!("40{prefix}{{")));
        assert_eq!(client.next(), format!(r#"42{prefix}["auth",{{}}]"#));
        let (mut client, _) = RawClient::engine_io(&server);
        let auth = r#"{"z":1.0,"a":[123456789012345678901234567890, null],"\u0041":{}}"#;
        assert!(client.ask(&format!("40{prefix}{auth}")).starts_with(&format!("40{prefix}{{")));
        assert_eq!(client.next(), format!(r#"42{prefix}["auth",{auth}]"#));

        assert_eq!(client.ask(&format!(r#"42{prefix}["message"]"#)), format!(r#"42{prefix}["message-back"]"#));
        let args = r#"1.0,"2",{"b":[true],"a":1e3}"#;
        let back = format!(r#"42{prefix}["message-back",{args}]"#);
        assert_eq!(client.ask(&format!(r#"42{prefix}["message",{args}]"#)), back);
        assert_eq!(
            client.ask(&format!(r#"42{prefix}456["message-with-ack",{args}]"#)),
            format!("43{prefix}456[{args}]")
        );

        let args = r#"{"_placeholder":true,"num":0},{"x":[{"_placeholder":true,"num":1}]}"#;
        client.send(&format!(r#"452-{prefix}["message",{args}]"#));
        client.send_binary(&[1, 2, 3]);
        client.send_binary(b"");
        assert_eq!(client.next(), format!(r#"452-{prefix}["message-back",{args}]"#));
        assert_eq!((client.next_binary(), client.next_binary()), (vec![1, 2, 3], vec![]));
        client.send(&format!(r#"452-{prefix}789["message-with-ack",{args}]"#));
        client.send_binary(&[1, 2, 3]);
        client.send_binary(&[4]);
        assert_eq!(client.next(), format!(r#"462-{prefix}789[{args}]"#));
        assert_eq!((client.next_binary(), client.next_binary()), (vec![1, 2, 3], vec![4]));
    }
}
