/**
 * Client of the Trestle realtime gateway, for browsers and Node.js.
 *
 * @packageDocumentation
 */

export { Channel, type ChannelOptions, Inbox } from "./channel.js";
export {
  Client, type ClientEvents, connect, type HistoryPlace, type MessageOptions, type RequestOptions,
} from "./client.js";
export type { Closed } from "./closing.js";
export type { Socket, SocketConstructor } from "./connection.js";
export type { Token } from "./credentials.js";
export { TrestleError } from "./errors.js";
export {
  type Accepted, type Gap, GapReason, type HistoryPage, type PresenceEvent, type PresenceMember, type PresenceState, type Subscribed,
} from "./gen/trestle/v1/client_pb.js";
export { AckLevel, type Envelope, type Source } from "./gen/trestle/v1/envelope_pb.js";
export { Code } from "./gen/trestle/v1/errors_pb.js";
export type { MessageListener, Stop } from "./listeners.js";
export type { Options, Reconnect } from "./options.js";
export type { Since } from "./room.js";
export type { State } from "./state.js";
