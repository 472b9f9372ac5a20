// Acks, pings, and what keeps a connection honest.

import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";
import { CommentSchema } from "../build/stubs/typescript/chat/v1/chat_pb.js";
import { AckLevel, Code, TrestleError } from "../src/index.js";
import { comment, connected, entering, type Said } from "./gateway.js";

const MS = 1e6;

test("the gateway is told after 256 frames that they have come", async (context) => {
  const { link } = await connected(context, {}, { received: 10n });
  for (let at = 0; at < 256; at += 1) link.say({ case: "pong", value: {} });
  const { id, value } = await link.acks.next();
  assert.equal(id, 0);
  assert.equal(value.received, 266n);
});

test("the gateway is told of fewer after 5 seconds, and of none not at all", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const { client, link } = await connected(context);
  const heard = new Promise((resolve) => client.on(CommentSchema, resolve));
  link.say(comment("1"));
  await heard;
  context.mock.timers.tick(4_999);
  assert.equal(link.acks.size, 0);
  context.mock.timers.tick(1);
  assert.equal((await link.acks.next()).value.received, 1n);
  context.mock.timers.tick(10_000);
  link.socket.ping();
  await once(link.socket, "pong");
  assert.equal(link.acks.size, 0);
});

test("a connection on which nothing comes is asked, and given up when it does not answer", async (context) => {
  const { gateway, client, link } = await connected(context, { pongTimeout: 500 }, { pingInterval: { nanos: 50 * MS } as never });
  link.say({ case: "pong", value: {} }, (await link.expect("ping")).id);
  await link.expect("ping");
  const waiting = await entering(client, "waiting");
  assert.match(waiting.why.reason, /no pong within 500 ms/);
  assert.equal((await (await gateway.accept()).welcome({ resumed: true })).resume?.received, 1n);
});

