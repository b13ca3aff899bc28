// The Socket.IO protocol, version 5, as a table of what is said and what is answered, over WebSocket and over HTTP
// long-polling. Each row holds for Node's socket.io; where its answer is an accident, the row says so.
"use strict";
const { run, assert, sleep } = require("./lib");
const { Http, Queue, handshake, frame, readFrame, post } = require("./wire");
const { SEPARATOR, Polling, openWebSocket, path } = require("./engine");
const { cases, each, beyond } = require("./suite");

const ENDPOINT = "/socket.io/";
const CONNECT_TIMEOUT_MS = 1000;

// ---- one client, whatever carries it: `send` packets, `next` packet, `closed`; pings are answered by the way ----

class OverWebSocket {
  static async open() {
    const client = new OverWebSocket();
    client.ws = await openWebSocket(ENDPOINT);
    client.terms = client.ws.terms;
    return client;
  }
  // Each packet is a message. They leave in one go.
  async send(...packets) {
    this.ws.send(...packets);
  }
  async next() {
    for (;;) {
      const packet = await this.ws.next();
      if (packet !== "2") return packet;
      this.ws.send("3");
    }
  }
  async closed() {
    const end = this.next().then((packet) => assert.fail(`got ${packet}`), () => "closed");
    assert.strictEqual(await end, "closed");
    const { code } = await this.ws.end;
    assert.notStrictEqual(code, 1006, "it closes in good order");
  }
}

class OverPolling {
  static async open() {
    const client = new OverPolling();
    client.session = await Polling.open(ENDPOINT);
    client.terms = client.session.terms;
    client.packets = new Queue();
    client.poll();
    return client;
  }
  async poll() {
    for (;;) {
      const answer = await this.session.poll().catch((error) => ({ status: error.message }));
      if (answer.status !== 200) return this.packets.put({ refused: answer });
      for (const packet of answer.body.split(SEPARATOR)) {
        if (packet === "2") await this.session.post("3");
        else if (packet[0] === "b") this.packets.put(Buffer.from(packet.slice(1), "base64"));
        // A close packet comes before the refusal, and a noop is nothing.
        else if (packet !== "1" && packet !== "6") this.packets.put(packet);
      }
    }
  }
  // All packets are one payload. Whether the request of a bad one is answered is an accident.
  async send(...packets) {
    const encode = (packet) => (typeof packet === "string" ? packet : `b${packet.toString("base64")}`);
    await post(this.session.path, packets.map(encode).join(SEPARATOR)).catch(() => {});
  }
  async next() {
    const packet = await this.packets.take();
    assert.strictEqual(packet.refused, undefined, `the session has ended: ${JSON.stringify(packet.refused)}`);
    return packet;
  }
  async closed() {
    const { refused } = await this.packets.take();
    assert.strictEqual(refused?.status, 400, JSON.stringify(refused));
    assert.strictEqual(JSON.parse(refused.body).code, 1);
  }
}

async function expect(client, ...packets) {
  for (const packet of packets) assert.deepStrictEqual(await client.next(), packet);
}

// Connects to a namespace, and takes what is said on that occasion. Resolves with the socket's id.
async function connect(client, namespace = "/", payload = "") {
  const prefix = namespace === "/" ? "" : `${namespace},`;
  await client.send(`40${prefix}${payload}`);
  const answer = await client.next();
  assert.ok(answer.startsWith(`40${prefix}{"sid":"`), answer);
  const { sid, ...rest } = JSON.parse(answer.slice(2 + prefix.length));
  assert.match(sid, /^[A-Za-z0-9_-]{20}$/);
  assert.deepStrictEqual(rest, {});
  await expect(client, `42${prefix}["auth",${payload || "{}"}]`);
  return sid;
}

// What was said before has had its effect. Needed behind a disconnect, which has no answer and which Node carries out a
// moment after it has heard it.
async function isThrough(client) {
  await client.send("40/random,");
  await expect(client, '44/random,{"message":"Invalid namespace"}');
}

