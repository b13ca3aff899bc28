// Railway seat upgrades with socket.io-client: who connects as whom is where.
"use strict";
const { io } = require("socket.io-client");
const { listen, run, limit, args, assert, Publisher, once, metric, until, request, token } = require("./lib");
const { prove } = require("./isolation");

const url = `http://${listen}`;
const TRANSPORTS = [undefined, ["polling"], ["websocket"]];

// As the application connects: the query says who it is, the token proves it.
function connect(claims, query = {}, options = {}) {
  const socket = io(url, { query, forceNew: true, reconnection: false, auth: { token: token(claims) }, ...options });
  const got = [];
  socket.onAny((...event) => got.push(event));
  return { socket, got };
}

async function client(claims, query, options) {
  const made = connect(claims, query, options);
  made.socket.on("connect_error", (error) => console.error("connect_error", error.message, claims, query));
  await once(made.socket, "connect");
  return made;
}

const claimsOf = (role, sub, trains) => ({ role, sub, trains });
const queryOf = (role, userId, trainNo) => ({ role, userId, trainNo });

async function rooms() {
  const clients = {};
  const add = async (name, role, sub, trainNo, options) => {
    clients[name] = await client(claimsOf(role, sub, [trainNo, "999"]), queryOf(role, sub, trainNo), options);
  };
  for (const [index, transports] of TRANSPORTS.entries()) {
    await add(`passenger${index}`, "PASSENGER", `P${index}`, "12658", transports && { transports });
  }
  await add("passengerElsewhere", "PASSENGER", "P9", "17225");
  await add("secondPhone", "PASSENGER", "P0", "12658", { transports: ["websocket"] });
  await add("tte", "TTE", "T1", "12658", { transports: ["websocket"] });
  await add("tteElsewhere", "TTE", "T2", "17225", { transports: ["polling"] });
  await add("admin", "ADMIN", "A1", "12658", { transports: ["websocket"] });
  // Nothing in the query: what the token says holds, and a token for one train needs no train.
  clients.quiet = await client(claimsOf("PASSENGER", "P7", ["17225"]), {}, { transports: ["websocket"] });
  clients.everywhere = await client(claimsOf("ADMIN", "A2", ["*"]), {}, { transports: ["websocket"] });
  const all = Object.keys(clients);

  const expected = {
    global: all,
    train_12658: ["passenger0", "passenger1", "passenger2", "secondPhone", "tte", "admin"],
    train_17225: ["passengerElsewhere", "tteElsewhere", "quiet"],
    // The token would allow it, but nobody has asked for it.
    train_999: [],
    admin_dashboard: ["admin", "everywhere"],
    tte_T1: ["tte"],
    tte_T2: ["tteElsewhere"],
    tte_P0: [],
    passenger_P0: ["passenger0", "secondPhone"],
    passenger_P1: ["passenger1"],
    passenger_P2: ["passenger2"],
    passenger_P7: ["quiet"],
    passenger_P9: ["passengerElsewhere"],
    passenger_T1: [],
  };
  const events = { admin_dashboard: "STATS_UPDATE", passenger_P0: "RAC_UPGRADE" };
  const before = await metric("roomcast_deliveries_total");
  const publisher = new Publisher();
  for (const room of Object.keys(expected)) {
    await publisher.ask({ room, event: events[room] ?? "NEWS", data: { room, pnr: "8524" } });
  }
  const total = Object.values(expected).reduce((sum, names) => sum + names.length, 0);
  await until(async () => (await metric("roomcast_deliveries_total")) - before >= total);
  const wanted = (name) => Object.keys(expected).filter((room) => expected[room].includes(name)).sort();
  await until(() => all.every((name) => clients[name].got.length >= wanted(name).length));
  for (const name of all) {
    const { got } = clients[name];
    assert.deepStrictEqual(got.map(([, { room }]) => room).sort(), wanted(name), name);
    for (const [event, data] of got) {
      assert.deepStrictEqual([event, data], [events[data.room] ?? "NEWS", { room: data.room, pnr: "8524" }]);
    }
    got.length = 0;
  }

  // Leaving is automatic.
  assert.strictEqual(await metric("roomcast_sockets"), all.length);
  clients.secondPhone.socket.disconnect();
  clients.passenger1.socket.disconnect();
  await until(async () => (await metric("roomcast_sockets")) === all.length - 2);
  const left = await metric("roomcast_deliveries_total");
  for (const room of ["passenger_P1", "passenger_P0"]) await publisher.ask({ room, event: "RAC_UPGRADE", data: {} });
  await until(() => clients.passenger0.got.length === 1);
  assert.strictEqual((await metric("roomcast_deliveries_total")) - left, 1);
  assert.deepStrictEqual([clients.secondPhone.got, clients.passenger1.got], [[], []]);
}

