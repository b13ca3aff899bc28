// Bun's WebSocket server with its own rooms: `subscribe` and `publish` are those of uWebSockets, which Bun is built on. See
// ../README.md.
"use strict";

const { addresses, lines, refuse } = require("../common.js");

const { listen, ingest } = addresses();
// Nothing is dropped however far a client is behind: 0 is no limit.
const UNLIMITED = 0;

try {
  const server = Bun.serve({
    hostname: listen.host,
    port: listen.port,
    fetch(request, server) {
      if (server.upgrade(request)) return undefined;
      return new Response("This is a WebSocket server.\n", { status: 400 });
    },
    websocket: {
      perMessageDeflate: false,
      idleTimeout: 0,
      sendPings: false,
      backpressureLimit: UNLIMITED,
      closeOnBackpressureLimit: false,
      message(client, message) {
        let said;
        try {
          said = JSON.parse(message);
        } catch {
          return;
        }
        if (said?.type !== "subscribe" || typeof said.room !== "string") return;
        client.subscribe(said.room);
        client.send(JSON.stringify({ type: "subscribed", room: said.room }));
      },
    },
  });

  Bun.listen({
    hostname: ingest.host,
    port: ingest.port,
    socket: {
      open(publisher) {
        publisher.data = { events: lines(), decoder: new TextDecoder() };
      },
      data(publisher, bytes) {
        const { events, decoder } = publisher.data;
        for (const { room, event, data } of events(decoder.decode(bytes, { stream: true }))) {
          server.publish(room, JSON.stringify({ type: event, data }));
        }
      },
      error(_publisher, error) {
        console.error(`a publisher: ${error.message}`);
      },
    },
  });
  console.log("ready");
} catch (error) {
  refuse(error);
}
