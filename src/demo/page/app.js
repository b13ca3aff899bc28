// The demo's page: a bus by Socket.IO, trains by plain WebSocket, and what it costs. Knows the events of src/demo, and
// shows nothing that did not come as one.
"use strict";

const $ = (id) => document.getElementById(id);

// ---- small things ----

// An element with a class and children, which are texts or elements. Texts never become markup.
function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Restarts a CSS animation that hangs on a class.
function replay(element, className) {
  element.classList.remove(className);
  void element.offsetWidth;
  element.classList.add(className);
}

const calm = matchMedia("(prefers-reduced-motion: reduce)");
const minutesOf = (hhmm) => Number(hhmm.slice(0, 2)) * 60 + Number(hhmm.slice(3, 5));

// Minutes from the clock to a time of day, the nearer way around midnight.
function minutesTo(hhmm) {
  const now = Math.floor(clock.seconds() / 60);
  return ((((minutesOf(hhmm) - now + 720) % 1440) + 1440) % 1440) - 720;
}

// ---- the simulated clock ----

const clock = {
  shown: 8 * 3600,
  at: performance.now(),
  speed: 0,
  day: 0,
  set({ seconds, speed, day }) {
    Object.assign(this, { shown: seconds, speed, day, at: performance.now() });
    say($("speed"), `day ${day}, ${speed} times as fast`);
  },
  // Without news it stands still after a while: there is nothing to go by.
  seconds() {
    return this.shown + Math.min((performance.now() - this.at) / 1000, 3) * this.speed;
  },
  show() {
    if (this.speed === 0) return;
    const minutes = Math.floor(this.seconds() / 60) % 1440;
    const two = (number) => String(number).padStart(2, "0");
    say($("clock"), `${two(Math.floor(minutes / 60))}:${two(minutes % 60)}`);
  },
};

// ---- what comes in, and how long it took ----

const figures = {
  // [when, latency in ms or null] of the last ten seconds.
  recent: [],
  perSecond: [],
  count: 0,
  skew: 0,
  // Milliseconds since 1970, finer than Date.now(), which it follows: the system's clock may be set.
  now() {
    const fine = performance.timeOrigin + performance.now() + this.skew;
    const coarse = Date.now();
    if (fine < coarse - 1 || fine > coarse + 2) this.skew += coarse - fine;
    return performance.timeOrigin + performance.now() + this.skew;
  },
  // The publisher writes microseconds, of which Date.parse reads three digits.
  latencyOf(timestamp) {
    const sent = Date.parse(timestamp);
    if (Number.isNaN(sent)) return null;
    const micros = /\.\d{3}(\d{3})Z$/.exec(timestamp);
    return this.now() - sent - (micros ? Number(micros[1]) / 1000 : 0);
  },
  // What a room had kept tells nothing of now; what was published by hand says no time.
  event(timestamp, isKept) {
    if (isKept && timestamp) return;
    const latency = timestamp ? this.latencyOf(timestamp) : null;
    this.count += 1;
    this.recent.push([performance.now(), latency !== null && latency > -5 && latency < 60_000 ? latency : null]);
  },
  show() {
    const since = performance.now() - 10_000;
    while (this.recent.length > 0 && this.recent[0][0] < since) this.recent.shift();
    const latencies = this.recent.map(([, latency]) => latency).filter((latency) => latency !== null);
    latencies.sort((a, b) => a - b);
    if (latencies.length === 0) return;
    const shown = (ms) => (Math.max(ms, 0) < 10 ? Math.max(ms, 0).toFixed(1) : Math.round(ms).toString());
    say($("f-latency"), shown(latencies[latencies.length >> 1]));
    say($("f-worst"), `median of 10 s; ${shown(latencies[Math.floor(latencies.length * 0.95)])} ms for 95 of 100`);
  },
  second() {
    this.perSecond.push(this.count);
    this.count = 0;
    if (this.perSecond.length > 60) this.perSecond.shift();
    const last = this.perSecond.slice(-5);
    say($("f-received"), (last.reduce((sum, n) => sum + n, 0) / last.length).toFixed(1));
    const ceiling = Math.max(4, ...this.perSecond);
    const points = this.perSecond.map(
      (n, at) => `${at + 60 - this.perSecond.length},${19 - 18 * Math.min(n / ceiling, 1)}`,
    );
    document.querySelector("#spark polyline").setAttribute("points", points.join(" "));
  },
  server({ connections, rooms, eventsPerS, deliveriesPerS }) {
    const number = (n) => n.toLocaleString("en");
    say($("f-published"), number(eventsPerS));
    say($("f-deliveries"), number(deliveriesPerS));
    say($("f-server"), `${number(connections)} connections, ${number(rooms)} rooms`);
  },
};

