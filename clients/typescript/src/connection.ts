// One WebSocket: frames in, bytes out, and one word when it has ended.

import { type Closed, LOST, SUPERSEDED } from "./closing.js";
import { decode, join, SUBPROTOCOL } from "./frames.js";
import type { ServerFrame } from "./gen/trestle/v1/client_pb.js";

/** What is used of a WebSocket: the browser's, that of Node.js 22 and later, or that of the package `ws`. */
export interface Socket {
  binaryType: string;
  readonly bufferedAmount: number;
  readonly protocol: string;
  readonly readyState: number;
  // biome-ignore lint/suspicious/noExplicitAny: each implementation has event types of its own
  onopen: ((event: any) => void) | null;
  // biome-ignore lint/suspicious/noExplicitAny: as above
  onmessage: ((event: any) => void) | null;
  // biome-ignore lint/suspicious/noExplicitAny: as above
  onclose: ((event: any) => void) | null;
  // biome-ignore lint/suspicious/noExplicitAny: as above
  onerror: ((event: any) => void) | null;
  send(data: Uint8Array<ArrayBuffer>): void;
  close(code?: number, reason?: string): void;
}

/** Makes a WebSocket. */
export type SocketConstructor = new (url: string, protocols: string[]) => Socket;

/** Who uses a connection. */
export interface ConnectionEvents {
  opened(): void;
  frames(frames: ServerFrame[]): void;
  /** Called once, last; not after {@link Connection.drop}. */
  ended(why: Closed): void;
}

const OPEN = 1;

export class Connection {
  readonly #socket: Socket;
  #events: ConnectionEvents | undefined;
  /** What the socket said was wrong; browsers say nothing. */
  #complaint = "";
  /** When something came last, in milliseconds since 1970. */
  heardAt = Date.now();

  constructor(WebSocket: SocketConstructor, url: string, events: ConnectionEvents) {
    this.#events = events;
    this.#socket = new WebSocket(url, [SUBPROTOCOL]);
    this.#socket.binaryType = "arraybuffer";
    this.#socket.onopen = () => this.#opened();
    this.#socket.onmessage = (event: { data: unknown }) => this.#heard(event.data);
    this.#socket.onclose = (event: { code: number; reason: string }) => this.#end(event.code, event.reason);
    this.#socket.onerror = (event: { message?: unknown }) => {
      if (typeof event.message === "string") this.#complaint = event.message;
    };
    // Browsers do not show the gateway's pings; `ws` does, and then silence needs no ping of ours.
    const { on } = this.#socket as { on?: unknown };
    if (typeof on === "function") on.call(this.#socket, "ping", () => (this.heardAt = Date.now()));
  }

  /** Tells somebody else from now on. */
  listen(events: ConnectionEvents): void {
    this.#events = events;
  }

  /** Bytes that are written and have not left. */
  get buffered(): number {
    return this.#socket.bufferedAmount;
  }

  get open(): boolean {
    return this.#socket.readyState === OPEN;
  }

  /** Writes frames as one WebSocket message. */
  send(frames: readonly Uint8Array[]): void {
    if (this.open && frames.length > 0) this.#socket.send(join(frames));
  }

  /** Begins to close; `ended` follows. */
  close(code: number, reason: string): void {
    this.#socket.close(code, reason);
  }

  /** Parts at once, and tells nothing more. */
  drop(): void {
    this.#events = undefined;
    this.#socket.onmessage = null;
    this.#socket.close(SUPERSEDED, "parted");
    // `ws` would wait 30 s for the other side's close frame, and keep the process for it.
    const { terminate } = this.#socket as { terminate?: unknown };
    if (typeof terminate === "function") terminate.call(this.#socket);
  }

  #opened(): void {
    const { protocol } = this.#socket;
    if (protocol === SUBPROTOCOL) this.#events?.opened();
    else this.#fail(`the server speaks "${protocol}", not ${SUBPROTOCOL}: is the URL that of a gateway?`);
  }

  #heard(data: unknown): void {
    this.heardAt = Date.now();
    let frames: ServerFrame[];
    try {
      frames = decode(data);
    } catch (cause) {
      this.#fail(`the server sent what is not a trestle.v1.ServerFrames: ${cause}`);
      return;
    }
    this.#events?.frames(frames);
  }

  #fail(reason: string): void {
    const events = this.#events;
    this.drop();
    events?.ended({ code: LOST, reason });
  }

  #end(code: number, reason: string): void {
    const events = this.#events;
    this.#events = undefined;
    events?.ended({ code, reason: reason || this.#complaint || "the connection was lost" });
  }
}
