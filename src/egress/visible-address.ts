import { BlockList, isIP, SocketAddress } from 'node:net'

/** What a page about the visitor's address says in so many words, or less. */
const MAX_BYTES = 64 * 1024
/** Names under which services tell the visitor's address; beside them may stand others. */
const TELLING = /^(ip|ip_?addr(ess)?|client_?ip|remote_?addr(ess)?|your_?ip|query|origin|address)$/i

/** Why an answer tells no address, in words that hold nothing of it. */
export class NoAddress extends Error {}

/** The address that a probe's answer tells: JSON or text, read up to 64 KiB. Throws `NoAddress`. */
export async function readVisibleAddress(response: Response): Promise<string> {
  if (response.status < 200 || response.status > 299) {
    await response.body?.cancel().catch(() => {})
    throw new NoAddress(`the probe was answered with ${response.status}`)
  }
  const text = await readBounded(response)
  const told = tellingValues(text).map(addressOf)
  const found = new Set(told.filter((address) => address !== undefined))
  if (found.size === 0) for (const address of addressesIn(text)) found.add(address)
  const [address, ...others] = found
  if (address === undefined) throw new NoAddress('the answer to the probe holds no IP address')
  // Which of them is ours cannot be known, and guessing wrong would let a token out.
  if (others.length > 0) throw new NoAddress('the answer to the probe holds several IP addresses')
  return address
}

/** Whether an address is the one, or within the CIDR, that is expected. */
export function isWithin(address: string, expect: string): boolean {
  const [network = '', bits] = expect.split('/')
  const family = isIP(network)
  const list = new BlockList()
  const kind = family === 4 ? 'ipv4' : 'ipv6'
  if (bits === undefined) list.addAddress(network, kind)
  else list.addSubnet(network, Number(bits), kind)
  return list.check(address, isIP(address) === 4 ? 'ipv4' : 'ipv6')
}

/** One spelling for each address; undefined for what is none. IPv4 within IPv6 (RFC 4291 §2.5.5.2) is IPv4. */
function addressOf(text: string): string | undefined {
  const bare = text.trim().replace(/^\[(.*)\]$/, '$1')
  const family = isIP(bare)
  if (family === 0) return undefined
  const { address } = new SocketAddress({
    address: bare,
    family: family === 4 ? 'ipv4' : 'ipv6',
  })
  return address.replace(/^::ffff:(?=\d+\.\d+\.\d+\.\d+$)/i, '')
}

/** Values of a JSON document, or of `name=value` lines, whose names say that they are the address. */
function tellingValues(text: string): string[] {
  try {
    const values: string[] = []
    JSON.parse(text, (key, value: unknown) => {
      if (typeof value === 'string' && TELLING.test(key)) values.push(value)
      return value
    })
    return values
  } catch {
    return [...text.matchAll(/^[ \t]*([\w-]+)[ \t]*[=:][ \t]*(\S+)[ \t]*$/gm)]
      .filter(([, name]) => TELLING.test(name as string))
      .map(([, , value]) => value as string)
  }
}

function addressesIn(text: string): string[] {
  return (
    text
      .split(/[^0-9A-Fa-f:.]+/)
      .map((word) => addressOf(word.replace(/^[.]+|[.]+$/g, '')))
      // Double colons and zeros stand in text that is about something else.
      .filter((address): address is string => address !== undefined)
      .filter((address) => address !== '::' && address !== '0.0.0.0')
  )
}

async function readBounded(response: Response): Promise<string> {
  if (!response.body) return ''
  const reader: ReadableStreamDefaultReader<Uint8Array> = response.body.getReader()
  const chunks: Uint8Array[] = []
  let length = 0
  for (;;) {
    const { done, value } = await reader.read()
    if (done) return Buffer.concat(chunks, length).toString('utf8')
    length += value.byteLength
    if (length > MAX_BYTES) {
      await reader.cancel().catch(() => {})
      throw new NoAddress('the answer to the probe is larger than 64 KiB')
    }
    chunks.push(value)
  }
}
