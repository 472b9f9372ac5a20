// How a client stands, as its program sees it.

import type { Closed } from "./closing.js";

/** The state of a client's connection. */
export type State =
  /** A connection is being made, for the first time or again. */
  | { readonly name: "connecting" }
  /** All is well. `resumed`: the session went on, and nothing was lost but what a gap tells. */
  | { readonly name: "connected"; readonly resumed: boolean; readonly sessionId: string; readonly user: string; readonly node: string }
  /** The connection was lost; the next is made at `until`. */
  | { readonly name: "waiting"; readonly until: Date; readonly why: Closed }
  /** It is over: the program closed it, or the gateway does not want it back. */
  | { readonly name: "closed"; readonly why: Closed };
