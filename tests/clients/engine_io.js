// The Engine.IO protocol, version 4, as a table of what is said and what is answered. Each row holds for Node's
// engine.io; where Node's answer is an accident of its making, the row takes what the protocol's own test suite takes,
// and says so.
"use strict";
const { run, assert, sleep } = require("./lib");
const { Http, Ws, request, chunked, ask, get, post, handshake, frame, readFrame, opened } = require("./wire");
const { SEPARATOR, path, Polling, openWebSocket } = require("./engine");
const { cases, each, beyond, unordered } = require("./suite");

const ENDPOINT = "/engine.io/";
const POLLING = path(ENDPOINT, "polling");
const WEBSOCKET = path(ENDPOINT, "websocket");
const INTERVAL_MS = 300;
const TIMEOUT_MS = 200;
const PAYLOAD_MAX = 1_000_000;
const MESSAGES = [
  "Transport unknown",
  "Session ID unknown",
  "Bad handshake method",
  "Bad request",
  "Forbidden",
  "Unsupported protocol version",
];
const ORIGIN = "https://app.example:8443";

// ---- what many rows expect ----

function isRefused(answer, code) {
  assert.deepStrictEqual([answer.status, answer.body], [400, JSON.stringify({ code, message: MESSAGES[code] })]);
  assert.match(answer.headers["content-type"], /^application\/json\b/);
}

// The answer to a POST that ends the session. An accident: Node destroys the request and says "ok" nevertheless. The
// protocol's test suite takes 400, the end of the connection, and in fact anything.
async function isRefusedOrNot(answer) {
  const got = await answer.catch((error) => error);
  assert.ok(got instanceof Error || [200, 400].includes(got.status), `answered ${got.status} ${got.body}`);
}

function areTheTerms(terms, upgrades) {
  assert.deepStrictEqual(Object.keys(terms), ["sid", "upgrades", "pingInterval", "pingTimeout", "maxPayload"]);
  assert.match(terms.sid, /^[A-Za-z0-9_-]{20}$/);
  const { sid, ...rest } = terms;
  const expected = { upgrades, pingInterval: INTERVAL_MS, pingTimeout: TIMEOUT_MS, maxPayload: PAYLOAD_MAX };
  assert.deepStrictEqual(rest, expected);
}

function isAPollsAnswer(answer, body) {
  assert.deepStrictEqual([answer.status, answer.body], [200, body]);
  assert.strictEqual(answer.headers["content-type"].toLowerCase(), "text/plain; charset=utf-8");
  assert.strictEqual(answer.headers["cache-control"], "no-store");
}

const allowsOrigin = ({ headers }, origin = ORIGIN) => {
  assert.strictEqual(headers["access-control-allow-origin"], origin);
  assert.strictEqual(headers["access-control-allow-credentials"], "true");
  assert.match(headers.vary, /\bOrigin\b/i, "or a cache would give it to another page");
};

// A poll that waits on a connection of its own: most likely, as another request has been answered since.
async function waitingPoll(session, headers = {}) {
  const connection = await Http.open();
  await connection.writeInPieces([request("GET", session.path, { headers })]);
  await session.post("3");
  unordered();
  return connection;
}

// ---- handshake ----

