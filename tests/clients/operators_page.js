// The operators' page in a real Chromium, driven as a person would. First argument: "open" for a server without a
// token, or "token" and the token. PICTURES names a folder for pictures of the page, which nobody compares.
"use strict";
const path = require("path");
const WebSocket = require("ws");
const { Chromium, Tab } = require("./chromium");
const { listen, admin, args, limit, run, assert, until, request, Publisher, once } = require("./lib");

const PAGE = `http://${admin}/`;

// A plain WebSocket client in a room. `texts` is what it was told since.
async function member(room) {
  const socket = new WebSocket(`ws://${listen}/ws`);
  await once(socket, "open");
  socket.send(JSON.stringify({ type: "subscribe", data: { room } }));
  await once(socket, "message");
  socket.texts = [];
  socket.on("message", (data) => socket.texts.push(data.toString()));
  return socket;
}

// Waits until what stands in the element is as wanted; says what stands there if that never comes.
async function shows(tab, selector, wanted, ms = 30_000) {
  const is = (text) => (wanted instanceof RegExp ? wanted.test(text) : text === wanted);
  const started = Date.now();
  let text;
  await until(async () => {
    text = await tab.do((selector) => document.querySelector(selector)?.innerText, selector);
    if (Date.now() - started > ms) assert.fail(`${selector} shows ${JSON.stringify(text)}, not ${wanted}`);
    return is(text ?? "");
  });
  return text;
}

const write = async (tab, id, text) => {
  await tab.do((id) => document.getElementById(id).focus(), id);
  await tab.type(text);
};
const click = (tab, id) => tab.do((id) => document.getElementById(id).click(), id);
const tapped = (tab) => tab.do(() => [...document.querySelectorAll("#tap-events li")].map((item) => ({
  event: item.querySelector("b").textContent,
  where: item.querySelector(".where").textContent,
  data: item.querySelector(".data").textContent,
})));

async function picture(tab, name, view) {
  if (!process.env.PICTURES) return;
  await tab.look(view);
  await tab.do(() => {
    document.activeElement.blur();
    scrollTo(0, 0);
    return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  });
  await tab.picture(path.join(process.env.PICTURES, `${name}.png`));
}

// ---- what is looked at ----

async function numbersMove(tab, publisher, cores) {
  await shows(tab, "#status", "ready");
  await shows(tab, '[data-tile="connections"]', "5");
  await shows(tab, '[data-tile="rooms"]', /^[1-9]/);
  assert.strictEqual(await tab.do(() => document.querySelectorAll("#cores-rows tr").length), cores);
  let going = true;
  const flood = (async () => {
    for (let n = 0; going; n += 1) await publisher.ask({ room: "route:7", event: "seat_update", data: { n } });
  })();
  await shows(tab, '[data-tile="deliveries"]', /^[1-9]/);
  await shows(tab, '[data-tile="events"]', /^[1-9]/);
  await shows(tab, '[data-tile="bytes"]', /^[1-9].* [KM]?B$/);
  await shows(tab, '[data-tile="busy"]', /^[1-9]\d* %$/);
  await shows(tab, "#cores-rows", /[1-9]\d* %/);
  assert.match(await tab.do(() => document.getElementById("chart-line").getAttribute("d")), /^M[\d.]+ [\d.]+L/);
  await until(() => tab.do(() => /now [1-9]/.test(document.getElementById("chart").getAttribute("aria-label"))));
  await shows(tab, "#busiest-rows", /^route:7\s+\/\s+[1-9]/);
  await tab.do(() => {
    document.getElementById("busiest-by").value = "bytes";
    document.getElementById("busiest-by").dispatchEvent(new Event("change"));
  });
  await shows(tab, "#busiest-rows", /^route:7\s+\/\s+[1-9].* [KM]?B$/);
  going = false;
  await flood;
  await shows(tab, '[data-tile="deliveries"]', "0");
}

async function refusalsAreTold(tab) {
  assert.strictEqual((await request(listen, "GET", "/nowhere")).status, 404);
  await shows(tab, "#refused-rows", /HTTP request\s+unknown path\s+1/);
}