// ---- the rooms of this page, with what came through each ----

const rooms = {
  list: new Map(),
  join(name) {
    if (this.list.has(name)) return;
    const count = make("b", "", "0");
    const item = make("li", "", name, count);
    item.title = `Events that came through the room ${name}`;
    this.list.set(name, { item, count, events: 0 });
    // In an order of their own, whichever was joined first.
    const names = [...this.list.keys()].sort((a, b) => this.rank(a) - this.rank(b) || (a < b ? -1 : 1));
    $("rooms").append(...names.map((name) => this.list.get(name).item));
  },
  rank(name) {
    return ["route:", "station:", "train:", "role:", "user:"].findIndex((prefix) => name.startsWith(prefix));
  },
  leave(prefix) {
    for (const [name, { item }] of this.list) {
      if (!name.startsWith(prefix)) continue;
      item.remove();
      this.list.delete(name);
    }
  },
  event(name) {
    const room = this.list.get(name);
    if (!room) return;
    room.events += 1;
    say(room.count, String(room.events));
    if (!calm.matches) room.count.animate([{ background: "var(--held)" }, {}], { duration: 500 });
  },
};

function link(id, isOn, text) {
  $(id).dataset.state = isOn ? "on" : "off";
  say($(id).querySelector("b"), text);
}

// ---- the bus ----

const STATES = {
  available: "free",
  reserved: "held",
  confirmed: "sold",
  cancelled: "returned",
  suspended: "blocked",
  none: "unknown",
};

