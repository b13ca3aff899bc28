//! What operators see: metrics that a Prometheus can read and that say exactly what happened, health, and good
//! manners of HTTP.

mod common;

use common::{OPEN, Publisher, RawClient, Sample, Server, http, wait_until};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{BufReader, Read, Write};
use std::net::TcpStream;

on_one_and_two_cores!(
    metrics_are_valid_prometheus_text,
    counters_say_what_happened,
    distributions_say_how_it_happened,
    refusals_are_counted_by_limit,
    health_and_http,
    who_says_nothing_keeps_no_scraper_out,
);

/// Checks text exposition format 0.0.4 (prometheus.io, "Exposition formats").
fn check(text: &str) {
    let is_name = |name: &str| {
        let mut chars = name.chars();
        chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
            && chars.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
    };
    assert!(text.ends_with('\n'), "the last line must end");
    let mut types: HashMap<&str, &str> = HashMap::new();
    let mut helped: HashSet<&str> = HashSet::new();
    let mut series: HashSet<&str> = HashSet::new();
    // The families that are complete: one family's lines stand together.
    let mut finished: HashSet<&str> = HashSet::new();
    let mut current = "";
    // Of each histogram, by its labels besides `le`: the last bucket's bound and count, and the count of all.
    let mut buckets: BTreeMap<(&str, String), (f64, f64)> = BTreeMap::new();
    let mut counts: BTreeMap<(&str, String), f64> = BTreeMap::new();
    let mut sums: HashSet<(&str, String)> = HashSet::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let family = if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (keyword, name, rest) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap_or(""));
            assert!(is_name(name), "{line}");
            match keyword {
                "HELP" => {
                    assert!(!rest.is_empty() && helped.insert(name), "{line}");
                }
                "TYPE" => {
                    assert!(matches!(rest, "counter" | "gauge" | "histogram"), "{line}");
                    assert!(types.insert(name, rest).is_none(), "two types: {line}");
                }
                _ => panic!("an unknown comment: {line}"),
            }
            name
        } else {
            let (key, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
            let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
            assert!(series.insert(key), "twice: {line}");
            let (name, labels) = match key.split_once('{') {
                None => (key, ""),
                Some((name, labels)) => (name, labels.strip_suffix('}').unwrap_or_else(|| panic!("{line}"))),
            };
            assert!(is_name(name), "{line}");
            let mut rest = labels;
            let (mut bound, mut others) = (None, String::new());
            while !rest.is_empty() {
                let (label, quoted) = rest.split_once("=\"").unwrap_or_else(|| panic!("labels: {line}"));
                assert!(is_name(label) && !label.contains(':'), "{line}");
                let end = quoted.find('"').unwrap_or_else(|| panic!("labels: {line}"));
                assert!(!quoted[..end].contains(['\\', '\n']), "no label of ours needs escapes: {line}");
                if label == "le" {
                    let le = quoted[..end].replace("+Inf", "inf").parse::<f64>();
                    assert!(bound.replace(le.unwrap_or_else(|_| panic!("no bound: {line}"))).is_none(), "{line}");
                } else {
                    others += &format!("{label}={},", &quoted[..end]);
                }
                rest = &quoted[end + 1..];
                if !rest.is_empty() {
                    rest = rest.strip_prefix(',').unwrap_or_else(|| panic!("labels: {line}"));
                }
            }
            let is_histogram = |family: &&str| types.get(family) == Some(&"histogram");
            let part = ["_bucket", "_sum", "_count"]
                .into_iter()
                .find_map(|end| Some((name.strip_suffix(end).filter(is_histogram)?, end)));
            let (family, kind) = match part {
                Some((family, _)) => (family, "histogram"),
                None => (name, *types.get(name).unwrap_or_else(|| panic!("a sample before its type: {line}"))),
            };
            assert!(helped.contains(family), "no help: {line}");
            assert_eq!(bound.is_some(), part.is_some_and(|(_, end)| end == "_bucket"), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(kind == "gauge" || value >= 0.0, "{line}");
            let of = (family, others);
            match (part, bound) {
                (Some(_), Some(bound)) => {
                    assert!(!counts.contains_key(&of), "a bucket behind its histogram: {line}");
                    let (last, below) = buckets.insert(of, (bound, value)).unwrap_or((f64::NEG_INFINITY, 0.0));
                    assert!(bound > last && value >= below && value.fract() == 0.0, "buckets add up, in order: {line}");
                }
                (Some((_, "_count")), _) => assert!(counts.insert(of, value).is_none(), "{line}"),
                (Some(_), _) => assert!(sums.insert(of), "{line}"),
                (None, _) => assert_ne!(kind, "histogram", "a histogram has buckets, a sum and a count: {line}"),
            }
            family
        };
        if family != current {
            assert!(finished.insert(current), "{family} is in two places");
            assert!(!finished.contains(family), "{family} is in two places");
            current = family;
        }
    }
    assert!(series.len() > 20, "{text}");
    for (of, (bound, value)) in &buckets {
        assert!(bound.is_infinite() && counts.get(of) == Some(value) && sums.contains(of), "{of:?} has no end");
    }
    assert!(!buckets.is_empty() && buckets.len() == counts.len() && counts.len() == sums.len());
}

