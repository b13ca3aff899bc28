// Bus tickets with socket.io-client: who subscribes to a route knows its seats, at any moment.
"use strict";
const { io } = require("socket.io-client");
const {
  listen, admin, run, limit, args, assert, Publisher, once, metric, until, request, token, randomFrom, seed,
} = require("./lib");

const url = `http://${listen}/seats`;
const NS = "/seats";
const TRANSPORTS = [undefined, ["polling"], ["websocket"]];
const KINDS = ["seat_reserved", "seat_confirmed", "seat_suspended", "seat_cancelled", "seat_available"];

function connect(options = {}) {
  const auth = { token: token({ sub: "u1" }) };
  const socket = io(url, { forceNew: true, reconnection: false, auth, ...options });
  const got = [];
  socket.onAny((...event) => got.push(event));
  return { socket, got, updates: () => got.filter(([name]) => name === "seat_update").map(([, data]) => data) };
}

async function client(options) {
  const made = connect(options);
  made.socket.on("connect_error", (error) => console.error("connect_error", error.message));
  await once(made.socket, "connect");
  return made;
}

// Says something and resolves to the answer of that name.
async function say(socket, event, routeId, answer) {
  const answered = once(socket, answer);
  socket.emit(event, { routeId });
  return (await answered)[0];
}
const subscribe = (socket, routeId) => say(socket, "subscribe_route", routeId, "subscribed");

function update(routeId, seatNumber, eventType, n) {
  const full = {
    routeId, seatNumber, eventType, ticketId: `T${n}`, pnrNumber: `PNR${n}`, timestamp: "2026-10-01T10:00:00Z",
    metadata: { fromCity: "Pune", toCity: "Mumbai", price: 450.5, gender: "F" },
  };
  const bare = { routeId, seatNumber, eventType, timestamp: "2026-10-01T10:00:00Z" };
  return n % 2 ? full : bare;
}

const line = (data) => ({ ns: NS, room: `route:${data.routeId}`, event: "seat_update", data });

async function routes() {
  const publisher = new Publisher();
  // Nobody was there, and still it is known.
  await publisher.ask(line(update(7, "A1", "seat_reserved", 0)));
  await publisher.ask(line(update(7, "A1", "seat_confirmed", 1)));
  await publisher.ask(line(update(7, "A2", "seat_available", 2)));
  const known = [update(7, "A1", "seat_confirmed", 1), update(7, "A2", "seat_available", 2)];
  const bySeat = (a, b) => a.seatNumber.localeCompare(b.seatNumber);

  for (const transports of TRANSPORTS) {
    const me = await client(transports && { transports });
    const { socket } = me;
    const subscribed = await subscribe(socket, 7);
    assert.deepStrictEqual(subscribed, { routeId: 7, message: "Subscribed to route 7" });
    // What is known comes at once, after the answer.
    await until(() => me.updates().length >= known.length);
    assert.strictEqual(me.got[0][0], "subscribed");
    assert.deepStrictEqual(me.updates().sort(bySeat), known);
    const availability = await say(socket, "get_seat_availability", 7, "seat_availability");
    assert.strictEqual(availability.routeId, 7);
    assert.deepStrictEqual(availability.seats.sort(bySeat), known);
    // Of a route that one is not subscribed to, too; one that nobody has mentioned has nothing.
    const nothing = await say(socket, "get_seat_availability", "nowhere", "seat_availability");
    assert.deepStrictEqual(nothing, { routeId: "nowhere", seats: [] });

    // Each kind of update comes live, with all that stands in it.
    me.got.length = 0;
    const sent = KINDS.map((kind, n) => update(8, `B${n}`, kind, n));
    await subscribe(socket, 8);
    const earlier = me.updates().length;
    for (const data of sent) await publisher.ask(line(data));
    await until(() => me.updates().length >= earlier + sent.length);
    assert.deepStrictEqual(me.updates().slice(-sent.length), sent);

    // Whoever unsubscribes hears no more of that route.
    const unsubscribed = await say(socket, "unsubscribe_route", 8, "unsubscribed");
    assert.strictEqual(unsubscribed.routeId, 8);
    me.got.length = 0;
    const before = await metric("roomcast_deliveries_total");
    await publisher.ask(line(update(8, "B0", "seat_cancelled", 9)));
    await publisher.ask({ ns: NS, event: "end" });
    await until(() => me.got.some(([name]) => name === "end"));
    assert.strictEqual((await metric("roomcast_deliveries_total")) - before, 1);
    assert.deepStrictEqual(me.updates(), []);

    // Mistakes are told by the event `error`, and nothing else happens.
    for (const [event, data] of [
      ["subscribe_route", {}],
      ["subscribe_route", { routeId: "7:8" }],
      ["subscribe_route", { routeId: [7] }],
      ["subscribe_route", null],
      ["unsubscribe_route", {}],
      ["get_seat_availability", { routeId: "*" }],
      ["buy_everything", { routeId: 7 }],
    ]) {
      const refused = once(socket, "error");
      const ack = await socket.emitWithAck(event, data);
      const [error] = await refused;
      assert.ok(typeof error.message === "string" && error.message.length > 0, JSON.stringify(error));
      assert.strictEqual(error.event, event);
      assert.ok(ack.error, JSON.stringify(ack));
    }
    socket.disconnect();
  }

  // A double subscription doubles nothing, nor does one by the number and one by its digits.
  const twice = await client();
  for (const routeId of [9, 9, "9"]) await subscribe(twice.socket, routeId);
  for (let n = 0; n < 10; n++) await publisher.ask(line(update(9, `C${n}`, KINDS[n % 5], n)));
  await publisher.ask({ ns: NS, room: "route:9", event: "end" });
  await until(() => twice.got.some(([name]) => name === "end"));
  assert.deepStrictEqual(twice.updates().map(({ seatNumber }) => seatNumber), [...Array(10).keys()].map((n) => `C${n}`));
}

