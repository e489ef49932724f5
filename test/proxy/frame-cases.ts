import {
  ACK,
  END_HEADERS,
  END_STREAM,
  FRAME,
  fields,
  frame,
  goaway,
  PADDED,
  PING,
  PRIORITY,
  requestFrame,
  reset,
  setting,
  u32,
} from '../support/http2-frames.ts'

/** The host that the CONNECT named, by its default port. */
export const AUTHORITY = 'api.test'

/** A request whose body is announced and does not come: nothing of it leaves before it has. */
const begun = (stream: number, length = 10) =>
  requestFrame(AUTHORITY, stream, {
    method: 'POST',
    more: [['content-length', `${length}`]],
  })
export const get = (stream: number, ...more: readonly (readonly [string, string])[]) =>
  requestFrame(AUTHORITY, stream, { more })
/** A request whose body has come. */
const whole = (stream: number) => [
  requestFrame(AUTHORITY, stream, { method: 'POST', path: '/whole' }),
  data(stream, 10, END_STREAM),
]
/** HEADERS with just these fields. */
const head = (...list: readonly (readonly [string, string])[]) =>
  frame(FRAME.headers, END_HEADERS | END_STREAM, 1, fields(...list))
const data = (stream: number, length: number, flags = 0) =>
  frame(FRAME.data, flags, stream, Buffer.alloc(length))

const METHOD = [':method', 'GET'] as const
const SCHEME = [':scheme', 'https'] as const
const PATH = [':path', '/'] as const
const OWN = [':authority', AUTHORITY] as const

export type Case = readonly [name: string, frames: () => Buffer[], outcome: string]

