// What is handed out of one channel, without sockets.

import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { GapReason, GapSchema, SubscribedSchema } from "../src/gen/trestle/v1/client_pb.js";
import { EnvelopeSchema } from "../src/gen/trestle/v1/envelope_pb.js";
import { Room, type Since } from "../src/room.js";

/** A joined room and what it has handed out: offsets, and gaps as "from-to". */
function joined(since: Since | undefined, offset: bigint, recovered = false): { room: Room; told: string[] } {
  const room = new Room("room:1", since, false);
  const told: string[] = [];
  room.hearers.add({
    message: ({ offset, id }) => told.push(offset > 0n ? String(offset) : id),
    gap: ({ from, to }) => told.push(`${from}-${to}`),
    presence: () => {},
    joined: () => {},
    refused: () => {},
  });
  room.welcomed(subscribed(offset, recovered));
  return { room, told };
}

const subscribed = (offset: bigint, recovered = false) => create(SubscribedSchema, { channel: "room:1", offset, recovered });
const message = (offset: bigint, prevOffset = offset - 1n) => create(EnvelopeSchema, { offset, prevOffset });
const gap = (from: bigint, to: bigint) => create(GapSchema, { channel: "room:1", from, to, reason: GapReason.SLOW });

test("what was handed out is not handed out again", () => {
  const { room, told } = joined(undefined, 10n);
  for (const offset of [9n, 10n, 11n, 11n, 12n, 5n, 13n]) room.delivery(message(offset));
  assert.deepEqual(told, ["11", "12", "13"]);
});

test("a hole that nobody told of is told", () => {
  const { room, told } = joined(undefined, 10n);
  room.delivery(message(15n, 12n));
  room.delivery(message(16n));
  room.delivery(message(20n, 19n));
  assert.deepEqual(told, ["11-12", "15", "16", "17-19", "20"]);
});

test("offsets need not follow each other, only on the one before", () => {
  const { room, told } = joined(undefined, 10n);
  room.delivery(message(17n, 10n));
  room.delivery(message(30n, 17n));
  assert.deepEqual(told, ["17", "30"]);
});

test("a hole that the gateway has told of is told once", () => {
  const { room, told } = joined(undefined, 10n);
  room.gap(gap(11n, 14n));
  room.delivery(message(15n));
  room.gap(gap(0n, 0n));
  room.delivery(message(25n, 20n));
  room.delivery(message(30n, 28n));
  assert.deepEqual(told, ["11-14", "15", "0-0", "25", "26-28", "30"]);
});

test("a log that takes the place of one that was lost is gone on with", () => {
  const { room, told } = joined(undefined, 10n);
  room.delivery(message(1n, 0n));
  room.gap(gap(11n, 0n));
  for (const offset of [1n, 1n, 2n]) room.delivery(message(offset));
  assert.deepEqual(told, ["11-0", "1", "2"]);
});

test("the first of the last so many may follow on anything, the first after an offset may not", () => {
  const last = joined({ last: 2 }, 50n, true);
  last.room.delivery(message(49n, 48n));
  assert.deepEqual(last.told, ["49"]);
  const after = joined({ offset: 40 }, 50n, true);
  after.room.delivery(message(49n, 48n));
  assert.deepEqual(after.told, ["41-48", "49"]);
  const all = joined({ offset: 0n }, 50n, true);
  all.room.delivery(message(37n, 36n));
  assert.deepEqual(all.told, ["37"], "0 is everything that is kept");
});

test("messages without offsets come as they come", () => {
  const { room, told } = joined(undefined, 0n);
  for (const id of ["a", "b", "b"]) room.delivery(create(EnvelopeSchema, { id }));
  assert.deepEqual(told, ["a", "b", "b"]);
});

test("each way to begin is asked for as the contract has it, then the place that was heard", () => {
  const time = new Date(1_500);
  const from = (since: Since | undefined) => {
    const asked = new Room("room:1", since, false).subscribe();
    return asked.case === "subscribe" ? asked.value.from : undefined;
  };
  assert.equal(from(undefined), undefined);
  assert.deepEqual(from({ offset: 7 }), { case: "offset", value: 7n });
  assert.deepEqual(from({ offset: 0n }), { case: "offset", value: 0n });
  assert.deepEqual(from({ last: 20 }), { case: "last", value: 20 });
  const since = from({ time });
  assert.deepEqual([since?.case, since?.case === "since" && since.value.seconds, since?.case === "since" && since.value.nanos], ["since", 1n, 500_000_000]);
  const { room } = joined({ last: 20 }, 50n, true);
  room.delivery(message(49n));
  room.lapse();
  const again = room.subscribe();
  assert.deepEqual(again.case === "subscribe" && again.value.from, { case: "offset", value: 49n });
});

test("while a channel is not joined, nothing of it is handed out", () => {
  const { room, told } = joined(undefined, 10n);
  room.lapse();
  room.delivery(message(11n));
  room.gap(gap(1n, 2n));
  assert.equal(room.welcomed(subscribed(11n, true)), "stay");
  room.delivery(message(11n));
  assert.deepEqual(told, ["11"]);
});

test("who stops listening because of a message does not get it by another way", () => {
  const { room } = joined(undefined, 10n);
  const told: string[] = [];
  const nothing = { gap: () => {}, presence: () => {}, joined: () => {}, refused: () => {} };
  const second = { ...nothing, message: () => told.push("second") };
  room.hearers.add({ ...nothing, message: () => room.hearers.delete(second) });
  room.hearers.add(second);
  room.delivery(message(11n));
  assert.deepEqual(told, []);
});
