// How long to wait before the next attempt.

/** Full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter"): anything up to `base` doubled `failures` times. */
export function jitter(failures: number, base: number, cap: number, random: () => number): number {
  return random() * Math.min(cap, base * 2 ** Math.min(failures, 30));
}