const handshakes = [
  ["handshake, polling: opens a session", async () => {
    const answer = await get(POLLING);
    assert.strictEqual(answer.body[0], "0");
    isAPollsAnswer(answer, answer.body);
    areTheTerms(JSON.parse(answer.body.slice(1)), ["websocket"]);
  }],
  ["handshake, polling: unknown parameters are ignored", async () => {
    assert.strictEqual((await get(`/engine.io/?x&t=PaB1c%20&b64=1&transport=polling&EIO=4&j`)).status, 200);
  }],
  ["handshake, polling: each session has its own id", async () => {
    const ids = [];
    for (let n = 0; n < 20; n += 1) ids.push((await Polling.open()).terms.sid);
    assert.strictEqual(new Set(ids).size, ids.length);
  }],
  ...each("handshake, polling, refused", [
    ["GET", "", 0],
    ["GET", "?EIO=4", 0],
    ["GET", "?EIO=4&transport=", 0],
    ["GET", "?EIO=4&transport=abc", 0],
    ["GET", "?EIO=4&transport=Polling", 0],
    ["GET", "?EIO=4&transport=webtransport", 0],
    ["GET", "?EIO=4&transport=constructor", 0],
    ["GET", "?transport=polling", 5],
    ["GET", "?EIO=abc&transport=polling", 5],
    ["GET", "?EIO=&transport=polling", 5],
    ["GET", "?EIO=3&transport=polling", 5],
    ["GET", "?EIO=5&transport=polling", 5],
    ["GET", "?EIO=40&transport=polling", 5],
    ["POST", "?EIO=4&transport=polling", 2],
    ["PUT", "?EIO=4&transport=polling", 2],
    ["PATCH", "?EIO=4&transport=polling", 2],
    ["DELETE", "?EIO=4&transport=polling", 2],
    ["GET", "?EIO=4&transport=polling&sid=abc", 1],
    ["GET", "?EIO=4&transport=polling&sid=AAAAAAAAAAAAAAAAAAAA", 1],
    ["GET", "?EIO=4&transport=polling&sid=__proto__", 1],
    ["GET", "?EIO=4&transport=polling&sid=constructor", 1],
    ["POST", "?EIO=4&transport=polling&sid=AAAAAAAAAAAAAAAAAAAA", 1],
    ["PUT", "?EIO=4&transport=polling&sid=AAAAAAAAAAAAAAAAAAAA", 1],
    ["GET", "?EIO=4&transport=websocket", 3],
    // The first reason in this order: transport, session, method, version.
    ["PUT", "?transport=abc&sid=AAAAAAAAAAAAAAAAAAAA", 0],
    ["PUT", "?transport=polling&sid=AAAAAAAAAAAAAAAAAAAA", 1],
    ["PUT", "?transport=polling", 2],
    ["PUT", "?EIO=4&transport=websocket", 2],
    ["GET", "?transport=websocket", 3],
  ].map(([method, query, code]) => [`${method} ${query || "(no query)"}`, method, query, code]),
  async (method, query, code) => isRefused(await ask(method, ENDPOINT + query), code)),
  ["handshake, polling, refused: HEAD, without a body", async () => {
    assert.strictEqual((await ask("HEAD", POLLING)).status, 400);
  }],
  ["handshake, polling, refused: the connection can be used again", async () => {
    const connection = await Http.open();
    isRefused(await connection.write(request("GET", "/engine.io/?EIO=3&transport=polling")).response(), 5);
    isRefused(await connection.write(request("POST", POLLING, { body: "4hello" })).response(), 2);
    assert.strictEqual((await connection.write(request("GET", POLLING)).response()).status, 200);
  }],
  ["handshake, websocket: opens a session", async () => {
    areTheTerms((await openWebSocket()).terms, []);
  }],
  // Node loses it.
  ...beyond([["handshake, websocket: what follows the request in its segment is not lost", async () => {
    const connection = await Http.open();
    connection.write(Buffer.concat([Buffer.from(handshake(WEBSOCKET)), frame("4one"), frame("4two")]));
    assert.strictEqual((await connection.response()).status, 101);
    assert.strictEqual((await readFrame(connection)).payload[0], "0");
    assert.strictEqual((await readFrame(connection)).payload, "4one");
    assert.strictEqual((await readFrame(connection)).payload, "4two");
  }]]),
  // Node's body is the bare message where it refuses polling with JSON; no client can see either. The connection ends.
  ...each("handshake, websocket, refused", [
    ["no transport", "?EIO=4", 0],
    ["unknown transport", "?EIO=4&transport=abc", 0],
    ["unknown session", "?EIO=4&transport=websocket&sid=AAAAAAAAAAAAAAAAAAAA", 1],
    ["no session of this name", "?EIO=4&transport=websocket&sid=__proto__", 1],
  ], async (query, code) => {
    const connection = await Http.open();
    const answer = await connection.write(handshake(ENDPOINT + query)).response();
    assert.strictEqual(answer.status, 400);
    assert.ok(answer.body.includes(MESSAGES[code]), answer.body);
    await connection.ended();
  }),
  // An accident: Node says 101 first and then writes its refusal into the WebSocket. Any end will do, but no session.
  ...each("handshake, websocket, refused or closed", [
    ["no EIO", "?transport=websocket"],
    ["EIO=3", "?EIO=3&transport=websocket"],
    ["EIO=abc", "?EIO=abc&transport=websocket"],
  ], async (query) => {
    const { error } = await new Ws(ENDPOINT + query).closed();
    assert.ok(error);
  }),
  ...each("handshake, websocket, refused as such", [
    ["no key", { "Sec-WebSocket-Key": null }],
    ["a key of another length", { "Sec-WebSocket-Key": "c2hvcnQ=" }],
    ["no version", { "Sec-WebSocket-Version": null }],
    ["version 9", { "Sec-WebSocket-Version": 9 }],
  ], async (headers) => {
    const { status } = await (await Http.open()).write(handshake(WEBSOCKET, headers)).response();
    // RFC 6455 section 4.4 says 426 for a version; Node says 400 to all.
    assert.ok([400, 426].includes(status), status);
  }),
  ["handshake: an unknown path", async () => {
    assert.strictEqual((await get("/nothing.io/?EIO=4&transport=polling")).status, 404);
  }],
];

// ---- heartbeat ----

const BEATS_WITHIN_MS = 3 * INTERVAL_MS + 150;

const heartbeats = [
  ["heartbeat, polling: ping and pong", async () => {
    const session = await Polling.open();
    for (let n = 0; n < 3; n += 1) {
      isAPollsAnswer(await session.poll(), "2");
      await session.post("3");
    }
    await session.lives();
  }, BEATS_WITHIN_MS],
  ["heartbeat, websocket: ping and pong", async () => {
    const ws = await openWebSocket();
    for (let n = 0; n < 3; n += 1) {
      await ws.expect("2");
      ws.send("3");
    }
    await ws.send("4alive?").expect("4alive?");
  }, BEATS_WITHIN_MS],
  ["heartbeat, after an upgrade: ping and pong", async () => {
    const ws = await (await Polling.open()).upgraded();
    for (let n = 0; n < 3; n += 1) {
      await ws.expect("2");
      ws.send("3");
    }
  }, BEATS_WITHIN_MS],
  ["heartbeat, polling: without a pong the session ends", async () => {
    const session = await Polling.open();
    await sleep(INTERVAL_MS + TIMEOUT_MS);
    isRefused(await session.poll(), 1);
  }],
  ["heartbeat, polling: the poll that waits at the timeout gets a close packet", async () => {
    const session = await Polling.open();
    await session.expect("2");
    isAPollsAnswer(await session.poll(), "1");
    await session.isGone();
  }, INTERVAL_MS + TIMEOUT_MS + 100],
  ["heartbeat, websocket: without a pong the connection closes, and not earlier", async () => {
    const ws = await openWebSocket();
    const start = performance.now();
    await ws.expect("2");
    await ws.closed();
    const lived = performance.now() - start;
    // Our clock started after the server's.
    assert.ok(lived > INTERVAL_MS + TIMEOUT_MS - 100, `lived ${lived} ms`);
  }, INTERVAL_MS + TIMEOUT_MS],
  ["heartbeat: a pong that nobody asked for does no harm", async () => {
    const session = await Polling.open();
    await session.post("3", "3", "4x");
    await session.expect("4x");
    const ws = await openWebSocket();
    await ws.send("3", "3", "4x").expect("4x");
  }],
  ...each("heartbeat: pings are the server's to send", [
    ["polling", "2"], ["polling, with data", "2hello"], ["polling, as if to probe", "2probe"],
  ], async (packet) => {
    const session = await Polling.open();
    await isRefusedOrNot(post(session.path, packet));
    await session.isGone();
  }),
  ["heartbeat: pings are the server's to send: websocket", async () => {
    await (await openWebSocket()).send("2").closed();
  }],
];

