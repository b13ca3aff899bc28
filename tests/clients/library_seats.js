// Library seats with socket.io-client, and the backend's HTTP calls, in exactly the shapes that it knows.
"use strict";
const http = require("http");
const { io } = require("socket.io-client");
const { listen, admin, run, args, assert, once, metric, until, request, token } = require("./lib");

const url = `http://${listen}`;
const EVENTS = [
  "booking:created", "booking:updated", "booking:cancelled", "booking:checkin", "booking:checkout",
  "library:created", "library:updated", "library:deleted", "pricing:updated", "seat:availability", "notification",
];
const EVENT = "/api/v1/socket-event";
const STATS = "/api/v1/socket-stats";

function connect(claims, options = {}) {
  const auth = claims ? { token: token(claims) } : {};
  const socket = io(options.url ?? url, { forceNew: true, reconnection: false, auth, ...options });
  const got = [];
  socket.onAny((...event) => got.push(event));
  return { socket, got };
}

async function client(claims, options) {
  const made = connect(claims, options);
  made.socket.on("connect_error", (error) => console.error("connect_error", error.message));
  await once(made.socket, "connect");
  return made;
}

// As the backend does. Resolves to the answer.
async function emit(event, data, room) {
  const headers = { "Content-Type": "application/json" };
  return request(admin, "POST", EVENT, { headers, body: { event, data, room } });
}

async function rooms() {
  const clients = {};
  const transports = [undefined, ["polling"], ["websocket"]];
  const add = async (name, claims, joins) => {
    const chosen = transports[Object.keys(clients).length % 3];
    clients[name] = await client(claims, chosen && { transports: chosen });
    for (const [event, id] of joins) {
      assert.deepStrictEqual(await clients[name].socket.emitWithAck(event, id), { ok: true }, `${name} ${event} ${id}`);
    }
  };
  await add("student", { sub: "u1" }, [["join:role", "student"], ["join:library", "library123"], ["join:user", "u1"]]);
  await add("visitor", null, [["join:role", "student"], ["join:library", "library7"]]);
  await add("owner", { sub: "u2", role: "library_owner" }, [
    ["join:role", "library_owner"], ["join:tenant", "t7"], ["join:library", "library123"], ["join:library", "library7"],
  ]);
  await add("staff", { sub: "u3", role: "staff" }, [["join:role", "staff"], ["join:tenant", "t7"], ["join:user", "u3"]]);
  await add("desk", { sub: "u4", role: "front_desk" }, [["join:role", "front_desk"], ["join:tenant", "t8"]]);
  await add("other", { sub: "u5" }, [["join:user", "u5"], ["join:user", "u5"]]);
  const all = Object.keys(clients);

  // Only one's own, and no role that the token does not say; no id that spells another room.
  const refusals = [
    ["student", "join:user", "u2"], ["visitor", "join:user", "u1"], ["owner", "join:user", "u1"],
    ["student", "join:role", "staff"], ["visitor", "join:role", "library_owner"], ["staff", "join:role", "front_desk"],
    ["student", "join:role", "king"], ["student", "join:library", "x:y"], ["student", "join:tenant", ""],
    ["student", "join:library", { id: "library7" }], ["student", "join:user", null], ["student", "join:everything", "x"],
  ];
  for (const [name, event, id] of refusals) {
    const { socket } = clients[name];
    const refused = once(socket, "error");
    const ack = await socket.emitWithAck(event, id);
    assert.strictEqual((await refused)[0].event, event);
    assert.ok(ack.error?.message, JSON.stringify(ack));
  }
  for (const { got } of Object.values(clients)) got.length = 0;

  const expected = {
    "role:student": ["student", "visitor"],
    "role:library_owner": ["owner"],
    "role:staff": ["staff"],
    "role:front_desk": ["desk"],
    "library:library123": ["student", "owner"],
    "library:library7": ["visitor", "owner"],
    "tenant:t7": ["owner", "staff"],
    "tenant:t8": ["desk"],
    "user:u1": ["student"],
    "user:u2": [],
    "user:u3": ["staff"],
    "user:u5": ["other"],
    "library:nobody": [],
  };
  const before = await metric("roomcast_deliveries_total");
  let total = 0;
  for (const [index, room] of Object.keys(expected).entries()) {
    // Every event goes somewhere.
    for (const event of [EVENTS[index % EVENTS.length], "notification"]) {
      const answer = await emit(event, { room, seat: 4.5, tags: ["é", null] }, room);
      assert.strictEqual(answer.status, 200);
      total += expected[room].length;
    }
  }
  await until(async () => (await metric("roomcast_deliveries_total")) - before >= total);
  const wanted = (name) => Object.keys(expected).filter((room) => expected[room].includes(name)).sort();
  await until(() => all.every((name) => clients[name].got.length >= 2 * wanted(name).length));
  for (const name of all) {
    const got = clients[name].got.map(([event, data]) => {
      const index = Object.keys(expected).indexOf(data.room);
      assert.ok([EVENTS[index % EVENTS.length], "notification"].includes(event), event);
      assert.deepStrictEqual(data, { room: data.room, seat: 4.5, tags: ["é", null] });
      return data.room;
    });
    assert.deepStrictEqual(got.sort(), wanted(name).flatMap((room) => [room, room]), name);
    clients[name].got.length = 0;
  }

  // Clean-up: who has gone is in no room any more.
  const stats = async () => (await request(admin, "GET", STATS)).body.data;
  assert.strictEqual((await stats()).totalConnections, all.length);
  clients.desk.socket.disconnect();
  clients.staff.socket.io.engine.close();
  await until(async () => (await stats()).totalConnections === all.length - 2);
  await emit("notification", 1, "tenant:t7");
  await emit("notification", 2, "tenant:t8");
  await emit("notification", 3, "role:student");
  await until(() => clients.owner.got.length === 1 && clients.student.got.length === 1);
  assert.deepStrictEqual(clients.owner.got, [["notification", 1]]);
  assert.deepStrictEqual([clients.desk.got, clients.staff.got], [[], []]);
  await until(async () => !JSON.stringify((await stats()).activeRooms).includes("tenant:t8"));
}

