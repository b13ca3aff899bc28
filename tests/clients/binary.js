// Binary arguments from a publisher.
"use strict";
const { io } = require("socket.io-client");
const { listen, run, assert, Publisher, once } = require("./lib");

run(async () => {
  const socket = io(`http://${listen}`, { transports: ["websocket"] });
  await once(socket, "connect");
  await socket.emitWithAck("subscribe", { room: "a" });
  const publisher = new Publisher();
  const bytes = Buffer.from([0, 1, 2, 255]);
  const _base64 = bytes.toString("base64");

  const picture = once(socket, "picture");
  const args = [{ at: [{ _base64 }, 7] }, { _base64: "" }];
  await publisher.ask({ room: "a", event: "picture", args, binary: true });
  const got = await picture;
  assert.ok(Buffer.isBuffer(got[0].at[0]), "an attachment is a Buffer");
  assert.deepStrictEqual(got, [{ at: [bytes, 7] }, Buffer.alloc(0)]);

  // Not asked for: it stays what it is.
  const plain = once(socket, "plain");
  await publisher.ask({ room: "a", event: "plain", data: { _base64 } });
  assert.deepStrictEqual(await plain, [{ _base64 }]);
});
