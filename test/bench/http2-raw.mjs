/**
 * As little HTTP/2 as a generator and an origin need (RFC 9113): prepared requests out, whole answers counted in, and
 * the other way round. Node's own takes as much CPU as the proxy that is to be measured.
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
const INITIAL_WINDOW = 65_535
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

/** Either side of a connection: cuts what comes into frames, and acknowledges what must be. */
class RawPeer {
  #socket
  #rest
  /** Bytes that come before the first frame. */
  #skip

  constructor(socket, skip) {
    this.#socket = socket
    this.#skip = skip
    socket.on('data', (bytes) => this.#read(bytes))
  }

  write(bytes) {
    this.#socket.write(bytes)
  }

  #read(data) {
    const bytes = this.#rest ? Buffer.concat([this.#rest, data]) : data
    let at = Math.min(this.#skip, bytes.length)
    this.#skip -= at
    while (bytes.length - at >= FRAME_HEAD) {
      const length = bytes.readUIntBE(at, 3)
      const end = at + FRAME_HEAD + length
      if (bytes.length < end) break
      const type = bytes[at + 3]
      const flags = bytes[at + 4]
      const stream = bytes.readUInt32BE(at + 5) & LARGEST_WINDOW
      const payload = at + FRAME_HEAD
      if (type === SETTINGS && !(flags & ACK)) this.write(SETTINGS_ACK)
      else if (type === PING && !(flags & ACK)) {
        this.write(frame(PING, ACK, 0, bytes.subarray(payload, end)))
      } else this.frame(type, flags, stream, bytes, payload, length)
      at = end
    }
    this.#rest = at < bytes.length ? bytes.subarray(at) : undefined
    this.all()
  }
}

/** Sends GETs over a TLS connection; each must be answered by 200 and a body of `length` bytes. */
export class RawSession extends RawPeer {
  #socket
  #first
  #next
  #length
  #onAnswers
  #onError
  #stream = 1
  #received = 0
  #whole = 0
  /** Bytes of the bodies under way, by stream. */
  #bodies = new Map()

  /** `onAnswers(count)` is told how many have become whole at once, `onError` of what should not be. */
  constructor(socket, { path, authority, length, onAnswers, onError }) {
    super(socket, 0)
    const { first, next } = fieldBlocks(path, authority)
    this.#socket = socket
    this.#first = first
    this.#next = frame(HEADERS, END_STREAM | END_HEADERS, 0, next)
    this.#length = length
    this.#onAnswers = onAnswers
    this.#onError = onError
    socket.on('error', onError)
    socket.on('close', () => onError(new Error('connection closed by the proxy')))
    this.write(Buffer.concat([Buffer.from(PREFACE), SETTINGS_FRAME, windowUpdate(0, WINDOW)]))
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
    this.write(Buffer.concat(frames))
  }

  close() {
    this.#onError = () => {}
    this.#socket.removeAllListeners('close').destroy()
  }

  frame(type, flags, stream, bytes, at, length) {
    if (type === HEADERS) {
      if (bytes[at] !== STATUS_200) this.#onError(new Error('no 200'))
    } else if (type === DATA) {
      this.#grant(length)
      const size = this.#bodies.get(stream) + length
      this.#bodies.set(stream, size)
      if (!(flags & END_STREAM)) return
      this.#bodies.delete(stream)
      if (size !== this.#length) this.#onError(new Error(`${size} bytes came`))
      this.#whole += 1
    } else if (type !== SETTINGS && type !== WINDOW_UPDATE) {
      this.#onError(new Error(`frame type ${type} was not expected`))
    }
  }

  /** All that came by one read has been looked at. */
  all() {
    const whole = this.#whole
    this.#whole = 0
    if (whole > 0) this.#onAnswers(whole)
  }

  #grant(length) {
    this.#received += length
    if (this.#received < WINDOW / 2) return
    this.write(windowUpdate(0, this.#received))
    this.#received = 0
  }
}

/** Answers every request with 200 and `body`, as far as the client's window allows. */
export class RawServer extends RawPeer {
  #answer
  #length
  /** Streams that wait for their answers. */
  #asked = []
  #window = INITIAL_WINDOW

  constructor(socket, body) {
    super(socket, PREFACE.length)
    this.#answer = Buffer.concat([
      frame(HEADERS, END_HEADERS, 0, Buffer.from([STATUS_200])),
      frame(DATA, END_STREAM, 0, body),
    ])
    this.#length = body.length
    this.write(frame(SETTINGS, 0, 0, Buffer.alloc(0)))
  }

  frame(type, flags, stream, bytes, at) {
    if (type === HEADERS && flags & END_STREAM) this.#asked.push(stream)
    else if (type === WINDOW_UPDATE && stream === 0) this.#window += bytes.readUInt32BE(at)
  }

  all() {
    const count = Math.min(this.#asked.length, Math.floor(this.#window / this.#length))
    if (count === 0) return
    const size = this.#answer.length
    const answers = Buffer.allocUnsafe(count * size)
    for (const [index, stream] of this.#asked.splice(0, count).entries()) {
      this.#answer.copy(answers, index * size)
      answers.writeUInt32BE(stream, index * size + 5)
      answers.writeUInt32BE(stream, index * size + FRAME_HEAD + 1 + 5)
    }
    this.#window -= count * this.#length
    this.write(answers)
  }
}
