// undici declares the types of its index only; its package has no `exports`, so that its files can be asked for.
declare module 'undici/lib/dispatcher/agent.js' {
  export { Agent as default } from 'undici'
}
declare module 'undici/lib/web/fetch/index.js' {
  export { fetch } from 'undici'
}
