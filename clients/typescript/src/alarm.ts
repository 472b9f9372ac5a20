// One timer with a name: setting it again moves it, and nothing is left when it is cleared.

/** Longest time that `setTimeout` takes; longer ones would fire at once. */
const TIMER_MAX = 2 ** 31 - 1;

export class Alarm {
  #timer: ReturnType<typeof setTimeout> | undefined;
  #at = Infinity;

  /** Rings once, `ms` from now, instead of whenever it was set to before. */
  set(ms: number, ring: () => void): void {
    this.clear();
    const wait = Math.min(Math.max(ms, 0), TIMER_MAX);
    this.#at = Date.now() + wait;
    this.#timer = setTimeout(() => {
      this.clear();
      ring();
    }, wait);
  }

  /** Rings `ms` from now at the latest. */
  setEarlier(ms: number, ring: () => void): void {
    if (Date.now() + ms < this.#at) this.set(ms, ring);
  }

  /** Whether it is going to ring. */
  get isSet(): boolean {
    return this.#timer !== undefined;
  }

  clear(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#at = Infinity;
  }
}
