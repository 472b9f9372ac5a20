// Writes what the session asks, as fast as the connection takes it, and says how far the session has heard.
//
// In: a connection, or none; that something is asked or heard. Out: WebSocket messages, several frames to each.

import { Alarm } from "./alarm.js";
import type { Connection } from "./connection.js";
import { TrestleError } from "./errors.js";
import { encode, OVERHEAD_BYTES_MAX } from "./frames.js";
import { Code } from "./gen/trestle/v1/errors_pb.js";
import type { Session } from "./session.js";

/** Most frames in one WebSocket message; the gateway refuses more. */
const BATCH_FRAMES_MAX = 64;
/** Nothing more is written while so many bytes have not left: 16 messages of the default `frame_bytes_max` of 64 KiB. */
const BUFFERED_BYTES_MAX = 1024 * 1024;
/** How often to look whether they have left, in milliseconds: WebSockets do not tell. */
const BUFFERED_LOOK_MS = 20;
/** Frames after which the gateway is told that they have come: a quarter of those that it keeps for a resume. */
const ACK_FRAMES = 256;
/** After how long it is told of fewer, in milliseconds. */
const ACK_MS = 5_000;
/** The gateway's default `frame_bytes_max`, where it does not say. */
const FRAME_BYTES_MAX = 64 * 1024;

export class Writer {
  readonly #ack = new Alarm();
  readonly #look = new Alarm();
  /** Rings when something has to be repeated, or has waited long enough. */
  readonly #due = new Alarm();
  #connection: Connection | undefined;
  #frameBytesMax = FRAME_BYTES_MAX;
  #asked = false;
  #acked = 0;

  constructor(readonly session: Session) {}

  /** There is a connection to write to. */
  start(connection: Connection, frameBytesMax: number): void {
    this.#connection = connection;
    this.#frameBytesMax = frameBytesMax || FRAME_BYTES_MAX;
    this.#acked = this.session.received;
    this.flush();
  }

  /** There is none. */
  stop(): void {
    this.#connection = undefined;
    this.#ack.clear();
    this.#look.clear();
  }

  /** Nothing is asked any more. */
  end(): void {
    this.#due.clear();
  }

  /** Something is asked: it is written at the end of this turn, together with what else is asked in it. */
  ask(): void {
    if (this.#asked) return;
    this.#asked = true;
    queueMicrotask(() => {
      this.#asked = false;
      this.flush();
    });
  }

  /** Frames have come: answers free places for asks, and the gateway is told in time. */
  heard(): void {
    this.ask();
    const news = this.session.received - this.#acked;
    if (news >= ACK_FRAMES) this.#sayReceived();
    else if (news > 0 && !this.#ack.isSet) this.#ack.set(ACK_MS, () => this.#sayReceived());
  }

  /** Asks for a pong; nobody waits for this one's answer, but for any frame. */
  ping(connection: Connection): void {
    connection.send([encode(this.session.outgoing.claimId(), { case: "ping", value: {} })]);
  }

  /** Writes what may be written now. */
  flush(): void {
    const { outgoing } = this.session;
    const now = Date.now();
    const due = outgoing.expire(now);
    if (due < Infinity) this.#due.set(due - now, () => this.flush());
    else this.#due.clear();
    const connection = this.#connection;
    if (connection === undefined) return;
    while (connection.buffered < BUFFERED_BYTES_MAX) {
      const batch = this.#batch(now);
      if (batch.length === 0) return;
      connection.send(batch);
    }
    this.#look.set(BUFFERED_LOOK_MS, () => this.flush());
  }

  /** As many asks as one WebSocket message takes. */
  #batch(now: number): Uint8Array[] {
    const { outgoing } = this.session;
    const batch: Uint8Array[] = [];
    for (let bytes = 0; batch.length < BATCH_FRAMES_MAX; ) {
      const room = this.#frameBytesMax - bytes - OVERHEAD_BYTES_MAX;
      const next = outgoing.next(now);
      if (next === undefined) break;
      const frame = encode(next.id, next.frame);
      if (frame.length > this.#frameBytesMax - OVERHEAD_BYTES_MAX) {
        outgoing.refuse(next.id, this.#tooLarge(frame.length), now);
      } else if (frame.length > room) {
        outgoing.unwrite(next.id);
        break;
      } else {
        bytes += frame.length + OVERHEAD_BYTES_MAX;
        batch.push(frame);
      }
    }
    return batch;
  }

  #sayReceived(): void {
    this.#ack.clear();
    this.#acked = this.session.received;
    this.#connection?.send([encode(0, { case: "ack", value: { received: BigInt(this.#acked) } })]);
  }

  #tooLarge(bytes: number): TrestleError {
    return new TrestleError(`the frame has ${bytes} bytes; the gateway takes ${this.#frameBytesMax} in a WebSocket message`, {
      code: Code.INVALID_ARGUMENT, reason: "frame_too_large",
    });
  }
}
