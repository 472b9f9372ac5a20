// What the program asks of the gateway, until it is answered: bounded, in order, repeated where that is safe.
//
// In: asks, and what comes back. Out: which ask to write next. No I/O, and no clock of its own.
//
// Asks of one order (a channel, a message type) are written one after the other, also when one has to be repeated: those
// behind it wait. What was on its way together when one of them was refused is the exception: it is on its way already.

import { jitter } from "./backoff.js";
import { answerLostError, TrestleError, timeoutError } from "./errors.js";
import type { Answer, Asked } from "./frames.js";
import { Code } from "./gen/trestle/v1/errors_pb.js";

/** Most asks that are written and not answered: the gateway's default `session.outstanding_max`. */
const IN_FLIGHT_MAX = 64;
/** Most asks that the program may have waiting, answers included: 16 for each place on the way. */
const QUEUE_MAX = 1024;
/** Most bytes of payload among them: 64 of the gateway's default `frame_bytes_max` of 64 KiB. */
const QUEUE_BYTES_MAX = 4 * 1024 * 1024;
/** First wait before a refused ask is repeated, in milliseconds: some round trips. */
const RETRY_BASE_MS = 100;
/** Longest wait, in milliseconds: six of them fit the default `retryFor`. */
const RETRY_CAP_MS = 5_000;
/** Ids are uint32, and 0 wants no answer. */
const ID_MAX = 2 ** 32 - 1;

/**
 * When an ask may be repeated: `always`, since its envelope's id deduplicates or it changes nothing; `lost`, only if its
 * answer was lost; `never`, since it may have been done.
 */
export type Repeat = "always" | "lost" | "never";

/** Something asked of the gateway. */
export interface Ask {
  frame: Asked;
  /** Asks with the same word are written in order; empty: no order. */
  order: string;
  /** Size of the payload. */
  bytes: number;
  repeat: Repeat;
  /** When the program stops waiting, in milliseconds since 1970. */
  deadline: number;
  /** Called once: with the answer, or with why there is none. */
  settle(outcome: Answer | TrestleError): void;
}

interface Entry {
  ask: Ask;
  /** Place in the program's order. */
  sequence: number;
  /** The frame's id while it is on its way; 0 while it waits. */
  id: number;
  /** Not written before this. */
  notBefore: number;
  failures: number;
  /** Whether it was written on a connection that is gone. */
  doubtful: boolean;
  lastError: TrestleError | undefined;
  /** Whether it has its outcome, or needs none. */
  done: boolean;
}

/** An ask and the id to write it with. */
export interface Written {
  id: number;
  frame: Asked;
}

export class Outgoing {
  readonly #waiting: Entry[] = [];
  readonly #flying = new Map<number, Entry>();
  /** How many doubtful asks each order has: what is behind them waits. */
  readonly #doubts = new Map<string, number>();
  #bytes = 0;
  #sequence = 0;
  #firstSequence = 0;
  #lastId = 0;

  constructor(readonly random: () => number) {}

