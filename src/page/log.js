// The list of WebSocket messages as they went over the wire, newest first.
import { hex, kindOf, sizeOf } from './codec.js';

const ROWS_MAX = 200; // a busy channel must not fill the tab's memory

export class FrameLog {
  #list;
  #totals;
  #paused = false;
  #pings = false;
  #count = { in: 0, out: 0, bytesIn: 0, bytesOut: 0 };

  constructor(list, totals) {
    this.#list = list;
    this.#totals = totals;
  }

  set paused(paused) { this.#paused = paused; }
  set pings(shown) { this.#pings = shown; }

  clear() {
    this.#list.replaceChildren();
    this.#count = { in: 0, out: 0, bytesIn: 0, bytesOut: 0 };
    this.#totals.textContent = 'Nothing yet.';
  }

  /** Adds one WebSocket message with the frames in it. */
  add({ sent, data, frames }) {
    const size = sizeOf(data);
    this.#tally(sent, size);
    const kinds = frames.map(kindOf);
    if (this.#paused || (!this.#pings && kinds.every((kind) => kind === 'ping' || kind === 'pong'))) return;
    const row = element('li', { className: kinds.includes('error') ? 'refused' : sent ? 'sent' : 'got' });
    const details = element('details');
    const line = element('summary');
    line.append(
      element('span', { className: 'way', textContent: sent ? '↑' : '↓', title: sent ? 'sent' : 'received' }),
      element('time', { textContent: new Date().toTimeString().slice(0, 8) }),
      element('span', { className: 'kind', textContent: summary(kinds), title: typeof data === 'string' ? 'text' : 'binary' }),
      element('span', { className: 'size', textContent: `${size} B` }),
      element('code', { textContent: frames.map((frame) => JSON.stringify(frame)).join(' ') }),
    );
    details.append(line);
    // The long form is made when it is looked at, not for every message.
    details.addEventListener('toggle', () => {
      if (details.childElementCount > 1) return;
      if (typeof data !== 'string') details.append(element('pre', { textContent: hex(data) }));
      details.append(element('pre', { textContent: frames.map((frame) => JSON.stringify(frame, null, 2)).join('\n') }));
    });
    row.append(details);
    this.#list.prepend(row);
    while (this.#list.childElementCount > ROWS_MAX) this.#list.lastElementChild.remove();
  }

  #tally(sent, size) {
    this.#count[sent ? 'out' : 'in'] += 1;
    this.#count[sent ? 'bytesOut' : 'bytesIn'] += size;
    const { in: got, out, bytesIn, bytesOut } = this.#count;
    this.#totals.textContent = `↑ ${out} sent, ${bytesOut} B   ↓ ${got} received, ${bytesIn} B`;
  }
}

/** `delivery`, or `delivery x3` for a batch of one kind, or the kinds in a row. */
function summary(kinds) {
  const kind = new Set(kinds).size > 1 ? [...new Set(kinds)].join(' + ') : kinds[0] ?? 'empty';
  return kinds.length > 1 ? `${kind} ×${kinds.length}` : kind;
}

/** An element with properties set; text goes in as text, never as markup. */
export function element(tag, properties = {}) {
  return Object.assign(document.createElement(tag), properties);
}
