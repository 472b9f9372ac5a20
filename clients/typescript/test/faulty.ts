// A small gateway that does all that a resume needs, and loses connections, answers and sessions by a seed.

import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { WebSocket, WebSocketServer } from "ws";
import { CommentSchema } from "../build/stubs/typescript/chat/v1/chat_pb.js";
import { SUBPROTOCOL } from "../src/frames.js";
import { type ClientFrame, ClientFramesSchema, type Connect, GapReason, ServerFramesSchema } from "../src/gen/trestle/v1/client_pb.js";
import { type Envelope, EnvelopeSchema } from "../src/gen/trestle/v1/envelope_pb.js";
import { Code } from "../src/gen/trestle/v1/errors_pb.js";
import { type Said, welcome } from "./gateway.js";

interface Framed {
  replyTo: number;
  frame: Said;
}

/** Frames that are kept for a resume: few, so that some resumes come too late. */
const KEPT = 24;

/** A generator of numbers from 0 to 1 (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A client's stay at the gateway. */
class Stay {
  count = 0;
  readonly kept: Framed[] = [];
  readonly channels = new Set<string>();
  readonly seen = new Set<number>();
  socket: WebSocket | undefined;

  constructor(
    readonly id: string,
    public token: string,
  ) {}

  /** Says a frame, now or when the client is back. */
  say(frame: Said, replyTo = 0): void {
    this.count += 1;
    this.kept.push({ replyTo, frame });
    if (this.kept.length > KEPT) this.kept.shift();
    if (this.socket !== undefined) write(this.socket, [{ replyTo, frame }]);
  }
}

export class FaultyGateway {
  /** How likely a fault is at each step. */
  trouble = 0;
  /** What has happened, by name. */
  readonly happened = new Map<string, number>();
  readonly #stays = new Map<string, Stay>();
  readonly #logs = new Map<string, Envelope[]>();
  readonly #ids = new Set<string>();
  #made = 0;

  constructor(
    readonly server: WebSocketServer,
    readonly random: () => number,
  ) {
    server.on("connection", (socket) => this.#accept(socket));
  }

  static async start(random: () => number): Promise<FaultyGateway> {
    const server = new WebSocketServer({ host: "127.0.0.1", port: 0, handleProtocols: () => SUBPROTOCOL });
    await once(server, "listening");
    return new FaultyGateway(server, random);
  }

  get url(): string {
    return `ws://127.0.0.1:${(this.server.address() as AddressInfo).port}/ws`;
  }

  stop(): void {
    for (const socket of this.server.clients) socket.terminate();
    this.server.close();
  }

  /** The messages that were accepted on a channel. */
  log(channel: string): Envelope[] {
    const log = this.#logs.get(channel) ?? [];
    this.#logs.set(channel, log);
    return log;
  }

  /** Takes a message on a channel, once for its id; channels named `live` keep no history. */
  publish(channel: string, text: string, id: string): bigint {
    const log = this.log(channel);
    if (!this.#ids.has(id)) {
      this.#ids.add(id);
      const kept = !channel.startsWith("live");
      // Offsets have holes, as a log has messages of other channels too.
      const prevOffset = kept ? (log.at(-1)?.offset ?? 0n) : 0n;
      const offset = kept ? prevOffset + 1n + BigInt(Math.floor(this.random() * 3)) : 0n;
      const payload = toBinary(CommentSchema, create(CommentSchema, { text }));
      const envelope = create(EnvelopeSchema, { id, messageType: CommentSchema.typeName, channel, offset, prevOffset, payload });
      log.push(envelope);
      for (const stay of this.#stays.values()) {
        if (stay.channels.has(channel)) stay.say({ case: "delivery", value: envelope });
      }
    }
    return log.at(-1)?.offset ?? 0n;
  }

  /** Perhaps does somebody harm. */
  harm(): void {
    for (const stay of [...this.#stays.values()]) {
      if (this.#bad(0.2)) stay.say({ case: "draining", value: {} });
      if (this.#bad(0.3)) this.#cut(stay);
      if (this.#bad(0.05)) {
        this.#note("session lost");
        this.#stays.delete(stay.id);
        this.#cut(stay);
      }
    }
  }

  #bad(share: number): boolean {
    return this.random() < this.trouble * share;
  }

  #note(what: string): void {
    this.happened.set(what, (this.happened.get(what) ?? 0) + 1);
  }

  #cut(stay: Stay): void {
    stay.socket?.terminate();
    stay.socket = undefined;
  }

  #accept(socket: WebSocket): void {
    let stay: Stay | undefined;
    socket.on("error", () => {});
    socket.on("close", () => {
      if (stay?.socket === socket) stay.socket = undefined;
    });
    socket.on("message", (data: Buffer) => {
      for (const frame of fromBinary(ClientFramesSchema, data).frames) {
        if (this.#bad(0.1)) socket.terminate(); // the rest of it is never read
        if (socket.readyState !== WebSocket.OPEN || (stay !== undefined && stay.socket !== socket)) return;
        if (frame.frame.case === "connect") stay = this.#connect(socket, frame.id, frame.frame.value);
        else if (stay !== undefined) this.#frame(stay, frame);
        if (this.#bad(0.1) && stay !== undefined) this.#cut(stay); // done, and the answer may be lost
      }
    });
  }

  #connect(socket: WebSocket, id: number, { resume }: Connect): Stay | undefined {
    if (this.#bad(0.5)) {
      write(socket, [{ replyTo: id, frame: { case: "error", value: { code: Code.UNAVAILABLE, reason: "too_busy", retryable: true, retryAfter: { nanos: 1 } as never } } }]);
      socket.close(4003, "node is busy, reconnect later");
      this.#note("busy");
      return undefined;
    }
    const token = `token ${(this.#made += 1)}`;
    const known = this.#stays.get(resume?.sessionId ?? "");
    if (resume === undefined || known === undefined || known.token !== resume.token) {
      const stay = new Stay(`n1.${this.#made}`, token);
      this.#stays.set(stay.id, stay);
      stay.socket = socket;
      write(socket, [{ replyTo: id, frame: welcome({ sessionId: stay.id, resumeToken: token }) }]);
      this.#note("begun");
      return stay;
    }
    known.token = token;
    if (known.socket?.readyState === WebSocket.OPEN) this.#note("moved");
    known.socket?.close(4502, "session goes on on another connection");
    known.socket = socket;
    const received = Number(resume.received);
    if (received > known.count) throw new RangeError(`the client counts ${received} of ${known.count} frames`);
    const missed = known.count - received;
    if (missed <= known.kept.length && !this.#bad(0.5)) this.#goOn(known, id, received, resume.outstanding);
    else this.#recover(known, id, resume.channels, resume.outstanding);
    return known;
  }

  /** The stream of frames goes on by the count. */
  #goOn(stay: Stay, id: number, received: number, outstanding: number[]): void {
    this.#note("resumed");
    const subscriptions = [...stay.channels].map((channel) => ({ channel, recovered: true, offset: this.log(channel).at(-1)?.offset ?? 0n }));
    const connected = welcome({ sessionId: stay.id, resumeToken: stay.token, resumed: true, received: BigInt(received), subscriptions: subscriptions as never });
    const missed = stay.kept.slice(stay.kept.length - (stay.count - received));
    write(stay.socket, [{ replyTo: id, frame: connected }, ...missed]);
    for (const lost of outstanding.filter((id) => !stay.seen.has(id))) stay.say(answerLost, lost);
  }

  /** Each channel goes on by its history, or says that it does not. */
  #recover(stay: Stay, id: number, positions: { channel: string; offset: bigint }[], outstanding: number[]): void {
    this.#note("recovered");
    stay.count = 0;
    stay.kept.length = 0;
    stay.channels.clear();
    const connected = welcome({ sessionId: stay.id, resumeToken: stay.token, resumed: true, received: 0n });
    write(stay.socket, [{ replyTo: id, frame: connected }]);
    stay.say({ case: "gap", value: { reason: GapReason.FAILOVER } });
    for (const lost of outstanding) stay.say(answerLost, lost);
    for (const { channel, offset } of positions) {
      this.#seat(stay, channel, 0, channel.startsWith("live") ? undefined : offset);
      if (channel.startsWith("live")) stay.say({ case: "gap", value: { channel, reason: GapReason.FAILOVER } });
    }
  }