async function aRoomIsShown(tab, publisher) {
  await write(tab, "rooms-prefix", "route:");
  await tab.press("Enter");
  await shows(tab, "#rooms-rows", /^route:7\s+3\s/);
  assert.strictEqual(await tab.do(() => document.querySelectorAll("#rooms-rows tr").length), 2);
  await tab.do(() => document.querySelector("#rooms-rows button").focus());
  await tab.press("Enter");
  await shows(tab, "#room-name", "route:7");
  await shows(tab, "#room-members", "3");
  await shows(tab, "#room-encodings", "3 raw nested");
  const { offset } = await publisher.ask({ room: "route:7", event: "one_more" });
  await shows(tab, "#room-offset", offset.toLocaleString("en"));
  const [one, other] = [await member("route:7"), await member("route:7")];
  await shows(tab, "#room-members", "5");
  one.close();
  other.close();
  await shows(tab, "#room-members", "3");
}

async function theTapShowsWhatPasses(tab, publisher) {
  await write(tab, "tap-room", "route:*");
  await write(tab, "tap-event", "seat*");
  await write(tab, "tap-max", "5");
  await tab.press("Enter");
  await shows(tab, "#tap-note", "Tapping / route:* seat*, at most 5 a second.");
  const markup = "<img src=x onerror=document.title='broken'>";
  await publisher.ask({ room: "other", event: "seat_update", data: 1 });
  await publisher.ask({ room: "route:7", event: "other", data: 2 });
  await publisher.ask({ event: "seat_update", data: 3 });
  const { offsets } = await publisher.ask({ rooms: ["route:7", "other"], event: "seat_update", data: { markup } });
  await publisher.ask({ room: "route:8", event: "seat", args: ["9007199254740993", "x".repeat(5000)] });
  await until(async () => (await tapped(tab)).length >= 2);
  const [last, first] = await tapped(tab);
  assert.strictEqual((await tapped(tab)).length, 2);
  assert.strictEqual(first.where, `route:7 · ${offsets["route:7"].toLocaleString("en")}`);
  assert.strictEqual(first.event, "seat_update");
  assert.strictEqual(first.data, JSON.stringify({ markup }));
  assert.strictEqual(await tab.do(() => document.images.length), 0);
  assert.strictEqual(last.event, "seat");
  assert.match(last.data, /^"9007199254740993","xxx.*x … 5 KB in all$/);
  assert.ok(last.data.length < 2100, "what is long is cut");

  // Far more than the bound: what is not shown is counted, and nothing is lost in between.
  await click(tab, "tap-clear");
  const started = Date.now();
  await Promise.all(Array.from({ length: 300 }, (_, n) => publisher.ask({ room: "route:7", event: "seat", data: n })));
  await until(async () => {
    const [, shown, skipped] = /^([\d,]+) shown, ([\d,]+) more/.exec(await shows(tab, "#tap-note", /shown/));
    const [seen, more] = [shown, skipped].map((text) => Number(text.replace(",", "")));
    const seconds = (Date.now() - started) / 1000;
    assert.ok(seen <= 2 + 5 * (seconds + 2), `${seen} events after ${seconds} s`);
    return seen + more === 302 && more > 100;
  });
  await click(tab, "tap-start");
  await shows(tab, "#tap-start", "Start");
  const before = (await tapped(tab)).length;
  await publisher.ask({ room: "route:7", event: "seat" });
  // The numbers come by the same connection: with them the event would have come.
  await anotherTelling(tab);
  assert.strictEqual((await tapped(tab)).length, before);
}

// Waits until the numbers have come once more, and so has what was told before them.
async function anotherTelling(tab) {
  const drawn = () => tab.do(() => document.getElementById("chart-line").getAttribute("d"));
  const before = await drawn();
  await until(async () => (await drawn()) !== before);
}

async function everythingByKeyboard(tab) {
  const wanted = await tab.do(() => {
    document.activeElement.blur();
    scrollTo(0, 0);
    const controls = [...document.querySelectorAll("a[href], button, input, select, textarea, summary")];
    const usable = controls.filter((one) => !one.matches(":disabled") && one.checkVisibility());
    // Who cannot see it must hear what it is.
    window.nameOf = (one) => (one.getAttribute("aria-label") ?? one.labels?.[0]?.textContent ?? one.textContent).trim();
    usable.forEach((one, at) => (one.number = at));
    return usable.map(nameOf);
  });
  assert.ok(wanted.length > 20 && wanted.every(Boolean), wanted);
  const missing = new Set(wanted.keys());
  for (let n = 0; n < wanted.length + 10 && missing.size; n += 1) {
    await tab.press("Tab");
    const { number, outline, top, bottom } = await tab.do(() => {
      const one = document.activeElement;
      const { outlineStyle, outlineWidth } = getComputedStyle(one);
      const { top, bottom } = one.getBoundingClientRect();
      return { number: one.number, outline: `${outlineStyle} ${outlineWidth}`, top, bottom };
    });
    if (number === undefined) continue;
    assert.strictEqual(outline, "solid 2px", wanted[number]);
    assert.ok(bottom > 0 && top < 900, `${wanted[number]} has the focus outside of the window`);
    missing.delete(number);
  }
  assert.deepStrictEqual([...missing].map((number) => wanted[number]), []);
}

async function lightAndDark(tab) {
  const backs = [];
  for (const scheme of ["light", "dark"]) {
    await tab.look({ scheme });
    const contrast = await tab.do(() => {
      const style = getComputedStyle(document.documentElement);
      const light = (name) => {
        const hex = style.getPropertyValue(name).trim().replace(/^#(.)(.)(.)$/, "#$1$1$2$2$3$3");
        const part = (at) => {
          const value = parseInt(hex.slice(at, at + 2), 16) / 255;
          return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
        };
        return 0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5);
      };
      const pairs = ["text", "soft", "blue", "warn", "bad"].map((name) => [`--${name}`, "--card"]);
      return [...pairs, ["--soft", "--back"], ["--blue", "--on-blue"]].map(([one, other]) => {
        const [dim, bright] = [light(one), light(other)].sort((a, b) => a - b);
        return [one, other, (bright + 0.05) / (dim + 0.05)];
      });
    });
    // WCAG 2.2, 1.4.3.
    for (const [one, other, ratio] of contrast) assert.ok(ratio >= 4.5, `${scheme}: ${one} on ${other}: ${ratio}`);
    backs.push(await tab.do(() => getComputedStyle(document.body).backgroundColor));
  }
  assert.notStrictEqual(backs[0], backs[1]);
}

async function onAPhone(tab) {
  for (const width of [390, 320]) {
    await tab.look({ width, height: 800, phone: true });
    const { page, wide } = await tab.do(() => ({
      page: document.documentElement.scrollWidth,
      wide: [...document.querySelectorAll("main *")].filter((one) => one.getBoundingClientRect().right > innerWidth + 1)
        .map((one) => `${one.tagName} ${one.id} ${one.className}`),
    }));
    assert.deepStrictEqual([page, wide], [width, []]);
  }
  await tab.look();
}

async function whatIsReadOnly(tab) {
  await shows(tab, "#publish-why", /set ops\.token_file/);
  assert.strictEqual(await tab.do(() => document.querySelectorAll("#publish button:enabled").length), 0);
  assert.strictEqual(await tab.do(() => document.getElementById("token").checkVisibility()), false);
  // Nor does the page's own program get through.
  const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: '{"event":"x"}' };
  const status = await tab.do((options) => fetch("/api/emit", options).then(({ status }) => status), options);
  assert.strictEqual(status, 403);
  tab.problems = tab.problems.filter((problem) => !problem.includes("/api/emit"));
}

