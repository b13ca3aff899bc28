// Clients that acknowledge what a publisher asks them to, with socket.io-client as people use it. The arguments are its
// transports.
"use strict";
const { io } = require("socket.io-client");
const WebSocket = require("ws");
const { listen, args: transports, run, assert, Publisher, once, metric, until } = require("./lib");

async function client(namespace, ...rooms) {
  const socket = io(`http://${listen}${namespace}`, { transports, forceNew: true });
  await once(socket, "connect");
  for (const room of rooms) assert.strictEqual(await socket.emitWithAck("subscribe", { room }), "ok");
  return socket;
}

// The answers by socket, in no order.
function answers(receipt) {
  const { asked, answers, missing, ...rest } = receipt.ack;
  assert.deepStrictEqual(rest, {});
  assert.strictEqual(asked, answers.length + missing);
  return Object.fromEntries(answers.map(({ sid, args }) => [sid, args]));
}

run(async () => {
  const a = await client("/", "a");
  const b = await client("/", "a", "b");
  const c = await client("/", "a", "b", "c");
  const all = [a, b, c];
  const publisher = new Publisher();
  const ack = { timeout_ms: 60_000 };

  // A plain WebSocket gets the event and is not asked.
  const raw = new WebSocket(`ws://${listen}/ws`);
  const heard = [];
  raw.on("message", (data) => heard.push(JSON.parse(data)));
  await once(raw, "open");
  raw.send(JSON.stringify({ type: "subscribe", data: { room: "a" } }));
  await until(() => heard.length === 1);

  for (const socket of all) {
    socket.on("count", (data, callback) => callback({ n: data.n + 1 }, "of", socket.id));
    socket.on("nothing", (callback) => callback());
  }
  const counted = await publisher.ask({ room: "a", event: "count", data: { n: 7 }, ack });
  assert.strictEqual(counted.offset, 1);
  assert.strictEqual(counted.ack.missing, 0);
  const expected = Object.fromEntries(all.map(({ id }) => [id, [{ n: 8 }, "of", id]]));
  assert.deepStrictEqual(answers(counted), expected);
  await until(() => heard.length === 2);
  assert.deepStrictEqual(heard[1], { type: "count", data: { n: 7 } });

  // Without arguments on either side; one socket by its own room; nobody.
  const empty = await publisher.ask({ room: "a", event: "nothing", ack });
  assert.deepStrictEqual(answers(empty), Object.fromEntries(all.map(({ id }) => [id, []])));
  const one = await publisher.ask({ room: b.id, event: "nothing", ack });
  assert.deepStrictEqual(answers(one), { [b.id]: [] });
  const nobody = await publisher.ask({ room: "nowhere", event: "nothing", ack });
  assert.deepStrictEqual(nobody.ack, { asked: 0, answers: [], missing: 0 });

  // Several rooms, whoever owns them: each socket is asked once.
  for (const rooms of [["a", "b", "c"], ["c", "b"], ["b", c.id, a.id], ["x", "y", "z", "a"], ["x", "y", "z"]]) {
    const asked = all.filter((socket, i) => rooms.some((room) => [["a"], ["a", "b"], ["a", "b", "c"]][i].includes(room)
      || room === socket.id));
    const several = await publisher.ask({ rooms, event: "nothing", ack });
    assert.deepStrictEqual(Object.keys(several.offsets), rooms);
    assert.deepStrictEqual(answers(several), Object.fromEntries(asked.map(({ id }) => [id, []])), rooms.join());
  }
  const except = await publisher.ask({ rooms: ["a", "b"], except: ["c"], event: "nothing", ack });
  assert.deepStrictEqual(answers(except), { [a.id]: [], [b.id]: [] });

  // A namespace as a whole; binary both ways.
  const seats = await client("/seats");
  const bytes = Buffer.from([0, 1, 2, 255]);
  const _base64 = bytes.toString("base64");
  seats.on("picture", (picture, callback) => {
    assert.deepStrictEqual(picture, { at: bytes });
    callback({ echo: [picture.at, 1] }, Buffer.alloc(0), "text");
  });
  const line = { ns: "/seats", event: "picture", data: { at: { _base64 } }, binary: true, ack };
  const picture = await publisher.ask(line);
  assert.deepStrictEqual(answers(picture), { [seats.id]: [{ echo: [{ _base64 }, 1] }, { _base64: "" }, "text"] });

  // One takes too long; what follows its line is not held up by it.
  const waiting = [];
  a.on("slow", (callback) => callback("a"));
  b.on("slow", (callback) => waiting.push(callback));
  let ended = false;
  const slow = publisher.ask({ rooms: ["a", "c"], except: [c.id], event: "slow", ack: { timeout_ms: 1000 } });
  slow.then(() => (ended = true));
  await publisher.ask({ room: "a", event: "nothing at all" });
  assert.ok(!ended);
  const late = await slow;
  assert.strictEqual(late.ack.missing, 1);
  assert.deepStrictEqual(answers(late), { [a.id]: ["a"] });
  assert.strictEqual(waiting.length, 1);
  const ignored = await metric("roomcast_acks_ignored_total");
  waiting[0]("too late");
  await until(async () => (await metric("roomcast_acks_ignored_total")) === ignored + 1);

  // Who leaves is not waited for.
  c.on("go", () => c.disconnect());
  b.on("go", () => b.io.engine.close());
  a.on("go", (callback) => callback("stays"));
  const gone = await publisher.ask({ room: "a", event: "go", ack });
  assert.strictEqual(gone.ack.missing, 2);
  assert.deepStrictEqual(answers(gone), { [a.id]: ["stays"] });
  await until(async () => (await metric("roomcast_asks_open")) === 0);
});