// ---- close ----

const closes = [
  ["close, polling: the waiting poll gets a noop, the next one is refused", async () => {
    const session = await Polling.open();
    const waiting = await waitingPoll(session);
    await session.post("1");
    isAPollsAnswer(await waiting.response(), "6");
    isRefused(await session.poll(), 1);
  }],
  ["close, polling: without a waiting poll", async () => {
    const session = await Polling.open();
    await session.post("1");
    isRefused(await session.poll(), 1);
    isRefused(await post(session.path, "4x"), 1);
  }],
  ["close, polling: what stands before the close packet is taken, what stands behind it is not", async () => {
    const session = await Polling.open();
    const waiting = await waitingPoll(session);
    await session.post("4before", "1", "4behind");
    isAPollsAnswer(await waiting.response(), "4before");
    isRefused(await session.poll(), 1);
  }],
  // An accident: Node takes no notice, and closes when no pong comes.
  ["close, websocket: by its close packet", async () => {
    const ws = await openWebSocket();
    ws.send("1");
    assert.deepStrictEqual((await ws.end).error, undefined);
  }],
  ["close, websocket: by its close frame", async () => {
    const ws = await openWebSocket();
    ws.socket.close(1000);
    assert.strictEqual((await ws.closed()).code, 1000);
  }],
  ["close, polling, while a WebSocket is being tried: it closes too", async () => {
    const session = await Polling.open();
    const ws = await session.probed();
    await session.post("1");
    await ws.closed();
    isRefused(await session.poll(), 1);
  }],
];

// ---- messages ----

const LONG = "x".repeat(100_000);
const ALL_BYTES = Buffer.from([...Array(256).keys()]);
const PAYLOADS = [
  ["text", "4hello"],
  ["nothing", "4"],
  ["digits", "40123456789"],
  ["utf-8", "4é€ß 漢字 \u2028 \ufeff 😀👍🏽"],
  ["control characters", "4\0\x01\t\r\n\x1d\x1f\x7f"],
  ["binary", "bAQIDBA=="],
  ["no bytes", "b"],
  ["all bytes", "b" + ALL_BYTES.toString("base64")],
  ["several", "4a", "4b", "4c"],
  ["text and binary", "4hello", "bAQIDBA==", "4", "b", "4world"],
  ["a thousand", ...Array.from({ length: 1000 }, (_, n) => `4${n}`)],
  ["long ones", "4" + LONG, "b" + Buffer.from(LONG).toString("base64"), "4" + LONG],
];

