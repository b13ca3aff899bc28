// HTTP and WebSocket as the tests want to say it: bytes as they are, one answer at a time. Knows nothing of Engine.IO.
"use strict";
const net = require("net");
const WebSocket = require("ws");
const { listen, assert } = require("./lib");

const [host, port] = listen.split(":");

// Everything that a case has opened, so that nothing of it disturbs the next one.
const opened = new Set();

function closeAll() {
  for (const connection of opened) connection.destroy();
  opened.clear();
}

// Values that come one by one and are asked for one by one.
class Queue {
  constructor() {
    this.values = [];
    this.takers = [];
  }
  put(value) {
    if (this.takers.length > 0) this.takers.shift()(value);
    else this.values.push(value);
  }
  take() {
    if (this.values.length > 0) return Promise.resolve(this.values.shift());
    return new Promise((resolve) => this.takers.push(resolve));
  }
}

// A TCP connection on which HTTP is spoken.
class Http {
  static async open() {
    const connection = new Http();
    await new Promise((resolve, reject) => {
      connection.socket = net.connect({ port, host, noDelay: true }, resolve);
      connection.socket.on("error", reject);
    });
    opened.add(connection);
    connection.received = Buffer.alloc(0);
    connection.over = false;
    connection.wake = () => {};
    connection.socket.on("data", (data) => {
      connection.received = Buffer.concat([connection.received, data]);
      connection.wake();
    });
    for (const event of ["end", "close", "error"]) {
      connection.socket.on(event, () => {
        connection.over = true;
        connection.wake();
      });
    }
    return connection;
  }

  write(bytes) {
    this.socket.write(bytes);
    return this;
  }

  // Writes these bytes so that the server can see each piece alone.
  async writeInPieces(pieces) {
    for (const piece of pieces) {
      await new Promise((resolve) => this.socket.write(piece, resolve));
      await new Promise(setImmediate);
    }
    return this;
  }

  destroy() {
    this.socket.destroy();
  }

  async more() {
    if (this.over) throw new Error(`the connection has ended after: ${JSON.stringify(this.received.toString())}`);
    await new Promise((resolve) => (this.wake = resolve));
  }

  // Waits until `bytes` more have come, and takes them.
  async bytes(count) {
    while (this.received.length < count) await this.more();
    const taken = this.received.subarray(0, count);
    this.received = this.received.subarray(count);
    return taken;
  }

  // Everything up to and without `end`.
  async upTo(end) {
    let at;
    while ((at = this.received.indexOf(end)) < 0) await this.more();
    return (await this.bytes(at + end.length)).subarray(0, at);
  }

  // The next answer. `bodiless` if it answers HEAD.
  async response(bodiless = false) {
    const head = (await this.upTo("\r\n\r\n")).toString("latin1");
    const [first, ...lines] = head.split("\r\n");
    const [version, status] = first.split(" ");
    const headers = {};
    for (const line of lines) {
      const [, name, value] = /^([^:\s]+):\s*(.*)$/.exec(line);
      const key = name.toLowerCase();
      headers[key] = key in headers ? `${headers[key]}, ${value}` : value;
    }
    const answer = { version, status: Number(status), headers, body: "" };
    if (bodiless || answer.status < 200 || answer.status === 204) return answer;
    if (headers["transfer-encoding"] === "chunked") {
      const chunks = [];
      for (;;) {
        const length = parseInt((await this.upTo("\r\n")).toString(), 16);
        chunks.push(await this.bytes(length));
        await this.upTo("\r\n");
        if (length === 0) break;
      }
      answer.body = Buffer.concat(chunks).toString();
    } else if ("content-length" in headers) {
      answer.body = (await this.bytes(Number(headers["content-length"]))).toString();
    }
    return answer;
  }

  // The server ends the connection, be it by a reset, without a further byte.
  async ended() {
    while (!this.over) await this.more();
    assert.strictEqual(this.received.toString(), "", "nothing comes before the end");
  }
}

