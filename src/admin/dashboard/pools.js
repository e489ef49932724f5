import { post, Unauthorized } from './connection.js'
import { clockTime, duration, element, percent, term } from './element.js'

const OVERHEAD_TARGET = 0.05
const SHOWN_CREDENTIALS = 200
const ACTIONS = ['refresh', 'quarantine', 'release']

/** The pools' cards. They are drawn anew with each state, but keep the focus and never move by themselves. */
export class PoolList {
  #root
  #say
  #pools = []
  /** While a button is held down: its node must live until it is released, or the click is lost. */
  #pressed = false

  constructor(root, say) {
    this.#root = root
    this.#say = say
    root.addEventListener('pointerdown', () => {
      this.#pressed = true
    })
    for (const end of ['pointerup', 'pointercancel']) {
      window.addEventListener(end, () => {
        this.#pressed = false
      })
    }
    // Time passes between two states: the bars run on by themselves.
    setInterval(() => this.#runBars(), 1000)
  }

  replace(pools) {
    this.#pools = pools
    if (this.#pressed) return
    const focused = document.activeElement?.dataset?.key
    this.#root.replaceChildren(
      ...(pools.length > 0
        ? pools.map((pool) => this.#card(pool))
        : [element('p', { class: 'empty' }, 'No pools are configured.')]),
    )
    this.#runBars()
    if (!focused) return
    for (const node of this.#root.querySelectorAll('[data-key]')) {
      if (node.dataset.key === focused) node.focus({ preventScroll: true })
    }
  }

  #card(pool) {
    const { tokens } = pool
    const overhead = pool.authOverhead >= OVERHEAD_TARGET ? 'warn' : ''
    const hidden = pool.credentials.length - SHOWN_CREDENTIALS
    return element(
      'article',
      { class: 'card', 'aria-label': `Pool ${pool.name}` },
      element(
        'div',
        { class: 'card-head' },
        element('h3', {}, pool.name),
        badge(pool.status),
        element('span', { class: 'targets' }, pool.targets.join(', ')),
      ),
      element(
        'dl',
        { class: 'figures' },
        term('Active', String(tokens.active)),
        term('Cooling', String(tokens.cooling)),
        term('Quarantined', String(tokens.quarantined), {
          class: tokens.quarantined ? 'warn' : '',
        }),
        term('Pending', String(tokens.pending)),
        term('Revoked', String(tokens.revoked), { class: tokens.revoked ? 'bad' : '' }),
        term('Average TTL', duration(pool.avgTtlRemainingSeconds)),
        term('Refresh success', percent(pool.refreshSuccessRate)),
        term('Req / token / min', pool.requestsPerTokenPerMinute.toFixed(1)),
        term('Auth overhead', percent(pool.authOverhead, 2), { class: overhead }),
        term('Waiting', String(pool.waiting), { class: pool.waiting ? 'warn' : '' }),
      ),
      element(
        'ul',
        { class: 'credentials' },
        pool.credentials
          .slice(0, SHOWN_CREDENTIALS)
          .map((credential) => this.#credential(pool, credential)),
      ),
      hidden > 0 ? element('p', { class: 'empty' }, `and ${hidden} more`) : null,
    )
  }

  #credential(pool, credential) {
    const egress = credential.egressAddress
      ? `${credential.egress} (${credential.egressAddress})`
      : credential.egress
    const limits = credential.limits.map(({ limit, used, max }) => `${limit}: ${used} of ${max}`)
    return element(
      'li',
      { class: 'credential' },
      element(
        'div',
        { class: 'credential-name' },
        element('strong', {}, credential.id),
        badge(credential.state),
        credential.subject ? element('span', { class: 'faint' }, credential.subject) : null,
      ),
      lifetime(credential),
      element(
        'dl',
        { class: 'facts' },
        term('Egress', egress),
        term('Next refresh', credential.refreshAt ? clockTime(credential.refreshAt) : '–'),
        term('Generation', String(credential.generation)),
        term('Uses', String(credential.uses)),
        term('In flight', String(credential.inFlight)),
        limits.length > 0 ? term('Limits', limits.join(', '), { class: 'wide' }) : null,
        credential.cooldownUntil ? term('Rests until', clockTime(credential.cooldownUntil)) : null,
      ),
      element(
        'div',
        { class: 'actions' },
        ACTIONS.map((action) => this.#button(pool, credential, action)),
      ),
      credential.lastError ? element('p', { class: 'error' }, credential.lastError) : null,
    )
  }

  #button(pool, credential, action) {
    const path = `/api/pools/${encodeURIComponent(pool.name)}/credentials/${encodeURIComponent(credential.id)}/${action}`
    const resting = credential.state === 'quarantined' || credential.state === 'revoked'
    const useless =
      (action === 'release' && !resting && credential.state !== 'cooling') ||
      (action === 'quarantine' && resting)
    return element(
      'button',
      {
        type: 'button',
        'data-key': path,
        'aria-label': `${action} ${credential.id}`,
        disabled: useless,
        onclick: (event) => this.#act(event.currentTarget, path),
      },
      action[0].toUpperCase() + action.slice(1),
    )
  }

  async #act(button, path) {
    button.disabled = true
    this.#say('')
    try {
      const changed = await post(path)
      const name = decodeURIComponent(path.split('/')[3])
      this.replace(
        this.#pools.map((pool) =>
          pool.name !== name
            ? pool
            : {
                ...pool,
                credentials: pool.credentials.map((known) =>
                  known.id === changed.id ? changed : known,
                ),
              },
        ),
      )
    } catch (error) {
      button.disabled = false
      this.#say(error instanceof Unauthorized ? 'The admin token has changed.' : error.message)
    }
  }

  #runBars() {
    const now = Date.now()
    for (const bar of this.#root.querySelectorAll('.ttl')) {
      const expires = Number(bar.dataset.expires)
      const left = Math.max(0, (expires - now) / 1000)
      const whole = (expires - Number(bar.dataset.issued)) / 1000
      const share = whole > 0 ? Math.min(1, left / whole) : 0
      bar.setAttribute('aria-valuenow', String(Math.round(share * 100)))
      bar.setAttribute('aria-valuetext', left > 0 ? `${duration(left)} left` : 'expired')
      bar.dataset.level = share > 0.25 ? 'good' : share > 0.1 ? 'low' : 'out'
      bar.firstElementChild.style.width = `${share * 100}%`
      bar.nextElementSibling.textContent = left > 0 ? `${duration(left)} left` : 'expired'
    }
  }
}

function badge(state) {
  return element('span', { class: 'badge', 'data-state': state }, state)
}

function lifetime(credential) {
  if (!credential.expiresAt || !credential.issuedAt) {
    const text = credential.generation > 0 ? 'no known end' : 'no token yet'
    return element('div', { class: 'lifetime' }, element('span', { class: 'faint' }, text))
  }
  return element(
    'div',
    { class: 'lifetime' },
    element(
      'div',
      {
        class: 'ttl',
        role: 'meter',
        'aria-label': `Lifetime left of ${credential.id}`,
        'aria-valuemin': '0',
        'aria-valuemax': '100',
        'data-issued': Date.parse(credential.issuedAt),
        'data-expires': Date.parse(credential.expiresAt),
      },
      element('span'),
    ),
    element('span', { class: 'faint' }),
  )
}