// ---- rows, for a transport ----

const placeholder = (num) => `{"_placeholder":true,"num":${num}}`;
const attachments = (count) => Array.from({ length: count }, (_, n) => Buffer.from([n, n + 1, 255]));

// The arguments of an event as they stand in its JSON, which comes back byte by byte.
const ARGUMENTS = [
  ["none", ""],
  ["several", '1,"2",{"3":[true]}'],
  ["keys in their order", '{"b":1,"a":2,"":{"z":[],"y":{}}}'],
  ["simple values", "null,true,false,0,-1,1.5"],
  ["strings", '"","a\\"b\\\\c","\\n\\t","é 漢字 😀","<>&/"'],
  ["deep", "[".repeat(50) + "]".repeat(50)],
  ["long", JSON.stringify("x".repeat(100_000))],
  ["what looks like a packet", '"42[\\"message\\"]","451-[]"'],
];

const NUMBERS = ["0", "1", "42", "4294967295", "4294967296", "9007199254740991"];

// What belongs to no protocol, or not here. `connected` packets go to a socket of "/".
const INVALID = [
  ["an unknown type", "49"],
  ["no type", "4"],
  ["letters", "4abc"],
  ["an event without a name", "42[]"],
  ["an event that is no array", "42{}"],
  ["an event that is a string", '42"message"'],
  ["an event whose name is none", "42[{}]"],
  ["an event whose name is null", "42[null]"],
  ["an unfinished event", '42["message"'],
  ["an event and more", '42["message"]more'],
  ["a reserved name: connect", '42["connect"]'],
  ["a reserved name: connect_error", '42["connect_error"]'],
  ["a reserved name: disconnect", '42["disconnect"]'],
  ["a reserved name: disconnecting", '42["disconnecting"]'],
  ["an acknowledgement that is no array", "431{}"],
  ["a disconnect with data", "41{}"],
  ["an error, which is the server's to say", '44{"message":"no"}'],
  ["connected already", "40"],
  ["an event to a namespace that is not connected", '42/custom,["message"]'],
  ["an event to a namespace that does not exist", '42/random,["message"]'],
  ["an acknowledgement to a namespace that is not connected", "43/custom,1[]"],
  ["a disconnect from a namespace that is not connected", "41/custom,"],
  ["a payload that is no object: array", "40/custom,[]"],
  ["a payload that is no object: string", '40/custom,"x"'],
  ["a payload that is no JSON", "40/custom,{"],
  ["no number of attachments", '45["message"]'],
  ["no number of attachments before the dash", '45-["message"]'],
  ["no dash", '451["message"]'],
  ["more attachments than anybody sends", '45999999999-["message"]'],
  ["a negative number of attachments", '45-1-["message"]'],
  ["half an attachment", '451.5-["message"]'],
  ["text where an attachment is awaited", `451-["message",${placeholder(0)}]`, '42["message"]'],
  ["an attachment that nobody awaits", Buffer.from("x")],
  ["an attachment that is not there", `451-["message",${placeholder(9)}]`, Buffer.from("x")],
];

