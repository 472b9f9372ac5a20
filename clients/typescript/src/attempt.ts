// One try to get a connection that is welcomed: token, socket, `connect`, `connected`.

import type { MessageInitShape } from "@bufbuild/protobuf";
import { Alarm } from "./alarm.js";
import { type Closed, LOST } from "./closing.js";
import { Connection, type SocketConstructor } from "./connection.js";
import { TrestleError } from "./errors.js";
import { encode } from "./frames.js";
import type { Connected, ResumeSchema, ServerFrame } from "./gen/trestle/v1/client_pb.js";

/** What an attempt needs of the client. */
export interface AttemptEvents {
  /** The token, for the `connect` frame; or why there is none but the one that was refused. */
  token(): Promise<string | Closed>;
  /** Called at the moment before `connect` is sent: its id, and what to go on with. From here on the count must stand still. */
  connect(): { id: number; resume: MessageInitShape<typeof ResumeSchema> | undefined };
  /** The gateway has welcomed the connection; `rest` are the frames that came with it. */
  welcomed(connection: Connection, connected: Connected, rest: ServerFrame[]): void;
  /** There is no connection, and why. */
  failed(why: Closed): void;
}

export class Attempt {
  readonly #alarm = new Alarm();
  #events: AttemptEvents | undefined;
  #connection: Connection | undefined;
  #error: TrestleError | undefined;

  constructor(
    readonly socket: SocketConstructor,
    readonly url: string,
    readonly timeout: number,
    events: AttemptEvents,
  ) {
    this.#events = events;
    this.#alarm.set(timeout, () => this.#fail({ code: LOST, reason: `not connected within ${timeout} ms` }));
    void this.#run(events);
  }

  /** Stops trying; nothing more is told. */
  drop(): Connection | undefined {
    this.#events = undefined;
    this.#alarm.clear();
    return this.#connection;
  }

  async #run(events: AttemptEvents): Promise<void> {
    let token: string | Closed;
    try {
      token = await events.token();
    } catch (cause) {
      this.#fail({ code: LOST, reason: `no token: ${cause}` });
      return;
    }
    if (this.#events === undefined) return;
    if (typeof token === "string") this.#connect(token);
    else this.#fail(token);
  }

  #connect(token: string): void {
    try {
      this.#connection = new Connection(this.socket, this.url, {
        opened: () => this.#opened(token),
        frames: (frames) => this.#heard(frames),
        ended: (why) => this.#fail(why),
      });
    } catch (cause) {
      this.#fail({ code: LOST, reason: `no socket: ${cause}` });
    }
  }

  #opened(token: string): void {
    if (this.#events === undefined) return;
    const { id, resume } = this.#events.connect();
    this.#connection?.send([encode(id, { case: "connect", value: resume === undefined ? { token } : { token, resume } })]);
  }

  #heard(frames: ServerFrame[]): void {
    for (const [at, { frame }] of frames.entries()) {
      if (this.#events === undefined || this.#connection === undefined) return;
      if (frame.case === "error") this.#error = TrestleError.of(frame.value);
      if (frame.case !== "connected") continue;
      const events = this.#events;
      this.drop();
      events.welcomed(this.#connection, frame.value, frames.slice(at + 1));
      return;
    }
  }

  #fail(why: Closed): void {
    const events = this.#events;
    this.drop()?.drop();
    events?.failed(this.#error === undefined ? why : { ...why, error: this.#error });
  }
}