fn metrics_are_valid_prometheus_text(cores: usize) {
    let server = Server::start(OPEN, cores);
    check(&server.admin_get("/metrics"));
    // With reasons, too.
    drop(RawClient::in_room(&server, "a"));
    assert_eq!(http(server.listen, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").status, 404);
    Publisher::connect(&server).ask("bad");
    server.await_metric("roomcast_closes_total", &[], 1.0);
    server.await_metric("roomcast_http_refused_total", &[], 1.0);
    server.await_metric("roomcast_ingest_errors_total", &[], 1.0);
    check(&server.admin_get("/metrics"));

    let samples = server.samples();
    let cores_of = |name: &str| -> HashSet<&str> {
        let of = samples.iter().filter(|sample| sample.name == name);
        of.map(|sample| sample.labels["core"].as_str()).collect()
    };
    let expected: Vec<String> = (0..cores).map(|core| core.to_string()).collect();
    let expected: HashSet<&str> = expected.iter().map(String::as_str).collect();
    for name in ["roomcast_connections", "roomcast_deliveries_total", "roomcast_turns_total"] {
        assert_eq!(cores_of(name), expected, "{name}");
    }
    let one = |name: &str| samples.iter().find(|sample: &&Sample| sample.name == name).unwrap();
    assert_eq!(one("roomcast_info").labels["version"], env!("CARGO_PKG_VERSION"));
    assert!(one("process_resident_memory_bytes").value > 1e6);
    assert!(one("process_open_fds").value > 5.0);
}

fn counters_say_what_happened(cores: usize) {
    let config = format!("{OPEN}\n[[endpoint]]\nkind = \"raw\"\npath = \"/flat\"\nshape = \"flat\"\n");
    let server = Server::start(&config, cores);
    // Six members in two encodings, one more elsewhere in a third.
    let mut raw: Vec<RawClient> = (0..4).map(|_| RawClient::in_room(&server, "a")).collect();
    let mut socket_io: Vec<RawClient> = (0..2)
        .map(|_| {
            let mut client = RawClient::socket_io(&server);
            client.send(r#"420["subscribe",{"room":"a"}]"#);
            assert_eq!(
                (client.next(), client.next()),
                (r#"42["subscribed",{"room":"a"}]"#.into(), r#"430["ok"]"#.into())
            );
            client
        })
        .collect();
    let mut flat = RawClient::connect_to(&server, "/flat");
    assert_eq!(flat.ask(r#"{"type":"subscribe","data":{"room":"b"}}"#), r#"{"type":"subscribed","room":"b"}"#);

    let mut publisher = Publisher::connect(&server);
    const EVENTS: usize = 100;
    let line = |n: usize| format!("{{\"room\":\"a\",\"event\":\"x\",\"data\":{{\"n\":{n}}}}}\n");
    let lines: String = (0..EVENTS).map(line).collect();
    publisher.bytes(&lines);
    publisher.bytes("{\"room\":\"nobody is here\",\"event\":\"x\"}\n{\"room\":\"b\",\"event\":\"x\"}\nbad\n");
    assert_eq!(publisher.receipt()["line"], 103);
    for n in 0..EVENTS {
        for client in &mut raw {
            assert_eq!(client.next(), format!(r#"{{"type":"x","data":{{"n":{n}}}}}"#));
        }
        for client in &mut socket_io {
            assert_eq!(client.next(), format!(r#"42["x",{{"n":{n}}}]"#));
        }
    }
    assert_eq!(flat.next(), r#"{"type":"x"}"#);

    server.await_metric("roomcast_ingest_lines_total", &[], 103.0);
    server.await_metric("roomcast_events_total", &[], 102.0);
    server.await_metric("roomcast_deliveries_total", &[], 601.0);
    // One for each event and encoding in use, however many members and cores; none where nobody is.
    server.await_metric("roomcast_encodes_total", &[], 201.0);
    server.await_metric("roomcast_ingest_errors_total", &[("reason", "json")], 1.0);
    let received =
        lines.len() + "{\"room\":\"nobody is here\",\"event\":\"x\"}\n{\"room\":\"b\",\"event\":\"x\"}\nbad\n".len();
    server.await_metric("roomcast_ingest_received_bytes_total", &[], received as f64);
    server.await_metric("roomcast_connections", &[], 7.0);
    server.await_metric("roomcast_publishers", &[], 1.0);
    server.await_metric("roomcast_connections_accepted_total", &[], 8.0);
    server.await_metric("roomcast_sessions_raw", &[], 5.0);
    server.await_metric("roomcast_sessions_socket_io", &[], 2.0);
    server.await_metric("roomcast_sockets", &[], 7.0);
    server.await_metric("roomcast_outbox_bytes", &[], 0.0);
    server.await_metric("roomcast_panics_total", &[], 0.0);
    let joins = server.metric("roomcast_joins_total");
    assert!(joins >= 7.0, "{joins}");

    drop((raw, socket_io, flat, publisher));
    server.await_metric("roomcast_connections", &[], 0.0);
    server.await_metric("roomcast_publishers", &[], 0.0);
    server.await_metric("roomcast_sockets", &[], 0.0);
    server.await_metric("roomcast_leaves_total", &[], joins);
    server.await_metric("roomcast_rooms_attached", &[], 0.0);
}

fn distributions_say_how_it_happened(cores: usize) {
    let server = Server::start(OPEN, cores);
    let mut clients: Vec<RawClient> = (0..10).map(|_| RawClient::in_room(&server, "a")).collect();
    let mut publisher = Publisher::connect(&server);
    for n in 0..3 {
        // The first is timed, and the others mostly are: a receipt and ten clients take longer than a pause.
        assert_eq!(publisher.ask(r#"{"room":"a","event":"x","id":1}"#)["offset"], n + 1);
        clients.iter_mut().for_each(|client| assert_eq!(client.next(), r#"{"type":"x"}"#));
    }
    let stage = |stage: &str| server.metric_where("roomcast_stage_seconds_count", &[("stage", stage)]);
    wait_until("all stages are over", || {
        let [owner, member, socket, total] = ["owner", "member", "socket", "total"].map(stage);
        owner > 0.0 && member >= owner && socket == member && total == member
    });
    // A member core each.
    let (owner, member) = (stage("owner"), stage("member"));
    assert!(owner <= 3.0 && member <= owner * cores as f64, "{owner} {member}");
    let sum = |stage: &str| server.metric_where("roomcast_stage_seconds_sum", &[("stage", stage)]);
    assert!(sum("total") > 0.0 && sum("total") < 60.0 && sum("socket") <= sum("total"));
    let (sends, frames) = (server.metric("roomcast_sends_total"), server.metric("roomcast_sent_frames_total"));
    server.await_metric("roomcast_send_frames_sum", &[], frames);
    // The others answered handshakes.
    server.await_metric("roomcast_send_frames_count", &[], sends - clients.len() as f64);
    server.await_metric("roomcast_batch_sends_sum", &[], sends - clients.len() as f64);
    for name in ["roomcast_turn_seconds_sum", "roomcast_turn_seconds_count"] {
        assert!(server.metric(name) > 0.0, "{name}");
    }
    wait_until("messages were seen in the rings", || {
        publisher.line(r#"{"room":"nobody","event":"x"}"#);
        server.metric("roomcast_ring_messages_count") > 0.0
    });
    assert!(server.metric("roomcast_turn_seconds_count") <= server.metric("roomcast_turns_total"));
    check(&server.admin_get("/metrics"));
    let first = |core: &str| {
        let labels = [("core", core), ("rank", "1")];
        server.metric_where("roomcast_top_room_deliveries_per_second", &labels)
    };
    wait_until("the room is ranked on some core", || (0..cores).any(|core| first(&core.to_string()) > 0.0));
}

fn refusals_are_counted_by_limit(cores: usize) {
    let server = Server::start(&format!("[limits]\nroom_name_bytes_max = 20\nrooms_per_socket_max = 2\n{OPEN}"), cores);
    let refused = |limit: &str| server.metric_where("roomcast_limit_refusals_total", &[("limit", limit)]);
    let limits = ["room_name_bytes_max", "rooms_per_socket_max", "connections_per_ip_max", "outbox_bytes_max"];
    let samples = server.samples();
    for limit in limits {
        // Before anything is refused, so that the first refusal is an increase.
        let of = samples.iter().filter(|s| s.name == "roomcast_limit_refusals_total" && s.labels["limit"] == limit);
        assert_eq!(of.count(), cores, "{limit}");
    }
    let mut client = RawClient::connect(&server);
    for (room, ok) in
        [("a", true), ("b", true), ("c", false), ("a name that is too long", false), ("another one like that", false)]
    {
        let answer = client.ask(&format!(r#"{{"type":"subscribe","data":{{"room":"{room}"}}}}"#));
        assert_eq!(answer.contains("subscribed"), ok, "{answer}");
    }
    wait_until("the names are refused", || refused("room_name_bytes_max") == 2.0);
    assert_eq!((refused("rooms_per_socket_max"), refused("connections_per_ip_max")), (1.0, 0.0));
}

fn health_and_http(cores: usize) {
    let server = Server::start(OPEN, cores);
    let get = |request: &str| http(server.admin, request);
    let health = get("GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(health.status, 200);
    let body: serde_json::Value = serde_json::from_str(&health.body).unwrap();
    assert_eq!((&body["status"], &body["service"]), (&"healthy".into(), &"roomcast".into()), "{body}");
    assert_eq!(body["version"], env!("CARGO_PKG_VERSION"));
    assert!(health.head.contains("Content-Type: application/json\r\n"), "{}", health.head);
    let metrics = get("GET /metrics?x=y HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(metrics.head.contains("Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{}", metrics.head);
    for (request, status) in [
        ("GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        ("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 405),
        ("DELETE /health HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        ("HEAD /health HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        ("GET /health HTTP/1.1\r\n\r\n", 400),
        ("rubbish\r\n\r\n", 400),
    ] {
        let response = get(request);
        assert_eq!(response.status, status, "{request}{}", response.head);
        if status == 405 {
            assert!(response.head.contains("Allow: GET, HEAD\r\n"), "{}", response.head);
        }
    }
    // Three requests at once on one connection; `Connection: close` closes.
    let mut stream = TcpStream::connect(server.admin).unwrap();
    stream.set_read_timeout(Some(common::LIMIT)).unwrap();
    let request = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
    let last = "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(format!("{request}{request}{last}").as_bytes()).unwrap();
    let mut reader = BufReader::new(stream);
    for _ in 0..3 {
        assert_eq!(common::read_response(&mut reader).unwrap().status, 200);
    }
    assert!(common::read_response(&mut reader).is_err(), "the server closes after `Connection: close`");
}

fn who_says_nothing_keeps_no_scraper_out(cores: usize) {
    const PLACES: usize = 256;
    const SILENT: usize = 600;
    let server = Server::start(OPEN, cores);
    let mut silent: Vec<TcpStream> = Vec::new();
    for number in 0..SILENT {
        let mut stream = TcpStream::connect(server.admin).unwrap();
        if number % 2 == 0 {
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: ").unwrap();
        }
        silent.push(stream);
    }
    for path in ["/metrics", "/health/ready", "/api/stats"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
        assert_eq!(http(server.admin, &request).status, 200, "{path}");
    }
    // Those went that had been there for longest, and each of them is counted once.
    let closes = |reason| server.metric_where("roomcast_operator_closes_total", &[("reason", reason)]);
    let pushed = closes("pushed_out");
    assert!((SILENT - PLACES..SILENT - PLACES + 10).contains(&(pushed as usize)), "{pushed}");
    for stream in &mut silent[..SILENT - PLACES] {
        let end = stream.read(&mut [0]);
        assert!(end.as_ref().map_or(true, |bytes| *bytes == 0), "{end:?}");
    }
    let lines = server.log().matches("too many connections on the operators' port").count();
    assert!((1..=3).contains(&lines), "a flood of the log:\n{}", server.log());
    // The others do not stay for long either, with a part of a request or without.
    wait_until("all have gone", || closes("timeout") + closes("pushed_out") >= SILENT as f64);
    for stream in &mut silent {
        assert!(stream.read(&mut [0]).map_or(true, |bytes| bytes == 0));
    }
}
