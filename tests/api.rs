//! The operators' HTTP API: what it does, for whom, and that `openapi.json` says exactly that. The aliases answer in
//! the shapes of the system that has them.

mod common;

use common::{LIMIT, OPEN, Publisher, RawClient, Response, Server, Signal, TempDir, http, read_response, wait_until};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

on_one_and_two_cores!(
    events_and_operations_take_effect,
    the_rooms_that_get_most_are_named,
    the_description_is_true,
    requests_come_in_any_form,
    the_token_guards_the_api,
    aliases_have_the_shapes_of_their_system,
);

const TOKEN: &str = "operators-0123456789";

fn request(server: &Server, method: &str, path: &str, headers: &str, body: &str) -> Response {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n{length}{headers}\r\n", server.admin);
    http(server.admin, &(head + body))
}

fn get(server: &Server, path: &str) -> (u16, Value) {
    parsed(&request(server, "GET", path, "", ""))
}

fn post(server: &Server, path: &str, body: &str) -> (u16, Value) {
    parsed(&request(server, "POST", path, "Content-Type: application/json\r\n", body))
}

fn parsed(response: &Response) -> (u16, Value) {
    let body = serde_json::from_str(&response.body);
    (response.status, body.unwrap_or_else(|error| panic!("{error}: {response:?}")))
}