test("the pings of the gateway are heard where the WebSocket shows them", async (context) => {
  const { link } = await connected(context, {}, { pingInterval: { seconds: 1n } as never });
  const begun = Date.now();
  const ping = link.expect("ping");
  for (let count = 0; count < 15; count += 1) {
    link.socket.ping();
    await once(link.socket, "pong");
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  await ping;
  assert.ok(Date.now() - begun >= 1500, "asked only when the gateway's own pings had ended");
});

test("messages go to who asked for their type, others to who takes the rest", async (context) => {
  const { client, link } = await connected(context);
  const seen: string[] = [];
  const stop = client.on(CommentSchema, ({ text }, envelope) => seen.push(`${text} from ${envelope.source?.user}`));
  const other = new Promise((resolve) => client.onOther(({ messageType }) => resolve(seen.push(messageType))));
  link.say(comment("hi", { source: { user: "ada" } }));
  link.say(comment("?", { messageType: "shop.v9.New" }));
  await other;
  assert.deepEqual(seen, ["hi from ada", "shop.v9.New"]);
  stop();
  link.say(comment("nobody asks"));
  link.say(comment("?", { messageType: "shop.v9.New" }));
  await new Promise((resolve) => client.onOther(({ messageType }) => messageType === "shop.v9.New" && resolve(undefined)));
  assert.deepEqual(seen.slice(2), ["chat.v1.Comment", "shop.v9.New"]);
});

test("a listener that fails, and a message that cannot be read, are told and stop nobody", async (context) => {
  const { client, link } = await connected(context);
  const faults: TrestleError[] = [];
  const all = new Promise((resolve) => client.on("error", (fault) => faults.push(fault) === 5 && resolve(undefined)));
  client.on(CommentSchema, ({ text }) => {
    throw new Error(`on ${text}`);
  });
  client.on(CommentSchema, async ({ text }) => {
    throw new Error(`later on ${text}`);
  });
  link.say(comment("hi"));
  link.say(comment("", { payload: new Uint8Array([0xff]) }));
  link.say({ case: "error", value: { code: Code.INTERNAL, reason: "internal", message: "said by the test" } });
  await all;
  const reasons = faults.map(({ reason, cause }) => (cause instanceof Error && reason === "listener_failed" ? cause.message : reason));
  assert.deepEqual(reasons.sort(), ["internal", "later on hi", "malformed_payload", "malformed_payload", "on hi"]);
});

test("presence is told to who asked for it", async (context) => {
  const { client, link } = await connected(context);
  const room = client.channel("room:1", { presence: true });
  const event = new Promise((resolve) => room.onPresence(({ joined, left, sessions }) => resolve([joined.length, left.length, sessions])));
  const { id, value } = await link.expect("subscribe");
  assert.equal(value.presence, true);
  link.say({ case: "presenceEvent", value: { channel: "room:1", joined: [{ user: "ada" }] as never, sessions: 2, users: 2 } });
  link.say({ case: "subscribed", value: { channel: "room:1" } }, id);
  assert.deepEqual(await event, [1, 0, 2]);
});

test("several listen to one channel, and the last who leaves it leaves it for all", async (context) => {
  const { client, link } = await connected(context);
  const seen: string[] = [];
  const [one, two] = [client.channel("room:1"), client.channel("room:1")];
  one.on(CommentSchema, ({ text }) => seen.push(`one ${text}`));
  two.on(CommentSchema, ({ text }) => seen.push(`two ${text}`));
  assert.throws(() => client.channel("room:1", { since: { last: 5 } }), RangeError);
  assert.throws(() => client.channel("room:1", { presence: true }), RangeError);
  await link.seat();
  await Promise.all([one.joined(), two.joined()]);
  const first = new Promise((resolve) => two.on(CommentSchema, resolve));
  link.say(comment("1", { channel: "room:1" }));
  await first;
  await one.leave();
  const second = new Promise((resolve) => two.on(CommentSchema, resolve));
  link.say(comment("2", { channel: "room:1" }));
  await second;
  assert.deepEqual(seen, ["one 1", "two 1", "two 2"]);
  const left = two.leave();
  link.say(comment("3", { channel: "room:1" }));
  link.say({ case: "unsubscribed", value: { channel: "room:1" } }, (await link.expect("unsubscribe")).id);
  await left;
  assert.equal(seen.length, 3);
  await assert.rejects(one.joined(), { reason: "closed" });
});

test("a channel that is refused says why, now and after a reconnect", async (context) => {
  const denied: Said = { case: "error", value: { code: Code.PERMISSION_DENIED, reason: "channel_subscribe" } };
  const { gateway, client, link } = await connected(context);
  const [never, once] = [client.channel("room:1"), client.channel("room:2")];
  const told = [never, once].map((room) => new Promise<TrestleError>((resolve) => room.onError(resolve)));
  link.say(denied, (await link.expect("subscribe")).id);
  await link.seat();
  await assert.rejects(never.joined(), { reason: "channel_subscribe" });
  await once.joined();
  link.cut();
  const next = await gateway.accept();
  await next.welcome();
  const { id, value } = await next.expect("subscribe");
  assert.equal(value.channel, "room:2");
  next.say(denied, id);
  for (const error of await Promise.all(told)) assert.equal(error.reason, "channel_subscribe");
  const again = client.channel("room:1");
  await next.seat();
  await again.joined();
});

test("the inbox is one channel under its short name, acked until the gateway knows", async (context) => {
  const { gateway, client, link } = await connected(context);
  const accepted: Said = { case: "accepted", value: { level: AckLevel.DURABLE } };
  const inbox = client.inbox();
  const subscribe = await link.expect("subscribe");
  assert.deepEqual([subscribe.value.channel, subscribe.value.from.case], ["inbox", undefined]);
  link.say({ case: "subscribed", value: { channel: "inbox:ada", offset: 5n, recovered: true } }, subscribe.id);
  const heard = new Promise((resolve) => inbox.on(CommentSchema, ({ text }, { offset }) => {
    inbox.ack(offset);
    if (text === "5") resolve(undefined);
  }));
  for (const offset of [3n, 4n, 5n]) link.say(comment(String(offset), { channel: "inbox:ada", offset, prevOffset: offset - 1n }));
  await heard;
  const first = await link.acks.next();
  assert.equal(first.value.inboxOffset, 3n);
  link.say(accepted, first.id);
  const second = await link.acks.next();
  assert.equal(second.value.inboxOffset, 5n, "what was acked meanwhile goes with the next");
  link.cut();
  const next = await gateway.accept();
  const { resume } = await next.welcome({ sessionId: "n2.1" });
  assert.deepEqual(resume?.channels.map(({ channel, offset }) => [channel, offset]), [["inbox:ada", 5n]]);
  const { from } = await next.seat(5n, true);
  assert.deepEqual(from, { case: "offset", value: 5n });
  const again = await next.acks.next();
  assert.equal(again.value.inboxOffset, 5n);
  next.say(accepted, again.id);
  inbox.ack(4n);
  const last = client.publish("room:1", CommentSchema, { text: "" });
  next.say(accepted, (await next.expect("publish")).id);
  await last;
  assert.equal(next.acks.size, 0);
});
