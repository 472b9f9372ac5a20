// Protobuf by hand, for the frames and the example messages of this page: the field tables below are the schema.
// Objects on the JavaScript side have the shape of canonical proto3 JSON (64-bit numbers and times are strings), so
// that the page handles one shape whichever subprotocol is spoken. A program would use generated types instead.

/** Fields by type: name -> [number, kind]. A kind is a scalar, `enum X`, `repeated X`, `map`, or a type of this table. */
const TYPES = {
  'trestle.v1.ClientFrames': { frames: [1, 'repeated trestle.v1.ClientFrame'] },
  'trestle.v1.ClientFrame': {
    id: [1, 'uint32'],
    connect: [2, 'trestle.v1.Connect'],
    message: [3, 'trestle.v1.Envelope'],
    request: [4, 'trestle.v1.Request'],
    subscribe: [5, 'trestle.v1.Channel'],
    unsubscribe: [6, 'trestle.v1.Channel'],
    publish: [7, 'trestle.v1.Publish'],
    ping: [12, 'trestle.v1.Empty'],
  },
  'trestle.v1.Connect': { token: [1, 'string'] },
  'trestle.v1.Request': { message: [1, 'trestle.v1.Envelope'], timeout: [2, 'duration'] },
  'trestle.v1.Channel': { channel: [1, 'string'] }, // Subscribe, Unsubscribe and Unsubscribed look alike
  'trestle.v1.Publish': { channel: [1, 'string'], message: [2, 'trestle.v1.Envelope'] },
  'trestle.v1.Empty': {}, // Ping and Pong

  'trestle.v1.ServerFrames': { frames: [1, 'repeated trestle.v1.ServerFrame'] },
  'trestle.v1.ServerFrame': {
    replyTo: [1, 'uint32'],
    connected: [2, 'trestle.v1.Connected'],
    accepted: [3, 'trestle.v1.Accepted'],
    reply: [4, 'trestle.v1.Envelope'],
    delivery: [5, 'trestle.v1.Envelope'],
    subscribed: [6, 'trestle.v1.Subscribed'],
    unsubscribed: [7, 'trestle.v1.Channel'],
    gap: [11, 'trestle.v1.Gap'],
    error: [13, 'trestle.v1.Error'],
    pong: [14, 'trestle.v1.Empty'],
  },
  'trestle.v1.Connected': {
    sessionId: [1, 'string'],
    resumed: [3, 'bool'],
    pingInterval: [4, 'duration'],
    user: [5, 'string'],
    node: [6, 'string'],
    frameBytesMax: [7, 'uint32'],
  },
  'trestle.v1.Accepted': { level: [1, 'enum AckLevel'], offset: [2, 'uint64'] },
  'trestle.v1.Subscribed': { channel: [1, 'string'], recovered: [2, 'bool'], offset: [3, 'uint64'] },
  'trestle.v1.Gap': {
    channel: [1, 'string'],
    from: [2, 'uint64'],
    to: [3, 'uint64'],
    count: [4, 'uint64'],
    reason: [5, 'enum GapReason'],
  },
  'trestle.v1.Error': {
    code: [1, 'enum Code'],
    reason: [2, 'string'],
    message: [3, 'string'],
    field: [4, 'string'],
    retryable: [5, 'bool'],
    retryAfter: [6, 'duration'],
  },
  'trestle.v1.Envelope': {
    id: [1, 'string'],
    messageType: [2, 'string'],
    version: [3, 'string'],
    payload: [4, 'bytes'], // encoded and decoded by its messageType, see below
    channel: [5, 'string'],
    offset: [6, 'uint64'],
    prevOffset: [7, 'uint64'],
    time: [8, 'timestamp'],
    correlationId: [9, 'string'],
    source: [10, 'trestle.v1.Source'],
    headers: [11, 'map'],
    deadline: [12, 'timestamp'],
  },
  'trestle.v1.Source': { session: [1, 'string'], user: [2, 'string'], node: [3, 'string'], service: [4, 'string'] },

  'chat.v1.Comment': { text: [1, 'string'], author: [2, 'string'] },
  'shop.v1.UserCreated': { userId: [1, 'string'], email: [2, 'string'] },
  'shop.v1.OrderPaid': { orderId: [1, 'string'], cents: [2, 'int64'] },
  'shop.v2.OrderPaid': { orderId: [1, 'string'], total: [2, 'shop.v2.Money'] },
  'shop.v2.Money': { currency: [1, 'string'], cents: [2, 'int64'] },
  'shop.v1.InventoryUpdated': { sku: [1, 'string'], change: [2, 'sint32'] },
  'shop.v1.GetQuote': { sku: [1, 'string'], quantity: [2, 'uint32'] },
  'shop.v1.Quote': { sku: [1, 'string'], cents: [2, 'int64'] },
  'shop.v1.Receipt': { orderId: [1, 'string'], cents: [2, 'int64'], currency: [3, 'string'], orderVersion: [4, 'string'] },

  duration: { seconds: [1, 'int64'], nanos: [2, 'int32'] },
  timestamp: { seconds: [1, 'int64'], nanos: [2, 'int32'] },
  map: { key: [1, 'string'], value: [2, 'string'] },
};

