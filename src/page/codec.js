// The two subprotocols of the gateway: frames to WebSocket messages and back.
import { decode, encode } from './protobuf.js';

const asFrame = (frame) => (frame.messageType ? { message: frame } : frame); // the shorthand of text frames

export const CODECS = {
  json: {
    subprotocol: 'trestle.v1.json',
    /** One frame as the text of a WebSocket message. */
    encode: (frame) => JSON.stringify(frame),
    /** The frames of a WebSocket message: an object, or an array of them. */
    decode: (text) => [JSON.parse(text)].flat(),
  },
  protobuf: {
    subprotocol: 'trestle.v1.proto',
    encode: (frame) => encode('trestle.v1.ClientFrames', { frames: [asFrame(frame)] }),
    decode: (buffer) => decode('trestle.v1.ServerFrames', new Uint8Array(buffer)).frames ?? [],
  },
};

/** What a frame carries, such as `delivery`. */
export function kindOf(frame) {
  if (frame.messageType) return 'message';
  return Object.keys(frame).find((key) => key !== 'id' && key !== 'replyTo') ?? 'empty';
}

/** Size of a WebSocket message, in bytes. */
export function sizeOf(data) {
  return typeof data === 'string' ? new TextEncoder().encode(data).length : data.byteLength;
}

/** Bytes as rows of sixteen in hexadecimal; the first `most` only. */
export function hex(data, most = 512) {
  const bytes = new Uint8Array(data).subarray(0, most);
  const rows = [];
  for (let at = 0; at < bytes.length; at += 16) {
    rows.push(Array.from(bytes.subarray(at, at + 16), (byte) => byte.toString(16).padStart(2, '0')).join(' '));
  }
  return rows.join('\n') + (data.byteLength > most ? '\n...' : '');
}
