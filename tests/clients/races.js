// What happens when things happen at once, each of them many times. The connections come to cores of the server as
// their ports have it, so that with two cores each race is run within a core and across.
"use strict";
const { listen, isReference, run, assert, sleep } = require("./lib");
const { Http, Ws, request, handshake, frame, readFrame } = require("./wire");
const { Polling, path } = require("./engine");
const { cases, beyond } = require("./suite");

const TIMES = 50;

const race = (name, round) => [name, round, undefined, TIMES];

async function isGone(session) {
  const answer = await session.poll();
  assert.deepStrictEqual([answer.status, JSON.parse(answer.body).code], [400, 1]);
}

const url = (session) => `http://${listen}${session.path}`;

// As the protocol's test suite does it: nothing is waited for but the opening.
async function upgradeThenPoll() {
  const session = await Polling.open();
  const ws = await session.websocket();
  ws.send("2probe", "5");
  const answer = await fetch(url(session));
  assert.strictEqual(answer.status, 400, await answer.text());
  await ws.send("4hello").expect("3probe", "4hello");
}

async function abortThenPoll() {
  const session = await Polling.open();
  const abort = new AbortController();
  fetch(url(session), { signal: abort.signal }).catch(() => {});
  await sleep(5);
  abort.abort();
  const answer = await fetch(url(session));
  assert.strictEqual(answer.status, 400, await answer.text());
}

// Without a pause the second poll may be the first to be heard. Then it is the one that gets the close packet.
async function abortAtOnceThenPoll() {
  const session = await Polling.open();
  const connection = await Http.open();
  await new Promise((resolve) => connection.socket.write(request("GET", session.path), resolve));
  connection.destroy();
  const answer = await session.poll();
  assert.ok(answer.status === 400 || answer.body === "1", JSON.stringify(answer));
  await isGone(session);
}

async function twoWebSockets() {
  const session = await Polling.open();
  const sockets = [new Ws(session.websocketPath), new Ws(session.websocketPath)];
  const outcomes = await Promise.all(sockets.map(async (ws) => {
    if ((await Promise.race([ws.isOpen, ws.end])) !== undefined) return "closed";
    return ws.send("2probe").next().catch(() => "closed");
  }));
  assert.deepStrictEqual([...outcomes].sort(), ["3probe", "closed"]);
  const winner = sockets[outcomes.indexOf("3probe")];
  await winner.send("5", "4hello").expect("4hello");
}

async function twoPolls() {
  const session = await Polling.open();
  const answers = await Promise.all([session.poll(), session.poll()]);
  const [good, bad] = answers.sort((a, b) => a.status - b.status);
  assert.deepStrictEqual([good.status, good.body, bad.status], [200, "1", 400]);
  await isGone(session);
}

async function pollAndPost() {
  const session = await Polling.open();
  const [polled] = await Promise.all([session.poll(), session.post("4hello")]);
  assert.deepStrictEqual([polled.status, polled.body], [200, "4hello"]);
}

async function pollAndClose() {
  const session = await Polling.open();
  const [polled] = await Promise.all([session.poll(), session.post("1")]);
  // Whichever is heard first.
  assert.ok(polled.status === 400 || polled.body === "6", JSON.stringify(polled));
  await isGone(session);
}

async function connectAndEvent(n) {
  const connection = await Http.open();
  const packets = ["40", `42["message",${n}]`, `421["message-with-ack",${n}]`].map((packet) => frame(packet));
  connection.write(Buffer.concat([Buffer.from(handshake(path("/socket.io/", "websocket"))), ...packets]));
  assert.strictEqual((await connection.response()).status, 101);
  const got = [];
  for (let m = 0; m < 5; m += 1) got.push((await readFrame(connection)).payload);
  assert.match(got[0], /^0\{/);
  assert.match(got[1], /^40\{"sid":"/);
  assert.deepStrictEqual(got.slice(2), ['42["auth",{}]', `42["message-back",${n}]`, `431[${n}]`]);
}

async function connectAndEventByPost(n) {
  const session = await Polling.open("/socket.io/");
  await session.post("40", `42["message",${n}]`, `421["message-with-ack",${n}]`);
  const got = [];
  while (got.length < 4) got.push(...(await session.packets()));
  assert.match(got[0], /^40\{"sid":"/);
  assert.deepStrictEqual(got.slice(1), ['42["auth",{}]', `42["message-back",${n}]`, `431[${n}]`]);
}

run(() => cases([
  race("upgrade, then poll at once", upgradeThenPoll),
  race("abort, after 5 ms, then poll at once", abortThenPoll),
  race("abort at once, then poll at once", abortAtOnceThenPoll),
  race("two WebSockets of one session at once", twoWebSockets),
  race("two polls at once", twoPolls),
  race("a poll and a POST at once", pollAndPost),
  race("a poll and a close packet at once", pollAndClose),
  // Node closes a connection whose CONNECT has an EVENT in the same segment: it is not connected yet.
  ...beyond([
    race("CONNECT and EVENT in one segment, with the handshake", connectAndEvent),
    race("CONNECT and EVENT in one POST", connectAndEventByPost),
  ]),
]));
