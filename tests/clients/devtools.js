// A headless Chromium that does what a test says: opens pages, tells what they log, looks and types like a person.
"use strict";
const fs = require("fs");
const WebSocket = require("ws");
const { Chromium: Program } = require("./chromium");
const { assert, until } = require("./lib");

class Chromium extends Program {
  // Starts it; `page()` opens a page in it.
  static async start() {
    console.log(Program.version());
    const browser = new Chromium();
    const ended = () => {}; // `connect` looks, and whoever asks it something later waits in vain.
    browser.start("about:blank", ended, ["--hide-scrollbars", "--remote-debugging-port=0"]);
    await browser.connect();
    return browser;
  }
  constructor() {
    super();
    this.lastId = 0;
    this.waiting = new Map();
    this.pages = new Map();
  }
  async connect() {
    // It says on standard error where it listens, with a secret in the path.
    let found = null;
    await until(() => {
      assert.strictEqual(this.process.exitCode, null, `Chromium has ended:\n${this.log}`);
      return (found = /DevTools listening on (ws:\S+)/.exec(this.log)) !== null;
    });
    this.socket = new WebSocket(found[1]);
    await new Promise((resolve, reject) => this.socket.on("open", resolve).on("error", reject));
    this.socket.on("message", (data) => this.hear(JSON.parse(data)));
  }
  hear({ id, result, error, method, params, sessionId }) {
    if (id === undefined) return this.pages.get(sessionId)?.hear(method, params);
    const { resolve, reject, what } = this.waiting.get(id);
    this.waiting.delete(id);
    if (error) reject(new Error(`${what}: ${error.message}`));
    else resolve(result);
  }
  ask(method, params = {}, sessionId = undefined) {
    const id = ++this.lastId;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject, what: method });
      this.socket.send(JSON.stringify({ id, method, params, sessionId }));
    });
  }
  // Opens a page and waits until it has loaded.
  async page(url, { width = 1280, height = 900, isDark = false, isPhone = false } = {}) {
    const { targetId } = await this.ask("Target.createTarget", { url: "about:blank" });
    const { sessionId } = await this.ask("Target.attachToTarget", { targetId, flatten: true });
    const page = new Page(this, sessionId, targetId);
    this.pages.set(sessionId, page);
    for (const domain of ["Page", "Runtime", "Log", "Network"]) await page.ask(`${domain}.enable`);
    const scale = isPhone ? 2 : 1;
    await page.ask("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: scale, mobile: isPhone });
    const scheme = { name: "prefers-color-scheme", value: isDark ? "dark" : "light" };
    await page.ask("Emulation.setEmulatedMedia", { features: [scheme] });
    const loaded = page.once("Page.loadEventFired");
    await page.ask("Page.navigate", { url });
    await loaded;
    return page;
  }
}

class Page {
  constructor(browser, sessionId, targetId) {
    Object.assign(this, { browser, sessionId, targetId });
    // What a developer would see in red or yellow, and where the page has asked for something.
    this.complaints = [];
    this.requests = [];
    this.listeners = [];
  }
  ask(method, params) {
    return this.browser.ask(method, params, this.sessionId);
  }
  hear(method, params) {
    if (method === "Runtime.exceptionThrown") {
      const { text, exception } = params.exceptionDetails;
      this.complaints.push(`${text} ${exception?.description ?? ""}`);
    }
    if (method === "Runtime.consoleAPICalled" && ["error", "warning", "assert"].includes(params.type)) {
      this.complaints.push(params.args.map(({ value, description }) => value ?? description).join(" "));
    }
    if (method === "Log.entryAdded" && ["error", "warning"].includes(params.entry.level)) {
      this.complaints.push(`${params.entry.text} ${params.entry.url ?? ""}`);
    }
    if (method === "Network.requestWillBeSent") this.requests.push(params.request.url);
    if (method === "Network.webSocketCreated") this.requests.push(params.url);
    this.listeners = this.listeners.filter((listener) => !listener(method, params));
  }
  once(wanted) {
    return new Promise((resolve) => {
      this.listeners.push((method, params) => method === wanted && (resolve(params), true));
    });
  }
  // The value of an expression in the page.
  async value(expression) {
    const asked = { expression, awaitPromise: true, returnByValue: true };
    const { result, exceptionDetails } = await this.ask("Runtime.evaluate", asked);
    assert.ok(!exceptionDetails, `${expression}: ${exceptionDetails?.exception?.description}`);
    return result.value;
  }
  // Waits until an expression is true.
  async until(expression) {
    await until(async () => {
      if (await this.value(expression)) return true;
      await new Promise((resolve) => setTimeout(resolve, 40));
      return false;
    });
  }
  // Presses a key of that name.
  async press(key) {
    const text = { Enter: "\r", " ": " " }[key];
    const code = { Enter: 13, " ": 32, Tab: 9, ArrowLeft: 37, ArrowUp: 38, ArrowRight: 39, ArrowDown: 40 }[key];
    const event = { key, code: key === " " ? "Space" : key, windowsVirtualKeyCode: code, text };
    await this.ask("Input.dispatchKeyEvent", { type: text ? "keyDown" : "rawKeyDown", ...event });
    await this.ask("Input.dispatchKeyEvent", { type: "keyUp", ...event });
  }
  // Writes a picture of the whole page, or of what a window shows.
  async picture(file, { isWhole = true } = {}) {
    const { data } = await this.ask("Page.captureScreenshot", { format: "png", captureBeyondViewport: isWhole });
    fs.writeFileSync(file, Buffer.from(data, "base64"));
  }
  async close() {
    await this.browser.ask("Target.closeTarget", { targetId: this.targetId });
  }
}

module.exports = { Chromium };