const ENUMS = {
  AckLevel: { RECEIVED: 1, DURABLE: 3, HANDLED: 4 },
  GapReason: { SLOW: 1, FAILOVER: 4 },
  Code: {
    CANCELLED: 1, UNKNOWN: 2, INVALID_ARGUMENT: 3, DEADLINE_EXCEEDED: 4, NOT_FOUND: 5, ALREADY_EXISTS: 6,
    PERMISSION_DENIED: 7, RESOURCE_EXHAUSTED: 8, FAILED_PRECONDITION: 9, INTERNAL: 13, UNAVAILABLE: 14, UNAUTHENTICATED: 16,
  },
};

/** Type behind an alias and its version, as the routes of the example schemas declare it. */
const ALIASES = {
  'USER_CREATED 1.0': 'shop.v1.UserCreated',
  'ORDER_PAID 1.0': 'shop.v1.OrderPaid',
  'ORDER_PAID 2.0': 'shop.v2.OrderPaid',
  'INVENTORY_UPDATED 1.0': 'shop.v1.InventoryUpdated',
  'GET_QUOTE 1.0': 'shop.v1.GetQuote',
};

const VARINT = 0, I64 = 1, LEN = 2, I32 = 5;
const utf8 = { encode: new TextEncoder(), decode: new TextDecoder('utf-8', { fatal: true }) };

/** Encodes an object of canonical JSON shape as `type`. Throws on a field that the type does not have. */
export function encode(type, object) {
  const out = [];
  for (const [name, value] of Object.entries(object)) {
    const field = TYPES[type][name];
    if (!field) throw new Error(`${type} has no field ${name}`);
    const [number, kind] = field;
    if (kind === 'map') {
      for (const [key, text] of Object.entries(value)) put(out, number, kind, { key, value: text });
    } else if (kind.startsWith('repeated ')) {
      for (const item of value) put(out, number, kind.slice(9), item);
    } else if (name === 'payload') {
      put(out, number, kind, encode(payloadType(object), value));
    } else {
      put(out, number, kind, value);
    }
  }
  return Uint8Array.from(out);
}

/** Decodes `bytes` as `type`, to an object of canonical JSON shape; unknown fields are skipped. Throws when cut short. */
export function decode(type, bytes) {
  const names = Object.entries(TYPES[type]);
  const object = {};
  for (const [number, wire] of read(bytes)) {
    const [name, [, kind]] = names.find(([, field]) => field[0] === number) ?? ['', ['', '']];
    if (!name) continue;
    if (kind === 'map') {
      const { key = '', value = '' } = decode(kind, wire);
      object[name] = { ...object[name], [key]: value };
    } else if (kind.startsWith('repeated ')) {
      (object[name] ??= []).push(fromWire(kind.slice(9), wire));
    } else {
      object[name] = fromWire(kind, wire);
    }
  }
  if (type === 'trestle.v1.Envelope') openPayload(object);
  return object;
}

