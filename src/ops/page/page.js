// The operators' page: shows what /live tells, asks /api for rooms, publishes test events. No library, no build step.
// Whatever comes from the server becomes text, never markup.
"use strict";

const $ = (id) => document.getElementById(id);

// ---- words for numbers ----

const whole = new Intl.NumberFormat("en");
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
const fine = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

const count = (n) => (n < 100_000 ? whole.format(Math.round(n)) : compact.format(n));
const perSecond = (n) => (n > 0 && n < 10 ? fine.format(n) : count(n));
const many = (n, what) => `${n < 10_000 ? whole.format(n) : compact.format(n)} ${what}${n === 1 ? "" : "s"}`;
const percent = (part) => `${Math.round(Math.min(part, 1) * 100)} %`;

function bytes(n) {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let unit = 0;
  while (n >= 1000 && unit < units.length - 1) [n, unit] = [n / 1000, unit + 1];
  return `${unit === 0 || n >= 100 ? Math.round(n) : fine.format(n)} ${units[unit]}`;
}

function ago(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 90) return `${seconds} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}

function duration(ms) {
  const minutes = Math.floor(ms / 60_000);
  if (minutes < 1) return `${Math.max(0, Math.floor(ms / 1000))} s`;
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} days`;
}

const clock = (at) => new Date(at).toLocaleTimeString("en-GB", { hour12: false });

// ---- elements ----

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

const put = (id, text) => {
  if ($(id).textContent !== text) $(id).textContent = text;
};

// Brings a table's body to `rows`. Rows and what is in them stay the same elements, so that a button that has the focus
// keeps it while the numbers move. Each column makes its cell once and then only changes it.
function fill(body, rows, columns) {
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((row, at) => {
    let line = body.rows[at];
    if (!line) {
      line = body.insertRow();
      for (const { wide, make } of columns) {
        const cell = line.insertCell();
        if (wide) cell.className = "wide";
        make?.(cell);
      }
    }
    columns.forEach(({ show }, index) => {
      const shown = show(row, line.cells[index]);
      if (shown !== undefined && line.cells[index].textContent !== shown) line.cells[index].textContent = shown;
    });
  });
}

// A column whose cells are buttons.
const buttons = (text, click) => ({
  make(cell) {
    const button = cell.appendChild(element("button", "", "link"));
    button.type = "button";
    button.addEventListener("click", () => click(button.row));
  },
  show(row, cell) {
    const button = cell.firstChild;
    button.row = row;
    // The room of a whole namespace has no name to ask for.
    button.disabled = !(row.name ?? row.room);
    if (button.textContent !== text(row)) button.textContent = text(row);
  },
});

// ---- what is known ----

const KEY = "roomcast-token";
let token = sessionStorage.getItem(KEY) ?? "";
let access = { reads: "never", writes: "never" };
let socket;
let delay = 500;
let started = 0;
let service = "";
// The last two tellings of the numbers.
let before;
let latest;
// Sums over the cores, as the server tells the past: {at, connections, events, deliveries, bytes, waiting_bytes}.
let past = [];
let incidents = new Map();
let tapping = null;

// ---- the live connection ----

function connect() {
  const url = new URL("live", document.baseURI);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  socket = new WebSocket(url);
  socket.onmessage = ({ data }) => hear(JSON.parse(data));
  socket.onclose = () => {
    before = undefined;
    document.body.classList.add("stale");
    status("lost", "no connection");
    setTimeout(connect, delay);
    delay = Math.min(delay * 2, 10_000);
  };
}

const say = (message) => {
  if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
};

