export type Severity = 'ok' | 'warn' | 'fail'

/** What one look has found, and how to mend it. */
export interface Finding {
  /** What was looked at: `ca`, `egress`, … */
  readonly check: string
  readonly status: Severity
  readonly message: string
  readonly mend?: string
}

/** Makes the findings of one kind of check. */
export function findings(check: string) {
  return {
    ok: (message: string): Finding => ({ check, status: 'ok', message }),
    warn: (message: string, mend: string): Finding => ({ check, status: 'warn', message, mend }),
    fail: (message: string, mend: string): Finding => ({ check, status: 'fail', message, mend }),
  }
}
