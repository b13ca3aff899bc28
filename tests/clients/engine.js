// Engine.IO sessions as the tests want to drive them: one request at a time, nothing done behind their back.
"use strict";
const { assert } = require("./lib");
const { Ws, get, post } = require("./wire");

const SEPARATOR = "\x1e";

// The path of a request to `endpoint`; `sid` of the session if there is one.
function path(endpoint, transport, sid) {
  return `${endpoint}?EIO=4&transport=${transport}` + (sid === undefined ? "" : `&sid=${sid}`);
}

// A session over HTTP long-polling.
class Polling {
  static async open(endpoint = "/engine.io/") {
    const session = new Polling();
    const answer = await get(path(endpoint, "polling"));
    assert.strictEqual(answer.status, 200, answer.body);
    assert.strictEqual(answer.body[0], "0");
    session.terms = JSON.parse(answer.body.slice(1));
    session.endpoint = endpoint;
    session.path = path(endpoint, "polling", session.terms.sid);
    session.websocketPath = path(endpoint, "websocket", session.terms.sid);
    return session;
  }
  poll(options) {
    return get(this.path, options);
  }
  // The packets of one poll, which must succeed.
  async packets() {
    const answer = await this.poll();
    assert.strictEqual(answer.status, 200, answer.body);
    return answer.body.split(SEPARATOR);
  }
  // Polls until it has as many packets as are expected, which may come with one answer or with several.
  async expect(...packets) {
    const got = [];
    while (got.length < packets.length) got.push(...(await this.packets()));
    assert.deepStrictEqual(got, packets);
  }
  // Sends packets, which must be taken.
  async post(...packets) {
    const answer = await post(this.path, packets.join(SEPARATOR));
    assert.deepStrictEqual([answer.status, answer.body], [200, "ok"]);
    return answer;
  }
  // The session lives: it echoes.
  async lives() {
    await this.post("4alive?");
    await this.expect("4alive?");
  }
  // The session is gone.
  async isGone() {
    const answer = await this.poll();
    assert.deepStrictEqual([answer.status, JSON.parse(answer.body).code], [400, 1], "the session is gone");
  }
  // A WebSocket for this session on which nothing has been said.
  websocket() {
    return Ws.open(this.websocketPath);
  }
  // A WebSocket that the session has been asked about.
  async probed() {
    const ws = await this.websocket();
    return ws.send("2probe").expect("3probe");
  }
  // The session's new WebSocket.
  async upgraded() {
    const ws = await this.probed();
    ws.send("5", "4upgraded?");
    return ws.expect("4upgraded?");
  }
}

// A session over a WebSocket from its beginning. `terms` is what the server told.
async function openWebSocket(endpoint = "/engine.io/") {
  const ws = await Ws.open(path(endpoint, "websocket"));
  const first = await ws.next();
  assert.strictEqual(first[0], "0");
  ws.terms = JSON.parse(first.slice(1));
  return ws;
}

module.exports = { SEPARATOR, path, Polling, openWebSocket };