/** What a client says after its preface, and what becomes of it: of the connection, else of stream 1. */
export const CASES: readonly Case[] = [
  // §5.1, stream states.
  ['DATA on an idle stream', () => [data(1, 5)], 'connection PROTOCOL_ERROR'],
  ['DATA on the connection', () => [data(0, 5)], 'connection PROTOCOL_ERROR'],
  ['RST_STREAM on an idle stream', () => [reset(1, 8)], 'connection PROTOCOL_ERROR'],
  [
    'WINDOW_UPDATE on an idle stream',
    () => [frame(FRAME.windowUpdate, 0, 1, u32(1))],
    'connection PROTOCOL_ERROR',
  ],
  ['DATA after its stream has ended', () => [...whole(1), data(1, 5)], 'stream STREAM_CLOSED'],
  ['HEADERS after its stream has ended', () => [...whole(1), get(1)], 'stream STREAM_CLOSED'],
  [
    'DATA after its own RST_STREAM',
    () => [begun(1), reset(1, 8), data(1, 5)],
    'stream STREAM_CLOSED',
  ],
  [
    'HEADERS after its own RST_STREAM',
    () => [begun(1), reset(1, 8), get(1)],
    'stream STREAM_CLOSED',
  ],
  // §5.1.1, stream identifiers.
  ['HEADERS on an even stream', () => [get(2)], 'connection PROTOCOL_ERROR'],
  ['HEADERS on stream 0', () => [get(0)], 'connection PROTOCOL_ERROR'],
  ['HEADERS on a lower stream than before', () => [begun(5), get(1)], 'connection PROTOCOL_ERROR'],
  // §4.1, §4.2: unknown and oversized frames.
  ['a frame of an unknown type', () => [frame(0x20, 0, 0, Buffer.alloc(10))], 'nothing'],
  ['unknown flags', () => [frame(FRAME.ping, 0xfe, 0, Buffer.alloc(8))], 'nothing'],
  ['oversized DATA', () => [begun(1, 20_000), data(1, 16_385)], 'connection FRAME_SIZE_ERROR'],
  [
    'oversized HEADERS',
    () => [frame(FRAME.headers, 5, 1, Buffer.alloc(16_385))],
    'connection FRAME_SIZE_ERROR',
  ],
  [
    'oversized SETTINGS',
    () => [frame(FRAME.settings, 0, 0, Buffer.alloc(16_386))],
    'connection FRAME_SIZE_ERROR',
  ],
  // §4.3, field blocks.
  [
    'an index that is not in the table',
    () => [frame(FRAME.headers, 5, 1, Buffer.from([0xff, 0xff, 0xff]))],
    'connection COMPRESSION_ERROR',
  ],
  [
    'index 0',
    () => [frame(FRAME.headers, 5, 1, Buffer.from([0x80]))],
    'connection COMPRESSION_ERROR',
  ],
  [
    'a table larger than allowed',
    () => [frame(FRAME.headers, 5, 1, Buffer.from([0x3f, 0xff, 0xff, 0x7f, 0x82]))],
    'connection COMPRESSION_ERROR',
  ],
  // §6.1, §6.2: padding.
  [
    'DATA with more padding than payload',
    () => [begun(1), frame(FRAME.data, PADDED, 1, Buffer.from([5, 1, 2, 3, 4]))],
    'connection PROTOCOL_ERROR',
  ],
  [
    'HEADERS with more padding than payload',
    () => [frame(FRAME.headers, PADDED | 5, 1, Buffer.from([5, 0x82]))],
    'connection PROTOCOL_ERROR',
  ],
  // §6.3, §5.3: priorities.
  [
    'PRIORITY of a wrong length',
    () => [frame(FRAME.priority, 0, 1, Buffer.alloc(4))],
    'connection FRAME_SIZE_ERROR',
  ],
  [
    'PRIORITY on stream 0',
    () => [frame(FRAME.priority, 0, 0, Buffer.alloc(5))],
    'connection PROTOCOL_ERROR',
  ],
  // A connection error where a stream error would do: PRIORITY is deprecated, no client means it.
  [
    'a stream that depends on itself by PRIORITY',
    () => [frame(FRAME.priority, 0, 1, Buffer.from([0, 0, 0, 1, 1]))],
    'connection PROTOCOL_ERROR',
  ],
  [
    'a stream that depends on itself by HEADERS',
    () => [
      frame(
        FRAME.headers,
        PRIORITY | 5,
        1,
        Buffer.concat([Buffer.from([0, 0, 0, 1, 1]), fields(METHOD, SCHEME, PATH, OWN)]),
      ),
    ],
    'connection PROTOCOL_ERROR',
  ],
  // §6.4 RST_STREAM.
  ['RST_STREAM on stream 0', () => [reset(0, 8)], 'connection PROTOCOL_ERROR'],
  [
    'RST_STREAM of a wrong length',
    () => [begun(1), frame(FRAME.rstStream, 0, 1, Buffer.alloc(3))],
    'connection FRAME_SIZE_ERROR',
  ],
  // §6.5 SETTINGS.
  [
    'SETTINGS that acknowledge with a payload',
    () => [frame(FRAME.settings, ACK, 0, Buffer.alloc(6))],
    'connection FRAME_SIZE_ERROR',
  ],
  ['SETTINGS on a stream', () => [frame(FRAME.settings, 0, 1)], 'connection PROTOCOL_ERROR'],
  [
    'SETTINGS of a wrong length',
    () => [frame(FRAME.settings, 0, 0, Buffer.alloc(5))],
    'connection FRAME_SIZE_ERROR',
  ],
  ['ENABLE_PUSH other than 0 and 1', () => [setting(2, 2)], 'connection PROTOCOL_ERROR'],
  [
    'INITIAL_WINDOW_SIZE too large',
    () => [setting(4, 0x80000000)],
    'connection FLOW_CONTROL_ERROR',
  ],
  ['MAX_FRAME_SIZE too small', () => [setting(5, 16_383)], 'connection PROTOCOL_ERROR'],
  ['MAX_FRAME_SIZE too large', () => [setting(5, 0x1000000)], 'connection PROTOCOL_ERROR'],
  ['an unknown setting', () => [setting(0xf0, 1)], 'nothing'],
  // §6.6 PUSH_PROMISE.
  [
    'PUSH_PROMISE from a client',
    () => [
      begun(1),
      frame(FRAME.pushPromise, END_HEADERS, 1, Buffer.concat([u32(2), Buffer.from([0x82])])),
    ],
    'connection PROTOCOL_ERROR',
  ],
  // §6.7 PING, §6.8 GOAWAY.
  [
    'PING on a stream',
    () => [frame(FRAME.ping, 0, 1, Buffer.alloc(8))],
    'connection PROTOCOL_ERROR',
  ],
  [
    'PING of a wrong length',
    () => [frame(FRAME.ping, 0, 0, Buffer.alloc(7))],
    'connection FRAME_SIZE_ERROR',
  ],
  [
    'a PING answer that nobody asked for',
    () => [frame(FRAME.ping, ACK, 0, Buffer.alloc(8))],
    'connection PROTOCOL_ERROR',
  ],
  [
    'GOAWAY on a stream',
    () => [frame(FRAME.goaway, 0, 1, Buffer.alloc(8))],
    'connection PROTOCOL_ERROR',
  ],
  ['GOAWAY', () => [goaway(0, 0)], 'connection NO_ERROR'],
  // §6.9 WINDOW_UPDATE.
  [
    'WINDOW_UPDATE of a wrong length',
    () => [frame(FRAME.windowUpdate, 0, 0, Buffer.alloc(3))],
    'connection FRAME_SIZE_ERROR',
  ],
  [
    'WINDOW_UPDATE by 0 on the connection',
    () => [frame(FRAME.windowUpdate, 0, 0, u32(0))],
    'connection PROTOCOL_ERROR',
  ],
  [
    'WINDOW_UPDATE by 0 on a stream',
    () => [begun(1), frame(FRAME.windowUpdate, 0, 1, u32(0))],
    'stream PROTOCOL_ERROR',
  ],
  [
    'a window that overflows on the connection',
    () => [frame(FRAME.windowUpdate, 0, 0, u32(0x7fffffff))],
    'connection FLOW_CONTROL_ERROR',
  ],
  [
    'a window that overflows on a stream',
    () => [begun(1), frame(FRAME.windowUpdate, 0, 1, u32(0x7fffffff))],
    'stream FLOW_CONTROL_ERROR',
  ],
  [
    'windows that overflow by SETTINGS',
    () => [begun(1), frame(FRAME.windowUpdate, 0, 1, u32(0x7fff0000)), setting(4, 0x7fffffff)],
    'connection FLOW_CONTROL_ERROR',
  ],
  // §6.10 CONTINUATION.
  [
    'CONTINUATION without HEADERS',
    () => [frame(FRAME.continuation, END_HEADERS, 1, Buffer.alloc(3))],
    'connection PROTOCOL_ERROR',
  ],
  [
    'PING within a field block',
    () => [frame(FRAME.headers, END_STREAM, 1, fields(METHOD)), PING],
    'connection PROTOCOL_ERROR',
  ],
  [
    'CONTINUATION of another stream',
    () => [
      frame(FRAME.headers, END_STREAM, 1, fields(METHOD)),
      frame(FRAME.continuation, END_HEADERS, 3, fields(SCHEME)),
    ],
    'connection PROTOCOL_ERROR',
  ],
  // §8.1, §8.2, §8.3: messages. What HTTP/2 forbids is a stream error, what the proxy refuses is answered.
  ['a line break in a value', () => [get(1, ['x-broken', 'a\r\nb: c'])], 'stream PROTOCOL_ERROR'],
  ['NUL in a value', () => [get(1, ['x-broken', 'a\0b'])], 'stream PROTOCOL_ERROR'],
  ['white space around a value', () => [get(1, ['x-broken', ' a'])], 'stream PROTOCOL_ERROR'],
  ['an empty name', () => [get(1, ['', 'b: c'])], 'stream PROTOCOL_ERROR'],
  ['a space in a name', () => [get(1, ['x y', '1'])], 'stream PROTOCOL_ERROR'],
  ['an upper-case name', () => [get(1, ['X-Upper', '1'])], 'stream PROTOCOL_ERROR'],
  ['connection', () => [get(1, ['connection', 'keep-alive'])], 'stream PROTOCOL_ERROR'],
  ['transfer-encoding', () => [get(1, ['transfer-encoding', 'chunked'])], 'stream PROTOCOL_ERROR'],
  ['upgrade', () => [get(1, ['upgrade', 'h2c'])], 'stream PROTOCOL_ERROR'],
  ['keep-alive', () => [get(1, ['keep-alive', '5'])], 'stream PROTOCOL_ERROR'],
  ['proxy-connection', () => [get(1, ['proxy-connection', 'close'])], 'stream PROTOCOL_ERROR'],
  ['te other than trailers', () => [get(1, ['te', 'gzip'])], 'stream PROTOCOL_ERROR'],
  ['no :method', () => [head(SCHEME, PATH, OWN)], 'stream PROTOCOL_ERROR'],
  ['no :scheme', () => [head(METHOD, PATH, OWN)], 'stream PROTOCOL_ERROR'],
  ['no :path', () => [head(METHOD, SCHEME, OWN)], 'stream PROTOCOL_ERROR'],
  ['an empty :path', () => [head(METHOD, SCHEME, [':path', ''], OWN)], 'stream PROTOCOL_ERROR'],
  ['neither :authority nor host', () => [head(METHOD, SCHEME, PATH)], 'stream PROTOCOL_ERROR'],
  ['two :method', () => [head(METHOD, METHOD, SCHEME, PATH, OWN)], 'stream PROTOCOL_ERROR'],
  ['two :path', () => [head(METHOD, SCHEME, PATH, PATH, OWN)], 'stream PROTOCOL_ERROR'],
  ['two :scheme', () => [head(METHOD, SCHEME, SCHEME, PATH, OWN)], 'stream PROTOCOL_ERROR'],
  ['two :authority', () => [head(METHOD, SCHEME, PATH, OWN, OWN)], 'stream PROTOCOL_ERROR'],
  [
    'an unknown pseudo field',
    () => [head(METHOD, SCHEME, PATH, OWN, [':more', '1'])],
    'stream PROTOCOL_ERROR',
  ],
  [
    'a pseudo field of responses',
    () => [head(METHOD, SCHEME, PATH, OWN, [':status', '200'])],
    'stream PROTOCOL_ERROR',
  ],
  [
    'a pseudo field after a regular one',
    () => [head(METHOD, SCHEME, OWN, ['x-a', '1'], PATH)],
    'stream PROTOCOL_ERROR',
  ],
  [
    'pseudo fields in trailers',
    () => [begun(1), data(1, 10), head(METHOD)],
    'stream PROTOCOL_ERROR',
  ],
  [
    'trailers that do not end the stream',
    () => [begun(1), data(1, 10), frame(FRAME.headers, END_HEADERS, 1, fields(['x-a', '1']))],
    'stream PROTOCOL_ERROR',
  ],
  [
    'less DATA than content-length says',
    () => [begun(1), data(1, 9, END_STREAM)],
    'stream PROTOCOL_ERROR',
  ],
  ['more DATA than content-length says', () => [begun(1), data(1, 11)], 'stream PROTOCOL_ERROR'],
  [
    'content-length without a body',
    () => [get(1, ['content-length', '5'])],
    'stream PROTOCOL_ERROR',
  ],
  [
    'content-length twice',
    () => [get(1, ['content-length', '0'], ['content-length', '0'])],
    'stream PROTOCOL_ERROR',
  ],
  [
    'content-length that is no number',
    () => [get(1, ['content-length', '-1'])],
    'stream PROTOCOL_ERROR',
  ],
  [
    ':protocol without CONNECT',
    () => [head(METHOD, SCHEME, PATH, OWN, [':protocol', 'websocket'])],
    'stream PROTOCOL_ERROR',
  ],
  [
    'CONNECT with :path and without :protocol',
    () => [head([':method', 'CONNECT'], SCHEME, PATH, OWN)],
    'stream PROTOCOL_ERROR',
  ],
  [
    "an :authority that isn't the CONNECT's",
    () => [head(METHOD, SCHEME, PATH, [':authority', 'other.test'])],
    'status 421',
  ],
  ["a host that isn't the CONNECT's", () => [get(1, ['host', 'other.test'])], 'status 421'],
  [
    'user information in :authority',
    () => [head(METHOD, SCHEME, PATH, [':authority', `me@${AUTHORITY}`])],
    'status 400',
  ],
  [
    'a :path that is no path',
    () => [head(METHOD, SCHEME, [':path', 'a'], OWN)],
    'stream PROTOCOL_ERROR',
  ],
  ['a :path with a fragment', () => [head(METHOD, SCHEME, [':path', '/a#b'], OWN)], 'status 400'],
]