const bus = {
  socket: null,
  route: null,
  // Since this moment events are new; those before it are what the room had kept.
  subscribedAt: Infinity,
  seats: new Map(),
  chosen: null,
  start(plan) {
    for (const { id, from, to } of plan.routes) $("route").append(new Option(`${from} – ${to}`, id));
    $("route").addEventListener("change", () => this.choose($("route").value));
    this.build(plan);
    this.choose(plan.routes[0].id);
    // The stock client, as it is.
    this.socket = io(`http://${plan.listen}/seats`);
    this.socket.on("connect", () => {
      const { engine } = this.socket.io;
      const shown = () => link("link-io", true, engine.transport.name);
      engine.on("upgrade", shown);
      shown();
      this.subscribe();
    });
    this.socket.on("disconnect", () => {
      rooms.leave("route:");
      link("link-io", false, "reconnecting");
    });
    this.socket.on("connect_error", () => link("link-io", false, "reconnecting"));
    this.socket.on("subscribed", ({ routeId }) => {
      if (routeId === this.route) rooms.join(`route:${routeId}`);
    });
    this.socket.on("seat_update", (update) => this.update(update));
    this.socket.on("error", ({ message }) => say($("seat-info"), `The server refuses: ${message}`));
  },
  build({ rows, letters }) {
    const at = [];
    for (let row = 1; row <= rows; row += 1) {
      for (const [column, letter] of [...letters].entries()) {
        const number = `${row}${letter}`;
        const button = make("button", column === letters.length / 2 ? "seat aisle" : "seat");
        const [label, detail] = [make("b", "", number), make("span", "", "\u00a0")];
        button.append(label, detail);
        button.type = "button";
        // One of them is in the order of the Tab key, the arrows go to the others.
        button.tabIndex = at.length === 0 ? 0 : -1;
        button.addEventListener("click", () => this.inspect(number));
        at.push(button);
        this.seats.set(number, { button, detail, update: null });
      }
    }
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -letters.length, ArrowDown: letters.length };
    $("seats").append(...at);
    $("seats").addEventListener("keydown", (event) => {
      const from = at.indexOf(document.activeElement);
      const to = at[from + (steps[event.key] ?? NaN)];
      if (from < 0 || !to) return;
      event.preventDefault();
      at[from].tabIndex = -1;
      to.tabIndex = 0;
      to.focus();
    });
  },
  choose(route) {
    const before = this.route;
    this.route = route;
    if (this.chosen) this.seats.get(this.chosen).button.removeAttribute("aria-pressed");
    this.chosen = null;
    for (const number of this.seats.keys()) this.show(number, null);
    this.summary();
    say($("seat-info"), "Choose a seat to see its ticket.");
    say($("compared"), "");
    say($("departure"), "…");
    byHand();
    if (!this.socket?.connected) return;
    this.socket.emit("unsubscribe_route", { routeId: before });
    rooms.leave("route:");
    this.subscribe();
  },
  // The room's seats follow the answer, and after them whatever happens.
  subscribe() {
    this.subscribedAt = figures.now();
    this.socket.emit("subscribe_route", { routeId: this.route });
  },
  update(update) {
    if (update.routeId !== this.route) return;
    const isKept = !(Date.parse(update.timestamp) >= Math.floor(this.subscribedAt));
    figures.event(update.timestamp, isKept);
    rooms.event(`route:${update.routeId}`);
    if (!this.show(update.seatNumber, update)) return;
    this.summary();
    const seat = this.seats.get(update.seatNumber);
    if (!isKept || !update.timestamp) replay(seat.button, "news");
    if (update.metadata?.departure) say($("departure"), `Leaves at ${update.metadata.departure}`);
    if (this.chosen === update.seatNumber) this.inspect(this.chosen);
  },
  show(number, update) {
    const seat = this.seats.get(number);
    if (!seat) return false;
    seat.update = update;
    const state = update ? String(update.eventType).replace(/^seat_/, "") : "none";
    const { price, gender } = update?.metadata ?? {};
    seat.button.dataset.state = state;
    seat.button.classList.remove("news");
    const sex = { F: "♀\ufe0e", M: "♂\ufe0e" }[gender] ?? "";
    say(seat.detail, state === "available" ? (price ? `₹${price}` : "free") : sex || "\u00a0");
    const whom = { F: ", a woman", M: ", a man" }[gender] ?? "";
    seat.button.setAttribute(
      "aria-label",
      `Seat ${number}, ${STATES[state] ?? state}${whom}${price ? `, ₹${price}` : ""}`,
    );
    return true;
  },
  summary() {
    const counts = Object.fromEntries(Object.keys(STATES).map((state) => [state, 0]));
    for (const { button } of this.seats.values()) counts[button.dataset.state] += 1;
    if ($("bar").childElementCount === 0) {
      for (const state of ["confirmed", "reserved", "cancelled", "suspended", "available"]) {
        const part = make("i");
        part.dataset.state = state;
        $("bar").append(part);
      }
    }
    for (const part of $("bar").children)
      part.style.width = `${(100 * counts[part.dataset.state]) / this.seats.size}%`;
    for (const state of ["available", "reserved", "confirmed", "cancelled", "suspended"]) {
      say($(`n-${state}`), String(counts[state]));
    }
  },
  inspect(number) {
    if (this.chosen) this.seats.get(this.chosen).button.removeAttribute("aria-pressed");
    this.chosen = number;
    const { button, update } = this.seats.get(number);
    button.setAttribute("aria-pressed", "true");
    const state = STATES[button.dataset.state] ?? button.dataset.state;
    const facts = [state];
    if (update?.metadata?.price) facts.push(`₹${update.metadata.price}`);
    if (update?.ticketId) facts.push(`ticket ${update.ticketId}`);
    if (update?.pnrNumber) facts.push(`PNR ${update.pnrNumber}`);
    $("seat-info").replaceChildren(make("b", "", `Seat ${number}: `), facts.join(", "));
  },
  // The answer stands at one place of the room's order: whatever came before it is in it.
  async compare() {
    const asked = this.route;
    const { seats } = await this.socket.timeout(5000).emitWithAck("get_seat_availability", { routeId: asked });
    if (asked !== this.route) return;
    const same = seats.filter(({ seatNumber, eventType }) => {
      return this.seats.get(seatNumber)?.update?.eventType === eventType;
    });
    const isGood = same.length === seats.length && seats.length > 0;
    $("compared").className = isGood ? "good" : "bad";
    say($("compared"), `${same.length} of ${seats.length} seats are as the server has them`);
  },
};

