import axios from 'axios'
import { go } from './steps.mjs'

await go(async (method, url, data) => {
  const response = await axios({ method, url, data, responseType: 'arraybuffer' })
  return [response.status, response.data]
})
