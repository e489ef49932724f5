import got from 'got'
import { go } from './steps.mjs'

await go(async (method, url, body) => {
  const response = await got(url, { method, body, responseType: 'buffer', retry: { limit: 0 } })
  return [response.statusCode, response.body]
})
