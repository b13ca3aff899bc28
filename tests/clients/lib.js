// What the test clients share: an end in any case, expectations with a message, publishing.
"use strict";
const net = require("net");
const http = require("http");
const assert = require("assert");

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

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

module.exports = {
  listen, ingest, admin, args, isReference, limit, run, assert, Publisher, once, metric, until, sleep,
};
