// One client of the gateway: opens the socket, asks and answers by frame id, and comes back after a loss.
import { CODECS } from './codec.js';

const BACKOFF_FIRST_MS = 500;
const BACKOFF_MAX_MS = 30_000;
const PONG_TIMEOUT_MS = 10_000; // the gateway answers at once; ten seconds is a dead line, not a slow one
const CLOSE_FOR_GOOD = new Set([1000, 1002, 1003, 1007, 1009]); // the same bytes would end the same way

/** What the gateway refused: its `error` frame. */
export class Refused extends Error {
  constructor(error) {
    super(error.message || error.reason);
    this.error = error;
  }
}

/** Whether to connect again after a close code: 4500-4999 and the protocol errors say no. */
export function mayReconnect(code) {
  return !(CLOSE_FOR_GOOD.has(code) || (code >= 4500 && code <= 4999));
}

/** How long to wait before attempt `n` (from 1): doubling to 30 s, with jitter so that a crowd does not come at once. */
export function backoff(attempt, random = Math.random()) {
  const most = Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** (attempt - 1));
  return most / 2 + (most / 2) * random;
}

/**
 * Events, each a CustomEvent:
 *   state     { state: 'connecting' | 'connected' | 'waiting' | 'closed', ...}  connected: the frame's fields;
 *             waiting: { retryMs, attempt, why }; closed: { why }
 *   frames    { sent: boolean, data, frames }  one WebSocket message, for the log
 *   delivery, gap, error   the frame's content, when it answers nothing
 *   rtt       milliseconds of the last ping
 */
export class Connection extends EventTarget {
  #url;
  #codec;
  #socket = null;
  #lastId = 0;
  #pending = new Map(); // frame id -> { resolve, reject }
  #attempt = 0;
  #timer = 0; // the next attempt, or the next ping

  constructor(url) {
    super();
    this.#url = url;
  }

  /** Connects, speaking `encoding` ('json' or 'protobuf'); an open socket is closed first. */
  open(encoding) {
    this.#drop('replaced');
    this.#codec = CODECS[encoding];
    this.#attempt = 0;
    this.#connect();
  }

  /** Ends the session; nothing reconnects. */
  close() {
    this.#drop('closed here');
    this.#say('state', { state: 'closed', why: 'disconnected' });
  }

  /** Tries at once if the next attempt is being waited for, such as when the network is back. */
  hurry() {
    if (this.#socket || !this.#timer) return;
    clearTimeout(this.#timer);
    this.#connect();
  }

  /** Sends a frame and waits for its answer; rejects with Refused, or with an Error when the socket is lost first. */
  ask(frame) {
    return new Promise((resolve, reject) => {
      const id = (this.#lastId += 1);
      this.send({ id, ...frame });
      this.#pending.set(id, { resolve, reject });
    });
  }

  /** Sends a frame as it is. Throws when there is no open socket or the codec cannot write it. */
  send(frame) {
    if (this.#socket?.readyState !== WebSocket.OPEN) throw new Error('not connected');
    const data = this.#codec.encode(frame);
    this.#socket.send(data);
    this.#say('frames', { sent: true, data, frames: [frame] });
  }

  #connect() {
    this.#say('state', { state: 'connecting' });
    const socket = new WebSocket(this.#url, this.#codec.subprotocol);
    socket.binaryType = 'arraybuffer';
    this.#socket = socket;
    this.#timer = 0;
    socket.onopen = () => {
      this.ask({ connect: {} }).then(
        ({ connected }) => {
          this.#attempt = 0;
          this.#say('state', { state: 'connected', ...connected });
          this.#ping(Number.parseFloat(connected.pingInterval ?? '25s') * 1000, 0);
        },
        (refused) => this.#say('error', refused.error ?? { message: refused.message }),
      );
    };
    socket.onmessage = ({ data }) => this.#receive(data);
    socket.onclose = ({ code, reason }) => this.#lost(code, reason);
  }

  #receive(data) {
    let frames;
    try {
      frames = this.#codec.decode(data);
    } catch (fault) {
      return this.#say('error', { reason: 'unreadable', message: fault.message });
    }
    this.#say('frames', { sent: false, data, frames });
    for (const frame of frames) {
      const waiting = this.#pending.get(frame.replyTo);
      if (waiting) {
        this.#pending.delete(frame.replyTo);
        if (frame.error) waiting.reject(new Refused(frame.error));
        else waiting.resolve(frame);
      } else {
        for (const kind of ['delivery', 'gap', 'error']) if (frame[kind]) this.#say(kind, frame[kind]);
      }
    }
  }

  /** A browser cannot see WebSocket pings, so it asks by itself whether the line is alive. */
  #ping(everyMs, firstMs = everyMs) {
    this.#timer = setTimeout(async () => {
      const dead = setTimeout(() => this.#lost(1006, 'no pong'), PONG_TIMEOUT_MS);
      const begun = performance.now();
      try {
        await this.ask({ ping: {} });
        this.#say('rtt', performance.now() - begun);
        this.#ping(everyMs);
      } catch {
        // The socket is gone, and its close has been dealt with.
      } finally {
        clearTimeout(dead);
      }
    }, firstMs);
  }

  #lost(code, reason) {
    this.#drop(reason);
    const why = reason ? `${reason} (${code})` : code === 1006 ? 'connection lost' : `closed (${code})`;
    if (!mayReconnect(code)) return this.#say('state', { state: 'closed', why });
    this.#attempt += 1;
    const retryMs = backoff(this.#attempt);
    this.#timer = setTimeout(() => this.#connect(), retryMs);
    this.#say('state', { state: 'waiting', retryMs, attempt: this.#attempt, why });
  }

  #drop(why) {
    clearTimeout(this.#timer);
    this.#timer = 0;
    const socket = this.#socket;
    this.#socket = null;
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
    }
    for (const { reject } of this.#pending.values()) reject(new Error(`connection lost: ${why || 'no reason given'}`));
    this.#pending.clear();
  }

  #say(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
