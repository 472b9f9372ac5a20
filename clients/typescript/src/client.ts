// The client: what a program can say to the gateway, and what it hears.

import { create, type DescMessage, fromBinary, type MessageInitShape, type MessageShape, toBinary } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { Channel, type ChannelOptions, Inbox } from "./channel.js";
import type { Closed } from "./closing.js";
import { Driver } from "./driver.js";
import { closedError, TrestleError } from "./errors.js";
import type { AnswerKind, AnswerOf, Asked } from "./frames.js";
import type { Accepted, Gap, HistoryPage, PresenceState } from "./gen/trestle/v1/client_pb.js";
import { type Envelope, EnvelopeSchema } from "./gen/trestle/v1/envelope_pb.js";
import { Code } from "./gen/trestle/v1/errors_pb.js";
import { uuid } from "./identifier.js";
import { Listeners, type MessageListener, MessageListeners, type Stop } from "./listeners.js";
import { type Options, type Settings, settings } from "./options.js";
import type { Ask, Repeat } from "./outgoing.js";
import { INBOX } from "./room.js";
import { channelOrder, Session } from "./session.js";
import type { State } from "./state.js";

/** How long a request waits if the program does not say, in milliseconds: the gateway's default. */
const REQUEST_TIMEOUT_MS = 10_000;
/** How much longer than the gateway a request waits here: its answer that the time is over is better than none. */
const REQUEST_GRACE_MS = 5_000;

/** What may be said with a message. */
export interface MessageOptions {
  /** Deduplicates: the same id within two minutes is the same message. Default: a new one. */
  id?: string;
  /** Version of the type. Default: the highest that the gateway knows. */
  version?: string;
  /** The program's own, and `traceparent`. Keys are lower case. */
  headers?: Record<string, string>;
  /** For how long to repeat it until it is accepted, in milliseconds. Default: `retryFor` of the client. */
  retryFor?: number;
  /** Stops waiting; what is on its way may be done all the same. */
  signal?: AbortSignal;
}

/** What may be said with a request. */
export interface RequestOptions extends Omit<MessageOptions, "retryFor"> {
  /** How long to wait for the answer, in milliseconds. Default 10,000. */
  timeout?: number;
  /** Whether doing it twice does no harm: then it is asked again if its answer was lost. Default: no. */
  idempotent?: boolean;
}

/** Which page of a history: `after` goes forwards, `before` backwards; without either, the latest. */
export type HistoryPlace = ({ after: bigint | number } | { before?: bigint | number }) & {
  /** Most messages, at most 256. Default 50. */
  limit?: number;
};

/** What {@link Client.on} tells by name. */
export interface ClientEvents {
  /** The state has changed. */
  state: State;
  /** Something is missing that was pushed to this session, its user, its groups or everyone. */
  gap: Gap;
  /** Something went wrong for which nobody waits: a refusal, or a listener that failed. Without a listener it is printed. */
  error: TrestleError;
}

/** Connects to a gateway, and stays connected until {@link Client.close}. `url` may be several, of one cluster. */
export function connect(url: string | readonly string[], options: Options = {}): Client {
  return new Client(typeof url === "string" ? [url] : url, settings(options), Math.random);
}

/** A session with the gateway, over all its connections. Made by {@link connect}. */
export class Client {
  readonly #driver: Driver;
  readonly #session: Session;
  readonly #settings: Settings;
  readonly #messages: MessageListeners;
  readonly #events: { [K in keyof ClientEvents]: Listeners<ClientEvents[K]> };
  /** Settled when the client is closed for good, with why. */
  readonly closed: Promise<Closed>;

