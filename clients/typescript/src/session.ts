// One client's stay, over all its connections: the count of frames, the rooms, what is asked.
//
// In: frames of the gateway, wishes of the program. Out: calls to whoever listens, and asks to write. No I/O. What always
// holds: each server frame but `connected` is counted once, when it is taken; a frame that is not taken can come again.

import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { TrestleError } from "./errors.js";
import type { Answer, Asked } from "./frames.js";
import {
  type Connected, type DrainNotice, type Gap, GapReason, GapSchema, type ResumeSchema, type ServerFrame, type Subscribed,
} from "./gen/trestle/v1/client_pb.js";
import type { Envelope } from "./gen/trestle/v1/envelope_pb.js";
import { Outgoing } from "./outgoing.js";
import { type Hearer, INBOX, Room, type Since } from "./room.js";

/** Most channels that a resume names; the gateway refuses more. Others are joined anew. */
const RESUME_CHANNELS_MAX = 256;

/** What a session tells those around it. */
export interface SessionEvents {
  /** A message to this session, its user, its groups or everyone. */
  push(envelope: Envelope): void;
  /** Something of those is missing. */
  gap(gap: Gap): void;
  /** The gateway refused something that nobody waits for. */
  fault(error: TrestleError): void;
  /** This connection is about to be closed. */
  draining(notice: DrainNotice): void;
  /** There is something to write. */
  asked(): void;
}

export class Session {
  readonly outgoing: Outgoing;
  readonly #rooms = new Map<string, Room>();
  /** Channels whose `unsubscribe` is not answered yet. */
  readonly #leaving = new Map<string, number>();
  /** Rooms that the last resume named. */
  #named = new Set<Room>();
  #connected: Connected | undefined;
  #received = 0;
  #inboxWanted = 0n;
  #inboxAsked = 0n;

  constructor(
    readonly events: SessionEvents,
    random: () => number,
  ) {
    this.outgoing = new Outgoing(random);
  }

  /** What the gateway said when it was connected last. */
  get connected(): Connected | undefined {
    return this.#connected;
  }

  /** How many frames of the gateway were taken. */
  get received(): number {
    return this.#received;
  }

