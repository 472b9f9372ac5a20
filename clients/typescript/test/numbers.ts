// numbers.js URL...: a reader and a writer against real gateways. Publishes 1, 2, 3, ... on `room:numbers`, which keeps a
// history, and on `live:numbers`, which does not, until its standard input ends; then prints one JSON line of what was heard.

import { setTimeout as pause } from "node:timers/promises";
import { WebSocket } from "ws";
import { CommentSchema } from "../build/stubs/typescript/chat/v1/chat_pb.js";
import { type Channel, type Client, connect, GapReason, type State } from "../src/index.js";

/** Time between two numbers: 100 a second, so that some are on their way whenever something happens. */
const BETWEEN_MS = 10;
/** How long the last of them may take to come: a failover of the bus is in it. */
const PATIENCE_MS = 30_000;

/** What came on a channel. */
class Heard {
  readonly numbers: number[] = [];
  readonly gaps: string[] = [];
  /** Holes before which no gap was told. */
  readonly untold: string[] = [];
  #told = false;
  #last = 0;

  constructor(
    room: Channel,
    readonly changed: () => void,
  ) {
    room.on(CommentSchema, ({ text }) => this.#number(Number(text)));
    room.onGap(({ from, to, reason }) => {
      this.gaps.push(`${from}-${to} ${GapReason[reason]}`);
      this.#told = true;
    });
  }

  get last(): number {
    return this.#last;
  }

  summary(written: number) {
    const { numbers, gaps, untold } = this;
    const different = new Set(numbers).size;
    const ordered = numbers.every((number, at) => at === 0 || number > (numbers[at - 1] ?? 0));
    return { heard: different, twice: numbers.length - different, missing: written - different, ordered, gaps, untold };
  }

  #number(number: number): void {
    if (number > this.#last + 1 && !this.#told) this.untold.push(`${this.#last + 1}-${number - 1}`);
    this.numbers.push(number);
    this.#last = Math.max(this.#last, number);
    this.#told = false;
    this.changed();
  }
}

function open(urls: string[], states: string[]): Client {
  const client = connect(urls, { WebSocket, reconnect: { base: 50, cap: 1000 } });
  client.on("state", (state: State) => {
    states.push(state.name === "connected" ? `${state.resumed ? "resumed" : "connected"} on ${state.node}` : state.name);
  });
  return client;
}

const urls = process.argv.slice(2);
const states = { reader: [] as string[], writer: [] as string[] };
const [reader, writer] = [open(urls, states.reader), open(urls, states.writer)];
let changed = () => {};
const rooms = [reader.channel("room:numbers"), reader.channel("live:numbers")] as const;
const [room, live] = [new Heard(rooms[0], () => changed()), new Heard(rooms[1], () => changed())];
await Promise.all(rooms.map((room) => room.joined()));
console.error("ready"); // on standard error, so that the line of the result stands alone

let ended = false;
process.stdin.on("end", () => (ended = true)).resume();
const answers: Promise<string | undefined>[] = [];
let written = 0;
for (; !ended || written === 0; await pause(BETWEEN_MS)) {
  written += 1;
  for (const channel of ["room:numbers", "live:numbers"]) {
    answers.push(writer.publish(channel, CommentSchema, { text: String(written) }).then(() => undefined, (error) => String(error.reason)));
  }
}
const refused = (await Promise.all(answers)).filter((reason) => reason !== undefined);
// The last on the live channel may have been lost with a node, and then nothing would come after it.
const last = written;
const all = new Promise<void>((resolve) => {
  changed = () => room.last === last && resolve();
  changed();
});
await Promise.race([all, pause(PATIENCE_MS, undefined, { ref: false })]);
console.log(JSON.stringify({ written, refused, room: room.summary(written), live: live.summary(written), states }));
await Promise.all([reader.close(), writer.close()]);
