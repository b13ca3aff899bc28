//! What a backend can rely on: every good line is delivered as it was sent and in its order, every line with an id is
//! answered in its order, and no neighbour, however broken, changes that.

mod common;

use common::{OPEN, Publisher, RawClient, Server, node, wait_until};
use serde_json::Value;
use std::io::Write;

on_one_and_two_cores!(
    a_publisher_that_dies_in_mid_line_costs_only_that_line,
    a_garbage_line_is_answered_and_its_neighbours_delivered,
    receipts_come_in_line_order_and_offsets_count_up,
    rooms_except_args_and_everyone,
    operations_take_effect_before_the_next_line,
    values_arrive_byte_for_byte,
    an_over_long_line_is_skipped,
    a_publisher_that_does_not_read_receipts_is_paused,
    a_half_closed_publisher_gets_its_receipts,
    line_endings_and_empty_lines,
    a_burst_of_100_000_lines,
    binary_arrives_as_buffers,
);

fn is_ok(receipt: &Value) -> bool {
    receipt["ok"] == true
}

fn a_publisher_that_dies_in_mid_line_costs_only_that_line(cores: usize) {
    let server = Server::start(OPEN, cores);
    let mut client = RawClient::in_room(&server, "a");
    let mut dying = Publisher::connect(&server);
    dying.bytes("{\"room\":\"a\",\"event\":\"whole\"}\n{\"room\":\"a\",\"event\":\"hal");
    assert_eq!(client.next(), r#"{"type":"whole"}"#);
    drop(dying);
    server.await_metric("roomcast_publishers", &[], 0.0);
    let mut heir = Publisher::connect(&server);
    assert_eq!(heir.ask(r#"{"id":1,"room":"a","event":"after"}"#)["offset"], 2);
    assert_eq!(client.next(), r#"{"type":"after"}"#);
    server.await_metric("roomcast_events_total", &[], 2.0);
}

fn a_garbage_line_is_answered_and_its_neighbours_delivered(cores: usize) {
    let server = Server::start(OPEN, cores);
    let mut client = RawClient::in_room(&server, "a");
    let mut publisher = Publisher::connect(&server);
    // (line, part of the error's text)
    let bad: [(&[u8], &str); 12] = [
        (b"garbage", "JSON"),
        (b"{\"room\":\"a\",\"event\":\"x\"", "JSON"),
        (b"\xff\xfe{}", "JSON"),
        (b"{\"room\":\"a\",\"event\":\"x\"}{}", "JSON"),
        (b"[]", "object"),
        (b"{}", "event"),
        (b"{\"room\":\"a\",\"event\":7}", "event"),
        (b"{\"room\":\"a\",\"evnt\":\"x\"}", "\"event\""),
        (b"{\"room\":\"a\",\"event\":\"x\",\"data\":1,\"args\":[]}", "args"),
        (b"{\"room\":\"a\",\"room\":\"b\",\"event\":\"x\"}", "twice"),
        (b"{\"ns\":\"/nowhere\",\"room\":\"a\",\"event\":\"x\"}", "/nowhere"),
        (b"{\"op\":\"dance\",\"rooms\":[\"a\"]}", "dance"),
    ];
    let mut all = Vec::new();
    for (n, (line, _)) in bad.iter().enumerate() {
        all.extend_from_slice(
            format!("{{\"id\":\"good{n}\",\"room\":\"a\",\"event\":\"n\",\"data\":{n}}}\n").as_bytes(),
        );
        all.extend_from_slice(line);
        all.push(b'\n');
    }
    publisher.bytes(&all);
    for (n, (line, error)) in bad.iter().enumerate() {
        assert_eq!(publisher.receipt_text(), format!(r#"{{"id":"good{n}","ok":true,"offset":{}}}"#, n + 1));
        let answer = publisher.receipt();
        let line = String::from_utf8_lossy(line);
        assert_eq!((&answer["id"], &answer["ok"]), (&Value::Null, &Value::Bool(false)), "{line}");
        assert_eq!(answer["line"], 2 * n + 2, "{line}");
        assert!(answer["error"].as_str().unwrap().contains(error), "{line}: {answer}");
        assert_eq!(client.next(), format!(r#"{{"type":"n","data":{n}}}"#));
    }
    // The id of a bad line, if it can be read.
    let answer = publisher.ask(r#"{"id":"mine","room":7,"event":"x"}"#);
    assert_eq!((&answer["id"], &answer["line"]), (&"mine".into(), &25.into()), "{answer}");
    server.await_metric("roomcast_ingest_errors_total", &[], 13.0);
    server.await_metric("roomcast_ingest_lines_total", &[], 25.0);
}

fn receipts_come_in_line_order_and_offsets_count_up(cores: usize) {
    let server = Server::start(OPEN, cores);
    let mut publisher = Publisher::connect(&server);
    // Rooms of both cores, so that answers overtake each other on their way back.
    const ROOMS: usize = 7;
    const LINES: usize = 5_000;
    let lines: String = (0..LINES)
        .map(|n| match n % 100 {
            99 => format!("{{\"id\":{n},\"room\":\"r\"}}\n"),
            _ => format!("{{\"id\":{n},\"room\":\"room{}\",\"event\":\"x\"}}\n", n % ROOMS),
        })
        .collect();
    let mut stream = publisher.stream();
    let writer = std::thread::spawn(move || stream.write_all(lines.as_bytes()).unwrap());
    let mut next = [1; ROOMS];
    for n in 0..LINES {
        let receipt = publisher.receipt();
        assert_eq!(receipt["id"], n);
        if n % 100 == 99 {
            assert_eq!((&receipt["ok"], &receipt["line"]), (&Value::Bool(false), &(n + 1).into()), "{receipt}");
        } else {
            assert_eq!(receipt["offset"], next[n % ROOMS], "{receipt}");
            next[n % ROOMS] += 1;
        }
    }
    writer.join().unwrap();
    // Several rooms: a place in each.
    let receipt = publisher.ask(r#"{"id":"s","rooms":["room1","room0","new","room1"],"event":"x"}"#);
    let expected = serde_json::json!({"room1": next[1], "room0": next[0], "new": 1});
    assert_eq!((&receipt["id"], &receipt["offsets"]), (&"s".into(), &expected), "{receipt}");
}

fn rooms_except_args_and_everyone(cores: usize) {
    let server = Server::start(OPEN, cores);
    let mut a = RawClient::in_room(&server, "a");
    let mut b = RawClient::in_room(&server, "b");
    let mut ab = RawClient::in_room(&server, "a");
    ab.join("b");
    let mut none = RawClient::connect(&server);
    let you: Value = serde_json::from_str(&ab.ask(r#"{"type":"who"}"#)).unwrap();
    let sid = you["data"]["sid"].as_str().unwrap().to_owned();
    assert_eq!(sid.len(), 20, "{you}");

    let mut publisher = Publisher::connect(&server);
    let mut publish = |line: &str| assert!(is_ok(&publisher.ask(line)), "{line}");
    publish(r#"{"id":1,"rooms":["a","b"],"event":"either"}"#);
    publish(r#"{"id":2,"rooms":["a","b"],"except":["b"],"event":"not b"}"#);
    publish(&format!(r#"{{"id":3,"rooms":["a","b"],"except":["{sid}"],"event":"not ab"}}"#));
    publish(&format!(r#"{{"id":4,"room":"{sid}","event":"only ab"}}"#));
    publish(r#"{"id":5,"event":"all","args":[1,"two",{"x":3},null]}"#);
    publish(r#"{"id":6,"except":["a"],"event":"not a"}"#);
    publish(r#"{"id":7,"op":"emit","room":"b","event":"explicit","data":[]}"#);
    for (name, client, expected) in [
        ("a", &mut a, vec!["either", "not b", "not ab", "all"]),
        ("b", &mut b, vec!["either", "not ab", "all", "not a", "explicit"]),
        ("ab", &mut ab, vec!["either", "only ab", "all", "explicit"]),
        ("none", &mut none, vec!["all", "not a"]),
    ] {
        // Rooms of different cores have no order among each other, so the events are compared as sets; what comes too
        // much would be counted below.
        let mut got: Vec<String> = expected.iter().map(|_| client.next()).collect();
        got.sort();
        let mut expected: Vec<String> = expected
            .iter()
            .map(|event| match *event {
                "all" => r#"{"type":"all","args":[1,"two",{"x":3},null]}"#.to_owned(),
                "explicit" => r#"{"type":"explicit","data":[]}"#.to_owned(),
                other => format!(r#"{{"type":"{other}"}}"#),
            })
            .collect();
        expected.sort();
        assert_eq!(got, expected, "client {name}");
    }
    server.await_metric("roomcast_deliveries_total", &[], 15.0);
}

fn operations_take_effect_before_the_next_line(cores: usize) {
    let server = Server::start(OPEN, cores);
    // Several, so that both cores have some.
    let mut vips: Vec<RawClient> = (0..8).map(|_| RawClient::in_room(&server, "user:42")).collect();
    let mut other = RawClient::in_room(&server, "user:43");
    let mut publisher = Publisher::connect(&server);
    // In one piece: nobody waits for an answer.
    publisher.bytes(concat!(
        r#"{"id":1,"op":"join","where":{"room":"user:42"},"rooms":["vip","vip2"]}"#,
        "\n",
        r#"{"id":2,"room":"vip","event":"welcome"}"#,
        "\n",
        r#"{"id":3,"room":"vip2","event":"welcome2"}"#,
        "\n",
        r#"{"id":4,"op":"leave","where":{"room":"vip"},"rooms":["vip","never"]}"#,
        "\n",
        r#"{"id":5,"room":"vip","event":"nobody hears"}"#,
        "\n",
        r#"{"id":6,"room":"user:42","event":"still here"}"#,
        "\n",
        r#"{"id":7,"op":"disconnect","where":{"room":"user:42"}}"#,
        "\n",
        r#"{"id":8,"room":"user:42","event":"gone"}"#,
        "\n",
        r#"{"id":9,"event":"the rest"}"#,
        "\n",
    ));
    let receipts: Vec<Value> = (0..9).map(|_| publisher.receipt()).collect();
    for (n, receipt) in receipts.iter().enumerate() {
        assert_eq!((&receipt["id"], &receipt["ok"]), (&(n + 1).into(), &true.into()), "{receipt}");
    }
    for operation in [0, 3, 6] {
        assert_eq!(receipts[operation]["sockets"], 8, "{}", receipts[operation]);
    }
    for client in &mut vips {
        let mut got = [client.next(), client.next(), client.next()];
        got.sort();
        assert_eq!(got, [r#"{"type":"still here"}"#, r#"{"type":"welcome"}"#, r#"{"type":"welcome2"}"#]);
        assert_eq!(client.closed(), (1000, "server disconnect".to_owned()));
    }
    assert_eq!(other.next(), r#"{"type":"the rest"}"#);
    server.await_metric("roomcast_deliveries_total", &[], 25.0);

    // All of the namespace.
    let receipt = publisher.ask(r#"{"id":1,"op":"join","where":{"all":true},"rooms":["everyone"]}"#);
    assert_eq!(receipt["sockets"], 1, "{receipt}");
    publisher.line(r#"{"room":"everyone","event":"hello"}"#);
    assert_eq!(other.next(), r#"{"type":"hello"}"#);
}

fn values_arrive_byte_for_byte(cores: usize) {
    let server = Server::start(OPEN, cores);
    let mut raw = RawClient::in_room(&server, "a");
    let mut socket_io = RawClient::socket_io(&server);
    socket_io.send(r#"42["subscribe",{"room":"a"}]"#);
    assert_eq!(socket_io.next(), r#"42["subscribed",{"room":"a"}]"#);
    let mut publisher = Publisher::connect(&server);
    for value in [
        "123456789012345678901234567890",
        "-0.000000000000000000000000000000000001",
        "1.0",
        "1e400",
        "1E+2",
        "-0",
        "-0.0",
        "9007199254740993",
        "18446744073709551615",
        "-9223372036854775808",
        "null",
        "true",
        r#""""#,
        r#""\u0041\/\ud83d\ude00😀\n""#,
        "\"\u{7f}\u{2028}\"",
        r#"{"b":1,"a":2,"b":3,"":{}}"#,
        r#"[1 , 2 ,	3 ]"#,
        r#"{ "spaced" : [ ] }"#,
        r#"{"_placeholder":true,"num":0}"#,
        r#"{"__proto__":{"x":1}}"#,
        r#"[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]"#,
    ] {
        publisher.line(&format!(r#"{{"room":"a","event":"v","data":{value}}}"#));
        assert_eq!(raw.next(), format!(r#"{{"type":"v","data":{value}}}"#));
        assert_eq!(socket_io.next(), format!(r#"42["v",{value}]"#));
    }
    // Names too, and every size at which a frame's header changes.
    publisher.line(r#"{"room":"a","event":"\u0041\"ñ","args":[1.0 , -0]}"#);
    let text = raw.next();
    assert!(text.starts_with(r#"{"type":"\u0041\"ñ","args":["#), "{text}");
    assert_eq!(socket_io.next().replace(' ', ""), r#"42["\u0041\"ñ",1.0,-0]"#);
    for length in [0, 90, 100, 101, 102, 103, 110, 126, 65_000, 65_500, 65_520, 65_536, 70_000, 300_000] {
        let value = "x".repeat(length);
        publisher.line(&format!(r#"{{"room":"a","event":"v","data":"{value}"}}"#));
        assert_eq!(raw.next(), format!(r#"{{"type":"v","data":"{value}"}}"#));
        assert_eq!(socket_io.next(), format!(r#"42["v","{value}"]"#));
    }
}

fn an_over_long_line_is_skipped(cores: usize) {
    let server = Server::start(&format!("[ingest]\nline_bytes_max = 2000\n{OPEN}"), cores);
    let mut client = RawClient::in_room(&server, "a");
    let mut publisher = Publisher::connect(&server);
    let line = |bytes: usize| {
        let empty = r#"{"id":"n","room":"a","event":"x","data":""}"#;
        empty.replace("\"\"", &format!("\"{}\"", "x".repeat(bytes - empty.len())))
    };
    // Exactly the bound is allowed.
    assert!(is_ok(&publisher.ask(&line(2000))));
    assert_eq!(client.next().len(), r#"{"type":"x","data":""}"#.len() + 2000 - line(50).len() + 7);
    let mut too_long = |publisher: &mut Publisher, number: usize| {
        let answer = publisher.receipt();
        assert_eq!((&answer["id"], &answer["ok"]), (&Value::Null, &false.into()), "{answer}");
        assert_eq!(answer["line"], number);
        assert!(answer["error"].as_str().unwrap().contains("ingest.line_bytes_max"), "{answer}");
        assert_eq!(publisher.ask(r#"{"id":2,"room":"a","event":"next"}"#)["ok"], true);
        assert_eq!(client.next(), r#"{"type":"next"}"#);
    };
    publisher.line(&line(2001));
    too_long(&mut publisher, 2);
    // Far more than fits anywhere, answered before it has ended.
    publisher.bytes(line(100_000));
    publisher.bytes("x".repeat(10_000_000));
    publisher.bytes("\n");
    too_long(&mut publisher, 4);
    // CRLF is not part of the line.
    publisher.bytes(format!("{}\r\n", line(2000)));
    assert!(is_ok(&publisher.receipt()));
    server.await_metric("roomcast_ingest_errors_total", &[("reason", "line_too_long")], 2.0);
}

fn a_publisher_that_does_not_read_receipts_is_paused(cores: usize) {
    const LINES: usize = 100_000;
    let server = Server::start(&format!("[ingest]\nreceipt_bytes_max = 65536\n{OPEN}"), cores);
    let mut publisher = Publisher::connect(&server);
    // 25 MB of receipts: more than both sockets' buffers hold.
    let padding = "i".repeat(200);
    let mut stream = publisher.stream();
    let writer = std::thread::spawn({
        let padding = padding.clone();
        move || {
            for start in (0..LINES).step_by(1000) {
                let lines: String = (start..start + 1000)
                    .map(|n| format!("{{\"id\":\"{padding}{n}\",\"room\":\"a\",\"event\":\"x\"}}\n"))
                    .collect();
                stream.write_all(lines.as_bytes()).unwrap();
            }
        }
    });
    // Wait until it stands still, as far as one can see from outside. Too early is no error, only a weaker test.
    let (mut last, mut still) = (-1.0, 0);
    wait_until("the publisher is paused", || {
        let lines = server.metric("roomcast_ingest_lines_total");
        still = if lines == last && lines > 0.0 { still + 1 } else { 0 };
        last = lines;
        still == 20
    });
    assert!(last < LINES as f64, "all {LINES} lines were taken although nobody has read a receipt");
    assert_eq!(server.metric("roomcast_publishers"), 1.0);
    // Others are not held up by it.
    let mut client = RawClient::in_room(&server, "b");
    let mut other = Publisher::connect(&server);
    assert_eq!(other.ask(r#"{"id":1,"room":"b","event":"x"}"#)["offset"], 1);
    assert_eq!(client.next(), r#"{"type":"x"}"#);
    for n in 0..LINES {
        assert_eq!(publisher.receipt_text(), format!(r#"{{"id":"{padding}{n}","ok":true,"offset":{}}}"#, n + 1));
    }
    writer.join().unwrap();
}

fn a_half_closed_publisher_gets_its_receipts(cores: usize) {
    let server = Server::start(OPEN, cores);
    let mut client = RawClient::in_room(&server, "a");
    let mut publisher = Publisher::connect(&server);
    // As `printf … | nc -N` does it; the last line has no end.
    publisher.bytes(concat!(
        r#"{"id":1,"room":"a","event":"x"}"#,
        "\n",
        r#"{"op":"join","where":{"room":"a"},"rooms":["b"],"id":2}"#,
        "\nbad\n",
        r#"{"id":3,"room":"b","event":"y"}"#,
    ));
    publisher.half_close();
    let rest = publisher.rest();
    let lines: Vec<&str> = rest.lines().collect();
    assert_eq!(lines.len(), 4, "{rest}");
    assert_eq!(lines[0], r#"{"id":1,"ok":true,"offset":1}"#);
    assert_eq!(lines[1], r#"{"id":2,"ok":true,"sockets":1}"#);
    assert!(
        lines[2].starts_with(r#"{"id":null,"ok":false,"error":""#) && lines[2].ends_with(r#","line":3}"#),
        "{rest}"
    );
    assert_eq!(lines[3], r#"{"id":3,"ok":true,"offset":1}"#);
    assert_eq!(client.next(), r#"{"type":"x"}"#);
    assert_eq!(client.next(), r#"{"type":"y"}"#);
    // Nothing at all is no line.
    let mut empty = Publisher::connect(&server);
    empty.half_close();
    assert_eq!(empty.rest(), "");
    server.await_metric("roomcast_publishers", &[], 0.0);
}

fn line_endings_and_empty_lines(cores: usize) {
    let server = Server::start(OPEN, cores);
    let mut client = RawClient::in_room(&server, "a");
    let mut publisher = Publisher::connect(&server);
    publisher.bytes(concat!(
        r#"{"id":1,"room":"a","event":"crlf"}"#,
        "\r\n\r\n\n  ",
        r#"{"id":2,"room":"a","event":"spaces"}"#,
        " \t\nbad\r\n",
    ));
    assert_eq!(publisher.receipt_text(), r#"{"id":1,"ok":true,"offset":1}"#);
    assert_eq!(publisher.receipt_text(), r#"{"id":2,"ok":true,"offset":2}"#);
    // Empty lines count as lines, as in an editor.
    assert_eq!(publisher.receipt()["line"], 5);
    assert_eq!(client.next(), r#"{"type":"crlf"}"#);
    assert_eq!(client.next(), r#"{"type":"spaces"}"#);
    // Byte by byte.
    for byte in b"{\"id\":3,\"room\":\"a\",\"event\":\"slow\"}\r\n" {
        publisher.bytes([*byte]);
    }
    assert_eq!(publisher.receipt_text(), r#"{"id":3,"ok":true,"offset":3}"#);
    assert_eq!(client.next(), r#"{"type":"slow"}"#);
}

fn a_burst_of_100_000_lines(cores: usize) {
    const LINES: usize = 100_000;
    // The readers are threads of a busy machine: whatever they lag behind may wait.
    let server = Server::start(&format!("[limits]\noutbox_bytes_max = 100_000_000\n{OPEN}"), cores);
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let mut client = RawClient::in_room(&server, "a");
            std::thread::spawn(move || {
                for n in 0..LINES {
                    assert_eq!(client.next(), format!(r#"{{"type":"n","data":{n}}}"#));
                }
            })
        })
        .collect();
    let mut publisher = Publisher::connect(&server);
    let mut burst: String = (0..LINES).map(|n| format!("{{\"room\":\"a\",\"event\":\"n\",\"data\":{n}}}\n")).collect();
    burst.push_str("{\"id\":\"last\",\"room\":\"a\",\"event\":\"end\"}\n");
    publisher.bytes(burst);
    assert_eq!(publisher.receipt_text(), format!(r#"{{"id":"last","ok":true,"offset":{}}}"#, LINES + 1));
    for reader in readers {
        reader.join().unwrap();
    }
}

fn binary_arrives_as_buffers(cores: usize) {
    let server = Server::start(OPEN, cores);
    let mut raw = RawClient::in_room(&server, "a");
    node("binary.js", &server, &[]);
    // Raw clients get what the publisher wrote.
    assert_eq!(raw.next(), r#"{"type":"picture","args":[{"at":[{"_base64":"AAEC/w=="},7]},{"_base64":""}]}"#);
    assert_eq!(raw.next(), r#"{"type":"plain","data":{"_base64":"AAEC/w=="}}"#);
}
