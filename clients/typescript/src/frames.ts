// Frames as bytes: what one binary WebSocket message holds.

import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { ClientFrameSchema, type ServerFrame, ServerFramesSchema } from "./gen/trestle/v1/client_pb.js";

/** The subprotocol that is spoken. */
export const SUBPROTOCOL = "trestle.v1.proto";

/** What one frame to the gateway says. */
export type Asked = Extract<NonNullable<MessageInitShape<typeof ClientFrameSchema>["frame"]>, { case: string }>;
/** What one frame of the gateway says. */
export type Answer = ServerFrame["frame"];
/** The kinds of answers. */
export type AnswerKind = keyof Answers;
/** What an answer of `K` holds. */
export type AnswerOf<K extends AnswerKind> = Answers[K];
type Answers = { [A in Extract<Answer, { case: string }> as A["case"]]: A["value"] };

/** `ClientFrames.frames` is field 1, of wire type 2. */
const FRAMES_TAG = 0x0a;
/** Tag and length of the largest frame: 1 and 5 bytes. */
export const OVERHEAD_BYTES_MAX = 6;

/** One frame, as it stands in a WebSocket message. */
export function encode(id: number, frame: Asked): Uint8Array {
  return toBinary(ClientFrameSchema, create(ClientFrameSchema, { id, frame }));
}

/** A WebSocket message of `frames`: `ClientFrames`, without encoding each frame again. */
export function join(frames: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(frames.reduce((sum, frame) => sum + frame.length + OVERHEAD_BYTES_MAX, 0));
  let at = 0;
  for (const frame of frames) {
    bytes[at++] = FRAMES_TAG;
    let length = frame.length;
    for (; length > 0x7f; length >>>= 7) bytes[at++] = (length & 0x7f) | 0x80;
    bytes[at++] = length;
    bytes.set(frame, at);
    at += frame.length;
  }
  return bytes.subarray(0, at);
}

/** The frames of a WebSocket message; throws where it is none. */
export function decode(data: unknown): ServerFrame[] {
  if (typeof data === "string") throw new TypeError("text on the binary subprotocol");
  return fromBinary(ServerFramesSchema, new Uint8Array(data as ArrayBuffer)).frames;
}
