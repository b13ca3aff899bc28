// An app that joins its room on each connect, as the documentation of socket.io-client says, and outlives the server.
"use strict";
const { io } = require("socket.io-client");
const { listen, run, assert, until } = require("./lib");

run(async () => {
  const socket = io(`http://${listen}`, {
    transports: ["websocket"],
    reconnectionDelay: 20,
    reconnectionDelayMax: 200,
  });
  const ids = new Set();
  socket.on("connect", async () => {
    ids.add(socket.id);
    await socket.emitWithAck("join_room", { room_type: "flat", room_id: "A-101", user_id: "u1" });
    console.log(`joined ${ids.size}`);
  });
  socket.on("disconnect", (reason) => console.log(`disconnect ${reason}`));
  const got = [];
  socket.on("visitor_request", ({ request_id }) => {
    got.push(request_id);
    console.log(`got ${request_id}`);
  });
  await until(() => got.includes(3));
  assert.deepStrictEqual(got, [1, 2, 3]);
  assert.strictEqual(ids.size, 3);
});