// The three HTTP calls, in exactly these shapes.
async function shapes() {
  const isNow = (timestamp) => {
    assert.strictEqual(new Date(timestamp).toISOString(), timestamp, "as toISOString writes it");
    assert.ok(Math.abs(Date.now() - Date.parse(timestamp)) < 60_000, timestamp);
  };
  const isJson = ({ status, headers }) => {
    assert.strictEqual(status, 200);
    assert.match(headers["content-type"], /^application\/json/);
  };
  const one = await client({ sub: "u1" }, { transports: ["websocket"] });
  const two = await client(null, { transports: ["polling"] });
  await one.socket.emitWithAck("join:library", "library123");
  await two.socket.emitWithAck("join:role", "student");

  const emitted = await emit("booking:created", { id: 1 }, "library:library123");
  isJson(emitted);
  isNow(emitted.body.data.timestamp);
  assert.deepStrictEqual(emitted.body, {
    success: true,
    data: {
      message: "Event emitted",
      event: "booking:created",
      room: "library:library123",
      timestamp: emitted.body.data.timestamp,
    },
  });
  await until(() => one.got.length === 1);
  assert.deepStrictEqual([one.got, two.got], [[["booking:created", { id: 1 }]], []]);

  const stats = await request(admin, "GET", STATS);
  isJson(stats);
  isNow(stats.body.data.timestamp);
  assert.deepStrictEqual(Object.keys(stats.body), ["success", "data"]);
  assert.deepStrictEqual(Object.keys(stats.body.data).sort(), ["activeRooms", "timestamp", "totalConnections"]);
  assert.strictEqual(stats.body.success, true);
  assert.strictEqual(stats.body.data.totalConnections, 2);
  assert.ok(Array.isArray(stats.body.data.activeRooms));
  const named = stats.body.data.activeRooms.filter((room) => String(room).includes(":"));
  assert.deepStrictEqual(named.sort(), ["library:library123", "role:student"]);

  const health = await request(admin, "GET", "/health");
  isJson(health);
  isNow(health.body.data.timestamp);
  assert.deepStrictEqual(health.body, {
    success: true,
    data: {
      status: "healthy",
      service: "library-seats",
      websocket: "enabled",
      timestamp: health.body.data.timestamp,
    },
  });

  // What is wrong is told, and nothing is sent.
  for (const body of [undefined, "x", {}, { event: 1, data: 1, room: "a" }]) {
    const bad = await request(admin, "POST", EVENT, { headers: { "Content-Type": "application/json" }, body });
    assert.ok(bad.status >= 400 && bad.status < 500, `${bad.status} ${JSON.stringify(body)}`);
  }
  assert.strictEqual(one.got.length, 1);
}

