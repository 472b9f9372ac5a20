// Why a connection ended, and whether another may follow.

import type { TrestleError } from "./errors.js";

/** How a connection ended. */
export interface Closed {
  /** The WebSocket close code; 1006 where there was none. */
  code: number;
  /** A sentence for people. */
  reason: string;
  /** The error that the gateway sent right before, where it did. */
  error?: TrestleError;
}

/** The program is done: the gateway ends the session at once. */
export const NORMAL = 1000;
/** There was no close frame. */
export const LOST = 1006;
/** This side parts from a connection whose session goes on elsewhere. */
export const SUPERSEDED = 3000;
/** The token is missing, wrong or expired: a fresh one may help. */
export const UNAUTHENTICATED = 4500;
/** The session goes on on another connection. */
export const REPLACED = 4502;

/** Codes after which the same program would only be refused again (RFC 6455, 7.4.1). */
const FINAL = new Set([NORMAL, 1002, 1003, 1007, 1008, 1009, 1010]);

/** Whether a client comes back after `code`; 4500-4999 say that it should not. */
export function comesBack(code: number): boolean {
  return !FINAL.has(code) && !(code >= 4500 && code <= 4999);
}