const LISTENERS = {
  hello(message) {
    delay = 500;
    ({ started, service } = message);
    put("about", `${service === "roomcast" ? "" : `${service} · `}version ${message.version}`);
    document.title = service;
    const named = (values) => Object.fromEntries(message.fields.map((name, at) => [name, values[at]]));
    past = message.points.map(named);
    incidents = new Map();
    message.incidents.forEach(remember);
    if (token) say({ type: "token", token });
    allow(message.access);
    if (tapping && access.reads === "now") say(tapping);
  },
  access(message) {
    if (!message.right) {
      forget();
      $("token").open = true;
      $("token-note").textContent = "That is not the token in ops.token_file.";
      $("token-note").classList.add("bad");
    } else {
      $("token-note").textContent = "It stays in this tab until the tab is closed.";
      $("token-note").classList.remove("bad");
      $("token").open = false;
    }
    allow(message.access);
    if (message.right && tapping) say(tapping);
  },
  stats(message) {
    document.body.classList.remove("stale");
    status(message.status === "ready" ? "ready" : "busy", message.status);
    [before, latest] = [latest && before !== undefined ? latest : message, message];
    const sum = (name) => latest.cores.reduce((total, core) => total + core[name], 0);
    const point = { at: message.at };
    for (const name of ["connections", "events", "deliveries", "bytes", "waiting_bytes"]) point[name] = sum(name);
    if (past.at(-1)?.at !== point.at) past.push(point);
    while (past.length > 2 && past[0].at < message.at - 310_000) past.shift();
    message.incidents.forEach(remember);
    showNumbers(sum);
    showChart();
    showTrouble();
  },
  event: showEvent,
  tapped(message) {
    $("tap-start").textContent = "Stop";
    const { ns, room, event, per_s_max: max } = message;
    put("tap-note", `Tapping ${ns} ${room || "(whole namespace)"} ${event}, at most ${max} a second.`);
  },
  untapped() {
    $("tap-start").textContent = "Start";
  },
  skipped(message) {
    skipped += message.count;
    tell();
  },
  error(message) {
    tapping = null;
    $("tap-start").textContent = "Start";
    put("tap-note", message.error);
  },
};

function hear(message) {
  LISTENERS[message.type]?.(message);
}

function status(state, text) {
  $("status").dataset.state = state;
  put("status", text);
}

function remember(incident) {
  const key = `${incident.kind}|${incident.reason}|${incident.from}`;
  incidents.delete(key);
  incidents.set(key, incident);
  while (incidents.size > 64) incidents.delete(incidents.keys().next().value);
}

// ---- who may what ----

const WANTS_TOKEN = "Enter the token in ops.token_file, at the top of this page.";

function allow(now) {
  const could = access.reads === "now";
  access = now;
  const reads = access.reads === "now";
  $("token").hidden = access.writes === "never";
  put("token-summary", access.writes === "now" ? "Token ✓" : "Token");
  $("publish-fields").disabled = access.writes !== "now";
  put("publish-why", {
    now: "",
    token: `Publishing wants a token. ${WANTS_TOKEN}`,
    never: "Publishing from this page wants a token: set ops.token_file and restart. Without one the page only reads.",
  }[access.writes]);
  $("tap-fields").disabled = !reads;
  const why = {
    now: "",
    token: `Rooms and events are for who has the token. ${WANTS_TOKEN}`,
    never: "Rooms and events are shown on this machine, or with a token: set ops.token_file and restart.",
  }[access.reads];
  put("tap-note", why);
  put("rooms-note", why);
  for (const field of $("rooms-form").elements) field.disabled = !reads;
  $("busiest").hidden = !reads;
  if (!reads) {
    $("rooms-table").hidden = $("room").hidden = $("rooms-more").hidden = true;
    shown = null;
    $("tap-start").textContent = "Start";
  } else if (!could) {
    ask();
  }
}

function forget() {
  token = "";
  sessionStorage.removeItem(KEY);
}

$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token-text").value.trim();
  $("token-text").value = "";
  sessionStorage.setItem(KEY, token);
  say({ type: "token", token });
});

$("token-forget").addEventListener("click", () => {
  forget();
  tapping = null;
  // The connection had the token: without it there is another.
  socket.close();
});

addEventListener("keydown", (event) => {
  if (event.key === "Escape" && $("token").open) {
    $("token").open = false;
    $("token-summary").focus();
  }
});

