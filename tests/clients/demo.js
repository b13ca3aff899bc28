// `roomcast demo` as its visitors meet it: the official Socket.IO client, a plain WebSocket, and the page in a browser.
// With the variable SCREENSHOTS, a folder, it leaves pictures there.
"use strict";
const path = require("path");
const { io } = require("socket.io-client");
const WebSocket = require("ws");
const { listen, args, limit, run, assert, Publisher, once, until, request } = require("./lib");

const page = args[1];
const url = `http://${page}/`;

async function clients() {
  const seats = io(`http://${listen}/seats`, { forceNew: true, reconnection: false });
  const updates = [];
  seats.on("seat_update", (update) => updates.push(update));
  await once(seats, "connect");
  seats.emit("subscribe_route", { routeId: "pune-mumbai" });
  const [subscribed] = await once(seats, "subscribed");
  assert.deepStrictEqual(subscribed, { routeId: "pune-mumbai", message: "Subscribed to route pune-mumbai" });
  // Half past eight is long before any bus has left: all seats of one have been mentioned.
  await until(() => new Set(updates.map(({ seatNumber }) => seatNumber)).size === 40);
  const { seats: kept } = await seats.emitWithAck("get_seat_availability", { routeId: "pune-mumbai" });
  assert.strictEqual(kept.length, 40);
  // And the bus goes on selling.
  const before = updates.length;
  await until(() => updates.length >= before + 5);
  const { routeId, metadata, eventType, timestamp } = updates.at(-1);
  assert.strictEqual(routeId, "pune-mumbai");
  assert.deepStrictEqual([metadata.fromCity, metadata.toCity], ["Pune", "Mumbai"]);
  assert.ok(
    metadata.price >= 450 && /^seat_[a-z]+$/.test(eventType) && Date.now() - Date.parse(timestamp) < 60_000,
  );
  seats.disconnect();

  const socket = new WebSocket(`ws://${listen}/ws`);
  const got = [];
  socket.on("message", (data) => got.push(JSON.parse(data)));
  await once(socket, "open");
  const has = (test) => until(() => got.some(test));
  // They come once everything is published that happened before the demo's eight o'clock.
  await has(({ type, eventsPerS, speed }) => type === "FIGURES" && eventsPerS >= 0 && speed > 0);
  socket.send(JSON.stringify({ type: "SUBSCRIBE_STATION", station: "KYN" }));
  await has(({ type, station }) => type === "SUBSCRIBED_STATION" && station === "KYN");
  // What the room keeps of each train comes right behind the answer: it is there before whatever is said from now on.
  const publisher = new Publisher();
  const known = async (room, name) => {
    await publisher.ask({ room, event: "END", data: { of: room } });
    await has(({ type, of }) => type === "END" && of === room);
    return new Set(got.map((message) => message[name]).filter((value) => value !== undefined));
  };
  assert.ok((await known("station:KYN", "trainNo")).size > 50);
  await has(({ type, station }) => type === "STATION_ARRIVAL" && station === "KYN");
  const { trainNo } = got.find(({ trainNo }) => trainNo);
  const { stops } = got.find((message) => message.trainNo === trainNo);
  socket.send(JSON.stringify({ type: "SUBSCRIBE_TRAIN", trainNo }));
  await has((message) => message.type === "SUBSCRIBED" && message.trainNo === trainNo);
  assert.strictEqual((await known(`train:${trainNo}`, "station")).size, stops);
  socket.send(JSON.stringify({ type: "IDENTIFY", role: "TTE", irctcId: "T1" }));
  await has(({ type, role }) => type === "IDENTIFIED" && role === "TTE");
  await has(({ type, to }) => type === "CHART_PREPARED" && to === "role:TTE");
  socket.close();
}

async function files() {
  for (const [path, status] of [
    ["/", 200],
    ["/app.js", 200],
    ["/plan.json", 200],
    ["/nothing", 404],
  ]) {
    const answer = await request(page, "GET", path);
    assert.strictEqual(answer.status, status, path);
    assert.match(answer.headers["content-security-policy"], /^default-src 'none'/, path);
  }
}

// What the page shows, as text.
const text = (id) => `document.getElementById("${id}").textContent`;
const states = `JSON.stringify([...document.querySelectorAll(".seat")].map((seat) => seat.dataset.state))`;

