// Connecting, coming back, and ending.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { WebSocket, WebSocketServer } from "ws";
import { CommentSchema } from "../build/stubs/typescript/chat/v1/chat_pb.js";
import { connect } from "../src/index.js";
import { jitter } from "../src/backoff.js";
import { comesBack } from "../src/closing.js";
import { Endpoints } from "../src/endpoints.js";
import { Code } from "../src/gen/trestle/v1/errors_pb.js";
import { connected, entering, Gateway, type Said, state, welcome } from "./gateway.js";

const refusedToken: Said = { case: "error", value: { code: Code.UNAUTHENTICATED, reason: "token_expired" } };
const isLost = ({ name }: { name: string }) => name === "waiting" || name === "connecting";

test("a client says its token and is told its session", async (context) => {
  const gateway = await Gateway.start(context);
  const client = gateway.client(context, { token: async () => "secret" });
  assert.equal(client.state.name, "connecting");
  const { token, resume } = await (await gateway.accept()).welcome({ user: "ada", node: "n7" });
  assert.equal(token, "secret");
  assert.equal(resume, undefined);
  await client.connected();
  assert.deepEqual(client.state, { name: "connected", resumed: false, sessionId: "n1.1", user: "ada", node: "n7" });
});

test("a refused token is asked for again, once, and the one that is given then is used", async (context) => {
  const gateway = await Gateway.start(context);
  const tokens = ["old", "new", "newer"];
  const client = gateway.client(context, { token: () => tokens.shift() ?? "none" });
  for (const expected of ["old", "new"]) {
    const link = await gateway.accept();
    const { id, value } = await link.expect("connect");
    assert.equal(value.token, expected);
    link.say(refusedToken, id);
    link.close(4500, "token missing, wrong or expired");
  }
  const why = await client.closed;
  assert.equal(why.code, 4500);
  assert.equal(why.error?.reason, "token_expired");
  assert.deepEqual(tokens, ["newer"]);
});

test("a token that was refused is not tried twice", async (context) => {
  const gateway = await Gateway.start(context);
  const client = gateway.client(context, { token: () => "same" });
  const link = await gateway.accept();
  const { id } = await link.expect("connect");
  link.say(refusedToken, id);
  link.close(4500, "token missing, wrong or expired");
  const why = await client.closed;
  assert.deepEqual([why.code, why.error?.reason], [4500, "token_expired"]);
  assert.equal(gateway.links.size, 0);
  await assert.rejects(client.connected(), { reason: "closed" });
});

test("a token that cannot be got is asked for again later", async (context) => {
  const gateway = await Gateway.start(context);
  let calls = 0;
  const client = gateway.client(context, {
    token: () => {
      calls += 1;
      if (calls < 3) throw new Error("the token service is away");
      return "at last";
    },
  });
  const waiting = await entering(client, "waiting");
  assert.match(waiting.why.reason, /the token service is away/);
  assert.equal((await (await gateway.accept()).welcome()).token, "at last");
});

test("a gateway that says nothing is given up for the next", async (context) => {
  const silent = await Gateway.start(context);
  const gateway = await Gateway.start(context);
  const client = connect([silent.url, gateway.url], { WebSocket, connectTimeout: 100, reconnect: { base: 1 } });
  context.after(() => client.close());
  await (await gateway.accept()).welcome();
  await client.connected();
});

test("a server that is no gateway is not taken for one", async (context) => {
  const server = new WebSocketServer({ host: "127.0.0.1", port: 0, handleProtocols: () => false });
  await once(server, "listening");
  context.after(() => server.close());
  const url = `ws://127.0.0.1:${(server.address() as { port: number }).port}/`;
  const client = connect(url, { WebSocket, reconnect: false });
  assert.equal((await client.closed).code, 1006);
});

test("endpoints are taken in turn from a random start, and one that is named comes first, once", () => {
  const endpoints = new Endpoints(["ws://a/ws", "http://b/ws", "ws://c/ws"], () => 0);
  const turn = [endpoints.next(), endpoints.next(), endpoints.next()];
  assert.deepEqual([...turn].sort(), ["ws://a/ws", "ws://b/ws", "ws://c/ws"]);
  endpoints.name("ws://d/ws");
  assert.deepEqual([endpoints.next(), endpoints.next()], ["ws://d/ws", turn[0]]);
  const secure = new Endpoints(["wss://a/ws"], () => 0);
  secure.next();
  for (const url of ["ws://d/ws", "https://d/ws", "nonsense"]) secure.name(url);
  assert.equal(secure.next(), "wss://a/ws", "no way from TLS to none");
  assert.throws(() => new Endpoints(["ftp://a"], () => 0), RangeError);
  assert.throws(() => new Endpoints(["/ws"], () => 0), RangeError);
});

test("close codes say whether to come back", () => {
  for (const code of [1001, 1005, 1006, 1011, 1012, 1013, 4000, 4001, 4002, 4003, 4499]) assert.ok(comesBack(code), `${code}`);
  for (const code of [1000, 1002, 1003, 1007, 1008, 1009, 4500, 4501, 4502, 4503, 4999]) assert.ok(!comesBack(code), `${code}`);
});

test("a client that is not wanted back does not come back", async (context) => {
  for (const code of [1000, 4501, 4502, 4503]) {
    const { gateway, client, link } = await connected(context);
    const asked = client.publish("room:1", CommentSchema, { text: "?" });
    await link.expect("publish");
    link.close(code, "said by the test");
    assert.deepEqual(await client.closed, { code, reason: "said by the test" });
    await assert.rejects(asked, { reason: "closed" });
    await assert.rejects(client.publish("room:1", CommentSchema, { text: "?" }), { reason: "closed" });
    assert.throws(() => client.channel("room:1"), { reason: "closed" });
    assert.equal(gateway.links.size, 0);
  }
});

