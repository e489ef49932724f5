import { Client, credentials } from '@grpc/grpc-js'
import { base, PAYLOAD, say } from './steps.mjs'

const client = new Client(new URL(base).host, credentials.createSsl())
const same = (bytes) => bytes

function unary(method, message = '') {
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(
      `/steps/${method}`,
      same,
      same,
      Buffer.from(message),
      (error, answer) => (error ? reject(error) : resolve(answer)),
    )
  })
}

async function stream(method) {
  const call = client.makeServerStreamRequest(`/steps/${method}`, same, same, Buffer.alloc(0))
  const messages = []
  for await (const message of call) messages.push(message)
  return Buffer.concat(messages)
}

say('get', 200, await unary('get'))
say('post', 200, await unary('echo', PAYLOAD))
say('big', 200, await stream('big'))
say('keep-1', 200, await unary('keep1'))
say('keep-2', 200, await unary('keep2'))
say('healed', 200, await unary('healed'))
client.close()