// ---- the trains ----

const trains = {
  plan: null,
  socket: null,
  retryMs: 250,
  since: Infinity,
  station: null,
  // What is known of each train at the station.
  board: new Map(),
  rows: new Map(),
  train: null,
  // True once somebody has chosen a train; until then the page goes along with one after the other.
  isChosen: false,
  stops: new Map(),
  stopRows: new Map(),
  isExaminer: false,
  start(plan) {
    this.plan = plan;
    const byName = [...plan.stations].sort((a, b) => a.name.localeCompare(b.name));
    for (const { code, name } of byName) $("station").append(new Option(name, code));
    this.station = "KYN";
    $("station").value = this.station;
    $("station").addEventListener("change", () => this.chooseStation($("station").value));
    $("tte").addEventListener("click", () => this.examine(!this.isExaminer));
    this.hint();
    this.connect();
  },
  connect() {
    const socket = new WebSocket(`ws://${this.plan.listen}/ws`);
    this.socket = socket;
    socket.addEventListener("open", () => {
      this.retryMs = 250;
      link("link-ws", true, "open");
      this.identify();
      this.send({ type: "SUBSCRIBE_STATION", station: this.station });
      if (this.train) this.send({ type: "SUBSCRIBE_TRAIN", trainNo: this.train });
    });
    socket.addEventListener("message", ({ data }) => this.hear(JSON.parse(data)));
    socket.addEventListener("close", () => {
      link("link-ws", false, "reconnecting");
      for (const prefix of ["station:", "train:", "role:", "user:"]) rooms.leave(prefix);
      setTimeout(() => this.connect(), this.retryMs);
      this.retryMs = Math.min(this.retryMs * 2, 5000);
    });
  },
  send(message) {
    if (this.socket.readyState !== WebSocket.OPEN) return;
    this.since = figures.now();
    this.socket.send(JSON.stringify(message));
  },
  identify() {
    this.send({ type: "IDENTIFY", role: this.isExaminer ? "TTE" : "PASSENGER", irctcId: this.plan.user });
  },
  role() {
    return this.isExaminer ? "TTE" : "PASSENGER";
  },
  hear(message) {
    const { type, trainNo, station, timestamp } = message;
    switch (type) {
      case "FIGURES":
        figures.event(timestamp, false);
        figures.server(message);
        return clock.set(message);
      case "IDENTIFIED":
        rooms.leave("role:");
        if (this.train) this.roomsOfTrain(this.train);
        rooms.join(`role:${message.role}`);
        return rooms.join(`user:${message.irctcId}`);
      case "SUBSCRIBED_STATION":
        rooms.leave("station:");
        return rooms.join(`station:${station}`);
      case "SUBSCRIBED":
        return this.roomsOfTrain(trainNo);
      case "SCHEDULED":
      case "DELAY_UPDATE":
      case "PLATFORM_CHANGE":
      case "STATION_ARRIVAL":
      case "STATION_DEPARTURE":
      case "CANCELLED":
        return this.stopEvent(message);
      case "error":
        return say($("notes-hint"), `The server refuses: ${message.message}`);
      default:
        if (message.text) this.note(message);
    }
  },
  roomsOfTrain(trainNo) {
    rooms.leave("train:");
    rooms.join(`train:${trainNo}`);
    rooms.join(`train:${trainNo}:${this.role()}`);
  },
  stopEvent(message) {
    figures.event(message.timestamp, !(Date.parse(message.timestamp) >= Math.floor(this.since)));
    if (message.station === this.station) {
      rooms.event(`station:${message.station}`);
      this.board.set(message.trainNo, message);
      later(boardView);
    }
    if (message.trainNo === this.train) {
      if (message.station !== this.station) rooms.event(`train:${message.trainNo}`);
      this.stops.set(message.station, message);
      later(trainView);
    }
  },
  chooseStation(station) {
    this.station = station;
    this.board.clear();
    this.rows.forEach(({ item }) => item.remove());
    this.rows.clear();
    later(boardView);
    this.send({ type: "SUBSCRIBE_STATION", station });
  },
  chooseTrain(trainNo) {
    if (trainNo === this.train) return;
    this.train = trainNo;
    this.stops.clear();
    later(trainView);
    later(boardView);
    this.hint();
    this.send({ type: "SUBSCRIBE_TRAIN", trainNo });
  },
  examine(isExaminer) {
    this.isExaminer = isExaminer;
    $("tte").setAttribute("aria-checked", String(isExaminer));
    this.hint();
    this.identify();
  },
  hint() {
    const { user } = this.plan;
    say(
      $("notes-hint"),
      this.isExaminer
        ? `As a TTE you hear what only the examiners of this train and of all trains are told, and what is for ${user}.`
        : `As passenger ${user} you hear what is for you alone. Switch, and the page says IDENTIFY with another role.`,
    );
  },
  note({ to = "", text, at, type, timestamp }) {
    figures.event(timestamp, false);
    rooms.event(to);
    const scope = to.split(":")[0];
    const whom = {
      user: "to you alone",
      role: "to all examiners",
      train: `to the examiners of ${to.split(":")[1]}`,
    }[scope];
    const time = make("time", "", at ?? $("clock").textContent);
    const item = make(
      "li",
      "",
      time,
      make("span", "", String(text)),
      make("small", "", whom ?? "to all", `, ${type}`),
    );
    item.dataset.to = scope;
    $("notes").prepend(item);
    while ($("notes").childElementCount > 4) $("notes").lastChild.remove();
  },
};

