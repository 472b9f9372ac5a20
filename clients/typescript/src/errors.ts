// What goes wrong, in one class: refusals of the gateway, and what the client itself gives up.

import { durationMs } from "@bufbuild/protobuf/wkt";
import { Code, type Error as Refusal } from "./gen/trestle/v1/errors_pb.js";

/** What a {@link TrestleError} says beside its sentence. */
export interface ErrorFacts {
  code: Code;
  reason: string;
  field?: string;
  retryable?: boolean;
  /** Milliseconds. */
  retryAfter?: number | undefined;
  cause?: unknown;
}

/**
 * Why something was not done.
 *
 * `reason` is a stable word: one of the gateway's (docs/errors.md lists them), or of the client's own: `closed`, `timeout`,
 * `queue_full`, `frame_too_large`, `answer_lost`, `unexpected_answer`, `malformed_payload`, `malformed_frame`, `listener_failed`.
 */
export class TrestleError extends Error {
  override readonly name = "TrestleError";
  /** The class of the fault. */
  readonly code: Code;
  /** A stable word for programs. */
  readonly reason: string;
  /** Path of the offending field; empty where there is none. */
  readonly field: string;
  /** Whether the same input may succeed later. */
  readonly retryable: boolean;
  /** How long to wait before that, in milliseconds, where the gateway says it. */
  readonly retryAfter: number | undefined;

  constructor(message: string, facts: ErrorFacts) {
    super(message, facts.cause === undefined ? {} : { cause: facts.cause });
    this.code = facts.code;
    this.reason = facts.reason;
    this.field = facts.field ?? "";
    this.retryable = facts.retryable ?? false;
    this.retryAfter = facts.retryAfter;
  }

  /** The error that an `error` frame is. */
  static of(refusal: Refusal): TrestleError {
    const { code, reason, field, retryable, retryAfter, message } = refusal;
    return new TrestleError(message === "" ? reason : message, {
      code, reason, field, retryable,
      retryAfter: retryAfter === undefined ? undefined : durationMs(retryAfter),
    });
  }
}

/** The connection has ended for good; what waited for it is told so. */
export function closedError(why: { code: number; reason: string }): TrestleError {
  return new TrestleError(`the client is closed: ${why.reason} (${why.code})`, { code: Code.UNAVAILABLE, reason: "closed", cause: why });
}

/** The time that the program gave it is over; it may have been done. */
export function timeoutError(what: string): TrestleError {
  return new TrestleError(`no answer to ${what} in the time allowed; it may have been done`, {
    code: Code.DEADLINE_EXCEEDED, reason: "timeout", retryable: true,
  });
}

/** The answer went with a connection or a node; it may have been done. */
export function answerLostError(what: string): TrestleError {
  return new TrestleError(`the answer to ${what} was lost with the session; it may have been done`, {
    code: Code.UNAVAILABLE, reason: "answer_lost", retryable: true,
  });
}
