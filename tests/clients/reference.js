// Node's own Engine.IO and Socket.IO servers with the behaviour of examples/conformance.toml: the oracle of the
// conformance tests. Arguments: its ping timeout, and the origins that pages may come from; none means all.
"use strict";
const http = require("http");
const engine = require("engine.io");
const { Server } = require("socket.io");

const [pingTimeout, ...origins] = process.argv.slice(2);
const options = {
  pingInterval: 300,
  pingTimeout: Number(pingTimeout),
  connectTimeout: 1000,
  maxHttpBufferSize: 1_000_000,
  cors: { origin: origins.length > 0 ? origins : true, credentials: true },
  serveClient: false,
};

const server = http.createServer((request, response) => response.writeHead(404).end());

const echo = new engine.Server(options);
echo.attach(server, { path: "/engine.io/", destroyUpgrade: false });
echo.on("connection", (socket) => socket.on("data", (data) => socket.send(data)));

const io = new Server(server, { ...options, destroyUpgrade: false });
for (const namespace of ["/", "/custom"]) {
  io.of(namespace).on("connection", (socket) => {
    socket.emit("auth", socket.handshake.auth);
    socket.on("message", (...args) => socket.emit("message-back", ...args));
    socket.on("message-with-ack", (...args) => args.pop()(...args));
  });
}

server.listen(0, "127.0.0.1", () => console.log(`listening 127.0.0.1:${server.address().port}`));
// Whoever forgets to end it.
setTimeout(() => process.exit(1), 600_000);