// A train at the station as the board shows it; null if it does not.
function boardRow(message) {
  const { status, scheduled, expected, at, delayMin, stop, stops, day } = message;
  const isLast = stop === stops - 1;
  const due = minutesTo(expected);
  const row = { message, due, look: "good", text: "On time" };
  // What was yesterday is nothing of today.
  if (day !== clock.day && status !== "expected") return null;
  switch (status) {
    case "departed":
      return minutesTo(at) < -1 || minutesTo(at) > 1 ? null : { ...row, look: "gone", text: "Departed" };
    case "arrived":
      if (isLast && (minutesTo(at) < -4 || minutesTo(at) > 1)) return null;
      return { ...row, look: "here", text: isLast ? "Arrived" : "Boarding" };
    case "cancelled":
      return minutesTo(scheduled) < -3 || minutesTo(scheduled) > 75
        ? null
        : { ...row, look: "off", text: "Cancelled" };
    default:
      if (due < -3 || due > 75) return null;
      return delayMin > 0 ? { ...row, look: "late", text: expected } : row;
  }
}

// Characters that turn when they change.
function flaps(className, length) {
  const element = make("span", `flaps ${className}`);
  element.setAttribute("aria-hidden", "true");
  for (let at = 0; at < length; at += 1) element.append(make("i", "", "\u00a0"));
  return element;
}

function turn(element, text, isQuiet) {
  [...element.children].forEach((flap, at) => {
    const letter = text[at] ?? "\u00a0";
    if (flap.textContent === letter) return;
    flap.textContent = letter;
    if (isQuiet) return;
    flap.style.animationDelay = `${at * 26}ms`;
    replay(flap, "turn");
  });
}