// Asks the API: the status, and the body as JSON.
async function api(path, body) {
  const headers = {};
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const method = body === undefined ? "GET" : "POST";
  const response = await fetch(new URL(`api/${path}`, document.baseURI), { method, headers, body });
  return { status: response.status, body: await response.json() };
}

// ---- numbers ----

const level = (part) => (part >= 0.95 ? "bad" : part >= 0.8 ? "warn" : "");
const mark = (node, part) => {
  node.dataset.level = level(part);
};

function showNumbers(sum) {
  const seconds = (latest.at - before.at) / 1000;
  const known = seconds > 0 && before.cores.length === latest.cores.length;
  const rate = (now, then) => (known ? Math.max(0, (now - then) / seconds) : 0);
  const rates = (name) => latest.cores.map((core, at) => rate(core[name], before.cores[at]?.[name]));
  const total = (name) => rates(name).reduce((one, other) => one + other, 0);
  const tile = (name, text) => {
    document.querySelector(`[data-tile="${name}"]`).textContent = text;
  };
  const sub = (name, text) => {
    document.querySelector(`[data-sub="${name}"]`).textContent = text;
  };
  const busy = rates("busy_s");
  const most = Math.max(...busy, 0);
  tile("connections", count(sum("connections")));
  const polling = sum("polling");
  sub("connections", polling ? `${compact.format(polling)} polling` : many(sum("sockets"), "socket"));
  for (const name of ["deliveries", "events"]) tile(name, known ? perSecond(total(name)) : "–");
  tile("bytes", known ? bytes(total("bytes")) : "–");
  tile("busy", known ? percent(most) : "–");
  mark(document.querySelector('[data-tile="busy"]'), known ? most : 0);
  sub("busy", known && latest.cores.length > 1 ? `core ${busy.indexOf(most)} of ${latest.cores.length}` : "of one");
  tile("rooms", count(sum("rooms")));
  sub("rooms", many(sum("publishers"), "publisher"));
  tile("waiting", bytes(sum("waiting_bytes")));
  tile("memory", bytes(latest.memory_bytes));
  const up = `up ${duration(latest.at - started)}`;
  put("about", `${$("about").textContent.replace(/ · up .*$/, "")} · ${up}`);

  const column = (name) => rates(name);
  const [events, deliveries, sends, frames] = ["events", "deliveries", "sends", "frames"].map(column);
  fill($("cores-rows"), latest.cores.map((core, at) => ({ core, at })), [
    { show: ({ at }) => `${at}` },
    {
      make(cell) {
        const box = cell.appendChild(element("div", undefined, "load-cell"));
        box.append(element("i"), element("span"));
        box.firstChild.append(element("b"));
      },
      show({ at }, cell) {
        const [bar, text] = cell.firstChild.children;
        mark(cell.firstChild, busy[at]);
        bar.firstChild.style.width = percent(busy[at]).replace(" ", "");
        text.textContent = known ? percent(busy[at]) : "–";
      },
    },
    { show: ({ core }) => count(core.connections) },
    { wide: true, show: ({ core }) => count(core.rooms) },
    { wide: true, show: ({ at }) => perSecond(events[at]) },
    { show: ({ at }) => perSecond(deliveries[at]) },
    { wide: true, show: ({ at }) => perSecond(sends[at]) },
    { wide: true, show: ({ at }) => (sends[at] > 0 ? fine.format(frames[at] / sends[at]) : "–") },
    { wide: true, show: ({ core }) => bytes(core.waiting_bytes) },
  ]);
}

// ---- the chart ----

const SPAN_MS = 300_000;
const LEVELS = new Set(["connections", "waiting_bytes"]);
let line = [];

