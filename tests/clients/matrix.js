// Stock clients with every choice of transports: connect, speak, be spoken to, stay alive. Against reference.js nothing
// is pushed by publishers: it has none. Pings should come often and be given time, as a client on a busy machine needs
// it.
"use strict";
const { io } = require("socket.io-client");
const { Socket: EngineSocket } = require("engine.io-client");
const { listen, isReference, limit, run, assert, Publisher, once, until } = require("./lib");

const URL = `http://${listen}`;
const MESSAGES = 500;
const PINGS = 5;

// What the client is told, what it ends with, and whether it begins with polling.
const TRANSPORTS = [
  { name: "default", options: {}, ends: "websocket", begins: "polling" },
  { name: "polling", options: { transports: ["polling"] }, ends: "polling", begins: "polling" },
  { name: "websocket", options: { transports: ["websocket"] }, ends: "websocket", begins: "websocket" },
];

const numbers = Array.from({ length: MESSAGES }, (_, n) => n);
const bytes = Buffer.from([0, 1, 2, 254, 255]);

function socket(transports, namespace = "/", options = {}) {
  const client = io(URL + namespace, { ...transports.options, forceNew: true, reconnection: false, ...options });
  client.on("disconnect", (reason) => (client.ended = reason));
  return client;
}

// ---- socket.io-client ----

async function connects(transports) {
  const auth = { token: "123", nested: { z: [1, { y: null }], a: "é😀" } };
  for (const [namespace, given] of [["/", undefined], ["/", auth], ["/custom", auth]]) {
    const client = socket(transports, namespace, given && { auth: given });
    const [got] = await once(client, "auth");
    assert.deepStrictEqual(got, given ?? {});
    assert.match(client.id, /^[A-Za-z0-9_-]{20}$/);
    client.disconnect();
  }
  const [error] = await once(socket(transports, "/nowhere"), "connect_error");
  assert.strictEqual(error.message, "Invalid namespace");
}

async function speaks(transports) {
  const client = socket(transports);
  for (const args of [
    [],
    [1, "two", { 3: [true, null, 1.5] }],
    ["é 漢字 \u2028 😀"],
    [bytes],
    [{ file: bytes, more: [{ bytes: Buffer.alloc(0) }] }, "text", Buffer.alloc(100_000, 7)],
  ]) {
    const back = once(client, "message-back");
    client.emit("message", ...args);
    assert.deepStrictEqual(await back, args);
    const acked = await new Promise((resolve) => client.emit("message-with-ack", ...args, (...got) => resolve(got)));
    assert.deepStrictEqual(acked, args);
  }
  // Nobody answers to what nobody knows, and nothing comes of it.
  client.emit("unknown", 1, bytes);
  const error = await client.timeout(100).emitWithAck("unknown", 1).catch((error) => error);
  assert.ok(error instanceof Error);
  assert.strictEqual(await client.emitWithAck("message-with-ack", "still here"), "still here");
  client.disconnect();
}

async function sharesOneConnection(transports) {
  const main = socket(transports, "/", { forceNew: false, multiplex: true });
  const custom = main.io.socket("/custom");
  custom.connect();
  await Promise.all([once(main, "auth"), once(custom, "auth")]);
  assert.notStrictEqual(main.id, custom.id);
  const some = numbers.slice(0, 50);
  const both = await Promise.all(
    [main, custom].flatMap((client, n) => some.map((m) => client.emitWithAck("message-with-ack", [n, m]))),
  );
  assert.deepStrictEqual(both, [0, 1].flatMap((n) => some.map((m) => [n, m])));
  custom.disconnect();
  assert.strictEqual(await main.emitWithAck("message-with-ack", "still here"), "still here");
  main.disconnect();
}

