import { broken } from './frame-rules.ts'
import { ConnectionError, ERROR, MAX_FRAME, MAX_WINDOW, SETTING } from './protocol.ts'

const SETTING_BYTES = 6
/** There are ten that anybody knows. */
const MAX_SETTINGS = 32

export interface SessionSettings {
  readonly maxStreams: number
  /** Of a field block, as RFC 9113 §6.5.2 counts: 32 bytes more for each field than its name and value. */
  readonly maxHeaderSize: number
  readonly maxFields: number
  /** How far a body may run ahead of who takes it, and all of them together. */
  readonly streamWindow: number
  readonly sessionWindow: number
}

/** The payload of SETTINGS (RFC 9113 §6.5.1), extended CONNECT offered (RFC 8441 §3). */
export function encodeSettings(settings: SessionSettings): Buffer {
  const values = [
    [SETTING.maxConcurrentStreams, settings.maxStreams],
    [SETTING.initialWindowSize, settings.streamWindow],
    [SETTING.maxHeaderListSize, settings.maxHeaderSize],
    [SETTING.enableConnectProtocol, 1],
  ] as const
  const bytes = Buffer.alloc(values.length * SETTING_BYTES)
  let at = 0
  for (const [id, value] of values) {
    at = bytes.writeUInt16BE(id, at)
    at = bytes.writeUInt32BE(value, at)
  }
  return bytes
}

/** Reads a client's settings; throws `ConnectionError` for what no client may set (RFC 9113 §6.5.2). */
export function readSettings(
  bytes: Buffer,
  start: number,
  end: number,
  found: (id: number, value: number) => void,
): void {
  if (end - start > MAX_SETTINGS * SETTING_BYTES) {
    throw new ConnectionError(ERROR.enhanceYourCalm, 'too many settings')
  }
  for (let at = start; at < end; at += SETTING_BYTES) {
    const id = bytes.readUInt16BE(at)
    const value = bytes.readUInt32BE(at + 2)
    if (id === SETTING.enablePush && value > 1) throw broken('ENABLE_PUSH is 0 or 1')
    if (id === SETTING.maxFrameSize && (value < MAX_FRAME || value >= 2 ** 24)) {
      throw broken('MAX_FRAME_SIZE out of range')
    }
    if (id === SETTING.initialWindowSize) checkWindow(value)
    found(id, value)
  }
}

/** RFC 9113 §6.9.1. */
export function checkWindow(size: number): void {
  if (size > MAX_WINDOW)
    throw new ConnectionError(ERROR.flowControlError, 'the window is too large')
}
