//! SIGHUP: the whole config file is read again, and all of it that can change under way holds from then on, for clients
//! that are there and for new ones, without a connection dropped; or nothing changes, and the log says why.

mod common;

use common::polling::{Http, Polling, get};
use common::wire::{self, Wire};
use common::{OPEN, Publisher, RawClient, Server, Signal, wait_until};
use std::sync::atomic::{AtomicBool, Ordering};

on_one_and_two_cores!(
    rules_change_for_live_and_new_clients,
    limits_change_for_live_and_new_clients,
    pages_of_other_origins_are_let_in_and_kept_out,
    tokens_are_wanted_from_now_on,
    publishers_are_asked_for_the_new_token,
    a_namespace_is_added,
    a_bad_file_changes_nothing_and_is_told,
    what_needs_a_restart_is_named_and_the_rest_holds,
    nobody_misses_anything_meanwhile,
);

/// More than there are cores, so that each has some.
const MANY: usize = 8;

/// [`OPEN`] with one thing instead of another.
#[track_caller]
fn open_with(what: &str, instead_of: &str) -> String {
    assert_eq!(OPEN.matches(instead_of).count(), 1, "{instead_of}");
    OPEN.replace(instead_of, what)
}

#[track_caller]
fn nobody_was_dropped(server: &Server, connections: usize) {
    assert_eq!(server.metric("roomcast_closes_total"), 0.0);
    assert_eq!(server.metric("roomcast_connections"), connections as f64);
}

