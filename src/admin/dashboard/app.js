import { follow, forgetToken, get, keepToken, takeToken, Unauthorized } from './connection.js'
import { PoolList } from './pools.js'
import { TraceList } from './traces.js'

const byId = (id) => document.getElementById(id)
const RELOAD_MS = 2_000

const notice = byId('notice')
let session

function say(message) {
  notice.textContent = message
  notice.hidden = message === ''
}

const pools = new PoolList(byId('pools'), say)
const traces = new TraceList({
  rows: byId('traces'),
  empty: byId('no-traces'),
  detail: byId('detail'),
  filter: byId('filter'),
  pause: byId('pause'),
})

function showConnection(state, text) {
  byId('connection').dataset.state = state
  byId('connection').textContent = text
}

function showLogin(message = '') {
  session?.abort()
  forgetToken()
  showConnection('', '')
  byId('login-error').textContent = message
  byId('login').hidden = false
  byId('content').hidden = true
  byId('forget').hidden = true
  byId('token').focus()
}

/** Credentials come with the pools' full state, read again at most every two seconds while figures change. */
function reloader(signal) {
  let waiting = false
  return () => {
    if (waiting) return
    waiting = true
    setTimeout(async () => {
      waiting = false
      if (signal.aborted) return
      try {
        pools.replace((await get('/api/pools')).pools)
      } catch (error) {
        // Anything else shows in the stream, which reconnects by itself.
        if (error instanceof Unauthorized && !signal.aborted) showLogin(error.message)
      }
    }, RELOAD_MS)
  }
}

async function open() {
  session = new AbortController()
  const reload = reloader(session.signal)
  byId('login').hidden = true
  byId('content').hidden = false
  byId('forget').hidden = false
  showConnection('waiting', 'connecting')
  try {
    await follow(
      {
        async connected() {
          const [state, latest] = await Promise.all([get('/api/pools'), get('/api/traces')])
          pools.replace(state.pools)
          traces.replace(latest.traces)
          showConnection('live', 'live')
          say('')
        },
        disconnected(reason) {
          showConnection('waiting', reason ? `reconnecting: ${reason}` : 'reconnecting')
        },
        event(name, data) {
          if (name === 'trace') traces.add(data)
          else reload()
        },
      },
      session.signal,
    )
  } catch (error) {
    showLogin(error.message)
  }
}

byId('login').addEventListener('submit', (event) => {
  event.preventDefault()
  keepToken(byId('token').value.trim())
  byId('token').value = ''
  open()
})
byId('forget').addEventListener('click', () => showLogin())

if (takeToken()) open()
else showLogin()
