// A connection that is about to be closed: another is made before.

import assert from "node:assert/strict";
import { test } from "node:test";
import { CommentSchema } from "../build/stubs/typescript/chat/v1/chat_pb.js";
import { AckLevel, type State } from "../src/index.js";
import { comment, connected, entering, Gateway, type Said, state } from "./gateway.js";

const draining = (endpoint = "", ms = 0): Said => ({
  case: "draining", value: { endpoint, reconnectAfter: { nanos: ms * 1e6 } as never },
});
const accepted: Said = { case: "accepted", value: { level: AckLevel.RECEIVED } };

/** A client that hears comments, and has been told to move. */
async function moving(context: Parameters<typeof connected>[0], ms = 0) {
  const { gateway, client, link } = await connected(context);
  const other = await Gateway.start(context);
  const room = client.channel("live:1");
  const texts: string[] = [];
  const states: State[] = [];
  room.on(CommentSchema, ({ text }) => texts.push(text));
  client.on("state", (state) => states.push(state));
  await link.seat();
  await room.joined();
  const say = (text: string, on = link) => on.say(comment(text, { channel: "live:1" }));
  const heard = (wanted: string) => new Promise<void>((resolve) => {
    const stop = room.on(CommentSchema, ({ text }) => {
      if (text !== wanted) return;
      stop();
      resolve();
    });
  });
  link.say(draining(other.url, ms));
  return { gateway, other, client, link, texts, states, say, heard };
}

test("the client resumes where it is told, and the old connection works until then", async (context) => {
  const { gateway, other, client, link, texts, states, say, heard } = await moving(context);
  const next = await other.accept();
  const { id, value } = await next.expect("connect");
  assert.equal(value.resume?.received, 2n, "`subscribed` and `draining`");
  // The gateway takes the session over; these are written on the old connection and replayed on the new.
  say("1");
  say("2");
  const published = client.publish("live:1", CommentSchema, { text: "held" });
  const moved = entering(client, "connected");
  const all = heard("3");
  next.sayAll([
    { replyTo: id, frame: { case: "connected", value: { sessionId: "n1.1", resumeToken: "t2", resumed: true, received: 2n, node: "n2", subscriptions: [{ channel: "live:1" }] as never } } },
    { frame: comment("1", { channel: "live:1" }) },
    { frame: comment("2", { channel: "live:1" }) },
  ]);
  assert.equal((await moved).node, "n2");
  link.close(4502, "session goes on on another connection");
  say("3", next);
  await all;
  assert.deepEqual(texts, ["1", "2", "3"], "each once");
  next.say(accepted, (await next.expect("publish")).id);
  await published;
  assert.deepEqual(states.map(({ name }) => name), ["connected"], "there was always a connection");
  next.cut();
  const { resume } = await (await Promise.race([gateway.accept(), other.accept()])).welcome();
  assert.equal(resume?.received, 6n, "3 comments and an answer more");
});

test("a move that comes to nothing leaves all as it was, and is tried again", async (context) => {
  const { gateway, other, client, link, texts, states, say, heard } = await moving(context);
  const failed = await other.accept();
  await failed.expect("connect");
  const published = client.publish("live:1", CommentSchema, { text: "held" });
  say("1");
  say("2");
  const all = heard("2");
  failed.cut();
  await all;
  link.say(accepted, (await link.expect("publish")).id);
  await published;
  const next = await gateway.accept();
  const { resume } = await next.welcome({ resumed: true, received: 5n, subscriptions: [{ channel: "live:1" }] as never });
  assert.equal(resume?.received, 5n, "what came meanwhile is counted");
  assert.deepEqual(texts, ["1", "2"]);
  await state(client, (state) => state.name === "connected" && state.resumed);
  assert.deepEqual(states.map(({ name }) => name), ["connected"]);
});

test("where the other node begins another session, what still came on the old connection is not lost", async (context) => {
  const { other, client, link, texts, say } = await moving(context);
  const next = await other.accept();
  const { id } = await next.expect("connect");
  say("1");
  link.say({ case: "pong", value: {} });
  // The client has read it when it has answered the server's ping after it.
  link.socket.ping();
  await new Promise((resolve) => link.socket.once("pong", resolve));
  assert.deepEqual(texts, []);
  next.say({ case: "connected", value: { sessionId: "n2.1" } }, id);
  await next.seat();
  assert.deepEqual(texts, ["1"]);
  assert.equal((await link.closed).code, 1000, "the old session is over, and the gateway need not keep it");
  assert.equal(client.state.name, "connected");
});

test("a connection that ends before the other is there is a lost one, and no more", async (context) => {
  const { other, client, link } = await moving(context);
  const next = await other.accept();
  const { id } = await next.expect("connect");
  const lost = entering(client, "connecting");
  link.close(1012, "gateway restarts, reconnect");
  await lost;
  const again = entering(client, "connected");
  next.say({ case: "connected", value: { sessionId: "n1.1", resumed: true, received: 2n } }, id);
  assert.equal((await again).resumed, true);
});

test("a client whose resume was taken, and the answer lost, comes back all the same", async (context) => {
  const { gateway, other, client, link } = await moving(context);
  const next = await other.accept();
  await next.expect("connect");
  next.cut();
  const third = gateway.accept();
  link.close(4502, "session goes on on another connection");
  const { resume } = await (await third).welcome({ sessionId: "n2.1" });
  assert.equal(resume?.token, "t1");
  await state(client, (state) => state.name === "connected" && state.sessionId === "n2.1");
});

test("the gateway's wait is waited, unless the connection ends before", async (context) => {
  const { gateway, other, link } = await moving(context, 500);
  assert.equal(other.links.size, 0);
  link.cut();
  await Promise.race([other.accept(), gateway.accept()]);
});