async function browser() {
  const { Chromium } = require("./devtools");
  const chromium = await Chromium.start();
  const folder = process.env.SCREENSHOTS;
  const picture = (shown, name) => folder && shown.picture(path.join(folder, `${name}.png`));
  try {
    const shown = await chromium.page(url, { height: 1000 });
    await shown.until(
      `document.querySelectorAll(".seat").length === 40 && !document.querySelector(".seat[data-state=none]")`,
    );
    const before = await shown.value(states);
    await shown.until(`${states} !== ${JSON.stringify(before)}`);
    await shown.until(`document.querySelectorAll("#rows .row").length >= 5`);
    await shown.until(`document.querySelectorAll("#stops li").length >= 2`);
    await shown.until(`document.querySelector("#link-io b").textContent === "websocket"`);
    await shown.until(`Number(${text("f-latency")}) >= 0 && Number(${text("f-published")}) > 0`);
    console.log("the page is alive");

    // What it shows is what the server knows.
    await shown.value(`document.getElementById("compare").click()`);
    await shown.until(`${text("compared")} === "40 of 40 seats are as the server has them"`);

    // By keyboard: from seat to seat, and a train of the board.
    await shown.value(`document.querySelector(".seat").focus()`);
    for (const key of ["ArrowRight", "ArrowDown", "Enter"]) await shown.press(key);
    await shown.until(`${text("seat-info")}.startsWith("Seat 2B: ")`);
    await shown.value(`document.querySelector("#rows li:last-child .row").focus()`);
    const chosen = await shown.value(`document.activeElement.querySelector(".what span").textContent`);
    await shown.press("Enter");
    await shown.until(`${text("train-title")} === ${JSON.stringify(chosen)}`);

    // Examiners hear what others do not.
    await shown.value(`document.getElementById("tte").focus()`);
    await shown.press(" ");
    await shown.until(`/train:\\d+:TTE/.test(${text("rooms")}) && ${text("rooms")}.includes("role:TTE")`);
    const publisher = new Publisher();
    const say = (room, text) => publisher.ask({ room, event: "ANNOUNCEMENT", data: { text, to: room } });
    await say("role:TTE", "Tea is ready");
    await shown.until(`${text("notes")}.includes("Tea is ready")`);
    await shown.press(" ");
    await shown.until(`${text("rooms")}.includes("role:PASSENGER")`);
    await say("role:TTE", "Not for passengers");
    await say("user:IR0001", "For one passenger");
    await shown.until(`${text("notes")}.includes("For one passenger")`);
    assert.ok(!(await shown.value(text("notes"))).includes("Not for passengers"));

    // Another route and another station.
    for (const [id, value, room] of [
      ["route", "mumbai-goa", "route:mumbai-goa"],
      ["station", "PUNE", "station:PUNE"],
    ]) {
      const select = `document.getElementById("${id}")`;
      await shown.value(`${select}.value = "${value}"; ${select}.dispatchEvent(new Event("change")); true`);
      await shown.until(`${text("rooms")}.includes("${room}")`);
    }
    await shown.until(
      `!document.querySelector(".seat[data-state=none]") && document.querySelectorAll("#rows .row").length >= 3`,
    );
    assert.ok(!(await shown.value(text("rooms"))).includes("pune-mumbai"));

    // A seat that somebody blocks by hand, as the page says.
    assert.ok((await shown.value(text("cmd-seat"))).includes("route:mumbai-goa seat_update"));
    const seat = { routeId: "mumbai-goa", seatNumber: "10D", eventType: "seat_suspended" };
    await until(async () => {
      // Again and again: the feed may have something to say of this seat.
      await publisher.ask({ ns: "/seats", room: "route:mumbai-goa", event: "seat_update", data: seat });
      return (await shown.value(`document.querySelector(".seat:last-child").dataset.state`)) === "suspended";
    });
    assert.deepStrictEqual(shown.complaints, []);
    const elsewhere = shown.requests.filter((asked) => ![page, listen].includes(new URL(asked).host));
    assert.deepStrictEqual(elsewhere, []);
    await picture(shown, "light");
    await shown.close();

    // The other name of the same page, a dark one, and a phone, where nothing is wider than the screen.
    const byName = url.replace("127.0.0.1", "localhost");
    for (const [name, options] of [
      ["dark", { width: 1280, height: 1000, isDark: true }],
      ["tablet", { width: 900, height: 1200 }],
      ["phone", { width: 390, height: 844, isPhone: true }],
      ["phone-dark", { width: 360, height: 780, isPhone: true, isDark: true }],
    ]) {
      const other = await chromium.page(byName, options);
      await other.until(
        `document.querySelectorAll("#rows .row").length >= 5 && !document.querySelector(".seat[data-state=none]")`,
      );
      await other.until(`document.querySelectorAll("#stops li").length >= 2 && Number(${text("f-latency")}) >= 0`);
      assert.strictEqual(await other.value("document.documentElement.scrollWidth"), options.width, name);
      assert.deepStrictEqual(other.complaints, [], name);
      if (folder) await new Promise((resolve) => setTimeout(resolve, 9000));
      await picture(other, name);
      await other.close();
    }
  } finally {
    await chromium.end();
  }
}

run(async () => {
  limit(240);
  const parts = { clients: async () => [await clients(), await files()], browser };
  await parts[args[0]]();
});
