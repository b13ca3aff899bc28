// What the test clients share: an end in any case, expectations with a message, publishing.
"use strict";
const net = require("net");
const http = require("http");
const assert = require("assert");
const crypto = require("crypto");
const fs = require("fs");
const path = require("path");

let watchdog;

// The program must end within this; anew at each call.
function limit(seconds) {
  clearTimeout(watchdog);
  watchdog = setTimeout(() => {
    console.error(`watchdog: the program has not ended within ${seconds} s`);
    process.exit(1);
  }, seconds * 1000).unref();
}
limit(60);

// The arguments are three addresses HOST:PORT, of which reference.js has only the first and "-" stands for the others,
// and whatever the program takes.
const [listen, ingest, admin, ...args] = process.argv.slice(2);

// Whether the server is Node's own: reference.js.
const isReference = ingest === "-";

function run(main) {
  // Timers that keep nothing alive must not let the program end before `main` has.
  const alive = setInterval(() => {}, 1000);
  main().then(
    () => {
      clearInterval(alive);
      process.exit(0);
    },
    (error) => {
      console.error(error && error.stack ? error.stack : error);
      process.exit(1);
    },
  );
}

// A publisher's connection: `ask(line)` sends an object and resolves to the receipt. Receipts of lines that wait for clients
// may come later than those of the lines behind them.
class Publisher {
  constructor() {
    const [host, port] = ingest.split(":");
    this.waiting = new Map();
    this.rest = "";
    this.lastId = 0;
    this.socket = net.connect(port, host);
    this.socket.on("error", () => {});
    this.socket.on("data", (data) => {
      const lines = (this.rest + data).split("\n");
      this.rest = lines.pop();
      for (const line of lines) {
        const receipt = JSON.parse(line);
        if (receipt.draining) continue;
        assert.ok(this.waiting.has(receipt.id), line);
        this.waiting.get(receipt.id)(receipt);
        this.waiting.delete(receipt.id);
      }
    });
  }
  async ask(line) {
    const id = ++this.lastId;
    const receipt = await new Promise((resolve) => {
      this.waiting.set(id, resolve);
      this.socket.write(JSON.stringify({ ...line, id }) + "\n");
    });
    assert.strictEqual(receipt.id, id);
    assert.ok(receipt.ok, JSON.stringify(receipt));
    return receipt;
  }
}

// Resolves with the arguments of the emitter's next `event`.
function once(emitter, event) {
  return new Promise((resolve) => emitter.once(event, (...args) => resolve(args)));
}

// The sum of a metric over all cores.
async function metric(name) {
  const text = await new Promise((resolve, reject) => {
    http.get(`http://${admin}/metrics`, { agent: false }, (response) => {
      let body = "";
      response.on("data", (data) => (body += data));
      response.on("end", () => resolve(body));
    }).on("error", reject);
  });
  return text
    .split("\n")
    .filter((line) => line.startsWith(name + "{") || line.startsWith(name + " "))
    .reduce((sum, line) => sum + Number(line.split(" ").pop()), 0);
}

// Waits until `holds()` is true; the watchdog is the limit.
async function until(holds) {
  while (!(await holds())) await new Promise((resolve) => setTimeout(resolve, 10));
}

// The answer to an HTTP request: its status, headers, and body, parsed where it is JSON.
async function request(address, method, target, { headers = {}, body } = {}) {
  const [host, port] = address.split(":");
  return new Promise((resolve, reject) => {
    const options = { host, port, method, path: target, headers, agent: false };
    const sent = http.request(options, (response) => {
      let text = "";
      response.on("data", (data) => (text += data));
      response.on("end", () => {
        const isJson = (response.headers["content-type"] ?? "").startsWith("application/json");
        const { statusCode: status, headers } = response;
        resolve({ status, headers, body: isJson ? JSON.parse(text) : text });
      });
    });
    sent.on("error", reject);
    sent.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

// A token with these claims, by the demo key of `examples/keys` or another one. It ends in an hour unless they say when.
function token(claims, secret) {
  const demo = path.join(__dirname, "../../examples/keys/demo-hs256.secret");
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const exp = Math.floor(Date.now() / 1000) + 3600;
  const signed = `${part({ alg: "HS256", typ: "JWT" })}.${part({ exp, ...claims })}`;
  const key = secret ?? fs.readFileSync(demo, "utf8").replace(/\n$/, "");
  return `${signed}.${crypto.createHmac("sha256", key).update(signed).digest("base64url")}`;
}

// Numbers from a seed (mulberry32): `random(n)` is one of 0 to n - 1.
function randomFrom(seed) {
  let state = seed;
  return (n) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % n;
  };
}

// The seed that is asked for by the variable SEED, or a new one; printed in any case, so that a failure can be repeated.
function seed() {
  const chosen = Number(process.env.SEED ?? crypto.randomInt(2 ** 31));
  console.log(`SEED=${chosen}`);
  return chosen;
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

module.exports = {
  listen, ingest, admin, args, isReference, limit, run, assert, Publisher, once, metric, until, sleep, request,
  token, randomFrom, seed,
};
