// One timer with a name: setting it again moves it, and nothing is left when it is cleared.

/** Longest time that `setTimeout` takes; longer ones would fire at once. */
const TIMER_MAX = 2 ** 31 - 1;

export class Alarm {
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** Rings once, `ms` from now, instead of whenever it was set to before. */
  set(ms: number, ring: () => void): void {
    this.clear();
    this.#timer = setTimeout(() => {
      this.clear();
      ring();
    }, Math.min(Math.max(ms, 0), TIMER_MAX));
  }

  /** Whether it is going to ring. */
  get isSet(): boolean {
    return this.#timer !== undefined;
  }

  clear(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }
}