async function refusals() {
  const passenger = claimsOf("PASSENGER", "P1", ["12658"]);
  const now = Math.floor(Date.now() / 1000);
  for (const transports of TRANSPORTS) {
    const options = transports ? { transports } : {};
    for (const [claims, query, code, more] of [
      // The query cannot widen what the token allows.
      [passenger, queryOf("ADMIN", "P1", "12658"), "role_not_allowed"],
      [passenger, queryOf("TTE", "P1", "12658"), "role_not_allowed"],
      [passenger, queryOf("PASSENGER", "P2", "12658"), "user_not_allowed"],
      [passenger, queryOf("PASSENGER", "P1", "17225"), "train_not_allowed"],
      [claimsOf("ADMIN", "A1", ["1"]), queryOf("ADMIN", "A1", "2"), "train_not_allowed"],
      [claimsOf("ADMIN", "A1", ["*"]), queryOf("ADMIN", "A1", "1/../*"), "train_not_allowed"],
      [{ role: "PASSENGER", sub: "P1" }, queryOf("PASSENGER", "P1", "12658"), "train_not_allowed"],
      [claimsOf("KING", "K1", ["1"]), {}, "role_unknown"],
      [{ sub: "P1", trains: ["1"] }, {}, "role_unknown"],
      // Nor does anybody come in without a token that is one.
      [passenger, {}, "token_missing", { auth: {} }],
      [passenger, {}, "token_invalid", { auth: { token: "no.token.at all" } }],
      [passenger, {}, "token_invalid", { auth: { token: token(passenger, "another key, as long as the first one is") } }],
      [passenger, {}, "token_expired", { auth: { token: token({ ...passenger, exp: now - 60 }) } }],
    ]) {
      const { socket, got } = connect(claims, query, { ...options, ...more });
      const [error] = await once(socket, "connect_error");
      const what = JSON.stringify([claims, query, error.message, error.data]);
      assert.strictEqual(error.data?.code, code, what);
      assert.ok(error.message.length > 0 && !error.message.includes("demo-secret"), what);
      assert.strictEqual(socket.connected, false);
      assert.deepStrictEqual(got, []);
      socket.disconnect();
    }
  }
  await until(async () => (await metric("roomcast_sockets")) === 0);
}

// 100 clients, each message for one passenger's two or three devices: before, each went to all of them.
async function traffic() {
  const clients = [];
  for (let index = 0; index < 100; index++) {
    const sub = `P${Math.floor(index / 2.5)}`;
    clients.push(client(claimsOf("PASSENGER", sub, ["12658"]), queryOf("PASSENGER", sub, "12658"), {
      transports: ["websocket"],
    }));
  }
  const all = await Promise.all(clients);
  const publisher = new Publisher();
  const before = await metric("roomcast_deliveries_total");
  for (let n = 0; n < 200; n++) {
    await publisher.ask({ room: `passenger_P${n % 40}`, event: "RAC_UPGRADE", data: { n } });
  }
  await until(() => all.reduce((sum, { got }) => sum + got.length, 0) >= 500);
  const deliveries = (await metric("roomcast_deliveries_total")) - before;
  const everybody = 200 * all.length;
  assert.strictEqual(deliveries, 500);
  assert.ok(deliveries <= 0.03 * everybody, `${deliveries} instead of ${everybody}`);
}

