// What a program may set, and what holds where it does not.

import type { SocketConstructor } from "./connection.js";
import type { Token } from "./credentials.js";

/** How to come back after a lost connection. Times are in milliseconds. */
export interface Reconnect {
  /** Most that the first wait may be; it doubles with each failure, and what is waited is anything up to it. Default 250. */
  base?: number;
  /** Most that any wait may be. Default 20,000. */
  cap?: number;
  /** After how long without a connection to give up. Default: never. */
  giveUpAfter?: number;
}

/** What {@link connect} takes. Times are in milliseconds. */
export interface Options {
  /** The user's token, or a function that gets one; it is asked again when the gateway refuses what it gave. Default: anonymous. */
  token?: Token;
  /** How to come back; false: not at all. */
  reconnect?: Reconnect | false;
  /** For how long a message is repeated until it is accepted, at most 110,000. Default 30,000. */
  retryFor?: number;
  /** How long getting a token, connecting and being welcomed may take together. Default 10,000. */
  connectTimeout?: number;
  /** How long the gateway may take to answer a ping. Default 10,000. */
  pongTimeout?: number;
  /** The WebSocket to use where the platform has none, such as Node.js 20: that of the package `ws`. */
  WebSocket?: SocketConstructor;
}

/** Options with nothing left open. */
export interface Settings {
  token: Token;
  reconnect: { base: number; cap: number; giveUpAfter: number } | undefined;
  retryFor: number;
  connectTimeout: number;
  pongTimeout: number;
  WebSocket: SocketConstructor;
}

/** The gateway knows an envelope's id for two minutes; later a repetition would be another message. */
const RETRY_FOR_MAX = 110_000;

/** Checks options, and fills in the defaults. */
export function settings(options: Options): Settings {
  const { reconnect, token = "", retryFor = 30_000, connectTimeout = 10_000, pongTimeout = 10_000 } = options;
  const platform = (globalThis as { WebSocket?: SocketConstructor }).WebSocket;
  const WebSocket = options.WebSocket ?? platform;
  if (WebSocket === undefined) {
    throw new TypeError("this platform has no WebSocket: give one, such as { WebSocket } from the package ws");
  }
  const times = { retryFor, connectTimeout, pongTimeout };
  for (const [name, value] of Object.entries(times)) {
    if (!(value > 0)) throw new RangeError(`${name} is ${value}; it must be more than 0 ms`);
  }
  if (retryFor > RETRY_FOR_MAX) {
    throw new RangeError(`retryFor is ${retryFor} ms; after ${RETRY_FOR_MAX} the gateway may have forgotten the message's id`);
  }
  const back = reconnect === false ? undefined : { base: 250, cap: 20_000, giveUpAfter: Infinity, ...reconnect };
  return { token, reconnect: back, ...times, WebSocket };
}