function showChart() {
  const what = $("chart-what").value;
  const word = what.includes("bytes") ? bytes : perSecond;
  const now = latest.at;
  line = past.slice(1).map((point, at) => {
    const then = past[at];
    const rate = () => Math.max(0, (point[what] - then[what]) * 1000 / (point.at - then.at));
    const value = LEVELS.has(what) ? point[what] : rate();
    return { at: point.at, value };
  }).filter(({ at }) => at >= now - SPAN_MS);
  const most = Math.max(...line.map(({ value }) => value), 0);
  const top = ceiling(most);
  const x = (at) => (600 * (at - now + SPAN_MS) / SPAN_MS).toFixed(1);
  const y = (value) => (119 - 114 * value / top).toFixed(1);
  const path = line.map(({ at, value }) => `${x(at)} ${y(value)}`).join("L");
  $("chart-line").setAttribute("d", path && `M${path}`);
  $("chart-area").setAttribute("d", path && `M${x(line[0].at)} 119L${path}L600 119Z`);
  put("chart-top", word(top));
  put("chart-middle", word(top / 2));
  const name = $("chart-what").selectedOptions[0].text;
  const last = line.at(-1)?.value ?? 0;
  $("chart").setAttribute("aria-label", `${name} over five minutes: now ${word(last)}, at most ${word(most)}`);
  if (!pointed) put("chart-note", `now ${word(last)}, at most ${word(most)}`);
}

// The next of 1, 2, 5, 10, 20, … that is not smaller.
function ceiling(value) {
  const unit = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return unit * [1, 2, 5, 10].find((step) => unit * step >= value);
}

let pointed = false;
$("chart").addEventListener("pointermove", (event) => {
  const box = $("chart").getBoundingClientRect();
  const at = latest && latest.at - SPAN_MS * (1 - (event.clientX - box.left) / box.width);
  const away = (point) => Math.abs(point.at - at);
  const near = line.reduce((best, point) => (!best || away(point) < away(best) ? point : best), null);
  if (!near) return;
  pointed = true;
  const x = 600 * (near.at - latest.at + SPAN_MS) / SPAN_MS;
  $("chart-mark").setAttribute("d", `M${x} 0V120`);
  const word = $("chart-what").value.includes("bytes") ? bytes : perSecond;
  put("chart-note", `${clock(near.at)}: ${word(near.value)}`);
});
$("chart").addEventListener("pointerleave", () => {
  pointed = false;
  $("chart-mark").setAttribute("d", "");
});
$("chart-what").addEventListener("change", () => latest && showChart());

// ---- trouble ----

const KINDS = {
  request: "HTTP request",
  message: "message",
  token: "token",
  line: "publisher line",
  protocol: "protocol",
  accept: "accept",
  "slow consumer": "slow consumer",
};

function showTrouble() {
  const rows = [...incidents.values()].sort((one, other) => other.until - one.until).slice(0, 12);
  fill($("refused-rows"), rows, [
    { show: ({ until }, cell) => { cell.title = clock(until); return ago(latest.at - until); } },
    { show: ({ kind }) => KINDS[kind] ?? kind },
    { show: ({ reason }) => reason.replaceAll("_", " ") },
    { show: (row) => count(row.count) },
  ]);
  const total = latest.refused.reduce((sum, row) => sum + row.count, 0);
  put("refused-note", total ? `${count(total)} since the start, by reason in /metrics.` : "Nothing was refused.");
  const patterns = new Map();
  for (const { rooms, outcome, count: times } of latest.slow) {
    if (!patterns.has(rooms)) patterns.set(rooms, { rooms });
    patterns.get(rooms)[outcome] = times;
  }
  const outcome = (name) => ({ show: (row) => count(row[name] ?? 0) });
  fill($("slow-rows"), [...patterns.values()], [
    { show: ({ rooms }) => rooms },
    ...["disconnect", "shed", "dropped", "conflated"].map(outcome),
  ]);
  const lagging = latest.cores.reduce((sum, core) => sum + core.lagging, 0);
  put("slow-note", [
    lagging ? `${count(lagging)} lag${lagging === 1 ? "s" : ""} now.` : "Nobody lags now.",
    patterns.size ? "The table is since the start, by pattern of rooms:" : "",
    patterns.size ? "cut and shed are connections, dropped and conflated are events." : "",
  ].join(" ").trim());
}

