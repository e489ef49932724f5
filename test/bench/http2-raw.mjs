/**
 * As little HTTP/2 as a generator needs (RFC 9113): prepared requests out, whole answers counted in. Node's own
 * client takes as much CPU as the proxy that it is to measure.
 */

const PREFACE = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'
const FRAME_HEAD = 9
const DATA = 0
const HEADERS = 1
const SETTINGS = 4
const PING = 6
const WINDOW_UPDATE = 8
const END_STREAM = 0x1
const ACK = 0x1
const END_HEADERS = 0x4
const LARGEST_WINDOW = 2 ** 31 - 1
/** Granted at the start, and again whenever that much has come. */
const WINDOW = 2 ** 30
/** `:status: 200` as the first field of a block: RFC 7541, appendix A. */
const STATUS_200 = 0x88

function frame(type, flags, stream, payload) {
  const bytes = Buffer.alloc(FRAME_HEAD + payload.length)
  bytes.writeUIntBE(payload.length, 0, 3)
  bytes[3] = type
  bytes[4] = flags
  bytes.writeUInt32BE(stream, 5)
  payload.copy(bytes, FRAME_HEAD)
  return bytes
}

/** SETTINGS_ENABLE_PUSH 0 and SETTINGS_INITIAL_WINDOW_SIZE as large as can be. */
const SETTINGS_FRAME = frame(SETTINGS, 0, 0, Buffer.from('00020000000000047fffffff', 'hex'))
const SETTINGS_ACK = frame(SETTINGS, ACK, 0, Buffer.alloc(0))

const windowUpdate = (stream, size) => {
  const payload = Buffer.alloc(4)
  payload.writeUInt32BE(size)
  return frame(WINDOW_UPDATE, 0, stream, payload)
}

/** The same request over and over: fields into the dynamic table the first time, by index from then on. */
function fieldBlocks(path, authority) {
  const added = (index, value) => [Buffer.from([0x40 | index, value.length]), Buffer.from(value)]
  // In the static table: 2 is GET, 7 https, 4 :path, 1 :authority, 19 accept, 58 user-agent.
  const fields = [added(4, path), added(1, authority), added(19, 'application/json')]
  const first = Buffer.concat([Buffer.from([0x82, 0x87]), ...fields.flat(), ...added(58, 'bench')])
  return { first, next: Buffer.from([0x82, 0x87, 0xc1, 0xc0, 0xbf, 0xbe]) }
}

/** Sends GETs over a TLS connection; each must be answered by 200 and a body of `length` bytes. */
export class RawSession {
  #socket
  #first
  #next
  #length
  #onAnswers
  #onError
  #stream = 1
  #rest
  #received = 0
  /** Bytes of the bodies under way, by stream. */
  #bodies = new Map()

  /** `onAnswers(count)` is told how many have become whole at once, `onError` of what should not be. */
  constructor(socket, { path, authority, length, onAnswers, onError }) {
    const { first, next } = fieldBlocks(path, authority)
    this.#socket = socket
    this.#first = first
    this.#next = frame(HEADERS, END_STREAM | END_HEADERS, 0, next)
    this.#length = length
    this.#onAnswers = onAnswers
    this.#onError = onError
    socket.on('data', (bytes) => this.#read(bytes)).on('error', onError)
    socket.on('close', () => onError(new Error('connection closed by the proxy')))
    socket.write(Buffer.concat([Buffer.from(PREFACE), SETTINGS_FRAME, windowUpdate(0, WINDOW)]))
  }

  /** Sends so many requests in one write. */
  request(count) {
    const frames = []
    for (let sent = 0; sent < count; sent += 1) {
      const bytes =
        this.#stream === 1
          ? frame(HEADERS, END_STREAM | END_HEADERS, 1, this.#first)
          : Buffer.from(this.#next)
      bytes.writeUInt32BE(this.#stream, 5)
      frames.push(bytes)
      this.#bodies.set(this.#stream, 0)
      this.#stream += 2
    }
    this.#socket.write(Buffer.concat(frames))
  }

  close() {
    this.#onError = () => {}
    this.#socket.removeAllListeners('close').destroy()
  }

  #read(data) {
    const bytes = this.#rest ? Buffer.concat([this.#rest, data]) : data
    let at = 0
    let whole = 0
    while (bytes.length - at >= FRAME_HEAD) {
      const length = bytes.readUIntBE(at, 3)
      const end = at + FRAME_HEAD + length
      if (bytes.length < end) break
      if (this.#frame(bytes, at, length)) whole += 1
      at = end
    }
    this.#rest = at < bytes.length ? bytes.subarray(at) : undefined
    if (whole > 0) this.#onAnswers(whole)
  }

  /** Whether it was the last one of an answer. */
  #frame(bytes, at, length) {
    const type = bytes[at + 3]
    const flags = bytes[at + 4]
    const stream = bytes.readUInt32BE(at + 5) & LARGEST_WINDOW
    switch (type) {
      case HEADERS:
        if (bytes[at + FRAME_HEAD] !== STATUS_200) this.#onError(new Error('no 200'))
        return false
      case DATA: {
        this.#grant(length)
        const size = this.#bodies.get(stream) + length
        this.#bodies.set(stream, size)
        if (!(flags & END_STREAM)) return false
        this.#bodies.delete(stream)
        if (size !== this.#length) this.#onError(new Error(`${size} bytes came`))
        return true
      }
      case SETTINGS:
        if (!(flags & ACK)) this.#socket.write(SETTINGS_ACK)
        return false
      case PING:
        if (!(flags & ACK)) {
          const payload = bytes.subarray(at + FRAME_HEAD, at + FRAME_HEAD + length)
          this.#socket.write(frame(PING, ACK, 0, payload))
        }
        return false
      case WINDOW_UPDATE:
        return false
      default:
        this.#onError(new Error(`frame type ${type} was not expected`))
        return false
    }
  }

  #grant(length) {
    this.#received += length
    if (this.#received < WINDOW / 2) return
    this.#socket.write(windowUpdate(0, this.#received))
    this.#received = 0
  }
}
