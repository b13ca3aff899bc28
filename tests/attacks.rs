//! What attackers try, against one server in the shape of system 1. Each row says what is sent, what exactly is
//! answered, and which counters grow. After each row, while the attacker is still there, an honest client that was
//! connected before and one that comes now are both served. How long that takes is printed and not judged: machines
//! that test are busy.

mod common;

use common::polling::{Http, Polling, get, post};
use common::wire::{self, CONTINUATION, PING, PONG, TEXT, Wire, frame, handshake, text};
use common::{Publisher, RawClient, Server, http, wait_until};
use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::{Algorithm, EncodingKey, crypto::sign};
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::io::{Read, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::time::{Duration, Instant, SystemTime};

on_one_and_two_cores!(attacks);

const CONFIG: &str = include_str!("attacks/config.toml");
const SOCKET_IO: &str = "/socket.io/?EIO=4&transport=websocket";
const POLLING: &str = "/socket.io/?EIO=4&transport=polling";

/// What was answered, and what the attacker leaves open.
struct Outcome {
    answers: Answers,
    open: Box<dyn Any>,
}

/// `name`: for people. `counters`: metric, reason or status if it has any, and by how much it grows in the row.
struct Attack {
    name: &'static str,
    run: fn(&Ground) -> Outcome,
    answers: &'static str,
    counters: &'static [(&'static str, &'static str, f64)],
}

const AUTH_REFUSALS: &str = "roomcast_auth_refusals_total";
const CLIENT_ERRORS: &str = "roomcast_client_errors_total";
const HTTP_REFUSED: &str = "roomcast_http_refused_total";
const RULE_REFUSALS: &str = "roomcast_rule_refusals_total";
const PUBLISHER_CLOSES: &str = "roomcast_publisher_closes_total";
const OPERATOR_REQUESTS: &str = "roomcast_operator_requests_total";
const CLOSES: &str = "roomcast_closes_total";
const LINE_ERRORS: &str = "roomcast_ingest_errors_total";

const ATTACKS: &[Attack] = &[
    // ---- tokens ----
    Attack {
        name: "no token",
        run: |ground| ground.tokens([]),
        answers: "44{\"message\":\"a token is required\",\"data\":{\"code\":\"token_missing\"}}; \
            {\"type\":\"error\",\"data\":{\"message\":\"a token is required\",\"data\":{\"code\":\"token_missing\"}}}, \
            close 4401",
        counters: &[(AUTH_REFUSALS, "token_missing", 2.0)],
    },
    Attack {
        name: "tokens of other keys",
        run: |ground| {
            let (hs, rs) = (r#"{"alg":"HS256"}"#, r#"{"alg":"RS256","kid":"2026-10"}"#);
            // A key of one's own, which comes along with the token.
            let own = r#"{"alg":"RS256","kid":"2026-10","jku":"https://evil.example/jwks.json","jwk":{"kty":"RSA"}}"#;
            ground.tokens([
                token(hs, &claims("p9", 60), Signer::Secret(b"another secret")),
                token(hs, &claims("p9", 60), Signer::Secret(b"")),
                token(rs, &claims("p9", 60), Signer::Rsa(OTHER_RSA)),
                token(own, &claims("p9", 60), Signer::Rsa(OTHER_RSA)),
                // The right signature, of other claims.
                format!("{}.{}", good("p9").rsplit_once('.').unwrap().0, good("p8").rsplit_once('.').unwrap().1),
            ])
        },
        answers: "5 x the token's signature is not valid (token_invalid)",
        counters: &[(AUTH_REFUSALS, "token_invalid", 10.0)],
    },
    Attack {
        name: "no algorithm, and others than the keys'",
        run: |ground| {
            let algorithms = ["none", "None", "nOnE", "", "HS384", "RS512", "hs256", "RS256 "];
            ground.tokens(algorithms.map(|algorithm| {
                let header = format!(r#"{{"alg":"{algorithm}","typ":"JWT"}}"#);
                let signed = token(&header, &claims("p9", 60), Signer::Secret(SECRET));
                if algorithm.len() == 4 { signed[..=signed.rfind('.').unwrap()].to_owned() } else { signed }
            }))
        },
        answers: "8 x the token's algorithm is not accepted (token_invalid)",
        counters: &[(AUTH_REFUSALS, "token_invalid", 16.0)],
    },
    Attack {
        name: "the public key for a secret",
        run: |ground| {
            let header = r#"{"alg":"HS256","kid":"2026-10"}"#;
            let pem: &[u8] = include_bytes!("keys/rsa.public.pem");
            let der: String = str::from_utf8(pem).unwrap().lines().filter(|line| !line.starts_with('-')).collect();
            let secrets = [pem, pem.trim_ascii_end(), der.as_bytes()];
            ground.tokens(secrets.map(|secret| token(header, &claims("p9", 60), Signer::Secret(secret))))
        },
        answers: "3 x the token's signature is not valid (token_invalid)",
        counters: &[(AUTH_REFUSALS, "token_invalid", 6.0)],
    },
    Attack {
        name: "a key's name that is a path or a query",
        run: |ground| {
            let names = ["../../../dev/null", "' UNION SELECT 'x", "\\u0000", "*"];
            ground.tokens(names.map(|kid| {
                let header = format!(r#"{{"alg":"RS256","kid":"{kid}"}}"#);
                token(&header, &claims("p9", 60), Signer::Rsa(OTHER_RSA))
            }))
        },
        answers: "4 x the token's key is not known (token_invalid)",
        counters: &[(AUTH_REFUSALS, "token_invalid", 8.0)],
    },
    Attack {
        name: "tokens of other times and for others",
        run: |ground| {
            let with = |times: &str, aud: &str| hs256(&format!(r#"{{"sub":"p9","role":"ADMIN",{times}"aud":{aud}}}"#));
            let (past, future) = (unix_s() - 2, unix_s() + 600);
            ground.tokens([
                with(&format!(r#""exp":{past},"#), r#""roomcast""#),
                with(r#""exp":0,"#, r#""roomcast""#),
                with(r#""exp":-1e300,"#, r#""roomcast""#),
                with(&format!(r#""exp":{future},"exp":{past},"#), r#""roomcast""#),
                with(&format!(r#""nbf":{future},"#), r#""roomcast""#),
                with("", r#""other""#),
                with("", r#"["other","Roomcast"]"#),
                with("", "null"),
                with("", r#"{"roomcast":1}"#),
            ])
        },
        answers: "4 x the token has expired (token_expired); the token is not valid yet (token_not_yet_valid); \
            4 x the token is for another audience (token_audience)",
        counters: &[
            (AUTH_REFUSALS, "token_expired", 8.0),
            (AUTH_REFUSALS, "token_not_yet_valid", 2.0),
            (AUTH_REFUSALS, "token_audience", 8.0),
        ],
    },
    Attack {
        name: "what is no token",
        run: |ground| {
            let deep = token(&"[".repeat(3000), "{}", Signer::Secret(SECRET));
            let encrypted = "eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ.a.b.c.d".to_owned();
            let critical = token(r#"{"alg":"HS256","crit":["exp"]}"#, &claims("p9", 60), Signer::Secret(SECRET));
            let words = hs256(r#"{"sub":"p9","aud":"roomcast","exp":"never"}"#);
            let texts = ["a", "a.b", "....", "%00.%00.%00", "e30.e30.e30", "bnVsbA.e30."].map(str::to_owned);
            ground.tokens(texts.into_iter().chain([deep, encrypted, critical, words]))
        },
        answers: "10 x the token is not a signed JSON Web Token (token_invalid)",
        counters: &[(AUTH_REFUSALS, "token_invalid", 20.0)],
    },
    Attack {
        name: "a bad token before a good one, and somebody else's to go on with",
        run: |ground| {
            let mut wire = ground.engine_io(&format!("&token={}", good("p9")));
            wire.write(text(r#"40{"token":"no"}"#));
            let mut answers = Answers::of(&refused(&wire.text()));
            wire.write(text("40"));
            answers.add(&without_sids(&wire.text()));
            wire.write(text(&format!(r#"421["refresh","{}"]"#, good("p1"))));
            answers.add(&wire.text());
            answers.leave(wire)
        },
        answers: "the token is not a signed JSON Web Token (token_invalid); 40{\"sid\":\"…\"}; \
            431[{\"error\":{\"message\":\"the token is for another subject than the one before\",\
            \"code\":\"token_subject\"}}]",
        counters: &[(AUTH_REFUSALS, "token_invalid", 1.0), (AUTH_REFUSALS, "token_subject", 1.0)],
    },
    Attack {
        name: "2,000 tokens whose signatures take time",
        run: |ground| {
            let token = token(r#"{"alg":"RS256","kid":"2026-10"}"#, &claims("p9", 60), Signer::Rsa(OTHER_RSA));
            let mut wire = ground.engine_io("");
            let mut stream = wire.stream();
            let connects = text(&format!(r#"40{{"token":"{token}"}}"#)).repeat(2000);
            let writing = std::thread::spawn(move || stream.write_all(&connects).unwrap());
            let mut answers = Answers::default();
            for _ in 0..2000 {
                let answer = wire.text();
                answers.add(if answer.contains("\"data\"") { "checked" } else { &answer });
            }
            writing.join().unwrap();
            answers.leave(wire)
        },
        answers: "200 x checked; 1800 x 44{\"message\":\"Too many attempts to connect\"}",
        counters: &[(AUTH_REFUSALS, "token_invalid", 200.0), (RULE_REFUSALS, "connects", 1800.0)],
    },
    // ---- rights ----
    Attack {
        name: "a PASSENGER who wants to be in admin_dashboard",
        run: |ground| {
            let connect = format!(r#"40{{"token":"{}"}}"#, good("p9"));
            let mut answers = Answers::default();
            for query in ["&role=ADMIN", "&role=PASSENGER&role=ADMIN", "&userId=p1", "&role=ADMIN&userId=p1"] {
                let mut wire = ground.engine_io(query);
                wire.write(text(&connect));
                answers.add(&wire.text());
            }
            let mut wire = ground.engine_io("&trainNo=admin_dashboard&claims=%7B%22role%22:%22ADMIN%22%7D");
            wire.write(text(&connect.replace('}', r#","role":"ADMIN","claims":{"role":"ADMIN"}}"#)));
            answers.add(&without_sids(&wire.text()));
            for packet in [r#"42["join","admin_dashboard"]"#, r#"42["watch",{"trainNo":["admin_dashboard"]}]"#] {
                wire.write(text(packet));
                answers.add(&wire.text());
            }
            let mut publisher = ground.publisher.borrow_mut();
            for (room, event) in
                [("admin_dashboard", "STATS_UPDATE"), ("passenger_p1", "secret"), ("passenger_p9", "own")]
            {
                let receipt = publisher.ask(&format!(r#"{{"room":"{room}","event":"{event}","id":1}}"#));
                assert_eq!(receipt["ok"], true);
            }
            answers.add(&wire.text());
            answers.leave(wire)
        },
        answers: "4 x 44{\"message\":\"the query asks for more than the token allows\"}; 40{\"sid\":\"…\"}; \
            42[\"error\",{\"message\":\"no rule allows this\",\"event\":\"join\"}]; \
            42[\"error\",{\"message\":\"not allowed\",\"event\":\"watch\"}]; 42[\"own\"]",
        counters: &[
            (RULE_REFUSALS, "connect", 4.0),
            (RULE_REFUSALS, "unknown_event", 1.0),
            (RULE_REFUSALS, "event", 1.0),
        ],
    },
    // ---- WebSocket frames ----
    Attack {
        name: "frames without a mask",
        run: |ground| ground.raw_frames([b"\x81\x02{}".to_vec()]),
        answers: "close 1002",
        counters: &[(CLIENT_ERRORS, "unmasked", 1.0)],
    },
    Attack {
        name: "lengths of 2^63 and of nearly that",
        run: |ground| {
            let with = |length: u64| [&[0x82, 0xff][..], &length.to_be_bytes(), &[0; 4]].concat();
            ground.raw_frames([with(1 << 63), with((1 << 63) - 1), with(1_000_001)])
        },
        answers: "close 1002; 2 x close 1009",
        counters: &[(CLIENT_ERRORS, "length_negative", 1.0), (CLIENT_ERRORS, "too_big", 2.0)],
    },
    Attack {
        name: "lengths in a longer form than they need",
        run: |ground| {
            ground
                .raw_frames([b"\x81\xfe\x00\x02\0\0\0\0{}".to_vec(), b"\x81\xff\0\0\0\0\0\0\0\x02\0\0\0\0{}".to_vec()])
        },
        answers: "2 x close 1002",
        counters: &[(CLIENT_ERRORS, "length_not_minimal", 2.0)],
    },
    Attack {
        name: "reserved bits and opcodes",
        run: |ground| {
            ground.raw_frames([0xc1, 0xa1, 0x91, 0x83, 0x8b].map(|first| [&[first, 0x80][..], &[0; 4]].concat()))
        },
        answers: "5 x close 1002",
        counters: &[(CLIENT_ERRORS, "reserved_bits", 3.0), (CLIENT_ERRORS, "reserved_opcode", 2.0)],
    },
    Attack {
        name: "control frames in fragments, and too long",
        run: |ground| ground.raw_frames([frame(false, PING, b"a"), frame(true, PING, &[b'a'; 126])]),
        answers: "2 x close 1002",
        counters: &[(CLIENT_ERRORS, "control_fragmented", 1.0), (CLIENT_ERRORS, "control_too_long", 1.0)],
    },
    Attack {
        name: "fragments of nothing, and messages in messages",
        run: |ground| {
            let inside = [frame(false, TEXT, b"{"), frame(true, TEXT, b"{}")].concat();
            ground.raw_frames([frame(true, CONTINUATION, b"{}"), inside])
        },
        answers: "2 x close 1002",
        counters: &[(CLIENT_ERRORS, "nothing_to_continue", 1.0), (CLIENT_ERRORS, "message_inside_message", 1.0)],
    },
    Attack {
        name: "text that is not UTF-8, whole and at the end of a fragment",
        run: |ground| {
            let halves = [frame(false, TEXT, b"\"\xc3"), frame(false, CONTINUATION, b"\"")].concat();
            ground.raw_frames([frame(true, TEXT, b"\"\xff\""), halves])
        },
        answers: "2 x close 1007",
        counters: &[(CLIENT_ERRORS, "text_not_utf8", 2.0)],
    },
    Attack {
        name: "close codes that nobody may send",
        run: |ground| {
            let codes = [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535u16];
            ground.raw_frames(codes.map(|code| frame(true, wire::CLOSE, &code.to_be_bytes())))
        },
        answers: "10 x close 1002",
        counters: &[(CLIENT_ERRORS, "close_code", 10.0)],
    },
    Attack {
        name: "100,000 fragments of nothing, then of more than is allowed",
        run: |ground| {
            let nothing = frame(false, CONTINUATION, b"").repeat(100_000);
            let much = frame(false, CONTINUATION, &[b' '; 1000]).repeat(1001);
            ground.raw_frames([[frame(false, TEXT, b"{"), nothing, much].concat()])
        },
        answers: "close 1009",
        counters: &[(CLIENT_ERRORS, "too_big", 1.0)],
    },
    Attack {
        name: "20,000 pings",
        run: |ground| {
            let mut wire = ground.raw();
            let stream = wire.stream();
            let pings = frame(true, PING, &[b'p'; 125]).repeat(20_000);
            let writing = std::thread::spawn(move || { stream }.write_all(&pings).unwrap());
            let mut answers = Answers::default();
            for _ in 0..20_000 {
                let (opcode, payload) = wire.frame();
                answers.add(&format!("opcode {opcode} with {} bytes", payload.len()));
            }
            writing.join().unwrap();
            assert_eq!(PONG, 10);
            answers.leave(wire)
        },
        answers: "20000 x opcode 10 with 125 bytes",
        counters: &[],
    },
    Attack {
        name: "pings whose pongs nobody reads",
        run: |ground| {
            let wire = ground.raw();
            let mut stream = wire.stream();
            stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
            let pings = frame(true, PING, &[b'p'; 125]).repeat(1000);
            // Many times what the kernel takes for both sides, and what may wait.
            let outcome = (0..1000).map(|_| stream.write_all(&pings)).find(Result::is_err);
            let waits = ground.server.metric("roomcast_outbox_bytes");
            assert!(waits < 2e6, "{waits} bytes wait");
            Answers::of(if outcome.is_some() { "no more is read" } else { "all is read" }).leave(wire)
        },
        answers: "no more is read",
        counters: &[],
    },
    // ---- Socket.IO and Engine.IO packets ----
    Attack {
        name: "attachments in numbers that nobody has",
        run: |ground| {
            ground.packets(&[
                r#"45999999999-["echo",{"_placeholder":true,"num":0}]"#,
                r#"459999999999999999999999999999-["echo"]"#,
                r#"4511-["echo"]"#,
                r#"450-["echo"]"#,
                r#"45-["echo"]"#,
                r#"45-1-["echo"]"#,
            ])
        },
        answers: "6 x close 1002",
        counters: &[(CLIENT_ERRORS, "too_many_attachments", 3.0), (CLIENT_ERRORS, "illegal_attachment_count", 3.0)],
    },
    Attack {
        name: "placeholders that name no attachment, or one twice",
        run: |ground| {
            ground.packets(&[
                r#"451-["echo",{"_placeholder":true,"num":1}]"#,
                r#"451-["echo",{"_placeholder":true,"num":-1}]"#,
                r#"451-["echo",{"_placeholder":true,"num":99999999999999999999}]"#,
                r#"451-["echo",{"_placeholder":true}]"#,
                r#"451-["echo",{"_placeholder":true,"num":0},{"_placeholder":true,"num":0}]"#,
            ])
        },
        answers: "5 x close 1002",
        counters: &[(CLIENT_ERRORS, "illegal_placeholder", 5.0)],
    },
    Attack {
        name: "attachments that nobody announced, and text where they are due",
        run: |ground| {
            let open = [text(r#"451-["echo",{"_placeholder":true,"num":0}]"#), text(r#"42["who"]"#)].concat();
            ground.socket_io_frames([frame(true, wire::BINARY, b"x"), open])
        },
        answers: "2 x close 1002",
        counters: &[(CLIENT_ERRORS, "unexpected_binary", 1.0), (CLIENT_ERRORS, "unexpected_text", 1.0)],
    },
    Attack {
        name: "20 packets of 8 MB whose last attachment never comes",
        run: |ground| {
            let packet = [text(r#"4510-["echo"]"#), frame(true, wire::BINARY, &[b'x'; 900_000]).repeat(9)].concat();
            let (mut held, mut answers) = (Vec::new(), Answers::default());
            let holds = || ground.server.metric("roomcast_inbox_bytes");
            for number in 1..=3 {
                let mut wire = ground.socket_io();
                wire.write(&packet);
                wait_until("it is held", || holds() >= 8.1e6 * f64::from(number));
                answers.add("held");
                held.push(wire);
            }
            for _ in 3..20 {
                answers.add(&after(ground.socket_io(), &packet));
            }
            wait_until("the others' is given back", || holds() < 25e6);
            answers.leave(held)
        },
        answers: "3 x held; 17 x close 1013",
        counters: &[(RULE_REFUSALS, "inboxes_bytes", 17.0), (CLOSES, "no room for incomplete messages", 17.0)],
    },
    Attack {
        name: "JSON of 100,000 levels, and of 129 within a good event",
        run: |ground| {
            let deep = format!("42{}", "[".repeat(100_000));
            let event = format!(r#"42["echo",{}1{}]"#, "[".repeat(128), "]".repeat(128));
            ground.packets(&[&deep, &event, &deep.replace('[', "{\"a\":")])
        },
        answers: "3 x close 1002",
        counters: &[(CLIENT_ERRORS, "invalid_json", 2.0), (CLIENT_ERRORS, "invalid_payload", 1.0)],
    },
    Attack {
        name: "names of events that are the library's own, in disguise too",
        run: |ground| ground.packets(&[r#"42["disconnect"]"#, r#"42["\u0063onnect"]"#, r#"42["newListener"]"#]),
        answers: "3 x close 1002",
        counters: &[(CLIENT_ERRORS, "reserved_event_name", 3.0)],
    },
    Attack {
        name: "packets out of their order",
        run: |ground| {
            let connect = format!(r#"40{{"token":"{}"}}"#, good("p9"));
            let mut answers = Answers::default();
            for packets in
                [&[r#"42["who"]"#][..], &[r#"430["who"]"#], &["41"], &[&connect, "40"], &["2"], &["9"], &[""]]
            {
                let mut wire = ground.engine_io("");
                for packet in packets {
                    wire.write(text(packet));
                }
                answers.add(&without_sids(&heard(&mut wire)));
            }
            answers.into()
        },
        answers: "3 x close 1002; 40{\"sid\":\"…\"}, close 1002; 3 x close 1002",
        counters: &[
            (CLIENT_ERRORS, "not_connected", 3.0),
            (CLIENT_ERRORS, "connected_twice", 1.0),
            (CLIENT_ERRORS, "heartbeat_direction", 1.0),
            (CLIENT_ERRORS, "unknown_type", 1.0),
            (CLIENT_ERRORS, "empty", 1.0),
        ],
    },
    Attack {
        name: "10,000 namespaces CONNECT",
        run: |ground| {
            let mut wire = ground.engine_io("");
            let mut answers = Answers::default();
            for number in 0..10_000 {
                wire.write(text(&format!("40/n{number},")));
                answers.add(&wire.text().replacen(&format!("/n{number},"), "/n…,", 1));
            }
            answers.leave(wire)
        },
        // Twice as many as there may be, at once; then each costs as much as the events of a socket, of which it has
        // a burst anew.
        answers: "200 x 44/n…,{\"message\":\"Invalid namespace\"}; \
            9800 x 44/n…,{\"message\":\"Too many attempts to connect\"}",
        counters: &[(RULE_REFUSALS, "unknown_namespace", 200.0), (RULE_REFUSALS, "connects", 9800.0)],
    },
    Attack {
        name: "CONNECT with 1 MB, which would have to be kept",
        run: |ground| {
            let mut wire = ground.engine_io("");
            let mut answers = Answers::default();
            for bytes in [33_000, 900_000] {
                wire.write(text(&format!(r#"40{{"token":"{}"}}"#, "x".repeat(bytes))));
                answers.add(&wire.text());
            }
            answers.leave(wire)
        },
        answers: r#"2 x 44{"message":"auth has more than 32768 bytes"}"#,
        counters: &[(RULE_REFUSALS, "auth_bytes", 2.0)],
    },
    Attack {
        name: "names of namespaces and events of 900 KB",
        run: |ground| {
            let mut wire = ground.socket_io();
            let name = "n".repeat(900_000);
            let mut answers = Answers::default();
            for packet in [format!("40/{name},"), format!("42[\"{name}\"]"), format!("427[\"{name}\",1]")] {
                wire.write(text(&packet));
                answers.add(&wire.text().replace(&name, "…"));
            }
            answers.add(&wire.text().replace(&name, "…"));
            answers.leave(wire)
        },
        answers: "44/…,{\"message\":\"Invalid namespace\"}; \
            2 x 42[\"error\",{\"message\":\"no rule allows this\",\"event\":\"…\"}]; \
            437[{\"error\":{\"message\":\"no rule allows this\",\"event\":\"…\"}}]",
        counters: &[(RULE_REFUSALS, "unknown_namespace", 1.0), (RULE_REFUSALS, "unknown_event", 2.0)],
    },
    Attack {
        name: "10,000 acknowledgements that nobody asked for",
        run: |ground| {
            let mut wire = ground.socket_io();
            for number in 0..10_000 {
                wire.write(text(&format!("43{number}[1]")));
            }
            wire.write(text(r#"42["echo","still here"]"#));
            Answers::of(&wire.text()).leave(wire)
        },
        answers: r#"42["echo","still here"]"#,
        counters: &[("roomcast_acks_ignored_total", "", 10_000.0)],
    },
    Attack {
        name: "numbers of acknowledgements that no number is",
        run: |ground| ground.packets(&["4318446744073709551616[]", "4299999999999999999999999[\"who\"]"]),
        answers: "2 x close 1002",
        counters: &[(CLIENT_ERRORS, "ack_id_too_large", 2.0)],
    },
    // ---- rooms ----
    Attack {
        name: "10,000 joins",
        run: |ground| {
            let mut wire = ground.raw();
            let mut answers = Answers::default();
            for number in 0..10_000 {
                wire.write(text(&watch(&number.to_string())));
                answers.add(&wire.text().replace(&format!("\"{number}\""), "…"));
            }
            answers.leave(wire)
        },
        // It is in two already.
        answers: "126 x {\"type\":\"watching\",\"data\":{\"trainNo\":…}}; 9874 x {\"type\":\"error\",\"data\":{\
            \"message\":\"this would make 129 rooms; a socket can be in 128\",\"event\":\"watch\"}}",
        counters: &[(RULE_REFUSALS, "rooms_per_socket", 9874.0)],
    },
    Attack {
        name: "more events than a socket may send",
        run: |ground| {
            let mut wire = ground.raw();
            let mut answers = Answers::default();
            let stream = wire.stream();
            let messages = text(r#"{"type":"no such"}"#).repeat(20_000);
            let writing = std::thread::spawn(move || { stream }.write_all(&messages).unwrap());
            let refusal = r#"{"type":"error","data":{"message":"this is one event too many"#;
            for _ in 0..20_000 {
                let is_refused = wire.text().starts_with(refusal);
                answers.add(if is_refused { "one too many" } else { "an answer" });
            }
            writing.join().unwrap();
            // While this went on, another event was allowed each second.
            let about = |n: usize, least: usize| assert!((least..least + 120).contains(&n), "{n} of {least}");
            about(answers.count("an answer"), 10_000);
            about(20_000 - answers.count("one too many"), 10_000);
            Answers::of("as many as are allowed").leave(wire)
        },
        answers: "as many as are allowed",
        counters: &[],
    },
    Attack {
        name: "names of rooms with NUL, of 10 KB, of nothing",
        run: |ground| {
            let mut wire = ground.raw();
            let mut answers = Answers::default();
            for name in ["\\u0000", "a\\u0000b", "\\u001f", &"x".repeat(10_000)] {
                wire.write(text(&watch(name)));
                answers.add(&wire.text());
            }
            for data in ["7", "null", "{}", "[\"a\"]", "true"] {
                wire.write(text(&format!(r#"{{"type":"watch","data":{{"trainNo":{data}}}}}"#)));
                answers.add(&wire.text());
            }
            answers.leave(wire)
        },
        answers: "3 x {\"type\":\"error\",\"data\":{\"message\":\"the room name contains a control character\",\
            \"event\":\"watch\"}}; \
            {\"type\":\"error\",\"data\":{\"message\":\"the room name has 10006 bytes; at most 200 are allowed\",\
            \"event\":\"watch\"}}; \
            5 x {\"type\":\"error\",\"data\":{\"message\":\"not allowed\",\"event\":\"watch\"}}",
        counters: &[(RULE_REFUSALS, "room_name", 4.0), (RULE_REFUSALS, "event", 5.0)],
    },
    Attack {
        name: "names of rooms that look like patterns and paths",
        run: |ground| {
            let mut wire = ground.raw();
            let mut answers = Answers::default();
            let names = ["*", "/", "../admin_dashboard", "%2e", "{data.trainNo}", "__proto__", "\u{202e}", "12951 "];
            for name in names {
                wire.write(text(&watch(name)));
                answers.add(&wire.text().replace(name, "…"));
            }
            // They are names like others: what is said in them comes, and nothing that is said elsewhere.
            let mut publisher = ground.publisher.borrow_mut();
            for room in ["train_12951", "train_", "admin_dashboard", "train_x"] {
                let receipt = publisher.ask(&format!(r#"{{"room":"{room}","event":"secret","id":1}}"#));
                assert_eq!(receipt["ok"], true);
            }
            for name in names {
                let receipt = publisher.ask(&format!(r#"{{"room":"train_{name}","event":"own","id":1}}"#));
                assert_eq!(receipt["ok"], true);
                answers.add(&wire.text());
            }
            answers.leave(wire)
        },
        answers: "8 x {\"type\":\"watching\",\"data\":{\"trainNo\":\"…\"}}; 8 x {\"type\":\"own\"}",
        counters: &[],
    },
    // ---- raw messages ----
    Attack {
        name: "raw messages that are no events",
        run: |ground| {
            let mut wire = ground.raw();
            let mut answers = Answers::default();
            let deep = "[".repeat(100_000);
            for message in
                ["", "[]", "{}", r#"{"type":1}"#, r#"{"type":"who","type":"watch"}"#, &deep, "{\"type\":\"\\ud800\"}"]
            {
                wire.write(text(message));
                let answer = wire.text();
                let message = answer.strip_prefix(r#"{"type":"error","data":{"message":""#);
                answers.add(message.and_then(|message| message.strip_suffix("\"}}")).unwrap_or(&answer));
            }
            wire.write(frame(true, wire::BINARY, b"{}"));
            answers.add(&heard(&mut wire));
            answers.leave(wire)
        },
        answers: "the message is not JSON: there is no value; the message is not a JSON object; \
            the message has no \\\"type\\\", which names the event; the message's \\\"type\\\" is not a string; \
            the message has \\\"type\\\" twice; the message is not JSON: nested more than 128 levels deep at byte 128; \
            the message is not JSON: \\\\ud800 at byte 9 is half of a character; write both halves, or leave it out; \
            close 1003",
        counters: &[
            (CLIENT_ERRORS, "invalid_json", 3.0),
            (CLIENT_ERRORS, "not_an_object", 1.0),
            (CLIENT_ERRORS, "type_missing", 1.0),
            (CLIENT_ERRORS, "type_not_a_string", 1.0),
            (CLIENT_ERRORS, "duplicate_key", 1.0),
            (CLIENT_ERRORS, "binary_on_raw", 1.0),
        ],
    },
    // ---- HTTP ----
    Attack {
        name: "header bombs",
        run: |ground| {
            let long = get("/ws").replace("\r\n\r\n", &format!("\r\nX: {}\r\n\r\n", "x".repeat(9000)));
            let many = get("/ws").replace("\r\n\r\n", &format!("{}\r\n\r\n", "\r\nX: x".repeat(100)));
            let path = get(&format!("/{}", "a".repeat(9000)));
            ground.requests([long, many, path, format!("GET / HTTP/1.1\r\n{}", "x".repeat(100_000))])
        },
        answers: "4 x 431 close",
        counters: &[(HTTP_REFUSED, "too_long", 3.0), (HTTP_REFUSED, "too_many_headers", 1.0)],
    },
    Attack {
        name: "queries of 4,000 parameters, each to be read with each event",
        run: |ground| ground.requests([handshake(&format!("/ws?a{}", "&a".repeat(3900)))]),
        answers: "400 close",
        counters: &[(HTTP_REFUSED, "too_many_parameters", 1.0)],
    },
    Attack {
        name: "20,000 requests in one go",
        run: |ground| {
            let mut http = ground.http();
            let requests = get(&format!("{POLLING}&sid=AAAAAAAAAAAAAAAAAAAA")).repeat(20_000);
            let mut stream = http.stream();
            let writing = std::thread::spawn(move || stream.write_all(requests.as_bytes()).unwrap());
            let mut answers = Answers::default();
            for _ in 0..20_000 {
                answers.add(&http.response().status.to_string());
            }
            writing.join().unwrap();
            answers.leave(http)
        },
        answers: "20000 x 400",
        counters: &[(HTTP_REFUSED, "unknown_sid", 20_000.0)],
    },
    Attack {
        name: "requests in requests",
        run: |ground| {
            let hidden = get("/hidden");
            let shapes = [
                ("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n", "0\r\n\r\n"),
                ("Content-Length: 5\r\nContent-Length: 6\r\n\r\n", "3"),
                ("Content-Length: +1\r\n\r\n", "3"),
                ("Transfer-Encoding : chunked\r\n\r\n", "0\r\n\r\n"),
                ("X: a\nContent-Length: 1\r\n\r\n", ""),
                ("X: a\r\n Content-Length: 1\r\n\r\n", "3"),
                ("Transfer-Encoding: xchunked\r\n\r\n", "0\r\n\r\n"),
                ("Transfer-Encoding: chunked\r\n\r\n", "1;a\nb\r\n3\r\n0\r\n\r\n"),
            ];
            ground.requests(
                shapes.map(|(lines, body)| format!("POST {POLLING} HTTP/1.1\r\nHost: a\r\n{lines}{body}{hidden}")),
            )
        },
        answers: "8 x 400 close",
        counters: &[
            (HTTP_REFUSED, "length_and_coding", 1.0),
            (HTTP_REFUSED, "content_lengths", 1.0),
            (HTTP_REFUSED, "content_length", 1.0),
            (HTTP_REFUSED, "malformed", 2.0),
            (HTTP_REFUSED, "bare_line_feed", 1.0),
            (HTTP_REFUSED, "coding_open_ended", 1.0),
            (HTTP_REFUSED, "chunk_line", 1.0),
        ],
    },
    Attack {
        name: "other protocols, paths and methods",
        run: |ground| {
            let requests = [
                "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
                "\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03".to_owned(),
                get("/socket.io/../metrics"),
                get("http://127.0.0.1:3200/metrics"),
                "CONNECT 127.0.0.1:3200 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
                "GET / HTTP/1.1\r\n\r\n".to_owned(),
                get("/").replace("Host: test", "Host: a\r\nHost: b"),
            ];
            ground.requests(requests)
        },
        answers: "505 close; 400 close; 2 x 404 close; 3 x 400 close",
        counters: &[
            (HTTP_REFUSED, "http_version", 1.0),
            (HTTP_REFUSED, "unknown_path", 2.0),
            (HTTP_REFUSED, "malformed", 1.0),
            (HTTP_REFUSED, "target", 1.0),
            (HTTP_REFUSED, "host", 2.0),
        ],
    },
    Attack {
        name: "pages of origins that are not allowed",
        run: |ground| {
            let origins =
                ["https://evil.example", "https://app.example.evil.example", "http://app.example", "null", ""];
            let of = |origin: &str| handshake("/ws").replace("Host: test", &format!("Host: test\r\nOrigin: {origin}"));
            ground.requests(origins.map(of))
        },
        answers: "5 x 403 close",
        counters: &[(HTTP_REFUSED, "origin", 5.0)],
    },
    Attack {
        name: "500 handshakes, byte by byte",
        run: |ground| {
            let slow: Vec<Http> = (0..500).map(|_| ground.http()).collect();
            let request = handshake("/ws");
            for byte in request.as_bytes()[..20].chunks(1) {
                slow.iter().for_each(|http| {
                    let _ = http.stream().write_all(byte);
                });
            }
            // They are there while an honest client comes, and only then told to go.
            ground.is_served("among 500 slow handshakes");
            let mut answers = Answers::default();
            for mut http in slow {
                answers.add(&status(&mut http));
            }
            answers.into()
        },
        answers: "500 x 408 close",
        counters: &[(HTTP_REFUSED, "handshake_timeout", 500.0)],
    },
    Attack {
        name: "2,000 connections of one address",
        run: |ground| {
            let all: Vec<Http> = (0..2000).map(|_| ground.http()).collect();
            // All have been looked at when those have been told that are too many.
            ground.server.await_metric(HTTP_REFUSED, &[("reason", "connections_per_ip")], 1400.0);
            let mut answers = Answers::default();
            for http in &all {
                let mut stream = http.stream();
                stream.set_nonblocking(true).unwrap();
                let mut said = [0; 12];
                answers.add(match stream.read(&mut said) {
                    Ok(_) => str::from_utf8(&said).unwrap(),
                    Err(_) => "may stay",
                });
            }
            answers.sorted().leave(all)
        },
        answers: "1400 x HTTP/1.1 429; 600 x may stay",
        counters: &[(HTTP_REFUSED, "connections_per_ip", 1400.0)],
    },
    Attack {
        name: "sessions one after the other",
        run: |ground| {
            let mut answers = Answers::default();
            for _ in 0..3000 {
                let mut http = ground.http();
                answers.add(&http.ask(handshake("/ws")).status.to_string());
                http.close();
            }
            assert_eq!(answers.count("101") + answers.count("429"), 3000);
            assert!(answers.count("101") >= 1000 && answers.count("429") > 0, "{}", answers.tally());
            Answers::of("a thousand, and a few each second").into()
        },
        answers: "a thousand, and a few each second",
        counters: &[],
    },
    // ---- polling ----
    Attack {
        name: "guessing the ids of sessions",
        run: |ground| {
            let victim = Polling::open(&ground.server, "/socket.io/");
            let mut http = ground.http();
            let mut answers = Answers::default();
            for number in 0..1000 {
                // All that differ from a session's in one place, and others.
                let mut sid = victim.sid.clone().into_bytes();
                let place = number % sid.len();
                sid[place] = if sid[place] == b'A' { b'B' } else { b'A' };
                let sid = if number % 3 == 0 { format!("{number:020}") } else { String::from_utf8(sid).unwrap() };
                let response = http.ask(get(&format!("{POLLING}&sid={sid}")));
                answers.add(&format!("{} {}", response.status, response.body));
            }
            answers.leave(victim)
        },
        answers: r#"1000 x 400 {"code":1,"message":"Session ID unknown"}"#,
        counters: &[(HTTP_REFUSED, "unknown_sid", 1000.0)],
    },
    Attack {
        name: "a socket's public id for its session's",
        run: |ground| {
            let mut victim = ground.socket_io();
            victim.write(text(r#"42["who"]"#));
            let said = victim.text();
            let sid = &said[said.find("\"sid\":\"").unwrap() + 7..said.len() - 3];
            let target = format!("{POLLING}&sid={sid}");
            let upgrade = handshake(&target.replace("polling", "websocket"));
            let requests = [get(&target), post(&target, "41"), upgrade];
            ground.requests(requests).and(victim)
        },
        answers: "2 x 400; 400 close",
        counters: &[(HTTP_REFUSED, "unknown_sid", 3.0)],
    },
    Attack {
        name: "200 bodies, byte by byte",
        run: |ground| {
            let mut slow = Vec::new();
            for _ in 0..200 {
                let session = Polling::open(&ground.server, "/socket.io/");
                let http = ground.http();
                let head = format!("POST {} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n4", session.target);
                http.stream().write_all(head.as_bytes()).unwrap();
                slow.push((http, session));
            }
            ground.is_served("among 200 slow bodies");
            let mut answers = Answers::default();
            for (http, session) in &mut slow {
                answers.add(&status(http));
                session.is_gone();
            }
            answers.into()
        },
        answers: "200 x 408 close",
        counters: &[(HTTP_REFUSED, "body_timeout", 200.0)],
    },
    Attack {
        name: "1,000 polls of one session at the same time",
        run: |ground| {
            let session = Polling::open(&ground.server, "/socket.io/");
            let mut polls: Vec<Http> = Vec::new();
            for _ in 0..500 {
                let mut http = ground.http();
                http.write([get(&session.target), get(&session.target)].concat());
                polls.push(http);
            }
            let mut answers = Answers::default();
            for mut http in polls {
                for _ in 0..2 {
                    let response = http.response();
                    assert!(response.status == 200 || response.status == 400, "{}", response.head);
                }
            }
            session.is_gone();
            answers.add("the session is closed");
            answers.into()
        },
        answers: "the session is closed",
        counters: &[(CLIENT_ERRORS, "overlapping_polls", 1.0)],
    },
    Attack {
        name: "bodies of other lengths than they say",
        run: |ground| {
            let mut answers = Answers::default();
            let bodies = [
                ("Content-Length: 5\r\n\r\n", "42[\"who\"]"),
                ("Content-Length: 18446744073709551615\r\n\r\n", "4"),
                ("Content-Length: 1000001\r\n\r\n", "4"),
                ("Transfer-Encoding: chunked\r\n\r\n", "fffffffffffffffff\r\n"),
            ];
            for (lines, body) in bodies {
                let session = Polling::open(&ground.server, "/socket.io/");
                let mut http = ground.http();
                http.write(format!("POST {} HTTP/1.1\r\nHost: a\r\n{lines}{body}", session.target));
                answers.add(&status(&mut http));
            }
            // One that promises more and goes.
            let session = Polling::open(&ground.server, "/socket.io/");
            let mut http = ground.http();
            http.write(format!("POST {} HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n4", session.target));
            http.stream().shutdown(Shutdown::Write).unwrap();
            http.ends();
            answers.add("the end");
            answers.into()
        },
        answers: "400; 3 x 413 close; the end",
        counters: &[],
    },
    Attack {
        name: "400,000 packets in one POST",
        run: |ground| {
            let mut session = Polling::open(&ground.server, "/socket.io/");
            let mut http = ground.http();
            http.write(post(&session.target, &vec!["3"; 400_000].join("\x1e")));
            ground.is_served("among 400,000 packets");
            let answers = Answers::of(&status(&mut http));
            session.post(&["3"]);
            answers.leave(session)
        },
        answers: "200",
        counters: &[],
    },
    Attack {
        name: "two WebSockets that want one session",
        run: |ground| {
            let session = Polling::open(&ground.server, "/socket.io/");
            let target = session.target.replace("polling", "websocket");
            let [mut first, mut second] = [(); 2].map(|()| ground.websocket(&target));
            let mut answers = Answers::of(&heard(&mut second));
            first.write(text("2probe"));
            answers.add(&first.text());
            first.write(text("41"));
            answers.add(&heard(&mut first));
            answers.leave(session)
        },
        answers: "close 1000; 3probe; close 1000",
        counters: &[(CLIENT_ERRORS, "upgrade_failed", 1.0)],
    },
    Attack {
        name: "20 clients that read nothing of 20 MB",
        run: |ground| {
            let silent: Vec<Wire> =
                (0..20).map(|_| ground.websocket(&format!("/ws?trainNo=silent&token={}", good("p9")))).collect();
            ground.server.await_metric("roomcast_sockets", &[], 21.0);
            let line = format!(r#"{{"room":"train_silent","event":"x","data":"{}","id":1}}"#, "x".repeat(100_000));
            for _ in 0..200 {
                assert_eq!(ground.publisher.borrow_mut().ask(&line)["ok"], true);
            }
            ground.server.await_metric("roomcast_sockets", &[], 1.0);
            Answers::of("they are cut").leave(silent)
        },
        answers: "they are cut",
        counters: &[(CLOSES, "slow consumer", 20.0)],
    },
    // ---- publishers ----
    Attack {
        name: "publishers without the token",
        run: |ground| {
            let long = "x".repeat(100_000);
            ground.strangers(&[
                r#"{"op":"auth","token":"a-token-that-the-tests-publisi"}"#,
                r#"{"op":"auth","token":"a-token-that-the-tests-publish "}"#,
                r#"{"op":"auth","token":""}"#,
                r#"{"op":"auth","token":null}"#,
                r#"{"op":"auth"}"#,
                r#"{"op":"stats"}"#,
                r#"{"event":"x"}"#,
                "POST / HTTP/1.1",
                "\u{16}\u{3}\u{1}",
                &long,
            ])
        },
        answers: "3 x the token is not the one in the server's ingest.token_file; the connection is closed; \
            7 x this port wants a token",
        counters: &[(PUBLISHER_CLOSES, "token_invalid", 3.0), (PUBLISHER_CLOSES, "auth_missing", 7.0)],
    },
    Attack {
        name: "300 publishers who say nothing",
        run: |ground| {
            let silent: Vec<Publisher> = (0..300).map(|_| Publisher::connect(&ground.server)).collect();
            ground.is_served("among 300 silent publishers");
            let mut answers = Answers::default();
            for mut publisher in silent {
                answers.add(&publisher.rest_or_reset());
            }
            answers.into()
        },
        answers: "300 x ",
        counters: &[(PUBLISHER_CLOSES, "auth_timeout", 300.0)],
    },
    Attack {
        name: "10,000 lines of garbage",
        run: |ground| {
            let mut publisher = ground.publisher();
            let mut answers = Answers::default();
            for line in ["GARBAGE", "\u{0}\u{1}", "{", "[]", "{\"event\":1}", "{\"room\":\"\\u0000\",\"event\":\"e\"}"]
            {
                publisher.line(line);
                answers.add(publisher.receipt()["error"].as_str().unwrap());
            }
            publisher.bytes("garbage\n".repeat(10_000));
            for _ in 0..10_000 {
                answers.add(if publisher.receipt()["ok"] == false { "refused" } else { "taken" });
            }
            answers.into()
        },
        answers: "the line is not valid JSON: expected a value, found 'G' at byte 0; \
            the line is not valid JSON: expected a value, found '\\0' at byte 0; \
            the line is not valid JSON: expected a key in double quotes or '}', found the end at byte 1; \
            a line must be a JSON object such as {\"event\":\"hello\"}, not an array; \
            \"event\" must be a string, not a number; \"room\": the room name contains a control character; \
            10000 x refused",
        counters: &[
            (LINE_ERRORS, "json", 10_003.0),
            (LINE_ERRORS, "shape", 1.0),
            (LINE_ERRORS, "event", 1.0),
            (LINE_ERRORS, "room", 1.0),
        ],
    },
    Attack {
        name: "a line of 100 MB",
        run: |ground| {
            let before = ground.server.anonymous_bytes();
            let mut publisher = ground.publisher();
            let piece = vec![b'a'; 1 << 20];
            publisher.bytes("{\"event\":\"");
            for _ in 0..100 {
                publisher.bytes(&piece);
            }
            let grown = ground.server.anonymous_bytes().saturating_sub(before);
            assert!(grown < 16 << 20, "{grown} bytes more");
            publisher.bytes("\"}\n");
            let mut answers = Answers::of(publisher.receipt()["error"].as_str().unwrap());
            answers.add(&publisher.ask(r#"{"event":"x","room":"nobody","id":1}"#)["ok"].to_string());
            answers.into()
        },
        answers: "the line has more than 1048576 bytes; send less data in one event or raise ingest.line_bytes_max; \
            true",
        counters: &[(LINE_ERRORS, "line_too_long", 1.0)],
    },
    // ---- operators ----
    Attack {
        name: "pages that a browser of this machine shows, and names that mean this machine",
        run: |ground| {
            let emit = |lines: &str| {
                let event = r#"{"room":"train_12951","event":"stolen"}"#;
                let length = event.len();
                format!("POST /api/emit HTTP/1.1\r\n{lines}Content-Length: {length}\r\n\r\n{event}")
            };
            let json = "Content-Type: application/json\r\n";
            let local = "Host: 127.0.0.1\r\n";
            ground.operators(&[
                &emit(&format!("{local}{json}Origin: https://evil.example\r\n")),
                &emit(&format!("{local}{json}Origin: null\r\n")),
                &emit(&format!("{local}Content-Type: text/plain\r\n")),
                &emit(&format!("{local}Content-Type: application/x-www-form-urlencoded\r\n")),
                &emit(local),
                &emit(&format!("Host: evil.example\r\n{json}")),
                &emit(&format!("Host: 127.0.0.1.evil.example\r\n{json}")),
                "GET /api/rooms HTTP/1.1\r\nHost: evil.example:3200\r\n\r\n",
                "GET /metrics HTTP/1.1\r\nHost: evil.example:3200\r\n\r\n",
                "GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n",
                "OPTIONS /api/emit HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: https://evil.example\r\n\r\n",
            ])
        },
        answers: "2 x 403 without ops.token_file the API is not for web pages: the request has an Origin; \
            3 x 403 without ops.token_file the API takes Content-Type: application/json only; \
            3 x 403 without ops.token_file the API is called localhost, 127.0.0.1 or [::1]; the Host is another; \
            2 x 403 the Host is neither an address nor a name that is listed in ops.hosts; \
            403 without ops.token_file the API is not for web pages: the request has an Origin",
        counters: &[(OPERATOR_REQUESTS, "403", 11.0)],
    },
    Attack {
        name: "600 connections to the operators' port that say nothing",
        run: |ground| {
            let connect = |_| TcpStream::connect(ground.server.admin).unwrap();
            let silent: Vec<TcpStream> = (0..600).map(connect).collect();
            let health = http(ground.server.admin, "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
            Answers::of(&health.status.to_string()).leave(silent)
        },
        answers: "200",
        counters: &[],
    },
    Attack {
        name: "the API with other things than it wants",
        run: |ground| {
            let post = |path: &str, body: &str| {
                let length = body.len();
                let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n");
                format!("{head}Content-Length: {length}\r\n\r\n{body}")
            };
            ground.operators(&[
                &post("/api/emit", &"[".repeat(100_000)),
                &post("/api/emit", ""),
                &post("/api/emit", "7"),
                &post("/api/disconnect", "{}"),
                &post("/api/join", r#"{"where":{"all":true},"rooms":["\u0000"]}"#),
                "POST /api/emit HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                    Content-Length: 99999999999\r\n\r\n",
                "GET /api/rooms/..%2f..%2fetc%2fpasswd HTTP/1.1\r\nHost: localhost\r\n\r\n",
                "GET /api/../metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
                "GET /api/sockets/%00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
                "GET /api/rooms?limit=99999999999999999999 HTTP/1.1\r\nHost: localhost\r\n\r\n",
            ])
        },
        answers: "400 the body is not valid JSON: nested more than 128 levels deep at byte 128; \
            400 the body is not valid JSON: there is no value; \
            400 the body must be an object or an array of objects, not a number; \
            400 \"op\":\"disconnect\" needs \"where\", to say whose sockets: {\"room\":\"…\"} or {\"all\":true}; \
            400 \"rooms\"[0]: the room name contains a control character; \
            413 the request body has more than 4194304 bytes; \
            404 nobody is in that room, and nothing was sent to it lately; \
            404 there is nothing at /api/../metrics; /api/openapi.json describes the API; \
            404 there is no such socket in the namespace; \
            400 \"limit\" must be an integer from 1 to 1000, not 99999999999999999999",
        counters: &[(OPERATOR_REQUESTS, "400", 6.0), (OPERATOR_REQUESTS, "404", 3.0), (OPERATOR_REQUESTS, "413", 1.0)],
    },
];

fn attacks(cores: usize) {
    let server = Server::start(&CONFIG.replace("{TESTS}", concat!(env!("CARGO_MANIFEST_DIR"), "/tests")), cores);
    let ground = Ground {
        publisher: RefCell::new(publisher(&server)),
        witness: RefCell::new(honest(&server)),
        server,
        row: Cell::new(0),
        events: Cell::new(0),
    };
    ground.is_served("before all attacks");
    let (descriptors, bytes) = (ground.server.metric("process_open_fds"), ground.server.anonymous_bytes());
    let mut faults = String::new();
    for attack in ATTACKS {
        ground.row.set(ground.row.get() + 1);
        let count = |metric: &str, reason: &str| match reason {
            "" => ground.server.metric(metric),
            status if status.starts_with(char::is_numeric) => ground.server.metric_where(metric, &[("status", status)]),
            _ => ground.server.metric_where(metric, &[("reason", reason)]),
        };
        let before: Vec<f64> = attack.counters.iter().map(|(metric, reason, _)| count(metric, reason)).collect();
        let Outcome { answers, open } = (attack.run)(&ground);
        ground.is_served(attack.name);
        let answers = answers.tally();
        if answers != attack.answers {
            faults += &format!("{}: answered\n  {answers}\ninstead of\n  {}\n", attack.name, attack.answers);
        }
        for ((metric, reason, grows), before) in attack.counters.iter().zip(before) {
            let expected = before + grows;
            let start = Instant::now();
            let mut last = before;
            while last != expected && start.elapsed().as_secs() < 3 {
                last = count(metric, reason);
            }
            if last != expected {
                faults += &format!("{}: {metric} {reason} grew by {} instead of {grows}\n", attack.name, last - before);
            }
        }
        drop(open);
    }
    assert!(faults.is_empty(), "{faults}");
    // Nothing is left of them.
    ground.server.await_metric("roomcast_connections", &[], 1.0);
    ground.server.await_metric("roomcast_sockets", &[], 1.0);
    ground.server.await_metric("roomcast_inbox_bytes", &[], 0.0);
    // Polling sessions outlive their connections; while there are any, each core has a socket that makes the kernel
    // note the time of packets.
    wait_until("descriptors are closed", || ground.server.metric("process_open_fds") <= descriptors + cores as f64);
    let grown = ground.server.anonymous_bytes().saturating_sub(bytes);
    println!("{} KB more memory than before, {} bytes of log", grown >> 10, ground.server.log().len());
    assert!(grown < 64 << 20, "{grown} bytes of memory are not given back");
    assert!(!ground.server.log().contains("eyJ"), "a token stands in the log:\n{}", ground.server.log());
    assert!(ground.server.log().len() < 10_000, "attackers can fill the log:\n{}", ground.server.log());
}

/// One server, those who are honest, and where the attackers of a row come from.
struct Ground {
    server: Server,
    publisher: RefCell<Publisher>,
    /// Is there from the beginning to the end.
    witness: RefCell<RawClient>,
    row: Cell<u8>,
    events: Cell<u32>,
}

impl Ground {
    /// Who was there before and who comes now both get an event that is published now.
    #[track_caller]
    fn is_served(&self, when: &str) {
        let start = Instant::now();
        let mut newcomer = honest(&self.server);
        // Its connection is open before it is in its room; this answer comes after.
        assert!(newcomer.ask(r#"{"type":"who"}"#).starts_with(r#"{"type":"you""#));
        let connected = start.elapsed();
        let number = self.events.replace(self.events.get() + 1);
        let published = Instant::now();
        let line = format!(r#"{{"room":"train_12951","event":"RAC_UPGRADE","data":{number},"id":{number}}}"#);
        assert_eq!(self.publisher.borrow_mut().ask(&line)["ok"], true);
        let event = format!(r#"{{"type":"RAC_UPGRADE","data":{number}}}"#);
        for client in [&mut *self.witness.borrow_mut(), &mut newcomer] {
            let mut got = client.next();
            while got.starts_with(r#"{"type":"secret""#) {
                got = client.next();
            }
            assert_eq!(got, event);
        }
        let (connected, served) = (connected.as_secs_f64() * 1e3, published.elapsed().as_secs_f64() * 1e3);
        println!("{connected:8.1} ms to connect, {served:6.1} ms to be served: {when}");
    }

    /// Each row has an address of its own, so that what one uses up is not missing in the next.
    fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(127, 66, 0, self.row.get())
    }

    fn http(&self) -> Http {
        Http::connect_from(self.address(), self.server.listen)
    }

    /// A publisher who has said the token.
    fn publisher(&self) -> Publisher {
        publisher(&self.server)
    }

    /// What publishers each are told who begin with this, and must hear nothing more. What they say after it is lost.
    fn strangers(&self, beginnings: &[&str]) -> Outcome {
        let mut answers = Answers::default();
        for beginning in beginnings {
            let mut publisher = Publisher::connect(&self.server);
            publisher.bytes(format!("{beginning}\n{{\"room\":\"train_12951\",\"event\":\"stolen\"}}\n"));
            let answer = publisher.receipt();
            answers.add(answer["error"].as_str().unwrap().split(':').next().unwrap());
            assert_eq!(publisher.rest_or_reset(), "");
        }
        answers.into()
    }

    /// What the operators' port answers to each of these requests.
    fn operators(&self, requests: &[&str]) -> Outcome {
        let one = |request: &&str| {
            let response = http(self.server.admin, request);
            let body: serde_json::Value = serde_json::from_str(&response.body).unwrap_or_default();
            format!("{} {}", response.status, body["error"].as_str().unwrap_or_default())
        };
        requests.iter().map(one).collect::<Answers>().into()
    }

    fn websocket(&self, path: &str) -> Wire {
        let mut http = self.http();
        let response = http.ask(handshake(path));
        assert_eq!(response.status, 101, "{}", response.body);
        http.into()
    }

    /// A client of the raw endpoint.
    fn raw(&self) -> Wire {
        self.websocket(&format!("/ws?token={}", good("p9")))
    }

    /// An Engine.IO session over WebSocket whose handshake is read.
    fn engine_io(&self, query: &str) -> Wire {
        let mut wire = self.websocket(&format!("{SOCKET_IO}{query}"));
        assert!(wire.text().starts_with("0{\"sid\":"));
        wire
    }

    /// A Socket.IO client in the main namespace.
    fn socket_io(&self) -> Wire {
        let mut wire = self.engine_io("");
        wire.write(text(&format!(r#"40{{"token":"{}"}}"#, good("p9"))));
        assert!(wire.text().starts_with("40{\"sid\":"));
        wire
    }

    /// What a raw client each hears that sends this.
    fn raw_frames(&self, attempts: impl IntoIterator<Item = Vec<u8>>) -> Outcome {
        attempts.into_iter().map(|bytes| after(self.raw(), &bytes)).collect::<Answers>().into()
    }

    /// What a connected Socket.IO client each hears that sends this.
    fn socket_io_frames(&self, attempts: impl IntoIterator<Item = Vec<u8>>) -> Outcome {
        attempts.into_iter().map(|bytes| after(self.socket_io(), &bytes)).collect::<Answers>().into()
    }

    /// What a connected Socket.IO client each hears that sends this packet.
    fn packets(&self, packets: &[&str]) -> Outcome {
        self.socket_io_frames(packets.iter().map(|packet| text(packet)))
    }

    /// What clients of either kind hear who connect with these tokens; without any, if there are none. Both hear the
    /// same.
    fn tokens(&self, tokens: impl IntoIterator<Item = String>) -> Outcome {
        let mut answers = Answers::default();
        for token in tokens {
            let mut wire = self.engine_io("");
            wire.write(text(&format!(r#"40{{"token":"{token}"}}"#)));
            let answer = refused(&wire.text());
            // In a query, "%" and spaces have a meaning.
            let encoded: String = token.bytes().map(|byte| format!("%{byte:02x}")).collect();
            let told =
                heard(&mut self.websocket(&format!("/ws?token={}", if token.len() < 1000 { encoded } else { token })));
            assert_eq!(told.strip_suffix(", close 4401").map(refused), Some(answer.clone()), "{told}");
            answers.add(&answer);
        }
        if answers.0.is_empty() {
            let mut wire = self.engine_io("");
            wire.write(text("40"));
            answers.add(&wire.text());
            answers.add(&heard(&mut self.websocket("/ws")));
        }
        answers.into()
    }

    /// What is answered to each of these requests, on a connection of its own.
    fn requests(&self, requests: impl IntoIterator<Item = String>) -> Outcome {
        let one = |request: String| {
            let mut http = self.http();
            http.write(request);
            status(&mut http)
        };
        requests.into_iter().map(one).collect::<Answers>().into()
    }
}

fn publisher(server: &Server) -> Publisher {
    let mut publisher = Publisher::connect(server);
    let token = include_str!("attacks/publish.token").trim_end();
    let receipt = publisher.ask(&format!(r#"{{"op":"auth","token":"{token}","id":1}}"#));
    assert_eq!(receipt["ok"], true, "{receipt}");
    publisher
}

/// A passenger of the train that everything honest is about.
fn honest(server: &Server) -> RawClient {
    RawClient::connect_to(server, &format!("/ws?trainNo=12951&token={}", good("p1")))
}

const SECRET: &[u8] = include_bytes!("attacks/hs256.secret").trim_ascii_end();
const OTHER_RSA: &[u8] = include_bytes!("keys/other-rsa.private.pem");

enum Signer<'a> {
    Secret(&'a [u8]),
    Rsa(&'a [u8]),
}

/// Header and claims, whatever they are, signed.
fn token(header: &str, claims: &str, signer: Signer<'_>) -> String {
    let part = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
    let signed = format!("{}.{}", part(header), part(claims));
    let (key, algorithm) = match signer {
        Signer::Secret(secret) => (EncodingKey::from_secret(secret), Algorithm::HS256),
        Signer::Rsa(pem) => (EncodingKey::from_rsa_pem(pem).unwrap(), Algorithm::RS256),
    };
    format!("{signed}.{}", sign(signed.as_bytes(), &key, algorithm).unwrap())
}

/// A good signature.
fn hs256(claims: &str) -> String {
    token(r#"{"alg":"HS256"}"#, claims, Signer::Secret(SECRET))
}

/// A passenger's claims, which hold for so long.
fn claims(sub: &str, seconds: u64) -> String {
    format!(r#"{{"sub":"{sub}","role":"PASSENGER","aud":"roomcast","exp":{}}}"#, unix_s() + seconds)
}

/// A passenger's good token.
fn good(sub: &str) -> String {
    hs256(&claims(sub, 3600))
}

fn unix_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

/// The message and the code in a refusal of a token, by either kind of endpoint.
fn refused(answer: &str) -> String {
    let json = &answer[answer.find('{').unwrap_or(0)..];
    let json: serde_json::Value = serde_json::from_str(json).unwrap_or_else(|error| panic!("{error} in {answer}"));
    let error = if json["type"] == "error" { &json["data"] } else { &json };
    format!("{} ({})", error["message"].as_str().unwrap(), error["data"]["code"].as_str().unwrap())
}

/// What is heard by who has sent `bytes`, to the end of the connection.
fn after(mut wire: Wire, bytes: &[u8]) -> String {
    // The server may have closed before all of it is sent.
    let _ = wire.stream().write_all(bytes);
    heard(&mut wire)
}

/// All that still comes, up to the close frame.
fn heard(wire: &mut Wire) -> String {
    let mut all = String::new();
    loop {
        match wire.frame() {
            (wire::CLOSE, payload) => {
                let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                return all + &format!("close {code}");
            }
            (_, payload) => all += &format!("{}, ", String::from_utf8_lossy(&payload)),
        }
    }
}

/// A response's status, and whether it is the connection's last.
fn status(http: &mut Http) -> String {
    let response = http.response();
    let close = if response.head.contains("\r\nConnection: close\r\n") { " close" } else { "" };
    format!("{}{close}", response.status)
}

fn without_sids(answer: &str) -> String {
    match answer.split_once("\"sid\":\"") {
        Some((before, after)) => format!("{before}\"sid\":\"…{}", &after[after.find('"').unwrap()..]),
        None => answer.to_owned(),
    }
}

/// A raw client's wish to join a room.
fn watch(train: &str) -> String {
    format!(r#"{{"type":"watch","data":{{"trainNo":"{train}"}}}}"#)
}

/// What a row was answered, in its order; what comes several times is counted.
#[derive(Default)]
struct Answers(Vec<(String, usize)>);

impl Answers {
    fn of(answer: &str) -> Answers {
        Answers(vec![(answer.to_owned(), 1)])
    }

    fn add(&mut self, answer: &str) {
        match self.0.last_mut() {
            Some((last, count)) if last == answer => *count += 1,
            _ => self.0.push((answer.to_owned(), 1)),
        }
    }

    fn count(&self, answer: &str) -> usize {
        self.0.iter().filter(|(a, _)| a == answer).map(|(_, count)| count).sum()
    }

    fn tally(&self) -> String {
        let one = |(answer, count): &(String, usize)| match count {
            1 => answer.clone(),
            _ => format!("{count} x {answer}"),
        };
        self.0.iter().map(one).collect::<Vec<_>>().join("; ")
    }

    /// In an order that does not depend on who was first.
    fn sorted(mut self) -> Answers {
        self.0.sort();
        let mut all = Answers::default();
        for (answer, count) in self.0 {
            (0..count).for_each(|_| all.add(&answer));
        }
        all
    }

    /// With what stays open until an honest client is served.
    fn leave(self, open: impl Any) -> Outcome {
        Outcome { answers: self, open: Box::new(open) }
    }
}

impl FromIterator<String> for Answers {
    fn from_iter<I: IntoIterator<Item = String>>(answers: I) -> Answers {
        let mut all = Answers::default();
        answers.into_iter().for_each(|answer| all.add(&answer));
        all
    }
}

impl Outcome {
    /// With one more thing that stays open.
    fn and(self, open: impl Any) -> Outcome {
        Outcome { open: Box::new((self.open, open)), ..self }
    }
}

impl From<Answers> for Outcome {
    fn from(answers: Answers) -> Outcome {
        answers.leave(())
    }
}
