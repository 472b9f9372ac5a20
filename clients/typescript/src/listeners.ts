// Who is called for what: messages by their type, events by their name. A listener that fails stops nobody else.

import { type DescMessage, fromBinary, type MessageShape } from "@bufbuild/protobuf";
import { TrestleError } from "./errors.js";
import type { Envelope } from "./gen/trestle/v1/envelope_pb.js";
import { Code } from "./gen/trestle/v1/errors_pb.js";

/** Called with a message of one type, and with the envelope it came in. */
export type MessageListener<S extends DescMessage> = (message: MessageShape<S>, envelope: Envelope) => unknown;
/** Takes a listener out again. */
export type Stop = () => void;
/** Told what goes wrong where nobody waits for it. */
export type Report = (fault: TrestleError) => void;

/** Listeners of one thing. */
export class Listeners<T> {
  readonly #listeners = new Set<{ call: (value: T) => unknown }>();

  constructor(readonly report: Report) {}

  add(call: (value: T) => unknown): Stop {
    const listener = { call };
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  get size(): number {
    return this.#listeners.size;
  }

  tell(value: T): void {
    for (const { call } of [...this.#listeners]) guard(() => call(value), this.report);
  }
}

interface Typed {
  schema: DescMessage;
  call: (message: never, envelope: Envelope) => unknown;
}

/** Listeners of messages, by type. */
export class MessageListeners {
  readonly #typed = new Map<string, Set<Typed>>();
  readonly #others: Listeners<Envelope>;

  constructor(readonly report: Report) {
    this.#others = new Listeners(report);
  }

  add<S extends DescMessage>(schema: S, call: MessageListener<S>): Stop {
    const listener: Typed = { schema, call };
    const listeners = this.#typed.get(schema.typeName) ?? new Set();
    this.#typed.set(schema.typeName, listeners.add(listener));
    return () => {
      listeners.delete(listener);
      if (listeners.size === 0 && this.#typed.get(schema.typeName) === listeners) this.#typed.delete(schema.typeName);
    };
  }

  addOther(call: (envelope: Envelope) => unknown): Stop {
    return this.#others.add(call);
  }

  /** Hands a message to those who asked for its type, else to those who take what nobody asked for. */
  tell(envelope: Envelope): void {
    const listeners = this.#typed.get(envelope.messageType);
    if (listeners === undefined) {
      this.#others.tell(envelope);
      return;
    }
    for (const { schema, call } of [...listeners]) {
      let message: MessageShape<DescMessage>;
      try {
        message = fromBinary(schema, envelope.payload);
      } catch (cause) {
        this.report(new TrestleError(`a message ${envelope.id} is not a ${schema.typeName}: are the stubs those of the gateway?`, {
          code: Code.INVALID_ARGUMENT, reason: "malformed_payload", cause,
        }));
        continue;
      }
      guard(() => call(message as never, envelope), this.report);
    }
  }
}

/** Calls what belongs to the program; what it throws, now or later, is reported. */
function guard(call: () => unknown, report: Report): void {
  const failed = (cause: unknown) =>
    report(new TrestleError("a listener failed", { code: Code.UNKNOWN, reason: "listener_failed", cause }));
  try {
    const result = call();
    if (result instanceof Promise) result.catch(failed);
  } catch (cause) {
    failed(cause);
  }
}
