interface Payload {
  consumed?: number
  grantId?: string
  uid?: string
  userCode?: string
  [member: string]: unknown
}

/** What an auth server keeps; the provider's own memory store forgets after 1,000 entries. */
export interface AuthStore {
  readonly payloads: Map<string, Payload>
  /** Access tokens as they were handed out, JWTs too. */
  readonly accessTokens: Map<string, { expiresAt: number; grantId: string | undefined }>
  reuseDetected: number
}

export function createAuthStore(): AuthStore {
  return { payloads: new Map(), accessTokens: new Map(), reuseDetected: 0 }
}

/** One model's view of the store, in the shape that oidc-provider asks for. */
export function adapterFor(store: AuthStore, model: string) {
  const { payloads } = store
  const key = (id: string) => `${model}:${id}`
  const findBy = (member: 'uid' | 'userCode', value: string) =>
    [...payloads].find(
      ([name, load]) => name.startsWith(`${model}:`) && load[member] === value,
    )?.[1]
  return {
    async upsert(id: string, payload: Payload) {
      payloads.set(key(id), payload)
    },
    async find(id: string) {
      return payloads.get(key(id))
    },
    async findByUid(uid: string) {
      return findBy('uid', uid)
    },
    async findByUserCode(userCode: string) {
      return findBy('userCode', userCode)
    },
    async consume(id: string) {
      const payload = payloads.get(key(id))
      if (!payload) return
      // Two that were let through at the same moment: the provider would miss it.
      if (payload.consumed) store.reuseDetected += 1
      payload.consumed = Math.floor(Date.now() / 1000)
    },
    async destroy(id: string) {
      payloads.delete(key(id))
    },
    async revokeByGrantId(grantId: string) {
      for (const [name, payload] of payloads) {
        if (name.startsWith(`${model}:`) && payload.grantId === grantId) payloads.delete(name)
      }
    },
  }
}
