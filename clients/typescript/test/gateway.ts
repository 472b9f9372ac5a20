// A gateway that does what a test says, frame by frame, on a real socket.

import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import type { TestContext } from "node:test";
import { WebSocket, WebSocketServer } from "ws";
import { type Client, connect, type Options, type State } from "../src/index.js";
import { SUBPROTOCOL } from "../src/frames.js";
import {
  type ClientFrame, ClientFramesSchema, type ConnectedSchema, ServerFrameSchema, ServerFramesSchema,
} from "../src/gen/trestle/v1/client_pb.js";
import { type EnvelopeSchema } from "../src/gen/trestle/v1/envelope_pb.js";
import { CommentSchema } from "../build/stubs/typescript/chat/v1/chat_pb.js";

/** A frame to the client, without its `reply_to`. */
export type Said = NonNullable<MessageInitShape<typeof ServerFrameSchema>["frame"]>;
/** What a frame of the client says. */
export type Heard<K> = Extract<ClientFrame["frame"], { case: K }>["value"];

/** Things that come one after the other, and who waits for the next. */
export class Queue<T> {
  readonly #items: T[] = [];
  readonly #waiting: ((item: T) => void)[] = [];

  put(item: T): void {
    const give = this.#waiting.shift();
    if (give === undefined) this.#items.push(item);
    else give(item);
  }

  next(): Promise<T> {
    const item = this.#items.shift();
    return item === undefined ? new Promise((give) => this.#waiting.push(give)) : Promise.resolve(item);
  }

  get size(): number {
    return this.#items.length;
  }
}

/** One connection, seen from the gateway. */
export class Link {
  readonly frames = new Queue<ClientFrame>();
  /** They come when they come, between the others. */
  readonly acks = new Queue<{ id: number; value: Heard<"ack"> }>();
  /** How many WebSocket messages have come. */
  messages = 0;
  readonly closed: Promise<{ code: number; reason: string }>;

  constructor(readonly socket: WebSocket) {
    socket.on("message", (data: Buffer) => {
      this.messages += 1;
      for (const { id, frame } of fromBinary(ClientFramesSchema, data).frames) {
        if (frame.case === "ack") this.acks.put({ id, value: frame.value });
        else this.frames.put({ id, frame } as ClientFrame);
      }
    });
    socket.on("error", () => {});
    this.closed = new Promise((resolve) =>
      socket.on("close", (code: number, reason: Buffer) => resolve({ code, reason: reason.toString() })));
  }

  /** The next frame, which must be of `kind`. */
  async expect<K extends NonNullable<ClientFrame["frame"]["case"]>>(kind: K): Promise<{ id: number; value: Heard<K> }> {
    const { id, frame } = await this.frames.next();
    if (frame.case !== kind) throw new Error(`the client said ${frame.case}, not ${kind}`);
    return { id, value: frame.value as Heard<K> };
  }

  /** Says one frame. */
  say(frame: Said, replyTo = 0): void {
    this.sayAll([{ replyTo, frame }]);
  }

  /** Says several in one WebSocket message. */
  sayAll(frames: { replyTo?: number; frame: Said }[]): void {
    this.socket.send(toBinary(ServerFramesSchema, create(ServerFramesSchema, { frames })));
  }

  /** Takes the client's `connect` and welcomes it. */
  async welcome(connected: MessageInitShape<typeof ConnectedSchema> = {}): Promise<Heard<"connect">> {
    const { id, value } = await this.expect("connect");
    this.say(welcome(connected), id);
    return value;
  }

  /** Takes a `subscribe` and answers it. */
  async seat(offset = 0n, recovered = false): Promise<Heard<"subscribe">> {
    const { id, value } = await this.expect("subscribe");
    this.say({ case: "subscribed", value: { channel: value.channel, offset, recovered } }, id);
    return value;
  }

  close(code: number, reason = ""): void {
    this.socket.close(code, reason);
  }

  /** The socket is gone, without a word. */
  cut(): void {
    this.socket.terminate();
  }
}

/** A server whose connections the test takes one after the other. */
export class Gateway {
  readonly links = new Queue<Link>();

  constructor(readonly server: WebSocketServer) {
    server.on("connection", (socket) => this.links.put(new Link(socket)));
  }

  static async start(context: TestContext): Promise<Gateway> {
    const server = new WebSocketServer({ host: "127.0.0.1", port: 0, handleProtocols: () => SUBPROTOCOL });
    await once(server, "listening");
    const gateway = new Gateway(server);
    context.after(() => gateway.stop());
    return gateway;
  }

  get url(): string {
    return `ws://127.0.0.1:${(this.server.address() as AddressInfo).port}/ws`;
  }

  accept(): Promise<Link> {
    return this.links.next();
  }

  stop(): void {
    for (const socket of this.server.clients) socket.terminate();
    this.server.close();
  }

  /** A client of this gateway that comes back at once, and goes with the test. */
  client(context: TestContext, options: Options = {}): Client {
    const client = connect(this.url, { WebSocket, reconnect: { base: 1, cap: 5 }, ...options });
    context.after(() => client.close());
    return client;
  }
}

/** A client, its gateway and their first connection. */
export async function connected(
  context: TestContext, options: Options = {}, welcomed: MessageInitShape<typeof ConnectedSchema> = {},
): Promise<{ gateway: Gateway; client: Client; link: Link }> {
  const gateway = await Gateway.start(context);
  const client = gateway.client(context, options);
  const link = await gateway.accept();
  await link.welcome(welcomed);
  await client.connected();
  return { gateway, client, link };
}

/** The `connected` frame of a session that can be resumed. */
export function welcome(connected: MessageInitShape<typeof ConnectedSchema>): Said {
  const value = { sessionId: "n1.1", resumeToken: "t1", node: "n1", pingInterval: { seconds: 25n }, frameBytesMax: 65536, ...connected };
  return { case: "connected", value } as Said;
}

/** A comment as it is delivered. */
export function comment(text: string, envelope: MessageInitShape<typeof EnvelopeSchema> = {}): Said {
  const payload = toBinary(CommentSchema, create(CommentSchema, { text }));
  return { case: "delivery", value: { messageType: CommentSchema.typeName, payload, ...envelope } } as Said;
}

/** The text of an envelope's comment. */
export function text(payload: Uint8Array): string {
  return fromBinary(CommentSchema, payload).text;
}

/** The next state for which `wanted` holds, the one there is included. */
export function state(client: Client, wanted: (state: State) => boolean): Promise<State> {
  if (wanted(client.state)) return Promise.resolve(client.state);
  return new Promise((resolve) => {
    const stop = client.on("state", (now) => {
      if (!wanted(now)) return;
      stop();
      resolve(now);
    });
  });
}

/** The next state of that name, the one there is not included. */
export function entering<N extends State["name"]>(client: Client, name: N): Promise<Extract<State, { name: N }>> {
  return new Promise((resolve) => {
    const stop = client.on("state", (now) => {
      if (now.name !== name) return;
      stop();
      resolve(now as Extract<State, { name: N }>);
    });
  });
}