  /** Takes an ask, at the end or before all others; `bounded` ones are refused when too many wait. */
  add(ask: Ask, { bounded, first }: { bounded: boolean; first: boolean }): void {
    const full = this.#waiting.length + this.#flying.size >= QUEUE_MAX || this.#bytes + ask.bytes > QUEUE_BYTES_MAX;
    if (bounded && full) {
      ask.settle(new TrestleError(`${QUEUE_MAX} messages or ${QUEUE_BYTES_MAX} bytes wait for the gateway; wait for answers`, {
        code: Code.RESOURCE_EXHAUSTED, reason: "queue_full", retryable: true,
      }));
      return;
    }
    this.#bytes += ask.bytes;
    const sequence = first ? (this.#firstSequence -= 1) : (this.#sequence += 1);
    const entry = { ask, sequence, id: 0, notBefore: 0, failures: 0, doubtful: false, lastError: undefined, done: false };
    if (first) this.#waiting.unshift(entry);
    else this.#waiting.push(entry);
  }

  /** The next ask to write; it is on its way from here on. */
  next(now: number): Written | undefined {
    if (this.#flying.size >= IN_FLIGHT_MAX) return undefined;
    const held = new Set<string>();
    for (const [at, entry] of this.#waiting.entries()) {
      const { order, frame } = entry.ask;
      if (entry.notBefore <= now && !held.has(order) && !this.#doubts.has(order)) {
        this.#waiting.splice(at, 1);
        entry.id = this.claimId();
        this.#flying.set(entry.id, entry);
        return { id: entry.id, frame };
      }
      if (order !== "") held.add(order);
    }
    return undefined;
  }

  /** An id that nothing on its way has. */
  claimId(): number {
    do this.#lastId = this.#lastId >= ID_MAX ? 1 : this.#lastId + 1;
    while (this.#flying.has(this.#lastId));
    return this.#lastId;
  }

  /** Takes the answer to a frame; false if nobody waits for it. */
  answer(id: number, answer: Answer, now: number): boolean {
    const entry = this.#flying.get(id);
    if (entry === undefined) return false;
    if (answer.case === "error") this.refuse(id, TrestleError.of(answer.value), now);
    else this.#settle(entry, answer);
    return true;
  }

  /** Ends what is on its way with `error`, or lets it wait for another attempt. */
  refuse(id: number, error: TrestleError, now: number): void {
    const entry = this.#flying.get(id);
    if (entry === undefined) return;
    entry.lastError = error;
    // What was lost with a node was not refused: it goes again at once.
    const atOnce = error.reason === "answer_lost" && entry.failures === 0;
    const wait = error.retryAfter ?? (atOnce ? 0 : jitter(entry.failures, RETRY_BASE_MS, RETRY_CAP_MS, this.random));
    if (!mayRepeat(entry.ask.repeat, error) || now + wait >= entry.ask.deadline) {
      this.#settle(entry, error);
      return;
    }
    entry.failures += 1;
    entry.notBefore = now + wait;
    this.#requeue(entry);
  }

  /** What was to be written was not: it is the next again. */
  unwrite(id: number): void {
    const entry = this.#flying.get(id);
    if (entry !== undefined) this.#requeue(entry);
  }

  /** Ids of what is on its way, for a resume. */
  outstanding(): number[] {
    return [...this.#flying.keys()];
  }

  /** The session goes on elsewhere: what was on its way may have to be repeated, so what follows in its order waits. */
  doubt(): void {
    for (const entry of this.#flying.values()) this.#setDoubtful(entry, true);
  }

  /** Another session begins: nobody answers what was on its way. */
  lost(now: number): void {
    for (const entry of [...this.#flying.values()]) this.refuse(entry.id, answerLostError(entry.ask.frame.case), now);
  }

  /** Ends what took too long, and says when to look again: the next deadline or repetition, in milliseconds since 1970. */
  expire(now: number): number {
    let next = Infinity;
    for (const entry of [...this.#flying.values(), ...this.#waiting]) {
      if (entry.done) continue;
      if (entry.ask.deadline <= now) {
        this.#settle(entry, entry.lastError ?? timeoutError(entry.ask.frame.case));
      } else {
        next = Math.min(next, entry.ask.deadline, entry.notBefore > now ? entry.notBefore : Infinity);
      }
    }
    return next;
  }

  /** The program no longer waits for `ask`. */
  drop(ask: Ask): void {
    const is = (entry: Entry) => entry.ask === ask;
    const entry = this.#waiting.find(is) ?? [...this.#flying.values()].find(is);
    if (entry !== undefined) this.#remove(entry);
  }

  /** Ends everything. */
  failAll(error: TrestleError): void {
    for (const entry of [...this.#flying.values(), ...this.#waiting]) this.#settle(entry, error);
  }

  #requeue(entry: Entry): void {
    this.#flying.delete(entry.id);
    this.#setDoubtful(entry, false);
    entry.id = 0;
    const at = this.#waiting.findIndex(({ sequence }) => sequence > entry.sequence);
    this.#waiting.splice(at < 0 ? this.#waiting.length : at, 0, entry);
  }

  #settle(entry: Entry, outcome: Answer | TrestleError): void {
    if (entry.done) return; // the program was told of another, and has ended this one
    this.#remove(entry);
    entry.ask.settle(outcome);
  }

  #remove(entry: Entry): void {
    entry.done = true;
    this.#setDoubtful(entry, false);
    if (entry.id !== 0) this.#flying.delete(entry.id);
    else this.#waiting.splice(this.#waiting.indexOf(entry), 1);
    this.#bytes -= entry.ask.bytes;
  }

  #setDoubtful(entry: Entry, doubtful: boolean): void {
    const { order } = entry.ask;
    if (entry.doubtful === doubtful || order === "") return;
    entry.doubtful = doubtful;
    const count = (this.#doubts.get(order) ?? 0) + (doubtful ? 1 : -1);
    if (count === 0) this.#doubts.delete(order);
    else this.#doubts.set(order, count);
  }
}

/** Whether what was refused with `error` may be asked again. `too_many_requests` is said before anything is done. */
function mayRepeat(repeat: Repeat, error: TrestleError): boolean {
  if (error.reason === "too_many_requests") return true;
  if (error.reason === "answer_lost") return repeat !== "never";
  return repeat === "always" && error.retryable;
}
