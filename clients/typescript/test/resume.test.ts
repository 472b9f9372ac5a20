// A session outlives its connection.

import assert from "node:assert/strict";
import { test } from "node:test";
import { CommentSchema } from "../build/stubs/typescript/chat/v1/chat_pb.js";
import { GetQuoteSchema, OrderPaidSchema, QuoteSchema } from "../build/stubs/typescript/shop/v1/shop_pb.js";
import { create, toBinary } from "@bufbuild/protobuf";
import { type Gap, GapReason, TrestleError } from "../src/index.js";
import { AckLevel } from "../src/gen/trestle/v1/envelope_pb.js";
import { Code } from "../src/gen/trestle/v1/errors_pb.js";
import { comment, connected, entering, type Said, state, text } from "./gateway.js";

const answerLost: Said = { case: "error", value: { code: Code.UNAVAILABLE, reason: "answer_lost", retryable: true } };
const accepted: Said = { case: "accepted", value: { level: AckLevel.DURABLE } };

test("a client that lost its connection says what it has had", async (context) => {
  const { gateway, client, link } = await connected(context, {}, { received: 7n });
  const room = client.channel("room:1");
  await link.seat(10n);
  await room.joined();
  const reply = client.request(GetQuoteSchema, { sku: "a1" }, QuoteSchema);
  const { id } = await link.expect("request");
  const heard = new Promise((resolve) => room.on(CommentSchema, resolve));
  link.say(comment("hi", { channel: "room:1", offset: 11n, prevOffset: 10n }));
  await heard;
  link.cut();

  const next = await gateway.accept();
  const { resume } = await next.welcome({ resumed: true, received: 9n, resumeToken: "t2", subscriptions: [{ channel: "room:1", recovered: true, offset: 11n }] });
  assert.equal(resume?.sessionId, "n1.1");
  assert.equal(resume?.token, "t1");
  assert.equal(resume?.received, 9n, "7 before, the answer to subscribe, and the comment");
  assert.deepEqual(resume?.channels.map(({ channel, offset }) => [channel, offset]), [["room:1", 11n]]);
  assert.deepEqual(resume?.outstanding, [id]);
  const payload = toBinary(QuoteSchema, create(QuoteSchema, { sku: "a1", cents: 5n }));
  next.say({ case: "reply", value: { messageType: QuoteSchema.typeName, payload } }, id);
  assert.equal((await reply).cents, 5n, "the answer comes on the next connection");
  next.cut();

  const last = await gateway.accept();
  const again = (await last.welcome()).resume;
  assert.equal(again?.token, "t2", "a token serves once");
  assert.equal(again?.received, 10n);
});

test("what was missed comes once and in order", async (context) => {
  const { gateway, client, link } = await connected(context);
  const room = client.channel("room:1");
  const texts: string[] = [];
  const gaps: Gap[] = [];
  room.on(CommentSchema, ({ text }) => texts.push(text));
  room.onGap((gap) => gaps.push(gap));
  await link.seat(0n);
  link.say(comment("1", { channel: "room:1", offset: 1n }));
  link.say(comment("2", { channel: "room:1", offset: 2n, prevOffset: 1n }));
  link.cut();

  const next = await gateway.accept();
  await next.welcome({ resumed: true, received: 3n, subscriptions: [{ channel: "room:1", recovered: true, offset: 3n }] });
  const heard = new Promise((resolve) => room.on(CommentSchema, ({ text }) => text === "4" && resolve(text)));
  for (const [at, offset] of [1n, 2n, 3n, 4n].entries()) {
    next.say(comment(String(at + 1), { channel: "room:1", offset, prevOffset: offset - 1n }));
  }
  await heard;
  assert.deepEqual(texts, ["1", "2", "3", "4"]);
  assert.deepEqual(gaps, []);
});