// ---- rooms ----

// The room in view.
let shown = null;
let found = [];
let next = null;

const opens = buttons(({ name, room }) => (name ?? room) || "(whole namespace)", (row) => {
  view(row.ns ?? $("rooms-ns").value, row.name ?? row.room);
});

async function find(after) {
  const query = new URLSearchParams({ ns: $("rooms-ns").value, prefix: $("rooms-prefix").value, limit: 20 });
  if (after) query.set("after", after);
  try {
    const { status, body } = await api(`rooms?${query}`);
    if (status !== 200) throw new Error(body.error);
    found = after ? [...found, ...body.rooms] : body.rooms;
    next = body.next;
    put("rooms-note", found.length ? "" : "No such room has members or had events lately.");
  } catch (error) {
    [found, next] = [[], null];
    put("rooms-note", `${error.message}`);
  }
  fill($("rooms-rows"), found, [
    opens,
    { show: ({ members }) => count(members) },
    { show: ({ rate }) => perSecond(rate) },
    { wide: true, show: ({ offset }) => count(offset) },
    { wide: true, show: (row) => bytes(row.bytes) },
  ]);
  $("rooms-table").hidden = !found.length;
  $("rooms-more").hidden = next === null;
}

$("rooms-form").addEventListener("submit", (event) => {
  event.preventDefault();
  find();
});
$("rooms-more").addEventListener("click", () => find(next));

async function view(ns, room) {
  shown = { ns, room };
  $("room").hidden = false;
  put("room-name", room || "(whole namespace)");
  $("room").focus({ preventScroll: true });
  $("room").scrollIntoView({ block: "nearest" });
  await look();
}

// Renews the view of the room.
async function look() {
  const { ns, room } = shown;
  let answer;
  try {
    answer = await api(`rooms/${encodeURIComponent(room)}?${new URLSearchParams({ ns })}`);
  } catch (error) {
    return put("room-note", `${error.message}`);
  }
  if (shown?.ns !== ns || shown.room !== room) return;
  const facts = answer.body.room;
  if (answer.status !== 200) {
    for (const name of ["members", "rate", "offset", "epoch", "bytes", "encodings"]) put(`room-${name}`, "–");
    return put("room-note", answer.body.error);
  }
  put("room-note", ns === "/" ? "" : `in ${ns}`);
  put("room-members", whole.format(facts.members));
  put("room-rate", perSecond(facts.rate));
  put("room-offset", whole.format(facts.offset));
  put("room-epoch", `${facts.epoch ?? "–"}`);
  put("room-bytes", bytes(facts.bytes));
  const encodings = Object.entries(facts.encodings ?? {}).filter(([, members]) => members > 0);
  const words = encodings.map(([name, members]) => `${whole.format(members)} ${name.replaceAll("_", " ")}`);
  put("room-encodings", words.join(", ") || "–");
}

$("room-close").addEventListener("click", () => {
  shown = null;
  $("room").hidden = true;
  $("rooms-prefix").focus();
});
$("room-tap").addEventListener("click", () => {
  [$("tap-ns").value, $("tap-room").value, $("tap-event").value] = [shown.ns, shown.room, "*"];
  openTap();
  $("tap").scrollIntoView();
  $("tap-start").focus({ preventScroll: true });
});
$("room-publish").addEventListener("click", () => {
  [$("publish-ns").value, $("publish-room").value] = [shown.ns, shown.room];
  $("publish").scrollIntoView();
  ($("publish-fields").disabled ? $("publish") : $("publish-event")).focus({ preventScroll: true });
});

// ---- the busiest rooms ----

