// What is known of one channel that the program listens to: how far it has heard, what it still has to hear.
//
// In: what the gateway says about the channel. Out: what to hand to the program. No I/O. What always holds: with offsets,
// a message is handed out once and in order, and what is missing between two is told in a gap.

import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { TrestleError } from "./errors.js";
import type { Envelope } from "./gen/trestle/v1/envelope_pb.js";
import { type Gap, GapReason, GapSchema, type PresenceEvent, type Subscribed } from "./gen/trestle/v1/client_pb.js";
import type { Asked } from "./frames.js";

/** The user's own channel, by the name that clients have for it. */
export const INBOX = "inbox";

/** Where to begin on a channel that keeps a history: after an offset, with the last so many, or at a time. */
export type Since = { offset: bigint | number } | { last: number } | { time: Date };

/** One who listens to a channel. */
export interface Hearer {
  message(envelope: Envelope): void;
  gap(gap: Gap): void;
  presence(event: PresenceEvent): void;
  /** The room is joined, for the first time or again. */
  joined(subscribed: Subscribed): void;
  /** The room is closed: the gateway refused it, or the client ended. */
  refused(error: TrestleError): void;
}

/** What to do after the gateway has said where a subscription begins. */
export type Welcome = "stay" | "rejoin";

type From = Extract<Asked, { case: "subscribe" }>["value"]["from"];

export class Room {
  readonly hearers = new Set<Hearer>();
  /** What the gateway said last about the subscription; undefined until it is joined. */
  welcome: Subscribed | undefined;
  /** Offset of the last message handed out, or after which the subscription began; undefined until that is known. */
  #place: bigint | undefined;
  /** Whether the next message may follow on any other: the gateway has said, or need not say, what is between. */
  #excused = true;
  /** Whether the gateway answers this channel now. */
  #joined = false;
  /** Whether the gateway will say by itself how the channel goes on. */
  #recovering = false;
  /** Whether it was joined before in a session that is over. */
  #lapsed = false;
  /** Whether all that is kept is wanted, though no offset has been heard. */
  #fromStart = false;
  /** Whether a `subscribe` is on its way. */
  asking = false;

  constructor(
    readonly name: string,
    readonly since: Since | undefined,
    readonly presence: boolean,
  ) {}

  get joined(): boolean {
    return this.#joined;
  }

  get recovering(): boolean {
    return this.#recovering;
  }

  /** What a resume says of this channel: the last offset heard; undefined where it is better to ask anew. */
  get position(): { channel: string; offset: bigint } | undefined {
    if (!(this.#joined || this.#recovering) || this.#place === undefined) return undefined;
    // The gateway knows the inbox by its full name.
    return { channel: this.welcome?.channel ?? this.name, offset: this.#place };
  }

  /** The frame that joins, where the program wants it or where it has heard to. */
  subscribe(): Asked {
    const value = { channel: this.name, presence: this.presence };
    const from = this.#from();
    return { case: "subscribe", value: from === undefined ? value : { ...value, from } };
  }

  /** Nothing comes until it is joined again; what was heard stays known. */
  lapse(): void {
    this.#lapsed ||= this.#joined || this.#recovering;
    this.#joined = this.#recovering = false;
  }

  /** An earlier session goes on, and the gateway says next how each channel does. */
  recover(): void {
    this.#joined = false;
    this.#recovering = true;
  }

  /** The gateway has answered `subscribe`. */
  welcomed(subscribed: Subscribed): Welcome {
    const from = this.#from();
    const { offset, recovered } = subscribed;
    if (this.#lapsed && this.#place === 0n && from === undefined && offset > 0n) {
      // The channel was empty, and what came since is all that it has.
      this.#place = undefined;
      this.#fromStart = true;
      return "rejoin";
    }
    const place = from?.case === "offset" ? BigInt(from.value) : 0n;
    if (place > 0n) this.#begin(place, subscribed);
    else if (from === undefined && this.name !== INBOX) this.#begin(offset, subscribed);
    this.#join(subscribed);
    // Without a history nobody else knows that something may be missing.
    if (this.#lapsed && !recovered && offset === 0n && place === 0n) this.#tellGap(0n, 0n);
    this.#lapsed = false;
    return "stay";
  }

  /** An earlier session goes on with this subscription. */
  resumed(subscribed: Subscribed): void {
    if (this.#place !== undefined) this.#begin(this.#place, subscribed);
    this.#join(subscribed);
  }

  /** A message of the channel. */
  delivery(envelope: Envelope): void {
    if (!this.#joined) return;
    const { offset, prevOffset } = envelope;
    if (offset > 0n) {
      // The first of all after a gap of unknown length: of another log that has taken the place of the old one.
      const anew = this.#excused && prevOffset === 0n;
      if (this.#place !== undefined && offset <= this.#place && !anew) return;
      if (this.#place !== undefined && !this.#excused && prevOffset > this.#place) this.#tellGap(this.#place + 1n, prevOffset);
      this.#place = offset;
      this.#excused = this.#fromStart = false;
    }
    this.#tell((hearer) => hearer.message(envelope));
  }

  /** The gateway says that something is missing. */
  gap(gap: Gap): void {
    if (!this.#joined) return;
    if (gap.to === 0n) this.#excused = true;
    else if (this.#place === undefined || gap.to > this.#place) this.#place = gap.to;
    this.#tell((hearer) => hearer.gap(gap));
  }

  /** Somebody came or went; the first, who is the client itself, may be told before `subscribed`. */
  presenceEvent(event: PresenceEvent): void {
    this.#tell((hearer) => hearer.presence(event));
  }

  refused(error: TrestleError): void {
    this.#joined = this.#recovering = false;
    this.#tell((hearer) => hearer.refused(error));
  }

  #from(): From | undefined {
    if (this.#place !== undefined) return this.#place === 0n ? undefined : { case: "offset", value: this.#place };
    if (this.#fromStart) return { case: "offset", value: 0n };
    const { since } = this;
    if (since === undefined) return undefined;
    if ("offset" in since) return { case: "offset", value: BigInt(since.offset) };
    if ("last" in since) return { case: "last", value: since.last };
    return { case: "since", value: timestampFromDate(since.time) };
  }

  /** The subscription begins after `place`, or where the log ends now if that is earlier: then it is another log. */
  #begin(place: bigint, { offset, recovered }: Subscribed): void {
    const another = !recovered && offset < place;
    this.#excused = another || (this.#place !== undefined && this.#excused);
    this.#place = another ? offset : place;
  }

  #join(subscribed: Subscribed): void {
    this.welcome = subscribed;
    this.#joined = true;
    this.#recovering = false;
    this.#tell((hearer) => hearer.joined(subscribed));
  }

  #tellGap(from: bigint, to: bigint): void {
    const gap = create(GapSchema, { channel: this.name, from, to, reason: GapReason.FAILOVER });
    this.#tell((hearer) => hearer.gap(gap));
  }

  /** Tells all who listen, and none who has stopped because of what another was told. */
  #tell(tell: (hearer: Hearer) => void): void {
    for (const hearer of [...this.hearers]) if (this.hearers.has(hearer)) tell(hearer);
  }
}
