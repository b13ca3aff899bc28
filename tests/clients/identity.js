// Tokens by another's hand: signed by Node, brought in each way by the official client. Prints nothing.
"use strict";
const crypto = require("crypto");
const fs = require("fs");
const path = require("path");
const { io, Manager } = require("socket.io-client");
const { listen, args, run, assert, once, metric, until } = require("./lib");

const [keys] = args;
const url = `http://${listen}`;
const secret = fs.readFileSync(path.join(keys, "secret"), "utf8").trim();
const pem = (name) => fs.readFileSync(path.join(__dirname, "..", "keys", name));
const now = () => Date.now() / 1000;

// ---- tokens ----

const part = (object) => Buffer.from(typeof object === "string" ? object : JSON.stringify(object)).toString("base64url");

const signers = {
  HS256: (text, key = secret) => crypto.createHmac("sha256", key).update(text).digest("base64url"),
  RS256: (text, key = pem("rsa.private.pem")) => crypto.sign("sha256", text, key).toString("base64url"),
  ES256: (text, key = pem("ec.private.pem")) =>
    crypto.sign("sha256", text, { key, dsaEncoding: "ieee-p1363" }).toString("base64url"),
  EdDSA: (text, key = pem("ed.private.pem")) => crypto.sign(null, text, key).toString("base64url"),
};

// `header.alg` is what the token says, `by` how it is signed.
function token(claims, { header = {}, by = "HS256", key } = {}) {
  const text = `${part({ alg: by, typ: "JWT", ...header })}.${part(claims)}`;
  return `${text}.${signers[by](Buffer.from(text), key)}`;
}

const good = (claims = {}) => ({ sub: "u1", role: "ADMIN", aud: "roomcast", iss: "https://id", exp: now() + 600, ...claims });

// ---- clients ----

const options = { forceNew: true, reconnection: false };
const open = [];

function client(name, more) {
  const socket = io(url + name, { ...options, ...more });
  open.push(socket);
  return socket;
}

// The claims that the rules saw, or the code of the refusal.
async function outcome(name, more) {
  const socket = client(name, more);
  const claims = once(socket, "claims").then(([claims]) => claims);
  const refused = once(socket, "connect_error").then(([error]) => {
    assert.ok(error.data, `refused by the transport: ${error.message}`);
    assert.ok(!/eyJ/.test(error.message), `a token in ${error.message}`);
    return error.data.code;
  });
  return Promise.race([claims, refused]);
}

const withAuth = (jwt) => ({ transports: ["websocket"], auth: { token: jwt } });

