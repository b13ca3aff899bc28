//! What the reference says of each table and key of the config. Words and examples only; bounds are where they are
//! checked, and the tests of the module above hold names, defaults and examples to the code.

use super::Otherwise::{Required, Unset, Value};
use super::{Section, key};

/// What values are. A key with this one has bounds.
pub(super) const NUMBER: &str = "whole number";
const ADDRESS: &str = "IP address and port";
const FLAG: &str = "true or false";
const STRING: &str = "string";
const STRINGS: &str = "array of strings";
const FILE: &str = "file name, from the config's folder";
const TEMPLATE: &str = "string with expressions in braces";
const TEMPLATES: &str = "array of strings with expressions in braces";
const CONDITION: &str = "true, false, or a CEL expression in a string";
const ANYTHING: &str = "any value; strings in it may have expressions in braces";
const ARGUMENTS: &str = "array of values as for `data`, or `\"{args}\"` for what came";
const TABLE: &str = "table";
const TABLES: &str = "tables, any number of them";
const ONE_OR_MORE: &str = "table or array of tables";

/// The tables in the order of the reference.
pub(super) const REFERENCE: &[Section] = &[
    Section {
        path: "server",
        header: "[server]",
        text: "Clients' port and the process.",
        frame: "[server]\n@",
        keys: &[
            key(
                "listen",
                ADDRESS,
                Value("\"127.0.0.1:3000\""),
                "\"0.0.0.0:3000\"",
                "Where clients connect. Port 0 picks a free one. Another address than loopback needs `auth.require = \
                 true`, or `public = true` here: without either the server does not start.",
            ),
            key(
                "cores",
                NUMBER,
                Value("0"),
                "4",
                "Cores to run on, each with a thread of its own that is pinned to a processor; 0 for all processors \
                 that the process may use. More cores than processors are not pinned, and the log warns.",
            ),
            key(
                "drain_ms_max",
                NUMBER,
                Value("10_000"),
                "30_000",
                "From SIGTERM or SIGINT until all connections are closed. A third of it is for what is under way, a \
                 third for closing one client after the other, the rest for the last ones' answers.",
            )
            .beyond(
                "connections that are left are closed without a close frame, \
                 `roomcast_closes_total{reason=\"shutdown\"}`.",
            ),
            key(
                "drain_clients_per_s",
                NUMBER,
                Value("0"),
                "2_000",
                "Clients that are sent away in a second then, on all cores together and in random order; 0 for as many \
                 as it takes to be done in a third of `drain_ms_max`. Set it to what the server that they come back to \
                 can take.",
            )
            .beyond("if that were too slow for `drain_ms_max`, clients go faster, and the log says so."),
            key(
                "public",
                FLAG,
                Value("false"),
                "true",
                "True allows another address than loopback although clients are not authenticated: rules and a proxy \
                 take care of it.",
            ),
            key(
                "trusted_proxies",
                STRINGS,
                Value("[]"),
                "[\"10.0.0.0/8\", \"fd00::/8\"]",
                "Addresses and networks of proxies whose `X-Forwarded-For` counts. The list in the header is read \
                 from its end; the first address that is not trusted is the client's, for rules (`ip`) and for \
                 limits by address.",
            ),
            key(
                "steer",
                "\"hash\" or \"cpu\"",
                Value("\"hash\""),
                "\"cpu\"",
                "Which core gets a new client: `hash` spreads them evenly; `cpu` is the core whose processor takes its \
                 packets in, for hosts that [`tuning/irq-affinity.sh`](../tuning/README.md) has set up.",
            ),
        ],
    },
    Section {
        path: "cors",
        header: "[cors]",
        text: "Which pages of other origins may poll over HTTP and open WebSockets. Programs send no `Origin` and \
               are not asked for one.",
        frame: "[cors]\n@",
        keys: &[
            key(
                "origins",
                STRINGS,
                Value("[]"),
                "[\"https://app.example\", \"https://*.example.com\", \"http://localhost:*\"]",
                "Origins as browsers write them: no slash at the end, no default port. A `*` stands for a part of \
                 the host or for any port; `\"null\"` is the origin of files and sandboxed frames; `\"*\"` alone is \
                 any origin. With an empty list responses have no CORS headers: pages of the server's own origin can \
                 poll, and all pages can open WebSockets. Without `--config` pages of `localhost` and `127.0.0.1` \
                 are let in.",
            )
            .beyond(
                "a page of another origin cannot read responses, as its browser keeps them from it, and gets 403 for \
                 a WebSocket, `roomcast_http_refused_total{reason=\"origin\"}`.",
            ),
            key(
                "credentials",
                FLAG,
                Value("false"),
                "true",
                "True: pages of these origins may send cookies along (`withCredentials`), and their cookies count as \
                 tokens. With `origins = [\"*\"]` any page on the web speaks in the name of its visitor.",
            ),
            key(
                "headers",
                STRINGS,
                Value("[]"),
                "[\"Authorization\"]",
                "Request headers that pages may set; empty for whatever they ask for.",
            ),
            key(
                "max_age_s",
                NUMBER,
                Value("0"),
                "600",
                "How long browsers may remember a preflight's answer; 0 does not say, and browsers take 5 s.",
            ),
            key(
                "check_websockets",
                FLAG,
                Value("true"),
                "false",
                "False: pages of any origin may open WebSockets, as browsers let them.",
            ),
        ],
    },
    Section {
        path: "auth",
        header: "[auth]",
        text: "Who clients are: JSON Web Tokens, verified by keys in files. Rules read what a token says as \
               `claims`. Without an `[[auth.key]]` tokens have no meaning. A token may have at most 16 KB.",
        frame: "[auth]\n@",
        keys: &[
            key(
                "require",
                FLAG,
                Value("false"),
                "true",
                "True: no namespace takes a client without a valid token, but for those with `require = false`.",
            )
            .beyond(
                "Socket.IO clients get `connect_error` with `err.data.code`; plain WebSockets get the event `error` \
                 and are closed with 4401; `roomcast_auth_refusals_total` counts both by the same code, such as \
                 `{reason=\"token_missing\"}`.",
            )
            .with("key = [{ jwks = \"keys/jwks.json\" }]"),
            key(
                "sources",
                STRINGS,
                Value("[\"auth.token\", \"authorization\", \"query.token\", \"cookie.token\"]"),
                "[\"auth.token\", \"cookie.session\"]",
                "Where a token may be. The first place that has one is used, alone. `auth.PATH` is in the payload \
                 that Socket.IO clients connect with, `authorization` the header after `Bearer`, `query.NAME` a \
                 parameter of the URL, `cookie.NAME` a cookie. Cookies count for pages of the server's own origin, \
                 and for `cors.origins` with `cors.credentials`. Rules never see the token itself.",
            ),
            key(
                "audience",
                STRINGS,
                Value("[]"),
                "[\"roomcast\"]",
                "A token's `aud` must be, or hold, one of these; empty: it is not looked at.",
            )
            .beyond("the token is refused, `roomcast_auth_refusals_total{reason=\"token_audience\"}`."),
            key(
                "issuer",
                STRINGS,
                Value("[]"),
                "[\"https://id.example\"]",
                "A token's `iss` must be one of these; empty: it is not looked at.",
            )
            .beyond("the token is refused, `roomcast_auth_refusals_total{reason=\"token_issuer\"}`."),
            key(
                "leeway_s",
                NUMBER,
                Value("5"),
                "30",
                "By how much clocks may differ: a token holds so much longer than `exp`, and from so much before \
                 `nbf`.",
            )
            .beyond(
                "a connecting client is refused with `token_expired` or `token_not_yet_valid`; a socket is \
                 disconnected when its token ends, plain WebSockets with 4401, `roomcast_tokens_expired_total`.",
            ),
            key(
                "refresh_event",
                STRING,
                Unset("none"),
                "\"refresh_token\"",
                "A client's event whose data is a new token, or `{\"token\":…}`, for the same `sub`. Its \
                 acknowledgement is `{\"ok\":true,\"expires_at\":…}`. Rules do not see the event.",
            )
            .beyond(
                "a bad token changes nothing; the client gets it told in the acknowledgement or the event `error`, \
                 `roomcast_auth_refusals_total`.",
            )
            .with("key = [{ jwks = \"keys/jwks.json\" }]"),
            key("key", TABLES, Value("[]"), "[{ jwks = \"keys/jwks.json\" }]", ""),
        ],
    },
    Section {
        path: "auth.key",
        header: "[[auth.key]]",
        text: "A key that tokens are signed by, or a set of them; any of at most 32 may have signed. Files have at \
               most 1 MiB. SIGHUP has all of them read again: all are taken, or, if one is bad, none.",
        frame: "[[auth.key]]\n@",
        keys: &[
            key(
                "algorithm",
                "\"HS256\", \"RS256\", \"ES256\" or \"EdDSA\"",
                Unset("required unless `jwks` is there"),
                "\"RS256\"",
                "What the key is for. A key is for one algorithm, whatever a token says.",
            )
            .with("file = \"keys/issuer.pem\""),
            key(
                "kid",
                STRING,
                Unset("none"),
                "\"2026-10\"",
                "The key's name. Tokens that name another are not checked against it.",
            )
            .with("algorithm = \"RS256\"\nfile = \"keys/issuer.pem\""),
            key(
                "file",
                FILE,
                Unset("required unless `jwks` is there"),
                "\"keys/issuer.pem\"",
                "A public key in PEM; for HS256 the secret, without the last line's end. A secret of less than 32 \
                 bytes is warned of.",
            )
            .with("algorithm = \"RS256\""),
            key(
                "encoding",
                "\"plain\" or \"base64\"",
                Unset("`\"plain\"`"),
                "\"base64\"",
                "How a secret stands in its file; for HS256 alone.",
            )
            .with("algorithm = \"HS256\"\nfile = \"keys/secret\""),
            key(
                "jwks",
                FILE,
                Unset("none"),
                "\"keys/jwks.json\"",
                "Instead of all others: a JSON Web Key Set. Keys in it that cannot be used are skipped and warned of.",
            ),
        ],
    },
    Section {
        path: "ingest",
        header: "[ingest]",
        text: "Publishers' port: lines of JSON over TCP or a Unix socket.",
        frame: "[ingest]\n@",
        keys: &[
            key(
                "listen",
                ADDRESS,
                Value("\"127.0.0.1:3100\""),
                "\"10.0.0.7:3100\"",
                "Where publishers connect. Another address than loopback needs `token_file`.",
            ),
            key(
                "token_file",
                FILE,
                Value("\"\""),
                "\"publish.token\"",
                "A file with a token of 16 to 1024 bytes, which whoever comes in over TCP must say in the first \
                 line, `{\"op\":\"auth\",\"token\":\"…\"}`; empty: nobody need.",
            )
            .beyond(
                "who says it wrongly, or something else first, or nothing for `limits.handshake_ms_max`, is sent \
                 away: `roomcast_publisher_closes_total{reason=\"token_invalid\"}`, `{reason=\"auth_missing\"}`, \
                 `{reason=\"auth_timeout\"}`.",
            ),
            key(
                "unix",
                FILE,
                Value("\"\""),
                "\"/run/roomcast/publish.sock\"",
                "A Unix socket for publishers of this host besides; empty: none. Its mode guards it: no token is \
                 asked for.",
            ),
            key("unix_mode", "file mode in octal", Value("\"0660\""), "\"0600\"", "That socket's file mode."),
            key("line_bytes_max", NUMBER, Value("1_048_576"), "65_536", "The longest line, without its end.").beyond(
                "the line is skipped and answered with an error, and the next one is read, \
                 `roomcast_ingest_errors_total{reason=\"line_too_long\"}`; the HTTP API answers 413.",
            ),
            key(
                "receipt_bytes_max",
                NUMBER,
                Value("1_048_576"),
                "262_144",
                "Receipts that wait for a publisher to read them, and what one receipt may hold of clients' \
                 acknowledgements.",
            )
            .beyond(
                "the publisher's next lines wait until it reads; further acknowledgements are only counted, in \
                 `\"dropped\"` and `roomcast_acks_dropped_total`.",
            ),
            key(
                "rooms_per_line_max",
                NUMBER,
                Value("1024"),
                "100",
                "Names in `room`, `rooms` and `except` of one line together.",
            )
            .beyond("the line is refused, `roomcast_ingest_errors_total{reason=\"room\"}`."),
            key(
                "ack_timeout_ms_max",
                NUMBER,
                Value("60_000"),
                "5_000",
                "The largest `timeout_ms` of a line that asks for acknowledgements.",
            )
            .beyond("the line is refused, `roomcast_ingest_errors_total{reason=\"ack\"}`."),
        ],
    },
    Section {
        path: "ops",
        header: "[ops]",
        text: "Operators' port: health, metrics, and the HTTP API under `/api/`.",
        frame: "[ops]\n@",
        keys: &[
            key(
                "listen",
                ADDRESS,
                Value("\"127.0.0.1:3200\""),
                "\"10.0.0.7:3200\"",
                "Where operators connect. Another address than loopback needs `public = true`.",
            ),
            key(
                "public",
                FLAG,
                Value("false"),
                "true",
                "True allows another address than loopback, although anyone who reaches it can read health and \
                 metrics.",
            ),
            key(
                "token_file",
                FILE,
                Value("\"\""),
                "\"api.token\"",
                "A file with a token of 16 to 1024 bytes that users of the API must bring, `Authorization: Bearer \
                 …`. Empty: none, and the API is for programs of this machine only.",
            )
            .beyond("the API answers 401, or 403 where no token would help."),
            key(
                "hosts",
                STRINGS,
                Value("[]"),
                "[\"metrics.example\"]",
                "Names by which others ask for this port. On loopback a `Host` with a dot that is neither an address \
                 nor here is refused, as it may be that of a page in a browser (DNS rebinding); elsewhere, if any \
                 are listed.",
            )
            .beyond("the answer is 403."),
            key("service", STRING, Value("\"roomcast\""), "\"seats\"", "What `/health` calls the server."),
            key("alias", TABLES, Value("[]"), "[{ path = \"/stats\", kind = \"socket-stats\" }]", ""),
        ],
    },
    Section {
        path: "ops.alias",
        header: "[[ops.alias]]",
        text: "A request of the HTTP API under a path and in a shape that an existing backend knows: \
               `{\"success\":…,\"data\":…}`.",
        frame: "[[ops.alias]]\n@",
        keys: &[
            key("path", STRING, Required, "\"/api/v1/socket-event\"", "Where it is; any path but the server's own."),
            key(
                "kind",
                "\"socket-event\", \"socket-stats\" or \"health\"",
                Required,
                "\"socket-event\"",
                "`socket-event`: POST `{\"event\",\"data\",\"room\"}` sends an event. `socket-stats`: GET counts the \
                 namespace's sockets and names its rooms with members. `health`: GET.",
            ),
            key(
                "namespace",
                STRING,
                Value("\"/\""),
                "\"/seats\"",
                "The namespace that it is about, which must be there.",
            )
            .with("\n[[namespace]]\nname = \"/seats\""),
        ],
    },
    Section {
        path: "limits",
        header: "[limits]",
        text: "Bounds of clients. Those that count by address, and the rates, hold on all cores together. An address \
               is an IPv4 address or an IPv6 network of 64 bits; behind a trusted proxy it is that of \
               `X-Forwarded-For`, and sessions are counted instead of connections.",
        frame: "[limits]\n@",
        keys: &[
            key(
                "message_bytes_max",
                NUMBER,
                Value("1_000_000"),
                "65_536",
                "One message from a client, and the body of a POST. An endpoint may have its own.",
            )
            .beyond(
                "a WebSocket is closed with 1009, `roomcast_closes_total{reason=\"too_big\"}`; a POST gets 413, \
                 `roomcast_http_refused_total{reason=\"body_too_long\"}`.",
            ),
            key(
                "packet_bytes_max",
                NUMBER,
                Value("11_000_000"),
                "2_000_000",
                "One Socket.IO packet with all its attachments, which are messages each.",
            )
            .beyond("the connection is closed with 1002, `roomcast_client_errors_total{reason=\"too_large\"}`."),
            key(
                "attachments_max",
                NUMBER,
                Value("1000"),
                "0",
                "Binary attachments of one Socket.IO packet; 0 refuses binary.",
            )
            .beyond(
                "the connection is closed with 1002, `roomcast_client_errors_total{reason=\"too_many_attachments\"}`.",
            ),
            key("http_head_bytes_max", NUMBER, Value("8192"), "16_384", "Request line and headers of a request.")
                .beyond("431, `roomcast_http_refused_total{reason=\"too_long\"}`."),
            key(
                "accepts_per_turn",
                NUMBER,
                Value("16"),
                "4",
                "Clients that a core accepts in one turn of its loop, between serving those who are in; a quarter of \
                 it while these are not all heard in a turn. It bounds what a storm of clients costs the others, not \
                 how fast a core without other work lets them in.",
            )
            .beyond("clients wait in the kernel's backlog for the next turn, `roomcast_accepts_paced_total`."),
            key(
                "handshake_ms_max",
                NUMBER,
                Value("10_000"),
                "3_000",
                "From accept, or from a further request's first byte, to the end of the request's head. Also how \
                 long a publisher has for its token.",
            )
            .beyond(
                "408, or a close if not one byte came, `roomcast_http_refused_total{reason=\"handshake_timeout\"}`.",
            ),
            key(
                "request_body_ms_max",
                NUMBER,
                Value("30_000"),
                "10_000",
                "From the end of a request's head to the end of its body.",
            )
            .beyond(
                "408, `roomcast_http_refused_total{reason=\"body_timeout\"}`, and the session that it was for ends \
                 (`transport error`).",
            ),
            key(
                "keep_alive_ms",
                NUMBER,
                Value("75_000"),
                "20_000",
                "How long an HTTP connection may be without a request. It is longer than the usual 60 s of proxies, \
                 so that they close theirs first and never send a request into a closing connection.",
            )
            .beyond("it is closed."),
            key(
                "namespaces_per_client_max",
                NUMBER,
                Value("128"),
                "8",
                "Namespaces that one connection is in at the same time.",
            )
            .beyond(
                "`connect_error` with `Too many namespaces`, \
                 `roomcast_rule_refusals_total{reason=\"too_many_namespaces\"}`.",
            ),
            key(
                "namespace_bytes_max",
                NUMBER,
                Value("200"),
                "64",
                "Length of a name that a namespace's pattern matches.",
            )
            .beyond(
                "there is no such namespace: `connect_error` with `Invalid namespace`, \
                 `roomcast_rule_refusals_total{reason=\"unknown_namespace\"}`; for a publisher's line \
                 `roomcast_ingest_errors_total{reason=\"unknown_namespace\"}`.",
            ),
            key(
                "rooms_per_socket_max",
                NUMBER,
                Value("128"),
                "16",
                "Rooms that one socket is in at the same time, besides its own and the namespace's.",
            )
            .beyond(
                "nothing of the client's message happens and it gets the event `error`, \
                 `roomcast_rule_refusals_total{reason=\"rooms_per_socket\"}`. A publisher's `join` leaves such \
                 sockets as they were and tells how many they are, `\"refused\"`.",
            ),
            key("room_name_bytes_max", NUMBER, Value("200"), "64", "Length of a room's name.").beyond(
                "the client's message is refused with the event `error`, \
                 `roomcast_rule_refusals_total{reason=\"room_name\"}`; a publisher's line is refused, \
                 `roomcast_ingest_errors_total{reason=\"room\"}`.",
            ),
            key(
                "outbox_bytes_max",
                NUMBER,
                Value("1_048_576"),
                "262_144",
                "Events that may wait for one client. Answers to the client itself don't count: while more than half \
                 as much of them waits, the client is not heard. What waits is sent in its order, heartbeats \
                 included, so a line must carry this much within `heartbeat.ping_timeout_ms`.",
            )
            .beyond(
                "the client is disconnected at once, without a close frame, `roomcast_closes_total{reason=\"slow \
                 consumer\"}`, unless its rooms let events give way (`slow_consumer` in `[[namespace.rooms]]`); \
                 `roomcast_slow_consumers_total` counts by `outcome` and `rooms`.",
            ),
            key(
                "outboxes_bytes_max",
                NUMBER,
                Value("0"),
                "1_073_741_824",
                "Memory of what waits for all clients together; 0 for no bound. An event that several wait for \
                 counts once on each core.",
            )
            .beyond(
                "those for whom most waits are disconnected until nine tenths are left, \
                 `roomcast_closes_total{reason=\"slow consumer, memory short\"}`.",
            ),
            key(
                "inboxes_bytes_max",
                NUMBER,
                Value("268_435_456"),
                "67_108_864",
                "Memory of what all clients have sent in part: messages, packets without all of their attachments, \
                 bodies; 0 for no bound. The last eighth is for those that hold no more than 16 KB. A message that \
                 is larger than this never finds room.",
            )
            .beyond(
                "who sends more of such a thing, and nobody else, is closed with 1013 \
                 (`roomcast_rule_refusals_total{reason=\"inboxes_bytes\"}`), or gets 503 for a request \
                 (`roomcast_http_refused_total{reason=\"inboxes_bytes\"}`).",
            ),
            key(
                "connections_per_ip_max",
                NUMBER,
                Value("0"),
                "100",
                "Connections of one address at a time; 0 for any number.",
            )
            .beyond("429 with `Retry-After: 5`, `roomcast_http_refused_total{reason=\"connections_per_ip\"}`."),
            key(
                "handshakes_per_ip_per_s",
                NUMBER,
                Value("0"),
                "10",
                "Sessions that one address may begin, by WebSocket or by polling; 0 for any number.",
            )
            .beyond(
                "429, and in `Retry-After` when to come again, \
                 `roomcast_http_refused_total{reason=\"handshakes_per_ip\"}`.",
            ),
            key(
                "handshakes_per_ip_burst",
                NUMBER,
                Value("0"),
                "50",
                "How many of them at once; 0 for as many as in one second.",
            )
            .beyond("as for `limits.handshakes_per_ip_per_s`.")
            .with("handshakes_per_ip_per_s = 1"),
            key(
                "handshakes_per_s",
                NUMBER,
                Value("0"),
                "2_000",
                "Sessions that all clients together may begin; 0 for any number.",
            )
            .beyond(
                "503, and in `Retry-After` when to come again, `roomcast_http_refused_total{reason=\"handshakes\"}`.",
            ),
            key(
                "handshakes_burst",
                NUMBER,
                Value("0"),
                "500",
                "How many of them at once; 0 for as many as in one second.",
            )
            .beyond("as for `limits.handshakes_per_s`.")
            .with("handshakes_per_s = 1"),
            key(
                "events_per_socket_per_s",
                NUMBER,
                Value("0"),
                "20",
                "Events that one socket may send; 0 for any number. Connecting to a namespace costs a client a \
                 burst, of which it has two for each of `namespaces_per_client_max`.",
            )
            .beyond(
                "the event is refused with the event `error`, and an acknowledgement with the error if one was asked \
                 for, `roomcast_rule_refusals_total{reason=\"events_per_socket\"}`; a `CONNECT` with \
                 `connect_error`, `{reason=\"connects\"}`.",
            ),
            key(
                "events_per_socket_burst",
                NUMBER,
                Value("0"),
                "40",
                "How many of them at once; 0 for as many as in one second.",
            )
            .beyond("as for `limits.events_per_socket_per_s`.")
            .with("events_per_socket_per_s = 1"),
        ],
    },
    Section {
        path: "heartbeat",
        header: "[heartbeat]",
        text: "Heartbeats of clients: Engine.IO's pings, or WebSocket pings for plain WebSockets.",
        frame: "[heartbeat]\n@",
        keys: &[
            key("ping_interval_ms", NUMBER, Value("25_000"), "10_000", "From one pong to the next ping."),
            key("ping_timeout_ms", NUMBER, Value("20_000"), "5_000", "How long a client has for its pong.")
                .beyond("it is closed with 1000, `roomcast_closes_total{reason=\"ping timeout\"}`."),
            key(
                "connect_timeout_ms",
                NUMBER,
                Value("45_000"),
                "10_000",
                "How long a Socket.IO client may be connected to no namespace.",
            )
            .beyond("it is closed with 1000, `roomcast_closes_total{reason=\"connect timeout\"}`."),
            key(
                "upgrade_timeout_ms",
                NUMBER,
                Value("10_000"),
                "5_000",
                "From a polled client's WebSocket handshake to the end of its upgrade.",
            )
            .beyond("the WebSocket is closed with 1000 (`upgrade timeout`), and the session goes on polling."),
        ],
    },
    Section {
        path: "mesh",
        header: "[mesh]",
        text: "Rings between cores.",
        frame: "[mesh]\n@",
        keys: &[key(
            "ring_slots",
            NUMBER,
            Value("0"),
            "1024",
            "Messages that one ring between two cores holds; 0 chooses by the number of cores: 16,384 for all that \
             one core sends into, each from 128 to 4096.",
        )
        .beyond(
            "the sending core takes nothing new from publishers until there is space, \
             `roomcast_ring_full_publish_total` and `roomcast_ring_full_deliver_total`.",
        )],
    },
    Section {
        path: "rooms",
        header: "[rooms]",
        text: "Memory of rooms without members, and of what rooms keep.",
        frame: "[rooms]\n@",
        keys: &[
            key(
                "idle_ms",
                NUMBER,
                Value("60_000"),
                "600_000",
                "A room without members and events for so long is forgotten: its offsets begin anew, in a new epoch.",
            ),
            key("idle_max", NUMBER, Value("100_000"), "10_000", "Rooms without members that each core remembers.")
                .beyond("those that have been idle for longest are forgotten earlier."),
            key(
                "snapshots_bytes_max",
                NUMBER,
                Value("268_435_456"),
                "67_108_864",
                "Bytes of the events that all rooms together keep, encodings not counted. Each core has its part of \
                 it.",
            )
            .beyond(
                "the room whose last event is oldest forgets what it kept, \
                 `roomcast_snapshot_evictions_total{reason=\"memory\"}`.",
            ),
        ],
    },
    Section {
        path: "log",
        header: "[log]",
        text: "The log on standard error.",
        frame: "[log]\n@",
        keys: &[
            key(
                "level",
                STRING,
                Value("\"info\""),
                "\"info,roomcast::net=debug\"",
                "`error`, `warn`, `info`, `debug`, `trace`, or a filter by module.",
            ),
            key(
                "format",
                "\"auto\", \"human\" or \"json\"",
                Value("\"auto\""),
                "\"json\"",
                "`auto` is for people on a terminal and JSON elsewhere.",
            ),
        ],
    },
    Section {
        path: "endpoint",
        header: "[[endpoint]]",
        text: "A path on the clients' port and what is spoken there, at most 64 of them. Without any there are \
               Socket.IO at `/socket.io/` and raw WebSockets at `/ws`. A request for another path gets 404, \
               `roomcast_http_refused_total{reason=\"unknown_path\"}`.",
        frame: "[[endpoint]]\n@",
        keys: &[
            key(
                "kind",
                "\"socket.io\", \"raw\", \"engine.io-echo\" or \"websocket-echo\"",
                Required,
                "\"raw\"",
                "`socket.io`: stock Socket.IO clients. `raw`: JSON objects in text messages. The two others send \
                 every message back and are for protocol test suites.",
            ),
            key(
                "path",
                STRING,
                Unset("`/socket.io/`, `/ws`, `/engine.io/`, `/echo`, by kind"),
                "\"/live\"",
                "The request's path, matched with or without its last slash.",
            ),
            key(
                "namespace",
                STRING,
                Value("\"/\""),
                "\"/seats\"",
                "The namespace that raw clients are in. Socket.IO clients name theirs themselves.",
            )
            .with("\n[[namespace]]\nname = \"/seats\""),
            key(
                "shape",
                "\"nested\" or \"flat\"",
                Value("\"nested\""),
                "\"flat\"",
                "How raw clients get an event's data: under `data`, or its fields beside `type`.",
            ),
            key(
                "message_bytes_max",
                NUMBER,
                Unset("`limits.message_bytes_max`"),
                "4096",
                "The largest message from a client here.",
            )
            .beyond("as for `limits.message_bytes_max`."),
        ],
    },
    Section {
        path: "namespace",
        header: "[[namespace]]",
        text: "The rules of a namespace, or of all namespaces whose names match a pattern; at most 1024 of them. \
               Nothing is allowed that no rule allows. `/` is always there.",
        frame: "[[namespace]]\n@",
        keys: &[
            key(
                "name",
                STRING,
                Unset("required unless `pattern` is there"),
                "\"/seats\"",
                "The namespace's name, with its slash.",
            ),
            key(
                "pattern",
                STRING,
                Unset("none"),
                "\"^/workspace-(?<id>[a-z0-9]+)$\"",
                "Instead of a name: a regular expression that stands for every name that it matches from its first \
                 to its last character. Names of their own win over patterns, the first pattern over later ones. Two \
                 names of one pattern share the rules and nothing else. What named groups matched is `captures.NAME` \
                 in rules.",
            ),
            key(
                "require",
                FLAG,
                Unset("`auth.require`"),
                "false",
                "Whether a client needs a valid token here, whatever `[auth]` says.",
            )
            .with("name = \"/\""),
            key(
                "unknown_events",
                "\"error\" or \"ignore\"",
                Value("\"error\""),
                "\"ignore\"",
                "What a client hears that sends an event which no rule names: the event `error` and an \
                 acknowledgement with the error if it asked for one, or nothing, as from a Node server without a \
                 listener. Either is counted, `roomcast_rule_refusals_total{reason=\"unknown_event\"}`.",
            )
            .with("name = \"/\""),
            key("rooms", TABLES, Value("[]"), "[{ match = [\"*\"], key = \"data.id\" }]", "").with("name = \"/\""),
            key("connect", TABLES, Value("[]"), "[{ join = [\"lobby\"] }]", "").with("name = \"/\""),
            key("on", TABLES, Value("[]"), "[{ event = \"hello\" }]", "").with("name = \"/\""),
        ],
    },
    Section {
        path: "namespace.rooms",
        header: "[[namespace.rooms]]",
        text: "What holds for rooms of certain names; the first entry that matches a name holds.",
        frame: "[[namespace]]\nname = \"/\"\n[[namespace.rooms]]\n@",
        keys: &[
            key(
                "match",
                STRINGS,
                Required,
                "[\"ticks\", \"route:*\"]",
                "The rooms' names; a `*` at the end stands for any rest.",
            ),
            key(
                "key",
                STRING,
                Unset("events have a key only if their line says one"),
                "\"data.seatNumber\"",
                "Where an event's data carries its key, a string or a whole number of at most 200 bytes. The `key` \
                 of a publisher's line wins.",
            ),
            key(
                "slow_consumer",
                "\"disconnect\", \"drop_oldest\" or \"conflate\"",
                Value("\"disconnect\""),
                "\"conflate\"",
                "What may become of the room's events that wait for a member which lags: one whose outbox was full \
                 and has not been empty since. `disconnect`: nothing; the member is disconnected, so that it knows. \
                 `drop_oldest`: as many of the oldest go as make room. `conflate`: those go of which a later one of \
                 the same key waits; events without a key stay. If that does not make room, the member is \
                 disconnected. Answers, acknowledgements, events that ask for one, snapshots and heartbeats are \
                 never dropped, and what is left keeps its order. `roomcast_slow_consumers_total` counts.",
            ),
            key(
                "snapshot",
                TABLE,
                Unset("the rooms keep nothing"),
                "{ keys_max = 100, age_ms_max = 86_400_000 }",
                "Present if the rooms keep the last event of each key, with members and without, for whoever asks. \
                 `{}` takes the bounds as they stand below. It is kept in memory alone.",
            ),
        ],
    },
    Section {
        path: "namespace.rooms.snapshot",
        header: "[namespace.rooms.snapshot]",
        text: "`snapshot = { … }` in `[[namespace.rooms]]`: bounds of what one room keeps.",
        frame: "[[namespace]]\nname = \"/\"\n[[namespace.rooms]]\nmatch = [\"*\"]\n[namespace.rooms.snapshot]\n@",
        keys: &[
            key("keys_max", NUMBER, Value("1000"), "100", "Keys of one room.").beyond(
                "the key whose event is oldest is forgotten, `roomcast_snapshot_evictions_total{reason=\"keys\"}`.",
            ),
            key(
                "bytes_max",
                NUMBER,
                Value("262_144"),
                "65_536",
                "Bytes of one room: keys, names, arguments and attachments.",
            )
            .beyond("as above, `roomcast_snapshot_evictions_total{reason=\"bytes\"}`."),
            key("age_ms_max", NUMBER, Value("0"), "86_400_000", "How long an event is kept; 0 for ever.")
                .beyond("the event is forgotten, `roomcast_snapshot_evictions_total{reason=\"age\"}`."),
        ],
    },
    Section {
        path: "namespace.connect",
        header: "[[namespace.connect]]",
        text: "What happens when a client connects to the namespace, in the order of the file. Every rule whose \
               `when` holds is taken; if one of them refuses, the client does not get in. Without rules it gets in \
               and is in no room.\n\nExpressions are [CEL](https://cel.dev) over `query` (the handshake's query), \
               `auth` (the payload of Socket.IO's CONNECT, tokens taken out), `claims` (of the verified token, or \
               null), `state`, `sid`, `ip`, `namespace` and `captures`; for events also `data` (the first argument), \
               `args` and `event`. In a string `{…}` is an expression; a string that is one `{…}` alone keeps the \
               value's JSON type and bytes.",
        frame: "[[namespace]]\nname = \"/\"\n[[namespace.connect]]\n@",
        keys: &[
            key(
                "when",
                CONDITION,
                Unset("the rule is always taken"),
                "\"claims.role == 'ADMIN'\"",
                "The rule is passed over unless this holds. An error in it counts as false.",
            ),
            key(
                "allow",
                CONDITION,
                Unset("allowed"),
                "\"auth.workspace == 'a'\"",
                "The connection is refused unless this holds. An error in it refuses.",
            )
            .beyond(
                "Socket.IO clients get `connect_error`, plain WebSockets are closed with 4403, \
                 `roomcast_rule_refusals_total{reason=\"connect\"}`.",
            ),
            key("error", TABLE, Unset("a reason of roomcast's own"), "{ message = \"Not yours\" }", ""),
            key(
                "set",
                "values by name, as for `data`",
                Value("{}"),
                "{ trains = \"{claims.trains}\" }",
                "Values that the socket keeps, readable as `state.NAME` by later rules and messages; null forgets \
                 the name. A socket's state has at most 1024 bytes.",
            )
            .beyond("the message is refused, as by `allow`."),
            key(
                "leave",
                TEMPLATES,
                Value("[]"),
                "[\"route:*\"]",
                "Rooms to leave, before `join`. A `*` at the end, written here and not by a client, leaves all rooms \
                 that begin so.",
            ),
            key("join", TEMPLATES, Value("[]"), "[\"user:{claims.sub}\"]", "Rooms to join."),
            key(
                "snapshot",
                "true, false, or a room's name with expressions in braces",
                Value("false"),
                "\"route:{query.route}\"",
                "`true`: what the joined rooms keep comes behind the replies, as the events that they were, before \
                 the first live event. A room's name: what it keeps stands in `reply` and `ack` as `{snapshot}`, an \
                 array of the data of each kept event; the client need not be in the room.",
            ),
            key(
                "reply",
                ONE_OR_MORE,
                Value("[]"),
                "{ event = \"welcome\", data = { id = \"{sid}\" } }",
                "Events for this client.",
            ),
            key(
                "emit",
                ONE_OR_MORE,
                Value("[]"),
                "{ rooms = [\"lobby\"], event = \"came\" }",
                "Events for rooms, once this client is in those that it joins.",
            ),
        ],
    },
    Section {
        path: "namespace.on",
        header: "[[namespace.on]]",
        text: "What happens when a client sends an event. Every rule for the event whose `when` holds is taken; if \
               one of them refuses, nothing of any of them happens; if none is taken, the message is refused. The \
               client hears of a refusal by the event `error`, `{\"message\",\"event\",\"data\"}`, and by an \
               acknowledgement `{\"error\":{…}}` if it asked for one.",
        frame: "[[namespace]]\nname = \"/\"\n[[namespace.on]]\n@",
        keys: &[
            key("event", STRING, Required, "\"subscribe_route\"", "The event's name, literally."),
            key(
                "when",
                CONDITION,
                Unset("the rule is always taken"),
                "\"has(data.routeId)\"",
                "The rule is passed over unless this holds. An error in it counts as false.",
            ),
            key(
                "allow",
                CONDITION,
                Unset("allowed"),
                "\"type(data.routeId) == string\"",
                "The message is refused unless this holds. An error in it refuses.",
            )
            .beyond("the event `error`, `roomcast_rule_refusals_total{reason=\"event\"}`."),
            key("error", TABLE, Unset("a reason of roomcast's own"), "{ message = \"Not your train\" }", ""),
            key(
                "set",
                "values by name, as for `data`",
                Value("{}"),
                "{ room = \"{data.room}\" }",
                "As for `[[namespace.connect]]`. Strings of this same rule still read the old values.",
            )
            .beyond("the message is refused, as by `allow`."),
            key("leave", TEMPLATES, Value("[]"), "[\"route:*\"]", "As for `[[namespace.connect]]`."),
            key("join", TEMPLATES, Value("[]"), "[\"route:{data.routeId}\"]", "Rooms to join."),
            key(
                "snapshot",
                "true, false, or a room's name with expressions in braces",
                Value("false"),
                "\"route:{data.routeId}\"",
                "As for `[[namespace.connect]]`.",
            ),
            key(
                "reply",
                ONE_OR_MORE,
                Value("[]"),
                "{ event = \"subscribed\", data = { routeId = \"{data.routeId}\" } }",
                "Events for this client.",
            ),
            key(
                "emit",
                ONE_OR_MORE,
                Value("[]"),
                "{ rooms = [\"chat\"], event = \"said\", data = \"{data}\" }",
                "Events for rooms, once this client is in those that it joins.",
            ),
            key(
                "ack",
                ARGUMENTS,
                Unset("no acknowledgement"),
                "[{ ok = true }]",
                "The arguments of the acknowledgement, should the client ask for one. Of several rules that are \
                 taken the last one with an `ack` gives it.",
            ),
            key("disconnect", FLAG, Value("false"), "true", "True: the socket is disconnected after the replies."),
        ],
    },
    Section {
        path: "namespace.on.error",
        header: "[namespace.on.error]",
        text: "`error = { … }` in `[[namespace.connect]]` and `[[namespace.on]]`: what a client hears whom `allow` \
               refuses. On connecting, Socket.IO clients find it as `err.message` and `err.data` in `connect_error`; \
               plain WebSockets get it as the event `error` and, `message` alone, as the reason of the close.",
        frame: "[[namespace]]\nname = \"/\"\n[[namespace.on]]\nevent = \"e\"\n[namespace.on.error]\n@",
        keys: &[
            key("message", TEMPLATE, Required, "\"Not your train\"", "The text."),
            key("data", ANYTHING, Unset("none"), "{ code = 403 }", "More for the client's program."),
        ],
    },
    Section {
        path: "namespace.on.reply",
        header: "[[namespace.on.reply]]",
        text: "`reply = { … }` in `[[namespace.connect]]` and `[[namespace.on]]`: an event for the client itself.",
        frame: "[[namespace]]\nname = \"/\"\n[[namespace.on]]\nevent = \"e\"\n[[namespace.on.reply]]\n@",
        keys: &[
            key("event", TEMPLATE, Required, "\"subscribed\"", "The event's name."),
            key("data", ANYTHING, Unset("no argument"), "{ routeId = \"{data.routeId}\" }", "The only argument."),
            key("args", ARGUMENTS, Unset("as `data` says"), "[1, \"{data}\"]", "All arguments, instead of `data`."),
        ],
    },
    Section {
        path: "namespace.on.emit",
        header: "[[namespace.on.emit]]",
        text: "`emit = { … }` in `[[namespace.connect]]` and `[[namespace.on]]`: an event that a client causes for \
               others. It takes a publisher's way from there; while the cores' rings are full, the client's next \
               message waits.",
        frame: "[[namespace]]\nname = \"/\"\n[[namespace.on]]\nevent = \"e\"\n[[namespace.on.emit]]\n@",
        keys: &[
            key(
                "rooms",
                TEMPLATES,
                Unset("the whole namespace"),
                "[\"chat:{state.room}\"]",
                "The rooms that get it. The client need not be in them.",
            ),
            key("event", TEMPLATE, Required, "\"said\"", "The event's name."),
            key("data", ANYTHING, Unset("no argument"), "{ text = \"{data.text}\" }", "The only argument."),
            key("args", ARGUMENTS, Unset("as `data` says"), "\"{args}\"", "All arguments, instead of `data`."),
            key(
                "key",
                TEMPLATE,
                Unset("as the room's `key` says"),
                "\"{data.id}\"",
                "What it is about, 1 to 200 bytes: as `key` in a publisher's line.",
            )
            .beyond("the message is refused, as by `allow`."),
            key("to_self", FLAG, Value("true"), "false", "False: the client itself does not get it."),
            key(
                "volatile",
                FLAG,
                Value("false"),
                "true",
                "True: whoever cannot take it at once does not get it, `roomcast_volatile_dropped_total`.",
            ),
        ],
    },
];