const messages = [
  ...each("message, polling", PAYLOADS.map(([name, ...packets]) => [name, packets]), async (packets) => {
    const session = await Polling.open();
    const { headers } = await session.post(...packets);
    assert.strictEqual(headers["content-type"], "text/html");
    // What came with one request and met no poll goes out with one answer.
    isAPollsAnswer(await session.poll(), packets.join(SEPARATOR));
  }),
  ["message, polling: of several requests, in order, with one answer", async () => {
    const session = await Polling.open();
    for (const packet of ["4a", "4b", "4c"]) await session.post(packet);
    isAPollsAnswer(await session.poll(), "4a\x1e4b\x1e4c");
  }],
  ["message, polling: the waiting poll gets it", async () => {
    const session = await Polling.open();
    const waiting = await waitingPoll(session);
    await session.post("4hello");
    isAPollsAnswer(await waiting.response(), "4hello");
  }],
  // How many of them the waiting poll gets is an accident.
  ["message, polling: of several, the waiting poll gets the first ones", async () => {
    const session = await Polling.open();
    const waiting = await waitingPoll(session);
    await session.post("4a", "4b", "bAQID");
    const got = (await waiting.response()).body.split(SEPARATOR);
    while (got.length < 3) got.push(...(await session.packets()));
    assert.deepStrictEqual(got, ["4a", "4b", "bAQID"]);
  }],
  ["message, polling: hundreds, one after the other", async () => {
    for (let round = 0; round < 5; round += 1) {
      const session = await Polling.open();
      for (let n = 0; n < 10; n += 1) {
        await session.post(`4${n}`);
        isAPollsAnswer(await session.poll(), `4${n}`);
      }
    }
  }, 1000],
  ...each("message, polling, invalid, ends the session", [
    ["an unknown type", "abc"],
    ["type 7", "7"],
    ["nothing", ""],
    ["nothing between two", "4a\x1e\x1e4b"],
    ["nothing at the end", "4a\x1e"],
    ["nothing at the beginning", "\x1e4a"],
    ["version 3's lengths", "7:4hello!"],
    ["a good one first", "4a\x1eabc"],
    ["not ASCII", "é"],
  ], async (body) => {
    const session = await Polling.open();
    await isRefusedOrNot(post(session.path, body));
    await session.isGone();
  }),
  ["message, polling, invalid: the waiting poll gets a close packet", async () => {
    const session = await Polling.open();
    const waiting = await waitingPoll(session);
    await isRefusedOrNot(post(session.path, "abc"));
    isAPollsAnswer(await waiting.response(), "1");
    await session.isGone();
  }],
  ["message, polling: application/octet-stream is version 3's", async () => {
    const session = await Polling.open();
    const answer = await post(session.path, "4hello", { headers: { "Content-Type": "application/octet-stream" } });
    assert.strictEqual(answer.status, 400);
    await session.isGone();
  }],
  ...each("message, polling: any other content type", [
    ["none", {}],
    ["text", { "Content-Type": "text/plain;charset=UTF-8" }],
    ["JSON", { "Content-Type": "application/json" }],
    ["a form", { "Content-Type": "application/x-www-form-urlencoded" }],
  ], async (headers) => {
    const session = await Polling.open();
    assert.strictEqual((await post(session.path, "4hello", { headers })).body, "ok");
    await session.expect("4hello");
  }),
  ...each("message, websocket", [
    ["text", "4hello"],
    ["nothing", "4"],
    ["utf-8", "4é€ß 漢字 \u2028 \ufeff 😀👍🏽"],
    ["separators mean nothing", "4a\x1e4b"],
    ["binary", Buffer.from([1, 2, 3, 4])],
    ["no bytes", Buffer.alloc(0)],
    ["all bytes", ALL_BYTES],
    ["several", "4a", Buffer.from("b"), "4", "4c", Buffer.alloc(70_000, 7), "4d"],
    ["a thousand", ...Array.from({ length: 1000 }, (_, n) => `4${n}`)],
  ].map(([name, ...packets]) => [name, packets]), async (packets) => {
    const ws = await openWebSocket();
    await ws.send(...packets).expect(...packets);
  }),
  ["message, websocket: in fragments", async () => {
    const connection = await Http.open();
    await connection.write(handshake(WEBSOCKET)).response();
    await readFrame(connection);
    connection.write(Buffer.concat([frame("4he", 1, false), frame("", 9), frame("ll", 0, false), frame("o", 0)]));
    assert.strictEqual((await readFrame(connection)).first, 0x8a, "a pong");
    assert.strictEqual((await readFrame(connection)).payload, "4hello");
  }],
  ...each("message, websocket, invalid, closes", [
    ["an unknown type", "abc"], ["type 7", "7"], ["nothing", ""], ["binary's letter in text is not enough", "c"],
  ], async (packet) => {
    await (await openWebSocket()).send(packet).closed();
  }),
];

// ---- limits ----

const limits = [
  ["limit, polling: a body of just so many bytes", async () => {
    const session = await Polling.open();
    const packet = "4" + "x".repeat(PAYLOAD_MAX - 1);
    await session.post(packet);
    isAPollsAnswer(await session.poll(), packet);
  }],
  ...each("limit, polling: one byte more is refused, and the session lives", [
    ["Content-Length", "4" + "x".repeat(PAYLOAD_MAX)],
    ["Content-Length, bytes are counted, not characters", "4" + "é".repeat(PAYLOAD_MAX / 2)],
    ["chunked", chunked("4" + "x".repeat(PAYLOAD_MAX)), { "Transfer-Encoding": "chunked" }],
    ["many chunks", chunked("4", ...Array(101).fill("x".repeat(10_000))), { "Transfer-Encoding": "chunked" }],
  ], async (body, headers) => {
    const session = await Polling.open();
    assert.strictEqual((await post(session.path, body, { headers })).status, 413);
    await session.lives();
  }),
  ["limit, websocket: a message of just so many bytes", async () => {
    const ws = await openWebSocket();
    const packet = "4" + "x".repeat(PAYLOAD_MAX - 1);
    await ws.send(packet).expect(packet);
    const bytes = Buffer.alloc(PAYLOAD_MAX, 7);
    await ws.send(bytes).expect(bytes);
  }],
  ...each("limit, websocket: one byte more closes with 1009", [
    ["text", "4" + "x".repeat(PAYLOAD_MAX)],
    ["binary", Buffer.alloc(PAYLOAD_MAX + 1)],
  ], async (packet) => {
    assert.strictEqual((await (await openWebSocket()).send(packet).closed()).code, 1009);
  }),
  ["limit, websocket: one byte more in fragments closes with 1009", async () => {
    const ws = await openWebSocket();
    ws.socket.send("4" + "x".repeat(PAYLOAD_MAX - 1), { fin: false });
    ws.socket.send("x", { fin: true });
    assert.strictEqual((await ws.closed()).code, 1009);
  }],
  ["limit, websocket: a length that nobody would send closes with 1009 before it comes", async () => {
    const connection = await Http.open();
    await connection.write(handshake(WEBSOCKET)).response();
    await readFrame(connection);
    connection.write(Buffer.from([0x82, 0xff, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4]));
    const { first, payload } = await readFrame(connection);
    assert.deepStrictEqual([first, payload.readUInt16BE()], [0x88, 1009]);
  }],
];

// ---- requests that collide or break off ----