// A client that loses its connection comes back, subscribes anew and has missed nothing that counts.
async function reconnect() {
  const publisher = new Publisher();
  for (const transports of TRANSPORTS) {
    const room = `r${transports?.[0] ?? "default"}`;
    const socket = io(url, {
      forceNew: true, auth: { token: token({ sub: "u1" }) }, reconnectionDelay: 50, reconnectionDelayMax: 200,
      ...(transports && { transports }),
    });
    let connects = 0;
    let subscriptions = 0;
    const seats = new Map();
    const log = [];
    socket.on("connect", () => {
      connects += 1;
      socket.emit("subscribe_route", { routeId: room });
    });
    socket.on("subscribed", () => (subscriptions += 1));
    socket.on("seat_update", (data) => {
      log.push(data.ticketId);
      seats.set(data.seatNumber, data.eventType);
    });
    await until(() => subscriptions === 1);
    let n = 0;
    const publish = (seat, kind) =>
      publisher.ask(line({ routeId: room, seatNumber: seat, eventType: kind, ticketId: `T${n++}`, timestamp: "t" }));
    for (let round = 1; round <= 4; round++) {
      await publish("A1", "seat_reserved");
      await until(() => seats.get("A1") === "seat_reserved");
      // The network goes; meanwhile things happen.
      socket.io.engine.close();
      await until(() => !socket.connected);
      await until(async () => (await metric("roomcast_sockets")) === 0 || socket.connected);
      await publish("A1", "seat_confirmed");
      await publish(`B${round}`, "seat_suspended");
      await until(() => subscriptions === round + 1);
      await until(() => seats.get("A1") === "seat_confirmed" && seats.get(`B${round}`) === "seat_suspended");
      // From here on each event comes once.
      log.length = 0;
      const from = n;
      for (let i = 0; i < 5; i++) await publish("Z", KINDS[i]);
      await publish("end", "seat_available");
      await until(() => seats.get("end") !== undefined && log.includes(`T${n - 1}`));
      const expected = [...Array(n - from).keys()].map((i) => `T${from + i}`);
      assert.deepStrictEqual(log.filter((ticket) => Number(ticket.slice(1)) >= from), expected);
    }
    assert.strictEqual(connects, 5);
    socket.disconnect();
    await until(async () => (await metric("roomcast_sockets")) === 0);
  }
}

