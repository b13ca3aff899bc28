// Namespaces by pattern and refusals in an operator's own words, as socket.io-client sees them.
"use strict";
const { Manager } = require("socket.io-client");
const { listen, run, assert, Publisher, once, metric, until } = require("./lib");

const options = { transports: ["websocket"], forceNew: true, reconnection: false };

run(async () => {
  // Two names of one pattern on one connection, and on one of their own.
  const manager = new Manager(`http://${listen}`, options);
  const alone = new Manager(`http://${listen}`, options);
  const sockets = {
    one: manager.socket("/workspace-1"),
    two: manager.socket("/workspace-2"),
    twoAgain: alone.socket("/workspace-2"),
    own: manager.socket("/workspace-own"),
    main: manager.socket("/"),
  };
  const got = {};
  const welcomes = {};
  for (const [name, socket] of Object.entries(sockets)) {
    got[name] = [];
    welcomes[name] = once(socket, "welcome");
    socket.onAny((event, ...args) => event !== "welcome" && got[name].push([event, ...args]));
  }
  assert.deepStrictEqual(await welcomes.one, [{ id: "1", namespace: "/workspace-1" }]);
  assert.deepStrictEqual(await welcomes.two, [{ id: "2", namespace: "/workspace-2" }]);
  assert.deepStrictEqual(await welcomes.twoAgain, [{ id: "2", namespace: "/workspace-2" }]);
  assert.deepStrictEqual(await welcomes.own, ["a name of its own wins"]);
  assert.deepStrictEqual(await welcomes.main, ["main"]);

  // No pattern, and a pattern that refuses.
  for (const [name, auth, message, data] of [
    ["/workspace-", {}, "Invalid namespace", undefined],
    ["/workspace-1/x", {}, "Invalid namespace", undefined],
    ["/Workspace-1", {}, "Invalid namespace", undefined],
    ["/workspace-closed", { key: "k\"1" }, "closed: k\"1", { code: 403, id: "closed", auth: { key: "k\"1" } }],
    // Nothing to say it with: our own words.
    ["/workspace-closed2", {}, "not allowed", undefined],
  ]) {
    const refused = manager.socket(name, { auth });
    const [error] = await once(refused, "connect_error");
    assert.ok(error instanceof Error);
    assert.strictEqual(error.message, message);
    assert.deepStrictEqual(error.data, data);
    refused.disconnect();
  }

  // The same rooms, and nothing in common.
  for (const name of ["one", "two", "twoAgain"]) assert.strictEqual(await sockets[name].emitWithAck("join", "r"), "ok");
  const publisher = new Publisher();
  const say = (ns, event, more) => publisher.ask({ ns, event, ...more });
  const first = await say("/workspace-1", "room of 1", { room: "r" });
  const second = await say("/workspace-2", "room of 2", { room: "r", data: { bytes: 1 } });
  assert.deepStrictEqual([first.offset, second.offset], [1, 1], "each has an order of its own");
  await say("/workspace-1", "all of 1");
  await say("/workspace-2", "all of 2", { except: [sockets.twoAgain.id, sockets.one.id] });
  await say("/workspace-own", "all of own");
  await say("/workspace-nobody", "all of nobody");
  // An id means its bearer in its own namespace only.
  await say("/workspace-2", "to 1 by id", { room: sockets.one.id });
  await say("/workspace-1", "to 2 by id", { rooms: [sockets.two.id, sockets.main.id, "s"] });
  await say("/workspace-2", "to 2 by id, at last", { room: sockets.two.id });
  for (const ns of ["/", "/workspace-1", "/workspace-2", "/workspace-own"]) await say(ns, "end");
  await until(() => Object.values(got).every((events) => events.some(([event]) => event === "end")));
  // Rooms have no order among them.
  for (const events of Object.values(got)) events.sort(([a], [b]) => (a < b ? -1 : 1));
  assert.deepStrictEqual(got, {
    one: [["all of 1"], ["end"], ["room of 1"]],
    two: [["all of 2"], ["end"], ["room of 2", { bytes: 1 }], ["to 2 by id, at last"]],
    twoAgain: [["end"], ["room of 2", { bytes: 1 }]],
    own: [["all of own"], ["end"]],
    main: [["end"]],
  });

  // Operations meet one of them only.
  const { sockets: moved } = await publisher.ask({ op: "join", ns: "/workspace-2", where: { all: true }, rooms: ["s"] });
  assert.strictEqual(moved, 2);
  const gone = once(sockets.twoAgain, "disconnect");
  const goneToo = once(sockets.two, "disconnect");
  await publisher.ask({ op: "disconnect", ns: "/workspace-2", where: { room: "s" } });
  assert.deepStrictEqual([await gone, await goneToo].map(([reason]) => reason), Array(2).fill("io server disconnect"));
  assert.ok(sockets.one.connected && sockets.own.connected && sockets.main.connected);
  await until(async () => (await metric("roomcast_sockets")) === 3);

  // The end of a whole connection: each of its namespaces is told, so that none comes back by itself.
  const ends = ["one", "own", "main"].map((name) => once(sockets[name], "disconnect"));
  await publisher.ask({ op: "disconnect", ns: "/workspace-1", where: { all: true }, close: true });
  assert.deepStrictEqual((await Promise.all(ends)).map(([reason]) => reason), Array(3).fill("io server disconnect"));
  await until(async () => (await metric("roomcast_sockets")) === 0);
});