  /** Use {@link connect}. */
  constructor(urls: readonly string[], settings: Settings, random: () => number) {
    const report = (fault: TrestleError) => this.#report(fault);
    this.#settings = settings;
    this.#messages = new MessageListeners(report);
    this.#events = { state: new Listeners(report), gap: new Listeners(report), error: new Listeners(print) };
    this.#session = new Session({
      push: (envelope) => this.#messages.tell(envelope),
      gap: (gap) => this.#events.gap.tell(gap),
      fault: report,
      draining: (notice) => this.#driver.drain(notice),
      asked: () => this.#driver.asked(),
    }, random);
    let ended: (why: Closed) => void;
    this.closed = new Promise((resolve) => (ended = resolve));
    this.#driver = new Driver(urls, settings, this.#session, random, (state) => {
      this.#events.state.tell(state);
      if (state.name === "closed") ended(state.why);
    });
  }

  /** How the client stands now. */
  get state(): State {
    return this.#driver.state;
  }

  /** Calls `listener` when something happens, or with each message of a type that is pushed to this session, its user, its groups or everyone. */
  on<K extends keyof ClientEvents>(event: K, listener: (value: ClientEvents[K]) => unknown): Stop;
  on<S extends DescMessage>(schema: S, listener: MessageListener<S>): Stop;
  on(what: keyof ClientEvents | DescMessage, listener: (...values: never[]) => unknown): Stop {
    if (typeof what !== "string") return this.#messages.add(what, listener as MessageListener<DescMessage>);
    return (this.#events[what] as Listeners<unknown>).add(listener as (value: unknown) => unknown);
  }

  /** Calls `listener` with each pushed message whose type no listener of the client takes. */
  onOther(listener: (envelope: Envelope) => unknown): Stop {
    return this.#messages.addOther(listener);
  }

  /** Settled when the client is connected, rejected when it is closed before. */
  connected(): Promise<void> {
    const arrived = (state: State) => state.name === "connected" || state.name === "closed";
    return new Promise((resolve, reject) => {
      const settle = (state: State) => (state.name === "closed" ? reject(closedError(state.why)) : resolve());
      if (arrived(this.state)) return settle(this.state);
      const stop = this.on("state", (state) => {
        if (!arrived(state)) return;
        stop();
        settle(state);
      });
    });
  }

  /** Sends a message to the service that its type is routed to. Settled when it is accepted as far as its route asks. */
  async send<S extends DescMessage>(schema: S, message: MessageInitShape<S>, options: MessageOptions = {}): Promise<Accepted> {
    const value = envelope(schema, message, options);
    return this.#message({ case: "message", value }, `service ${schema.typeName}`, value.payload.length, options);
  }

  /** Publishes a message on a channel. */
  async publish<S extends DescMessage>(
    channel: string, schema: S, message: MessageInitShape<S>, options: MessageOptions = {},
  ): Promise<Accepted> {
    const value = { channel, message: envelope(schema, message, options) };
    return this.#message({ case: "publish", value }, channelOrder(channel), value.message.payload.length, options);
  }

  /** Asks a service, and gives what it replies: as a message of type `reply`, or, without it, in its envelope. */
  async request<S extends DescMessage, R extends DescMessage>(
    schema: S, message: MessageInitShape<S>, reply: R, options?: RequestOptions,
  ): Promise<MessageShape<R>>;
  async request<S extends DescMessage>(
    schema: S, message: MessageInitShape<S>, reply: undefined, options?: RequestOptions,
  ): Promise<Envelope>;
  async request(
    schema: DescMessage, message: MessageInitShape<DescMessage>, reply: DescMessage | undefined, options: RequestOptions = {},
  ): Promise<MessageShape<DescMessage> | Envelope> {
    const { timeout = REQUEST_TIMEOUT_MS, idempotent = false, signal } = options;
    const value = { message: envelope(schema, message, options), timeout: durationFromMs(timeout) };
    const answer = await this.#ask({ case: "request", value }, "reply", {
      repeat: idempotent ? "lost" : "never", wait: timeout + REQUEST_GRACE_MS, bytes: value.message.payload.length, signal,
    });
    return reply === undefined ? answer : decoded(reply, answer);
  }

  /** Listens to a channel. Several may listen to the same; the last who leaves it leaves it for all. */
  channel(name: string, options: ChannelOptions = {}): Channel {
    this.#refuseIfClosed();
    return new Channel(name, options, this, this.#session, (fault) => this.#report(fault));
  }

  /** Listens to the user's inbox: what was pushed to the user for keeps, also while no device was connected. */
  inbox(options: ChannelOptions = {}): Inbox {
    this.#refuseIfClosed();
    return new Inbox(INBOX, options, this, this.#session, (fault) => this.#report(fault));
  }

  /** A page of a channel's history, oldest first. */
  history(channel: string, place: HistoryPlace = {}): Promise<HistoryPage> {
    const page = "after" in place
      ? { case: "after" as const, value: BigInt(place.after) }
      : { case: "before" as const, value: BigInt(place.before ?? 0) };
    return this.#ask({ case: "history", value: { channel, limit: place.limit ?? 0, page } }, "history", {});
  }

  /** Who is on a channel now, over all nodes. */
  presence(channel: string): Promise<PresenceState> {
    return this.#ask({ case: "presence", value: { channel } }, "presence", {});
  }

  /** Ends the session, after what was said before. What waits for an answer is rejected with the reason `closed`. */
  close(): Promise<void> {
    return this.#driver.close();
  }

  #message(frame: Asked, order: string, bytes: number, { retryFor, signal }: MessageOptions): Promise<Accepted> {
    return this.#ask(frame, "accepted", { order, bytes, wait: retryFor, signal });
  }

  #ask<K extends AnswerKind>(frame: Asked, kind: K, rules: {
    repeat?: Repeat; order?: string; bytes?: number; wait?: number | undefined; signal?: AbortSignal | undefined;
  }): Promise<AnswerOf<K>> {
    const { repeat = "always", order = "", bytes = 0, wait = this.#settings.retryFor, signal } = rules;
    return new Promise((resolve, reject) => {
      this.#refuseIfClosed();
      signal?.throwIfAborted();
      const ask: Ask = {
        frame, order, bytes, repeat, deadline: Date.now() + wait,
        settle: (outcome) => {
          signal?.removeEventListener("abort", aborted);
          if (outcome instanceof TrestleError) reject(outcome);
          else if (outcome.case === kind) resolve(outcome.value as AnswerOf<K>);
          else reject(unexpected(frame.case, kind, outcome.case));
        },
      };
      const aborted = () => {
        this.#session.outgoing.drop(ask);
        reject(signal?.reason);
      };
      signal?.addEventListener("abort", aborted, { once: true });
      this.#session.outgoing.add(ask, { bounded: true, first: false });
      this.#driver.asked();
    });
  }

  #refuseIfClosed(): void {
    if (this.state.name === "closed") throw closedError(this.state.why);
  }

  #report(fault: TrestleError): void {
    if (this.#events.error.size === 0) print(fault);
    else this.#events.error.tell(fault);
  }
}

/** What nobody listens for is shown where people look. */
function print(fault: TrestleError): void {
  console.error(fault);
}

function envelope(schema: DescMessage, message: MessageInitShape<DescMessage>, options: RequestOptions): Envelope {
  return create(EnvelopeSchema, {
    id: options.id ?? uuid(Date.now()),
    messageType: schema.typeName,
    version: options.version ?? "",
    payload: toBinary(schema, create(schema, message)),
    headers: options.headers ?? {},
  });
}

function decoded<R extends DescMessage>(reply: R, answer: Envelope): MessageShape<R> {
  if (answer.messageType !== reply.typeName) throw unexpected("request", reply.typeName, answer.messageType);
  try {
    return fromBinary(reply, answer.payload);
  } catch (cause) {
    throw new TrestleError(`the reply is not a ${reply.typeName}: are the stubs those of the gateway?`, {
      code: Code.INTERNAL, reason: "malformed_payload", cause,
    });
  }
}

function unexpected(what: string, wanted: string, came: string | undefined): TrestleError {
  return new TrestleError(`${what} was answered with ${came ?? "a frame that this version does not know"}, not ${wanted}`, {
    code: Code.INTERNAL, reason: "unexpected_answer",
  });
}