fn rules_change_for_live_and_new_clients(cores: usize) {
    let server = Server::start(OPEN, cores);
    let mut raw: Vec<RawClient> = (0..MANY).map(|_| RawClient::in_room(&server, "a")).collect();
    let mut socket_io: Vec<RawClient> = (0..MANY).map(|_| RawClient::socket_io(&server)).collect();
    for client in &mut socket_io {
        client.send(r#"42["subscribe",{"room":"a"}]"#);
        assert_eq!(client.next(), r#"42["subscribed",{"room":"a"}]"#);
    }
    let mut polling = Polling::open(&server, "/socket.io/");
    let mut publisher = Publisher::connect(&server);

    let renamed = open_with(r#"reply = { event = "moved in", data"#, r#"reply = { event = "subscribed", data"#);
    let added = format!("{renamed}\n[[namespace.on]]\nevent = \"shout\"\nreply = {{ event = \"heard\" }}\n");
    assert!(server.reload(&added.replace("event = \"who\"", "event = \"whoever\"")));

    // Those who are there go by the new rules, and are still in their rooms.
    let new_raw = RawClient::connect(&server);
    raw.push(new_raw);
    for (index, client) in raw.iter_mut().enumerate() {
        assert_eq!(client.ask(r#"{"type":"shout"}"#), r#"{"type":"heard"}"#);
        let refused = client.ask(r#"{"type":"who"}"#);
        assert!(refused.contains("\"error\""), "{refused}");
        if index < MANY {
            continue;
        }
        let joined = client.ask(r#"{"type":"subscribe","data":{"room":"a"}}"#);
        assert_eq!(joined, r#"{"type":"moved in","data":{"room":"a"}}"#);
    }
    socket_io.push(RawClient::socket_io(&server));
    for client in &mut socket_io {
        assert_eq!(client.ask(r#"42["shout"]"#), r#"42["heard"]"#);
    }
    assert_eq!(publisher.ask(r#"{"id":1,"room":"a","event":"x"}"#)["ok"], true);
    for client in &mut raw {
        assert_eq!(client.next(), r#"{"type":"x"}"#);
    }
    for client in &mut socket_io[..MANY] {
        assert_eq!(client.next(), r#"42["x"]"#);
    }
    // A polled session began under the former rules.
    polling.post(&["40"]);
    assert!(polling.poll().starts_with("40{"));
    polling.post(&[r#"42["shout"]"#]);
    assert_eq!(polling.poll(), r#"42["heard"]"#);
    nobody_was_dropped(&server, 2 * MANY + 2 + 2);
    let since = server.metric("roomcast_config_last_good_timestamp_seconds");
    assert!(server.reload(OPEN));
    assert!(server.metric("roomcast_config_last_good_timestamp_seconds") > since);
    assert_eq!(
        raw[0].ask(r#"{"type":"subscribe","data":{"room":"b"}}"#),
        r#"{"type":"subscribed","data":{"room":"b"}}"#
    );
}

fn limits_change_for_live_and_new_clients(cores: usize) {
    let with = |limits: &str| format!("[limits]\n{limits}\n{OPEN}");
    let server = Server::start(OPEN, cores);
    let mut clients: Vec<RawClient> = (0..MANY).map(|_| RawClient::in_room(&server, "a")).collect();
    // Rooms of a socket: those that it is in stay.
    assert!(server.reload(&with("rooms_per_socket_max = 1\nroom_name_bytes_max = 20")));
    for client in &mut clients {
        let refused = client.ask(r#"{"type":"subscribe","data":{"room":"b"}}"#);
        assert!(refused.contains("\"error\""), "{refused}");
    }
    // Events of a socket, of those that came before there was a limit and of those that come after.
    assert!(server.reload(&with("events_per_socket_per_s = 1\nevents_per_socket_burst = 2")));
    clients.push(RawClient::connect(&server));
    for client in &mut clients {
        let answers: Vec<String> = (0..20).map(|_| client.ask(r#"{"type":"who"}"#)).collect();
        let refused = answers.iter().filter(|answer| answer.contains("\"error\"")).count();
        assert!((1..=18).contains(&refused), "{answers:?}");
    }
    assert!(server.metric_where("roomcast_rule_refusals_total", &[("reason", "events_per_socket")]) > 0.0);
    // Connections of an address: those that are there count, and stay.
    assert!(server.reload(&with(&format!("connections_per_ip_max = {}", MANY + 2))));
    let last = RawClient::connect(&server);
    let mut one_more = Wire::connect(&server);
    one_more.write(wire::handshake("/ws"));
    assert_eq!(Http::connect(server.listen).ask(get("/ws")).status, 429);
    drop(one_more);
    for client in &mut clients {
        let answers: Vec<String> = (0..20).map(|_| client.ask(r#"{"type":"who"}"#)).collect();
        assert!(answers.iter().all(|answer| answer.contains("\"you\"")), "there is no such limit any more");
    }
    drop(last);
    // Sessions begun: at the new rate from the first one on, however high the former one was.
    assert!(server.reload(&with("handshakes_per_ip_per_s = 1000000")));
    drop(RawClient::connect(&server));
    assert!(server.reload(&with("handshakes_per_ip_per_s = 1\nhandshakes_per_ip_burst = 2")));
    drop(RawClient::connect(&server));
    // A message's size is a promise of the handshake: open WebSockets keep theirs.
    assert!(server.reload(&with("message_bytes_max = 1024")));
    let long = format!(r#"{{"type":"who","data":"{}"}}"#, "x".repeat(2000));
    assert!(clients[0].ask(&long).contains("\"you\""));
    let mut new = RawClient::connect(&server);
    new.send(&long);
    assert_eq!(new.closed().0, 1009);
    assert_eq!(server.metric_where("roomcast_closes_total", &[("reason", "slow consumer")]), 0.0);
    for client in &mut clients {
        assert!(client.ask(r#"{"type":"who"}"#).contains("\"you\""));
    }
}

fn pages_of_other_origins_are_let_in_and_kept_out(cores: usize) {
    let page = "https://app.example";
    let with = |origins: &str| format!("[cors]\norigins = [{origins}]\n{OPEN}");
    let server = Server::start(&with("\"https://other.example\""), cores);
    let mut kept = Http::connect(server.listen);
    let poll = format!("GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: test\r\nOrigin: {page}\r\n\r\n");
    let upgrade = wire::handshake("/ws").replace("Host: test\r\n", &format!("Host: test\r\nOrigin: {page}\r\n"));
    let mut is_let_in = |expected: bool| {
        let header = format!("Access-Control-Allow-Origin: {page}\r\n");
        // On a connection that is there, and on new ones of each core.
        assert_eq!(kept.ask(&poll).head.contains(&header), expected);
        for _ in 0..MANY {
            assert_eq!(Http::connect(server.listen).ask(&poll).head.contains(&header), expected);
            let status = Http::connect(server.listen).ask(&upgrade).status;
            assert_eq!(status, if expected { 101 } else { 403 });
        }
    };
    is_let_in(false);
    assert!(server.reload(&with("\"https://app.example\"")));
    is_let_in(true);
    assert!(server.reload(&with("\"https://other.example\"")));
    is_let_in(false);
    assert!(!server.reload(&with("\"app.example/\"")));
    is_let_in(false);
    assert!(server.reload(&with("\"https://*.example\"")));
    is_let_in(true);
}

fn tokens_are_wanted_from_now_on(cores: usize) {
    let server = Server::start(OPEN, cores);
    let mut clients: Vec<RawClient> = (0..MANY).map(|_| RawClient::in_room(&server, "a")).collect();
    let key = server.config_path().with_file_name("secret");
    std::fs::write(&key, "a secret of these tests, 32 bytes").unwrap();
    let auth = "[auth]\nrequire = true\n[[auth.key]]\nalgorithm = \"HS256\"\nfile = \"secret\"\n";
    assert!(server.reload(&format!("{auth}{OPEN}")));
    for client in &mut clients {
        assert!(client.ask(r#"{"type":"who"}"#).contains("\"you\""), "who is in stays in");
    }
    for _ in 0..MANY {
        let mut client = RawClient::connect(&server);
        assert!(client.next().contains("token_missing"));
        assert_eq!(client.closed().0, 4401);
    }
    std::fs::remove_file(key).unwrap();
    assert!(!server.reload(&format!("{auth}{OPEN}")));
    assert!(server.log().contains("auth.key[0].file"), "{}", server.log());
    assert!(RawClient::connect(&server).next().contains("token_missing"), "the former keys stay");
    assert!(server.reload(OPEN));
    RawClient::in_room(&server, "a");
}

fn publishers_are_asked_for_the_new_token(cores: usize) {
    let server = Server::start(OPEN, cores);
    let mut former = Publisher::connect(&server);
    assert_eq!(former.ask(r#"{"id":1,"room":"a","event":"x"}"#)["ok"], true);
    let file = server.config_path().with_file_name("token");
    let config = format!("[ingest]\ntoken_file = \"token\"\n{OPEN}");
    let says = |token: &str| {
        let line = format!(r#"{{"op":"auth","id":1,"token":"{token}"}}"#);
        (0..MANY).map(|_| Publisher::connect(&server).ask(&line)["ok"] == true).collect::<Vec<bool>>()
    };
    std::fs::write(&file, "a-token-of-these-tests").unwrap();
    assert!(server.reload(&config));
    assert_eq!(former.ask(r#"{"id":2,"room":"a","event":"x"}"#)["ok"], true, "who is in stays in");
    assert_eq!(Publisher::connect(&server).ask(r#"{"id":1,"room":"a","event":"x"}"#)["ok"], false);
    assert_eq!(says("a-token-of-these-tests"), [true; MANY]);
    // The file alone has changed.
    std::fs::write(&file, "another-token-of-tests").unwrap();
    assert_eq!(says("a-token-of-these-tests"), [true; MANY], "nobody has said so");
    assert!(server.reload(&config));
    assert_eq!(says("a-token-of-these-tests"), [false; MANY]);
    assert_eq!(says("another-token-of-tests"), [true; MANY]);
    assert!(server.reload(OPEN));
    assert_eq!(Publisher::connect(&server).ask(r#"{"id":1,"room":"a","event":"x"}"#)["ok"], true);
    assert!(!server.log().contains("-of-"), "{}", server.log());
}

fn a_namespace_is_added(cores: usize) {
    let server = Server::start(OPEN, cores);
    let mut there = RawClient::in_room(&server, "a");
    let more = "[[namespace]]\nname = \"/new\"\n[[namespace.connect]]\njoin = [\"all\"]\n\
                [[namespace]]\npattern = \"^/p-[0-9]$\"\n[[namespace.connect]]\njoin = [\"all\"]\n";
    for round in 0..3 {
        // It comes before the old one in the file, but that does not change its number.
        assert!(server.reload(&format!("{more}{OPEN}")));
        let mut publishers: Vec<Publisher> = (0..MANY).map(|_| Publisher::connect(&server)).collect();
        for name in ["/new", "/p-7"] {
            let mut clients: Vec<RawClient> = (0..MANY).map(|_| RawClient::engine_io(&server).0).collect();
            for client in &mut clients {
                assert!(client.ask(&format!("40{name},")).starts_with(&format!("40{name},{{")));
            }
            for publisher in &mut publishers {
                let receipt = publisher.ask(&format!(r#"{{"id":1,"ns":"{name}","room":"all","event":"x"}}"#));
                assert_eq!(receipt["ok"], true, "{receipt}");
            }
            for client in &mut clients {
                for _ in 0..MANY {
                    assert_eq!(client.next(), format!("42{name},[\"x\"]"));
                }
            }
        }
        assert_eq!(publishers[0].ask(r#"{"id":1,"room":"a","event":"x"}"#)["ok"], true);
        assert_eq!(there.next(), r#"{"type":"x"}"#, "round {round}");
        // One that goes needs a restart.
        assert!(server.reload(OPEN));
        let named = "namespace \\\"/new\\\" (it is gone)";
        assert_eq!(server.log().matches(named).count(), round + 1, "{}", server.log());
        assert_eq!(server.metric("roomcast_config_restart_keys"), 2.0);
        assert!(RawClient::engine_io(&server).0.ask("40/new,").starts_with("40/new,{"));
    }
}

fn a_bad_file_changes_nothing_and_is_told(cores: usize) {
    let server = Server::start(OPEN, cores);
    let mut client = RawClient::in_room(&server, "a");
    // Good news beside each mistake: it is not taken either.
    let good = open_with(r#"event = "moved in", data"#, r#"event = "subscribed", data"#);
    let path = server.config_path().display().to_string();
    for (number, (bad, told)) in [
        (
            "[limits]\nrooms_per_socket_max = 0\n",
            ":2:24: limits.rooms_per_socket_max = 0: must be between 1 and 100000",
        ),
        ("[limits]\nrooms = 5\n", ":2:1: limits.rooms: there is no such key"),
        ("[limits\n", ":1:8: unclosed table"),
        ("[cors]\norigins = [\"app.example\"]\n", ":2:12: cors.origins[0]"),
        ("[server]\ntrusted_proxies = [\"here\"]\n", ":2:20: server.trusted_proxies[0]"),
        ("[auth]\nrequire = true\n", ":2:11: auth.require = true: there is no [[auth.key]]"),
        ("[[auth.key]]\nalgorithm = \"HS256\"\nfile = \"nowhere\"\n", ":3:8: auth.key[0].file"),
        ("[ingest]\ntoken_file = \"nowhere\"\n", ":2:14: ingest.token_file"),
        (
            "[[namespace]]\nname = \"/x\"\n[[namespace.on]]\nevent = \"a\"\nallow = \"dta.x\"\n",
            ":5:10: namespace[0].on[0].allow",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        assert!(!server.reload(&format!("{bad}{good}")), "{bad}");
        let log = server.log();
        let last = log.lines().rfind(|line| line.contains("the former one stays")).unwrap_or_else(|| panic!("{log}"));
        let told = format!("{path}{told}");
        assert!(last.contains("\"ERROR\"") && last.replace("\\\"", "\"").contains(&told), "{last}\n{told}");
        let answer = client.ask(&format!(r#"{{"type":"subscribe","data":{{"room":"{number}"}}}}"#));
        assert!(answer.contains("\"subscribed\""), "{answer}");
        RawClient::in_room(&server, "b");
    }
    std::fs::remove_file(server.config_path()).unwrap();
    server.signal(Signal::HUP);
    wait_until("the missing file is told", || server.log().contains("cannot read the config file"));
    assert!(server.reload(&good));
    let answer = client.ask(r#"{"type":"subscribe","data":{"room":"c"}}"#);
    assert!(answer.contains("\"moved in\""), "{answer}");
}

fn what_needs_a_restart_is_named_and_the_rest_holds(cores: usize) {
    // Where clients, publishers and operators connect is said by flags here, which hold over every file; so does the
    // number of cores.
    let server = Server::start(OPEN, cores);
    let mut client = RawClient::in_room(&server, "a");
    let moved = open_with("path = \"/raw\"", "path = \"/ws\"");
    let renamed = moved.replace(r#"event = "subscribed", data"#, r#"event = "moved in", data"#);
    let file = format!(
        "[server]\nlisten = \"127.0.0.1:1\"\ncores = 7\n[ingest]\nunix = \"p.sock\"\nline_bytes_max = 2000\n\
         [ops]\nservice = \"other\"\n[mesh]\nring_slots = 16\n[log]\nformat = \"human\"\nlevel = \"debug\"\n{renamed}\n\
         [[endpoint]]\nkind = \"websocket-echo\"\n"
    );
    assert!(server.reload(&file));
    let named: Vec<String> = server
        .log()
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|line| {
            line["level"] == "WARN" && line["message"].as_str().is_some_and(|m| m.contains("needs a restart"))
        })
        .map(|line| line["key"].as_str().unwrap().to_owned())
        .collect();
    let expected = [
        "ingest.unix",
        "ingest.line_bytes_max",
        "ops.service",
        "mesh.ring_slots",
        "log.format",
        "endpoint[1].path",
        "endpoint[2] (it is new)",
    ];
    assert_eq!(named, expected);
    assert_eq!(server.metric("roomcast_config_restart_keys"), expected.len() as f64);
    let answer = client.ask(r#"{"type":"subscribe","data":{"room":"b"}}"#);
    assert!(answer.contains("\"moved in\""), "{answer}");
    let _another = RawClient::connect_to(&server, "/ws");
    assert_eq!(Http::connect(server.listen).ask(get("/raw")).status, 404);
    // As long as the file says so.
    assert!(server.reload(OPEN));
    assert_eq!(server.metric("roomcast_config_restart_keys"), 0.0);
    nobody_was_dropped(&server, 2);
}

fn nobody_misses_anything_meanwhile(cores: usize) {
    const EVENTS_MIN: usize = 2_000;
    const RELOADS: usize = 25;
    let server = Server::start(OPEN, cores);
    let mut clients: Vec<RawClient> = (0..4).map(|_| RawClient::in_room(&server, "a")).collect();
    let mut publisher = Publisher::connect(&server);
    let more = format!("{OPEN}\n[[namespace]]\nname = \"/more\"\n[[namespace.on]]\nevent = \"x\"\n");
    let done = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let publishing = scope.spawn(|| {
            let mut sent = 0;
            while sent < EVENTS_MIN || !done.load(Ordering::SeqCst) {
                let receipt = publisher.ask(&format!(r#"{{"id":{sent},"room":"a","event":"n","data":{sent}}}"#));
                assert_eq!(receipt["offset"], sent + 1);
                sent += 1;
            }
            sent
        });
        for round in 0..RELOADS {
            assert!(server.reload([OPEN, &more, "[limits]\nrooms_per_socket_max = 0"][round % 3]) == (round % 3 < 2));
        }
        done.store(true, Ordering::SeqCst);
        publishing.join().unwrap()
    });
    for client in &mut clients {
        for n in 0..sent {
            assert_eq!(client.next(), format!(r#"{{"type":"n","data":{n}}}"#));
        }
    }
    nobody_was_dropped(&server, 4);
}

#[test]
fn without_a_file_there_is_nothing_to_reload() {
    let server = Server::setup("", 1).without_file().start();
    server.signal(Signal::HUP);
    wait_until("the log tells", || server.log().contains("there is nothing to reload"));
    assert_eq!(server.metric("roomcast_config_reloads_total"), 0.0);
    RawClient::in_room(&server, "a");
}