function boardView() {
  const rows = [...trains.board.values()].map(boardRow).filter((row) => row !== null);
  rows.sort((a, b) => a.due - b.due || a.message.trainNo.localeCompare(b.message.trainNo));
  // As many as fit: fewer where the page is narrow.
  const shown = rows.slice(0, innerWidth < 560 ? 7 : 9);
  const wanted = new Set(shown.map(({ message }) => message.trainNo));
  const isFirst = trains.rows.size === 0;
  const tops = new Map([...trains.rows].map(([trainNo, { item }]) => [trainNo, item.offsetTop]));
  for (const [trainNo, { item, button }] of trains.rows) {
    // Whoever is on it with the keyboard keeps it.
    if (wanted.has(trainNo) || document.activeElement === button) continue;
    item.remove();
    trains.rows.delete(trainNo);
  }
  for (const [position, { message, look, text }] of shown.entries()) {
    const { trainNo } = message;
    let row = trains.rows.get(trainNo);
    const isNew = !row;
    if (isNew) {
      row = newRow(trainNo);
      trains.rows.set(trainNo, row);
    }
    if ($("rows").children[position] !== row.item)
      $("rows").insertBefore(row.item, $("rows").children[position] ?? null);
    const isQuiet = isFirst || calm.matches;
    turn(row.time, message.scheduled, isQuiet);
    turn(row.platform, String(message.platform).padStart(2, "\u00a0"), isQuiet);
    turn(row.when, text, isQuiet);
    const isMoved = row.knownPlatform !== undefined && row.knownPlatform !== message.platform;
    row.knownPlatform = message.platform;
    if (isMoved) row.platform.classList.add("moved");
    const isLast = message.stop === message.stops - 1;
    say(row.name, isLast ? `from ${message.from}` : message.to);
    say(row.of, `${trainNo} ${message.train}`);
    row.button.dataset.look = look;
    row.button.setAttribute("aria-pressed", String(trainNo === trains.train));
    row.button.setAttribute(
      "aria-label",
      `${message.scheduled}, ${trainNo} ${message.train} ${row.name.textContent}, platform ${message.platform}, ` +
        (look === "late" ? `expected ${message.expected}` : text),
    );
    if (calm.matches || isFirst) continue;
    const from = tops.get(trainNo);
    if (isNew) row.item.animate([{ opacity: 0 }, {}], { duration: 500 });
    else if (from !== undefined && from !== row.item.offsetTop) {
      row.item.animate([{ transform: `translateY(${from - row.item.offsetTop}px)` }, {}], {
        duration: 380,
        easing: "ease-out",
      });
    }
  }
  $("no-rows").hidden = shown.length > 0;
  const isOver =
    trains.stops.size === 0 ||
    [...trains.stops.values()].some(({ status, stop, stops }) => {
      return status === "cancelled" || (status === "arrived" && stop === stops - 1);
    });
  // A train that has not left yet has most of its way before it.
  const next = shown.find(
    ({ look, message: { stop, stops } }) => look !== "gone" && look !== "off" && stop < stops - 1,
  );
  if (!trains.isChosen && next && (trains.train === null || (trains.stops.size > 0 && isOver))) {
    trains.chooseTrain(next.message.trainNo);
  }
}

function newRow(trainNo) {
  const button = make("button", "row");
  const [time, platform, when] = [flaps("time", 5), flaps("platform", 2), flaps("when", 9)];
  const [name, of] = [make("b"), make("span")];
  button.type = "button";
  button.append(time, make("span", "what", name, of), platform, when);
  button.addEventListener("click", () => {
    trains.isChosen = true;
    trains.chooseTrain(trainNo);
  });
  return { item: make("li", "", button), button, time, platform, when, name, of };
}