const collisions = [
  ["collision: a second poll ends the session; the first one gets a close packet", async () => {
    const session = await Polling.open();
    const waiting = await waitingPoll(session);
    assert.strictEqual((await session.poll()).status, 400);
    isAPollsAnswer(await waiting.response(), "1");
    await session.isGone();
  }],
  ["collision: a second POST while one is coming in ends the session", async () => {
    const session = await Polling.open();
    const slow = await Http.open();
    // The answer to the expectation shows that the server is reading the body.
    slow.write(request("POST", session.path, { headers: { "Content-Length": 10, Expect: "100-continue" } }));
    assert.strictEqual((await slow.response()).status, 100);
    slow.write("4hello");
    assert.strictEqual((await post(session.path, "4x")).status, 400);
    await isRefusedOrNot(slow.response());
    await session.isGone();
  }],
  ["collision: an aborted poll ends the session", async () => {
    const session = await Polling.open();
    (await waitingPoll(session)).destroy();
    // A poll that overtakes the news of the end is a second poll, or ends with the session.
    const answer = await session.poll();
    assert.ok(answer.status === 400 || answer.body === "1", answer.body);
    await session.isGone();
  }],
  ["collision: an aborted POST ends the session", async () => {
    const session = await Polling.open();
    const slow = await Http.open();
    slow.write(request("POST", session.path, { headers: { "Content-Length": 10, Expect: "100-continue" } }));
    assert.strictEqual((await slow.response()).status, 100);
    slow.write("4hello").destroy();
    const answer = await session.poll();
    assert.ok(answer.status === 400 || answer.body === "1", answer.body);
    await session.isGone();
  }],
  ...each("collision: other methods do not harm a session", [
    ["HEAD", "HEAD"], ["PUT", "PUT"], ["PATCH", "PATCH"], ["DELETE", "DELETE"],
  ], async (method) => {
    const session = await Polling.open();
    // An accident: Node says 500.
    assert.ok([400, 405, 500].includes((await ask(method, session.path)).status));
    await session.lives();
  }),
  ...each("collision: a session is bound to its version and transport", [
    ["EIO=3", "EIO=4", "EIO=3"], ["no EIO", "EIO=4", "EIO"], ["websocket without upgrade", "=polling", "=websocket"],
  ], async (from, to) => {
    const session = await Polling.open();
    const wrong = session.path.replace(from, to);
    isRefused(await get(wrong), 3);
    isRefused(await post(wrong, "4x"), 3);
    await session.lives();
  }),
  ["collision: the session of a WebSocket takes no requests", async () => {
    const ws = await openWebSocket();
    const session = path(ENDPOINT, "polling", ws.terms.sid);
    isRefused(await get(session), 3);
    isRefused(await post(session, "4x"), 3);
    await ws.send("4alive?").expect("4alive?");
  }],
];

// ---- upgrade ----