async function cors() {
  const handshake = "/socket.io/?EIO=4&transport=polling";
  for (const origin of ["https://seats.example", "https://admin.seats.example"]) {
    const asked = { Origin: origin, "Access-Control-Request-Headers": "content-type" };
    for (const method of ["GET", "POST"]) {
      const headers = { ...asked, "Access-Control-Request-Method": method };
      const preflight = await request(listen, "OPTIONS", handshake, { headers });
      assert.ok(preflight.status === 204 || preflight.status === 200, `${preflight.status}`);
      assert.strictEqual(preflight.headers["access-control-allow-origin"], origin);
      assert.strictEqual(preflight.headers["access-control-allow-credentials"], "true");
      assert.ok(preflight.headers["access-control-allow-methods"].split(/, */).includes(method));
    }
    const got = await request(listen, "GET", handshake, { headers: { Origin: origin } });
    assert.strictEqual(got.status, 200);
    assert.strictEqual(got.headers["access-control-allow-origin"], origin);
    // What clients post is answered likewise.
    const { sid } = JSON.parse(got.body.slice(1));
    const headers = { Origin: origin, "Content-Type": "text/plain" };
    const posted = await request(listen, "POST", `${handshake}&sid=${sid}`, { headers });
    assert.strictEqual(posted.headers["access-control-allow-origin"], origin, `${posted.status}`);
  }
  for (const origin of ["https://evil.example", "https://seats.example.evil.example", "http://seats.example", "null"]) {
    const headers = { Origin: origin, "Access-Control-Request-Method": "GET" };
    const preflight = await request(listen, "OPTIONS", handshake, { headers });
    assert.strictEqual(preflight.headers["access-control-allow-origin"], undefined, origin);
    const got = await request(listen, "GET", handshake, { headers: { Origin: origin } });
    assert.strictEqual(got.headers["access-control-allow-origin"], undefined, origin);
    // A page's WebSocket is no better.
    const { socket } = connect(claimsOf("PASSENGER", "P1", ["1"]), {}, {
      transports: ["websocket"],
      extraHeaders: { Origin: origin },
    });
    await once(socket, "connect_error");
    assert.strictEqual(socket.connected, false);
    socket.disconnect();
  }
  const { socket } = await client(claimsOf("PASSENGER", "P1", ["1"]), {}, {
    transports: ["websocket"],
    extraHeaders: { Origin: "https://seats.example" },
  });
  socket.disconnect();
}

// A thousand rooms: 899 passengers', 49 examiners', 50 trains', the administrators' and everybody's.
async function isolation() {
  limit(300);
  const members = [];
  const add = async (role, sub, trainNo, rooms) => {
    const index = members.length;
    const transports = index % 20 === 0 ? ["polling"] : index % 5 === 0 ? undefined : ["websocket"];
    const made = await client(claimsOf(role, sub, [trainNo]), queryOf(role, sub, trainNo), transports && { transports });
    members.push({ got: made.got, rooms: ["global", `train_${trainNo}`, ...rooms] });
  };
  const rooms = ["global", "admin_dashboard"];
  for (let train = 0; train < 50; train++) rooms.push(`train_${train}`);
  let wave = [];
  for (let index = 0; index < 960; index++) {
    const [role, room] =
      index < 899 ? ["PASSENGER", `passenger_U${index}`] : index < 948 ? ["TTE", `tte_U${index}`] : ["ADMIN", "admin_dashboard"];
    if (!rooms.includes(room)) rooms.push(room);
    wave.push(add(role, `U${index}`, String(index % 50), [room]));
    if (wave.length === 64) {
      await Promise.all(wave);
      wave = [];
    }
  }
  await Promise.all(wave);
  assert.strictEqual(rooms.length, 1000);
  await prove({ members, rooms, names: ["RAC_UPGRADE", "STATS_UPDATE", "NEWS"], events: 4000 });
}

const tests = { rooms, refusals, traffic, cors, isolation };
run(() => tests[args[0]]());