// From the first moment on, so that the upgrade happens meanwhile.
async function losesNothing(transports) {
  const client = socket(transports);
  assert.ok(!client.connected);
  const back = [];
  const acked = [];
  client.on("message-back", (n, payload) => back.push([n, payload]));
  await once(client.io, "open");
  const { engine } = client.io;
  assert.strictEqual(engine.transport.name, transports.begins);
  await once(client, "connect");
  const of = (n) => (n % 7 === 0 ? Buffer.from(`${n}`) : `${n}`);
  for (const n of numbers) {
    client.emit("message", n, of(n));
    client.emit("message-with-ack", n, (m) => acked.push(m));
    // A few at a time, over many turns.
    if (n % 5 === 0) await new Promise((resolve) => setTimeout(resolve, 1));
  }
  await until(() => client.ended || (back.length >= MESSAGES && acked.length >= MESSAGES));
  // What came twice would have come before this.
  await client.emitWithAck("message-with-ack", "end");
  assert.strictEqual(client.ended, undefined);
  assert.deepStrictEqual(back, numbers.map((n) => [n, of(n)]));
  assert.deepStrictEqual(acked, numbers);
  await until(() => engine.transport.name === transports.ends);
  client.disconnect();
}

async function staysAlive(transports) {
  const client = socket(transports);
  await once(client, "connect");
  let pings = 0;
  client.io.engine.on("ping", () => (pings += 1));
  await until(() => client.ended || pings >= PINGS);
  assert.strictEqual(client.ended, undefined);
  assert.strictEqual(await client.emitWithAck("message-with-ack", "still here"), "still here");
  client.disconnect();
}

// ---- engine.io-client ----

async function engineEchoes(transports) {
  const client = new EngineSocket(URL, { ...transports.options, path: "/engine.io/" });
  let ended;
  client.on("close", (reason) => (ended = reason));
  const got = [];
  client.on("message", (data) => got.push(typeof data === "string" ? data : Buffer.from(data)));
  await once(client, "open");
  const sent = [];
  for (const n of numbers) {
    const message = n % 7 === 0 ? Buffer.from(`${n}`) : `${n} é😀`;
    sent.push(message);
    client.send(message);
    if (n % 5 === 0) await new Promise((resolve) => setTimeout(resolve, 1));
  }
  let pings = 0;
  client.on("ping", () => (pings += 1));
  await until(() => ended || (got.length >= MESSAGES && pings >= PINGS && client.transport.name === transports.ends));
  assert.strictEqual(ended, undefined);
  assert.deepStrictEqual(got, sent);
  client.close();
  await until(() => ended);
}

// ---- publishers ----

// The clients of all transports see one order, whatever transport each is on at the time.
async function hearsPublishers() {
  const clients = TRANSPORTS.flatMap((transports) => [socket(transports), socket(transports)]);
  const got = clients.map((client) => {
    const events = [];
    client.on("tick", (...args) => events.push(args));
    return events;
  });
  await Promise.all(clients.map((client) => once(client, "auth")));
  // The sockets' upgrades go on while this is said.
  const publishers = [new Publisher(), new Publisher()];
  await Promise.all(publishers.map(async (publisher, p) => {
    for (const n of numbers) await publisher.ask({ event: "tick", args: [p, n, { text: "é😀" }] });
  }));
  await until(() => clients.some(({ ended }) => ended) || got.every((events) => events.length >= 2 * MESSAGES));
  assert.deepStrictEqual(clients.map(({ ended }) => ended), clients.map(() => undefined));
  for (const events of got) assert.deepStrictEqual(events, got[0]);
  for (const p of [0, 1]) {
    const expected = numbers.map((n) => [p, n, { text: "é😀" }]);
    assert.deepStrictEqual(got[0].filter(([publisher]) => publisher === p), expected);
  }
  for (const client of clients) client.disconnect();
}

// Nothing takes so long that comes at all.
const HANGING_MS = 30_000;

async function judge(name, holds) {
  let timer;
  const hanging = new Promise((_, reject) => (timer = setTimeout(reject, HANGING_MS, new Error(`${name} hangs`))));
  try {
    await Promise.race([holds(), hanging]);
    console.log(`ok      ${name}`);
  } finally {
    clearTimeout(timer);
  }
}

run(async () => {
  limit(300);
  const all = [connects, speaks, sharesOneConnection, ...Array(5).fill(losesNothing), staysAlive, engineEchoes];
  for (const transports of TRANSPORTS) {
    for (const holds of all) await judge(`${transports.name}: ${holds.name}`, () => holds(transports));
  }
  if (!isReference) await judge("all: hearsPublishers", hearsPublishers);
});