const upgrades = [
  ["upgrade: probe, noop for the next poll, upgrade, messages", async () => {
    const session = await Polling.open();
    const ws = await session.probed();
    isAPollsAnswer(await session.poll(), "6");
    await ws.send("5", "4hello").expect("4hello");
  }],
  ["upgrade: the poll that waits gets a noop", async () => {
    const session = await Polling.open();
    const waiting = await waitingPoll(session);
    await session.probed();
    isAPollsAnswer(await waiting.response(), "6");
  }],
  ["upgrade: all in one burst", async () => {
    const session = await Polling.open();
    const connection = await Http.open();
    const burst = ["2probe", "5", "4a", "4b"].map((packet) => frame(packet));
    connection.write(Buffer.concat([Buffer.from(handshake(session.websocketPath)), ...burst]));
    assert.strictEqual((await connection.response()).status, 101);
    for (const packet of ["3probe", "4a", "4b"]) assert.strictEqual((await readFrame(connection)).payload, packet);
  }],
  ["upgrade: a frame that comes byte by byte", async () => {
    const session = await Polling.open();
    const connection = await Http.open();
    await connection.write(handshake(session.websocketPath)).response();
    const burst = Buffer.concat(["2probe", "5", "4a"].map((packet) => frame(packet)));
    await connection.writeInPieces([...burst].map((byte) => Buffer.from([byte])));
    for (const packet of ["3probe", "4a"]) assert.strictEqual((await readFrame(connection)).payload, packet);
  }],
  ["upgrade: what nobody has polled comes over the WebSocket, once and first", async () => {
    const session = await Polling.open();
    await session.post("4a", "bAQID");
    const ws = await session.probed();
    await session.post("4b");
    await ws.send("5", "4c").expect("4a", Buffer.from([1, 2, 3]), "4b", "4c");
  }],
  ["upgrade: until it is done, messages go to the polls", async () => {
    const session = await Polling.open();
    await session.probed();
    await session.post("4a");
    isAPollsAnswer(await session.poll(), "4a");
  }],
  ["upgrade: afterwards requests of the session are refused", async () => {
    const session = await Polling.open();
    const ws = await session.upgraded();
    isRefused(await session.poll(), 3);
    isRefused(await post(session.path, "4x"), 3);
    isRefused(await post(session.path, "1"), 3);
    await ws.send("4hello").expect("4hello");
  }],
  ["upgrade: afterwards another WebSocket of the session is closed", async () => {
    const session = await Polling.open();
    const ws = await session.upgraded();
    await (await session.websocket()).closed();
    await ws.send("4hello").expect("4hello");
  }],
  ["upgrade: a second WebSocket is closed, the first one goes on", async () => {
    const session = await Polling.open();
    const first = await session.websocket();
    await (await session.websocket()).send("2probe").closed();
    await first.send("2probe").expect("3probe");
    await first.send("5", "4hello").expect("4hello");
  }],
  ["upgrade: the upgraded session ends with its WebSocket", async () => {
    const session = await Polling.open();
    const ws = await session.upgraded();
    ws.socket.close();
    await ws.closed();
    isRefused(await session.poll(), 1);
  }],
  ...each("upgrade, failed: polling goes on, and the next one succeeds: the client closes", [
    ["at once", []], ["after the probe", ["2probe"]],
  ], async (packets) => {
    const session = await Polling.open();
    const ws = await session.websocket();
    ws.send(...packets);
    if (packets.length > 0) await ws.expect("3probe");
    ws.socket.close();
    await ws.closed();
    await session.lives();
    const next = await session.upgraded();
    await next.send("4hello").expect("4hello");
  }),
  ["upgrade, failed: polling goes on, and the next one succeeds: the connection breaks", async () => {
    const session = await Polling.open();
    const ws = await session.probed();
    ws.destroy();
    // When the server hears of it is not ours to know; a WebSocket before that is a second one.
    for (;;) {
      const next = await session.websocket();
      const answer = await next.send("2probe").next().catch(() => "closed");
      if (answer === "3probe") break;
    }
    await session.lives();
  }],
  ...each("upgrade, failed: polling goes on: anything but a probe closes the WebSocket", [
    ["a message", "4hello"],
    ["binary", Buffer.from("4hello")],
    ["a ping that is none", "2"],
    ["another probe", "2prober"],
    ["a pong", "3probe"],
    ["a close packet", "1"],
    ["a noop", "6"],
    ["an unknown type", "abc"],
    ["nothing", ""],
  ], async (packet) => {
    const session = await Polling.open();
    await (await session.websocket()).send(packet).closed();
    await session.lives();
  }),
  ["upgrade, failed: polling goes on: a message after the probe", async () => {
    const session = await Polling.open();
    await (await session.probed()).send("4hello").closed();
    await session.lives();
  }],
  ["upgrade, failed: polling goes on: a message over the limit", async () => {
    const session = await Polling.open();
    await (await session.probed()).send("4" + "x".repeat(PAYLOAD_MAX)).closed();
    await session.lives();
  }],
  ["upgrade, refused: of another version", async () => {
    const session = await Polling.open();
    const connection = await Http.open();
    const answer = await connection.write(handshake(session.websocketPath.replace("EIO=4", "EIO=3"))).response();
    assert.strictEqual(answer.status, 400);
    assert.ok(answer.body.includes(MESSAGES[3]), answer.body);
    await session.lives();
  }],
  ["upgrade, refused: a handshake that is none leaves the session as it was", async () => {
    const session = await Polling.open();
    const connection = await Http.open();
    const bytes = handshake(session.websocketPath, { "Sec-WebSocket-Key": null });
    const { status } = await connection.write(bytes).response();
    assert.strictEqual(status, 400);
    await session.lives();
    await session.upgraded();
  }],
];

// ---- pages of other origins ----

const from = { Origin: ORIGIN };

const origins = [
  ["origin: preflight", async () => {
    const session = await Polling.open();
    for (const target of [POLLING, session.path]) {
      const answer = await ask("OPTIONS", target, {
        headers: {
          ...from,
          "Access-Control-Request-Method": "POST",
          "Access-Control-Request-Headers": "content-type,x-token",
        },
      });
      assert.strictEqual(answer.status, 204);
      allowsOrigin(answer);
      const methods = answer.headers["access-control-allow-methods"].split(/, ?/);
      assert.ok(["GET", "POST"].every((method) => methods.includes(method)), `${methods}`);
      assert.strictEqual(answer.headers["access-control-allow-headers"], "content-type,x-token");
    }
    await session.lives();
  }],
  ["origin: OPTIONS without an origin", async () => {
    const answer = await ask("OPTIONS", POLLING);
    assert.strictEqual(answer.status, 204);
    assert.strictEqual(answer.headers["access-control-allow-origin"], undefined);
    assert.match(answer.headers.vary, /\bOrigin\b/i);
  }],
  ["origin: on the same connection go a preflight and what it asked about", async () => {
    const session = await Polling.open();
    const connection = await Http.open();
    const preflight = await connection.write(request("OPTIONS", session.path, { headers: from })).response();
    assert.strictEqual(preflight.status, 204);
    const answer = await connection.write(request("POST", session.path, { headers: from, body: "4x" })).response();
    assert.strictEqual(answer.body, "ok");
  }],
  ["origin: good answers", async () => {
    allowsOrigin(await get(POLLING, { headers: from }));
    const session = await Polling.open();
    allowsOrigin(await post(session.path, "4x", { headers: from }));
    allowsOrigin(await session.poll({ headers: from }));
    const waiting = await waitingPoll(session, from);
    await session.post("4x");
    allowsOrigin(await waiting.response());
  }],
  ["origin: error answers", async () => {
    const headers = from;
    allowsOrigin(await get("/engine.io/?EIO=4&transport=abc", { headers }));
    allowsOrigin(await get("/engine.io/?EIO=3&transport=polling", { headers }));
    allowsOrigin(await get("/engine.io/?EIO=4&transport=polling&sid=AAAAAAAAAAAAAAAAAAAA", { headers }));
    allowsOrigin(await post(POLLING, "4x", { headers }));
    const session = await Polling.open();
    allowsOrigin(await post(session.path, "4" + "x".repeat(PAYLOAD_MAX), { headers }));
    const waiting = await waitingPoll(session, from);
    allowsOrigin(await session.poll({ headers }));
    allowsOrigin(await waiting.response());
  }],
  ["origin: of a page without one", async () => {
    allowsOrigin(await get(POLLING, { headers: { Origin: "null" } }), "null");
  }],
  ["origin: not told, not answered", async () => {
    const session = await Polling.open();
    const good = [await get(POLLING), await session.post("4x"), await session.poll()];
    for (const answer of [...good, await post(POLLING, "4x")]) {
      assert.strictEqual(answer.headers["access-control-allow-origin"], undefined);
      assert.match(answer.headers.vary, /\bOrigin\b/i);
    }
  }],
  ["origin: a WebSocket's is of no interest", async () => {
    const connection = await Http.open();
    assert.strictEqual((await connection.write(handshake(WEBSOCKET, from)).response()).status, 101);
    assert.strictEqual((await readFrame(connection)).payload[0], "0");
  }],
];