const rows = (open) => [
  ["connect: the main namespace", async () => {
    const client = await open();
    const sid = await connect(client);
    assert.notStrictEqual(sid, client.terms.sid, "the session's id is a secret of its client");
  }],
  ...each("connect: with a payload", [
    ["small", "/", '{"token":"123"}'],
    ["keys in their order", "/", '{"b":1,"a":{"z":[1,{"y":null}]},"é":"😀"}'],
    ["none in it", "/", "{}"],
    ["custom", "/custom", '{"token":"abc"}'],
    ["custom, none", "/custom", ""],
  ], async (namespace, payload) => {
    await connect(await open(), namespace, payload);
  }),
  ["connect: without the comma", async () => {
    const client = await open();
    await client.send("40/custom");
    assert.ok((await client.next()).startsWith('40/custom,{"sid":"'));
    await expect(client, '42/custom,["auth",{}]');
  }],
  ["connect: several namespaces, with ids of their own", async () => {
    const client = await open();
    const sids = [await connect(client), await connect(client, "/custom")];
    assert.notStrictEqual(...sids);
    await client.send('42["message",1]', '42/custom,["message",2]', '42["message",3]');
    await expect(client, '42["message-back",1]', '42/custom,["message-back",2]', '42["message-back",3]');
  }],
  ...each("connect, refused: no such namespace", [
    ["short", "40/random", "/random"],
    ["with a comma", "40/random,", "/random"],
    ["with a payload", '40/random,{"token":"123"}', "/random"],
    ["with a query", "40/custom?token=1,", "/custom?token=1"],
    ["longer than one that is", "40/custom2,", "/custom2"],
    ["of another case", "40/Custom,", "/Custom"],
  ], async (packet, namespace) => {
    const client = await open();
    await client.send(packet);
    await expect(client, `44${namespace},{"message":"Invalid namespace"}`);
    // Nothing else is lost by that.
    await connect(client);
  }),
  ...each("connect, refused: closes", [
    ["letters", "4abc"],
    ["an event first", '42["message"]'],
    ["array", "40[]"],
    ["string", '40"x"'],
    ["no JSON", "40{"],
  ], async (packet) => {
    const client = await open();
    await client.send(packet);
    await client.closed();
  }),
  ["connect: whoever does not is closed", async () => {
    const client = await open();
    const start = performance.now();
    await client.closed();
    const lived = performance.now() - start;
    // Our clock started after the server's.
    assert.ok(lived > CONNECT_TIMEOUT_MS - 100, `lived ${lived} ms`);
  }, CONNECT_TIMEOUT_MS + 100],
  ["connect: whoever was refused is closed", async () => {
    const client = await open();
    await client.send("40/random");
    await expect(client, '44/random,{"message":"Invalid namespace"}');
    await client.closed();
  }, CONNECT_TIMEOUT_MS + 100],
  ["connect: whoever has stays", async () => {
    const client = await open();
    await connect(client, "/custom");
    const ack = client.next();
    await sleep(CONNECT_TIMEOUT_MS + 300);
    await client.send('42/custom,1["message-with-ack"]');
    assert.strictEqual(await ack, "43/custom,1[]");
  }, CONNECT_TIMEOUT_MS + 400],

  ["disconnect: from the main namespace, and back", async () => {
    const client = await open();
    const before = await connect(client);
    await client.send("41");
    await isThrough(client);
    assert.notStrictEqual(await connect(client), before);
    await client.send('42["message",1]');
    await expect(client, '42["message-back",1]');
  }],
  ...each("disconnect: from one namespace of two", [["with a comma", "41/custom,"], ["without", "41/custom"]],
    async (packet) => {
      const client = await open();
      await connect(client);
      await connect(client, "/custom");
      await client.send(packet, '42["message","message to main namespace"]');
      await expect(client, '42["message-back","message to main namespace"]');
    }),
  ["disconnect: afterwards its events are out of place", async () => {
    const client = await open();
    await connect(client);
    await client.send("41");
    await isThrough(client);
    await client.send('42["message"]');
    await client.closed();
  }],

  ...each("event", ARGUMENTS, async (args) => {
    const client = await open();
    await connect(client);
    const rest = args && `,${args}`;
    await client.send(`42["message"${rest}]`);
    await expect(client, `42["message-back"${rest}]`);
  }),
  ["event: of a custom namespace", async () => {
    const client = await open();
    await connect(client, "/custom");
    await client.send('42/custom,["message",1]');
    await expect(client, '42/custom,["message-back",1]');
  }],
  ["event: a thousand, in order", async () => {
    const client = await open();
    await connect(client);
    const numbers = [...Array(1000).keys()];
    await client.send(...numbers.map((n) => `42["message",${n}]`));
    await expect(client, ...numbers.map((n) => `42["message-back",${n}]`));
  }, 500],
  ...each("event: unknown, ignored", [
    ["event", '42["unknown",1]'],
    ["its name is a number", "42[7,1]"],
    ["with an acknowledgement", '427["unknown",1]'],
    ["binary", `451-["unknown",${placeholder(0)}]`, Buffer.from("x")],
    ["an acknowledgement of nothing", '437["x"]'],
    ["a binary acknowledgement of nothing", `461-7[${placeholder(0)}]`, Buffer.from("x")],
  ].map(([name, ...packets]) => [name, packets]), async (packets) => {
    const client = await open();
    await connect(client);
    await client.send(...packets, '42["message","next"]');
    await expect(client, '42["message-back","next"]');
  }),

  ...each("acknowledgement", ARGUMENTS, async (args) => {
    const client = await open();
    await connect(client);
    await client.send(`42456["message-with-ack"${args && `,${args}`}]`);
    await expect(client, `43456[${args}]`);
  }),
  ...each("acknowledgement: numbers", NUMBERS.map((n) => [n, n]),
    async (n) => {
      const client = await open();
      await connect(client);
      await client.send(`42${n}["message-with-ack","x"]`);
      await expect(client, `43${n}["x"]`);
    }),
  ["acknowledgement: of a custom namespace", async () => {
    const client = await open();
    await connect(client, "/custom");
    await client.send('42/custom,12["message-with-ack",1]');
    await expect(client, "43/custom,12[1]");
  }],
  ["acknowledgement: the same number twice", async () => {
    const client = await open();
    await connect(client);
    await client.send('421["message-with-ack","a"]', '421["message-with-ack","b"]');
    await expect(client, '431["a"]', '431["b"]');
  }],

  ...each("binary", [
    ["one", `["message",${placeholder(0)}]`, attachments(1)],
    ["two", `["message",${placeholder(0)},${placeholder(1)}]`, attachments(2)],
    ["deep inside", `["message",{"a":[1,{"b":${placeholder(0)},"c":"d"}]},${placeholder(1)}]`, attachments(2)],
    ["ten", `["message",${[...Array(10).keys()].map(placeholder)}]`, attachments(10)],
    ["no bytes", `["message",${placeholder(0)}]`, [Buffer.alloc(0)]],
    ["many bytes", `["message",${placeholder(0)},"end"]`, [Buffer.alloc(200_000, 7)]],
  ], async (json, buffers) => {
    for (const [namespace, prefix] of [["/", ""], ["/custom", "/custom,"]]) {
      const client = await open();
      await connect(client, namespace);
      await client.send(`45${buffers.length}-${prefix}${json}`, ...buffers);
      await expect(client, `45${buffers.length}-${prefix}${json.replace("message", "message-back")}`, ...buffers);
    }
  }),
  ["binary: acknowledgement", async () => {
    const client = await open();
    await connect(client);
    const buffers = attachments(2);
    await client.send(`452-789["message-with-ack",${placeholder(0)},{"x":${placeholder(1)}}]`, ...buffers);
    await expect(client, `462-789[${placeholder(0)},{"x":${placeholder(1)}}]`, ...buffers);
  }],
  ["binary: in several messages, with text before and behind", async () => {
    const client = await open();
    await connect(client);
    const [a, b] = attachments(2);
    await client.send('42["message",1]', `452-["message",${placeholder(0)},${placeholder(1)}]`, a);
    await client.send(b, '42["message",2]');
    await expect(client, '42["message-back",1]');
    await expect(client, `452-["message-back",${placeholder(0)},${placeholder(1)}]`, a, b);
    await expect(client, '42["message-back",2]');
  }],

  ...each("invalid, closes", INVALID.map(([name, ...packets]) => [name, packets]), async (packets) => {
    const client = await open();
    await connect(client);
    await client.send(...packets);
    await client.closed();
  }),
  ["invalid: nobody else is harmed", async () => {
    const bystander = await open();
    await connect(bystander);
    const client = await open();
    await connect(client);
    await client.send("4abc");
    await client.closed();
    await bystander.send('42["message",1]');
    await expect(bystander, '42["message-back",1]');
  }],
  // Node closes here: while it connects the socket, the event has no place to go to.
  ...beyond([["connect: and an event in the same breath", async () => {
    const client = await open();
    await client.send('40{"a":1}', '42["message",1]', '40/custom,', '42/custom,5["message-with-ack",2]');
    assert.ok((await client.next()).startsWith('40{"sid":"'));
    await expect(client, '42["auth",{"a":1}]', '42["message-back",1]');
    assert.ok((await client.next()).startsWith('40/custom,{"sid":"'));
    await expect(client, '42/custom,["auth",{}]', "43/custom,5[2]");
  }]]),
];

