// Keeps a session connected: who writes, who listens, when to try again.
//
// In: the ends of connections, time, signs of the environment. Out: one current connection, whenever that is possible.
//
// What always holds: frames are taken from one connection only. While a resume is on its way on another, frames of the
// current one are kept aside: the gateway hands over all that came after the count that the resume says, so they are taken
// only if it comes to nothing.

import { durationMs } from "@bufbuild/protobuf/wkt";
import { Alarm } from "./alarm.js";
import { Attempt, type AttemptEvents } from "./attempt.js";
import { jitter } from "./backoff.js";
import { type Closed, comesBack, LOST, NORMAL, REPLACED, SUPERSEDED, UNAUTHENTICATED } from "./closing.js";
import type { Connection } from "./connection.js";
import { Credentials } from "./credentials.js";
import { Endpoints } from "./endpoints.js";
import { watch } from "./environment.js";
import { closedError, TrestleError } from "./errors.js";
import type { Connected, DrainNotice, ServerFrame } from "./gen/trestle/v1/client_pb.js";
import type { Settings } from "./options.js";
import type { Session } from "./session.js";
import type { State } from "./state.js";
import { Writer } from "./writer.js";

/** Most frames kept aside during a handover: what the gateway itself keeps for a resume. */
const KEPT_MAX = 1024;
/** A connection that lived this long was no failure, in milliseconds: a loop of connects and closes is slowed down. */
const STABLE_MS = 5_000;
/** How often the gateway pings if it does not say, in milliseconds. */
const PING_INTERVAL_MS = 25_000;
/** How much later than promised a ping may come: by a fifth. */
const PING_GRACE = 1.2;
/** How long the gateway has to close the connection that was given up for another, in milliseconds. */
const RETIRE_MS = 5_000;
/** How long the gateway has to answer the close of the program, in milliseconds. */
const GOODBYE_MS = 2_000;

export class Driver {
  readonly #endpoints: Endpoints;
  readonly #credentials: Credentials;
  readonly #writer: Writer;
  readonly #unwatch: () => void;
  readonly #again = new Alarm();
  readonly #quiet = new Alarm();
  readonly #pong = new Alarm();
  /** Connections that are given up and not closed yet. */
  readonly #retired = new Map<Connection, Alarm>();
  #state: State = { name: "connecting" };
  #attempt: Attempt | undefined;
  #current: Connection | undefined;
  /** Frames of the current connection while a resume is on its way elsewhere. */
  #kept: ServerFrame[] | undefined;
  /** Whether a resume was said since the last `connected`: then it may be ours that replaces the current connection. */
  #resuming = false;
  /** Whether the current connection is about to be closed by the gateway. */
  #moving = false;
  /** The last frame of the current connection, if it was an error: why it is closed. */
  #parting: TrestleError | undefined;
  #failures = 0;
  #connectedAt = 0;
  #lostAt = Date.now();
  /** Whether the gateway has said how long to wait. */
  #told = false;

  constructor(
    urls: readonly string[],
    readonly settings: Settings,
    readonly session: Session,
    readonly random: () => number,
    readonly changed: (state: State) => void,
  ) {
    this.#endpoints = new Endpoints(urls, random);
    this.#credentials = new Credentials(settings.token);
    this.#writer = new Writer(session);
    this.#unwatch = watch({ awake: () => this.#awake(), leaving: () => void this.close() });
    this.#try();
  }

  get state(): State {
    return this.#state;
  }

  /** There is something to write. */
  asked(): void {
    this.#writer.ask();
  }

