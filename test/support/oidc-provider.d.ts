/** The part of oidc-provider that the auth server uses; the package ships no types. */
declare module 'oidc-provider' {
  import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http'

  export interface Model {
    jti: string
    save(): Promise<string>
  }

  export interface GrantModel extends Model {
    addOIDCScope(scope: string): void
    addResourceScope(resource: string, scope: string): void
  }

  export interface Context {
    readonly req: IncomingMessage
    readonly res: ServerResponse
    /** False where the answer has gone out by `res`. */
    respond?: boolean
    readonly path: string
    status: number
    body: unknown
    readonly oidc?: {
      readonly params?: Readonly<Record<string, string | undefined>>
      readonly client?: { readonly clientId: string }
      readonly entities: { readonly AccessToken?: { readonly grantId?: string } }
    }
  }

  export class Provider {
    constructor(issuer: string, configuration: Record<string, unknown>)
    readonly Grant: new (
      fields: Record<string, unknown>,
    ) => GrantModel
    readonly RefreshToken: new (
      fields: Record<string, unknown>,
    ) => Model
    readonly AccessToken: new (
      fields: Record<string, unknown>,
    ) => Model
    registerGrantType(
      name: string,
      handler: (context: Context) => Promise<void>,
      parameters: readonly string[],
    ): void
    interactionFinished(
      request: IncomingMessage,
      response: ServerResponse,
      result: object,
    ): Promise<void>
    readonly Client: { find(id: string): Promise<object | undefined> }
    callback(): RequestListener
    use(middleware: (context: Context, next: () => Promise<void>) => Promise<void>): void
    on(
      event: 'grant.error',
      listener: (context: Context, error: { error: string; error_detail?: string }) => void,
    ): this
    on(event: 'grant.revoked', listener: (context: Context, grantId: string) => void): this
    on(event: 'server_error', listener: (context: Context, error: Error) => void): this
  }

  export default Provider
}
