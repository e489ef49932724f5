import type { LoginSourceConfig, LoginStepConfig } from '../config/login.ts'
import type { SourceError } from '../errors.ts'
import { Secret } from '../lib/secret.ts'
import { readToken } from '../token/jwt.ts'
import type { TokenSet } from '../token/token.ts'
import { CookieJar } from './cookie-jar.ts'
import { readExpiry } from './expiry.ts'
import { extractFrom, judgeAnswer, StepError } from './login-answer.ts'
import { asksFor, carriesCredentials, renderOptional, renderStep } from './login-request.ts'
import { sendStep } from './login-send.ts'
import { Restraint } from './restraint.ts'
import type { Source, SourceContext, SourceVars } from './source.ts'

/** Tokens by HTTP requests as the operator wrote them down. */
class LoginSource implements Source {
  readonly renewable = true
  readonly #config: LoginSourceConfig
  readonly #vars: ReadonlyMap<string, Secret>
  readonly #restraint = new Restraint()

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
      const { scope } = await this.#run('login', config.steps, this.#vars, context)
      const set = readSet((key) => renderOptional(config[key], scope), context)
      this.#restraint.succeeded()
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
    const { scope, found } = await this.#run('refresh', refresh.steps, before, context)
    // For a token and for the login's own templates only what these steps have found counts: else `{token}`
    // were the old one.
    const fresh = new Map([...this.#vars, ...found])
    const set = readSet(
      (key) =>
        renderOptional(refresh[key], key === 'token' ? fresh : scope) ??
        renderOptional(this.#config[key], fresh),
      context,
    )
    return set.refreshToken ? set : { ...set, refreshToken }
  }

  /** Sends the steps one after the other; returns what they have found, and all values that there are then. */
  async #run(
    what: 'login' | 'refresh',
    steps: readonly LoginStepConfig[],
    given: ReadonlyMap<string, Secret>,
    context: SourceContext,
  ): Promise<Record<'scope' | 'found', ReadonlyMap<string, Secret>>> {
    const scope = new Map(given)
    const found = new Map<string, Secret>()
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
      for (const [name, value] of extractFrom(answer, step, sent, where)) {
        scope.set(name, value)
        found.set(name, value)
      }
    }
    return { scope, found }
  }

  #consequence(error: StepError): SourceError {
    if (error.fault === 'refused') return this.#restraint.refused(error.message)
    return error.fault === 'unclear' ? this.#restraint.unclear(error.message) : error
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
