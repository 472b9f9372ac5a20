// What the program sends and asks.

import assert from "node:assert/strict";
import { test } from "node:test";
import { create, toBinary } from "@bufbuild/protobuf";
import { durationMs } from "@bufbuild/protobuf/wkt";
import { CommentSchema } from "../build/stubs/typescript/chat/v1/chat_pb.js";
import { GetQuoteSchema, OrderPaidSchema, QuoteSchema } from "../build/stubs/typescript/shop/v1/shop_pb.js";
import { AckLevel, Code, type TrestleError } from "../src/index.js";
import { uuid } from "../src/identifier.js";
import { connected, Gateway, type Link, type Said, text } from "./gateway.js";

const accepted = (offset = 0n): Said => ({ case: "accepted", value: { level: AckLevel.DURABLE, offset } });
const refused = (reason: string, retryable: boolean, ms = 0): Said => ({
  case: "error",
  value: { code: Code.UNAVAILABLE, reason, retryable, message: "said by the test", ...(ms > 0 ? { retryAfter: { nanos: ms * 1e6 } as never } : {}) },
});
const quote = (cents: bigint): Said => ({
  case: "reply", value: { messageType: QuoteSchema.typeName, payload: toBinary(QuoteSchema, create(QuoteSchema, { cents })) },
});

