// client.js WS_URL: two clients, one a subprotocol, with generated types; prints one JSON line of what each saw.
import { create, fromBinary, fromJson, toBinary, toJson, type DescMessage, type JsonObject, type MessageInitShape, type MessageShape } from "@bufbuild/protobuf";
import WebSocket from "ws";
import { CommentSchema } from "./stubs/typescript/chat/v1/chat_pb.js";
import { GetQuoteSchema, OrderPaidSchema, QuoteSchema, ReceiptSchema } from "./stubs/typescript/shop/v1/shop_pb.js";
import {
  type ClientFrameSchema, ClientFramesSchema, type ServerFrame, ServerFramesSchema,
} from "./stubs/typescript/trestle/v1/client_pb.js";
import { AckLevel, EnvelopeSchema } from "./stubs/typescript/trestle/v1/envelope_pb.js";

const PATIENCE_MS = 10_000;

/** What has come and was not taken yet, and who waits for what. */
class Inbox<T> {
  #items: T[] = [];
  #waiting: { wanted: (item: T) => boolean; give: (item: T) => void }[] = [];

  put(item: T) {
    const at = this.#waiting.findIndex(({ wanted }) => wanted(item));
    if (at < 0) this.#items.push(item);
    else this.#waiting.splice(at, 1)[0].give(item);
  }

  take(what: string, wanted: (item: T) => boolean): Promise<T> {
    const at = this.#items.findIndex(wanted);
    if (at >= 0) return Promise.resolve(this.#items.splice(at, 1)[0]);
    return new Promise((give, fail) => {
      const late = setTimeout(() => fail(new Error(`no ${what} came; instead: ${show(this.#items)}`)), PATIENCE_MS);
      this.#waiting.push({ wanted, give: (item) => { clearTimeout(late); give(item); } });
    });
  }
}

const show = (value: unknown) => JSON.stringify(value, (_, item) => (typeof item === "bigint" ? String(item) : item));

async function open(subprotocol: string, receive: (data: Buffer, binary: boolean) => void): Promise<WebSocket> {
  const socket = new WebSocket(process.argv[2], subprotocol);
  socket.on("message", receive);
  await new Promise((resolve, reject) => { socket.on("open", resolve); socket.on("error", reject); });
  if (socket.protocol !== subprotocol) throw new Error(`asked for ${subprotocol}, got "${socket.protocol}"`);
  return socket;
}

type Ask = MessageInitShape<typeof ClientFrameSchema>["frame"];

/** Speaks trestle.v1.proto: every frame and payload is a generated type. */
class ProtobufClient {
  #inbox = new Inbox<ServerFrame>();
  #socket!: WebSocket;
  #lastId = 0;

