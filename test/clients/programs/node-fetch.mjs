import { go } from './steps.mjs'

await go(async (method, url, body) => {
  const response = await fetch(url, { method, body })
  return [response.status, await response.arrayBuffer()]
})
