// Stock clients, by polling and by WebSocket, whose server stops in good order and comes back.
"use strict";
const { io } = require("socket.io-client");
const { listen, run, until } = require("./lib");

run(async () => {
  const reasons = {};
  const sockets = ["polling", "websocket"].map((transport) => {
    const socket = io(`http://${listen}`, {
      transports: [transport],
      forceNew: true,
      reconnectionDelay: 20,
      reconnectionDelayMax: 200,
    });
    socket.on("disconnect", (reason) => (reasons[transport] ??= reason));
    return socket;
  });
  const all = () => sockets.every((socket) => socket.connected);
  await until(all);
  console.log("all are connected");
  await until(() => Object.keys(reasons).length === sockets.length);
  console.log(`polling: ${reasons.polling}, websocket: ${reasons.websocket}`);
  await until(all);
  console.log("all are connected again");
  // Whoever comes back is let go in good order.
  for (const socket of sockets) socket.disconnect();
});