run(async () => {
  // Every algorithm and every way.
  const kid = (kid) => ({ header: { kid } });
  for (const [by, header] of [["HS256", kid("hs")], ["RS256", kid("rs")], ["RS256", {}], ["ES256", kid("es")], ["EdDSA", {}]]) {
    const claims = good({ by });
    assert.deepStrictEqual(await outcome("/", withAuth(token(claims, { by, ...header }))), claims);
  }
  const jwt = token(good());
  for (const transports of [["websocket"], ["polling"], ["polling", "websocket"]]) {
    for (const more of [
      { auth: { token: jwt } },
      { query: { token: jwt, lang: "mr" } },
      { extraHeaders: { Authorization: `Bearer ${jwt}` } },
      { extraHeaders: { Cookie: `a=b; token=${jwt}` } },
      // The first place that has one, alone.
      { auth: { token: jwt }, query: { token: "x" }, extraHeaders: { Authorization: "Bearer y" } },
    ]) {
      assert.strictEqual((await outcome("/", { transports, ...more })).sub, "u1", JSON.stringify(more));
    }
    assert.strictEqual(await outcome("/", { transports, auth: { token: "x" }, query: { token: jwt } }), "token_invalid");
    assert.strictEqual(await outcome("/", { transports }), "token_missing");
  }
  // Nobody sees it again.
  const asking = client("/", { transports: ["websocket"], query: { token: jwt, lang: "mr" }, auth: { token: jwt, a: 1 } });
  assert.deepStrictEqual(await asking.emitWithAck("seen"), { query: { lang: "mr" }, auth: { token: null, a: 1 } });

  // Attacks, each with its answer, and after each an honest client is served.
  const publicKey = pem("rsa.public.pem");
  const [head, body, signature] = jwt.split(".");
  const before = await metric("roomcast_auth_refusals_total");
  const attacks = [
    ["another secret", token(good(), { key: "guessed" }), "token_invalid"],
    ["another private key", token(good(), { by: "RS256", key: pem("other-rsa.private.pem") }), "token_invalid"],
    ["alg none", `${part({ alg: "none" })}.${body}.`, "token_invalid"],
    ["alg none, signed", `${part({ alg: "none" })}.${body}.${signature}`, "token_invalid"],
    ["alg nOnE", `${part({ alg: "nOnE" })}.${body}.`, "token_invalid"],
    ["public key as secret", token(good(), { key: publicKey }), "token_invalid"],
    ["public key as secret, its kid", token(good(), { key: publicKey, header: { kid: "rs" } }), "token_invalid"],
    ["says RS256, has HMAC", token(good(), { key: publicKey, header: { alg: "RS256" } }), "token_invalid"],
    ["kid is a path", token(good(), { key: "", header: { kid: "../../../dev/null" } }), "token_invalid"],
    ["kid of another", token(good(), { header: { kid: "rs" } }), "token_invalid"],
    ["brings its own key", token(good(), { key: "k", header: { jwk: { kty: "oct", k: "aw" } } }), "token_invalid"],
    ["crit", token(good(), { header: { crit: ["exp"] } }), "token_invalid"],
    ["expired", token(good({ exp: now() - 1 })), "token_expired"],
    ["exp is a text", token(good({ exp: String(now() + 600) })), "token_invalid"],
    ["not yet", token(good({ nbf: now() + 600 })), "token_not_yet_valid"],
    ["another audience", token(good({ aud: ["other"] })), "token_audience"],
    ["no audience", token(good({ aud: undefined })), "token_audience"],
    ["another issuer", token(good({ iss: "https://evil" })), "token_issuer"],
    ["payload changed", `${head}.${part(good({ role: "ROOT" }))}.${signature}`, "token_invalid"],
    ["claims are an array", token([good()]), "token_invalid"],
    ["claims are no JSON", token("{"), "token_invalid"],
    ["no signature", `${head}.${body}.`, "token_invalid"],
    ["two parts", `${head}.${body}`, "token_invalid"],
    ["five parts", `${jwt}.a.b`, "token_invalid"],
    ["garbage", "\u0000'; DROP TABLE users; --", "token_invalid"],
    ["30 KB", token(good({ x: "a".repeat(20_000) })), "token_invalid"],
    ["30 KB of dots", ".".repeat(30_000), "token_invalid"],
    ["a number", 7, "token_invalid"],
    ["an object", { token: jwt }, "token_invalid"],
  ];
  for (const [name, forged, code] of attacks) {
    // Even where none is required.
    for (const namespace of ["/", "/open"]) {
      assert.strictEqual(await outcome(namespace, withAuth(forged)), code, name);
    }
    assert.strictEqual((await outcome("/", withAuth(jwt))).sub, "u1", name);
  }
  await until(async () => (await metric("roomcast_auth_refusals_total")) === before + 2 * attacks.length);
  // What is too large for a payload is refused before anybody looks for a token in it.
  const huge = client("/", withAuth(token(good({ x: "a".repeat(700_000) }))));
  const [tooLarge] = await once(huge, "connect_error");
  assert.strictEqual(tooLarge.message, "auth has more than 32768 bytes");
  assert.strictEqual(await outcome("/open", { transports: ["websocket"] }), null, "there none is required");
  // Of two claims of one name the last one counts, for us and for rules.
  const twice = token(`{"sub":"a","role":"PASSENGER","role":"ADMIN","aud":"roomcast","iss":"https://id"}`);
  assert.strictEqual((await outcome("/", withAuth(twice))).role, "ADMIN");

  // A token that ends ends its namespace, and no other one; not early.
  let ended = false;
  for (const life of [2, 8, 30]) {
    const manager = new Manager(url, { ...options, transports: ["websocket"] });
    const exp = Math.floor(now()) + life;
    const socket = manager.socket("/", { auth: { token: token(good({ exp })) } });
    const other = manager.socket("/open");
    const connected = await Promise.race([
      Promise.all([once(socket, "connect"), once(other, "connect")]).then(() => true),
      once(socket, "connect_error").then(() => false),
    ]);
    if (!connected) continue;
    const [reason] = await once(socket, "disconnect");
    assert.strictEqual(reason, "io server disconnect");
    assert.ok(Date.now() >= exp * 1000, `${exp * 1000 - Date.now()} ms early`);
    assert.deepStrictEqual(await other.emitWithAck("who"), null);
    // The same one is not taken again; another one is.
    socket.connect();
    assert.strictEqual((await once(socket, "connect_error"))[0].data.code, "token_expired");
    socket.auth = { token: jwt };
    socket.connect();
    await once(socket, "connect");
    manager._close();
    ended = true;
    break;
  }
  assert.ok(ended, "no token lived long enough to connect with");

  // A new one may come before; for somebody else it may not.
  const exp = Math.floor(now()) + 5;
  const refreshing = client("/", { transports: ["websocket"], auth: { token: token(good({ exp })) } });
  const later = exp + 600;
  const ok = await refreshing.emitWithAck("refresh_token", token(good({ exp: later, role: "USER" })));
  assert.deepStrictEqual(ok, { ok: true, expires_at: later });
  assert.strictEqual((await refreshing.emitWithAck("who")).role, "USER");
  const refused = await refreshing.emitWithAck("refresh_token", { token: token(good({ sub: "u2" })) });
  assert.deepStrictEqual(refused, {
    error: { message: "the token is for another subject than the one before", code: "token_subject" },
  });
  const complaint = once(refreshing, "error");
  refreshing.emit("refresh_token", "x");
  assert.strictEqual((await complaint)[0].data.code, "token_invalid");
  await until(() => now() > exp + 1);
  assert.strictEqual((await refreshing.emitWithAck("who")).role, "USER");
  assert.ok(refreshing.connected);
  open.forEach((socket) => socket.disconnect());
});
