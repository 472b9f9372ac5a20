// Where to connect next.

/** The gateway's addresses, taken in turn from a random start, so that clients spread over them. */
export class Endpoints {
  readonly #urls: string[];
  #turn = 0;
  #named: string | undefined;
  #last = "";

  constructor(urls: readonly string[], random: () => number) {
    if (urls.length === 0) throw new RangeError("no URL to connect to");
    this.#urls = urls.map(absolute);
    for (let at = this.#urls.length - 1; at > 0; at -= 1) {
      const other = Math.floor(random() * (at + 1));
      const url = this.#urls[at] as string;
      this.#urls[at] = this.#urls[other] as string;
      this.#urls[other] = url;
    }
  }

  next(): string {
    this.#last = this.#named ?? (this.#urls[this.#turn++ % this.#urls.length] as string);
    this.#named = undefined;
    return this.#last;
  }

  /** The gateway names where to go next; once, and never from TLS to none. */
  name(url: string): void {
    if (!URL.canParse(url)) return;
    const { protocol } = new URL(url);
    if (protocol === "wss:" || (protocol === "ws:" && !this.#last.startsWith("wss:"))) this.#named = url;
  }
}

/** `url` with a scheme that WebSockets have; in a page it may be relative. */
function absolute(url: string): string {
  const base = (globalThis as { location?: { href: string } }).location?.href;
  if (!URL.canParse(url, base)) throw new RangeError(`"${url}" is no URL of a gateway, such as wss://example.com/ws`);
  const parsed = new URL(url, base);
  if (parsed.protocol === "http:") parsed.protocol = "ws:";
  if (parsed.protocol === "https:") parsed.protocol = "wss:";
  if (parsed.protocol !== "ws:" && parsed.protocol !== "wss:") {
    throw new RangeError(`"${url}" is no URL of a gateway: its scheme must be ws or wss`);
  }
  return parsed.href;
}