test("a message carries its type, an id, and what the program gives", async (context) => {
  const { client, link } = await connected(context);
  const sent = client.send(OrderPaidSchema, { orderId: "o1", cents: 5n }, { version: "1.0", headers: { tenant: "acme" } });
  const { id, value } = await link.expect("message");
  assert.equal(value.messageType, "shop.v1.OrderPaid");
  assert.equal(value.version, "1.0");
  assert.deepEqual(value.headers, { tenant: "acme" });
  assert.match(value.id, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  link.say(accepted(7n), id);
  assert.deepEqual({ ...(await sent) }, { $typeName: "trestle.v1.Accepted", level: AckLevel.DURABLE, offset: 7n });
});

test("ids of messages are in the order of time", () => {
  const ids = [1, 2 ** 32 - 1, 2 ** 32, Date.now(), Date.now() + 1].map(uuid);
  assert.deepEqual([...ids].sort(), ids);
});

test("what is asked in one turn goes in one WebSocket message, in order", async (context) => {
  const { client, link } = await connected(context);
  const before = link.messages;
  const all = Array.from({ length: 50 }, (_, at) => client.publish("room:1", CommentSchema, { text: String(at) }));
  for (const at of all.keys()) {
    const { id, value } = await link.expect("publish");
    assert.equal(text(value.message?.payload ?? new Uint8Array()), String(at));
    link.say(accepted(BigInt(at + 1)), id);
  }
  assert.equal(link.messages, before + 1);
  assert.deepEqual((await Promise.all(all)).map(({ offset }) => offset), all.map((_, at) => BigInt(at + 1)));
});

test("no WebSocket message is larger than the gateway takes", async (context) => {
  const { client, link } = await connected(context, {}, { frameBytesMax: 1024 });
  let largest = 0;
  link.socket.on("message", (data: Buffer) => (largest = Math.max(largest, data.length)));
  const all = Array.from({ length: 8 }, () => client.publish("room:1", CommentSchema, { text: "x".repeat(300) }));
  await assert.rejects(client.publish("room:1", CommentSchema, { text: "x".repeat(1024) }), { reason: "frame_too_large" });
  for (const _ of all) link.say(accepted(), (await link.expect("publish")).id);
  await Promise.all(all);
  assert.ok(largest > 600 && largest <= 1024, `${largest} bytes`);
});

test("what is refused for now is repeated with the same id, not before the gateway's word", async (context) => {
  const { client, link } = await connected(context);
  const sent = client.send(OrderPaidSchema, { orderId: "o1" });
  const first = await link.expect("message");
  const begun = Date.now();
  link.say(refused("bus_away", true, 50), first.id);
  const second = await link.expect("message");
  assert.ok(Date.now() - begun >= 49, "50 ms were asked for");
  assert.equal(second.value.id, first.value.id);
  link.say(refused("no_credit", true), second.id);
  const third = await link.expect("message");
  assert.equal(third.value.id, first.value.id);
  link.say(accepted(), third.id);
  await sent;
});

test("what is refused for good is refused, with all that the gateway says", async (context) => {
  const { client, link } = await connected(context);
  const sent = client.send(OrderPaidSchema, { orderId: "" });
  const { id } = await link.expect("message");
  link.say({ case: "error", value: { code: Code.INVALID_ARGUMENT, reason: "rule_violated", field: "order_id", message: "must not be empty" } }, id);
  await assert.rejects(sent, { name: "TrestleError", code: Code.INVALID_ARGUMENT, reason: "rule_violated", field: "order_id", retryable: false, message: "must not be empty" });
});

test("repeating ends when the time is over, with the gateway's last word", async (context) => {
  const { client, link } = await connected(context, { retryFor: 1000 });
  const sent = client.send(OrderPaidSchema, { orderId: "o1" });
  const outcome = assert.rejects(sent, { reason: "bus_away" });
  const { id } = await link.expect("message");
  link.say(refused("bus_away", true, 600), id);
  link.say(refused("bus_away", true, 600), (await link.expect("message")).id);
  await outcome;
  await assert.rejects(client.send(OrderPaidSchema, { orderId: "o2" }, { retryFor: 20 }), { reason: "timeout", retryable: true });
});

test("a request is answered with a message of the type that was asked for", async (context) => {
  const { client, link } = await connected(context);
  const asked = client.request(GetQuoteSchema, { sku: "a1" }, QuoteSchema, { timeout: 2000 });
  const { id, value } = await link.expect("request");
  assert.equal(value.timeout === undefined ? 0 : durationMs(value.timeout), 2000);
  link.say(quote(199n), id);
  assert.equal((await asked).cents, 199n);

  const raw = client.request(GetQuoteSchema, { sku: "a1" }, undefined);
  link.say(quote(1n), (await link.expect("request")).id);
  assert.equal((await raw).messageType, "shop.v1.Quote");

  const other = client.request(GetQuoteSchema, { sku: "a1" }, OrderPaidSchema);
  link.say(quote(1n), (await link.expect("request")).id);
  await assert.rejects(other, { reason: "unexpected_answer" });
});

test("a request that was refused is not repeated, unless the gateway did nothing with it", async (context) => {
  const { client, link } = await connected(context);
  const asked = client.request(GetQuoteSchema, { sku: "a1" }, QuoteSchema, { idempotent: true });
  const first = await link.expect("request");
  link.say(refused("too_many_requests", true, 1), first.id);
  const second = await link.expect("request");
  assert.equal(second.value.message?.id, first.value.message?.id);
  link.say(refused("instance_lost", true), second.id);
  await assert.rejects(asked, { reason: "instance_lost" });
});

test("a program that no longer waits is told so, and what it asked is not written any more", async (context) => {
  const gateway = await Gateway.start(context);
  const client = gateway.client(context);
  const { signal, controller } = abortable();
  const asked = client.request(GetQuoteSchema, { sku: "a1" }, QuoteSchema, { signal });
  const outcome = assert.rejects(asked, { name: "AbortError" });
  controller.abort();
  await outcome;
  await assert.rejects(client.send(OrderPaidSchema, {}, { signal }), { name: "AbortError" });
  const link = await gateway.accept();
  await link.welcome();
  const last = client.publish("room:1", CommentSchema, { text: "only this" });
  link.say(accepted(), (await link.expect("publish")).id);
  await last;
});

test("at most 64 wait for their answers at the gateway, and 1,024 altogether", async (context) => {
  const { client, link } = await connected(context);
  const outcomes = Array.from({ length: 1030 }, (_, at) => client.publish("room:1", CommentSchema, { text: String(at) }).then(
    () => "accepted", (error: TrestleError) => error.reason));
  await answerAll(link, 1024);
  const counts = new Map<string, number>();
  for (const outcome of await Promise.all(outcomes)) counts.set(outcome, (counts.get(outcome) ?? 0) + 1);
  assert.deepEqual(counts, new Map([["accepted", 1024], ["queue_full", 6]]));
});

test("what is asked without a connection is written when there is one", async (context) => {
  const gateway = await Gateway.start(context);
  const client = gateway.client(context);
  const sent = client.send(OrderPaidSchema, { orderId: "early" });
  const link = await gateway.accept();
  await link.welcome();
  link.say(accepted(), (await link.expect("message")).id);
  await sent;
});

test("messages, pages and presence are asked for by channel", async (context) => {
  const { client, link } = await connected(context);
  const page = client.history("room:1", { after: 5, limit: 2 });
  const asked = await link.expect("history");
  assert.deepEqual([asked.value.channel, asked.value.page, asked.value.limit], ["room:1", { case: "after", value: 5n }, 2]);
  link.say({ case: "history", value: { channel: "room:1", messages: [{ offset: 6n }, { offset: 9n }] as never, more: true, offset: 20n } }, asked.id);
  assert.deepEqual((await page).messages.map(({ offset }) => offset), [6n, 9n]);
  const latest = client.history("room:1");
  const { id, value } = await link.expect("history");
  assert.deepEqual(value.page, { case: "before", value: 0n });
  link.say(refused("no_history", false), id);
  await assert.rejects(latest, { reason: "no_history" });
  const who = client.presence("room:1");
  link.say({ case: "presence", value: { sessions: 3, users: 2 } }, (await link.expect("presence")).id);
  assert.deepEqual([(await who).sessions, (await who).users], [3, 2]);
});

/** Answers `count` publishes, and sees that never more than 64 are open. */
async function answerAll(link: Link, count: number): Promise<void> {
  const open: number[] = [];
  for (let answered = 0; answered < count; ) {
    open.push((await link.expect("publish")).id);
    assert.ok(open.length <= 64, `${open.length} are open`);
    if (open.length < Math.min(64, count - answered)) continue;
    answered += open.length;
    for (const id of open.splice(0)) link.say(accepted(), id);
  }
}

function abortable(): { signal: AbortSignal; controller: AbortController } {
  const controller = new AbortController();
  return { signal: controller.signal, controller };
}