// Updates at random on several connections at once, while clients subscribe, ask and leave. Whatever they are told must be
// a state that the route really had: what the first k updates, in the order of the receipts' offsets, lead to.
async function concurrent() {
  limit(240);
  const ROUTES = 3;
  const SEATS = 20;
  const UPDATES = 3000;
  const random = randomFrom(seed());
  const history = Array.from({ length: ROUTES }, () => []);
  let left = UPDATES;
  let n = 0;

  const publish = async () => {
    const publisher = new Publisher();
    const lane = async () => {
      while (left-- > 0) {
        const routeId = random(ROUTES);
        const eventType = KINDS[random(KINDS.length)];
        const data = { routeId, seatNumber: `S${random(SEATS)}`, eventType, ticketId: `T${n++}`, timestamp: "t" };
        const { offset } = await publisher.ask(line(data));
        history[routeId].push({ offset, data });
      }
    };
    await Promise.all(Array.from({ length: 4 }, lane));
  };

  // [routeId, the clients' list of answers]; and [routeId, what came from `subscribed` on]
  const asked = [];
  const runs = [];
  const watch = async (index) => {
    const me = await client(index % 4 === 0 ? { transports: ["polling"] } : { transports: ["websocket"] });
    const { socket } = me;
    while (left > 0) {
      const routeId = random(ROUTES);
      const answers = [];
      asked.push([routeId, answers]);
      const from = me.got.length;
      await subscribe(socket, routeId);
      for (let i = random(8); i > 0; i--) {
        answers.push((await say(socket, "get_seat_availability", routeId, "seat_availability")).seats);
        // Subscribing again changes nothing of what comes live, but shows the state once more: that is another test.
        const ack = await socket.emitWithAck("get_seat_availability", { routeId });
        answers.push(ack.seats);
      }
      await say(socket, "unsubscribe_route", routeId, "unsubscribed");
      const events = me.got.slice(from);
      const begin = events.findIndex(([name]) => name === "subscribed");
      assert.ok(events.slice(0, begin).every(([name]) => name !== "seat_update"), "an update before its subscription");
      const updates = events.slice(begin).filter(([name]) => name === "seat_update").map(([, data]) => data);
      runs.push([routeId, updates]);
    }
    // The last subscription stays, and must end in the final state.
    const routeId = index % ROUTES;
    const from = me.got.length;
    await subscribe(socket, routeId);
    const end = () => me.got.slice(from).filter(([name]) => name === "seat_update").map(([, data]) => data);
    return { routeId, end, socket };
  };
  const publishers = [publish(), publish(), publish(), publish()];
  const watchers = Promise.all(Array.from({ length: 12 }, (_, index) => watch(index)));
  await Promise.all(publishers);
  const last = await watchers;
  for (const updates of history) updates.sort((a, b) => a.offset - b.offset);
  const orders = history.map((updates) => updates.map(({ data }) => data));
  history.forEach((updates) => updates.forEach(({ offset }, index) => {
    if (index > 0) assert.strictEqual(offset, updates[index - 1].offset + 1, "offsets have no gap");
  }));

  const text = (data) => JSON.stringify(data);
  // The state after the first k updates, as texts by seat.
  const states = orders.map((order) => {
    const state = new Map();
    return [new Map(), ...order.map((data) => new Map(state.set(data.seatNumber, text(data))))];
  });
  const position = orders.map((order) => new Map(order.map((data, index) => [data.ticketId, index + 1])));
  // Which prefix a list of seats is the state of.
  const prefixOf = (routeId, seats) => {
    const k = Math.max(0, ...seats.map(({ ticketId }) => position[routeId].get(ticketId)));
    const state = states[routeId][k];
    assert.strictEqual(seats.length, state.size, `${seats.length} seats, but after ${k} updates they were ${state.size}`);
    for (const data of seats) assert.strictEqual(text(data), state.get(data.seatNumber), `after ${k} updates`);
    return k;
  };
  let answersInAll = 0;
  for (const [routeId, answers] of asked) {
    // Nobody is told of a past that is older than what he has been told.
    let before = 0;
    for (const seats of answers) {
      const k = prefixOf(routeId, seats);
      assert.ok(k >= before, `first ${before} updates, then ${k}`);
      before = k;
      answersInAll += 1;
    }
  }

  // A run is the state after k updates, in whatever order, and then the updates from k + 1 on without a gap.
  const isRun = (routeId, kept, live) => {
    const all = position[routeId];
    const k = live.length > 0 ? all.get(live[0].ticketId) - 1 : Math.max(0, ...kept.map((data) => all.get(data.ticketId)));
    const state = states[routeId][k];
    return (
      live.every(({ ticketId }, index) => all.get(ticketId) === k + 1 + index) &&
      kept.length === state.size &&
      kept.every((data) => state.get(data.seatNumber) === text(data))
    );
  };
  const checkRun = (routeId, updates) => {
    const splits = [...Array(Math.min(SEATS, updates.length) + 1).keys()];
    const holds = splits.some((at) => isRun(routeId, updates.slice(0, at), updates.slice(at)));
    assert.ok(holds, `route ${routeId}: ${updates.map(({ ticketId }) => position[routeId].get(ticketId))}`);
  };
  for (const [routeId, updates] of runs) checkRun(routeId, updates);
  for (const { routeId, end, socket } of last) {
    const final = states[routeId][orders[routeId].length];
    const folded = () => new Map(end().map((data) => [data.seatNumber, text(data)]));
    await until(() => [...final].every(([seat, data]) => folded().get(seat) === data));
    assert.deepStrictEqual(folded(), final);
    checkRun(routeId, end());
    const seats = (await say(socket, "get_seat_availability", routeId, "seat_availability")).seats;
    assert.strictEqual(prefixOf(routeId, seats), orders[routeId].length);
  }
  assert.ok(answersInAll > 50, `${answersInAll} answers`);
  console.log(`${UPDATES} updates, ${answersInAll} answers, ${runs.length} subscriptions`);
}