function trainView() {
  const stops = [...trains.stops.values()].sort((a, b) => a.stop - b.stop);
  if (stops.length === 0) {
    $("stops").replaceChildren();
    trains.stopRows.clear();
    say($("train-state"), "");
    return;
  }
  const [first] = stops;
  say($("train-title"), `${first.trainNo} ${first.train}`);
  say($("train-way"), `${first.from} to ${first.to}`);
  for (const [position, stop] of stops.entries()) {
    let row = trains.stopRows.get(stop.station);
    if (!row) {
      row = { platform: make("span", "plat"), times: make("span", "times") };
      row.item = make("li", "", make("i"), make("b", "", stop.stationName), row.platform, row.times);
      trains.stopRows.set(stop.station, row);
    }
    if ($("stops").children[position] !== row.item)
      $("stops").insertBefore(row.item, $("stops").children[position] ?? null);
    row.item.dataset.status = stop.status;
    if (row.knownPlatform !== undefined && row.knownPlatform !== stop.platform) replay(row.platform, "flash");
    row.knownPlatform = stop.platform;
    say(row.platform, `platform ${stop.platform}`);
    const key = `${stop.scheduled} ${stop.expected}`;
    if (row.key === key) continue;
    if (row.key !== undefined) replay(row.times, "flash");
    row.key = key;
    row.times.replaceChildren(
      ...(stop.delayMin > 0 ? [make("s", "", stop.scheduled), make("em", "", stop.expected)] : [stop.scheduled]),
    );
  }
  for (const [station, { item }] of trains.stopRows) {
    if (trains.stops.has(station)) continue;
    item.remove();
    trains.stopRows.delete(station);
  }
  const [look, text] = trainState(stops);
  $("train-state").dataset.look = look;
  say($("train-state"), text);
}

function trainState(stops) {
  if (stops.some(({ status }) => status === "cancelled")) return ["off", "does not run today"];
  const here = stops.find(({ status, stop, stops }) => status === "arrived");
  const next = stops.find(({ status }) => status === "expected");
  const late = (next ?? here ?? stops.at(-1)).delayMin;
  const delay = late > 0 ? `${late} min late` : "on time";
  const look = late > 0 ? "late" : "good";
  if (here) return [look, `at ${here.stationName}, ${delay}`];
  const hasLeft = stops.some(({ status }) => status === "departed");
  return [look, hasLeft && next ? `next ${next.stationName}, ${delay}` : delay];
}

// ---- by hand ----

let plan = null;

function byHand() {
  if (!plan) return;
  const route = $("route").value || plan.routes[0].id;
  const seat = { routeId: route, seatNumber: "1A", eventType: "seat_suspended" };
  const note = { text: "Tea is ready in the pantry car", to: "role:TTE" };
  const line = {
    ns: "/seats",
    room: `route:${route}`,
    event: "seat_update",
    data: { ...seat, seatNumber: "1B" },
    id: 1,
  };
  const [host, port] = plan.ingest.split(/:(?=\d+$)/);
  say(
    $("cmd-seat"),
    `${plan.program} pub --ingest ${plan.ingest} --ns /seats route:${route} seat_update '${JSON.stringify(seat)}'`,
  );
  say($("cmd-tte"), `${plan.program} pub --ingest ${plan.ingest} role:TTE ANNOUNCEMENT '${JSON.stringify(note)}'`);
  say($("cmd-tcp"), `echo '${JSON.stringify(line)}' | nc -N ${host} ${port}`);
}

// ---- start ----

// Views are drawn once for all that comes in a row.
const due = new Set();
function later(view) {
  due.add(view);
  if (due.size === 1)
    setTimeout(() => {
      const views = [...due];
      due.clear();
      for (const view of views) view();
    }, 60);
}

async function start() {
  plan = await (await fetch("/plan.json")).json();
  say($("version"), plan.version);
  bus.start(plan);
  trains.start(plan);
  byHand();
  $("compare").addEventListener("click", () => {
    bus.compare().catch(() => {
      $("compared").className = "bad";
      say($("compared"), "The server has not answered.");
    });
  });
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText($(button.dataset.copy).textContent);
      say(button, "Copied");
      setTimeout(() => say(button, "Copy"), 1500);
    });
  }
  setInterval(() => clock.show(), 200);
  setInterval(() => figures.show(), 500);
  setInterval(() => figures.second(), 1000);
  // Trains leave the board by the clock, too.
  setInterval(() => later(boardView), 1000);
}

start().catch((error) => {
  console.error(error);
  say($("no-rows"), "The demo does not answer. Start it again, and reload this page.");
});