test("where another session begins, channels go on after their last offset, and what has none is told as a gap", async (context) => {
  const { gateway, client, link } = await connected(context);
  const told: string[] = [];
  client.on("gap", (gap) => told.push(`"${gap.channel}" ${GapReason[gap.reason]}`));
  const [logged, live] = [client.channel("room:1"), client.channel("live:1")];
  for (const room of [logged, live]) room.onGap((gap) => told.push(`"${gap.channel}" ${GapReason[gap.reason]}`));
  await link.seat(10n);
  await link.seat(0n);
  await Promise.all([logged.joined(), live.joined()]);
  const again = entering(client, "connected");
  link.cut();

  const next = await gateway.accept();
  await next.welcome({ sessionId: "n2.1", resumed: false });
  assert.equal((await again).resumed, false);
  const from = new Map();
  for (const offset of [10n, 0n]) {
    const value = await next.seat(offset, offset > 0n);
    from.set(value.channel, value.from.case === "offset" ? value.from.value : "now");
  }
  assert.deepEqual(from, new Map<string, unknown>([["room:1", 10n], ["live:1", "now"]]));
  await Promise.all([logged.joined(), live.joined()]);
  assert.deepEqual(told, ['"" FAILOVER', '"live:1" FAILOVER']);
});

test("a channel that was empty is heard from its first message in the next session", async (context) => {
  const { gateway, client, link } = await connected(context);
  const room = client.channel("room:1");
  const first = new Promise((resolve) => room.on(CommentSchema, ({ text }) => resolve(text)));
  await link.seat(0n);
  await room.joined();
  link.cut();

  const next = await gateway.accept();
  await next.welcome({ sessionId: "n2.1" });
  assert.equal((await next.seat(2n)).from.case, undefined, "whether it keeps a history is not known yet");
  await next.expect("unsubscribe").then(({ id }) => next.say({ case: "unsubscribed", value: {} }, id));
  const { from } = await next.seat(2n, true);
  assert.deepEqual(from, { case: "offset", value: 0n });
  next.say(comment("first", { channel: "room:1", offset: 1n }));
  assert.equal(await first, "first");
});

test("a channel whose first messages were asked for is asked for again if none came", async (context) => {
  const { gateway, client, link } = await connected(context);
  const room = client.channel("room:1", { since: { last: 20 } });
  await link.seat(5n, true);
  await room.joined();
  link.cut();
  const next = await gateway.accept();
  const { resume } = await next.welcome({ resumed: true, received: 0n });
  assert.deepEqual(resume?.channels, [], "its place is not known");
  assert.deepEqual((await next.seat(5n, true)).from, { case: "last", value: 20 });
});

test("where the stream cannot go on by the count, each channel says how it does", async (context) => {
  const { gateway, client, link } = await connected(context);
  const [kept, denied] = [client.channel("room:1"), client.channel("room:2")];
  await link.seat(3n);
  await link.seat(4n);
  await Promise.all([kept.joined(), denied.joined()]);
  link.cut();

  const next = await gateway.accept();
  await next.welcome({ resumed: true, received: 0n });
  const told: unknown[] = [];
  kept.onGap(({ from, to }) => told.push([from, to]));
  kept.on(CommentSchema, ({ text }) => told.push(text));
  const refused = new Promise<TrestleError>((resolve) => denied.onError(resolve));
  next.sayAll([
    { frame: { case: "subscribed", value: { channel: "room:1", offset: 9n } } },
    { frame: { case: "gap", value: { channel: "room:1", from: 4n, to: 7n, reason: GapReason.RETENTION } } },
    { frame: comment("9", { channel: "room:1", offset: 9n, prevOffset: 7n }) },
    { frame: { case: "error", value: { code: Code.PERMISSION_DENIED, reason: "channel_subscribe" } } },
  ]);
  const { id, value } = await next.expect("subscribe");
  assert.equal(value.channel, "room:2", "an error that names no channel: the one without an answer asks");
  next.say({ case: "error", value: { code: Code.PERMISSION_DENIED, reason: "channel_subscribe" } }, id);
  assert.equal((await refused).reason, "channel_subscribe");
  await assert.rejects(denied.joined(), { reason: "channel_subscribe" });
  assert.deepEqual(told, [[4n, 7n], "9"]);
  next.cut();
  const { resume } = await (await gateway.accept()).welcome();
  assert.equal(resume?.received, 5n, "counted from 0");
  assert.deepEqual(resume?.channels.map(({ channel, offset }) => [channel, offset]), [["room:1", 9n]]);
});

