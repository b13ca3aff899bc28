// Runs a table of cases one after the other, and prints a line for each.
//
// The servers under test end a session that does not answer within 500 ms of its beginning. A case that does not mean
// to be that slow may fail because the machine is: what fails after more than `within` ms is void and done again.
"use strict";
const { args, isReference, limit, assert } = require("./lib");
const { closeAll } = require("./wire");

const ATTEMPTS = 6;
// Of one attempt. Nothing takes so long that comes at all.
const HANGING_MS = 10000;
// After so many there is no more to learn.
const FAILURES_MAX = 20;
// Below the ping interval of 300 ms: so far no ping has come, which nobody expects.
const WITHIN_MS = 250;

let isUnordered = false;

// The case that is running has said two things on two connections and means the first one to be heard first.
function unordered() {
  isUnordered = true;
}

// `table`: [name, async (round) => …, within, rounds]. The programs' arguments choose cases by parts of their names.
async function cases(table) {
  limit(300);
  table = table.filter(([name]) => args.length === 0 || args.some((part) => name.includes(part)));
  assert.ok(table.length > 0, `no case is called like ${args}`);
  const names = new Set(table.map(([name]) => name));
  assert.strictEqual(names.size, table.length, "names are unique");
  let failed = 0;
  let good = 0;
  for (const [name, body, within = WITHIN_MS, rounds = 1] of table) {
    let failure = null;
    let round = 0;
    for (; round < rounds && failure === null; round += 1) {
      failure = await attempts(name, () => body(round), within);
    }
    if (failure === null) good += 1;
    else failed += 1;
    const times = rounds > 1 ? ` (${round} times)` : "";
    console.log(failure === null ? `ok      ${name}${times}` : `FAILED  ${name}${times}\n${failure.stack ?? failure}`);
    assert.ok(failed < FAILURES_MAX, `${failed} cases have failed; the rest is left out`);
  }
  assert.strictEqual(failed, 0, `${failed} cases failed, ${good} are good`);
}

async function attempts(name, body, within) {
  for (let attempt = 1; ; attempt += 1) {
    const start = performance.now();
    isUnordered = false;
    const failure = await limited(body);
    const took = performance.now() - start;
    closeAll();
    const counts = took <= within && !isUnordered;
    if (failure === null || counts || failure.hangs || attempt === ATTEMPTS) return failure;
    console.log(`again   ${name}: ${failure.message}, after ${Math.round(took)} ms`);
  }
}

async function limited(body) {
  let timer;
  const hanging = new Promise((_, reject) => {
    const error = Object.assign(new Error(`hangs: not done within ${HANGING_MS} ms`), { hangs: true });
    timer = setTimeout(reject, HANGING_MS, error);
  });
  try {
    await Promise.race([body(), hanging]);
    return null;
  } catch (error) {
    return error;
  } finally {
    clearTimeout(timer);
  }
}

// Cases that ask for more than Node's server does: for ours alone.
function beyond(table) {
  return isReference ? [] : table;
}

// One case for each row: ["name", …values] calls `body(...values)`.
function each(prefix, rows, body, within) {
  return rows.map(([name, ...values]) => [`${prefix}: ${name}`, () => body(...values), within]);
}

module.exports = { cases, each, beyond, unordered };