async function withoutAToken(tab) {
  const cores = Number(args[1]);
  await tab.look();
  await tab.go(PAGE);
  const members = await Promise.all(["route:7", "route:7", "route:7", "route:8", "other"].map(member));
  const publisher = new Publisher();
  await numbersMove(tab, publisher, cores);
  await refusalsAreTold(tab);
  await aRoomIsShown(tab, publisher);
  await theTapShowsWhatPasses(tab, publisher);
  await whatIsReadOnly(tab);
  await everythingByKeyboard(tab);
  await lightAndDark(tab);
  await onAPhone(tab);
  await picture(tab, "light", {});
  await picture(tab, "dark", { scheme: "dark" });
  await picture(tab, "phone", { width: 390, height: 844, phone: true });
  members.forEach((socket) => socket.close());
}

async function withAToken(tab) {
  const token = args[1];
  await tab.look();
  await tab.go(PAGE);
  const one = await member("route:7");
  // Numbers are for everybody, as those of /metrics are.
  await shows(tab, '[data-tile="connections"]', "1");
  const usable = () => tab.do(() => ["rooms-form", "tap-form", "publish-form"].map((id) => {
    const fields = [...document.getElementById(id).elements];
    return fields.some((field) => !field.matches("fieldset, output, :disabled"));
  }));
  assert.deepStrictEqual(await usable(), [false, false, false]);
  assert.strictEqual(await tab.do(() => document.getElementById("busiest").checkVisibility()), false);
  await picture(tab, "locked", {});

  const tell = async (text) => {
    await tab.do(() => document.getElementById("token-summary").focus());
    if (!(await tab.do(() => document.getElementById("token").open))) await tab.press("Enter");
    await write(tab, "token-text", text);
    await tab.press("Enter");
  };
  await tell(`${token}x`);
  await shows(tab, "#token-note", "That is not the token in ops.token_file.");
  assert.deepStrictEqual(await usable(), [false, false, false]);
  await tell(token);
  await until(async () => (await usable()).every(Boolean));
  assert.strictEqual(await tab.do(() => document.getElementById("token").open), false);

  // Published from the page, seen by the tap, had by a client, exactly as it was written.
  await write(tab, "tap-room", "route:7");
  await tab.press("Enter");
  await shows(tab, "#tap-note", /^Tapping/);
  await write(tab, "publish-room", "route:7");
  await write(tab, "publish-event", "test");
  await write(tab, "publish-data", '{"id": 9007199254740993, "x": 1.0}');
  await click(tab, "publish-all");
  await click(tab, "publish-all");
  await tab.do(() => document.querySelector("#publish-fields > button").focus());
  await tab.press("Enter");
  await shows(tab, "#publish-result", /^Published at offset 1 at /);
  await until(() => one.texts.length > 0);
  assert.deepStrictEqual(one.texts, ['{"type":"test","data":{"id": 9007199254740993, "x": 1.0}}']);
  await until(async () => (await tapped(tab)).length === 1);
  assert.strictEqual((await tapped(tab))[0].data, '{"id": 9007199254740993, "x": 1.0}');
  await write(tab, "publish-data", "{oops}");
  await tab.do(() => document.querySelector("#publish-fields > button").click());
  await shows(tab, "#publish-result", /^The data is not JSON/);

  // It is kept for this tab, and nowhere in an address.
  const asked = await tab.do(() => {
    return performance.getEntries().map(({ name }) => name).join(" ") + location.href + document.cookie;
  });
  assert.ok(!asked.includes(token));
  await tab.go(`${PAGE}page`);
  await until(async () => (await usable()).every(Boolean));
  await picture(tab, "unlocked", {});
  await tab.do(() => document.getElementById("token-forget").click());
  await until(async () => (await usable()).every((one) => !one));
  assert.strictEqual(await tab.do(() => sessionStorage.length), 0);
  one.close();
}

run(async () => {
  limit(180);
  console.log(Chromium.version());
  const chromium = new Chromium();
  try {
    const tab = await Tab.open(chromium);
    await { open: withoutAToken, token: withAToken }[args[0]](tab);
    assert.deepStrictEqual(tab.problems, []);
  } finally {
    await chromium.end();
  }
});