// The bytes of a request. With a `body` comes its length, unless `headers` say how it is told.
function request(method, path, { body, headers = {}, version = "1.1" } = {}) {
  const lines = { Host: listen, ...headers };
  const own = Object.keys(lines).some((name) => /^(content-length|transfer-encoding)$/i.test(name));
  if (body !== undefined && !own) lines["Content-Length"] = Buffer.byteLength(body);
  const told = Object.entries(lines).filter(([, value]) => value !== null);
  const head = told.map(([name, value]) => `${name}: ${value}\r\n`);
  return `${method} ${path} HTTP/${version}\r\n${head.join("")}\r\n${body ?? ""}`;
}

// A body in chunks, as Transfer-Encoding: chunked wants it.
function chunked(...chunks) {
  return chunks.map((chunk) => `${Buffer.byteLength(chunk).toString(16)}\r\n${chunk}\r\n`).join("") + "0\r\n\r\n";
}

// A request on a connection of its own, and the answer.
async function ask(method, path, options) {
  const connection = await Http.open();
  const answer = await connection.write(request(method, path, options)).response(method === "HEAD");
  connection.destroy();
  opened.delete(connection);
  return answer;
}

const get = (path, options) => ask("GET", path, options);
const post = (path, body, options) => ask("POST", path, { ...options, body });

// The request of a WebSocket handshake, with the example's key of RFC 6455.
function handshake(path, headers = {}) {
  return request("GET", path, {
    headers: {
      Connection: "Upgrade",
      Upgrade: "websocket",
      "Sec-WebSocket-Version": 13,
      "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
      ...headers,
    },
  });
}

// A client's whole message as one frame.
function frame(message, opcode = typeof message === "string" ? 1 : 2, last = true) {
  const payload = Buffer.from(message);
  const mask = Buffer.from([0x37, 0xfa, 0x21, 0x3d]);
  const length = payload.length;
  const head = [(last ? 0x80 : 0) | opcode];
  if (length < 126) head.push(0x80 | length);
  else if (length < 65536) head.push(0x80 | 126, length >> 8, length & 255);
  else head.push(0x80 | 127, 0, 0, 0, 0, length >>> 24, (length >> 16) & 255, (length >> 8) & 255, length & 255);
  return Buffer.concat([Buffer.from(head), mask, payload.map((byte, at) => byte ^ mask[at % 4])]);
}

// The next frame of the server: its first byte and its payload.
async function readFrame(connection) {
  const [first, second] = await connection.bytes(2);
  let length = second;
  if (second === 126) length = (await connection.bytes(2)).readUInt16BE();
  if (second === 127) length = Number((await connection.bytes(8)).readBigUInt64BE());
  const payload = await connection.bytes(length);
  return { first, payload: first === 0x81 ? payload.toString() : payload };
}

// A WebSocket by the package `ws`. Messages are strings or Buffers.
class Ws {
  constructor(path) {
    opened.add(this);
    this.socket = new WebSocket(`ws://${listen}${path}`, { perMessageDeflate: false });
    this.messages = new Queue();
    this.isOpen = new Promise((resolve) => this.socket.on("open", resolve));
    this.socket.on("message", (data, isBinary) => this.messages.put(isBinary ? data : data.toString()));
    this.socket.on("error", (error) => (this.error = error));
    this.end = new Promise((resolve) => {
      this.socket.on("close", (code, reason) => {
        resolve({ code, reason: reason.toString(), error: this.error });
        this.messages.put(null);
      });
    });
  }
  static async open(path) {
    const ws = new Ws(path);
    const end = await Promise.race([ws.isOpen, ws.end]);
    if (end) throw new Error(`the WebSocket did not open: ${end.error}`);
    return ws;
  }
  send(...messages) {
    for (const message of messages) this.socket.send(message);
    return this;
  }
  // The next message.
  async next() {
    const message = await this.messages.take();
    if (message === null) throw new Error(`the WebSocket has closed with ${JSON.stringify(await this.end)}`);
    return message;
  }
  // The next messages, in their order.
  async expect(...messages) {
    for (const message of messages) assert.deepStrictEqual(await this.next(), message);
    return this;
  }
  // It closes without a further message. Resolves with code, reason and, if it never opened, error.
  async closed() {
    const end = await this.end;
    assert.deepStrictEqual(this.messages.values.filter((message) => message !== null), [], "messages before the close");
    return end;
  }
  destroy() {
    this.socket.terminate();
  }
}

module.exports = { Http, Ws, Queue, request, chunked, ask, get, post, handshake, frame, readFrame, opened, closeAll };
