import { useState } from 'preact/hooks'
import { signInByToken } from './session.ts'

/** The door: a link from the command line opens it without this page. */
export function SignIn({ problem, onDone }: { problem: string; onDone: () => void }) {
  const [told, setTold] = useState(problem)
  const [busy, setBusy] = useState(false)
  const submit = async (event: Event) => {
    event.preventDefault()
    const form = event.currentTarget as HTMLFormElement
    const token = String(new FormData(form).get('token')).trim()
    form.reset()
    setBusy(true)
    const result = await signInByToken(token)
    setBusy(false)
    if (result === 'done') onDone()
    else setTold(result)
  }
  return (
    <main class="sign-in">
      <form onSubmit={submit}>
        <h1>
          <Mark /> Cupbearer
        </h1>
        <p>
          <code>cupbearer dashboard</code> prints a link that signs you in.
        </p>
        <label for="token">Or enter the admin token</label>
        <input id="token" name="token" type="password" autocomplete="off" required />
        <p class="faint">
          The file <code>admin-token</code> in the data folder has it. It is not kept: this tab gets
          a session of 12 hours.
        </p>
        {told && (
          <p class="bad" role="alert">
            {told}
          </p>
        )}
        <button type="submit" class="primary" disabled={busy}>
          {busy ? 'Signing in…' : 'Sign in'}
        </button>
      </form>
    </main>
  )
}

/** The cup. */
export function Mark() {
  return (
    <svg class="brand-mark" viewBox="0 0 16 16" width="18" height="18" aria-hidden="true">
      <path d="M3 2h10c0 4-1.5 7-4 7.6V13h2.5v1.5h-7V13H7V9.6C4.5 9 3 6 3 2z" />
    </svg>
  )
}
