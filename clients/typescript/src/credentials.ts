// The token that says who the user is.

import type { Closed } from "./closing.js";

/** A token, or a function that gets one. */
export type Token = string | (() => string | Promise<string>);

/** Keeps a token until the gateway refuses it, then asks for another, once. */
export class Credentials {
  #token: string | undefined;
  /** The token that was refused last, and how. */
  #refused: { token: string | undefined; why: Closed } | undefined;

  constructor(readonly given: Token) {}

  /** The token to connect with, or why it was refused if there is no other; throws what the program's function throws. */
  async get(): Promise<string | Closed> {
    this.#token ??= typeof this.given === "string" ? this.given : await this.given();
    return this.#token === this.#refused?.token ? this.#refused.why : this.#token;
  }

  /** The gateway took it. */
  accepted(): void {
    this.#refused = undefined;
  }

  /** The gateway refused it: whether it is worth asking for another. */
  refused(why: Closed): boolean {
    if (typeof this.given === "string" || this.#refused !== undefined) return false;
    this.#refused = { token: this.#token, why };
    this.#token = undefined;
    return true;
  }
}
