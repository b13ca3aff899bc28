// Gates of housing societies, with socket.io-client as the apps use it.
"use strict";
const { io } = require("socket.io-client");
const { listen, run, limit, args, assert, Publisher, once, metric, until } = require("./lib");
const { prove } = require("./isolation");

// Flutter's client prefers polling or WebSocket as it is told; undefined: polling, then WebSocket.
const TRANSPORTS = { default: undefined, polling: ["polling"], websocket: ["websocket"] };

async function app(joins, transports) {
  const socket = io(`http://${listen}`, { forceNew: true, ...(transports && { transports }) });
  const got = [];
  socket.onAny((name, ...args) => {
    if (name !== "room_joined") got.push([name, ...args]);
  });
  socket.on("connect_error", (error) => console.error("connect_error", error.message));
  await once(socket, "connect");
  for (const [room_type, room_id] of joins) {
    const joined = once(socket, "room_joined");
    const ack = await socket.emitWithAck("join_room", { room_type, room_id, user_id: "u1" });
    const [answer] = await joined;
    const expected = { room_type, room_id, room_name: `${room_type}:${room_id}` };
    assert.deepStrictEqual(answer, expected);
    assert.deepStrictEqual(ack, expected);
  }
  return { socket, got };
}

async function rooms() {
  const transports = TRANSPORTS[args[1]];
  const flatA = await app([["flat", "A-101"]], transports);
  const flatB = await app([["flat", "B-202"]], transports);
  // A family with two devices.
  const flatA2 = await app([["flat", "A-101"]], transports);
  const gate1 = await app([["society", "S1"]], transports);
  const gate2 = await app([["society", "S2"]], transports);
  // Lives in A-101 and runs the gate of S2; ids may be numbers.
  const both = await app([["flat", "A-101"], ["society", "S2"], ["flat", 7]], transports);
  const nobody = await app([], transports);
  const all = [flatA, flatB, flatA2, gate1, gate2, both, nobody];

  // Other types of room, and rooms by way of an id, are refused by the event `error` and join nothing.
  for (const bad of [
    { room_type: "admin", room_id: "x", user_id: "u1" },
    { room_type: "flat", room_id: "x:y", user_id: "u1" },
    { room_type: "flat", room_id: "A-101" },
    { room_type: "flat", user_id: "u1" },
    "flat",
    null,
  ]) {
    const refused = once(nobody.socket, "error");
    const ack = await nobody.socket.emitWithAck("join_room", bad);
    const [error] = await refused;
    assert.strictEqual(error.event, "join_room", JSON.stringify(error));
    assert.ok(error.message.length > 0);
    assert.ok(ack.error, `the ack tells of the refusal: ${JSON.stringify(ack)}`);
  }
  const unknown = once(nobody.socket, "error");
  nobody.socket.emit("leave_building", {});
  assert.strictEqual((await unknown)[0].event, "leave_building");
  nobody.got.length = 0;

  const before = await metric("roomcast_deliveries_total");
  const publisher = new Publisher();
  await publisher.ask({ room: "flat:A-101", event: "visitor_request", data: { request_id: 1, visitor: "Asha" } });
  await publisher.ask({ room: "flat:B-202", event: "visitor_request", data: { request_id: 2, visitor: "Ravi" } });
  await publisher.ask({ room: "society:S1", event: "request_approved", data: { request_id: 1 } });
  await publisher.ask({ room: "society:S2", event: "visitor_timeout", data: { request_id: 2 } });
  await publisher.ask({ room: "flat:7", event: "visitor_request", data: { request_id: 3 } });
  await publisher.ask({ room: "admin:x", event: "visitor_request", data: { request_id: 4 } });
  await publisher.ask({ room: "flat:x:y", event: "visitor_request", data: { request_id: 5 } });

  const expected = [
    [flatA, [["visitor_request", { request_id: 1, visitor: "Asha" }]]],
    [flatB, [["visitor_request", { request_id: 2, visitor: "Ravi" }]]],
    [flatA2, [["visitor_request", { request_id: 1, visitor: "Asha" }]]],
    [gate1, [["request_approved", { request_id: 1 }]]],
    [gate2, [["visitor_timeout", { request_id: 2 }]]],
    [both, [
      ["visitor_request", { request_id: 1, visitor: "Asha" }],
      ["visitor_timeout", { request_id: 2 }],
      ["visitor_request", { request_id: 3 }],
    ]],
    [nobody, []],
  ];
  const total = expected.reduce((sum, [, events]) => sum + events.length, 0);
  await until(() => expected.every(([client, events]) => client.got.length >= events.length));
  await until(async () => (await metric("roomcast_deliveries_total")) - before >= total);

  // What belongs to nobody would come before this.
  await publisher.ask({ event: "end" });
  await until(() => all.every(({ got }) => got.some(([name]) => name === "end")));
  await until(async () => (await metric("roomcast_deliveries_total")) - before >= total + all.length);
  assert.strictEqual((await metric("roomcast_deliveries_total")) - before, total + all.length);
  const byName = (a, b) => JSON.stringify(a).localeCompare(JSON.stringify(b));
  for (const [client, events] of expected) {
    // Events of different rooms have no order among them.
    const got = client.got.filter(([name]) => name !== "end");
    assert.deepStrictEqual(got.sort(byName), [...events].sort(byName));
    assert.strictEqual(client.got.filter(([name]) => name === "end").length, 1);
    client.got.length = 0;
  }

  // Whoever disconnects has left.
  const sockets = await metric("roomcast_sockets");
  assert.strictEqual(sockets, all.length);
  flatA.socket.disconnect();
  await until(async () => (await metric("roomcast_sockets")) === sockets - 1);
  const without = await metric("roomcast_deliveries_total");
  await publisher.ask({ room: "flat:A-101", event: "visitor_request", data: { request_id: 9 } });
  await until(() => flatA2.got.length === 1 && both.got.length === 1);
  await until(async () => (await metric("roomcast_deliveries_total")) >= without + 2);
  assert.strictEqual(await metric("roomcast_deliveries_total"), without + 2);
  assert.deepStrictEqual(flatA.got, []);
}

// A thousand rooms: 900 flats and 100 societies. Each flat's app is in its society's room, too; each society has a gate, and
// some families have two devices or two flats.
async function isolation() {
  limit(300);
  const members = [];
  const add = async (joins) => {
    const index = members.length;
    const transports = index % 20 === 0 ? TRANSPORTS.polling : index % 5 === 0 ? undefined : TRANSPORTS.websocket;
    const member = { rooms: joins.map(([type, id]) => `${type}:${id}`), got: [] };
    members.push(member);
    member.got = (await app(joins, transports)).got;
  };
  const flat = (index) => ["flat", `F-${index}`];
  const society = (index) => ["society", `S-${index % 100}`];
  let wave = [];
  const begin = async (joins) => {
    wave.push(add(joins));
    if (wave.length === 64) await Promise.all(wave.splice(0));
  };
  for (let index = 0; index < 900; index++) {
    await begin([flat(index), society(index)]);
    if (index % 30 === 0) await begin([flat(index)]);
    if (index % 45 === 0) await begin([flat(index), flat((index + 450) % 900), society(index + 450)]);
  }
  for (let index = 0; index < 100; index++) await begin([society(index)]);
  await Promise.all(wave);
  const rooms = [...Array(900).keys()].map((index) => flat(index).join(":"));
  rooms.push(...[...Array(100).keys()].map((index) => society(index).join(":")));
  await prove({ members, rooms, names: ["visitor_request", "request_approved", "visitor_timeout"], events: 4000 });
}

const tests = { rooms, isolation };
run(() => tests[args[0]]());