  /** A connection ends soon: another is made before. */
  drain(notice: DrainNotice): void {
    if (this.#moving) return;
    this.#moving = true;
    this.#endpoints.name(notice.endpoint);
    this.#again.set(notice.reconnectAfter === undefined ? 0 : durationMs(notice.reconnectAfter), () => this.#try());
  }

  /** Ends the session, after what was asked before is written. Settled when the gateway has closed, or took too long. */
  async close(): Promise<void> {
    if (this.#state.name === "closed") return;
    this.#writer.flush();
    const connections = [this.#current, this.#attempt?.drop()];
    this.#attempt = undefined;
    this.#current = undefined;
    const goodbyes = connections.map((connection) => (connection === undefined ? undefined : goodbye(connection)));
    this.#finish({ code: NORMAL, reason: "closed by the program" });
    await Promise.all(goodbyes);
  }

  /** Begins an attempt, unless one is under way. */
  #try(): void {
    if (this.#attempt !== undefined || this.#state.name === "closed") return;
    this.#again.clear();
    if (this.#current === undefined) this.#enter({ name: "connecting" });
    const { WebSocket, connectTimeout } = this.settings;
    this.#attempt = new Attempt(WebSocket, this.#endpoints.next(), connectTimeout, {
      token: () => this.#credentials.get(),
      connect: () => this.#connect(),
      welcomed: (connection, connected, rest) => this.#welcome(connection, connected, rest),
      failed: (why) => this.#failed(why),
    });
  }

  /** From here on the count stands still, until it is known who goes on with the session. */
  #connect(): ReturnType<AttemptEvents["connect"]> {
    const resume = this.session.resume();
    if (resume !== undefined) this.#resuming = true;
    if (this.#current !== undefined) {
      this.#kept = [];
      this.#writer.stop();
    }
    return { id: this.session.outgoing.claimId(), resume };
  }

  #welcome(connection: Connection, connected: Connected, rest: ServerFrame[]): void {
    const old = this.#current;
    const now = Date.now();
    this.#attempt = undefined;
    this.#resuming = false;
    this.#moving = true; // what the earlier connection said about its end is of no use
    this.#parting = undefined;
    this.#credentials.accepted();
    this.#connectedAt = now;
    const kept = this.#kept ?? [];
    this.#kept = undefined;
    if (old !== undefined) this.#retire(old, connected.resumed);
    this.#current = connection;
    connection.listen({
      opened: () => {},
      frames: (frames) => this.#heard(connection, frames),
      ended: (why) => this.#ended(connection, why),
    });
    // What another session begins with comes after all that the earlier one had said.
    if (!connected.resumed) for (const frame of kept) this.session.take(frame, now);
    this.#moving = false;
    if (this.#current !== connection) return;
    this.session.begin(connected, now);
    if (this.#current !== connection) return; // a listener has closed the client
    this.#listenForPings(connected);
    this.#writer.start(connection, connected.frameBytesMax);
    const { resumed, sessionId, user, node } = connected;
    this.#enter({ name: "connected", resumed, sessionId, user, node });
    this.#heard(connection, rest);
  }

  #heard(connection: Connection, frames: ServerFrame[]): void {
    this.#pong.clear();
    const now = Date.now();
    for (const frame of frames) {
      if (connection !== this.#current) return;
      if (this.#kept === undefined) this.#take(frame, now);
      else if (this.#kept.length < KEPT_MAX) this.#kept.push(frame);
      else this.#ended(connection, { code: LOST, reason: `more than ${KEPT_MAX} frames came during a handover` });
    }
    if (connection === this.#current && this.#kept === undefined) this.#writer.heard();
  }

  #take(frame: ServerFrame, now: number): void {
    if (frame.frame.case === "connected") return; // comes once, before all others; not counted
    this.#parting = frame.frame.case === "error" ? TrestleError.of(frame.frame.value) : undefined;
    this.session.take(frame, now);
  }

  /** An attempt came to nothing: the current connection, if there is one, goes on. */
  #failed(why: Closed): void {
    this.#attempt = undefined;
    const kept = this.#kept ?? [];
    this.#kept = undefined;
    const now = Date.now();
    for (const frame of kept) if (this.#state.name !== "closed") this.#take(frame, now);
    if (this.#current !== undefined) {
      this.#writer.start(this.#current, this.session.connected?.frameBytesMax ?? 0);
      this.#writer.heard();
      if (!this.#moving) return;
    }
    this.#decide(why);
  }

  /** The current connection has ended. */
  #ended(connection: Connection, why: Closed): void {
    if (connection !== this.#current) return;
    connection.drop();
    this.#current = undefined;
    this.#moving = false;
    this.#writer.stop();
    this.#quiet.clear();
    this.#pong.clear();
    this.#lostAt = Date.now();
    if (this.#lostAt - this.#connectedAt >= STABLE_MS) this.#failures = 0;
    if (this.#attempt !== undefined) {
      // Where it is our own resume that ends it, the session is on its way to the other connection.
      if (why.code !== REPLACED || !this.#resuming) this.#enter({ name: "connecting" });
      return;
    }
    const error = this.#parting;
    this.#decide(error === undefined ? why : { ...why, error });
  }

  /** Whether to try again, and when. */
  #decide(why: Closed): void {
    const { reconnect } = this.settings;
    const mine = why.code === REPLACED && this.#resuming;
    if (why.code === UNAUTHENTICATED && this.#credentials.refused(why)) {
      this.#try();
      return;
    }
    if (reconnect === undefined || !(comesBack(why.code) || mine)) {
      if (this.#current === undefined) this.#finish(why);
      return;
    }
    const told = why.error?.retryAfter;
    const wait = told ?? jitter(this.#failures, reconnect.base, reconnect.cap, this.random);
    this.#failures += 1;
    const until = Date.now() + wait;
    if (this.#current === undefined) {
      if (until - this.#lostAt > reconnect.giveUpAfter) {
        this.#finish(why);
        return;
      }
      this.#enter({ name: "waiting", until: new Date(until), why });
    }
    this.#told = told !== undefined;
    if (this.#state.name !== "closed") this.#again.set(wait, () => this.#try());
  }

  /** The page is shown again, or the network is back: a wait of our own choice is over, and a connection has to prove itself. */
  #awake(): void {
    if (this.#state.name === "waiting" && !this.#told) this.#try();
    else if (this.#current !== undefined) this.#probe(this.#current);
  }

  /** Silence for longer than the gateway's pings allow is looked into: browsers do not show them, so we ping too. */
  #listenForPings({ pingInterval }: Connected): void {
    const promised = pingInterval === undefined ? 0 : durationMs(pingInterval);
    const limit = (promised > 0 ? promised : PING_INTERVAL_MS) * PING_GRACE;
    const look = () => {
      if (this.#current === undefined) return;
      const silent = Date.now() - this.#current.heardAt;
      if (silent >= limit) this.#probe(this.#current);
      this.#quiet.set(silent >= limit ? limit : limit - silent, look);
    };
    this.#quiet.set(limit, look);
  }

  #probe(connection: Connection): void {
    if (this.#pong.isSet) return;
    this.#writer.ping(connection);
    const { pongTimeout } = this.settings;
    this.#pong.set(pongTimeout, () => this.#ended(connection, { code: LOST, reason: `no pong within ${pongTimeout} ms` }));
  }

  /** The gateway closes the connection whose session has moved; if it does not, we do, and at once if it has not moved. */
  #retire(connection: Connection, moved: boolean): void {
    const alarm = new Alarm();
    const gone = () => {
      alarm.clear();
      this.#retired.delete(connection);
    };
    this.#retired.set(connection, alarm);
    connection.listen({ opened: () => {}, frames: () => {}, ended: gone });
    if (!moved) connection.close(NORMAL, "done");
    alarm.set(RETIRE_MS, () => {
      gone();
      connection.close(SUPERSEDED, "session goes on on another connection");
      connection.drop();
    });
  }

  #finish(why: Closed): void {
    this.#unwatch();
    for (const alarm of [this.#again, this.#quiet, this.#pong, ...this.#retired.values()]) alarm.clear();
    for (const connection of this.#retired.keys()) connection.drop();
    this.#retired.clear();
    this.#attempt?.drop()?.drop();
    this.#attempt = undefined;
    this.#kept = undefined;
    this.#writer.stop();
    this.#writer.end();
    this.#enter({ name: "closed", why });
    this.session.end(closedError(why));
  }

  #enter(state: State): void {
    if (this.#state.name === "closed" || (this.#state.name === "connecting" && state.name === "connecting")) return;
    this.#state = state;
    this.changed(state);
  }
}

/** Says goodbye, and waits for the answer. */
function goodbye(connection: Connection): Promise<void> {
  return new Promise((resolve) => {
    const alarm = new Alarm();
    const done = () => {
      alarm.clear();
      resolve();
    };
    connection.listen({ opened: () => {}, frames: () => {}, ended: done });
    alarm.set(GOODBYE_MS, () => {
      connection.drop();
      done();
    });
    connection.close(NORMAL, "done");
  });
}
