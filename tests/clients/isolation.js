// The proof that rooms are apart: events for rooms picked at random, on several publishers' connections at once; each
// socket has got exactly what went to its rooms, once, and each room's events in the order that the receipts say.
"use strict";
const { assert, Publisher, metric, until, randomFrom, seed } = require("./lib");

const PUBLISHERS = 4;
// Of each publisher, lines under way at a time.
const WINDOW = 64;

// `members`: each with its `rooms` and `got`, the list of [name, data] that it gets. `names`: what events are called.
async function prove({ members, rooms, names, events }) {
  const random = randomFrom(seed());
  const plan = [];
  for (let n = 0; n < events; n++) {
    const to = [rooms[random(rooms.length)]];
    // Some go to several rooms, of which one socket may be in both.
    while (random(10) === 0) to.push(rooms[random(rooms.length)]);
    plan.push({ rooms: [...new Set(to)], event: names[random(names.length)], data: { n, to, salt: random(1e9) } });
  }
  const before = await metric("roomcast_deliveries_total");
  const offsets = new Map();
  let next = 0;
  const publish = async () => {
    const publisher = new Publisher();
    const lane = async () => {
      while (next < plan.length) {
        const line = plan[next++];
        offsets.set(line.data.n, (await publisher.ask(line)).offset);
      }
    };
    await Promise.all(Array.from({ length: WINDOW }, lane));
  };
  await Promise.all(Array.from({ length: PUBLISHERS }, publish));

  // The oracle: a table of what went where.
  const inRoom = new Map(rooms.map((room) => [room, []]));
  for (const line of plan) for (const room of line.rooms) inRoom.get(room).push(line);
  const expected = members.map((member) => new Set(member.rooms.flatMap((room) => inRoom.get(room) ?? [])));
  const total = expected.reduce((sum, lines) => sum + lines.size, 0);
  await until(() => members.every(({ got }, index) => got.length >= expected[index].size));
  await until(async () => (await metric("roomcast_deliveries_total")) - before >= total);

  members.forEach((member, index) => {
    const who = `member ${index} of ${member.rooms}`;
    const got = member.got.map(([, data]) => data.n);
    assert.strictEqual(new Set(got).size, got.length, `${who} got an event twice`);
    const wanted = [...expected[index]].map((line) => line.data.n);
    assert.deepStrictEqual([...got].sort((a, b) => a - b), wanted.sort((a, b) => a - b), who);
    for (const [name, data] of member.got) {
      assert.deepStrictEqual([name, data], [plan[data.n].event, plan[data.n].data], who);
    }
    for (const room of member.rooms) {
      // Of an event for several rooms the receipt names no one offset.
      const alone = (line) => line.rooms.length === 1;
      const order = (inRoom.get(room) ?? []).filter(alone).map((line) => line.data.n);
      order.sort((a, b) => offsets.get(a) - offsets.get(b));
      const came = got.filter((n) => alone(plan[n]) && plan[n].rooms[0] === room);
      assert.deepStrictEqual(came, order, `${who}: the order of ${room}`);
    }
  });
  // And nobody else got anything: no socket, of these or others.
  assert.strictEqual((await metric("roomcast_deliveries_total")) - before, total);
  console.log(`${members.length} sockets, ${rooms.length} rooms, ${events} events, ${total} deliveries`);
}

module.exports = { prove };
