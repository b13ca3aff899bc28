// What socket.io-client relies on: namespaces, acknowledgements, binary, ids, refusals.
"use strict";
const { io, Manager } = require("socket.io-client");
const { listen, run, assert, Publisher, once, metric, until } = require("./lib");

const url = `http://${listen}`;
const options = { transports: ["websocket"], forceNew: true, reconnection: false };

run(async () => {
  // Several namespaces on one connection.
  const manager = new Manager(url, options);
  const main = manager.socket("/");
  const seats = manager.socket("/seats", { auth: { token: "t", n: 12 } });
  const nowhere = manager.socket("/nowhere");
  const [[error]] = await Promise.all([once(nowhere, "connect_error"), once(main, "connect"), once(seats, "connect")]);
  assert.strictEqual(error.message, "Invalid namespace");
  assert.notStrictEqual(main.id, seats.id);
  assert.match(main.id, /^[A-Za-z0-9_-]{20}$/);
  assert.strictEqual(await metric("roomcast_sessions_socket_io"), 1);

  // A namespace can refuse.
  const vip = manager.socket("/vip", { auth: { token: "wrong" } });
  const [refused] = await once(vip, "connect_error");
  assert.strictEqual(typeof refused.message, "string");
  vip.auth = { token: "right" };
  vip.connect();
  const [welcome] = await once(vip, "welcome");
  assert.deepStrictEqual(welcome, { id: vip.id, token: "right" });

  // Acknowledgements, with and without arguments; an unknown event's tells of the error.
  assert.deepStrictEqual(await main.emitWithAck("subscribe", { room: "a" }), "ok");
  const back = once(main, "back");
  const many = await new Promise((resolve) => main.emit("echo", 1, "two", { x: [3] }, (...args) => resolve(args)));
  assert.deepStrictEqual(many, [1, "two", { x: [3] }]);
  assert.deepStrictEqual(await back, [1]);
  const complaint = once(main, "error");
  const answer = await main.emitWithAck("not in the rules", 1);
  assert.strictEqual((await complaint)[0].event, "not in the rules");
  assert.ok(answer.error);

  // Binary there and back, in an event and in its acknowledgement.
  const bytes = Buffer.from([1, 2, 3, 0, 255]);
  const echo = once(main, "back");
  const acked = await new Promise((resolve) =>
    main.emit("echo", { file: bytes, name: "x" }, Buffer.alloc(0), (...args) => resolve(args)),
  );
  assert.deepStrictEqual(acked, [{ file: bytes, name: "x" }, Buffer.alloc(0)]);
  assert.deepStrictEqual(await echo, [{ file: bytes, name: "x" }]);
  const large = Buffer.alloc(200000, 7);
  const largeBack = once(main, "back");
  main.emit("echo", large);
  assert.deepStrictEqual(await largeBack, [large]);

  // Rooms of the same name in two namespaces are two rooms.
  assert.deepStrictEqual(await seats.emitWithAck("subscribe", { room: "a" }), "seats ok");
  const got = { main: [], seats: [], vip: [] };
  main.onAny((...event) => got.main.push(event));
  seats.onAny((...event) => got.seats.push(event));
  vip.onAny((...event) => got.vip.push(event));
  const publisher = new Publisher();
  await publisher.ask({ room: "a", event: "one", data: 1 });
  await publisher.ask({ ns: "/seats", room: "a", event: "two", data: 2 });
  await publisher.ask({ ns: "/seats", event: "everyone in seats" });
  await publisher.ask({ ns: "/vip", room: vip.id, event: "you" });
  await until(() => got.main.length >= 1 && got.seats.length >= 2 && got.vip.length >= 1);
  assert.deepStrictEqual(got.main, [["one", 1]]);
  assert.deepStrictEqual(got.seats.sort(), [["everyone in seats"], ["two", 2]]);
  assert.deepStrictEqual(got.vip, [["you"]]);

  // Leaving one namespace leaves the others.
  seats.disconnect();
  await until(async () => (await metric("roomcast_sockets")) === 2);
  await publisher.ask({ ns: "/seats", event: "nobody" });
  await publisher.ask({ room: "a", event: "three", data: 3 });
  await until(() => got.main.length >= 2);
  assert.deepStrictEqual(got.main[1], ["three", 3]);
  assert.strictEqual(got.seats.length, 2);
  seats.connect();
  await once(seats, "connect");

  // A publisher can show the door: of one namespace, or of the house.
  const left = once(vip, "disconnect");
  await publisher.ask({ op: "disconnect", ns: "/vip", where: { room: vip.id } });
  assert.deepStrictEqual((await left)[0], "io server disconnect");
  assert.ok(main.connected);
  const out = Promise.all([once(main, "disconnect"), once(seats, "disconnect")]);
  await publisher.ask({ op: "disconnect", where: { room: main.id }, close: true });
  await out;
  await until(async () => (await metric("roomcast_sessions_socket_io")) === 0);

  // The query of the connection is the rules' to use.
  const asking = io(url + "/vip", { ...options, auth: { token: "right" }, query: { lang: "mr" } });
  const [hello] = await once(asking, "query");
  assert.deepStrictEqual(hello, { lang: "mr" });
});