async function cors() {
  for (const [origin, allowed] of [
    ["https://studyspot.example", true],
    ["https://studyspot-pr-12.vercel.app", true],
    ["https://studyspot-.vercel.app", undefined],
    ["https://feature-x.pages.dev", true],
    ["https://evil.example", false],
    ["https://studyspot.example.evil.example", false],
    ["https://studyspot-x.vercel.app.evil.example", false],
    ["https://evil.vercel.app", false],
    ["https://evil-studyspot-x.vercel.app", false],
    ["http://feature-x.pages.dev", false],
    ["https://pages.dev", false],
  ]) {
    const headers = { Origin: origin };
    const answer = await request(listen, "GET", "/socket.io/?EIO=4&transport=polling", { headers });
    const named = answer.headers["access-control-allow-origin"] === origin;
    // Whether a pattern's star may be nothing is a matter of taste.
    if (allowed === undefined) continue;
    assert.strictEqual(named, allowed, `${origin} ${JSON.stringify(answer.headers)}`);
    if (allowed) assert.strictEqual(answer.headers["access-control-allow-credentials"], "true");
    const { socket } = connect(null, { transports: ["websocket"], extraHeaders: { Origin: origin } });
    await once(socket, allowed ? "connect" : "connect_error");
    socket.disconnect();
  }
}

// A proxy before the server that lets no WebSocket pass. Resolves to its address.
async function proxyWithoutWebSockets() {
  const [host, port] = listen.split(":");
  const proxy = http.createServer((from, to) => {
    const options = { host, port, method: from.method, path: from.url, headers: from.headers };
    const onward = http.request(options, (answer) => {
      to.writeHead(answer.statusCode, answer.headers);
      answer.pipe(to);
    });
    onward.on("error", () => to.destroy());
    from.pipe(onward);
  });
  proxy.on("upgrade", (request, socket) => socket.end("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"));
  await new Promise((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${proxy.address().port}`;
}

async function transports() {
  // What clients are told about heartbeats.
  const open = await request(listen, "GET", "/socket.io/?EIO=4&transport=polling");
  const handshake = JSON.parse(open.body.slice(1));
  assert.strictEqual(handshake.pingInterval, 25_000);
  assert.strictEqual(handshake.pingTimeout, 60_000);
  assert.deepStrictEqual(handshake.upgrades, ["websocket"]);

  const works = async ({ socket, got }) => {
    got.length = 0;
    assert.deepStrictEqual(await socket.emitWithAck("join:library", "library1"), { ok: true });
    await emit("seat:availability", { free: 3 }, "library:library1");
    await until(() => got.length >= 1);
    assert.deepStrictEqual(got, [["seat:availability", { free: 3 }]]);
    socket.disconnect();
    await until(async () => (await metric("roomcast_sockets")) === 0);
  };
  // By default: polling first, then WebSocket.
  const usual = await client({ sub: "u1" });
  await until(() => usual.socket.io.engine.transport.name === "websocket");
  await works(usual);
  const polling = await client({ sub: "u1" }, { transports: ["polling"] });
  assert.strictEqual(polling.socket.io.engine.transport.name, "polling");
  await works(polling);
  const websocket = await client({ sub: "u1" }, { transports: ["websocket"] });
  assert.strictEqual(websocket.socket.io.engine.transport.name, "websocket");
  await works(websocket);

  // Where WebSockets do not pass, clients stay with polling or go back to it.
  const proxy = await proxyWithoutWebSockets();
  const kept = await client({ sub: "u1" }, { url: proxy });
  await works(kept);
  assert.strictEqual(kept.socket.io.engine.transport.name, "polling");
  const fallen = await client({ sub: "u1" }, {
    url: proxy, transports: ["websocket", "polling"], tryAllTransports: true,
  });
  assert.strictEqual(fallen.socket.io.engine.transport.name, "polling");
  await works(fallen);
}

// Clients come back by themselves and join anew on each connect.
async function reconnection() {
  for (const transports of [undefined, ["polling"], ["websocket"]]) {
    const options = { reconnection: true, reconnectionDelay: 50, reconnectionDelayMax: 200 };
    const { socket, got } = connect({ sub: "u1" }, { ...options, ...(transports && { transports }) });
    let joined = 0;
    socket.on("connect", async () => {
      await socket.emitWithAck("join:user", "u1");
      joined += 1;
    });
    for (let round = 1; round <= 3; round++) {
      await until(() => joined === round);
      await emit("notification", { round }, "user:u1");
      await until(() => got.length === round);
      socket.io.engine.close();
    }
    assert.deepStrictEqual(got.map(([, { round }]) => round), [1, 2, 3]);
    await until(() => joined === 4);
    socket.disconnect();
    await until(async () => (await metric("roomcast_sockets")) === 0);
  }
}

const tests = { rooms, shapes, cors, transports, reconnection };
run(() => tests[args[0]]());
