// What the compiler must know and must refuse; this file is compiled and never run.

import { CommentSchema } from "../build/stubs/typescript/chat/v1/chat_pb.js";
import { GetQuoteSchema, OrderPaidSchema, QuoteSchema } from "../build/stubs/typescript/shop/v1/shop_pb.js";
import { WebSocket } from "ws";
import { type Client, connect, type Envelope, type Gap, type Inbox, type State } from "../src/index.js";

export async function typed(client: Client): Promise<void> {
  const room = client.channel("room:42", { since: { last: 20 }, presence: true });
  room.on(CommentSchema, ({ author, text }, { offset, time }) => {
    const [by, said, at, when]: [string, string, bigint, bigint | undefined] = [author, text, offset, time?.seconds];
    return [by, said, at, when];
  });
  room.on(CommentSchema, async () => {});
  room.onOther((envelope: Envelope) => envelope.messageType);
  room.onGap((gap: Gap) => gap.count);
  room.onPresence(({ joined }) => joined.map(({ user }) => user));
  const { offset }: { offset: bigint } = await room.publish(CommentSchema, { text: "hi" });
  const quote = await client.request(GetQuoteSchema, { sku: "a1", quantity: 1 }, QuoteSchema, { timeout: 2000, idempotent: true });
  const cents: bigint = quote.cents;
  const raw: Envelope = await client.request(GetQuoteSchema, {}, undefined);
  const inbox: Inbox = client.inbox();
  inbox.on(CommentSchema, (_, { offset }) => inbox.ack(offset));
  client.on("state", (state: State) => state.name === "waiting" && state.until.getTime());
  await client.history("room:42", { before: offset, limit: 10 });
  void [cents, raw];
}

export function refused(client: Client): void {
  // @ts-expect-error a comment has no field of that name
  void client.publish("room:42", CommentSchema, { texts: "hi" });
  // @ts-expect-error cents are bigint
  void client.send(OrderPaidSchema, { cents: "199" });
  // @ts-expect-error the listener takes a Comment
  client.on(CommentSchema, (order: { orderId: string }) => order);
  // @ts-expect-error there is no such event
  client.on("reconnect", () => {});
  // @ts-expect-error one beginning, not two
  client.channel("room:42", { since: { last: 1, time: 5 } });
  // @ts-expect-error a page goes one way
  void client.history("room:42", { after: "1" });
  // @ts-expect-error only the inbox is acked
  client.channel("room:42").ack(1n);
}

/** The WebSocket of the package `ws` fits, as the platform's does. */
export const clients = [() => connect("wss://example.com/ws", { WebSocket }), () => connect("/ws", { WebSocket: globalThis.WebSocket })];
