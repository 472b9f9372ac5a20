// What the world around tells a client: a page is shown again, a network is back, a page goes away.

/** Who wants to know. */
export interface Wakings {
  /** Now is a good time to try. */
  awake(): void;
  /** The page is left for good. */
  leaving(): void;
}

interface Page extends EventTarget {
  document?: EventTarget & { visibilityState: string };
}

/** Tells `wakings` until the function that it returns is called. In Node.js there is nothing to tell. */
export function watch(wakings: Wakings): () => void {
  const page = globalThis as unknown as Page;
  if (typeof page.addEventListener !== "function") return () => {};
  const off = new AbortController();
  const { signal } = off;
  const { document } = page;
  page.addEventListener("online", () => wakings.awake(), { signal });
  // A page that is kept may be shown again, and then goes on.
  const kept = (event: Event) => (event as Event & { persisted?: boolean }).persisted === true;
  page.addEventListener("pageshow", (event) => kept(event) && wakings.awake(), { signal });
  page.addEventListener("pagehide", (event) => kept(event) || wakings.leaving(), { signal });
  document?.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible") wakings.awake();
  }, { signal });
  return () => off.abort();
}