async function busiest() {
  const by = $("busiest-by").value;
  let answer;
  try {
    answer = await api(`top?${new URLSearchParams({ by, limit: 10 })}`);
  } catch {
    return;
  }
  if (by !== $("busiest-by").value) return;
  const { rooms = [], seconds, error } = answer.body;
  put("busiest-unit", { deliveries: "Deliveries/s", bytes: "Bytes/s", lag: "Late bytes/s" }[by]);
  const word = by === "deliveries" ? perSecond : bytes;
  fill($("busiest-rows"), rooms, [
    opens,
    { wide: true, show: ({ ns }) => ns },
    {
      make: (cell) => cell.append(element("span"), element("small")),
      show(row, cell) {
        const [number, doubt] = cell.children;
        number.textContent = word(row.per_second);
        doubt.textContent = row.error > 0 ? ` at most, at least ${word((row.count - row.error) / seconds)}` : "";
      },
    },
  ]);
  const over = rooms.length ? `Over the last ${Math.round(seconds)} s.` : "Nothing in the last seconds.";
  put("busiest-note", answer.status === 200 ? over : error);
}
$("busiest-by").addEventListener("change", busiest);

// What is asked again and again, as long as somebody can see it.
function ask() {
  if (document.hidden || access.reads !== "now" || socket.readyState !== WebSocket.OPEN) return;
  busiest();
  if (shown) look();
}
setInterval(ask, 2000);

// ---- the tap ----

const EVENTS_MAX = 200;
let seen = 0;
let skipped = 0;

function openTap() {
  if (!$("tap-form").reportValidity()) return;
  tapping = {
    type: "tap",
    ns: $("tap-ns").value,
    room: $("tap-room").value,
    event: $("tap-event").value,
    per_s_max: Number($("tap-max").value),
  };
  [seen, skipped] = [0, 0];
  say(tapping);
}

$("tap-form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!tapping) return openTap();
  tapping = null;
  say({ type: "untap" });
});
$("tap-clear").addEventListener("click", () => $("tap-events").replaceChildren());

const tell = () => put("tap-note", `${whole.format(seen)} shown, ${whole.format(skipped)} more passed the filter.`);

function showEvent({ ns, room, offset, event, args, args_bytes: size, binary }) {
  const item = element("li");
  const what = element("span");
  const where = `${ns === "/" ? "" : `${ns} `}${room || "(whole namespace)"} · ${whole.format(offset)}`;
  what.append(element("b", event), element("span", where, "where"));
  const cut = new TextEncoder().encode(args).length < size ? ` … ${bytes(size)} in all` : "";
  const parts = binary ? ` + ${binary} binary part${binary > 1 ? "s" : ""}` : "";
  item.append(element("time", clock(Date.now())), what, element("span", args + cut + parts, "data"));
  const list = $("tap-events");
  list.prepend(item);
  while (list.children.length > EVENTS_MAX) list.lastChild.remove();
  seen += 1;
  tell();
}

// ---- publishing ----

$("publish-all").addEventListener("change", () => {
  $("publish-room").disabled = $("publish-all").checked;
});

$("publish-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const data = $("publish-data").value.trim();
  const result = (text, bad) => {
    put("publish-result", text);
    $("publish-result").classList.toggle("bad", bad);
  };
  try {
    if (data) JSON.parse(data);
    $("publish-data").removeAttribute("aria-invalid");
  } catch (error) {
    $("publish-data").setAttribute("aria-invalid", "true");
    $("publish-data").focus();
    return result(`The data is not JSON: ${error.message}`, true);
  }
  const names = $("publish-all").checked ? ["ns", "event"] : ["ns", "event", "room"];
  const members = names.map((name) => `"${name}":${JSON.stringify($(`publish-${name}`).value)}`);
  // As it was written: what JavaScript makes of a number of 64 bits is another.
  if (data) members.push(`"data":${data}`);
  try {
    const { body } = await api("emit", `{${members.join(",")}}`);
    result(body.ok ? `Published at offset ${body.offset ?? "–"} at ${clock(Date.now())}.` : body.error, !body.ok);
  } catch (error) {
    result(`Not published: ${error.message}`, true);
  }
});

connect();
