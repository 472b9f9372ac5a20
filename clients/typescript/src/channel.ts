// A channel, and the user's inbox, as the program has them.

import type { DescMessage, MessageInitShape } from "@bufbuild/protobuf";
import type { HistoryPlace, MessageOptions } from "./client.js";
import { closedError, type TrestleError } from "./errors.js";
import type { Accepted, Gap, HistoryPage, PresenceEvent, PresenceState, Subscribed } from "./gen/trestle/v1/client_pb.js";
import type { Envelope } from "./gen/trestle/v1/envelope_pb.js";
import { Listeners, type MessageListener, MessageListeners, type Report, type Stop } from "./listeners.js";
import type { Hearer, Room, Since } from "./room.js";
import type { Session } from "./session.js";

/** Where and how to listen to a channel. */
export interface ChannelOptions {
  /** Where to begin, on a channel that keeps a history. Default: with what comes from now on; in the inbox, after what was acked. */
  since?: Since;
  /** Whether to be told who comes and goes, where the namespace has presence. */
  presence?: boolean;
}

/** What a channel does through its client. */
export interface ChannelClient {
  publish<S extends DescMessage>(channel: string, schema: S, message: MessageInitShape<S>, options?: MessageOptions): Promise<Accepted>;
  history(channel: string, place?: HistoryPlace): Promise<HistoryPage>;
  presence(channel: string): Promise<PresenceState>;
}

/**
 * A channel that the program listens to, from {@link Client.channel} until {@link Channel.leave}.
 *
 * Messages of a channel that keeps a history come each once and in order, over all reconnects; what is missing comes as a
 * gap in its place.
 */
export class Channel {
  readonly #messages: MessageListeners;
  readonly #gaps: Listeners<Gap>;
  readonly #presence: Listeners<PresenceEvent>;
  readonly #errors: Listeners<TrestleError>;
  readonly #room: Room;
  readonly #hearer: Hearer;
  readonly #waiting: { resolve: (subscribed: Subscribed) => void; reject: (error: TrestleError) => void }[] = [];
  #ended: TrestleError | undefined;

  /** Made by {@link Client.channel}. */
  constructor(
    readonly name: string,
    options: ChannelOptions,
    readonly client: ChannelClient,
    protected readonly session: Session,
    report: Report,
  ) {
    this.#messages = new MessageListeners(report);
    this.#gaps = new Listeners(report);
    this.#presence = new Listeners(report);
    this.#errors = new Listeners(report);
    this.#hearer = {
      message: (envelope) => this.#messages.tell(envelope),
      gap: (gap) => this.#gaps.tell(gap),
      presence: (event) => this.#presence.tell(event),
      joined: (subscribed) => {
        for (const { resolve } of this.#waiting.splice(0)) resolve(subscribed);
      },
      refused: (error) => {
        const nobodyWaits = this.#errors.size + this.#waiting.length === 0;
        this.#end(error);
        if (error.reason === "closed") return;
        if (nobodyWaits) report(error);
        this.#errors.tell(error);
      },
    };
    this.#room = session.enter(name, options.since, options.presence ?? false, this.#hearer);
  }

  /** Calls `listener` with each message of one type, and with the envelope it came in. */
  on<S extends DescMessage>(schema: S, listener: MessageListener<S>): Stop {
    return this.#messages.add(schema, listener);
  }

  /** Calls `listener` with each message whose type no listener of this channel takes. */
  onOther(listener: (envelope: Envelope) => unknown): Stop {
    return this.#messages.addOther(listener);
  }

  /** Calls `listener` for what is missing, in its place among the messages. */
  onGap(listener: (gap: Gap) => unknown): Stop {
    return this.#gaps.add(listener);
  }

  /** Calls `listener` when sessions come and go; needs `presence` in the options. */
  onPresence(listener: (event: PresenceEvent) => unknown): Stop {
    return this.#presence.add(listener);
  }

  /** Calls `listener` if the gateway refuses the channel, now or after a reconnect: then nothing comes any more. */
  onError(listener: (error: TrestleError) => unknown): Stop {
    return this.#errors.add(listener);
  }

  /** What the gateway said when the channel was joined last; rejects with why it was not. */
  joined(): Promise<Subscribed> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    if (this.#room.joined && this.#room.welcome !== undefined) return Promise.resolve(this.#room.welcome);
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  /** Publishes a message on this channel. */
  publish<S extends DescMessage>(schema: S, message: MessageInitShape<S>, options?: MessageOptions): Promise<Accepted> {
    return this.client.publish(this.name, schema, message, options);
  }

  /** A page of the channel's history. */
  history(place?: HistoryPlace): Promise<HistoryPage> {
    return this.client.history(this.name, place);
  }

  /** Who is on the channel now. */
  presence(): Promise<PresenceState> {
    return this.client.presence(this.name);
  }

  /** Stops listening: from here on no listener of this channel is called. Settled when the gateway knows. */
  leave(): Promise<void> {
    this.#end(closedError({ code: 0, reason: `${this.name} was left` }));
    return new Promise((resolve) => this.session.leave(this.#room, this.#hearer, resolve));
  }

  #end(error: TrestleError): void {
    this.#ended ??= error;
    for (const { reject } of this.#waiting.splice(0)) reject(error);
  }
}

/** The user's own channel: what comes in it waits for the user on all devices, until it is acked on one of them. */
export class Inbox extends Channel {
  /** The user is done with everything up to `offset`: no device gets it again. */
  ack(offset: bigint): void {
    this.session.ackInbox(offset);
  }
}