  /** What to say to go on with this session, if that is possible. */
  resume(): MessageInitShape<typeof ResumeSchema> | undefined {
    if (this.#connected === undefined || this.#connected.resumeToken === "") return undefined;
    const named = [...this.#rooms.values()].filter(({ position }) => position !== undefined).slice(0, RESUME_CHANNELS_MAX);
    this.#named = new Set(named);
    return {
      sessionId: this.#connected.sessionId,
      token: this.#connected.resumeToken,
      received: BigInt(this.#received),
      channels: named.flatMap(({ position }) => position ?? []),
      outstanding: this.outgoing.outstanding(),
    };
  }

  /** A connection stands: the session begins, goes on, or gives way to another. */
  begin(connected: Connected, now: number): void {
    const first = this.#connected === undefined;
    this.#connected = connected;
    this.#received = Number(connected.received);
    if (connected.resumed) {
      this.outgoing.doubt();
      this.#goOn(connected);
    } else if (!first) {
      this.outgoing.lost(now);
      for (const room of [...this.#rooms.values()].reverse()) this.#renew(room);
      this.events.gap(create(GapSchema, { reason: GapReason.FAILOVER }));
    }
  }

  /** Takes the next frame, whatever it is but `connected`. */
  take({ replyTo, frame }: ServerFrame, now: number): void {
    this.#received += 1;
    switch (frame.case) {
      case "delivery":
        if (frame.value.channel === "") this.events.push(frame.value);
        else this.#room(frame.value.channel)?.delivery(frame.value);
        break;
      case "gap":
        if (frame.value.channel === "") this.events.gap(frame.value);
        else this.#room(frame.value.channel)?.gap(frame.value);
        break;
      case "presenceEvent":
        this.#room(frame.value.channel)?.presenceEvent(frame.value);
        break;
      case "draining":
        this.events.draining(frame.value);
        break;
      case "error":
        if (!this.outgoing.answer(replyTo, frame, now)) this.#refused(TrestleError.of(frame.value));
        break;
      case "subscribed":
        if (replyTo === 0) this.#recovered(frame.value);
        else this.outgoing.answer(replyTo, frame, now);
        break;
      default:
        this.outgoing.answer(replyTo, frame, now);
    }
  }

  /** Listens to a channel; the gateway is asked by the first who does. */
  enter(name: string, since: Since | undefined, presence: boolean, hearer: Hearer): Room {
    const known = this.#rooms.get(name);
    const room = known ?? new Room(name, since, presence);
    if (known !== undefined && since !== undefined) {
      throw new RangeError(`${name} is listened to already, so it cannot begin elsewhere: read its history()`);
    }
    if (known !== undefined && presence && !known.presence) {
      throw new RangeError(`${name} is listened to without presence: ask for it where the channel is opened first`);
    }
    room.hearers.add(hearer);
    if (known === undefined) {
      this.#rooms.set(name, room);
      this.#join(room, false);
    }
    return room;
  }

  /** Stops listening; with the last who did, the channel is left. `done` is called when nothing comes any more. */
  leave(room: Room, hearer: Hearer, done: () => void): void {
    const gone = !room.hearers.delete(hearer) || room.hearers.size > 0 || this.#rooms.get(room.name) !== room;
    if (gone) {
      done();
      return;
    }
    this.#rooms.delete(room.name);
    this.#part(room.name, false, done);
  }

  /** The user is done with the inbox up to `offset`. */
  ackInbox(offset: bigint): void {
    if (offset <= this.#inboxWanted) return;
    this.#inboxWanted = offset;
    if (this.#inboxAsked === 0n) this.#askInbox();
  }

  /** Nothing more comes. */
  end(error: TrestleError): void {
    this.outgoing.failAll(error);
    const rooms = [...this.#rooms.values()];
    this.#rooms.clear();
    for (const room of rooms) room.refused(error);
  }

  #room(channel: string): Room | undefined {
    return this.#rooms.get(ownName(channel));
  }

  /**
   * Joins what is missing and leaves what is not wanted, so that the gateway's list is the program's. Where the stream of
   * frames does not go on, the count is 0: each channel that was named gets a `subscribed` of its own.
   */
  #goOn({ subscriptions, received }: Connected): void {
    const listed = new Map(subscriptions.map((subscribed) => [ownName(subscribed.channel), subscribed]));
    for (const room of [...this.#rooms.values()].reverse()) {
      const subscribed = listed.get(room.name);
      listed.delete(room.name);
      if (room.asking) continue;
      if (subscribed !== undefined) room.resumed(subscribed);
      else if (received === 0n && room.joined && this.#named.has(room)) room.recover();
      else this.#renew(room);
    }
    for (const name of listed.keys()) if (!this.#leaving.has(name)) this.#part(name, false, () => {});
  }

  #recovered(subscribed: Subscribed): void {
    const room = this.#room(subscribed.channel);
    if (room?.recovering) room.resumed(subscribed);
  }

  /** What nobody asked is refused. It may be one of the channels that are being recovered: each is asked for, to be told which. */
  #refused(error: TrestleError): void {
    const recovering = [...this.#rooms.values()].filter((room) => room.recovering);
    for (const room of recovering) this.#renew(room);
    if (recovering.length === 0) this.events.fault(error);
  }

  /** Asks for a room before all else that waits; so several are renewed last first. */
  #renew(room: Room): void {
    if (room.asking) return;
    room.lapse();
    this.#join(room, true);
  }

  /** Leaves and joins again, at another place. */
  #rejoin(room: Room): void {
    room.lapse();
    this.#join(room, true);
    this.#part(room.name, true, () => {});
  }

  #join(room: Room, first: boolean): void {
    room.asking = true;
    this.#ask(room.subscribe(), channelOrder(room.name), first, (outcome) => {
      room.asking = false;
      if (this.#rooms.get(room.name) !== room) return;
      if (outcome instanceof TrestleError && outcome.reason !== "already_subscribed") {
        this.#rooms.delete(room.name);
        room.refused(outcome);
      } else if (outcome instanceof TrestleError || outcome.case !== "subscribed" || room.welcomed(outcome.value) === "rejoin") {
        this.#rejoin(room);
      }
    });
  }

  #part(name: string, first: boolean, done: () => void): void {
    this.#leaving.set(name, (this.#leaving.get(name) ?? 0) + 1);
    this.#ask({ case: "unsubscribe", value: { channel: name } }, channelOrder(name), first, () => {
      const others = (this.#leaving.get(name) ?? 1) - 1;
      if (others === 0) this.#leaving.delete(name);
      else this.#leaving.set(name, others);
      done();
    });
  }

  /** One ack at a time: what is acked meanwhile goes with the next. */
  #askInbox(): void {
    const offset = this.#inboxWanted;
    this.#inboxAsked = offset;
    this.#ask({ case: "ack", value: { inboxOffset: offset } }, "", false, (outcome) => {
      this.#inboxAsked = 0n;
      if (outcome instanceof TrestleError) {
        if (outcome.reason !== "closed") this.events.fault(outcome);
      } else if (this.#inboxWanted > offset) {
        this.#askInbox();
      }
    });
  }

  /** Asks for what the client keeps asking for until it is answered. */
  #ask(frame: Asked, order: string, first: boolean, settle: (outcome: Answer | TrestleError) => void): void {
    this.outgoing.add({ frame, order, bytes: 0, repeat: "always", deadline: Infinity, settle }, { bounded: false, first });
    this.events.asked();
  }
}

/** The word that orders what is asked about a channel. */
export function channelOrder(name: string): string {
  return `channel ${name}`;
}

/** The gateway calls a user's inbox `inbox:<user>`; there is only one that a session hears. */
function ownName(channel: string): string {
  return channel.startsWith(`${INBOX}:`) ? INBOX : channel;
}