  static async connect() {
    const client = new ProtobufClient();
    client.#socket = await open("trestle.v1.proto", (data, binary) => {
      if (!binary) throw new Error("text on the binary subprotocol");
      for (const frame of fromBinary(ServerFramesSchema, data).frames) client.#inbox.put(frame);
    });
    const { value } = await client.ask({ case: "connect", value: {} }, "connected");
    return { client, sessionId: value.sessionId };
  }

  /** Sends a frame and gives its answer, which must be of `kind`. */
  async ask<K extends ServerFrame["frame"]["case"]>(frame: NonNullable<Ask>, kind: K) {
    const id = (this.#lastId += 1);
    this.#socket.send(toBinary(ClientFramesSchema, create(ClientFramesSchema, { frames: [{ id, frame }] })));
    const answer = await this.#inbox.take(`answer to ${frame.case}`, ({ replyTo }) => replyTo === id);
    if (answer.frame.case !== kind) throw new Error(`${frame.case} was answered with ${show(answer)}`);
    return answer.frame as Extract<ServerFrame["frame"], { case: K }>;
  }

  async next<D extends DescMessage>(schema: D): Promise<MessageShape<D>> {
    const { frame } = await this.#inbox.take(schema.typeName, ({ frame }) => frame.case === "delivery" && frame.value.messageType === schema.typeName);
    if (frame.case !== "delivery") throw new Error("unreachable");
    return fromBinary(schema, frame.value.payload);
  }

  close() { this.#socket.close(); }
}

interface JsonFrame { replyTo?: number; [kind: string]: any }

/** Speaks trestle.v1.json: frames by hand, payloads by the canonical JSON of their generated types. */
class JsonClient {
  #inbox = new Inbox<JsonFrame>();
  #socket!: WebSocket;
  #lastId = 0;

  static async connect() {
    const client = new JsonClient();
    client.#socket = await open("trestle.v1.json", (data, binary) => {
      if (binary) throw new Error("binary on the text subprotocol");
      for (const frame of [JSON.parse(data.toString())].flat()) client.#inbox.put(frame);
    });
    const { sessionId } = await client.ask({ connect: {} }, "connected");
    return { client, sessionId };
  }

  async ask(frame: JsonObject, kind: string): Promise<any> {
    const id = (this.#lastId += 1);
    this.#socket.send(JSON.stringify({ id, ...frame }));
    const answer = await this.#inbox.take(`answer to ${show(frame)}`, ({ replyTo }) => replyTo === id);
    if (!(kind in answer)) throw new Error(`${show(frame)} was answered with ${show(answer)}`);
    return answer[kind];
  }

  async next<D extends DescMessage>(schema: D): Promise<MessageShape<D>> {
    const { delivery } = await this.#inbox.take(schema.typeName, ({ delivery }) => delivery?.messageType === schema.typeName);
    return fromJson(schema, delivery.payload);
  }

  close() { this.#socket.close(); }
}

const channel = "room:42";
const json = await JsonClient.connect();
const protobuf = await ProtobufClient.connect();
await json.client.ask({ subscribe: { channel } }, "subscribed");
await protobuf.client.ask({ case: "subscribe", value: { channel } }, "subscribed");

// Chat: each publishes once, both get both.
const comments: Record<string, string[]> = { json: [], protobuf: [] };
const listen = async () => {
  for (const [name, { client }] of Object.entries({ json, protobuf })) {
    const { author, text } = await client.next(CommentSchema);
    comments[name].push(`${author}: ${text}`);
  }
};
const said = create(CommentSchema, { author: "json", text: "hi ☃" });
await json.client.ask({ publish: { channel, message: { messageType: CommentSchema.typeName, payload: toJson(CommentSchema, said) } } }, "accepted");
await listen();
const heard = toBinary(CommentSchema, create(CommentSchema, { author: "protobuf", text: "hello" }));
await protobuf.client.ask({
  case: "publish",
  value: { channel, message: create(EnvelopeSchema, { messageType: CommentSchema.typeName, payload: heard }) },
}, "accepted");
await listen();

// An order: the shorthand in JSON, an alias in protobuf; the receipt is pushed to the session that paid.
// HANDLED says that the service is there, so the requests after it find it.
const order = create(OrderPaidSchema, { orderId: "o-json", cents: 9007199254740993n });
const paid = await json.client.ask({ messageType: "ORDER_PAID", version: "1.0", payload: toJson(OrderPaidSchema, order) }, "accepted");
const { value: alsoPaid } = await protobuf.client.ask({
  case: "message",
  value: create(EnvelopeSchema, {
    messageType: "ORDER_PAID", version: "1.0",
    payload: toBinary(OrderPaidSchema, create(OrderPaidSchema, { orderId: "o-protobuf", cents: 250n })),
  }),
}, "accepted");

// A request to a service, in both.
const wanted = create(GetQuoteSchema, { sku: "a1", quantity: 3 });
const reply = await json.client.ask({ request: { message: { messageType: GetQuoteSchema.typeName, payload: toJson(GetQuoteSchema, wanted) }, timeout: "5s" } }, "reply");
const { value: replied } = await protobuf.client.ask({
  case: "request",
  value: { message: create(EnvelopeSchema, { messageType: "GET_QUOTE", payload: toBinary(GetQuoteSchema, wanted) }) },
}, "reply");

console.log(show({
  sessions: json.sessionId !== "" && protobuf.sessionId !== "" && json.sessionId !== protobuf.sessionId,
  comments,
  quotes: { json: fromJson(QuoteSchema, reply.payload), protobuf: fromBinary(QuoteSchema, replied.payload) },
  orders: { json: paid.level, protobuf: AckLevel[alsoPaid.level] },
  receipts: { json: await json.client.next(ReceiptSchema), protobuf: await protobuf.client.next(ReceiptSchema) },
}));
json.client.close();
protobuf.client.close();
