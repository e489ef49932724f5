import { request } from 'undici'
import { go } from './steps.mjs'

await go(async (method, url, body) => {
  const response = await request(url, { method, body })
  return [response.statusCode, await response.body.arrayBuffer()]
})