function payloadType({ messageType, version = '1.0' }) {
  const type = TYPES[messageType] ? messageType : ALIASES[`${messageType} ${version}`];
  if (!type) throw new Error(`this page knows no ${messageType} ${version}; the JSON subprotocol takes any type`);
  return type;
}

/** The payload as an object where its type is known here, else in base64 as the gateway's JSON has it. */
function openPayload(envelope) {
  const bytes = envelope.payload ?? new Uint8Array();
  delete envelope.payload;
  if (TYPES[envelope.messageType]) envelope.payload = decode(envelope.messageType, bytes);
  else envelope.payloadBase64 = btoa(String.fromCharCode(...bytes));
}

function put(out, number, kind, value) {
  const tag = (wire) => varint(out, (number << 3) | wire);
  const block = (bytes) => { tag(LEN); varint(out, bytes.length); for (const byte of bytes) out.push(byte); };
  if (kind.startsWith('enum ')) { tag(VARINT); return varint(out, ENUMS[kind.slice(5)][value]); }
  switch (kind) {
    case 'string': return value === '' ? undefined : block(utf8.encode.encode(value));
    case 'bytes': return block(value);
    case 'bool': tag(VARINT); return varint(out, value ? 1 : 0);
    case 'sint32': tag(VARINT); return varint(out, ((value << 1) ^ (value >> 31)) >>> 0);
    case 'int32': case 'int64': case 'uint32': case 'uint64': tag(VARINT); return varint(out, value);
    case 'duration': return block(encode(kind, secondsToWire(value)));
    default: return block(encode(kind, value));
  }
}

function fromWire(kind, wire) {
  if (kind.startsWith('enum ')) return nameOf(ENUMS[kind.slice(5)], Number(wire));
  switch (kind) {
    case 'string': return utf8.decode.decode(wire);
    case 'bytes': return wire;
    case 'bool': return wire !== 0n;
    case 'uint32': return Number(BigInt.asUintN(32, wire));
    case 'int32': return Number(BigInt.asIntN(32, wire));
    case 'sint32': { const n = Number(BigInt.asUintN(32, wire)); return (n >>> 1) ^ -(n & 1); }
    case 'uint64': return String(wire);
    case 'int64': return String(BigInt.asIntN(64, wire));
    case 'duration': { const { seconds = '0', nanos = 0 } = decode(kind, wire); return `${Number(seconds) + nanos / 1e9}s`; }
    case 'timestamp': { const { seconds = '0', nanos = 0 } = decode(kind, wire); return new Date(Number(seconds) * 1e3 + nanos / 1e6).toISOString(); }
    default: return decode(kind, wire);
  }
}

function nameOf(values, number) {
  return Object.keys(values).find((name) => values[name] === number) ?? number;
}

/** `1.5s` -> { seconds: 1, nanos: 500000000 } */
function secondsToWire(text) {
  const seconds = Number.parseFloat(text);
  return { seconds: Math.trunc(seconds), nanos: Math.round((seconds % 1) * 1e9) };
}

function varint(out, value) {
  let rest = BigInt.asUintN(64, BigInt(value));
  for (; rest > 127n; rest >>= 7n) out.push(Number(rest & 127n) | 128);
  out.push(Number(rest));
}

/** Yields [field number, BigInt or bytes] for every field on the wire. */
function* read(bytes) {
  let at = 0;
  const take = (length) => {
    if (at + length > bytes.length) throw new Error('protobuf message is cut short');
    return bytes.subarray(at, (at += length));
  };
  const number = () => {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const [byte] = take(1);
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return BigInt.asUintN(64, value);
    }
    throw new Error('varint is longer than 10 bytes');
  };
  while (at < bytes.length) {
    const tag = Number(number());
    switch (tag & 7) {
      case VARINT: yield [tag >>> 3, number()]; break;
      case LEN: yield [tag >>> 3, take(Number(number()))]; break;
      case I64: yield [tag >>> 3, take(8)]; break;
      case I32: yield [tag >>> 3, take(4)]; break;
      default: throw new Error(`wire type ${tag & 7} is not known`);
    }
  }
}
