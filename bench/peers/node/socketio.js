// Socket.IO on Node, tuned as its documentation says (see ../README.md).
"use strict";

const http = require("node:http");
const net = require("node:net");
const { Server } = require("socket.io");
const { addresses, lines, refuse } = require("../common.js");

const { listen, ingest } = addresses();
const BACKLOG = 4096; // The storm has 500 connections on their way at a time.

const web = http.createServer();
const io = new Server(web, {
  transports: ["websocket"],
  serveClient: false,
  perMessageDeflate: false,
  httpCompression: false,
  pingInterval: 600_000,
  pingTimeout: 600_000,
  connectTimeout: 600_000,
});

// "Discard the initial HTTP request": it is referenced as long as the session lasts, and nobody reads it.
io.engine.on("connection", (session) => {
  session.request = null;
});

io.on("connection", (socket) => {
  socket.on("subscribe", (data) => {
    if (typeof data?.room !== "string") return;
    socket.join(data.room);
    socket.emit("subscribed", { room: data.room });
  });
});

const publishers = net.createServer({ noDelay: true }, (publisher) => {
  const events = lines();
  publisher.setEncoding("utf8");
  publisher.on("data", (text) => {
    for (const { room, event, data } of events(text)) io.to(room).emit(event, data);
  });
  publisher.on("error", (error) => console.error(`a publisher: ${error.message}`));
});

web.on("error", refuse);
publishers.on("error", refuse);
publishers.listen({ ...ingest, backlog: BACKLOG }, () => {
  web.listen({ ...listen, backlog: BACKLOG }, () => console.log("ready"));
});
