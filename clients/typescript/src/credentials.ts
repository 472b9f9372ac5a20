// The token that says who the user is.

/** A token, or a function that gets one. */
export type Token = string | (() => string | Promise<string>);

/** Keeps a token until the gateway refuses it, then asks for another, once. */
export class Credentials {
  #token: string | undefined;
  #refused: string | undefined;
  #renewed = false;

  constructor(readonly given: Token) {}

  /** The token to connect with, undefined if it is the one that was refused; throws what the program's function throws. */
  async get(): Promise<string | undefined> {
    this.#token ??= typeof this.given === "string" ? this.given : await this.given();
    return this.#token === this.#refused ? undefined : this.#token;
  }

  /** The gateway took it. */
  accepted(): void {
    this.#renewed = false;
    this.#refused = undefined;
  }

  /** The gateway refused it: whether it is worth asking for another. */
  refused(): boolean {
    if (typeof this.given === "string" || this.#renewed) return false;
    this.#renewed = true;
    this.#refused = this.#token;
    this.#token = undefined;
    return true;
  }
}
