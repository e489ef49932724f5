import { request } from 'node:https'
import { buffer } from 'node:stream/consumers'
import { go } from './steps.mjs'

await go(async (method, url, body) => {
  const response = await new Promise((resolve, reject) => {
    request(url, { method }, resolve).on('error', reject).end(body)
  })
  return [response.statusCode, await buffer(response)]
})