// What production asks for: tokens, pages of the front end alone, limits for each address and client, monitoring.
async function production() {
  for (const transports of TRANSPORTS) {
    for (const [auth, code] of [
      [{}, "token_missing"],
      [{ token: "x" }, "token_invalid"],
      [{ token: token({ sub: "u1" }, "some other secret of the same length, or so") }, "token_invalid"],
      [{ token: token({ sub: "u1", exp: 1 }) }, "token_expired"],
    ]) {
      const { socket } = connect({ auth, ...(transports && { transports }) });
      const [error] = await once(socket, "connect_error");
      assert.strictEqual(error.data?.code, code, JSON.stringify([error.message, error.data]));
      socket.disconnect();
    }
  }
  for (const [origin, allowed] of [["https://tickets.example", true], ["https://other.example", false]]) {
    const headers = { Origin: origin };
    const answer = await request(listen, "GET", "/socket.io/?EIO=4&transport=polling", { headers });
    assert.strictEqual(answer.headers["access-control-allow-origin"], allowed ? origin : undefined);
    assert.strictEqual(answer.headers["access-control-allow-credentials"], allowed ? "true" : undefined);
    const { socket } = connect({ transports: ["websocket"], extraHeaders: { Origin: origin } });
    await once(socket, allowed ? "connect" : "connect_error");
    assert.strictEqual(socket.connected, allowed);
    socket.disconnect();
  }
  await until(async () => (await metric("roomcast_sockets")) === 0);
  const health = await request(admin, "GET", "/health");
  assert.strictEqual(health.status, 200);
  const metrics = (await request(admin, "GET", "/metrics")).body;
  for (const name of ["roomcast_events_total", "roomcast_deliveries_total", "roomcast_sockets"]) {
    assert.ok(metrics.includes(`\n${name}`), name);
  }
}

// Started with small limits: 5 connections for an address, a burst of 3 events for a client.
async function limits() {
  const clients = [];
  for (let index = 0; index < 5; index++) clients.push(await client({ transports: ["websocket"] }));
  const { socket: sixth } = connect({ transports: ["websocket"] });
  await once(sixth, "connect_error");
  const answer = await request(listen, "GET", "/socket.io/?EIO=4&transport=polling");
  assert.strictEqual(answer.status, 429, JSON.stringify(answer));
  assert.ok(Number(answer.headers["retry-after"]) >= 1, JSON.stringify(answer.headers));
  assert.ok(answer.body.length > 0);
  // Who leaves makes room.
  clients.pop().socket.disconnect();
  await until(async () => (await metric("roomcast_sockets")) === 4);
  const { socket } = await client({ transports: ["websocket"] });

  const refused = [];
  socket.on("error", (error) => refused.push(error));
  const acks = await Promise.all(
    Array.from({ length: 20 }, () => socket.emitWithAck("get_seat_availability", { routeId: 1 })),
  );
  const errors = acks.filter(({ error }) => error !== undefined);
  assert.ok(errors.length >= 10 && errors.length <= 17, `${errors.length} of 20 refused`);
  assert.strictEqual(refused.length, errors.length);
  assert.ok(refused.every(({ message, event }) => message.length > 0 && event === "get_seat_availability"));
  // The others are served as ever.
  assert.deepStrictEqual(await subscribe(clients[0].socket, 7), { routeId: 7, message: "Subscribed to route 7" });
}

const tests = { routes, reconnect, concurrent, production, limits };
run(() => tests[args[0]]());
