// A real Chromium: it shows a page, or is driven from here by the DevTools protocol.
"use strict";
const assert = require("assert");
const fs = require("fs");
const os = require("os");
const path = require("path");
const { spawn, spawnSync } = require("child_process");
const { WebSocket } = require("ws");
const { until } = require("./lib");

const CHROMIUM = process.env.CHROMIUM ?? "chromium";
const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--disable-dev-shm-usage",
  "--no-first-run",
  "--no-proxy-server",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

// The browser with its many processes, which are a group of their own.
class Chromium {
  // What it calls itself.
  static version() {
    const version = spawnSync(CHROMIUM, ["--version"]);
    assert.ok(!version.error, `${CHROMIUM} is missing: tests/run installs it (${version.error})`);
    return version.stdout.toString().trim();
  }
  constructor() {
    this.profile = fs.mkdtempSync(path.join(os.tmpdir(), "roomcast-chromium-"));
    this.log = "";
    process.on("exit", () => this.signal("SIGKILL"));
  }
  start(url, ended, more = []) {
    const flags = [...FLAGS, ...more, `--user-data-dir=${this.profile}`];
    this.process = spawn(CHROMIUM, [...flags, url], { detached: true, stdio: ["ignore", "pipe", "pipe"] });
    const { stdout, stderr } = this.process;
    for (const stream of [stdout, stderr]) stream.on("data", (data) => (this.log += data));
    this.process.on("exit", (code) => ended(new Error(`Chromium ended with ${code}:\n${this.log}`)));
  }
  // Whether there was still a process to hear it.
  signal(signal) {
    try {
      return this.process !== undefined && process.kill(-this.process.pid, signal);
    } catch {
      return false;
    }
  }
  async end() {
    this.signal("SIGTERM");
    await until(() => !this.signal(0));
    fs.rmSync(this.profile, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
  }
}

// A tab that is driven from here. `problems` is what the page has to complain about: errors, warnings, refusals.
class Tab {
  static async open(chromium) {
    let failed;
    chromium.start("about:blank", (error) => (failed = error), ["--remote-debugging-port=0"]);
    const address = () => /DevTools listening on (ws:\S+)/.exec(chromium.log)?.[1];
    await until(() => failed || address());
    if (failed) throw failed;
    const tab = new Tab(new WebSocket(address(), { perMessageDeflate: false }));
    await new Promise((resolve, reject) => tab.socket.once("open", resolve).once("error", reject));
    const { targetId } = await tab.send("Target.createTarget", { url: "about:blank" });
    ({ sessionId: tab.session } = await tab.send("Target.attachToTarget", { targetId, flatten: true }));
    for (const domain of ["Page", "Runtime", "Log"]) await tab.send(`${domain}.enable`);
    return tab;
  }
  constructor(socket) {
    this.socket = socket;
    this.waiting = new Map();
    this.lastId = 0;
    this.problems = [];
    socket.on("message", (data) => this.heard(JSON.parse(data)));
  }
  heard({ id, result, error, method, params }) {
    if (id !== undefined) {
      const { resolve, reject } = this.waiting.get(id);
      this.waiting.delete(id);
      return error ? reject(new Error(error.message)) : resolve(result);
    }
    if (method === "Runtime.exceptionThrown") this.problems.push(params.exceptionDetails.exception?.description);
    if (method === "Runtime.consoleAPICalled") this.problems.push(params.args.map(({ value }) => value).join(" "));
    if (method === "Log.entryAdded") this.problems.push(`${params.entry.text} ${params.entry.url ?? ""}`);
  }
  send(method, params = {}) {
    const id = ++this.lastId;
    this.socket.send(JSON.stringify({ id, method, params, sessionId: this.session }));
    return new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
  }
  // What `task`, which knows nothing of here but its arguments, comes to in the page.
  async do(task, ...args) {
    const expression = `(${task})(...${JSON.stringify(args)})`;
    const options = { expression, awaitPromise: true, returnByValue: true };
    const { result, exceptionDetails } = await this.send("Runtime.evaluate", options);
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  }
  async go(url) {
    await this.send("Page.navigate", { url });
    await until(() => this.do((wanted) => document.readyState === "complete" && location.href === wanted, url));
  }
  // A key as a person presses it.
  async press(key, { shift = false } = {}) {
    const text = { Enter: "\r", " ": " " }[key];
    const code = { Tab: 9, Enter: 13, " ": 32, Escape: 27 }[key];
    const event = { key, code: key === " " ? "Space" : key, windowsVirtualKeyCode: code, modifiers: shift ? 8 : 0 };
    await this.send("Input.dispatchKeyEvent", { type: "keyDown", text, ...event });
    await this.send("Input.dispatchKeyEvent", { type: "keyUp", ...event });
  }
  // Text as a person types it, in place of what stands in the field with the focus.
  async type(text) {
    await this.do(() => document.activeElement.select());
    await this.send("Input.insertText", { text });
  }
  async look({ width = 1280, height = 900, scheme = "light", phone = false } = {}) {
    const size = { width, height, deviceScaleFactor: 1, mobile: phone };
    await this.send("Emulation.setDeviceMetricsOverride", size);
    await this.send("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: scheme }] });
  }
  // The whole page as it looks now, into a PNG.
  async picture(file) {
    const { cssContentSize: size } = await this.send("Page.getLayoutMetrics");
    const clip = { x: 0, y: 0, width: size.width, height: size.height, scale: 1 };
    const { data } = await this.send("Page.captureScreenshot", { captureBeyondViewport: true, clip });
    fs.writeFileSync(file, Buffer.from(data, "base64"));
  }
}

module.exports = { Chromium, Tab };