test("waits are anything up to a bound that doubles", () => {
  assert.equal(jitter(0, 250, 20_000, () => 0), 0);
  const most = [0, 1, 2, 3, 10, 1000].map((failures) => jitter(failures, 250, 20_000, () => 1));
  assert.deepEqual(most, [250, 500, 1000, 2000, 20_000, 20_000]);
});

test("the gateway's word on when to come back goes first", async (context) => {
  const { gateway, client, link } = await connected(context);
  link.cut();
  const busy = await gateway.accept();
  const { id } = await busy.expect("connect");
  const retryAfter = { seconds: 3600n } as never;
  busy.say({ case: "error", value: { code: Code.UNAVAILABLE, reason: "too_busy", retryable: true, retryAfter } }, id);
  busy.close(4003, "node is busy, reconnect later");
  const waiting = await entering(client, "waiting");
  const wait = waiting.until.getTime() - Date.now();
  assert.ok(wait > 3_590_000 && wait <= 3_600_000, `${wait} ms`);
  assert.equal(waiting.why.error?.reason, "too_busy");
});

test("a client that may not reconnect ends with its connection", async (context) => {
  const { client, link } = await connected(context, { reconnect: false });
  link.cut();
  assert.equal((await client.closed).code, 1006);
});

test("a client gives up when it is told to", async (context) => {
  const { gateway, client, link } = await connected(context, { reconnect: { base: 5, cap: 5, giveUpAfter: 50 } });
  gateway.stop();
  link.cut();
  assert.equal((await client.closed).code, 1006);
});

test("closing ends the session, after what was said", async (context) => {
  const { client, link } = await connected(context);
  const last = client.publish("room:1", CommentSchema, { text: "bye" });
  const rejected = assert.rejects(last, { reason: "closed" });
  const closing = client.close();
  await link.expect("publish");
  assert.equal((await link.closed).code, 1000);
  await closing;
  await rejected;
  assert.deepEqual(client.state.name, "closed");
  await client.close();
});

test("a wait ends when the network is back or the page is shown", async (context) => {
  const page = new EventTarget();
  const document = Object.assign(new EventTarget(), { visibilityState: "hidden" });
  const wanted = { addEventListener: page.addEventListener.bind(page), document };
  const before = Object.keys(wanted).map((name) => [name, Object.getOwnPropertyDescriptor(globalThis, name)] as const);
  for (const [name, value] of Object.entries(wanted)) Object.defineProperty(globalThis, name, { value, configurable: true });
  context.after(() => {
    for (const [name, old] of before) {
      if (old === undefined) Reflect.deleteProperty(globalThis, name);
      else Object.defineProperty(globalThis, name, old);
    }
  });
  const hour = 3_600_000;
  const gateway = await Gateway.start(context);
  const client = gateway.client(context, { reconnect: { base: hour, cap: hour } });
  let link = await gateway.accept();
  await link.welcome();
  await client.connected();
  const wakings = [
    () => page.dispatchEvent(new Event("online")),
    () => {
      document.dispatchEvent(new Event("visibilitychange"));
      document.visibilityState = "visible";
      document.dispatchEvent(new Event("visibilitychange"));
    },
  ];
  for (const wake of wakings) {
    link.cut();
    await entering(client, "waiting");
    wake();
    link = await gateway.accept();
    await link.welcome({ resumed: true });
    await state(client, ({ name }) => name === "connected");
  }
  page.dispatchEvent(new Event("online"));
  await link.expect("ping");
  page.dispatchEvent(new Event("pagehide"));
  assert.equal((await link.closed).code, 1000, "the page is gone, and nobody comes back");
});

test("a socket that sends nonsense is replaced", async (context) => {
  const { gateway, client, link } = await connected(context);
  const lost = state(client, isLost);
  link.socket.send("text");
  await lost;
  const next = await gateway.accept();
  assert.equal((await next.welcome({ resumed: true })).resume?.sessionId, "n1.1");
});

test("a process whose client is closed ends by itself", { timeout: 20_000 }, async (context) => {
  const gateway = await Gateway.start(context);
  for (const how of ["connected", "waiting"]) {
    const script = fileURLToPath(new URL("./leaver.js", import.meta.url));
    const process = spawn(globalThis.process.execPath, [script, gateway.url, how], { stdio: ["ignore", "pipe", "pipe"] });
    let said = "";
    for (const stream of [process.stdout, process.stderr]) stream.on("data", (data: Buffer) => (said += data.toString()));
    const link = await gateway.accept();
    const { id } = await link.expect("connect");
    link.say(welcome({}), id);
    await link.expect("subscribe");
    if (how === "waiting") link.cut();
    const [code] = await once(process, "exit");
    assert.deepEqual([code, said], [0, "closed\n"], how);
  }
});

test("options that cannot work are refused with their name", () => {
  assert.throws(() => connect("ws://a", { WebSocket, retryFor: 0 }), /retryFor is 0/);
  assert.throws(() => connect("ws://a", { WebSocket, retryFor: 120_001 }), /retryFor is 120001/);
  assert.throws(() => connect("ws://a", { WebSocket, connectTimeout: Number.NaN }), /connectTimeout is NaN/);
  assert.throws(() => connect([], { WebSocket }), RangeError);
});
