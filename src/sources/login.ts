import type { LoginSourceConfig, LoginStepConfig } from '../config/login.ts'
import { SourceError } from '../errors.ts'
import { Secret } from '../lib/secret.ts'
import { readToken } from '../token/jwt.ts'
import type { TokenSet } from '../token/token.ts'
import { CookieJar } from './cookie-jar.ts'
import { readExpiry } from './expiry.ts'
import { extractFrom, judgeAnswer, StepError } from './login-answer.ts'
import { asksFor, carriesCredentials, renderOptional, renderStep } from './login-request.ts'
import { sendStep } from './login-send.ts'
import type { Source, SourceContext, SourceVars } from './source.ts'

/**
 * The least rests, ms, between logins that fail in a way that could be a wrong password; the failure after the
 * last ends them. Servers lock accounts after three to five, and one try should be left to the operator.
 */
const UNCLEAR_RESTS_MS = [5_000, 60_000]

/** Tokens by HTTP requests as the operator wrote them down. Remembers only how often it failed in a row. */
class LoginSource implements Source {
  readonly renewable = true
  readonly #config: LoginSourceConfig
  readonly #vars: ReadonlyMap<string, Secret>
  #unclear = 0

  constructor(config: LoginSourceConfig, vars: SourceVars) {
    this.#config = config
    this.#vars = new Map(Object.entries(vars))
  }

  async obtain(previous: TokenSet | undefined, context: SourceContext): Promise<TokenSet> {
    const { refresh } = this.#config
    if (!refresh || !previous || !canRefresh(refresh.steps, previous)) {
      return this.#login(context)
    }
    try {
      return await this.#refresh(refresh, previous, context)
    } catch (error) {
      // What failed on the way, or a server without time, says nothing against the refresh token.
      if (!(error instanceof StepError) || error.fault === 'busy') throw error
      return this.#login(context)
    }
  }

  async #login(context: SourceContext): Promise<TokenSet> {
    const config = this.#config
    try {
      const scope = await this.#run('login', config.steps, this.#vars, context)
      const set = readSet((key) => renderOptional(config[key], scope), context)
      this.#unclear = 0
      return set
    } catch (error) {
      throw error instanceof StepError ? this.#consequence(error) : error
    }
  }

  async #refresh(
    refresh: NonNullable<LoginSourceConfig['refresh']>,
    { token, refreshToken }: TokenSet,
    context: SourceContext,
  ): Promise<TokenSet> {
    const before = new Map(this.#vars).set('token', token)
    if (refreshToken) before.set('refreshToken', refreshToken)
    const scope = await this.#run('refresh', refresh.steps, before, context)
    // For the login's own templates only what these steps have found counts: else `{token}` were the old one.
    const found = new Map(this.#vars)
    for (const name of refresh.steps.flatMap((step) => Object.keys(step.extract))) {
      const value = scope.get(name)
      if (value) found.set(name, value)
    }
    const set = readSet(
      (key) => renderOptional(refresh[key], scope) ?? renderOptional(this.#config[key], found),
      context,
    )
    return set.refreshToken ? set : { ...set, refreshToken }
  }

  /** Sends the steps one after the other; returns all values that there are then. */
  async #run(
    what: 'login' | 'refresh',
    steps: readonly LoginStepConfig[],
    given: ReadonlyMap<string, Secret>,
    context: SourceContext,
  ): Promise<ReadonlyMap<string, Secret>> {
    const scope = new Map(given)
    const names = new Set(this.#vars.keys())
    const jar = new CookieJar()
    const origins = new Set<string>()
    let from: URL | undefined
    let credentialsBefore = false
    for (const [index, step] of steps.entries()) {
      const label = `${what} step ${index + 1}`
      const request = renderStep(step, scope, { label, origins, from })
      const credentials = carriesCredentials(step, names)
      credentialsBefore ||= credentials
      const expected = step.expect?.status ?? []
      const { answer, url } = await sendStep(request, jar, expected, label, context)
      origins.add(request.url.origin).add(url.origin)
      from = url
      const where = `${label} (${request.method} ${request.url.host})`
      const sent = { credentials, credentialsBefore }
      judgeAnswer(answer, step, sent, where, context)
      for (const [name, value] of extractFrom(answer, step, sent, where)) scope.set(name, value)
    }
    return scope
  }

  /** A refused login is not tried again: an account that is locked is worse than one that waits. */
  #consequence(error: StepError): SourceError {
    const advice = 'check the user name and password, then release the credential'
    if (error.fault === 'refused') {
      return new SourceError('revoked', `login refused: ${error.message}; ${advice}`)
    }
    if (error.fault !== 'unclear') return error
    this.#unclear += 1
    const retryAfterMs = UNCLEAR_RESTS_MS[this.#unclear - 1]
    if (retryAfterMs !== undefined) {
      return new SourceError('transient', error.message, { retryAfterMs })
    }
    this.#unclear = 0
    return new SourceError(
      'revoked',
      `login given up after ${UNCLEAR_RESTS_MS.length + 1} failures in a row, before the account is locked: ${error.message}; ${advice}`,
    )
  }
}

/** Makes a source of tokens by scripted HTTP requests. */
export function loginSource(
  config: LoginSourceConfig,
  options: { vars?: SourceVars | undefined } = {},
): Source {
  return new LoginSource(config, options.vars ?? {})
}

function readSet(
  value: (key: 'token' | 'refreshToken' | 'expiresIn') => string | undefined,
  context: SourceContext,
): TokenSet {
  const token = value('token')
  if (token === undefined) throw new StepError('other', 'the steps found no token')
  const refreshToken = value('refreshToken')
  return readToken(token, {
    receivedAt: context.clock.now(),
    ...readExpiry(value('expiresIn') ?? ''),
    refreshToken: refreshToken === undefined ? undefined : new Secret(refreshToken),
  })
}

/** Whether the steps can do without a refresh token, or there is one. */
function canRefresh(steps: readonly LoginStepConfig[], { refreshToken }: TokenSet): boolean {
  return refreshToken !== undefined || !steps.some((step) => asksFor(step, 'refreshToken'))
}
