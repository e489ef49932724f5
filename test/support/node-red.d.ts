/** The part of Node-RED that the tests use; the package ships no types. */
declare module 'node-red' {
  import type { RequestListener, Server } from 'node:http'

  const red: {
    readonly httpAdmin: RequestListener
    init(server: Server, settings: object): void
    start(): Promise<void>
    stop(): Promise<void>
  }
  export default red
}
