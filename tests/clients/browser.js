// A page of another origin in a real Chromium, with socket.io-client's bundle as pages load it. The page does the work
// and reports to its server, which is this program. Argument: "allowed", or "blocked" if the server does not know the
// origin.
"use strict";
const fs = require("fs");
const http = require("http");
const path = require("path");
const { Chromium } = require("./chromium");
const { listen, args, limit, run, assert } = require("./lib");

const BUNDLE = fs.readFileSync(path.join(__dirname, "node_modules/socket.io-client/dist/socket.io.js"));

// ---- runs in the page ----

async function page(url) {
  const report = (result) => fetch("/report", { method: "POST", body: JSON.stringify(result) });
  const once = (emitter, event) => new Promise((resolve) => emitter.once(event, (...got) => resolve(got)));
  const bytes = Uint8Array.from([0, 1, 2, 254, 255]);

  async function talks(options) {
    const socket = io(url, { forceNew: true, reconnection: false, auth: { from: "a page" }, ...options });
    const refused = once(socket, "connect_error").then(([error]) => error.message);
    const auth = once(socket, "auth").then(([payload]) => ({ payload }));
    const first = await Promise.race([refused, auth]);
    if (typeof first === "string") {
      socket.disconnect();
      return { refused: first };
    }
    const back = once(socket, "message-back");
    socket.emit("message", "é 😀", { file: bytes });
    const [text, { file }] = await back;
    const order = [];
    for (let n = 0; n < 100; n += 1) socket.emit("message-with-ack", n, (m) => order.push(m));
    const ack = await socket.emitWithAck("message-with-ack", "end");
    // Three pings of the server, or it would have hung up.
    for (let n = 0; n < 3; n += 1) await once(socket.io.engine, "ping");
    const alive = await socket.emitWithAck("message-with-ack", "alive");
    const { name } = socket.io.engine.transport;
    socket.disconnect();
    return { auth: first.payload, text, file: [...new Uint8Array(file)], order, ack, alive, transport: name };
  }

  try {
    // A header of the page's own makes the browser ask first.
    const extraHeaders = { "x-from": "a page" };
    const choices = {
      "default": {},
      "default, with credentials": { withCredentials: true },
      "default, with a header": { transportOptions: { polling: { extraHeaders } } },
      "polling": { transports: ["polling"] },
      "polling, with credentials": { transports: ["polling"], withCredentials: true },
      "polling, with credentials and a header": { transports: ["polling"], withCredentials: true, extraHeaders },
      "websocket": { transports: ["websocket"] },
    };
    for (const [name, options] of Object.entries(choices)) {
      const stop = new Promise((resolve) => setTimeout(resolve, 30_000, { hangs: true }));
      await report({ name, ...(await Promise.race([talks(options), stop])) });
    }
    await report({ done: true });
  } catch (error) {
    await report({ failed: `${error.stack ?? error}` });
  }
}

// ---- runs here ----

// Serves the page. Resolves with its origin; `reported` hears each report.
function serve(reported) {
  const html = `<!doctype html><meta charset="utf-8"><script src="/socket.io.js"></script>
    <script>(${page})(${JSON.stringify(`http://${listen}`)})</script>`;
  const server = http.createServer((request, response) => {
    if (request.url === "/socket.io.js") return response.setHeader("Content-Type", "text/javascript").end(BUNDLE);
    if (request.url === "/") return response.setHeader("Content-Type", "text/html").end(html);
    if (request.url !== "/report") return response.writeHead(404).end();
    let body = "";
    request.on("data", (data) => (body += data));
    request.on("end", () => {
      response.end();
      reported(JSON.parse(body));
    });
  });
  return new Promise((resolve) => {
    server.listen(0, "127.0.0.1", () => resolve(`http://127.0.0.1:${server.address().port}`));
  });
}

function judgeAllowed({ name, ...result }) {
  assert.deepStrictEqual(result, {
    auth: { from: "a page" },
    text: "é 😀",
    file: [0, 1, 2, 254, 255],
    order: [...Array(100).keys()],
    ack: "end",
    alive: "alive",
    transport: name.startsWith("polling") ? "polling" : "websocket",
  }, name);
}

// A browser keeps answers from pages of other origins; WebSockets it opens anyway.
function judgeBlocked({ name, ...result }) {
  if (name === "websocket") return;
  assert.deepStrictEqual(result, { refused: "xhr poll error" }, name);
}

// Of the start, and of each choice: nothing takes so long that comes at all.
const HANGING_MS = 60_000;

// Loads the page and collects its reports until it is done.
function reportsOf(chromium) {
  const reports = [];
  return new Promise((resolve, reject) => {
    const hangs = () => reject(new Error(`nothing more was reported:\n${chromium.log}`));
    let timer = setTimeout(hangs, HANGING_MS);
    serve((report) => {
      clearTimeout(timer);
      if (report.done) return resolve(reports);
      if (report.failed) return reject(new Error(report.failed));
      console.log(`reported ${JSON.stringify(report).slice(0, 100)}`);
      reports.push(report);
      timer = setTimeout(hangs, HANGING_MS);
    }).then((origin) => chromium.start(origin, reject), reject);
  });
}

run(async () => {
  limit(240);
  console.log(Chromium.version());
  const judge = { allowed: judgeAllowed, blocked: judgeBlocked }[args[0] ?? "allowed"];
  const chromium = new Chromium();
  try {
    const reports = await reportsOf(chromium);
    assert.strictEqual(reports.length, 7);
    for (const report of reports) judge(report);
  } finally {
    await chromium.end();
  }
});