  #seat(stay: Stay, channel: string, id: number, after: bigint | undefined): void {
    stay.channels.add(channel);
    const offset = this.log(channel).at(-1)?.offset ?? 0n;
    stay.say({ case: "subscribed", value: { channel, recovered: after !== undefined, offset } }, id);
    if (after === undefined) return;
    for (const envelope of this.log(channel)) if (envelope.offset > after) stay.say({ case: "delivery", value: envelope });
  }

  #frame(stay: Stay, { id, frame }: ClientFrame): void {
    stay.seen.add(id);
    switch (frame.case) {
      case "subscribe":
        if (stay.channels.has(frame.value.channel)) {
          stay.say({ case: "error", value: { code: Code.ALREADY_EXISTS, reason: "already_subscribed" } }, id);
        } else {
          this.#seat(stay, frame.value.channel, id, frame.value.from.case === "offset" ? frame.value.from.value : undefined);
        }
        break;
      case "unsubscribe":
        stay.channels.delete(frame.value.channel);
        stay.say({ case: "unsubscribed", value: { channel: frame.value.channel } }, id);
        break;
      case "publish": {
        const { channel, message } = frame.value;
        const { text } = fromBinary(CommentSchema, message?.payload ?? new Uint8Array());
        if (this.#bad(0.1)) {
          stay.say({ case: "error", value: { code: Code.UNAVAILABLE, reason: "bus_away", retryable: true, retryAfter: { nanos: 1e6 } as never } }, id);
          break;
        }
        const offset = this.publish(channel, text, message?.id ?? "");
        stay.say({ case: "accepted", value: { offset } }, id);
        break;
      }
      case "ping":
        stay.say({ case: "pong", value: {} }, id);
        break;
      default:
    }
  }
}

const answerLost: Said = { case: "error", value: { code: Code.UNAVAILABLE, reason: "answer_lost", retryable: true } };

function write(socket: WebSocket | undefined, frames: Framed[]): void {
  socket?.send(toBinary(ServerFramesSchema, create(ServerFramesSchema, { frames })), () => {});
}
