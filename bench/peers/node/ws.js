// Rooms on Node's `ws` package with coalesced writes: an event's frame is made once, the frames that a room gets for one
// read of a publisher are joined once, and each member's socket is written to once. See ../README.md.
"use strict";

const http = require("node:http");
const net = require("node:net");
const { WebSocketServer, Sender } = require("ws");
const { addresses, lines, refuse } = require("../common.js");

const { listen, ingest } = addresses();
const BACKLOG = 4096; // The storm has 500 connections on their way at a time.
const TEXT = 1;

// By name: the TCP sockets of a room's members.
const rooms = new Map();

function frame(text) {
  const payload = Buffer.from(text);
  const options = { fin: true, rsv1: false, opcode: TEXT, mask: false, readOnly: true };
  return Sender.frame(payload, options);
}

function join(name, socket) {
  let members = rooms.get(name);
  if (!members) rooms.set(name, (members = new Set()));
  members.add(socket);
  return members;
}

const web = http.createServer();
const clients = new WebSocketServer({
  server: web,
  path: "/ws",
  perMessageDeflate: false,
  clientTracking: false,
});
clients.on("connection", (client, request) => {
  const socket = request.socket;
  const joined = [];
  client.on("message", (message) => {
    let said;
    try {
      said = JSON.parse(message);
    } catch {
      return;
    }
    if (said?.type !== "subscribe" || typeof said.room !== "string") return;
    joined.push(join(said.room, socket));
    client.send(JSON.stringify({ type: "subscribed", room: said.room }));
  });
  client.on("close", () => joined.forEach((members) => members.delete(socket)));
  client.on("error", () => {}); // It closes by itself.
});

const publishers = net.createServer({ noDelay: true }, (publisher) => {
  const events = lines();
  publisher.setEncoding("utf8");
  publisher.on("data", (text) => {
    // By the room's members: the frames of this read.
    const batch = new Map();
    for (const { room, event, data } of events(text)) {
      const members = rooms.get(room);
      if (!members) continue;
      let frames = batch.get(members);
      if (!frames) batch.set(members, (frames = []));
      frames.push(...frame(JSON.stringify({ type: event, data })));
    }
    for (const [members, frames] of batch) {
      const bytes = Buffer.concat(frames);
      for (const socket of members) socket.write(bytes);
    }
  });
  publisher.on("error", (error) => console.error(`a publisher: ${error.message}`));
});

web.on("error", refuse);
publishers.on("error", refuse);
publishers.listen({ ...ingest, backlog: BACKLOG }, () => {
  web.listen({ ...listen, backlog: BACKLOG }, () => console.log("ready"));
});
