import { globalAgent } from 'node:https'
import WebSocket from 'ws'
import { base, PAYLOAD, say } from './steps.mjs'

/** A message sent, and the answer to it. */
function exchange(path, message) {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(base.replace('https:', 'wss:') + path, { agent: globalAgent })
    socket.on('error', reject)
    socket.on('open', () => socket.send(message))
    socket.on('message', (data) => {
      socket.close()
      resolve(data)
    })
  })
}

say('get', 200, await exchange('/ws', 'get'))
say('post', 200, await exchange('/ws', PAYLOAD))
say('big', 200, await exchange('/ws', 'big'))
say('healed', 200, await exchange('/ws-healed', 'healed'))