fn events_and_operations_take_effect(cores: usize) {
    let server = Server::start(OPEN, cores);
    let mut client = RawClient::in_room(&server, "a b/ü");
    let event = "{\n \"room\": \"a b/ü\",\r\n \"event\": \"x\",\n \"data\": {\"n\": 12345678901234567890.0}\n}";
    assert_eq!(post(&server, "/api/emit", event), (200, json!({"ok": true, "offset": 1})));
    assert_eq!(client.next(), r#"{"type":"x","data":{"n": 12345678901234567890.0}}"#);
    let (status, answer) = post(
        &server,
        "/api/emit",
        r#"[{"room":"a b/ü","event":"y","id":"first"},{"room":"a b/ü"},{"rooms":["a b/ü","c"],"event":"z"}]"#,
    );
    assert_eq!((status, &answer["ok"]), (200, &json!(false)));
    let results = answer["results"].as_array().unwrap();
    assert_eq!(results[0], json!({"id": "first", "ok": true, "offset": 2}));
    assert_eq!((results[1]["ok"].as_bool(), results[1].get("line")), (Some(false), None));
    assert_eq!(results[2], json!({"ok": true, "offsets": {"a b/ü": 3, "c": 1}}));
    assert_eq!((client.next(), client.next()), (r#"{"type":"y"}"#.into(), r#"{"type":"z"}"#.into()));

    let (status, room) = get(&server, "/api/rooms/a%20b/%C3%BC");
    assert_eq!((status, &room["room"]["members"], &room["room"]["offset"]), (200, &json!(1), &json!(3)));
    let join = r#"{"where":{"room":"a b/ü"},"rooms":["vip"]}"#;
    assert_eq!(post(&server, "/api/join", join), (200, json!({"ok": true, "sockets": 1})));
    let (_, rooms) = get(&server, "/api/rooms");
    let names: Vec<_> = rooms["rooms"].as_array().unwrap().iter().map(|r| (&r["name"], &r["members"])).collect();
    assert_eq!(names, [(&json!("a b/ü"), &json!(1)), (&json!("c"), &json!(0)), (&json!("vip"), &json!(1))]);
    let (_, page) = get(&server, "/api/rooms?limit=1&after=a+b%2F%C3%BC");
    assert_eq!((&page["rooms"][0]["name"], &page["next"]), (&json!("c"), &json!("c")));
    let sid: Value = serde_json::from_str(&client.ask(r#"{"type":"who"}"#)).unwrap();
    let sid = sid["data"]["sid"].as_str().unwrap();
    let (_, socket) = get(&server, &format!("/api/sockets/{sid}"));
    assert_eq!(socket["socket"]["rooms"], json!(["a b/ü", "vip"]));
    let leave = r#"{"op":"leave","where":{"room":"vip"},"room":"vip","id":7}"#;
    assert_eq!(post(&server, "/api/leave", leave), (200, json!({"id": 7, "ok": true, "sockets": 1})));
    let (_, stats) = get(&server, "/api/stats");
    assert_eq!((&stats["stats"]["ns_sockets"], &stats["stats"]["publishers"]), (&json!(1), &json!(0)));
    assert_eq!(post(&server, "/api/disconnect", r#"{"where":{"all":true}}"#).1["sockets"], 1);
    assert_eq!(client.closed().0, 1000);
    wait_until("the room is empty", || get(&server, "/api/rooms/vip").1["room"]["members"] == 0);
    assert_eq!(get(&server, "/api/rooms/nobody").0, 404);
    server.await_metric("roomcast_operator_requests_total", &[("status", "404")], 1.0);
}

fn the_rooms_that_get_most_are_named(cores: usize) {
    let event = r#"{"type":"x","data":"0123456789"}"#;
    let frame = event.len() + 2;
    let room = |room: Value, count: usize| json!({"ns": "/", "room": room, "count": count, "error": 0});
    let all = [room("a".into(), 40), room("b".into(), 25), room(Value::Null, 5)];
    let by_bytes = [room("a".into(), 40 * frame), room("b".into(), 25 * frame)];
    // (question, answer)
    let questions = [
        ("", "deliveries", &all[..]),
        ("?limit=1", "deliveries", &all[..1]),
        ("?by=bytes&limit=2", "bytes", &by_bytes[..]),
        ("?by=lag", "lag", &[]),
    ];
    // Should it take longer than that, the first events may be forgotten before all is asked.
    let window = Duration::from_secs(8);
    let answers = loop {
        let server = Server::start(OPEN, cores);
        let mut clients: Vec<RawClient> =
            ["a", "a", "a", "a", "b"].map(|room| RawClient::in_room(&server, room)).into();
        let (mut publisher, began) = (Publisher::connect(&server), Instant::now());
        for (room, events) in [("a", 10), ("b", 25), ("nobody", 99)] {
            let line = format!(r#"{{"room":"{room}","event":"x","data":"0123456789"}}"#);
            (0..events).for_each(|_| publisher.line(&line));
        }
        publisher.line(r#"{"event":"all"}"#);
        for (index, client) in clients.iter_mut().enumerate() {
            // The namespace is a room of its own, whose events come in any order to those of others.
            let events = if index < 4 { 11 } else { 26 };
            let got: Vec<String> = (0..events).map(|_| client.next()).collect();
            assert_eq!(got.iter().filter(|text| *text == event).count(), events - 1, "{got:?}");
        }
        let answers = questions.map(|(query, ..)| get(&server, &format!("/api/top{query}")));
        if began.elapsed() < window {
            break answers;
        }
    };
    for ((query, by, expected), (status, mut answer)) in questions.into_iter().zip(answers) {
        assert_eq!((status, &answer["ok"], &answer["by"]), (200, &json!(true), &json!(by)), "{query}");
        let seconds = answer["seconds"].as_f64().unwrap();
        for room in answer["rooms"].as_array_mut().unwrap() {
            let rate = room.as_object_mut().unwrap().remove("per_second").unwrap().as_f64().unwrap();
            let count = room["count"].as_f64().unwrap();
            assert!((rate - count / seconds).abs() < 0.1 + rate / 100.0, "{rate} a second, {count} in {seconds} s");
        }
        assert_eq!(answer["rooms"].as_array().unwrap(), expected, "{query}");
    }
    // A client that reads nothing is cut; until then, and with that, its rooms lag.
    let small = Server::start(&format!("[limits]\noutbox_bytes_max = 20_000\n{OPEN}"), cores);
    let (_stuck, mut publisher) = (RawClient::in_room(&small, "slow"), Publisher::connect(&small));
    let line = format!(r#"{{"room":"slow","event":"x","data":"{}"}}"#, "x".repeat(10_000));
    wait_until("the client is cut", || {
        (0..50).for_each(|_| publisher.line(&line));
        small.metric_where("roomcast_limit_refusals_total", &[("limit", "outbox_bytes_max")]) == 1.0
    });
    let (_, answer) = get(&small, "/api/top?by=lag");
    assert_eq!(answer["rooms"][0]["room"], "slow", "{answer}");
    assert!(answer["rooms"][0]["count"].as_u64().unwrap() >= 10_000, "{answer}");
}

/// `openapi.json` and what of it has been seen.
struct Description {
    document: Value,
    seen: RefCell<BTreeSet<(String, String, String)>>,
}

impl Description {
    fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(pointer) => self.document.pointer(pointer.trim_start_matches('#')).expect(pointer),
            None => value,
        }
    }

    /// The response must be one that the description has, and of its shape.
    #[track_caller]
    fn check(&self, method: &str, template: &str, response: &Response) {
        let (method, status) = (method.to_lowercase(), response.status.to_string());
        let described = &self.document["paths"][template][&method]["responses"][&status];
        assert!(!described.is_null(), "{method} {template} answers {response:?}");
        let described = self.resolve(described);
        let content = described["content"].as_object().unwrap();
        let (kind, content) = content.iter().next().unwrap();
        assert!(response.head.contains(&format!("Content-Type: {kind}")), "{response:?}");
        for header in described["headers"].as_object().into_iter().flat_map(|headers| headers.keys()) {
            assert!(response.head.contains(&format!("{header}: ")), "{response:?}");
        }
        let value = match kind.as_str() {
            "application/json" => serde_json::from_str(&response.body).unwrap(),
            _ => Value::String(response.body.clone()),
        };
        if let Err(error) = self.validate(&content["schema"], &value) {
            panic!("{method} {template} {status}: {error} in {value}");
        }
        self.seen.borrow_mut().insert((method, template.to_owned(), status));
    }

    /// As much of JSON Schema as the description uses; other keywords fail.
    fn validate(&self, schema: &Value, value: &Value) -> Result<(), String> {
        let schema = self.resolve(schema).as_object().ok_or("no schema")?;
        for (keyword, rule) in schema {
            let holds = match keyword.as_str() {
                "description" | "default" => true,
                "type" => {
                    let names = rule.as_array().cloned().unwrap_or_else(|| vec![rule.clone()]);
                    names.iter().any(|name| has_type(name.as_str().unwrap(), value))
                }
                "const" => rule == value,
                "enum" => rule.as_array().unwrap().contains(value),
                "minimum" => value.as_f64().is_none_or(|number| number >= rule.as_f64().unwrap()),
                "items" => {
                    value.as_array().into_iter().flatten().try_for_each(|item| self.validate(rule, item))?;
                    true
                }
                "required" => rule.as_array().unwrap().iter().all(|key| value.get(key.as_str().unwrap()).is_some()),
                "properties" => {
                    for (key, schema) in rule.as_object().unwrap() {
                        if let Some(value) = value.get(key) {
                            self.validate(schema, value).map_err(|error| format!("{key}: {error}"))?;
                        }
                    }
                    true
                }
                "additionalProperties" => {
                    let known = schema.get("properties").and_then(Value::as_object);
                    let mut others = value.as_object().unwrap().iter();
                    others.all(|(key, value)| {
                        known.is_some_and(|known| known.contains_key(key))
                            || *rule != json!(false) && self.validate(rule, value).is_ok()
                    })
                }
                "oneOf" => {
                    let fitting = rule.as_array().unwrap().iter().filter(|one| self.validate(one, value).is_ok());
                    fitting.count() == 1
                }
                other => return Err(format!("this test does not know {other}")),
            };
            if !holds {
                return Err(format!("{keyword} {rule} does not hold"));
            }
        }
        Ok(())
    }
}

fn has_type(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        other => panic!("the type {other}"),
    }
}

fn the_description_is_true(cores: usize) {
    let folder = TempDir::new();
    let token_file = folder.path("api.token");
    fs::write(&token_file, TOKEN).unwrap();
    let limits = "[ingest]\nline_bytes_max = 2000\nack_timeout_ms_max = 3_600_000\n[server]\ndrain_ms_max = 3_600_000";
    let guarded_config = format!("[ops]\ntoken_file = \"{}\"\n{OPEN}", token_file.display());
    let (mut server, guarded) =
        (Server::start(&format!("{limits}\n{OPEN}"), cores), Server::start(&guarded_config, cores));
    let document: Value = serde_json::from_str(&request(&server, "GET", "/api/openapi.json", "", "").body).unwrap();
    let description = Description { document, seen: RefCell::default() };

    let mut client = RawClient::socket_io(&server);
    client.send(r#"420["subscribe",{"room":"a"}]"#);
    assert_eq!((client.next(), client.next()), (r#"42["subscribed",{"room":"a"}]"#.into(), r#"430["ok"]"#.into()));
    client.send(r#"42["who"]"#);
    let you: Value = serde_json::from_str(client.next().strip_prefix("42").unwrap()).unwrap();
    let sid = you[1]["sid"].as_str().unwrap();
    let json = "Content-Type: application/json\r\n";
    let large = format!("{{\"event\":\"e\",\"data\":\"{}\"}}", "x".repeat(8000));
    let join = r#"{"where":{"room":"a"},"room":"b"}"#;
    let own = format!("/api/sockets/{sid}");
    let requests: &[(&str, &str, &str, &str)] = &[
        ("POST", "/api/emit", "/api/emit", r#"{"room":"a","event":"e"}"#),
        ("POST", "/api/emit", "/api/emit", r#"{"rooms":["a","b"],"event":"e","id":"x"}"#),
        ("POST", "/api/emit", "/api/emit", r#"{"event":"e","ack":{"timeout_ms":1}}"#),
        ("POST", "/api/emit", "/api/emit", r#"[{"event":"e"},{"event":7,"id":-1},{}]"#),
        ("POST", "/api/emit", "/api/emit", "{}"),
        ("POST", "/api/emit", "/api/emit", "{"),
        ("POST", "/api/emit", "/api/emit", &large),
        ("POST", "/api/join", "/api/join", join),
        ("POST", "/api/join", "/api/join", "{}"),
        ("POST", "/api/join", "/api/join", &large),
        ("POST", "/api/leave", "/api/leave", join),
        ("POST", "/api/leave", "/api/leave", "[]"),
        ("POST", "/api/leave", "/api/leave", &large),
        ("POST", "/api/disconnect", "/api/disconnect", r#"{"where":{"room":"nobody"},"close":true}"#),
        ("POST", "/api/disconnect", "/api/disconnect", "{}"),
        ("POST", "/api/disconnect", "/api/disconnect", &large),
        ("GET", "/api/stats", "/api/stats", ""),
        ("GET", "/api/stats", "/api/stats?ns=seats", ""),
        ("GET", "/api/rooms", "/api/rooms", ""),
        ("GET", "/api/rooms", "/api/rooms?limit=0", ""),
        ("GET", "/api/rooms", "/api/rooms?page=2", ""),
        ("GET", "/api/rooms/{room}", "/api/rooms/a", ""),
        ("GET", "/api/rooms/{room}", "/api/rooms/a?ns=/nowhere", ""),
        ("GET", "/api/rooms/{room}", "/api/rooms/nobody", ""),
        ("GET", "/api/sockets/{sid}", &own, ""),
        ("GET", "/api/sockets/{sid}", "/api/sockets/x?ns=/nowhere", ""),
        ("GET", "/api/sockets/{sid}", "/api/sockets/x", ""),
        ("GET", "/api/top", "/api/top", ""),
        ("GET", "/api/top", "/api/top?by=lag&limit=100", ""),
        ("GET", "/api/top", "/api/top?by=size", ""),
        ("GET", "/api/openapi.json", "/api/openapi.json", ""),
        ("GET", "/health", "/health", ""),
        ("GET", "/health/live", "/health/live", ""),
        ("GET", "/health/ready", "/health/ready", ""),
        ("GET", "/metrics", "/metrics", ""),
    ];
    for (method, template, path, body) in requests {
        description.check(method, template, &request(&server, method, path, json, body));
        let wrong = request(&server, if *method == "GET" { "POST" } else { "GET" }, path, json, "");
        assert_eq!(wrong.status, 405, "{path}");
        assert!(wrong.head.contains(if *method == "GET" { "Allow: GET, HEAD\r\n" } else { "Allow: POST\r\n" }));
        if path.starts_with("/api/") {
            let page = format!("{json}Origin: http://{}\r\n", server.admin);
            description.check(method, template, &request(&server, method, path, &page, body));
            description.check(method, template, &request(&guarded, method, path, json, body));
        }
    }
    for path in ["/index.html", "/api", "/api/", "/api/rooms/", "/api/emit/x", "/healthy"] {
        assert_eq!(request(&server, "GET", path, "", "").status, 404, "{path}");
    }

    // A line that waits for an acknowledgement holds up the drain for minutes.
    let mut publisher = Publisher::connect(&server);
    publisher.line(r#"{"room":"a","event":"wait","id":1,"ack":{"timeout_ms":3600000}}"#);
    server.await_metric("roomcast_asks_open", &[], 1.0);
    server.signal(Signal::TERM);
    wait_until("it drains", || get(&server, "/health").0 == 503);
    wait_until("the cores have closed the API's connection", || get(&server, "/api/stats").0 == 503);
    for (method, template, path, body) in requests {
        let response = request(&server, method, path, json, body);
        match response.status {
            503 => description.check(method, template, &response),
            // What can be answered without the cores is.
            200 | 400 | 413 => {}
            other => panic!("{method} {path} answers {other}"),
        }
    }
    server.signal(Signal::TERM);
    server.wait();

    let all: BTreeSet<_> = description.document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| methods.as_object().unwrap().iter().map(move |(method, rest)| (path, method, rest)))
        .flat_map(|(path, method, rest)| {
            let statuses = rest["responses"].as_object().unwrap().keys();
            statuses.map(move |status| (method.clone(), path.clone(), status.clone()))
        })
        .collect();
    let seen = description.seen.into_inner();
    assert_eq!(all.difference(&seen).collect::<Vec<_>>(), Vec::<&_>::new(), "described and never seen");
}

fn requests_come_in_any_form(cores: usize) {
    let server = Server::start(&format!("[ingest]\nline_bytes_max = 2000\n{OPEN}"), cores);
    let mut stream = TcpStream::connect(server.admin).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let head = |method: &str, path: &str, more: &str| {
        format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{more}\r\n")
    };
    // Several on one connection, the bodies counted or in chunks, byte by byte.
    let chunked = head("POST", "/api/emit", "Transfer-Encoding: chunked\r\n")
        + "d\r\n{\"room\":\"a\",\"\r\n9\r\nevent\":\"e\r\n2;x=y\r\n\"}\r\n0\r\nTrailer: x\r\n\r\n";
    let counted = head("POST", "/api/emit", "Content-Length: 24\r\n") + "{\"room\":\"a\",\"event\":\"e\"}";
    for byte in format!("{chunked}{counted}").bytes() {
        stream.write_all(&[byte]).unwrap();
    }
    stream.write_all((chunked.clone() + &counted + &head("GET", "/api/rooms/a", "")).as_bytes()).unwrap();
    for offset in 1..=4 {
        let response = read_response(&mut reader).unwrap();
        assert_eq!((response.status, response.body), (200, format!("{{\"ok\":true,\"offset\":{offset}}}")));
    }
    assert!(read_response(&mut reader).unwrap().body.contains("\"offset\":4"));
    // A client that waits before it sends the body.
    stream.write_all(head("POST", "/api/emit", "Expect: 100-continue\r\nContent-Length: 24\r\n").as_bytes()).unwrap();
    let mut interim = [0; 25];
    reader.read_exact(&mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"{\"room\":\"a\",\"event\":\"e\"}").unwrap();
    assert!(read_response(&mut reader).unwrap().body.contains("\"offset\":5"));

    // What is refused before its body is read ends the connection, and nothing in the body is taken for a request.
    let smuggled = head("GET", "/api/openapi.json", "");
    for (request, status) in [
        (head("POST", "/api/emit", "Content-Length: 100000\r\n"), 413),
        (head("POST", "/api/emit", "Transfer-Encoding: chunked\r\n") + "ffffff\r\n", 413),
        (head("POST", "/api/emit", "Transfer-Encoding: chunked\r\n") + "x\r\n", 400),
        (head("POST", "/api/nothing", &format!("Content-Length: {}\r\n", smuggled.len())) + &smuggled, 404),
        (head("GET", "/api/stats", &format!("Content-Length: {}\r\n", smuggled.len())) + &smuggled, 413),
        (head("POST", "/api/emit", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n", 400),
        (head("POST", "/api/emit", "Content-Length: 5\r\nContent-Length: 6\r\n"), 400),
    ] {
        let mut stream = TcpStream::connect(server.admin).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut reader = BufReader::new(stream);
        let response = read_response(&mut reader).unwrap();
        assert_eq!(response.status, status, "{request}");
        assert!(response.head.contains("Connection: close\r\n"), "{response:?}");
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty(), "{request}");
    }
    // An answer to a large body that is not taken arrives in spite of it.
    let huge = head("POST", "/api/emit", "Content-Length: 4000000\r\n") + &"x".repeat(4_000_000);
    assert_eq!(http(server.admin, &huge).status, 413);
    let whole = http(server.admin, &head("HEAD", "/api/stats", ""));
    assert_eq!((whole.status, whole.body.as_str()), (200, ""));
    // Many at once: each has its own receipt.
    let threads: Vec<_> = (0..8)
        .map(|thread| {
            let address = server.admin;
            std::thread::spawn(move || {
                for n in 1..=20 {
                    let body = format!("{{\"room\":\"t{thread}\",\"event\":\"e\",\"id\":{n}}}");
                    let head = format!(
                        "POST /api/emit HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                         Content-Length: {}\r\n\r\n",
                        body.len()
                    );
                    let response = http(address, &(head + &body));
                    assert_eq!(response.body, format!("{{\"id\":{n},\"ok\":true,\"offset\":{n}}}"));
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

fn the_token_guards_the_api(cores: usize) {
    let folder = TempDir::new();
    let token_file = folder.path("api.token");
    fs::write(&token_file, format!("{TOKEN}\n")).unwrap();
    let alias = "[[ops.alias]]\npath = \"/event\"\nkind = \"socket-event\"\n";
    let server = Server::start(&format!("[ops]\ntoken_file = \"{}\"\n{alias}{OPEN}", token_file.display()), cores);
    let event = r#"{"room":"a","event":"e"}"#;
    for (authorization, status) in [
        ("", 401),
        ("Authorization: Bearer operators-0123456780\r\n", 401),
        ("Authorization: Basic operators-0123456789\r\n", 401),
        ("Authorization: Bearer operators-0123456789\r\n", 200),
        // Whoever has the token may be a page.
        ("Authorization: Bearer operators-0123456789\r\nOrigin: https://a.example\r\n", 200),
    ] {
        for path in ["/api/emit", "/event"] {
            let response = request(&server, "POST", path, authorization, event);
            assert_eq!(response.status, status, "{path} {authorization}");
            assert_eq!(response.head.contains("WWW-Authenticate: Bearer realm=\"roomcast\""), status == 401);
        }
    }
    let (_, stats) = parsed(&request(&server, "GET", "/api/stats", &format!("Authorization: Bearer {TOKEN}\r\n"), ""));
    assert_eq!(stats["stats"]["events"], 4, "nothing came of the others");
    assert_eq!(get(&server, "/health").0, 200, "health is for everybody");
    assert!(!server.log().contains(TOKEN) && !server.admin_get("/metrics").contains(TOKEN));
}

fn aliases_have_the_shapes_of_their_system(cores: usize) {
    let aliases = r#"
        [ops]
        service = "library \"seats\""
        [[ops.alias]]
        path = "/api/v1/socket-event"
        kind = "socket-event"
        [[ops.alias]]
        path = "/api/v1/socket-stats"
        kind = "socket-stats"
        [[ops.alias]]
        path = "/health"
        kind = "health"
        [[ops.alias]]
        path = "/api/v1/staff-event"
        kind = "socket-event"
        namespace = "/staff"
        [[namespace]]
        name = "/staff"
    "#;
    let server = Server::start(&format!("{aliases}{OPEN}"), cores);
    let mut member = RawClient::in_room(&server, "library:7");
    let mut other = RawClient::in_room(&server, "library:8");
    /// Takes the time out, which must be one.
    fn timeless((status, mut answer): (u16, Value)) -> (u16, Value) {
        let data = answer["data"].as_object_mut().unwrap_or_else(|| panic!("{status}"));
        let time = data.remove("timestamp").expect("a timestamp");
        let shape: String = time.as_str().unwrap().chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(shape, "0000-00-00T00:00:00.000Z");
        (status, answer)
    }
    let event = |body: &str| timeless(post(&server, "/api/v1/socket-event", body));
    let data = json!({"message": "Event emitted", "event": "booking:created", "room": "library:7"});
    assert_eq!(
        event(r#"{"event":"booking:created","data":{"id":1.0},"room":"library:7","source":"billing"}"#),
        (200, json!({"success": true, "data": data}))
    );
    assert_eq!(member.next(), r#"{"type":"booking:created","data":{"id":1.0}}"#);
    // (body, what the answer says about the room, what both get)
    for (body, room, heard) in [
        (r#"{"event":"notification","data":[1]}"#, json!({}), r#"{"type":"notification","data":[1]}"#),
        (r#"{"event":"n","data":2,"room":null}"#, json!({"room": null}), r#"{"type":"n","data":2}"#),
        (r#"{"event":"n"}"#, json!({}), r#"{"type":"n","data":null}"#),
    ] {
        let (status, answer) = event(body);
        let mut data = room;
        data["message"] = "Event emitted".into();
        data["event"] = answer["data"]["event"].clone();
        assert_eq!((status, answer), (200, json!({"success": true, "data": data})));
        assert_eq!((member.next().as_str(), other.next().as_str()), (heard, heard));
    }
    assert_eq!(timeless(post(&server, "/api/v1/staff-event", r#"{"event":"n"}"#)).0, 200);

    let stats = timeless(get(&server, "/api/v1/socket-stats"));
    let data = json!({"totalConnections": 2, "activeRooms": ["library:7", "library:8"]});
    assert_eq!(stats, (200, json!({"success": true, "data": data})));
    let health = json!({"status": "healthy", "service": "library \"seats\"", "websocket": "enabled"});
    assert_eq!(timeless(get(&server, "/health")), (200, json!({"success": true, "data": health})));
    assert_eq!(get(&server, "/health/ready"), (200, json!({"status": "ready"})));

    for (method, path, headers, body, status) in [
        ("POST", "/api/v1/socket-event", "Content-Type: application/json\r\n", r#"{"room":"a"}"#, 400),
        ("POST", "/api/v1/socket-event", "Content-Type: application/json\r\n", r#"{"event":7}"#, 400),
        ("POST", "/api/v1/socket-event", "Content-Type: application/json\r\n", r#"{"event":"e","room":7}"#, 400),
        ("POST", "/api/v1/socket-event", "Content-Type: application/json\r\n", "[]", 400),
        ("POST", "/api/v1/socket-event", "Content-Type: application/json\r\n", "x", 400),
        ("POST", "/api/v1/socket-event", "Content-Type: text/plain\r\n", r#"{"event":"e"}"#, 403),
        ("GET", "/api/v1/socket-event", "", "", 405),
        ("POST", "/api/v1/socket-stats", "Content-Type: application/json\r\n", "", 405),
        ("GET", "/api/v1/socket-stats", "Origin: https://a.example\r\n", "", 403),
    ] {
        let (is, answer) = parsed(&request(&server, method, path, headers, body));
        assert_eq!((is, &answer["success"]), (status, &json!(false)), "{method} {path} {body}");
        assert!(answer["error"].as_str().is_some_and(|error| !error.is_empty()) && answer.get("ok").is_none());
    }
    drop((member, other));
    wait_until("no room is active", || get(&server, "/api/v1/socket-stats").1["data"]["activeRooms"] == json!([]));
}
