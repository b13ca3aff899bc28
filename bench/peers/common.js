// What the contenders in JavaScript share: their arguments and the publishers' lines. Knows nothing of clients.
"use strict";

// {listen, ingest}, each {host, port}, from --listen IP:PORT --ingest IP:PORT.
function addresses() {
  const found = {};
  for (const name of ["listen", "ingest"]) {
    const at = process.argv.indexOf(`--${name}`);
    const [, host, port] = /^([\d.]+):(\d+)$/.exec(process.argv[at + 1] ?? "") ?? [];
    if (at < 0 || !host) {
      console.error(`usage: --listen IP:PORT --ingest IP:PORT; --${name} is missing or no address`);
      process.exit(2);
    }
    found[name] = { host, port: Number(port) };
  }
  return found;
}

// Returns a function that takes a publisher's text as it comes and returns the events of its whole lines.
function lines() {
  let rest = "";
  return (text) => {
    const parts = (rest + text).split("\n");
    rest = parts.pop();
    return parts.map(event).filter(Boolean);
  };
}

function event(line) {
  try {
    const said = JSON.parse(line);
    if (typeof said?.room === "string" && typeof said.event === "string") return said;
  } catch {
    // It is told below.
  }
  console.error(`ignored a line that is no event: ${line.slice(0, 80)}`);
  return undefined;
}

// A port that is taken, or an address that is not this machine's.
function refuse(error) {
  console.error(error.message);
  process.exit(1);
}

module.exports = { addresses, lines, refuse };