// ---- rows about segments, for WebSocket alone ----

async function openBare() {
  const connection = await Http.open();
  await connection.write(handshake(path(ENDPOINT, "websocket"))).response();
  assert.strictEqual((await readFrame(connection)).payload[0], "0");
  return connection;
}

const burst = Buffer.concat([
  frame('42["message",{"é":"😀"}]'),
  frame(`451-["message",${placeholder(0)}]`),
  frame(Buffer.from([1, 2, 255])),
  frame('421["message-with-ack",1]'),
]);

async function isAnswered(connection) {
  const got = [];
  for (let n = 0; n < 4; n += 1) got.push((await readFrame(connection)).payload);
  assert.deepStrictEqual(got, [
    '42["message-back",{"é":"😀"}]',
    `451-["message-back",${placeholder(0)}]`,
    Buffer.from([1, 2, 255]),
    "431[1]",
  ]);
}

async function connectBare(connection) {
  connection.write(frame("40"));
  assert.match((await readFrame(connection)).payload, /^40\{"sid"/);
  assert.strictEqual((await readFrame(connection)).payload, '42["auth",{}]');
}

const segments = [
  ["segments: many frames in one", async () => {
    const connection = await openBare();
    await connectBare(connection);
    connection.write(Buffer.concat(Array(20).fill(burst)));
    for (let n = 0; n < 20; n += 1) await isAnswered(connection);
  }],
  ["segments: frames byte by byte", async () => {
    const connection = await openBare();
    await connectBare(connection);
    await connection.writeInPieces([...burst].map((byte) => Buffer.from([byte])));
    await isAnswered(connection);
  }],
  ["segments: frames in two pieces, split at each byte", async (round) => {
    const connection = await openBare();
    await connectBare(connection);
    const at = round + 1;
    await connection.writeInPieces([burst.subarray(0, at), burst.subarray(at)]);
    await isAnswered(connection);
  }, undefined, burst.length - 1],
  ["segments: a message in fragments", async () => {
    const connection = await openBare();
    await connectBare(connection);
    const pieces = [...'42["message",1]'];
    pieces.forEach((piece, n) => connection.write(frame(piece, n === 0 ? 1 : 0, n === pieces.length - 1)));
    assert.strictEqual((await readFrame(connection)).payload, '42["message-back",1]');
  }],
];

const over = (name, client) => rows(() => client.open()).map(([row, ...rest]) => [`${name}, ${row}`, ...rest]);

// An upgrade in the middle of a conversation: the sockets stay who they are.
const upgrade = [
  ["upgrade: the sockets stay", async () => {
    const session = await Polling.open(ENDPOINT);
    await session.post("40");
    const [connected] = await session.packets();
    assert.match(connected, /^40\{"sid"/);
    await session.post("40/custom,");
    await session.post('42["message",1]');
    const ws = await session.probed();
    ws.send("5", '42/custom,1["message-with-ack",2]');
    const got = [];
    while (got.at(-1) !== "43/custom,1[2]") got.push(await ws.next());
    const text = got.filter((packet) => !packet.startsWith("40")).join(" ");
    assert.ok(text.includes('42["message-back",1]'), text);
  }],
];

run(() => cases([...over("websocket", OverWebSocket), ...over("polling", OverPolling), ...segments, ...upgrade]));
