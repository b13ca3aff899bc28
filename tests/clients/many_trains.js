// Live train status over plain WebSockets, with the package `ws`.
"use strict";
const WebSocket = require("ws");
const { listen, run, assert, Publisher, until } = require("./lib");

const TRAIN = (trainNo) => ({ type: "SUBSCRIBE_TRAIN", trainNo });
const ME = (role, irctcId) => ({ type: "IDENTIFY", role, irctcId });

class Client {
  constructor() {
    this.socket = new WebSocket(`ws://${listen}/ws`);
    this.got = [];
    this.answers = 0;
    this.open = new Promise((resolve, reject) => {
      this.socket.on("open", resolve);
      this.socket.on("error", reject);
    });
    this.socket.on("message", (data, isBinary) => {
      assert.ok(!isBinary);
      const message = JSON.parse(data.toString());
      if (["SUBSCRIBED", "IDENTIFIED", "error"].includes(message.type)) this.answers += 1;
      this.last = message;
      this.got.push(message);
    });
  }
  // Sends messages one after the other and waits for each answer. Returns the last one.
  async say(...messages) {
    await this.open;
    for (const message of messages) {
      const before = this.answers;
      this.socket.send(JSON.stringify(message));
      await until(() => this.answers > before);
    }
    return this.got.filter(({ type }) => ["SUBSCRIBED", "IDENTIFIED", "error"].includes(type)).pop();
  }
}

run(async () => {
  const clients = {};
  const add = async (name, ...messages) => {
    clients[name] = new Client();
    await clients[name].say(...messages);
  };
  await add("passenger", TRAIN("12345"), ME("PASSENGER", "P1"));
  await add("passengerReversed", ME("PASSENGER", "P2"), TRAIN("12345"));
  await add("tte", TRAIN("12345"), ME("TTE", "T1"));
  await add("tteReversed", ME("TTE", "T2"), TRAIN("12345"));
  await add("tteOther", TRAIN("99"), ME("TTE", "T3"));
  await add("tteNoTrain", ME("TTE", "T4"));
  await add("onlyTrain", TRAIN("12345"));
  // Has changed the train: from 12345 to 99, before and after it said who it is.
  await add("mover", TRAIN("12345"), ME("TTE", "T5"), TRAIN("99"));
  await add("earlyMover", TRAIN("12345"), TRAIN("99"), ME("TTE", "T6"));
  // Has become somebody else.
  await add("renamed", TRAIN("12345"), ME("TTE", "T7"), ME("PASSENGER", "P7"));
  await add("stranger");
  await clients.stranger.open;

  const answer = await clients.passenger.say(TRAIN("12345"));
  assert.deepStrictEqual(answer, { type: "SUBSCRIBED", trainNo: "12345" });
  for (const bad of [TRAIN("5:TTE"), TRAIN(7), TRAIN(""), ME("KING", "K1"), ME("TTE", "a:b"), { type: "GIVE_ME" }]) {
    const refused = await clients.stranger.say(bad);
    assert.strictEqual(refused.type, "error", JSON.stringify([bad, refused]));
    assert.strictEqual(refused.event, bad.type);
  }

  for (const client of Object.values(clients)) client.got.length = 0;
  const publisher = new Publisher();
  const all = Object.keys(clients);
  const expected = {
    "train:12345": ["passenger", "passengerReversed", "tte", "tteReversed", "onlyTrain", "renamed"],
    "train:99": ["tteOther", "mover", "earlyMover"],
    "user:T1": ["tte"],
    "user:P2": ["passengerReversed"],
    "user:T7": [],
    "user:P7": ["renamed"],
    "role:TTE": ["tte", "tteReversed", "tteOther", "tteNoTrain", "mover", "earlyMover"],
    "role:PASSENGER": ["passenger", "passengerReversed", "renamed"],
    "train:12345:TTE": ["tte", "tteReversed"],
    "train:99:TTE": ["tteOther", "mover", "earlyMover"],
    "train:12345:PASSENGER": ["passenger", "passengerReversed", "renamed"],
    "train:5:TTE": [],
  };
  const rooms = Object.keys(expected);
  for (const room of rooms) await publisher.ask({ room, event: "NEWS", data: { room, platform: 4 } });
  // What belongs to nobody would come before the end of its room.
  await publisher.ask({ rooms, event: "ROOMS_END" });
  await publisher.ask({ event: "END" });
  await until(() => all.every((name) => clients[name].got.some(({ type }) => type === "END")));
  const inRoom = new Set(Object.values(expected).flat());
  await until(() => [...inRoom].every((name) => clients[name].got.some(({ type }) => type === "ROOMS_END")));
  await until(() =>
    all.every((name) => {
      const wanted = rooms.filter((room) => expected[room].includes(name)).length;
      return clients[name].got.filter(({ type }) => type === "NEWS").length >= wanted;
    }),
  );
  for (const name of all) {
    const got = clients[name].got.filter(({ type }) => type === "NEWS");
    const wanted = rooms.filter((room) => expected[room].includes(name));
    assert.deepStrictEqual(got.map(({ room }) => room).sort(), wanted.sort(), name);
    // Flat: the fields stand beside "type".
    for (const message of got) assert.deepStrictEqual(Object.keys(message), ["type", "room", "platform"]);
  }
});