// ---- HTTP/1.1 ----

const http = [
  ["http: hundreds of requests on one connection", async () => {
    const connection = await Http.open();
    for (let n = 0; n < 300; n += 1) {
      assert.strictEqual((await connection.write(request("GET", POLLING)).response()).status, 200);
    }
  }, 5000],
  ["http: a whole session on one connection", async () => {
    const session = await Polling.open();
    const connection = await Http.open();
    for (let n = 0; n < 20; n += 1) {
      const posted = await connection.write(request("POST", session.path, { body: `4${n}` })).response();
      assert.strictEqual(posted.body, "ok");
      assert.strictEqual((await connection.write(request("GET", session.path)).response()).body, `4${n}`);
    }
  }],
  ["http: Expect: 100-continue", async () => {
    const session = await Polling.open();
    const connection = await Http.open();
    const headers = { Expect: "100-continue", "Content-Length": 6 };
    connection.write(request("POST", session.path, { headers }));
    assert.strictEqual((await connection.response()).status, 100);
    assert.strictEqual((await connection.write("4hello").response()).body, "ok");
    await session.expect("4hello");
  }],
  ...each("http: a body in chunks", [
    ["one", chunked("4hello")],
    ["many", chunked(..."4hello")],
    ["with extensions", "1;a=b\r\n4\r\n5;c=\"d;e\"\r\nhello\r\n0;last\r\n\r\n"],
    ["with zeros before the length", "00006\r\n4hello\r\n000\r\n\r\n"],
    ["with trailers", "6\r\n4hello\r\n0\r\nX-Checksum: 1\r\nX-More: 2\r\n\r\n"],
  ], async (body) => {
    const session = await Polling.open();
    const connection = await Http.open();
    const headers = { "Transfer-Encoding": "chunked" };
    const bytes = request("POST", session.path, { headers, body });
    assert.strictEqual((await connection.write(bytes).response()).body, "ok");
    await session.expect("4hello");
    // The body's end was found: the next request on the connection is understood.
    await session.post("4next");
    assert.strictEqual((await connection.write(request("GET", session.path)).response()).body, "4next");
  }),
  ["http: a body in chunks that comes byte by byte", async () => {
    const session = await Polling.open();
    const headers = { "Transfer-Encoding": "chunked" };
    const bytes = request("POST", session.path, { headers, body: chunked("4he", "llo") });
    const connection = await (await Http.open()).writeInPieces([...bytes]);
    assert.strictEqual((await connection.response()).body, "ok");
    await session.expect("4hello");
  }],
  ["http: requests that come byte by byte", async () => {
    const connection = await Http.open();
    await connection.writeInPieces([...request("GET", POLLING)]);
    const { sid } = JSON.parse((await connection.response()).body.slice(1));
    const session = path(ENDPOINT, "polling", sid);
    await connection.writeInPieces([...request("POST", session, { body: "4hello" })]);
    assert.strictEqual((await connection.response()).body, "ok");
    await connection.writeInPieces([...request("GET", session)]);
    isAPollsAnswer(await connection.response(), "4hello");
  }],
  ["http: a POST in two pieces, split at each byte", async () => {
    const length = request("POST", (await Polling.open()).path, { body: "4é😀" }).length;
    for (let at = 1; at < length; at += 1) {
      const session = await Polling.open();
      const bytes = Buffer.from(request("POST", session.path, { body: "4é😀" }));
      const connection = await Http.open();
      await connection.writeInPieces([bytes.subarray(0, at), bytes.subarray(at)]);
      assert.strictEqual((await connection.response()).body, "ok", `split at ${at}`);
      isAPollsAnswer(await session.poll(), "4é😀");
      connection.destroy();
      opened.delete(connection);
    }
  }, 5000],
  ["http: a WebSocket's handshake and a frame in two pieces, split at each byte", async () => {
    const hello = Buffer.from(handshake(WEBSOCKET));
    const bytes = frame("4é😀");
    for (let at = 1; at < hello.length; at += 1) {
      const connection = await Http.open();
      await connection.writeInPieces([hello.subarray(0, at), hello.subarray(at)]);
      assert.strictEqual((await connection.response()).status, 101, `split at ${at}`);
      assert.strictEqual((await readFrame(connection)).payload[0], "0");
      const within = at % bytes.length;
      await connection.writeInPieces([bytes.subarray(0, within), bytes.subarray(within)]);
      assert.strictEqual((await readFrame(connection)).payload, "4é😀");
      connection.destroy();
      opened.delete(connection);
    }
  }, 5000],
  ["http: pipelined: a POST behind the poll that it feeds", async () => {
    const session = await Polling.open();
    const connection = await Http.open();
    connection.write(request("GET", session.path) + request("POST", session.path, { body: "4hello" }));
    isAPollsAnswer(await connection.response(), "4hello");
    assert.strictEqual((await connection.response()).body, "ok");
  }],
  ["http: pipelined: a POST that comes behind the waiting poll", async () => {
    const session = await Polling.open();
    const connection = await waitingPoll(session);
    connection.write(request("POST", session.path, { body: "4hello" }));
    isAPollsAnswer(await connection.response(), "4hello");
    assert.strictEqual((await connection.response()).body, "ok");
  }],
  ["http: pipelined: handshakes", async () => {
    const connection = await Http.open();
    connection.write(request("GET", POLLING).repeat(5));
    for (let n = 0; n < 5; n += 1) assert.strictEqual((await connection.response()).status, 200);
  }],
  ["http: pipelined: a POST and the poll that it feeds", async () => {
    const session = await Polling.open();
    const connection = await Http.open();
    connection.write(request("POST", session.path, { body: "4hello" }) + request("GET", session.path));
    assert.strictEqual((await connection.response()).body, "ok");
    isAPollsAnswer(await connection.response(), "4hello");
  }],
  // Node hears the second one before it has answered the first one, and ends the session.
  ...beyond([["http: pipelined: two POSTs and a poll", async () => {
    const session = await Polling.open();
    const connection = await Http.open();
    const posts = request("POST", session.path, { body: "4a" }) + request("POST", session.path, { body: "4b" });
    connection.write(posts + request("GET", session.path));
    assert.strictEqual((await connection.response()).body, "ok");
    assert.strictEqual((await connection.response()).body, "ok");
    isAPollsAnswer(await connection.response(), "4a\x1e4b");
  }]]),
  ["http: names of headers in any case, values with any spaces", async () => {
    const session = await Polling.open();
    const head = `POST ${session.path} HTTP/1.1\r\nhOST:x\r\nCONTENT-LENGTH:   6  \r\nX-Empty:\r\n\r\n`;
    assert.strictEqual((await (await Http.open()).write(head + "4hello").response()).body, "ok");
    await session.expect("4hello");
  }],
  ["http: Connection: close", async () => {
    const connection = await Http.open();
    const answer = await connection.write(request("GET", POLLING, { headers: { Connection: "close" } })).response();
    assert.strictEqual(answer.status, 200);
    assert.strictEqual(answer.headers.connection, "close");
    await connection.ended();
  }],
  ["http: HTTP/1.0 ends the connection", async () => {
    const connection = await Http.open();
    const answer = await connection.write(request("GET", POLLING, { version: "1.0" })).response();
    assert.strictEqual(answer.status, 200);
    assert.strictEqual(answer.headers["transfer-encoding"], undefined, "HTTP/1.0 knows no chunks");
    await connection.ended();
  }],
  ["http: HTTP/1.0 with keep-alive does not", async () => {
    const connection = await Http.open();
    const bytes = request("GET", POLLING, { version: "1.0", headers: { Connection: "keep-alive" } });
    for (let n = 0; n < 2; n += 1) {
      const answer = await connection.write(bytes).response();
      assert.strictEqual(answer.status, 200);
      assert.strictEqual(answer.headers.connection.toLowerCase(), "keep-alive");
    }
  }],
  ...each("http, refused", [
    ["no request line", "hello\r\n\r\n"],
    ["no Host", `GET ${POLLING} HTTP/1.1\r\n\r\n`],
    ["a header without a colon", `GET ${POLLING} HTTP/1.1\r\nHost: x\r\nnonsense\r\n\r\n`],
    ["a space before the colon", `GET ${POLLING} HTTP/1.1\r\nHost: x\r\nX-A : b\r\n\r\n`],
    ["two lengths", request("POST", POLLING, { headers: { "Content-Length": 1, "content-length": 2 }, body: "4x" })],
    ["a length that is none", request("POST", POLLING, { headers: { "Content-Length": "1x" }, body: "4x" })],
    ["a negative length", request("POST", POLLING, { headers: { "Content-Length": "-1" }, body: "4x" })],
    ["a length and chunks", request("POST", POLLING, {
      headers: { "Content-Length": 2, "Transfer-Encoding": "chunked" }, body: chunked("4x"),
    })],
    ["a coding behind chunked", request("POST", POLLING, {
      headers: { "Transfer-Encoding": "chunked, gzip" }, body: chunked("4x"),
    })],
    ["a head without an end", `GET ${POLLING} HTTP/1.1\r\nHost: x\r\n` + "X-More: and more\r\n".repeat(5000)],
    ["a chunk's length that is none", request("POST", POLLING, {
      headers: { "Transfer-Encoding": "chunked" }, body: "xyz\r\n",
    })],
  ], async (bytes) => {
    const connection = await Http.open();
    // Which of them it is, and whether there is an answer before the end, is left to the server.
    const answer = await connection.write(bytes).response().catch((error) => error);
    assert.ok(answer instanceof Error || (answer.status >= 400 && answer.status < 500), `answered ${answer.status}`);
    if (!(answer instanceof Error)) assert.notStrictEqual(answer.status, 404);
  }),
];

run(() => cases([
  ...handshakes,
  ...heartbeats,
  ...closes,
  ...messages,
  ...limits,
  ...collisions,
  ...upgrades,
  ...origins,
  ...http,
]));