test("a log that was lost is followed from its new beginning", async (context) => {
  const { gateway, client, link } = await connected(context);
  const room = client.channel("room:1");
  const texts: string[] = [];
  room.on(CommentSchema, ({ text }) => texts.push(text));
  await link.seat(1000n);
  await room.joined();
  link.cut();
  const next = await gateway.accept();
  await next.welcome({ sessionId: "n2.1" });
  await next.seat(2n, false);
  next.say({ case: "gap", value: { channel: "room:1", to: 2n, reason: GapReason.FAILOVER } });
  const heard = new Promise((resolve) => room.on(CommentSchema, resolve));
  next.say(comment("3", { channel: "room:1", offset: 3n, prevOffset: 2n }));
  await heard;
  assert.deepEqual(texts, ["3"]);
});

test("a message whose answer was lost is repeated with its id, a request only if that does no harm", async (context) => {
  const { gateway, client, link } = await connected(context);
  const sent = client.send(OrderPaidSchema, { orderId: "o1" });
  const once = client.request(GetQuoteSchema, { sku: "once" }, QuoteSchema);
  const often = client.request(GetQuoteSchema, { sku: "often" }, QuoteSchema, { idempotent: true });
  const first = await link.expect("message");
  const requests = [await link.expect("request"), await link.expect("request")];
  link.cut();

  const next = await gateway.accept();
  const { resume } = await next.welcome({ resumed: true, received: 0n });
  const lost = [first, ...requests].map(({ id }) => id);
  assert.deepEqual(resume?.outstanding, lost);
  for (const id of lost) next.say(answerLost, id);
  await assert.rejects(once, { reason: "answer_lost", retryable: true });
  const repeated = await next.expect("message");
  assert.equal(repeated.value.id, first.value.id);
  assert.notEqual(repeated.id, first.id);
  next.say(accepted, repeated.id);
  assert.equal((await sent).level, AckLevel.DURABLE);
  const asked = await next.expect("request");
  assert.equal(asked.value.message?.id, requests[1]?.value.message?.id);
  const payload = toBinary(QuoteSchema, create(QuoteSchema, { cents: 7n }));
  next.say({ case: "reply", value: { messageType: QuoteSchema.typeName, payload } }, asked.id);
  assert.equal((await often).cents, 7n);
});

test("a message does not overtake an earlier one whose answer is in doubt", async (context) => {
  const { gateway, client, link } = await connected(context);
  const publish = (text: string) => client.publish("room:1", CommentSchema, { text });
  const answers = [publish("1")];
  const first = await link.expect("publish");
  link.cut();
  await state(client, ({ name }) => name !== "connected");
  answers.push(publish("2"), client.publish("room:2", CommentSchema, { text: "elsewhere" }));

  const next = await gateway.accept();
  await next.welcome({ resumed: true, received: 0n });
  const other = await next.expect("publish");
  assert.equal(other.value.channel, "room:2", "another channel does not wait");
  next.say(accepted, other.id);
  next.say(answerLost, first.id);
  for (const expected of ["1", "2"]) {
    const { id, value } = await next.expect("publish");
    assert.equal(text(value.message?.payload ?? new Uint8Array()), expected);
    next.say(accepted, id);
  }
  await Promise.all(answers);
});

test("what the program has left is left, whatever was lost on the way", async (context) => {
  const { gateway, client, link } = await connected(context);
  const room = client.channel("room:1");
  await link.seat(3n);
  await room.joined();
  const left = room.leave();
  const { id } = await link.expect("unsubscribe");
  link.cut();
  const next = await gateway.accept();
  await next.welcome({ resumed: true, received: 1n, subscriptions: [{ channel: "room:1", recovered: true, offset: 3n }] });
  next.say(answerLost, id);
  const again = await next.expect("unsubscribe");
  next.say({ case: "unsubscribed", value: { channel: "room:1" } }, again.id);
  await left;
  assert.equal(next.frames.size, 0);
});
